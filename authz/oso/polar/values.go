package polar

import "fmt"

// User is the actor of a query.
type User struct {
	// ID is the subject, "anonymous" for guests.
	ID string
	// Roles are the roles of the subject, inherited ones included, in order.
	Roles []string

	missed *missed
}

// Object is the resource of a query. Polar keeps the name "Resource" for itself.
type Object struct {
	// App is the slug of the app.
	App string
	// Name is the object of the permission.
	Name string

	missed *missed
}

// missed notices that a policy has asked a value of a query for an attribute that it
// has not. That is an error of the query, but under a "not" Oso loses it: what is
// not known to be so counts as not so, and "not user.Banned" allows everybody.
//
// go-oso tells nobody but the text of its error, which has the value in it by %v.
// It writes values by %+v when it takes them.
type missed struct{ attribute bool }

func (m *missed) note(f fmt.State) {
	if m != nil && !f.Flag('+') {
		m.attribute = true
	}
}

// Format implements [fmt.Formatter]. It keeps the roles out of errors.
func (u User) Format(f fmt.State, _ rune) {
	u.missed.note(f)
	_, _ = fmt.Fprintf(f, "User(%s)", u.ID)
}

// Format implements [fmt.Formatter].
func (o Object) Format(f fmt.State, _ rune) {
	o.missed.note(f)
	_, _ = fmt.Fprintf(f, "Object(%s)", o.Name)
}
