package telemetry

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace/noop"
)

// A rig is a Telemetry whose spans and metrics can be read.
type rig struct {
	*Telemetry
	t      testing.TB
	spans  *tracetest.SpanRecorder
	tracer *sdktrace.TracerProvider
	reader *sdkmetric.ManualReader
}

func newRig(t testing.TB, options ...func(*Config)) *rig {
	r := &rig{t: t, spans: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
	r.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r.spans))
	c := Config{
		Tracer:     r.tracer,
		Meter:      sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.reader)),
		Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
		Version:    "v1.2.3",
	}
	for _, o := range options {
		o(&c)
	}
	var err error
	r.Telemetry, err = New(c)
	require.NoError(t, err)
	return r
}

// users is the service of most tests.
func (r *rig) users() *Service {
	return r.Service(ServiceConfig{Name: "users"})
}

var peerOfTests net.Addr = &net.TCPAddr{IP: net.ParseIP("10.1.2.3"), Port: 8000}

// at is the endpoint of most tests.
func at(s *Service) *Endpoint {
	return s.Endpoint(EndpointConfig{Scheme: "http", Host: "u.internal", Port: 8000})
}

// span returns the one ended span.
func (r *rig) span() sdktrace.ReadOnlySpan {
	r.t.Helper()
	require.Len(r.t, r.spans.Ended(), 1)
	return r.spans.Ended()[0]
}

// metrics returns what was collected, by instrument name.
func (r *rig) metrics() map[string]metricdata.Metrics {
	r.t.Helper()
	var rm metricdata.ResourceMetrics
	require.NoError(r.t, r.reader.Collect(context.Background(), &rm))
	all := map[string]metricdata.Metrics{}
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			all[m.Name] = m
		}
	}
	return all
}

// points returns the series of a histogram; none if it was never recorded.
func (r *rig) points(name string) []metricdata.HistogramDataPoint[float64] {
	r.t.Helper()
	h, _ := r.metrics()[name].Data.(metricdata.Histogram[float64])
	return h.DataPoints
}

// attributes returns what a span or a series says as plain values.
func attributes(list []attribute.KeyValue) map[string]any {
	m := map[string]any{}
	for _, kv := range list {
		m[string(kv.Key)] = kv.Value.AsInterface()
	}
	return m
}

// serve records one whole request.
func serve(s *Service, r *http.Request, res ServerResult) {
	var sv Server
	s.StartServer(&sv, r)
	sv.End(&res)
}

// attempt records one whole attempt.
func attempt(e *Endpoint, status int, errorType string) {
	var c Client
	e.StartClient(context.Background(), &c, "GET", "/x", "", 0, Ref{})
	c.Peer(peerOfTests)
	c.Head(status, "HTTP/1.1")
	c.End(errorType, time.Millisecond)
}

func TestScopeNamesModuleVersionAndSchema(t *testing.T) {
	r := newRig(t)
	serve(r.users(), httptest.NewRequest(http.MethodGet, "/users/1", nil), ServerResult{Status: 200})

	scope := r.span().InstrumentationScope()
	assert.Equal(t, "github.com/embedgw/gateway", scope.Name)
	assert.Equal(t, "v1.2.3", scope.Version)
	assert.Equal(t, semconv.SchemaURL, scope.SchemaURL)
}

func TestDurationsHaveTheConventionsForm(t *testing.T) {
	r := newRig(t)
	serve(r.users(), httptest.NewRequest(http.MethodGet, "/users/1", nil), ServerResult{Status: 200, Duration: 30 * time.Millisecond})
	attempt(at(r.users()), 200, "")
	ctx, span := r.tracer.Tracer("app").Start(context.Background(), "app")
	serve(r.users(), httptest.NewRequest(http.MethodGet, "/users/1", nil).WithContext(ctx), ServerResult{Status: 200})
	span.End()

	for _, name := range []string{"http.server.request.duration", "http.client.request.duration", "gateway.request.duration"} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, "s", r.metrics()[name].Unit)
			points := r.points(name)
			require.Len(t, points, 1)
			assert.EqualValues(t, 1, points[0].Count)
			assert.Equal(t, []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}, points[0].Bounds)
		})
	}
	assert.InDelta(t, .03, r.points("http.server.request.duration")[0].Sum, 1e-9)
}

func TestOwnPartIsMeasuredByService(t *testing.T) {
	r := newRig(t)
	for _, own := range []time.Duration{20 * time.Microsecond, 3 * time.Millisecond} {
		serve(r.users(), httptest.NewRequest(http.MethodGet, "/users/1", nil), ServerResult{Status: 200, Duration: time.Second, Own: own})
	}
	serve(r.Unrouted(false), httptest.NewRequest(http.MethodGet, "/x", nil), ServerResult{Status: 404, Own: time.Microsecond})
	const name = "gateway.request.own.duration"
	assert.Equal(t, "s", r.metrics()[name].Unit)
	counts := map[string]uint64{}
	for _, p := range r.points(name) {
		service, _ := p.Attributes.Value("gateway.service")
		counts[service.AsString()] = p.Count
		assert.LessOrEqual(t, p.Attributes.Len(), 1)
		if p.Count == 2 {
			assert.InDelta(t, .00302, p.Sum, 1e-9)
			assert.EqualValues(t, 1, p.BucketCounts[1], "up to 25 µs")
		}
	}
	assert.Equal(t, map[string]uint64{"users": 2, "": 1}, counts)
}

func TestCacheIsObservedUntilStopped(t *testing.T) {
	r := newRig(t)
	first, err := r.ObserveCache(func() CacheState {
		return CacheState{
			Entries: 3, Bytes: 4096, Requests: map[string]uint64{"hit": 2, "stale": 0}, Evictions: map[string]uint64{"size": 5},
			Collapsed: 6, Refreshes: 7, Drops: 8,
		}
	})
	require.NoError(t, err)
	second, err := r.ObserveCache(func() CacheState {
		return CacheState{Entries: 1, Bytes: 1024, Requests: map[string]uint64{"hit": 1}, Evictions: map[string]uint64{"size": 1}}
	})
	require.NoError(t, err)

	value := func(name string) int64 {
		sum, ok := r.metrics()[name].Data.(metricdata.Sum[int64])
		if !ok || len(sum.DataPoints) != 1 {
			return -1
		}
		assert.False(t, sum.IsMonotonic)
		return sum.DataPoints[0].Value
	}
	assert.Equal(t, "{entry}", r.metrics()["gateway.cache.entries"].Unit)
	assert.Equal(t, "By", r.metrics()["gateway.cache.size"].Unit)
	assert.EqualValues(t, 4, value("gateway.cache.entries"))
	assert.EqualValues(t, 5120, value("gateway.cache.size"))

	values, monotonic := r.sums()
	assert.Equal(t, map[string]int64{
		"cache.entries ": 4, "cache.size ": 5120, "cache.requests hit": 3, "cache.requests stale": 0, "cache.evictions size": 6,
		"cache.collapsed ": 6, "cache.refreshes ": 7, "cache.drops ": 8,
	}, values)
	assert.True(t, monotonic["gateway.cache.requests"])

	second.Stop()
	assert.EqualValues(t, 3, value("gateway.cache.entries"))
	first.Stop()
	first.Stop()
	assert.EqualValues(t, -1, value("gateway.cache.entries"))
}

// A brokenMeter refuses every instrument.
type brokenMeter struct{ metricnoop.MeterProvider }

type brokenInstruments struct{ metricnoop.Meter }

var errInstrument = errors.New("no instrument")

func (brokenMeter) Meter(string, ...metric.MeterOption) metric.Meter { return brokenInstruments{} }

func (brokenInstruments) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return nil, errInstrument
}

func TestRefusedInstrumentFailsConstruction(t *testing.T) {
	_, err := New(Config{Meter: brokenMeter{}})
	require.ErrorIs(t, err, errInstrument)
}

func TestExplicitNoopCostsNothing(t *testing.T) {
	for name, propagator := range map[string]propagation.TextMapPropagator{
		"unset": nil,
		"w3c":   propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	} {
		t.Run("propagator="+name, func(t *testing.T) {
			te, err := New(Config{Tracer: noop.NewTracerProvider(), Meter: metricnoop.NewMeterProvider(), Propagator: propagator})
			require.NoError(t, err)
			assertAllocs(t, te, 0)
		})
	}
}

// OpenTelemetry makes 3 allocations for a span while its globals are unset;
// we add none to the two.
func TestUnsetGlobalsCostOnlyTheirOwnSpans(t *testing.T) {
	te, err := New(Config{})
	require.NoError(t, err)
	require.NotNil(t, te.placeholder, "the placeholder of the OpenTelemetry API is not recognised")
	assertAllocs(t, te, 6)
}

func TestRecordingAMetricAllocatesNothing(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Tracer = noop.NewTracerProvider() })
	assertAllocs(t, r.Telemetry, 0)
	assert.NotEmpty(t, r.points("http.server.request.duration"))
	assert.NotEmpty(t, r.points("http.client.request.duration"))
}

func assertAllocs(t *testing.T, te *Telemetry, limit float64) {
	t.Helper()
	exchange := newExchange(te)
	exchange()
	if got := testing.AllocsPerRun(200, exchange); !raceEnabled {
		assert.LessOrEqual(t, got, limit)
	}
}

// newExchange returns one request with one attempt, as the gateway reports it.
func newExchange(te *Telemetry) func() {
	type exchange struct {
		server Server
		client Client
		result ServerResult
	}
	s := te.Service(ServiceConfig{Name: "users"})
	e := at(s)
	r := httptest.NewRequest(http.MethodGet, "/api/users/42?page=2&sig=abc", nil)
	r.Pattern = "/api/"
	r.Header.Set("User-Agent", "curl/8.5.0")
	out, x := http.Header{}, &exchange{}
	return func() {
		ctx := s.StartServer(&x.server, r)
		ctx = e.StartClient(ctx, &x.client, "GET", "/42", "page=2&sig=abc", 0, Ref{})
		s.Inject(ctx, out)
		x.client.Peer(peerOfTests)
		x.client.Head(200, "HTTP/1.1")
		x.client.End("", time.Millisecond)
		x.result = ServerResult{Status: 200, Duration: time.Millisecond, ResponseBytes: 1024, CacheResult: "miss"}
		x.server.End(&x.result)
	}
}

// Globals may be set once in a process: the child does.
func TestGlobalsThatAreSetLaterAreFollowed(t *testing.T) {
	const child = "TELEMETRY_TEST_SET_GLOBALS"
	if os.Getenv(child) != "" {
		setGlobalsLater(t)
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.True(t, bytes.Contains(out, []byte("--- PASS")), "%s", out)
}

func setGlobalsLater(t *testing.T) {
	te, err := New(Config{})
	require.NoError(t, err)
	exchange := newExchange(te)
	exchange()

	spans, reader := tracetest.NewSpanRecorder(), sdkmetric.NewManualReader()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	otel.SetTextMapPropagator(propagation.TraceContext{})
	exchange()

	require.Len(t, spans.Ended(), 2)
	assert.Equal(t, "/api/users/42", attributes(spans.Ended()[1].Attributes())["url.path"])
	r := &rig{t: t, reader: reader}
	assert.Len(t, r.points("http.server.request.duration"), 1)

	h := http.Header{}
	s := te.Service(ServiceConfig{Name: "users"})
	var c Client
	s.Inject(at(s).StartClient(context.Background(), &c, "GET", "/", "", 0, Ref{}), h)
	assert.NotEmpty(t, h.Get("Traceparent"))
}

func BenchmarkExchange(b *testing.B) {
	meter := func() metric.MeterProvider {
		return sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	}
	w3c := propagation.TraceContext{}
	cases := []struct {
		name   string
		config Config
	}{
		{"noop", Config{Tracer: noop.NewTracerProvider(), Meter: metricnoop.NewMeterProvider(), Propagator: w3c}},
		{"unset", Config{}},
		{"metrics", Config{Tracer: noop.NewTracerProvider(), Meter: meter(), Propagator: w3c}},
		{"unsampled", Config{Tracer: sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())), Meter: meter(), Propagator: w3c}},
		{"sampled", Config{Tracer: sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample())), Meter: meter(), Propagator: w3c}},
	}
	for _, c := range cases {
		b.Run("provider="+c.name, func(b *testing.B) {
			te, err := New(c.config)
			require.NoError(b, err)
			exchange := newExchange(te)
			b.ReportAllocs()
			for b.Loop() {
				exchange()
			}
		})
	}
}
