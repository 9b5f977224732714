package social

import (
	"errors"

	"github.com/mandate-auth/mandate/internal/strictjwt"
)

// SubjectAt reads user information as a provider with this path to the subject does.
// valid says whether a configuration takes the path.
func SubjectAt(path string, raw []byte) (subject string, valid bool, err error) {
	names := ClaimMap{Subject: path}
	if err := names.check(); err != nil {
		return "", false, err
	}
	value, err := strictjwt.Value(raw)
	if err != nil {
		return "", true, err
	}
	members, ok := value.(map[string]any)
	if !ok {
		return "", true, errors.New("not an object")
	}
	subject, err = subjectOf(lookup(members, path))
	return subject, true, err
}
