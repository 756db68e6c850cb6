package e2e_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// slowRig is a gateway in a bubble whose slow requests are kept.
type slowRig struct {
	*testing.T
	gw   *gateway.Gateway
	up   *testnet.Up
	wire *testnet.PipeListener
	logs *testnet.LogRecorder

	mu      sync.Mutex
	reports []gateway.SlowRequest
}

// newSlowRig has the service a behind script, with reports beyond threshold.
func newSlowRig(t *testing.T, script func(*testnet.Conn), threshold time.Duration, opts func(*slowRig) []gateway.ServiceOption) *slowRig {
	t.Helper()
	s := &slowRig{T: t, wire: testnet.NewPipeListener(), logs: testnet.NewLogRecorder()}
	s.up = testnet.UpstreamOn(t, s.wire, script)
	var own []gateway.ServiceOption
	if opts != nil {
		own = opts(s)
	}
	var err error
	s.gw, err = gateway.New(
		gateway.WithLogger(s.logs.Logger()), gateway.WithPropagator(propagation.TraceContext{}),
		gateway.WithDialContext(s.wire.DialContext), gateway.WithSlowRequest(threshold, s.note),
		gateway.WithService("a", s.up.URL, own...),
	)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.gw.Shutdown(context.Background())) })
	return s
}

func (s *slowRig) note(r gateway.SlowRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports = append(s.reports, r)
}

// all returns what was reported so far.
func (s *slowRig) all() []gateway.SlowRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.reports)
}

// get asks for a target and waits for the whole answer.
func (s *slowRig) get(target string, fields ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, http.NoBody)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.gw.ServeHTTP(w, r)
	return w
}

// sluggish answers every request after a while.
func sluggish(d time.Duration) func(*testnet.Conn) {
	return func(c *testnet.Conn) {
		for c.ReadRequest() != nil && c.Pause(d) && c.Send(testnet.Answer(200, "Cache-Control: max-age=60", "ok")) {
		}
	}
}

const looks = 50*time.Millisecond + blink // how late a report may be

func TestSlowRequestIsReportedWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowRig(t, sluggish(20*time.Second), 0, nil)
		ended := make(chan int, 1)
		go func() {
			ended <- s.get("/a/x/%41?token=secret-canary", "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").Code
		}()
		time.Sleep(5*time.Second - blink)
		require.Empty(t, s.all())
		time.Sleep(looks + blink)
		require.Len(t, s.all(), 1)
		require.Empty(t, ended, "it still runs")
		r := s.all()[0]
		assert.Equal(t, []string{"a", "GET", "/a/x/%41", "0af7651916cd43dd8448eb211c80319c"}, []string{r.Service, r.Method, r.Path, r.TraceID})
		assert.Equal(t, gateway.StageHeader, r.Stage)
		assert.GreaterOrEqual(t, r.Elapsed, 5*time.Second)
		assert.LessOrEqual(t, r.Elapsed, 5*time.Second+looks)
		assert.InDelta(t, r.Elapsed, r.InStage, float64(looks))
		assert.Less(t, r.Own, looks)
		assert.Equal(t, 1, r.Attempts)
		assert.Equal(t, strings.TrimPrefix(s.up.URL, "http://"), r.Endpoint)
		assert.Zero(t, r.Dropped)
		assert.Equal(t, 200, <-ended)
		assert.Len(t, s.all(), 1, "once")
		lines := s.logs.Find(t, "gateway: slow request")
		require.Len(t, lines, 1)
		assert.Equal(t, "WARN", lines[0]["level"])
		assert.Equal(t, "/a/x/%41", lines[0]["url.path"])
		assert.Equal(t, []any{"/a/{path...}", "/a/{path...}"}, []any{r.Route, lines[0]["http.route"]})
		assert.Equal(t, "header", lines[0]["gateway.stage"])
		assert.NotContains(t, s.logs.Text(), "secret-canary")
	})
}

func TestSlowRequestSaysWhatItIsAt(t *testing.T) {
	const second = time.Second
	quick := testnet.Reply(200, "", "ok")
	for _, tt := range []struct {
		stage  gateway.Stage
		own    bool // it is the gateway's own part
		script func(*testnet.Conn)
		opts   func(*slowRig) []gateway.ServiceOption
		before time.Duration // another request is under way for so long
	}{
		{stage: gateway.StageHeader, script: sluggish(3 * second)},
		{stage: gateway.StageHeader, script: sluggish(3 * second), opts: func(*slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithHedge(second / 10)}
		}},
		{stage: gateway.StageHeader, script: sluggish(3 * second), opts: func(s *slowRig) []gateway.ServiceOption {
			rt := &http.Transport{DialContext: s.wire.DialContext}
			s.Cleanup(rt.CloseIdleConnections)
			return []gateway.ServiceOption{gateway.WithTransport(rt)}
		}},
		{stage: gateway.StageBody, script: func(c *testnet.Conn) {
			for c.ReadRequest() != nil && c.Send(testnet.Answer(200, "Content-Length: 4", "ok")) && c.Pause(3*second) && c.Send("ok") {
			}
		}},
		{stage: gateway.StageConnect, script: quick, opts: func(s *slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithDialContext(func(ctx context.Context, network, address string) (net.Conn, error) {
				time.Sleep(3 * second)
				return s.wire.DialContext(ctx, network, address)
			})}
		}},
		{stage: gateway.StagePool, own: true, before: second / 10, script: sluggish(3 * second), opts: func(*slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithMaxConns(1), gateway.WithAcquireTimeout(0)}
		}},
		{stage: gateway.StageQueue, own: true, before: second / 10, script: sluggish(3 * second), opts: func(*slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithMaxConcurrency(1, 1, 0)}
		}},
		{stage: gateway.StageHooks, own: true, script: quick, opts: func(*slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithRewrite(func(*http.Request) { time.Sleep(3 * second) })}
		}},
		{stage: gateway.StageCache, own: true, script: quick, opts: func(s *slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithCache(newSlowCache(s.T)), gateway.WithCachePartition(func(*http.Request) string {
				time.Sleep(3 * second)
				return ""
			})}
		}},
		{stage: gateway.StageCollapse, before: second * 11 / 10, script: sluggish(3 * second), opts: func(s *slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithCache(newSlowCache(s.T))}
		}},
		{stage: gateway.StageBackoff, script: testnet.Reply(503, "Retry-After: 3", "no"), opts: func(*slowRig) []gateway.ServiceOption {
			return []gateway.ServiceOption{gateway.WithRetries(1)}
		}},
	} {
		t.Run(string(tt.stage), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSlowRig(t, tt.script, second, tt.opts)
				var first sync.WaitGroup
				defer first.Wait()
				if tt.before > 0 {
					first.Go(func() { s.get("/a/x") })
					time.Sleep(tt.before)
				}
				s.get("/a/x")
				at := slices.IndexFunc(s.all(), func(r gateway.SlowRequest) bool { return r.Stage == tt.stage })
				require.GreaterOrEqual(t, at, 0, "%+v", s.all())
				r := s.all()[at]
				if tt.own {
					lastsAbout(t, second/10, r.Elapsed)
					assert.GreaterOrEqual(t, r.Own, second/10)
				} else {
					lastsAbout(t, second, r.Elapsed)
					assert.Less(t, r.Own, second/10)
				}
			})
		})
	}
}

func lastsAbout(t *testing.T, want, took time.Duration) {
	t.Helper()
	assert.GreaterOrEqual(t, took, want)
	assert.LessOrEqual(t, took, want+2*looks)
}

func newSlowCache(t *testing.T) *gateway.Cache {
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, cache.Shutdown(context.Background())) })
	return cache
}

// An event stream is meant to last.
func TestStreamsAreNotSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowRig(t, func(c *testnet.Conn) {
			c.ReadRequest()
			_ = c.Send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n") && c.Pause(time.Minute/2)
		}, time.Second, nil)
		assert.Equal(t, 200, s.get("/a/x").Code)
		assert.Empty(t, s.all())
	})
}

// However many are slow, one a second is reported, and says how many were not.
func TestSlowRequestsAreReportedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowRig(t, sluggish(10*time.Second), 2*time.Second, nil)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { s.get("/a/x") })
		}
		time.Sleep(3 * time.Second)
		require.Len(t, s.all(), 1)
		s.get("/a/x")
		all.Wait()
		require.Len(t, s.all(), 2)
		assert.EqualValues(t, 4, s.all()[1].Dropped)
		assert.Equal(t, 2, s.all()[0].Attempts+s.all()[1].Attempts)
	})
}

func TestPanicOfTheSlowRequestHookIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wire, logs := testnet.NewPipeListener(), testnet.NewLogRecorder()
		up := testnet.UpstreamOn(t, wire, sluggish(3*time.Second))
		gw, err := gateway.New(gateway.WithLogger(logs.Logger()), gateway.WithService("a", up.URL, gateway.WithDialContext(wire.DialContext),
			gateway.WithSlowRequest(time.Second, func(gateway.SlowRequest) { panic("no") })))
		require.NoError(t, err)
		for range 2 {
			gw.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/a/x", http.NoBody))
		}
		require.Len(t, logs.Find(t, "gateway: panic"), 2, "one for each report: the looking goes on")
		assert.Equal(t, "WithSlowRequest", logs.Find(t, "gateway: panic")[0]["gateway.where"])
		require.NoError(t, gw.Shutdown(t.Context()))
	})
}

// A service decides for itself, without a hook there is the line, and a service
// of its own watches as a gateway does.
func TestSlowRequestsOfOneService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wire, logs := testnet.NewPipeListener(), testnet.NewLogRecorder()
		up := testnet.UpstreamOn(t, wire, sluggish(3*time.Second))
		dial := gateway.WithDialContext(wire.DialContext)
		gw, err := gateway.New(gateway.WithLogger(logs.Logger()), dial, gateway.WithSlowRequest(time.Second, nil),
			gateway.WithService("off", up.URL, gateway.WithoutSlowRequest()),
			gateway.WithService("later", up.URL, gateway.WithSlowRequest(4*time.Second, nil)),
			gateway.WithService("on", up.URL))
		require.NoError(t, err)
		alone, err := gateway.NewUpstream("alone", up.URL, gateway.WithLogger(logs.Logger()), dial, gateway.WithSlowRequest(time.Second, nil))
		require.NoError(t, err)
		for h, target := range map[http.Handler]string{gw: "/off/x", gw.Upstream("later"): "/x", gw.Upstream("on"): "/x", alone: "/x"} {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", target, http.NoBody))
		}
		var services []any
		for _, line := range logs.Find(t, "gateway: slow request") {
			services = append(services, line["gateway.service"])
		}
		assert.ElementsMatch(t, []any{"on", "alone"}, services)
		require.NoError(t, gw.Shutdown(t.Context()))
		require.NoError(t, alone.Shutdown(t.Context()))
	})
}

func BenchmarkSlowRequest(b *testing.B) {
	for name, opts := range map[string][]gateway.ServiceOption{"watched=no": nil, "watched=yes": {gateway.WithSlowRequest(0, nil)}} {
		b.Run(name, func(b *testing.B) {
			rt := gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: 0, Body: http.NoBody, Request: r}, nil
			}))
			gw, err := gateway.New(gateway.WithService("a", "http://a.test", append(opts, rt)...))
			require.NoError(b, err)
			r := httptest.NewRequest(http.MethodGet, "/a/x?y=1", http.NoBody)
			w := &recorder{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				gw.ServeHTTP(w, r)
			}
			require.NoError(b, gw.Shutdown(b.Context()))
		})
	}
}
