package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/cookies"
	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/engine/metrics"
	"github.com/mandate-auth/mandate/internal/pattern"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/issuers"
	"github.com/mandate-auth/mandate/tokens/oauth2"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
	"github.com/mandate-auth/mandate/users/invitation"
	"github.com/mandate-auth/mandate/users/recovery"
	"github.com/mandate-auth/mandate/users/social"
)

// Transport says how clients may carry tokens.
type Transport string

// The transports.
const (
	TransportBearer Transport = "bearer"
	TransportCookie Transport = "cookie"
	TransportBoth   Transport = "both"
)

// Health is what GET /health tells.
type Health struct {
	Status    string `json:"status"`
	MongoDB   string `json:"mongodb"`
	FeedAgeMS int64  `json:"feed_age_ms"`
	// Healthy decides the status code.
	Healthy bool `json:"-"`
}

// Config is what the routes and guards of one app rest on. All parts are
// required.
type Config struct {
	App      string
	BasePath string

	Users     *users.Store
	Sessions  *sessions.Manager
	Tokens    *tokens.Service
	Blacklist *tokens.Blacklist
	Devices   *tokens.Devices
	Jar       *cookies.Jar
	Authz     Authorizer
	Admin     Administrator
	Health    func(context.Context) Health
	// APIKeys, Clients and Issuers are nil where the app has none.
	APIKeys *apikey.Store
	Clients *oauth2.Store
	Issuers *issuers.Set
	// Recovery is nil where the app mails nothing, Invitations where nobody is invited,
	// Social and Identities where it has no providers.
	Recovery    *recovery.Service
	Invitations *invitation.Store
	Social      *social.Set
	Identities  *identity.Store
	// RedirectAfterLogin follows a sign-in by another provider that names nothing, or that
	// fails.
	RedirectAfterLogin string
	// GuestSignedIn is told that a guest has signed in to another account. It may be nil.
	GuestSignedIn func(ctx context.Context, guestID, userID string) error
	// Authenticators recognise credentials of the service's own.
	Authenticators []NamedAuthenticator
	// NewKey looks for a signing key that another instance has made. Nil where keys
	// are derived.
	NewKey func(ctx context.Context, kid string) (known bool, err error)
	// JWKS returns the keys that verify tokens (RFC 7517). Nil where there are none
	// to publish.
	JWKS http.Handler
	// Limits are the rate limits, by the names of their rules.
	Limits  map[string]*Limit
	Audit   *audit.Trail
	Metrics *metrics.Collector
	// Unmeasured are paths whose requests Metrics does not count, each itself or with
	// "/*" at its end all below it.
	Unmeasured []string
	// Prometheus serves the metrics to a scraper, nil where nobody asked for it.
	Prometheus http.Handler
	// OpenAPI returns the document of the routes, as JSON. Nil serves none.
	OpenAPI func() []byte

	// Issuer, Audience and PublicURL are what the metadata of the authorization server
	// says, and ClientScopes what clients may ask for.
	Issuer, Audience, PublicURL string
	ClientScopes                []string
	// ClientToken changes a client's access token before it is issued.
	ClientToken func(context.Context, *ClientToken) error
	// DeleteClient ends a client and all that names it.
	DeleteClient func(ctx context.Context, id string) error

	// Claims returns the custom claims of a user's access tokens, or nil.
	Claims func(ctx context.Context, userID string) (map[string]any, error)

	// Scopes returns the scopes of a user's access tokens, or nil.
	Scopes func(ctx context.Context, userID string) ([]string, error)

	// Roles are the roles of the app, and Hierarchy what each has besides.
	Roles     []string
	Hierarchy map[string][]string

	// UsersEnabled switches every route that needs accounts.
	UsersEnabled bool
	// People switches registration and sign-in with a password.
	People bool
	// Registration admits registrations, InviteOnly those of people who were invited.
	Registration, InviteOnly bool
	// RequireVerified lets people in only once their address is verified.
	RequireVerified bool
	// MagicLink and EmailCode switch sign-in by mail.
	MagicLink, EmailCode bool
	Guests, Demo         bool
	// AllowGuests lets guests pass RequireUser.
	AllowGuests bool
	// Entry makes guards ask who may enter the app at all.
	Entry bool
	// OwnerPasses lets owners pass RequireOwnerOr.
	OwnerPasses bool
	// Strict makes every guard ask the database.
	Strict    bool
	Transport Transport

	TrustedProxies   []netip.Prefix
	InternalNetworks []netip.Prefix
	// Requirements are the path rules of [API.ByPath], and RequireAuth says what
	// paths without a rule need.
	Requirements []Requirement
	RequireAuth  bool

	CSRF           bool
	TrustedOrigins []string
	CORS           CORSConfig
	Headers        HeaderConfig

	Events  event.Sink
	Logger  *slog.Logger
	Now     func() time.Time
	OnError func(http.ResponseWriter, *http.Request, *Problem)
}

// API is the HTTP face of one app. It is safe for concurrent use.
type API struct {
	config  Config
	origins *http.CrossOriginProtection
	routes  []route
	rules   pathRules
	// basic says that the app takes HTTP Basic at all, and machines that it takes
	// credentials of machines.
	basic, machines bool
	// metadataPath and metadataJSON are those of the authorization server.
	metadataPath string
	metadataJSON []byte
	// unmeasured are the paths that the metrics leave out.
	unmeasured pattern.Excluded
	// observing says that somebody records who passed guards.
	observing atomic.Bool
}

// New returns the HTTP face that config describes.
func New(config Config) (*API, error) {
	trusted := config.TrustedOrigins
	if config.CORS.Credentials {
		// Pages that may read with the user's cookies may send with them. The
		// others are given no cookies by browsers: a request of theirs that has
		// some was not made by the rules of CORS.
		trusted = slices.Concat(trusted, config.CORS.Origins)
	}
	origins, err := originGuard(trusted)
	if err != nil {
		return nil, fmt.Errorf("trusted origins: %w", err)
	}
	a := &API{config: config, origins: origins, unmeasured: pattern.Exclude(config.Unmeasured), basic: config.Clients != nil, machines: config.Clients != nil || config.APIKeys != nil || config.Issuers != nil}
	for _, q := range config.Requirements {
		for _, m := range q.Methods {
			a.basic = a.basic || slices.Contains(m.Credentials, authz.CredentialBasic)
		}
	}
	if err := a.describe(); err != nil {
		return nil, err
	}
	a.rules = a.compile(config.Requirements)
	a.routes = prepare(a.table())
	return a, nil
}

// ServeHTTP serves the app's routes. It is mounted at the base path, with a
// slash at its end and without http.StripPrefix.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r = a.beginRequest(w, r)
	a.config.Headers.set(w, r)
	w.Header().Set("Cache-Control", "no-store")
	defer func() {
		if v := recover(); v != nil {
			if v == http.ErrAbortHandler { //nolint:errorlint // a sentinel that is compared, as net/http does
				panic(v)
			}
			a.fail(w, r, &panicError{value: v, stack: debug.Stack()})
		}
	}()
	if a.config.CORS.apply(w, r) {
		return
	}
	rt, allowed := a.match(r)
	switch {
	case len(allowed) == 0:
		a.fail(w, r, refuse(CodeNotFound))
	case rt == nil:
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		a.fail(w, r, refuse(CodeMethodNotAllowed))
	default:
		if err := a.serve(rt, w, r); err != nil {
			a.refused(r, AsProblem(err))
			a.fail(w, r, err)
		}
	}
}

func (a *API) serve(rt *route, w http.ResponseWriter, r *http.Request) error {
	if rt.machine {
		return rt.serve(w, r)
	}
	// Before anybody is asked for: a client that holds its body back would be who it was
	// when it began to send, whatever has ended since.
	if err := buffer(w, r); err != nil {
		return err
	}
	carries, err := a.carriesCookie(r)
	if err != nil {
		return err
	}
	if !safeMethod(r.Method) && carries && a.config.CSRF && (a.origins.Check(r) != nil || simple(r)) {
		a.report(r.Context(), event.CrossOriginRefused, event.Failure, nil, "route")
		return errCSRF
	}
	return rt.serve(w, r)
}

// carriesCookie reports whether the request brings a cookie that authenticates.
// The error is [cookies.ErrDuplicate] for two of our cookies of one name, also
// on routes that would not look at them.
func (a *API) carriesCookie(r *http.Request) (carries bool, err error) {
	if !a.cookieTransport() || len(r.Header["Cookie"]) == 0 {
		return false, nil
	}
	secure := a.secure(r)
	for _, kind := range []cookies.Kind{cookies.Access, cookies.Refresh, cookies.Device} {
		v, err := a.config.Jar.Read(r, kind, secure)
		if err != nil {
			return false, err
		}
		carries = carries || (v != "" && kind != cookies.Device)
	}
	return carries, nil
}

func (a *API) report(ctx context.Context, kind event.Type, result event.Result, who *authz.Principal, reason string) {
	e := event.Event{
		Type: kind, Result: result, App: a.config.App, Time: a.config.Now(), Reason: reason, Request: event.RequestFrom(ctx), IsM2M: who.IsM2M(),
	}
	switch {
	case who == nil:
	case who.Kind == authz.KindService:
		e.ClientID = who.ID
	default:
		e.UserID, e.SessionID = who.ID, who.SessionID
	}
	a.config.Events.Record(ctx, e)
}

// caller is who calls one of our own routes: guests included.
func (a *API) caller(r *http.Request) (*authz.Principal, error) { return a.authenticate(r, false) }

// stillSigned makes sure that the session of the caller lives after what was read of the
// account: what a change of owner, or the owner, has ended since must not use it.
func (a *API) stillSigned(ctx context.Context, p *authz.Principal) error {
	_, err := a.config.Sessions.Check(ctx, p.ID, p.SessionID)
	return err
}

// account is who calls a route that is about an account and its sessions: somebody
// who has signed in here. Neither a machine nor a token of another issuer is that,
// and with an API key nobody should make another one or change a password.
func (a *API) account(r *http.Request) (*authz.Principal, error) {
	p, err := a.caller(r)
	if err != nil {
		return nil, err
	}
	switch {
	case p.IsM2M():
		return nil, refuseTo(p, CodeHumanRequired)
	case p.SessionID == "" || !p.IsHuman():
		return nil, denied(p) // somebody whose account is elsewhere
	default:
		return p, nil
	}
}

// refused reports a refusal of one of our own routes. What was refused because of who
// asked is an event, as behind a guard; what else went wrong has events of its own.
func (a *API) refused(r *http.Request, p *Problem) {
	if p.Status != http.StatusUnauthorized && p.Status != http.StatusForbidden && p.Status != http.StatusTooManyRequests {
		return
	}
	a.measured(r).Denied(p.Code)
	if p.Status == http.StatusForbidden && p.who != nil {
		a.report(r.Context(), event.AccessDenied, event.Failure, p.who, p.Code)
	}
}

// device describes where the request comes from.
func (a *API) device(r *http.Request, id, name string) sessions.Device {
	addr := clientAddress(r, a.config.TrustedProxies)
	d := sessions.Device{ID: id, Name: name, UserAgent: r.UserAgent(), Network: network(addr)}
	if addr.IsValid() {
		d.IP = addr.String()
	}
	return d
}

func (a *API) health(w http.ResponseWriter, r *http.Request) error {
	h := a.config.Health(r.Context())
	status := http.StatusOK
	if !h.Healthy {
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	}
	write(w, status, h)
	return nil
}

// is reports whether err is one of the targets.
func is(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
