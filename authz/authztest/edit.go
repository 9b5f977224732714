package authztest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mandate-auth/mandate/authz"
)

// wantRules counts the rules, where they can be listed.
func (s *suite) wantRules(t *testing.T, e authz.Editor, n int) {
	t.Helper()
	if s.NoLists {
		return
	}
	if rules, _, err := e.Rules(t.Context(), authz.RuleFilter{}, authz.Page{}); err != nil || len(rules) != n {
		t.Errorf("%d rules, %v; want %d", len(rules), err, n)
	}
}

func (s *suite) noLists(t *testing.T) {
	e := s.editor(t, s.New(t, app))
	_, _, rules := e.Rules(t.Context(), authz.RuleFilter{}, authz.Page{})
	_, _, members := e.Members(t.Context(), "user", authz.Page{})
	_, assigned := e.Assigned(t.Context(), ada)
	for _, err := range []error{rules, members, assigned} {
		if !errors.Is(err, authz.ErrUnsupported) {
			t.Errorf("a list of a provider that has none: %v; want authz.ErrUnsupported", err)
		}
	}
}

func (s *suite) repeatable(t *testing.T) {
	p := s.New(t, app)
	add := allow(rule(ada, docs, "read"), rule(ben, docs, "read"))
	if !s.NoRoles {
		add.Assign = []authz.Assignment{role(ada, "user")}
	}
	for range 2 {
		s.change(t, p, add)
		want(t, p, ada, docs, "read", true)
	}
	// One that is there among others that are not.
	s.change(t, p, allow(rule(ada, "a", "b"), rule(ada, docs, "read"), rule(ada, "c", "d")))
	want(t, p, ada, "c", "d", true)
	s.wantRules(t, s.editor(t, p), 4)
	for range 2 {
		s.change(t, p, authz.Change{Remove: add.Add, Unassign: add.Assign})
		want(t, p, ada, docs, "read", false)
		wantRole(t, p, ada, false, "user")
	}
	want(t, p, ada, "c", "d", true)
	s.change(t, p, authz.Change{})
}

func (s *suite) removed(t *testing.T) {
	p := s.New(t, app)
	for range 3 {
		s.change(t, p, allow(rule(ada, docs, "read")))
		want(t, p, ada, docs, "read", true)
		s.change(t, p, authz.Change{Remove: []authz.Rule{rule(ada, docs, "read")}})
		want(t, p, ada, docs, "read", false)
	}
	if s.NoRoles {
		return
	}
	s.change(t, p, authz.Change{Add: []authz.Rule{rule("admin", docs, "read")}, Assign: []authz.Assignment{role(ada, "admin")}})
	want(t, p, ada, docs, "read", true)
	s.change(t, p, authz.Change{Unassign: []authz.Assignment{role(ada, "admin")}})
	want(t, p, ada, docs, "read", false)
	wantRole(t, p, ada, false, "admin")
}

// Values that Casbin's formats would take for something else are refused, and
// nothing is stored.
func (s *suite) badValues(t *testing.T) {
	p := s.New(t, app)
	e := s.editor(t, p)
	good := rule(ada, docs, "read")
	var changes []authz.Change
	for _, bad := range []string{"", " x", "x ", "a,b", `a"b`, "a\nb", "a\x00b", "\xff", strings.Repeat("x", 257), "\u00a0x", "x\u2003"} {
		for _, r := range []authz.Rule{rule(bad, docs, "read"), rule(ada, bad, "read"), rule(ada, docs, bad)} {
			changes = append(changes, allow(good, r), authz.Change{Remove: []authz.Rule{r}})
		}
		changes = append(changes, authz.Change{Assign: []authz.Assignment{role(bad, "user")}}, authz.Change{Assign: []authz.Assignment{role(ada, bad)}},
			authz.Change{Unassign: []authz.Assignment{role(bad, "user")}}, authz.Change{Unassign: []authz.Assignment{role(ada, bad)}})
	}
	wrong := good
	wrong.Effect = "perhaps"
	explicit := good
	explicit.Effect = authz.Allow
	changes = append(changes, authz.Change{Add: []authz.Rule{good}, Remove: []authz.Rule{explicit}},
		authz.Change{Assign: []authz.Assignment{role(ada, "user")}, Unassign: []authz.Assignment{role(ada, "user")}})
	changes = append(changes, allow(rule(ada, docs, "a:b")), allow(wrong), authz.Change{Assign: []authz.Assignment{role(ada, ben)}},
		authz.Change{Assign: []authz.Assignment{role(ada, authz.SubjectAnonymous)}}, authz.Change{Assign: []authz.Assignment{role("x", "x")}})
	for _, c := range changes {
		var value *authz.ValueError
		if err := e.Apply(t.Context(), c); !errors.As(err, &value) || value.Field == "" || value.Message == "" {
			t.Errorf("Apply(%+v): %v; want an *authz.ValueError", c, err)
		}
	}
	for _, subject := range []string{"", "a,b"} {
		var value *authz.ValueError
		if err := e.Forget(t.Context(), subject); !errors.As(err, &value) {
			t.Errorf("Forget(%q): %v", subject, err)
		}
	}
	s.wantRules(t, e, 0)
	want(t, p, ada, docs, "read", false)
}

func (s *suite) lists(t *testing.T) {
	p := s.New(t, app)
	e := s.editor(t, p)
	var c authz.Change
	for i := range 7 {
		subject := fmt.Sprintf("usr_%026d", i)
		c.Add = append(c.Add, rule(subject, docs, "read"), rule(subject, docs, "write"))
		c.Assign = append(c.Assign, role(subject, "user"))
	}
	if s.NoRoles {
		c.Assign = nil
	}
	s.change(t, p, c)
	s.change(t, p, allow(rule(ada, "special", "read")))

	var seen []string
	for page := (authz.Page{Limit: 4}); ; {
		rules, next, err := e.Rules(t.Context(), authz.RuleFilter{}, page)
		if err != nil || len(rules) > 4 {
			t.Fatalf("%d rules, %v", len(rules), err)
		}
		for _, r := range rules {
			seen = append(seen, r.Subject+" "+r.String())
		}
		if next == "" {
			break
		}
		page.After = next
	}
	if len(seen) != 15 || !slices.IsSorted(seen) || len(slices.Compact(seen)) != 15 {
		t.Errorf("pages of rules: %q", seen)
	}
	for _, tt := range []struct {
		filter authz.RuleFilter
		n      int
	}{
		{authz.RuleFilter{Subject: fmt.Sprintf("usr_%026d", 3)}, 2},
		{authz.RuleFilter{Permission: authz.Permission{Object: "special"}}, 1},
		{authz.RuleFilter{Permission: authz.Permission{Action: "read"}}, 8},
		{authz.RuleFilter{Subject: "nobody"}, 0},
	} {
		if rules, _, err := e.Rules(t.Context(), tt.filter, authz.Page{}); err != nil || len(rules) != tt.n {
			t.Errorf("Rules(%+v): %d, %v; want %d", tt.filter, len(rules), err, tt.n)
		}
	}
	if _, _, err := e.Rules(t.Context(), authz.RuleFilter{}, authz.Page{After: "nonsense"}); err == nil {
		t.Error("a page after nonsense was returned")
	}
	if !s.NoRoles {
		s.members(t, e)
	}
}

// members reads the role "user" of the seven page by page.
func (s *suite) members(t *testing.T, e authz.Editor) {
	var seen []string
	for page := (authz.Page{Limit: 3}); ; {
		members, next, err := e.Members(t.Context(), "user", page)
		if err != nil || len(members) > 3 {
			t.Fatalf("%d members, %v", len(members), err)
		}
		seen = append(seen, members...)
		if next == "" {
			break
		}
		page.After = next
	}
	if len(seen) != 7 || !slices.IsSorted(seen) {
		t.Errorf("pages of members: %q", seen)
	}
}

func (s *suite) forget(t *testing.T) {
	p := s.New(t, app)
	e := s.editor(t, p)
	c := allow(rule(ada, docs, "read"), rule(ben, docs, "read"))
	if !s.NoRoles {
		c.Assign = []authz.Assignment{role(ada, "user"), role(ada, "admin"), role(ben, "user")}
	}
	s.change(t, p, c)
	for range 2 {
		if err := e.Forget(t.Context(), ada); err != nil {
			t.Fatal(err)
		}
		want(t, p, ada, docs, "read", false)
		wantRole(t, p, ada, false, "user", "admin")
		want(t, p, ben, docs, "read", true)
	}
	if !s.NoLists {
		assigned, err := e.Assigned(t.Context(), ada)
		wantList(t, "assigned roles of the forgotten", assigned, err)
	}
	if !s.NoRoles {
		wantRole(t, p, ben, true, "user")
	}
}

// Changes of many subjects at once are all there in the end, and nothing is
// allowed after its removal was answered.
func (s *suite) concurrent(t *testing.T) {
	p := s.New(t, app)
	e := s.editor(t, p)
	apply := func(c authz.Change) {
		var err error
		for range 10 { // a busy machine may not answer in time
			if err = e.Apply(t.Context(), c); !errors.Is(err, authz.ErrUnavailable) {
				break
			}
		}
		if err != nil {
			t.Errorf("Apply(%+v): %v", c, err)
		}
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			subject := fmt.Sprintf("usr_%026d", i)
			for range 4 {
				apply(allow(rule(subject, docs, "read")))
				want(t, p, subject, docs, "read", true)
				apply(authz.Change{Remove: []authz.Rule{rule(subject, docs, "read")}})
				want(t, p, subject, docs, "read", false)
			}
			apply(allow(rule(subject, docs, "write")))
		})
	}
	wg.Wait()
	s.wantRules(t, e, 8)
}

func (s *suite) canceled(t *testing.T) {
	p := s.New(t, app)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.editor(t, p).Apply(ctx, allow(rule(ben, docs, "read"))); !errors.Is(err, context.Canceled) {
		t.Errorf("a change of a caller that has gone: %v; want context.Canceled", err)
	}
	want(t, p, ben, docs, "read", false)
}
