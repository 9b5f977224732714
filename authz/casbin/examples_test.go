package casbin_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/casbin"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// casbinExample is one of the example policies of Casbin whose model fits into
// Mandate's, with the answers that Casbin's own tests expect. A policy without
// domains is one of the domain "shop".
type casbinExample struct {
	name   string
	edit   func(*casbin.Config)
	policy string
	// grid is everything that is asked: subjects, domains, objects, actions.
	grid    [4]string
	allowed string
}

const usual = "data1 data2"

var casbinExamples = []casbinExample{
	{
		name: "basic", edit: withModel(casbin.ModelACL),
		policy:  "p alice shop data1 read; p bob shop data2 write",
		grid:    [4]string{"alice bob", "shop", usual, "read write"},
		allowed: "alice shop data1 read; bob shop data2 write",
	},
	{
		name: "basic_with_root",
		edit: withCustom(text("sub, dom, obj, act", "", allowSome, `r.dom == p.dom && r.sub == p.sub && r.obj == p.obj && r.act == p.act || r.sub == "root"`)),

		policy:  "p alice shop data1 read; p bob shop data2 write",
		grid:    [4]string{"alice bob root", "shop", usual, "read write"},
		allowed: "alice shop data1 read; bob shop data2 write; root shop data1 read; root shop data1 write; root shop data2 read; root shop data2 write",
	},
	{
		name:    "rbac",
		policy:  "p alice shop data1 read; p bob shop data2 write; p data2_admin shop data2 read; p data2_admin shop data2 write; g alice data2_admin shop",
		grid:    [4]string{"alice bob", "shop", usual, "read write"},
		allowed: "alice shop data1 read; alice shop data2 read; alice shop data2 write; bob shop data2 write",
	},
	{
		name: "rbac_with_deny", edit: withModel(casbin.ModelRBACWithDeny),
		policy: "p alice shop data1 read allow; p bob shop data2 write allow; p data2_admin shop data2 read allow; p data2_admin shop data2 write allow; " +
			"p alice shop data2 write deny; g alice data2_admin shop",
		grid:    [4]string{"alice bob", "shop", usual, "read write"},
		allowed: "alice shop data1 read; alice shop data2 read; bob shop data2 write",
	},
	{
		name: "rbac_with_domains",
		policy: "p admin domain1 data1 read; p admin domain1 data1 write; p admin domain2 data2 read; p admin domain2 data2 write; " +
			"g alice admin domain1; g bob admin domain2",
		grid:    [4]string{"alice bob", "domain1 domain2", usual, "read write"},
		allowed: "alice domain1 data1 read; alice domain1 data1 write; bob domain2 data2 read; bob domain2 data2 write",
	},
	{
		name: "rbac_with_hierarchy",
		policy: "p alice shop data1 read; p bob shop data2 write; p data1_admin shop data1 read; p data1_admin shop data1 write; p data2_admin shop data2 read; " +
			"p data2_admin shop data2 write; g alice admin shop; g admin data1_admin shop; g admin data2_admin shop",
		grid:    [4]string{"alice bob", "shop", usual, "read write"},
		allowed: "alice shop data1 read; alice shop data1 write; alice shop data2 read; alice shop data2 write; bob shop data2 write",
	},
	{
		name: "rbac_with_hierarchy_with_domains",
		policy: "p role:reader domain1 data1 read; p role:writer domain1 data1 write; p alice domain1 data2 read; p alice domain2 data2 read; " +
			"g role:global_admin role:reader domain1; g role:global_admin role:writer domain1; g alice role:global_admin domain1",
		grid:    [4]string{"alice", "domain1 domain2", usual, "read write"},
		allowed: "alice domain1 data1 read; alice domain1 data1 write; alice domain1 data2 read; alice domain2 data2 read",
	},
	{
		// Without the rule whose action is a regular expression.
		name: "keymatch", edit: withMatching(casbin.MatchPrefix),
		policy: "p alice shop /alice_data/* GET; p alice shop /alice_data/resource1 POST; p bob shop /alice_data/resource2 GET; p bob shop /bob_data/* POST",
		grid:   [4]string{"alice bob", "shop", "/alice_data/resource1 /alice_data/resource2 /bob_data/resource1 /bob_data/resource2", "GET POST"},
		allowed: "alice shop /alice_data/resource1 GET; alice shop /alice_data/resource1 POST; alice shop /alice_data/resource2 GET; " +
			"bob shop /alice_data/resource2 GET; bob shop /bob_data/resource1 POST; bob shop /bob_data/resource2 POST",
	},
	{
		name: "keymatch2", edit: withMatching(casbin.MatchPath),
		policy:  "p alice shop /alice_data/{resource} GET; p alice shop /alice_data2/{id}/using/{res_id} GET",
		grid:    [4]string{"alice", "shop", "/alice_data /alice_data/resource1 /alice_data2/myid /alice_data2/myid/using/res_id", "GET POST"},
		allowed: "alice shop /alice_data/resource1 GET; alice shop /alice_data2/myid/using/res_id GET",
	},
}

func list(text string) []string { return strings.Split(text, "; ") }

func TestCasbinsExamples(t *testing.T) {
	t.Parallel()
	for _, example := range casbinExamples {
		t.Run(example.name, func(t *testing.T) {
			t.Parallel()
			example.run(t)
		})
	}
}

func (example *casbinExample) run(t *testing.T) {
	in := start(t, storetest.Database(t))
	providers := map[string]*casbin.Provider{}
	for _, domain := range strings.Fields(example.grid[1]) {
		edit := example.edit
		if edit == nil {
			edit = withModel(casbin.ModelRBAC)
		}
		providers[domain] = in.provider(domain, edit)
	}
	for _, line := range list(example.policy) {
		v := strings.Fields(line)
		if v[0] == "g" {
			apply(t, providers[v[3]], authz.Change{Assign: []authz.Assignment{{Subject: v[1], Role: v[2]}}})
			continue
		}
		r := rule(v[1], v[3], v[4])
		if len(v) > 5 {
			r.Effect = authz.Effect(v[5])
		}
		apply(t, providers[v[2]], authz.Change{Add: []authz.Rule{r}})
	}
	seen := 0
	for _, subject := range strings.Fields(example.grid[0]) {
		for domain, p := range providers {
			for _, object := range strings.Fields(example.grid[2]) {
				for _, action := range strings.Fields(example.grid[3]) {
					want := slices.Contains(list(example.allowed), fmt.Sprint(subject, " ", domain, " ", object, " ", action))
					if want {
						seen++
					}
					d, err := p.Authorize(t.Context(), authz.Request{App: domain, Subject: subject, Permission: authz.Permission{Object: object, Action: action}})
					if err != nil || d.Allowed != want {
						t.Errorf("%s %s %s %s: %+v, %v; Casbin's tests expect %t", subject, domain, object, action, d, err, want)
					}
				}
			}
		}
	}
	if seen != len(list(example.allowed)) {
		t.Errorf("%d of the %d allowed requests are in the grid", seen, len(list(example.allowed)))
	}
}
