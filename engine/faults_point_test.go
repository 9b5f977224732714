package engine_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens"
)

// point is one operation that meets one fault: its account, and how to call and
// to judge.
type point struct {
	*sweep
	*rig
	t     *testing.T
	label string
	// ctx is that of the caller, which Cancel ends.
	ctx context.Context

	// The account, whose password is [password]. first is the session that the operation is made in, second
	// another one.
	id, email     string
	first, second *session
	// jar is a third session, in cookies, where prepare has asked for it.
	jar   request
	third *session
	// note is the operation's own.
	note any

	working bool
}

// enter takes a place among those who work, leave gives it back.
func (p *point) enter() {
	p.busy <- struct{}{}
	p.working = true
}

func (p *point) leave() {
	p.working = false
	<-p.busy
}

func (p *point) errorf(format string, args ...any) {
	p.t.Helper()
	p.t.Errorf("%s: %s", p.label, fmt.Sprintf(format, args...))
}

// must is for what comes before the fault.
func (p *point) must(err error) {
	p.t.Helper()
	if err != nil {
		p.errorf("prepare: %v", err)
	}
}

// timed makes a call. A defect in it is a failure, not the end of all tests.
func (p *point) timed(call func(p *point) outcome) (o outcome) {
	p.t.Helper()
	began := time.Now()
	defer func() {
		if v := recover(); v != nil {
			p.errorf("panic: %v", v)
			o = outcome{err: errors.New("panic")}
		}
		o.took = time.Since(began)
	}()
	return call(p)
}

func (p *point) unique() string { return fmt.Sprintf("%d", p.serial.Add(1)) }

// account makes an account with two sessions.
func (p *point) account() {
	p.t.Helper()
	p.id, p.email = store.NewID("usr_"), "user"+p.unique()+"@example.com"
	_, err := p.healthy.db.Collection("users").InsertOne(p.ctx, append(bson.D{
		{Key: "_id", Value: p.id}, {Key: "email", Value: p.email}, {Key: "email_norm", Value: p.email},
	}, p.template...))
	p.must(err)
	p.first, p.second = p.begin(), p.begin()
}

// begin begins another session of the account.
func (p *point) begin() *session {
	p.t.Helper()
	g, err := p.healthy.app.StartSession(p.ctx, p.id, engine.Device{}, false)
	p.must(err)
	return granted(g)
}

func granted(g *engine.Grant) *session {
	if g == nil {
		return nil
	}
	return &session{id: g.Session.SessionID, access: g.Access.Token, refresh: g.Session.RefreshToken}
}

// inCookies begins a third session, one of a browser.
func inCookies(p *point) {
	r := p.answer(p.healthy, "POST", "/auth/login", with(p.credentials(), "transport", "cookie")).response
	if r.status != http.StatusOK {
		p.errorf("prepare: sign in by cookie: %s", r.raw)
	}
	p.jar = cookieHeader(r)
	me := p.answer(p.healthy, "GET", "/auth/me", nil, p.jar).response
	id, _ := me.at("principal", "session_id").(string)
	p.third = &session{id: id}
	for _, line := range r.header["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		p.must(err)
		switch {
		case c == nil:
		case strings.HasSuffix(c.Name, "_access"):
			p.third.access = c.Value
		case strings.HasSuffix(c.Name, "_refresh"):
			p.third.refresh = c.Value
		}
	}
}

// xhr is what a page of ours sends with a cookie.
var xhr = header("X-Requested-With", "test")

// send sends a request to the instance that meets the fault.
func (p *point) send(method, path string, body any, edit ...request) outcome {
	p.t.Helper()
	return p.answer(p.world, method, path, body, edit...)
}

func (p *point) answer(w *world, method, path string, body any, edit ...request) outcome {
	p.t.Helper()
	return p.serve(w.app.Handler(), method, path, body, edit...)
}

func (p *point) serve(h http.Handler, method, path string, body any, edit ...request) outcome {
	p.t.Helper()
	edit = append(edit, func(r *http.Request) { *r = *r.WithContext(p.ctx) })
	r := do(p.t, h, method, path, body, edit...)
	o := outcome{response: r}
	if r.text("access_token") != "" || r.text("refresh_token") != "" {
		o.session = &session{access: r.text("access_token"), refresh: r.text("refresh_token")}
	}
	return o
}

// asFirst is the access token of the session that a request is made in.
func (p *point) asFirst() request { return bearer(p.first.access) }

// signedIn is the outcome of a call that hands a session out.
func signedIn(g *engine.Grant, err error) outcome { return outcome{err: err, session: granted(g)} }

// alive checks that the session's tokens are good, on both instances.
func (p *point) alive(s *session) {
	p.t.Helper()
	if s == nil {
		p.errorf("no session was handed out")
		return
	}
	for _, w := range p.instances() {
		if _, err := w.app.Verify(p.ctx, s.access); err != nil {
			p.errorf("an access token that should be good: %v", err)
		}
	}
	g, err := p.healthy.app.Refresh(p.ctx, s.refresh, engine.Device{})
	if err != nil {
		p.errorf("a refresh token that should be good: %v", err)
		return
	}
	*s = *granted(g)
}

// dead checks that the session's tokens are refused everywhere.
func (p *point) dead(s *session) {
	p.t.Helper()
	p.revoked(s)
	p.spent(s)
}

// revoked checks that the session's access token is refused: on the instance that
// has said so at once, on the other soon.
func (p *point) revoked(s *session) {
	p.t.Helper()
	if _, err := p.app.Verify(p.ctx, s.access); !errors.Is(err, tokens.ErrRevoked) {
		p.errorf("the access token of an ended session: %v", err)
		return
	}
	p.revokedElsewhere(s)
}

func (p *point) revokedElsewhere(s *session) {
	p.t.Helper()
	p.soon("the other instance refuses the access token of an ended session", func() bool {
		_, err := p.healthy.app.Verify(p.ctx, s.access)
		return errors.Is(err, tokens.ErrRevoked)
	})
}

// gone is dead for a session that the other instance has ended.
func (p *point) gone(s *session) {
	p.t.Helper()
	p.revokedElsewhere(s)
	p.spent(s)
}

// spent checks that the session cannot be refreshed.
func (p *point) spent(s *session) {
	p.t.Helper()
	for _, w := range p.instances() {
		_, err := w.app.Refresh(p.ctx, s.refresh, engine.Device{})
		if code := engine.AsProblem(err).Code; err == nil || (code != "session_expired" && code != "refresh_reused") {
			p.errorf("the refresh token of an ended session: %v", err)
		}
	}
}

func (p *point) instances() []*world { return []*world{p.healthy, p.world} }

// enters checks whether a password lets somebody in.
func (p *point) enters(password, want string) {
	p.t.Helper()
	g, err := p.app.Login(p.ctx, engine.Credentials{Email: p.email, Password: password}, engine.Device{}, false)
	if o := signedIn(g, err); !o.is(want) {
		p.errorf("sign in with %q: %v, want %q", password, o, want)
	}
}

// soon waits for something that another instance brings about.
func (p *point) soon(what string, condition func() bool) {
	p.t.Helper()
	if condition() {
		return
	}
	if p.working {
		p.leave()
		defer p.enter()
	}
	deadline := time.After(8 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			p.errorf("waited 8 s for: %s", what)
			return
		case <-tick.C:
		}
	}
}

// filtered reports whether only some operations were asked for.
func filtered() bool {
	run := flag.Lookup("test.run")
	return run != nil && strings.Contains(run.Value.String(), "/")
}
