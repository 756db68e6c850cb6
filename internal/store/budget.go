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
	nothing = -1
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
		s.makeRoom(now, sc)
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
// expired, then what is oldest.
func (s *Store[V]) makeRoom(now int64, sc *scope) {
	for sc.over() && s.evictOldestOf(sc) {
	}
	if !s.over() {
		return
	}
	s.dropExpired(now)
	for spare := batch; s.over() && spare > 0; {
		switch s.evictOldest(now) {
		case nothing:
			return
		case causeMemory:
			spare--
		}
	}
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

// evictOldestOf evicts the oldest entry of a scope, and reports whether it had one.
func (s *Store[V]) evictOldestOf(sc *scope) bool {
	sc.full.Store(true)
	var oldest *shard[V]
	least := never
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		if id := sh.oldestOf(sc.id); id != 0 && sh.at(id).stamp < least {
			oldest, least = sh, sh.at(id).stamp
		}
		sh.mu.Unlock()
	}
	if oldest == nil {
		return false
	}
	oldest.mu.Lock()
	defer oldest.mu.Unlock()
	if id := oldest.oldestOf(sc.id); id != 0 && sc.over() { // another may have been here
		s.evict(oldest, id, causeShare)
		oldest.tidy()
	}
	return true
}

// oldestOf returns the slot of a scope that was not used for longest, 0 if it
// has none here; sh.mu is held.
func (sh *shard[V]) oldestOf(id Scope) uint32 {
	if len(sh.heads[byScope]) <= int(id) {
		return 0
	}
	return sh.last(byScope, uint32(id))
}

// evictOldest drops the oldest entry, or what has expired in its shard, and
// returns the cause, or that there is nothing to drop.
func (s *Store[V]) evictOldest(now int64) (cause int) {
	var sh *shard[V]
	least := never
	for i := range s.shards {
		if stamp := s.shards[i].oldest.Load(); stamp < least {
			sh, least = &s.shards[i], stamp
		}
	}
	if sh == nil {
		return nothing
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	defer sh.tidy()
	if id := sh.expired(now); id != 0 {
		s.evict(sh, id, causeExpired)
		return causeExpired
	}
	if sh.oldest.Load() != least || !s.over() { // another has been here
		return causeSize
	}
	cause = causeSize
	if s.used() <= s.limit {
		cause = causeMemory
	}
	if !s.door.full.Load() {
		s.door.full.Store(true)
	}
	_, id, _ := sh.lru.GetOldest()
	s.evict(sh, id, cause)
	return cause
}

// evict drops what is in a slot; sh.mu is held.
func (s *Store[V]) evict(sh *shard[V], id uint32, cause int) {
	s.remove(sh, maphash.String(s.seed, sh.at(id).key), id)
	sh.evicted[cause]++
}
