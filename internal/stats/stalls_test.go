package stats

import (
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestQuantileOfWhatCameSince(t *testing.T) {
	t.Parallel()
	bounds := []float64{math.Inf(-1), 0, 0.001, 0.01, 0.1, math.Inf(1)}
	for _, tt := range []struct {
		name        string
		before, now []uint64
		q           float64
		want        time.Duration
	}{
		{"nothing yet", nil, nil, 1, 0},
		{"nothing new", []uint64{0, 5, 0, 0, 1}, []uint64{0, 5, 0, 0, 1}, 1, 0},
		{"another runtime", []uint64{1}, []uint64{0, 5, 0, 0, 1}, 1, 0},
		{"one", []uint64{0, 0, 0, 0, 0}, []uint64{0, 1, 0, 0, 0}, 0.99, time.Millisecond},
		{"what was before does not count", []uint64{0, 0, 0, 9, 9}, []uint64{0, 1, 0, 9, 9}, 1, time.Millisecond},
		{"one of a hundred is beyond the 99th", []uint64{0, 0, 0, 0, 0}, []uint64{0, 99, 0, 1, 0}, 0.99, time.Millisecond},
		{"two are not", []uint64{0, 0, 0, 0, 0}, []uint64{0, 98, 0, 2, 0}, 0.99, 100 * time.Millisecond},
		{"the longest", []uint64{0, 0, 0, 0, 0}, []uint64{0, 99, 1, 0, 0}, 1, 10 * time.Millisecond},
		{"beyond the last bound", []uint64{0, 0, 0, 0, 0}, []uint64{0, 0, 0, 0, 1}, 1, 100 * time.Millisecond},
		{"below the first", []uint64{0, 0, 0, 0, 0}, []uint64{1, 0, 0, 0, 0}, 1, 0},
	} {
		assert.Equal(t, tt.want, since(tt.before, tt.now, bounds, tt.q), tt.name)
	}
}

func TestStallsSeesACollection(t *testing.T) {
	t.Parallel()
	s := NewStalls()
	runtime.GC()
	_, pause := s.Read()
	assert.Positive(t, pause)
	assert.Less(t, pause, time.Minute)
}

func BenchmarkStallsRead(b *testing.B) {
	s := NewStalls()
	b.ReportAllocs()
	for b.Loop() {
		s.Read()
	}
}
