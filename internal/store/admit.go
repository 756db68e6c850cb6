package store

import (
	"math/bits"
	"sync/atomic"
)

// Admit reports whether a value of key is worth room now. While there is
// enough, each is. While others would have to go for it, only a key that has
// a value, or that Admit was asked for before: a crowd of keys that each come
// once does not drive out what is in use. Ask it once for each fetch, before
// bytes are reserved.
func (s *Store[V]) Admit(id Scope, key []byte) bool {
	full := stillFull(&s.door.full, s.used(), s.budget.Load())
	if sc := s.scopes.get(id); sc != nil && !full {
		full = stillFull(&sc.full, sc.used(), sc.share.Load())
	}
	if !full {
		return true
	}
	hash, sh := s.shard(key)
	sh.mu.Lock()
	_, has := sh.find(hash, key)
	sh.mu.Unlock()
	if has || s.door.seen(hash) {
		return true
	}
	s.door.refused.Add(1)
	return false
}

// stillFull lowers a flag that an eviction has raised once much is free again.
func stillFull(full *atomic.Bool, used, budget int64) bool {
	if !full.Load() {
		return false
	}
	if used > budget-budget/4 {
		return true
	}
	full.Store(false)
	return false
}

// doorkeeper remembers keys that came lately, four in each word by 16 bits of
// their hashes. The next that comes to a word drives out the oldest of its
// four, so that it forgets by itself. It takes one key of 16,000 for another.
type doorkeeper struct {
	words   []atomic.Uint64 // a power of two, or none
	full    atomic.Bool     // the store evicted, and uses most of its budget yet
	refused atomic.Uint64
}

// newDoorkeeper takes no more than 1/256 of the budget: a key for each half KiB.
func newDoorkeeper(maxBytes int64) doorkeeper {
	const most = 1 << 20
	words := min(maxBytes/(256*8), most)
	if words <= 0 {
		return doorkeeper{}
	}
	return doorkeeper{words: make([]atomic.Uint64, 1<<(bits.Len64(uint64(words))-1))}
}

func (d *doorkeeper) bytes() int64 { return int64(len(d.words)) * 8 }

// seen reports whether the hash came lately, and remembers it.
func (d *doorkeeper) seen(hash uint64) bool {
	if len(d.words) == 0 {
		return true
	}
	word := &d.words[hash>>8&uint64(len(d.words)-1)] // the shard's bits are the lowest
	mark := max(hash>>48, 1)                         // 0 is nobody's
	for {
		old := word.Load()
		for rest := old; rest != 0; rest >>= 16 {
			if rest&0xffff == mark {
				return true
			}
		}
		if word.CompareAndSwap(old, old<<16|mark) {
			return false
		}
	}
}
