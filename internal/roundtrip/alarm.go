package roundtrip

import (
	"math"
	"sync"
	"time"
)

// never is a due time that does not come.
const never = time.Duration(math.MaxInt64)

// alarm calls a function at a time that may be moved, mostly to later: it looks
// when its timer fires, so that moving costs no more than storing the time.
//
// Begin it with start. It is safe for concurrent use and must not be copied.
type alarm struct {
	origin time.Time
	ring   func()

	mu      sync.Mutex
	timer   *time.Timer
	due     time.Duration // since origin
	fires   time.Duration // when the timer does, since origin
	stopped bool
}

// start has times counted from origin, and ring called, on a goroutine of its
// own, when one has come. It is called once, before set.
func (a *alarm) start(origin time.Time, ring func()) { a.origin, a.ring = origin, ring }

// setAt moves the alarm to t; the zero time silences it.
func (a *alarm) setAt(t time.Time) {
	if t.IsZero() {
		a.set(never)
		return
	}
	a.set(t.Sub(a.origin))
}

// set moves the alarm to a time since origin; never silences it.
func (a *alarm) set(due time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return
	}
	a.due = due
	switch {
	case due == never:
	case a.timer == nil:
		a.fires = due
		a.timer = time.AfterFunc(due-time.Since(a.origin), a.fire)
	case due < a.fires:
		a.fires = due
		a.timer.Reset(due - time.Since(a.origin))
	}
}

// fire rings, or goes back to sleep because the time was moved.
func (a *alarm) fire() {
	if a.sleep() {
		return
	}
	a.ring()
}

func (a *alarm) sleep() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fires = never
	if a.stopped || a.due == never {
		return true
	}
	left := a.due - time.Since(a.origin)
	if left > 0 {
		a.fires = a.due
		a.timer.Reset(left)
	}
	return left > 0
}

// stop silences the alarm for good, unless it is ringing already.
func (a *alarm) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	if a.timer != nil {
		a.timer.Stop()
	}
}
