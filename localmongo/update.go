package localmongo

import (
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
	"github.com/256dpi/lungo/mongokit"
)

// change is one statement of an update command, or the update of a
// findAndModify.
type change struct {
	query
	update      bson.D
	replacement bool
	upsert      bool
	filters     bsonkit.List // of arrays
}

// parseChange reads and checks the members of the change.
func parseChange(a *args, queryKey, updateKey string) (*change, error) {
	q, err := parseQuery(a, queryKey)
	if err != nil {
		return nil, err
	}
	ch := &change{query: *q}
	if _, isPipeline := a.values[updateKey].(bson.A); isPipeline {
		return nil, failf(codeFailedToParse, "updates given as pipelines are not supported by localmongo")
	}
	if ch.update, err = a.doc(updateKey); err != nil {
		return nil, err
	}
	if ch.upsert, err = a.flag("upsert", false); err != nil {
		return nil, err
	}
	filters, err := a.docs("arrayFilters")
	if err != nil {
		return nil, err
	}
	for i := range filters {
		if err := checkFilter(filters[i]); err != nil {
			return nil, err
		}
		ch.filters = append(ch.filters, &filters[i])
	}
	if ch.replacement = !isOperator(ch.update); ch.replacement {
		for _, e := range ch.update {
			if strings.HasPrefix(e.Key, "$") {
				return nil, failf(codeDollarPrefixed, "The dollar ($) prefixed field '%s' is not allowed in the context of an update's replacement document.", e.Key)
			}
		}
		return ch, nil
	}
	return ch, checkOperators(ch.update)
}

// checkOperators refuses an update that no document could take, whether or not
// one is found.
func checkOperators(update bson.D) error {
	set := paths{whole: map[string]bool{}, above: map[string]bool{}}
	for _, e := range update {
		if mongokit.FieldUpdateOperators[e.Key] == nil {
			return failf(codeFailedToParse, "Unknown modifier: %s. Expected a valid update modifier (not supported by localmongo)", e.Key)
		}
		fields, ok := e.Value.(bson.D)
		if !ok {
			return failf(codeFailedToParse, "Modifiers operate on fields but %s was given a %T", e.Key, e.Value)
		}
		for _, f := range fields {
			if err := set.add(f.Key); err != nil {
				return err
			}
			if to, ok := f.Value.(string); ok && e.Key == "$rename" {
				if err := set.add(to); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// paths are the paths that an update touches. Two that contain each other
// conflict.
type paths struct{ whole, above map[string]bool }

func (p paths) add(path string) error {
	parts := strings.Split(path, ".")
	if len(parts) > maxStoredDepth {
		return failf(codeOverflow, "the path has more than %d parts", maxStoredDepth)
	}
	conflict := p.whole[path] || p.above[path]
	for i, part := range parts {
		switch {
		case part == "":
			return failf(codeEmptyFieldName, "The update path '%s' contains an empty field name, which is not allowed.", path)
		case part == "$":
			return failf(codeBadValue, "the positional operator of '%s' is not supported by localmongo", path)
		case part[0] == '$' && (i == 0 || !strings.HasPrefix(part, "$[")):
			return failf(codeDollarPrefixed, "The dollar ($) prefixed field '%s' in '%s' is not valid for storage.", part, path)
		}
		if i > 0 {
			prefix := strings.Join(parts[:i], ".")
			conflict = conflict || p.whole[prefix]
			p.above[prefix] = true
		}
	}
	if conflict {
		return failf(codeConflictingUpdate, "Updating the path '%s' would create a conflict at '%s'", path, path)
	}
	p.whole[path] = true
	return nil
}

// outcome is what a change has done.
type outcome struct {
	before, after bsonkit.List
	changed       int32
	upserted      bsonkit.Doc
}

// apply runs the change, on as many documents as its limit says.
func (ch *change) apply(t *tx, h lungo.Handle) (*outcome, error) {
	list, err := ch.run(t.catalog.Namespaces[h])
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		if !ch.upsert {
			return &outcome{}, nil
		}
		doc, err := ch.fresh()
		if err != nil {
			return nil, err
		}
		return &outcome{upserted: doc}, t.insert(h, doc)
	}
	res := &outcome{before: list}
	var swap []replacement
	for _, doc := range list {
		r, err := ch.on(doc)
		if err != nil {
			return nil, err
		}
		if same(r.before, r.after) {
			res.after = append(res.after, r.before)
			continue
		}
		res.after = append(res.after, r.after)
		swap = append(swap, r)
	}
	res.changed = int32(len(swap)) //nolint:gosec // bounded by the collection in memory
	return res, t.replace(h, swap)
}

// on makes the document that the change leaves of doc.
func (ch *change) on(doc bsonkit.Doc) (replacement, error) {
	if !ch.replacement {
		next := bsonkit.Clone(doc)
		changes, err := mongokit.Apply(next, &ch.filter, &ch.update, false, ch.filters)
		return replacement{doc, next, changes}, updateError(err)
	}
	next := bson.D{{Key: "_id", Value: bsonkit.Get(doc, "_id")}}
	for _, e := range ch.update {
		if e.Key != "_id" {
			next = append(next, e)
		} else if bsonkit.Compare(e.Value, next[0].Value) != 0 {
			return replacement{}, failf(codeImmutableField, "the (immutable) field '_id' was found to have been altered")
		}
	}
	return replacement{before: doc, after: &next}, nil
}

// fresh makes the document of an upsert that found none.
func (ch *change) fresh() (bsonkit.Doc, error) {
	doc, err := mongokit.Extract(&ch.filter)
	if err != nil {
		return nil, updateError(err)
	}
	if !ch.replacement {
		_, err := mongokit.Apply(doc, &ch.filter, &ch.update, true, ch.filters)
		return doc, updateError(err)
	}
	id := bsonkit.Get(doc, "_id")
	next := slices.Clone(ch.update)
	given := bsonkit.Get(&next, "_id")
	switch {
	case id == any(bsonkit.Missing):
	case given == any(bsonkit.Missing):
		next = slices.Insert(next, 0, bson.E{Key: "_id", Value: id})
	case bsonkit.Compare(id, given) != 0:
		return nil, failf(codeImmutableField, "the (immutable) field '_id' was found to have been altered")
	}
	return &next, nil
}
