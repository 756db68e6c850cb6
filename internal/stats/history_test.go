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

// slots is how long n slots are.
func slots(n int) time.Duration { return time.Duration(n) * SlotTime }

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
	current := int(at / SlotTime)
	for _, n := range []int{0, 1, 6, 60} {
		rows := make([]Snapshot, 2)
		counters, over := h.Last(n, at, rows)
		begin := slots(current - n)
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
	for back := range Slots + 1 {
		var both Snapshot
		counters := h.Slot(int64(current-back), at, &both, 0, 1)
		begin := slots(current - back)
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
		calls.Add(1)
		h.Record(0, took)
	}
	record(0, early)
	h.Reset(0)
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range records {
				record(slots(i)/20, late+time.Duration(g*records+i))
			}
		})
		all.Go(func() {
			for i := range records / 20 {
				if g == 0 && i%10 == 0 {
					h.Reset(slots(i))
				}
				var rows [2]Snapshot
				h.Since(slots(i), rows[:1])
				h.Last(6, slots(i), rows[1:])
				h.Slot(int64(i), slots(i), &rows[1], 0)
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
	end := slots(records)
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
			for i := range records {
				h.Advance(slots(i*(Slots-1)) / records)
				h.Record(0, time.Duration(i))
			}
		})
	}
	all.Wait()
	rows := make([]Snapshot, 1)
	h.Last(Slots, slots(Slots-1), rows)
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
	for slot := range 3 * Slots {
		h.Advance(slots(slot))
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
	request := newRequest()
	request() // it makes the rows
	assert.Zero(t, testing.AllocsPerRun(1000, request))
}

// newRequest returns what a gateway does to profile one request that passes it.
func newRequest() func() {
	const route, header, body, own, total, rows = 0, 1, 2, 3, 4, 5
	h, begin := NewHistory(0, rows), time.Now()
	return func() {
		var l Laps
		start := time.Now()
		l.Start(route)
		l.Next(header, time.Since(start))
		l.Next(body, time.Since(start))
		took := time.Since(start)
		h.Advance(start.Sub(begin) + took)
		l.End(took)
		for stage := range own {
			d, _ := l.Spent(stage)
			h.Record(stage, d)
		}
		h.Record(own, took)
		h.Record(total, took)
	}
}

func BenchmarkHistory(b *testing.B) {
	b.Run("request", func(b *testing.B) {
		b.ReportAllocs()
		request := newRequest()
		for b.Loop() {
			request()
		}
	})
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
		h, at := NewHistory(0, 13), time.Duration(0)
		for b.Loop() {
			for row := range 6 {
				for i := range 100 {
					h.Record(row, 10*time.Duration(i)*time.Microsecond)
				}
			}
			at += SlotTime
			h.Advance(at)
		}
	})
	b.Run("last=60", func(b *testing.B) {
		b.ReportAllocs()
		h := NewHistory(0, 13)
		for slot := range 70 {
			h.Advance(slots(slot))
			for row := range 6 {
				for i := range 100 {
					h.Record(row, 10*time.Duration(i)*time.Microsecond)
				}
			}
		}
		rows := make([]Snapshot, 13)
		for b.Loop() {
			clear(rows)
			h.Last(60, slots(69), rows)
		}
	})
}
