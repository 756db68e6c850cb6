package e2e_test

import (
	"context"
	"fmt"
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

// Repeats are at most a share of the requests, over the last ten seconds.
func TestRetryBudgetIsAShareOfTheRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Reply(503, "", "no"), gateway.WithRetryBudget(0.1, 0), gateway.WithRetryBackoff(1, 1))
		c := b.dial()
		for range 100 {
			require.Equal(t, 503, c.Do(testnet.Get("/a/x")).Status)
		}
		assert.Len(t, b.up.Journal(), 110)
		assert.EqualValues(t, 10, b.gw.Stats().Retries)

		time.Sleep(20 * time.Second) // what was asked long ago pays for nothing
		for range 9 {
			c.Do(testnet.Get("/a/x"))
		}
		assert.Len(t, b.up.Journal(), 119)
		c.Do(testnet.Get("/a/x"))
		assert.Len(t, b.up.Journal(), 121)
		b.counted(noFailure)
	})
}

func TestRetryBudgetLetsAQuietServiceRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Reply(503, "", "no"), gateway.WithRetryBudget(0, 0.5), gateway.WithRetryBackoff(1, 1))
		c := b.dial()
		attempts := func() int { // of ten requests
			before := b.up.Begun()
			for range 10 {
				c.Do(testnet.Get("/a/x"))
			}
			return b.up.Begun() - before
		}
		assert.Equal(t, 15, attempts(), "half a repeat a second, for ten seconds")
		assert.Equal(t, 10, attempts())
		time.Sleep(10 * time.Second)
		assert.Equal(t, 15, attempts())
	})
}

func TestRetryBudgetOfZeroRepeatsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Reply(503, "", "no"), gateway.WithRetryBudget(0, 0))
		for range 20 {
			b.dial().Do(testnet.Get("/a/x"))
		}
		assert.Len(t, b.up.Journal(), 20)
	})
}

func TestRetryBudgetIsTheServicesOwn(t *testing.T) {
	down := testnet.Reply(503, "", "no")
	r := newRig(t, setup{script: down, scriptB: testnet.Replies(testnet.Answer(200, "", "ok")), defaults: []gateway.Option{gateway.WithRetryBudget(0, 0.1), quickRetries}})
	for range 5 {
		r.get("/a/x")
	}
	assert.Equal(t, 6, r.a.Begun(), "one repeat in ten seconds")
	s := r.gw.Stats()
	assert.EqualValues(t, 1, s.Services["a"].Retries)
	assert.Zero(t, s.Services["b"].Retries)
}

func TestRetriesOfARequestAreBounded(t *testing.T) {
	for n := range 4 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inBubbles(t, func(t *testing.T, w way) {
				b := w.bubble(t, testnet.Reply(502, "", "no"), gateway.WithRetries(n))
				assert.Equal(t, 502, b.dial().Do(testnet.Get("/a/x")).Status)
				assert.Len(t, b.up.Journal(), 1+n)
			})
		})
	}
}

// Only 502, 503 and 504 say that another attempt may fare better.
func TestOtherStatusesAreAnswers(t *testing.T) {
	for _, status := range []int{200, 301, 400, 408, 409, 413, 421, 425, 429, 499, 500, 501, 505, 507, 508, 511, 599} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Reply(status, "Retry-After: 0", "answer"))
				resp := b.dial().Do(testnet.Get("/a/x"))
				assert.Equal(t, status, resp.Status)
				assert.Equal(t, "answer", string(resp.Body))
				assert.Equal(t, "0", resp.Header.Get("Retry-After"))
				assert.Len(t, b.up.Journal(), 1)
				b.counted(noFailure)
			})
		})
	}
}

// Waits double, spread by half, up to the longest.
func TestRetriesBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const initial, longest = 100 * time.Millisecond, 400 * time.Millisecond
		b := newBubble(t, testnet.Reply(503, "", "no"), gateway.WithRetries(10), gateway.WithRetryBackoff(initial, longest), gateway.WithRetryBudget(1, 1000))
		spread := make(map[time.Duration]bool)
		for range 20 {
			from := len(b.up.Journal())
			b.dial().Do(testnet.Get("/a/x"))
			journal := b.up.Journal()[from:]
			require.Len(t, journal, 11)
			interval := initial
			for i := 1; i < len(journal); i++ {
				wait := journal[i].At.Sub(journal[i-1].At)
				assert.GreaterOrEqual(t, wait, interval/2)
				assert.LessOrEqual(t, wait, interval+interval/2+blink)
				spread[wait] = true
				interval = min(2*interval, longest)
			}
		}
		assert.Greater(t, len(spread), 150, "no two waits alike")
	})
}

func TestRetryAfterIsWaitedFor(t *testing.T) {
	const backoff = 25 * time.Millisecond * 3 / 2 // the first wait at its longest
	at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	tests := []struct {
		name        string
		field       func() string
		least, most time.Duration
	}{
		{"seconds", func() string { return "2" }, 2 * time.Second, 2 * time.Second},
		{"the most", func() string { return "5" }, 5 * time.Second, 5 * time.Second},
		{"none", func() string { return "0" }, 0, backoff},
		{"a date", func() string { return at(3 * time.Second) }, 3 * time.Second, 3 * time.Second},
		{"a date that has passed", func() string { return at(-time.Hour) }, 0, backoff},
		{"an rfc850 date", func() string {
			return time.Now().Add(3 * time.Second).UTC().Format("Monday, 02-Jan-06 15:04:05 GMT")
		}, 3 * time.Second, 3 * time.Second},
		{"nonsense", func() string { return "soon" }, 0, backoff},
		{"negative", func() string { return "-3" }, 0, backoff},
		{"a fraction", func() string { return "1.5" }, 0, backoff},
		{"two values", func() string { return "1, 2" }, 0, backoff},
		{"two lines", func() string { return "3\r\nRetry-After: 4" }, 0, backoff},
	}
	for _, tt := range tests {
		for _, status := range []int{502, 503, 504} {
			t.Run(fmt.Sprintf("%s in a %d", tt.name, status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBubble(t, testnet.Replies(testnet.Answer(status, "Retry-After: "+tt.field(), "no"), testnet.Answer(200, "", "ok")))
					start := time.Now()
					resp := b.dial().Do(testnet.Get("/a/x"))
					assert.Equal(t, 200, resp.Status)
					assert.Empty(t, resp.Header["Retry-After"])
					assert.GreaterOrEqual(t, time.Since(start), tt.least)
					assert.LessOrEqual(t, time.Since(start), tt.most+blink)
					assert.Len(t, b.up.Journal(), 2)
				})
			})
		}
	}
}

// Who asks for a longer time than is waited gets no repeat, and the client
// hears of it at once.
func TestRetryAfterBeyondTheCapEndsRetries(t *testing.T) {
	at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	tests := []struct {
		name  string
		field func() string
		opts  []gateway.Option
	}{
		{"six seconds", func() string { return "6" }, nil},
		{"a date in an hour", func() string { return at(time.Hour) }, nil},
		{"more seconds than a number holds", func() string { return strings.Repeat("9", 40) }, nil},
		{"one second, and none is waited", func() string { return "1" }, []gateway.Option{gateway.WithMaxRetryAfter(0)}},
		{"two seconds, and the request has one", func() string { return "2" }, []gateway.Option{gateway.WithTimeout(time.Second)}},
		{"exactly the time that is left", func() string { return "2" }, []gateway.Option{gateway.WithTimeout(2 * time.Second)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				after := tt.field()
				b := newBubble(t, testnet.Reply(503, "Retry-After: "+after, "no"), tt.opts...)
				start := time.Now()
				resp := b.dial().Do(testnet.Get("/a/x"))
				assert.Equal(t, 503, resp.Status)
				assert.Equal(t, "no", string(resp.Body))
				assert.Equal(t, after, resp.Header.Get("Retry-After"))
				lasted(t, 0, time.Since(start))
				assert.Len(t, b.up.Journal(), 1)
				b.counted(noFailure)
			})
		})
	}
}

func TestRetryAfterOfNoneIsRepeatedThoughNoneIsWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Replies(testnet.Answer(503, "Retry-After: 0", "no"), testnet.Answer(200, "", "ok")), gateway.WithMaxRetryAfter(0))
		assert.Equal(t, 200, b.dial().Do(testnet.Get("/a/x")).Status)
	})
}

// A wait that does not fit into the request's time is not begun.
func TestDeadlineThatCannotFitAnotherAttemptEndsRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Reply(503, "", "no"), gateway.WithTimeout(40*time.Millisecond), gateway.WithRetryBackoff(100*time.Millisecond, time.Second))
		start := time.Now()
		assert.Equal(t, 503, b.dial().Do(testnet.Get("/a/x")).Status)
		lasted(t, 0, time.Since(start))
		assert.Len(t, b.up.Journal(), 1)
	})
}

func TestClientThatLeavesEndsRetries(t *testing.T) {
	for name, request := range map[string]string{"GET": testnet.Get("/a/x"), "PUT": testnet.Build("PUT", "/a/x", "body")} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, func(t *testing.T, w way) {
				b := w.bubble(t, testnet.Reply(503, "Retry-After: 3", "no"))
				c := b.dial()
				require.True(t, c.Send(request))
				time.Sleep(time.Second)
				require.Len(t, b.up.Journal(), 1)
				c.Close()
				time.Sleep(time.Minute)
				assert.Len(t, b.up.Journal(), 1)
				b.counted(onlyFailure(gateway.ReasonClientClosed))
			})
		})
	}
}

func TestShutdownEndsRetries(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		b := w.bubble(t, testnet.Reply(503, "Retry-After: 3", "no"))
		c := b.dial()
		require.True(t, c.Send(testnet.Get("/a/x")))
		time.Sleep(time.Second)
		require.Error(t, b.gw.Shutdown(ended()))
		resp := c.ReadResponse("GET")
		assert.Equal(t, 503, resp.Status)
		assert.Contains(t, string(resp.Body), `"reason":"shutting_down"`)
		assert.Len(t, b.up.Journal(), 1)
		b.counted(onlyFailure(gateway.ReasonShuttingDown))
	})
}

// An attempt of its own timeout leaves time for the next.
func TestAttemptTimeoutIsFollowedByAnotherAttempt(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		b := w.bubble(t, func(c *testnet.Conn) {
			for req := c.ReadRequest(); req != nil; req = c.ReadRequest() {
				if req.N > 0 {
					c.Send(testnet.Answer(200, "", "ok"))
				}
			}
		}, gateway.WithAttemptTimeout(time.Second))
		start := time.Now()
		assert.Equal(t, 200, b.dial().Do(testnet.Get("/a/x")).Status)
		assert.GreaterOrEqual(t, time.Since(start), time.Second)
		assert.LessOrEqual(t, time.Since(start), time.Second+50*time.Millisecond)
	})
}

// Of a failed attempt nothing reaches the client.
func TestFailedAttemptsLeaveNoTrace(t *testing.T) {
	const failed = "Set-Cookie: failed=1\r\nX-Failed: 1\r\nCache-Control: public, max-age=60\r\nRetry-After: 0\r\nWarning: 199 - failed\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked"
	r := newRig(t, setup{a: []gateway.ServiceOption{quickRetries}, script: testnet.Replies(
		testnet.Answer(503, failed, "6\r\nfailed\r\n0\r\nX-Sum: failed\r\n\r\n"),
		testnet.Answer(103, "Link: </style.css>", "")+testnet.Answer(200, storable, "ok"),
	)})
	resp := r.get("/a/x")
	assert.Equal(t, 200, resp.Status)
	assert.Equal(t, "ok", string(resp.Body))
	assert.NotContains(t, strings.ToLower(string(resp.Raw)), "failed")
	for _, name := range []string{"Set-Cookie", "X-Failed", "Retry-After", "Warning", "Trailer", "Transfer-Encoding"} {
		assert.Empty(t, resp.Header[name], name)
	}
	require.Len(t, resp.Interim, 1, "the good attempt's own")
	assert.Equal(t, "gateway; fwd=uri-miss; stored", resp.Header.Get("Cache-Status"))
	hit := r.get("/a/x")
	assert.Equal(t, "ok", string(hit.Body))
	assert.NotContains(t, strings.ToLower(string(hit.Raw)), "failed", "nor what is stored")
	attempts := r.attempts()
	require.Len(t, attempts, 2)
	resends := make(map[string]bool)
	for _, kv := range attempts[1].Attributes {
		resends[string(kv.Key)+"="+kv.Value.String()] = true
	}
	assert.True(t, resends["http.request.resend_count=1"])
	journal := r.a.Await(2)
	assert.Equal(t, field(journal[0], "X-Request-Id"), field(journal[1], "X-Request-Id"), "one request, one id")
	r.counted(noFailure)
}

// What hooks do is done once, however often the request is sent.
func TestHooksAndTokensAreAskedOncePerRequest(t *testing.T) {
	var rewrites, responses, asked atomic.Int64
	source := tokens(tokenA)
	r := newRig(t, setup{noToken: true, script: testnet.Replies(testnet.Answer(503, "", "no"), testnet.Answer(503, "", "no"), testnet.Answer(200, "", "ok")), a: []gateway.ServiceOption{
		quickRetries,
		gateway.WithTokenSource(func(ctx context.Context) (string, error) { asked.Add(1); return source(ctx) }),
		gateway.WithRewrite(func(out *http.Request) { out.Header.Add("X-Rewritten", fmt.Sprint(rewrites.Add(1))) }),
		gateway.WithModifyResponse(func(*http.Response) error { responses.Add(1); return nil }),
	}})
	assert.Equal(t, 200, r.get("/a/x").Status)
	for _, req := range r.a.Await(3) {
		assert.Equal(t, []string{"1"}, req.Header["X-Rewritten"])
		assert.Equal(t, "Bearer "+tokenA, field(req, "Authorization"))
	}
	assert.EqualValues(t, 1, asked.Load())
	assert.EqualValues(t, 1, rewrites.Load())
	assert.EqualValues(t, 1, responses.Load(), "only the answer is shown")
}

// A failed attempt's short answer is read to its end, so that its connection is
// used again; a long or slow one is not.
func TestConnectionOfAFailedAttemptIsUsedAgain(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		conns        int
	}{
		{"no body", testnet.Answer(503, "Content-Length: 0", ""), 1},
		{"a short body", testnet.Answer(503, "", strings.Repeat("x", 1<<10)), 1},
		{"64 KiB", testnet.Answer(503, "", strings.Repeat("x", 64<<10)), 1},
		{"more", testnet.Answer(503, "", strings.Repeat("x", 64<<10+1)), 2},
		{"unknown length", testnet.Answer(503, "Transfer-Encoding: chunked", testnet.Chunks("no")), 2},
		{"Connection: close", testnet.Answer(503, "Connection: close", "no"), 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, setup{a: []gateway.ServiceOption{quickRetries}, script: testnet.Replies(tt.answer, testnet.Answer(200, "", "ok"))})
			assert.Equal(t, 200, r.get("/a/x").Status)
			assert.Equal(t, tt.conns, r.a.Conns())
		})
	}
}

func TestSlowAnswerOfAFailedAttemptIsCutOff(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		b := w.bubble(t, func(c *testnet.Conn) {
			for req := c.ReadRequest(); req != nil; req = c.ReadRequest() {
				if req.N > 0 {
					c.Send(testnet.Answer(200, "", "ok"))
					continue
				}
				c.Send(testnet.Answer(503, "Content-Length: 100", "a few"))
			}
		}, gateway.WithRetryBackoff(1, 1))
		start := time.Now()
		assert.Equal(t, 200, b.dial().Do(testnet.Get("/a/x")).Status)
		assert.LessOrEqual(t, time.Since(start), 101*time.Millisecond)
		assert.Equal(t, 2, b.up.Conns())
	})
}

// A body that is still arriving when the first attempt fails goes on into the
// next one, from its first byte.
func TestBodyGoesOnInTheNextAttempt(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		b := w.bubble(t, func(c *testnet.Conn) {
			if c.ID == 0 {
				req := c.ReadHead()
				p := make([]byte, 4)
				for n := 0; n < len(p); {
					m, err := req.Read(p[n:])
					if err != nil {
						return
					}
					n += m
				}
				return // cut, after the first half
			}
			testnet.Reply(200, "", "ok")(c)
		})
		c := b.dial()
		half := strings.Repeat("half", 4<<10)
		require.True(t, c.Send(testnet.Build("PUT", "/a/x", half, fmt.Sprintf("Content-Length: %d", 2*len(half)))))
		time.Sleep(time.Second)
		assert.Equal(t, 1, len(b.up.Parts()))
		require.True(t, c.Send(half))
		assert.Equal(t, 200, c.ReadResponse("PUT").Status)
		journal := b.up.Journal()
		require.Len(t, journal, 1)
		assert.Equal(t, half+half, string(journal[0].Body))
	})
}
