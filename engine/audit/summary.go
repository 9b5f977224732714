package audit

import (
	"cmp"
	"context"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/event"
)

const (
	// MaxSummary is how many records one summary reads.
	MaxSummary = 50_000
	// summaryPage is how many of them one call reads.
	summaryPage = 5_000
	// topEntries is how many users, clients and addresses a summary names.
	topEntries = 10
)

// Summary counts what is in the trail of a period.
type Summary struct {
	From  time.Time `json:"from,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Records is how many were counted. Partial says that there are more than
	// [MaxSummary]: then the newest of the period were, back to Oldest.
	Records int       `json:"records"`
	Partial bool      `json:"partial"`
	Oldest  time.Time `json:"oldest,omitzero"`
	// ByType and ByResult count the records, Failures those that failed by type, and
	// Machines those of machines.
	ByType   map[event.Type]int   `json:"by_type"`
	ByResult map[event.Result]int `json:"by_result"`
	Failures map[event.Type]int   `json:"failures"`
	Machines int                  `json:"machines"`
	// Users, Clients and Addresses are how many different ones there are.
	Users     int `json:"users"`
	Clients   int `json:"clients"`
	Addresses int `json:"addresses"`
	// TopUsers, TopClients and TopAddresses are the ten with the most records, and
	// TopFailing the ten addresses with the most failures.
	TopUsers     []Count `json:"top_users"`
	TopClients   []Count `json:"top_clients"`
	TopAddresses []Count `json:"top_addresses"`
	TopFailing   []Count `json:"top_failing"`
}

// Count is how often something is there.
type Count struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

// Summary counts the records from from on and before until; a zero time is no
// bound. It reads at most [MaxSummary] records, newest first, five fields of each, in
// ten calls of at most two seconds: ask for shorter periods where that is not enough.
func (t *Trail) Summary(ctx context.Context, from, until time.Time) (Summary, error) {
	return t.summarize(ctx, from, until, summaryPage, MaxSummary)
}

func (t *Trail) summarize(ctx context.Context, from, until time.Time, size, most int) (Summary, error) {
	s := Summary{
		From: from, Until: until,
		ByType: map[event.Type]int{}, ByResult: map[event.Result]int{}, Failures: map[event.Type]int{},
	}
	users, clients, addresses, failing := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	fields := bson.D{
		{Key: "created_at", Value: 1},
		{Key: "type", Value: 1},
		{Key: "result", Value: 1},
		{Key: "user_id", Value: 1},
		{Key: "client_id", Value: 1},
		{Key: "ip", Value: 1},
		{Key: "is_m2m", Value: 1},
	}
	for before := ""; !s.Partial; {
		page, err := t.find(ctx, t.choose(Filter{From: from, Until: until}, before), size, fields)
		if err != nil {
			return Summary{}, err
		}
		for i := range page {
			s.count(&page[i])
			for _, c := range []struct {
				in   map[string]int
				name string
			}{{users, page[i].UserID}, {clients, page[i].ClientID}, {addresses, page[i].IP}} {
				if c.name != "" {
					c.in[c.name]++
				}
			}
			if page[i].Result == event.Failure && page[i].IP != "" {
				failing[page[i].IP]++
			}
		}
		if len(page) < size {
			break
		}
		before = page[len(page)-1].ID
		s.Partial = s.Records >= most
	}
	s.Users, s.Clients, s.Addresses = len(users), len(clients), len(addresses)
	s.TopUsers, s.TopClients, s.TopAddresses, s.TopFailing = top(users), top(clients), top(addresses), top(failing)
	return s, nil
}

func (s *Summary) count(r *Record) {
	s.Records++
	s.Oldest = r.Time
	s.ByType[r.Type]++
	s.ByResult[r.Result]++
	if r.Result == event.Failure {
		s.Failures[r.Type]++
	}
	if r.IsM2M {
		s.Machines++
	}
}

// top returns the largest counts, equal ones by name.
func top(counts map[string]int) []Count {
	all := make([]Count, 0, len(counts))
	for name, n := range counts {
		all = append(all, Count{Name: name, Count: n})
	}
	slices.SortFunc(all, func(a, b Count) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name)) })
	return slices.Clip(all[:min(len(all), topEntries)])
}
