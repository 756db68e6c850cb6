package e2e_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// tree writes spans out, those of a trace below each other in the order in which they
// began, with all that they have.
func tree(spans []tracetest.SpanStub) (lines []string) {
	slices.SortStableFunc(spans, func(a, b tracetest.SpanStub) int { // a request before its attempts
		return cmp.Or(a.StartTime.Compare(b.StartTime), cmp.Compare(a.SpanKind, b.SpanKind))
	})
	names := map[trace.SpanID]string{}
	for i, s := range spans {
		names[s.SpanContext.SpanID()] = fmt.Sprint("span ", i)
	}
	for i, s := range spans {
		line := fmt.Sprintf("span %d: %s %q", i, s.SpanKind, s.Name)
		if s.Parent.IsValid() {
			line += " in " + names[s.Parent.SpanID()]
		}
		for _, link := range s.Links {
			line += " to " + names[link.SpanContext.SpanID()]
		}
		if s.Status.Code != codes.Unset {
			line += " " + s.Status.Code.String()
		}
		lines = append(lines, line)
		attrs := map[string]string{}
		for _, a := range s.Attributes {
			attrs[string(a.Key)] = a.Value.String()
		}
		for _, key := range slices.Sorted(maps.Keys(attrs)) {
			lines = append(lines, "  "+key+"="+attrs[key])
		}
	}
	return lines
}

// What every request and every attempt of these tests has.
func requestAttributes(path string, more ...string) []string {
	return attributesOf(append(more, "client.address=192.0.2.1", "gateway.service=a", "http.request.method=GET", "http.route=/a/{path...}",
		"network.peer.address=192.0.2.1", "network.peer.port=1234", "network.protocol.version=1.1", "server.address=gateway.test",
		"url.path=/a/"+path, "url.scheme=http"))
}

func attemptAttributes(path string, more ...string) []string {
	return attributesOf(append(more, "gateway.service=a", "http.request.method=GET",
		"server.address=upstream.test", "server.port=80", "url.full="+target+"/"+path))
}

func attributesOf(list []string) []string {
	slices.Sort(list)
	for i := range list {
		list[i] = "  " + list[i]
	}
	return list
}

func spanLines(parts ...any) (lines []string) {
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			lines = append(lines, p)
		case []string:
			lines = append(lines, p...)
		}
	}
	return lines
}

// The whole of what OpenTelemetry is told of a request, by what the cache and the
// upstream made of it: the tree of spans, their names, kinds, attributes, states
// and links, and each of the histograms once.
func TestSpanTrees(t *testing.T) {
	const fresh = "public, max-age=10, stale-while-revalidate=20, stale-if-error=1000"
	ok := "network.protocol.version=1.1"
	for name, tt := range map[string]struct {
		statuses []int // of the upstream, in turn; 0: it breaks off before it answers
		warm     int   // requests before the one that is looked at, which have the first answer
		wait     time.Duration
		crowd    int // how many ask at once; 0: one
		opts     []gateway.ServiceOption
		want     []string
		series   []string
	}{
		"a miss": {statuses: []int{200}, want: spanLines(
			`span 0: server "GET /a/{path...}"`, requestAttributes("x", "gateway.cache.result=uri-miss", "http.response.body.size=2", "http.response.status_code=200"),
			`span 1: client "GET" in span 0`, attemptAttributes("x", "http.response.status_code=200", ok)),
			series: []string{"1 client 200", "1 server 200"}},
		"a hit asks nobody": {statuses: []int{200}, warm: 1, want: spanLines(
			`span 0: server "GET /a/{path...}"`, requestAttributes("x", "gateway.cache.result=hit", "http.response.body.size=2", "http.response.status_code=200")),
			series: []string{"1 server 200"}},
		"stale, and refreshed behind": {statuses: []int{200, 200}, warm: 1, wait: 15 * time.Second, want: spanLines(
			`span 0: server "GET /a/{path...}"`, requestAttributes("x", "gateway.cache.result=hit", "http.response.body.size=2", "http.response.status_code=200"),
			`span 1: client "GET" to span 0`, attemptAttributes("x", "http.response.status_code=200", ok)),
			series: []string{"1 client 200", "1 server 200"}},
		"stale, for the upstream fails": {statuses: []int{200, 500}, warm: 1, wait: time.Minute, want: spanLines(
			`span 0: server "GET /a/{path...}"`, requestAttributes("x", "gateway.cache.result=stale", "http.response.body.size=2", "http.response.status_code=200"),
			`span 1: client "GET" in span 0 Error`, attemptAttributes("x", "error.type=500", "http.response.status_code=500", ok)),
			series: []string{"1 client 500 500", "1 server 200"}},
		"stale, and validated": {statuses: []int{200, 304}, warm: 1, wait: time.Minute, want: spanLines(
			`span 0: server "GET /a/{path...}"`, requestAttributes("x", "gateway.cache.result=stale", "http.response.body.size=2", "http.response.status_code=200"),
			`span 1: client "GET" in span 0`, attemptAttributes("x", "http.response.status_code=304", ok)),
			series: []string{"1 client 304", "1 server 200"}},
		"two at once are one attempt": {statuses: []int{200}, crowd: 2, want: spanLines(
			`span 0: server "GET /a/{path...}"`, requestAttributes("x", "gateway.cache.result=uri-miss", "http.response.body.size=2", "http.response.status_code=200"),
			`span 1: client "GET" in span 0`, attemptAttributes("x", "http.response.status_code=200", ok),
			`span 2: server "GET /a/{path...}" to span 1`, requestAttributes("x", "gateway.cache.result=uri-miss", "http.response.body.size=2", "http.response.status_code=200")),
			series: []string{"1 client 200", "2 server 200"}},
		"a 404": {statuses: []int{404}, want: spanLines(
			`span 0: server "GET /a/{path...}"`, requestAttributes("x", "gateway.cache.result=uri-miss", "http.response.body.size=2", "http.response.status_code=404"),
			`span 1: client "GET" in span 0 Error`, attemptAttributes("x", "error.type=404", "http.response.status_code=404", ok)),
			series: []string{"1 client 404 404", "1 server 404"}},
		"two repeats, without a cache": {statuses: []int{503, 0, 200}, opts: []gateway.ServiceOption{gateway.WithoutCache()}, want: spanLines(
			`span 0: server "GET /a/{path...}"`, requestAttributes("x", "http.response.body.size=2", "http.response.status_code=200"),
			`span 1: client "GET" in span 0 Error`, attemptAttributes("x", "error.type=503", "http.response.status_code=503", ok),
			`span 2: client "GET" in span 0 Error`, attemptAttributes("x", "error.type=upstream_failed", "http.request.resend_count=1"),
			`span 3: client "GET" in span 0`, attemptAttributes("x", "http.request.resend_count=2", "http.response.status_code=200", ok)),
			series: []string{"1 client 200", "1 client 503 503", "1 client upstream_failed", "1 server 200"}},
		"no answer at all": {statuses: []int{0}, opts: []gateway.ServiceOption{gateway.WithoutCache(), gateway.WithoutRetries()}, want: spanLines(
			`span 0: server "GET /a/{path...}" Error`, requestAttributes("x", "error.type=upstream_failed", "gateway.reason=upstream_failed", "http.response.body.size=124", "http.response.status_code=502"),
			`span 1: client "GET" in span 0 Error`, attemptAttributes("x", "error.type=upstream_failed")),
			series: []string{"1 client upstream_failed", "1 server 502 upstream_failed"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int32
				rt := gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
					time.Sleep(time.Second)
					status := tt.statuses[n.Add(1)-1]
					if status == 0 {
						return nil, io.ErrUnexpectedEOF
					}
					h := http.Header{"Etag": {`"v1"`}}
					if status == 200 {
						h.Set("Cache-Control", fresh)
					}
					body := "ok"
					if status == 304 {
						body = ""
					}
					return &http.Response{StatusCode: status, Proto: "HTTP/1.1", Header: h, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
				}))
				o := newObserved(t)
				cache, err := gateway.NewCache()
				require.NoError(t, err)
				gw := o.gateway(gateway.WithCache(cache), gateway.WithRetries(2), gateway.WithRetryBudget(1, 100), gateway.WithService("a", target, append(tt.opts, rt)...))
				ask := func() { handle(t, gw, testnet.Get("/a/x", "Host: gateway.test"), nil) }
				for range tt.warm {
					ask()
				}
				time.Sleep(tt.wait)
				synctest.Wait()
				before := o.values()
				o.spans.Reset()
				for range tt.crowd - 1 {
					go ask()
					time.Sleep(time.Millisecond)
				}
				ask()
				time.Sleep(10 * time.Second)
				synctest.Wait()
				assert.Equal(t, tt.want, tree(o.spans.GetSpans()))
				assert.Equal(t, tt.series, o.since(before))
				require.NoError(t, gw.Shutdown(context.Background()))
				require.NoError(t, cache.Shutdown(context.Background()))
			})
		})
	}
}

// since returns what was recorded of requests and attempts: how often, by status and
// error.
func (o *observed) since(before map[string]int64) (series []string) {
	for name, n := range o.values() {
		kind, ok := strings.CutPrefix(name, "http.")
		if n -= before[name]; !ok || n == 0 || !strings.Contains(kind, ".request.duration{") {
			continue
		}
		kind, rest, _ := strings.Cut(kind, ".")
		text := fmt.Sprint(n, " ", kind)
		for _, key := range []string{"http.response.status_code=", "error.type="} {
			if _, v, ok := strings.Cut(rest, key); ok {
				v, _, _ = strings.Cut(strings.TrimSuffix(v, "}"), ",")
				text += " " + v
			}
		}
		series = append(series, text)
	}
	slices.Sort(series)
	return series
}

// A WebSocket is one request and one attempt, with the same attributes as any other,
// and both last as long as it stands.
func TestTheSpansOfAWebSocket(t *testing.T) {
	r := newRig(t, setup{script: testnet.EchoWebSocket})
	c := testnet.Dial(t, r.addr)
	openTunnel(t, c, "")
	c.CloseWrite()
	c.ReadRest()
	testnet.Settle(t, "it has ended", func() bool { return len(r.spans.GetSpans()) == 2 })
	var heads []string
	attrs := map[string]bool{}
	for _, line := range tree(r.spans.GetSpans()) {
		if key, _, ok := strings.Cut(line, "="); ok && strings.HasPrefix(line, "  ") {
			attrs[key] = true
			continue
		}
		heads = append(heads, line)
	}
	assert.Equal(t, []string{`span 0: server "GET /a/{path...}"`, `span 1: client "GET" in span 0`}, heads)
	for _, key := range []string{"http.response.status_code", "network.peer.address", "network.peer.port", "network.protocol.version", "url.full", "url.path", "http.route"} {
		assert.True(t, attrs["  "+key], key)
	}
	assert.False(t, attrs["  error.type"])
}
