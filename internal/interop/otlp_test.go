package interop_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// collector receives OTLP over HTTP, and decodes what comes.
type collector struct {
	t       testing.TB
	mu      sync.Mutex
	scopes  []*commonpb.InstrumentationScope
	schemas []string
	spans   []*tracepb.Span
	metrics map[string]*metricspb.Metric
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	assert.Equal(c.t, "application/x-protobuf", r.Header.Get("Content-Type"))
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		assert.NoError(c.t, err)
		body = unzipped
	}
	raw, err := io.ReadAll(body)
	assert.NoError(c.t, err)
	switch r.URL.Path {
	case "/v1/traces":
		var export collectortrace.ExportTraceServiceRequest
		assert.NoError(c.t, proto.Unmarshal(raw, &export))
		for _, resource := range export.GetResourceSpans() {
			for _, s := range resource.GetScopeSpans() {
				c.scopes, c.schemas = append(c.scopes, s.GetScope()), append(c.schemas, s.GetSchemaUrl())
				c.spans = append(c.spans, s.GetSpans()...)
			}
		}
	case "/v1/metrics":
		var export collectormetrics.ExportMetricsServiceRequest
		assert.NoError(c.t, proto.Unmarshal(raw, &export))
		for _, resource := range export.GetResourceMetrics() {
			for _, s := range resource.GetScopeMetrics() {
				c.scopes, c.schemas = append(c.scopes, s.GetScope()), append(c.schemas, s.GetSchemaUrl())
				for _, m := range s.GetMetrics() {
					c.metrics[m.GetName()] = m
				}
			}
		}
	default:
		assert.Fail(c.t, "unexpected", r.URL.Path)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// tree prints the spans below a parent, the first first: each with its kind, its
// status, what it links to, and its attributes but for those that differ with
// each run.
func (c *collector) tree(parent string, depth int) string {
	var below []*tracepb.Span
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetParentSpanId()) == parent {
			below = append(below, s)
		}
	}
	slices.SortFunc(below, func(a, b *tracepb.Span) int { return int(a.GetStartTimeUnixNano()) - int(b.GetStartTimeUnixNano()) })
	var text strings.Builder
	for _, s := range below {
		fmt.Fprintf(&text, "%s%s %s", strings.Repeat("  ", depth), strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_"), s.GetName())
		if code := s.GetStatus().GetCode(); code != tracepb.Status_STATUS_CODE_UNSET {
			fmt.Fprintf(&text, " %s%s", strings.TrimPrefix(code.String(), "STATUS_CODE_"), s.GetStatus().GetMessage())
		}
		for _, kv := range s.GetAttributes() {
			switch kv.GetKey() {
			case "server.port", "network.peer.port", "user_agent.original", "url.full", "client.address", "network.peer.address", "server.address",
				"network.protocol.version", "http.request.method", "url.scheme", "http.route", "http.response.body.size":
			default:
				fmt.Fprintf(&text, " %s=%s", kv.GetKey(), value(kv.GetValue()))
			}
		}
		for _, l := range s.GetLinks() {
			fmt.Fprintf(&text, " -> %s", c.named(l))
		}
		text.WriteByte('\n')
		text.WriteString(c.tree(hex.EncodeToString(s.GetSpanId()), depth+1))
	}
	return text.String()
}

func value(v *commonpb.AnyValue) string {
	if n, ok := v.GetValue().(*commonpb.AnyValue_IntValue); ok {
		return fmt.Sprint(n.IntValue)
	}
	return v.GetStringValue()
}

// named says which span is linked to.
func (c *collector) named(l *tracepb.Span_Link) string {
	for _, s := range c.spans {
		if bytes.Equal(s.GetSpanId(), l.GetSpanId()) && bytes.Equal(s.GetTraceId(), l.GetTraceId()) {
			return strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_") + " " + s.GetName()
		}
	}
	return "nothing"
}

// What an app's collector gets by OTLP is what happened: who called whom, how it
// ended, and what came of what.
func TestSpansThroughOTLP(t *testing.T) {
	t.Parallel()
	c := &collector{t: t, metrics: map[string]*metricspb.Metric{}}
	receiver := serve(t, c)
	spans, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(receiver.URL+"/v1/traces"), otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	require.NoError(t, err)
	metrics, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(receiver.URL+"/v1/metrics"))
	require.NoError(t, err)
	tp := sdktrace.NewTracerProvider(sdktrace.WithBatcher(spans))
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(metrics)))

	calls, together := 0, make(chan struct{}) // requests come one after the other, but for those together
	up := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch calls++; {
		case r.URL.Path == "/retried" && calls == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/missing":
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Path == "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case r.URL.Path == "/stale":
			w.Header().Set("Cache-Control", "max-age=0, stale-while-revalidate=600")
			w.Header().Set("ETag", `"v1"`)
			if r.Header.Get("If-None-Match") != "" {
				w.WriteHeader(http.StatusNotModified)
			}
		case r.URL.Path == "/together":
			w.Header().Set("Cache-Control", "max-age=600")
			<-together
		}
	}))
	cache := newCache(t)
	gw := newGateway(t, gateway.WithCache(cache), gateway.WithTracerProvider(tp), gateway.WithMeterProvider(mp), gateway.WithPropagator(propagation.TraceContext{}),
		gateway.WithService("users", up.URL))
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", gw))
	front := serve(t, mux)
	ask := func(target string, fields ...string) int {
		return get(t, front.Client(), front.URL+target, fields...).StatusCode
	}

	const parent = "00f067aa0ba902b7"
	assert.Equal(t, 200, ask("/api/users/retried?token=canary", "Traceparent", "00-"+parentTrace+"-"+parent+"-01"))
	assert.Equal(t, 404, ask("/api/users/missing"))
	assert.Equal(t, 500, ask("/api/users/broken"))
	assert.Equal(t, 404, ask("/api/nobody/"))
	assert.Equal(t, 200, ask("/api/users/stale"))
	assert.Equal(t, 200, ask("/api/users/stale"))
	testnet.Settle(t, "it is refreshed", func() bool {
		return gw.Stats().Caches[0].Refreshes == 1 && gw.Stats().Services["users"].Replicas[0].InFlight == 0
	})
	var both sync.WaitGroup
	for range 2 {
		misses := cache.Stats().Misses
		both.Go(func() { assert.Equal(t, 200, ask("/api/users/together")) })
		testnet.Settle(t, "it waits", func() bool { return cache.Stats().Misses == misses+1 })
	}
	close(together)
	both.Wait()
	require.NoError(t, front.Config.Shutdown(t.Context())) // and all have ended
	require.NoError(t, gw.Shutdown(context.Background()))
	require.NoError(t, tp.Shutdown(t.Context()))
	require.NoError(t, mp.Shutdown(t.Context()))

	c.mu.Lock()
	defer c.mu.Unlock()
	for i, scope := range c.scopes {
		assert.Equal(t, ours, scope.GetName())
		assert.NotEmpty(t, scope.GetVersion())
		assert.Equal(t, "https://opentelemetry.io/schemas/1.43.0", c.schemas[i])
	}
	assert.Equal(t, strings.TrimPrefix(`
SERVER GET /api/users/{path...} gateway.service=users url.path=/api/users/retried url.query=token=REDACTED http.response.status_code=200 gateway.cache.result=uri-miss
  CLIENT GET ERROR gateway.service=users http.response.status_code=503 error.type=503
  CLIENT GET gateway.service=users http.request.resend_count=1 http.response.status_code=200
`, "\n"), c.tree(parent, 0))
	assert.Equal(t, strings.TrimPrefix(`
SERVER GET /api/users/{path...} gateway.service=users url.path=/api/users/missing http.response.status_code=404 gateway.cache.result=uri-miss
  CLIENT GET ERROR gateway.service=users http.response.status_code=404 error.type=404
SERVER GET /api/users/{path...} ERROR gateway.service=users url.path=/api/users/broken http.response.status_code=500 error.type=500 gateway.cache.result=uri-miss
  CLIENT GET ERROR gateway.service=users http.response.status_code=500 error.type=500
SERVER GET url.path=/api/nobody/ http.response.status_code=404 gateway.reason=unknown_service
SERVER GET /api/users/{path...} gateway.service=users url.path=/api/users/stale http.response.status_code=200 gateway.cache.result=uri-miss
  CLIENT GET gateway.service=users http.response.status_code=200
SERVER GET /api/users/{path...} gateway.service=users url.path=/api/users/stale http.response.status_code=200 gateway.cache.result=hit
CLIENT GET gateway.service=users http.response.status_code=304 -> SERVER GET /api/users/{path...}
SERVER GET /api/users/{path...} gateway.service=users url.path=/api/users/together http.response.status_code=200 gateway.cache.result=uri-miss
  CLIENT GET gateway.service=users http.response.status_code=200
SERVER GET /api/users/{path...} gateway.service=users url.path=/api/users/together http.response.status_code=200 gateway.cache.result=uri-miss -> CLIENT GET
`, "\n"), c.tree("", 0))
	for _, s := range c.spans {
		assert.Empty(t, s.GetEvents())
		assert.NotContains(t, s.String(), "canary")
		keys := map[string]string{}
		for _, kv := range s.GetAttributes() {
			keys[kv.GetKey()] = value(kv.GetValue())
		}
		always := []string{"http.request.method", "server.address", "server.port", "network.protocol.version", "http.response.status_code"}
		if s.GetKind() == tracepb.Span_SPAN_KIND_SERVER {
			always = append(always, "url.path", "url.scheme", "client.address", "network.peer.address", "network.peer.port", "user_agent.original")
		} else {
			always = append(always, "url.full", "gateway.service")
			assert.True(t, strings.HasPrefix(keys["url.full"], up.URL+"/"), keys["url.full"])
		}
		for _, key := range always {
			assert.NotEmpty(t, keys[key], "%s of %s", key, s.GetName())
		}
		assert.Equal(t, s.GetKind() == tracepb.Span_SPAN_KIND_SERVER && keys["gateway.service"] != "", keys["http.route"] != "")
		assert.GreaterOrEqual(t, s.GetEndTimeUnixNano(), s.GetStartTimeUnixNano())
	}
	c.judgeMetrics()
}

// judgeMetrics looks at what the collector has of the requests, and at the traces
// that it is led to.
func (c *collector) judgeMetrics() {
	for name, want := range map[string]uint64{"http.server.request.duration": 8, "http.client.request.duration": 7} {
		m := c.metrics[name]
		if !assert.NotNil(c.t, m, name) {
			continue
		}
		assert.Equal(c.t, "s", m.GetUnit())
		var count uint64
		for _, p := range m.GetHistogram().GetDataPoints() {
			count += p.GetCount()
			assert.Len(c.t, p.GetExplicitBounds(), 14)
			assert.NotEmpty(c.t, p.GetExemplars(), name)
			for _, e := range p.GetExemplars() {
				assert.True(c.t, slices.ContainsFunc(c.spans, func(s *tracepb.Span) bool {
					return bytes.Equal(s.GetSpanId(), e.GetSpanId()) && bytes.Equal(s.GetTraceId(), e.GetTraceId())
				}), "the exemplar of %s is of a span that there is", name)
			}
		}
		assert.Equal(c.t, want, count, name)
	}
}
