package e2e_test

import (
	"context"
	"io"
	"maps"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// bubble is a gateway with the service a behind a server, all in memory and on
// the clock of a synctest bubble: times are exact but for a [blink].
type bubble struct {
	*testing.T
	up    *testnet.Up
	gw    *gateway.Gateway
	cache *gateway.Cache
	srv   *http.Server
	ln    *testnet.PipeListener
	logs  *testnet.LogRecorder
}

func newBubble(t *testing.T, script func(*testnet.Conn), opts ...gateway.Option) *bubble {
	t.Helper()
	return direct.bubble(t, script, opts...)
}

func (w way) bubble(t *testing.T, script func(*testnet.Conn), opts ...gateway.Option) *bubble {
	t.Helper()
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	return w.bubbleOf(t, cache, script, opts...)
}

// bubbleOf is bubble with a cache of the test's own, which the bubble ends.
func (w way) bubbleOf(t *testing.T, cache *gateway.Cache, script func(*testnet.Conn), opts ...gateway.Option) *bubble {
	t.Helper()
	wire := testnet.NewPipeListener()
	b := &bubble{T: t, up: testnet.UpstreamOn(t, wire, script), cache: cache, ln: testnet.NewPipeListener(), logs: testnet.NewLogRecorder()}
	var err error
	b.gw, err = gateway.New(append([]gateway.Option{
		gateway.WithCache(cache), gateway.WithLogger(b.logs.Logger()), gateway.WithoutBreaker(),
		gateway.WithService("a", b.up.URL, w.connect(t, wire.DialContext)),
	}, opts...)...)
	require.NoError(t, err)
	b.srv = &http.Server{Handler: b.gw}
	b.srv.RegisterOnShutdown(b.gw.Drain)
	go func() { _ = b.srv.Serve(b.ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		assert.NoError(t, b.srv.Shutdown(ctx))
		assert.NoError(t, b.gw.Shutdown(ctx))
		assert.NoError(t, cache.Shutdown(ctx))
	})
	return b
}

// dial connects a client that waits as long as it takes.
func (b *bubble) dial() *testnet.Client {
	b.Helper()
	conn, err := b.ln.Dial()
	require.NoError(b, err)
	c := testnet.NewClient(b, conn)
	c.Patience = time.Hour
	return c
}

// counted checks the failures that the gateway has counted, once everything
// waits for time to pass.
func (b *bubble) counted(want map[gateway.Reason]uint64) {
	b.Helper()
	synctest.Wait()
	s := b.gw.Stats()
	assert.Zero(b, s.InFlight)
	assert.True(b, maps.Equal(want, s.Errors), "counted %v, want %v", s.Errors, want)
}

// blink is what the clock of a bubble may be late by: a look at an idle pipe
// waits for 50 µs, where one at a socket does not wait.
const blink = time.Millisecond

// lasted checks how long something took in a bubble.
func lasted(t testing.TB, want, took time.Duration) {
	t.Helper()
	assert.GreaterOrEqual(t, took, want)
	assert.LessOrEqual(t, took, want+blink)
}

// restOf reads the body of a response to its end.
func restOf(r *testnet.Response) *testnet.Response {
	_, _ = io.Copy(io.Discard, r)
	return r
}
