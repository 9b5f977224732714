package casbin

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
)

// Memory bounds what the rules of idle apps take together: when it is full, the
// rules of those that nobody has asked for the longest leave the memory, and come
// back when they are asked for. Rules of apps that were asked within the last
// minute stay, also beyond the bound: reading them again for every check would be
// worse. It is safe for concurrent use.
type Memory struct {
	budget int64
	logger *slog.Logger

	mu     sync.Mutex
	taken  map[*Provider]int64
	sum    int64
	warned bool
}

// NewMemory returns a Memory of so many bytes, which are estimated.
func NewMemory(budget int64, logger *slog.Logger) *Memory {
	return &Memory{budget: budget, logger: logger, taken: map[*Provider]int64{}}
}

// install makes the snapshot the provider's, nil for none, and makes room for it.
// It returns the one before.
func (m *Memory) install(p *Provider, next *snapshot) (before *snapshot) {
	if m == nil {
		return p.snapshot.Swap(next)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before = p.snapshot.Swap(next)
	var size int64
	if next != nil {
		size = emptySize + next.size
		if next.judge != nil {
			size += enforcerSize + 3*next.size // Casbin keeps the rules in its own way besides
		}
	}
	m.note(p, size)
	m.makeRoom(p)
	return before
}

func (m *Memory) makeRoom(p *Provider) {
	if m.sum <= m.budget {
		m.warned = false
		return
	}
	idle := make([]*Provider, 0, len(m.taken))
	for other := range m.taken {
		if other != p && other.idle.Load() > 0 {
			idle = append(idle, other)
		}
	}
	slices.SortFunc(idle, func(a, b *Provider) int { return cmp.Compare(b.idle.Load(), a.idle.Load()) })
	for _, other := range idle {
		other.snapshot.Store(nil)
		if m.note(other, 0); m.sum <= m.budget {
			return
		}
	}
	if !m.warned {
		m.warned = true
		m.logger.Warn("the rules of apps in use take more memory than the budget for policies; raise it, or expect this",
			slog.Int64("bytes", m.sum), slog.Int64("budget", m.budget))
	}
}

func (m *Memory) note(p *Provider, size int64) {
	m.sum += size - m.taken[p]
	if size == 0 {
		delete(m.taken, p)
		return
	}
	m.taken[p] = size
}

// What rules take, measured with Go 1.25 and rounded: a subject with its maps, a
// rule in one, a role of a subject.
const (
	subjectSize = 400
	ruleSize    = 90
	roleSize    = 40
	emptySize   = 4 << 10
	// An enforcer of Casbin's.
	enforcerSize = 64 << 10
)

// size is what a row takes in a snapshot, besides its subject.
func (r row) size() int64 {
	if r.grouping {
		return roleSize
	}
	return ruleSize + int64(len(r.object)+len(r.action))/4 // objects and actions are shared by many rows
}
