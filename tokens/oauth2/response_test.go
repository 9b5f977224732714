package oauth2_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"

	xoauth2 "golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// respond answers a token request as an endpoint does.
func respond(t *testing.T, r *http.Request, check func(*oauth2.TokenRequest) error) *http.Response {
	t.Helper()
	rec := httptest.NewRecorder()
	body, err := io.ReadAll(r.Body)
	must(t, err)
	req, err := oauth2.ParseTokenRequest(string(body))
	must(t, err)
	must(t, check(req))
	rec.Header().Set("Content-Type", "application/json")
	must(t, json.NewEncoder(rec).Encode(oauth2.TokenResponse{AccessToken: "the-token", TokenType: "Bearer", ExpiresIn: 900, Scope: req.Scope}))
	return rec.Result()
}

func clientToken(t *testing.T, client *http.Client, config clientcredentials.Config, style int) (string, error) {
	t.Helper()
	config.AuthStyle = xoauth2.AuthStyle(style)
	token, err := config.Token(context.WithValue(t.Context(), xoauth2.HTTPClient, client))
	if err != nil {
		return "", err
	}
	return token.AccessToken, nil
}

func text(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	must(t, err)
	return string(raw)
}

func TestResponses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		value any
		want  string
	}{
		{oauth2.TokenResponse{AccessToken: "t", TokenType: "Bearer", ExpiresIn: 900}, `{"access_token":"t","token_type":"Bearer","expires_in":900}`},
		{oauth2.IntrospectionResponse{}, `{"active":false}`},
		// RFC 7662 section 2.2: nothing else is said of a token that is not active.
		{oauth2.IntrospectionResponse{ClientID: "cli_1", Subject: "cli_1", ExpiresAt: 1}, `{"active":false}`},
		{&oauth2.IntrospectionResponse{Subject: "cli_1"}, `{"active":false}`},
		{
			oauth2.IntrospectionResponse{Active: true, Scope: "a b", ClientID: "cli_1", TokenType: "Bearer", ExpiresAt: 2, IssuedAt: 1, Subject: "cli_1", Issuer: "i", Audience: "a", ID: "tok_1"},
			`{"active":true,"scope":"a b","client_id":"cli_1","token_type":"Bearer","exp":2,"iat":1,"sub":"cli_1","aud":"a","iss":"i","jti":"tok_1"}`,
		},
		{oauth2.ErrInvalidScope, `{"error":"invalid_scope","error_description":"the scope is malformed or exceeds what the client may have"}`},
	} {
		if got := text(t, test.value); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

// Codes and statuses are those of RFC 6749 section 5.2, and descriptions hold only
// the characters that it allows.
func TestErrors(t *testing.T) {
	t.Parallel()
	allowed := regexp.MustCompile(`^[\x20-\x21\x23-\x5B\x5D-\x7E]+$`)
	all := map[*oauth2.Error]int{
		oauth2.ErrInvalidRequest: 400, oauth2.ErrInvalidClient: 401, oauth2.ErrInvalidGrant: 400, oauth2.ErrUnauthorizedClient: 400,
		oauth2.ErrUnsupportedGrantType: 400, oauth2.ErrInvalidScope: 400, oauth2.ErrUnsupportedTokenType: 400,
		oauth2.ErrTemporarilyUnavailable: 503, oauth2.ErrServer: 500,
	}
	codes := map[string]bool{}
	for e, status := range all {
		if e.Status != status || codes[e.Code] || !allowed.MatchString(e.Description) || e.Error() == "" {
			t.Errorf("%+v, want the status %d", e, status)
		}
		codes[e.Code] = true
		if !errors.Is(fmt.Errorf("around it: %w", &oauth2.Error{Code: e.Code}), e) {
			t.Errorf("%s is not recognised by its code", e.Code)
		}
	}
	for _, other := range []error{oauth2.ErrInvalidGrant, errors.New("invalid_client")} {
		if errors.Is(other, oauth2.ErrInvalidClient) || oauth2.ErrInvalidClient.Is(other) {
			t.Errorf("%v is taken for another error", other)
		}
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	m, err := oauth2.NewMetadata("https://shop.example/auth", oauth2.Endpoints{
		Token: "https://shop.example/auth/oauth2/token", Introspection: "https://shop.example/auth/oauth2/introspect",
	}, []string{"read"})
	must(t, err)
	want := `{"issuer":"https://shop.example/auth","token_endpoint":"https://shop.example/auth/oauth2/token","scopes_supported":["read"],` +
		`"response_types_supported":[],"grant_types_supported":["client_credentials"],"token_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post"],` +
		`"introspection_endpoint":"https://shop.example/auth/oauth2/introspect","introspection_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post"]}`
	if got := text(t, m); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestIssuer(t *testing.T) {
	t.Parallel()
	for issuer, path := range map[string]string{
		"https://shop.example":            "/.well-known/oauth-authorization-server",
		"https://shop.example/":           "/.well-known/oauth-authorization-server",
		"https://shop.example/auth":       "/.well-known/oauth-authorization-server/auth",
		"https://shop.example:8443/a/b/":  "/.well-known/oauth-authorization-server/a/b",
		"http://127.0.0.1:8080/auth":      "/.well-known/oauth-authorization-server/auth",
		"http://[::1]/auth":               "/.well-known/oauth-authorization-server/auth",
		"http://localhost/auth":           "/.well-known/oauth-authorization-server/auth",
		"http://shop.example/auth":        "",
		"https://shop.example/auth?x=1":   "",
		"https://shop.example/auth?":      "",
		"https://shop.example/auth#x":     "",
		"https://user@shop.example/auth":  "",
		"https:///auth":                   "",
		"shop":                            "",
		"":                                "",
		"http://localhost.example/auth":   "",
		"ftp://127.0.0.1/auth":            "",
		"https://shop.example/%zz":        "",
		"http://127.0.0.1.example/auth":   "",
		"javascript://shop.example/%0aa/": "",
	} {
		got, err := oauth2.MetadataPath(issuer)
		_, metadataErr := oauth2.NewMetadata(issuer, oauth2.Endpoints{}, nil)
		if got != path || (err != nil) != (path == "") || (metadataErr != nil) != (path == "") {
			t.Errorf("%q: got %q, %v, %v, want %q", issuer, got, err, metadataErr, path)
		}
	}
}
