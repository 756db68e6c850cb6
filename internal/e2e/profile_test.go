package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// newProfiled is newSlowRig without anybody who looks for slow ones.
func newProfiled(t *testing.T, script func(*testnet.Conn), opts func(*slowRig) []gateway.ServiceOption) *slowRig {
	t.Helper()
	return newSlowRig(t, script, time.Hour, func(s *slowRig) []gateway.ServiceOption {
		own := []gateway.ServiceOption{gateway.WithoutSlowRequest()}
		if opts != nil {
			own = append(own, opts(s)...)
		}
		return own
	})
}

// spent returns how long requests for a were at each stage, in hundredths of a
// second, where it is any.
func (s *slowRig) spent() map[gateway.Stage]time.Duration {
	s.Helper()
	out := map[gateway.Stage]time.Duration{}
	for _, stage := range s.gw.Upstream("a").Stats().Stages {
		if d := stage.Total.Truncate(10 * blink); d > 0 {
			out[stage.Stage] = d
		}
	}
	return out
}

// stageOf returns the row of a stage; the zero one: there is none.
func stageOf(s *gateway.UpstreamStats, stage gateway.Stage) (row gateway.StageStats) {
	if i := slices.IndexFunc(s.Stages, func(row gateway.StageStats) bool { return row.Stage == stage }); i >= 0 {
		row = s.Stages[i]
	}
	return row
}

// firstSluggish answers the first request after a while, and others after another.
func firstSluggish(first, others time.Duration) func(*testnet.Conn) {
	var seen atomic.Int32
	return func(c *testnet.Conn) {
		for c.ReadRequest() != nil {
			wait := others
			if seen.Add(1) == 1 {
				wait = first
			}
			if !c.Pause(wait) || !c.Send(testnet.Answer(200, "", "ok")) {
				return
			}
		}
	}
}

func TestTimeShowsInItsStage(t *testing.T) {
	const second = time.Second
	type spent = map[gateway.Stage]time.Duration
	quick := testnet.Reply(200, "", "ok")
	cached := func(s *slowRig) gateway.ServiceOption { return gateway.WithCache(newSlowCache(s.T)) }
	for _, tt := range []struct {
		name   string
		script func(*testnet.Conn)
		opts   func(*slowRig) []gateway.ServiceOption
		fields []string
		times  int           // that it is asked for; 0: once
		before time.Duration // another request is under way for so long; it counts too
		want   spent
	}{
		{name: "header", script: sluggish(3 * second), want: spent{"header": 3 * second, "total": 3 * second}},
		{name: "header of a round tripper's", script: sluggish(3 * second), opts: func(s *slowRig) []gateway.ServiceOption {
			rt := &http.Transport{DialContext: s.wire.DialContext}
			s.Cleanup(rt.CloseIdleConnections)
			return []gateway.ServiceOption{gateway.WithTransport(rt)}
		}, want: spent{"header": 3 * second, "total": 3 * second}},
		{name: "body", script: func(c *testnet.Conn) {
			for c.ReadRequest() != nil && c.Send(testnet.Answer(200, "Content-Length: 4", "ok")) && c.Pause(3*second) && c.Send("ok") {
			}
		}, want: spent{"body": 3 * second, "total": 3 * second}},
		{name: "all of the body", script: func(c *testnet.Conn) {
			for c.ReadRequest() != nil && c.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n") && c.Pause(3*second) && c.Send("ok") {
			}
		}, want: spent{"body": 3 * second, "total": 3 * second}},
		{name: "connect", script: quick, opts: func(s *slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithDialContext(func(ctx context.Context, network, address string) (net.Conn, error) {
				time.Sleep(3 * second)
				return s.wire.DialContext(ctx, network, address)
			})}
		}, want: spent{"connect": 3 * second, "total": 3 * second}},
		{name: "a full pool", before: second, script: sluggish(3 * second), opts: func(*slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithMaxConns(1), gateway.WithAcquireTimeout(0)}
		}, want: spent{"pool": 2 * second, "own": 2 * second, "header": 6 * second, "total": 8 * second}},
		{name: "a full queue", before: second, script: sluggish(3 * second), opts: func(*slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithMaxConcurrency(1, 1, 0)}
		}, want: spent{"queue": 2 * second, "own": 2 * second, "header": 6 * second, "total": 8 * second}},
		{name: "hooks", script: quick, opts: func(*slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{
				gateway.WithRewrite(func(*http.Request) { time.Sleep(second) }),
				gateway.WithModifyResponse(func(*http.Response) error { time.Sleep(2 * second); return nil }),
			}
		}, want: spent{"hooks": 3 * second, "own": 3 * second, "total": 3 * second}},
		{name: "a hit", script: testnet.Reply(200, "Cache-Control: max-age=60", "ok"), times: 2, opts: func(s *slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{cached(s), gateway.WithCachePartition(func(*http.Request) string {
				time.Sleep(3 * second)
				return ""
			})}
		}, want: spent{"cache": 6 * second, "own": 6 * second, "total": 6 * second}},
		{name: "collapse", before: second, script: sluggish(3 * second), opts: func(s *slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{cached(s)}
		}, want: spent{"collapse": 2 * second, "header": 3 * second, "total": 5 * second}},
		{name: "backoff, and the header of both attempts", script: func(c *testnet.Conn) {
			for c.ReadRequest() != nil && c.Pause(second) && c.Send(testnet.Answer(503, "Retry-After: 3", "no")) {
			}
		}, opts: func(*slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithRetries(1)}
		}, want: spent{"backoff": 3 * second, "header": 2 * second, "total": 5 * second}},
		{name: "a stream", script: func(c *testnet.Conn) {
			c.ReadRequest()
			_ = c.Send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n") && c.Pause(20*second)
		}, want: spent{"stream": 20 * second, "total": 20 * second}},
		{name: "hedges, up to the header of the faster", script: firstSluggish(9*second, second), opts: func(*slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithHedge(second)}
		}, want: spent{"header": 2 * second, "total": 2 * second}},
		{name: "one attempt after the other", script: firstSluggish(9*second, second), opts: func(*slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithAttemptTimeout(2 * second), gateway.WithRetryBackoff(second/1000, second/1000)}
		}, want: spent{"header": 3 * second, "total": 3 * second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newProfiled(t, tt.script, tt.opts)
				var first sync.WaitGroup
				n := max(tt.times, 1)
				if tt.before > 0 {
					n++
					first.Go(func() { s.get("/a/x") })
					time.Sleep(tt.before)
				}
				for range max(tt.times, 1) {
					s.get("/a/x", tt.fields...)
				}
				first.Wait()
				assert.Equal(t, tt.want, s.spent())
				stats := s.gw.Upstream("a").Stats()
				assert.EqualValues(t, n, stats.Requests)
				assert.EqualValues(t, n, stageOf(&stats, gateway.StageTotal).Count)
				assert.EqualValues(t, n, stageOf(&stats, gateway.StageOwn).Count)
				assert.Equal(t, stats.Latency, stageOf(&stats, gateway.StageTotal).Latency)
				var parts time.Duration
				for _, row := range stats.Stages {
					assert.LessOrEqual(t, row.Count, uint64(n), row.Stage, "a request counts once")
					if row.Stage != gateway.StageOwn && row.Stage != gateway.StageTotal {
						parts += row.Total
					}
				}
				assert.Equal(t, stats.Latency.Total, parts, "the stages are all of it")
			})
		})
	}
}

// Which stages a request was at, whether or not it waited there.
func TestStagesThatRequestsAreAt(t *testing.T) {
	answer := testnet.Reply(200, "Cache-Control: max-age=60", "ok")
	for _, tt := range []struct {
		name string
		opts func(*slowRig) []gateway.ServiceOption
		want [2]string // of the first request, and of the second
	}{
		{"a pass", nil, [2]string{"route connect header body own total", "route header body own total"}},
		{"a miss, and a hit", func(s *slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithCache(newSlowCache(s.T))}
		}, [2]string{"cache connect header body own total", "cache own total"}},
		{"hooks", func(*slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithRewrite(func(*http.Request) {})}
		}, [2]string{"route hooks connect header body own total", "route hooks header body own total"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newProfiled(t, answer, tt.opts)
				for i, want := range tt.want {
					s.gw.ResetStats()
					require.Equal(t, 200, s.get("/a/x").Code, i)
					var at []string
					for _, row := range s.gw.Upstream("a").Stats().Stages {
						assert.EqualValues(t, 1, row.Count)
						at = append(at, string(row.Stage))
					}
					assert.Equal(t, want, strings.Join(at, " "))
				}
			})
		})
	}
}

// A client that is slow to read what is stored is no part of the gateway's own.
func TestSlowReaderOfAHitIsInTheBody(t *testing.T) {
	for length, want := range map[int][2]gateway.Stage{2048: {gateway.StageCache, gateway.StageOwn}, 2049: {gateway.StageBody, gateway.StageTotal}} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newProfiled(t, testnet.Reply(200, "Cache-Control: max-age=60", strings.Repeat("x", length)), func(s *slowRig) []gateway.ServiceOption {
					return []gateway.ServiceOption{gateway.WithCache(newSlowCache(s.T))}
				})
				s.get("/a/x")
				s.gw.ResetStats()
				w := slowWriter{httptest.NewRecorder(), time.Second}
				s.gw.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/a/x", http.NoBody))
				require.Contains(t, w.Header().Get("Cache-Status"), "hit")
				require.Equal(t, length, w.Body.Len())
				assert.Equal(t, map[gateway.Stage]time.Duration{want[0]: time.Second, want[1]: time.Second, gateway.StageTotal: time.Second}, s.spent())
			})
		})
	}
}

// slowWriter takes its time for each write.
type slowWriter struct {
	*httptest.ResponseRecorder
	wait time.Duration
}

func (w slowWriter) Write(p []byte) (int, error) {
	time.Sleep(w.wait)
	return w.ResponseRecorder.Write(p)
}

// However a request ends it is measured once.
func TestEveryEndIsMeasuredOnce(t *testing.T) {
	const second = time.Second
	for _, tt := range []struct {
		name   string
		target string
		script func(*testnet.Conn)
		opts   []gateway.ServiceOption
		leaves time.Duration // the client; zero: it waits
		failed uint64
		stage  gateway.Stage
		spent  time.Duration // there
	}{
		{name: "5xx", target: "/a/x", script: testnet.Reply(500, "", "no"), failed: 1, stage: gateway.StageBody},
		{name: "no service", target: "/b/x", script: testnet.Reply(200, "", "ok"), failed: 1, stage: gateway.StageRoute},
		{name: "a timeout", target: "/a/x", script: sluggish(9 * second), opts: []gateway.ServiceOption{gateway.WithTimeout(second)}, failed: 1, stage: gateway.StageHeader, spent: second},
		{name: "a client that leaves", target: "/a/x", script: sluggish(9 * second), leaves: second, stage: gateway.StageHeader, spent: second},
		{name: "a panic", target: "/a/x", script: sluggish(0), opts: []gateway.ServiceOption{gateway.WithRewrite(func(*http.Request) { time.Sleep(second); panic("no") })}, failed: 1, stage: gateway.StageHooks, spent: second},
		{name: "an abort", target: "/a/x", script: func(c *testnet.Conn) {
			c.ReadRequest()
			_ = c.Send(testnet.Answer(200, "Content-Length: 9", "ok")) && c.Pause(second)
		}, failed: 1, stage: gateway.StageBody, spent: second},
		{name: "no connection", target: "/a/x", script: sluggish(0), opts: []gateway.ServiceOption{gateway.WithoutRetries(), gateway.WithDialContext(func(context.Context, string, string) (net.Conn, error) {
			time.Sleep(second)
			return nil, errors.New("no")
		})}, failed: 1, stage: gateway.StageConnect, spent: second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newProfiled(t, tt.script, func(*slowRig) []gateway.ServiceOption { return tt.opts })
				r := httptest.NewRequest(http.MethodGet, tt.target, http.NoBody)
				if tt.leaves > 0 {
					ctx, cancel := context.WithTimeout(t.Context(), tt.leaves)
					defer cancel()
					left, leave := context.WithCancel(context.WithoutCancel(ctx))
					defer context.AfterFunc(ctx, leave)()
					r = r.WithContext(left)
				}
				func() {
					defer func() { _ = recover() }() // http.ErrAbortHandler
					s.gw.ServeHTTP(httptest.NewRecorder(), r)
				}()
				synctest.Wait()
				stats := s.gw.Stats()
				assert.EqualValues(t, 1, stats.Requests)
				assert.Zero(t, stats.InFlight)
				assert.Equal(t, tt.failed, stats.Failed)
				row := stageOf(&stats.UpstreamStats, tt.stage)
				assert.EqualValues(t, 1, row.Count)
				assert.InDelta(t, tt.spent, row.Total, float64(2*blink))
				assert.EqualValues(t, 1, stageOf(&stats.UpstreamStats, gateway.StageTotal).Count)
			})
		})
	}
}

// A window has what ended in it; a reset is of what is since then, and of
// nothing else.
func TestWindowsAndReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newProfiled(t, sluggish(time.Second), nil)
		windows := []gateway.Window{gateway.SinceReset, gateway.LastMinute, gateway.LastTenMinutes}
		check := func(want ...uint64) {
			t.Helper()
			for i, w := range windows {
				for name, stats := range map[string]gateway.UpstreamStats{"gateway": s.gw.StatsOver(w).UpstreamStats, "service": s.gw.Upstream("a").StatsOver(w)} {
					assert.Equal(t, want[i], stats.Requests, "%s, window %d", name, w)
					assert.Equal(t, want[i], stats.Latency.Count, "%s, window %d", name, w)
					assert.Equal(t, want[i], stageOf(&stats, gateway.StageHeader).Count, "%s, window %d", name, w)
					if want[i] > 0 {
						assert.InDelta(t, time.Second, stats.Latency.P99, float64(time.Second/64))
						lasted(t, time.Second, stats.Latency.Min)
					}
				}
			}
			assert.Equal(t, s.gw.Stats(), s.gw.StatsOver(gateway.SinceReset))
		}
		ask := func(times int) {
			for range times {
				s.get("/a/x")
			}
		}
		check(0, 0, 0)
		ask(5)
		check(5, 5, 5)
		time.Sleep(80 * time.Second)
		check(5, 0, 5)
		ask(2)
		s.gw.ResetStats()
		check(0, 2, 7)
		metrics := scrape(t, s.gw)
		assert.EqualValues(t, 7, metrics[`gateway_requests_total{gateway_service="a"}`], "what is exported goes on")
		ask(1)
		check(1, 3, 8)
		over := func(w gateway.Window) time.Duration { return s.gw.StatsOver(w).Over }
		lasted(t, time.Second, over(gateway.SinceReset))
		assert.GreaterOrEqual(t, over(gateway.LastMinute), time.Minute)
		assert.Less(t, over(gateway.LastMinute), 70*time.Second)
		assert.Equal(t, s.gw.Stats().Uptime, over(gateway.LastTenMinutes), "there is no more")
		time.Sleep(20 * time.Minute)
		check(1, 0, 0)
		s.gw.Upstream("a").ResetStats()
		check(0, 0, 0)
	})
}

func TestStatsAsJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newProfiled(t, sluggish(time.Second), nil)
		s.get("/a/x")
		var told struct {
			Over   int64            `json:"over_ns"`
			Stages []map[string]any `json:"stages"`
		}
		w := handle(t, s.gw.MetricsHandler(), testnet.Get("/metrics", "Accept: application/json"), nil)
		require.NoError(t, json.Unmarshal([]byte(w.body.String()), &told))
		assert.GreaterOrEqual(t, told.Over, int64(time.Second))
		require.Len(t, told.Stages, 6)
		assert.Equal(t, "header", told.Stages[2]["stage"])
		assert.Equal(t, []string{"count", "max_ns", "mean_ns", "min_ns", "p50_ns", "p95_ns", "p99_ns", "stage", "total_ns"}, slices.Sorted(maps.Keys(told.Stages[2])))
		assert.InDelta(t, 1e9, told.Stages[2]["total_ns"], float64(blink))
		time.Sleep(2 * time.Minute)
		for query, want := range map[string]int{"": 1, "?window=10m": 1, "?window=1m": 0, "?window=1h": -1} {
			w := handle(t, s.gw.MetricsHandler(), testnet.Get("/metrics"+query, "Accept: application/json"), nil)
			var stats struct{ Requests int }
			if want < 0 {
				assert.Equal(t, 400, w.status)
				continue
			}
			require.NoError(t, json.Unmarshal([]byte(w.body.String()), &stats))
			assert.Equal(t, want, stats.Requests, query)
		}
		var back gateway.Stats
		require.NoError(t, json.Unmarshal([]byte(w.body.String()), &back))
		assert.Equal(t, s.gw.Stats().Stages, back.Stages)
	})
}

// The metric of the own part says what the profile says.
func TestOwnPartIsExported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newObserved(t)
		gw := o.gateway(gateway.WithService("a", "http://a.test",
			gateway.WithRewrite(func(*http.Request) { time.Sleep(time.Second) }),
			gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
				time.Sleep(3 * time.Second)
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
			}))))
		for _, target := range []string{"/a/x", "/a/y", "/b/x"} {
			handle(t, gw, testnet.Get(target), nil)
		}
		var data metricdata.ResourceMetrics
		require.NoError(t, o.meter.Collect(context.Background(), &data))
		sums := map[string]float64{}
		for _, m := range data.ScopeMetrics[0].Metrics {
			if m.Name == "gateway.request.own.duration" {
				for _, p := range m.Data.(metricdata.Histogram[float64]).DataPoints {
					service, _ := p.Attributes.Value("gateway.service")
					sums[service.AsString()] = p.Sum
				}
			}
		}
		assert.Equal(t, map[string]float64{"a": 2, "": 0}, sums)
		stats := gw.Stats()
		assert.Equal(t, 2*time.Second, stageOf(&stats.UpstreamStats, gateway.StageOwn).Total)
		assert.Equal(t, 8*time.Second, stats.Latency.Total)
	})
}
