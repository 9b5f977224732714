package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// ScopeIntrospect is the scope of clients that may introspect every token of the
// app, and not only their own (RFC 7662 section 2.1).
const ScopeIntrospect = "mandate:introspect"

// ClientToken is a client's access token that is about to be issued.
type ClientToken struct {
	Client oauth2.Client
	// Scopes are those that were granted. Some may be taken away, none added.
	Scopes []string
	// TTL is the token's life.
	TTL time.Duration
	// Claims are further claims of the token.
	Claims map[string]any
	// Token replaces what would be issued: the service has built the token itself,
	// and whoever takes it verifies it.
	Token string
}

// oauth serves an endpoint whose errors are those of RFC 6749 section 5.2.
func (a *API) oauth(serve func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		err := serve(w, r)
		if err == nil {
			return nil
		}
		e := oauthError(err)
		p := AsProblem(err)
		p.RequestID = requestID(w)
		a.logFailure(r, p)
		if e.Status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="`+a.config.App+`", charset="UTF-8"`)
		}
		retryAfter(w.Header(), p)
		w.Header().Set("Pragma", "no-cache")
		write(w, e.Status, e)
		return nil
	}
}

// oauthError is an error as RFC 6749 section 5.2 has it.
func oauthError(err error) *oauth2.Error {
	var e *oauth2.Error
	if errors.As(err, &e) {
		return e
	}
	p := AsProblem(err)
	switch {
	case p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests:
		return &oauth2.Error{Code: oauth2.ErrTemporarilyUnavailable.Code, Description: p.Detail, Status: p.Status}
	case p.Status < http.StatusInternalServerError:
		return &oauth2.Error{Code: oauth2.ErrInvalidRequest.Code, Description: p.Detail, Status: p.Status}
	default:
		return oauth2.ErrServer
	}
}

// form reads the body of a request to an endpoint of OAuth 2.0. Parameters in the
// query would end up in logs.
func form(w http.ResponseWriter, r *http.Request) (string, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return "", invalidForm("the body must be application/x-www-form-urlencoded")
	}
	if r.URL.RawQuery != "" {
		return "", invalidForm("parameters belong into the body")
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return "", refuse(CodeTooLarge)
	}
	return string(raw), nil
}

func invalidForm(text string) error {
	return &oauth2.Error{Code: oauth2.ErrInvalidRequest.Code, Description: text, Status: http.StatusBadRequest}
}

// client answers which client calls: by Basic or by the form, never by both (RFC
// 6749 section 2.3). Attempts are counted before the secret is looked at.
func (a *API) client(w http.ResponseWriter, r *http.Request, f *oauth2.Form) (*oauth2.Client, error) {
	lines := r.Header["Authorization"]
	if len(lines) > 1 {
		return nil, invalidForm("the client authenticates in two ways")
	}
	id, secret, err := f.Credentials(strings.Join(lines, ""))
	if err != nil {
		return nil, err
	}
	if err := a.limit(w, r, LimitTokenAddress, "", ""); err != nil {
		return nil, err
	}
	// What is no id is nobody's: names that somebody makes up have one count.
	if !store.ValidID(id, "cli_") {
		id = ""
	}
	// By the address as well: nobody can use up what another one's client may try.
	if err := a.limit(w, r, LimitToken, "", id); err != nil {
		return nil, err
	}
	return a.config.Clients.Authenticate(r.Context(), id, secret)
}

// token is the token endpoint (RFC 6749 section 4.4).
func (a *API) token(w http.ResponseWriter, r *http.Request) error {
	body, err := form(w, r)
	if err != nil {
		return err
	}
	request, err := oauth2.ParseTokenRequest(body)
	if err != nil {
		return err
	}
	c, err := a.client(w, r, &request.Form)
	if err != nil {
		return err
	}
	scopes, err := oauth2.GrantScopes(c, request.Scope)
	if err != nil {
		return err
	}
	t, err := a.IssueToClient(r.Context(), c, scopes)
	if err != nil {
		return err
	}
	w.Header().Set("Pragma", "no-cache")
	write(w, http.StatusOK, oauth2.TokenResponse{
		AccessToken: t.Token, TokenType: "Bearer", ExpiresIn: int64(t.TTL.Seconds()), Scope: strings.Join(t.Scopes, " "),
	})
	return nil
}

// IssueToClient issues a client's access token. It writes nothing.
func (a *API) IssueToClient(ctx context.Context, c *oauth2.Client, scopes []string) (*ClientToken, error) {
	t := &ClientToken{Client: *c, Scopes: slices.Clone(scopes), TTL: c.TokenTTL}
	if a.config.ClientToken != nil {
		// The client may be one that is remembered for others.
		t.Client.Scopes, t.Client.Secrets = slices.Clone(c.Scopes), slices.Clone(c.Secrets)
		if err := a.config.ClientToken(ctx, t); err != nil {
			return nil, err
		}
		for _, scope := range t.Scopes {
			if !slices.Contains(scopes, scope) {
				return nil, fmt.Errorf("Options.ClientToken added the scope %q, which was not granted", scope)
			}
		}
	}
	if t.Token == "" {
		issued, err := a.config.Tokens.Issue(tokens.Grant{
			Subject: c.ID, Kind: authz.KindService, Epoch: c.Epoch, TTL: t.TTL, Scopes: t.Scopes, Custom: t.Claims,
		})
		if err != nil {
			return nil, err
		}
		t.Token, t.TTL = issued.Token, issued.ExpiresAt.Sub(issued.IssuedAt)
	}
	a.config.Metrics.ClientTokenIssued()
	a.config.Events.Record(ctx, event.Event{
		Type: event.ClientTokenIssued, Result: event.Success, App: a.config.App, Time: a.config.Now(), ClientID: c.ID, IsM2M: true,
		Request: event.RequestFrom(ctx),
	})
	return t, nil
}

// query reads a question about a token, or its revocation, and which client has it.
func (a *API) query(w http.ResponseWriter, r *http.Request) (*oauth2.TokenQuery, *oauth2.Client, error) {
	body, err := form(w, r)
	if err != nil {
		return nil, nil, err
	}
	q, err := oauth2.ParseTokenQuery(body)
	if err != nil {
		return nil, nil, err
	}
	c, err := a.client(w, r, &q.Form)
	return q, c, err
}

// introspect tells a client about a token (RFC 7662). About tokens of others it
// tells those that have the scope for it; the rest learn nothing, as about a token
// that is no more.
func (a *API) introspect(w http.ResponseWriter, r *http.Request) error {
	q, c, err := a.query(w, r)
	if err != nil {
		return err
	}
	p, err := a.Verify(r.Context(), q.Token)
	if err != nil && AsProblem(err).Status != http.StatusUnauthorized {
		return err
	}
	// What another issuer made is for that issuer to tell about.
	if err != nil || p.Issuer != "" || (p.ClientID != c.ID && !slices.Contains(c.Scopes, ScopeIntrospect)) {
		write(w, http.StatusOK, oauth2.IntrospectionResponse{})
		return nil
	}
	out := oauth2.IntrospectionResponse{
		Active: true, Scope: strings.Join(p.Scopes, " "), ClientID: p.ClientID, TokenType: "Bearer", Subject: p.ID, ID: p.TokenID,
		Issuer: a.config.Issuer,
	}
	if !p.ExpiresAt.IsZero() {
		out.ExpiresAt = p.ExpiresAt.Unix()
	}
	if p.Kind != authz.KindAPIKey {
		out.Audience = a.config.Audience
		if u, err := tokens.Inspect(q.Token); err == nil { // it has just been verified
			out.IssuedAt = u.IssuedAt.Unix()
		}
	}
	write(w, http.StatusOK, out)
	return nil
}

// revoke ends a token of the client that asks (RFC 7009). A token that means nothing
// is answered 200, since there is nothing left to end.
func (a *API) revoke(w http.ResponseWriter, r *http.Request) error {
	q, c, err := a.query(w, r)
	if err != nil {
		return err
	}
	v, err := a.ended(r.Context(), q.Token)
	switch {
	case is(err, tokens.ErrMalformed, tokens.ErrInvalid):
		w.WriteHeader(http.StatusOK)
		return nil
	case err != nil:
		return err
	case v.Kind() != authz.KindService || v.Subject() != c.ID:
		return &oauth2.Error{Code: oauth2.ErrInvalidGrant.Code, Description: "the token was not issued to this client", Status: http.StatusBadRequest}
	}
	if err := a.config.Blacklist.AddToken(r.Context(), v.ID(), v.Lifetime().ExpiresAt, "revoked_by_client"); err != nil {
		return err
	}
	a.config.Events.Record(r.Context(), event.Event{
		Type: event.TokenRevoked, Result: event.Success, App: a.config.App, Time: a.config.Now(), ClientID: c.ID, IsM2M: true,
		Request: event.RequestFrom(r.Context()),
	})
	w.WriteHeader(http.StatusOK)
	return nil
}
