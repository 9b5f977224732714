package social

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/mandate-auth/mandate/internal/localpath"
	"github.com/mandate-auth/mandate/internal/strictjwt"
)

// BeginOptions are those of one sign-in.
type BeginOptions struct {
	// Next is where to go afterwards: a path of this site of at most [MaxNext] bytes,
	// or "". It comes back in [Result].Next.
	Next string
	// Data is what the caller wants back in [Result].Data, at most [MaxData] bytes. The
	// browser keeps it and cannot read it.
	Data []byte
	// LoginHint is the parameter "login_hint": whom the person probably is.
	LoginHint string
	// Prompt is the parameter "prompt" (OpenID Connect Core section 3.1.2.1), in place
	// of that of AuthParams: words of "login", "consent" and "select_account", or
	// "none".
	Prompt string
}

// Flow is a sign-in that has begun.
type Flow struct {
	// URL is where to send the browser (303, never 307).
	URL string
	// ID names the cookie, so that two tabs do not take each other's; see
	// [CookieSuffix].
	ID string
	// Cookie is what the browser has to bring back: at most [MaxCookie] bytes, safe in
	// cookies. It must be HttpOnly, and SameSite=Lax or none: Strict ones do not come
	// back from another site.
	Cookie string
	// ExpiresAt is when the sign-in is too late.
	ExpiresAt time.Time
}

// Begin begins a sign-in with the provider. It may have to wait for the provider's
// discovery document.
//
// The error is [ErrUnknownProvider], [ErrNext], [ErrOptions], or an [*Error] of
// [ErrProvider] or [ErrProviderUnavailable].
func (s *Set) Begin(ctx context.Context, provider string, o BeginOptions) (*Flow, error) {
	p := s.find(provider)
	if p == nil {
		return nil, ErrUnknownProvider
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	m, err := p.metadata.get(ctx, false)
	if err != nil {
		err = p.refuse(reasonDiscovery, err)
		s.report(ctx, p, err)
		return nil, err
	}
	state := newState()
	hash := hashState(state)
	f := &flow{
		State: hash, Nonce: newState(), Verifier: oauth2.GenerateVerifier(), Issuer: p.issuer, Redirect: p.redirect,
		Next: o.Next, Data: o.Data, Begun: s.config.Now().Unix(),
	}
	cookie, err := p.seal(f)
	if err != nil {
		return nil, fmt.Errorf("social: begin: %w", err)
	}
	if len(cookie) > MaxCookie {
		return nil, fmt.Errorf("%w: %w: it and data are too long together", ErrOptions, ErrNext)
	}
	return &Flow{URL: p.address(m, f, state, o), ID: flowID(hash), Cookie: cookie, ExpiresAt: f.expires()}, nil
}

// address returns the authorization request.
func (p *provider) address(m *metadata, f *flow, state string, o BeginOptions) string {
	params := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(f.Verifier)}
	for name, value := range p.AuthParams {
		params = append(params, oauth2.SetAuthURLParam(name, value))
	}
	if p.kind() == KindOIDC {
		params = append(params, oauth2.SetAuthURLParam("nonce", f.Nonce))
	}
	if o.LoginHint != "" {
		params = append(params, oauth2.SetAuthURLParam("login_hint", o.LoginHint))
	}
	if o.Prompt != "" {
		params = append(params, oauth2.SetAuthURLParam("prompt", o.Prompt))
	}
	return p.client(m.authURL, "").AuthCodeURL(state, params...)
}

func (o *BeginOptions) check() error {
	if o.Next != "" && (len(o.Next) > MaxNext || !localpath.Valid(o.Next)) {
		return ErrNext
	}
	if len(o.Data) > MaxData {
		return fmt.Errorf("%w: data of more than %d bytes", ErrOptions, MaxData)
	}
	if o.LoginHint != "" {
		if _, err := strictjwt.Text(map[string]any{"login_hint": o.LoginHint}, "login_hint"); err != nil {
			return fmt.Errorf("%w: login_hint", ErrOptions)
		}
	}
	if o.Prompt == "" || o.Prompt == "none" {
		return nil
	}
	for _, word := range strings.Split(o.Prompt, " ") {
		if !slices.Contains([]string{"login", "consent", "select_account"}, word) {
			return fmt.Errorf("%w: prompt", ErrOptions)
		}
	}
	return nil
}
