package h1

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestIdleConnectionsAreClosedInTime(t *testing.T) {
	t.Parallel()
	for _, idle := range []time.Duration{100 * time.Millisecond, time.Second, 4 * time.Second, time.Minute} {
		t.Run(idle.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, e := testPool(t, PoolConfig{Max: 4, IdleTimeout: idle})
				defer endPool(t, p, e)
				a, b := mustGet(t, p), mustGet(t, p)
				p.put(a, time.Now())
				time.Sleep(idle / 3)
				p.put(b, time.Now())
				time.Sleep(idle - idle/3)
				require.True(t, fakeOf(a).closed.Load(), "not a moment later")
				require.Same(t, b, p.tryGet(), "not before its own time")
				p.put(b, time.Now())
				time.Sleep(idle - 2*p.every)
				require.False(t, fakeOf(b).closed.Load(), "idle counts from the last use")
				time.Sleep(2 * p.every)
				require.True(t, fakeOf(b).closed.Load())
				require.Equal(t, map[Discard]uint64{DiscardIdle: 2}, p.stats().Discards)
				synctest.Wait()
				p.mu.Lock()
				defer p.mu.Unlock()
				require.False(t, p.armed, "there is nothing to look after")
			})
		})
	}
}

// The name of a service may lead elsewhere by now: no connection is given out
// for longer than its age allows, be it ever so busy.
func TestOldConnectionsAreNotGivenOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const age = time.Minute
		p, e := testPool(t, PoolConfig{Max: 20, MaxAge: age})
		defer endPool(t, p, e)
		var busy []*conn
		for range 20 {
			busy = append(busy, mustGet(t, p))
		}
		for _, c := range busy[1:] {
			p.put(c, time.Now())
		}
		for begin, ends := time.Now(), map[time.Duration]bool{}; ; time.Sleep(100 * time.Millisecond) {
			old := time.Since(begin)
			p.put(busy[0], time.Now())
			c := p.tryGet()
			if c == nil {
				require.Greater(t, len(ends), 3, "they end one by one")
				break
			}
			require.Less(t, old, age)
			if live, _ := e.count(); live < 20 {
				ends[old] = true
				require.GreaterOrEqual(t, old, age-age/10-p.every)
			}
			busy[0] = c
		}
		require.Equal(t, map[Discard]uint64{DiscardAge: 20}, p.stats().Discards)
	})
}

// How long a connection has lived is told as it was, not as its age is reckoned.
func TestLivesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 20, MaxAge: time.Hour})
		defer endPool(t, p, e)
		for range 10 {
			c := mustGet(t, p)
			time.Sleep(time.Minute)
			p.drop(c, DiscardError)
			require.Equal(t, time.Minute, e.lived[len(e.lived)-1])
		}
		c := mustGet(t, p)
		time.Sleep(time.Second)
		p.put(c, time.Now())
		time.Sleep(time.Second)
		p.Close()
		require.Equal(t, 2*time.Second, e.lived[len(e.lived)-1])
	})
}

func TestIdleConnectionsAreLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 5})
		defer endPool(t, p, e)
		var all []*conn
		var told []int
		for i := range 5 {
			c := mustGet(t, p)
			c.surplus = func() { told = append(told, i) }
			all = append(all, c)
		}
		for _, c := range all {
			p.put(c, time.Now())
		}
		fakeOf(all[0]).seen.Store(int32(lookClosed))
		fakeOf(all[2]).seen.Store(int32(lookSurplus))
		all[3].surplus = nil
		fakeOf(all[3]).seen.Store(int32(lookSurplus))
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Equal(t, []int{2}, told)
		assert.Equal(t, map[Discard]uint64{DiscardClosed: 1, DiscardSurplus: 2}, p.stats().Discards)
		require.Same(t, all[4], p.tryGet())
		require.Same(t, all[1], p.tryGet(), "their order has not changed")
		p.put(all[1], time.Now())
		p.put(all[4], time.Now())
		time.Sleep(10*time.Second + time.Millisecond)
		assert.EqualValues(t, 11, fakeOf(all[1]).looks.Load(), "once a second")
	})
}

// A look takes time where there is no descriptor. Meanwhile nobody waits for
// anything but a slot, and no more connections are made.
func TestSlowLooksHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 2})
		defer endPool(t, p, e)
		a, b := mustGet(t, p), mustGet(t, p)
		fakeOf(a).slow.Store(int64(100 * time.Millisecond))
		fakeOf(b).slow.Store(int64(100 * time.Millisecond))
		p.put(a, time.Now())
		p.put(b, time.Now())
		time.Sleep(time.Second + 50*time.Millisecond) // a is being looked at
		require.Same(t, b, p.tryGet())
		begin := time.Now()
		require.Same(t, a, mustGet(t, p))
		require.Equal(t, 50*time.Millisecond, time.Since(begin))
		p.put(b, time.Now())
		p.put(a, time.Now())
		require.Same(t, a, p.tryGet())
		p.put(a, time.Now())
	})
}

func TestSweepsDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 9})
		defer endPool(t, p, e)
		var all []*conn
		for range 9 {
			all = append(all, mustGet(t, p))
			fakeOf(all[len(all)-1]).slow.Store(int64(time.Second))
		}
		for _, c := range all {
			p.put(c, time.Now())
		}
		for range 100 {
			time.Sleep(500 * time.Millisecond)
			require.LessOrEqual(t, p.stats().InUse, int64(1), "one look at a time")
		}
		for _, c := range all {
			require.InDelta(t, 5, fakeOf(c).looks.Load(), 1)
			fakeOf(c).slow.Store(0)
		}
		time.Sleep(time.Second)
	})
}

func TestCloseWaitsForASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 2})
		a, b := mustGet(t, p), mustGet(t, p)
		fakeOf(a).slow.Store(int64(time.Second))
		p.put(a, time.Now())
		p.put(b, time.Now())
		time.Sleep(time.Second + 100*time.Millisecond)
		begin := time.Now()
		p.Close()
		require.Equal(t, 900*time.Millisecond+time.Second, time.Since(begin), "the look, and a last one")
		endPool(t, p, e)
	})
}

func TestPanicOfACallbackEndsNoUpkeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tasks sync.WaitGroup
		p, e := testPool(t, PoolConfig{Max: 3, Go: func(_ string, f func()) bool {
			tasks.Go(func() {
				defer func() { _ = recover() }()
				f()
			})
			return true
		}})
		a, b := mustGet(t, p), mustGet(t, p)
		for _, c := range []*conn{a, b} {
			c.surplus = func() { panic("callback") }
			fakeOf(c).seen.Store(int32(lookSurplus))
			p.put(c, time.Now())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.True(t, fakeOf(a).closed.Load())
		time.Sleep(time.Second)
		synctest.Wait()
		require.True(t, fakeOf(b).closed.Load())
		endPool(t, p, e)
		tasks.Wait()
	})
}

func TestWarmConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 5, Min: 3, IdleTimeout: 10 * time.Second})
		defer endPool(t, p, e)
		e.set(func(context.Context) error { time.Sleep(100 * time.Millisecond); return nil })
		time.Sleep(time.Minute)
		_, dials := e.count()
		require.Zero(t, dials, "nothing runs until it must")

		c := mustGet(t, p)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		s := p.stats()
		require.Equal(t, [3]int64{3, 2, 1}, [3]int64{s.Open, s.Idle, s.InUse})
		warm := p.tryGet()
		require.NotZero(t, warm.uses, "a connection that lay idle may have died")
		p.put(warm, time.Now())

		p.drop(c, DiscardError) // refilled
		fakeOf(warm).seen.Store(int32(lookClosed))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		s = p.stats()
		require.Equal(t, [3]int64{3, 3, 0}, [3]int64{s.Open, s.Idle, s.InUse})

		time.Sleep(time.Minute) // replaced when their time is over
		synctest.Wait()
		s = p.stats()
		require.EqualValues(t, 3, s.Open)
		require.InDelta(t, 18, s.Discards[DiscardIdle], 3)
	})
}

func TestWarmConnectionsIdleFromTheirDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 9, Min: 9, IdleTimeout: 16 * time.Second, MaxAge: 10 * time.Hour})
		defer endPool(t, p, e)
		p.warm()
		time.Sleep(14 * time.Second)
		synctest.Wait()
		require.Empty(t, p.stats().Discards)
	})
}

func TestWarmWithoutARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 2, Min: 2, NoReuse: true})
		defer endPool(t, p, e)
		p.warm()
		p.warm()
		synctest.Wait()
		require.EqualValues(t, 2, p.stats().Idle)
		p.put(p.tryGet(), time.Now()) // warm ones too are given out once
		require.EqualValues(t, 1, p.stats().Idle)
		time.Sleep(time.Second)
		synctest.Wait()
		require.EqualValues(t, 2, p.stats().Idle)
	})
}

// Callers come first: what is kept warm takes no slot that somebody waits for.
func TestWarmingTakesNoSlotFromCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 2, Min: 2})
		defer endPool(t, p, e)
		a, b := mustGet(t, p), mustGet(t, p)
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				c := mustGet(t, p)
				time.Sleep(time.Second)
				p.drop(c, DiscardError)
			})
		}
		synctest.Wait()
		begin := time.Now()
		p.drop(a, DiscardError)
		p.drop(b, DiscardError)
		callers.Wait()
		require.Equal(t, 2*time.Second, time.Since(begin))
	})
}

// An upstream that ends each connection is not dialled the more for it.
func TestDialsBringNoOthersAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 20, Min: 10})
		defer endPool(t, p, e)
		for range 100 {
			for c := p.tryGet(); c != nil; c = p.tryGet() {
				p.drop(c, DiscardClosed)
			}
			p.drop(mustGet(t, p), DiscardError)
			synctest.Wait()
			time.Sleep(10 * time.Millisecond)
		}
		_, dials := e.count()
		require.LessOrEqual(t, dials, 100+20)
	})
}

func TestWarmingBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 4, Min: 3})
		defer endPool(t, p, e)
		e.set(func(context.Context) error { return io.ErrClosedPipe })
		p.warm()
		time.Sleep(10 * time.Minute)
		_, dials := e.count()
		require.InDelta(t, 25, dials, 8)

		e.set(nil)
		p.put(mustGet(t, p), time.Now()) // shows that it is back
		time.Sleep(time.Second)
		synctest.Wait()
		require.EqualValues(t, 3, p.stats().Open)
	})
}

// A sweep goes on, and callers are served, while a warm dial gets no answer.
// Close calls it off.
func TestWarmDialWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := testPool(t, PoolConfig{Max: 3, Min: 2, IdleTimeout: 4 * time.Second})
		c := mustGet(t, p)
		synctest.Wait()
		e.set(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		warm := p.tryGet()
		require.NotNil(t, warm)
		p.drop(warm, DiscardError)
		time.Sleep(time.Second)
		synctest.Wait()
		p.put(c, time.Now())
		require.Same(t, c, p.tryGet())
		p.put(c, time.Now())
		time.Sleep(4 * time.Second)
		require.True(t, fakeOf(c).closed.Load())
		begin := time.Now()
		p.Close()
		e.tasks.Wait()
		require.Zero(t, time.Since(begin))
		endPool(t, p, e)
	})
}

// Once tasks are refused there is no upkeep, and all else goes on.
func TestPoolWithoutTasks(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(string, func()) bool{
		"refused": func(string, func()) bool { return false },
		"nil":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, e := testPool(t, PoolConfig{Max: 2, Min: 2, IdleTimeout: time.Second})
				p.Go = run
				p.warm()
				c := mustGet(t, p)
				p.put(c, time.Now())
				time.Sleep(time.Minute)
				require.Same(t, c, p.tryGet())
				p.put(c, time.Now())
				endPool(t, p, e)
			})
		})
	}
}
