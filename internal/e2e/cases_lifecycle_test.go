package e2e_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// lifecycleCases are section 10: exhaustion, aborts, and several gateways.
func lifecycleCases() []attackCase {
	var cases []attackCase
	for _, more := range [][]attackCase{descriptorCases(), abortCases(), updateCases(), twoGatewaysCases()} {
		cases = append(cases, more...)
	}
	return cases
}

// Row 167: a response that has begun is aborted. Nothing is added to its body:
// no error text, no last chunk.
func abortCases() []attackCase {
	half := strings.Repeat("x", 5000)
	aborted := func(what, answer string, end func(*testnet.Conn), reason gateway.Reason, opts ...gateway.ServiceOption) attackCase {
		return attackCase{167, what, func(t *testing.T) {
			seen := make(chan struct{})
			asked := false
			r := newRig(t, setup{a: opts, script: func(c *testnet.Conn) {
				if c.ReadRequest() != nil {
					c.Send(answer)
					receive(seen)
					end(c)
				}
			}, defaults: []gateway.Option{gateway.WithErrorHandler(func(http.ResponseWriter, *http.Request, *gateway.Error) { asked = true })}})
			c := testnet.Dial(t, r.addr)
			c.Send(testnet.Get("/a/x") + testnet.Get("/b/next"))
			resp := c.ReadHead("GET")
			require.Equal(t, 200, resp.Status)
			_, err := io.ReadFull(resp, make([]byte, len(half)))
			require.NoError(t, err)
			close(seen)
			restOf(resp)
			assert.NotEqual(t, testnet.Whole, resp.End, "the client can tell that it is cut")
			assert.Equal(t, half, string(resp.Body), "nothing but what the upstream sent")
			rest, _ := c.ReadRest()
			assert.Empty(t, rest, "the connection is not used again")
			assert.NotContains(t, string(c.Received()), "reason")
			assert.False(t, asked, "the error handler has nothing to say any more")
			assert.Zero(t, r.cache.Stats().Entries)
			assert.Equal(t, 1, r.a.Begun())
			r.counted(onlyFailure(reason))
		}}
	}
	stall, nonsense := (*testnet.Conn).Wait, func(c *testnet.Conn) { c.Send("zz\r\n") }
	brief := gateway.WithBodyIdleTimeout(50 * time.Millisecond)
	const length = "Content-Length: 9000"
	chunk := "1388\r\n" + half + "\r\n"
	long, open := testnet.Answer(200, length, half), testnet.Answer(200, "Transfer-Encoding: chunked", chunk)
	kept := func(answer string) string { return strings.Replace(answer, "OK\r\n", "OK\r\n"+storable, 1) }
	return []attackCase{
		aborted("of known length, closed", long, fin, gateway.ReasonTruncated),
		aborted("of known length, reset", long, rst, gateway.ReasonTruncated),
		aborted("chunked, closed", open, fin, gateway.ReasonTruncated),
		aborted("chunked, reset", open, rst, gateway.ReasonTruncated),
		aborted("chunked, a chunk that is none", open, nonsense, gateway.ReasonTruncated),
		aborted("storable, closed", kept(long), fin, gateway.ReasonTruncated),
		aborted("storable and chunked, closed", kept(open), fin, gateway.ReasonTruncated),
		aborted("storable and chunked, a chunk that is none", kept(open), nonsense, gateway.ReasonTruncated),
		aborted("to the close, reset", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+half, rst, gateway.ReasonTruncated),
		aborted("stalled", long, stall, gateway.ReasonTimeout, brief, gateway.WithHealthTimeout(50*time.Millisecond)),
		aborted("stalled, storable", kept(long), stall, gateway.ReasonTimeout, brief, gateway.WithHealthTimeout(50*time.Millisecond)),
		aborted("stalled, storable and chunked", kept(open), stall, gateway.ReasonTimeout, brief, gateway.WithHealthTimeout(50*time.Millisecond)),
		aborted("out of time", open, stall, gateway.ReasonTimeout, gateway.WithMaxDuration(100*time.Millisecond), gateway.WithHealthTimeout(50*time.Millisecond)),
		{167, "a body of the app's own that fails", func(t *testing.T) {
			hook := gateway.WithModifyResponse(func(resp *http.Response) error {
				_ = resp.Body.Close()
				resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(half), failingReader{}))
				resp.ContentLength = -1
				return nil
			})
			r := newRig(t, setup{a: []gateway.ServiceOption{hook}})
			resp := r.get("/a/x")
			assert.Equal(t, 200, resp.Status)
			assert.Equal(t, half, string(resp.Body))
			assert.Equal(t, testnet.Truncated, resp.End)
			r.counted(onlyFailure(gateway.ReasonTruncated))
		}},
		{167, "a body of the app's own that is longer than it says", func(t *testing.T) { miscounted(t, half, half+half) }},
		{167, "a body of the app's own that is shorter than it says", func(t *testing.T) { miscounted(t, half, half[1:]) }},
		{167, "an HTTP/1.0 client gets the bytes and the close", func(t *testing.T) {
			r := newRig(t, setup{script: func(c *testnet.Conn) {
				if c.ReadRequest() != nil {
					c.Send(open)
				}
			}})
			resp := r.do("GET /a/x HTTP/1.0\r\nHost: gateway.test\r\n\r\n")
			assert.Equal(t, 200, resp.Status)
			assert.Equal(t, half, string(resp.Body))
			r.counted(onlyFailure(gateway.ReasonTruncated))
		}},
	}
}

// miscounted has a hook leave body where half was. That is a failure of the
// hook's, whichever way the content goes: neither the client's nor the service's.
func miscounted(t *testing.T, half, body string) {
	t.Helper()
	for i, raw := range []string{testnet.Get("/a/x"), testnet.Build("POST", "/a/x", "")} {
		r := newRig(t, setup{second: i > 0, script: testnet.Reply(200, storable, half), a: []gateway.ServiceOption{
			gateway.WithBreaker(0.1, 1),
			gateway.WithModifyResponse(func(resp *http.Response) error {
				resp.Body = io.NopCloser(strings.NewReader(body))
				return nil
			}),
		}})
		for range 2 {
			c := testnet.Dial(t, r.addr)
			c.Send(raw)
			received, _ := c.ReadRest()
			if received != "" { // or the header was never flushed
				assert.Contains(t, received, "HTTP/1.1 200 OK\r\n")
				assert.LessOrEqual(t, len(received)-strings.Index(received, "\r\n\r\n")-4, len(half))
			}
		}
		r.recorded(2, map[gateway.Reason]uint64{gateway.ReasonHook: 2})
		assert.Equal(t, 2, r.a.Begun(), "the breaker is closed, and nothing is stored")
	}
}

// failingReader is a body that cannot be read.
type failingReader struct{}

func (failingReader) Read([]byte) (int, error) {
	return 0, errors.New("secret: the disk of host db7 is gone")
}

// Row 171: services change while they are used. Requests under way keep the old
// policy and target, nothing races, and what was removed drains.
func updateCases() []attackCase {
	return []attackCase{
		{171, "a waiting request goes to its own target", waitsForItsOwnTarget},
		{171, "what is under way survives", underWaySurvives},
		{171, "a removed service drains", removedDrains},
		{171, "a thousand updates beside clients", thousandUpdates},
	}
}

// Row 173: two gateways in one process know nothing of each other.
func twoGatewaysCases() []attackCase {
	two := func(t *testing.T) (one, other *rig) { // each with a server, services and telemetry of its own
		one = newRig(t, setup{script: versioned(testnet.Answer(200, "", "done"))})
		return one, newRig(t, setup{second: true, script: versioned(testnet.Answer(200, "", "done"))})
	}
	return []attackCase{
		{173, "caches, counts, spans and metrics are their own", func(t *testing.T) {
			one, other := two(t)
			one.stored(testnet.Get("/a/x"))
			assert.Zero(t, other.cache.Stats().Entries)
			assert.Zero(t, other.gw.Stats().Requests)
			assert.Empty(t, other.spans.GetSpans())
			assert.NotContains(t, other.metrics(), "http.server.request.duration")
			assert.Empty(t, other.logs.Text())
			assert.Zero(t, other.a.Conns())
			other.stored(testnet.Get("/a/x"))
			assert.EqualValues(t, 2, one.gw.Stats().Requests)
			assert.EqualValues(t, 2, other.gw.Stats().Requests)
		}},
		{173, "one invalidates, clears and drains for itself", func(t *testing.T) {
			one, other := two(t)
			one.stored(testnet.Get("/a/x"))
			other.stored(testnet.Get("/a/x"))
			require.Equal(t, 200, one.do(testnet.Build("POST", "/a/x", "body")).Status)
			assert.EqualValues(t, 1, other.cache.Stats().Entries)
			one.cache.Clear()
			one.gw.Drain()
			assert.False(t, other.gw.Stats().Draining)
			assert.Contains(t, other.get("/a/x").Header.Get("Cache-Status"), "; hit")
		}},
		{173, "one ends, the other goes on", func(t *testing.T) {
			one, other := two(t)
			require.Equal(t, 200, one.get("/a/x").Status)
			require.NoError(t, one.gw.Shutdown(t.Context()))
			require.NoError(t, one.cache.Shutdown(t.Context()))
			assert.Equal(t, 503, one.get("/a/x").Status)
			other.stored(testnet.Get("/a/x"))
		}},
		{173, "they may share one meter provider", twoOfOneProvider},
		{173, "and the global ones", func(t *testing.T) {
			testnet.Baseline(t)
			for range 3 {
				gw, err := gateway.New(gateway.WithService("a", "http://upstream.test"))
				require.NoError(t, err)
				cache, err := gateway.NewCache()
				require.NoError(t, err)
				require.NoError(t, errors.Join(gw.Shutdown(t.Context()), cache.Shutdown(t.Context())))
			}
		}},
	}
}

// twoOfOneProvider has two gateways, with a cache each, record to one meter
// provider: what they count adds up, and goes with its cache.
func twoOfOneProvider(t *testing.T) {
	testnet.Baseline(t)
	reader := sdkmetric.NewManualReader()
	mp := gateway.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	up := testnet.Upstream(t, testnet.Reply(200, "Cache-Control: public, max-age=60", "ok"))
	var caches []*gateway.Cache
	for range 2 {
		cache, err := gateway.NewCache(mp)
		require.NoError(t, err)
		caches = append(caches, cache)
		gw, err := gateway.New(mp, gateway.WithCache(cache), gateway.WithService("a", up.URL))
		require.NoError(t, err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/a/x", nil)
		require.NoError(t, err)
		gw.ServeHTTP(&recorder{header: http.Header{}}, req)
		require.NoError(t, gw.Shutdown(t.Context()))
	}
	entries, requests := recordedBy(t, reader)
	assert.EqualValues(t, 2, entries)
	assert.EqualValues(t, 2, requests)
	for left := 1; left >= 0; left-- {
		require.NoError(t, caches[left].Shutdown(t.Context()))
		entries, requests = recordedBy(t, reader)
		assert.EqualValues(t, left, entries)
		assert.EqualValues(t, 2, requests)
	}
}

// recordedBy returns the gauge of entries and the count of requests.
func recordedBy(t *testing.T, reader sdkmetric.Reader) (entries int64, requests uint64) {
	t.Helper()
	var rm metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &rm))
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				if m.Name == "gateway.cache.entries" {
					for _, p := range d.DataPoints {
						entries += p.Value
					}
				}
			case metricdata.Histogram[float64]:
				if m.Name == "http.server.request.duration" {
					for _, p := range d.DataPoints {
						requests += p.Count
					}
				}
			}
		}
	}
	return entries, requests
}
