package issuers

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

const (
	// maxKeys is how many keys of a set are looked at.
	maxKeys = 128
	// minRSA and maxRSA bound the modulus in bits. Above the upper one a signature
	// costs the verifier too much.
	minRSA, maxRSA = 2048, 4096
)

// fingerprint tells keys apart by id, algorithm and value.
type fingerprint [sha256.Size]byte

// key is a public key with the one algorithm that it is used with (RFC 8725 section
// 3.1).
type key struct {
	id, algorithm string
	method        jwt.SigningMethod
	public        crypto.PublicKey
	print         fingerprint
}

// keySet is what an issuer's keys are at one time. It is immutable.
type keySet struct {
	keys []key
	// Until soft the set is as good as new, until stale it is fresh, and from dead on
	// it verifies nothing.
	soft, stale, dead time.Time
}

// find returns the key that a token of this id and algorithm is signed with. There
// has to be exactly one; "" is the id of a token that names none, and any key may be
// its.
func (s *keySet) find(id, algorithm string) (found *key, unambiguous bool) {
	for i := range s.keys {
		k := &s.keys[i]
		if k.algorithm != algorithm || (id != "" && k.id != id) {
			continue
		}
		if found != nil {
			return nil, false
		}
		found = k
	}
	return found, true
}

func (s *keySet) has(print fingerprint) bool {
	return slices.ContainsFunc(s.keys, func(k key) bool { return k.print == print })
}

// parseKeys reads a JWK Set (RFC 7517 section 5). What is no set is an error; a key
// that is not usable is left out, as section 5 says, and counted. None at all is a
// good answer: the issuer has withdrawn its keys.
func parseKeys(raw []byte, algorithms []string) (keys []key, ignored int, err error) {
	set, err := object(raw)
	if err != nil {
		return nil, 0, fmt.Errorf("JWK Set: %w", err)
	}
	list, ok := set["keys"].([]any)
	if !ok {
		return nil, 0, errors.New(`JWK Set: "keys" is not a list`)
	}
	if len(list) > maxKeys {
		return nil, 0, fmt.Errorf("JWK Set: more than %d keys", maxKeys)
	}
	for _, item := range list {
		members, _ := item.(map[string]any)
		k, err := parseKey(members, algorithms)
		if err != nil {
			ignored++
			continue
		}
		keys = append(keys, *k)
	}
	return keys, ignored, nil
}

// parseKey reads one JWK.
func parseKey(members map[string]any, algorithms []string) (*key, error) {
	public := map[string]any{}
	for name, value := range members {
		switch name {
		case "kty", "crv", "x", "y", "n", "e", "kid", "alg", "use":
			s, ok := value.(string)
			if !ok || s == "" {
				return nil, fmt.Errorf("%q is not a string", name)
			}
			public[name] = s
		case "key_ops":
			if ops, _ := value.([]any); !slices.Contains(ops, any("verify")) {
				return nil, errors.New("not a key to verify with")
			}
		case "d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv":
			// What everybody can fetch is no secret: anybody may have signed with it.
			return nil, errors.New("a private or symmetric key")
		}
	}
	if use, there := public["use"]; there && use != any("sig") {
		return nil, errors.New("not a key for signatures")
	}
	if _, there := public["kid"]; there {
		if _, err := text(public, "kid"); err != nil {
			return nil, err
		}
	}
	// Certificates are left out: nobody asks them here, and their parser is large.
	raw, err := json.Marshal(public)
	if err != nil {
		return nil, err
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil {
		return nil, err
	}
	return newKey(&jwk, algorithms)
}

func newKey(jwk *jose.JSONWebKey, algorithms []string) (*key, error) {
	index := slices.IndexFunc(algorithms, func(name string) bool {
		return fits(jwk.Key, name) && (jwk.Algorithm == "" || jwk.Algorithm == name)
	})
	if index < 0 {
		return nil, errors.New("no accepted algorithm fits the key")
	}
	thumbprint, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, err
	}
	name := algorithms[index]
	return &key{
		id: jwk.KeyID, algorithm: name, method: methods[name], public: jwk.Key,
		print: sha256.Sum256(fmt.Appendf(thumbprint, "%q %q", name, jwk.KeyID)),
	}, nil
}

// fits reports whether the key is one of the algorithm, of its curve and strength.
// That points are on their curve the parser has checked.
func fits(public any, algorithm string) bool {
	switch public := public.(type) {
	case *rsa.PublicKey:
		bits := public.N.BitLen()
		return (algorithm == "RS256" || algorithm == "RS384" || algorithm == "RS512") &&
			bits >= minRSA && bits <= maxRSA && public.N.Bit(0) == 1 && public.E >= 3 && public.E < 1<<31 && public.E%2 == 1
	case *ecdsa.PublicKey:
		return (algorithm == "ES256" && public.Curve == elliptic.P256()) || (algorithm == "ES384" && public.Curve == elliptic.P384())
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	default:
		return false
	}
}
