package interop_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// http.TimeoutHandler keeps a response until it is whole: its writer has no
// Flush, no Hijack, no deadlines and no Unwrap, and after its time the handler
// goes on without a client.

// timed serves a gateway behind it.
func timed(t *testing.T, limit time.Duration, gw http.Handler) *server {
	return serve(t, http.TimeoutHandler(gw, limit, "too late"))
}

func TestTimeoutHandlerPassesResponses(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 300_000)
	up := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Read", string(body))
		w.Header().Set("Cache-Control", "max-age=60")
		switch r.URL.Path {
		case "/early":
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNotFound)
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		case "/stream":
			_, _ = io.WriteString(w, big)
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, big)
		default:
			_, _ = io.WriteString(w, "hello")
		}
	}))
	gw := newGateway(t, gateway.WithCache(newCache(t)), gateway.WithService("users", up.URL))
	front := timed(t, patience, gw)
	for range 2 { // a miss and, where it may be, a hit
		for _, c := range []struct {
			method, path string
			status       int
			body         string
		}{
			{"GET", "/", 200, "hello"},
			{"HEAD", "/", 200, ""},
			{"POST", "/", 200, "hello"},
			{"GET", "/stream", 200, big + big},
			{"GET", "/empty", 204, ""},
			{"GET", "/early", 404, ""},
		} {
			var body io.Reader
			if c.method == "POST" {
				body = strings.NewReader("ping")
			}
			resp := send(t, front.Client(), c.method, front.URL+"/users"+c.path, body)
			require.NoError(t, resp.err)
			assert.Equal(t, c.status, resp.StatusCode, "%s %s", c.method, c.path)
			assert.Equal(t, c.body, resp.body, "%s %s", c.method, c.path)
			if body != nil {
				assert.Equal(t, "ping", resp.Header.Get("X-Read"))
			}
		}
	}
}

// The client gets an answer in time, TimeoutHandler's or the gateway's: they
// share the deadline. The gateway lets go of the upstream and counts the
// request once, as a timeout.
func TestTimeoutHandlerEndsWhatHangs(t *testing.T) {
	for _, name := range []string{"cached", "plain"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var upstream hanging
			up := serve(t, &upstream)
			gw := newGateway(t, gateway.WithCache(newCache(t)),
				gateway.WithService("cached", up.URL), gateway.WithService("plain", up.URL, gateway.WithoutCache()))
			front := timed(t, 100*time.Millisecond, gw)

			resp := get(t, front.Client(), front.URL+"/"+name+"/")
			if resp.StatusCode == http.StatusGatewayTimeout {
				assert.Contains(t, resp.body, `"reason":"timeout"`)
			} else {
				assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
				assert.Equal(t, "too late", resp.body)
			}
			upstream.released(t)
			testnet.Settle(t, "counted once", func() bool {
				s := gw.Stats()
				return s.Requests == 1 && s.InFlight == 0 && s.Errors[gateway.ReasonTimeout] == 1
			})
		})
	}
}

// A body that breaks off, or stands still beyond the time, is no answer.
func TestTimeoutHandlerOfABrokenBody(t *testing.T) {
	t.Parallel()
	broken := testnet.Upstream(t, func(c *testnet.Conn) {
		if c.ReadRequest() != nil {
			c.Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		}
	})
	var upstream hanging
	still := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "hello")
		_ = http.NewResponseController(w).Flush()
		upstream.ServeHTTP(w, r)
	}))
	gw := newGateway(t, gateway.WithService("broken", broken.URL), gateway.WithService("still", still.URL))

	front := timed(t, patience, gw)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL+"/broken/", nil)
	require.NoError(t, err)
	_, err = front.Client().Do(req) //nolint:bodyclose // there is none
	assert.Error(t, err, "the connection is aborted: nothing has been sent")

	front = timed(t, 100*time.Millisecond, gw)
	resp := get(t, front.Client(), front.URL+"/still/")
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	assert.Equal(t, "too late", resp.body)
	upstream.released(t)
	testnet.Settle(t, "all counted", func() bool { return gw.Stats().InFlight == 0 })
}

// A client that stops in its upload holds net/http's answer up, for no deadline
// can be set through TimeoutHandler: whatever it does next, the request ends.
func TestTimeoutHandlerOfAStalledUpload(t *testing.T) {
	for _, next := range []string{"goes on", "leaves"} {
		t.Run(next, func(t *testing.T) {
			t.Parallel()
			var upstream hanging
			up := serve(t, &upstream)
			gw := newGateway(t, gateway.WithService("users", up.URL))
			front := timed(t, 500*time.Millisecond, gw)

			c := testnet.Dial(t, front.Listener.Addr().String())
			c.Send("POST /users/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
			upstream.reached(t)
			upstream.released(t)
			if next == "goes on" {
				c.Send("5\r\nworld\r\n0\r\n\r\n")
				resp := c.ReadResponse("POST")
				require.NotNil(t, resp)
				assert.Contains(t, []int{http.StatusServiceUnavailable, http.StatusGatewayTimeout}, resp.Status)
			}
			c.Close()
			testnet.Settle(t, "the request to end", func() bool { return gw.Stats().InFlight == 0 })
		})
	}
}

// No connection can be taken over through it: the request goes upstream as if
// it had not asked, and no tunnel is pretended.
func TestTimeoutHandlerHasNoTunnels(t *testing.T) {
	t.Parallel()
	asked := make(chan http.Header, 1)
	up := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Clone()
		_, _ = websocket.Accept(w, r, nil)
	}))
	gw := newGateway(t, gateway.WithService("users", up.URL))
	front := timed(t, patience, gw)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, resp, err := websocket.Dial(ctx, front.URL+"/users/", &websocket.DialOptions{HTTPClient: front.Client()})
	require.Error(t, err)
	require.NotNil(t, resp)
	assert.Equal(t, http.StatusUpgradeRequired, resp.StatusCode)
	header := within(t, "the upstream", asked)
	assert.Empty(t, header.Values("Upgrade"))
	assert.Empty(t, header.Values("Connection"))
}

// A plain http.ResponseWriter, as tests and simple wrappers have it, is enough.
func TestResponseWriterWithNothingMore(t *testing.T) {
	t.Parallel()
	up := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, "!")
	}))
	gw := newGateway(t, gateway.WithService("users", up.URL))
	rec := httptest.NewRecorder()
	gw.ServeHTTP(struct{ http.ResponseWriter }{rec}, httptest.NewRequest("POST", "/users/", strings.NewReader("hello")))
	assert.Equal(t, 200, rec.Code)
	assert.Equal(t, "hello!", rec.Body.String())

	failing := &failingWriter{header: make(http.Header)}
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() {
		gw.ServeHTTP(failing, httptest.NewRequest("POST", "/users/", strings.NewReader("hello")))
	})
	assert.EqualValues(t, 2, gw.Stats().Requests)
	assert.EqualValues(t, 1, gw.Stats().Errors[gateway.ReasonClientClosed])
}

// failingWriter is a client that is gone.
type failingWriter struct{ header http.Header }

func (w *failingWriter) Header() http.Header       { return w.header }
func (w *failingWriter) WriteHeader(int)           {}
func (w *failingWriter) Write([]byte) (int, error) { return 0, errors.New("gone") }
