package stats

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// told is what was recorded in a row, and when.
type told struct {
	at   time.Duration
	row  int
	took time.Duration
}

// A window has what came in its slots, and the quantiles of it are off by no more than those of a Histogram; its minimum,
// maximum, mean and total are exact.
func TestWindowsAgreeWithExactOnes(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		name string
		next func() time.Duration
		gap  func() time.Duration // between two
	}{
		{"uniform, steady", func() time.Duration { return time.Duration(r.Int64N(int64(time.Second))) }, func() time.Duration { return 100 * time.Millisecond }},
		{"log-normal, in bursts", func() time.Duration { return time.Duration(math.Exp(15 + 2*r.NormFloat64())) }, func() time.Duration {
			return time.Duration(r.IntN(200)/199) * time.Duration(r.Int64N(int64(5*time.Minute)))
		}},
		{"two humps, sparse", func() time.Duration {
			return []time.Duration{50 * time.Microsecond, 2 * time.Second}[r.IntN(2)] + time.Duration(r.IntN(1000))
		}, func() time.Duration { return time.Duration(r.Int64N(int64(40 * time.Second))) }},
		{"beyond the buckets", func() time.Duration { return time.Duration(r.Int64N(int64(time.Hour))) }, func() time.Duration { return 3 * time.Second }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const start = 95 * time.Second
			var calls Counter
			calls.Add(17) // before: no business of the history's
			h := NewHistory(start, 2, &calls)
			var all []told
			reset, at := start, start
			h.base[0], h.began[0] = 17, 17
			for i := range 9000 {
				one := told{at, i % 2, tt.next()}
				all = append(all, one)
				h.Advance(at)
				h.Record(one.row, one.took)
				calls.Add(2)
				at += tt.gap()
				if i%1500 == 1499 {
					checkHistory(t, h, all, at, reset)
				}
				if i == 4000 {
					h.Reset(at)
					reset = at
				}
			}
			for _, quiet := range []time.Duration{0, 25 * time.Second, 5 * time.Minute, time.Hour} {
				at += quiet
				checkHistory(t, h, all, at, reset)
			}
		})
	}
}

// checkHistory compares what the history says at a time with what was recorded.
func checkHistory(t *testing.T, h *History, all []told, at, reset time.Duration) {
	t.Helper()
	current := at / SlotTime
	for _, n := range []int{0, 1, 6, 60} {
		rows := make([]Snapshot, 2)
		counters, over := h.Last(n, at, rows)
		begin := (current - time.Duration(n)) * SlotTime
		require.Equal(t, at-max(begin, h.born), over)
		checkRows(t, all, begin, rows, counters)
	}
	rows := make([]Snapshot, 2)
	counters, over := h.Since(at, rows)
	require.Equal(t, at-reset, over)
	late := all
	if reset > h.born {
		late = all[4001:]
	}
	checkRows(t, late, 0, rows, counters)
	for back := range time.Duration(Slots + 1) {
		var both Snapshot
		counters := h.Slot(int64(current-back), at, &both, 0, 1)
		begin := (current - back) * SlotTime
		want := uint64(0)
		for _, one := range all {
			if begin <= one.at && one.at < begin+SlotTime {
				want++
			}
		}
		require.Equal(t, want, both.Count)
		require.Equal(t, 2*want, counters[0])
	}
}

func checkRows(t *testing.T, all []told, begin time.Duration, rows []Snapshot, counters []uint64) {
	t.Helper()
	n := uint64(0)
	for i := range rows {
		var took []time.Duration
		var sum time.Duration
		for _, one := range all {
			if one.row == i && one.at >= begin {
				took = append(took, one.took)
				sum += one.took
			}
		}
		slices.Sort(took)
		s := rows[i].Summary()
		n += s.Count
		require.Equal(t, len(took), int(s.Count)) //nolint:gosec // small
		if len(took) == 0 {
			require.Equal(t, Summary{}, s)
			continue
		}
		require.Equal(t, []time.Duration{took[0], took[len(took)-1], sum, sum / time.Duration(len(took))}, []time.Duration{s.Min, s.Max, s.Total, s.Mean})
		for q, got := range map[float64]time.Duration{0.5: s.P50, 0.95: s.P95, 0.99: s.P99} {
			exact := took[max(int(math.Ceil(q*float64(len(took)))), 1)-1]
			if exact >= 1<<lastExp {
				require.Equal(t, s.Max, got)
				continue
			}
			require.LessOrEqual(t, (got - exact).Abs(), errorBound(exact), "q=%v: %v for %v", q, got, exact)
		}
	}
	require.Equal(t, 2*n, counters[0])
}

// What was recorded after the last Reset is there, and nothing that was recorded before the first began; in between
// each call sees something that can be.
func TestResetAmongRecords(t *testing.T) {
	t.Parallel()
	const early, late, records = time.Hour, time.Millisecond, 2000
	var calls Counter
	h := NewHistory(0, 1, &calls)
	record := func(at, took time.Duration) {
		h.Advance(at)
		calls.Inc()
		h.Record(0, took)
	}
	record(0, early)
	h.Reset(0)
	var all sync.WaitGroup
	for g := range time.Duration(4) {
		all.Go(func() {
			for i := range time.Duration(records) {
				record(i*SlotTime/20, late+g*records+i)
			}
		})
		all.Go(func() {
			for i := range time.Duration(records / 20) {
				if g == 0 && i%10 == 0 {
					h.Reset(i * SlotTime)
				}
				var rows [2]Snapshot
				h.Since(i*SlotTime, rows[:1])
				h.Last(6, i*SlotTime, rows[1:])
				h.Slot(int64(i), i*SlotTime, &rows[1], 0)
				s := rows[0]
				assert.LessOrEqual(t, s.Count, uint64(4*records))
				if s.Count > 0 {
					assert.LessOrEqual(t, s.Min, s.Quantile(0.5))
					assert.LessOrEqual(t, s.Quantile(0.99), s.Max)
					assert.GreaterOrEqual(t, s.Min, late-late/64)
					assert.LessOrEqual(t, s.Max, 2*late)
					assert.LessOrEqual(t, s.Mean(), s.Max)
				}
			}
		})
	}
	all.Wait()
	end := records * SlotTime
	h.Reset(end)
	for range 3 {
		record(end, 5*late)
	}
	rows := make([]Snapshot, 1)
	counters, over := h.Since(end+time.Second, rows)
	assert.Equal(t, time.Second, over)
	assert.Equal(t, []uint64{3}, counters)
	assert.Equal(t, Summary{3, 15 * late, 5 * late, 5 * late, 5 * late, 5 * late, 5 * late, 5 * late}, rows[0].Summary())
	assert.EqualValues(t, 4*records+4, calls.Load(), "the counters go on")
}

// Two slots later nothing of an instant's confusion is left: each record is in one slot.
func TestEachRecordIsInOneSlot(t *testing.T) {
	t.Parallel()
	const goroutines, records = 4, 5000
	h := NewHistory(0, 1)
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for i := range time.Duration(records) {
				at := i * (Slots - 1) * SlotTime / records
				h.Advance(at)
				h.Record(0, i)
			}
		})
	}
	all.Wait()
	rows := make([]Snapshot, 1)
	h.Last(Slots, (Slots-1)*SlotTime, rows)
	assert.EqualValues(t, goroutines*records, rows[0].Count)
	assert.EqualValues(t, goroutines*records*(records-1)/2, rows[0].Sum)
}

func TestSnapshotIsBoundByWhatWasCounted(t *testing.T) {
	t.Parallel()
	const us = time.Microsecond
	of := func(least, longest time.Duration) extremes { return extremes{^uint64(least), uint64(longest)} }
	for _, tt := range []struct {
		name     string
		records  []time.Duration
		e        extremes
		min, max time.Duration
	}{
		{"nothing", nil, of(us, us), 0, 0},
		{"exact", []time.Duration{us, 5 * us}, of(us, 5*us), us, 5 * us},
		{"none are known", []time.Duration{us, 3 * us}, extremes{}, middleOf(bucketOf(uint64(us))), middleOf(bucketOf(uint64(3 * us)))},
		{"those of one that is not counted", []time.Duration{3 * us}, of(us, 9*us), middleOf(bucketOf(uint64(3 * us))), middleOf(bucketOf(uint64(3 * us)))},
		{"zero", []time.Duration{0}, of(0, 0), 0, 0},
		{"beyond the buckets", []time.Duration{time.Hour}, of(time.Hour, time.Hour), time.Hour, time.Hour},
		{"the longest", []time.Duration{math.MaxInt64}, of(math.MaxInt64, math.MaxInt64), math.MaxInt64, math.MaxInt64},
	} {
		var h Histogram
		for _, d := range tt.records {
			h.Record(d)
		}
		var s Snapshot
		h.read(&s)
		s.bound(tt.e)
		assert.Equal(t, []time.Duration{tt.min, tt.max}, []time.Duration{s.Min, s.Max}, tt.name)
	}
}

func TestSubtractingWhatWasBefore(t *testing.T) {
	t.Parallel()
	var h Histogram
	for range 3 { // more than 64 bits
		h.Record(math.MaxInt64)
	}
	before := h.Snapshot()
	h.Record(time.Second)
	h.Record(3 * time.Second)
	s := h.Snapshot()
	s.subtract(&before)
	s.bound(extremes{^uint64(time.Second), uint64(3 * time.Second)})
	assert.Equal(t, []time.Duration{4 * time.Second, 2 * time.Second, time.Second, 3 * time.Second}, []time.Duration{s.Sum, s.Mean(), s.Min, s.Max})
	assert.EqualValues(t, 2, s.Count)

	torn := before
	torn.carry++ // as if its lower half had gone round by then
	s = h.Snapshot()
	s.subtract(&torn)
	assert.Zero(t, s.Sum)
}

// However many durations come into however many buckets, a slot's row takes less than 4 KiB.
func TestHistoryTakesFixedMemory(t *testing.T) {
	h := NewHistory(0, 1)
	for slot := range time.Duration(3 * Slots) {
		h.Advance(slot * SlotTime)
		for bucket := range overflow {
			for range 1 + bucket%3*100 {
				h.Record(0, middleOf(bucket))
			}
		}
		h.Record(0, time.Hour)
	}
	bytes := 0
	for i := range h.slots {
		bytes += cap(h.slots[i].rows[0].buckets)
	}
	assert.LessOrEqual(t, bytes, Slots*4<<10)
	assert.Greater(t, bytes, Slots*2000)
	if raceEnabled {
		return
	}
	at := 3 * Slots * SlotTime
	assert.Zero(t, testing.AllocsPerRun(1000, func() { // but for the first of a slot
		h.Advance(at)
		h.Record(0, at)
		at += time.Millisecond
	}))
}

func BenchmarkHistory(b *testing.B) {
	b.Run("record", func(b *testing.B) {
		b.ReportAllocs()
		h := NewHistory(0, 13)
		d := time.Duration(1)
		for b.Loop() {
			h.Advance(time.Second)
			h.Record(5, d)
			d = (d*5 + 977) & (1<<30 - 1)
		}
	})
	b.Run("advance", func(b *testing.B) {
		b.ReportAllocs()
		h, at := NewHistory(0, 13, make([]*Counter, 0)...), time.Duration(0)
		for b.Loop() {
			for row := range 6 {
				for i := range time.Duration(100) {
					h.Record(row, i*10*time.Microsecond)
				}
			}
			at += SlotTime
			h.Advance(at)
		}
	})
	b.Run("last=60", func(b *testing.B) {
		b.ReportAllocs()
		h := NewHistory(0, 13)
		for slot := range time.Duration(70) {
			h.Advance(slot * SlotTime)
			for row := range 6 {
				for i := range time.Duration(100) {
					h.Record(row, i*10*time.Microsecond)
				}
			}
		}
		rows := make([]Snapshot, 13)
		for b.Loop() {
			clear(rows)
			h.Last(60, 69*SlotTime, rows)
		}
	})
}
