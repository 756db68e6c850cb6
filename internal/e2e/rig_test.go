package e2e_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// The canary tokens of the services a and b.
const (
	tokenA = "TOK_A-canary-51c9e2d07b"
	tokenB = "TOK_B-canary-8fa43360e1"
)

// rig is a gateway behind a real server, with the services a and b on scripted
// upstreams. When its test ends it sees to it that the case left nothing
// behind: the process serves, journals parse as whole requests, one for each
// attempt that was counted, tokens are where they belong, and goroutines and
// descriptors are back. Tests with a rig do not run in parallel.
type rig struct {
	testing.TB
	a, b  *testnet.Up
	gw    *gateway.Gateway
	cache *gateway.Cache
	srv   *http.Server
	addr  string
	logs  *testnet.LogRecorder
	spans *tracetest.InMemoryExporter
	meter *sdkmetric.ManualReader

	clients   []byte // what raw clients received
	broken    bool   // the case has an upstream receive a request that breaks off
	elsewhere int    // requests of others than the rig's gateway, whose spans are elsewhere
}

// setup says how a rig differs from the common one.
type setup struct {
	script   func(*testnet.Conn)                 // of a; nil: 200 "ok"
	scriptB  func(*testnet.Conn)                 // of b; nil: 200 "ok"
	up       *testnet.Up                         // a itself, where a script is not enough
	defaults []gateway.Option                    // further options of New
	a        []gateway.ServiceOption             // further options of a
	noToken  bool                                // a sends no token
	noCache  bool                                // without cache
	way      way                                 // to both upstreams
	handler  func(*gateway.Gateway) http.Handler // what the server mounts; nil: the gateway itself
	server   func(*http.Server)                  // further settings of the server
	clean    []gateway.CacheOption               // options of the cache
	second   bool                                // the test has a rig already, which ends later and keeps the baseline
}

func newRig(t testing.TB, s setup) *rig {
	t.Helper()
	if !s.second {
		testnet.Baseline(t)
	}
	if s.script == nil {
		s.script = testnet.Reply(200, "", "ok")
	}
	if s.scriptB == nil {
		s.scriptB = testnet.Reply(200, "", "ok")
	}
	r := &rig{TB: t, a: s.up, logs: testnet.NewLogRecorder(), spans: tracetest.NewInMemoryExporter(), meter: sdkmetric.NewManualReader()}
	if r.a == nil {
		r.a = testnet.Upstream(t, s.script)
	}
	r.b = testnet.Upstream(t, s.scriptB)
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(r.spans))
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.meter))
	optsA := s.a
	if !s.noToken {
		optsA = append([]gateway.ServiceOption{gateway.WithBearerToken(tokenA)}, s.a...)
	}
	opts := append([]gateway.Option{
		gateway.WithTracerProvider(tp), gateway.WithMeterProvider(mp), gateway.WithLogger(r.logs.Logger()),
		gateway.WithoutBreaker(), // many cases are failures, one after the other
		gateway.WithService("a", r.a.URL, optsA...),
		gateway.WithService("b", r.b.URL, gateway.WithBearerToken(tokenB)),
	}, s.defaults...)
	var err error
	if s.way != direct {
		opts = append(opts, s.way.connect(t, nil))
	}
	if !s.noCache {
		r.cache, err = gateway.NewCache(s.clean...)
		require.NoError(t, err)
		opts = append([]gateway.Option{gateway.WithCache(r.cache)}, opts...)
	}
	r.gw, err = gateway.New(opts...)
	require.NoError(t, err)
	r.serve(s)
	t.Cleanup(r.end)
	return r
}

func (r *rig) serve(s setup) {
	var h http.Handler = r.gw
	if s.handler != nil {
		h = s.handler(r.gw)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(r, err)
	r.addr = ln.Addr().String()
	r.srv = &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	if s.server != nil {
		s.server(r.srv)
	}
	r.srv.RegisterOnShutdown(r.gw.Drain)
	go func() { _ = r.srv.Serve(ln) }()
}

// exchange sends raw bytes to the gateway and returns all it answered.
func (r *rig) exchange(raw string) *testnet.Transcript {
	r.Helper()
	tr := testnet.Exchange(r, r.addr, raw)
	r.clients = append(r.clients, tr.Raw...)
	return tr
}

// do sends one request over a connection of its own.
func (r *rig) do(raw string) *testnet.Response {
	r.Helper()
	resp := testnet.Do(r, r.addr, raw)
	r.clients = append(r.clients, resp.Raw...)
	return resp
}

// get is do of a GET.
func (r *rig) get(target string, fields ...string) *testnet.Response {
	r.Helper()
	return r.do(testnet.Get(target, fields...))
}

// attempts returns the CLIENT spans that have ended.
func (r *rig) attempts() (attempts []tracetest.SpanStub) {
	for _, s := range r.spans.GetSpans() {
		if s.SpanKind == trace.SpanKindClient {
			attempts = append(attempts, s)
		}
	}
	return attempts
}

// series returns the number of metric series.
func (r *rig) series() (n int) {
	var rm metricdata.ResourceMetrics
	require.NoError(r, r.meter.Collect(context.Background(), &rm))
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Histogram[float64]:
				n += len(d.DataPoints)
			case metricdata.Sum[int64]:
				n += len(d.DataPoints)
			case metricdata.Sum[float64]:
				n += len(d.DataPoints)
			case metricdata.Gauge[int64]:
				n += len(d.DataPoints)
			}
		}
	}
	return n
}

func (r *rig) end() {
	r.Helper()
	alive := testnet.Do(r, r.addr, testnet.Get("/b/alive", "Connection: close"))
	if !r.gw.Stats().Draining {
		assert.Equal(r, 200, alive.Status, "the gateway serves after the case")
	}
	health, _ := http.NewRequest(http.MethodGet, "/health", nil)
	report := &recorder{header: http.Header{}}
	r.gw.HealthHandler().ServeHTTP(report, health)

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = r.srv.Shutdown(ctx)
	assert.NoError(r, r.gw.Shutdown(ctx))
	_ = r.srv.Close()
	if r.cache != nil {
		assert.NoError(r, r.cache.Shutdown(ctx))
	}
	if !r.broken {
		assert.NoError(r, r.a.AllWhole())
	}
	assert.NoError(r, r.b.AllWhole())
	probes := 2 // the health report asks each service once
	assert.LessOrEqual(r, len(r.a.Journal())+len(r.b.Journal()), len(r.attempts())+probes+r.elsewhere, "an upstream got a request that was not counted as an attempt")
	r.confined(report.body.String())
}

// confined checks that the tokens occur in the journals of their own services
// only.
func (r *rig) confined(report string) {
	r.Helper()
	var spans strings.Builder
	for _, s := range r.spans.GetSpans() {
		spans.WriteString(s.Name + s.Status.Description)
		for _, kv := range s.Attributes {
			spans.WriteString(" " + string(kv.Key) + "=" + kv.Value.String())
		}
		for _, e := range s.Events {
			spans.WriteString(" " + e.Name)
		}
	}
	places := map[string]string{
		"clients": string(r.clients), "logs": r.logs.Text(), "spans": spans.String(), "health": report,
		"journal of a": string(r.a.JournalBytes()), "journal of b": string(r.b.JournalBytes()),
	}
	testnet.Confined(r, tokenA, places, "journal of a")
	testnet.Confined(r, tokenB, places, "journal of b")
}

// recorder is a plain ResponseWriter.
type recorder struct {
	header http.Header
	status int
	body   strings.Builder
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(status int)      { w.status = status }
func (w *recorder) Write(p []byte) (int, error) { return w.body.Write(p) }

// field is the value of a request field in a journal, or "" .
func field(req *testnet.Request, name string) string {
	return strings.Join(req.Header[http.CanonicalHeaderKey(name)], ", ")
}
