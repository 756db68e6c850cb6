package retry

import (
	"math"
	"time"

	"github.com/cenkalti/backoff/v4"
)

const (
	multiplier = 2
	jitter     = 0.5 // a wait is the interval ±50 %
)

// Template is a backoff policy from which the waits of each fetch are copied. It is immutable and may be shared. The
// zero Template waits for nothing.
type Template struct {
	exponential backoff.ExponentialBackOff
	longest     time.Duration
}

// NewTemplate returns a policy whose interval starts at initial, doubles with each wait and stays at maxInterval; each
// wait is the interval with up to half of it added or taken away at random, so none is longer than 1.5×maxInterval.
// An initial interval beyond maxInterval starts at maxInterval; zero and negative intervals wait for nothing.
func NewTemplate(initial, maxInterval time.Duration) Template {
	maxInterval = min(max(maxInterval, 0), math.MaxInt64/2) // 1.5 times it still is a Duration
	t := Template{
		exponential: backoff.ExponentialBackOff{
			InitialInterval:     min(max(initial, 0), maxInterval),
			RandomizationFactor: jitter,
			Multiplier:          multiplier,
			MaxInterval:         maxInterval,
			MaxElapsedTime:      0, // the caller's deadline rules
			Stop:                backoff.Stop,
			Clock:               backoff.SystemClock,
		},
		longest: maxInterval + maxInterval/2,
	}
	t.exponential.Reset()
	return t
}

// Start returns the waits of one fetch, from the first interval on. It is cheap, but is needed only once an attempt
// has failed.
func (t *Template) Start() Waits { return Waits{*t} }

// Waits is the series of waits of one fetch. It belongs to one goroutine.
type Waits struct{ t Template }

// Next returns how long to wait before the next attempt.
func (w *Waits) Next() time.Duration {
	if w.t.longest == 0 {
		return 0
	}
	return min(w.t.exponential.NextBackOff(), w.t.longest) // its jitter rounds up by as much as a nanosecond
}
