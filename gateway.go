// Package gateway is an API gateway that is imported, not deployed: an
// [http.Handler] for an existing net/http server that routes requests to named
// upstream services, caches by the HTTP standard (RFC 9111), retries within a
// budget, and shows what it does through OpenTelemetry.
//
//	gw, err := gateway.New(
//		gateway.WithService("users", "http://users:8000"),
//	)
//	…
//	mux.Handle("/api/", http.StripPrefix("/api", gw))
//
// Requests for /api/users/{path...} then go to http://users:8000/{path...}. One
// service alone, with its whole path, is an [Upstream].
//
// Options given to [New] are the defaults of all services, those inside
// [WithService] are for that one. [NewCache] makes a cache, and [WithCache] uses it.
// The app mounts [Gateway.HealthHandler], [Gateway.MetricsHandler] and
// [Gateway.DashboardHandler] where its own people reach them, and ends the gateway
// with [Gateway.Drain] and [Gateway.Shutdown].
package gateway

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/embedgw/gateway/internal/balance"
	"github.com/embedgw/gateway/internal/dash"
	"github.com/embedgw/gateway/internal/deliver"
	"github.com/embedgw/gateway/internal/explain"
	"github.com/embedgw/gateway/internal/flight"
	"github.com/embedgw/gateway/internal/flood"
	"github.com/embedgw/gateway/internal/forward"
	"github.com/embedgw/gateway/internal/h1"
	"github.com/embedgw/gateway/internal/health"
	"github.com/embedgw/gateway/internal/options"
	"github.com/embedgw/gateway/internal/retry"
	"github.com/embedgw/gateway/internal/rfc9111"
	"github.com/embedgw/gateway/internal/roundtrip"
	"github.com/embedgw/gateway/internal/stats"
	"github.com/embedgw/gateway/internal/telemetry"
	"github.com/embedgw/gateway/internal/work"
)

// A Gateway routes /{service}/{path...} to its services. It is safe for
// concurrent use. Make it with [New]; the zero value is of no use. End it with
// [Gateway.Shutdown].
type Gateway struct{ core *core }

// New makes a gateway. It starts nothing and connects to nothing. Options mean
// the same in any order, but for the last of several equal ones, which wins.
// The error joins an [*OptionError] for each fault.
func New(opts ...Option) (*Gateway, error) {
	c := readOptions("New", opts)
	core, err := newCore(&c.shared)
	if err != nil {
		return nil, errors.Join(append(c.faults(), err)...)
	}
	next, err := core.plan(c)
	if err != nil {
		return nil, err
	}
	if err := core.observe(); err != nil { // before anything else knows of the services
		return nil, err
	}
	core.install(next)
	core.life.Last(core.watched.Stop)
	return &Gateway{core}, nil
}

// Update replaces all that the gateway was told by [New], or by the last Update:
// the options are the complete list, and mean what they mean there. Requests that
// come from then on find the new services and options, all at once; those under
// way end by the old ones. If anything is at fault nothing has changed, and the
// error joins an [*OptionError] for each fault.
//
// A service whose name stays keeps its statistics, streams, tunnels, breaker,
// rate and places ([WithMaxConcurrency]), and what is known of its replicas: only
// what the options say of them changes. Its connections stay, too, unless the
// target, [WithTLSConfig], [WithTransport], [WithHTTP2] or a bound on connections
// is another; then new ones are made, and the old ones end with their requests.
// Of functions nobody can say whether they do the same as before: connections and
// cached responses stay, and what is asked from then on is the new one. (A
// *tls.Config with functions is the same as before if it is the same pointer.)
// Replicas set by [Upstream.SetReplicas] stay until the options name others than
// before. Cached responses stay unless the target, or what is sent to it in the
// gateway's name, is another.
//
// A service that is left out drains: requests inside go on, event streams and
// tunnels are told to end, and what runs beside them ends. It is unknown from
// then on; one of its name that comes later begins anew.
//
// Everything may change but [WithTracerProvider] and [WithMeterProvider], which
// have to be those of New. Calls are served one after the other. After
// [Gateway.Drain] the new services drain as well; from [Gateway.Shutdown] on the
// error is an [*Error] with [ReasonShuttingDown].
func (g *Gateway) Update(opts ...Option) error {
	o, c := readOptions("Update", opts), g.core
	c.updating.Lock()
	defer c.updating.Unlock()
	if c.closed {
		return fault(ReasonShuttingDown, errUpdate)
	}
	next, err := c.plan(o)
	if err != nil {
		return err
	}
	added, removed := c.install(next)
	c.changes.Add("", "update", fmt.Sprintf("%d more services, %d gone", added, removed))
	if next.access {
		next.log.LogAttrs(context.Background(), slog.LevelInfo, "gateway: update",
			slog.Int("gateway.services.added", added), slog.Int("gateway.services.removed", removed))
	}
	return nil
}

var errUpdate = errors.New("no update is possible any more")

// readOptions reads the list of options that a function was given.
func readOptions(option string, opts []Option) *config {
	c := &config{defaults: serviceConfig{policy: defaultPolicy()}}
	for i, o := range opts {
		if o == nil {
			c.shared.list.faultOf(option, "", nilOption(i))
			continue
		}
		o.applyGateway(c)
	}
	c.defaults.judge()
	return c
}

// nilOption says which option of a list is none.
func nilOption(i int) string { return fmt.Sprintf("opts[%d] is nil", i) }

func (c *config) faults() []error { return slices.Concat(c.shared.list.faults, c.defaults.list.faults) }

// plan judges the options, and prepares the snapshot that they make of the one
// that is there. Nothing is changed. The error joins every fault.
func (c *core) plan(o *config) (*snapshot, error) {
	next := &snapshot{
		shared: c.planShared(&o.shared), services: make(map[string]*service, len(o.declared)),
		logLimit: o.defaults.policy.logLimit, public: o.defaults.policy.tracing.public, idHeader: o.defaults.policy.requestIDHeader,
	}
	faults := o.faults()
	for _, d := range o.declared {
		sc := serviceConfig{policy: o.defaults.policy.inherit(), list: list{service: d.name}}
		if _, taken := next.services[d.name]; taken {
			sc.list.faultOf("WithService", d.name, "the name is taken by another service")
		}
		next.services[d.name] = sc.build(c, next, "WithService", d)
		faults = append(faults, sc.list.faults...)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	c.planWatches(next, o.memory)
	return next, nil
}

// install has a planned snapshot be in force, and returns how many services have
// come and gone.
func (c *core) install(next *snapshot) (added, removed int) {
	old := c.snapshot.Load()
	for name, svc := range next.services {
		svc.begin(old.services[name])
		if c.life.Draining() {
			svc.up.life.Drain()
		}
	}
	var left []*service
	for name, svc := range old.services {
		if next.services[name] == nil || next.services[name].up != svc.up {
			left = append(left, svc)
		}
	}
	c.past.swap(c, next, left)
	c.unwatched.Store(next.slow != nil || next.memory != nil)
	stopUnless(old.slow, next.slow)
	stopUnless(old.memory, next.memory)
	for name, svc := range next.services {
		if before := old.services[name]; before != nil && before.up == svc.up {
			before.end(svc)
		}
	}
	for _, svc := range left {
		c.leave(svc)
	}
	return len(next.services) - (len(old.services) - len(left)), len(left)
}

// goOn returns the watch that runs every so often: the one that is there, if it does
// already. Zero is never.
func goOn(old *work.Watch, was, every time.Duration, name string, run func(context.Context)) *work.Watch {
	switch every {
	case was:
		return old
	case 0:
		return nil
	}
	return work.NewWatch(name, run)
}

// stopUnless ends what another snapshot watches no more.
func stopUnless(old, next *work.Watch) {
	if old != nil && old != next {
		old.Stop()
	}
}

// leave has a service end that is in no snapshot any more.
func (c *core) leave(svc *service) {
	svc.end(nil)
	up := svc.up
	up.life.Refuse()
	end := func() {
		_ = work.Shutdown(context.Background(), up.life) // or until the gateway's own cuts it
		c.past.fold(up)
		up.mu.Lock()
		up.forget(nil)
		up.mu.Unlock()
		c.told.Range(func(key, _ any) bool { // what comes by its name tells it again
			if line, ok := key.([2]string); ok && line[1] == up.name {
				c.told.Delete(key)
			}
			return true
		})
	}
	if up.life.Quiet() || !c.life.Go("service that was removed", end) {
		end()
	}
}

// ServeHTTP serves /{service}/{path...}. Mount it behind [http.StripPrefix] to
// have it below a path of the app.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.route(w, r, nil) }

// Wrap returns a handler that serves requests whose first path segment is a
// service, and leaves all others to next, untouched and uncounted.
func (g *Gateway) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.route(w, r, next) })
}

func (g *Gateway) route(w http.ResponseWriter, r *http.Request, next http.Handler) {
	segment, rest := forward.Split(forward.Path(r.URL))
	for done := false; !done; {
		snap := g.core.snapshot.Load()
		svc := snap.services[segment]
		if svc == nil && next != nil {
			next.ServeHTTP(w, r)
			return
		}
		done = g.core.serve(route{snap: snap, svc: svc, rest: rest}, w, r)
	}
}

// Upstream returns the named service as a handler of its own, which forwards
// the whole path; nil if there is none of that name. It follows [Gateway.Update]
// as long as the service stays. Once it was removed the handler answers 503, also
// when another service has its name.
func (g *Gateway) Upstream(name string) *Upstream {
	if svc := g.core.snapshot.Load().services[name]; svc != nil {
		return svc.up
	}
	return nil
}

// Drain makes readiness fail and tells event streams and tunnels to end, without
// waiting for them: both sides of a WebSocket get a Close with status 1001 (RFC
// 6455 §7.4.1), and a second to answer. Requests are still served. Give it to
// [http.Server.RegisterOnShutdown].
func (g *Gateway) Drain() {
	g.core.drains("")
	g.core.updating.Lock()
	g.core.life.Drain() // and services that come later
	lives := g.core.lives()
	g.core.updating.Unlock()
	for _, l := range lives {
		l.Drain()
	}
}

// Shutdown drains, refuses new requests with 503 and waits until those inside
// and the background tasks have ended. When ctx ends first, it cuts what is
// left and returns an error that says what that was and wraps ctx.Err().
// Calling it again is fine.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.core.updating.Lock()
	g.core.closed = true
	lives := g.core.lives()
	g.core.updating.Unlock()
	return g.core.shutdown(ctx, "", lives...)
}

// shutdown ends lives, which are those of a service, or, without a name, all
// there are.
func (c *core) shutdown(ctx context.Context, service string, lives ...*work.Life) error {
	start := time.Now()
	c.drains(service)
	err := work.Shutdown(ctx, lives...)
	c.shuts(service, time.Since(start), err)
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	return nil
}

// lives are those of the gateway, of its services and of those that were removed
// and have not ended.
func (c *core) lives() []*work.Life {
	lives := []*work.Life{c.life}
	for _, svc := range c.snapshot.Load().services {
		lives = append(lives, svc.up.life)
	}
	for _, up := range c.past.leaving() {
		lives = append(lives, up.life)
	}
	return lives
}

// core is what a gateway and a stand-alone upstream have in common.
type core struct {
	snapshot atomic.Pointer[snapshot] // never nil
	life     *work.Life               // of requests for no known service, and of what watches all of them
	stats    serviceStats             // of requests for no known service
	watched  *telemetry.Watch         // once there is a snapshot
	past     past                     // of services that are no more
	started  time.Time
	prober   *health.Prober
	given    telemetryConfig // of providers

	updating sync.Mutex // held by whoever changes services
	closed   bool       // nobody does any more

	roll      work.Roll[*exchange] // those under way whose service reports slow ones
	looking   sync.Mutex           // held by whoever looks for them
	unwatched atomic.Bool          // what watches is to be started by the next request

	panics flood.Table // by where
	told   sync.Map    // changes of state that come but once, by their line and service

	slowest dash.Slowest // once there is a dashboard
	changes dash.Changes
}

// snapshot is what the options said: immutable, swapped as a whole.
type snapshot struct {
	shared
	services map[string]*service
	public   bool        // requests for no service come from whom nobody trusts
	idHeader string      // of their ids; empty: they have none
	slow     *work.Watch // for slow requests; nil: none
	every    time.Duration
	memory   *work.Watch   // of the process; nil: none
	growth   *memoryPolicy // its
	logLimit int           // lines of requests for no known service, of a kind and a second
}

// find returns the way to the service that the first segment names that names one.
func (s *snapshot) find(u *url.URL) route {
	segment, rest := forward.Split(forward.Path(u))
	for s.services[segment] == nil && rest != "" {
		segment, rest = forward.Split(rest)
	}
	return route{snap: s, svc: s.services[segment], rest: rest}
}

// route is where a request goes, by a snapshot.
type route struct {
	snap  *snapshot
	svc   *service // nil: no such service
	rest  string   // escaped path below the service
	whole bool     // which is all of the path: the service has a handler of its own
}

// life is what the request is a part of.
func (to *route) life(c *core) *work.Life {
	if to.svc == nil {
		return c.life
	}
	return to.svc.up.life
}

// caches are those that the services use, each once.
func (s *snapshot) caches() (all []*Cache) {
	for _, name := range slices.Sorted(maps.Keys(s.services)) { // in one order
		if c := s.services[name].policy.cache; c != nil && !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}

// shared is what options about a whole gateway, upstream or cache said.
type shared struct {
	log       *slog.Logger
	access    bool // log a line for each request
	onError   ErrorHandler
	telemetry *telemetry.Telemetry
	given     telemetryConfig // what it was made by
}

// newCore makes a core without services.
func newCore(c *sharedConfig) (*core, error) {
	t, err := telemetry.New(c.telemetry.config())
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	co := &core{started: time.Now(), prober: health.NewProber(maxProbes), given: c.telemetry}
	co.snapshot.Store(&snapshot{shared: c.shared(t)})
	co.stats.begin(0)
	co.life = work.NewLife(co.panicked)
	return co, nil
}

// planShared is what the options say beyond the services. Instruments are bound to
// their providers.
func (c *core) planShared(o *sharedConfig) shared {
	const bound = "is not that of New, to which the instruments belong; give that again, or make another gateway"
	if !options.Alike(o.telemetry.tracer, c.given.tracer) {
		o.list.faultOf("WithTracerProvider", "", bound)
	}
	if !options.Alike(o.telemetry.meter, c.given.meter) {
		o.list.faultOf("WithMeterProvider", "", bound)
	}
	old := c.snapshot.Load()
	t := old.telemetry
	if !options.Same(o.telemetry, old.given) {
		t = t.With(o.telemetry.config())
	}
	return o.shared(t)
}

// log is where a line goes that is about no request.
func (c *core) log() *slog.Logger { return c.snapshot.Load().log }

// exchange is one inbound request and what becomes of it: filled on the way,
// read at header time and once in its end.
type exchange struct {
	core *core
	route
	life  *work.Life
	w     http.ResponseWriter
	r     *http.Request
	ctx   context.Context // r's, with the server span
	start time.Time
	ended time.Time // zero: not before it is recorded
	laps  stats.Laps
	span  telemetry.Server
	cause telemetry.Ref // the request that led to this one, which is none of a client's

	special http.Header // r's, if there is something in it that changes how it is answered; else nil
	query   string
	prefix  string      // what the app and the gateway cut off the path
	id      []string    // as a field; nil: none yet
	bearer  string      // the token source's; empty: there is none
	upload  *retry.Body // the content of the request, once somebody may read it
	upgrade string      // the protocol that is asked for; empty: none

	wrote    bool // the final response header is out
	status   int
	received int64           // body bytes
	out      deliver.Content // what the client is sent
	attempts int
	unlogged bool // left out by sampling, should it succeed
	cache    cacheOutcome
	visit    visit  // of the cache
	keyBuf   []byte // for keys of this exchange and those that are it later
	err      *Error

	link work.Link // among what Shutdown cuts, while a write may wait

	mark mark // for whoever looks for slow ones
}

// exchanges are used again: whatever outlives a request holds its fetch, and
// touches the exchange no more once its handler may have returned.
var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// serve is the way of one request, unless its service was removed since the
// snapshot was looked at: then it is to be routed again.
func (c *core) serve(to route, w http.ResponseWriter, r *http.Request) bool {
	entered := to.life(c).Enter()
	if !entered && to.svc != nil && c.snapshot.Load() != to.snap {
		return false
	}
	c.handle(to, entered, w, r)
	return true
}

// handle is serve of a request that has entered, or is to be refused.
func (c *core) handle(to route, entered bool, w http.ResponseWriter, r *http.Request) {
	x := exchanges.Get().(*exchange)
	x.core, x.route, x.life, x.w, x.r, x.ctx, x.start = c, to, to.life(c), w, r, r.Context(), time.Now()
	spans := to.snap.telemetry.Unrouted(to.snap.public)
	if to.svc != nil {
		spans = to.svc.spans(to.whole)
	}
	x.laps.Start(int(stageRoute))
	x.stats().inFlight.Add(1)
	defer x.end(entered)
	x.ctx = spans.StartServer(&x.span, r)
	if c.unwatched.Load() {
		c.beside()
	}
	if to.svc != nil && to.svc.policy.slow.Long > 0 {
		x.join()
	}
	err := x.refused(entered)
	if err == nil {
		err = x.goThrough()
	}
	if err != nil {
		x.fail(err)
	}
}

// refused says why the request is not served, if it is not.
func (x *exchange) refused(entered bool) *Error {
	if err := x.judge(); entered {
		return err
	}
	if x.svc == nil && x.whole && !x.life.Draining() {
		return fault(ReasonShuttingDown, errRemoved)
	}
	return fault(ReasonShuttingDown, nil)
}

// errRemoved is for whoever still holds a service that an update was without.
var errRemoved = errors.New("the service was removed (Update)")

// goThrough serves a request that was judged.
func (x *exchange) goThrough() *Error {
	if x.snap.access {
		x.sample()
	}
	if x.endsHere() {
		x.tellMethods()
		return nil
	}
	if c := x.asks(); c != nil {
		return x.throughCache(c)
	}
	return x.pass()
}

// endsHere reports whether the request asks what can be asked of whoever it has
// come to, which is us (RFC 9110 §7.6.2).
func (x *exchange) endsHere() bool {
	return x.r.Method == http.MethodOptions && forward.EndsHere(x.r.Header)
}

// tellMethods answers it.
func (x *exchange) tellMethods() {
	x.reached(stageBody)
	x.identify()
	h := x.w.Header()
	h.Set("Allow", x.svc.allow())
	x.setRequestID(h)
	x.wrote, x.status = true, http.StatusNoContent
	x.w.WriteHeader(x.status)
}

// allow lists the methods that may be asked with (RFC 9110 §10.2.1); nil: of no
// service.
func (s *service) allow() string {
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
	if s != nil {
		methods = append(methods, slices.Sorted(maps.Keys(s.methods))...)
	}
	return strings.Join(methods, ", ")
}

// asks returns the cache that the request is to go through; nil: none.
func (x *exchange) asks() *Cache {
	if c := x.svc.policy.cache; c != nil && x.upgrade == "" && !c.closed.Load() {
		return c
	}
	return nil
}

// Bounds on a request that no option moves.
const (
	maxTargetBytes   = 8 << 10 // RFC 9110 §4.1 asks for at least 8000
	maxRequestFields = 100
)

// judge refuses what must not reach an upstream, and reads what the rest needs.
func (x *exchange) judge() *Error {
	r, svc := x.r, x.svc
	if max(len(r.RequestURI), len(x.rest)+len(r.URL.RawQuery), len(r.URL.Path)) > maxTargetBytes {
		return fault(ReasonTargetTooLong, nil)
	}
	if reason := judgeMethod(r.Method, svc); reason != "" {
		return fault(reason, nil)
	}
	_, query, err := forward.Judge(r.URL)
	if err != nil {
		return fault(ReasonBadRequest, err)
	}
	if svc == nil {
		return fault(ReasonUnknownService, x.prefixed())
	}
	if r.ProtoMajor > 1 && !forward.OneLength(r.Header) {
		return fault(ReasonBadRequest, errLength)
	}
	if svc.policy.preserveHost && r.Host != "" && !forward.ValidHost(r.Host) {
		return fault(ReasonBadRequest, errHost)
	}
	x.query = query
	fields, bytes, special := forward.Survey(r.Header)
	if x.special = special; fields > maxRequestFields || bytes > svc.policy.maxHeaderBytes {
		return fault(ReasonHeaderTooLarge, nil)
	}
	if limit := svc.policy.maxBodyBytes; limit >= 0 && r.ContentLength > limit {
		return fault(ReasonBodyTooLarge, nil)
	}
	if special["Upgrade"] != nil {
		if x.upgrade, err = forward.Upgrade(r); err != nil {
			return fault(ReasonBadRequest, err)
		}
	}
	if hidden := x.upgrade != "" && !forward.CanHijack(x.w); hidden || svc.policy.http2 {
		x.upgrade = "" // served as if it had not asked
		if hidden {
			x.core.conceals(svc.up.name, x.w, "Hijack")
		}
	}
	if x.upgrade != "" && x.life.Draining() {
		return fault(ReasonShuttingDown, errDrained)
	}
	if svc.rules.Looping(special) {
		return fault(ReasonLoop, nil)
	}
	x.prefix = forward.Prefix(r.RequestURI, x.rest)
	x.takeID()
	return nil
}

// prefixed returns what to tell the app of a request for no service whose path has
// the name of one behind its first segment; nil: it has none, or further behind
// than apps mount handlers.
func (x *exchange) prefixed() error {
	_, rest := forward.Split(forward.Path(x.r.URL))
	for n := 0; n < 8 && rest != ""; n++ {
		var segment string
		if segment, rest = forward.Split(rest); x.snap.services[segment] != nil {
			return errPrefixed
		}
	}
	return nil
}

var errPrefixed = errors.New("a service's name comes later in the path; http.StripPrefix takes off what is in front of it")

// errLength is what net/http's server lets pass in HTTP/2, with another meaning.
var errLength = errors.New("the Content-Length is not one length")

// errHost is a Host that would be passed on (RFC 9110 §7.2). In HTTP/2 net/http's
// server takes any.
var errHost = errors.New("the Host names no host")

// judgeMethod says why a request of that method is refused (RFC 9110 §9.1).
func judgeMethod(method string, svc *service) Reason {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return ""
	case http.MethodTrace:
		return ReasonMethodNotAllowed
	case http.MethodConnect:
		return ReasonMethodNotImplemented
	}
	if svc != nil {
		if _, ok := svc.methods[method]; ok {
			return ""
		}
	}
	return ReasonMethodNotImplemented
}

// newRequestID returns 128 random bits in hex.
func newRequestID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], rand.Uint64())
	binary.BigEndian.PutUint64(b[8:], rand.Uint64())
	var text [2 * len(b)]byte
	hex.Encode(text[:], b[:])
	return string(text[:])
}

func (x *exchange) hasBody() bool {
	return x.r.Body != nil && x.r.Body != http.NoBody && x.r.ContentLength != 0
}

// idHeader names the field that the request's id travels in; empty: it has none.
func (x *exchange) idHeader() string {
	if x.svc != nil {
		return x.svc.policy.requestIDHeader
	}
	return x.snap.idHeader
}

// takeID believes the client's id, if that is one.
func (x *exchange) takeID() {
	if name := x.idHeader(); name != "" && forward.RequestID(x.r.Header, name) != "" {
		x.id = x.r.Header[name][:1:1]
	}
}

// requestID returns the request's id, and makes one where the client sent none.
func (x *exchange) requestID() string {
	if x.id == nil && x.idHeader() != "" {
		x.id = []string{newRequestID()}
	}
	if x.id == nil {
		return ""
	}
	return x.id[0]
}

// setRequestID returns the id with the response, if there is one by now.
func (x *exchange) setRequestID(h http.Header) {
	if x.id != nil {
		h[x.idHeader()] = x.id
	}
}

// pass forwards the request past the cache.
func (x *exchange) pass() *Error {
	f := x.newFetch(false)
	if err := f.run(); err != nil {
		return err
	}
	return x.relay(f)
}

// content is what a response's content is read from, piece by piece.
type content interface{ Next() ([]byte, error) }

// relay sends the answer of f to the client, and ends f, which nobody touches
// any more.
func (x *exchange) relay(f *fetch) *Error {
	err := x.relayFrom(f, f.answer)
	f.recycle()
	return err
}

// relayFrom is relay with the content from c. f may still be looked at.
func (x *exchange) relayFrom(f *fetch, c content) (err *Error) {
	a := f.answer
	ended := false
	defer func() {
		if !ended { // a panic
			err = fault(ReasonPanic, nil)
		}
		x.ended = f.close(err)
	}()
	if a.status == http.StatusSwitchingProtocols {
		err = x.tunnel(a)
	} else {
		x.invalidate(a)
		x.writeHead(a)
		if !bodyless(x.r.Method, a.status) {
			err = x.relayBody(a, c)
		}
	}
	ended = true
	return err
}

// relayNotModified sends a 304 in the place of an answer that the client has.
func (x *exchange) relayNotModified(a *attempt) {
	tagged := a.head["Etag"] != nil
	maps.DeleteFunc(a.head, func(name string, _ []string) bool { return !rfc9111.InNotModified(name, tagged) })
	a.status = http.StatusNotModified
	x.writeHead(a)
}

// bodyless reports whether a response has no content by its status or method
// (RFC 9110 §6.4.1).
func bodyless(method string, status int) bool {
	return method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified
}

// writeHead sends the final response header.
func (x *exchange) writeHead(a *attempt) {
	if a.status == http.StatusNoContent {
		delete(a.head, "Content-Length") // RFC 9110 §8.6
	}
	h := x.w.Header()
	forward.Relay(h, a.head)
	x.relocate(h)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http's server would guess one
	}
	for name := range *a.trailer {
		if !forward.ForbiddenTrailer(name) {
			h.Add("Trailer", name)
		}
	}
	if x.r.ProtoMajor == 1 && h["Trailer"] != nil && !bodyless(x.r.Method, a.status) {
		delete(h, "Content-Length") // only chunks leave room for a trailer section (RFC 9112 §7.1.2)
	}
	x.setRequestID(h)
	x.setCacheStatus(h, make([]string, 1))
	x.setServerTiming(h)
	x.closeIfEarly()
	x.wrote, x.status = true, a.status
	x.w.WriteHeader(a.status)
}

// closeIfEarly is closeAfterReply for an answer that has come before the end of
// the request.
func (x *exchange) closeIfEarly() {
	if x.upload != nil && !x.upload.Done() {
		x.closeAfterReply()
	}
}

// closeAfterReply ends a connection on which more of the request may come than
// anybody reads (RFC 9112 §9.6). HTTP/2 ends the stream by itself (RFC 9113
// §8.1), and other requests are on its connection; its preface comes on one of
// HTTP/1 (§3.4).
func (x *exchange) closeAfterReply() {
	if x.r.ProtoMajor == 1 || x.r.Method == "PRI" {
		forward.CloseAfterReply(x.w)
	}
}

// relocate has references to the upstream point at the gateway.
func (x *exchange) relocate(h http.Header) {
	for _, name := range [...]string{"Location", "Content-Location"} {
		if v := h[name]; len(v) == 1 {
			host := x.svc.host
			if x.svc.policy.preserveHost {
				host = x.r.Host
			}
			if to, ok := x.svc.locator.Rewrite(v[0], host, x.prefix); ok {
				h[name] = []string{to}
			}
		}
	}
}

// takesInterim reports whether the client may be sent 1xx responses (RFC 9110
// §15.2). Beside a request that expects 100 (Continue) net/http's server sends
// one by itself, at any time.
func (x *exchange) takesInterim() bool {
	return x.r.ProtoAtLeast(1, 1) && x.r.Header["Expect"] == nil && forward.CanFlush(x.w)
}

// relayInterim passes a 1xx response on, and takes its fields back out of the
// header that is still to come.
func (x *exchange) relayInterim(code int, fields http.Header) {
	forward.StripHop(fields)
	delete(fields, "Content-Length")
	h := x.w.Header()
	kept := make(http.Header, len(fields))
	for name, values := range fields {
		kept[name] = h[name]
		h[name] = values
	}
	x.w.WriteHeader(code)
	for name, values := range kept {
		if values == nil {
			delete(h, name)
		} else {
			h[name] = values
		}
	}
}

var errDrained = errors.New("ended by drain")

// relayBody streams the content, as c has it.
func (x *exchange) relayBody(a *attempt, c content) *Error {
	stream := forward.IsEventStream(a.head)
	if stream {
		if !forward.CanFlush(x.w) {
			x.core.conceals(a.fetch.svc.up.name, x.w, "Flush")
		}
		a.fetch.shared = true
		defer x.life.Open(func() { a.wire.Abort(errDrained) }).Close()
	}
	w := x.body(a.length, forward.NeedsFlush(a.head, a.length))
	if stream {
		x.becomes(stageBody, stageStream)
	}
	var n int64
	for {
		piece, err := c.Next()
		if n += int64(len(piece)); len(piece) > 0 {
			if _, err := w.Write(piece); err != nil {
				x.settle()
				return x.writeFault(err)
			}
		}
		if err == nil {
			continue
		}
		x.settle()
		if err == io.EOF && (n == a.length || a.length < 0) { //nolint:errorlint // a reader's regular end
			break
		}
		return x.bodyFault(err)
	}
	x.relayTrailers(a)
	return nil
}

func (x *exchange) relayTrailers(a *attempt) {
	h := x.w.Header()
	for name, values := range forward.Trailers(*a.trailer) {
		h[http.TrailerPrefix+name] = values
	}
}

// body begins the content: its length, negative where unknown, and whether each
// piece has to reach the client at once, as the header then does.
func (x *exchange) body(length int64, flush bool) *deliver.Content {
	w, p, end := &x.out, x.svc.policy, time.Time{}
	if p.maxDuration > 0 {
		end = x.start.Add(p.maxDuration)
	}
	w.Begin(x.w, length, flush, p.bodyIdleTimeout, end)
	w.Stream = x.r.ProtoMajor == 2
	if w.Blocks() || !x.laps.Only(int(stageCache)) {
		x.reached(stageBody)
	} else { // a hit that takes no time worth a look at the clock
		x.note(stageBody)
	}
	if w.Blocks() && !x.life.Begin(&x.link, w) {
		w.Refuse()
	}
	if flush {
		_ = w.Flush()
	}
	return w
}

// settle ends the content, and gives the connection back. What is still buffered
// goes out within its time.
func (x *exchange) settle() {
	if x.out.Blocks() {
		_ = x.out.Flush()
		x.life.End(&x.link)
		x.out.Release()
	}
}

// finish ends a content that was written from the store, with err or well.
func (x *exchange) finish(err error) *Error {
	if err != nil {
		return x.writeFault(err)
	}
	x.settle()
	return nil
}

// bodyFault says whose fault it is that a content did not come to its end.
func (x *exchange) bodyFault(err error) *Error {
	if errors.Is(err, errDrained) {
		return nil
	}
	fe := contentFault(err)
	if fe.Reason == ReasonTruncated && x.r.Context().Err() != nil {
		return clientGone(x.r.Context())
	}
	return fe
}

// contentFault is bodyFault of a content that may be for several clients.
func contentFault(err error) *Error {
	switch {
	case errors.Is(err, work.ErrShutdown):
		return fault(ReasonShuttingDown, err)
	case timedOut(err):
		return fault(ReasonTimeout, err)
	case errors.Is(err, errHookPanic):
		return fault(ReasonPanic, err)
	case errors.Is(err, errMiscount):
		return fault(ReasonHook, err)
	case isError[badResponse](err):
		return fault(ReasonBadResponse, err)
	}
	return fault(ReasonTruncated, err)
}

// writeFault says why the client did not take a body: its own doing, unless the
// whole exchange has run out of time.
func (x *exchange) writeFault(err error) *Error {
	if d := x.svc.policy.maxDuration; d > 0 && errors.Is(err, os.ErrDeadlineExceeded) && time.Since(x.start) >= d {
		return fault(ReasonTimeout, h1.EndTimeout)
	}
	if x.out.WasCut() {
		return fault(ReasonShuttingDown, work.ErrShutdown)
	}
	return fault(ReasonClientClosed, err)
}

// isError reports whether an error is, or wraps, an E.
func isError[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// tunnel joins the client's connection and the upstream's after a 101.
func (x *exchange) tunnel(a *attempt) *Error {
	if x.life.Draining() {
		return fault(ReasonShuttingDown, errDrained)
	}
	upstream := a.wire.Switched()
	if upstream == nil {
		return fault(ReasonBadResponse, badResponse("the switched connection is out of reach"))
	}
	defer upstream.Close()
	up := x.svc.up
	if n := up.tunnels.Add(1); n > int64(x.svc.policy.maxTunnels) {
		up.tunnels.Add(-1)
		return fault(ReasonOverloaded, nil)
	}
	defer up.tunnels.Add(-1)
	conn, buffered, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return fault(ReasonBadRequest, err)
	}
	x.wrote, x.status = true, a.status
	x.becomes(stageBody, stageStream)
	t := forward.NewTunnel(forward.TunnelConfig{
		Client: conn, ClientBuffered: buffered.Reader, Upstream: upstream,
		Idle: x.svc.policy.tunnelIdleTimeout, Go: x.life.Go,
	})
	defer t.Close()
	if !x.life.Begin(&x.link, t) {
		return fault(ReasonShuttingDown, work.ErrShutdown)
	}
	defer x.life.Open(t.GoAway).Close()
	forward.StripHop(a.head)
	x.setRequestID(a.head)
	if err := forward.WriteSwitch(conn, x.upgrade, a.head, x.svc.policy.bodyIdleTimeout); err != nil {
		if x.life.Draining() {
			return fault(ReasonShuttingDown, errDrained) // as it was about to open
		}
		return fault(ReasonClientClosed, err)
	}
	_, x.out.Sent, err = t.Run()
	if errors.Is(err, forward.ErrTunnelIdle) {
		return fault(ReasonTimeout, err)
	}
	return nil
}

// fail answers a request that cannot be served. A response that has begun, or
// a client that has left, leaves only the abort of the connection.
func (x *exchange) fail(err *Error) {
	x.err = err
	err.Attempts = x.attempts
	if x.svc != nil {
		err.Service = x.svc.up.name
	}
	if x.wrote || err.Status == statusClientClosed {
		panic(http.ErrAbortHandler)
	}
	x.reached(stageBody)
	x.identify()
	h := x.w.Header()
	x.setRequestID(h)
	x.setCacheStatus(h, make([]string, 1))
	x.setProxyStatus(h)
	x.setServerTiming(h)
	if err.retryAfter > 0 { // RFC 9110 §10.2.3: whole seconds
		h.Set("Retry-After", strconv.FormatInt(int64((err.retryAfter-1)/time.Second)+1, 10))
	}
	switch err.Reason {
	case ReasonMethodNotAllowed:
		h.Set("Allow", x.svc.allow())
	case ReasonShuttingDown:
		if !errors.Is(err.Err, errRemoved) {
			h.Set("Connection", "close")
		}
	case ReasonMethodNotImplemented, ReasonClientBody, ReasonBodyTooLarge:
		x.closeAfterReply()
	}
	x.closeIfEarly()
	w := &statusWriter{ResponseWriter: x.w}
	defer func() { x.wrote, x.status, x.out.Sent = w.status != 0, w.status, w.sent }()
	x.snap.onError(w, x.r, err)
	if w.status == 0 {
		w.WriteHeader(err.Status)
	}
}

// setProxyStatus tells why the answer is ours (RFC 9209). Of a response that is
// forwarded, what others have told passes as it is. A handler under [Cache.Wrap]
// is the origin, which tells nothing (§2).
func (x *exchange) setProxyStatus(h http.Header) {
	if x.svc != nil && x.svc.handler != nil {
		return
	}
	err := x.err
	f := forward.Failure{
		Reason: string(err.Reason), Cause: err.Err, Dialing: dialFailed(err.Err), Handshake: isError[*h1.HandshakeError](err.Err),
		Idle:    errors.Is(err.Err, h1.IdleTimeout) || errors.Is(err.Err, roundtrip.IdleTimeout),
		NextHop: err.Service, Received: err.received,
	}
	if err.Reason == ReasonPanic { // what an error handler had before that
		delete(h, "Proxy-Status")
	}
	forward.Put(h, "Proxy-Status", []string{f.ProxyStatus(viaName)})
}

// end records the exchange, once, whatever happened to it. Only
// http.ErrAbortHandler goes on to the server.
func (x *exchange) end(entered bool) {
	v := recover()
	if entered { // also if whoever is told of the request panics
		defer x.life.Leave()
	}
	x.mark.place.Leave() // before anything that is read there ends
	if v != nil && v != any(http.ErrAbortHandler) {
		x.panicked("request", v, debug.Stack())
		v = x.failPanic()
	}
	if x.err != nil && (x.status == 0 || x.err.Status == statusClientClosed) {
		x.status = x.err.Status // whatever was sent, nobody has it
	}
	if x.upload != nil && !x.upload.Done() { // net/http's server would wait for the rest before it closes
		_ = http.NewResponseController(x.w).SetReadDeadline(time.Unix(1, 0))
	}
	x.life.End(&x.link)
	x.record(v != nil)
	if v != nil && x.r.ProtoMajor == 1 && x.r.ProtoMinor == 0 {
		forward.Reset(x.w)
	}
	*x = exchange{keyBuf: x.keyBuf}
	exchanges.Put(x)
	if v != nil {
		panic(http.ErrAbortHandler)
	}
}

// failPanic answers 500 after a panic, or says that only an abort is left.
func (x *exchange) failPanic() (abort any) {
	x.err = fault(ReasonPanic, nil)
	defer func() {
		if recover() != nil { // the error handler's own
			abort = http.ErrAbortHandler
		}
	}()
	if x.wrote {
		return http.ErrAbortHandler
	}
	x.fail(x.err)
	return nil
}

// statusWriter remembers what an error handler answered.
type statusWriter struct {
	http.ResponseWriter
	status int
	sent   int64
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	return n, err
}

// A Reason says why the gateway did not, or not fully, answer with what an
// upstream said. The constants are all there are.
type Reason string

// The reasons, each with the status it is answered with.
const (
	ReasonBadRequest           Reason = "bad_request"            // 400: target, Host or upgrade that must not be forwarded
	ReasonClientBody           Reason = "client_body_error"      // 400: the client's body broke off or stood still
	ReasonUnknownService       Reason = "unknown_service"        // 404
	ReasonMethodNotAllowed     Reason = "method_not_allowed"     // 405: TRACE
	ReasonBodyTooLarge         Reason = "body_too_large"         // 413: more than WithMaxBodyBytes, or an http.MaxBytesReader of the app's
	ReasonTargetTooLong        Reason = "target_too_long"        // 414: more than 8 KiB
	ReasonRateLimited          Reason = "rate_limited"           // 429: more than WithRateLimit
	ReasonHeaderTooLarge       Reason = "header_too_large"       // 431: more than WithMaxHeaderBytes, or 100 fields
	ReasonClientClosed         Reason = "client_closed"          // 499, in records only: the client left or stopped reading
	ReasonPanic                Reason = "panic"                  // 500: a hook panicked, or WithRewrite left what cannot be sent
	ReasonMethodNotImplemented Reason = "method_not_implemented" // 501: CONNECT, or a method not listed by WithMethods
	ReasonToken                Reason = "token_unavailable"      // 502: the token source failed
	ReasonHook                 Reason = "hook_failed"            // 502: WithModifyResponse returned an error, or left a Body of another length than ContentLength
	ReasonConnect              Reason = "connect_failed"         // 502: no connection to the upstream
	ReasonUpstreamFailed       Reason = "upstream_failed"        // 502: the connection broke before a response header
	ReasonBadResponse          Reason = "bad_response"           // 502: the upstream's answer breaks the rules of HTTP or a bound
	ReasonInterimOverflow      Reason = "upstream_1xx_overflow"  // 502: too many interim responses
	ReasonTruncated            Reason = "truncated"              // 502: the upstream's body broke off
	ReasonBreakerOpen          Reason = "breaker_open"           // 503: most of the service's answers were failures
	ReasonNoReplica            Reason = "no_replica"             // 503: no replica is healthy, and WithPanicThreshold is 0
	ReasonOverloaded           Reason = "overloaded"             // 503: more than WithMaxConcurrency and its queue, or WithMaxTunnels
	ReasonPoolExhausted        Reason = "pool_exhausted"         // 503: no connection to the upstream came free in time
	ReasonShuttingDown         Reason = "shutting_down"          // 503: Shutdown was called
	ReasonTimeout              Reason = "timeout"                // 504: one of the timeouts ran out
	ReasonNotCached            Reason = "not_cached"             // 504: only-if-cached, and nothing fresh is stored
	ReasonShared               Reason = "shared_failure"         // the request waited for the answer to another, which was an error: its status
	ReasonLoop                 Reason = "loop_detected"          // 508: the request has been here before, by its Via
)

const statusClientClosed = 499 // nginx's

// reasons is the closed list, in the order of the statistics.
var reasons = [...]struct {
	reason Reason
	status int
	text   string
}{
	{ReasonBadRequest, 400, "The request's target or upgrade is not acceptable."},
	{ReasonClientBody, 400, "The request's body could not be read."},
	{ReasonUnknownService, 404, "There is no such service."},
	{ReasonMethodNotAllowed, 405, "The method is not allowed."},
	{ReasonBodyTooLarge, 413, "The request's body is too large."},
	{ReasonTargetTooLong, 414, "The request's target is too long."},
	{ReasonRateLimited, 429, "There are too many requests."},
	{ReasonHeaderTooLarge, 431, "The request's header is too large."},
	{ReasonClientClosed, statusClientClosed, ""},
	{ReasonPanic, 500, "The request could not be handled."},
	{ReasonMethodNotImplemented, 501, "The method is not supported."},
	{ReasonToken, 502, "The service's credentials are not available."},
	{ReasonHook, 502, "The service's response could not be used."},
	{ReasonConnect, 502, "The service could not be reached."},
	{ReasonUpstreamFailed, 502, "The service did not answer."},
	{ReasonBadResponse, 502, "The service's response could not be used."},
	{ReasonInterimOverflow, 502, "The service's response could not be used."},
	{ReasonTruncated, 502, "The service's response broke off."},
	{ReasonBreakerOpen, 503, "The service is in trouble."},
	{ReasonNoReplica, 503, "The service is in trouble."},
	{ReasonOverloaded, 503, "The service is busy."},
	{ReasonPoolExhausted, 503, "The service is busy."},
	{ReasonShuttingDown, 503, "The server is shutting down."},
	{ReasonTimeout, 504, "The service did not answer in time."},
	{ReasonNotCached, 504, "There is no stored response."},
	{ReasonShared, 502, "The service could not answer."},
	{ReasonLoop, 508, "The request has been here before."},
}

func (r Reason) index() int {
	for i := range reasons {
		if reasons[i].reason == r {
			return i
		}
	}
	return 0
}

// An Error is why the gateway answered, or gave up, a request by itself.
type Error struct {
	Service  string // empty: none was found
	Reason   Reason
	Status   int   // what the client is answered with; 499: nothing, it has left
	Attempts int   // how many were made
	Err      error // the cause, for logs only; may be nil

	retryAfter time.Duration // when another request may fare better; zero: nobody knows
	received   int           // the status that the upstream has answered with; 0: none
}

func fault(reason Reason, err error) *Error {
	return &Error{Reason: reason, Status: reasons[reason.index()].status, Err: err}
}

// again returns the error for another request.
func (e *Error) again() *Error {
	return &Error{Reason: e.Reason, Status: e.Status, Err: e.Err, retryAfter: e.retryAfter, received: e.received}
}

// Error says what happened, for logs. It may name hosts, never credentials: do
// not send it to clients.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("gateway: ")
	if e.Service != "" {
		fmt.Fprintf(&b, "service %q: ", e.Service)
	}
	b.WriteString(string(e.Reason))
	if e.Attempts > 1 {
		fmt.Fprintf(&b, " after %d attempts", e.Attempts)
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrorType returns the reason, for OpenTelemetry's error.type.
func (e *Error) ErrorType() string { return string(e.Reason) }

// answerError is the default [ErrorHandler].
func answerError(w http.ResponseWriter, r *http.Request, err *Error) {
	text := reasons[err.Reason.index()].text
	if errors.Is(err.Err, errRemoved) {
		text = "The service was removed."
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if forward.IsGRPC(r.Header) {
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", forward.GRPCStatus(err.Status))
		h.Set("Grpc-Message", string(err.Reason)+": "+text)
		w.WriteHeader(http.StatusOK)
		return
	}
	offer := forward.Accept(r.Header, "application/problem+json", "application/json", "text/plain", "text/html")
	if strings.HasPrefix(offer, "text/") {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(err.Status)
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, text+"\n")
		}
		return
	}
	h.Set("Content-Type", "application/problem+json") // RFC 9457
	w.WriteHeader(err.Status)
	if r.Method != http.MethodHead {
		_ = json.NewEncoder(w).Encode(struct {
			Type   string `json:"type"`
			Title  string `json:"title"`
			Status int    `json:"status"`
			Detail string `json:"detail"`
			Reason Reason `json:"reason"`
		}{"about:blank", http.StatusText(err.Status), err.Status, text, err.Reason})
	}
}

// A Verdict is what becomes of a request. The constants are all there are.
type Verdict string

// The verdicts.
const (
	VerdictFresh      Verdict = "fresh"                  // it is answered from the cache
	VerdictStale      Verdict = "stale"                  // the same, by what is stale, which the client takes
	VerdictRefresh    Verdict = "stale-while-revalidate" // the same, by what is stale and is validated behind the request
	VerdictInstead    Verdict = "stale-if-error"         // the same, by what stands in, because the gateway would refuse the request
	VerdictRevalidate Verdict = "revalidate"             // the service is asked whether what is stored is still true
	VerdictCollapse   Verdict = "collapse"               // it waits for the answer to another request
	VerdictSend       Verdict = "send"                   // it is sent to the service
	VerdictFinal      Verdict = "final"                  // the gateway answers it: an OPTIONS that goes no further, by its Max-Forwards
	VerdictRefuse     Verdict = "refuse"                 // the gateway answers it with an error
)

// An Explanation is what [Gateway.Explain] says of a request. No value of a header
// field, cookie or token is in it, and no credential in a query; names, paths and
// addresses are.
type Explanation struct {
	Method  string `json:"method"`
	Path    string `json:"path"`    // as the client sent it, without the query
	Service string `json:"service"` // empty: none
	Route   string `json:"route"`   // the template of spans, such as "/api/users/{path...}"; empty: none is known
	Target  string `json:"target"`  // where it is sent, if it is: a URL, before WithRewrite; empty: nowhere

	Verdict    Verdict       `json:"verdict"`
	Status     int           `json:"status"`         // of the answer, where it is the gateway's to say; zero: it is not
	Reason     Reason        `json:"reason"`         // why it is refused, or would be but for what stands in; else empty
	RetryAfter time.Duration `json:"retry_after_ns"` // when another request may fare better; zero: nobody knows
	Why        string        `json:"why"`            // the verdict in a sentence

	Cache    *ExplainedCache    `json:"cache"`    // nil: none is asked
	Replicas []ExplainedReplica `json:"replicas"` // of the service, in their order; then those that were removed and still have connections
	Policies []ExplainedPolicy  `json:"policies"` // that apply to the request, and what they are in
	Notes    []string           `json:"notes"`    // what else there is to know, in sentences
}

// ExplainedCache is what a cache has for a request.
type ExplainedCache struct {
	Key      string          `json:"key"`       // as a URL: where the request came in, and what of its query counts; empty: the cache is passed by
	KeyParts []string        `json:"key_parts"` // what else tells requests apart, by its name
	Status   string          `json:"status"`    // Cache-Status (RFC 9211), as far as it is known before the answer; empty with WithoutCacheStatus
	Stored   *ExplainedEntry `json:"stored"`    // what the request selects of what is stored; nil: nothing
	Variants int             `json:"variants"`  // that are stored under the key, by Vary
	Unusable string          `json:"unusable"`  // why nothing that is stored is the answer; empty: something is
	Unstored string          `json:"unstored"`  // why an answer that says no more than max-age is not stored: a detail of Cache-Status; empty: it is, or none is asked for
	Shared   bool            `json:"shared"`    // a request for the same is under way, whose answer this one would wait for
}

// ExplainedEntry is a stored response.
type ExplainedEntry struct {
	State    string        `json:"state"` // fresh, stale
	Code     int           `json:"code"`  // its status
	Received time.Time     `json:"received"`
	Age      time.Duration `json:"age_ns"`      // RFC 9111 §4.2.3
	TTL      time.Duration `json:"ttl_ns"`      // for how long it is fresh; negative: since when it is not
	Lifetime time.Duration `json:"lifetime_ns"` // RFC 9111 §4.2.1
	Source   string        `json:"source"`      // what says that: s-maxage, max-age, Expires, heuristic
	Expired  bool          `json:"expired"`     // by Cache.Expire and its like, which have ended the lifetime
	Bytes    int64         `json:"bytes"`       // of its content
	Partial  bool          `json:"partial"`     // parts of it are stored, not all
	Vary     []string      `json:"vary"`        // names of fields (RFC 9111 §4.1)

	Validators           []string      `json:"validators"`                // ETag, Last-Modified
	StaleWhileRevalidate time.Duration `json:"stale_while_revalidate_ns"` // RFC 5861 §3; zero: not at all
	StaleIfError         bool          `json:"stale_if_error"`            // it stands in if the service cannot be reached
}

// ExplainedReplica is one replica as a request finds it.
type ExplainedReplica struct {
	Address   string        `json:"address"`   // host:port, or a socket's path
	Candidate bool          `json:"candidate"` // it may be chosen
	Out       string        `json:"out"`       // why it may not: unhealthy, ejected, on trial, removed; empty: it may
	Chosen    bool          `json:"chosen"`    // it is the one, where that is certain
	Health    string        `json:"health"`    // healthy, ejected, unhealthy
	Due       bool          `json:"due"`       // it was ejected, and the next request is its trial
	Back      time.Duration `json:"back_ns"`   // when one that is ejected is due; zero: it is not, or is already
	Weight    float64       `json:"weight"`    // less than its own during a slow start
	InFlight  int64         `json:"in_flight"`
	Full      bool          `json:"full"`  // no connection is free, and none more may be made (WithMaxConns)
	Conns     ConnStats     `json:"conns"` // zero for a round tripper of the app's
}

// ExplainedPolicy is one policy that applies to a request.
type ExplainedPolicy struct {
	Option string `json:"option"` // that it is by, such as "WithTimeout"
	Value  string `json:"value"`
	State  string `json:"state"` // what it is in, or does for this request; empty: nothing to say
}

// Explain says what would become of a request at this moment, and why: what is
// stored for it, which replicas may be chosen, which policies apply. It sends
// nothing, waits for nothing and changes nothing, not even statistics; by the
// time that the request is made, others may have changed all of it.
//
// r is as [Gateway.ServeHTTP] gets it, behind [http.StripPrefix]. One that no
// server has received, such as [http.NewRequest] makes with a whole URL, is taken
// as [Gateway.Warm] takes its URLs, for a gateway that is mounted at the path up to
// the service. Its body is not read. The function of [WithCachePartition] is
// called, as a part of the key; hooks, token sources and round trippers are not, so
// that what these would change is not known.
func (g *Gateway) Explain(r *http.Request) Explanation {
	if r == nil || r.URL == nil {
		err := fault(ReasonBadRequest, nil)
		return Explanation{Verdict: VerdictRefuse, Status: err.Status, Reason: err.Reason, Why: "there is no request, or it has no URL"}
	}
	x := &exchange{core: g.core, route: route{snap: g.core.snapshot.Load()}, r: r, start: time.Now()}
	if r.RequestURI != "" || r.URL.Host == "" {
		var segment string
		segment, x.rest = forward.Split(forward.Path(r.URL))
		x.svc = x.snap.services[segment]
	} else {
		in := *r
		in.Method, in.Host, in.RequestURI = cmp.Or(r.Method, http.MethodGet), cmp.Or(r.Host, r.URL.Host), r.URL.RequestURI()
		if r.URL.Scheme == "https" {
			in.TLS = new(tls.ConnectionState)
		}
		x.r = &in
		if x.route = x.snap.find(r.URL); x.svc != nil && in.Pattern == "" { // as if the gateway were mounted there
			in.Pattern = strings.TrimSuffix(forward.Prefix(in.RequestURI, x.rest), x.svc.up.name)
		}
	}
	x.life, x.ctx = x.route.life(g.core), x.r.Context()
	if x.w = http.ResponseWriter(nowhere{}); x.r.ProtoMajor == 1 {
		x.w = tunneler{}
	}
	return x.explain()
}

// tunneler is a client whose connection can be taken over.
type tunneler struct{ nowhere }

func (tunneler) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, http.ErrNotSupported }

// explain is what becomes of an exchange that nobody begins.
func (x *exchange) explain() Explanation {
	e := Explanation{
		Method: forward.Printable(x.r.Method, 32), Path: forward.Printable(x.requestPath(), 512),
		Replicas: []ExplainedReplica{}, Policies: []ExplainedPolicy{}, Notes: []string{},
	}
	svc := x.svc
	if svc != nil {
		e.Service, e.Route = svc.up.name, forward.Printable(svc.spans(false).Template(x.r.Pattern), 512)
	}
	if err := x.refused(!x.life.Closed()); err != nil {
		e.refuse(x, err)
	} else if x.endsHere() {
		e.Verdict, e.Status, e.Why = VerdictFinal, http.StatusNoContent, "it has come as far as it may (Max-Forwards)"
	} else if c := x.asks(); c != nil {
		x.explainCache(&e, c)
	} else {
		x.explainFetch(&e, nil)
	}
	if svc == nil {
		return e
	}
	if e.Reason != ReasonTargetTooLong && e.Reason != ReasonBadRequest {
		f := &fetch{x: x, svc: svc}
		f.address()
		u := f.out.url(svc.target)
		e.Target = u.Scheme + "://" + u.Host + forward.Printable(f.out.path, 512) + shownQuery(f.out.query)
		x.explainReplicas(&e, f)
	}
	x.explainPolicies(&e)
	x.explainNotes(&e)
	return e
}

// shownQuery is a query as it may be shown, with its question mark.
func shownQuery(query string) string {
	if query == "" {
		return ""
	}
	return "?" + forward.Printable(telemetry.RedactQuery(query), 1024)
}

// refuse has the verdict be an error.
func (e *Explanation) refuse(x *exchange, err *Error) {
	e.Verdict, e.Status, e.Reason, e.RetryAfter, e.Why = VerdictRefuse, err.Status, err.Reason, err.retryAfter, x.whyNot(err)
}

// whyNot says of a refusal what its text for clients does not.
func (x *exchange) whyNot(err *Error) string {
	switch err.Reason {
	case ReasonUnknownService:
		segment, _ := forward.Split(forward.Path(x.r.URL))
		why := fmt.Sprintf("its first path segment, %q, is the name of no service", forward.Printable(segment, 64))
		if err.Err != nil {
			why += ": " + err.Err.Error()
		}
		return why
	case ReasonNotCached:
		return "it asks for what is stored, and that is no answer to it (only-if-cached)"
	case ReasonRateLimited:
		return "the rate limit has no room for " + explain.Span(err.retryAfter)
	case ReasonOverloaded:
		return "all places are taken, and nobody more may wait for one (WithMaxConcurrency)"
	case ReasonNoReplica:
		return "no replica is healthy (WithPanicThreshold)"
	case ReasonBreakerOpen:
		if wait := x.svc.breaker.RetryAfter(x.start); wait > 0 {
			return "the circuit breaker is open for " + explain.Span(wait) + " more"
		}
		return "the circuit breaker is half-open, and others are trying whether the service is well again"
	}
	text := strings.TrimSuffix(reasons[err.Reason.index()].text, ".")
	if err.Err != nil {
		text += ": " + errorText(err.Err, x.secrets())
	}
	return strings.ToLower(text[:1]) + text[1:]
}

// explainFetch says what becomes of a request that goes to the service, for a visit
// of a cache or for none.
func (x *exchange) explainFetch(e *Explanation, v *visit) {
	err := x.svc.foresee(x.start)
	switch {
	case err == nil:
		e.Verdict, e.Why = VerdictSend, "nothing keeps it from the service"
	case v != nil && v.standsInFor(err):
		e.refuse(x, err)
		x.cache.Forward, x.cache.Detail = rfc9111.ForwardStale, "stale-if-error"
		e.Verdict, e.Status, e.Why = VerdictInstead, v.selected.StatusFor(x.asked()), "what is stored stands in: "+e.Why
	default:
		e.refuse(x, err)
	}
}

// explainCache says what becomes of a request that goes through a cache.
func (x *exchange) explainCache(e *Explanation, c *Cache) {
	v, out := &x.visit, &ExplainedCache{KeyParts: []string{}}
	e.Cache = out
	ok, panicked := v.foresee(x, c)
	if panicked {
		e.refuse(x, fault(ReasonPanic, errHookPanic))
		return
	}
	defer func() {
		if x.svc.policy.caching.silent {
			return
		}
		s := rfc9111.Status{Miss: x.cache.Miss}
		if e.Verdict == VerdictFresh || e.Verdict == VerdictStale || e.Verdict == VerdictRefresh {
			s = rfc9111.Status{Hit: true, Timed: true, TTL: v.selected.Terms.Lifetime - v.age.Truncate(time.Second)}
		}
		out.Status = c.lines.Status(&s)
	}()
	if !ok {
		out.Unusable, out.Unstored = "the request passes the cache by: "+x.cache.Detail, x.cache.Detail
		if v.barred() {
			e.refuse(x, v.unsent())
			return
		}
		x.explainFetch(e, nil)
		return
	}
	out.Key, out.KeyParts = shownKey(v.key), keyParts(&x.svc.policy.caching.rules.Key)
	use := rfc9111.MustValidate
	if res, ok := c.store.Peek(v.key); ok {
		use = v.weigh(res)
		out.Variants, out.Stored = len(res.Variants), v.explainStored()
	} else {
		x.cache.Forward = rfc9111.ForwardURIMiss
	}
	switch use {
	case rfc9111.Fresh:
		e.Verdict, e.Why = VerdictFresh, "what is stored is fresh for "+explain.Span(out.Stored.TTL)+" more"
	case rfc9111.Stale:
		e.Verdict, e.Why = VerdictStale, "what is stored is stale, and the request takes that (max-stale)"
	case rfc9111.WhileRevalidate:
		e.Verdict, e.Why = VerdictRefresh, "what is stored is stale, and may be served while it is validated (stale-while-revalidate)"
	default:
		out.Unusable, out.Unstored = v.unusable(), x.unstored()
		v.explainMiss(e)
		return
	}
	e.Status = v.selected.StatusFor(x.asked())
}

// foresee is begin, and says whether the function of WithCachePartition panicked.
func (v *visit) foresee(x *exchange, c *Cache) (ok, panicked bool) {
	defer func() { panicked = recover() != nil }()
	return v.begin(x, c), false
}

// explainMiss says what becomes of a request that what is stored does not answer.
func (v *visit) explainMiss(e *Explanation) {
	x := v.x
	switch v.unmet() {
	case needNothing:
		e.refuse(x, v.unsent())
		return
	case needHead:
		x.cache.Detail = "method"
		x.explainFetch(e, v)
		return
	case needPart:
		x.explainFetch(e, nil)
		return
	}
	role := flight.Alone
	if _, ok := v.waits(); ok {
		role = v.by.calls.Peek(v.key, x.start)
	}
	if role == flight.Follow {
		e.Cache.Shared, e.Verdict, x.cache.Collapsed = true, VerdictCollapse, true
		e.Why = "another request for the same is under way, whose answer may be one to this"
		return
	}
	x.explainFetch(e, v)
	if e.Verdict != VerdictSend {
		return
	}
	switch missing, validate := v.demand(); {
	case missing.Len() > 0:
		e.Why = "the part that is missing of what is stored is asked for"
	case len(validate) > 0 && v.selected == nil:
		e.Why = "the service is asked, and whether something that is stored is the answer after all"
	case len(validate) > 0:
		e.Verdict, e.Why = VerdictRevalidate, "the service is asked whether what is stored is still true: "+e.Cache.Unusable
	}
}

// unusable says why nothing that is stored is the answer.
func (v *visit) unusable() string {
	switch v.x.cache.Forward {
	case rfc9111.ForwardURIMiss:
		return "nothing is stored under the key"
	case rfc9111.ForwardVaryMiss:
		return "what is stored is for requests with other fields (Vary)"
	case rfc9111.ForwardPartial:
		return "a part is stored, and not all that the request asks for"
	}
	return v.doubt.String()
}

// unstored says why an answer to the request that has a lifetime, and says no more,
// is not stored.
func (x *exchange) unstored() string {
	ex := rfc9111.Exchange{
		Method: http.MethodGet, Status: http.StatusOK, Request: x.r.Header, Response: http.Header{"Cache-Control": {"max-age=1"}},
		Injected: x.svc.policy.injects(), Framed: true, RequestTime: x.start, ResponseTime: x.start,
	}
	if x.r.Method == http.MethodHead {
		ex.Method = x.r.Method
	}
	return string(rfc9111.Storable(&ex, &x.svc.policy.caching.rules))
}

// shownKey is a key as the URL that it stands for.
func shownKey(key []byte) string {
	k := rfc9111.ParseKey(string(key))
	return k.Proto + "://" + forward.Printable(k.Host+k.Prefix+k.Target, 1024) + shownQuery(k.Query)
}

// keyParts names what the operator has tell requests apart.
func keyParts(rules *rfc9111.KeyRules) []string {
	parts := []string{}
	for _, name := range rules.Fields {
		parts = append(parts, "field "+name)
	}
	for _, name := range rules.Cookies {
		parts = append(parts, "cookie "+name)
	}
	if rules.Partition != nil {
		parts = append(parts, "WithCachePartition")
	}
	return parts
}

// explainStored says what the request selects of what is stored.
func (v *visit) explainStored() *ExplainedEntry {
	e := v.selected
	if e == nil {
		return nil
	}
	t := &e.Terms
	out := &ExplainedEntry{
		State: "stale", Code: e.Status, Received: e.Received, Age: v.age, TTL: t.Lifetime - v.age, Lifetime: t.Lifetime, Expired: v.found.Expired,
		Source: string(rfc9111.SourceOf(&rfc9111.Exchange{Response: e.Head.Header()}, &v.x.svc.policy.caching.rules)),
		Bytes:  e.Length, Partial: e.Partial(), Vary: append([]string{}, e.Vary...), Validators: []string{},
		StaleWhileRevalidate: max(t.StaleWhileRevalidate, 0), StaleIfError: v.standsIn(false),
	}
	if t.Fresh(v.age) {
		out.State = "fresh"
	}
	if e.Validators.ETag != "" {
		out.Validators = append(out.Validators, "ETag")
	}
	if e.Validators.LastModified != "" {
		out.Validators = append(out.Validators, "Last-Modified")
	}
	if t.NoStale {
		out.StaleWhileRevalidate = 0
	}
	return out
}

// explainReplicas says which replicas may be chosen for a fetch that was addressed.
func (x *exchange) explainReplicas(e *Explanation, f *fetch) {
	svc := x.svc
	hash, known := f.hash()
	changeable := len(svc.policy.rewrite) > 0 || svc.policy.tokenSource != nil && svc.policy.balancing.field == "field"
	outlook := svc.set.Outlook(hash, known && !changeable, x.start)
	for _, p := range outlook.Endpoints {
		st := p.Status(x.start)
		r := p.Value.explained(st)
		r.Candidate, r.Out, r.Due, r.Chosen = p.Out == "", p.Out, p.Due, p.Endpoint == outlook.Chosen
		r.Full = p.Value.client != nil && r.Conns.Idle == 0 && r.Conns.InUse >= int64(svc.policy.maxConns)
		if st.Until.After(x.start) {
			r.Back = st.Until.Sub(x.start)
		}
		e.Replicas = append(e.Replicas, r)
	}
	if outlook.All != "" {
		e.Notes = append(e.Notes, "all replicas may be chosen, fit or not: "+outlook.All)
	}
	svc.up.mu.Lock()
	defer svc.up.mu.Unlock()
	for _, gone := range svc.up.retired {
		if !gone.quiet() {
			r := gone.explained(balance.Status{})
			r.Out, r.Health = "removed", ""
			e.Replicas = append(e.Replicas, r)
		}
	}
}

// explained is what there is to say of an endpoint by itself.
func (e *endpoint) explained(s balance.Status) ExplainedReplica {
	return ExplainedReplica{Address: e.address, Health: s.Health.String(), Weight: s.Weight, InFlight: s.InFlight, Conns: e.conns()}
}

// explainPolicies says which policies apply to the request.
func (x *exchange) explainPolicies(e *Explanation) {
	p := x.svc.policy
	say := func(applies bool, option, value, state string) {
		if applies {
			e.Policies = append(e.Policies, ExplainedPolicy{option, value, state})
		}
	}
	left := ""
	if due, _ := x.due(); p.timeout > 0 && due.Before(x.start.Add(p.timeout)) {
		left = explain.Span(due.Sub(x.start)) + " are left"
	}
	say(p.timeout > 0, "WithTimeout", explain.Span(p.timeout)+" to the response's header", left)
	for _, t := range [...]struct {
		option string
		limit  time.Duration
	}{
		{"WithAttemptTimeout", p.attemptTimeout}, {"WithDialTimeout", p.dialTimeout}, {"WithResponseHeaderTimeout", p.responseHeaderTimeout},
		{"WithBodyIdleTimeout", p.bodyIdleTimeout}, {"WithMaxDuration", p.maxDuration}, {"WithAcquireTimeout", p.acquireTimeout},
	} {
		say(t.limit > 0, t.option, explain.Span(t.limit), "")
	}
	say(p.maxBodyBytes >= 0, "WithMaxBodyBytes", explain.Bytes(p.maxBodyBytes), "")
	say(p.maxAnswerBytes > 0, "WithMaxResponseBytes", explain.Bytes(p.maxAnswerBytes), "")
	say(x.upgrade != "", "WithMaxTunnels", strconv.Itoa(p.maxTunnels), explain.Count(x.svc.up.tunnels.Load(), "tunnel")+" open")
	x.explainGates(say)
	x.explainRetries(say)
	x.explainHandling(say)
}

// explainGates says what may refuse the request before it is sent.
func (x *exchange) explainGates(say func(applies bool, option, value, state string)) {
	svc, p := x.svc, x.svc.policy
	if svc.rate != nil {
		say(true, "WithRateLimit", fmt.Sprintf("%g a second, %d at once", p.ratePerSecond, p.rateBurst), fmt.Sprintf("room for %d", max(int(svc.rate.TokensAt(x.start)), 0)))
	}
	if svc.limit != nil {
		free, queue := svc.limit.Room()
		say(true, "WithMaxConcurrency", fmt.Sprintf("%d, %d wait", p.concurrency, p.concurrencyQueue), fmt.Sprintf("%d free, room for %d to wait", free, queue))
	}
	if svc.breaker != nil {
		b := svc.breaker.Status(x.start)
		state := b.State.String()
		switch b.State {
		case balance.Closed:
			state += fmt.Sprintf(", %d of %d failed", b.Failed, b.Requests)
		case balance.Open:
			if wait := svc.breaker.RetryAfter(x.start); wait > 0 {
				state += ", for " + explain.Span(wait) + " more"
			} else {
				state += ", and due for a trial"
			}
		}
		say(true, "WithBreaker", fmt.Sprintf("%g of %d within %s", p.breakerRatio, p.breakerVolume, explain.Span(p.breakerWindow)), state)
	}
	say(p.panicShare > 0, "WithPanicThreshold", fmt.Sprintf("%g", p.panicShare), "")
	say(p.ejectBase > 0, "WithEjection", fmt.Sprintf("%s in a row, for %s to %s", explain.Count(p.ejectFailures, "failure"), explain.Span(p.ejectBase), explain.Span(p.ejectMax)), "")
	say(p.checkInterval > 0, "WithHealthChecks", "every "+explain.Span(p.checkInterval), "")
	say(true, "WithBalancing", cmp.Or(p.balancing.shown, "power of two"), "")
}

// explainRetries says how often the request may be sent.
func (x *exchange) explainRetries(say func(applies bool, option, value, state string)) {
	svc, p := x.svc, x.svc.policy
	_, used, _ := svc.budget.Stats()
	allowed := svc.budget.Allowed()
	budget := fmt.Sprintf("the budget has room for %d", max(allowed, used)-used)
	state := budget
	switch {
	case x.hasBody() && (x.r.ContentLength < 0 || x.r.ContentLength > p.retryBodyBytes):
		state = "only while its content fits in " + explain.Bytes(p.retryBodyBytes) + ", " + budget
	case !x.repeatable():
		state = "only if the service cannot have seen it, " + budget
	}
	say(p.retries > 0, "WithRetries", strconv.Itoa(p.retries), state)
	say(p.hedgeDelay > 0, "WithHedge", explain.Span(p.hedgeDelay), explain.If(!x.hedges(), "not for this request"))
}

// explainHandling says what is done to the request and its answer on the way.
func (x *exchange) explainHandling(say func(applies bool, option, value, state string)) {
	p := x.svc.policy
	caching := &p.caching
	closed := p.cache != nil && p.cache.closed.Load()
	say(p.cache != nil, "WithCache", explain.List(
		explain.If(caching.rules.MaxStale > 0, "stale for up to "+explain.Span(caching.rules.MaxStale)),
		explain.If(caching.rules.Authorized, "authorized answers too"), explain.If(caching.rules.Cookies, "answers with cookies too"),
		explain.If(caching.rules.Unheeded, "whatever the request's Cache-Control says"),
	), explain.If(closed, "it was shut down"))
	say(p.cache != nil && caching.collapse > 0, "WithCollapseTimeout", explain.Span(caching.collapse), "")
	say(p.bearerStatic, "WithBearerToken", "sets Authorization", "")
	say(p.tokenSource != nil, "WithTokenSource", "sets Authorization", "not asked for this")
	for _, name := range slices.Sorted(maps.Keys(p.header)) {
		say(name != "Authorization" || !p.bearerStatic, "WithHeader", "sets "+name, "")
	}
	say(len(p.rewrite) > 0, "WithRewrite", explain.Count(len(p.rewrite), "function"), "not called for this")
	say(len(p.modify) > 0, "WithModifyResponse", explain.Count(len(p.modify), "function"), "")
	say(p.preserveHost, "WithPreserveHost", "the client's Host is sent", "")
	say(p.transport != nil, "WithTransport", "a round tripper of the app's", "")
	say(p.http2, "WithHTTP2", "HTTP/2", "")
}

// explainNotes says what else there is to know.
func (x *exchange) explainNotes(e *Explanation) {
	svc, p := x.svc, x.svc.policy
	note := func(holds bool, text string) {
		if holds {
			e.Notes = append(e.Notes, text)
		}
	}
	goes := e.Verdict == VerdictSend || e.Verdict == VerdictRevalidate
	note(x.life.Draining(), "the service drains: requests are served, event streams and tunnels are ended")
	note(x.r.Context().Err() != nil, "the request's context has ended, so nobody waits for an answer of the service")
	note(goes && len(p.rewrite) > 0, "WithRewrite may have it go elsewhere")
	note(goes && p.tokenSource != nil, "it is refused with 502 if the token source fails")
	note(goes && x.upgrade != "" && svc.up.tunnels.Load() >= int64(p.maxTunnels), "no more tunnels may be open: it is refused with 503 once the service has agreed to one")
	if goes && svc.limit != nil {
		free, _ := svc.limit.Room()
		note(free == 0, "it waits for a place first (WithMaxConcurrency)")
	}
	note(p.cache != nil && e.Cache == nil && e.Verdict == VerdictSend, "the cache is not asked: "+cmp.Or(explain.If(x.upgrade != "", "the request is for a tunnel"), "it was shut down"))
	for _, r := range e.Replicas {
		note(goes && r.Chosen && r.Full, "it waits for a connection to "+r.Address+" (WithMaxConns), for "+explain.Span(p.acquireTimeout)+" at most")
	}
	note(e.Cache != nil && e.Cache.Key != "" && e.Cache.Unstored == string(rfc9111.VerdictAuthorization), "its answer is stored only if that says public, s-maxage or must-revalidate (RFC 9111 §3.5)")
	note(e.Cache != nil && e.Cache.Key != "" && e.Cache.Unstored == string(rfc9111.VerdictCookie), "its answer is stored only if that says public or s-maxage, because the request has cookies")
}

// String returns the explanation as lines for people, the verdict first.
func (e Explanation) String() string {
	var p explain.Page
	what := string(e.Verdict)
	if e.Status != 0 {
		what += " (" + strconv.Itoa(e.Status) + ")"
	}
	p.Line(e.Method + " " + e.Path + ": " + what + ", " + e.Why)
	p.Row("reason", string(e.Reason))
	if e.RetryAfter > 0 {
		p.Row("retry after", explain.Span(e.RetryAfter))
	}
	p.Row("service", e.Service)
	p.Row("route", e.Route)
	p.Row("target", e.Target)
	for _, note := range e.Notes {
		p.Row("note", note)
	}
	if e.Cache != nil {
		e.Cache.describe(&p)
	}
	if len(e.Replicas) > 0 {
		p.Line("replicas")
	}
	for i := range e.Replicas {
		e.Replicas[i].describe(&p)
	}
	if len(e.Policies) > 0 {
		p.Line("policies")
	}
	for _, policy := range e.Policies {
		text := policy.Value
		if policy.State != "" {
			text += explain.If(text != "", "; ") + policy.State
		}
		p.Row(policy.Option, text)
	}
	return p.String()
}

func (c *ExplainedCache) describe(p *explain.Page) {
	p.Line("cache")
	p.Row("key", c.Key)
	p.Row("and by", explain.List(c.KeyParts...))
	if s := c.Stored; s != nil {
		state := s.State + " for " + explain.Span(s.TTL) + " more"
		if s.TTL <= 0 || s.State != "fresh" {
			state = s.State + explain.If(s.TTL < 0, " for "+explain.Span(-s.TTL))
		}
		from := s.Source
		if s.Expired {
			from = "until it was expired"
		}
		p.Row("stored", explain.List(state, explain.Span(s.Age.Truncate(time.Second))+" old", explain.Span(s.Lifetime)+" by "+from, "status "+strconv.Itoa(s.Code), explain.Bytes(s.Bytes)+explain.If(s.Partial, " of it")))
		p.Row("of which", explain.List(
			explain.If(len(s.Vary) > 0, "Vary "+strings.Join(s.Vary, " ")), strings.Join(s.Validators, ", "),
			explain.If(s.StaleWhileRevalidate > 0, "stale-while-revalidate for "+explain.Span(s.StaleWhileRevalidate)),
			explain.If(s.StaleIfError, "stands in for errors"),
		))
	}
	p.Row("variants", explain.If(c.Variants > 1 || c.Variants > 0 && c.Stored == nil, strconv.Itoa(c.Variants)))
	p.Row("no answer", c.Unusable)
	p.Row("not stored", c.Unstored)
	p.Row("status", c.Status)
}

func (r *ExplainedReplica) describe(p *explain.Page) {
	state := "out: " + r.Out
	if r.Out == "" {
		state = "candidate" + explain.If(r.Chosen, ", and the one that is chosen")
	}
	p.Row(r.Address, explain.List(state,
		explain.If(r.Health != "healthy" && r.Health != r.Out, r.Health), explain.If(r.Due, "due for its trial"),
		explain.If(r.Back > 0, "due in "+explain.Span(r.Back)), explain.Count(r.InFlight, "request")+" in flight",
		explain.If(r.Conns.InUse > 0, explain.Count(r.Conns.InUse, "connection")+" in use"), explain.If(r.Conns.Idle > 0, explain.Count(r.Conns.Idle, "connection")+" idle"),
		explain.If(r.Full, "none is free"), explain.If(r.Conns.Waiting > 0, explain.Count(r.Conns.Waiting, "request")+" waiting for one"),
	))
}
