package e2e_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// fragile is a propagator, and a sampler, that panics over what is sent.
type fragile struct{ propagation.TraceContext }

func (fragile) Inject(context.Context, propagation.TextMapCarrier) { panic("it panics") }

func (fragile) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if p.Kind == trace.SpanKindClient {
		panic("it panics")
	}
	return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
}

func (fragile) Description() string { return "fragile" }

// failing2nd is a propagator that panics over every second request that is sent.
type failing2nd struct {
	propagation.TraceContext
	sent int
}

func (f *failing2nd) Inject(context.Context, propagation.TextMapCarrier) {
	if f.sent++; f.sent%2 == 0 {
		panic("it panics")
	}
}

// brittle is a connection that panics when it is written to.
type brittle struct{ net.Conn }

func (brittle) Write([]byte) (int, error) { panic("it panics") }

// Whatever of the app's panics under a request, nothing is under way any more once
// that has ended, and each span that was started has.
func TestNothingIsLeftOfARequestThatPanics(t *testing.T) {
	testnet.Baseline(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) }))
	defer srv.Close()
	tries := 0
	for name, opts := range map[string][]gateway.Option{
		"the round tripper": {gateway.WithTransport(roundTripper(func(*http.Request) (*http.Response, error) { panic("it panics") }))},
		"the round tripper, at the second attempt": {gateway.WithTransport(roundTripper(func(*http.Request) (*http.Response, error) {
			if tries++; tries%2 == 0 {
				panic("it panics")
			}
			return nil, errors.New("once more")
		}))},
		"the round tripper, of a hedge": {
			gateway.WithHedge(time.Millisecond),
			gateway.WithTransport(roundTripper(func(*http.Request) (*http.Response, error) { panic("it panics") })),
		},
		"the dial function": {gateway.WithDialContext(func(context.Context, string, string) (net.Conn, error) { panic("it panics") })},
		"a connection": {gateway.WithDialContext(func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			return brittle{conn}, err
		})},
		"the propagator": {gateway.WithPropagator(fragile{})},
		"the propagator, of a hedge": {
			gateway.WithHedge(time.Millisecond), gateway.WithPropagator(&failing2nd{}),
			gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.Body != nil {
					panic("it panics")
				}
				<-r.Context().Done()
				return nil, r.Context().Err()
			})),
		},
		"the sampler": {gateway.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(fragile{})))},
	} {
		t.Run(name, func(t *testing.T) {
			spans, logs := tracetest.NewSpanRecorder(), testnet.NewLogRecorder()
			gw, err := gateway.New(append([]gateway.Option{
				gateway.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))), gateway.WithLogger(logs.Logger()),
				gateway.WithRetryBackoff(time.Millisecond, time.Millisecond), gateway.WithMaxConcurrency(2, 0, 0), gateway.WithoutBreaker(), gateway.WithoutEjection(),
				gateway.WithService("a", srv.URL),
			}, opts...)...)
			require.NoError(t, err)
			for _, r := range []*http.Request{
				httptest.NewRequest(http.MethodGet, "/a/", nil), httptest.NewRequest(http.MethodGet, "/a/", nil),
				httptest.NewRequest(http.MethodPut, "/a/", strings.NewReader(strings.Repeat("x", 100_000))),
			} {
				w := httptest.NewRecorder()
				gw.ServeHTTP(w, r)
				assert.Equal(t, 500, w.Code)
				assert.Contains(t, w.Body.String(), `"panic"`)
			}
			assert.NoError(t, gw.Shutdown(lasting(t, 5*time.Second))) // which waits for a hedge that has lost, too
			atRest(t, gw, "a")
			s := gw.Stats()
			assert.Equal(t, map[gateway.Reason]uint64{gateway.ReasonPanic: 3}, s.Errors)
			assert.NotEmpty(t, logs.Find(t, "gateway: panic"))
			assert.Len(t, spans.Ended(), len(spans.Started()), "spans")
			assert.Zero(t, gw.Stats().Services["a"].Replicas[0].Conns.Open, "connections")
		})
	}
}

// atRest checks that nothing of any request is under way.
func atRest(t testing.TB, gw *gateway.Gateway, services ...string) {
	t.Helper()
	s := gw.Stats()
	assert.Zero(t, s.InFlight)
	for _, name := range services {
		one := s.Services[name]
		assert.Zero(t, one.InFlight, name)
		assert.Zero(t, one.Queue, name)
		for _, r := range one.Replicas {
			assert.Zero(t, r.InFlight, "%s at %s", name, r.Address)
			assert.Zero(t, r.Conns.InUse, "%s at %s", name, r.Address)
			assert.Zero(t, r.Conns.Waiting, "%s at %s", name, r.Address)
		}
	}
	for series, value := range scrape(t, gw) {
		if name, _, _ := strings.Cut(series, "{"); strings.HasSuffix(name, "_active_requests") || strings.HasSuffix(name, "_waiting") || strings.HasSuffix(name, "_in_use") || strings.Contains(series, `state="used"`) || strings.Contains(series, `state="active"`) {
			assert.Zero(t, value, series)
		}
	}
}

// A request that ends while it waits to be sent again has not been sent again.
func TestARetryThatIsNotMadeIsNone(t *testing.T) {
	for what, end := range map[string]func(b *bubble, c *testnet.Client){
		"the client leaves": func(_ *bubble, c *testnet.Client) { c.Close() },
		"a shutdown cuts it": func(b *bubble, _ *testnet.Client) {
			assert.Error(b, b.gw.Shutdown(ended()))
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Reply(503, "", "no"), gateway.WithRetryBackoff(10*time.Second, 10*time.Second))
				c := b.dial()
				defer c.Close()
				c.Send(testnet.Get("/a/x"))
				synctest.Wait()
				require.Len(t, b.up.Journal(), 1)
				end(b, c)
				synctest.Wait()
				assert.Len(t, b.up.Journal(), 1)
				assert.Zero(t, b.gw.Stats().Retries)
				assert.Zero(t, scrape(t, b.gw).sum("gateway_retries_total"))
				lines := b.logs.Find(t, "gateway: request")
				require.Len(t, lines, 1)
				assert.Equal(t, 1.0, lines[0]["gateway.attempts"])
			})
		})
	}
}
