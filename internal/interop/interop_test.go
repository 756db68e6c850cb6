// Package interop_test has the gateway meet peers that other people wrote: a
// router and its middleware, WebSocket ends, OpenTelemetry's own
// instrumentation, a Structured Fields parser, a property tester, and net/http
// over HTTP/2. Everything is on the loopback, and nothing waits for a time to
// pass but for events.
package interop_test

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what should come at once.
const patience = 30 * time.Second

// server is net/http's, with its log: what it has to complain about (a panic, a
// header written twice) is a fault of the gateway's.
type server struct {
	*httptest.Server
	tolerated string // lines with this are somebody else's fault
	mu        sync.Mutex
	log       []string
}

// Write takes a line of the log.
func (s *server) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tolerated == "" || !strings.Contains(string(line), s.tolerated) {
		s.log = append(s.log, string(line))
	}
	return len(line), nil
}

func (s *server) complaints() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log
}

func (s *server) tolerate(part string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tolerated = part
}

// serve starts h over HTTP/1.1.
func serve(t testing.TB, h http.Handler) *server { return start(t, h, (*httptest.Server).Start) }

// serveHTTP2 starts h over TLS; its Client speaks HTTP/2.
func serveHTTP2(t testing.TB, h http.Handler) *server {
	return start(t, h, func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() })
}

func start(t testing.TB, h http.Handler, begin func(*httptest.Server)) *server {
	s := &server{Server: httptest.NewUnstartedServer(h)}
	s.Config.ErrorLog = log.New(s, "", 0)
	begin(s.Server)
	t.Cleanup(func() {
		s.Client().CloseIdleConnections()
		s.Close()
		assert.Empty(t, s.complaints(), "what net/http logged")
	})
	return s
}

// freeAddress is one where a program of others may listen.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

// newGateway makes a gateway that is shut down, within its time, when the test
// ends.
func newGateway(t testing.TB, opts ...gateway.Option) *gateway.Gateway {
	t.Helper()
	gw, err := gateway.New(opts...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, shutdown(gw)) })
	return gw
}

func newCache(t testing.TB, opts ...gateway.CacheOption) *gateway.Cache {
	t.Helper()
	cache, err := gateway.NewCache(opts...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, shutdown(cache)) })
	return cache
}

func shutdown(s interface{ Shutdown(context.Context) error }) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.Shutdown(ctx)
}

// answer is a response that was read to its end, or to its failure.
type answer struct {
	*http.Response
	body string
	err  error // of reading the body
}

// get asks for a URL with these fields, names and values in turn.
func get(t testing.TB, c *http.Client, url string, fields ...string) *answer {
	t.Helper()
	return send(t, c, http.MethodGet, url, nil, fields...)
}

func send(t testing.TB, c *http.Client, method, url string, body io.Reader, fields ...string) *answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	require.NoError(t, err)
	for i := 0; i < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return &answer{resp, string(text), err}
}

// within waits for what a channel brings.
func within[T any](t testing.TB, what string, ch <-chan T) (v T) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v = <-ch:
	case <-timer.C:
		require.Fail(t, "still waiting", "for %s", what)
	}
	return v
}

// hanging is an upstream that does not answer; it waits to be let go.
type hanging struct{ arrived, left atomic.Int64 }

func (h *hanging) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	h.arrived.Add(1)
	defer h.left.Add(1)
	if _, err := io.Copy(io.Discard, r.Body); err == nil { // net/http looks for a client's leaving only then
		<-r.Context().Done()
	}
}

// reached waits until a request is here.
func (h *hanging) reached(t testing.TB) {
	t.Helper()
	testnet.Settle(t, "a request at the upstream", func() bool { return h.arrived.Load() > h.left.Load() })
}

// released waits until none is.
func (h *hanging) released(t testing.TB) {
	t.Helper()
	testnet.Settle(t, "the upstream to be let go", func() bool { return h.arrived.Load() == h.left.Load() })
}

// telemetry records in memory what a test's gateway and its peers report.
type telemetry struct {
	spans  *tracetest.InMemoryExporter
	meter  *sdkmetric.ManualReader
	traces *sdktrace.TracerProvider
	meters *sdkmetric.MeterProvider
}

func newTelemetry() *telemetry {
	tm := &telemetry{spans: tracetest.NewInMemoryExporter(), meter: sdkmetric.NewManualReader()}
	tm.traces = sdktrace.NewTracerProvider(sdktrace.WithSyncer(tm.spans))
	tm.meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(tm.meter))
	return tm
}

func (tm *telemetry) options() []gateway.Option {
	return []gateway.Option{gateway.WithTracerProvider(tm.traces), gateway.WithMeterProvider(tm.meters)}
}

// only waits for the spans of one scope and kind and returns the one there is.
func (tm *telemetry) only(t testing.TB, scope string, kind trace.SpanKind) tracetest.SpanStub {
	t.Helper()
	testnet.Settle(t, scope+" "+kind.String()+" span", func() bool { return len(tm.of(scope, kind)) > 0 })
	spans := tm.of(scope, kind)
	require.Len(t, spans, 1)
	return spans[0]
}

func (tm *telemetry) of(scope string, kind trace.SpanKind) (spans []tracetest.SpanStub) {
	for _, s := range tm.spans.GetSpans() {
		if s.InstrumentationScope.Name == scope && s.SpanKind == kind {
			spans = append(spans, s)
		}
	}
	return spans
}

// counts returns how often each of a scope's histograms was recorded.
func (tm *telemetry) counts(t testing.TB, scope string) map[string]uint64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, tm.meter.Collect(t.Context(), &all))
	counts := map[string]uint64{}
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			h, ok := m.Data.(metricdata.Histogram[float64])
			if !ok || s.Scope.Name != scope {
				continue
			}
			for _, p := range h.DataPoints {
				counts[m.Name] += p.Count
			}
		}
	}
	return counts
}

// attributes returns a span's as text.
func attributes(s tracetest.SpanStub) map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

// The instrumentation scopes.
const (
	ours          = "github.com/embedgw/gateway"
	otelhttpScope = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)
