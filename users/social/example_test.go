package social_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net/http"

	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/users/social"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// A service that runs the flow itself. What Begin seals goes into a cookie here; a
// session of the service's own may keep it as well, if it is the one browser's.
func Example() {
	ring, err := keys.NewRing([]secret.Value{secret.Random(32)})
	if err != nil {
		log.Fatal(err)
	}
	app, err := ring.App("shop", []byte(rand.Text()), 0)
	if err != nil {
		log.Fatal(err)
	}
	set, err := social.New(social.Config{
		App: "shop", Keys: app, RedirectBase: "https://shop.example/oauth/",
		Once: &socialtest.Once{}, // in production what all instances share
		Providers: []social.ProviderConfig{{
			Name: "github", Preset: "github", ClientID: "Iv1.8a61f9b3a7aba766", ClientSecret: secret.FromString("from the environment"),
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = set.Close(context.Background()) }()

	const cookie = "__Host-shop_oauth_"
	mux := http.NewServeMux()
	mux.HandleFunc("GET /oauth/{provider}/login", func(w http.ResponseWriter, r *http.Request) {
		flow, err := set.Begin(r.Context(), r.PathValue("provider"), social.BeginOptions{Next: r.URL.Query().Get("next")})
		if err != nil {
			http.Error(w, "try again", http.StatusBadGateway)
			return
		}
		http.SetCookie(w, &http.Cookie{
			Name: cookie + flow.ID, Value: flow.Cookie, Path: "/", Expires: flow.ExpiresAt, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		})
		http.Redirect(w, r, flow.URL, http.StatusSeeOther)
	})
	mux.HandleFunc("GET /oauth/{provider}/callback", func(w http.ResponseWriter, r *http.Request) {
		query, kept := r.URL.Query(), ""
		if c, err := r.Cookie(cookie + social.CookieSuffix(query)); err == nil {
			kept = c.Value
		}
		result, err := set.Finish(r.Context(), r.PathValue("provider"), query, kept)
		if err != nil {
			http.Error(w, "try again", http.StatusUnauthorized)
			return
		}
		// The person is result.Issuer and result.Info.Subject.
		http.Redirect(w, r, cmp.Or(result.Next, "/"), http.StatusSeeOther)
	})

	for _, p := range set.Providers() {
		fmt.Println(p.Name, p.DisplayName, p.Kind)
	}
	// What nobody began here signs nobody in.
	_, err = set.Finish(context.Background(), "github", nil, "")
	fmt.Println(errors.Is(err, social.ErrFlow))
	// Output:
	// github GitHub oauth2
	// true
}
