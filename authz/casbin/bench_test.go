package casbin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// sized is a snapshot of so many rules, ten for each role, and of as many users,
// each with one role.
func sized(b *testing.B, rules int, matching Matching) (*snapshot, []string) {
	b.Helper()
	made := build(&snapshot{grammar: &grammar{name: "rbac", roles: true, matching: matching, domain: "shop"}})
	roles := max(1, rules/10)
	for i := range rules {
		made.add(row{subject: fmt.Sprint("role", i%roles), object: object(matching, i/roles), action: "read"})
	}
	users := make([]string, rules)
	for i := range users {
		users[i] = fmt.Sprintf("usr_%026d", i)
		made.add(row{grouping: true, subject: users[i], object: fmt.Sprint("role", i%roles)})
	}
	s, err := made.done(made.version)
	if err != nil {
		b.Fatal(err)
	}
	return s, users
}

func object(matching Matching, i int) string {
	switch matching {
	case MatchPrefix:
		return fmt.Sprintf("kind %d/*", i)
	case MatchPath:
		return fmt.Sprintf("/kind%d/{id}", i)
	default:
		return fmt.Sprint("object ", i)
	}
}

func asked(matching Matching, i int) string {
	switch matching {
	case MatchPrefix:
		return fmt.Sprintf("kind %d/7", i)
	case MatchPath:
		return fmt.Sprintf("/kind%d/7", i)
	default:
		return fmt.Sprint("object ", i)
	}
}

// serving returns a provider, with everything that a check passes in service, whose
// rules are the snapshot that use is called with, not those of its database: a million
// of them would take minutes to write.
func serving(b *testing.B, db *mongo.Database) (p *Provider, use func(*snapshot)) {
	b.Helper()
	policies, err := Open(b.Context(), db, "")
	if err != nil {
		b.Fatal(err)
	}
	state, err := appstate.Open(b.Context(), store.Handle(db), time.Now)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := state.Claim(b.Context(), "shop", "digest"); err != nil {
		b.Fatal(err)
	}
	watcher, err := state.Watch(b.Context(), appstate.WatchConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	if p, err = New(policies, Config{App: "shop", State: state, Watcher: watcher}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := errors.Join(p.Close(context.Background()), watcher.Close(context.Background())); err != nil {
			b.Error(err)
		}
	})
	if err := p.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	return p, func(s *snapshot) { p.snapshot.Store(s) }
}

// BenchmarkP4 is how a check of the provider, which is what P3 measures, grows with the number of rules and users:
// of a few subjects that are asked about again and again, and of all alike.
func BenchmarkP4(b *testing.B) {
	p, use := serving(b, storetest.Database(b))
	for _, matching := range []Matching{MatchExact, MatchPrefix, MatchPath} {
		for _, rules := range []int{100, 10_000, 1_000_000} {
			b.Run(fmt.Sprintf("%s/%d rules", matching, rules), func(b *testing.B) {
				s, users := sized(b, rules, matching)
				use(s)
				rng := rand.New(rand.NewPCG(1, 2))
				rng.Shuffle(len(users), func(i, j int) { users[i], users[j] = users[j], users[i] })
				permission := authz.Permission{Object: asked(matching, 3), Action: "read"}
				b.Run("64 subjects", func(b *testing.B) { ask(b, p, users[:64], permission) })
				b.Run("all subjects", func(b *testing.B) { ask(b, p, users, permission) })
			})
		}
	}
}

func ask(b *testing.B, p *Provider, users []string, permission authz.Permission) {
	b.ReportAllocs()
	ctx, asked, allowed := b.Context(), 0, 0
	for b.Loop() {
		d, err := p.Authorize(ctx, authz.Request{App: "shop", Subject: users[asked%len(users)], Permission: permission})
		if asked++; err == nil && d.Allowed {
			allowed++
		}
	}
	if allowed != asked {
		b.Fatalf("%d of %d are allowed", allowed, asked)
	}
}

// BenchmarkP5Snapshot is the part of a change that is done in memory: making the next
// snapshot of 100,000 rules out of the one before. It copies the map of the role's
// rules and that of the 256th part of the subjects in which the role is.
func BenchmarkP5Snapshot(b *testing.B) {
	for _, roles := range []int{10_000, 1000, 1} {
		b.Run(fmt.Sprint(roles, " roles"), func(b *testing.B) {
			made := build(&snapshot{grammar: &grammar{name: "rbac", roles: true, matching: MatchExact, domain: "shop"}})
			for i := range 100_000 {
				made.add(row{subject: fmt.Sprint("role", i%roles), object: fmt.Sprint("object ", i/roles), action: "read"})
				made.add(row{grouping: true, subject: fmt.Sprintf("usr_%026d", i), object: fmt.Sprint("role", i%roles)})
			}
			s, err := made.done(made.version)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				made := build(s)
				made.add(row{subject: fmt.Sprint("role", i%roles), object: "new", action: "read"})
				next, err := made.done(s.version)
				if err != nil || next.rows != s.rows+1 {
					b.Fatal(next.rows, err)
				}
				i++
			}
		})
	}
}
