package cookies_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/cookies"
)

// with is a request that brings these cookies.
func with(pairs ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, pair := range pairs {
		r.Header.Add("Cookie", pair)
	}
	return r
}

// setFlow sets the cookie of a flow and returns what the browser is told.
func setFlow(t *testing.T, j *cookies.Jar, r *http.Request, id string, secure bool, value string) []*http.Cookie {
	t.Helper()
	w := httptest.NewRecorder()
	if err := j.SetFlow(w, r, id, secure, value, now.Add(10*time.Minute)); err != nil {
		t.Fatal(err)
	}
	return w.Result().Cookies()
}

// Byte for byte: the browser has to bring it back from the other provider's site, and to
// this host alone, whatever the other cookies are.
func TestSetFlow(t *testing.T) {
	t.Parallel()
	j := jar(t, func(c *cookies.Config) { c.Domain, c.SameSite = "example.com", http.SameSiteStrictMode })
	for secure, want := range map[bool]string{
		true:  "__Host-shop_flow.abc=v; Path=/; Expires=Fri, 02 Jan 2026 03:14:05 GMT; Max-Age=600; HttpOnly; Secure; SameSite=Lax",
		false: "shop_flow.abc=v; Path=/; Expires=Fri, 02 Jan 2026 03:14:05 GMT; Max-Age=600; HttpOnly; SameSite=Lax",
	} {
		got := header(t, func(w http.ResponseWriter) {
			if err := j.SetFlow(w, with(), "abc", secure, "v", now.Add(10*time.Minute)); err != nil {
				t.Error(err)
			}
		})
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		cleared := header(t, func(w http.ResponseWriter) { j.ClearFlow(w, "abc", secure) })
		name, _, _ := strings.Cut(want, "=")
		if !strings.HasPrefix(cleared, name+"=; Path=/; ") || !strings.Contains(cleared, "Max-Age=0") || strings.Contains(cleared, "Domain") || strings.Contains(cleared, "Secure;") != secure {
			t.Errorf("cleared with other attributes: %s", cleared)
		}
	}
	// Max-Age=0 would take the cookie away at once, and none would keep it for ever.
	late := header(t, func(w http.ResponseWriter) {
		if err := j.SetFlow(w, with(), "abc", true, "v", now.Add(-time.Hour)); err != nil {
			t.Error(err)
		}
	})
	if !strings.Contains(late, "Max-Age=1;") {
		t.Errorf("a flow that is over: %s", late)
	}
}

// Each flow has a cookie of its own, of its app and its protection.
func TestFlowNames(t *testing.T) {
	t.Parallel()
	j, other := jar(t), jar(t, func(c *cookies.Config) { c.Slug = "blog" })
	seen := map[string]bool{}
	for _, name := range []string{
		j.FlowName("a", true), j.FlowName("b", true), j.FlowName("a", false), other.FlowName("a", true), j.Name(cookies.Access, true), j.Name(cookies.Device, true),
	} {
		if seen[name] {
			t.Errorf("two cookies are called %s", name)
		}
		seen[name] = true
	}
	if name := j.FlowName("a", true); !strings.HasPrefix(name, "__Host-") {
		t.Errorf("%s can be planted by another host of the domain", name)
	}
}

func TestReadFlow(t *testing.T) {
	t.Parallel()
	j := jar(t)
	for name, c := range map[string]struct {
		r      *http.Request
		secure bool
		want   string
		err    error
	}{
		"its own":             {with("__Host-shop_flow.abc=v"), true, "v", nil},
		"none":                {with(), true, "", nil},
		"another flow's":      {with("__Host-shop_flow.abd=v"), true, "", nil},
		"another app's":       {with("__Host-blog_flow.abc=v"), true, "", nil},
		"an unprotected one":  {with("shop_flow.abc=v"), true, "", nil},
		"beside that":         {with("shop_flow.abc=planted; __Host-shop_flow.abc=v"), true, "v", nil},
		"on the loopback":     {with("shop_flow.abc=v"), false, "v", nil},
		"twice":               {with("__Host-shop_flow.abc=v; __Host-shop_flow.abc=w"), true, "", cookies.ErrDuplicate},
		"twice, in two lines": {with("__Host-shop_flow.abc=v", "__Host-shop_flow.abc=v"), true, "", cookies.ErrDuplicate},
		"two of others":       {with("__Host-shop_flow.x=v; __Host-shop_flow.x=w; __Host-shop_flow.abc=v"), true, "v", nil},
	} {
		if got, err := j.ReadFlow(c.r, "abc", c.secure); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// Flows that nobody follows any more are taken away with the fourth: a header of cookies
// that a server refuses would keep the browser out for good.
func TestFlowsBefore(t *testing.T) {
	t.Parallel()
	j := jar(t)
	flows := func(n int) (pairs []string) {
		for i := range n {
			pairs = append(pairs, fmt.Sprintf("__Host-shop_flow.%d=v", i))
		}
		return pairs
	}
	others := []string{"__Host-shop_access=a", "__Host-blog_flow.1=b", "shop_flow.1=c", "__Host-shop_flow_eu_access=e", "theirs=d"}
	for n, want := range map[int]int{0: 0, 2: 0, 3: 3, 9: 9} {
		list := setFlow(t, j, with(append(flows(n), others...)...), "new", true, "v")
		if len(list) != want+1 {
			t.Errorf("with %d: %v", n, list)
		}
		for _, c := range list {
			if c.Name == "__Host-shop_flow.new" {
				if c.Value != "v" || c.MaxAge != 600 {
					t.Errorf("with %d: its own is %v", n, c)
				}
			} else if c.MaxAge >= 0 || !strings.HasPrefix(c.Name, "__Host-shop_flow.") {
				t.Errorf("with %d: %v", n, c)
			}
		}
	}
	// The flow that is set again is none of those before.
	if list := setFlow(t, j, with(append(flows(2), "__Host-shop_flow.new=v")...), "new", true, "w"); len(list) != 1 {
		t.Errorf("%v", list)
	}
}

// What a browser would drop, or cut, is refused, and nothing else is changed then.
func TestSetFlowRefuses(t *testing.T) {
	t.Parallel()
	j := jar(t)
	full := with()
	for i := range 6 {
		full.AddCookie(&http.Cookie{Name: fmt.Sprintf("__Host-shop_flow.%d", i), Value: "v"})
	}
	name := len(j.FlowName("abc", true))
	for what, c := range map[string]struct {
		id, value string
		err       error
	}{
		"too large":           {"abc", strings.Repeat("v", 4096-name+1), cookies.ErrTooLarge},
		"not a cookie's":      {"abc", "a;b", cookies.ErrInvalid},
		"a line":              {"abc", "a\r\nSet-Cookie: x=y", cookies.ErrInvalid},
		"no name of a cookie": {"a b", "v", cookies.ErrInvalid},
		"a name of two":       {"a=b;", "v", cookies.ErrInvalid},
	} {
		w := httptest.NewRecorder()
		err := j.SetFlow(w, full, c.id, true, c.value, now.Add(time.Minute))
		if !errors.Is(err, c.err) || len(w.Header()) != 0 {
			t.Errorf("%s: %v, %v", what, err, w.Header())
		}
		if err != nil && len(c.value) > 100 && strings.Contains(err.Error(), c.value[:50]) {
			t.Errorf("%s: the error holds the value", what)
		}
	}
	if list := setFlow(t, j, with(), "abc", true, strings.Repeat("v", 4096-name)); len(list) != 1 {
		t.Errorf("the largest: %v", list)
	}
}
