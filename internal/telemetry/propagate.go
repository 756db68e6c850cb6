package telemetry

import (
	"context"
	"net/http"
	"net/textproto"
	"strings"

	"go.opentelemetry.io/otel/propagation"
)

// The headers of W3C Trace Context, as http.Header has them.
const (
	traceparent = "Traceparent"
	tracestate  = "Tracestate"
)

// maxTraceState is how many bytes of tracestate are believed or passed on; 512
// is the least that must be (W3C Trace Context §3.3.1.5). More is dropped, as a
// whole: half a list says something that nobody said.
const maxTraceState = 4096

// Inject makes h, which goes to an upstream, carry the trace of ctx and no
// other: what the client sent in the propagator's fields is deleted first.
// Without a propagator the client's trace context passes as it came, in bounds.
func (s *Service) Inject(ctx context.Context, h http.Header) {
	t := s.telemetry
	fields := t.propagated()
	if len(fields) == 0 {
		if _, ok := traceState(h); !ok {
			delete(h, tracestate)
		}
		return
	}
	for _, name := range fields {
		delete(h, name)
	}
	t.propagator.Inject(ctx, t.carrier(h))
}

// extract returns ctx with the client's trace.
func (t *Telemetry) extract(ctx context.Context, h http.Header) context.Context {
	return t.propagator.Extract(ctx, t.carrier(h))
}

// propagated returns the propagator's fields in canonical form. They are asked
// for until there are some: a global propagator may be set after New.
func (t *Telemetry) propagated() []string {
	if p := t.fields.Load(); p != nil {
		return *p
	}
	fields := t.propagator.Fields()
	if len(fields) == 0 {
		return nil
	}
	names := make([]string, len(fields))
	for i, name := range fields {
		names[i] = canonical(name)
	}
	t.fields.Store(&names)
	return names
}

func (t *Telemetry) carrier(h http.Header) propagation.TextMapCarrier {
	if t.baggage {
		return carrier(h)
	}
	return plainCarrier(h)
}

// carrier reads and writes headers for a propagator. It reads a list that is
// spread over several lines as one, and a traceparent that is there twice as
// none.
type carrier http.Header

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(name string) string {
	name = canonical(name)
	lines := c[name]
	switch {
	case len(lines) == 0:
		return ""
	case name == traceparent && len(lines) > 1:
		return ""
	case name == tracestate:
		list, _ := traceState(http.Header(c))
		return list
	}
	return lines[0]
}

// Values implements propagation.ValuesGetter.
func (c carrier) Values(name string) []string { return c[canonical(name)] }

// Set implements propagation.TextMapCarrier.
func (c carrier) Set(name, value string) { c[canonical(name)] = []string{value} }

// Keys implements propagation.TextMapCarrier.
func (c carrier) Keys() []string {
	names := make([]string, 0, len(c))
	for name := range c {
		names = append(names, name)
	}
	return names
}

// plainCarrier is a carrier without baggage: clients set it freely, and it
// would reach every service and whatever copies it onto spans.
type plainCarrier http.Header

// Get implements propagation.TextMapCarrier.
func (c plainCarrier) Get(name string) string {
	if isBaggage(name) {
		return ""
	}
	return carrier(c).Get(name)
}

// Values implements propagation.ValuesGetter.
func (c plainCarrier) Values(name string) []string {
	if isBaggage(name) {
		return nil
	}
	return carrier(c).Values(name)
}

// Set implements propagation.TextMapCarrier.
func (c plainCarrier) Set(name, value string) {
	if !isBaggage(name) {
		carrier(c).Set(name, value)
	}
}

// Keys implements propagation.TextMapCarrier.
func (c plainCarrier) Keys() []string {
	names := make([]string, 0, len(c))
	for name := range c {
		if !isBaggage(name) {
			names = append(names, name)
		}
	}
	return names
}

// isBaggage knows W3C's baggage and that of the OpenTracing (ot-baggage-*) and
// Jaeger (uberctx-*) propagators.
func isBaggage(name string) bool {
	name = canonical(name)
	return name == "Baggage" || strings.HasPrefix(name, "Ot-Baggage-") ||
		strings.HasPrefix(name, "Uberctx-") || name == "Jaeger-Baggage"
}

// canonical is textproto.CanonicalMIMEHeaderKey without its allocation for the
// names that each request asks for.
func canonical(name string) string {
	switch name {
	case "traceparent":
		return traceparent
	case "tracestate":
		return tracestate
	case "baggage":
		return "Baggage"
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

// traceState joins the lines of the list (RFC 9110 §5.3); false when it is too
// long.
func traceState(h http.Header) (string, bool) {
	lines := h[tracestate]
	size := len(lines)
	for _, line := range lines {
		size += len(line)
	}
	switch {
	case size > maxTraceState:
		return "", false
	case len(lines) == 0:
		return "", true
	case len(lines) == 1:
		return lines[0], true
	}
	return strings.Join(lines, ","), true
}
