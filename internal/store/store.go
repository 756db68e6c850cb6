// Package store keeps values by key within a budget of bytes and drops the
// least recently used first. It knows nothing of what it keeps.
//
// The budget counts keys, values, bookkeeping, and what is reserved for values
// still on their way. Recency is per shard: an entry that has to go is the
// oldest of its shard, not always of the whole store.
package store

import (
	"hash/maphash"
	"math/bits"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	maxShards = 256
	// stripes is how many epochs the keys of a store share.
	stripes = 4096

	// Beside its item, an entry costs a list element (three pointers, hash,
	// time, bucket: 64 bytes), its slot in the map (17 bytes, at worst under
	// half of them in use), and what the allocator rounds up.
	overhead = 64 + 40 + 24
)

// Store is a cache of V. Use New. It is safe for concurrent use.
type Store[V any] struct {
	seed     maphash.Seed
	shards   []shard[V] // a power of two
	maxBytes int64
	perEntry int64

	bytes    atomic.Int64 // of entries
	reserved atomic.Int64
	rejected atomic.Uint64
	turn     atomic.Uint64 // the shard that the next Reserve begins with
}

type shard[V any] struct {
	mu      sync.Mutex
	lru     *simplelru.LRU[uint64, item[V]] // by hash
	bytes   int64
	epochs  []uint64 // a power of two; each for the keys of one stripe
	evicted uint64

	_ [64]byte // keeps the next shard's mutex off this cache line
}

// An item holds its whole key: two keys may have one hash.
type item[V any] struct {
	key   string
	value V
	size  int64 // all that it costs
}

// Stats is what a store holds at about one instant, and what it did so far.
type Stats struct {
	Entries   int
	Bytes     int64 // keys, values and bookkeeping of all entries
	Reserved  int64
	MaxBytes  int64
	Evictions uint64 // entries dropped to make room
	Rejected  uint64 // values and reservations that there was no room for
}

// New returns an empty store that holds at most maxBytes, and nothing if that
// is zero or negative.
func New[V any](maxBytes int64) *Store[V] {
	return newStore[V](maxBytes, shardsFor(runtime.GOMAXPROCS(0)))
}

// shardsFor returns a power of two. Two processors gain nothing from shards.
func shardsFor(procs int) int {
	if procs <= 2 {
		return 1
	}
	return min(maxShards, 1<<bits.Len(uint(4*procs-1)))
}

func newStore[V any](maxBytes int64, shards int) *Store[V] {
	s := &Store[V]{
		seed:     maphash.MakeSeed(),
		shards:   make([]shard[V], shards),
		maxBytes: max(maxBytes, 0),
		perEntry: overhead + int64(reflect.TypeFor[item[V]]().Size()),
	}
	for i := range s.shards {
		s.shards[i].lru = newLRU[V]()
		s.shards[i].epochs = make([]uint64, stripes/shards)
	}
	return s
}

// newLRU bounds entries by nothing: bytes do.
func newLRU[V any]() *simplelru.LRU[uint64, item[V]] {
	const noLimit = int(^uint(0) >> 1)
	l, _ := simplelru.NewLRU[uint64, item[V]](noLimit, nil) // fails for sizes below one only
	return l
}

// Get returns the value of key and makes it the most recently used.
func (s *Store[V]) Get(key []byte) (v V, ok bool) {
	hash, sh := s.shard(key)
	sh.mu.Lock()
	it, ok := sh.lru.Get(hash)
	sh.mu.Unlock()
	if !ok || it.key != string(key) {
		return v, false
	}
	return it.value, true
}

// Update replaces the value of key by what f makes of it, atomically, and
// reports whether that was stored. f gets the old value and whether there is
// one; it returns the new value, its size without key and bookkeeping, and
// whether to keep it. If not, or if there is no room for it beside what is
// reserved, the key has no value afterwards.
//
// f runs under a lock: it is quick and does not call the store. Whoever reserved
// bytes for the value releases them first, or they count twice.
func (s *Store[V]) Update(key []byte, f func(old V, ok bool) (v V, size int64, keep bool)) (stored bool) {
	return s.update(key, nil, f)
}

// UpdateSince is Update, unless key was deleted since Epoch returned epoch:
// then f is not called and nothing changes.
func (s *Store[V]) UpdateSince(epoch uint64, key []byte, f func(old V, ok bool) (v V, size int64, keep bool)) (stored bool) {
	return s.update(key, &epoch, f)
}

// Epoch returns a number that changes whenever key is deleted, had it a value or
// not. A few other keys share it; that an entry is evicted does not change it.
func (s *Store[V]) Epoch(key []byte) uint64 {
	hash, sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return *sh.epoch(hash)
}

// Delete removes key, changes its epoch, and returns the value it had.
func (s *Store[V]) Delete(key []byte) (v V, ok bool) {
	hash, sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	*sh.epoch(hash)++
	it, ok := sh.peek(hash, key)
	if ok {
		s.remove(sh, hash, it)
	}
	return it.value, ok
}

// Invalidate is Delete for those who do not want the value: what is being
// fetched for key since before must not be stored, whether or not it has one.
func (s *Store[V]) Invalidate(key []byte) { s.Delete(key) }

// Clear removes everything and changes every epoch. What is reserved stays so.
func (s *Store[V]) Clear() {
	for i := range s.shards {
		s.clear(&s.shards[i])
	}
}

// Stats returns the counts of all shards.
func (s *Store[V]) Stats() Stats {
	st := Stats{
		Bytes:    s.bytes.Load(),
		Reserved: s.reserved.Load(),
		MaxBytes: s.maxBytes,
		Rejected: s.rejected.Load(),
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		st.Entries += sh.lru.Len()
		st.Evictions += sh.evicted
		sh.mu.Unlock()
	}
	return st
}

func (s *Store[V]) shard(key []byte) (hash uint64, sh *shard[V]) {
	hash = maphash.Bytes(s.seed, key)
	return hash, &s.shards[s.index(hash)]
}

func (s *Store[V]) index(hash uint64) int { return int(hash & uint64(len(s.shards)-1)) }

// update is Update, or UpdateSince if since is not nil.
func (s *Store[V]) update(key []byte, since *uint64, f func(V, bool) (V, int64, bool)) (stored bool) {
	hash, sh := s.shard(key)
	if !s.replace(sh, hash, key, since, f) {
		return false
	}
	own := s.index(hash)
	s.shrink(own+1, len(s.shards)-1) // the others give way to the new entry,
	s.shrink(own, len(s.shards))     // unless so much was reserved meanwhile
	return true
}

// replace does the part of update that is under the shard's lock.
func (s *Store[V]) replace(sh *shard[V], hash uint64, key []byte, since *uint64, f func(V, bool) (V, int64, bool)) (stored bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if since != nil && *since != *sh.epoch(hash) {
		return false
	}
	old, had := sh.peek(hash, key)
	v, size, keep := f(old.value, had)
	cost, fits := s.cost(key, size)
	if !keep || !fits {
		if keep {
			s.rejected.Add(1)
		}
		if had {
			*sh.epoch(hash)++
			s.remove(sh, hash, old)
		}
		return false
	}
	s.put(sh, hash, item[V]{key: string(key), value: v, size: cost})
	for s.over() && sh.lru.Len() > 1 {
		s.evict(sh)
	}
	return true
}

// cost returns all that a value costs, and whether it may ever fit in.
func (s *Store[V]) cost(key []byte, size int64) (cost int64, fits bool) {
	if size < 0 || size > s.maxBytes { // before the sum, which may overflow
		return 0, false
	}
	cost = size + int64(len(key)) + s.perEntry
	return cost, cost <= s.maxBytes-s.reserved.Load()
}

// put stores it under hash in place of what was there; sh.mu is held. The LRU
// tells nobody what it overwrites, so the old item goes first. If that has
// another key, it is evicted.
func (s *Store[V]) put(sh *shard[V], hash uint64, it item[V]) {
	if old, ok := sh.lru.Peek(hash); ok {
		if old.key != it.key {
			sh.evicted++
		}
		sh.bytes -= old.size
		s.bytes.Add(-old.size)
	}
	sh.lru.Add(hash, it)
	sh.bytes += it.size
	s.bytes.Add(it.size)
}

// remove removes it, which is under hash; sh.mu is held.
func (s *Store[V]) remove(sh *shard[V], hash uint64, it item[V]) {
	sh.lru.Remove(hash)
	sh.bytes -= it.size
	s.bytes.Add(-it.size)
}

func (s *Store[V]) clear(sh *shard[V]) {
	fresh := newLRU[V]()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.lru = fresh
	s.bytes.Add(-sh.bytes)
	sh.bytes = 0
	for i := range sh.epochs {
		sh.epochs[i]++
	}
}

// peek returns the item of key; sh.mu is held.
func (sh *shard[V]) peek(hash uint64, key []byte) (it item[V], ok bool) {
	it, ok = sh.lru.Peek(hash)
	if !ok || it.key != string(key) {
		return item[V]{}, false
	}
	return it, true
}

// epoch uses other bits of hash than the choice of the shard; sh.mu is held.
func (sh *shard[V]) epoch(hash uint64) *uint64 {
	return &sh.epochs[(hash>>32)&uint64(len(sh.epochs)-1)]
}
