package users

import (
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // in PBKDF2 of hashes that come from elsewhere and are renewed
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
)

var bcryptForm = regexp.MustCompile(`^\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}$`)

func parseBcrypt(stored string) (*foreignHash, error) {
	m := bcryptForm.FindStringSubmatch(stored)
	if m == nil {
		return nil, errHashForm
	}
	if cost, _ := strconv.Atoi(m[1]); cost < bcrypt.MinCost || cost > maxForeignBcrypt {
		return nil, fmt.Errorf("has the bcrypt cost %s, 04 to %d are taken", m[1], maxForeignBcrypt)
	}
	return &foreignHash{whole: 72, blind: true, matches: func(password string) (bool, error) {
		return bcrypt.CompareHashAndPassword([]byte(stored), []byte(password)) == nil, nil
	}}, nil
}

func parseArgon2(stored string) (*foreignHash, error) {
	p, err := pieces(stored, "$", 6)
	if err != nil {
		return nil, err
	}
	derive := argon2.IDKey
	switch {
	case p[2] != "v=19":
		return nil, errors.New("is not of version 19 of argon2")
	case p[1] == "argon2i":
		derive = argon2.Key
	case p[1] != "argon2id":
		return nil, errHashForm
	}
	n, err := params(p[3], "m", "t", "p")
	if err != nil {
		return nil, err
	}
	memory, passes, lanes := n[0], n[1], n[2]
	if err := checkMemory(memory, passes, lanes); err != nil {
		return nil, err
	}
	if memory < 8*lanes {
		return nil, errors.New("has less memory than argon2 asks for (RFC 9106 section 3.1)")
	}
	salt, key, err := saltAndKey(b64, p[4], p[5])
	if err != nil {
		return nil, err
	}
	return &foreignHash{matches: func(password string) (bool, error) {
		//nolint:gosec // all within the bounds that were checked
		got := derive([]byte(password), salt, uint32(passes), uint32(memory), uint8(lanes), uint32(len(key)))
		return subtle.ConstantTimeCompare(got, key) == 1, nil
	}}, nil
}

// checkMemory bounds a hash that fills kib KiB of memory in a number of passes.
func checkMemory(kib, passes, lanes int) error {
	switch {
	case lanes > maxForeignLanes:
		return fmt.Errorf("has a parallelism of %d, at most %d is taken", lanes, maxForeignLanes)
	case kib > maxForeignMemory>>10:
		return fmt.Errorf("takes %d MiB of memory, at most %d are given", kib>>10, maxForeignMemory>>20)
	case passes > maxForeignWork>>10/kib:
		return fmt.Errorf("fills %d KiB of memory %d times, which takes too long", kib, passes)
	}
	return nil
}

func parseScryptPHC(stored string) (*foreignHash, error) {
	p, err := pieces(stored, "$", 5)
	if err != nil {
		return nil, err
	}
	n, err := params(p[2], "ln", "r", "p")
	if err != nil {
		return nil, err
	}
	if n[0] > 30 {
		return nil, fmt.Errorf("takes 2^%d blocks of memory, which is too much", n[0])
	}
	salt, key, err := saltAndKey(b64, p[3], p[4])
	if err != nil {
		return nil, err
	}
	return newScrypt(1<<n[0], n[1], n[2], salt, key)
}

func parseScryptDjango(stored string) (*foreignHash, error) {
	p, err := pieces(stored, "$", 6)
	if err != nil {
		return nil, err
	}
	n, err := numbers(p[1], p[3], p[4])
	if err != nil {
		return nil, err
	}
	key, err := decode(b64p, p[5])
	if err != nil {
		return nil, err
	}
	salt, err := textSalt(p[2])
	if err != nil {
		return nil, err
	}
	return newScrypt(n[0], n[1], n[2], salt, key)
}

func parseScryptWerkzeug(stored string) (*foreignHash, error) {
	p, err := pieces(stored, "$", 3)
	if err != nil {
		return nil, err
	}
	q, err := pieces(p[0], ":", 4)
	if err != nil {
		return nil, err
	}
	n, err := numbers(q[1], q[2], q[3])
	if err != nil {
		return nil, err
	}
	key, err := lowerHex(p[2])
	if err != nil {
		return nil, err
	}
	salt, err := textSalt(p[1])
	if err != nil {
		return nil, err
	}
	return newScrypt(n[0], n[1], n[2], salt, key)
}

func newScrypt(n, r, p int, salt, key []byte) (*foreignHash, error) {
	if n < 2 || n&(n-1) != 0 {
		return nil, errors.New("has a cost of scrypt that is no power of two")
	}
	// Divided, because the products can be beyond an int. Besides its n blocks scrypt
	// keeps one for each lane.
	if p > maxForeignLanes || n > maxForeignMemory/128 || r > maxForeignMemory/128/(n+p) {
		return nil, fmt.Errorf("takes more than the %d MiB of memory and the %d lanes that are given", maxForeignMemory>>20, maxForeignLanes)
	}
	// Each lane writes the memory once and reads it once.
	if err := checkMemory((128*n*r+1023)>>10, 2*p, p); err != nil {
		return nil, err
	}
	if err := checkLengths(salt, key); err != nil {
		return nil, err
	}
	return &foreignHash{blind: true, matches: func(password string) (bool, error) {
		got, err := scrypt.Key([]byte(password), salt, n, r, p, len(key))
		return err == nil && subtle.ConstantTimeCompare(got, key) == 1, err
	}}, nil
}

func parsePBKDF2MCF(stored string) (*foreignHash, error) {
	p, err := pieces(stored, "$", 5)
	if err != nil {
		return nil, err
	}
	name, encoding := strings.TrimPrefix(p[1], "pbkdf2-"), ab64
	if p[1] == "pbkdf2" {
		name = "sha1"
	}
	length := 0
	n := []int{0}
	if strings.Contains(p[2], "=") {
		encoding = b64
		if n, err = params(p[2], "i", "l"); err == nil {
			length = n[1]
		}
	} else {
		n[0], err = number(p[2])
	}
	if err != nil {
		return nil, err
	}
	salt, key, err := saltAndKey(encoding, p[3], p[4])
	if err != nil {
		return nil, err
	}
	if length > 0 && length != len(key) {
		return nil, fmt.Errorf("has a key of %d bytes and says %d", len(key), length)
	}
	return newPBKDF2(name, n[0], salt, key)
}

func parsePBKDF2Django(stored string) (*foreignHash, error) {
	p, err := pieces(stored, "$", 4)
	if err != nil {
		return nil, err
	}
	rounds, err := number(p[1])
	if err != nil {
		return nil, err
	}
	key, err := decode(b64p, p[3])
	if err != nil {
		return nil, err
	}
	salt, err := textSalt(p[2])
	if err != nil {
		return nil, err
	}
	return newPBKDF2(strings.TrimPrefix(p[0], "pbkdf2_"), rounds, salt, key)
}

func parsePBKDF2Werkzeug(stored string) (*foreignHash, error) {
	p, err := pieces(stored, "$", 3)
	if err != nil {
		return nil, err
	}
	q := strings.Split(p[0], ":")
	if len(q) != 3 {
		return nil, errors.New("does not name its digest and its rounds")
	}
	rounds, err := number(q[2])
	if err != nil {
		return nil, err
	}
	key, err := lowerHex(p[2])
	if err != nil {
		return nil, err
	}
	salt, err := textSalt(p[1])
	if err != nil {
		return nil, err
	}
	return newPBKDF2(q[1], rounds, salt, key)
}

func newPBKDF2(digest string, rounds int, salt, key []byte) (*foreignHash, error) {
	digests := map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}
	newHash, known := digests[digest]
	if !known {
		return nil, errors.New("has a digest of PBKDF2 that is not SHA-1, SHA-256 or SHA-512")
	}
	if err := checkLengths(salt, key); err != nil {
		return nil, err
	}
	// Every block of the digest's size costs all the rounds once more.
	size := newHash().Size()
	if blocks := (len(key) + size - 1) / size; rounds > maxForeignRounds/blocks {
		return nil, fmt.Errorf("has %d rounds of PBKDF2 for %d blocks, at most %d in all are taken", rounds, blocks, maxForeignRounds)
	}
	return &foreignHash{blind: true, matches: func(password string) (bool, error) {
		got, err := pbkdf2.Key(newHash, password, salt, rounds, len(key))
		return err == nil && subtle.ConstantTimeCompare(got, key) == 1, err
	}}, nil
}

func numbers(texts ...string) ([]int, error) {
	out := make([]int, len(texts))
	for i, text := range texts {
		var err error
		if out[i], err = number(text); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func lowerHex(text string) ([]byte, error) {
	raw, err := hex.DecodeString(text)
	if err != nil || hex.EncodeToString(raw) != text {
		return nil, errors.New("has a key that is not lower-case hexadecimal")
	}
	return raw, nil
}
