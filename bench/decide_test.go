package bench_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
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
type fixture struct {
	rules, users int
	// object is what the objects of rules are made of by [fmt.Sprintf] and a number.
	object string
}

func (f fixture) role(i int) string { return fmt.Sprint("role", i%(f.rules/100)) }
func (f fixture) of(i int) string   { return fmt.Sprintf(f.object, i/(f.rules/100)) }
func (f fixture) asked(n int) string {
	return strings.NewReplacer("*", "7", "{id}", "7").Replace(fmt.Sprintf(f.object, n))
}
func user(i int) string { return fmt.Sprintf("usr_%026d", i) }

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
		docs = append(docs, bson.M{"ptype": "p", "v0": f.role(i), "v1": "shop", "v2": f.of(i), "v3": "read", "v4": "allow", "v5": ""})
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

// enforcer returns stock Casbin's.
func (f fixture) enforcer(b *testing.B) *stock.Enforcer {
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
		policies = append(policies, []string{f.role(i), "shop", f.of(i), "read", "allow"})
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

// policies returns a permit for each rule, and users with their role as parent.
func (f fixture) policies(b *testing.B) (*cedar.PolicySet, cedar.EntityMap) {
	b.Helper()
	set, entities := cedar.NewPolicySet(), cedar.EntityMap{}
	for i := range f.rules {
		var p cedar.Policy
		text := fmt.Sprintf("permit (principal in Role::%q, action == Action::\"read\", resource == Object::%q);", f.role(i), f.of(i))
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

// contender is a row of P3: who decides, and its answer for a user.
type contender struct {
	name   string
	decide func(subject, action string) (bool, error)
}

// BenchmarkP3 is one decision about 10,000 rules and 10,000 users, 64 of which ask,
// each with a role of its own. What is allowed is so by a rule in the middle: those
// who scan the rules stop there. Ours comes without the engine and with the look at
// how old the rules are.
func BenchmarkP3(b *testing.B) {
	f := fixture{rules: 10_000, users: 10_000, object: "object %d"}
	names := make([]string, 64)
	for i := range names {
		names[i] = user(i * 157)
	}
	for _, c := range []contender{
		f.ours(b, "mandate", casbin.MatchExact),
		fixture{f.rules, f.users, "object %d/*"}.ours(b, "mandate by prefix", casbin.MatchPrefix),
		fixture{f.rules, f.users, "/object/%d/{id}"}.ours(b, "mandate by path", casbin.MatchPath),
		f.custom(b),
		f.casbin(b),
		f.cedar(b),
	} {
		for _, action := range []string{"read", "write"} {
			want := action == "read"
			b.Run(fmt.Sprintf("%s/allowed=%t", c.name, want), func(b *testing.B) {
				b.ReportAllocs()
				asked, right := 0, 0
				for b.Loop() {
					allowed, err := c.decide(names[asked%len(names)], action)
					if asked++; err == nil && allowed == want {
						right++
					}
				}
				if right != asked {
					b.Fatalf("%d of %d answers are right", right, asked)
				}
			})
		}
	}
}

func (f fixture) ours(b *testing.B, name string, matching casbin.Matching) contender {
	b.Helper()
	p := f.provider(b, database(b, nil), func(c *casbin.Config) { c.Matching = matching })
	return f.contender(b, name, p)
}

// custom is ours with a model of its own, which Casbin enforces.
func (f fixture) custom(b *testing.B) contender {
	b.Helper()
	p := f.provider(b, database(b, nil), func(c *casbin.Config) { c.CustomModel = casbin.ModelRBAC.Text(casbin.MatchExact) })
	return f.contender(b, "mandate with a custom model", p)
}

func (f fixture) contender(b *testing.B, name string, p *casbin.Provider) contender {
	b.Helper()
	ctx, object := b.Context(), f.asked(50)
	return contender{name, func(subject, action string) (bool, error) {
		d, err := p.Authorize(ctx, authz.Request{App: "shop", Subject: subject, Permission: authz.Permission{Object: object, Action: action}})
		return d.Allowed, err
	}}
}

func (f fixture) casbin(b *testing.B) contender {
	b.Helper()
	e, object := f.enforcer(b), f.asked(50)
	return contender{"casbin", func(subject, action string) (bool, error) { return e.Enforce(subject, "shop", object, action) }}
}

func (f fixture) cedar(b *testing.B) contender {
	b.Helper()
	set, entities := f.policies(b)
	object, none := cedar.NewEntityUID("Object", cedar.String(f.asked(50))), cedar.NewRecord(nil)
	return contender{"cedar-go", func(subject, action string) (bool, error) {
		d, _ := cedar.Authorize(set, entities, cedar.Request{
			Principal: cedar.NewEntityUID("User", cedar.String(subject)), Action: cedar.NewEntityUID("Action", cedar.String(action)),
			Resource: object, Context: none,
		})
		return d == cedar.Allow, nil
	}}
}
