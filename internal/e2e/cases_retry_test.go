package e2e_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// retryCases are section 7: what is sent again, and what never is.
func retryCases() []attackCase {
	var cases []attackCase
	for _, more := range [][]attackCase{
		refusedDialCases(), sentOnceCases(), replayCases(), begunResponseCases(), overallDeadlineCases(),
	} {
		cases = append(cases, more...)
	}
	return cases
}

// quickRetries makes waits short.
var quickRetries = gateway.WithRetryBackoff(time.Millisecond, time.Millisecond)

// refusing is a dial func that fails so many times.
func refusing(dials int) gateway.DialFunc {
	var made atomic.Int64
	var d net.Dialer
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if made.Add(1) <= int64(dials) {
			return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("refused")}
		}
		return d.DialContext(ctx, network, addr)
	}
}

// Row 127: a request that was provably never sent may be sent again, whatever
// its method (RFC 9110 §9.2.2).
func refusedDialCases() []attackCase {
	refused := func(method, body string, more ...gateway.ServiceOption) func(*testing.T, way) {
		return func(t *testing.T, w way) {
			up := testnet.Upstream(t, testnet.Reply(200, "", "ok"))
			up.Close()
			r := newRig(t, setup{way: w, up: up, a: append(more, quickRetries)})
			resp := r.do(testnet.Build(method, "/a/x", body))
			assert.Equal(t, 502, resp.Status)
			assert.Contains(t, string(resp.Body), `"reason":"connect_failed"`)
			assert.Len(t, r.attempts(), 3, "two repeats")
			assert.EqualValues(t, 2, r.gw.Stats().Retries)
			assert.Zero(t, r.a.Conns())
			r.counted(onlyFailure(gateway.ReasonConnect))
		}
	}
	recovers := func(method, body string) func(*testing.T, way) {
		return func(t *testing.T, w way) {
			r := newRig(t, setup{a: []gateway.ServiceOption{w.connect(t, refusing(2)), gateway.WithMethods("FETCH"), quickRetries}})
			resp := r.do(testnet.Build(method, "/a/x", body))
			assert.Equal(t, 200, resp.Status)
			journal := r.a.Await(1)
			require.Len(t, journal, 1, "it arrives once")
			assert.Equal(t, method, journal[0].Method)
			assert.Equal(t, body, string(journal[0].Body))
			assert.Len(t, r.attempts(), 3)
			r.counted(noFailure)
		}
	}
	return []attackCase{
		bothWays(127, "POST, refused dial", refused("POST", "body")),
		bothWays(127, "POST, refused dial, of 1 MB", refused("POST", strings.Repeat("x", 1<<20))),
		bothWays(127, "PATCH, refused dial", refused("PATCH", "body")),
		bothWays(127, "an unknown method, refused dial", refused("FETCH", "body", gateway.WithMethods("FETCH"))),
		bothWays(127, "POST, refused twice and then taken", recovers("POST", "body")),
		bothWays(127, "POST, refused twice and then taken, of 5 MB", recovers("POST", strings.Repeat("0123456789abcdef", 5<<16))),
		bothWays(127, "POST without a body, refused twice and then taken", recovers("POST", "")),
		bothWays(127, "an unknown method, refused twice and then taken", recovers("FETCH", "body")),
		bothWays(127, "POST, refused dial, without retries", func(t *testing.T, w way) {
			r := newRig(t, setup{a: []gateway.ServiceOption{w.connect(t, refusing(1)), gateway.WithoutRetries()}})
			assert.Equal(t, 502, r.do(testnet.Build("POST", "/a/x", "body")).Status)
			assert.Len(t, r.attempts(), 1)
			assert.Zero(t, r.a.Conns())
		}),
	}
}

// Row 127: whatever may have reached the upstream is sent once, if it is not
// idempotent.
func sentOnceCases() []attackCase {
	var cases []attackCase
	once := func(what string, status int, reason gateway.Reason, script func(*testnet.Conn), opts ...gateway.ServiceOption) {
		for name, request := range map[string]string{
			"POST": testnet.Build("POST", "/a/x", "body"), "POST without a body": testnet.Build("POST", "/a/x", "", "Content-Length: 0"),
			"chunked POST": testnet.Build("POST", "/a/x", testnet.Chunks("bo", "dy"), "Transfer-Encoding: chunked"),
			"PATCH":        testnet.Build("PATCH", "/a/x", "body"), "unknown method": testnet.Build("FETCH", "/a/x", "body"),
			"POST with a key": testnet.Build("POST", "/a/x", "body", "Idempotency-Key: k", "X-Idempotency-Key: k"),
		} {
			cases = append(cases, attackCase{127, name + ", " + what, func(t *testing.T) {
				r := newRig(t, setup{script: script, a: append(opts, quickRetries, gateway.WithMethods("FETCH"))})
				resp := r.do(request)
				assert.Equal(t, status, resp.Status)
				assert.Equal(t, testnet.Whole, resp.End)
				assert.Equal(t, 1, r.a.Begun(), "exactly once")
				assert.Len(t, r.attempts(), 1)
				assert.Zero(t, r.gw.Stats().Retries)
				want := noFailure
				if reason != "" {
					want = onlyFailure(reason)
				}
				r.counted(want)
			}})
		}
	}
	read := func(then func(*testnet.Conn)) func(*testnet.Conn) {
		return func(c *testnet.Conn) {
			if c.ReadRequest() != nil {
				then(c)
			}
		}
	}
	once("reset after its bytes", 502, gateway.ReasonUpstreamFailed, read((*testnet.Conn).Reset))
	once("closed after its bytes", 502, gateway.ReasonUpstreamFailed, read((*testnet.Conn).Close))
	once("half a status line", 502, gateway.ReasonUpstreamFailed, read(func(c *testnet.Conn) { c.Send("HTTP/1.1 20") }))
	once("half a field line", 502, gateway.ReasonUpstreamFailed, read(func(c *testnet.Conn) { c.Send("HTTP/1.1 200 OK\r\nContent-Le") }))
	once("half a response header", 502, gateway.ReasonUpstreamFailed, read(func(c *testnet.Conn) { c.Send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n") }))
	once("502", 502, "", testnet.Reply(502, "", "no"))
	once("503", 503, "", testnet.Reply(503, "Retry-After: 0", "no"))
	once("504", 504, "", testnet.Reply(504, "", "no"))
	once("timeout", 504, gateway.ReasonTimeout, (*testnet.Conn).Wait, gateway.WithAttemptTimeout(30*time.Millisecond), gateway.WithHealthTimeout(30*time.Millisecond))
	return append(cases,
		diesUnder("POST", "", "POST without a body"),
		diesUnder("POST", "", "POST without a body, with a key", "Idempotency-Key: k"),
		diesUnder("POST", "", "POST without a body, with another key", "x-idempotency-key: k"),
		diesUnder("POST", "body", "POST with a key", "Idempotency-Key: k"),
		diesUnder("PATCH", "", "PATCH without a body, with both keys", "Idempotency-Key: k", "X-Idempotency-Key: k"),
		attackCase{127, "GET, reset after its bytes", func(t *testing.T) {
			r := newRig(t, setup{script: read((*testnet.Conn).Reset), a: []gateway.ServiceOption{quickRetries}})
			assert.Equal(t, 502, r.get("/a/x").Status)
			assert.Equal(t, 3, r.a.Begun(), "idempotent: twice more")
			assert.Len(t, r.attempts(), 3)
			r.counted(onlyFailure(gateway.ReasonUpstreamFailed))
		}},
	)
}

// diesUnder sends a request over a connection that was used before and that the
// upstream closes without an answer.
func diesUnder(method, body, what string, fields ...string) attackCase {
	return attackCase{127, what + ", on a used connection that dies", func(t *testing.T) {
		r := newRig(t, setup{a: []gateway.ServiceOption{quickRetries}, script: func(c *testnet.Conn) {
			if c.ReadRequest() != nil {
				c.Send(testnet.Answer(200, "", "ok"))
				c.ReadRequest()
			}
		}})
		require.Equal(t, 200, r.get("/a/warm").Status)
		resp := r.do(testnet.Build(method, "/a/x", body, fields...))
		assert.Equal(t, 502, resp.Status)
		journal := r.a.Await(2)
		require.Len(t, journal, 2, "the warming one, and exactly one %s", method)
		assert.Equal(t, 1, r.a.Conns())
		for _, line := range fields {
			name, value, _ := strings.Cut(line, ": ")
			assert.Equal(t, value, field(journal[1], name))
		}
		r.counted(onlyFailure(gateway.ReasonUpstreamFailed))
	}}
}

// Row 129: a body is sent again byte for byte, or not at all.
func replayCases() []attackCase {
	body := func(n int) string { return strings.Repeat("0123456789abcdef", n/16+1)[:n] }
	chunked := func(body string) string {
		return testnet.Build("PUT", "/a/x", testnet.Chunks(body[:len(body)/3], body[len(body)/3:]), "Transfer-Encoding: chunked")
	}
	sized := func(body string) string { return testnet.Build("PUT", "/a/x", body) }
	failing := func() func(*testnet.Conn) {
		return testnet.Replies(testnet.Answer(503, "", "no"), testnet.Answer(200, "", "ok"))
	}
	again := func(request, body string, opts ...gateway.ServiceOption) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{script: failing(), a: append(opts, quickRetries)})
			assert.Equal(t, 200, r.do(request).Status)
			journal := r.a.Await(2)
			require.Len(t, journal, 2)
			for i, req := range journal {
				assert.True(t, body == string(req.Body), "attempt %d: %d bytes, want %d", i, len(req.Body), len(body))
			}
			assert.Equal(t, journal[0].Framing, journal[1].Framing)
			assert.EqualValues(t, 1, r.gw.Stats().Retries)
			r.counted(noFailure)
		}
	}
	never := func(request, body string, opts ...gateway.ServiceOption) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{script: failing(), a: append(opts, quickRetries)})
			resp := r.do(request)
			assert.Equal(t, 503, resp.Status, "the upstream's own answer")
			assert.Equal(t, "no", string(resp.Body))
			journal := r.a.Await(1)
			require.Len(t, journal, 1)
			assert.True(t, body == string(journal[0].Body))
			assert.Zero(t, r.gw.Stats().Retries)
			r.counted(noFailure)
		}
	}
	const keep = 64 << 10
	small, limit, beyond, large := body(1000), body(keep), body(keep+1), body(5<<20)
	return []attackCase{
		{129, "1 kB chunked", again(chunked(small), small)},
		{129, "1 kB", again(sized(small), small)},
		{129, "64 KiB chunked", again(chunked(limit), limit)},
		{129, "64 KiB", again(sized(limit), limit)},
		{129, "empty, chunked", again(testnet.Build("PUT", "/a/x", testnet.Chunks(), "Transfer-Encoding: chunked"), "")},
		{129, "64 KiB and one byte, chunked", never(chunked(beyond), beyond)},
		{129, "64 KiB and one byte", never(sized(beyond), beyond)},
		{129, "5 MB chunked", never(chunked(large), large)},
		{129, "5 MB", never(sized(large), large)},
		{129, "5 MB chunked, with a larger buffer", again(chunked(large), large, gateway.WithRetryBodyBytes(8<<20))},
		{129, "1 kB, with a smaller buffer", never(sized(small), small, gateway.WithRetryBodyBytes(999))},
		{129, "1 kB, without a buffer", never(chunked(small), small, gateway.WithRetryBodyBytes(0))},
		{129, "a trailer comes again", func(t *testing.T) {
			r := newRig(t, setup{script: failing(), a: []gateway.ServiceOption{quickRetries}})
			request := testnet.Build("PUT", "/a/x", "4\r\nbody\r\n0\r\nX-Sum: 7\r\n\r\n", "Transfer-Encoding: chunked", "Trailer: X-Sum")
			assert.Equal(t, 200, r.do(request).Status)
			for _, req := range r.a.Await(2) {
				assert.Equal(t, "body", string(req.Body))
				assert.Equal(t, http.Header{"X-Sum": {"7"}}, req.Trailer)
			}
			r.counted(noFailure)
		}},
		{129, "the upstream answers before the body", func(t *testing.T) {
			r := newRig(t, setup{a: []gateway.ServiceOption{quickRetries}, script: func(c *testnet.Conn) {
				if c.ID == 0 {
					c.ReadHead()
					c.Send(testnet.Answer(503, "Connection: close", "no"))
					return
				}
				testnet.Reply(200, "", "ok")(c)
			}})
			assert.Equal(t, 200, r.do(sized(small)).Status)
			journal := r.a.Journal()
			assert.Equal(t, small, string(journal[len(journal)-1].Body))
			r.broken = true // whether the first one got its body is a race
		}},
	}
}

// Row 131: once the client has a byte, there is no other answer.
func begunResponseCases() []attackCase {
	half := strings.Repeat("x", 40<<10)
	begun := func(header, body string, end func(*testnet.Conn)) func(*testing.T) {
		return func(t *testing.T) {
			seen := make(chan struct{})
			r := newRig(t, setup{a: []gateway.ServiceOption{quickRetries}, script: func(c *testnet.Conn) {
				if c.ReadRequest() != nil {
					c.Send(testnet.Answer(200, header, body))
					receive(seen)
					end(c)
				}
			}})
			c := testnet.Dial(t, r.addr)
			c.Send(testnet.Get("/a/x"))
			resp := c.ReadHead("GET")
			require.Equal(t, 200, resp.Status)
			_, err := resp.Read(make([]byte, 1))
			require.NoError(t, err)
			close(seen)
			restOf(resp)
			assert.Equal(t, testnet.Truncated, resp.End, "aborted")
			assert.Equal(t, 1, r.a.Begun())
			r.counted(onlyFailure(gateway.ReasonTruncated))
			testnet.Settle(t, "the attempt has ended", func() bool { return len(r.attempts()) == 1 })
			assert.Zero(t, r.cache.Stats().Entries)
		}
	}
	const length = "Content-Length: 100000"
	piece := "a000\r\n" + half + "\r\n"
	return []attackCase{
		{131, "of known length, reset", begun(length, half, (*testnet.Conn).Reset)},
		{131, "of known length, closed", begun(length, half, (*testnet.Conn).Close)},
		{131, "chunked, reset", begun("Transfer-Encoding: chunked", piece, (*testnet.Conn).Reset)},
		{131, "chunked, closed", begun("Transfer-Encoding: chunked", piece, (*testnet.Conn).Close)},
		{131, "storable, of known length", begun("Cache-Control: public, max-age=60\r\n"+length, half, (*testnet.Conn).Reset)},
		{131, "storable, of a length that a task stores", begun("Cache-Control: public, max-age=60\r\nContent-Length: 1000000", half, (*testnet.Conn).Close)},
		{131, "storable, chunked", begun("Cache-Control: public, max-age=60\r\nTransfer-Encoding: chunked", piece, (*testnet.Conn).Close)},
		{131, "an interim response is a byte", func(t *testing.T) {
			r := newRig(t, setup{a: []gateway.ServiceOption{quickRetries}, script: testnet.Replies(testnet.Answer(103, "Link: </x>", "") + testnet.Answer(503, "", "no"))})
			resp := r.get("/a/x")
			assert.Equal(t, 503, resp.Status)
			assert.Len(t, resp.Interim, 1)
			assert.Equal(t, 1, r.a.Begun())
		}},
		{131, "an interim response and a reset", func(t *testing.T) {
			r := newRig(t, setup{a: []gateway.ServiceOption{quickRetries}, script: func(c *testnet.Conn) {
				if c.ReadRequest() != nil {
					c.Send(testnet.Answer(103, "Link: </x>", ""))
				}
			}})
			resp := r.get("/a/x")
			assert.Equal(t, 502, resp.Status)
			assert.Len(t, resp.Interim, 1)
			assert.Equal(t, 1, r.a.Begun())
			r.counted(onlyFailure(gateway.ReasonUpstreamFailed))
		}},
	}
}

// Row 133: a deadline holds over all attempts and the waits between them.
func overallDeadlineCases() []attackCase {
	within := func(script func(*testnet.Conn), check func(b *bubble, resp *testnet.Response, took time.Duration), opts ...gateway.Option) func(*testing.T) {
		return func(t *testing.T) {
			inBubbles(t, func(t *testing.T, w way) {
				b := w.bubble(t, script, append(opts, gateway.WithTimeout(2*time.Second), gateway.WithRetries(10))...)
				start := time.Now()
				resp := b.dial().Do(testnet.Get("/a/x"))
				check(b, resp, time.Since(start))
			})
		}
	}
	return []attackCase{
		{133, "always 503", within(testnet.Reply(503, "", "no"), func(b *bubble, resp *testnet.Response, took time.Duration) {
			assert.Equal(b, 503, resp.Status)
			assert.LessOrEqual(b, took, 2*time.Second)
			assert.GreaterOrEqual(b, b.up.Begun(), 4)
			b.waitsWithin(25*time.Millisecond, time.Second)
			b.counted(noFailure)
		})},
		{133, "always reset", within(func(c *testnet.Conn) { c.ReadRequest() }, func(b *bubble, resp *testnet.Response, took time.Duration) {
			assert.Equal(b, 502, resp.Status)
			assert.LessOrEqual(b, took, 2*time.Second)
			b.waitsWithin(25*time.Millisecond, time.Second)
			b.counted(onlyFailure(gateway.ReasonUpstreamFailed))
		})},
		{133, "never an answer", within((*testnet.Conn).Wait, func(b *bubble, resp *testnet.Response, took time.Duration) {
			assert.Equal(b, 504, resp.Status)
			lasted(b, 2*time.Second, took)
			assert.Equal(b, 1, b.up.Begun())
			b.counted(onlyFailure(gateway.ReasonTimeout))
		})},
		{133, "slow answers", within(func(c *testnet.Conn) {
			for c.ReadRequest() != nil && c.Pause(300*time.Millisecond) {
				c.Send(testnet.Answer(503, "", "no"))
			}
		}, func(b *bubble, resp *testnet.Response, took time.Duration) {
			assert.Equal(b, 504, resp.Status, "the seventh comes too late")
			lasted(b, 2*time.Second, took)
			assert.Equal(b, 7, b.up.Begun())
			b.counted(onlyFailure(gateway.ReasonTimeout))
		}, gateway.WithRetryBackoff(1, 1))},
		{133, "attempts of 300 ms", within((*testnet.Conn).Wait, func(b *bubble, resp *testnet.Response, took time.Duration) {
			assert.Equal(b, 504, resp.Status)
			assert.LessOrEqual(b, took, 2*time.Second)
			assert.Greater(b, b.up.Begun(), 3)
			b.counted(onlyFailure(gateway.ReasonTimeout))
		}, gateway.WithAttemptTimeout(300*time.Millisecond))},
		{133, "the app's own deadline", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Reply(503, "", "no"), gateway.WithTimeout(0), gateway.WithRetries(10))
				inner := b.srv.Handler
				b.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
					defer cancel()
					inner.ServeHTTP(w, r.WithContext(ctx))
				})
				start := time.Now()
				resp := b.dial().Do(testnet.Get("/a/x"))
				assert.Equal(t, 503, resp.Status)
				assert.LessOrEqual(t, time.Since(start), 2*time.Second)
			})
		}},
	}
}

// waitsWithin checks the times between attempts that are answered at once: at
// least half the interval, which doubles up to longest, and at most 1.5 times.
func (b *bubble) waitsWithin(initial, longest time.Duration) {
	b.Helper()
	journal := b.up.Journal()
	for i := 1; i < len(journal); i++ {
		wait := journal[i].At.Sub(journal[i-1].At)
		assert.GreaterOrEqual(b, wait, initial/2, "wait %d", i)
		assert.LessOrEqual(b, wait, longest+longest/2+blink, "wait %d", i)
		initial = min(2*initial, longest)
	}
}
