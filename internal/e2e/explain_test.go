package e2e_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// explained is a gateway with the service a, of two replicas at most, each of
// whose requests is explained before it is served.
type explained struct {
	*bubble
	ups   []*testnet.Up
	mu    sync.Mutex
	last  gateway.Explanation // of the last request
	quiet bool                // the next requests are not explained
}

func newExplained(t *testing.T, replicas int, script func(*testnet.Conn), cacheOpts []gateway.CacheOption, defaults []gateway.Option, opts ...gateway.ServiceOption) *explained {
	t.Helper()
	x := &explained{}
	var others []gateway.Replica
	wires := map[string]*testnet.PipeListener{}
	all := []gateway.ServiceOption{gateway.WithDialContext(func(ctx context.Context, network, address string) (net.Conn, error) {
		return wires[address].DialContext(ctx, network, address)
	})}
	for n := range replicas {
		host := fmt.Sprintf("r%d.test", n)
		wires[host+":80"] = testnet.NewPipeListener()
		x.ups = append(x.ups, testnet.UpstreamOn(t, wires[host+":80"], script))
		if n > 0 {
			others = append(others, gateway.Replica{URL: "http://" + host})
		}
	}
	if len(others) > 0 {
		all = append(all, gateway.WithReplicas(others...))
	}
	cache, err := gateway.NewCache(cacheOpts...)
	require.NoError(t, err)
	x.bubble = &bubble{T: t, up: x.ups[0], cache: cache, ln: testnet.NewPipeListener(), logs: testnet.NewLogRecorder()}
	x.gw, err = gateway.New(append([]gateway.Option{
		gateway.WithLogger(x.logs.Logger()), gateway.WithCache(cache), gateway.WithService("a", "http://r0.test/base", append(all, opts...)...),
	}, defaults...)...)
	require.NoError(t, err)
	x.srv = &http.Server{Handler: http.StripPrefix("/api", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !x.quiet {
			e := x.gw.Explain(r)
			x.mu.Lock()
			x.last = e
			x.mu.Unlock()
		}
		x.gw.ServeHTTP(w, r)
	}))}
	x.srv.RegisterOnShutdown(x.gw.Drain)
	go func() { _ = x.srv.Serve(x.ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		assert.NoError(t, x.srv.Shutdown(ctx))
		assert.NoError(t, x.gw.Shutdown(ctx))
		assert.NoError(t, cache.Shutdown(ctx))
	})
	return x
}

// begun returns how many requests the replicas have had.
func (x *explained) begun() (n int) {
	synctest.Wait()
	for _, up := range x.ups {
		n += up.Begun()
	}
	return n
}

// said returns the explanation of the last request.
func (x *explained) said() gateway.Explanation {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.last
}

// The upstream of the table below.
type explainedPage struct {
	page
	hold chan struct{} // what is asked for /wait is answered once it is closed
}

func (p *explainedPage) script(c *testnet.Conn) {
	for {
		r := c.ReadRequest()
		if r == nil {
			return
		}
		switch {
		case r.Header["Upgrade"] != nil:
			c.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
			c.Wait()
			return
		case strings.HasSuffix(r.Target, "/wait"):
			<-p.hold
		}
		answer := p.answer(r)
		if answer == "" || !c.Send(answer) {
			return
		}
	}
}

func ofA(path string, fields ...string) string { return testnet.Get("/api/a"+path, fields...) }

// What Explain says of a request is what then happens to it.
func TestExplainSaysWhatHappens(t *testing.T) {
	const (
		sie = "Cache-Control: public, max-age=60, stale-if-error=600"
		swr = "Cache-Control: public, max-age=60, stale-while-revalidate=600"
	)
	get := func(path string, fields ...string) func(*explained, *explainedPage) {
		return func(x *explained, _ *explainedPage) { x.ask(ofA(path, fields...)) }
	}
	thenWait := func(f func(*explained, *explainedPage), seconds int) func(*explained, *explainedPage) {
		return func(x *explained, p *explainedPage) { f(x, p); time.Sleep(time.Duration(seconds) * time.Second) }
	}
	for _, tt := range []struct {
		what     string
		header   string // of the page; empty: a minute
		tag      string
		replicas int // zero: one
		opts     []gateway.ServiceOption
		before   func(*explained, *explainedPage)
		request  string // empty: a GET of /x
		verdict  gateway.Verdict
		status   int // of the answer
		says     int // the same, where the gateway knows it; zero: it is not
		reason   gateway.Reason
		asked    int      // requests that the replicas have because of it
		cached   string   // what Cache-Status begins with; "-": there is none
		text     []string // in the printed explanation
	}{
		{what: "nothing is stored", verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss", text: []string{"nothing is stored under the key", "key        ", "http://gateway.test/api/a/x\n"}},
		{what: "fresh", before: get("/x"), verdict: gateway.VerdictFresh, status: 200, says: 200, cached: "hit; ttl=60", text: []string{"fresh for 1m more", "by max-age"}},
		{what: "fresh for a moment", before: thenWait(get("/x"), 59), verdict: gateway.VerdictFresh, status: 200, says: 200, cached: "hit; ttl=1"},
		{what: "another query", before: get("/x"), request: ofA("/x?b"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss"},
		{what: "fresh, and the client has it", tag: `"v1"`, before: get("/x"), request: ofA("/x", `If-None-Match: "v1"`), verdict: gateway.VerdictFresh, status: 304, says: 304, cached: "hit; ttl=60"},
		{what: "a range of what is stored", before: get("/x"), request: ofA("/x", "Range: bytes=1-2"), verdict: gateway.VerdictFresh, status: 206, says: 206, cached: "hit; ttl=60"},
		{what: "two ranges of it", before: get("/x"), request: ofA("/x", "Range: bytes=0-0,2-2"), verdict: gateway.VerdictFresh, status: 206, says: 206, cached: "hit; ttl=60"},
		{what: "a range beyond it", before: get("/x"), request: ofA("/x", "Range: bytes=100-"), verdict: gateway.VerdictFresh, status: 416, says: 416, cached: "hit; ttl=60"},
		{what: "a range that makes no sense", before: get("/x"), request: ofA("/x", "Range: lines=1-"), verdict: gateway.VerdictFresh, status: 200, says: 200, cached: "hit; ttl=60"},
		{what: "a range of nothing stored", tag: `"v1"`, request: ofA("/x", "Range: bytes=1-2"), verdict: gateway.VerdictSend, status: 206, asked: 1, cached: "fwd=uri-miss"},
		{what: "a range of which a part is stored", tag: `"v1"`, before: get("/x", "Range: bytes=0-1"), request: ofA("/x", "Range: bytes=1-2"), verdict: gateway.VerdictSend, status: 206, asked: 1, cached: "fwd=partial", text: []string{"a part is stored"}},
		{what: "a range that is stored", tag: `"v1"`, before: get("/x", "Range: bytes=0-2"), request: ofA("/x", "Range: bytes=1-2"), verdict: gateway.VerdictFresh, status: 206, says: 206, cached: "hit; ttl=60"},
		{what: "all, of which a part is stored", tag: `"v1"`, before: get("/x", "Range: bytes=0-1"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=partial", text: []string{"the part that is missing"}},
		{what: "HEAD of what is stored", before: get("/x"), request: testnet.Build("HEAD", "/api/a/x", ""), verdict: gateway.VerdictFresh, status: 200, says: 200, cached: "hit; ttl=60"},
		{what: "HEAD of nothing stored", request: testnet.Build("HEAD", "/api/a/x", ""), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss; detail=method"},
		{what: "stale", before: thenWait(get("/x"), 60), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=stale", text: []string{"it is stale"}},
		{what: "stale, with a validator", tag: `"v1"`, before: thenWait(get("/x"), 61), verdict: gateway.VerdictRevalidate, status: 200, asked: 1, cached: "fwd=stale", text: []string{"stale for 1s", "ETag"}},
		{what: "stale while it is revalidated", header: swr, tag: `"v1"`, before: thenWait(get("/x"), 61), verdict: gateway.VerdictRefresh, status: 200, says: 200, asked: 1, cached: "hit; ttl=-1"},
		{what: "stale, which the client takes", before: thenWait(get("/x"), 61), request: ofA("/x", "Cache-Control: max-stale=5"), verdict: gateway.VerdictStale, status: 200, says: 200, cached: "hit; ttl=-1"},
		{what: "staler than it takes", before: thenWait(get("/x"), 67), request: ofA("/x", "Cache-Control: max-stale=5"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=stale", text: []string{"staler than the request takes"}},
		{what: "the request says no-cache", tag: `"v1"`, before: get("/x"), request: ofA("/x", "Cache-Control: no-cache"), verdict: gateway.VerdictRevalidate, status: 200, asked: 1, cached: "fwd=request", text: []string{"the request says no-cache"}},
		{what: "the response says no-cache", header: "Cache-Control: no-cache", tag: `"v1"`, before: get("/x"), verdict: gateway.VerdictRevalidate, status: 200, asked: 1, cached: "fwd=stale", text: []string{"the response says no-cache"}},
		{what: "expired by the operator", tag: `"v1"`, before: func(x *explained, p *explainedPage) { get("/x")(x, p); x.cache.Expire("a", "/x") }, verdict: gateway.VerdictRevalidate, status: 200, asked: 1, cached: "fwd=stale", text: []string{"until it was expired"}},
		{what: "stale, and the service is down", header: sie, tag: `"v1"`, before: func(x *explained, p *explainedPage) { thenWait(get("/x"), 61)(x, p); p.cut = true }, opts: []gateway.ServiceOption{gateway.WithoutRetries()}, verdict: gateway.VerdictRevalidate, status: 200, asked: 1, cached: "fwd=stale", text: []string{"stands in for errors"}},
		{what: "stale, and the rate limit refuses", header: sie, before: thenWait(get("/x"), 61), opts: []gateway.ServiceOption{gateway.WithRateLimit(0.01, 1)}, verdict: gateway.VerdictInstead, status: 200, says: 200, reason: gateway.ReasonRateLimited, cached: "fwd=stale; detail=stale-if-error"},
		{what: "another variant, without strong tag", header: minute + "\r\nVary: Accept", before: get("/x", "Accept: a/b"), request: ofA("/x", "Accept: c/d"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=vary-miss", text: []string{"(Vary)", "variants"}},
		{what: "another variant, with a strong tag", header: minute + "\r\nVary: Accept", tag: `"v1"`, before: get("/x", "Accept: a/b"), request: ofA("/x", "Accept: c/d"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=vary-miss"},
		{what: "the same variant", header: minute + "\r\nVary: Accept", before: get("/x", "Accept: a/b"), request: ofA("/x", "Accept: a/b"), verdict: gateway.VerdictFresh, status: 200, says: 200, cached: "hit; ttl=60", text: []string{"Vary Accept"}},
		{what: "no-store", header: "Cache-Control: no-store", before: get("/x"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss"},
		{what: "private", header: "Cache-Control: private, max-age=60", before: get("/x"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss"},
		{what: "the request says no-store", before: get("/x"), request: ofA("/x", "Cache-Control: no-store"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=request; detail=no-store", text: []string{"passes the cache by: no-store"}},
		{what: "the request has a precondition", before: get("/x"), request: ofA("/x", `If-Match: "v1"`), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=request; detail=conditional"},
		{what: "POST", before: get("/x"), request: testnet.Build("POST", "/api/a/x", "body"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=method; detail=method", text: []string{"only if the service cannot have seen it"}},
		{what: "Authorization", request: ofA("/x", "Authorization: Bearer x"), header: "Cache-Control: max-age=60", verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss; detail=authorization", text: []string{"not stored", "RFC 9111 §3.5"}},
		{what: "Cookie", request: ofA("/x", "Cookie: a=b"), header: "Cache-Control: max-age=60", verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss; detail=cookie", text: []string{"because the request has cookies"}},
		{what: "only-if-cached, and it is not", request: ofA("/x", "Cache-Control: only-if-cached"), verdict: gateway.VerdictRefuse, status: 504, says: 504, reason: gateway.ReasonNotCached, cached: "detail=only-if-cached"},
		{what: "only-if-cached, and it passes the cache by", before: get("/x"), request: ofA("/x", "Cache-Control: only-if-cached, no-store"), verdict: gateway.VerdictRefuse, status: 504, says: 504, reason: gateway.ReasonNotCached, cached: "detail=only-if-cached"},
		{what: "only-if-cached, and it is", before: get("/x"), request: ofA("/x", "Cache-Control: only-if-cached"), verdict: gateway.VerdictFresh, status: 200, says: 200, cached: "hit; ttl=60"},
		{what: "without Cache-Status", opts: []gateway.ServiceOption{gateway.WithoutCacheStatus()}, before: get("/x"), verdict: gateway.VerdictFresh, status: 200, says: 200, cached: "-"},
		{what: "without cache", opts: []gateway.ServiceOption{gateway.WithoutCache()}, verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "-"},
		{what: "the cache was shut down", before: func(x *explained, p *explainedPage) {
			get("/x")(x, p)
			assert.NoError(x, x.cache.Shutdown(x.Context()))
		}, verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "-", text: []string{"the cache is not asked: it was shut down"}},
		{what: "keyed by fields", opts: []gateway.ServiceOption{gateway.WithCacheKeyHeaders("X-Tenant"), gateway.WithCacheKeyCookies("lang"), gateway.WithCachePartition(func(r *http.Request) string { return r.Header.Get("X-P") })}, before: get("/x", "X-Tenant: one", "X-P: 1"), request: ofA("/x", "X-Tenant: one", "X-P: 2"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss", text: []string{"field X-Tenant, cookie lang, WithCachePartition"}},
		{what: "the partition panics", opts: []gateway.ServiceOption{gateway.WithCachePartition(func(*http.Request) string { panic("oh") })}, verdict: gateway.VerdictRefuse, status: 500, says: 500, reason: gateway.ReasonPanic, cached: "fwd=uri-miss"},

		{what: "the breaker is open", opts: []gateway.ServiceOption{gateway.WithBreaker(0.5, 2), gateway.WithBreakerTimes(time.Minute, time.Minute, 1), gateway.WithoutRetries()}, before: func(x *explained, p *explainedPage) { p.down = 500; get("/1")(x, p); get("/2")(x, p) }, verdict: gateway.VerdictRefuse, status: 503, says: 503, reason: gateway.ReasonBreakerOpen, cached: "fwd=uri-miss", text: []string{"the circuit breaker is open for 1m more", "open, for 1m more", "retry after"}},
		{what: "the breaker is due for a trial", opts: []gateway.ServiceOption{gateway.WithBreaker(0.5, 2), gateway.WithBreakerTimes(time.Minute, time.Minute, 1), gateway.WithoutRetries()}, before: thenWait(func(x *explained, p *explainedPage) { p.down = 500; get("/1")(x, p); get("/2")(x, p); p.down = 0 }, 61), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss", text: []string{"open, and due for a trial"}},
		{what: "the breaker is half-open", opts: []gateway.ServiceOption{gateway.WithBreaker(0.5, 2), gateway.WithBreakerTimes(time.Minute, time.Minute, 1), gateway.WithoutRetries(), gateway.WithTimeout(0)}, before: func(x *explained, p *explainedPage) {
			p.down = 500
			thenWait(func(x *explained, p *explainedPage) { get("/1")(x, p); get("/2")(x, p) }, 61)(x, p)
			x.aside(ofA("/wait"))
		}, verdict: gateway.VerdictRefuse, status: 503, says: 503, reason: gateway.ReasonBreakerOpen, cached: "fwd=uri-miss", text: []string{"half-open"}},
		{what: "the breaker is open, and something is stored", header: sie, opts: []gateway.ServiceOption{gateway.WithBreaker(0.5, 2), gateway.WithBreakerTimes(10*time.Minute, 10*time.Minute, 1), gateway.WithoutRetries()}, before: func(x *explained, p *explainedPage) {
			thenWait(get("/x"), 61)(x, p)
			p.down = 500
			get("/1")(x, p)
			get("/2")(x, p)
		}, verdict: gateway.VerdictInstead, status: 200, says: 200, reason: gateway.ReasonBreakerOpen, cached: "fwd=stale; detail=stale-if-error"},
		{what: "one replica of two is ejected", replicas: 2, opts: []gateway.ServiceOption{gateway.WithEjection(1, time.Minute, time.Minute), gateway.WithoutRetries(), gateway.WithoutBreaker(), gateway.WithBalancing(gateway.RoundRobin())}, before: func(x *explained, p *explainedPage) { p.down = 500; get("/1")(x, p); p.down = 0 }, verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss", text: []string{"out: ejected", "due in 1m", "the one that is chosen"}},
		{what: "one of two is due for its trial", replicas: 2, opts: []gateway.ServiceOption{gateway.WithEjection(1, time.Minute, time.Minute), gateway.WithoutRetries(), gateway.WithoutBreaker(), gateway.WithBalancing(gateway.RoundRobin())}, before: thenWait(func(x *explained, p *explainedPage) { p.down = 500; get("/1")(x, p); p.down = 0 }, 61), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss", text: []string{"due for its trial"}},
		{what: "all are ejected", replicas: 2, opts: []gateway.ServiceOption{gateway.WithEjection(1, time.Minute, time.Minute), gateway.WithEjectionShare(1), gateway.WithoutRetries(), gateway.WithoutBreaker()}, before: func(x *explained, p *explainedPage) {
			p.down = 500
			for i := range 10 {
				get(fmt.Sprint("/", i))(x, p)
			}
			p.down = 0
		}, verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss", text: []string{"all replicas may be chosen, fit or not"}},
		{what: "all are ejected, and that counts", replicas: 2, opts: []gateway.ServiceOption{gateway.WithEjection(1, time.Minute, time.Minute), gateway.WithEjectionShare(1), gateway.WithPanicThreshold(0), gateway.WithoutRetries(), gateway.WithoutBreaker()}, before: func(x *explained, p *explainedPage) {
			p.down = 500
			for i := range 10 {
				get(fmt.Sprint("/", i))(x, p)
			}
			p.down = 0
		}, verdict: gateway.VerdictRefuse, status: 503, says: 503, reason: gateway.ReasonNoReplica, cached: "fwd=uri-miss"},
		{what: "by the path", replicas: 2, opts: []gateway.ServiceOption{gateway.WithBalancing(gateway.HashPath())}, request: ofA("/some/path"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss", text: []string{"hash of the path", "the one that is chosen"}},
		{what: "by a field", replicas: 2, opts: []gateway.ServiceOption{gateway.WithBalancing(gateway.HashHeader("x-user"))}, request: ofA("/x", "X-User: 7"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss", text: []string{"hash of the field X-User", "the one that is chosen"}},
		{what: "by a cookie", replicas: 2, opts: []gateway.ServiceOption{gateway.WithBalancing(gateway.HashCookie("id"))}, request: ofA("/x", "Cookie: id=9"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss", text: []string{"hash of the cookie id", "the one that is chosen"}},
		{what: "by the client", replicas: 2, opts: []gateway.ServiceOption{gateway.WithBalancing(gateway.HashClient())}, verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss", text: []string{"hash of the client's address", "the one that is chosen"}},
		{what: "the pool is full", opts: []gateway.ServiceOption{gateway.WithMaxConns(1), gateway.WithTimeout(0), gateway.WithoutRetries()}, before: func(x *explained, _ *explainedPage) { x.aside(ofA("/wait")) }, verdict: gateway.VerdictSend, status: 503, asked: 0, cached: "fwd=uri-miss", text: []string{"none is free", "it waits for a connection"}},

		{what: "rate limited", opts: []gateway.ServiceOption{gateway.WithRateLimit(0.1, 1)}, before: get("/1"), verdict: gateway.VerdictRefuse, status: 429, says: 429, reason: gateway.ReasonRateLimited, cached: "fwd=uri-miss", text: []string{"0.1 a second", "retry after  10s\n"}},
		{what: "rate limited no more", opts: []gateway.ServiceOption{gateway.WithRateLimit(0.1, 1)}, before: thenWait(get("/1"), 10), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss"},
		{what: "rate limited, but fresh", opts: []gateway.ServiceOption{gateway.WithRateLimit(0.1, 1)}, before: get("/x"), verdict: gateway.VerdictFresh, status: 200, says: 200, cached: "hit; ttl=60"},
		{what: "all places are taken", opts: []gateway.ServiceOption{gateway.WithMaxConcurrency(1, 0, 0), gateway.WithTimeout(0)}, before: func(x *explained, _ *explainedPage) { x.aside(ofA("/wait")) }, verdict: gateway.VerdictRefuse, status: 503, says: 503, reason: gateway.ReasonOverloaded, cached: "fwd=uri-miss", text: []string{"0 free, room for 0 to wait"}},
		{what: "it waits for a place", opts: []gateway.ServiceOption{gateway.WithMaxConcurrency(1, 1, time.Second), gateway.WithTimeout(0)}, before: func(x *explained, _ *explainedPage) { x.aside(ofA("/wait")) }, verdict: gateway.VerdictSend, status: 503, cached: "fwd=uri-miss", text: []string{"it waits for a place first"}},
		{what: "collapsed", opts: []gateway.ServiceOption{gateway.WithTimeout(0)}, before: func(x *explained, p *explainedPage) {
			x.aside(ofA("/wait"))
			time.AfterFunc(time.Second, func() { close(p.hold) })
		}, request: ofA("/wait"), verdict: gateway.VerdictCollapse, status: 200, cached: "fwd=uri-miss; ", text: []string{"another request for the same is under way"}},
		{what: "not collapsed, for it was here", opts: []gateway.ServiceOption{gateway.WithTimeout(0)}, before: func(x *explained, p *explainedPage) {
			x.aside(ofA("/wait"))
			time.AfterFunc(time.Second, func() { close(p.hold) })
		}, request: ofA("/wait", "Via: 1.1 gateway"), verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss"},

		{what: "unknown service", request: testnet.Get("/api/nobody/x"), verdict: gateway.VerdictRefuse, status: 404, says: 404, reason: gateway.ReasonUnknownService, cached: "-", text: []string{`its first path segment, "nobody", is the name of no service` + "\n"}},
		{what: "a prefix that stayed", request: testnet.Get("/api/v1/a/x"), verdict: gateway.VerdictRefuse, status: 404, says: 404, reason: gateway.ReasonUnknownService, cached: "-", text: []string{`"v1"`, "http.StripPrefix"}},
		{what: "no service", request: testnet.Get("/api/"), verdict: gateway.VerdictRefuse, status: 404, says: 404, reason: gateway.ReasonUnknownService, cached: "-"},
		{what: "bad target", request: ofA("/%2e%2e/x"), verdict: gateway.VerdictRefuse, status: 400, says: 400, reason: gateway.ReasonBadRequest, cached: "-"},
		{what: "long target", request: ofA("/" + strings.Repeat("x", 9000)), verdict: gateway.VerdictRefuse, status: 414, says: 414, reason: gateway.ReasonTargetTooLong, cached: "-"},
		{what: "TRACE", request: testnet.Build("TRACE", "/api/a/x", ""), verdict: gateway.VerdictRefuse, status: 405, says: 405, reason: gateway.ReasonMethodNotAllowed, cached: "-"},
		{what: "unknown method", request: testnet.Build("BREW", "/api/a/x", ""), verdict: gateway.VerdictRefuse, status: 501, says: 501, reason: gateway.ReasonMethodNotImplemented, cached: "-"},
		{what: "large header", opts: []gateway.ServiceOption{gateway.WithMaxHeaderBytes(1024)}, request: ofA("/x", "X-Large: "+strings.Repeat("x", 2000)), verdict: gateway.VerdictRefuse, status: 431, says: 431, reason: gateway.ReasonHeaderTooLarge, cached: "-"},
		{what: "Max-Forwards", request: testnet.Build("OPTIONS", "/api/a/x", "", "Max-Forwards: 0"), verdict: gateway.VerdictFinal, status: 204, says: 204, cached: "-"},
		{what: "large body", opts: []gateway.ServiceOption{gateway.WithMaxBodyBytes(3)}, request: testnet.Build("PUT", "/api/a/x", "four"), verdict: gateway.VerdictRefuse, status: 413, says: 413, reason: gateway.ReasonBodyTooLarge, cached: "-"},
		{what: "a loop", request: ofA("/x", "Via: "+strings.TrimSuffix(strings.Repeat("1.1 gateway, ", 9), ", ")), verdict: gateway.VerdictRefuse, status: 508, says: 508, reason: gateway.ReasonLoop, cached: "-"},
		{what: "WebSocket", request: testnet.WebSocket("/api/a/ws"), verdict: gateway.VerdictSend, status: 101, asked: 1, cached: "-", text: []string{"the request is for a tunnel", "WithMaxTunnels"}},
		{what: "no tunnel is left", opts: []gateway.ServiceOption{gateway.WithMaxTunnels(0)}, request: testnet.WebSocket("/api/a/ws"), verdict: gateway.VerdictSend, status: 503, asked: 1, cached: "-", text: []string{"no more tunnels may be open"}},
		{what: "drained", before: func(x *explained, _ *explainedPage) { x.gw.Drain() }, verdict: gateway.VerdictSend, status: 200, asked: 1, cached: "fwd=uri-miss", text: []string{"the service drains"}},
		{what: "WebSocket, drained", before: func(x *explained, _ *explainedPage) { x.gw.Drain() }, request: testnet.WebSocket("/api/a/ws"), verdict: gateway.VerdictRefuse, status: 503, says: 503, reason: gateway.ReasonShuttingDown, cached: "-"},
		{what: "shut down", before: func(x *explained, p *explainedPage) { get("/x")(x, p); assert.NoError(x, x.gw.Shutdown(x.Context())) }, verdict: gateway.VerdictRefuse, status: 503, says: 503, reason: gateway.ReasonShuttingDown, cached: "-"},
		{what: "the service alone is shut down", before: func(x *explained, _ *explainedPage) { assert.NoError(x, x.gw.Upstream("a").Shutdown(x.Context())) }, verdict: gateway.VerdictRefuse, status: 503, says: 503, reason: gateway.ReasonShuttingDown, cached: "-"},
		{what: "removed", before: func(x *explained, p *explainedPage) {
			get("/x")(x, p)
			assert.NoError(x, x.gw.Update(gateway.WithLogger(x.logs.Logger()), gateway.WithService("b", "http://b.test")))
		}, verdict: gateway.VerdictRefuse, status: 404, says: 404, reason: gateway.ReasonUnknownService, cached: "-"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &explainedPage{page: page{tag: tt.tag, header: cmp.Or(tt.header, minute), body: "one two"}, hold: make(chan struct{})}
				x := newExplained(t, max(tt.replicas, 1), p.script, nil, nil, tt.opts...)
				t.Cleanup(func() {
					select {
					case <-p.hold:
					default:
						close(p.hold)
					}
				})
				if tt.before != nil {
					tt.before(x, p)
				}
				begun := x.begun()
				raw := cmp.Or(tt.request, ofA("/x"))
				method, _, _ := strings.Cut(raw, " ")
				c := x.dial()
				defer c.Close()
				c.Send(raw)
				resp := c.ReadHead(method)
				if resp.Status != 101 {
					restOf(resp)
				}
				e := x.said()
				text := e.String()
				asked := x.begun() - begun
				require.Equal(t, tt.status, resp.Status, text)
				assert.Equal(t, tt.asked, asked, text)
				assert.Equal(t, tt.verdict, e.Verdict, text)
				assert.Equal(t, tt.says, e.Status, text)
				assert.Equal(t, tt.reason, e.Reason, text)
				for _, part := range tt.text {
					assert.Contains(t, text, part)
				}
				x.agrees(&e, tt.cached, resp, asked > 0)
				if t.Failed() {
					t.Log(text)
				}
			})
		})
	}
}

// aside sends a request whose answer nobody waits for here.
func (x *explained) aside(raw string) {
	x.Helper()
	c := x.dial()
	x.Cleanup(c.Close)
	c.Send(raw)
	synctest.Wait()
}

// agrees holds what was said against the answer.
func (x *explained) agrees(e *gateway.Explanation, cached string, resp *testnet.Response, asked bool) {
	x.Helper()
	text := e.String()
	status := resp.Header.Get("Cache-Status")
	if cached == "-" {
		assert.Empty(x, status)
		assert.True(x, e.Cache == nil || e.Cache.Status == "", text)
	} else {
		assert.Truef(x, strings.HasPrefix(status, "gateway; "+cached), "%s begins with %s", status, cached)
		if assert.NotNil(x, e.Cache, text) {
			said, _, _ := strings.Cut(strings.TrimPrefix(e.Cache.Status, "gateway; "), "; ")
			assert.Truef(x, strings.HasPrefix(status, "gateway; "+said), "%s begins with %s", status, said)
			if strings.HasPrefix(said, "hit") {
				assert.Equal(x, status, e.Cache.Status)
			}
		}
	}
	if e.Reason != "" && e.Verdict == gateway.VerdictRefuse {
		var problem struct{ Reason gateway.Reason }
		if len(resp.Body) > 0 {
			require.NoError(x, json.Unmarshal(resp.Body, &problem), string(resp.Body))
			assert.Equal(x, e.Reason, problem.Reason)
		}
	}
	if e.RetryAfter > 0 && e.Verdict == gateway.VerdictRefuse {
		assert.Equal(x, fmt.Sprint(int64((e.RetryAfter+time.Second-1)/time.Second)), resp.Header.Get("Retry-After"))
	}
	if e.Verdict == gateway.VerdictRevalidate || e.Verdict == gateway.VerdictRefresh {
		last := x.ups[0].Journal()[len(x.ups[0].Journal())-1]
		assert.NotEmpty(x, last.Header["If-None-Match"], "it is asked on condition")
	}
	for i, r := range e.Replicas {
		if r.Chosen && asked {
			last := x.ups[i].Journal()[len(x.ups[i].Journal())-1]
			u, err := url.Parse(e.Target)
			require.NoError(x, err)
			assert.Equal(x, u.RequestURI(), last.Target, "the one that was chosen has had it")
		}
	}
}

// A thousand explanations of each of many requests leave all as it was: statistics,
// metrics, what is stored and in which order, replicas, breaker, limits.
func TestExplainChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		p := &explainedPage{page: page{tag: `"v1"`, header: minute, body: "one two"}}
		hook := func(name string) { t.Errorf("%s was called", name) }
		armed := false
		x := newExplained(t, 3, p.script, nil, opts(gateway.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))),
			gateway.WithRateLimit(1000, 1000), gateway.WithMaxConcurrency(4, 4, time.Second), gateway.WithBalancing(gateway.RoundRobin()),
			gateway.WithBreaker(0.5, 100), gateway.WithEjection(1, time.Minute, time.Minute), gateway.WithoutRetries(),
			gateway.WithRewrite(func(*http.Request) {
				if armed {
					hook("WithRewrite")
				}
			}),
			gateway.WithModifyResponse(func(*http.Response) error {
				if armed {
					hook("WithModifyResponse")
				}
				return nil
			}),
			gateway.WithTokenSource(func(context.Context) (string, error) {
				if armed {
					hook("WithTokenSource")
				}
				return tokenA, nil
			}),
		)
		x.quiet = true
		p.header = "Cache-Control: public, max-age=60, stale-while-revalidate=10"
		x.ask(ofA("/old"))
		time.Sleep(61 * time.Second)
		for n := range 4 {
			x.ask(ofA(fmt.Sprint("/", n)))
		}
		p.down = 500
		x.ask(ofA("/bad"))
		p.down = 0
		requests := []string{
			ofA("/old"), ofA("/1"), ofA("/none"), ofA("/1", "Range: bytes=0-1"), ofA("/none", "Range: bytes=0-1"), ofA("/1", "Cache-Control: no-cache"),
			testnet.Build("HEAD", "/api/a/1", ""), testnet.Build("POST", "/api/a/1", ""), testnet.WebSocket("/api/a/ws"), testnet.Get("/api/b/1"), ofA("/%2e%2e/"),
		}
		synctest.Wait()
		armed = true
		state := func() (string, metricdata.ResourceMetrics) {
			s := x.gw.Stats()
			s.Uptime, s.Over = 0, 0
			text, err := json.Marshal(s)
			require.NoError(t, err)
			var rm metricdata.ResourceMetrics
			require.NoError(t, reader.Collect(t.Context(), &rm))
			return string(text), rm
		}
		before, metrics := state()
		lines, begun := x.logs.Text(), x.begun()
		for _, raw := range requests {
			r := parsed(t, strings.Replace(raw, "/api", "", 1))
			r.RequestURI = "/api" + r.RequestURI
			r.Body = untouched{t}
			want := x.gw.Explain(r).String()
			for range 1000 {
				require.Equal(t, want, x.gw.Explain(r).String())
			}
		}
		after, metricsAfter := state()
		assert.JSONEq(t, before, after)
		metricdatatest.AssertEqual(t, metrics, metricsAfter, metricdatatest.IgnoreTimestamp())
		assert.Equal(t, lines, x.logs.Text())
		assert.Equal(t, begun, x.begun())
		armed = false
		order := ""
		for n := range 4 { // they go on taking turns, without the one that is ejected
			counts := [3]int{}
			for i, up := range x.ups {
				counts[i] = up.Begun()
			}
			x.ask(ofA(fmt.Sprint("/next/", n)))
			for i, up := range x.ups {
				if up.Begun() > counts[i] {
					order += fmt.Sprint(i)
				}
			}
		}
		assert.Contains(t, []string{"0101", "1010", "0202", "2020", "1212", "2121"}, order)
	})
}

// untouched is a content that nobody may look at.
type untouched struct{ *testing.T }

func (u untouched) Read([]byte) (int, error) { u.Error("the content is read"); return 0, io.EOF }
func (u untouched) Close() error             { u.Error("the content is closed"); return nil }

// What was asked for last goes last, and an explanation is no such asking.
func TestExplainLeavesTheOrderOfWhatIsStored(t *testing.T) {
	for _, explains := range []bool{true, false} {
		t.Run(fmt.Sprint(explains), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &explainedPage{page: page{header: minute, body: strings.Repeat("x", 20<<10)}}
				x := newExplained(t, 1, p.script, []gateway.CacheOption{gateway.WithMaxBytes(1 << 20)}, nil)
				x.quiet = true
				first := parsed(t, testnet.Get("/a/first"))
				first.RequestURI = "/api/a/first"
				x.ask(ofA("/first"))
				require.Equal(t, gateway.VerdictFresh, x.gw.Explain(first).Verdict)
				for n := 0; x.cache.Stats().Evictions == 0; n++ {
					require.Less(t, n, 1000)
					x.ask(ofA(fmt.Sprint("/", n)))
					if explains {
						x.gw.Explain(first)
					} else {
						x.ask(ofA("/first"))
					}
				}
				verdict := gateway.VerdictFresh
				if explains {
					verdict = gateway.VerdictSend
				}
				assert.Equal(t, verdict, x.gw.Explain(first).Verdict)
			})
		})
	}
}

// A trial is for requests: of a breaker and of an ejected replica it is still there.
func TestExplainTakesNoTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &explainedPage{page: page{header: minute, body: "one"}}
		x := newExplained(t, 2, p.script, nil, nil, gateway.WithBreaker(0.5, 2), gateway.WithBreakerTimes(time.Minute, time.Minute, 1), gateway.WithoutRetries(),
			gateway.WithEjection(1, time.Minute, time.Minute), gateway.WithRateLimit(0.1, 3), gateway.WithBalancing(gateway.RoundRobin()))
		x.quiet = true
		p.down = 500
		x.ask(ofA("/1"))
		x.ask(ofA("/2"))
		p.down = 0
		time.Sleep(61 * time.Second)
		r := parsed(t, testnet.Get("/a/3"))
		for range 1000 {
			require.Equal(t, gateway.VerdictSend, x.gw.Explain(r).Verdict)
		}
		assert.Equal(t, 200, x.ask(ofA("/3")).Status)
		x.ask(ofA("/4"))
		x.ask(ofA("/5"))
		require.Equal(t, gateway.VerdictRefuse, x.gw.Explain(r).Verdict)
		assert.Equal(t, 429, x.ask(ofA("/6")).Status)
	})
}

func TestExplainShowsNoSecret(t *testing.T) {
	const canary = "CANARY-4b1e77a0c3"
	synctest.Test(t, func(t *testing.T) {
		secret := func(n int) string { return fmt.Sprintf("%s-%d-%s", canary, n, strings.Repeat("z", 8)) }
		p := &explainedPage{page: page{header: minute + "\r\nVary: X-Api-Key\r\nSet-Cookie: s=" + secret(0), tag: `"` + secret(1) + `"`, body: secret(2)}}
		x := newExplained(t, 2, p.script, nil, nil,
			gateway.WithHeader("X-Secret", secret(3)), gateway.WithTokenSource(func(context.Context) (string, error) { return secret(4), nil }),
			gateway.WithCacheKeyHeaders("X-Tenant"), gateway.WithCacheKeyCookies("sid"), gateway.WithCacheCookies(),
			gateway.WithCachePartition(func(*http.Request) string { return secret(5) }), gateway.WithBalancing(gateway.HashHeader("X-Secret-User")))
		fields := []string{
			"Authorization: Bearer " + secret(6), "Cookie: sid=" + secret(7) + "; other=" + secret(8), "Proxy-Authorization: Basic " + secret(9),
			"X-Tenant: " + secret(10), "X-Api-Key: " + secret(11), "X-Secret-User: " + secret(12), "X-Request-Id: " + secret(13), `If-None-Match: "` + secret(14) + `"`,
		}
		query := "?a=1&sig=" + secret(15) + "&X-Amz-Signature=" + secret(16) + "&access_token=" + secret(17) + "&b;token=" + secret(18)
		for _, raw := range []string{ofA("/x"+query, fields...), ofA("/x"+query, fields...), ofA("/%2e%2e/"+query, fields...), testnet.Get("/api/nobody/x"+query, fields...), testnet.Build("POST", "/api/a/x"+query, "", fields...)} {
			x.ask(raw)
			e := x.said()
			shown, err := json.Marshal(e)
			require.NoError(t, err)
			testnet.Confined(t, canary, map[string]string{"text": e.String(), "JSON": string(shown)})
		}
		ok := x.gw.Explain(parsed(t, testnet.Get("/a/x?a=1&sig="+secret(15), fields...))).String()
		for _, name := range []string{"a=1", "sig=REDACTED", "sets Authorization", "sets X-Secret", "field X-Tenant", "cookie sid", "WithCachePartition", "hash of the field X-Secret-User"} {
			assert.Contains(t, ok, name)
		}
	})
}

func TestExplainBesideTraffic(t *testing.T) {
	p := &page{tag: `"v1"`, header: "Cache-Control: public, max-age=1, stale-while-revalidate=1", body: "one"}
	up := testnet.Upstream(t, p.script())
	cache, err := gateway.NewCache(gateway.WithMaxBytes(1 << 20))
	require.NoError(t, err)
	service := gateway.WithService("a", up.URL, gateway.WithReplicas(gateway.Replica{URL: strings.Replace(up.URL, "127.0.0.1", "localhost", 1)}), gateway.WithMaxConcurrency(4, 4, time.Second), gateway.WithRateLimit(1e6, 1e6))
	gw, err := gateway.New(gateway.WithCache(cache), gateway.WithLogger(testnet.NewLogRecorder().Logger()), service)
	require.NoError(t, err)
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for n := range 200 {
				path := fmt.Sprint("/a/", (worker+n)%5)
				r := parsed(t, testnet.Get(path))
				e := gw.Explain(r)
				assert.NotEmpty(t, e.String())
				assert.Equal(t, "a", e.Service)
				gw.ServeHTTP(&recorder{header: http.Header{}}, parsed(t, testnet.Get(path)))
				switch n % 50 {
				case 10:
					cache.Clear()
				case 20:
					assert.NoError(t, gw.Update(gateway.WithCache(cache), gateway.WithLogger(testnet.NewLogRecorder().Logger()), service))
				case 30:
					cache.Expire("a", "/1")
				}
			}
		})
	}
	all.Wait()
	require.NoError(t, gw.Shutdown(t.Context()))
	require.NoError(t, cache.Shutdown(t.Context()))
}

func TestExplainAnswersOddRequests(t *testing.T) {
	gw, err := gateway.New(gateway.WithService("a", "http://a.test", gateway.WithHeader("X-A", "1")), gateway.WithLogger(testnet.NewLogRecorder().Logger()))
	require.NoError(t, err)
	defer func() { require.NoError(t, gw.Shutdown(t.Context())) }()
	u := func(s string) *url.URL {
		u, err := url.Parse(s)
		require.NoError(t, err)
		return u
	}
	for _, tt := range []struct {
		what   string
		r      *http.Request
		status int // of the refusal; zero: it is sent
		target string
	}{
		{"nil", nil, 400, ""},
		{"empty", &http.Request{}, 400, ""},
		{"without method", &http.Request{URL: u("/a/x")}, 501, "http://a.test/x"},
		{"without header", &http.Request{Method: "GET", URL: u("/a/x")}, 0, "http://a.test/x"},
		{"opaque", &http.Request{Method: "GET", URL: u("mailto:a@b.test")}, 400, ""},
		{"asterisk", &http.Request{Method: "OPTIONS", RequestURI: "*", URL: &url.URL{Path: "*"}}, 400, ""},
		{"CONNECT", &http.Request{Method: "CONNECT", RequestURI: "a.test:80", URL: &url.URL{Host: "a.test:80"}}, 501, ""},
		{"bytes that no URL has", &http.Request{Method: "GET", URL: &url.URL{Path: "/a/\x00\n\xff"}}, 400, ""},
		{"a method of many lines", &http.Request{Method: "GET\r\nX: y", URL: u("/a/x")}, 501, "http://a.test/x"},
		{"as a client writes it", &http.Request{URL: u("https://app.test/api/v1/a/x?y=1")}, 0, "http://a.test/x?y=1"},
		{"as a client writes it, for nobody", &http.Request{URL: u("https://app.test/api/v1/x")}, 404, ""},
		{"a name of many lines", &http.Request{Method: "GET", URL: u("/a/x"), Host: "h\r\nh", Header: http.Header{"X\r\n": {"\r\n"}}}, 0, "http://a.test/x"},
		{"HTTP/2 upgrade", &http.Request{Method: "GET", ProtoMajor: 2, URL: u("/a/x"), Header: http.Header{"Upgrade": {"websocket"}, "Connection": {"upgrade"}}}, 0, "http://a.test/x"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			e := gw.Explain(tt.r)
			assert.Equal(t, tt.status, e.Status)
			assert.Equal(t, tt.status != 0, e.Verdict == gateway.VerdictRefuse)
			assert.Equal(t, tt.target, e.Target)
			assert.NotEmpty(t, e.Why)
			text := e.String()
			assert.NotContains(t, text, "\r")
			assert.True(t, strings.HasSuffix(text, "\n"))
			_, err := json.Marshal(e)
			assert.NoError(t, err)
		})
	}
}

// What a client writes is found under the key of what a server receives of it.
func TestExplainTakesTheURLsThatWarmTakes(t *testing.T) {
	up := testnet.Upstream(t, testnet.Reply(200, minute, "ok"))
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	gw, err := gateway.New(gateway.WithCache(cache), gateway.WithLogger(testnet.NewLogRecorder().Logger()), gateway.WithService("a", up.URL))
	require.NoError(t, err)
	const at = "https://app.test/api/a/x?y=1"
	for _, want := range []gateway.Verdict{gateway.VerdictSend, gateway.VerdictFresh} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, http.NoBody)
		require.NoError(t, err)
		e := gw.Explain(r)
		assert.Equal(t, want, e.Verdict, e.String())
		assert.Equal(t, at, e.Cache.Key)
		assert.Equal(t, "/api/a/{path...}", e.Route)
		gw.Warm(t.Context(), at)
	}
	require.NoError(t, gw.Shutdown(t.Context()))
	require.NoError(t, cache.Shutdown(t.Context()))
}
