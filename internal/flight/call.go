package flight

import (
	"sync/atomic"
	"time"
)

// Outcome says what became of a follower's Wait.
type Outcome uint8

const (
	// Shared means that the value is the leader's answer.
	Shared Outcome = iota + 1
	// Refused means that the leader's answer may not be shared: fetch alone.
	Refused
	// Failed means that the value is the leader's failure: do not fetch.
	Failed
	// Promoted means that the leader left and the caller leads the call now.
	Promoted
	// TimedOut means that there is no verdict yet: fetch alone.
	TimedOut
	// Stopped means that the stop channel closed.
	Stopped
)

// Call is a caller's part in a fetch that is shared: to lead it or to follow.
// It is a small value and belongs to one goroutine at a time. The leader ends it
// by one of Share, Refuse and Fail, with a deferred Abandon for every way out
// that gives no verdict. A verdict that comes second, or from who led before,
// does nothing. The zero value is the part of one who fetches alone: its
// verdicts do nothing.
type Call[T any] struct {
	c    *call[T]
	term uint32 // 0: follows
}

// call is a fetch that callers share. The mutex is that of its shard.
type call[T any] struct {
	g     *Group[T]
	hash  uint64
	key   []byte // lies in short, as a rule
	short [192]byte

	v       T             // written before verdict
	verdict atomic.Uint32 // Shared, Refused or Failed; written under the mutex

	// The first follower makes both. The verdict closes done; lead holds a token
	// while the call has no leader, and whoever takes it may find that somebody
	// who has just joined was quicker.
	done, lead chan struct{}

	term    uint32 // counts leaders; guarded by the mutex, as are the next
	vacant  bool   // has no leader
	waiting int    // followers, until the verdict
}

// Key returns the key of a call that is led or followed. Nobody writes to it.
func (c *Call[T]) Key() []byte {
	if c.c == nil {
		return nil
	}
	return c.c.key
}

// Followers returns how many wait for the verdict.
func (c *Call[T]) Followers() int {
	if c.c == nil {
		return 0
	}
	mu := &c.c.shard().mu
	mu.Lock()
	defer mu.Unlock()
	return c.c.waiting
}

// Share gives v to all who follow, at once, and to all who join until Done.
func (c *Call[T]) Share(v T) {
	if c.c != nil {
		c.c.settle(c.term, Shared, v, 0)
	}
}

// Refuse releases all who follow, each to fetch alone, and the call ends. Who
// joins within d, at most two minutes, is Alone; zero and negative remember
// nothing.
func (c *Call[T]) Refuse(now time.Time, d time.Duration) {
	if c.c == nil {
		return
	}
	var none T
	var until time.Duration
	if d > 0 {
		until = c.c.g.at(now) + min(d, maxRefusal)
	}
	c.c.settle(c.term, Refused, none, until)
}

// Fail gives v to all who follow as what went wrong, and the call ends.
func (c *Call[T]) Fail(v T) {
	if c.c != nil {
		c.c.settle(c.term, Failed, v, 0)
	}
}

// Quit ends the call if nobody waits for its verdict, and reports that: there is
// nothing to Share. It also reports true if the call was not for the caller to
// end, or had ended.
func (c *Call[T]) Quit() bool {
	if c.c == nil {
		return true
	}
	sh := c.c.shard()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !c.c.open(c.term) {
		return true
	}
	if c.c.waiting > 0 {
		return false
	}
	c.c.verdict.Store(uint32(Refused)) // for nobody
	sh.remove(c.c)
	return true
}

// Done ends a shared call: nobody joins it any more. If what was shared goes to
// a store, it is there before. Without a verdict, Done is Abandon.
func (c *Call[T]) Done() {
	if c.c == nil {
		return
	}
	sh := c.c.shard()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch {
	case c.c.open(c.term):
		c.c.abandon()
	case c.term == c.c.term && !c.c.vacant:
		sh.remove(c.c)
	}
}

// Lead begins the lead of a call that was taken, and reports false if others
// have led it by now: there is nothing left to do.
func (c *Call[T]) Lead() bool {
	if c.c == nil {
		return false
	}
	mu := &c.c.shard().mu
	mu.Lock()
	defer mu.Unlock()
	if c.term != c.c.term || !c.c.vacant {
		return false
	}
	c.c.vacant = false
	return true
}

// Abandon ends the lead of a caller that gave no verdict. One who follows leads
// from now on, or the next to join; without followers the call ends. So does one
// that was taken and not led.
func (c *Call[T]) Abandon() {
	if c.c == nil {
		return
	}
	mu := &c.c.shard().mu
	mu.Lock()
	defer mu.Unlock()
	switch {
	case c.c.open(c.term):
		c.c.abandon()
	case c.term == c.c.term && c.c.vacant:
		c.c.pass()
	}
}

// Wait returns what became of the call that the caller follows, with the
// leader's value if it is Shared or Failed. It returns when stop closes, which a
// nil stop never does, and after timeout, unless that is zero or negative. After
// Promoted the caller leads, and ends the call like any leader. It is called
// once.
func (c *Call[T]) Wait(stop <-chan struct{}, timeout time.Duration) (v T, o Outcome) {
	if c.c == nil {
		return v, Refused
	}
	if v, o = c.c.result(); o != 0 { // before there was a need to wait
		return v, o
	}
	var late <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		late = t.C
	}
	for {
		select {
		case <-c.c.done:
			return c.c.result()
		case <-c.c.lead:
			if o = c.promote(stop); o != 0 {
				return v, o
			}
		case <-late:
			if c.c.leave() {
				c.c.g.timedOut.Add(1)
				return v, TimedOut
			}
			return c.c.result()
		case <-stop:
			c.c.leave()
			return v, Stopped
		}
	}
}

// promote makes the caller, who holds the token, the leader, unless another was
// quicker. Who has stopped passes it on.
func (c *Call[T]) promote(stop <-chan struct{}) Outcome {
	mu := &c.c.shard().mu
	mu.Lock()
	defer mu.Unlock()
	if !c.c.vacant {
		return 0
	}
	c.c.waiting--
	select {
	case <-stop:
		c.c.pass()
		return Stopped
	default:
	}
	c.c.occupy()
	c.term = c.c.term
	return Promoted
}

func (c *call[T]) shard() *shard[T] { return c.g.shardOf(c.hash) }

// settle gives the verdict, which all who wait learn from one channel.
func (c *call[T]) settle(term uint32, o Outcome, v T, until time.Duration) {
	sh := c.shard()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !c.open(term) {
		return
	}
	c.v = v
	c.verdict.Store(uint32(o))
	if c.done != nil {
		close(c.done)
	}
	c.waiting = 0
	if o != Shared {
		sh.remove(c)
	}
	if until > 0 {
		sh.refused.add(c.hash, until)
	}
}

// result returns the verdict for one who follows, and counts that; it is zero
// where there is none yet.
func (c *call[T]) result() (v T, o Outcome) {
	o = Outcome(c.verdict.Load())
	switch o {
	case Shared:
		c.g.collapsed.Add(1)
	case Failed:
		c.g.failed.Add(1)
	case Refused:
		c.g.refused.Add(1)
	default:
		return v, 0
	}
	return c.v, o
}

// leave takes one who follows out, if there is no verdict yet. With the last of
// them goes a call that nobody leads.
func (c *call[T]) leave() bool {
	sh := c.shard()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if c.verdict.Load() != 0 {
		return false
	}
	c.waiting--
	if c.vacant {
		c.pass()
	}
	return true
}

// From here on the mutex is held.

// open reports whether the leader of that term may give the verdict.
func (c *call[T]) open(term uint32) bool {
	return term == c.term && !c.vacant && c.verdict.Load() == 0
}

// follow counts one more who waits, if there is something to wait for.
func (c *call[T]) follow() {
	if c.verdict.Load() != 0 {
		return
	}
	if c.done == nil {
		c.done, c.lead = make(chan struct{}), make(chan struct{}, 1)
	}
	c.waiting++
}

func (c *call[T]) abandon() {
	c.g.abandoned.Add(1)
	c.vacant = true
	c.pass()
}

// pass offers the lead to one who waits. A call without anybody is gone.
func (c *call[T]) pass() {
	if c.waiting == 0 {
		c.shard().remove(c)
		return
	}
	select {
	case c.lead <- struct{}{}:
	default: // it is there
	}
}

// occupy begins the term of a new leader.
func (c *call[T]) occupy() {
	c.vacant = false
	c.term++
	select {
	case <-c.lead:
	default: // somebody has it and will see
	}
}

func (sh *shard[T]) remove(c *call[T]) {
	if sh.calls[c.hash] == c { // it may be detached
		delete(sh.calls, c.hash)
	}
}
