package casbin_test

import (
	"testing"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/authztest"
	"github.com/mandate-auth/mandate/authz/casbin"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// conformance describes the provider with a model to the suite.
func conformance(t *testing.T, m casbin.Model) authztest.Provider {
	// One instance for each test of the suite, shared by the apps of the test.
	instances := map[*testing.T]*instance{}
	get := func(t *testing.T) *instance {
		if instances[t] == nil {
			instances[t] = start(t, storetest.Database(t))
		}
		return instances[t]
	}
	p := authztest.Provider{
		New: func(t *testing.T, app string) authz.Provider { return get(t).provider(app, withModel(m)) },
		Break: func(t *testing.T) authz.Provider {
			db, link := storetest.Linked(t)
			in := start(t, db)
			p := in.provider("shop", withModel(m), func(c *casbin.Config) { c.MaxStaleness = 100 * time.Millisecond })
			apply(t, p, authz.Change{Add: []authz.Rule{rule(ada, docs, "read")}})
			if !allowed(t, p, ada, docs, "read") {
				t.Error("not allowed before the store went away")
			}
			link.Cut()
			until(t, "the knowledge to be too old", func() bool {
				d, _ := p.Authorize(t.Context(), authz.Request{App: "shop", Subject: ada, Permission: authz.Permission{Object: docs, Action: "read"}})
				return !d.Allowed
			})
			return p
		},
		NoRoles: m == casbin.ModelACL, NoDeny: m != casbin.ModelRBACWithDeny,
	}
	if m != casbin.ModelACL {
		p.Hierarchy = func(t *testing.T, app string) authz.Provider {
			return get(t).provider(app, withModel(m), func(c *casbin.Config) {
				c.Hierarchy = map[string][]string{"admin": {"editor"}, "editor": {"user"}, "user": {"admin"}}
			})
		}
	}
	return p
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, m := range []casbin.Model{casbin.ModelACL, casbin.ModelRBAC, casbin.ModelRBACWithDeny} {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			authztest.Run(t, conformance(t, m))
		})
	}
}
