package interop_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.opentelemetry.io/contrib/propagators/b3"
	"go.opentelemetry.io/contrib/propagators/jaeger"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
)

// A propagator that is not W3C's has its fields replaced on the way to a service,
// and a service that is to be told of no trace gets none of them: neither ours nor
// the client's, in no format, though the propagator may write another one than it
// reads.
func TestForeignPropagators(t *testing.T) {
	t.Parallel()
	const span = "00f067aa0ba902b7"
	client := []string{
		"Traceparent", "00-" + parentTrace + "-" + span + "-01", "Tracestate", "a=1", "Baggage", "user=canary", "X-Other", "stays",
		"B3", parentTrace + "-" + span + "-1", "X-B3-Traceid", parentTrace, "X-B3-Spanid", span, "X-B3-Sampled", "1", "X-B3-Parentspanid", span,
		"Uber-Trace-Id", parentTrace + ":" + span + ":0:1", "Uberctx-User", "canary", "Jaeger-Baggage", "user=canary", "Ot-Baggage-User", "canary",
	}
	for name, tt := range map[string]struct {
		propagator propagation.TextMapPropagator
		sent       []string // of ours, to whom may know
	}{
		"b3":                  {b3.New(), []string{"B3"}},
		"b3 of several lines": {b3.New(b3.WithInjectEncoding(b3.B3MultipleHeader)), []string{"X-B3-Traceid", "X-B3-Spanid", "X-B3-Sampled"}},
		"jaeger":              {jaeger.Jaeger{}, []string{"Uber-Trace-Id"}},
		"several": {propagation.NewCompositeTextMapPropagator(b3.New(), jaeger.Jaeger{}, propagation.TraceContext{}, propagation.Baggage{}),
			[]string{"B3", "Uber-Trace-Id", "Traceparent"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent := make(chan http.Header, 1)
			up := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { sent <- r.Header }))
			tm := newTelemetry()
			front := serve(t, newGateway(t, append(tm.options(), gateway.WithPropagator(tt.propagator),
				gateway.WithService("friend", up.URL), gateway.WithService("stranger", up.URL, gateway.WithoutPropagation()))...))

			get(t, front.Client(), front.URL+"/friend/x", client...)
			got := within(t, "the upstream", sent)
			attempt := tm.only(t, ours, trace.SpanKindClient)
			assert.Equal(t, parentTrace, attempt.SpanContext.TraceID().String(), "the client's trace goes on")
			for _, field := range tt.sent {
				assert.Len(t, got[field], 1, field)
				assert.NotContains(t, strings.Join(got[field], ""), span, "%s is the client's", field)
			}
			for _, field := range []string{"Baggage", "Uberctx-User", "Jaeger-Baggage", "Ot-Baggage-User"} {
				assert.NotContains(t, got, field)
			}

			get(t, front.Client(), front.URL+"/stranger/x", client...)
			got = within(t, "the upstream", sent)
			assert.Equal(t, "stays", got.Get("X-Other"))
			for i := 0; i < len(client); i += 2 {
				if client[i] != "X-Other" {
					assert.NotContains(t, got, client[i])
				}
			}
			for field, values := range got {
				assert.NotContains(t, strings.Join(values, " "), parentTrace, field)
			}
		})
	}
}
