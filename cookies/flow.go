package cookies

import (
	"net/http"
	"strings"
	"time"
)

// maxFlows is how many flows of one browser are kept: each is a cookie of up to 4 KiB
// that is sent with every request.
const maxFlows = 3

// flowSuffix is what names of flows have behind the slug; the flow's id follows. No slug
// has a dot, so that the cookies of no other app begin alike.
const flowSuffix = "_flow."

// FlowName returns the name of the cookie of a sign-in by another provider that is under
// way. Each has one of its own, so that two tabs do not take each other's. It is a
// "__Host-" cookie, whatever the others are: no other host of the domain can plant one.
func (j *Jar) FlowName(id string, secure bool) string {
	name := j.config.Slug + flowSuffix + id
	if secure {
		return "__Host-" + name
	}
	return name
}

// SetFlow sets the cookie of a flow. It is SameSite=Lax, whatever the others are: it has
// to come back from the other provider's site. When the browser has more flows than
// anybody follows, those before are taken away. The error is [ErrTooLarge] or [ErrInvalid].
func (j *Jar) SetFlow(w http.ResponseWriter, r *http.Request, id string, secure bool, value string, expires time.Time) error {
	c := j.flow(id, secure) //nolint:gosec // Secure is off on the loopback interface and in development only
	c.Value = value
	if err := check(c); err != nil {
		return err
	}
	prefix := j.FlowName("", secure)
	var before []string
	for _, there := range r.Cookies() {
		if other, ok := strings.CutPrefix(there.Name, prefix); ok && other != id {
			before = append(before, other)
		}
	}
	if len(before) >= maxFlows {
		for _, other := range before {
			j.ClearFlow(w, other, secure)
		}
	}
	c.Expires, c.MaxAge = expires, max(1, int(expires.Sub(j.config.Now()).Seconds()))
	http.SetCookie(w, c)
	return nil
}

// ReadFlow returns the cookie of a flow, "" when the request has none. The error is
// [ErrDuplicate].
func (j *Jar) ReadFlow(r *http.Request, id string, secure bool) (string, error) {
	return read(r, j.FlowName(id, secure))
}

// ClearFlow takes the cookie of a flow away.
func (j *Jar) ClearFlow(w http.ResponseWriter, id string, secure bool) {
	takeAway(w, j.flow(id, secure))
}

func (j *Jar) flow(id string, secure bool) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // Secure is off on the loopback interface and in development
		Name: j.FlowName(id, secure), Path: "/", Secure: secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}
