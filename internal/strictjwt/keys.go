package strictjwt

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

// methods are the algorithms, by name. The keys of every one of them are public:
// where a verifier knows both kinds, a public key can be passed off as a secret.
var methods = map[string]jwt.SigningMethod{
	"RS256": jwt.SigningMethodRS256, "RS384": jwt.SigningMethodRS384, "RS512": jwt.SigningMethodRS512,
	"ES256": jwt.SigningMethodES256, "ES384": jwt.SigningMethodES384, "EdDSA": jwt.SigningMethodEdDSA,
}

// Known reports whether algorithm is one that keys are parsed for: RS256, RS384,
// RS512, ES256, ES384 or EdDSA (RFC 7518 section 3.1, RFC 8037 section 3.1).
func Known(algorithm string) bool { return methods[algorithm] != nil }

// Fingerprint tells keys apart by id, algorithm and value.
type Fingerprint [sha256.Size]byte

// Key is a public key with the one algorithm that it is used with (RFC 8725 section
// 3.1).
type Key struct {
	ID, Algorithm string
	// Issuer is the member "issuer", "" without one. Microsoft says there whose
	// tokens the key may sign.
	Issuer string
	Method jwt.SigningMethod
	Public crypto.PublicKey
	Print  Fingerprint
}

// Find returns the key that a token of this id and algorithm is signed with. There
// has to be exactly one; "" is the id of a token that names none, and any key may be
// its.
func Find(keys []Key, id, algorithm string) (found *Key, unambiguous bool) {
	for i := range keys {
		k := &keys[i]
		if k.Algorithm != algorithm || (id != "" && k.ID != id) {
			continue
		}
		if found != nil {
			return nil, false
		}
		found = k
	}
	return found, true
}

// ParseKeys reads a JWK Set (RFC 7517 section 5) for the algorithms, which have to be
// [Known]. A key without "alg" is for the first one that fits it. What is no set is an error; a key
// that is not usable is left out, as section 5 says, and counted. None at all is a
// good answer: the issuer has withdrawn its keys.
func ParseKeys(raw []byte, algorithms []string) (keys []Key, ignored int, err error) {
	set, err := Object(raw)
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
func parseKey(members map[string]any, algorithms []string) (*Key, error) {
	public, issuer := map[string]any{}, ""
	for name, value := range members {
		switch name {
		case "kty", "crv", "x", "y", "n", "e", "kid", "alg", "use":
			s, ok := value.(string)
			if !ok || s == "" {
				return nil, fmt.Errorf("%q is not a string", name)
			}
			public[name] = s
		case "issuer":
			s, ok := value.(string)
			if !ok || s == "" {
				return nil, errors.New("the issuer is not a string")
			}
			issuer = s
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
		if _, err := Text(public, "kid"); err != nil {
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
	k, err := newKey(&jwk, algorithms)
	if err != nil {
		return nil, err
	}
	k.Issuer = issuer
	return k, nil
}

func newKey(jwk *jose.JSONWebKey, algorithms []string) (*Key, error) {
	index := slices.IndexFunc(algorithms, func(name string) bool {
		return Fits(jwk.Key, name) && (jwk.Algorithm == "" || jwk.Algorithm == name)
	})
	if index < 0 {
		return nil, errors.New("no accepted algorithm fits the key")
	}
	thumbprint, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, err
	}
	name := algorithms[index]
	return &Key{
		ID: jwk.KeyID, Algorithm: name, Method: methods[name], Public: jwk.Key,
		Print: sha256.Sum256(fmt.Appendf(thumbprint, "%q %q", name, jwk.KeyID)),
	}, nil
}

// Fits reports whether the key is one of the algorithm, of its curve and strength.
// That points are on their curve the parser has checked.
func Fits(public any, algorithm string) bool {
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
