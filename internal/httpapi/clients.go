package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// listClients answers a page of the app's clients, without their secrets.
func (a *API) listClients(w http.ResponseWriter, r *http.Request, _ *authz.Principal) error {
	page, err := pageOf(r, nil)
	if err != nil {
		return err
	}
	list, err := a.config.Clients.List(r.Context(), oauth2.ListOptions{Limit: page.Limit, Cursor: page.After})
	if err != nil {
		return err
	}
	out := struct {
		Clients []clientView `json:"clients"`
		Next    string       `json:"next,omitempty"`
	}{make([]clientView, len(list.Clients)), list.Next}
	for i := range list.Clients {
		out.Clients[i] = viewClient(&list.Clients[i])
	}
	write(w, http.StatusOK, out)
	return nil
}

// clientView is a client as the routes show it.
type clientView struct {
	*oauth2.Client
	// TokenTTL is in seconds.
	TokenTTL int64 `json:"token_ttl"`
}

func viewClient(c *oauth2.Client) clientView { return clientView{c, int64(c.TokenTTL.Seconds())} }

// clientScopes refuses scopes of Mandate's own that the administrator could not
// use: a client must not become what its maker is not.
func (a *API) clientScopes(ctx context.Context, p *authz.Principal, scopes []string) error {
	for _, scope := range scopes {
		action, own := strings.CutPrefix(scope, ObjectMandate+":")
		if !own {
			continue
		}
		if ok, err := a.config.Authz.Can(ctx, p, ObjectMandate, action); err != nil {
			return err
		} else if !ok {
			return denied(p)
		}
	}
	return nil
}

func (a *API) createClient(w http.ResponseWriter, r *http.Request, p *authz.Principal) error {
	var n oauth2.NewClient
	var seconds int64
	if err := decode(w, r, fields{"name": &n.Name, "scopes": &n.Scopes, "token_ttl": &seconds}); err != nil {
		return err
	}
	if err := required("name", n.Name); err != nil {
		return err
	}
	if seconds < 0 || seconds > int64(tokens.MaxAccessTTL.Seconds()) {
		return &authz.ValueError{Field: "token_ttl", Message: "must be a number of seconds, at most a day's"}
	}
	n.TokenTTL = time.Duration(seconds) * time.Second
	if err := a.clientScopes(r.Context(), p, n.Scopes); err != nil {
		return err
	}
	created, err := a.config.Clients.Create(r.Context(), n)
	if err != nil {
		return scopesAsSent(err)
	}
	write(w, http.StatusCreated, struct {
		Client clientView `json:"client"`
		Secret string     `json:"client_secret"`
	}{viewClient(&created.Client), created.Secret})
	return nil
}

func (a *API) getClient(w http.ResponseWriter, r *http.Request, _ *authz.Principal) error {
	return a.answerClient(w, r, r.PathValue("id"))
}

func (a *API) answerClient(w http.ResponseWriter, r *http.Request, id string) error {
	c, err := a.config.Clients.Get(r.Context(), id)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, struct {
		Client clientView `json:"client"`
	}{viewClient(c)})
	return nil
}

// patchClient changes a client's scopes or status.
func (a *API) patchClient(w http.ResponseWriter, r *http.Request, p *authz.Principal) error {
	id := r.PathValue("id")
	var scopes []string
	status := ""
	if err := decode(w, r, fields{"scopes": &scopes, "status": &status}); err != nil {
		return err
	}
	if scopes != nil {
		if err := a.clientScopes(r.Context(), p, scopes); err != nil {
			return err
		}
		if err := a.config.Clients.SetScopes(r.Context(), id, scopes); err != nil {
			return scopesAsSent(err)
		}
	}
	var err error
	switch oauth2.Status(status) {
	case "":
	case oauth2.Active:
		err = a.config.Clients.Enable(r.Context(), id)
	case oauth2.Disabled:
		err = a.config.Clients.Disable(r.Context(), id, "disabled_by_administrator")
	default:
		err = &authz.ValueError{Field: "status", Message: `must be "active" or "disabled"`}
	}
	if err != nil {
		return err
	}
	return a.answerClient(w, r, id)
}

// rotateClient gives a client a new secret; the one before stays good beside it.
func (a *API) rotateClient(w http.ResponseWriter, r *http.Request, p *authz.Principal) error {
	c, err := a.config.Clients.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	// Whoever has the secret is the client.
	if err := a.clientScopes(r.Context(), p, c.Scopes); err != nil {
		return err
	}
	if err := a.config.Admin.MayActAs(r.Context(), p, c.ID); err != nil {
		return err
	}
	secret, err := a.config.Clients.Rotate(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	write(w, http.StatusCreated, struct {
		Secret string `json:"client_secret"`
	}{secret})
	return nil
}

func (a *API) removeClientSecret(w http.ResponseWriter, r *http.Request, _ *authz.Principal) error {
	return done(w, a.config.Clients.RemoveSecret(r.Context(), r.PathValue("id"), r.PathValue("secret")))
}

func (a *API) deleteClient(w http.ResponseWriter, r *http.Request, _ *authz.Principal) error {
	return done(w, a.config.DeleteClient(r.Context(), r.PathValue("id")))
}

func scopesAsSent(err error) error {
	var value *authz.ValueError
	if errors.As(err, &value) {
		return asSent(value, map[string]string{"scope": "scopes"})
	}
	return err
}
