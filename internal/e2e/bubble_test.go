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
// the clock of a synctest bubble: times are exact.
type bubble struct {
	*testing.T
	up   *testnet.Up
	gw   *gateway.Gateway
	srv  *http.Server
	ln   *testnet.PipeListener
	logs *testnet.LogRecorder
}

func newBubble(t *testing.T, script func(*testnet.Conn), opts ...gateway.Option) *bubble {
	t.Helper()
	wire := testnet.NewPipeListener()
	b := &bubble{T: t, up: testnet.UpstreamOn(t, wire, script), ln: testnet.NewPipeListener(), logs: testnet.NewLogRecorder()}
	transport := &http.Transport{DialContext: wire.DialContext, DisableCompression: true, ExpectContinueTimeout: time.Second, MaxIdleConnsPerHost: 64}
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	b.gw, err = gateway.New(append([]gateway.Option{
		gateway.WithCache(cache), gateway.WithLogger(b.logs.Logger()),
		gateway.WithService("a", b.up.URL, gateway.WithTransport(transport)),
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
		transport.CloseIdleConnections()
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

// restOf reads the body of a response to its end.
func restOf(r *testnet.Response) *testnet.Response {
	_, _ = io.Copy(io.Discard, r)
	return r
}
