package balance

import (
	"sync"
	"sync/atomic"
	"time"
)

// State is what a [Breaker] does with requests.
type State int

const (
	// Closed lets all pass, and counts.
	Closed State = iota
	// Open refuses all, for a time.
	Open
	// HalfOpen lets a few probes pass, which decide.
	HalfOpen
)

// String returns "closed", "open" or "half_open".
func (s State) String() string {
	switch s {
	case Open:
		return "open"
	case HalfOpen:
		return "half_open"
	default:
		return "closed"
	}
}

// BreakerConfig is how a [Breaker] behaves.
type BreakerConfig struct {
	// Ratio and Volume open the breaker: of at least Volume requests within Window the share Ratio has failed. The
	// window rolls in tenths. A Ratio above 1 never opens; less than a second of Window means a second.
	Ratio  float64
	Volume int
	Window time.Duration

	// Open is how long the breaker refuses. It doubles with each time that probes have failed since the breaker was
	// last closed, up to Longest. An Open of less than a millisecond means one; a Longest of less than Open means Open.
	Open, Longest time.Duration

	// Probes is how many requests a half-open breaker lets pass, and all of which must succeed to close it. Less than
	// 1 means 1. One that has not reported after Lease is given up, and the next request takes its place; a Lease of
	// zero or less means Open.
	Probes int
	Lease  time.Duration

	// OnChange, if not nil, is told of each change of state, outside of all locks: in order, and one at a time. It runs
	// on the goroutine of a request that changed the state, and may use the breaker.
	OnChange func(from, to State)
}

// Breaker refuses requests to a service most of whose requests fail. Make it with [NewBreaker]. It is safe for
// concurrent use. A closed one takes no lock.
type Breaker struct {
	config atomic.Pointer[BreakerConfig]
	epoch  time.Time

	period atomic.Pointer[period] // set under mu

	mu        sync.Mutex
	again     int      // openings without a closing between them
	opened    uint64   // openings ever
	changes   []change // that OnChange has not been told of
	reporting bool     // a goroutine is telling
}

type change struct{ from, to State }

// A period is the time between two changes of state. Outcomes count for the period that their request began in, so
// that one from an earlier period decides nothing.
type period struct {
	breaker *Breaker
	state   State
	start   instant
	tick    instant // a bucket of the window
	until   instant // of an open one
	window  window  // of a closed one
	probes  []probe // of a half-open one; guarded by Breaker.mu
}

type probe struct {
	ticket  uint32 // of the request that has it
	lent    bool
	passed  bool
	expires instant
}

// A Lease is the right to one request. Its zero value is none. It is not safe for concurrent use.
type Lease struct {
	period *period
	probe  int32
	ticket uint32
}

// NewBreaker returns a closed breaker.
func NewBreaker(c BreakerConfig) *Breaker {
	c.normalize()
	b := &Breaker{epoch: newEpoch()}
	b.config.Store(&c)
	b.period.Store(&period{breaker: b, state: Closed, tick: c.tick()})
	return b
}

// Configure has the breaker go by c from now on. It stays in its state, an open one for the time that it was to, and
// keeps what it has counted, unless the window is another.
func (b *Breaker) Configure(c BreakerConfig) {
	c.normalize()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.config.Store(&c)
	if p := b.period.Load(); p.state == Closed && p.tick != c.tick() {
		b.period.Store(&period{breaker: b, state: Closed, tick: c.tick(), start: b.instant(time.Now())})
	}
}

func (c *BreakerConfig) tick() instant { return instant(c.Window / windowBuckets) }

func (c *BreakerConfig) normalize() {
	c.Volume, c.Probes = max(c.Volume, 1), max(c.Probes, 1)
	c.Window, c.Open = max(c.Window, time.Second), min(max(c.Open, time.Millisecond), longest)
	if c.Lease <= 0 {
		c.Lease = c.Open
	}
	c.Lease = min(c.Lease, longest)
}

// free reports whether a request may have the probe.
func (q *probe) free(at instant) bool { return !q.passed && (!q.lent || at >= q.expires) }

// Admits reports what Allow would, and takes nothing.
func (b *Breaker) Admits(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, at := b.period.Load(), b.instant(now)
	switch p.state {
	case Open:
		return at >= p.until
	case HalfOpen:
		for i := range p.probes {
			if p.probes[i].free(at) {
				return true
			}
		}
		return false
	}
	return true
}

// Allow reports whether a request may be made. If so, the caller tells the lease what became of it.
func (b *Breaker) Allow(now time.Time) (Lease, bool) {
	p := b.period.Load()
	switch {
	case p.state == Closed:
		return Lease{period: p}, true
	case p.state == Open && b.instant(now) < p.until:
		return Lease{}, false
	}
	return b.lend(b.instant(now))
}

// lend gives a probe away, as the first of which an open breaker becomes half-open.
func (b *Breaker) lend(at instant) (Lease, bool) {
	b.mu.Lock()
	defer b.unlock()
	p := b.period.Load()
	if p.state == Closed {
		return Lease{period: p}, true
	}
	if p.state == Open {
		if at < p.until {
			return Lease{}, false
		}
		p = b.enter(&period{state: HalfOpen, start: at, probes: make([]probe, b.config.Load().Probes)})
	}
	for i := range p.probes {
		q := &p.probes[i]
		if !q.free(at) {
			continue
		}
		q.ticket++
		q.lent, q.expires = true, at+instant(b.config.Load().Lease)
		return Lease{period: p, probe: int32(i), ticket: q.ticket}, true
	}
	return Lease{}, false
}

// Done reports the outcome of the request and ends the lease: a second Done does nothing, nor does one of a lease
// from before the last change of state. Neutral and Lost give the place of a probe back and count nothing.
func (l *Lease) Done(o Outcome, now time.Time) {
	p, i, ticket := l.period, l.probe, l.ticket
	*l = Lease{}
	if p == nil {
		return
	}
	b := p.breaker
	if p.state == HalfOpen {
		b.decide(p, i, ticket, o, b.instant(now))
		return
	}
	switch o {
	case Success:
		p.window.total.add(b.ticks(p, b.instant(now)))
	case Failure:
		at := b.instant(now)
		tick := b.ticks(p, at)
		p.window.total.add(tick)
		p.window.failed.add(tick)
		if b.trips(p, tick) {
			b.trip(p, at)
		}
	}
}

// decide counts the outcome of a probe.
func (b *Breaker) decide(p *period, i int32, ticket uint32, o Outcome, at instant) {
	b.mu.Lock()
	defer b.unlock()
	q := &p.probes[i]
	if b.period.Load() != p || q.ticket != ticket {
		return
	}
	switch o {
	case Success:
		q.passed = true
		for i := range p.probes {
			if !p.probes[i].passed {
				return
			}
		}
		b.again = 0
		b.enter(&period{state: Closed, start: at})
	case Failure:
		b.open(at)
	default:
		q.lent = false
	}
}

func (b *Breaker) trips(p *period, tick uint64) bool {
	config := b.config.Load()
	total, failed := p.window.total.sum(tick), p.window.failed.sum(tick)
	return total >= uint64(config.Volume) && float64(failed)/float64(total) >= config.Ratio
}

// trip opens the breaker, unless somebody was faster.
func (b *Breaker) trip(p *period, at instant) {
	b.mu.Lock()
	defer b.unlock()
	if b.period.Load() == p {
		b.open(at)
	}
}

func (b *Breaker) open(at instant) {
	config := b.config.Load()
	d := config.Open
	for range b.again {
		if d >= config.Longest {
			break
		}
		d *= 2
	}
	d = max(min(d, config.Longest), config.Open)
	b.again++
	b.opened++
	b.enter(&period{state: Open, start: at, until: at + instant(d)})
}

// enter begins a period; b.mu is held.
func (b *Breaker) enter(p *period) *period {
	p.breaker = b
	config := b.config.Load()
	p.tick = config.tick()
	if config.OnChange != nil {
		b.changes = append(b.changes, change{b.period.Load().state, p.state})
	}
	b.period.Store(p)
	return p
}

// unlock unlocks mu, and reports what has changed unless that is being done.
func (b *Breaker) unlock() {
	report := len(b.changes) > 0 && !b.reporting
	b.reporting = b.reporting || report
	b.mu.Unlock()
	if report {
		b.report()
	}
}

// report tells OnChange until there is nothing left. Should OnChange panic, the next change goes on with the rest.
func (b *Breaker) report() {
	b.mu.Lock()
	defer func() {
		b.reporting = false
		b.mu.Unlock()
	}()
	for len(b.changes) > 0 {
		next := b.changes[0]
		b.changes = b.changes[1:]
		b.tell(next)
	}
}

// tell calls OnChange without mu, which is held before and after.
func (b *Breaker) tell(c change) {
	b.mu.Unlock()
	defer b.mu.Lock()
	if tell := b.config.Load().OnChange; tell != nil {
		tell(c.from, c.to)
	}
}

// RetryAfter returns how long an open breaker will still refuse, else 0.
func (b *Breaker) RetryAfter(now time.Time) time.Duration {
	if p := b.period.Load(); p.state == Open {
		return time.Duration(max(p.until-b.instant(now), 0))
	}
	return 0
}

// BreakerStatus is what a breaker knows at about one instant.
type BreakerStatus struct {
	State            State  // an open breaker stays so until the first request after its time
	Requests, Failed uint64 // within the window; 0 unless closed
	Opened           uint64 // ever
}

// Status returns what the breaker knows.
func (b *Breaker) Status(now time.Time) BreakerStatus {
	b.mu.Lock()
	p, opened := b.period.Load(), b.opened
	b.mu.Unlock()
	tick := b.ticks(p, b.instant(now))
	return BreakerStatus{
		State:    p.state,
		Requests: p.window.total.sum(tick),
		Failed:   p.window.failed.sum(tick),
		Opened:   opened,
	}
}

func (b *Breaker) instant(t time.Time) instant { return since(b.epoch, t) }

// ticks numbers the bucket that runs, from windowBuckets on: an untouched one is always old.
func (b *Breaker) ticks(p *period, at instant) uint64 {
	return uint64(max(at-p.start, 0)/p.tick) + windowBuckets
}
