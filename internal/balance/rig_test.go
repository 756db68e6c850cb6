package balance

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// newTestSet returns a set with a known sequence of random numbers and an endpoint of weight 1 for each key.
func newTestSet(c Config, now time.Time, keys ...string) *Set[int] {
	s := New[int](c)
	s.random = rand.New(rand.NewPCG(1, 2)).Uint64
	s.Replace(specsOf(keys...), now)
	return s
}

func specsOf(keys ...string) (specs []Spec[int]) {
	for _, key := range keys {
		specs = append(specs, Spec[int]{Key: key})
	}
	return specs
}

func attempt[T any](e *Endpoint[T], o Outcome, latency time.Duration, now time.Time) (changed bool) {
	e.Begin()
	return e.End(o, latency, now).Cause != Unchanged
}

func attempts[T any](e *Endpoint[T], n int, o Outcome, latency time.Duration, now time.Time) (changes int) {
	for range n {
		if attempt(e, o, latency, now) {
			changes++
		}
	}
	return changes
}

// simulation is a service under load, on a clock of its own.
type simulation struct {
	set     *Set[int]
	now     time.Time
	random  *rand.Rand
	running ends

	picked, failed map[string]int
}

type ending struct {
	at      time.Time
	e       *Endpoint[int]
	outcome Outcome
	latency time.Duration
}

type ends []ending

func (h ends) Len() int           { return len(h) }
func (h ends) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h ends) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *ends) Push(x any)        { *h = append(*h, x.(ending)) }
func (h *ends) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func simulate(c Config, keys ...string) *simulation {
	now := time.Now()
	return &simulation{set: newTestSet(c, now, keys...), now: now, random: rand.New(rand.NewPCG(3, 4))}
}

// run sends perSecond requests at random times and counts anew whom they met.
func (s *simulation) run(d time.Duration, perSecond float64, answer func(key string) (Outcome, time.Duration)) {
	s.picked, s.failed = map[string]int{}, map[string]int{}
	for end := s.now.Add(d); s.now.Before(end); {
		next := s.now.Add(time.Duration(s.random.ExpFloat64() / perSecond * float64(time.Second)))
		for len(s.running) > 0 && s.running[0].at.Before(next) {
			x := heap.Pop(&s.running).(ending)
			x.e.End(x.outcome, x.latency, x.at)
		}
		s.now = next
		e := s.set.Pick(s.random.Uint64(), nil, s.now)
		e.Begin()
		outcome, latency := answer(e.Key)
		s.picked[e.Key]++
		if outcome == Failure {
			s.failed[e.Key]++
		}
		heap.Push(&s.running, ending{s.now.Add(latency), e, outcome, latency})
	}
}

func (s *simulation) share(key string) float64 {
	var sum int
	for _, n := range s.picked {
		sum += n
	}
	return float64(s.picked[key]) / float64(sum)
}
