package stats

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTextIsInOrderAndEscaped(t *testing.T) {
	t.Parallel()
	var page Text
	assert.Empty(t, page.Append(nil))
	page.Gauge("level", "A \\ and\na line.", -2)
	page.Counter("events_total", "Events.", 1, "z", "last", "a", "say \"\\\n\xff")
	page.Counter("events_total", "Events.", 2, "a", "b", "left_out", "")
	page.Counter("events_total", "Events.", 3, "a", "b")
	page.Gauge("level", "A \\ and\na line.", 0.5)
	want := strings.Join([]string{
		`# HELP events_total Events.`,
		`# TYPE events_total counter`,
		`events_total{a="b"} 5`,
		`events_total{a="say \"\\\n` + "\uFFFD" + `",z="last"} 1`,
		`# HELP level A \\ and\na line.`,
		`# TYPE level gauge`,
		`level -1.5`,
		``,
	}, "\n")
	assert.Equal(t, "before\n"+want, string(page.Append([]byte("before\n"))))
}

func TestBucketsOfTextAreCumulative(t *testing.T) {
	t.Parallel()
	var page Text
	bounds := []float64{0.005, 2.5}
	counts := []uint64{1, 2, 3}
	page.Histogram("d_seconds", "D.", bounds, counts, 7.5)
	page.Histogram("d_seconds", "D.", bounds, counts, 1, "z", "x")
	page.Histogram("d_seconds", "D.", bounds, []uint64{0, 1, 0}, 0.25, "z", "x")
	want := strings.Join([]string{
		`# HELP d_seconds D.`,
		`# TYPE d_seconds histogram`,
		`d_seconds_bucket{le="0.005"} 1`,
		`d_seconds_bucket{le="2.5"} 3`,
		`d_seconds_bucket{le="+Inf"} 6`,
		`d_seconds_sum 7.5`,
		`d_seconds_count 6`,
		`d_seconds_bucket{z="x",le="0.005"} 1`,
		`d_seconds_bucket{z="x",le="2.5"} 4`,
		`d_seconds_bucket{z="x",le="+Inf"} 7`,
		`d_seconds_sum{z="x"} 1.25`,
		`d_seconds_count{z="x"} 7`,
		``,
	}, "\n")
	assert.Equal(t, want, string(page.Append(nil)))
	assert.Equal(t, []uint64{1, 2, 3}, counts, "the caller's are left alone")
}
