package casbin

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/mandate-auth/mandate/authz"
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

// BenchmarkP4 is how a decision grows with the number of rules and users: of a few
// subjects that are asked again and again, and of all alike.
func BenchmarkP4(b *testing.B) {
	for _, matching := range []Matching{MatchExact, MatchPrefix, MatchPath} {
		for _, rules := range []int{100, 10_000, 1_000_000} {
			s, users := sized(b, rules, matching)
			rng := rand.New(rand.NewPCG(1, 2))
			rng.Shuffle(len(users), func(i, j int) { users[i], users[j] = users[j], users[i] })
			permission := authz.Permission{Object: asked(matching, 3), Action: "read"}
			for _, of := range []struct {
				name  string
				users []string
			}{{"64 subjects", users[:64]}, {"all subjects", users}} {
				b.Run(fmt.Sprintf("%s/%d rules/%s", matching, rules, of.name), func(b *testing.B) {
					b.ReportAllocs()
					n := 0
					for i := range b.N {
						if s.decide(of.users[i%len(of.users)], permission).Allowed {
							n++
						}
					}
					if n != b.N {
						b.Fatalf("%d of %d are allowed", n, b.N)
					}
				})
			}
		}
	}
}

// BenchmarkP5Snapshot is the part of a change that is done in memory: making the next
// snapshot of 100,000 rules out of the one before.
func BenchmarkP5Snapshot(b *testing.B) {
	s, _ := sized(b, 100_000, MatchExact)
	b.ReportAllocs()
	for i := range b.N {
		made := build(s)
		made.add(row{subject: fmt.Sprint("role", i%1000), object: "new", action: "read"})
		next, err := made.done(s.version)
		if err != nil || next.rows != s.rows+1 {
			b.Fatal(next.rows, err)
		}
	}
}
