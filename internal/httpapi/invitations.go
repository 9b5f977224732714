package httpapi

import (
	"net/http"
	"slices"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/users/invitation"
)

// createInvitation invites somebody in the name of who asks.
func (a *API) createInvitation(w http.ResponseWriter, r *http.Request, p *authz.Principal) error {
	n := invitation.NewInvitation{InvitedBy: p.ID, From: a.from(r)}
	if err := decode(w, r, fields{"email": &n.Email, "role": &n.Role}); err != nil {
		return err
	}
	if err := required("email", n.Email); err != nil {
		return err
	}
	if n.Role != "" {
		if !slices.Contains(a.config.Roles, n.Role) {
			return &authz.ValueError{Field: "role", Message: "is not a role of the app"}
		}
		// Where roles are kept elsewhere none can be given here.
		if _, err := a.config.Admin.AssignedRoles(r.Context(), p.ID); err != nil {
			return err
		}
		// Whoever invites gives nobody more than they have.
		if err := a.config.Admin.MayAssign(r.Context(), p, n.Role); err != nil {
			return err
		}
	}
	if err := a.limit(w, r, LimitInvitations, p.ID, ""); err != nil {
		return err
	}
	made, err := a.config.Invitations.Create(r.Context(), n)
	if err != nil {
		return err
	}
	write(w, http.StatusCreated, struct {
		Invitation *invitation.Invitation `json:"invitation"`
	}{made})
	return nil
}

func (a *API) listInvitations(w http.ResponseWriter, r *http.Request, _ *authz.Principal) error {
	page, err := pageOf(r, nil)
	if err != nil {
		return err
	}
	list, err := a.config.Invitations.List(r.Context(), invitation.ListOptions{Limit: page.Limit, Cursor: page.After})
	if err != nil {
		return err
	}
	write(w, http.StatusOK, list)
	return nil
}

func (a *API) revokeInvitation(w http.ResponseWriter, r *http.Request, _ *authz.Principal) error {
	return done(w, a.config.Invitations.Revoke(r.Context(), r.PathValue("id")))
}
