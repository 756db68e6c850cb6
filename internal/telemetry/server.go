package telemetry

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// statusClientLeft is what records say of a client that did not wait.
const statusClientLeft = 499

// Server is the telemetry of one inbound request, from StartServer to End. Its
// zero value records nothing. It is not safe for concurrent use.
type Server struct {
	service *Service
	route   *route
	ctx     context.Context
	span    trace.Span // nil: none
	r       *http.Request
	method  method
	version version
	secure  bool
	inner   bool // inside a span of this process
	bare    bool // the span began without what depends on the request
	ended   bool
}

// ServerResult is how an inbound request ended.
type ServerResult struct {
	Status        int           // as sent; 499 when the client left, which is no error; 0 for none
	ErrorType     string        // why we refused or failed, from a closed list; "" otherwise
	Failed        bool          // it is an error of ours whatever its status says, as gRPC's does not
	Aborted       bool          // the response ended before it was whole
	Duration      time.Duration // what the span took
	Own           time.Duration // of it, what the gateway itself took
	RequestBytes  int64         // of the body, read; left out unless positive
	ResponseBytes int64         // of the body, written; left out unless positive
	CacheResult   string        // from a closed list; "" when no cache was asked
	ClientAddress string        // the client behind trusted proxies; "" for the peer
}

// StartServer begins the telemetry of r in sv, and returns the context for what
// is done on its behalf. The trace of the client is continued, or, of one that is
// not to be trusted, linked to. Inside a local
// span, one that the app started in this process, the span becomes its child of
// internal kind, for the request has its server span already.
func (s *Service) StartServer(sv *Server, r *http.Request) context.Context {
	*sv = Server{
		service: s,
		route:   s.route(r.Pattern),
		r:       r,
		ctx:     r.Context(),
		method:  methodOf(r.Method),
		version: versionOf(r.ProtoMajor, r.ProtoMinor),
		secure:  r.TLS != nil,
	}
	if parent := trace.SpanContextFromContext(sv.ctx); parent.IsValid() {
		sv.inner = !parent.IsRemote()
	} else {
		sv.ctx = s.extract(sv.ctx, r.Header)
	}
	var client Ref
	if s.public && !sv.inner {
		sv.ctx, client = Detach(sv.ctx)
	}
	if !sv.inner {
		s.telemetry.active[sv.method][index(sv.secure)].begun.Add(1)
	}
	if s.telemetry.tracer != nil {
		sv.start(r, client)
	}
	return sv.ctx
}

// Detach returns ctx without the trace that it has, and what that was.
func Detach(ctx context.Context) (context.Context, Ref) {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return ctx, Ref{}
	}
	return trace.ContextWithSpanContext(ctx, trace.SpanContext{}), Ref{&sc}
}

// A Ref refers to a span. The zero value refers to none.
type Ref struct{ to *trace.SpanContext }

// on returns the options for a span that links to what is referred to.
func (r Ref) on(options []trace.SpanStartOption) []trace.SpanStartOption {
	if r.to == nil {
		return options
	}
	return append(slices.Clip(options), trace.WithLinks(trace.Link{SpanContext: *r.to}))
}

func refOf(span trace.Span) (r Ref) {
	if span == nil {
		return r
	}
	if sc := span.SpanContext(); sc.IsSampled() {
		r.to = &sc
	}
	return r
}

// Ref refers to the request's span, whether it has ended or not.
func (sv *Server) Ref() Ref { return refOf(sv.span) }

// Link says that the request was answered by what another span is about.
func (sv *Server) Link(r Ref) {
	if sv.span != nil && r.to != nil && sv.span.IsRecording() {
		sv.span.AddLink(trace.Link{SpanContext: *r.to})
	}
}

// start starts the span with what a sampler needs. The rest is added in the end,
// at once: each time that attributes are set costs the SDK a copy of all.
func (sv *Server) start(r *http.Request, link Ref) {
	t, st := sv.service.telemetry, sv.route.start(sv)
	if sv.bare = !t.sampling(); sv.bare {
		sv.ctx, sv.span = t.tracer.Start(sv.ctx, st.name, link.on(st.options)...)
		return
	}
	path, _ := target(r)
	v := st.vary(semconv.URLPath(text(path, maxURL)))
	sv.ctx, sv.span = t.tracer.Start(sv.ctx, st.name, link.on(v.options)...)
	st.put(v)
}

func (sv *Server) describe(attrs []attribute.KeyValue) []attribute.KeyValue {
	r := sv.r
	path, query := target(r)
	if sv.bare {
		attrs = append(attrs, semconv.URLPath(text(path, maxURL)))
	}
	if query != "" {
		attrs = append(attrs, semconv.URLQuery(text(redactQuery(cut(query)), maxURL)))
	}
	if sv.method == methodOther {
		attrs = append(attrs, semconv.HTTPRequestMethodOriginal(text(r.Method, maxText)))
	}
	if sv.version != versionUnknown {
		attrs = append(attrs, semconv.NetworkProtocolVersion(sv.version.String()))
	}
	if host, port := splitHost(r.Host); host != "" {
		attrs = append(attrs, semconv.ServerAddress(text(host, maxText)))
		if port != 0 {
			attrs = append(attrs, semconv.ServerPort(port))
		}
	}
	if agents := r.Header["User-Agent"]; len(agents) > 0 && agents[0] != "" {
		attrs = append(attrs, semconv.UserAgentOriginal(text(agents[0], maxText)))
	}
	return attrs
}

// End records the request. Only the first call counts.
func (sv *Server) End(res *ServerResult) {
	if sv.service == nil || sv.ended {
		return
	}
	sv.ended = true
	o := res.outcome()
	t := sv.service.telemetry
	if !sv.inner {
		t.active[sv.method][index(sv.secure)].ended.Add(1)
	}
	histogram := t.server
	if sv.inner {
		histogram = t.gateway
	}
	key := seriesKey{outcome: o, method: sv.method, version: sv.version, secure: sv.secure}
	options := sv.route.series[index(sv.inner)].record(key, res.Duration, func() []attribute.KeyValue { return sv.route.fixed(sv.secure) })
	if histogram.Enabled(sv.ctx) {
		histogram.Record(sv.ctx, res.Duration.Seconds(), options...)
	}
	if sv.service.own.record(res.Own); t.own.Enabled(sv.ctx) {
		t.own.Record(sv.ctx, res.Own.Seconds(), sv.service.own.options...)
	}
	if sv.span != nil {
		sv.endSpan(res, o)
	}
}

// outcome judges by the conventions for servers: a 4xx is the client's error
// and not the span's, and a client that left is none.
func (res *ServerResult) outcome() outcome {
	o := outcome{status: validStatus(res.Status)}
	if res.Status != statusClientLeft && (o.status >= 500 || res.Aborted || res.Failed) {
		o.failed, o.errorType = true, res.ErrorType
	}
	return o
}

func (sv *Server) endSpan(res *ServerResult, o outcome) {
	if sv.span.IsRecording() {
		buf := attributeLists.Get().(*attributeList)
		sv.span.SetAttributes(sv.conclude(sv.describe(buf[:0]), res, o)...)
		buf.put()
		if o.failed {
			sv.span.SetStatus(codes.Error, "")
		}
	}
	sv.span.End()
}

func (sv *Server) conclude(attrs []attribute.KeyValue, res *ServerResult, o outcome) []attribute.KeyValue {
	attrs = o.describe(attrs)
	peer, port := splitHost(sv.r.RemoteAddr)
	if client := cmp.Or(res.ClientAddress, peer); client != "" {
		attrs = append(attrs, semconv.ClientAddress(text(client, maxText)))
	}
	attrs = appendPeer(attrs, peer, port)
	if res.ErrorType != "" {
		attrs = append(attrs, reasonKey.String(text(res.ErrorType, maxText)))
	}
	if res.CacheResult != "" {
		attrs = append(attrs, cacheResultKey.String(text(res.CacheResult, maxText)))
	}
	if res.RequestBytes > 0 {
		attrs = append(attrs, semconv.HTTPRequestBodySizeKey.Int64(res.RequestBytes))
	}
	if res.ResponseBytes > 0 {
		attrs = append(attrs, semconv.HTTPResponseBodySizeKey.Int64(res.ResponseBytes))
	}
	return attrs
}

// target returns path and query as the client sent them, which a StripPrefix
// around the gateway has not shortened.
func target(r *http.Request) (path, query string) {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, query, _ = strings.Cut(r.RequestURI, "?")
		return path, query
	}
	return r.URL.EscapedPath(), r.URL.RawQuery
}

// splitHost splits host[:port]; port is 0 when there is none. An IPv6 address
// loses its brackets.
func splitHost(hostport string) (host string, port int) {
	host = hostport
	if i := strings.LastIndexByte(hostport, ':'); i >= 0 && (strings.IndexByte(hostport, ':') == i || strings.HasSuffix(hostport[:i], "]")) {
		host = hostport[:i]
		if n, err := strconv.ParseUint(hostport[i+1:], 10, 16); err == nil {
			port = int(n)
		}
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), port
}

// appendPeer appends the other end of a connection; port is 0 where there is none.
func appendPeer(attrs []attribute.KeyValue, host string, port int) []attribute.KeyValue {
	if host == "" {
		return attrs
	}
	attrs = append(attrs, semconv.NetworkPeerAddress(text(host, maxText)))
	if port != 0 {
		attrs = append(attrs, semconv.NetworkPeerPort(port))
	}
	return attrs
}
