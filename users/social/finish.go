package social

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// Result is a sign-in that has succeeded at the provider.
type Result struct {
	// Info says who it is.
	Info UserInfo
	// Provider is the provider's name.
	Provider string
	// Issuer is who vouches for Info.Subject, and within which it is unique: "iss" of
	// the ID token; with OAuth 2.0 the configured issuer, or else scheme and host of
	// AuthURL. One provider can have many: each tenant of Microsoft is one.
	Issuer string
	// Next and Data are those of [BeginOptions].
	Next string
	Data []byte
	// Tokens are the provider's tokens, nil without ProviderConfig.KeepTokens.
	Tokens *Tokens
}

// Tokens are what a provider issued. They are secrets of the person, and Mandate
// stores them nowhere.
type Tokens struct {
	// AccessToken calls the provider's API. RefreshToken and IDToken may be zero.
	AccessToken, RefreshToken, IDToken secret.Value
	// Expiry is when the access token ends, zero if the provider does not say.
	Expiry time.Time
	// Scopes are those that were granted.
	Scopes []string
}

// Finish ends a sign-in: query is that of the callback, cookie what [Set.Begin] gave
// the browser. It takes up to four calls of the provider, one after the other, each
// bounded in time by Config.Client; ctx bounds them all.
//
// Whatever is wrong with it, a callback whose state is the browser's own is used up. The
// error is [ErrUnknownProvider], [ErrReplayed], a [*DeniedError], an [*Error] of
// [ErrFlow], [ErrProvider] or [ErrProviderUnavailable], or wraps what Config.Once said.
// Nothing comes with any of them.
func (s *Set) Finish(ctx context.Context, provider string, query url.Values, cookie string) (*Result, error) {
	p := s.find(provider)
	if p == nil {
		return nil, ErrUnknownProvider
	}
	result, err := p.finish(ctx, query, cookie)
	if err != nil {
		s.report(ctx, p, err)
		return nil, err
	}
	return result, nil
}

func (p *provider) finish(ctx context.Context, query url.Values, cookie string) (*Result, error) {
	now := p.set.config.Now()
	f, err := p.open(query, cookie, now)
	if err != nil {
		return nil, err
	}
	if err := p.set.config.Once.Claim(ctx, Purpose, onceID(f.State), f.expires()); err != nil {
		if errors.Is(err, ErrReplayed) {
			return nil, ErrReplayed
		}
		return nil, &onceError{err}
	}
	m, err := p.metadata.get(ctx, false)
	if err != nil {
		return nil, p.refuse(reasonDiscovery, err)
	}
	code, err := p.readCallback(m, query)
	if err != nil {
		return nil, err
	}
	granted, err := p.exchange(ctx, m, code, f.Verifier)
	if err != nil {
		return nil, err
	}
	result := &Result{Provider: p.Name, Next: f.Next, Data: f.Data}
	if p.KeepTokens {
		result.Tokens = granted.tokens()
	}
	if p.kind() == KindOAuth2 {
		result.Issuer = p.issuer
		result.Info, err = p.plainUser(ctx, granted.access)
	} else {
		result.Issuer, result.Info, err = p.oidcUser(ctx, m, f, granted)
	}
	if err != nil {
		return nil, err
	}
	// The provider says so in its answer to the callback; the redirect has only passed
	// it on. A parameter that fits a template need not fit the token.
	if iss := query.Get("iss"); iss != "" && p.kind() == KindOIDC && iss != result.Issuer {
		return nil, &Error{Provider: p.Name, Reason: reasonIssuer, kind: ErrProvider}
	}
	return result, nil
}

// maxCode bounds an authorization code in bytes.
const maxCode = 4096

// readCallback returns the authorization code (RFC 6749 section 4.1.2, RFC 9207
// section 2).
func (p *provider) readCallback(m *metadata, query url.Values) (string, error) {
	for _, values := range query {
		if len(values) != 1 {
			return "", p.refuse(reasonCallback, errors.New("a parameter is given twice"))
		}
	}
	if !p.acceptsIss(m, query) {
		return "", p.refuse(reasonIssuer, nil)
	}
	code, hasCode := query.Get("code"), query.Has("code")
	if query.Has("error") {
		if hasCode {
			return "", p.refuse(reasonCallback, errors.New("an error and a code"))
		}
		return "", p.denied(query.Get("error"))
	}
	// An ID token or access token here would have passed the browser: nobody asked for
	// one.
	if query.Has("id_token") || query.Has("access_token") || query.Has("response") {
		return "", p.refuse(reasonCallback, errors.New("a token in the callback"))
	}
	if code == "" {
		return "", p.refuse(reasonNoCode, nil)
	}
	if len(code) > maxCode || strings.ContainsFunc(code, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", p.refuse(reasonCallback, errors.New("a code that is none"))
	}
	return code, nil
}

// acceptsIss reports whether "iss" of RFC 9207 is that of the provider. Without an
// issuer to compare with it is not looked at: the provider has a redirect URI of its
// own, which is the other defence of RFC 9700 section 4.4.2.
func (p *provider) acceptsIss(m *metadata, query url.Values) bool {
	if !query.Has("iss") {
		return !m.issRequired
	}
	iss := query.Get("iss")
	if before, after, template := strings.Cut(m.issuer, anyTenant); template {
		tenant, ok := strings.CutPrefix(iss, before)
		tenant, end := strings.CutSuffix(tenant, after)
		return ok && end && guid.MatchString(tenant)
	}
	return m.issuer == "" || iss == m.issuer
}

// onceError is a state of which nobody knows whether it was used.
type onceError struct{ cause error }

func (e *onceError) Error() string { return "social: claim the state: " + e.cause.Error() }
func (e *onceError) Unwrap() error { return e.cause }

// report records a sign-in that was refused, or could not begin.
func (s *Set) report(ctx context.Context, p *provider, err error) {
	reason, cause := reasonOnce, err
	var refused *Error
	var denied *DeniedError
	metadata := map[string]string{"provider": p.Name}
	switch {
	case errors.As(err, &refused):
		reason, cause = refused.Reason, refused.cause
	case errors.As(err, &denied):
		reason, cause = reasonDenied, nil
		metadata["code"] = denied.Code
	case errors.Is(err, ErrReplayed):
		reason, cause = reasonReplayed, nil
	}
	// What a person or a stranger's link can cause all day is no warning.
	level := slog.LevelInfo
	if errors.Is(err, ErrProvider) || errors.Is(err, ErrProviderUnavailable) || reason == reasonOnce {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String("app", s.config.App), slog.String("provider", p.Name), slog.String("reason", reason)}
	if cause != nil {
		attrs = append(attrs, slog.String("error", cause.Error()))
	}
	s.config.Logger.LogAttrs(ctx, level, "a sign-in by another provider was refused", attrs...)
	s.config.Events.Record(ctx, event.Event{
		Type: event.IdentityRefused, Result: event.Failure, App: s.config.App, Time: s.config.Now(), Reason: reason,
		Metadata: metadata, Request: event.RequestFrom(ctx),
	})
}
