package work

import (
	"math/rand/v2"
	"sync"
)

// rollShards share the roll, by chance, so that those who come and go at once
// seldom meet.
const rollShards = 64

// Roll knows who is under way, for somebody who looks in from time to time.
// Joining and leaving cost no memory. The zero Roll is ready; it is safe for
// concurrent use and must not be copied once used.
type Roll[T any] struct{ shards [rollShards]rollShard[T] }

type rollShard[T any] struct {
	mu    sync.Mutex
	first *Place[T]
	_     [128 - 16]byte // two lines of most caches: neighbours do not slow each other down
}

// A Place is where somebody stands in a Roll, a part of what joins. Its zero
// value is ready.
type Place[T any] struct {
	shard      *rollShard[T] // nil: in no roll
	prev, next *Place[T]
	who        T
}

// Join enters who, at a place of its own. What Each reads of it is written
// before, is not written until Leave has returned, or is atomic.
func (r *Roll[T]) Join(at *Place[T], who T) {
	s := &r.shards[rand.Uint32()%rollShards]
	at.shard, at.who = s, who
	s.mu.Lock()
	at.prev, at.next = nil, s.first
	if s.first != nil {
		s.first.prev = at
	}
	s.first = at
	s.mu.Unlock()
}

// Leave undoes Join; nobody looks at the place from then on. It may be called
// again.
func (at *Place[T]) Leave() {
	s := at.shard
	if s == nil {
		return
	}
	s.mu.Lock()
	if at.prev == nil {
		s.first = at.next
	} else {
		at.prev.next = at.next
	}
	if at.next != nil {
		at.next.prev = at.prev
	}
	s.mu.Unlock()
	var none T
	at.shard, at.prev, at.next, at.who = nil, nil, nil, none
}

// Each calls f for all who are under way. Whoever f looks at cannot leave
// meanwhile: f neither waits nor calls the Roll.
func (r *Roll[T]) Each(f func(who T)) {
	for i := range r.shards {
		r.shards[i].each(f)
	}
}

func (s *rollShard[T]) each(f func(T)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := s.first; at != nil; at = at.next {
		f(at.who)
	}
}
