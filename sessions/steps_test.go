package sessions_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/event"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/sessions"
)

// probe sees every step of an operation, a command to the database or a call of
// the blacklist or the accounts, and acts once at one of them.
type probe struct {
	mu    sync.Mutex
	on    bool
	trace []string
	at    string
	act   func()
}

// arm starts a trace. act is called at the first step named at, before it is
// taken.
func (p *probe) arm(at string, act func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on, p.trace, p.at, p.act = true, nil, at, act
}

func (p *probe) disarm() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on = false
	return p.trace
}

func (p *probe) step(name string) {
	p.mu.Lock()
	if !p.on {
		p.mu.Unlock()
		return
	}
	p.trace = append(p.trace, name)
	var act func()
	if name == p.at {
		act, p.at = p.act, ""
	}
	p.mu.Unlock()
	if act != nil {
		act()
	}
}

func (p *probe) started(_ context.Context, e *event.CommandStartedEvent) {
	if coll, ok := e.Command.Lookup(e.CommandName).StringValueOK(); ok {
		p.step(e.CommandName + " " + coll)
	}
}

// wire is the network of one instance. Once broken nothing passes any more. An
// instance that loses the answers dies right after its command was carried out,
// one that loses the questions right before.
type wire struct {
	questions, answers atomic.Bool
	// one is the one command that gets lost, once: its name and collection.
	one atomic.Pointer[[2]string]
}

// lose makes the next command lost that is the step.
func (w *wire) lose(step string) {
	name, coll, _ := strings.Cut(step, " ")
	w.one.Store(&[2]string{name, coll})
}

// loses reports whether the message is the command that gets lost.
func (w *wire) loses(message []byte) bool {
	one := w.one.Load()
	return one != nil && bytes.Contains(message, []byte("\x02"+one[0]+"\x00")) &&
		bytes.Contains(message, []byte(one[1]+"\x00")) && w.one.CompareAndSwap(one, nil)
}

var errBroken = errors.New("the wire is broken")

func (w *wire) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if w.questions.Load() || w.answers.Load() {
		return nil, errBroken
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	return &wireConn{Conn: conn, wire: w}, err
}

type wireConn struct {
	net.Conn
	wire *wire
}

func (c *wireConn) Write(b []byte) (int, error) {
	if c.wire.questions.Load() {
		return 0, errBroken
	}
	if c.wire.loses(b) {
		// A timeout, and no broken connection: the driver would take the whole
		// server for lost, and the commands beside this one with it.
		return 0, os.ErrDeadlineExceeded
	}
	return c.Conn.Write(b)
}

func (c *wireConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.wire.questions.Load() || c.wire.answers.Load() {
		return 0, errBroken
	}
	return n, err
}

// probed are the fakes of an instance whose steps are watched.
type probed struct {
	*fakes
	*probe
	*wire
}

func (p probed) AddSession(ctx context.Context, id string, until time.Time, reason string) error {
	return p.call("AddSession", func() error { return p.fakes.AddSession(ctx, id, until, reason) })
}

func (p probed) AddUser(ctx context.Context, id string, epoch int64, reason string) error {
	return p.call("AddUser", func() error { return p.fakes.AddUser(ctx, id, epoch, reason) })
}

func (p probed) Active(ctx context.Context, id string) (kind authz.Kind, err error) {
	err = p.call("Active", func() error {
		kind, err = p.fakes.Active(ctx, id)
		return err
	})
	return kind, err
}

func (p probed) Exists(ctx context.Context, id string) (exists bool, err error) {
	err = p.call("Exists", func() error {
		exists, err = p.fakes.Exists(ctx, id)
		return err
	})
	return exists, err
}

func (p probed) call(name string, do func() error) error {
	p.step(name)
	if p.questions.Load() {
		return errFake
	}
	err := do()
	if p.answers.Load() {
		return errFake
	}
	return err
}

// watched returns another instance of b's app, on a client of its own.
func (b *bench) watched(tb testing.TB, edit ...func(*sessions.Config)) (*bench, *probe, *wire) {
	tb.Helper()
	p, w := &probe{}, &wire{}
	client, err := mongo.Connect(b.ctx(), options.Client().ApplyURI(storetest.URI(tb)).SetDialer(w).
		SetMonitor(&event.CommandMonitor{Started: p.started}).
		SetRetryWrites(false).SetRetryReads(false).SetServerSelectionTimeout(300*time.Millisecond))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	f := probed{fakes: b.fakes, probe: p, wire: w}
	edit = append([]func(*sessions.Config){func(c *sessions.Config) { c.Revoker, c.Accounts = f, f }}, edit...)
	return b.on(tb, client.Database(b.db.Name()), edit...), p, w
}

// world is a user with two sessions: target, which things are done to, and keep.
// Another sign-in pushes target out.
type world struct {
	user         string
	target, keep *sessions.Issued
	// old is a refresh token of target that is two rotations behind.
	old string

	mu     sync.Mutex
	issued []*sessions.Issued
	ended  bool // somebody was told that target is over
}

func twoSessions(c *sessions.Config) { c.MaxPerUser = 2 }

func (b *bench) world(tb testing.TB) *world {
	tb.Helper()
	target := b.signIn(tb)
	w := &world{user: b.user, old: target.RefreshToken}
	for range 2 {
		target = b.refresh(tb, target.RefreshToken, nil)
	}
	b.move(time.Second)
	w.target, w.keep = target, b.signIn(tb)
	w.issued = []*sessions.Issued{w.target, w.keep}
	return w
}

func (w *world) note(i *sessions.Issued) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.issued = append(w.issued, i)
}

func (w *world) over() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
}

// operations are everything that changes a user's sessions. Each returns an
// error for an outcome that is wrong whatever else happens.
var operations = map[string]func(b *bench, w *world) error{
	"refresh": func(b *bench, w *world) error {
		i, err := b.Refresh(b.ctx(), w.target.RefreshToken, laptop)
		switch {
		case err == nil:
			w.note(i)
		case errors.Is(err, sessions.ErrExpired):
			w.over()
			return nil
		}
		return err
	},
	"reuse": func(b *bench, w *world) error {
		_, err := b.Refresh(b.ctx(), w.old, laptop)
		if errors.Is(err, sessions.ErrReused) || errors.Is(err, sessions.ErrExpired) {
			w.over()
			return nil
		}
		return errors.Join(err, errors.New("an old token was not refused as reused"))
	},
	"end": func(b *bench, w *world) error {
		err := b.End(b.ctx(), w.user, w.target.SessionID, "x")
		return w.told(err)
	},
	"logout": func(b *bench, w *world) error {
		err := b.EndByToken(b.ctx(), w.target.RefreshToken, "x")
		return w.told(err)
	},
	"endOthers": func(b *bench, w *world) error {
		err := b.EndOthers(b.ctx(), w.user, w.keep.SessionID, "x")
		return w.told(err)
	},
	"endAll": func(b *bench, w *world) error {
		err := b.EndAll(b.ctx(), w.user, "x")
		return w.told(err)
	},
	"signIn": func(b *bench, w *world) error {
		start, err := b.Begin(b.ctx(), w.user)
		if err != nil {
			return err
		}
		i, err := b.Create(b.ctx(), start, sessions.CreateOptions{Device: laptop})
		if errors.Is(err, sessions.ErrEpochChanged) {
			return nil
		}
		if err == nil {
			w.note(i)
		}
		return err
	},
}

func (w *world) told(err error) error {
	if err == nil {
		w.over()
	}
	return err
}

// judge checks what must hold whatever happened in whatever order: a session
// lives or it is dead, with all of its tokens, and one that was said to be over
// is dead. It returns how many live.
func (b *bench) judge(t *testing.T, w *world, label string) int {
	t.Helper()
	latest := map[string]*sessions.Issued{}
	for _, i := range w.issued {
		latest[i.SessionID] = i
	}
	living := map[string]bool{}
	for id := range latest {
		if _, err := b.Check(b.ctx(), w.user, id); err == nil {
			living[id] = true
		}
	}
	// Before anything is refreshed: a refresh repeats what an end left undone.
	for _, i := range w.issued {
		if alive := living[i.SessionID]; b.kills(i) == alive {
			t.Errorf("%s: session lives: %t, but its access token is revoked: %t", label, alive, b.kills(i))
		}
	}
	for id, last := range latest {
		if _, err := b.Refresh(b.ctx(), last.RefreshToken, laptop); (err == nil) != living[id] {
			t.Errorf("%s: session lives: %t, but its refresh answers %v", label, living[id], err)
		}
	}
	if w.ended && living[w.target.SessionID] {
		t.Errorf("%s: the session lives that was said to be over", label)
	}
	return len(living)
}
