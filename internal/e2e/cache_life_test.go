package e2e_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

func TestServicesGoOnWithoutAnEndedCache(t *testing.T) {
	r := newRig(t, setup{script: testnet.Reply(200, storable, "ok")})
	r.stored(testnet.Get("/a/x"))
	for range 2 {
		require.NoError(t, r.cache.Shutdown(t.Context()))
		assert.Zero(t, r.cache.Stats().Entries)
		assert.Zero(t, r.cache.Stats().Bytes)
		resp := r.get("/a/x")
		assert.Equal(t, 200, resp.Status)
		assert.Empty(t, resp.Header["Cache-Status"])
		assert.Empty(t, resp.Header["Age"])
		assert.Equal(t, 200, r.do(testnet.Build("POST", "/a/x", "body")).Status)
	}
	assert.Len(t, r.a.Await(5), 5)
	r.counted(noFailure)
}

func TestCacheShutdownWaitsForFills(t *testing.T) {
	for _, body := range bodies {
		t.Run(body.name, func(t *testing.T) {
			rest := make(chan struct{})
			r := newRig(t, setup{script: inTwo(body.header, body.piece, body.last, rest)})
			c := testnet.Dial(t, r.addr)
			c.Send(testnet.Get("/a/x"))
			resp := c.ReadHead("GET")
			require.Equal(t, 200, resp.Status)
			done := make(chan error)
			go func() { done <- r.cache.Shutdown(context.Background()) }()
			testnet.Settle(t, "it takes nothing new", func() bool { return r.get("/b/x").Header["Cache-Status"] == nil })
			select {
			case err := <-done:
				assert.Fail(t, "it did not wait", "%v", err)
			default:
			}
			close(rest)
			assert.Equal(t, testnet.Whole, restOf(resp).End)
			require.NoError(t, <-done)
			assert.Zero(t, r.cache.Stats().Entries)
			assert.Zero(t, r.cache.Stats().Bytes)
		})
	}
}

func TestCacheShutdownReturnsWithItsContext(t *testing.T) {
	for _, body := range bodies {
		t.Run(body.name, func(t *testing.T) {
			rest := make(chan struct{})
			r := newRig(t, setup{script: inTwo(body.header, body.piece, body.last, rest)})
			c := testnet.Dial(t, r.addr)
			c.Send(testnet.Get("/a/x"))
			resp := c.ReadHead("GET")
			require.Equal(t, 200, resp.Status)
			impatient := errors.New("no time")
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(impatient)
			require.ErrorIs(t, r.cache.Shutdown(ctx), impatient)
			close(rest)
			assert.Equal(t, testnet.Whole, restOf(resp).End, "its client gets it all the same")
			require.NoError(t, r.cache.Shutdown(t.Context()), "now it has ended")
			assert.Zero(t, r.cache.Stats().Entries, "and was not stored any more")
			assert.Zero(t, r.cache.Stats().Bytes)
		})
	}
}

func TestGatewaysMayShareACache(t *testing.T) {
	testnet.Baseline(t)
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	one, other := testnet.Upstream(t, testnet.Reply(200, storable, "one")), testnet.Upstream(t, testnet.Reply(200, storable, "other"))
	ask := func(name, target, status, body string) {
		t.Helper()
		gw, err := gateway.New(gateway.WithCache(cache), gateway.WithService(name, target))
		require.NoError(t, err)
		w := handle(t, gw, testnet.Get("/"+name+"/x"), nil)
		assert.Equal(t, status, w.header.Get("Cache-Status"))
		assert.Equal(t, body, w.body.String())
		require.NoError(t, gw.Shutdown(t.Context()))
	}
	const miss, hit = "gateway; fwd=uri-miss; stored", "gateway; hit; ttl=60"
	ask("a", one.URL, miss, "one")
	ask("a", one.URL, hit, "one")
	ask("a", other.URL, miss, "other")
	ask("a", one.URL+"/base", miss, "one")
	ask("b", one.URL, miss, "one")
	ask("a", other.URL, hit, "other")
	assert.EqualValues(t, 4, cache.Stats().Entries)
	assert.EqualValues(t, 2, cache.Stats().Hits)
	require.NoError(t, cache.Shutdown(t.Context()))
}

func TestEachCacheIsShownOnce(t *testing.T) {
	r := newRig(t, setup{})
	require.Len(t, r.gw.Stats().Caches, 1, "two services share it")
	r.get("/a/x")
	assert.Equal(t, r.cache.Stats(), r.gw.Stats().Caches[0])
}

// unregistered is a meter provider whose meters take no callbacks.
type unregistered struct{ noop.MeterProvider }

type unregisteredMeter struct{ noop.Meter }

func (unregistered) Meter(string, ...metric.MeterOption) metric.Meter { return unregisteredMeter{} }

func (unregisteredMeter) RegisterCallback(metric.Callback, ...metric.Observable) (metric.Registration, error) {
	return nil, errors.New("no callbacks")
}

// What New, or NewUpstream, could not finish uses no cache: with the last of those
// that do goes what is stored by a share.
func TestWhatWasNotMadeUsesNoCache(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Cache-Control", "max-age=60") }))
	defer srv.Close()
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	_, err = gateway.New(gateway.WithMeterProvider(unregistered{}), gateway.WithService("a", srv.URL, gateway.WithCache(cache), gateway.WithCacheShare(0.5)))
	require.ErrorContains(t, err, "no callbacks")
	_, err = gateway.NewUpstream("a", srv.URL, gateway.WithMeterProvider(unregistered{}), gateway.WithCache(cache), gateway.WithCacheShare(0.5))
	require.ErrorContains(t, err, "no callbacks")
	gw, err := gateway.New(gateway.WithService("a", srv.URL, gateway.WithCache(cache), gateway.WithCacheShare(0.5)))
	require.NoError(t, err)
	require.Equal(t, 200, handle(t, gw, testnet.Get("/a/x"), nil).status)
	require.EqualValues(t, 1, cache.Stats().Entries)
	require.NoError(t, gw.Update())
	assert.Zero(t, cache.Stats().Entries)
	require.NoError(t, gw.Shutdown(t.Context()))
	require.NoError(t, cache.Shutdown(t.Context()))
}
