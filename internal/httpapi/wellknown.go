package httpapi

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// metadata is the authorization server's.
func (a *API) metadata() (*oauth2.Metadata, error) {
	base := strings.TrimSuffix(cmp.Or(a.config.PublicURL, a.config.Issuer), "/")
	own := base + a.config.BasePath + "/oauth2/"
	at := oauth2.Endpoints{Token: own + "token", Introspection: own + "introspect", Revocation: own + "revoke"}
	if a.config.JWKS != nil {
		at.JWKS = base + "/.well-known/jwks.json"
	}
	return oauth2.NewMetadata(a.config.Issuer, at, a.config.ClientScopes)
}

// WellKnown serves the documents under /.well-known/.
func (a *API) WellKnown(w http.ResponseWriter, r *http.Request) {
	r = a.beginRequest(w, r)
	a.config.Headers.set(w, r)
	if a.config.CORS.apply(w, r) {
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		a.fail(w, r, refuse(CodeMethodNotAllowed))
		return
	}
	switch path := r.URL.EscapedPath(); {
	case path == "/.well-known/jwks.json" && a.config.JWKS != nil:
		a.config.JWKS.ServeHTTP(w, r)
	case path == a.metadataPath && a.config.Clients != nil:
		_ = document("application/json", a.metadataJSON)(w, r) // which never fails
	default:
		a.fail(w, r, refuse(CodeNotFound))
	}
}

// describe makes the metadata of the authorization server, where the app is one.
func (a *API) describe() (err error) {
	if a.config.Clients == nil {
		return nil
	}
	if a.metadataPath, err = oauth2.MetadataPath(a.config.Issuer); err != nil {
		return err
	}
	m, err := a.metadata()
	if err != nil {
		return err
	}
	a.metadataJSON, err = json.Marshal(m)
	return err
}
