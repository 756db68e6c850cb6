// Package store keeps values by key within a budget of bytes. What has expired
// goes first, then the least recently used. It knows nothing of what it keeps.
//
// The budget counts keys, values, bookkeeping, and what is reserved for values
// still on their way.
package store

import (
	"hash/maphash"
	"math"
	"math/bits"
	"reflect"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	maxShards = 256
	// stripes is how many memories of deleted keys the keys of a store share.
	stripes = 1024

	// Beside its slot, an entry costs a list element (three pointers, hash,
	// slot, time, bucket: 72 bytes in a block of 80), its place in the map (17
	// bytes, at worst under half of them in use), and what the allocator
	// rounds up.
	overhead = 80 + 40 + 24
)

// Store is a cache of V. Use New. It is safe for concurrent use.
type Store[V any] struct {
	seed     maphash.Seed
	shards   []shard[V] // a power of two
	front    front[V]
	maxBytes int64
	limit    int64 // maxBytes without what doorkeeper and front take
	perEntry int64

	bytes    atomic.Int64 // of entries
	reserved atomic.Int64
	budget   atomic.Int64 // limit, or less while memory is scarce
	rejected atomic.Uint64
	clock    atomic.Uint64 // counts what came to the front of an LRU
	swept    atomic.Int64  // the second in which all shards were rid of what had expired

	scopes   scopes
	door     doorkeeper
	purges   purges[V]
	pressure pressure
}

// Item is a value with what the store has to know of it.
type Item[V any] struct {
	Value   V
	Size    int64 // without key and bookkeeping
	Scope   Scope // whose share it uses up; 0: nobody's
	Expires int64 // the Unix second from which on it is of no use; 0: never
}

// Stats is what a store holds at about one instant, and what it did so far.
type Stats struct {
	Entries     int
	Bytes       int64 // keys, values and bookkeeping of all entries
	Reserved    int64
	MaxBytes    int64
	Budget      int64  // what Bytes and Reserved may use of MaxBytes now
	Evictions   uint64 // entries dropped to make room
	Evicted     Evicted
	Rejected    uint64 // values and reservations that there was no room for
	NotAdmitted uint64 // keys that Admit refused
}

// Evicted tells apart why entries were dropped to make room.
type Evicted struct {
	Size    uint64 // the store was full
	Expired uint64 // they were of no use any more
	Share   uint64 // their scope was above its share
	Memory  uint64 // the process came near its memory limit
}

// New returns an empty store that holds at most maxBytes, and nothing if that
// is zero or negative.
func New[V any](maxBytes int64) *Store[V] {
	return newStore[V](maxBytes, shardsFor(runtime.GOMAXPROCS(0)))
}

// shardsFor returns a power of two.
func shardsFor(procs int) int {
	if procs < 2 {
		return 1
	}
	return min(maxShards, 1<<bits.Len(uint(4*procs-1)))
}

func newStore[V any](maxBytes int64, shards int) *Store[V] {
	s := &Store[V]{
		seed:     maphash.MakeSeed(),
		shards:   make([]shard[V], shards),
		maxBytes: max(maxBytes, 0),
		front:    newFront[V](maxBytes, shards),
		perEntry: overhead + int64(reflect.TypeFor[slot[V]]().Size()+reflect.TypeFor[node[V]]().Size()),
		door:     newDoorkeeper(maxBytes),
		pressure: pressure{read: readMemory()},
	}
	s.limit = max(s.maxBytes-s.door.bytes()-s.front.bytes(shards), 0)
	s.budget.Store(s.limit)
	for i := range s.shards {
		sh := &s.shards[i]
		sh.entries = newEntries[V]()
		sh.changed()
		sh.stripes = make([]stripe, stripes/shards)
	}
	return s
}

// Get returns the value of key and makes it one of the most recently used.
func (s *Store[V]) Get(key []byte) (v V, ok bool) {
	hash, sh := s.shard(key)
	n := s.front.at(hash).Load()
	if n == nil || n.key != string(key) {
		return s.get(sh, hash, key)
	}
	if !sh.isNewest(n.used.Load()) && sh.mu.TryLock() { // who holds it makes another newer at this moment
		if id, ok := sh.lru.Peek(hash); ok && sh.at(id).node == n {
			s.touch(sh, hash, id)
		}
		sh.mu.Unlock()
	}
	return n.value, true
}

// get is Get of what is not in front.
func (s *Store[V]) get(sh *shard[V], hash uint64, key []byte) (v V, ok bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	id, ok := sh.find(hash, key)
	if !ok {
		return v, false
	}
	s.touch(sh, hash, id)
	n := sh.at(id).node
	s.front.show(hash, n)
	return n.value, true
}

// Peek is Get, but for the recency, which it leaves as it is.
func (s *Store[V]) Peek(key []byte) (v V, ok bool) {
	hash, sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	id, ok := sh.find(hash, key)
	if !ok {
		return v, false
	}
	return sh.at(id).value, true
}

// Since is the instant at which somebody began to fetch the value of a key.
type Since struct{ epoch, purge uint64 }

// Begin returns the present instant for UpdateSince. Only many deletions of a few
// other keys have what it remembers of key forgotten; that an entry is evicted
// changes nothing of it.
func (s *Store[V]) Begin(key []byte) Since {
	purge := s.purges.last.Load()
	hash, sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return Since{epoch: sh.stripe(hash).epoch, purge: purge}
}

// Update replaces the value of key by what f makes of it, atomically, and
// reports whether that was stored. f gets the old value and whether there is
// one; it returns the new one and whether to keep it. If not, or if there is no
// room for it beside what is reserved, the key has no value afterwards.
//
// f runs under a lock: it is quick and does not call the store. Whoever reserved
// bytes for the value releases them first, or they count twice.
func (s *Store[V]) Update(key []byte, f func(old V, ok bool) (item Item[V], keep bool)) (stored bool) {
	return s.update(key, nil, f)
}

// UpdateSince is Update, unless key was deleted since then, or a purge since
// then matches the new value: then nothing changes.
func (s *Store[V]) UpdateSince(since Since, key []byte, f func(old V, ok bool) (item Item[V], keep bool)) (stored bool) {
	return s.update(key, &since, f)
}

// Delete removes key and returns the value it had. UpdateSince stores nothing
// for key that was begun before.
func (s *Store[V]) Delete(key []byte) (v V, ok bool) {
	hash, sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.stripe(hash).delete(hash)
	id, ok := sh.find(hash, key)
	if ok {
		v = sh.at(id).value
		s.remove(sh, hash, id)
		sh.tidy()
	}
	return v, ok
}

// Invalidate is Delete for those who do not want the value: what is being
// fetched for key since before must not be stored, whether or not it has one.
func (s *Store[V]) Invalidate(key []byte) { s.Delete(key) }

// Clear removes everything. UpdateSince stores nothing that was begun before.
// What is reserved stays so.
func (s *Store[V]) Clear() {
	for i := range s.shards {
		s.clear(i)
	}
}

// Stats returns the counts of all shards.
func (s *Store[V]) Stats() Stats {
	st := Stats{
		Bytes:       s.bytes.Load(),
		Reserved:    s.reserved.Load(),
		MaxBytes:    s.maxBytes,
		Budget:      s.budget.Load(),
		Rejected:    s.rejected.Load(),
		NotAdmitted: s.door.refused.Load(),
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		st.Entries += sh.lru.Len()
		st.Evicted.Size += sh.evicted[causeSize]
		st.Evicted.Expired += sh.evicted[causeExpired]
		st.Evicted.Share += sh.evicted[causeShare]
		st.Evicted.Memory += sh.evicted[causeMemory]
		sh.mu.Unlock()
	}
	st.Evictions = st.Evicted.Size + st.Evicted.Expired + st.Evicted.Share + st.Evicted.Memory
	return st
}

func (s *Store[V]) shard(key []byte) (hash uint64, sh *shard[V]) {
	hash = maphash.Bytes(s.seed, key)
	return hash, &s.shards[hash&uint64(len(s.shards)-1)]
}

// update is Update, or UpdateSince if since is not nil.
func (s *Store[V]) update(key []byte, since *Since, f func(V, bool) (Item[V], bool)) (stored bool) {
	now := s.now()
	hash, sh := s.shard(key)
	scope, stored := s.replace(sh, hash, key, now, since, f)
	if stored {
		s.makeRoom(now, scope)
	}
	return stored
}

// now returns the second, and looks after the memory on the way.
func (s *Store[V]) now() int64 {
	now := time.Now()
	s.watchMemory(now)
	return now.Unix()
}

// replace does the part of update that is under the shard's lock.
func (s *Store[V]) replace(sh *shard[V], hash uint64, key []byte, now int64, since *Since, f func(V, bool) (Item[V], bool)) (sc *scope, stored bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if since != nil && sh.stripe(hash).since(since.epoch, hash) {
		return nil, false
	}
	id, had := sh.find(hash, key)
	var old V
	if had {
		old = sh.at(id).value
	}
	item, keep := f(old, had)
	if keep && since != nil && since.purge != s.purges.last.Load() && s.purged(since.purge, string(key), item.Value) {
		return nil, false
	}
	sc = s.scopes.get(item.Scope)
	cost, fits := s.cost(key, item.Size, sc)
	if !keep || !fits {
		if keep {
			s.rejected.Add(1)
		}
		if had {
			sh.stripe(hash).delete(hash)
			s.remove(sh, hash, id)
		}
		return nil, false
	}
	s.put(sh, hash, key, now, item, cost)
	return sc, true
}

// cost returns all that a value costs, and whether it may ever fit in.
func (s *Store[V]) cost(key []byte, size int64, sc *scope) (cost int64, fits bool) {
	if size < 0 || size > s.maxBytes { // before the sum, which may overflow
		return 0, false
	}
	cost = size + int64(len(key)) + s.perEntry
	return cost, cost <= s.budget.Load()-s.reserved.Load() && (sc == nil || cost <= sc.share.Load()-sc.reserved.Load())
}

// put stores item under hash in place of what was there; sh.mu is held. If that
// has another key, it is evicted.
func (s *Store[V]) put(sh *shard[V], hash uint64, key []byte, now int64, item Item[V], cost int64) {
	id, ok := sh.lru.Peek(hash)
	var text string
	if ok {
		e := sh.at(id)
		if text = e.key; text != string(key) {
			sh.evicted[causeSize]++
			text = string(key)
		}
		s.front.hide(hash, e.node)
		s.uncount(sh, id)
	} else {
		id, text = sh.alloc(), string(key)
	}
	e := sh.at(id)
	e.node, e.size, e.expires, e.scope = &node[V]{key: text, value: item.Value}, cost, 0, 0
	if 0 < item.Expires && item.Expires <= math.MaxUint32 {
		e.expires = uint32(item.Expires)
		sh.expireAt(id, now)
	}
	if sc := s.scopes.get(item.Scope); sc != nil {
		e.scope = item.Scope
		sh.grow(byScope, uint32(item.Scope))
		sh.pushFront(byScope, uint32(item.Scope), id)
		sh.grant(item.Scope, cost)
		sc.bytes.Add(cost)
	}
	sh.lru.Add(hash, id)
	s.moved(sh, e)
	sh.bytes += cost
	s.bytes.Add(cost)
}

// uncount takes what is in a slot out of all sums and lists but the LRU; sh.mu
// is held.
func (s *Store[V]) uncount(sh *shard[V], id uint32) {
	e := sh.at(id)
	sh.unlink(byExpiry, id)
	if e.scope != 0 {
		sh.unlink(byScope, id)
		sh.grant(e.scope, -e.size)
		s.scopes.get(e.scope).bytes.Add(-e.size)
	}
	sh.bytes -= e.size
	s.bytes.Add(-e.size)
}

// remove removes what is under hash, in the slot id; sh.mu is held.
func (s *Store[V]) remove(sh *shard[V], hash uint64, id uint32) {
	sh.lru.Remove(hash)
	sh.changed()
	s.front.hide(hash, sh.at(id).node)
	s.uncount(sh, id)
	sh.free(id)
}

func (s *Store[V]) clear(i int) {
	fresh, sh := newEntries[V](), &s.shards[i]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.bytes.Add(-sh.bytes)
	for i, n := range sh.granted {
		if n != 0 {
			s.scopes.get(Scope(i)).bytes.Add(-n)
		}
	}
	fresh.generation = sh.generation + 1
	sh.entries, sh.granted, sh.bytes = fresh, nil, 0
	sh.changed()
	s.front.hideAll(i, len(s.shards))
	for i := range sh.stripes {
		sh.stripes[i].deleteAll()
	}
}
