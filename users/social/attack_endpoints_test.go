package social_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/users/social"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// edit changes one member of an answer; nil takes it away.
func edit(name string, value any) func(*http.Request, *socialtest.Answer) {
	return func(_ *http.Request, a *socialtest.Answer) { a.Edit(name, value) }
}

func body(text string) func(*http.Request, *socialtest.Answer) {
	return func(_ *http.Request, a *socialtest.Answer) { a.Body = []byte(text) }
}

// pad makes the answer larger than is read, and still right.
func pad(_ *http.Request, a *socialtest.Answer) {
	a.Body = append(a.Body[:len(a.Body)-1:len(a.Body)-1], (`,"pad":"` + strings.Repeat("x", 10<<20) + `"}`)...)
}

func status(code int) func(*http.Request, *socialtest.Answer) {
	return func(_ *http.Request, a *socialtest.Answer) { a.Status = code }
}

func media(value string) func(*http.Request, *socialtest.Answer) {
	return func(_ *http.Request, a *socialtest.Answer) { a.Header.Set("Content-Type", value) }
}

// bomb packs ten megabytes of spaces into ten kilobytes.
func bomb(_ *http.Request, a *socialtest.Answer) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(append(a.Body, bytes.Repeat([]byte(" "), 10<<20)...))
	_ = w.Close()
	a.Body = packed.Bytes()
	a.Header.Set("Content-Encoding", "gzip")
}

// redirect sends the caller to the same answer at another address.
func redirect(code int) func(*http.Request, *socialtest.Answer) {
	return func(_ *http.Request, a *socialtest.Answer) {
		a.Status = code
		a.Header.Set("Location", "/evil")
	}
}

// reasons are those of what an endpoint answers.
var reasons = map[socialtest.Endpoint]string{
	socialtest.Discovery: "discovery", socialtest.JWKS: "keys", socialtest.Token: "token_endpoint", socialtest.UserInfo: "user_info",
}

// attempt goes the way until it is refused; Begin may be where.
func attempt(t *testing.T, e *env) (*social.Result, error) {
	t.Helper()
	f, err := e.set.Begin(t.Context(), "corp", social.BeginOptions{})
	if err != nil {
		return nil, err
	}
	return e.finish(t, e.provider.Follow(t, f.URL), f.Cookie)
}

// Whatever endpoint answers too much, elsewhere, packed or not in JSON: nobody is signed
// in, and nothing is followed.
func TestHostileAnswersOfEveryEndpoint(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*http.Request, *socialtest.Answer)
		kind   error
		reason string // "" for that of the endpoint
	}{
		{"ten megabytes", pad, social.ErrProvider, ""},
		{"a bomb", bomb, social.ErrProvider, ""},
		{"redirect 302", redirect(http.StatusFound), social.ErrProvider, ""},
		{"redirect 307", redirect(http.StatusTemporaryRedirect), social.ErrProvider, ""},
		{"redirect 308", redirect(http.StatusPermanentRedirect), social.ErrProvider, ""},
		{"HTML", media("text/html; charset=utf-8"), social.ErrProvider, ""},
		{"a form", media("application/x-www-form-urlencoded"), social.ErrProvider, ""},
		{"a JWT", media("application/jwt"), social.ErrProvider, ""},
		{"no content type", media(""), social.ErrProvider, ""},
		{"nothing", body(""), social.ErrProvider, ""},
		{"no JSON", body("<html>"), social.ErrProvider, ""},
		{"null", body("null"), social.ErrProvider, ""},
		{"a list", body("[]"), social.ErrProvider, ""},
		{"a name twice", func(_ *http.Request, a *socialtest.Answer) { a.Body = append([]byte(`{"x":1,"x":2,`), a.Body[1:]...) }, social.ErrProvider, ""},
		{"two values", func(_ *http.Request, a *socialtest.Answer) { a.Body = append(a.Body, "{}"...) }, social.ErrProvider, ""},
		{"nested deep", body(strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000)), social.ErrProvider, ""},
		{"status 500", status(http.StatusInternalServerError), social.ErrProviderUnavailable, "provider_unavailable"},
		{"status 503", status(http.StatusServiceUnavailable), social.ErrProviderUnavailable, "provider_unavailable"},
		{"status 429", status(http.StatusTooManyRequests), social.ErrProviderUnavailable, "provider_unavailable"},
		{"hangs up", func(*http.Request, *socialtest.Answer) { panic(http.ErrAbortHandler) }, social.ErrProviderUnavailable, "provider_unavailable"},
	}
	for endpoint, own := range reasons {
		for _, test := range tests {
			t.Run(own+"/"+test.name, func(t *testing.T) {
				t.Parallel()
				e := setup(t)
				e.provider.Change(endpoint, test.change)
				r, err := attempt(t, e)
				reason := own
				if test.reason != "" {
					reason = test.reason
				}
				refused(t, r, err, test.kind, reason)
				if e.provider.Calls("/evil") != 0 {
					t.Error("the redirect was followed")
				}
			})
		}
	}
}

// A client that unpacks by itself must not unpack without a bound.
func TestBombsAreBoundedForEveryClient(t *testing.T) {
	t.Parallel()
	transport := &http.Transport{}
	e := setup(t, func(e *env, _ *social.ProviderConfig) { e.config.Client = &http.Client{Transport: transport} })
	t.Cleanup(transport.CloseIdleConnections)
	if r := e.mustSignIn(t); r.Info.Subject != "alice-1" {
		t.Errorf("got %+v", r)
	}
	e.provider.Change(socialtest.UserInfo, bomb)
	r, err := attempt(t, e)
	refused(t, r, err, social.ErrProvider, "user_info")
}

// Answers that are good JSON and say what is not accepted.
func TestHostileDocuments(t *testing.T) {
	t.Parallel()
	const evil = "https://evil.example"
	tests := []struct {
		name     string
		endpoint socialtest.Endpoint
		change   func(*http.Request, *socialtest.Answer)
		reason   string
	}{
		{"issuer of another", socialtest.Discovery, edit("issuer", evil), "discovery"},
		{"issuer missing", socialtest.Discovery, edit("issuer", nil), "discovery"},
		{"issuer a list", socialtest.Discovery, edit("issuer", []string{evil}), "discovery"},
		{"authorization endpoint in the clear", socialtest.Discovery, edit("authorization_endpoint", "http://id.example/a"), "discovery"},
		{"authorization endpoint javascript", socialtest.Discovery, edit("authorization_endpoint", "javascript:alert(1)"), "discovery"},
		{"authorization endpoint with a state", socialtest.Discovery, edit("authorization_endpoint", "https://id.example/a?state=x"), "discovery"},
		{"authorization endpoint with a redirect", socialtest.Discovery, edit("authorization_endpoint", "https://id.example/a?Redirect_URI=x"), "discovery"},
		{"authorization endpoint missing", socialtest.Discovery, edit("authorization_endpoint", nil), "discovery"},
		{"token endpoint in the clear", socialtest.Discovery, edit("token_endpoint", "http://id.example/t"), "discovery"},
		{"token endpoint a file", socialtest.Discovery, edit("token_endpoint", "file:///etc/passwd"), "discovery"},
		{"token endpoint with a user", socialtest.Discovery, edit("token_endpoint", "https://a:b@id.example/t"), "discovery"},
		{"token endpoint relative", socialtest.Discovery, edit("token_endpoint", "/token"), "discovery"},
		{"token endpoint missing", socialtest.Discovery, edit("token_endpoint", nil), "discovery"},
		{"user information in the clear", socialtest.Discovery, edit("userinfo_endpoint", "http://id.example/u"), "discovery"},
		{"user information null", socialtest.Discovery, edit("userinfo_endpoint", json.RawMessage("null")), "discovery"},
		{"keys in the clear", socialtest.Discovery, edit("jwks_uri", "http://id.example/jwks"), "discovery"},
		{"keys by another scheme", socialtest.Discovery, edit("jwks_uri", "gopher://id.example/jwks"), "discovery"},
		{"keys missing", socialtest.Discovery, edit("jwks_uri", nil), "discovery"},
		{"algorithms symmetric only", socialtest.Discovery, edit("id_token_signing_alg_values_supported", []string{"HS256", "none"}), "discovery"},
		{"algorithms a text", socialtest.Discovery, edit("id_token_signing_alg_values_supported", "EdDSA"), "discovery"},
		{"algorithms that the token does not have", socialtest.Discovery, edit("id_token_signing_alg_values_supported", []string{"ES256"}), "id_token"},
		{"iss parameter a text", socialtest.Discovery, edit("authorization_response_iss_parameter_supported", "false"), "discovery"},
		{"no keys", socialtest.JWKS, edit("keys", []any{}), "id_token"},
		{"keys an object", socialtest.JWKS, edit("keys", map[string]any{}), "keys"},
		{"keys without end", socialtest.JWKS, edit("keys", make([]any, 200)), "keys"},
		{"no ID token", socialtest.Token, edit("id_token", nil), "token_endpoint"},
		{"ID token null", socialtest.Token, edit("id_token", json.RawMessage("null")), "token_endpoint"},
		{"ID token an object", socialtest.Token, edit("id_token", map[string]any{}), "token_endpoint"},
		{"ID token under another name", socialtest.Token, func(_ *http.Request, a *socialtest.Answer) {
			a.Body = bytes.Replace(a.Body, []byte(`"id_token"`), []byte(`"ID_TOKEN"`), 1)
		}, "token_endpoint"},
		{"no access token", socialtest.Token, edit("access_token", nil), "token_endpoint"},
		{"access token under another name", socialtest.Token, func(_ *http.Request, a *socialtest.Answer) {
			a.Body = bytes.Replace(a.Body, []byte(`"access_token"`), []byte(`"Access_Token"`), 1)
		}, "token_endpoint"},
		{"access token with a line", socialtest.Token, edit("access_token", "a\r\nX: y"), "token_endpoint"},
		{"access token a number", socialtest.Token, edit("access_token", 7), "token_endpoint"},
		{"access token of another sign-in", socialtest.Token, edit("access_token", "other"), "id_token"},
		{"type missing", socialtest.Token, edit("token_type", nil), "token_endpoint"},
		{"type MAC", socialtest.Token, edit("token_type", "mac"), "token_endpoint"},
		{"type DPoP", socialtest.Token, edit("token_type", "DPoP"), "token_endpoint"},
		{"an error with status 200", socialtest.Token, body(`{"error":"bad_verification_code"}`), "code_refused"},
		{"an error beside tokens", socialtest.Token, edit("error", "invalid_grant"), "code_refused"},
		{"status 400", socialtest.Token, status(http.StatusBadRequest), "code_refused"},
		{"status 201 and HTML", socialtest.Token, func(_ *http.Request, a *socialtest.Answer) {
			a.Status, a.Body = http.StatusCreated, []byte("<html>")
		}, "token_endpoint"},
		{"somebody else", socialtest.UserInfo, edit("sub", "mallory-1"), "user_info_subject"},
		{"nobody", socialtest.UserInfo, edit("sub", nil), "user_info_subject"},
		{"a number", socialtest.UserInfo, edit("sub", 1), "user_info_subject"},
		{"SUB", socialtest.UserInfo, func(_ *http.Request, a *socialtest.Answer) {
			a.Body = bytes.Replace(a.Body, []byte(`"sub"`), []byte(`"SUB"`), 1)
		}, "user_info_subject"},
		{"status 401", socialtest.UserInfo, status(http.StatusUnauthorized), "user_info"},
		{"status 204", socialtest.UserInfo, status(http.StatusNoContent), "user_info"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := setup(t)
			e.provider.Change(test.endpoint, test.change)
			r, err := attempt(t, e)
			refused(t, r, err, social.ErrProvider, test.reason)
		})
	}
	t.Logf("%d rows", len(tests))
}

// An endpoint that does not answer costs the caller no more than its patience.
func TestSlowEndpoints(t *testing.T) {
	t.Parallel()
	for endpoint, name := range reasons {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := setup(t)
			if endpoint != socialtest.Discovery {
				// So that only the endpoint in question is slow.
				if _, err := e.set.Begin(t.Context(), "corp", social.BeginOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			entered := make(chan struct{}, 4)
			e.provider.Change(endpoint, func(r *http.Request, _ *socialtest.Answer) {
				entered <- struct{}{}
				<-r.Context().Done()
			})
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-entered
				cancel()
			}()
			f, err := e.set.Begin(ctx, "corp", social.BeginOptions{})
			var r *social.Result
			if err == nil {
				r, err = e.set.Finish(ctx, "corp", e.provider.Follow(t, f.URL), f.Cookie)
			}
			refused(t, r, err, social.ErrProviderUnavailable, "provider_unavailable")
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the cause is lost: %v", err)
			}
		})
		t.Run(name+" without a deadline", func(t *testing.T) {
			t.Parallel()
			transport := &http.Transport{}
			t.Cleanup(transport.CloseIdleConnections)
			e := setup(t, func(e *env, _ *social.ProviderConfig) {
				e.config.Client = &http.Client{Transport: transport, Timeout: 50 * time.Millisecond}
			})
			e.provider.Change(endpoint, func(r *http.Request, _ *socialtest.Answer) { <-r.Context().Done() })
			r, err := attempt(t, e)
			refused(t, r, err, social.ErrProviderUnavailable, "provider_unavailable")
		})
	}
}
