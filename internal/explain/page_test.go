package explain

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestPage(t *testing.T) {
	t.Parallel()
	var p Page
	assert.Empty(t, p.String())
	p.Line("one")
	p.Line("")
	p.Row("a", "1")
	p.Row("none", "")
	p.Row("long", "2")
	p.Row(strings.Repeat("x", maxLabel+1), "3")
	p.Line("two")
	p.Row("ab", "4")
	assert.Equal(t, "one\n  a     1\n  long  2\n  "+strings.Repeat("x", maxLabel+1)+"  3\ntwo\n  ab  4\n", p.String())
}

func TestPageKeepsEachTextOnItsLine(t *testing.T) {
	t.Parallel()
	var p Page
	p.Line("a\nb\rc\x00d\x1b[31m\x7f\xffé\u2028\u0085")
	p.Row("l\tl", "€\n")
	p.Line(strings.Repeat("y", 2*maxText))
	assert.Equal(t, "a?b?c?d?[31m??é??\n  l?l  €?\n"+strings.Repeat("y", maxText)+"…\n", p.String())
}

func TestList(t *testing.T) {
	t.Parallel()
	assert.Empty(t, List())
	assert.Empty(t, List("", ""))
	assert.Equal(t, "a, b", List("", "a", "", "b", ""))
	assert.Equal(t, "a", If(true, "a"))
	assert.Empty(t, If(false, "a"))
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", 17 * time.Microsecond: "17µs", 1234567 * time.Nanosecond: "1ms", 1500 * time.Millisecond: "1.5s", -5 * time.Second: "-5s",
		12340 * time.Millisecond: "12s", 59900 * time.Millisecond: "1m", time.Minute: "1m", 90 * time.Second: "1m30s", 10 * time.Minute: "10m",
		time.Hour: "1h", 24 * time.Hour: "24h", time.Hour - time.Second: "1h", 10*time.Minute - time.Second: "9m59s", time.Hour + time.Minute: "1h1m",
	} {
		assert.Equal(t, want, Span(d), d)
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 bytes", 1: "1 byte", 1023: "1023 bytes", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 20: "5.0 MiB", 3 << 30: "3.0 GiB"} {
		assert.Equal(t, want, Bytes(n))
	}
	assert.Equal(t, "3 variants", Count(3, "variant"))
}
