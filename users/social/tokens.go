package social

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/mandate-auth/mandate/tokens/secret"
)

// storedTokens are [Tokens] as text. They have to be sealed before they are stored.
type storedTokens struct {
	AccessToken  string    `json:"access_token"`
	RefreshToken string    `json:"refresh_token,omitempty"`
	IDToken      string    `json:"id_token,omitempty"`
	Expiry       time.Time `json:"expiry,omitzero"`
	Scopes       []string  `json:"scopes,omitempty"`
}

// MarshalTokens returns the tokens as text, to be sealed, and nothing for nil.
func MarshalTokens(t *Tokens) ([]byte, error) {
	if t == nil {
		return nil, nil
	}
	return json.Marshal(storedTokens{
		AccessToken: string(t.AccessToken.Reveal()), RefreshToken: string(t.RefreshToken.Reveal()), IDToken: string(t.IDToken.Reveal()),
		Expiry: t.Expiry, Scopes: t.Scopes,
	})
}

// ParseTokens returns what [MarshalTokens] was given.
func ParseTokens(raw []byte) (*Tokens, error) {
	var s storedTokens
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("social: the tokens of a provider: %w", err)
	}
	return &Tokens{
		AccessToken: secret.FromString(s.AccessToken), RefreshToken: secret.FromString(s.RefreshToken), IDToken: secret.FromString(s.IDToken),
		Expiry: s.Expiry, Scopes: s.Scopes,
	}, nil
}
