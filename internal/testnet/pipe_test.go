package testnet

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestServersRunInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ln := NewPipeListener()
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Hour)
			_, _ = io.WriteString(w, r.RemoteAddr)
		})}
		go func() { _ = srv.Serve(ln) }()
		defer func() { _ = srv.Close() }()

		tr := &http.Transport{DialContext: ln.DialContext}
		defer tr.CloseIdleConnections()
		start := time.Now()
		resp, err := (&http.Client{Transport: tr}).Get("http://any.test/")
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, "192.0.2.2:1025", string(body))
		assert.Equal(t, time.Hour, time.Since(start))
	})
}

func TestUpstreamsRunInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ln := NewPipeListener()
		up := UpstreamOn(t, ln, func(c *Conn) {
			for c.ReadRequest() != nil && c.Pause(time.Minute) && c.Send(Answer(200, "", "hi")) {
			}
		})
		conn, err := ln.Dial()
		require.NoError(t, err)
		c := NewClient(t, conn)
		c.Patience = time.Hour
		start := time.Now()
		assert.Equal(t, "hi", string(c.Do(Get("/a")).Body))
		assert.Equal(t, Quiet, c.Exchange(Get("/b")).End)
		assert.Equal(t, 2*time.Minute+quiet, time.Since(start))
		journal := up.Await(2)
		assert.Equal(t, time.Minute, journal[1].At.Sub(journal[0].At))
		up.AwaitClosed(1)
		assert.NoError(t, up.AllWhole())
	})
}

func TestClosedPipeListenerRefuses(t *testing.T) {
	t.Parallel()
	ln := NewPipeListener()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := ln.DialContext(ctx, "tcp", "x")
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, ln.Close())
	require.NoError(t, ln.Close())
	_, err = ln.Dial()
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}
