package stats

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestShort(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0:                                     "0s",
		7:                                     "7ns",
		999:                                   "999ns",
		1000:                                  "1µs",
		1234:                                  "1.23µs",
		12345:                                 "12.3µs",
		123456:                                "123µs",
		999999:                                "1ms",
		1234567:                               "1.23ms",
		59994 * time.Millisecond:              "1m0s",
		59940 * time.Millisecond:              "59.9s",
		time.Minute + 499*time.Millisecond:    "1m0s",
		61*time.Minute + 501*time.Millisecond: "1h1m0s",
		-1234:                                 "-1.23µs",
		math.MaxInt64:                         "2562047h47m16s",
	} {
		assert.Equal(t, want, Short(d), int64(d))
	}
}

func TestTableAlignsItsColumns(t *testing.T) {
	t.Parallel()
	var table Table
	assert.Empty(t, table.String())
	table.Headings("stage")
	table.Summary("route", &Summary{Count: 7, Total: 70 * time.Microsecond, Mean: 10 * time.Microsecond, Min: 900, Max: 21 * time.Microsecond, P50: 9 * time.Microsecond, P95: 20 * time.Microsecond, P99: 20 * time.Microsecond})
	table.Line("a line of one cell is as long as it is")
	table.Line("µ", "1")
	assert.Equal(t, `
stage  count  total  mean    min  p50   p95   p99   max
route      7   70µs  10µs  900ns  9µs  20µs  20µs  21µs
a line of one cell is as long as it is
µ          1
`, "\n"+table.String())
}
