package flight

import (
	"bytes"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

const (
	groupShards = 64       // a power of two
	maxCalls    = 64 << 10 // under way at once; beyond, everyone is Alone
	shardCalls  = maxCalls / groupShards
)

// Role says what Join wants of the caller.
type Role uint8

const (
	// Lead means: fetch, and end the call with a verdict.
	Lead Role = iota + 1
	// Follow means: Wait for the verdict of the one who leads.
	Follow
	// Alone means: fetch without anybody who follows, for answers of this key
	// were refused of late. The Call is the zero value.
	Alone
)

// Group collapses fetches of one key into one call: the first to join leads it,
// and who joins until it ends follows. Use NewGroup. A Group is safe for
// concurrent use; it starts no goroutine and needs no end.
type Group[T any] struct {
	seed   maphash.Seed
	start  time.Time // refusals count from here, so that they fit a word
	shards [groupShards]shard[T]

	collapsed, failed, refused, timedOut, abandoned atomic.Uint64
}

type shard[T any] struct {
	mu      sync.Mutex
	calls   map[uint64]*call[T] // by hash; who has another's hash is Alone
	refused refusals

	_ [64]byte // keeps the next shard's mutex off this cache line
}

// GroupStats is what a group holds at about one instant, and what it did so far.
type GroupStats struct {
	Calls     int    // that may be joined
	Collapsed uint64 // followers that a leader's answer was shared with
	Failed    uint64 // followers that got a leader's failure
	Refused   uint64 // followers released because the answer may not be shared
	TimedOut  uint64 // followers that would not wait any longer
	Abandoned uint64 // leaders that left without a verdict
}

// NewGroup returns an empty group.
func NewGroup[T any]() *Group[T] {
	g := &Group[T]{seed: maphash.MakeSeed(), start: time.Now()}
	for i := range g.shards {
		g.shards[i].calls = make(map[uint64]*call[T])
	}
	return g
}

// Join joins the call of key, or leads a new one. The key is copied if need be.
//
// The call before may have ended, and what it shared may have been stored, after
// the caller looked there. So who leads looks once more before it fetches.
func (g *Group[T]) Join(key []byte, now time.Time) (Call[T], Role) {
	hash, sh := g.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c, role := sh.next(hash, key, g.at(now))
	switch {
	case role == Alone:
		return Call[T]{}, Alone
	case role == Follow:
		c.follow()
		return Call[T]{c: c}, Follow
	case c != nil:
		c.occupy()
	default:
		c = g.newCall(hash, key)
		sh.calls[hash] = c
	}
	return Call[T]{c, c.term}, Lead
}

// Peek returns what Join would want of the caller, who does not join.
func (g *Group[T]) Peek(key []byte, now time.Time) Role {
	hash, sh := g.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, role := sh.next(hash, key, g.at(now))
	return role
}

// next returns the part of the next to join, and the call, if there is one; sh.mu
// is held.
func (sh *shard[T]) next(hash uint64, key []byte, at time.Duration) (*call[T], Role) {
	c := sh.calls[hash]
	switch {
	case c == nil && (sh.refused.has(hash, at) || len(sh.calls) >= shardCalls), c != nil && !bytes.Equal(c.key, key):
		return nil, Alone
	case c == nil, c.vacant:
		return c, Lead
	}
	return c, Follow
}

// Take makes a new call of key for one who will lead it later, by Lead, unless
// there is one or answers of it are refused. Until then, the next to join leads.
func (g *Group[T]) Take(key []byte, now time.Time) (Call[T], bool) {
	hash, sh := g.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.calls[hash] != nil || sh.refused.has(hash, g.at(now)) || len(sh.calls) >= shardCalls {
		return Call[T]{}, false
	}
	c := g.newCall(hash, key)
	c.vacant = true
	sh.calls[hash] = c
	return Call[T]{c, c.term}, true
}

// Forget drops the memory that answers of key were refused: one came that may
// be shared.
func (g *Group[T]) Forget(key []byte) {
	hash, sh := g.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.refused.forget(hash)
}

// Detach lets nobody join the call of key any more, for what it will share was
// invalidated: the next to join leads a new call. Who waits already still gets
// its answer. That answers of key are refused stays remembered.
func (g *Group[T]) Detach(key []byte) {
	hash, sh := g.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if c := sh.calls[hash]; c != nil && bytes.Equal(c.key, key) {
		delete(sh.calls, hash)
	}
}

// DetachAll is Detach for every key.
func (g *Group[T]) DetachAll() {
	for i := range g.shards {
		sh := &g.shards[i]
		sh.mu.Lock()
		clear(sh.calls)
		sh.mu.Unlock()
	}
}

// Stats returns what the group holds and did.
func (g *Group[T]) Stats() GroupStats {
	s := GroupStats{
		Collapsed: g.collapsed.Load(),
		Failed:    g.failed.Load(),
		Refused:   g.refused.Load(),
		TimedOut:  g.timedOut.Load(),
		Abandoned: g.abandoned.Load(),
	}
	for i := range g.shards {
		sh := &g.shards[i]
		sh.mu.Lock()
		s.Calls += len(sh.calls)
		sh.mu.Unlock()
	}
	return s
}

// newCall copies the key into the call, where it has room for it.
func (g *Group[T]) newCall(hash uint64, key []byte) *call[T] {
	c := &call[T]{g: g, hash: hash, term: 1}
	c.key = append(c.short[:0], key...)
	return c
}

func (g *Group[T]) shard(key []byte) (hash uint64, sh *shard[T]) {
	hash = maphash.Bytes(g.seed, key)
	return hash, g.shardOf(hash)
}

func (g *Group[T]) shardOf(hash uint64) *shard[T] { return &g.shards[hash%groupShards] }

func (g *Group[T]) at(now time.Time) time.Duration { return now.Sub(g.start) }
