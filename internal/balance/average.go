package balance

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// A sample's part in the average fades to 1/e in this time. What is known of an idle endpoint fades likewise.
	fade = 10 * time.Second
	// At high rates an average is of some 32 samples, lest a change takes seconds to show.
	leastPart = 1.0 / 32
	// More than this share of failures makes an endpoint no worse, that it is tried again some day.
	worstShare = 15.0 / 16
)

// average is an endpoint's latency and its share of failures, both weighted by age. The endpoint's lock orders writes;
// picks read without it, and may see values of two samples.
type average struct {
	latency atomic.Uint64 // nanoseconds, bits of a float64; 0 while unknown
	share   atomic.Uint64 // of failures, bits of a float64
	at      atomic.Int64  // the last sample
}

func (a *average) load() (latency, share float64) {
	return math.Float64frombits(a.latency.Load()), math.Float64frombits(a.share.Load())
}

// add counts a sample: 0 failures or 1.
func (a *average) add(latency, failures float64, at instant) {
	before, share := a.load()
	part := a.part(at)
	latency = max(latency, 1)
	if before != 0 {
		latency = before + (latency-before)*part
	}
	a.latency.Store(math.Float64bits(latency))
	a.share.Store(math.Float64bits(share + (failures-share)*part))
	a.touch(at)
}

// blame counts a failure that tells nothing about latency.
func (a *average) blame(at instant) {
	_, share := a.load()
	a.share.Store(math.Float64bits(share + (1-share)*a.part(at)))
	a.touch(at)
}

// raise counts a latency that is known to be no less than this.
func (a *average) raise(latency float64, at instant) {
	before, _ := a.load()
	if latency <= before {
		return
	}
	if before != 0 {
		latency = before + (latency-before)*a.part(at)
	}
	a.latency.Store(math.Float64bits(latency))
	a.touch(at)
}

// pardon forgets failures.
func (a *average) pardon() { a.share.Store(0) }

// part is how much a sample at that time counts.
func (a *average) part(at instant) float64 {
	if a.idle(at) < leastPart { // 1 - 1/e^x < x
		return leastPart
	}
	return max(1-a.freshness(at), leastPart)
}

// freshness is how much of what is known still holds: 1 at the last sample, falling to 0.
func (a *average) freshness(at instant) float64 { return math.Exp(-a.idle(at)) }

// idle is the time since the last sample, in terms of fade.
func (a *average) idle(at instant) float64 {
	return float64(max(int64(at)-a.at.Load(), 0)) / float64(fade)
}

// touch dates the average. Samples may come out of order.
func (a *average) touch(at instant) {
	if int64(at) > a.at.Load() {
		a.at.Store(int64(at))
	}
}

// costs returns what an attempt costs at a and at b, in time. An unknown latency is taken for the other's, so that
// an endpoint without an answer yet does not get everything. What is known of the dearer one fades into the other's
// cost while it has no samples: sooner or later it is tried again, yet never before one that is known to be better.
func costs(a, b *average, at instant) (costA, costB float64) {
	latencyA, shareA := a.load()
	latencyB, shareB := b.load()
	switch {
	case latencyA == 0 && latencyB == 0:
		latencyA, latencyB = 1, 1
	case latencyA == 0:
		latencyA = latencyB
	case latencyB == 0:
		latencyB = latencyA
	}
	costA, costB = latencyA*effort(shareA), latencyB*effort(shareB)
	switch {
	case costA > costB:
		costA = costB + (costA-costB)*a.freshness(at)
	case costB > costA:
		costB = costA + (costB-costA)*b.freshness(at)
	}
	return costA, costB
}

// effort is by how much a share of failures makes attempts dearer: it takes more of them, and as failures are often
// over at once, the endpoint has fewer in flight than it is sent.
func effort(share float64) float64 {
	succeeds := 1 - min(share, worstShare)
	return 1 / (succeeds * succeeds)
}

// worst returns the highest latency that is known of an endpoint, the older the less.
func (v *view[T]) worst(at instant) (worst float64) {
	for _, e := range v.all {
		if latency, _ := e.average.load(); latency > worst {
			worst = max(worst, latency*e.average.freshness(at))
		}
	}
	return worst
}
