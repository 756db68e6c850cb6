package e2e_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// zoo is an upstream that does what the path's first segment says.
func zoo(c *testnet.Conn) {
	for req := c.ReadRequest(); req != nil; req = c.ReadRequest() {
		kind, _, _ := strings.Cut(strings.TrimPrefix(req.Target, "/"), "/")
		if !zooAnswers(c, req, kind) {
			return
		}
	}
}

// zooAnswers answers one request, and says whether the connection goes on.
func zooAnswers(c *testnet.Conn, req *testnet.Request, kind string) bool {
	switch kind {
	case "ok":
		return c.Send(testnet.Answer(200, "", "ok"))
	case "fresh":
		return c.Pause(time.Duration(rand.IntN(500))*time.Millisecond) && c.Send(testnet.Answer(200, "Cache-Control: max-age=2, stale-if-error=60\r\nEtag: \"1\"\r\n", strings.Repeat("f", rand.IntN(5000))))
	case "moody":
		if rand.IntN(2) == 0 {
			return c.Send(testnet.Answer(503, "", "no"))
		}
		if req.Header.Get("If-None-Match") != "" {
			return c.Send("HTTP/1.1 304 Not Modified\r\nEtag: \"1\"\r\n\r\n")
		}
		return c.Send(testnet.Answer(200, "Cache-Control: max-age=1, stale-if-error=60\r\nEtag: \"1\"\r\n", "moody"))
	case "private":
		return c.Pause(100*time.Millisecond) && c.Send(testnet.Answer(200, "Cache-Control: private\r\n", "mine"))
	case "big":
		return c.Send(testnet.Answer(200, "Cache-Control: max-age=5\r\n", strings.Repeat("b", 200_000)))
	case "chunks":
		for _, piece := range []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", testnet.Chunks("one"), testnet.Chunks("two"), "0\r\n\r\n"} {
			piece = strings.TrimSuffix(piece, "0\r\n\r\n") + strings.Repeat("0\r\n\r\n", strings.Count(piece, "\r\n")/100)
			if !c.Send(piece) || !c.Pause(300*time.Millisecond) {
				return false
			}
		}
		return c.Send("0\r\n\r\n")
	case "missing":
		return c.Send(testnet.Answer(404, "", "none"))
	case "fail":
		return c.Send(testnet.Answer(500, "", "no"))
	case "flaky":
		return c.Send(testnet.Answer(200+302*rand.IntN(2), "", "flaky"))
	case "garbage":
		c.Send("SSH-2.0-none\r\n\r\n")
	case "cut":
		c.Send(testnet.Answer(200, "Content-Length: 100000\r\n", strings.Repeat("c", 50_000)))
	case "early":
		c.Send(testnet.Answer(200, "Content-Length: 100000\r\n", ""))
	case "closes":
	case "never":
		c.Wait()
	case "slow":
		return c.Pause(time.Duration(rand.IntN(4000))*time.Millisecond) && c.Send(testnet.Answer(200, "", "slow"))
	case "interim":
		return c.Send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n") && c.Send(testnet.Answer(200, "", "ok"))
	case "flood":
		c.Send(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 30) + testnet.Answer(200, "", "ok"))
	case "header":
		c.Send(testnet.Answer(200, "X: "+strings.Repeat("x", 70_000)+"\r\n", "ok"))
	case "events":
		c.Send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
		return c.Pause(2*time.Second) && c.Send("9\r\ndata: 2\n\n\r\n0\r\n\r\n")
	case "socket":
		c.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + testnet.WebSocketAccept + "\r\n\r\n")
		if rand.IntN(2) == 0 {
			c.Pause(time.Second)
			return false
		}
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	}
	return false
}

// zooKinds are those that are asked for without an upgrade.
var zooKinds = []string{
	"ok", "fresh", "moody", "private", "big", "chunks", "missing", "fail", "flaky", "garbage", "cut", "early", "closes", "never", "slow", "interim", "flood", "header", "events",
}

// ledger is what is written down of one request.
type ledger struct {
	id, path, service, reason, errorType, cache string
	status, attempts                            int
	sent                                        int64
}

func (l ledger) called(id string) ledger { l.id = id; return l }

// fair is a town whose gateway is recorded by all means at once.
type fair struct {
	*town
	cache *gateway.Cache
	spans *tracetest.SpanRecorder
	meter *sdkmetric.ManualReader
	opts  []gateway.Option
}

// services of the fair; turn changes what may change of them.
func (c *fair) services(turn int) []gateway.Option {
	hook := func(r *http.Response) error {
		switch rand.IntN(4) {
		case 0:
			return errors.New("no")
		case 1:
			panic("no")
		case 2:
			panic(http.ErrAbortHandler)
		}
		return nil
	}
	token := func(ctx context.Context) (string, error) {
		if rand.IntN(2) == 0 {
			return "", errors.New("no")
		}
		return "t0ken-of-some-length", nil
	}
	all := append(c.common[:len(c.common):len(c.common)], c.opts...)
	all = append(all,
		at("plain", "one", gateway.WithoutCache(), gateway.WithRetries(1+turn%2)),
		at("cached", "one", gateway.WithRetries(1)),
		at("hedged", "one", gateway.WithHedge(time.Duration(200+turn%2*100)*time.Millisecond), gateway.WithReplicas(gateway.Replica{URL: "http://two"}), gateway.WithRetries(1), gateway.WithRetryBudget(1, 100)),
		at("few", "one", gateway.WithMaxConcurrency(1+turn%3, 2, time.Second), gateway.WithoutCache()),
		at("pool", "one", gateway.WithMaxConns(1+turn%2), gateway.WithAcquireTimeout(300*time.Millisecond)),
		at("rate", "one", gateway.WithRateLimit(2+float64(turn%2), 2)),
		at("breaks", "one", gateway.WithBreaker(0.5, 3), gateway.WithBreakerTimes(time.Second, time.Second, 1)),
		at("token", "one", gateway.WithTokenSource(token)),
		at("hooks", "one", gateway.WithModifyResponse(hook)),
		at("dead", "none", gateway.WithRetries(turn%3)),
		at("small", "one", gateway.WithMaxBodyBytes(10), gateway.WithMaxResponseBytes(1000)),
		at("pair", "one", gateway.WithReplicas(gateway.Replica{URL: "http://none"}), gateway.WithBalancing(gateway.RoundRobin()), gateway.WithRetries(2)),
		at("brief", "one", gateway.WithTimeout(time.Second), gateway.WithBodyIdleTimeout(500*time.Millisecond), gateway.WithTunnelIdleTimeout(400*time.Millisecond)),
		at("odd", "one", gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
			switch rand.IntN(3) {
			case 0:
				panic("no")
			case 1:
				return nil, errors.New("no")
			}
			w := httptest.NewRecorder()
			_, _ = w.WriteString("odd")
			return w.Result(), nil
		}))),
	)
	if turn%3 == 1 {
		all = append(all, at("guest", "two"))
	}
	return all
}

// request makes one up, and says how long its client stays.
func (c *fair) request(id int) (raw, method string, stays time.Duration) {
	services := []string{"plain", "cached", "cached", "cached", "hedged", "few", "pool", "rate", "breaks", "token", "hooks", "dead", "small", "pair", "brief", "odd", "guest", "nobody"}
	service, kind := services[rand.IntN(len(services))], zooKinds[rand.IntN(len(zooKinds))]
	method, body, rest := "GET", "", ""
	fields := []string{"X-Request-Id: n" + strconv.Itoa(id), "Connection: close"}
	switch rand.IntN(12) {
	case 0:
		method, body = "POST", strings.Repeat("p", rand.IntN(40_000))
	case 1:
		method, kind = "HEAD", []string{"ok", "fresh", "fail"}[rand.IntN(3)] // of a server 80 series are told apart
	case 2:
		kind = "ok"
		method = []string{"OPTIONS", "DELETE", "TRACE", "BREW"}[rand.IntN(4)]
	case 3:
		fields = append(fields, "Cache-Control: "+[]string{"only-if-cached", "no-store", "no-cache", "max-stale=100"}[rand.IntN(4)])
	case 4:
		fields = append(fields, []string{"Range: bytes=1-3", "If-None-Match: \"1\"", "X-Long: " + strings.Repeat("x", 66_000), "Via: " + strings.Repeat("1.1 gateway, ", 9) + "1.1 gateway"}[rand.IntN(4)])
	case 5:
		rest = []string{"/..%2f", "?" + strings.Repeat("q", 9000), "?a=b", "%zz"}[rand.IntN(4)]
	case 6:
		kind = "socket"
		fields = append(fields[:1], "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: "+testnet.WebSocketKey)
	}
	target := fmt.Sprintf("/%s/%s/%d%s", service, kind, rand.IntN(3), rest)
	stays = time.Hour
	if rand.IntN(4) == 0 {
		stays = time.Duration(rand.IntN(3000)) * time.Millisecond
	}
	raw = testnet.Build(method, target, body, fields...)
	if method == "POST" && rand.IntN(4) == 0 { // and it breaks off
		raw, stays = raw[:len(raw)-len(body)/2], min(stays, time.Second)
	}
	return raw, method, stays
}

// One run of requests that end in all ways that there are, while options change:
// each is counted once, by all means, and they agree about its end.
func TestEveryRequestIsCountedOnceByAllMeans(t *testing.T) {
	atFair(t, func(c *fair) {
		answers, done := c.visitors(3000)
		c.beside(done, func(turn int) {
			require.NoError(c, c.gw.Update(c.services(turn)...))
			_, _ = c.gw.Stats(), scrape(c, c.gw)
		})
		require.NoError(c, c.gw.Update(c.services(0)...))
		time.Sleep(time.Minute) // what goes on by itself ends
		c.audit(answers)
	})
}

// The same holds of those that a shutdown cuts, and of those that it refuses.
func TestEveryRequestIsCountedOnceThoughItIsCut(t *testing.T) {
	for _, patience := range []time.Duration{0, 500 * time.Millisecond, time.Hour} {
		t.Run(patience.String(), func(t *testing.T) {
			atFair(t, func(c *fair) {
				answers, done := c.visitors(1000)
				time.Sleep(2 * time.Second)
				ctx, cancel := context.WithTimeout(c.Context(), patience)
				defer cancel()
				err := c.gw.Shutdown(ctx)
				assert.Equal(c, patience < time.Hour, err != nil, err)
				<-done
				time.Sleep(time.Minute)
				c.audit(answers)
				assert.Positive(c, c.gw.Stats().Errors[gateway.ReasonShuttingDown])
				for name, one := range c.gw.Stats().Services {
					for _, r := range one.Replicas {
						assert.Zero(c, r.Conns.Open, "connections of %s", name)
					}
				}
			})
		})
	}
}

// visitors sends so many requests, forty at a time. It returns the statuses of the
// answers that come whole, 0 for others, which are there when done is closed.
func (c *fair) visitors(requests int) (answers []int, done chan struct{}) {
	answers, done = make([]int, requests), make(chan struct{})
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			for id := int(next.Add(1)) - 1; id < requests; id = int(next.Add(1)) - 1 {
				answers[id] = c.ask(id)
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	return answers, done
}

// beside does something else in the meantime, again and again.
func (c *fair) beside(done <-chan struct{}, do func(turn int)) {
	for turn := 1; ; turn++ {
		select {
		case <-done:
			return
		case <-time.After(700 * time.Millisecond):
			do(turn)
		}
	}
}

func atFair(t *testing.T, test func(c *fair)) {
	t.Helper()
	inTown(t, map[string]func(*testnet.Conn){"one": zoo, "two": zoo}, func(w *town) {
		c := &fair{town: w, spans: tracetest.NewSpanRecorder(), meter: sdkmetric.NewManualReader()}
		meters := gateway.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(c.meter)))
		var err error
		c.cache, err = gateway.NewCache(meters)
		require.NoError(t, err)
		c.common = []gateway.Option{
			gateway.WithLogger(w.logs.Logger()), gateway.WithDialContext(w.dial), gateway.WithTimeout(5 * time.Second), gateway.WithLogLimit(0), gateway.WithoutBreaker(), gateway.WithoutEjection(), gateway.WithRetryBackoff(time.Millisecond, 10*time.Millisecond),
		}
		c.opts = []gateway.Option{
			gateway.WithCache(c.cache),
			gateway.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(c.spans))),
			meters,
		}
		gw, err := gateway.New(c.services(0)...)
		require.NoError(t, err)
		c.gw, c.srv.Handler = gw, gw
		test(c)
		require.NoError(t, c.cache.Shutdown(t.Context()))
	})
}

// ask is one client. It returns the status of an answer that came whole.
func (c *fair) ask(id int) int {
	return c.send(c.request(id))
}

func (c *fair) send(raw, method string, stays time.Duration) int {
	conn, err := c.ln.Dial()
	if err != nil {
		c.Error(err)
		return 0
	}
	defer conn.Close()
	left := time.AfterFunc(stays, func() { _ = conn.Close() })
	defer left.Stop()
	go func() { _, _ = io.WriteString(conn, raw) }()
	cl := testnet.NewClient(c, conn)
	cl.Patience = time.Hour
	resp := cl.ReadResponse(method)
	if resp.Status == 101 {
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Millisecond)
		return 101
	}
	if resp.End != testnet.Whole {
		return 0
	}
	return resp.Status
}

// audit compares what all have written down.
func (c *fair) audit(answers []int) {
	t, stats := c.T, c.gw.Stats()
	atRest(t, c.gw, slices.Collect(maps.Keys(stats.Services))...)
	logged, traced := c.logged(), c.traced()
	assert.Equal(t, len(traced), len(logged))
	by, sums := map[string]ledger{}, map[string]*tally{"": newTally()}
	for name := range stats.Services {
		sums[name] = newTally()
	}
	for span, l := range logged {
		if same := traced[span]; l != same.called(l.id) {
			t.Errorf("%+v by its log line, %+v by its span", l, same)
		}
		_, again := by[l.id]
		assert.False(t, again, "%s is logged twice", l.id)
		by[l.id] = l
		sums[""].add(&l)
		if one := sums[l.service]; one != nil && l.service != "" {
			one.add(&l)
		}
	}
	for id, status := range answers {
		if l, ok := by["n"+strconv.Itoa(id)]; ok && status != 0 {
			assert.Equal(t, status, l.status, "request %d, by its client and by its log line", id)
		}
	}
	for name, sum := range sums {
		one := stats.UpstreamStats
		if name != "" {
			one = stats.Services[name]
		}
		sum.agrees(t, cmp.Or(name, "all"), &one)
		if name != "" {
			lately := c.gw.StatsOver(gateway.LastTenMinutes).Services[name]
			sum.agrees(t, name+" lately", &lately)
		}
	}
	c.agree(sums)
}

// tally is what the statistics have to say, by the log.
type tally struct {
	requests, failed, hits, misses, attempts uint64
	errors                                   map[gateway.Reason]uint64
	results                                  map[string]uint64
}

func newTally() *tally {
	return &tally{errors: map[gateway.Reason]uint64{}, results: map[string]uint64{}}
}

func (s *tally) add(l *ledger) {
	s.requests++
	s.attempts += uint64(max(l.attempts, 1) - 1)
	if l.reason != "" {
		s.errors[gateway.Reason(l.reason)]++
	}
	if l.status >= 500 || l.reason != "" && l.reason != "client_closed" {
		s.failed++
	}
	switch l.cache {
	case "":
		return
	case "hit":
		s.hits++
	default:
		s.misses++
	}
	s.results[l.cache]++
}

func (s *tally) agrees(t *testing.T, name string, stats *gateway.UpstreamStats) {
	t.Helper()
	assert.Equal(t, s.requests, stats.Requests, "requests of %s", name)
	assert.Equal(t, s.failed, stats.Failed, "failures of %s", name)
	assert.Equal(t, s.errors, stats.Errors, "errors of %s", name)
	assert.Equal(t, s.hits, stats.CacheHits, "hits of %s", name)
	assert.Equal(t, s.misses, stats.CacheMisses, "misses of %s", name)
	assert.Equal(t, s.attempts, stats.Retries+stats.Hedges, "further attempts of %s", name)
	var spent time.Duration
	for _, row := range stats.Stages {
		if row.Stage != gateway.StageOwn && row.Stage != gateway.StageTotal {
			spent += row.Total
		}
	}
	assert.Equal(t, stats.Latency.Total, spent, "the stages of %s together", name)
	assert.Equal(t, stats.Latency, stageOf(stats, gateway.StageTotal).Latency, name)
	assert.Equal(t, s.requests, stageOf(stats, gateway.StageOwn).Count, "own parts of %s", name)
}

// agree compares the page, and what OpenTelemetry has, with what was counted.
func (c *fair) agree(sums map[string]*tally) {
	t := c.T
	page := scrape(t, c.gw)
	for name, sum := range sums {
		if name == "" {
			assert.Equal(t, sum.results, page.nonzero("gateway_cache_requests_total"))
			continue
		}
		left := sum.requests
		for reason, n := range sum.errors {
			left -= n
			assert.EqualValues(t, n, page[fmt.Sprintf(`gateway_requests_total{gateway_reason=%q,gateway_service=%q}`, reason, name)], "%s of %s", reason, name)
		}
		assert.EqualValues(t, left, page[fmt.Sprintf(`gateway_requests_total{gateway_service=%q}`, name)], name)
		assert.EqualValues(t, sum.requests, page.sum("http_server_request_duration_seconds_count", `http_route="/`+name+`/{path...}"`), name)
		assert.EqualValues(t, sum.requests, page.sum("gateway_request_own_duration_seconds_count", `gateway_service="`+name+`"`), name)
		assert.EqualValues(t, sum.attempts, page.sum("gateway_retries_total", `gateway_service="`+name+`"`)+page.sum("gateway_hedges_total", `gateway_service="`+name+`"`), name)
	}
	for server, n := range c.attempts() {
		assert.EqualValues(t, n, page.sum("http_client_request_duration_seconds_count", `server_address="`+server+`"`), server)
	}
	if c.gw.Stats().Draining { // OpenTelemetry collects no more
		return
	}
	exported := c.exported()
	for series, value := range page {
		if other, ok := exported[series]; !ok || math.Abs(value-other) > 1e-6 {
			t.Errorf("%s is %v on the page, exported as %v (%v)", series, value, other, ok)
		}
	}
	for series, value := range exported { // what is histograms of a service stays where it is gone
		if _, ok := page[series]; !ok && !strings.Contains(series, "guest") {
			t.Errorf("%s is not on the page, exported as %v", series, value)
		}
	}
}

// nonzero is of without what never was.
func (s scraped) nonzero(name string) map[string]uint64 {
	all := s.of(name)
	maps.DeleteFunc(all, func(_ string, n uint64) bool { return n == 0 })
	return all
}

// sum adds up the series of a family that have all of the labels.
func (s scraped) sum(name string, labels ...string) (n float64) {
	for series, value := range s {
		family, rest, _ := strings.Cut(series, "{")
		if family == name && !slices.ContainsFunc(labels, func(label string) bool { return !strings.Contains(rest, label) }) {
			n += value
		}
	}
	return n
}

func textOf(v any) string { s, _ := v.(string); return s }

// logged are the requests by their lines, by their spans' ids.
func (c *fair) logged() map[string]ledger {
	all := map[string]ledger{}
	for _, line := range c.logs.Find(c.T, "gateway: request") {
		status, _ := line["http.response.status_code"].(float64)
		tries, _ := line["gateway.attempts"].(float64)
		sent, _ := line["http.response.body.size"].(float64)
		all[textOf(line["span_id"])] = ledger{
			id: textOf(line["gateway.request.id"]), service: textOf(line["gateway.service"]), reason: textOf(line["gateway.reason"]), errorType: textOf(line["error.type"]),
			cache: textOf(line["gateway.cache.result"]), path: textOf(line["url.path"]), status: int(status), attempts: int(tries), sent: int64(sent),
		}
	}
	return all
}

// traced are the requests by their spans.
func (c *fair) traced() map[string]ledger {
	started, ended := c.spans.Started(), c.spans.Ended()
	assert.Equal(c.T, len(started), len(ended), "spans that have ended")
	all, attempts := map[string]ledger{}, map[string]int{}
	for _, s := range ended {
		if s.SpanKind() == trace.SpanKindClient {
			attempts[s.Parent().SpanID().String()]++
		}
	}
	for _, s := range ended {
		if s.SpanKind() != trace.SpanKindServer {
			continue
		}
		id := s.SpanContext().SpanID().String()
		l := ledger{attempts: attempts[id]}
		for _, a := range s.Attributes() {
			switch v := a.Value; a.Key {
			case "gateway.service":
				l.service = v.AsString()
			case "gateway.reason":
				l.reason = v.AsString()
			case "error.type":
				l.errorType = v.AsString()
			case "gateway.cache.result":
				l.cache = v.AsString()
			case "url.path":
				l.path = v.AsString()
			case "http.response.status_code":
				l.status = int(v.AsInt64())
			case "http.response.body.size":
				l.sent = v.AsInt64()
			}
		}
		assert.Equal(c.T, l.errorType != "", s.Status().Code == codes.Error, l)
		all[id] = l
	}
	return all
}

// attempts are how many attempts there were at which server.
func (c *fair) attempts() map[string]int {
	all := map[string]int{}
	for _, s := range c.spans.Ended() {
		for _, a := range s.Attributes() {
			if a.Key == "server.address" && s.SpanKind() == trace.SpanKindClient {
				all[a.Value.AsString()]++
			}
		}
	}
	return all
}

// exported is what OpenTelemetry has, as the page would have it.
func (c *fair) exported() scraped {
	var data metricdata.ResourceMetrics
	require.NoError(c, c.meter.Collect(context.Background(), &data))
	all := scraped{}
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			name := strings.ReplaceAll(m.Name, ".", "_")
			if unit := map[string]string{"s": "_seconds", "By": "_bytes"}[m.Unit]; !strings.HasSuffix(name, unit) {
				name += unit
			}
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					all[totalOf(name, d.IsMonotonic)+labelsOf(p.Attributes)] = float64(p.Value)
				}
			case metricdata.Sum[float64]:
				for _, p := range d.DataPoints {
					all[totalOf(name, d.IsMonotonic)+labelsOf(p.Attributes)] = p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					all[name+"_sum"+labelsOf(p.Attributes)], all[name+"_count"+labelsOf(p.Attributes)] = p.Sum, float64(p.Count)
					n := uint64(0)
					for i, bound := range append(slices.Clone(p.Bounds), math.Inf(1)) {
						n += p.BucketCounts[i]
						all[name+"_bucket"+labelsOf(p.Attributes, fmt.Sprintf(`le="%v"`, bound))] = float64(n)
					}
				}
			}
		}
	}
	return all
}

func totalOf(name string, counts bool) string {
	if counts {
		name += "_total"
	}
	return name
}

func labelsOf(set attribute.Set, last ...string) string {
	var all []string
	for _, a := range set.ToSlice() {
		all = append(all, fmt.Sprintf("%s=%q", strings.ReplaceAll(string(a.Key), ".", "_"), a.Value.String()))
	}
	if all = append(all, last...); len(all) == 0 {
		return ""
	}
	return "{" + strings.Join(all, ",") + "}"
}
