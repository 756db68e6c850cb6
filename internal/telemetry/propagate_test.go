package telemetry

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const (
	clientID     = "0123456789abcdef0123456789abcdef"
	clientParent = "00-" + clientID + "-0123456789abcdef-01"
)

// forward runs one request through a service, and returns what an attempt sends
// with its span's context.
func forward(s *Service, in http.Header) (context.Context, http.Header) {
	r := httptest.NewRequest(http.MethodGet, "/users/1", nil)
	r.Header = in
	var sv Server
	var c Client
	ctx := at(s).StartClient(s.StartServer(&sv, r), &c, "GET", "/1", "", 0)
	out := in.Clone()
	s.Inject(ctx, out)
	return ctx, out
}

func TestInjectReplacesTheClientsTrace(t *testing.T) {
	r := newRig(t)
	ctx, out := forward(r.users(), http.Header{
		"Traceparent": {clientParent}, "Tracestate": {"a=1", "b=2"}, "Baggage": {"user=canary"}, "X-Other": {"stays"},
	})
	sc := trace.SpanContextFromContext(ctx)
	assert.Equal(t, http.Header{
		"Traceparent": {"00-" + clientID + "-" + sc.SpanID().String() + "-01"},
		"Tracestate":  {"a=1,b=2"},
		"X-Other":     {"stays"},
	}, out)
	assert.Zero(t, baggage.FromContext(ctx).Len(), "baggage of clients is not even read")
}

func TestInjectLeavesNoStaleField(t *testing.T) {
	r := newRig(t)
	_, out := forward(r.users(), http.Header{"Traceparent": {"garbage"}, "Tracestate": {"a=1"}})
	assert.Regexp(t, "^00-[0-9a-f]{32}-[0-9a-f]{16}-01$", out.Get("Traceparent"))
	assert.NotContains(t, out, "Tracestate", "it belongs to a trace that is not continued")
}

func TestBaggagePassesWhenAsked(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Baggage = true })
	_, out := forward(r.users(), http.Header{"Baggage": {"a=1", "b=2"}})
	require.Len(t, out["Baggage"], 1)
	assert.ElementsMatch(t, []string{"a=1", "b=2"}, strings.Split(out.Get("Baggage"), ","))

	lines := make([]string, 100)
	for i := range lines {
		lines[i] = "k=" + strings.Repeat("v", 655)
	}
	_, out = forward(r.users(), http.Header{"Baggage": lines})
	assert.NotContains(t, out, "Baggage", "64 KiB of it are too much")
}

func TestWithoutATracerTheClientsTracePassesThrough(t *testing.T) {
	long := strings.Repeat("a", 10<<10)
	w3c := propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	tests := []struct {
		name       string
		propagator propagation.TextMapPropagator
		in, want   http.Header
	}{
		{"w3c", w3c, http.Header{"Traceparent": {clientParent}, "Tracestate": {"a=1", "b=2"}},
			http.Header{"Traceparent": {clientParent}, "Tracestate": {"a=1,b=2"}}},
		{"w3c, none", w3c, http.Header{}, http.Header{}},
		{"w3c, malformed", w3c, http.Header{"Traceparent": {"x"}, "Tracestate": {"a=1"}}, http.Header{}},
		{"w3c, twice", w3c, http.Header{"Traceparent": {clientParent, clientParent}}, http.Header{}},
		{"w3c, long", w3c, http.Header{"Traceparent": {clientParent}, "Tracestate": {long}}, http.Header{"Traceparent": {clientParent}}},
		{"unset", nil, http.Header{"Traceparent": {clientParent}, "Tracestate": {"a=1", "b=2"}},
			http.Header{"Traceparent": {clientParent}, "Tracestate": {"a=1", "b=2"}}},
		{"unset, long", nil, http.Header{"Traceparent": {clientParent}, "Tracestate": {long}}, http.Header{"Traceparent": {clientParent}}},
		{"unset, none", nil, http.Header{}, http.Header{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, tracer := range map[string]trace.TracerProvider{"noop": noopTracer(), "unset": nil} {
				r := newRig(t, func(c *Config) { c.Tracer, c.Propagator = tracer, tt.propagator })
				_, out := forward(r.users(), tt.in.Clone())
				assert.Equal(t, tt.want, out, name)
			}
		})
	}
}

func TestWithoutATracerTheAppsSpanIsInjected(t *testing.T) {
	app := newRig(t)
	ctx, span := app.tracer.Tracer("app").Start(context.Background(), "app")
	r := newRig(t, func(c *Config) { c.Tracer = noopTracer() })
	out := http.Header{"Traceparent": {clientParent}}
	r.users().Inject(ctx, out)
	assert.Contains(t, out.Get("Traceparent"), span.SpanContext().SpanID().String())
}

// A talkative propagator looks at every key, and sets more than its Fields say.
type talkative struct{}

func (talkative) Fields() []string { return []string{"x-talk"} }

func (talkative) Extract(ctx context.Context, c propagation.TextMapCarrier) context.Context {
	for _, key := range c.Keys() {
		if c.Get(key) == "canary" {
			return context.WithValue(ctx, talkative{}, key)
		}
	}
	return ctx
}

func (talkative) Inject(_ context.Context, c propagation.TextMapCarrier) {
	c.Set("x-talk", "1")
	c.Set("ot-baggage-user", "canary")
	c.Set("uberctx-user", "canary")
	c.Set("jaeger-baggage", "canary")
}

func TestNoPropagatorCarriesBaggageUnasked(t *testing.T) {
	in := http.Header{"Ot-Baggage-User": {"canary"}, "Uberctx-User": {"canary"}, "X-Talk": {"stale"}}
	for _, asked := range []bool{false, true} {
		r := newRig(t, func(c *Config) { c.Propagator, c.Baggage = talkative{}, asked })
		var sv Server
		req := httptest.NewRequest(http.MethodGet, "/users/1", nil)
		req.Header = in
		ctx := r.users().StartServer(&sv, req)
		assert.Equal(t, asked, ctx.Value(talkative{}) != nil)

		out := http.Header{"X-Talk": {"stale"}}
		r.users().Inject(ctx, out)
		if !asked {
			assert.Equal(t, http.Header{"X-Talk": {"1"}}, out)
		} else {
			assert.Equal(t, "canary", out.Get("Ot-Baggage-User"))
		}
	}
}

// FuzzTraceContext continues hostile contexts, and sends none that is not well
// formed and bounded.
func FuzzTraceContext(f *testing.F) {
	f.Add(clientParent, "", "a=1", "b=2", "k=v")
	f.Add(clientParent, clientParent, "", "", "")
	f.Add("00-00000000000000000000000000000000-0123456789abcdef-01", "", "a=1,a=2", ",,", "k=v;p")
	f.Add("ff-"+clientID+"-0123456789abcdef-01", "", "a@b=1, c=2\t", strings.Repeat("a=1,", 40), "%")
	f.Add("01-"+clientID+"-0123456789abcdef-01-more", "", "\xff", "=", "=")
	w3c := propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	te, err := New(Config{Tracer: noopTracer(), Propagator: w3c})
	require.NoError(f, err)
	s := te.Service(ServiceConfig{Name: "users"})
	form := regexp.MustCompile("^00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]$")

	f.Fuzz(func(t *testing.T, parent, second, state, more, bag string) {
		in := http.Header{"Traceparent": {parent}, "Tracestate": {state, more}, "Baggage": {bag}}
		if second != "" {
			in["Traceparent"] = []string{parent, second}
		}
		_, out := forward(s, in)
		require.NotContains(t, out, "Baggage")
		if second != "" {
			require.NotContains(t, out, "Traceparent")
		}
		if v, ok := out["Traceparent"]; ok {
			require.Len(t, v, 1)
			require.Regexp(t, form, v[0])
		}
		if v, ok := out["Tracestate"]; ok {
			require.Contains(t, out, "Traceparent")
			require.Len(t, v, 1)
			require.LessOrEqual(t, len(v[0]), maxTraceState)
			_, err := trace.ParseTraceState(v[0])
			require.NoError(t, err)
		}
	})
}

func BenchmarkInject(b *testing.B) {
	r := newRig(b)
	s := r.users()
	var sv Server
	ctx := s.StartServer(&sv, httptest.NewRequest(http.MethodGet, "/users/1", nil))
	h := http.Header{}
	b.ReportAllocs()
	for b.Loop() {
		s.Inject(ctx, h)
	}
}
