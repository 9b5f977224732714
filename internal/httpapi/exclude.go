package httpapi

import (
	"net/http"
	"strings"

	"github.com/mandate-auth/mandate/engine/metrics"
	"github.com/mandate-auth/mandate/internal/pattern"
)

// excluded are the paths that the manifest leaves out of something.
type excluded struct {
	exact []string
	// below are prefixes, each with its slash at the end.
	below []string
}

// exclude prepares paths: each stands for itself, or with "/*" at its end for all
// below it.
func exclude(paths []string) (x excluded) {
	for _, p := range paths {
		if prefix, all := strings.CutSuffix(p, "/*"); all {
			x.below = append(x.below, prefix+"/")
		} else {
			x.exact = append(x.exact, p)
		}
	}
	return x
}

// match reports whether the request's path is left out. One that could be read in
// several ways is not: nobody hides a request by how it is spelt.
func (x *excluded) match(r *http.Request) bool {
	p := r.URL.Path
	for _, own := range x.exact {
		if p == own {
			return r.URL.RawPath == ""
		}
	}
	for _, prefix := range x.below {
		if strings.HasPrefix(p, prefix) {
			return r.URL.RawPath == "" && pattern.Clean(p)
		}
	}
	return false
}

// measured is what counts a request: nil, which counts nothing, for paths that the
// manifest leaves out.
func (a *API) measured(r *http.Request) *metrics.Collector {
	if a.unmeasured.match(r) {
		return nil
	}
	return a.config.Metrics
}
