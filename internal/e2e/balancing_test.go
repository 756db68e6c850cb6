package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// fleet is an upstream with replicas that answer with their number.
type fleet struct {
	*gateway.Upstream
	replicas []gateway.Replica
	fails    []atomic.Bool
}

func newFleet(t *testing.T, n int, opts ...gateway.UpstreamOption) *fleet {
	f := &fleet{fails: make([]atomic.Bool, n)}
	for i := range n {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if f.fails[i].Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
			_, _ = fmt.Fprint(w, i)
		}))
		t.Cleanup(srv.Close)
		f.replicas = append(f.replicas, gateway.Replica{URL: srv.URL})
	}
	up, err := gateway.NewUpstream("a", f.replicas[0].URL, append(opts, gateway.WithReplicas(f.replicas[1:]...))...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, up.Shutdown(context.WithoutCancel(t.Context()))) })
	f.Upstream = up
	return f
}

// places returns which replica answers each of so many values.
func (f *fleet) places(t *testing.T, values int, request func(v int) string) (at []string) {
	t.Helper()
	for v := range values {
		w := handle(t, f, request(v), nil)
		require.Equal(t, 200, w.status, w.body.String())
		at = append(at, w.body.String())
	}
	return at
}

// Equal values go to one replica. When one leaves only its share moves, to all of
// the others, and it comes back when it does.
func TestHashingMovesOneShareOnly(t *testing.T) {
	const replicas, values = 5, 400
	for name, tt := range map[string]struct {
		by      gateway.Balancing
		request func(v int) string
	}{
		"header": {gateway.HashHeader("X-Tenant"), func(v int) string { return testnet.Get("/", fmt.Sprint("X-Tenant: t", v)) }},
		"cookie": {gateway.HashCookie("session"), func(v int) string { return testnet.Get("/", fmt.Sprint("Cookie: a=b; session=s", v)) }},
		"path":   {gateway.HashPath(), func(v int) string { return testnet.Get(fmt.Sprint("/item/", v)) }},
		"client": {gateway.HashClient(), func(v int) string {
			return testnet.Get("/", fmt.Sprintf("X-Forwarded-For: 198.51.%d.%d", v/250, v%250))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, replicas, gateway.WithBalancing(tt.by), gateway.WithTrustedProxies("192.0.2.0/24"),
				gateway.WithEjection(1, time.Hour, time.Hour), gateway.WithEjectionShare(1), gateway.WithoutBreaker(), gateway.WithoutRetries())
			before := f.places(t, values, tt.request)
			assert.Equal(t, before, f.places(t, values, tt.request), "the same each time")
			share := map[string]int{}
			for _, at := range before {
				share[at]++
			}
			for at, n := range share {
				assert.InDelta(t, values/replicas, n, values/replicas/2, "replica %s", at)
			}
			moved := func(after []string) {
				t.Helper()
				to := map[string]bool{}
				for v, at := range after {
					if before[v] == "2" {
						to[at] = true
						continue
					}
					assert.Equal(t, before[v], at, "value %d is at home", v)
				}
				assert.Len(t, to, replicas-1, "the others share what was its")
				assert.NotContains(t, to, "2")
			}
			require.NoError(t, f.SetReplicas(append(f.replicas[:2:2], f.replicas[3:]...)...))
			moved(f.places(t, values, tt.request))
			require.NoError(t, f.SetReplicas(f.replicas...))
			assert.Equal(t, before, f.places(t, values, tt.request), "all are at home again")

			f.fails[2].Store(true)
			for v, at := range before {
				if at == "2" {
					assert.Equal(t, 500, handle(t, f, tt.request(v), nil).status)
					break
				}
			}
			moved(f.places(t, values, tt.request))
		})
	}
}

// A replica of three times the weight is home to three times as many.
func TestHashingFollowsWeights(t *testing.T) {
	f := newFleet(t, 2, gateway.WithBalancing(gateway.HashPath()))
	f.replicas[1].Weight = 3
	require.NoError(t, f.SetReplicas(f.replicas...))
	heavy := 0
	for _, at := range f.places(t, 800, func(v int) string { return testnet.Get(fmt.Sprint("/", v)) }) {
		if at == "1" {
			heavy++
		}
	}
	assert.InDelta(t, 600, heavy, 60)
}

// cluster is an upstream in a bubble, with a replica at each of some hosts.
func cluster(t *testing.T, hosts []string, answer func(host string) string, opts ...gateway.UpstreamOption) *gateway.Upstream {
	wires := map[string]*testnet.PipeListener{}
	for _, host := range hosts {
		wires[host+":80"] = testnet.NewPipeListener()
		testnet.UpstreamOn(t, wires[host+":80"], testnet.Respond(func(*testnet.Request) string { return answer(host) }))
	}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if wire := wires[addr]; wire != nil {
			return wire.DialContext(ctx, network, addr)
		}
		return nil, io.ErrUnexpectedEOF
	}
	up, err := gateway.NewUpstream("a", "http://"+hosts[0], append(opts, gateway.WithDialContext(dial), gateway.WithoutBreaker(), gateway.WithoutRetries(),
		gateway.WithLogger(testnet.NewLogRecorder().Logger()))...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, up.Shutdown(context.WithoutCancel(t.Context()))) })
	return up
}

// shareOf is which part of a second's requests a host answers.
func shareOf(t *testing.T, up *gateway.Upstream, host string) float64 {
	const n = 500
	hits := 0
	for range n {
		if handle(t, up, testnet.Get("/"), nil).body.String() == host {
			hits++
		}
		time.Sleep(time.Second / n)
	}
	return float64(hits) / n
}

// What joins others, or comes back to them, gets its share little by little.
func TestSlowStart(t *testing.T) {
	for name, by := range map[string]gateway.Balancing{"power of two": gateway.PowerOfTwo(), "round robin": gateway.RoundRobin()} {
		for _, how := range []string{"joins", "was ejected", "was unhealthy"} {
			t.Run(name+", one that "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var ill atomic.Bool
					opts := []gateway.UpstreamOption{gateway.WithBalancing(by), gateway.WithSlowStart(20 * time.Second)}
					switch how {
					case "was ejected":
						opts = append(opts, gateway.WithEjection(1, time.Second, time.Second))
					case "was unhealthy":
						opts = append(opts, gateway.WithoutEjection(), gateway.WithHealthChecks(time.Second, 1, 1))
					}
					up := cluster(t, []string{"old.test", "new.test"}, func(host string) string {
						if host == "new.test" && ill.Load() {
							return testnet.Answer(500, "", "")
						}
						return testnet.Answer(200, "", host)
					}, opts...)
					both := []gateway.Replica{{URL: "http://old.test"}, {URL: "http://new.test"}}
					if how == "joins" {
						require.Equal(t, 0.0, shareOf(t, up, "new.test"))
						require.NoError(t, up.SetReplicas(both...))
					} else {
						require.NoError(t, up.SetReplicas(both...))
						time.Sleep(30 * time.Second)
						ill.Store(true)
						shareOf(t, up, "new.test")
						require.NotEqual(t, "healthy", up.Stats().Replicas[1].Health)
						ill.Store(false)
						for up.Stats().Replicas[1].Health != "healthy" {
							handle(t, up, testnet.Get("/"), nil)
							time.Sleep(100 * time.Millisecond)
						}
					}
					begin := time.Now()
					first := shareOf(t, up, "new.test")
					assert.InDelta(t, 0.14, first, 0.1, "a tenth of its weight and a bit, of two draws")
					time.Sleep(8 * time.Second)
					middle := shareOf(t, up, "new.test")
					assert.InDelta(t, 0.35, middle, 0.1)
					time.Sleep(25 * time.Second)
					assert.Less(t, first, middle)
					assert.InDelta(t, 0.5, shareOf(t, up, "new.test"), 0.1, "%v later it has all of it", time.Since(begin))
					assert.Equal(t, 1.0, up.Stats().Replicas[1].Weight)
				})
			})
		}
	}
}
