package audit

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/base62"
	"github.com/mandate-auth/mandate/internal/store"
)

const (
	// maxText bounds every text of a record, in bytes.
	maxText = 256
	// redacted stands for what looked like a secret.
	redacted = "[redacted]"
)

// clean brings the record into the form that is stored: bounded, readable, without
// secrets. It comes before the queue, so that what waits is bounded as well.
func (r *Record) clean(now time.Time) {
	if r.Time.Year() < 1970 || r.Time.Year() > 9999 {
		r.Time = now // no ULID could say it
	}
	r.Time = store.Time(r.Time)
	r.Type, r.Result = event.Type(text(string(r.Type))), event.Result(text(string(r.Result)))
	r.Path = cleanPath(r.Path)
	for _, s := range []*string{&r.UserID, &r.ClientID, &r.Actor, &r.SessionID, &r.Reason, &r.Method, &r.IP, &r.UserAgent, &r.RequestID} {
		if *s != "" {
			*s = withoutSecrets(text(*s), " ")
		}
	}
	r.Metadata = metadata(r.Metadata)
}

// metadata returns the members that are kept. The map that came is the caller's.
func metadata(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	names := make([]string, 0, len(m))
	for name := range m {
		if event.ValidMetadataName(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = names[:min(len(names), event.MaxMetadata)]
	if len(names) == 0 {
		return nil
	}
	kept := make(map[string]string, len(names))
	for _, name := range names {
		if namesSecret(name) {
			kept[strings.Clone(name)] = redacted
			continue
		}
		kept[strings.Clone(name)] = withoutSecrets(text(m[name]), " ")
	}
	return kept
}

// cleanPath returns a path that is fit to be kept. Queries carry tokens, so whatever may
// be one goes, also where a path itself has an encoded "?".
func cleanPath(s string) string {
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		s = strings.Clone(s[:i])
	}
	return withoutSecrets(text(s), "/")
}

// text returns s as valid UTF-8 of at most maxText bytes, with U+FFFD for what a
// terminal or a reader of lines would obey instead of show. A text that is cut is
// copied: what it was cut from may be a megabyte.
func text(s string) string {
	if len(s) <= maxText && plain(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if obeyed(r) {
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > maxText {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// obeyed reports whether r is a control character, ends a line for some reader, or
// changes the order in which others are shown.
func obeyed(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}

// secretNames are the members that are never kept, whatever they hold.
var secretNames = []string{
	"password", "passwd", "secret", "token", "authorization", "cookie", "api_key", "apikey", "private_key", "credential", "assertion", "otp", "code_verifier",
}

// namesSecret reports whether a member's name, or what it ends in, is that of a
// secret: "new_password" as well as "password".
func namesSecret(name string) bool {
	name = strings.ToLower(name)
	for _, s := range secretNames {
		if name == s || strings.HasSuffix(name, "_"+s) {
			return true
		}
	}
	return false
}

// withoutSecrets replaces the parts of s that have the form of a credential. It is
// a net below callers that pass none, so it knows only forms that nothing else has.
func withoutSecrets(s, separator string) string {
	if !mayHoldSecret(s) {
		return s
	}
	parts := strings.Split(s, separator)
	for i, p := range parts {
		cut := len(s) > maxText-utf8.UTFMax && i == len(parts)-1
		follows := i > 0 && (strings.EqualFold(parts[i-1], "Bearer") || strings.EqualFold(parts[i-1], "Basic"))
		if strings.Contains(p, "mrt1.") || looksLikeJWT(p) || holdsOwnSecret(p, cut) || follows {
			parts[i] = redacted
		}
	}
	return text(strings.Join(parts, separator))
}

// mayHoldSecret is what most texts cost.
func mayHoldSecret(s string) bool {
	if len(s) > clientSecret && strings.IndexByte(s, '_') > 0 {
		return true
	}
	// A dot or a space is in all of the others, and in few other texts.
	if strings.IndexByte(s, '.') < 0 && strings.IndexByte(s, ' ') < 0 {
		return false
	}
	return strings.Contains(s, "eyJ") || strings.Contains(s, "mrt1.") || strings.Contains(s, "earer ") || strings.Contains(s, "asic ")
}

// The lengths of API keys and of clients' secrets behind their prefixes.
const (
	apiKey       = clientSecret + 6
	clientSecret = base62.SecretLength
)

// cutSecret is how much of a secret has to be there when it was cut.
const cutSecret = 20

// holdsOwnSecret recognises an API key, whatever its app calls them, and the secret of
// a client; where the text was cut, also their beginning at its end.
func holdsOwnSecret(s string, cut bool) bool {
	for {
		prefix, rest, found := strings.Cut(s, "_")
		if !found {
			return false
		}
		n := 0
		for n < len(rest) && alphanumeric(rest[n]) {
			n++
		}
		if named := prefix != "" && alphanumeric(prefix[len(prefix)-1]); named && (n == apiKey || n == clientSecret && strings.HasSuffix(prefix, "mcs") || cut && n == len(rest) && n >= cutSecret) {
			return true
		}
		s = rest
	}
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// looksLikeJWT recognises a compact JWS (RFC 7515 section 7.1), also one that was
// cut: its header begins with {" in base64url, and its payload as well.
func looksLikeJWT(s string) bool {
	_, after, ok := strings.Cut(s, "eyJ")
	return ok && strings.Contains(after, ".eyJ")
}
