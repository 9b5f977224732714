package pattern

import (
	"math/rand/v2"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustParse(t *testing.T, text string) *Path {
	t.Helper()
	p, err := ParsePath(text)
	if err != nil {
		t.Fatalf("ParsePath(%q): %v", text, err)
	}
	return p
}

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		pattern  string
		yes, not []string
	}{
		{"/", []string{"/"}, []string{"/a", "", "//"}},
		{"/users", []string{"/users", "/users/"}, []string{"/Users", "/users/1", "/user", "/users.", "users"}},
		{"/users/", []string{"/users", "/users/"}, []string{"/users/1"}},
		{"/users/{id}", []string{"/users/1", "/users/1/", "/users/a;b", "/users/a%2fb", "/users/{id}"}, []string{"/users", "/users/", "/users/1/2", "/users//", "/users/..", "/users/.", "/users/a\x00", "/users/a\n", `/users/a\b`}},
		{"/users/{id}/posts", []string{"/users/1/posts"}, []string{"/users//posts", "/users/1/post", "/users/../posts"}},
		{"/files/*", []string{"/files", "/files/", "/files/a", "/files/a/b"}, []string{"/file", "/filesystem", "/files/../a", "/files//a"}},
		{"/files/{rest...}", []string{"/files", "/files/a/b"}, []string{"/filesa"}},
		{"/*", []string{"/", "/a", "/a/b"}, []string{"a", "//", "/a/../b", "/\xff"}},
		{"/{a}/x/{b}/*", []string{"/1/x/2", "/1/x/2/3/4"}, []string{"/1/x", "/1/y/2"}},
		{"/api/v1.0/*", []string{"/api/v1.0/a"}, []string{"/api/v1X0/a"}}, // D21: the dot is a dot
	} {
		p := mustParse(t, test.pattern)
		for _, path := range test.yes {
			if !p.Match(path) {
				t.Errorf("%s does not match %q", p, path)
			}
		}
		for _, path := range test.not {
			if p.Match(path) {
				t.Errorf("%s matches %q", p, path)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"", "a", "a/b", "//", "/a//b", "/a/../b", "/./", "/a/*/b", "/{rest...}/b", "/a*", "/*a", "/{", "/}", "/{}", "/{...}", "/{a b}", "/{1}",
		"/x{a}", "/{a}x", "/{a}/{a}", "/a\\b", "/a\x00", "/\xff", "/{a}{b}", strings.Repeat("/a", MaxSegments+1),
	} {
		if p, err := ParsePath(text); err == nil {
			t.Errorf("ParsePath(%q) = %+v; want an error", text, p)
		}
	}
}

// random returns a pattern and a path out of few words, so that they often meet.
func random(r *rand.Rand) (pattern, path string) {
	for range r.IntN(4) {
		pattern += "/" + []string{"a", "b", "A", "{x}", "{x}"}[r.IntN(5)]
		path += "/" + []string{"a", "b", "A", "c"}[r.IntN(4)]
	}
	for range r.IntN(3) {
		path += "/" + []string{"a", "b"}[r.IntN(2)]
	}
	for i := 0; strings.Contains(pattern, "{x}"); i++ {
		pattern = strings.Replace(pattern, "{x}", "{v"+string(rune('a'+i))+"}", 1)
	}
	if r.IntN(3) == 0 {
		pattern += "/*"
	}
	if pattern == "" {
		pattern = "/"
	}
	if path == "" || r.IntN(4) == 0 {
		path += "/"
	}
	return pattern, path
}

var variable = regexp.MustCompile(`\\\{[a-z]+\\\}`)

// expression is the pattern as a regular expression: another way to say it.
func expression(pattern string) *regexp.Regexp {
	text, below := strings.CutSuffix(strings.TrimSuffix(pattern, "/"), "/*")
	text = "^" + variable.ReplaceAllString(regexp.QuoteMeta(text), "[^/]+")
	if below {
		return regexp.MustCompile(text + "(/.*)?$")
	}
	return regexp.MustCompile(text + "/?$")
}

// TestAgree compares every way of matching with a regular expression.
func TestAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	matched := 0
	for range 20_000 {
		text, path := random(r)
		p := mustParse(t, text)
		want := expression(text).MatchString(path)
		if want {
			matched++
		}
		var segments []string
		if trimmed := strings.Trim(path, "/"); trimmed != "" {
			segments = strings.Split(trimmed, "/")
		}
		key, ok := p.Shape().AppendKey(nil, path)
		for how, got := range map[string]bool{
			"Match": p.Match(path), "MatchSegments": p.MatchSegments(segments, false), "AppendKey": ok && string(key) == p.Key(),
		} {
			if got != want {
				t.Fatalf("%s: pattern %q, path %q: got %t, want %t", how, text, path, got, want)
			}
		}
	}
	if matched < 2000 {
		t.Fatalf("only %d of the pairs match: the dice are wrong", matched)
	}
}

// TestCovers: a pattern covers another exactly when no path tells otherwise, and
// they overlap exactly when some path is matched by both.
func TestCovers(t *testing.T) {
	paths := []string{"/"}
	for level, from := 0, []string{""}; level < 4; level++ {
		var next []string
		for _, base := range from {
			for _, word := range []string{"a", "b", "A", "z"} {
				next = append(next, base+"/"+word)
			}
		}
		paths, from = append(paths, next...), next
	}
	r := rand.New(rand.NewPCG(3, 4))
	covered, apart := 0, 0
	for range 3000 {
		left, _ := random(r)
		right, _ := random(r)
		p, q := mustParse(t, left), mustParse(t, right)
		covers, overlaps := true, false
		for _, path := range paths {
			if q.Match(path) && !p.Match(path) {
				covers = false
			}
			if q.Match(path) && p.Match(path) {
				overlaps = true
			}
		}
		if p.Covers(q) != covers {
			t.Fatalf("%q covers %q: got %t, want %t", left, right, p.Covers(q), covers)
		}
		if p.Overlaps(q) != overlaps || q.Overlaps(p) != overlaps {
			t.Fatalf("%q overlaps %q: got %t, want %t", left, right, p.Overlaps(q), overlaps)
		}
		if covers {
			covered++
		}
		if !overlaps {
			apart++
		}
	}
	if covered < 50 || apart < 50 {
		t.Fatalf("%d covered, %d apart: the dice are wrong", covered, apart)
	}
}

func TestPrefix(t *testing.T) {
	if prefix, ok := Prefix("docs/*"); prefix != "docs/" || !ok {
		t.Errorf("got %q, %t", prefix, ok)
	}
	if _, ok := Prefix("docs"); ok {
		t.Error("docs is no pattern")
	}
	for text, good := range map[string]bool{"docs": true, "docs/*": true, "*": true, "": true, "a*b": false, "**": false, "*a": false} {
		if err := Check("prefix", text); (err == nil) != good {
			t.Errorf("Check(prefix, %q) = %v", text, err)
		}
	}
}

// FuzzParsePath: what is read matches what it is made of, and never what is not
// clean.
func FuzzParsePath(f *testing.F) {
	for _, text := range []string{"/", "/a/{b}/*", "/a/{rest...}", "/a//b", "/%2e%2e/x", "/a\x00"} {
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		p, err := ParsePath(text)
		if err != nil {
			return
		}
		if !p.Covers(p) || !p.Overlaps(p) {
			t.Errorf("%q does not cover itself", text)
		}
		if p.Match(path) && (!Clean(path) || strings.Contains(path, "//") || strings.Contains(path+"/", "/../")) {
			t.Errorf("%q matches %q, which is not clean", text, path)
		}
		if p.Match(path) {
			if key, ok := p.Shape().AppendKey(nil, path); !ok || string(key) != p.Key() {
				t.Errorf("%q matches %q, and the key is %q, not %q", text, path, key, p.Key())
			}
		}
	})
}

// What is excluded is that path, however others are spelt.
func TestExcluded(t *testing.T) {
	t.Parallel()
	x := Exclude([]string{"/health", "/static/*"})
	for target, want := range map[string]bool{
		"/health": true, "/health?probe=1": true, "/static/": true, "/static/a/b.css": true, "/static/a%20b": true,
		"/health/": false, "/healthy": false, "/Health": false, "//health": false, "/h%65alth": false, "/health%2F": false, "/static": false,
		"/statically/x": false, "/static/../admin": false, "/static/./x": false, "/static//x": false, "/static/..%2fadmin": false,
		"/static/x;p=1": false, "/static/..%5Cadmin": false, "/static/%00": false, "/static/%ff": false, "/": false,
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		if got := x.Match(u); got != want {
			t.Errorf("%s: %t, want %t", target, got, want)
		}
	}
	var none Excluded
	if none.Match(&url.URL{Path: "/health"}) {
		t.Error("the zero value excludes")
	}
}
