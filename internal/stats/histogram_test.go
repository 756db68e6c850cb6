package stats

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestBucketsAreContiguous(t *testing.T) {
	t.Parallel()
	for i := range overflow {
		require.Equal(t, i, bucketOf(uint64(middleOf(i))), "middle of bucket %d", i)
	}
	require.Equal(t, 0, bucketOf(0))
	require.Equal(t, overflow-1, bucketOf(1<<lastExp-1))
	require.Equal(t, overflow, bucketOf(1<<lastExp))
	require.Equal(t, overflow, bucketOf(math.MaxInt64))

	for exp := range 63 {
		for _, ns := range []uint64{1<<exp - 1, 1 << exp, 1<<exp + 1} {
			require.LessOrEqual(t, bucketOf(ns), bucketOf(ns+1), "%d ns", ns)
			require.LessOrEqual(t, bucketOf(ns+1)-bucketOf(ns), 1, "%d ns", ns)
		}
	}
}

func TestMiddleIsWithinTheErrorBound(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for exp := range lastExp {
		for range 200 {
			exact := time.Duration(1<<exp + r.Int64N(1<<exp))
			off := (middleOf(bucketOf(uint64(exact))) - exact).Abs()
			require.LessOrEqual(t, off, errorBound(exact), "%d ns", exact)
		}
	}
}

// errorBound is what the doc of Histogram promises.
func errorBound(exact time.Duration) time.Duration {
	return max(time.Duration(math.Ceil(float64(exact)/64)), 16)
}

func TestQuantilesAgreeWithExactOnes(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for _, tt := range []struct {
		name string
		next func() time.Duration
	}{
		{"uniform to 1µs", func() time.Duration { return time.Duration(r.Int64N(1000)) }},
		{"uniform to 1s", func() time.Duration { return time.Duration(r.Int64N(int64(time.Second))) }},
		{"exponential, mean 20ms", func() time.Duration { return time.Duration(r.ExpFloat64() * 20e6) }},
		{"log-normal", func() time.Duration { return time.Duration(math.Exp(15 + 2*r.NormFloat64())) }},
		{"two humps", func() time.Duration {
			return []time.Duration{50 * time.Microsecond, 2 * time.Second}[r.IntN(2)] + time.Duration(r.IntN(1000))
		}},
		{"one value", func() time.Duration { return 1234567 }},
	} {
		for _, n := range []int{1, 2, 3, 99, 100, 20000} {
			var h Histogram
			var sum time.Duration
			all := make([]time.Duration, n)
			for i := range all {
				all[i] = tt.next()
				sum += all[i]
				h.Record(all[i])
			}
			slices.Sort(all)
			s := h.Snapshot()
			require.EqualValues(t, n, s.Count, tt.name)
			require.Equal(t, sum, s.Sum, tt.name)
			require.Equal(t, sum/time.Duration(n), s.Mean(), tt.name)
			require.Equal(t, all[0], s.Min, tt.name)
			require.Equal(t, all[n-1], s.Max, tt.name)
			for _, q := range []float64{0.001, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999} {
				exact := all[max(int(math.Ceil(q*float64(n))), 1)-1]
				got := s.Quantile(q)
				require.LessOrEqual(t, (got - exact).Abs(), errorBound(exact), "%s, n=%d, q=%v: %v for %v", tt.name, n, q, got, exact)
			}
		}
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	for _, tt := range []struct {
		name    string
		records []time.Duration
		want    Summary
	}{
		{name: "nothing"},
		{"one is every quantile", []time.Duration{5 * time.Millisecond}, Summary{
			1, 5 * time.Millisecond, 5 * time.Millisecond, 5 * time.Millisecond, 5 * time.Millisecond,
			5 * time.Millisecond, 5 * time.Millisecond, 5 * time.Millisecond,
		}},
		{"zero is recorded", []time.Duration{0}, Summary{Count: 1}},
		{"negative counts as zero", []time.Duration{-time.Second, math.MinInt64}, Summary{Count: 2}},
		{"zero remains the minimum", []time.Duration{hour, 0, hour}, Summary{3, 2 * hour, 2 * hour / 3, 0, hour, hour, hour, hour}},
		{"beyond the last bucket quantiles are the maximum", []time.Duration{hour, 2 * hour, 3 * hour}, Summary{
			3, 6 * hour, 2 * hour, hour, 3 * hour, 3 * hour, 3 * hour, 3 * hour,
		}},
		{"total saturates, mean does not", []time.Duration{math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64}, Summary{
			4, math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var h Histogram
			for _, d := range tt.records {
				h.Record(d)
			}
			s := h.Snapshot()
			require.Equal(t, tt.want, s.Summary())
		})
	}
}

func TestQuantileOutsideOfItsRange(t *testing.T) {
	t.Parallel()
	var h Histogram
	for i := range 100 {
		h.Record(time.Duration(i+1) * time.Millisecond)
	}
	s := h.Snapshot()
	for q, want := range map[float64]time.Duration{
		math.Inf(-1): s.Min, -1: s.Min, 0: s.Min,
		1: s.Max, 2: s.Max, math.Inf(1): s.Max,
	} {
		require.Equal(t, want, s.Quantile(q), "q=%v", q)
	}
	require.Equal(t, s.Min, s.Quantile(math.NaN()))
}

func TestMergedSnapshotsEqualOneHistogram(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	var all Histogram
	var merged Snapshot
	for part := range 5 {
		var h Histogram
		for range part * 100 { // the first is empty
			d := time.Duration(r.Int64N(int64(time.Hour)))
			all.Record(d)
			h.Record(d)
		}
		s := h.Snapshot()
		merged.Add(&s)
	}
	require.Equal(t, all.Snapshot(), merged)

	var empty Snapshot
	merged.Add(&empty)
	require.Equal(t, all.Snapshot(), merged)
}

func TestMergingCarriesTheSum(t *testing.T) {
	t.Parallel()
	var h Histogram
	h.Record(math.MaxInt64)
	h.Record(math.MaxInt64 - 2)
	one := h.Snapshot()
	require.EqualValues(t, int64(math.MaxInt64), one.Sum)
	require.EqualValues(t, int64(math.MaxInt64-1), one.Mean())

	sum := one
	for range 9 {
		sum.Add(&one)
	}
	require.EqualValues(t, 20, sum.Count)
	require.EqualValues(t, int64(math.MaxInt64), sum.Sum)
	require.EqualValues(t, int64(math.MaxInt64-1), sum.Mean())
}

func TestSnapshotsAmongRecords(t *testing.T) {
	t.Parallel()
	const goroutines, records = 8, 5000
	var h Histogram
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range records {
				h.Record(time.Duration(1+g*records+i) * time.Microsecond)
			}
		})
	}
	var last uint64
	for last < goroutines*records {
		s := h.Snapshot()
		require.GreaterOrEqual(t, s.Count, last)
		last = s.Count
		if s.Count > 0 {
			require.Positive(t, s.Min)
			require.LessOrEqual(t, s.Min, s.Quantile(0.5))
			require.LessOrEqual(t, s.Quantile(0.5), s.Quantile(0.99))
			require.LessOrEqual(t, s.Quantile(0.99), s.Max)
			require.LessOrEqual(t, s.Min, s.Mean())
			require.LessOrEqual(t, s.Mean(), s.Max)
		}
	}
	wg.Wait()

	const n = goroutines * records
	s := h.Snapshot()
	require.EqualValues(t, n, s.Count)
	require.Equal(t, time.Duration(n)*(n+1)/2*time.Microsecond, s.Sum)
	require.Equal(t, time.Microsecond, s.Min)
	require.Equal(t, n*time.Microsecond, s.Max)
}

func TestHistogramTakesFixedMemory(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(Histogram{}), uintptr(8<<10))
	require.LessOrEqual(t, unsafe.Sizeof(Snapshot{}), uintptr(8<<10))
	if raceEnabled {
		return
	}
	h := new(Histogram)
	var d time.Duration
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		h.Record(d)
		d += 10 * time.Millisecond
	}))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		s := h.Snapshot()
		_ = s.Summary()
	}))
}

func BenchmarkHistogramRecord(b *testing.B) {
	b.Run("goroutines=1", func(b *testing.B) {
		b.ReportAllocs()
		var h Histogram
		d := time.Duration(1)
		for b.Loop() {
			h.Record(d)
			d = (d*5 + 977) & (1<<30 - 1)
		}
	})
	b.Run("goroutines=GOMAXPROCS", func(b *testing.B) {
		b.ReportAllocs()
		var h Histogram
		b.RunParallel(func(pb *testing.PB) {
			d := time.Duration(1)
			for pb.Next() {
				h.Record(d)
				d = (d*5 + 977) & (1<<30 - 1)
			}
		})
	})
}

func BenchmarkSnapshotSummary(b *testing.B) {
	b.ReportAllocs()
	var h Histogram
	for i := range 10000 {
		h.Record(time.Duration(i) * time.Microsecond)
	}
	for b.Loop() {
		s := h.Snapshot()
		_ = s.Summary()
	}
}
