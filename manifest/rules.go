package manifest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// deriveDefaults fills in the defaults that depend on other keys.
func (p *parser) deriveDefaults(tree map[string]any) {
	derive := func(pointer string, value any) {
		parts := strings.Split(pointer, "/")[1:]
		node := tree
		for _, part := range parts[:len(parts)-1] {
			node, _ = node[part].(map[string]any)
		}
		if _, there := node[parts[len(parts)-1]]; !there {
			node[parts[len(parts)-1]] = value
			p.sources[pointer] = sourceDefault
		}
	}
	derive("/name", tree["slug"])
	derive("/auth/tokens/audience", tree["slug"])
	if tree["public_url"] != nil {
		derive("/auth/tokens/issuer", tree["public_url"])
	}
	derive("/auth/tokens/issuer", tree["slug"])
	derive("/auth/oauth/create_users", valueAt(tree, []string{"auth", "users", "allow_registration"}) == true)

	idle, refresh := Duration(7*24*time.Hour), Duration(0)
	if raw, err := json.Marshal(valueAt(tree, []string{"auth", "tokens", "refresh_ttl"})); err == nil {
		_ = refresh.UnmarshalJSON(raw) // a fault of its own is reported when it is built
	}
	if refresh > 0 && refresh < idle {
		idle = refresh
	}
	derive("/auth/sessions/idle_timeout", idle.String())
}

// build decodes the tree. What the schema let through and a type refuses is a
// fault at its key.
func (p *parser) build(tree map[string]any) (*Manifest, error) {
	p.checkTypes(rootSchema(), "", tree)
	for _, key := range []string{"trusted_proxies", "internal_networks"} {
		for i, item := range asList(valueAt(tree, []string{"auth", key})) {
			text, _ := item.(string)
			if _, err := netip.ParsePrefix(text); err != nil {
				p.fault(fmt.Sprintf("/auth/%s/%d", key, i), render(item), "must be a network such as 10.0.0.0/8 or 192.0.2.1/32")
			}
		}
	}
	if len(p.faults) > 0 {
		return nil, p.err()
	}
	raw, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	var m Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return &m, nil
}

// checkTypes looks at what JSON Schema has no word for: durations, and whole
// numbers that are written with a fraction or an exponent.
func (p *parser) checkTypes(s *schema, pointer string, tree map[string]any) {
	for name, property := range s.Properties {
		at := pointer + "/" + escape(name)
		value, there := tree[name]
		if !there {
			continue
		}
		switch {
		case property.Types == "object":
			if member, ok := value.(map[string]any); ok {
				p.checkTypes(property, at, member)
			}
		case property.XType == "duration":
			raw, err := json.Marshal(value)
			var d Duration
			if err != nil || d.UnmarshalJSON(raw) != nil {
				p.fault(at, render(value), `must be a duration such as "15m", "1h30m" or "30d", or a number of seconds, at most 100 years`)
			}
		case property.Types == "integer":
			if n, ok := value.(json.Number); ok {
				if _, err := strconv.ParseInt(n.String(), 10, 64); err != nil {
					p.fault(at, n.String(), "must be a whole number, written without a fraction or an exponent")
				}
			}
		}
	}
	for name, value := range tree {
		member, ok := value.(map[string]any)
		if extra := s.More.schema; ok && extra != nil && s.Properties[name] == nil {
			p.checkTypes(extra, pointer+"/"+escape(name), member)
		}
	}
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}

// checkRules checks what a schema cannot say.
func (p *parser) checkRules(m *Manifest) {
	p.checkTokens(m)
	p.checkUsers(m)
	p.checkPolicy(m)
	p.checkRequirements(m)
	p.checkMachines(m)
	p.checkRecords(m)
	p.checkSignIn(m)
	p.checkWeb(m)
	p.checkAddresses(m)
	p.checkCollections(m)
}

// bound checks a duration.
func (p *parser) bound(pointer string, d Duration, low, high time.Duration, why string) {
	if time.Duration(d) < low || time.Duration(d) > high {
		p.fault(pointer, `"`+d.String()+`"`, "must be between %s and %s%s", Duration(low), Duration(high), why)
	}
}

const year = 365 * 24 * time.Hour

func (p *parser) checkTokens(m *Manifest) {
	t, s := &m.Auth.Tokens, &m.Auth.Sessions
	p.bound("/auth/tokens/access_ttl", t.AccessTTL, time.Second, 24*time.Hour, "")
	p.bound("/auth/tokens/refresh_ttl", t.RefreshTTL, time.Duration(t.AccessTTL), 10*year, "; it may not be shorter than access_ttl")
	p.bound("/auth/tokens/leeway", t.Leeway, 0, 5*time.Minute, "")
	p.bound("/auth/tokens/rotation_grace", t.RotationGrace, 0, time.Minute, "")
	if time.Duration(t.KeyRotation) != 0 {
		p.bound("/auth/tokens/key_rotation", t.KeyRotation, 24*time.Hour, 10*year, ", or 0")
	}
	r := &t.Revocation
	p.bound("/auth/tokens/revocation/poll_interval", r.PollInterval, 100*time.Millisecond, time.Minute, "")
	p.bound("/auth/tokens/revocation/max_staleness", r.MaxStaleness, max(time.Second, 2*time.Duration(r.PollInterval)), time.Minute,
		"; it may not be shorter than twice poll_interval")
	p.bound("/auth/sessions/idle_timeout", s.IdleTimeout, time.Duration(t.AccessTTL), time.Duration(t.RefreshTTL)*time.Duration(s.RememberMeFactor),
		"; it lies between access_ttl and refresh_ttl × remember_me_factor")
}

func (p *parser) checkUsers(m *Manifest) {
	u := &m.Auth.Users
	if u.Password.MinLength > u.Password.MaxLength {
		p.fault("/auth/users/password/min_length", fmt.Sprint(u.Password.MinLength), "must not be greater than max_length")
	}
	p.bound("/auth/users/lockout/window", u.Lockout.Window, time.Second, 30*24*time.Hour, "")
	p.bound("/auth/users/lockout/duration", u.Lockout.Duration, time.Second, 30*24*time.Hour, "")
	if len(u.DemoUsers) > 0 && !m.Development() {
		p.fault("/auth/users/demo_users", "", "are for development only; remove them, or set environment to \"development\"")
	}
	if u.Strategy == "anonymous_session" && !u.AllowAnonymousUsers {
		p.fault("/auth/users/strategy", `"anonymous_session"`, "leaves nobody who could sign in; set allow_anonymous_users to true")
	}
}

func (p *parser) checkWeb(m *Manifest) {
	a := &m.Auth
	if a.Cookies.SameSite == "none" && a.Cookies.Secure != "always" {
		p.fault("/auth/cookies/same_site", `"none"`, "needs cookies.secure \"always\": browsers drop such cookies otherwise")
	}
	if d := a.Cookies.Domain; strings.Contains(d, "..") || net.ParseIP(d) != nil || (d != "" && !strings.Contains(d, ".")) {
		p.fault("/auth/cookies/domain", render(d), "must be a domain name with a dot, such as example.com")
	}
	for i, origin := range a.CSRF.TrustedOrigins {
		p.checkOrigin(fmt.Sprintf("/auth/csrf/trusted_origins/%d", i), origin)
	}
	for i, origin := range a.CORS.AllowOrigins {
		at := fmt.Sprintf("/auth/cors/allow_origins/%d", i)
		if origin != "*" {
			p.checkOrigin(at, origin)
			continue
		}
		if a.CORS.AllowCredentials {
			p.fault(at, `"*"`, "cannot be combined with allow_credentials: every site could act for your users; list the origins")
		}
		if len(a.CORS.AllowOrigins) > 1 {
			p.fault(at, `"*"`, "must stand alone")
		}
	}
	p.bound("/auth/cors/max_age", a.CORS.MaxAge, 0, 24*time.Hour, "")
	h := &a.SecurityHeaders.HSTS
	p.bound("/auth/security_headers/hsts/max_age", h.MaxAge, 0, 10*year, "")
	if h.Preload && (time.Duration(h.MaxAge) < year || !h.IncludeSubdomains) {
		p.fault("/auth/security_headers/hsts/preload", "true", "needs max_age of a year (365d) and include_subdomains")
	}
}

func (p *parser) checkOrigin(pointer, origin string) {
	u, err := url.Parse(origin)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.Scheme+"://"+u.Host != origin || strings.HasSuffix(u.Host, ":") {
		p.fault(pointer, render(origin), "must be an origin, scheme://host or scheme://host:port, without a path or a trailing slash")
	}
}

func (p *parser) checkAddresses(m *Manifest) {
	for _, segment := range strings.Split(m.BasePath, "/") {
		if segment == "." || segment == ".." {
			p.fault("/base_path", render(m.BasePath), "must not hold dot segments")
		}
	}
	if m.PublicURL == "" {
		return
	}
	u, err := url.Parse(m.PublicURL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(m.PublicURL, "?# \\") {
		p.fault("/public_url", render(m.PublicURL), "must be an absolute URL without user, query or fragment")
		return
	}
	if u.Scheme != "https" && (u.Scheme != "http" || (!loopback(u.Hostname()) && !m.Development())) {
		p.fault("/public_url", render(m.PublicURL), "must begin with https://; http:// is for the loopback interface and development")
	}
}

func (p *parser) checkCollections(m *Manifest) {
	names := map[string]string{
		"session_heads": "Mandate", "login_attempts": "Mandate", "app_state": "Mandate", "api_keys": "Mandate", "oauth_clients": "Mandate",
		"signing_keys": "Mandate", "rate_limits": "Mandate", "audit_events": "Mandate",
		"onetime_tokens": "Mandate", "identities": "Mandate", "mail_outbox": "Mandate", "invitations": "Mandate",
	}
	for _, of := range []struct{ pointer, name string }{
		{"/auth/users/collection_name", m.Auth.Users.CollectionName},
		{"/auth/sessions/collection", m.Auth.Sessions.Collection},
		{"/auth/tokens/blacklist_collection", m.Auth.Tokens.BlacklistCollection},
		{"/auth/policy/authorization/policies_collection", m.Auth.Policy.Authorization.PoliciesCollection},
	} {
		pointer, name := of.pointer, of.name
		if owner, taken := names[name]; taken {
			p.fault(pointer, render(name), "is the name of a collection of %s; choose another one", owner)
		}
		if strings.HasPrefix(name, "system.") || slices.Contains(strings.Split(name, "."), "") {
			p.fault(pointer, render(name), "is not a name that MongoDB allows")
		}
		names[name] = pointer
	}
}
