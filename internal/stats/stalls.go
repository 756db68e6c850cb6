package stats

import (
	"math"
	"runtime/metrics"
	"slices"
	"time"
)

// Stalls says whether this process was itself held up: it compares what the runtime has counted with what it had at the
// last Mark. It is not safe for concurrent use. Use NewStalls.
type Stalls struct {
	now    []metrics.Sample
	before [2][]uint64 // the counts at the mark
}

// NewStalls marks the present.
func NewStalls() *Stalls {
	s := &Stalls{now: []metrics.Sample{{Name: "/sched/latencies:seconds"}, {Name: "/sched/pauses/total/gc:seconds"}}}
	s.Mark()
	return s
}

// Mark begins a new window.
func (s *Stalls) Mark() {
	metrics.Read(s.now)
	for i := range s.now {
		if h := histogramOf(&s.now[i]); h != nil {
			s.before[i] = append(s.before[i][:0], h.Counts...)
		}
	}
}

// Read returns, of the window so far, how long goroutines that could run had to wait until they did (the 99th
// percentile), and the longest time that a garbage collection stopped all of them. Each is the upper end of the
// runtime's bucket.
func (s *Stalls) Read() (scheduler, pause time.Duration) {
	metrics.Read(s.now)
	return s.read(0, 0.99), s.read(1, 1) //nolint:mnd // 99 %
}

func (s *Stalls) read(i int, q float64) time.Duration {
	h := histogramOf(&s.now[i])
	if h == nil {
		return 0
	}
	return since(s.before[i], h.Counts, h.Buckets, q)
}

func histogramOf(s *metrics.Sample) *metrics.Float64Histogram {
	if s.Value.Kind() != metrics.KindFloat64Histogram {
		return nil // a runtime that does not count it
	}
	return s.Value.Float64Histogram()
}

// since returns the q-quantile of what came into buckets, with these bounds in seconds, between two counts; 0 of
// nothing.
func since(before, now []uint64, bounds []float64, q float64) time.Duration {
	if len(before) != len(now) {
		return 0
	}
	var total uint64
	for i := range now {
		total += now[i] - before[i]
	}
	if total == 0 {
		return 0
	}
	rank := max(uint64(math.Ceil(q*float64(total))), 1)
	for i := range now {
		n := now[i] - before[i]
		if n < rank {
			rank -= n
			continue
		}
		upper := bounds[i+1]
		if math.IsInf(upper, 1) {
			upper = bounds[i]
		}
		return time.Duration(max(upper, 0) * float64(time.Second))
	}
	return time.Duration(slices.Max(bounds) * float64(time.Second))
}
