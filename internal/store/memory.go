package store

import (
	"math"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
)

const (
	watchEvery = 100 * time.Millisecond
	// floor is the part of its budget that a store keeps however scarce memory
	// is.
	floor = 16
)

// pressure is what the store knows of the process's memory.
type pressure struct {
	last atomic.Int64 // when it was read, in Unix nanoseconds

	mu    sync.Mutex // of what follows
	read  func() memory
	cycle uint64 // the collection that was read last
}

// memory is what a process uses of its memory limit. The limit counts garbage,
// too, but that is no reason to shrink: without GOGC the heap always grows to
// the limit. So used is what the last collection left, and what is no heap.
type memory struct {
	used, limit uint64
	cycle       uint64 // counts collections
}

// watchMemory lets the budget shrink and grow with what the process has left of
// its memory limit (GOMEMLIMIT): by one step after each collection, for only
// that shows what the step before has brought. No timer does it, but those who
// store.
func (s *Store[V]) watchMemory(now time.Time) {
	p := &s.pressure
	ns := now.UnixNano()
	if since := ns - p.last.Load(); 0 <= since && since < int64(watchEvery) || !p.mu.TryLock() {
		return
	}
	defer p.mu.Unlock()
	p.last.Store(ns)
	m := p.read()
	if m.limit == math.MaxInt64 {
		s.budget.Store(s.limit)
		return
	}
	if m.cycle == p.cycle {
		return
	}
	p.cycle = m.cycle
	budget := s.budget.Load()
	switch {
	case m.used > m.limit/10*9:
		budget = max(s.limit/floor, budget/4*3)
	case m.used < m.limit/10*8:
		budget = min(s.limit, budget+max(s.limit/floor, 1))
	}
	s.budget.Store(budget)
}

// readMemory returns a function that reads the process's memory; one caller at a
// time.
func readMemory() func() memory {
	samples := []metrics.Sample{
		{Name: "/gc/gomemlimit:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"},
	}
	return func() memory {
		metrics.Read(samples)
		var v [7]uint64
		for i := range samples {
			v[i] = samples[i].Value.Uint64()
		}
		total, released, free, objects, live := v[2], v[3], v[4], v[5], v[6]
		used := total - released - free
		if objects > live {
			used -= objects - live
		}
		return memory{used: used, limit: v[0], cycle: v[1]}
	}
}
