package e2e_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// refusal is a request that we answer by ourselves.
type refusal struct {
	name    string
	request string // empty: a GET of /a/x
	url     string // of the service a; empty: one that answers well
	script  func(*testnet.Conn)
	opts    []gateway.ServiceOption
	more    []gateway.Option
	before  func(t *testing.T, gw *gateway.Gateway, addr string)
	want    string // the parameters after the name
}

func refusals(t *testing.T) []refusal {
	const get = "GET /a/x HTTP/1.1\r\nHost: h\r\n"
	once := func(t *testing.T, _ *gateway.Gateway, addr string) { testnet.Do(t, addr, testnet.Get("/a/x")) }
	held := func(t *testing.T, gw *gateway.Gateway, addr string) {
		go testnet.Do(t, addr, testnet.Get("/a/held"))
		testnet.Settle(t, "it is on its way", func() bool { return gw.Stats().Services["a"].Replicas[0].InFlight == 1 })
	}
	holds := func(c *testnet.Conn) {
		c.ReadRequest()
		c.Wait()
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	unknown := testnet.UpstreamTLS(t, testnet.Reply(200, "", "ok"))
	strict := func(version uint16) string {
		srv := httptest.NewUnstartedServer(http.NotFoundHandler())
		srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: version, MaxVersion: version}
		srv.Config.ErrorLog = nil
		srv.StartTLS()
		t.Cleanup(srv.Close)
		return srv.URL
	}
	lazy := gateway.WithTLSConfig(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	never := gateway.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	return []refusal{
		{name: "bad_request", request: testnet.Get("/a/%2e%2e/x"), want: `error=http_request_error; next-hop=a; details="bad_request"`},
		{name: "client_body_error", request: strings.Replace(get, "GET", "POST", 1) + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", script: func(c *testnet.Conn) { c.ReadRequest() }, want: `error=http_request_error; next-hop=a; details="client_body_error"`},
		{name: "unknown_service", request: testnet.Get("/b/x"), want: `error=destination_not_found; details="unknown_service"`},
		{name: "method_not_allowed", request: testnet.Build("TRACE", "/a/x", ""), want: `error=http_request_error; next-hop=a; details="method_not_allowed"`},
		{name: "body_too_large", request: testnet.Build("POST", "/a/x", "long"), opts: one(gateway.WithMaxBodyBytes(1)), want: `error=http_request_error; next-hop=a; details="body_too_large"`},
		{name: "target_too_long", request: testnet.Get("/a/" + strings.Repeat("x", 9000)), want: `error=http_request_error; next-hop=a; details="target_too_long"`},
		{name: "rate_limited", opts: one(gateway.WithRateLimit(0.01, 1)), before: once, want: `error=http_request_error; next-hop=a; details="rate_limited"`},
		{name: "header_too_large", request: testnet.Get("/a/x", "X: "+strings.Repeat("x", 2000)), opts: one(gateway.WithMaxHeaderBytes(1 << 10)), want: `error=http_request_error; next-hop=a; details="header_too_large"`},
		{name: "panic", opts: one(gateway.WithRewrite(func(*http.Request) { panicsHere() })), want: `error=proxy_internal_error; next-hop=a; details="panic"`},
		{name: "method_not_implemented", request: testnet.Build("BREW", "/a/x", ""), want: `error=http_request_denied; next-hop=a; details="method_not_implemented"`},
		{name: "token_unavailable", opts: one(gateway.WithTokenSource(func(context.Context) (string, error) { return "", io.EOF })), want: `error=proxy_internal_error; next-hop=a; details="token_unavailable"`},
		{name: "hook_failed", opts: one(gateway.WithModifyResponse(func(*http.Response) error { return io.EOF })), want: `error=proxy_internal_error; next-hop=a; received-status=200; details="hook_failed"`},
		{name: "connect_failed", url: "http://" + testnet.Refused(t), want: `error=connection_refused; next-hop=a; details="connect_failed"`},
		{name: "connect_failed: no name", url: "http://nowhere.invalid", want: `error=dns_error; next-hop=a; details="connect_failed"`},
		{name: "connect_failed: no socket", url: "unix:///nowhere/at/all", want: `error=destination_unavailable; next-hop=a; details="connect_failed"`},
		{name: "connect_failed: no TLS", url: strings.Replace(plain.URL, "http", "https", 1), want: `error=tls_protocol_error; next-hop=a; details="connect_failed"`},
		{name: "connect_failed: unknown certificate", url: unknown.URL, want: `error=tls_certificate_error; next-hop=a; details="connect_failed"`},
		{name: "connect_failed: we have none", url: strict(tls.VersionTLS12), opts: one(lazy), want: `error=tls_alert_received; next-hop=a; details="connect_failed"`},
		{name: "connect_failed: over HTTP/2", url: "http://" + testnet.Refused(t), opts: one(gateway.WithHTTP2()), want: `error=connection_refused; next-hop=a; details="connect_failed"`},
		{name: "upstream_failed", script: func(c *testnet.Conn) { c.ReadRequest() }, want: `error=connection_terminated; next-hop=a; details="upstream_failed"`},
		{name: "upstream_failed: we have no certificate", url: strict(tls.VersionTLS13), opts: one(lazy), want: `error=tls_alert_received; next-hop=a; details="upstream_failed"`},
		{name: "upstream_failed: a round tripper", opts: one(gateway.WithTransport(roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("secret") }))), want: `error=connection_terminated; next-hop=a; details="upstream_failed"`},
		{name: "bad_response", script: testnet.Replies("nonsense\r\n\r\n"), want: `error=http_protocol_error; next-hop=a; details="bad_response"`},
		{name: "bad_response: header", script: testnet.Replies("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n"), want: `error=http_response_header_section_size; next-hop=a; details="bad_response"`},
		{name: "bad_response: coding", script: testnet.Replies("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), want: `error=http_response_transfer_coding; next-hop=a; details="bad_response"`},
		{name: "bad_response: body", script: testnet.Reply(200, "", "long"), opts: one(gateway.WithMaxResponseBytes(1)), want: `error=http_response_body_size; next-hop=a; received-status=200; details="bad_response"`},
		{name: "bad_response: 304", script: testnet.Reply(304, "", ""), want: `error=http_protocol_error; next-hop=a; received-status=304; details="bad_response"`},
		{name: "bad_response: upgrade", script: testnet.Replies("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), want: `error=http_upgrade_failed; next-hop=a; received-status=101; details="bad_response"`},
		{name: "upstream_1xx_overflow", script: testnet.Replies(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 20)), request: testnet.Get("/a/x", "Expect: 100-continue"), want: `error=http_protocol_error; next-hop=a; details="upstream_1xx_overflow"`},
		{name: "truncated", script: testnet.Replies("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"), want: `error=http_response_incomplete; next-hop=a; received-status=200; details="truncated"`},
		{name: "breaker_open", url: "http://" + testnet.Refused(t), opts: one(gateway.WithBreaker(1, 1)), before: once, want: `error=destination_unavailable; next-hop=a; details="breaker_open"`},
		{name: "no_replica", url: "http://" + testnet.Refused(t), opts: []gateway.ServiceOption{gateway.WithPanicThreshold(0), gateway.WithEjection(1, time.Hour, time.Hour), gateway.WithEjectionShare(1)}, before: once, want: `error=destination_unavailable; next-hop=a; details="no_replica"`},
		{name: "overloaded", script: holds, opts: one(gateway.WithMaxConcurrency(1, 0, 0)), before: held, want: `error=http_request_denied; next-hop=a; details="overloaded"`},
		{name: "pool_exhausted", script: holds, opts: []gateway.ServiceOption{gateway.WithMaxConns(1), gateway.WithAcquireTimeout(time.Millisecond)}, before: held, want: `error=connection_limit_reached; next-hop=a; details="pool_exhausted"`},
		{name: "shutting_down", before: func(t *testing.T, gw *gateway.Gateway, _ string) { require.NoError(t, gw.Shutdown(t.Context())) }, want: `error=proxy_internal_response; next-hop=a; details="shutting_down"`},
		{name: "timeout", script: holds, opts: one(gateway.WithTimeout(20 * time.Millisecond)), want: `error=http_response_timeout; next-hop=a; details="timeout"`},
		{name: "timeout: dial", opts: []gateway.ServiceOption{never, gateway.WithDialTimeout(10 * time.Millisecond)}, want: `error=connection_timeout; next-hop=a; details="timeout"`},
		{name: "timeout: body", script: func(c *testnet.Conn) {
			c.ReadRequest()
			c.Send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
			c.Wait()
		}, opts: one(gateway.WithBodyIdleTimeout(20 * time.Millisecond)), want: `error=connection_read_timeout; next-hop=a; received-status=200; details="timeout"`},
		{name: "not_cached", request: testnet.Get("/a/x", "Cache-Control: only-if-cached"), want: `error=proxy_internal_response; next-hop=a; details="not_cached"`},
		{name: "loop_detected", request: testnet.Get("/a/x", "Via: "+strings.Repeat("1.1 gateway, ", 9)), want: `error=proxy_loop_detected; next-hop=a; details="loop_detected"`},
	}
}

// Whatever we answer by ourselves says why, for each reason (RFC 9209 §2).
func TestProxyStatusOfEachReason(t *testing.T) {
	missing := constantsOf(t, ".", "Reason")
	missing = slices.DeleteFunc(missing, func(reason string) bool {
		return reason == string(gateway.ReasonClientClosed) || reason == string(gateway.ReasonShared) // nobody is answered; below
	})
	for _, tt := range refusals(t) {
		reason, _, _ := strings.Cut(tt.name, ":")
		missing = slices.DeleteFunc(missing, func(r string) bool { return r == reason })
		t.Run(tt.name, func(t *testing.T) {
			if tt.url == "" {
				if tt.script == nil {
					tt.script = testnet.Reply(200, "", "ok")
				}
				tt.url = testnet.Upstream(t, tt.script).URL
			}
			if tt.request == "" {
				tt.request = testnet.Get("/a/x")
			}
			o := newObserved(t)
			cache, err := gateway.NewCache()
			require.NoError(t, err)
			gw := o.gateway(append(tt.more, gateway.WithCache(cache), gateway.WithoutRetries(), gateway.WithService("a", tt.url, tt.opts...))...)
			front := httptest.NewServer(gw)
			defer front.Close()
			addr := front.Listener.Addr().String()
			if tt.before != nil {
				tt.before(t, gw, addr)
			}
			resp := testnet.Do(t, addr, tt.request)
			assert.Equal(t, []string{"gateway; " + tt.want}, resp.Header["Proxy-Status"], "%s", resp.Raw)
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // who is held
			_ = gw.Shutdown(ctx)
			require.NoError(t, cache.Shutdown(context.Background()))
		})
	}
	assert.Empty(t, missing)
}

// Who waited for the answer to another request, which was an error, is told its
// status.
func TestProxyStatusOfFollowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, func(c *testnet.Conn) {
			for c.ReadRequest() != nil && c.Pause(time.Second) && c.Send(testnet.Answer(503, "", "no")) {
			}
		}, gateway.WithoutRetries())
		got := make([][]string, 2)
		for i := range got {
			go func() { got[i] = b.dial().Do(testnet.Get("/a/x")).Header["Proxy-Status"] }()
			synctest.Wait()
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Equal(t, 1, b.up.Begun())
		assert.Equal(t, [][]string{nil, {`gateway; error=proxy_internal_response; next-hop=a; received-status=503; details="shared_failure"`}}, got)
	})
}

// What is forwarded tells what others have told, and no more.
func TestProxyStatusOfOthers(t *testing.T) {
	up, _ := server(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/502" {
			w.Header().Set("Proxy-Status", "inner; error=connection_refused")
			w.WriteHeader(502)
		}
		w.Header().Set("Cache-Control", "max-age=60")
	})
	o := newObserved(t)
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	silent := gateway.WithErrorHandler(func(w http.ResponseWriter, r *http.Request, err *gateway.Error) {
		switch r.URL.Path {
		case "/gone/silent":
			w.Header().Del("Proxy-Status")
		case "/gone/panics":
			if err.Reason != gateway.ReasonPanic {
				panicsHere()
			}
		}
		w.WriteHeader(err.Status)
	})
	gw := o.gateway(gateway.WithCache(cache), gateway.WithoutRetries(), silent, gateway.WithService("a", up.URL), gateway.WithService("gone", "http://"+testnet.Refused(t)))
	status := func(h http.Handler, path string) []string {
		return handle(t, h, testnet.Get(path), nil).header["Proxy-Status"]
	}
	assert.Equal(t, []string{"inner; error=connection_refused"}, status(gw, "/a/502"))
	assert.Empty(t, status(gw, "/a/x"))
	assert.Empty(t, status(gw, "/a/x"), "a hit")
	assert.Empty(t, status(gw, "/gone/silent"), "the handler may drop it")
	assert.Equal(t, []string{`gateway; error=proxy_internal_error; next-hop=gone; details="panic"`}, status(gw, "/gone/panics"))
	refused := `gateway; error=connection_refused; next-hop=gone; details="connect_failed"`
	assert.Equal(t, []string{refused}, status(gw, "/gone/x"))
	outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Proxy-Status", "middleware")
		gw.ServeHTTP(w, r)
	})
	assert.Equal(t, []string{"middleware", refused}, status(outer, "/gone/x"))
	pages := cache.Wrap("pages")(http.NotFoundHandler())
	w := handle(t, pages, testnet.Get("/x", "Cache-Control: only-if-cached"), nil)
	assert.Equal(t, 504, w.status)
	assert.Empty(t, w.header["Proxy-Status"], "an origin tells nothing (RFC 9209 §2)")
	require.NoError(t, cache.Shutdown(t.Context()))
}

// The README's table is what is told.
func TestReadmeExplainsProxyStatus(t *testing.T) {
	_, section, found := strings.Cut(readme(t), "| proxy error |")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n\n")
	listed := map[string]bool{}
	for line := range strings.Lines(section) {
		if cells := regexp.MustCompile("`([a-z_0-9]+)`").FindAllStringSubmatch(line, -1); len(cells) > 1 {
			for _, reason := range cells[1:] {
				listed[cells[0][1]+" "+reason[1]] = true
			}
		}
	}
	told := regexp.MustCompile(`error=([a-z_0-9]+);.* details="([a-z_0-9]+)"`)
	for _, tt := range refusals(t) {
		m := told.FindStringSubmatch(tt.want)
		assert.True(t, listed[m[1]+" "+m[2]], "%s: no row of %s names %s", tt.name, m[1], m[2])
	}
}
