package issuers

import (
	"hash/maphash"
	"sync"
)

// cacheShards spreads the cache's locks; a power of two.
const cacheShards = 16

// cache remembers verified tokens by their exact bytes. It is bounded: in a full
// shard a new token takes the place of an arbitrary one. What it says is only that
// the signature and the claims were good; times and key are checked on every use.
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

// shard chooses by the end of the signature: hashing the whole token twice would
// cost more than the look-up.
func (c *cache) shard(token string) *cacheShard {
	tail := token[max(0, len(token)-16):]
	return &c.shards[maphash.String(c.seed, tail)&(cacheShards-1)]
}

func (c *cache) get(token string) *Verified {
	s := c.shard(token)
	s.mu.RLock()
	v := s.entries[token]
	s.mu.RUnlock()
	return v
}

func (c *cache) put(token string, v *Verified) {
	s := c.shard(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) >= c.limit {
		for other := range s.entries {
			delete(s.entries, other)
			break
		}
	}
	s.entries[token] = v
}

func (c *cache) drop(token string) {
	s := c.shard(token)
	s.mu.Lock()
	delete(s.entries, token)
	s.mu.Unlock()
}
