package e2e_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

func TestStaleIsServedWhileItIsRevalidated(t *testing.T) {
	for _, tt := range []struct {
		what, header string
		opts         []gateway.Option
	}{
		{"the response says so", "Cache-Control: public, max-age=60, stale-while-revalidate=30", nil},
		{"the operator says so", minute, []gateway.Option{gateway.WithStaleWhileRevalidate(30 * time.Second)}},
		{"the response goes before the operator", "Cache-Control: public, max-age=60, stale-while-revalidate=30", []gateway.Option{gateway.WithStaleWhileRevalidate(time.Hour)}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &page{tag: `"v1"`, header: tt.header, body: "one"}
				b := newBubble(t, testnet.Respond(func(r *testnet.Request) string { time.Sleep(time.Second); return p.answer(r) }), tt.opts...)
				b.walk(step{body: "one", cache: "fwd=uri-miss; stored", asked: 1})
				p.tag, p.body = `"v2"`, "two"
				time.Sleep(60 * time.Second)
				all := b.crowd(many()/10, testnet.Get("/a/x"))
				assert.Zero(t, all.took, "nobody waits")
				assert.Equal(t, map[string]int{"one": many() / 10}, all.bodies)
				for status := range all.statuses {
					assert.Equal(t, "200 gateway; hit; ttl=-1", status)
				}
				time.Sleep(2 * time.Second)
				assert.Equal(t, 2, b.up.Begun(), "one revalidation")
				assert.Equal(t, `"v1"`, field(b.asked(), "If-None-Match"))
				b.walk(
					step{body: "two", cache: "hit; ttl=58", asked: 2},
					step{wait: 57 * time.Second, body: "two", cache: "hit; ttl=1", asked: 2},
					step{wait: 32 * time.Second, body: "two", cache: "fwd=stale; fwd-status=304; stored", asked: 3}, // too late: it waits
				)
			})
		})
	}
}

func TestRevalidationDoesWithoutItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, header: "Cache-Control: public, max-age=1, stale-while-revalidate=600", body: "one"}
		b := newBubble(t, testnet.Respond(func(r *testnet.Request) string { time.Sleep(time.Second); return p.answer(r) }))
		b.get("/a/x")
		p.tag, p.body = `"v2"`, "two"
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		w := &recorder{header: http.Header{}}
		b.gw.ServeHTTP(w, parsed(b, testnet.Get("/a/x", `If-None-Match: "v1"`, "Range: bytes=0-0", "Cache-Control: max-stale=5")).WithContext(ctx))
		cancel()
		assert.Equal(t, 304, w.status)
		time.Sleep(1500 * time.Millisecond)
		for _, name := range []string{"Range", "Cache-Control", "If-Modified-Since"} {
			assert.Empty(t, b.asked().Header[name], name)
		}
		assert.Equal(t, `"v1"`, field(b.asked(), "If-None-Match"), "the cache's own")
		b.walk(step{body: "two", cache: "hit; ttl=0", asked: 2})
	})
}

func TestUnansweredRevalidationIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, header: "Cache-Control: public, max-age=60, stale-while-revalidate=600", body: "one"}
		b := newBubble(t, p.script(), gateway.WithoutRetries())
		b.get("/a/x")
		for n, trouble := range []func(){func() { p.down = 503 }, func() { p.down = 0; p.cut = true }, func() { p.cut = false; p.down = 404 }} {
			trouble()
			b.walk(step{wait: 61 * time.Second, body: "one", cache: fmt.Sprintf("hit; ttl=%d", -1-61*n), asked: n + 2})
		}
		p.down = 0
		b.walk(
			step{body: "one", cache: "fwd=uri-miss; stored", asked: 5}, // a 404 says that it is gone
		)
	})
}

func TestStaleStandsInForErrors(t *testing.T) {
	const stands = "fwd=stale; detail=stale-if-error"
	down := func(status int) func(*page) { return func(p *page) { p.down = status } }
	cut := func(p *page) { p.cut = true }
	const sie = "Cache-Control: public, max-age=60, stale-if-error=100"
	for _, tt := range []struct {
		what, header string
		trouble      func(*page)
		wait         int // seconds
		opts         []gateway.Option
		want         string // empty: the error is the answer
		request      string
	}{
		{what: "500 within stale-if-error", header: sie, trouble: down(500), wait: 160, want: "fwd=stale; fwd-status=500; detail=stale-if-error"},
		{what: "502 within stale-if-error", header: sie, trouble: down(502), wait: 160, want: "fwd=stale; fwd-status=502; detail=stale-if-error"},
		{what: "503 within stale-if-error", header: sie, trouble: down(503), wait: 160, want: "fwd=stale; fwd-status=503; detail=stale-if-error"},
		{what: "504 within stale-if-error", header: sie, trouble: down(504), wait: 160, want: "fwd=stale; fwd-status=504; detail=stale-if-error"},
		{what: "503 after stale-if-error", header: sie, trouble: down(503), wait: 161},
		{what: "501 is the answer", header: sie, trouble: down(501), wait: 61},
		{what: "404 is the answer", header: sie, trouble: down(404), wait: 61},
		{what: "503 by WithStaleIfError", header: minute, trouble: down(503), wait: 160, opts: opts(gateway.WithStaleIfError(100 * time.Second)), want: "fwd=stale; fwd-status=503; detail=stale-if-error"},
		{what: "503 after WithStaleIfError", header: minute, trouble: down(503), wait: 161, opts: opts(gateway.WithStaleIfError(100 * time.Second))},
		{what: "503 without a say", header: minute, trouble: down(503), wait: 61},
		{what: "503, and the client takes stale", header: minute, trouble: down(503), wait: 61, request: "Cache-Control: stale-if-error=100", want: "fwd=stale; fwd-status=503; detail=stale-if-error"},
		{what: "503, must-revalidate", header: sie + ", must-revalidate", trouble: down(503), wait: 61},
		{what: "unreachable within a day", header: minute, trouble: cut, wait: 60 + 24*3600, want: stands},
		{what: "unreachable after a day", header: minute, trouble: cut, wait: 61 + 24*3600},
		{what: "unreachable within WithMaxStale", header: minute, trouble: cut, wait: 70, opts: opts(gateway.WithMaxStale(10 * time.Second)), want: stands},
		{what: "unreachable after WithMaxStale", header: minute, trouble: cut, wait: 71, opts: opts(gateway.WithMaxStale(10 * time.Second))},
		{what: "unreachable, none is served stale", header: minute, trouble: cut, wait: 61, opts: opts(gateway.WithMaxStale(0))},
		{what: "unreachable after stale-if-error", header: sie, trouble: cut, wait: 161},
		{what: "WithMaxStale bounds stale-if-error", header: sie, trouble: down(503), wait: 71, opts: opts(gateway.WithMaxStale(10 * time.Second))},
		{what: "unreachable, must-revalidate", header: minute + ", must-revalidate", trouble: cut, wait: 61},
		{what: "unreachable, proxy-revalidate", header: minute + ", proxy-revalidate", trouble: cut, wait: 61},
		{what: "unreachable, s-maxage", header: "Cache-Control: s-maxage=60", trouble: cut, wait: 61},
		{what: "unreachable, no-cache", header: "Cache-Control: public, no-cache", trouble: cut, wait: 1},
		{what: "unreachable, and the client takes none", header: minute, trouble: cut, wait: 61, request: "Cache-Control: max-age=5"},
		{what: "unreachable, and the client wants another", header: minute, trouble: cut, wait: 10, request: "Cache-Control: no-cache"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &page{tag: `"v1"`, header: tt.header, body: "one"}
				b := newBubble(t, p.script(), append(tt.opts, gateway.WithoutRetries())...)
				b.walk(step{body: "one", cache: "fwd=uri-miss; stored", asked: 1})
				tt.trouble(p)
				time.Sleep(time.Duration(tt.wait) * time.Second)
				resp := b.get("/a/x", cmp.Or(tt.request, "Accept: */*"))
				assert.Equal(t, 2, b.up.Begun())
				if tt.want == "" {
					assert.GreaterOrEqual(t, resp.Status, 400)
					assert.NotContains(t, resp.Header.Get("Cache-Status"), "stale-if-error")
					return
				}
				assert.Equal(t, 200, resp.Status)
				assert.Equal(t, "one", string(resp.Body))
				assert.Equal(t, "gateway; "+tt.want, resp.Header.Get("Cache-Status"))
				assert.Equal(t, fmt.Sprint(tt.wait), resp.Header.Get("Age"))
				p.down, p.cut = 0, false
				b.walk(step{body: "one", cache: "fwd=stale; fwd-status=304; stored", asked: 3}) // it is back
			})
		})
	}
}

func opts(list ...gateway.Option) []gateway.Option { return list }

func TestStaleStandsInForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, header: minute, body: "one"}
		b := newBubble(t, testnet.Respond(func(r *testnet.Request) string { time.Sleep(time.Second); return p.answer(r) }), gateway.WithoutRetries())
		b.get("/a/x")
		time.Sleep(61 * time.Second)
		p.cut = true
		all := b.crowd(100, testnet.Get("/a/x"))
		assert.Equal(t, map[string]int{"200 gateway; fwd=stale; detail=stale-if-error": 100}, all.statuses)
		assert.Equal(t, map[string]int{"one": 100}, all.bodies)
		assert.Equal(t, 2, b.up.Begun())
	})
}

func TestStaleStandsInWhileTheBreakerIsOpen(t *testing.T) {
	var down atomic.Bool
	r := newRig(t, setup{
		a: []gateway.ServiceOption{gateway.WithBreaker(0.5, 5), gateway.WithoutRetries()},
		script: testnet.Respond(func(*testnet.Request) string {
			if down.Load() {
				return ""
			}
			return testnet.Answer(200, "Cache-Control: public, max-age=0\r\nETag: \"v1\"", "ok")
		}),
	})
	require.Equal(t, 200, r.get("/a/x").Status)
	down.Store(true)
	for range 6 {
		r.get("/a/other")
	}
	asked := r.a.Begun()
	assert.Equal(t, 503, r.get("/a/other").Status)
	resp := r.get("/a/x")
	assert.Equal(t, 200, resp.Status)
	assert.Equal(t, "ok", string(resp.Body))
	assert.Equal(t, "gateway; fwd=stale; detail=stale-if-error", resp.Header.Get("Cache-Status"))
	assert.Equal(t, asked, r.a.Begun(), "nothing is asked while the breaker is open")
}

func TestHeadIsAnsweredStaleToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, header: minute, body: "one"}
		b := newBubble(t, p.script(), gateway.WithoutRetries())
		b.get("/a/x")
		p.cut = true
		b.walk(step{wait: 61 * time.Second, request: testnet.Build("HEAD", "/a/x", ""), cache: "fwd=stale; detail=stale-if-error", asked: 2})
	})
}

func TestStaleIsCountedAmongTheHits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		b := newBubble(t, testnet.Respond(func(*testnet.Request) string {
			n.Add(1)
			return testnet.Answer(200, "Cache-Control: public, max-age=1, stale-while-revalidate=60", "ok")
		}))
		b.get("/a/x")
		time.Sleep(2 * time.Second)
		require.Equal(t, "gateway; hit; ttl=-1", b.get("/a/x").Header.Get("Cache-Status"))
		time.Sleep(time.Second)
		s := b.cache.Stats()
		assert.EqualValues(t, 1, s.Hits)
		assert.EqualValues(t, 1, s.Misses)
		assert.EqualValues(t, 2, n.Load())
	})
}

func TestClientsTakeStaleResponses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Reply(200, minute, "ok"))
		b.get("/a/x")
		time.Sleep(70 * time.Second)
		assert.Equal(t, "gateway; hit; ttl=-10", b.get("/a/x", "Cache-Control: max-stale=10").Header.Get("Cache-Status"))
		assert.Equal(t, "gateway; hit; ttl=-10", b.get("/a/x", "Cache-Control: max-stale").Header.Get("Cache-Status"))
		assert.Equal(t, "gateway; fwd=stale; stored", b.get("/a/x", "Cache-Control: max-stale=9").Header.Get("Cache-Status"))
	})
}
