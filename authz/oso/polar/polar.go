// Package polar is a provider of authorization that decides by a Polar policy, with
// the Oso library in the process (https://docs.osohq.com). It is a module of its
// own, because it needs cgo and a download of 171 MB:
//
//	go get github.com/mandate-auth/mandate/authz/oso/polar
//
// The Oso library is no longer developed. This is for services that have a Polar
// policy and want to keep it.
//
// # Setting it up
//
// A service registers it under a name, and the manifest of an app names it in
// auth.policy.provider:
//
//	eng, err := engine.New(ctx, db, &engine.Options{Providers: map[string]engine.NewProvider{
//		"polar": func(_ context.Context, app string) (authz.Provider, error) {
//			return polar.Load("policy.polar", polar.Config{App: app, Roles: rolesOf, Catalog: catalog})
//		},
//	}})
//
// # What a policy sees
//
// The rule allow(actor, action, resource) decides. The actor is a [User], the
// action a string, the resource an [Object]:
//
//	allow(user: User, "read", object: Object) if
//	  "editor" in user.Roles and object.Name = "documents";
//
// Resource blocks work too, with "actor User {}" and "resource Object { … }".
//
// The roles come from Config.Roles, which the service writes, and from
// Config.Hierarchy. The policy gets all of them, inherited ones included, so that
// HasRole and Roles need not ask it; a role that only the policy derives is none to
// them. Guests are User{ID: "anonymous"} and have no roles.
//
// # Refusals and errors
//
// What no rule allows is refused with [authz.ReasonNoRule]. Polar has no denials: a
// policy writes "and not …". Reasons are never [authz.ReasonDenied].
//
// Oso tries the rules one after the other until one allows. A failure or a panic
// before that is [ErrEvaluation], whatever the rules after it would have said; roles
// that cannot be had are [authz.ErrUnavailable]. Nothing is allowed then.
//
// New asks the policy once and refuses one without allow rules, or with one that
// fails for everybody. It also refuses "?=", "debug", "print" and classes that nobody
// knows, see below.
//
// # How long a query takes
//
// A query takes some 0.15 ms, and one that searches a great deal any time. It cannot
// be interrupted. The call ends with its context, or after Config.Timeout, with
// [authz.ErrUnavailable]; the query goes on until Oso's own limit, which is 30 s
// unless the environment variable POLAR_TIMEOUT_MS says otherwise, and one of
// Config.Engines is busy meanwhile. When all are, calls wait their turn as long as
// their contexts and Config.Timeout let them. Close waits for queries that still run.
//
// # What was found in go-oso v0.27.3
//
//   - Its C functions turn the same pointer into an exclusive reference in every
//     call, so nothing promises that one engine can be used by two goroutines,
//     although what is behind it is locked. Each engine here is used by one
//     goroutine at a time.
//   - It does not free a query that failed, 11 KB each. They are freed here, except
//     after a stack overflow, when go-oso may have freed it or not and freeing it
//     twice would corrupt the memory. A rule that calls itself without end leaves
//     70 to 600 MB behind each time, so that after the third the provider refuses
//     everything with [ErrEvaluation], until a service with a better policy starts.
//   - It cannot free an engine, 42 KB each. Hence there is no Reload: a changed policy
//     is for the next start.
//   - An attribute that a value has not is an error, but none under a "not": "not
//     user.Banned" allows everybody. It is noticed here, and always an error.
//   - A rule for a class that is unknown gives a warning and never applies, so that
//     "not denied(user, object)" allows what it was to refuse.
//   - An inline query ("?=") that fails reads memory that was freed; "debug" waits for
//     the standard input; "print" writes to the standard output.
//   - It writes warnings about a policy to the standard output, when it is loaded.
//   - Text that is no UTF-8 reaches a policy changed, so that two users could become
//     one. Nothing is allowed to such a subject, on such an object.
//
// # What it cannot do
//
// It only reads: GrantRole, AddRules and the like are [authz.ErrUnsupported], and
// initial_policies in the manifest keep the app from starting. Permissions tests the
// catalog.
package polar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/osohq/go-oso"

	"github.com/mandate-auth/mandate/authz"
)

// ErrEvaluation says that the policy failed while it was asked, or is no longer
// asked because its stack has overflowed too often.
var ErrEvaluation = errors.New("polar: the policy cannot be evaluated")

// Config configures a [Provider].
type Config struct {
	// App is the slug of the app. Required.
	App string
	// Policy is a policy in Polar, for [New]. [Load] reads it from a file.
	Policy []byte
	// Roles returns the roles of a subject who is no guest. It is safe for
	// concurrent use and ends with ctx. Default nobody has roles.
	Roles func(ctx context.Context, subject string) ([]string, error)
	// Hierarchy gives roles further roles: {"admin": {"editor"}}. Circles are
	// allowed, and there is no limit of depth.
	Hierarchy map[string][]string
	// Catalog are the permissions that Permissions tests. Default none, so that
	// it lists none.
	Catalog []authz.Permission
	// Engines is how many queries run at once. Default GOMAXPROCS.
	Engines int
	// Timeout is how long a call may take that has no earlier deadline. Default
	// 2 s.
	Timeout time.Duration
}

// Provider decides for one app. It implements [authz.Provider] and is safe for
// concurrent use.
type Provider struct {
	config    Config
	engines   chan oso.Oso // those that nobody uses
	overflows atomic.Int32

	mu      sync.Mutex
	running int // queries
	closed  bool
	idle    chan struct{} // closed when the provider is, and no query runs
}

var _ authz.Provider = (*Provider)(nil)

// Load returns a provider that decides by the policy of a file. Faults name the
// file and the line.
func Load(path string, c Config) (*Provider, error) {
	if len(c.Policy) > 0 {
		return nil, errors.New("polar: there is a file and Config.Policy; which one decides?")
	}
	var err error
	if c.Policy, err = os.ReadFile(path); err != nil { //nolint:gosec // the service names the file
		return nil, fmt.Errorf("polar: %w", err)
	}
	return start(path, c)
}

// New returns a provider that decides by Config.Policy.
func New(c Config) (*Provider, error) { return start("policy", c) }

// start makes the engines and tries one.
func start(name string, c Config) (*Provider, error) {
	if err := authz.CheckValue("app", c.App); err != nil {
		return nil, fmt.Errorf("polar: %w", err)
	}
	for _, permission := range c.Catalog {
		if err := permission.Check(); err != nil {
			return nil, fmt.Errorf("polar: %q in the catalog: %w", permission, err)
		}
	}
	if err := checkPolicy(name, c.Policy); err != nil {
		return nil, err
	}
	c.Catalog = slices.Compact(slices.SortedFunc(slices.Values(c.Catalog), func(a, b authz.Permission) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Action, b.Action))
	}))
	if c.Engines <= 0 {
		c.Engines = runtime.GOMAXPROCS(0)
	}
	c.Timeout = cmp.Or(max(c.Timeout, 0), 2*time.Second)
	c.Hierarchy = clone(c.Hierarchy)
	p := &Provider{config: c, engines: make(chan oso.Oso, c.Engines), idle: make(chan struct{})}
	for range c.Engines {
		e, err := newEngine(name, string(c.Policy))
		if err != nil {
			return nil, err
		}
		p.engines <- e
	}
	// The answer is the policy's business, that there is one is ours.
	e := <-p.engines
	defer func() { p.engines <- e }()
	if _, err := p.allows(e, User{ID: "prb_"}, authz.Permission{Object: "prb_", Action: "prb_"}); err != nil {
		return nil, fmt.Errorf("%s does not answer a first question: %w", name, err)
	}
	return p, nil
}

func clone(hierarchy map[string][]string) map[string][]string {
	out := make(map[string][]string, len(hierarchy))
	for role, has := range hierarchy {
		out[role] = slices.Clone(has)
	}
	return out
}
