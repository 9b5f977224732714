package httpapi

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
)

// Guard is something that a route requires of a request. It is immutable and
// safe for concurrent use.
//
// The zero value refuses everything.
type Guard struct {
	api   *API
	check func(*http.Request) (*authz.Principal, error)
	// silent guards do not ask who is calling: what a guard around them has
	// found out stays.
	silent bool
	// limits says that the guard counts requests, or has one in it that does.
	limits bool
	// refusal answers instead of the app, nil for the app.
	refusal func(http.ResponseWriter, *http.Request, *Problem)
}

// errZeroGuard is what a Guard that nobody made answers.
var errZeroGuard = errors.New("the zero value of Guard refuses everything")

// Check returns who is calling, or why the request is refused, for services
// that use no middleware. Under [API.Optional] and [API.RequireTLS] the
// principal can be nil. The error is a [*Problem] of the caller's own.
func (g *Guard) Check(r *http.Request) (*authz.Principal, error) {
	p, err := g.run(r)
	if err == nil {
		return p, nil
	}
	var broken *panicError
	if errors.As(err, &broken) {
		g.api.logFailure(r, AsProblem(err)) // nobody else will
	}
	return nil, err
}

func (g *Guard) run(r *http.Request) (p *authz.Principal, err error) {
	if g == nil || g.check == nil {
		return nil, AsProblem(errZeroGuard)
	}
	// A defect in a guard refuses the request; it does not let it through.
	defer func() {
		if v := recover(); v != nil {
			p, err = nil, AsProblem(&panicError{value: v, stack: debug.Stack()})
		}
	}()
	p, err = g.check(r)
	if err != nil {
		return nil, AsProblem(err)
	}
	return p, nil
}

// Handler returns a handler that calls next for requests that pass, with the
// principal in the context, and answers all others.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var counted *verdicts
		if g != nil && g.limits {
			r, counted = collecting(r)
		}
		p, err := g.run(r)
		if counted != nil {
			counted.show(w.Header())
		}
		if err != nil {
			g.refuse(w, r, err) //nolint:contextcheck // the request carries its context
			return
		}
		g.api.observe(r, p)
		if !g.silent {
			r = r.WithContext(WithPrincipal(r.Context(), p))
		}
		next.ServeHTTP(w, r)
	})
}

// Func is Handler for a function.
func (g *Guard) Func(next http.HandlerFunc) http.Handler { return g.Handler(next) }

func (g *Guard) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if g == nil || g.api == nil {
		if p := AsProblem(err); g != nil && g.refusal != nil {
			g.refusal(w, r, p)
		} else {
			WriteProblem(w, p)
		}
		return
	}
	r = g.api.beginRequest(w, r)
	g.api.config.Headers.fill(w, r)
	p := AsProblem(err)
	g.api.observe(r, p.who)
	g.api.measured(r).Denied(p.Code)
	if p.Code != CodeRateLimited { // reported where it was counted
		g.api.report(r.Context(), event.AccessDenied, event.Failure, p.who, p.Code)
	}
	g.api.failWith(w, r, p, g.refusal)
}

// OnRefuse returns the same guard with another way to write its refusals, for a
// route whose clients expect something else: a page, a redirect to the sign-in.
// Headers such as WWW-Authenticate and Retry-After are set already.
func (g *Guard) OnRefuse(write func(http.ResponseWriter, *http.Request, *Problem)) *Guard {
	var other Guard
	if g != nil {
		other = *g
	}
	other.refusal = write
	return &other
}

type principalKey struct{}

// WithPrincipal returns a context that carries p.
func WithPrincipal(ctx context.Context, p *authz.Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalFrom returns the principal of the request: always there behind a
// guard, nil without one and for nobody under [API.Optional].
func PrincipalFrom(ctx context.Context) *authz.Principal {
	p, _ := ctx.Value(principalKey{}).(*authz.Principal)
	return p
}

func (a *API) guard(check func(*http.Request) (*authz.Principal, error)) *Guard {
	return &Guard{api: a, check: check}
}

// RequireUser asks for a principal. Guests pass only where the manifest allows
// anonymous principals.
func (a *API) RequireUser() *Guard {
	return a.guard(func(r *http.Request) (*authz.Principal, error) { return a.user(r, false) })
}

func (a *API) user(r *http.Request, strict bool) (*authz.Principal, error) {
	p, err := a.known(r, strict)
	if err != nil {
		return nil, err
	}
	return p, a.enters(r.Context(), p)
}

// known is user without the question whether the principal may enter the app.
func (a *API) known(r *http.Request, strict bool) (*authz.Principal, error) {
	p, err := a.authenticate(r, strict)
	if err != nil {
		return nil, err
	}
	return p, a.guests(p)
}

// guests refuses a guest where guests pass no guards.
func (a *API) guests(p *authz.Principal) error {
	if p.Kind == authz.KindAnonymous && !a.config.AllowGuests {
		return errForbidden
	}
	return nil
}

// enters refuses whom the app does not let in at all.
func (a *API) enters(ctx context.Context, p *authz.Principal) error {
	if a.config.Entry {
		if ok, err := a.config.Authz.Enter(ctx, p); err != nil {
			return err
		} else if !ok {
			return denied(p)
		}
	}
	return nil
}

// Strict is RequireUser with the session, its head and the user read from the
// database on every request.
func (a *API) Strict() *Guard {
	return a.guard(func(r *http.Request) (*authz.Principal, error) { return a.user(r, true) })
}

// RequireHuman is RequireUser for people: machines are refused.
func (a *API) RequireHuman() *Guard {
	return a.requirement(Requirement{HumanOnly: true})
}

// RequireMachine is RequireUser for machines: services and API keys. People are
// refused.
func (a *API) RequireMachine() *Guard {
	return a.requirement(Requirement{MachineOnly: true})
}

// RequireFresh is RequireUser for those who have proved who they are within
// maxAge; a refresh does not count. Zero means ten minutes.
func (a *API) RequireFresh(maxAge time.Duration) *Guard {
	if maxAge <= 0 {
		maxAge = 10 * time.Minute
	}
	return a.requirement(Requirement{FreshWithin: maxAge})
}

// RequireTLS asks for HTTPS, to this process or to a trusted proxy. It asks for
// no principal: combine it by All, or put it inside or around another guard.
func (a *API) RequireTLS() *Guard {
	g := a.guard(func(r *http.Request) (*authz.Principal, error) {
		if !encrypted(r, a.config.TrustedProxies) {
			return nil, refuse(CodeTLSRequired)
		}
		return nil, nil //nolint:nilnil // it says nothing about who is calling
	})
	g.silent = true
	return g
}

// All passes what every guard passes. The principal is that of the last guard
// that names one.
func (a *API) All(guards ...*Guard) *Guard {
	guards = slices.Clone(guards)
	all := a.guard(func(r *http.Request) (*authz.Principal, error) {
		if len(guards) == 0 {
			return nil, errZeroGuard
		}
		return runAll(r, guards)
	})
	all.silent, all.limits = allSilent(guards), anyLimits(guards)
	return all
}

// runAll returns the principal of the last guard that names one, if all let the
// request pass.
func runAll(r *http.Request, guards []*Guard) (found *authz.Principal, err error) {
	for _, g := range guards {
		p, err := g.run(r)
		if err != nil {
			return nil, err
		}
		if p != nil {
			found = p
		}
	}
	return found, nil
}

func anyLimits(guards []*Guard) bool {
	return slices.ContainsFunc(guards, func(g *Guard) bool { return g != nil && g.limits })
}

func allSilent(guards []*Guard) bool {
	return len(guards) > 0 && !slices.ContainsFunc(guards, func(g *Guard) bool { return g == nil || !g.silent })
}

// Optional passes what guard passes, and requests without a valid credential as
// nobody. A doubled or malformed credential, a store that cannot be reached and
// every refusal of a principal stay refusals. A nil guard means RequireUser.
func (a *API) Optional(guard *Guard) *Guard {
	if guard == nil {
		guard = a.RequireUser()
	}
	optional := a.guard(func(r *http.Request) (*authz.Principal, error) {
		p, err := guard.run(r)
		if err == nil {
			return p, nil
		}
		switch AsProblem(err).Code {
		case CodeUnauthenticated, CodeInvalidCredentials, CodeTokenExpired, CodeTokenInvalid, CodeTokenRevoked, CodeSessionExpired:
			return nil, nil //nolint:nilnil // nobody is calling, and that is allowed
		default:
			return nil, err
		}
	})
	optional.silent, optional.limits = guard.silent, guard.limits
	return optional
}

var errForbidden = refuse(CodeForbidden)
