// Package stats counts events and durations in fixed memory, without locks.
package stats

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// The buckets of a Histogram. Below 2^firstExp ns they are all equally wide; from there on each octave, up to
// 2^lastExp ns (18 minutes), is cut into as many, twice as wide as those of the octave before. The last bucket takes
// what is longer.
const (
	subBits  = 5 // 32 buckets an octave
	firstExp = 10
	lastExp  = 40

	unitBits   = firstExp - subBits // the first buckets are 32 ns wide
	overflow   = (lastExp - firstExp + 1) << subBits
	numBuckets = overflow + 1
)

// Histogram collects durations in log-linear buckets. Count, sum, minimum and maximum are exact. A quantile is the
// middle of the bucket that holds the exact one, so it is off by at most 1/64 (1.6 %) of it, or 16 ns where that is
// more; beyond 18 minutes it is the maximum. A Histogram takes 8 KiB whatever it collects. The zero Histogram is
// ready; it is safe for concurrent use and must not be copied once used.
type Histogram struct {
	sum     atomic.Uint64 // ns; the lower half of a sum of 128 bits
	carry   atomic.Uint64 // its upper half: at 1,000 requests in flight 64 bits last for 213 days
	longest atomic.Uint64 // ns
	least   atomic.Uint64 // ^ns, so that zero is none yet and a shorter one is larger
	buckets [numBuckets]atomic.Uint64
}

// Record adds one duration; a negative one counts as 0.
func (h *Histogram) Record(d time.Duration) {
	ns := uint64(max(d, 0))
	if h.sum.Add(ns) < ns {
		h.carry.Add(1)
	}
	raise(&h.longest, ns)
	raise(&h.least, ^ns)
	h.buckets[bucketOf(ns)].Add(1) // last: what a Snapshot counts is in all the others
}

// Snapshot returns what has been recorded so far. Durations recorded meanwhile may be in the sum, minimum and maximum
// but not yet in the count.
func (h *Histogram) Snapshot() Snapshot {
	var s Snapshot
	h.read(&s)
	if s.Count > 0 {
		s.Min = time.Duration(^h.least.Load())
		s.Max = time.Duration(h.longest.Load())
	}
	return s
}

// read reads all into an empty s but minimum and maximum.
func (h *Histogram) read(s *Snapshot) {
	for i := range h.buckets {
		n := h.buckets[i].Load()
		s.buckets[i] = n
		s.Count += n
	}
	if s.Count > 0 {
		s.sum, s.carry = h.sum.Load(), h.carry.Load()
		s.Sum = saturate(s.carry, s.sum)
	}
}

// take returns minimum and maximum, and begins them anew.
func (h *Histogram) take() extremes { return extremes{h.least.Swap(0), h.longest.Swap(0)} }

// extremes are the shortest and the longest of some durations, as a Histogram has them.
type extremes struct{ least, longest uint64 }

func (e *extremes) add(o extremes) {
	e.least, e.longest = max(e.least, o.least), max(e.longest, o.longest)
}

// raise makes v at least x.
func raise(v *atomic.Uint64, x uint64) {
	for old := v.Load(); old < x; old = v.Load() {
		if v.CompareAndSwap(old, x) {
			return
		}
	}
}

// bucketOf returns the bucket of a duration: its highest bit chooses the octave, the next subBits the place in it.
func bucketOf(ns uint64) int {
	shift := max(bits.Len64(ns), firstExp+1) - 1 - subBits
	return int(min(uint64(shift-unitBits)<<subBits+ns>>shift, overflow))
}

// middleOf returns the middle of a bucket below overflow.
func middleOf(bucket int) time.Duration {
	octave := max(bucket>>subBits, 1) - 1
	shift := octave + unitBits
	return time.Duration((2*(bucket-octave<<subBits) + 1) << shift >> 1)
}
