package httpapi

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/mandate-auth/mandate/engine/event"
)

const (
	requestIDHeader = "X-Request-Id"
	// maxRequestID bounds the ids of proxies, in bytes.
	maxRequestID = 128
	// maxDescribed bounds, in bytes, what an event repeats of a request.
	maxDescribed = 256
)

// beginRequest gives the request an id, in the answer's header, and describes
// it in the context for events.
func (a *API) beginRequest(w http.ResponseWriter, r *http.Request) *http.Request {
	id := requestID(w)
	if id == "" {
		id = a.proxyRequestID(r)
	}
	if id == "" {
		var raw [8]byte
		_, _ = rand.Read(raw[:]) // never fails: see crypto/rand.Read
		id = hex.EncodeToString(raw[:])
	}
	w.Header().Set(requestIDHeader, id)
	described := event.Request{ID: id, Method: r.Method, Path: clip(r.URL.Path, maxDescribed), UserAgent: clip(r.UserAgent(), maxDescribed)}
	if addr := clientAddress(r, a.config.TrustedProxies); addr.IsValid() {
		described.IP = addr.String()
	}
	return r.WithContext(event.WithRequest(r.Context(), described))
}

// requestID is the id that the answer carries: the service's own, when a
// middleware of it has set one.
func requestID(w http.ResponseWriter) string { return w.Header().Get(requestIDHeader) }

// proxyRequestID returns the id that a trusted proxy gave the request, "" when
// there is none. Anybody else's could make the log entries of two requests look
// like those of one, or forge lines.
func (a *API) proxyRequestID(r *http.Request) string {
	lines := r.Header[requestIDHeader]
	if len(lines) != 1 || len(lines[0]) > maxRequestID || !contains(a.config.TrustedProxies, peer(r)) {
		return ""
	}
	for _, c := range []byte(lines[0]) {
		if !alphanumeric(c) && c != '-' && c != '_' && c != '.' {
			return ""
		}
	}
	return lines[0]
}

func alphanumeric(c byte) bool {
	return (c >= '0' && c <= '9') || (c|0x20 >= 'a' && c|0x20 <= 'z')
}

// clip returns the first n bytes of s, without half a character at the end.
func clip(s string, n int) string { return strings.ToValidUTF8(s[:min(len(s), n)], "") }
