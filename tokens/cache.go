package tokens

import (
	"hash/maphash"
	"sync"
)

// cacheShards spreads the cache's locks; a power of two.
const cacheShards = 32

// cache remembers verified tokens by their exact bytes. It is bounded: in a
// full shard a new token takes the place of an arbitrary one, so that a flood
// of distinct tokens costs time and no memory. What it says is only that the
// signature was good; the living state is checked elsewhere, on every use.
type cache struct {
	seed   maphash.Seed
	limit  int // of each shard
	shards [cacheShards]cacheShard
}

type cacheShard struct {
	mu      sync.RWMutex
	entries map[string]*Verified
	_       [32]byte // keeps neighbouring locks off one cache line
}

func newCache(size int) *cache {
	c := &cache{seed: maphash.MakeSeed(), limit: max(1, size/cacheShards)}
	for i := range c.shards {
		c.shards[i].entries = map[string]*Verified{}
	}
	return c
}

func (c *cache) shard(text string) *cacheShard {
	// The signature is at the end and decides the shard: hashing the whole token
	// twice would cost more than the look-up.
	tail := text[max(0, len(text)-16):]
	return &c.shards[maphash.String(c.seed, tail)&(cacheShards-1)]
}

func (c *cache) get(text string) *Verified {
	s := c.shard(text)
	s.mu.RLock()
	v := s.entries[text]
	s.mu.RUnlock()
	return v
}

func (c *cache) put(text string, v *Verified) {
	s := c.shard(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) >= c.limit {
		for other := range s.entries {
			delete(s.entries, other)
			break
		}
	}
	s.entries[text] = v
}

// len counts what is remembered.
func (c *cache) len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.entries)
		s.mu.RUnlock()
	}
	return n
}
