package e2e_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// A hit allocates one slice for its header's values, and nothing else, also where
// somebody looks for slow ones.
func TestHitAllocates(t *testing.T) {
	t.Run("alone", func(t *testing.T) { hitAllocates(t, gateway.WithoutSlowRequest()) })
	t.Run("looked at", func(t *testing.T) { hitAllocates(t, gateway.WithSlowRequest(0, nil)) })
}

func hitAllocates(t *testing.T, opt gateway.Option) {
	const most = 1
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	gw, err := gateway.New(
		opt, gateway.WithCache(cache), gateway.WithTracerProvider(tracenoop.NewTracerProvider()), gateway.WithMeterProvider(metricnoop.NewMeterProvider()),
		gateway.WithService("a", "http://a.test", gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
			return &http.Response{
				StatusCode: 200, Header: http.Header{"Cache-Control": {"max-age=600"}, "Content-Type": {"text/plain"}}, ContentLength: 2,
				Body: io.NopCloser(strings.NewReader("ok")), Request: r,
			}, nil
		}))),
	)
	require.NoError(t, err)
	defer func() { require.NoError(t, gw.Shutdown(t.Context())) }()
	r := httptest.NewRequest(http.MethodGet, "/a/x?y=1", http.NoBody)
	r.Header.Set("Accept", "*/*")
	r.Header.Set("User-Agent", "test")
	w := &recorder{header: http.Header{}}
	serve := func() {
		clear(w.header)
		w.body.Reset()
		gw.ServeHTTP(w, r)
	}
	serve()
	w.body.Reset()
	allocs := testing.AllocsPerRun(200, serve)
	assert.Equal(t, "gateway; hit", w.header.Get("Cache-Status")[:len("gateway; hit")])
	if !testnet.RaceEnabled { // the detector allocates, and empties pools
		assert.LessOrEqual(t, allocs, float64(most+1), "and one for the recorder's body")
	}
}
