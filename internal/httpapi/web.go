package httpapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// HeaderConfig says which security headers are sent.
type HeaderConfig struct {
	Enabled               bool
	HSTSMaxAge            time.Duration
	HSTSIncludeSubdomains bool
	HSTSPreload           bool
	FrameAncestors        string
	ReferrerPolicy        string
	TrustedProxies        []netip.Prefix
}

// SecurityHeaders returns a handler that sends the headers before next runs.
func SecurityHeaders(c HeaderConfig, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.set(w, r)
		next.ServeHTTP(w, r)
	})
}

func (c *HeaderConfig) set(w http.ResponseWriter, r *http.Request) { c.each(r, w.Header().Set) }

// fill sets the headers that the service has not set itself.
func (c *HeaderConfig) fill(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	c.each(r, func(name, value string) {
		if h.Get(name) == "" {
			h.Set(name, value)
		}
	})
}

func (c *HeaderConfig) each(r *http.Request, put func(name, value string)) {
	if !c.Enabled {
		return
	}
	put("X-Content-Type-Options", "nosniff")
	put("Content-Security-Policy", "frame-ancestors "+c.FrameAncestors)
	put("Referrer-Policy", c.ReferrerPolicy)
	if c.HSTSMaxAge > 0 && encrypted(r, c.TrustedProxies) {
		value := "max-age=" + strconv.Itoa(int(c.HSTSMaxAge.Seconds()))
		if c.HSTSIncludeSubdomains {
			value += "; includeSubDomains"
		}
		if c.HSTSPreload {
			value += "; preload"
		}
		put("Strict-Transport-Security", value)
	}
}

// CORSConfig says whose pages may read answers. Without origins nobody's.
type CORSConfig struct {
	Origins     []string
	Credentials bool
	Headers     []string
	MaxAge      time.Duration
}

// corsMethods are the methods of the routes.
const corsMethods = "GET, POST, PUT, PATCH, DELETE"

// apply sets the headers of the Fetch standard for an origin that is listed,
// and reports whether the request was a preflight that is answered now.
func (c *CORSConfig) apply(w http.ResponseWriter, r *http.Request) (answered bool) {
	if len(c.Origins) == 0 {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !c.allows(origin) {
		return false
	}
	if slices.Contains(c.Origins, "*") {
		h.Set("Access-Control-Allow-Origin", "*")
	} else {
		h.Set("Access-Control-Allow-Origin", origin)
		if c.Credentials {
			h.Set("Access-Control-Allow-Credentials", "true")
		}
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		h.Set("Access-Control-Expose-Headers", "RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-RateLimit-Limit, X-RateLimit-Remaining, X-Request-Id")
		return false
	}
	h.Set("Access-Control-Allow-Methods", corsMethods)
	h.Set("Access-Control-Allow-Headers", strings.Join(c.Headers, ", "))
	h.Set("Access-Control-Max-Age", strconv.Itoa(int(c.MaxAge.Seconds())))
	w.WriteHeader(http.StatusNoContent)
	return true
}

func (c *CORSConfig) allows(origin string) bool {
	return origin != "" && (slices.Contains(c.Origins, "*") || slices.Contains(c.Origins, origin))
}

// originGuard returns the check of the origin of state-changing requests. "*"
// is no origin: it trusts nobody.
func originGuard(trusted []string) (*http.CrossOriginProtection, error) {
	guard := http.NewCrossOriginProtection()
	for _, origin := range trusted {
		if origin == "*" {
			continue
		}
		if err := guard.AddTrustedOrigin(origin); err != nil {
			return nil, err
		}
	}
	return guard, nil
}

// crossOrigin reports whether the request changes state and comes from an
// origin that is neither ours nor trusted.
func (a *API) crossOrigin(r *http.Request) bool {
	if !a.config.CSRF {
		return false
	}
	if safeMethod(r.Method) && len(r.Header["Upgrade"]) > 0 {
		// A WebSocket begins as a GET that any page may make the browser send with
		// its cookies, and whoever opened it may read and write (CWE-1385).
		opening := *r
		opening.Method = http.MethodPost
		return a.origins.Check(&opening) != nil
	}
	return a.origins.Check(r) != nil
}

// safeMethod reports whether the method changes nothing.
func safeMethod(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// simple reports whether a page of another origin could have made the browser
// send this without asking first: our own routes take nothing that is simple.
func simple(r *http.Request) bool {
	return !isJSON(r.Header.Get("Content-Type")) && r.Header.Get("X-Requested-With") == ""
}
