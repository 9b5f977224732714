package casbin

import (
	"iter"
	"maps"
	"slices"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/pattern"
)

// rules are what a subject is allowed, or denied: never changed once they are in a
// snapshot.
type rules struct {
	exact map[authz.Permission]struct{}
	// keys are those of the patterns among them, with how many share each, and forms
	// are theirs: as many lookups as there are forms find what matches.
	keys  map[authz.Permission]int
	forms []formCount
}

type formCount struct {
	form
	count int
}

func (r *rules) clone() *rules {
	if r == nil {
		return nil
	}
	return &rules{exact: maps.Clone(r.exact), keys: maps.Clone(r.keys), forms: slices.Clone(r.forms)}
}

func (r *rules) len() int {
	if r == nil {
		return 0
	}
	return len(r.exact)
}

// exactly returns the rules as they are stored, for reading.
func (r *rules) exactly() map[authz.Permission]struct{} {
	if r == nil {
		return nil
	}
	return r.exact
}

// all ranges over the rules as they are stored.
func (r *rules) all() iter.Seq[authz.Permission] { return maps.Keys(r.exactly()) }

func (r *rules) has(p authz.Permission) bool {
	if r == nil {
		return false
	}
	_, ok := r.exact[p]
	return ok
}

func (r *rules) add(m Matching, p authz.Permission) {
	if r.exact == nil {
		r.exact = map[authz.Permission]struct{}{}
	}
	r.exact[p] = struct{}{}
	f, key, ok := m.formOf(p.Object)
	if !ok {
		return
	}
	if r.keys == nil {
		r.keys = map[authz.Permission]int{}
	}
	r.keys[authz.Permission{Object: key, Action: p.Action}]++
	r.count(f, 1)
}

func (r *rules) remove(m Matching, p authz.Permission) {
	delete(r.exact, p)
	f, key, ok := m.formOf(p.Object)
	if !ok {
		return
	}
	k := authz.Permission{Object: key, Action: p.Action}
	if r.keys[k]--; r.keys[k] <= 0 {
		delete(r.keys, k)
	}
	r.count(f, -1)
}

func (r *rules) count(f form, by int) {
	for i := range r.forms {
		if r.forms[i].form == f {
			if r.forms[i].count += by; r.forms[i].count == 0 {
				r.forms = slices.Delete(r.forms, i, i+1)
			}
			return
		}
	}
	r.forms = append(r.forms, formCount{f, by})
}

// match reports whether one of the rules matches what is asked for, which is
// askable. It allocates nothing.
func (r *rules) match(p authz.Permission) bool {
	if r == nil {
		return false
	}
	if _, ok := r.exact[p]; ok {
		return true
	}
	if len(r.forms) == 0 {
		return false
	}
	return r.matchPattern(p)
}

func (r *rules) matchPattern(p authz.Permission) bool {
	var buffer [authz.MaxValue + 64]byte
	for i := range r.forms {
		f := &r.forms[i]
		found := false
		if f.prefix {
			if n := int(f.length); n <= len(p.Object) {
				_, found = r.keys[authz.Permission{Object: p.Object[:n], Action: p.Action}]
			}
		} else if pattern.IsPath(p.Object) {
			if key, ok := f.shape.AppendKey(buffer[:0], p.Object); ok {
				_, found = r.keys[authz.Permission{Object: string(key), Action: p.Action}]
			}
		}
		if found {
			return true
		}
	}
	return false
}
