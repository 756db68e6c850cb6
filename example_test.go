package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/embedgw/gateway"
)

// service starts an upstream service for an example.
func service(handle http.HandlerFunc) *httptest.Server { return httptest.NewServer(handle) }

// show prints what a GET is answered with.
func show(url string) {
	resp, err := http.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d %s\n", resp.StatusCode, body)
}

// The whole of it: an app with a mux gets an API whose services are elsewhere.
func Example() {
	users := service(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "user %s, %s", r.URL.Path, r.Header.Get("Authorization"))
	})
	defer users.Close()
	asked := 0
	products := service(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprintf(w, "product %s, asked %d times", r.URL.Path, asked)
	})
	defer products.Close()
	orders := service(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "order %s", r.URL.Path)
	})
	defer orders.Close()
	usersURL, productsURL, ordersURL, token := users.URL, products.URL, orders.URL, "t0ken"
	mux := http.NewServeMux()

	cache, err := gateway.NewCache(gateway.WithMaxBytes(256 << 20))
	if err != nil {
		log.Fatal(err)
	}
	gw, err := gateway.New(
		gateway.WithCache(cache), gateway.WithTimeout(2*time.Second), gateway.WithRetries(2), // defaults of all services
		gateway.WithService("users", usersURL, gateway.WithBearerToken(token)),
		gateway.WithService("products", productsURL),
		gateway.WithService("orders", ordersURL, gateway.WithoutCache(), gateway.WithoutRetries()),
	)
	if err != nil {
		log.Fatal(err)
	}
	mux.Handle("/api/", http.StripPrefix("/api", gw))
	mux.Handle("/health/", gw.HealthHandler())
	mux.Handle("/metrics", gw.MetricsHandler())

	app := httptest.NewServer(mux)
	defer app.Close()
	show(app.URL + "/api/users/42")
	show(app.URL + "/api/products/7")
	show(app.URL + "/api/products/7")
	show(app.URL + "/api/orders/2026/1")
	show(app.URL + "/health/livez")
	// Output:
	// 200 user /42, Bearer t0ken
	// 200 product /7, asked 1 times
	// 200 product /7, asked 1 times
	// 200 order /2026/1
	// 200 {"status":"pass"}
}

// A faulty configuration is refused as a whole: each fault is reported, and a
// credential in it is not.
func ExampleNew_faults() {
	_, err := gateway.New(
		gateway.WithTimeout(-time.Second),
		gateway.WithService("users", "http://admin:secret@users:8000"),
		gateway.WithService("big orders", "http://orders:8000", gateway.WithRetries(99)),
	)
	fmt.Println(err)
	var fault *gateway.OptionError
	fmt.Println(errors.As(err, &fault), fault.Option)
	if all, ok := err.(interface{ Unwrap() []error }); ok { // errors.Join's
		fmt.Println(len(all.Unwrap()))
	}
	// Output:
	// gateway: WithTimeout: "-1s": negative
	// gateway: WithService of service "users": "http://users:8000": userinfo in the URL; use WithBearerToken or WithHeader
	// gateway: WithRetries of service "big orders": "99": not between 0 and 10
	// gateway: WithService of service "big orders": "big orders": the name has characters other than letters, digits, '-', '.', '_' and '~'
	// true WithTimeout
	// 4
}

// One service needs no gateway: it can be mounted on a pattern of its own. It
// is sent the whole path.
func ExampleNewUpstream() {
	files := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method, " ", r.URL.Path) })
	defer files.Close()
	filesURL := files.URL
	mux := http.NewServeMux()

	up, err := gateway.NewUpstream("files", filesURL, gateway.WithTimeout(5*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	mux.Handle("GET /files/{path...}", up)

	app := httptest.NewServer(mux)
	defer app.Close()
	show(app.URL + "/files/2026/report.pdf")
	fmt.Println(up.Shutdown(context.Background()))
	// Output:
	// 200 GET /files/2026/report.pdf
	// <nil>
}

// A cache may serve several gateways and upstreams. It is shut down by whoever
// made it.
func ExampleNewCache() {
	products := service(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, r.URL.Path)
	})
	defer products.Close()

	cache, err := gateway.NewCache(gateway.WithMaxBytes(64<<20), gateway.WithMaxObjectBytes(1<<20))
	if err != nil {
		log.Fatal(err)
	}
	gw, err := gateway.New(gateway.WithCache(cache), gateway.WithService("products", products.URL))
	if err != nil {
		log.Fatal(err)
	}
	up, err := gateway.NewUpstream("products", products.URL, gateway.WithCache(cache))
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", gw))
	mux.Handle("/products/", up)

	app := httptest.NewServer(mux)
	defer app.Close()
	show(app.URL + "/api/products/7")
	show(app.URL + "/api/products/7")
	show(app.URL + "/products/7")
	fmt.Println("hits:", cache.Stats().Hits, "entries:", cache.Stats().Entries)

	cache.Clear()
	fmt.Println("entries:", cache.Stats().Entries)
	fmt.Println(cache.Shutdown(context.Background()))
	// Output:
	// 200 /7
	// 200 /7
	// 200 /products/7
	// hits: 1 entries: 2
	// entries: 0
	// <nil>
}

// Wrap puts the gateway in front of a handler, which keeps all that is for no
// service.
func ExampleGateway_Wrap() {
	users := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "user ", r.URL.Path) })
	defer users.Close()
	gw, err := gateway.New(gateway.WithService("users", users.URL))
	if err != nil {
		log.Fatal(err)
	}
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "the app's own ", r.URL.Path) })

	handler := gw.Wrap(next)

	app := httptest.NewServer(handler)
	defer app.Close()
	show(app.URL + "/users/42")
	show(app.URL + "/about")
	// Output:
	// 200 user /42
	// 200 the app's own /about
}

// A service of a gateway can also be mounted by itself, with the state that it
// has in the gateway.
func ExampleGateway_Upstream() {
	users := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	defer users.Close()
	gw, err := gateway.New(gateway.WithService("users", users.URL))
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()

	mux.Handle("/api/", http.StripPrefix("/api", gw))
	mux.Handle("/profiles/", gw.Upstream("users")) // is sent the whole path

	app := httptest.NewServer(mux)
	defer app.Close()
	show(app.URL + "/api/users/42")
	show(app.URL + "/profiles/42")
	fmt.Println(gw.Stats().Services["users"].Requests)
	// Output:
	// 200 /42
	// 200 /profiles/42
	// 2
}

// A service changes its target, one comes and one goes, while requests are served.
func ExampleGateway_Update() {
	named := func(name string) *httptest.Server {
		return service(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })
	}
	one, two := named("one"), named("two")
	defer one.Close()
	defer two.Close()
	gw, err := gateway.New(
		gateway.WithService("users", one.URL),
		gateway.WithService("legacy", one.URL),
	)
	if err != nil {
		panic(err)
	}
	show := func() {
		for _, path := range []string{"/users/42", "/orders/1", "/legacy/"} {
			w := httptest.NewRecorder()
			gw.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if w.Code == http.StatusOK {
				fmt.Println(path, w.Body)
			} else {
				fmt.Println(path, w.Code)
			}
		}
	}
	show()
	otherURL, ordersURL := two.URL, one.URL
	err = gw.Update(
		gateway.WithService("users", otherURL, gateway.WithTimeout(time.Second)), // stays, with another target and policy
		gateway.WithService("orders", ordersURL),                                 // is new; those that are left out drain
	)
	fmt.Println(err)
	show()

	fmt.Println(gw.Update(gateway.WithService("users", "ftp://one.test")))
	show()
	if err := gw.Shutdown(context.Background()); err != nil {
		panic(err)
	}
	// Output:
	// /users/42 one
	// /orders/1 404
	// /legacy/ one
	// <nil>
	// /users/42 two
	// /orders/1 one
	// /legacy/ 404
	// gateway: WithService of service "users": "ftp://one.test": the scheme is none of http, https and unix
	// /users/42 two
	// /orders/1 one
	// /legacy/ 404
}

// A server that shuts down has the gateway drained, so that event streams and
// tunnels end, and then waits for what is under way.
func ExampleGateway_Shutdown() {
	news := service(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: first\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	defer news.Close()
	cache, err := gateway.NewCache()
	if err != nil {
		log.Fatal(err)
	}
	gw, err := gateway.New(gateway.WithService("news", news.URL), gateway.WithCache(cache))
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", gw))

	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second, // or a client that sends its header slowly keeps a connection for ever
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	srv.RegisterOnShutdown(gw.Drain) // ends event streams and tunnels; srv.Shutdown would wait for the streams

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- srv.Serve(ln) }()
	stream, err := http.Get("http://" + ln.Addr().String() + "/api/news/today")
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Body.Close()
	line, err := bufio.NewReader(stream.Body).ReadString('\n')
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(line)

	// … on SIGTERM:
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = errors.Join(srv.Shutdown(ctx), gw.Shutdown(ctx), cache.Shutdown(ctx))

	fmt.Println(err, <-served)
	// Output:
	// data: first
	// <nil> http: Server closed
}

// Drain makes readiness fail while requests are still served, for a load
// balancer to notice before the server shuts down.
func ExampleGateway_Drain() {
	users := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "user ", r.URL.Path) })
	defer users.Close()
	gw, err := gateway.New(gateway.WithService("users", users.URL))
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", gw))
	mux.Handle("/health/", gw.HealthHandler())
	app := httptest.NewServer(mux)
	defer app.Close()

	gw.Drain()
	show(app.URL + "/health/livez")
	show(app.URL + "/health/readyz")
	show(app.URL + "/api/users/42")
	// Output:
	// 200 {"status":"pass"}
	//
	// 503 {"status":"fail"}
	//
	// 200 user /42
}

// A service that does not answer is a warning, unless the app is of no use
// without it.
func ExampleGateway_HealthHandler() {
	users := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "well") })
	defer users.Close()
	orders := service(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	defer orders.Close()
	gw, err := gateway.New(
		gateway.WithHealthPath("/healthz"),
		gateway.WithService("users", users.URL),
		gateway.WithService("orders", orders.URL, gateway.WithHealthPolicy(gateway.HealthFail)),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer gw.Shutdown(context.Background())

	w := httptest.NewRecorder()
	gw.HealthHandler().ServeHTTP(w, httptest.NewRequest("GET", "/health", nil))
	var report struct {
		Status string
		Checks map[string][]struct{ Status, Output string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &report); err != nil {
		log.Fatal(err)
	}
	fmt.Println(w.Code, w.Header().Get("Content-Type"), report.Status)
	fmt.Println("users:", report.Checks["users:responseTime"])
	fmt.Println("orders:", report.Checks["orders:responseTime"])
	// Output:
	// 503 application/health+json fail
	// users: [{pass }]
	// orders: [{fail server error: status 500}]
}

func ExampleGateway_Stats() {
	users := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	defer users.Close()
	gw, err := gateway.New(gateway.WithService("users", users.URL))
	if err != nil {
		log.Fatal(err)
	}
	app := httptest.NewServer(gw)
	defer app.Close()
	show(app.URL + "/users/1")
	show(app.URL + "/users/2")
	show(app.URL + "/user/3")

	s := gw.Stats()
	fmt.Println("all:", s.Requests, s.Errors)
	fmt.Println("users:", s.Services["users"].Requests, s.Services["users"].Latency.P99 > 0)
	// Output:
	// 200 /1
	// 200 /2
	// 404 {"type":"about:blank","title":"Not Found","status":404,"detail":"There is no such service.","reason":"unknown_service"}
	//
	// all: 3 map[unknown_service:1]
	// users: 2 true
}

// The page is for Prometheus; who asks for JSON gets what Stats returns.
func ExampleGateway_MetricsHandler() {
	users := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	defer users.Close()
	gw, err := gateway.New(gateway.WithService("users", users.URL))
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", gw)
	mux.Handle("/metrics", gw.MetricsHandler())
	app := httptest.NewServer(mux)
	defer app.Close()
	show(app.URL + "/users/1")

	resp, err := http.Get(app.URL + "/metrics")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Header.Get("Content-Type"))
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "gateway_requests_total") {
			fmt.Println(lines.Text())
		}
	}
	// Output:
	// 200 /1
	// text/plain; version=0.0.4; charset=utf-8
	// # HELP gateway_requests_total Requests that have ended, by the reason for which the gateway answered itself; without one, by all others.
	// # TYPE gateway_requests_total counter
	// gateway_requests_total 0
	// gateway_requests_total{gateway_service="users"} 1
}

// The profile says at which stage the time goes.
func ExampleGateway_StatsOver() {
	users := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	defer users.Close()
	gw, err := gateway.New(gateway.WithService("users", users.URL))
	if err != nil {
		log.Fatal(err)
	}
	app := httptest.NewServer(gw)
	defer app.Close()
	show(app.URL + "/users/1")
	gw.ResetStats() // for Stats, and its JSON; the last minutes, and what is exported, go on
	show(app.URL + "/users/2")

	s := gw.StatsOver(gateway.LastMinute) // or LastTenMinutes, or SinceReset, as gw.Stats() has it
	for _, row := range s.Services["users"].Stages {
		fmt.Println(row.Stage, row.Count, row.P99 <= s.Latency.Max)
	}
	fmt.Println("requests:", s.Requests, gw.Stats().Requests)
	// Output:
	// 200 /1
	// 200 /2
	// route 2 true
	// connect 1 true
	// header 2 true
	// body 2 true
	// own 2 true
	// total 2 true
	// requests: 2 1
}

// Printed, statistics are a table for each service.
func ExampleStats_String() {
	const us, ms = time.Microsecond, time.Millisecond
	stage := func(name gateway.Stage, count uint64, mean, least, p50, p95, p99, most time.Duration) gateway.StageStats {
		return gateway.StageStats{Stage: name, Latency: gateway.Latency{
			Count: count, Total: time.Duration(count) * mean, Mean: mean, Min: least, Max: most, P50: p50, P95: p95, P99: p99,
		}}
	}
	users := gateway.UpstreamStats{
		Over: 10 * time.Minute, Requests: 81204, Failed: 3, InFlight: 2, Retries: 12, CacheHits: 60110, CacheMisses: 21094,
		Errors: map[gateway.Reason]uint64{gateway.ReasonTimeout: 2, gateway.ReasonConnect: 1},
		Stages: []gateway.StageStats{
			stage(gateway.StageCache, 81204, 9*us, 4*us, 8*us, 21*us, 44*us, 3100*us),
			stage(gateway.StageConnect, 14, 812*us, 604*us, 790*us, 1210*us, 1210*us, 1210*us),
			stage(gateway.StageHeader, 21093, 8730*us, 1900*us, 7300*us, 21*ms, 48*ms, 2*time.Second),
			stage(gateway.StageBackoff, 12, 26*ms, 13*ms, 25*ms, 37*ms, 37*ms, 37*ms),
			stage(gateway.StageBody, 21091, 310*us, 11*us, 190*us, 870*us, 2900*us, 41*ms),
			stage(gateway.StageOwn, 81204, 9*us, 4*us, 8*us, 21*us, 44*us, 3100*us),
			stage(gateway.StageTotal, 81204, 2361*us, 4*us, 9*us, 11*ms, 33*ms, 2001*ms),
		},
	}
	fmt.Println(users)
	users.Stages = users.Stages[len(users.Stages)-2:]
	orders := gateway.UpstreamStats{Over: 10 * time.Minute}
	fmt.Print(gateway.Stats{UpstreamStats: users, Services: map[string]gateway.UpstreamStats{"users": users, "orders": orders}})
	// Output:
	// 81204 requests in 10m0s, 3 failed, 2 in flight, 12 retries, 0 hedges, 60110 cache hits, 21094 misses
	// errors: connect_failed 1, timeout 2
	// stage    count   total    mean    min    p50     p95     p99     max
	// cache    81204   731ms     9µs    4µs    8µs    21µs    44µs   3.1ms
	// connect     14  11.4ms   812µs  604µs  790µs  1.21ms  1.21ms  1.21ms
	// header   21093    3m4s  8.73ms  1.9ms  7.3ms    21ms    48ms      2s
	// backoff     12   312ms    26ms   13ms   25ms    37ms    37ms    37ms
	// body     21091   6.54s   310µs   11µs  190µs   870µs   2.9ms    41ms
	// own      81204   731ms     9µs    4µs    8µs    21µs    44µs   3.1ms
	// total    81204   3m11s  2.36ms    4µs    9µs    11ms    33ms      2s
	//
	// all: 81204 requests in 10m0s, 3 failed, 2 in flight, 12 retries, 0 hedges, 60110 cache hits, 21094 misses
	// errors: connect_failed 1, timeout 2
	// stage  count  total    mean  min  p50   p95   p99    max
	// own    81204  731ms     9µs  4µs  8µs  21µs  44µs  3.1ms
	// total  81204  3m11s  2.36ms  4µs  9µs  11ms  33ms     2s
	//
	// orders: 0 requests in 10m0s, 0 failed, 0 in flight, 0 retries, 0 hedges, 0 cache hits, 0 misses
	//
	// users: 81204 requests in 10m0s, 3 failed, 2 in flight, 12 retries, 0 hedges, 60110 cache hits, 21094 misses
	// errors: connect_failed 1, timeout 2
	// stage  count  total    mean  min  p50   p95   p99    max
	// own    81204  731ms     9µs  4µs  8µs  21µs  44µs  3.1ms
	// total  81204  3m11s  2.36ms  4µs  9µs  11ms  33ms     2s
}

// What would become of a request is said without sending it. One replica of two
// fails, and is left out for an hour.
func ExampleGateway_Explain() {
	well := service(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("ETag", `"v1"`)
		fmt.Fprint(w, "user ", r.URL.Path)
	})
	defer well.Close()
	broken := service(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	defer broken.Close()
	names := map[string]string{"users-1:8000": well.Listener.Addr().String(), "users-2:8000": broken.Listener.Addr().String()}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, names[address])
	}

	cache, err := gateway.NewCache()
	if err != nil {
		log.Fatal(err)
	}
	gw, err := gateway.New(
		gateway.WithCache(cache), gateway.WithDialContext(dial), gateway.WithLogger(slog.New(slog.DiscardHandler)),
		gateway.WithService("users", "http://users-1:8000", gateway.WithReplicas(gateway.Replica{URL: "http://users-2:8000"}),
			gateway.WithBalancing(gateway.RoundRobin()), gateway.WithEjection(1, time.Hour, time.Hour), gateway.WithBearerToken("t0ken")),
	)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", gw))
	for _, path := range []string{"42?full=1", "43", "44"} {
		mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "https://app.test/api/users/"+path, http.NoBody))
	}

	r, err := http.NewRequest(http.MethodGet, "https://app.test/api/users/42?full=1", http.NoBody)
	if err != nil {
		log.Fatal(err)
	}
	e := gw.Explain(r) // or the request that a handler behind http.StripPrefix was given
	fmt.Println(e.Verdict == gateway.VerdictFresh, e.Cache.Stored.Age < time.Minute)
	fmt.Print(e)

	if err := errors.Join(gw.Shutdown(context.Background()), cache.Shutdown(context.Background())); err != nil {
		log.Fatal(err)
	}
	// Output:
	// true true
	// GET /api/users/42: fresh (200), what is stored is fresh for 1h more
	//   service  users
	//   route    /api/users/{path...}
	//   target   http://users-1:8000/42?full=1
	// cache
	//   key       https://app.test/api/users/42?full=1
	//   stored    fresh for 1h more, 0s old, 1h by max-age, status 200, 8 bytes
	//   of which  ETag, stands in for errors
	//   status    gateway; hit; ttl=3600
	// replicas
	//   users-1:8000  candidate, and the one that is chosen, 0 requests in flight, 1 connection idle
	//   users-2:8000  out: ejected, due in 1h, 0 requests in flight, 1 connection idle
	// policies
	//   WithTimeout          30s to the response's header
	//   WithDialTimeout      5s
	//   WithBodyIdleTimeout  1m
	//   WithAcquireTimeout   1s
	//   WithBreaker          0.5 of 20 within 10s; closed, 0 of 3 failed
	//   WithPanicThreshold   0.5
	//   WithEjection         1 failure in a row, for 1h to 1h
	//   WithBalancing        round robin
	//   WithRetries          2; the budget has room for 29
	//   WithCache            stale for up to 24h
	//   WithCollapseTimeout  10s
	//   WithBearerToken      sets Authorization
}

// A rewrite hook changes what a service is sent.
func ExampleWithRewrite() {
	users := service(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.URL, " for ", r.Header.Get("X-Tenant"))
	})
	defer users.Close()

	gw, err := gateway.New(gateway.WithService("users", users.URL,
		gateway.WithRewrite(func(out *http.Request) {
			out.URL.Path = "/v2" + out.URL.Path
			out.Header.Set("X-Tenant", "blue")
		}),
	))
	if err != nil {
		log.Fatal(err)
	}

	app := httptest.NewServer(gw)
	defer app.Close()
	show(app.URL + "/users/42?full=1")
	// Output:
	// 200 /v2/42?full=1 for blue
}

// A response hook changes what a service has answered, before it is stored and
// sent on. An error is answered 502.
func ExampleWithModifyResponse() {
	users := service(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Build", "1f3c")
		if r.URL.Path == "/teapot" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	defer users.Close()

	gw, err := gateway.New(gateway.WithService("users", users.URL,
		gateway.WithModifyResponse(func(resp *http.Response) error {
			if resp.StatusCode == http.StatusTeapot {
				return errors.New("no teapots here")
			}
			resp.Header.Del("X-Build")
			return nil
		}),
	))
	if err != nil {
		log.Fatal(err)
	}

	app := httptest.NewServer(gw)
	defer app.Close()
	for _, path := range []string{"/users/42", "/users/teapot"} {
		resp, err := http.Get(app.URL + path)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Printf("%d %q\n", resp.StatusCode, resp.Header.Get("X-Build"))
	}
	// Output:
	// 200 ""
	// 502 ""
}

// A token source is asked for each request. Where it fails, nothing is sent.
func ExampleWithTokenSource() {
	users := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("Authorization")) })
	defer users.Close()
	token, expired := "t0ken", error(nil)

	gw, err := gateway.New(gateway.WithService("users", users.URL,
		gateway.WithTokenSource(func(context.Context) (string, error) { return token, expired }),
	))
	if err != nil {
		log.Fatal(err)
	}

	app := httptest.NewServer(gw)
	defer app.Close()
	show(app.URL + "/users/42")
	expired = errors.New("the identity provider is down")
	show(app.URL + "/users/42")
	fmt.Println(gw.Stats().Errors)
	// Output:
	// 200 Bearer t0ken
	// 502 {"type":"about:blank","title":"Bad Gateway","status":502,"detail":"The service's credentials are not available.","reason":"token_unavailable"}
	//
	// map[token_unavailable:1]
}

// An error handler of the app's own answers what the gateway has to refuse or
// to give up.
func ExampleWithErrorHandler() {
	gw, err := gateway.New(
		gateway.WithService("users", "http://users:8000"),
		gateway.WithErrorHandler(func(w http.ResponseWriter, r *http.Request, err *gateway.Error) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(err.Status)
			_ = json.NewEncoder(w).Encode(map[string]any{"code": err.Reason})
		}),
	)
	if err != nil {
		log.Fatal(err)
	}

	app := httptest.NewServer(gw)
	defer app.Close()
	show(app.URL + "/orders/1")
	// Output:
	// 404 {"code":"unknown_service"}
}

// A round tripper of the app's own takes the place of the package's
// connections: here it finds a service by another way than its name.
func ExampleWithTransport() {
	users := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.URL.Path) })
	defer users.Close()

	var dialer net.Dialer
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, users.Listener.Addr().String())
		},
		DisableCompression: true, // or it would ask for what the client did not
	}
	defer transport.CloseIdleConnections()
	gw, err := gateway.New(gateway.WithService("users", "http://users.internal", gateway.WithTransport(transport)))
	if err != nil {
		log.Fatal(err)
	}

	app := httptest.NewServer(gw)
	defer app.Close()
	show(app.URL + "/users/42")
	// Output:
	// 200 users.internal/42
}

// What all clients may see of a service with one static token can be stored.
func ExampleWithCacheAuthorized() {
	asked := 0
	prices := service(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "asked ", asked)
	})
	defer prices.Close()
	cache, err := gateway.NewCache()
	if err != nil {
		log.Fatal(err)
	}
	gw, err := gateway.New(gateway.WithCache(cache),
		gateway.WithService("mine", prices.URL, gateway.WithBearerToken("t0ken")),
		gateway.WithService("ours", prices.URL, gateway.WithBearerToken("t0ken"), gateway.WithCacheAuthorized()),
	)
	if err != nil {
		log.Fatal(err)
	}
	app := httptest.NewServer(gw)
	defer app.Close()
	for _, path := range []string{"/mine/1", "/mine/1", "/ours/1", "/ours/1"} {
		resp, err := http.Get(app.URL + path)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Header.Get("Cache-Status"))
	}
	// Output:
	// gateway; fwd=uri-miss; detail=authorization
	// gateway; fwd=uri-miss; detail=authorization
	// gateway; fwd=uri-miss; stored
	// gateway; hit; ttl=60
}

// A service may have several servers. What one of them fails at, another is
// asked for, where that is safe.
func ExampleWithReplicas() {
	first := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "first: ", r.URL.Path) })
	defer first.Close()
	second := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "second: ", r.URL.Path) })
	defer second.Close()
	firstURL, secondURL := first.URL, second.URL

	gw, err := gateway.New(
		gateway.WithService("users", firstURL,
			gateway.WithReplicas(gateway.Replica{URL: secondURL}),
			gateway.WithBalancing(gateway.RoundRobin()),
		),
	)
	if err != nil {
		log.Fatal(err)
	}

	app := httptest.NewServer(gw)
	defer app.Close()
	show(app.URL + "/users/1")
	show(app.URL + "/users/2")
	show(app.URL + "/users/3")
	first.Close()
	show(app.URL + "/users/4")
	show(app.URL + "/users/5")
	fmt.Println("errors:", gw.Stats().Errors)
	// Output:
	// 200 first: /1
	// 200 second: /2
	// 200 first: /3
	// 200 second: /4
	// 200 second: /5
	// errors: map[]
}

// Replicas can be replaced at run time. What is under way at the others goes on.
func ExampleUpstream_SetReplicas() {
	blue := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "blue") })
	defer blue.Close()
	green := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "green") })
	defer green.Close()
	gw, err := gateway.New(gateway.WithService("users", blue.URL))
	if err != nil {
		log.Fatal(err)
	}
	app := httptest.NewServer(gw)
	defer app.Close()

	show(app.URL + "/users/42")
	fmt.Println(gw.Upstream("users").SetReplicas(gateway.Replica{URL: green.URL}))
	show(app.URL + "/users/42")
	fmt.Println(gw.Upstream("users").SetReplicas(gateway.Replica{URL: "http://green/v2", Weight: -1}))
	show(app.URL + "/users/42")
	// Output:
	// 200 blue
	// <nil>
	// 200 green
	// gateway: SetReplicas of service "users": "-1": the weight is negative
	// gateway: SetReplicas of service "users": "http://green/v2": the path is not the target's
	// 200 green
}

// A service whose requests fail is left alone for a while. The hook, which must
// not block, is told of each change.
func ExampleWithBreaker() {
	asked := 0
	orders := service(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, "broken")
	})
	defer orders.Close()
	ordersURL := orders.URL
	changes := make(chan string, 1)

	gw, err := gateway.New(
		gateway.WithService("orders", ordersURL,
			gateway.WithBreaker(0.5, 3),
			gateway.WithBreakerTimes(10*time.Second, time.Minute, 1),
			gateway.WithBreakerHook(func(service string, from, to gateway.BreakerState) {
				changes <- fmt.Sprint(service, ": ", from, " -> ", to)
			}),
		),
	)
	if err != nil {
		log.Fatal(err)
	}

	app := httptest.NewServer(gw)
	defer app.Close()
	show(app.URL + "/orders/1")
	show(app.URL + "/orders/2")
	show(app.URL + "/orders/3")
	fmt.Println(<-changes)
	resp, err := http.Get(app.URL + "/orders/4")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.StatusCode, "after", resp.Header.Get("Retry-After"), "s")
	fmt.Println("asked", asked, "times;", gw.Stats().Errors)
	// Output:
	// 500 broken
	// 500 broken
	// 500 broken
	// orders: closed -> open
	// 503 after 60 s
	// asked 3 times; map[breaker_open:1]
}

// A request that takes long is reported while it still runs.
func ExampleWithSlowRequest() {
	slow := make(chan string, 1)
	answer := make(chan struct{})
	orders := service(func(http.ResponseWriter, *http.Request) { <-answer })
	defer orders.Close()

	gw, err := gateway.New(
		gateway.WithSlowRequest(time.Second, func(r gateway.SlowRequest) {
			slow <- fmt.Sprintf("%s %s of %s is at %q, attempt %d", r.Method, r.Path, r.Service, r.Stage, r.Attempts)
		}),
		gateway.WithService("orders", orders.URL),
	)
	if err != nil {
		log.Fatal(err)
	}

	app := httptest.NewServer(gw)
	defer app.Close()
	go func() {
		fmt.Println(<-slow)
		close(answer)
	}()
	show(app.URL + "/orders/1?token=secret")
	// Output:
	// GET /orders/1 of orders is at "header", attempt 1
	// 200
}

// A request that is not answered soon is sent to another replica, too. The first
// answer is taken, and the other request is called off.
func ExampleWithHedge() {
	calledOff := make(chan bool, 1)
	slow := service(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		calledOff <- true
	})
	defer slow.Close()
	fast := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "fast: ", r.URL.Path) })
	defer fast.Close()

	gw, err := gateway.New(gateway.WithService("users", slow.URL,
		gateway.WithReplicas(gateway.Replica{URL: fast.URL}),
		gateway.WithBalancing(gateway.RoundRobin()), // the slow one first
		gateway.WithHedge(20*time.Millisecond),
	))
	if err != nil {
		log.Fatal(err)
	}

	app := httptest.NewServer(gw)
	defer app.Close()
	show(app.URL + "/users/42")
	fmt.Println("called off:", <-calledOff)
	fmt.Println("hedges:", gw.Stats().Hedges)
	// Output:
	// 200 fast: /42
	// called off: true
	// hedges: 1
}

// More than a service is meant to bear is refused, with the time after which it
// would be let in.
func ExampleWithRateLimit() {
	search := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "found ", r.URL.Query().Get("q")) })
	defer search.Close()

	gw, err := gateway.New(gateway.WithService("search", search.URL,
		gateway.WithRateLimit(0.1, 2), // one in ten seconds, and two at once
	))
	if err != nil {
		log.Fatal(err)
	}

	app := httptest.NewServer(gw)
	defer app.Close()
	show(app.URL + "/search?q=a")
	show(app.URL + "/search?q=b")
	resp, err := http.Get(app.URL + "/search?q=c")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.StatusCode, "after", resp.Header.Get("Retry-After"), "s")
	// Output:
	// 200 found a
	// 200 found b
	// 429 after 10 s
}

// An event stream passes as it comes: each event is at the client before the
// service sends the next.
func Example_eventStream() {
	received := make(chan bool)
	news := service(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for n := 1; n <= 3; n++ {
			fmt.Fprintf(w, "data: event %d\n\n", n)
			_ = http.NewResponseController(w).Flush()
			<-received
		}
	})
	defer news.Close()
	gw, err := gateway.New(gateway.WithService("news", news.URL))
	if err != nil {
		log.Fatal(err)
	}
	app := httptest.NewServer(gw)
	defer app.Close()

	stream, err := http.Get(app.URL + "/news/today")
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Body.Close()
	for lines := bufio.NewScanner(stream.Body); lines.Scan(); {
		if line := lines.Text(); line != "" {
			fmt.Println(line)
			received <- true
		}
	}
	// Output:
	// data: event 1
	// data: event 2
	// data: event 3
}

// A service can be a socket of the same machine.
func Example_unixSocket() {
	dir, err := os.MkdirTemp("", "users")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "users.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	users := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Host, r.URL.Path)
	})}
	go func() { _ = users.Serve(ln) }()
	defer users.Close()

	gw, err := gateway.New(gateway.WithService("users", "unix://"+filepath.ToSlash(socket)))
	if err != nil {
		log.Fatal(err)
	}

	app := httptest.NewServer(gw)
	defer app.Close()
	show(app.URL + "/users/42")
	// Output:
	// 200 localhost/42
}

// HTTP/2 is what gRPC needs. To an http target it is spoken with prior
// knowledge.
func ExampleWithHTTP2() {
	greeter := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, " ", r.URL.Path) }))
	greeter.Config.Protocols = new(http.Protocols)
	greeter.Config.Protocols.SetUnencryptedHTTP2(true)
	greeter.Start()
	defer greeter.Close()

	gw, err := gateway.New(gateway.WithService("greeter", greeter.URL, gateway.WithHTTP2()))
	if err != nil {
		log.Fatal(err)
	}

	app := httptest.NewServer(gw)
	defer app.Close()
	show(app.URL + "/greeter/hello.Greeter/SayHello")
	// Output:
	// 200 HTTP/2.0 /hello.Greeter/SayHello
}

// Connections can be made in a way of the app's own: here a service is found
// without its name being resolved.
func ExampleWithDialContext() {
	users := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.URL.Path) })
	defer users.Close()
	address := users.Listener.Addr().String()

	gw, err := gateway.New(gateway.WithService("users", "http://users.internal",
		gateway.WithDialContext(func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		}),
	))
	if err != nil {
		log.Fatal(err)
	}

	app := httptest.NewServer(gw)
	defer app.Close()
	show(app.URL + "/users/42")
	// Output:
	// 200 users.internal/42
}

// A cache can be put before any handler: what it computes once is answered from
// memory, until it is purged.
func ExampleCache_Wrap() {
	computed := 0
	render := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		computed++
		w.Header().Set("Cache-Tag", "menu")
		fmt.Fprint(w, "page ", computed)
	})
	mux := http.NewServeMux()

	pages, err := gateway.NewCache(gateway.WithDefaultTTL(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	mux.Handle("/pages/", pages.Wrap("pages")(render))

	app := httptest.NewServer(mux)
	defer app.Close()
	show(app.URL + "/pages/home")
	show(app.URL + "/pages/home")
	fmt.Println("purged:", pages.PurgeTag("menu"))
	show(app.URL + "/pages/home")
	// Output:
	// 200 page 1
	// 200 page 1
	// purged: 1
	// 200 page 2
}

// The page that operators look at, below a path of the app's.
func ExampleGateway_DashboardHandler() {
	users := service(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	defer users.Close()
	gw, err := gateway.New(gateway.WithService("users", users.URL))
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", gw)
	mux.Handle("/dashboard/", gw.DashboardHandler())
	app := httptest.NewServer(mux)
	defer app.Close()

	resp, err := http.Get(app.URL + "/dashboard/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status, resp.Header.Get("Content-Type"))
	// Output:
	// 200 OK text/html; charset=utf-8
}
