package mail_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"

	"github.com/mandate-auth/mandate/mail"
)

func TestLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := mail.NewLog(slog.New(slog.NewJSONHandler(&out, nil)))
	if err := l.Send(t.Context(), sample()); err != nil {
		t.Fatal(err)
	}
	var line map[string]string
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line["level"] != "INFO" || line["to"] != "ann@example.com" || line["subject"] != "Hello" || line["text"] != sample().Text {
		t.Errorf("logged as %v", line)
	}
	out.Reset()
	if err := l.Send(t.Context(), sample(to("a,b@x.example"))); !errors.Is(err, mail.ErrInvalidMessage) || out.Len() != 0 {
		t.Errorf("got %v and %q: development would hide what production refuses", err, out.String())
	}
}
