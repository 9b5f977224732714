package mail_test

import (
	"context"
	"testing"

	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
)

// Close comes to an end where a mail was sent and the database is away, whatever its
// context.
func TestCloseWithoutDatabase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	link := &storetest.Link{}
	o, err := mail.NewOutbox(storetest.Second(t, b.db, link), b.config())
	b.must(err)
	o.Start()
	kept, sent := make(chan struct{}), make(chan struct{})
	b.post.decide(func(context.Context, *mail.Message) error { <-kept; link.Cut(); close(sent); return nil })
	b.enqueue(o)
	close(kept)
	<-sent
	b.must(o.Close(context.Background()))
	link.Restore()
}
