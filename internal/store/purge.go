package store

import (
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"
)

// purges are the latest purges, for what was being fetched while they ran.
type purges[V any] struct {
	last atomic.Uint64 // how many there were

	mu   sync.Mutex
	ring [maxPurges]func(key string, v V) bool
}

const maxPurges = 64

// DeleteFunc deletes the entries that match, and returns how many. It holds a
// lock for a few of them at a time, so that others find theirs meanwhile; what
// is stored meanwhile may stay. match runs under the lock: it is quick and does
// not call the store.
func (s *Store[V]) DeleteFunc(match func(key string, v V) bool) (n int) {
	return s.scan(func(sh *shard[V], id uint32) bool {
		e := sh.at(id)
		if !match(e.key, e.value) {
			return false
		}
		s.remove(sh, maphash.String(s.seed, e.key), id)
		return true
	})
}

// Purge is DeleteFunc also for what is stored meanwhile, and for what is being
// fetched: UpdateSince stores nothing that match matches and that was begun
// before, and nothing at all once 64 more purges went by. So match may also run
// later, and at once with itself.
func (s *Store[V]) Purge(match func(key string, v V) bool) (n int) {
	s.remember(match)
	return s.DeleteFunc(match)
}

// Replace is a Purge that keeps what it matches in another form: for each entry,
// f returns what to put in its place, of the same size, and whether to. What is
// being fetched and would be replaced is not stored.
func (s *Store[V]) Replace(f func(key string, v V) (V, bool)) (n int) {
	s.remember(func(key string, v V) bool {
		_, ok := f(key, v)
		return ok
	})
	return s.scan(func(sh *shard[V], id uint32) bool {
		e := sh.at(id)
		v, ok := f(e.key, e.value)
		if ok {
			s.setValue(e, v)
		}
		return ok
	})
}

// setValue gives an entry another value, at its place in the order of use; the
// shard's lock is held.
func (s *Store[V]) setValue(e *slot[V], v V) {
	old := e.node
	s.front.hide(maphash.String(s.seed, old.key), old)
	e.node = &node[V]{key: old.key, value: v}
	e.used.Store(old.used.Load())
}

// remember is done before the scan: what is stored before it is found by that.
func (s *Store[V]) remember(match func(key string, v V) bool) {
	p := &s.purges
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.last.Load()
	p.ring[last%maxPurges] = match
	p.last.Store(last + 1)
}

// purged reports whether a purge since then matches, or may have.
func (s *Store[V]) purged(since uint64, key string, v V) bool {
	p := &s.purges
	p.mu.Lock()
	last := p.last.Load()
	ring := p.ring
	p.mu.Unlock()
	if last-since > maxPurges {
		return true
	}
	for ; since < last; since++ {
		if ring[since%maxPurges](key, v) {
			return true
		}
	}
	return false
}

// scan calls f for the slot of every entry, under the lock of its shard, and
// counts how often f returned true.
func (s *Store[V]) scan(f func(sh *shard[V], id uint32) bool) (n int) {
	for i := range s.shards {
		sh := &s.shards[i]
		for at := (cursor{}); !at.end; {
			n += sh.scanChunk(&at, f)
			runtime.Gosched() // or those who wait would hardly get the lock
		}
	}
	return n
}

// cursor is how far a scan came in a shard.
type cursor struct {
	generation, chunk int
	end               bool
}

// scanChunk scans one chunk of slots and moves the cursor.
func (sh *shard[V]) scanChunk(at *cursor, f func(sh *shard[V], id uint32) bool) (n int) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.generation != at.generation { // these are other slots
		*at = cursor{generation: sh.generation}
	}
	first := uint32(at.chunk)*chunkLen + 1
	for id := first; id < first+chunkLen && id <= sh.slots; id++ {
		if sh.at(id).size != 0 && f(sh, id) {
			n++
		}
	}
	at.chunk++
	if at.end = at.chunk >= len(sh.chunks); at.end {
		sh.tidy()
	}
	return n
}
