package issuers

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
	keys, ignored, err := parseKeys(raw, algorithms)
	for _, k := range keys {
		if !fits(k.public, k.algorithm) || k.method == nil || k.method.Alg() != k.algorithm {
			panic("a key that does not fit its algorithm")
		}
		accepted = append(accepted, k.algorithm+" "+k.id)
	}
	return accepted, ignored, err
}
