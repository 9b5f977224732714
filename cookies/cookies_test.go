package cookies_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/cookies"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func jar(tb testing.TB, edit ...func(*cookies.Config)) *cookies.Jar {
	tb.Helper()
	config := cookies.Config{Slug: "shop", BasePath: "/auth", Now: func() time.Time { return now }}
	for _, f := range edit {
		f(&config)
	}
	j, err := cookies.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	return j
}

func header(t *testing.T, set func(http.ResponseWriter)) string {
	t.Helper()
	w := httptest.NewRecorder()
	set(w)
	return w.Header().Get("Set-Cookie")
}

// Byte for byte: a browser decides by these attributes who gets the token.
func TestSetCookie(t *testing.T) {
	t.Parallel()
	domain := func(c *cookies.Config) { c.Domain = "example.com" }
	strict := func(c *cookies.Config) { c.SameSite = http.SameSiteStrictMode }
	tests := []struct {
		name    string
		kind    cookies.Kind
		secure  bool
		expires time.Time
		edit    []func(*cookies.Config)
		want    string
	}{
		{"access", cookies.Access, true, time.Time{}, nil, "__Host-shop_access=v; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"refresh", cookies.Refresh, true, now.Add(time.Hour), nil, "__Secure-shop_refresh=v; Path=/auth; Expires=Fri, 02 Jan 2026 04:04:05 GMT; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"},
		{"device", cookies.Device, true, time.Time{}, nil, "__Host-shop_device=v; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"plain", cookies.Access, false, time.Time{}, nil, "shop_access=v; Path=/; HttpOnly; SameSite=Lax"},
		{"domain", cookies.Access, true, time.Time{}, []func(*cookies.Config){domain}, "__Secure-shop_access=v; Path=/; Domain=example.com; HttpOnly; Secure; SameSite=Lax"},
		{"strict", cookies.Access, true, time.Time{}, []func(*cookies.Config){strict}, "__Host-shop_access=v; Path=/; HttpOnly; Secure; SameSite=Strict"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j := jar(t, tt.edit...)
			got := header(t, func(w http.ResponseWriter) {
				if err := j.Set(w, tt.kind, tt.secure, "v", tt.expires); err != nil {
					t.Error(err)
				}
			})
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			cleared := header(t, func(w http.ResponseWriter) { j.Clear(w, tt.kind, tt.secure) })
			name, _, _ := strings.Cut(tt.want, "=")
			attributes := tt.want[strings.Index(tt.want, "HttpOnly"):]
			if !strings.HasPrefix(cleared, name+"=; ") || !strings.HasSuffix(cleared, attributes) || !strings.Contains(cleared, "Max-Age=0") {
				t.Errorf("cleared with other attributes: %s", cleared)
			}
		})
	}
}

func TestSecure(t *testing.T) {
	t.Parallel()
	tests := []struct {
		host      string
		encrypted bool
		edit      func(*cookies.Config)
		want      bool
	}{
		{"shop.example", true, nil, true},
		{"shop.example", false, nil, true},
		{"127.0.0.1:8080", false, nil, false},
		{"localhost:8080", false, nil, false},
		{"[::1]:8080", false, nil, false},
		{"localhost", false, nil, false},
		{"[::ffff:127.0.0.1]:80", false, nil, false},
		{"127.0.0.1.evil.example:80", false, nil, true},
		{"10.0.0.1:80", false, nil, true},
		{"1.example", false, nil, true},
		{"localhost.evil.example", false, nil, true},
		{"127.0.0.1:8080", true, nil, true},
		{"127.0.0.1", false, func(c *cookies.Config) { c.AlwaysSecure = true }, true},
		{"dev.example", false, func(c *cookies.Config) { c.InsecureDevelopment = true }, false},
		{"", false, nil, true},
	}
	for _, tt := range tests {
		j := jar(t)
		if tt.edit != nil {
			j = jar(t, tt.edit)
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = tt.host
		if got := j.Secure(r, tt.encrypted); got != tt.want {
			t.Errorf("Secure(%q, %t) = %t", tt.host, tt.encrypted, got)
		}
		// A proxy that sends the name of its target must not make a public site's
		// cookies plain.
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded"} {
			r.Header.Set(name, "x")
			if !j.Secure(r, tt.encrypted) && tt.host != "dev.example" {
				t.Errorf("Secure(%q) behind a proxy (%s) is false", tt.host, name)
			}
			r.Header.Del(name)
		}
	}
}

// Not parallel: it counts allocations.
func TestRead(t *testing.T) {
	j := jar(t)
	tests := []struct {
		lines []string
		want  string
		err   error
	}{
		{nil, "", nil},
		{[]string{"__Host-shop_access=abc"}, "abc", nil},
		{[]string{"a=b; __Host-shop_access=abc;c=d"}, "abc", nil},
		{[]string{"a=b", " __Host-shop_access=abc "}, "abc", nil},
		{[]string{"shop_access=planted"}, "", nil},
		{[]string{"__host-shop_access=planted"}, "", nil},
		{[]string{"__Host-shop_accessx=a; x__Host-shop_access=b; __Host-shop_access"}, "", nil},
		{[]string{"__Host-shop_access=a; __Host-shop_access=b"}, "", cookies.ErrDuplicate},
		{[]string{"__Host-shop_access=a", "__Host-shop_access=a"}, "", cookies.ErrDuplicate},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Cookie"] = tt.lines
		got, err := j.Read(r, cookies.Access, true)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Read(%q) = %q, %v, want %q, %v", tt.lines, got, err, tt.want, tt.err)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Cookie", "a=b; __Host-shop_access=abc")
	if n := testing.AllocsPerRun(100, func() { _, _ = j.Read(r, cookies.Access, true) }); n != 0 {
		t.Errorf("reading a cookie allocates %v times", n)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	if err := jar(t).Set(httptest.NewRecorder(), cookies.Access, true, strings.Repeat("x", 4096), time.Time{}); !errors.Is(err, cookies.ErrTooLarge) {
		t.Errorf("a cookie that browsers drop: %v", err)
	}
	for _, config := range []cookies.Config{
		{},
		{Slug: "a"},
		{Slug: "a", BasePath: "auth"},
		{Slug: "a b", BasePath: "/auth"},
		{Slug: "a=b", BasePath: "/auth"},
		{Slug: "a", BasePath: "/auth; Domain=evil.example"},
		{Slug: "a", BasePath: "/auth\r\nX: y"},
		{Slug: "a", BasePath: "/auth", Domain: "evil example"},
		{Slug: "a", BasePath: "/auth", SameSite: http.SameSiteNoneMode},
	} {
		if _, err := cookies.New(config); err == nil {
			t.Errorf("%+v was accepted", config)
		}
	}
}

// What net/http would leave out in silence is refused: a session that nobody got
// a cookie for, or half a value.
func TestSetRefusesWhatACookieCannotHold(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"a;b", "a\r\nSet-Cookie: evil=1", "a\"b", "a\\b", "é", "a\x00"} {
		w := httptest.NewRecorder()
		if err := jar(t).Set(w, cookies.Access, true, value, time.Time{}); !errors.Is(err, cookies.ErrInvalid) {
			t.Errorf("%q: %v", value, err)
		}
		if len(w.Header()) != 0 {
			t.Errorf("%q was refused and set: %v", value, w.Header())
		}
	}
}

// Name and value together: one byte more is what browsers drop.
func TestSetFillsACookie(t *testing.T) {
	t.Parallel()
	j := jar(t)
	room := 4096 - len(j.Name(cookies.Access, true))
	if err := j.Set(httptest.NewRecorder(), cookies.Access, true, strings.Repeat("x", room), time.Time{}); err != nil {
		t.Error(err)
	}
	if err := j.Set(httptest.NewRecorder(), cookies.Access, true, strings.Repeat("x", room+1), time.Time{}); !errors.Is(err, cookies.ErrTooLarge) {
		t.Errorf("one byte too many: %v", err)
	}
}

// Not parallel: it counts allocations.
func TestSecureAllocatesNothing(t *testing.T) {
	j := jar(t)
	for _, host := range []string{"shop.example", "localhost:8080", "[::1]:8080", "127.0.0.1"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		if n := testing.AllocsPerRun(100, func() { j.Secure(r, false) }); n != 0 {
			t.Errorf("%s: %v allocations", host, n)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("a=b; __Host-shop_access=abc")
	j := jar(f)
	f.Fuzz(func(t *testing.T, line string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Cookie"] = []string{line}
		v, err := j.Read(r, cookies.Access, true)
		if (v != "" || err != nil) && !strings.Contains(line, "__Host-shop_access=") {
			t.Errorf("Read(%q) = %q, %v", line, v, err)
		}
		if strings.Contains(v, ";") {
			t.Errorf("Read(%q) = %q", line, v)
		}
	})
}
