// Package cedar is a provider of authorization that decides by Cedar policies
// (https://docs.cedarpolicy.com), read from files. It is a module of its own, so
// that only services that use it depend on cedar-go:
//
//	go get github.com/mandate-auth/mandate/authz/cedar
//
// # Setting it up
//
// A service registers it under a name, and the manifest of an app names it in
// auth.policy.provider:
//
//	eng, err := engine.New(ctx, db, &engine.Options{Providers: map[string]engine.NewProvider{
//		"cedar": func(_ context.Context, app string) (authz.Provider, error) {
//			return cedar.Load(app, catalog, "policies.cedar", "entities.json")
//		},
//	}})
//
// # What a policy sees
//
//	principal   User::"<subject>", User::"anonymous" for guests
//	action      Action::"<action>"
//	resource    Object::"<object>"
//	context     { app: "<slug>" }
//
// Roles are parents of users, and of other roles, in the entities:
//
//	[{ "uid": { "type": "User", "id": "usr_…" }, "parents": [{ "type": "Role", "id": "editor" }] },
//	 { "uid": { "type": "Role", "id": "editor" }, "parents": [{ "type": "Role", "id": "user" }] }]
//
//	permit (principal in Role::"editor", action == Action::"write", resource == Object::"documents");
//	forbid (principal, action, resource == Object::"archive") unless { principal in Role::"admin" };
//
// A subject has a role exactly when "principal in Role::…" holds, over any number
// of steps; circles end. Attributes and further types of entities mean what they
// mean to Cedar. "permit (principal, action, resource)" is for guests as well.
//
// # Refusals and errors
//
// A policy that forbids outweighs all that permit ([authz.ReasonDenied]); without
// one that permits the answer is no ([authz.ReasonNoRule]).
//
// Cedar leaves out a policy that fails while it is evaluated, because it reads an
// attribute that the entity has not, or overflows a number. That is not safe for
// one that forbids: what it was to forbid would be allowed. Here a failure is
// [ErrEvaluation] and nothing is allowed, with one exception: where another policy
// forbids, the answer is no whatever the failed one would have said. A policy that
// permits and fails beside another that permits could not change the answer. It is
// an error all the same, for it is a fault of the policy that nobody would see
// otherwise, and write "principal has department &&" is its cure. An error that
// comes of the policy is not [authz.ErrUnavailable]: repeating does not help.
//
// Only policies whose scope matches are evaluated further, so a failure stops the
// requests it is about and no others.
//
// # Reading the files
//
// Faults name the file and the line. Entities are read strictly: an entity that is
// there twice, an unknown member or one that is there twice is a fault, where
// cedar-go takes the last or looks away, and a role would be lost silently. So is a
// scope that can never match, such as "principal == Role::…" (which has to be
// "principal in Role::…"): a policy that forbids nobody anything is no policy.
//
// [Provider.Reload] reads the files again, and [Provider.Replace] takes what a
// service has put together itself, from its database for instance. Both are
// complete or nothing. Whoever deploys several files writes them all before Reload
// is called.
//
// # What it cannot do
//
// It only reads: GrantRole, AddRules and the like are [authz.ErrUnsupported], and
// initial_policies in the manifest keep the app from starting. Each decision
// evaluates the scope of every policy, so its cost grows with their number.
// Permissions tests the catalog, because Cedar cannot be asked for a list. cedar-go
// is v1.8, the last that does not ask for a newer Go than Mandate does.
package cedar

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/mandate-auth/mandate/authz"
)

// The types of the entities that a request is made of, and of roles.
const (
	TypeUser   = types.EntityType("User")
	TypeRole   = types.EntityType("Role")
	TypeAction = types.EntityType("Action")
	TypeObject = types.EntityType("Object")
)

// ErrEvaluation says that a policy failed while it was evaluated, so that nobody
// knows what it would have said.
var ErrEvaluation = errors.New("cedar: a policy cannot be evaluated")

// Config configures a [Provider] whose policies do not come from files.
type Config struct {
	// App is the slug of the app, the "app" of the context. Required.
	App string
	// Policies are policies in Cedar's language. None allow nothing.
	Policies []byte
	// Entities are entities in Cedar's JSON format, an array. Default none.
	Entities []byte
	// Catalog are the permissions that Permissions tests. Default none, so that
	// it lists none.
	Catalog []authz.Permission
}

// Provider decides for one app. It implements [authz.Provider] and is safe for
// concurrent use.
type Provider struct {
	app     string
	catalog []authz.Permission
	files   []string

	current  atomic.Pointer[policy]
	changing sync.Mutex // so that what was read last is what decides
}

var _ authz.Provider = (*Provider)(nil)

// policy is what decisions are made by. It is never changed.
type policy struct {
	policies cedar.PolicyMap
	entities types.EntityMap
}

// source is a text and the name that faults call it by.
type source struct {
	name string
	text []byte
}

// New returns a provider that decides by the policies of the configuration.
func New(c Config) (*Provider, error) {
	p, err := empty(c.App, c.Catalog)
	if err != nil {
		return nil, err
	}
	if err := p.Replace(c.Policies, c.Entities); err != nil {
		return nil, err
	}
	return p, nil
}

// Load returns a provider of the app that decides by files: policies in those
// that end in ".cedar", entities in those that end in ".json". At least one has
// policies. The catalog is that of [Config].
func Load(app string, catalog []authz.Permission, path ...string) (*Provider, error) {
	p, err := empty(app, catalog)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(path, func(name string) bool { return filepath.Ext(name) == ".cedar" }) {
		return nil, errors.New("cedar: a file of policies is required, whose name ends in .cedar")
	}
	p.files = slices.Clone(path)
	if err := p.Reload(); err != nil {
		return nil, err
	}
	return p, nil
}

// empty returns a provider without policies.
func empty(app string, catalog []authz.Permission) (*Provider, error) {
	if err := authz.CheckValue("app", app); err != nil {
		return nil, fmt.Errorf("cedar: %w", err)
	}
	for _, permission := range catalog {
		if err := permission.Check(); err != nil {
			return nil, fmt.Errorf("cedar: %q in the catalog: %w", permission, err)
		}
	}
	catalog = slices.SortedFunc(slices.Values(catalog), func(a, b authz.Permission) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Action, b.Action))
	})
	return &Provider{app: app, catalog: slices.Compact(catalog)}, nil
}

// Reload reads the files of [Load] again. With an error the provider decides by
// what it had before. Without files it is [authz.ErrUnsupported].
func (p *Provider) Reload() error {
	if len(p.files) == 0 {
		return fmt.Errorf("%w: the policies do not come from files; call Replace", authz.ErrUnsupported)
	}
	p.changing.Lock()
	defer p.changing.Unlock()
	var policies, entities []source
	for _, name := range p.files {
		text, err := os.ReadFile(name) //nolint:gosec // the service names the file
		if err != nil {
			return fmt.Errorf("cedar: %w", err)
		}
		switch filepath.Ext(name) {
		case ".cedar":
			policies = append(policies, source{name, text})
		case ".json":
			entities = append(entities, source{name, text})
		default:
			return fmt.Errorf("cedar: %s: the name has to end in .cedar or .json", name)
		}
	}
	return p.use(policies, entities)
}

// Replace makes the provider decide by other policies and entities, in the forms
// of [Config]. With an error it decides by what it had before. A later Reload
// returns to the files.
func (p *Provider) Replace(policies, entities []byte) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	var e []source
	if len(entities) > 0 {
		e = []source{{"entities", entities}}
	}
	return p.use([]source{{"policies", policies}}, e)
}

// use reads the sources and decides by them from now on, unless one has a fault.
func (p *Provider) use(policies, entities []source) error {
	next := &policy{policies: cedar.PolicyMap{}, entities: types.EntityMap{}}
	for _, s := range policies {
		if err := next.addPolicies(s); err != nil {
			return err
		}
	}
	for _, s := range entities {
		if err := next.addEntities(s); err != nil {
			return err
		}
	}
	p.current.Store(next)
	return nil
}
