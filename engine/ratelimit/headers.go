package ratelimit

import (
	"net/http"
	"strconv"
	"time"
)

// The fields that tell a client about its limit.
const (
	headerLimit     = "X-Ratelimit-Limit"
	headerRemaining = "X-Ratelimit-Remaining"
	headerState     = "Ratelimit"
	headerPolicy    = "Ratelimit-Policy"
)

// WriteHeaders adds what the client may know about d: X-RateLimit-Limit and
// X-RateLimit-Remaining, and RateLimit-Policy and RateLimit as in sections 3 and 4 of
// draft-ietf-httpapi-ratelimit-headers-11:
//
//	RateLimit-Policy: "login";q=5;w=300
//	RateLimit: "login";r=4;t=120
//
// The parameter t is [Decision.ResetAfter], the time within which the client can use
// no more than r. Times are whole seconds, rounded up: a client that believes them is
// never too early.
//
// A response on which several rules count has an item for each in the draft's fields,
// which are lists. The other two can hold one: they show the rule with the least
// remaining. The zero value of a decision is about no rule and writes nothing.
func (d Decision) WriteHeaders(h http.Header, rule Rule) {
	if d.Limit == 0 {
		return
	}
	var buf [128]byte
	b := append(buf[:0], '"')
	b = append(b, rule.Name...)
	b = append(b, '"')
	name := len(b)
	b = appendParameter(b, ";q=", d.Limit)
	b = appendParameter(b, ";w=", seconds(rule.Window))
	h.Add(headerPolicy, string(b))
	b = appendParameter(b[:name], ";r=", d.Remaining)
	b = appendParameter(b, ";t=", seconds(d.ResetAfter))
	h.Add(headerState, string(b))

	if other, err := strconv.Atoi(h.Get(headerRemaining)); err == nil && other <= d.Remaining {
		return
	}
	h.Set(headerLimit, strconv.Itoa(d.Limit))
	h.Set(headerRemaining, strconv.Itoa(d.Remaining))
}

func appendParameter(b []byte, name string, value int) []byte {
	return strconv.AppendInt(append(b, name...), int64(value), 10)
}

// seconds rounds up, so that nobody is told to come back too early.
func seconds(d time.Duration) int {
	return int((max(0, d) + time.Second - 1) / time.Second)
}
