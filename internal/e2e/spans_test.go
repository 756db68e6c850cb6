package e2e_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// ends returns how each span of the one request ended, the attempts in the order in
// which they ended, and the series of the two histograms.
func (o *observed) ends(t *testing.T) (spans, series []string) {
	t.Helper()
	requests := o.kind(trace.SpanKindServer)
	require.Len(t, requests, 1)
	for _, s := range o.spans.GetSpans() {
		attrs := attribute.NewSet(s.Attributes...)
		text := s.SpanKind.String()
		if s.SpanKind == trace.SpanKindClient {
			assert.Equal(t, requests[0].SpanContext.SpanID(), s.Parent.SpanID(), "attempts are siblings")
		}
		for _, key := range []attribute.Key{"http.request.resend_count", "http.response.status_code", "error.type", "gateway.reason"} {
			if v, ok := attrs.Value(key); ok {
				text += " " + v.String()
			}
		}
		if s.Status.Code == codes.Error {
			text += " Error"
		}
		assert.Empty(t, s.Status.Description)
		spans = append(spans, text)
	}
	return spans, o.since(nil)
}

// breaking is a content that breaks off.
type breaking struct{ io.Reader }

func (b breaking) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Whatever becomes of a request, it is told once, with its cause: by its span, by
// one for each attempt, and by the histograms.
func TestEachEndIsToldOnce(t *testing.T) {
	answer := func(r *http.Request, status int, body io.Reader, length int64) *http.Response {
		return &http.Response{StatusCode: status, Proto: "HTTP/1.1", Header: http.Header{}, Body: io.NopCloser(body), ContentLength: length, Request: r}
	}
	ok := func(r *http.Request) (*http.Response, error) { return answer(r, 200, strings.NewReader("ok"), 2), nil }
	never := func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }
	status := func(status int) func(*http.Request) (*http.Response, error) {
		return func(r *http.Request) (*http.Response, error) { return answer(r, status, http.NoBody, 0), nil }
	}
	breaks := func(r *http.Request) (*http.Response, error) {
		return answer(r, 200, breaking{strings.NewReader("half")}, 8), nil
	}
	type attempts = []func(*http.Request) (*http.Response, error)
	for name, tt := range map[string]struct {
		attempts      attempts
		opts          []gateway.ServiceOption
		leaves        bool // the client, after a second
		spans, series []string
	}{
		"success":     {attempts{ok}, nil, false, []string{"client 200", "server 200"}, []string{"1 client 200", "1 server 200"}},
		"a 4xx":       {attempts{status(404)}, nil, false, []string{"client 404 404 Error", "server 404"}, []string{"1 client 404 404", "1 server 404"}},
		"a 5xx":       {attempts{status(500)}, nil, false, []string{"client 500 500 Error", "server 500 500 Error"}, []string{"1 client 500 500", "1 server 500 500"}},
		"one repeat":  {attempts{status(503), ok}, nil, false, []string{"client 503 503 Error", "client 1 200", "server 200"}, []string{"1 client 200", "1 client 503 503", "1 server 200"}},
		"two repeats": {attempts{status(503), status(502), status(503)}, nil, false, []string{"client 503 503 Error", "client 1 502 502 Error", "client 2 503 503 Error", "server 503 503 Error"}, []string{"1 client 502 502", "2 client 503 503", "1 server 503 503"}},
		"a hedge": {attempts{never, ok}, []gateway.ServiceOption{gateway.WithHedge(time.Second)}, false,
			[]string{"client 1 200", "client", "server 200"}, []string{"1 client", "1 client 200", "1 server 200"}},
		"a timeout":         {attempts{never}, nil, false, []string{"client timeout Error", "server 504 timeout timeout Error"}, []string{"1 client timeout", "1 server 504 timeout"}},
		"no answer":         {attempts{func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }}, []gateway.ServiceOption{gateway.WithoutRetries()}, false, []string{"client upstream_failed Error", "server 502 upstream_failed upstream_failed Error"}, []string{"1 client upstream_failed", "1 server 502 upstream_failed"}},
		"a status of none":  {attempts{status(999)}, nil, false, []string{"client bad_response Error", "server 502 bad_response bad_response Error"}, []string{"1 client bad_response", "1 server 502 bad_response"}},
		"the client leaves": {attempts{never}, nil, true, []string{"client", "server 499 client_closed"}, []string{"1 client", "1 server 499"}},
		"the content breaks off": {attempts{breaks}, nil, false, []string{"client 200 truncated Error", "server 200 truncated truncated Error"},
			[]string{"1 client 200 truncated", "1 server 200 truncated"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int32
				rt := gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
					return tt.attempts[n.Add(1)-1](r)
				}))
				o := newObserved(t)
				gw := o.gateway(gateway.WithTimeout(10*time.Second), gateway.WithRetryBudget(1, 100), gateway.WithService("a", target, append(tt.opts, rt)...))
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				if tt.leaves {
					time.AfterFunc(time.Second, leave)
				}
				h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer func() {
						if v := recover(); v != nil {
							assert.Equal(t, http.ErrAbortHandler, v)
						}
					}()
					gw.ServeHTTP(w, r.WithContext(ctx))
				})
				handle(t, h, testnet.Get("/a/x"), nil)
				synctest.Wait()
				spans, series := o.ends(t)
				last := len(spans) - 1
				if name == "a hedge" { // whose loser may end before the request or after it
					slices.Sort(spans)
					slices.Sort(tt.spans)
				} else {
					assert.True(t, strings.HasPrefix(spans[last], "server"))
				}
				slices.Sort(tt.series)
				assert.Equal(t, tt.spans, spans)
				assert.Equal(t, tt.series, series)
				require.NoError(t, gw.Shutdown(context.Background()))
			})
		})
	}
}

// A tunnel is one request that takes as long as it stands.
func TestATunnelIsToldInItsEnd(t *testing.T) {
	r := newRig(t, setup{script: testnet.EchoWebSocket})
	o := &observed{TB: t, spans: r.spans, meter: r.meter}
	c := testnet.Dial(t, r.addr)
	openTunnel(t, c, "")
	assert.EqualValues(t, 1, o.values()["http.server.active_requests{http.request.method=GET,url.scheme=http}"])
	assert.Empty(t, r.spans.GetSpans())
	c.CloseWrite()
	c.ReadRest()
	testnet.Settle(t, "it has ended", func() bool { return len(r.spans.GetSpans()) == 2 })
	spans, series := o.ends(t)
	slices.Sort(spans)
	assert.Equal(t, []string{"client 101", "server 101"}, spans)
	assert.Equal(t, []string{"1 client 101", "1 server 101"}, series)
	assert.Zero(t, o.values()["http.server.active_requests{http.request.method=GET,url.scheme=http}"])
}
