package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// town is a bubble with a host for each script, and a gateway that is told of
// other services again and again.
type town struct {
	*testing.T
	ups    map[string]*testnet.Up
	dial   gateway.DialFunc
	logs   *testnet.LogRecorder
	common []gateway.Option // of each list
	gw     *gateway.Gateway
	srv    *http.Server
	ln     *testnet.PipeListener
}

func newTown(t *testing.T, scripts map[string]func(*testnet.Conn), opts ...gateway.Option) *town {
	t.Helper()
	w := &town{T: t, ups: map[string]*testnet.Up{}, logs: testnet.NewLogRecorder(), ln: testnet.NewPipeListener()}
	wires := map[string]*testnet.PipeListener{}
	for host, script := range scripts {
		wires[host] = testnet.NewPipeListener()
		w.ups[host] = testnet.UpstreamOn(t, wires[host], script)
	}
	w.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, _ := net.SplitHostPort(addr)
		if wires[host] == nil {
			return nil, io.ErrUnexpectedEOF
		}
		return wires[host].DialContext(ctx, network, addr)
	}
	w.common = []gateway.Option{gateway.WithLogger(w.logs.Logger()), gateway.WithDialContext(w.dial), gateway.WithConnIdleTimeout(0), gateway.WithMaxConnAge(0), gateway.WithTimeout(time.Hour), gateway.WithoutRetries()}
	var err error
	w.gw, err = gateway.New(append(w.common, opts...)...)
	require.NoError(t, err)
	w.srv = &http.Server{Handler: w.gw}
	go func() { _ = w.srv.Serve(w.ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		w.gw.Drain()
		assert.NoError(t, w.srv.Shutdown(ctx))
		assert.NoError(t, w.gw.Shutdown(ctx))
	})
	return w
}

// inTown runs a test in a bubble.
func inTown(t *testing.T, scripts map[string]func(*testnet.Conn), test func(w *town), opts ...gateway.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newTown(t, scripts, opts...)) })
}

func (w *town) update(opts ...gateway.Option) {
	w.Helper()
	require.NoError(w, w.gw.Update(append(w.common[:len(w.common):len(w.common)], opts...)...))
	synctest.Wait()
}

func (w *town) client() *testnet.Client {
	w.Helper()
	conn, err := w.ln.Dial()
	require.NoError(w, err)
	c := testnet.NewClient(w, conn)
	c.Patience = time.Hour
	return c
}

// get returns the status and the content.
func (w *town) get(target string) (int, string) {
	w.Helper()
	c := w.client()
	defer c.Close()
	resp := c.Do(testnet.Get(target))
	return resp.Status, string(resp.Body)
}

func (w *town) serves(target, body string) {
	w.Helper()
	status, got := w.get(target)
	assert.Equal(w, 200, status, target)
	assert.Equal(w, body, got, target)
}

// begin sends a request whose answer has begun; the rest comes on a channel.
func (w *town) begin(target string) <-chan *testnet.Response {
	w.Helper()
	c := w.client()
	require.True(w, c.Send(testnet.Get(target)))
	done := make(chan *testnet.Response, 1)
	go func() {
		defer c.Close()
		done <- c.ReadResponse(http.MethodGet)
	}()
	synctest.Wait()
	return done
}

// spell is how long slow answers take: less than the default bounds.
const spell = 20 * time.Second

// hello answers with its name, and slowly where that is asked for: the header
// and half of the content at once, the rest after a spell.
func hello(name string) func(*testnet.Conn) {
	return func(c *testnet.Conn) {
		for req := c.ReadRequest(); req != nil; req = c.ReadRequest() {
			switch {
			case req.Header.Get("Upgrade") != "":
				c.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + testnet.WebSocketAccept + "\r\n\r\n")
				_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
				return
			case strings.HasSuffix(req.Target, "/events"):
				c.Send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
				if c.Pause(spell) {
					c.Send("9\r\ndata: 2\n\n\r\n0\r\n\r\n")
				}
			case strings.HasSuffix(req.Target, "/slow"):
				c.Send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat(name[:1], 50_000))
				if c.Pause(spell) {
					c.Send(strings.Repeat(name[:1], 50_000))
				}
			case strings.HasSuffix(req.Target, "/late"):
				if c.Pause(spell) {
					c.Send(testnet.Answer(200, "", name))
				}
			case strings.HasSuffix(req.Target, "/fail"), strings.HasSuffix(req.Target, "/fail-"+name):
				c.Send(testnet.Answer(500, "", name))
			default:
				c.Send(testnet.Answer(200, "Cache-Control: max-age=3600\r\n", name))
			}
		}
	}
}

func hosts(names ...string) map[string]func(*testnet.Conn) {
	all := map[string]func(*testnet.Conn){}
	for _, name := range names {
		all[name] = hello(name)
	}
	return all
}

func at(name, host string, opts ...gateway.ServiceOption) gateway.Option {
	return gateway.WithService(name, "http://"+host, opts...)
}

func TestUpdateReplacesTheCompleteList(t *testing.T) {
	inTown(t, hosts("one", "two", "three"), func(w *town) {
		w.serves("/a/", "one")
		w.serves("/b/", "two")
		w.update(at("b", "three"), at("c", "two"))
		status, _ := w.get("/a/")
		assert.Equal(w, 404, status, "left out")
		w.serves("/b/", "three")
		w.serves("/c/", "two")
		w.update()
		for _, target := range []string{"/a/", "/b/", "/c/"} {
			status, _ := w.get(target)
			assert.Equal(w, 404, status, target)
		}
		assert.Empty(w, w.gw.Stats().Services)
		w.update(at("a", "two"))
		w.serves("/a/", "two")
	}, at("a", "one"), at("b", "two"))
}

func TestUnderWrapARemovedServiceIsNextsAffair(t *testing.T) {
	inTown(t, hosts("one"), func(w *town) {
		next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
		h := w.gw.Wrap(next)
		assert.Equal(w, 200, handle(w, h, testnet.Get("/a/"), nil).status)
		w.update()
		assert.Equal(w, 418, handle(w, h, testnet.Get("/a/"), nil).status)
		w.update(at("a", "one"))
		assert.Equal(w, 200, handle(w, h, testnet.Get("/a/"), nil).status)
	}, at("a", "one"))
}

// Every fault is returned, as New would, and then nothing has changed: not the
// services, nor what is shared, nor what runs beside them.
func TestAFaultyUpdateChangesNothingAndReturnsEveryFault(t *testing.T) {
	testnet.Baseline(t)
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	up := testnet.Upstream(t, testnet.Reply(200, storable, "ok"))
	reader := sdkmetric.NewManualReader()
	tp, mp := sdktrace.NewTracerProvider(), sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	logs := testnet.NewLogRecorder()
	shared := []gateway.Option{gateway.WithTracerProvider(tp), gateway.WithMeterProvider(mp), gateway.WithLogger(logs.Logger())}
	good := append(shared[:3:3], gateway.WithCache(cache), gateway.WithService("a", up.URL, gateway.WithHealthChecks(time.Hour, 1, 1)))
	gw, err := gateway.New(good...)
	require.NoError(t, err)
	r := &rig{TB: t, gw: gw, meter: reader}
	get := func() int { return handle(t, gw, testnet.Get("/a/"), nil).status }
	require.Equal(t, 200, get())
	testnet.Settle(t, "a request, and the one health check beside it", func() bool { return up.Begun() == 2 })
	series, goroutines := r.series(), runtime.NumGoroutine()

	never := gateway.WithErrorHandler(func(http.ResponseWriter, *http.Request, *gateway.Error) { t.Error("the handler of a faulty list") })
	for range 20 {
		err = gw.Update(never, gateway.WithTimeout(-1), nil, gateway.WithMeterProvider(sdkmetric.NewMeterProvider()),
			gateway.WithLogger(nil), gateway.WithService("b", "http://b.test", gateway.WithRetries(99), gateway.WithHealthChecks(time.Hour, 1, 1)),
			gateway.WithService("b", "ftp://b.test"), gateway.WithService("c", up.URL, gateway.WithCache(cache), gateway.WithDNSRefresh(time.Hour)))
		require.Error(t, err)
	}
	var options []string
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var fault *gateway.OptionError
		require.ErrorAs(t, e, &fault)
		options = append(options, fault.Option)
	}
	assert.ElementsMatch(t, []string{"WithTimeout", "Update", "WithLogger", "WithRetries", "WithService", "WithService", "WithMeterProvider", "WithTracerProvider"}, options)

	assert.Equal(t, 200, get())
	assert.Equal(t, 404, handle(t, gw, testnet.Get("/b/"), nil).status)
	assert.Equal(t, 404, handle(t, gw, testnet.Get("/c/"), nil).status)
	assert.Equal(t, 2, up.Begun(), "the second was answered from the cache")
	assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
	assert.Len(t, gw.Stats().Services, 1)
	assert.NotZero(t, series)
	require.NoError(t, gw.Update(good...))
	assert.Equal(t, 200, get())

	ctx := lasting(t, 5*time.Second)
	require.NoError(t, gw.Shutdown(ctx))
	require.NoError(t, cache.Shutdown(ctx))
	assert.Less(t, r.series(), series, "services are not observed any more")
}

// A change of policy alone keeps connections, statistics, the breaker's count,
// what is known of replicas, and places.
func TestAServiceKeepsItsStateWhileItsPolicyChanges(t *testing.T) {
	inTown(t, hosts("one", "two"), func(w *town) {
		replica := gateway.WithReplicas(gateway.Replica{URL: "http://two"})
		policy := func(n int) []gateway.ServiceOption {
			return []gateway.ServiceOption{
				replica, gateway.WithTimeout(time.Hour + time.Duration(n)), gateway.WithBearerToken(fmt.Sprint("token", n)), gateway.WithRetryBudget(0.5, float64(n)),
				gateway.WithRewrite(func(r *http.Request) { r.Header.Set("X-Policy", fmt.Sprint(n)) }), gateway.WithMaxConcurrency(100+n, n, 0),
				gateway.WithRateLimit(1000, 100+n), gateway.WithEjection(3, time.Hour, time.Hour), gateway.WithBreaker(0.4, 12), gateway.WithBreakerTimes(time.Hour, time.Hour, 1),
				gateway.WithBalancing(gateway.RoundRobin()),
			}
		}
		w.update(at("a", "one", policy(1)...))
		for range 4 {
			w.get("/a/x")
		}
		for range 6 { // three of them at the one that fails
			w.get("/a/fail-one")
		}
		before := w.gw.Stats().Services["a"]
		require.EqualValues(w, 10, before.Requests)
		ejected := map[string]string{}
		for _, r := range before.Replicas {
			ejected[r.Address] = r.Health
		}
		require.Equal(w, map[string]string{"one:80": "ejected", "two:80": "healthy"}, ejected)
		conns := w.ups["one"].Conns() + w.ups["two"].Conns()
		breaker := w.gw.Stats().Services["a"].Breaker

		for n := range 5 {
			w.update(at("a", "one", policy(2+n)...))
		}
		after := w.gw.Stats().Services["a"]
		after.Over = before.Over
		assert.Equal(w, before, after)
		w.get("/a/y")
		journal := append(w.ups["one"].Journal(), w.ups["two"].Journal()...)
		fresh := 0
		for _, r := range journal {
			if r.Target == "/y" {
				fresh++
				assert.Equal(w, "6", r.Header.Get("X-Policy"))
				assert.Equal(w, "Bearer token6", r.Header.Get("Authorization"))
			}
		}
		assert.Equal(w, 1, fresh)
		assert.Equal(w, conns, w.ups["one"].Conns()+w.ups["two"].Conns(), "no connection is new")
		require.EqualValues(w, "closed", breaker.State)
		for range 3 {
			w.get("/a/fail") // with those before, six of fourteen
		}
		status, _ := w.get("/a/z")
		assert.Equal(w, 503, status, "the breaker has counted on")
		assert.EqualValues(w, "open", w.gw.Stats().Services["a"].Breaker.State)
		w.update(at("a", "one", append(policy(9), gateway.WithBreaker(0.9, 50))...))
		status, _ = w.get("/a/z")
		assert.Equal(w, 503, status, "an open breaker stays so for its time")
		w.update(at("a", "one", append(policy(9)[:8:8], gateway.WithoutBreaker())...))
		status, _ = w.get("/a/z")
		assert.Equal(w, 200, status)
		w.update(at("a", "one", policy(9)...))
		assert.Equal(w, gateway.BreakerStats{State: "closed"}, w.gw.Stats().Services["a"].Breaker, "one that was gone begins anew")
	})
}

// Downloads, event streams and tunnels go on by the policy that they began with,
// whether the service's policy changes or its connections are made anew.
func underWaySurvives(t *testing.T) {
	for name, change := range map[string][]gateway.ServiceOption{
		"policy":      {gateway.WithBodyIdleTimeout(time.Second), gateway.WithTunnelIdleTimeout(time.Second), gateway.WithMaxDuration(time.Second), gateway.WithMaxTunnels(0)},
		"connections": {gateway.WithMaxConns(7)},
		"replicas":    {gateway.WithReplicas(gateway.Replica{URL: "http://two"})},
		"transport":   {gateway.WithTransport(roundTripper(func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }))},
		"HTTP/2":      {gateway.WithHTTP2()},
	} {
		t.Run(name, func(t *testing.T) {
			inTown(t, hosts("one", "two"), func(w *town) {
				tunnel := w.client()
				require.Equal(w, 101, tunnel.Do(testnet.WebSocket("/a/ws")).Status)
				slow, events, late := w.begin("/a/slow"), w.begin("/a/events"), w.begin("/a/late")
				w.update(at("a", "one", change...))
				require.True(w, tunnel.Send("ping"))
				assert.Equal(w, "ping", tunnel.ReadN(4))
				time.Sleep(2 * time.Minute)
				for _, r := range []*testnet.Response{<-slow, <-events, <-late} {
					assert.Equal(w, 200, r.Status)
					assert.Equal(w, testnet.Whole, r.End)
				}
				require.True(w, tunnel.Send("pong"))
				assert.Equal(w, "pong", tunnel.ReadN(4))
				tunnel.Close()
				synctest.Wait()
				s := w.gw.Stats().Services["a"]
				assert.EqualValues(w, 4, s.Requests, "statistics stay")
				assert.Empty(w, s.Errors)
			}, at("a", "one"))
		})
	}
}

func tlsFor(name string) *tls.Config {
	return &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}
}

// Connections are made anew when what they are made by is another, and only then.
// The old ones end with their requests.
func TestConnectionsAreRebuiltWhereTheyHaveToBe(t *testing.T) {
	for name, tt := range map[string]struct {
		change  []gateway.ServiceOption
		rebuilt bool
	}{
		"nothing":            {nil, false},
		"dial timeout":       {[]gateway.ServiceOption{gateway.WithDialTimeout(time.Minute), gateway.WithTLSHandshakeTimeout(time.Minute)}, false},
		"answer timeout":     {[]gateway.ServiceOption{gateway.WithResponseHeaderTimeout(time.Minute)}, false},
		"most connections":   {[]gateway.ServiceOption{gateway.WithMaxConns(3)}, true},
		"least connections":  {[]gateway.ServiceOption{gateway.WithMinConns(1)}, true},
		"idle connections":   {[]gateway.ServiceOption{gateway.WithConnIdleTimeout(time.Hour)}, true},
		"age":                {[]gateway.ServiceOption{gateway.WithMaxConnAge(time.Hour)}, true},
		"wait":               {[]gateway.ServiceOption{gateway.WithAcquireTimeout(time.Hour)}, true},
		"reuse":              {[]gateway.ServiceOption{gateway.WithoutConnReuse()}, true},
		"TLS":                {[]gateway.ServiceOption{gateway.WithTLSConfig(tlsFor("other"))}, true},
		"the same TLS again": {[]gateway.ServiceOption{gateway.WithTLSConfig(tlsFor("one"))}, false},
	} {
		t.Run(name, func(t *testing.T) {
			inTown(t, hosts("one"), func(w *town) {
				late := w.begin("/a/late")
				w.serves("/a/", "one")
				require.Equal(w, 2, w.ups["one"].Open())
				w.update(at("a", "one", append([]gateway.ServiceOption{gateway.WithTLSConfig(tlsFor("one"))}, tt.change...)...))
				if !tt.rebuilt {
					w.serves("/a/", "one")
					assert.Equal(w, 2, w.ups["one"].Conns())
					return
				}
				assert.Equal(w, 1, w.ups["one"].Open(), "the idle one has gone")
				w.serves("/a/", "one")
				assert.GreaterOrEqual(w, w.ups["one"].Conns(), 3)
				assert.EqualValues(w, 2, w.gw.Stats().Services["a"].Requests)
				time.Sleep(time.Minute)
				assert.Equal(w, 200, (<-late).Status)
				synctest.Wait()
				assert.LessOrEqual(w, w.ups["one"].Open(), 1, "the busy one has gone once it was free")
			}, at("a", "one", gateway.WithTLSConfig(tlsFor("one"))))
		})
	}
}

// New connections are dialled by the new function, those there are stay.
func TestAnotherDialFunctionIsForConnectionsToCome(t *testing.T) {
	inTown(t, hosts("one"), func(w *town) {
		w.serves("/a/", "one")
		var dials atomic.Int64
		w.update(at("a", "one", gateway.WithDialContext(func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return w.dial(ctx, network, addr)
		})))
		w.serves("/a/", "one")
		assert.Zero(w, dials.Load())
		late := w.begin("/a/late")
		w.serves("/a/", "one")
		assert.EqualValues(w, 1, dials.Load())
		time.Sleep(time.Minute)
		<-late
	}, at("a", "one"))
}

// A request under way finishes at the target that it began for: also one that
// has not chosen its connection yet.
func waitsForItsOwnTarget(t *testing.T) {
	inTown(t, hosts("one", "two"), func(w *town) {
		first := w.begin("/a/late")
		second := w.begin("/a/x") // waits for the one place
		w.update(at("a", "two", gateway.WithMaxConcurrency(1, 0, 0)))
		status, _ := w.get("/a/x")
		assert.Equal(w, 503, status, "the place is still taken")
		time.Sleep(spell)
		assert.Equal(w, "one", string((<-first).Body))
		assert.Equal(w, "one", string((<-second).Body))
		w.serves("/a/x", "two")
		assert.Zero(w, w.ups["one"].Open(), "its connections were for one request each")
	}, at("a", "one", gateway.WithMaxConcurrency(1, 1, 0)))
}

// No place of WithMaxConcurrency is lost or given twice, whatever the bound
// becomes while requests hold places and wait for them.
func TestPlacesAreKeptCountOf(t *testing.T) {
	inTown(t, hosts("one"), func(w *town) {
		bound := func(n, queue int) { w.update(at("a", "one", gateway.WithMaxConcurrency(n, queue, 0))) }
		queue := func() gateway.QueueStats { return w.gw.Stats().Services["a"].Queue }
		var all []<-chan *testnet.Response
		for range 4 {
			all = append(all, w.begin("/a/late"))
		}
		require.Equal(w, gateway.QueueStats{InUse: 2, Waiting: 2}, queue())
		bound(1, 2)
		assert.Equal(w, gateway.QueueStats{InUse: 2, Waiting: 2}, queue())
		bound(3, 2)
		assert.Equal(w, gateway.QueueStats{InUse: 3, Waiting: 1}, queue())
		w.update(at("a", "one"))
		assert.Equal(w, gateway.QueueStats{}, queue(), "there is none")
		all = append(all, w.begin("/a/late"))
		bound(2, 9)
		assert.Equal(w, gateway.QueueStats{InUse: 4}, queue(), "those that hold places since before")
		all = append(all, w.begin("/a/late"))
		assert.Equal(w, gateway.QueueStats{InUse: 4, Waiting: 1}, queue())
		time.Sleep(time.Hour)
		for _, r := range all {
			assert.Equal(w, 200, (<-r).Status)
		}
		synctest.Wait()
		assert.Equal(w, gateway.QueueStats{}, queue())
	}, at("a", "one", gateway.WithMaxConcurrency(2, 2, 0)))
}

func TestTheRateGoesOnFromWhereItWas(t *testing.T) {
	inTown(t, hosts("one"), func(w *town) {
		for range 3 {
			w.serves("/a/", "one")
		}
		w.update(at("a", "one", gateway.WithRateLimit(1.0/60, 5)))
		w.serves("/a/", "one")
		w.serves("/a/", "one")
		status, _ := w.get("/a/")
		assert.Equal(w, 429, status)
		time.Sleep(time.Minute)
		w.serves("/a/", "one")
		status, _ = w.get("/a/")
		assert.Equal(w, 429, status, "by the new rate")
		w.update(at("a", "one"))
		w.serves("/a/", "one")
	}, at("a", "one", gateway.WithRateLimit(1.0/3600, 5)))
}

// Replicas that stay keep what is known of them, those that go drain. What
// SetReplicas has set stays until the options name others.
func TestReplicasChangeLikeBySetReplicas(t *testing.T) {
	inTown(t, hosts("one", "two", "three"), func(w *town) {
		with := func(names ...string) gateway.Option {
			opts := []gateway.ServiceOption{gateway.WithBalancing(gateway.RoundRobin()), gateway.WithoutEjection()}
			for _, name := range names {
				opts = append(opts, gateway.WithReplicas(gateway.Replica{URL: "http://" + name}))
			}
			return at("a", "one", opts...)
		}
		addresses := func() (all []string) {
			for _, r := range w.gw.Stats().Services["a"].Replicas {
				all = append(all, r.Address)
			}
			return all
		}
		w.update(with("two"))
		late := []<-chan *testnet.Response{w.begin("/a/late"), w.begin("/a/late")}
		w.get("/a/")
		w.get("/a/")
		w.update(with("three"))
		assert.Equal(w, []string{"one:80", "three:80"}, addresses())
		assert.Equal(w, 2, w.ups["one"].Open(), "one that stays")
		assert.Equal(w, 1, w.ups["two"].Open(), "one that goes: what is busy")
		time.Sleep(time.Minute)
		for _, r := range late {
			assert.Equal(w, 200, (<-r).Status)
		}
		synctest.Wait()
		assert.Zero(w, w.ups["two"].Open())

		require.NoError(w, w.gw.Upstream("a").SetReplicas(gateway.Replica{URL: "http://two"}))
		w.update(with("three"), gateway.WithTimeout(time.Hour))
		assert.Equal(w, []string{"two:80"}, addresses(), "the options say what they said")
		w.update(with("three"), gateway.WithMaxConns(3))
		assert.Equal(w, []string{"two:80"}, addresses())
		w.serves("/a/", "two")
		w.update(with())
		assert.Equal(w, []string{"one:80"}, addresses())
		require.NoError(w, w.gw.Upstream("a").SetReplicas(gateway.Replica{URL: "http://two"}))
		w.update(at("a", "three"))
		assert.Equal(w, []string{"three:80"}, addresses())
	})
}

// A service that is left out serves who is inside, tells streams and tunnels to
// end, and stops what runs beside. One of its name that comes back is another,
// also while the old one drains.
func removedDrains(t *testing.T) {
	inTown(t, hosts("one", "two"), func(w *town) {
		opts := []gateway.ServiceOption{gateway.WithHealthChecks(time.Minute, 1, 1), gateway.WithHealthPath("/health")}
		w.update(at("a", "one", opts...))
		tunnel := w.client()
		require.Equal(w, 101, tunnel.Do(testnet.WebSocket("/a/ws")).Status)
		slow, events := w.begin("/a/slow"), w.begin("/a/events")
		require.True(w, checked(w.ups["one"]) > 0)
		before := w.gw.Stats().Requests

		w.update()
		stream := <-events
		assert.Equal(w, testnet.Whole, stream.End, "the stream was told to end")
		assert.Equal(w, "data: 1\n\n", string(stream.Body))
		status, _ := w.get("/a/")
		assert.Equal(w, 404, status)
		checks := checked(w.ups["one"])
		w.update(at("a", "one"))
		w.serves("/a/", "one")
		assert.EqualValues(w, 1, w.gw.Stats().Services["a"].Requests, "a new one")

		time.Sleep(spell / 2)
		assert.Equal(w, checks, checked(w.ups["one"]), "nobody is asked any more")
		select {
		case <-slow:
			w.Error("the download was cut")
		default:
		}
		time.Sleep(spell / 2)
		r := <-slow
		assert.Equal(w, testnet.Whole, r.End)
		assert.Len(w, r.Body, 100_000)
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Equal(w, 1, w.ups["one"].Open(), "that of the new one")
		assert.Equal(w, checks, checked(w.ups["one"]))
		assert.EqualValues(w, before+5, w.gw.Stats().Requests, "the sum has all")
		assert.Zero(w, w.gw.Stats().InFlight)
		tunnel.Close()
	})
}

// checked is how often a health check has asked.
func checked(up *testnet.Up) (n int) {
	for _, r := range up.Journal() {
		if r.Target == "/health" {
			n++
		}
	}
	return n
}

// The handler of a service follows it, and refuses once it is gone, whoever has
// its name then.
func TestTheHandlerOfAServiceFollowsIt(t *testing.T) {
	inTown(t, hosts("one", "two"), func(w *town) {
		up := w.gw.Upstream("a")
		ask := func() *recorder { return handle(w, up, testnet.Get("/x"), nil) }
		assert.Equal(w, "one", ask().body.String())
		w.update(at("a", "two"))
		assert.Same(w, up, w.gw.Upstream("a"))
		assert.Equal(w, "two", ask().body.String())
		w.update()
		assert.Nil(w, w.gw.Upstream("a"))
		gone := ask()
		assert.Equal(w, 503, gone.status)
		assert.Contains(w, gone.body.String(), "The service was removed.")
		assert.Empty(w, gone.header.Get("Connection"), "the server stays")
		assert.EqualValues(w, 1, w.gw.Stats().Errors[gateway.ReasonShuttingDown])
		assert.ErrorContains(w, up.SetReplicas(gateway.Replica{URL: "http://one"}), "removed")
		w.update(at("a", "one"))
		assert.NotSame(w, up, w.gw.Upstream("a"))
		assert.Equal(w, 503, ask().status)
		assert.EqualValues(w, 2, up.Stats().Requests)
		require.NoError(w, up.Shutdown(w.Context()))
		w.serves("/a/", "one")
	}, at("a", "one"))
}

// One that was shut down by itself comes back with the next update.
func TestAServiceThatWasShutDownComesBack(t *testing.T) {
	inTown(t, hosts("one"), func(w *town) {
		w.serves("/a/", "one")
		up := w.gw.Upstream("a")
		require.NoError(w, up.Shutdown(w.Context()))
		status, _ := w.get("/a/")
		assert.Equal(w, 503, status)
		assert.Contains(w, handle(w, up, testnet.Get("/x"), nil).body.String(), "The server is shutting down.")
		w.update(at("a", "one"))
		w.serves("/a/", "one")
		assert.EqualValues(w, 4, w.gw.Stats().Requests)
	}, at("a", "one"))
}

func TestShutdownWaitsForRemovedServices(t *testing.T) {
	inTown(t, hosts("one", "two"), func(w *town) {
		late := w.begin("/a/late")
		w.update(at("b", "two"))
		start := time.Now()
		require.NoError(w, w.gw.Shutdown(lasting(w.T, time.Hour)))
		lasted(w, spell, time.Since(start))
		assert.Equal(w, 200, (<-late).Status)
	}, at("a", "one"))
	inTown(t, hosts("one", "two"), func(w *town) {
		late := w.begin("/a/late")
		w.update(at("b", "two"))
		err := w.gw.Shutdown(lasting(w.T, time.Second))
		require.ErrorIs(w, err, context.DeadlineExceeded)
		assert.ErrorContains(w, err, "1 request(s)")
		assert.Equal(w, 503, (<-late).Status, "it was cut")
	}, at("a", "one"))
}

func TestUpdateAfterDrainAndShutdown(t *testing.T) {
	inTown(t, hosts("one", "two"), func(w *town) {
		w.gw.Drain()
		w.update(at("a", "one"), at("b", "two"))
		assert.True(w, w.gw.Stats().Draining)
		w.serves("/b/", "two")
		stream := <-w.begin("/b/events")
		assert.Equal(w, testnet.Whole, stream.End, "a new service drains, too")
		assert.Equal(w, "data: 1\n\n", string(stream.Body))

		late := w.begin("/b/late")
		ended := make(chan error)
		go func() { ended <- w.gw.Shutdown(w.Context()) }()
		synctest.Wait()
		refused := func() {
			w.Helper()
			err := w.gw.Update(append(w.common, at("c", "one"))...)
			var fault *gateway.Error
			require.ErrorAs(w, err, &fault)
			assert.Equal(w, gateway.ReasonShuttingDown, fault.Reason)
			assert.Len(w, w.gw.Stats().Services, 2)
		}
		refused()
		assert.Equal(w, 200, (<-late).Status)
		require.NoError(w, <-ended)
		refused()
	}, at("a", "one"))
}

// What the options say of the whole gateway changes with the rest; requests under
// way have what they began with.
func TestSharedOptionsChange(t *testing.T) {
	inTown(t, hosts("one"), func(w *town) {
		other := testnet.NewLogRecorder()
		teapot := gateway.WithErrorHandler(func(w http.ResponseWriter, _ *http.Request, err *gateway.Error) { w.WriteHeader(418) })
		waits := w.begin("/a/late")
		propagator := propagation.NewCompositeTextMapPropagator(custom{})
		require.NoError(w, w.gw.Update(gateway.WithDialContext(w.dial), gateway.WithLogger(other.Logger()), teapot, gateway.WithPropagator(propagator), at("a", "one")))
		status, _ := w.get("/nobody/")
		assert.Equal(w, 418, status)
		w.serves("/a/", "one")
		journal := w.ups["one"].Journal()
		assert.Equal(w, "yes", journal[len(journal)-1].Header.Get("X-Custom"))
		assert.Len(w, other.Find(w, "gateway: request"), 2)
		assert.Empty(w, w.logs.Find(w, "gateway: request"))
		time.Sleep(time.Minute)
		<-waits
		synctest.Wait()
		assert.Len(w, w.logs.Find(w, "gateway: request"), 1, "one that began before")
		assert.Len(w, other.Find(w, "gateway: request"), 2)
		w.update(at("a", "one"))
		status, _ = w.get("/nobody/")
		assert.Equal(w, 404, status, "the default is back")
		assert.Len(w, w.logs.Find(w, "gateway: request"), 2)
	}, at("a", "one"))
}

// custom is a propagator that says so.
type custom struct{}

func (custom) Inject(_ context.Context, c propagation.TextMapCarrier) { c.Set("x-custom", "yes") }
func (custom) Extract(ctx context.Context, _ propagation.TextMapCarrier) context.Context {
	return ctx
}
func (custom) Fields() []string { return []string{"x-custom"} }

// Providers are those of New; equal ones are the same.
func TestProvidersCannotChange(t *testing.T) {
	t.Parallel()
	tp, mp := sdktrace.NewTracerProvider(), sdkmetric.NewMeterProvider()
	service := gateway.WithService("a", "http://a.test")
	for name, tt := range map[string]struct {
		before, after []gateway.Option
		fault         string
	}{
		"none":                    {nil, nil, ""},
		"the same tracers":        {[]gateway.Option{gateway.WithTracerProvider(tp)}, []gateway.Option{gateway.WithTracerProvider(tp)}, ""},
		"other tracers":           {[]gateway.Option{gateway.WithTracerProvider(tp)}, []gateway.Option{gateway.WithTracerProvider(sdktrace.NewTracerProvider())}, "WithTracerProvider"},
		"no tracers any more":     {[]gateway.Option{gateway.WithTracerProvider(tp)}, nil, "WithTracerProvider"},
		"tracers where none were": {nil, []gateway.Option{gateway.WithTracerProvider(tp)}, "WithTracerProvider"},
		"the same meters":         {[]gateway.Option{gateway.WithMeterProvider(mp)}, []gateway.Option{gateway.WithMeterProvider(mp)}, ""},
		"other meters":            {[]gateway.Option{gateway.WithMeterProvider(mp)}, []gateway.Option{gateway.WithMeterProvider(sdkmetric.NewMeterProvider())}, "WithMeterProvider"},
		"tracers that cannot be compared": {
			[]gateway.Option{gateway.WithTracerProvider(wrappedTracers{TracerProvider: tp})}, []gateway.Option{gateway.WithTracerProvider(wrappedTracers{TracerProvider: tp})}, "",
		},
		"no meters any more": {[]gateway.Option{gateway.WithMeterProvider(mp)}, nil, "WithMeterProvider"},
	} {
		gw, err := gateway.New(append(tt.before, service)...)
		require.NoError(t, err)
		for range 2 {
			err = gw.Update(append(tt.after, service)...)
			if tt.fault == "" {
				require.NoError(t, err, name)
				continue
			}
			var fault *gateway.OptionError
			require.ErrorAs(t, err, &fault, name)
			assert.Equal(t, tt.fault, fault.Option, name)
		}
		require.NoError(t, gw.Shutdown(t.Context()))
	}
}

// wrappedTracers is a tracer provider as apps wrap theirs.
type wrappedTracers struct {
	trace.TracerProvider
	_ []string
}

// Cached answers stay as long as the target does, and what is sent to it in the
// gateway's name.
func TestCachedResponsesStay(t *testing.T) {
	hook := func() gateway.ServiceOption { return gateway.WithRewrite(func(*http.Request) {}) }
	for name, tt := range map[string]struct {
		before, after []gateway.ServiceOption
		target        string
		stays         bool
	}{
		"nothing":         {nil, nil, "one", true},
		"policy":          {nil, []gateway.ServiceOption{gateway.WithTimeout(time.Minute), gateway.WithMaxConns(3), gateway.WithMaxStale(0)}, "one", true},
		"replicas":        {nil, []gateway.ServiceOption{gateway.WithReplicas(gateway.Replica{URL: "http://two"})}, "one", true},
		"the target":      {nil, nil, "two", false},
		"a hook":          {[]gateway.ServiceOption{hook()}, []gateway.ServiceOption{hook()}, "one", true},
		"one more hook":   {[]gateway.ServiceOption{hook()}, []gateway.ServiceOption{hook(), hook()}, "one", false},
		"the same header": {[]gateway.ServiceOption{gateway.WithHeader("X-A", "1")}, []gateway.ServiceOption{gateway.WithHeader("X-A", "1")}, "one", true},
		"another header":  {[]gateway.ServiceOption{gateway.WithHeader("X-A", "1")}, []gateway.ServiceOption{gateway.WithHeader("X-A", "2")}, "one", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cache, err := gateway.NewCache()
				require.NoError(t, err)
				w := newTown(t, hosts("one", "two"), gateway.WithCache(cache), at("a", "one", tt.before...))
				t.Cleanup(func() { assert.NoError(t, cache.Shutdown(context.WithoutCancel(t.Context()))) })
				w.serves("/a/x", "one")
				for range 3 {
					w.update(gateway.WithCache(cache), at("a", tt.target, tt.after...))
					w.serves("/a/x", tt.target)
				}
				want := 1
				if !tt.stays {
					want = 2
				}
				assert.Equal(t, want, w.ups["one"].Begun()+w.ups["two"].Begun())
				w.update(at("a", tt.target, tt.after...))
				w.get("/a/x")
				assert.Equal(t, want+1, w.ups["one"].Begun()+w.ups["two"].Begun(), "without the cache")
			})
		})
	}
}

// What a name was used with is remembered for Purge, within bounds.
func TestPurgeKnowsTheQueryOptionsOfEarlierUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, err := gateway.NewCache()
		require.NoError(t, err)
		w := newTown(t, hosts("one"), gateway.WithCache(cache), at("a", "one"))
		t.Cleanup(func() { assert.NoError(t, cache.Shutdown(context.WithoutCancel(t.Context()))) })
		by := func(n int) {
			w.update(gateway.WithCache(cache), at("a", "one", gateway.WithIgnoredQuery(fmt.Sprint("p", n))))
		}
		by(0)
		w.serves("/a/x?p0=1&q=1", "one")
		by(1)
		assert.Equal(t, 1, cache.Purge("a", "/x?p0=2&q=1"), "stored by the former")
		by(0)
		w.serves("/a/x?p0=1&q=1", "one")
		require.Equal(t, 2, w.ups["one"].Begun())
		for n := range 100 {
			by(n + 1)
		}
		cache.Purge("a", "/x?p0=2&q=1")
		by(0)
		w.serves("/a/x?p0=1&q=1", "one")
		assert.Equal(t, 3, w.ups["one"].Begun(), "what Purge may have missed is gone")
	})
}

// A share of the cache goes with the last service of its name.
func TestSharesOfTheCacheComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, err := gateway.NewCache()
		require.NoError(t, err)
		w := newTown(t, hosts("one"), gateway.WithCache(cache))
		t.Cleanup(func() { assert.NoError(t, cache.Shutdown(context.WithoutCancel(t.Context()))) })
		for n := range 200 {
			name := fmt.Sprint("s", n)
			w.update(gateway.WithCache(cache), at(name, "one", gateway.WithCacheShare(0.1), gateway.WithIgnoredQuery("q")), at("kept", "one", gateway.WithCacheShare(0.5)))
			w.serves("/"+name+"/x", "one")
			w.serves("/kept/x", "one")
			require.EqualValues(t, 2, cache.Stats().Entries, "those of who was removed have gone")
		}
		assert.Equal(t, 201, w.ups["one"].Begun(), "one for each that is new")
		w.update(gateway.WithCache(cache))
		assert.Zero(t, cache.Stats().Entries)
	})
}

// What runs beside the requests, by the stacks of its goroutines, is there from
// the first request on until an update is without it.
func TestWatchesEndByUpdate(t *testing.T) {
	running := func() (all []string) {
		buf := make([]byte, 1<<20)
		text := string(buf[:runtime.Stack(buf, true)])
		for _, name := range []string{"(*Upstream).check(", "(*Upstream).resolve(", "(*core).lookForSlow(", "(*memoryPolicy).run("} {
			for range strings.Count(text, name) {
				all = append(all, name)
			}
		}
		return all
	}
	inTown(t, hosts("127.0.0.1"), func(w *town) { // a name would be asked for
		full := []gateway.Option{
			gateway.WithMemoryWatch(time.Hour, nil), gateway.WithSlowRequest(0, nil),
			at("a", "127.0.0.1", gateway.WithHealthChecks(time.Hour, 1, 1), gateway.WithDNSRefresh(time.Hour)),
		}
		w.update(full...)
		w.gw.Upstream("a") // asks for nothing
		synctest.Wait()
		assert.Empty(w, running())
		handle(w, w.gw, testnet.Get("/nobody"), nil)
		synctest.Wait()
		assert.Len(w, running(), 2, "of all services")
		w.serves("/a/", "127.0.0.1")
		synctest.Wait()
		assert.Len(w, running(), 4)
		w.update(append(full[:2:2], at("a", "127.0.0.1", gateway.WithHealthChecks(time.Hour, 2, 2)))...)
		w.serves("/a/", "127.0.0.1")
		synctest.Wait()
		assert.Len(w, running(), 3, "names are not resolved any more")
		w.update(full[:2]...)
		handle(w, w.gw, testnet.Get("/nobody"), nil)
		synctest.Wait()
		assert.Len(w, running(), 1, "no service is left that could be slow")
		w.update(gateway.WithMemoryWatch(time.Minute, nil))
		handle(w, w.gw, testnet.Get("/nobody"), nil)
		synctest.Wait()
		assert.Len(w, running(), 1, "at another interval")
		w.update()
		handle(w, w.gw, testnet.Get("/nobody"), nil)
		synctest.Wait()
		assert.Empty(w, running())
	})
}

// What runs beside the requests begins anew only where its time is another, and
// ends where it is wanted no more.
func TestWhatRunsBesideFollowsTheUpdates(t *testing.T) {
	inTown(t, hosts("one"), func(w *town) {
		checks := func(every time.Duration, path string) gateway.Option {
			return at("a", "one", gateway.WithHealthChecks(every, 1, 1), gateway.WithHealthPath(path))
		}
		w.update(checks(time.Minute, "/health"))
		time.Sleep(5 * time.Minute)
		assert.Zero(w, checked(w.ups["one"]), "not before the first request")
		w.serves("/a/", "one")
		time.Sleep(blink)
		require.Equal(w, 1, checked(w.ups["one"]))
		for range 50 {
			time.Sleep(time.Second)
			w.update(checks(time.Minute, "/health"), gateway.WithTimeout(time.Hour))
			w.serves("/a/", "one")
		}
		assert.Equal(w, 1, checked(w.ups["one"]), "the same goes on")
		time.Sleep(10 * time.Minute)
		assert.InDelta(w, 11, checked(w.ups["one"]), 2)
		w.update(checks(time.Second, "/health"))
		w.serves("/a/", "one")
		before := checked(w.ups["one"])
		time.Sleep(time.Minute)
		assert.InDelta(w, before+60, checked(w.ups["one"]), 8)
		w.update(checks(time.Second, "/other"))
		before = checked(w.ups["one"])
		time.Sleep(time.Minute)
		assert.InDelta(w, before, checked(w.ups["one"]), 1, "by the new path")
		w.update(at("a", "one"))
		begun := w.ups["one"].Begun()
		time.Sleep(time.Hour)
		assert.Equal(w, begun, w.ups["one"].Begun())
	})
}

// The look for slow requests begins, changes its pace and ends by update.
func TestSlowRequestsAreLookedForAsTheLastUpdateSays(t *testing.T) {
	inTown(t, hosts("one"), func(w *town) {
		var mu sync.Mutex
		told := map[string]int{}
		slow := func(name string, threshold time.Duration) gateway.Option {
			return gateway.WithSlowRequest(threshold, func(gateway.SlowRequest) {
				mu.Lock()
				defer mu.Unlock()
				told[name]++
			})
		}
		run := func() map[string]int {
			mu.Lock()
			told = map[string]int{}
			mu.Unlock()
			w.get("/a/late")
			mu.Lock()
			defer mu.Unlock()
			return told
		}
		assert.Empty(w, run())
		w.update(slow("first", 10*time.Second), at("a", "one"))
		assert.Equal(w, map[string]int{"first": 1}, run())
		w.update(slow("second", 10*time.Second), at("a", "one"))
		assert.Equal(w, map[string]int{"second": 1}, run(), "the hook is the new one")
		w.update(slow("third", 30*time.Millisecond), at("a", "one"))
		assert.Equal(w, map[string]int{"third": 1}, run())
		w.update(at("a", "one"))
		assert.Empty(w, run())

		under := w.begin("/a/late")
		w.update(slow("late", 10*time.Second), at("a", "one"))
		time.Sleep(time.Minute)
		<-under
		mu.Lock()
		assert.Empty(w, told, "one that began without")
		mu.Unlock()
		w.update()
		assert.Zero(w, w.gw.Stats().InFlight)
	}, at("a", "one"))
}

// What services are in is told of those there are; the sum of what they have done
// never falls.
func TestMetricsFollowTheServices(t *testing.T) {
	testnet.Baseline(t)
	reader := sdkmetric.NewManualReader()
	shared := gateway.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer srv.Close()
	gw, err := gateway.New(shared, gateway.WithService("kept", srv.URL), gateway.WithService("old", srv.URL))
	require.NoError(t, err)
	page := func() string { return handle(t, gw.MetricsHandler(), testnet.Get("/metrics"), nil).body.String() }
	for range 3 {
		for _, name := range []string{"kept", "old", "nobody"} {
			handle(t, gw, testnet.Get("/"+name+"/"), nil)
		}
	}
	before := gw.Stats()
	require.EqualValues(t, 9, before.Requests)
	require.Contains(t, page(), `service="old"`)

	require.NoError(t, gw.Update(shared, gateway.WithService("kept", srv.URL, gateway.WithMaxConns(9)), gateway.WithService("new", srv.URL)))
	handle(t, gw, testnet.Get("/new/"), nil)
	testnet.Settle(t, "the old service has ended", func() bool { return gw.Stats().InFlight == 0 })
	after := gw.Stats()
	assert.EqualValues(t, 10, after.Requests)
	assert.EqualValues(t, 10, after.Latency.Count)
	assert.GreaterOrEqual(t, after.Latency.Total, before.Latency.Total)
	assert.EqualValues(t, 3, after.Services["kept"].Requests)
	text := page()
	assert.NotContains(t, text, `service="old"`)
	assert.Contains(t, text, `service="new"`)
	for _, name := range []string{"kept", "new"} {
		assert.Contains(t, text, `gateway_requests_total{gateway_service="`+name+`"`)
	}
	count := func(text, series string) (n string) {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, series) {
				_, n, _ = strings.Cut(strings.TrimSpace(line), "} ")
			}
		}
		return n
	}
	const histogram = `http_client_request_duration_seconds_count`
	assert.Equal(t, "7", count(text, histogram), "the attempts at a server are counted, whoever's it is, and was: %s", text)

	require.NoError(t, gw.Update(shared))
	assert.EqualValues(t, 10, gw.Stats().Requests)
	gw.ResetStats()
	assert.Zero(t, gw.Stats().Requests)
	require.NoError(t, gw.Shutdown(t.Context()))
}

// Beside 64 clients, services change a thousand times in every way that leaves
// them there, others come and go, and all that can be read is read: no request
// fails.
func thousandUpdates(t *testing.T) {
	testnet.Baseline(t)
	var served [3]atomic.Int64
	var targets [3]string
	for i := range targets {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			served[i].Add(1)
			_, _ = io.WriteString(w, "ok")
		}))
		defer srv.Close()
		targets[i] = srv.URL
	}
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	list := func(n int) []gateway.Option {
		opts := []gateway.Option{
			gateway.WithoutRetries(), gateway.WithMaxConns(1000 + n%3),
			gateway.WithService("a", targets[n/5%2], gateway.WithTimeout(time.Minute+time.Duration(n)), gateway.WithMaxConcurrency(500+n%7, 500, 0)),
			gateway.WithService("b", targets[1], gateway.WithReplicas(gateway.Replica{URL: targets[2*(n%2)]}), gateway.WithCache(cache)),
		}
		if n%2 == 0 {
			opts = append(opts, gateway.WithService(fmt.Sprint("guest", n%4), targets[2]), gateway.WithSlowRequest(time.Minute, nil))
		}
		return opts
	}
	gw, err := gateway.New(list(0)...)
	require.NoError(t, err)
	a := gw.Upstream("a")
	var clients sync.WaitGroup
	var failed, requests atomic.Int64
	done := make(chan struct{})
	until := func(f func(i int)) {
		clients.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					f(i)
				}
			}
		})
	}
	ask := func(h http.Handler, method, target string, allowed ...int) {
		req := httptest.NewRequest(method, target, strings.NewReader("x"))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		requests.Add(1)
		if w.Code != 200 && (len(allowed) == 0 || w.Code != allowed[0]) {
			failed.Add(1)
			t.Errorf("%s %s: %d %s", method, target, w.Code, w.Body)
		}
	}
	for n := range 64 {
		until(func(i int) {
			switch n % 4 {
			case 0:
				ask(gw, http.MethodGet, "/a/")
			case 1:
				ask(gw, http.MethodPost, "/b/")
			case 2:
				ask(a, http.MethodPost, "/")
			default:
				ask(gw, http.MethodGet, fmt.Sprint("/guest", i%4, "/"), 404)
			}
		})
	}
	var most uint64
	until(func(int) {
		total := gw.Stats().Requests
		if total < most {
			t.Errorf("the sum has fallen from %d to %d", most, total)
		}
		most = total
		for _, h := range []http.Handler{gw.MetricsHandler(), gw.HealthHandler()} {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/x", nil))
		}
	})
	var updates sync.WaitGroup
	for k := range 2 {
		updates.Go(func() {
			for n := k; n < 1000; n += 2 {
				if err := gw.Update(list(n)...); err != nil {
					t.Error(err)
					return
				}
				if n%50 == 0 {
					assert.Error(t, gw.Update(append(list(n), gateway.WithTimeout(-1))...))
				}
			}
		})
	}
	updates.Wait()
	close(done)
	clients.Wait()
	assert.Zero(t, failed.Load(), "of %d", requests.Load())
	assert.EqualValues(t, requests.Load(), gw.Stats().Requests-gw.Stats().Errors[""], "each was counted once")
	require.NoError(t, gw.Shutdown(lasting(t, 10*time.Second)))
	require.NoError(t, cache.Shutdown(lasting(t, 10*time.Second)))
}

// A few hundred updates under traffic leave nothing behind.
func TestUpdatesLeaveNothingBehind(t *testing.T) {
	testnet.Baseline(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer srv.Close()
	gw, err := gateway.New()
	require.NoError(t, err)
	turn := func(n int) {
		require.NoError(t, gw.Update(gateway.WithService("a", srv.URL, gateway.WithTimeout(time.Hour+time.Duration(n)), gateway.WithMaxConns(10+n%2)),
			gateway.WithService(fmt.Sprint("guest", n), srv.URL, gateway.WithHealthChecks(time.Hour, 1, 1), gateway.WithDNSRefresh(time.Hour)), gateway.WithSlowRequest(0, nil)))
		for _, target := range []string{"/a/", fmt.Sprint("/guest", n, "/")} {
			require.Equal(t, 200, handle(t, gw, testnet.Get(target), nil).status)
		}
	}
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for n := range 50 {
		turn(n)
	}
	before, goroutines := live(), runtime.NumGoroutine()
	for n := range 300 {
		turn(50 + n)
	}
	testnet.Settle(t, "goroutines have ended", func() bool { return runtime.NumGoroutine() <= goroutines+10 })
	assert.Less(t, float64(live())-float64(before), 1e6, "bytes more after 300 updates")
	require.NoError(t, gw.Shutdown(lasting(t, 5*time.Second)))
	assert.ErrorAs(t, gw.Update(), new(*gateway.Error))
}

func TestAnUpdateIsLogged(t *testing.T) {
	inTown(t, hosts("one"), func(w *town) {
		w.update(at("a", "one"), at("b", "one"), at("c", "one"))
		w.update(at("c", "one"))
		require.Error(w, w.gw.Update(gateway.WithTimeout(-1)))
		var told [][2]any
		for _, line := range w.logs.Find(w, "gateway: update") {
			assert.Equal(w, "INFO", line["level"])
			told = append(told, [2]any{line["gateway.services.added"], line["gateway.services.removed"]})
		}
		assert.Equal(w, [][2]any{{2.0, 0.0}, {0.0, 2.0}}, told)
	}, at("a", "one"))
}

// A request that has found its service just before that was removed is for none.
func TestWhoIsLateForARemovedServiceIsForNone(t *testing.T) {
	testnet.Baseline(t)
	gw, err := gateway.New()
	require.NoError(t, err)
	guest := gateway.WithService("guest", "http://192.0.2.1", gateway.WithMaxBodyBytes(0)) // refuses at once
	var clients sync.WaitGroup
	var refused, absent atomic.Int64
	done := make(chan struct{})
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				w := httptest.NewRecorder()
				gw.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/guest/", strings.NewReader("x")))
				switch w.Code {
				case http.StatusNotFound:
					absent.Add(1)
				case http.StatusRequestEntityTooLarge:
					refused.Add(1)
				default:
					t.Errorf("status %d", w.Code)
				}
			}
		})
	}
	for range 2000 {
		require.NoError(t, gw.Update(guest))
		require.NoError(t, gw.Update())
	}
	close(done)
	clients.Wait()
	assert.Positive(t, refused.Load())
	assert.Positive(t, absent.Load())
	require.NoError(t, gw.Shutdown(lasting(t, 5*time.Second)))
}
