package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// chromium returns the path of a browser. Where there is none the test is not run;
// with MANDATE_REQUIRE_BROWSER=1 that is a failure.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("MANDATE_REQUIRE_BROWSER") == "1" {
		t.Fatal("MANDATE_REQUIRE_BROWSER=1 and no Chromium: install the package chromium")
	}
	t.Skip("NOT RUN: no Chromium is installed")
	return ""
}

// tab is a page in a browser that has been nowhere before.
type tab struct {
	t   *testing.T
	s   *site
	ctx context.Context

	mu       sync.Mutex
	problems []string
}

// patience is how long a page may take for one step.
const patience = 20 * time.Second

func (s *site) tab(t *testing.T) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.UserDataDir(t.TempDir()))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	p := &tab{t: t, s: s, ctx: ctx}
	chromedp.ListenTarget(ctx, p.watch)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("close the browser: %v", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, problem := range p.problems {
			t.Errorf("the browser says: %s", problem)
		}
	})
	// The first one starts the browser, and must not have a deadline: the browser would
	// end with it.
	if err := chromedp.Run(ctx, cdplog.Enable()); err != nil {
		t.Fatal(err)
	}
	return p
}

// watch notes what the page's script throws, and what the page's policy has kept from
// it.
func (p *tab) watch(event any) {
	var problem string
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		problem = e.ExceptionDetails.Error()
	case *cdplog.EventEntryAdded:
		if e.Entry.Source == cdplog.SourceSecurity || strings.Contains(e.Entry.Text, "Content Security Policy") {
			problem = e.Entry.Text
		}
	}
	if problem != "" {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.problems = append(p.problems, problem)
	}
}

// run does the steps, and says where the page was when one failed.
func (p *tab) run(steps ...chromedp.Action) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	err := chromedp.Run(ctx, steps...)
	if err == nil {
		return
	}
	var at, text string
	there, cancel := context.WithTimeout(p.ctx, time.Second)
	defer cancel()
	_ = chromedp.Run(there, chromedp.Location(&at), chromedp.Evaluate(`document.body.innerText`, &text))
	p.t.Fatalf("%v, at %s:\n%s", err, at, text)
}

// click clicks what can be seen.
func click(selector string) chromedp.Action {
	return chromedp.Click(selector, chromedp.ByQuery, chromedp.NodeVisible)
}

func typed(selector, text string) chromedp.Action {
	return chromedp.Tasks{chromedp.WaitVisible(selector, chromedp.ByQuery), chromedp.SetValue(selector, text, chromedp.ByQuery)}
}

// says waits until the element says the text, on whichever page that is: what waits on
// a page ends when the page is left, and begins again on the next.
func says(selector, text string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		where := fmt.Sprintf("document.querySelector(%s)?.textContent.includes(%s)", strconv.Quote(selector), strconv.Quote(text))
		for {
			err := chromedp.Poll(where, nil, chromedp.WithPollingTimeout(patience/2)).Do(ctx)
			if err == nil {
				return nil
			}
			if errors.Is(err, chromedp.ErrPollingTimeout) || ctx.Err() != nil {
				return fmt.Errorf("%s does not say %q: %w", selector, text, err)
			}
		}
	})
}

// home is the page of the service, where somebody is signed in or nobody.
func (p *tab) home() chromedp.Action { return chromedp.Navigate(p.s.url + "/") }

// open waits for a link to the path, and clicks it among the mails.
func (p *tab) open(to, path string) {
	p.t.Helper()
	token := p.s.token(p.t, to, path)
	p.run(chromedp.Navigate(p.s.url+"/mails"), click(fmt.Sprintf("a[href$=%q]", path+"#token="+token)), chromedp.WaitVisible("#token-form", chromedp.ByQuery))
	p.at("#token", false)
}

// at checks whether the address has the text in it.
func (p *tab) at(text string, want bool) {
	p.t.Helper()
	var at string
	p.run(chromedp.Location(&at))
	if strings.Contains(at, text) != want {
		p.t.Errorf("at %s: %q in it is %v", at, text, !want)
	}
}

func TestBrowserSignsInWithTheProvider(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.tab(t)
	p.run(p.home(), click("#providers a"), click("button[value=ada]"), says("#who", "ada@example.com"), says("#verified", "verified"), says("#identities", "local: ada@example.com"))
	p.at(s.url, true)
	var cookies string
	p.run(chromedp.Evaluate("document.cookie", &cookies))
	if strings.Contains(cookies, "token") || strings.Contains(cookies, "session") {
		t.Errorf("the page's script can read %s", cookies)
	}
	p.run(chromedp.Reload(), says("#who", "ada@example.com"))
	p.run(click("#sign-out"), says("#message", "Signed out"), chromedp.WaitVisible("#providers a", chromedp.ByQuery))
	p.run(click("#providers a"), click("button[value=cancel]"), says("#message", "cancelled"), chromedp.WaitVisible("#signed-out", chromedp.ByQuery))
	p.at("error", false)
	p.run(click("#providers a"), click("button[value=bob]"), says("#who", "Bob"), click("#identities button"), says("#message", "Nobody could sign in"))
}

func TestBrowserLinksAndVerifies(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.tab(t)
	const email = "ada@example.com"
	p.run(p.home(), typed("#email", email), typed("#password", password), click("#register"), says("#who", email), says("#verified", "not verified"))
	p.run(click("#verify-mail"), says("#message", "A link is in the mails"))
	p.open(email, "/verify")
	p.run(click("#token-button"), says("#message", "verified"), chromedp.WaitNotVisible("#token-form", chromedp.ByQuery))
	p.run(click("#link button"), click("button[value=bob]"), says("#message", "address"), says("#who", email))
	p.run(click("#link button"), click("button[value=ada]"), says("#identities", "local: "+email), says("#who", email))
	p.run(click("#sign-out"), says("#message", "Signed out"), click("#providers a"), click("button[value=ada]"), says("#who", email))
	p.run(click("#identities button"), says("#message", "Removed"))
	p.run(typed("#new-email", "new@example.com"), typed("#change-password", password), click("#change-form button"), says("#message", "of the new address"))
	p.open("new@example.com", "/change-email")
	p.run(click("#token-button"), says("#message", "changed"))
	p.run(p.home(), says("#who", "new@example.com"), says("#verified", "verified"))
}

func TestBrowserUsesMails(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.tab(t)
	const email = "dora@example.com"
	p.run(p.home(), typed("#email", email), typed("#password", password), click("#register"), says("#who", email))
	p.open(email, "/verify")
	p.run(click("#token-button"), says("#message", "verified"), click("#sign-out"), says("#message", "Signed out"))

	p.run(p.home(), typed("#mail-email", email), click("#send-link"), says("#message", "a link is in the mails"))
	p.open(email, "/magic")
	p.run(click("#token-button"), says("#who", email), click("#sign-out"), says("#message", "Signed out"))

	p.run(p.home(), typed("#mail-email", email), click("#send-code"), chromedp.WaitVisible("#code-form", chromedp.ByQuery))
	p.run(typed("#code", s.code(t, email)), click("#code-form button"), says("#who", email), click("#sign-out"), says("#message", "Signed out"))

	const changed = password + "!"
	p.run(p.home(), typed("#mail-email", email), click("#forgot"), says("#message", "a link to set a new password"))
	p.open(email, "/reset")
	p.run(typed("#new-password", changed), click("#token-button"), says("#message", "Your password is set"))
	p.run(p.home(), typed("#email", email), typed("#password", changed), click("#password-form button"), says("#who", email))
}
