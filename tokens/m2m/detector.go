package m2m

import (
	"slices"
	"strings"

	"github.com/mandate-auth/mandate/authz"
)

// maxClientID is the greatest length of a client id in bytes.
const maxClientID = 255

// IsMachine reports whether the claims meet the four criteria: no claim names a
// user, the token's use is one of a machine, it has a client id, and no claim
// describes a person; besides, what [Mapping.MachineClaim] and
// [Mapping.SubjectIsClient] require.
//
// A claim of people counts when it is there, whatever its value: null or "" as an
// e-mail address says that the issuer has a person in mind. False does not mean
// that the token is a person's, see [Detector.RequiresUserContext].
func (d *Detector) IsMachine(claims map[string]any) bool {
	for _, name := range d.people {
		if _, there := claims[name]; there {
			return false
		}
	}
	m := &d.mapping
	if len(m.TokenUseValues) > 0 && !holds(claims, m.TokenUseClaim, m.TokenUseValues) {
		return false
	}
	if m.MachineClaim != "" && !holds(claims, m.MachineClaim, m.MachineValues) {
		return false
	}
	client, found := d.ClientID(claims)
	return found && (!m.SubjectIsClient || claims["sub"] == any(client))
}

// ClientID returns the client that the token was issued to. It is not found when
// no claim holds it, when one that should is no client identifier of 1 to 255
// printable ASCII characters (RFC 6749 appendix A.1), or when two disagree.
func (d *Detector) ClientID(claims map[string]any) (id string, found bool) {
	for _, name := range d.mapping.ClientIDClaims {
		value, there := claims[name]
		if !there {
			continue
		}
		s, ok := value.(string)
		if !ok || !isClientID(s) || (found && s != id) {
			return "", false
		}
		id, found = s, true
	}
	return id, found
}

func isClientID(s string) bool {
	if len(s) > maxClientID || strings.TrimSpace(s) == "" {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// RequiresUserContext reports whether the token names a person: a claim of people
// holds a string that is not blank, and nothing says that a machine presents the
// token. A subject that is the client says so, and [Mapping.MachineClaim] does:
// some providers give their service accounts names and addresses, and those must
// not open what is for people only.
func (d *Detector) RequiresUserContext(claims map[string]any) bool {
	if holds(claims, d.mapping.MachineClaim, d.mapping.MachineValues) {
		return false
	}
	if client, found := d.ClientID(claims); found && claims["sub"] == any(client) {
		return false
	}
	for _, name := range d.people {
		if s, ok := claims[name].(string); ok && strings.TrimSpace(s) != "" {
			return true
		}
	}
	return false
}

// Kind returns [authz.KindService] for a machine, [authz.KindHuman] for a person,
// and the zero value, which no guard lets pass, for what is neither.
func (d *Detector) Kind(claims map[string]any) authz.Kind {
	switch {
	case d.IsMachine(claims):
		return authz.KindService
	case d.RequiresUserContext(claims):
		return authz.KindHuman
	default:
		return ""
	}
}

// MetadataOf returns what the claims say about who presents the token.
func (d *Detector) MetadataOf(claims map[string]any) Metadata {
	use, _ := claims[d.mapping.TokenUseClaim].(string)
	client, _ := d.ClientID(claims)
	return Metadata{
		TokenUse: use, ClientID: client, Scopes: d.Scopes(claims), HasUserContext: d.RequiresUserContext(claims),
	}
}

// Scopes returns the scopes of the token without repetitions, never nil. A claim of
// another type, with more than [authz.MaxScopes] or with one that
// [authz.CheckScope] refuses gives none: half of a list that nobody understands
// grants nothing.
func (d *Detector) Scopes(claims map[string]any) []string {
	for _, name := range d.mapping.ScopeClaims {
		if value, there := claims[name]; there {
			return scopes(value)
		}
	}
	return []string{}
}

func scopes(value any) []string {
	var list []string
	switch value := value.(type) {
	case string:
		list = strings.FieldsFunc(value, func(r rune) bool { return r == ' ' })
	case []string:
		list = value
	case []any:
		for _, item := range value {
			s, _ := item.(string) // "" is no scope
			list = append(list, s)
		}
	}
	unique := []string{}
	for _, scope := range list {
		if authz.CheckScope(scope) != nil {
			return []string{}
		}
		if slices.Contains(unique, scope) {
			continue
		}
		if len(unique) == authz.MaxScopes {
			return []string{}
		}
		unique = append(unique, scope)
	}
	return unique
}

// holds reports whether the claim is one of the strings in values.
func holds(claims map[string]any, name string, values []string) bool {
	s, ok := claims[name].(string)
	return ok && slices.Contains(values, s)
}
