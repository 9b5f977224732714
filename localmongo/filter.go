package localmongo

import (
	"errors"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
	"github.com/256dpi/lungo/mongokit"
)

// checkFilter refuses a filter that cannot be judged before any document is
// looked at: lungo reports an unknown operator only when it comes to it, so a
// filter that fails on a server could pass here for want of documents.
func checkFilter(filter bson.D) error {
	for _, e := range filter {
		switch {
		case e.Key == "$and" || e.Key == "$or" || e.Key == "$nor":
			list, ok := e.Value.(bson.A)
			if !ok || len(list) == 0 {
				return failf(codeBadValue, "%s must be a nonempty array", e.Key)
			}
			for _, item := range list {
				inner, ok := item.(bson.D)
				if !ok {
					return failf(codeBadValue, "%s entries need to be full objects", e.Key)
				}
				if err := checkFilter(inner); err != nil {
					return err
				}
			}
		case strings.HasPrefix(e.Key, "$"):
			return failf(codeBadValue, "unknown top level operator: %s (not supported by localmongo)", e.Key)
		default:
			if err := checkCondition(e.Key, e.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkCondition checks what a field is compared with.
func checkCondition(path string, v any) error {
	if strings.Count(path, ".") >= maxStoredDepth {
		return failf(codeOverflow, "the path has more than %d parts", maxStoredDepth)
	}
	d, ok := v.(bson.D)
	if !ok || !isOperator(d) {
		return checkOperand(v)
	}
	for _, e := range d {
		if err := checkOperator(e.Key, e.Value); err != nil {
			return err
		}
	}
	return nil
}

func checkOperator(op string, v any) error {
	switch op {
	case "$eq", "$ne", "$gt", "$gte", "$lt", "$lte":
		return checkOperand(v)
	case "$in", "$nin", "$all":
		list, ok := v.(bson.A)
		if !ok {
			return failf(codeBadValue, "%s needs an array", op)
		}
		for _, item := range list {
			if d, isDoc := item.(bson.D); isDoc && isOperator(d) {
				return failf(codeBadValue, "cannot nest $ under %s", op)
			}
		}
		return checkOperand(v)
	case "$not":
		d, ok := v.(bson.D)
		if !ok || !isOperator(d) {
			return failf(codeBadValue, "$not needs a document of operators")
		}
		return checkCondition("", d)
	case "$elemMatch":
		return checkElemMatch(v)
	case "$exists":
		if _, plain := isOff(v); !plain {
			return failf(codeBadValue, "$exists needs a boolean")
		}
		return nil
	case "$size":
		if class, _ := bsonkit.Inspect(v); class != bsonkit.Number {
			return failf(codeBadValue, "$size needs a number")
		}
		return nil
	case "$type":
		return checkType(v)
	default:
		return failf(codeBadValue, "unknown operator: %s (not supported by localmongo)", op)
	}
}

func checkType(v any) error {
	var known bool
	switch x := v.(type) {
	case string:
		_, known = bsonkit.Alias2Type[x]
		known = known || x == "number"
	case int32:
		_, known = bsonkit.Number2Type[byte(x)] //nolint:gosec // compared below
		known = known && x >= 0 && x <= 255
	}
	if !known {
		return failf(codeBadValue, "$type needs the name or the number of one type")
	}
	return nil
}

func checkElemMatch(v any) error {
	d, ok := v.(bson.D)
	if !ok {
		return failf(codeBadValue, "$elemMatch needs an Object")
	}
	for _, e := range d {
		if e.Key != "" && e.Key[0] == '$' {
			if err := checkOperator(e.Key, e.Value); err != nil {
				return err
			}
		} else if err := checkCondition(e.Key, e.Value); err != nil {
			return err
		}
	}
	return nil
}

// checkOperand refuses values that nothing can be compared with here.
func checkOperand(v any) error {
	if _, ok := v.(primitive.Regex); ok {
		return failf(codeBadValue, "regular expressions are not supported by localmongo")
	}
	if list, ok := v.(bson.A); ok {
		for _, item := range list {
			if _, ok := item.(primitive.Regex); ok {
				return failf(codeBadValue, "regular expressions are not supported by localmongo")
			}
		}
	}
	return checkValue(v, 0)
}

func isOperator(d bson.D) bool {
	return len(d) > 0 && len(d[0].Key) > 0 && d[0].Key[0] == '$'
}

// matchNe is true where no element equals: lungo's is true where one differs.
func matchNe(ctx mongokit.Context, doc bsonkit.Doc, op, path string, v any) error {
	err := mongokit.ExpressionQueryOperators["$in"](ctx, doc, op, path, bson.A{v})
	if err == nil {
		return mongokit.ErrNotMatched
	}
	if errors.Is(err, mongokit.ErrNotMatched) {
		return nil
	}
	return err
}

// matchExists looks into arrays and takes numbers, which lungo's does not.
func matchExists(_ mongokit.Context, doc bsonkit.Doc, _, path string, v any) error {
	value, many := bsonkit.All(doc, path, true, true)
	there := value != any(bsonkit.Missing)
	if list, ok := value.(bson.A); ok && many {
		there = len(list) > 0
	}
	if off, _ := isOff(v); there == off {
		return mongokit.ErrNotMatched
	}
	return nil
}

// query is what all commands have in common that look for documents.
type query struct {
	filter, sort bson.D
	skip, limit  int64
}

// parseQuery reads and checks the members filterKey, "sort", "skip" and
// "limit", as far as the command has them.
func parseQuery(a *args, filterKey string) (*query, error) {
	var q query
	var err error
	if q.filter, err = a.doc(filterKey); err != nil {
		return nil, err
	}
	if err := checkFilter(q.filter); err != nil {
		return nil, err
	}
	if q.sort, err = a.doc("sort"); err != nil {
		return nil, err
	}
	if _, err := columns(q.sort); err != nil {
		return nil, err
	}
	if q.skip, err = a.number("skip", 0); err != nil {
		return nil, err
	}
	if q.limit, err = a.number("limit", 0); err != nil {
		return nil, err
	}
	if q.skip < 0 {
		return nil, failf(codeBadValue, "BSON field 'skip' value must be >= 0, actual value '%d'", q.skip)
	}
	if q.limit < 0 {
		q.limit = -q.limit
	}
	return &q, nil
}

func columns(sort bson.D) ([]bsonkit.Column, error) {
	out, err := mongokit.Columns(&sort)
	if err != nil {
		return nil, failf(codeBadValue, "sort: %s (nothing else is supported by localmongo)", err)
	}
	return out, nil
}

// run returns the documents that are asked for, of a collection that may be
// nil.
func (q *query) run(c *mongokit.Collection) (bsonkit.List, error) {
	if c == nil {
		return nil, nil
	}
	most := 0
	if len(q.sort) == 0 && q.limit > 0 && q.limit < 1<<30 && q.skip < 1<<30 {
		most = int(q.skip + q.limit)
	}
	list, err := mongokit.Filter(c.Documents.List, &q.filter, most)
	if err != nil {
		return nil, failf(codeBadValue, "%s", err)
	}
	if list, err = sortDocs(list, q.sort); err != nil {
		return nil, err
	}
	list = list[min(q.skip, int64(len(list))):]
	if q.limit > 0 {
		list = list[:min(q.limit, int64(len(list)))]
	}
	return list, nil
}

// sortDocs returns the list in order. What is equal keeps its order: lungo's
// own sort takes the order of addresses.
func sortDocs(list bsonkit.List, by bson.D) (bsonkit.List, error) {
	if len(by) == 0 {
		return list, nil
	}
	order, err := columns(by)
	if err != nil {
		return nil, err
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(x, y bsonkit.Doc) int { return bsonkit.Order(x, y, order, false) })
	return list, nil
}

// target returns the namespace that the command is about.
func (a *args) target() (lungo.Handle, error) {
	name, err := a.collection()
	return lungo.Handle{a.db, name}, err
}
