package e2e_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// openTunnel switches a client's connection; what is in early goes out with the
// handshake.
func openTunnel(t *testing.T, c *testnet.Client, early string) {
	t.Helper()
	c.Send(testnet.WebSocket("/a/socket") + early)
	resp := c.ReadHead("GET")
	require.Equal(t, 101, resp.Status)
	require.Equal(t, testnet.WebSocketAccept, resp.Header.Get("Sec-Websocket-Accept"))
	require.Equal(t, "websocket", resp.Header.Get("Upgrade"))
	require.Equal(t, "Upgrade", resp.Header.Get("Connection"))
}

func TestTunnelCarriesEveryByteBothWays(t *testing.T) { eachWay(t, tunnelCarriesEveryByteBothWays) }

func tunnelCarriesEveryByteBothWays(t *testing.T, w way) {
	r := newRig(t, setup{way: w, script: testnet.EchoWebSocket})
	c := testnet.Dial(t, r.addr)
	openTunnel(t, c, "")
	const pieces, size = 64, 32 << 10
	go func() {
		for n := range pieces {
			c.Send(strings.Repeat(string(rune('!'+n)), size))
		}
	}()
	for n := range pieces {
		require.Equal(t, strings.Repeat(string(rune('!'+n)), size), c.ReadN(size))
	}
	c.CloseWrite()
	rest, end := c.ReadRest()
	assert.Empty(t, rest)
	assert.Equal(t, testnet.Closed, end)
	r.a.AwaitClosed(1)
	r.counted(noFailure)
}

func TestTunnelKeepsEarlyBytes(t *testing.T) { eachWay(t, tunnelKeepsEarlyBytes) }

func tunnelKeepsEarlyBytes(t *testing.T, w way) {
	r := newRig(t, setup{way: w, script: func(c *testnet.Conn) {
		req := c.ReadRequest()
		if req == nil || req.Target == "/" {
			return
		}
		c.Send(testnet.Answer(101, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+testnet.WebSocketAccept, "") + "early down ")
		c.Send("heard " + c.ReadN(len("early up")))
	}})
	c := testnet.Dial(t, r.addr)
	openTunnel(t, c, "early up")
	rest, end := c.ReadRest()
	assert.Equal(t, "early down heard early up", rest)
	assert.Equal(t, testnet.Closed, end)
	c.Close()
	r.counted(noFailure)
}

func TestTunnelIsHalfClosed(t *testing.T) { eachWay(t, tunnelIsHalfClosed) }

func tunnelIsHalfClosed(t *testing.T, w way) {
	t.Run("by the client", func(t *testing.T) {
		r := newRig(t, setup{way: w, script: func(c *testnet.Conn) {
			if c.AcceptWebSocket() {
				heard := c.ReadN(1 << 10) // to the end of the client's half
				c.Send("heard " + heard)
			}
		}})
		c := testnet.Dial(t, r.addr)
		openTunnel(t, c, "")
		c.Send("hello")
		c.CloseWrite()
		rest, end := c.ReadRest()
		assert.Equal(t, "heard hello", rest)
		assert.Equal(t, testnet.Closed, end)
		r.counted(noFailure)
	})
	t.Run("by the upstream", func(t *testing.T) {
		heard := make(chan string, 1)
		r := newRig(t, setup{way: w, script: func(c *testnet.Conn) {
			if c.AcceptWebSocket() {
				c.Send("bye")
				c.CloseWrite()
				heard <- c.ReadN(len("hello"))
			}
		}})
		c := testnet.Dial(t, r.addr)
		openTunnel(t, c, "")
		rest, end := c.ReadRest()
		assert.Equal(t, "bye", rest)
		assert.Equal(t, testnet.Closed, end)
		c.Send("hello")
		assert.Equal(t, "hello", <-heard)
		c.Close()
		r.counted(noFailure)
	})
}

func TestTunnelEndsWithEitherSide(t *testing.T) { eachWay(t, tunnelEndsWithEitherSide) }

func tunnelEndsWithEitherSide(t *testing.T, w way) {
	for what, leave := range map[string]func(*testnet.Client){"close": (*testnet.Client).Close, "reset": (*testnet.Client).Reset} {
		t.Run("the client's "+what, func(t *testing.T) {
			r := newRig(t, setup{way: w, script: testnet.EchoWebSocket})
			c := testnet.Dial(t, r.addr)
			openTunnel(t, c, "")
			leave(c)
			r.a.AwaitClosed(1)
			r.counted(noFailure)
		})
	}
	for what, leave := range map[string]func(*testnet.Conn){"close": fin, "reset": rst} {
		t.Run("the upstream's "+what, func(t *testing.T) {
			opened := make(chan struct{})
			r := newRig(t, setup{way: w, script: func(c *testnet.Conn) {
				if c.AcceptWebSocket() {
					receive(opened)
					leave(c)
				}
			}})
			c := testnet.Dial(t, r.addr)
			openTunnel(t, c, "")
			close(opened)
			rest, end := c.ReadRest()
			assert.Empty(t, rest)
			assert.Equal(t, testnet.Closed, end)
			c.Close()
			r.counted(noFailure)
		})
	}
}

// TestTunnelIdleTime: a byte in either direction counts, and no other time does.
func TestTunnelIdleTime(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		b := w.bubble(t, func(c *testnet.Conn) {
			if !c.AcceptWebSocket() {
				return
			}
			c.ReadN(10) // ten bytes up, then ten down, one in eight seconds
			for range 10 {
				time.Sleep(8 * time.Second)
				c.Send("d")
			}
			c.ReadN(1)
		}, gateway.WithTunnelIdleTimeout(10*time.Second), gateway.WithTimeout(time.Second), gateway.WithBodyIdleTimeout(time.Second), gateway.WithMaxDuration(time.Minute))
		start := time.Now()
		c := b.dial()
		openTunnel(t, c, "")
		for range 10 {
			time.Sleep(8 * time.Second)
			c.Send("u")
		}
		rest, end := c.ReadRest()
		assert.Equal(t, "dddddddddd", rest)
		assert.Equal(t, testnet.Closed, end)
		lasted(t, 170*time.Second, time.Since(start))
		b.counted(onlyFailure(gateway.ReasonTimeout))
		assert.Zero(t, b.up.Open())
	})
}

func TestTunnelWithoutIdleTimeStays(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBubble(t, testnet.EchoWebSocket, gateway.WithTunnelIdleTimeout(0))
		c := b.dial()
		c.Patience = 48 * time.Hour
		openTunnel(t, c, "")
		time.Sleep(24 * time.Hour)
		c.Send("still here")
		assert.Equal(t, "still here", c.ReadN(len("still here")))
		c.Close()
		b.counted(noFailure)
	})
}

// What are no frames has no place for a Close: such tunnels are cut.
func TestDrainEndsTunnels(t *testing.T) {
	r := newRig(t, setup{script: testnet.EchoWebSocket})
	var tunnels []*testnet.Client
	for range 5 {
		c := testnet.Dial(t, r.addr)
		openTunnel(t, c, "")
		c.Send("ping")
		require.Equal(t, "ping", c.ReadN(4))
		tunnels = append(tunnels, c)
	}
	r.gw.Drain()
	for _, c := range tunnels {
		rest, end := c.ReadRest()
		assert.Empty(t, rest)
		assert.Equal(t, testnet.Closed, end)
		c.Close()
	}
	r.a.AwaitClosed(5)
	r.counted(noFailure)
	assert.Equal(t, 200, r.get("/b/x").Status, "requests are still served")

	late := testnet.Dial(t, r.addr)
	late.Send(testnet.WebSocket("/a/socket"))
	assert.Equal(t, 503, late.ReadResponse("GET").Status, "none opens any more")
	assert.Equal(t, 5, r.a.Begun())
	r.counted(onlyFailure(gateway.ReasonShuttingDown))
}

// Close frames (RFC 6455 §5.5.1), the client's with a mask of zeros.
const (
	goingAway       = "\x88\x02\x03\xe9"
	closeFromClient = "\x88\x82\x00\x00\x00\x00\x03\xe9"
)

// answersClose is a script: a handshake, and an answer to the Close that comes
// first, which is one of ours.
func answersClose(c *testnet.Conn) {
	if !c.AcceptWebSocket() {
		return
	}
	heard := c.ReadN(8)
	if len(heard) == 8 && heard[:2] == "\x88\x82" && heard[6]^heard[2] == 0x03 && heard[7]^heard[3] == 0xe9 {
		c.Send(goingAway)
	}
	c.Wait()
}

// afterDrain is how long what was sent before still passes.
const afterDrain = 100 * time.Millisecond

func TestShutdownEndsTunnelsInGoodOrder(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		b := w.bubble(t, answersClose)
		c := b.dial()
		openTunnel(t, c, "")
		start := time.Now()
		ended := make(chan error, 1)
		go func() { ended <- b.gw.Shutdown(t.Context()) }()
		assert.Equal(t, goingAway, c.ReadN(len(goingAway)))
		time.Sleep(50 * time.Millisecond)
		c.Send(closeFromClient)
		rest, end := c.ReadRest()
		assert.Empty(t, rest)
		assert.Equal(t, testnet.Closed, end)
		require.NoError(t, <-ended)
		lasted(t, afterDrain+50*time.Millisecond, time.Since(start))
		b.counted(noFailure)
		assert.Zero(t, b.up.Open())
	})
}

func TestDrainDoesNotWaitLongForTunnels(t *testing.T) {
	for what, script := range map[string]func(*testnet.Conn){
		"the client does not answer": answersClose,
		"nobody answers": func(c *testnet.Conn) {
			if c.AcceptWebSocket() {
				c.Wait()
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			inBubbles(t, func(t *testing.T, w way) {
				b := w.bubble(t, script)
				c := b.dial()
				openTunnel(t, c, "")
				start := time.Now()
				b.gw.Drain()
				lasted(t, 0, time.Since(start))
				rest, end := c.ReadRest()
				assert.Equal(t, goingAway, rest)
				assert.Equal(t, testnet.Closed, end)
				lasted(t, time.Second, time.Since(start))
				b.counted(noFailure)
				assert.Zero(t, b.up.Open())
			})
		})
	}
}

func TestShutdownCutsTunnelsWhenItsTimeIsOver(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		b := w.bubble(t, answersClose)
		c := b.dial()
		openTunnel(t, c, "")
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, b.gw.Shutdown(ctx), context.DeadlineExceeded)
		rest, end := c.ReadRest()
		assert.Equal(t, goingAway, rest)
		assert.Equal(t, testnet.Closed, end)
		lasted(t, 300*time.Millisecond, time.Since(start))
		b.counted(noFailure)
		assert.Zero(t, b.up.Open())
	})
}

// TestServerShutdownEndsTunnelsAndStreams is how an app ends: Drain is
// registered with the server.
func TestServerShutdownEndsTunnelsAndStreams(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		b := w.bubble(t, func(c *testnet.Conn) {
			req := c.ReadRequest()
			if req == nil {
				return
			}
			if req.Target == "/events" {
				c.Send(testnet.Answer(200, eventStream+"Transfer-Encoding: chunked", "") + chunkOf("data: 1\n\n"))
				c.Wait()
				return
			}
			c.Send(testnet.Answer(101, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+testnet.WebSocketAccept, ""))
			c.ReadN(len(closeFromClient))
			c.Send(goingAway)
		})
		tunnel, stream := b.dial(), b.dial()
		openTunnel(t, tunnel, "")
		stream.Send(testnet.Get("/a/events"))
		resp := stream.ReadHead("GET")
		readAtLeast(resp, 1)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- b.srv.Shutdown(ctx) }()
		assert.Equal(t, testnet.Whole, restOf(resp).End)
		assert.Equal(t, goingAway, tunnel.ReadN(len(goingAway)))
		tunnel.Send(closeFromClient)
		_, end := tunnel.ReadRest()
		assert.Equal(t, testnet.Closed, end)
		require.NoError(t, <-ended)
		require.NoError(t, b.gw.Shutdown(ctx))
		assert.Less(t, time.Since(start), time.Second)
		b.counted(noFailure)
	})
}
