package work

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fetch is a Cutter that remembers what cut it.
type fetch struct {
	at   Link
	mu   sync.Mutex
	cuts []error
	then func()
}

func (f *fetch) Cut(cause error) {
	f.mu.Lock()
	f.cuts = append(f.cuts, cause)
	f.mu.Unlock()
	if f.then != nil {
		f.then()
	}
}

func (f *fetch) causes() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cuts
}

func (f *fetch) begin(l *Life) bool { return l.Begin(&f.at, f) }
func (f *fetch) end(l *Life)        { l.End(&f.at) }

// fetching reports whether any fetch is under way.
func (l *Life) fetching() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fetches.next != &l.fetches || l.fetches.prev != &l.fetches
}

// ended is a context that is over.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestDrainTellsOpenStreamsAndStopsNothing(t *testing.T) {
	t.Parallel()
	l := NewLife(nil)
	told := map[string]int{}
	open := func(name string) *Stream { return l.Open(func() { told[name]++ }) }
	open("stays")
	open("ended before").Close()
	require.False(t, l.Draining())

	l.Drain()
	assert.True(t, l.Draining())
	assert.Equal(t, map[string]int{"stays": 1}, told)
	open("opened after")
	assert.Equal(t, 1, told["opened after"], "told before Open returns")

	require.True(t, l.Enter(), "requests are still served")
	l.Leave()
	f := &fetch{}
	require.True(t, f.begin(l), "and fetched")
	f.end(l)
	ran := make(chan struct{})
	require.True(t, l.Go("task", func() { close(ran) }))
	<-ran
	assert.Empty(t, f.causes())
	require.NoError(t, Shutdown(t.Context(), l))
}

func TestDrainAgainTellsWhoeverIsStillOpen(t *testing.T) {
	t.Parallel()
	l := NewLife(nil)
	var told int
	s := l.Open(func() { told++ })
	l.Drain()
	l.Drain()
	assert.Equal(t, 2, told)
	s.Close()
	l.Drain()
	assert.Equal(t, 2, told)
}

// What ends a stream may at once say so.
func TestEndOfAStreamMayCallBack(t *testing.T) {
	t.Parallel()
	l := NewLife(nil)
	var s *Stream
	s = l.Open(func() { s.Close() })
	l.Drain()
	assert.Empty(t, l.streams)
}

// Once End has returned, its owner may be anywhere: no cut comes any more.
func TestNoCutComesAfterTheEnd(t *testing.T) {
	t.Parallel()
	for range 200 {
		l := NewLife(nil)
		require.True(t, l.Enter())
		var wg sync.WaitGroup
		for range 4 {
			var over atomic.Bool
			f := &fetch{then: func() {
				if over.Load() {
					t.Error("cut after its end")
				}
			}}
			require.True(t, f.begin(l))
			wg.Go(func() {
				f.end(l)
				over.Store(true)
			})
		}
		wg.Go(func() { _ = Shutdown(ended(), l) })
		wg.Wait()
		l.Leave()
	}
}

// A request may leave a task behind until it has left itself, so the tasks are
// closed after the requests.
func TestShutdownWaitsForRequestsAndThenForTheirTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLife(nil)
		require.True(t, l.Enter())
		go func() {
			time.Sleep(time.Minute)
			if !l.Go("fill", func() { time.Sleep(time.Minute) }) {
				t.Error("a request that is inside may start a task")
			}
			l.Leave()
		}()
		told := false
		l.Open(func() { told = true })
		start := time.Now()
		require.NoError(t, Shutdown(t.Context(), l))
		assert.Equal(t, 2*time.Minute, time.Since(start))
		assert.True(t, told, "Shutdown drains")
		assert.True(t, l.Draining())
		assert.False(t, l.Enter())
		assert.False(t, l.Go("late", func() { t.Error("ran after Shutdown") }))
	})
}

func TestShutdownRefusesWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLife(nil)
		require.True(t, l.Enter())
		done := make(chan error)
		go func() { done <- Shutdown(t.Context(), l) }()
		synctest.Wait()
		assert.False(t, l.Enter())
		assert.EqualValues(t, 1, l.Inside())
		f := &fetch{}
		assert.True(t, f.begin(l), "the request inside goes on")
		f.end(l)
		l.Leave()
		require.NoError(t, <-done)
		assert.Empty(t, f.causes())
	})
}

func TestShutdownCutsWhatItsContextDoesNotWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLife(nil)
		require.True(t, l.Enter())
		over := make(chan struct{})
		require.True(t, l.Go("fill", func() { <-over }))
		running, past := &fetch{}, &fetch{}
		require.True(t, running.begin(l))
		require.True(t, past.begin(l))
		past.end(l)

		boss := errors.New("the boss is waiting")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, boss)
		defer cancel()
		start := time.Now()
		err := Shutdown(ctx, l)
		assert.Equal(t, time.Second, time.Since(start))
		require.ErrorIs(t, err, boss, "the cause of the context")
		assert.EqualError(t, err, `shutdown cut 1 request(s), 1 task(s) "fill": the boss is waiting`)
		assert.Equal(t, []error{ErrShutdown}, running.causes())
		assert.Empty(t, past.causes(), "it had ended")
		assert.False(t, new(fetch).begin(l), "nothing begins any more")
		assert.False(t, l.Go("late", func() { t.Error("ran after the cut") }))

		running.end(l)
		close(over)
		l.Leave()
		require.NoError(t, Shutdown(t.Context(), l), "what was cut has ended since")
	})
}

func TestShutdownWrapsHowItsContextEnded(t *testing.T) {
	t.Parallel()
	l := NewLife(nil)
	require.True(t, l.Enter())
	assert.ErrorIs(t, Shutdown(ended(), l), context.Canceled)
	ctx, cancel := context.WithTimeout(t.Context(), -1)
	defer cancel()
	assert.ErrorIs(t, Shutdown(ctx, l), context.DeadlineExceeded)
	l.Leave()
}

func TestShutdownPrefersIdleToAnEndedContext(t *testing.T) {
	t.Parallel()
	for range 100 {
		l := NewLife(nil)
		require.NoError(t, Shutdown(ended(), l, NewLife(nil)))
		require.NoError(t, Shutdown(ended(), l), "again")
	}
}

func TestShutdownEndsSeveralLivesAsOne(t *testing.T) {
	t.Parallel()
	lives := []*Life{NewLife(nil), NewLife(nil), NewLife(nil)}
	over := make(chan struct{})
	cut := make([]*fetch, len(lives))
	for i, l := range lives {
		require.True(t, l.Enter())
		for _, name := range []string{"probe", "fill"} {
			require.True(t, l.Go(name, func() { <-over }))
		}
		cut[i] = &fetch{}
		require.True(t, cut[i].begin(l))
	}
	lives[0].Leave()
	err := Shutdown(ended(), lives...)
	assert.EqualError(t, err, `shutdown cut 2 request(s), 3 task(s) "fill", 3 task(s) "probe": context canceled`)
	for i, l := range lives {
		assert.Equal(t, []error{ErrShutdown}, cut[i].causes(), "life %d", i)
		assert.False(t, l.Enter(), "life %d", i)
		assert.False(t, new(fetch).begin(l), "life %d", i)
		assert.False(t, l.Go("late", func() {}), "life %d", i)
	}
	close(over)
	lives[1].Leave()
	lives[2].Leave()
	require.NoError(t, Shutdown(t.Context(), lives...))
}

// What is called last finds nobody inside, unless the context ended first.
func TestLastIsCalledAtTheEndOfEachShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLife(nil)
		var order []string
		l.Last(func() { order = append(order, "first") })
		l.Last(func() { order = append(order, "second") })
		require.True(t, l.Enter())
		require.Error(t, Shutdown(ended(), l))
		assert.Equal(t, []string{"first", "second"}, order, "after a cut, too")
		go func() {
			time.Sleep(time.Second)
			l.Leave()
		}()
		order = nil
		l.Last(func() { assert.Zero(t, l.Inside()) })
		require.NoError(t, Shutdown(t.Context(), l))
		assert.Equal(t, []string{"first", "second"}, order)
	})
}

func TestTwoShutdownsAtOnceBothWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLife(nil)
		require.True(t, l.Enter())
		var returned atomic.Int32
		for range 2 {
			go func() {
				if err := Shutdown(t.Context(), l); err != nil {
					t.Error(err)
				}
				returned.Add(1)
			}()
		}
		synctest.Wait()
		assert.Zero(t, returned.Load())
		l.Leave()
		synctest.Wait()
		assert.EqualValues(t, 2, returned.Load())
	})
}

// Fetches come and go in any order, and the cut meets those that are left.
func TestFetchesLeaveInAnyOrder(t *testing.T) {
	t.Parallel()
	const n = 4
	for gone := range 1 << n { // bit i: fetch i has ended
		l := NewLife(nil)
		require.True(t, l.Enter())
		var fetches [n]fetch
		fetches[0].end(l) // before it began: nothing
		for i := range fetches {
			require.True(t, fetches[i].begin(l))
		}
		for i := n - 1; i >= 0; i-- {
			if gone>>i&1 == 1 {
				fetches[i].end(l)
				fetches[i].end(l)
			}
		}
		require.Error(t, Shutdown(ended(), l))
		for i := range fetches {
			assert.Len(t, fetches[i].causes(), 1-gone>>i&1, "fetch %d of %04b", i, gone)
			fetches[i].end(l)
		}
		assert.False(t, l.fetching())
		l.Leave()
	}
}

func TestAFetchMayBeginAgainOnceItHasEnded(t *testing.T) {
	t.Parallel()
	l := NewLife(nil)
	var f fetch
	for range 3 {
		require.True(t, f.begin(l))
		require.True(t, l.fetching())
		f.end(l)
		require.False(t, l.fetching())
	}
}

func TestJoiningCostsNoMemory(t *testing.T) {
	if raceEnabled {
		return
	}
	l := NewLife(nil)
	var f fetch
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		f.begin(l)
		f.end(l)
	}))
}

func TestTasksOfALifeReportTheirPanics(t *testing.T) {
	t.Parallel()
	var reported []any
	l := NewLife(func(name string, v any, _ []byte) { reported = append(reported, name, v) })
	require.True(t, l.Go("task", func() { panic("boom") }))
	require.NoError(t, Shutdown(t.Context(), l))
	assert.Equal(t, []any{"task", "boom"}, reported)
}

// However the cut falls, a fetch that began is cut unless it has ended, and a
// stream that is open is told.
func TestCutMissesNobody(t *testing.T) {
	t.Parallel()
	for range 50 {
		l := NewLife(nil)
		require.True(t, l.Enter())
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				told, cut := make(chan struct{}), make(chan struct{})
				var once sync.Once
				s := l.Open(func() { once.Do(func() { close(told) }) })
				defer s.Close()
				f := &fetch{then: sync.OnceFunc(func() { close(cut) })}
				if f.begin(l) {
					<-cut
					f.end(l)
				}
				<-told
			})
		}
		wg.Go(l.Drain)
		wg.Go(func() { _ = Shutdown(ended(), l) })
		wg.Wait()
		assert.False(t, l.fetching())
		assert.Empty(t, l.streams)
		l.Leave()
		require.NoError(t, Shutdown(t.Context(), l))
	}
}

// Periodic work goes on while requests are served, and ends by itself once the
// last has left.
func TestShutdownEndsTheBackgroundAfterTheRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lives := []*Life{NewLife(nil), NewLife(nil)}
		start := time.Now()
		var told log
		for _, l := range lives {
			require.True(t, l.Enter())
			require.True(t, l.Background("check", func(ctx context.Context) {
				<-ctx.Done()
				assert.Equal(t, ErrShutdown, context.Cause(ctx))
				told.add("told after %v", time.Since(start))
				time.Sleep(time.Second)
			}))
		}
		for i, l := range lives {
			time.AfterFunc(time.Duration(i+1)*time.Minute, l.Leave)
		}
		lives[0].Drain()
		synctest.Wait()
		assert.Empty(t, told.all(), "draining stops nothing")
		require.NoError(t, Shutdown(t.Context(), lives...))
		assert.Equal(t, []string{"told after 2m0s", "told after 2m0s"}, told.all(), "when the last of all has left")
		assert.Equal(t, 2*time.Minute+time.Second, time.Since(start), "both at once")
		assert.False(t, lives[0].Background("late", func(context.Context) { t.Error("ran after Shutdown") }))
	})
}

func TestACutEndsTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLife(nil)
		require.True(t, l.Enter())
		over := false
		require.True(t, l.Background("check", func(ctx context.Context) {
			<-ctx.Done()
			over = true
		}))
		err := Shutdown(ended(), l)
		assert.EqualError(t, err, `shutdown cut 1 request(s), 1 task(s) "check": context canceled`)
		synctest.Wait()
		assert.True(t, over)
		l.Leave()
		require.NoError(t, Shutdown(ended(), l))
	})
}

// What a last request starts in the background is told at once.
func TestBackgroundOfALeavingRequest(t *testing.T) {
	t.Parallel()
	for range 100 {
		l := NewLife(nil)
		require.True(t, l.Enter())
		var started, over atomic.Int64
		var wg sync.WaitGroup
		wg.Go(func() {
			if l.Background("check", func(ctx context.Context) {
				<-ctx.Done()
				over.Add(1)
			}) {
				started.Add(1)
			}
			l.Leave()
		})
		require.NoError(t, Shutdown(t.Context(), l))
		wg.Wait()
		assert.EqualValues(t, 1, started.Load())
		assert.EqualValues(t, 1, over.Load())
	}
}

// A task that does not end is left over, even if every request has left.
func TestShutdownCutsATaskThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	l := NewLife(nil)
	over := make(chan struct{})
	require.True(t, l.Background("deaf", func(context.Context) { <-over }))
	assert.EqualError(t, Shutdown(ended(), l), `shutdown cut 0 request(s), 1 task(s) "deaf": context canceled`)
	close(over)
	require.NoError(t, Shutdown(t.Context(), l))
}
