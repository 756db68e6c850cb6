package rfc9111

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func numbered(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("X-%d", i)
	}
	return strings.Join(names, ", ")
}

var varyTable = []struct {
	name     string
	lines    []string
	encoding string
	want     []string
	refused  bool
}{
	{name: "absent"},
	{name: "RFC 9110 §12.5.5 one name", lines: []string{"Accept"}, want: []string{"Accept"}},
	{name: "RFC 9110 §5.1 names in any case", lines: []string{"aCCEPT-lANGUAGE, ACCEPT"}, want: []string{"Accept", "Accept-Language"}},
	{name: "RFC 9110 §5.3 two lines are joined", lines: []string{"Origin", "Accept"}, want: []string{"Accept", "Origin"}},
	{name: "each name once", lines: []string{"Accept, accept", "ACCEPT"}, want: []string{"Accept"}},
	{name: "RFC 9110 §5.6.1.2 empty members", lines: []string{" ,\tAccept\t, ,", ""}, want: []string{"Accept"}},
	{name: "§4.1 a member * fails to match", lines: []string{"*"}, refused: true},
	{name: "§4.1 * among others", lines: []string{"Accept, *"}, refused: true},
	{name: "§4.1 * on the second line", lines: []string{"Accept", " * "}, refused: true},
	{name: "no name: a colon", lines: []string{"Foo:"}, refused: true},
	{name: "no name: two words", lines: []string{"Accept Origin"}, refused: true},
	{name: "no name: semicolons", lines: []string{"Accept; Origin"}, refused: true},
	{name: "no name: quotes", lines: []string{`"Accept"`}, refused: true},
	{name: "no name: beyond ASCII", lines: []string{"Accept\xff"}, refused: true},
	{name: "no name: NUL", lines: []string{"\x00"}, refused: true},
	{name: "16 names", lines: []string{numbered(16)}, want: strings.Split("X-0 X-1 X-10 X-11 X-12 X-13 X-14 X-15 X-2 X-3 X-4 X-5 X-6 X-7 X-8 X-9", " ")},
	{name: "17 names", lines: []string{numbered(17)}, refused: true},
	{name: "16 names and the implied one", lines: []string{numbered(16)}, encoding: "gzip", refused: true},
	{name: "1000 names", lines: []string{numbered(1000)}, refused: true},
	{name: "4 KiB of one name", lines: []string{strings.Repeat("Accept, ", 512)}, want: []string{"Accept"}},
	{name: "more than 4 KiB", lines: []string{strings.Repeat("Accept, ", 512), "A"}, refused: true},
	{name: "64 kB of nothing", lines: []string{strings.Repeat(",", 64<<10)}, refused: true},
	{name: "RFC 9110 §12.5.3 an encoding implies Accept-Encoding", encoding: "gzip", want: []string{"Accept-Encoding"}},
	{name: "RFC 9110 §12.5.3 an encoding and other names", lines: []string{"Origin"}, encoding: "br", want: []string{"Accept-Encoding", "Origin"}},
	{name: "RFC 9110 §12.5.3 stated and implied", lines: []string{"accept-encoding"}, encoding: "br", want: []string{"Accept-Encoding"}},
	{name: "RFC 9110 §8.4 an empty list of encodings", encoding: " , "},
	{name: "Host is in no header", lines: []string{"Host"}, refused: true},
	{name: "RFC 9110 §7.6.3 Via is each hop's own", lines: []string{"via"}, refused: true},
	{name: "RFC 7239 Forwarded is each hop's own", lines: []string{"forwarded"}, refused: true},
	{name: "X-Forwarded-For is each hop's own", lines: []string{"Accept, x-forwarded-for"}, refused: true},
	{name: "X-Real-IP is each hop's own", lines: []string{"X-Real-IP"}, refused: true},
}

func TestParseVary(t *testing.T) {
	t.Parallel()
	for _, row := range varyTable {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{"Vary": row.lines}
			if row.encoding != "" {
				h["Content-Encoding"] = []string{row.encoding}
			}
			names, ok := ParseVary(h)
			assert.Equal(t, !row.refused, ok)
			assert.Equal(t, row.want, names)
		})
	}
}

func TestVariants(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		a, b []string
		same bool
	}{
		{"§4.1 equal", []string{"gzip"}, []string{"gzip"}, true},
		{"§4.1 different", []string{"gzip"}, []string{"br"}, false},
		{"§4.1 values keep their case", []string{"gzip"}, []string{"GZIP"}, false},
		{"§4.1 several lines combined", []string{"gzip", "br"}, []string{"gzip, br"}, true},
		{"§4.1 white space around a value", []string{" gzip\t"}, []string{"gzip"}, true},
		{"§4.1 order is not known to be without meaning", []string{"gzip, br"}, []string{"br, gzip"}, false},
		{"§4.1 absent matches absent", nil, nil, true},
		{"§4.1 absent does not match present", nil, []string{"gzip"}, false},
		{"§4.1 absent does not match empty", nil, []string{""}, false},
		{"§4.1 empty matches empty", []string{""}, []string{" "}, true},
		{"§4.1 an empty line is a member", []string{"gzip", ""}, []string{"gzip"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			names := []string{"Accept-Encoding"}
			a, b := http.Header{"Accept-Encoding": row.a}, http.Header{"Accept-Encoding": row.b}
			assert.Equal(t, row.same, MatchVariant(AppendVariant(nil, names, a), names, b))
			assert.Equal(t, row.same, MatchVariant(AppendVariant(nil, names, b), names, a))
		})
	}
}

func TestVariantsOfOtherNamesDiffer(t *testing.T) {
	t.Parallel()
	h := http.Header{"A": {"1"}, "B": {"1"}}
	assert.True(t, MatchVariant(nil, nil, h), "§4.1: without Vary any request matches")
	assert.False(t, MatchVariant(AppendVariant(nil, []string{"A"}, h), nil, h))
	assert.False(t, MatchVariant(AppendVariant(nil, []string{"A"}, h), []string{"B"}, h))
	assert.False(t, MatchVariant(AppendVariant(nil, []string{"A"}, h), []string{"A", "B"}, h))
	long := http.Header{"A": {strings.Repeat("x", 64<<10)}}
	assert.True(t, MatchVariant(AppendVariant(nil, []string{"A"}, long), []string{"A"}, long))
}

// joined is the plain model of the value that AppendVariant compares.
func joined(lines []string) string {
	trimmed := make([]string, len(lines))
	for i, line := range lines {
		trimmed[i] = strings.Trim(line, " \t\r\n")
	}
	return strings.Join(trimmed, ", ")
}

func FuzzVary(f *testing.F) {
	for _, row := range varyTable {
		f.Add(strings.Join(row.lines, "\n"), row.encoding, "gzip", "gzip\nbr")
	}
	f.Add("A, B", "", "\x01", "\x00\x01")
	f.Fuzz(func(t *testing.T, vary, encoding, a, b string) {
		names, ok := ParseVary(http.Header{"Vary": strings.Split(vary, "\n"), "Content-Encoding": {encoding}})
		if !ok {
			require.Nil(t, names)
			return
		}
		require.LessOrEqual(t, len(names), maxVaryNames)
		require.True(t, slices.IsSorted(names))
		again, ok := ParseVary(http.Header{"Vary": {strings.Join(names, ", ")}})
		require.True(t, ok)
		require.Equal(t, names, again)
		if len(names) == 0 {
			return
		}
		one, two := http.Header{}, http.Header{}
		one[names[0]], two[names[len(names)-1]] = strings.Split(a, "\n"), strings.Split(b, "\n")
		same := len(names) == 1 && joined(strings.Split(a, "\n")) == joined(strings.Split(b, "\n"))
		require.Equal(t, same, MatchVariant(AppendVariant(nil, names, one), names, two))
		require.True(t, MatchVariant(AppendVariant(nil, names, one), names, one))
	})
}
