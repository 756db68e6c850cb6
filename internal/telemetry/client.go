package telemetry

import (
	"context"
	"net"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Client is the telemetry of one attempt that is sent to an upstream, from
// StartClient to End. Its zero value records nothing. It is not safe for
// concurrent use.
type Client struct {
	endpoint *Endpoint
	ctx      context.Context
	span     trace.Span // nil: none
	status   int16
	method   method
	version  version
	ended    bool
	peer     net.Addr // nil: unknown
}

// StartClient begins the telemetry of an attempt in c, and returns the context
// to send it with. Path, escaped, and query are those that go to the upstream;
// resend is 0 for the first attempt of a fetch and counts up from there. Cause is
// the request that led to an attempt outside of its own trace.
func (e *Endpoint) StartClient(ctx context.Context, c *Client, name, path, query string, resend int, cause Ref) context.Context {
	*c = Client{endpoint: e, ctx: ctx, method: methodOf(name)}
	t := e.service.telemetry
	if t.tracer == nil {
		return ctx
	}
	st := e.start(c.method)
	switch sampling := t.sampling(); {
	case !sampling:
		c.ctx, c.span = t.tracer.Start(ctx, st.name, cause.on(st.options)...)
		if c.span.IsRecording() {
			c.span.SetAttributes(e.describe(make([]attribute.KeyValue, 0, 4), name, path, query, resend)...)
		}
	case resend == 0 && c.method != methodOther:
		v := st.vary(e.url(path, query))
		c.ctx, c.span = t.tracer.Start(ctx, st.name, cause.on(v.options)...)
		st.put(v)
	default:
		options := st.with(e.describe(make([]attribute.KeyValue, 0, 4), name, path, query, resend)...)
		c.ctx, c.span = t.tracer.Start(ctx, st.name, cause.on(options)...)
	}
	return c.ctx
}

func (e *Endpoint) start(m method) *start {
	p := &e.starts[m]
	if st := p.Load(); st != nil {
		return st
	}
	attrs := append([]attribute.KeyValue{m.attribute()}, e.where...)
	if name := e.service.name; name != "" {
		attrs = append(attrs, serviceKey.String(name))
	}
	st := newStart(trace.SpanKindClient, m.spanName(""), attrs...)
	p.Store(st)
	return st
}

func (e *Endpoint) url(path, query string) attribute.KeyValue {
	return semconv.URLFull(text(e.full(path, query), len(e.origin)+2*maxURL))
}

func (e *Endpoint) full(path, query string) string {
	if query == "" {
		return e.origin + cut(path)
	}
	return e.origin + cut(path) + "?" + redactQuery(cut(query))
}

func (e *Endpoint) describe(attrs []attribute.KeyValue, name, path, query string, resend int) []attribute.KeyValue {
	attrs = append(attrs, e.url(path, query))
	if methodOf(name) == methodOther {
		attrs = append(attrs, semconv.HTTPRequestMethodOriginal(text(name, maxText)))
	}
	if resend > 0 {
		attrs = append(attrs, semconv.HTTPRequestResendCount(resend))
	}
	return attrs
}

// Ref refers to the attempt's span, whether it has ended or not.
func (c *Client) Ref() Ref { return refOf(c.span) }

// Peer notes where the connection leads that the attempt goes over; nil: nobody
// knows.
func (c *Client) Peer(addr net.Addr) { c.peer = addr }

// Head notes the final response header. Proto is as in http.Response.
func (c *Client) Head(status int, proto string) {
	c.status, c.version = validStatus(status), parseVersion(proto)
}

// End records the attempt, when the response body is closed or none will come.
// ErrorType says why it failed, from a closed list; it is "" for an attempt
// that did not fail, and for one that was cancelled because nobody waits for
// it. A status of 400 or more is an error in any case. Only the first call
// counts.
func (c *Client) End(errorType string, took time.Duration) {
	if c.endpoint == nil || c.ended {
		return
	}
	c.ended = true
	o := outcome{status: c.status, failed: errorType != "" || c.status >= 400, errorType: errorType}
	e, key := c.endpoint, seriesKey{outcome: o, method: c.method, version: c.version}
	options := e.series.record(key, took, func() []attribute.KeyValue { return slices.Clone(e.where) })
	if histogram := e.service.telemetry.client; histogram.Enabled(c.ctx) {
		histogram.Record(c.ctx, took.Seconds(), options...)
	}
	if c.span == nil {
		return
	}
	if c.span.IsRecording() {
		buf := attributeLists.Get().(*attributeList)
		attrs := o.describe(buf[:0])
		if c.version != versionUnknown {
			attrs = append(attrs, semconv.NetworkProtocolVersion(c.version.String()))
		}
		c.span.SetAttributes(e.peerOf(c.peer, attrs)...)
		buf.put()
		if o.failed {
			c.span.SetStatus(codes.Error, "")
		}
	}
	c.span.End()
}

// A peer is what connections to one address say of it.
type peer struct {
	ip    net.IP
	zone  string
	port  int
	attrs []attribute.KeyValue
}

// peerOf appends the other end of a connection. The last one is kept: as a rule a
// server has one address.
func (e *Endpoint) peerOf(addr net.Addr, attrs []attribute.KeyValue) []attribute.KeyValue {
	switch a := addr.(type) {
	case *net.TCPAddr:
		p := e.peer.Load()
		if p == nil || p.port != a.Port || p.zone != a.Zone || !p.ip.Equal(a.IP) {
			host, _ := splitHost(a.String())
			p = &peer{slices.Clone(a.IP), a.Zone, a.Port, appendPeer(nil, host, a.Port)}
			e.peer.Store(p)
		}
		return append(attrs, p.attrs...)
	case *net.UnixAddr:
		return appendPeer(attrs, a.Name, 0)
	}
	return attrs // of a connection of the app's own making
}
