// Package authz holds the vocabulary of authorization: who is calling
// ([Principal]), what is asked ([Request]), what is answered ([Decision]), and
// who answers ([Provider]). It imports nothing, so that every other package can
// speak of a principal and every provider can be written against it alone.
//
// The terms are those of NIST RBAC and Casbin: a subject, directly or through
// its roles, is allowed an action on an object. Whatever is not allowed is
// refused: the zero value of every type here grants nothing.
package authz

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// SubjectAnonymous is the subject of every guest. Guests have no rules of their
// own: a device is not somebody.
const SubjectAnonymous = "anonymous"

// Permission is an action on an object.
type Permission struct {
	Object string `json:"object"`
	Action string `json:"action"`
}

// String returns "object:action". Actions hold no colon, so the last one
// separates the two.
func (p Permission) String() string { return p.Object + ":" + p.Action }

// Request asks whether the subject may do the action on the object.
type Request struct {
	// App is the slug of the app in which it is asked.
	App string
	// Subject is the id of the principal, or [SubjectAnonymous].
	Subject string
	Permission
}

// Decision answers a [Request]. The zero value refuses.
type Decision struct {
	// Allowed is true when the action may be done.
	Allowed bool `json:"allowed"`
	// Reason says why in one of the words below, for logs and events, not for
	// clients.
	Reason Reason `json:"reason"`
}

// Reason says why a decision came out as it did.
type Reason string

// The reasons.
const (
	// ReasonAllowed says that a rule allows it and none denies it.
	ReasonAllowed Reason = "allowed"
	// ReasonNoRule says that no rule allows it.
	ReasonNoRule Reason = "no_rule"
	// ReasonDenied says that a rule denies it, whatever others allow.
	ReasonDenied Reason = "denied"
	// ReasonNoEntry says that the principal may not enter the app at all.
	ReasonNoEntry Reason = "no_entry"
	// ReasonScope says that the API key's scopes do not admit it, whatever its owner
	// may.
	ReasonScope Reason = "scope"
)

// Explanation is a [Decision] with what led to it, for people who look after a
// policy. It holds rules and names of roles, so it is not for clients.
type Explanation struct {
	Decision
	// Rule is one of the rules that decided: one that denies, or else one that
	// allows. Nil where no rule matches, or the provider cannot tell.
	Rule *Rule `json:"rule,omitempty"`
	// Path is how the subject comes to the rule: the subject, the role that it was
	// granted, a role of that role, …, the subject of the rule.
	Path []string `json:"path,omitempty"`
}

// String says it in one line: "allowed: usr_… → admin → editor may write
// documents".
func (e Explanation) String() string {
	if e.Rule == nil {
		return string(e.Reason)
	}
	may := " may "
	if e.Rule.Effect == Deny {
		may = " may not "
	}
	return string(e.Reason) + ": " + strings.Join(e.Path, " → ") + may + e.Rule.Action + " " + e.Rule.Object
}

// Explainer is a [Provider] that can say which rule decided.
type Explainer interface {
	Explain(ctx context.Context, r Request) (Explanation, error)
}

// Coverer is a [Provider] that can compare a rule that is about to be made with
// what somebody may do already. It keeps people from giving others, or
// themselves, what they have not.
type Coverer interface {
	// Covers reports whether the subject may do everything that a rule with the
	// permission, whose object may be a pattern, would allow.
	Covers(ctx context.Context, subject string, p Permission) (bool, error)
}

// Provider decides. Its methods are safe for concurrent use, end with ctx, and
// fail closed: with an error nothing is allowed. An error that repeating may
// cure wraps [ErrUnavailable].
type Provider interface {
	// Authorize decides about a request.
	Authorize(ctx context.Context, r Request) (Decision, error)
	// HasRole reports whether the subject has one of the roles, directly or
	// through another role. Without roles it has none.
	HasRole(ctx context.Context, subject string, roles ...string) (bool, error)
	// Roles returns the subject's roles, inherited ones included, in order.
	Roles(ctx context.Context, subject string) ([]string, error)
	// Permissions returns what the subject may do, in order.
	Permissions(ctx context.Context, subject string) ([]Permission, error)
}

// Editor is a [Provider] whose rules can be changed and listed. A nil error
// means that the change is stored and that this instance decides by it.
type Editor interface {
	Provider
	// Apply makes a change. What is there already and what is gone already are
	// no errors, so that a change whose outcome is unknown is simply repeated.
	Apply(ctx context.Context, c Change) error
	// Rules returns a page of the rules that match the filter.
	Rules(ctx context.Context, f RuleFilter, p Page) (rules []Rule, next string, err error)
	// Members returns a page of the subjects that were assigned the role, in
	// order, without those that have it through another role.
	Members(ctx context.Context, role string, p Page) (subjects []string, next string, err error)
	// Assigned returns the roles that the subject was assigned, in order, without
	// inherited ones.
	Assigned(ctx context.Context, subject string) ([]string, error)
	// Forget removes every rule and every assignment of the subject.
	Forget(ctx context.Context, subject string) error
}

// Effect says what a rule does.
type Effect string

// The effects. The zero value of a rule's effect means Allow.
const (
	Allow Effect = "allow"
	Deny  Effect = "deny"
)

// Rule allows a subject, or denies it, an action on an object. The subject is a
// role, the id of a principal, or [SubjectAnonymous].
type Rule struct {
	Subject string `json:"subject"`
	Permission
	Effect Effect `json:"effect,omitempty"`
}

// Assignment gives a subject a role.
type Assignment struct {
	Subject string `json:"subject"`
	Role    string `json:"role"`
}

// Change is one change of a policy. While it is written, denies are added first
// and removed last, and what is added comes before what is removed: in between
// nobody is refused what is allowed both before and after, nor allowed what is
// denied both before and after.
type Change struct {
	Add, Remove      []Rule
	Assign, Unassign []Assignment
}

// Empty reports whether the change changes nothing.
func (c *Change) Empty() bool {
	return len(c.Add)+len(c.Remove)+len(c.Assign)+len(c.Unassign) == 0
}

// RuleFilter selects rules. Empty fields select everything.
type RuleFilter struct {
	Subject string
	Permission
}

// Page selects a part of a list.
type Page struct {
	// Limit is the size of the page, 1 to [MaxPage]. Default 50.
	Limit int
	// After is the "next" of the page before. Empty means the first page.
	After string
}

// MaxPage is the greatest size of a page.
const MaxPage = 500

// Size returns the limit within its bounds.
func (p Page) Size() int {
	if p.Limit <= 0 {
		return 50
	}
	return min(p.Limit, MaxPage)
}

// Errors of every provider.
var (
	// ErrUnavailable says that the provider cannot decide now.
	ErrUnavailable = errors.New("authorization unavailable")
	// ErrUnsupported says that the provider, or its model, has no such thing:
	// roles in an access control list, changes in a provider that only reads.
	ErrUnsupported = errors.New("not supported by the policy's model")
	// ErrForbidden says that the one who asked for a change may not make it.
	ErrForbidden = errors.New("forbidden")
)

// ValueError says what is wrong with a value that was given.
type ValueError struct {
	// Field is what the value is: "subject", "role", "object", "action", "effect".
	Field string
	// Message says what to do.
	Message string
}

func (e *ValueError) Error() string { return fmt.Sprintf("%s %s", e.Field, e.Message) }
