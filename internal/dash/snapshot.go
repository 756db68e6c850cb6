package dash

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Snapshot is what the page is told: everything, but of histories only the
// newest slots where it has had the others.
type Snapshot struct {
	Now      int64     `json:"now"` // Unix ms, as all times
	Started  int64     `json:"started"`
	Draining bool      `json:"draining"`
	Services []Service `json:"services"`
	Caches   []Cache   `json:"caches"`
	Slowest  []Slow    `json:"slowest"`
	Changes  []Change  `json:"changes"` // the newest first
}

// A Service is one service, as it is now.
type Service struct {
	Name     string    `json:"name"`
	InFlight int64     `json:"in_flight"`
	Breaker  string    `json:"breaker"` // "": there is none
	Cached   bool      `json:"cached"`
	Queue    [2]int    `json:"queue"` // in use, waiting
	Replicas []Replica `json:"replicas"`
	History  []Slot    `json:"history"`
}

// A Replica is one of a service's.
type Replica struct {
	Address  string   `json:"address"`
	Health   string   `json:"health"`
	InFlight int64    `json:"in_flight"`
	Micros   int64    `json:"latency_us"`
	Pool     [3]int64 `json:"pool"` // connections in use, idle; requests that wait for one
}

// A Slot is what ended within ten seconds: since when, over how many ms, requests,
// failures, hits, misses, and p50, p95 and p99 in µs.
type Slot [9]int64

// A Cache is what one holds.
type Cache struct {
	Entries   int64  `json:"entries"`
	Bytes     int64  `json:"bytes"`
	MaxBytes  int64  `json:"max_bytes"`
	Hits      uint64 `json:"hits"`
	Misses    uint64 `json:"misses"`
	Evictions uint64 `json:"evictions"`
}

// A Slow is a request that took long.
type Slow struct {
	At      int64  `json:"at"`
	Service string `json:"service"`
	Method  string `json:"method"`
	Path    string `json:"path"` // without the query
	Status  int    `json:"status"`
	Micros  int64  `json:"us"`
	TraceID string `json:"trace"`
}

// A Change is one of a state.
type Change struct {
	At      int64  `json:"at"`
	Service string `json:"service"` // "": all
	What    string `json:"what"`
	Detail  string `json:"detail"`
}

const (
	maxSlowest = 20
	slowestAge = 10 * time.Minute
	maxChanges = 64
)

// Slowest keeps the slowest requests of the last ten minutes, once Start was
// called: those of each minute, so that others are there when the slowest of all
// are too old. It is safe for concurrent use; the zero value is ready.
type Slowest struct {
	least  atomic.Int64 // µs that one has to take; 0: none is kept
	minute atomic.Int64 // that this is about; set after it, read before it

	mu      sync.Mutex
	minutes [slowestAge/time.Minute + 1]slowMinute // by their numbers
}

// slowMinute is what is kept of one minute.
type slowMinute struct {
	number int64
	kept   []Slow // the slowest first
}

func minuteOf(ms int64) int64 { return ms / time.Minute.Milliseconds() }

// Start has requests kept.
func (s *Slowest) Start() { s.least.CompareAndSwap(0, 1) }

// Takes reports whether a request that took so long until at may be among them.
func (s *Slowest) Takes(at time.Time, took time.Duration) bool {
	minute, least := s.minute.Load(), s.least.Load()
	return least > 0 && (took.Microseconds() >= least || minuteOf(at.UnixMilli()) != minute)
}

// Add adds one that Takes takes.
func (s *Slowest) Add(r Slow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	number := minuteOf(r.At)
	m := &s.minutes[uint64(number)%uint64(len(s.minutes))] //nolint:gosec // it only chooses a place
	if m.number != number {
		*m = slowMinute{number: number}
	}
	at, _ := slices.BinarySearchFunc(m.kept, r, bySlowness)
	if at < maxSlowest {
		m.kept = slices.Insert(m.kept, at, r)
	}
	least := int64(1)
	if len(m.kept) >= maxSlowest {
		clear(m.kept[maxSlowest:])
		m.kept = m.kept[:maxSlowest]
		least = m.kept[maxSlowest-1].Micros + 1
	}
	s.least.Store(least)
	s.minute.Store(number)
}

// Read returns them, the slowest first.
func (s *Slowest) Read(now time.Time) []Slow {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []Slow{}
	for i := range s.minutes {
		for _, r := range s.minutes[i].kept {
			if now.UnixMilli()-r.At <= slowestAge.Milliseconds() {
				all = append(all, r)
			}
		}
	}
	slices.SortStableFunc(all, bySlowness)
	return slices.Clip(all[:min(len(all), maxSlowest)])
}

func bySlowness(a, b Slow) int { return cmp.Compare(b.Micros, a.Micros) }

// Changes keeps the latest changes. It is safe for concurrent use; the zero value
// is ready.
type Changes struct {
	mu   sync.Mutex
	kept []Change // the oldest first
}

// Add adds one that is made at this moment.
func (c *Changes) Add(service, what, detail string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) == maxChanges {
		c.kept = slices.Delete(c.kept, 0, 1)
	}
	c.kept = append(c.kept, Change{time.Now().UnixMilli(), service, what, detail})
}

// Read returns them, the newest first.
func (c *Changes) Read() []Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := append([]Change{}, c.kept...)
	slices.Reverse(out)
	return out
}
