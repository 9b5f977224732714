package issuers

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/internal/strictjwt"
)

// complete returns a copy of c with the defaults filled in.
func (c Config) complete() Config {
	c.AudienceClaim = cmp.Or(c.AudienceClaim, "aud")
	c.MinRefresh = cmp.Or(c.MinRefresh, 30*time.Second)
	c.MaxAge = cmp.Or(c.MaxAge, max(10*time.Minute, c.MinRefresh))
	c.MaxStale = cmp.Or(c.MaxStale, max(time.Hour, c.MaxAge))
	c.Timeout = cmp.Or(c.Timeout, 5*time.Second)
	c.MaxSize = cmp.Or(c.MaxSize, 512<<10)
	c.CacheSize = cmp.Or(c.CacheSize, 4096)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	c.Audience = slices.Clone(c.Audience)
	c.Algorithms = slices.Clone(c.Algorithms)
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{"RS256", "ES256", "EdDSA"}
	}
	c.TokenTypes = slices.Clone(c.TokenTypes)
	if len(c.TokenTypes) == 0 {
		c.TokenTypes = []string{"at+jwt", "application/at+jwt", "JWT", ""}
	}
	return c
}

const (
	// maxName is the greatest length of a name, and nameCharacters are what it is made
	// of: "|" ends it in the ids of principals.
	maxName        = 64
	nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
)

// check refuses a configuration that would accept too much or nothing.
func (c *Config) check() error {
	if c.Name == "" || c.Issuer == "" {
		return errors.New("name and issuer are required")
	}
	if len(c.Name) > maxName || strings.Trim(c.Name, nameCharacters) != "" {
		return fmt.Errorf("the name %q is not one of 1 to %d letters, digits, '-', '_' and '.'", c.Name, maxName)
	}
	if err := c.checkURLs(); err != nil {
		return fmt.Errorf("issuer %q: %w", c.Name, err)
	}
	if len(c.Audience) == 0 || slices.Contains(c.Audience, "") {
		return fmt.Errorf("issuer %q: audience is required: without it every token of the issuer would do", c.Name)
	}
	for i, name := range c.Algorithms {
		if !strictjwt.Known(name) {
			return fmt.Errorf("issuer %q: the algorithm %q is not one of RS256, RS384, RS512, ES256, ES384 and EdDSA", c.Name, name)
		}
		if slices.Contains(c.Algorithms[:i], name) {
			return fmt.Errorf("issuer %q: the algorithm %q is given twice", c.Name, name)
		}
	}
	if err := c.checkBounds(); err != nil {
		return fmt.Errorf("issuer %q: %w", c.Name, err)
	}
	return nil
}

func (c *Config) checkBounds() error {
	durations := []struct {
		name             string
		value, low, high time.Duration
	}{
		{"leeway", c.Leeway, 0, MaxLeeway},
		{"min refresh", c.MinRefresh, time.Second, MaxMaxAge},
		{"max age", c.MaxAge, c.MinRefresh, MaxMaxAge},
		{"max stale", c.MaxStale, c.MaxAge, MaxMaxAge},
		{"timeout", c.Timeout, time.Millisecond, 30 * time.Second},
	}
	for _, d := range durations {
		if d.value < d.low || d.value > d.high {
			return fmt.Errorf("%s %s is not between %s and %s", d.name, d.value, d.low, d.high)
		}
	}
	if c.MaxSize < 0 || c.MaxSize > 16<<20 || c.CacheSize < 0 {
		return errors.New("max size is not between 0 and 16 MiB, or cache size is negative")
	}
	return nil
}

func (c *Config) checkURLs() error {
	u, err := c.checkURL(c.Issuer)
	if err != nil {
		return err
	}
	if u.RawQuery != "" || u.ForceQuery {
		return fmt.Errorf("%q has a query", u.Redacted())
	}
	if c.JWKSURL == "" {
		return nil
	}
	_, err = c.checkURL(c.JWKSURL)
	return err
}

// checkURL parses an address that is called: https, or http to this machine where
// the configuration allows it.
func (c *Config) checkURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	switch {
	case u.Hostname() == "" || u.Opaque != "":
		return nil, fmt.Errorf("%q is not an absolute URL", u.Redacted())
	case u.User != nil || strings.Contains(text, "#"):
		return nil, fmt.Errorf("%q has a user or a fragment", u.Redacted())
	case u.Scheme == "https", u.Scheme == "http" && c.InsecureLoopback && loopback(u.Hostname()):
		return u, nil
	default:
		return nil, fmt.Errorf("%q does not begin with https://", u.Redacted())
	}
}

func loopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && address.IsLoopback())
}

// sameOrigin reports whether two addresses have scheme, host and port in common
// (RFC 6454 section 5).
func sameOrigin(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		return cmp.Or(u.Port(), map[string]string{"https": "443", "http": "80"}[u.Scheme])
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}
