package engine

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/mandate-auth/mandate/engine/ratelimit"
	"github.com/mandate-auth/mandate/internal/httpapi"
)

// RateLimit returns the limiter of a rule of the manifest's auth.rate_limits, for a
// service that counts by itself. The error says which rules there are not.
func (app *App) RateLimit(rule string) (*ratelimit.Limiter, error) {
	l := app.limits[rule]
	if l == nil {
		return nil, fmt.Errorf("auth.rate_limits has no rule %q, or it is off", rule)
	}
	return ratelimit.New(l.Rule, l.Store)
}

// RateLimited lets so many requests pass as the rule of the manifest's
// auth.rate_limits says: 429 rate_limited otherwise, 503 when it cannot be counted.
// Every answer has the headers of the limit. key says what requests are counted by,
// an account, a tenant, a document; nil means the rule's own key. It asks for no
// principal: combine it by [App.All]. A rule that the manifest does not have
// refuses everything, and one that is off limits nothing.
func (app *App) RateLimited(rule string, key func(*http.Request) string) *Guard {
	if l, known := app.manifest.Auth.RateLimits[rule]; known && !l.Enabled {
		return app.api.Unlimited()
	}
	return app.api.RateLimited(rule, key)
}

// memoryKeys is how many keys the limits in memory of one app remember, at some
// 100 bytes each and 8 for each attempt.
const memoryKeys = 50_000

// memoryStore is a store that is made when somebody tries something: an app that
// nobody uses takes no memory for it.
type memoryStore func() *ratelimit.Memory

// Take implements [ratelimit.Store].
func (m memoryStore) Take(ctx context.Context, rule ratelimit.Rule, key string) (ratelimit.Decision, error) {
	return m().Take(ctx, rule, key)
}

// Peek implements [ratelimit.Store].
func (m memoryStore) Peek(ctx context.Context, rule ratelimit.Rule, key string) (ratelimit.Decision, error) {
	return m().Peek(ctx, rule, key)
}

// Reset implements [ratelimit.Store].
func (m memoryStore) Reset(ctx context.Context, rule ratelimit.Rule, key string) error {
	return m().Reset(ctx, rule, key)
}

// Clear implements [ratelimit.Store].
func (m memoryStore) Clear(ctx context.Context, rule ratelimit.Rule) error {
	return m().Clear(ctx, rule)
}

// buildLimits makes the rate limits of the manifest.
func (e *Engine) buildLimits(ctx context.Context, app *App) error {
	mongo, err := ratelimit.NewMongo(e.db, ratelimit.MongoConfig{App: app.slug, Now: e.opts.Now})
	if err != nil {
		return err
	}
	if err := e.index(ctx, "rate_limits", mongo.EnsureIndexes); err != nil {
		return err
	}
	memory := memoryStore(sync.OnceValue(func() *ratelimit.Memory {
		return ratelimit.NewMemory(ratelimit.MemoryConfig{MaxKeys: memoryKeys, Now: e.opts.Now})
	}))
	app.limitStore, app.limits = mongo, map[string]*httpapi.Limit{}
	for name, l := range app.manifest.Auth.RateLimits {
		if !l.Enabled {
			continue
		}
		limit := &httpapi.Limit{
			Rule: ratelimit.Rule{Name: name, Max: l.Max, Window: time.Duration(l.Window)}, Key: httpapi.LimitKey(l.Key), Store: memory,
		}
		if l.Store == "mongodb" {
			limit.Store = mongo
		}
		if _, err := ratelimit.New(limit.Rule, limit.Store); err != nil {
			return fmt.Errorf("auth.rate_limits %s: %w", name, err)
		}
		app.limits[name] = limit
	}
	return nil
}
