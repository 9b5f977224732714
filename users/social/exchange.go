package social

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/mandate-auth/mandate/tokens/secret"
)

// granted is a successful answer of a token endpoint.
type granted struct {
	access, refresh, idToken string
	expiry                   time.Time
	scopes                   []string
}

func (g *granted) tokens() *Tokens {
	t := &Tokens{AccessToken: secret.FromString(g.access), Expiry: g.expiry, Scopes: g.scopes}
	if g.refresh != "" {
		t.RefreshToken = secret.FromString(g.refresh)
	}
	if g.idToken != "" {
		t.IDToken = secret.FromString(g.idToken)
	}
	return t
}

// maxToken bounds each token in bytes: an ID token with 200 groups of Microsoft's has
// some 12 KiB.
const maxToken = 16 << 10

// exchange gives the code for tokens (RFC 6749 section 4.1.3).
func (p *provider) exchange(ctx context.Context, m *metadata, code, verifier string) (*granted, error) {
	client := p.client(m.authURL, m.tokenURL)
	client.ClientSecret = string(p.ClientSecret.Reveal())
	now := p.set.config.Now()
	token, err := client.Exchange(context.WithValue(ctx, oauth2.HTTPClient, p.set.client), code, oauth2.VerifierOption(verifier))
	if err != nil {
		var answer *oauth2.RetrieveError
		if errors.As(err, &answer) {
			// Its own text quotes the whole answer.
			return nil, p.refuse(reasonTokenRefused, fmt.Errorf("%s: status %d, error %.40q", m.tokenURL, answer.Response.StatusCode, answer.ErrorCode))
		}
		return nil, p.refuse(reasonToken, noAnswer(ctx, err))
	}
	g, err := p.readToken(token, now)
	if err != nil {
		return nil, p.refuse(reasonToken, err)
	}
	return g, nil
}

// readToken reads the answer (RFC 6749 section 5.1) by the exact names of its members;
// the library takes "ACCESS_TOKEN" as well.
func (p *provider) readToken(token *oauth2.Token, now time.Time) (*granted, error) {
	g := &granted{}
	kind := ""
	for name, into := range map[string]*string{
		"access_token": &g.access, "token_type": &kind, "refresh_token": &g.refresh, "id_token": &g.idToken,
	} {
		value := token.Extra(name)
		if value == nil {
			continue
		}
		text, ok := value.(string)
		if !ok || len(text) > maxToken || strings.ContainsFunc(text, func(r rune) bool { return r < '!' || r > '~' }) {
			return nil, fmt.Errorf("%q is not a token", name)
		}
		*into = text
	}
	switch {
	case g.access == "":
		return nil, errors.New("no access token")
	case !strings.EqualFold(kind, "bearer"):
		return nil, errors.New("the type of the token is not Bearer")
	case g.idToken == "" && p.kind() == KindOIDC:
		return nil, errors.New("no ID token")
	}
	if seconds, ok := token.Extra("expires_in").(float64); ok && seconds > 0 && seconds < 1<<31 {
		g.expiry = now.Add(time.Duration(seconds) * time.Second)
	}
	g.scopes = slices.Clone(p.Scopes)
	if text, ok := token.Extra("scope").(string); ok {
		if len(text) > maxToken {
			return nil, errors.New("the scope is too long")
		}
		// GitHub separates them by commas.
		g.scopes = strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || (r == ',' && p.Preset == presetGitHub) })
	}
	return g, nil
}
