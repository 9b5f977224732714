package localmongo

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
	"github.com/256dpi/lungo/mongokit"
)

// The codes of MongoDB's errors that this package answers with.
const (
	codeInternal            = 1
	codeBadValue            = 2
	codeFailedToParse       = 9
	codeUnauthorized        = 13
	codeTypeMismatch        = 14
	codeInvalidLength       = 16
	codeIllegalOperation    = 20
	codeNamespaceNotFound   = 26
	codeIndexNotFound       = 27
	codeConflictingUpdate   = 40
	codeCursorNotFound      = 43
	codeNamespaceExists     = 48
	codeCommandNotFound     = 59
	codeImmutableField      = 66
	codeCannotCreateIndex   = 67
	codeInvalidOptions      = 72
	codeInvalidNamespace    = 73
	codeIndexOptions        = 85
	codeIndexKeySpecs       = 86
	codeShutdown            = 91
	codeHistoryLost         = 286
	codeDuplicateKey        = 11000
	codeUnknownField        = 40415
	codeUnknownStage        = 40324
	codeBSONObjectTooLarge  = 10334
	codeInvalidResumeToken  = 260
	codeMissingRequiredArgs = 40414
)

var codeNames = map[int32]string{
	codeInternal: "InternalError", codeBadValue: "BadValue", codeFailedToParse: "FailedToParse",
	codeUnauthorized: "Unauthorized", codeTypeMismatch: "TypeMismatch", codeInvalidLength: "InvalidLength",
	codeIllegalOperation: "IllegalOperation", codeNamespaceNotFound: "NamespaceNotFound",
	codeIndexNotFound: "IndexNotFound", codeConflictingUpdate: "ConflictingUpdateOperators",
	codeCursorNotFound: "CursorNotFound", codeNamespaceExists: "NamespaceExists",
	codeCommandNotFound: "CommandNotFound", codeImmutableField: "ImmutableField",
	codeCannotCreateIndex: "CannotCreateIndex", codeInvalidOptions: "InvalidOptions",
	codeInvalidNamespace: "InvalidNamespace", codeIndexOptions: "IndexOptionsConflict",
	codeIndexKeySpecs: "IndexKeySpecsConflict", codeShutdown: "ShutdownInProgress",
	codeHistoryLost: "ChangeStreamHistoryLost", codeDuplicateKey: "DuplicateKey",
	codeUnknownField: "Location40415", codeUnknownStage: "Location40324",
	codeBSONObjectTooLarge: "BSONObjectTooLarge", codeInvalidResumeToken: "InvalidResumeToken",
	codeMissingRequiredArgs: "Location40414",
}

// commandError is an error with MongoDB's code.
type commandError struct {
	code    int32
	message string
	// extra are further members of the answer, such as keyPattern.
	extra bson.D
}

func (e *commandError) Error() string { return e.message }

func failf(code int32, format string, args ...any) error {
	return &commandError{code: code, message: fmt.Sprintf(format, args...)}
}

// asCommandError gives every error a code.
func asCommandError(err error) *commandError {
	var known *commandError
	if errors.As(err, &known) {
		return known
	}
	if errors.Is(err, lungo.ErrEngineClosed) {
		return &commandError{code: codeShutdown, message: "localmongo is shutting down"}
	}
	return &commandError{code: codeBadValue, message: err.Error()}
}

// document is the answer of a command that failed.
func (e *commandError) document() bson.D {
	return append(bson.D{
		{Key: "ok", Value: float64(0)},
		{Key: "errmsg", Value: e.message},
		{Key: "code", Value: e.code},
		{Key: "codeName", Value: codeNames[e.code]},
	}, e.extra...)
}

// writeError is one entry of the writeErrors of an answer that succeeded.
func (e *commandError) writeError(index int) bson.D {
	return append(bson.D{
		{Key: "index", Value: int32(index)}, //nolint:gosec // at most 100,000 writes in a batch
		{Key: "code", Value: e.code},
		{Key: "errmsg", Value: e.message},
	}, e.extra...)
}

var duplicateIndex = regexp.MustCompile(`^duplicate document for index "(.*)"$`)

// storageError gives an error of lungo, which is a plain text, MongoDB's code.
func storageError(err error, t *lungo.Transaction, handle lungo.Handle, doc bsonkit.Doc) error {
	if err == nil {
		return nil
	}
	var known *commandError
	if errors.As(err, &known) {
		return err
	}
	text := err.Error()
	if m := duplicateIndex.FindStringSubmatch(text); m != nil {
		return duplicate(t, handle, m[1], doc)
	}
	switch {
	case strings.Contains(text, "unknown top level operator"), strings.Contains(text, "positional operator"),
		strings.Contains(text, "empty update document"):
		return failf(codeFailedToParse, "%s (not supported by localmongo)", text)
	case strings.Contains(text, "conflicting key"):
		return failf(codeConflictingUpdate, "Updating the path would create a conflict: %s", text)
	case strings.Contains(text, "immutable"), strings.Contains(text, "must match"):
		return failf(codeImmutableField, "Performing an update on the path '_id' would modify the immutable field '_id'")
	case strings.Contains(text, "read only"):
		return failf(codeUnauthorized, "%s", text)
	case strings.Contains(text, "cannot increment"), strings.Contains(text, "expected a number"):
		return failf(codeTypeMismatch, "%s", text)
	default:
		return failf(codeBadValue, "%s", text)
	}
}

// duplicate is the error E11000 with the parts that drivers look at.
func duplicate(t *lungo.Transaction, handle lungo.Handle, index string, doc bsonkit.Doc) error {
	var pattern, value bson.D
	if coll := t.Catalog().Namespaces[handle]; coll != nil {
		if x := coll.Indexes[index]; x != nil {
			pattern = *x.Config().Key
		}
	}
	if doc != nil {
		for _, key := range pattern {
			v := bsonkit.Get(doc, key.Key)
			if v == bsonkit.Missing {
				v = nil
			}
			value = append(value, bson.E{Key: key.Key, Value: v})
		}
	}
	return &commandError{
		code:    codeDuplicateKey,
		message: fmt.Sprintf("E11000 duplicate key error collection: %s index: %s dup key: %v", handle, index, value),
		extra:   bson.D{{Key: "keyPattern", Value: pattern}, {Key: "keyValue", Value: value}},
	}
}

// checkFilter refuses a filter that lungo cannot judge even when no document
// is there to judge it on.
func checkFilter(filter bsonkit.Doc) error {
	if _, err := mongokit.Match(&bson.D{}, filter); err != nil {
		return failf(codeBadValue, "%s (not supported by localmongo)", err)
	}
	return nil
}
