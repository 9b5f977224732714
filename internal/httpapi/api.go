package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/cookies"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/users"
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
	// Registration admits registrations.
	Registration bool
	Guests, Demo bool
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
	a := &API{config: config, origins: origins}
	a.rules = a.compile(config.Requirements)
	a.routes = a.table()
	return a, nil
}

// route is one route of the app, relative to its base path.
type route struct {
	method, path string
	enabled      bool
	serve        func(http.ResponseWriter, *http.Request) error
}

// table is every route of this version.
func (a *API) table() []route {
	c := &a.config
	people, accounts := c.UsersEnabled && c.People, c.UsersEnabled
	return []route{
		{http.MethodPost, "/register", people, a.register},
		{http.MethodPost, "/login", people, a.login},
		{http.MethodPost, "/anonymous", accounts && c.Guests, a.anonymous},
		{http.MethodPost, "/demo", accounts && c.Demo, a.demo},
		{http.MethodPost, "/refresh", accounts, a.refresh},
		{http.MethodPost, "/logout", accounts, a.logout},
		{http.MethodGet, "/me", accounts, a.me},
		{http.MethodPatch, "/me", accounts, a.patchMe},
		{http.MethodGet, "/me/permissions", accounts, a.myPermissions},
		{http.MethodPost, "/authorize", accounts, a.authorize},
		{http.MethodPost, "/password", people, a.password},
		{http.MethodGet, "/sessions", accounts, a.listSessions},
		{http.MethodDelete, "/sessions", accounts, a.endSessions},
		{http.MethodDelete, "/sessions/{id}", accounts, a.endSession},
		{http.MethodGet, "/health", true, a.health},

		{http.MethodGet, "/admin/policies", accounts, a.admin(ActionPolicies, a.listPolicies)},
		{http.MethodPost, "/admin/policies", accounts, a.admin(ActionPolicies, a.changePolicies)},
		{http.MethodGet, "/admin/roles", accounts, a.admin(ActionPolicies, a.listRoles)},
		{http.MethodGet, "/admin/roles/{role}/permissions", accounts, a.admin(ActionPolicies, a.rolePermissions)},
		{http.MethodPut, "/admin/roles/{role}/permissions", accounts, a.admin(ActionPolicies, a.setRolePermissions)},
		{http.MethodGet, "/admin/roles/{role}/users", accounts, a.admin(ActionPolicies, a.roleUsers)},
		{http.MethodGet, "/admin/users/{id}/roles", accounts, a.admin(ActionUsers, a.userRoles)},
		{http.MethodPut, "/admin/users/{id}/roles", accounts, a.admin(ActionUsers, a.setUserRoles)},
		{http.MethodPost, "/admin/users/{id}/roles", accounts, a.admin(ActionUsers, a.grantUserRole)},
		{http.MethodDelete, "/admin/users/{id}/roles/{role}", accounts, a.admin(ActionUsers, a.revokeUserRole)},
	}
}

// match finds the route of a request. allowed are the methods of its path.
func (a *API) match(r *http.Request) (found *route, allowed []string) {
	// As it was sent: what routes are called needs no escape, and a proxy that admits
	// paths by their text must not see another one than we do.
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), a.config.BasePath)
	if !ok {
		return nil, nil
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for i := range a.routes {
		rt := &a.routes[i]
		if !rt.enabled || !rt.matches(r, path) {
			continue
		}
		allowed = append(allowed, rt.method)
		if rt.method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
		if rt.method == method {
			found = rt
		}
	}
	return found, allowed
}

// matches compares the path segment by segment, and keeps its variables. The name of
// a role is decoded, once; identifiers need no escape and are taken as they were sent.
func (rt *route) matches(r *http.Request, path string) bool {
	if !strings.Contains(rt.path, "{") {
		return path == rt.path
	}
	want, have := strings.Split(rt.path, "/"), strings.Split(path, "/")
	if len(want) != len(have) {
		return false
	}
	values := map[string]string{}
	for i, segment := range want {
		name, variable := strings.CutPrefix(segment, "{")
		if !variable {
			if segment != have[i] {
				return false
			}
			continue
		}
		name, value := strings.TrimSuffix(name, "}"), have[i]
		if name == "role" {
			var err error
			if value, err = url.PathUnescape(value); err != nil {
				return false
			}
		}
		if value == "" {
			return false
		}
		values[name] = value
	}
	for name, value := range values {
		r.SetPathValue(name, value)
	}
	return true
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
			a.fail(w, r, err)
		}
	}
}

func (a *API) serve(rt *route, w http.ResponseWriter, r *http.Request) error {
	carries, err := a.carriesCookie(r)
	if err != nil {
		return err
	}
	if !safeMethod(r.Method) && carries && a.config.CSRF && (a.origins.Check(r) != nil || simple(r)) {
		a.report(r.Context(), event.CrossOriginRefused, event.Failure, "", "route")
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

func (a *API) report(ctx context.Context, kind event.Type, result event.Result, userID, reason string) {
	a.config.Events.Record(ctx, event.Event{
		Type: kind, Result: result, App: a.config.App, Time: a.config.Now(), UserID: userID,
		Reason: reason, Request: event.RequestFrom(ctx),
	})
}

// caller is who calls one of our own routes: guests included.
func (a *API) caller(r *http.Request) (*authz.Principal, error) { return a.authenticate(r, false) }

// device describes where the request comes from.
func (a *API) device(r *http.Request, id, name string) sessions.Device {
	addr := clientAddress(r, a.config.TrustedProxies)
	d := sessions.Device{ID: id, Name: name, UserAgent: r.UserAgent(), Network: network(addr)}
	if addr.IsValid() {
		d.IP = addr.String()
	}
	return d
}

// Paths returns "METHOD path" of every route that is served, for documents and
// tests that must not miss one.
func (a *API) Paths() []string {
	var out []string
	for _, rt := range a.routes {
		if rt.enabled {
			out = append(out, rt.method+" "+a.config.BasePath+rt.path)
		}
	}
	slices.Sort(out)
	return out
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
