package work

import (
	"math"
	"sync"
	"time"
)

// Never is a due time that does not come.
const Never = time.Duration(math.MaxInt64)

// Alarm calls a function at a time that may be moved, mostly to later: it looks
// when its timer fires, so that moving costs no more than storing the time.
//
// Start it with Start. It is safe for concurrent use and must not be copied.
type Alarm struct {
	start time.Time
	ring  func()

	mu    sync.Mutex
	timer *time.Timer
	due   time.Duration // since start
	fires time.Duration // when the timer does, since start
}

// Start has times counted from start, and ring called, on a goroutine of its
// own, when one has come. It is called once, before anything else.
func (a *Alarm) Start(start time.Time, ring func()) { a.start, a.ring = start, ring }

// Set moves the alarm to a time since start; Never silences it.
func (a *Alarm) Set(due time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.due = due
	switch {
	case due == Never:
	case a.timer == nil:
		a.fires = due
		a.timer = time.AfterFunc(due-time.Since(a.start), a.fire)
	case due < a.fires:
		a.fires = due
		a.timer.Reset(due - time.Since(a.start))
	}
}

// fire rings, or goes back to sleep because the time was moved.
func (a *Alarm) fire() {
	if a.sleep() {
		return
	}
	a.ring()
}

func (a *Alarm) sleep() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fires = a.due
	if a.due == Never {
		return true
	}
	left := a.due - time.Since(a.start)
	if left > 0 {
		a.timer.Reset(left)
	}
	return left > 0
}

// Stop silences the alarm for good, unless it is ringing already.
func (a *Alarm) Stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.due = Never
	if a.timer != nil {
		a.timer.Stop()
	}
}
