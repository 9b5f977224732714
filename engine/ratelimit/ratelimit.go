// Package ratelimit says how often something may be done: so many attempts for
// each key in any window of time. A key is whatever the attempts are counted by, an
// address, a user, both.
//
// The window slides and is exact. An attempt counts from the moment it was let
// through until one window later, to the instant, and there is no edge at which a
// client could have twice the limit. An attempt that was refused does not count, so
// that a client which keeps knocking gets in as soon as one that waits.
//
// A [Limiter] is a [Rule] and the [Store] that counts: [Memory] for one process,
// [Mongo] for any number of them, which share one limit exactly. [Middleware] puts a
// limiter before a handler. The package knows neither manifests nor accounts and can
// be used on its own.
//
// # Failure
//
// The zero value of a [Decision] refuses, and every error comes with it: what could
// not be counted was not allowed. [Middleware] answers 503 then.
package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The bounds of a [Rule].
const (
	// MaxAttempts is the highest [Rule.Max]: each attempt that counts is stored.
	MaxAttempts = 1000
	// MinWindow and MaxWindow bound [Rule.Window].
	MinWindow = time.Second
	MaxWindow = 31 * 24 * time.Hour

	maxName = 63
)

// Rule is a limit: Max attempts for each key in any Window.
//
// A store knows a rule by its name. The numbers may differ from one call to the next
// and between instances that share a store, as they do while a new version is being
// deployed: each call decides by its own Max and counts what the others let through. A
// longer Window, however, cannot count attempts that a shorter one has let go of.
type Rule struct {
	// Name matches ^[a-z][a-z0-9_]{0,62}$. It is shown to clients.
	Name string
	// Max is how many attempts a window holds, 1 to [MaxAttempts].
	Max int
	// Window is [MinWindow] to [MaxWindow], in whole milliseconds.
	Window time.Duration
}

// Validate returns what is wrong with the rule, nil when nothing is.
func (r Rule) Validate() error {
	switch {
	case !validName(r.Name):
		return fmt.Errorf("ratelimit: rule %q: the name has to match ^[a-z][a-z0-9_]{0,62}$", r.Name)
	case r.Max < 1 || r.Max > MaxAttempts:
		return fmt.Errorf("ratelimit: rule %q: max is %d; give 1 to %d", r.Name, r.Max, MaxAttempts)
	case r.Window < MinWindow || r.Window > MaxWindow || r.Window%time.Millisecond != 0:
		return fmt.Errorf("ratelimit: rule %q: window is %s; give %s to %s in whole milliseconds", r.Name, r.Window, MinWindow, MaxWindow)
	default:
		return nil
	}
}

func validName(name string) bool {
	if name == "" || len(name) > maxName || name[0] < 'a' || name[0] > 'z' {
		return false
	}
	for i := 1; i < len(name); i++ {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// Decision is the answer about one attempt. The zero value refuses.
type Decision struct {
	// Allowed says whether the attempt may go on.
	Allowed bool
	// Limit is the rule's Max.
	Limit int
	// Remaining is how many attempts are left now, this one taken off.
	Remaining int
	// ResetAfter is for how long Remaining will not grow: until the oldest attempt
	// that counts leaves the window. It is a whole window when none counts.
	ResetAfter time.Duration
	// RetryAfter is when the next attempt will be let through, from now, if no other
	// takes its place. It is 0 where Allowed.
	RetryAfter time.Duration
}

// decide describes a window with count attempts, in which there will be room for one
// more than now after leaves.
func decide(rule Rule, allowed bool, count int, leaves time.Duration) Decision {
	d := Decision{Allowed: allowed, Limit: rule.Max, Remaining: max(0, rule.Max-count), ResetAfter: leaves}
	if count == 0 {
		d.ResetAfter = rule.Window
	}
	if !allowed {
		d.RetryAfter = d.ResetAfter
	}
	return d
}

// Store counts attempts. Implementations are safe for concurrent use, and however
// many calls there are at once, none lets through more than the rule says.
//
// An error of any method means that nothing is known: the decision is the zero value,
// and the attempt may or may not have been counted. A ctx that has ended is an error.
// Keys may be any text of any length; the empty one is a key like others.
type Store interface {
	// Take lets an attempt through and counts it, or refuses it and counts nothing.
	Take(ctx context.Context, rule Rule, key string) (Decision, error)
	// Peek answers as Take would and counts nothing: Remaining is what is left.
	Peek(ctx context.Context, rule Rule, key string) (Decision, error)
	// Reset forgets the attempts at one key.
	Reset(ctx context.Context, rule Rule, key string) error
	// Clear forgets the attempts at every key of the rule.
	Clear(ctx context.Context, rule Rule) error
}

// Limiter is one rule and where its attempts are counted. It is immutable and safe
// for concurrent use. The zero value refuses everything.
type Limiter struct {
	rule  Rule
	store Store
}

// errZero is what a Limiter answers that New has not made.
var errZero = errors.New("ratelimit: the zero value of Limiter refuses everything; call New")

// New returns a limiter of the rule that counts in store. Limiters that share a store
// share the count of a rule by its name.
func New(rule Rule, store Store) (*Limiter, error) {
	if err := rule.Validate(); err != nil {
		return nil, err
	}
	if store == nil {
		return nil, fmt.Errorf("ratelimit: rule %q: a store is required", rule.Name)
	}
	return &Limiter{rule: rule, store: store}, nil
}

// Rule returns the limiter's rule.
func (l *Limiter) Rule() Rule {
	if l == nil {
		return Rule{}
	}
	return l.rule
}

// Allow decides about one attempt at key and counts it if it is let through.
func (l *Limiter) Allow(ctx context.Context, key string) (Decision, error) {
	if l == nil || l.store == nil {
		return Decision{}, errZero
	}
	d, err := l.store.Take(ctx, l.rule, key)
	if err != nil {
		return Decision{}, err
	}
	return d, nil
}

// Remaining returns how many attempts at key would be let through now. It counts
// none, and returns 0 with an error.
func (l *Limiter) Remaining(ctx context.Context, key string) (int, error) {
	if l == nil || l.store == nil {
		return 0, errZero
	}
	d, err := l.store.Peek(ctx, l.rule, key)
	if err != nil {
		return 0, err
	}
	return d.Remaining, nil
}

// Reset forgets the attempts at key.
func (l *Limiter) Reset(ctx context.Context, key string) error {
	if l == nil || l.store == nil {
		return errZero
	}
	return l.store.Reset(ctx, l.rule, key)
}

// ClearAll forgets the attempts at every key.
func (l *Limiter) ClearAll(ctx context.Context) error {
	if l == nil || l.store == nil {
		return errZero
	}
	return l.store.Clear(ctx, l.rule)
}
