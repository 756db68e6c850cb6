package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/embedgw/gateway/internal/balance"
	"github.com/embedgw/gateway/internal/flood"
	"github.com/embedgw/gateway/internal/forward"
	"github.com/embedgw/gateway/internal/h1"
	"github.com/embedgw/gateway/internal/health"
	"github.com/embedgw/gateway/internal/options"
	"github.com/embedgw/gateway/internal/retry"
	"github.com/embedgw/gateway/internal/rfc9111"
	"github.com/embedgw/gateway/internal/roundtrip"
	"github.com/embedgw/gateway/internal/store"
	"github.com/embedgw/gateway/internal/telemetry"
	"github.com/embedgw/gateway/internal/work"
)

// An Upstream is one service as a handler: it forwards the whole path. It is
// safe for concurrent use. Make it with [NewUpstream], or get a gateway's with
// [Gateway.Upstream]; the zero value is of no use.
type Upstream struct {
	name string
	core *core
	life *work.Life

	current atomic.Pointer[service] // its policy

	// State: kept while the policy changes, as is what policies hand on to the next.
	tunnels atomic.Int64
	limit   *work.Limit // of the last policy that had one; guarded by core.updating
	// Since it was made: the breaker's changes, by the state that followed, and
	// ejections.
	transitions [balance.HalfOpen + 1]atomic.Int64
	ejections   atomic.Int64
	stats       serviceStats
	slow        flood.Limit // of reports

	mu        sync.Mutex
	replicas  []replica                      // as configured
	addresses map[string][]string            // of their names, as resolved
	retired   []*endpoint                    // that may still have connections
	spans     map[string]*telemetry.Endpoint // of replicas, by key: the addresses of a name share theirs

	// Held while endpoints are read for metrics, or replaced: not while connections
	// end, of which a meter is told that may be waiting for what is read.
	reading sync.Mutex
}

// NewUpstream makes a service of its own, to be mounted on any pattern of a
// mux. The name and the target are as for [WithService]. It starts nothing and
// connects to nothing. The error joins an [*OptionError] for each fault.
func NewUpstream(name, target string, opts ...UpstreamOption) (*Upstream, error) {
	c := upstreamConfig{service: serviceConfig{policy: defaultPolicy(), list: list{service: name}}}
	for i, o := range opts {
		if o == nil {
			c.service.list.faultOf("NewUpstream", "", nilOption(i))
			continue
		}
		o.applyUpstream(&c)
	}
	core, err := newCore(&c.shared)
	if err != nil {
		return nil, errors.Join(append(c.shared.list.faults, err)...)
	}
	next := &snapshot{shared: core.snapshot.Load().shared, services: make(map[string]*service)}
	svc := c.service.build(core, next, "NewUpstream", declared{name: name, target: target})
	if err := errors.Join(append(c.shared.list.faults, c.service.list.faults...)...); err != nil {
		return nil, err
	}
	next.services[name], next.logLimit = svc, svc.policy.logLimit
	core.planWatches(next, nil)
	if err := core.observe(); err != nil { // before anything else knows of the service
		return nil, err
	}
	core.install(next)
	svc.up.life.Last(core.watched.Stop)
	core.life = svc.up.life
	return svc.up, nil
}

// ServeHTTP forwards the request, with its whole path, to the service.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for done := false; !done; {
		snap := u.core.snapshot.Load()
		svc := snap.services[u.name]
		if svc == nil || svc.up != u { // it was removed
			u.core.handle(route{snap: snap, rest: forward.Path(r.URL), whole: true}, false, w, r)
			return
		}
		done = u.core.serve(route{snap: snap, svc: svc, rest: forward.Path(r.URL), whole: true}, w, r)
	}
}

// Drain tells the service's event streams and tunnels to end. Requests are
// still served.
func (u *Upstream) Drain() {
	u.core.drains(u.name)
	u.life.Drain()
}

// Shutdown is [Gateway.Shutdown] for this service alone.
func (u *Upstream) Shutdown(ctx context.Context) error {
	return u.core.shutdown(ctx, u.name, u.life)
}

// service is one service in a snapshot: its policy, what was prepared from it,
// and the upstream that holds its state.
type service struct {
	policy  *policy
	up      *Upstream
	asked   *url.URL // the target
	target  *url.URL // what it is known as: a socket is http://localhost
	base    string   // the target's escaped path
	host    string   // sent unless the client's is preserved
	scope   string   // begins every cache key
	rules   *forward.RequestRules
	locator *forward.Locator
	methods map[string]struct{}
	handler http.Handler // in the place of an upstream; nil: there is one
	share   store.Scope  // of its cache
	waits   retry.Template
	secrets []string           // which are injected
	routed  *telemetry.Service // spans of requests routed by the first segment
	mounted *telemetry.Service // spans of requests that came with their whole path

	shape    string    // of the policy, as far as cached answers depend on it
	replicas []replica // by the options

	// State, which the next policy takes over.
	set     *balance.Set[*endpoint]
	breaker *balance.Breaker // nil: none
	limit   *work.Limit      // nil: none
	rate    *rate.Limiter    // nil: none
	budget  *retry.Budget
	checks  *work.Watch // nil: none
	names   *work.Watch // of replicas; nil: they are not resolved by us
}

func (s *service) spans(whole bool) *telemetry.Service {
	if whole {
		return s.mounted
	}
	return s.routed
}

// build judges a service's options and makes it, for a snapshot that is planned;
// faults stay in the list.
func (c *serviceConfig) build(core *core, next *snapshot, option string, d declared) *service {
	l := &c.list
	for i, o := range d.opts {
		if o == nil {
			l.faultOf(option, "", nilOption(i))
			continue
		}
		o.applyService(c)
	}
	c.judge()
	if reason := options.CheckName(d.name); reason != "" {
		l.faultOf(option, d.name, reason)
	}
	target, shown, reasons := forward.ParseUpstream(d.target)
	for _, reason := range reasons {
		l.faultOf(option, shown, reason)
		target = nil
	}
	old := core.snapshot.Load().services[d.name]
	if old != nil && old.up.life.Refusing() { // it was shut down by itself
		old = nil
	}
	stays := old != nil && target != nil && *target == *old.asked
	if stays {
		target = old.asked // by which its endpoints know it
	}
	replicas := c.replicas(target)
	if stays && c.policy.transport != nil && sameReplicas(replicas, old.replicas) {
		if socket := socketOf(old.up.configured()); socket != nil {
			l.faultOf("WithTransport", socket.String(), outOfReach+" (SetReplicas)")
		}
	}
	if len(l.faults) > 0 {
		return nil
	}
	p := c.policy
	svc := &service{
		policy:   &p,
		asked:    target,
		target:   knownAs(target),
		base:     basePath(target),
		host:     withoutZone(knownAs(target).Host),
		scope:    d.name + " " + target.Scheme + "://" + target.Host + target.EscapedPath() + " " + p.identity(),
		locator:  forward.NewLocator(knownAs(target)),
		methods:  make(map[string]struct{}, len(p.methods)),
		waits:    retry.NewTemplate(p.backoffInitial, p.backoffMax),
		secrets:  telemetry.Credentials(nil, slices.Concat(slices.Collect(maps.Values(p.header))...)),
		shape:    p.shape(),
		replicas: replicas,
	}
	for _, m := range p.methods {
		svc.methods[m] = struct{}{}
	}
	rules := forward.RequestConfig{Set: p.header, Trusted: p.trusted, Via: viaName, MaxHops: maxHops, RequestIDHeader: p.requestIDHeader, Clone: len(p.rewrite) > 0, Forwarded: p.forwarded, Baggage: p.tracing.baggage && !p.tracing.silent}
	if p.tokenSource != nil {
		rules.Drop = []string{"Authorization"}
	}
	svc.rules = forward.NewRequestRules(rules)
	routed := telemetry.ServiceConfig{Name: d.name, Mount: p.tracing.mount, Public: p.tracing.public, Silent: p.tracing.silent, Baggage: p.tracing.baggage}
	mounted := routed
	if mounted.Whole = true; option != "NewUpstream" {
		mounted.Mount = "" // it is the gateway's
	}
	svc.succeed(old, core, next.telemetry, routed, mounted)
	return svc
}

// succeed has the service go on where the one before of its name, if there is
// one, has come to.
func (s *service) succeed(old *service, core *core, t *telemetry.Telemetry, routed, mounted telemetry.ServiceConfig) {
	if old == nil {
		s.up = newUpstream(core, routed.Name)
		s.routed, s.mounted = t.Service(routed), t.Service(mounted)
		return
	}
	s.up = old.up
	s.routed, s.mounted = t.Resume(old.routed, routed), t.Resume(old.mounted, mounted)
	if s.asked != old.asked {
		return
	}
	s.target = old.target
	if s.shape == old.shape {
		s.scope = old.scope
	}
}

// knownAs returns the URL by which a server knows itself.
func knownAs(u *url.URL) *url.URL {
	if u.Scheme == forward.SchemeUnix {
		return &url.URL{Scheme: "http", Host: "localhost"}
	}
	return u
}

// withoutZone returns a host without the zone of an IPv6 address, which is for this
// machine alone (RFC 6874 §3).
func withoutZone(host string) string {
	address, rest, zoned := strings.Cut(host, "%")
	if !zoned {
		return host
	}
	return address + rest[strings.IndexByte(rest+"]", ']'):]
}

func newUpstream(core *core, name string) *Upstream {
	up := &Upstream{name: name, core: core, life: work.NewLife(core.panicked)}
	up.stats.begin(time.Since(core.started))
	up.life.Last(func() {
		for _, e := range up.current.Load().set.All() {
			e.Value.close()
		}
		up.mu.Lock()
		defer up.mu.Unlock()
		for _, e := range up.retired {
			e.close()
		}
	})
	return up
}

// begin gives the service what it needs to be in force: of the one before, if its
// upstream is that one's, whatever can be used.
func (s *service) begin(before *service) {
	if before == nil || before.up != s.up {
		before = &service{policy: &policy{}}
	}
	p, up := s.policy, s.up
	if p.cache != nil {
		s.share = p.cache.adopt(up.name, p.cache == before.policy.cache, &p.caching)
	}
	if s.budget = before.budget; s.budget == nil {
		s.budget = retry.NewBudget(p.retryRatio, p.retryPerSecond)
	} else {
		s.budget.Adjust(p.retryRatio, p.retryPerSecond)
	}
	s.limits(before)
	s.checks = goOn(before.checks, before.policy.checkInterval, p.checkInterval, "health checks", func(ctx context.Context) { up.check(ctx, p.checkInterval) })
	s.names = goOn(before.names, before.policy.dnsRefresh, p.dnsRefresh, "name resolution", func(ctx context.Context) { up.resolve(ctx, p.dnsRefresh) })
	up.follow(s, before)
}

// limits takes over what bounds and guards the service.
func (s *service) limits(before *service) {
	p, up := s.policy, s.up
	switch s.breaker = before.breaker; {
	case p.breakerRatio == 0:
		if s.breaker != nil { // requests that have begun by it have no say any more
			s.breaker.Configure(balance.BreakerConfig{Ratio: 2})
			s.breaker = nil
		}
	case s.breaker != nil:
		s.breaker.Configure(s.breakerConfig())
	default:
		s.breaker = balance.NewBreaker(s.breakerConfig())
	}
	switch {
	case p.concurrency > 0 && up.limit == nil:
		up.limit = work.NewLimit(p.concurrency, p.concurrencyQueue, p.concurrencyWait)
		s.limit = up.limit
	case p.concurrency > 0:
		up.limit.Resize(p.concurrency, p.concurrencyQueue, p.concurrencyWait)
		s.limit = up.limit
	case up.limit != nil:
		up.limit.Open()
	}
	switch s.rate = before.rate; {
	case p.ratePerSecond == 0:
		s.rate = nil
	case s.rate == nil:
		s.rate = rate.NewLimiter(rate.Limit(p.ratePerSecond), p.rateBurst)
	case p.ratePerSecond != before.policy.ratePerSecond || p.rateBurst != before.policy.rateBurst:
		s.rate.SetLimit(rate.Limit(p.ratePerSecond))
		s.rate.SetBurst(p.rateBurst)
	}
}

// end ends what the next service, nil if there is none, has not taken over.
func (s *service) end(next *service) {
	if next == nil {
		next = &service{policy: &policy{}, set: s.set}
	}
	if c := s.policy.cache; c != nil && c != next.policy.cache {
		c.release(s.up.name)
	}
	stopUnless(s.checks, next.checks)
	stopUnless(s.names, next.names)
	if s.set != next.set {
		s.up.retire(s.set.All())
	}
}

// follow has the upstream go by s from now on.
func (u *Upstream) follow(s, before *service) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.set = before.set; s.set == nil || s.asked != before.asked || !s.policy.sameConns(before.policy) {
		s.set = balance.New[*endpoint](s.policy.setConfig())
	} else {
		s.set.Configure(s.policy.setConfig())
		for _, e := range s.set.All() {
			e.Value.dialBy(s.policy)
		}
	}
	if s.asked != before.asked || !sameReplicas(s.replicas, before.replicas) {
		u.replicas = s.replicas
	}
	if s.names == nil {
		u.addresses = nil
	}
	u.current.Store(s)
	u.replace()
}

// configured returns the replicas that the upstream was told last.
func (u *Upstream) configured() []replica {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.replicas
}

func (p *policy) setConfig() balance.Config {
	return balance.Config{
		Policy: p.balancing.policy, SlowStart: p.slowStart, Rise: p.checkRise, Fall: p.checkFall, Panic: p.panicShare,
		Ejection: balance.Ejection{
			Consecutive: p.ejectFailures, SuccessRate: p.ejectRate, Volume: ejectVolume,
			Base: p.ejectBase, Max: p.ejectMax, MaxShare: p.ejectShare,
		},
	}
}

func (s *service) breakerConfig() balance.BreakerConfig {
	p := s.policy
	return balance.BreakerConfig{
		Ratio: p.breakerRatio, Volume: p.breakerVolume, Window: p.breakerWindow, Open: p.breakerOpen,
		Probes: p.breakerProbes, Lease: max(p.timeout, time.Minute), OnChange: s.up.breakerChanged(p.onBreaker),
	}
}

// breakerChanged tells of the breaker's changes, in their order.
func (u *Upstream) breakerChanged(hook BreakerHook) func(from, to balance.State) {
	return func(from, to balance.State) {
		u.transitions[to].Add(1)
		u.core.changes.Add(u.name, "breaker "+to.String(), "was "+from.String())
		u.core.log().LogAttrs(context.Background(), slog.LevelWarn, "gateway: breaker", slog.String("gateway.service", u.name),
			slog.String("gateway.breaker.from", from.String()), slog.String("gateway.breaker.state", to.String()))
		if hook != nil {
			u.core.tell("WithBreakerHook", func() { hook(u.name, BreakerState(from.String()), BreakerState(to.String())) })
		}
	}
}

// replicaChanged tells of an ejection, or of its end.
func (u *Upstream) replicaChanged(e *endpoint, c balance.Change) {
	if c.Cause == balance.Recovery {
		u.core.changes.Add(u.name, "return", e.address+", after "+c.For.Round(time.Millisecond).String())
		u.core.log().LogAttrs(context.Background(), slog.LevelWarn, "gateway: return",
			slog.String("gateway.service", u.name), e.serverAddress(), e.serverPort(), slog.Float64("gateway.duration", c.For.Seconds()))
		return
	}
	u.ejections.Add(1)
	u.core.changes.Add(u.name, "ejection", fmt.Sprintf("%s: %v, for %v", e.address, c.Cause, c.For.Round(time.Millisecond)))
	u.core.log().LogAttrs(context.Background(), slog.LevelWarn, "gateway: ejection",
		slog.String("gateway.service", u.name), e.serverAddress(), e.serverPort(),
		slog.String("gateway.ejection.cause", c.Cause.String()), slog.Float64("gateway.duration", c.For.Seconds()))
}

// ejectVolume is how many attempts a success rate is judged by.
const ejectVolume = 20

const (
	viaName = "gateway" // in Via; the same for all, so that loops over several processes end too
	maxHops = 8         // gateways of this name that a request may pass
)

// Bounds on a response that no option moves.
const (
	maxResponseHeaderBytes = 64 << 10
	maxResponseFields      = 200
	maxInterim             = 8 // 1xx responses
	maxInterimBytes        = 64 << 10
)

// replica is a Replica that was found to be in order.
type replica struct {
	url    *url.URL
	weight int
}

func sameReplicas(a, b []replica) bool {
	return slices.EqualFunc(a, b, func(a, b replica) bool { return a.key() == b.key() && a.weight == b.weight })
}

// key tells replicas apart, however they are spelled.
func (r replica) key() string {
	if r.url.Scheme == forward.SchemeUnix {
		return "unix://" + r.url.Path
	}
	return r.url.Scheme + "://" + net.JoinHostPort(strings.ToLower(r.url.Hostname()), strconv.Itoa(portOf(r.url)))
}

// specs asks for the endpoints of replicas: one each, or one for each of the
// addresses that its name has.
func (s *service) specs(replicas []replica, addresses map[string][]string) []balance.Spec[*endpoint] {
	specs := make([]balance.Spec[*endpoint], 0, len(replicas))
	for _, r := range replicas {
		spec := func(key, address string) balance.Spec[*endpoint] {
			return balance.Spec[*endpoint]{Key: key, Weight: r.weight, Make: func() *endpoint {
				return newEndpoint(r.url, address, s, s.spansAt(r))
			}}
		}
		resolved := addresses[r.url.Hostname()]
		for _, address := range resolved {
			specs = append(specs, spec(r.key()+" "+address, net.JoinHostPort(address, strconv.Itoa(portOf(r.url)))))
		}
		if len(resolved) == 0 {
			specs = append(specs, spec(r.key(), ""))
		}
	}
	return specs
}

// SetReplicas replaces the service's replicas, the target itself included, by
// those given. One that was there before keeps its connections and what is known
// of it. Requests that are under way at another go on. The error joins an
// [*OptionError] for each fault, and then nothing has changed.
func (u *Upstream) SetReplicas(replicas ...Replica) error {
	u.core.updating.Lock()
	defer u.core.updating.Unlock()
	svc := u.current.Load()
	l := list{service: u.name}
	valid := parseReplicas(&l, "SetReplicas", replicas, svc.target)
	if socket := socketOf(valid); socket != nil && svc.policy.transport != nil {
		l.faultOf("SetReplicas", socket.String(), outOfReach)
	}
	if len(replicas) == 0 {
		l.faultOf("SetReplicas", "", "no replica is left")
	}
	if u.core.snapshot.Load().services[u.name] != svc {
		l.faultOf("SetReplicas", "", "the service was removed (Update)")
	}
	if len(l.faults) > 0 {
		return errors.Join(l.faults...)
	}
	added, removed := u.setReplicas(valid)
	if added+removed > 0 {
		u.core.changes.Add(u.name, "replicas", fmt.Sprintf("%d more, %d gone", added, removed))
	}
	if snap := u.core.snapshot.Load(); snap.access && added+removed > 0 {
		snap.log.LogAttrs(context.Background(), slog.LevelInfo, "gateway: replicas", slog.String("gateway.service", u.name),
			slog.Int("gateway.replicas.added", added), slog.Int("gateway.replicas.removed", removed))
	}
	return nil
}

func (u *Upstream) setReplicas(replicas []replica) (added, removed int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.replicas = replicas
	return u.replace()
}

// setAddresses notes where a name leads.
func (u *Upstream) setAddresses(name string, found []string) (added, removed int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.current.Load().names == nil || !slices.ContainsFunc(u.replicas, func(r replica) bool { return r.url.Hostname() == name }) {
		return // it has changed meanwhile
	}
	if u.addresses == nil {
		u.addresses = make(map[string][]string)
	}
	u.addresses[name] = found
	return u.replace()
}

// replace makes the replicas, at their addresses, the endpoints, and returns how
// many have come and gone. Those that go finish what they do. mu is held.
func (u *Upstream) replace() (came, went int) {
	svc := u.current.Load()
	maps.DeleteFunc(u.addresses, func(name string, _ []string) bool {
		return !slices.ContainsFunc(u.replicas, func(r replica) bool { return r.url.Hostname() == name })
	})
	u.reading.Lock()
	added, removed := svc.set.Replace(svc.specs(u.replicas, u.addresses), time.Now())
	leave(removed)
	u.reading.Unlock()
	u.letGo(removed)
	u.forget(svc.set.All())
	return len(added), len(removed)
}

// leave keeps of endpoints that are read no more from now on what would be missing
// from a sum.
func leave(gone []*replicaState) {
	for _, e := range gone {
		c := e.Value.conns()
		e.Value.spans.Left(int64(c.Waits), c.WaitTime) //nolint:gosec // a count of events
	}
}

// forget releases what no endpoint of those that stay records by. mu is held.
func (u *Upstream) forget(stay []*replicaState) {
	maps.DeleteFunc(u.spans, func(_ string, spans *telemetry.Endpoint) bool {
		if slices.ContainsFunc(stay, func(e *replicaState) bool { return e.Value.spans == spans }) {
			return false
		}
		spans.Release()
		return true
	})
}

// retire is letGo of all endpoints of a former policy.
func (u *Upstream) retire(gone []*replicaState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.letGo(gone)
}

// letGo has the connections of endpoints end once they are free. Requests that
// have chosen one yet are served. mu is held.
func (u *Upstream) letGo(gone []*replicaState) {
	u.retired = slices.DeleteFunc(u.retired, (*endpoint).quiet)
	for _, e := range gone {
		e.Value.retire()
		if !e.Value.quiet() {
			u.retired = append(u.retired, e.Value)
		}
	}
}

// beside starts what runs beside the requests, until Shutdown.
func (s *service) beside() {
	if s.checks != nil {
		s.checks.Start(s.up.life)
	}
	if s.names != nil {
		s.names.Start(s.up.life)
	}
}

// resolve keeps the endpoints at the addresses of the replicas' names. A name
// that cannot be resolved keeps the addresses that it had.
func (u *Upstream) resolve(ctx context.Context, every time.Duration) {
	unknown := make(map[string]bool) // names that could not be resolved the last time
	for {
		u.mu.Lock()
		replicas := u.replicas
		u.mu.Unlock()
		maps.DeleteFunc(unknown, func(name string, _ bool) bool {
			return !slices.ContainsFunc(replicas, func(r replica) bool { return r.url.Hostname() == name })
		})
		for _, r := range replicas {
			u.resolveOne(ctx, r.url.Hostname(), unknown)
		}
		if !wait(ctx, every) {
			return
		}
	}
}

// resolveOne resolves a name, and tells what has changed by that.
func (u *Upstream) resolveOne(ctx context.Context, name string, unknown map[string]bool) {
	if _, err := netip.ParseAddr(name); err == nil || name == "" {
		return
	}
	svc, snap := u.current.Load(), u.core.snapshot.Load()
	found, err := lookup(ctx, svc.policy, name)
	switch {
	case err == nil:
		added, removed := u.setAddresses(name, found)
		if added+removed > 0 {
			u.core.changes.Add(u.name, "addresses", fmt.Sprintf("of %s: %d more, %d gone", name, added, removed))
		}
		if snap.access && (added+removed > 0 || unknown[name]) {
			snap.log.LogAttrs(ctx, slog.LevelInfo, "gateway: addresses",
				slog.String("gateway.service", u.name), slog.String("dns.question.name", name),
				slog.Int("gateway.replicas.added", added), slog.Int("gateway.replicas.removed", removed))
		}
		delete(unknown, name)
	case ctx.Err() == nil && !unknown[name]:
		unknown[name] = true
		snap.log.LogAttrs(ctx, slog.LevelWarn, "gateway: name resolution",
			slog.String("gateway.service", u.name), slog.String("dns.question.name", name), slog.String("error.message", errorText(err, svc.secrets)))
	}
}

func lookup(ctx context.Context, p *policy, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(p.dialTimeout, maxLookup))
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	addresses := make([]string, len(found))
	for i, addr := range found {
		addresses[i] = addr.Unmap().String()
	}
	slices.Sort(addresses)
	return addresses, err
}

const maxLookup = 5 * time.Second

// wait waits for d; false: ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Bounds on active checks.
const (
	checkWorkers = 4
	checkQueue   = 256
	checkJitter  = 0.1
)

// check asks each endpoint, again and again, how it is.
func (u *Upstream) check(ctx context.Context, every time.Duration) {
	queue := work.NewQueue(work.QueueConfig{Name: "health check", Workers: checkWorkers, Size: checkQueue, Go: u.life.Go, OnPanic: u.core.panicked})
	defer func() { _ = queue.Stop(ctx, false) }()
	checks := balance.Checks{Interval: every, Fast: every / 2, Jitter: checkJitter}
	due := make(map[*replicaState]time.Time)
	for {
		svc := u.current.Load()
		now, all := time.Now(), svc.set.All()
		next := now.Add(every)
		for _, e := range all {
			if at := due[e]; !at.After(now) {
				u.checkOne(queue, svc, e)
				due[e] = now.Add(checks.Next(e.Health() != balance.Unhealthy))
			}
			if due[e].Before(next) {
				next = due[e]
			}
		}
		maps.DeleteFunc(due, func(e *replicaState, _ time.Time) bool { return !slices.Contains(all, e) })
		if !wait(ctx, time.Until(next)) {
			return
		}
	}
}

// checkOne has a worker ask e, unless one is still waiting for its answer.
func (u *Upstream) checkOne(queue *work.Queue, svc *service, e *replicaState) {
	if e.Value.checking.Swap(true) {
		return
	}
	job := work.Job{
		Name: "health check",
		Do: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, svc.policy.healthTime)
			defer cancel()
			status, err := e.Value.ask(ctx, svc)
			if ctx.Err() != nil && errors.Is(context.Cause(ctx), work.ErrShutdown) {
				return nil
			}
			ok := err == nil && 200 <= status && status < 500
			changed, back := e.Checked(ok, time.Now())
			if changed {
				u.core.changes.Add(u.name, "replica", e.Value.address+" is "+e.Health().String())
				u.core.log().LogAttrs(ctx, slog.LevelWarn, "gateway: replica",
					slog.String("gateway.service", u.name), e.Value.serverAddress(), e.Value.serverPort(), slog.Bool("gateway.endpoint.healthy", ok))
			}
			if back.Cause != balance.Unchanged {
				u.replicaChanged(e.Value, back)
			}
			return nil
		},
		Done: func(error) { e.Value.checking.Store(false) },
	}
	if !queue.Submit(job) {
		e.Value.checking.Store(false)
	}
}

// probeRequest is what a service is asked to see how it is: a plain GET without
// credentials.
func (s *service) probeRequest() *outbound {
	target, query, _ := strings.Cut(s.policy.healthPath, "?")
	return &outbound{
		method: http.MethodGet, path: forward.Join(s.base, target), query: query, host: s.host,
		header: http.Header{"User-Agent": {"gateway-health/" + version}},
	}
}

// endpoint is one address of a service.
type endpoint struct {
	url     *url.URL
	address string // shown: host:port, or a socket's path
	spans   *telemetry.Endpoint
	send    sender

	client *h1.Client        // nil: through rt
	rt     http.RoundTripper // nil: through client
	owned  *roundtrip.Transport
	dialer atomic.Pointer[h1.Dialer] // nil: of a round tripper of the app's

	checking atomic.Bool
	probe    health.Probe
}

// serverAddress is where the endpoint is, for log lines, as spans have it: a host,
// or a socket's path.
func (e *endpoint) serverAddress() slog.Attr {
	host, _, err := net.SplitHostPort(e.address)
	if err != nil {
		host = e.address
	}
	return slog.String("server.address", host)
}

// serverPort is its port; of a socket nothing.
func (e *endpoint) serverPort() slog.Attr {
	_, text, _ := net.SplitHostPort(e.address)
	port, err := strconv.Atoi(text)
	if err != nil {
		return slog.Attr{}
	}
	return slog.Int("server.port", port)
}

// proto is what the connections speak; empty: that is the app's round tripper's
// affair.
func (e *endpoint) proto() string {
	switch {
	case e.client != nil:
		return protocol(1)
	case e.owned != nil:
		return "HTTP/2"
	}
	return ""
}

// closed is told of a connection that is no more.
func (e *endpoint) closed(lived time.Duration) { e.spans.Closed(e.proto(), lived) }

// close ends the connections, those in use once they are free.
func (e *endpoint) close() {
	if e.client != nil {
		e.client.Close()
	}
	if e.owned != nil {
		e.owned.Close()
	}
}

// retire ends the connections, those in use once they are free, and those yet to
// come after their request.
func (e *endpoint) retire() {
	if e.client != nil {
		e.client.Retire()
	}
	if e.owned != nil {
		e.owned.Retire()
	}
}

// quiet reports whether there is no connection, and no dial that goes on without
// those who wait for it.
func (e *endpoint) quiet() bool {
	return e.conns().Open == 0 && (e.owned == nil || !e.owned.Dialing())
}

// dialBy has connections to come be made as p says.
func (e *endpoint) dialBy(p *policy) {
	old := e.dialer.Load()
	if old == nil {
		return
	}
	e.dialer.Store(&h1.Dialer{
		Network: old.Network, Address: old.Address, TLS: old.TLS,
		Timeout: p.dialTimeout, HandshakeTimeout: p.tlsHandshakeTimeout, Via: p.dial,
	})
}

// connect connects. A panic of the app's dial function is an error for whoever
// waits for the connection, which may be several requests.
func (e *endpoint) connect(ctx context.Context, up *Upstream) (net.Conn, error) {
	nc, err := e.dialer.Load().Dial(ctx)
	if p, ok := errors.AsType[*h1.PanicError](err); ok {
		up.current.Load().panicked("WithDialContext", p.Value, p.Stack)
		return nil, fmt.Errorf("WithDialContext: %w", errHookPanic)
	}
	return nc, err
}

// sender is the seam to an upstream: it sends an attempt's request and fills
// in the head of the answer, or says why there is none.
type sender func(*attempt) error

// newEndpoint makes the endpoint of target, or of one address of its name.
func newEndpoint(target *url.URL, address string, svc *service, spans *telemetry.Endpoint) *endpoint {
	p, up := svc.policy, svc.up
	e := &endpoint{url: target, address: address, rt: p.transport, spans: spans}
	network := "tcp"
	switch {
	case target.Scheme == forward.SchemeUnix:
		network, e.address, e.url = "unix", target.Path, knownAs(target)
	case address == "":
		e.address = net.JoinHostPort(target.Hostname(), strconv.Itoa(portOf(target)))
	}
	if e.rt != nil {
		e.send = e.roundTrip
		return e
	}
	connect := func(ctx context.Context) (net.Conn, error) { return e.connect(ctx, up) }
	dialer := &h1.Dialer{Network: network, Address: e.address, Timeout: p.dialTimeout, HandshakeTimeout: p.tlsHandshakeTimeout, Via: p.dial}
	if target.Scheme == "https" {
		dialer.TLS = tlsConfig(p, target)
	}
	e.dialer.Store(dialer)
	if p.http2 {
		e.owned = roundtrip.NewTransport(roundtrip.TransportConfig{
			Dial: connect, TLS: dialer.TLS != nil, MaxConns: p.maxConns, AcquireTimeout: p.acquireTimeout,
			IdleTimeout: p.connIdleTimeout, MaxAge: p.maxConnAge, Closed: e.closed,
			ResponseHeaderTimeout: p.responseHeaderTimeout, MaxHeaderBytes: maxResponseHeaderBytes,
		})
		e.rt, e.send = e.owned, e.roundTrip
		return e
	}
	e.client = h1.New(h1.Config{Head: maxResponseHeaderBytes, Pool: h1.PoolConfig{
		Max: p.maxConns, Min: p.minConns, IdleTimeout: p.connIdleTimeout, MaxAge: p.maxConnAge,
		AcquireTimeout: p.acquireTimeout, NoReuse: p.noConnReuse, Dial: connect, Go: up.life.Go, Closed: e.closed,
	}})
	e.send = e.exchange
	return e
}

// spansAt is what the endpoints of a replica record by, or have recorded so far.
// Upstream.mu is held.
func (s *service) spansAt(r replica) *telemetry.Endpoint {
	u, key := s.up, r.key()
	if u.spans[key] == nil {
		if u.spans == nil {
			u.spans = make(map[string]*telemetry.Endpoint)
		}
		u.spans[key] = endpointSpans(r.url, s)
	}
	return u.spans[key]
}

// endpointSpans prepares the telemetry of target, by the name that it was
// configured by: addresses come and go.
func endpointSpans(target *url.URL, svc *service) *telemetry.Endpoint {
	c := telemetry.EndpointConfig{Scheme: target.Scheme, Host: target.Hostname(), Port: portOf(target)}
	if target.Scheme == forward.SchemeUnix {
		c = telemetry.EndpointConfig{Scheme: "http", Host: target.Path, Socket: true}
	}
	return svc.routed.Endpoint(c)
}

// tlsConfig is what is spoken to target: the configured one, for its name and
// protocol.
func tlsConfig(p *policy, target *url.URL) *tls.Config {
	c := p.tlsConfig.Clone()
	if c == nil {
		c = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if c.ServerName == "" {
		c.ServerName = withoutZone(target.Hostname())
	}
	c.NextProtos = []string{"http/1.1"}
	if p.http2 {
		c.NextProtos = []string{"h2"}
	}
	return c
}

func portOf(u *url.URL) int {
	port, _ := net.LookupPort("tcp", u.Port())
	switch {
	case port != 0:
	case u.Scheme == "https":
		port = 443
	default:
		port = 80
	}
	return port
}

// fetch is one answer got from a service, in one or more attempts. Exchanges
// only link to it: a detached one goes on when its client leaves.
type fetch struct {
	link        work.Link
	x           *exchange // who leads it; not to be touched once its handler may have returned
	svc         *service
	ctx         context.Context // what attempts derive from
	client      context.Context // the leader's
	upgrade     string          // the protocol that is asked for; empty: none
	watched     context.Context // whose end ends an attempt: the client's, or one that does not end
	awaited     awaited         // who waits beside the client of one that leads a call
	detached    bool
	deadline    time.Time // of the response header; zero: none
	end         time.Time // of everything; zero: none
	gatherBy    time.Time // when a content that is sent with the head has to be there; zero: it is none
	out         outbound
	body        *retry.Body // nil: no body
	purse       retry.Purse
	spans       *telemetry.Service
	plain       bool                 // without the client's own conditions and range
	validate    []rfc9111.Validators // of what is stored, for a plain one
	missing     rfc9111.Span         // of what is stored, which validate is of; empty: nothing
	conditional bool                 // it is sent with conditions of the cache
	lease       balance.Lease
	place       bool            // of the service's limit
	slow        bool            // the client was, not the upstream
	hedged      bool            // several attempts may be under way
	shared      bool            // others hold on to it, beyond its end
	scratch     forward.Scratch // out's header lies in it
	tried       []*replicaState
	triedBuf    [2]*replicaState
	begun       int            // attempts
	uploads     sync.WaitGroup // of attempts that still read body
	first       attempt        // where most fetches end
	answer      *attempt       // the last attempt that was begun, which is the answer's once run has returned nil

	mu        sync.Mutex
	cutBy     error
	running   [2]*attempt        // a cut ends them
	wake      chan struct{}      // closed by a cut
	stopHook  context.CancelFunc // ends the wait for the token source
	committed bool               // a 1xx has reached the client: no other attempt may answer
}

// outbound is the request as every attempt sends it.
type outbound struct {
	method  string
	path    string // escaped, with the target's
	query   string // without the question mark
	force   bool   // a question mark though the query is empty
	host    string
	header  http.Header
	length  int64       // of the body; negative: unknown
	trailer http.Header // of the body: what was announced, without values
}

// fetches are used again, those of which nobody else can know.
var fetches = sync.Pool{New: func() any { return new(fetch) }}

// recycle gives the fetch, which was closed, to another request, unless somebody
// may still hold on to it or to what is in it.
func (f *fetch) recycle() {
	a := &f.first
	if f.answer != a || f.hedged || f.shared || a.endpoint.client == nil || len(f.svc.policy.modify) > 0 || !a.own.Free() {
		return
	}
	scratch, head := f.scratch, a.own.Header
	clear(head)
	*f = fetch{} // and no other, which would lie on the stack meanwhile
	f.scratch, f.first.own.Header = scratch, head
	fetches.Put(f)
}

// newFetch prepares a fetch for x. Its caller ends it, by close or by leaving
// its answer to somebody who does.
func (x *exchange) newFetch(detached bool) *fetch {
	p := x.svc.policy
	f := fetches.Get().(*fetch)
	f.x, f.svc, f.client, f.upgrade, f.ctx, f.watched, f.detached = x, x.svc, x.r.Context(), x.upgrade, x.ctx, x.ctx, detached
	if detached {
		f.watched = context.Background()
	}
	f.deadline, f.end = x.due()
	extra := p.retries
	if p.hedgeDelay > 0 {
		extra++
	}
	f.purse = retry.NewPurse(1+extra, x.svc.budget)
	f.tried = f.triedBuf[:0]
	f.spans = x.svc.spans(x.whole)
	return f
}

// due returns when the request has to have its response's header, and when all of
// it has to have ended; zero: whenever it does.
func (x *exchange) due() (header, end time.Time) {
	p := x.svc.policy
	if p.timeout > 0 {
		header = x.start.Add(p.timeout)
	}
	if due, ok := x.r.Context().Deadline(); ok && (header.IsZero() || due.Before(header)) {
		header = due // the app's own, which a detached fetch would not see
	}
	if p.maxDuration > 0 {
		end = x.start.Add(p.maxDuration)
		if header.IsZero() || end.Before(header) {
			header = end
		}
	}
	return header, end
}

// run makes attempts until one is the answer, or none will be.
func (f *fetch) run() *Error {
	up := f.svc.up
	if !up.life.Begin(&f.link, f) {
		return fault(ReasonShuttingDown, work.ErrShutdown)
	}
	f.svc.beside()
	answered := false
	defer func() {
		f.x.attempts = f.begun
		if !answered { // a panic of the round tripper's or a hook's, too
			f.close(fault(ReasonPanic, nil))
		}
	}()
	err := f.admit()
	if err == nil {
		err = f.prepare()
	}
	if err == nil {
		err = f.attempts()
	}
	if answered = err == nil; !answered {
		answered = true
		f.close(err)
	}
	return err
}

// A gate may refuse a fetch before anything is sent.
type gate struct {
	pass    func(*fetch) *Error
	foresee func(*service, time.Time) *Error // what pass would say, which takes nothing and waits for nothing
}

// gates are all there are, in their order.
var gates = [...]gate{
	{(*fetch).allowed, (*service).allows},
	{(*fetch).enter, (*service).hasRoom},
	{(*fetch).borrow, (*service).lends},
	{(*fetch).finds, (*service).isFit},
}

// admit asks all gates.
func (f *fetch) admit() *Error {
	for i := range gates {
		if err := gates[i].pass(f); err != nil {
			return err
		}
	}
	return nil
}

// foresee returns what admit would.
func (s *service) foresee(now time.Time) *Error {
	for i := range gates {
		if err := gates[i].foresee(s, now); err != nil {
			return err
		}
	}
	return nil
}

// refusal returns a fault that ends by itself.
func refusal(reason Reason, cause error, retryAfter time.Duration) *Error {
	err := fault(reason, cause)
	err.retryAfter = retryAfter
	return err
}

// allowed asks the rate limit.
func (f *fetch) allowed() *Error {
	if f.svc.rate == nil {
		return nil
	}
	now := time.Now()
	r := f.svc.rate.ReserveN(now, 1)
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return refusal(ReasonRateLimited, nil, wait)
	}
	return nil
}

func (s *service) allows(now time.Time) *Error {
	if s.rate == nil {
		return nil
	}
	missing := 1 - s.rate.TokensAt(now)
	if wait := time.Duration(min(missing/float64(s.rate.Limit())*float64(time.Second), 1<<62)); wait > 0 {
		return refusal(ReasonRateLimited, nil, wait)
	}
	return nil
}

// borrow asks the circuit breaker.
func (f *fetch) borrow() *Error {
	if f.svc.breaker == nil {
		return nil
	}
	var ok bool
	if f.lease, ok = f.svc.breaker.Allow(f.x.start); !ok {
		return f.svc.open(f.x.start)
	}
	return nil
}

func (s *service) lends(now time.Time) *Error {
	if s.breaker == nil || s.breaker.Admits(now) {
		return nil
	}
	return s.open(now)
}

// open is the breaker's refusal.
func (s *service) open(now time.Time) *Error {
	return refusal(ReasonBreakerOpen, nil, max(s.breaker.RetryAfter(now), time.Second))
}

// finds asks whether there is a replica to send to.
func (f *fetch) finds() *Error { return f.svc.isFit(f.x.start) }

func (s *service) isFit(now time.Time) *Error {
	if s.policy.panicShare == 0 && s.set.Fit(now) == 0 {
		return fault(ReasonNoReplica, nil)
	}
	return nil
}

// hasRoom is whether a place is free, or may be waited for.
func (s *service) hasRoom(time.Time) *Error {
	if s.limit == nil {
		return nil
	}
	if free, queue := s.limit.Room(); free == 0 && queue == 0 {
		return refusal(ReasonOverloaded, work.ErrFull, time.Second)
	}
	return nil
}

// enter takes a place among the fetches that the service may have at once.
func (f *fetch) enter() *Error {
	limit := f.svc.limit
	if limit == nil {
		return nil
	}
	if f.place = limit.TryAcquire(); f.place {
		return nil
	}
	ctx, done, err := f.waiting()
	if err != nil {
		return err
	}
	f.x.reached(stageQueue)
	cause := limit.Acquire(ctx)
	f.place = cause == nil
	if err := done(); err != nil {
		return err
	}
	if cause == nil {
		return nil
	}
	f.svc.up.stats.drops.Add(1)
	if timedOut(cause) {
		return fault(ReasonTimeout, cause)
	}
	return refusal(ReasonOverloaded, cause, time.Second)
}

// waiting returns the context of a wait before the first attempt: it ends with
// the fetch's time, with its client and with a cut. done ends it, and says what
// has ended it.
func (f *fetch) waiting() (ctx context.Context, done func() *Error, err *Error) {
	ctx, cancel := context.WithCancel(f.x.ctx)
	stop := cancel
	if !f.deadline.IsZero() {
		ctx, stop = context.WithDeadlineCause(ctx, f.deadline, h1.HeadTimeout)
	}
	f.mu.Lock()
	f.stopHook = cancel
	cut := f.cutBy
	f.mu.Unlock()
	done = func() *Error {
		stop()
		cancel()
		f.mu.Lock()
		f.stopHook, cut = nil, f.cutBy
		f.mu.Unlock()
		switch {
		case cut != nil:
			return fault(ReasonShuttingDown, cut)
		case f.client.Err() != nil:
			return clientGone(f.client)
		}
		return nil
	}
	if cut != nil {
		return ctx, done, done()
	}
	return ctx, done, nil
}

// attempts is the loop over attempts. Its error leaves none open.
func (f *fetch) attempts() *Error {
	f.purse.First()
	f.hedged = f.x.hedges()
	a, err := f.try()
	if err == nil && !retry.RetryStatus(a.status) {
		return f.accept(a)
	}
	return f.repeat(a, err)
}

// repeat makes further attempts, as long as the last one's outcome asks for
// another.
func (f *fetch) repeat(a *attempt, err *Error) *Error {
	for waits := f.svc.waits.Start(); err != nil || retry.RetryStatus(a.status); a, err = f.try() {
		wait, again := f.again(a, err, waits.Next())
		if !again {
			if err != nil {
				return err
			}
			break
		}
		a.discard()
		if err := f.sleep(wait); err != nil {
			return err
		}
		f.svc.up.stats.retries.Add(1)
		f.svc.up.stats.causes[retryCause(a, err)].Add(1)
	}
	return f.accept(a)
}

// hedges reports whether two attempts may race.
func (x *exchange) hedges() bool {
	return x.svc.policy.hedgeDelay > 0 && !x.hasBody() && x.upgrade == "" && safe(x.r.Method)
}

// safe reports whether a method asks for nothing but an answer (RFC 9110
// §9.2.1).
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// address begins the outbound request: where it goes, and its header.
func (f *fetch) address() {
	x, svc, r := f.x, f.svc, f.x.r
	f.out = outbound{method: r.Method, path: forward.Join(svc.base, x.rest), query: x.query, force: r.URL.ForceQuery, host: svc.host}
	if svc.policy.preserveHost {
		f.out.host = cmp.Or(r.Host, svc.host) // HTTP/1.0 has requests without
	}
	in := forward.Inbound{
		Header: r.Header, RemoteAddr: r.RemoteAddr, Host: r.Host, TLS: r.TLS != nil,
		ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor,
		Prefix: x.prefix, Upgrade: x.upgrade != "", Content: x.hasBody(),
		RequestID: x.requestID(),
	}
	f.out.header = svc.rules.Outbound(&in, &f.scratch)
	if r.Method == http.MethodOptions {
		forward.CountHop(f.out.header)
	}
}

// prepare builds the outbound request, hooks included.
func (f *fetch) prepare() *Error {
	x, svc, r := f.x, f.svc, f.x.r
	p := svc.policy
	f.address()
	switch {
	case f.missing.Len() > 0:
		f.conditional = rfc9111.AskFor(f.out.header, []rfc9111.Span{f.missing}, &f.validate[0])
	case f.plain:
		f.conditional = rfc9111.SetConditions(f.out.header, f.validate...)
	}
	if x.hasBody() {
		f.out.length = r.ContentLength
		f.out.trailer = svc.rules.Trailers(r.Trailer)
		if h1.Gathers(r.ContentLength, f.out.header) {
			f.gatherBy = f.headDue(time.Now())
		}
		x.upload = f.newBody(r)
		f.mu.Lock()
		f.body = x.upload
		f.mu.Unlock()
	}
	if p.tokenSource != nil {
		token, err := x.token(f)
		if err != nil {
			return err
		}
		x.bearer = token
		f.out.header["Authorization"] = []string{"Bearer " + token}
	}
	if len(p.rewrite) > 0 {
		return f.rewrite()
	}
	return nil
}

// newBody makes r's body one that can be sent again while it is small.
func (f *fetch) newBody(r *http.Request) *retry.Body {
	p := f.svc.policy
	keep := p.retryBodyBytes
	if p.retries == 0 {
		keep = 0
	}
	b := retry.NewBody(r.Body, r.ContentLength, int(keep), p.maxBodyBytes)
	rc := http.NewResponseController(f.x.w)
	if r.ProtoMajor == 1 {
		// Otherwise net/http's server reads the rest of the body itself, away
		// from us, as soon as the response begins.
		_ = rc.EnableFullDuplex()
	}
	b.Before = func() {
		if due := f.readDue(); !due.IsZero() {
			_ = rc.SetReadDeadline(due)
		}
	}
	b.Unblock = func() { _ = rc.SetReadDeadline(time.Unix(1, 0)) }
	if p.bodyIdleTimeout > 0 || !f.gatherBy.IsZero() {
		b.AtEOF = func() { _ = rc.SetReadDeadline(time.Time{}) } // or it would soon look as if the client left
		if r.ProtoMajor == 2 {
			b.After = b.AtEOF // it ends the body of a stream also while the service is waited for
		}
	}
	return b
}

// readDue returns when a read of the client's content that begins now must have
// ended; zero: whenever it does.
func (f *fetch) readDue() (due time.Time) {
	if idle := f.svc.policy.bodyIdleTimeout; idle > 0 {
		due = time.Now().Add(idle)
	}
	if by := f.gatherBy; !by.IsZero() && (due.IsZero() || by.Before(due)) {
		due = by
	}
	return due
}

// token asks the token source, within the fetch's time, and no longer than the
// client waits.
func (x *exchange) token(f *fetch) (token string, err *Error) {
	ctx, done, err := f.waiting()
	if err != nil {
		return "", err
	}
	x.reached(stageHooks)
	source := x.svc.policy.tokenSource
	answer, ok := work.Aside(ctx, func() tokenAnswer { return askToken(ctx, source) })
	if !ok {
		answer.err = context.Cause(ctx)
	}
	if err := done(); err != nil {
		return "", err
	}
	switch {
	case answer.panicked == any(http.ErrAbortHandler):
		panic(http.ErrAbortHandler)
	case answer.panicked != nil:
		x.panicked("WithTokenSource", answer.panicked, answer.stack)
		answer.err = fmt.Errorf("WithTokenSource: %w", errHookPanic)
	case answer.err == nil:
		answer.err = options.CheckToken(answer.token)
	}
	if answer.err != nil {
		return "", fault(ReasonToken, answer.err)
	}
	return answer.token, nil
}

// tokenAnswer is what a token source has to say.
type tokenAnswer struct {
	token    string
	err      error
	panicked any
	stack    []byte
}

// askToken asks source, which may mind no context.
func askToken(ctx context.Context, source TokenSource) (a tokenAnswer) {
	defer func() {
		if v := recover(); v != nil {
			a.panicked, a.stack = v, debug.Stack()
		}
	}()
	a.token, a.err = source(ctx)
	return a
}

var errHookPanic = errors.New("a hook panicked")

// hook calls a function of the app's and turns its panic into errHookPanic.
// Only http.ErrAbortHandler passes.
func (x *exchange) hook(name string, f func() error) (err error) {
	x.reached(stageHooks)
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			panic(v)
		default:
			x.panicked(name, v, debug.Stack())
			err = fmt.Errorf("%s: %w", name, errHookPanic)
		}
	}()
	return f()
}

// rewrite shows the request to the WithRewrite hooks.
func (f *fetch) rewrite() *Error {
	u := f.out.url(f.svc.target)
	req := (&http.Request{
		Method: f.out.method, URL: &u, Header: f.out.header, Host: f.out.host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: f.out.length,
	}).WithContext(f.ctx)
	for _, hook := range f.svc.policy.rewrite {
		if err := f.x.hook("WithRewrite", func() error { hook(req); return nil }); err != nil {
			return fault(ReasonPanic, err)
		}
	}
	if req.URL == nil || req.Header == nil {
		return fault(ReasonPanic, errors.New("WithRewrite: removed the URL or the header"))
	}
	f.out.path, f.out.query = forward.Target(req.URL)
	f.out.force = req.URL.ForceQuery
	f.out.header, f.out.host = req.Header, cmp.Or(req.Host, f.svc.host)
	if err := forward.Settle(f.out.header, f.out.host); err != nil {
		return fault(ReasonPanic, fmt.Errorf("WithRewrite: %w", err))
	}
	return nil
}

// url returns the outbound URL at a replica. Path and RawPath are set so that
// EscapedPath returns the escaped path byte for byte.
func (o *outbound) url(at *url.URL) url.URL {
	path, err := url.PathUnescape(o.path)
	if err != nil {
		path = o.path
	}
	return url.URL{Scheme: at.Scheme, Host: at.Host, Path: path, RawPath: o.path, RawQuery: o.query, ForceQuery: o.force}
}

// try makes one attempt, or two that race. Its error leaves nothing open.
func (f *fetch) try() (*attempt, *Error) {
	a, err := f.newAttempt()
	if err != nil {
		return a, err
	}
	if f.hedged && f.begun == 1 {
		return f.race(a)
	}
	return a, a.run()
}

// newAttempt prepares an attempt at an endpoint that was not tried yet, where
// there is one. Its error leaves nothing open.
func (f *fetch) newAttempt() (*attempt, *Error) {
	a := &f.first
	header := f.out.header
	f.begun++
	if f.begun > 1 {
		a = new(attempt)
		header = maps.Clone(header) // the former attempt may still be writing it
	}
	a.fetch, a.start, a.header, a.length = f, time.Now(), header, -1
	a.wire = &a.own
	hash, _ := f.hash()
	a.at = f.svc.set.Pick(hash, f.tried, a.start)
	f.tried = append(f.tried, a.at)
	a.at.Begin()
	a.endpoint = a.at.Value
	f.x.attempted(f.begun, a)
	if a.endpoint.client == nil {
		a.wire = new(roundtrip.Exchange)
	}
	f.answer = a // which ends with the fetch, should what is the app's panic on the way
	ctx := f.ctx
	if f.detached && a.endpoint.client == nil {
		ctx = context.WithoutCancel(ctx)
	}
	a.ctx = a.endpoint.spans.StartClient(ctx, &a.span, f.out.method, f.out.path, f.out.query, f.begun-1, f.x.cause)
	f.spans.Inject(a.ctx, a.header)
	if err := f.begin(a); err != nil {
		fe := a.classify(err)
		a.end(fe)
		return a, fe
	}
	return a, nil
}

// run sends the attempt, and waits for an answer that can be used. Its error
// leaves nothing open.
func (a *attempt) run() *Error {
	err := a.endpoint.send(a)
	if a.head1 == 0 {
		a.head1 = time.Since(a.start)
	}
	if err == nil {
		err = a.judge()
	}
	if err == nil {
		err = a.await()
	}
	if err == nil {
		return nil
	}
	fe := a.classify(err)
	fe.received = a.status
	a.end(fe)
	return fe
}

// result is what became of one of two attempts that race.
type result struct {
	*attempt
	err   *Error
	abort bool // it is to end the client's connection (http.ErrAbortHandler)
}

// race gives a a head start, and then sends the same to another endpoint. The
// first answer that is none of a gateway in trouble wins; the other attempt is
// called off, and ends on its own.
func (f *fetch) race(a *attempt) (*attempt, *Error) {
	results := make(chan result, 2) //nolint:mnd // one each
	if !f.runAside(a, results) {
		err := fault(ReasonShuttingDown, work.ErrShutdown)
		a.end(err)
		return a, err
	}
	t := time.NewTimer(f.svc.policy.hedgeDelay)
	defer t.Stop()
	var r result
	select {
	case r = <-results:
	case <-t.C:
		b := f.hedge(a, results)
		if r = <-results; b != nil {
			r = f.decide(r, a, b, results)
		}
	}
	if f.answer = r.attempt; r.abort {
		panic(http.ErrAbortHandler)
	}
	return r.attempt, r.err
}

// runAside runs a as a task, which says what became of it.
func (f *fetch) runAside(a *attempt, results chan<- result) bool {
	up := f.svc.up
	return up.life.Go("hedged attempt", func() {
		r := result{attempt: a, err: fault(ReasonPanic, nil)}
		defer func() {
			if v := recover(); v != nil { // of the app's round tripper
				if r.abort = v == any(http.ErrAbortHandler); !r.abort {
					f.svc.panicked("WithTransport", v, debug.Stack())
				}
				a.end(r.err)
			}
			results <- r
		}()
		r.err = a.run()
	})
}

// hedge starts a second attempt beside a, if it may be paid for.
func (f *fetch) hedge(a *attempt, results chan result) *attempt {
	if !f.purse.Take() {
		return nil
	}
	begun := false
	defer func() {
		if !begun { // a panic of what begins it
			f.callOff(a, results)
		}
	}()
	b, err := f.newAttempt()
	begun = true
	if err == nil && f.runAside(b, results) {
		f.svc.up.stats.hedges.Add(1)
		return b
	}
	b.end(err)
	return nil
}

// decide returns the better of two results, of which one is there.
func (f *fetch) decide(r result, a, b *attempt, results <-chan result) result {
	if r.err != nil || retry.RetryStatus(r.status) {
		r.end(nil)
		return <-results // which may be better, and is none the worse
	}
	loser := a
	if r.attempt == a {
		loser = b
	}
	f.callOff(loser, results)
	return r
}

// callOff ends the slower of two attempts, whose result is yet to come.
func (f *fetch) callOff(loser *attempt, results <-chan result) {
	loser.lost.Store(true)
	loser.wire.Abort(errLost)
	late := func() {
		if r := <-results; r.err == nil {
			r.end(nil)
		}
	}
	if !f.svc.up.life.Go("hedge's loser", late) {
		late()
	}
}

// errLost is why the slower of two attempts that race was called off.
var errLost = errors.New("another attempt was faster")

var errSpilled = errors.New("the request's content cannot be sent again")

// begin makes a the attempt that a cut ends, and gives it the request's
// content from its first byte.
func (f *fetch) begin(a *attempt) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running[1] = f.running[0]
	f.running[0] = a
	if f.cutBy != nil {
		return f.cutBy
	}
	if f.body != nil {
		upload, ok := f.body.Attempt()
		if !ok {
			return errSpilled
		}
		a.upload = upload
		if len(f.out.trailer) > 0 {
			a.trailing = maps.Clone(f.out.trailer)
			a.upload = &trailing{upload, a.trailing, f.x.r}
		}
	}
	return nil
}

// trailing is a request's content that fills the trailer section at its end,
// for one attempt: another may still be reading its own.
type trailing struct {
	io.ReadCloser
	trailer http.Header
	r       *http.Request
}

func (t *trailing) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		for name := range t.trailer {
			t.trailer[name] = t.r.Trailer[name]
		}
	}
	return n, err
}

// Cut ends the fetch from outside.
func (f *fetch) Cut(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutBy = cause
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
	if f.stopHook != nil {
		f.stopHook()
	}
	for _, a := range f.running {
		if a != nil {
			a.wire.Abort(cause)
		}
	}
	if f.body != nil {
		f.body.Abort()
	}
}

// leave ends the fetch: nothing of it is under way any more.
func (f *fetch) leave() {
	f.svc.up.life.End(&f.link)
	if f.place {
		f.place = false
		f.svc.limit.Release()
	}
	if f.body != nil {
		f.x.received = f.body.Read()
		f.body.Close()
		f.uploads.Wait()
	}
}

// again decides whether the request is sent once more, and after which wait.
func (f *fetch) again(a *attempt, err *Error, wait time.Duration) (time.Duration, bool) {
	p := f.svc.policy
	f.mu.Lock()
	over := f.committed || f.cutBy != nil
	f.mu.Unlock()
	if over || f.client.Err() != nil {
		return 0, false
	}
	repeatable, replay := f.x.repeatable(), false
	if err != nil {
		switch err.Reason {
		case ReasonConnect, ReasonUpstreamFailed, ReasonTruncated, ReasonTimeout, ReasonPoolExhausted:
		default:
			return 0, false
		}
		if f.slow {
			return 0, false // a client that is slow is no reason for another attempt
		}
		repeatable = repeatable || a.unsent
		replay = a.left && f.purse.Replay()
		if replay || f.another() {
			wait = 0
		}
	} else if f.another() {
		wait = 0 // which knows nothing of this one's trouble
	} else if after, ok := retry.RetryAfter(a.head, time.Now()); ok {
		if after > p.maxRetryAfter {
			return 0, false
		}
		wait = max(wait, after)
	}
	if !repeatable || f.body != nil && (!f.body.Repeatable() || f.body.Err() != nil) {
		return 0, false
	}
	if !f.deadline.IsZero() && time.Until(f.deadline) <= wait {
		return 0, false
	}
	if !replay && !f.purse.Take() {
		return 0, false
	}
	if a.upload != nil {
		_ = a.upload.Close() // from here on it reads nothing that the next attempt would miss
		if !f.body.Repeatable() {
			return 0, false
		}
	}
	return wait, true
}

// repeatable reports whether the request may be sent again though its service may
// have seen it.
func (x *exchange) repeatable() bool { return retry.Repeatable(x.r.Method) && x.upgrade == "" }

// retryCauses are all for which a request may be sent again.
var retryCauses = [...]string{
	string(ReasonConnect), string(ReasonUpstreamFailed), string(ReasonTruncated), string(ReasonTimeout), string(ReasonPoolExhausted), "502", "503", "504",
}

// retryCause says which of them a's end is.
func retryCause(a *attempt, err *Error) int {
	cause := strconv.Itoa(a.status)
	if err != nil {
		cause = string(err.Reason)
	}
	return max(slices.Index(retryCauses[:], cause), 0)
}

// another reports whether an endpoint is left that was not tried.
func (f *fetch) another() bool { return len(f.tried) < len(f.svc.set.All()) }

// sleep waits before the next attempt, until the client leaves or the fetch is
// cut.
func (f *fetch) sleep(wait time.Duration) *Error {
	f.x.reached(stageBackoff)
	f.mu.Lock()
	if f.wake == nil && f.cutBy == nil {
		f.wake = make(chan struct{})
	}
	wake, cut := f.wake, f.cutBy
	f.mu.Unlock()
	if cut != nil {
		return fault(ReasonShuttingDown, cut)
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-wake:
		return fault(ReasonShuttingDown, work.ErrShutdown)
	case <-f.client.Done():
		return clientGone(f.client)
	}
}

// clientGone says why an inbound request's context has ended: the app set a
// deadline, or the client left.
func clientGone(ctx context.Context) *Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault(ReasonTimeout, ctx.Err())
	}
	return fault(ReasonClientClosed, ctx.Err())
}

// accept takes a as the answer, once the WithModifyResponse hooks have seen it.
func (f *fetch) accept(a *attempt) *Error {
	f.x.reachedAt(stageBody, a.start.Add(a.head1))
	if len(f.svc.policy.modify) > 0 && a.status != http.StatusSwitchingProtocols {
		received := a.status
		if err := f.modify(a); err != nil {
			err.received = received
			a.end(err)
			return err
		}
	}
	return nil
}

func (f *fetch) modify(a *attempt) *Error {
	u := f.out.url(a.endpoint.url)
	resp := &http.Response{
		Status: fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)), StatusCode: a.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.head, Body: shown{a}, ContentLength: a.length, Trailer: *a.trailer,
		Request: (&http.Request{Method: f.out.method, URL: &u, Header: f.out.header, Host: f.out.host}).WithContext(a.ctx),
	}
	for _, hook := range f.svc.policy.modify {
		err := f.x.hook("WithModifyResponse", func() error { return hook(resp) })
		if resp.Body != nil && resp.Body != io.ReadCloser(shown{a}) {
			a.content = resp.Body // ours to close from now on
		}
		switch {
		case errors.Is(err, errHookPanic):
			return fault(ReasonPanic, err)
		case err != nil:
			return fault(ReasonHook, err)
		}
	}
	if !forward.ValidStatus(resp.StatusCode) || resp.StatusCode < 200 || resp.Header == nil || resp.Body == nil {
		return fault(ReasonHook, fmt.Errorf("WithModifyResponse: no usable response is left (status %d)", resp.StatusCode))
	}
	if resp.ContentLength != a.length || a.content != nil {
		a.length = resp.ContentLength
		if a.length >= 0 {
			resp.Header.Set("Content-Length", fmt.Sprint(a.length))
		} else {
			resp.Header.Del("Content-Length")
		}
	}
	a.status, a.head = resp.StatusCode, resp.Header
	forward.Normalize(a.head)
	return nil
}

// shown is an answer's content as hooks see it.
type shown struct{ a *attempt }

func (s shown) Read(p []byte) (int, error) { return s.a.wire.Read(p) }

// Close has what was not read be lost.
func (s shown) Close() error {
	s.a.wire.Close()
	return nil
}

// close ends the fetch and its last attempt, and says when that was. err is nil
// if the answer's body came to its end.
func (f *fetch) close(err *Error) (now time.Time) {
	status := 0
	now = time.Now()
	if f.answer != nil {
		status = f.answer.status
		f.answer.endAt(now, err)
	}
	f.lease.Done(f.outcome(err, status), now)
	f.leave()
	return now
}

// outcome says what a fetch, or an attempt, tells about the service (4xx and what
// is the client's doing, or ours: nothing).
func (f *fetch) outcome(err *Error, status int) balance.Outcome {
	if err == nil {
		switch {
		case status >= 500:
			return balance.Failure
		case status >= 400, status == 0:
			return balance.Neutral
		}
		return balance.Success
	}
	switch err.Reason {
	case ReasonTimeout:
		if f.slow || errors.Is(err.Err, h1.EndTimeout) {
			return balance.Neutral
		}
		return balance.Failure
	case ReasonConnect, ReasonUpstreamFailed, ReasonBadResponse, ReasonInterimOverflow, ReasonTruncated:
		return balance.Failure
	}
	return balance.Neutral
}

// replicaState is an endpoint, and what is known of it.
type replicaState = balance.Endpoint[*endpoint]

// attempt is one request sent to one endpoint, and its answer.
type attempt struct {
	fetch    *fetch
	at       *replicaState
	endpoint *endpoint // at's
	start    time.Time
	head1    time.Duration   // from start to the response's header
	ctx      context.Context // with the attempt's span
	span     telemetry.Client
	header   http.Header   // of the request
	upload   io.ReadCloser // its content; nil: none
	trailing http.Header   // what follows the content

	wire wire        // what it goes over: own, or a round tripper's
	own  h1.Exchange // on a connection of ours

	// The answer, filled in by the sender.
	status  int
	head    http.Header
	length  int64         // of the content; negative: unknown
	framed  bool          // the end of the content is proven by its framing
	trailer *http.Header  // filled at the content's end; what is announced has keys before
	read    int64         // of the content, so far
	content io.ReadCloser // what a hook has put in the content's place; nil: nothing
	buf     *[64 << 10]byte

	unsent       bool // the upstream cannot have seen any of it
	left         bool // and that because its connection came to its end, which is nobody's fault
	ended        bool
	lost         atomic.Bool // another was faster
	interim      int
	interimBytes int
}

// wire is an exchange with an upstream, from its sending on.
type wire interface {
	io.Reader                     // of the content
	Next() ([]byte, error)        // the content's next piece, valid until the next call
	More() error                  // waits for one
	Whole() bool                  // all of the content is there
	Follow(context.Context)       // whose end ends the exchange from here on
	Abort(cause error)            // ends what is under way, from any goroutine
	Close()                       // what was not read is lost
	Surplus() bool                // more has come than the response
	OnSurplus(func())             // called where more comes later
	Switched() io.ReadWriteCloser // the connection after a 101
}

// headDue returns when an attempt that starts now has to have the response's
// header.
func (f *fetch) headDue(start time.Time) time.Time {
	if limit := f.svc.policy.attemptTimeout; limit > 0 {
		if due := start.Add(limit); f.deadline.IsZero() || due.Before(f.deadline) {
			return due
		}
	}
	return f.deadline
}

// exchange sends over a connection of ours.
func (e *endpoint) exchange(a *attempt) error {
	f, x := a.fetch, &a.own
	p, out := f.svc.policy, &f.out
	x.Context, x.Method, x.Path, x.Query, x.ForceQuery, x.Host = f.watched, out.method, out.path, out.query, out.force, out.host
	x.Fields, x.Length, x.Trailer, x.Uploads = a.header, out.length, a.trailing, &f.uploads
	if a.upload != nil {
		x.Body = a.upload
	}
	x.Start, x.Head, x.Response, x.Idle, x.End = a.start, f.headDue(a.start), p.responseHeaderTimeout, p.bodyIdleTimeout, f.end
	x.Observer = a
	if f.detached {
		x.Others = &f.awaited
	}
	if !f.hedged && (f.x.mark.on || f.x.laps.On()) { // of two that race, neither speaks for the request
		x.Progress = a
	}
	err := e.client.Do(x)
	a.span.Peer(x.Peer)
	if err != nil {
		broken, ok := errors.AsType[*h1.BrokenError](err)
		a.unsent = ok && broken.Unsent || isError[*h1.DialError](err)
		return err
	}
	a.head1 = x.Answered.Sub(a.start)
	a.status, a.head, a.length, a.framed, a.trailer = x.Status, x.Header, x.ContentLength, x.Framed, &x.Trailers
	a.span.Head(x.Status, protocol(x.Minor))
	return nil
}

// Reached notes how far the sending has come.
func (a *attempt) Reached(step h1.Step) {
	a.fetch.x.reached([...]stage{h1.StepPool: stagePool, h1.StepDial: stageConnect, h1.StepAnswer: stageHeader}[step])
}

func protocol(minor int) string {
	if minor == 0 {
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}

// errNoContent is a content that broke off before its first byte.
var errNoContent = errors.New("the response broke off before its content")

// await waits for the first piece of a content that has a length: as long as
// the client has received nothing, another attempt may answer. A content that
// comes while the upload goes on may depend on it.
func (a *attempt) await() error {
	f := a.fetch
	if a.length <= 0 || bodyless(f.out.method, a.status) || forward.IsEventStream(a.head) || f.body != nil && !f.body.Done() {
		return nil
	}
	if err := a.wire.More(); err != nil {
		return fmt.Errorf("%w: %w", errNoContent, err)
	}
	return nil
}

// whole reports whether all of the content is there to be read.
func (a *attempt) whole() bool { return a.content == nil && a.length >= 0 && a.wire.Whole() }

// Next returns the next piece of the content, as wire does.
func (a *attempt) Next() (piece []byte, err error) {
	if a.content == nil {
		piece, err = a.wire.Next()
		return piece, a.meter(len(piece), err)
	}
	if a.buf == nil {
		a.buf = forward.GetBuffer()
	}
	n, err := a.fits(a.content.Read(a.buf[:]))
	return a.buf[:n], a.meter(n, err)
}

// Read reads the content. A panic of what hooks or a round tripper have given us
// is an error: the content may be for others than this request.
func (a *attempt) Read(p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			a.fetch.svc.panicked("content", v, debug.Stack())
			n, err = 0, errHookPanic
		}
	}()
	if a.content == nil {
		n, err = a.wire.Read(p)
	} else {
		n, err = a.fits(a.content.Read(p))
	}
	return n, a.meter(n, err)
}

// errMiscount is a content of a hook's that has another length than it was said to have.
var errMiscount = errors.New("WithModifyResponse: Body is not as long as ContentLength says")

// fits cuts off what a hook's content has beyond its length, and fails where it is
// of another.
func (a *attempt) fits(n int, err error) (int, error) {
	left := a.length - a.read
	switch {
	case a.length < 0:
	case int64(n) > left:
		return int(left), errMiscount
	case err == io.EOF && int64(n) < left: //nolint:errorlint // a reader's regular end
		return n, errMiscount
	}
	return n, err
}

// meter counts what was read, up to what may be.
func (a *attempt) meter(n int, err error) error {
	a.read += int64(n)
	if limit := a.fetch.svc.policy.maxAnswerBytes; limit > 0 && a.read > limit {
		return errTooLong
	}
	return err
}

const (
	errTooLong      = badResponse("the content is too long")
	errLargeHead    = badResponse("the header is too large")
	errOtherUpgrade = badResponse("it switches to a protocol that was not asked for")
)

var errInterimOverflow = errors.New("too many 1xx responses")

// Interim passes an interim response on to the client (RFC 9110 §15.2). From
// then on no other attempt may answer.
func (a *attempt) Interim(code int, h http.Header) error {
	_, bytes := forward.Normalize(h)
	a.interim++
	a.interimBytes += bytes + 32
	if a.interim > maxInterim || a.interimBytes > maxInterimBytes {
		return errInterimOverflow
	}
	f := a.fetch
	if code == http.StatusContinue || f.hedged || !f.x.takesInterim() {
		return nil // the server sends its own 100
	}
	f.mu.Lock()
	f.committed = true
	f.mu.Unlock()
	f.x.relayInterim(code, h)
	return nil
}

// judge refuses an answer that breaks the rules.
func (a *attempt) judge() error {
	fields, bytes := 0, 0
	if a.endpoint.client == nil { // which sees to it by itself
		fields, bytes = forward.Normalize(a.head)
	}
	if a.endpoint.url != a.fetch.svc.target {
		a.moveLinks()
	}
	switch {
	case !forward.ValidStatus(a.status), a.status < 200 && a.status != http.StatusSwitchingProtocols:
		return badResponse(fmt.Sprintf("status %d", a.status))
	case fields > maxResponseFields || bytes > maxResponseHeaderBytes:
		return errLargeHead
	case a.fetch.svc.policy.maxAnswerBytes > 0 && a.length > a.fetch.svc.policy.maxAnswerBytes && !bodyless(a.fetch.out.method, a.status):
		return errTooLong
	case a.status == http.StatusSwitchingProtocols:
		if a.fetch.upgrade == "" || !strings.EqualFold(a.head.Get("Upgrade"), a.fetch.upgrade) {
			return errOtherUpgrade
		}
	case a.status == http.StatusNotModified && !conditional(a.fetch.out.header):
		return badResponse("304 to a request without conditions") // RFC 9110 §15.4.5
	}
	return nil
}

// moveLinks has links to a replica be links to the target, which all else knows.
func (a *attempt) moveLinks() {
	target := a.fetch.svc.target
	for _, name := range [...]string{"Location", "Content-Location"} {
		if v := a.head[name]; len(v) == 1 {
			a.head[name] = []string{forward.Move(v[0], a.endpoint.url, target)}
		}
	}
}

// conditional reports whether a 304 can be the answer. To If-Range it is none (RFC
// 9110 §13.1.5).
func conditional(h http.Header) bool {
	return h["If-None-Match"] != nil || h["If-Modified-Since"] != nil || h["If-Match"] != nil || h["If-Unmodified-Since"] != nil
}

// badResponse is what an upstream's answer does wrong.
type badResponse string

func (e badResponse) Error() string { return "the response is not acceptable: " + string(e) }

// ProxyError is the proxy error type (RFC 9209 §2.3).
func (e badResponse) ProxyError() string {
	switch e {
	case errTooLong:
		return "http_response_body_size"
	case errLargeHead:
		return "http_response_header_section_size"
	case errOtherUpgrade:
		return "http_upgrade_failed"
	}
	return "http_protocol_error"
}

// classify says whose fault a failed attempt is.
func (a *attempt) classify(err error) *Error {
	f := a.fetch
	if f.body != nil {
		if bodyErr := f.body.Err(); errors.Is(bodyErr, retry.ErrTooLarge) || isError[*http.MaxBytesError](bodyErr) {
			return fault(ReasonBodyTooLarge, bodyErr)
		} else if errors.Is(bodyErr, os.ErrDeadlineExceeded) && !f.gatherBy.IsZero() && !time.Now().Before(f.gatherBy) {
			f.slow = true
			return fault(ReasonTimeout, bodyErr)
		} else if bodyErr != nil && (f.client.Err() == nil || errors.Is(bodyErr, os.ErrDeadlineExceeded)) { // at which net/http's server ends the context, too
			return fault(ReasonClientBody, bodyErr)
		}
	}
	switch {
	case errors.Is(err, work.ErrShutdown):
		return fault(ReasonShuttingDown, work.ErrShutdown)
	case errors.Is(err, errHookPanic):
		return fault(ReasonPanic, err)
	case errors.Is(err, errInterimOverflow), errors.Is(err, roundtrip.ErrFlooded):
		return fault(ReasonInterimOverflow, errInterimOverflow)
	case errors.Is(err, h1.ErrAcquireTimeout), errors.Is(err, roundtrip.ErrAcquireTimeout):
		return fault(ReasonPoolExhausted, err)
	case timedOut(err):
		if f.body != nil && f.body.Busy() {
			f.slow = true
		}
		return fault(ReasonTimeout, err)
	case f.client.Err() != nil && (!f.detached || errors.Is(err, context.Cause(f.client))):
		return clientGone(f.client)
	case isError[badResponse](err), isError[h1.ProtocolError](err), isError[roundtrip.ProtocolError](err):
		return fault(ReasonBadResponse, err)
	case dialFailed(err):
		return fault(ReasonConnect, err)
	case errors.Is(err, errNoContent):
		return fault(ReasonTruncated, err)
	case errors.Is(err, h1.ErrRequest): // which the upstream has seen nothing of
		return fault(ReasonBadRequest, err)
	}
	return fault(ReasonUpstreamFailed, err)
}

// dialFailed tells a failure to connect, also of a round tripper of the app's.
func dialFailed(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial" || isError[*h1.DialError](err)
}

func timedOut(err error) bool {
	var e interface{ Timeout() bool }
	return errors.As(err, &e) && e.Timeout()
}

const (
	drainBytes = 64 << 10
	drainTime  = 100 * time.Millisecond
)

// discard drops a failed attempt: a short content is read, so that its
// connection can be used again, a long or slow one is cut off.
func (a *attempt) discard() {
	if !a.ended && a.length >= 0 && a.length <= drainBytes {
		defer time.AfterFunc(drainTime, func() { a.wire.Abort(context.Canceled) }).Stop()
		drain(a.wire)
	}
	a.end(nil)
}

// end closes what the attempt holds and ends its span. err is why it failed,
// if it did.
func (a *attempt) end(err *Error) { a.endAt(time.Now(), err) }

func (a *attempt) endAt(now time.Time, err *Error) {
	if a.ended {
		return
	}
	a.ended = true
	a.letGo()
	if a.buf != nil {
		forward.PutBuffer(a.buf)
		a.buf = nil
	}
	errorType := ""
	outcome, took := a.fetch.outcome(err, a.status), a.head1
	if a.left {
		outcome = balance.Neutral
	}
	switch {
	case a.lost.Load():
		outcome, took = balance.Lost, now.Sub(a.start)
	case err != nil && err.Status != statusClientClosed:
		errorType = string(err.Reason)
	}
	if c := a.at.End(outcome, took, now); c.Cause != balance.Unchanged {
		a.fetch.svc.up.replicaChanged(a.endpoint, c)
	}
	a.span.End(errorType, now.Sub(a.start))
}

// letGo closes what the attempt holds. A panic of what the app has given us is
// logged and no more: by now it is nobody's answer.
func (a *attempt) letGo() {
	defer a.recovered()
	if a.upload != nil {
		defer a.upload.Close()
	}
	defer a.wire.Close()
	if a.content != nil {
		_ = a.content.Close()
	}
}

func (a *attempt) recovered() {
	if v := recover(); v != nil && v != any(http.ErrAbortHandler) {
		a.fetch.svc.panicked("content", v, debug.Stack())
	}
}

// roundTrip sends through net/http's transport or one of the app's.
func (e *endpoint) roundTrip(a *attempt) error {
	f, out := a.fetch, &a.fetch.out
	x := a.wire.(*roundtrip.Exchange)
	x.Context, x.Method, x.URL, x.Host, x.Fields = a.ctx, out.method, out.url(e.url), out.host, a.header
	x.Length, x.Trailer, x.Own = out.length, a.trailing, e.owned != nil
	if a.upload != nil {
		x.Body, x.OnAborted = a.upload, f.unblock
		if f.x.r.ProtoMajor > 1 { // of HTTP/1, the client's whole connection would be lost
			x.Body = interruptible{a.upload, f}
		}
	}
	x.Head, x.Idle, x.End = f.headDue(a.start), f.svc.policy.bodyIdleTimeout, f.end
	x.Observer = a
	err := x.Do(e.roundTripper(f.svc))
	a.span.Peer(x.Peer())
	if err != nil {
		broken, ok := errors.AsType[*roundtrip.BrokenError](err)
		a.unsent, a.left = ok && broken.Unsent || dialFailed(err), ok && broken.Left
		return err
	}
	a.status, a.head, a.length, a.framed, a.trailer = x.Status, x.Header, x.ContentLength, x.Framed, &x.Trailers
	a.span.Head(x.Status, x.Proto)
	return nil
}

// interruptible is a request's content whose Close ends a read under way, for
// which net/http's HTTP/2 client waits before it says that a stream is lost.
type interruptible struct {
	io.ReadCloser
	fetch *fetch
}

func (i interruptible) Close() error {
	err := i.ReadCloser.Close()
	i.fetch.unblock()
	return err
}

// unblock ends a read of the client's content that is under way: the round
// tripper would wait for it.
func (f *fetch) unblock() {
	if f.body.Busy() {
		f.body.Abort()
	}
}

// roundTripper is what svc sends through, where that is none of ours.
func (e *endpoint) roundTripper(svc *service) http.RoundTripper {
	if e.owned == nil && svc.policy.transport != nil { // maybe a later one than e's
		return svc.policy.transport
	}
	return e.rt
}

// ask sends a plain GET, and returns the status of the answer, whose content is
// read while it is short.
func (e *endpoint) ask(ctx context.Context, svc *service) (status int, err error) {
	var w wire
	out := svc.probeRequest()
	due, _ := ctx.Deadline()
	if e.client != nil {
		x := &h1.Exchange{Context: ctx, Method: out.method, Path: out.path, Query: out.query, Host: out.host, Fields: out.header, Head: due, End: due}
		w, err = x, e.client.Do(x)
		status = x.Status
	} else {
		x := &roundtrip.Exchange{Context: ctx, Method: out.method, URL: out.url(e.url), Host: out.host, Fields: out.header, Own: e.owned != nil, Head: due, End: due}
		w, err = x, x.Do(e.roundTripper(svc))
		status = x.Status
	}
	defer w.Close()
	if err == nil {
		err = ctx.Err() // of a round tripper that minds no time
	}
	if err == nil && status >= 200 {
		drain(w)
	}
	return status, err
}

// drain reads a content as long as it is short.
func drain(w wire) {
	for n := 0; n <= drainBytes; {
		piece, err := w.Next()
		if n += len(piece); err != nil {
			return
		}
	}
}
