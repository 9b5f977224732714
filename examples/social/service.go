package main

import (
	"embed"
	"encoding/json"
	"net/http"
	"path"

	"github.com/mandate-auth/mandate/engine"
)

//go:embed web
var web embed.FS

// routes are the service: Mandate under /auth, one page for all that a person does,
// and the mails.
func routes(app *engine.App, box *mailbox) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/auth/", app.Handler())
	// The mailed links lead to the page as well. Their tokens stand in the fragment,
	// which browsers keep to themselves, and the script sends them on.
	for _, at := range []string{"/{$}", "/verify", "/reset", "/change-email", "/magic"} {
		mux.HandleFunc("GET "+at, file("page.html"))
	}
	mux.HandleFunc("GET /app.js", file("app.js"))
	mux.HandleFunc("GET /style.css", file("style.css"))
	mux.HandleFunc("GET /mails", box.show)
	mux.Handle("GET /whoami", app.RequireUser().Func(func(w http.ResponseWriter, r *http.Request) {
		user, err := app.Users().Get(r.Context(), engine.PrincipalFrom(r.Context()).ID)
		if err != nil {
			http.Error(w, "the account cannot be read", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(user)
	}))
	return app.SecurityHeaders(policy(mux))
}

// policy lets pages run the service's script and nothing else. Mandate's own routes
// are no pages.
func policy(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		next.ServeHTTP(w, r)
	})
}

// file serves one of the embedded files.
func file(name string) http.HandlerFunc {
	kinds := map[string]string{".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
	return func(w http.ResponseWriter, _ *http.Request) {
		content, err := web.ReadFile("web/" + name)
		if err != nil {
			http.Error(w, "the file is missing", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", kinds[path.Ext(name)]+"; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(content)
	}
}
