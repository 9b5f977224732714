package engine_test

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
)

// postbox is a Mailer that keeps what it is given.
type postbox struct {
	mu   sync.Mutex
	list []mail.Message
	came chan struct{}
}

func newPostbox() *postbox { return &postbox{came: make(chan struct{}, 10_000)} }

// Send implements [mail.Mailer].
func (p *postbox) Send(_ context.Context, m *mail.Message) error {
	p.mu.Lock()
	p.list = append(p.list, *m)
	p.mu.Unlock()
	p.came <- struct{}{}
	return nil
}

// to returns what was sent to somebody.
func (p *postbox) to(address string) (out []mail.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.list {
		if m.To == address {
			out = append(out, m)
		}
	}
	return out
}

// mailRoom is a world that mails.
type mailRoom struct {
	*world
	post *postbox
	// taken is how many mails of each person were looked at.
	taken map[string]int
}

const (
	publicShop = `"public_url":"https://shop.example"`
	mails      = `"mail":{"from":"Shop <no-reply@shop.example>","magic_link":true,"email_code":true}`
	verified   = `"users":{"require_verified_email":true,"allow_anonymous_users":true}`
)

// mailing is a world whose app mails.
func mailing(t *testing.T, auth string, edit ...func(*engine.Options)) *mailRoom {
	t.Helper()
	return mailingOn(t, storetest.Database(t), auth, edit...)
}

// mailingOn is mailing on a database of the test's own.
func mailingOn(t *testing.T, db *mongo.Database, auth string, edit ...func(*engine.Options)) *mailRoom {
	t.Helper()
	if !strings.Contains(auth, `"mail":`) {
		auth = strings.TrimSuffix(mails+","+auth, ",")
	}
	m := &mailRoom{post: newPostbox(), taken: map[string]int{}}
	edit = append([]func(*engine.Options){func(o *engine.Options) { o.Mailer = m.post }}, edit...)
	m.world = newWorld(t, db, manifestOf(t, "shop", auth, publicShop), edit...)
	return m
}

// mail waits for the next mail to somebody.
func (m *mailRoom) mail(to string) mail.Message {
	m.t.Helper()
	timeout := time.NewTimer(10 * time.Second)
	defer timeout.Stop()
	for {
		if list := m.post.to(to); len(list) > m.taken[to] {
			m.taken[to]++
			return list[m.taken[to]-1]
		}
		select {
		case <-m.post.came:
		case <-timeout.C:
			m.t.Fatalf("no mail to %s", to)
		}
	}
}

// silence waits until nothing waits to be sent, and reports mails that nobody has taken.
func (m *mailRoom) silence(to string) {
	m.t.Helper()
	m.settled()
	if list := m.post.to(to); len(list) != m.taken[to] {
		m.t.Errorf("mail to %s: %s", to, list[m.taken[to]].Subject)
		m.taken[to] = len(list)
	}
}

// settled waits until nothing waits to be sent.
func (m *mailRoom) settled() {
	m.t.Helper()
	until(m.t, "the outbox is empty", func() bool {
		p, err := m.app.Outbox().Pending(m.t.Context())
		return err == nil && p.Jobs == 0
	})
}

var (
	tokenIn = regexp.MustCompile(`#token=(mot_[0-9A-Za-z]{43})`)
	codeIn  = regexp.MustCompile(`\b[0-9]{6}\b`)
)

// token waits for a mail and returns the token of its link.
func (m *mailRoom) token(to string) string {
	m.t.Helper()
	msg := m.mail(to)
	found := tokenIn.FindStringSubmatch(msg.Text)
	if found == nil {
		m.t.Fatalf("no link in %q to %s: %s", msg.Subject, to, msg.Text)
	}
	return found[1]
}

// code waits for a mail and returns the code in it.
func (m *mailRoom) code(to string) string {
	m.t.Helper()
	msg := m.mail(to)
	code := codeIn.FindString(msg.Text)
	if code == "" {
		m.t.Fatalf("no code in %q: %s", msg.Subject, msg.Text)
	}
	return code
}
