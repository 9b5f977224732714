package engine_test

import (
	"context"
	"log/slog"
	"time"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
)

// startDeadline is given to what makes indexes: on a collection that holds data
// that may take longer than any other call, and the caller decides how long.
const startDeadline = 3 * time.Second

// startOperations are what begins an engine or an app.
func startOperations() []operation {
	return []operation{
		{
			name: "Engine.New", steps: 3, start: true, deadline: startDeadline,
			call: func(p *point) outcome { return outcome{err: p.newEngine()} },
			settled: func(p *point, _ outcome) {
				p.must(p.load())
				p.loaded()
			},
		},
		{
			name: "Engine.Load", steps: 16, start: true, deadline: startDeadline,
			prepare: func(p *point) { p.must(p.newEngine()) },
			call:    func(p *point) outcome { return outcome{err: p.load()} },
			settled: func(p *point, _ outcome) { p.loaded() },
		},
	}
}

// started is an engine that a point has begun, and its app.
type started struct {
	eng *engine.Engine
	app *engine.App
}

func (p *point) newEngine() error {
	eng, err := engine.New(p.ctx, p.db, &engine.Options{
		SecretKeys: []engine.Secret{engine.NewSecret(secretKey)}, InsecureHashCost: 4, DisableChangeStreams: true,
		Logger: slog.New(slog.DiscardHandler), Sinks: []event.Sink{},
		LookupEnv: func(string) (string, bool) { return "", false },
	})
	if err != nil {
		return err
	}
	p.note = &started{eng: eng}
	p.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := eng.Close(ctx); err != nil {
			p.errorf("close the engine: %v", err)
		}
	})
	return nil
}

// load loads an app that the database does not know yet.
func (p *point) load() error {
	if p.email == "" {
		p.email = "app" + p.unique()
	}
	s := p.note.(*started)
	app, err := s.eng.Load(p.ctx, sweepManifest(p.t, p.email, "10s", "5s"))
	if err == nil {
		s.app = app
	} else if s.eng.App(p.email) != nil {
		p.errorf("an app that could not be loaded is there")
	}
	return err
}

// loaded checks that the app serves.
func (p *point) loaded() {
	app := p.note.(*started).app
	if app == nil {
		return // reported
	}
	g, err := app.Login(p.ctx, engine.Credentials{Email: "demo@example.com", Password: "x"}, engine.Device{}, false)
	if err != nil {
		p.errorf("sign in to the app: %v", err)
		return
	}
	if _, err := app.Verify(p.ctx, g.Access.Token); err != nil {
		p.errorf("verify a token of the app: %v", err)
	}
}
