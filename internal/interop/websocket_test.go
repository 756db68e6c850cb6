package interop_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

const mebibyte = 1 << 20

// sockets is a coder/websocket server behind a gateway.
type sockets struct {
	gw    *gateway.Gateway
	front *server
	up    *server
	open  atomic.Int64       // connections that the upstream has accepted and not left
	ended chan error         // what each upstream connection ended with
	pings atomic.Int64       // that the upstream received
	seen  chan *http.Request // each handshake as it came
}

// newSockets has handle serve each connection.
func newSockets(t *testing.T, o *websocket.AcceptOptions, handle func(context.Context, *websocket.Conn) error) *sockets {
	s := &sockets{ended: make(chan error, 256), seen: make(chan *http.Request, 256)}
	options := websocket.AcceptOptions{}
	if o != nil {
		options = *o
	}
	options.OnPingReceived = func(context.Context, []byte) bool { s.pings.Add(1); return true }
	s.up = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.seen <- r.Clone(context.Background())
		c, err := websocket.Accept(w, r, &options)
		if err != nil {
			return
		}
		s.open.Add(1)
		defer s.open.Add(-1)
		defer c.CloseNow()
		c.SetReadLimit(2 * mebibyte)
		s.ended <- handle(context.Background(), c)
	}))
	s.gw = newGateway(t, gateway.WithService("chat", s.up.URL+"/ws"))
	s.front = serve(t, s.gw)
	t.Cleanup(func() {
		testnet.Settle(t, "every tunnel gone at both ends", func() bool { return s.open.Load() == 0 && s.gw.Stats().InFlight == 0 })
	})
	return s
}

// dial opens a socket; it is cut when the test ends.
func (s *sockets) dial(t testing.TB, o *websocket.DialOptions) (*websocket.Conn, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	options := websocket.DialOptions{}
	if o != nil {
		options = *o
	}
	options.HTTPClient = s.front.Client()
	c, _, err := websocket.Dial(ctx, s.front.URL+"/chat/room/1?x=%2F", &options)
	if err != nil {
		cancel()
		require.NoError(t, err)
	}
	c.SetReadLimit(2 * mebibyte)
	t.Cleanup(func() { _ = c.CloseNow(); cancel() })
	return c, ctx
}

// echo returns messages until the connection ends.
func echo(ctx context.Context, c *websocket.Conn) error {
	for {
		kind, r, err := c.Reader(ctx)
		if err != nil {
			return err
		}
		w, err := c.Writer(ctx, kind)
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
}

// exchange sends a message and expects it back.
func exchange(ctx context.Context, c *websocket.Conn, kind websocket.MessageType, message []byte) error {
	sent := make(chan error, 1)
	go func() { sent <- c.Write(ctx, kind, message) }()
	got, back, err := c.Read(ctx)
	if err == nil {
		err = <-sent
	}
	switch {
	case err != nil:
		return err
	case got != kind, !bytes.Equal(back, message):
		return fmt.Errorf("sent %v of %d bytes, got %v of %d bytes", kind, len(message), got, len(back))
	}
	return nil
}

// noise returns bytes that nothing compresses.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestWebSocketEcho(t *testing.T) {
	for _, mode := range []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionContextTakeover} {
		t.Run(fmt.Sprintf("compression=%d", mode), func(t *testing.T) {
			t.Parallel()
			s := newSockets(t, &websocket.AcceptOptions{CompressionMode: mode, Subprotocols: []string{"v2.chat"}}, echo)
			c, ctx := s.dial(t, &websocket.DialOptions{CompressionMode: mode, Subprotocols: []string{"v1.chat", "v2.chat"}})
			assert.Equal(t, "v2.chat", c.Subprotocol())
			assert.Equal(t, "/ws/room/1?x=%2F", within(t, "the handshake", s.seen).RequestURI)

			require.NoError(t, exchange(ctx, c, websocket.MessageText, []byte("grüße, 世界")))
			require.NoError(t, exchange(ctx, c, websocket.MessageBinary, []byte{0, 255, 129, 8}))
			require.NoError(t, exchange(ctx, c, websocket.MessageText, nil))
			for range 3 {
				require.NoError(t, exchange(ctx, c, websocket.MessageBinary, noise(mebibyte)))
				require.NoError(t, exchange(ctx, c, websocket.MessageText, bytes.Repeat([]byte("abc "), mebibyte/4)))
			}
			require.NoError(t, wsjson.Write(ctx, c, map[string]int{"n": 1}))
			var back map[string]int
			require.NoError(t, wsjson.Read(ctx, c, &back))
			assert.Equal(t, map[string]int{"n": 1}, back)
			require.NoError(t, c.Close(websocket.StatusNormalClosure, "done"))
			assert.Equal(t, websocket.StatusNormalClosure, websocket.CloseStatus(within(t, "the upstream's end", s.ended)))
		})
	}
}

// The close handshake passes in both directions, code and reason included.
func TestWebSocketCloseCodesPass(t *testing.T) {
	codes := []websocket.StatusCode{
		websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusUnsupportedData,
		websocket.StatusInvalidFramePayloadData, websocket.StatusPolicyViolation, websocket.StatusTryAgainLater, 3000, 4999,
	}
	for _, code := range codes {
		t.Run(fmt.Sprintf("from=client code=%d", code), func(t *testing.T) {
			t.Parallel()
			s := newSockets(t, nil, echo)
			c, _ := s.dial(t, nil)
			require.NoError(t, c.Close(code, "enough"))
			var end websocket.CloseError
			require.ErrorAs(t, within(t, "the upstream's end", s.ended), &end)
			assert.Equal(t, websocket.CloseError{Code: code, Reason: "enough"}, end)
		})
		t.Run(fmt.Sprintf("from=upstream code=%d", code), func(t *testing.T) {
			t.Parallel()
			s := newSockets(t, nil, func(_ context.Context, c *websocket.Conn) error { return c.Close(code, "enough") })
			c, ctx := s.dial(t, nil)
			_, _, err := c.Read(ctx)
			var end websocket.CloseError
			require.ErrorAs(t, err, &end)
			assert.Equal(t, websocket.CloseError{Code: code, Reason: "enough"}, end)
			require.NoError(t, within(t, "the upstream's end", s.ended), "the client's answer came back")
		})
	}
}

// A side that is just gone is gone for the other side too, without a close
// frame that nobody sent.
func TestWebSocketLostPeers(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		t.Parallel()
		s := newSockets(t, nil, echo)
		c, ctx := s.dial(t, nil)
		require.NoError(t, exchange(ctx, c, websocket.MessageText, []byte("here")))
		require.NoError(t, c.CloseNow())
		err := within(t, "the upstream's end", s.ended)
		assert.EqualValues(t, -1, websocket.CloseStatus(err), "%v", err)
	})
	t.Run("upstream", func(t *testing.T) {
		t.Parallel()
		s := newSockets(t, nil, func(context.Context, *websocket.Conn) error { return nil })
		c, ctx := s.dial(t, nil)
		_, _, err := c.Read(ctx)
		assert.EqualValues(t, -1, websocket.CloseStatus(err), "%v", err)
		assert.NoError(t, ctx.Err())
	})
}

// Pings are answered by the other end, not by the gateway.
func TestWebSocketPings(t *testing.T) {
	t.Parallel()
	s := newSockets(t, nil, func(ctx context.Context, c *websocket.Conn) error {
		ctx = c.CloseRead(ctx)
		for range 3 {
			if err := c.Ping(ctx); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return nil
	})
	var pings atomic.Int64
	c, ctx := s.dial(t, &websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool { pings.Add(1); return true }})
	_ = c.CloseRead(ctx)
	for range 5 {
		require.NoError(t, c.Ping(ctx))
	}
	testnet.Settle(t, "the upstream's pings", func() bool { return pings.Load() == 3 })
	assert.EqualValues(t, 5, s.pings.Load())
	require.NoError(t, c.Close(websocket.StatusNormalClosure, ""))
	require.NoError(t, within(t, "the upstream's end", s.ended))
}

// Many at once: none gets another's bytes, none waits for another.
func TestWebSocketsInParallel(t *testing.T) {
	t.Parallel()
	const connections, messages = 64, 20
	s := newSockets(t, nil, echo)
	var all errgroup.Group
	for i := range connections {
		c, ctx := s.dial(t, nil)
		all.Go(func() error {
			for j := range messages {
				text := fmt.Sprintf("%d of %d: %s", j, i, strings.Repeat(string(rune('a'+i%26)), 37*j*j))
				if err := exchange(ctx, c, websocket.MessageText, []byte(text)); err != nil {
					return fmt.Errorf("socket %d, message %d: %w", i, j, err)
				}
			}
			return c.Close(websocket.StatusNormalClosure, "")
		})
	}
	require.NoError(t, all.Wait())
	for range connections {
		assert.Equal(t, websocket.StatusNormalClosure, websocket.CloseStatus(within(t, "an upstream's end", s.ended)))
	}
	testnet.Settle(t, "all counted", func() bool { return s.gw.Stats().Requests == connections })
	assert.Empty(t, s.gw.Stats().Errors)
}

// A refused handshake is an answer like any other, and is not tried again.
func TestWebSocketRefused(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusForbidden, http.StatusServiceUnavailable} {
		var asked atomic.Int64
		up := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("X-Why", "members only")
			http.Error(w, "no", status)
		}))
		gw := newGateway(t, gateway.WithService("chat", up.URL))
		front := serve(t, gw)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, resp, err := websocket.Dial(ctx, front.URL+"/chat/", &websocket.DialOptions{HTTPClient: front.Client()})
		require.Error(t, err)
		require.NotNil(t, resp)
		assert.Equal(t, status, resp.StatusCode)
		assert.Equal(t, "members only", resp.Header.Get("X-Why"))
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, "no\n", string(body))
		assert.EqualValues(t, 1, asked.Load())
	}
}

// coder/websocket checks the origin against Host: with the client's Host it
// lets a browser of the same site in, with the target's it does not.
func TestWebSocketOrigin(t *testing.T) {
	t.Parallel()
	s := newSockets(t, nil, echo)
	kept := newGateway(t, gateway.WithService("chat", s.up.URL, gateway.WithPreserveHost()))
	for _, c := range []struct {
		handler http.Handler
		status  int
	}{{s.gw, http.StatusForbidden}, {kept, http.StatusSwitchingProtocols}} {
		front := serve(t, c.handler)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		conn, resp, err := websocket.Dial(ctx, front.URL+"/chat/", &websocket.DialOptions{
			HTTPClient: front.Client(), HTTPHeader: http.Header{"Origin": {front.URL}},
		})
		require.NotNil(t, resp, "%v", err)
		assert.Equal(t, c.status, resp.StatusCode)
		if err == nil {
			require.NoError(t, conn.Close(websocket.StatusNormalClosure, ""))
		}
	}
	testnet.Settle(t, "the tunnel to end", func() bool { return kept.Stats().InFlight == 0 })
}

// Drain ends open tunnels and those still to come; requests go on.
func TestWebSocketsEndWithDrain(t *testing.T) {
	t.Parallel()
	s := newSockets(t, nil, echo)
	var conns []*websocket.Conn
	var ctx context.Context
	for range 8 {
		var c *websocket.Conn
		c, ctx = s.dial(t, nil)
		require.NoError(t, exchange(ctx, c, websocket.MessageText, []byte("here")))
		conns = append(conns, c)
	}
	s.gw.Drain()
	for _, c := range conns {
		_, _, err := c.Read(ctx)
		assert.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err), "%v", err)
		err = within(t, "an upstream's end", s.ended)
		assert.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err), "%v", err)
	}
	require.NoError(t, ctx.Err())
	assert.Equal(t, http.StatusUpgradeRequired, get(t, s.front.Client(), s.front.URL+"/chat/").StatusCode)
}

// flow is one direction of messages, of which only a few are under way.
type flow struct {
	sent, received atomic.Int64
	window         chan struct{}
}

func newFlow() *flow { return &flow{window: make(chan struct{}, 16)} }

// message is the nth: some fit a frame, some are sent in fragments.
func message(n int64) []byte {
	return fmt.Appendf(nil, "%d %s", n, bytes.Repeat([]byte{byte('a' + n%26)}, int(n*n*131%20_000)))
}

// send sends messages, with a ping now and then, until the connection ends.
func (f *flow) send(ctx context.Context, c *websocket.Conn, over <-chan struct{}) {
	for n := int64(0); ; n++ {
		select {
		case f.window <- struct{}{}:
		case <-over:
			return
		}
		w, err := c.Writer(ctx, websocket.MessageText)
		if err != nil {
			return
		}
		for piece := range slices.Chunk(message(n), 3000) {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
		if w.Close() != nil {
			return
		}
		f.sent.Add(1)
		if n%10 == 9 && c.Ping(ctx) != nil {
			return
		}
	}
}

// receive reads messages, each of them the next and whole, until there are no
// more.
func (f *flow) receive(ctx context.Context, c *websocket.Conn) error {
	for n := int64(0); ; n++ {
		_, got, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, message(n)) {
			return fmt.Errorf("message %d came as %d bytes, want %d", n, len(got), len(message(n)))
		}
		f.received.Add(1)
		<-f.window
	}
}

// both sends and receives until the connection ends, and says how it did.
func both(ctx context.Context, c *websocket.Conn, out, in *flow) error {
	over := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() { out.send(ctx, c, over) })
	err := in.receive(ctx, c)
	close(over)
	sending.Wait()
	return err
}

// Drain takes no message back, in whichever frame it finds the two. (Without
// compression: coder/websocket v1.8.15 reads on from a decompressor it has given
// away when a Close comes before a message's last frame.)
func TestWebSocketsEndWithDrainWhileMessagesFlow(t *testing.T) {
	for n := range 8 {
		t.Run(fmt.Sprintf("after=%d", 20*n), func(t *testing.T) {
			t.Parallel()
			up, down := newFlow(), newFlow()
			s := newSockets(t, nil, func(ctx context.Context, c *websocket.Conn) error { return both(ctx, c, down, up) })
			c, ctx := s.dial(t, nil)
			ended := make(chan error, 1)
			go func() { ended <- both(ctx, c, up, down) }()
			testnet.Settle(t, "messages", func() bool { return min(up.received.Load(), down.received.Load()) >= int64(20*n) })

			sentUp, sentDown := up.sent.Load(), down.sent.Load()
			s.gw.Drain()
			err := within(t, "the client's end", ended)
			assert.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err), "%v", err)
			err = within(t, "the upstream's end", s.ended)
			assert.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err), "%v", err)
			assert.GreaterOrEqual(t, up.received.Load(), sentUp, "messages to the upstream")
			assert.GreaterOrEqual(t, down.received.Load(), sentDown, "messages to the client")
		})
	}
}

// Shutdown ends tunnels as Drain does, and with them its wait.
func TestWebSocketsEndWithShutdown(t *testing.T) {
	t.Parallel()
	s := newSockets(t, nil, echo)
	c, ctx := s.dial(t, nil)
	require.NoError(t, exchange(ctx, c, websocket.MessageText, []byte("here")))
	ended := make(chan error, 1)
	go func() { ended <- shutdown(s.gw) }()
	_, _, err := c.Read(ctx)
	assert.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err), "%v", err)
	err = within(t, "the upstream's end", s.ended)
	assert.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err), "%v", err)
	require.NoError(t, <-ended)
	_, resp, err := websocket.Dial(ctx, s.front.URL+"/chat/", &websocket.DialOptions{HTTPClient: s.front.Client()})
	require.Error(t, err)
	require.NotNil(t, resp)
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
}
