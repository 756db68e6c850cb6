package stats

import "sync/atomic"

// cacheLine is the widest line of amd64 (whose prefetcher pairs lines of 64) and arm64.
const cacheLine = 128

// Counter counts events. It fills a cache line, so that counters side by side do not slow each other down. The zero
// Counter is ready; it is safe for concurrent use and must not be copied once used.
type Counter struct {
	n atomic.Uint64
	_ [cacheLine - 8]byte
}

// Add counts n events.
func (c *Counter) Add(n uint64) { c.n.Add(n) }

// Load returns the number of events so far.
func (c *Counter) Load() uint64 { return c.n.Load() }
