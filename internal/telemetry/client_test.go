package telemetry

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

func noopTracer() trace.TracerProvider { return noop.NewTracerProvider() }

func TestClientSpan(t *testing.T) {
	tests := []struct {
		name                string
		config              EndpointConfig
		method, path, query string
		resend              int
		span                string
		want                map[string]any
	}{
		{
			name:   "plain",
			config: EndpointConfig{Scheme: "http", Host: "u.internal", Port: 8000},
			method: "GET", path: "/v1/42", query: "a=1", span: "GET",
			want: map[string]any{
				"http.request.method": "GET", "server.address": "u.internal", "server.port": int64(8000),
				"url.full": "http://u.internal:8000/v1/42?a=1", "gateway.service": "users",
			},
		},
		{
			name:   "default port",
			config: EndpointConfig{Scheme: "https", Host: "u.internal"},
			method: "POST", path: "/", span: "POST",
			want: map[string]any{
				"http.request.method": "POST", "server.address": "u.internal", "server.port": int64(443),
				"url.full": "https://u.internal/", "gateway.service": "users",
			},
		},
		{
			name:   "IPv6",
			config: EndpointConfig{Scheme: "http", Host: "[2001:db8::1]", Port: 80},
			method: "GET", path: "/", span: "GET",
			want: map[string]any{
				"http.request.method": "GET", "server.address": "2001:db8::1", "server.port": int64(80),
				"url.full": "http://[2001:db8::1]/", "gateway.service": "users",
			},
		},
		{
			name:   "IPv6 with port",
			config: EndpointConfig{Scheme: "http", Host: "2001:db8::1", Port: 81},
			method: "GET", path: "/", span: "GET",
			want: map[string]any{
				"http.request.method": "GET", "server.address": "2001:db8::1", "server.port": int64(81),
				"url.full": "http://[2001:db8::1]:81/", "gateway.service": "users",
			},
		},
		{
			name:   "a socket",
			config: EndpointConfig{Scheme: "http", Host: "/run/users.sock", Socket: true},
			method: "GET", path: "/x", span: "GET",
			want: map[string]any{
				"http.request.method": "GET", "server.address": "/run/users.sock",
				"url.full": "http://localhost/x", "gateway.service": "users",
			},
		},
		{
			name:   "credentials and a resend",
			config: EndpointConfig{Scheme: "http", Host: "u:canary@u.internal", Port: 80},
			method: "GET", path: "/x", query: "X-Amz-Signature=canary&a=%20", resend: 2, span: "GET",
			want: map[string]any{
				"http.request.method": "GET", "server.address": "u.internal", "server.port": int64(80),
				"url.full": "http://u.internal/x?X-Amz-Signature=REDACTED&a=%20", "gateway.service": "users",
				"http.request.resend_count": int64(2),
			},
		},
		{
			name:   "unknown method",
			config: EndpointConfig{Scheme: "http", Host: "u.internal", Port: 80},
			method: "PURGE", path: "/x\xff", span: "HTTP",
			want: map[string]any{
				"http.request.method": "_OTHER", "http.request.method_original": "PURGE", "server.address": "u.internal",
				"server.port": int64(80), "url.full": "http://u.internal/x\uFFFD", "gateway.service": "users",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			var c Client
			r.Service(ServiceConfig{Name: "users"}).Endpoint(tt.config).StartClient(context.Background(), &c, tt.method, tt.path, tt.query, tt.resend, Ref{})
			c.Peer(peerOfTests)
			c.Head(200, "HTTP/1.1")
			c.End("", time.Millisecond)

			tt.want["http.response.status_code"] = int64(200)
			tt.want["network.protocol.version"] = "1.1"
			tt.want["network.peer.address"] = "10.1.2.3"
			tt.want["network.peer.port"] = int64(8000)
			assert.Equal(t, tt.span, r.span().Name())
			assert.Equal(t, trace.SpanKindClient, r.span().SpanKind())
			assert.Equal(t, tt.want, attributes(r.span().Attributes()))
		})
	}
}

func TestClientPeer(t *testing.T) {
	tests := []struct {
		name          string
		addr          net.Addr
		address, port any // of the span; nil: it has none
	}{
		{"IPv4", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 8000}, "10.0.0.7", int64(8000)},
		{"the same in four bytes", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7).To4(), Port: 8000}, "10.0.0.7", int64(8000)},
		{"another port", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 8001}, "10.0.0.7", int64(8001)},
		{"IPv6", &net.TCPAddr{IP: net.ParseIP("2001:db8::7"), Port: 443}, "2001:db8::7", int64(443)},
		{"IPv6 with a zone", &net.TCPAddr{IP: net.ParseIP("fe80::7"), Port: 443, Zone: "eth0"}, "fe80::7%eth0", int64(443)},
		{"the same with another", &net.TCPAddr{IP: net.ParseIP("fe80::7"), Port: 443, Zone: "eth1"}, "fe80::7%eth1", int64(443)},
		{"a socket has no port", &net.UnixAddr{Name: "/run/users:1.sock", Net: "unix"}, "/run/users:1.sock", nil},
		{"a socket without a name", &net.UnixAddr{Net: "unix"}, nil, nil},
		{"something of the app's", pipeAddr{}, nil, nil},
		{"nobody knows", nil, nil, nil},
		{"IPv4 again", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 8000}, "10.0.0.7", int64(8000)},
	}
	r := newRig(t)
	e := r.Service(ServiceConfig{Name: "users"}).Endpoint(EndpointConfig{Scheme: "http", Host: "u.internal", Port: 8000})
	for _, tt := range tests {
		var c Client
		e.StartClient(context.Background(), &c, "GET", "/", "", 0, Ref{})
		c.Peer(tt.addr)
		c.End("reset", time.Millisecond)
		spans := r.spans.Ended()
		got := attributes(spans[len(spans)-1].Attributes())
		assert.Equal(t, tt.address, got["network.peer.address"], tt.name)
		assert.Equal(t, tt.port, got["network.peer.port"], tt.name)
	}
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

func TestClientOutcome(t *testing.T) {
	tests := []struct {
		name             string
		status           int // 0: no header came
		given            string
		code             codes.Code
		errorType, proto any
	}{
		{"a success is no error", 200, "", codes.Unset, nil, "1.1"},
		{"nor is a redirect", 304, "", codes.Unset, nil, "1.1"},
		{"nor an upgrade", 101, "", codes.Unset, nil, "1.1"},
		{"a 4xx is an error", 404, "", codes.Error, "404", "1.1"},
		{"a 5xx is an error", 503, "", codes.Error, "503", "1.1"},
		{"a failure before the header", 0, "dial", codes.Error, "dial", nil},
		{"a failure in the body", 200, "truncated", codes.Error, "truncated", "1.1"},
		{"an attempt that nobody waits for is none", 0, "", codes.Unset, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			var c Client
			at(r.users()).StartClient(context.Background(), &c, "GET", "/", "", 0, Ref{})
			if tt.status != 0 {
				c.Peer(peerOfTests)
				c.Head(tt.status, "HTTP/1.1")
			}
			c.End(tt.given, time.Millisecond)

			span := attributes(r.span().Attributes())
			assert.Equal(t, tt.code, r.span().Status().Code)
			assert.Empty(t, r.span().Status().Description)
			assert.Equal(t, tt.errorType, span["error.type"])

			want := map[string]any{"http.request.method": "GET", "server.address": "u.internal", "server.port": int64(8000)}
			for k, v := range map[string]any{"error.type": tt.errorType, "network.protocol.version": tt.proto} {
				if v != nil {
					want[k] = v
				}
			}
			if tt.status != 0 {
				want["http.response.status_code"] = int64(tt.status)
			}
			points := r.points("http.client.request.duration")
			require.Len(t, points, 1)
			assert.Equal(t, want, attributes(points[0].Attributes.ToSlice()))
		})
	}
}

// Each endpoint of a service has spans and series of its own.
func TestEndpointsAreToldApart(t *testing.T) {
	r := newRig(t)
	s := r.users()
	for _, host := range []string{"one", "two"} {
		e := s.Endpoint(EndpointConfig{Scheme: "http", Host: host})
		for range 2 {
			var c Client
			e.StartClient(context.Background(), &c, "GET", "/", "", 0, Ref{})
			c.End("", time.Millisecond)
		}
	}
	var spans, series []any
	for _, span := range r.spans.Ended() {
		spans = append(spans, attributes(span.Attributes())["server.address"])
	}
	for _, p := range r.points("http.client.request.duration") {
		assert.EqualValues(t, 2, p.Count)
		series = append(series, attributes(p.Attributes.ToSlice())["server.address"])
	}
	assert.Equal(t, []any{"one", "one", "two", "two"}, spans)
	assert.ElementsMatch(t, []any{"one", "two"}, series)
}

func TestAttemptsAreSiblingsUnderTheRequest(t *testing.T) {
	r := newRig(t)
	s := r.users()
	var sv Server
	ctx := s.StartServer(&sv, httptest.NewRequest(http.MethodGet, "/users/1", nil))
	for i := range 3 {
		var c Client
		at(s).StartClient(ctx, &c, "GET", "/1", "", i, Ref{})
		c.Head(503, "HTTP/1.1")
		c.End("", time.Millisecond)
	}
	sv.End(&ServerResult{Status: 503})

	spans := r.spans.Ended()
	require.Len(t, spans, 4)
	for i, want := range []any{nil, int64(1), int64(2)} {
		assert.Equal(t, spans[3].SpanContext().SpanID(), spans[i].Parent().SpanID())
		assert.Equal(t, want, attributes(spans[i].Attributes())["http.request.resend_count"])
	}
}

func TestClientEndsOnce(t *testing.T) {
	r := newRig(t)
	var c Client
	at(r.users()).StartClient(context.Background(), &c, "GET", "/", "", 0, Ref{})
	c.Head(200, "HTTP/2.0")
	c.End("", time.Millisecond)
	c.End("reset", time.Second)

	assert.Nil(t, attributes(r.span().Attributes())["error.type"])
	points := r.points("http.client.request.duration")
	require.Len(t, points, 1)
	assert.EqualValues(t, 1, points[0].Count)
}

func TestParseVersion(t *testing.T) {
	for proto, want := range map[string]string{
		"HTTP/1.0": "1.0", "HTTP/1.1": "1.1", "HTTP/2.0": "2", "HTTP/2": "2", "HTTP/3.0": "3", "HTTP/3": "3",
		"": "", "HTTP/1.2": "", "http/1.1": "", "HTTP/9.9": "",
	} {
		assert.Equal(t, want, parseVersion(proto).String(), proto)
	}
	for _, v := range [][2]int{{1, 0}, {1, 1}, {2, 0}, {3, 0}} {
		assert.NotEqual(t, versionUnknown, versionOf(v[0], v[1]))
	}
	for _, v := range [][2]int{{0, 9}, {1, 2}, {2, 1}, {4, 0}, {-1, -1}} {
		assert.Equal(t, versionUnknown, versionOf(v[0], v[1]))
	}
}

func TestMethodOf(t *testing.T) {
	for _, name := range []string{"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"} {
		m := methodOf(name)
		assert.Equal(t, name, m.attribute().Value.AsString())
		assert.Equal(t, name, m.spanName(""))
		assert.Equal(t, name+" /x", m.spanName("/x"))
	}
	assert.Equal(t, methodGet, methodOf(""))
	for _, name := range []string{"get", "PROPFIND", "_OTHER", "GET ", "\xff"} {
		assert.Equal(t, methodOther, methodOf(name))
	}
	assert.Equal(t, "_OTHER", methodOther.attribute().Value.AsString())
	assert.Equal(t, "HTTP /x", methodOther.spanName("/x"))
}
