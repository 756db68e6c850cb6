package interop_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// chi matches by the escaped path and leaves the URL as it is, so whoever
// mounts the gateway strips the prefix, as with http.ServeMux.
var chiMounts = []struct {
	name   string
	mount  func(chi.Router, *gateway.Gateway)
	target string
	path   string // what the upstream is asked for
	prefix string // what it is told that was cut off
	route  string // the span's
}{
	{
		"Mount",
		func(r chi.Router, gw *gateway.Gateway) { r.Mount("/api", http.StripPrefix("/api", gw)) },
		"/api/users/a%2Fb;v=1/%C3%A9?x=%2F&y", "/base/a%2Fb;v=1/%C3%A9?x=%2F&y", "/api/users", "/api/users/{path...}",
	},
	{
		"Mount at the root",
		func(r chi.Router, gw *gateway.Gateway) { r.Mount("/", gw) },
		"/users/7", "/base/7", "/users", "/users/{path...}",
	},
	{
		"Mount of the service alone",
		func(r chi.Router, gw *gateway.Gateway) { r.Mount("/api", http.StripPrefix("/api", gw)) },
		"/api/users", "/base", "/api/users", "/api/users/{path...}",
	},
	{
		"Route",
		func(r chi.Router, gw *gateway.Gateway) {
			r.Route("/v1", func(r chi.Router) {
				r.Use(middleware.RequestID)
				r.Mount("/api", http.StripPrefix("/v1/api", gw))
			})
		},
		"/v1/api/users/7", "/base/7", "/v1/api/users", "/v1/api/users/{path...}",
	},
	{
		"Handle in a Group",
		func(r chi.Router, gw *gateway.Gateway) {
			r.Group(func(r chi.Router) { r.Handle("/api/*", http.StripPrefix("/api", gw)) })
		},
		"/api/users//7/", "/base//7/", "/api/users", "/api/users/{path...}",
	},
	{
		"Get of one service",
		func(r chi.Router, gw *gateway.Gateway) { r.Get("/users/*", gw.ServeHTTP) },
		"/users/7", "/base/7", "/users", "/users/{path...}",
	},
	{
		"Upstream behind a parameter",
		func(r chi.Router, gw *gateway.Gateway) { r.Handle("/files/{id}/*", gw.Upstream("users")) },
		"/files/7/a", "/base/files/7/a", "", "/files/{id}/{path...}",
	},
	{
		"Wrap",
		func(r chi.Router, gw *gateway.Gateway) { r.NotFound(gw.Wrap(http.NotFoundHandler()).ServeHTTP) },
		"/users/7", "/base/7", "/users", "/users/{path...}",
	},
}

func TestChiMounts(t *testing.T) {
	for _, c := range chiMounts {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			up := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Saw", r.RequestURI)
				w.Header().Set("X-Saw-Prefix", r.Header.Get("X-Forwarded-Prefix"))
			}))
			tm := newTelemetry()
			gw := newGateway(t, append(tm.options(), gateway.WithService("users", up.URL+"/base"))...)
			router := chi.NewRouter()
			c.mount(router, gw)
			front := serve(t, router)

			resp := get(t, front.Client(), front.URL+c.target)
			assert.Equal(t, http.StatusOK, resp.StatusCode)
			assert.Equal(t, c.path, resp.Header.Get("X-Saw"))
			assert.Equal(t, c.prefix, resp.Header.Get("X-Saw-Prefix"))
			span := tm.only(t, ours, trace.SpanKindServer)
			assert.Equal(t, c.route, attributes(span)["http.route"])
			assert.Equal(t, "GET "+c.route, span.Name)
		})
	}
}

// A request that chi answers itself is none of the gateway's.
func TestChiBehindWrap(t *testing.T) {
	t.Parallel()
	tm := newTelemetry()
	gw := newGateway(t, append(tm.options(), gateway.WithService("users", "http://127.0.0.1:1"))...)
	router := chi.NewRouter()
	router.Get("/orders/{id}", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, chi.URLParam(r, "id")) })
	front := serve(t, gw.Wrap(router))

	assert.Equal(t, "a%2Fb", get(t, front.Client(), front.URL+"/orders/a%2Fb").body)
	assert.Equal(t, http.StatusNotFound, get(t, front.Client(), front.URL+"/nothing").StatusCode)
	assert.Zero(t, gw.Stats().Requests)
	assert.Empty(t, tm.spans.GetSpans())
}

// chiFront has a gateway below the middleware that apps put around everything.
func chiFront(t *testing.T, gw http.Handler, outer ...func(http.Handler) http.Handler) *server {
	router := chi.NewRouter()
	router.Use(outer...)
	router.Use(middleware.RequestID, middleware.Recoverer, middleware.Timeout(patience), middleware.Compress(5))
	router.Mount("/api", http.StripPrefix("/api", gw))
	return serve(t, router)
}

// Compress changes the header that the gateway has set and the bytes that it
// writes. What is stored must not notice.
func TestChiCompressAroundTheCache(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("the quick brown fox ", 500)
	up := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h["Vary"] = []string{"Accept-Language", "X-Unused"}
		h.Set("Cache-Control", "max-age=600")
		h.Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, text)
	}))
	gw := newGateway(t, gateway.WithCache(newCache(t)), gateway.WithService("users", up.URL))
	front := chiFront(t, gw)

	for i, encoding := range []string{"gzip", "identity", "gzip", "identity", "gzip", "identity"} {
		resp := get(t, front.Client(), front.URL+"/api/users/fox", "Accept-Encoding", encoding)
		require.NoError(t, resp.err)
		body, vary := resp.body, []string{"Accept-Language", "X-Unused"}
		if encoding == "gzip" {
			assert.Equal(t, "gzip", resp.Header.Get("Content-Encoding"))
			z, err := gzip.NewReader(strings.NewReader(resp.body))
			require.NoError(t, err)
			plain, err := io.ReadAll(z)
			require.NoError(t, err)
			body, vary = string(plain), append(vary, "Accept-Encoding")
		} else {
			assert.Empty(t, resp.Header.Get("Content-Encoding"))
			if i > 0 {
				assert.EqualValues(t, len(text), resp.ContentLength)
			}
		}
		assert.Equal(t, text, body, "request %d", i)
		assert.Equal(t, vary, resp.Header["Vary"], "request %d", i)
		assert.Equal(t, i > 0, strings.Contains(resp.Header.Get("Cache-Status"), "; hit"), "request %d", i)
	}
}

// What Compress ends a body with must not make a broken one look whole.
func TestChiCompressOfABrokenBody(t *testing.T) {
	t.Parallel()
	part := make([]byte, 200_000) // that gzip finds nothing to save in
	_, _ = rand.NewChaCha8([32]byte{}).Read(part)
	for _, control := range []string{"max-age=600", "no-store"} {
		broken := testnet.Upstream(t, func(c *testnet.Conn) {
			if c.ReadRequest() != nil {
				c.Send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\nCache-Control: " + control + "\r\n\r\n" + string(part))
			}
		})
		gw := newGateway(t, gateway.WithCache(newCache(t)), gateway.WithService("users", broken.URL))
		front := chiFront(t, gw)
		for _, encoding := range []string{"gzip", "identity"} {
			resp := get(t, front.Client(), front.URL+"/api/users/fox", "Accept-Encoding", encoding)
			assert.ErrorIs(t, resp.err, io.ErrUnexpectedEOF, "%s, %s", control, encoding)
		}
		assert.EqualValues(t, 2, gw.Stats().Errors[gateway.ReasonTruncated])
	}
}

// An event reaches the client before the next one is made.
func TestChiCompressDoesNotHoldEventsBack(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	up := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 3 {
			_, _ = io.WriteString(w, "data: x\n\n")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
			}
		}
	}))
	gw := newGateway(t, gateway.WithService("users", up.URL))
	// The list of types makes Compress work on the stream too.
	front := serve(t, middleware.Compress(5, "text/event-stream")(gw))

	for _, encoding := range []string{"gzip", "identity"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL+"/users/", nil)
		require.NoError(t, err)
		req.Header.Set("Accept-Encoding", encoding)
		resp, err := front.Client().Do(req)
		require.NoError(t, err)
		body := io.Reader(resp.Body)
		if encoding == "gzip" {
			body, err = gzip.NewReader(resp.Body)
			require.NoError(t, err)
		}
		lines := bufio.NewReader(body)
		for range 3 {
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "data: x\n", line)
			_, err = lines.ReadString('\n')
			require.NoError(t, err)
			next <- struct{}{}
		}
		_, err = lines.ReadString('\n')
		assert.ErrorIs(t, err, io.EOF)
		resp.Body.Close()
	}
}

// A hook's panic is answered by the gateway; Recoverer, which would log it and
// answer by its own, does not see it.
func TestChiRecovererSeesNoPanicOfAHook(t *testing.T) {
	t.Parallel()
	up := serve(t, http.NotFoundHandler())
	gw := newGateway(t, gateway.WithService("users", up.URL, gateway.WithRewrite(func(*http.Request) { panic("a hook's") })),
		gateway.WithLogger(testnet.NewLogRecorder().Logger()))
	front := chiFront(t, gw)

	resp := get(t, front.Client(), front.URL+"/api/users/")
	assert.Equal(t, http.StatusInternalServerError, resp.StatusCode)
	assert.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
	assert.Contains(t, resp.body, `"reason":"panic"`)
}

// What Timeout puts on the request's context bounds the answer, whoever would
// wait for it beside this client.
func TestChiTimeoutBoundsTheAnswer(t *testing.T) {
	for _, name := range []string{"cached", "plain"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var upstream hanging
			up := serve(t, &upstream)
			gw := newGateway(t, gateway.WithCache(newCache(t)),
				gateway.WithService("cached", up.URL), gateway.WithService("plain", up.URL, gateway.WithoutCache()))
			front := serve(t, middleware.Timeout(100*time.Millisecond)(gw))
			front.tolerate("(timeout.go:") // chi answers too, after us

			resp := get(t, front.Client(), front.URL+"/"+name+"/")
			assert.Equal(t, http.StatusGatewayTimeout, resp.StatusCode)
			assert.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
			assert.Contains(t, resp.body, `"reason":"timeout"`)
			upstream.released(t)
			testnet.Settle(t, "counted once", func() bool {
				s := gw.Stats()
				return s.Requests == 1 && s.Errors[gateway.ReasonTimeout] == 1
			})
		})
	}
}

// observer notes what a logger between server and gateway would.
type observer struct {
	mu    sync.Mutex
	notes []note
}

type note struct{ status, bytes int }

func (o *observer) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		defer func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.notes = append(o.notes, note{ww.Status(), ww.BytesWritten()})
		}()
		next.ServeHTTP(ww, r)
	})
}

func (o *observer) last(t *testing.T, n int) note {
	t.Helper()
	var last note
	testnet.Settle(t, "noted", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.notes) == n {
			last = o.notes[n-1]
		}
		return len(o.notes) == n
	})
	return last
}

// What chi's loggers report is what the client got, whichever way it took.
func TestChiLoggersSeeWhatTheClientGets(t *testing.T) {
	t.Parallel()
	up := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/early":
			w.Header().Set("Link", "</a>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, "short and stout")
		case "/socket":
			if c, err := websocket.Accept(w, r, nil); err == nil {
				_ = c.Close(websocket.StatusNormalClosure, "")
			}
		default:
			w.Header().Set("Cache-Control", "max-age=600")
			w.Header().Set("Content-Type", "image/png")
			_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
		}
	}))
	gw := newGateway(t, gateway.WithCache(newCache(t)), gateway.WithService("users", up.URL))
	var seen observer
	front := chiFront(t, gw, seen.middleware)
	client := front.Client()

	get(t, client, front.URL+"/api/users/big")
	assert.Equal(t, note{200, 100_000}, seen.last(t, 1), "a miss")
	get(t, client, front.URL+"/api/users/big")
	assert.Equal(t, note{200, 100_000}, seen.last(t, 2), "a hit")
	assert.Equal(t, "short and stout", get(t, client, front.URL+"/api/users/early").body)
	assert.Equal(t, note{418, 15}, seen.last(t, 3), "an answer after an interim one")
	assert.Equal(t, http.StatusNotFound, get(t, client, front.URL+"/api/nobody").StatusCode)
	assert.Equal(t, http.StatusNotFound, seen.last(t, 4).status, "an error of ours")

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, front.URL+"/api/users/socket", &websocket.DialOptions{HTTPClient: client})
	require.NoError(t, err)
	_, _, err = c.Read(ctx)
	assert.Equal(t, websocket.StatusNormalClosure, websocket.CloseStatus(err))
	seen.last(t, 5)
	testnet.Settle(t, "all five counted", func() bool { return gw.Stats().Requests == 5 })
}
