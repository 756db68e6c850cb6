package e2e_test

import (
	"context"
	"io"
	"math/rand/v2"
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

// replicaCases are section 7: what breakers, ejection and checks do, and what
// clients cannot have them do.
func replicaCases() []attackCase {
	var cases []attackCase
	for _, more := range [][]attackCase{otherReplicaCases(), outageCases(), abuseCases(), noneHealthyCases(), flappingCases()} {
		cases = append(cases, more...)
	}
	return cases
}

// Row 129: a body goes to another replica byte for byte, or not at all.
func otherReplicaCases() []attackCase {
	send := func(body string, again bool, opts ...gateway.ServiceOption) func(*testing.T) {
		return func(t *testing.T) {
			bad, good := testnet.Upstream(t, testnet.Reply(503, "", "no")), testnet.Upstream(t, testnet.Reply(200, "", "ok"))
			e := newEngine(t, bad.URL, append(opts, gateway.WithReplicas(gateway.Replica{URL: good.URL}), gateway.WithBalancing(gateway.RoundRobin()),
				gateway.WithoutEjection(), gateway.WithRetries(1), quickRetries)...)
			statuses := map[int]int{}
			for range 4 {
				request := testnet.Build("PUT", "/a/x", testnet.Chunks(body[:len(body)/3], body[len(body)/3:]), "Transfer-Encoding: chunked")
				statuses[testnet.Do(t, strings.TrimPrefix(e.url, "http://"), request).Status]++
			}
			journals := append(bad.Journal(), good.Journal()...)
			if again {
				assert.Equal(t, map[int]int{200: 4}, statuses)
				assert.Len(t, good.Journal(), 4)
				assert.NotEmpty(t, bad.Journal())
			} else {
				assert.Equal(t, map[int]int{200: 2, 503: 2}, statuses, "the upstream's own answer")
				assert.Len(t, journals, 4, "each is sent once")
			}
			for _, req := range journals {
				assert.True(t, body == string(req.Body), "%d bytes, want %d", len(req.Body), len(body))
			}
			assert.NoError(t, bad.AllWhole())
			assert.NoError(t, good.AllWhole())
		}
	}
	body := strings.Repeat("0123456789abcdef", 5<<16)
	return []attackCase{
		{129, "5 MB chunked, one of two replicas 503, with a larger buffer", send(body, true, gateway.WithRetryBodyBytes(8<<20))},
		{129, "5 MB chunked, one of two replicas 503", send(body, false)},
		{129, "1 kB chunked, one of two replicas 503", send(body[:1000], true)},
	}
}

// Row 135: an outage is not made worse. Before the breaker opens the budget
// bounds what is sent again, and then next to nothing is sent.
func outageCases() []attackCase {
	outage := func(answer func(w http.ResponseWriter), opts ...gateway.ServiceOption) (start func(t *testing.T) (e *engine, served func() int64)) {
		return func(t *testing.T) (*engine, func() int64) {
			var urls []string
			var counts []*atomic.Int64
			for range 3 {
				up, n := server(t, "", func(w http.ResponseWriter, _ *http.Request) { answer(w) })
				urls, counts = append(urls, up.URL), append(counts, n)
			}
			e := newEngine(t, urls[0], append(opts, gateway.WithReplicas(gateway.Replica{URL: urls[1]}, gateway.Replica{URL: urls[2]}), quickRetries)...)
			return e, func() (sum int64) {
				for _, n := range counts {
					sum += n.Load()
				}
				return sum
			}
		}
	}
	load := func(e *engine, n int) (failed int64) {
		var all sync.WaitGroup
		var failures atomic.Int64
		for range 8 {
			all.Go(func() {
				for range n / 8 {
					if status, _, _ := e.do("GET", "/"); status != 200 {
						failures.Add(1)
					}
				}
			})
		}
		all.Wait()
		return failures.Load()
	}
	down := func(w http.ResponseWriter) { w.WriteHeader(503) }
	dead := func(http.ResponseWriter) { panic(http.ErrAbortHandler) }
	var cases []attackCase
	for what, answer := range map[string]func(http.ResponseWriter){"503": down, "connections that break": dead} {
		cases = append(cases,
			attackCase{135, "all replicas " + what + ", within the budget", func(t *testing.T) {
				const requests = 1600
				e, served := outage(answer, gateway.WithoutBreaker())(t)
				assert.EqualValues(t, requests, load(e, requests))
				assert.LessOrEqual(t, float64(served()), 1.1*requests+1)
				assert.GreaterOrEqual(t, served(), int64(requests)*9/10, "they are not hidden either")
			}},
			attackCase{135, "all replicas " + what + ", the breaker open", func(t *testing.T) {
				const requests = 1600
				e, served := outage(answer, gateway.WithBreaker(0.5, 20), gateway.WithBreakerTimes(time.Second, 10*time.Second, 1))(t)
				load(e, 80)
				require.Equal(t, gateway.BreakerOpen, e.stats().Breaker.State)
				before := served()
				assert.EqualValues(t, requests, load(e, requests))
				assert.LessOrEqual(t, float64(served()-before), 0.02*requests)
			}},
		)
	}
	return cases
}

// Row 137: what is a client's doing opens no breaker and ejects no replica.
func abuseCases() []attackCase {
	abuse := func(by func(e *engine, addr string)) func(*testing.T) {
		return func(t *testing.T) {
			up, _ := server(t, "", func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				switch r.URL.Path {
				case "/slow":
					<-r.Context().Done()
				case "/large":
					_, _ = io.CopyN(w, nothing{}, 10<<20)
				default:
					w.WriteHeader(404)
				}
			})
			e := newEngine(t, up.URL, gateway.WithBreaker(0.1, 1), gateway.WithEjection(1, time.Hour, time.Hour),
				gateway.WithReplicas(gateway.Replica{URL: strings.Replace(up.URL, "127.0.0.1", "localhost", 1)}), gateway.WithBodyIdleTimeout(50*time.Millisecond))
			for range 30 {
				by(e, strings.TrimPrefix(e.url, "http://"))
			}
			testnet.Settle(t, "all have ended", func() bool { return e.stats().InFlight == 0 })
			s := e.stats()
			assert.Equal(t, gateway.BreakerClosed, s.Breaker.State)
			for _, r := range s.Replicas {
				assert.Equal(t, "healthy", r.Health)
				assert.Zero(t, r.Ejections)
				assert.Zero(t, r.InFlight)
			}
			status, _, _ := e.do("GET", "/")
			assert.Equal(t, 404, status)
		}
	}
	begun := func(request string) func(*engine, string) {
		return func(e *engine, addr string) {
			c, before := testnet.Dial(e, addr), e.stats().Requests
			c.Send(request)
			testnet.Settle(e, "it is under way, or cut off by the idle time", func() bool {
				s := e.stats()
				return s.InFlight > 0 || s.Requests > before
			})
			c.Reset()
			testnet.Settle(e, "it has ended", func() bool { return e.stats().InFlight == 0 })
		}
	}
	return []attackCase{
		{137, "4xx", abuse(func(e *engine, _ string) {
			status, _, _ := e.do("GET", "/")
			assert.Equal(e, 404, status)
		})},
		{137, "a client that gives up", abuse(func(e *engine, _ string) {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "GET", e.url+"/a/slow", http.NoBody)
			_, err := e.http.Do(req)
			assert.Error(e, err)
		})},
		{137, "disconnects while the header is awaited", abuse(begun(testnet.Get("/a/slow")))},
		{137, "disconnects in an upload", abuse(begun(testnet.Build("POST", "/a/x", "half", "Content-Length: 100000")))},
		{137, "disconnects in a chunked upload", abuse(begun(testnet.Build("POST", "/a/x", "4\r\nhalf\r\n", "Transfer-Encoding: chunked")))},
		{137, "disconnects in a download", abuse(begun(testnet.Get("/a/large")))},
		{137, "an upload that stands still", abuse(func(e *engine, addr string) {
			c := testnet.Dial(e, addr)
			c.Send(testnet.Build("POST", "/a/x", "half", "Content-Length: 100000"))
			assert.Contains(e, []int{400, 0}, c.ReadResponse("POST").Status)
			c.Close()
		})},
		{137, "chunks that are none", abuse(func(e *engine, addr string) {
			assert.Equal(e, 400, testnet.Do(e, addr, testnet.Build("POST", "/a/x", "4\r\nhalf\r\nzz\r\n", "Transfer-Encoding: chunked")).Status)
		})},
	}
}

// nothing is content of zeros, without end.
type nothing struct{}

func (nothing) Read(p []byte) (int, error) { return len(p), nil }

// Row 139: with none healthy all are used, or none where that is asked for.
func noneHealthyCases() []attackCase {
	var sick atomic.Bool
	ask := func(found string, status int, part string, opts ...gateway.ServiceOption) func(*testing.T) {
		return func(t *testing.T) {
			sick.Store(true)
			handler := func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/health" && sick.Load() || r.URL.Path == "/fail" {
					w.WriteHeader(500)
				}
			}
			one, _ := server(t, "", handler)
			two, _ := server(t, "", handler)
			e := newEngine(t, one.URL, append(opts, gateway.WithReplicas(gateway.Replica{URL: two.URL}), gateway.WithoutBreaker(), gateway.WithoutRetries())...)
			all := func(health string) func() bool {
				return func() bool {
					if health != "healthy" {
						e.do("GET", "/fail")
					}
					for _, r := range e.stats().Replicas {
						if r.Health != health {
							return false
						}
					}
					return true
				}
			}
			e.do("GET", "/")
			testnet.Settle(t, "all are out", all(found))
			for range 10 {
				got, _, body := e.do("GET", "/")
				assert.Equal(t, status, got)
				assert.Contains(t, body, part)
			}
			if found == "unhealthy" {
				sick.Store(false)
				testnet.Settle(t, "all are back", all("healthy"))
				got, _, _ := e.do("GET", "/")
				assert.Equal(t, 200, got)
			}
		}
	}
	checks := []gateway.ServiceOption{gateway.WithHealthPath("/health"), gateway.WithHealthChecks(10*time.Millisecond, 1, 1), gateway.WithoutEjection()}
	ejection := []gateway.ServiceOption{gateway.WithEjection(1, time.Hour, time.Hour), gateway.WithEjectionShare(1)}
	strict := gateway.WithPanicThreshold(0)
	return []attackCase{
		{139, "unhealthy, it fails open", ask("unhealthy", 200, "", checks...)},
		{139, "unhealthy, never used", ask("unhealthy", 503, "no_replica", append(checks, strict)...)},
		{139, "ejected, it fails open", ask("ejected", 200, "", ejection...)},
		{139, "ejected, never used", ask("ejected", 503, "no_replica", append(ejection, strict)...)},
		{139, "unhealthy, by hash", ask("unhealthy", 200, "", append(checks, gateway.WithBalancing(gateway.HashPath()))...)},
		{139, "unhealthy, in turn", ask("unhealthy", 200, "", append(checks, gateway.WithBalancing(gateway.RoundRobin()))...)},
	}
}

// Row 141: a replica that is well one time and ill the next does not come and go
// faster than rise and fall allow.
func flappingCases() []attackCase {
	const interval, rise, fall, jitter = time.Second, 3, 2, 0.1
	flaps := func(well func(n int) bool, changes func(t *testing.T, at []time.Time)) func(*testing.T) {
		return func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int64
				b := newBubble(t, testnet.Respond(func(r *testnet.Request) string {
					if r.Target == "/health" && !well(int(n.Add(1))) {
						return testnet.Answer(503, "", "")
					}
					return testnet.Answer(200, "", "ok")
				}), gateway.WithHealthPath("/health"), gateway.WithHealthChecks(interval, rise, fall), gateway.WithoutEjection())
				b.dial().Do(testnet.Get("/a/x"))
				time.Sleep(30 * time.Minute)
				var at []time.Time
				ill := true
				for _, line := range b.logs.Find(t, "gateway: replica") {
					assert.Equal(t, !ill, line["gateway.endpoint.healthy"], "each change once")
					ill = !ill
					when, err := time.Parse(time.RFC3339Nano, line["time"].(string))
					require.NoError(t, err)
					at = append(at, when)
				}
				assert.Greater(t, n.Load(), int64(1000), "it is asked all the time")
				changes(t, at)
			})
		}
	}
	never := func(t *testing.T, at []time.Time) { assert.Empty(t, at) }
	slowly := func(t *testing.T, at []time.Time) {
		assert.Greater(t, len(at), 50)
		for i := 1; i < len(at); i++ {
			least := fall*interval - interval/2 // the first check was set when it was ill, and asked twice as often
			if i%2 == 1 {
				least = rise * interval / 2
			}
			assert.GreaterOrEqual(t, at[i].Sub(at[i-1]), time.Duration(float64(least)*(1-jitter))-blink)
		}
	}
	random := rand.New(rand.NewPCG(1, 141))
	return []attackCase{
		{141, "every other time", flaps(func(n int) bool { return n%2 == 0 }, never)},
		{141, "half the time", flaps(func(int) bool { return random.IntN(2) == 0 }, slowly)},
		{141, "by halves of ten", flaps(func(n int) bool { return n/10%2 == 0 }, slowly)},
	}
}
