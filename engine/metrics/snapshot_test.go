package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/metrics"
)

// The names are what dashboards of the system that Mandate follows ask for.
func TestSnapshotAsJSON(t *testing.T) {
	t.Parallel()
	c, now := setup(t)
	get := func() string {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
		return w.Body.String()
	}
	const idle = `{"uptime_seconds":0,"tokens_validated":0,"tokens_failed":0,"total_tokens":0,"success_rate":0,` +
		`"validation_time_avg_ms":0,"validation_time_p95_ms":0,"validation_time_p99_ms":0,"errors_by_type":{}}` + "\n"
	if got := get(); got != idle {
		t.Errorf("an idle app:\n%s", got)
	}
	now.move(90 * time.Second)
	for range 3 {
		c.ValidationSucceeded(20)
	}
	c.ValidationFailed("expired_token", 32)
	const busy = `{"uptime_seconds":90,"tokens_validated":3,"tokens_failed":1,"total_tokens":4,"success_rate":75,` +
		`"validation_time_avg_ms":0.000023,"validation_time_p95_ms":0.000032,"validation_time_p99_ms":0.000032,"errors_by_type":{"expired_token":1}}` + "\n"
	if got := get(); got != busy {
		t.Errorf("a busy app:\n%s", got)
	}
}

func TestSnapshotHandlerMethods(t *testing.T) {
	t.Parallel()
	c, _ := setup(t)
	for method, want := range map[string]int{
		http.MethodGet: http.StatusOK, http.MethodHead: http.StatusOK, http.MethodPost: http.StatusMethodNotAllowed,
		http.MethodDelete: http.StatusMethodNotAllowed, http.MethodOptions: http.StatusMethodNotAllowed,
	} {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest(method, "/metrics", nil))
		if w.Code != want || want != http.StatusOK && w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d %v", method, w.Code, w.Header())
		}
	}
}

// A service that embeds the engine must not get the exporters' dependencies with it.
func TestImportsNothingButTheStandardLibrary(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(out)); got != "github.com/mandate-auth/mandate/engine/metrics" {
		t.Errorf("the package brings with it:\n%s", got)
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	c, _ := setup(t)
	if got := metrics.Of(c)(); len(got) != 1 || got[0] != c {
		t.Errorf("%v", got)
	}
}
