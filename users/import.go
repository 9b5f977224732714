package users

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
)

// Limits of an import.
const (
	// maxLine bounds a line, in bytes without its end.
	maxLine = 64 << 10
	// maxLineErrors bounds [ImportReport.Errors].
	maxLineErrors = 10_000
)

// ImportOptions configures [Store.Import]. The zero value imports everything.
type ImportOptions struct {
	// StartLine is the first line that counts; those before are skipped. Default 1.
	StartLine int
	// DryRun judges every line and changes nothing. It keeps the addresses of the
	// file in memory, to tell which come twice.
	DryRun bool
	// Roles gives the accounts their roles, instead of the [RoleKeeper]. Without it
	// a line that names roles is refused.
	Roles RoleGranter
	// OnLine is called for every line but the empty ones, in their order. Services
	// that have to know which account took the place of which keep it from here.
	OnLine func(LineResult)
}

// RoleGranter gives the accounts of an import their roles.
type RoleGranter interface {
	// CheckRoles says what is wrong with roles that a line names.
	CheckRoles(roles []string) error
	// GrantRoles comes before the accounts are stored, so that nobody is there
	// without roles. It can come again for other ids of the same people.
	GrantRoles(ctx context.Context, grants []Grant) error
	// Forget takes everything from an id that nobody has.
	Forget(ctx context.Context, userID string) error
}

// Grant is what one account of an import gets.
type Grant struct {
	UserID, EmailNorm string
	// Trusted says that the file vouches for the address: roles that the manifest
	// has for it may be granted.
	Trusted bool
	// Roles are those that the line names, besides what every new account gets.
	Roles []string
}

// Outcome is what became of a line.
type Outcome string

// The outcomes.
const (
	Imported Outcome = "imported"
	Existing Outcome = "existing"
	Refused  Outcome = "refused"
)

// LineResult is what became of one line.
type LineResult struct {
	// Line counts from 1.
	Line    int
	Outcome Outcome
	// UserID is the account's: the new one, or the one that was there. It is empty
	// for a refused line, and for a new account in a dry run.
	UserID string
	// Email and ExternalID are those of the line.
	Email, ExternalID string
	// Err says why the line was refused.
	Err *LineError
}

// LineError says why a line was refused. It repeats nothing of the line but the
// names of members.
type LineError struct {
	Line int `json:"line"`
	// Code is one of the codes of lines, or [CodeInvalidField].
	Code string `json:"code"`
	// Field is the member that is wrong, "" for the line as a whole.
	Field string `json:"field,omitempty"`
	// Message says what to do, for people.
	Message string `json:"message"`
}

func (e *LineError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("line %d: %s", e.Line, e.Message)
	}
	return fmt.Sprintf("line %d: %s: %s", e.Line, e.Field, e.Message)
}

// The codes of lines that are refused.
const (
	CodeLineTooLong = "line_too_long"
	CodeInvalidJSON = "invalid_json"
	CodeInvalidHash = "invalid_hash"
)

// ImportReport counts what an import has done.
type ImportReport struct {
	// Lines is the number of the last line that was dealt with. An import that
	// ended early is continued with StartLine one above.
	Lines int `json:"lines"`
	// Imported, Existing and Refused count lines.
	Imported int `json:"imported"`
	Existing int `json:"existing"`
	Refused  int `json:"refused"`
	// Errors are those of the first 10,000 refused lines.
	Errors []*LineError `json:"errors,omitempty"`
}

// Import creates accounts from JSON lines, one object on each of at most 64 KiB:
//
//	{"email": "ada@example.com", "email_verified": true,
//	 "password_hash": "$2b$12$…", "profile": {"name": "Ada"},
//	 "status": "active", "created_at": "2024-05-01T10:00:00Z",
//	 "roles": ["editor"], "external_id": "42"}
//
// Only email is required. Unknown members, members that come twice, and null are
// refused, as is a password_hash that [Hasher.Check] refuses; an account without one
// has no password yet. The hash is renewed at the first sign-in; until then an
// attempt costs what that hash costs, so that accounts with hashes other than bcrypt
// of the app's cost can be told from others by time. email_verified is the service's
// word for the address: it counts as verified, and the roles that the manifest has
// for it are granted. status is "active" or "disabled". external_id is not stored: it
// comes back in [ImportOptions.OnLine]. Ids are never taken from the file.
//
// An address that is there already is left as it is, so the same file can be
// imported again, and by several instances at once: each account is made once. A
// line that is refused stops nothing. Everything else does: the error is the
// reader's, the context's, that of granting roles, or wraps
// [store.ErrUnavailable]; the report says how far it came. The accounts of up to 100
// lines after that may be there as well, without an event or a result: they are
// Existing when the import is continued.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (*ImportReport, error) {
	run := &importRun{store: s, options: o, report: &ImportReport{Lines: max(0, o.StartLine-1)}, seen: map[string]bool{}}
	lines := bufio.NewReaderSize(r, maxLine+2) // with "\r\n"
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return run.report, fmt.Errorf("import users: %w", err)
		}
		raw, err := readLine(lines)
		if errors.Is(err, io.EOF) {
			return run.report, run.flush(ctx)
		}
		if err != nil && !errors.Is(err, errLineTooLong) {
			return run.report, errors.Join(fmt.Errorf("read line %d: %w", n, err), run.flush(ctx))
		}
		if n < o.StartLine {
			continue
		}
		if err := run.add(ctx, run.parse(n, raw, err)); err != nil {
			return run.report, err
		}
	}
}

var errLineTooLong = errors.New("line too long")

// readLine returns the next line without its end. Of a line that is too long
// nothing is kept.
func readLine(r *bufio.Reader) ([]byte, error) {
	raw, err := r.ReadSlice('\n')
	tooLong := false
	for errors.Is(err, bufio.ErrBufferFull) {
		tooLong = true
		_, err = r.ReadSlice('\n')
	}
	switch {
	case tooLong && (err == nil || errors.Is(err, io.EOF)):
		return nil, errLineTooLong
	case errors.Is(err, io.EOF) && len(raw) > 0:
		err = nil // the last line needs no end
	case err != nil:
		return nil, err
	}
	if n := len(raw); n > 0 && raw[n-1] == '\n' {
		raw = raw[:n-1]
	}
	if n := len(raw); n > 0 && raw[n-1] == '\r' {
		raw = raw[:n-1]
	}
	if len(raw) > maxLine {
		return nil, errLineTooLong
	}
	return raw, err
}
