package store

import (
	"math"
	"sync/atomic"
)

// recency says of a shard how old its entries are. It has a cache line of its
// own: hits read it, and the lock beside it is written.
type recency struct {
	_      [64]byte
	clock  atomic.Uint32 // counts what came to the front of the shard's LRU
	newest atomic.Uint32 // a part of the entries
	oldest atomic.Uint64 // the stamp of the entry that goes first; never: there is none
	_      [48]byte
}

const (
	never = uint64(math.MaxUint64)
	// newestPart is the part of the entries that hits leave where they are.
	newestPart = 8
)

// isNewest reports whether what came to the front at that time may stay where
// it is: no more can have come before it than the clock has counted. So hits on
// what is popular write nothing that other processors read.
func (r *recency) isNewest(used uint32) bool { return r.clock.Load()-used < r.newest.Load() }

// touch makes an entry the most recently used, unless it is among the newest as
// it is; sh.mu is held.
func (s *Store[V]) touch(sh *shard[V], hash uint64, id uint32) {
	e := sh.at(id)
	if sh.isNewest(e.used.Load()) {
		return
	}
	sh.lru.Get(hash)
	if e.scope != 0 {
		sh.moveToFront(byScope, uint32(e.scope), id)
	}
	s.moved(sh, e)
}

// moved notes that an entry came to the front; sh.mu is held.
func (s *Store[V]) moved(sh *shard[V], e *slot[V]) {
	e.used.Store(sh.clock.Add(1))
	e.stamp = s.clock.Add(1)
	sh.changed()
}

// changed follows the LRU, after each change of it; sh.mu is held.
func (sh *shard[V]) changed() {
	if n := uint32(sh.lru.Len() / newestPart); n != sh.newest.Load() {
		sh.newest.Store(n)
	}
	oldest := never
	if _, id, ok := sh.lru.GetOldest(); ok {
		oldest = sh.at(id).stamp
	}
	if oldest != sh.oldest.Load() {
		sh.oldest.Store(oldest)
	}
}
