package event_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/engine/event"
)

func TestSlogSink(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	ctx := event.WithRequest(t.Context(), event.Request{ID: "r1", IP: "192.0.2.1", Path: "/x\n"})
	sink := event.SlogSink(slog.New(slog.NewTextHandler(&out, nil)))
	sink.Record(ctx, event.Event{Type: event.LoginFailed, Result: event.Failure, App: "shop", Reason: "locked", Request: event.RequestFrom(ctx)})
	sink.Record(ctx, event.Event{Type: event.SessionStarted, Result: event.Success, UserID: "usr_1", SessionID: "ses_1"})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("a value broke the line: %q", out.String())
	}
	for i, parts := range [][]string{
		{"level=WARN", "event.type=login_failed", "event.app=shop", "event.reason=locked", "event.request_id=r1", "event.ip=192.0.2.1"},
		{"level=INFO", "event.type=session_started", "event.user_id=usr_1", "event.session_id=ses_1"},
	} {
		for _, part := range parts {
			if !strings.Contains(lines[i], part) {
				t.Errorf("no %q in %q", part, lines[i])
			}
		}
	}
	if strings.Contains(lines[1], "reason") {
		t.Errorf("a field without a value is written: %q", lines[1])
	}
	if got := event.RequestFrom(context.Background()); got != (event.Request{}) {
		t.Errorf("a request out of nowhere: %+v", got)
	}
	event.Discard{}.Record(ctx, event.Event{})
}
