package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
)

// Administrator changes what principals may do, in the name of one of them.
type Administrator interface {
	// Apply, SetRules and SetRoles refuse what the principal may not give or take
	// with an error that wraps [authz.ErrForbidden].
	Apply(ctx context.Context, by *authz.Principal, c authz.Change) error
	SetRules(ctx context.Context, by *authz.Principal, subject string, rules ...authz.Rule) error
	SetRoles(ctx context.Context, by *authz.Principal, userID string, roles ...string) error

	Rules(ctx context.Context, f authz.RuleFilter, page authz.Page) (rules []authz.Rule, next string, err error)
	UsersOfRole(ctx context.Context, role string, page authz.Page) (userIDs []string, next string, err error)
	// MayActAs refuses, as those do, to hand out what would let the principal act as
	// the subject, unless it may do all that the subject may.
	MayActAs(ctx context.Context, by *authz.Principal, subject string) error
	// MayAssign refuses so for a role that the principal may not give.
	MayAssign(ctx context.Context, by *authz.Principal, role string) error
	AssignedRoles(ctx context.Context, userID string) ([]string, error)
	Roles(ctx context.Context, userID string) ([]string, error)
}

// ObjectMandate, ActionPolicies and ActionUsers are what administration asks for.
const (
	ObjectMandate  = "mandate"
	ActionPolicies = "policies"
	ActionUsers    = "users"
)

// admin serves those who have the permission.
func (a *API) admin(action string, serve func(http.ResponseWriter, *http.Request, *authz.Principal) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		p, err := a.caller(r)
		if err != nil {
			return err
		}
		if ok, err := a.config.Authz.Can(r.Context(), p, ObjectMandate, action); err != nil {
			return err
		} else if !ok {
			return denied(p)
		}
		// What is done below is done by p: events say so.
		err = serve(w, r.WithContext(WithPrincipal(r.Context(), p)), p)
		if errors.Is(err, authz.ErrForbidden) {
			return denied(p)
		}
		return err
	}
}

// ruleView is a rule as the routes show it and take it.
type ruleView struct {
	Subject string `json:"subject"`
	Object  string `json:"object"`
	Action  string `json:"action"`
	Effect  string `json:"effect"`
}

func viewRules(rules []authz.Rule) []ruleView {
	out := make([]ruleView, len(rules))
	for i, r := range rules {
		out[i] = ruleView{r.Subject, r.Object, r.Action, string(r.Effect)}
	}
	return out
}

// queryOf reads the query, whose names are known and come once each.
func queryOf(r *http.Request, into map[string]*string) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalidRequest("query", "cannot be read")
	}
	for name, values := range query {
		target := into[name]
		if target == nil {
			return invalidRequest(clip(name, maxEcho), "is not a parameter that this route knows")
		}
		if len(values) != 1 {
			return invalidRequest(name, "must be given once")
		}
		*target = values[0]
	}
	return nil
}

// pageOf reads "limit" and "cursor", and what else the query may have.
func pageOf(r *http.Request, more map[string]*string) (page authz.Page, err error) {
	limit := ""
	into := map[string]*string{"limit": &limit, "cursor": &page.After}
	for name, target := range more {
		into[name] = target
	}
	if err := queryOf(r, into); err != nil {
		return page, err
	}
	if limit != "" {
		if page.Limit, err = strconv.Atoi(limit); err != nil || page.Limit < 1 || page.Limit > authz.MaxPage {
			return page, invalidRequest("limit", "must be a number from 1 to %d", authz.MaxPage)
		}
	}
	return page, nil
}

// listPolicies answers a page of the rules.
func (a *API) listPolicies(w http.ResponseWriter, r *http.Request, _ *authz.Principal) error {
	var f authz.RuleFilter
	page, err := pageOf(r, map[string]*string{"subject": &f.Subject, "object": &f.Object, "action": &f.Action})
	if err != nil {
		return err
	}
	return a.writeRules(w, r, f, page)
}

func (a *API) writeRules(w http.ResponseWriter, r *http.Request, f authz.RuleFilter, page authz.Page) error {
	rules, next, err := a.config.Admin.Rules(r.Context(), f, page)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, struct {
		Policies []ruleView `json:"policies"`
		Next     string     `json:"next,omitempty"`
	}{viewRules(rules), next})
	return nil
}

// changePolicies adds and removes rules as one change.
func (a *API) changePolicies(w http.ResponseWriter, r *http.Request, p *authz.Principal) error {
	var add, remove []json.RawMessage
	if err := decode(w, r, fields{"add": &add, "remove": &remove}); err != nil {
		return err
	}
	if n := len(add) + len(remove); n == 0 || len(add) > maxChecks || len(remove) > maxChecks {
		return invalidRequest("add", "and remove must hold 1 to %d rules together, and at most as many each", 2*maxChecks)
	}
	var c authz.Change
	var wrong []FieldProblem
	for name, list := range map[string][]json.RawMessage{"add": add, "remove": remove} {
		for i, raw := range list {
			var rule authz.Rule
			into := fields{"subject": &rule.Subject, "object": &rule.Object, "action": &rule.Action, "effect": (*string)(&rule.Effect)}
			wrong = append(wrong, collectChecked(fmt.Sprintf("%s.%d.", name, i), raw, into, func() error { return rule.Check() })...)
			if name == "add" {
				c.Add = append(c.Add, rule)
			} else {
				c.Remove = append(c.Remove, rule)
			}
		}
	}
	if len(wrong) > 0 {
		return invalidFields(wrong)
	}
	return done(w, a.config.Admin.Apply(r.Context(), p, c))
}

// listRoles answers the roles of the manifest.
func (a *API) listRoles(w http.ResponseWriter, _ *http.Request, _ *authz.Principal) error {
	type roleView struct {
		Role     string   `json:"role"`
		Inherits []string `json:"inherits"`
	}
	out := struct {
		Roles []roleView `json:"roles"`
	}{make([]roleView, len(a.config.Roles))}
	for i, role := range a.config.Roles {
		out.Roles[i] = roleView{role, append([]string{}, a.config.Hierarchy[role]...)}
	}
	write(w, http.StatusOK, out)
	return nil
}

// roleOf returns the role of the path.
func (a *API) roleOf(r *http.Request) (string, error) {
	role := r.PathValue("role")
	if !slices.Contains(a.config.Roles, role) {
		return "", refuse(CodeNotFound)
	}
	return role, nil
}

// rolePermissions answers a page of the rules of a role.
func (a *API) rolePermissions(w http.ResponseWriter, r *http.Request, _ *authz.Principal) error {
	role, err := a.roleOf(r)
	if err != nil {
		return err
	}
	page, err := pageOf(r, nil)
	if err != nil {
		return err
	}
	return a.writeRules(w, r, authz.RuleFilter{Subject: role}, page)
}

// setRolePermissions replaces the rules of a role.
func (a *API) setRolePermissions(w http.ResponseWriter, r *http.Request, p *authz.Principal) error {
	role, err := a.roleOf(r)
	if err != nil {
		return err
	}
	var allowed, denied []string
	if err := decode(w, r, fields{"permissions": &allowed, "denied": &denied}); err != nil {
		return err
	}
	if allowed == nil {
		return invalidRequest("permissions", "is required; an empty list takes them all")
	}
	var rules []authz.Rule
	var wrong []FieldProblem
	for _, of := range []struct {
		name   string
		list   []string
		effect authz.Effect
	}{{"permissions", allowed, authz.Allow}, {"denied", denied, authz.Deny}} {
		for i, text := range of.list {
			permission, err := authz.ParsePermission(text)
			var value *authz.ValueError
			if errors.As(err, &value) {
				wrong = append(wrong, FieldProblem{Path: fmt.Sprintf("%s.%d", of.name, i), Message: value.Field + " " + value.Message})
			}
			rules = append(rules, authz.Rule{Permission: permission, Effect: of.effect})
		}
	}
	if len(wrong) > 0 {
		return invalidFields(wrong)
	}
	return done(w, a.config.Admin.SetRules(r.Context(), p, role, rules...))
}

// roleUsers answers a page of who was granted a role.
func (a *API) roleUsers(w http.ResponseWriter, r *http.Request, _ *authz.Principal) error {
	role, err := a.roleOf(r)
	if err != nil {
		return err
	}
	page, err := pageOf(r, nil)
	if err != nil {
		return err
	}
	ids, next, err := a.config.Admin.UsersOfRole(r.Context(), role, page)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, struct {
		Users []string `json:"users"`
		Next  string   `json:"next,omitempty"`
	}{append([]string{}, ids...), next})
	return nil
}

// userOf returns the user of the path, or the client.
func (a *API) userOf(r *http.Request) (string, error) {
	id := r.PathValue("id")
	if a.config.Clients != nil && store.ValidID(id, "cli_") {
		_, err := a.config.Clients.Get(r.Context(), id)
		return id, err
	}
	_, err := a.config.Users.Get(r.Context(), id)
	return id, err
}

// userRoles answers the roles of a user.
func (a *API) userRoles(w http.ResponseWriter, r *http.Request, _ *authz.Principal) error {
	if err := queryOf(r, nil); err != nil {
		return err
	}
	id, err := a.userOf(r)
	if err != nil {
		return err
	}
	assigned, err := a.config.Admin.AssignedRoles(r.Context(), id)
	if err != nil {
		return err
	}
	effective, err := a.config.Admin.Roles(r.Context(), id)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, struct {
		Roles     []string `json:"roles"`
		Effective []string `json:"effective"`
	}{append([]string{}, assigned...), append([]string{}, effective...)})
	return nil
}

// setUserRoles replaces the roles of a user.
func (a *API) setUserRoles(w http.ResponseWriter, r *http.Request, p *authz.Principal) error {
	var roles []string
	if err := decode(w, r, fields{"roles": &roles}); err != nil {
		return err
	}
	if roles == nil {
		return invalidRequest("roles", "is required; an empty list takes them all")
	}
	id, err := a.userOf(r)
	if err != nil {
		return err
	}
	return done(w, a.config.Admin.SetRoles(r.Context(), p, id, roles...))
}

// grantUserRole gives a user a role.
func (a *API) grantUserRole(w http.ResponseWriter, r *http.Request, p *authz.Principal) error {
	var role string
	if err := decode(w, r, fields{"role": &role}); err != nil {
		return err
	}
	if err := required("role", role); err != nil {
		return err
	}
	id, err := a.userOf(r)
	if err != nil {
		return err
	}
	return done(w, a.config.Admin.Apply(r.Context(), p, authz.Change{Assign: []authz.Assignment{{Subject: id, Role: role}}}))
}

// revokeUserRole takes a role from a user. One that it has not is no error.
func (a *API) revokeUserRole(w http.ResponseWriter, r *http.Request, p *authz.Principal) error {
	id, err := a.userOf(r)
	if err != nil {
		return err
	}
	role, err := a.roleOf(r)
	if err != nil {
		return err
	}
	return done(w, a.config.Admin.Apply(r.Context(), p, authz.Change{Unassign: []authz.Assignment{{Subject: id, Role: role}}}))
}
