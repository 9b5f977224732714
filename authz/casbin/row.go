package casbin

import (
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
)

// Casbin's types of rows.
const (
	ptypePolicy   = "p"
	ptypeGrouping = "g"
)

// row is one rule of one app, as it is kept in memory. It is comparable, so that
// it can be hashed and looked up.
type row struct {
	grouping bool
	subject  string
	// object is the role of a grouping.
	object, action string
	deny           bool
}

func ruleRow(r authz.Rule) row {
	return row{subject: r.Subject, object: r.Object, action: r.Action, deny: r.Effect == authz.Deny}
}

func assignmentRow(a authz.Assignment) row {
	return row{grouping: true, subject: a.Subject, object: a.Role}
}

func (r row) permission() authz.Permission {
	return authz.Permission{Object: r.object, Action: r.action}
}

func (r row) rule() authz.Rule {
	out := authz.Rule{Subject: r.subject, Permission: r.permission(), Effect: authz.Allow}
	if r.deny {
		out.Effect = authz.Deny
	}
	return out
}

func (r row) ptype() string {
	if r.grouping {
		return ptypeGrouping
	}
	return ptypePolicy
}

// values are the row's v0, v1, … as the adapter writes them.
func (r row) values(app string) []string {
	if r.grouping {
		return []string{r.subject, r.object, app}
	}
	return []string{r.subject, app, r.object, r.action, string(r.rule().Effect)}
}

// keySubject is the type of a key that stands for everything about a subject.
const keySubject = "s"

// key names what a change of the row touches, for the log of changes: the rule,
// whatever its effect, or everything about the subject of a grouping. Who is
// given roles has few rules, and so a call that is repeated after it has failed
// half way heals whatever the first one left behind, also when there is nothing
// left to write.
func (r row) key() []string {
	if r.grouping {
		return []string{keySubject, r.subject}
	}
	return []string{ptypePolicy, r.subject, r.object, r.action}
}

// keyFilters select the rows of a key. There are none for a key of a later
// version.
func keyFilters(app string, g *grammar, key []string) []bson.M {
	switch {
	case len(key) == 4 && key[0] == ptypePolicy:
		return []bson.M{{"ptype": ptypePolicy, "v0": key[1], "v1": app, "v2": key[2], "v3": key[3]}}
	case len(key) == 2 && key[0] == keySubject:
		return subjectFilters(app, g, key[1])
	default:
		return nil
	}
}

// subjectFilters select everything about a subject.
func subjectFilters(app string, g *grammar, subject string) []bson.M {
	filters := []bson.M{{"ptype": ptypePolicy, "v0": subject, "v1": app}}
	if g.roles {
		filters = append(filters, bson.M{"ptype": ptypeGrouping, "v0": subject, "v2": app})
	}
	return filters
}

// keyRows are the rows that a key may stand for in a snapshot.
func keyRows(s *snapshot, key []string) []row {
	if key[0] == keySubject {
		return s.rowsOf(key[1])
	}
	r := row{subject: key[1], object: key[2], action: key[3]}
	denied := r
	denied.deny = true
	return []row{r, denied}
}

// DamagedError says that a document of the policies collection cannot be a rule
// of the app's model. Nothing is decided by a part of the rules, so it has to be
// corrected or removed.
type DamagedError struct {
	// Collection and ID name the document.
	Collection string
	ID         any
	// Message says what is wrong with it.
	Message string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("the document %v of collection %s is no rule: %s; correct it or remove it", e.ID, e.Collection, e.Message)
}

var valueFields = [...]string{"v0", "v1", "v2", "v3", "v4", "v5"}

// decode reads a document as it stands: its values are never parsed again, so
// that a comma or a quote in one of them means nothing.
func decode(doc bson.Raw, app string, g *grammar) (row, error) {
	ptype, ok := doc.Lookup("ptype").StringValueOK()
	if !ok {
		return row{}, fmt.Errorf("its ptype is no string")
	}
	var v [len(valueFields)]string
	for i, name := range valueFields {
		value, err := doc.LookupErr(name)
		if err != nil {
			continue // absent means empty, as stock Casbin has it
		}
		if v[i], ok = value.StringValueOK(); !ok {
			return row{}, fmt.Errorf("its %s is no string", name)
		}
	}
	used := 5
	r := row{subject: v[0], object: v[2], action: v[3]}
	if ptype == ptypeGrouping {
		used = 3
		r = row{grouping: true, subject: v[0], object: v[1]}
		v[1] = v[2] // the domain, where a policy has it
	}
	if extra := slices.IndexFunc(v[used:], func(s string) bool { return s != "" }); extra >= 0 {
		return row{}, fmt.Errorf("it has more values than the model")
	}
	if v[1] != app {
		return row{}, fmt.Errorf("its domain is not the app")
	}
	if ptype == ptypeGrouping {
		return r, nil
	}
	switch authz.Effect(v[4]) {
	case "", authz.Allow:
	case authz.Deny:
		if !g.deny {
			// Leaving it out would allow what somebody has denied.
			return row{}, fmt.Errorf("it denies, and the model %s has no rules that deny", g)
		}
		r.deny = true
	default:
		return row{}, fmt.Errorf("its effect is neither allow nor deny")
	}
	// A pattern that is none would not deny what it seems to.
	return r, g.checkObject(r.object)
}
