package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway/internal/balance"
	"github.com/embedgw/gateway/internal/dash"
	"github.com/embedgw/gateway/internal/flood"
	"github.com/embedgw/gateway/internal/forward"
	"github.com/embedgw/gateway/internal/h1"
	"github.com/embedgw/gateway/internal/health"
	"github.com/embedgw/gateway/internal/options"
	"github.com/embedgw/gateway/internal/stats"
	"github.com/embedgw/gateway/internal/store"
	"github.com/embedgw/gateway/internal/telemetry"
	"github.com/embedgw/gateway/internal/work"
)

// version is this package's, as telemetry reports it.
const version = "0.1.0"

type telemetryConfig struct {
	tracer     trace.TracerProvider
	meter      metric.MeterProvider
	propagator propagation.TextMapPropagator
}

func (c *telemetryConfig) config() telemetry.Config {
	return telemetry.Config{Tracer: c.tracer, Meter: c.meter, Propagator: c.propagator, Version: version}
}

// tracing is what the options say of one service's traces.
type tracing struct {
	mount   string // empty: the pattern tells
	public  bool
	silent  bool
	baggage bool
}

// WithTracerProvider has spans made by tp: a SERVER span for each request, a
// CLIENT span for each attempt. Default: the global provider of OpenTelemetry.
// An explicit no-op provider costs nothing.
func WithTracerProvider(tp trace.TracerProvider) SharedOption {
	return sharedOption{"WithTracerProvider", func(c *sharedConfig) {
		if options.IsNil(tp) {
			c.list.fault("", "the tracer provider is nil")
			return
		}
		c.telemetry.tracer = tp
	}}
}

// WithMeterProvider has metrics recorded by mp. Default: the global provider
// of OpenTelemetry. An explicit no-op provider costs nothing.
func WithMeterProvider(mp metric.MeterProvider) SharedOption {
	return sharedOption{"WithMeterProvider", func(c *sharedConfig) {
		if options.IsNil(mp) {
			c.list.fault("", "the meter provider is nil")
			return
		}
		c.telemetry.meter = mp
	}}
}

// WithPropagator sets how trace context is read from requests and written to
// upstream requests. Default: the global propagator of OpenTelemetry. Baggage
// is sent on only by [WithBaggage].
func WithPropagator(p propagation.TextMapPropagator) SharedOption {
	return sharedOption{"WithPropagator", func(c *sharedConfig) {
		if p == nil {
			c.list.fault("", "the propagator is nil")
		}
		c.telemetry.propagator = p
	}}
}

// WithPublicEndpoint begins a trace of its own for each request, with a link to
// the client's, instead of continuing that: who asks then has no say in what is
// sampled, and in whose trace it shows. Inside a span of the app's it changes
// nothing. Default: the client's trace is continued.
func WithPublicEndpoint() DefaultOption {
	return def("WithPublicEndpoint", func(p *policy, _ *list) { p.tracing.public = true })
}

// WithoutPublicEndpoint continues the client's trace.
func WithoutPublicEndpoint() DefaultOption {
	return def("WithoutPublicEndpoint", func(p *policy, _ *list) { p.tracing.public = false })
}

// WithPropagation sends trace context to the service.
func WithPropagation() DefaultOption {
	return def("WithPropagation", func(p *policy, _ *list) { p.tracing.silent = false })
}

// WithoutPropagation sends no trace context to the service, ours nor the
// client's, and no baggage: for services of others. Attempts have their spans
// nevertheless. Default: it is sent.
func WithoutPropagation() DefaultOption {
	return def("WithoutPropagation", func(p *policy, _ *list) { p.tracing.silent = true })
}

// WithBaggage takes W3C baggage from clients, 8192 bytes of it at most, and sends
// it to the service, together with the app's own, where the propagator knows
// baggage. Whatever clients put in it, the service gets. Default: none is taken
// or sent.
func WithBaggage() DefaultOption {
	return def("WithBaggage", func(p *policy, _ *list) { p.tracing.baggage = true })
}

// WithoutBaggage takes no baggage from clients and sends none.
func WithoutBaggage() DefaultOption {
	return def("WithoutBaggage", func(p *policy, _ *list) { p.tracing.baggage = false })
}

// WithMountPath says below which path the app mounts the handler, for the
// http.route of spans and metrics: "/api" makes it "/api/users/{path...}". It is
// for routers that leave no [http.Request.Pattern]. Given to [New] it is not for
// the handlers of [Gateway.Upstream]. Default: what the pattern says.
func WithMountPath(path string) DefaultOption {
	return def("WithMountPath", func(p *policy, l *list) {
		if reason := telemetry.CheckMount(path); reason != "" {
			l.fault(path, reason)
		}
		p.tracing.mount = path
	})
}

// observe shows what the cache is in through OpenTelemetry.
func (c *Cache) observe() (err error) {
	if c.watched, err = c.core.snapshot.Load().telemetry.ObserveCache(c.state); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	return nil
}

// state is what the cache is in, for its metrics.
func (c *Cache) state() telemetry.CacheState {
	s, queue := c.store.Stats(), c.behind.Stats()
	state := telemetry.CacheState{
		Entries: int64(s.Entries), Bytes: s.Bytes, Requests: make(map[string]uint64, len(cacheResults)),
		Evictions: evictions(s.Evicted), Collapsed: c.calls.Stats().Collapsed, Refreshes: c.refreshes.Load(), Drops: queue.Dropped,
	}
	for i, result := range cacheResults {
		state.Requests[result] = c.results[i].Load()
	}
	return state
}

// evictions names the causes.
func evictions(e store.Evicted) map[string]uint64 {
	return map[string]uint64{"size": e.Size, "expired": e.Expired, "share": e.Share, "memory": e.Memory}
}

// observe shows what the services of the snapshot are in through OpenTelemetry.
func (c *core) observe() (err error) {
	t := c.snapshot.Load().telemetry
	c.watched, err = t.ObserveServices(func(tell func(*telemetry.Service, *telemetry.ServiceState)) {
		c.past.mu.Lock() // nothing comes or goes meanwhile, or sums would fall for a moment
		defer c.past.mu.Unlock()
		none := c.stats.state()
		tell(t.Unrouted(false), &none)
		for _, svc := range c.snapshot.Load().services {
			s := svc.state()
			s.Whole = svc.mounted
			tell(svc.routed, &s)
		}
	})
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	return nil
}

// state is what has become of requests, for their metrics.
func (s *serviceStats) state() telemetry.ServiceState {
	state := telemetry.ServiceState{
		Active: s.inFlight.Load(), Requests: []telemetry.ReasonCount{{N: int64(s.answered.Load())}},
		Hedges: int64(s.hedges.Load()), QueueDrops: int64(s.drops.Load()),
	}
	for i := range s.errors {
		if n := s.errors[i].Load(); n > 0 {
			state.Requests = append(state.Requests, telemetry.ReasonCount{Reason: string(reasons[i].reason), N: int64(n)})
		}
	}
	return state
}

// state is what the service is in, for its metrics.
func (s *service) state() telemetry.ServiceState {
	st := s.up.stats.state()
	for i, cause := range retryCauses {
		st.Retries = append(st.Retries, telemetry.CauseCount{Cause: cause, N: int64(s.up.stats.causes[i].Load())})
	}
	_, used, refused := s.budget.Stats()
	st.BudgetUsed, st.BudgetLimit, st.Refused = int64(used), int64(s.budget.Allowed()), int64(refused)
	st.Ejections, st.Queued = s.up.ejections.Load(), s.limit != nil
	now := time.Now()
	if s.breaker != nil {
		st.Breaker = s.breaker.Status(now).State.String()
		for to := range st.Transitions {
			st.Transitions[to] = s.up.transitions[to].Load()
		}
	}
	if s.limit != nil {
		used, waiting := s.limit.Stats()
		st.QueueInUse, st.QueueWaiting = int64(used), int64(waiting)
	}
	s.up.reading.Lock()
	defer s.up.reading.Unlock()
	for _, e := range s.set.All() {
		c, at := e.Value.conns(), e.Status(now)
		st.Endpoints = append(st.Endpoints, telemetry.EndpointState{
			Endpoint: e.Value.spans, Proto: e.Value.proto(), Healthy: at.Health == balance.Healthy,
			Active: at.InFlight, Pooled: e.Value.pooled(),
			Used: c.InUse, Idle: c.Idle, Waiting: c.Waiting, Waits: int64(c.Waits), WaitTime: c.WaitTime,
		})
	}
	return st
}

// A Stage is what a request is at.
type Stage string

// The stages. Those up to "pool" are the gateway's own part.
const (
	StageRoute    Stage = "route"    // it is judged and routed
	StageCache    Stage = "cache"    // it is looked up
	StageQueue    Stage = "queue"    // it waits for a place of WithMaxConcurrency
	StageHooks    Stage = "hooks"    // a hook of the app's runs, or its token source, and what follows
	StagePool     Stage = "pool"     // it waits for a connection to come free
	StageConnect  Stage = "connect"  // it waits for a new connection
	StageHeader   Stage = "header"   // it is being sent, and waits for the response's header
	StageBackoff  Stage = "backoff"  // it waits before the next attempt
	StageCollapse Stage = "collapse" // it waits for the answer to another request
	StageBody     Stage = "body"     // the response's content goes to the client
	StageStream   Stage = "stream"   // it is an event stream or a tunnel, which is meant to last
)

// What statistics say beside the stages.
const (
	StageOwn   Stage = "own"   // all that is the gateway's own part
	StageTotal Stage = "total" // from a request's arrival to its response's last byte
)

// stage is a Stage as exchanges note it.
type stage uint32

const (
	stageRoute stage = iota
	stageCache
	stageQueue
	stageHooks
	stagePool
	stageConnect
	stageHeader
	stageBackoff
	stageCollapse
	stageBody
	stageStream
)

var stages = [...]Stage{
	StageRoute, StageCache, StageQueue, StageHooks, StagePool, StageConnect, StageHeader, StageBackoff, StageCollapse, StageBody, StageStream,
}

// A SlowRequest is a request that takes longer than [WithSlowRequest] allows,
// and is still running.
type SlowRequest struct {
	Service string
	Method  string
	Route   string // the template of spans, such as "/api/users/{path...}"; empty: none is known
	Path    string // as the client sent it, without the query, shortened
	TraceID string // empty: none

	Start    time.Time
	Elapsed  time.Duration
	Stage    Stage         // what it is at
	InStage  time.Duration // for at least so long
	Own      time.Duration // at least so much of Elapsed was the gateway's own part
	Attempts int           // so far
	Endpoint string        // of the last of them: host:port, or a socket's path; empty: none yet

	// Over the last 5 to 10 seconds, of this process: how long goroutines that
	// could run had to wait (99th percentile), and the longest stop for a garbage
	// collection. Where they are long, it is the process that is slow, or its
	// machine, and not an upstream.
	SchedulerLatency time.Duration
	GCPause          time.Duration

	Dropped uint64 // slow requests of the service that were not reported since the last report
}

// slowPolicy says which requests are slow.
type slowPolicy struct {
	stats.Pace                   // zero: none are
	hook       func(SlowRequest) // nil: they are only logged
}

const (
	slowThreshold = 5 * time.Second
	slowOwn       = 100 * time.Millisecond
	slowPerSecond = 1               // reports of a service
	stallWindow   = 5 * time.Second // between two marks
	leastLook     = 5 * time.Millisecond
)

// WithSlowRequest has requests reported while they still run: once they have
// taken longer than threshold, or the gateway's own part of them (all that is
// no waiting for an upstream, for the client or for another request) longer
// than 100 ms, or than threshold if that is less. Each is reported once for
// either, a service's at most once a second; what is left out is counted. Event
// streams and tunnels are not slow. Each report is logged, and given to f,
// which may be nil and must not block: one goroutine looks at all requests of a
// gateway, every 50 ms at most, from the first request until Shutdown. A
// threshold of zero is 5 s. Default: off.
func WithSlowRequest(threshold time.Duration, f func(SlowRequest)) DefaultOption {
	return def("WithSlowRequest", func(p *policy, l *list) {
		if threshold < 0 || threshold > 0 && threshold < 2*leastLook {
			l.fault(threshold.String(), "less than 10 ms")
		}
		threshold := cmp.Or(threshold, slowThreshold)
		p.slow = slowPolicy{stats.Pace{Long: threshold, Own: min(threshold, slowOwn), LastOwn: int(stagePool), Endless: int(stageStream)}, f}
	})
}

// WithoutSlowRequest reports no slow requests.
func WithoutSlowRequest() DefaultOption {
	return def("WithoutSlowRequest", func(p *policy, _ *list) { p.slow = slowPolicy{} })
}

// mark is what is known of an exchange to whoever looks for slow ones, on
// another goroutine. While it is in the roll the exchange's svc, start and span
// do not change.
type mark struct {
	on           bool
	place        work.Place[*exchange]
	method, path string
	progress     stats.Progress
	attempts     atomic.Int32
	endpoint     atomic.Pointer[endpoint]
}

// join has the exchange looked at from now on.
func (x *exchange) join() {
	m := &x.mark
	m.on, m.method, m.path = true, x.r.Method, x.requestPath()
	x.core.roll.Join(&m.place, x)
}

// reached notes what the exchange is at, and for how long it was at what was
// before. Only its own goroutine does.
func (x *exchange) reached(s stage) {
	x.note(s)
	if x.laps.Leaves(int(s)) {
		x.laps.Next(int(s), time.Since(x.start))
	}
}

// reachedAt is reached where somebody has looked at the clock.
func (x *exchange) reachedAt(s stage, at time.Time) {
	x.note(s)
	x.laps.Next(int(s), at.Sub(x.start))
}

// becomes is reached where it turns out that it was there all along.
func (x *exchange) becomes(from, to stage) {
	if x.laps.Become(int(from), int(to)) {
		x.note(to)
	} else {
		x.reached(to)
	}
}

// setServerTiming tells where the time up to a response's header went.
func (x *exchange) setServerTiming(h http.Header) {
	if x.svc == nil || !x.svc.policy.serverTiming {
		return
	}
	took := time.Since(x.start)
	t := forward.Timing{Cache: x.cache.String()}
	for i := range stages {
		d, ok := x.laps.SoFar(i, took)
		switch s := stage(i); {
		case s <= stagePool:
			t.Own += d
		case s <= stageCollapse && ok:
			t.Asked, t.Upstream = true, t.Upstream+d
		}
	}
	forward.Put(h, "Server-Timing", []string{t.String()})
}

// note is reached without a look at the clock.
func (x *exchange) note(s stage) {
	if x.mark.on {
		x.mark.progress.At(int(s))
	}
}

// attempted notes an attempt.
func (x *exchange) attempted(n int, a *attempt) {
	if x.mark.on {
		x.mark.attempts.Store(int32(n)) //nolint:gosec // at most 12
		x.mark.endpoint.Store(a.endpoint)
	}
	x.reachedAt(stageHeader, a.start)
}

// planWatches prepares what runs beside all requests.
func (c *core) planWatches(next *snapshot, memory *memoryPolicy) {
	for _, svc := range next.services {
		if p := svc.policy.slow; p.Long > 0 {
			every := max(p.Own/2, leastLook)
			next.every = min(every, cmp.Or(next.every, every))
		}
	}
	old := c.snapshot.Load()
	next.slow = goOn(old.slow, old.every, next.every, "slow requests", func(ctx context.Context) { c.lookForSlow(ctx, next.every) })
	next.growth = memory
	next.memory = goOn(old.memory, old.growth.every(), memory.every(), "memory watch", func(ctx context.Context) { memory.watch(memory, ctx, c) })
}

// beside starts it.
func (c *core) beside() {
	if !c.unwatched.Swap(false) {
		return
	}
	snap := c.snapshot.Load()
	for _, w := range [...]*work.Watch{snap.slow, snap.memory} {
		if w != nil {
			w.Start(c.life)
		}
	}
}

// slowReport is one that is to be made.
type slowReport struct {
	SlowRequest
	span string    // its id
	at   *endpoint // nil: none yet
	hook func(SlowRequest)
}

func (c *core) lookForSlow(ctx context.Context, every time.Duration) {
	c.looking.Lock() // until another has ended, which takes over from this one's exchanges
	defer c.looking.Unlock()
	stalls := stats.NewStalls()
	marked := time.Now()
	var latency, pause time.Duration // of the window before
	var reports []slowReport
	for wait(ctx, every) {
		now := time.Now()
		reports = reports[:0]
		c.roll.Each(func(x *exchange) {
			if !x.mark.progress.Slow(x.start, now, &x.svc.policy.slow.Pace) {
				return
			}
			if dropped, ok := x.svc.up.slow.Admit(now, slowPerSecond); ok {
				reports = append(reports, slowReport{x.slowRequest(now, dropped), x.span.SpanID(), x.mark.endpoint.Load(), x.svc.policy.slow.hook})
			}
		})
		due := now.Sub(marked) >= stallWindow
		if len(reports) == 0 && !due {
			continue
		}
		latencyNow, pauseNow := stalls.Read()
		for i := range reports {
			reports[i].SchedulerLatency, reports[i].GCPause = max(latency, latencyNow), max(pause, pauseNow)
			c.report(&reports[i])
		}
		clear(reports)
		if due {
			stalls.Mark()
			latency, pause, marked = latencyNow, pauseNow, now
		}
	}
}

// slowRequest is what can be said of the exchange.
func (x *exchange) slowRequest(now time.Time, dropped uint64) SlowRequest {
	m := &x.mark
	at, in, own := m.progress.Seen()
	r := SlowRequest{
		Service: x.svc.up.name, Method: forward.Printable(m.method, 32), Route: x.span.Route(), Path: forward.Printable(m.path, 512), TraceID: x.span.TraceID(),
		Start: x.start, Elapsed: now.Sub(x.start), Stage: stages[at], InStage: in, Own: own,
		Attempts: int(m.attempts.Load()), Dropped: dropped,
	}
	if e := m.endpoint.Load(); e != nil {
		r.Endpoint = e.address
	}
	return r
}

// report logs a slow request, and tells the hook.
func (c *core) report(r *slowReport) {
	address, port := slog.Attr{}, slog.Attr{}
	if r.at != nil {
		address, port = r.at.serverAddress(), r.at.serverPort()
	}
	c.log().LogAttrs(context.Background(), slog.LevelWarn, "gateway: slow request",
		slog.String("gateway.service", r.Service), slog.String("http.request.method", r.Method), slog.String("http.route", r.Route),
		slog.String("url.path", r.Path), slog.String("trace_id", r.TraceID), slog.String("span_id", r.span), slog.Float64("gateway.duration", r.Elapsed.Seconds()),
		slog.String("gateway.stage", string(r.Stage)), slog.Float64("gateway.stage.duration", r.InStage.Seconds()),
		slog.Float64("gateway.own.duration", r.Own.Seconds()), slog.Int("gateway.attempts", r.Attempts), address, port,
		slog.Float64("gateway.scheduler.latency", r.SchedulerLatency.Seconds()), slog.Float64("gateway.gc.pause", r.GCPause.Seconds()),
		slog.Uint64("gateway.dropped", r.Dropped))
	if r.hook != nil {
		c.tell("WithSlowRequest", func() { r.hook(r.SlowRequest) })
	}
}

// tell calls a hook, and logs its panic.
func (c *core) tell(name string, hook func()) {
	defer func() {
		if v := recover(); v != nil {
			c.panicked(name, v, debug.Stack())
		}
	}()
	hook()
}

// A MemoryReport says that the process's memory grows steadily, and where.
type MemoryReport struct {
	Interval time.Duration    // between two samples
	Samples  []MemorySample   // the last ten at most, oldest first
	Rise     int64            // bytes from one to the next, by the line that fits them best
	Sites    []AllocationSite // whose allocations in use have grown most, the most first; at most five
}

// A MemorySample is what the process held at one moment.
type MemorySample struct {
	Live        uint64 // bytes that the last garbage collection left
	Goroutines  int
	Descriptors int // -1 where the platform does not show them
}

// An AllocationSite is a line of the program that allocates.
type AllocationSite struct {
	Function, File string
	Line           int
	Bytes          int64 // in use more than before, estimated from the runtime's heap profile
}

const (
	memoryInterval = time.Minute
	leastInterval  = 10 * time.Millisecond
)

// WithMemoryWatch looks at the memory of the whole process, from the first
// request until Shutdown, and reports when it grows steadily: over the last ten
// samples at most, but four at least, what garbage collections leave has grown
// by more than 10 MiB, along a line that rises as much, and in two steps of
// three. After a report it begins anew. Each report is logged, and given to f,
// which may be nil and must not block. An interval of zero is 1 min; at least
// 10 ms. A sample takes about 30 µs; every tenth, and each report, reads the
// heap profile, which takes about 1 µs for each place that allocates. Default: off.
func WithMemoryWatch(interval time.Duration, f func(MemoryReport)) Option {
	return gatewayOption(func(c *config) {
		l := &c.shared.list
		l.begin("WithMemoryWatch")
		if interval < 0 || interval > 0 && interval < leastInterval {
			l.fault(interval.String(), "less than 10 ms")
		}
		interval := cmp.Or(interval, memoryInterval)
		// A func, so that programs without the option are linked without the
		// runtime's memory profile, and then do not record one.
		c.memory = &memoryPolicy{interval: interval, hook: f, watch: (*memoryPolicy).run}
	})
}

// memoryPolicy says how the process's memory is watched.
type memoryPolicy struct {
	interval time.Duration
	hook     func(MemoryReport) // nil: growth is only logged
	watch    func(*memoryPolicy, context.Context, *core)
}

// every is how often it is looked at; zero: never.
func (p *memoryPolicy) every() time.Duration {
	if p == nil {
		return 0
	}
	return p.interval
}

func (p *memoryPolicy) run(ctx context.Context, c *core) {
	m := stats.NewMemory()
	for wait(ctx, p.interval) {
		window, rise, grows := m.Sample()
		if !grows {
			continue
		}
		r := MemoryReport{Interval: p.interval, Rise: int64(rise)}
		for _, s := range window {
			r.Samples = append(r.Samples, MemorySample(s))
		}
		for _, s := range m.Sites() {
			r.Sites = append(r.Sites, AllocationSite(s))
		}
		if now := c.snapshot.Load().growth; now != nil {
			c.reportMemory(&r, now.hook)
		}
	}
}

func (c *core) reportMemory(r *MemoryReport, hook func(MemoryReport)) {
	last := r.Samples[len(r.Samples)-1]
	sites := make([]string, len(r.Sites))
	for i, s := range r.Sites {
		sites[i] = fmt.Sprintf("%s:%d %s +%d", s.File, s.Line, s.Function, s.Bytes)
	}
	c.log().LogAttrs(context.Background(), slog.LevelWarn, "gateway: memory growth",
		slog.Uint64("gateway.memory.live", last.Live), slog.Int64("gateway.memory.rise", r.Rise),
		slog.Float64("gateway.memory.interval", r.Interval.Seconds()), slog.Int("gateway.memory.goroutines", last.Goroutines),
		slog.Int("gateway.memory.descriptors", last.Descriptors), slog.Any("gateway.memory.sites", sites))
	if hook != nil {
		c.tell("WithMemoryWatch", func() { hook(*r) })
	}
}

type counter = stats.Counter

// serviceStats counts and measures one service's requests, since it was made.
type serviceStats struct {
	inFlight atomic.Int64
	retries  counter
	causes   [len(retryCauses)]counter // of the retries
	drops    counter                   // of the queue
	hedges   counter
	hits     counter
	misses   counter
	answered counter // without an error of ours
	failed   counter // 5xx, and errors of ours
	errors   [len(reasons)]counter
	history  *stats.History     // of these, and of what is measured; begin makes it
	lines    [kinds]flood.Limit // of the log
}

// The rows of a history: one for each stage, and these.
const (
	rowOwn   = len(stages) + iota
	rowTotal // but for
	rowHit   // which was nothing but cache: it is own part and total, too, and recorded once
	rows
)

// The counters of a history: these, and then one for each reason.
const (
	countFailed = iota
	countRetries
	countHedges
	countHits
	countMisses
	countErrors
)

// begin makes the history, at a time since the core was started.
func (s *serviceStats) begin(at time.Duration) {
	counters := []*counter{&s.failed, &s.retries, &s.hedges, &s.hits, &s.misses}
	for i := range s.errors {
		counters = append(counters, &s.errors[i])
	}
	s.history = stats.NewHistory(at, rows, counters...)
}

// measure records how long an exchange took, and how long it was at which stage.
// It returns the own part.
func (s *serviceStats) measure(l *stats.Laps, took time.Duration) (own time.Duration) {
	if l.Only(int(stageCache)) {
		s.history.Record(rowHit, took)
		return took
	}
	l.End(took)
	for i := range stages {
		if d, ok := l.Spent(i); ok {
			s.history.Record(i, d)
			if stage(i) <= stagePool {
				own += d
			}
		}
	}
	s.history.Record(rowOwn, own)
	s.history.Record(rowTotal, took)
	return own
}

// record counts, measures, traces and logs an exchange that has ended.
func (x *exchange) record(aborted bool) {
	took := x.ended.Sub(x.start)
	if x.ended.IsZero() || x.err != nil { // an error is answered after the fetch has ended
		took = time.Since(x.start)
	}
	s := x.stats()
	s.inFlight.Add(-1)
	s.history.Advance(x.start.Sub(x.core.started) + took)
	own := s.measure(&x.laps, took)
	errorType := ""
	if x.err != nil {
		s.errors[x.err.Reason.index()].Add(1)
		errorType = string(x.err.Reason)
	} else {
		s.answered.Add(1)
	}
	if x.status >= 500 || x.err != nil && x.err.Status != statusClientClosed {
		s.failed.Add(1)
	}
	switch {
	case x.cache.hit != nil:
		s.hits.Add(1)
	case x.cache.by != nil:
		s.misses.Add(1)
	}
	x.cache.count()
	client := ""
	if x.svc != nil && len(x.svc.policy.trusted) > 0 && x.span.Recording() {
		client = x.client()
	}
	x.span.End(&telemetry.ServerResult{
		ClientAddress: client, Status: x.status, ErrorType: errorType, Failed: x.err != nil && x.err.Status >= 500, Aborted: aborted, Duration: took, Own: own, CacheResult: x.cache.String(),
		RequestBytes: x.received, ResponseBytes: x.out.Sent,
	})
	if x.snap.access {
		x.log(took, aborted)
	}
	if ended := x.start.Add(took); x.core.slowest.Takes(ended, took) && !x.streamed() {
		x.core.slowest.Add(x.slow(ended, took))
	}
	if w, ok := x.w.(*warmer); ok {
		w.ended(x)
	}
}

// streamed reports whether an exchange that has been measured was one that is meant
// to last.
func (x *exchange) streamed() bool {
	_, ok := x.laps.Spent(int(stageStream))
	return ok
}

// slow is what the dashboard is told of the exchange, if it was among the slowest.
func (x *exchange) slow(ended time.Time, took time.Duration) dash.Slow {
	r := dash.Slow{
		At: ended.UnixMilli(), Method: forward.Printable(x.r.Method, 32), Path: forward.Printable(x.requestPath(), 256),
		Status: x.status, Micros: took.Microseconds(), TraceID: x.span.TraceID(),
	}
	if x.svc != nil {
		r.Service = x.svc.up.name
	}
	return r
}

// requestPath is the path as the client sent it, without the query.
func (x *exchange) requestPath() string {
	path, _, _ := strings.Cut(x.r.RequestURI, "?")
	if !strings.HasPrefix(path, "/") {
		return x.r.URL.EscapedPath()
	}
	return path
}

func (x *exchange) stats() *serviceStats {
	if x.svc == nil {
		return &x.core.stats
	}
	return &x.svc.up.stats
}

// sample decides whether the request is logged should it succeed, and gives one
// that is an id.
func (x *exchange) sample() {
	if rate := x.svc.policy.logRate; rate < 1 && rand.Float64() >= rate {
		x.unlogged = true
		return
	}
	if x.snap.log.Enabled(x.ctx, slog.LevelInfo) {
		x.identify()
	}
}

// identify gives the request an id.
func (x *exchange) identify() {
	if x.id == nil {
		x.takeID()
		x.requestID()
	}
}

// level is that of the request's line: of what is the client's doing Info.
func (x *exchange) level(aborted bool) slog.Level {
	switch {
	case x.err != nil && slices.Contains(appsOwn[:], x.err.Reason):
		return slog.LevelError
	case x.failed(aborted):
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// appsOwn are the reasons for which the app itself has to do something.
var appsOwn = [...]Reason{ReasonPanic, ReasonHook, ReasonToken}

// failed tells what the conventions call an error of a server: a client that
// left is none.
func (x *exchange) failed(aborted bool) bool {
	if x.err != nil {
		return x.err.Status >= 500 || aborted && x.err.Status != statusClientClosed
	}
	return x.status >= 500 || aborted
}

// The kinds of lines that have no reason of ours.
const (
	kindRefused = len(reasons) + iota // by the upstream, 4xx
	kindFailed
	kinds
)

// admitted asks sampling and the limit of failures whether the request is logged.
func (x *exchange) admitted(took time.Duration, aborted bool) (dropped uint64, ok bool) {
	limit, slow := x.snap.logLimit, slowThreshold
	if x.svc != nil {
		limit, slow = x.svc.policy.logLimit, cmp.Or(x.svc.policy.slow.Long, slow)
	}
	kind := kindFailed
	switch {
	case x.err != nil:
		kind = x.err.Reason.index()
	case x.failed(aborted):
	case x.status >= 400:
		kind = kindRefused
	default:
		return 0, !x.unlogged || took >= slow
	}
	return x.stats().lines[kind].Admit(time.Now(), limit)
}

// maxLogFields is how many fields the request's line may have.
const maxLogFields = 20

// log writes the request's line.
func (x *exchange) log(took time.Duration, aborted bool) {
	l, level := x.snap.log, x.level(aborted)
	if !l.Enabled(x.ctx, level) {
		return
	}
	dropped, ok := x.admitted(took, aborted)
	if !ok {
		return
	}
	var buf [maxLogFields]slog.Attr
	attrs := x.logRequest(buf[:0])
	attrs = append(attrs,
		slog.Int("http.response.status_code", x.status), slog.Int64("http.response.body.size", x.out.Sent),
		slog.Float64("gateway.duration", took.Seconds()))
	if x.svc != nil {
		attrs = append(attrs, slog.String("gateway.service", x.svc.up.name), slog.Int("gateway.attempts", x.attempts))
	}
	if result := x.cache.String(); result != "" {
		attrs = append(attrs, slog.String("gateway.cache.result", result))
	}
	if x.err != nil {
		attrs = append(attrs, slog.String("gateway.reason", string(x.err.Reason)))
	}
	if x.failed(aborted) {
		attrs = append(attrs, slog.String("error.type", x.errorType()))
	}
	if x.err != nil && x.err.Err != nil {
		attrs = append(attrs, slog.String("error.message", errorText(x.err.Err, x.secrets())))
	}
	if dropped > 0 {
		attrs = append(attrs, slog.Uint64("gateway.dropped", dropped))
	}
	l.LogAttrs(x.ctx, level, "gateway: request", attrs...)
}

// logRequest appends what is known of the request itself.
func (x *exchange) logRequest(attrs []slog.Attr) []slog.Attr {
	method := x.span.Method()
	attrs = append(attrs, slog.String("http.request.method", method))
	if method != x.r.Method {
		attrs = append(attrs, slog.String("http.request.method_original", forward.Printable(x.r.Method, 32)))
	}
	attrs = append(attrs, slog.String("url.path", forward.Printable(x.requestPath(), 512)))
	if route := x.span.Route(); route != "" {
		attrs = append(attrs, slog.String("http.route", forward.Printable(route, 512)))
	}
	if client := x.client(); client != "" {
		attrs = append(attrs, slog.String("client.address", forward.Printable(client, 64)))
	}
	if id := x.requestID(); id != "" {
		attrs = append(attrs, slog.String("gateway.request.id", id))
	}
	if id := x.span.TraceID(); id != "" {
		attrs = append(attrs, slog.String("trace_id", id), slog.String("span_id", x.span.SpanID()))
	}
	return attrs
}

// errorType is why the request failed, as spans have it.
func (x *exchange) errorType() string {
	switch {
	case x.err != nil:
		return string(x.err.Reason)
	case x.status >= 500:
		return strconv.Itoa(x.status)
	}
	return "_OTHER"
}

// client is the address of who asked, behind proxies that are trusted.
func (x *exchange) client() string {
	rules := new(forward.RequestRules) // which trust nobody
	if x.svc != nil {
		rules = x.svc.rules
	}
	return rules.Client(&forward.Inbound{Header: x.r.Header, RemoteAddr: x.r.RemoteAddr})
}

// errorText is the text of an error for logs, without secrets.
func errorText(err error, secrets []string) string {
	return forward.Printable(telemetry.Redact(err.Error(), secrets...), 512)
}

// secrets are what the client has sent, and the service is sent, to identify
// themselves.
func (x *exchange) secrets() (all []string) {
	all = telemetry.Secrets(x.r.Header, x.r.URL.RawQuery)
	if x.svc != nil {
		all = append(all, x.svc.secrets...)
	}
	return append(all, x.bearer)
}

// panicsPerSecond bounds how many panics of one place are logged.
const panicsPerSecond = 10

// panicked logs a panic of a hook or a task, with its stack.
func (c *core) panicked(where string, v any, stack []byte) { c.logPanic(where, v, stack, nil) }

// panicked is core's, of what may go by a policy that is not in force any more.
func (s *service) panicked(where string, v any, stack []byte) {
	s.up.core.logPanic(where, v, stack, append(s.up.core.secrets(), s.secrets...))
}

// secrets are what services are sent, those included that are about to end.
func (c *core) secrets() (all []string) {
	for _, svc := range c.snapshot.Load().services {
		all = append(all, svc.secrets...)
	}
	for _, up := range c.past.leaving() {
		all = append(all, up.current.Load().secrets...)
	}
	return all
}

// panicked is core's, where the value may hold what is secret in the request.
func (x *exchange) panicked(where string, v any, stack []byte) {
	x.core.logPanic(where, v, stack, x.secrets())
}

func (c *core) logPanic(where string, v any, stack []byte, secrets []string) {
	if !c.log().Enabled(context.Background(), slog.LevelError) {
		return
	}
	dropped, ok := c.panics.Admit(where, time.Now(), panicsPerSecond)
	if !ok {
		return
	}
	if secrets == nil {
		secrets = c.secrets()
	}
	c.log().LogAttrs(context.Background(), slog.LevelError, "gateway: panic", slog.String("gateway.where", where),
		slog.String("exception.type", fmt.Sprintf("%T", v)),
		slog.String("exception.message", forward.Printable(telemetry.Redact(fmt.Sprint(v), secrets...), 1024)),
		slog.String("exception.stacktrace", string(stack)), slog.Uint64("gateway.dropped", dropped))
}

// once reports whether a line of a service is the first of its kind.
func (c *core) once(line, service string) bool {
	_, known := c.told.LoadOrStore([2]string{line, service}, true)
	return !known
}

// conceals tells once that the app has w stand before what net/http's server gave
// it, so that what a response of the service needs is not to be had.
func (c *core) conceals(service string, w http.ResponseWriter, method string) {
	if !c.once(method, service) {
		return
	}
	c.log().LogAttrs(context.Background(), slog.LevelWarn, "gateway: response writer", slog.String("gateway.service", service),
		slog.String("gateway.writer.type", fmt.Sprintf("%T", forward.Innermost(w))), slog.String("gateway.writer.lacks", method))
}

// drains tells that a service, or, without a name, all of them, begin to drain.
func (c *core) drains(service string) {
	if !c.once("drain", service) {
		return
	}
	c.changes.Add(service, "drain", "")
	if c.snapshot.Load().access {
		c.log().LogAttrs(context.Background(), slog.LevelInfo, "gateway: drain", slog.String("gateway.service", service))
	}
}

// shuts tells that a shutdown has ended, and how.
func (c *core) shuts(service string, took time.Duration, err error) {
	if !c.once("shutdown", service) || !c.snapshot.Load().access {
		return
	}
	level, text := slog.LevelInfo, ""
	if err != nil {
		level, text = slog.LevelWarn, forward.Printable(err.Error(), 512)
	}
	c.log().LogAttrs(context.Background(), level, "gateway: shutdown", slog.String("gateway.service", service),
		slog.Float64("gateway.duration", took.Seconds()), slog.String("error.message", text))
}

// Latency sums up durations. Quantiles are off by at most 1.6 %, or 16 ns where
// that is more; the others are exact. It marshals to JSON as nanoseconds.
type Latency struct {
	Count uint64        `json:"count"`
	Total time.Duration `json:"total_ns"`
	Mean  time.Duration `json:"mean_ns"`
	Min   time.Duration `json:"min_ns"`
	Max   time.Duration `json:"max_ns"`
	P50   time.Duration `json:"p50_ns"`
	P95   time.Duration `json:"p95_ns"`
	P99   time.Duration `json:"p99_ns"`
}

func latencyOf(s *stats.Snapshot) Latency { return Latency(s.Summary()) }

// StageStats sums up how long requests were at one stage. A request that was at
// it several times, for its retries, counts once, with all of its time.
type StageStats struct {
	Stage Stage `json:"stage"`
	Latency
}

// A Window is how far back statistics go.
type Window int

// The windows. The last ones begin with a whole ten seconds, so they are up to
// ten seconds longer than they say.
const (
	SinceReset     Window = iota // since ResetStats; without one, since the service was made
	LastMinute                   // of what has ended in it
	LastTenMinutes               // the same
)

// windowOf returns the window that a query names.
func windowOf(name string) (w Window, ok bool) {
	switch name {
	case "":
		return SinceReset, true
	case "1m":
		return LastMinute, true
	case "10m":
		return LastTenMinutes, true
	}
	return 0, false
}

// UpstreamStats is what one service has done, and what it is in. Counts are
// read one by one: under traffic they may be a request apart.
type UpstreamStats struct {
	Over        time.Duration     `json:"over_ns"`  // how far back counts and durations go
	Requests    uint64            `json:"requests"` // ended, however they did
	Failed      uint64            `json:"failed"`   // of these with 5xx, or an error of the gateway's, but for clients that left
	InFlight    int64             `json:"in_flight"`
	Retries     uint64            `json:"retries"`
	Hedges      uint64            `json:"hedges"`
	CacheHits   uint64            `json:"cache_hits"`
	CacheMisses uint64            `json:"cache_misses"` // those that found no answer in the service's cache
	Errors      map[Reason]uint64 `json:"errors"`       // by reason; those that did not occur are absent
	Latency     Latency           `json:"latency"`      // arrival to the response's last byte
	Stages      []StageStats      `json:"stages"`       // in their order, those that requests were at; then "own" and "total"

	Breaker  BreakerStats   `json:"breaker"`
	Queue    QueueStats     `json:"queue"`    // of WithMaxConcurrency
	Replicas []ReplicaStats `json:"replicas"` // empty in the sum of all services
}

// BreakerStats is the state of a circuit breaker.
type BreakerStats struct {
	State  BreakerState `json:"state"`  // empty without one, and in the sum of all services
	Opened uint64       `json:"opened"` // how often
}

// QueueStats is who holds a place, and who waits for one.
type QueueStats struct {
	InUse   int `json:"in_use"`
	Waiting int `json:"waiting"`
}

// ReplicaStats is the state of one replica.
type ReplicaStats struct {
	Address   string        `json:"address"` // host:port, or a socket's path
	Health    string        `json:"health"`  // healthy, ejected, unhealthy
	Weight    float64       `json:"weight"`  // less than its own during a slow start
	InFlight  int64         `json:"in_flight"`
	Latency   time.Duration `json:"latency_ns"` // to the response's header, decaying average
	Ejections uint64        `json:"ejections"`
	Conns     ConnStats     `json:"conns"` // zero for a round tripper of the app's
}

// ConnStats is what the connections to one replica do. Over HTTP/2 one is in use
// by many requests, and one that is no more was "closed" unless its end was ours.
type ConnStats struct {
	Open            int64             `json:"open"`
	Idle            int64             `json:"idle"`
	InUse           int64             `json:"in_use"`
	Waiting         int64             `json:"waiting"` // requests for a connection
	Dials           uint64            `json:"dials"`   // that ended, errors included
	DialErrors      uint64            `json:"dial_errors"`
	Reuses          uint64            `json:"reuses"`
	Waits           uint64            `json:"waits"`
	WaitTime        time.Duration     `json:"wait_ns"` // of all waits
	AcquireTimeouts uint64            `json:"acquire_timeouts"`
	Discards        map[string]uint64 `json:"discards"` // closed, surplus, idle, age, error, not-reusable, shutdown; those that did not occur are absent
}

func (s *service) readState(out *UpstreamStats) {
	now := time.Now()
	if s.breaker != nil {
		b := s.breaker.Status(now)
		out.Breaker = BreakerStats{BreakerState(b.State.String()), b.Opened}
	}
	if s.limit != nil {
		out.Queue.InUse, out.Queue.Waiting = s.limit.Stats()
	}
	for _, e := range s.set.All() {
		status := e.Status(now)
		r := ReplicaStats{
			Address: e.Value.address, Health: status.Health.String(), Weight: status.Weight, InFlight: status.InFlight,
			Latency: status.Latency, Ejections: status.Ejections, Conns: e.Value.conns(),
		}
		out.Replicas = append(out.Replicas, r)
	}
}

// pooled reports whether the connections are ours, and not those of a round tripper
// of the app's.
func (e *endpoint) pooled() bool { return e.client != nil || e.owned != nil }

// conns returns what the connections do.
func (e *endpoint) conns() ConnStats {
	s := ConnStats{Discards: map[string]uint64{}}
	switch {
	case e.client != nil:
		c := e.client.Stats()
		s.Open, s.Idle, s.InUse, s.Waiting, s.Dials, s.DialErrors = c.Open, c.Idle, c.InUse, c.Waiting, c.Dials, c.DialErrors
		s.Reuses, s.Waits, s.WaitTime, s.AcquireTimeouts = c.Reuses, c.Waits, c.WaitTime, c.AcquireTimeouts
		for why, n := range c.Discards {
			s.Discards[string(why)] = n
		}
	case e.owned != nil:
		c := e.owned.Stats()
		s.Open, s.Idle, s.InUse, s.Waiting, s.Dials, s.DialErrors = c.Open, c.Idle, c.InUse, c.Waiting, c.Dials, c.DialErrors
		s.Reuses, s.Waits, s.WaitTime, s.AcquireTimeouts = c.Reuses, c.Waits, c.WaitTime, c.AcquireTimeouts
		for why, n := range map[h1.Discard]uint64{h1.DiscardAge: c.Aged, h1.DiscardShutdown: c.Shut, h1.DiscardClosed: c.Ended} {
			if n > 0 {
				s.Discards[string(why)] = n
			}
		}
	}
	return s
}

// Stats is what a gateway has done, and what it is in.
type Stats struct {
	UpstreamStats // of all services, and of requests for none

	Uptime   time.Duration            `json:"uptime_ns"`
	Draining bool                     `json:"draining"`
	Services map[string]UpstreamStats `json:"services"`
	Caches   []CacheStats             `json:"caches"` // each cache that its services use
}

// String returns a table of the stages, below a line with what was counted.
func (s UpstreamStats) String() string {
	var t stats.Table
	s.print(&t, "")
	return t.String()
}

// String returns the tables of all services, by name, below that of their sum.
func (s Stats) String() string {
	var t stats.Table
	s.print(&t, "all: ")
	for _, name := range slices.Sorted(maps.Keys(s.Services)) {
		t.Line("")
		one := s.Services[name]
		one.print(&t, name+": ")
	}
	return t.String()
}

func (s *UpstreamStats) print(t *stats.Table, name string) {
	t.Line(fmt.Sprintf("%s%d requests in %s, %d failed, %d in flight, %d retries, %d hedges, %d cache hits, %d misses",
		name, s.Requests, stats.Short(s.Over), s.Failed, s.InFlight, s.Retries, s.Hedges, s.CacheHits, s.CacheMisses))
	if len(s.Errors) > 0 {
		var all []string
		for _, reason := range slices.Sorted(maps.Keys(s.Errors)) {
			all = append(all, fmt.Sprintf("%s %d", reason, s.Errors[reason]))
		}
		t.Line("errors: " + strings.Join(all, ", "))
	}
	if len(s.Stages) > 0 {
		t.Headings("stage")
	}
	for i := range s.Stages {
		sum := stats.Summary(s.Stages[i].Latency)
		t.Summary(string(s.Stages[i].Stage), &sum)
	}
}

// CacheStats is the state of a cache, and what it has done since it was made,
// for whoever uses it.
type CacheStats struct {
	Entries   int64  `json:"entries"`
	Bytes     int64  `json:"bytes"` // of all that is stored and arriving
	MaxBytes  int64  `json:"max_bytes"`
	Hits      uint64 `json:"hits"`   // requests that found an answer when they came, or led to one
	Misses    uint64 `json:"misses"` // those that found none
	Stale     uint64 `json:"stale"`  // answers that were not fresh: of the hits, or in place of an error
	Evictions uint64 `json:"evictions"`

	Requests  map[string]uint64 `json:"requests"`  // that have ended, by what the cache did with them: hit, or why they went upstream (RFC 9211 §2.2)
	Evicted   map[string]uint64 `json:"evicted"`   // evictions by cause: size, expired, share, memory
	Collapsed uint64            `json:"collapsed"` // requests that were given the answer to another
	Refreshes uint64            `json:"refreshes"` // of what was served stale, behind requests
	Drops     uint64            `json:"drops"`     // refreshes that there was no room for
}

// read returns what came in a window, and adds what was measured to sum.
func (s *serviceStats) read(w Window, at time.Duration, sum *[rows]stats.Snapshot) UpstreamStats {
	measured := new([rows]stats.Snapshot)
	var counts []uint64
	var over time.Duration
	switch w {
	case LastMinute:
		counts, over = s.history.Last(int(time.Minute/stats.SlotTime), at, measured[:])
	case LastTenMinutes:
		counts, over = s.history.Last(stats.Slots, at, measured[:])
	default:
		counts, over = s.history.Since(at, measured[:])
	}
	out := UpstreamStats{
		Over: over, InFlight: s.inFlight.Load(), Failed: counts[countFailed], Retries: counts[countRetries], Hedges: counts[countHedges],
		CacheHits: counts[countHits], CacheMisses: counts[countMisses], Errors: make(map[Reason]uint64), Replicas: []ReplicaStats{},
	}
	for i, n := range counts[countErrors:] {
		if n > 0 {
			out.Errors[reasons[i].reason] = n
		}
	}
	for i := range measured {
		sum[i].Add(&measured[i])
	}
	out.measured(measured)
	return out
}

// measured takes over what the rows of a history have, which it changes.
func (s *UpstreamStats) measured(all *[rows]stats.Snapshot) {
	for _, i := range [...]int{int(stageCache), rowOwn, rowTotal} {
		all[i].Add(&all[rowHit])
	}
	s.Latency = latencyOf(&all[rowTotal])
	s.Requests, s.Stages = s.Latency.Count, []StageStats{}
	for i := range all[:rowHit] {
		name := StageOwn
		switch {
		case i < len(stages):
			name = stages[i]
		case i == rowTotal:
			name = StageTotal
		}
		if all[i].Count > 0 {
			s.Stages = append(s.Stages, StageStats{name, latencyOf(&all[i])})
		}
	}
}

// recent is what came of one service in ten seconds.
type recent struct {
	start                          time.Time
	over                           time.Duration // ten seconds, or less of those that have not passed
	requests, failed, hits, misses uint64
	p50, p95, p99                  time.Duration
}

// recently returns the last slots of ten seconds, oldest first, as far as the core
// is that old; the last one has not passed.
func (s *serviceStats) recently(c *core, slots int) []recent {
	at := time.Since(c.started)
	current := int64(at / stats.SlotTime)
	out := make([]recent, 0, slots)
	for number := max(current-int64(slots)+1, 0); number <= current; number++ {
		var total stats.Snapshot
		counts := s.history.Slot(number, at, &total, rowTotal, rowHit)
		begin := time.Duration(number) * stats.SlotTime
		m := total.Summary()
		out = append(out, recent{
			start: c.started.Add(begin), over: min(at-begin, stats.SlotTime),
			requests: m.Count, failed: counts[countFailed], hits: counts[countHits], misses: counts[countMisses], p50: m.P50, p95: m.P95, p99: m.P99,
		})
	}
	return out
}

func (s *UpstreamStats) add(o *UpstreamStats) {
	s.Failed += o.Failed
	s.InFlight += o.InFlight
	s.Retries += o.Retries
	s.Hedges += o.Hedges
	s.Breaker.Opened += o.Breaker.Opened
	s.Queue.InUse += o.Queue.InUse
	s.Queue.Waiting += o.Queue.Waiting
	s.CacheHits += o.CacheHits
	s.CacheMisses += o.CacheMisses
	for reason, n := range o.Errors {
		s.Errors[reason] += n
	}
}

// Stats is [Upstream.StatsOver] of all since [Upstream.ResetStats], or since the
// service was made.
func (u *Upstream) Stats() UpstreamStats { return u.StatsOver(SinceReset) }

// StatsOver returns what the service has done in a window, and what it is in.
// What breaker, replicas and connections have counted is since they were made.
func (u *Upstream) StatsOver(w Window) UpstreamStats {
	return u.current.Load().read(w, time.Since(u.core.started), new([rows]stats.Snapshot))
}

// read returns what came in a window, and adds what was measured to sum; and what
// the service is in.
func (s *service) read(w Window, at time.Duration, sum *[rows]stats.Snapshot) UpstreamStats {
	out := s.up.stats.read(w, at, sum)
	s.readState(&out)
	return out
}

// ResetStats begins [SinceReset] anew, in the sum of a gateway, too. Metrics and
// the other windows go on.
func (u *Upstream) ResetStats() { u.stats.history.Reset(time.Since(u.core.started)) }

// Stats returns the state of the cache.
func (c *Cache) Stats() CacheStats {
	s, state := c.store.Stats(), c.state()
	return CacheStats{
		Entries: int64(s.Entries), Bytes: s.Bytes + s.Reserved, MaxBytes: s.MaxBytes, Evictions: s.Evictions,
		Hits: c.hits.Load(), Misses: c.misses.Load(), Stale: c.stale.Load(), Requests: state.Requests, Evicted: state.Evictions,
		Collapsed: state.Collapsed, Refreshes: state.Refreshes, Drops: state.Drops,
	}
}

// Stats is [Gateway.StatsOver] of all since [Gateway.ResetStats], or since the
// gateway was made.
func (g *Gateway) Stats() Stats { return g.StatsOver(SinceReset) }

// StatsOver returns what the gateway and its services have done in a window, and
// what they are in. What caches, breakers, replicas and connections have counted
// is since they were made. Services that were removed ([Gateway.Update]) are in
// the sum since the reset.
func (g *Gateway) StatsOver(w Window) Stats {
	at, sum := time.Since(g.core.started), new([rows]stats.Snapshot)
	total := g.core.stats.read(w, at, sum)
	snap, left := g.core.past.read(g.core, w, &total, sum)
	s := Stats{
		UpstreamStats: total, Uptime: at, Draining: g.core.life.Draining(),
		Services: make(map[string]UpstreamStats, len(snap.services)), Caches: []CacheStats{},
	}
	for name, svc := range snap.services {
		one := svc.read(w, at, sum)
		s.Services[name] = one
		s.add(&one)
	}
	for _, c := range snap.caches() {
		s.Caches = append(s.Caches, c.Stats())
	}
	for _, up := range left {
		one := up.current.Load().read(w, at, sum)
		s.add(&one)
	}
	s.measured(sum)
	return s
}

// ResetStats begins [SinceReset] anew, for all services. Metrics and the other
// windows go on.
func (g *Gateway) ResetStats() {
	at := time.Since(g.core.started)
	g.core.stats.history.Reset(at)
	for _, svc := range g.core.snapshot.Load().services {
		svc.up.stats.history.Reset(at)
	}
	for _, up := range g.core.past.reset() {
		up.stats.history.Reset(at)
	}
}

// past is what the services have done that were removed.
type past struct {
	mu     sync.Mutex            // held while services leave the snapshot
	ups    []*Upstream           // that have not ended
	total  UpstreamStats         // of the others, since the last reset
	spent  *[rows]stats.Snapshot // theirs; nil: there are none
	caches telemetry.Ledger      // what those have counted that are used, and have been
}

// swap changes the snapshot, by which some services leave.
func (p *past) swap(c *core, next *snapshot, left []*service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := c.snapshot.Load()
	for name, svc := range next.services {
		if before := old.services[name]; before != nil && before.up == svc.up && before.set != svc.set {
			leave(before.set.All())
		}
	}
	p.caches.Change(watchesOf(old.caches()), watchesOf(next.caches()))
	c.snapshot.Store(next)
	for _, svc := range left {
		p.ups = append(p.ups, svc.up)
	}
}

func watchesOf(caches []*Cache) (watches []*telemetry.Watch) {
	for _, c := range caches {
		watches = append(watches, c.watched)
	}
	return watches
}

// readCaches tells of the caches that are used, and have been.
func (p *past) readCaches(c *core, tell func(*telemetry.Sample)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.caches.Read(watchesOf(c.snapshot.Load().caches()), tell)
}

func (p *past) leaving() []*Upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ups)
}

// fold keeps of a service that has ended what it has done.
func (p *past) fold(up *Upstream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spent == nil {
		p.spent, p.total.Errors = new([rows]stats.Snapshot), make(map[Reason]uint64)
	}
	one := up.current.Load().read(SinceReset, time.Since(up.core.started), p.spent)
	p.total.add(&one)
	p.ups = slices.DeleteFunc(p.ups, func(other *Upstream) bool { return other == up })
}

// read returns the snapshot and the services that are about to end. What others
// have done since the reset goes to total and spent: each request is in one of
// them. (Of a window that rolls on it has all but gone.)
func (p *past) read(c *core, w Window, total *UpstreamStats, spent *[rows]stats.Snapshot) (*snapshot, []*Upstream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w == SinceReset && p.spent != nil {
		total.add(&p.total)
		for i := range spent {
			spent[i].Add(&p.spent[i])
		}
	}
	return c.snapshot.Load(), slices.Clone(p.ups)
}

// reset forgets what has ended, and returns what has not.
func (p *past) reset() []*Upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total, p.spent = UpstreamStats{}, nil
	return slices.Clone(p.ups)
}

// MetricsHandler answers GET by Accept: with the Prometheus text format 0.0.4,
// which is also for whoever takes anything, or with [Gateway.Stats] as JSON, for
// the last minutes with ?window=1m or ?window=10m; an Accept that excludes both
// gets 406. Both are of the same counters, but in the text ResetStats changes
// nothing. Names, labels and buckets in the text are those that OpenTelemetry's
// exporter for Prometheus gives to this package's metrics, without those that name
// the scope. A path that ends in /grafana.json or /alerts.yml is answered with a
// dashboard for Grafana, or with alert rules for Prometheus, which go by them.
func (g *Gateway) MetricsHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !readOnly(w, r) {
			return
		}
		if f, ok := dash.Download(r.URL.Path); ok {
			w.Header().Set("Content-Type", f.Type)
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(f.Content))
			return
		}
		w.Header().Add("Vary", "Accept")
		switch forward.Accept(r.Header, "text/plain", "application/json") {
		case "text/plain":
			w.Header().Set("Content-Type", stats.TextType)
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusOK)
			if r.Method != http.MethodHead {
				_, _ = w.Write(g.metrics().Append(nil))
			}
		case "application/json":
			window, ok := windowOf(r.URL.Query().Get("window"))
			if !ok {
				http.Error(w, "a window is 1m or 10m", http.StatusBadRequest)
				return
			}
			writeJSON(w, r, http.StatusOK, "application/json", g.StatsOver(window))
		default:
			http.Error(w, "only text/plain and application/json are available", http.StatusNotAcceptable)
		}
	})
}

// metrics is what Prometheus is told: all that OpenTelemetry is.
func (g *Gateway) metrics() *stats.Text {
	t := &stats.Text{}
	tell := func(s *telemetry.Sample) {
		switch d := s.Durations; {
		case d != nil:
			t.Histogram(s.Name, s.Help, d.Bounds, d.Counts, d.Sum, s.Labels...)
		case s.Counts:
			t.Counter(s.Name, s.Help, s.Value, s.Labels...)
		default:
			t.Gauge(s.Name, s.Help, s.Value, s.Labels...)
		}
	}
	g.core.watched.Read(tell)
	g.core.past.readCaches(g.core, tell)
	return t
}

// DashboardHandler serves a page that shows what the gateway does at this moment,
// and has done for ten minutes: requests, errors and durations of each service,
// breakers, replicas, connections, caches, the slowest requests (their paths, but
// no queries) and the latest changes. Mount it at any path and what is below, behind
// your authentication: it shows names and addresses. The page is read only, asks for
// nothing but what it came with, and works under its own strict
// Content-Security-Policy. It is told every two seconds what is new (server-sent
// events); a thousand pages may be open, which are all told the same bytes. Streams
// to them end with [Gateway.Drain].
func (g *Gateway) DashboardHandler() http.Handler {
	c := g.core
	c.slowest.Start()
	board := dash.NewBoard(dash.Config{
		Read: c.show, Background: c.life.Background,
		Open: func(end func()) (done func()) { return c.life.Open(end).Close },
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !readOnly(w, r) {
			return
		}
		if !c.life.Enter() {
			http.Error(w, "shutting down", http.StatusServiceUnavailable)
			return
		}
		defer c.life.Leave()
		board.ServeHTTP(w, r)
	})
}

// show is what the dashboard is told: all, or of the histories the newest slots.
func (c *core) show(whole bool) *dash.Snapshot {
	now, snap := time.Now(), c.snapshot.Load()
	s := &dash.Snapshot{
		Now: now.UnixMilli(), Started: c.started.UnixMilli(), Draining: c.life.Draining(), Services: []dash.Service{}, Caches: []dash.Cache{},
		Slowest: c.slowest.Read(now), Changes: c.changes.Read(),
	}
	for _, name := range slices.Sorted(maps.Keys(snap.services)) {
		s.Services = append(s.Services, snap.services[name].show(whole))
	}
	for _, cache := range snap.caches() {
		st := cache.Stats()
		s.Caches = append(s.Caches, dash.Cache{
			Entries: st.Entries, Bytes: st.Bytes, MaxBytes: st.MaxBytes, Hits: st.Hits, Misses: st.Misses, Evictions: st.Evictions,
		})
	}
	return s
}

// newestSlots are those that a page may not have been told whole.
const newestSlots = 3

func (s *service) show(whole bool) dash.Service {
	var st UpstreamStats
	s.readState(&st)
	out := dash.Service{
		Name: s.up.name, InFlight: s.up.stats.inFlight.Load(), Breaker: string(st.Breaker.State), Cached: s.policy.cache != nil,
		Queue: [2]int{st.Queue.InUse, st.Queue.Waiting}, Replicas: []dash.Replica{},
	}
	for _, r := range st.Replicas {
		out.Replicas = append(out.Replicas, dash.Replica{
			Address: r.Address, Health: r.Health, InFlight: r.InFlight, Micros: r.Latency.Microseconds(),
			Pool: [3]int64{r.Conns.InUse, r.Conns.Idle, r.Conns.Waiting},
		})
	}
	slots := newestSlots
	if whole {
		slots = stats.Slots + 1 // the last one has not passed
	}
	for _, r := range s.up.stats.recently(s.up.core, slots) {
		out.History = append(out.History, dash.Slot{
			r.start.UnixMilli(), r.over.Milliseconds(), int64(r.requests), int64(r.failed), int64(r.hits), int64(r.misses), //nolint:gosec // counts
			r.p50.Microseconds(), r.p95.Microseconds(), r.p99.Microseconds(),
		})
	}
	return out
}

// readOnly refuses methods other than GET and HEAD.
func readOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
	return false
}

func writeJSON(w http.ResponseWriter, r *http.Request, status int, contentType string, v any) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_ = json.NewEncoder(w).Encode(v)
	}
}

// HealthHandler answers GET by the last segment of its path, in the format of
// draft-inadarei-api-health-check. "livez" is 200 as long as the process answers.
// "readyz" is 200, but 503 from [Gateway.Drain] on, and while a service is broken
// that is [HealthUnready] then. Anything else is the full report: how each service
// is, and with ?verbose each of its replicas, by host and port, its circuit breaker
// and its connections. For that each replica is asked for its [WithHealthPath], side
// by side, 32 at a time, each within its [WithHealthTimeout], and at most once a
// second, however many want to know. A broken service is a warning, or what
// [WithHealthPolicy] says.
func (g *Gateway) HealthHandler() http.Handler {
	return g.core.healthHandler(g.core.life, func() []*service {
		return slices.Collect(maps.Values(g.core.snapshot.Load().services))
	})
}

// HealthHandler is [Gateway.HealthHandler] for this service alone.
func (u *Upstream) HealthHandler() http.Handler {
	return u.core.healthHandler(u.life, func() []*service { return []*service{u.current.Load()} })
}

// maxProbes bounds how many health probes a gateway has under way.
const maxProbes = 32

func (c *core) healthHandler(life *work.Life, services func() []*service) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !readOnly(w, r) {
			return
		}
		kind := path.Base(r.URL.Path)
		asked := services()
		switch kind {
		case "livez":
			asked = nil
		case "readyz":
			asked = slices.DeleteFunc(asked, func(s *service) bool { return s.policy.healthPolicy != HealthUnready })
		}
		report := health.New(c.probe(r.Context(), asked), r.URL.Query().Has("verbose"), time.Now())
		if kind != "livez" && life.Draining() {
			report.FailBy("draining")
		}
		if kind == "livez" || kind == "readyz" {
			report = report.Short()
		}
		offer := forward.Accept(r.Header, health.MediaType, "application/json")
		writeJSON(w, r, report.Code(), cmp.Or(offer, health.MediaType), report) // who takes neither is better off with one of them
	})
}

// probe has all replicas of the services asked, and returns what is known of them,
// at the end of ctx at the latest.
func (c *core) probe(ctx context.Context, services []*service) []health.Service {
	endpoints, results := make([][]*replicaState, len(services)), make([][]*health.Result, len(services))
	for i, svc := range services {
		endpoints[i] = svc.set.All()
		for _, e := range endpoints[i] {
			results[i] = append(results[i], e.Value.probe.Ask(c.prober, svc.probed(e.Value)))
		}
	}
	states := make([]health.Service, len(services))
	for i, svc := range services {
		for _, r := range results[i] {
			r.Wait(ctx)
		}
		states[i] = svc.health(endpoints[i], results[i])
	}
	return states
}

// probed is how a replica is asked.
func (s *service) probed(e *endpoint) *health.Endpoint {
	return &health.Endpoint{
		Go:      func(f func(context.Context)) bool { return s.up.life.Background("health probe", f) },
		Ask:     func(ctx context.Context) (int, error) { return e.ask(ctx, s) },
		Timeout: s.policy.healthTime,
		OnPanic: func(v any) { s.up.core.panicked("health probe", v, debug.Stack()) },
	}
}

// health is what is known of the service, once its replicas have answered.
func (s *service) health(endpoints []*replicaState, answers []*health.Result) health.Service {
	now := time.Now()
	out := health.Service{Name: s.up.name, Required: s.policy.healthPolicy != HealthWarn}
	if b := s.breaker; b != nil {
		out.Breaker, out.Refusing = b.Status(now).State.String(), b.RetryAfter(now) > 0
	}
	for i, e := range endpoints {
		st := e.Status(now)
		r := health.Replica{Address: e.Value.address, Health: st.Health.String(), Fit: st.Fit, Answer: answers[i].Answer()}
		if e.Value.pooled() {
			c := e.Value.conns()
			r.Pool = &health.Pool{Open: c.Open, Idle: c.Idle, InUse: c.InUse, Waiting: c.Waiting}
		}
		out.Replicas = append(out.Replicas, r)
	}
	return out
}
