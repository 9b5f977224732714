package social

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"time"
)

// flow is what is sealed for the browser between [Set.Begin] and [Set.Finish].
type flow struct {
	// State is the hash of the state: who reads the state somewhere has not got it
	// from here.
	State    []byte `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"`
	Issuer   string `json:"i"`
	Redirect string `json:"r"`
	Next     string `json:"x,omitempty"`
	Data     []byte `json:"d,omitempty"`
	Begun    int64  `json:"b"` // Unix seconds
}

// stateLength is the length of a state: 32 bytes in base64url.
const stateLength = 43

func newState() string {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails: see crypto/rand.Read
	return base64.RawURLEncoding.EncodeToString(raw)
}

func hashState(state string) []byte {
	sum := sha256.Sum256([]byte("mandate/social/state\x00" + state))
	return sum[:]
}

// CookieSuffix returns what names the cookie of the sign-in that a callback belongs
// to, [Flow].ID. It is public and says nothing of the state. It is "" for a query that
// does not have exactly one state.
func CookieSuffix(query url.Values) string {
	states := query["state"]
	if len(states) != 1 || len(states[0]) != stateLength {
		return ""
	}
	return flowID(hashState(states[0]))
}

// flowID tells the sign-ins of one browser apart. What is bound to the state is the
// whole hash.
func flowID(hash []byte) string { return base64.RawURLEncoding.EncodeToString(hash[:8]) }

// onceID is what a state is claimed by.
func onceID(hash []byte) string { return base64.RawURLEncoding.EncodeToString(hash) }

// scope is where flows are sealed for. The key is the app's.
func (p *provider) scope() string { return "social|flow|" + p.Name }

func (p *provider) seal(f *flow) (string, error) {
	var raw bytes.Buffer
	enc := json.NewEncoder(&raw)
	enc.SetEscapeHTML(false) // "&" would be six bytes of a cookie
	if err := enc.Encode(f); err != nil {
		return "", err
	}
	return p.set.config.Keys.Seal(p.scope(), raw.Bytes()), nil
}

// open returns the flow that the callback belongs to and the browser holds.
func (p *provider) open(query url.Values, cookie string, now time.Time) (*flow, error) {
	states := query["state"]
	if len(states) != 1 || len(states[0]) != stateLength {
		return nil, p.flowError(reasonNoState, nil)
	}
	if cookie == "" {
		return nil, p.flowError(reasonNoCookie, nil)
	}
	if len(cookie) > MaxCookie {
		return nil, p.flowError(reasonForeign, errors.New("too long"))
	}
	raw, err := p.set.config.Keys.Open(p.scope(), cookie)
	if err != nil {
		return nil, p.flowError(reasonForeign, err)
	}
	var f flow
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, p.flowError(reasonForeign, err)
	}
	if subtle.ConstantTimeCompare(f.State, hashState(states[0])) != 1 {
		return nil, p.flowError(reasonForeign, errors.New("the state of another sign-in"))
	}
	// Below this line the text was sealed here, for this state.
	if f.Issuer != p.issuer || f.Redirect != p.redirect {
		return nil, p.flowError(reasonForeign, errors.New("begun with another configuration"))
	}
	if !now.Before(f.expires()) {
		return nil, p.flowError(reasonExpired, nil)
	}
	return &f, nil
}

func (f *flow) expires() time.Time { return time.Unix(f.Begun, 0).Add(Lifetime).UTC() }
