package stats

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestGrows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		mib  []uint64
		rise float64 // MiB
		want bool
	}{
		{"nothing", nil, 0, false},
		{"one sample", []uint64{500}, 0, false},
		{"two samples are no trend", []uint64{0, 500}, 500, false},
		{"three samples are none", []uint64{0, 250, 500}, 250, false},
		{"a leak", []uint64{100, 104, 108, 112}, 4, true},
		{"a slow one shows in the window", []uint64{50, 52, 54, 56, 58, 60, 62, 64, 66, 68}, 2, true},
		{"a slower one is noise", []uint64{50, 51, 52, 53, 54, 55, 56, 57, 58, 59}, 1, false},
		{"exactly 10 MiB is not more", []uint64{0, 2, 4, 6, 8, 10}, 2, false},
		{"with a dip", []uint64{10, 20, 30, 25, 40, 50}, 127.5 / 17.5, true},
		{"no collection between some", []uint64{10, 20, 20, 30, 40, 40, 50}, 90.0 / 14, true},
		{"flat", []uint64{70, 70, 70, 70, 70}, 0, false},
		{"falling", []uint64{70, 60, 50, 40}, -10, false},
		{"one step", []uint64{10, 10, 10, 10, 90, 90, 90, 90}, 1280.0 / 84, false},
		{"it has filled up", []uint64{10, 30, 50, 70, 70, 70, 70, 70}, 340.0 / 42, false},
		{"a tide", []uint64{10, 40, 10, 40, 10, 40}, 45.0 / 17.5, false},
		{"the last is no higher than the first", []uint64{60, 20, 30, 40, 50, 60}, 50.0 / 17.5, false},
	} {
		live := make([]uint64, len(tt.mib))
		for i, n := range tt.mib {
			live[i] = n << 20
		}
		rise, grows := Grows(live)
		assert.Equal(t, tt.want, grows, tt.name)
		assert.InDelta(t, tt.rise*(1<<20), rise, 1, tt.name)
	}
}
