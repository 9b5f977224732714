package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"golang.org/x/sync/errgroup"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// subject is what one point of the sweep works on: a user of its own, signed in
// twice.
type subject struct {
	*world
	ctx             context.Context
	email           string
	id              string
	session, second string
	access, refresh string
}

// operation is one public operation. run returns nil for its success; an answer
// over HTTP is made an error by [subject.http].
type operation struct {
	name string
	run  func(s *subject) error
	// again is what the repetition may return besides nil: what was carried out
	// and not answered has happened.
	again error
	// holds looks at the state once the operation has succeeded.
	holds func(s *subject) error
}

// errAnswer is an answer that is neither a success nor one of the refusals that
// a fault may cause.
var (
	errAnswer   = errors.New("an answer that no fault may cause")
	errConflict = errors.New("409")
	errRefused  = errors.New("401")
)

// http sends a request with the point's context and judges the answer.
func (s *subject) http(method, path string, body any, want int, edit ...request) error {
	withContext := func(r *http.Request) { *r = *r.WithContext(s.ctx) }
	r := s.do(method, "/auth"+path, body, append(edit, withContext)...)
	switch {
	case r.status == want:
		return nil
	case r.status == 503 && r.code() == "unavailable" && r.header.Get("Retry-After") != "":
		if r.text("access_token") != "" || len(r.header["Set-Cookie"]) > 0 {
			return fmt.Errorf("%w: a refusal hands out tokens: %s", errAnswer, r.raw)
		}
		return store.ErrUnavailable
	case r.status == 409:
		return errConflict
	case r.status == 401:
		return errRefused
	default:
		return fmt.Errorf("%w: %d %s", errAnswer, r.status, r.raw)
	}
}

func (s *subject) token() request { return bearer(s.access) }

// dead is the state after everything of the user was ended.
func dead(s *subject) error {
	if r := s.me(s.access); r.status != 401 {
		return fmt.Errorf("the access token lives: %d %s", r.status, r.raw)
	}
	if r := s.do("POST", "/auth/refresh", obj("refresh_token", s.refresh)); r.status != 401 {
		return fmt.Errorf("the refresh token lives: %d %s", r.status, r.raw)
	}
	return nil
}

// signsIn tells what signing in with a password answers.
func signsIn(s *subject, pw string, want int) error {
	if r := s.do("POST", "/auth/login", obj("email", s.email, "password", pw)); r.status != want {
		return fmt.Errorf("signing in answers %d %s, want %d", r.status, r.raw, want)
	}
	return nil
}

// may tells whether the user may read documents.
func may(s *subject, object string, want bool) error {
	can, err := s.app.Authz().Can(s.t.Context(), &principalOf{ID: s.id, Kind: authz.KindHuman, App: "shop"}, object, "read")
	if err != nil || can != want {
		return fmt.Errorf("reading %s: %t, %w, want %t", object, can, err, want)
	}
	return nil
}

type principalOf = authz.Principal

// newSubject makes the user of a point while the database is well.
func (w *world) newSubject(name string) (*subject, error) {
	s := &subject{world: w, ctx: w.t.Context(), email: name + "@example.com"}
	r := w.do("POST", "/auth/register", obj("email", s.email, "password", password))
	if r.status != 201 {
		return nil, fmt.Errorf("register: %s", r.raw)
	}
	s.id, _ = r.at("user", "id").(string)
	s.access, s.refresh = r.text("access_token"), r.text("refresh_token")
	if err := signsIn(s, password, 200); err != nil {
		return nil, err
	}
	list, err := w.app.Sessions().List(w.t.Context(), s.id)
	if err != nil || len(list) != 2 {
		return nil, fmt.Errorf("%d sessions, %w", len(list), err)
	}
	for _, session := range list {
		if p, err := w.app.Verify(w.t.Context(), s.access); err != nil {
			return nil, err
		} else if session.ID == p.SessionID {
			s.session = session.ID
		} else {
			s.second = session.ID
		}
	}
	return s, nil
}

// sweepWorkers is how many worlds are swept at once: they wait for deadlines and
// for the driver's heartbeat.
const sweepWorkers = 24

// Every public operation meets every fault at every call to the database that it
// makes. It succeeds or returns an error of the right kind within the deadline,
// its repetition succeeds, and then everything is as it should be.
func TestFaultSweep(t *testing.T) {
	t.Parallel()
	var points atomic.Int64
	var group errgroup.Group
	group.SetLimit(sweepWorkers)
	for _, op := range operations() {
		for _, mode := range storetest.FaultModes {
			group.Go(func() error {
				t.Run(op.name+", "+string(mode), func(t *testing.T) { points.Add(sweep(t, op, mode)) })
				return nil
			})
		}
	}
	_ = group.Wait()
	t.Logf("%d points", points.Load())
	if points.Load() < 300 {
		t.Errorf("%d points, want 300", points.Load())
	}
}

// sweep returns how many calls of the operation met the fault.
func sweep(t *testing.T, op operation, mode storetest.FaultMode) (points int64) {
	faults := &storetest.Faults{Counts: func(c bson.Raw) bool { return !enginetest.NewCommand(c).Background() }}
	w := newWorld(t, storetest.Faulty(t, faults), manifestOf(t, "shop", guests+","+policy(`"initial_policies":[["admin","documents","read"]]`)))
	for n := 1; ; n++ {
		s, err := w.newSubject(fmt.Sprintf("user%d", n))
		for deadline := time.Now().Add(8 * time.Second); err != nil && time.Now().Before(deadline); {
			// The driver has not found the server again yet.
			s, err = w.newSubject(fmt.Sprintf("user%d-%d", n, time.Now().UnixNano()))
		}
		if err != nil {
			t.Fatalf("point %d: %v", n, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		s.ctx = ctx
		faults.Arm(n, mode, cancel)
		began := time.Now()
		err = op.run(s)
		took := time.Since(began)
		hit := faults.Disarm()
		cancel()
		if !refusedWell(err) && !errors.Is(err, orNever(op.again)) {
			t.Errorf("point %d: %v", n, err)
		}
		if took > 7*time.Second {
			t.Errorf("point %d took %s", n, took)
		}
		s.ctx = t.Context()
		if err != nil || op.again != nil {
			s.repeat(n, op)
		}
		if op.holds != nil {
			if err := op.holds(s); err != nil {
				t.Errorf("point %d, afterwards: %v", n, err)
			}
		}
		if !hit {
			return points
		}
		points++
	}
}

// refusedWell reports whether a fault may make an operation end like this.
func refusedWell(err error) bool {
	return err == nil || errors.Is(err, store.ErrUnavailable) || errors.Is(err, authz.ErrUnavailable) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func orNever(err error) error {
	if err == nil {
		return errAnswer
	}
	return err
}

// repeat makes the operation again until it succeeds: right after a fault the
// driver may still be looking for the server.
func (s *subject) repeat(n int, op operation) {
	var err error
	for deadline := time.Now().Add(8 * time.Second); time.Now().Before(deadline); {
		if err = op.run(s); err == nil || (op.again != nil && errors.Is(err, op.again)) {
			return
		}
		if !refusedWell(err) {
			break
		}
	}
	s.t.Errorf("point %d: the repetition: %v", n, err)
}
