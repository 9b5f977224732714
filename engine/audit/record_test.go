package audit_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
)

// A record as JSON and as a map says the same, with stable names.
func TestRecordForms(t *testing.T) {
	t.Parallel()
	full := audit.Record{
		ID: "01JT", Time: time.Date(2026, 5, 1, 12, 0, 0, 5e6, time.UTC), Type: "x", Result: "success", UserID: "u", ClientID: "c", IsM2M: true, Actor: "a",
		SessionID: "s", Reason: "r", Path: "/p", Method: "GET", StatusCode: 200, IP: "192.0.2.1", UserAgent: "ua", RequestID: "q",
		Metadata: map[string]string{"k": "v"}, Chain: "ch", Seq: 3,
	}
	const want = `{"id":"01JT","timestamp":"2026-05-01T12:00:00.005Z","type":"x","result":"success","user_id":"u","client_id":"c","is_m2m":true,` +
		`"actor":"a","session_id":"s","reason":"r","path":"/p","method":"GET","status_code":200,"ip":"192.0.2.1","user_agent":"ua","request_id":"q",` +
		`"metadata":{"k":"v"},"chain":"ch","seq":3}`
	if got, err := json.Marshal(full); err != nil || string(got) != want {
		t.Errorf("got  %s\nwant %s, %v", got, want, err)
	}
	for _, r := range []audit.Record{full, {ID: "01JT", Type: "x", Result: "failure"}} {
		var direct, mapped map[string]any
		one, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		two, err := json.Marshal(r.ToMap())
		if err != nil {
			t.Fatal(err)
		}
		if json.Unmarshal(one, &direct) != nil || json.Unmarshal(two, &mapped) != nil || !reflect.DeepEqual(direct, mapped) {
			t.Errorf("got %s and %s", one, two)
		}
	}
	if _, ok := (audit.Record{}).ToMap()["user_id"]; ok {
		t.Error("a member without a value is there")
	}
}

func viaCallback(e event.Event) (got audit.Record) {
	audit.Callback(func(_ context.Context, r audit.Record) { got = r }, nil).Record(context.Background(), e)
	return got
}

func TestCallback(t *testing.T) {
	t.Parallel()
	e := sample(3)
	e.Time = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	if r := viaCallback(e); r.UserID != "usr_3" || !r.Time.Equal(e.Time) || r.Path != "/auth/login" || r.StatusCode != http.StatusUnauthorized || r.ID != "" {
		t.Errorf("got %+v", r)
	}
	if r := viaCallback(event.Event{Type: event.AppLoaded}); r.Time.IsZero() {
		t.Error("no time")
	}
	ctx := event.WithRequest(t.Context(), event.Request{ID: "r9"})
	audit.Callback(func(_ context.Context, r audit.Record) {
		if r.RequestID != "r9" {
			t.Errorf("got %+v", r)
		}
	}, newClock().Now).Record(ctx, event.Event{})
	audit.Callback(nil, nil).Record(ctx, e)
}

// What a client says cannot forge a line, break a terminal or fill the database.
func TestTextsAreBoundedAndReadable(t *testing.T) {
	t.Parallel()
	hostile := []string{
		"a\r\nlevel=INFO forged=1", "\x1b[31mred", "nul\x00", "\u202egnp.exe", "line\u2028next", "par\u2029next", "\u0085", "bad \xff\xfe", "\u2066x",
		strings.Repeat("é", 4000), strings.Repeat("a", 255) + "é", strings.Repeat("\n", 500), strings.Repeat("x", 1<<20),
	}
	for _, s := range hostile {
		r := viaCallback(event.Event{
			Type: event.Type(s), Result: event.Result(s), UserID: s, ClientID: s, Actor: s, SessionID: s, Reason: s,
			Request: event.Request{ID: s, IP: s, UserAgent: s, Method: s, Path: s}, Metadata: map[string]string{"k": s, s: "v"},
		})
		if len(r.Metadata) != 1 {
			if len(r.Metadata) != 2 || !event.ValidMetadataName(s) {
				t.Errorf("metadata of %q: %d members", s[:min(20, len(s))], len(r.Metadata))
			}
		}
		for name, value := range texts(r) {
			if value == "" || len(value) > 256 || !utf8.ValidString(value) {
				t.Errorf("%s has %d bytes", name, len(value))
			}
			for _, c := range value {
				if unicode.IsControl(c) || unicode.In(c, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
					t.Errorf("%s holds %U", name, c)
				}
			}
		}
	}
	if r := viaCallback(event.Event{Reason: "Größe 東京 ✓"}); r.Reason != "Größe 東京 ✓" {
		t.Errorf("a harmless text became %q", r.Reason)
	}
	many := map[string]string{}
	for i := range 40 {
		many[fmt.Sprintf("n%02d", i)] = "v"
	}
	if r := viaCallback(event.Event{Metadata: many}); len(r.Metadata) != event.MaxMetadata || r.Metadata["n15"] == "" || len(many) != 40 {
		t.Errorf("metadata: %v", r.Metadata)
	}
	for _, at := range []time.Time{{}, time.Date(1969, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if r := viaCallback(event.Event{Time: at}); r.Time.Year() < 2000 || r.Time.Year() > 9999 {
			t.Errorf("time %s", r.Time)
		}
	}
}

func texts(r audit.Record) map[string]string {
	out := map[string]string{
		"type": string(r.Type), "result": string(r.Result), "user": r.UserID, "client": r.ClientID, "actor": r.Actor, "session": r.SessionID,
		"reason": r.Reason, "path": r.Path, "method": r.Method, "ip": r.IP, "agent": r.UserAgent, "request": r.RequestID,
	}
	for name, value := range r.Metadata {
		out["metadata "+name] = value
	}
	return out
}

// No secret of a request, and none that a careless caller passes, is in the database,
// in a callback or in a log line.
func TestNoSecrets(t *testing.T) {
	t.Parallel()
	const canary = "c4n4rycanarycanarycanary"
	encoded := base64.RawURLEncoding.EncodeToString([]byte(canary))
	jwt := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"x"}`)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"`+canary+`"}`)) + "." + canary
	refresh := "mrt1.kid." + canary + ".1.mac"
	own := strings.Repeat(canary, 3)
	key, secret := "shop_"+own[:49], "mcs_"+own[:43]
	b := setup(t)
	trail := b.trail(func(c *audit.Config) { c.Synchronous = true })
	var called bytes.Buffer
	callback := audit.Callback(func(_ context.Context, r audit.Record) { fmt.Fprintf(&called, "%+v", r) }, nil)
	record := func(ctx context.Context, e event.Event) { trail.Record(ctx, e); callback.Record(ctx, e) }
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/reset/"+jwt+"/done?token="+canary+"#"+canary,
		strings.NewReader("password="+canary))
	request.Header.Set("Authorization", "Bearer "+canary)
	request.Header.Set("X-Api-Key", canary)
	request.Header.Set("Cookie", "session="+canary)
	request.Header.Set("Referer", "https://example.com/?token="+canary)
	request.Header.Set("User-Agent", "curl Authorization: Bearer "+canary+" "+refresh+" "+key+" "+secret)
	audit.Middleware(record, audit.MiddlewareConfig{})(status(200)).ServeHTTP(httptest.NewRecorder(), request)
	record(t.Context(), event.Event{Type: event.LoginFailed, Request: event.Request{Path: "/x?access_token=" + canary}, Reason: "bad token " + jwt})
	record(t.Context(), event.Event{Type: event.LoginFailed, Request: event.Request{Path: "/" + refresh + "/x"}, UserID: "Basic " + canary})
	record(t.Context(), event.Event{Type: event.LoginFailed, Request: event.Request{Path: "/api-keys/" + key + "/x"}, Reason: secret})
	for _, name := range []string{"password", "new_password", "client_secret", "token", "access_token", "Authorization", "cookie", "api_key", "otp"} {
		b.must(trail.Log(t.Context(), audit.Record{Type: "x", Metadata: map[string]string{name: canary, "jwt": jwt, "refresh": refresh}}))
	}
	b.must(trail.Log(t.Context(), audit.Record{Type: "x", UserAgent: strings.Repeat("x", 200) + " " + jwt + jwt}))
	b.must(trail.Log(t.Context(), audit.Record{Type: "x", UserAgent: strings.Repeat("x", 200) + " " + key, Reason: strings.Repeat("x", 216) + " " + secret}))
	b.must(trail.Flush(t.Context()))
	cursor, err := b.events().Find(t.Context(), bson.D{})
	b.must(err)
	stored := 0
	for cursor.Next(t.Context()) {
		stored++
		for _, planted := range []string{canary, encoded[:20]} {
			if strings.Contains(cursor.Current.String(), planted) {
				t.Errorf("a secret is stored: %s", cursor.Current)
			}
		}
	}
	if stored != 17 {
		t.Errorf("%d documents were looked at", stored)
	}
	if called.Len() == 0 || strings.Contains(called.String(), canary) || strings.Contains(b.logs.String(), canary) {
		t.Errorf("a secret left the process: %s", called.String())
	}
	harmless := "/auth/users/usr_01kb1qpe0r2v1hkqq4c1xsz9ya/x_" + own[:48] + "/y_" + own[:50] + "/z_" + own[:43] + "/_" + own[:49]
	if r := viaCallback(event.Event{Request: event.Request{Path: harmless}}); r.Path != harmless {
		t.Errorf("something harmless was taken for a secret: %s", r.Path)
	}
	if r := viaCallback(event.Event{Request: event.Request{UserAgent: "Mozilla/5.0 basic client", Path: "/eyJust/a/path"}, Metadata: map[string]string{"token_use": "access"}}); r.Path != "/eyJust/a/path" || r.Metadata["token_use"] != "access" {
		t.Errorf("something harmless was taken for a secret: %+v", r)
	}
}
