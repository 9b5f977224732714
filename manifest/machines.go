package manifest

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/authz"
)

// APIKeys is the key "auth.api_keys".
type APIKeys struct {
	Enabled    bool     `json:"enabled"`
	Prefix     string   `json:"prefix"`
	MaxPerUser int      `json:"max_per_user"`
	DefaultTTL Duration `json:"default_ttl"`
	Scopes     []string `json:"scopes"`
}

// Clients is the key "auth.clients".
type Clients struct {
	Enabled  bool            `json:"enabled"`
	Scopes   []string        `json:"scopes"`
	TokenTTL Duration        `json:"token_ttl"`
	Initial  []InitialClient `json:"initial"`
}

// InitialClient is one of "auth.clients.initial".
type InitialClient struct {
	ID     string   `json:"id"`
	Name   string   `json:"name"`
	Secret Secret   `json:"secret"`
	Scopes []string `json:"scopes"`
	Roles  []string `json:"roles"`
}

// Issuer is one of "auth.issuers".
type Issuer struct {
	Name          string   `json:"name"`
	Issuer        string   `json:"issuer"`
	Audience      []string `json:"audience"`
	AudienceClaim string   `json:"audience_claim"`
	Algorithms    []string `json:"algorithms"`
	TokenTypes    []string `json:"token_types"`
	JWKSURI       string   `json:"jwks_uri"`
	// M2M says which claims tell machines from people; what is empty has the
	// default.
	M2M struct {
		UsernameClaims  []string `json:"username_claims"`
		TokenUseClaim   string   `json:"token_use_claim"`
		TokenUseValues  []string `json:"token_use_values"`
		ClientIDClaims  []string `json:"client_id_claims"`
		UserClaims      []string `json:"user_claims"`
		ScopeClaims     []string `json:"scope_claims"`
		MachineClaim    string   `json:"machine_claim"`
		MachineValues   []string `json:"machine_values"`
		SubjectIsClient bool     `json:"subject_is_client"`
	} `json:"m2m"`
}

// checkMachines checks API keys, clients and other issuers.
func (p *parser) checkMachines(m *Manifest) {
	a := &m.Auth
	p.checkScopes("/auth/api_keys/scopes", a.APIKeys.Scopes, nil)
	p.bound("/auth/api_keys/default_ttl", a.APIKeys.DefaultTTL, 0, 10*year, "")
	if a.APIKeys.Enabled && (!a.Users.Enabled || a.Users.Strategy != "app_users") {
		p.fault("/auth/api_keys/enabled", "true", "needs users who could own keys")
	}
	c := &a.Clients
	p.checkScopes("/auth/clients/scopes", c.Scopes, nil)
	p.bound("/auth/clients/token_ttl", c.TokenTTL, time.Second, 24*time.Hour, "")
	if c.Enabled && !issuerURL(a.Tokens.Issuer) {
		p.fault("/auth/clients/enabled", "true", "needs a URL as tokens.issuer, https:// and without query or fragment (RFC 8414 section 2); set it, or public_url")
	}
	names := map[string]bool{}
	for i := range c.Initial {
		at := fmt.Sprintf("/auth/clients/initial/%d", i)
		if names[c.Initial[i].Name] {
			p.fault(at+"/name", render(c.Initial[i].Name), "is the name of another client")
		}
		names[c.Initial[i].Name] = true
		p.checkScopes(at+"/scopes", c.Initial[i].Scopes, c.Scopes)
		for j, role := range c.Initial[i].Roles {
			p.known(&a.Policy.Authorization, fmt.Sprintf("%s/roles/%d", at, j), role)
		}
	}
	if len(c.Initial) > 0 && !c.Enabled {
		p.fault("/auth/clients/initial", "", "needs clients.enabled")
	}
	p.checkIssuers(a)
}

// checkScopes checks the form of scopes, and that they are among those allowed.
func (p *parser) checkScopes(at string, scopes, allowed []string) {
	for i, scope := range scopes {
		key := fmt.Sprintf("%s/%d", at, i)
		var value *authz.ValueError
		switch {
		case errors.As(authz.CheckScope(scope), &value):
			p.fault(key, render(scope), "%s", value.Message)
		case slices.Contains(scopes[:i], scope):
			p.fault(key, render(scope), "is named already")
		case len(allowed) > 0 && !slices.Contains(allowed, scope):
			p.fault(key, render(scope), "is not one of clients.scopes")
		}
	}
}

func (p *parser) checkIssuers(a *Auth) {
	seen := map[string]bool{a.Tokens.Issuer: true}
	for i := range a.Issuers {
		x := &a.Issuers[i]
		at := fmt.Sprintf("/auth/issuers/%d", i)
		if seen[x.Issuer] {
			p.fault(at+"/issuer", render(x.Issuer), "is the app itself or another one of the list")
		}
		if seen["|"+x.Name] || reservedMethods[x.Name] {
			p.fault(at+"/name", render(x.Name), "is taken")
		}
		seen[x.Issuer], seen["|"+x.Name] = true, true
		if !issuerURL(x.Issuer) {
			p.fault(at+"/issuer", render(x.Issuer), "must be a URL with https:// and without query or fragment; http:// is for the loopback interface")
		}
		if x.JWKSURI != "" && !issuerURL(strings.SplitN(x.JWKSURI, "?", 2)[0]) {
			p.fault(at+"/jwks_uri", render(x.JWKSURI), "must begin with https://; http:// is for the loopback interface")
		}
	}
}

// reservedMethods are what methods_allowed calls Mandate's own credentials.
var reservedMethods = map[string]bool{"jwt": true, "session": true, "api_key": true, "client": true, "basic": true}

// issuerURL reports whether the text can be the identifier of an issuer (RFC 8414
// section 2). Plain HTTP is for the loopback interface.
func issuerURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(text, "?# \\") {
		return false
	}
	return u.Scheme == "https" || (u.Scheme == "http" && loopback(u.Hostname()))
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
