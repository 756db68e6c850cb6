package store

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Scope is a number for entries that belong together, such as those of one
// service. Scopes are counted up from 1, as NewScope does: the store keeps a
// little for each number below the highest. 0 is no scope.
type Scope uint16

// scope is a Scope that has a share.
type scope struct {
	id       Scope
	share    atomic.Int64
	bytes    atomic.Int64 // of entries
	reserved atomic.Int64
	full     atomic.Bool // it evicted its own, and uses most of its share yet
}

// over reports whether the scope is above its share; nil never is.
func (sc *scope) over() bool {
	return sc != nil && sc.used() > sc.share.Load()
}

func (sc *scope) used() int64 { return sc.bytes.Load() + sc.reserved.Load() }

type scopes struct {
	mu    sync.Mutex // of writers
	known atomic.Pointer[[]*scope]
	last  Scope   // that NewScope has counted up to
	free  []Scope // of those
}

// get returns nil for a scope that has no share.
func (ss *scopes) get(id Scope) *scope {
	known := ss.known.Load()
	if id == 0 || known == nil || int(id) >= len(*known) {
		return nil
	}
	return (*known)[id]
}

// set gives a scope its share.
func (ss *scopes) set(id Scope, share int64) *scope {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	sc := ss.get(id)
	if sc != nil {
		sc.share.Store(share)
		return sc
	}
	sc = &scope{id: id}
	sc.share.Store(share)
	var next []*scope
	if known := ss.known.Load(); known != nil {
		next = slices.Clone(*known)
	}
	for len(next) <= int(id) {
		next = append(next, nil)
	}
	next[id] = sc
	ss.known.Store(&next)
	return sc
}

// NewScope returns a number that nobody else has.
func (s *Store[V]) NewScope() (id Scope) {
	ss := &s.scopes
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if len(ss.free) > 0 {
		id, ss.free = ss.free[0], ss.free[1:] // of which least is still on its way
		return id
	}
	ss.last++
	return ss.last
}

// FreeScope gives a number of NewScope back, which no entry has any more.
func (s *Store[V]) FreeScope(id Scope) {
	ss := &s.scopes
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.free = append(ss.free, id)
}

// SetShare bounds what the entries and reservations of a scope may use of the
// budget: above it, the scope's own least recently used go. Zero or less lets
// it use nothing, and math.MaxInt64 everything again. What was stored before
// the scope's first SetShare does not count for it. Scope 0 has no share.
func (s *Store[V]) SetShare(id Scope, bytes int64) {
	if id == 0 {
		return
	}
	s.makeRoom(s.now(), s.scopes.set(id, max(bytes, 0)))
}

// Share returns what a scope uses, and how much it may: 0 and 0 if it has no
// share.
func (s *Store[V]) Share(id Scope) (bytes, share int64) {
	if sc := s.scopes.get(id); sc != nil {
		return sc.used(), sc.share.Load()
	}
	return 0, 0
}
