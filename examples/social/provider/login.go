package provider

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	loginPath = "/login"
	stylePath = "/style.css"
	// cancel is what the page sends instead of a subject.
	cancel = "cancel"
)

//go:embed login.html
var loginHTML string

//go:embed style.css
var styleCSS []byte

var loginPage = template.Must(template.New("login").Parse(loginHTML))

func style(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	_, _ = w.Write(styleCSS)
}

// choose shows the accounts for an authorization request that is waiting.
func (p *Provider) choose(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("id")
	if _, err := p.store.AuthRequestByID(r.Context(), id); err != nil {
		http.Error(w, "This sign-in is over. Begin again at the service.", http.StatusNotFound)
		return
	}
	var page bytes.Buffer
	if err := loginPage.Execute(&page, map[string]any{"ID": id, "Accounts": p.store.accounts, "Cancel": cancel}); err != nil {
		http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	// Browsers ask form-action for the redirects after a form, too: the last of them
	// leads back to the service.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; form-action 'self' "+p.origin+"; base-uri 'none'; frame-ancestors 'none'")
	_, _ = w.Write(page.Bytes())
}

// chosen ends the request: with an account, or without one.
func (p *Provider) chosen(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	id, subject := r.PostFormValue("id"), r.PostFormValue("account")
	request, err := p.store.AuthRequestByID(r.Context(), id)
	if err != nil {
		http.Error(w, "This sign-in is over. Begin again at the service.", http.StatusNotFound)
		return
	}
	if subject == cancel {
		_ = p.store.DeleteAuthRequest(r.Context(), id)
		op.AuthRequestError(w, r, request, oidc.ErrAccessDenied().WithDescription("the person has cancelled"), p.op)
		return
	}
	if err := p.store.done(id, subject); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	http.Redirect(w, r, p.op.AuthorizationEndpoint().Relative()+"/callback?id="+id, http.StatusSeeOther)
}
