package store

// Reserve takes n bytes of the budget for a value that is on its way, evicts
// entries to make room, and reports whether it did: not if too much is reserved
// already. The caller releases exactly what it reserved.
func (s *Store[V]) Reserve(n int64) bool {
	if n < 0 {
		return false
	}
	for {
		reserved := s.reserved.Load()
		if n > s.maxBytes-reserved {
			s.rejected.Add(1)
			return false
		}
		if s.reserved.CompareAndSwap(reserved, reserved+n) {
			break
		}
	}
	if s.over() {
		s.shrink(s.index(s.turn.Add(1)), len(s.shards))
	}
	return true
}

// Release gives back n bytes that were reserved.
func (s *Store[V]) Release(n int64) {
	if n > 0 {
		s.reserved.Add(-n)
	}
}

// over reports whether somebody has to go. Whoever adds to either sum asks
// afterwards, so the last of several at once sees both.
func (s *Store[V]) over() bool { return s.bytes.Load()+s.reserved.Load() > s.maxBytes }

// shrink evicts from n shards, beginning with from, one entry each in turn,
// until the store is within its budget or they are empty. It holds one lock at
// a time.
func (s *Store[V]) shrink(from, n int) {
	for more := true; more; {
		more = false
		for i := range n {
			if !s.over() {
				return
			}
			sh := &s.shards[s.index(uint64(from+i))]
			sh.mu.Lock()
			more = s.evict(sh) || more
			sh.mu.Unlock()
		}
	}
}

// evict drops the oldest entry of sh; sh.mu is held.
func (s *Store[V]) evict(sh *shard[V]) bool {
	_, it, ok := sh.lru.RemoveOldest()
	if ok {
		sh.bytes -= it.size
		s.bytes.Add(-it.size)
		sh.evicted++
	}
	return ok
}
