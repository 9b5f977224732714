package users

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of the salts and keys of foreign hashes, in bytes. A shorter key would
// match too many passwords, whatever it was made by.
const (
	minForeignKey  = 16
	maxForeignKey  = 64
	maxForeignSalt = 128
	// maxStoredHash bounds a stored hash as text.
	maxStoredHash = 512
)

var errHashForm = errors.New("has an unknown form")

// The alphabets of base64 (RFC 4648 section 4). ab64 is that of passlib, with "."
// for "+".
var (
	b64  = base64.RawStdEncoding
	b64p = base64.StdEncoding
	ab64 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./").WithPadding(base64.NoPadding)
)

// decode takes text in the one spelling that encoding gives: no line ends, no
// stray bits.
func decode(encoding *base64.Encoding, text string) ([]byte, error) {
	raw, err := encoding.DecodeString(text)
	if err != nil || encoding.EncodeToString(raw) != text {
		return nil, errors.New("has a salt or a key in another base64 than its form has")
	}
	return raw, nil
}

// saltAndKey decodes both and checks their lengths.
func saltAndKey(encoding *base64.Encoding, saltText, keyText string) (salt, key []byte, err error) {
	if salt, err = decode(encoding, saltText); err != nil {
		return nil, nil, err
	}
	if key, err = decode(encoding, keyText); err != nil {
		return nil, nil, err
	}
	return salt, key, checkLengths(salt, key)
}

func checkLengths(salt, key []byte) error {
	if len(salt) < 1 || len(salt) > maxForeignSalt {
		return fmt.Errorf("has a salt of %d bytes, 1 to %d are taken", len(salt), maxForeignSalt)
	}
	if len(key) < minForeignKey || len(key) > maxForeignKey {
		return fmt.Errorf("has a key of %d bytes, %d to %d are taken", len(key), minForeignKey, maxForeignKey)
	}
	return nil
}

// textSalt takes a salt that is used as it is written, in printable ASCII.
func textSalt(text string) ([]byte, error) {
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' {
			return nil, errors.New("has a salt that is not printable ASCII")
		}
	}
	return []byte(text), nil
}

// params reads "a=1,b=2": exactly these names in this order, as the PHC string
// format writes them.
func params(text string, names ...string) ([]int, error) {
	parts := strings.Split(text, ",")
	if len(parts) != len(names) {
		return nil, fmt.Errorf("must have the parameters %s", strings.Join(names, ", "))
	}
	values := make([]int, len(names))
	for i, name := range names {
		digits, found := strings.CutPrefix(parts[i], name+"=")
		if !found {
			return nil, fmt.Errorf("must have the parameters %s", strings.Join(names, ", "))
		}
		var err error
		if values[i], err = number(digits); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// number reads a positive decimal number without sign or leading zeros, at most
// ten digits long.
func number(digits string) (int, error) {
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || len(digits) > 10 || strconv.Itoa(n) != digits {
		return 0, errors.New("has a parameter that is no positive number")
	}
	return n, nil
}

// pieces cuts text into exactly n parts.
func pieces(text, sep string, n int) ([]string, error) {
	parts := strings.Split(text, sep)
	if len(parts) != n {
		return nil, errHashForm
	}
	return parts, nil
}
