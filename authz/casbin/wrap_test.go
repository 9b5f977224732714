package casbin_test

import (
	"errors"
	"strings"
	"testing"

	stock "github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/authztest"
	"github.com/mandate-auth/mandate/authz/casbin"
)

const withoutDomain = `
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act
`

func parse(t *testing.T, text string) model.Model {
	t.Helper()
	m, err := model.NewModelFromString(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestWrapConformance(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text            string
		plain, noDomain bool
	}{
		"with deny":       {text: casbin.ModelRBACWithDeny.Text(casbin.MatchExact)},
		"rbac, plain":     {text: casbin.ModelRBAC.Text(casbin.MatchExact), plain: true},
		"acl":             {text: casbin.ModelACL.Text(casbin.MatchExact)},
		"without domains": {text: withoutDomain, noDomain: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			enforcers := map[*testing.T]map[string]stock.IEnforcer{}
			authztest.Run(t, authztest.Provider{
				New: func(t *testing.T, app string) authz.Provider {
					if enforcers[t] == nil {
						enforcers[t] = map[string]stock.IEnforcer{}
					}
					key := "shared"
					if tt.noDomain {
						key = app // such a model can serve one app only
					}
					if enforcers[t][key] == nil {
						var err error
						if tt.plain {
							enforcers[t][key], err = stock.NewEnforcer(parse(t, tt.text))
						} else {
							enforcers[t][key], err = stock.NewSyncedEnforcer(parse(t, tt.text))
						}
						if err != nil {
							t.Fatal(err)
						}
					}
					w, err := casbin.Wrap(enforcers[t][key], app, "")
					if err != nil {
						t.Fatal(err)
					}
					return w
				},
				NoRoles: name == "acl", NoDeny: name != "with deny", MaxDepth: 10,
			})
		})
	}
}

func TestWrapRefuses(t *testing.T) {
	t.Parallel()
	cached, err := stock.NewSyncedCachedEnforcer(parse(t, withoutDomain))
	if err != nil {
		t.Fatal(err)
	}
	off, err := stock.NewEnforcer(parse(t, withoutDomain))
	if err != nil {
		t.Fatal(err)
	}
	off.EnableEnforce(false)
	odd, err := stock.NewEnforcer(parse(t, strings.ReplaceAll(withoutDomain, "r = sub, obj, act", "r = act, obj, sub")))
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]stock.IEnforcer{"cached": cached, "switched off": off, "another order": odd, "none": nil} {
		if _, err := casbin.Wrap(e, "shop", ""); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// What an enforcer says when it fails may hold values and stack traces; the
// decision is no, and the error is one of ours.
func TestWrapFailsClosed(t *testing.T) {
	t.Parallel()
	e, err := stock.NewSyncedEnforcer(parse(t, strings.ReplaceAll(withoutDomain, "r.obj == p.obj", "keyMatch2(r.obj, p.obj)")))
	if err != nil {
		t.Fatal(err)
	}
	w, err := casbin.Wrap(e, "shop", "")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, w, authz.Change{Add: []authz.Rule{rule(ada, "/x/[", "read"), rule(ada, docs, "read")}})
	d, err := w.Authorize(t.Context(), authz.Request{App: "shop", Subject: ada, Permission: authz.Permission{Object: "/x/a", Action: "read"}})
	if d.Allowed || !errors.Is(err, authz.ErrUnavailable) {
		t.Errorf("a failing enforcer: %+v, %v", d, err)
	}
}
