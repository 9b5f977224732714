// Package cookies names, sets, reads and clears the cookies of an app (RFC
// 6265bis): the access token, the refresh token and the device token.
package cookies

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Kind is what a cookie holds.
type Kind int

// The kinds.
const (
	// Access is the access token, sent with every request to the host.
	Access Kind = iota
	// Refresh is the refresh token, sent to the app's own routes only.
	Refresh
	// Device is the device token.
	Device
)

// suffix ends a cookie's name.
var suffix = [...]string{Access: "_access", Refresh: "_refresh", Device: "_device"}

// maxSize is what browsers keep of a name and a value together.
const maxSize = 4096

// Errors of this package.
var (
	// ErrDuplicate says that a request holds two of our cookies of one name: one
	// of them was planted.
	ErrDuplicate = errors.New("a cookie is given twice")
	// ErrTooLarge says that a value does not fit into a cookie.
	ErrTooLarge = errors.New("cookie too large")
	// ErrInvalid says that a value, or a configuration, holds what a cookie
	// cannot.
	ErrInvalid = errors.New("not valid in a cookie")
)

// Config configures a [Jar].
type Config struct {
	// Slug is the app's slug: it is part of every name, so that the apps of one
	// host do not collide.
	Slug string
	// BasePath is where the app's routes are: the path of the refresh cookie.
	BasePath string
	// SameSite is the attribute of that name. Default Lax. None needs
	// AlwaysSecure: browsers drop such a cookie otherwise.
	SameSite http.SameSite
	// AlwaysSecure sets Secure whatever the request looks like. Otherwise plain
	// HTTP on the loopback interface gets cookies without it.
	AlwaysSecure bool
	// InsecureDevelopment gives cookies without Secure to all plain HTTP.
	InsecureDevelopment bool
	// Domain is the attribute of that name. It gives up the __Host- prefix.
	Domain string
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Jar sets and reads the cookies of one app. It is safe for concurrent use.
type Jar struct {
	config Config
	names  [2][3]string // by secure, by kind
}

// New returns the jar that config describes. The error wraps [ErrInvalid] when a
// slug, path or domain cannot stand in a cookie.
func New(config Config) (*Jar, error) {
	if config.Slug == "" || !strings.HasPrefix(config.BasePath, "/") {
		return nil, errors.New("cookies: a slug and a base path are required")
	}
	if config.SameSite == http.SameSiteNoneMode && !config.AlwaysSecure {
		return nil, errors.New("cookies: SameSite=None needs AlwaysSecure")
	}
	if config.SameSite == 0 {
		config.SameSite = http.SameSiteLaxMode
	}
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	j := &Jar{config: config}
	for kind := range suffix {
		name := config.Slug + suffix[kind]
		prefix := "__Host-"
		// __Host- demands the path /, and forbids a domain.
		if config.Domain != "" || Kind(kind) == Refresh {
			prefix = "__Secure-"
		}
		j.names[0][kind], j.names[1][kind] = name, prefix+name
		// net/http leaves out what is not valid and says nothing: a cookie without
		// its domain or path would be sent elsewhere.
		if err := j.cookie(Kind(kind), true).Valid(); err != nil {
			return nil, fmt.Errorf("cookies: %w: %w", ErrInvalid, err)
		}
	}
	return j, nil
}

// Secure reports whether the cookies of a request carry Secure. encrypted says
// whether the request came over TLS, to this process or to a trusted proxy.
//
// A request that a proxy has passed on is not one of the loopback interface,
// whatever its Host says: proxies commonly send the name of their target there,
// and the cookies of a public site would lose Secure.
func (j *Jar) Secure(r *http.Request, encrypted bool) bool {
	if encrypted || j.config.AlwaysSecure {
		return true
	}
	return !j.config.InsecureDevelopment && (forwarded(r.Header) || !loopback(r.Host))
}

// forwarded reports whether a proxy says that it has passed the request on. Who
// says it does not matter: it can only make cookies stricter.
func forwarded(h http.Header) bool {
	return len(h["X-Forwarded-For"]) > 0 || len(h["X-Forwarded-Proto"]) > 0 || len(h["X-Forwarded-Host"]) > 0 || len(h["Forwarded"]) > 0
}

// loopback reports whether host, with or without a port, names this machine. It
// allocates nothing: it runs on every request with a cookie.
func loopback(host string) bool {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.IndexByte(host[i:], ']') < 0 {
		host = host[:i]
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "" || host[0] != '1' && host[0] != ':' && host[0] != '0' {
		return false // no address of this machine begins otherwise
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// Name returns the name of a cookie.
func (j *Jar) Name(kind Kind, secure bool) string {
	if secure {
		return j.names[1][kind]
	}
	return j.names[0][kind]
}

// Set sets a cookie until expires; a zero time lets it end with the browser. The
// error is [ErrTooLarge] or [ErrInvalid]; nothing is set then.
func (j *Jar) Set(w http.ResponseWriter, kind Kind, secure bool, value string, expires time.Time) error {
	c := j.cookie(kind, secure) //nolint:gosec // Secure is off on the loopback interface and in development only
	c.Value = value
	if err := check(c); err != nil {
		return err
	}
	if !expires.IsZero() {
		c.Expires = expires
		c.MaxAge = max(1, int(expires.Sub(j.config.Now()).Round(time.Second).Seconds()))
	}
	http.SetCookie(w, c)
	return nil
}

// check makes sure that browsers keep the cookie, as it is.
func check(c *http.Cookie) error {
	if size := len(c.Name) + len(c.Value); size > maxSize {
		return fmt.Errorf("%w: %s has %d bytes, at most %d", ErrTooLarge, c.Name, size, maxSize)
	}
	if err := c.Valid(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, c.Name, err)
	}
	return nil
}

// Clear takes a cookie away, with the attributes that it was set with.
func (j *Jar) Clear(w http.ResponseWriter, kind Kind, secure bool) {
	takeAway(w, j.cookie(kind, secure))
}

// takeAway sets a cookie so that browsers forget it.
func takeAway(w http.ResponseWriter, c *http.Cookie) { //nolint:gosec // it has the attributes that it was set with
	c.MaxAge = -1
	c.Expires = time.Unix(1, 0)
	http.SetCookie(w, c)
}

func (j *Jar) cookie(kind Kind, secure bool) *http.Cookie {
	path := "/"
	if kind == Refresh {
		path = j.config.BasePath
	}
	return &http.Cookie{ //nolint:gosec // Secure is off on the loopback interface and in development
		Name: j.Name(kind, secure), Path: path, Domain: j.config.Domain,
		Secure: secure, HttpOnly: true, SameSite: j.config.SameSite,
	}
}

// Read returns the value of a cookie, "" when the request has none. The error
// is [ErrDuplicate]. It allocates nothing.
//
// Names count exactly, and only the spelling that a response to this request
// would set: browsers protect the prefixed name from the plain pages of other
// hosts, so the other spelling beside it proves nothing and is not looked at.
func (j *Jar) Read(r *http.Request, kind Kind, secure bool) (string, error) {
	return read(r, j.Name(kind, secure))
}

func read(r *http.Request, name string) (string, error) {
	value, found := "", false
	for _, line := range r.Header["Cookie"] {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			k, v, ok := strings.Cut(strings.TrimLeft(pair, " \t"), "=")
			if !ok || k != name {
				continue
			}
			if found {
				return "", ErrDuplicate
			}
			value, found = strings.TrimRight(v, " \t"), true
		}
	}
	return value, nil
}
