package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/strictjson"
)

const (
	// maxBody is the greatest body in bytes.
	maxBody = 64 << 10
	// maxNesting bounds the nesting of a body.
	maxNesting = 16
)

// fields names the members of a body and where they go. A nested fields is an
// object with members of its own.
type fields map[string]any

// buffer reads the body of a request that may have one.
func buffer(w http.ResponseWriter, r *http.Request) error {
	if safeMethod(r.Method) || r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return refuse(CodeTooLarge)
		}
		return refuse(CodeInvalidRequest)
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	return nil
}

// decode reads the body into the fields. JSON is taken strictly: exact names,
// none unknown, none twice, no null, nothing after the end. An empty body is an
// object without members.
func decode(w http.ResponseWriter, r *http.Request, into fields) error {
	raw, err := io.ReadAll(r.Body) // as buffer has bounded it
	if err != nil {
		return refuse(CodeInvalidRequest)
	}
	if len(raw) == 0 {
		return nil
	}
	if !isJSON(r.Header.Get("Content-Type")) {
		return refuse(CodeUnsupportedMedia)
	}
	return parseBody(raw, into)
}

func parseBody(raw []byte, into fields) error {
	if err := strictjson.Check(raw, maxNesting); err != nil {
		bad := refuse(CodeInvalidJSON)
		bad.Detail = "The body " + err.Error() + "."
		return bad
	}
	return assign(raw, into)
}

// isJSON reports whether the content type is JSON in UTF-8.
func isJSON(contentType string) bool {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || media != "application/json" {
		return false
	}
	for name, value := range params {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return false
		}
	}
	return true
}

// assign puts the members of raw where they go. Everything that is wrong with
// them is reported at once, in the order of the paths.
func assign(raw json.RawMessage, into fields) error {
	var wrong []FieldProblem
	collect("", raw, into, func(path, message string) {
		// A name that the client made up is shown, and not at any length.
		wrong = append(wrong, FieldProblem{Path: clip(path, maxEcho), Message: message})
	})
	if len(wrong) == 0 {
		return nil
	}
	return invalidFields(wrong)
}

// invalidFields is the refusal of a body with these faults.
func invalidFields(wrong []FieldProblem) *Problem {
	slices.SortFunc(wrong, func(a, b FieldProblem) int { return strings.Compare(a.Path, b.Path) })
	p := refuse(CodeInvalidRequest)
	p.Errors = wrong[:min(len(wrong), maxProblems)]
	return p
}

// collectChecked puts the members of raw where they go and returns what is wrong with
// them; where nothing is, what check finds.
func collectChecked(prefix string, raw json.RawMessage, into fields, check func() error) (wrong []FieldProblem) {
	fault := func(path, message string) {
		wrong = append(wrong, FieldProblem{Path: clip(path, maxEcho), Message: message})
	}
	collect(prefix, raw, into, fault)
	var value *authz.ValueError
	if len(wrong) == 0 && errors.As(check(), &value) {
		fault(prefix+value.Field, value.Message)
	}
	return wrong
}

const (
	// maxProblems bounds what an answer says about a request.
	maxProblems = 20
	// maxEcho bounds, in bytes, what an answer repeats of a name.
	maxEcho = 100
)

func collect(prefix string, raw json.RawMessage, into fields, fault func(path, message string)) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		fault(strings.TrimSuffix(prefix, "."), "must be an object")
		return
	}
	for name, value := range members {
		path := prefix + name
		target, known := into[name]
		nested, isObject := target.(fields)
		switch {
		case !known:
			fault(path, "is not a member that this route knows")
		case string(value) == "null":
			fault(path, "must not be null; leave it out")
		case isObject:
			collect(path+".", value, nested, fault)
		case json.Unmarshal(value, target) != nil:
			fault(path, "must be a "+typeName(target))
		case !strictjson.Exact(value):
			fault(path, "holds a whole number that would be rounded, beyond 2^53; write it as a string")
		}
	}
}

func typeName(target any) string {
	switch target.(type) {
	case *string:
		return "string"
	case *bool:
		return "boolean"
	case *int64:
		return "whole number"
	case *[]json.RawMessage:
		return "list"
	case *[]string:
		return "list of strings"
	default:
		return "JSON object"
	}
}

// required refuses a member that was left out.
func required(path, value string) error {
	if value == "" {
		return invalidRequest(path, "is required")
	}
	return nil
}
