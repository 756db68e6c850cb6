package retry

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWaits(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, tt := range []struct {
		name           string
		initial, limit time.Duration
		intervals      []time.Duration // each wait is one of these, ±50 %
	}{
		{"doubles up to the limit", 25 * ms, 120 * ms, []time.Duration{25 * ms, 50 * ms, 100 * ms, 120 * ms, 120 * ms, 120 * ms}},
		{"starts at the limit", time.Second, 100 * ms, []time.Duration{100 * ms, 100 * ms}},
		{"a nanosecond", 1, 1, []time.Duration{1, 1, 1}},
		{"odd nanoseconds", 3, 7, []time.Duration{3, 6, 7, 7}},
		{"no wait", 0, time.Second, []time.Duration{0, 0, 0}},
		{"negative is none", -ms, -ms, []time.Duration{0, 0, 0}},
		{"the longest there is", math.MaxInt64, math.MaxInt64, []time.Duration{math.MaxInt64 / 2, math.MaxInt64 / 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			template := NewTemplate(tt.initial, tt.limit)
			longest := tt.intervals[len(tt.intervals)-1]
			for range 200 {
				w := template.Start()
				for i, interval := range tt.intervals {
					wait := w.Next()
					require.GreaterOrEqual(t, wait, interval/2, "wait %d", i)
					require.LessOrEqual(t, wait, interval+(interval+1)/2, "wait %d", i)
					require.LessOrEqual(t, wait, longest+longest/2, "wait %d", i)
				}
			}
		})
	}
}

func TestWaitsAreJittered(t *testing.T) {
	t.Parallel()
	template := NewTemplate(time.Second, time.Second)
	seen := map[time.Duration]bool{}
	for range 100 {
		w := template.Start()
		seen[w.Next()] = true
	}
	require.Greater(t, len(seen), 90)
}

func TestWaitsAreIndependent(t *testing.T) {
	t.Parallel()
	template := NewTemplate(time.Millisecond, time.Hour)
	a := template.Start()
	for range 30 {
		a.Next()
	}
	b := template.Start()
	require.LessOrEqual(t, b.Next(), 1500*time.Microsecond)
	require.Greater(t, a.Next(), time.Minute)
}

func TestZeroTemplateWaitsForNothing(t *testing.T) {
	t.Parallel()
	var template Template
	w := template.Start()
	require.Zero(t, w.Next())
}

func TestWaitsAllocateNothing(t *testing.T) {
	if raceEnabled {
		return
	}
	template := NewTemplate(25*time.Millisecond, time.Second)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		w := template.Start()
		for range 3 {
			w.Next()
		}
	}))
}

func BenchmarkWaits(b *testing.B) {
	b.ReportAllocs()
	template := NewTemplate(25*time.Millisecond, time.Second)
	for b.Loop() {
		w := template.Start()
		w.Next()
	}
}
