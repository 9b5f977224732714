package social

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// The presets.
const (
	presetGoogle    = "google"
	presetGitHub    = "github"
	presetMicrosoft = "microsoft"
	presetGitLab    = "gitlab"
)

func (p *provider) applyPreset() error {
	if p.Preset != presetGitHub && (p.AuthURL != "" || p.TokenURL != "" || p.UserInfoURL != "") {
		return errors.New("the preset knows its endpoints")
	}
	switch p.Preset {
	case presetGoogle:
		if p.Issuer != "" {
			return errors.New("issuer: there is one Google only")
		}
		return p.applyGoogle("https://accounts.google.com")
	case presetGitLab:
		p.DisplayName = cmp.Or(p.DisplayName, "GitLab")
		return p.locateIssuer(cmp.Or(p.Issuer, "https://gitlab.com"))
	case presetMicrosoft:
		return p.applyMicrosoft()
	case presetGitHub:
		return p.applyGitHub()
	default:
		return fmt.Errorf("preset %q is not one of google, github, microsoft and gitlab", p.Preset)
	}
}

func (p *provider) applyGoogle(issuer string) error {
	p.DisplayName, p.skipUserInfo = cmp.Or(p.DisplayName, "Google"), true
	return p.locateIssuer(issuer)
}

func (p *provider) applyGitHub() error {
	p.DisplayName = cmp.Or(p.DisplayName, "GitHub")
	web, api := "https://github.com", "https://api.github.com"
	if p.Issuer != "" {
		if _, err := checkURL(p.Issuer); err != nil {
			return fmt.Errorf("issuer: %w", err)
		}
		web = strings.TrimSuffix(p.Issuer, "/")
		api = web + "/api/v3"
	}
	p.AuthURL = cmp.Or(p.AuthURL, web+"/login/oauth/authorize")
	p.TokenURL = cmp.Or(p.TokenURL, web+"/login/oauth/access_token")
	p.UserInfoURL = cmp.Or(p.UserInfoURL, api+"/user")
	// It is an address here, no issuer of RFC 9207.
	p.Issuer = ""
	if len(p.Scopes) == 0 {
		p.Scopes = []string{"read:user", "user:email"}
	}
	return p.locateEndpoints()
}

const (
	// anyTenant stands for the tenant in the issuer of the tenants that everybody may
	// sign in with.
	anyTenant = "{tenantid}"
	// consumers is the tenant of personal accounts.
	consumers = "9188040d-6c67-4c5b-b112-36a304b66dad"
)

var (
	guid   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	domain = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$`)
)

func (p *provider) applyMicrosoft() error {
	p.DisplayName, p.skipUserInfo = cmp.Or(p.DisplayName, "Microsoft"), true
	if p.Tenant == "" {
		return errors.New(`tenant is required: a GUID, a domain, "organizations", "consumers" or "common"`)
	}
	if t := p.Tenant; t != "common" && t != "organizations" && t != "consumers" && !guid.MatchString(t) && !domain.MatchString(t) {
		return fmt.Errorf(`tenant %q is neither a GUID or domain in small letters nor "organizations", "consumers" or "common"`, t)
	}
	return p.locateIssuer(p.authority() + p.Tenant + "/v2.0")
}

// authority is where the tenants are.
func (p *provider) authority() string {
	return strings.TrimSuffix(cmp.Or(p.Issuer, "https://login.microsoftonline.com"), "/") + "/"
}

// acceptsDocument reports whether the discovery document may be that of issuer.
// Microsoft's names the tenant by its GUID, whatever it was asked with.
func (p *provider) acceptsDocument(issuer string) bool {
	if p.Preset != presetMicrosoft {
		return issuer == p.issuer
	}
	switch p.Tenant {
	case "common", "organizations":
		return issuer == p.tenantIssuer(anyTenant)
	case "consumers":
		return issuer == p.tenantIssuer(consumers)
	}
	tenant, ok := strings.CutPrefix(issuer, p.authority())
	tenant, suffix := strings.CutSuffix(tenant, "/v2.0")
	return ok && suffix && guid.MatchString(tenant) && (tenant == p.Tenant || !guid.MatchString(p.Tenant))
}

func (p *provider) tenantIssuer(tenant string) string { return p.authority() + tenant + "/v2.0" }

// tokenIssuer returns the "iss" that a token with these claims has to have. Microsoft
// signs for every tenant with one set of keys: a token is its tenant's only if "tid"
// and "iss" agree.
func (p *provider) tokenIssuer(m *metadata, claims map[string]any) (string, error) {
	if p.Preset != presetMicrosoft {
		return m.issuer, nil
	}
	tenant, _ := claims["tid"].(string)
	if !guid.MatchString(tenant) {
		return "", errors.New(`"tid" is not a GUID`)
	}
	if p.Tenant == "organizations" && tenant == consumers {
		return "", errors.New("a personal account")
	}
	if issuer := p.tenantIssuer(tenant); m.issuer == issuer || m.issuer == p.tenantIssuer(anyTenant) {
		return issuer, nil
	}
	return "", errors.New("another tenant")
}

// checkKeyIssuer checks that the key may sign for the issuer: Microsoft says of each
// key whose tokens it signs.
func (p *provider) checkKeyIssuer(keyIssuer, issuer, tenant string) error {
	if p.Preset != presetMicrosoft || keyIssuer == "" || strings.ReplaceAll(keyIssuer, anyTenant, tenant) == issuer {
		return nil
	}
	return errors.New("a key of another issuer")
}

// checkDomain checks the claim "hd" of Google when the configuration asks for one: the
// parameter can be taken out of the address by whoever signs in.
func (p *provider) checkDomain(claims map[string]any) error {
	want := p.AuthParams["hd"]
	if p.Preset != presetGoogle || want == "" {
		return nil
	}
	if got, _ := claims["hd"].(string); got == "" || (want != "*" && got != want) {
		return &Error{Provider: p.Name, Reason: reasonDomain, kind: ErrProvider}
	}
	return nil
}

// verifiedEmail reports whether the provider vouches for the address. Only a JSON true
// counts. Microsoft lets tenants write any address into an account; it vouches with
// "xms_edov", which the app has to be registered for.
func (p *provider) verifiedEmail(claims map[string]any) bool {
	name := "email_verified"
	if p.Preset == presetMicrosoft {
		name = "xms_edov"
	}
	return claims[name] == any(true)
}
