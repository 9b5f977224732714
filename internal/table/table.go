// Package table remembers what was found out about credentials, so that one that
// comes again costs a look-up. It is bounded: a flood of distinct credentials costs
// time and no memory.
//
// What a table says is only what was found out. Whether it still holds is for its
// owner to check on every use.
package table

import (
	"crypto/sha256"
	"hash/maphash"
	"sync"
)

// shards spreads the locks; a power of two.
const shards = 32

// Table remembers values by key. In a full shard a new key takes the place of an
// arbitrary one. It is safe for concurrent use, and takes no memory worth
// mentioning until something is put into it.
type Table[K comparable, V any] struct {
	limit  int // of each shard
	hash   func(K) uint64
	shards [shards]shard[K, V]
}

type shard[K comparable, V any] struct {
	mu      sync.RWMutex
	entries map[K]V
	_       [32]byte // keeps neighbouring locks off one cache line
}

// New returns a table for size keys, which hash spreads.
func New[K comparable, V any](size int, hash func(K) uint64) *Table[K, V] {
	return &Table[K, V]{limit: max(1, size/shards), hash: hash}
}

// ByEnd spreads texts by their last 16 bytes, such as those of a token's signature:
// hashing the whole text twice would cost more than the look-up.
func ByEnd() func(string) uint64 {
	seed := maphash.MakeSeed()
	return func(text string) uint64 { return maphash.String(seed, text[max(0, len(text)-16):]) }
}

// ByDigest spreads digests, which are as good as random to whoever chooses the texts
// that they are of.
func ByDigest[D ~[sha256.Size]byte](d D) uint64 { return uint64(d[0]) }

func (t *Table[K, V]) shard(key K) *shard[K, V] { return &t.shards[t.hash(key)&(shards-1)] }

// Get returns what is remembered of the key, the zero value for nothing.
func (t *Table[K, V]) Get(key K) V {
	s := t.shard(key)
	s.mu.RLock()
	v := s.entries[key]
	s.mu.RUnlock()
	return v
}

// Put remembers v of the key.
func (t *Table[K, V]) Put(key K, v V) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = map[K]V{}
	}
	if _, there := s.entries[key]; !there && len(s.entries) >= t.limit {
		for other := range s.entries {
			delete(s.entries, other)
			break
		}
	}
	s.entries[key] = v
}

// Drop forgets the key.
func (t *Table[K, V]) Drop(key K) {
	s := t.shard(key)
	s.mu.Lock()
	delete(s.entries, key)
	s.mu.Unlock()
}

// Len counts what is remembered.
func (t *Table[K, V]) Len() (n int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		n += len(s.entries)
		s.mu.RUnlock()
	}
	return n
}
