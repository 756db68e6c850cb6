package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway/internal/balance"
	"github.com/embedgw/gateway/internal/forward"
	"github.com/embedgw/gateway/internal/h1"
	"github.com/embedgw/gateway/internal/stats"
	"github.com/embedgw/gateway/internal/telemetry"
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

// WithTracerProvider has spans made by tp: a SERVER span for each request, a
// CLIENT span for each attempt. Default: the global provider of OpenTelemetry.
// An explicit no-op provider costs nothing.
func WithTracerProvider(tp trace.TracerProvider) SharedOption {
	return sharedOption{"WithTracerProvider", func(c *sharedConfig) {
		if tp == nil {
			c.list.fault("", "the tracer provider is nil")
		}
		c.telemetry.tracer = tp
	}}
}

// WithMeterProvider has metrics recorded by mp. Default: the global provider
// of OpenTelemetry. An explicit no-op provider costs nothing.
func WithMeterProvider(mp metric.MeterProvider) SharedOption {
	return sharedOption{"WithMeterProvider", func(c *sharedConfig) {
		if mp == nil {
			c.list.fault("", "the meter provider is nil")
		}
		c.telemetry.meter = mp
	}}
}

// WithPropagator sets how trace context is read from requests and written to
// upstream requests. Default: the global propagator of OpenTelemetry. Baggage
// is never sent on.
func WithPropagator(p propagation.TextMapPropagator) SharedOption {
	return sharedOption{"WithPropagator", func(c *sharedConfig) {
		if p == nil {
			c.list.fault("", "the propagator is nil")
		}
		c.telemetry.propagator = p
	}}
}

// observeCache shows a cache's size through OpenTelemetry.
func observeCache(c *sharedConfig, cache *Cache) (stop func(), err error) {
	t, err := telemetry.New(c.telemetry.config())
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	stop, err = t.ObserveCache(func() (entries, bytes int64) {
		s := cache.store.Stats()
		return int64(s.Entries), s.Bytes
	})
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return sync.OnceFunc(stop), nil
}

// observe shows what the services are in through OpenTelemetry, once a snapshot
// is there.
func (c *core) observe() (stop func(), err error) {
	stop, err = c.telemetry.ObserveServices(func(tell func(*telemetry.Service, *telemetry.ServiceState)) {
		for _, svc := range c.snapshot.Load().services {
			s := svc.up.state()
			tell(svc.routed, &s)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return sync.OnceFunc(stop), nil
}

// state is what the service is in, for its metrics.
func (u *Upstream) state() telemetry.ServiceState {
	s := telemetry.ServiceState{
		Ejections: u.ejections.Load(), Retries: int64(u.stats.retries.Load()), Hedges: int64(u.stats.hedges.Load()), Queued: u.limit != nil,
	}
	if u.breaker != nil {
		s.Breaker = u.breaker.Status(time.Now()).State.String()
		for to := range s.Transitions {
			s.Transitions[to] = u.transitions[to].Load()
		}
	}
	if u.limit != nil {
		used, waiting := u.limit.Stats()
		s.QueueInUse, s.QueueWaiting = int64(used), int64(waiting)
	}
	for _, e := range u.set.All() {
		c := e.Value.conns()
		s.Endpoints = append(s.Endpoints, telemetry.EndpointState{
			Endpoint: e.Value.spans, Healthy: e.Health() == balance.Healthy,
			Pooled: e.Value.client != nil || e.Value.owned != nil, Used: c.InUse, Idle: c.Idle, Waiting: c.Waiting,
		})
	}
	return s
}

type counter = stats.Counter

// serviceStats counts one service's requests.
type serviceStats struct {
	inFlight atomic.Int64
	retries  counter
	hedges   counter
	hits     counter
	misses   counter
	errors   [len(reasons)]counter
	latency  stats.Histogram
}

// record counts, measures, traces and logs an exchange that has ended.
func (x *exchange) record(aborted bool) {
	took := x.ended.Sub(x.start)
	if x.ended.IsZero() || x.err != nil { // an error is answered after the fetch has ended
		took = time.Since(x.start)
	}
	s := x.stats()
	s.inFlight.Add(-1)
	s.latency.Record(took)
	errorType := ""
	if x.err != nil {
		s.errors[x.err.Reason.index()].Add(1)
		errorType = string(x.err.Reason)
	}
	switch {
	case x.cache.clock != nil:
		s.hits.Add(1)
	case x.cache.by != nil:
		s.misses.Add(1)
	}
	x.span.End(&telemetry.ServerResult{
		Status: x.status, ErrorType: errorType, Aborted: aborted, Duration: took, CacheResult: x.cache.String(),
		RequestBytes: x.received, ResponseBytes: x.sent,
	})
	if x.core.access {
		x.log(took, aborted)
	}
}

func (x *exchange) stats() *serviceStats {
	if x.svc == nil {
		return &x.core.stats
	}
	return &x.svc.up.stats
}

// log writes the request's line.
func (x *exchange) log(took time.Duration, aborted bool) {
	level := slog.LevelInfo
	if x.status >= 500 || aborted {
		level = slog.LevelWarn
	}
	l := x.core.log
	if !l.Enabled(x.ctx, level) {
		return
	}
	target, _, _ := strings.Cut(x.r.RequestURI, "?") // as the client sent it
	if !strings.HasPrefix(target, "/") {
		target = x.r.URL.EscapedPath()
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs,
		slog.String("http.request.method", forward.Printable(x.r.Method, 32)),
		slog.String("url.path", forward.Printable(target, 512)),
		slog.Int("http.response.status_code", x.status),
		slog.Duration("duration", took),
		slog.Int64("http.response.body.size", x.sent),
	)
	if x.svc != nil {
		attrs = append(attrs, slog.String("gateway.service", x.svc.up.name), slog.Int("gateway.attempts", x.attempts))
	}
	if id := x.requestID(); id != "" {
		attrs = append(attrs, slog.String("http.request.id", id))
	}
	if id := x.span.TraceID(); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	if x.cache.by != nil {
		attrs = append(attrs, slog.Bool("gateway.cache.hit", x.cache.clock != nil))
	}
	if x.err != nil {
		attrs = append(attrs, slog.String("error.type", string(x.err.Reason)))
		if x.err.Err != nil {
			attrs = append(attrs, slog.String("error.message", forward.Printable(x.err.Err.Error(), 512)))
		}
	}
	l.LogAttrs(x.ctx, level, "gateway: request", attrs...)
}

// Latency sums up durations. Quantiles are off by at most 1.6 %. It marshals
// to JSON as nanoseconds.
type Latency struct {
	Count uint64        `json:"count"`
	Mean  time.Duration `json:"mean_ns"`
	Min   time.Duration `json:"min_ns"`
	Max   time.Duration `json:"max_ns"`
	P50   time.Duration `json:"p50_ns"`
	P95   time.Duration `json:"p95_ns"`
	P99   time.Duration `json:"p99_ns"`
}

func latencyOf(s *stats.Snapshot) Latency {
	m := s.Summary()
	return Latency{m.Count, m.Mean, m.Min, m.Max, m.P50, m.P95, m.P99}
}

// UpstreamStats is what one service has done since it was made. Counts are
// read one by one: under traffic they may be a request apart.
type UpstreamStats struct {
	Requests    uint64            `json:"requests"` // ended, however they did
	InFlight    int64             `json:"in_flight"`
	Retries     uint64            `json:"retries"`
	Hedges      uint64            `json:"hedges"`
	CacheHits   uint64            `json:"cache_hits"`
	CacheMisses uint64            `json:"cache_misses"` // whatever went upstream although the service has a cache
	Errors      map[Reason]uint64 `json:"errors"`       // by reason; those that did not occur are absent
	Latency     Latency           `json:"latency"`      // arrival to the response's last byte

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

func (u *Upstream) readState(s *UpstreamStats) {
	now := time.Now()
	if u.breaker != nil {
		b := u.breaker.Status(now)
		s.Breaker = BreakerStats{BreakerState(b.State.String()), b.Opened}
	}
	if u.limit != nil {
		s.Queue.InUse, s.Queue.Waiting = u.limit.Stats()
	}
	for _, e := range u.set.All() {
		st := e.Status(now)
		r := ReplicaStats{
			Address: e.Value.address, Health: st.Health.String(), Weight: st.Weight, InFlight: st.InFlight,
			Latency: st.Latency, Ejections: st.Ejections, Conns: e.Value.conns(),
		}
		s.Replicas = append(s.Replicas, r)
	}
}

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

// Stats is what a gateway has done since it was made.
type Stats struct {
	UpstreamStats // of all services, and of requests for none

	Uptime   time.Duration            `json:"uptime_ns"`
	Draining bool                     `json:"draining"`
	Services map[string]UpstreamStats `json:"services"`
	Caches   []CacheStats             `json:"caches"` // each cache that its services use
}

// CacheStats is the state of a cache, and what it has done since it was made,
// for whoever uses it.
type CacheStats struct {
	Entries   int64  `json:"entries"`
	Bytes     int64  `json:"bytes"` // of all that is stored and arriving
	MaxBytes  int64  `json:"max_bytes"`
	Hits      uint64 `json:"hits"`
	Misses    uint64 `json:"misses"`
	Evictions uint64 `json:"evictions"`
}

func (s *serviceStats) read() (UpstreamStats, stats.Snapshot) {
	snap := s.latency.Snapshot()
	out := UpstreamStats{
		Requests: snap.Count, InFlight: s.inFlight.Load(), Retries: s.retries.Load(), Hedges: s.hedges.Load(),
		CacheHits: s.hits.Load(), CacheMisses: s.misses.Load(),
		Errors: make(map[Reason]uint64), Latency: latencyOf(&snap), Replicas: []ReplicaStats{},
	}
	for i := range s.errors {
		if n := s.errors[i].Load(); n > 0 {
			out.Errors[reasons[i].reason] = n
		}
	}
	return out, snap
}

func (s *UpstreamStats) add(o *UpstreamStats) {
	s.Requests += o.Requests
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

// Stats returns what the service has done since it was made.
func (u *Upstream) Stats() UpstreamStats {
	s, _ := u.stats.read()
	u.readState(&s)
	return s
}

// Stats returns the state of the cache.
func (c *Cache) Stats() CacheStats {
	s := c.store.Stats()
	return CacheStats{
		Entries: int64(s.Entries), Bytes: s.Bytes + s.Reserved, MaxBytes: s.MaxBytes, Evictions: s.Evictions,
		Hits: c.hits.Load(), Misses: c.misses.Load(),
	}
}

// Stats returns what the gateway and its services have done since they were
// made.
func (g *Gateway) Stats() Stats {
	snap := g.core.snapshot.Load()
	total, latency := g.core.stats.read()
	s := Stats{
		UpstreamStats: total, Uptime: time.Since(g.core.started), Draining: g.core.life.Draining(),
		Services: make(map[string]UpstreamStats, len(snap.services)), Caches: []CacheStats{},
	}
	var caches []*Cache
	for name, svc := range snap.services {
		one, l := svc.up.stats.read()
		svc.up.readState(&one)
		s.Services[name] = one
		s.add(&one)
		latency.Add(&l)
		if c := svc.policy.cache; c != nil && !slices.Contains(caches, c) {
			caches = append(caches, c)
			s.Caches = append(s.Caches, c.Stats())
		}
	}
	s.Latency = latencyOf(&latency)
	return s
}

// MetricsHandler answers GET with [Gateway.Stats] as JSON, and 406 to an
// Accept that excludes JSON.
func (g *Gateway) MetricsHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !readOnly(w, r) {
			return
		}
		if forward.Accept(r.Header, "application/json") == "" {
			http.Error(w, "only application/json is available", http.StatusNotAcceptable)
			return
		}
		writeJSON(w, r, http.StatusOK, "application/json", g.Stats())
	})
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

// HealthHandler answers by the last segment of its path. "livez" is 200 as
// long as the process answers. "readyz" is 200, and 503 from [Gateway.Drain]
// on. Anything else is the full report: each service is asked, side by side,
// within its [WithHealthTimeout], at most once a second; a broken one is a
// warning and the status stays 200, for the gateway itself is well.
func (g *Gateway) HealthHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !readOnly(w, r) {
			return
		}
		status, code := "pass", http.StatusOK
		draining := g.core.life.Draining()
		switch path.Base(r.URL.Path) {
		case "livez":
			draining = false
		case "readyz":
		default:
			g.report(w, r, draining)
			return
		}
		if draining {
			status, code = "fail", http.StatusServiceUnavailable
		}
		writeJSON(w, r, code, "application/health+json", map[string]string{"status": status})
	})
}

// check is one service in the health report.
type check struct {
	Status  string  `json:"status"` // pass, warn
	Code    int     `json:"http_status,omitempty"`
	Millis  float64 `json:"observed_ms"`
	Problem string  `json:"output,omitempty"` // from a short list; never an error's text
}

func (g *Gateway) report(w http.ResponseWriter, r *http.Request, draining bool) {
	snap := g.core.snapshot.Load()
	checks := make(map[string]check, len(snap.services))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, svc := range snap.services {
		wg.Add(1)
		started := svc.up.life.Go("health probe", func() {
			defer wg.Done()
			c := svc.up.probe.run(svc)
			mu.Lock()
			defer mu.Unlock()
			checks[name] = c
		})
		if !started {
			wg.Done()
			mu.Lock()
			checks[name] = check{Status: "warn", Problem: "shut down"}
			mu.Unlock()
		}
	}
	wg.Wait()
	out := struct {
		Status string           `json:"status"`
		Checks map[string]check `json:"checks"`
	}{"pass", checks}
	for _, c := range checks {
		if c.Status != "pass" {
			out.Status = "warn"
		}
	}
	code := http.StatusOK
	if draining {
		out.Status, code = "fail", http.StatusServiceUnavailable
	}
	writeJSON(w, r, code, "application/health+json", out)
}

// probe asks one service how it is, and keeps the answer for a second: however
// many ask, it makes one request a second.
type probe struct {
	mu   sync.Mutex
	at   time.Time
	last check
}

const probeLife = time.Second

func (p *probe) run(svc *service) (c check) {
	p.mu.Lock() // others wait for the answer
	defer p.mu.Unlock()
	if !p.at.IsZero() && time.Since(p.at) < probeLife {
		return p.last
	}
	start := time.Now()
	p.last = check{Status: "warn", Problem: "the probe panicked"}
	defer func() {
		if v := recover(); v != nil { // the app's round tripper
			svc.up.core.panicked("health probe", v, debug.Stack())
		}
		p.at, c = time.Now(), p.last
	}()
	p.last = svc.ask()
	p.last.Millis = float64(time.Since(start).Microseconds()) / 1000
	return p.last
}

// ask sends a probe: a plain GET without credentials, on the service's own
// connections.
func (s *service) ask() check {
	ctx, cancel := context.WithTimeout(context.Background(), s.policy.healthTime)
	defer cancel()
	e := s.up.set.All()[0].Value // a Pick would claim the trial of an ejected one
	status, err := e.ask(ctx, s.probeRequest())
	switch {
	case ctx.Err() != nil:
		return check{Status: "warn", Problem: "no answer in time"}
	case err != nil:
		return check{Status: "warn", Problem: "no answer"}
	case status < 200: // 101: the rest is another protocol
		return check{Status: "warn", Code: status, Problem: "bad answer"}
	case status >= 500:
		return check{Status: "warn", Code: status, Problem: "server error"}
	}
	return check{Status: "pass", Code: status}
}
