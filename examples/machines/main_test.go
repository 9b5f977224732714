package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/engine/metrics/prom"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is the example on a database of its own, served without and with TLS.
type service struct {
	*enginetest.Env
	ca            *authority
	plain, secure *httptest.Server
	worker        *oauth2.Client
	secret        string
	// asked has the path of every request, once it has been answered, as long as there
	// is room.
	asked chan string
}

func start(t *testing.T) *service {
	t.Helper()
	s := &service{asked: make(chan string, 16)}
	var handler http.Handler
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r)
		select {
		case s.asked <- r.Method + " " + r.URL.Path:
		default:
		}
	})
	s.plain, s.secure = httptest.NewServer(serve), httptest.NewUnstartedServer(serve)
	t.Cleanup(s.plain.Close)
	set := newSettings(s.plain.URL, "")
	set.made["PUBLIC_URL"] = s.plain.URL
	s.Env = enginetest.New(t, &enginetest.Options{
		ManifestFile: "manifest.json", LookupEnv: set.lookup,
		Configure: func(o *engine.Options) {
			o.Prometheus, o.Authenticators = prom.Handler, authenticators(func() *engine.Engine { return s.Engine })
		},
	})
	handler = routes(s.App, set)
	var err error
	if s.worker, err = s.App.Clients().GetByName(t.Context(), "worker"); err != nil {
		t.Fatal(err)
	}
	s.secret, _ = set.lookup("WORKER_CLIENT_SECRET")
	if s.ca, err = newAuthority(); err != nil {
		t.Fatal(err)
	}
	if s.secure.TLS, err = s.ca.config(); err != nil {
		t.Fatal(err)
	}
	s.secure.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are tested
	s.secure.StartTLS()
	t.Cleanup(s.secure.Close)
	return s
}

// token returns an access token of a client.
func (s *service) token(t *testing.T, clientID string) string {
	t.Helper()
	token, _, err := s.App.IssueClientToken(t.Context(), clientID)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTheWorkerFindsItsWayFromTheIssuerAlone(t *testing.T) {
	t.Parallel()
	s := start(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- work(ctx, s.plain.URL, s.worker.ID, s.secret, time.Millisecond) }()
	var asked []string
	for sent := 0; sent < 3; {
		select {
		case one := <-s.asked:
			asked = append(asked, one)
			if one == "POST /readings" {
				sent++
			}
		case err := <-ended:
			t.Fatalf("the worker ended after %q: %v", asked, err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("the worker ended with %v, want nothing", err)
	}
	want := "GET /.well-known/oauth-authorization-server, POST /auth/oauth2/token, POST /readings, POST /readings, POST /readings"
	if got := strings.Join(asked, ", "); got != want {
		t.Errorf("the worker asked for %s, want %s: one token for all readings", got, want)
	}
	ada := s.Start(t, enginetest.User{Email: "ada@example.com"})
	status, body := s.call(t, s.plain.Client(), "GET", s.plain.URL+"/readings", "Authorization", "Bearer "+ada.AccessToken)
	if status != http.StatusOK || !strings.Contains(body, `"by":"`+s.worker.ID+`","credential":"client_token","value":20`) {
		t.Errorf("the readings are %d %s, want those of the worker", status, body)
	}
}

func TestTheWorkerTrustsOnlyTheIssuerItKnows(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"another issuer": func(w http.ResponseWriter, _ *http.Request) {
			reply(w, http.StatusOK, map[string]string{"issuer": "https://elsewhere.example", "token_endpoint": "https://elsewhere.example/token"})
		},
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/", http.StatusFound)
		},
		"no metadata":    http.NotFound,
		"not a document": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(answer)
			defer server.Close()
			if err := work(t.Context(), server.URL, "cli_x", "secret", time.Hour); err == nil {
				t.Error("the worker went on, and would send its secret to whoever that is")
			}
		})
	}
}

func TestTheTrailIsPrinted(t *testing.T) {
	t.Parallel()
	s := start(t)
	if err := send(t.Context(), s.plain.Client(), s.plain.URL, 1); err == nil {
		t.Fatal("a reading without a credential was taken")
	}
	var out bytes.Buffer
	if err := printTrail(t.Context(), &out, s.App.Audit()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"access_denied", "unauthenticated", "POST /readings", "Intact: true.", "client_created"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the trail does not say %q:\n%s", want, &out)
		}
	}
}

// call makes a request with header lines, given as names and values, and returns the
// status and the body of the answer.
func (s *service) call(t *testing.T, client *http.Client, method, url string, header ...string) (status int, text string) {
	t.Helper()
	body := map[string]string{"POST": `{"value":21.5}`, "PUT": `{"offset":0.5}`}[method]
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	res, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(raw)
}
