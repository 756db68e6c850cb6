// Package balance chooses an endpoint for each attempt at a service, knows which endpoints are fit for one, and keeps
// requests from a service that fails as a whole.
//
// A [Set] picks among the endpoints of a service. What becomes of the attempts ([Endpoint.End]) and of active checks
// ([Endpoint.Checked]) decides who is picked next. A [Breaker] judges the service by the outcomes of whole requests.
// Nothing here starts a goroutine or reads the clock on its own behalf after construction: every call brings its time.
package balance

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A Policy says how a [Set] picks among the endpoints that are fit.
type Policy int

const (
	// PowerOfTwo draws two endpoints at random, by weight, and takes the one whose attempts in flight will cost less
	// time. It is the zero value.
	PowerOfTwo Policy = iota
	// RoundRobin takes turns: smoothly, so that a heavy endpoint's turns lie apart.
	RoundRobin
	// Rendezvous sends equal hashes to the same endpoint. One that leaves or is unfit moves only its own hashes, one
	// that joins takes only its share. The choice depends on keys and weights alone, so that all processes agree.
	Rendezvous
)

// Config is how a [Set] behaves. Its zero value picks by PowerOfTwo and neither ejects nor panics.
type Config struct {
	Policy Policy

	// SlowStart is how long the weight of an endpoint that has joined others or has recovered grows from a tenth to
	// all of it. Zero and negative give it all at once.
	SlowStart time.Duration

	Ejection Ejection

	// Rise and Fall are how many active checks in a row must differ from an endpoint's state to change it. Values
	// below 1 mean 1.
	Rise, Fall int

	// Panic is the share of fit endpoints below which all are used, for the few that are left would not survive the
	// load of the others. Zero never does so.
	Panic float64
}

// A Spec asks for one endpoint.
type Spec[T any] struct {
	Key    string
	Weight int      // less than 1 means 1; at most math.MaxInt32 counts
	Make   func() T // makes the value of an endpoint that is new; nil leaves it zero
}

// Set is the endpoints of one service. Make it with [New]. It is safe for concurrent use and must not be copied.
type Set[T any] struct {
	config atomic.Pointer[Config]
	epoch  time.Time
	random func() uint64

	view    atomic.Pointer[view[T]]
	suspect atomic.Int64 // how many of the view are unhealthy or ejected, those due for a trial included

	turns sync.Mutex // guards Endpoint.turn

	replacing sync.Mutex // held by Replace, and first
	mu        sync.Mutex // orders changes of the view and of endpoints' states; held before an endpoint's own
}

// A view is what a pick sees. It never changes.
type view[T any] struct {
	all  []*Endpoint[T]
	sums []uint64 // of weights, up to and with each endpoint
	mean float64  // weight
}

// An instant is nanoseconds since an epoch before any event, so that zero is never.
type instant int64

// No duration may be longer, lest an instant and it overflow.
const longest = 1 << 58

func newEpoch() time.Time { return time.Now().Add(-time.Hour) }

func since(epoch, t time.Time) instant { return instant(min(max(t.Sub(epoch), 1), 1<<62)) }

// New returns an empty set.
func New[T any](c Config) *Set[T] {
	s := &Set[T]{epoch: newEpoch(), random: rand.Uint64}
	s.Configure(c)
	s.view.Store(&view[T]{})
	return s
}

// Configure has the set behave as c says from now on. What is known of the endpoints stays; but without ejection
// nobody stays ejected.
func (s *Set[T]) Configure(c Config) {
	c.Rise, c.Fall = max(c.Rise, 1), max(c.Fall, 1)
	j := &c.Ejection
	j.Base, j.MaxShare = min(j.Base, longest), min(j.MaxShare, 1)
	j.Max = min(max(j.Max, j.Base), longest)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.Store(&c)
	if v := s.view.Load(); v != nil && j.Base <= 0 {
		for _, e := range v.all {
			e.pardon()
		}
		s.count()
	}
}

// Replace makes specs the endpoints of the set, and returns who came and who went. An endpoint whose key was there
// before stays what it is, with its value and its state, and takes the new weight; its spec's Make is not called. A
// key that occurs again in specs is ignored. Attempts in flight at removed endpoints go on; whoever owns their values
// ends those. Calls wait for each other: a Make must not call Replace. If one panics nothing has changed.
func (s *Set[T]) Replace(specs []Spec[T], now time.Time) (added, removed []*Endpoint[T]) {
	s.replacing.Lock()
	defer s.replacing.Unlock()

	old := s.view.Load().all
	known := make(map[string]*Endpoint[T], len(old))
	for _, e := range old {
		known[e.Key] = e
	}
	next := &view[T]{all: make([]*Endpoint[T], 0, len(specs)), sums: make([]uint64, 0, len(specs))}
	asked := make(map[string]bool, len(specs))
	var sum uint64
	for _, spec := range specs {
		if asked[spec.Key] {
			continue
		}
		asked[spec.Key] = true
		e := known[spec.Key]
		if e == nil {
			e = newEndpoint(s, spec)
			added = append(added, e)
		}
		sum += uint64(min(max(spec.Weight, 1), math.MaxInt32))
		next.all, next.sums = append(next.all, e), append(next.sums, sum)
	}
	for _, e := range old {
		if !asked[e.Key] {
			removed = append(removed, e)
		}
	}
	if len(next.all) > 0 {
		next.mean = float64(sum) / float64(len(next.all))
	}
	s.publish(next, added, removed, len(removed) < len(old), s.instant(now))
	return added, removed
}

// publish makes next the view. Endpoints that join others start slowly.
func (s *Set[T]) publish(next *view[T], added, removed []*Endpoint[T], join bool, at instant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var before uint64
	for i, e := range next.all {
		e.weight.Store(int64(next.sums[i] - before))
		before = next.sums[i]
	}
	for _, e := range removed {
		e.gone = true
	}
	for _, e := range added {
		e.average.touch(at) // else a first failure would be all that there is
		if join {
			e.warmUp(at)
		}
	}
	s.view.Store(next)
	s.count()
}

// All returns the endpoints, which the caller must not change.
func (s *Set[T]) All() []*Endpoint[T] {
	all := s.view.Load().all
	return all[:len(all):len(all)]
}

// Fit returns how many endpoints are neither unhealthy nor ejected for the time being.
func (s *Set[T]) Fit(now time.Time) int { return s.view.Load().fit(s.instant(now)) }

func (v *view[T]) fit(at instant) (n int) {
	for _, e := range v.all {
		if e.fit(at) {
			n++
		}
	}
	return n
}

// settle counts anew after an endpoint has changed its state.
func (s *Set[T]) settle() {
	s.mu.Lock()
	s.count()
	s.mu.Unlock()
}

// count sets suspect; s.mu is held, so that the last count has seen every change.
func (s *Set[T]) count() {
	var n int64
	for _, e := range s.view.Load().all {
		if e.suspect() {
			n++
		}
	}
	s.suspect.Store(n)
}

func (s *Set[T]) instant(t time.Time) instant { return since(s.epoch, t) }
