// Package work counts requests and tracks tasks, so that a shutdown knows what
// is still running, by name, and when the last of it has ended. It bounds how
// much runs at once: requests by a Limit, jobs by the workers of a Queue.
package work

import (
	"math"
	"sync"
	"sync/atomic"
)

// closed is the sign bit of Gate.state; the other bits count what is inside.
const closed = math.MinInt64

// Gate counts what is inside and, once closed, lets nothing more in. Enter and
// Leave cost one atomic addition each.
//
// The zero value is an open gate. A Gate is safe for concurrent use and must
// not be copied.
type Gate struct {
	state atomic.Int64

	mu   sync.Mutex
	idle chan struct{} // made by the first Idle, or closed when the gate falls idle
	done bool          // idle is closed
}

// Enter reports whether the gate is open. If so, the caller is inside and calls
// Leave exactly once.
func (g *Gate) Enter() bool {
	if g.state.Add(1) > 0 {
		return true
	}
	g.Leave() // the bit was set: take the count back, which may empty the gate
	return false
}

// Leave undoes one Enter that returned true. A Leave without its Enter panics:
// an undercount would end a shutdown while a request is still served.
func (g *Gate) Leave() {
	switch g.state.Add(-1) {
	case closed:
		g.fallIdle()
	case -1, math.MaxInt64:
		panic("work: Leave without Enter")
	}
}

// Close refuses every later Enter. It does not wait and may be called again.
func (g *Gate) Close() {
	if before := g.state.Or(closed); before&^closed == 0 {
		g.fallIdle()
	}
}

// Closed reports whether Close was called.
func (g *Gate) Closed() bool { return g.state.Load() < 0 }

// Inside returns how many are inside. While a closed gate turns somebody away
// it may count them for an instant.
func (g *Gate) Inside() int64 { return g.state.Load() &^ closed }

// Idle returns a channel that is closed once the gate is closed and empty. It
// is the same channel on every call.
func (g *Gate) Idle() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.channel()
}

// fallIdle may run more than once: a closed gate empties again after each
// Enter that it refuses.
func (g *Gate) fallIdle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.done {
		g.done = true
		close(g.channel())
	}
}

// channel returns idle, made if need be; g.mu is held.
func (g *Gate) channel() chan struct{} {
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	return g.idle
}
