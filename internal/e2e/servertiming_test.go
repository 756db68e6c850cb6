package e2e_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// timing reads one line of Server-Timing that is ours: times by name, and what
// the cache did.
func timing(t *testing.T, line string) (times map[string]time.Duration, cache string) {
	t.Helper()
	times = map[string]time.Duration{}
	for metric := range strings.SplitSeq(line, ", ") {
		name, param, _ := strings.Cut(metric, ";")
		key, value, _ := strings.Cut(param, "=")
		if key == "desc" {
			require.Equal(t, "cache", name)
			cache = value
			continue
		}
		require.Equal(t, "dur", key, line)
		ms, err := strconv.ParseFloat(value, 64)
		require.NoError(t, err, line)
		times[name] = time.Duration(ms * float64(time.Millisecond))
	}
	return times, cache
}

// The time up to a response's header is told by whose it was, in what is
// forwarded, stored, and answered by ourselves, and nothing of it is stored.
func TestServerTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const own, theirs = 300 * time.Millisecond, 2 * time.Second
		script := func(c *testnet.Conn) {
			for {
				r := c.ReadRequest()
				if r == nil || !c.Pause(theirs) || !c.Send(testnet.Answer(200, "Server-Timing: db;dur=5\r\nCache-Control: max-age=60\r\nETag: \"e\"", "ok")) {
					return
				}
			}
		}
		slow := gateway.WithRewrite(func(*http.Request) { time.Sleep(own) })
		wire := testnet.NewPipeListener()
		up := testnet.UpstreamOn(t, wire, script)
		cache, err := gateway.NewCache()
		require.NoError(t, err)
		o := newObserved(t)
		gw := o.gateway(gateway.WithServerTiming(), gateway.WithDialContext(wire.DialContext), gateway.WithoutRetries(),
			gateway.WithService("a", up.URL, gateway.WithCache(cache), slow),
			gateway.WithService("pass", up.URL, slow),
			gateway.WithService("late", up.URL, gateway.WithTimeout(time.Second)),
			gateway.WithService("off", up.URL, gateway.WithCache(cache), gateway.WithoutServerTiming()),
		)
		for _, tt := range []struct {
			what, request string
			status        int
			service       bool // its own line comes first
			times         map[string]time.Duration
			cache         string
		}{
			{"forwarded", testnet.Get("/pass/x"), 200, true, map[string]time.Duration{"gateway": own, "upstream": theirs}, ""},
			{"a miss", testnet.Get("/a/x"), 200, true, map[string]time.Duration{"gateway": own, "upstream": theirs}, "uri-miss"},
			{"a hit", testnet.Get("/a/x"), 200, false, map[string]time.Duration{"gateway": 0}, "hit"},
			{"a part of it", testnet.Get("/a/x", "Range: bytes=0-0"), 206, false, map[string]time.Duration{"gateway": 0}, "hit"},
			{"what the client has", testnet.Get("/a/x", `If-None-Match: "e"`), 304, false, map[string]time.Duration{"gateway": 0}, "hit"},
			{"validated", testnet.Get("/a/x", "Cache-Control: no-cache"), 200, true, map[string]time.Duration{"gateway": own, "upstream": theirs}, "request"},
			{"an error of ours", testnet.Get("/late/x"), 504, false, map[string]time.Duration{"gateway": 0, "upstream": time.Second}, ""},
			{"a refusal", testnet.Build("BREW", "/pass/x", ""), 501, false, map[string]time.Duration{"gateway": 0}, ""},
		} {
			w := handle(t, gw, tt.request, nil)
			assert.Equal(t, tt.status, w.status, tt.what)
			lines := w.header["Server-Timing"]
			if tt.service {
				require.Equal(t, "db;dur=5", lines[0], tt.what)
				lines = lines[1:]
			}
			require.Len(t, lines, 1, tt.what)
			times, cached := timing(t, lines[0])
			assert.Equal(t, tt.cache, cached, tt.what)
			assert.Len(t, times, len(tt.times), "%s: %s", tt.what, lines[0])
			for name, want := range tt.times {
				assert.InDelta(t, want, times[name], float64(20*blink), "%s: %s of %s", tt.what, name, lines[0])
			}
		}
		for _, what := range []string{"a miss", "a hit"} {
			assert.Equal(t, []string{"db;dur=5"}, handle(t, gw, testnet.Get("/off/x"), nil).header["Server-Timing"], "%s without the option", what)
		}
		require.NoError(t, cache.Shutdown(t.Context()))
	})
}

// Who follows another request waits for it, which is no part of the gateway's
// own.
func TestServerTimingOfFollowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, func(c *testnet.Conn) {
			for c.ReadRequest() != nil && c.Pause(2*time.Second) && c.Send(testnet.Answer(200, "Cache-Control: max-age=60\r\nServer-Timing: db;dur=5", "ok")) {
			}
		}, gateway.WithServerTiming())
		got := make([][]string, 2)
		for i := range got {
			go func() { got[i] = b.dial().Do(testnet.Get("/a/x")).Header["Server-Timing"] }()
			synctest.Wait()
			time.Sleep(500 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, b.up.Begun())
		for i, want := range []time.Duration{2 * time.Second, 1500 * time.Millisecond} {
			require.Len(t, got[i], 2)
			assert.Equal(t, "db;dur=5", got[i][0], "it has just come")
			times, _ := timing(t, got[i][1])
			assert.InDelta(t, want, times["upstream"], float64(20*blink))
			assert.InDelta(t, 0, times["gateway"], float64(20*blink))
		}
	})
}
