package httpapi

import (
	"cmp"
	"net/http"
	"strings"

	"github.com/mandate-auth/mandate/cookies"
)

// openAPI serves the document of the routes.
func (a *API) openAPI(w http.ResponseWriter, r *http.Request) error {
	return document("application/json", a.config.OpenAPI())(w, r)
}

// Description is what a document of the routes has to know besides [API.Paths].
type Description struct {
	// WellKnown is "METHOD path" of every document under /.well-known/.
	WellKnown []string
	// MetadataPath is where the metadata of the authorization server is, and TokenURL
	// its endpoint; "" where there is none.
	MetadataPath, TokenURL string
	// AccessCookie and RefreshCookie are the names of the cookies over HTTPS, "" where
	// the app takes none.
	AccessCookie, RefreshCookie string
	// Bearer, Basic and APIKey say which credentials the routes take.
	Bearer, Basic, APIKey bool
}

// Describe returns what a document of the routes has to know.
func (a *API) Describe() Description {
	c := &a.config
	d := Description{
		// A user's token comes by cookie only where the transport says so; one of
		// another issuer always comes as a bearer token.
		Bearer: c.Transport != TransportCookie || c.Issuers != nil,
		Basic:  c.Clients != nil, APIKey: c.APIKeys != nil,
	}
	if a.cookieTransport() {
		d.AccessCookie, d.RefreshCookie = c.Jar.Name(cookies.Access, true), c.Jar.Name(cookies.Refresh, true)
	}
	if c.JWKS != nil {
		d.WellKnown = append(d.WellKnown, "GET /.well-known/jwks.json")
	}
	if c.Clients != nil {
		d.MetadataPath = a.metadataPath
		d.WellKnown = append(d.WellKnown, "GET "+a.metadataPath)
		d.TokenURL = strings.TrimSuffix(cmp.Or(c.PublicURL, c.Issuer), "/") + c.BasePath + "/oauth2/token"
	}
	return d
}
