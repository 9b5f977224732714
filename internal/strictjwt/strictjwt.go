// Package strictjwt reads what other issuers wrote: JSON, JWTs (RFC 7519) in the
// compact form and JWK Sets (RFC 7517). It reads strictly, so that nothing has two
// meanings or two spellings: exact names, no name twice, UTF-8 only, one base64url
// for one value, no header member that says where a key is to be found.
//
// It does not verify: who calls it decides what is accepted.
package strictjwt

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/mandate-auth/mandate/internal/strictjson"
)

// Segments are the three parts of a token, decoded, and what is signed of it.
type Segments struct {
	Header, Payload, Signature []byte
	Signed                     string
}

// Split takes a token of at most limit bytes apart. It looks at the length and the
// form before it decodes anything, so that a long text costs nothing.
func Split(token string, limit int) (s Segments, err error) {
	if len(token) > limit {
		return s, fmt.Errorf("longer than %d bytes", limit)
	}
	header, rest, _ := strings.Cut(token, ".")
	payload, signature, found := strings.Cut(rest, ".")
	if !found || header == "" || payload == "" || signature == "" || strings.Contains(signature, ".") {
		return s, errors.New("not three segments")
	}
	s.Signed = token[:len(header)+1+len(payload)]
	for _, part := range []struct {
		text string
		into *[]byte
	}{{header, &s.Header}, {payload, &s.Payload}, {signature, &s.Signature}} {
		if *part.into, err = DecodeSegment(part.text); err != nil {
			return Segments{}, err
		}
	}
	return s, nil
}

// encoding is strict: no padding, no stray bits at the end.
var encoding = base64.RawURLEncoding.Strict()

// DecodeSegment decodes one segment. The decoder skips line breaks, so that one
// token would have several spellings; they are refused before it.
func DecodeSegment(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("line break")
	}
	raw, err := encoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	return raw, nil
}

// maxDepth is how deep objects and lists may be nested.
const maxDepth = 32

// Object reads raw as one JSON object and nothing else, numbers as float64. See
// [strictjson.Value] for what is refused.
func Object(raw []byte) (map[string]any, error) {
	value, err := strictjson.Value(raw, maxDepth, false)
	if err != nil {
		return nil, err
	}
	members, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("is not an object")
	}
	return members, nil
}

// Value reads raw as one JSON value, as strictly as [Object], but numbers as
// json.Number.
func Value(raw []byte) (any, error) { return strictjson.Value(raw, maxDepth, true) }

// MaxText is the greatest length of a text that names something, in bytes.
const MaxText = 255

// Text returns a member that names something: a string of 1 to 255 bytes without
// control characters. U+FFFD is what the decoder makes of half a surrogate pair, so
// that two different names would become one; it is refused.
func Text(members map[string]any, name string) (string, error) {
	s, ok := members[name].(string)
	if !ok || s == "" || len(s) > MaxText {
		return "", fmt.Errorf("%q is not a string of 1 to %d bytes", name, MaxText)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || (r >= 0x7f && r < 0xa0) || r == utf8.RuneError }) {
		return "", fmt.Errorf("%q has a character that names do not have", name)
	}
	return s, nil
}
