package store

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

type shard[V any] struct {
	mu sync.Mutex
	entries[V]
	bytes   int64
	granted []int64  // of bytes, by scope
	stripes []stripe // a power of two; each for some of the keys
	evicted [causes]uint64

	recency
}

// entries are the entries of one shard. The LRU finds the slot of a hash and
// knows the order of use; the slots lie side by side, so that a scan may stop
// and go on, and the collector follows no more than key and value.
type entries[V any] struct {
	lru        *simplelru.LRU[uint64, uint32] // by hash
	chunks     []*[chunkLen]slot[V]
	slots      uint32          // that were ever in use
	vacant     uint32          // the first free slot; its links lead to the next
	heads      [orders][]links // of the rings
	swept      int64           // the second up to which the wheel was turned
	generation int             // other slots than before
}

// chunkLen is how many slots are made at once, and scanned under one lock.
const chunkLen = 256

// A slot holds its whole key: two keys may have one hash. Slots are numbered
// from 1; 0 is none.
type slot[V any] struct {
	*node[V]
	stamp   uint64 // the store's clock when it came to the front
	size    int64  // all that it costs; 0: the slot is free
	expires uint32 // Unix second; 0: never
	scope   Scope  // 0: none that has a share
	links   [orders]links
}

// newEntries bounds them by nothing: bytes do.
func newEntries[V any]() entries[V] {
	const noLimit = int(^uint(0) >> 1)
	l, _ := simplelru.NewLRU[uint64, uint32](noLimit, nil) // fails for sizes below one only
	return entries[V]{lru: l}
}

// find returns the slot of key; sh.mu is held.
func (es *entries[V]) find(hash uint64, key []byte) (id uint32, ok bool) {
	id, ok = es.lru.Peek(hash)
	return id, ok && es.at(id).key == string(key)
}

func (es *entries[V]) at(id uint32) *slot[V] {
	return &es.chunks[(id-1)/chunkLen][(id-1)%chunkLen]
}

func (es *entries[V]) alloc() (id uint32) {
	if id = es.vacant; id != 0 {
		e := es.at(id)
		es.vacant = e.links[0].next
		e.links[0] = links{}
		return id
	}
	if es.slots%chunkLen == 0 {
		es.chunks = append(es.chunks, new([chunkLen]slot[V]))
	}
	es.slots++
	return es.slots
}

func (es *entries[V]) free(id uint32) {
	e := es.at(id)
	*e = slot[V]{}
	e.links[0].next = es.vacant
	es.vacant = id
}

// tidy gives memory back when few slots are left of many: neither they nor the
// map's shrink by themselves. There were seven removals for each entry that it
// moves.
func (es *entries[V]) tidy() {
	const many = 16 * chunkLen
	if es.slots < many || uint32(es.lru.Len()) > es.slots/8 {
		return
	}
	fresh := newEntries[V]()
	fresh.swept, fresh.generation = es.swept, es.generation+1
	for i := range es.heads[byScope] {
		fresh.grow(byScope, uint32(i))
	}
	for {
		hash, old, ok := es.lru.RemoveOldest()
		if !ok {
			break
		}
		id := fresh.alloc()
		e := fresh.at(id)
		*e = *es.at(old)
		e.links = [orders]links{}
		if e.expires != 0 {
			fresh.expireAt(id, 0)
		}
		if e.scope != 0 {
			fresh.pushFront(byScope, uint32(e.scope), id)
		}
		fresh.lru.Add(hash, id)
	}
	*es = fresh
}

// stripe uses other bits of hash than the choice of the shard; sh.mu is held.
func (sh *shard[V]) stripe(hash uint64) *stripe {
	return &sh.stripes[(hash>>32)&uint64(len(sh.stripes)-1)]
}

// stripe remembers which of its keys were deleted of late, whether or not they had
// a value.
type stripe struct {
	epoch   uint64         // counts them
	deleted [lately]uint64 // their hashes; the last is at (epoch-1) % lately
}

const lately = 7

// delete notes that a key was deleted.
func (st *stripe) delete(hash uint64) {
	st.deleted[st.epoch%lately] = hash
	st.epoch++
}

// deleteAll notes that every key was.
func (st *stripe) deleteAll() { st.epoch += lately + 1 }

// since reports whether a key was, or may have been, deleted since an epoch.
func (st *stripe) since(epoch, hash uint64) bool {
	if st.epoch-epoch > lately {
		return true
	}
	for e := epoch; e != st.epoch; e++ {
		if st.deleted[e%lately] == hash {
			return true
		}
	}
	return false
}

// grant counts bytes for a scope; sh.mu is held.
func (sh *shard[V]) grant(id Scope, n int64) {
	for len(sh.granted) <= int(id) {
		sh.granted = append(sh.granted, 0)
	}
	sh.granted[id] += n
}
