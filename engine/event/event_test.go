package event_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
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

// A log line has to say as much as a record of the audit trail, within the same
// bounds.
func TestSlogSinkShowsEveryField(t *testing.T) {
	t.Parallel()
	metadata := map[string]string{"bad name": "hidden", "": "hidden", "$set": "hidden", "long": strings.Repeat("é", 200)}
	for i := range 20 {
		metadata[fmt.Sprintf("n%02d", i)] = "v"
	}
	var out bytes.Buffer
	event.SlogSink(slog.New(slog.NewJSONHandler(&out, nil))).Record(t.Context(), event.Event{
		Type: event.RequestPassed, Result: event.Success, App: "shop", UserID: "usr_1", Actor: "usr_2", SessionID: "ses_1",
		ClientID: "cli_1", IsM2M: true, Reason: "why", StatusCode: 201, Metadata: metadata,
		Request: event.Request{ID: "r1", IP: "192.0.2.1", UserAgent: "agent", Method: "PUT", Path: "/x"},
	})
	var line struct {
		Event map[string]any `json:"event"`
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"type": "request", "result": "success", "app": "shop", "user_id": "usr_1", "actor": "usr_2", "session_id": "ses_1",
		"client_id": "cli_1", "is_m2m": true, "reason": "why", "status_code": 201.0,
		"request_id": "r1", "ip": "192.0.2.1", "user_agent": "agent", "method": "PUT", "path": "/x",
	} {
		if line.Event[name] != want {
			t.Errorf("%s is %v, want %v", name, line.Event[name], want)
		}
	}
	shown, _ := line.Event["metadata"].(map[string]any)
	if long, _ := shown["long"].(string); len(shown) != event.MaxMetadata || len(long) != event.MaxMetadataValue {
		t.Errorf("metadata has %d members and a value of %d bytes", len(shown), len(long))
	}
	if strings.Contains(out.String(), "hidden") {
		t.Error("a member with an invalid name is written")
	}
}
