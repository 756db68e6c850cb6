// Package telemetry traces and measures the gateway through the OpenTelemetry
// API, by the HTTP semantic conventions 1.43: one span for each inbound
// request, one for each attempt that is sent to an upstream, and their
// durations.
//
// What comes from outside is bounded before it becomes telemetry: methods fold
// to a closed list, texts are cut and made valid UTF-8, credentials in a query
// are redacted, and no metric is labelled by anything that a client chooses.
//
// With an explicit no-op provider nothing is recorded and nothing allocated.
package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// scope is the instrumentation scope of all that this package records.
const scope = "github.com/embedgw/gateway"

// Config says where telemetry goes. The zero value uses the OpenTelemetry
// globals as they are when New is called; globals that are set later are
// followed as the OpenTelemetry API does it.
type Config struct {
	Tracer     trace.TracerProvider          // nil: the global one
	Meter      metric.MeterProvider          // nil: the global one
	Propagator propagation.TextMapPropagator // nil: the global one
	Version    string                        // of the instrumentation scope
}

// Telemetry holds the instruments that all services share. It is safe for
// concurrent use; make it with New.
type Telemetry struct {
	instruments
	propagator propagation.TextMapPropagator
	fields     atomic.Pointer[[]string] // the propagator's Fields in canonical form, once known

	unrouted [2]*Service // by index of public
}

// instruments are what the providers have given.
type instruments struct {
	tracer      trace.Tracer         // nil: spans go nowhere
	placeholder trace.TracerProvider // the global provider while none is set; else nil
	meter       metric.Meter

	server  metric.Float64Histogram
	gateway metric.Float64Histogram
	client  metric.Float64Histogram
	own     metric.Float64Histogram
	conn    metric.Float64Histogram

	active  *activeRequests // outside of spans of the app's
	servers *servers
}

// New creates the instruments. It fails when the meter provider refuses one.
func New(c Config) (*Telemetry, error) {
	t := newTelemetry(c)
	t.active, t.servers = new(activeRequests), &servers{known: make(map[attribute.Distinct]*server)}
	t.setTracer(c)
	if err := t.setMeter(c); err != nil {
		return nil, err
	}
	return t, nil
}

// With returns telemetry by another configuration, which uses the same
// instruments: its providers are ignored.
func (t *Telemetry) With(c Config) *Telemetry {
	other := newTelemetry(c)
	other.instruments = t.instruments
	for i, s := range other.unrouted {
		s.share(t.unrouted[i])
	}
	return other
}

func newTelemetry(c Config) *Telemetry {
	t := &Telemetry{propagator: c.Propagator}
	if t.propagator == nil {
		t.propagator = otel.GetTextMapPropagator()
	}
	t.unrouted = [2]*Service{newService(t, ServiceConfig{}), newService(t, ServiceConfig{Public: true})}
	t.unrouted[1].share(t.unrouted[0]) // they are one to whoever reads it
	return t
}

func (t *Telemetry) setTracer(c Config) {
	provider := c.Tracer
	if provider == nil {
		provider = otel.GetTracerProvider()
		if isPlaceholder(provider) {
			t.placeholder = provider
		}
	}
	if _, ok := provider.(noop.TracerProvider); ok {
		return
	}
	t.tracer = provider.Tracer(scope,
		trace.WithInstrumentationVersion(c.Version), trace.WithSchemaURL(semconv.SchemaURL))
}

func (t *Telemetry) setMeter(c Config) error {
	provider := c.Meter
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	t.meter = provider.Meter(scope,
		metric.WithInstrumentationVersion(c.Version), metric.WithSchemaURL(semconv.SchemaURL))

	server, serverErr := httpconv.NewServerRequestDuration(t.meter)
	client, clientErr := httpconv.NewClientRequestDuration(t.meter)
	conn, connErr := httpconv.NewClientConnectionDuration(t.meter, metric.WithExplicitBucketBoundaries(secondsOf(connBounds)...))
	gateway, gatewayErr := t.meter.Float64Histogram(innerDurations.name,
		metric.WithUnit("s"),
		metric.WithDescription(innerDurations.what), metric.WithExplicitBucketBoundaries(secondsOf(bounds)...))
	own, ownErr := t.meter.Float64Histogram(ownDurations.name,
		metric.WithUnit("s"),
		metric.WithDescription(ownDurations.what), metric.WithExplicitBucketBoundaries(secondsOf(ownBounds)...))
	if err := errors.Join(serverErr, clientErr, connErr, gatewayErr, ownErr); err != nil {
		return fmt.Errorf("create instruments: %w", err)
	}
	t.server, t.client, t.conn, t.gateway, t.own = server.Inst(), client.Inst(), conn.Inst(), gateway, own
	return nil
}

// isPlaceholder reports whether p is what OpenTelemetry returns while no global
// tracer provider is set. The API has no way to ask; if the type moves, spans
// that go nowhere cost a little more and nothing else changes.
func isPlaceholder(p trace.TracerProvider) bool {
	typ := reflect.TypeOf(p)
	return typ.Kind() == reflect.Pointer &&
		typ.Elem().PkgPath() == "go.opentelemetry.io/otel/internal/global"
}

// sampling reports whether a sampler may look at the attributes that a span
// starts with. While no global provider is set there is none: then only
// prebuilt options are passed, so that a span costs what OpenTelemetry itself
// makes of it. (It is started nevertheless: an attached eBPF agent hooks it.)
func (t *Telemetry) sampling() bool {
	return t.placeholder == nil || t.placeholder != otel.GetTracerProvider()
}

// ServiceConfig describes a service to its telemetry.
type ServiceConfig struct {
	Name  string
	Whole bool // the whole path is forwarded: it has no segment that names the service

	Mount   string // the path that the app has mounted the service's handler below; "": the pattern tells
	Public  bool   // a client's trace is not continued, but linked to
	Silent  bool   // requests to the service carry no trace context
	Baggage bool   // take baggage from clients and send it to the service
}

// Service holds what is prepared for one service. It is safe for concurrent
// use; its caches are bounded.
type Service struct {
	telemetry *Telemetry
	name      string
	whole     bool
	routed    bool // a known service: its routes have templates
	mount     string
	public    bool
	silent    bool
	baggage   bool
	unmounted *route // for requests without a pattern
	*book
}

// book is what was recorded of a service, and what is prepared to do so.
type book struct {
	own    *series               // of the gateway's own part of its requests
	mounts table[string, *route] // by WithMountPath: those that were are told of, too
	routes table[string, *route] // by pattern
}

// share has s record what is of requests for no service in the same book.
func (s *Service) share(other *Service) { s.book, s.unmounted = other.book, other.unmounted }

// Service prepares the telemetry of one service.
func (t *Telemetry) Service(c ServiceConfig) *Service {
	s := newService(t, c)
	s.routed = true
	s.unmounted = s.mountedAt()
	return s
}

// Resume prepares a service that goes on where another one of its name, by the
// same instruments, has come to.
func (t *Telemetry) Resume(before *Service, c ServiceConfig) *Service {
	s := newService(t, c)
	s.routed, s.book = true, before.book
	s.unmounted = s.mountedAt()
	return s
}

// mountedAt returns the route of requests without a pattern. Of an app that moves the
// handler more often than there is room for, what the last one counts is told
// as long as it stays.
func (s *Service) mountedAt() *route {
	if r, ok := s.mounts.get(s.mount); ok {
		return r
	}
	made := s.newRoute("")
	if r, ok := s.mounts.put(s.mount, made, maxRoutes); ok {
		return r
	}
	return made
}

// Unrouted is for requests that belong to no known service: they have no route,
// and their spans are named by the method alone. Public is as in ServiceConfig.
func (t *Telemetry) Unrouted(public bool) *Service { return t.unrouted[index(public)] }

func newService(t *Telemetry, c ServiceConfig) *Service {
	s := &Service{
		telemetry: t, name: text(c.Name, maxText), whole: c.Whole, unmounted: &route{}, book: &book{},
		mount: c.Mount, public: c.Public, silent: c.Silent, baggage: c.Baggage,
	}
	var attrs []attribute.KeyValue
	if s.name != "" {
		attrs = append(attrs, serviceKey.String(s.name))
	}
	s.own = newSeries(ownBounds, seriesKey{}, attrs)
	return s
}

// EndpointConfig describes one of the servers of a service to its telemetry, as
// it was configured: no address that its name was resolved to.
type EndpointConfig struct {
	Scheme string // http or https
	Host   string // a name or an address, IPv6 with or without brackets; of a socket: its path
	Port   int    // 0: the scheme's default
	Socket bool   // of this machine: it has no port
}

// Endpoint holds what is prepared for one server of a service. It is safe for
// concurrent use; its caches are bounded.
type Endpoint struct {
	service *Service
	where   []attribute.KeyValue // server.address and server.port
	origin  string               // scheme://host[:port]
	starts  [methodCount]atomic.Pointer[start]
	peer    atomic.Pointer[peer] // which the last connection led to
	*server
	left struct{ waits, waitTime atomic.Int64 } // of connections' pools that are no more
}

// Endpoint prepares the telemetry of attempts at one server. End it with Release.
func (s *Service) Endpoint(c EndpointConfig) *Endpoint {
	e := &Endpoint{service: s}
	e.locate(c)
	e.server = s.telemetry.servers.at(e.where)
	return e
}

// Left adds what has come of a pool of connections to the server that is no more,
// so that what is told of all of them does not fall.
func (e *Endpoint) Left(waits int64, waitTime time.Duration) {
	e.left.waits.Add(waits)
	e.left.waitTime.Add(int64(waitTime))
}

// Release forgets what was recorded of the server, unless another endpoint is
// there, too.
func (e *Endpoint) Release() { e.service.telemetry.servers.release(e.server) }

// A server is what was recorded of attempts at one: the conventions' attributes do
// not say of which service, so whoever reads them would take it for a restart if
// one of several services took its part away with it.
type server struct {
	series seriesTable
	conns  [version3 + 1]connSeries // by what they speak
	key    attribute.Distinct
	users  int // guarded by servers.mu
}

// servers are those that endpoints are at. It is safe for concurrent use.
type servers struct {
	mu    sync.Mutex
	known map[attribute.Distinct]*server
}

func (s *servers) at(where []attribute.KeyValue) *server {
	set := attribute.NewSet(slices.Clone(where)...) // it sorts what it is given
	key := set.Equivalent()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[key] == nil {
		s.known[key] = newServer(where, key)
	}
	s.known[key].users++
	return s.known[key]
}

func (s *servers) release(one *server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(s.known, one.key)
	}
}

func newServer(where []attribute.KeyValue, key attribute.Distinct) *server {
	s := &server{key: key}
	for v := range s.conns {
		attrs := slices.Clone(where)
		if v != int(versionUnknown) {
			attrs = append(attrs, semconv.NetworkProtocolVersion(version(v).String())) //nolint:gosec // of few
		}
		set := attribute.NewSet(slices.Clone(attrs)...)
		s.conns[v] = connSeries{newSeries(connBounds, seriesKey{}, attrs), set.Equivalent()}
	}
	return s
}

func (s *server) tellDurations(tell teller) {
	s.series.each(tell, clientDurations)
	for _, conns := range s.conns {
		if conns.used() {
			tell.durations(connDurations, conns.series)
		}
	}
}

// connSeries are the lives of connections.
type connSeries struct {
	*series
	id attribute.Distinct // of its attributes
}

func (e *Endpoint) locate(c EndpointConfig) {
	if c.Socket {
		e.where = []attribute.KeyValue{semconv.ServerAddress(text(c.Host, maxText))}
		e.origin = c.Scheme + "://localhost"
		return
	}
	host := c.Host[strings.LastIndexByte(c.Host, '@')+1:] // no userinfo in url.full
	host = text(strings.Trim(host, "[]"), maxText)
	standard := 80
	if c.Scheme == "https" {
		standard = 443
	}
	port := cmp.Or(c.Port, standard)
	authority := net.JoinHostPort(host, strconv.Itoa(port))
	if port == standard {
		authority = strings.TrimSuffix(authority, ":"+strconv.Itoa(port))
	}
	e.where = []attribute.KeyValue{semconv.ServerAddress(host), semconv.ServerPort(port)}
	e.origin = c.Scheme + "://" + authority
}

// Closed records how long a connection to the server has lived. Proto is what it
// spoke, as in http.Response.
func (e *Endpoint) Closed(proto string, lived time.Duration) {
	s := e.conns[parseVersion(proto)]
	s.record(lived)
	ctx := context.Background()
	if conn := e.service.telemetry.conn; conn.Enabled(ctx) {
		conn.Record(ctx, lived.Seconds(), s.options...)
	}
}
