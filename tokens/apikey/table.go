package apikey

import "sync"

// tableShards spreads the locks of a table; a power of two.
const tableShards = 32

// table remembers the keys that were found good, by their digest. It is bounded: in
// a full shard a new one takes the place of an arbitrary other. Digests are as good
// as random to whoever chooses the texts, so the shards fill evenly.
type table struct {
	limit  int // of each shard
	shards [tableShards]shard
}

type shard struct {
	mu      sync.RWMutex
	entries map[digest]*entry
	_       [32]byte // keeps neighbouring locks off one cache line
}

func newTable(size int) *table {
	t := &table{limit: max(1, size/tableShards)}
	for i := range t.shards {
		t.shards[i].entries = map[digest]*entry{}
	}
	return t
}

func (t *table) get(d digest) *entry {
	s := &t.shards[d[0]&(tableShards-1)]
	s.mu.RLock()
	e := s.entries[d]
	s.mu.RUnlock()
	return e
}

func (t *table) put(d digest, e *entry) {
	s := &t.shards[d[0]&(tableShards-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.entries[d]; !there && len(s.entries) >= t.limit {
		for other := range s.entries {
			delete(s.entries, other)
			break
		}
	}
	s.entries[d] = e
}

// len counts what is remembered.
func (t *table) len() (n int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		n += len(s.entries)
		s.mu.RUnlock()
	}
	return n
}
