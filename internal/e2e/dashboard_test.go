package e2e_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// board is what an event of the dashboard tells.
type board struct {
	Draining bool
	Services []struct {
		Name     string
		Breaker  string
		Cached   bool
		Replicas []struct{ Address, Health string }
		History  [][9]int64
	}
	Caches  []struct{ Entries, Bytes int64 }
	Slowest []struct {
		Service, Method, Path string
		Status, Us            int64
	}
	Changes []struct{ Service, What, Detail string }
}

// boardOf reads one event.
func boardOf(t *testing.T, text string) (got board) {
	t.Helper()
	for line := range strings.Lines(text) {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			require.NoError(t, json.Unmarshal([]byte(data), &got))
			return got
		}
	}
	require.Fail(t, "no event", text)
	return got
}

// watchBoard returns the first event.
func watchBoard(t *testing.T, h http.Handler) (text string) {
	t.Helper()
	srv := httptest.NewServer(h)
	defer srv.Close()
	defer srv.CloseClientConnections()
	resp, err := srv.Client().Get(srv.URL + "/events")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
	lines := bufio.NewReader(resp.Body)
	for !strings.HasSuffix(text, "\n\n") {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		text += line
	}
	return text
}

func TestDashboardTellsWhatIsGoingOn(t *testing.T) {
	const canary = "canary"
	r := newRig(t, setup{
		script: testnet.Respond(func(req *testnet.Request) string {
			switch req.Target {
			case "/down":
				return testnet.Answer(500, "Set-Cookie: "+canary, canary)
			default:
				return testnet.Answer(200, storable, "ok")
			}
		}),
		a: []gateway.ServiceOption{gateway.WithBreaker(0.5, 3), gateway.WithoutRetries()},
	})
	dashboard := r.gw.DashboardHandler()
	for range 2 {
		r.get("/a/x?token="+canary, "X-Key: "+canary)
	}
	for range 4 {
		r.get("/a/down", "Authorization: Bearer "+canary, "Cookie: c="+canary)
	}
	text := watchBoard(t, dashboard)
	assert.NotContains(t, text, canary)
	assert.NotContains(t, text, tokenA)
	got := boardOf(t, text)
	require.Len(t, got.Services, 2)
	a := got.Services[0]
	assert.Equal(t, "a", a.Name)
	assert.Equal(t, "open", a.Breaker)
	assert.True(t, a.Cached)
	assert.Equal(t, "healthy", a.Replicas[0].Health)
	var sum [9]int64
	for _, slot := range a.History {
		for i, n := range slot {
			sum[i] += n
		}
	}
	assert.Equal(t, []int64{6, 4, 1, 5}, sum[2:6], "requests, failures, hits, misses")
	assert.EqualValues(t, 1, got.Caches[0].Entries)
	require.Len(t, got.Slowest, 6)
	paths := map[string]int{}
	for i, s := range got.Slowest {
		paths[s.Method+" "+s.Path+" "+s.Service]++
		assert.True(t, i == 0 || s.Us <= got.Slowest[i-1].Us)
	}
	assert.Equal(t, map[string]int{"GET /a/x a": 2, "GET /a/down a": 4}, paths)
	assert.Equal(t, "breaker open", got.Changes[0].What)

	for method, status := range map[string]int{"POST": 405, "HEAD": 200, "GET": 200} {
		assert.Equal(t, status, handle(t, dashboard, testnet.Build(method, "/", ""), nil).status, method)
	}
	require.NoError(t, r.gw.Shutdown(t.Context()))
	assert.Equal(t, 503, handle(t, dashboard, testnet.Get("/"), nil).status)
}

// A page that is open neither holds up Shutdown nor outlives it, and what lasts by
// its nature is not among the slowest.
func TestDashboardEndsWithTheGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Respond(func(*testnet.Request) string {
			return testnet.Answer(200, "Content-Type: text/event-stream", "data: x\n\n")
		}))
		dashboard := b.gw.DashboardHandler()
		b.get("/a/events")
		w := &pageWriter{ResponseRecorder: httptest.NewRecorder()}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			dashboard.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/events", nil))
		}()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		assert.Equal(t, 3, strings.Count(w.Body.String(), "\n\n"))
		assert.Empty(t, boardOf(t, w.Body.String()).Slowest)
		b.gw.Drain()
		<-ended
		time.Sleep(5 * time.Second)
		w = &pageWriter{ResponseRecorder: httptest.NewRecorder()}
		dashboard.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/events", nil)) // and ends
		got := boardOf(t, w.Body.String())
		assert.True(t, got.Draining)
		assert.Equal(t, "drain", got.Changes[0].What)
		start := time.Now()
		require.NoError(t, b.gw.Shutdown(t.Context()))
		assert.Zero(t, time.Since(start))
	})
}

// A page begins with ten minutes, and is told the newest half a minute then.
func TestDashboardTellsHistoriesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Respond(func(*testnet.Request) string { return testnet.Answer(200, "", "x") }))
		dashboard := b.gw.DashboardHandler()
		time.Sleep(time.Hour)
		b.get("/a/")
		w := &pageWriter{ResponseRecorder: httptest.NewRecorder()}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			dashboard.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/events", nil))
		}()
		time.Sleep(3 * time.Second)
		b.gw.Drain()
		<-ended
		whole, news, _ := strings.Cut(w.Body.String(), "\n\n")
		for text, slots := range map[string]int{whole: 61, news: 3} {
			history := boardOf(t, text).Services[0].History
			assert.Len(t, history, slots)
			assert.EqualValues(t, 1, history[slots-1][2], "requests of the newest")
		}
	})
}

// pageWriter takes write deadlines, as a server's does.
type pageWriter struct{ *httptest.ResponseRecorder }

func (*pageWriter) SetWriteDeadline(time.Time) error { return nil }
