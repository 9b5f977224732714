package apikey

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"hash/crc32"
	"math/big"
	"strings"
)

const (
	// secretLength is how many characters of base62 hold 256 bits: 62^43 > 2^256.
	secretLength = 43
	// checksumLength is how many hold 32: 62^6 > 2^32.
	checksumLength = 6
	bodyLength     = secretLength + checksumLength
	hintLength     = 4
	maxPrefix      = 16
	maxKey         = maxPrefix + 1 + bodyLength
	// alphabet is that of [big.Int.Text] in base 62.
	alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// newKey returns the text of a new key.
func newKey(lead string) string {
	var raw [32]byte
	// crypto/rand.Read never fails: it ends the process where there is no
	// randomness.
	_, _ = rand.Read(raw[:])
	digits := new(big.Int).SetBytes(raw[:]).Text(62)
	text := lead + strings.Repeat("0", secretLength-len(digits)) + digits
	sum := checksum([]byte(text))
	return text + string(sum[:])
}

// checksum returns the CRC-32 of text in base62.
func checksum(text []byte) (out [checksumLength]byte) {
	sum := crc32.ChecksumIEEE(text)
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = alphabet[sum%62]
		sum /= 62
	}
	return out
}

// wellFormed reports whether text has the form of a key that begins with lead, its
// checksum included. A text that passes may still be one that nobody made.
func wellFormed(lead, text string) bool {
	if len(text) != len(lead)+bodyLength || len(text) > maxKey || !strings.HasPrefix(text, lead) {
		return false
	}
	for i := len(lead); i < len(text); i++ {
		if c := text[i]; (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	var buf [maxKey]byte
	n := copy(buf[:], text) - checksumLength
	sum := checksum(buf[:n])
	return string(sum[:]) == text[n:]
}

// digest is what a key is known by.
type digest [sha256.Size]byte

func digestOf(text string) digest {
	var buf [maxKey]byte
	n := copy(buf[:], text)
	return sha256.Sum256(buf[:n])
}

// stored is the digest as it is stored.
func (d digest) stored() string { return base64.RawURLEncoding.EncodeToString(d[:]) }

func validPrefix(prefix string) bool {
	if len(prefix) < 2 || len(prefix) > maxPrefix || prefix[0] < 'a' || prefix[0] > 'z' {
		return false
	}
	return strings.Trim(prefix, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}
