package e2e_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// Two gateways that share a cache, and all that can be asked of them, at once and in
// any order, beside requests of all kinds, until they end in the midst of it, several
// times at once: nothing waits for ever, nothing panics, nothing is left.
func TestEverythingAtOnce(t *testing.T) {
	scripts := map[string]func(*testnet.Conn){"one": zoo, "two": zoo}
	inTown(t, scripts, func(w *town) {
		cache, err := gateway.NewCache(gateway.WithMaxBytes(1 << 20))
		require.NoError(w, err)
		names := []string{"a", "b", "c"}
		list := func() []gateway.Option {
			opts := append(w.common[:len(w.common):len(w.common)], gateway.WithCache(cache), gateway.WithTimeout(3*time.Second), gateway.WithStaleWhileRevalidate(time.Minute), gateway.WithHealthTimeout(100*time.Millisecond))
			for _, name := range names {
				if rand.IntN(4) > 0 {
					opts = append(opts, at(name, anyOf("one", "two", "none"),
						gateway.WithoutConnReuse(), // a look at an idle pipe takes time, and none passes while somebody waits for a lock
						anyOf(gateway.WithMaxConns(3), gateway.WithMaxConns(50)), anyOf(gateway.WithCacheShare(0.4), gateway.WithCacheShare(1)),
						anyOf(gateway.WithHealthChecks(time.Second, 2, 2), gateway.WithoutHealthChecks()), anyOf(gateway.WithMaxConcurrency(2, 3, time.Second), gateway.WithoutMaxConcurrency()),
						anyOf(gateway.WithBreaker(0.5, 5), gateway.WithoutBreaker()), anyOf(gateway.WithSlowRequest(time.Second, nil), gateway.WithoutSlowRequest()), gateway.WithHedge(time.Duration(rand.IntN(2))*time.Second)))
				}
			}
			return opts
		}
		gateways := [2]*gateway.Gateway{w.gw}
		require.NoError(w, w.gw.Update(list()...))
		gateways[1], err = gateway.New(list()...)
		require.NoError(w, err)
		servers := [2]*http.Server{w.srv, {}}
		lns := [2]*testnet.PipeListener{w.ln, testnet.NewPipeListener()}
		var boards [2]http.Handler
		for i, gw := range gateways {
			mux := http.NewServeMux()
			boards[i] = gw.DashboardHandler()
			mux.Handle("/", gw)
			mux.Handle("/dashboard/", boards[i])
			mux.Handle("/health/", gw.HealthHandler())
			mux.Handle("/metrics", gw.MetricsHandler())
			servers[i].Handler = mux
		}
		go func() { _ = servers[1].Serve(lns[1]) }()

		done := make(chan struct{})
		var all sync.WaitGroup
		again := func(most int, do func(i int)) {
			all.Go(func() {
				for {
					do(rand.IntN(2))
					select {
					case <-done:
						return
					case <-time.After(time.Duration(rand.IntN(most)) * time.Millisecond):
					}
				}
			})
		}
		held := map[string]*gateway.Upstream{}
		for _, name := range names {
			held[name] = gateways[1].Upstream(name)
		}
		for range 20 {
			again(50, func(i int) {
				c := &fair{town: &town{T: w.T, ln: lns[i]}}
				raw, method, stays := c.request(0)
				raw = strings.Replace(raw, " /"+strings.SplitN(raw, "/", 3)[1], " /"+anyOf(names...), 1)
				c.send(raw, method, stays)
			})
		}
		again(100, func(i int) { _ = gateways[i].Update(list()...) })
		again(100, func(i int) {
			if up := gateways[i].Upstream(anyOf(names...)); up != nil {
				_ = up.SetReplicas(gateway.Replica{URL: "http://one"}, gateway.Replica{URL: anyOf("http://two", "http://none")})
				_ = up.Stats()
			}
		})
		again(3000, func(i int) {
			if up := gateways[i].Upstream(anyOf(names...)); up != nil {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(1000))*time.Millisecond)
				defer cancel()
				up.Drain()
				_ = up.Shutdown(ctx)
			}
		})
		again(200, func(i int) {
			handle(w, held2(held, anyOf(names...)), testnet.Get("/x"), nil)
		})
		again(200, func(i int) {
			for _, path := range []string{"/health/", "/health/readyz", "/metrics", "/dashboard/"} {
				handle(w, servers[i].Handler, testnet.Get(path), nil)
			}
			_ = gateways[i].Stats()
			_ = gateways[i].StatsOver(gateway.LastMinute)
		})
		again(300, func(i int) {
			c := &town{T: w.T, ln: lns[i]}
			cl := c.client()
			defer cl.Close()
			cl.Send(testnet.Get("/dashboard/events", "Accept: text/event-stream"))
			time.Sleep(time.Duration(rand.IntN(5000)) * time.Millisecond)
		})
		again(300, func(i int) {
			cache.Purge(anyOf(names...), "/fresh/1")
			cache.ExpirePrefix(anyOf(names...), "/")
			cache.PurgeTag("x")
			_ = cache.Stats()
		})
		again(500, func(i int) {
			_ = gateways[i].Warm(w.Context(), "http://x.test/a/fresh/1", "http://x.test/b/slow/1", "http://x.test/c/big/1")
		})
		again(5000, func(i int) { gateways[i].ResetStats() })
		time.Sleep(20 * time.Second)

		again(500, func(i int) { gateways[1].Drain() })
		for i := range 4 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*time.Second)
				defer cancel()
				_ = gateways[1].Shutdown(ctx)
			})
		}
		time.Sleep(5 * time.Second)
		all.Go(func() { _ = cache.Shutdown(ended()) })
		time.Sleep(5 * time.Second)
		for range 2 {
			all.Go(func() { _ = gateways[0].Shutdown(ended()) })
		}
		time.Sleep(5 * time.Second)
		close(done)
		all.Wait()
		for i, gw := range gateways {
			require.NoError(w, gw.Shutdown(lasting(w.T, time.Minute)))
			require.NoError(w, servers[i].Shutdown(lasting(w.T, time.Minute)))
			var services []string
			for name := range gw.Stats().Services {
				services = append(services, name)
			}
			atRest(w, gw, services...)
			require.ErrorAs(w, gw.Update(), new(*gateway.Error))
		}
		require.NoError(w, cache.Shutdown(lasting(w.T, time.Minute)))
		assert.Zero(w, cache.Stats().Bytes)
		assert.Empty(w, w.logs.Find(w, "gateway: panic"))
	})
}

// held2 is a service's handler that was taken at the beginning.
func held2(all map[string]*gateway.Upstream, name string) http.Handler {
	if up := all[name]; up != nil {
		return up
	}
	return http.NotFoundHandler()
}
