package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/casbin"
	"github.com/mandate-auth/mandate/authz/policyfile"
)

// PolicyFormat names the form of a policy in a file.
type PolicyFormat string

// The formats, which package authz/policyfile describes.
const (
	// PolicyCSV is that of Casbin's policy files, with the slug as the domain.
	PolicyCSV PolicyFormat = "csv"
	// PolicyJSON is an object with rules and assignments.
	PolicyJSON PolicyFormat = "json"
)

// Export writes the rules of the app and who was granted which role. It reads page by
// page: what is changed meanwhile may or may not be in it.
func (z *Authz) Export(ctx context.Context, w io.Writer, format PolicyFormat) error {
	p, err := z.stored(ctx)
	if err != nil {
		return err
	}
	switch format {
	case PolicyCSV:
		return policyfile.WriteCSV(w, z.app.slug, p)
	case PolicyJSON:
		return policyfile.WriteJSON(w, p)
	default:
		return errFormat(format)
	}
}

func errFormat(format PolicyFormat) error {
	return fmt.Errorf("%w: the format %q is neither csv nor json", authz.ErrUnsupported, format)
}

// stored reads all rules and assignments.
func (z *Authz) stored(ctx context.Context) (*policyfile.Policy, error) {
	rules, err := z.rulesOf(ctx, authz.RuleFilter{})
	if err != nil {
		return nil, err
	}
	assignments, err := z.assignments(ctx)
	return &policyfile.Policy{Rules: rules, Assignments: assignments}, err
}

// Import says how [Authz.Import] goes about.
type Import struct {
	Format PolicyFormat
	// Replace removes what is not in the file. Otherwise the file is added to what is
	// there.
	Replace bool
	// DryRun changes nothing.
	DryRun bool
}

// Import makes the policy of a file that of the app, and returns the change that it
// makes, or would make. The file is checked whole before anything is written, as
// [Authz.Apply] checks: users and roles have to be those of the app. It is written in
// parts of 10,000 rules, what is added before what is removed; a call that failed half
// way is repeated. The error is a [*policyfile.Error] for a file with faults.
func (z *Authz) Import(ctx context.Context, r io.Reader, how Import) (authz.Change, error) {
	var file *policyfile.Policy
	var err error
	switch how.Format {
	case PolicyCSV:
		file, err = policyfile.ReadCSV(r, z.app.slug)
	case PolicyJSON:
		file, err = policyfile.ReadJSON(r)
	default:
		err = errFormat(how.Format)
	}
	if err != nil {
		return authz.Change{}, err
	}
	has, err := z.stored(ctx)
	if errors.Is(err, authz.ErrUnsupported) && !how.Replace {
		has, err = &policyfile.Policy{}, nil // adding needs no list
	}
	if err != nil {
		return authz.Change{}, err
	}
	c := authz.Change{Add: missing(file.Rules, has.Rules), Assign: missing(file.Assignments, has.Assignments)}
	if how.Replace {
		c.Remove, c.Unassign = missing(has.Rules, file.Rules), missing(has.Assignments, file.Assignments)
	}
	if err := z.check(ctx, &c); err != nil || how.DryRun {
		return c, err
	}
	for _, part := range parts(&c) {
		if err := z.apply(ctx, &part, &part); err != nil {
			return c, err
		}
	}
	return c, z.touch(ctx)
}

// touch tells every instance to look at all rules: the import may repeat one that had
// written and could not tell anybody any more.
func (z *Authz) touch(ctx context.Context) error {
	provider, err := z.provider.get(ctx)
	if err != nil {
		return err
	}
	if t, ok := provider.(interface{ Touch(context.Context) error }); ok {
		return t.Touch(ctx)
	}
	return nil
}

// missing returns what of a list is not in the other.
func missing[T comparable](list, other []T) []T {
	there := make(map[T]struct{}, len(other))
	for _, x := range other {
		there[x] = struct{}{}
	}
	var out []T
	for _, x := range list {
		if _, ok := there[x]; !ok {
			out = append(out, x)
		}
	}
	return out
}

// parts cuts a change into some that can be made, in the order of [authz.Change]. A
// change that is small enough stays one.
func parts(c *authz.Change) []authz.Change {
	if len(c.Add)+len(c.Remove)+len(c.Assign)+len(c.Unassign) <= casbin.MaxChange {
		return []authz.Change{*c}
	}
	split := func(rules []authz.Rule) (denials, others []authz.Rule) {
		for _, r := range rules {
			if r.Effect == authz.Deny {
				denials = append(denials, r)
			} else {
				others = append(others, r)
			}
		}
		return denials, others
	}
	addDenials, add := split(c.Add)
	removeDenials, remove := split(c.Remove)
	adding := func(list []authz.Rule) authz.Change { return authz.Change{Add: list} }
	removing := func(list []authz.Rule) authz.Change { return authz.Change{Remove: list} }
	return slices.Concat(
		chunks(addDenials, adding), chunks(add, adding),
		chunks(c.Assign, func(list []authz.Assignment) authz.Change { return authz.Change{Assign: list} }),
		chunks(c.Unassign, func(list []authz.Assignment) authz.Change { return authz.Change{Unassign: list} }),
		chunks(remove, removing), chunks(removeDenials, removing),
	)
}

// chunks returns the changes that a list is made by.
func chunks[T any](list []T, change func([]T) authz.Change) (out []authz.Change) {
	for chunk := range slices.Chunk(list, casbin.MaxChange) {
		out = append(out, change(chunk))
	}
	return out
}
