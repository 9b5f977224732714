package social

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/oauth2"

	"github.com/mandate-auth/mandate/internal/strictjwt"
)

// provider is one provider with its defaults filled in.
type provider struct {
	ProviderConfig
	set      *Set
	redirect string
	// issuer is the configured issuer: what flows are bound to, "" only where nobody
	// says.
	issuer string
	// discovery is where the discovery document is, "" for OAuth 2.0 without it.
	discovery string
	// skipUserInfo is for providers whose ID tokens say everything.
	skipUserInfo bool
	metadata     *cached[*metadata]
	keys         *cached[[]strictjwt.Key]
}

func (p *provider) kind() string {
	if p.discovery == "" {
		return KindOAuth2
	}
	return KindOIDC
}

var (
	validName  = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)
	validScope = regexp.MustCompile(`^[\x21\x23-\x5b\x5d-\x7e]{1,255}$`) // RFC 6749 section 3.3
)

// newProvider checks the configuration. base ends with the set.
func (s *Set) newProvider(base context.Context, given *ProviderConfig) (*provider, error) {
	p := &provider{ProviderConfig: *given, set: s, redirect: s.config.RedirectBase + given.Name + "/callback"}
	p.Scopes, p.AuthParams = slices.Clone(p.Scopes), maps.Clone(p.AuthParams)
	if !validName.MatchString(p.Name) {
		return nil, errors.New("the name does not match ^[a-z][a-z0-9_-]{0,31}$")
	}
	if err := p.locate(); err != nil {
		return nil, err
	}
	if err := p.checkClient(); err != nil {
		return nil, err
	}
	if err := p.checkParams(); err != nil {
		return nil, err
	}
	p.metadata = &cached[*metadata]{fetch: p.fetchMetadata, life: metadataLife, now: s.config.Now, base: base, running: &s.running}
	p.keys = &cached[[]strictjwt.Key]{fetch: p.fetchKeys, life: keysLife, now: s.config.Now, base: base, running: &s.running}
	return p, nil
}

// locate fills in where the provider is.
func (p *provider) locate() error {
	if p.Tenant != "" && p.Preset != presetMicrosoft {
		return errors.New("tenant is for the preset microsoft")
	}
	if p.Preset != "" {
		if !p.Claims.isZero() {
			return errors.New("claims is not for presets")
		}
		return p.applyPreset()
	}
	endpoints := p.AuthURL != "" || p.TokenURL != "" || p.UserInfoURL != ""
	switch {
	case endpoints:
		return p.locateEndpoints()
	case p.Issuer == "":
		return errors.New("one of preset, issuer and the three endpoints is required")
	case !p.Claims.isZero():
		return errors.New("claims is for providers with the three endpoints; OpenID Connect says itself what is where")
	default:
		p.DisplayName = cmp.Or(p.DisplayName, p.Name)
		return p.locateIssuer(p.Issuer)
	}
}

// locateIssuer is for OpenID Connect: the document is at the issuer's well-known path
// (OpenID Connect Discovery 1.0 section 4).
func (p *provider) locateIssuer(issuer string) error {
	u, err := checkURL(issuer)
	if err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	if u.RawQuery != "" || u.ForceQuery {
		return errors.New("issuer: has a query")
	}
	p.issuer = issuer
	p.discovery = strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	if len(p.Scopes) == 0 {
		p.Scopes = []string{"openid", "email", "profile"}
	}
	if !slices.Contains(p.Scopes, "openid") {
		return errors.New(`scopes: "openid" is required with OpenID Connect`)
	}
	return nil
}

// locateEndpoints is for OAuth 2.0 without OpenID Connect.
func (p *provider) locateEndpoints() error {
	for name, address := range map[string]string{"authorization_endpoint": p.AuthURL, "token_endpoint": p.TokenURL, "userinfo_endpoint": p.UserInfoURL} {
		if _, err := checkURL(address); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := checkAuthURL(p.AuthURL); err != nil {
		return fmt.Errorf("authorization_endpoint: %w", err)
	}
	if p.Preset == "" {
		if err := p.Claims.check(); err != nil {
			return fmt.Errorf("claims: %w", err)
		}
	}
	p.DisplayName = cmp.Or(p.DisplayName, p.Name)
	if p.issuer = p.Issuer; p.issuer == "" {
		// Who moves the configuration to another server must not find the old one's
		// people there.
		u, _ := url.Parse(p.AuthURL)
		p.issuer = u.Scheme + "://" + u.Host
	}
	return nil
}

func (p *provider) checkClient() error {
	if _, err := strictjwt.Text(map[string]any{"client_id": p.ClientID}, "client_id"); err != nil {
		return err
	}
	if p.ClientSecret.IsZero() {
		return errors.New("client_secret is required")
	}
	if p.AuthStyle != "" && p.AuthStyle != "post" {
		return fmt.Errorf(`auth_style %q is neither "" nor "post"`, p.AuthStyle)
	}
	if _, err := strictjwt.Text(map[string]any{"display_name": p.DisplayName}, "display_name"); err != nil {
		return err
	}
	for _, scope := range p.Scopes {
		if !validScope.MatchString(scope) {
			return fmt.Errorf("%q is not a scope", scope)
		}
	}
	return nil
}

// reserved are the parameters that the protocol is made of, or that would change what
// has to be checked ("max_age").
var reserved = []string{
	"client_id", "client_secret", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce", "code",
	"code_challenge", "code_challenge_method", "code_verifier", "grant_type", "request", "request_uri", "registration",
	"id_token_hint", "max_age", "login_hint", "iss", "error",
}

func (p *provider) checkParams() error {
	for name, value := range p.AuthParams {
		if slices.Contains(reserved, strings.ToLower(name)) {
			return fmt.Errorf("authorization_params: %q is the protocol's own", name)
		}
		if _, err := strictjwt.Text(map[string]any{name: value}, name); err != nil || name == "" {
			return fmt.Errorf("authorization_params: %q: a name and a value are needed", name)
		}
	}
	return nil
}

// client returns the configuration of golang.org/x/oauth2 for these endpoints. Without
// a token endpoint the secret is not looked at.
func (p *provider) client(authURL, tokenURL string) *oauth2.Config {
	c := &oauth2.Config{
		ClientID: p.ClientID, RedirectURL: p.redirect, Scopes: p.Scopes,
		Endpoint: oauth2.Endpoint{AuthURL: authURL, TokenURL: tokenURL, AuthStyle: oauth2.AuthStyleInHeader},
	}
	if p.AuthStyle == "post" {
		c.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return c
}

// checkURL parses an address that is called: https, or http to this machine.
func checkURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	switch {
	case u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("not an absolute URL")
	case u.User != nil || strings.Contains(text, "#"):
		return nil, errors.New("has a user or a fragment")
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return u, nil
	default:
		return nil, errors.New("does not begin with https://; http is for loopback addresses")
	}
}

// checkAuthURL refuses an authorization endpoint that brings parameters of ours: the
// provider would get them twice.
func checkAuthURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return errors.New("not a URL")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("a query that cannot be read")
	}
	for name := range query {
		if slices.Contains(reserved, strings.ToLower(name)) {
			return errors.New("a query with a parameter of the protocol")
		}
	}
	return nil
}

func checkRedirectBase(text string) error {
	u, err := checkURL(text)
	if err != nil {
		return err
	}
	if u.RawQuery != "" || u.ForceQuery || !strings.HasSuffix(u.Path, "/") {
		return errors.New(`must end with "/" and have no query`)
	}
	return nil
}

func loopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && address.IsLoopback())
}

// thisMachine reports whether the host may be this machine, in whatever form somebody
// writes it who means to get there.
func thisMachine(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if address, err := netip.ParseAddr(host); err == nil {
		address = address.Unmap()
		return address.IsLoopback() || address.IsUnspecified()
	}
	// What ends in a number is an IPv4 address for many resolvers: 127.1, 0x7f000001.
	_, err := strconv.ParseUint(host[strings.LastIndexByte(host, '.')+1:], 0, 64)
	return err == nil
}
