package retry

import (
	"sync"
	"sync/atomic"
	"time"
)

// The window over which a Budget counts, in buckets of one second: the second that runs and the nine before it.
const window = 10

// Budget bounds retries to a share of what is fetched, so that an upstream in trouble meets little more than its
// usual load. Over a rolling window of ten seconds it allows max(ratio × fetches, perSecond × 10) retries; perSecond
// lets the retries of a quiet service through. A Budget is safe for concurrent use; make it with [NewBudget].
type Budget struct {
	start time.Time

	// fetches counts by second, in the slot second%window: the second in the upper half of the word, its count in
	// the lower. Counting needs no lock.
	fetches [window]atomic.Uint64

	mu        sync.Mutex
	ratio     float64       // guarded by mu
	floor     float64       // guarded by mu
	retries   [window]tally // guarded by mu, so that two withdrawals never share the last retry
	exhausted uint64        // guarded by mu
}

type tally struct{ second, count uint64 }

// NewBudget returns a budget of ratio × fetches, but at least perSecond retries a second. Zero and negative values
// allow nothing of their kind.
func NewBudget(ratio, perSecond float64) *Budget {
	b := &Budget{start: time.Now()}
	b.Adjust(ratio, perSecond)
	return b
}

// Adjust has the budget be what NewBudget makes of the same, and keeps what was counted.
func (b *Budget) Adjust(ratio, perSecond float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ratio, b.floor = max(ratio, 0), max(perSecond, 0)*window
}

// Fetch counts one fetch.
func (b *Budget) Fetch() {
	now := b.second()
	slot := &b.fetches[now%window]
	for {
		word := slot.Load()
		if word>>32 >= now { // a later second: this goroutine slept between the clock and here
			slot.Add(1)
			return
		}
		if slot.CompareAndSwap(word, now<<32|1) {
			return
		}
	}
}

// Withdraw takes one retry. It reports false when the budget is spent.
func (b *Budget) Withdraw() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.second()
	if float64(b.retried(now)+1) <= b.allowed(now) {
		slot := &b.retries[now%window]
		if slot.second != now {
			*slot = tally{second: now}
		}
		slot.count++
		return true
	}
	b.exhausted++
	return false
}

// Allowed returns how many retries the window has room for, those that were taken included.
func (b *Budget) Allowed() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.allowed(b.second())
	if !(n > 0) { // nor a number
		return 0
	}
	return uint64(min(n, 1<<62))
}

func (b *Budget) allowed(now uint64) float64 { return max(b.ratio*float64(b.fetched(now)), b.floor) }

// Stats returns the fetches and retries of the window, and how many withdrawals were ever refused.
func (b *Budget) Stats() (fetches, retries, exhausted uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.second()
	return b.fetched(now), b.retried(now), b.exhausted
}

// second numbers the running second, from window on: an untouched slot is always an old one.
func (b *Budget) second() uint64 {
	return uint64(time.Since(b.start)/time.Second) + window
}

func (b *Budget) fetched(now uint64) (n uint64) {
	for i := range b.fetches {
		if word := b.fetches[i].Load(); word>>32+window > now {
			n += word & (1<<32 - 1)
		}
	}
	return n
}

func (b *Budget) retried(now uint64) (n uint64) {
	for _, t := range b.retries {
		if t.second+window > now {
			n += t.count
		}
	}
	return n
}
