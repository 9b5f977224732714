package pathrule

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/internal/pattern"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rule reads "GET,POST /path".
func rule(t testing.TB, text string) Rule {
	t.Helper()
	methods, text, found := strings.Cut(text, " ")
	if !found {
		methods, text = "", methods
	}
	p, err := pattern.ParsePath(text)
	if err != nil {
		t.Fatal(err)
	}
	r := Rule{Path: p}
	if methods != "" {
		r.Methods = strings.Split(methods, ",")
	}
	return r
}

func table(t testing.TB, rules ...string) *Table {
	t.Helper()
	list := make([]Rule, len(rules))
	for i, text := range rules {
		list[i] = rule(t, text)
	}
	return New(list)
}

// request is what a server makes of a request line.
func request(t testing.TB, method, target string, headers ...string) *http.Request {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Skipf("no server would take %q: %v", target, err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Method, r.URL, r.RequestURI = method, u, target
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestLookup(t *testing.T) {
	rules := table(t, "/public/*", "GET,POST /admin/*", "/admin/{section}/danger", "DELETE /items/{id}", "/items/{id}", "/Files/*")
	for _, test := range []struct {
		method, target string
		want           []int
	}{
		{"GET", "/public/a", []int{0}},
		{"GET", "/public", []int{0}},
		{"GET", "/other", []int{None}},
		{"GET", "/", []int{None}},
		{"GET", "/admin", []int{1}},
		{"HEAD", "/admin/x", []int{1}},
		{"PUT", "/admin/x", []int{None}},
		{"PUT", "/admin/x/danger", []int{2}},
		{"DELETE", "/items/7", []int{3}},
		{"GET", "/items/7/", []int{4}},
		{"GET", "/items/7?a=b", []int{4}},
		{"GET", "/items/7/x", []int{None}},
		{"GET", "/items/v1.2", []int{4}},
		{"GET", "/files/a", []int{None, 5}}, // in another case
		{"GET", "/Files/a", []int{5}},
		{"GET", "*", []int{None}},
	} {
		got, err := rules.Lookup(request(t, test.method, test.target), nil)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s %s: %v, %v; want %v", test.method, test.target, got, err, test.want)
		}
	}
}

// TestTricks: every spelling that something behind the rules could take for
// /admin/users comes under its rule, or is refused.
func TestTricks(t *testing.T) {
	rules := table(t, "GET /public/*", "DELETE /admin/{what}", "/admin/*")
	for _, target := range []string{
		"/admin/users", "/admin/users/", "/admin", "/admin/", "//admin/users", "/admin//users", "///admin///users", "/./admin/users", "/admin/./users", "/x/../admin/users",
		"/public/../admin/users", "/public/..//admin/users", "/admin/x/../users", "/admin/users/..", "/admin/users/.", "/%61dmin/users", "/admin%2fusers", "/admin%2Fusers",
		"/public%2f..%2fadmin%2fusers", "/public/..%2fadmin/users", "/public%2f../admin/users", "/%2fadmin/users", "/%2e/admin/users", "/public/%2e%2e/admin/users", "/public/%2E./admin/users",
		"/.%2fadmin/users", "/ADMIN/users", "/Admin/Users", "/aDmIn", "/%41dmin/users", "/admin./users", "/admin.", "/admin../users", "/admin%20/users", "/admin%20", "/admin;x=1/users",
		"/admin;/users", "/;x/admin/users", "/admin/users;x", "/public/..;/admin/users", "/public/..;a=b/admin/users", "/.;/admin/users", "/admin;.css", "/ADMIN;x./users",
		"/public/.;/../admin/users", "/admin/%2e%2e/admin/users", "/admin/?x", "/admin?_method=GET", "/admin/users?/public/x", "/admin#x", "/admin%23x/users", "/admin%3fx", "/public/..%23/admin", "/admin/..%2fadmin", "/public/x/../../admin",
		"http://other.example/admin/users", "/public/%2e%2e%2fadmin", "/public//../admin/users", "/public/%2e%2e;/admin", "/ADMIN.", "/admin%3bx/users", "/admin%3Bx",
	} {
		found, err := rules.Lookup(request(t, "GET", target), nil)
		if err != nil || !slices.Contains(found, 2) {
			t.Errorf("%s comes under %v, %v", target, found, err)
		}
	}
	for _, target := range []string{
		"/admin%00/users", "/public/%00/../admin", "/%00admin", "/admin%0a", "/admin%0d%0a/users", "/admin\\users", "/admin%5cusers", "/public/..%5cadmin", "/admin%ff",
		"/admin%252fusers", "/%2561dmin", "/public/%252e%252e/admin", "/admin%c0%af", "/admin%7f", "/admin%c2%85",
	} {
		if found, err := rules.Lookup(request(t, "GET", target), nil); !errors.Is(err, ErrPath) || found != nil {
			t.Errorf("%s: %v, %v; want ErrPath", target, found, err)
		}
	}
}

// TestOtherMethods: whoever names another method has to satisfy the rule of that
// one as well.
func TestOtherMethods(t *testing.T) {
	rules := table(t, "DELETE /items/{id}", "GET /items/{id}", "/items/{id}")
	for _, test := range []struct {
		r    *http.Request
		want []int
	}{
		{request(t, "POST", "/items/1"), []int{2}},
		{request(t, "POST", "/items/1", "X-HTTP-Method-Override", "DELETE"), []int{2, 0}},
		{request(t, "POST", "/items/1", "X-HTTP-Method-Override", "delete"), []int{2, 0}},
		{request(t, "POST", "/items/1", "X-HTTP-Method", " DELETE "), []int{2, 0}},
		{request(t, "POST", "/items/1", "X-Method-Override", "DELETE"), []int{2, 0}},
		{request(t, "POST", "/items/1", "X-Method-Override", "GET", "X-Method-Override", "DELETE"), []int{2, 1, 0}},
		{request(t, "POST", "/items/1?_method=DELETE"), []int{2, 0}},
		{request(t, "POST", "/items/1?a=b&_method=delete"), []int{2, 0}},
		{request(t, "POST", "/items/1?%5fmethod=delete&_method"), []int{2, 0}},
		{request(t, "GET", "/items/1", "X-HTTP-Method-Override", "HEAD"), []int{1}},
		{request(t, "delete", "/items/1"), []int{2, 0}},
		{request(t, "Get", "/items/1"), []int{2, 1}},
		{request(t, "BREW", "/items/1"), []int{2}},
	} {
		if got, err := rules.Lookup(test.r, nil); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s %s %v: %v, %v; want %v", test.r.Method, test.r.URL, test.r.Header, got, err, test.want)
		}
	}
}

func TestShadowed(t *testing.T) {
	for _, test := range []struct {
		rules []string
		want  int
	}{
		{[]string{"/a/*", "/a/b"}, 0},
		{[]string{"/a/{x}", "/a/b"}, 0},
		{[]string{"/a/b", "/a/{x}"}, None},
		{[]string{"GET /a/*", "/a/b"}, None},
		{[]string{"GET /a/*", "GET /a/b"}, 0},
		{[]string{"GET /a/*", "GET,POST /a/b"}, None},
		{[]string{"/x", "GET,POST /a/*", "POST /a/b"}, 1},
		{[]string{"/a/*", "/b/*"}, None},
	} {
		if got := table(t, test.rules...).Shadowed(len(test.rules) - 1); got != test.want {
			t.Errorf("%v: %d, want %d", test.rules, got, test.want)
		}
	}
}

// spell spells a path in one of the ways that something could read as the same.
func spell(r *rand.Rand, clean string) string {
	var b strings.Builder
	for _, segment := range strings.Split(strings.TrimPrefix(clean, "/"), "/") {
		b.WriteString([]string{"/", "/", "/", "//", "/./", "/x/../", "%2f", "/.;/", "/%2e/"}[r.IntN(9)])
		for _, c := range []byte(segment) {
			switch r.IntN(8) {
			case 0:
				b.WriteString(strings.ToUpper(string(c)))
			case 1:
				b.WriteString("%" + string("0123456789abcdef"[c>>4]) + string("0123456789ABCDEF"[c&15]))
			default:
				b.WriteByte(c)
			}
		}
		b.WriteString([]string{"", "", "", "", ";a=b", ".", "%20", ";"}[r.IntN(8)])
	}
	if text := b.String(); strings.HasPrefix(text, "/") {
		return text
	}
	return "/" + b.String()
}

// TestNeverWeaker: however a path is spelt, the rule of the plain path is among
// those that have to be satisfied.
func TestNeverWeaker(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	words := []string{"a", "b", "admin", "users"}
	several := 0
	for range 30_000 {
		var rules []string
		for range 1 + r.IntN(4) {
			text := ""
			for range 1 + r.IntN(3) {
				text += "/" + append(words, "{x}")[r.IntN(5)]
			}
			if r.IntN(2) == 0 {
				text += "/*"
			}
			for i := 0; strings.Contains(text, "{x}"); i++ {
				text = strings.Replace(text, "{x}", "{v"+string(rune('a'+i))+"}", 1)
			}
			rules = append(rules, text)
		}
		clean := ""
		for range 1 + r.IntN(3) {
			clean += "/" + words[r.IntN(4)]
		}
		tb := table(t, rules...)
		want, err := tb.Lookup(request(t, "GET", clean), nil)
		if err != nil || len(want) != 1 {
			t.Fatalf("%s: %v, %v", clean, want, err)
		}
		spelt := spell(r, clean)
		got, err := tb.Lookup(request(t, "GET", spelt), nil)
		if err != nil {
			t.Fatalf("%s: %v", spelt, err)
		}
		if !slices.Contains(got, want[0]) {
			t.Fatalf("rules %v: %s comes under %v, and %s under %v", rules, clean, want, spelt, got)
		}
		if len(got) > 1 {
			several++
		}
	}
	if several < 1000 {
		t.Fatalf("only %d spellings had several readings", several)
	}
}

// FuzzPathRules: whatever a server makes of a request line, the rule of what
// net/http would serve for it is among those found.
func FuzzPathRules(f *testing.F) {
	for _, target := range []string{"/admin/users", "//admin/%2e%2e;x/ADMIN.", "/a%2fb", "/%00", "*", "/..;/admin", "/a?_method=DELETE"} {
		f.Add("GET", target, "")
		f.Add("POST", target, "DELETE")
	}
	rules := table(f, "DELETE /admin/*", "/admin/{x}/{y}", "/admin/*", "/A/*")
	f.Fuzz(func(t *testing.T, method, target, override string) {
		r := request(t, method, target, "X-HTTP-Method-Override", override)
		found, err := rules.Lookup(r, nil)
		if err != nil {
			if !errors.Is(err, ErrPath) || found != nil {
				t.Fatalf("%v, %v", found, err)
			}
			return
		}
		if len(found) == 0 {
			t.Fatal("no rule, and not even the default")
		}
		if clean := path.Clean(r.URL.Path); pattern.Clean(clean) && strings.HasPrefix(clean, "/") {
			var segments []string
			if clean != "/" {
				segments = strings.Split(clean[1:], "/")
			}
			if i := rules.first(normal(r.Method), segments, false); !slices.Contains(found, i) {
				t.Fatalf("%s %q, which is served as %q, comes under %v and not under %d", method, target, clean, found, i)
			}
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	var texts []string
	for _, name := range strings.Fields("a b c d e f g h i j k l m n o p q r s t u v w x y") {
		texts = append(texts, "GET /api/"+name+"/{id}", "/api/"+name+"/{id}/settings/*")
	}
	rules := table(b, texts...)
	for name, r := range map[string]*http.Request{
		"plain, first":   request(b, "GET", "/api/a/7"),
		"plain, last":    request(b, "POST", "/api/y/7/settings/x"),
		"plain, none":    request(b, "GET", "/other/y/7"),
		"other readings": request(b, "GET", "/api/Y/7/settings/x"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var buffer [8]int
			for range b.N {
				if _, err := rules.Lookup(r, buffer[:0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestEveryReadingCounts: each way to read a path protects something that the others
// do not.
func TestEveryReadingCounts(t *testing.T) {
	for _, test := range []struct{ rule, target, who string }{
		{"/files/{key}", "/files/a%2fb", "net/http.ServeMux, whose {key} is a/b"},
		{"/admin/*", "/admin%2f..%2fpublic", "a router that looks at the beginning of URL.Path"},
		{"/admin/*", "/public%2f..%2fadmin", "a router that cleans URL.Path"},
		{"/admin/*", "/ADMIN;x", "a server that ignores case and parameters"},
	} {
		rules := table(t, "/public/*", test.rule)
		if found, err := rules.Lookup(request(t, "GET", test.target), nil); err != nil || !slices.Contains(found, 1) {
			t.Errorf("%s comes under %v, %v: %s serves what %s protects", test.target, found, err, test.who, test.rule)
		}
	}
}
