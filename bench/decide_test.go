package bench_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	stock "github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	cedar "github.com/cedar-policy/cedar-go"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/casbin"
	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/internal/store"
)

// fixture is a policy of so many rules, a hundred for each role, and of so many users
// with one role each.
type fixture struct{ rules, users int }

func (f fixture) role(i int) string   { return fmt.Sprint("role", i%(f.rules/100)) }
func (f fixture) object(i int) string { return fmt.Sprint("object ", i/(f.rules/100)) }
func user(i int) string               { return fmt.Sprintf("usr_%026d", i) }

// provider returns ours, with the fixture in its collection, written past the adapter,
// which takes its time on localmongo.
func (f fixture) provider(b *testing.B, db *mongo.Database, edit ...func(*casbin.Config)) *casbin.Provider {
	b.Helper()
	ctx := b.Context()
	policies, err := casbin.Open(ctx, db, "")
	if err != nil {
		b.Fatal(err)
	}
	var docs []any
	for i := range f.rules {
		docs = append(docs, bson.M{"ptype": "p", "v0": f.role(i), "v1": "shop", "v2": f.object(i), "v3": "read", "v4": "allow", "v5": ""})
	}
	for i := range f.users {
		docs = append(docs, bson.M{"ptype": "g", "v0": user(i), "v1": f.role(i), "v2": "shop", "v3": "", "v4": "", "v5": ""})
	}
	for len(docs) > 0 {
		n := min(len(docs), 20_000)
		if _, err := db.Collection(casbin.DefaultCollection).InsertMany(ctx, docs[:n]); err != nil {
			b.Fatal(err)
		}
		docs = docs[n:]
	}
	state, err := appstate.Open(ctx, store.Handle(db), time.Now)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := state.Claim(ctx, "shop", "digest"); err != nil {
		b.Fatal(err)
	}
	watcher, err := state.Watch(ctx, appstate.WatchConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	config := casbin.Config{App: "shop", State: state, Watcher: watcher, MaxStaleness: time.Minute}
	for _, e := range edit {
		e(&config)
	}
	p, err := casbin.New(policies, config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = p.Close(context.Background())
		_ = watcher.Close(context.Background())
	})
	if err := p.Ready(ctx); err != nil {
		b.Fatal(err)
	}
	return p
}

func (f fixture) stock(b *testing.B) *stock.Enforcer {
	b.Helper()
	m, err := model.NewModelFromString(casbin.ModelRBAC.Text(casbin.MatchExact))
	if err != nil {
		b.Fatal(err)
	}
	e, err := stock.NewEnforcer(m)
	if err != nil {
		b.Fatal(err)
	}
	var policies, groupings [][]string
	for i := range f.rules {
		policies = append(policies, []string{f.role(i), "shop", f.object(i), "read", "allow"})
	}
	for i := range f.users {
		groupings = append(groupings, []string{user(i), f.role(i), "shop"})
	}
	if _, err := e.AddPolicies(policies); err != nil {
		b.Fatal(err)
	}
	if _, err := e.AddGroupingPolicies(groupings); err != nil {
		b.Fatal(err)
	}
	return e
}

// cedar returns a permit for each rule, and users with their role as parent.
func (f fixture) cedar(b *testing.B) (*cedar.PolicySet, cedar.EntityMap) {
	b.Helper()
	set, entities := cedar.NewPolicySet(), cedar.EntityMap{}
	for i := range f.rules {
		var p cedar.Policy
		text := fmt.Sprintf("permit (principal in Role::%q, action == Action::\"read\", resource == Object::%q);", f.role(i), f.object(i))
		if err := p.UnmarshalCedar([]byte(text)); err != nil {
			b.Fatal(err)
		}
		set.Add(cedar.PolicyID(fmt.Sprint("policy", i)), &p)
	}
	for i := range f.users {
		id := cedar.NewEntityUID("User", cedar.String(user(i)))
		entities[id] = cedar.Entity{UID: id, Parents: cedar.NewEntityUIDSet(cedar.NewEntityUID("Role", cedar.String(f.role(i))))}
	}
	return set, entities
}

// BenchmarkP3 is one decision about 10,000 rules and 10,000 users: ours, stock
// Casbin's, cedar-go's.
func BenchmarkP3(b *testing.B) {
	f := fixture{rules: 10_000, users: 10_000}
	permission := authz.Permission{Object: f.object(5_000), Action: "read"}
	p := f.provider(b, database(b, nil))
	b.Run("mandate", func(b *testing.B) {
		b.ReportAllocs()
		ctx, n := b.Context(), 0
		for i := range b.N {
			d, err := p.Authorize(ctx, authz.Request{App: "shop", Subject: names[i%len(names)], Permission: permission})
			if err == nil && d.Allowed {
				n++
			}
		}
		if n != b.N {
			b.Fatalf("%d of %d are allowed", n, b.N)
		}
	})
	e := f.stock(b)
	b.Run("casbin", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			if ok, err := e.Enforce(names[i%len(names)], "shop", permission.Object, permission.Action); err != nil || !ok {
				b.Fatal(ok, err)
			}
		}
	})
	set, entities := f.cedar(b)
	b.Run("cedar-go", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			d, _ := cedar.Authorize(set, entities, cedar.Request{
				Principal: cedar.NewEntityUID("User", cedar.String(names[i%len(names)])), Action: cedar.NewEntityUID("Action", "read"),
				Resource: cedar.NewEntityUID("Object", cedar.String(permission.Object)), Context: cedar.NewRecord(nil),
			})
			if d != cedar.Allow {
				b.Fatal(d)
			}
		}
	})
	custom := f.provider(b, database(b, nil), func(c *casbin.Config) { c.Model, c.CustomModel = "", casbin.ModelRBAC.Text(casbin.MatchExact) })
	b.Run("mandate, custom model", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			if d, err := custom.Authorize(b.Context(), authz.Request{App: "shop", Subject: names[i%len(names)], Permission: permission}); err != nil || !d.Allowed {
				b.Fatal(d, err)
			}
		}
	})
}

var names = func() []string {
	out := make([]string, 64)
	for i := range out {
		out[i] = user(i * 150)
	}
	return out
}()

// BenchmarkP5 is a change until it decides on the same instance, 100,000 rules,
// localmongo's writes included.
func BenchmarkP5(b *testing.B) {
	p := fixture{rules: 100_000, users: 1000}.provider(b, database(b, nil))
	for i := range b.N {
		r := authz.Rule{Subject: user(7), Permission: authz.Permission{Object: fmt.Sprint("new ", b.N, " ", i), Action: "read"}}
		if err := p.Apply(b.Context(), authz.Change{Add: []authz.Rule{r}}); err != nil {
			b.Fatal(err)
		}
		if d, err := p.Authorize(b.Context(), authz.Request{App: "shop", Subject: user(7), Permission: r.Permission}); err != nil || !d.Allowed {
			b.Fatal(d, err)
		}
	}
}
