package oauth2

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// TokenResponse is the answer of the token endpoint (RFC 6749 section 5.1). It needs
// Cache-Control: no-store.
type TokenResponse struct {
	AccessToken string `json:"access_token"`
	// TokenType is "Bearer".
	TokenType string `json:"token_type"`
	// ExpiresIn is the token's life in seconds.
	ExpiresIn int64 `json:"expires_in"`
	// Scope is what the token has, also where that is what was asked for.
	Scope string `json:"scope,omitempty"`
}

// IntrospectionResponse is the answer of the introspection endpoint (RFC 7662
// section 2.2). One that is not active says nothing else, whatever is in it.
type IntrospectionResponse struct {
	Active    bool   `json:"active"`
	Scope     string `json:"scope,omitempty"`
	ClientID  string `json:"client_id,omitempty"`
	TokenType string `json:"token_type,omitempty"`
	// ExpiresAt, IssuedAt and NotBefore are in seconds since 1970.
	ExpiresAt int64  `json:"exp,omitempty"`
	IssuedAt  int64  `json:"iat,omitempty"`
	NotBefore int64  `json:"nbf,omitempty"`
	Subject   string `json:"sub,omitempty"`
	Audience  string `json:"aud,omitempty"`
	Issuer    string `json:"iss,omitempty"`
	ID        string `json:"jti,omitempty"`
}

// MarshalJSON returns exactly {"active":false} for a token that is not active.
func (r IntrospectionResponse) MarshalJSON() ([]byte, error) {
	if !r.Active {
		return []byte(`{"active":false}`), nil
	}
	type plain IntrospectionResponse
	return json.Marshal(plain(r))
}

// Metadata describes an authorization server (RFC 8414 section 2).
type Metadata struct {
	Issuer        string   `json:"issuer"`
	TokenEndpoint string   `json:"token_endpoint"`
	JWKSURI       string   `json:"jwks_uri,omitempty"`
	Scopes        []string `json:"scopes_supported,omitempty"`
	// ResponseTypes is required and empty: there is no authorization endpoint.
	ResponseTypes                 []string `json:"response_types_supported"`
	GrantTypes                    []string `json:"grant_types_supported"`
	TokenAuthMethods              []string `json:"token_endpoint_auth_methods_supported"`
	IntrospectionEndpoint         string   `json:"introspection_endpoint,omitempty"`
	IntrospectionAuthMethods      []string `json:"introspection_endpoint_auth_methods_supported,omitempty"`
	RevocationEndpoint            string   `json:"revocation_endpoint,omitempty"`
	RevocationEndpointAuthMethods []string `json:"revocation_endpoint_auth_methods_supported,omitempty"`
}

// Endpoints are where a server is found, as full URLs. An empty one is not served.
type Endpoints struct {
	Token, Introspection, Revocation, JWKS string
}

// NewMetadata describes the server whose issuer it is. The issuer is an https URL
// without query and fragment, or http on loopback (RFC 8414 section 2).
func NewMetadata(issuer string, at Endpoints, scopes []string) (*Metadata, error) {
	if _, err := parseIssuer(issuer); err != nil {
		return nil, err
	}
	methods := func(endpoint string) []string {
		if endpoint == "" {
			return nil
		}
		return []string{"client_secret_basic", "client_secret_post"}
	}
	return &Metadata{
		Issuer: issuer, TokenEndpoint: at.Token, JWKSURI: at.JWKS, Scopes: scopes,
		ResponseTypes: []string{}, GrantTypes: []string{GrantClientCredentials}, TokenAuthMethods: methods(at.Token),
		IntrospectionEndpoint: at.Introspection, IntrospectionAuthMethods: methods(at.Introspection),
		RevocationEndpoint: at.Revocation, RevocationEndpointAuthMethods: methods(at.Revocation),
	}, nil
}

// MetadataPath returns the path at which clients look for the metadata of the
// issuer: the issuer's own path comes after the well-known one (RFC 8414 section
// 3.1).
func MetadataPath(issuer string) (string, error) {
	u, err := parseIssuer(issuer)
	if err != nil {
		return "", err
	}
	return "/.well-known/oauth-authorization-server" + strings.TrimSuffix(u.EscapedPath(), "/"), nil
}

func parseIssuer(issuer string) (*url.URL, error) {
	u, err := url.Parse(issuer)
	switch {
	case err != nil || u.Host == "" || u.User != nil:
		return nil, fmt.Errorf("oauth2: the issuer %q is no URL with a host", issuer)
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return nil, fmt.Errorf("oauth2: the issuer %q must use https", issuer)
	case strings.ContainsAny(issuer, "?#"):
		return nil, fmt.Errorf("oauth2: the issuer %q must have no query and no fragment", issuer)
	}
	return u, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
