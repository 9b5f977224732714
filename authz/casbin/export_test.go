package casbin

import stock "github.com/casbin/casbin/v2"

// EnforcerOf returns the enforcer that decides for a custom model.
func EnforcerOf(p *Provider) *stock.Enforcer {
	j := p.snapshot.Load().judge
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.enforcer
}

// Loaded reports whether the rules are in memory.
func Loaded(p *Provider) bool { return p.snapshot.Load() != nil }

// Taken returns how many bytes the rules in memory take, as estimated.
func (m *Memory) Taken() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sum
}
