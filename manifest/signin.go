package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/language"

	"github.com/mandate-auth/mandate/internal/localpath"
)

// Registration is the key "auth.users.allow_registration".
type Registration string

// Who may register.
const (
	RegistrationOpen   Registration = "true"
	RegistrationClosed Registration = "false"
	RegistrationInvite Registration = "invite_only"
)

// UnmarshalJSON reads true, false or "invite_only".
func (r *Registration) UnmarshalJSON(raw []byte) error {
	switch text := Registration(strings.Trim(string(raw), `"`)); text {
	case RegistrationOpen, RegistrationClosed, RegistrationInvite:
		*r = text
		return nil
	default:
		return errors.New(`allow_registration is true, false or "invite_only"`)
	}
}

// MarshalJSON writes what UnmarshalJSON reads.
func (r Registration) MarshalJSON() ([]byte, error) {
	if r == RegistrationInvite {
		return json.Marshal(string(r))
	}
	return json.Marshal(r == RegistrationOpen)
}

// OAuth is the key "auth.oauth".
type OAuth struct {
	Providers          map[string]OAuthProvider `json:"providers"`
	Link               string                   `json:"link"`
	CreateUsers        bool                     `json:"create_users"`
	RedirectAfterLogin string                   `json:"redirect_after_login"`
}

// OAuthProvider is one of "auth.oauth.providers".
type OAuthProvider struct {
	Preset                string `json:"preset"`
	Issuer                string `json:"issuer"`
	Tenant                string `json:"tenant"`
	AuthorizationEndpoint string `json:"authorization_endpoint"`
	TokenEndpoint         string `json:"token_endpoint"`
	UserinfoEndpoint      string `json:"userinfo_endpoint"`
	Claims                struct {
		Subject       string `json:"subject"`
		Email         string `json:"email"`
		EmailVerified string `json:"email_verified"`
		Name          string `json:"name"`
		GivenName     string `json:"given_name"`
		FamilyName    string `json:"family_name"`
		Picture       string `json:"picture"`
		Locale        string `json:"locale"`
	} `json:"claims"`
	DisplayName             string            `json:"display_name"`
	ClientID                string            `json:"client_id"`
	ClientSecret            Secret            `json:"client_secret"`
	Scopes                  []string          `json:"scopes"`
	TokenEndpointAuthMethod string            `json:"token_endpoint_auth_method"`
	AuthorizationParams     map[string]string `json:"authorization_params"`
	KeepTokens              bool              `json:"keep_tokens"`
}

// Mail is the key "auth.mail".
type Mail struct {
	From     string `json:"from"`
	ReplyTo  string `json:"reply_to"`
	Language string `json:"language"`
	SMTP     struct {
		Host     string `json:"host"`
		Port     int    `json:"port"`
		Username string `json:"username"`
		Password Secret `json:"password"`
		TLS      string `json:"tls"`
	} `json:"smtp"`
	Links struct {
		VerifyEmail   string `json:"verify_email"`
		ResetPassword string `json:"reset_password"`
		ChangeEmail   string `json:"change_email"`
		MagicLink     string `json:"magic_link"`
		Invitation    string `json:"invitation"`
	} `json:"links"`
	TTL struct {
		VerifyEmail   Duration `json:"verify_email"`
		ResetPassword Duration `json:"reset_password"`
		ChangeEmail   Duration `json:"change_email"`
		MagicLink     Duration `json:"magic_link"`
		EmailCode     Duration `json:"email_code"`
		Invitation    Duration `json:"invitation"`
	} `json:"ttl"`
	MagicLink bool `json:"magic_link"`
	EmailCode bool `json:"email_code"`
}

// Enabled reports whether the app mails anything.
func (m *Mail) Enabled() bool { return m.From != "" }

// checkSignIn checks sign-in by other providers and by mail.
func (p *parser) checkSignIn(m *Manifest) {
	a := &m.Auth
	people := a.Users.Enabled && a.Users.Strategy == "app_users"
	if len(a.OAuth.Providers) > 0 {
		switch {
		case !people:
			p.fault("/auth/oauth/providers", "", "need people who could sign in")
		case m.PublicURL == "":
			p.fault("/auth/oauth/providers", "", "need public_url: it is where providers send people back to")
		case a.Tokens.Transport == "bearer":
			p.fault("/auth/oauth/providers", "", `need tokens.transport "both" or "cookie": a redirect can hand over nothing but cookies`)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.OAuth.Providers)) {
		provider := a.OAuth.Providers[name]
		p.checkOAuthProvider("/auth/oauth/providers/"+escape(name), &provider)
	}
	if !localpath.Valid(a.OAuth.RedirectAfterLogin) || strings.ContainsAny(a.OAuth.RedirectAfterLogin, "?#") {
		p.fault("/auth/oauth/redirect_after_login", render(a.OAuth.RedirectAfterLogin), `must be a path of the service, beginning with one "/", without query or fragment`)
	}
	p.checkMail(m)
}

// checkOAuthProvider checks that it is said once where a provider is. What the addresses
// have to look like is for those who call them.
func (p *parser) checkOAuthProvider(at string, x *OAuthProvider) {
	endpoints := []string{x.AuthorizationEndpoint, x.TokenEndpoint, x.UserinfoEndpoint}
	given := 0
	for _, e := range endpoints {
		if e != "" {
			given++
		}
	}
	if strings.HasSuffix(x.Issuer, "/.well-known/openid-configuration") {
		p.fault(at+"/issuer", render(x.Issuer), "must be the address before /.well-known/openid-configuration")
	}
	switch {
	case x.Preset == "" && x.Issuer == "" && given == 0:
		p.fault(at, "", "needs a preset, an issuer, or the three endpoints")
	case given > 0 && given < len(endpoints) && x.Preset == "":
		p.fault(at, "", "needs all of authorization_endpoint, token_endpoint and userinfo_endpoint")
	case x.Preset == "" && given > 0 && x.Claims.Subject == "":
		p.fault(at+"/claims/subject", "", "is required with the three endpoints: it says what identifies a person")
	}
	if (x.Preset == "microsoft") != (x.Tenant != "") {
		p.fault(at+"/tenant", render(x.Tenant), `is required with the preset "microsoft", and has no meaning elsewhere`)
	}
}

func (p *parser) checkMail(m *Manifest) {
	a, c := &m.Auth, &m.Auth.Mail
	if !c.Enabled() {
		if c.SMTP.Host != "" {
			p.fault("/auth/mail/from", "", "is required with smtp: without it nothing is mailed")
		}
		needs := func(at, value string) {
			p.fault(at, value, "needs mail.from: without mail nobody could prove anything")
		}
		if a.Users.RequireVerifiedEmail {
			needs("/auth/users/require_verified_email", "true")
		}
		if a.Users.AllowRegistration == RegistrationInvite {
			needs("/auth/users/allow_registration", `"invite_only"`)
		}
		if c.MagicLink {
			needs("/auth/mail/magic_link", "true")
		}
		if c.EmailCode {
			needs("/auth/mail/email_code", "true")
		}
		return
	}
	if m.PublicURL == "" {
		p.fault("/auth/mail/from", render(c.From), "needs public_url: it is what mailed links begin with")
	}
	if !a.Users.Enabled || a.Users.Strategy != "app_users" {
		p.fault("/auth/mail/from", render(c.From), "needs people who could be written to")
	}
	for at, address := range map[string]string{"/auth/mail/from": c.From, "/auth/mail/reply_to": c.ReplyTo} {
		if _, err := mail.ParseAddress(address); address != "" && err != nil {
			p.fault(at, render(address), `must be an address, or a name and an address as in "Shop <no-reply@shop.example>"`)
		}
	}
	if _, err := language.Parse(c.Language); err != nil {
		p.fault("/auth/mail/language", render(c.Language), "must be a language tag such as en or de")
	}
	p.checkSMTP(c)
	for name, path := range map[string]string{
		"verify_email": c.Links.VerifyEmail, "reset_password": c.Links.ResetPassword, "change_email": c.Links.ChangeEmail,
		"magic_link": c.Links.MagicLink, "invitation": c.Links.Invitation,
	} {
		if u, err := url.Parse(path); err != nil || !localpath.Valid(path) || u.Fragment != "" || strings.Contains(path, "#") {
			p.fault("/auth/mail/links/"+name, render(path), `must be a path of the service, beginning with one "/", without a fragment`)
		}
	}
	for _, l := range []struct {
		name string
		life Duration
		most time.Duration
	}{
		{"verify_email", c.TTL.VerifyEmail, 7 * 24 * time.Hour},
		{"reset_password", c.TTL.ResetPassword, 24 * time.Hour},
		{"change_email", c.TTL.ChangeEmail, 24 * time.Hour},
		{"magic_link", c.TTL.MagicLink, time.Hour},
		{"email_code", c.TTL.EmailCode, 10 * time.Minute},
		{"invitation", c.TTL.Invitation, 90 * 24 * time.Hour},
	} {
		p.bound(fmt.Sprintf("/auth/mail/ttl/%s", l.name), l.life, time.Minute, l.most, "")
	}
}

func (p *parser) checkSMTP(c *Mail) {
	s := &c.SMTP
	if strings.Contains(s.Host, ":") && net.ParseIP(s.Host) == nil {
		p.fault("/auth/mail/smtp/host", render(s.Host), "must be a host alone; the port is smtp.port")
	}
	if s.Port == 465 && s.TLS != "tls" {
		p.fault("/auth/mail/smtp/tls", render(s.TLS), `must be "tls" with port 465, where servers speak TLS from the first byte`)
	}
	if s.Host == "" && (s.Port != 0 || s.Username != "" || s.Password.Len() > 0) {
		p.fault("/auth/mail/smtp/host", "", "is required with the rest of smtp")
	}
	if (s.Username == "") != (s.Password.Len() == 0) {
		p.fault("/auth/mail/smtp/username", render(s.Username), "and password belong together")
	}
	if s.TLS == "none" && s.Host != "" && !loopback(s.Host) {
		p.fault("/auth/mail/smtp/tls", `"none"`, "is for a server on the loopback interface: everybody between could read the links")
	}
}
