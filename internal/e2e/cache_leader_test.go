package e2e_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// What ends a leader alone, those who wait for it do not share.
func TestLeadersOwnDeadlineIsNotTheFollowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, slowly(3*time.Second, testnet.Answer(200, storable, "ok")))
		next := b.srv.Handler
		b.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header["Hurry"] != nil {
				ctx, cancel := context.WithTimeout(r.Context(), time.Second)
				defer cancel()
				r = r.WithContext(ctx)
			}
			next.ServeHTTP(w, r)
		})
		leader, follower := b.dial(), b.dial()
		leader.Send(testnet.Get("/a/x", "Hurry: 1"))
		synctest.Wait()
		follower.Send(testnet.Get("/a/x"))
		assert.Equal(t, 504, leader.ReadResponse("GET").Status)
		assert.Equal(t, 200, follower.ReadResponse("GET").Status)
	})
}

func TestShutdownOfOneGatewayFailsNoFollowerOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, err := gateway.NewCache()
		require.NoError(t, err)
		wire := testnet.NewPipeListener()
		testnet.UpstreamOn(t, wire, slowly(3*time.Second, testnet.Answer(200, storable, "ok")))
		var gws [2]*gateway.Gateway
		for i := range gws {
			gws[i], err = gateway.New(gateway.WithCache(cache), gateway.WithService("a", "http://up.test", gateway.WithDialContext(wire.DialContext)))
			require.NoError(t, err)
		}
		statuses := make([]chan int, 2)
		for i, gw := range gws {
			statuses[i] = make(chan int, 1)
			go func() {
				w := &recorder{header: http.Header{}}
				gw.ServeHTTP(w, parsed(t, testnet.Get("/a/x")))
				statuses[i] <- w.status
			}()
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.Error(t, gws[0].Shutdown(ctx))
		assert.Equal(t, 503, <-statuses[0])
		assert.Equal(t, 200, <-statuses[1])
		require.NoError(t, gws[1].Shutdown(t.Context()))
		require.NoError(t, cache.Shutdown(t.Context()))
	})
}
