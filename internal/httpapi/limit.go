package httpapi

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/engine/ratelimit"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/users"
)

// LimitKey says what a rule counts by.
type LimitKey string

// What rules count by.
const (
	// LimitByAddress counts by the client's address, IPv6 by /64.
	LimitByAddress LimitKey = "ip"
	// LimitByUser counts by who is calling, and by the address where nobody is known.
	LimitByUser LimitKey = "user"
	// LimitByIdentifier counts by the address and what somebody says to be.
	LimitByIdentifier LimitKey = "ip+identifier"
)

// Limit is a rate limit of an app.
type Limit struct {
	Rule  ratelimit.Rule
	Key   LimitKey
	Store ratelimit.Store
}

// The rules of our own routes.
const (
	LimitLogin        = "login"
	LimitLoginAddress = "login_address"
	LimitRegister     = "register"
	LimitAnonymous    = "anonymous"
	LimitRefresh      = "refresh"
	LimitPassword     = "password"
	LimitToken        = "token"
	LimitTokenAddress = "token_address"
	LimitAPIKeys      = "api_keys"
	LimitMail         = "mail"
	LimitMailAddress  = "mail_address"
	LimitConsume      = "consume"
	LimitOAuth        = "oauth"
	LimitIdentities   = "identities"
	LimitInvitations  = "invitations"
)

// limit counts an attempt against the rule and refuses what exceeds it. id, of who is
// calling, and identifier are what the rule may count by; a rule that the app does not
// have limits nothing.
func (a *API) limit(w http.ResponseWriter, r *http.Request, rule, id, identifier string) error {
	return a.limitAs(w, r, rule, called(id), id, identifier)
}

// limitAs is limit for what is counted by another id than that of who is calling.
func (a *API) limitAs(w http.ResponseWriter, r *http.Request, rule string, who *authz.Principal, id, identifier string) error {
	l := a.config.Limits[rule]
	if l == nil {
		return nil
	}
	return a.take(r, l, a.limitKey(r, l, id, identifier), who, func(d ratelimit.Decision) { d.WriteHeaders(w.Header(), l.Rule) })
}

// called is who has the id, as far as events need to know, nil for nobody.
func called(id string) *authz.Principal {
	switch {
	case store.ValidID(id, "usr_"):
		return &authz.Principal{ID: id, Kind: authz.KindHuman}
	case store.ValidID(id, "cli_"):
		return &authz.Principal{ID: id, Kind: authz.KindService}
	default:
		return nil
	}
}

// take makes one decision and shows it, whatever it is.
func (a *API) take(r *http.Request, l *Limit, key string, who *authz.Principal, show func(ratelimit.Decision)) error {
	d, err := l.Store.Take(r.Context(), l.Rule, key)
	if err != nil {
		return err // what cannot be counted is not let through
	}
	show(d)
	if d.Allowed {
		return nil
	}
	return a.exceeded(r, l, d, who)
}

// exceeded is the refusal of an attempt that exceeds the limit.
func (a *API) exceeded(r *http.Request, l *Limit, d ratelimit.Decision, who *authz.Principal) error {
	a.measured(r).Limited(l.Rule.Name)
	a.report(r.Context(), event.RateLimited, event.Failure, who, l.Rule.Name)
	p := refuseTo(who, CodeRateLimited)
	p.RetryAfter = cmp.Or(d.RetryAfter, d.ResetAfter)
	return p
}

func (a *API) limitKey(r *http.Request, l *Limit, id, identifier string) string {
	address := network(clientAddress(r, a.config.TrustedProxies))
	switch {
	case l.Key == LimitByUser && id != "":
		return "user/" + id
	case l.Key == LimitByIdentifier:
		return "ip/" + address + "/" + identifier
	default:
		return "ip/" + address
	}
}

// identifierOf is an address as attempts are counted by, so that no two spellings
// of it have a counter each.
func identifierOf(email string) string {
	if norm, err := users.NormalizeEmail(email); err == nil {
		return norm
	}
	return strings.ToLower(clip(email, maxDescribed))
}

// verdicts are the decisions that guards have made about one request, for the
// headers of its answer.
type verdicts struct{ list []verdict }

type verdict struct {
	rule     ratelimit.Rule
	decision ratelimit.Decision
}

type verdictsKey struct{}

// collecting returns the request with a place for decisions about it.
func collecting(r *http.Request) (*http.Request, *verdicts) {
	v := &verdicts{}
	return r.WithContext(context.WithValue(r.Context(), verdictsKey{}, v)), v
}

// show writes the headers of every decision.
func (v *verdicts) show(h http.Header) {
	for _, d := range v.list {
		d.decision.WriteHeaders(h, d.rule)
	}
}

// RateLimited lets so many requests pass as the rule says. key says what they are
// counted by; nil means what the manifest says. It asks for no principal. A rule
// that the manifest does not have refuses everything.
func (a *API) RateLimited(rule string, key func(*http.Request) string) *Guard {
	l := a.config.Limits[rule]
	g := a.guard(func(r *http.Request) (*authz.Principal, error) {
		if l == nil {
			return nil, fmt.Errorf("the manifest's auth.rate_limits has no rule %q", rule)
		}
		who := PrincipalFrom(r.Context())
		if who == nil && key == nil && l.Key == LimitByUser {
			who, _ = a.authenticate(r, false) // a credential that is refused is nobody's
		}
		counted, id := "", ""
		if who != nil {
			id = who.ID
		}
		if counted = a.limitKey(r, l, id, ""); key != nil {
			counted = "key/" + key(r)
		}
		return nil, a.limitGuarded(r, l, counted, who)
	})
	g.silent, g.limits = true, true
	return g
}

// limitGuarded is limit for a guard, which has no answer to write to.
func (a *API) limitGuarded(r *http.Request, l *Limit, key string, who *authz.Principal) error {
	return a.take(r, l, key, who, func(d ratelimit.Decision) {
		if v, ok := r.Context().Value(verdictsKey{}).(*verdicts); ok {
			v.list = append(v.list, verdict{l.Rule, d})
		}
	})
}

// Unlimited is the guard of a rule that is off.
func (a *API) Unlimited() *Guard {
	g := a.guard(func(*http.Request) (*authz.Principal, error) { return nil, nil }) //nolint:nilnil // it says nothing about who is calling
	g.silent = true
	return g
}
