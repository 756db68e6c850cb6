package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// scraped is a page of metrics: values by name and labels.
type scraped map[string]float64

// scrape reads the page as Prometheus does.
func scrape(t testing.TB, gw *gateway.Gateway) scraped {
	t.Helper()
	w := handle(t, gw.MetricsHandler(), testnet.Get("/metrics", "Accept: "+prometheusAccept), nil)
	require.Equal(t, 200, w.status)
	require.Equal(t, "text/plain; version=0.0.4; charset=utf-8", w.header.Get("Content-Type"))
	page := scraped{}
	lines := bufio.NewScanner(strings.NewReader(w.body.String()))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[i+1:], 64)
		require.NoError(t, err, line)
		_, again := page[line[:i]]
		require.False(t, again, line)
		page[line[:i]] = value
	}
	return page
}

// prometheusAccept is what Prometheus 2.42 sends.
const prometheusAccept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

// of returns a family's series by the value of their only label.
func (s scraped) of(name string) map[string]uint64 {
	out := map[string]uint64{}
	for series, value := range s {
		if labels, ok := strings.CutPrefix(series, name+"{"); ok {
			_, label, _ := strings.Cut(strings.TrimSuffix(labels, "\"}"), "=\"")
			out[label] = uint64(value)
		}
	}
	return out
}

func TestMetricsAreAnsweredByAccept(t *testing.T) {
	t.Parallel()
	gw, err := gateway.New(gateway.WithService("a", "http://a.test"))
	require.NoError(t, err)
	const text, asJSON = "text/plain; version=0.0.4; charset=utf-8", "application/json"
	for _, tt := range []struct {
		method, accept string
		status         int
		contentType    string
	}{
		{"GET", "", 200, text},
		{"GET", " , ", 200, text},
		{"GET", "*/*", 200, text},
		{"GET", "text/*", 200, text},
		{"GET", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 200, text},
		{"GET", prometheusAccept, 200, text},
		{"GET", "application/json", 200, asJSON},
		{"GET", "application/*", 200, asJSON},
		{"GET", "text/plain;q=0.5, application/json", 200, asJSON},
		{"GET", "text/plain;q=0, */*", 200, asJSON},
		{"GET", "text/plain, application/json;q=0.5", 200, text},
		{"GET", "image/png", 406, "text/plain; charset=utf-8"},
		{"GET", "text/plain;q=0, application/json;q=0", 406, "text/plain; charset=utf-8"},
		{"HEAD", "", 200, text},
		{"HEAD", "application/json", 200, asJSON},
		{"POST", "", 405, "text/plain; charset=utf-8"},
	} {
		var fields []string
		if tt.accept != "" {
			fields = append(fields, "Accept: "+tt.accept)
		}
		w := handle(t, gw.MetricsHandler(), testnet.Build(tt.method, "/metrics", "", fields...), nil)
		assert.Equal(t, tt.status, w.status, tt)
		assert.Equal(t, tt.contentType, w.header.Get("Content-Type"), tt)
		if tt.status == 405 {
			assert.Equal(t, "GET, HEAD", w.header.Get("Allow"))
			continue
		}
		assert.Equal(t, "Accept", w.header.Get("Vary"), tt)
		switch {
		case tt.method == "HEAD":
			assert.Empty(t, w.body.String())
		case tt.status == 200:
			assert.Equal(t, "no-store", w.header.Get("Cache-Control"))
			assert.Equal(t, tt.contentType == asJSON, json.Valid([]byte(w.body.String())), tt)
		}
	}
	require.NoError(t, gw.Shutdown(t.Context()))
}

// What the cache said of each request is what it has counted.
func TestCacheMetricsAgreeWithCacheStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, header: "Cache-Control: public, max-age=10\r\nVary: X", body: "0123456789"}
		b := newBubble(t, testnet.Respond(func(r *testnet.Request) string { time.Sleep(time.Second); return p.answer(r) }))
		results := map[string]uint64{"hit": 0, "uri-miss": 0, "vary-miss": 0, "stale": 0, "partial": 0, "request": 0, "method": 0}
		var stale, collapsed uint64
		note := func(status string, times int) {
			status = strings.TrimPrefix(status, "gateway; ")
			result, rest, _ := strings.Cut(status, ";")
			if result == "detail=only-if-cached" {
				result = "uri-miss" // what it is counted by, though it did not go forward
			}
			results[strings.TrimPrefix(result, "fwd=")] += uint64(times)
			if strings.Contains(rest, "ttl=-") || strings.Contains(rest, "stale-if-error") {
				stale += uint64(times)
			}
			if strings.HasSuffix(rest, " collapsed") {
				collapsed += uint64(times)
			}
		}
		ask := func(raw string) { note(b.ask(raw).Header.Get("Cache-Status"), 1) }
		get := func(target string, fields ...string) { ask(testnet.Get(target, fields...)) }

		get("/a/x")
		get("/a/x")
		ask(testnet.Build("HEAD", "/a/x", ""))
		get("/a/x", "X: 1")
		get("/a/x", "Cache-Control: no-cache")
		get("/a/x", "Cache-Control: no-store")
		get("/a/y", "Cache-Control: only-if-cached")
		ask(testnet.Build("POST", "/a/z", "x"))
		get("/a/part", "Range: bytes=0-1")
		get("/a/part", "Range: bytes=0-0")
		get("/a/part")
		time.Sleep(11 * time.Second)
		get("/a/x")
		get("/a/x", "Cache-Control: max-stale=60")
		crowd := b.crowd(10, testnet.Get("/a/crowd"))
		for status, times := range crowd.statuses {
			note(strings.TrimPrefix(status, "200 "), times)
		}
		time.Sleep(11 * time.Second)
		p.cut = true
		get("/a/x", "X: 1")
		p.cut = false
		p.header = "Cache-Control: public, max-age=1, stale-while-revalidate=60"
		get("/a/behind")
		time.Sleep(2 * time.Second)
		get("/a/behind")
		time.Sleep(2 * time.Second)

		for result, n := range results {
			assert.NotZero(t, n, result)
		}
		assert.EqualValues(t, 9, collapsed)
		s, page := b.cache.Stats(), scrape(t, b.gw)
		assert.Equal(t, results, s.Requests)
		assert.Equal(t, results, page.of("gateway_cache_requests_total"))
		assert.Equal(t, collapsed, s.Collapsed)
		assert.EqualValues(t, collapsed, page["gateway_cache_collapsed_total"])
		assert.Equal(t, stale, s.Stale)
		assert.Equal(t, results["hit"], s.Hits)
		assert.Equal(t, results["uri-miss"]+results["vary-miss"]+results["stale"]+results["partial"]+1, s.Misses, "with the one of no-cache")
		assert.EqualValues(t, 1, s.Refreshes)
		assert.EqualValues(t, 1, page["gateway_cache_refreshes_total"])
		assert.Zero(t, page["gateway_cache_drops_total"])
		assert.EqualValues(t, s.Entries, page["gateway_cache_entries"])
		assert.EqualValues(t, s.Bytes, page["gateway_cache_size_bytes"])
		assert.Contains(t, page, "gateway_cache_size_bytes")
	})
}

// Refreshes that there is no room for are dropped, and said to be.
func TestDroppedRefreshesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, slowly(time.Second, testnet.Answer(200, "Cache-Control: public, max-age=1, stale-while-revalidate=600", "ok")))
		const all, room = 1100, 4 + 1024
		requests := make([]string, all)
		for i := range requests {
			requests[i] = testnet.Get(fmt.Sprintf("/a/%d", i))
		}
		b.crowdOf(requests)
		time.Sleep(2 * time.Second)
		b.crowdOf(requests)
		time.Sleep(10 * time.Minute)
		s, page := b.cache.Stats(), scrape(t, b.gw)
		assert.EqualValues(t, all-room, s.Drops)
		assert.EqualValues(t, room, s.Refreshes)
		assert.EqualValues(t, all-room, page["gateway_cache_drops_total"])
		assert.EqualValues(t, room, page["gateway_cache_refreshes_total"])
		assert.EqualValues(t, all, page.of("gateway_cache_requests_total")["hit"])
	})
}

func TestEvictionsAreCountedByCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, err := gateway.NewCache(gateway.WithMaxBytes(64 << 10))
		require.NoError(t, err)
		b := direct.bubbleOf(t, cache, testnet.Respond(func(r *testnet.Request) string {
			return testnet.Answer(200, "Cache-Control: public, max-age="+r.Target[1:4], strings.Repeat("x", 4<<10))
		}), gateway.WithMaxStale(0))
		for range 2 { // what is not in is admitted when it is asked for again
			for i := range 50 {
				b.get(fmt.Sprintf("/a/100?%d", i))
			}
		}
		s := b.cache.Stats()
		assert.NotZero(t, s.Evicted["size"])
		assert.Zero(t, s.Evicted["expired"])
		time.Sleep(200 * time.Second)
		for range 2 {
			for i := range 4 {
				b.get(fmt.Sprintf("/a/900?%d", i))
			}
		}
		s = b.cache.Stats()
		assert.NotZero(t, s.Evicted["expired"])
		assert.Equal(t, s.Evictions, s.Evicted["size"]+s.Evicted["expired"]+s.Evicted["share"]+s.Evicted["memory"])
		assert.Equal(t, s.Evicted, scrape(t, b.gw).of("gateway_cache_evictions_total"))
	})
}

// Handlers under Wrap are the cache's requests too.
func TestRequestsUnderWrapAreCounted(t *testing.T) {
	t.Parallel()
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	h := cache.Wrap("pages")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, r.URL.Path)
		if r.URL.Path == "/panic" {
			panic(http.ErrAbortHandler)
		}
	}))
	for range 3 {
		handle(t, h, testnet.Get("/x"), nil)
	}
	handle(t, h, testnet.Build("POST", "/x", ""), nil)
	assert.Panics(t, func() { handle(t, h, testnet.Get("/panic"), nil) })
	s := cache.Stats()
	assert.Equal(t, map[string]uint64{"hit": 2, "uri-miss": 2, "vary-miss": 0, "stale": 0, "partial": 0, "request": 0, "method": 1}, s.Requests)
	assert.EqualValues(t, 2, s.Hits)
	assert.EqualValues(t, 2, s.Misses)
	require.NoError(t, cache.Shutdown(t.Context()))
}

// Counters do not fall, whatever is under way.
func TestCountersDoNotFall(t *testing.T) {
	r := newRig(t, setup{script: testnet.Reply(200, storable, "ok")})
	var requests [2000][8]*http.Request
	for i := range requests {
		for n := range requests[i] {
			requests[i][n] = parsed(t, testnet.Get(fmt.Sprintf("/a/%d", i)))
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, crowd := range requests {
			var all sync.WaitGroup
			for _, req := range crowd {
				all.Go(func() { r.gw.ServeHTTP(&recorder{header: http.Header{}}, req) })
			}
			all.Wait()
		}
	}()
	last := map[string]float64{}
	for under := true; under; {
		select {
		case <-done:
			under = false
		default:
		}
		for range 100 { // a fall lasts a moment
			misses := float64(r.cache.Stats().Misses)
			if !assert.GreaterOrEqual(t, misses, last["misses"]) {
				break
			}
			last["misses"] = misses
		}
		page := scrape(t, r.gw)
		for series, value := range page {
			if strings.HasSuffix(series, "_total") || strings.Contains(series, "_total{") {
				assert.GreaterOrEqual(t, value, last[series], series)
				last[series] = value
			}
		}
	}
	s := r.cache.Stats()
	assert.EqualValues(t, 16000, s.Hits+s.Misses)
	assert.EqualValues(t, 16000, last[`gateway_requests_total{gateway_service="a"}`])
}

// Nor do they fall when services, their connections or caches come and go, while there
// is somebody left to tell of: a scraper takes that for a restart, and counts all that
// is left once more.
func TestCountersDoNotFallByUpdates(t *testing.T) {
	c := make(chan struct{})
	up, _ := server(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-c
		}
		w.Header().Set("Cache-Control", "max-age=60")
	})
	var caches [2]*gateway.Cache
	for i := range caches {
		caches[i], _ = gateway.NewCache()
	}
	a := func(opts ...gateway.ServiceOption) gateway.Option {
		return gateway.WithService("a", up.URL, append(opts, gateway.WithCache(caches[0]), gateway.WithAcquireTimeout(time.Minute))...)
	}
	b := gateway.WithService("b", up.URL, gateway.WithCache(caches[1]))
	gw, err := gateway.New(a(gateway.WithMaxConns(1)), b)
	require.NoError(t, err)
	get := func(target string) { handle(t, gw, testnet.Get(target), nil) }

	var all sync.WaitGroup
	for _, target := range []string{"/a/wait?1", "/a/wait?2"} {
		all.Go(func() { get(target) })
	}
	pool := fmt.Sprintf(`gateway_pool_waits_total{gateway_service="a",server_address="127.0.0.1",server_port=%q}`, up.URL[strings.LastIndexByte(up.URL, ':')+1:])
	testnet.Settle(t, "one waits for the other's connection", func() bool { return scrape(t, gw)[pool] == 1 })
	close(c)
	all.Wait()
	for range 2 {
		get("/a/x")
		get("/b/x")
		get("/b/y")
	}
	last := scrape(t, gw)
	const sent, hits = "http_client_request_duration_seconds_count", `gateway_cache_requests_total{gateway_cache_result="hit"}`
	sum := func(page scraped, name string) (n float64) {
		for series, value := range page {
			if strings.HasPrefix(series, name) {
				n += value
			}
		}
		return n
	}
	assert.EqualValues(t, 5, sum(last, sent))
	assert.EqualValues(t, 3, sum(last, hits))
	for _, tt := range []struct {
		name string
		opts []gateway.Option
		hits float64 // that follow
	}{
		{"other connections", []gateway.Option{a(gateway.WithMaxConns(2)), b}, 3},
		{"a service and its cache leave", []gateway.Option{a(gateway.WithMaxConns(2))}, 1},
		{"and come back", []gateway.Option{a(gateway.WithMaxConns(2)), b}, 1 + 2},
		{"the other leaves", []gateway.Option{b}, 2},
	} {
		require.NoError(t, gw.Update(tt.opts...), tt.name)
		page := scrape(t, gw)
		for series, value := range page {
			before, known := last[series]
			switch {
			case !known || !countsUp(series):
			case strings.HasPrefix(series, "http_client_connection_duration"): // connections end by the update
				assert.GreaterOrEqual(t, value, before, "%s: %s", tt.name, series)
			default:
				assert.Equal(t, before, value, "%s: %s", tt.name, series)
			}
		}
		before := sum(page, hits)
		for _, target := range []string{"/a/x", "/b/x", "/b/y"} {
			get(target)
		}
		last = scrape(t, gw)
		assert.Equal(t, tt.hits, sum(last, hits)-before, tt.name)
	}
	require.NoError(t, gw.Shutdown(t.Context()))
	for _, cache := range caches {
		require.NoError(t, cache.Shutdown(t.Context()))
	}
}

// A meter that takes nothing while it collects holds up no change of replicas, nor
// that it.
func TestAMeterMayWaitForItself(t *testing.T) {
	up, _ := server(t, "", nil)
	reader := sdkmetric.NewManualReader()
	meter := &oneAtATime{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}
	gw, err := gateway.New(gateway.WithMeterProvider(meter), gateway.WithService("a", up.URL))
	require.NoError(t, err)
	for range 20 {
		handle(t, gw, testnet.Get("/a/x"), nil)
		meter.mu.Lock()
		changed := make(chan error, 1)
		go func() { changed <- gw.Upstream("a").SetReplicas(gateway.Replica{URL: "http://b.test"}) }()
		testnet.Settle(t, "a connection has ended, or is about to", func() bool { return meter.waiting.Load() > 0 || len(changed) > 0 })
		var data metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(t.Context(), &data))
		meter.mu.Unlock()
		require.NoError(t, <-changed)
		require.NoError(t, gw.Upstream("a").SetReplicas(gateway.Replica{URL: up.URL}))
	}
	require.NoError(t, gw.Shutdown(t.Context()))
}

// oneAtATime is a meter provider whose histograms wait for a lock.
type oneAtATime struct {
	metric.MeterProvider
	mu      sync.Mutex
	waiting atomic.Int64
}

func (o *oneAtATime) Meter(name string, opts ...metric.MeterOption) metric.Meter {
	return meterOneAtATime{o.MeterProvider.Meter(name, opts...), o}
}

type meterOneAtATime struct {
	metric.Meter
	by *oneAtATime
}

func (m meterOneAtATime) Float64Histogram(name string, opts ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	h, err := m.Meter.Float64Histogram(name, opts...)
	return histogramOneAtATime{h, m.by}, err
}

type histogramOneAtATime struct {
	metric.Float64Histogram
	by *oneAtATime
}

func (h histogramOneAtATime) Record(ctx context.Context, v float64, opts ...metric.RecordOption) {
	h.by.waiting.Add(1)
	h.by.mu.Lock()
	defer h.by.mu.Unlock()
	h.by.waiting.Add(-1)
	h.Float64Histogram.Record(ctx, v, opts...)
}

// countsUp reports whether a series is of a counter or of a histogram.
func countsUp(series string) bool {
	name, _, _ := strings.Cut(series, "{")
	return strings.HasSuffix(name, "_total") || strings.HasSuffix(name, "_bucket") || strings.HasSuffix(name, "_count") || strings.HasSuffix(name, "_sum")
}

// Where the app mounts the handler may change by an update: what was counted under the
// old route is told on.
func TestCountersStayWhenTheMountPathChanges(t *testing.T) {
	up, _ := server(t, "", func(http.ResponseWriter, *http.Request) {})
	service := gateway.WithService("a", up.URL)
	gw, err := gateway.New(gateway.WithMountPath("/v1"), service)
	require.NoError(t, err)
	for i, tt := range []struct {
		path   string
		v1, v2 float64
	}{{"/v1", 1, 0}, {"/v2", 1, 1}, {"/v1", 2, 1}} {
		if i > 0 {
			require.NoError(t, gw.Update(gateway.WithMountPath(tt.path), service))
		}
		handle(t, gw, testnet.Get("/a/"), nil)
		of := map[string]float64{}
		for series, n := range scrape(t, gw) {
			if strings.HasPrefix(series, "http_server_request_duration_seconds_count") {
				_, route, _ := strings.Cut(series, `http_route="`)
				route, _, _ = strings.Cut(route, `"`)
				of[route] += n
			}
		}
		assert.Equal(t, tt.v1, of["/v1/a/{path...}"])
		assert.Equal(t, tt.v2, of["/v2/a/{path...}"])
	}
	require.NoError(t, gw.Shutdown(t.Context()))
}
