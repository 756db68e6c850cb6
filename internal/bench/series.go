package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"github.com/embedgw/gateway"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Bounds on what hostile requests may lead to.
const (
	seriesWarm     = 50_000                // requests after which every series is there
	seriesPage     = 1 << 20               // bytes of the metrics page, and of what OpenTelemetry exports, as JSON
	seriesPageTime = 50 * time.Millisecond // to make the page
)

// checkSeries asks a hundred thousand times with random methods, paths, hosts, agents,
// services and fields, for answers of random statuses beyond 599: none of it may
// make a metric series. Then it asks as often over all protocols that net/http's
// server knows, each of which may make those that there are once more. -n: other
// than 100,000.
func checkSeries(ctx context.Context, s settings) error {
	reader := sdkmetric.NewManualReader()
	meters := gateway.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	cache, err := gateway.NewCache(meters)
	if err != nil {
		return err
	}
	defer func() { _ = cache.Shutdown(context.Background()) }()
	gw, err := gateway.New(
		gateway.WithCache(cache), meters, gateway.WithPropagator(propagation.TraceContext{}), gateway.WithoutBreaker(), gateway.WithoutEjection(), gateway.WithoutRetries(),
		gateway.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithBatcher(dropped{}))),
		gateway.WithService("a", "http://a.test", gateway.WithTransport(whimsical{})),
		gateway.WithService("b", "http://b.test", gateway.WithTransport(whimsical{}), gateway.WithMethods("BREW")))
	if err != nil {
		return err
	}
	defer func() { _ = gw.Shutdown(context.Background()) }()
	w := weather{gw: gw, reader: reader, random: rand.New(rand.NewPCG(1, 2))} //nolint:gosec // the same each time
	n := max(s.count(100_000), 2*seriesWarm)
	return errors.Join(w.storm(ctx, "HTTP/1.1", n, 11), w.storm(ctx, "HTTP/1.0, HTTP/1.1 and HTTP/2", n, 10, 11, 20))
}

type weather struct {
	gw     *gateway.Gateway
	reader sdkmetric.Reader
	random *rand.Rand
	asked  int
}

// storm asks n times, over protocols in turn, and judges what is left of that.
func (w *weather) storm(ctx context.Context, over string, n int, protocols ...int) error {
	ask := func(n int) {
		for range n {
			r := hostile(ctx, w.random)
			p := protocols[w.random.IntN(len(protocols))]
			r.ProtoMajor, r.ProtoMinor = p/10, p%10
			w.gw.ServeHTTP(&sink{header: http.Header{}}, r)
		}
		w.asked += n
	}
	ask(seriesWarm)
	before, err := exported(ctx, w.reader)
	if err != nil {
		return err
	}
	ask(n - seriesWarm)
	after, err := exported(ctx, w.reader)
	if err != nil {
		return err
	}
	page, took := metricsPage(ctx, w.gw.MetricsHandler())
	s := w.gw.Stats()
	fmt.Printf("%d hostile requests over %s: %d series after %d of them, %d after all; %d bytes exported, a page of %d bytes in %s\n",
		n, over, before.series, seriesWarm, after.series, after.bytes, len(page), took)
	var faults []error
	for what, is := range map[string]bool{
		"requests made series":                            after.series != before.series,
		"what is exported is too long":                    after.bytes > seriesPage,
		"the page is too long":                            len(page) > seriesPage,
		"the page took too long":                          took > seriesPageTime,
		"the page has what a client chose":                strings.Contains(page, "zz-"),
		"a request was not counted, or more than once":    s.Requests != uint64(w.asked), //nolint:gosec // of few
		"the page has as good as nothing":                 !strings.Contains(page, "http_server_request_duration_seconds_bucket"),
		"the reasons of Stats are more than there may be": len(s.Errors) > 30,
	} {
		if is {
			faults = append(faults, fmt.Errorf("over %s: %s", over, what))
		}
	}
	return errors.Join(faults...)
}

// whimsical answers with the status that the query asks for.
type whimsical struct{}

func (whimsical) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
	resp := &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/1.1", Header: http.Header{}, Body: http.NoBody, Request: r}
	if _, err := fmt.Sscanf(r.URL.RawQuery, "status=%d", &resp.StatusCode); err != nil && r.URL.RawQuery != "" && r.URL.RawQuery[0] == '!' {
		return nil, io.ErrUnexpectedEOF
	}
	return resp, nil
}

// hostile makes up a request. Whatever is random in it begins with zz-.
func hostile(ctx context.Context, random *rand.Rand) *http.Request {
	word := func() string { return fmt.Sprintf("zz-%x", random.Uint64()) }
	oneOf := func(list ...string) string { return list[random.IntN(len(list))] }
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", http.NoBody)
	r.Method = oneOf("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY", "BREW", "get", strings.ToUpper(word()))
	path := "/" + oneOf("a", "b", word()) + "/" + oneOf("", word(), word()+"/%2e%2e/"+word(), "%e2%80%a8"+word(), strings.Repeat("x", random.IntN(9000)))
	query := oneOf("", word()+"="+word(), fmt.Sprintf("status=%d", 600+random.IntN(400)), fmt.Sprintf("status=%d", random.IntN(100)), "!"+word())
	r.URL = &url.URL{Path: path, RawQuery: query}
	if p, err := url.PathUnescape(path); err == nil {
		r.URL.Path, r.URL.RawPath = p, path
	}
	r.RequestURI = path + "?" + query
	r.Host, r.RemoteAddr = word()+".test", fmt.Sprintf("192.0.2.%d:%d", random.IntN(256), random.IntN(65536))
	r.Header = http.Header{
		"User-Agent": {word()}, "X-Request-Id": {word()}, word(): {word()}, "Tracestate": {"zz=" + word()}, "Baggage": {word() + "=" + word()},
		"Traceparent": {fmt.Sprintf("00-%016x%016x-%016x-%02x", random.Uint64(), random.Uint64(), random.Uint64(), random.IntN(256))},
		"Accept":      {oneOf("*/*", word())}, "Cache-Control": {oneOf("", "no-cache", "only-if-cached", word()+"="+word())},
	}
	return r
}

// exporting is what a reader has.
type exporting struct{ series, bytes int }

func exported(ctx context.Context, reader sdkmetric.Reader) (e exporting, err error) {
	var all metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &all); err != nil {
		return e, err
	}
	text, err := json.Marshal(all)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				e.series += len(d.DataPoints)
			case metricdata.Sum[float64]:
				e.series += len(d.DataPoints)
			case metricdata.Histogram[float64]:
				e.series += len(d.DataPoints)
			default:
				return e, fmt.Errorf("%s is a %T", m.Name, d)
			}
		}
	}
	e.bytes = len(text)
	return e, err
}

// metricsPage asks for the page twice, and says how long the second took.
func metricsPage(ctx context.Context, h http.Handler) (page string, took time.Duration) {
	for range 2 {
		w := httptest.NewRecorder()
		start := time.Now()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", http.NoBody))
		page, took = w.Body.String(), time.Since(start)
	}
	return page, took
}
