package telemetry

import (
	"context"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/propagation"
)

// The headers of W3C Trace Context and Baggage, as http.Header has them.
const (
	traceparent  = "Traceparent"
	tracestate   = "Tracestate"
	baggageField = "Baggage" // of W3C Baggage
)

// maxBaggage is how many bytes of baggage are believed or passed on, which is what
// must be (W3C Baggage §3.3.2). More is dropped, as a whole.
const maxBaggage = 8192

// maxTraceState is how many bytes of tracestate are believed or passed on; 512
// is the least that must be (W3C Trace Context §3.3.1.5). More is dropped, as a
// whole: half a list says something that nobody said.
const maxTraceState = 4096

// Inject makes h, which goes to an upstream, carry the trace of ctx and no
// other: what the client sent in the propagator's fields is deleted first.
// Without a propagator the client's trace context passes as it came, in bounds,
// unless the client is not to be trusted. A silent service is sent none, of
// whatever format.
func (s *Service) Inject(ctx context.Context, h http.Header) {
	t := s.telemetry
	fields := t.propagated()
	switch {
	case s.silent:
		maps.DeleteFunc(h, func(name string, _ []string) bool { return tells(name) })
	case len(fields) == 0:
		s.pass(h)
	}
	for _, name := range fields {
		delete(h, name)
	}
	if !s.silent && !s.baggage && slices.ContainsFunc(fields, foreign) {
		maps.DeleteFunc(h, func(name string, _ []string) bool { return isBaggage(name) })
	}
	if len(fields) > 0 && !s.silent {
		t.propagator.Inject(ctx, s.carrier(h))
	}
}

// foreign reports whether a field is none of W3C's, whose baggage is dropped with
// the fields that the client may not set.
func foreign(name string) bool {
	return name != traceparent && name != tracestate && name != baggageField
}

// tells reports whether a field carries a trace, or baggage, in one of the formats
// that OpenTelemetry has propagators for. They may read more fields than they write,
// and say so of those alone.
func tells(name string) bool {
	switch name {
	case traceparent, tracestate, "B3", "Uber-Trace-Id", "X-Amzn-Trace-Id", "X-Cloud-Trace-Context", "Grpc-Trace-Bin":
		return true
	}
	return strings.HasPrefix(name, "X-B3-") || strings.HasPrefix(name, "Ot-Tracer-") || isBaggage(name)
}

// pass leaves of the client's own context what may reach the service.
func (s *Service) pass(h http.Header) {
	_, ok := traceState(h)
	if s.public {
		delete(h, traceparent)
	}
	if s.public || !ok {
		delete(h, tracestate)
	}
	if tooLong(h[baggageField]) {
		delete(h, baggageField)
	}
}

// tooLong reports whether baggage is more than is believed.
func tooLong(lines []string) bool {
	size := 0
	for _, line := range lines {
		size += len(line)
	}
	return size > maxBaggage
}

// extract returns ctx with the client's trace.
func (s *Service) extract(ctx context.Context, h http.Header) context.Context {
	return s.telemetry.propagator.Extract(ctx, s.carrier(h))
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

func (s *Service) carrier(h http.Header) propagation.TextMapCarrier {
	if s.baggage {
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
	case name == traceparent:
		return traceParent(lines[0])
	case name == tracestate:
		list, _ := traceState(http.Header(c))
		return members(list)
	case name == baggageField && tooLong(lines):
		return ""
	}
	return lines[0]
}

// Values implements propagation.ValuesGetter.
func (c carrier) Values(name string) []string {
	name = canonical(name)
	if name == baggageField && tooLong(c[name]) {
		return nil
	}
	return c[name]
}

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
	return name == baggageField || strings.HasPrefix(name, "Ot-Baggage-") ||
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
		return baggageField
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

// traceParent returns a traceparent as OpenTelemetry's propagator reads it right:
// of version 00, nothing follows the flags, not even a dash, and those that are
// reserved mean nothing (W3C Trace Context §3.2.2).
func traceParent(s string) string {
	const at, size = 53, 55 // of the flags, and of all
	switch {
	case len(s) < size || s[:3] != "00-":
		return s
	case len(s) > size:
		return ""
	case s[at] == '0' && '0' <= s[at+1] && s[at+1] <= '3', !isLowerHex(s[at]), !isLowerHex(s[at+1]):
		return s
	}
	return s[:at] + "0" + string('0'+unhex(s[at+1])&3)
}

func isLowerHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }

// members returns a list without the members that are nothing but white space,
// which may be there (W3C Trace Context §3.3.1.3).
func members(list string) string {
	blank := false
	for member := range strings.SplitSeq(list, ",") {
		blank = blank || strings.Trim(member, " \t") == ""
	}
	if !blank {
		return list
	}
	var kept []string
	for member := range strings.SplitSeq(list, ",") {
		if strings.Trim(member, " \t") != "" {
			kept = append(kept, member)
		}
	}
	return strings.Join(kept, ",")
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
