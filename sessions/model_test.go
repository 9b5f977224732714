package sessions_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/sessions"
)

const (
	modelMax   = 3
	modelIdle  = 5 * time.Hour
	modelLife  = 24 * time.Hour
	modelGrace = 10 * time.Second
)

// modelSession is what a session has to be by the words of the manual.
type modelSession struct {
	id          string
	tokens      []string // all that were handed out, newest last
	began       time.Time
	rotated     time.Time
	ended       bool
	lastRefresh *sessions.Issued
}

func (s *modelSession) alive(now time.Time) bool {
	return !s.ended && now.Before(s.rotated.Add(modelIdle)) && now.Before(s.began.Add(modelLife))
}

// machine runs random operations on the package and on the model side by side.
type machine struct {
	random   *rand.Rand
	b        *bench
	now      time.Time
	sessions []*modelSession
}

func (m *machine) pick() *modelSession { return m.sessions[m.random.IntN(len(m.sessions))] }

func (m *machine) alive() []*modelSession {
	return slices.DeleteFunc(slices.Clone(m.sessions), func(s *modelSession) bool { return !s.alive(m.now) })
}

func (m *machine) signIn(t *testing.T) {
	m.now = m.now.Add(time.Millisecond)
	issued, err := m.b.trySignIn(sessions.CreateOptions{Device: laptop})
	if err != nil {
		t.Fatalf("sign-in: %v", err)
	}
	if alive := m.alive(); len(alive) == modelMax {
		alive[0].ended = true // the oldest falls out
	}
	m.sessions = append(m.sessions, &modelSession{
		id: issued.SessionID, tokens: []string{issued.RefreshToken}, began: m.now, rotated: m.now, lastRefresh: issued,
	})
}

func (m *machine) refresh(t *testing.T) {
	s := m.pick()
	n := max(0, len(s.tokens)-1-m.random.IntN(3))
	behind := len(s.tokens) - 1 - n
	var want error
	switch {
	case !s.alive(m.now):
		want = sessions.ErrExpired
	case behind > 1 || (behind == 1 && m.now.Sub(s.rotated) > modelGrace):
		want = sessions.ErrReused
	}
	issued, err := m.b.Refresh(m.b.ctx(), s.tokens[n], laptop)
	if !errors.Is(err, want) {
		t.Fatalf("refresh with a token %d behind, %v after the rotation: got %v, want %v", behind, m.now.Sub(s.rotated), err, want)
	}
	switch {
	case errors.Is(want, sessions.ErrReused):
		s.ended = true
	case want == nil && behind == 1:
		if issued.RefreshToken != s.tokens[len(s.tokens)-1] {
			t.Fatalf("a lost race was not answered with the current token")
		}
	case want == nil:
		s.tokens, s.rotated, s.lastRefresh = append(s.tokens, issued.RefreshToken), m.now, issued
	}
	if want == nil && issued.AccessExpiresAt.After(s.began.Add(modelLife)) {
		t.Fatalf("an access token until %v outlives the session until %v", issued.AccessExpiresAt, s.began.Add(modelLife))
	}
}

func (m *machine) end(t *testing.T) {
	s := m.pick()
	// The server may have removed the document of a session that has expired.
	if err := m.b.End(m.b.ctx(), m.b.user, s.id, "x"); err != nil && (s.alive(m.now) || !errors.Is(err, sessions.ErrNotFound)) {
		t.Fatalf("end: %v", err)
	}
	s.ended = true
}

func (m *machine) endOthers(t *testing.T) {
	keep := m.pick()
	if err := m.b.EndOthers(m.b.ctx(), m.b.user, keep.id, "x"); err != nil {
		t.Fatalf("end others: %v", err)
	}
	for _, s := range m.sessions {
		s.ended = s.ended || s != keep
	}
}

func (m *machine) endAll(t *testing.T) {
	if err := m.b.EndAll(m.b.ctx(), m.b.user, "x"); err != nil {
		t.Fatalf("end all: %v", err)
	}
	for _, s := range m.sessions {
		s.ended = true
	}
}

func (m *machine) wait(*testing.T) {
	waits := []time.Duration{time.Second, 11 * time.Second, time.Hour, 4*time.Hour + 59*time.Minute, 5 * time.Hour}
	m.now = m.now.Add(waits[m.random.IntN(len(waits))])
}

// agree compares the package with the model.
func (m *machine) agree(t *testing.T) {
	list, err := m.b.List(m.b.ctx(), m.b.user)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	if alive := m.alive(); len(list) != len(alive) {
		t.Fatalf("%d sessions are listed, %d have to live", len(list), len(alive))
	}
	for _, s := range m.sessions {
		_, err := m.b.Check(m.b.ctx(), m.b.user, s.id)
		if alive := s.alive(m.now); (err == nil) != alive {
			t.Fatalf("session lives: %t, Check answers %v", alive, err)
		}
		over := s.ended && m.now.Before(s.lastRefresh.AccessExpiresAt)
		if killed := m.b.kills(s.lastRefresh); over && !killed {
			t.Fatalf("the session has ended and its access token lives on")
		} else if killed && !s.ended {
			t.Fatalf("the session lives and its access token is revoked")
		}
	}
}

// Whatever a user does in whatever order, the package does what the manual says.
func TestModel(t *testing.T) {
	t.Parallel()
	m := &machine{}
	m.b = setup(t, func(c *sessions.Config) {
		c.MaxPerUser, c.IdleTimeout, c.RefreshTTL, c.RotationGrace = modelMax, modelIdle, modelLife, modelGrace
		c.Now = func() time.Time { return m.now }
	})
	steps := []struct {
		name string
		run  func(*testing.T)
	}{
		{"signIn", m.signIn},
		{"refresh", m.refresh},
		{"refresh", m.refresh},
		{"refresh", m.refresh},
		{"wait", m.wait},
		{"wait", m.wait},
		{"end", m.end},
		{"endOthers", m.endOthers},
		{"endAll", m.endAll},
	}
	for seed := range uint64(100) {
		// From the wall's clock on: the server removes what has expired by it.
		m.now, m.sessions, m.b.user = store.Time(time.Now()), nil, store.NewID("usr_")
		m.random = rand.New(rand.NewPCG(seed, 0))
		var trace []string
		t.Cleanup(func() {
			if t.Failed() && trace != nil {
				t.Logf("seed %d: %v", seed, trace)
			}
		})
		m.signIn(t)
		for range 25 {
			step := steps[m.random.IntN(len(steps))]
			trace = append(trace, step.name)
			step.run(t)
			m.agree(t)
		}
		trace = nil
		if err := m.b.Forget(m.b.ctx(), m.b.user); err != nil {
			t.Fatalf("forget: %v", err)
		}
	}
}
