package h1

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// get is what a client does where tryGet has nothing.
func (p *pool) get(ctx context.Context) (*conn, error) {
	if err := p.slot(ctx); err != nil {
		return nil, err
	}
	return p.fill(ctx)
}

// endpoint is what a pool under test connects to. It judges how: never more
// than most connections, each closed once.
type endpoint struct {
	t    testing.TB
	most int
	hook func(context.Context) error // of each dial

	mu    sync.Mutex
	live  int
	peak  int
	dials int
	conns []*fakeConn
	lived []time.Duration // of those that are closed
	tasks sync.WaitGroup
}

func (e *endpoint) dial(ctx context.Context) (net.Conn, error) {
	e.mu.Lock()
	e.dials++
	hook := e.hook
	e.mu.Unlock()
	if hook != nil {
		if err := hook(ctx); err != nil {
			return nil, err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := &fakeConn{endpoint: e}
	e.conns = append(e.conns, c)
	e.live++
	if e.peak = max(e.peak, e.live); e.peak > e.most {
		e.t.Errorf("%d connections, %d allowed", e.live, e.most)
	}
	return c, nil
}

func (e *endpoint) run(_ string, f func()) bool { e.tasks.Go(f); return true }

func (e *endpoint) set(hook func(context.Context) error) {
	e.mu.Lock()
	e.hook = hook
	e.mu.Unlock()
}

func (e *endpoint) count() (live, dials int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.live, e.dials
}

// fakeConn never blocks, and says to whoever reads what seen says.
type fakeConn struct {
	net.Conn
	endpoint *endpoint
	seen     atomic.Int32
	closed   atomic.Bool
	looks    atomic.Int32
	slow     atomic.Int64  // what a look takes
	lingers  time.Duration // what Close takes
}

func (c *fakeConn) Read([]byte) (int, error) {
	c.looks.Add(1)
	if d := c.slow.Load(); d > 0 {
		time.Sleep(time.Duration(d)) // in a synctest bubble
	}
	switch look(c.seen.Load()) {
	case lookClosed:
		return 0, io.EOF
	case lookSurplus:
		return 1, nil
	}
	return 0, os.ErrDeadlineExceeded
}

func (c *fakeConn) SetReadDeadline(time.Time) error { return nil }

func (c *fakeConn) Close() error {
	if c.closed.Swap(true) {
		c.endpoint.t.Error("closed twice")
		return nil
	}
	if c.lingers > 0 {
		time.Sleep(c.lingers) // in a synctest bubble
	}
	c.endpoint.mu.Lock()
	c.endpoint.live--
	c.endpoint.mu.Unlock()
	return nil
}

func fakeOf(c *conn) *fakeConn { return c.Conn.(*fakeConn) }

func testPool(t testing.TB, c PoolConfig) (*pool, *endpoint) {
	e := &endpoint{t: t, most: max(c.Max, 1)}
	if c.Dial == nil {
		c.Dial = e.dial
	}
	if c.Go == nil {
		c.Go = e.run
	}
	if c.Closed == nil {
		c.Closed = func(lived time.Duration) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.lived = append(e.lived, lived)
		}
	}
	return newPool(c), e
}

// endPool closes p and sees to it that nothing is left: no connection, no slot.
func endPool(t testing.TB, p *pool, e *endpoint) {
	t.Helper()
	p.Close()
	e.tasks.Wait()
	live, dials := e.count()
	s := p.stats()
	assert.Zero(t, live, "connections left")
	assert.Equal(t, [4]int64{}, [4]int64{s.Open, s.Idle, s.InUse, s.Waiting})
	assert.EqualValues(t, dials, s.Dials)
	var discards uint64
	for _, n := range s.Discards {
		discards += n
	}
	assert.Equal(t, s.Dials-s.DialErrors, discards, "each connection is discarded for one reason")
	assert.Len(t, e.lived, int(discards), "and told of once")
	assert.True(t, p.slots.TryAcquire(int64(p.Max)), "a slot was lost")
	assert.False(t, p.slots.TryAcquire(1), "a slot was found")
}

func mustGet(t testing.TB, p *pool) *conn {
	t.Helper()
	c, err := p.get(t.Context())
	assert.NoError(t, err)
	return c
}

func TestSixthCallerWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 5})
		defer endPool(t, p, e)
		var taken []*conn
		for range 5 {
			taken = append(taken, mustGet(t, p))
		}
		require.Nil(t, p.tryGet())

		// The sixth ends by its own deadline.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		_, err := p.get(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(begin))
		require.NotErrorIs(t, err, ErrAcquireTimeout)

		// When one is returned the longest waiter gets it.
		got := make(chan int, 3)
		for i := range 3 {
			go func() {
				c := mustGet(t, p)
				got <- i
				time.Sleep(time.Second)
				p.put(c, time.Now())
			}()
			synctest.Wait()
		}
		require.EqualValues(t, 3, p.stats().Waiting)
		time.Sleep(time.Second)
		p.put(taken[0], time.Now())
		require.Nil(t, p.tryGet(), "it is the waiter's")
		for i := range 3 {
			require.Equal(t, i, <-got)
		}
		s := p.stats()
		assert.EqualValues(t, 5, s.Dials)
		assert.EqualValues(t, 3, s.Reuses)
		assert.EqualValues(t, 4, s.Waits)
		assert.Equal(t, (1+1+2+3)*time.Second, s.WaitTime)
		assert.Zero(t, s.AcquireTimeouts)
		for _, c := range taken[1:] {
			p.put(c, time.Now())
		}
		time.Sleep(time.Second)
		synctest.Wait() // for the last waiter
	})
}

// However a slot comes free, and whoever leaves the queue, those who stay are
// served in their order.
func TestWaitersAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 1})
		defer endPool(t, p, e)
		c := mustGet(t, p)
		type turn struct {
			i int
			c *conn
		}
		turns := make(chan turn)
		var cancels []context.CancelFunc
		for i := range 6 {
			ctx, cancel := context.WithCancel(t.Context())
			cancels = append(cancels, cancel)
			go func() {
				if c, err := p.get(ctx); err == nil {
					turns <- turn{i, c}
				}
			}()
			synctest.Wait()
		}
		give := []func(*conn){func(c *conn) { p.put(c, time.Now()) }, func(c *conn) { p.drop(c, DiscardError) }}
		cancels[0]() // the first in the queue
		cancels[3]() // one from within
		synctest.Wait()
		for n, want := range []int{1, 2, 4, 5} {
			give[n%2](c)
			require.Nil(t, p.tryGet(), "nobody overtakes")
			next := <-turns
			require.Equal(t, want, next.i)
			c = next.c
		}
		p.put(c, time.Now())
		for _, cancel := range cancels {
			cancel()
		}
		assert.EqualValues(t, 2, p.stats().Discards[DiscardError])
	})
}

// A caller whose turn has come and gone in the same instant leaves the slot to
// the next.
func TestSlotOfALeavingWaiterIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 1})
		defer endPool(t, p, e)
		for range 100 {
			c := mustGet(t, p)
			ctx, cancel := context.WithCancel(t.Context())
			var waiters sync.WaitGroup
			waiters.Go(func() {
				if c, err := p.get(ctx); err == nil {
					p.put(c, time.Now())
				}
			})
			waiters.Go(func() { p.put(mustGet(t, p), time.Now()) })
			synctest.Wait()
			go cancel()
			p.put(c, time.Now())
			waiters.Wait()
		}
	})
}

func TestWaitsEnd(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	for _, tt := range []struct {
		name    string
		acquire time.Duration
		ctx     func(context.Context) (context.Context, context.CancelFunc)
		closes  time.Duration
		want    error
		after   time.Duration
	}{
		{"by the pool's bound", time.Second, context.WithCancel, 0, ErrAcquireTimeout, time.Second},
		{"by the caller's deadline", 2 * time.Second, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, time.Second, cause)
		}, 0, cause, time.Second},
		{"before they begin", time.Second, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(cause)
			return ctx, func() {}
		}, 0, cause, 0},
		{"by Close", time.Minute, context.WithCancel, time.Second, ErrClosed, time.Second},
		{"by Close, without a bound", 0, context.WithCancel, time.Second, ErrClosed, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, e := testPool(t, PoolConfig{Max: 1, AcquireTimeout: tt.acquire})
				defer endPool(t, p, e)
				c := mustGet(t, p)
				defer p.put(c, time.Now())
				if tt.closes > 0 {
					time.AfterFunc(tt.closes, p.Close)
				}
				ctx, cancel := tt.ctx(t.Context())
				defer cancel()
				begin := time.Now()
				_, err := p.get(ctx)
				require.ErrorIs(t, err, tt.want)
				require.Equal(t, tt.after, time.Since(begin))
				s := p.stats()
				require.Zero(t, s.Waiting)
				require.Equal(t, tt.want == ErrAcquireTimeout, s.AcquireTimeouts == 1)
			})
		})
	}
}

func TestLastUsedIsNext(t *testing.T) {
	t.Parallel()
	p, e := testPool(t, PoolConfig{Max: 3})
	defer endPool(t, p, e)
	require.Nil(t, p.tryGet(), "there is none yet")
	a, b, c := mustGet(t, p), mustGet(t, p), mustGet(t, p)
	require.Zero(t, a.uses)
	p.put(b, time.Now())
	p.put(c, time.Now())
	p.put(a, time.Now())
	require.Same(t, a, p.tryGet())
	require.NotZero(t, a.uses, "it may have died unseen")
	require.Same(t, c, mustGet(t, p))
	require.Same(t, b, p.tryGet())
	require.Nil(t, p.tryGet())
	p.drop(a, DiscardNotReusable)
	p.drop(b, DiscardNotReusable)
	p.put(c, time.Now())
	assert.EqualValues(t, 3, p.stats().Reuses)
}

// One caller after the other finds what died in the meantime: none of them goes
// to the end of the queue for it.
func TestReplaceKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 2})
		defer endPool(t, p, e)
		a, b := mustGet(t, p), mustGet(t, p)
		p.put(b, time.Now())
		b = p.tryGet()
		var got *conn
		go func() { got = mustGet(t, p) }()
		synctest.Wait()
		c, err := p.replace(t.Context(), a, DiscardSurplus)
		require.NoError(t, err)
		require.Nil(t, got, "the waiter still waits")
		require.Zero(t, c.uses)

		e.set(func(context.Context) error { return io.ErrClosedPipe })
		_, err = p.replace(t.Context(), c, DiscardClosed)
		require.ErrorIs(t, err, io.ErrClosedPipe)
		e.set(nil)
		p.put(b, time.Now())
		synctest.Wait()
		require.NotNil(t, got)
		p.put(got, time.Now())
		assert.Equal(t, map[Discard]uint64{DiscardSurplus: 1, DiscardClosed: 1}, p.stats().Discards)
	})
}

func TestFailedDialsGiveTheirSlotBack(t *testing.T) {
	t.Parallel()
	cause, refused := errors.New("cause"), &net.OpError{Op: "dial", Err: errors.New("refused")}
	ended, cancel := context.WithCancelCause(t.Context())
	var next func(context.Context) (net.Conn, error)
	p, e := testPool(t, PoolConfig{Max: 1, Dial: func(ctx context.Context) (net.Conn, error) { return next(ctx) }})
	for _, tt := range []struct {
		name string
		ctx  context.Context
		dial func(context.Context) (net.Conn, error)
		want error
	}{
		{"an error", t.Context(), func(context.Context) (net.Conn, error) { return nil, refused }, refused},
		{"a DialError", t.Context(), func(context.Context) (net.Conn, error) { return nil, &DialError{refused} }, refused},
		{"no connection", t.Context(), func(context.Context) (net.Conn, error) { return nil, nil }, errNoConn}, //nolint:nilnil // it is the case
		{"the caller left", ended, func(context.Context) (net.Conn, error) { cancel(cause); return nil, refused }, cause},
	} {
		next = tt.dial
		_, err := p.get(tt.ctx)
		require.ErrorIs(t, err, tt.want, tt.name)
		var dial *DialError
		require.ErrorAs(t, err, &dial, tt.name)
		require.NotErrorAs(t, dial.Err, &dial, tt.name)
	}
	next = func(context.Context) (net.Conn, error) { panic(cause) }
	require.PanicsWithValue(t, cause, func() { p.get(t.Context()) })
	s := p.stats()
	require.EqualValues(t, 5, s.DialErrors)
	require.EqualValues(t, 5, s.Dials)
	e.dials = 5
	endPool(t, p, e)
}

func TestDialsThatFailLetTheNextTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 2})
		defer endPool(t, p, e)
		e.set(func(context.Context) error { time.Sleep(time.Second); return io.ErrClosedPipe })
		begin := time.Now()
		var callers sync.WaitGroup
		for range 6 {
			callers.Go(func() {
				_, err := p.get(t.Context())
				assert.ErrorIs(t, err, io.ErrClosedPipe)
			})
		}
		callers.Wait()
		require.Equal(t, 3*time.Second, time.Since(begin))
	})
}

// A connection counts until it is closed.
func TestNoneIsMadeBeforeAnotherIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 1})
		defer endPool(t, p, e)
		c := mustGet(t, p)
		fakeOf(c).lingers = time.Second
		begin := time.Now()
		go p.drop(c, DiscardError)
		c = mustGet(t, p)
		require.Equal(t, time.Second, time.Since(begin))
		fakeOf(c).lingers = time.Second
		c, err := p.replace(t.Context(), c, DiscardClosed)
		require.NoError(t, err)
		p.put(c, time.Now())
	})
}

func TestNoReuse(t *testing.T) {
	t.Parallel()
	p, e := testPool(t, PoolConfig{Max: 2, NoReuse: true})
	defer endPool(t, p, e)
	for range 3 {
		p.put(mustGet(t, p), time.Now())
		require.Nil(t, p.tryGet())
	}
	c := mustGet(t, p)
	fakeOf(c).seen.Store(int32(lookSurplus))
	told := false
	c.surplus = func() { told = true }
	p.put(c, time.Now())
	require.True(t, told, "the last response was not what it seemed")
	require.Equal(t, map[Discard]uint64{DiscardNotReusable: 3, DiscardSurplus: 1}, p.stats().Discards)
}

func TestLimitsAreBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ highest, lowest, wantMax, wantMin int }{
		{0, 0, 1, 0}, {-5, -5, 1, 0}, {0, 3, 1, 1}, {4, 9, 4, 4}, {4, 2, 4, 2},
	} {
		p := newPool(PoolConfig{Max: tt.highest, Min: tt.lowest})
		assert.Equal(t, []int{tt.wantMax, tt.wantMin}, []int{p.Max, p.Min})
		p.Close()
	}
}

func TestClosedPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 4})
		busy, idle, odd := mustGet(t, p), mustGet(t, p), mustGet(t, p)
		e.set(func(context.Context) error { time.Sleep(time.Second); return nil })
		var dialled *conn
		go func() { dialled = mustGet(t, p) }()
		synctest.Wait()
		p.put(idle, time.Now())
		p.put(odd, time.Now())
		told := 0
		odd.surplus = func() { told++ }
		fakeOf(odd).seen.Store(int32(lookSurplus))

		p.Close()
		p.Close()
		require.True(t, fakeOf(idle).closed.Load())
		require.False(t, fakeOf(busy).closed.Load())
		require.Equal(t, 1, told)
		require.Nil(t, p.tryGet())
		_, err := p.get(t.Context())
		require.ErrorIs(t, err, ErrClosed)
		time.Sleep(time.Second)
		synctest.Wait()
		require.NotNil(t, dialled, "what was begun is not dropped")
		p.put(busy, time.Now())
		p.put(dialled, time.Now())
		assert.Equal(t, map[Discard]uint64{DiscardShutdown: 3, DiscardSurplus: 1}, p.stats().Discards)
		endPool(t, p, e)
	})
}

// Who comes to a retired pool is served, in its turn, and leaves nothing behind.
func TestRetiredPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 2, Min: 2})
		busy, idle := mustGet(t, p), mustGet(t, p)
		synctest.Wait()
		p.put(idle, time.Now())
		other := mustGet(t, p)
		var waited *conn
		go func() { waited = mustGet(t, p) }()
		synctest.Wait()
		require.Nil(t, waited)

		p.Retire()
		p.Retire()
		require.False(t, fakeOf(busy).closed.Load())
		p.put(other, time.Now())
		synctest.Wait()
		require.NotNil(t, waited, "whoever waited has its turn")
		require.True(t, fakeOf(other).closed.Load())
		p.put(busy, time.Now())
		late := mustGet(t, p)
		require.NotSame(t, busy, late)
		p.put(waited, time.Now())
		p.put(late, time.Now())
		require.Nil(t, p.tryGet())
		time.Sleep(time.Minute)
		synctest.Wait()
		s := p.stats()
		assert.Zero(t, s.Open, "nothing is kept warm")
		assert.Equal(t, map[Discard]uint64{DiscardShutdown: 4}, s.Discards)
		endPool(t, p, e)
	})
}
