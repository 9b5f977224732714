package localpath_test

import (
	"encoding/json"
	"net/url"
	"os"
	"strings"
	"testing"
	"unicode"

	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/internal/localpath"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// verdict is what Chromium made of a payload, as testdata/generate.mjs says.
type verdict struct {
	Payload  string `json:"payload"`
	Ordinary bool   `json:"ordinary"`
	Resolved string `json:"resolved"`
	Local    bool   `json:"local"`
	Asked    string `json:"asked"`
	Path     string `json:"path"`
}

// stays reports whether Chromium stayed on the origin, by its parser and by what it
// asked for.
func (v *verdict) stays() bool { return v.Local && v.Asked == "app.example" }

func verdicts(tb testing.TB) []verdict {
	tb.Helper()
	raw, err := os.ReadFile("testdata/payloads.json")
	if err != nil {
		tb.Fatal(err)
	}
	var list []verdict
	if err := json.Unmarshal(raw, &list); err != nil {
		tb.Fatal(err)
	}
	return list
}

// Nothing that is accepted leaves the origin in Chromium, and nothing that stays
// there is refused but for a reason that Valid names.
func TestValidDecidesLikeChromium(t *testing.T) {
	t.Parallel()
	list := verdicts(t)
	left, ordinary := 0, 0
	for _, v := range list {
		valid := localpath.Valid(v.Payload)
		if !v.stays() {
			left++
		}
		if v.Ordinary {
			ordinary++
		}
		switch {
		case valid && !v.stays():
			t.Errorf("%q is accepted, and leads to %q: Chromium asked %q", v.Payload, v.Resolved, v.Asked)
		case valid && strings.HasPrefix(v.Path, "//"):
			t.Errorf("%q is accepted, and asks for %q", v.Payload, v.Path)
		case v.Ordinary && !valid:
			t.Errorf("%q is refused, and Chromium stays on the origin with %q", v.Payload, v.Resolved)
		case v.stays() && !valid && !refusable(&v):
			t.Errorf("%q is refused for no reason: Chromium asks for %q", v.Payload, v.Path)
		}
	}
	if len(list)-ordinary < 300 || left < 250 || ordinary < 40 {
		t.Errorf("%d payloads of which %d leave the origin, and %d ordinary paths are too few to tell anything", len(list)-ordinary, left, ordinary)
	}
}

// refusable reports whether there is a reason to refuse what stays on the origin.
func refusable(v *verdict) bool {
	p := v.Payload
	return !strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") || strings.HasPrefix(v.Path, "//") || len(p) > localpath.MaxLength ||
		strings.ContainsRune(p, '\\') || strings.ContainsFunc(p, unicode.IsControl)
}

func TestValidRefusesWhatIsNotText(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"/\xff", "/a\xc0\xafevil.example", "/\xed\xa0\x80", "/a?b=\xe9", "/\xf0\x9f\x99"} {
		if localpath.Valid(s) {
			t.Errorf("%q is accepted, and browsers would each make something else of it", s)
		}
	}
}

func TestValidTakesNoMoreThanItsLength(t *testing.T) {
	t.Parallel()
	longest := "/" + strings.Repeat("a", localpath.MaxLength-1)
	if localpath.MaxLength != 2048 || !localpath.Valid(longest) || localpath.Valid(longest+"a") {
		t.Error("the limit is not 2048 bytes")
	}
}

func TestValidAllocatesNothing(t *testing.T) {
	for _, s := range []string{"/orders/4711?tab=items#3", "/a/../%2E%2e//b", "/日本語"} {
		if n := testing.AllocsPerRun(100, func() { localpath.Valid(s) }); n != 0 {
			t.Errorf("%q takes %v allocations", s, n)
		}
	}
}

// resolve is the "path state" of the URL standard, word by word: what is left of a
// path once its dot segments are resolved.
func resolve(path string) string {
	path, _, _ = strings.Cut(path, "#")
	path, _, _ = strings.Cut(path, "?")
	resolved := []string{}
	segments := strings.Split(path[1:], "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case "..":
			if len(resolved) > 0 {
				resolved = resolved[:len(resolved)-1]
			}
			if last {
				resolved = append(resolved, "")
			}
		case ".":
			if last {
				resolved = append(resolved, "")
			}
		default:
			resolved = append(resolved, segment)
		}
	}
	return "/" + strings.Join(resolved, "/")
}

// FuzzValid: what is accepted stays on its origin for net/url, too, also as a
// reference from the path that it leads to, and what is refused has a reason.
func FuzzValid(f *testing.F) {
	for _, v := range verdicts(f) {
		f.Add(v.Payload)
	}
	f.Add("/\xff")
	base, err := url.Parse("https://app.example/auth/oauth/x/callback")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		valid := localpath.Valid(s)
		refused := !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || len(s) > localpath.MaxLength || strings.ToValidUTF8(s, "") != s ||
			strings.ContainsRune(s, '\\') || strings.ContainsFunc(s, unicode.IsControl) || strings.HasPrefix(resolve(s), "//")
		if valid == refused {
			t.Fatalf("%q: valid is %v", s, valid)
		}
		if !valid {
			return
		}
		for _, reference := range []string{s, resolve(s)} {
			u, err := base.Parse(reference)
			if err != nil {
				continue // an escape that net/url refuses, and no service would be asked for
			}
			if u.Scheme != base.Scheme || u.Host != base.Host || u.User != nil || u.Opaque != "" {
				t.Fatalf("%q is accepted, and leads to %s", s, u)
			}
		}
	})
}
