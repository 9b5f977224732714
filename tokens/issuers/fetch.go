package issuers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/internal/strictjwt"
)

// newClient returns the client that fetches, and its transport if that is ours to
// close.
func newClient(c *Config) (*http.Client, *http.Transport) {
	client, own := &http.Client{}, (*http.Transport)(nil)
	if c.Client != nil {
		client.Transport, client.Timeout = c.Client.Transport, c.Client.Timeout
	} else {
		own = &http.Transport{
			DialContext:            (&net.Dialer{Timeout: c.Timeout}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConns:           2,
			IdleConnTimeout:        30 * time.Second,
			// A body that grows by unpacking is bounded all the same; without packing
			// there is nothing to unpack.
			DisableCompression: true,
		}
		client.Transport = own
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client, own
}

// fetch gets the issuer's keys. now is when the caller began to ask: the keys are
// not taken to be younger than that.
func (s *source) fetch(ctx context.Context, now time.Time) (set *keySet, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	// The answer is a stranger's: if a parser trips over it, it is refused and the
	// service goes on.
	defer func() {
		if r := recover(); r != nil {
			set, err = nil, fmt.Errorf("JWK Set: the parser failed: %v", r)
		}
	}()
	address := s.config.JWKSURL
	if address == "" {
		if address, err = s.discover(ctx); err != nil {
			return nil, err
		}
	}
	raw, header, err := s.get(ctx, address)
	if err != nil {
		return nil, err
	}
	keys, ignored, err := strictjwt.ParseKeys(raw, s.config.Algorithms)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	s.report(keys, ignored)
	life := s.config.life(header)
	return &keySet{
		keys: keys, soft: now.Add(life * 4 / 5), stale: now.Add(life), dead: now.Add(s.config.MaxStale),
	}, nil
}

// discover asks the issuer where its keys are.
func (s *source) discover(ctx context.Context) (string, error) {
	issuer, err := s.config.checkURL(s.config.Issuer)
	if err != nil {
		return "", err
	}
	path := strings.TrimSuffix(issuer.EscapedPath(), "/")
	base := issuer.Scheme + "://" + issuer.Host
	raw, _, err := s.get(ctx, base+path+"/.well-known/openid-configuration")
	if status := (statusError{}); errors.As(err, &status) && status.code == http.StatusNotFound {
		raw, _, err = s.get(ctx, base+"/.well-known/oauth-authorization-server"+path)
	}
	if err != nil {
		return "", fmt.Errorf("discovery: %w", err)
	}
	document, err := strictjwt.Object(raw)
	if err != nil {
		return "", fmt.Errorf("discovery: %w", err)
	}
	if document["issuer"] != any(s.config.Issuer) {
		return "", errors.New("discovery: the document is another issuer's")
	}
	address, _ := document["jwks_uri"].(string)
	return address, s.checkDiscovered(issuer, address)
}

func (s *source) checkDiscovered(issuer *url.URL, address string) error {
	u, err := s.config.checkURL(address)
	if err != nil {
		return fmt.Errorf("discovery: jwks_uri: %w", err)
	}
	if !sameOrigin(issuer, u) {
		return fmt.Errorf("discovery: jwks_uri %q is on another host; configure it, if that is right", address)
	}
	return nil
}

// statusError is an answer other than 200.
type statusError struct {
	address string
	code    int
}

// Error implements error.
func (e statusError) Error() string { return fmt.Sprintf("%s: status %d", e.address, e.code) }

// get fetches one document of at most MaxSize bytes.
func (s *source) get(ctx context.Context, address string) ([]byte, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Accept", "application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, nil, statusError{address, response.StatusCode}
	}
	raw, err := io.ReadAll(io.LimitReader(response.Body, s.config.MaxSize+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", address, err)
	}
	if int64(len(raw)) > s.config.MaxSize {
		return nil, nil, fmt.Errorf("%s: more than %d bytes", address, s.config.MaxSize)
	}
	return raw, response.Header, nil
}

// life returns how long keys with these headers are fresh: what Cache-Control (RFC
// 9111 section 5.2.2) says, but no less than MinRefresh and no more than MaxAge.
func (c *Config) life(h http.Header) time.Duration {
	life := c.MaxAge
	for _, directive := range strings.Split(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			return c.MinRefresh
		case "max-age":
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err == nil {
				life = min(life, time.Duration(seconds)*time.Second)
			}
		}
	}
	return max(life, c.MinRefresh)
}
