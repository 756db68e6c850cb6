package h1

import (
	"maps"
	"time"
)

// Stats is what a pool holds at about one instant, and what it did so far. A
// connection is in use also while the pool itself looks at it.
type Stats struct {
	Open    int64 // connections
	Idle    int64
	InUse   int64
	Waiting int64 // callers without a slot

	Dials           uint64 // ended, DialErrors included
	DialErrors      uint64
	Reuses          uint64             // idle connections that were given out
	Waits           uint64             // callers that had to wait for a slot
	WaitTime        time.Duration      // of all who have waited
	AcquireTimeouts uint64             // waits that the pool's own bound ended
	Discards        map[Discard]uint64 // connections closed; the caller's own map
}

// Discard is why a connection was closed.
type Discard string

// The reasons.
const (
	DiscardClosed      Discard = "closed"       // by the upstream, while it was idle
	DiscardSurplus     Discard = "surplus"      // it held bytes that nobody asked for
	DiscardIdle        Discard = "idle"         // for as long as is allowed
	DiscardAge         Discard = "age"          // as old as is allowed
	DiscardError       Discard = "error"        // it broke or was aborted in use
	DiscardNotReusable Discard = "not-reusable" // close was asked for, or content left unread
	DiscardShutdown    Discard = "shutdown"     // the pool is closed
)

func (p *pool) stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.counts
	s.Open, s.Idle = int64(p.open-p.dialing), int64(len(p.idle))
	s.InUse = s.Open - s.Idle
	s.Discards = maps.Clone(s.Discards)
	return s
}
