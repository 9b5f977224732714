package cookies_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/mandate-auth/mandate/cookies"
)

func Example() {
	jar, err := cookies.New(cookies.Config{Slug: "shop", BasePath: "/auth"})
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequest(http.MethodPost, "https://shop.example/auth/login", nil)
	secure := jar.Secure(r, r.TLS != nil)

	// A zero time: the cookie ends with the browser.
	w := httptest.NewRecorder()
	if err := jar.Set(w, cookies.Access, secure, "token", time.Time{}); err != nil {
		panic(err)
	}
	fmt.Println(w.Header().Get("Set-Cookie"))

	r.Header.Set("Cookie", "theme=dark; __Host-shop_access=token")
	value, err := jar.Read(r, cookies.Access, secure)
	fmt.Println(value, err)
	// Output:
	// __Host-shop_access=token; Path=/; HttpOnly; Secure; SameSite=Lax
	// token <nil>
}
