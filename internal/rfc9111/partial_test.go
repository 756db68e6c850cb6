package rfc9111

import (
	"math"
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var contentRangeTable = []struct {
	name  string
	lines []string
	span  Span
	size  int64
	ok    bool
}{
	{"RFC 9110 §14.4 the length is known", []string{"bytes 42-1233/1234"}, Span{42, 1234}, 1234, true},
	{"RFC 9110 §14.4 the length is unknown", []string{"bytes 42-1233/*"}, Span{42, 1234}, -1, true},
	{"RFC 9110 §14.4 one byte", []string{"bytes 0-0/1"}, Span{0, 1}, 1, true},
	{"RFC 9110 §14.1 the unit in any case", []string{"Bytes 0-0/1"}, Span{0, 1}, 1, true},
	{"RFC 9110 §14.4 MUST NOT recombine: another unit", []string{"lines 0-0/1"}, Span{}, 0, false},
	{"RFC 9110 §14.4 MUST NOT recombine: last-pos before first-pos", []string{"bytes 2-1/4"}, Span{}, 0, false},
	{"RFC 9110 §14.4 MUST NOT recombine: the length is last-pos", []string{"bytes 0-4/4"}, Span{}, 0, false},
	{"RFC 9110 §14.4 MUST NOT recombine: the length is less", []string{"bytes 0-4/3"}, Span{}, 0, false},
	{"RFC 9110 §14.4 of a 416", []string{"bytes */1234"}, Span{}, 0, false},
	{"two lines", []string{"bytes 0-0/1", "bytes 0-0/1"}, Span{}, 0, false},
	{"none", nil, Span{}, 0, false},
	{"no unit", []string{"0-0/1"}, Span{}, 0, false},
	{"an equals sign", []string{"bytes=0-0/1"}, Span{}, 0, false},
	{"two spaces", []string{"bytes  0-0/1"}, Span{}, 0, false},
	{"spaces within", []string{"bytes 0 - 0/1"}, Span{}, 0, false},
	{"a suffix", []string{"bytes -1/1"}, Span{}, 0, false},
	{"open", []string{"bytes 0-/1"}, Span{}, 0, false},
	{"no length", []string{"bytes 0-0"}, Span{}, 0, false},
	{"an empty length", []string{"bytes 0-0/"}, Span{}, 0, false},
	{"more behind it", []string{"bytes 0-0/1, bytes 1-1/2"}, Span{}, 0, false},
	{"a sign", []string{"bytes 0-0/+1"}, Span{}, 0, false},
	{"MaxInt64", []string{"bytes 0-9223372036854775807/*"}, Span{}, 0, false},
	{"beyond MaxInt64", []string{"bytes 0-1/99999999999999999999"}, Span{}, 0, false},
}

func TestParseContentRange(t *testing.T) {
	t.Parallel()
	for _, row := range contentRangeTable {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			span, size, ok := ParseContentRange(http.Header{"Content-Range": row.lines})
			assert.Equal(t, row.ok, ok)
			assert.Equal(t, row.span, span)
			assert.Equal(t, row.size, size)
		})
	}
}

// partHeader returns the header of a part, with the changes: names and values, a value of "-" for absence.
func partHeader(changes ...string) http.Header {
	h := http.Header{"Etag": {`"a"`}, "Date": {at(0)}, "Content-Range": {"bytes 2-4/10"}, "Content-Length": {"3"}, "Content-Type": {"text/plain"}}
	for c := range slices.Chunk(changes, 2) {
		if h[c[0]] = []string{c[1]}; c[1] == "-" {
			delete(h, c[0])
		}
	}
	return h
}

func TestParsePart(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		status  int
		changes []string
		want    bool
	}{
		{"§3.3 MAY store a 206", 206, nil, true},
		{"§3.4 by a strong date", 206, []string{"Etag", "-", "Last-Modified", at(-60 * second)}, true},
		{"without Content-Length", 206, []string{"Content-Length", "-"}, true},
		{"§3.3 without a strong validator: there is none", 206, []string{"Etag", "-"}, true},
		{"§3.3 without a strong validator: a weak one", 206, []string{"Etag", `W/"a"`}, true},
		{"§3.3 without a strong validator: a date of just now", 206, []string{"Etag", "-", "Last-Modified", at(0)}, true},
		{"§3.3 MUST NOT without the unit", 206, []string{"Content-Range", "lines 2-4/10"}, false},
		{"§3.3 MUST NOT without Content-Range", 206, []string{"Content-Range", "-"}, false},
		{"the length of the whole is unknown", 206, []string{"Content-Range", "bytes 2-4/*"}, false},
		{"another length", 206, []string{"Content-Length", "4"}, false},
		{"a broken length", 206, []string{"Content-Length", "3, 3"}, false},
		{"several parts", 206, []string{"Content-Type", "Multipart/Byteranges; boundary=B"}, false},
		{"RFC 9110 §14.4 Content-Range means nothing in a 200", 200, nil, false},
		{"RFC 9110 §14.4 nor is a 416 a part", 416, nil, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			part, ok := ParsePart(row.status, partHeader(row.changes...), today)
			assert.Equal(t, row.want, ok)
			if ok {
				assert.Equal(t, Span{2, 5}, part.Span)
				assert.EqualValues(t, 10, part.Size)
			}
		})
	}
}

func TestPartsCombine(t *testing.T) {
	t.Parallel()
	part, ok := ParsePart(206, partHeader(), today)
	require.True(t, ok)
	for _, row := range []struct {
		name    string
		changes []string
		want    bool
	}{
		{"§3.4 the same strong validator", []string{"Content-Range", "bytes 5-7/10"}, true},
		{"§3.4 another", []string{"Etag", `"b"`}, false},
		{"§3.4 one by date", []string{"Etag", "-", "Last-Modified", at(-60 * second)}, false},
		{"RFC 9110 §15.3.7.3 of another length", []string{"Content-Range", "bytes 2-4/11"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			other, ok := ParsePart(206, partHeader(row.changes...), today)
			require.True(t, ok)
			assert.Equal(t, row.want, part.Combines(&other))
			assert.Equal(t, row.want, other.Combines(&part))
		})
	}
	dated := partHeader("Etag", "-", "Last-Modified", at(-60*second))
	one, _ := ParsePart(206, dated, today)
	two, _ := ParsePart(206, dated, today)
	assert.True(t, one.Combines(&two), "§3.4 the same strong date")
}

func TestWhole(t *testing.T) {
	t.Parallel()
	stored := partHeader("X-Old", "1", "X-Both", "1", "Content-Digest", "sha-256=:of the part:", "Content-Md5", "of the part")
	newer := partHeader("Content-Range", "bytes 5-9/10", "Content-Length", "5", "X-Both", "2")
	h := Whole(Update(stored, newer), 10)
	assert.Equal(t, http.Header{
		"Etag": {`"a"`}, "Date": {at(0)}, "Content-Type": {"text/plain"}, "X-Old": {"1"}, "X-Both": {"2"}, "Content-Length": {"10"},
	}, h, "RFC 9110 §15.3.7.3 MUST have a Content-Length of the whole; §3.4 MUST update; RFC 9530 §2 the digest of a part's content is of no other")
	assert.Equal(t, []string{"bytes 2-4/10"}, stored["Content-Range"], "the argument stays")
}

func TestAskFor(t *testing.T) {
	t.Parallel()
	tag, date, weak := version(`"a"`, at(-60*second)), version("", at(-60*second)), version(`W/"a"`, at(-60*second))
	many := make([]Span, MaxRanges+1)
	for _, row := range []struct {
		name    string
		missing []Span
		v       Validators
		ranges  string
		ifRange string
	}{
		{"§4.3.1 MUST send the entity tag", []Span{{0, 5}}, tag, "bytes=0-4", `"a"`},
		{"§4.3.1 MAY send Last-Modified if there is no entity tag", []Span{{0, 5}}, date, "bytes=0-4", at(-60 * second)},
		{"several", []Span{{0, 1}, {8, 10}}, tag, "bytes=0-0,8-9", `"a"`},
		{"RFC 9110 §13.1.5 MUST NOT send a weak one", []Span{{0, 5}}, weak, "", ""},
		{"nothing is missing", nil, tag, "", ""},
		{"too many", many, tag, "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{"Accept": {"*/*"}, "Range": {"bytes=7-7"}, "If-Range": {`"x"`}, "If-None-Match": {"*"}}
			want := http.Header{"Accept": {"*/*"}}
			if row.ranges != "" {
				want["Range"], want["If-Range"] = []string{row.ranges}, []string{row.ifRange}
			}
			assert.Equal(t, row.ranges != "", AskFor(h, row.missing, &row.v))
			assert.Equal(t, want, h)
		})
	}
}

func TestCoverage(t *testing.T) {
	t.Parallel()
	var c Coverage
	assert.False(t, c.Covers(Span{0, 1}))
	assert.Equal(t, []Span{{3, 9}}, c.Missing(nil, Span{3, 9}))
	for _, step := range []struct {
		add  Span
		want []Span
	}{
		{Span{10, 20}, []Span{{10, 20}}},
		{Span{30, 40}, []Span{{10, 20}, {30, 40}}},
		{Span{0, 5}, []Span{{0, 5}, {10, 20}, {30, 40}}},
		{Span{12, 18}, []Span{{0, 5}, {10, 20}, {30, 40}}},
		{Span{20, 22}, []Span{{0, 5}, {10, 22}, {30, 40}}},
		{Span{8, 10}, []Span{{0, 5}, {8, 22}, {30, 40}}},
		{Span{4, 31}, []Span{{0, 40}}},
		{Span{50, 60}, []Span{{0, 40}, {50, 60}}},
	} {
		before := slices.Clone(c.Runs())
		next, ok := c.With(step.add)
		require.True(t, ok)
		assert.Equal(t, step.want, next.Runs())
		assert.Equal(t, before, c.Runs(), "a coverage is immutable")
		c = next
	}
	assert.EqualValues(t, 50, c.Len())
	assert.True(t, c.Covers(Span{0, 40}), "§3.3 a range wholly within")
	assert.True(t, c.Covers(Span{50, 51}))
	assert.False(t, c.Covers(Span{39, 41}), "§3.3 MUST NOT use it for more")
	assert.False(t, c.Covers(Span{40, 50}))
	assert.False(t, c.Covers(Span{60, 61}))
	assert.False(t, c.Covers(Span{5, 5}))
	assert.Equal(t, []Span{{40, 50}, {60, 70}}, c.Missing(nil, Span{30, 70}))
	assert.Empty(t, c.Missing(nil, Span{5, 30}))
	assert.False(t, c.Complete(60))
	run, ok := c.Run(Span{52, 53})
	assert.True(t, ok)
	assert.Equal(t, Span{50, 60}, run)
	c, _ = c.With(Span{40, 50})
	assert.True(t, c.Complete(60), "RFC 9110 §15.3.7.3 the union is the entire range")
	assert.False(t, c.Complete(61))
	assert.False(t, Coverage{}.Complete(0))
}

func TestCoverageIsBounded(t *testing.T) {
	t.Parallel()
	var c Coverage
	for _, s := range []Span{{-1, 1}, {5, 5}, {6, 5}} {
		_, ok := c.With(s)
		assert.False(t, ok)
	}
	for i := range int64(maxRuns) {
		var ok bool
		c, ok = c.With(Span{2 * i, 2*i + 1})
		require.True(t, ok)
	}
	refused, ok := c.With(Span{1000, 1001})
	assert.False(t, ok)
	assert.Equal(t, c, refused)
	c, ok = c.With(Span{1, 2})
	assert.True(t, ok, "what fills a gap makes fewer")
	assert.Len(t, c.Runs(), maxRuns-1)
	c, ok = c.With(Span{1000, math.MaxInt64})
	assert.True(t, ok)
	assert.True(t, c.Covers(Span{math.MaxInt64 - 1, math.MaxInt64}))
}

func TestCoverageDoesNotAllocateOnReading(t *testing.T) {
	var c Coverage
	for i := range int64(20) {
		c, _ = c.With(Span{10 * i, 10*i + 5})
	}
	var room [MaxRanges]Span
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		c.Covers(Span{31, 34})
		c.Missing(room[:0], Span{31, 64})
	}))
}

// alphabetOf returns the content of a span: each byte says where it is.
func alphabetOf(s Span) []byte {
	p := make([]byte, s.Len())
	for i := range p {
		p[i] = byte((s.Start + int64(i)) % 251)
	}
	return p
}

func TestCombine(t *testing.T) {
	t.Parallel()
	const big = joined
	for _, row := range []struct {
		name  string
		spans []Span
		want  []int64 // the lengths of the chunks
	}{
		{"one", []Span{{5, 9}}, []int64{4}},
		{"two apart", []Span{{5, 9}, {0, 2}}, []int64{2, 4}},
		{"short ones that touch are one", []Span{{5, 9}, {9, 10}, {0, 5}}, []int64{10}},
		{"a gap is filled", []Span{{0, 2}, {5, 9}, {1, 7}}, []int64{9}},
		{"long ones stay apart", []Span{{0, big}, {big, 2 * big}}, []int64{big, big}},
		{"of what is there nothing is replaced", []Span{{0, big}, {big - 1, 2*big + 1}}, []int64{big, big + 1}},
		{"however often", []Span{{0, big}, {1, big + 1}, {2, big + 2}, {3, big + 3}}, []int64{big, 3}},
		{"over two", []Span{{10, 20}, {30, 40}, {0, 50}}, []int64{50}},
		{"within one", []Span{{0, 50}, {10, 20}}, []int64{50}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var c Coverage
			var body [][]byte
			for _, s := range row.spans {
				content := alphabetOf(s)
				next, ok := c.With(s)
				require.True(t, ok)
				body = next.Combine(c, slices.Clone(body), s, content)
				for _, chunk := range body {
					if &chunk[0] == &content[0] || &chunk[len(chunk)-1] == &content[len(content)-1] {
						require.Len(t, chunk, len(content), "a part of the content would keep all of it in use")
					}
				}
				c = next
			}
			lengths, at := []int64{}, 0
			for _, chunk := range body {
				lengths = append(lengths, int64(len(chunk)))
			}
			assert.Equal(t, row.want, lengths)
			all := slices.Concat(body...)
			for _, run := range c.Runs() {
				require.Equal(t, alphabetOf(run), all[at:at+int(run.Len())])
				at += int(run.Len())
			}
		})
	}
}

func TestCombineOfManyShortPartsHasFewChunks(t *testing.T) {
	t.Parallel()
	var c Coverage
	var body [][]byte
	for i := range int64(4 * joined) {
		s := Span{i, i + 1}
		next, ok := c.With(s)
		require.True(t, ok)
		c, body = next, next.Combine(c, body, s, alphabetOf(s))
	}
	assert.Len(t, body, 4)
	assert.Equal(t, alphabetOf(Span{0, 4 * joined}), slices.Concat(body...))
}

func FuzzContentRange(f *testing.F) {
	for _, row := range contentRangeTable {
		for _, line := range row.lines {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, line string) {
		s, size, ok := ParseContentRange(http.Header{"Content-Range": {line}})
		if !ok {
			require.Zero(t, s)
			return
		}
		require.True(t, 0 <= s.Start && s.Start < s.End && (size < 0 || s.End <= size))
		if size >= 0 {
			again, n, ok := ParseContentRange(http.Header{"Content-Range": {string(AppendContentRange(nil, s, size))}})
			require.True(t, ok && again == s && n == size)
		}
	})
}

// FuzzCoverage holds a Coverage against a bitmap: each pair of bytes adds a span, by its place and length.
func FuzzCoverage(f *testing.F) {
	f.Add([]byte{0, 5, 10, 5, 5, 5, 200, 55})
	f.Add([]byte{9, 1, 7, 1, 5, 1, 3, 1, 1, 1, 0, 30})
	f.Fuzz(func(t *testing.T, in []byte) {
		var c Coverage
		var body [][]byte
		var bits [512]bool
		for pair := range slices.Chunk(in, 2) {
			if len(pair) < 2 {
				break
			}
			s := Span{int64(pair[0]), int64(pair[0]) + int64(pair[1])}
			covered := true
			for i := s.Start; i < s.End; i++ {
				covered = covered && bits[i]
			}
			require.Equal(t, covered && s.Len() > 0, c.Covers(s))
			gaps := 0
			for _, gap := range c.Missing(nil, s) {
				require.True(t, s.Start <= gap.Start && gap.Start < gap.End && gap.End <= s.End)
				for i := gap.Start; i < gap.End; i++ {
					require.False(t, bits[i])
					gaps++
				}
			}
			next, ok := c.With(s)
			if !ok {
				continue
			}
			for i := s.Start; i < s.End; i++ {
				if !bits[i] {
					gaps--
				}
				bits[i] = true
			}
			require.Zero(t, gaps, "all that is missing is named")
			c, body = next, next.Combine(c, body, s, alphabetOf(s))
			last := int64(-1)
			for _, run := range c.Runs() {
				require.True(t, last < run.Start && run.Start < run.End, "ascending and apart")
				last = run.End
			}
			require.LessOrEqual(t, len(c.Runs()), maxRuns)
		}
		n := 0
		for _, bit := range bits {
			if bit {
				n++
			}
		}
		require.EqualValues(t, n, c.Len())
		content := slices.Concat(body...)
		for _, run := range c.Runs() {
			require.Equal(t, alphabetOf(run), content[:run.Len()])
			content = content[run.Len():]
		}
		require.Empty(t, content)
	})
}
