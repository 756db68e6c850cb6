package work

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func (l *Limit) expect(t *testing.T, inUse, waiting int) {
	t.Helper()
	u, w := l.Stats()
	assert.Equal(t, [2]int{inUse, waiting}, [2]int{u, w}, "in use and waiting")
}

func TestLimit(t *testing.T) {
	boss := errors.New("the boss is waiting")
	for _, tt := range []struct {
		name     string
		n, queue int
		wait     time.Duration
		before   int           // how many have a place or wait already
		release  time.Duration // when the first of them leaves
		deadline time.Duration // of the context
		want     error
		after    time.Duration
	}{
		{"a free place", 2, 0, time.Second, 1, time.Hour, time.Hour, nil, 0},
		{"a free place and an ended context", 2, 0, time.Second, 1, time.Hour, 0, nil, 0},
		{"no queue", 2, 0, time.Second, 2, time.Hour, time.Hour, ErrFull, 0},
		{"negative is no queue", 2, -1, time.Second, 2, time.Hour, time.Hour, ErrFull, 0},
		{"queue is full", 2, 3, time.Hour, 5, 2 * time.Hour, 3 * time.Hour, ErrFull, 0},
		{"full before the context is looked at", 2, 3, time.Hour, 5, 2 * time.Hour, 0, ErrFull, 0},
		{"a place in time", 2, 3, time.Minute, 2, time.Second, time.Hour, nil, time.Second},
		{"waited too long", 2, 3, time.Minute, 2, time.Hour, time.Hour, ErrWaited, time.Minute},
		{"the context ends first", 2, 3, time.Minute, 2, time.Hour, time.Second, boss, time.Second},
		{"the context has ended", 2, 3, time.Minute, 2, time.Hour, 0, boss, 0},
		{"any time", 2, 3, 0, 2, 24 * time.Hour, 48 * time.Hour, nil, 24 * time.Hour},
		{"any time but the context's", 2, 3, -1, 2, 48 * time.Hour, 24 * time.Hour, boss, 24 * time.Hour},
		{"at least one place", 0, 0, 0, 0, 0, time.Hour, nil, 0},
		{"and no more", -1, 0, 0, 1, time.Hour, time.Hour, ErrFull, 0},
		{"any number", math.MaxInt, math.MaxInt, 0, 9, time.Hour, time.Hour, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := NewLimit(tt.n, tt.queue, tt.wait)
				for range tt.before {
					go func() {
						if l.Acquire(context.Background()) == nil {
							time.Sleep(tt.release)
							l.Release()
						}
					}()
				}
				synctest.Wait()
				ctx, cancel := context.WithTimeoutCause(t.Context(), tt.deadline, boss)
				defer cancel()
				start := time.Now()
				err := l.Acquire(ctx)
				assert.Equal(t, tt.want, err)
				assert.Equal(t, tt.after, time.Since(start))
				if err == nil {
					l.Release()
				}
				time.Sleep(72 * time.Hour)
				l.expect(t, 0, 0)
			})
		})
	}
}

func TestPlacesGoToWhoeverWaitsLongest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimit(2, 4, 0)
		require.NoError(t, l.Acquire(t.Context()))
		require.NoError(t, l.Acquire(t.Context()))
		l.expect(t, 2, 0)
		var order []int
		leave, cancel := context.WithCancel(t.Context())
		for i := range 4 {
			ctx := t.Context()
			if i == 1 {
				ctx = leave
			}
			go func() {
				if l.Acquire(ctx) == nil {
					order = append(order, i)
				}
			}()
			synctest.Wait()
		}
		l.expect(t, 2, 4)
		assert.Equal(t, ErrFull, l.Acquire(t.Context()))
		cancel()
		synctest.Wait()
		l.expect(t, 2, 3)
		for left := range 3 {
			l.Release()
			synctest.Wait()
			l.expect(t, 2, 2-left)
		}
		assert.Equal(t, []int{0, 2, 3}, order)
		l.Release()
		l.Release()
		l.expect(t, 0, 0)
	})
}

// Whom a released place is given to waits no more, awake or not: the queue has
// room for another.
func TestTheQueueHasRoomAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimit(1, 1, 0)
		require.NoError(t, l.Acquire(t.Context()))
		for range 2 {
			go func() {
				assert.NoError(t, l.Acquire(t.Context()))
				time.Sleep(time.Second)
				l.Release()
			}()
			synctest.Wait()
			l.Release()
			assert.ErrorIs(t, l.Acquire(ended()), context.Canceled, "not ErrFull")
			time.Sleep(time.Minute)
			require.NoError(t, l.Acquire(t.Context()))
		}
		l.Release()
	})
}

func TestReleaseWithoutAcquirePanics(t *testing.T) {
	t.Parallel()
	l := NewLimit(2, 0, 0)
	assert.Panics(t, l.Release)
}

// A place released before is a place, and no more run than may, however many
// come, give up and leave.
func TestLimitUnderStress(t *testing.T) {
	t.Parallel()
	const n, queue = 3, 5
	l := NewLimit(n, queue, 50*time.Microsecond)
	var running, got, full, waited, left atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 500 {
				ctx, cancel := context.WithCancel(t.Context())
				if (i+j)%3 == 0 {
					time.AfterFunc(20*time.Microsecond, cancel)
				}
				switch err := l.Acquire(ctx); err {
				case nil:
					got.Add(1)
					if running.Add(1) > n {
						t.Error("more than may")
					}
					if inUse, waiting := l.Stats(); inUse < 1 || inUse > n || waiting < 0 || waiting > queue {
						t.Errorf("%d in use, %d waiting", inUse, waiting)
					}
					running.Add(-1)
					l.Release()
				case ErrFull:
					full.Add(1)
				case ErrWaited:
					waited.Add(1)
				case context.Canceled:
					left.Add(1)
				default:
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	assert.EqualValues(t, 16*500, got.Load()+full.Load()+waited.Load()+left.Load())
	l.expect(t, 0, 0)
	for range n {
		require.NoError(t, l.Acquire(t.Context()), "no place is lost")
	}
	assert.Equal(t, ErrWaited, l.Acquire(t.Context()))
}

// As many as there are places, taking turns without a queue, are never refused.
func TestAFreePlaceIsNeverRefused(t *testing.T) {
	t.Parallel()
	l := NewLimit(4, 0, 0)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				if err := l.Acquire(t.Context()); err != nil {
					t.Error(err)
					return
				}
				l.Release()
			}
		})
	}
	wg.Wait()
}

func TestAFreePlaceCostsNoMemory(t *testing.T) {
	if raceEnabled {
		return
	}
	l := NewLimit(2, 2, time.Second)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		_ = l.Acquire(t.Context())
		l.Release()
	}))
	full := NewLimit(1, 0, time.Second)
	require.NoError(t, full.Acquire(t.Context()))
	assert.Zero(t, testing.AllocsPerRun(100, func() { _ = full.Acquire(t.Context()) }), "nor does a refusal")
}

func BenchmarkLimit(b *testing.B) {
	b.Run("place=free/goroutines=1", func(b *testing.B) {
		l := NewLimit(64, 64, time.Second)
		ctx := b.Context()
		b.ReportAllocs()
		for b.Loop() {
			_ = l.Acquire(ctx)
			l.Release()
		}
	})
	b.Run("place=free/goroutines=procs", func(b *testing.B) {
		l := NewLimit(64, 64, time.Second)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_ = l.Acquire(b.Context())
				l.Release()
			}
		})
	})
	b.Run("place=none", func(b *testing.B) {
		l := NewLimit(1, 0, time.Second)
		_ = l.Acquire(b.Context())
		b.ReportAllocs()
		for b.Loop() {
			_ = l.Acquire(b.Context())
		}
	})
	for _, wait := range []time.Duration{0, time.Second} {
		b.Run(fmt.Sprintf("place=awaited/wait=%v", wait), func(b *testing.B) {
			l := NewLimit(1, 1, wait)
			_ = l.Acquire(b.Context())
			done := make(chan struct{})
			b.ReportAllocs()
			for b.Loop() {
				go func() {
					_ = l.Acquire(b.Context())
					done <- struct{}{}
				}()
				for _, waiting := l.Stats(); waiting == 0; _, waiting = l.Stats() {
					runtime.Gosched()
				}
				l.Release()
				<-done
			}
		})
	}
}

// A limit that is made smaller or larger keeps the books on everybody.
func TestResize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimit(3, 5, 0)
		for range 3 {
			require.True(t, l.TryAcquire())
		}
		var in sync.WaitGroup
		for range 2 {
			in.Go(func() { assert.NoError(t, l.Acquire(t.Context())) })
		}
		synctest.Wait()
		l.expect(t, 3, 2)

		l.Resize(1, 0, 0)
		assert.Equal(t, ErrFull, l.Acquire(t.Context()), "no one more may wait")
		l.Release()
		l.Release()
		synctest.Wait()
		l.expect(t, 1, 2)
		assert.False(t, l.TryAcquire())
		l.Release()
		synctest.Wait()
		l.expect(t, 1, 1)

		l.Resize(2, 0, 0)
		in.Wait()
		l.expect(t, 2, 0)

		l.Resize(2, 1, time.Minute)
		go func() { assert.NoError(t, l.Acquire(t.Context())) }()
		synctest.Wait()
		l.expect(t, 2, 1)
		l.Open()
		synctest.Wait()
		l.expect(t, 3, 0)
		require.True(t, l.TryAcquire())
		for range 4 {
			l.Release()
		}
		assert.Panics(t, l.Release)
	})
}

// Whatever the size becomes meanwhile, a place is given to one at a time, and
// all come back.
func TestResizeUnderStress(t *testing.T) {
	t.Parallel()
	const most = 4
	l := NewLimit(most, 64, 0)
	var running atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 500 {
				if err := l.Acquire(t.Context()); err != nil {
					t.Error(err)
					return
				}
				if running.Add(1) > most {
					t.Error("more than ever may")
				}
				runtime.Gosched()
				running.Add(-1)
				l.Release()
			}
		})
	}
	wg.Go(func() {
		for i := range 500 {
			l.Resize(1+i%most, 64, 0)
		}
		l.Resize(most, 64, 0)
	})
	wg.Wait()
	l.expect(t, 0, 0)
}

func TestRoom(t *testing.T) {
	t.Parallel()
	l := NewLimit(2, 3, time.Hour)
	room := func(free, queue int) {
		t.Helper()
		f, q := l.Room()
		assert.Equal(t, [2]int{free, queue}, [2]int{f, q}, "free and queue")
	}
	room(2, 3)
	require.True(t, l.TryAcquire())
	room(1, 3)
	require.True(t, l.TryAcquire())
	room(0, 3)
	l.Resize(1, -1, 0)
	room(0, 0)
	l.Release()
	l.Release()
	room(1, 0)
}
