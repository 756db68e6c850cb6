package e2e_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// What was warmed is a hit for the client that comes, below the app's own prefix,
// and each URL is told of.
func TestWarm(t *testing.T) {
	testnet.Baseline(t)
	up, served := server(t, "", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/private":
			w.Header().Set("Cache-Control", "private")
		case "/broken":
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("Cache-Control", "max-age=60")
		}
		_, _ = io.WriteString(w, r.URL.RequestURI())
	})
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	gw, err := gateway.New(gateway.WithCache(cache), gateway.WithService("a", up.URL, gateway.WithoutRetries()))
	require.NoError(t, err)
	app := httptest.NewServer(http.StripPrefix("/api", gw))
	t.Cleanup(func() {
		app.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		assert.NoError(t, gw.Shutdown(ctx))
		assert.NoError(t, cache.Shutdown(ctx))
	})
	urls := []string{
		app.URL + "/api/a/x?y=1", app.URL + "/api/a/x?y=1", app.URL + "/api/a/private", app.URL + "/api/a/broken",
		app.URL + "/api/b/x", app.URL + "/api/a/%2e%2e/x", "/api/a/x", "ftp://app.test/a/x", "http://%zz",
	}
	all := gw.Warm(context.Background(), urls...)
	require.Len(t, all, len(urls))
	for i, want := range []struct {
		status int
		stored bool
		failed bool
	}{
		{200, true, false}, {200, true, false}, {200, false, false}, {502, false, true},
		{404, false, true}, {400, false, true}, {0, false, true}, {0, false, true}, {0, false, true},
	} {
		got := all[i]
		assert.Equal(t, urls[i], got.URL)
		assert.Equal(t, want.status, got.Status, got.URL)
		assert.Equal(t, want.failed, got.Err != nil, "%s: %v", got.URL, got.Err)
		if i > 1 || got.Status == 0 { // of two for one URL, one may have waited for the other
			assert.Equal(t, want.stored, got.Stored, got.URL)
		}
	}
	assert.True(t, all[0].Stored || all[1].Stored)
	assert.EqualValues(t, 3, served.Load(), "once for each that there is")
	resp, err := http.Get(urls[0])
	require.NoError(t, err)
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	assert.Equal(t, "/x?y=1", string(body))
	assert.Contains(t, resp.Header.Get("Cache-Status"), "; hit")

	ended, cancel := context.WithCancel(context.Background())
	cancel()
	assert.ErrorIs(t, gw.Warm(ended, urls[0])[0].Err, context.Canceled)
	assert.Empty(t, gw.Warm(ended))
}
