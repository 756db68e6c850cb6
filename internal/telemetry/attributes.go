package telemetry

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// What a span may hold of a text that comes from outside, in bytes.
const (
	maxURL  = 2048 // paths, queries, URLs
	maxText = 256  // names, hosts, user agents
)

// The package's own attributes, where no convention exists.
const (
	serviceKey     = attribute.Key("gateway.service")
	reasonKey      = attribute.Key("gateway.reason")
	cacheResultKey = attribute.Key("gateway.cache.result")
)

// text returns s as an attribute may hold it: no more than limit bytes of it,
// and valid UTF-8, without which exporters fail.
func text(s string, limit int) string {
	s = s[:min(len(s), limit)]
	if utf8.ValidString(s) { // it takes eight bytes at once
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// An attributeList is room for all that is set on a span at its end: tracers copy
// what they are given.
type attributeList [24]attribute.KeyValue

var attributeLists = sync.Pool{New: func() any { return new(attributeList) }}

func (l *attributeList) put() {
	clear(l[:])
	attributeLists.Put(l)
}

// A method is a request method that the conventions know, or methodOther.
type method uint8

const (
	methodOther method = iota
	methodConnect
	methodDelete
	methodGet
	methodHead
	methodOptions
	methodPatch
	methodPost
	methodPut
	methodQuery
	methodTrace
	methodCount
)

// methodOf folds names; they are case-sensitive (RFC 9110 §9.1).
func methodOf(name string) method {
	switch name {
	case "GET", "": // net/http sends "" as GET
		return methodGet
	case "POST":
		return methodPost
	case "HEAD":
		return methodHead
	case "PUT":
		return methodPut
	case "DELETE":
		return methodDelete
	case "OPTIONS":
		return methodOptions
	case "PATCH":
		return methodPatch
	case "QUERY":
		return methodQuery
	case "CONNECT":
		return methodConnect
	case "TRACE":
		return methodTrace
	}
	return methodOther
}

func (m method) attribute() attribute.KeyValue {
	return [methodCount]attribute.KeyValue{
		methodOther:   semconv.HTTPRequestMethodOther,
		methodConnect: semconv.HTTPRequestMethodConnect,
		methodDelete:  semconv.HTTPRequestMethodDelete,
		methodGet:     semconv.HTTPRequestMethodGet,
		methodHead:    semconv.HTTPRequestMethodHead,
		methodOptions: semconv.HTTPRequestMethodOptions,
		methodPatch:   semconv.HTTPRequestMethodPatch,
		methodPost:    semconv.HTTPRequestMethodPost,
		methodPut:     semconv.HTTPRequestMethodPut,
		methodQuery:   semconv.HTTPRequestMethodQuery,
		methodTrace:   semconv.HTTPRequestMethodTrace,
	}[m]
}

// spanName is "{method} {target}", where an unknown method reads HTTP and an
// unknown target is left out.
func (m method) spanName(target string) string {
	name := "HTTP"
	if m != methodOther {
		name = m.attribute().Value.AsString()
	}
	if target == "" {
		return name
	}
	return name + " " + target
}

// A version is an HTTP version that exists, or versionUnknown.
type version uint8

const (
	versionUnknown version = iota
	version10
	version11
	version2
	version3
)

func versionOf(major, minor int) version {
	switch {
	case major == 1 && minor == 1:
		return version11
	case major == 2 && minor == 0:
		return version2
	case major == 1 && minor == 0:
		return version10
	case major == 3 && minor == 0:
		return version3
	}
	return versionUnknown
}

// parseVersion reads what http.Response.Proto says.
func parseVersion(proto string) version {
	switch proto {
	case "HTTP/1.1":
		return version11
	case "HTTP/2.0", "HTTP/2":
		return version2
	case "HTTP/1.0":
		return version10
	case "HTTP/3.0", "HTTP/3":
		return version3
	}
	return versionUnknown
}

func (v version) String() string {
	return [...]string{versionUnknown: "", version10: "1.0", version11: "1.1", version2: "2", version3: "3"}[v]
}

// scheme names the inbound connection's.
func scheme(secure bool) string {
	if secure {
		return "https"
	}
	return "http"
}

// An outcome is how a request or an attempt ended.
type outcome struct {
	status    int16  // 0: none, or none that exists
	failed    bool   // it is an error, by the conventions' rules
	errorType string // why; "": the status says it
}

// validStatus maps what is no status code (RFC 9110 §15) to none.
func validStatus(code int) int16 {
	if code < 100 || code > 599 {
		return 0
	}
	return int16(code)
}

// describe appends the status, and the error if it is one.
func (o outcome) describe(attrs []attribute.KeyValue) []attribute.KeyValue {
	if o.status != 0 {
		attrs = append(attrs, semconv.HTTPResponseStatusCode(int(o.status)))
	}
	switch {
	case !o.failed:
	case o.errorType != "":
		attrs = append(attrs, semconv.ErrorTypeKey.String(text(o.errorType, maxText)))
	case o.status >= 400:
		attrs = append(attrs, semconv.ErrorTypeKey.String(strconv.Itoa(int(o.status))))
	default:
		attrs = append(attrs, semconv.ErrorTypeOther)
	}
	return attrs
}

// A seriesKey is one metric series of a route or of an endpoint's attempts.
type seriesKey struct {
	outcome outcome
	method  method
	version version
	secure  bool // inbound only
}

// attributes are those of the key, which extend fixed.
func (k seriesKey) attributes(fixed []attribute.KeyValue) []attribute.KeyValue {
	attrs := append(fixed, k.method.attribute())
	attrs = k.outcome.describe(attrs)
	if k.version != versionUnknown {
		attrs = append(attrs, semconv.NetworkProtocolVersion(k.version.String()))
	}
	return attrs
}

// A start is what spans of one kind start with.
type start struct {
	name    string
	kind    trace.SpanStartOption
	attrs   []attribute.KeyValue
	options []trace.SpanStartOption // kind and attrs
	varied  sync.Pool               // of *varied
}

// varied are options for spans that start with one attribute of their own. Whatever
// a tracer learns of options is a copy, so that they are used again.
type varied struct {
	attrs   []attribute.KeyValue // the last is the span's own
	options []trace.SpanStartOption
}

func newStart(kind trace.SpanKind, name string, attrs ...attribute.KeyValue) *start {
	s := &start{name: name, kind: trace.WithSpanKind(kind), attrs: attrs}
	s.options = []trace.SpanStartOption{s.kind, trace.WithAttributes(attrs...)}
	return s
}

// vary returns the options for one span that starts with one more attribute. They
// go back when it has started.
func (s *start) vary(own attribute.KeyValue) *varied {
	v, ok := s.varied.Get().(*varied)
	if !ok {
		v = &varied{attrs: append(slices.Clone(s.attrs), own)}
		v.options = []trace.SpanStartOption{s.kind, trace.WithAttributes(v.attrs...)}
	}
	v.attrs[len(v.attrs)-1] = own
	return v
}

func (s *start) put(v *varied) {
	v.attrs[len(v.attrs)-1] = attribute.KeyValue{}
	s.varied.Put(v)
}

// with returns the options for one span that starts with more attributes.
func (s *start) with(more ...attribute.KeyValue) []trace.SpanStartOption {
	attrs := make([]attribute.KeyValue, 0, len(s.attrs)+len(more))
	attrs = append(append(attrs, s.attrs...), more...)
	return []trace.SpanStartOption{s.kind, trace.WithAttributes(attrs...)}
}

// A table is a bounded map that is read without a lock and copied on write. The
// zero value is ready and empty.
type table[K comparable, V any] struct {
	m  atomic.Pointer[map[K]V]
	mu sync.Mutex // held by writers
}

func (t *table[K, V]) get(k K) (v V, ok bool) {
	if m := t.m.Load(); m != nil {
		v, ok = (*m)[k]
	}
	return v, ok
}

// put adds k unless limit keys are there, and returns what the table has for
// it: the first value stays.
func (t *table[K, V]) put(k K, v V, limit int) (stored V, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if stored, ok = t.get(k); ok {
		return stored, true
	}
	next := make(map[K]V)
	if m := t.m.Load(); m != nil {
		if len(*m) >= limit {
			return stored, false
		}
		maps.Copy(next, *m)
	}
	next[k] = v
	t.m.Store(&next)
	return v, true
}
