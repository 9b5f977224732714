package oauth2_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/mandate-auth/mandate/tokens/oauth2"
)

func TestParseTokenRequest(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, body string
		want       *oauth2.TokenRequest
		err        error
	}{
		{"least", "grant_type=client_credentials", &oauth2.TokenRequest{GrantType: "client_credentials"}, nil},
		{"all", "grant_type=client_credentials&scope=a+b%20c&client_id=cli_1&client_secret=s%2B%26", &oauth2.TokenRequest{
			GrantType: "client_credentials", Scope: "a b c", Form: oauth2.Form{ClientID: "cli_1", ClientSecret: "s+&"},
		}, nil},
		{"empty is left out", "grant_type=client_credentials&scope=&client_id", &oauth2.TokenRequest{GrantType: "client_credentials"}, nil},
		{"unknown is ignored", "x=1&grant_type=client_credentials&resource=a&resource=b", &oauth2.TokenRequest{GrantType: "client_credentials"}, nil},
		{"nothing", "", nil, oauth2.ErrInvalidRequest},
		{"no grant type", "scope=a", nil, oauth2.ErrInvalidRequest},
		{"empty grant type", "grant_type=", nil, oauth2.ErrInvalidRequest},
		{"grant type twice", "grant_type=client_credentials&grant_type=client_credentials", nil, oauth2.ErrInvalidRequest},
		{"scope twice", "grant_type=client_credentials&scope=a&scope=b", nil, oauth2.ErrInvalidRequest},
		{"scope twice, once empty", "grant_type=client_credentials&scope=&scope=b", nil, oauth2.ErrInvalidRequest},
		{"scope twice, once encoded", "grant_type=client_credentials&scope=a&%73cope=b", nil, oauth2.ErrInvalidRequest},
		{"id twice", "grant_type=client_credentials&client_id=a&client_id=a", nil, oauth2.ErrInvalidRequest},
		{"secret twice", "grant_type=client_credentials&client_secret=a&client_secret=b", nil, oauth2.ErrInvalidRequest},
		{"broken escape", "grant_type=client_credentials&scope=%zz", nil, oauth2.ErrInvalidRequest},
		{"semicolon", "grant_type=client_credentials;scope=a", nil, oauth2.ErrInvalidRequest},
		{"JSON", `{"grant_type":"client_credentials"}`, nil, oauth2.ErrInvalidRequest},
		{"too long", "grant_type=client_credentials&x=" + strings.Repeat("a", 16<<10), nil, oauth2.ErrInvalidRequest},
		{"password grant", "grant_type=password&username=a&password=b", nil, oauth2.ErrUnsupportedGrantType},
		{"another case", "grant_type=Client_Credentials", nil, oauth2.ErrUnsupportedGrantType},
	} {
		got, err := oauth2.ParseTokenRequest(test.body)
		if diff := cmp.Diff(test.want, got); diff != "" || !errors.Is(err, test.err) {
			t.Errorf("%s: %v, want %v (-want +got):\n%s", test.name, err, test.err, diff)
		}
	}
}

func TestParseTokenQuery(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		body string
		want *oauth2.TokenQuery
	}{
		{"token=abc", &oauth2.TokenQuery{Token: "abc"}},
		{"token=a%2Bc&token_type_hint=access_token&client_id=i&client_secret=s&grant_type=x", &oauth2.TokenQuery{
			Token: "a+c", TokenTypeHint: "access_token", Form: oauth2.Form{ClientID: "i", ClientSecret: "s"},
		}},
		{"", nil},
		{"token=", nil},
		{"token=a&token=b", nil},
		{"token=a&token_type_hint=b&token_type_hint=c", nil},
		{"token=%", nil},
	} {
		got, err := oauth2.ParseTokenQuery(test.body)
		if diff := cmp.Diff(test.want, got); diff != "" || (test.want == nil) != errors.Is(err, oauth2.ErrInvalidRequest) {
			t.Errorf("%q: %v (-want +got):\n%s", test.body, err, diff)
		}
	}
}

func basic(user string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(user)) }

func TestParseBasic(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, header, id, secret string
		err                      error
	}{
		{"plain", basic("cli_1:mcs_2"), "cli_1", "mcs_2", nil},
		// The example of RFC 6749 section 2.3.1.
		{"RFC 6749", "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3", "s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw", nil},
		{"scheme in lower case", "basic " + basic("a:b")[6:], "a", "b", nil},
		{"several spaces", "Basic   " + basic("a:b")[6:], "a", "b", nil},
		{"encoded", basic("a%3Ab:c+d%2Be%25"), "a:b", "c d+e%", nil},
		{"colons in the secret", basic("a:b:c"), "a", "b:c", nil},
		{"no colon", basic("abc"), "", "", oauth2.ErrInvalidRequest},
		{"broken escape in the id", basic("a%:b"), "", "", oauth2.ErrInvalidRequest},
		{"broken escape in the secret", basic("a:b%zz"), "", "", oauth2.ErrInvalidRequest},
		{"no base64", "Basic !!!", "", "", oauth2.ErrInvalidRequest},
		{"base64 without padding", strings.TrimRight(basic("aa:b"), "="), "", "", oauth2.ErrInvalidRequest},
		{"base64 with a line break", basic("a:b")[:8] + "\n" + basic("a:b")[8:], "", "", oauth2.ErrInvalidRequest},
		{"base64 with loose bits", "Basic YTpiYx==", "", "", oauth2.ErrInvalidRequest},
		{"nothing after the scheme", "Basic", "", "", oauth2.ErrInvalidRequest},
		{"two values", basic("a:b") + ", " + basic("c:d"), "", "", oauth2.ErrInvalidRequest},
		{"too long", basic("a:" + strings.Repeat("b", 4<<10)), "", "", oauth2.ErrInvalidRequest},
		{"no id", basic(":b"), "", "", oauth2.ErrInvalidClient},
		{"no secret", basic("a:"), "", "", oauth2.ErrInvalidClient},
		{"another scheme", "Bearer " + basic("a:b")[6:], "", "", oauth2.ErrInvalidClient},
		{"scheme that begins alike", "Basics " + basic("a:b")[6:], "", "", oauth2.ErrInvalidClient},
		{"empty", "", "", "", oauth2.ErrInvalidClient},
	} {
		id, secret, err := oauth2.ParseBasic(test.header)
		if id != test.id || secret != test.secret || !errors.Is(err, test.err) {
			t.Errorf("%s: got %q, %q, %v, want %q, %q, %v", test.name, id, secret, err, test.id, test.secret, test.err)
		}
	}
}

// One way of authentication in a request, never two and never none.
func TestCredentials(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, header string
		form         oauth2.Form
		id           string
		err          error
	}{
		{"Basic", basic("a:b"), oauth2.Form{}, "a", nil},
		{"form", "", oauth2.Form{ClientID: "a", ClientSecret: "b"}, "a", nil},
		{"Basic and the same id", basic("a:b"), oauth2.Form{ClientID: "a"}, "a", nil},
		{"Basic and another id", basic("a:b"), oauth2.Form{ClientID: "c"}, "", oauth2.ErrInvalidRequest},
		{"both", basic("a:b"), oauth2.Form{ClientID: "a", ClientSecret: "b"}, "", oauth2.ErrInvalidRequest},
		{"Basic and a secret", basic("a:b"), oauth2.Form{ClientSecret: "b"}, "", oauth2.ErrInvalidRequest},
		{"a broken header does not fall through", "Basic !", oauth2.Form{ClientID: "a", ClientSecret: "b"}, "", oauth2.ErrInvalidRequest},
		{"another scheme does not fall through", "Bearer x", oauth2.Form{ClientID: "a", ClientSecret: "b"}, "", oauth2.ErrInvalidClient},
		{"neither", "", oauth2.Form{}, "", oauth2.ErrInvalidClient},
		{"only an id", "", oauth2.Form{ClientID: "a"}, "", oauth2.ErrInvalidClient},
		{"only a secret", "", oauth2.Form{ClientSecret: "b"}, "", oauth2.ErrInvalidClient},
	} {
		id, secret, err := test.form.Credentials(test.header)
		if id != test.id || (secret != "") != (test.err == nil) || !errors.Is(err, test.err) {
			t.Errorf("%s: got %q, %q, %v, want %q, %v", test.name, id, secret, err, test.id, test.err)
		}
	}
}

// roundTrip answers requests with a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzTokenRequest: whatever comes, a parameter that is known comes once or not at
// all, and the one grant is the only one.
func FuzzTokenRequest(f *testing.F) {
	for _, seed := range []string{
		"grant_type=client_credentials", "grant_type=client_credentials&scope=a+b&client_id=c&client_secret=d",
		"grant_type=client_credentials&grant_type=x", "scope=&scope=", "%", ";", "grant_type=password", "token=a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		values, parseErr := url.ParseQuery(body)
		for _, read := range []func() (any, error){
			func() (any, error) { return oauth2.ParseTokenRequest(body) },
			func() (any, error) { return oauth2.ParseTokenQuery(body) },
		} {
			got, err := read()
			if err != nil {
				var oauthError *oauth2.Error
				if !errors.As(err, &oauthError) || oauthError.Status < 400 {
					t.Fatalf("%q: an error that no client can read: %v", body, err)
				}
				continue
			}
			if parseErr != nil {
				t.Fatalf("%q: not a form and accepted", body)
			}
			if r, ok := got.(*oauth2.TokenRequest); ok && (r.GrantType != oauth2.GrantClientCredentials || len(values["scope"]) > 1 ||
				len(values["client_id"]) > 1 || r.Scope != values.Get("scope") || r.ClientID != values.Get("client_id")) {
				t.Fatalf("%q: read as %+v", body, r)
			}
		}
	})
}

// FuzzBasic: what is read, written again as the RFC says, is read as the same.
func FuzzBasic(f *testing.F) {
	for _, seed := range []string{basic("a:b"), basic("a%3A:b+c"), basic("a"), basic(":"), "Basic", "basic !", "Bearer x", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		id, secret, err := oauth2.ParseBasic(header)
		if err != nil {
			if id != "" || secret != "" {
				t.Fatalf("%q: credentials come with %v", header, err)
			}
			return
		}
		again := basic(url.QueryEscape(id) + ":" + url.QueryEscape(secret))
		if len(again) > 4<<10 {
			return
		}
		if id2, secret2, err := oauth2.ParseBasic(again); id2 != id || secret2 != secret || err != nil {
			t.Fatalf("%q: %q, %q read again as %q, %q, %v", header, id, secret, id2, secret2, err)
		}
	})
}

// What golang.org/x/oauth2 sends is read, by Basic and by form.
func TestForeignClient(t *testing.T) {
	t.Parallel()
	const id, secret = "cli_1", "a secret+with %&: signs"
	for _, style := range []int{1, 2} { // in the form, in the header
		var id2, secret2, scope string
		client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			rec := respond(t, r, func(req *oauth2.TokenRequest) (err error) {
				scope = req.Scope
				id2, secret2, err = req.Credentials(r.Header.Get("Authorization"))
				return err
			})
			return rec, nil
		})}
		token, err := clientToken(t, client, clientcredentials.Config{
			ClientID: id, ClientSecret: secret, Scopes: []string{"read", "write"}, TokenURL: "https://shop.example/oauth2/token",
		}, style)
		must(t, err)
		if id2 != id || secret2 != secret || scope != "read write" || token != "the-token" {
			t.Errorf("style %d: %q, %q, %q, %q", style, id2, secret2, scope, token)
		}
	}
}
