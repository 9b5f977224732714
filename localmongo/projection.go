package localmongo

import (
	"strings"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/256dpi/lungo/bsonkit"
)

// projection is what a command answers of each document. It is done here, not
// by lungo, whose projections keep only the last excluded field and do not look
// into arrays.
type projection struct {
	root    *field
	include bool // keep what root names, instead of leaving it out
	hideID  bool
}

// field is one part of the paths of a projection.
type field struct {
	inner map[string]*field
	end   bool
	slice *int64 // the number of elements to keep, from the end if negative
}

// parseProjection returns nil for a projection that keeps everything.
func parseProjection(spec bson.D) (*projection, error) {
	if len(spec) == 0 {
		return nil, nil
	}
	p := &projection{root: &field{}}
	decided, keepID := false, false
	for _, e := range spec {
		f, err := p.root.add(e.Key)
		if err != nil {
			return nil, err
		}
		if d, ok := e.Value.(bson.D); ok && len(d) == 1 && d[0].Key == "$slice" {
			n, err := (&args{name: "$slice", values: map[string]any{"$slice": d[0].Value}}).number("$slice", 0)
			if err != nil {
				return nil, err
			}
			f.slice = &n
			continue
		}
		off, plain := isOff(e.Value)
		switch {
		case !plain:
			return nil, failf(codeBadValue, "projection of %q: only 0, 1 and $slice are supported by localmongo", e.Key)
		case e.Key == "_id":
			p.hideID, keepID = off, !off
		case decided && off == p.include:
			return nil, mixedProjection(e.Key, off)
		default:
			p.include, decided = !off, true
		}
	}
	if !decided {
		p.include = keepID
	}
	delete(p.root.inner, "_id")
	return p, nil
}

func mixedProjection(key string, off bool) error {
	if off {
		return failf(31254, "Cannot do exclusion on field %s in inclusion projection", key)
	}
	return failf(31253, "Cannot do inclusion on field %s in exclusion projection", key)
}

func (f *field) add(path string) (*field, error) {
	parts := strings.Split(path, ".")
	if len(parts) > maxStoredDepth {
		return nil, failf(codeOverflow, "the path has more than %d parts", maxStoredDepth)
	}
	for _, part := range parts {
		if part == "" || part[0] == '$' {
			return nil, failf(codeBadValue, "projection of %q: not a path that is supported by localmongo", path)
		}
		if f.end {
			return nil, failf(31249, "Path collision at %s", path)
		}
		if f.inner == nil {
			f.inner = map[string]*field{}
		}
		if f.inner[part] == nil {
			f.inner[part] = &field{}
		}
		f = f.inner[part]
	}
	if f.end || f.inner != nil {
		return nil, failf(31250, "Path collision at %s", path)
	}
	f.end = true
	return f, nil
}

// apply returns what is asked for of doc, which stays as it is.
func (p *projection) apply(doc bsonkit.Doc) bson.D {
	if p == nil {
		return *doc
	}
	out := make(bson.D, 0, len(*doc))
	for _, e := range *doc {
		if e.Key == "_id" {
			if !p.hideID {
				out = append(out, e)
			}
		} else if v, keep := p.value(p.root.inner[e.Key], e.Value); keep {
			out = append(out, bson.E{Key: e.Key, Value: v})
		}
	}
	return out
}

// value projects the value of a field, which f is about unless it is nil.
func (p *projection) value(f *field, v any) (out any, keep bool) {
	switch {
	case f == nil:
		return v, !p.include
	case f.slice != nil:
		if list, ok := v.(bson.A); ok {
			return sliceValues(list, *f.slice), true
		}
		return v, true
	case f.end:
		return v, p.include
	}
	switch x := v.(type) {
	case bson.D:
		inner := make(bson.D, 0, len(x))
		for _, e := range x {
			if v, keep := p.value(f.inner[e.Key], e.Value); keep {
				inner = append(inner, bson.E{Key: e.Key, Value: v})
			}
		}
		return inner, true
	case bson.A:
		inner := make(bson.A, 0, len(x))
		for _, item := range x {
			if v, keep := p.value(f, item); keep {
				inner = append(inner, v)
			}
		}
		return inner, true
	default:
		return v, !p.include
	}
}

func (p *projection) applyAll(list bsonkit.List) bson.A {
	out := make(bson.A, len(list))
	for i, doc := range list {
		out[i] = p.apply(doc)
	}
	return out
}

// isOff reports whether v switches something off, and whether it is a plain
// switch at all.
func isOff(v any) (off, plain bool) {
	switch x := v.(type) {
	case bool:
		return !x, true
	case int32:
		return x == 0, true
	case int64:
		return x == 0, true
	case float64:
		return x == 0, true
	default:
		return false, false
	}
}
