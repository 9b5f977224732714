package social_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/users/social"
)

// paper is a provider without a network that refuses every code.
type paper struct{}

func (paper) RoundTrip(r *http.Request) (*http.Response, error) {
	status, text := http.StatusBadRequest, `{"error":"invalid_grant"}`
	if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
		status, text = http.StatusOK, `{"issuer":"https://id.example","authorization_endpoint":"https://id.example/a","token_endpoint":"https://id.example/t",
			"jwks_uri":"https://id.example/k","authorization_response_iss_parameter_supported":true}`
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text))}, nil
}

// forgetful lets everything be used again, so that one sign-in is enough.
type forgetful struct{}

func (forgetful) Claim(context.Context, string, string, time.Time) error { return nil }

// FuzzCallback looks for a callback that is taken for that of a sign-in and is not, for
// an answer beside an error, for an error of no kind, and for a panic. In its inputs
// STATE and COOKIE stand for those of a sign-in, which differ in each process.
func FuzzCallback(f *testing.F) {
	set := open(f, social.Config{
		App: "shop", Keys: appKeys(f, "shop"), RedirectBase: "https://shop.example/oauth/", Once: forgetful{}, Client: &http.Client{Transport: paper{}},
		Logger:    slog.New(slog.DiscardHandler),
		Providers: []social.ProviderConfig{{Name: "corp", Issuer: "https://id.example", ClientID: "client", ClientSecret: secret.FromString("s")}},
	})
	flow, err := set.Begin(f.Context(), "corp", social.BeginOptions{Next: "/a", Data: []byte("d")})
	if err != nil {
		f.Fatal(err)
	}
	address, err := url.Parse(flow.URL)
	if err != nil {
		f.Fatal(err)
	}
	state := address.Query().Get("state")
	for _, cookie := range []string{"COOKIE", "COOKIEA", "", "mse1.a.b"} {
		f.Add("state=STATE&code=x&iss=https://id.example", cookie)
		f.Add("state=STATE&error=access_denied&iss=https://id.example", cookie)
		f.Add("state=STATE&error=x&code=y&iss=https://id.example", cookie)
		f.Add("state=STATE&state=STATE&code=x", cookie)
		f.Add("code=%00&iss=&state=", cookie)
	}
	f.Fuzz(func(t *testing.T, text, cookie string) {
		query, err := url.ParseQuery(strings.ReplaceAll(text, "STATE", state))
		if err != nil {
			return
		}
		cookie = strings.ReplaceAll(cookie, "COOKIE", flow.Cookie)
		own := cookie == flow.Cookie && len(query["state"]) == 1 && query.Get("state") == state
		if suffix := social.CookieSuffix(query); own && suffix != flow.ID || suffix != "" && len(suffix) != len(flow.ID) || !own && suffix == flow.ID && query.Get("state") != state {
			t.Errorf("%q names the cookie %q", text, suffix)
		}
		r, err := set.Finish(t.Context(), "corp", query, cookie)
		var denied *social.DeniedError
		isDenied := errors.As(err, &denied)
		switch {
		case r != nil || err == nil:
			t.Errorf("%q %q signs in", text, cookie)
		case !own && !errors.Is(err, social.ErrFlow):
			t.Errorf("%q %q is taken for a sign-in: %v", text, cookie, err)
		case own && !isDenied && !errors.Is(err, social.ErrProvider):
			t.Errorf("%q: an error of no kind: %v", text, err)
		case isDenied && (!query.Has("error") || query.Has("code") || query.Get("iss") != "https://id.example"):
			t.Errorf("%q is a refusal: %v", text, err)
		}
	})
}

// FuzzClaimMap looks for a panic, for a subject that is no name, and for a path that a
// configuration takes and that finds something elsewhere.
func FuzzClaimMap(f *testing.F) {
	f.Add("id", `{"id":7}`)
	f.Add("data.user.id", `{"data":{"user":{"id":"u-1"}}}`)
	f.Add("a.b", `{"a":[{"b":1}],"a.b":"x"}`)
	f.Add("a..b", `{"a":{"":{"b":1}}}`)
	f.Add("id", `{"id":1e400}`)
	f.Add("id", `{"id":"\ud800","id":1}`)
	f.Fuzz(func(t *testing.T, path, text string) {
		subject, valid, err := social.SubjectAt(path, []byte(text))
		switch {
		case !valid && subject != "":
			t.Errorf("%q is no path and finds %q", path, subject)
		case (err == nil) != (subject != ""):
			t.Errorf("%q in %q: %q, %v", path, text, subject, err)
		case err == nil && (len(subject) > 255 || strings.ContainsAny(subject, "\x00\r\n\ufffd")):
			t.Errorf("%q in %q: %q is no name", path, text, subject)
		case err == nil && !strings.Contains(text, subject) && !strings.Contains(text, `\`):
			t.Errorf("%q in %q: %q is not there", path, text, subject)
		}
	})
}
