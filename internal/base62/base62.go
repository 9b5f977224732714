// Package base62 makes secrets of letters and digits: they need no encoding in a
// header, a URL or a form, and a double click selects them whole.
package base62

import (
	"crypto/rand"
	"math/big"
	"strings"
)

const (
	// Alphabet is that of [big.Int.Text] in base 62.
	Alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	// SecretLength is how many characters hold 256 bits: 62^43 > 2^256.
	SecretLength = 43
)

// NewSecret returns 256 random bits.
func NewSecret() string {
	var raw [32]byte
	// crypto/rand.Read never fails: it ends the process where there is no
	// randomness.
	_, _ = rand.Read(raw[:])
	return Secret(raw[:])
}

// Secret is [NewSecret] of 32 bytes that the caller has.
func Secret(raw []byte) string {
	digits := new(big.Int).SetBytes(raw).Text(len(Alphabet))
	return strings.Repeat("0", SecretLength-len(digits)) + digits
}
