//go:build unix

package bench_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine"
	mevent "github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// serverVariable makes the test binary the server of P9, so that its processor
// time is its own. Its value is the address of the database, which is in another
// process: what a database costs is not the guard's.
const serverVariable = "MANDATE_BENCH_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(serverVariable) != "" {
		if err := benchServer(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// benchClients is how many clients fetch tokens in turn, so that none meets its limit.
const benchClients = 64

// benchServer serves one handler bare, behind RequireUser, behind RequirePermission,
// and with its requests recorded and logged; an empty JSON POST and the token endpoint. It ends
// with its standard input.
func benchServer() error {
	ctx := context.Background()
	client, err := mongo.Connect(ctx, options.Client().ApplyURI(os.Getenv(serverVariable)))
	if err != nil {
		return err
	}
	eng, err := engine.New(ctx, client.Database(fmt.Sprint("mandate_bench_http_", os.Getpid())), &engine.Options{
		SecretKeys: []engine.Secret{engine.NewSecret(strings.Repeat("k", 32))}, InsecureHashCost: 4,
		Logger: slog.New(slog.DiscardHandler), Sinks: []mevent.Sink{mevent.Discard{}},
	})
	if err != nil {
		return err
	}
	m, err := manifest.Parse([]byte(`{"slug":"bench","auth":{"users":{"allow_anonymous_users":true},"policy":{"allow_anonymous":true,
		"authorization":{"initial_policies":[["anonymous","documents","read"]]}},"tokens":{"issuer":"https://bench.example"},
		"clients":{"enabled":true},"rate_limits":{"token":{"max":1000,"window":"1s"},"token_address":{"enabled":false}}}}`), nil)
	if err != nil {
		return err
	}
	app, err := eng.Load(ctx, m)
	if err != nil {
		return err
	}
	elsewhere, err := manifest.Parse([]byte(`{"slug":"elsewhere","auth":{"audit":{"sinks":["log"]}}}`), nil)
	if err != nil {
		return err
	}
	logged, err := eng.Load(ctx, elsewhere)
	if err != nil {
		return err
	}
	user, err := app.Users().Anonymous(ctx, strings.Repeat("d", 40))
	if err != nil {
		return err
	}
	g, err := app.StartSession(ctx, user.ID, engine.Device{}, false)
	if err != nil {
		return err
	}
	work := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"message":"hello"}`)
	})
	mux := http.NewServeMux()
	mux.Handle("/bare", work)
	mux.Handle("/user", app.RequireUser().Handler(work))
	mux.Handle("/permission", app.RequirePermission("documents", "read").Handler(work))
	mux.Handle("/recorded", app.AuditRequests(app.RequireUser().Handler(work)))
	mux.Handle("/logged", logged.AuditRequests(app.RequireUser().Handler(work)))
	mux.Handle("/auth/", app.Handler())
	mux.HandleFunc("POST /empty", func(w http.ResponseWriter, r *http.Request) {
		var body struct{}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(body)
	})
	clients := make([]string, benchClients)
	for i := range clients {
		c, err := app.Clients().Create(ctx, oauth2.NewClient{Name: fmt.Sprint("client ", i), Scopes: []string{"read"}})
		if err != nil {
			return err
		}
		clients[i] = c.ID + ":" + c.Secret
	}
	mux.HandleFunc("/cpu", func(w http.ResponseWriter, _ *http.Request) {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		_, _ = fmt.Fprint(w, u.Utime.Nano()+u.Stime.Nano())
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr().String(), g.Access.Token, strings.Join(clients, ","))
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	return http.Serve(l, mux)
}

// benchHTTP is a server in a process of its own, and how to call it.
type benchHTTP struct {
	b       *testing.B
	addr    string
	token   string
	clients []string
	sent    int
}

func startHTTP(b *testing.B) *benchHTTP {
	b.Helper()
	uri := os.Getenv("MONGODB_URI")
	if uri == "" {
		database, err := localmongo.Start(b.Context(), &localmongo.Options{Listen: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = database.Close(context.Background()) })
		uri = database.URI()
	}
	command := exec.CommandContext(b.Context(), os.Args[0])
	command.Env = append(os.Environ(), serverVariable+"="+uri)
	stdin, err := command.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = stdin.Close(); _ = command.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	parts := strings.Fields(line)
	return &benchHTTP{b: b, addr: parts[0], token: parts[1], clients: strings.Split(parts[2], ",")}
}

// call sends one request of the path and returns the answer's body.
func (h *benchHTTP) call(path string) string {
	method, body, kind, auth := http.MethodGet, "", "", "Bearer "+h.token
	switch path {
	case "/empty":
		method, body, kind = http.MethodPost, "{}", "application/json"
	case "/auth/oauth2/token":
		method, body, kind = http.MethodPost, "grant_type=client_credentials", "application/x-www-form-urlencoded"
		auth = "Basic " + base64.StdEncoding.EncodeToString([]byte(h.clients[h.sent%len(h.clients)]))
		h.sent++
	}
	r, err := http.NewRequestWithContext(h.b.Context(), method, "http://"+h.addr+path, strings.NewReader(body))
	if err != nil {
		h.b.Fatal(err)
	}
	r.Header.Set("Authorization", auth)
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		h.b.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		h.b.Fatalf("%s: %d %s %v", path, res.StatusCode, answer, err)
	}
	return string(answer)
}

func (h *benchHTTP) cpu() int64 {
	n, err := strconv.ParseInt(h.call("/cpu"), 10, 64)
	if err != nil {
		h.b.Fatal(err)
	}
	return n
}

// measure returns the processor time of the server for a request of each path, in
// microseconds. They are called in turn, so that what else runs on the machine meets
// all alike.
func (h *benchHTTP) measure(paths ...string) map[string]float64 {
	const round = 500
	spent, requests := map[string]int64{}, 0
	for range benchClients { // what is remembered afterwards is looked up now
		for _, path := range paths {
			h.call(path)
		}
	}
	for h.b.Loop() {
		for _, path := range paths {
			before := h.cpu()
			for range round {
				h.call(path)
			}
			spent[path] += h.cpu() - before
		}
		requests += round
	}
	out := map[string]float64{}
	for _, path := range paths {
		out[path] = float64(spent[path]) / float64(requests) / 1000
		name := path[strings.LastIndexByte(path, '/')+1:]
		h.b.ReportMetric(out[path], name+"-cpu-µs")
	}
	return out
}

// P9: the processor time of the server for each request, guarded and bare, with
// the same headers, on one connection that is kept.
func BenchmarkP9(b *testing.B) {
	spent := startHTTP(b).measure("/bare", "/user", "/permission")
	b.ReportMetric(spent["/bare"]/spent["/user"], "bare/user")
	b.ReportMetric(spent["/bare"]/spent["/permission"], "bare/permission")
}

// The same with requests recorded: by the trail, which writes later, while something
// else is measured, so that it is apart; and by a log that nobody keeps, which leaves
// the middleware alone.
func BenchmarkRecorded(b *testing.B) {
	for _, path := range []string{"/recorded", "/logged"} {
		b.Run(path[1:], func(b *testing.B) {
			spent := startHTTP(b).measure("/user", path)
			b.ReportMetric(spent[path]/spent["/user"], path[1:]+"/user")
		})
	}
}

// Client credentials against an empty JSON POST, HS256.
func BenchmarkClientCredentials(b *testing.B) {
	spent := startHTTP(b).measure("/empty", "/auth/oauth2/token")
	b.ReportMetric(spent["/auth/oauth2/token"]/spent["/empty"], "token/empty")
}
