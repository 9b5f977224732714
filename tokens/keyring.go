package tokens

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/tokens/keys"
)

// keyring is what tokens are signed and verified with at one time. It is
// immutable; a service changes it whole.
type keyring struct {
	// accepted finds a key by the first segment of the tokens that it signs, byte
	// for byte. There is one spelling of it, so verification compares bytes and
	// parses no header that an attacker wrote: "none", "jku", "crit" and the rest
	// have nowhere to stand, and a key is used with its own algorithm alone.
	accepted map[string]acceptedKey
	signing  *signingKey
}

type acceptedKey struct {
	method jwt.SigningMethod
	key    any
}

type signingKey struct {
	method jwt.SigningMethod
	key    any
	header map[string]any
}

func (k *signingKey) sign(claims jwt.MapClaims) (string, error) {
	token := &jwt.Token{Method: k.method, Header: k.header, Claims: claims}
	return token.SignedString(k.key)
}

// methods are the algorithms, by name.
var methods = map[string]jwt.SigningMethod{
	HS256: jwt.SigningMethodHS256, EdDSA: jwt.SigningMethodEdDSA, ES256: jwt.SigningMethodES256, RS256: jwt.SigningMethodRS256,
}

// UseKeys makes keys the only ones whose tokens are accepted; the first of them
// signs. It is for services with an asymmetric algorithm, which have to be given
// their keys before they can issue anything. Tokens of a key that is not among
// keys are refused from now on, remembered or not.
func (s *Service) UseKeys(list []SigningKey) error {
	ring := &keyring{accepted: make(map[string]acceptedKey, len(list))}
	for i, k := range list {
		if k.Algorithm != s.config.Algorithm || k.Algorithm == HS256 {
			return fmt.Errorf("tokens: key %s is for %s, the service signs with %s", k.ID, k.Algorithm, s.config.Algorithm)
		}
		if err := ring.add(k.ID, k.Algorithm, k.Public); err != nil {
			return err
		}
		if i == 0 && k.Private != nil {
			ring.signWith(k.ID, k.Algorithm, k.Private)
		}
	}
	s.ring.Store(ring)
	return nil
}

// UseDerivedKeys reads the keys of Config.Keys again. It is for services with
// HS256, when keys_epoch has been raised; others it leaves alone.
func (s *Service) UseDerivedKeys() error {
	if s.config.Algorithm != HS256 {
		return nil
	}
	ring := &keyring{accepted: map[string]acceptedKey{}}
	for i, k := range s.config.Keys.All(keys.Access) {
		if err := ring.add(k.ID, HS256, k.Bytes()); err != nil {
			return err
		}
		if i == 0 {
			ring.signWith(k.ID, HS256, k.Bytes())
		}
	}
	s.ring.Store(ring)
	return nil
}

func (r *keyring) add(id, algorithm string, key any) error {
	raw, err := json.Marshal(header(id, algorithm))
	if err != nil {
		return fmt.Errorf("tokens: header: %w", err)
	}
	if key == nil {
		return fmt.Errorf("tokens: key %s has no public part", id)
	}
	r.accepted[base64.RawURLEncoding.EncodeToString(raw)] = acceptedKey{methods[algorithm], key}
	return nil
}

func (r *keyring) signWith(id, algorithm string, key any) {
	r.signing = &signingKey{method: methods[algorithm], key: key, header: header(id, algorithm)}
}

func header(id, algorithm string) map[string]any {
	return map[string]any{"alg": algorithm, "kid": id, "typ": tokenType}
}
