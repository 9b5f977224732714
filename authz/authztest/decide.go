package authztest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/authz"
)

func (s *suite) nothingByDefault(t *testing.T) {
	p := s.New(t, app)
	for _, subject := range []string{ada, "admin", "root", "*", authz.SubjectAnonymous, ""} {
		want(t, p, subject, docs, "read", false)
		want(t, p, subject, "", "", false)
		wantRole(t, p, subject, false, "admin2", "user2", "")
		wantRole(t, p, subject, false)
	}
	if list, err := p.Permissions(t.Context(), ada); err != nil || len(list) != 0 {
		t.Errorf("Permissions of nobody: %v, %v", list, err)
	}
	if list, err := p.Roles(t.Context(), ada); err != nil || len(list) != 0 {
		t.Errorf("Roles of nobody: %v, %v", list, err)
	}
}

func (s *suite) rulesOfSubject(t *testing.T) {
	p := s.fill(t, app, allow(rule(ada, docs, "read"), rule(authz.SubjectAnonymous, "news", "read")))
	want(t, p, ada, docs, "read", true)
	want(t, p, ada, docs, "write", false)
	want(t, p, ada, "news", "read", false)
	want(t, p, ben, docs, "read", false)
	want(t, p, "", docs, "read", false)
	want(t, p, authz.SubjectAnonymous, "news", "read", true)
}

// A value is taken as it is: no prefix, no case, no pattern, no second parse.
func (s *suite) valuesWhole(t *testing.T) {
	p := s.fill(t, app, allow(rule(ada, "docs/*", "read"), rule(ada, "a b", "read"), rule(ada, "ä:ö|ü", "r.sub.Nuke()"),
		rule(ada, "/x/[", "read"), rule(ada, "/api/v1.0/x", "read")))
	for _, object := range []string{"docs/*", "a b", "/x/[", "/api/v1.0/x"} {
		want(t, p, ada, object, "read", true)
	}
	want(t, p, ada, "ä:ö|ü", "r.sub.Nuke()", true)
	for _, object := range []string{"docs/1", "docs/", "docs", "Docs/*", "a  b", "a b ", "/x/a", "/api/v1X0/x", "docs/*\x00", "docs/*,read"} {
		want(t, p, ada, object, "read", false)
	}
	want(t, p, strings.ToUpper(ada), "docs/*", "read", false)
	want(t, p, ada+" ", "docs/*", "read", false)
}

func (s *suite) appsApart(t *testing.T) {
	const elsewhere = "elsewhere"
	c := allow(rule(ada, docs, "read"))
	if !s.NoRoles {
		c.Assign = []authz.Assignment{role(ben, "admin")}
		c.Add = append(c.Add, rule("admin", docs, "write"))
	}
	other := s.fill(t, elsewhere, c)
	p := s.New(t, app)
	want(t, p, ada, docs, "read", false)
	want(t, p, ben, docs, "write", false)
	wantRole(t, p, ben, false, "admin")
	if s.ReadOnly {
		return
	}
	e := s.editor(t, p)
	s.wantRules(t, e, 0)
	if !s.NoRoles && !s.NoLists {
		members, _, err := e.Members(t.Context(), "admin", authz.Page{})
		wantList(t, "members of another app's role", members, err)
	}
	// What one app forgets or removes stays in the other.
	if err := e.Forget(t.Context(), ada); err != nil {
		t.Fatal(err)
	}
	s.change(t, p, authz.Change{Remove: c.Add, Unassign: c.Assign})
	if d, err := other.Authorize(t.Context(), ask(elsewhere, ada, docs, "read")); err != nil || !d.Allowed {
		t.Errorf("the other app lost its rule: %+v, %v", d, err)
	}
	s.wantRules(t, s.editor(t, other), len(c.Add))
}

func (s *suite) otherApp(t *testing.T) {
	p := s.fill(t, app, allow(rule(ada, docs, "read")))
	for _, slug := range []string{"elsewhere", ""} {
		if d, err := p.Authorize(t.Context(), ask(slug, ada, docs, "read")); err == nil || d.Allowed {
			t.Errorf("a request of app %q: %+v, %v", slug, d, err)
		}
	}
}

func (s *suite) permissions(t *testing.T) {
	c := allow(rule(ada, docs, "write"), rule(ada, docs, "read"), rule(ada, "a", "z"))
	expected := []string{"a:z", "documents:read", "documents:write"}
	if !s.NoDeny {
		c.Add = append(c.Add, denial(ada, docs, "write"), denial(ada, "never", "allowed"))
		expected = expected[:2]
	}
	p := s.fill(t, app, c)
	list, err := p.Permissions(t.Context(), ada)
	got := make([]string, len(list))
	for i, permission := range list {
		got[i] = permission.String()
		want(t, p, ada, permission.Object, permission.Action, true)
	}
	wantList(t, "permissions", got, err, expected...)
}

func (s *suite) roles(t *testing.T) {
	p := s.fill(t, app, authz.Change{
		Add:    []authz.Rule{rule("editor", docs, "write"), rule("user", docs, "read")},
		Assign: []authz.Assignment{role(ada, "editor"), role(ada, "user"), role(ben, "user")},
	})
	want(t, p, ada, docs, "write", true)
	want(t, p, ada, docs, "read", true)
	want(t, p, ben, docs, "read", true)
	want(t, p, ben, docs, "write", false)
	wantRole(t, p, ada, true, "editor")
	wantRole(t, p, ben, true, "admin", "user")
	wantRole(t, p, ben, false, "admin", "editor")
	wantRole(t, p, ben, false, "User")
	wantRole(t, p, ada, false, ada)
	list, err := p.Roles(t.Context(), ada)
	wantList(t, "roles", list, err, "editor", "user")
}

func (s *suite) noRoles(t *testing.T) {
	err := s.editor(t, s.New(t, app)).Apply(t.Context(), authz.Change{Assign: []authz.Assignment{role(ada, "editor")}})
	if !errors.Is(err, authz.ErrUnsupported) {
		t.Errorf("a role in a model without roles: %v", err)
	}
}

// Roles have roles, over as many steps as there are.
func (s *suite) rolesOfRoles(t *testing.T) {
	depth := 80
	if s.MaxDepth > 0 {
		depth = s.MaxDepth
	}
	c := authz.Change{Assign: []authz.Assignment{role(ada, "r0")}}
	for i := range depth - 1 {
		c.Assign = append(c.Assign, role(fmt.Sprint("r", i), fmt.Sprint("r", i+1)))
	}
	last := fmt.Sprint("r", depth-1)
	c.Add = []authz.Rule{rule(last, docs, "read")}
	p := s.fill(t, app, c)
	want(t, p, ada, docs, "read", true)
	wantRole(t, p, ada, true, last)
	if list, err := p.Roles(t.Context(), ada); err != nil || len(list) != depth {
		t.Errorf("%d roles, %v; want %d", len(list), err, depth)
	}
}

func (s *suite) noRolesOfRoles(t *testing.T) {
	err := s.editor(t, s.New(t, app)).Apply(t.Context(), authz.Change{Assign: []authz.Assignment{role("editor", "user")}})
	if !errors.Is(err, authz.ErrUnsupported) {
		t.Errorf("a role of a role: %v", err)
	}
}

func (s *suite) circles(t *testing.T) {
	p := s.fill(t, app, authz.Change{
		Add:    []authz.Rule{rule("c", docs, "read")},
		Assign: []authz.Assignment{role(ada, "a"), role("a", "b"), role("b", "c"), role("c", "a")},
	})
	want(t, p, ada, docs, "read", true)
	want(t, p, ben, docs, "read", false)
	list, err := p.Roles(t.Context(), ada)
	wantList(t, "roles in a circle", list, err, "a", "b", "c")
}

func (s *suite) hierarchy(t *testing.T) {
	p := s.Hierarchy(t, app)
	s.change(t, p, authz.Change{
		Add:    []authz.Rule{rule("user", docs, "read")},
		Assign: []authz.Assignment{role(ada, "admin")},
	})
	want(t, p, ada, docs, "read", true)
	want(t, p, ben, docs, "read", false)
	list, err := p.Roles(t.Context(), ada)
	wantList(t, "roles by the hierarchy", list, err, "admin", "editor", "user")
	if !s.ReadOnly && !s.NoLists {
		assigned, err := s.editor(t, p).Assigned(t.Context(), ada)
		wantList(t, "assigned roles", assigned, err, "admin")
	}
}

func (s *suite) deny(t *testing.T) {
	c := authz.Change{Add: []authz.Rule{rule(ada, docs, "read"), denial(ada, docs, "write"), denial(ada, docs, "read"), rule(ben, docs, "read")}}
	if !s.NoRoles {
		c.Add = append(c.Add, rule(ben, "x", "y"), denial("staff", "x", "y"))
		c.Assign = []authz.Assignment{role(ben, "staff")}
	}
	p := s.fill(t, app, c)
	want(t, p, ada, docs, "read", false)
	want(t, p, ada, docs, "write", false)
	want(t, p, ben, docs, "read", true)
	want(t, p, ben, "x", "y", false)
	if s.ReadOnly {
		return
	}
	s.change(t, p, authz.Change{Remove: []authz.Rule{denial(ada, docs, "read")}})
	want(t, p, ada, docs, "read", true)
	s.change(t, p, authz.Change{Remove: []authz.Rule{rule(ada, docs, "read")}})
	want(t, p, ada, docs, "read", false)
}

func (s *suite) noDeny(t *testing.T) {
	p := s.New(t, app)
	if err := s.editor(t, p).Apply(t.Context(), allow(denial(ada, docs, "read"))); !errors.Is(err, authz.ErrUnsupported) {
		t.Errorf("a denial in a model without them: %v", err)
	}
	want(t, p, ada, docs, "read", false)
}
