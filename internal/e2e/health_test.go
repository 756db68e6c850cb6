package e2e_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
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

// report is the health document as others read it.
type report struct {
	Status string
	Output string
	Checks map[string][]struct {
		ComponentID   string
		ComponentType string
		ObservedValue any
		ObservedUnit  string
		Status        string
		Time          time.Time
		Output        string
	}
}

func reportOf(t *testing.T, h http.Handler, target string) (code int, r report) {
	t.Helper()
	w := handle(t, h, testnet.Get(target), nil)
	require.NoError(t, json.Unmarshal([]byte(w.body.String()), &r), w.body.String())
	return w.status, r
}

// asked is an upstream that notes what it is probed for, and fails while it is
// told to.
type asked struct {
	*httptest.Server
	probes, others, bad atomic.Int64
	fails               atomic.Bool
}

func newAsked(t *testing.T) *asked {
	p := new(asked)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.HasPrefix(r.UserAgent(), "gateway-health/"):
			p.others.Add(1)
		case r.Header["Authorization"] != nil || r.Header["X-Key"] != nil || r.RequestURI != "/base/live?deep=1" || r.Method != "GET":
			p.bad.Add(1)
		default:
			p.probes.Add(1)
		}
		if p.fails.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(func() {
		p.Close()
		assert.Zero(t, p.bad.Load(), "probes are for the health path, without credentials")
	})
	return p
}

func (p *asked) address() string { return p.Listener.Addr().String() }

func TestEachReplicaIsAskedOnceHoweverManyWantToKnow(t *testing.T) {
	a, b, c := newAsked(t), newAsked(t), newAsked(t)
	gw, err := gateway.New(
		gateway.WithHealthPath("/live?deep=1"),
		gateway.WithService("pair", a.URL+"/base", gateway.WithReplicas(gateway.Replica{URL: b.URL + "/base"}), gateway.WithBearerToken("c4nary-token")),
		gateway.WithService("one", c.URL+"/base", gateway.WithHeader("X-Key", "c4nary-key")),
	)
	require.NoError(t, err)
	h := gw.HealthHandler()
	gone, leave := context.WithCancel(t.Context())
	leave()
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			ctx := t.Context()
			if i%3 == 0 {
				ctx = gone
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", []string{"/health", "/health?verbose"}[i%2], nil))
			if i%3 != 0 {
				assert.Equal(t, 200, w.Code)
				assert.Contains(t, w.Body.String(), `{"status":"pass"`)
			}
		})
	}
	wg.Wait()
	most := 1 + int64(time.Since(start)/time.Second)
	for _, up := range []*asked{a, b, c} {
		assert.LessOrEqual(t, up.probes.Load(), most)
		assert.Positive(t, up.probes.Load())
		assert.Zero(t, up.others.Load())
	}

	code, r := reportOf(t, h, "/health")
	assert.Equal(t, 200, code)
	assert.Len(t, r.Checks, 2)
	for _, name := range []string{"pair", "one"} {
		require.Len(t, r.Checks[name+":responseTime"], 1)
		check := r.Checks[name+":responseTime"][0]
		assert.Equal(t, "pass component ms", check.Status+" "+check.ComponentType+" "+check.ObservedUnit)
		assert.Positive(t, check.ObservedValue)
		assert.Empty(t, check.ComponentID, "who asks for little is not told where the services are")
		assert.WithinDuration(t, time.Now(), check.Time, time.Minute)
	}
	_, r = reportOf(t, h, "/health?verbose")
	assert.Len(t, r.Checks, 8)
	for _, key := range []string{"pair:responseTime", "pair:health", "pair:connections"} {
		require.Len(t, r.Checks[key], 2)
		assert.Equal(t, []string{a.address(), b.address()}, []string{r.Checks[key][0].ComponentID, r.Checks[key][1].ComponentID}, key)
	}
	assert.Equal(t, "healthy", r.Checks["pair:health"][0].ObservedValue)
	assert.Equal(t, "closed", r.Checks["pair:breaker"][0].ObservedValue)
	assert.Equal(t, map[string]any{"open": 1.0, "idle": 1.0, "in_use": 0.0, "waiting": 0.0}, r.Checks["one:connections"][0].ObservedValue)
	assert.NotContains(t, fmt.Sprint(r), "c4nary")

	_, r = reportOf(t, gw.Upstream("one").HealthHandler(), "/?verbose")
	assert.Len(t, r.Checks, 4, "of this service alone")
	require.NoError(t, gw.Shutdown(t.Context()))
}

func TestABrokenServiceIsWhatThePolicySays(t *testing.T) {
	for name, c := range map[string]struct {
		policy         gateway.HealthPolicy
		status         string
		full, ready    int
		probesForReady int64
	}{
		"warn":    {gateway.HealthWarn, "warn", 200, 200, 0},
		"fail":    {gateway.HealthFail, "fail", 503, 200, 0},
		"unready": {gateway.HealthUnready, "fail", 503, 503, 1},
	} {
		t.Run(name, func(t *testing.T) {
			ill := newAsked(t)
			ill.fails.Store(true)
			gw, err := gateway.New(
				gateway.WithHealthPath("/live?deep=1"), gateway.WithHealthPolicy(gateway.HealthFail),
				gateway.WithService("ill", ill.URL+"/base", gateway.WithHealthPolicy(c.policy)),
			)
			require.NoError(t, err)
			h := gw.HealthHandler()
			assert.Equal(t, c.ready, handle(t, h, testnet.Get("/readyz"), nil).status)
			assert.Equal(t, c.probesForReady, ill.probes.Load())
			assert.Equal(t, 200, handle(t, h, testnet.Get("/livez"), nil).status)
			code, r := reportOf(t, h, "/any/where")
			assert.Equal(t, c.full, code)
			assert.Equal(t, c.status, r.Status)
			assert.Equal(t, c.status, r.Checks["ill:responseTime"][0].Status)
			assert.Equal(t, "server error: status 503", r.Checks["ill:responseTime"][0].Output)
			require.NoError(t, gw.Shutdown(t.Context()))
		})
	}
}

// A breaker that refuses is a broken service, though it answers probes. Once its
// time is over readiness comes back by itself: without requests nobody would close
// it.
func TestReadinessDoesNotWaitForTheBreakersTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wire := testnet.NewPipeListener()
		up := testnet.UpstreamOn(t, wire, testnet.Respond(func(r *testnet.Request) string {
			if r.Target == "/fail" {
				return testnet.Answer(500, "", "")
			}
			return testnet.Answer(200, "", "")
		}))
		u, err := gateway.NewUpstream("a", up.URL, gateway.WithDialContext(wire.DialContext), gateway.WithBreaker(1, 1),
			gateway.WithBreakerTimes(10*time.Second, time.Minute, 1), gateway.WithHealthPolicy(gateway.HealthUnready))
		require.NoError(t, err)
		h := u.HealthHandler()
		state := func() string {
			_, r := reportOf(t, h, "/health?verbose")
			return fmt.Sprint(r.Status, " ", r.Checks["a:breaker"][0].ObservedValue, " ", handle(t, h, testnet.Get("/readyz"), nil).status)
		}
		assert.Equal(t, "pass closed 200", state())
		assert.Equal(t, 500, handle(t, u, testnet.Get("/fail"), nil).status)
		assert.Equal(t, "fail open 503", state())
		time.Sleep(time.Minute)
		assert.Equal(t, "warn open 200", state())
		assert.Equal(t, 200, handle(t, u, testnet.Get("/x"), nil).status)
		assert.Equal(t, "pass closed 200", state())
		require.NoError(t, u.Shutdown(t.Context()))
	})
}

func TestHealthIsKeptForASecondAndIsNobodysWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Respond(func(r *testnet.Request) string {
			time.Sleep(500 * time.Millisecond)
			return testnet.Answer(200, "", "")
		}))
		h := b.gw.HealthHandler()
		gone, leave := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer leave()
		start := time.Now()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(gone, "GET", "/health", nil))
		assert.Equal(t, 100*time.Millisecond, time.Since(start), "who leaves does not wait")
		assert.Contains(t, w.Body.String(), `{"status":"warn"`)
		assert.Contains(t, w.Body.String(), `"output":"no answer in time"`)
		time.Sleep(time.Second) // its answer has come meanwhile
		start = time.Now()
		_, r := reportOf(t, h, "/health")
		assert.Equal(t, "pass", r.Status)
		assert.Zero(t, time.Since(start))
		assert.Len(t, b.up.Journal(), 1)
		time.Sleep(time.Second)
		_, r = reportOf(t, h, "/health")
		assert.InDelta(t, 500, r.Checks["a:responseTime"][0].ObservedValue, 1)
		assert.Len(t, b.up.Journal(), 2)
	})
}

// What counts is the status: content without an end is read for as long as there is
// time, and no longer.
func TestHealthIsTheStatusInTime(t *testing.T) {
	const endless = "\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, tt := range []struct{ head, piece, want string }{
		{"HTTP/1.1 200 OK" + endless, "1\r\nx\r\n", "pass"},
		{"HTTP/1.1 500 No" + endless, "1\r\nx\r\n", "server error: status 500"},
		{"HTTP/1.1 200 OK\r\nX: ", "x", "no answer in time"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(t, func(c *testnet.Conn) {
				c.ReadRequest()
				for more := c.Send(tt.head); more && c.Pause(99*time.Millisecond); {
					more = c.Send(tt.piece)
				}
			})
			start := time.Now()
			_, r := reportOf(t, b.gw.HealthHandler(), "/health")
			lasted(t, time.Second, time.Since(start))
			assert.Equal(t, tt.want, cmp.Or(r.Checks["a:responseTime"][0].Output, r.Status))
		})
	}
}

// A context that ends, as under a server whose base context has, or within the
// app's own time limit, is no sign of health.
func TestWhoHasNoTimeIsToldNoGoodNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, (*testnet.Conn).Wait, gateway.WithHealthPolicy(gateway.HealthUnready), gateway.WithHealthTimeout(time.Second))
		for _, path := range []string{"/readyz", "/health", "/health?verbose"} {
			for _, ctx := range []context.Context{ended(), lasting(t, 100*time.Millisecond)} {
				w := httptest.NewRecorder()
				b.gw.HealthHandler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", path, nil))
				assert.Equal(t, 503, w.Code, path)
				assert.Contains(t, w.Body.String(), `{"status":"fail"`, path)
			}
		}
		w := httptest.NewRecorder()
		b.gw.HealthHandler().ServeHTTP(w, httptest.NewRequestWithContext(ended(), "GET", "/livez", nil))
		assert.Equal(t, 200, w.Code)
	})
}

func TestShutdownDoesNotWaitForProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, (*testnet.Conn).Wait, gateway.WithHealthTimeout(time.Hour))
		h := b.gw.HealthHandler()
		w, done := httptest.NewRecorder(), make(chan string)
		go func() {
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/health", nil))
			done <- w.Body.String()
		}()
		synctest.Wait()
		start := time.Now()
		require.NoError(t, b.gw.Shutdown(t.Context()))
		lasted(t, 0, time.Since(start))
		assert.Contains(t, <-done, `"output":"shut down"`)
		code, r := reportOf(t, h, "/health")
		assert.Equal(t, 503, code)
		assert.Equal(t, "fail draining", r.Status+" "+r.Output)
	})
}

func TestHealthIsAnsweredInWhatIsAskedFor(t *testing.T) {
	up := newAsked(t)
	u, err := gateway.NewUpstream("a", up.URL+"/base", gateway.WithHealthPath("/live?deep=1"))
	require.NoError(t, err)
	for _, c := range []struct {
		accept, want string
	}{
		{"", "application/health+json"}, {"*/*", "application/health+json"}, {"application/health+json, application/json", "application/health+json"},
		{"application/json", "application/json"}, {"application/json, */*;q=0.5", "application/json"},
		{"text/html,application/xhtml+xml,*/*;q=0.8", "application/health+json"}, {"text/plain", "application/health+json"},
	} {
		for _, path := range []string{"/livez", "/deep/down/readyz", "/", "/livez/"} {
			for _, method := range []string{"GET", "HEAD"} {
				w := handle(t, u.HealthHandler(), testnet.Build(method, path, "", "Accept: "+c.accept), nil)
				assert.Equal(t, 200, w.status)
				assert.Equal(t, c.want, w.header.Get("Content-Type"), "%s for %q", path, c.accept)
				assert.Equal(t, "no-store", w.header.Get("Cache-Control"))
				assert.Equal(t, method == "GET", w.body.Len() > 0)
			}
		}
	}
	w := handle(t, u.HealthHandler(), testnet.Build("POST", "/livez", ""), nil)
	assert.Equal(t, 405, w.status)
	assert.Equal(t, "GET, HEAD", w.header.Get("Allow"))
	require.NoError(t, u.Shutdown(t.Context()))
}

// What may not stand in a request's target is escaped, or every answer would be
// that there is no request.
func TestHealthPathIsEscaped(t *testing.T) {
	up := testnet.Upstream(t, testnet.Reply(200, "", "well"))
	gw, err := gateway.New(gateway.WithService("a", up.URL+"/base", gateway.WithHealthPath("/so well?how=all of it\xff")))
	require.NoError(t, err)
	w := handle(t, gw.HealthHandler(), testnet.Get("/healthz"), nil)
	assert.Equal(t, 200, w.status, w.body.String())
	assert.Equal(t, "/base/so%20well?how=all%20of%20it%FF", up.Await(1)[0].Target)
	require.NoError(t, gw.Shutdown(t.Context()))
}
