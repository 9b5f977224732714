package casbin_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/casbin"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// The tests of this file keep out what stock Casbin and its adapter get wrong for
// this purpose. The numbers are those of docs/security.md.

// D9: the adapter's finalizer disconnects the client of the whole process.
func TestD9ClientSurvivesTheAdapter(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	func() {
		if _, err := casbin.Open(t.Context(), db, ""); err != nil {
			t.Fatal(err)
		}
	}()
	for range 5 {
		runtime.GC()
	}
	if err := db.Client().Ping(t.Context(), nil); err != nil {
		t.Errorf("the client after the store was collected: %v", err)
	}
}

// D10: SavePolicy drops the collection with its unique index.
func TestD10SavePolicyIsOutOfReach(t *testing.T) {
	t.Parallel()
	for _, of := range []any{&casbin.Store{}, &casbin.Provider{}, &casbin.Wrapped{}} {
		typ := reflect.TypeOf(of)
		for i := range typ.NumMethod() {
			m := typ.Method(i)
			for j := range m.Type.NumOut() {
				if _, saves := m.Type.Out(j).MethodByName("SavePolicy"); saves {
					t.Errorf("%s.%s hands out something with SavePolicy", typ, m.Name)
				}
			}
			if m.Name == "SavePolicy" {
				t.Errorf("%s has SavePolicy", typ)
			}
		}
	}
	p, in := setup(t)
	apply(t, p, authz.Change{Add: []authz.Rule{rule(ada, docs, "read")}})
	_, err := in.db.Collection(casbin.DefaultCollection).InsertOne(t.Context(),
		bson.M{"ptype": "p", "v0": ada, "v1": "shop", "v2": docs, "v3": "read", "v4": "allow", "v5": ""})
	if err == nil {
		t.Error("the unique index let a rule in twice")
	}
}

// D11: the adapter's loader returns a part of the rules when the cursor is lost.
func TestD11APartIsNeverInstalled(t *testing.T) {
	t.Parallel()
	var link *storetest.Link
	hook := make(chan func(), 1)
	monitor := &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		if e.CommandName != "getMore" || e.Command.Lookup("collection").StringValue() != casbin.DefaultCollection {
			return
		}
		select {
		case cut := <-hook:
			cut()
		default:
		}
	}}
	db, link := storetest.LinkedAndMonitored(t, monitor)
	in := start(t, db)
	p := in.provider("shop")
	rows := make([]any, 6000)
	for i := range rows {
		rows[i] = bson.M{"ptype": "p", "v0": fmt.Sprintf("usr_%026d", i), "v1": "shop", "v2": docs, "v3": "read", "v4": "allow", "v5": ""}
	}
	if _, err := db.Collection(casbin.DefaultCollection).InsertMany(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	hook <- link.Cut
	if err := p.Ready(t.Context()); !errors.Is(err, authz.ErrUnavailable) {
		t.Errorf("the cursor was lost half way: %v", err)
	}
	select {
	case <-hook:
		t.Fatal("all rules came in one batch: the test tests nothing")
	default:
	}
	link.Restore()
	until(t, "the rules to be read", func() bool { return p.Ready(t.Context()) == nil })
	if !allowed(t, p, "usr_00000000000000000000005999", docs, "read") {
		t.Error("the last rule is missing")
	}
}

// D12: the adapter parses stored values again as CSV. D13: Casbin joins them by
// commas to tell rules apart.
func TestD12D13StoredValuesAreNotParsedAgain(t *testing.T) {
	t.Parallel()
	p, in := setup(t)
	in.put(bson.M{"ptype": "p", "v0": "mallory", "v1": "shop", "v2": "doc1, write", "v3": "", "v4": "allow", "v5": ""})
	in.put(bson.M{"ptype": "p", "v0": "mallory", "v1": "shop", "v2": `"`, "v3": "read", "v4": "allow", "v5": ""})
	in.put(bson.M{"ptype": "p", "v0": "alice", "v1": "shop", "v2": "a,b", "v3": "read", "v4": "allow", "v5": ""})
	in.put(bson.M{"ptype": "p", "v0": " eve", "v1": "shop", "v2": docs, "v3": "read", "v4": "allow", "v5": ""})
	in.put(bson.M{"ptype": "p", "v0": ada, "v1": "shop", "v2": docs, "v3": "read"}) // as tools leave it
	for _, refused := range [][3]string{
		{"mallory", "doc1", "write"},
		{"alice,a", "b", "read"},
		{"eve", docs, "read"},
		{"mallory", "", "read"},
	} {
		if allowed(t, p, refused[0], refused[1], refused[2]) {
			t.Errorf("%q is allowed", refused)
		}
	}
	if !allowed(t, p, "alice", "a,b", "read") || !allowed(t, p, ada, docs, "read") {
		t.Error("rules beside odd ones are lost")
	}
	// A rule that the adapter would not recognise goes all the same.
	apply(t, p, authz.Change{Remove: []authz.Rule{rule(ada, docs, "read")}})
	if allowed(t, p, ada, docs, "read") {
		t.Error("a rule that lacks empty values could not be removed")
	}
}

// A document that is no rule of the model stops everything, and says which.
func TestDamagedDocumentRefuses(t *testing.T) {
	t.Parallel()
	for name, doc := range map[string]bson.M{
		"a number":        {"ptype": "p", "v0": 7, "v1": "shop", "v2": docs, "v3": "read"},
		"unknown effect":  {"ptype": "p", "v0": ada, "v1": "shop", "v2": docs, "v3": "read", "v4": "maybe"},
		"a sixth value":   {"ptype": "p", "v0": ada, "v1": "shop", "v2": docs, "v3": "read", "v4": "allow", "v5": "x"},
		"denial in rbac":  {"ptype": "p", "v0": ada, "v1": "shop", "v2": docs, "v3": "read", "v4": "deny"},
		"a fourth in a g": {"ptype": "g", "v0": ada, "v1": "user", "v2": "shop", "v3": "x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, in := setup(t)
			in.put(bson.M{"ptype": "p", "v0": ada, "v1": "shop", "v2": docs, "v3": "write", "v4": "allow"})
			in.put(doc)
			d, err := p.Authorize(t.Context(), authz.Request{App: "shop", Subject: ada, Permission: authz.Permission{Object: docs, Action: "write"}})
			var damaged *casbin.DamagedError
			if d.Allowed || !errors.As(err, &damaged) || damaged.Message == "" || damaged.Collection != casbin.DefaultCollection {
				t.Errorf("%+v, %v; want a DamagedError", d, err)
			}
		})
	}
}

// D14: an empty name deletes every rule in stock Casbin.
func TestD14EmptyNamesAreRefused(t *testing.T) {
	t.Parallel()
	p, in := setup(t)
	apply(t, p, authz.Change{Add: []authz.Rule{rule(ada, docs, "read")}, Assign: []authz.Assignment{{Subject: ada, Role: "user"}}})
	var value *authz.ValueError
	if err := p.Forget(t.Context(), ""); !errors.As(err, &value) {
		t.Errorf("Forget of nobody: %v", err)
	}
	if err := p.Apply(t.Context(), authz.Change{Unassign: []authz.Assignment{{Subject: "", Role: "user"}}}); !errors.As(err, &value) {
		t.Errorf("unassign nobody: %v", err)
	}
	if n, err := in.db.Collection(casbin.DefaultCollection).CountDocuments(t.Context(), bson.M{}); err != nil || n != 2 {
		t.Errorf("%d rules are left, %v; want 2", n, err)
	}
}

// D15: a cached enforcer keeps on allowing what was revoked. D16: a load that
// overlaps a revocation undoes it in memory.
func TestD15D16RevocationDuringALoad(t *testing.T) {
	t.Parallel()
	reached, resume := make(chan struct{}), make(chan struct{})
	var armed, reads int
	monitor := &event.CommandMonitor{Started: func(ctx context.Context, e *event.CommandStartedEvent) {
		// The second read of the state in a load comes after the rules were read.
		if armed == 0 || e.CommandName != "find" || e.Command.Lookup("find").StringValue() != "app_state" || ctx.Value(loading{}) == nil {
			return
		}
		if reads++; reads == 2 {
			close(reached)
			<-resume
		}
	}}
	db := storetest.Monitored(t, monitor)
	slow, fast := start(t, db), start(t, storetest.Second(t, db, nil))
	p, q := slow.provider("shop"), fast.provider("shop")
	apply(t, q, authz.Change{
		Add:    []authz.Rule{rule("editor", docs, "write"), rule(ada, docs, "read")},
		Assign: []authz.Assignment{{Subject: ada, Role: "editor"}},
	})
	if err := p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	armed = 1
	loaded := make(chan error, 1)
	go func() { loaded <- p.Upkeep(context.WithValue(t.Context(), loading{}, true)) }()
	<-reached
	apply(t, q, authz.Change{Remove: []authz.Rule{rule(ada, docs, "read")}, Unassign: []authz.Assignment{{Subject: ada, Role: "editor"}}})
	if allowed(t, q, ada, docs, "read") || allowed(t, q, ada, docs, "write") {
		t.Error("revoked and still allowed where it was revoked")
	}
	close(resume)
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	if allowed(t, p, ada, docs, "read") || allowed(t, p, ada, docs, "write") {
		t.Error("a load has undone a revocation")
	}
}

type loading struct{}

// D17: stock enforcers hold the lock of decisions during the write.
func TestD17DecisionsDoNotWaitForWrites(t *testing.T) {
	t.Parallel()
	reached, resume := make(chan struct{}), make(chan struct{})
	monitor := &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		if e.CommandName == "insert" && e.Command.Lookup("insert").StringValue() == casbin.DefaultCollection && strings.Contains(e.Command.String(), ben) {
			close(reached)
			<-resume
		}
	}}
	in := start(t, storetest.Monitored(t, monitor))
	p := in.provider("shop")
	apply(t, p, authz.Change{Add: []authz.Rule{rule(ada, docs, "read")}})
	written := make(chan error, 1)
	go func() {
		written <- p.Apply(context.Background(), authz.Change{Add: []authz.Rule{rule(ben, docs, "read")}})
	}()
	<-reached
	if !allowed(t, p, ada, docs, "read") || allowed(t, p, ben, docs, "read") {
		t.Error("a decision during a write is wrong")
	}
	close(resume)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if !allowed(t, p, ben, docs, "read") {
		t.Error("the write was answered before this instance decides by it")
	}
}

// D18: a refusal scans every rule. D19: every unknown subject is remembered.
func TestD18D19AChecksAllocatesNothing(t *testing.T) {
	p, _ := setup(t, withModel(casbin.ModelRBACWithDeny))
	c := authz.Change{Assign: []authz.Assignment{{Subject: ada, Role: "r0"}}}
	for i := range 200 {
		c.Add = append(c.Add, rule(fmt.Sprint("r", i%8), fmt.Sprint("o", i), "read"))
	}
	apply(t, p, c)
	i := 0
	if err := p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	subjects := make([]string, 1001)
	for j := range subjects {
		subjects[j] = store.NewID("usr_")
	}
	ctx := t.Context()
	allocs := testing.AllocsPerRun(1000, func() {
		_, _ = p.Authorize(ctx, authz.Request{App: "shop", Subject: subjects[i%1001], Permission: authz.Permission{Object: "o0", Action: "read"}})
		_, _ = p.Authorize(ctx, authz.Request{App: "shop", Subject: ada, Permission: authz.Permission{Object: "o8", Action: "read"}})
		i++
	})
	if allocs > 0 {
		t.Errorf("two checks allocate %v times", allocs)
	}
}

// D20: one row with a bad pattern makes every check fail. D21: keyMatch2 does not
// escape dots. D22: eval calls methods of the subject.
func TestD20D21D22ValuesAreNoPatterns(t *testing.T) {
	t.Parallel()
	p, in := setup(t)
	for _, object := range []string{"/x/[", "/api/v1.0/*", "/files/:id", "r.sub.Nuke()", strings.Repeat("(", 200)} {
		in.put(bson.M{"ptype": "p", "v0": ada, "v1": "shop", "v2": object, "v3": "read", "v4": "allow", "v5": ""})
	}
	for _, object := range []string{"/api/v1X0/secret", "/api/v1.0/x", "/files/a%2f..%2fb", "/files/x"} {
		if allowed(t, p, ada, object, "read") {
			t.Errorf("%q is allowed by a pattern", object)
		}
	}
	if !allowed(t, p, ada, "/x/[", "read") {
		t.Error("a value is not compared as it stands")
	}
	for _, m := range []casbin.Model{casbin.ModelACL, casbin.ModelRBAC, casbin.ModelRBACWithDeny} {
		if text := m.Text(casbin.MatchExact); strings.Contains(text, "eval") || strings.Contains(text, "Match") || text == "" {
			t.Errorf("the model %s: %s", m, text)
		}
	}
}

// D23: an adapter with a URL has its own connections. D24: an idle enforcer
// costs 66 KiB.
func TestD23D24IdleAppsCostLittle(t *testing.T) {
	db, link := storetest.Linked(t)
	in := start(t, db)
	in.provider("first")
	before := link.Connections()
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const apps = 100
	kept := make([]*casbin.Provider, 0, apps)
	start := heap()
	for i := range apps {
		kept = append(kept, in.provider(fmt.Sprint("app", i)))
	}
	if each := (int64(heap()) - int64(start)) / apps; each > 16<<10 {
		t.Errorf("an idle app keeps %d bytes", each)
	}
	if n := link.Connections(); n > before+2 {
		t.Errorf("%d apps opened %d connections", apps, n-before)
	}
	runtime.KeepAlive(kept)
}
