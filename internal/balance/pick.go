package balance

import (
	"math"
	"math/bits"
	"slices"
	"time"
)

// Pick returns the endpoint for an attempt, none of tried while another is left, and a fit one rather than one that
// is not. It returns nil only if the set is empty. Rendezvous picks by hash, whose bits should be well mixed; the
// other policies ignore it. Pick allocates nothing.
func (s *Set[T]) Pick(hash uint64, tried []*Endpoint[T], now time.Time) *Endpoint[T] {
	v := s.view.Load()
	switch len(v.all) {
	case 0:
		return nil
	case 1:
		return v.all[0]
	}
	f := s.filter(v, tried, now)
	e := s.pick(v, hash, f)
	if e == nil && len(tried) > 0 {
		f.tried = nil
		e = s.pick(v, hash, f)
	}
	return e
}

func (s *Set[T]) filter(v *view[T], tried []*Endpoint[T], now time.Time) filter[T] {
	f := filter[T]{at: s.instant(now), tried: tried}
	f.any = s.suspect.Load() == 0 || s.panics(v, f.at)
	return f
}

// An Outlook is what Pick would make of the endpoints for a first attempt.
type Outlook[T any] struct {
	Endpoints []Prospect[T]
	// All is why those are candidates that are not fit; empty: there are none of those.
	All string
	// Chosen is who would be picked, where that is certain; nil: it is not.
	Chosen *Endpoint[T]
}

// A Prospect is what Pick would make of one endpoint.
type Prospect[T any] struct {
	*Endpoint[T]
	Out string // why it is not a candidate; empty: it is one
	Due bool   // it is ejected, and its time is over: it would be picked for its trial
}

// Outlook returns what Pick would make of the endpoints, and changes nothing. With hashed, hash is what rendezvous goes
// by.
func (s *Set[T]) Outlook(hash uint64, hashed bool, now time.Time) (o Outlook[T]) {
	v := s.view.Load()
	f := s.filter(v, nil, now)
	candidates := 0
	for _, e := range v.all {
		p := Prospect[T]{Endpoint: e, Out: f.reason(e)}
		if p.Out == "" {
			candidates++
			p.Due = !f.any && e.until.Load() != 0
		}
		o.Endpoints = append(o.Endpoints, p)
	}
	switch {
	case f.any && s.suspect.Load() > 0:
		o.All = "too few are fit"
	case candidates == 0:
		o.All, f.any = "none is fit", true
	}
	if len(v.all) == 1 {
		o.All = ""
		if o.Endpoints[0].Out != "" || o.Endpoints[0].suspect() {
			o.All = "it is the only one"
		}
	}
	if o.All != "" {
		for i := range o.Endpoints {
			o.Endpoints[i].Out = ""
		}
	}
	switch {
	case len(v.all) == 1:
		o.Chosen = v.all[0]
	case candidates == 1 && !f.any:
		for i := range o.Endpoints {
			if o.Endpoints[i].Out == "" {
				o.Chosen = o.Endpoints[i].Endpoint
			}
		}
	case s.config.Load().Policy == Rendezvous && hashed:
		o.Chosen = v.highest(hash, &f)
	}
	return o
}

// panics reports whether too few endpoints are fit to be left alone with the load.
func (s *Set[T]) panics(v *view[T], at instant) bool {
	least := s.config.Load().Panic * float64(len(v.all))
	if float64(len(v.all))-float64(s.suspect.Load()) >= least {
		return false // without a look at each
	}
	return float64(v.fit(at)) < least
}

// A filter says which endpoints a pick may return.
type filter[T any] struct {
	at    instant
	tried []*Endpoint[T]
	any   bool // fit or not
}

func (f *filter[T]) admits(e *Endpoint[T]) bool {
	return (f.any || e.available(f.at)) && !slices.Contains(f.tried, e)
}

// reason says why e is not admitted to a first attempt; empty: it is.
func (f *filter[T]) reason(e *Endpoint[T]) string {
	switch {
	case f.admits(e):
		return ""
	case e.down.Load():
		return "unhealthy"
	case !e.fit(f.at):
		return "ejected"
	}
	return "on trial" // another attempt is
}

// pick returns an endpoint that has not been tried, one that is available if possible.
func (s *Set[T]) pick(v *view[T], hash uint64, f filter[T]) *Endpoint[T] {
	for !f.any {
		e := s.choose(v, hash, &f)
		if e == nil {
			f.any = true
		} else if e.until.Load() == 0 || e.try(f.at) {
			return e
		} // else another pick has taken the trial, and e is not available any more
	}
	return s.choose(v, hash, &f)
}

func (s *Set[T]) choose(v *view[T], hash uint64, f *filter[T]) *Endpoint[T] {
	switch s.config.Load().Policy {
	case RoundRobin:
		return s.next(v, f)
	case Rendezvous:
		return v.highest(hash, f)
	default:
		return s.lighter(v, f)
	}
}

// By less than a tenth nobody is better than another. That leaves the choice to the first draw, which follows the
// weights, and has an idle endpoint tried again whose cost has all but faded into another's.
const noise = 0.9

// lighter draws two endpoints by weight and returns the one with the lower product of load and cost. Load is one for
// the attempt that is about to come, and those in flight for each part of weight: were the one divided by the weight
// as well, a light endpoint would get nothing at all as long as little is in flight.
func (s *Set[T]) lighter(v *view[T], f *filter[T]) *Endpoint[T] {
	i := s.draw(v, f, -1)
	if i < 0 {
		return nil
	}
	a := v.all[i]
	j := s.draw(v, f, i)
	if j < 0 {
		return a
	}
	b := v.all[j]
	if !f.any { // one attempt decides about a trial: it has precedence
		if a.until.Load() != 0 {
			return a
		} else if b.until.Load() != 0 {
			return b
		}
	}
	costA, costB := costs(&a.average, &b.average, f.at)
	if costB*b.load(v.mean, f.at) < noise*costA*a.load(v.mean, f.at) {
		return b
	}
	return a
}

func (e *Endpoint[T]) load(mean float64, at instant) float64 {
	return 1 + float64(max(e.inFlight.Load(), 0))*mean/e.effective(at)
}

// draw returns the index of an endpoint at random, by weight, but not skip; -1 if there is none. One that starts slowly
// is often no rival of skip: where it is the only one left, or the fast one, it would get all.
func (s *Set[T]) draw(v *view[T], f *filter[T], skip int) int {
	for range 4 { // as a rule the first fits; else this keeps the look at each away
		i := v.at(s.random(), skip)
		e := v.all[i]
		if !f.admits(e) {
			continue
		}
		if s.called(e, f.at) {
			return i
		} else if skip >= 0 {
			return -1
		}
	}
	var sum float64
	for i, e := range v.all {
		if i != skip && f.admits(e) {
			sum += e.effective(f.at)
		}
	}
	left, last := unit(s.random())*sum, -1
	for i, e := range v.all {
		if i != skip && f.admits(e) {
			last, left = i, left-e.effective(f.at)
			if left < 0 {
				break
			}
		}
	}
	if skip >= 0 && last >= 0 && !s.called(v.all[last], f.at) {
		return -1
	}
	return last
}

// called reports whether e is to be asked, as far as its slow start goes.
func (s *Set[T]) called(e *Endpoint[T], at instant) bool {
	share := e.warmth(at)
	return share == 1 || unit(s.random()) < share
}

// at returns the index where random falls if the weights of all but skip lie side by side.
func (v *view[T]) at(random uint64, skip int) int {
	whole := v.sums[len(v.sums)-1]
	if skip < 0 {
		point, _ := bits.Mul64(random, whole)
		return v.over(point)
	}
	var before uint64
	if skip > 0 {
		before = v.sums[skip-1]
	}
	weight := v.sums[skip] - before
	point, _ := bits.Mul64(random, whole-weight)
	if point >= before {
		point += weight
	}
	return v.over(point)
}

// over returns the index of the first sum above point.
func (v *view[T]) over(point uint64) int {
	i, _ := slices.BinarySearch(v.sums, point+1)
	return i
}

// next gives every endpoint a credit of its weight; who has most pays for all.
func (s *Set[T]) next(v *view[T], f *filter[T]) (best *Endpoint[T]) {
	var sum float64
	s.turns.Lock()
	defer s.turns.Unlock()
	for _, e := range v.all {
		if !f.admits(e) {
			continue
		}
		weight := e.effective(f.at)
		e.turn += weight
		sum += weight
		if best == nil || e.turn > best.turn {
			best = e
		}
	}
	if best != nil {
		best.turn -= sum
	}
	return best
}

// highest gives every endpoint a score that only it and the hash decide. Over all hashes the scores are distributed
// so that each endpoint is highest as often as its weight demands.
func (v *view[T]) highest(hash uint64, f *filter[T]) (best *Endpoint[T]) {
	var most float64
	for _, e := range v.all {
		if !f.admits(e) {
			continue
		}
		if score := -e.effective(f.at) / math.Log(unit(mix(hash^e.seed))); best == nil || score > most {
			best, most = e, score
		}
	}
	return best
}

// unit maps a random word to a number between 0 and 1, never either.
func unit(random uint64) float64 { return (float64(random>>12) + 0.5) / (1 << 52) }

// mix makes every bit of the result depend on every bit of x (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// hashKey is FNV-1a, mixed. It has no seed of the process: all gateways send one hash to the same endpoint.
func hashKey(key string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 0x100000001b3
	}
	return mix(h)
}
