package interop_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// service answers as its path says, over either version of HTTP.
func service(upstream *hanging) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex() // over HTTP/1
		w.Header().Set("Trailer", "X-Length")
		_ = rc.Flush() // or a short answer has a length and, over HTTP/1, no trailers
		n, _ := io.Copy(w, r.Body)
		w.Header().Set("X-Length", fmt.Sprint(n))
		w.Header().Set(http.TrailerPrefix+"X-Saw", r.Trailer.Get("X-Client"))
	})
	mux.HandleFunc("/cached", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		_, _ = io.WriteString(w, "hello ")
		_ = http.NewResponseController(w).Flush() // of unknown length, then
		_, _ = io.WriteString(w, "world")
	})
	mux.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: x\n\n")
		_ = http.NewResponseController(w).Flush()
		upstream.ServeHTTP(w, r)
	})
	mux.Handle("/hang", upstream)
	mux.HandleFunc("/refuse", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestEntityTooLarge) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	return mux
}

// The same behaviour whichever of the two connections speaks HTTP/2.
var versions = []struct {
	name          string
	client, front int // major versions that the client and the upstream speak
}{{"HTTP2 to HTTP1", 2, 1}, {"HTTP1 to HTTP2", 1, 2}, {"HTTP2 to HTTP2", 2, 2}}

func overHTTP2(t *testing.T, test func(t *testing.T, gw *gateway.Gateway, front *server, upstream *hanging)) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			upstream := new(hanging)
			up := map[int]func(testing.TB, http.Handler) *server{1: serve, 2: serveHTTP2}[v.front](t, service(upstream))
			gw := newGateway(t, gateway.WithCache(newCache(t)),
				gateway.WithService("s", up.URL, gateway.WithTransport(up.Client().Transport)))
			front := map[int]func(testing.TB, http.Handler) *server{1: serve, 2: serveHTTP2}[v.client](t, gw)
			test(t, gw, front, upstream)
		})
	}
}

func TestHTTP2BodiesAndTrailers(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, _ *gateway.Gateway, front *server, _ *hanging) {
		for _, size := range []int{0, 1, 70_000, 3 * mebibyte} {
			text := strings.Repeat("x", size)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+"/s/echo", io.NopCloser(strings.NewReader(text)))
			require.NoError(t, err)
			req.Trailer = http.Header{"X-Client": {"sum"}}
			resp, err := front.Client().Do(req)
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			assert.Equal(t, size, len(body))
			assert.Equal(t, fmt.Sprint(size), resp.Trailer.Get("X-Length"))
			assert.Equal(t, "sum", resp.Trailer.Get("X-Saw"), "size %d", size)
		}
	})
}

// A body that HTTP/2 ends is proven whole without a Content-Length.
func TestHTTP2ResponsesAreStored(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, gw *gateway.Gateway, front *server, _ *hanging) {
		assert.Equal(t, "hello world", get(t, front.Client(), front.URL+"/s/cached").body)
		testnet.Settle(t, "stored", func() bool { return gw.Stats().Caches[0].Entries == 1 })
		hit := get(t, front.Client(), front.URL+"/s/cached")
		assert.Equal(t, "hello world", hit.body)
		assert.Contains(t, hit.Header.Get("Cache-Status"), "gateway; hit")
		assert.EqualValues(t, 11, hit.ContentLength)
	})
}

func TestHTTP2EarlyHints(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, _ *gateway.Gateway, front *server, _ *hanging) {
		var hints []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
				return nil
			},
		})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, front.URL+"/s/hints", nil)
		require.NoError(t, err)
		resp, err := front.Client().Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, http.StatusAccepted, resp.StatusCode)
		assert.Equal(t, []string{"103 </style.css>; rel=preload"}, hints)
	})
}

// What breaks off upstream breaks off downstream, in the client's own terms.
func TestHTTP2AbortsAreAborts(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, gw *gateway.Gateway, front *server, _ *hanging) {
		resp := get(t, front.Client(), front.URL+"/s/broken")
		assert.Error(t, resp.err)
		assert.EqualValues(t, 1, gw.Stats().Errors[gateway.ReasonTruncated])
	})
}

// One stream that ends early takes no other along: not the client's leaving,
// not Drain, not an answer before the upload was read.
func TestHTTP2StreamsEndAlone(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, gw *gateway.Gateway, front *server, upstream *hanging) {
		client := front.Client()

		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, front.URL+"/s/hang", nil)
		require.NoError(t, err)
		left := make(chan error, 1)
		go func() {
			_, err := client.Do(req) //nolint:bodyclose // there is none
			left <- err
		}()
		upstream.reached(t)

		events, err := client.Get(front.URL + "/s/events")
		require.NoError(t, err)
		defer events.Body.Close()
		lines := bufio.NewReader(events.Body)
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "data: x\n", line)

		cancel()
		require.ErrorIs(t, within(t, "the client", left), context.Canceled)
		testnet.Settle(t, "the upstream to be let go", func() bool { return upstream.left.Load() == 1 })
		assert.Equal(t, "hello world", get(t, client, front.URL+"/s/cached").body)

		gw.Drain()
		rest, err := io.ReadAll(lines)
		require.NoError(t, err)
		assert.Equal(t, "\n", string(rest))
		upstream.released(t)
		assert.Equal(t, "hello world", get(t, client, front.URL+"/s/cached").body)
	})
}

// An upload that is not wanted ends with its answer, and on HTTP/2 with its
// stream: the connection and what else is on it stay.
func TestHTTP2EarlyAnswerKeepsTheConnection(t *testing.T) {
	t.Parallel()
	up := serveHTTP2(t, service(new(hanging)))
	gw := newGateway(t, gateway.WithService("s", up.URL, gateway.WithTransport(up.Client().Transport)),
		gateway.WithService("small", up.URL, gateway.WithTransport(up.Client().Transport), gateway.WithMaxBodyBytes(10)))
	front := serveHTTP2(t, gw)
	var dialled atomic.Int64
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if !i.Reused {
			dialled.Add(1)
		}
	}})
	for _, path := range []string{"/s/refuse", "/small/echo", "/s/refuse", "/small/echo"} {
		r, w := io.Pipe()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, front.URL+path, r)
		require.NoError(t, err)
		written := make(chan struct{})
		go func() {
			defer close(written)
			for err := error(nil); err == nil; {
				_, err = w.Write(make([]byte, 1<<10))
			}
		}()
		resp, err := front.Client().Do(req)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		if path == "/small/echo" && resp.StatusCode == http.StatusOK { // the echo began before too much was there
			require.Error(t, err)
		} else {
			assert.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
			require.NoError(t, err)
		}
		resp.Body.Close()
		r.Close()
		within(t, "the upload to end", written)
	}
	assert.EqualValues(t, 1, dialled.Load(), "connections to the gateway")
	testnet.Settle(t, "all ended", func() bool { return gw.Stats().InFlight == 0 })
}

// Many streams on one connection, at both sides.
func TestHTTP2ManyStreams(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, gw *gateway.Gateway, front *server, _ *hanging) {
		var all errgroup.Group
		all.SetLimit(64)
		for i := range 400 {
			all.Go(func() error {
				text := strings.Repeat(fmt.Sprint(i, " "), i)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+"/s/echo", strings.NewReader(text))
				if err != nil {
					return err
				}
				resp, err := front.Client().Do(req)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err == nil && string(body) != text {
					err = fmt.Errorf("request %d got %d bytes of another", i, len(body))
				}
				return err
			})
		}
		require.NoError(t, all.Wait())
		testnet.Settle(t, "all counted", func() bool { return gw.Stats().Requests == 400 })
		assert.Empty(t, gw.Stats().Errors)
	})
}
