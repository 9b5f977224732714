package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/issuers"
	"github.com/mandate-auth/mandate/tokens/oauth2"
	"github.com/mandate-auth/mandate/tokens/signing"
	"github.com/mandate-auth/mandate/users"
)

// Authenticator recognises credentials that Mandate does not know.
type Authenticator interface {
	// Authenticate returns who is calling, or nil without an error when the request
	// brings no credential of its kind. An error refuses the request.
	Authenticate(r *http.Request) (*authz.Principal, error)
}

// identify answers whose the credential is. passwords lets users come by Basic.
func (a *API) identify(r *http.Request, c presented, strict, passwords bool) (*authz.Principal, error) {
	// Browsers add cookies and Basic by themselves, whichever page made the request.
	if (c.method == methodCookie || c.method == methodBasic) && a.crossOrigin(r) {
		a.report(r.Context(), event.CrossOriginRefused, event.Failure, nil, "guard")
		return nil, errCSRF
	}
	watch := a.measured(r).Start()
	p, err := a.principal(r, c, strict, passwords)
	if err != nil {
		watch.Failed(AsProblem(err).Code)
		return nil, err
	}
	watch.Succeeded()
	return p, nil
}

func (a *API) principal(r *http.Request, c presented, strict, passwords bool) (*authz.Principal, error) {
	switch strict = strict || a.config.Strict; {
	case c.method == methodAPIKey && strict:
		return a.config.APIKeys.VerifyNow(r.Context(), c.text)
	case c.method == methodAPIKey:
		return a.config.APIKeys.Verify(r.Context(), c.text)
	case c.method == methodBasic:
		return a.byBasic(r, c.text, strict, passwords)
	default:
		p, err := a.byToken(r.Context(), c, strict)
		if err == nil && p.Credential == authz.CredentialBearer && p.Issuer == "" && a.config.Transport == TransportCookie {
			return nil, errNoBearer
		}
		return p, err
	}
}

// byToken checks an access token and the living state.
func (a *API) byToken(ctx context.Context, c presented, strict bool) (*authz.Principal, error) {
	v, err := a.verify(ctx, c.text, strict)
	if err != nil {
		if c.method == methodBearer && errors.Is(err, tokens.ErrUnknownKey) {
			if issuer, found := a.config.Issuers.Owns(c.text); found {
				return a.byIssuer(ctx, issuer, c.text)
			}
		}
		return nil, err
	}
	how := authz.CredentialBearer
	if c.method == methodCookie {
		how = authz.CredentialCookie
	}
	p := v.Principal(how)
	switch {
	case p.Kind != authz.KindService:
	case how == authz.CredentialCookie:
		return nil, fmt.Errorf("%w: a client's token in a cookie", tokens.ErrInvalid)
	case a.config.Clients == nil:
		return nil, fmt.Errorf("%w: the app has no clients", tokens.ErrInvalid)
	}
	return p, nil
}

// verify checks a token of our own and the living state.
func (a *API) verify(ctx context.Context, text string, strict bool) (*tokens.Verified, error) {
	v, err := a.verifiedNow(ctx, text)
	if err != nil {
		return nil, err
	}
	if err := a.config.Blacklist.Check(ctx, v); err != nil {
		return nil, err
	}
	// The check may have waited for news of the keys.
	if err := a.config.Tokens.Accepts(v); err != nil {
		return nil, err
	}
	if v.Kind() == authz.KindService {
		return v, a.checkClient(ctx, v, strict)
	}
	if strict || a.config.Strict {
		if _, err := a.config.Sessions.Check(ctx, v.Subject(), v.SessionID()); err != nil {
			return nil, err
		}
	}
	if v.NoteUse(a.config.Now(), sessions.ActivityInterval) {
		a.config.Sessions.Seen(v.SessionID())
	}
	return v, nil
}

// verified verifies a token, and where it does not know the key looks for one that
// another instance may have made just now.
func (a *API) verified(ctx context.Context, text string, verify func(string) (*tokens.Verified, error)) (*tokens.Verified, error) {
	v, err := verify(text)
	if !errors.Is(err, tokens.ErrUnknownKey) || a.config.NewKey == nil {
		return v, err
	}
	kid := a.config.Tokens.KeyID(text)
	if kid == "" {
		return nil, err
	}
	switch known, failed := a.config.NewKey(ctx, kid); {
	case failed != nil:
		return nil, failed
	case !known:
		return nil, err
	default:
		return verify(text)
	}
}

// ended verifies a token that is to be ended. One whose key may be known later is
// not taken for one that means nothing.
func (a *API) ended(ctx context.Context, text string) (*tokens.Verified, error) {
	return a.verified(ctx, text, a.config.Tokens.VerifyEnded)
}

// verifiedNow verifies a token that is presented. Where keys were looked for just now
// it is refused: made-up tokens cost no more than that.
func (a *API) verifiedNow(ctx context.Context, text string) (*tokens.Verified, error) {
	v, err := a.verified(ctx, text, a.config.Tokens.Verify)
	if errors.Is(err, signing.ErrTooSoon) {
		return nil, tokens.ErrUnknownKey
	}
	return v, err
}

// checkClient asks the database about the client of a token, where everything is
// asked.
func (a *API) checkClient(ctx context.Context, v *tokens.Verified, strict bool) error {
	if (!strict && !a.config.Strict) || a.config.Clients == nil {
		return nil
	}
	c, err := a.config.Clients.Get(ctx, v.Subject())
	switch {
	case errors.Is(err, oauth2.ErrNotFound) || (err == nil && (c.Status != oauth2.Active || c.Epoch > v.Epoch())):
		return tokens.ErrRevoked
	default:
		return err
	}
}

// byIssuer is the principal of a token that another issuer made.
func (a *API) byIssuer(ctx context.Context, issuer *issuers.Issuer, text string) (*authz.Principal, error) {
	v, err := issuer.Verify(ctx, text)
	if err != nil {
		a.report(ctx, event.IssuerRefused, event.Failure, nil, AsProblem(err).Code)
		return nil, err
	}
	p := &authz.Principal{
		ID: v.IssuerName() + "|" + v.Subject(), Kind: v.Kind(), App: a.config.App, Issuer: v.IssuerName(), TokenID: v.ID(),
		Credential: authz.CredentialBearer, AuthTime: v.AuthTime(), ExpiresAt: v.ExpiresAt(), Scopes: v.Scopes(), Claims: v.Claims(),
	}
	switch {
	case p.Kind == authz.KindService:
		p.Credential, p.ClientID = authz.CredentialClientToken, v.ClientID()
	case p.Kind != authz.KindHuman:
		return nil, fmt.Errorf("%w: it is neither a person's nor a machine's", tokens.ErrInvalid)
	}
	if authz.CheckValue("subject", p.ID) != nil {
		return nil, fmt.Errorf("%w: no rule could name its subject", tokens.ErrInvalid)
	}
	return p, nil
}

// errBadBasic is the refusal of credentials by Basic. It is alike for unknown
// names and wrong secrets.
var errBadBasic = func() *Problem {
	p := refuse(CodeInvalidCredentials)
	p.Detail = "The name or the secret is wrong."
	return p
}()

// byBasic checks a client's id and secret, or where passwords are asked for a
// user's address and password.
func (a *API) byBasic(r *http.Request, header string, strict, passwords bool) (*authz.Principal, error) {
	name, password, ok := r.BasicAuth()
	switch {
	case !ok:
		return nil, errMalformedBasic
	case store.ValidID(name, "cli_") && a.config.Clients != nil:
		return a.bySecret(r.Context(), header, strict)
	case !passwords:
		return nil, errBadBasic
	default:
		return a.byPassword(r, users.Credentials{Email: name, Password: password})
	}
}

// bySecret checks a client's id and secret, which are form-encoded in the header (RFC
// 6749 section 2.3.1).
func (a *API) bySecret(ctx context.Context, header string, strict bool) (*authz.Principal, error) {
	id, secret, err := oauth2.ParseBasic(header)
	if err != nil {
		return nil, errMalformedBasic
	}
	authenticate := a.config.Clients.Authenticate
	if strict {
		authenticate = a.config.Clients.AuthenticateNow
	}
	c, err := authenticate(ctx, id, secret)
	if errors.Is(err, oauth2.ErrInvalidClient) {
		return nil, errBadBasic
	}
	if err != nil {
		return nil, err
	}
	return &authz.Principal{
		ID: c.ID, Kind: authz.KindService, App: a.config.App, ClientID: c.ID, Credential: authz.CredentialClientSecret, Scopes: c.Scopes,
	}, nil
}

var errMalformedBasic = invalidRequest("Authorization", "must be \"Basic\" and the base64 of a name, a colon and a secret")

// byPassword is a sign-in for one request, without a session. It is counted like any
// other by the address that it is for; by the client's address only what fails is,
// because a right password comes with every request.
func (a *API) byPassword(r *http.Request, c users.Credentials) (*authz.Principal, error) {
	ctx := r.Context()
	guesses := a.config.Limits[LimitLoginAddress]
	if guesses != nil {
		d, err := guesses.Store.Peek(ctx, guesses.Rule, a.limitKey(r, guesses, "", ""))
		if err != nil {
			return nil, err
		}
		if d.Remaining == 0 {
			return nil, a.exceeded(r, guesses, d, nil)
		}
	}
	proof, err := a.config.Users.Authenticate(ctx, c)
	if errors.Is(err, users.ErrInvalidCredentials) && guesses != nil {
		if err := a.limitGuarded(r, guesses, a.limitKey(r, guesses, "", ""), nil); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	user, err := a.config.Users.Confirm(ctx, proof)
	if err != nil {
		return nil, err
	}
	more, err := a.extras(ctx, user.ID)
	if err != nil {
		return nil, err
	}
	p := &authz.Principal{
		ID: user.ID, Kind: user.Kind, App: a.config.App, Credential: authz.CredentialBasic, AuthTime: a.config.Now(),
		Scopes: more.scopes, Claims: more.claims,
	}
	a.report(ctx, event.LoginSucceeded, event.Success, p, string(authz.CredentialBasic))
	return p, nil
}

// NamedAuthenticator is an authenticator and what path rules call it.
type NamedAuthenticator struct {
	Name string
	Authenticator
}

// custom asks the authenticators of the service, those of the names or all. Two
// that both recognise the request are two credentials.
func (a *API) custom(r *http.Request, names []string) (*authz.Principal, error) {
	if len(a.config.Authenticators) == 0 {
		return nil, errUnauthenticated
	}
	watch := a.measured(r).Start()
	found, err := a.recognise(r, names)
	switch {
	case err != nil:
		watch.Failed(AsProblem(err).Code)
		return nil, err
	case found == nil:
		return nil, errUnauthenticated // nothing was presented, so nothing is counted
	default:
		watch.Succeeded()
		return found, nil
	}
}

// recognise returns whom an authenticator recognises, nil for nobody.
func (a *API) recognise(r *http.Request, names []string) (found *authz.Principal, err error) {
	for _, c := range a.config.Authenticators {
		if names != nil && !slices.Contains(names, c.Name) {
			continue
		}
		p, err := a.askCustom(r, c)
		if err != nil {
			return nil, err
		}
		if p == nil {
			continue
		}
		if found != nil {
			return nil, errTwoCredentials
		}
		found = p
	}
	return found, nil
}

func (a *API) askCustom(r *http.Request, c NamedAuthenticator) (*authz.Principal, error) {
	p, err := c.Authenticate(r)
	if err != nil {
		a.report(r.Context(), event.AuthenticatorRefused, event.Failure, nil, c.Name)
		var problem *Problem
		if errors.As(err, &problem) || errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		}
		refused := refuse(CodeInvalidCredentials)
		refused.Detail, refused.cause = "The credential is not one that is accepted here.", err
		return nil, refused
	}
	if p == nil {
		return nil, nil //nolint:nilnil // not its credential, and that is no error
	}
	// What a browser sends by itself could have been sent by any page.
	if a.crossOrigin(r) {
		a.report(r.Context(), event.CrossOriginRefused, event.Failure, nil, "guard")
		return nil, errCSRF
	}
	own := *p
	if own.App == "" {
		own.App = a.config.App
	}
	own.Credential = authz.Credential(c.Name)
	if own.Kind == "" || own.App != a.config.App {
		return nil, fmt.Errorf("the authenticator %s returned a principal without kind, or one of another app", c.Name)
	}
	// A certificate may call its owner what it likes: rules for a role must not apply.
	ours := authz.IsID(own.ID) || strings.HasPrefix(own.ID, c.Name+"|")
	if !ours || authz.CheckValue("id", own.ID) != nil {
		return nil, fmt.Errorf("the authenticator %s returned the principal %q, whose id is neither that of a user or a client nor begins with %q", c.Name, clip(own.ID, maxDescribed), c.Name+"|")
	}
	return &own, nil
}
