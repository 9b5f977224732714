package engine_test

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/users"
)

// own is an app that one point has for itself, because the operation is about all of
// it: what its tokens are signed with, what it has recorded. It is loaded by both
// engines.
type own struct {
	here, there *engine.App
	userID      string
	session     *session
	kid         string // of the key that has signed
}

func (p *point) own() *own { return p.note.(*own) }

// anApp loads an app that the database does not know yet, with an account that is
// signed in, and an admin.
func anApp(p *point) {
	o, slug := &own{}, "own"+p.unique()
	p.note = o
	var err error
	o.there, err = p.healthy.eng.Load(p.ctx, ownManifest(p, slug, "1s", "200ms"))
	p.must(err)
	o.here, err = p.eng.Load(p.ctx, ownManifest(p, slug, "10s", "5s"))
	p.must(err)
	user, err := o.here.Users().Create(p.ctx, users.NewUser{Email: email, Password: password})
	p.must(err)
	o.userID = user.ID
	p.must(o.here.Authz().SetRoles(p.ctx, user.ID, "admin"))
	o.session = o.begin(p)
	u, err := tokens.Inspect(o.session.access)
	p.must(err)
	o.kid = u.KeyID
	for _, app := range []*engine.App{o.here, o.there} {
		p.must(app.Audit().Flush(p.ctx))
	}
}

// ownManifest is that of the app, which signs with keys of its own.
func ownManifest(p *point, slug, staleness, poll string) *manifest.Manifest {
	return manifestOf(p.t, slug, `"users":{"password":{"block_common":false}},
		"tokens":{"algorithm":"EdDSA","revocation":{"max_staleness":"`+staleness+`","poll_interval":"`+poll+`"}},`+
		policy(`"initial_policies":[["admin","mandate","audit"]]`))
}

// begin signs the account in, on the instance that meets the fault.
func (o *own) begin(p *point) *session {
	p.t.Helper()
	g, err := o.here.StartSession(p.ctx, o.userID, engine.Device{}, false)
	p.must(err)
	return granted(g)
}

// end closes the app on both instances.
func (o *own) end(p *point) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, app := range []*engine.App{o.here, o.there} {
		p.must(app.Close(ctx))
	}
}

// ends is settled for an operation on an app of its own.
func ends(check func(p *point, o outcome)) func(p *point, o outcome) {
	return func(p *point, o outcome) {
		if check != nil {
			check(p, o)
		}
		p.own().end(p)
	}
}

// works checks that a token of the app is good: at once where the fault was met, soon
// on the other instance.
func (o *own) works(p *point, s *session) {
	p.t.Helper()
	if _, err := o.here.Verify(p.ctx, s.access); err != nil {
		p.errorf("a token that should be good: %v", err)
		return
	}
	p.soon("the other instance accepts a token", func() bool { _, err := o.there.Verify(p.ctx, s.access); return err == nil })
}

// isDead checks that a token of the app is refused.
func (o *own) isDead(p *point, s *session) {
	p.t.Helper()
	if _, err := o.here.Verify(p.ctx, s.access); !errors.Is(err, tokens.ErrInvalid) {
		p.errorf("a token whose key has ended: %v", err)
		return
	}
	p.soon("the other instance refuses a token whose key has ended", func() bool {
		_, err := o.there.Verify(p.ctx, s.access)
		return errors.Is(err, tokens.ErrInvalid)
	})
}

// rotatedKeys checks that tokens of before and of now are good.
func rotatedKeys(p *point, _ outcome) {
	o := p.own()
	o.works(p, o.session)
	o.works(p, o.begin(p))
	if list, err := o.there.Keys().List(p.ctx); err != nil || len(list) < 2 {
		p.errorf("the keys are %+v, %v", list, err)
	}
}

// intact checks that nothing is wrong with what was recorded.
func (p *point) intact(app *engine.App) {
	p.t.Helper()
	p.must(app.Audit().Flush(p.ctx))
	report, err := app.Audit().Verify(p.ctx)
	if err != nil || !report.Intact() || len(report.Chains) == 0 {
		p.errorf("the audit trail: %+v, %v", report, err)
	}
}

// ownOperations are those on an app of their own.
func ownOperations() []operation {
	return append(signingOperations(), auditOperations()...)
}

func signingOperations() []operation {
	keys := func(p *point) *engine.Keys { return p.own().here.Keys() }
	return []operation{
		{
			name: "Keys.List", prepare: anApp,
			call:    call(func(p *point) error { _, err := keys(p).List(p.ctx); return err }),
			settled: ends(nil),
		},
		{
			name: "Keys.Rotate", steps: 4, prepare: anApp,
			call: call(func(p *point) error { _, err := keys(p).Rotate(p.ctx); return err }),
			settled: ends(func(p *point, o outcome) {
				rotatedKeys(p, o)
				// Once more is once: the key that was stored is the next one.
				if list, err := keys(p).List(p.ctx); err != nil || len(list) != 2 {
					p.errorf("the keys are %+v, %v, want 2", list, err)
				}
			}),
		},
		{
			name: "Keys.RotateNow", steps: 4, prepare: anApp,
			call:    call(func(p *point) error { _, err := keys(p).RotateNow(p.ctx); return err }),
			settled: ends(rotatedKeys),
		},
		{
			name: "Keys.Revoke", steps: 5, prepare: anApp,
			call: call(func(p *point) error { return keys(p).Revoke(p.ctx, p.own().kid) }),
			settled: ends(func(p *point, _ outcome) {
				o := p.own()
				o.isDead(p, o.session)
				o.works(p, o.begin(p))
			}),
		},
		{
			name: "Keys.EndAllTokens", steps: 2, prepare: anApp,
			call: call(func(p *point) error { return keys(p).EndAllTokens(p.ctx) }),
			settled: ends(func(p *point, _ outcome) {
				o := p.own()
				o.isDead(p, o.session)
				for _, app := range []*engine.App{o.here, o.there} {
					if _, err := app.Refresh(p.ctx, o.session.refresh, engine.Device{}); err == nil {
						p.errorf("the refresh token of before is good")
					}
				}
				o.works(p, o.begin(p))
			}),
		},
	}
}

// auditOperations read what was recorded.
func auditOperations() []operation {
	ask := func(path string) func(p *point) outcome {
		return func(p *point) outcome {
			return p.serve(p.own().here.Handler(), "GET", "/auth"+path, nil, bearer(p.own().session.access))
		}
	}
	trail := func(p *point) *audit.Trail { return p.own().here.Audit() }
	whole := ends(func(p *point, _ outcome) { p.intact(p.own().here) })
	return []operation{
		{name: "GET /auth/me/activity", call: func(p *point) outcome { return p.send("GET", "/auth/me/activity", nil, p.asFirst()) }},
		{name: "GET /auth/admin/audit", prepare: anApp, call: ask("/admin/audit"), settled: whole},
		{name: "GET /auth/admin/audit/summary", prepare: anApp, call: ask("/admin/audit/summary"), settled: whole},
		{
			name: "GET /auth/admin/audit/verify", steps: 4, prepare: anApp, call: ask("/admin/audit/verify"),
			settled: ends(func(p *point, o outcome) {
				if o.response.status != http.StatusOK || o.response.body["intact"] != true {
					p.errorf("verified: %s", o.response.raw)
				}
			}),
		},
		{
			name: "Audit.Sweep", prepare: anApp, call: call(func(p *point) error { _, err := trail(p).Sweep(p.ctx); return err }), settled: whole,
		},
	}
}
