package stats

import (
	"math"
	"math/bits"
	"time"
)

// Snapshot is what a [Histogram] had collected at one moment, or the merger of several. It is a plain value of 8 KiB;
// the zero Snapshot holds nothing.
type Snapshot struct {
	Count uint64
	Sum   time.Duration // at most the longest Duration; Mean is not so limited
	Min   time.Duration
	Max   time.Duration

	sum, carry uint64 // ns, 128 bits
	buckets    [numBuckets]uint64
}

// Add merges o into s, as if both had been recorded by one Histogram.
func (s *Snapshot) Add(o *Snapshot) {
	if o.Count == 0 {
		return
	}
	if s.Count == 0 || o.Min < s.Min {
		s.Min = o.Min
	}
	s.Max = max(s.Max, o.Max)
	s.Count += o.Count
	var carry uint64
	s.sum, carry = bits.Add64(s.sum, o.sum, 0)
	s.carry += o.carry + carry
	s.Sum = saturate(s.carry, s.sum)
	for i, n := range &o.buckets {
		s.buckets[i] += n
	}
}

// subtract leaves in s what came after o, which is of the same Histogram. It does not see to minimum and maximum.
func (s *Snapshot) subtract(o *Snapshot) {
	s.Count -= o.Count
	var borrow uint64
	s.sum, borrow = bits.Sub64(s.sum, o.sum, 0)
	s.carry, borrow = bits.Sub64(s.carry, o.carry, borrow)
	if borrow > 0 { // its lower half was seen after it went round, its upper half before
		s.sum, s.carry = 0, 0
	}
	s.Sum = saturate(s.carry, s.sum)
	for i, n := range &o.buckets {
		s.buckets[i] -= n
	}
}

// bound gives s its minimum and maximum: those of e, where they are of durations that were counted. One that was
// recorded while s was read may be in one of them only; then it is the middle of the bucket.
func (s *Snapshot) bound(e extremes) {
	if s.Count == 0 {
		s.Min, s.Max = 0, 0
		return
	}
	first, last := 0, overflow
	for s.buckets[first] == 0 {
		first++
	}
	for s.buckets[last] == 0 {
		last--
	}
	s.Min, s.Max = time.Duration(^e.least), time.Duration(e.longest) //nolint:gosec // they were Durations
	if s.Min < 0 || bucketOf(uint64(s.Min)) != first {
		s.Min = middleOf(first)
	}
	if bucketOf(e.longest) != last {
		s.Max = middleOf(last)
	}
}

// Mean returns the arithmetic mean, 0 when nothing was recorded.
func (s *Snapshot) Mean() time.Duration {
	if s.Count <= s.carry { // nothing recorded, or nothing that such a sum could be of
		return 0
	}
	mean, _ := bits.Div64(s.carry, s.sum, s.Count)
	return min(max(saturate(0, mean), s.Min), s.Max) // a sum may be ahead of its count
}

// Quantile returns the duration that the share q of all durations does not exceed (nearest rank), 0 when nothing was
// recorded. It is the minimum for q of 0 and less, the maximum for 1 and more. See Histogram for its error.
func (s *Snapshot) Quantile(q float64) time.Duration {
	if !(q > 0) {
		return s.Min
	}
	if q >= 1 {
		return s.Max
	}
	rank := max(uint64(math.Ceil(q*float64(s.Count))), 1)
	var seen uint64
	for i, n := range s.buckets[:overflow] {
		if seen += n; seen >= rank {
			return min(max(middleOf(i), s.Min), s.Max)
		}
	}
	return s.Max
}

// Summary is what is worth showing of a Snapshot.
type Summary struct {
	Count         uint64
	Total         time.Duration // the sum
	Mean          time.Duration
	Min, Max      time.Duration
	P50, P95, P99 time.Duration
}

// Summary returns the summary of s.
func (s *Snapshot) Summary() Summary {
	return Summary{
		Count: s.Count,
		Total: s.Sum,
		Mean:  s.Mean(),
		Min:   s.Min,
		Max:   s.Max,
		P50:   s.Quantile(0.50),
		P95:   s.Quantile(0.95),
		P99:   s.Quantile(0.99),
	}
}

// saturate returns a sum of 128 bits as a Duration, the longest one if it does not fit.
func saturate(hi, lo uint64) time.Duration {
	if hi > 0 || lo > math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(lo)
}
