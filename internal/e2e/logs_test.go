package e2e_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
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
	"go.opentelemetry.io/otel/attribute"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// statuses is a round tripper that answers with the status that the path names.
func statuses() gateway.DefaultOption {
	return gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
		status := 200
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &status)
		if status == 0 {
			return nil, errors.New("no answer")
		}
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}))
}

// A request's line holds these fields and no others.
func TestRequestLine(t *testing.T) {
	o := newObserved(t)
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	gw := o.gateway(
		gateway.WithPropagator(propagation.TraceContext{}), gateway.WithTrustedProxies("192.0.2.0/24"), gateway.WithoutRetries(), statuses(),
		gateway.WithService("a", target, gateway.WithMethods("BREW")), gateway.WithService("c", target, gateway.WithCache(cache)),
	)
	for _, tt := range []struct {
		request string
		want    map[string]any
	}{
		{testnet.Get("/a/x?token=secret", "X-Forwarded-For: 203.0.113.7", "X-Request-Id: one"), map[string]any{
			"level": "INFO", "http.request.method": "GET", "url.path": "/a/x", "http.route": "/a/{path...}", "client.address": "203.0.113.7",
			"gateway.request.id": "one", "http.response.status_code": 200.0, "http.response.body.size": 0.0, "gateway.service": "a", "gateway.attempts": 1.0,
		}},
		{testnet.Build("BREW", "/a/500", "", "X-Request-Id: two"), map[string]any{
			"level": "WARN", "http.request.method": "_OTHER", "http.request.method_original": "BREW", "url.path": "/a/500", "http.route": "/a/{path...}",
			"client.address": "192.0.2.1", "gateway.request.id": "two", "http.response.status_code": 500.0, "http.response.body.size": 0.0,
			"gateway.service": "a", "gateway.attempts": 1.0, "error.type": "500",
		}},
		{testnet.Get("/c/0", "X-Request-Id: three"), map[string]any{
			"level": "WARN", "http.request.method": "GET", "url.path": "/c/0", "http.route": "/c/{path...}", "client.address": "192.0.2.1",
			"gateway.request.id": "three", "http.response.status_code": 502.0, "gateway.service": "c", "gateway.attempts": 1.0,
			"gateway.cache.result": "uri-miss", "gateway.reason": "upstream_failed", "error.type": "upstream_failed", "error.message": "round trip broke: no answer",
		}},
		{testnet.Get("/unknown", "X-Request-Id: four"), map[string]any{
			"level": "INFO", "http.request.method": "GET", "url.path": "/unknown", "client.address": "192.0.2.1", "gateway.request.id": "four",
			"http.response.status_code": 404.0, "gateway.reason": "unknown_service",
		}},
	} {
		before := len(o.logs.Find(t, "gateway: request"))
		handle(t, gw, tt.request, nil)
		lines := o.logs.Find(t, "gateway: request")[before:]
		require.Len(t, lines, 1)
		line := lines[0]
		var server trace.SpanContext
		client := ""
		for _, s := range o.spans.GetSpans() {
			if s.SpanKind == trace.SpanKindServer {
				server = s.SpanContext
				attrs := attribute.NewSet(s.Attributes...)
				v, _ := attrs.Value("client.address")
				client = v.AsString()
			}
		}
		assert.Equal(t, client, line["client.address"], "as on the span")
		assert.Equal(t, server.TraceID().String(), line["trace_id"])
		assert.Equal(t, server.SpanID().String(), line["span_id"])
		assert.Less(t, line["gateway.duration"], 1.0)
		for _, name := range []string{"time", "msg", "trace_id", "span_id", "gateway.duration"} {
			delete(line, name)
		}
		if tt.want["http.response.body.size"] == nil {
			delete(line, "http.response.body.size")
		}
		assert.Equal(t, tt.want, line)
	}
	require.NoError(t, cache.Shutdown(t.Context()))
}

// The level goes by whose affair the outcome is.
func TestRequestLevels(t *testing.T) {
	boom := errors.New("boom")
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "short")
		if r.URL.Path == "/stays" {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}))
	defer broken.Close()
	o := newObserved(t)
	gw := o.gateway(gateway.WithoutRetries(), gateway.WithoutBreaker(),
		gateway.WithService("a", target, statuses()),
		gateway.WithService("refused", "http://"+testnet.Refused(t)),
		gateway.WithService("broken", broken.URL),
		gateway.WithService("panics", target, statuses(), gateway.WithRewrite(func(*http.Request) { panic("boom") })),
		gateway.WithService("hook", target, statuses(), gateway.WithModifyResponse(func(*http.Response) error { return boom })),
		gateway.WithService("token", target, statuses(), gateway.WithTokenSource(func(context.Context) (string, error) { return "", boom })),
	)
	front := httptest.NewServer(gw)
	defer front.Close()
	for _, tt := range []struct {
		path, level, reason string
		status              int
	}{
		{"/a/200", "INFO", "", 200},
		{"/a/304", "WARN", "bad_response", 502}, // to a request without conditions
		{"/a/404", "INFO", "", 404},
		{"/a/500", "WARN", "", 500},
		{"/a/503", "WARN", "", 503},
		{"/a/0", "WARN", "upstream_failed", 502},
		{"/unknown", "INFO", "unknown_service", 404},
		{"/a/%2e%2e/x", "INFO", "bad_request", 400},
		{"/refused/x", "WARN", "connect_failed", 502},
		{"/panics/x", "ERROR", "panic", 500},
		{"/hook/x", "ERROR", "hook_failed", 502},
		{"/token/x", "ERROR", "token_unavailable", 502},
		{"/broken/x", "WARN", "truncated", 200},
		{"/broken/stays", "INFO", "client_closed", 499},
	} {
		t.Run(tt.path, func(t *testing.T) {
			before := len(o.logs.Find(t, "gateway: request"))
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, front.URL+tt.path, http.NoBody)
			require.NoError(t, err)
			resp, err := front.Client().Do(req)
			require.NoError(t, err)
			if tt.status == 499 {
				leave()
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			testnet.Settle(t, "it is logged", func() bool { return len(o.logs.Find(t, "gateway: request")) > before })
			line := o.logs.Find(t, "gateway: request")[before]
			assert.Equal(t, tt.level, line["level"])
			assert.EqualValues(t, tt.status, line["http.response.status_code"])
			reason, _ := line["gateway.reason"].(string)
			assert.Equal(t, tt.reason, reason, "%v", line)
		})
	}
}

// Of what succeeds a share is logged, and all that fails or is slow.
func TestLogSampling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newObserved(t)
		rt := gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
			var d int
			if _, err := fmt.Sscanf(r.URL.Path, "/slow%d", &d); err == nil {
				time.Sleep(time.Duration(d) * time.Second)
			}
			status := 200
			_, _ = fmt.Sscanf(r.URL.Path, "/%d", &status)
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		}))
		gw := o.gateway(gateway.WithoutBreaker(), gateway.WithoutEjection(), gateway.WithoutRetries(), gateway.WithLogSampling(0), rt,
			gateway.WithService("none", target),
			gateway.WithService("half", target, gateway.WithLogSampling(0.5)),
			gateway.WithService("all", target, gateway.WithLogSampling(1)),
			gateway.WithService("watched", target, gateway.WithSlowRequest(time.Second, nil)),
		)
		logged := func(path string) (n int) {
			for _, line := range o.logs.Find(t, "gateway: request") {
				if line["url.path"] == path {
					n++
				}
			}
			return n
		}
		for range 1000 {
			for _, path := range []string{"/none/200", "/half/200", "/all/200"} {
				assert.Equal(t, 200, handle(t, gw, testnet.Get(path), nil).status)
			}
		}
		assert.Zero(t, logged("/none/200"))
		assert.InDelta(t, 500, logged("/half/200"), 100)
		assert.Equal(t, 1000, logged("/all/200"))
		for _, path := range []string{"/none/404", "/none/500", "/none/slow5", "/half/500", "/unknown", "/watched/slow1"} {
			handle(t, gw, testnet.Get(path), nil)
			assert.Equal(t, 1, logged(path), path)
		}
		for _, path := range []string{"/none/slow4", "/watched/slow0"} {
			handle(t, gw, testnet.Get(path), nil)
			assert.Zero(t, logged(path), path)
		}
	})
}

// Equal failures are logged so many times a second, and the next line says how
// many were left out.
func TestLogLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newObserved(t)
		gw := o.gateway(gateway.WithoutBreaker(), gateway.WithoutEjection(), gateway.WithoutRetries(), gateway.WithLogLimit(2), statuses(),
			gateway.WithService("a", target), gateway.WithService("b", target),
			gateway.WithService("free", target, gateway.WithLogLimit(0)),
		)
		told := func(paths ...string) (lines []string) {
			before := len(o.logs.Find(t, "gateway: request"))
			for _, path := range paths {
				handle(t, gw, testnet.Get(path), nil)
			}
			for _, line := range o.logs.Find(t, "gateway: request")[before:] {
				dropped := ""
				if n := line["gateway.dropped"]; n != nil {
					dropped = fmt.Sprint(" ", n)
				}
				lines = append(lines, fmt.Sprint(line["url.path"], dropped))
			}
			return lines
		}
		times := func(n int, path string) []string { return slices.Repeat([]string{path}, n) }
		assert.Equal(t, times(2, "/a/500"), told(times(10, "/a/500")...))
		assert.Equal(t, times(2, "/a/404"), told(times(5, "/a/404")...), "another kind")
		assert.Equal(t, times(2, "/a/0"), told(times(5, "/a/0")...), "another reason")
		assert.Equal(t, times(2, "/b/500"), told(times(5, "/b/500")...), "another service")
		assert.Equal(t, times(2, "/unknown"), told(times(5, "/unknown")...), "no service")
		assert.Equal(t, times(9, "/a/200"), told(times(9, "/a/200")...), "successes are sampled, not limited")
		assert.Equal(t, times(9, "/free/500"), told(times(9, "/free/500")...))
		assert.Empty(t, told("/a/500"))
		time.Sleep(time.Second)
		assert.Equal(t, []string{"/a/503 9", "/a/503"}, told(times(3, "/a/503")...))
		assert.Equal(t, []string{"/a/0 3"}, told("/a/0"))
	})
}

// Each panic is logged with its stack, and a flood of them is not.
func TestPanicsAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newObserved(t)
		gw := o.gateway(statuses(),
			gateway.WithService("a", target, gateway.WithRewrite(func(*http.Request) { panicsHere() })),
			gateway.WithService("b", target, gateway.WithModifyResponse(func(*http.Response) error { panic(errors.New("other")) })))
		handle(t, gw, testnet.Get("/a/x"), nil)
		lines := o.logs.Find(t, "gateway: panic")
		require.Len(t, lines, 1)
		line := lines[0]
		assert.Equal(t, "ERROR", line["level"])
		assert.Contains(t, line["exception.stacktrace"], "e2e_test.panicsHere(")
		delete(line, "exception.stacktrace")
		delete(line, "time")
		assert.Equal(t, map[string]any{
			"level": "ERROR", "msg": "gateway: panic", "gateway.where": "WithRewrite", "exception.type": "string",
			"exception.message": "it panics", "gateway.dropped": 0.0,
		}, line)
		for range 24 {
			handle(t, gw, testnet.Get("/a/x"), nil)
		}
		assert.Len(t, o.logs.Find(t, "gateway: panic"), 10)
		handle(t, gw, testnet.Get("/b/x"), nil)
		lines = o.logs.Find(t, "gateway: panic")
		require.Len(t, lines, 11, "another place")
		assert.Equal(t, "*errors.errorString", lines[10]["exception.type"])
		time.Sleep(time.Second)
		handle(t, gw, testnet.Get("/a/x"), nil)
		assert.Equal(t, 15.0, o.logs.Find(t, "gateway: panic")[11]["gateway.dropped"])
	})
}

func panicsHere() { panic("it panics") }

// unfit is a logger's handler and a sampler that do nothing but panic.
type unfit struct{ slog.Handler }

func (unfit) Enabled(context.Context, slog.Level) bool  { return true }
func (unfit) Handle(context.Context, slog.Record) error { panic("it panics") }
func (unfit) ShouldSample(sdktrace.SamplingParameters) (r sdktrace.SamplingResult) {
	panic("it panics")
}
func (unfit) Description() string { return "" }

// A request that panics in what it is told to has left nevertheless: Shutdown does
// not wait for it.
func TestPanicsOfWhoIsToldHoldUpNobody(t *testing.T) {
	quiet := testnet.NewLogRecorder()
	for name, opt := range map[string]gateway.SharedOption{
		"logger":  gateway.WithLogger(slog.New(unfit{})),
		"sampler": gateway.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(unfit{}))),
	} {
		svc := gateway.WithService("a", target)
		gw, err := gateway.New(svc, statuses(), opt)
		require.NoError(t, err)
		func() {
			defer func() { assert.Equal(t, name == "logger", recover() != nil, name) }()
			assert.Equal(t, 500, handle(t, gw, testnet.Get("/a/x"), nil).status, name)
		}()
		require.NoError(t, gw.Update(svc, statuses(), opt, gateway.WithLogger(quiet.Logger())))
		assert.Zero(t, gw.Stats().InFlight, name)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		assert.NoError(t, gw.Shutdown(ctx), name)
	}
}

// Changes of state are logged once each.
func TestChangesOfStateAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newObserved(t)
		gw := o.gateway(statuses(), gateway.WithService("a", target), gateway.WithService("b", target))
		up := gw.Upstream("a")
		told := func() (lines []string) {
			for _, line := range o.logs.Records(t) {
				if line["msg"] == "gateway: request" {
					continue
				}
				lines = append(lines, strings.Join(strings.Fields(fmt.Sprint(strings.TrimPrefix(fmt.Sprint(line["msg"]), "gateway: "), " ", line["level"], " ", line["gateway.service"])), " "))
			}
			return lines
		}
		handle(t, gw, testnet.Get("/a/200"), nil)
		require.Empty(t, told())
		require.NoError(t, up.SetReplicas(gateway.Replica{URL: target}, gateway.Replica{URL: "http://b.test"}))
		require.NoError(t, up.SetReplicas(gateway.Replica{URL: target}, gateway.Replica{URL: "http://b.test"}))
		require.Error(t, up.SetReplicas())
		require.Equal(t, []string{"replicas INFO a"}, told())
		line := o.logs.Find(t, "gateway: replicas")[0]
		assert.Equal(t, []any{1.0, 0.0}, []any{line["gateway.replicas.added"], line["gateway.replicas.removed"]})
		up.Drain()
		up.Drain()
		gw.Drain()
		gw.Drain()
		assert.NoError(t, gw.Shutdown(t.Context()))
		assert.NoError(t, gw.Shutdown(t.Context()))
		assert.Equal(t, []string{"replicas INFO a", "drain INFO a", "drain INFO", "shutdown INFO"}, told())
	})
}

// A shutdown that had to cut says so.
func TestShutdownTellsWhatItCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, func(c *testnet.Conn) {
			c.ReadRequest()
			c.Wait()
		})
		go b.dial().Do(testnet.Get("/a/x"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		require.Error(t, b.gw.Shutdown(ctx))
		lines := b.logs.Find(t, "gateway: shutdown")
		require.Len(t, lines, 1)
		assert.Equal(t, "WARN", lines[0]["level"])
		assert.InDelta(t, 3.0, lines[0]["gateway.duration"], 0.1)
		assert.Contains(t, lines[0]["error.message"], "1 request(s)")
	})
}

// A replica that was ejected, then found ill, and that checks bring back, has
// returned.
func TestReturnByChecksIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ill atomic.Bool
		o := newObserved(t)
		gw := o.gateway(gateway.WithoutBreaker(), gateway.WithoutRetries(),
			gateway.WithHealthPath("/health"), gateway.WithHealthChecks(time.Second, 1, 1), gateway.WithEjection(1, time.Hour, time.Hour),
			gateway.WithService("a", "http://a.test:81", gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
				status := 200
				if ill.Load() {
					status = 500
				}
				return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
			})), gateway.WithReplicas(gateway.Replica{URL: "http://b.test"})))
		handle(t, gw, testnet.Get("/a/x"), nil)
		synctest.Wait() // for the first checks
		ill.Store(true)
		handle(t, gw, testnet.Get("/a/x"), nil)
		require.Len(t, o.logs.Find(t, "gateway: ejection"), 1)
		time.Sleep(5 * time.Second)
		require.Len(t, o.logs.Find(t, "gateway: replica"), 2, "both are ill")
		require.Empty(t, o.logs.Find(t, "gateway: return"))
		ill.Store(false)
		time.Sleep(5 * time.Second)
		require.Len(t, o.logs.Find(t, "gateway: replica"), 4)
		back := o.logs.Find(t, "gateway: return")
		require.Len(t, back, 1, "one was ejected")
		assert.Equal(t, "WARN", back[0]["level"])
		assert.Equal(t, o.logs.Find(t, "gateway: ejection")[0]["server.address"], back[0]["server.address"])
		assert.InDelta(t, 5.0, back[0]["gateway.duration"], 1.5)
	})
}

// A name that leads elsewhere, or nowhere, is told of when that begins.
func TestAddressesAreLogged(t *testing.T) {
	up, _ := server(t, "ok", nil)
	_, port, _ := strings.Cut(strings.TrimPrefix(up.URL, "http://"), ":")
	o := newObserved(t)
	gw := o.gateway(gateway.WithDNSRefresh(time.Millisecond),
		gateway.WithService("a", "http://localhost:"+port), gateway.WithService("b", "http://nowhere.invalid"))
	handle(t, gw, testnet.Get("/a/x"), nil)
	handle(t, gw, testnet.Get("/b/x"), nil)
	testnet.Settle(t, "they are resolved", func() bool {
		return len(o.logs.Find(t, "gateway: addresses")) > 0 && len(o.logs.Find(t, "gateway: name resolution")) > 0
	})
	require.NoError(t, gw.Shutdown(t.Context()))
	lines := o.logs.Find(t, "gateway: addresses")
	require.Len(t, lines, 1)
	assert.Equal(t, []any{"INFO", "a", "localhost", 1.0}, []any{lines[0]["level"], lines[0]["gateway.service"], lines[0]["dns.question.name"], lines[0]["gateway.replicas.removed"]})
	lines = o.logs.Find(t, "gateway: name resolution")
	require.Len(t, lines, 1)
	assert.Equal(t, []any{"WARN", "b", "nowhere.invalid"}, []any{lines[0]["level"], lines[0]["gateway.service"], lines[0]["dns.question.name"]})
	assert.NotEmpty(t, lines[0]["error.message"])
}

// A level that the logger does not take costs nothing.
func TestNoLineAllocatesNothing(t *testing.T) {
	quiet := slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))
	hitAllocates(t, gateway.WithLogger(quiet))

	if testnet.RaceEnabled { // the detector empties pools
		return
	}
	// Nor does a failure, beyond what it costs without a logger.
	failing := func(opts ...gateway.Option) float64 {
		gw, err := gateway.New(append(opts, gateway.WithTracerProvider(tracenoop.NewTracerProvider()), gateway.WithMeterProvider(metricnoop.NewMeterProvider()))...)
		require.NoError(t, err)
		r := httptest.NewRequest(http.MethodGet, "/unknown", http.NoBody)
		w := &recorder{header: http.Header{}}
		return testing.AllocsPerRun(200, func() {
			clear(w.header)
			w.body.Reset()
			gw.ServeHTTP(w, r)
		})
	}
	assert.InDelta(t, failing(), failing(gateway.WithLogger(quiet)), 0.5)
}

// canaries are secrets, by where they are.
func canaries() map[string]string {
	all := map[string]string{}
	for _, place := range []string{
		"authorization", "cookie", "proxy-authorization", "userinfo", "AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature",
		"X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "bearer", "header", "source", "target", "error", "set-cookie",
		"basic", "quoted", "api-key",
	} {
		all[place] = fmt.Sprintf("canary-%s-5b1f0c", strings.ToLower(place))
	}
	return all
}

// What is secret in requests, configuration, answers, errors and panics is
// nowhere in what the gateway tells.
func TestCanaries(t *testing.T) {
	c := canaries()
	query := ""
	for _, name := range []string{"AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature", "X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token"} {
		query += "&" + name + "=" + c[name]
	}
	query = query[1:]
	var mu sync.Mutex
	var reached strings.Builder // what services were sent
	up, _ := server(t, "", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		_, _ = fmt.Fprint(&reached, r.URL, r.Header)
		mu.Unlock()
		w.Header().Set("Set-Cookie", "s="+c["set-cookie"])
		if r.URL.Path == "/broken" {
			w.Header().Set("Content-Length", "100000")
			_, _ = io.WriteString(w, strings.Repeat("x", 50_000))
			return
		}
		if r.URL.Path == "/500" {
			w.WriteHeader(500)
		}
	})
	malformed := func(answer string) string {
		return testnet.Upstream(t, testnet.Replies(strings.ReplaceAll(answer, "SECRET", c["set-cookie"]))).URL
	}
	everything := func(r *http.Request) string {
		return fmt.Sprintf("%v %q %v http://u:%s@x/?%s password=%s", r.Header, r.URL, r.Header["Authorization"], c["error"], r.URL.RawQuery, c["error"])
	}
	cookie := func(r *http.Request) string {
		v, err := r.Cookie("session")
		if err != nil {
			return ""
		}
		return v.Value
	}
	own := func(opts ...gateway.ServiceOption) []gateway.ServiceOption {
		return append(opts, gateway.WithBearerToken(c["bearer"]), gateway.WithHeader("X-Upstream-Pass", c["header"]))
	}
	// Hooks read what the client has sent, and tell of it by other words than its names.
	reads := func(r *http.Request) string {
		_, password, _ := r.BasicAuth()
		quoted, _ := r.Cookie("quoted")
		return fmt.Sprint("it was ", password, " or ", quoted.Value, " or ", r.Header.Get("X-Api-Key"), " or ", r.URL.Query().Get("sig"))
	}
	fails := gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) { return nil, errors.New(everything(r)) }))
	panics := gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) { panic(everything(r)) }))
	o := newObserved(t)
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	gw := o.gateway(
		gateway.WithCache(cache), gateway.WithoutBreaker(), gateway.WithRetryBudget(1, 100), gateway.WithRetries(1),
		gateway.WithRetryBackoff(time.Millisecond, time.Millisecond), gateway.WithSlowRequest(10*time.Millisecond, nil),
		gateway.WithService("a", up.URL, own()...),
		gateway.WithService("plain", up.URL),
		gateway.WithService("refused", "http://"+testnet.Refused(t), own()...),
		gateway.WithService("fails", target, own(fails)...),
		gateway.WithService("panics", target, own(panics)...),
		gateway.WithService("rewrite", up.URL, own(gateway.WithRewrite(func(r *http.Request) { panic(everything(r)) }))...),
		gateway.WithService("cookie", up.URL, gateway.WithRewrite(func(r *http.Request) { panic("it was " + cookie(r)) })),
		gateway.WithService("modify", up.URL, own(gateway.WithModifyResponse(func(r *http.Response) error { return fmt.Errorf("%v %v", r.Header, everything(r.Request)) }))...),
		gateway.WithService("reads", up.URL, gateway.WithRewrite(func(r *http.Request) { panic(reads(r)) })),
		gateway.WithService("modify-reads", up.URL, gateway.WithModifyResponse(func(r *http.Response) error { return errors.New(reads(r.Request)) })),
		gateway.WithService("own-source", target, gateway.WithTokenSource(func(context.Context) (string, error) { return c["source"], nil }),
			gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
				return nil, errors.New("it was " + strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			}))),
		gateway.WithService("source", up.URL, gateway.WithTokenSource(func(context.Context) (string, error) { return c["source"], nil })),
		gateway.WithService("fails-source", target, fails, gateway.WithTokenSource(func(context.Context) (string, error) { return c["source"], nil })),
		gateway.WithService("no-source", up.URL, gateway.WithTokenSource(func(context.Context) (string, error) {
			return "", fmt.Errorf("POST https://idp.test/token?client_secret=%s: 401", c["source"])
		})),
		gateway.WithService("bad-source", up.URL, gateway.WithTokenSource(func(context.Context) (string, error) { return c["source"] + "\n", nil })),
		gateway.WithService("name", malformed("HTTP/1.1 200 OK\r\nSet-Cookie s=SECRET\r\n\r\n")),
		gateway.WithService("length", malformed("HTTP/1.1 200 OK\r\nSet-Cookie: SECRET\r\nContent-Length: x\r\n\r\n")),
		gateway.WithService("status", malformed("HTTP/1.1 999999 SECRET\r\nSet-Cookie: SECRET\r\n\r\n")),
		gateway.WithService("coding", malformed("HTTP/1.1 200 OK\r\nSet-Cookie: SECRET\r\nTransfer-Encoding: SECRET\r\n\r\n")),
	)
	dashboard := gw.DashboardHandler()
	front := httptest.NewServer(gw)
	defer front.Close()
	var answers strings.Builder
	send := func(raw string) {
		resp := testnet.Do(t, strings.TrimPrefix(front.URL, "http://"), raw)
		if resp.Header.Get("Set-Cookie") == "" { // which is for the client
			answers.Write(resp.Raw)
		}
	}
	fields := []string{
		"Authorization: Bearer " + c["authorization"], "Cookie: session=" + c["cookie"] + `; quoted="` + c["quoted"] + `"`,
		"Proxy-Authorization: Basic " + c["proxy-authorization"], "X-Api-Key: " + c["api-key"],
	}
	basic := append([]string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+c["basic"]))}, fields[1:]...)
	for service := range gw.Stats().Services {
		for _, path := range []string{"/x?", "/broken?", "/500?", "/%2e%2e/x?"} {
			for _, accept := range []string{"text/plain", "application/json"} {
				send(testnet.Get("/"+service+path+query, append(fields, "Accept: "+accept)...))
			}
		}
		send(testnet.Get("http://user:"+c["userinfo"]+"@host.test/"+service+"/x?"+query, fields...))
		send(testnet.Build("POST", "/"+service+"/x?"+query, "body", fields...))
		send(testnet.Get("/"+service+"/x?"+query, basic...))
	}
	send(testnet.Get("/unknown/x?"+query, fields...))
	mu.Lock()
	for _, place := range []string{"bearer", "header", "source", "authorization", "cookie", "sig"} {
		assert.Contains(t, reached.String(), c[place], "it is on its way")
	}
	mu.Unlock()

	var faults []error
	for _, try := range []string{"http://user:" + c["target"] + "@host.test", "http://host.test?token=" + c["target"], "http://user:" + c["target"] + "@%zz", "http://" + c["target"] + "@:0/#"} {
		_, err := gateway.New(gateway.WithService("a", try, gateway.WithReplicas(gateway.Replica{URL: try}), gateway.WithBearerToken(c["bearer"]+" "), gateway.WithHeader("X", c["header"]+"\n")))
		_, err2 := gateway.NewUpstream("a", try)
		faults = append(faults, err, err2, gw.Upstream("a").SetReplicas(gateway.Replica{URL: try}))
	}
	places := map[string]string{"answers": answers.String(), "logs": o.logs.Text(), "stats": fmt.Sprintf("%+v", gw.Stats()), "faults": errors.Join(faults...).Error()}
	for target, h := range map[string]http.Handler{"/metrics": gw.MetricsHandler(), "/health?verbose": gw.HealthHandler()} {
		for _, accept := range []string{"application/json", "text/plain;version=0.0.4", "application/health+json"} {
			w := handle(t, h, testnet.Get(target, append(fields, "Accept: "+accept)...), nil)
			places[target+" "+accept] = fmt.Sprint(w.header, w.body.String())
			require.NotEmpty(t, w.body.String())
		}
	}
	places["dashboard"] = watchBoard(t, dashboard)
	require.NotEmpty(t, boardOf(t, places["dashboard"]).Slowest)
	var spans strings.Builder
	for _, s := range o.spans.GetSpans() {
		fmt.Fprint(&spans, s.Name, s.Status, s.Attributes, s.Events, s.Links, "\n")
	}
	places["spans"] = spans.String()
	places["instruments"] = fmt.Sprint(slices.Sorted(maps.Keys(o.values())))
	assert.Greater(t, strings.Count(places["logs"], "error.message"), 20)
	assert.Greater(t, strings.Count(places["logs"], "gateway: panic"), 5)
	assert.Contains(t, places["spans"], "REDACTED")
	assert.Contains(t, places["logs"], "REDACTED")
	for _, secret := range c {
		testnet.Confined(t, secret, places)
	}
	require.NoError(t, cache.Shutdown(t.Context()))
}
