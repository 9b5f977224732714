package provider

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	// lifetime is that of authorization requests and access tokens.
	lifetime = 10 * time.Minute
	// most bounds how many of each are kept.
	most = 1000
)

var (
	errUnknown     = errors.New("there is no such request, it may be over")
	errAccount     = errors.New("there is no such account")
	errUnsupported = errors.New("this provider does not do that")
	errFull        = errors.New("too many sign-ins are waiting")
)

// store is the op.Storage of the provider. What the provider does not do is in
// unsupported.
type store struct {
	unsupported
	client   *client
	key      *signingKey
	accounts []Account
	now      func() time.Time

	mu       sync.Mutex
	requests map[string]*request
	codes    map[string]string // the code to the id of its request
	tokens   map[string]token
}

type token struct {
	subject string
	scopes  []string
	expires time.Time
}

var (
	_ op.Storage                   = (*store)(nil)
	_ op.CanSetUserinfoFromRequest = (*store)(nil)
)

func newStore(c *client, key *signingKey, accounts []Account, now func() time.Time) *store {
	return &store{client: c, key: key, accounts: accounts, now: now, requests: map[string]*request{}, codes: map[string]string{}, tokens: map[string]token{}}
}

// sweep forgets what is over. The lock is held.
func (s *store) sweep() {
	now := s.now()
	maps.DeleteFunc(s.requests, func(_ string, r *request) bool { return !now.Before(r.expires) })
	maps.DeleteFunc(s.codes, func(_, id string) bool { return s.requests[id] == nil })
	maps.DeleteFunc(s.tokens, func(_ string, t token) bool { return !now.Before(t.expires) })
}

// CreateAuthRequest keeps a request until somebody picks an account for it.
func (s *store) CreateAuthRequest(_ context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sweep(); len(s.requests) >= most {
		return nil, errFull
	}
	r := &request{id: rand.Text(), asked: *asked, expires: s.now().Add(lifetime)}
	s.requests[r.id] = r
	return r, nil
}

// AuthRequestByID returns a request that is not over.
func (s *store) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.request(id)
}

// request is AuthRequestByID with the lock held.
func (s *store) request(id string) (op.AuthRequest, error) {
	if s.sweep(); s.requests[id] == nil {
		return nil, errUnknown
	}
	return s.requests[id], nil
}

// done says whose request it is.
func (s *store) done(id, subject string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.account(subject); !ok {
		return errAccount
	}
	if _, err := s.request(id); err != nil {
		return err
	}
	changed := *s.requests[id]
	changed.subject, changed.at = subject, s.now()
	s.requests[id] = &changed
	return nil
}

// SaveAuthCode keeps the code of a request.
func (s *store) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[code] = id
	return nil
}

// AuthRequestByCode returns the request of a code. It forgets the code: none is used
// twice, and none after a wrong verifier.
func (s *store) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.codes[code]
	delete(s.codes, code)
	return s.request(id)
}

// DeleteAuthRequest forgets a request.
func (s *store) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	return nil
}

// CreateAccessToken keeps an access token, which the userinfo endpoint takes.
func (s *store) CreateAccessToken(_ context.Context, r op.TokenRequest) (string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sweep(); len(s.tokens) >= most {
		return "", time.Time{}, errFull
	}
	id, t := rand.Text(), token{subject: r.GetSubject(), scopes: r.GetScopes(), expires: s.now().Add(lifetime)}
	s.tokens[id] = t
	return id, t.expires, nil
}

// GetClientByClientID returns the one client.
func (s *store) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != s.client.id {
		return nil, oidc.ErrInvalidClient()
	}
	return s.client, nil
}

// AuthorizeClientIDSecret checks the client's secret.
func (s *store) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	if id != s.client.id || subtle.ConstantTimeCompare([]byte(secret), []byte(s.client.secret)) != 1 {
		return oidc.ErrInvalidClient()
	}
	return nil
}

// SetUserinfoFromScopes does nothing: SetUserinfoFromRequest does it.
func (s *store) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

// SetUserinfoFromRequest fills the ID token.
func (s *store) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, r op.IDTokenRequest, scopes []string) error {
	return s.fill(info, r.GetSubject(), scopes)
}

// SetUserinfoFromToken fills the answer of the userinfo endpoint.
func (s *store) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, id, subject, _ string) error {
	s.mu.Lock()
	s.sweep()
	t, ok := s.tokens[id]
	s.mu.Unlock()
	if !ok || t.subject != subject {
		return errUnknown
	}
	return s.fill(info, t.subject, t.scopes)
}

// fill tells of an account what the scopes allow.
func (s *store) fill(info *oidc.UserInfo, subject string, scopes []string) error {
	account, ok := s.account(subject)
	if !ok {
		return errAccount
	}
	info.Subject = account.Subject
	if slices.Contains(scopes, oidc.ScopeEmail) {
		info.Email, info.EmailVerified = account.Email, oidc.Bool(account.Verified)
	}
	if slices.Contains(scopes, oidc.ScopeProfile) {
		info.Name = account.Name
	}
	return nil
}

func (s *store) account(subject string) (Account, bool) {
	i := slices.IndexFunc(s.accounts, func(a Account) bool { return a.Subject == subject })
	if i < 0 {
		return Account{}, false
	}
	return s.accounts[i], true
}

// SigningKey returns the one key.
func (s *store) SigningKey(context.Context) (op.SigningKey, error) { return s.key, nil }

// SignatureAlgorithms returns that of the key.
func (s *store) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{s.key.SignatureAlgorithm()}, nil
}

// KeySet returns what services verify ID tokens with.
func (s *store) KeySet(context.Context) ([]op.Key, error) { return []op.Key{publicKey{s.key}}, nil }

// Health always has nothing to say.
func (s *store) Health(context.Context) error { return nil }
