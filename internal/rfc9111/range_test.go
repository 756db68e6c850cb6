package rfc9111

import (
	"bytes"
	"errors"
	"io"
	"math"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const ignored, satisfiable, unsatisfiable = RangeIgnored, RangeSatisfiable, RangeUnsatisfiable

// rangeTable is about a representation of 10000 bytes.
var rangeTable = []struct {
	name  string
	value string
	want  []Span
	out   RangeOutcome
}{
	{"RFC 9110 §14.1.2 the first 500 bytes", "bytes=0-499", []Span{{0, 500}}, satisfiable},
	{"RFC 9110 §14.1.2 the second 500 bytes", "bytes=500-999", []Span{{500, 1000}}, satisfiable},
	{"RFC 9110 §14.1.2 the last 500 bytes", "bytes=-500", []Span{{9500, 10000}}, satisfiable},
	{"RFC 9110 §14.1.2 from 9500 on", "bytes=9500-", []Span{{9500, 10000}}, satisfiable},
	{"RFC 9110 §14.1.2 the first and the last byte", "bytes=0-0,-1", []Span{{0, 1}, {9999, 10000}}, satisfiable},
	{"RFC 9110 §14.1.2 white space", "bytes= 0-999, 4500-5499\t, -1000 ", []Span{{0, 1000}, {4500, 5500}, {9000, 10000}}, satisfiable},
	{"RFC 9110 §14.1.2 touching", "bytes=500-600,601-999", []Span{{500, 1000}}, satisfiable},
	{"RFC 9110 §14.1.2 overlapping", "bytes=500-700,601-999", []Span{{500, 1000}}, satisfiable},
	{"RFC 9110 §14.1.2 last-pos beyond the end", "bytes=9500-10000", []Span{{9500, 10000}}, satisfiable},
	{"RFC 9110 §14.1.2 a suffix longer than all", "bytes=-10001", []Span{{0, 10000}}, satisfiable},
	{"RFC 9110 §14.1 the unit in any case", "BYTES=0-0", []Span{{0, 1}}, satisfiable},
	{"RFC 9110 §5.6.1.2 empty members", "bytes=,0-0,, ,", []Span{{0, 1}}, satisfiable},
	{"RFC 9110 §15.3.7.2 in the order asked for", "bytes=9000-9999,0-999", []Span{{9000, 10000}, {0, 1000}}, satisfiable},
	{"RFC 9110 §15.3.7.2 coalesced where the first was", "bytes=50-59,0-9,60-69", []Span{{50, 70}, {0, 10}}, satisfiable},
	{"RFC 9110 §15.3.7.2 coalesced by a third", "bytes=0-9,20-29,10-19", []Span{{0, 30}}, satisfiable},
	{"RFC 9110 §15.3.7.2 without the unsatisfiable", "bytes=10000-,0-0,-0", []Span{{0, 1}}, satisfiable},
	{"RFC 9110 §14.1.2 first-pos is the length", "bytes=10000-", nil, unsatisfiable},
	{"RFC 9110 §14.1.2 first-pos beyond the length", "bytes=10001-10002", nil, unsatisfiable},
	{"RFC 9110 §14.1.2 a suffix of 0", "bytes=-0", nil, unsatisfiable},
	{"RFC 9110 §14.1.1 all unsatisfiable", "bytes=-0,20000-", nil, unsatisfiable},
	{"RFC 9110 §14.1.2 MUST prevent overflow: last-pos", "bytes=9999-99999999999999999999999", []Span{{9999, 10000}}, satisfiable},
	{"RFC 9110 §14.1.2 MUST prevent overflow: MaxInt64", "bytes=0-9223372036854775807", []Span{{0, 10000}}, satisfiable},
	{"RFC 9110 §14.1.2 MUST prevent overflow: first-pos", "bytes=9223372036854775808-", nil, unsatisfiable},
	{"RFC 9110 §14.1.2 MUST prevent overflow: a suffix", "bytes=-9223372036854775808", []Span{{0, 10000}}, satisfiable},
	{"CVE-2017-7529 suffixes whose sum overflows", "bytes=-500,-9223372036854775308", nil, ignored},
	{"RFC 9110 §14.1.1 last-pos before first-pos is invalid", "bytes=5-2", nil, ignored},
	{"RFC 9110 §14.1.1 last-pos just before first-pos is invalid", "bytes=5-4", nil, ignored},
	{"RFC 9110 §14.1.1 one invalid spec makes all invalid", "bytes=0-1,5-2", nil, ignored},
	{"RFC 9110 §14.1.1 one invalid spec behind an unsatisfiable one", "bytes=20000-,x", nil, ignored},
	{"RFC 9110 §14.2 another unit", "lines=0-1", nil, ignored},
	{"RFC 9110 §14.2 no unit", "0-1", nil, ignored},
	{"RFC 9110 §14.2 no set", "bytes=", nil, ignored},
	{"RFC 9110 §14.2 an empty set", "bytes=, ,", nil, ignored},
	{"RFC 9110 §14.2 no value", "", nil, ignored},
	{"white space before the equals sign", "bytes =0-1", nil, ignored},
	{"white space within", "bytes=0 -1", nil, ignored},
	{"white space within, behind", "bytes=0- 1", nil, ignored},
	{"a sign", "bytes=+0-1", nil, ignored},
	{"two signs", "bytes=--1", nil, ignored},
	{"a hyphen", "bytes=-", nil, ignored},
	{"a number", "bytes=1", nil, ignored},
	{"three numbers", "bytes=1-2-3", nil, ignored},
	{"not decimal", "bytes=0x1-2", nil, ignored},
	{"a semicolon", "bytes=0-1;2-3", nil, ignored},
	{"RFC 9110 §17.15 16 ranges", "bytes=" + strings.Repeat("20000-,", 15) + "0-0", []Span{{0, 1}}, satisfiable},
	{"RFC 9110 §17.15 more than 16 ranges", "bytes=" + strings.Repeat("20000-,", 16) + "0-0", nil, ignored},
	{"CVE-2011-3192 a thousand ranges", "bytes=" + strings.Repeat("0-0,1-1,", 500), nil, ignored},
	{"RFC 9110 §14.2 two that overlap", "bytes=0-9,5-14,10-19", []Span{{0, 20}}, satisfiable},
	{"RFC 9110 §14.2 more than two that overlap", "bytes=0-9,1-10,2-11", nil, ignored},
	{"RFC 9110 §17.15 all twice", "bytes=0-,0-", nil, ignored},
	{"RFC 9110 §17.15 more than there is", "bytes=0-9999,5-5", nil, ignored},
}

func TestParseRange(t *testing.T) {
	t.Parallel()
	for _, row := range rangeTable {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			spans, out := ParseRange(nil, []string{row.value}, 10000)
			assert.Equal(t, row.out, out)
			assert.Equal(t, row.want, append([]Span(nil), spans...))
		})
	}
	for name, lines := range map[string][]string{"RFC 9110 §14.2 no list: two lines": {"bytes=0-1", "bytes=2-3"}, "no line": nil} {
		spans, out := ParseRange(nil, lines, 10000)
		assert.Equal(t, ignored, out, name)
		assert.Empty(t, spans, name)
	}
	for _, size := range []int64{0, -1} {
		for _, value := range []string{"bytes=0-0", "bytes=-1", "bytes=-0"} {
			_, out := ParseRange(nil, []string{value}, size)
			assert.Equal(t, ignored, out, "RFC 9110 §14.2 MAY ignore it for no content: %s of %d", value, size)
		}
	}
	spans, out := ParseRange([]Span{{5, 6}}, []string{"bytes=0-,x"}, 10)
	assert.Equal(t, ignored, out)
	assert.Equal(t, []Span{{5, 6}}, spans, "dst keeps what it had")
	spans, _ = ParseRange(nil, []string{"bytes=9223372036854775806-"}, math.MaxInt64)
	assert.Equal(t, []Span{{math.MaxInt64 - 1, math.MaxInt64}}, spans)
}

func TestRanges(t *testing.T) {
	t.Parallel()
	both, weak, date, young := version(`"a"`, at(-60*second)), version(`W/"a"`, ""), version("", at(-60*second)), version("", at(-59*second))
	ask := func(ifRange ...string) http.Header {
		h := http.Header{"Range": {"bytes=0-0"}}
		if ifRange != nil {
			h["If-Range"] = ifRange
		}
		return h
	}
	for _, row := range []struct {
		name    string
		method  string
		status  int
		request http.Header
		stored  Validators
		want    RangeOutcome
	}{
		{"RFC 9110 §14.2 of a 200 to GET", "GET", 200, ask(), both, satisfiable},
		{"RFC 9110 §14.2 of a part that is stored", "GET", 206, ask(), both, satisfiable},
		{"RFC 9110 §14.2 MUST ignore it with another method", "HEAD", 200, ask(), both, ignored},
		{"RFC 9110 §14.2 only in the place of a 200", "GET", 404, ask(), both, ignored},
		{"RFC 9110 §13.1.5 MUST ignore If-Range without Range", "GET", 200, http.Header{"If-Range": {`"x"`}}, both, ignored},
		{"RFC 9110 §13.1.5 the entity tag matches", "GET", 200, ask(`"a"`), both, satisfiable},
		{"RFC 9110 §13.1.5 white space", "GET", 200, ask(` "a" `), both, satisfiable},
		{"RFC 9110 §13.1.5 another entity tag", "GET", 200, ask(`"b"`), both, ignored},
		{"RFC 9110 §13.1.5 the strong comparison: both weak", "GET", 200, ask(`W/"a"`), weak, ignored},
		{"RFC 9110 §13.1.5 the strong comparison: weak here", "GET", 200, ask(`W/"a"`), both, ignored},
		{"RFC 9110 §13.1.5 the strong comparison: weak there", "GET", 200, ask(`"a"`), weak, ignored},
		{"RFC 9110 §13.1.5 no list", "GET", 200, ask(`"a", "b"`), both, ignored},
		{"RFC 9110 §13.1.5 two lines", "GET", 200, ask(`"a"`, `"a"`), both, ignored},
		{"RFC 9110 §13.1.5 an entity tag where none is stored", "GET", 200, ask(`"a"`), date, ignored},
		{"RFC 9110 §13.1.5 the date is exactly that", "GET", 200, ask(at(-60 * second)), date, satisfiable},
		{"RFC 9110 §13.1.5 the date beside an entity tag", "GET", 200, ask(at(-60 * second)), both, satisfiable},
		{"RFC 9110 §13.1.5 a later date is not that", "GET", 200, ask(at(-30 * second)), date, ignored},
		{"RFC 9110 §13.1.5 the date is no strong validator", "GET", 200, ask(at(-59 * second)), young, ignored},
		{"RFC 9110 §13.1.5 no modification date is stored", "GET", 200, ask(at(0)), weak, ignored},
		{"RFC 9110 §13.1.5 neither", "GET", 200, ask("a"), both, ignored},
		{"RFC 9110 §13.1.5 nothing", "GET", 200, ask(""), both, ignored},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			spans, out := Ranges(nil, row.method, row.request, row.status, &row.stored, 10, today)
			assert.Equal(t, row.want, out)
			assert.Equal(t, row.want == satisfiable, len(spans) == 1)
		})
	}
}

func TestContentRanges(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "bytes 42-1233/1234", string(AppendContentRange(nil, Span{42, 1234}, 1234)), "RFC 9110 §14.4")
	assert.Equal(t, "bytes */1234", string(AppendUnsatisfied(nil, 1234)), "RFC 9110 §14.4, §15.5.17")
}

func TestFieldsOfPartial(t *testing.T) {
	t.Parallel()
	for name := range strings.FieldsSeq("Date Cache-Control Etag Expires Content-Location Vary Age X-Any") {
		assert.True(t, InPartial(name, false), "RFC 9110 §15.3.7 MUST: %s", name)
		assert.True(t, InPartial(name, true), "RFC 9110 §15.3.7 MUST: %s", name)
	}
	for name := range strings.FieldsSeq("Content-Type Content-Encoding Content-Language Last-Modified Accept-Ranges Repr-Digest") {
		assert.True(t, InPartial(name, false), "RFC 9110 §15.3.7 MUST without If-Range: %s", name)
		assert.False(t, InPartial(name, true), "RFC 9110 §15.3.7 SHOULD NOT with If-Range: %s", name)
	}
	for name := range strings.FieldsSeq("Content-Length Content-Range Content-Digest") {
		assert.False(t, InPartial(name, false), "of another content: %s", name)
	}
}

var chunks = [][]byte{[]byte("0123"), nil, []byte("4"), []byte("56789")}

func TestSlice(t *testing.T) {
	t.Parallel()
	whole := bytes.Join(chunks, nil)
	for from := range int64(len(whole)) + 1 {
		for to := from; to <= int64(len(whole)); to++ {
			var got []byte
			assert.NoError(t, Slice(chunks, Span{from, to}, func(b []byte) error {
				assert.NotEmpty(t, b)
				got = append(got, b...)
				return nil
			}))
			assert.Equal(t, string(whole[from:to]), string(got))
		}
	}
	assert.NoError(t, Slice(chunks, Span{9, 11}, func(b []byte) error { assert.Equal(t, "9", string(b)); return nil }), "no more than there is")
	calls, full := 0, errors.New("full")
	assert.Equal(t, full, Slice(chunks, Span{0, 10}, func([]byte) error { calls++; return full }))
	assert.Equal(t, 1, calls)
}

func TestMultipart(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"text/plain; charset=utf-8", ""} {
		m := Multipart{Spans: []Span{{7, 10}, {0, 2}}, Size: 10, ContentType: contentType, Boundary: "THIS_STRING_SEPARATES"}
		var sent bytes.Buffer
		emit := func(b []byte) error { sent.Write(b); return nil }
		require.NoError(t, m.Write(func(s Span, emit func([]byte) error) error { return Slice(chunks, s, emit) }, emit))
		assert.EqualValues(t, sent.Len(), m.Length())

		kind, params, err := mime.ParseMediaType(m.Type())
		require.NoError(t, err)
		assert.Equal(t, "multipart/byteranges", kind, "RFC 9110 §15.3.7.2 MUST")
		assert.NotContains(t, m.Type(), `"`, "RFC 9110 §14.6")
		r := multipart.NewReader(&sent, params["boundary"])
		for i, want := range []string{"789", "01"} {
			part, err := r.NextPart()
			require.NoError(t, err)
			assert.Equal(t, contentType, part.Header.Get("Content-Type"), "RFC 9110 §15.3.7.2 SHOULD")
			assert.Equal(t, []string{"bytes 7-9/10", "bytes 0-1/10"}[i], part.Header.Get("Content-Range"), "RFC 9110 §15.3.7.2 MUST")
			got, err := io.ReadAll(part)
			require.NoError(t, err)
			assert.Equal(t, want, string(got))
		}
		_, err = r.NextPart()
		assert.Equal(t, io.EOF, err)
	}
}

func TestMultipartEndsAtAnError(t *testing.T) {
	t.Parallel()
	m := Multipart{Spans: []Span{{0, 1}, {2, 3}}, Size: 10, Boundary: "B"}
	full := errors.New("full")
	read := func(s Span, emit func([]byte) error) error { return Slice(chunks, s, emit) }
	for calls := range 7 {
		n := 0
		assert.Equal(t, full, m.Write(read, func([]byte) error {
			if n++; n > calls {
				return full
			}
			return nil
		}))
		assert.Equal(t, calls+1, n)
	}
	cut := errors.New("cut")
	assert.Equal(t, cut, m.Write(func(Span, func([]byte) error) error { return cut }, func([]byte) error { return nil }))
}

func TestMultipartIsWorthwhile(t *testing.T) {
	t.Parallel()
	parts := func(n, size, each int64) *Multipart {
		m := &Multipart{Size: size, Boundary: "B"}
		for i := range n {
			m.Spans = append(m.Spans, Span{i * 2 * each, i*2*each + each})
		}
		return m
	}
	assert.True(t, parts(2, 10, 1).Worthwhile())
	assert.True(t, parts(16, 1<<20, 1<<10).Worthwhile())
	m := parts(16, 320, 10)
	m.ContentType = "application/octet-stream"
	assert.False(t, m.Worthwhile(), "RFC 9110 §17.15 many small ones")
	m = parts(2, 1<<10, 1)
	m.ContentType = strings.Repeat("x", 1<<10)
	assert.False(t, m.Worthwhile())
}

func TestRangesDoNotAllocate(t *testing.T) {
	var room [MaxRanges]Span
	stored := version(`"a"`, at(-60*second))
	for _, h := range []http.Header{
		{"Range": {"bytes=0-0"}}, {"Range": {"bytes=0-0,-1"}, "If-Range": {`"a"`}}, {"Range": {"bytes=0-0"}, "If-Range": {at(-60 * second)}},
		{"Range": {"bytes=" + strings.Repeat("0-0,", 1000)}},
	} {
		assert.Zero(t, testing.AllocsPerRun(100, func() { Ranges(room[:0], "GET", h, 200, &stored, 10000, today) }), h)
	}
	assert.Zero(t, testing.AllocsPerRun(100, func() { Slice(chunks, Span{2, 9}, func([]byte) error { return nil }) }))
}

func FuzzParseRange(f *testing.F) {
	for _, row := range rangeTable {
		f.Add(row.value, int64(10000))
	}
	f.Add("bytes=9223372036854775806-", int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, value string, size int64) {
		spans, out := ParseRange(nil, []string{value}, size)
		require.Equal(t, out == RangeSatisfiable, len(spans) > 0)
		require.LessOrEqual(t, len(spans), MaxRanges)
		total, text := int64(0), "bytes="
		for i, s := range spans {
			require.True(t, 0 <= s.Start && s.Start < s.End && s.End <= size, "within")
			for _, other := range spans[:i] {
				require.True(t, s.End < other.Start || other.End < s.Start, "apart")
			}
			total += s.Len()
			text += strings.TrimPrefix(string(AppendContentRange(nil, s, size)), "bytes ")
			text = text[:strings.LastIndexByte(text, '/')] + ","
		}
		require.LessOrEqual(t, total, max(size, 0))
		if out == RangeSatisfiable {
			again, _ := ParseRange(nil, []string{text}, size)
			require.Equal(t, spans, again)
		}
		if size > 0 && size < 1<<10 && out == RangeSatisfiable && total > 0 {
			content := bytes.Repeat([]byte("x"), int(size))
			m := Multipart{Spans: spans, Size: size, ContentType: "a/b", Boundary: "B"}
			var n int64
			require.NoError(t, m.Write(func(s Span, emit func([]byte) error) error {
				return Slice(slices.Collect(slices.Chunk(content, 7)), s, emit)
			}, func(b []byte) error { n += int64(len(b)); return nil }))
			require.Equal(t, m.Length(), n)
		}
	})
}

func BenchmarkRanges(b *testing.B) {
	stored := version(`"a"`, at(-60*second))
	for _, row := range []struct{ name, value string }{
		{"one", "bytes=0-499"}, {"three", "bytes=0-0, 100-199, -1"}, {"hostile", "bytes=" + strings.Repeat("0-0,2-2,", 1000)},
	} {
		b.Run("range="+row.name, func(b *testing.B) {
			var room [MaxRanges]Span
			h := http.Header{"Range": {row.value}, "If-Range": {`"a"`}}
			b.ReportAllocs()
			for b.Loop() {
				Ranges(room[:0], "GET", h, 200, &stored, 10000, today)
			}
		})
	}
}

func TestOnlyRange(t *testing.T) { // RFC 9110 §14.2, §13.1.5
	t.Parallel()
	head := http.Header{"Etag": {`"v"`}}
	for _, row := range []struct {
		name     string
		request  http.Header
		status   int
		response http.Header
		length   int64
		want     Span
	}{
		{"one", http.Header{"Range": {"bytes=2-4"}}, 200, head, 10, Span{2, 5}},
		{"two that are one", http.Header{"Range": {"bytes=2-4,5-6"}}, 200, head, 10, Span{2, 7}},
		{"its version", http.Header{"Range": {"bytes=2-4"}, "If-Range": {`"v"`}}, 200, head, 10, Span{2, 5}},
		{"another version", http.Header{"Range": {"bytes=2-4"}, "If-Range": {`"w"`}}, 200, head, 10, Span{}},
		{"two", http.Header{"Range": {"bytes=0-0,5-6"}}, 200, head, 10, Span{}},
		{"beyond the end", http.Header{"Range": {"bytes=10-"}}, 200, head, 10, Span{}},
		{"none", http.Header{}, 200, head, 10, Span{}},
		{"of nobody knows how much", http.Header{"Range": {"bytes=2-4"}}, 200, head, -1, Span{}},
		{"of an error", http.Header{"Range": {"bytes=2-4"}}, 404, head, 10, Span{}},
		{"of what is a part already", http.Header{"Range": {"bytes=2-4"}}, 206, http.Header{"Content-Range": {"bytes 2-4/10"}}, 3, Span{}},
		{"of what says that it is", http.Header{"Range": {"bytes=2-4"}}, 200, http.Header{"Content-Range": {"bytes 2-4/10"}}, 10, Span{}},
	} {
		span, ok := OnlyRange(http.MethodGet, row.request, row.status, row.response, row.length, today)
		assert.Equal(t, row.want, span, row.name)
		assert.Equal(t, row.want != Span{}, ok, row.name)
		_, ok = OnlyRange(http.MethodHead, row.request, row.status, row.response, row.length, today)
		assert.False(t, ok, "HEAD, %s", row.name)
	}
}

func TestMakePartial(t *testing.T) { // RFC 9110 §15.3.7
	t.Parallel()
	whole := http.Header{"Content-Type": {"a/b"}, "Content-Length": {"10"}, "Content-Digest": {"x"}, "Etag": {`"v"`}, "Cache-Control": {"private"}, "Content-Language": {"en"}}
	h := whole.Clone()
	MakePartial(h, http.Header{}, Span{2, 5}, 10)
	assert.Equal(t, http.Header{"Content-Type": {"a/b"}, "Content-Length": {"3"}, "Content-Range": {"bytes 2-4/10"}, "Etag": {`"v"`}, "Cache-Control": {"private"}, "Content-Language": {"en"}}, h)
	h = whole.Clone()
	MakePartial(h, http.Header{"If-Range": {`"v"`}}, Span{2, 5}, 10)
	assert.Equal(t, http.Header{"Content-Type": nil, "Content-Length": {"3"}, "Content-Range": {"bytes 2-4/10"}, "Etag": {`"v"`}, "Cache-Control": {"private"}}, h)
}
