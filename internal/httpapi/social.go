package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
	"github.com/mandate-auth/mandate/users/social"
)

// intent is what a sign-in by another provider was begun for. The browser keeps it
// sealed until it comes back.
type intent struct {
	// Guest is the guest who becomes the person who arrives.
	Guest string `json:"g,omitempty"`
	// User and Owner are those of somebody who links an identity: the account, and whose
	// it was then.
	User  string `json:"u,omitempty"`
	Owner int64  `json:"o,omitempty"`
	// Session is the one of the guest or of whoever links: it has to live in the end.
	Session string `json:"s,omitempty"`
	// Remember is as in a sign-in.
	Remember bool `json:"r,omitempty"`
}

// providerView is a provider as everybody may see it.
type providerView struct {
	Name        string `json:"name"`
	DisplayName string `json:"display_name"`
	Kind        string `json:"kind"`
	LoginURL    string `json:"login_url"`
}

// listProviders answers who people can sign in by.
func (a *API) listProviders(w http.ResponseWriter, r *http.Request) error {
	if err := queryOf(r, nil); err != nil {
		return err
	}
	list := []providerView{}
	for _, p := range a.config.Social.Providers() {
		list = append(list, providerView{p.Name, p.DisplayName, p.Kind, a.config.BasePath + "/oauth/" + p.Name + "/login"})
	}
	write(w, http.StatusOK, struct {
		Providers []providerView `json:"providers"`
	}{list})
	return nil
}

// onlyGet refuses HEAD, which elsewhere is answered like GET: nobody who asks what a page
// is like means to use a sign-in up.
func onlyGet(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodGet {
		return nil
	}
	w.Header().Set("Allow", http.MethodGet)
	return refuse(CodeMethodNotAllowed)
}

// beginOAuth sends the browser to the provider.
func (a *API) beginOAuth(w http.ResponseWriter, r *http.Request) error {
	if err := onlyGet(w, r); err != nil {
		return err
	}
	var o social.BeginOptions
	remember := ""
	if err := queryOf(r, map[string]*string{"next": &o.Next, "login_hint": &o.LoginHint, "remember_me": &remember}); err != nil {
		return err
	}
	if remember != "" && remember != "true" && remember != "false" {
		return invalidRequest("remember_me", "must be true or false")
	}
	if err := a.limit(w, r, LimitOAuth, "", ""); err != nil {
		return err
	}
	i := intent{Remember: remember == "true"}
	if p := a.guestOf(r); p != nil {
		i.Guest, i.Session = p.ID, p.SessionID
	}
	flow, err := a.begin(w, r, o, i)
	if is(err, social.ErrProvider, social.ErrProviderUnavailable) {
		a.sendBack(w, r, err)
		return nil
	}
	if err != nil {
		return err
	}
	redirect(w, flow.URL)
	return nil
}

// begin begins a flow and hands it to the browser.
func (a *API) begin(w http.ResponseWriter, r *http.Request, o social.BeginOptions, i intent) (*social.Flow, error) {
	data, err := json.Marshal(i)
	if err != nil {
		return nil, fmt.Errorf("the intent of a sign-in: %w", err)
	}
	o.Data = data
	flow, err := a.config.Social.Begin(r.Context(), r.PathValue("provider"), o)
	switch {
	case is(err, social.ErrNext):
		return nil, invalidRequest("next", `must be a path of this site, beginning with one "/", and not too long`)
	case is(err, social.ErrOptions):
		return nil, invalidRequest("login_hint", "is not one")
	case err != nil:
		return nil, err
	}
	return flow, a.config.Jar.SetFlow(w, r, flow.ID, a.secure(r), flow.Cookie, flow.ExpiresAt)
}

// redirect answers 303 (RFC 9700 section 4.12): whatever the request was, the next is a
// GET. What is answered belongs to one browser, and nobody else is told where it came
// from.
func redirect(w http.ResponseWriter, to string) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}

// sendBack sends the browser to the page of the service with why the sign-in failed:
// nobody reads JSON who was sent here by another site.
func (a *API) sendBack(w http.ResponseWriter, r *http.Request, err error) {
	p := AsProblem(err)
	p.RequestID = requestID(w)
	a.logFailure(r, p)
	a.refused(r, p)
	redirect(w, a.config.RedirectAfterLogin+"?"+url.Values{"error": {p.Code}, "provider": {r.PathValue("provider")}}.Encode())
}

// finishOAuth ends the sign-in of a browser that comes back from the provider.
func (a *API) finishOAuth(w http.ResponseWriter, r *http.Request) error {
	if err := onlyGet(w, r); err != nil {
		return err
	}
	if err := a.limit(w, r, LimitOAuth, "", ""); err != nil {
		return err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalidRequest("query", "cannot be read")
	}
	secure, id := a.secure(r), social.CookieSuffix(query)
	cookie := ""
	if id != "" {
		if cookie, err = a.config.Jar.ReadFlow(r, id, secure); err != nil {
			return err
		}
	}
	next, err := a.arrived(w, r, query, cookie)
	if is(err, social.ErrUnknownProvider) {
		return err // no provider has sent the browser here
	}
	if id != "" && cookie != "" && (err == nil || AsProblem(err).Code != CodeUnavailable) {
		a.config.Jar.ClearFlow(w, id, secure)
	}
	if err != nil {
		a.sendBack(w, r, err)
		return nil
	}
	if next == "" {
		next = a.config.RedirectAfterLogin
	}
	redirect(w, next)
	return nil
}

// arrived finishes the flow, and signs in or links.
func (a *API) arrived(w http.ResponseWriter, r *http.Request, query url.Values, cookie string) (next string, err error) {
	res, err := a.config.Social.Finish(r.Context(), r.PathValue("provider"), query, cookie)
	var denied *social.DeniedError
	if errors.As(err, &denied) && is(err, social.ErrProviderUnavailable) {
		return "", refuse(CodeProviderAway) // it could not serve, and nobody refused
	}
	if err != nil {
		return "", err
	}
	var i intent
	if err := json.Unmarshal(res.Data, &i); err != nil {
		return "", fmt.Errorf("the intent of a sign-in: %w", err)
	}
	arrival, err := arrivalOf(res)
	if err != nil {
		return "", err
	}
	ctx := r.Context()
	defer func() {
		if err != nil { // what the provider got wrong was reported by whoever found it
			a.report(ctx, event.IdentityRefused, event.Failure, nil, AsProblem(err).Code)
		}
	}()
	if i.User != "" {
		return res.Next, a.link(r, &i, arrival)
	}
	if arrival.Guest, err = a.stillGuest(ctx, &i); err != nil {
		return "", err
	}
	g, err := a.arrive(r.Context(), arrival, func(proof *users.Proof) (*Grant, error) {
		return a.enter(r, proof, arrival.Guest, TransportCookie, &options{remember: i.Remember}, "oauth")
	})
	if err != nil {
		return "", err
	}
	device := a.config.Devices.Issue(g.User.DeviceSubject())
	return res.Next, a.SetCookies(w, r, g.Session, g.Access, device)
}

// arrivalOf is who the provider says has come.
func arrivalOf(res *social.Result) (identity.Arrival, error) {
	profile := map[string]any{}
	for name, value := range map[string]string{
		"name": res.Info.Name, "given_name": res.Info.GivenName, "family_name": res.Info.FamilyName,
		"picture": res.Info.Picture, "locale": res.Info.Locale,
	} {
		if value != "" {
			profile[name] = value
		}
	}
	kept, err := social.MarshalTokens(res.Tokens)
	return identity.Arrival{
		Provider: res.Provider, Issuer: res.Issuer, Subject: res.Info.Subject, Email: res.Info.Email, EmailVerified: res.Info.EmailVerified,
		Profile: profile, Tokens: kept,
	}, err
}

// Arrive begins the session of whom a provider has identified, in the account of the
// identity or in a new one.
func (a *API) Arrive(ctx context.Context, arrival identity.Arrival, d sessions.Device, remember bool) (*Grant, error) {
	return a.arrive(ctx, arrival, func(proof *users.Proof) (*Grant, error) { return a.Start(ctx, proof, d, remember) })
}

// arrive finds or makes the account of an identity and enters it. What the account says
// then decides: it may not know the identity any more.
func (a *API) arrive(ctx context.Context, arrival identity.Arrival, enter func(*users.Proof) (*Grant, error)) (*Grant, error) {
	var err error
	for range signInAttempts {
		var in *identity.Arrived
		if in, err = a.config.Identities.Arrive(ctx, arrival); err != nil {
			return nil, err
		}
		if err := a.keepTokens(ctx, in, arrival); err != nil {
			return nil, err
		}
		var g *Grant
		g, err = enter(in.Proof)
		switch {
		case err == nil:
			return g, nil
		case is(err, users.ErrChanged):
			// The account does not know the identity, or changes at this moment.
			if _, err := a.config.Identities.Stale(ctx, arrival, in.UserID); err != nil {
				return nil, err
			}
		case !is(err, sessions.ErrEpochChanged):
			return nil, err
		}
	}
	return nil, err
}

// keepTokens keeps what the provider issued to a returning identity. A first one has
// stored it with the rest.
func (a *API) keepTokens(ctx context.Context, in *identity.Arrived, arrival identity.Arrival) error {
	if len(arrival.Tokens) == 0 || in.New {
		return nil
	}
	return a.config.Identities.KeepTokens(ctx, in.UserID, arrival)
}

// listIdentities answers which identities sign in to the caller's account.
func (a *API) listIdentities(w http.ResponseWriter, r *http.Request) error {
	p, err := a.account(r)
	if err != nil {
		return err
	}
	if err := queryOf(r, nil); err != nil {
		return err
	}
	list, err := a.config.Identities.List(r.Context(), p.ID)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, struct {
		Identities []identity.Identity `json:"identities"`
	}{list})
	return nil
}

// beginLink begins to link an identity to the caller's account. It is a POST: a page of
// another site that could begin it would link its own identity.
func (a *API) beginLink(w http.ResponseWriter, r *http.Request) error {
	p, err := a.account(r)
	if err != nil {
		return err
	}
	var o social.BeginOptions
	var password string
	if err := decode(w, r, fields{"next": &o.Next, "current_password": &password}); err != nil {
		return err
	}
	if a.crossOrigin(r) {
		return errCSRF // the flow is a cookie, also where the caller's credential is none
	}
	if err := a.recent(w, r, p, password); err != nil {
		return err
	}
	if err := a.limit(w, r, LimitIdentities, p.ID, ""); err != nil {
		return err
	}
	st, err := a.config.Users.State(r.Context(), p.ID)
	if err != nil {
		return err
	}
	if err := a.stillSigned(r.Context(), p); err != nil {
		return err
	}
	flow, err := a.begin(w, r, o, intent{User: p.ID, Session: p.SessionID, Owner: st.Owner})
	if err != nil {
		return err
	}
	write(w, http.StatusOK, struct {
		URL string `json:"url"`
	}{flow.URL})
	return nil
}

// link links an identity to the account that it was begun for, while the session that
// began it lives.
func (a *API) link(r *http.Request, i *intent, arrival identity.Arrival) error {
	ctx := r.Context()
	kind, err := a.config.Sessions.Check(ctx, i.User, i.Session)
	if err != nil {
		return err
	}
	if kind != authz.KindHuman && kind != authz.KindDemo {
		return refuse(CodeForbidden)
	}
	st, err := a.config.Users.State(ctx, i.User)
	if err != nil {
		return err
	}
	st.Owner = i.Owner
	if err := a.config.Identities.Link(ctx, st, arrival); err != nil {
		return err
	}
	if len(arrival.Tokens) == 0 {
		return nil
	}
	return a.config.Identities.KeepTokens(ctx, i.User, arrival)
}

// unlink ends that an identity signs in to the caller's account.
func (a *API) unlink(w http.ResponseWriter, r *http.Request) error {
	p, err := a.account(r)
	if err != nil {
		return err
	}
	var provider, subject string
	if err := queryOf(r, map[string]*string{"provider": &provider, "subject": &subject}); err != nil {
		return err
	}
	if provider == "" || subject == "" {
		return invalidRequest("query", "needs provider and subject")
	}
	if err := a.recent(w, r, p, ""); err != nil {
		return err
	}
	if err := a.limit(w, r, LimitIdentities, p.ID, ""); err != nil {
		return err
	}
	if err := a.stillSigned(r.Context(), p); err != nil {
		return err
	}
	return done(w, a.config.Identities.Unlink(r.Context(), p.ID, provider, subject))
}
