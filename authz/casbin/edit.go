package casbin

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/internal/store"
)

// MaxChange is how many rules and assignments one change may hold.
const MaxChange = 10_000

// Apply implements [authz.Editor]. The writes come first, then one update that
// raises the policy's epoch and names the rules, then this instance reads them
// back and decides by them, then it is answered. When it fails half way the
// change has to be repeated: what was written is seen by every instance within a
// minute at the latest.
//
// The error is an [*authz.ValueError] for a value that cannot be stored, wraps
// [authz.ErrUnsupported] for what the model has no words for, and
// [authz.ErrUnavailable] when the database did not answer.
func (p *Provider) Apply(ctx context.Context, c authz.Change) error {
	if err := c.Check(); err != nil {
		return err
	}
	if err := p.grammar.check(&c); err != nil {
		return err
	}
	if n := len(c.Add) + len(c.Remove) + len(c.Assign) + len(c.Unassign); n > MaxChange {
		return &authz.ValueError{Field: "change", Message: "has more than 10,000 rules; make several changes"}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.Empty() {
		return nil
	}
	if !p.enter() {
		return unavailable(errClosed)
	}
	defer p.ended.Done()
	// From here on it runs to its end: half a change is worse than a late answer.
	ctx = context.WithoutCancel(ctx)
	written := p.write(&c)
	err := p.publish(ctx, &c)
	if err := errors.Join(written, err); err != nil {
		return unavailable(err)
	}
	return nil
}

// write writes the rows of the change in the order that [authz.Change] promises.
func (p *Provider) write(c *authz.Change) error {
	app, s := p.config.App, p.store
	addDeny, addAllow := rows(c.Add, nil)
	removeDeny, removeAllow := rows(c.Remove, nil)
	_, assign := rows(nil, c.Assign)
	_, unassign := rows(nil, c.Unassign)
	for _, step := range []struct {
		do   func(string, []row) error
		rows []row
	}{
		{s.add, addDeny},
		{s.add, append(addAllow, assign...)},
		{s.remove, append(removeAllow, unassign...)},
		{s.remove, removeDeny},
	} {
		if err := step.do(app, step.rows); err != nil {
			return err
		}
	}
	return nil
}

// rows returns the rows of rules that deny, and the others.
func rows(rules []authz.Rule, assignments []authz.Assignment) (deny, other []row) {
	for _, r := range rules {
		if row := ruleRow(r); row.deny {
			deny = append(deny, row)
		} else {
			other = append(other, row)
		}
	}
	for _, a := range assignments {
		other = append(other, assignmentRow(a))
	}
	return deny, other
}

// publish makes every instance read the rules of the change, and waits until
// this one has. It comes also after writes that failed half way.
func (p *Provider) publish(ctx context.Context, c *authz.Change) error {
	var keys [][]string
	named := map[string]bool{}
	name := func(deny, other []row) {
		for _, r := range append(deny, other...) {
			if key := r.key(); !named[strings.Join(key, ",")] { // no value holds a comma
				named[strings.Join(key, ",")] = true
				keys = append(keys, key)
			}
		}
	}
	name(rows(c.Add, c.Assign))
	name(rows(c.Remove, c.Unassign))
	if err := p.record(ctx, keys); err != nil {
		return err
	}
	left, err := p.remains(ctx, c)
	if err != nil || len(left) == 0 {
		return err
	}
	if err := p.store.removeDocuments(ctx, p.config.App, left); err != nil {
		return err
	}
	return p.record(ctx, keys)
}

func (p *Provider) record(ctx context.Context, keys [][]string) error {
	seen, err := p.config.State.Touched(ctx, p.config.App, keys)
	if err != nil {
		return err
	}
	if p.snapshot.Load() == nil {
		return nil // nobody has asked yet; the first one reads everything
	}
	return p.refreshSoon(ctx, seen)
}

// refreshSoon waits for a refresh no longer than a call may take. One that has to read
// everything may take longer: it goes on, and whoever repeats the change finds it
// done.
func (p *Provider) refreshSoon(ctx context.Context, seen *appstate.Policy) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	done := make(chan error, 1)
	p.ended.Go(func() { done <- p.refresh(p.run, seen) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return store.Error("read the changed rules", ctx.Err())
	}
}

// Touch makes every instance read all rules again, and waits until this one has: for
// a caller that repeats a change whose first attempt may have written something that
// nobody was told of.
func (p *Provider) Touch(ctx context.Context) error {
	if !p.enter() {
		return unavailable(errClosed)
	}
	defer p.ended.Done()
	if err := p.record(context.WithoutCancel(ctx), nil); err != nil {
		return unavailable(err)
	}
	return nil
}

// remains returns the documents of removed rules that are still there, because
// somebody else has written them in a form that the adapter does not recognise.
func (p *Provider) remains(ctx context.Context, c *authz.Change) ([]document, error) {
	var keys [][]string
	removed := map[row]bool{}
	now := p.snapshot.Load() // the rules of the change have just been read again
	deny, other := rows(c.Remove, c.Unassign)
	for _, r := range append(deny, other...) {
		if now == nil || now.has(r) {
			removed[r] = true
			keys = append(keys, r.key())
		}
	}
	var left []document
	for part := range slices.Chunk(keys, maxReread) {
		found, err := p.store.touched(ctx, p.config.App, p.grammar, part)
		if err != nil {
			return nil, err
		}
		for _, d := range found {
			if removed[d.row] {
				left = append(left, d)
			}
		}
	}
	return left, nil
}

// Assigned implements [authz.Editor].
func (p *Provider) Assigned(ctx context.Context, subject string) ([]string, error) {
	found, err := p.ofSubject(ctx, subject)
	if err != nil {
		return nil, err
	}
	roles := make([]string, 0, len(found))
	for _, d := range found {
		if d.grouping {
			roles = append(roles, d.object)
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles), nil
}

// ofSubject reads what is stored about the subject.
func (p *Provider) ofSubject(ctx context.Context, subject string) ([]document, error) {
	if err := authz.CheckValue("subject", subject); err != nil {
		return nil, err
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	found, err := p.store.read(ctx, p.config.App, p.grammar, bson.M{"$or": subjectFilters(p.config.App, p.grammar, subject)})
	if err != nil {
		return nil, unavailable(err)
	}
	return found, nil
}

// Forget implements [authz.Editor].
func (p *Provider) Forget(ctx context.Context, subject string) error {
	found, err := p.ofSubject(ctx, subject)
	if err != nil {
		return err
	}
	var c authz.Change
	for _, d := range found {
		if d.grouping {
			c.Unassign = append(c.Unassign, authz.Assignment{Subject: d.subject, Role: d.object})
		} else {
			c.Remove = append(c.Remove, d.rule())
		}
	}
	// One that is not there makes every instance look at the subject, also when
	// nothing is left: the call may be a repetition.
	if p.grammar.roles && len(c.Unassign) == 0 {
		c.Unassign = []authz.Assignment{{Subject: subject, Role: "nobody"}}
	}
	return p.Apply(ctx, c)
}

// Members implements [authz.Editor]. "next" is the last subject of the page.
func (p *Provider) Members(ctx context.Context, role string, page authz.Page) (subjects []string, next string, err error) {
	if err := authz.CheckRole(role); err != nil {
		return nil, "", err
	}
	filter := bson.M{"v2": p.config.App, "ptype": ptypeGrouping, "v1": role}
	if page.After != "" {
		filter["v0"] = bson.M{"$gt": page.After}
	}
	found, more, err := p.list(ctx, filter, bson.D{{Key: "v0", Value: 1}}, page.Size())
	if err != nil {
		return nil, "", err
	}
	subjects = make([]string, len(found))
	for i, r := range found {
		subjects[i] = r.subject
	}
	if more {
		next = subjects[len(subjects)-1]
	}
	return subjects, next, nil
}

// Rules implements [authz.Editor]. "next" is a JSON array of the last rule's
// values.
func (p *Provider) Rules(ctx context.Context, f authz.RuleFilter, page authz.Page) (rules []authz.Rule, next string, err error) {
	filter := bson.M{"v1": p.config.App, "ptype": ptypePolicy}
	for field, value := range map[string]string{"v0": f.Subject, "v2": f.Object, "v3": f.Action} {
		if value != "" {
			filter[field] = value
		}
	}
	order := bson.D{{Key: "v0", Value: 1}, {Key: "v2", Value: 1}, {Key: "v3", Value: 1}, {Key: "v4", Value: 1}}
	if page.After != "" {
		var last []string
		if json.Unmarshal([]byte(page.After), &last) != nil || len(last) != len(order) {
			return nil, "", &authz.ValueError{Field: "after", Message: "is not the end of a page"}
		}
		filter["$or"] = behind(order, last)
	}
	found, more, err := p.list(ctx, filter, order, page.Size())
	if err != nil {
		return nil, "", err
	}
	rules = make([]authz.Rule, len(found))
	for i, r := range found {
		rules[i] = r.rule()
	}
	if more {
		last := rules[len(rules)-1]
		raw, err := json.Marshal([]string{last.Subject, last.Object, last.Action, string(last.Effect)})
		if err != nil {
			return nil, "", err
		}
		next = string(raw)
	}
	return rules, next, nil
}

// behind selects what comes after the values in the order.
func behind(order bson.D, values []string) bson.A {
	var out bson.A
	equal := bson.M{}
	for i, value := range values {
		part := maps.Clone(equal)
		part[order[i].Key] = bson.M{"$gt": value}
		out = append(out, part)
		equal[order[i].Key] = value
	}
	return out
}

func (p *Provider) list(ctx context.Context, filter bson.M, order bson.D, limit int) (found []row, more bool, err error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	cursor, err := p.store.coll.Find(ctx, filter, options.Find().SetSort(order).SetLimit(int64(limit)+1))
	if err != nil {
		return nil, false, unavailable(store.Error("list the policy", err))
	}
	var docs []bson.Raw
	if err := cursor.All(ctx, &docs); err != nil {
		return nil, false, unavailable(store.Error("list the policy", err))
	}
	for _, doc := range docs {
		r, err := decode(doc, p.config.App, p.grammar)
		if err != nil {
			return nil, false, &DamagedError{Collection: p.store.coll.Name(), ID: doc.Lookup("_id"), Message: err.Error()}
		}
		found = append(found, r)
	}
	if len(found) > limit {
		return found[:limit], true, nil
	}
	return found, false, nil
}
