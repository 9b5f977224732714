package users_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
)

// granter records the roles that were granted and taken back.
type granter struct {
	mu     sync.Mutex
	grants map[string]users.Grant
	fail   error
}

func (g *granter) CheckRoles(roles []string) error {
	for _, r := range roles {
		if r != "editor" && r != "admin" {
			return fmt.Errorf("%q is not a role of this app", r)
		}
	}
	return nil
}

func (g *granter) GrantRoles(_ context.Context, grants []users.Grant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fail != nil {
		return g.fail
	}
	if g.grants == nil {
		g.grants = map[string]users.Grant{}
	}
	for _, grant := range grants {
		g.grants[grant.UserID] = grant
	}
	return nil
}

func (g *granter) Forget(_ context.Context, id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.grants, id)
	return nil
}

// Welcome implements [users.RoleKeeper].
func (g *granter) Welcome(ctx context.Context, id, norm string, trusted bool) error {
	return g.GrantRoles(ctx, []users.Grant{{UserID: id, EmailNorm: norm, Trusted: trusted}})
}

// Verified implements [users.RoleKeeper].
func (g *granter) Verified(context.Context, string, string) error { return nil }

// Dispossess implements [users.RoleKeeper].
func (g *granter) Dispossess(context.Context, string) error { return nil }

// sink counts events by type.
type sink struct {
	mu     sync.Mutex
	events []event.Event
}

func (s *sink) Record(_ context.Context, e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *sink) of(kind event.Type) map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int{}
	for _, e := range s.events {
		if e.Type == kind {
			out[e.UserID]++
		}
	}
	return out
}

const imported = "$pbkdf2-sha256$6400$.6UI/S.nXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44" // "password"

func (b *bench) imports(tb testing.TB, lines string, o users.ImportOptions) *users.ImportReport {
	tb.Helper()
	report, err := b.Import(tb.Context(), strings.NewReader(lines), o)
	if err != nil {
		tb.Fatal(err)
	}
	return report
}

func wantCounts(tb testing.TB, r *users.ImportReport, lines, imported, existing, refused int) {
	tb.Helper()
	if r.Lines != lines || r.Imported != imported || r.Existing != existing || r.Refused != refused {
		tb.Errorf("lines, imported, existing, refused: %d, %d, %d, %d; want %d, %d, %d, %d: %v",
			r.Lines, r.Imported, r.Existing, r.Refused, lines, imported, existing, refused, r.Errors)
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	events, roles := &sink{}, &granter{}
	b := setup(t, func(c *users.Config) { c.Events = events })
	was := b.create(t, "there@example.com")
	file := `{"email":"Ada@Example.com","email_verified":true,"password_hash":"` + imported + `","profile":{"name":"Ada"},"status":"active","created_at":"2020-05-01T10:00:00.5+02:00","roles":["editor","admin"],"external_id":"42"}
{"email":"bob@example.com","status":"disabled"}

{"email":"THERE@example.com","email_verified":true,"password_hash":"` + imported + `"}
{"email":"ada@example.com"}` + "\r\n" + `{"email":"no address"}
{"email":"carol@example.com","password_hash":"` + imported + `"}`
	var results []users.LineResult
	report := b.imports(t, file, users.ImportOptions{Roles: roles, OnLine: func(r users.LineResult) { results = append(results, r) }})
	wantCounts(t, report, 7, 3, 2, 1)

	ada, err := b.GetByEmail(t.Context(), "ada@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if ada.Email != "Ada@Example.com" || !ada.EmailVerified || ada.Status != users.Active || ada.Profile["name"] != "Ada" ||
		!ada.CreatedAt.Equal(time.Date(2020, 5, 1, 8, 0, 0, 5e8, time.UTC)) || !strings.HasPrefix(ada.ID, "usr_") {
		t.Errorf("imported: %+v", ada)
	}
	if got := roles.grants[ada.ID]; got.EmailNorm != "ada@example.com" || !got.Trusted || fmt.Sprint(got.Roles) != "[editor admin]" {
		t.Errorf("granted: %+v", got)
	}
	bob, err := b.GetByEmail(t.Context(), "bob@example.com")
	if err != nil || bob.Status != users.Disabled || bob.EmailVerified || roles.grants[bob.ID].Trusted {
		t.Errorf("an address that nobody vouches for: %+v, %v", bob, err)
	}
	if there, err := b.Get(t.Context(), was.ID); err != nil || there.EmailVerified || b.login(t, "there@example.com", password) != nil {
		t.Errorf("an account that was there has changed: %+v, %v", there, err)
	}
	for _, email := range []string{"ada@example.com", "carol@example.com"} {
		if err := b.login(t, email, "password"); err != nil {
			t.Errorf("%s with the old password: %v", email, err)
		}
	}
	if err := b.login(t, "bob@example.com", ""); !errors.Is(err, users.ErrInvalidCredentials) {
		t.Errorf("an account without a password: %v", err)
	}
	if got := events.of(event.UserImported); len(got) != 3 || got[ada.ID] != 1 {
		t.Errorf("events: %v", got)
	}
	wantResults(t, results, []string{
		"1 imported Ada@Example.com 42 true", "2 imported bob@example.com  true", "4 existing THERE@example.com  true",
		"5 existing ada@example.com  true", "6 refused no address  false", "7 imported carol@example.com  true",
	})
	if results[3].UserID != ada.ID || results[2].UserID != was.ID {
		t.Error("a line whose address is there does not say whose it is")
	}
	wantCounts(t, b.imports(t, file, users.ImportOptions{Roles: roles}), 7, 0, 5, 1)
	if got := events.of(event.UserImported); len(got) != 3 || len(roles.grants) != 3 {
		t.Errorf("importing again did something: %v, %v", got, roles.grants)
	}
}

func wantResults(tb testing.TB, results []users.LineResult, want []string) {
	tb.Helper()
	var got []string
	for _, r := range results {
		got = append(got, fmt.Sprintf("%d %s %s %s %t", r.Line, r.Outcome, r.Email, r.ExternalID, r.UserID != ""))
		if (r.Err != nil) != (r.Outcome == users.Refused) {
			tb.Errorf("line %d: %s with error %v", r.Line, r.Outcome, r.Err)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		tb.Errorf("results:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestImportRefusesLines(t *testing.T) {
	t.Parallel()
	b := setup(t)
	long := strings.Repeat("x", 64<<10)
	future := time.Now().Add(time.Hour).Format(time.RFC3339)
	tests := []struct{ line, code, field string }{
		{`{`, users.CodeInvalidJSON, ""},
		{`[]`, users.CodeInvalidJSON, ""},
		{`null`, users.CodeInvalidJSON, ""},
		{`{"email":"a@example.com"} {"email":"b@example.com"}`, users.CodeInvalidJSON, ""},
		{`{"email":"a@example.com","email":"b@example.com"}`, users.CodeInvalidJSON, ""},
		{`{"email":"a@example.com","profile":{"x":1,"x":2}}`, users.CodeInvalidJSON, ""},
		{`{"email":"a\ud800@example.com"}`, users.CodeInvalidJSON, ""},
		{"{\"email\":\"a\xff@example.com\"}", users.CodeInvalidJSON, ""},
		{`{"email":"a@example.com","profile":{"a":{"b":{"c":{"d":{"e":{"f":1}}}}}}}`, users.CodeInvalidJSON, ""},
		{`{"email":"a@example.com","external_id":"` + long + `"}`, users.CodeLineTooLong, ""},
		{`{}`, users.CodeInvalidField, "email"},
		{`{"email":"a@b@c"}`, users.CodeInvalidField, "email"},
		{`{"email":1}`, users.CodeInvalidField, "email"},
		{`{"Email":"a@example.com"}`, users.CodeInvalidField, "Email"},
		{`{"email":"a@example.com","_id":"usr_1"}`, users.CodeInvalidField, "_id"},
		{`{"email":"a@example.com","id":"usr_1"}`, users.CodeInvalidField, "id"},
		{`{"email":"a@example.com","kind":"demo"}`, users.CodeInvalidField, "kind"},
		{`{"email":"a@example.com","email_verified":"yes"}`, users.CodeInvalidField, "email_verified"},
		{`{"email":"a@example.com","email_verified":null}`, users.CodeInvalidField, "email_verified"},
		{`{"email":"a@example.com","password":"plain"}`, users.CodeInvalidField, "password"},
		{`{"email":"a@example.com","password_hash":"plain"}`, users.CodeInvalidHash, "password_hash"},
		{`{"email":"a@example.com","password_hash":""}`, users.CodeInvalidHash, "password_hash"},
		{`{"email":"a@example.com","password_hash":"$2b$31$` + strings.Repeat("a", 53) + `"}`, users.CodeInvalidHash, "password_hash"},
		{`{"email":"a@example.com","profile":[]}`, users.CodeInvalidField, "profile"},
		{`{"email":"a@example.com","profile":{"$set":1}}`, users.CodeInvalidField, "profile"},
		{`{"email":"a@example.com","profile":{"a":{"b.c":1}}}`, users.CodeInvalidField, "profile.a"},
		{`{"email":"a@example.com","status":""}`, users.CodeInvalidField, "status"},
		{`{"email":"a@example.com","status":"deleted"}`, users.CodeInvalidField, "status"},
		{`{"email":"a@example.com","created_at":"yesterday"}`, users.CodeInvalidField, "created_at"},
		{`{"email":"a@example.com","created_at":"1969-12-31T23:59:59Z"}`, users.CodeInvalidField, "created_at"},
		{`{"email":"a@example.com","created_at":"` + future + `"}`, users.CodeInvalidField, "created_at"},
		{`{"email":"a@example.com","roles":"admin"}`, users.CodeInvalidField, "roles"},
		{`{"email":"a@example.com","roles":["root"]}`, users.CodeInvalidField, "roles"},
		{`{"email":"a@example.com","roles":[null]}`, users.CodeInvalidField, "roles"},
		{`{"email":"a@example.com","roles":[` + strings.Repeat(`"admin",`, 32) + `"admin"]}`, users.CodeInvalidField, "roles"},
		{`{"email":"a@example.com","external_id":"` + long[:257] + `"}`, users.CodeInvalidField, "external_id"},
	}
	var file strings.Builder
	for _, tt := range tests {
		file.WriteString(tt.line + "\n")
	}
	file.WriteString(`{"email":"last@example.com"}`)
	roles := &granter{}
	report := b.imports(t, file.String(), users.ImportOptions{Roles: roles})
	wantCounts(t, report, len(tests)+1, 1, 0, len(tests))
	for i, tt := range tests {
		got := report.Errors[i]
		if got.Line != i+1 || got.Code != tt.code || got.Field != tt.field || got.Message == "" {
			t.Errorf("%.80s: got %+v, want code %q of %q", tt.line, got, tt.code, tt.field)
		}
		if strings.Contains(got.Error(), "example.com") || strings.Contains(got.Error(), "plain") {
			t.Errorf("an error repeats what the line says: %v", got)
		}
	}
	// Roles that nobody grants would be lost without a word.
	report = b.imports(t, `{"email":"a@example.com","roles":["admin"]}`, users.ImportOptions{})
	wantCounts(t, report, 1, 0, 0, 1)
}

func TestImportBoundsWhatItKeeps(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// A line without end is read without being kept.
	endless := io.LimitReader(zeros{}, 50<<20)
	report, err := b.Import(t.Context(), io.MultiReader(endless, strings.NewReader("\n{\"email\":\"a@example.com\"}\n")), users.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantCounts(t, report, 2, 1, 0, 1)
	report = b.imports(t, strings.Repeat("x\n", 10_050), users.ImportOptions{})
	wantCounts(t, report, 10_050, 0, 0, 10_050)
	if len(report.Errors) != 10_000 {
		t.Errorf("%d errors are kept", len(report.Errors))
	}
	exact := `{"email":"exact@example.com","external_id":"x"` // up to the limit of a line
	exact += strings.Repeat(" ", 64<<10-len(exact)-1) + "}"
	wantCounts(t, b.imports(t, exact+"\r\n"+exact+" \n", users.ImportOptions{}), 2, 1, 0, 1)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestImportDryRun(t *testing.T) {
	t.Parallel()
	events, roles := &sink{}, &granter{}
	b := setup(t, func(c *users.Config) { c.Events, c.Roles = events, roles })
	b.create(t, "there@example.com")
	clear(roles.grants)
	file := many(250) + `{"email":"there@example.com"}` + "\n" + `{"email":"U7@example.com"}` + "\nx\n"
	wantCounts(t, b.imports(t, file, users.ImportOptions{DryRun: true}), 253, 250, 2, 1)
	if n := b.count(t); n != 1 || len(roles.grants) != 0 || len(events.of(event.UserImported)) != 0 {
		t.Errorf("a dry run left %d users, %v, %v", n, roles.grants, events.of(event.UserImported))
	}
	wantCounts(t, b.imports(t, file, users.ImportOptions{}), 253, 250, 2, 1)
	if len(roles.grants) != 250 {
		t.Errorf("%d accounts were welcomed, want 250", len(roles.grants))
	}
}

func (b *bench) count(tb testing.TB) int64 {
	tb.Helper()
	n, err := b.db.Collection("users").CountDocuments(tb.Context(), bson.M{})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// many returns n lines.
func many(n int) string {
	var file strings.Builder
	for i := range n {
		fmt.Fprintf(&file, "{\"email\":\"u%d@example.com\",\"password_hash\":%q,\"external_id\":\"%d\"}\n", i, imported, i)
	}
	return file.String()
}

// meeting holds the first account of an instance until every instance has one, so
// that all of them believe that the same addresses are free.
type meeting struct {
	*granter
	all  *sync.WaitGroup
	once sync.Once
}

func (m *meeting) Welcome(ctx context.Context, id, norm string, trusted bool) error {
	m.once.Do(func() {
		m.all.Done()
		m.all.Wait()
	})
	return m.granter.Welcome(ctx, id, norm, trusted)
}

// Instances that import the same file at once must not make anybody twice, and
// must not leave roles of accounts that were not made.
func TestParallelImports(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	const instances, lines = 4, 60
	events, roles := &sink{}, &granter{}
	var mu sync.Mutex
	ids := map[string]map[string]bool{} // by external id
	var wg, met sync.WaitGroup
	met.Add(instances)
	total := 0
	for range instances {
		b := setupOn(t, db, func(c *users.Config) {
			c.Events, c.Roles = events, &meeting{granter: roles, all: &met}
		})
		wg.Go(func() {
			report, err := b.Import(t.Context(), strings.NewReader(many(lines)), users.ImportOptions{OnLine: func(r users.LineResult) {
				mu.Lock()
				defer mu.Unlock()
				if ids[r.ExternalID] == nil {
					ids[r.ExternalID] = map[string]bool{}
				}
				ids[r.ExternalID][r.UserID] = true
			}})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			total += report.Imported
			if report.Imported+report.Existing != lines {
				t.Errorf("an instance dealt with %d imported and %d existing of %d", report.Imported, report.Existing, lines)
			}
		})
	}
	wg.Wait()
	n, err := db.Collection("users").CountDocuments(t.Context(), bson.M{})
	if err != nil || n != lines || total != lines || len(events.of(event.UserImported)) != lines || len(roles.grants) != lines {
		t.Errorf("%d users, %d counted as imported, %d events, %d with roles; want %d: %v", n, total, len(events.of(event.UserImported)), len(roles.grants), lines, err)
	}
	for external, of := range ids {
		if len(of) != 1 || of[""] {
			t.Errorf("the instances say different ids for %s: %v", external, of)
		}
	}
}

// early stores an account before the import does, as a driver does that sends an
// insert again whose answer was lost.
type early struct {
	*granter
	b *bench
}

func (e early) Welcome(ctx context.Context, id, norm string, trusted bool) error {
	_, err := e.b.db.Collection("users").InsertOne(ctx, bson.M{"_id": id, "app": "shop", "email": norm, "email_norm": norm})
	return errors.Join(err, e.granter.Welcome(ctx, id, norm, trusted))
}

// An account whose insert arrived twice is the import's own: it must not lose its
// roles.
func TestImportWhoseInsertArrivesTwice(t *testing.T) {
	t.Parallel()
	events, keeper := &sink{}, &early{granter: &granter{}}
	b := setup(t, func(c *users.Config) { c.Events, c.Roles = events, keeper })
	keeper.b = b
	wantCounts(t, b.imports(t, many(3), users.ImportOptions{}), 3, 3, 0, 0)
	if len(keeper.grants) != 3 || len(events.of(event.UserImported)) != 3 {
		t.Errorf("%d have roles, %d events, want 3", len(keeper.grants), len(events.of(event.UserImported)))
	}
}

func TestImportEndsAndContinues(t *testing.T) {
	t.Parallel()
	b := setup(t)
	file := many(450)
	ctx, cancel := context.WithCancel(t.Context())
	report, err := b.Import(ctx, strings.NewReader(file), users.ImportOptions{OnLine: func(r users.LineResult) {
		if r.Line == 150 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	wantCounts(t, report, 200, 200, 0, 0) // whole batches
	wantCounts(t, b.imports(t, file, users.ImportOptions{StartLine: report.Lines + 1}), 450, 250, 0, 0)

	broken := errors.New("the file cannot be read")
	half := io.MultiReader(strings.NewReader(`{"email":"x@example.com"}`+"\n"+`{"email":"half@exam`), iotest.ErrReader(broken))
	report, err = b.Import(t.Context(), half, users.ImportOptions{})
	if !errors.Is(err, broken) {
		t.Errorf("a reader that fails: %v", err)
	}
	wantCounts(t, report, 1, 1, 0, 0) // not the half line
	roles := &granter{fail: errors.New("no roles today")}
	report, err = b.Import(t.Context(), strings.NewReader(`{"email":"y@example.com"}`), users.ImportOptions{Roles: roles})
	if !errors.Is(err, roles.fail) {
		t.Errorf("roles that cannot be granted: %v", err)
	}
	wantCounts(t, report, 0, 0, 0, 0)
	if _, err := b.GetByEmail(t.Context(), "y@example.com"); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("an account without its roles: %v", err)
	}
}

// Whatever an outage hits, the import says so, continues where it says, and makes
// nobody twice.
func TestImportThroughOutages(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	faults := &storetest.Faults{Counts: func(bson.Raw) bool { return true }}
	b := setupOn(t, storetest.Faulty(t, db, faults))
	file := many(250)
	done := 0
	for _, step := range []storetest.Step{{Command: "find users", Nth: 1}, {Command: "insert users", Nth: 1}, {Command: "insert users", Nth: 2}} {
		for _, fault := range []storetest.Fault{storetest.BeforeTwice, storetest.AfterCommit} {
			if _, err := db.Collection("users").DeleteMany(t.Context(), bson.M{}); err != nil {
				t.Fatal(err)
			}
			faults.Arm(fault, step, nil)
			report, err := b.Import(t.Context(), strings.NewReader(file), users.ImportOptions{})
			_, hits := faults.Disarm()
			if hits == 0 {
				continue
			}
			done++
			if err != nil && !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%v at %v: %v", fault, step, err)
			}
			if err == nil && fault == storetest.BeforeTwice {
				t.Errorf("%v at %v passed in silence", fault, step)
			}
			rest := b.imports(t, file, users.ImportOptions{StartLine: report.Lines + 1})
			if report.Imported+rest.Imported+rest.Existing != 250 || b.count(t) != 250 {
				t.Errorf("%v at %v: %d + %d imported, %d existing, %d users", fault, step, report.Imported, rest.Imported, rest.Existing, b.count(t))
			}
		}
	}
	if done < 5 {
		t.Errorf("only %d faults were met", done)
	}
}

func FuzzImport(f *testing.F) {
	for _, s := range []string{
		`{"email":"a@example.com","profile":{"a":[1,{"b":true}]},"roles":["editor"],"created_at":"2020-05-01T10:00:00Z"}`,
		"{\"email\":\"a@example.com\"}\r\n\n{\"email\":\"A@EXAMPLE.com\"}", `{"email":"a@example.com","password_hash":"` + imported + `"}`, "x\ny\nz", "\x00\n\xff", `{"email":"a@b","email":"c@d"}`,
	} {
		f.Add([]byte(s))
	}
	b := setup(f)
	f.Fuzz(func(t *testing.T, file []byte) {
		lines := 0
		report, err := b.Import(t.Context(), bytes.NewReader(file), users.ImportOptions{DryRun: true, Roles: &granter{}, OnLine: func(r users.LineResult) {
			if r.Line <= lines {
				t.Errorf("line %d after %d", r.Line, lines)
			}
			lines = r.Line
		}})
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Count(file, []byte("\n"))
		if len(file) > 0 && file[len(file)-1] != '\n' {
			want++
		}
		if report.Lines != want || len(report.Errors) != report.Refused {
			t.Errorf("%d of %d lines, %d errors of %d", report.Lines, want, len(report.Errors), report.Refused)
		}
	})
}

func BenchmarkImport(b *testing.B) {
	const lines = 100_000
	file := many(lines)
	for b.Loop() {
		b.StopTimer()
		s := setup(b)
		b.StartTimer()
		report, err := s.Import(b.Context(), strings.NewReader(file), users.ImportOptions{})
		if err != nil || report.Imported != lines {
			b.Fatalf("%+v, %v", report, err)
		}
	}
	b.ReportMetric(float64(lines)*float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}
