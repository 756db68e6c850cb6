package stats

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestProgress(t *testing.T) {
	t.Parallel()
	const (
		route, pool, header, stream = 0, 1, 2, 3
		ms                          = time.Millisecond
	)
	pace := &Pace{Long: 100 * ms, Own: 30 * ms, LastOwn: pool, Endless: stream}
	type look struct {
		at    time.Duration // of the look
		moves []int         // since the last
		slow  bool
		stage int
		in    time.Duration
		own   time.Duration
	}
	for _, row := range []struct {
		name  string
		looks []look
	}{
		{"at once", []look{{10 * ms, []int{header}, false, header, 0, 0}, {20 * ms, nil, false, header, 10 * ms, 0}}},
		{"where it began", []look{{10 * ms, nil, false, route, 10 * ms, 10 * ms}, {30 * ms, nil, true, route, 30 * ms, 30 * ms}, {90 * ms, nil, false, route, 90 * ms, 90 * ms}}},
		{"long, told once", []look{{99 * ms, []int{header}, false, header, 0, 0}, {100 * ms, nil, true, header, ms, 0}, {900 * ms, nil, false, header, 801 * ms, 0}}},
		{"own first, long later", []look{{30 * ms, nil, true, route, 30 * ms, 30 * ms}, {100 * ms, []int{header}, true, header, 0, 30 * ms}}},
		{"own in several stages", []look{
			{20 * ms, nil, false, route, 20 * ms, 20 * ms}, {30 * ms, []int{header}, false, header, 0, 20 * ms}, {40 * ms, []int{pool}, false, pool, 0, 20 * ms},
			{50 * ms, nil, true, pool, 10 * ms, 30 * ms},
		}},
		{"the same stage again", []look{{10 * ms, nil, false, route, 10 * ms, 10 * ms}, {20 * ms, []int{pool, route}, false, route, 0, 10 * ms}}},
		{"noted twice", []look{{10 * ms, []int{pool}, false, pool, 0, 0}, {20 * ms, []int{pool, pool}, false, pool, 10 * ms, 10 * ms}}},
		{"without an end", []look{{10 * ms, []int{stream}, false, stream, 0, 0}, {900 * ms, nil, false, stream, 890 * ms, 0}}},
	} {
		var p Progress
		start := time.Unix(1_000_000, 0)
		for _, l := range row.looks {
			for _, stage := range l.moves {
				p.At(stage)
			}
			assert.Equal(t, l.slow, p.Slow(start, start.Add(l.at), pace), "%s: %s", row.name, l.at)
			stage, in, own := p.Seen()
			assert.Equal(t, l.stage, stage, "%s: %s", row.name, l.at)
			assert.Equal(t, l.in, in, "%s: %s", row.name, l.at)
			assert.Equal(t, l.own, own, "%s: %s", row.name, l.at)
		}
	}
}
