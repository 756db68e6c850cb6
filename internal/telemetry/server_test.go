package telemetry

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func TestServerSpan(t *testing.T) {
	tests := []struct {
		name     string
		request  func(r *http.Request)
		unrouted bool
		result   ServerResult
		span     string
		want     map[string]any // over the base; nil: absent
	}{
		{name: "plain", result: ServerResult{Status: 200}, span: "GET /api/users/{path...}"},
		{
			name:    "no pattern",
			request: func(r *http.Request) { r.Pattern = "" },
			result:  ServerResult{Status: 200}, span: "GET /users/{path...}",
			want: map[string]any{"http.route": "/users/{path...}"},
		},
		{
			name: "unknown service", unrouted: true,
			result: ServerResult{Status: 404, ErrorType: "unknown_service"}, span: "GET",
			want: map[string]any{
				"http.route": nil, "gateway.service": nil, "http.response.status_code": int64(404),
				"gateway.reason": "unknown_service",
			},
		},
		{
			name:    "unknown method reads HTTP",
			request: func(r *http.Request) { r.Method = "BREW" },
			result:  ServerResult{Status: 501}, span: "HTTP /api/users/{path...}",
			want: map[string]any{
				"http.request.method": "_OTHER", "http.request.method_original": "BREW",
				"http.response.status_code": int64(501), "error.type": "501",
			},
		},
		{
			name:    "methods are case-sensitive",
			request: func(r *http.Request) { r.Method = "get" },
			result:  ServerResult{Status: 501, ErrorType: "method"}, span: "HTTP /api/users/{path...}",
			want: map[string]any{
				"http.request.method": "_OTHER", "http.request.method_original": "get",
				"http.response.status_code": int64(501), "error.type": "method", "gateway.reason": "method",
			},
		},
		{
			name: "TLS, HTTP/2, IPv6",
			request: func(r *http.Request) {
				r.TLS, r.ProtoMajor, r.ProtoMinor = &tls.ConnectionState{}, 2, 0
				r.Host, r.RemoteAddr = "[2001:db8::1]", "[2001:db8::7]:4444"
			},
			result: ServerResult{Status: 200}, span: "GET /api/users/{path...}",
			want: map[string]any{
				"url.scheme": "https", "network.protocol.version": "2",
				"server.address": "2001:db8::1", "server.port": nil,
				"client.address": "2001:db8::7", "network.peer.address": "2001:db8::7", "network.peer.port": int64(4444),
			},
		},
		{
			name:   "client behind a trusted proxy",
			result: ServerResult{Status: 200, ClientAddress: "203.0.113.9"}, span: "GET /api/users/{path...}",
			want: map[string]any{"client.address": "203.0.113.9"},
		},
		{
			name:    "query is redacted",
			request: func(r *http.Request) { r.RequestURI = "/api/users/42?a=1&token=tok_canary&b=2" },
			result:  ServerResult{Status: 200}, span: "GET /api/users/{path...}",
			want: map[string]any{"url.query": "a=1&token=REDACTED&b=2"},
		},
		{
			name:    "absolute form",
			request: func(r *http.Request) { r.RequestURI = "http://gw.example/api/users/42"; r.URL.Path = "/api/users/42" },
			result:  ServerResult{Status: 200}, span: "GET /api/users/{path...}",
		},
		{
			name:    "escapes stay",
			request: func(r *http.Request) { r.RequestURI = "/api/users/x%0d%0aX:%20y" },
			result:  ServerResult{Status: 200}, span: "GET /api/users/{path...}",
			want: map[string]any{"url.path": "/api/users/x%0d%0aX:%20y", "url.query": nil},
		},
		{
			name: "invalid UTF-8",
			request: func(r *http.Request) {
				r.Method, r.Host, r.RequestURI = "X\xff", "h\xfe", "/a\xff/b?q=\xc0\xae"
				r.Header.Set("User-Agent", "ua\x80")
			},
			result: ServerResult{Status: 501}, span: "HTTP /api/users/{path...}",
			want: map[string]any{
				"http.request.method": "_OTHER", "http.request.method_original": "X\uFFFD",
				"server.address": "h\uFFFD", "server.port": nil, "url.path": "/a\uFFFD/b", "url.query": "q=\uFFFD",
				"user_agent.original": "ua\uFFFD", "http.response.status_code": int64(501), "error.type": "501",
			},
		},
		{
			name: "everything that is known of the end",
			result: ServerResult{
				Status: 502, ErrorType: "dial", Aborted: true, RequestBytes: 7, ResponseBytes: 9,
				CacheResult: "fwd=uri-miss",
			}, span: "GET /api/users/{path...}",
			want: map[string]any{
				"http.response.status_code": int64(502), "error.type": "dial", "gateway.reason": "dial",
				"gateway.cache.result": "fwd=uri-miss", "http.request.body.size": int64(7), "http.response.body.size": int64(9),
			},
		},
		{
			name:    "nothing was sent",
			request: func(r *http.Request) { r.RemoteAddr, r.Host, r.ProtoMajor = "", "", 9; r.Header.Del("User-Agent") },
			result:  ServerResult{Aborted: true}, span: "GET /api/users/{path...}",
			want: map[string]any{
				"http.response.status_code": nil, "error.type": "_OTHER", "server.address": nil, "server.port": nil,
				"client.address": nil, "network.peer.address": nil, "network.peer.port": nil,
				"network.protocol.version": nil, "user_agent.original": nil,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			req := httptest.NewRequest(http.MethodGet, "/api/users/42?page=2", nil)
			req.URL.Path = "/users/42" // as StripPrefix leaves it
			req.Pattern, req.Host, req.RemoteAddr = "/api/", "gw.example:8443", "192.0.2.1:1234"
			req.Header.Set("User-Agent", "curl/8.5.0")
			if tt.request != nil {
				tt.request(req)
			}
			s := r.users()
			if tt.unrouted {
				s = r.Unrouted(false)
			}
			serve(s, req, tt.result)

			want := map[string]any{
				"http.request.method": "GET", "http.route": "/api/users/{path...}", "url.scheme": "http",
				"url.path": "/api/users/42", "url.query": "page=2", "gateway.service": "users",
				"server.address": "gw.example", "server.port": int64(8443), "client.address": "192.0.2.1",
				"network.peer.address": "192.0.2.1", "network.peer.port": int64(1234), "network.protocol.version": "1.1",
				"user_agent.original": "curl/8.5.0", "http.response.status_code": int64(200),
			}
			for k, v := range tt.want {
				if want[k] = v; v == nil {
					delete(want, k)
				}
			}
			span := r.span()
			assert.Equal(t, tt.span, span.Name())
			assert.Equal(t, trace.SpanKindServer, span.SpanKind())
			assert.Equal(t, want, attributes(span.Attributes()))
		})
	}
}

func TestServerOutcome(t *testing.T) {
	tests := []struct {
		name      string
		result    ServerResult
		status    codes.Code
		errorType any // nil: absent
	}{
		{"a success is no error", ServerResult{Status: 200}, codes.Unset, nil},
		{"nor is a redirect", ServerResult{Status: 302}, codes.Unset, nil},
		{"a 4xx is the client's error", ServerResult{Status: 404}, codes.Unset, nil},
		{"also when we refused", ServerResult{Status: 431, ErrorType: "request_header_too_large"}, codes.Unset, nil},
		{"a 5xx is an error named by its status", ServerResult{Status: 503}, codes.Error, "503"},
		{"or by its reason", ServerResult{Status: 504, ErrorType: "timeout"}, codes.Error, "timeout"},
		{"an abort after a good header is one", ServerResult{Status: 200, Aborted: true, ErrorType: "truncated"}, codes.Error, "truncated"},
		{"an abort without a reason too", ServerResult{Status: 200, Aborted: true}, codes.Error, "_OTHER"},
		{"and an abort of a 4xx", ServerResult{Status: 404, Aborted: true}, codes.Error, "404"},
		{"a client that left is none", ServerResult{Status: 499, Aborted: true, ErrorType: "client_closed"}, codes.Unset, nil},
		{"a status that does not exist is not recorded", ServerResult{Status: 999}, codes.Unset, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			serve(r.users(), httptest.NewRequest(http.MethodGet, "/users/1", nil), tt.result)

			span := r.span()
			assert.Equal(t, tt.status, span.Status().Code)
			assert.Empty(t, span.Status().Description)
			assert.Equal(t, tt.errorType, attributes(span.Attributes())["error.type"])

			points := r.points("http.server.request.duration")
			require.Len(t, points, 1)
			want := map[string]any{
				"http.request.method": "GET", "http.route": "/users/{path...}", "url.scheme": "http",
				"network.protocol.version": "1.1", "http.response.status_code": int64(tt.result.Status),
			}
			if tt.errorType != nil {
				want["error.type"] = tt.errorType
			}
			if tt.result.Status > 599 {
				delete(want, "http.response.status_code")
			}
			assert.Equal(t, want, attributes(points[0].Attributes.ToSlice()))
		})
	}
}

func TestServerInsideALocalSpanIsItsInternalChild(t *testing.T) {
	r := newRig(t)
	ctx, parent := r.tracer.Tracer("app").Start(context.Background(), "app", trace.WithSpanKind(trace.SpanKindServer))
	req := httptest.NewRequest(http.MethodGet, "/users/1", nil).WithContext(ctx)
	req.Header.Set("Traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
	serve(r.users(), req, ServerResult{Status: 200})

	span := r.span()
	assert.Equal(t, trace.SpanKindInternal, span.SpanKind())
	assert.Equal(t, parent.SpanContext().SpanID(), span.Parent().SpanID())
	assert.Empty(t, r.points("http.server.request.duration"))
	require.Len(t, r.points("gateway.request.duration"), 1)
}

func TestServerContinuesTheClientsTrace(t *testing.T) {
	const parent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
	remote, err := trace.TraceIDFromHex("fedcba9876543210fedcba9876543210")
	require.NoError(t, err)
	app := trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: remote, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	}))
	tests := []struct {
		name   string
		ctx    context.Context
		header http.Header
		want   string // trace id; "": a new one
		state  string
	}{
		{name: "none", ctx: context.Background(), header: http.Header{}},
		{name: "one", ctx: context.Background(), header: http.Header{"Traceparent": {parent}}, want: "0123456789abcdef0123456789abcdef"},
		{
			name: "tracestate in several lines", ctx: context.Background(),
			header: http.Header{"Traceparent": {parent}, "Tracestate": {"a=1", "b=2,c=3"}},
			want:   "0123456789abcdef0123456789abcdef", state: "a=1,b=2,c=3",
		},
		{
			name: "tracestate of 10 kB", ctx: context.Background(),
			header: http.Header{"Traceparent": {parent}, "Tracestate": {strings.Repeat("a", 250) + "=" + strings.Repeat("b", 10<<10)}},
			want:   "0123456789abcdef0123456789abcdef",
		},
		{
			name: "tracestate of 100 lines", ctx: context.Background(),
			header: http.Header{"Traceparent": {parent}, "Tracestate": make([]string, 5000)},
			want:   "0123456789abcdef0123456789abcdef",
		},
		{name: "traceparent twice", ctx: context.Background(), header: http.Header{"Traceparent": {parent, parent}}},
		{name: "malformed", ctx: context.Background(), header: http.Header{"Traceparent": {"00-zz-01"}}},
		{name: "the app extracted it", ctx: app, header: http.Header{"Traceparent": {parent}}, want: remote.String()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			req := httptest.NewRequest(http.MethodGet, "/users/1", nil).WithContext(tt.ctx)
			req.Header = tt.header
			var sv Server
			r.users().StartServer(&sv, req)
			sv.End(&ServerResult{Status: 200})

			span := r.span()
			assert.Equal(t, trace.SpanKindServer, span.SpanKind())
			assert.Equal(t, tt.want != "", span.Parent().IsValid())
			if tt.want != "" {
				assert.Equal(t, tt.want, span.SpanContext().TraceID().String())
			}
			assert.Equal(t, tt.state, span.SpanContext().TraceState().String())
			assert.Equal(t, span.SpanContext().TraceID().String(), sv.TraceID())
		})
	}
}

// A sampler that keeps what it was asked.
type curious struct {
	decision sdktrace.SamplingDecision
	asked    []sdktrace.SamplingParameters
}

func (c *curious) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	c.asked = append(c.asked, p)
	return sdktrace.SamplingResult{Decision: c.decision}
}

func (*curious) Description() string { return "curious" }

func TestSamplersSeeWhatTheyDecideBy(t *testing.T) {
	sampler := &curious{decision: sdktrace.Drop}
	r := newRig(t, func(c *Config) { c.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler)) })
	s := r.users()
	var sv Server
	var c Client
	ctx := s.StartServer(&sv, httptest.NewRequest(http.MethodGet, "/users/1?sig=abc", nil))
	at(s).StartClient(ctx, &c, "POST", "/1", "sig=abc", 2, Ref{})
	c.Peer(&net.TCPAddr{IP: net.ParseIP("10.0.0.1"), Port: 80})
	c.Head(200, "HTTP/1.1")
	c.End("", time.Second)
	sv.End(&ServerResult{Status: 200})

	require.Len(t, sampler.asked, 2)
	assert.Equal(t, trace.SpanKindServer, sampler.asked[0].Kind)
	assert.Equal(t, map[string]any{
		"http.request.method": "GET", "http.route": "/users/{path...}", "url.scheme": "http",
		"url.path": "/users/1", "gateway.service": "users",
	}, attributes(sampler.asked[0].Attributes))
	assert.Equal(t, trace.SpanKindClient, sampler.asked[1].Kind)
	assert.Equal(t, map[string]any{
		"http.request.method": "POST", "server.address": "u.internal", "server.port": int64(8000),
		"url.full": "http://u.internal:8000/1?sig=REDACTED", "http.request.resend_count": int64(2), "gateway.service": "users",
	}, attributes(sampler.asked[1].Attributes))
	assert.Len(t, r.points("http.server.request.duration"), 1, "what is not sampled is measured")
	assert.Len(t, r.points("http.client.request.duration"), 1, "what is not sampled is measured")
}

func TestServerEndsOnce(t *testing.T) {
	r := newRig(t)
	var sv Server
	r.users().StartServer(&sv, httptest.NewRequest(http.MethodGet, "/users/1", nil))
	sv.End(&ServerResult{Status: 200})
	sv.End(&ServerResult{Status: 500})

	assert.EqualValues(t, 200, attributes(r.span().Attributes())["http.response.status_code"])
	points := r.points("http.server.request.duration")
	require.Len(t, points, 1)
	assert.EqualValues(t, 1, points[0].Count)
}

func TestZeroValuesRecordNothing(t *testing.T) {
	var sv Server
	sv.End(&ServerResult{Status: 200})
	assert.Empty(t, sv.TraceID())
	var c Client
	c.Head(200, "HTTP/1.1")
	c.End("", time.Second)
}

func TestTraceIDWithoutATracerIsTheClients(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Tracer = noopTracer() })
	req := httptest.NewRequest(http.MethodGet, "/users/1", nil)
	var sv Server
	r.users().StartServer(&sv, req)
	assert.Empty(t, sv.TraceID())

	req.Header.Set("Traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
	r.users().StartServer(&sv, req)
	assert.Equal(t, "0123456789abcdef0123456789abcdef", sv.TraceID())
}

func TestHostileRequestsAddNoSeriesAndBoundedSpans(t *testing.T) {
	r := newRig(t)
	s, e, random := r.users(), at(r.users()), rand.New(rand.NewPCG(1, 2))
	junk := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return string(b)
	}
	for i := range 10_000 {
		size := 16
		if i%1000 == 0 {
			size = 1 << 20
		}
		req := &http.Request{
			Method: fmt.Sprintf("M%d", i), Host: junk(size), RemoteAddr: junk(16), RequestURI: "/" + junk(size) + "?" + junk(size),
			Header: http.Header{"User-Agent": {junk(size)}}, ProtoMajor: i, ProtoMinor: 1,
		}
		serve(s, req, ServerResult{Status: 600 + i})
		var c Client
		e.StartClient(context.Background(), &c, req.Method, "/"+junk(16), junk(16), 0, Ref{})
		c.Head(600+i, junk(8))
		c.End("", 0)
	}
	assert.LessOrEqual(t, len(r.points("http.server.request.duration")), 2, "one, and one for what claims HTTP/1.1")
	assert.Len(t, r.points("http.client.request.duration"), 1)
	for _, span := range r.spans.Ended() {
		for _, kv := range span.Attributes() {
			if kv.Value.Type() == attribute.STRING {
				require.True(t, utf8.ValidString(kv.Value.AsString()), "%s", kv.Key)
				require.Less(t, len(kv.Value.AsString()), 4*maxURL, "%s", kv.Key)
			}
		}
	}
}

func TestSeriesOfARouteAreBoundedInMemory(t *testing.T) {
	r := newRig(t)
	s := r.users()
	e := at(s)
	for i := range 2 * maxSeries {
		serve(s, httptest.NewRequest(http.MethodGet, "/users/1", nil), ServerResult{Status: 500, ErrorType: fmt.Sprint("e", i)})
		attempt(e, 500, fmt.Sprint("e", i))
	}
	assert.Len(t, *s.unmounted.series[0].known.m.Load(), maxSeries)
	assert.Len(t, *e.series.known.m.Load(), maxSeries)
	assert.Len(t, r.points("http.server.request.duration"), 2*maxSeries, "what is not kept is recorded nevertheless")
}

func TestSplitHost(t *testing.T) {
	tests := []struct {
		in, host string
		port     int
	}{
		{"", "", 0},
		{"example.com", "example.com", 0},
		{"example.com:80", "example.com", 80},
		{"example.com:", "example.com", 0},
		{"example.com:x", "example.com", 0},
		{"example.com:70000", "example.com", 0},
		{"[::1]", "::1", 0},
		{"[::1]:80", "::1", 80},
		{"::1", "::1", 0},
		{"[", "", 0},
		{":", "", 0},
		{"@", "@", 0},
	}
	for _, tt := range tests {
		host, port := splitHost(tt.in)
		assert.Equal(t, tt.host, host, "%q", tt.in)
		assert.Equal(t, tt.port, port, "%q", tt.in)
	}
}
