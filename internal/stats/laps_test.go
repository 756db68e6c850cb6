package stats

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestLaps(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		do   func(l *Laps)
		want map[int]time.Duration
	}{
		{"off", func(l *Laps) { l.Next(1, 5); l.Become(0, 2); l.End(9) }, map[int]time.Duration{}},
		{"one", func(l *Laps) { l.Start(3); l.End(9) }, map[int]time.Duration{3: 9}},
		{"in their order", func(l *Laps) { l.Start(0); l.Next(1, 5); l.Next(2, 7); l.End(9) }, map[int]time.Duration{0: 5, 1: 2, 2: 2}},
		{"twice", func(l *Laps) { l.Start(0); l.Next(1, 5); l.Next(0, 7); l.Next(1, 10); l.End(20) }, map[int]time.Duration{0: 8, 1: 12}},
		{"the same", func(l *Laps) { l.Start(0); l.Next(0, 5); l.End(9) }, map[int]time.Duration{0: 9}},
		{"taken for another", func(l *Laps) { l.Start(0); l.Become(0, 1); l.Next(2, 5); l.Become(1, 3); l.End(9) }, map[int]time.Duration{1: 5, 2: 4}},
		{"not back in time", func(l *Laps) { l.Start(0); l.Next(1, 5); l.Next(2, 3); l.End(9) }, map[int]time.Duration{0: 5, 1: 0, 2: 4}},
		{"the last one", func(l *Laps) { l.Start(MaxStages - 1); l.End(1) }, map[int]time.Duration{MaxStages - 1: 1}},
	} {
		var l Laps
		tt.do(&l)
		got := map[int]time.Duration{}
		for stage := range MaxStages {
			if d, ok := l.Spent(stage); ok {
				got[stage] = d
			}
		}
		assert.Equal(t, tt.want, got, tt.name)
		assert.Equal(t, tt.name != "off", l.On(), tt.name)
	}
}

func TestLapsSoFar(t *testing.T) {
	t.Parallel()
	var l Laps
	_, ok := l.SoFar(0, 5)
	assert.False(t, ok, "it is off")
	l.Start(0)
	l.Next(1, 5)
	l.Next(0, 7)
	for range 2 { // nothing is kept
		for stage, want := range map[int]time.Duration{0: 8, 1: 2} {
			d, ok := l.SoFar(stage, 10)
			assert.True(t, ok)
			assert.Equal(t, want, d, stage)
		}
	}
	d, ok := l.SoFar(0, 6)
	assert.True(t, ok)
	assert.EqualValues(t, 5, d, "not back in time")
	_, ok = l.SoFar(2, 10)
	assert.False(t, ok)
}

func TestLapsOfOneStage(t *testing.T) {
	t.Parallel()
	var l Laps
	assert.False(t, l.Only(0))
	assert.False(t, l.Leaves(1))
	l.Start(0)
	assert.True(t, l.Only(0))
	assert.False(t, l.Only(1))
	assert.False(t, l.Leaves(0))
	assert.True(t, l.Leaves(1))
	assert.True(t, l.Become(0, 1))
	assert.False(t, l.Become(0, 1))
	assert.True(t, l.Only(1))
	l.Next(0, 5)
	l.Next(1, 5)
	assert.False(t, l.Only(1))
}
