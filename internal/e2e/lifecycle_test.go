package e2e_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// ended is a context that is over.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// lasting is a context of so long.
func lasting(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// events is an upstream that begins an event stream and never ends it.
func events(c *testnet.Conn) {
	for req := c.ReadRequest(); req != nil; req = c.ReadRequest() {
		if req.Target != "/events" {
			c.Send(testnet.Answer(200, "", "ok"))
			continue
		}
		c.Send(testnet.Answer(200, "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked", "9\r\ndata: 1\n\n\r\n"))
	}
}

// listen opens an event stream and reads its first event.
func listen(t *testing.T, c *testnet.Client) *testnet.Response {
	t.Helper()
	require.True(t, c.Send(testnet.Get("/a/events")))
	resp := c.ReadHead("GET")
	require.Equal(t, 200, resp.Status)
	_, err := io.ReadFull(resp, make([]byte, len("data: 1\n\n")))
	require.NoError(t, err)
	return resp
}

// echoing is an upstream of tunnels that answers anything else 200.
func echoing(c *testnet.Conn) {
	for req := c.ReadRequest(); req != nil; req = c.ReadRequest() {
		if req.Header.Get("Upgrade") == "" {
			c.Send(testnet.Answer(200, "", "ok"))
			continue
		}
		c.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + testnet.WebSocketAccept + "\r\n\r\n")
		_, _ = io.Copy(c, c)
		return
	}
}

// health asks for a path of the health report.
func (r *rig) health(path string) int {
	r.Helper()
	return handle(r, r.gw.HealthHandler(), testnet.Get(path), nil).status
}

func TestDrainEndsStreamsAndServesOn(t *testing.T) {
	r := newRig(t, setup{script: events, scriptB: testnet.EchoWebSocket})
	stream, tunnel := testnet.Dial(t, r.addr), testnet.Dial(t, r.addr)
	resp := listen(t, stream)
	require.Equal(t, 101, tunnel.Do(testnet.WebSocket("/b/ws")).Status)
	require.Equal(t, 200, r.health("/readyz"))

	for range 2 {
		r.gw.Drain()
		assert.True(t, r.gw.Stats().Draining)
		assert.Equal(t, 503, r.health("/readyz"))
		assert.Equal(t, 200, r.health("/livez"))
		assert.Equal(t, 200, r.get("/a/x").Status, "requests are still served")
	}
	assert.Equal(t, testnet.Whole, restOf(resp).End)
	rest, end := tunnel.ReadRest()
	assert.Empty(t, rest)
	assert.Equal(t, testnet.Closed, end)

	late := r.get("/a/events")
	assert.Equal(t, 200, late.Status)
	assert.Equal(t, testnet.Whole, late.End, "a stream that begins now ends at once")
	assert.Equal(t, 503, r.do(testnet.WebSocket("/b/ws")).Status, "a tunnel does not begin")
	r.counted(onlyFailure(gateway.ReasonShuttingDown))
	require.NoError(t, r.gw.Shutdown(t.Context()))
}

func TestDrainOfOneServiceLeavesTheOthers(t *testing.T) {
	r := newRig(t, setup{script: events, scriptB: echoing})
	stream, tunnel := testnet.Dial(t, r.addr), testnet.Dial(t, r.addr)
	resp := listen(t, stream)
	require.Equal(t, 101, tunnel.Do(testnet.WebSocket("/b/ws")).Status)
	r.gw.Upstream("a").Drain()
	assert.Equal(t, testnet.Whole, restOf(resp).End)
	require.True(t, tunnel.Send("ping"))
	assert.Equal(t, "ping", tunnel.ReadN(4))
	assert.False(t, r.gw.Stats().Draining)
	assert.Equal(t, 200, r.health("/readyz"))
	tunnel.Close()
}

// The order of the README: an event stream would hold up srv.Shutdown until its
// context ends, were it not for Drain.
func TestServersShutdownDoesNotWaitForStreams(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		b := w.bubble(t, events)
		resp := listen(t, b.dial())
		read := make(chan *testnet.Response)
		go func() { read <- restOf(resp) }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		require.NoError(t, b.srv.Shutdown(ctx))
		require.NoError(t, b.gw.Shutdown(ctx))
		assert.Less(t, time.Since(start), time.Second)
		assert.Equal(t, testnet.Whole, (<-read).End)
		b.counted(noFailure)
	})
}

func TestShutdownAloneEndsStreamsAndTunnels(t *testing.T) {
	r := newRig(t, setup{script: events, scriptB: testnet.EchoWebSocket})
	stream, tunnel := testnet.Dial(t, r.addr), testnet.Dial(t, r.addr)
	resp := listen(t, stream)
	require.Equal(t, 101, tunnel.Do(testnet.WebSocket("/b/ws")).Status)
	require.NoError(t, r.gw.Shutdown(lasting(t, 5*time.Second)))
	assert.Equal(t, testnet.Whole, restOf(resp).End)
	_, end := tunnel.ReadRest()
	assert.Equal(t, testnet.Closed, end)
	assert.Zero(t, r.gw.Stats().InFlight)
}

func TestAfterShutdownRequestsAreRefused(t *testing.T) {
	var next http.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	r := newRig(t, setup{script: testnet.Reply(200, storable, "ok"), handler: func(gw *gateway.Gateway) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/", gw.Wrap(next))
		mux.Handle("/whole/", http.StripPrefix("/whole", gw.Upstream("a")))
		return mux
	}})
	r.stored(testnet.Get("/a/x"))
	for range 3 {
		require.NoError(t, r.gw.Shutdown(t.Context()), "again is fine")
		for _, request := range []string{testnet.Get("/a/x"), testnet.Get("/a/y"), testnet.Get("/whole/x"), testnet.Build("POST", "/b/x", "body"), testnet.WebSocket("/b/ws")} {
			tr := r.exchange(request)
			require.Equal(t, []int{503}, tr.Statuses())
			resp := tr.Responses[0]
			assert.Contains(t, string(resp.Body), `"reason":"shutting_down"`)
			assert.Equal(t, "close", resp.Header.Get("Connection"))
			assert.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
			assert.NotEqual(t, testnet.Quiet, tr.End, "a client goes elsewhere")
		}
	}
	assert.Equal(t, 204, r.get("/none/x").Status, "what is no service is none of ours")
	assert.Len(t, r.a.Await(1), 1)
	assert.Zero(t, r.b.Conns())
	r.counted(map[gateway.Reason]uint64{gateway.ReasonShuttingDown: 15})
	assert.Equal(t, 503, r.health("/readyz"))
}

func TestShutdownOfOneServiceLeavesTheOthers(t *testing.T) {
	r := newRig(t, setup{})
	require.NoError(t, r.gw.Upstream("a").Shutdown(t.Context()))
	assert.Equal(t, 503, r.get("/a/x").Status)
	assert.Equal(t, 200, r.get("/b/x").Status)
	assert.False(t, r.gw.Stats().Draining)
}

func TestShutdownOfAnIdleGatewayNeedsNoTime(t *testing.T) {
	gw, err := gateway.New(gateway.WithService("a", "http://upstream.test"))
	require.NoError(t, err)
	up, err := gateway.NewUpstream("a", "http://upstream.test")
	require.NoError(t, err)
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	for range 2 {
		assert.NoError(t, gw.Shutdown(ended()))
		assert.NoError(t, up.Shutdown(ended()))
		assert.NoError(t, cache.Shutdown(ended()))
	}
}

func TestShutdownClosesIdleConnections(t *testing.T) {
	r := newRig(t, setup{})
	require.Equal(t, 200, r.get("/a/x").Status)
	r.a.AwaitOpen(1)
	require.NoError(t, r.gw.Shutdown(t.Context()))
	r.a.AwaitClosed(1)
}

// slow answers after so long, storable, with a body that takes as long again.
func slow(d time.Duration) func(*testnet.Conn) {
	return func(c *testnet.Conn) {
		for c.ReadRequest() != nil && c.Pause(d) {
			c.Send(testnet.Answer(200, storable+"Transfer-Encoding: chunked", "2\r\nok\r\n"))
			if c.Pause(d) {
				c.Send("0\r\n\r\n")
			}
		}
	}
}

func TestShutdownWaitsForRequests(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		b := w.bubble(t, slow(10*time.Second))
		c := b.dial()
		require.True(t, c.Send(testnet.Get("/a/x")))
		synctest.Wait()
		done := make(chan error)
		start := time.Now()
		go func() { done <- b.gw.Shutdown(t.Context()) }()
		synctest.Wait()
		assert.Equal(t, 503, b.dial().Do(testnet.Get("/a/x")).Status, "new ones are refused meanwhile")
		resp := c.ReadResponse("GET")
		assert.Equal(t, "ok", string(resp.Body))
		assert.Equal(t, testnet.Whole, resp.End, "who is inside is served to the end")
		require.NoError(t, <-done)
		lasted(t, 20*time.Second, time.Since(start))
	})
}

func TestShutdownWaitsForTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, slow(10*time.Second))
		c := b.dial()
		require.True(t, c.Send(testnet.Get("/a/x")))
		require.Equal(t, 200, c.ReadHead("GET").Status)
		c.Close()
		synctest.Wait() // its client has gone, the fill goes on
		assert.Zero(t, b.gw.Stats().InFlight)
		start := time.Now()
		require.NoError(t, b.gw.Shutdown(t.Context()))
		lasted(t, 10*time.Second, time.Since(start))
		assert.EqualValues(t, 1, b.gw.Stats().Caches[0].Entries, "it was stored")
		b.counted(onlyFailure(gateway.ReasonClientClosed))
	})
}

func TestShutdownCutsRequestsWhenItsContextEnds(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		b := w.bubble(t, (*testnet.Conn).Wait, gateway.WithTimeout(0), gateway.WithBodyIdleTimeout(0))
		c := b.dial()
		require.True(t, c.Send(testnet.Get("/a/x")))
		upload := b.dial()
		require.True(t, upload.Send(testnet.Build("POST", "/a/x", "ha", "Content-Length: 32768")))
		synctest.Wait()
		start := time.Now()
		err := b.gw.Shutdown(lasting(t, time.Second))
		lasted(t, time.Second, time.Since(start))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.EqualError(t, err, "gateway: shutdown cut 2 request(s): context deadline exceeded")
		for _, client := range []*testnet.Client{c, upload} {
			resp := client.ReadResponse("GET")
			assert.Equal(t, 503, resp.Status)
			assert.Contains(t, string(resp.Body), `"reason":"shutting_down"`)
		}
		b.counted(map[gateway.Reason]uint64{gateway.ReasonShuttingDown: 2})
		require.NoError(t, b.gw.Shutdown(t.Context()), "nothing is left")
		lasted(t, time.Second, time.Since(start))
		b.up.AwaitClosed(2)
	})
}

func TestShutdownCutsBodiesWhenItsContextEnds(t *testing.T) {
	for name, control := range map[string]string{"stored": storable, "not stored": "Cache-Control: no-store\r\n"} {
		for framing, body := range map[string]string{"Transfer-Encoding: chunked": "2\r\nok\r\n", "Content-Length: 9": "ok", "Content-Length: 900000": "ok"} {
			t.Run(name+" "+framing, func(t *testing.T) {
				inBubbles(t, func(t *testing.T, w way) {
					b := w.bubble(t, func(c *testnet.Conn) {
						if c.ReadRequest() != nil {
							c.Send(testnet.Answer(200, control+framing, body))
							c.Wait()
						}
					})
					c := b.dial()
					require.True(t, c.Send(testnet.Get("/a/x")))
					resp := c.ReadHead("GET")
					require.Equal(t, 200, resp.Status)
					_, err := io.ReadFull(resp, make([]byte, 2))
					require.NoError(t, err)
					require.Error(t, b.gw.Shutdown(lasting(t, time.Second)))
					assert.Equal(t, "ok", string(restOf(resp).Body))
					assert.Equal(t, testnet.Truncated, resp.End)
					b.counted(onlyFailure(gateway.ReasonShuttingDown))
					require.NoError(t, b.gw.Shutdown(lasting(t, 0)), "nothing is left")
					assert.Zero(t, b.gw.Stats().Caches[0].Bytes)
				})
			})
		}
	}
}

func TestShutdownCutsTasksWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, slow(20*time.Second))
		c := b.dial()
		require.True(t, c.Send(testnet.Get("/a/x")))
		require.Equal(t, 200, c.ReadHead("GET").Status)
		c.Close()
		synctest.Wait()
		err := b.gw.Shutdown(lasting(t, time.Second))
		assert.EqualError(t, err, `gateway: shutdown cut 0 request(s), 1 task(s) "cache fill": context deadline exceeded`)
		synctest.Wait()
		require.NoError(t, b.gw.Shutdown(lasting(t, 0)))
		assert.Zero(t, b.gw.Stats().Caches[0].Bytes, "half an answer is not stored")
	})
}

// A client that does not read is no reason for a handler to outlive a cut.
func TestShutdownCutsResponsesThatNobodyReads(t *testing.T) {
	for name, control := range map[string]string{"stored": storable, "not stored": "Cache-Control: no-store\r\n"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{script: func(c *testnet.Conn) {
				if c.ReadRequest() != nil {
					c.Send("HTTP/1.1 200 OK\r\n" + control + "Content-Length: 100000000\r\n\r\n")
					for c.Send(strings.Repeat("x", 64<<10)) {
					}
				}
			}})
			c := testnet.Dial(t, r.addr)
			require.True(t, c.Send(testnet.Get("/a/x")))
			require.Equal(t, 200, c.ReadHead("GET").Status)
			require.Error(t, r.gw.Shutdown(lasting(t, 50*time.Millisecond)))
			require.NoError(t, r.gw.Shutdown(lasting(t, time.Second)), "nothing is left")
			assert.Zero(t, r.gw.Stats().InFlight)
		})
	}
}

// Whatever a caller does, nobody is inside when Shutdown has returned nil.
func TestShutdownsAtOnceAllWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, slow(10*time.Second))
		c := b.dial()
		require.True(t, c.Send(testnet.Get("/a/x")))
		synctest.Wait()
		done := make(chan error)
		for range 3 {
			go func() { done <- b.gw.Shutdown(t.Context()) }()
		}
		b.gw.Drain()
		assert.Equal(t, testnet.Whole, c.ReadResponse("GET").End)
		for range 3 {
			require.NoError(t, <-done)
			assert.Zero(t, b.gw.Stats().InFlight)
		}
	})
}
