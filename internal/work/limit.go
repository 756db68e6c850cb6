package work

import (
	linked "container/list"
	"context"
	"errors"
	"math"
	"sync"
	"time"
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
	mu      sync.Mutex
	n       int // places
	queue   int // who may wait
	wait    time.Duration
	used    int         // more than n after a Resize only
	waiting linked.List // of chan struct{}, closed with a place; nobody waits while one is free
}

// NewLimit returns a limit of n places, at least one, for which up to queue
// more may wait, each for up to wait; if that is not positive, only its context
// bounds how long.
func NewLimit(n, queue int, wait time.Duration) *Limit {
	l := new(Limit)
	l.Resize(n, queue, wait)
	return l
}

// Resize has the limit be what NewLimit makes of the same. Who has a place keeps
// it, also beyond n: then nobody gets one until enough are given back. Who waits
// goes on waiting, for as long as it was to.
func (l *Limit) Resize(n, queue int, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n, l.queue, l.wait = max(n, 1), max(queue, 0), wait
	l.admit()
}

// Open has everybody in who comes, and who waits. Places are counted as before.
func (l *Limit) Open() { l.Resize(math.MaxInt, 0, 0) }

// admit gives free places to those who wait longest; mu is held.
func (l *Limit) admit() {
	for l.used < l.n {
		first := l.waiting.Front()
		if first == nil {
			return
		}
		l.used++
		close(l.waiting.Remove(first).(chan struct{})) //nolint:forcetypeassert // there is nothing else in it
	}
}

// Acquire takes a place, which the caller gives back with Release. It fails
// with ErrFull at once, with ErrWaited in time, and with the cause of ctx when
// that ends while it waits. A free place is given without a look at ctx.
func (l *Limit) Acquire(ctx context.Context) error {
	l.mu.Lock()
	if l.used < l.n {
		l.used++
		l.mu.Unlock()
		return nil
	}
	if l.waiting.Len() >= l.queue {
		l.mu.Unlock()
		return ErrFull
	}
	ready := make(chan struct{})
	at, most := l.waiting.PushBack(ready), l.wait
	l.mu.Unlock()
	if most > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, most, ErrWaited)
		defer cancel()
	}
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return l.leave(ctx, at, ready)
	}
}

// leave ends a wait, unless it has ended with a place.
func (l *Limit) leave(ctx context.Context, at *linked.Element, ready chan struct{}) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-ready:
		return nil
	default:
	}
	l.waiting.Remove(at)
	return context.Cause(ctx)
}

// TryAcquire takes a place if one is free.
func (l *Limit) TryAcquire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used >= l.n {
		return false
	}
	l.used++
	return true
}

// Release gives a place back, to whoever waits longest. A Release without its
// Acquire panics: more than the limit would run.
func (l *Limit) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used == 0 {
		panic("work: Release without Acquire")
	}
	l.used--
	l.admit()
}

// Room returns how many places are free, and how many more may wait for one.
func (l *Limit) Room() (free, queue int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.n-l.used, 0), max(l.queue-l.waiting.Len(), 0)
}

// Stats returns how many have a place and how many wait for one.
func (l *Limit) Stats() (inUse, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used, l.waiting.Len()
}
