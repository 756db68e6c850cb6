package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// many is how many requests come at once in memory. The race detector allows
// 8128 goroutines.
func many() int {
	if testnet.RaceEnabled {
		return 1500
	}
	return 10_000
}

// some is how many come over connections.
const some = 200

// crowd has as many clients send that request at once, each over a connection
// of its own.
func (r *rig) crowd(n int, raw string) crowd {
	r.Helper()
	var all sync.WaitGroup
	began, got, conns := time.Now(), make([]*testnet.Response, n), make([]*testnet.Client, n)
	for i := range n {
		conns[i] = testnet.Dial(r, r.addr)
	}
	for i := range n {
		all.Go(func() {
			got[i] = conns[i].Do(raw)
			conns[i].Close()
		})
	}
	all.Wait()
	out := crowd{statuses: map[string]int{}, bodies: map[string]int{}, took: time.Since(began)}
	for i, resp := range got {
		assert.Equal(r, testnet.Whole, resp.End)
		r.clients = append(r.clients, conns[i].Received()...)
		out.statuses[strings.TrimSpace(fmt.Sprintf("%d %s", resp.Status, resp.Header.Get("Cache-Status")))]++
		out.bodies[string(resp.Body)]++
	}
	return out
}

// gated answers no request before the gate opens.
func gated(gate <-chan struct{}, answer func(*testnet.Request) string) func(*testnet.Conn) {
	return testnet.Respond(func(req *testnet.Request) string {
		receive(gate)
		return answer(req)
	})
}

// awaitMisses waits until so many requests have found nothing in the cache.
func (r *rig) awaitMisses(n int) {
	r.Helper()
	testnet.Settle(r, "all have asked", func() bool { return r.cache.Stats().Misses >= uint64(n) })
}

// roundTrips is an app's round tripper that takes a second for each answer, and
// counts.
type roundTrips struct {
	asked  atomic.Int64
	answer func(n int64) *http.Response
}

func (rt *roundTrips) RoundTrip(req *http.Request) (*http.Response, error) {
	n := rt.asked.Add(1)
	select {
	case <-time.After(time.Second):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	resp := rt.answer(n)
	resp.Request = req
	return resp, nil
}

// tripAnswer is an answer of a round tripper.
func tripAnswer(status int, header, body string) *http.Response {
	h := http.Header{}
	for line := range strings.SplitSeq(header, "\r\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			h.Add(name, value)
		}
	}
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// tripping is a bubble whose service is a round tripper.
func tripping(t *testing.T, rt *roundTrips, opts ...gateway.Option) *bubble {
	t.Helper()
	return newBubble(t, (*testnet.Conn).Wait, append([]gateway.Option{
		gateway.WithService("t", "http://trip.test", gateway.WithTransport(rt)),
	}, opts...)...)
}

// Row 121: of all who ask for one response at once, one asks the upstream.
func collapsedCases() []attackCase {
	body := strings.Repeat("body", 5000)
	shared := func(led string, n int) map[string]int {
		return map[string]int{"200 gateway; fwd=uri-miss; stored": 1, "200 gateway; " + led + "; collapsed": n - 1}
	}
	cases := []attackCase{
		bubbled(121, "in memory", func(t *testing.T) {
			b := newBubble(t, slowly(time.Second, testnet.Answer(200, storable, body)))
			all := b.crowd(many(), testnet.Get("/a/x"))
			assert.Equal(t, shared("fwd=uri-miss", many()), all.statuses)
			assert.Equal(t, map[string]int{body: many()}, all.bodies)
			assert.Equal(t, 1, b.up.Begun())
			lasted(t, time.Second, all.took)
			assert.EqualValues(t, many(), b.gw.Stats().CacheMisses)
		}),
		bubbled(121, "by a round tripper", func(t *testing.T) {
			rt := &roundTrips{answer: func(int64) *http.Response { return tripAnswer(200, storable, body) }}
			b := tripping(t, rt)
			all := b.crowd(many(), testnet.Get("/t/x"))
			assert.Equal(t, shared("fwd=uri-miss", many()), all.statuses)
			assert.Equal(t, map[string]int{body: many()}, all.bodies)
			assert.EqualValues(t, 1, rt.asked.Load())
		}),
		bubbled(121, "when what is stored is stale", func(t *testing.T) {
			p := &page{tag: `"v1"`, header: "Cache-Control: public, max-age=1", body: body}
			b := newBubble(t, testnet.Respond(func(r *testnet.Request) string { time.Sleep(time.Second); return p.answer(r) }))
			b.get("/a/x")
			time.Sleep(2 * time.Second)
			all := b.crowd(many(), testnet.Get("/a/x"))
			assert.Equal(t, map[string]int{"200 gateway; fwd=stale; fwd-status=304; stored": 1, "200 gateway; fwd=stale; collapsed": many() - 1}, all.statuses)
			assert.Equal(t, map[string]int{body: many()}, all.bodies)
			assert.Equal(t, 2, b.up.Begun())
		}),
	}
	for _, way := range bodies {
		cases = append(cases, attackCase{121, "over connections, " + way.name, func(t *testing.T) {
			gate := make(chan struct{})
			r := newRig(t, setup{script: gated(gate, func(*testnet.Request) string {
				return "HTTP/1.1 200 OK\r\n" + storable + way.header + "\r\n\r\n" + way.piece + way.last
			})})
			n := some
			if way.size > 100_000 {
				n = 20
			}
			go func() {
				testnet.Settle(t, "all have asked", func() bool { return r.cache.Stats().Misses >= uint64(n) || t.Failed() })
				close(gate)
			}()
			all := r.crowd(n, testnet.Get("/a/x"))
			assert.Equal(t, shared("fwd=uri-miss", n), all.statuses)
			require.Len(t, all.bodies, 1)
			for got := range all.bodies {
				assert.EqualValues(t, way.size, len(got))
			}
			assert.Len(t, r.a.Await(1), 1)
			r.counted(noFailure)
		}})
	}
	return cases
}

// Row 123: where the answer may not be shared nobody gets another's, and nobody
// waits for one after the other.
func unsharedCases() []attackCase {
	var cases []attackCase
	for _, c := range []struct{ header, detail string }{
		{storable + "Set-Cookie: id=1", "set-cookie"},
		{"Cache-Control: private, max-age=60", "private"},
		{"Cache-Control: no-store", "no-store"},
		{"X: y", "no-freshness"},
		{storable + "Vary: *", "vary"},
	} {
		cases = append(cases,
			bubbled(123, "in memory, "+c.detail, func(t *testing.T) {
				rt := &roundTrips{answer: func(n int64) *http.Response { return tripAnswer(200, c.header, fmt.Sprint(n)) }}
				b := tripping(t, rt)
				all := b.crowd(many(), testnet.Get("/t/x"))
				assert.Equal(t, map[string]int{"200 gateway; fwd=uri-miss; detail=" + c.detail: many()}, all.statuses)
				assert.Len(t, all.bodies, many(), "to each its own")
				assert.EqualValues(t, many(), rt.asked.Load())
				assert.LessOrEqual(t, all.took, 2*time.Second+blink)

				again := b.crowd(100, testnet.Get("/t/x"))
				assert.Len(t, again.bodies, 100)
				lasted(t, time.Second, again.took) // nobody waits for the first
				time.Sleep(10 * time.Second)
				first := rt.asked.Load()
				later := b.crowd(2, testnet.Get("/t/x"))
				assert.EqualValues(t, first+2, rt.asked.Load())
				lasted(t, 2*time.Second, later.took) // it is forgotten: once more one asks first
			}),
			attackCase{123, "over connections, " + c.detail, func(t *testing.T) {
				var count atomic.Int64
				gate := make(chan struct{})
				r := newRig(t, setup{noToken: true, script: gated(gate, func(*testnet.Request) string {
					return testnet.Answer(200, c.header, fmt.Sprint(count.Add(1)))
				})})
				go func() {
					testnet.Settle(t, "all have asked", func() bool { return r.cache.Stats().Misses >= some || t.Failed() })
					close(gate)
				}()
				all := r.crowd(some, testnet.Get("/a/x"))
				assert.Equal(t, map[string]int{"200 gateway; fwd=uri-miss; detail=" + c.detail: some}, all.statuses)
				assert.Len(t, all.bodies, some)
				assert.EqualValues(t, some, count.Load())
				r.counted(noFailure)
			}},
		)
	}
	return append(cases, bubbled(123, "what may be shared again is", func(t *testing.T) {
		rt := &roundTrips{answer: func(n int64) *http.Response {
			if n == 1 {
				return tripAnswer(200, "Cache-Control: no-store", "mine")
			}
			return tripAnswer(200, "Cache-Control: public, max-age=5", "ours")
		}}
		b := tripping(t, rt)
		b.crowd(1, testnet.Get("/t/x"))
		b.crowd(1, testnet.Get("/t/x"))
		time.Sleep(6 * time.Second)
		b.crowd(many()/10, testnet.Get("/t/x"))
		assert.EqualValues(t, 3, rt.asked.Load())
	}))
}

// Row 125: an error is everybody's error, and no reason for everybody to ask.
func sharedErrorCases() []attackCase {
	var cases []attackCase
	for _, c := range []struct {
		status, asked int
	}{{500, 1}, {503, 2}, {502, 2}, {504, 2}, {501, 1}} {
		answer := func(int64) *http.Response { return tripAnswer(c.status, "Content-Type: text/plain", "of the upstream") }
		check := func(t *testing.T, all crowd, n int) {
			leader, followers := 0, 0
			for body, times := range all.bodies {
				if body == "of the upstream" {
					leader += times
					continue
				}
				assert.Contains(t, body, `"reason":"shared_failure"`)
				assert.Contains(t, body, fmt.Sprintf(`"status":%d`, c.status))
				assert.NotContains(t, body, "of the upstream")
				followers += times
			}
			assert.Equal(t, 1, leader, "who asked gets the answer itself")
			assert.Equal(t, n-1, followers)
			for status := range all.statuses {
				assert.True(t, strings.HasPrefix(status, fmt.Sprint(c.status)), status)
			}
		}
		cases = append(cases,
			bubbled(125, fmt.Sprintf("in memory, %d", c.status), func(t *testing.T) {
				rt := &roundTrips{answer: answer}
				b := tripping(t, rt, gateway.WithRetries(1))
				all := b.crowd(many(), testnet.Get("/t/x", "Accept: application/json"))
				check(t, all, many())
				assert.LessOrEqual(t, rt.asked.Load(), int64(c.asked))
			}),
			attackCase{125, fmt.Sprintf("over connections, %d", c.status), func(t *testing.T) {
				gate := make(chan struct{})
				r := newRig(t, setup{defaults: []gateway.Option{gateway.WithRetries(1)}, script: gated(gate, func(*testnet.Request) string {
					return testnet.Answer(c.status, "", "of the upstream")
				})})
				go func() {
					testnet.Settle(t, "all have asked", func() bool { return r.cache.Stats().Misses >= some || t.Failed() })
					close(gate)
				}()
				check(t, r.crowd(some, testnet.Get("/a/x", "Accept: application/json")), some)
				assert.LessOrEqual(t, r.a.Begun(), c.asked)
			}},
		)
	}
	return append(cases, bubbled(125, "no answer at all", func(t *testing.T) {
		b := newBubble(t, func(c *testnet.Conn) { c.ReadRequest(); c.Pause(time.Second) }, gateway.WithoutRetries())
		all := b.crowd(many(), testnet.Get("/a/x"))
		assert.Equal(t, 1, b.up.Begun())
		for status := range all.statuses {
			assert.True(t, strings.HasPrefix(status, "502"), status)
		}
	}))
}

// Row 169: what is refreshed behind requests is bounded, and holds up none.
func saturatedRefreshCases() []attackCase {
	const workers, queue = 4, 1024
	keys := 10_000
	if testnet.RaceEnabled {
		keys = 2000
	}
	return []attackCase{bubbled(169, "more stale keys than may wait", func(t *testing.T) {
		gate, refreshing := make(chan struct{}), atomic.Bool{}
		asked := make(map[string]int)
		var mu sync.Mutex
		b := newBubble(t, testnet.Respond(func(r *testnet.Request) string {
			if refreshing.Load() {
				mu.Lock()
				asked[r.Target]++
				mu.Unlock()
				<-gate
			}
			return testnet.Answer(200, "Cache-Control: public, max-age=1, stale-while-revalidate=600", "ok")
		}), gateway.WithTimeout(0))
		for n := range keys {
			require.Equal(t, 200, b.crowdStatus(fmt.Sprintf("/a/%d", n)))
		}
		time.Sleep(5 * time.Second)
		refreshing.Store(true)
		began := time.Now()
		for range 2 {
			for n := range keys {
				b.crowdStatus(fmt.Sprintf("/a/%d", n))
			}
		}
		assert.Equal(t, began, time.Now(), "nobody waited")
		synctest.Wait()
		assert.Equal(t, keys+workers, b.up.Begun())
		close(gate)
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Equal(t, keys+workers+queue, b.up.Begun(), "the rest was dropped")
		assert.Len(t, asked, workers+queue, "none twice")
		assert.EqualValues(t, 2*keys, b.cache.Stats().Hits)

		b.crowdStatus(fmt.Sprintf("/a/%d", keys-1)) // one that was dropped
		time.Sleep(time.Second)
		assert.Equal(t, keys+workers+queue+1, b.up.Begun())
	})}
}

// crowdStatus is what one request, whose context ends with it, is answered.
func (b *bubble) crowdStatus(target string) int {
	w := &recorder{header: http.Header{}}
	b.gw.ServeHTTP(w, parsed(b, testnet.Get(target)))
	return w.status
}
