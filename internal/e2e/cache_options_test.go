package e2e_test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// TestCachingOptions observes each option that has no test of its own.
func TestCachingOptions(t *testing.T) {
	get := testnet.Get
	for _, tt := range []struct {
		what   string
		opts   []gateway.Option
		header string
		status int // zero: 200
		steps  []step
	}{
		{what: "WithDefaultTTL", opts: opts(gateway.WithDefaultTTL(30 * time.Second)), header: "X: y", steps: []step{
			{cache: "fwd=uri-miss; stored", asked: 1}, {wait: 29 * time.Second, cache: "hit; ttl=1", asked: 1}, {wait: 2 * time.Second, cache: "fwd=stale; stored", asked: 2},
		}},
		{what: "WithDefaultTTL does not overrule", opts: opts(gateway.WithDefaultTTL(30 * time.Second)), header: minute, steps: []step{
			{cache: "fwd=uri-miss; stored", asked: 1}, {cache: "hit; ttl=60", asked: 1},
		}},
		{what: "WithDefaultTTL is none for errors", opts: opts(gateway.WithDefaultTTL(30 * time.Second)), header: "X: y", status: 404, steps: []step{
			{cache: "fwd=uri-miss; detail=no-freshness", asked: 1}, {cache: "fwd=uri-miss; detail=no-freshness", asked: 2},
		}},
		{what: "WithDefaultTTL and no-store", opts: opts(gateway.WithDefaultTTL(30 * time.Second)), header: "Cache-Control: no-store", steps: []step{
			{cache: "fwd=uri-miss; detail=no-store", asked: 1},
		}},
		{what: "WithNegativeTTL", opts: opts(gateway.WithNegativeTTL(5 * time.Second)), header: "X: y", status: 404, steps: []step{
			{cache: "fwd=uri-miss; stored", asked: 1}, {wait: 4 * time.Second, cache: "hit; ttl=1", asked: 1}, {wait: 2 * time.Second, cache: "fwd=stale; stored", asked: 2},
		}},
		{what: "WithNegativeTTL does not overrule", opts: opts(gateway.WithNegativeTTL(5 * time.Second)), header: minute, status: 404, steps: []step{
			{cache: "fwd=uri-miss; stored", asked: 1}, {cache: "hit; ttl=60", asked: 1},
		}},
		{what: "WithNegativeTTL is none for others", opts: opts(gateway.WithNegativeTTL(5 * time.Second)), header: "X: y", steps: []step{
			{cache: "fwd=uri-miss; detail=no-freshness", asked: 1},
		}},
		{what: "CDN-Cache-Control", header: "Cache-Control: no-store\r\nExpires: 0\r\nCDN-Cache-Control: max-age=60", steps: []step{
			{cache: "fwd=uri-miss; stored", asked: 1}, {cache: "hit; ttl=60", asked: 1},
		}},
		{what: "CDN-Cache-Control forbids", header: minute + "\r\nCDN-Cache-Control: no-store", steps: []step{
			{cache: "fwd=uri-miss; detail=no-store", asked: 1},
		}},
		{what: "malformed CDN-Cache-Control", header: minute + "\r\nCDN-Cache-Control: no-store, =", steps: []step{
			{cache: "fwd=uri-miss; stored", asked: 1}, {cache: "hit; ttl=60", asked: 1},
		}},
		{what: "empty CDN-Cache-Control", header: minute + "\r\nCDN-Cache-Control:", steps: []step{
			{cache: "fwd=uri-miss; stored", asked: 1}, {cache: "hit; ttl=60", asked: 1},
		}},
		{what: "WithTargetedCacheControl", opts: opts(gateway.WithTargetedCacheControl("my-cache-control", "Other-Cache-Control")),
			header: minute + "\r\nCDN-Cache-Control: no-store\r\nOther-Cache-Control: max-age=5\r\nMy-Cache-Control: max-age=7", steps: []step{
				{cache: "fwd=uri-miss; stored", asked: 1}, {cache: "hit; ttl=7", asked: 1},
			}},
		{what: "WithTargetedCacheControl, the second", opts: opts(gateway.WithTargetedCacheControl("My-Cache-Control", "Other-Cache-Control")),
			header: minute + "\r\nOther-Cache-Control: max-age=5", steps: []step{
				{cache: "fwd=uri-miss; stored", asked: 1}, {cache: "hit; ttl=5", asked: 1},
			}},
		{what: "WithTargetedCacheControl, none", opts: opts(gateway.WithTargetedCacheControl()), header: minute + "\r\nCDN-Cache-Control: no-store", steps: []step{
			{cache: "fwd=uri-miss; stored", asked: 1}, {cache: "hit; ttl=60", asked: 1},
		}},
		{what: "WithCacheStatusKey", opts: opts(gateway.WithCacheStatusKey(), gateway.WithIgnoredQuery("utm")), header: minute, steps: []step{
			{request: get("/a/x?b=1&utm=2"), cache: `fwd=uri-miss; stored; key="/x?b=1"`, asked: 1},
			{request: get("/a/x?b=1"), cache: `hit; ttl=60; key="/x?b=1"`, asked: 1},
			{request: get("/a/y"), cache: `fwd=uri-miss; stored; key="/y"`, asked: 2},
		}},
		{what: "WithIgnoredQuery", opts: opts(gateway.WithIgnoredQuery("utm"), gateway.WithIgnoredQuery("fb id")), header: minute, steps: []step{
			{request: get("/a/x?a=1&utm=1"), cache: "fwd=uri-miss; stored", asked: 1},
			{request: get("/a/x?utm=2&a=1"), cache: "hit; ttl=60", asked: 1},
			{request: get("/a/x?a=1"), cache: "hit; ttl=60", asked: 1},
			{request: get("/a/x?a=1&fb+id=3&%75tm"), cache: "hit; ttl=60", asked: 1},
			{request: get("/a/x?a=1&UTM=1"), cache: "fwd=uri-miss; stored", asked: 2},
			{request: get("/a/x?a=2&utm=1"), cache: "fwd=uri-miss; stored", asked: 3},
			{request: get("/a/x?utm=1"), cache: "fwd=uri-miss; stored", asked: 4},
			{request: get("/a/x"), cache: "hit; ttl=60", asked: 4},
		}},
		{what: "WithSortedQuery", opts: opts(gateway.WithSortedQuery()), header: minute, steps: []step{
			{request: get("/a/x?a=1&b=2"), cache: "fwd=uri-miss; stored", asked: 1},
			{request: get("/a/x?b=2&a=1"), cache: "hit; ttl=60", asked: 1},
			{request: get("/a/x?a=1&a=2"), cache: "fwd=uri-miss; stored", asked: 2},
			{request: get("/a/x?a=2&a=1"), cache: "fwd=uri-miss; stored", asked: 3},
		}},
		{what: "without WithSortedQuery", header: minute, steps: []step{
			{request: get("/a/x?a=1&b=2"), cache: "fwd=uri-miss; stored", asked: 1},
			{request: get("/a/x?b=2&a=1"), cache: "fwd=uri-miss; stored", asked: 2},
		}},
		{what: "WithCacheKeyHeaders", opts: opts(gateway.WithCacheKeyHeaders("x-a"), gateway.WithCacheKeyHeaders("X-B")), header: minute, steps: []step{
			{request: get("/a/x", "X-A: 1"), cache: "fwd=uri-miss; stored", asked: 1},
			{request: get("/a/x", "X-A: 1", "X-C: 2"), cache: "hit; ttl=60", asked: 1},
			{request: get("/a/x", "X-B: 1"), cache: "fwd=uri-miss; stored", asked: 2},
			{request: get("/a/x"), cache: "fwd=uri-miss; stored", asked: 3},
			{request: get("/a/x", "X-A: 2", "X_A: 3"), cache: "fwd=uri-miss; detail=vary", asked: 4},               // which some servers take for X-A
			{request: get("/a/x", "X-A: 4", "Connection: X-A"), cache: "fwd=request; detail=connection", asked: 5}, // the service does not receive X-A
			{request: get("/a/x", "X-A: 4"), cache: "fwd=uri-miss; stored", asked: 6},
			{request: get("/a/x", "X-A: 4", "Connection: keep-alive, X-C"), cache: "hit; ttl=60", asked: 6},
		}},
		{what: "WithoutClientCacheControl", opts: opts(gateway.WithoutClientCacheControl()), header: minute, steps: []step{
			{request: get("/a/x", "Cache-Control: no-store"), cache: "fwd=uri-miss; stored", asked: 1}, {cache: "hit; ttl=60", asked: 1},
		}},
		{what: "WithCacheKeyCookies", opts: opts(gateway.WithCacheKeyCookies("lang"), gateway.WithCacheCookies()), header: minute, steps: []step{
			{request: get("/a/x", "Cookie: lang=de; id=1"), cache: "fwd=uri-miss; stored", asked: 1},
			{request: get("/a/x", "Cookie: id=2; lang=de"), cache: "hit; ttl=60", asked: 1},
			{request: get("/a/x", "Cookie: lang=en"), cache: "fwd=uri-miss; stored", asked: 2},
			{request: get("/a/x", "Cookie: lang="), cache: "fwd=uri-miss; stored", asked: 3},
			{request: get("/a/x"), cache: "fwd=uri-miss; stored", asked: 4},
			{request: get("/a/x", "Cookie: id=3"), cache: "hit; ttl=60", asked: 4},
			{request: get("/a/x", "Cookie: lang=de; lang=en"), cache: "fwd=uri-miss; stored", asked: 5}, // of which some servers take the second
			{request: get("/a/x", "Cookie: lang=\"fr"), cache: "fwd=uri-miss; stored", asked: 6},        // which to net/http is none
			{request: get("/a/x", "Cookie: lang=fr", "Connection: Cookie"), cache: "fwd=request; detail=connection", asked: 7},
			{request: get("/a/x", "Cookie: lang=fr"), cache: "fwd=uri-miss; stored", asked: 8},
		}},
		{what: "WithCachePartition", opts: opts(gateway.WithCachePartition(func(r *http.Request) string { return r.Header.Get("X-Tenant") })), header: minute, steps: []step{
			{request: get("/a/x", "X-Tenant: 1"), cache: "fwd=uri-miss; stored", asked: 1},
			{request: get("/a/x", "X-Tenant: 2"), cache: "fwd=uri-miss; stored", asked: 2},
			{request: get("/a/x", "X-Tenant: 1"), cache: "hit; ttl=60", asked: 2},
			{request: get("/a/x", "X-Tenant: 3", "Connection: X-Tenant"), cache: "fwd=request; detail=connection", asked: 3},
			{request: get("/a/x", "X-Tenant: 3"), cache: "fwd=uri-miss; stored", asked: 4},
		}},
		{what: "WithCacheCookies", opts: opts(gateway.WithCacheCookies()), header: "Cache-Control: max-age=60\r\nSet-Cookie: id=1", steps: []step{
			{request: get("/a/x", "Cookie: id=1"), cache: "fwd=uri-miss; stored", asked: 1}, {cache: "hit; ttl=60", asked: 1},
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				status := max(tt.status, 200)
				b := newBubble(t, testnet.Reply(status, tt.header, "ok"), tt.opts...)
				for i := range tt.steps {
					tt.steps[i].status, tt.steps[i].body = status, "ok"
				}
				b.walk(tt.steps...)
			})
		})
	}
}

// What the key leaves out is sent upstream all the same, and may be named in any
// way when it is purged.
func TestIgnoredQueryIsForwarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Reply(200, minute, "ok"), gateway.WithIgnoredQuery("utm"), gateway.WithSortedQuery())
		for _, purged := range []string{"/x?z=1&utm=2&a=3", "/x?a=3&z=1", "/x?utm&z=1&a=3"} {
			b.get("/a/x?z=1&utm=2&a=3")
			assert.Equal(t, "/x?z=1&utm=2&a=3", b.asked().Target)
			assert.Zero(t, b.cache.Purge("a", "/x?a=3"))
			assert.Equal(t, 1, b.cache.Purge("a", purged))
		}
	})
}

// The options of NewCache are for handlers, those of services for services.
func TestCachingOptionsOfNewCacheAreNotForServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, err := gateway.NewCache(gateway.WithDefaultTTL(time.Minute))
		require.NoError(t, err)
		b := direct.bubbleOf(t, cache, testnet.Reply(200, "X: y", "ok"))
		b.walk(step{body: "ok", cache: "fwd=uri-miss; detail=no-freshness", asked: 1})
	})
}

func TestCacheShareBoundsAService(t *testing.T) {
	const size, budget = 4 << 10, 256 << 10
	r := newRig(t, setup{
		script: testnet.Reply(200, storable, strings.Repeat("a", size)), scriptB: testnet.Reply(200, storable, strings.Repeat("b", size)),
		a:     []gateway.ServiceOption{gateway.WithCacheShare(0.25)},
		clean: []gateway.CacheOption{gateway.WithMaxBytes(budget)},
	})
	for n := range 20 {
		r.get(fmt.Sprintf("/b/%d", n))
	}
	for n := range 40 {
		r.get(fmt.Sprintf("/a/%d", n))
		r.get(fmt.Sprintf("/a/%d", n)) // the second time it is worth room
		assert.LessOrEqual(t, r.cache.Stats().Bytes, int64(budget))
	}
	for n := range 20 {
		assert.Contains(t, r.get(fmt.Sprintf("/b/%d", n)).Header.Get("Cache-Status"), "; hit", "what another service has is left alone")
	}
	hits := 0
	for n := range 40 {
		if strings.Contains(r.get(fmt.Sprintf("/a/%d", n), "Cache-Control: only-if-cached").Header.Get("Cache-Status"), "; hit") {
			hits++
		}
	}
	assert.Positive(t, hits)
	assert.LessOrEqual(t, hits*size, budget/4)
}

func TestCachingOptionFaults(t *testing.T) {
	const d = -time.Second
	for _, tt := range []struct {
		opt  gateway.CachingOption
		want gateway.OptionError
	}{
		{gateway.WithDefaultTTL(d), faultOf("WithDefaultTTL", "-1s", "negative")},
		{gateway.WithNegativeTTL(d), faultOf("WithNegativeTTL", "-1s", "negative")},
		{gateway.WithStaleWhileRevalidate(d), faultOf("WithStaleWhileRevalidate", "-1s", "negative")},
		{gateway.WithStaleIfError(d), faultOf("WithStaleIfError", "-1s", "negative")},
		{gateway.WithMaxStale(d), faultOf("WithMaxStale", "-1s", "negative")},
		{gateway.WithCollapseTimeout(d), faultOf("WithCollapseTimeout", "-1s", "negative")},
		{gateway.WithTargetedCacheControl(""), faultOf("WithTargetedCacheControl", "", "the name is empty")},
		{gateway.WithTargetedCacheControl("A B"), faultOf("WithTargetedCacheControl", "A B", "is no name of a field")},
		{gateway.WithIgnoredQuery("a", ""), faultOf("WithIgnoredQuery", "", "a name is empty")},
		{gateway.WithCacheKeyHeaders(""), faultOf("WithCacheKeyHeaders", "", "the name is empty")},
		{gateway.WithCacheKeyHeaders("X", "A:"), faultOf("WithCacheKeyHeaders", "A:", "is no name of a field")},
		{gateway.WithCacheKeyCookies(""), faultOf("WithCacheKeyCookies", "", "the name is empty")},
		{gateway.WithCacheKeyCookies("a=b"), faultOf("WithCacheKeyCookies", "a=b", "is no name of a cookie")},
		{gateway.WithCachePartition(nil), faultOf("WithCachePartition", "", "the function is nil")},
		{gateway.WithCacheShare(0), faultOf("WithCacheShare", "0", "not above 0 and at most 1")},
		{gateway.WithCacheShare(-0.5), faultOf("WithCacheShare", "-0.5", "not above 0 and at most 1")},
		{gateway.WithCacheShare(1.1), faultOf("WithCacheShare", "1.1", "not above 0 and at most 1")},
		{gateway.WithCacheShare(math.NaN()), faultOf("WithCacheShare", "NaN", "not above 0 and at most 1")},
	} {
		t.Run(tt.want.Option+" "+tt.want.Value, func(t *testing.T) {
			_, err := gateway.New(tt.opt, gateway.WithService("a", target))
			assert.Equal(t, tt.want, *optionFault(t, err))
			of := tt.want
			of.Service = "a"
			_, err = gateway.New(gateway.WithService("a", target, tt.opt))
			assert.Equal(t, of, *optionFault(t, err))
			_, err = gateway.NewUpstream("a", target, tt.opt)
			assert.Equal(t, of, *optionFault(t, err))
			cache, err := gateway.NewCache(tt.opt)
			assert.Nil(t, cache)
			assert.Equal(t, tt.want, *optionFault(t, err))
		})
	}
}
