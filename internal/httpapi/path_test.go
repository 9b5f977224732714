package httpapi

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzPath asks for paths of any kind. A route is found by its own spelling and
// no other: not by an escape, a dot segment, a doubled slash, another case, a
// trailing dot or a parameter.
func FuzzPath(f *testing.F) {
	a := &API{config: Config{BasePath: "/auth", UsersEnabled: true, People: true, Guests: true, Demo: true}}
	a.routes = a.table()
	for _, seed := range []string{
		"/auth/me", "/auth//me", "/auth/./me", "/auth/x/../me", "/auth/%6de", "/auth/me/", "/auth/me;x=1", "/auth/ME", "/auth/me.", "/auth/me%00",
		"/auth/sessions/ses_x", "/auth/sessions/a%2fb", "/auth/sessions/", "/auth/sessions/..", "/auth%2fme", "auth/me", "/", "", "/auth/me?x", "/auth/me#x", "//auth/me",
		"/auth/sessions/ses_x/y", "/auth/sessions/%2e%2e", "/auth/me\\", "/auth\\me",
		"/auth/admin/roles/a%2fb/users", "/auth/admin/roles/%2e%2e/users", "/auth/admin/roles//users", "/auth/admin/users/usr_x/roles/%61dmin", "/auth/admin/users/%2e/roles",
	} {
		f.Add(seed, "GET")
		f.Add(seed, "DELETE")
	}
	f.Fuzz(func(t *testing.T, path, method string) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return // a server refuses it before anybody sees it
		}
		r := &http.Request{Method: method, URL: u, Header: http.Header{}}
		found, allowed := a.match(r)
		if found == nil && len(allowed) == 0 {
			return
		}
		sent, _, _ := strings.Cut(path, "?")
		if u.Host != "" || u.Opaque != "" {
			sent = u.EscapedPath()
		}
		relative, ok := strings.CutPrefix(sent, "/auth")
		if !ok {
			t.Fatalf("%q is outside the base path and found %v", path, allowed)
		}
		for _, rt := range a.routes {
			if relative == rt.path {
				return
			}
		}
		// A route with variables: the rest of it stands in the path as it is, and the
		// variables are one segment each, the name of a role decoded once.
		parts := strings.Split(u.EscapedPath(), "/")
		id, role := r.PathValue("id"), r.PathValue("role")
		for _, rt := range a.routes {
			want := strings.Split("/auth"+rt.path, "/")
			same := len(want) == len(parts) && strings.Contains(rt.path, "{")
			for i := range want {
				if !same {
					break
				}
				switch want[i] {
				case "{id}":
					same = id != "" && parts[i] == id
				case "{role}":
					decoded, err := url.PathUnescape(parts[i])
					same = err == nil && decoded != "" && decoded == role
				default:
					same = want[i] == parts[i]
				}
			}
			if same {
				return
			}
		}
		t.Fatalf("%q found a route, %v, with the id %q and the role %q", path, allowed, id, role)
	})
}
