package casbin

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/mandate-auth/mandate/authz"
)

// permissionsOf returns what the subject may do, in order. An object may be a
// pattern, and then a rule that denies a part of it is not seen in the list.
func (s *snapshot) permissionsOf(name string) ([]authz.Permission, error) {
	allow := map[authz.Permission]struct{}{}
	_, found := s.reach(name, nil, nil)
	for _, f := range found {
		if f != nil {
			maps.Copy(allow, f.allow.exactly())
		}
	}
	var failed error
	maps.DeleteFunc(allow, func(p authz.Permission, _ struct{}) bool {
		if s.judge == nil {
			return s.denied(found, p)
		}
		d, err := s.judge.decide(name, p)
		failed = cmp.Or(failed, err)
		return !d.Allowed
	})
	if failed != nil {
		return nil, failed
	}
	return slices.SortedFunc(maps.Keys(allow), comparePermissions), nil
}

func comparePermissions(a, b authz.Permission) int {
	return cmp.Or(strings.Compare(a.Object, b.Object), strings.Compare(a.Action, b.Action))
}

// denied reports whether a rule denies all that the permission of a rule stands
// for.
func (s *snapshot) denied(found []*subject, p authz.Permission) bool {
	for _, f := range found {
		if f == nil {
			continue
		}
		if f.deny.has(p) || (f.deny.len() > 0 && s.any(f.deny, p, s.matching.covers)) {
			return true
		}
	}
	return false
}

// any reports whether one of the rules has the action and its object relates to
// that of p.
func (s *snapshot) any(r *rules, p authz.Permission, relates func(rule, object string) bool) bool {
	for have := range r.all() {
		if have.Action == p.Action && relates(have.Object, p.Object) {
			return true
		}
	}
	return false
}

// covers reports whether the subject may do everything that a rule with the
// permission would allow.
func (s *snapshot) covers(name string, p authz.Permission) (bool, error) {
	if s.judge != nil {
		// What a rule of a custom model stands for is known to Casbin alone.
		return false, &unsupported{"rules of a custom model cannot be compared"}
	}
	if !s.matching.wide(p.Object) {
		return s.decide(name, p).Allowed, nil
	}
	_, found := s.reach(name, nil, nil)
	covered := false
	for _, f := range found {
		if f == nil {
			continue
		}
		if s.any(f.deny, p, s.matching.overlaps) {
			return false, nil
		}
		covered = covered || s.any(f.allow, p, s.matching.covers)
	}
	return covered, nil
}

// explain decides and says by which rule.
func (s *snapshot) explain(name string, p authz.Permission) (authz.Explanation, error) {
	if s.judge != nil {
		return s.judge.explain(name, p)
	}
	out := authz.Explanation{Decision: s.decide(name, p)}
	if out.Reason == authz.ReasonNoRule {
		return out, nil
	}
	names, found := s.reach(name, nil, nil)
	for i, f := range found {
		if f == nil {
			continue
		}
		set, effect := f.allow, authz.Allow
		if out.Reason == authz.ReasonDenied {
			set, effect = f.deny, authz.Deny
		}
		var matching []authz.Permission
		for have := range set.all() {
			if have.Action == p.Action && s.matching.matchOne(p.Object, have.Object) {
				matching = append(matching, have)
			}
		}
		if len(matching) == 0 {
			continue
		}
		// The longest pattern says most; one rule is enough to explain.
		rule := slices.MaxFunc(matching, func(a, b authz.Permission) int {
			return cmp.Or(cmp.Compare(len(a.Object), len(b.Object)), strings.Compare(b.Object, a.Object))
		})
		out.Rule = &authz.Rule{Subject: names[i], Permission: rule, Effect: effect}
		out.Path = s.path(name, names[i])
		return out, nil
	}
	return out, nil
}

// path returns a shortest way from the subject to one of its roles, both included.
func (s *snapshot) path(from, to string) []string {
	before := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		name := queue[0]
		if name == to {
			break
		}
		for _, role := range s.granted(name) {
			if _, known := before[role]; !known {
				before[role] = name
				queue = append(queue, role)
			}
		}
	}
	path := []string{to}
	for at := to; at != from; {
		at = before[at]
		path = append(path, at)
	}
	slices.Reverse(path)
	return path
}

// granted returns the roles that a name has by itself.
func (s *snapshot) granted(name string) []string {
	var assigned []string
	if f := s.find(name); f != nil {
		assigned = f.roles
	}
	return slices.Concat(assigned, s.hierarchy[name])
}
