package stats

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestInUseIsEstimatedFromTheSampling(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		objects, bytes int64
		rate           float64
		want, within   int64
	}{
		{"nothing", 0, 0, 512 << 10, 0, 0},
		{"everything is caught", 3, 300, 1, 300, 0},
		{"the profile is off", 3, 300, 0, 300, 0},
		{"large ones are all caught", 2, 64 << 20, 512 << 10, 64 << 20, 1},
		{"one small one stands for many", 1, 512, 512 << 10, 512 << 10, 512},
		{"one of the rate's size", 1, 512 << 10, 512 << 10, 829422, 200}, // 1/(1-1/e)
	} {
		assert.InDelta(t, tt.want, inUse(tt.objects, tt.bytes, tt.rate), float64(tt.within), tt.name)
	}
}

// here returns the stack of its caller.
//
//go:noinline
func here() (at stack) {
	runtime.Callers(2, at[:])
	return at
}

func TestGrowthIsByLineTheMostFirst(t *testing.T) {
	t.Parallel()
	a := here()
	b := here()
	c := here()
	d := here()
	var twice [2]stack // one line, by two ways
	for i := range twice {
		twice[i] = here()
		twice[i][5] = uintptr(i)
	}
	lineOf := func(s stack) int { return siteOf(s).Line }
	got := growth(
		profile{a: 100, b: 100, c: 100, d: 100, twice[0]: 1000},
		profile{a: 150, b: 900, c: 100, twice[0]: 900, twice[1]: 300},
	)
	require.Len(t, got, 3)
	assert.Equal(t, []int{lineOf(b), lineOf(twice[0]), lineOf(a)}, []int{got[0].Line, got[1].Line, got[2].Line})
	assert.Equal(t, []int64{800, 200, 50}, []int64{got[0].Bytes, got[1].Bytes, got[2].Bytes})
	assert.Contains(t, got[0].Function, "TestGrowthIsByLineTheMostFirst")
	assert.Contains(t, got[0].File, "memory_test.go")
}

func TestSampleKeepsTheLastTen(t *testing.T) {
	m := NewMemory()
	for i := range 25 {
		window, _, _ := m.Sample()
		require.NotEmpty(t, window)
		require.LessOrEqual(t, len(window), min(i+1, memoryWindow))
		s := window[len(window)-1]
		assert.Positive(t, s.Goroutines)
		if runtime.GOOS == "linux" {
			assert.Positive(t, s.Descriptors)
		}
	}
}

// leak keeps what it allocates.
func leak(kept [][]byte) [][]byte {
	return append(kept, make([]byte, 8<<20))
}

func TestALeakIsFoundAtItsLine(t *testing.T) {
	m := NewMemory()
	var kept [][]byte
	grows := false
	for i := 0; i < memoryWindow && !grows; i++ {
		kept = leak(kept)
		runtime.GC()
		runtime.GC() // by which the profile has it
		_, _, grows = m.Sample()
	}
	require.True(t, grows)
	sites := m.Sites()
	require.NotEmpty(t, sites)
	assert.LessOrEqual(t, len(sites), topSites)
	assert.Contains(t, sites[0].Function, "stats.leak")
	assert.InDelta(t, 8*len(kept), sites[0].Bytes>>20, 8)
	runtime.KeepAlive(kept)
	window, _, again := m.Sample()
	assert.Len(t, window, 1, "the window begins anew")
	assert.False(t, again)
}

func BenchmarkMemory(b *testing.B) {
	b.Run("sample", func(b *testing.B) {
		m := NewMemory()
		b.ReportAllocs()
		for b.Loop() {
			m.Sample()
		}
	})
	b.Run("sites", func(b *testing.B) {
		m := NewMemory()
		b.ReportAllocs()
		for b.Loop() {
			m.Sites()
		}
	})
}
