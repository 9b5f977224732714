package prom_test

import (
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/mandate-auth/mandate/engine/metrics"
	"github.com/mandate-auth/mandate/engine/metrics/prom"
)

// collector has everything that there is to count, so that the page has all series.
func collector(app string) *metrics.Collector {
	c := metrics.New(metrics.Config{App: app})
	c.SetGauges(metrics.Gauges{
		FeedAge:      func() time.Duration { return 1500 * time.Millisecond },
		PolicyAge:    func() time.Duration { return time.Minute },
		AuditDropped: func() uint64 { return 2 },
	})
	for range 3 {
		c.ValidationSucceeded(2 * time.Millisecond)
	}
	c.ValidationFailed("expired_token", 6*time.Millisecond)
	c.Login("success")
	c.Login("locked")
	c.Refresh("reused")
	c.Denied("forbidden")
	c.Limited("login")
	c.CacheHit("tokens")
	c.CacheHit("tokens")
	c.CacheMiss("tokens")
	c.ClientTokenIssued()
	c.DatabaseLatency("find", 3*time.Millisecond)
	return c
}

func scrape(t *testing.T, h http.Handler, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics/prometheus", nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w
}

func families(t *testing.T, page string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	out, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatalf("%v in\n%s", err, page)
	}
	return out
}

// Names, help, types and labels are a contract with dashboards and alerts.
func TestPage(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("testdata/page.txt")
	if err != nil {
		t.Fatal(err)
	}
	got := scrape(t, prom.Handler(metrics.Of(collector("shop"))))
	if got.Body.String() != string(want) {
		t.Errorf("the page is\n%s", got.Body)
	}
	if got.Header().Get("Cache-Control") != "no-store" || !strings.HasPrefix(got.Header().Get("Content-Type"), "text/plain") {
		t.Errorf("%v", got.Header())
	}
	families(t, got.Body.String())
}

// The three series that the system Mandate follows has, with type and help.
func TestNamedSeries(t *testing.T) {
	t.Parallel()
	got := families(t, scrape(t, prom.Handler(metrics.Of(collector("shop")))).Body.String())
	for name, want := range map[string]struct {
		kind  dto.MetricType
		value func(*dto.Metric) float64
		is    float64
	}{
		"auth_tokens_validated_total":     {dto.MetricType_COUNTER, func(m *dto.Metric) float64 { return m.GetCounter().GetValue() }, 3},
		"auth_success_rate":               {dto.MetricType_GAUGE, func(m *dto.Metric) float64 { return m.GetGauge().GetValue() }, 75},
		"auth_validation_duration_avg_ms": {dto.MetricType_GAUGE, func(m *dto.Metric) float64 { return m.GetGauge().GetValue() }, 3},
	} {
		f := got[name]
		if f == nil || f.GetType() != want.kind || f.GetHelp() == "" || len(f.GetMetric()) != 1 {
			t.Errorf("%s: %v", name, f)
			continue
		}
		if v := want.value(f.GetMetric()[0]); v != want.is {
			t.Errorf("%s is %v, not %v", name, v, want.is)
		}
	}
}

// An app where nobody has signed in yet has no rate; 0 % would wake somebody up.
func TestIdleApp(t *testing.T) {
	t.Parallel()
	got := families(t, scrape(t, prom.Handler(metrics.Of(metrics.New(metrics.Config{App: "shop"})))).Body.String())
	for _, name := range []string{"auth_success_rate", "auth_validation_duration_avg_ms"} {
		if v := got[name].GetMetric()[0].GetGauge().GetValue(); !math.IsNaN(v) {
			t.Errorf("%s is %v", name, v)
		}
	}
	if v := got["auth_tokens_validated_total"].GetMetric()[0].GetCounter().GetValue(); v != 0 {
		t.Errorf("%v validated", v)
	}
	for _, name := range []string{"auth_revocation_feed_age_seconds", "auth_policy_age_seconds", "auth_audit_events_dropped_total", "auth_logins_total"} {
		if got[name] != nil {
			t.Errorf("%s out of nowhere", name)
		}
	}
}

// The collector of a client of the database belongs to no app: a rate of NaN beside
// the apps' would spoil every mean over them.
func TestCollectorWithoutApp(t *testing.T) {
	t.Parallel()
	c := metrics.New(metrics.Config{})
	c.DatabaseLatency("find", time.Millisecond)
	h := prom.Handler(metrics.Of(c))
	if got := families(t, scrape(t, h).Body.String()); len(got) != 1 || got["auth_database_command_duration_seconds"] == nil {
		t.Errorf("%v", got)
	}
	c.ValidationSucceeded(time.Millisecond)
	if got := families(t, scrape(t, h).Body.String()); got["auth_success_rate"].GetMetric()[0].GetGauge().GetValue() != 100 {
		t.Errorf("%v", got)
	}
}

func TestConventions(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(prom.NewCollector(metrics.Of(collector("shop"), collector("blog"))))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		// The name is that of the system that Mandate follows, unit and all;
		// auth_validation_duration_seconds is the one that follows the conventions.
		if p.Metric == "auth_validation_duration_avg_ms" && strings.Contains(p.Text, "abbreviated units") {
			continue
		}
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Apps come and go; each scrape asks anew, and one that is listed twice or not there
// must not cost the others their figures.
func TestSourceIsAskedAtEveryScrape(t *testing.T) {
	t.Parallel()
	var apps []*metrics.Collector
	h := prom.Handler(func() []*metrics.Collector { return apps })
	count := func() int {
		f := families(t, scrape(t, h).Body.String())["auth_tokens_validated_total"]
		return len(f.GetMetric())
	}
	if n := count(); n != 0 {
		t.Errorf("%d apps of none", n)
	}
	shop := collector("shop")
	apps = []*metrics.Collector{shop, nil, shop, collector("blog")}
	if n := count(); n != 2 {
		t.Errorf("%d apps of two", n)
	}
}

// A label from a request cannot break the page.
func TestHostileValues(t *testing.T) {
	t.Parallel()
	c := metrics.New(metrics.Config{App: "a\"\n\\\xff"})
	c.ValidationFailed("x\"} 1\nauth_tokens_validated_total 99", time.Second)
	c.Denied("\xff\xfe")
	got := families(t, scrape(t, prom.Handler(metrics.Of(c))).Body.String())
	if v := got["auth_tokens_validated_total"].GetMetric(); len(v) != 1 || v[0].GetCounter().GetValue() != 0 {
		t.Errorf("%v", v)
	}
	failed := got["auth_tokens_failed_total"].GetMetric()
	if len(failed) != 1 || failed[0].GetLabel()[1].GetValue() != "x\"} 1\nauth_tokens_validated_total 99" {
		t.Errorf("%v", failed)
	}
	if v := got["auth_denials_total"].GetMetric()[0].GetLabel()[1].GetValue(); v != metrics.Other {
		t.Errorf("%q", v)
	}
}

func TestOpenMetrics(t *testing.T) {
	t.Parallel()
	w := scrape(t, prom.Handler(metrics.Of(collector("shop"))), "Accept", "application/openmetrics-text;version=1.0.0")
	if !strings.HasPrefix(w.Header().Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(w.Body.String(), "# EOF\n") {
		t.Errorf("%v", w.Header())
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	h := prom.Handler(metrics.Of())
	for method, want := range map[string]int{
		http.MethodGet: http.StatusOK, http.MethodHead: http.StatusOK, http.MethodPost: http.StatusMethodNotAllowed, http.MethodPut: http.StatusMethodNotAllowed,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/metrics/prometheus", nil))
		if w.Code != want || want != http.StatusOK && w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d %v", method, w.Code, w.Header())
		}
	}
}

// Scrapes run while requests are counted; the race detector watches.
func TestScrapesInParallel(t *testing.T) {
	t.Parallel()
	c := collector("shop")
	h := prom.Handler(metrics.Of(c))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 5000 {
			c.Start().Succeeded()
			c.DatabaseLatency("find", time.Duration(i)*time.Microsecond)
		}
	}()
	for range 20 {
		families(t, scrape(t, h).Body.String())
	}
	<-done
	if n := testutil.CollectAndCount(prom.NewCollector(metrics.Of(c)), "auth_validation_duration_seconds"); n != 1 {
		t.Errorf("%d histograms", n)
	}
}

func ExampleHandler() {
	c := metrics.New(metrics.Config{App: "shop"})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics/prometheus", prom.Handler(metrics.Of(c)))
}
