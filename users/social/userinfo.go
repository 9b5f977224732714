package social

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"

	"github.com/mandate-auth/mandate/internal/strictjwt"
	"github.com/mandate-auth/mandate/users"
)

// UserInfo says who signed in, in one form for all providers. But for Provider and
// Subject each field may be empty: what does not have the form of its kind is left out.
type UserInfo struct {
	// Provider is the provider's name.
	Provider string
	// Subject names the person at [Result].Issuer, for good: 1 to 255 bytes.
	Subject string
	// Email is one e-mail address as the provider writes it; users.NormalizeEmail takes
	// it. It names nobody: see the package comment.
	Email string
	// EmailVerified says that the provider vouches for Email.
	EmailVerified bool
	// Name, GivenName and FamilyName are for people, at most 255 bytes each.
	Name, GivenName, FamilyName string
	// Picture is an https URL of at most 2,048 bytes.
	Picture string
	// Locale is a language tag.
	Locale string
	// Raw is all that the provider said, numbers as json.Number, and what the ID token
	// says before what the user information says. Decide nothing by it.
	Raw map[string]any
}

// oidcUser verifies the ID token and says who it is about.
func (p *provider) oidcUser(ctx context.Context, m *metadata, f *flow, g *granted) (issuer string, info UserInfo, err error) {
	v, err := p.verify(ctx, m, f, g)
	if err != nil {
		return "", info, p.refuse(reasonIDToken, err)
	}
	var more map[string]any
	if m.userInfoURL != "" && !p.skipUserInfo {
		if more, err = p.set.getObject(ctx, m.userInfoURL, g.access); err != nil {
			return "", info, p.refuse(reasonUserInfo, err)
		}
		// OpenID Connect Core section 5.3.2: otherwise the access token could be
		// somebody else's.
		if more["sub"] != any(v.subject) {
			return "", info, p.refuse(reasonSubject, nil)
		}
	}
	info = p.describe(standard, v.claims, more)
	info.Subject = v.subject
	info.Email, info.EmailVerified = p.email(v.claims, more)
	return v.issuer, info, nil
}

// email takes the address and what is said about it from one place: the ID token, if
// it has an address.
func (p *provider) email(token, more map[string]any) (address string, verified bool) {
	claims := token
	if _, there := token["email"]; !there {
		claims = more
	} else if _, said := token["email_verified"]; !said && more["email"] == token["email"] {
		// The same address, and only there is a word about it.
		claims = more
	}
	address = validEmail(claims["email"])
	return address, address != "" && p.verifiedEmail(claims)
}

// plainUser asks the endpoint of OAuth 2.0 without OpenID Connect.
func (p *provider) plainUser(ctx context.Context, access string) (info UserInfo, err error) {
	claims, err := p.set.getObject(ctx, p.UserInfoURL, access)
	if err != nil {
		return info, p.refuse(reasonUserInfo, err)
	}
	if p.Preset == presetGitHub {
		return p.githubUser(ctx, claims, access)
	}
	subject, err := subjectOf(lookup(claims, p.Claims.Subject))
	if err != nil {
		return info, p.refuse(reasonUserInfo, err)
	}
	info = p.describe(p.Claims, claims, nil)
	info.Subject = subject
	if p.Claims.Email != "" {
		info.Email = validEmail(lookup(claims, p.Claims.Email))
		info.EmailVerified = info.Email != "" && p.Claims.EmailVerified != "" && lookup(claims, p.Claims.EmailVerified) == any(true)
	}
	return info, nil
}

// describe fills in all but the subject and the address, the claims before more.
func (p *provider) describe(names ClaimMap, claims, more map[string]any) UserInfo {
	info := UserInfo{Provider: p.Name, Raw: map[string]any{}}
	maps.Copy(info.Raw, more)
	maps.Copy(info.Raw, claims)
	for path, into := range map[*string]*string{
		&names.Name: &info.Name, &names.GivenName: &info.GivenName, &names.FamilyName: &info.FamilyName,
		&names.Picture: &info.Picture, &names.Locale: &info.Locale,
	} {
		for _, from := range []map[string]any{claims, more} {
			if *into == "" && *path != "" {
				*into, _ = lookup(from, *path).(string)
			}
		}
	}
	for _, text := range []*string{&info.Name, &info.GivenName, &info.FamilyName, &info.Locale} {
		if _, err := strictjwt.Text(map[string]any{"": *text}, ""); err != nil {
			*text = ""
		}
	}
	if !validPicture(info.Picture) {
		info.Picture = ""
	}
	return info
}

// integer is a JSON number that has one spelling only.
var integer = regexp.MustCompile(`^(0|[1-9][0-9]{0,38})$`)

// subjectOf returns the text that a subject is kept as: a string as it is, an integer
// in decimal.
func subjectOf(value any) (string, error) {
	if number, ok := value.(json.Number); ok {
		if !integer.MatchString(number.String()) {
			return "", errors.New("the subject is a number that is no id")
		}
		return number.String(), nil
	}
	subject, err := strictjwt.Text(map[string]any{"subject": value}, "subject")
	if err != nil {
		return "", fmt.Errorf("%w; check the claim map", err)
	}
	return subject, nil
}

// validEmail returns an address that an account could have, or "".
func validEmail(value any) string {
	address, _ := value.(string)
	if _, err := users.NormalizeEmail(address); err != nil {
		return ""
	}
	return address
}

// validPicture keeps javascript: and addresses in the clear out of pages.
func validPicture(address string) bool {
	u, err := url.Parse(address)
	return err == nil && len(address) <= 2048 && u.Scheme == "https" && u.Host != "" && u.User == nil
}
