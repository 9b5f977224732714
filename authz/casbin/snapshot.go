package casbin

import (
	"hash/maphash"
	"maps"
	"slices"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/appstate"
)

// shards is how many parts the subjects are kept in. A change copies the parts
// that it touches and shares the others, so that its cost is a 256th of the
// subjects.
const shards = 256

// seed makes hashes unpredictable: whoever names subjects cannot put them all
// into one shard.
var seed = maphash.MakeSeed()

func shardOf(subject string) int { return int(maphash.String(seed, subject) % shards) }

// subject is what the rules say about one subject. It is never changed.
type subject struct {
	roles       []string // assigned, in order
	allow, deny *rules
}

// snapshot is the policy of one app in one version. It is never changed: a
// change makes another one, which shares what has stayed.
type snapshot struct {
	version appstate.Version
	*grammar
	// hierarchy is the role hierarchy of the manifest.
	hierarchy map[string][]string
	subjects  [shards]map[string]*subject
	// rows and digest identify the set of rows: its size, and the sum of their
	// hashes, which does not depend on their order.
	rows   int
	digest uint64
	// size is about how many bytes it takes.
	size int64
	// judge decides instead where the model is a custom one.
	judge *judge
}

func (s *snapshot) find(name string) *subject { return s.subjects[shardOf(name)][name] }

func (s *snapshot) has(r row) bool {
	found := s.find(r.subject)
	if found == nil {
		return false
	}
	if r.grouping {
		_, ok := slices.BinarySearch(found.roles, r.object)
		return ok
	}
	if r.deny {
		return found.deny.has(r.permission())
	}
	return found.allow.has(r.permission())
}

// rowsOf returns everything about the subject.
func (s *snapshot) rowsOf(name string) []row {
	found := s.find(name)
	if found == nil {
		return nil
	}
	var out []row
	for _, role := range found.roles {
		out = append(out, row{grouping: true, subject: name, object: role})
	}
	for p := range found.allow.all() {
		out = append(out, row{subject: name, object: p.Object, action: p.Action})
	}
	for p := range found.deny.all() {
		out = append(out, row{subject: name, object: p.Object, action: p.Action, deny: true})
	}
	return out
}

// builder makes a snapshot out of another one.
type builder struct {
	snapshot
	// shard and subject say what is the builder's own already, so that it is
	// copied once.
	ownShard   [shards]bool
	ownSubject map[string]bool
}

func build(from *snapshot) *builder {
	return &builder{snapshot: *from, ownSubject: map[string]bool{}}
}

// edit returns the subject for changing.
func (b *builder) edit(name string) *subject {
	i := shardOf(name)
	if !b.ownShard[i] {
		b.ownShard[i] = true
		if b.subjects[i] = maps.Clone(b.subjects[i]); b.subjects[i] == nil {
			b.subjects[i] = map[string]*subject{}
		}
	}
	found := b.subjects[i][name]
	if found != nil && b.ownSubject[name] {
		return found
	}
	own := &subject{}
	if found != nil {
		own = &subject{roles: slices.Clone(found.roles), allow: found.allow.clone(), deny: found.deny.clone()}
	}
	if found == nil {
		b.size += subjectSize + int64(len(name))
	}
	b.subjects[i][name] = own
	b.ownSubject[name] = true
	return own
}

func (b *builder) add(r row) {
	if b.has(r) {
		return
	}
	b.rows++
	b.digest += maphash.Comparable(seed, r)
	b.size += r.size()
	s := b.edit(r.subject)
	if r.grouping {
		i, _ := slices.BinarySearch(s.roles, r.object)
		s.roles = slices.Insert(s.roles, i, r.object)
		return
	}
	set := &s.allow
	if r.deny {
		set = &s.deny
	}
	if *set == nil {
		*set = &rules{}
	}
	(*set).add(b.matching, r.permission())
}

func (b *builder) remove(r row) {
	if !b.has(r) {
		return
	}
	b.rows--
	b.digest -= maphash.Comparable(seed, r)
	b.size -= r.size()
	s := b.edit(r.subject)
	switch {
	case r.grouping:
		i, _ := slices.BinarySearch(s.roles, r.object)
		s.roles = slices.Delete(s.roles, i, i+1)
	case r.deny:
		s.deny.remove(b.matching, r.permission())
	default:
		s.allow.remove(b.matching, r.permission())
	}
	if len(s.roles)+s.allow.len()+s.deny.len() == 0 {
		b.size -= subjectSize + int64(len(r.subject))
		delete(b.subjects[shardOf(r.subject)], r.subject)
		delete(b.ownSubject, r.subject)
	}
}

// done returns what has been built. It can fail where Casbin has to understand
// the rules.
func (b *builder) done(version appstate.Version) (*snapshot, error) {
	out := b.snapshot
	out.version = version
	if out.custom == nil {
		return &out, nil
	}
	var err error
	out.judge, err = newJudge(&out)
	return &out, err
}

// authorize answers a request.
func (s *snapshot) authorize(name string, p authz.Permission) (authz.Decision, error) {
	if s.judge != nil {
		return s.judge.decide(name, p)
	}
	return s.decide(name, p), nil
}

const (
	// fewRoles is how many names a check keeps without allocating.
	fewRoles = 16
	// manyRoles is when searching a list gets slower than a map.
	manyRoles = 64
)

// reach appends the name and all its roles to names, each once, so that circles
// end, and what the rules say about each of them to found, nil for nothing.
func (s *snapshot) reach(name string, names []string, found []*subject) ([]string, []*subject) {
	var seen map[string]bool
	known := func(n string) bool {
		if seen != nil {
			return seen[n]
		}
		return slices.Contains(names, n)
	}
	names = append(names, name)
	for next := 0; next < len(names); next++ {
		if seen == nil && len(names) > manyRoles {
			seen = make(map[string]bool, 2*len(names))
			for _, n := range names {
				seen[n] = true
			}
		}
		here := s.find(names[next])
		found = append(found, here)
		var assigned []string
		if here != nil {
			assigned = here.roles
		}
		for _, list := range [...][]string{assigned, s.hierarchy[names[next]]} {
			for _, role := range list {
				if known(role) {
					continue
				}
				names = append(names, role)
				if seen != nil {
					seen[role] = true
				}
			}
		}
	}
	return names, found
}

// decide answers a request: one denial outweighs every allowance.
func (s *snapshot) decide(name string, p authz.Permission) authz.Decision {
	if !s.matching.askable(p.Object) {
		return authz.Decision{Reason: authz.ReasonNoRule}
	}
	var names [fewRoles]string
	var subjects [fewRoles]*subject
	_, found := s.reach(name, names[:0], subjects[:0])
	allowed := false
	for _, f := range found {
		if f == nil {
			continue
		}
		if f.deny.match(p) {
			return authz.Decision{Reason: authz.ReasonDenied}
		}
		allowed = allowed || f.allow.match(p)
	}
	if !allowed {
		return authz.Decision{Reason: authz.ReasonNoRule}
	}
	return authz.Decision{Allowed: true, Reason: authz.ReasonAllowed}
}

// hasRole reports whether the subject has one of the roles.
func (s *snapshot) hasRole(name string, roles []string) bool {
	var buffer [fewRoles]string
	var subjects [fewRoles]*subject
	names, _ := s.reach(name, buffer[:0], subjects[:0])
	for _, reached := range names[1:] {
		if slices.Contains(roles, reached) {
			return true
		}
	}
	return false
}

// rolesOf returns the subject's roles, inherited ones included, in order.
func (s *snapshot) rolesOf(name string) []string {
	names, _ := s.reach(name, nil, nil)
	roles := names[1:]
	slices.Sort(roles)
	return roles
}
