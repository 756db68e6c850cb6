package balance

import (
	"sync"
	"sync/atomic"
	"time"
)

// An Outcome is what became of an attempt at an endpoint, or of a request to a service.
type Outcome int

const (
	// Neutral says nothing about who was asked: the client left, it sent what deserved a 4xx, or we refused. It is the
	// zero value.
	Neutral Outcome = iota
	// Success is an answer.
	Success
	// Failure is no answer, or one that says that the endpoint is in trouble.
	Failure
	// Lost is a hedged attempt that another one outran. The time it was given is the least that it would have taken. A
	// [Breaker] takes it as Neutral.
	Lost
)

// Health is whether an endpoint is fit for attempts.
type Health int

const (
	// Healthy endpoints are picked.
	Healthy Health = iota
	// Ejected endpoints have failed attempts. Once their time is over they are picked for one attempt at a time, until
	// one succeeds.
	Ejected
	// Unhealthy endpoints have failed active checks.
	Unhealthy
)

// String returns "healthy", "ejected" or "unhealthy".
func (h Health) String() string {
	switch h {
	case Ejected:
		return "ejected"
	case Unhealthy:
		return "unhealthy"
	default:
		return "healthy"
	}
}

// Endpoint is one address of a service. A [Set] makes it. It is safe for concurrent use.
type Endpoint[T any] struct {
	Key   string // never changes
	Value T      // never changes

	set  *Set[T]
	seed uint64 // of rendezvous

	// Read by picks.
	weight    atomic.Int64
	inFlight  atomic.Int64
	average   average
	warmSince atomic.Int64 // when slow start began, 0 if it is over
	down      atomic.Bool  // by active checks
	until     atomic.Int64 // when the time of an ejection ends or has ended, 0 if the endpoint is not ejected
	trial     atomic.Int64 // when the attempt that decides about an ejected endpoint is given up

	turn float64 // round robin's; guarded by set.turns
	gone bool    // removed from the set; guarded by set.mu

	ejections atomic.Uint64

	mu       sync.Mutex // orders changes of average, down, until and trial, and guards what follows
	contrary int        // active checks in a row that contradict down
	conduct  conduct
}

func newEndpoint[T any](s *Set[T], spec Spec[T]) *Endpoint[T] {
	e := &Endpoint[T]{Key: spec.Key, set: s, seed: hashKey(spec.Key)}
	if spec.Make != nil {
		e.Value = spec.Make()
	}
	return e
}

// Begin counts an attempt that is about to be made. Each is followed by exactly one [Endpoint.End].
func (e *Endpoint[T]) Begin() { e.inFlight.Add(1) }

// A Cause is why an endpoint was ejected, or taken back.
type Cause int

const (
	// Unchanged is none.
	Unchanged Cause = iota
	// Consecutive is too many failures in a row.
	Consecutive
	// SuccessRate is one that is too far below the others'.
	SuccessRate
	// Trial is the failure of the attempt that an ejected endpoint is given after its time.
	Trial
	// Recovery is the success of that attempt.
	Recovery
)

// String returns "consecutive_failures", "success_rate", "trial", "recovery" or "".
func (c Cause) String() string {
	return [...]string{Consecutive: "consecutive_failures", SuccessRate: "success_rate", Trial: "trial", Recovery: "recovery"}[c]
}

// A Change is what an attempt has made of its endpoint. Its zero value is none.
type Change struct {
	Cause Cause
	For   time.Duration // that the endpoint is going to be out of use; of a recovery: that it was, trials included
}

// End counts an attempt as over and judges it. latency is how long the endpoint took, or was given. It returns whether
// the endpoint was ejected by it, or taken back.
func (e *Endpoint[T]) End(o Outcome, latency time.Duration, now time.Time) Change {
	e.inFlight.Add(-1)
	at := e.set.instant(now)
	switch o {
	case Success:
		return e.succeed(float64(latency), at)
	case Failure:
		return e.fail(float64(latency), at)
	case Lost:
		e.lose(float64(latency), at)
	}
	if e.trial.Load() != 0 {
		e.trial.Store(0) // nothing was decided: somebody else may try
	}
	return Change{}
}

func (e *Endpoint[T]) succeed(latency float64, at instant) (c Change) {
	e.mu.Lock()
	e.average.add(latency, 0, at)
	out := e.conduct.outSince
	if e.readmit(at) {
		c = Change{Recovery, time.Duration(at - out)}
	}
	e.conduct.failures = 0
	if e.set.config.Load().Ejection.SuccessRate > 0 {
		e.conduct.recent.add(at).successes++
	}
	e.mu.Unlock()
	if c.Cause == Recovery {
		e.set.settle()
	}
	return c
}

func (e *Endpoint[T]) fail(latency float64, at instant) Change {
	// An endpoint that fails at once looks fast. What it takes from a client is at least what others would have taken.
	worst := e.set.view.Load().worst(at)
	e.mu.Lock()
	if worst > 0 {
		e.average.add(max(latency, worst), 1, at)
	} else {
		e.average.blame(at)
	}
	blamed := e.blame(at)
	e.mu.Unlock()
	return e.set.judge(e, blamed, at)
}

func (e *Endpoint[T]) lose(latency float64, at instant) {
	if known, _ := e.average.load(); known == 0 { // then this says too little
		latency = max(latency, e.set.view.Load().worst(at))
	} else if latency <= known {
		return
	}
	e.mu.Lock()
	e.average.raise(latency, at)
	e.mu.Unlock()
}

// Status is an endpoint at about one instant.
type Status struct {
	Key       string
	Health    Health
	Fit       bool      // it may have attempts, if only as a trial
	Until     time.Time // when an ejected endpoint is, or was, due for another attempt
	InFlight  int64
	Weight    float64       // effective: less than the nominal one during slow start
	Latency   time.Duration // average of about ten seconds; 0 while unknown
	Failures  float64       // share of attempts, averaged like Latency
	Ejections uint64        // ever
}

// Status returns what is known of the endpoint.
func (e *Endpoint[T]) Status(now time.Time) Status {
	at := e.set.instant(now)
	latency, failures := e.average.load()
	s := Status{
		Key:       e.Key,
		Health:    e.Health(),
		Fit:       e.fit(at),
		InFlight:  e.inFlight.Load(),
		Weight:    e.effective(at),
		Latency:   time.Duration(latency),
		Failures:  failures,
		Ejections: e.ejections.Load(),
	}
	if until := e.until.Load(); until != 0 {
		s.Until = e.set.epoch.Add(time.Duration(until))
	}
	return s
}

// Health returns the state of the endpoint. What active checks say counts more than an ejection.
func (e *Endpoint[T]) Health() Health {
	switch {
	case e.down.Load():
		return Unhealthy
	case e.until.Load() != 0:
		return Ejected
	default:
		return Healthy
	}
}

// suspect reports whether the endpoint is unhealthy or ejected, were it due for a trial.
func (e *Endpoint[T]) suspect() bool { return e.down.Load() || e.until.Load() != 0 }

// fit reports whether the endpoint may have attempts at all.
func (e *Endpoint[T]) fit(at instant) bool { return !e.down.Load() && int64(at) >= e.until.Load() }

// The least share of its weight that an endpoint has during slow start.
const slowest = 0.1

func (e *Endpoint[T]) warmUp(at instant) {
	if e.set.config.Load().SlowStart > 0 {
		e.warmSince.Store(int64(at))
	}
}

// warmth is the share of its weight that the endpoint has.
func (e *Endpoint[T]) warmth(at instant) float64 {
	since := e.warmSince.Load()
	if since == 0 {
		return 1
	}
	whole := e.set.config.Load().SlowStart
	passed := time.Duration(int64(at) - since)
	if passed >= whole {
		e.warmSince.CompareAndSwap(since, 0)
		return 1
	}
	return slowest + (1-slowest)*max(float64(passed)/float64(whole), 0)
}

func (e *Endpoint[T]) effective(at instant) float64 { return float64(e.weight.Load()) * e.warmth(at) }
