package otel_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/mandate-auth/mandate/engine/metrics"
	"github.com/mandate-auth/mandate/engine/metrics/otel"
)

// collector has everything that there is to count.
func collector(app string) *metrics.Collector {
	c := metrics.New(metrics.Config{App: app})
	c.SetGauges(metrics.Gauges{
		FeedAge:      func() time.Duration { return 1500 * time.Millisecond },
		PolicyAge:    func() time.Duration { return time.Minute },
		AuditDropped: func() uint64 { return 2 },
	})
	for range 3 {
		c.ValidationSucceeded(20)
	}
	c.ValidationFailed("expired_token", 20)
	c.Login("success")
	c.Refresh("reused")
	c.Denied("forbidden")
	c.Limited("login")
	c.CacheHit("tokens")
	c.CacheHit("tokens")
	c.CacheMiss("tokens")
	c.ClientTokenIssued()
	c.DatabaseLatency("find", 3*time.Second)
	return c
}

func setup(t *testing.T) (*sdk.ManualReader, metric.Meter) {
	t.Helper()
	reader := sdk.NewManualReader()
	provider := sdk.NewMeterProvider(sdk.WithReader(reader))
	t.Cleanup(func() {
		if err := provider.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return reader, provider.Meter("github.com/mandate-auth/mandate")
}

// collect returns each point as "name{attributes}" with "value kind unit".
func collect(t *testing.T, reader *sdk.ManualReader) map[string]string {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Description == "" {
				t.Errorf("%s has no description", m.Name)
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				points(out, m, "counter", data.IsMonotonic, data.DataPoints)
			case metricdata.Sum[float64]:
				points(out, m, "counter", data.IsMonotonic, data.DataPoints)
			case metricdata.Gauge[float64]:
				points(out, m, "gauge", true, data.DataPoints)
			default:
				t.Errorf("%s is a %T", m.Name, data)
			}
		}
	}
	return out
}

func points[N int64 | float64](out map[string]string, m metricdata.Metrics, kind string, monotonic bool, data []metricdata.DataPoint[N]) {
	for _, p := range data {
		var attrs []string
		for _, a := range p.Attributes.ToSlice() {
			attrs = append(attrs, string(a.Key)+"="+a.Value.AsString())
		}
		if !monotonic {
			kind = "not monotonic"
		}
		out[m.Name+"{"+strings.Join(attrs, ",")+"}"] = fmt.Sprint(p.Value, " ", kind, " ", m.Unit)
	}
}

func TestEverythingIsObserved(t *testing.T) {
	t.Parallel()
	reader, meter := setup(t)
	unregister, err := otel.Register(meter, metrics.Of(collector("shop")))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"mandate.auth.validations{mandate.app=shop,result=success}":                          "3 counter {validation}",
		"mandate.auth.validations{error.type=expired_token,mandate.app=shop,result=failure}": "1 counter {validation}",
		"mandate.auth.validation.duration.count{mandate.app=shop}":                           "4 counter {validation}",
		"mandate.auth.validation.duration.sum{mandate.app=shop}":                             "8e-08 counter s",
		"mandate.auth.validation.duration.avg{mandate.app=shop}":                             "2e-08 gauge s",
		"mandate.auth.validation.duration.p95{mandate.app=shop}":                             "2e-08 gauge s",
		"mandate.auth.validation.duration.p99{mandate.app=shop}":                             "2e-08 gauge s",
		"mandate.auth.logins{mandate.app=shop,result=success}":                               "1 counter {attempt}",
		"mandate.auth.refreshes{mandate.app=shop,result=reused}":                             "1 counter {attempt}",
		"mandate.auth.denials{code=forbidden,mandate.app=shop}":                              "1 counter {request}",
		"mandate.auth.rate_limited{mandate.app=shop,rule=login}":                             "1 counter {request}",
		"mandate.auth.cache.lookups{cache=tokens,mandate.app=shop,result=hit}":               "2 counter {lookup}",
		"mandate.auth.cache.lookups{cache=tokens,mandate.app=shop,result=miss}":              "1 counter {lookup}",
		"mandate.auth.client_tokens{mandate.app=shop}":                                       "1 counter {token}",
		"mandate.auth.revocation_feed.age{mandate.app=shop}":                                 "1.5 gauge s",
		"mandate.auth.policy.age{mandate.app=shop}":                                          "60 gauge s",
		"mandate.auth.audit.dropped{mandate.app=shop}":                                       "2 counter {event}",
		"mandate.db.operation.duration.count{db.operation.name=find,mandate.app=shop}":       "1 counter {operation}",
		"mandate.db.operation.duration.sum{db.operation.name=find,mandate.app=shop}":         "3 counter s",
	}
	if d := cmp.Diff(want, collect(t, reader)); d != "" {
		t.Error(d)
	}
	if err := unregister(); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, reader); len(got) != 0 {
		t.Errorf("observed after the end: %v", got)
	}
}

// What was never measured must not be shown as zero.
func TestIdleApp(t *testing.T) {
	t.Parallel()
	reader, meter := setup(t)
	c := metrics.New(metrics.Config{App: "shop"})
	if _, err := otel.Register(meter, metrics.Of(c)); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"mandate.auth.validations{mandate.app=shop,result=success}": "0 counter {validation}",
		"mandate.auth.validation.duration.count{mandate.app=shop}":  "0 counter {validation}",
		"mandate.auth.validation.duration.sum{mandate.app=shop}":    "0 counter s",
		"mandate.auth.client_tokens{mandate.app=shop}":              "0 counter {token}",
	}
	if d := cmp.Diff(want, collect(t, reader)); d != "" {
		t.Error(d)
	}
	c.Start().Succeeded()
	if got := collect(t, reader)["mandate.auth.validations{mandate.app=shop,result=success}"]; got != "1 counter {validation}" {
		t.Errorf("the next collection sees %s", got)
	}
}

// Adding what two collectors of one app count would show every event twice.
func TestSourceIsAskedAtEveryCollection(t *testing.T) {
	t.Parallel()
	reader, meter := setup(t)
	shop := collector("shop")
	var apps []*metrics.Collector
	if _, err := otel.Register(meter, func() []*metrics.Collector { return apps }); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, reader); len(got) != 0 {
		t.Errorf("%v", got)
	}
	apps = []*metrics.Collector{shop, nil, shop, collector("blog")}
	got := collect(t, reader)
	for _, app := range []string{"shop", "blog"} {
		if v := got["mandate.auth.client_tokens{mandate.app="+app+"}"]; v != "1 counter {token}" {
			t.Errorf("%s: %s", app, v)
		}
	}
}

// refusing is a meter of an SDK that does not take everything.
type refusing struct {
	metric.Meter
	instrument, callback error
}

func (m refusing) Float64ObservableGauge(name string, o ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	if m.instrument != nil {
		return nil, m.instrument
	}
	return m.Meter.Float64ObservableGauge(name, o...)
}

func (m refusing) RegisterCallback(f metric.Callback, in ...metric.Observable) (metric.Registration, error) {
	if m.callback != nil {
		return nil, m.callback
	}
	return m.Meter.RegisterCallback(f, in...)
}

func TestMeterRefuses(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	meter := noop.NewMeterProvider().Meter("x")
	for name, m := range map[string]refusing{
		"instrument": {Meter: meter, instrument: refused}, "callback": {Meter: meter, callback: refused},
	} {
		unregister, err := otel.Register(m, metrics.Of())
		if !errors.Is(err, refused) || unregister != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := otel.Register(refusing{Meter: meter}, metrics.Of()); err != nil {
		t.Error(err)
	}
}

// The SDK is the service's choice.
func TestImportsTheAPIOnly(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "otel/sdk") || strings.Contains(line, "prometheus") {
			t.Errorf("the package brings %s", line)
		}
	}
}

func ExampleRegister() {
	c := metrics.New(metrics.Config{App: "shop"})
	provider := sdk.NewMeterProvider() // with the service's own readers
	unregister, err := otel.Register(provider.Meter("github.com/mandate-auth/mandate"), metrics.Of(c))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = unregister() }()
}
