package oso

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/tokens/secret"
)

const (
	// maxAnswer is the greatest answer in bytes.
	maxAnswer = 4 << 20
	// maxMessage bounds what is repeated of an error's message.
	maxMessage = 200
	// firstPause and lastPause bound the pauses between repetitions.
	firstPause = 50 * time.Millisecond
	lastPause  = time.Second
)

// client speaks the HTTP API.
type client struct {
	http   *http.Client
	base   string
	config Config
	// offset is what the last write was answered with: reads that carry it see the
	// write.
	offset atomic.Pointer[string]
}

func newClient(base string, config Config) *client {
	transport := config.Transport
	if transport == nil {
		transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
			MaxIdleConns: 64, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: config.Timeout,
			ResponseHeaderTimeout: config.Timeout, ForceAttemptHTTP2: true,
		}
	}
	return &client{
		base: base + "/api", config: config,
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// allowed asks whether an actor may.
func (c *client) allowed(ctx context.Context, q query) (bool, error) {
	raw, err := c.call(ctx, "/authorize", q)
	if err != nil {
		return false, err
	}
	allowed, err := parseAllowed(raw)
	if err != nil {
		return false, unavailable(err)
	}
	return allowed, nil
}

// list asks for names.
func (c *client) list(ctx context.Context, path string, q query) ([]string, error) {
	raw, err := c.call(ctx, path, q)
	if err != nil {
		return nil, err
	}
	results, err := parseResults(raw)
	if err != nil {
		return nil, unavailable(err)
	}
	return results, nil
}

// write stores facts.
func (c *client) write(ctx context.Context, batch []operation) error {
	_, err := c.call(ctx, "/batch", batch)
	return err
}

func unavailable(err error) error { return fmt.Errorf("%w: Oso Cloud: %w", authz.ErrUnavailable, err) }

// statusError is an answer other than 200.
type statusError struct {
	status  int
	message string
	after   time.Duration
}

func (e *statusError) Error() string {
	text := "status " + strconv.Itoa(e.status)
	if e.message != "" {
		text += ": " + e.message
	}
	if e.status == http.StatusUnauthorized || e.status == http.StatusForbidden {
		text += "; look at auth.policy.authorization.api_key"
	}
	return text
}

// again reports whether repeating may help.
func again(err error) (after time.Duration, ok bool) {
	var status *statusError
	if errors.As(err, &status) {
		return status.after, status.status == http.StatusTooManyRequests || status.status >= http.StatusInternalServerError
	}
	var broken *brokenError
	return 0, !errors.As(err, &broken)
}

// brokenError is an answer that cannot be one.
type brokenError struct{ what string }

func (e *brokenError) Error() string { return "the answer " + e.what }

// call sends a body and returns that of an answer of 200, within the deadline. It
// repeats what the server or the network failed at; every call may be repeated:
// questions change nothing, and facts are a set.
func (c *client) call(ctx context.Context, path string, body any) ([]byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("oso: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		answer, err := c.once(ctx, path, raw)
		if err == nil {
			return answer, nil
		}
		after, ok := again(err)
		if !ok || ctx.Err() != nil {
			return nil, unavailable(err)
		}
		// Full jitter: instances that failed together do not come back together.
		wait := max(after, jitter(pause))
		if deadline, _ := ctx.Deadline(); time.Until(deadline) <= wait { //nolint:forbidigo // the context's own clock
			return nil, unavailable(err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, unavailable(errors.Join(ctx.Err(), err))
		}
	}
}

// jitter returns a length of time below the bound.
func jitter(below time.Duration) time.Duration {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(below)))
	if err != nil {
		return below
	}
	return time.Duration(n.Int64())
}

// checkKey refuses a key that could not stand in a header.
func checkKey(key secret.Value) error {
	for _, c := range key.Reveal() {
		if c <= ' ' || c >= 0x7f {
			return errors.New("the API key holds characters that no key has; look for a line break at its end")
		}
	}
	return nil
}

func (c *client) once(ctx context.Context, path string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+string(c.config.APIKey.Reveal()))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("X-OsoApiVersion", "0")
	if offset := c.offset.Load(); offset != nil {
		r.Header.Set("OsoOffset", *offset)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case answer.StatusCode != http.StatusOK:
		return nil, c.refusal(answer, raw)
	case err != nil:
		return nil, err
	case len(raw) > maxAnswer:
		return nil, &brokenError{"is larger than 4 MiB"}
	}
	if offset := answer.Header.Get("OsoOffset"); path == "/batch" && offset != "" {
		c.offset.Store(&offset)
	}
	return raw, nil
}

// refusal is the error that an answer other than 200 is.
func (c *client) refusal(answer *http.Response, raw []byte) error {
	e := &statusError{status: answer.StatusCode}
	var body struct{ Message string }
	if json.Unmarshal(raw, &body) == nil {
		e.message = printable(strings.ReplaceAll(body.Message, string(c.config.APIKey.Reveal()), "[redacted]"))
	}
	if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.after = time.Duration(min(seconds, 3600)) * time.Second
	}
	return e
}

// printable is what of a text may stand in a log.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}

// members reads one JSON object, strictly: names once and as they are written, and
// nothing after the end. What it does not know is left alone, so that the API can
// grow.
func members(raw []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return nil, &brokenError{"is no JSON object"}
	}
	out := map[string]json.RawMessage{}
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		if _, twice := out[name]; err != nil || !ok || twice {
			return nil, &brokenError{"is no JSON object with each name once"}
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, &brokenError{"is no valid JSON"}
		}
		out[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, &brokenError{"is no valid JSON"}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &brokenError{"has something after its end"}
	}
	return out, nil
}

// parseAllowed reads {"allowed": true}: nothing but the word itself allows.
func parseAllowed(raw []byte) (bool, error) {
	body, err := members(raw)
	if err != nil {
		return false, err
	}
	switch string(body["allowed"]) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	default:
		return false, &brokenError{"does not say whether it is allowed"}
	}
}

// parseResults reads {"results": ["…"]}.
func parseResults(raw []byte) ([]string, error) {
	body, err := members(raw)
	if err != nil {
		return nil, err
	}
	var results []*string
	if json.Unmarshal(body["results"], &results) != nil || results == nil {
		return nil, &brokenError{"has no list of results"}
	}
	out := make([]string, len(results))
	for i, r := range results {
		if r == nil {
			return nil, &brokenError{"has a result that is no text"}
		}
		out[i] = *r
	}
	return out, nil
}
