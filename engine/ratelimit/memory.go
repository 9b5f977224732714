package ratelimit

import (
	"context"
	"hash/maphash"
	"sync"
	"time"
)

const (
	// defaultMaxKeys is 20 MB where each key has few attempts.
	defaultMaxKeys = 100_000
	// maxShards spreads the locks; a power of two. A store for few keys has fewer, so
	// that each shard has enough to choose from when it is full.
	maxShards    = 64
	minShardKeys = 64
)

// MemoryConfig configures a [Memory]. The zero value is a usable one.
type MemoryConfig struct {
	// MaxKeys is how many keys are remembered at most. A key takes about 200 bytes,
	// and 8 more for each attempt beyond four: 8 KiB where the Max is 1000 and used
	// up. Default 100,000.
	MaxKeys int
	// Now is the clock. Default [time.Now], whose monotonic reading makes the store
	// indifferent to changes of the wall clock.
	Now func() time.Time
}

// Memory counts in this process. It is a [Store] for a limit that may be counted by
// each instance for itself, and is lost with the process.
//
// # When it is full
//
// It never remembers more than MaxKeys keys. For a new one it forgets another, whose
// attempts begin anew: one that no longer counts if there is any among the least
// recently used, otherwise the one of them that is furthest from its limit. So a flood
// of new keys pushes out its own, and a key at its limit stays refused unless the
// flood brings nearly as many others to theirs: as many attempts as MaxKeys times Max.
// What must hold even then belongs into [Mongo].
//
// Keys are told apart by a 128-bit hash under a random seed, so that their length
// costs no memory.
type Memory struct {
	now    func() time.Time
	start  time.Time
	seeds  [3]maphash.Seed
	shards []shard
	mask   uint64
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory(config MemoryConfig) *Memory {
	if config.MaxKeys <= 0 {
		config.MaxKeys = defaultMaxKeys
	}
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	n := maxShards
	for n > 1 && config.MaxKeys/n < minShardKeys {
		n /= 2
	}
	m := &Memory{now: config.Now, start: config.Now(), shards: make([]shard, n), mask: uint64(n - 1)} //nolint:gosec // n is 1 to maxShards
	for i := range m.seeds {
		m.seeds[i] = maphash.MakeSeed()
	}
	for i := range m.shards {
		m.shards[i].init(config.MaxKeys / n)
	}
	return m
}

// fingerprint stands for a rule's name and a key.
type fingerprint struct{ hi, lo uint64 }

func (m *Memory) locate(rule Rule, key string) (fingerprint, *shard) {
	// The name has a seed of its own: under that of the key, a key that is spelt like
	// its rule would cancel it out.
	name := maphash.String(m.seeds[2], rule.Name)
	id := fingerprint{hi: maphash.String(m.seeds[0], key) ^ name, lo: maphash.String(m.seeds[1], key) + name}
	return id, &m.shards[id.lo&m.mask]
}

// clock is the time since the store was made.
func (m *Memory) clock() time.Duration { return m.now().Sub(m.start) }

// Take implements [Store].
func (m *Memory) Take(ctx context.Context, rule Rule, key string) (Decision, error) {
	if err := usable(ctx, rule); err != nil {
		return Decision{}, err
	}
	id, s := m.locate(rule, key)
	now := m.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.keys[id]
	if a == nil {
		a = s.add(id, rule.Name, now)
	} else if now-a.moved >= touchInterval {
		s.touch(a, now)
	}
	a.forget(now - rule.Window)
	a.max = rule.Max
	allowed := a.n < rule.Max
	if allowed {
		a.count(now, rule)
	}
	return a.decide(rule, allowed, now), nil
}

// Peek implements [Store].
func (m *Memory) Peek(ctx context.Context, rule Rule, key string) (Decision, error) {
	if err := usable(ctx, rule); err != nil {
		return Decision{}, err
	}
	id, s := m.locate(rule, key)
	now := m.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.keys[id]
	if a == nil {
		return decide(rule, true, 0, 0), nil
	}
	a.forget(now - rule.Window)
	return a.decide(rule, a.n < rule.Max, now), nil
}

// Reset implements [Store].
func (m *Memory) Reset(ctx context.Context, rule Rule, key string) error {
	if err := usable(ctx, rule); err != nil {
		return err
	}
	id, s := m.locate(rule, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.keys[id]; a != nil {
		s.remove(a)
	}
	return nil
}

// Clear implements [Store]. It looks at every key of the store.
func (m *Memory) Clear(ctx context.Context, rule Rule) error {
	if err := usable(ctx, rule); err != nil {
		return err
	}
	for i := range m.shards {
		m.shards[i].clear(rule.Name)
	}
	return nil
}

// Len returns how many keys are remembered.
func (m *Memory) Len() int {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += len(s.keys)
		s.mu.Unlock()
	}
	return n
}

// usable refuses a call that must not come to a decision.
func usable(ctx context.Context, rule Rule) error {
	if err := rule.Validate(); err != nil {
		return err
	}
	return ctx.Err()
}

const (
	// candidates is how many keys are looked at for one to forget, and
	// moreCandidates while all of them are at their limit.
	candidates     = 8
	moreCandidates = 64
	// touchInterval is how exactly the order of use is kept. To write it on each use
	// would cost a third of a decision, in the memory of the key's neighbours.
	touchInterval = time.Second
)

// shard is a part of the keys under a lock of its own.
type shard struct {
	mu    sync.Mutex
	limit int
	keys  map[fingerprint]*attempts
	// used is the ring of all keys: used.next is the most recently used one, and
	// used.prev the least, to the touchInterval.
	used attempts
}

func (s *shard) init(limit int) {
	s.limit, s.keys = limit, map[fingerprint]*attempts{}
	s.used.next, s.used.prev = &s.used, &s.used
}

// add makes room for a key, also where one that no longer counts can give it: so the
// store grows with the keys that count, and not with all there ever were.
func (s *shard) add(id fingerprint, rule string, now time.Duration) *attempts {
	var a *attempts
	switch oldest := s.used.prev; {
	case len(s.keys) >= s.limit:
		a = s.victim(now)
		s.remove(a)
	case oldest != &s.used && oldest.until <= now:
		a = oldest
		s.remove(a)
	default:
		a = new(attempts)
	}
	*a = attempts{id: id, rule: rule}
	a.hits = a.few[:]
	s.keys[id] = a
	s.front(a, now)
	return a
}

// victim chooses the key to forget in a full shard. What is closer to its limit than
// the choice, or at it, is put out of the way: otherwise keys at their limit would
// gather where the search begins, until it finds no others.
func (s *shard) victim(now time.Duration) *attempts {
	best := s.used.prev
	for i, a := 0, best; a != &s.used && (i < candidates || i < moreCandidates && best.n >= best.max); i++ {
		next := a.prev
		switch {
		case a.until <= now:
			return a
		case a == best:
		case best.closer(a):
			s.touch(best, now)
			best = a
		case a.closer(best) || a.n >= a.max:
			s.touch(a, now)
		}
		a = next
	}
	return best
}

func (s *shard) front(a *attempts, now time.Duration) {
	a.moved = now
	a.prev, a.next = &s.used, s.used.next
	a.next.prev, s.used.next = a, a
}

func (s *shard) touch(a *attempts, now time.Duration) {
	a.next.prev, a.prev.next = a.prev, a.next
	s.front(a, now)
}

func (s *shard) remove(a *attempts) {
	a.next.prev, a.prev.next = a.prev, a.next
	delete(s.keys, a.id)
}

func (s *shard) clear(rule string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := s.used.next; a != &s.used; {
		next := a.next
		if a.rule == rule {
			s.remove(a)
		}
		a = next
	}
}

// attempts are those at one key that count, in a ring that grows up to the rule's
// Max.
type attempts struct {
	id         fingerprint
	rule       string
	next, prev *attempts
	moved      time.Duration // to the front
	hits       []time.Duration
	few        [4]time.Duration // where hits begins: most keys need no more
	first, n   int
	max        int
	until      time.Duration // when the last of them leaves the window
}

func (a *attempts) index(i int) int {
	if i += a.first; i >= len(a.hits) {
		i -= len(a.hits)
	}
	return i
}

// forget drops the attempts that have left the window.
func (a *attempts) forget(cutoff time.Duration) {
	for a.n > 0 && a.hits[a.first] <= cutoff {
		a.first = a.index(1)
		a.n--
	}
}

// count adds an attempt. Calls get the lock in another order than they read the
// clock, hence the search for its place.
func (a *attempts) count(at time.Duration, rule Rule) {
	if a.n == len(a.hits) {
		a.grow(rule.Max)
	}
	i := a.n
	for ; i > 0 && a.hits[a.index(i-1)] > at; i-- {
		a.hits[a.index(i)] = a.hits[a.index(i-1)]
	}
	a.hits[a.index(i)] = at
	a.n++
	a.until = max(a.until, at+rule.Window)
}

func (a *attempts) grow(limit int) {
	larger := make([]time.Duration, min(limit, 2*len(a.hits)))
	for i := range a.n {
		larger[i] = a.hits[a.index(i)]
	}
	a.hits, a.first = larger, 0
}

// decide describes the state at now. Where a lower Max than before counts, there can
// be more attempts than it.
func (a *attempts) decide(rule Rule, allowed bool, now time.Duration) Decision {
	var leaves time.Duration
	if a.n > 0 {
		leaves = a.hits[a.index(max(0, a.n-rule.Max))] + rule.Window - now
	}
	return decide(rule, allowed, a.n, leaves)
}

// closer reports whether a has used up more of its limit than b.
func (a *attempts) closer(b *attempts) bool { return a.n*b.max > b.n*a.max }
