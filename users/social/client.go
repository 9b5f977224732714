package social

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/internal/strictjwt"
)

const (
	// timeout bounds each call.
	timeout = 10 * time.Second
	// maxBody bounds each answer in bytes.
	maxBody = 1 << 20
)

// errNoAnswer says that a provider did not answer, or that it could not serve.
var errNoAnswer = errors.New("no answer")

// newClient returns the client that calls, and its transport if that is ours to close.
func newClient(given *http.Client) (*http.Client, *http.Transport) {
	client, own := &http.Client{Timeout: timeout}, (*http.Transport)(nil)
	if given != nil {
		client.Timeout = cmp.Or(given.Timeout, timeout)
		client.Transport = guard{cmp.Or(given.Transport, http.DefaultTransport)}
	} else {
		own = &http.Transport{
			DialContext:            (&net.Dialer{Timeout: timeout}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConns:           16,
			IdleConnTimeout:        30 * time.Second,
			DisableCompression:     true, // without packing there is nothing to unpack
		}
		client.Transport = guard{own}
	}
	// The guard refuses them before; this is for a transport that is none of ours.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client, own
}

// guard lets only answers through that are bounded, are where they were asked for,
// and, where they say 200, are strict JSON. Whatever parser comes behind it, that of
// golang.org/x/oauth2 too, cannot read them in two ways.
type guard struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (g guard) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("Accept", "application/json")
	response, err := g.next.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	defer func() { _ = response.Body.Close() }()
	switch status := response.StatusCode; {
	case status >= 300 && status < 400:
		return nil, errors.New("a redirect, which is not followed")
	case status >= 500 || status == http.StatusTooManyRequests:
		return nil, fmt.Errorf("%w: status %d", errNoAnswer, status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("more than %d bytes", maxBody)
	}
	if response.StatusCode < 300 { // the library takes every 2xx
		if err := checkJSON(response.Header, body); err != nil {
			return nil, err
		}
	}
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return response, nil
}

func checkJSON(header http.Header, body []byte) error {
	media, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil || (media != "application/json" && (!strings.HasPrefix(media, "application/") || !strings.HasSuffix(media, "+json"))) {
		return errors.New("an answer that does not say it is JSON")
	}
	_, err = strictjwt.Value(body)
	return err
}

// get fetches a JSON value; bearer is the access token that it is asked for with, ""
// for none. Numbers are json.Number.
func (s *Set) get(ctx context.Context, address, bearer string) (any, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, err
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return nil, nil, noAnswer(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s: status %d", address, response.StatusCode)
	}
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, nil, err
	}
	value, err := strictjwt.Value(raw)
	return value, raw, err
}

// getObject is get for what has to be an object.
func (s *Set) getObject(ctx context.Context, address, bearer string) (map[string]any, error) {
	value, _, err := s.get(ctx, address, bearer)
	if err != nil {
		return nil, err
	}
	members, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s: not an object", address)
	}
	return members, nil
}

// noAnswer marks an error of a client as none of the provider's making when time ran
// out or the caller gave up.
func noAnswer(ctx context.Context, err error) error {
	var network net.Error
	if !errors.Is(err, errNoAnswer) && (ctx.Err() != nil || (errors.As(err, &network) && network.Timeout())) {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	return err
}
