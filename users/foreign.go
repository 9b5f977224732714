package users

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// HashVerifier verifies password hashes of another system, which came in by
// [Store.Import]. It is safe for concurrent use.
type HashVerifier interface {
	// Recognizes reports whether hash is one of those. It only looks at the text.
	Recognizes(hash string) bool
	// Verify reports whether password, as it was typed, is the one that hash was
	// made of. It runs in a slot of the [Hasher] and has to bound what a hash can
	// cost. An error refuses the sign-in.
	Verify(ctx context.Context, hash, password string) (bool, error)
}

// What a foreign hash may cost: a few seconds of a processor at most. A hash beyond a
// bound is refused when it is imported, and when it is verified, whoever has written
// it into the database.
const (
	maxForeignMemory = 256 << 20 // bytes, of argon2 and scrypt
	maxForeignWork   = 2 << 30   // bytes that all passes of argon2 and scrypt go through
	maxForeignLanes  = 16        // p of argon2 and scrypt
	maxForeignRounds = 5_000_000
	maxForeignBcrypt = 15
)

// foreignHash is a hash of another system, taken apart.
type foreignHash struct {
	// matches costs one hash, whatever the password is.
	matches func(password string) (bool, error)
	// whole is how many bytes of a password it tells apart, 0 for all.
	whole int
	// blind says that it does not tell NUL from nothing or a repetition.
	blind bool
}

// verifyForeign is Verify for every hash that is not Mandate's own. The password
// goes in as it was typed: other systems hash those bytes, in whatever Unicode form
// they came, and to try a second form would be a second hash.
func (h *Hasher) verifyForeign(ctx context.Context, stored, password string) (bool, error) {
	for _, v := range h.config.Foreign {
		if v.Recognizes(stored) {
			return v.Verify(ctx, stored, password)
		}
	}
	f, err := parseForeign(stored)
	if err != nil {
		return false, fmt.Errorf("a stored password hash %w", err)
	}
	known := password
	if f.whole > 0 {
		known = password[:min(len(password), f.whole)]
	}
	match, err := f.matches(known)
	if err != nil {
		return false, fmt.Errorf("a stored password hash cannot be computed: %w", err)
	}
	// What the hash cannot know whole does not match, after the same work.
	return match && known == password && utf8.ValidString(password) && (!f.blind || !strings.ContainsRune(password, 0)), nil
}

// Check reports why a stored hash could not be verified: its form is unknown, or
// it would cost too much. nil means that it could. No password is needed, and none
// is computed.
func (h *Hasher) Check(stored string) error {
	if len(stored) > maxStoredHash {
		return fmt.Errorf("has %d bytes, at most %d are taken", len(stored), maxStoredHash)
	}
	if strings.HasPrefix(stored, ownPrefix) {
		_, raw, ok := h.split(stored)
		if !ok {
			return errors.New("has a pepper that is not configured, or too high a cost")
		}
		_, err := parseBcrypt(raw)
		return err
	}
	for _, v := range h.config.Foreign {
		if v.Recognizes(stored) {
			return nil
		}
	}
	_, err := parseForeign(stored)
	return err
}

// parseForeign takes a hash apart. Nothing is guessed: what is not exactly of one
// of the forms, or costs too much, is refused. The error says why, without the
// hash.
//
//	$2a$, $2b$, $2y$                            bcrypt
//	$argon2id$v=19$m=,t=,p=$salt$key            RFC 9106, PHC string format; also argon2i
//	argon2$argon2id$…                           Django
//	$scrypt$ln=,r=,p=$salt$key                  RFC 7914, passlib
//	scrypt:N:r:p$salt$hex                       Werkzeug
//	scrypt$N$salt$r$p$key                       Django
//	$pbkdf2-sha256$rounds$salt$key              RFC 8018, passlib; also $pbkdf2$ (SHA-1), -sha512
//	$pbkdf2-sha512$i=,l=$salt$key               PHC string format; also -sha1, -sha256
//	pbkdf2_sha256$rounds$salt$key               Django; also sha1
//	pbkdf2:sha256:rounds$salt$hex               Werkzeug; also sha1, sha512
func parseForeign(stored string) (*foreignHash, error) {
	if len(stored) > maxStoredHash {
		return nil, errHashForm
	}
	head, _, _ := strings.Cut(strings.TrimPrefix(stored, "$"), "$")
	scheme, _, _ := strings.Cut(head, ":")
	switch mcf := strings.HasPrefix(stored, "$"); {
	case mcf && (head == "2a" || head == "2b" || head == "2y"):
		return parseBcrypt(stored)
	case mcf && (head == "argon2id" || head == "argon2i"):
		return parseArgon2(stored)
	case head == "argon2" && !mcf:
		return parseArgon2(strings.TrimPrefix(stored, "argon2"))
	case head == "scrypt" && mcf:
		return parseScryptPHC(stored)
	case head == "scrypt":
		return parseScryptDjango(stored)
	case scheme == "scrypt":
		return parseScryptWerkzeug(stored)
	case mcf && (head == "pbkdf2" || strings.HasPrefix(head, "pbkdf2-")):
		return parsePBKDF2MCF(stored)
	case strings.HasPrefix(head, "pbkdf2_"):
		return parsePBKDF2Django(stored)
	case scheme == "pbkdf2":
		return parsePBKDF2Werkzeug(stored)
	default:
		return nil, errHashForm
	}
}
