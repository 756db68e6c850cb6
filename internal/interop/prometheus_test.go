package interop_test

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	promclient "github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	prommodel "github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// A plant is an app with a gateway, whose services get into all the trouble that
// there are metrics for.
type plant struct {
	*testing.T
	gw    *gateway.Gateway
	cache *gateway.Cache
	app   *server // the gateway at /api/, the page at /metrics, and /inside/ within a span of the app's
	hold  chan struct{}
	down  atomic.Bool // of the service "shaky"
	asked atomic.Int64
	held  chan struct{} // ended requests of "narrow"
}

func newPlant(t *testing.T, shared ...gateway.SharedOption) *plant {
	p := &plant{T: t, hold: make(chan struct{}), held: make(chan struct{}, 16)}
	up := serve(t, http.HandlerFunc(p.answer))
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, dead.Close())
	var cacheOptions []gateway.CacheOption
	var options []gateway.Option
	for _, o := range shared {
		cacheOptions, options = append(cacheOptions, o), append(options, o)
	}
	p.cache = newCache(t, cacheOptions...)
	p.gw = newGateway(t, append(options,
		gateway.WithCache(p.cache), gateway.WithoutBreaker(), gateway.WithRetryBackoff(time.Nanosecond, time.Nanosecond),
		gateway.WithService("users", up.URL),
		gateway.WithService("shaky", up.URL, gateway.WithoutCache(), gateway.WithoutRetries(), gateway.WithBreaker(0.5, 3), gateway.WithBreakerTimes(10*time.Second, time.Hour, 1)),
		gateway.WithService("pair", up.URL, gateway.WithReplicas(gateway.Replica{URL: "http://" + dead.Addr().String()}), gateway.WithBalancing(gateway.RoundRobin()),
			gateway.WithoutCache(), gateway.WithEjection(3, time.Hour, time.Hour)),
		gateway.WithService("narrow", up.URL, gateway.WithoutCache(), gateway.WithMaxConcurrency(1, 10, 0)),
	)...)
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", p.gw))
	mux.Handle("/metrics", p.gw.MetricsHandler())
	mux.Handle("/metrics/", p.gw.MetricsHandler())
	p.app = serve(t, mux)
	return p
}

func (p *plant) answer(w http.ResponseWriter, r *http.Request) {
	n := p.asked.Add(1)
	switch r.URL.Path {
	case "/fresh":
		w.Header().Set("Cache-Control", "max-age=3600")
	case "/stale":
		w.Header().Set("Cache-Control", "max-age=0")
		w.Header().Set("Etag", `"v1"`)
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	case "/behind":
		w.Header().Set("Cache-Control", "max-age=0, stale-while-revalidate=3600")
		w.Header().Set("Etag", `"v1"`)
	case "/missing":
		http.NotFound(w, r)
		return
	case "/broken":
		w.WriteHeader(http.StatusInternalServerError)
		return
	case "/late":
		if r.Header.Get("X-Forwarded-Prefix") == "" || n%2 == 1 { // every other time
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
	case "/hold":
		<-p.hold
	case "/shaky":
		if p.down.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
	}
	_, _ = io.WriteString(w, "ok")
}

// want asks for a path of the app, and checks the status.
func (p *plant) want(status int, path string) {
	p.Helper()
	assert.Equal(p, status, get(p, p.app.Client(), p.app.URL+path).StatusCode, path)
}

// trouble is one of everything. Requests of "narrow" are left under way: one
// holds the only place, and two wait for it.
func (p *plant) trouble() {
	p.Helper()
	before := p.page().counted("http_client_request_duration_seconds")
	for _, path := range []string{"/fresh", "/fresh", "/stale", "/stale", "/behind", "/behind"} {
		p.want(200, "/api/users"+path)
	}
	testnet.Settle(p, "the refresh", func() bool {
		return p.cache.Stats().Refreshes == 1 && p.page().counted("http_client_request_duration_seconds") == before+5
	})
	p.want(404, "/api/users/missing")
	p.want(500, "/api/users/broken")
	p.want(404, "/api/nobody/x")
	assert.Equal(p, 200, send(p, p.app.Client(), http.MethodPost, p.app.URL+"/api/users/post", strings.NewReader("x")).StatusCode)
	p.asked.Store(0)
	p.want(200, "/api/users/late")
	p.down.Store(true)
	for range 3 {
		p.want(500, "/api/shaky/shaky")
	}
	for range 2 {
		p.want(503, "/api/shaky/shaky")
	}
	for range 6 {
		p.want(200, "/api/pair/x")
	}
	for range 3 {
		go func() {
			resp, err := p.app.Client().Get(p.app.URL + "/api/narrow/hold")
			if assert.NoError(p, err) {
				resp.Body.Close()
			}
			p.held <- struct{}{}
		}()
	}
	testnet.Settle(p, "who waits", func() bool {
		s := p.gw.Stats().Services["narrow"]
		return s.Queue.Waiting == 2 && s.Replicas[0].Conns.InUse == 1
	})
}

// release has the requests under way end.
func (p *plant) release() {
	p.Helper()
	close(p.hold)
	for range 3 {
		within(p, "a request of narrow", p.held)
	}
}

// families are metrics by name.
type families map[string]*dto.MetricFamily

// page is what MetricsHandler tells.
func (p *plant) page() families {
	p.Helper()
	resp := get(p, p.app.Client(), p.app.URL+"/metrics")
	require.Equal(p, 200, resp.StatusCode)
	parser := expfmt.NewTextParser(prommodel.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(resp.body))
	require.NoError(p, err)
	return parsed
}

// counted is how many durations a histogram has.
func (f families) counted(name string) (n uint64) {
	for _, m := range f[name].GetMetric() {
		n += m.GetHistogram().GetSampleCount()
	}
	return n
}

// series returns all values by name and labels, of which those of the
// instrumentation scope are left out; and the kind of each family.
func (f families) series() (values map[string]float64, kinds map[string]string) {
	values, kinds = map[string]float64{}, map[string]string{}
	for name, family := range f {
		kinds[name] = fmt.Sprintf("%v: %s", family.GetType(), family.GetHelp())
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				if !strings.HasPrefix(l.GetName(), "otel_scope_") {
					labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
				}
			}
			slices.Sort(labels)
			key := name + "{" + strings.Join(labels, ",") + "}"
			switch family.GetType() {
			case dto.MetricType_COUNTER:
				values[key] = m.GetCounter().GetValue()
			case dto.MetricType_GAUGE:
				values[key] = m.GetGauge().GetValue()
			case dto.MetricType_HISTOGRAM:
				h := m.GetHistogram()
				values[key+" count"] = float64(h.GetSampleCount())
				values[key+" sum"] = h.GetSampleSum()
				for _, b := range h.GetBucket() {
					if math.IsInf(b.GetUpperBound(), 1) {
						continue // the count once more, where it is told
					}
					values[fmt.Sprintf("%s le=%v", key, b.GetUpperBound())] = float64(b.GetCumulativeCount())
				}
			}
		}
	}
	return values, kinds
}

// An exporter is OpenTelemetry's for Prometheus, with all that it does by
// default.
type exporter struct {
	registry *promclient.Registry
	meters   *sdkmetric.MeterProvider
}

func newExporter(t *testing.T) *exporter {
	t.Helper()
	e := &exporter{registry: promclient.NewRegistry()}
	reader, err := prometheus.New(prometheus.WithRegisterer(e.registry))
	require.NoError(t, err)
	e.meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	return e
}

// gather returns what the exporter has of us.
func (e *exporter) gather(t *testing.T) families {
	t.Helper()
	all, err := e.registry.Gather()
	require.NoError(t, err)
	out := families{}
	for _, f := range all {
		if f.GetName() != "target_info" {
			out[f.GetName()] = f
		}
	}
	return out
}

func has(series map[string]float64, name string) bool {
	_, ok := series[name]
	return ok
}

// One dashboard serves both: the page has the names, types, labels, buckets and
// values of the exporter, and nothing else.
func TestPageIsThatOfTheExporter(t *testing.T) {
	e := newExporter(t)
	tm := newTelemetry()
	p := newPlant(t, gateway.WithMeterProvider(e.meters), gateway.WithTracerProvider(tm.traces))
	measured := newCache(t, gateway.WithMeterProvider(e.meters))
	require.NoError(t, shutdown(measured)) // what is over leaves nothing
	p.trouble()

	inside := http.StripPrefix("/api", p.gw)
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := tm.traces.Tracer("app").Start(r.Context(), "app")
		defer span.End()
		inside.ServeHTTP(w, r.WithContext(ctx))
	}))
	require.Equal(t, 200, get(t, app.Client(), app.URL+"/api/users/fresh").StatusCode)

	page, kinds := p.page().series()
	other, otherKinds := e.gather(t).series()
	for _, name := range []string{
		"http_server_request_duration_seconds", "http_client_request_duration_seconds", "gateway_request_duration_seconds",
		"gateway_requests_total", "gateway_active_requests", "gateway_retries_total", "gateway_hedges_total", "gateway_ejections_total",
		"gateway_endpoint_healthy", "gateway_breaker_state", "gateway_breaker_transitions_total", "gateway_pool_connections",
		"gateway_pool_waiting", "gateway_pool_waits_total", "gateway_pool_wait_time_seconds_total", "gateway_queue_in_use", "gateway_queue_waiting",
		"gateway_queue_drops_total", "gateway_retry_refused_total", "gateway_retry_budget_used", "gateway_retry_budget_limit",
		"http_server_active_requests", "http_client_active_requests", "http_client_open_connections",
		"gateway_cache_requests_total", "gateway_cache_size_bytes", "gateway_cache_entries",
	} {
		assert.Contains(t, kinds, name)
	}
	for series, want := range map[string]float64{
		`gateway_requests_total{gateway_reason="breaker_open",gateway_service="shaky"}`:      2,
		`gateway_requests_total{gateway_reason="unknown_service"}`:                           1,
		`gateway_requests_total{gateway_service="users"}`:                                    11,
		`gateway_breaker_state{gateway_breaker_state="open",gateway_service="shaky"}`:        1,
		`gateway_ejections_total{gateway_service="pair"}`:                                    1,
		`gateway_retries_total{gateway_retry_cause="503",gateway_service="users"}`:           1,
		`gateway_retries_total{gateway_retry_cause="connect_failed",gateway_service="pair"}`: 3,
		`gateway_queue_in_use{gateway_service="narrow"}`:                                     1,
		`gateway_queue_waiting{gateway_service="narrow"}`:                                    2,
		`gateway_active_requests{gateway_service="narrow"}`:                                  3,
		`gateway_cache_requests_total{gateway_cache_result="hit"}`:                           2,
		`gateway_cache_requests_total{gateway_cache_result="stale"}`:                         1,
		`gateway_cache_refreshes_total{}`:                                                    1,
		`http_server_request_duration_seconds{error_type="500",http_request_method="GET",http_response_status_code="500",http_route="/api/users/{path...}",network_protocol_version="1.1",url_scheme="http"} count`: 1,
		`http_server_request_duration_seconds{http_request_method="GET",http_response_status_code="404",network_protocol_version="1.1",url_scheme="http"} count`:                                                    1,
		`gateway_request_duration_seconds{http_request_method="GET",http_response_status_code="200",http_route="/users/{path...}",network_protocol_version="1.1",url_scheme="http"} count`:                          1,
	} {
		got, ok := page[series]
		assert.True(t, ok && got == want, "%s is %v, %v; not %v", series, got, ok, want)
	}
	assert.Equal(t, otherKinds, kinds)
	for series := range page {
		assert.True(t, has(other, series), "only the page has %s", series)
	}
	for series, want := range other {
		got, ok := page[series]
		assert.True(t, ok, "only the exporter has %s", series)
		assert.InDelta(t, want, got, 1e-6*want, series)
	}
	p.release()
}
