package localmongo

import (
	"errors"
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
)

// The codes of MongoDB's errors that this package answers with.
const (
	codeInternal           = 1
	codeBadValue           = 2
	codeFailedToParse      = 9
	codeUnauthorized       = 13
	codeTypeMismatch       = 14
	codeInvalidLength      = 16
	codeIllegalOperation   = 20
	codeNamespaceNotFound  = 26
	codeIndexNotFound      = 27
	codeConflictingUpdate  = 40
	codeCursorNotFound     = 43
	codeNamespaceExists    = 48
	codeCommandNotFound    = 59
	codeImmutableField     = 66
	codeCannotCreateIndex  = 67
	codeInvalidOptions     = 72
	codeInvalidNamespace   = 73
	codeIndexOptions       = 85
	codeIndexKeySpecs      = 86
	codeShutdown           = 91
	codeHistoryLost        = 286
	codeDuplicateKey       = 11000
	codeUnknownField       = 40415
	codeUnknownStage       = 40324
	codeBSONObjectTooLarge = 10334
	codeOverflow           = 15
	codeInvalidBSON        = 22
	codePathNotViable      = 28
	codeDollarPrefixed     = 52
	codeInvalidIDField     = 53
	codeEmptyFieldName     = 56
	codeCursorKilled       = 237
	codeCursorInUse        = 12051
	codeInvalidResumeToken = 260
	codeMissingRequired    = 40414
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
	codeMissingRequired: "Location40414", codeOverflow: "Overflow", codeInvalidBSON: "InvalidBSON",
	codePathNotViable: "PathNotViable", codeDollarPrefixed: "DollarPrefixedFieldName",
	codeInvalidIDField: "InvalidIdField", codeEmptyFieldName: "EmptyFieldName", codeCursorKilled: "CursorKilled",
	codeCursorInUse: "CursorInUse",
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

// updateError gives an error of lungo, which is a plain text, MongoDB's code.
func updateError(err error) error {
	if err == nil {
		return nil
	}
	var known *commandError
	if errors.As(err, &known) {
		return known
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "conflicting key"):
		return failf(codeConflictingUpdate, "Updating the path would create a conflict: %s", text)
	case strings.Contains(text, "is not a number"):
		return failf(codeTypeMismatch, "%s", text)
	case strings.Contains(text, "cannot put value"):
		return failf(codePathNotViable, "%s", text)
	default:
		return failf(codeBadValue, "%s", text)
	}
}

// duplicate is the error E11000 with the parts that drivers look at.
func duplicate(h lungo.Handle, index string, key bson.D, doc bsonkit.Doc) error {
	var value bson.D
	texts := make([]string, len(key))
	for i, k := range key {
		v := bsonkit.Get(doc, k.Key)
		if v == any(bsonkit.Missing) {
			v = nil
		}
		value = append(value, bson.E{Key: k.Key, Value: v})
		text, err := bson.MarshalExtJSON(bson.D{{Key: "v", Value: v}}, false, false)
		if err != nil || len(text) < 6 {
			text = []byte(`{"v":?}`)
		}
		texts[i] = k.Key + ": " + string(text[len(`{"v":`):len(text)-1])
	}
	return &commandError{
		code:    codeDuplicateKey,
		message: fmt.Sprintf("E11000 duplicate key error collection: %s index: %s dup key: { %s }", h, index, strings.Join(texts, ", ")),
		extra:   bson.D{{Key: "keyPattern", Value: key}, {Key: "keyValue", Value: value}},
	}
}
