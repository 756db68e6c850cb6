package balance

import (
	"math/rand/v2"
	"time"
)

// Checked counts the result of an active check. It reports whether it has made the endpoint healthy or unhealthy:
// that takes Rise or Fall such results in a row, so that one which flaps stays what it is. An endpoint starts out
// healthy. One that has become healthy is free of any ejection, too, which back then tells; a check that changes nothing
// leaves an ejection alone, for it is attempts that failed.
func (e *Endpoint[T]) Checked(ok bool, now time.Time) (changed bool, back Change) {
	at := e.set.instant(now)
	e.mu.Lock()
	changed = e.contradict(ok)
	if changed {
		e.down.Store(!ok)
		if ok {
			if e.until.Load() != 0 {
				back = Change{Recovery, time.Duration(at - e.conduct.outSince)}
			}
			e.restore(at)
		}
	}
	e.mu.Unlock()
	if changed {
		e.set.settle()
	}
	return changed, back
}

// contradict reports whether the result is one too many against the state. e.mu is held.
func (e *Endpoint[T]) contradict(ok bool) bool {
	down, limit := e.down.Load(), e.set.config.Load().Fall
	if down {
		limit = e.set.config.Load().Rise
	}
	if ok != down { // as the state says
		e.contrary = 0
		return false
	}
	e.contrary++
	if e.contrary < limit {
		return false
	}
	e.contrary = 0
	return true
}

// Checks is when to check an endpoint.
type Checks struct {
	Interval time.Duration // between checks of a healthy endpoint
	Fast     time.Duration // between checks of an unhealthy one; 0 and less, or more than Interval: Interval
	Jitter   float64       // the share by which a wait may be shorter or longer, at most 0.9
}

// Next returns how long to wait for the next check. It is never the same for all gateways, so that they do not meet
// at an endpoint, unless Jitter is 0.
func (c Checks) Next(healthy bool) time.Duration {
	wait := c.Interval
	if !healthy && 0 < c.Fast && c.Fast < wait {
		wait = c.Fast
	}
	jitter := 0.0
	if c.Jitter > 0 {
		jitter = min(c.Jitter, 0.9)
	}
	return time.Duration(float64(wait) * (1 + jitter*(2*rand.Float64()-1)))
}
