// Package authztest is the suite that every provider of authorization has to
// pass. A provider's own test calls [Run]:
//
//	func TestProvider(t *testing.T) {
//		authztest.Run(t, authztest.Provider{
//			New: func(t *testing.T, app string) authz.Provider { … },
//		})
//	}
//
// What a provider cannot do is declared, not skipped: the suite then checks that
// it says so.
package authztest

import (
	"errors"
	"slices"
	"testing"

	"github.com/mandate-auth/mandate/authz"
)

// Provider says how a provider under test is made and what it can do.
type Provider struct {
	// New returns the provider of the app, empty the first time. Within one test,
	// providers share their store, as they do in one engine. Required.
	New func(t *testing.T, app string) authz.Provider
	// Hierarchy, when not nil, returns one in which "admin" inherits "editor",
	// "editor" inherits "user", and "user" inherits "admin".
	Hierarchy func(t *testing.T, app string) authz.Provider
	// Break, when not nil, returns a provider whose store has gone away.
	Break func(t *testing.T) authz.Provider
	// ReadOnly providers implement no [authz.Editor]; Load then puts the change
	// into what New returns.
	ReadOnly bool
	Load     func(t *testing.T, p authz.Provider, c authz.Change)
	// NoRoles and NoDeny say what the model has no words for.
	NoRoles, NoDeny bool
	// NoLists says that rules and assignments cannot be listed: Rules, Members and
	// Assigned are [authz.ErrUnsupported].
	NoLists bool
	// MaxDepth is over how many steps roles are inherited. 0 means any number, 1 that
	// roles cannot be assigned to roles.
	MaxDepth int
}

const (
	ada  = "usr_00000000000000000000000ada"
	ben  = "usr_00000000000000000000000ben"
	app  = "shop"
	docs = "documents"
)

// Run runs the suite.
func Run(t *testing.T, p Provider) {
	t.Helper()
	s := &suite{Provider: p}
	for _, test := range []struct {
		name string
		run  func(*testing.T)
		when bool
	}{
		{"nothing is allowed by default", s.nothingByDefault, true},
		{"rules of a subject", s.rulesOfSubject, true},
		{"values are compared whole", s.valuesWhole, true},
		{"apps are apart", s.appsApart, true},
		{"a request of another app", s.otherApp, true},
		{"permissions are those that are allowed", s.permissions, true},
		{"roles", s.roles, !p.NoRoles},
		{"roles are unsupported", s.noRoles, p.NoRoles && !p.ReadOnly},
		{"roles of roles", s.rolesOfRoles, !p.NoRoles},
		{"circles of roles end", s.circles, !p.NoRoles && p.MaxDepth != 1},
		{"roles of roles are unsupported", s.noRolesOfRoles, !p.NoRoles && p.MaxDepth == 1 && !p.ReadOnly},
		{"the hierarchy of the manifest", s.hierarchy, p.Hierarchy != nil},
		{"a denial outweighs", s.deny, !p.NoDeny},
		{"denials are unsupported", s.noDeny, p.NoDeny && !p.ReadOnly},
		{"changes are repeatable", s.repeatable, !p.ReadOnly},
		{"a removed permission is refused at once", s.removed, !p.ReadOnly},
		{"values that cannot be stored", s.badValues, !p.ReadOnly},
		{"lists and pages", s.lists, !p.ReadOnly && !p.NoLists},
		{"lists are unsupported", s.noLists, p.NoLists},
		{"a forgotten subject", s.forget, !p.ReadOnly},
		{"changes at once", s.concurrent, !p.ReadOnly},
		{"a caller that has gone", s.canceled, !p.ReadOnly},
		{"a store that is away", s.broken, p.Break != nil},
	} {
		if test.when {
			t.Run(test.name, test.run)
		}
	}
}

type suite struct{ Provider }

// fill returns a provider with the rules.
func (s *suite) fill(t *testing.T, slug string, c authz.Change) authz.Provider {
	t.Helper()
	p := s.New(t, slug)
	s.change(t, p, c)
	return p
}

func (s *suite) change(t *testing.T, p authz.Provider, c authz.Change) {
	t.Helper()
	if s.ReadOnly {
		s.Load(t, p, c)
		return
	}
	if err := s.editor(t, p).Apply(t.Context(), c); err != nil {
		t.Fatalf("Apply(%+v): %v", c, err)
	}
}

func (s *suite) editor(t *testing.T, p authz.Provider) authz.Editor {
	t.Helper()
	e, ok := p.(authz.Editor)
	if !ok {
		t.Fatalf("%T is no authz.Editor; declare it ReadOnly", p)
	}
	return e
}

func rule(subject, object, action string) authz.Rule {
	return authz.Rule{Subject: subject, Permission: authz.Permission{Object: object, Action: action}}
}

func denial(subject, object, action string) authz.Rule {
	r := rule(subject, object, action)
	r.Effect = authz.Deny
	return r
}

func allow(rules ...authz.Rule) authz.Change { return authz.Change{Add: rules} }

func role(subject, name string) authz.Assignment {
	return authz.Assignment{Subject: subject, Role: name}
}

// ask returns the request of a subject in an app.
func ask(slug, subject, object, action string) authz.Request {
	return authz.Request{App: slug, Subject: subject, Permission: authz.Permission{Object: object, Action: action}}
}

// want asks and compares.
func want(t *testing.T, p authz.Provider, subject, object, action string, allowed bool) {
	t.Helper()
	d, err := p.Authorize(t.Context(), ask(app, subject, object, action))
	if err != nil || d.Allowed != allowed {
		t.Errorf("%q %s %q: got %+v, %v; want allowed %t", subject, action, object, d, err, allowed)
	}
	if d.Allowed != (d.Reason == authz.ReasonAllowed) {
		t.Errorf("%q %s %q: allowed is %t and the reason %q", subject, action, object, d.Allowed, d.Reason)
	}
}

func wantRole(t *testing.T, p authz.Provider, subject string, has bool, roles ...string) {
	t.Helper()
	got, err := p.HasRole(t.Context(), subject, roles...)
	if err != nil || got != has {
		t.Errorf("HasRole(%q, %q) = %t, %v; want %t", subject, roles, got, err, has)
	}
}

func wantList(t *testing.T, what string, got []string, err error, list ...string) {
	t.Helper()
	if err != nil || !slices.Equal(got, list) {
		t.Errorf("%s: got %q, %v; want %q", what, got, err, list)
	}
}

// broken: whatever cannot be known is refused, with an error that says that
// trying again may help.
func (s *suite) broken(t *testing.T) {
	p := s.Break(t)
	if d, err := p.Authorize(t.Context(), ask(app, ada, docs, "read")); d.Allowed || !errors.Is(err, authz.ErrUnavailable) {
		t.Errorf("without its store: %+v, %v; want authz.ErrUnavailable", d, err)
	}
	if has, err := p.HasRole(t.Context(), ada, "admin"); has || !errors.Is(err, authz.ErrUnavailable) {
		t.Errorf("HasRole without its store: %t, %v; want authz.ErrUnavailable", has, err)
	}
	if _, err := p.Permissions(t.Context(), ada); !errors.Is(err, authz.ErrUnavailable) {
		t.Errorf("Permissions without its store: %v; want authz.ErrUnavailable", err)
	}
	if s.ReadOnly {
		return
	}
	if err := s.editor(t, p).Apply(t.Context(), allow(rule(ben, docs, "read"))); !errors.Is(err, authz.ErrUnavailable) {
		t.Errorf("a change without its store: %v; want authz.ErrUnavailable", err)
	}
}
