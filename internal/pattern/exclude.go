package pattern

import (
	"net/url"
	"slices"
	"strings"
)

// Excluded are paths that are left out of something. The zero value has none. It is
// immutable and safe for concurrent use.
type Excluded struct {
	exact []string
	// below are prefixes, each with its slash at the end.
	below []string
}

// Exclude prepares paths: each stands for itself, or with "/*" at its end for all
// below it.
func Exclude(paths []string) (x Excluded) {
	for _, p := range paths {
		if prefix, all := strings.CutSuffix(p, "/*"); all {
			x.below = append(x.below, prefix+"/")
		} else {
			x.exact = append(x.exact, p)
		}
	}
	return x
}

// Match reports whether the path is left out. One that could be read in several ways
// is not: nobody hides a request by how it is spelt.
func (x *Excluded) Match(u *url.URL) bool {
	if slices.Contains(x.exact, u.Path) {
		return u.RawPath == ""
	}
	for _, prefix := range x.below {
		if strings.HasPrefix(u.Path, prefix) {
			return u.RawPath == "" && Clean(u.Path) && !strings.Contains(u.Path, ";")
		}
	}
	return false
}
