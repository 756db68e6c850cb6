package e2e_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// mounted is what a mux serves that an app has built around the gateway.
func mounted(mount func(*http.ServeMux, *gateway.Gateway)) func(*gateway.Gateway) http.Handler {
	return func(gw *gateway.Gateway) http.Handler {
		mux := http.NewServeMux()
		mount(mux, gw)
		mux.Handle("/b/", gw) // for the end of the test
		return mux
	}
}

// serverSpans returns the names of the SERVER spans that have ended.
func (r *rig) serverSpans() (names []string) {
	for _, s := range r.spans.GetSpans() {
		if s.SpanKind == trace.SpanKindServer {
			names = append(names, s.Name)
		}
	}
	return names
}

func TestGatewayBehindStripPrefix(t *testing.T) {
	for _, c := range []struct{ pattern, strip, target, sent, prefix, route string }{
		{"/api/", "/api", "/api/a/x/y?q=1", "/x/y?q=1", "/api/a", "GET /api/a/{path...}"},
		{"/api/", "/api/", "/api/a/x", "/x", "/api/a", "GET /api/a/{path...}"},
		{"/api/", "/api", "/api/a", "/", "/api/a", "GET /api/a/{path...}"},
		{"/api/", "/api", "/api/a/", "/", "/api/a", "GET /api/a/{path...}"},
		{"/api/v1/", "/api/v1", "/api/v1/a/x%2fy", "/x%2fy", "/api/v1/a", "GET /api/v1/a/{path...}"},
		{"GET /api/", "/api", "/api/a/x", "/x", "/api/a", "GET /api/a/{path...}"},
		{"gateway.test/api/", "/api", "/api/a/x", "/x", "/api/a", "GET /api/a/{path...}"},
		{"GET gateway.test/api/{rest...}", "/api", "/api/a/x", "/x", "/api/a", "GET /api/a/{path...}"},
		{"/", "", "/a/x", "/x", "/a", "GET /a/{path...}"},
		{"/a/", "", "/a/x", "/x", "/a", "GET /a/{path...}"},
		{"GET gateway.test/a/{id}/x", "", "/a/7/x", "/7/x", "/a", "GET /a/{id}/x"},
	} {
		t.Run(strings.ReplaceAll(c.pattern+" "+c.target, "/", "|"), func(t *testing.T) {
			r := newRig(t, setup{
				script: testnet.Reply(302, "Location: /next?q#f", ""),
				handler: func(gw *gateway.Gateway) http.Handler {
					mux := http.NewServeMux()
					mux.Handle(c.pattern, http.StripPrefix(c.strip, gw))
					if c.pattern != "/" {
						mux.Handle("/b/", gw)
					}
					return mux
				},
			})
			resp := r.get(c.target)
			assert.Equal(t, 302, resp.Status)
			assert.Equal(t, c.prefix+"/next?q#f", resp.Header.Get("Location"))
			sent := r.a.Await(1)[0]
			assert.Equal(t, c.sent, sent.Target)
			assert.Equal(t, c.prefix, field(sent, "X-Forwarded-Prefix"))
			r.recorded(1, noFailure)
			assert.Equal(t, []string{c.route}, r.serverSpans())
		})
	}
}

// The pattern is the app's to choose, the judgement ours: what a mux lets
// through is refused all the same.
func TestGatewayBehindStripPrefixRefuses(t *testing.T) {
	for _, c := range []struct {
		target string
		status int
		reason gateway.Reason
	}{
		{"/api/none/x", 404, gateway.ReasonUnknownService},
		{"/api/", 404, gateway.ReasonUnknownService},
		{"/api/api/a/x", 404, gateway.ReasonUnknownService},
		{"/api/%2e%2e/a/x", 400, gateway.ReasonBadRequest},
		{"/api/a/%2e%2e/b/x", 400, gateway.ReasonBadRequest},
		{"/api/a/..;/b", 400, gateway.ReasonBadRequest},
		{"/api/a%2fx", 404, gateway.ReasonUnknownService},
		{"/api/a/x%00", 400, gateway.ReasonBadRequest},
		{"/api/a/x#f", 400, gateway.ReasonBadRequest},
	} {
		t.Run(strings.ReplaceAll(c.target, "/", "|"), func(t *testing.T) {
			r := newRig(t, setup{handler: mounted(func(mux *http.ServeMux, gw *gateway.Gateway) {
				mux.Handle("/api/", http.StripPrefix("/api", gw))
			})})
			assert.Equal(t, c.status, r.get(c.target).Status)
			r.untouched()
			r.recorded(1, onlyFailure(c.reason))
		})
	}
}

// Whoever forgets to strip the prefix finds out from the log, and no client does.
func TestAPrefixThatStaysIsToldOf(t *testing.T) {
	for path, told := range map[string]bool{"/api/a/x": true, "/api/v1/a": true, "/api/none": false, "/": false} {
		logs := testnet.NewLogRecorder()
		gw, err := gateway.New(gateway.WithLogger(logs.Logger()), gateway.WithService("a", target))
		require.NoError(t, err)
		w := handle(t, gw, testnet.Get(path), nil)
		assert.Equal(t, 404, w.status)
		assert.NotContains(t, w.body.String(), "StripPrefix")
		assert.Equal(t, told, strings.Contains(logs.Text(), "http.StripPrefix takes off what is in front of it"), path)
		require.NoError(t, gw.Shutdown(t.Context()))
	}
}

func TestUpstreamForwardsTheWholePath(t *testing.T) {
	for _, c := range []struct{ pattern, target, sent, route string }{
		{"/shop/", "/shop/x%2fy?q=1", "/shop/x%2fy?q=1", "GET /shop/{path...}"},
		{"/shop/{id}", "/shop/7", "/shop/7", "GET /shop/{id}"},
		{"GET /shop/{id}/items/{rest...}", "/shop/7/items/8/9", "/shop/7/items/8/9", "GET /shop/{id}/items/{rest...}"},
		{"shop.test/", "/shop", "/shop", "GET /{path...}"},
		{"GET shop.test/shop/{$}", "/shop/", "/shop/", "GET /shop/"},
		{"/shop", "/shop?", "/shop?", "GET /shop"},
	} {
		t.Run(strings.ReplaceAll(c.pattern, "/", "|"), func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(302, "Location: /shop/next", ""), handler: mounted(func(mux *http.ServeMux, gw *gateway.Gateway) {
				mux.Handle(c.pattern, gw.Upstream("a"))
			})})
			resp := r.get(c.target, "Host: shop.test")
			assert.Equal(t, 302, resp.Status)
			assert.Equal(t, "/shop/next", resp.Header.Get("Location"))
			sent := r.a.Await(1)[0]
			assert.Equal(t, c.sent, sent.Target)
			assert.NotContains(t, sent.Header, "X-Forwarded-Prefix")
			assert.Equal(t, "Bearer "+tokenA, field(sent, "Authorization"))
			r.recorded(1, noFailure)
			assert.Equal(t, []string{c.route}, r.serverSpans())
		})
	}
}

func TestUpstreamOfAGateway(t *testing.T) {
	r := newRig(t, setup{script: testnet.Reply(200, cacheable, "stored")})
	assert.Nil(t, r.gw.Upstream("none"))
	assert.Nil(t, r.gw.Upstream(""))
	assert.Nil(t, r.gw.Upstream("A"))
	up := r.gw.Upstream("a")
	require.NotNil(t, up)
	assert.Same(t, up, r.gw.Upstream("a"))

	w := httptest.NewRecorder()
	up.ServeHTTP(w, httptest.NewRequest("GET", "http://gateway.test/x", nil))
	assert.Equal(t, "stored", w.Body.String())
	r.recorded(1, noFailure)
	assert.EqualValues(t, 1, up.Stats().Requests, "it is the gateway's own service")
	assert.EqualValues(t, 1, r.gw.Stats().Services["a"].Requests)

	for _, target := range []string{"/%2e%2e/x", "/x%00", `/x\`} {
		w := httptest.NewRecorder()
		u := httptest.NewRequest("GET", "/", nil)
		u.RequestURI = target
		u.URL.Path, u.URL.RawPath = strings.NewReplacer("%2e", ".", "%00", "\x00").Replace(target), target
		up.ServeHTTP(w, u)
		assert.Equal(t, 400, w.Code, target)
	}
	assert.Len(t, r.a.Journal(), 1)
}

func TestNewUpstreamOnAPattern(t *testing.T) {
	r := newRig(t, setup{})
	up, err := gateway.NewUpstream("files", r.a.URL+"/base", gateway.WithBearerToken(tokenA), gateway.WithLogger(r.logs.Logger()))
	require.NoError(t, err)
	defer func() { assert.NoError(t, up.Shutdown(context.Background())) }()
	mux := http.NewServeMux()
	mux.Handle("GET gateway.test/files/{path...}", up)
	mux.Handle("/raw/", http.StripPrefix("/raw", up))

	for target, want := range map[string]string{"/files/x/y?q": "/base/files/x/y?q", "/files/": "/base/files/", "/raw/x": "/base/x", "/raw/": "/base/"} {
		n := r.a.Begun()
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", "http://gateway.test"+target, nil))
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, want, r.a.Await(n + 1)[n].Target)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("POST", "http://gateway.test/files/x", nil))
	assert.Equal(t, 405, w.Code, "by the mux")
	assert.EqualValues(t, 4, up.Stats().Requests)
	assert.Zero(t, r.gw.Stats().Requests, "it belongs to no gateway")
	r.elsewhere = 4
}

// What is not for a service reaches next as it came: the same request and
// writer, whatever we would think of them.
func TestWrapLeavesOthersAlone(t *testing.T) {
	type call struct {
		w http.ResponseWriter
		r *http.Request
	}
	var outer, inner call
	r := newRig(t, setup{handler: func(gw *gateway.Gateway) http.Handler {
		h := gw.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			inner = call{w, r}
			w.WriteHeader(http.StatusTeapot)
		}))
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			outer = call{w, r}
			h.ServeHTTP(w, r)
		})
	}})
	series := r.series()
	for _, raw := range []string{
		testnet.Get("/none"), testnet.Get("/"), testnet.Get("//a/x"), testnet.Get("/../a/x"), testnet.Get("/%2e%2e/x"), testnet.Get(`/x\y`), testnet.Get("/x%00"), testnet.Get("/A/x"), testnet.Get("/a%2fx"),
		testnet.Get("/x#f"), testnet.Get("file:///etc/passwd"), testnet.Get("http://u:p@h/x"), testnet.Get("*"), testnet.Build("TRACE", "/x", ""), testnet.Build("BREW", "/pot", ""),
		testnet.Build("POST", "/x", "body"), testnet.Get("/" + strings.Repeat("p", 9000)), testnet.Get("/x", strings.TrimSuffix(strings.Repeat("X: v\r\n", 200), "\r\n")),
		testnet.Get("/x", "Via: "+strings.Repeat("1.1 gateway, ", 20)+"1.1 gateway"), testnet.WebSocket("/x"), testnet.Build("CONNECT", "h:80", ""),
	} {
		line, _, _ := strings.Cut(raw, "\r\n")
		resp := r.do(raw)
		assert.Equal(t, http.StatusTeapot, resp.Status, "%.60s", line)
		assert.Same(t, outer.r, inner.r)
		assert.Same(t, outer.w, inner.w)
		for _, name := range []string{"X-Request-Id", "Cache-Status", "Via"} {
			assert.NotContains(t, resp.Header, name)
		}
	}
	r.untouched()
	assert.Zero(t, r.gw.Stats().Requests)
	assert.Empty(t, r.spans.GetSpans())
	assert.Equal(t, series, r.series())
	assert.Empty(t, r.logs.Text())

	assert.Equal(t, 200, r.get("/a/x").Status)
	assert.Equal(t, 400, r.get("/a/%2e%2e/x").Status, "what is for a service is judged")
	r.recorded(2, onlyFailure(gateway.ReasonBadRequest))
	assert.Len(t, r.a.Await(1), 1)
}

func TestWrapChains(t *testing.T) {
	r := newRig(t, setup{})
	other, err := gateway.New(gateway.WithService("other", r.a.URL))
	require.NoError(t, err)
	defer func() { assert.NoError(t, other.Shutdown(context.Background())) }()
	h := r.gw.Wrap(other.Wrap(http.NotFoundHandler()))
	for target, status := range map[string]int{"/a/x": 200, "/other/x": 200, "/none/x": 404} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://gateway.test"+target, nil))
		assert.Equal(t, status, w.Code, target)
	}
	assert.EqualValues(t, 1, r.gw.Stats().Requests)
	assert.EqualValues(t, 1, other.Stats().Requests)
	r.elsewhere = 1
}

// timed mounts the gateway in http.TimeoutHandler, whose writer keeps the
// response until it is whole and can be neither flushed nor hijacked.
func timed(limit time.Duration) func(*gateway.Gateway) http.Handler {
	return func(gw *gateway.Gateway) http.Handler { return http.TimeoutHandler(gw, limit, "too late") }
}

func TestUnderTimeoutHandler(t *testing.T) {
	chunked := testnet.Answer(200, "Transfer-Encoding: chunked\r\nTrailer: X-Sum", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
	for _, c := range []struct{ what, answer, request, body string }{
		{"a length", testnet.Answer(200, "", "hello"), testnet.Get("/a/x"), "hello"},
		{"chunks", chunked, testnet.Get("/a/x"), "hello"},
		{"an event stream that ends", testnet.Answer(200, "Content-Type: text/event-stream", "data: 1\n\n"), testnet.Get("/a/x"), "data: 1\n\n"},
		{"hints before it", testnet.Answer(103, "Link: </s>", "") + testnet.Answer(200, "", "hello"), testnet.Get("/a/x"), "hello"},
		{"an upload", testnet.Answer(200, "", "hello"), testnet.Build("POST", "/a/x", testnet.Chunks("body"), "Transfer-Encoding: chunked"), "hello"},
		{"a handshake, served plainly", testnet.Answer(200, "", "hello"), testnet.WebSocket("/a/x"), "hello"},
		{"stored", testnet.Answer(200, cacheable, "hello"), testnet.Get("/a/x"), "hello"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Replies(c.answer), handler: timed(10 * time.Second)})
			resp := r.do(c.request)
			assert.Equal(t, 200, resp.Status)
			assert.Equal(t, testnet.Whole, resp.End)
			assert.Equal(t, c.body, string(resp.Body))
			assert.Empty(t, resp.Interim)
			assert.NotContains(t, r.a.Await(1)[0].Header, "Upgrade")
			r.recorded(1, noFailure)
		})
	}
}

func TestUnderTimeoutHandlerATruncatedBodyAborts(t *testing.T) {
	r := newRig(t, setup{script: testnet.Replies(testnet.Answer(200, "Content-Length: 100\r\nConnection: close", "hello")), handler: timed(10 * time.Second), a: []gateway.ServiceOption{gateway.WithoutRetries()}})
	tr := r.exchange(testnet.Build("POST", "/a/x", "body"))
	assert.Empty(t, tr.Statuses(), "not a short response that looks whole")
	assert.Equal(t, testnet.Closed, tr.End)
	r.recorded(1, onlyFailure(gateway.ReasonTruncated))
}

// The app's limit is the gateway's too, so which of them answers is anybody's
// race; what becomes of the attempt is not.
func TestUnderTimeoutHandlerTimeRunsOut(t *testing.T) {
	r := newRig(t, setup{script: probed((*testnet.Conn).Wait), handler: timed(100 * time.Millisecond)})
	assert.Equal(t, testnet.Whole, r.get("/a/x").End)
	r.recorded(1, onlyFailure(gateway.ReasonTimeout))
	r.a.AwaitClosed(1)
	assert.Equal(t, 1, r.a.Begun(), "nothing is sent on behalf of nobody")
}

// Middleware that hides Flush or Hijack makes streams come late and handshakes go
// unheard: the log says whose writer it is, once for each service.
func TestAWriterThatHidesSomethingIsToldOf(t *testing.T) {
	events, plain := testnet.Answer(200, "Content-Type: text/event-stream", "data: 1\n\n"), testnet.Answer(200, "", "hello")
	hides := func(w http.ResponseWriter) http.ResponseWriter { return bare{w} }
	below := func(w http.ResponseWriter) http.ResponseWriter { return wrapped{bare{w}} }
	shows := func(w http.ResponseWriter) http.ResponseWriter { return wrapped{wrapped{w}} }
	for _, c := range []struct {
		what, answer, request, lacks string
		wrap                         func(http.ResponseWriter) http.ResponseWriter
	}{
		{"a handshake", plain, testnet.WebSocket("/a/x"), "Hijack", hides},
		{"a handshake further below", plain, testnet.WebSocket("/a/x"), "Hijack", below},
		{"a handshake that is heard", plain, testnet.WebSocket("/a/x"), "", shows},
		{"events", events, testnet.Get("/a/x"), "Flush", hides},
		{"events further below", events, testnet.Get("/a/x"), "Flush", below},
		{"events that are sent on", events, testnet.Get("/a/x"), "", shows},
		{"the header of events", events, testnet.Build("HEAD", "/a/x", ""), "", hides},
		{"what needs neither", plain, testnet.Get("/a/x"), "", hides},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Replies(c.answer, c.answer), handler: wrapping(c.wrap)})
			for range 2 {
				assert.Equal(t, 200, r.do(c.request).Status)
			}
			lines := r.logs.Find(t, "gateway: response writer")
			if c.lacks == "" {
				assert.Empty(t, lines)
			} else if assert.Len(t, lines, 1) {
				delete(lines[0], "time")
				assert.Equal(t, map[string]any{
					"level": "WARN", "msg": "gateway: response writer", "gateway.service": "a",
					"gateway.writer.type": "e2e_test.bare", "gateway.writer.lacks": c.lacks,
				}, lines[0])
			}
			r.recorded(2, noFailure)
		})
	}
}

func TestADeadlineOfTheApp(t *testing.T) {
	r := newRig(t, setup{script: probed((*testnet.Conn).Wait), handler: func(gw *gateway.Gateway) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), 100*time.Millisecond)
			defer cancel()
			gw.ServeHTTP(w, r.WithContext(ctx))
		})
	}})
	assert.Equal(t, 504, r.get("/a/x").Status)
	r.recorded(1, onlyFailure(gateway.ReasonTimeout))
	r.a.AwaitClosed(1)
	assert.Equal(t, 1, r.a.Begun())
}

// bare is a ResponseWriter and nothing else.
type bare struct{ http.ResponseWriter }

// wrapped is what most middleware makes of a ResponseWriter.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func wrapping(wrap func(http.ResponseWriter) http.ResponseWriter) func(*gateway.Gateway) http.Handler {
	return func(gw *gateway.Gateway) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { gw.ServeHTTP(wrap(w), r) })
	}
}

func TestWritersOfMiddleware(t *testing.T) {
	chunks := testnet.Answer(200, "Transfer-Encoding: chunked\r\nTrailer: X-Sum", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
	for _, c := range []struct {
		what   string
		wrap   func(http.ResponseWriter) http.ResponseWriter
		hidden bool // what the writer can do beyond writing
	}{
		{"wrapped", func(w http.ResponseWriter) http.ResponseWriter { return wrapped{w} }, false},
		{"wrapped twice", func(w http.ResponseWriter) http.ResponseWriter { return wrapped{wrapped{w}} }, false},
		{"bare", func(w http.ResponseWriter) http.ResponseWriter { return bare{w} }, true},
		{"bare inside", func(w http.ResponseWriter) http.ResponseWriter { return wrapped{bare{w}} }, true},
	} {
		t.Run(c.what+", GET", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Replies(testnet.Answer(103, "Link: </s>", "") + chunks), handler: wrapping(c.wrap)})
			resp := r.get("/a/x")
			assert.Equal(t, 200, resp.Status)
			assert.Equal(t, "hello", string(resp.Body))
			assert.Equal(t, "1", resp.Trailer.Get("X-Sum"))
			assert.Equal(t, !c.hidden, len(resp.Interim) == 1, "hints need a writer that tells them from the response")
			r.recorded(1, noFailure)
		})
		t.Run(c.what+", broken upload", func(t *testing.T) {
			r := newRig(t, setup{handler: wrapping(c.wrap)})
			r.broken = true
			tr := r.exchange(testnet.Build("POST", "/a/x", "0x3\r\nabc\r\n"+testnet.Get("/b/smuggled"), "Transfer-Encoding: chunked"))
			assert.Equal(t, []int{400}, tr.Statuses())
			assert.Equal(t, testnet.Closed, tr.End)
			assert.Zero(t, r.b.Begun())
			r.recorded(1, onlyFailure(gateway.ReasonClientBody))
		})
		t.Run(c.what+", WebSocket", func(t *testing.T) {
			script := testnet.EchoWebSocket
			if c.hidden {
				script = testnet.Reply(200, "", "plain")
			}
			r := newRig(t, setup{script: script, handler: wrapping(c.wrap)})
			client := testnet.Dial(t, r.addr)
			resp := client.Do(testnet.WebSocket("/a/x"))
			if c.hidden {
				assert.Equal(t, 200, resp.Status)
				assert.NotContains(t, r.a.Await(1)[0].Header, "Upgrade")
			} else {
				assert.Equal(t, 101, resp.Status)
				client.Send("ping")
				assert.Equal(t, "ping", client.ReadN(4))
			}
			client.Close()
			r.recorded(1, noFailure)
		})
	}
}

// ServeHTTP needs no server: a request that was only made, and a writer that
// only records.
func TestServeHTTPWithoutAServer(t *testing.T) {
	r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
		return testnet.Answer(200, cacheable, req.Method+" "+req.Target+" "+string(req.Body))
	})})
	serve := func(req *http.Request) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r.gw.ServeHTTP(w, req)
		return w
	}
	made := func(method, target string, body io.Reader) *http.Request {
		req, err := http.NewRequest(method, target, body)
		require.NoError(t, err)
		return req
	}
	assert.Equal(t, "GET /x?q ", serve(made("GET", "http://gateway.test/a/x?q", nil)).Body.String())
	sent := r.a.Await(1)[0]
	assert.NotContains(t, sent.Header, "X-Forwarded-For", "nobody is known to have asked")
	assert.Equal(t, "gateway.test", field(sent, "X-Forwarded-Host"))
	assert.Equal(t, "GET /x?q ", serve(made("GET", "http://gateway.test/a/x?q", nil)).Body.String())
	assert.Equal(t, 1, r.a.Begun(), "a hit")
	assert.Equal(t, "POST /x body", serve(made("POST", "/a/x", strings.NewReader("body"))).Body.String())
	assert.Equal(t, "PUT /x body", serve(httptest.NewRequest("PUT", "/a/x", io.MultiReader(strings.NewReader("body")))).Body.String())
	assert.Equal(t, "GET / ", serve(httptest.NewRequest("GET", "/a", nil)).Body.String())
	assert.Equal(t, 404, serve(httptest.NewRequest("GET", "/none", nil)).Code)
	assert.Equal(t, 501, serve(httptest.NewRequest("BREW", "/a/x", nil)).Code)
	assert.Equal(t, 400, serve(made("GET", "http://u:p@gateway.test/a/x", nil)).Code)
	req := made("GET", "/a/x", nil)
	req.URL.Path = "a/y" // as http.StripPrefix may leave it
	assert.Equal(t, "GET /y ", serve(req).Body.String())

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() { serve(made("POST", "/a/gone", strings.NewReader("body")).WithContext(ctx)) })
	r.recorded(10, map[gateway.Reason]uint64{
		gateway.ReasonUnknownService: 1, gateway.ReasonMethodNotImplemented: 1, gateway.ReasonBadRequest: 1, gateway.ReasonClientClosed: 1,
	})
}

// An OPTIONS tells how far it is to go (RFC 9110 §7.6.2).
func TestMaxForwards(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, setup{way: w, a: []gateway.ServiceOption{gateway.WithMethods("QUERY", "PURGE")}})
		resp := r.do(testnet.Build("OPTIONS", "/a/x", "", "Max-Forwards: 0"))
		assert.Equal(t, 204, resp.Status)
		assert.Equal(t, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, PURGE, QUERY", resp.Header.Get("Allow"))
		assert.NotEmpty(t, resp.Header.Get("X-Request-Id"))
		assert.Empty(t, resp.Body)
		assert.Equal(t, 204, r.do(testnet.Build("OPTIONS", "/a/x", "body", "Max-Forwards: 0")).Status)
		assert.Zero(t, r.a.Begun())
		for n, tt := range []struct{ method, come, sent string }{
			{"OPTIONS", "1", "0"},
			{"OPTIONS", "10", "9"},
			{"OPTIONS", "none", "none"},
			{"GET", "0", "0"},
		} {
			assert.Equal(t, 200, r.do(testnet.Build(tt.method, "/a/x", "", "Max-Forwards: "+tt.come)).Status)
			assert.Equal(t, tt.sent, field(r.a.Await(n + 1)[n], "Max-Forwards"))
		}
		r.recorded(6, noFailure)
	})
}
