package work

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

var (
	// ErrFull is what Acquire returns where no more may wait.
	ErrFull = errors.New("queue is full")
	// ErrWaited is what Acquire returns when no place fell free in time.
	ErrWaited = errors.New("waited too long in the queue")
)

// Limit bounds how many run at once. Who finds no free place waits for one, in
// the order of arrival, a bounded time and beside a bounded number of others.
//
// Use NewLimit. A Limit is safe for concurrent use and must not be copied.
type Limit struct {
	places *semaphore.Weighted
	inside atomic.Int64 // who has a place or waits for one: never more than most
	n      int64
	most   int64
	wait   time.Duration
}

// NewLimit returns a limit of n places, at least one, for which up to queue
// more may wait, each for up to wait; if that is not positive, only its context
// bounds how long.
func NewLimit(n, queue int, wait time.Duration) *Limit {
	places := int64(max(n, 1))
	return &Limit{
		places: semaphore.NewWeighted(places),
		n:      places,
		most:   places + min(int64(max(queue, 0)), math.MaxInt64-places),
		wait:   wait,
	}
}

// Acquire takes a place, which the caller gives back with Release. It fails
// with ErrFull at once, with ErrWaited in time, and with the cause of ctx when
// that ends while it waits. A free place is given without a look at ctx.
func (l *Limit) Acquire(ctx context.Context) error {
	if !l.enter() {
		return ErrFull
	}
	if l.places.TryAcquire(1) {
		return nil
	}
	return l.queue(ctx)
}

// TryAcquire takes a place if one is free and nobody waits for it.
func (l *Limit) TryAcquire() bool {
	if !l.enter() {
		return false
	}
	if l.places.TryAcquire(1) {
		return true
	}
	l.inside.Add(-1)
	return false
}

// enter counts the caller, who may be told that the queue is full only while
// it is: an addition that is taken back would turn away others for an instant.
func (l *Limit) enter() bool {
	for {
		inside := l.inside.Load()
		if inside >= l.most {
			return false
		}
		if l.inside.CompareAndSwap(inside, inside+1) {
			return true
		}
	}
}

// queue waits for a place.
func (l *Limit) queue(ctx context.Context) error {
	if l.wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, l.wait, ErrWaited)
		defer cancel()
	}
	if err := l.places.Acquire(ctx, 1); err != nil {
		l.inside.Add(-1)
		return context.Cause(ctx)
	}
	return nil
}

// Release gives a place back, to whoever waits longest. A Release without its
// Acquire panics: more than the limit would run.
func (l *Limit) Release() {
	l.places.Release(1)
	l.inside.Add(-1) // now, so that whom it lets in finds the place free
}

// Stats returns how many have a place and how many wait for one.
func (l *Limit) Stats() (inUse, waiting int) {
	inside := l.inside.Load()
	taken := min(inside, l.n)
	return int(taken), int(inside - taken)
}
