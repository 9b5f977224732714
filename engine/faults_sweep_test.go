package engine_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/users"
)

// operation is a public operation whose every database call meets every fault.
// Whatever the fault, the operation succeeds whole or is refused as unavailable,
// without a credential in the refusal; made again it succeeds; and then what has
// to hold does hold.
//
// To add one, write an entry into the table of its kind: faults_routes_test.go,
// faults_calls_test.go, faults_authz_test.go, faults_machines_test.go,
// faults_own_test.go, faults_mail_test.go, faults_social_test.go,
// faults_invitations_test.go, faults_accounts_test.go, faults_proofs_test.go or
// faults_start_test.go.
type operation struct {
	// name is the route, "POST /auth/login", or the method, "Users.Create", with
	// the variant after a colon. TestFaultsMeetEverything asks for one of each.
	name string
	// prepare makes what the operation needs besides the account, before the
	// fault.
	prepare func(p *point)
	// call is the operation.
	call func(p *point) outcome
	// want is the code of the refusal that is right: wrong_password. Empty means
	// success.
	want string
	// again repeats the operation after a refusal. Default call.
	again func(p *point) outcome
	// excused says that the repetition may end as it did, though it is neither
	// success nor want: documented exceptions only.
	excused func(p *point, o outcome) bool
	// settled checks what has to hold once the operation or its repetition has
	// ended well. The account's own state is given by p.
	settled func(p *point, o outcome)
	// deadline is the caller's, where the operation has none that is short.
	deadline time.Duration
	// start is an operation that begins an engine or an app. It has an engine of
	// its own and no account.
	start bool
	// steps is how many database calls it has at least. Default 1.
	steps int
	// share is how many faults one stands for. Default all are met.
	share byte
}

// outcome is how an operation ended: with the answer of a route or the error of
// a call.
type outcome struct {
	response *response
	err      error
	// session is what was handed out.
	session *session
	took    time.Duration
}

func (o outcome) code() string {
	switch {
	case o.response != nil:
		return o.response.code()
	case o.err != nil:
		return engine.AsProblem(o.err).Code
	default:
		return ""
	}
}

func (o outcome) is(code string) bool {
	if o.response != nil && code == "" {
		return o.response.status < 300
	}
	return o.code() == code && (o.err != nil || o.response != nil || code == "")
}

func (o outcome) String() string {
	if o.response != nil {
		return fmt.Sprintf("%d %s %s", o.response.status, o.response.header.Get("Location"), o.response.raw)
	}
	return fmt.Sprint("error ", o.err)
}

// session is a session of the account, as its client knows it.
type session struct{ id, access, refresh string }

// rig is an instance whose database calls can be harmed. At most one point uses
// it at a time.
type rig struct {
	*world // nil for operations that begin an engine
	db     *mongo.Database
	faults *storetest.Faults
	// healthy is another instance of the app, which prepares and judges.
	healthy *world
	// template is an account as it is stored, without id and address.
	template bson.D
	// bystander is a session of another account.
	bystander *session
}

// sweep is what all points share: the rigs that are free.
type sweep struct {
	rigs, starts chan *rig
	// busy is taken by what comes before and after the faults, so that those who
	// meet one are not kept waiting by those who only prepare.
	busy   chan struct{}
	points atomic.Int64
	serial atomic.Int64
}

const (
	// databases times perDatabase points run at once. Most of their time they
	// wait: for a call that times out, for the driver to find its server again.
	// Several databases, because what the points leave behind slows localmongo.
	databases, perDatabase = 16, 4
	// patience is how long an operation may take that meets a fault: one call
	// that times out, and the others.
	patience = 2 * store.CallTimeout
	// newPassword is what changes of a password change it to.
	newPassword = "another long passphrase"
)

// sweepManifest judges no password: that takes long under the race detector and
// asks nothing of the database. A point may wait for its turn to repeat a refresh.
func sweepManifest(t *testing.T, slug, staleness, poll string) *manifest.Manifest {
	t.Helper()
	return manifestOf(t, slug, `"users":{"allow_anonymous_users":true,"password":{"block_common":false},"demo_users":[{"email":"demo@example.com","password":"x"}]},
		"sessions":{"max_per_user":4},"tokens":{"rotation_grace":"1m","revocation":{"max_staleness":"`+staleness+`","poll_interval":"`+poll+`"}},`+
		policy(`"initial_policies":[["admin","documents","read"],["admin","mandate","policies"],["admin","mandate","users"],["admin","mandate","escalate"],["admin","mandate","clients"]]`)+`,`+apiKeys+`,`+clients+`,`+mails+`,`+outside, `"environment":"development"`, publicURL)
}

func allOperations() []operation {
	return slices.Concat(routeOperations(), callOperations(), authzOperations(), machineOperations(),
		halved(mailOperations()), halved(socialOperations()), halved(invitationOperations()), accountOperations(), halved(proofOperations()), startOperations())
}

// halved lets each route of the list meet every second fault: which of them is decided by
// [chosen], the same at every run. They are long and made of the calls that the tables of
// accounts, mail and proofs harm in every way.
func halved(list []operation) []operation {
	for i := range list {
		switch method, _, _ := strings.Cut(list[i].name, " "); method {
		case http.MethodGet, http.MethodPost, http.MethodDelete:
			list[i].share = 2
		}
	}
	return list
}

// TestFaults harms every database call of every operation in every way.
func TestFaults(t *testing.T) {
	t.Parallel()
	s := newSweep(t)
	var operations sync.WaitGroup
	for _, op := range allOperations() {
		// Beside each other, and not t.Parallel: that admits only as many as there
		// are processors.
		operations.Go(func() {
			t.Run(op.name, func(t *testing.T) { s.run(t, op) })
		})
	}
	operations.Wait()
	s.recordedWhole(t)
	n := s.points.Load()
	t.Logf("%d faults were met", n)
	if n < 100 && !t.Failed() && !filtered() {
		t.Errorf("%d faults were met, 100 or more were expected", n)
	}
}

func newSweep(t *testing.T) *sweep {
	t.Helper()
	s := &sweep{
		rigs: make(chan *rig, databases*perDatabase), starts: make(chan *rig, 2*databases),
		busy: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
	for range databases {
		db := storetest.Database(t)
		healthy := newWorld(t, db, sweepManifest(t, "shop", "1s", "200ms"), strangers)
		healthy.quiet(healthy.app)
		template := newTemplate(t, healthy)
		for range perDatabase {
			r := newRig(t, db, foregroundCommand)
			r.healthy, r.template = healthy, template
			// The stream of a connection that breaks would be given up for ten
			// seconds each time.
			r.world = newWorld(t, r.db, sweepManifest(t, "shop", "10s", "5s"), strangers, func(o *engine.Options) { o.DisableChangeStreams = true })
			r.quiet(r.app)
			p := &point{sweep: s, rig: r, t: t, ctx: t.Context(), label: "bystander"}
			p.account()
			r.bystander = p.first
			s.rigs <- r
		}
		for range 2 {
			s.starts <- newRig(t, db, startingCommand)
		}
	}
	return s
}

// newTemplate makes the account that the others are copies of: so many hashes
// would take long.
func newTemplate(t *testing.T, w *world) bson.D {
	t.Helper()
	user, err := w.app.Users().Create(t.Context(), users.NewUser{Email: "template@example.com", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	var doc bson.D
	if err := w.db.Collection("users").FindOne(t.Context(), bson.M{"_id": user.ID}).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(doc, func(e bson.E) bool { return e.Key == "_id" || e.Key == "email" || e.Key == "email_norm" })
}

func newRig(t *testing.T, db *mongo.Database, counts func(bson.Raw) bool) *rig {
	t.Helper()
	f := &storetest.Faults{Counts: counts}
	return &rig{db: storetest.Faulty(t, db, f), faults: f}
}

// foregroundCommand leaves out what is background: goroutines do that.
func foregroundCommand(raw bson.Raw) bool { return !enginetest.NewCommand(raw).Background() }

// startingCommand counts besides what the start of an engine asks: the server's
// clock, where the driver asks for itself in admin, and what it then follows.
func startingCommand(raw bson.Raw) bool {
	switch c := enginetest.NewCommand(raw); c.Name {
	case "hello":
		db, _ := raw.Lookup("$db").StringValueOK()
		return db != "admin"
	case "find":
		return c.Collection != audit.Collection || foregroundCommand(raw)
	default:
		return foregroundCommand(raw)
	}
}

// recordedWhole checks the audit trails that all of it went into, from several
// instances each.
func (s *sweep) recordedWhole(t *testing.T) {
	t.Helper()
	verified := map[*world]bool{}
	for range cap(s.rigs) {
		w := (<-s.rigs).healthy
		if verified[w] {
			continue
		}
		verified[w] = true
		report, err := w.app.Audit().Verify(t.Context())
		if err != nil || !report.Intact() || len(report.Chains) < perDatabase {
			t.Errorf("the audit trail after all faults: %+v, %v", report, err)
		}
	}
}

// run finds the steps of an operation and harms each in every way.
func (s *sweep) run(t *testing.T, op operation) {
	t.Helper()
	steps, _ := s.point(t, op, 0, storetest.Step{})
	if len(steps) < max(op.steps, 1) {
		t.Errorf("%d database calls were seen, want %d or more: %v", len(steps), max(op.steps, 1), steps)
	}
	var points sync.WaitGroup
	for _, step := range steps {
		for _, fault := range storetest.AllFaults {
			if fault == storetest.BeforeTwice || !chosen(op, step, fault) {
				continue
			}
			points.Go(func() {
				// Where the driver does not try again, it cannot be hit twice.
				if _, withstood := s.point(t, op, fault, step); withstood && fault == storetest.Before {
					s.point(t, op, storetest.BeforeTwice, step)
				}
			})
		}
	}
	points.Wait()
}

// chosen reports whether the fault is one of those that are met, the same at every
// run. The hash is one whose last bits depend on every part: which faults are met at a
// step follows from nothing.
func chosen(op operation, step storetest.Step, fault storetest.Fault) bool {
	h := sha256.Sum256([]byte(fmt.Sprint(op.name, step, fault)))
	return h[0]%max(faultShare, op.share, 1) == 0
}

// point runs the operation once, with a fault at a step unless fault is 0. It
// returns the steps that it had, and whether it withstood the fault.
func (s *sweep) point(t *testing.T, op operation, fault storetest.Fault, step storetest.Step) (steps []storetest.Step, withstood bool) {
	t.Helper()
	pool := s.rigs
	if op.start {
		pool = s.starts
	}
	r := <-pool
	defer func() { pool <- r }()
	if t.Failed() {
		return nil, false // what is wrong is wrong at many points, and each waits for what does not come
	}
	p := &point{sweep: s, rig: r, t: t, ctx: t.Context(), label: "unharmed"}
	if fault != 0 {
		p.label = fmt.Sprintf("%s at %s", fault, step)
	}
	p.enter()
	if !op.start {
		p.account()
	}
	if op.prepare != nil {
		op.prepare(p)
	}
	p.leave()
	o, steps, hits := p.harm(op, fault, step)
	if hits > 1 || (hits == 1 && fault != storetest.BeforeTwice) {
		s.points.Add(1)
	}
	p.reconnect()
	p.enter()
	defer p.leave()
	withstood = o.is(op.want)
	if !withstood {
		p.refused(fault, step, hits, o)
	}
	p.settle(op, o)
	return steps, withstood
}

// settle repeats the operation if it was refused, and checks what has to hold.
func (p *point) settle(op operation, o outcome) {
	p.t.Helper()
	ended := o.is(op.want)
	if !ended {
		o, ended = p.repeat(op)
	}
	if ended && op.settled != nil {
		op.settled(p, o)
	}
	if p.bystander != nil {
		p.alive(p.bystander)
	}
}

// harm makes the operation's call, which meets the fault.
func (p *point) harm(op operation, fault storetest.Fault, step storetest.Step) (o outcome, steps []storetest.Step, hits int) {
	// A call that nothing else ends is ended at last, and has taken too long.
	ctx, cancel := context.WithTimeout(p.t.Context(), cmp.Or(op.deadline, 2*patience))
	defer cancel()
	p.ctx = ctx
	p.faults.Arm(fault, step, cancel)
	o = p.timed(op.call)
	steps, hits = p.faults.Disarm()
	p.ctx = p.t.Context()
	if o.took > patience {
		p.errorf("it took %v", o.took)
	}
	return o, steps, hits
}

// refused checks how an operation ended that has not succeeded: it says that
// nobody knows, and hands nothing out.
func (p *point) refused(fault storetest.Fault, step storetest.Step, hits int, o outcome) {
	p.t.Helper()
	switch {
	case hits == 0:
		p.errorf("no fault was met, and it ended with %v", o)
	case fault == storetest.Before && p.world != nil && strings.HasPrefix(step.Command, "find ") && o.took < store.CallTimeout:
		// Not at a start: there it may have been what the new engine follows.
		p.errorf("the driver tried a read again, and it ended with %v", o)
	}
	if o.session != nil {
		p.errorf("a refusal hands out a session: %v", o)
	}
	if o.code() != "unavailable" {
		p.errorf("got %v, want unavailable", o)
	}
	r := o.response
	if r == nil {
		if !errors.Is(o.err, store.ErrUnavailable) && !errors.Is(o.err, context.Canceled) && !errors.Is(o.err, context.DeadlineExceeded) {
			p.errorf("got %v, want ErrUnavailable or the context's error", o)
		}
		return
	}
	if r.header.Get("Location") == "" && (r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "") {
		p.errorf("got %v, Retry-After %q, want 503 with Retry-After", o, r.header.Get("Retry-After"))
	}
	if strings.Contains(r.raw, "_token") || len(r.header["Set-Cookie"]) != 0 {
		p.errorf("a refusal changes what the client holds: %v %v", o, r.header["Set-Cookie"])
	}
}

// reconnect waits for the driver to find its server again. What is repeated then
// has no excuse.
func (p *point) reconnect() {
	p.t.Helper()
	p.soon("the driver finds its server again", func() bool {
		ctx, cancel := store.Context(p.ctx)
		defer cancel()
		return p.db.Client().Ping(ctx, nil) == nil
	})
}

// repeat makes the operation again, on the instance that met the fault, and
// reports whether it ended well.
func (p *point) repeat(op operation) (o outcome, ended bool) {
	p.t.Helper()
	again := op.again
	if again == nil {
		again = op.call
	}
	o = p.timed(again)
	if o.took > patience {
		p.errorf("repeated, it took %v", o.took)
	}
	ended = o.is(op.want) || (op.excused != nil && op.excused(p, o))
	if !ended {
		p.errorf("repeated, it ended with %v", o)
	}
	return o, ended
}
