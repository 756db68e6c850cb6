package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
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

// engine is a gateway with the service a behind a real server.
type engine struct {
	testing.TB
	gw   *gateway.Gateway
	url  string
	http *http.Client
}

func newEngine(t testing.TB, target string, opts ...gateway.ServiceOption) *engine {
	t.Helper()
	gw, err := gateway.New(gateway.WithService("a", target, opts...), gateway.WithLogger(testnet.NewLogRecorder().Logger()))
	require.NoError(t, err)
	srv := httptest.NewServer(gw)
	e := &engine{t, gw, srv.URL, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: 10 * time.Second}}
	t.Cleanup(func() {
		e.http.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		gw.Drain()
		srv.Close()
		assert.NoError(t, gw.Shutdown(ctx))
	})
	return e
}

// do sends a request, and returns status, header and content; 0: an error.
func (e *engine) do(method, path string) (status int, header http.Header, body string) {
	req, _ := http.NewRequest(method, e.url+"/a"+path, http.NoBody)
	resp, err := e.http.Do(req)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer resp.Body.Close()
	content, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(content)
}

func (e *engine) stats() gateway.UpstreamStats { return e.gw.Upstream("a").Stats() }

// server is an upstream that counts what it serves.
func server(t testing.TB, name string, h http.HandlerFunc) (srv *httptest.Server, served *atomic.Int64) {
	served = new(atomic.Int64)
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		if h != nil {
			h(w, r)
			return
		}
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(srv.Close)
	return srv, served
}

// With 5 connections allowed and all taken the sixth request waits, and ends by
// its own deadline. When a connection is returned, who has waited longest gets
// it.
func TestTheSixthWaiter(t *testing.T) {
	leave := make(chan string)
	var order []string
	var mu sync.Mutex
	up, served := server(t, "", func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		order = append(order, r.URL.Path)
		mu.Unlock()
		<-leave
	})
	e := newEngine(t, up.URL, gateway.WithMaxConns(5), gateway.WithAcquireTimeout(0), gateway.WithTimeout(5*time.Second), gateway.WithoutRetries())
	var all sync.WaitGroup
	ask := func(path string) { all.Go(func() { e.do("GET", path) }) }
	for i := range 5 {
		ask(fmt.Sprint("/", i))
		testnet.Settle(t, "it is served", func() bool { return served.Load() == int64(i+1) })
	}
	waiting := func() int64 { return e.stats().Replicas[0].Conns.Waiting }
	gone, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	req, _ := http.NewRequestWithContext(gone, "GET", e.url+"/a/sixth", http.NoBody)
	_, err := e.http.Do(req)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	testnet.Settle(t, "the sixth has given up", func() bool { return waiting() == 0 })
	for i, path := range []string{"/first", "/second", "/third"} {
		ask(path)
		testnet.Settle(t, "it waits", func() bool { return waiting() == int64(i+1) })
	}
	for i := range 3 {
		leave <- ""
		testnet.Settle(t, "the next is served", func() bool { return served.Load() == int64(6+i) })
	}
	close(leave)
	all.Wait()
	require.Equal(t, []string{"/first", "/second", "/third"}, order[5:])
	conns := e.stats().Replicas[0].Conns
	require.LessOrEqual(t, conns.Open, int64(5))
	require.EqualValues(t, 4, conns.Waits)
}

func TestPoolExhausted(t *testing.T) {
	leave := make(chan struct{})
	up, served := server(t, "", func(http.ResponseWriter, *http.Request) { <-leave })
	e := newEngine(t, up.URL, gateway.WithMaxConns(1), gateway.WithAcquireTimeout(50*time.Millisecond), gateway.WithoutRetries())
	var all sync.WaitGroup
	all.Go(func() { e.do("GET", "/") })
	testnet.Settle(t, "one is served", func() bool { return served.Load() == 1 })
	status, _, body := e.do("GET", "/")
	assert.Equal(t, 503, status)
	assert.Contains(t, body, "pool_exhausted")
	close(leave)
	all.Wait()
	assert.Equal(t, gateway.BreakerClosed, e.stats().Breaker.State)
}

// One of two replicas dies under load, and comes back: no GET fails, and no POST
// is seen twice.
func TestReplicaDiesAndComesBack(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[string]int)
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			mu.Lock()
			seen[r.URL.Path]++
			mu.Unlock()
		}
		_, _ = io.WriteString(w, "ok")
	}
	first, _ := server(t, "", handler)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	start := func(ln net.Listener) *http.Server {
		s := &http.Server{Handler: http.HandlerFunc(handler), ReadHeaderTimeout: time.Second}
		go func() { _ = s.Serve(ln) }()
		return s
	}
	second := start(ln)
	e := newEngine(t, first.URL, gateway.WithReplicas(gateway.Replica{URL: "http://" + addr}), gateway.WithEjection(3, 100*time.Millisecond, time.Second))
	stop := make(chan struct{})
	var all sync.WaitGroup
	var gets, failed, posts atomic.Int64
	for w := range 8 {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if i%10 == 9 {
					posts.Add(1)
					e.do("POST", fmt.Sprintf("/%d/%d", w, i))
					continue
				}
				gets.Add(1)
				if status, _, _ := e.do("GET", "/"); status != 200 {
					failed.Add(1)
				}
			}
		})
	}
	rest := func() { <-time.After(150 * time.Millisecond) } // of load
	for range 3 {
		rest()
		_ = second.Close()
		rest()
		ln, err := net.Listen("tcp", addr)
		require.NoError(t, err)
		second = start(ln)
	}
	rest()
	close(stop)
	all.Wait()
	_ = second.Close()
	assert.Zero(t, failed.Load(), "of %d GETs", gets.Load())
	for path, n := range seen {
		assert.Equal(t, 1, n, path)
	}
	assert.Positive(t, posts.Load())
}

// An attempt does not go back to a replica that was tried while another is left,
// and what was never sent may go to it whatever the method.
func TestAttemptsMoveOn(t *testing.T) {
	bad, asked := server(t, "", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	good, _ := server(t, "good", nil)
	e := newEngine(t, bad.URL, gateway.WithReplicas(gateway.Replica{URL: good.URL}), gateway.WithRetries(1),
		gateway.WithBalancing(gateway.RoundRobin()), gateway.WithoutEjection(), gateway.WithRetryBudget(1, 100))
	for range 20 {
		status, _, body := e.do("GET", "/")
		require.Equal(t, 200, status)
		require.Equal(t, "good", body)
	}
	require.Positive(t, asked.Load())

	e = newEngine(t, "http://"+testnet.Refused(t), gateway.WithReplicas(gateway.Replica{URL: good.URL}), gateway.WithRetries(1),
		gateway.WithBalancing(gateway.RoundRobin()), gateway.WithoutEjection(), gateway.WithRetryBudget(1, 100))
	for range 20 {
		status, _, _ := e.do("POST", "/")
		require.Equal(t, 200, status)
	}
}

// A connection that breaks after a POST was sent: it is not sent again.
func TestPostIsSeenOnce(t *testing.T) {
	breaks, asked := server(t, "", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	e := newEngine(t, breaks.URL, gateway.WithReplicas(gateway.Replica{URL: strings.Replace(breaks.URL, "127.0.0.1", "localhost", 1)}))
	for n := range int64(5) {
		status, _, _ := e.do("POST", "/")
		require.Equal(t, 502, status)
		require.Equal(t, n+1, asked.Load())
	}
}

func TestBreaker(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	up, served := server(t, "", func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(500)
		}
	})
	var mu sync.Mutex
	var changes []string
	e := newEngine(t, up.URL, gateway.WithBreaker(0.5, 5), gateway.WithBreakerTimes(time.Second, 300*time.Millisecond, 1),
		gateway.WithBreakerHook(func(service string, from, to gateway.BreakerState) {
			mu.Lock()
			defer mu.Unlock()
			changes = append(changes, fmt.Sprintf("%s: %s to %s", service, from, to))
		}))
	for range 5 {
		status, _, _ := e.do("GET", "/")
		require.Equal(t, 500, status)
	}
	status, header, body := e.do("GET", "/")
	require.Equal(t, 503, status)
	require.Contains(t, body, "breaker_open")
	require.Equal(t, "1", header.Get("Retry-After"))
	require.EqualValues(t, 5, served.Load(), "nothing is sent")
	require.Equal(t, gateway.BreakerOpen, e.stats().Breaker.State)
	broken.Store(false)
	testnet.Settle(t, "it closes", func() bool {
		status, _, _ := e.do("GET", "/")
		return status == 200
	})
	require.Equal(t, gateway.BreakerClosed, e.stats().Breaker.State)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []string{"a: closed to open", "a: open to half_open", "a: half_open to closed"}, changes)
}

func TestConcurrencyLimit(t *testing.T) {
	leave := make(chan struct{})
	up, served := server(t, "", func(http.ResponseWriter, *http.Request) { <-leave })
	e := newEngine(t, up.URL, gateway.WithMaxConcurrency(1, 1, 100*time.Millisecond))
	var all sync.WaitGroup
	all.Go(func() { e.do("GET", "/") })
	testnet.Settle(t, "one is served", func() bool { return served.Load() == 1 })
	waited := make(chan int, 1)
	all.Go(func() {
		status, _, _ := e.do("GET", "/")
		waited <- status
	})
	testnet.Settle(t, "one waits", func() bool { return e.stats().Queue.Waiting == 1 })
	status, header, body := e.do("GET", "/")
	require.Equal(t, 503, status, "the queue is full")
	require.Contains(t, body, "overloaded")
	require.Equal(t, "1", header.Get("Retry-After"))
	require.Equal(t, 503, <-waited, "its wait has run out")
	close(leave)
	all.Wait()
	testnet.Settle(t, "the place is free", func() bool { return e.stats().Queue.InUse == 0 })
	status, _, _ = e.do("GET", "/")
	require.Equal(t, 200, status)
}

func TestRateLimit(t *testing.T) {
	up, served := server(t, "ok", nil)
	e := newEngine(t, up.URL, gateway.WithRateLimit(0.1, 2))
	var statuses []int
	for range 3 {
		status, header, _ := e.do("GET", "/")
		statuses = append(statuses, status)
		if status == 429 {
			assert.Equal(t, "10", header.Get("Retry-After"))
		}
	}
	require.Equal(t, []int{200, 200, 429}, statuses)
	require.EqualValues(t, 2, served.Load())
}

// A service may do without the bounds that all others have.
func TestBoundsAreDropped(t *testing.T) {
	leave := make(chan struct{})
	up, served := server(t, "", func(http.ResponseWriter, *http.Request) { <-leave })
	gw, err := gateway.New(
		gateway.WithRateLimit(0.001, 1), gateway.WithMaxConcurrency(1, 0, 0),
		gateway.WithService("a", up.URL, gateway.WithoutRateLimit(), gateway.WithoutMaxConcurrency()),
		gateway.WithService("b", up.URL, gateway.WithoutRateLimit()),
		gateway.WithService("c", up.URL, gateway.WithoutMaxConcurrency()),
	)
	require.NoError(t, err)
	var all sync.WaitGroup
	ask := func(path string) {
		all.Go(func() { assert.Equal(t, 200, handle(t, gw, testnet.Get(path), nil).status) })
	}
	for i, path := range []string{"/a/", "/a/", "/a/", "/b/", "/c/"} {
		ask(path)
		testnet.Settle(t, "it is served", func() bool { return served.Load() == int64(i+1) })
	}
	assert.Zero(t, gw.Stats().Services["a"].Queue.InUse)
	assert.Equal(t, 503, handle(t, gw, testnet.Get("/b/"), nil).status)
	assert.Equal(t, 429, handle(t, gw, testnet.Get("/c/"), nil).status)
	close(leave)
	all.Wait()
	require.NoError(t, gw.Shutdown(t.Context()))
}

// The shortest wait that Retry-After can name is a second (RFC 9110 §10.2.3).
func TestRateLimitSaysWhenToComeBack(t *testing.T) {
	for perSecond, want := range map[float64]string{1000: "1", 2: "1", 0.99: "2", 0.5: "2", 0.1: "10", 1e-300: "9223372037"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(t, testnet.Reply(200, "", "ok"), gateway.WithRateLimit(perSecond, 1))
			require.Equal(t, 200, handle(t, b.gw, testnet.Get("/a/"), nil).status)
			w := handle(t, b.gw, testnet.Get("/a/"), nil)
			assert.Equal(t, 429, w.status)
			assert.Equal(t, want, w.header.Get("Retry-After"), "%v per second", perSecond)
		})
	}
}

// The first answer of two wins; the other request is called off.
func TestHedge(t *testing.T) {
	called := make(chan struct{}, 100)
	slow, _ := server(t, "", func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		called <- struct{}{}
	})
	fast, _ := server(t, "fast", nil)
	e := newEngine(t, slow.URL, gateway.WithReplicas(gateway.Replica{URL: fast.URL}), gateway.WithBalancing(gateway.RoundRobin()),
		gateway.WithHedge(20*time.Millisecond), gateway.WithRetryBudget(1, 100))
	for range 6 {
		status, _, body := e.do("GET", "/")
		require.Equal(t, 200, status)
		require.Equal(t, "fast", body)
	}
	hedges := e.stats().Hedges
	require.Positive(t, hedges)
	for range hedges {
		<-called
	}
	testnet.Settle(t, "nothing is in flight", func() bool {
		for _, r := range e.stats().Replicas {
			if r.InFlight != 0 || r.Conns.InUse != 0 {
				return false
			}
		}
		return true
	})
}

func TestHedgeThatFailsToo(t *testing.T) {
	up, served := server(t, "", func(w http.ResponseWriter, _ *http.Request) {
		<-time.After(30 * time.Millisecond)
		w.WriteHeader(503)
	})
	e := newEngine(t, up.URL, gateway.WithReplicas(gateway.Replica{URL: strings.Replace(up.URL, "127.0.0.1", "localhost", 1)}),
		gateway.WithHedge(5*time.Millisecond), gateway.WithRetries(0), gateway.WithRetryBudget(1, 100))
	status, _, _ := e.do("GET", "/")
	require.Equal(t, 503, status)
	require.EqualValues(t, 2, served.Load())
	status, _, _ = e.do("POST", "/")
	require.Equal(t, 503, status)
	require.EqualValues(t, 3, served.Load(), "a POST is not hedged")
}

func TestUnixTarget(t *testing.T) {
	path := filepath.Join(t.TempDir(), "up.sock")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Host+r.URL.Path)
	})}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	e := newEngine(t, "unix://"+path)
	for range 3 {
		status, _, body := e.do("GET", "/x")
		require.Equal(t, 200, status)
		require.Equal(t, "localhost/x", body)
	}
	require.EqualValues(t, 2, e.stats().Replicas[0].Conns.Reuses)
}

// A socket is known as localhost, to which its links lead: they are turned to
// the gateway as those of any other target, whoever of its replicas answers.
func TestLinksOfSockets(t *testing.T) {
	dir := t.TempDir()
	links := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.Header().Set("Content-Location", r.URL.Query().Get("to"))
	}
	for _, name := range []string{"a", "b"} {
		ln, err := net.Listen("unix", filepath.Join(dir, name))
		require.NoError(t, err)
		srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(links)}
		go func() { _ = srv.Serve(ln) }()
		t.Cleanup(func() { _ = srv.Close() })
	}
	plain, _ := server(t, "", links)
	socket := "unix://" + filepath.Join(dir, "a")
	for _, tt := range []struct{ target, replica, to, want string }{
		{socket, "", "http://localhost/x?y=1#z", "/a/x?y=1#z"},
		{socket, "", "http://LOCALHOST:80/x", "/a/x"},
		{socket, "", "/x", "/a/x"},
		{socket, "", "http://localhost", "/a"},
		{socket, "", "http://localhost:8080/x", "http://localhost:8080/x"},
		{socket, "", "http://other.test/x", "http://other.test/x"},
		{socket, "", "unix:///x", "unix:///x"},
		{socket, "unix://" + filepath.Join(dir, "b"), "http://localhost/x", "/a/x"},
		{socket, plain.URL, plain.URL + "/x", "/a/x"},
		{socket, plain.URL, "http://localhost/x", "/a/x"},
		{plain.URL, socket, "http://localhost/x", "/a/x"},
		{plain.URL, socket, plain.URL + "/x", "/a/x"},
	} {
		t.Run(tt.target+" "+tt.replica+" "+tt.to, func(t *testing.T) {
			gw, err := gateway.New(gateway.WithService("a", tt.target))
			require.NoError(t, err)
			if tt.replica != "" { // alone, so that it is asked
				require.NoError(t, gw.Upstream("a").SetReplicas(gateway.Replica{URL: tt.replica}))
			}
			w := handle(t, gw, testnet.Get("/a/?to="+url.QueryEscape(tt.to)), nil)
			assert.Equal(t, tt.want, w.header.Get("Location"))
			assert.Equal(t, tt.want, w.header.Get("Content-Location"))
			require.NoError(t, gw.Shutdown(context.WithoutCancel(t.Context())))
		})
	}
	hook := make(chan string, 1)
	gw, err := gateway.New(gateway.WithService("a", socket, gateway.WithRewrite(func(r *http.Request) { hook <- r.URL.String() })))
	require.NoError(t, err)
	handle(t, gw, testnet.Get("/a/x"), nil)
	assert.Equal(t, "http://localhost/x", <-hook, "what a hook is shown")
	require.NoError(t, gw.Shutdown(context.WithoutCancel(t.Context())))
}

func TestHTTP2Upstreams(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-End")
		_, _ = io.Copy(w, r.Body)
		_, _ = io.WriteString(w, r.Proto)
		w.Header().Set("X-End", "yes")
	})
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", secure), func(t *testing.T) {
			up := httptest.NewUnstartedServer(handler)
			up.Config.Protocols = new(http.Protocols)
			opts := []gateway.ServiceOption{gateway.WithHTTP2()}
			if secure {
				up.EnableHTTP2 = true
				up.Config.Protocols.SetHTTP2(true)
				up.StartTLS()
				roots := up.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
				opts = append(opts, gateway.WithTLSConfig(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}))
			} else {
				up.Config.Protocols.SetUnencryptedHTTP2(true)
				up.Start()
			}
			defer up.Close()
			e := newEngine(t, up.URL, opts...)
			resp, err := e.http.Post(e.url+"/a/x", "text/plain", strings.NewReader("over "))
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, "over HTTP/2.0", string(body))
			for range 2 {
				status, _, _ := e.do("GET", "/x")
				require.Equal(t, 200, status)
			}
			testnet.Settle(t, "the connection is idle", func() bool { return e.stats().Replicas[0].Conns.Idle == 1 })
			assert.Equal(t, gateway.ConnStats{Open: 1, Idle: 1, Dials: 1, Reuses: 2, Discards: map[string]uint64{}}, e.stats().Replicas[0].Conns)
			require.Equal(t, "yes", resp.Trailer.Get("X-End"))
		})
	}
}

// Replicas are replaced under load without a request lost.
func TestSetReplicasUnderLoad(t *testing.T) {
	one, _ := server(t, "one", nil)
	two, _ := server(t, "two", nil)
	e := newEngine(t, one.URL)
	stop := make(chan struct{})
	var all sync.WaitGroup
	var failed atomic.Int64
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if status, _, _ := e.do("GET", "/"); status != 200 {
					failed.Add(1)
				}
			}
		})
	}
	up := e.gw.Upstream("a")
	for i := range 50 {
		list := []gateway.Replica{{URL: one.URL}, {URL: two.URL, Weight: 3}}
		require.NoError(t, up.SetReplicas(list[i%2:]...))
		<-time.After(2 * time.Millisecond)
	}
	require.NoError(t, up.SetReplicas(gateway.Replica{URL: two.URL}))
	close(stop)
	all.Wait()
	require.Zero(t, failed.Load())
	_, _, body := e.do("GET", "/")
	require.Equal(t, "two", body)
	require.Len(t, e.stats().Replicas, 1)

	var fault *gateway.OptionError
	require.ErrorAs(t, up.SetReplicas(), &fault)
	require.ErrorAs(t, up.SetReplicas(gateway.Replica{URL: "ftp://x"}), &fault)
	require.Equal(t, "SetReplicas", fault.Option)
}

func TestTunnelCap(t *testing.T) {
	up := testnet.Upstream(t, testnet.EchoWebSocket)
	e := newEngine(t, up.URL, gateway.WithMaxTunnels(1))
	addr := strings.TrimPrefix(e.url, "http://")
	first, second := testnet.Dial(t, addr), testnet.Dial(t, addr)
	require.Equal(t, 101, first.Do(testnet.WebSocket("/a/x")).Status)
	require.Equal(t, 503, second.Do(testnet.WebSocket("/a/x")).Status)
	first.Close()
	second.Close()
	testnet.Settle(t, "the tunnel has ended", func() bool { return e.stats().InFlight == 0 })
	third := testnet.Dial(t, addr)
	require.Equal(t, 101, third.Do(testnet.WebSocket("/a/x")).Status)
	third.Close()
}

// Row 79: a response may be bounded.
func TestMaxResponseBytes(t *testing.T) {
	up, _ := server(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/declared" {
			w.Header().Set("Content-Length", "101")
		}
		for range 101 {
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
		}
	})
	e := newEngine(t, up.URL, gateway.WithMaxResponseBytes(100), gateway.WithoutRetries())
	status, _, _ := e.do("GET", "/declared")
	require.Equal(t, 502, status)
	resp, err := e.http.Get(e.url + "/a/endless")
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	require.Error(t, err, "it is cut off")
}

func TestMinConns(t *testing.T) {
	up, _ := server(t, "ok", nil)
	e := newEngine(t, up.URL, gateway.WithMinConns(3))
	require.Zero(t, e.stats().Replicas[0].Conns.Open, "not before the first request")
	e.do("GET", "/")
	testnet.Settle(t, "three are open", func() bool { return e.stats().Replicas[0].Conns.Idle == 3 })
}

// The time that a connection takes to be made is none of the request's.
func TestSlowDialIsNoTimeout(t *testing.T) {
	slow := func(ctx context.Context, network, addr string) (net.Conn, error) {
		<-time.After(50 * time.Millisecond)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	r := newRig(t, setup{noCache: true, a: []gateway.ServiceOption{gateway.WithDialContext(slow), gateway.WithoutRetries()}})
	assert.Equal(t, 200, r.get("/a/x").Status)
	r.counted(noFailure)
}
