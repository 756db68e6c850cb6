package telemetry

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
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
	ctx := at(s).StartClient(s.StartServer(&sv, r), &c, "GET", "/1", "", 0, Ref{})
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
	s := newRig(t).Service(ServiceConfig{Name: "users", Baggage: true})
	_, out := forward(s, http.Header{"Baggage": {"a=1", "b=2"}})
	require.Len(t, out["Baggage"], 1)
	assert.ElementsMatch(t, []string{"a=1", "b=2"}, strings.Split(out.Get("Baggage"), ","))

	lines := make([]string, 100)
	for i := range lines {
		lines[i] = "k=" + strings.Repeat("v", 655)
	}
	_, out = forward(s, http.Header{"Baggage": lines})
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
		r := newRig(t, func(c *Config) { c.Propagator = talkative{} })
		s := r.Service(ServiceConfig{Name: "users", Baggage: asked})
		var sv Server
		req := httptest.NewRequest(http.MethodGet, "/users/1", nil)
		req.Header = in
		ctx := s.StartServer(&sv, req)
		assert.Equal(t, asked, ctx.Value(talkative{}) != nil)

		out := http.Header{"X-Talk": {"stale"}}
		if !asked {
			out.Set("uberctx-of-the-client", "canary")
		}
		s.Inject(ctx, out)
		if !asked {
			assert.Equal(t, http.Header{"X-Talk": {"1"}}, out)
		} else {
			assert.Equal(t, "canary", out.Get("Ot-Baggage-User"))
		}
	}
}

// A silent service learns nothing of traces, whatever its propagator says that it
// writes, and nothing else is withheld.
func TestASilentServiceIsToldInNoFormat(t *testing.T) {
	const stays = "X-Other"
	for _, p := range []propagation.TextMapPropagator{nil, propagation.TraceContext{}, talkative{}} {
		r := newRig(t, func(c *Config) { c.Propagator = p })
		out := http.Header{}
		for _, name := range []string{
			stays, "traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags",
			"uber-trace-id", "uberctx-user", "jaeger-baggage", "ot-tracer-traceid", "ot-tracer-spanid", "ot-tracer-sampled", "ot-baggage-user",
			"x-amzn-trace-id", "x-cloud-trace-context", "grpc-trace-bin",
		} {
			out.Set(name, "canary")
		}
		if p == (talkative{}) {
			out.Set("x-talk", "canary")
		}
		r.Service(ServiceConfig{Name: "users", Silent: true}).Inject(t.Context(), out)
		assert.Equal(t, http.Header{stays: {"canary"}}, out)
	}
}

// A public endpoint takes nobody's trace for its own: it links to it. A silent
// service is told of none.
func TestWhoIsTrustedAndToldOfATrace(t *testing.T) {
	w3c := propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	in := http.Header{"Traceparent": {clientParent}, "Tracestate": {"a=1"}, "Baggage": {"a=1"}}
	tests := []struct {
		name       string
		config     ServiceConfig
		tracer     trace.TracerProvider // nil: the rig's
		propagator propagation.TextMapPropagator
		continued  bool
		sent       []string // what the service is sent
	}{
		{"default", ServiceConfig{}, nil, w3c, true, []string{"Traceparent", "Tracestate"}},
		{"public", ServiceConfig{Public: true}, nil, w3c, false, []string{"Traceparent"}},
		{"public, with baggage", ServiceConfig{Public: true, Baggage: true}, nil, w3c, false, []string{"Baggage", "Traceparent"}},
		{"silent", ServiceConfig{Silent: true}, nil, w3c, true, nil},
		{"silent, with baggage", ServiceConfig{Silent: true, Baggage: true}, nil, w3c, true, nil},
		{"public and silent", ServiceConfig{Public: true, Silent: true}, nil, w3c, false, nil},
		{"public without a tracer", ServiceConfig{Public: true}, noopTracer(), w3c, false, nil},
		{"without a propagator", ServiceConfig{}, noopTracer(), nil, true, []string{"Baggage", "Traceparent", "Tracestate"}}, // as it comes from forward
		{"public without a propagator", ServiceConfig{Public: true}, noopTracer(), nil, false, []string{"Baggage"}},
		{"silent without a propagator", ServiceConfig{Silent: true}, noopTracer(), nil, true, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(c *Config) {
				if c.Propagator = tt.propagator; tt.tracer != nil {
					c.Tracer = tt.tracer
				}
			})
			tt.config.Name = "users"
			s := r.Service(tt.config)
			req := httptest.NewRequest(http.MethodGet, "/users/1", nil)
			req.Header = in.Clone()
			var sv Server
			var c Client
			ctx := at(s).StartClient(s.StartServer(&sv, req), &c, "GET", "/1", "", 0, Ref{})
			out := in.Clone()
			s.Inject(ctx, out)
			assert.Equal(t, tt.sent, slices.Sorted(maps.Keys(out)))
			if tt.sent != nil && tt.sent[len(tt.sent)-1] == "Traceparent" { // of ours
				assert.Contains(t, out.Get("Traceparent"), sv.TraceID())
			}
			c.End("", 0)
			sv.End(&ServerResult{Status: 200})
			if tt.tracer != nil {
				return
			}
			require.Len(t, r.spans.Ended(), 2)
			span := r.spans.Ended()[1]
			assert.Equal(t, trace.SpanKindServer, span.SpanKind())
			assert.Equal(t, tt.continued, span.SpanContext().TraceID().String() == clientID)
			assert.Equal(t, tt.continued, span.Parent().IsValid())
			if tt.continued {
				assert.Empty(t, span.Links())
				return
			}
			require.Len(t, span.Links(), 1)
			assert.Equal(t, clientID, span.Links()[0].SpanContext.TraceID().String())
			assert.Equal(t, "a=1", span.Links()[0].SpanContext.TraceState().String())
			assert.Empty(t, span.SpanContext().TraceState().String())
		})
	}
}

// What the app has begun, or has taken from the request itself, is the app's to
// trust.
func TestAPublicEndpointInsideALocalSpan(t *testing.T) {
	r := newRig(t)
	s := r.Service(ServiceConfig{Name: "users", Public: true})
	ctx, parent := r.tracer.Tracer("app").Start(context.Background(), "app")
	serve(s, httptest.NewRequest(http.MethodGet, "/users/1", nil).WithContext(ctx), ServerResult{Status: 200})
	assert.Equal(t, parent.SpanContext().SpanID(), r.span().Parent().SpanID())
	assert.Empty(t, r.span().Links())
}

// What is done on nobody's behalf has a trace of its own, and names its cause.
func TestAnAttemptBehindTheRequestLinksToIt(t *testing.T) {
	r := newRig(t)
	s := r.users()
	var sv Server
	var c Client
	ctx := s.StartServer(&sv, httptest.NewRequest(http.MethodGet, "/users/1", nil))
	cause := sv.Ref()
	sv.End(&ServerResult{Status: 200})
	ctx, _ = Detach(ctx)
	at(s).StartClient(ctx, &c, "GET", "/1", "", 0, cause)
	c.End("", 0)
	spans := r.spans.Ended()
	require.Len(t, spans, 2)
	assert.False(t, spans[1].Parent().IsValid())
	assert.NotEqual(t, spans[0].SpanContext().TraceID(), spans[1].SpanContext().TraceID())
	require.Len(t, spans[1].Links(), 1)
	assert.Equal(t, spans[0].SpanContext(), spans[1].Links()[0].SpanContext)
	assert.Equal(t, cause, sv.Ref(), "also when it has ended")
}

func TestTraceParentIsReadRight(t *testing.T) {
	base := clientParent[:53]
	for in, want := range map[string]string{
		base + "00": base + "00", base + "01": base + "01", base + "03": base + "03", base + "04": base + "00", base + "ff": base + "03", base + "1a": base + "02",
		base + "0g": base + "0g", base + "FF": base + "FF", base + "0": base + "0", base + "040": "", base + "01-": "", "01" + base[2:] + "ff": "01" + base[2:] + "ff", "": "",
	} {
		assert.Equal(t, want, traceParent(in), "%q", in)
	}
}

func TestBlankMembers(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a=1": "a=1", "a=1,b=2": "a=1,b=2", "a=1,,b=2": "a=1,b=2", " , a=1,\t": " a=1", ", ,": "",
	} {
		assert.Equal(t, want, members(in), "%q", in)
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
