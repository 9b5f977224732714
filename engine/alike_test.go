package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
)

// strangersAndOthers are addresses of every kind, by what is behind them.
func (w *world) strangersAndOthers() map[string]string {
	w.t.Helper()
	ctx, u := w.t.Context(), w.app.Users()
	out := map[string]string{"nobody's": "nobody@example.com", "nobody's of another domain": "x@nowhere.example"}
	create := func(kind string, verified bool) string {
		w.t.Helper()
		out[kind] = strings.ReplaceAll(kind, " ", "") + "@example.com"
		user, err := u.Create(ctx, users.NewUser{Email: out[kind], Password: password, Verified: verified})
		if err != nil {
			w.t.Fatal(err)
		}
		return user.ID
	}
	create("verified", true)
	out["verified, spelt otherwise"] = "VERIFIED@Example.com"
	create("not verified", false)
	if err := u.Disable(ctx, create("disabled", true), "test"); err != nil {
		w.t.Fatal(err)
	}
	out["without a password"] = "linked@example.com"
	if _, err := u.CreateLinked(ctx, users.LinkedUser{Email: out["without a password"], Link: users.LinkOf("acme", "1")}); err != nil {
		w.t.Fatal(err)
	}
	out["of somebody who was a guest"] = "guest@example.com"
	guest, err := u.Anonymous(ctx, users.NewDeviceID())
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := u.Prepare(ctx, users.NewUser{Email: out["of somebody who was a guest"], Password: password, Guest: guest.ID})
	if err == nil {
		_, err = u.Complete(ctx, p)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	out["that is being registered"] = "registering@example.com"
	w.want(w.do("POST", "/auth/register", obj("email", out["that is being registered"], "password", password)), 202, "")
	if m, err := w.composed(ctx, w.app, "register", out["that is being registered"]); err != nil || mailedToken(m) == "" {
		w.t.Fatalf("the link to register is %q, %v", mailedToken(m), err)
	}
	return out
}

// What is asked for by mail is answered alike for every address, whatever is behind it: by
// status, body, headers, commands to the database and hashes (ASVS 6.3.8).
func TestEveryAddressIsAnsweredAlike(t *testing.T) {
	t.Parallel()
	commands := &enginetest.Commands{}
	w := newWorld(t, storetest.Monitored(t, commands.Monitor()), manifestOf(t, "shop", mails+","+verified, publicShop), func(o *engine.Options) { o.Mailer = newPostbox() })
	w.quiet(w.app) // what is mailed is found out later, by others
	addresses := w.strangersAndOthers()
	type trace struct {
		status                         int
		body, header, commands, hashes string
	}
	ask := func(path string, body map[string]any) trace {
		commands.Reset()
		before := w.hashes.Load()
		r := w.do("POST", "/auth"+path, body)
		pairs := []string{r.header.Get("X-Request-Id"), "ID"}
		if flow := r.text("flow_id"); flow != "" {
			pairs = append(pairs, flow, fmt.Sprint("flow of ", len(flow)))
		}
		strip := strings.NewReplacer(pairs...).Replace
		return trace{r.status, strip(r.raw), strip(fmt.Sprint(uncounted(r.header))), requested(commands), fmt.Sprint(w.hashes.Load() - before)}
	}
	for path, hashes := range map[string]string{
		"/password/forgot": "0", "/email/verify/send": "0", "/magic-link": "0", "/code": "0", "/register": "1",
	} {
		body := func(address string) map[string]any {
			if path == "/register" {
				return obj("email", address, "password", password)
			}
			return obj("email", address)
		}
		want := ask(path, body("nobody@example.com"))
		if want.status != 202 || !strings.HasSuffix(want.commands, "rate_limits, insert mail_outbox") || want.hashes != hashes {
			t.Errorf("%s: %+v", path, want)
		}
		for kind, address := range addresses {
			for range 2 {
				if got := ask(path, body(address)); got != want {
					t.Errorf("%s, an address %s:\n%+v\nand nobody's:\n%+v", path, kind, got, want)
				}
			}
		}
	}
}

// A wrong code is refused alike in the flow of somebody who has an account and in one of
// nobody: by the answer and by the commands to the database, which count it in both.
func TestCodesOfNobodyAreRefusedAlike(t *testing.T) {
	t.Parallel()
	commands := &enginetest.Commands{}
	w := newWorld(t, storetest.Monitored(t, commands.Monitor()), manifestOf(t, "shop", mails, publicShop), func(o *engine.Options) { o.Mailer = newPostbox() })
	w.quiet(w.app)
	try := func(flow string) string {
		commands.Reset()
		r := w.want(w.do("POST", "/auth/code/consume", obj("flow_id", flow, "code", "wrong")), 400, "link_invalid")
		asked := requested(commands)
		if !strings.Contains(asked, "update login_attempts") {
			t.Errorf("a wrong code is not counted: %s", asked)
		}
		return strings.ReplaceAll(r.raw+fmt.Sprint(uncounted(r.header)), r.header.Get("X-Request-Id"), "ID") + asked
	}
	if _, err := w.app.Users().Create(t.Context(), users.NewUser{Email: email, Password: password, Verified: true}); err != nil {
		t.Fatal(err)
	}
	known, unknown := w.do("POST", "/auth/code", obj("email", email)).text("flow_id"), w.do("POST", "/auth/code", obj("email", bob)).text("flow_id")
	if m, err := w.composed(t.Context(), w.app, "email_code", email); err != nil || codeOf(m) == "" {
		t.Fatalf("the code is %q, %v", codeOf(m), err)
	}
	if of, without := try(known), try(unknown); of != without {
		t.Errorf("a wrong code: %s\nof nobody: %s", of, without)
	}
}
