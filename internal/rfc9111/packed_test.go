package rfc9111

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

var packedHeader = http.Header{
	"Content-Type":  {"text/plain"},
	"Cache-Control": {"max-age=60", "public"},
	"X-Empty":       {""},
	"Vary":          {"Accept"},
}

func TestPackKeepsEveryLine(t *testing.T) {
	for _, h := range []http.Header{nil, {}, {"A": {"1"}}, packedHeader, {"X": {strings.Repeat("a", 100_000)}}, {"X": {strings.Repeat("a", 127), strings.Repeat("b", 128), ""}, "Y": {""}}} {
		p := Pack(h, nil)
		got := p.Header()
		assert.Len(t, got, len(h))
		for name, values := range h {
			assert.Equal(t, values, got[name])
			assert.Equal(t, values[0], p.Get(name))
		}
	}
}

func TestPackLeavesOut(t *testing.T) {
	p := Pack(packedHeader, func(name string) bool { return strings.HasPrefix(name, "C") })
	assert.Equal(t, http.Header{"X-Empty": {""}, "Vary": {"Accept"}}, p.Header())
	assert.Equal(t, 2, p.Len())
	assert.Empty(t, p.Get("Cache-Control"))
}

func TestPackLeavesOutWhatIsNoField(t *testing.T) {
	p := Pack(http.Header{"": {"1"}, "A": {"2"}, "B": {}}, nil)
	assert.Equal(t, http.Header{"A": {"2"}}, p.Header())
	assert.Equal(t, 1, p.Len())
}

func TestSizeCountsTextAndLengths(t *testing.T) {
	p := Pack(http.Header{"Ab": {"c", "de"}}, nil)
	assert.EqualValues(t, len("Ab")+len("cde")+2*2, p.Size())
	assert.Zero(t, new(Packed).Size())
}

// What is unpacked belongs to whoever unpacked it.
func TestWhatIsUnpackedCanBeWrittenTo(t *testing.T) {
	p := Pack(packedHeader, nil)
	h := p.Header()
	h["Cache-Control"][0] = "no-store"
	h["Cache-Control"] = append(h["Cache-Control"], "more")
	_ = append(h["Content-Type"], "more")
	assert.Equal(t, packedHeader, p.Header())
	assert.Equal(t, []string{"Accept"}, h["Vary"])
}

func TestEachAllocatesNothing(t *testing.T) {
	p := Pack(packedHeader, nil)
	buf, n := make([]string, 0, p.Len()), 0
	count := func(_ string, values []string) { n += len(values) }
	assert.Zero(t, testing.AllocsPerRun(100, func() { p.Each(buf, count) }))
	assert.Equal(t, 101*p.Len(), n)
}
