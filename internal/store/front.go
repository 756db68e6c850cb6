package store

import (
	"math/bits"
	"sync/atomic"
)

// A node is what a hit reads of an entry. Nothing of it changes but used: an
// entry with another value has another node.
type node[V any] struct {
	key   string
	value V
	used  atomic.Uint32 // its shard's clock when it came to the front of the LRU
}

// front finds the nodes that were last asked for without a lock, so that hits
// on what is popular write nothing that other processors read. Which place is a
// hash's own is a matter of its lowest bits, the shard's among them: whoever
// holds the shard's lock is the only one who changes the place.
type front[V any] []atomic.Pointer[node[V]]

// newFront has a place for each 8 KiB of the budget, and for each shard.
func newFront[V any](maxBytes int64, shards int) front[V] {
	const most = 1 << 15
	places := min(max(maxBytes, 0)>>13, most) | 1
	return make(front[V], max(shards, 1<<(bits.Len64(uint64(places))-1)))
}

// bytes is what the places take that not every store has.
func (f front[V]) bytes(shards int) int64 { return int64(len(f)-shards) * 8 }

func (f front[V]) at(hash uint64) *atomic.Pointer[node[V]] { return &f[hash&uint64(len(f)-1)] }

// show has a node found; the shard's lock is held.
func (f front[V]) show(hash uint64, n *node[V]) { f.at(hash).Store(n) }

// hide has a node found no more; the shard's lock is held.
func (f front[V]) hide(hash uint64, n *node[V]) {
	if p := f.at(hash); p.Load() == n {
		p.Store(nil)
	}
}

// hideAll is hide for all of one shard of several.
func (f front[V]) hideAll(shard, shards int) {
	for i := shard; i < len(f); i += shards {
		f[i].Store(nil)
	}
}
