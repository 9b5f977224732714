package casbin

import stock "github.com/casbin/casbin/v2"

// EnforcerOf returns the enforcer that decides for a custom model.
func EnforcerOf(p *Provider) *stock.Enforcer { return p.snapshot.Load().judge.enforcer.Load() }

// Loaded reports whether the rules are in memory.
func Loaded(p *Provider) bool { return p.snapshot.Load() != nil }
