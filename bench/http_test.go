//go:build unix

package bench_test

import (
	"bufio"
	"context"
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
)

// serverVariable makes the test binary the server of P9, so that its processor
// time is its own.
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

// benchServer serves one handler bare, behind RequireUser and behind
// RequirePermission, until its standard input ends.
func benchServer() error {
	ctx := context.Background()
	server, err := localmongo.Start(ctx, &localmongo.Options{Listen: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	client, err := mongo.Connect(ctx, options.Client().ApplyURI(server.URI()))
	if err != nil {
		return err
	}
	eng, err := engine.New(ctx, client.Database("mandate"), &engine.Options{
		SecretKeys: []engine.Secret{engine.NewSecret(strings.Repeat("k", 32))}, InsecureHashCost: 4,
		Logger: slog.New(slog.DiscardHandler), Sinks: []mevent.Sink{mevent.Discard{}},
	})
	if err != nil {
		return err
	}
	m, err := manifest.Parse([]byte(`{"slug":"bench","auth":{"users":{"allow_anonymous_users":true},"policy":{"allow_anonymous":true,
		"authorization":{"initial_policies":[["anonymous","documents","read"]]}}}}`), nil)
	if err != nil {
		return err
	}
	app, err := eng.Load(ctx, m)
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
	mux.HandleFunc("/cpu", func(w http.ResponseWriter, _ *http.Request) {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		_, _ = fmt.Fprint(w, u.Utime.Nano()+u.Stime.Nano())
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr().String(), g.Access.Token)
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	return http.Serve(l, mux)
}

// P9: the processor time of the server for each request, guarded and bare, with
// the same headers, in turn on one connection that is kept.
func BenchmarkP9(b *testing.B) {
	command := exec.CommandContext(b.Context(), os.Args[0])
	command.Env = append(os.Environ(), serverVariable+"=1")
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
	defer func() { _ = stdin.Close(); _ = command.Wait() }()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	addr, token, _ := strings.Cut(strings.TrimSpace(line), " ")
	get := func(path string) string {
		r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			b.Fatalf("%s: %d %s %v", path, res.StatusCode, body, err)
		}
		return string(body)
	}
	cpu := func() int64 {
		n, err := strconv.ParseInt(get("/cpu"), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	// In turn, so that what else runs on the machine meets all alike.
	paths := []string{"/bare", "/user", "/permission"}
	spent := map[string]int64{}
	const round = 500
	requests := 0
	for _, path := range paths {
		get(path)
	}
	for b.Loop() {
		for _, path := range paths {
			before := cpu()
			for range round {
				get(path)
			}
			spent[path] += cpu() - before
		}
		requests += round
	}
	for _, path := range paths {
		b.ReportMetric(float64(spent[path])/float64(requests)/1000, strings.TrimPrefix(path, "/")+"-cpu-µs")
	}
	b.ReportMetric(float64(spent["/bare"])/float64(spent["/user"]), "bare/user")
	b.ReportMetric(float64(spent["/bare"])/float64(spent["/permission"]), "bare/permission")
}
