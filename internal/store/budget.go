package store

import (
	"hash/maphash"
	"sync/atomic"
)

// Why an entry is dropped to make room.
const (
	causeSize = iota
	causeExpired
	causeShare
	causeMemory
	causes
)

// batch is how many entries go under one lock, and how many a call drops
// because memory is scarce: the calls after it go on.
const batch = 256

// Reserve takes n bytes of the budget for a value that is on its way, evicts
// entries to make room, and reports whether it did: not if too much is reserved
// already. The caller releases exactly what it reserved.
func (s *Store[V]) Reserve(n int64) bool { return s.ReserveFor(0, n) }

// ReserveFor is Reserve within the share of a scope.
func (s *Store[V]) ReserveFor(id Scope, n int64) bool {
	if n < 0 {
		return false
	}
	now := s.now()
	sc := s.scopes.get(id)
	if sc != nil && !take(&sc.reserved, n, sc.share.Load()) {
		s.rejected.Add(1)
		return false
	}
	if !take(&s.reserved, n, s.budget.Load()) {
		if sc != nil {
			sc.reserved.Add(-n)
		}
		s.rejected.Add(1)
		return false
	}
	if s.over() || sc.over() {
		s.makeRoom(now, sc, s.index(s.turn.Add(1)), false)
	}
	return true
}

// take adds n to sum, unless that would be more than most.
func take(sum *atomic.Int64, n, most int64) bool {
	for {
		old := sum.Load()
		if n > most-old {
			return false
		}
		if sum.CompareAndSwap(old, old+n) {
			return true
		}
	}
}

// Release gives back n bytes that were reserved.
func (s *Store[V]) Release(n int64) { s.ReleaseFor(0, n) }

// ReleaseFor gives back n bytes that were reserved for that scope. If its first
// SetShare was in between, its sum is off by as much.
func (s *Store[V]) ReleaseFor(id Scope, n int64) {
	if n <= 0 {
		return
	}
	s.reserved.Add(-n)
	if sc := s.scopes.get(id); sc != nil {
		sc.reserved.Add(-n)
	}
}

// over reports whether somebody has to go. Whoever adds to any of the sums asks
// afterwards, so the last of several at once sees all.
func (s *Store[V]) over() bool { return s.used() > s.budget.Load() }

func (s *Store[V]) used() int64 { return s.bytes.Load() + s.reserved.Load() }

// makeRoom evicts until scope and store are within their bounds: first what has
// expired, then what is oldest in the shard own, then in the others. For a new
// entry, keep is set: the last of own stays if others can give way.
func (s *Store[V]) makeRoom(now int64, sc *scope, own int, keep bool) {
	if sc.over() {
		s.shrinkScope(sc, own, keep)
	}
	if !s.over() {
		return
	}
	s.dropExpired(now)
	spare := batch
	if keep {
		spare = s.shrinkShard(now, own, spare)
		spare = s.shrink(now, own+1, len(s.shards)-1, spare)
	}
	s.shrink(now, own, len(s.shards), spare)
}

// dropExpired drops from all shards what has expired, as far as there is need.
// It looks once in a second, unless it found more than it needed.
func (s *Store[V]) dropExpired(now int64) {
	last := s.swept.Load()
	if last == now || !s.swept.CompareAndSwap(last, now) {
		return
	}
	for i := range s.shards {
		sh := &s.shards[i]
		for more := true; more; {
			sh.mu.Lock()
			more = s.dropExpiredOf(sh, now)
			sh.tidy()
			sh.mu.Unlock()
		}
		if !s.over() {
			s.swept.Store(last)
			return
		}
	}
}

// dropExpiredOf drops a batch at most and reports whether there may be more to
// do; sh.mu is held.
func (s *Store[V]) dropExpiredOf(sh *shard[V], now int64) (more bool) {
	for range batch {
		id := sh.expired(now)
		if id == 0 || !s.over() {
			return false
		}
		s.evict(sh, id, causeExpired)
	}
	return true
}

// shrinkShard evicts a batch at most from one shard, but not its last entry. Of
// spare it returns what is left.
func (s *Store[V]) shrinkShard(now int64, own, spare int) int {
	sh := &s.shards[own]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for range batch {
		if !s.over() || sh.lru.Len() <= 1 || spare == 0 {
			break
		}
		if s.evictOldest(sh, now) == causeMemory {
			spare--
		}
	}
	sh.tidy()
	return spare
}

// shrink evicts from n shards, beginning with from, one entry each in turn,
// until the store is within its budget or they are empty, or spare entries went
// because memory is scarce. It holds one lock at a time.
func (s *Store[V]) shrink(now int64, from, n, spare int) int {
	for more := true; more; {
		more = false
		for i := range n {
			if !s.over() || spare == 0 {
				return spare
			}
			sh := &s.shards[s.index(uint64(from+i))]
			sh.mu.Lock()
			cause := s.evictOldest(sh, now)
			sh.tidy()
			sh.mu.Unlock()
			more = more || cause >= 0
			if cause == causeMemory {
				spare--
			}
		}
	}
	return spare
}

// shrinkScope evicts the oldest of a scope, one of each shard in turn, until it
// is within its share; if keep is set, not the youngest of own while others may
// go.
func (s *Store[V]) shrinkScope(sc *scope, own int, keep bool) {
	sc.full.Store(true)
	for more := true; more || keep; {
		keep = keep && more
		more = false
		for i := range s.shards {
			at := s.index(uint64(own + i))
			sh := &s.shards[at]
			sh.mu.Lock()
			for range batch {
				if !sc.over() {
					sh.mu.Unlock()
					return
				}
				id := sh.oldestOf(sc.id)
				if id == 0 || keep && at == own && id == sh.first(byScope, uint32(sc.id)) {
					break
				}
				s.evict(sh, id, causeShare)
				more = true
				if at != own {
					break
				}
			}
			sh.tidy()
			sh.mu.Unlock()
		}
	}
}

// oldestOf returns the slot of a scope that was not used for longest, 0 if it
// has none here; sh.mu is held.
func (sh *shard[V]) oldestOf(id Scope) uint32 {
	if len(sh.heads[byScope]) <= int(id) {
		return 0
	}
	return sh.last(byScope, uint32(id))
}

// evictOldest drops what has expired, or else the oldest entry of sh, and
// returns the cause, -1 if there is none to drop; sh.mu is held.
func (s *Store[V]) evictOldest(sh *shard[V], now int64) (cause int) {
	if id := sh.expired(now); id != 0 {
		s.evict(sh, id, causeExpired)
		return causeExpired
	}
	_, id, ok := sh.lru.GetOldest()
	if !ok {
		return -1
	}
	cause = causeSize
	if s.used() <= s.limit {
		cause = causeMemory
	}
	if !s.door.full.Load() {
		s.door.full.Store(true)
	}
	s.evict(sh, id, cause)
	return cause
}

// evict drops what is in a slot; sh.mu is held.
func (s *Store[V]) evict(sh *shard[V], id uint32, cause int) {
	s.remove(sh, maphash.String(s.seed, sh.at(id).key), id)
	sh.evicted[cause]++
}
