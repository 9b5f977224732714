package apikey

import (
	"crypto/sha256"
	"encoding/base64"
	"hash/crc32"
	"strings"

	"github.com/mandate-auth/mandate/internal/base62"
)

const (
	// checksumLength is how many characters of base62 hold 32 bits: 62^6 > 2^32.
	checksumLength = 6
	bodyLength     = base62.SecretLength + checksumLength
	hintLength     = 4
	maxPrefix      = 16
	maxKey         = maxPrefix + 1 + bodyLength
)

// newKey returns the text of a new key.
func newKey(lead string) string {
	text := lead + base62.NewSecret()
	sum := checksum([]byte(text))
	return text + string(sum[:])
}

// checksum returns the CRC-32 of text in base62.
func checksum(text []byte) (out [checksumLength]byte) {
	sum := crc32.ChecksumIEEE(text)
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = base62.Alphabet[sum%62]
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
