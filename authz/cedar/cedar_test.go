package cedar_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/authztest"
	"github.com/mandate-auth/mandate/authz/cedar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ada = "usr_00000000000000000000000ada"
	ben = "usr_00000000000000000000000ben"
)

var catalog = []authz.Permission{
	{Object: "never", Action: "allowed"},
	{Object: "documents", Action: "write"},
	{Object: "documents", Action: "read"},
	{Object: "documents", Action: "read"},
	{Object: "a", Action: "z"},
}

// quote writes a text as Cedar does. What the suite uses needs no escapes.
func quote(text string) string { return `"` + text + `"` }

// translate writes a change as policies and entities.
func translate(t *testing.T, c authz.Change) (policies, entities []byte) {
	t.Helper()
	isRole := func(name string) bool { return !authz.IsID(name) && name != authz.SubjectAnonymous }
	for _, r := range c.Add {
		effect, principal := "permit", "principal == User::"+quote(r.Subject)
		if isRole(r.Subject) {
			principal = "principal in Role::" + quote(r.Subject)
		}
		if r.Effect == authz.Deny {
			effect = "forbid"
		}
		policies = fmt.Appendf(policies, "%s (%s, action == Action::%s, resource == Object::%s);\n", effect, principal, quote(r.Action), quote(r.Object))
	}
	type uid struct {
		Type string `json:"type"`
		ID   string `json:"id"`
	}
	type entity struct {
		UID     uid   `json:"uid"`
		Parents []uid `json:"parents"`
	}
	parents := map[uid][]uid{}
	for _, a := range c.Assign {
		child := uid{"User", a.Subject}
		if isRole(a.Subject) {
			child.Type = "Role"
		}
		parents[child] = append(parents[child], uid{"Role", a.Role})
	}
	list := []entity{}
	for child, of := range parents {
		list = append(list, entity{child, of})
	}
	entities, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return policies, entities
}

func TestConformance(t *testing.T) {
	t.Parallel()
	hierarchy := []authz.Assignment{{Subject: "admin", Role: "editor"}, {Subject: "editor", Role: "user"}, {Subject: "user", Role: "admin"}}
	base := map[authz.Provider][]authz.Assignment{}
	authztest.Run(t, authztest.Provider{
		New: func(t *testing.T, app string) authz.Provider {
			return create(t, cedar.Config{App: app, Catalog: catalog})
		},
		Hierarchy: func(t *testing.T, app string) authz.Provider {
			p := create(t, cedar.Config{App: app, Catalog: catalog})
			base[p] = hierarchy
			return p
		},
		ReadOnly: true,
		Load: func(t *testing.T, p authz.Provider, c authz.Change) {
			c.Assign = append(slices.Clone(c.Assign), base[p]...)
			policies, entities := translate(t, c)
			if err := p.(*cedar.Provider).Replace(policies, entities); err != nil {
				t.Fatal(err)
			}
		},
	})
}

func create(t *testing.T, c cedar.Config) *cedar.Provider {
	t.Helper()
	p, err := cedar.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// shop returns a provider of the app "shop".
func shop(t *testing.T, policies, entities string) *cedar.Provider {
	t.Helper()
	return create(t, cedar.Config{App: "shop", Policies: []byte(policies), Entities: []byte(entities), Catalog: catalog})
}

func ask(subject, object, action string) authz.Request {
	return authz.Request{App: "shop", Subject: subject, Permission: authz.Permission{Object: object, Action: action}}
}

func want(t *testing.T, p *cedar.Provider, subject, object, action string, reason authz.Reason) {
	t.Helper()
	d, err := p.Authorize(t.Context(), ask(subject, object, action))
	if err != nil || d.Reason != reason || d.Allowed != (reason == authz.ReasonAllowed) {
		t.Errorf("%s %s %s: %+v, %v; want %s", subject, action, object, d, err, reason)
	}
}

func TestReasons(t *testing.T) {
	t.Parallel()
	p := shop(t, `
		permit (principal, action == Action::"read", resource);
		forbid (principal, action, resource == Object::"vault");
		permit (principal, action == Action::"write", resource) when { context.app == "shop" };
		permit (principal, action == Action::"drop", resource) when { context.app == "elsewhere" };`, "")
	want(t, p, ada, "documents", "read", authz.ReasonAllowed)
	want(t, p, ada, "documents", "write", authz.ReasonAllowed)
	want(t, p, ada, "documents", "drop", authz.ReasonNoRule)
	want(t, p, ada, "vault", "read", authz.ReasonDenied)
	want(t, p, ada, "vault", "drop", authz.ReasonDenied)
	want(t, p, authz.SubjectAnonymous, "documents", "read", authz.ReasonAllowed)
	// "Everybody" is not nobody.
	want(t, p, "", "documents", "read", authz.ReasonNoRule)
}

// A policy that fails may be the one that would have refused.
func TestFailedPolicies(t *testing.T) {
	t.Parallel()
	const (
		permit       = `permit (principal, action, resource);`
		forbid       = `forbid (principal, action, resource);`
		failedPermit = `permit (principal, action, resource) when { principal.age > 17 };`
		failedForbid = `forbid (principal, action, resource) when { principal.age < 18 };`
		overflow     = `forbid (principal, action, resource) when { 9223372036854775807 + 1 == 0 };`
		elsewhere    = `forbid (principal, action == Action::"write", resource) when { principal.age < 18 };`
	)
	for name, tt := range map[string]struct {
		policies string
		reason   authz.Reason // "" where there has to be an error
	}{
		"a failed forbid beside a permit":        {permit + failedForbid, ""},
		"a failed forbid alone":                  {failedForbid, ""},
		"an overflow":                            {permit + overflow, ""},
		"a failed permit alone":                  {failedPermit, ""},
		"a failed permit beside a permit":        {permit + failedPermit, ""},
		"all that can fail":                      {failedPermit + failedForbid + overflow, ""},
		"a forbid that holds beside failed ones": {permit + forbid + failedForbid + failedPermit, authz.ReasonDenied},
		"a failure of another action":            {permit + elsewhere, authz.ReasonAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := shop(t, tt.policies, "")
			if tt.reason != "" {
				want(t, p, ada, "documents", "read", tt.reason)
				return
			}
			d, err := p.Authorize(t.Context(), ask(ada, "documents", "read"))
			if d != (authz.Decision{}) || !errors.Is(err, cedar.ErrEvaluation) || errors.Is(err, authz.ErrUnavailable) {
				t.Errorf("%+v, %v; want cedar.ErrEvaluation alone", d, err)
			}
			if err != nil && !strings.Contains(err.Error(), "policies:1:") {
				t.Errorf("%v: does not say which policy", err)
			}
			if list, err := p.Permissions(t.Context(), ada); len(list) != 0 || !errors.Is(err, cedar.ErrEvaluation) {
				t.Errorf("Permissions: %v, %v; want cedar.ErrEvaluation and none", list, err)
			}
		})
	}
}

// Where the policy asks whether the attribute is there, nothing fails.
func TestAttributes(t *testing.T) {
	t.Parallel()
	p := shop(t, `permit (principal, action, resource) when { principal has age && principal.age > 17 };`,
		`[{"uid": {"type": "User", "id": "`+ada+`"}, "attrs": {"age": 36}}]`)
	want(t, p, ada, "documents", "read", authz.ReasonAllowed)
	want(t, p, ben, "documents", "read", authz.ReasonNoRule)
}

// HasRole says of every pair what Cedar's "in" says, through entities of other
// types and in circles too.
func TestRolesAreWhatInSays(t *testing.T) {
	t.Parallel()
	roles := []string{"a", "b", "c", "d", "lonely", ada}
	var policies strings.Builder
	for _, role := range roles {
		fmt.Fprintf(&policies, "permit (principal in Role::%q, action == Action::%q, resource);\n", role, role)
	}
	p := shop(t, policies.String(), `[
		{"uid": {"type": "User", "id": "`+ada+`"}, "parents": [{"type": "Team", "id": "x"}]},
		{"uid": {"type": "Team", "id": "x"}, "parents": [{"type": "Role", "id": "a"}, {"type": "User", "id": "`+ada+`"}]},
		{"uid": {"type": "Role", "id": "a"}, "parents": [{"type": "Role", "id": "b"}]},
		{"uid": {"type": "Role", "id": "b"}, "parents": [{"type": "Role", "id": "a"}, {"type": "Role", "id": "c"}]},
		{"uid": {"type": "Role", "id": "lonely"}, "parents": [{"type": "Role", "id": "lonely"}]},
		{"uid": {"type": "User", "id": "`+ben+`"}, "parents": [{"type": "Role", "id": "d"}]}]`)
	held := 0
	for _, subject := range []string{ada, ben, "a", "lonely", authz.SubjectAnonymous} {
		for _, role := range roles {
			has, err := p.HasRole(t.Context(), subject, role)
			if err != nil {
				t.Fatal(err)
			}
			d, err := p.Authorize(t.Context(), ask(subject, "x", role))
			if err != nil || d.Allowed != has {
				t.Errorf("%s in %s: Cedar says %t, %v; HasRole %t", subject, role, d.Allowed, err, has)
			}
			if has {
				held++
			}
		}
	}
	if held != 4 {
		t.Errorf("%d pairs hold; want 4", held)
	}
}

func TestCanceled(t *testing.T) {
	t.Parallel()
	p := shop(t, "permit (principal, action, resource);", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := p.Authorize(ctx, ask(ada, "documents", "read")); d.Allowed || !errors.Is(err, context.Canceled) {
		t.Errorf("Authorize: %+v, %v", d, err)
	}
	if has, err := p.HasRole(ctx, ada, "a"); has || !errors.Is(err, context.Canceled) {
		t.Errorf("HasRole: %t, %v", has, err)
	}
	if list, err := p.Permissions(ctx, ada); len(list) != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("Permissions: %v, %v", list, err)
	}
}
