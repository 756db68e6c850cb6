package interop_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// around instruments a handler as an app does.
func (tm *telemetry) around(h http.Handler) http.Handler {
	return otelhttp.NewHandler(h, "app", otelhttp.WithTracerProvider(tm.traces),
		otelhttp.WithMeterProvider(tm.meters), otelhttp.WithPropagators(propagation.TraceContext{}))
}

// traced are a gateway's options that report to tm and continue traces.
func (tm *telemetry) traced(opts ...gateway.Option) []gateway.Option {
	return append(append(tm.options(), gateway.WithPropagator(propagation.TraceContext{})), opts...)
}

const parentTrace = "4bf92f3577b34da6a3ce929d0e0e4736"

// Inside otelhttp's server span ours is a child of internal kind and feeds a
// histogram of its own: the request is not counted twice.
func TestOtelhttpAroundTheGateway(t *testing.T) {
	t.Parallel()
	sent := make(chan string, 1)
	up := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { sent <- r.Header.Get("Traceparent") }))
	tm := newTelemetry()
	gw := newGateway(t, tm.traced(gateway.WithService("users", up.URL))...)
	mux := http.NewServeMux()
	mux.Handle("/api/", http.StripPrefix("/api", gw))
	front := serve(t, tm.around(mux))

	get(t, front.Client(), front.URL+"/api/users/7", "Traceparent", "00-"+parentTrace+"-00f067aa0ba902b7-01")
	app := tm.only(t, otelhttpScope, trace.SpanKindServer)
	inner := tm.only(t, ours, trace.SpanKindInternal)
	attempt := tm.only(t, ours, trace.SpanKindClient)
	assert.Empty(t, tm.of(ours, trace.SpanKindServer))

	assert.Equal(t, parentTrace, app.SpanContext.TraceID().String())
	assert.Equal(t, app.SpanContext.SpanID(), inner.Parent.SpanID())
	assert.Equal(t, inner.SpanContext.SpanID(), attempt.Parent.SpanID())
	assert.Equal(t, "00-"+parentTrace+"-"+attempt.SpanContext.SpanID().String()+"-01", within(t, "the upstream", sent))
	assert.Equal(t, "/api/users/{path...}", attributes(inner)["http.route"])
	assert.Equal(t, "/api/users/7", attributes(inner)["url.path"])

	assert.Equal(t, map[string]uint64{"gateway.request.duration": 1, "gateway.request.own.duration": 1, "http.client.request.duration": 1}, tm.counts(t, ours))
	assert.EqualValues(t, 1, tm.counts(t, otelhttpScope)["http.server.request.duration"])
}

// otelhttp loses the metrics of a request that ends in a panic, as an aborted
// response must. Ours are recorded once, whatever the end.
func TestOtelhttpAroundAbortedRequests(t *testing.T) {
	t.Parallel()
	broken := testnet.Upstream(t, func(c *testnet.Conn) {
		if c.ReadRequest() != nil {
			c.Send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 50_000))
		}
	})
	var upstream hanging
	up := serve(t, &upstream)
	tm := newTelemetry()
	gw := newGateway(t, tm.traced(gateway.WithService("broken", broken.URL), gateway.WithService("hanging", up.URL))...)
	front := serve(t, tm.around(gw))

	resp := get(t, front.Client(), front.URL+"/broken/")
	assert.ErrorIs(t, resp.err, io.ErrUnexpectedEOF)

	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, front.URL+"/hanging/", nil)
	require.NoError(t, err)
	left := make(chan error, 1)
	go func() {
		_, err := front.Client().Do(req) //nolint:bodyclose // there is none
		left <- err
	}()
	upstream.reached(t)
	cancel()
	assert.ErrorIs(t, within(t, "the client", left), context.Canceled)
	upstream.released(t)

	testnet.Settle(t, "both spans", func() bool { return len(tm.of(ours, trace.SpanKindInternal)) == 2 })
	assert.EqualValues(t, 2, tm.counts(t, ours)["gateway.request.duration"])
	assert.Zero(t, tm.counts(t, ours)["http.server.request.duration"])
	byService := map[string]map[string]string{}
	status := map[string]codes.Code{}
	for _, s := range tm.of(ours, trace.SpanKindInternal) {
		name := attributes(s)["gateway.service"]
		byService[name], status[name] = attributes(s), s.Status.Code
	}
	assert.Equal(t, "truncated", byService["broken"]["error.type"])
	assert.Equal(t, codes.Error, status["broken"])
	assert.Equal(t, "499", byService["hanging"]["http.response.status_code"], "a client that leaves is no error")
	assert.Equal(t, codes.Unset, status["hanging"])
}

// Streams, trailers, uploads and tunnels go through otelhttp's writer and body.
func TestOtelhttpAroundStreams(t *testing.T) {
	t.Parallel()
	up := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/socket" {
			if c, err := websocket.Accept(w, r, nil); err == nil {
				_ = echo(r.Context(), c)
			}
			return
		}
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Trailer", "X-Sum")
		n, _ := io.Copy(w, r.Body)
		w.Header().Set("X-Sum", http.StatusText(int(200+n%2)))
	}))
	tm := newTelemetry()
	gw := newGateway(t, tm.traced(gateway.WithService("users", up.URL))...)
	front := serve(t, tm.around(gw))

	text := strings.Repeat("0123456789", 30_000)
	resp := send(t, front.Client(), http.MethodPost, front.URL+"/users/", strings.NewReader(text))
	require.NoError(t, resp.err)
	assert.Equal(t, text, resp.body)
	assert.Equal(t, "OK", resp.Trailer.Get("X-Sum"))
	span := attributes(tm.only(t, ours, trace.SpanKindInternal))
	assert.Equal(t, "300000", span["http.request.body.size"])
	assert.Equal(t, "300000", span["http.response.body.size"])

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, front.URL+"/users/socket", &websocket.DialOptions{HTTPClient: front.Client()})
	require.NoError(t, err)
	require.NoError(t, exchange(ctx, c, websocket.MessageText, []byte("hello")))
	require.NoError(t, c.Close(websocket.StatusNormalClosure, ""))
	testnet.Settle(t, "both spans", func() bool { return len(tm.of(ours, trace.SpanKindInternal)) == 2 })
	assert.Equal(t, "101", attributes(tm.of(ours, trace.SpanKindInternal)[1])["http.response.status_code"])
}

// otelhttp's round tripper inside the gateway sees each attempt, below our span
// of it, and what it sends upstream is its own place in the trace.
func TestOtelhttpInsideTheGateway(t *testing.T) {
	t.Parallel()
	sent := make(chan string, 8)
	up := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent <- r.Header.Get("Traceparent")
		switch {
		case r.URL.Path == "/socket":
			if c, err := websocket.Accept(w, r, nil); err == nil {
				_ = echo(r.Context(), c)
			}
		case len(sent) == 1:
			w.WriteHeader(http.StatusServiceUnavailable) // the first; the second is the answer
		default:
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.Copy(w, r.Body)
		}
	}))
	tm := newTelemetry()
	base := &http.Transport{DisableCompression: true}
	t.Cleanup(base.CloseIdleConnections)
	rt := otelhttp.NewTransport(base, otelhttp.WithTracerProvider(tm.traces),
		otelhttp.WithMeterProvider(tm.meters), otelhttp.WithPropagators(propagation.TraceContext{}))
	gw := newGateway(t, tm.traced(gateway.WithTransport(rt), gateway.WithService("users", up.URL))...)
	front := serve(t, gw)

	resp := send(t, front.Client(), http.MethodPut, front.URL+"/users/7", strings.NewReader("hello"))
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Equal(t, "hello", resp.body)
	tm.only(t, ours, trace.SpanKindServer)
	outer, inner := tm.of(ours, trace.SpanKindClient), tm.of(otelhttpScope, trace.SpanKindClient)
	require.Len(t, outer, 2)
	require.Len(t, inner, 2)
	for i := range inner {
		assert.Equal(t, outer[i].SpanContext.SpanID(), inner[i].Parent.SpanID(), "attempt %d", i)
		assert.Contains(t, within(t, "the upstream", sent), inner[i].SpanContext.SpanID().String(), "attempt %d", i)
	}
	assert.EqualValues(t, 2, tm.counts(t, ours)["http.client.request.duration"])
	assert.EqualValues(t, 1, tm.counts(t, ours)["http.server.request.duration"])

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, front.URL+"/users/socket", &websocket.DialOptions{HTTPClient: front.Client()})
	require.NoError(t, err)
	require.NoError(t, exchange(ctx, c, websocket.MessageBinary, noise(mebibyte / 8)[:16<<10]))
	require.NoError(t, c.Close(websocket.StatusNormalClosure, ""))
	testnet.Settle(t, "the tunnel to end", func() bool { return gw.Stats().InFlight == 0 })
}
