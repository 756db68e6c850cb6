package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// meddler is whatever of the app's the gateway calls, all of which call it back.
type meddler struct {
	propagation.TraceContext
	slog.Handler
	meddle func(from string)
}

func (m *meddler) Inject(ctx context.Context, carrier propagation.TextMapCarrier) {
	m.meddle("a propagator")
	m.TraceContext.Inject(ctx, carrier)
}

func (m *meddler) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "gateway: update" && r.Message != "gateway: replicas" { // which change what is being changed
		m.meddle("the line " + r.Message)
	}
	return nil
}

func (m *meddler) WithAttrs([]slog.Attr) slog.Handler              { return m }
func (m *meddler) WithGroup(string) slog.Handler                   { return m }
func (m *meddler) Enabled(context.Context, slog.Level) bool        { return true }
func (m *meddler) OnStart(context.Context, sdktrace.ReadWriteSpan) { m.meddle("the start of a span") }
func (m *meddler) OnEnd(sdktrace.ReadOnlySpan)                     { m.meddle("the end of a span") }
func (m *meddler) Shutdown(context.Context) error                  { return nil }
func (m *meddler) ForceFlush(context.Context) error                { return nil }

// What the app is told by, or asked through, may use the gateway in any way, short of
// waiting for what waits for it.
func TestCallbacksMayCallTheGateway(t *testing.T) {
	testnet.Baseline(t)
	var fails atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case fails.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case rand.IntN(2) == 0:
			w.Header().Set("Cache-Control", "max-age=0, stale-while-revalidate=60")
		}
	}))
	defer srv.Close()
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	var gw *gateway.Gateway
	var told sync.Map
	var turn atomic.Int64
	var inside atomic.Int32
	var list func(turn int64) []gateway.Option
	m := new(meddler)
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(m))
	m.meddle = func(from string) {
		if gw == nil || inside.Add(1) > 4 { // they call each other
			inside.Add(-1)
			return
		}
		defer inside.Add(-1)
		told.Store(from, true)
		up := gw.Upstream("a")
		switch turn := turn.Add(1); turn % 49 {
		case 0:
			_ = gw.Update(list(turn)...)
		case 1:
			_ = up.SetReplicas(gateway.Replica{URL: srv.URL, Weight: 1 + int(turn%5)})
		case 2:
			_ = gw.Stats().String() + up.Stats().String()
		case 3:
			cache.Purge("a", "/x")
			cache.ExpirePrefix("a", "/")
		case 4:
			cache.PurgeTag("t")
			_ = cache.Stats()
		case 5:
			_ = gw.Explain(httptest.NewRequest("GET", "/a/x", nil)).String()
		case 6:
			gw.ResetStats()
			_ = gw.StatsOver(gateway.LastMinute)
		case 7:
			_ = handle(t, gw.MetricsHandler(), testnet.Get("/metrics"), nil)
		case 8:
			_ = handle(t, gw.HealthHandler(), testnet.Get("/health?verbose"), nil)
		case 9:
			gw.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/a/x", nil))
		case 10:
			_ = gw.Warm(t.Context(), "http://a.test/a/warm")
		case 11:
			cache.Clear()
		}
	}
	list = func(turn int64) []gateway.Option {
		return []gateway.Option{
			gateway.WithCache(cache), gateway.WithLogger(slog.New(m)), gateway.WithPropagator(m), gateway.WithLogLimit(0),
			gateway.WithTracerProvider(tp),
			gateway.WithErrorHandler(func(w http.ResponseWriter, _ *http.Request, err *gateway.Error) {
				m.meddle("an error handler")
				w.WriteHeader(err.Status)
			}),
			gateway.WithMemoryWatch(10*time.Millisecond, nil),
			gateway.WithService("a", srv.URL,
				gateway.WithRewrite(func(*http.Request) { m.meddle("WithRewrite") }),
				gateway.WithModifyResponse(func(*http.Response) error { m.meddle("WithModifyResponse"); return nil }),
				gateway.WithTokenSource(func(context.Context) (string, error) { m.meddle("WithTokenSource"); return "t0ken", nil }),
				gateway.WithCachePartition(func(*http.Request) string { m.meddle("WithCachePartition"); return "" }),
				gateway.WithDialContext(func(ctx context.Context, network, addr string) (net.Conn, error) {
					m.meddle("WithDialContext")
					return new(net.Dialer).DialContext(ctx, network, addr)
				}),
				gateway.WithoutRetries(), gateway.WithBreaker(0.1, 3), gateway.WithBreakerTimes(time.Second, time.Millisecond, 1),
				gateway.WithBreakerHook(func(string, gateway.BreakerState, gateway.BreakerState) { m.meddle("WithBreakerHook") }),
				gateway.WithSlowRequest(10*time.Millisecond, func(gateway.SlowRequest) { m.meddle("WithSlowRequest") }),
				gateway.WithMaxConns(100+int(turn%3)), gateway.WithEjection(2, time.Millisecond, time.Millisecond), gateway.WithEjectionShare(1),
				gateway.WithHealthChecks(10*time.Millisecond, 1, 1), gateway.WithMaxConcurrency(50, 1000, 0),
			),
			gateway.WithService(fmt.Sprint("guest", turn%2), srv.URL),
		}
	}
	made, err := gateway.New(list(0)...)
	require.NoError(t, err)
	gw = made
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for i := range 60 {
				fails.Store(i/10%3 == 0)
				gw.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", fmt.Sprint("/a/", i%5), nil))
			}
		})
	}
	clients.Wait()
	for _, from := range []string{
		"a propagator", "an error handler", "the start of a span", "the end of a span", "WithRewrite", "WithModifyResponse", "WithTokenSource", "WithCachePartition",
		"WithDialContext", "WithBreakerHook", "the line gateway: request", "the line gateway: breaker", "the line gateway: ejection",
	} {
		_, ok := told.Load(from)
		assert.True(t, ok, from)
	}
	gw.Drain()
	require.NoError(t, gw.Shutdown(lasting(t, 10*time.Second)))
	require.NoError(t, cache.Shutdown(lasting(t, 10*time.Second)))
	atRest(t, gw, "a")
}
