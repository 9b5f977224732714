package localmongo

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/256dpi/lungo/bsonkit"
	"github.com/256dpi/lungo/mongokit"
)

var registerOnce sync.Once

// maxBackfill is how far beyond the end of an array an element may be set: the
// gap is filled with nulls.
const maxBackfill = 1_500_000

// registerOperators adds the operators that lungo lacks to its tables, replaces
// those that it has in part, and guards all that write. The tables are lungo's
// only way in and are shared by the process; what is added behaves as MongoDB's.
func registerOperators() {
	registerOnce.Do(func() {
		mongokit.FieldUpdateOperators["$push"] = applyPush
		mongokit.FieldUpdateOperators["$addToSet"] = applyAddToSet
		mongokit.FieldUpdateOperators["$pull"] = applyPull
		mongokit.FieldUpdateOperators["$pullAll"] = applyPullAll
		mongokit.FieldUpdateOperators["$currentDate"] = applyCurrentDate
		mongokit.FieldUpdateOperators["$inc"] = whole(mongokit.FieldUpdateOperators["$inc"], sum)
		mongokit.FieldUpdateOperators["$mul"] = whole(mongokit.FieldUpdateOperators["$mul"], product)
		for name, op := range mongokit.FieldUpdateOperators {
			mongokit.FieldUpdateOperators[name] = guarded(op)
		}
		for name, op := range mongokit.ExpressionExtractOperators {
			mongokit.ExpressionExtractOperators[name] = guarded(op)
		}
		mongokit.ExpressionQueryOperators["$ne"] = matchNe
		mongokit.ExpressionQueryOperators["$exists"] = matchExists
	})
}

// guarded refuses paths at which lungo would recurse or allocate without bound.
func guarded(op mongokit.Operator) mongokit.Operator {
	return func(ctx mongokit.Context, doc bsonkit.Doc, name, path string, v any) error {
		if err := checkPath(doc, path); err != nil {
			return err
		}
		if to, ok := v.(string); ok && name == "$rename" {
			if err := checkPath(doc, to); err != nil {
				return err
			}
		}
		return op(ctx, doc, name, path, v)
	}
}

func checkPath(doc bsonkit.Doc, path string) error {
	parts := strings.Split(path, ".")
	if len(parts) > maxStoredDepth {
		return failf(codeOverflow, "the path has more than %d parts", maxStoredDepth)
	}
	var at any = *doc
	for _, part := range parts {
		switch x := at.(type) {
		case bson.D:
			at = nil
			for _, e := range x {
				if e.Key == part {
					at = e.Value
				}
			}
		case bson.A:
			i, isIndex := bsonkit.ParseIndex(part)
			if isIndex && i > len(x)+maxBackfill {
				return failf(codeBadValue, "cannot backfill more than %d elements at '%s'", maxBackfill, path)
			}
			if !isIndex || i >= len(x) {
				return nil
			}
			at = x[i]
		default:
			return nil
		}
	}
	return nil
}

// array returns the array at path. A missing one is empty and not there.
func array(doc bsonkit.Doc, op, path string) (list bson.A, there bool, err error) {
	switch v := bsonkit.Get(doc, path).(type) {
	case bson.A:
		return slices.Clone(v), true, nil
	case bsonkit.MissingType:
		return nil, false, nil
	default:
		return nil, false, failf(codeBadValue, "The field '%s' must be an array but is of type %T in %s", path, v, op)
	}
}

// setArray stores the new array and records the change.
func setArray(ctx mongokit.Context, doc bsonkit.Doc, path string, list bson.A) error {
	if list == nil {
		list = bson.A{}
	}
	return setValue(ctx, doc, path, list)
}

func setValue(ctx mongokit.Context, doc bsonkit.Doc, path string, v any) error {
	if _, err := bsonkit.Put(doc, path, v, false); err != nil {
		return err
	}
	changes, ok := ctx.Value.(*mongokit.Changes)
	if !ok {
		return fmt.Errorf("no record of changes at %q", path)
	}
	return changes.Record(path, v)
}

// modifiers are the options of $push and $addToSet.
type modifiers struct {
	each     bson.A
	position *int64
	slice    *int64
	sort     any
}

func parseModifiers(op string, v any, allowed ...string) (*modifiers, error) {
	d, ok := v.(bson.D)
	if !ok || len(d) == 0 || !slices.ContainsFunc(d, func(e bson.E) bool { return e.Key == "$each" }) {
		return &modifiers{each: bson.A{v}}, nil
	}
	a := &args{name: op}
	a, err := a.sub("modifiers", d, allowed...)
	if err != nil {
		return nil, failf(codeBadValue, "unrecognized clause in %s: %v", op, d)
	}
	var m modifiers
	if m.each, ok = a.values["$each"].(bson.A); !ok {
		return nil, failf(codeBadValue, "The argument to $each in %s must be an array", op)
	}
	for key, target := range map[string]**int64{"$position": &m.position, "$slice": &m.slice} {
		if _, there := a.values[key]; !there {
			continue
		}
		n, err := a.number(key, 0)
		if err != nil {
			return nil, err
		}
		*target = &n
	}
	m.sort = a.values["$sort"]
	return &m, nil
}

func applyPush(ctx mongokit.Context, doc bsonkit.Doc, op, path string, v any) error {
	m, err := parseModifiers(op, v, "$each", "$position", "$slice", "$sort")
	if err != nil {
		return err
	}
	list, _, err := array(doc, op, path)
	if err != nil {
		return err
	}
	at := int64(len(list))
	if m.position != nil {
		at = *m.position
		if at < 0 {
			at = max(0, int64(len(list))+at)
		}
		at = min(at, int64(len(list)))
	}
	list = slices.Insert(list, int(at), m.each...)
	if m.sort != nil {
		if err := sortValues(list, m.sort); err != nil {
			return err
		}
	}
	if m.slice != nil {
		list = sliceValues(list, *m.slice)
	}
	return setArray(ctx, doc, path, list)
}

// sortValues sorts as $sort of $push: values by 1 or -1, documents by fields.
func sortValues(list bson.A, by any) error {
	if fields, ok := by.(bson.D); ok {
		columns, err := mongokit.Columns(&fields)
		if err != nil {
			return failf(codeBadValue, "%s", err)
		}
		slices.SortStableFunc(list, func(x, y any) int {
			for _, c := range columns {
				order := bsonkit.Compare(element(x, c.Path), element(y, c.Path))
				if c.Reverse {
					order = -order
				}
				if order != 0 {
					return order
				}
			}
			return 0
		})
		return nil
	}
	if !isDirection(by) {
		return failf(codeBadValue, "The $sort is invalid: use 1/-1 to sort the whole element, or {field:1/-1} to sort embedded fields")
	}
	reverse := bsonkit.Compare(by, int32(0)) < 0
	slices.SortStableFunc(list, func(x, y any) int {
		if reverse {
			return bsonkit.Compare(y, x)
		}
		return bsonkit.Compare(x, y)
	})
	return nil
}

func element(v any, path string) any {
	d, ok := v.(bson.D)
	if !ok {
		return bsonkit.Missing
	}
	return bsonkit.Get(&d, path)
}

func sliceValues(list bson.A, n int64) bson.A {
	size := int64(len(list))
	if n >= 0 {
		return list[:min(n, size)]
	}
	return list[max(0, size+n):]
}

func applyAddToSet(ctx mongokit.Context, doc bsonkit.Doc, op, path string, v any) error {
	m, err := parseModifiers(op, v, "$each")
	if err != nil {
		return err
	}
	list, there, err := array(doc, op, path)
	if err != nil {
		return err
	}
	grown := false
	for _, item := range m.each {
		if !slices.ContainsFunc(list, func(x any) bool { return bsonkit.Compare(x, item) == 0 }) {
			list, grown = append(list, item), true
		}
	}
	if !grown && there {
		return nil
	}
	return setArray(ctx, doc, path, list)
}

// applyPull removes the elements that equal the value or match the condition.
func applyPull(ctx mongokit.Context, doc bsonkit.Doc, op, path string, v any) error {
	var failure error
	return pull(ctx, doc, op, path, func(item any) bool {
		condition, ok := v.(bson.D)
		if !ok {
			return bsonkit.Compare(item, v) == 0
		}
		var matched bool
		var err error
		if d, isDoc := item.(bson.D); isDoc && !isOperator(condition) {
			matched, err = mongokit.Match(&d, &condition)
		} else {
			matched, err = mongokit.Match(&bson.D{{Key: "v", Value: item}}, &bson.D{{Key: "v", Value: condition}})
		}
		if err != nil {
			failure = failf(codeBadValue, "%s", err)
		}
		return matched
	}, &failure)
}

func applyPullAll(ctx mongokit.Context, doc bsonkit.Doc, op, path string, v any) error {
	values, ok := v.(bson.A)
	if !ok {
		return failf(codeBadValue, "$pullAll requires an array argument")
	}
	var failure error
	return pull(ctx, doc, op, path, func(item any) bool {
		return slices.ContainsFunc(values, func(x any) bool { return bsonkit.Compare(x, item) == 0 })
	}, &failure)
}

func pull(ctx mongokit.Context, doc bsonkit.Doc, op, path string, out func(any) bool, failure *error) error {
	list, there, err := array(doc, op, path)
	if err != nil || !there {
		return err
	}
	kept := slices.DeleteFunc(slices.Clone(list), out)
	if *failure != nil {
		return *failure
	}
	if len(kept) == len(list) {
		return nil
	}
	return setArray(ctx, doc, path, kept)
}

// applyCurrentDate replaces lungo's, which forgets to record {$type: …}.
func applyCurrentDate(ctx mongokit.Context, doc bsonkit.Doc, op, path string, v any) error {
	kind := any("date")
	switch x := v.(type) {
	case bool:
	case bson.D:
		if len(x) != 1 || x[0].Key != "$type" {
			return failf(codeBadValue, "%s takes true or {$type: …}", op)
		}
		kind = x[0].Value
	default:
		return failf(codeBadValue, "%s takes true or {$type: …}", op)
	}
	var now any
	switch kind {
	case "date":
		now = primitive.NewDateTimeFromTime(time.Now())
	case "timestamp":
		now = bsonkit.Now()
	default:
		return failf(codeBadValue, "%s: $type is 'date' or 'timestamp'", op)
	}
	return setValue(ctx, doc, path, now)
}

// whole makes $inc and $mul of integers grow from 32 to 64 bits and fail beyond:
// lungo's wrap around.
func whole(other mongokit.Operator, combine func(a, b int64) (int64, bool)) mongokit.Operator {
	return func(ctx mongokit.Context, doc bsonkit.Doc, op, path string, v any) error {
		field := bsonkit.Get(doc, path)
		if field == any(bsonkit.Missing) {
			field = int32(0)
		}
		a, wideA, okA := integer(field)
		b, wideB, okB := integer(v)
		if !okA || !okB {
			return other(ctx, doc, op, path, v)
		}
		n, ok := combine(a, b)
		if !ok {
			return failf(codeBadValue, "Failed to apply %s operations to current value (%d) of '%s': it would overflow", op, a, path)
		}
		if !wideA && !wideB && n == int64(int32(n)) { //nolint:gosec // the comparison is the check
			return setValue(ctx, doc, path, int32(n)) //nolint:gosec // it fits
		}
		return setValue(ctx, doc, path, n)
	}
}

func integer(v any) (n int64, wide, ok bool) {
	switch x := v.(type) {
	case int32:
		return int64(x), false, true
	case int64:
		return x, true, true
	default:
		return 0, false, false
	}
}

func sum(a, b int64) (int64, bool) {
	n := a + b
	return n, (n > a) == (b > 0)
}

func product(a, b int64) (int64, bool) {
	if a == 0 || b == 0 {
		return 0, true
	}
	n := a * b
	return n, n/b == a && (n < 0) == ((a < 0) != (b < 0))
}
