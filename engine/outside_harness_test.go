package engine_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/mail"
)

// outside is a provider without discovery, which [strangers] stands for: nothing has to
// be listening where it is.
const outside = `"oauth":{"providers":{"acme":{"authorization_endpoint":"https://id.example/authorize","token_endpoint":"https://id.example/token",
	"userinfo_endpoint":"https://id.example/me","claims":{"subject":"id","email":"email","email_verified":"verified"},
	"client_id":"shop","client_secret":"canary-provider-secret","keep_tokens":true}}}`

// acme is the issuer of its identities.
const acme = "https://id.example"

// strangers is the provider. It keeps nothing: the code says who has come, and the access
// token is the code.
func strangers(o *engine.Options) { o.OAuthClient = &http.Client{Transport: provider{}} }

type provider struct{}

// stranger is somebody at the provider.
type stranger struct {
	ID       string `json:"id"`
	Email    string `json:"email,omitempty"`
	Verified bool   `json:"verified"`
}

// code is the code of somebody's sign-in at the provider.
func (s stranger) code() string {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// RoundTrip implements [http.RoundTripper].
func (provider) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	var body []byte
	switch r.URL.Path {
	case "/token":
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		form, err := url.ParseQuery(string(raw))
		if err != nil {
			return nil, err
		}
		if body, err = json.Marshal(obj("access_token", form.Get("code"), "token_type", "Bearer", "refresh_token", "canary-provider-refresh")); err != nil {
			return nil, err
		}
	case "/me":
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		var err error
		if body, err = base64.RawURLEncoding.DecodeString(token); err != nil {
			return nil, err
		}
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), ProtoMajor: 1, ProtoMinor: 1,
	}, nil
}

// quiet ends that the app sends mail by itself: what a test looks at is then composed
// when the test does that.
func (w *world) quiet(app *engine.App) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := app.Outbox().Close(ctx); err != nil {
		w.t.Errorf("close the outbox: %v", err)
	}
}

// job is a job of an outbox as it is stored.
type job struct {
	ID        string            `bson:"_id"`
	Kind      string            `bson:"kind"`
	To        string            `bson:"to"`
	UserID    string            `bson:"user_id"`
	Lang      string            `bson:"lang"`
	Data      map[string]string `bson:"data"`
	CreatedAt time.Time         `bson:"created_at"`
	NotAfter  time.Time         `bson:"not_after"`
}

func (j *job) mail() mail.Job {
	return mail.Job{ID: j.ID, Kind: j.Kind, To: j.To, UserID: j.UserID, Lang: j.Lang, Data: j.Data, CreatedAt: j.CreatedAt, NotAfter: j.NotAfter}
}

// waiting returns the jobs for somebody in the app's outbox, the newest first.
func (w *world) waiting(ctx context.Context, app *engine.App, to string) (out []job, err error) {
	cursor, err := w.db.Collection(mail.Collection).Find(ctx, bson.M{"app": app.Slug(), "to": to},
		options.Find().SetSort(bson.D{{Key: "created_at", Value: -1}}))
	if err != nil {
		return nil, err
	}
	return out, cursor.All(ctx, &out)
}

// composed composes the newest mail of the kind that waits for somebody.
func (w *world) composed(ctx context.Context, app *engine.App, kind, to string) (*mail.Message, error) {
	list, err := w.waiting(ctx, app, to)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Kind == kind {
			return app.Recovery().Compose(ctx, list[i].mail())
		}
	}
	return nil, fmt.Errorf("no mail of the kind %s waits for %s", kind, to)
}

// mailedToken is the token of the link in a mail, "" for none, and codeOf the code.
func mailedToken(m *mail.Message) string {
	if m == nil {
		return ""
	}
	if found := tokenIn.FindStringSubmatch(m.Text); found != nil {
		return found[1]
	}
	return ""
}

func codeOf(m *mail.Message) string {
	if m == nil {
		return ""
	}
	return codeIn.FindString(m.Text)
}
