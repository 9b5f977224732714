package manifest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// RateLimit is one rule of "auth.rate_limits".
type RateLimit struct {
	Enabled bool     `json:"enabled"`
	Max     int      `json:"max"`
	Window  Duration `json:"window"`
	Key     string   `json:"key"`
	Store   string   `json:"store"`
}

// Audit is the key "auth.audit".
type Audit struct {
	Enabled       bool     `json:"enabled"`
	Retention     Duration `json:"retention"`
	ExcludePaths  []string `json:"exclude_paths"`
	Sinks         []string `json:"sinks"`
	TamperEvident bool     `json:"tamper_evident"`
	Synchronous   bool     `json:"synchronous"`
}

// Metrics is the key "auth.metrics".
type Metrics struct {
	Enabled      bool     `json:"enabled"`
	ExcludePaths []string `json:"exclude_paths"`
}

// limits are the rules of the app's own routes. Those that count secrets which
// nobody could guess, or hold a crowd off, are kept in memory: they protect the
// machine and cost no write.
var limits = map[string]struct {
	max                int
	window, key, store string
}{
	"login":         {5, "5m", "ip+identifier", "mongodb"},
	"login_address": {100, "5m", "ip", "memory"},
	"register":      {3, "10m", "ip", "mongodb"},
	"anonymous":     {30, "10m", "ip", "memory"},
	"refresh":       {10, "1m", "user", "memory"},
	"password":      {5, "15m", "user", "mongodb"},
	"token":         {600, "1m", "ip+identifier", "memory"},
	"token_address": {1000, "1m", "ip", "memory"},
	"api_keys":      {20, "1h", "user", "mongodb"},
	"mail":          {5, "15m", "ip+identifier", "mongodb"},
	"mail_address":  {30, "15m", "ip", "mongodb"},
	"consume":       {30, "5m", "ip", "memory"},
	"oauth":         {60, "5m", "ip", "memory"},
	"identities":    {20, "1h", "user", "mongodb"},
	"invitations":   {100, "1h", "user", "mongodb"},
}

// addLimits fills in the rules of the app's own routes: each key by itself, so that
// a file can change one of them.
func (p *parser) addLimits(tree map[string]any) {
	rules := child(child(tree, "auth"), "rate_limits")
	for name, l := range limits {
		rule := child(rules, name)
		for key, value := range map[string]any{"max": json.Number(strconv.Itoa(l.max)), "window": l.window, "key": l.key, "store": l.store} {
			if _, there := rule[key]; !there {
				rule[key] = value
				p.sources["/auth/rate_limits/"+name+"/"+key] = sourceDefault
			}
		}
	}
}

// child returns the object that is the member of another one, and makes it where
// it is missing.
func child(parent map[string]any, name string) map[string]any {
	member, ok := parent[name].(map[string]any)
	if !ok {
		member = map[string]any{}
		parent[name] = member
	}
	return member
}

// checkRecords checks limits, audit and metrics.
func (p *parser) checkRecords(m *Manifest) {
	for name, l := range m.Auth.RateLimits {
		at := "/auth/rate_limits/" + escape(name)
		if l.Max == 0 {
			p.fault(at+"/max", "", "is required")
		}
		if _, own := limits[name]; !own && l.Window == 0 {
			p.fault(at, "", "is no rule of the app's own routes, and one of your own needs a window")
			continue
		}
		p.bound(at+"/window", l.Window, time.Second, 30*24*time.Hour, "")
	}
	a := &m.Auth.Audit
	p.bound("/auth/audit/retention", a.Retention, time.Hour, 10*year, "")
	for i, sink := range a.Sinks {
		if slices.Contains(a.Sinks[:i], sink) {
			p.fault(fmt.Sprintf("/auth/audit/sinks/%d", i), render(sink), "is named already")
		}
	}
	if !slices.Contains(a.Sinks, "mongodb") && (a.Synchronous && a.Enabled) {
		p.fault("/auth/audit/synchronous", "true", `needs the sink "mongodb"`)
	}
}
