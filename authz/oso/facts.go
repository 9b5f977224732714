package oso

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/mandate-auth/mandate/authz"
)

// value is one argument of a fact.
type value struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

type fact struct {
	Predicate string  `json:"predicate"`
	Args      []value `json:"args"`
}

// operation is one member of a batch.
type operation struct {
	Inserts []fact `json:"inserts,omitempty"`
	Deletes []fact `json:"deletes,omitempty"`
}

const (
	typeUser   = "User"
	typeApp    = "App"
	typeObject = "Object"
	typeString = "String"
)

func (p *Provider) app() value { return value{typeApp, p.config.App} }

// user is the actor. Ids of users are unique over all apps, "anonymous" is not.
func (p *Provider) user(subject string) value {
	if !authz.IsID(subject) {
		subject = p.config.App + "/" + subject
	}
	return value{typeUser, subject}
}

var typed = regexp.MustCompile(`^([A-Z][A-Za-z0-9_]*):(.+)$`)

// object is the resource that an object's name stands for.
func (p *Provider) object(name string) value {
	if m := typed.FindStringSubmatch(name); m != nil && m[1] != typeObject && m[1] != typeApp && m[1] != typeUser {
		return value{m[1], m[2]}
	}
	return value{typeObject, p.config.App + "/" + name}
}

// name is the object that a resource stands for. mine is false for one of another
// app.
func (p *Provider) name(resource value) (name string, mine bool) {
	if resource.Type == typeObject {
		return strings.CutPrefix(resource.ID, p.config.App+"/")
	}
	return resource.Type + ":" + resource.ID, true
}

func (p *Provider) ruleFact(r authz.Rule) fact {
	action, object := value{typeString, r.Action}, p.object(r.Object)
	if r.Subject == authz.SubjectAnonymous || authz.IsID(r.Subject) {
		return fact{"has_permission", []value{p.user(r.Subject), action, object}}
	}
	return fact{"role_can", []value{p.app(), {typeString, r.Subject}, action, object}}
}

func (p *Provider) roleFact(subject, role string) fact {
	return fact{"has_role", []value{p.user(subject), {typeString, role}, p.app()}}
}

// Apply implements [authz.Editor] by one batch.
func (p *Provider) Apply(ctx context.Context, c authz.Change) error {
	if err := c.Check(); err != nil {
		return err
	}
	if i := slices.IndexFunc(c.Add, func(r authz.Rule) bool { return r.Effect == authz.Deny }); i >= 0 {
		return fmt.Errorf("%w: facts of Oso Cloud allow; deny in its policy", authz.ErrUnsupported)
	}
	if slices.ContainsFunc(c.Assign, func(a authz.Assignment) bool { return !authz.IsID(a.Subject) }) {
		return fmt.Errorf("%w: roles have roles by the policy of Oso Cloud, and guests have none", authz.ErrUnsupported)
	}
	var add, remove []fact
	for _, r := range c.Add {
		add = append(add, p.ruleFact(r))
		p.learn(r.Action)
	}
	for _, r := range c.Remove {
		if r.Effect != authz.Deny { // of which there are none
			remove = append(remove, p.ruleFact(r))
		}
	}
	for _, a := range c.Assign {
		add = append(add, p.roleFact(a.Subject, a.Role))
	}
	for _, a := range c.Unassign {
		remove = append(remove, p.roleFact(a.Subject, a.Role))
	}
	return p.write(ctx, add, remove)
}

func (p *Provider) write(ctx context.Context, add, remove []fact) error {
	var batch []operation
	if len(add) > 0 {
		batch = append(batch, operation{Inserts: add})
	}
	if len(remove) > 0 {
		batch = append(batch, operation{Deletes: remove})
	}
	if len(batch) == 0 {
		return ctx.Err()
	}
	return p.client.write(ctx, batch)
}

// Forget implements [authz.Editor]: it takes the roles of Config.Roles, and the
// permissions that [Provider.Permissions] knows of.
func (p *Provider) Forget(ctx context.Context, subject string) error {
	if err := authz.CheckValue("subject", subject); err != nil {
		return err
	}
	permissions, err := p.Permissions(ctx, subject)
	if err != nil {
		return err
	}
	var remove []fact
	for _, role := range p.config.Roles {
		remove = append(remove, p.roleFact(subject, role))
	}
	for _, permission := range permissions {
		remove = append(remove, p.ruleFact(authz.Rule{Subject: subject, Permission: permission}))
	}
	return p.write(ctx, nil, remove)
}

var errNoLists = fmt.Errorf("%w: the API of Oso Cloud lists no facts; look at them in its own user interface", authz.ErrUnsupported)

// Rules implements [authz.Editor]: it is not supported.
func (p *Provider) Rules(ctx context.Context, _ authz.RuleFilter, _ authz.Page) (rules []authz.Rule, next string, err error) {
	return nil, "", errors.Join(errNoLists, ctx.Err())
}

// Members implements [authz.Editor]: it is not supported.
func (p *Provider) Members(ctx context.Context, _ string, _ authz.Page) (subjects []string, next string, err error) {
	return nil, "", errors.Join(errNoLists, ctx.Err())
}

// Assigned implements [authz.Editor]: it is not supported.
func (p *Provider) Assigned(ctx context.Context, _ string) ([]string, error) {
	return nil, errors.Join(errNoLists, ctx.Err())
}
