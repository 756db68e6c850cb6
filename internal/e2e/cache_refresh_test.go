package e2e_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

const whileRevalidate = "Cache-Control: max-age=1, stale-while-revalidate=60, stale-if-error=600"

// Shutdown waits for what is refreshed behind requests, as for every request.
func TestShutdownWaitsForRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, slowly(5*time.Second, testnet.Answer(200, whileRevalidate, "ok")))
		b.get("/a/x")
		time.Sleep(2 * time.Second)
		assert.Contains(t, b.get("/a/x").Header.Get("Cache-Status"), "hit")
		time.Sleep(blink)
		require.Equal(t, 2, b.up.Begun())
		began := time.Now()
		require.NoError(t, b.gw.Shutdown(t.Context()))
		lasted(t, 5*time.Second-blink, time.Since(began))
	})
}

func TestShutdownCutsRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		b := newBubble(t, func(c *testnet.Conn) {
			for c.ReadRequest() != nil {
				if first {
					c.Send(testnet.Answer(200, whileRevalidate, "ok"))
				} else {
					c.Send("HTTP/1.1 200 OK\r\n" + whileRevalidate + "\r\nContent-Length: 10000\r\n\r\nbegun")
					c.Wait()
				}
				first = false
			}
		})
		b.get("/a/x")
		time.Sleep(2 * time.Second)
		b.get("/a/x")
		time.Sleep(blink)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, b.gw.Shutdown(ctx), context.DeadlineExceeded)
		require.NoError(t, b.cache.Shutdown(t.Context()))
		lasted(t, time.Second, time.Since(began))
	})
}

// A refresh that fails is no hit.
func TestFailedRefreshIsNoHit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		b := newBubble(t, testnet.Respond(func(*testnet.Request) string {
			if n.Add(1) == 1 {
				return testnet.Answer(200, whileRevalidate, "ok")
			}
			return testnet.Answer(503, "", "")
		}), gateway.WithoutRetries())
		b.get("/a/x")
		time.Sleep(2 * time.Second)
		b.get("/a/x")
		time.Sleep(blink)
		require.EqualValues(t, 2, n.Load())
		assert.EqualValues(t, 1, b.cache.Stats().Hits)
	})
}

// Who asks for what waits to be refreshed waits no longer than the service takes,
// though the refreshes of another service hang.
func TestHangingRefreshesHoldUpNoOtherService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := testnet.NewPipeListener()
		testnet.UpstreamOn(t, other, testnet.Reply(200, whileRevalidate, "ok"))
		gate := make(chan struct{})
		var hang atomic.Bool
		b := newBubble(t, testnet.Respond(func(*testnet.Request) string {
			if hang.Load() {
				<-gate
			}
			return testnet.Answer(200, whileRevalidate, "ok")
		}), gateway.WithService("b", "http://b.test", gateway.WithDialContext(other.DialContext)))
		b.get("/b/x")
		for n := range 8 {
			b.get(fmt.Sprintf("/a/%d", n))
		}
		time.Sleep(2 * time.Second)
		hang.Store(true)
		for n := range 8 {
			b.get(fmt.Sprintf("/a/%d", n))
		}
		b.get("/b/x")
		began := time.Now()
		b.get("/b/x", "Cache-Control: no-cache")
		lasted(t, 0, time.Since(began))
		close(gate)
	})
}
