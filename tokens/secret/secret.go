// Package secret holds values that must not be printed by accident.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// redacted is all that any encoder or verb shows of a [Value].
const redacted = "[redacted]"

// Value is a secret. The bytes live in a closure, so that no formatting verb,
// encoder, logger or reflection finds them; [Value.Reveal] is the only way to
// them. The zero value holds nothing. A Value is immutable and safe for
// concurrent use.
type Value struct {
	reveal func() []byte
}

// New returns a secret that holds a copy of b.
func New(b []byte) Value {
	kept := append([]byte(nil), b...)
	return Value{reveal: func() []byte { return kept }}
}

// FromString returns a secret that holds the bytes of s.
func FromString(s string) Value { return New([]byte(s)) }

// Random returns a secret of n random bytes.
func Random(n int) Value {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: see crypto/rand.Read
	return New(b)
}

// Reveal returns a copy of the bytes.
func (v Value) Reveal() []byte {
	if v.reveal == nil {
		return nil
	}
	return append([]byte(nil), v.reveal()...)
}

// Len returns the number of bytes.
func (v Value) Len() int {
	if v.reveal == nil {
		return 0
	}
	return len(v.reveal())
}

// IsZero reports whether v holds nothing.
func (v Value) IsZero() bool { return v.Len() == 0 }

// Equal reports whether the two hold the same bytes, in time that depends on
// their lengths only.
func (v Value) Equal(other Value) bool {
	return subtle.ConstantTimeCompare(v.Reveal(), other.Reveal()) == 1
}

// String returns "[redacted]".
func (v Value) String() string { return redacted }

// GoString returns "[redacted]".
func (v Value) GoString() string { return redacted }

// Format writes "[redacted]" for every verb.
func (v Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns "[redacted]".
func (v Value) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]". It serves encoding/json, XML and YAML.
func (v Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalBSON returns an empty document: a secret is never stored as it is.
func (v Value) MarshalBSON() ([]byte, error) { return []byte{5, 0, 0, 0, 0}, nil }

// GobEncode refuses.
func (v Value) GobEncode() ([]byte, error) {
	return nil, fmt.Errorf("a secret cannot be encoded")
}
