package engine

import (
	"cmp"
	"slices"

	"github.com/mandate-auth/mandate/internal/openapi"
	"github.com/mandate-auth/mandate/manifest"
)

// Errors of [MergeOpenAPI]. Their texts name the place.
var (
	// ErrOpenAPI says that a document cannot be read, or has a version that the parts
	// do not fit.
	ErrOpenAPI = openapi.ErrDocument
	// ErrOpenAPIConflict says that two documents have a component, a path or an
	// operationId of one name that is not the same.
	ErrOpenAPIConflict = openapi.ErrConflict
)

// OpenAPI returns the OpenAPI 3.1 document of the app as JSON, as GET
// {base_path}/openapi.json serves it: the routes that the manifest enables, the
// documents of [App.WellKnown], and the credentials that the app takes. Its server
// is the manifest's public_url, and "/" without one. It is made anew at each call
// and the caller's own.
func (app *App) OpenAPI() []byte {
	m, d := app.manifest, app.api.Describe()
	users := slices.ContainsFunc(m.Auth.Requirements, func(r manifest.Requirement) bool {
		return slices.Contains(r.MethodsAllowed, "basic")
	})
	return openapi.Document(openapi.Config{
		Title: cmp.Or(m.Name, m.Slug), Server: cmp.Or(m.PublicURL, "/"), BasePath: m.BasePath,
		Routes: slices.Concat(app.Routes(), d.WellKnown), MetadataPath: d.MetadataPath,
		Bearer: d.Bearer, APIKey: d.APIKey, ClientBasic: d.Basic, UserBasic: users,
		AccessCookie: d.AccessCookie, RefreshCookie: d.RefreshCookie, TokenURL: d.TokenURL, Scopes: m.Auth.Clients.Scopes,
	})
}

// OpenAPISchemes returns the security schemes of [App.OpenAPI] and nothing else, for
// [MergeOpenAPI]: bearerAuth, cookieAuth, refreshCookie, apiKeyAuth, basicAuth and
// clientCredentials, those that the app takes.
func (app *App) OpenAPISchemes() []byte { return openapi.Schemes(app.OpenAPI()) }

// OpenAPIAPIKey returns the security scheme apiKeyAuth, an API key in the header
// X-API-Key, for [MergeOpenAPI]. Like the functions beside it it describes and
// enforces nothing: guards do that.
func OpenAPIAPIKey() []byte { return openapi.Scheme(openapi.SchemeAPIKey, "", nil) }

// OpenAPIHTTPBasic returns the security scheme basicAuth for [MergeOpenAPI].
func OpenAPIHTTPBasic() []byte { return openapi.Scheme(openapi.SchemeBasic, "", nil) }

// OpenAPIOAuth2ClientCredentials returns the security scheme clientCredentials (RFC
// 6749 section 4.4) for [MergeOpenAPI]: tokens from tokenURL, with scopes and what
// each is for.
func OpenAPIOAuth2ClientCredentials(tokenURL string, scopes map[string]string) []byte {
	return openapi.Scheme(openapi.SchemeClient, tokenURL, scopes)
}

// MergeOpenAPI adds the components, paths and tags of the parts to a service's own
// OpenAPI document, both as JSON. Parts are what [App.OpenAPI], [App.OpenAPISchemes]
// and the functions beside them return:
//
//	document, err := engine.MergeOpenAPI(own, app.OpenAPISchemes()) // or app.OpenAPI(), with the routes
//
// What the document has already in the same words stays and is no error. Its other
// members, and those that Mandate does not know, keep their order and their text
// byte for byte. Paths whose document has another server say so themselves.
//
// The error is [ErrOpenAPIConflict] where both have something of one name that is
// not the same, or [ErrOpenAPI] for what is no OpenAPI document of 3.0 or later;
// paths need 3.1.
func MergeOpenAPI(own []byte, parts ...[]byte) ([]byte, error) { return openapi.Merge(own, parts...) }
