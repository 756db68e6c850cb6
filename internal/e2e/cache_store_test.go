package e2e_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// TestStoring has a row for each sentence of the README's table of what is
// stored.
func TestStoring(t *testing.T) {
	const (
		hit  = "hit; ttl=60"
		day  = 24 * time.Hour
		miss = "fwd=uri-miss; "
	)
	at := func(d time.Duration) string {
		return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d).Format(time.RFC1123[:26] + "GMT")
	}
	type row struct {
		what, request string
		status        int
		header        string
		first, second string // Cache-Status of two requests
	}
	var rows []row
	for _, status := range []int{200, 201, 202, 203, 204, 205, 226, 299, 300, 301, 302, 303, 305, 307, 308, 400, 402, 403, 404, 405, 406, 409, 410, 411, 413, 414, 415, 418, 422, 423, 424, 426, 451, 499, 500, 501, 502, 503, 504, 505, 508, 599} {
		rows = append(rows, row{"max-age", "", status, minute, miss + "stored", hit})
	}
	for _, status := range []int{401, 407, 408, 412, 416, 417, 421, 425, 428, 429, 431, 511} {
		rows = append(rows, row{"max-age", "", status, minute, miss + "detail=status", miss + "detail=status"})
	}
	for _, status := range []int{200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501} {
		rows = append(rows, row{"Last-Modified", "", status, "Last-Modified: " + at(-600*time.Second), miss + "stored", hit})
	}
	for _, status := range []int{201, 202, 302, 303, 307, 400, 403, 500, 503} {
		rows = append(rows,
			row{"Last-Modified", "", status, "Last-Modified: " + at(-600*time.Second), miss + "detail=no-freshness", miss + "detail=no-freshness"},
			row{"Last-Modified, public", "", status, "Cache-Control: public\r\nLast-Modified: " + at(-600*time.Second), miss + "stored", hit})
	}
	rows = append(rows,
		row{"s-maxage goes before max-age", "", 200, "Cache-Control: s-maxage=60, max-age=5", miss + "stored", hit},
		row{"max-age goes before Expires", "", 200, "Cache-Control: public, max-age=60\r\nExpires: " + at(5*time.Second), miss + "stored", hit},
		row{"Expires", "", 200, "Cache-Control: public\r\nExpires: " + at(time.Minute), miss + "stored", hit},
		row{"stale at once, with an ETag", "", 200, "Cache-Control: public, max-age=0\r\nETag: \"v\"", miss + "stored", "fwd=stale; stored"},
		row{"stale at once, without a validator", "", 200, "Cache-Control: public, max-age=0", miss + "detail=stale", miss + "detail=stale"},
		row{"a tenth of its age, at most a day", "", 200, "Last-Modified: " + at(-100*day), miss + "stored", "hit; ttl=86400"},
		row{"a query is no reason", "query", 200, "Last-Modified: " + at(-600*time.Second), miss + "stored", hit},
		row{"Pragma is a reason not to guess", "", 200, "Pragma: no-cache\r\nLast-Modified: " + at(-600*time.Second), miss + "stored", "fwd=stale; stored"},
		row{"no lifetime", "", 200, "ETag: \"v\"", miss + "detail=no-freshness", miss + "detail=no-freshness"},
		row{"no-cache with an ETag", "", 200, "Cache-Control: no-cache\r\nETag: \"v\"", miss + "stored", "fwd=stale; stored"},
		row{"no-cache without a validator", "", 200, "Cache-Control: no-cache, max-age=60", miss + "detail=no-cache", miss + "detail=no-cache"},
		row{"must-understand, understood", "", 200, "Cache-Control: no-store, must-understand, max-age=60", miss + "stored", hit},
		row{"must-understand, not understood", "", 299, "Cache-Control: must-understand, max-age=60", miss + "detail=status", miss + "detail=status"},
		row{"an event stream", "", 200, minute + "\r\nContent-Type: text/event-stream", miss + "detail=event-stream", miss + "detail=event-stream"},
		row{"an echo", "", 200, minute + "\r\nContent-Type: message/http", miss + "detail=echo", miss + "detail=echo"},
		row{"a Content-Range that nobody asked for", "", 200, minute + "\r\nContent-Range: bytes 0-1/2", miss + "stored", hit},
		row{"a cookie in the request", "Cookie: id=1", 200, "Cache-Control: max-age=60", miss + "detail=cookie", miss + "detail=cookie"},
		row{"credentials that are repeated", "Authorization: Bearer 0123456789", 200, minute + "\r\nX-Echo: 0123456789", miss + "detail=echo", miss + "detail=echo"},
	)
	for _, r := range rows {
		t.Run(fmt.Sprintf("%s, %d", r.what, r.status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Respond(func(*testnet.Request) string {
					if r.status == 204 || r.status == 205 {
						return testnet.Answer(r.status, r.header, "")
					}
					return testnet.Answer(r.status, r.header, "ok")
				}), gateway.WithoutRetries())
				request := testnet.Get("/a/x")
				if r.request == "query" {
					request = testnet.Get("/a/x?q")
				} else if r.request != "" {
					request = testnet.Get("/a/x", r.request)
				}
				for n, want := range []string{r.first, r.second} {
					resp := b.ask(request)
					assert.Equal(t, r.status, resp.Status, n)
					assert.Equal(t, "gateway; "+want, resp.Header.Get("Cache-Status"), n)
				}
			})
		})
	}
}

// The answer to a POST may be what a GET would find (RFC 9110 §9.3.3).
func TestAnswersToPostAreStoredForGet(t *testing.T) {
	post := testnet.Build("POST", "/a/x", "body")
	for _, tt := range []struct {
		what, header string
		status       int
		stored       bool
	}{
		{"its target", minute + "\r\nContent-Location: /x", 200, true},
		{"its target, absolute", minute + "\r\nContent-Location: http://192.0.2.1/x", 200, true},
		{"no Content-Location", minute, 200, false},
		{"another Content-Location", minute + "\r\nContent-Location: /y", 200, false},
		{"of another origin", minute + "\r\nContent-Location: http://other.test/x", 200, false},
		{"no lifetime", "Content-Location: /x", 200, false},
		{"another status", minute + "\r\nContent-Location: /x", 201, false},
		{"private", "Cache-Control: private, max-age=60\r\nContent-Location: /x", 200, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Respond(func(r *testnet.Request) string {
					if r.Method == "POST" {
						return testnet.Answer(tt.status, tt.header, "posted")
					}
					return testnet.Answer(200, minute, "got")
				}))
				b.get("/a/x")
				resp := b.ask(post)
				assert.Equal(t, tt.status, resp.Status)
				assert.Equal(t, "posted", string(resp.Body))
				if tt.stored {
					assert.Equal(t, "gateway; fwd=method; stored", resp.Header.Get("Cache-Status"))
					b.walk(step{body: "posted", cache: "hit; ttl=60", asked: 2})
				} else {
					assert.Equal(t, "gateway; fwd=method; detail=method", resp.Header.Get("Cache-Status"))
					b.walk(step{body: "got", cache: "fwd=uri-miss; stored", asked: 3})
				}
				b.ask(post)
				assert.EqualValues(t, map[bool]int{true: 1, false: 0}[tt.stored], b.cache.Stats().Entries, "a POST is never answered from the store")
			})
		})
	}
}

// What no framing proves whole is not stored.
func TestUnframedResponsesAreNotStored(t *testing.T) {
	r := newRig(t, setup{script: func(c *testnet.Conn) {
		if c.ReadRequest() != nil {
			c.Send("HTTP/1.1 200 OK\r\n" + storable + "Connection: close\r\n\r\nto the end")
		}
	}})
	for range 2 {
		resp := r.get("/a/x")
		assert.Equal(t, "to the end", string(resp.Body))
		assert.Equal(t, "gateway; fwd=uri-miss; detail=unframed", resp.Header.Get("Cache-Status"))
	}
	assert.Zero(t, r.cache.Stats().Entries)
}

// Date and Age are as if the service had answered just now, or as it said (RFC
// 9110 §6.6.1, RFC 9111 §5.1).
func TestDateAndAgeOfStoredResponses(t *testing.T) {
	for _, tt := range []struct{ header, date, first, age string }{
		{"", "Sat, 01 Jan 2000 00:00:00 GMT", "", "10"},
		{"Date: Sat, 01 Jan 2000 00:00:00 GMT", "Sat, 01 Jan 2000 00:00:00 GMT", "", "10"},
		{"Date: Fri, 31 Dec 1999 23:59:50 GMT", "Fri, 31 Dec 1999 23:59:50 GMT", "", "20"},
		{"Age: 5", "Sat, 01 Jan 2000 00:00:00 GMT", "5", "15"},
		{"Age: 5\r\nDate: Fri, 31 Dec 1999 23:59:50 GMT", "Fri, 31 Dec 1999 23:59:50 GMT", "5", "20"},
		{"Date: Sat, 01 Jan 2000 00:00:30 GMT", "Sat, 01 Jan 2000 00:00:30 GMT", "", "10"},
	} {
		t.Run(tt.header, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Reply(200, strings.Trim(minute+"\r\n"+tt.header, "\r\n"), "ok"))
				first := b.get("/a/x")
				assert.Equal(t, tt.first, first.Header.Get("Age"))
				time.Sleep(10 * time.Second)
				hit := b.get("/a/x")
				assert.Equal(t, []string{tt.date}, hit.Header["Date"])
				assert.Equal(t, []string{tt.age}, hit.Header["Age"])
			})
		})
	}
}

// While the cache is full, what nobody has asked for before takes no room.
func TestFullCacheAdmitsTheSecondRequest(t *testing.T) {
	r := newRig(t, setup{
		script: testnet.Reply(200, storable, strings.Repeat("x", 4<<10)),
		clean:  []gateway.CacheOption{gateway.WithMaxBytes(64 << 10)},
	})
	full := false
	for n := 0; n < 100 && !full; n++ {
		full = strings.Contains(r.get(fmt.Sprintf("/a/%d", n)).Header.Get("Cache-Status"), "detail=not-admitted")
	}
	require.True(t, full)
	entries := r.cache.Stats().Entries
	assert.Equal(t, "gateway; fwd=uri-miss; detail=not-admitted", r.get("/a/x").Header.Get("Cache-Status"))
	assert.Equal(t, entries, r.cache.Stats().Entries)
	assert.Equal(t, "gateway; fwd=uri-miss; stored", r.get("/a/x").Header.Get("Cache-Status"))
	assert.Equal(t, "gateway; hit; ttl=60", r.get("/a/x").Header.Get("Cache-Status"))
	assert.LessOrEqual(t, r.cache.Stats().Bytes, int64(64<<10))
}

// Requests that pass by say why.
func TestRequestsThatPassByTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Reply(200, minute, "ok"))
		for _, tt := range []struct{ request, cache string }{
			{testnet.Build("OPTIONS", "/a/x", ""), "fwd=method; detail=method"},
			{testnet.Build("PUT", "/a/x", "body"), "fwd=method; detail=method"},
			{testnet.Build("GET", "/a/x", "body"), "fwd=request; detail=body"},
			{testnet.Get("/a/x", "Cache-Control: no-store"), "fwd=request; detail=no-store"},
			{testnet.Get("/a/x", `If-Match: "v"`), "fwd=request; detail=conditional"},
			{testnet.Get("/a/x", "If-Unmodified-Since: "+longAgo), "fwd=request; detail=conditional"},
		} {
			for range 2 {
				assert.Equal(t, "gateway; "+tt.cache, b.ask(tt.request).Header.Get("Cache-Status"), tt.request)
			}
		}
		assert.Zero(t, b.cache.Stats().Entries)
		assert.Equal(t, 12, b.up.Begun())
	})
}

// Nobody guesses the type of what a service has sent without one.
func TestStoredResponsesKeepTheirLackOfAType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Reply(200, minute, "<html>"))
		for range 2 {
			assert.Empty(t, b.get("/a/x").Header["Content-Type"])
		}
		assert.Equal(t, 1, b.up.Begun())
	})
}

// What is kept of a head are its fields, and not the text that they came in.
func TestAStoredResponseKeepsNoMoreOfItsHead(t *testing.T) {
	const n, size = 400, 32 << 10
	drops := strings.Repeat("x", size)
	raw := testnet.Answer(200, minute+"\r\nVary: Accept-Encoding\r\nAge: 1\r\nCache-Tag: red, blue\r\nConnection: X-Dropped\r\nX-Dropped: "+drops, "ok")
	r := newRig(t, setup{script: testnet.Respond(func(*testnet.Request) string { return raw })})
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc) //nolint:gosec // it is no such number
	}
	c := testnet.Dial(t, r.addr)
	c.Do(testnet.Get("/a/first"))
	before := heap()
	for i := range n {
		c.Do(testnet.Get(fmt.Sprintf("/a/%d", i)))
	}
	assert.EqualValues(t, n+1, r.cache.Stats().Entries)
	assert.Less(t, heap()-before, int64(n*size/2))
}
