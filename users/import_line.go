package users

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/strictjson"
)

// Limits of a line of an import.
const (
	// maxLineDepth is the depth of a profile in its line.
	maxLineDepth  = profileDepth + 2
	maxLineRoles  = 32
	maxExternalID = 256
)

// lineFields are the members of a line.
type lineFields struct {
	email, passwordHash, status, externalID string
	verified                                bool
	profile                                 map[string]any
	createdAt                               *time.Time
	roles                                   []string
}

// parse takes line n apart. tooLong is not nil for a line that was not kept.
func (run *importRun) parse(n int, raw []byte, tooLong error) *importLine {
	x := &importLine{LineResult: LineResult{Line: n}}
	refuse := func(code, field, message string) *importLine {
		x.Outcome, x.user = Refused, nil
		x.Err = &LineError{Line: n, Code: code, Field: field, Message: message}
		return x
	}
	if tooLong != nil {
		return refuse(CodeLineTooLong, "", "has more than 64 KiB")
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		x.empty = true
		return x
	}
	members, err := strictjson.Object(raw, maxLineDepth)
	if err != nil {
		return refuse(CodeInvalidJSON, "", err.Error())
	}
	f := lineFields{status: string(Active)}
	if err = f.read(members); err == nil {
		x.Email, x.ExternalID, x.roles = f.email, f.externalID, f.roles
		x.user, err = run.record(&f, members["password_hash"] != nil)
	}
	var field *FieldError
	switch {
	case errors.As(err, &field):
		return refuse(field.Code, field.Field, field.Message)
	case err != nil:
		return refuse(CodeInvalidField, "", err.Error())
	}
	return x
}

// read puts the members where they go. The error is a [FieldError].
func (f *lineFields) read(members map[string]json.RawMessage) error {
	targets := map[string]struct {
		into any
		kind string
	}{
		"email": {&f.email, "a string"}, "email_verified": {&f.verified, "true or false"}, "password_hash": {&f.passwordHash, "a string"},
		"profile": {&f.profile, "an object"}, "status": {&f.status, "a string"}, "created_at": {&f.createdAt, "a time as in RFC 3339"},
		"roles": {&f.roles, "a list of strings"}, "external_id": {&f.externalID, "a string"},
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		target, known := targets[name]
		switch value := members[name]; {
		case !known:
			return invalid(firstRunes(name, maxEchoed), "is not a member of a line")
		case string(value) == "null":
			return invalid(name, "must not be null; leave it out")
		case json.Unmarshal(value, target.into) != nil:
			return invalid(name, "must be %s", target.kind)
		case name == "profile" && !strictjson.Exact(value):
			return invalid(name, "holds a whole number that would be rounded, beyond 2^53; write it as a string")
		}
	}
	return nil
}

// maxEchoed bounds, in code points, what an error repeats of a name.
const maxEchoed = 64

// record makes the account of a line. The error is a [FieldError].
func (run *importRun) record(f *lineFields, hashed bool) (*record, error) {
	norm, err := NormalizeEmail(f.email)
	if err != nil {
		return nil, err
	}
	if err := checkProfile(f.profile); err != nil {
		return nil, err
	}
	r := run.store.newRecord(authz.KindHuman)
	r.Email, r.EmailNorm, r.EmailVerified, r.Profile = f.email, norm, f.verified, f.profile
	if hashed {
		if err := run.store.config.Hasher.Check(f.passwordHash); err != nil {
			return nil, &FieldError{Field: "password_hash", Code: CodeInvalidHash, Message: err.Error()}
		}
		r.PasswordHash = f.passwordHash
	}
	if r.Status = Status(f.status); r.Status != Active && r.Status != Disabled {
		return nil, invalid("status", `must be "active" or "disabled"`)
	}
	if f.createdAt != nil {
		if f.createdAt.After(r.CreatedAt) || f.createdAt.Unix() < 0 {
			return nil, invalid("created_at", "must be after 1970 and not in the future")
		}
		r.CreatedAt = store.Time(*f.createdAt)
	}
	if len(f.externalID) > maxExternalID {
		return nil, invalid("external_id", "must have at most %d bytes", maxExternalID)
	}
	return r, run.checkRoles(f.roles)
}

func (run *importRun) checkRoles(roles []string) error {
	switch {
	case len(roles) == 0:
		return nil
	case len(roles) > maxLineRoles:
		return invalid("roles", "must be at most %d", maxLineRoles)
	case slices.Contains(roles, ""):
		return invalid("roles", "must not be empty or null")
	case run.options.Roles == nil:
		return invalid("roles", "are not given here: this import has no one who grants them")
	}
	if err := run.options.Roles.CheckRoles(roles); err != nil {
		return invalid("roles", "%v", err)
	}
	return nil
}
