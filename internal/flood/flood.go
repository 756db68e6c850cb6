// Package flood lets through so many events of a kind a second, and counts the
// others, so that what is told of them tells how many there were.
package flood

import (
	"sync"
	"time"
)

// A Limit is for one kind of events. It is safe for concurrent use. Its zero
// value is ready.
type Limit struct {
	mu      sync.Mutex
	since   time.Time // when the second that is counted began
	passed  int       // in it
	dropped uint64    // since the last one that passed
}

// Admit reports whether an event at now is one of the first most of its second,
// which begins with the first event after the one before. Of one that passes, it
// returns how many did not since the last that did. All pass where most is zero.
func (l *Limit) Admit(now time.Time, most int) (dropped uint64, ok bool) {
	if most <= 0 {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() || now.Sub(l.since) >= time.Second {
		l.since, l.passed = now, 0
	}
	if l.passed >= most {
		l.dropped++
		return 0, false
	}
	l.passed++
	dropped, l.dropped = l.dropped, 0
	return dropped, true
}

// maxKinds bounds a Table: kinds beyond it are one.
const maxKinds = 64

// A Table holds the limits of kinds that have names. It is safe for concurrent
// use. Its zero value is ready.
type Table struct {
	mu     sync.Mutex
	limits map[string]*Limit
}

// Admit is [Limit.Admit] of an event of that kind.
func (t *Table) Admit(kind string, now time.Time, most int) (dropped uint64, ok bool) {
	return t.of(kind).Admit(now, most)
}

func (t *Table) of(kind string) *Limit {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.limits == nil {
		t.limits = make(map[string]*Limit)
	}
	l := t.limits[kind]
	if l == nil && len(t.limits) >= maxKinds {
		kind = ""
		l = t.limits[kind]
	}
	if l == nil {
		l = new(Limit)
		t.limits[kind] = l
	}
	return l
}
