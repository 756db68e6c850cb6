package store

import (
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBudgetFollowsMemory(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{1, 8} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore[int](16<<20, shards)
			m := memory{limit: math.MaxInt64}
			reads := 0
			s.pressure.read = func() memory { reads++; return m }
			step := func(used uint64) int64 {
				m.used, m.limit, m.cycle = used, 1000, m.cycle+1
				time.Sleep(watchEvery)
				for i := range 200 { // a few at a time give way
					put(s, fmt.Sprint("step", i), i, 0)
				}
				return s.Stats().Budget
			}
			for i := range 13_000 {
				require.True(t, put(s, fmt.Sprint(i), i, 1000))
			}
			assert.Equal(t, s.limit, s.Stats().Budget, "no limit")
			full := s.limit
			assert.Equal(t, full, step(900), "near the limit, but not too near")
			assert.Equal(t, full/4*3, step(901))
			st := s.Stats()
			assert.LessOrEqual(t, st.Bytes, st.Budget)
			assert.NotZero(t, st.Evicted.Memory)
			assert.Equal(t, Evicted{Memory: st.Evictions}, st.Evicted)
			before := step(850)
			assert.Equal(t, full/4*3, before, "between, nothing changes")
			for range 20 {
				step(2000)
			}
			assert.Equal(t, full/floor, s.Stats().Budget)
			assert.False(t, s.Reserve(full/2), "it holds for reservations")
			assert.True(t, has(s, "step199"), "the youngest are kept")
			assert.Equal(t, full/floor*2, step(799))
			for range 20 {
				step(100)
			}
			assert.Equal(t, full, s.Stats().Budget)
			reads = 0
			for range 100 {
				s.Reserve(0)
			}
			assert.Zero(t, reads, "not for each")
			time.Sleep(watchEvery)
			m.used = 2000
			s.Reserve(0)
			assert.Equal(t, 1, reads)
			assert.Equal(t, full, s.Stats().Budget, "nothing was collected since")
			assert.Less(t, step(2000), full)
			m.limit = math.MaxInt64
			time.Sleep(watchEvery)
			s.Reserve(0)
			assert.Equal(t, full, s.Stats().Budget, "the limit is gone")
			check(t, s)
		})
	}
}

// What one call drops is bounded, so that none waits for long.
func TestScarceMemoryIsGivenBackInParts(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{1, 8} {
		s := newStore[int](1<<20, shards)
		for i := range 4000 {
			put(s, fmt.Sprint(i), i, 0)
		}
		s.budget.Store(s.limit / floor)
		s.Reserve(1)
		assert.EqualValues(t, batch, s.Stats().Evicted.Memory)
		put(s, "k", 1, 0)
		assert.EqualValues(t, 2*batch, s.Stats().Evicted.Memory)
		assert.True(t, has(s, "k"))
	}
}

// The real limit, and the real heap. Not parallel: both are the process's.
func TestBudgetFollowsTheMemoryLimit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	synctest.Test(t, func(t *testing.T) {
		s := New[int](1 << 20)
		collect := func() {
			runtime.GC()
			time.Sleep(watchEvery)
			s.Reserve(0)
		}
		collect()
		assert.Equal(t, s.limit, s.Stats().Budget)
		ballast := make([]byte, 64<<20)
		debug.SetMemoryLimit(64 << 20)
		for range 20 {
			collect()
		}
		assert.Equal(t, s.limit/floor, s.Stats().Budget)
		runtime.KeepAlive(ballast)
		debug.SetMemoryLimit(1 << 30)
		ballast = nil
		for range 20 {
			collect()
		}
		assert.Equal(t, s.limit, s.Stats().Budget)
		_ = ballast
	})
}

// Garbage is no reason to shrink.
func TestUsedMemoryIsWithoutGarbage(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	read := readMemory()
	runtime.GC()
	before := read()
	var kept []byte
	for range 64 {
		kept = make([]byte, 1<<20)
	}
	runtime.KeepAlive(kept)
	assert.Less(t, read().used, before.used+(16<<20))
	assert.Equal(t, before.cycle, read().cycle)
}
