package mail_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"os"
	"testing/fstest"
	"time"

	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// An SMTP server of a provider. Its password comes from the environment.
func ExampleNewSMTP() {
	if err := os.Setenv("SMTP_PASSWORD", "from the environment"); err != nil {
		log.Fatal(err)
	}

	mailer, err := mail.NewSMTP(mail.SMTPConfig{
		Host: "smtp.example.com", Username: "shop", Password: secret.FromString(os.Getenv("SMTP_PASSWORD")), // tokens/secret
	})
	if err != nil {
		log.Fatal(err)
	}

	var _ mail.Mailer = mailer
	_, err = mail.NewSMTP(mail.SMTPConfig{Host: "smtp.example.com", TLS: mail.NoTLS})
	fmt.Println(err)
	// Output:
	// mail: tls none is for a server on this machine, and "smtp.example.com" is not a loopback address: use starttls or tls
}

// queueMailer hands messages to a service of the company's own.
type queueMailer struct {
	post func(ctx context.Context, m *mail.Message) (status int, err error)
}

func (q queueMailer) Send(ctx context.Context, m *mail.Message) error {
	if err := m.Validate(); err != nil {
		return err
	}
	switch status, err := q.post(ctx, m); {
	case err != nil:
		return errors.New("the queue does not answer") // temporary: tried again
	case status == 422:
		return &mail.PermanentError{Reason: "the queue refused the recipient"}
	case status >= 300:
		return fmt.Errorf("the queue answered %d", status)
	}
	return nil
}

func ExampleMailer() {
	var mailer mail.Mailer = queueMailer{post: func(context.Context, *mail.Message) (int, error) { return 422, nil }}
	err := mailer.Send(context.Background(), &mail.Message{
		From: "Shop <no-reply@shop.example>", To: "ann@example.com", Subject: "Hello", Text: "Hello Ann",
	})
	var permanent *mail.PermanentError
	fmt.Println(errors.As(err, &permanent), err)
	err = mailer.Send(context.Background(), &mail.Message{
		From: "no-reply@shop.example", To: "ann@example.com,eve@example.com", Subject: "Hello", Text: "Hello Ann",
	})
	fmt.Println(err)
	// Output:
	// true mail: the queue refused the recipient
	// mail: invalid message: to: give one address of the form name@domain, without a name beside it
}

// A service's own words for one message, and a language that is not there.
func ExampleNewTemplates() {
	// With //go:embed mails, overlay is fs.Sub(embedded, "mails").
	var overlay fs.FS = fstest.MapFS{
		"en/magic_link.txt": {Data: []byte("Subject: Your way into {{.App}}\n\nHere you are:\n\n{{.Link}}\n\nIt is good for {{.Lifetime}}.\n")},
		"fr/magic_link.txt": {Data: []byte("Subject: Connexion à {{.App}}\n\n{{.Link}}\n")},
	}
	templates, err := mail.NewTemplates(overlay)
	if err != nil {
		log.Fatal(err)
	}
	subject, text, _, err := templates.Render(mail.MagicLink, "en-GB", mail.Data{
		App: "Shop", Link: "https://shop.example/in#t", Lifetime: 15 * time.Minute,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(subject)
	fmt.Println(text)

	_, err = mail.NewTemplates(fstest.MapFS{"en/magic_link.txt": {Data: []byte("Subject: S\n\n{{.URL}}\n")}})
	fmt.Println(errors.Is(err, mail.ErrTemplate))
	// Output:
	// Your way into Shop
	// Here you are:
	//
	// https://shop.example/in#t
	//
	// It is good for 15 minutes.
	//
	// true
}

// printer is a mailer that shows what it is given.
type printer struct{ done chan struct{} }

func (p printer) Send(_ context.Context, m *mail.Message) error {
	fmt.Printf("to %s: %s\n%s", m.To, m.Subject, m.Text)
	close(p.done)
	return nil
}

func ExampleOutbox() {
	ctx := context.Background()
	quiet := slog.New(slog.DiscardHandler)
	server, err := localmongo.Start(ctx, &localmongo.Options{Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	db := server.Client().Database("example")
	mailer := printer{done: make(chan struct{})}
	newCode := func(context.Context, string) (string, error) { return "123456", nil }

	templates, err := mail.NewTemplates(nil)
	if err != nil {
		log.Fatal(err)
	}
	outbox, err := mail.NewOutbox(db, mail.OutboxConfig{
		App: "shop", Mailer: mailer,
		Compose: func(ctx context.Context, job mail.Job) (*mail.Message, error) {
			if job.UserID == "" {
				return nil, nil // nobody has the address: nothing to send, and nobody can tell
			}
			code, err := newCode(ctx, job.UserID) // made now, so that nothing secret is stored
			if err != nil {
				return nil, err
			}
			subject, text, html, err := templates.Render(mail.Template(job.Kind), job.Lang, mail.Data{App: "Shop", Code: code})
			if err != nil {
				return nil, err
			}
			return &mail.Message{From: "Shop <no-reply@shop.example>", To: job.To, Subject: subject, Text: text, HTML: html}, nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := outbox.EnsureIndexes(ctx); err != nil {
		log.Fatal(err)
	}
	outbox.Start()
	defer outbox.Close(ctx)

	err = outbox.Enqueue(ctx, mail.Job{
		Kind: string(mail.EmailCode), To: "ann@example.com", UserID: "usr_1", NotAfter: time.Now().Add(10 * time.Minute),
	})
	if err != nil {
		log.Fatal(err)
	}

	<-mailer.done
	if err := errors.Join(outbox.Close(ctx), server.Close(ctx)); err != nil {
		log.Fatal(err)
	}
	// Output:
	// to ann@example.com: Your code for Shop
	// Somebody, hopefully you, wants to sign in to Shop with this address.
	//
	// Enter this code where you were asked for it:
	//
	// 123456
	//
	// If it was not you, ignore this message. Give the code to nobody, not even to somebody who says that they are from Shop.
}
