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
