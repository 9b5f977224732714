package issuers

import "github.com/mandate-auth/mandate/internal/strictjwt"

// Settle waits for the fetch that runs, if one does.
func (i *Issuer) Settle() {
	i.keys.mu.Lock()
	f := i.keys.flight
	i.keys.mu.Unlock()
	if f != nil {
		<-f.done
	}
}

// Remembered counts the tokens that are remembered.
func (i *Issuer) Remembered() int { return i.cache.Len() }

// ParseKeys reads a JWK Set as a fetch does, and returns the algorithm and bits of
// what it would verify with.
func ParseKeys(raw []byte, algorithms []string) (accepted []string, ignored int, err error) {
	keys, ignored, err := strictjwt.ParseKeys(raw, algorithms)
	for _, k := range keys {
		if !strictjwt.Fits(k.Public, k.Algorithm) || k.Method == nil || k.Method.Alg() != k.Algorithm {
			panic("a key that does not fit its algorithm")
		}
		accepted = append(accepted, k.Algorithm+" "+k.ID)
	}
	return accepted, ignored, err
}
