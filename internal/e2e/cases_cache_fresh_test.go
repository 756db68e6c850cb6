package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// Row 115: no number or date makes a response immortal, or of a negative age
// (RFC 9111 §1.2.2, §4.2, §5.1, §5.3).
func numberCases() []attackCase {
	const never = ""
	day := func(d time.Duration) string {
		return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d).Format(http.TimeFormat) // when a bubble begins
	}
	const year = 365 * 24 * time.Hour
	var cases []attackCase
	for _, c := range []struct{ header, ttl, age string }{
		{"Cache-Control: max-age=99999999999999999999", "2147483648", "0"},
		{"Cache-Control: max-age=2147483649", "2147483648", "0"},
		{"Cache-Control: max-age=-1", never, ""},
		{"Cache-Control: max-age=abc", never, ""},
		{"Cache-Control: max-age=", never, ""},
		{"Cache-Control: max-age=1.5", never, ""},
		{"Cache-Control: max-age=60s", never, ""},
		{"Cache-Control: max-age=60, max-age=5", never, ""},
		{"Cache-Control: max-age=60\r\nCache-Control: max-age=abc", never, ""},
		{"Cache-Control: max-age=60\r\nAge: 10", "50", "10"},
		{"Cache-Control: max-age=60\r\nAge: -5", "60", "0"},
		{"Cache-Control: max-age=60\r\nAge: 1e30", "60", "0"},
		{"Cache-Control: max-age=60\r\nAge: 99999999999999999999", never, ""},
		{"Cache-Control: max-age=60\r\nAge: 60", never, ""},
		{"Cache-Control: max-age=60\r\nAge: 10\r\nAge: 20", "50", "10"},
		{"Cache-Control: max-age=60\r\nAge: 10, 20", "50", "10"},
		{"Cache-Control: max-age=60\r\nDate: " + day(year), "60", "0"},
		{"Cache-Control: max-age=60\r\nDate: " + day(-year), never, ""},
		{"Cache-Control: max-age=60\r\nDate: " + day(-10*time.Second), "50", "10"},
		{"Cache-Control: max-age=60\r\nDate: yesterday", "60", "0"},
		{"Cache-Control: max-age=60\r\nExpires: 0", "60", "0"},
		{"Expires: 0", never, ""},
		{"Expires: -1", never, ""},
		{"Expires: " + day(time.Minute), "60", "0"},
		{"Expires: " + day(-time.Minute), never, ""},
		{"Expires: " + day(100*year), "2147483648", "0"},
		{"Expires: " + day(time.Minute) + "\r\nDate: " + day(30*time.Second), "30", "0"},
		{"Expires: " + day(time.Minute) + "\r\nExpires: " + day(time.Hour), never, ""},
		{"Cache-Control: s-maxage=abc, max-age=60", never, ""},
		{"Last-Modified: " + day(-1000*time.Second), "100", "0"},
		{"Last-Modified: " + day(-50*year), "86400", "0"}, // at most a day
		{"Last-Modified: " + day(year), never, ""},
	} {
		cases = append(cases, bubbled(115, fmt.Sprintf("%q", c.header), func(t *testing.T) {
			b := newBubble(t, testnet.Reply(200, c.header, "ok"))
			first := b.get("/a/x")
			assert.Equal(t, 200, first.Status)
			resp := b.get("/a/x")
			if c.ttl == never {
				assert.NotContains(t, resp.Header.Get("Cache-Status"), "hit")
				return
			}
			assert.Equal(t, "gateway; hit; ttl="+c.ttl, resp.Header.Get("Cache-Status"))
			assert.Equal(t, []string{c.age}, resp.Header["Age"])
			assert.Len(t, b.up.Journal(), 1)
		}))
	}
	return cases
}

// Row 117: what a client says of the cache costs the upstream no more than the
// client's own request (RFC 9111 §5.2.1).
func requestControlCases() []attackCase {
	const flood = 500
	return []attackCase{
		{117, "only-if-cached", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, storable, "ok")})
			resp := r.get("/a/x", "Cache-Control: only-if-cached")
			assert.Equal(t, 504, resp.Status)
			assert.Contains(t, string(resp.Body), `"reason":"not_cached"`)
			assert.Equal(t, "gateway; detail=only-if-cached", resp.Header.Get("Cache-Status"), "it did not go forward (RFC 9211 §2.2)")
			for _, field := range []string{"Cache-Control: no-store", `If-Match: "v1"`, "Upgrade: h2c"} { // which pass the cache by
				assert.Equal(t, 504, r.get("/a/x", "Cache-Control: only-if-cached", field).Status, field)
			}
			assert.Zero(t, r.a.Begun())
			r.stored(testnet.Get("/a/x"))
			assert.Equal(t, 200, r.get("/a/x", "Cache-Control: only-if-cached").Status)
		}},
		{117, "no-store", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, storable, "ok")})
			for range 2 {
				assert.Equal(t, "gateway; fwd=request; detail=no-store", r.get("/a/x", "Cache-Control: no-store").Header.Get("Cache-Status"))
			}
			assert.Zero(t, r.cache.Stats().Entries)
			assert.Len(t, r.a.Await(2), 2)
		}},
		bubbled(117, "no-cache from many at once", func(t *testing.T) {
			b := newBubble(t, slowly(time.Second, testnet.Answer(200, storable, "ok")))
			b.get("/a/x")
			all := b.crowd(flood, testnet.Get("/a/x", "Cache-Control: no-cache"))
			for status, n := range all.statuses {
				assert.Contains(t, []string{"200 gateway; fwd=request; stored", "200 gateway; fwd=request; collapsed"}, status)
				assert.Positive(t, n)
			}
			assert.Equal(t, 2, b.up.Begun())
			lasted(t, time.Second, all.took)
		}),
		bubbled(117, "no-cache from many, without a say", func(t *testing.T) {
			b := newBubble(t, testnet.Reply(200, storable, "ok"), gateway.WithoutClientCacheControl())
			b.get("/a/x")
			for _, control := range []string{"Cache-Control: no-cache", "Cache-Control: max-age=0", "Pragma: no-cache", "Cache-Control: no-store", "Cache-Control: min-fresh=99"} {
				assert.Equal(t, "gateway; hit; ttl=60", b.get("/a/x", control).Header.Get("Cache-Status"), control)
			}
			assert.Equal(t, "gateway; fwd=uri-miss; stored", b.get("/a/y", "Cache-Control: only-if-cached").Header.Get("Cache-Status"))
			assert.Equal(t, 2, b.up.Begun())
		}),
	}
}

// Row 119: whoever must not learn what others asked for can be kept from it
// (RFC 9111 §7.2).
func oracleCases() []attackCase {
	tenant := gateway.WithCachePartition(func(r *http.Request) string { return r.Header.Get("X-Tenant") })
	return []attackCase{
		{119, "Cache-Status and Age are kept back", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, storable, "ok"), defaults: []gateway.Option{gateway.WithoutCacheStatus()}})
			first, second := r.get("/a/x"), r.get("/a/x")
			first.Header.Del("X-Request-Id")
			second.Header.Del("X-Request-Id")
			assert.Equal(t, first.Header, second.Header, "nothing tells them apart")
			assert.Empty(t, first.Header["Cache-Status"])
			assert.Empty(t, second.Header["Age"])
			assert.Len(t, r.a.Await(1), 1)
		}},
		{119, "tenants share nothing", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, storable, "ok"), defaults: []gateway.Option{tenant}})
			for _, name := range []string{"one", "other", ""} {
				r.stored(testnet.Get("/a/x", "X-Tenant: "+name))
			}
			assert.EqualValues(t, 3, r.cache.Stats().Entries)
			assert.Equal(t, 200, r.do(testnet.Build("POST", "/a/x", "body", "X-Tenant: one")).Status)
			assert.EqualValues(t, 2, r.cache.Stats().Entries, "nor do they invalidate each other's")
			assert.Equal(t, 2, r.cache.Purge("a", "/x"), "the operator means all")
		}},
		bubbled(119, "tenants do not wait for each other", func(t *testing.T) {
			b := newBubble(t, slowly(time.Second, testnet.Answer(200, storable, "ok")), tenant)
			var requests []string
			for n := range 20 {
				requests = append(requests, testnet.Get("/a/x", fmt.Sprintf("X-Tenant: %d", n%2)))
			}
			all := b.crowdOf(requests)
			assert.Equal(t, map[string]int{"200 gateway; fwd=uri-miss; stored": 2, "200 gateway; fwd=uri-miss; collapsed": 18}, all.statuses)
			assert.Equal(t, 2, b.up.Begun())
		}),
	}
}

// slowly answers each request after a while.
func slowly(after time.Duration, answer string) func(*testnet.Conn) {
	return func(c *testnet.Conn) {
		for c.ReadRequest() != nil && c.Pause(after) && c.Send(answer) {
		}
	}
}

// crowd is what became of many requests that were made at once.
type crowd struct {
	statuses map[string]int // status and Cache-Status
	bodies   map[string]int
	took     time.Duration
}

// crowd has the gateway of a bubble handle n such requests at once, without a
// server.
func (b *bubble) crowd(n int, raw string) crowd {
	b.Helper()
	requests := make([]string, n)
	for i := range requests {
		requests[i] = raw
	}
	return b.crowdOf(requests)
}

func (b *bubble) crowdOf(requests []string) crowd {
	b.Helper()
	return crowdAt(b, b.gw, requests)
}

func crowdAt(t testing.TB, h http.Handler, requests []string) crowd {
	t.Helper()
	var all sync.WaitGroup
	began, got := time.Now(), make([]*recorder, len(requests))
	for i, raw := range requests {
		req := parsed(t, raw)
		got[i] = &recorder{header: http.Header{}}
		all.Go(func() { h.ServeHTTP(got[i], req) })
	}
	all.Wait()
	out := crowd{statuses: map[string]int{}, bodies: map[string]int{}, took: time.Since(began)}
	for _, w := range got {
		out.statuses[strings.TrimSpace(fmt.Sprintf("%d %s", w.status, w.header.Get("Cache-Status")))]++
		out.bodies[w.body.String()]++
	}
	return out
}

// parsed is a request without a content, as a server would read it.
func parsed(t testing.TB, raw string) *http.Request {
	t.Helper()
	line, _, _ := strings.Cut(raw, "\r\n")
	parts := strings.Split(line, " ")
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), parts[0], "http://gateway.test"+parts[1], nil)
	if err != nil {
		t.Fatal(err)
	}
	req.RequestURI, req.RemoteAddr = parts[1], "192.0.2.1:1234"
	for _, line := range strings.Split(raw, "\r\n")[1:] {
		if name, value, ok := strings.Cut(line, ": "); ok && name != "Host" {
			req.Header.Add(name, value)
		}
	}
	return req
}
