package metrics

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// MaxValues is how many values each label keeps apart, not counting [Other].
const MaxValues = 32

// Other is the value that stands for all that a label does not keep apart.
const Other = "other"

// maxValue is how long a value may be, in bytes.
const maxValue = 64

// family keeps one T for each value of a label. Reading takes no lock: values are
// few and settle soon, so a new one replaces them all.
type family[T any] struct {
	create func() *T
	known  atomic.Pointer[values[T]]
	adding sync.Mutex
}

// values are searched one by one: for so few, most of them of different lengths,
// that takes a third of what a map takes.
type values[T any] struct {
	list  []value[T]
	other *T // nil until it is needed
}

type value[T any] struct {
	name string
	of   *T
}

func newFamily[T any](create func() *T) *family[T] {
	f := &family[T]{create: create}
	f.known.Store(&values[T]{})
	return f
}

// of returns what belongs to the value of that name, or to [Other] when it cannot
// have its own.
func (f *family[T]) of(name string) *T {
	known := f.known.Load()
	if t := known.find(name); t != nil {
		return t
	}
	if known.other != nil && !known.admits(name) {
		return known.other // a flood of new values takes no lock
	}
	return f.add(name)
}

func (f *family[T]) add(name string) *T {
	f.adding.Lock()
	defer f.adding.Unlock()
	known := f.known.Load()
	if t := known.find(name); t != nil {
		return t
	}
	t, next := f.create(), *known
	switch {
	case known.admits(name):
		// The name may be part of a whole request, which is not to be kept.
		next.list = append(slices.Clone(known.list), value[T]{name: strings.Clone(name), of: t})
	case known.other != nil:
		return known.other
	default:
		next.other = t
	}
	f.known.Store(&next)
	return t
}

func (v *values[T]) find(name string) *T {
	for i := range v.list {
		if v.list[i].name == name {
			return v.list[i].of
		}
	}
	return nil
}

// admits says whether a further value may have this name.
func (v *values[T]) admits(name string) bool {
	return len(v.list) < MaxValues && name != "" && name != Other && len(name) <= maxValue && utf8.ValidString(name)
}

// read returns what each value has, by the function that reads one.
func read[T, R any](f *family[T], one func(*T) R) map[string]R {
	known := f.known.Load()
	out := make(map[string]R, len(known.list)+1)
	for i := range known.list {
		out[known.list[i].name] = one(known.list[i].of)
	}
	if known.other != nil {
		out[Other] = one(known.other)
	}
	return out
}
