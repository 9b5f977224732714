package httpapi

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// The address decides who is limited and logged: what a client writes itself
// must never be it.
func TestClientAddress(t *testing.T) {
	t.Parallel()
	trusted := prefixes("10.0.0.0/8", "2001:db8:ffff::/48")
	tests := []struct {
		name, peer string
		forwarded  []string
		trusted    []netip.Prefix
		want, net  string
	}{
		{"direct", "203.0.113.7:1234", nil, trusted, "203.0.113.7", "203.0.113.7"},
		{"forged by a stranger", "203.0.113.7:1", []string{"198.51.100.1"}, trusted, "203.0.113.7", "203.0.113.7"},
		{"nobody is trusted", "10.0.0.1:1", []string{"198.51.100.1"}, nil, "10.0.0.1", "10.0.0.1"},
		{"one proxy", "10.0.0.1:1", []string{"198.51.100.1"}, trusted, "198.51.100.1", "198.51.100.1"},
		{"the client's own words come first", "10.0.0.1:1", []string{"1.1.1.1, 198.51.100.1, 10.0.0.2"}, trusted, "198.51.100.1", "198.51.100.1"},
		{"several headers", "10.0.0.1:1", []string{"1.1.1.1", "198.51.100.1"}, trusted, "198.51.100.1", "198.51.100.1"},
		{"garbage stops", "10.0.0.1:1", []string{"198.51.100.1, garbage"}, trusted, "10.0.0.1", "10.0.0.1"},
		{"garbage before", "10.0.0.1:1", []string{"garbage, 198.51.100.1"}, trusted, "198.51.100.1", "198.51.100.1"},
		{"only proxies", "10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, trusted, "10.0.0.3", "10.0.0.3"},
		{"empty header", "10.0.0.1:1", []string{""}, trusted, "10.0.0.1", "10.0.0.1"},
		{"with a port", "10.0.0.1:1", []string{"198.51.100.1:4711"}, trusted, "198.51.100.1", "198.51.100.1"},
		{"IPv6", "[2001:db8:1:2:3::4%eth0]:1", nil, trusted, "2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
		{"IPv6 in brackets", "10.0.0.1:1", []string{"[2001:DB8:1:2:3::4]"}, trusted, "2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
		{"IPv4 in IPv6", "[::ffff:203.0.113.7]:1", nil, trusted, "203.0.113.7", "203.0.113.7"},
		{"mapped proxy", "[::ffff:10.0.0.1]:1", []string{"::ffff:198.51.100.1"}, trusted, "198.51.100.1", "198.51.100.1"},
		{"no port", "203.0.113.7", nil, trusted, "203.0.113.7", "203.0.113.7"},
		{"a socket", "@", nil, trusted, "invalid IP", ""},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = tt.peer
		r.Header["X-Forwarded-For"] = tt.forwarded
		addr := clientAddress(r, tt.trusted)
		if addr.String() != tt.want || network(addr) != tt.net {
			t.Errorf("%s: got %s of %q, want %s of %q", tt.name, addr, network(addr), tt.want, tt.net)
		}
	}
}

func TestEncrypted(t *testing.T) {
	t.Parallel()
	trusted := prefixes("10.0.0.0/8")
	for _, tt := range []struct {
		peer  string
		proto []string
		want  bool
	}{
		{"10.0.0.1:1", []string{"https"}, true},
		{"10.0.0.1:1", []string{"HTTPS"}, true},
		{"10.0.0.1:1", []string{"http"}, false},
		{"10.0.0.1:1", []string{"https", "http"}, false},
		{"10.0.0.1:1", nil, false},
		{"203.0.113.7:1", []string{"https"}, false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = tt.peer
		r.Header["X-Forwarded-Proto"] = tt.proto
		if got := encrypted(r, trusted); got != tt.want {
			t.Errorf("%s %v: %t", tt.peer, tt.proto, got)
		}
	}
}

func TestBearer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		lines []string
		want  string
		bad   bool
	}{
		{nil, "", false},
		{[]string{"Bearer abc.DEF-_~+/="}, "abc.DEF-_~+/=", false},
		{[]string{"bEaReR abc"}, "abc", false},
		{[]string{"Bearer   abc "}, "abc", false},
		{[]string{"Basic abc"}, "", false},
		{[]string{"Bearer"}, "", true},
		{[]string{"Bearer a b"}, "", true},
		{[]string{"Bearer a,b"}, "", true},
		{[]string{"Bearer a\tb"}, "", true},
		{[]string{"Bearer é"}, "", true},
		{[]string{"Bearer a", "Bearer a"}, "", true},
		{[]string{"Basic a", "Bearer a"}, "", true},
	} {
		r := &http.Request{Header: http.Header{"Authorization": tt.lines}}
		got, err := bearer(r)
		if got != tt.want || (err != nil) != tt.bad {
			t.Errorf("%q: got %q, %v", tt.lines, got, err)
		}
	}
}

func TestEveryCodeHasATemplate(t *testing.T) {
	t.Parallel()
	for _, c := range conditions {
		p := AsProblem(c.err)
		if p.Code != c.code || p.Status == 0 || !errors.Is(p, c.err) {
			t.Errorf("%v: %+v", c.err, p)
		}
	}
	for code, tmpl := range templates {
		if tmpl.status < 400 || tmpl.title == "" || !strings.HasSuffix(tmpl.detail, ".") {
			t.Errorf("%s: %+v", code, tmpl)
		}
	}
	secret := errors.New("dial tcp 10.1.2.3:27017: canary")
	if p := AsProblem(secret); p.Code != CodeInternal || strings.Contains(p.Detail, "canary") {
		t.Errorf("an unknown error is shown: %+v", p)
	}
}

func TestBodyFaultsComeTogether(t *testing.T) {
	t.Parallel()
	var email, id string
	var remember bool
	in := fields{"email": &email, "remember_me": &remember, "device": fields{"id": &id}}
	err := parseBody([]byte(`{"email":1,"role":"admin","remember_me":"x","device":{"id":null,"os":"x"}}`), in)
	var p *Problem
	if !errors.As(err, &p) || p.Code != CodeInvalidRequest {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, f := range p.Errors {
		got = append(got, f.Path+" "+f.Message)
	}
	want := []string{
		"device.id must not be null; leave it out", "device.os is not a member that this route knows", "email must be a string",
		"remember_me must be a boolean", "role is not a member that this route knows",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := parseBody([]byte(`{"email":"a","device":{"id":"x"}}`), in); err != nil || email != "a" || id != "x" {
		t.Errorf("a good body: %v, %q, %q", err, email, id)
	}
}

func FuzzBody(f *testing.F) {
	for _, s := range []string{`{"email":"a","device":{"id":"x"}}`, `{"email":{"$ne":""}}`, `{"a":1,"a":2}`, `[[[[`, `{"profile":{"a":null}}`, "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var email, id string
		var profile map[string]any
		err := parseBody(raw, fields{"email": &email, "profile": &profile, "device": fields{"id": &id}})
		var p *Problem
		if err != nil && (!errors.As(err, &p) || p.Status < 400 || p.Status >= 500) {
			t.Errorf("parseBody(%q) = %v", raw, err)
		}
	})
}

func FuzzClientAddress(f *testing.F) {
	f.Add("10.0.0.1:1", "198.51.100.1, 10.0.0.2")
	f.Add("[::1]:1", "::ffff:1.2.3.4,,x")
	trusted := prefixes("10.0.0.0/8")
	f.Fuzz(func(t *testing.T, peerAddr, forwarded string) {
		r := &http.Request{RemoteAddr: peerAddr, Header: http.Header{"X-Forwarded-For": {forwarded}}}
		got := clientAddress(r, trusted)
		if p := peer(r); got != p && !contains(trusted, p) {
			t.Errorf("%q %q: a stranger chose the address %s", peerAddr, forwarded, got)
		}
		if got.Is4In6() || got.Zone() != "" {
			t.Errorf("%q %q: %s is not canonical", peerAddr, forwarded, got)
		}
	})
}

func FuzzBearer(f *testing.F) {
	f.Add("Bearer abc")
	f.Add("bearer  a=b")
	f.Fuzz(func(t *testing.T, line string) {
		token, err := bearer(&http.Request{Header: http.Header{"Authorization": {line}}})
		if strings.ContainsAny(token, " \t\r\n,;\"") || (err != nil && token != "") {
			t.Errorf("%q: %q, %v", line, token, err)
		}
	})
}
