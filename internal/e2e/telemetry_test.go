package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// observed is where a gateway's telemetry goes.
type observed struct {
	testing.TB
	spans *tracetest.InMemoryExporter
	meter *sdkmetric.ManualReader
	logs  *testnet.LogRecorder
	opts  []gateway.SharedOption
}

func newObserved(t testing.TB) *observed {
	o := &observed{TB: t, spans: tracetest.NewInMemoryExporter(), meter: sdkmetric.NewManualReader(), logs: testnet.NewLogRecorder()}
	o.opts = []gateway.SharedOption{
		gateway.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(o.spans))),
		gateway.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(o.meter))),
		gateway.WithLogger(o.logs.Logger()),
	}
	return o
}

// gateway makes one with further options, which is shut down when the test ends.
func (o *observed) gateway(opts ...gateway.Option) *gateway.Gateway {
	for _, opt := range o.opts {
		opts = append(opts, opt)
	}
	gw, err := gateway.New(opts...)
	require.NoError(o, err)
	o.Cleanup(func() { assert.NoError(o, gw.Shutdown(context.Background())) })
	return gw
}

// values returns the series of all instruments, such as
// `gateway.hedges{gateway.service=a}`; of histograms the count, of seconds
// thousandths.
func (o *observed) values() map[string]int64 {
	var data metricdata.ResourceMetrics
	require.NoError(o, o.meter.Collect(context.Background(), &data))
	all := map[string]int64{}
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					all[seriesName(m.Name, p.Attributes)] = p.Value
				}
			case metricdata.Sum[float64]: // of seconds
				for _, p := range d.DataPoints {
					all[seriesName(m.Name, p.Attributes)] = int64(p.Value * 1000)
				}
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					all[seriesName(m.Name, p.Attributes)] = int64(p.Count)
				}
			}
		}
	}
	return all
}

func seriesName(name string, attrs attribute.Set) string {
	var parts []string
	for _, kv := range attrs.ToSlice() {
		parts = append(parts, fmt.Sprint(kv.Key, "=", kv.Value.String()))
	}
	return name + "{" + strings.Join(parts, ",") + "}"
}

// places returns where attempts went, by their spans, and by the metric.
func (o *observed) places() (spans, series []string) {
	place := func(attrs attribute.Set) string {
		address, _ := attrs.Value("server.address")
		port, _ := attrs.Value("server.port")
		return address.AsString() + " " + port.String()
	}
	for _, s := range o.spans.GetSpans() {
		if s.SpanKind == trace.SpanKindClient {
			spans = append(spans, place(attribute.NewSet(s.Attributes...)))
		}
	}
	var data metricdata.ResourceMetrics
	require.NoError(o, o.meter.Collect(context.Background(), &data))
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name == "http.client.request.duration" {
				for _, p := range m.Data.(metricdata.Histogram[float64]).DataPoints {
					series = append(series, slices.Repeat([]string{place(p.Attributes)}, int(p.Count))...)
				}
			}
		}
	}
	slices.Sort(series)
	return spans, series
}

// An attempt is at the replica that it went to, by the name that this was
// configured by.
func TestAttemptsNameTheirReplica(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Context().Value(http.LocalAddrContextKey))
	}
	a, b := httptest.NewServer(http.HandlerFunc(answer)), httptest.NewServer(http.HandlerFunc(answer))
	defer a.Close()
	defer b.Close()
	socket := filepath.Join(t.TempDir(), "c")
	serveSocket(t, socket, "c")
	portOf := func(s *httptest.Server) string { return s.URL[strings.LastIndexByte(s.URL, ':')+1:] }

	o := newObserved(t)
	gw := o.gateway(gateway.WithService("a", a.URL, gateway.WithReplicas(gateway.Replica{URL: b.URL}), gateway.WithBalancing(gateway.RoundRobin())))
	var want []string
	for range 4 {
		host, port, _ := strings.Cut(handle(t, gw, testnet.Get("/a/"), nil).body.String(), ":")
		want = append(want, host+" "+port)
	}
	spans, series := o.places()
	assert.Equal(t, want, spans)
	slices.Sort(want)
	assert.Equal(t, want, series)
	assert.NotEqual(t, want[0], want[3])
	for _, s := range o.spans.GetSpans() {
		if s.SpanKind == trace.SpanKindClient {
			attrs := attribute.NewSet(s.Attributes...)
			url, _ := attrs.Value("url.full")
			port, _ := attrs.Value("server.port")
			assert.Equal(t, "http://127.0.0.1:"+port.String()+"/", url.AsString())
		}
	}

	o = newObserved(t)
	gw = o.gateway(gateway.WithService("a", a.URL))
	require.NoError(t, gw.Upstream("a").SetReplicas(gateway.Replica{URL: "unix://" + socket}))
	handle(t, gw, testnet.Get("/a/"), nil)
	spans, series = o.places()
	assert.Equal(t, []string{socket + " "}, spans)
	assert.Equal(t, []string{socket + " "}, series)

	o = newObserved(t)
	gw = o.gateway(gateway.WithService("a", "http://localhost:"+portOf(a), gateway.WithDNSRefresh(time.Hour)))
	handle(t, gw, testnet.Get("/a/"), nil)
	testnet.Settle(t, "the name is resolved", func() bool { return strings.Contains(fmt.Sprint(replicasOf(gw.Upstream("a"))), "127.0.0.1") })
	handle(t, gw, testnet.Get("/a/"), nil)
	spans, _ = o.places()
	for _, place := range spans {
		assert.Equal(t, "localhost "+portOf(a), place, "addresses come and go")
	}
}

// An ejection is told with its reason and its time, and so is its end.
func TestEjectionsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails atomic.Bool
		rt := gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
			status := 200
			if r.URL.Host == "b.test" && fails.Load() {
				status = 500
			}
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		}))
		o := newObserved(t)
		gw := o.gateway(gateway.WithoutBreaker(), gateway.WithService("a", "http://a.test", rt, gateway.WithReplicas(gateway.Replica{URL: "http://b.test:8080"}, gateway.Replica{URL: "http://b.test"}),
			gateway.WithBalancing(gateway.RoundRobin()), gateway.WithEjection(3, 10*time.Second, time.Minute)))
		ask := func(times int) {
			for range times {
				handle(t, gw, testnet.Get("/a/"), nil)
			}
		}
		ends := []string{"gateway: ejection", "gateway: return"}
		seen := 0
		told := func(line string) map[string]any {
			var lines []map[string]any
			for _, l := range o.logs.Records(t) {
				if slices.Contains(ends, fmt.Sprint(l["msg"])) {
					lines = append(lines, l)
				}
			}
			seen++
			require.Len(t, lines, seen, "one line for each")
			last := lines[seen-1]
			assert.Equal(t, line, last["msg"])
			delete(last, "time")
			delete(last, "msg")
			return last
		}
		fails.Store(true)
		ask(20)
		out := map[string]any{"level": "WARN", "gateway.service": "a", "server.address": "b.test", "server.port": 80.0, "gateway.ejection.cause": "consecutive_failures", "gateway.duration": 10.0}
		assert.Equal(t, out, told("gateway: ejection"))
		time.Sleep(10 * time.Second)
		ask(3)
		out["gateway.ejection.cause"], out["gateway.duration"] = "trial", 20.0
		assert.Equal(t, out, told("gateway: ejection"))
		fails.Store(false)
		time.Sleep(20 * time.Second)
		ask(3)
		delete(out, "gateway.ejection.cause")
		out["gateway.duration"] = 30.0
		assert.Equal(t, out, told("gateway: return"))
		time.Sleep(time.Minute)
		for range 15 {
			fails.Store(false)
			ask(3)
			fails.Store(true)
			ask(6)
		}
		out["gateway.ejection.cause"], out["gateway.duration"] = "success_rate", 10.0
		assert.Equal(t, out, told("gateway: ejection"))
	})
}

// A change of the breaker is logged, measured and told to the hook, which is
// called outside of all locks: it may look at all that the gateway shows.
func TestBreakerChangesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails atomic.Bool
		rt := gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
			status := 200
			if fails.Load() {
				status = 500
			}
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		}))
		o := newObserved(t)
		var gw *gateway.Gateway
		var told []string
		hook := func(service string, from, to gateway.BreakerState) {
			v := o.values()
			told = append(told, fmt.Sprint(service, ": ", from, " to ", to))
			assert.Equal(t, to, gw.Stats().Services["a"].Breaker.State)
			for _, state := range []gateway.BreakerState{gateway.BreakerClosed, gateway.BreakerOpen, gateway.BreakerHalfOpen} {
				want := int64(0)
				if state == to {
					want = 1
				}
				assert.Equal(t, want, v[fmt.Sprintf("gateway.breaker.state{gateway.breaker.state=%s,gateway.service=a}", state)], "%s in %s", state, to)
			}
			assert.Len(t, o.logs.Find(t, "gateway: breaker"), len(told), "logged by now")
			want := map[gateway.BreakerState]int{gateway.BreakerClosed: 200, gateway.BreakerOpen: 503, gateway.BreakerHalfOpen: 503}
			assert.Equal(t, want[to], handle(t, gw, testnet.Get("/a/"), nil).status, "and may ask: %s", to)
		}
		gw = o.gateway(
			gateway.WithBreaker(1, 3), gateway.WithBreakerTimes(time.Second, time.Second, 1), gateway.WithoutRetries(), gateway.WithoutEjection(),
			gateway.WithService("a", target, rt, gateway.WithBreakerHook(hook)),
			gateway.WithService("b", target, rt, gateway.WithoutBreaker()),
		)
		fails.Store(true)
		for range 3 {
			assert.Equal(t, 500, handle(t, gw, testnet.Get("/a/"), nil).status)
		}
		time.Sleep(time.Second)
		fails.Store(false)
		assert.Equal(t, 200, handle(t, gw, testnet.Get("/a/"), nil).status)
		changes := []string{"a: closed to open", "a: open to half_open", "a: half_open to closed"}
		assert.Equal(t, changes, told)
		var logged []string
		for _, line := range o.logs.Find(t, "gateway: breaker") {
			assert.Equal(t, "WARN", line["level"])
			logged = append(logged, fmt.Sprint(line["gateway.service"], ": ", line["gateway.breaker.from"], " to ", line["gateway.breaker.state"]))
		}
		assert.Equal(t, changes, logged)
		v := o.values()
		for _, state := range []string{"closed", "open", "half_open"} {
			assert.EqualValues(t, 1, v["gateway.breaker.transitions{gateway.breaker.state="+state+",gateway.service=a}"], state)
			assert.NotContains(t, v, "gateway.breaker.state{gateway.breaker.state="+state+",gateway.service=b}", "without a breaker")
		}
		assert.EqualValues(t, 1, v["gateway.breaker.state{gateway.breaker.state=closed,gateway.service=a}"])
	})
}

// What services are in can be read from metrics, until Shutdown.
func TestServiceMetrics(t *testing.T) {
	leave := make(chan struct{})
	good, served := server(t, "", func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-leave
		}
	})
	bad, _ := server(t, "", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	o := newObserved(t)
	gw := o.gateway(
		gateway.WithRetryBudget(1, 100), gateway.WithRetries(1), gateway.WithConnIdleTimeout(0),
		gateway.WithService("a", good.URL, gateway.WithReplicas(gateway.Replica{URL: bad.URL}), gateway.WithBalancing(gateway.RoundRobin()),
			gateway.WithEjection(1, time.Hour, time.Hour), gateway.WithMaxConcurrency(1, 1, 0), gateway.WithMaxConns(1)),
		gateway.WithService("b", good.URL, gateway.WithMaxConns(1), gateway.WithHedge(time.Millisecond), gateway.WithAcquireTimeout(0)),
	)
	at := func(url string) string {
		host, port, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
		return ",server.address=" + host + ",server.port=" + port + "}"
	}
	conns := func(url, state string) string {
		host, port, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
		return "{" + state + "network.protocol.version=1.1,server.address=" + host + ",server.port=" + port + "}"
	}
	for range 4 {
		require.Equal(t, 200, handle(t, gw, testnet.Get("/a/"), nil).status)
	}
	before := served.Load()
	var all sync.WaitGroup
	all.Go(func() { handle(t, gw, testnet.Get("/a/slow"), nil) })
	testnet.Settle(t, "it is served", func() bool { return served.Load() == before+1 })
	all.Go(func() { handle(t, gw, testnet.Get("/a/slow"), nil) })
	all.Go(func() { handle(t, gw, testnet.Get("/b/slow"), nil) })
	testnet.Settle(t, "they wait", func() bool {
		v := o.values()
		return v["gateway.queue.waiting{gateway.service=a}"] == 1 && v["gateway.pool.waiting{gateway.service=b"+at(good.URL)] == 1
	})
	require.Equal(t, 503, handle(t, gw, testnet.Get("/a/"), nil).status, "two at a time, of which one waits")
	v := o.values()
	for series, want := range map[string]int64{
		"gateway.retries{gateway.retry.cause=503,gateway.service=a}": 1, "gateway.retries{gateway.retry.cause=connect_failed,gateway.service=a}": 0,
		"gateway.retry.budget.used{gateway.service=a}": 1, "gateway.retry.budget.limit{gateway.service=a}": 1000, "gateway.retry.refused{gateway.service=a}": 0,
		"gateway.queue.drops{gateway.service=a}": 1, "gateway.pool.waits{gateway.service=b" + at(good.URL): 1,
		"http.server.active_requests{http.request.method=GET,url.scheme=http}": 3, "http.client.active_requests" + conns(good.URL, ""): 3,
		"http.client.open_connections" + conns(good.URL, "http.connection.state=active,"): 2, "http.client.open_connections" + conns(good.URL, "http.connection.state=idle,"): 0,
		"http.client.open_connections" + conns(bad.URL, "http.connection.state=active,"): 0, "http.client.open_connections" + conns(bad.URL, "http.connection.state=idle,"): 1,
		"gateway.ejections{gateway.service=a}": 1, "gateway.hedges{gateway.service=a}": 0,
		"gateway.retries{gateway.retry.cause=503,gateway.service=b}": 0, "gateway.ejections{gateway.service=b}": 0, "gateway.hedges{gateway.service=b}": 1,
		"gateway.queue.in_use{gateway.service=a}":                                           1,
		"gateway.endpoint.healthy{gateway.service=a" + at(good.URL):                         1,
		"gateway.endpoint.healthy{gateway.service=a" + at(bad.URL):                          0,
		"gateway.pool.connections{gateway.pool.state=used,gateway.service=a" + at(good.URL): 1,
		"gateway.pool.connections{gateway.pool.state=idle,gateway.service=a" + at(good.URL): 0,
		"gateway.pool.connections{gateway.pool.state=used,gateway.service=a" + at(bad.URL):  0,
		"gateway.pool.connections{gateway.pool.state=idle,gateway.service=a" + at(bad.URL):  1,
		"gateway.pool.waiting{gateway.service=a" + at(good.URL):                             0,
	} {
		got, ok := v[series]
		assert.True(t, ok, series)
		assert.Equal(t, want, got, series)
	}
	assert.NotContains(t, v, "gateway.queue.in_use{gateway.service=b}", "without a bound")
	close(leave)
	all.Wait()
	require.NoError(t, gw.Shutdown(t.Context()))
	for series := range o.values() {
		assert.Regexp(t, `(request|connection)\.(own\.)?duration`, series, "the rest has ended")
	}
}

// An upstream of its own has metrics of its own, and the faulty leave none.
func TestUpstreamMetrics(t *testing.T) {
	o := newObserved(t)
	opts := []gateway.UpstreamOption{gateway.WithTransport(roundTripper(func(*http.Request) (*http.Response, error) { return nil, net.ErrClosed }))}
	for _, opt := range o.opts {
		opts = append(opts, opt)
	}
	_, err := gateway.NewUpstream("a", "nonsense", opts...)
	require.Error(t, err)
	assert.Empty(t, o.values())
	up, err := gateway.NewUpstream("a", target, opts...)
	require.NoError(t, err)
	assert.EqualValues(t, 1, o.values()["gateway.endpoint.healthy{gateway.service=a,server.address=upstream.test,server.port=80}"])
	for series := range o.values() {
		assert.NotContains(t, series, "gateway.pool", "the round tripper's own affair")
	}
	require.NoError(t, up.Shutdown(t.Context()))
	assert.Empty(t, o.values())
}
