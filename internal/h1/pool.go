package h1

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

var (
	// ErrClosed is what a pool refuses callers with once it is closed, those that
	// wait among them.
	ErrClosed = errors.New("the pool is closed")

	// ErrAcquireTimeout is a wait for a connection that the pool's own bound ended.
	ErrAcquireTimeout = errors.New("no connection became free in time")
)

// PoolConfig says how many connections there are, and how long each lives.
type PoolConfig struct {
	Max int // connections, dials under way included; less than 1: 1
	Min int // connections kept warm, from the first dial or Warm on; at most Max

	IdleTimeout    time.Duration // the most that a connection lies idle; 0: for ever
	MaxAge         time.Duration // the most that a connection is given out at, up to a tenth less for each; 0: any
	AcquireTimeout time.Duration // the most that a caller waits for a slot; 0: its own time
	NoReuse        bool          // each connection is given out once

	// Dial connects. Its errors become DialErrors, unless they are.
	Dial func(context.Context) (net.Conn, error)

	// Closed is told how long each connection has lived, when it is closed. It must
	// not block. Nil: nobody is.
	Closed func(lived time.Duration)

	// Go runs a task on a goroutine of its own, or reports that it does not. Nil:
	// nothing is kept warm, and idle connections live for ever.
	Go func(name string, f func()) bool
}

const (
	sweepEvery = time.Second           // at most
	sweepLeast = 10 * time.Millisecond // however short the times are
	warmFirst  = time.Second           // the wait after a warm dial failed, doubled each time, ±50 %
	warmMost   = 30 * time.Second
)

// pool keeps the connections to one endpoint. It is safe for concurrent use.
//
// Whoever holds a slot may hold a connection, and there are Max slots. An idle
// connection is in no slot: whoever gets a slot takes an idle connection and
// dials only if there is none, so idle and in use together never exceed Max.
type pool struct {
	PoolConfig
	every time.Duration // between two sweeps
	slots *semaphore.Weighted

	closing context.Context // ended by Close
	cancel  context.CancelFunc
	keeping context.Context // ended by Retire, too: nothing is kept warm any more
	forget  context.CancelFunc
	sweeps  sync.WaitGroup // Add under mu while not retired

	mu       sync.Mutex
	closed   bool
	retired  bool    // or closed
	idle     []*conn // a stack: the next one is at the end
	open     int     // connections, and dials under way
	dialing  int
	timer    *time.Timer
	armed    bool // the timer runs, or a sweep that will set it again
	warming  bool // a task dials
	failures int  // of warm dials, since any dial came off
	warmAt   time.Time
	counts   Stats // but for what stats sets
}

func newPool(c PoolConfig) *pool {
	c.Max = max(c.Max, 1)
	c.Min = min(max(c.Min, 0), c.Max)
	p := &pool{PoolConfig: c, every: sweepEvery, slots: semaphore.NewWeighted(int64(c.Max))}
	for _, d := range []time.Duration{c.IdleTimeout, c.MaxAge} {
		if d > 0 {
			p.every = max(min(p.every, d/8), sweepLeast)
		}
	}
	p.closing, p.cancel = context.WithCancel(context.Background())
	p.keeping, p.forget = context.WithCancel(p.closing)
	p.counts.Discards = make(map[Discard]uint64)
	return p
}

// tryGet returns an idle connection if one may be had at once, and nil
// otherwise. The caller looks at it before use, and gives it to put or drop.
func (p *pool) tryGet() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 || !p.slots.TryAcquire(1) {
		return nil
	}
	return p.pop()
}

// slot has a slot for its caller, who goes on with fill. Callers are served in
// their order. It fails with what ended ctx, ErrAcquireTimeout or ErrClosed.
func (p *pool) slot(ctx context.Context) error {
	if p.trySlot(ctx) {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.wait(ctx)
}

// trySlot is slot without a wait.
func (p *pool) trySlot(ctx context.Context) bool { return ctx.Err() == nil && p.slots.TryAcquire(1) }

// ready is fill where a connection is there already, and nil otherwise.
func (p *pool) ready() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) == 0 {
		return nil
	}
	return p.pop()
}

// replace is drop, slot and fill in one, without going to the end of the queue.
func (p *pool) replace(ctx context.Context, c *conn, why Discard) (*conn, error) {
	closed := false
	defer func() {
		if !closed { // a panic
			p.slots.Release(1)
		}
	}()
	p.discard(c, why)
	closed = true
	return p.fill(ctx)
}

// put takes a connection back that can be used again, and was until now.
func (p *pool) put(c *conn, now time.Time) {
	c.used = now
	c.uses = max(c.uses, 1) // from now on it may die unseen
	switch {
	case p.NoReuse:
		p.retire(c, DiscardNotReusable)
	case p.overdue(c.born, p.MaxAge, c.used):
		p.retire(c, DiscardAge)
	default:
		p.shelve(c, p.Max)
	}
}

// drop closes a connection that cannot be used again.
func (p *pool) drop(c *conn, why Discard) {
	defer p.slots.Release(1)
	p.discard(c, why)
}

// Close closes what is idle and refuses all who have no connection yet. What is
// in use, or being dialled for a caller, closes when it is put back. Close
// waits for a sweep that is under way; a dial to keep connections warm is
// called off. It may be called again.
func (p *pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.Retire()
	p.sweeps.Wait()
}

// Retire closes what is idle, and whatever is put back from now on. Who comes
// yet is served, by a connection of its own. It may be called again.
func (p *pool) Retire() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.retired = nil, true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	p.forget()
	for _, c := range idle {
		p.letGo(c)
	}
}

// letGo closes an idle connection. A panic of its Close does not keep others.
func (p *pool) letGo(c *conn) {
	why := lookAt(c, DiscardShutdown)
	defer answerFor(c, why)
	defer func() { _ = recover() }()
	p.discard(c, why)
}

// wait queues for a slot.
func (p *pool) wait(ctx context.Context) error {
	p.mu.Lock()
	p.counts.Waiting++
	p.counts.Waits++
	p.mu.Unlock()
	start := time.Now()
	err := p.queue(ctx)
	p.mu.Lock()
	p.counts.Waiting--
	p.counts.WaitTime += time.Since(start)
	if err == ErrAcquireTimeout { //nolint:errorlint // queue's own
		p.counts.AcquireTimeouts++
	}
	p.mu.Unlock()
	return err
}

func (p *pool) queue(ctx context.Context) error {
	bounded, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.closing, cancel)()
	if p.AcquireTimeout > 0 {
		defer time.AfterFunc(p.AcquireTimeout, cancel).Stop()
	}
	switch {
	case p.slots.Acquire(bounded, 1) == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case p.closing.Err() != nil:
		return ErrClosed
	}
	return ErrAcquireTimeout
}

// fill has a connection for the slot that its caller holds, as tryGet does, or a
// new one with no uses; or it gives the slot back. It fails with what ended ctx,
// ErrClosed or a DialError.
func (p *pool) fill(ctx context.Context) (*conn, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.slots.Release(1)
		return nil, ErrClosed
	}
	if len(p.idle) > 0 {
		defer p.mu.Unlock()
		return p.pop(), nil
	}
	p.open++
	p.dialing++
	first := p.Min > 0 && !p.armed && !p.retired // from then on sweeps see to what is warm: no dial brings others along
	p.mu.Unlock()
	if first {
		p.warm()
	}
	return p.dial(ctx)
}

// pop takes the connection that was used last. It is called under mu, in a
// slot, and with one idle.
func (p *pool) pop() *conn {
	last := len(p.idle) - 1
	c := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	p.counts.Reuses++
	return c
}

// dial connects, for a slot that was counted. Without success the slot is given
// back, even if Dial panics.
func (p *pool) dial(ctx context.Context) (c *conn, err error) {
	defer func() { p.dialled(c) }()
	nc, err := p.Dial(ctx)
	if err == nil && nc == nil {
		err = errNoConn
	}
	if err != nil {
		return nil, dialError(ctx, err)
	}
	born := time.Now()
	c = newConn(nc, born)
	if p.MaxAge > 0 { // what was dialled together does not end together
		c.born = born.Add(-rand.N(p.MaxAge/10 + 1))
	}
	return c, nil
}

func (p *pool) dialled(c *conn) {
	p.mu.Lock()
	p.dialing--
	p.counts.Dials++
	if c != nil {
		p.failures, p.warmAt = 0, time.Time{}
		p.mu.Unlock()
		return
	}
	p.open--
	p.counts.DialErrors++
	p.mu.Unlock()
	p.slots.Release(1)
}

// shelve makes c idle, at place i of the stack or at its end, and gives its
// slot to the longest waiter, who finds it there.
func (p *pool) shelve(c *conn, i int) {
	p.mu.Lock()
	if p.retired {
		p.mu.Unlock()
		p.retire(c, DiscardShutdown)
		return
	}
	p.idle = slices.Insert(p.idle, min(i, len(p.idle)), c)
	p.arm()
	p.mu.Unlock()
	p.slots.Release(1)
}

// retire drops a connection that was fine so far, after a last look at it.
func (p *pool) retire(c *conn, why Discard) {
	why = lookAt(c, why)
	p.drop(c, why)
	answerFor(c, why)
}

// lookAt looks at a connection that is not in use. The reason to close it is
// why, unless there is a better one.
func lookAt(c *conn, why Discard) Discard {
	switch c.look() {
	case lookClosed:
		return DiscardClosed
	case lookSurplus:
		return DiscardSurplus
	}
	return why
}

// answerFor removes what the last response of a closed connection left, if more
// came than that response: it was not what it seemed. The connection is gone by
// then, so that a panic costs nothing.
func answerFor(c *conn, why Discard) {
	if why == DiscardSurplus && c.surplus != nil {
		c.surplus()
	}
}

// discard closes c, which may panic, and leaves its slot to the caller.
func (p *pool) discard(c *conn, why Discard) {
	defer p.discarded(c, why)
	c.close()
}

func (p *pool) discarded(c *conn, why Discard) {
	p.mu.Lock()
	p.open--
	p.counts.Discards[why]++
	p.mu.Unlock()
	if p.Closed != nil {
		p.Closed(time.Since(c.since))
	}
}

// overdue reports whether a connection that may stay for most from since on
// would stay longer before it is seen again. A most of 0 is for ever.
func (p *pool) overdue(since time.Time, most time.Duration, now time.Time) bool {
	return most > 0 && now.Sub(since)+p.every >= most
}

// arm has a sweep come, if none will. It is called under mu.
func (p *pool) arm() {
	if p.armed || p.retired || p.Go == nil {
		return
	}
	p.armed = true
	if p.timer == nil {
		p.timer = time.AfterFunc(p.every, p.due)
		return
	}
	p.timer.Reset(p.every)
}

// due starts a sweep.
func (p *pool) due() {
	p.mu.Lock()
	if p.retired {
		p.mu.Unlock()
		return
	}
	p.sweeps.Add(1)
	p.mu.Unlock()
	if !p.Go("pool sweep", p.sweep) {
		p.sweeps.Done()
	}
}

// sweep closes the idle connections whose time is over, or that the upstream
// has closed or written to. Each is looked at in a slot, as by any user.
func (p *pool) sweep() {
	defer p.sweeps.Done()
	defer p.rearm()
	for i := 0; ; {
		c := p.take(i)
		if c == nil {
			return
		}
		why := lookAt(c, p.expired(c))
		if why == "" {
			p.shelve(c, i)
			i++
			continue
		}
		p.drop(c, why)
		answerFor(c, why)
	}
}

// expired says which time of an idle connection is over, if one is.
func (p *pool) expired(c *conn) Discard {
	now := time.Now()
	switch {
	case p.overdue(c.used, p.IdleTimeout, now):
		return DiscardIdle
	case p.overdue(c.born, p.MaxAge, now):
		return DiscardAge
	}
	return ""
}

// take takes the idle connection at place i, if there is one and a slot for it.
func (p *pool) take(i int) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i >= len(p.idle) || !p.slots.TryAcquire(1) {
		return nil
	}
	c := p.idle[i]
	p.idle = slices.Delete(p.idle, i, i+1)
	return c
}

// rearm has the next sweep come, as long as there is something to look after.
func (p *pool) rearm() {
	p.mu.Lock()
	p.armed = false
	if len(p.idle) > 0 || p.Min > 0 {
		p.arm()
	}
	p.mu.Unlock()
	p.warm()
}

// warm sees to it that there are Min connections, from now on.
func (p *pool) warm() {
	p.mu.Lock()
	if p.Min == 0 || p.retired || p.Go == nil {
		p.mu.Unlock()
		return
	}
	p.arm()
	start := !p.warming && p.open < p.Min && !time.Now().Before(p.warmAt)
	p.warming = p.warming || start
	p.mu.Unlock()
	if start && !p.Go("pool warming", p.refill) {
		p.warmed()
	}
}

// refill dials one connection after the other until there are Min. A failure
// ends it for a while.
func (p *pool) refill() {
	defer p.warmed()
	for p.lacks() {
		c, err := p.dial(p.keeping)
		if err != nil {
			p.failed()
			return
		}
		c.uses = 1 // from now on it may die unseen
		c.used = time.Now()
		p.shelve(c, p.Max)
	}
}

// lacks counts a dial, in a slot, if there are less than Min connections.
func (p *pool) lacks() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired || p.open >= p.Min || !p.slots.TryAcquire(1) {
		return false
	}
	p.open++
	p.dialing++
	return true
}

// failed puts the next warm dial off.
func (p *pool) failed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait := min(warmFirst<<min(p.failures, 10), warmMost)
	p.failures++
	p.warmAt = time.Now().Add(wait/2 + rand.N(wait))
}

func (p *pool) warmed() {
	p.mu.Lock()
	p.warming = false
	p.mu.Unlock()
}
