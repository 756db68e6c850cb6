package h1

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var chunkedTable = []struct {
	name, raw string
	content   string // what comes before the end or the error
	rest      string // what is left behind the end
	trailer   http.Header
	err       error // io.ErrUnexpectedEOF: all is used, and more is needed
}{
	// chunked-body = *chunk last-chunk trailer-section CRLF (RFC 9112 §7.1)
	{"empty", "0\r\n\r\n", "", "", nil, nil},
	{"one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello", "", nil, nil},
	{"chunks", "5\r\nhello\r\n1\r\n \r\n00000006\r\nworld!\r\n0\r\n\r\n", "hello world!", "", nil, nil},
	{"content of line ends", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", "", nil, nil},
	{"last chunk of many zeroes", "0000000000000000\r\n\r\n", "", "", nil, nil},
	{"what follows", "1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n", "a", "HTTP/1.1 200 OK\r\n", nil, nil},
	{"more line ends", "1\r\na\r\n0\r\n\r\n\r\n", "a", "\r\n", nil, nil},
	// chunk-size = 1*HEXDIG
	{"small letters", "1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n", "abcdefghijklmnopqrstuvwxyz", "", nil, nil},
	{"capitals", "1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n", "abcdefghijklmnopqrstuvwxyz", "", nil, nil},
	{"16 digits", "0000000000000001\r\na\r\n0\r\n\r\n", "a", "", nil, nil},
	{"17 digits", "00000000000000001\r\na\r\n0\r\n\r\n", "", "", nil, errChunkLarge},
	{"the largest", "3fffffffffffffff\r\na", "a", "", nil, io.ErrUnexpectedEOF},
	{"a byte larger", "4000000000000000\r\na", "", "", nil, errChunkLarge},
	{"negative in 64 bits", "FFFFFFFFFFFFFFED\r\na", "", "", nil, errChunkLarge},
	{"1 beyond 64 bits", "10000000000000001\r\na", "", "", nil, errChunkLarge},
	{"no size", "\r\na\r\n0\r\n\r\n", "", "", nil, errChunkSize},
	{"no size, extension", ";a=b\r\n", "", "", nil, errChunkSize},
	{"sign", "+1\r\na\r\n", "", "", nil, errChunkSize},
	{"negative", "-3\r\nabc\r\n", "", "", nil, errChunkSize},
	{"prefix", "0x3\r\nabc\r\n", "", "", nil, errChunkSize},
	{"underscore", "0_3\r\nabc\r\n", "", "", nil, errChunkSize},
	{"space before", "   3\r\nabc\r\n", "", "", nil, errChunkSize},
	{"tab before", "\t3\r\nabc\r\n", "", "", nil, errChunkSize},
	{"space within", "1 0\r\n", "", "", nil, errChunkSize},
	{"no hexadecimal digit", "g\r\n", "", "", nil, errChunkSize},
	{"fraction", "1.0\r\na\r\n", "", "", nil, errChunkSize},
	{"list", "1,1\r\na\r\n", "", "", nil, errChunkSize},
	{"NUL", "1\x00\r\na\r\n", "", "", nil, errChunkSize},
	{"vertical tab", "1\x0b\r\na\r\n", "", "", nil, errChunkSize},
	{"bytes that are digits but for a bit", "\x11\r\n", "", "", nil, errChunkSize},
	// CRLF, never LF or CR alone
	{"LF after the size", "1\na\r\n0\r\n\r\n", "", "", nil, errChunkLine},
	{"CR after the size", "1\ra\r\n0\r\n\r\n", "", "", nil, errChunkLine},
	{"two CR after the size", "1\r\r\na\r\n0\r\n\r\n", "", "", nil, errChunkLine},
	{"LF after the content", "1\r\na\n0\r\n\r\n", "a", "", nil, errChunkEnd},
	{"CR after the content", "1\r\na\r0\r\n\r\n", "a", "", nil, errChunkEnd},
	{"LF after the last size", "1\r\na\r\n0\n\r\n", "a", "", nil, errChunkLine},
	{"LF at the end", "1\r\na\r\n0\r\n\n", "a", "", nil, errTrailerLine},
	{"CR at the end", "1\r\na\r\n0\r\n\rx", "a", "", nil, errTrailerLine},
	{"content longer than its size", "1\r\nabc\r\n0\r\n\r\n", "a", "", nil, errChunkEnd},
	{"content shorter than its size", "3\r\na\r\n0\r\n\r\n", "a\r\n", "", nil, errChunkEnd},
	{"no line end after the content", "1\r\na0\r\n\r\n", "a", "", nil, errChunkEnd},
	// chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ), ignored (RFC 9112 §7.1.1)
	{"extensions", "1;a\r\na\r\n1;a=b;c=\"d;e\"\r\nb\r\n0;f\r\n\r\n", "ab", "", nil, nil},
	{"extension behind white space", "1 \t;a = b \r\na\r\n0 ;\r\n\r\n", "a", "", nil, nil},
	{"extension of any bytes", "1;\x00\x7f\xff()<>\r\na\r\n0\r\n\r\n", "a", "", nil, nil},
	{"extension with LF", "1;a\nb\r\na\r\n0\r\n\r\n", "", "", nil, errChunkLine},
	{"extension with CR", "1;a\rb\r\na\r\n0\r\n\r\n", "", "", nil, errChunkLine},
	{"extension with a quoted line end", "1;a=\"\r\nb\"\r\na\r\n0\r\n\r\n", "b", "", nil, errChunkEnd},
	{"padded size", "1   \r\na\r\n0 \t\r\n\r\n", "a", "", nil, nil},
	{"extension without semicolon", "1 a=b\r\na\r\n", "", "", nil, errChunkSize},
	{"longest line", "1;" + strings.Repeat("x", 4092) + "\r\na\r\n0\r\n\r\n", "a", "", nil, nil},
	{"line too long", "1;" + strings.Repeat("x", 4093) + "\r\na\r\n0\r\n\r\n", "", "", nil, errChunkLong},
	{"line without end", "1" + strings.Repeat(" ", 9000), "", "", nil, errChunkLong},
	// Little content in much coding
	{"byte by byte", strings.Repeat("1\r\na\r\n", 6000) + "0\r\n\r\n", strings.Repeat("a", 6000), "", nil, nil},
	{"extensions with enough content", strings.Repeat("64;"+strings.Repeat("x", 200)+"\r\n"+strings.Repeat("a", 100)+"\r\n", 500) + "0\r\n\r\n", strings.Repeat("a", 50_000), "", nil, nil},
	{"extensions with little content", strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\na\r\n", 20), strings.Repeat("a", 16), "", nil, errChunkExcess},
	{"extension of the last chunk", strings.Repeat("1;"+strings.Repeat("x", 4000)+"\r\na\r\n", 4) + "0;" + strings.Repeat("x", 1000) + "\r\n\r\n", "aaaa", "", nil, errChunkExcess},
	// trailer-section = *( field-line CRLF ) (RFC 9112 §7.1.2)
	{"trailer", "1\r\na\r\n0\r\nA: b\r\n\r\n", "a", "", http.Header{"A": {"b"}}, nil},
	{"trailer fields", "0\r\nx-sum: 1 \r\nA: b\r\na: c\r\n\r\nrest", "", "rest", http.Header{"X-Sum": {"1"}, "A": {"b", "c"}}, nil},
	{"trailer in continuation lines", "0\r\nA: b\r\n c\r\n\r\n", "", "", http.Header{"A": {"b   c"}}, nil},
	{"trailer with control bytes", "0\r\nA: b\x00c\r\n\r\n", "", "", http.Header{"A": {"b c"}}, nil},
	{"trailer with a space before the colon", "0\r\nA : b\r\n\r\n", "", "", http.Header{"A": {"b"}}, nil},
	{"trailer without colon", "0\r\nA\r\n\r\n", "", "", nil, errName},
	{"trailer that continues nothing", "0\r\n A: b\r\n\r\n", "", "", nil, errFold},
	{"trailer without end", "0\r\nA: b\r\n", "", "", nil, io.ErrUnexpectedEOF},
	{"trailer line that ends in LF", "0\r\nA: b\n\r\n", "", "", nil, errTrailerLine},
	{"trailer line of LF", "0\r\nA: b\r\n\n", "", "", nil, errTrailerLine},
	{"trailer line with CR", "0\r\nA: b\rc\r\n\r\n", "", "", nil, errBareCR},
	{"trailer line that begins with CR", "0\r\nA: b\r\n\rC: d\r\n\r\n", "", "", nil, errTrailerLine},
	{"large trailer", "0\r\nA: " + strings.Repeat("b", 64<<10-5) + "\r\n\r\n", "", "", http.Header{"A": {strings.Repeat("b", 64<<10-5)}}, nil},
	{"trailer too large", "0\r\nA: " + strings.Repeat("b", 64<<10-4) + "\r\n\r\n", "", "", nil, errTrailerSize},
	{"trailer line without end", "0\r\n" + strings.Repeat("b", 100<<10), "", "", nil, errTrailerSize},
	{"trailer of 200 fields", "0\r\n" + strings.Repeat("A:\r\n", 200) + "\r\n", "", "", http.Header{"A": make([]string, 200)}, nil},
	{"trailer of 201 fields", "0\r\n" + strings.Repeat("A:\r\n", 201) + "\r\n", "", "", nil, errFields},
	// Cut
	{"nothing", "", "", "", nil, io.ErrUnexpectedEOF},
	{"cut in the size", "1", "", "", nil, io.ErrUnexpectedEOF},
	{"cut in the content", "5\r\nhel", "hel", "", nil, io.ErrUnexpectedEOF},
	{"cut after the content", "5\r\nhello", "hello", "", nil, io.ErrUnexpectedEOF},
	{"cut after a chunk", "5\r\nhello\r\n", "hello", "", nil, io.ErrUnexpectedEOF},
	{"cut before the end", "5\r\nhello\r\n0\r\n", "hello", "", nil, io.ErrUnexpectedEOF},
	{"cut within the end", "5\r\nhello\r\n0\r\n\r", "hello", "", nil, io.ErrUnexpectedEOF},
}

// decoded is what became of a message.
type decoded struct {
	content, rest string
	trailer       http.Header
	err           error
}

// decode feeds pieces to a decoder, as one that reads a connection does: with what is left of the pieces before.
func decode(t *testing.T, pieces ...[]byte) decoded {
	var d chunked
	var content, rest []byte
	for i, piece := range pieces {
		for len(piece) > 0 {
			got, used, done, err := d.next(piece)
			if err != nil {
				require.Empty(t, got)
				_, _, done, again := d.next(piece)
				require.Equal(t, err, again, "an error stays")
				require.False(t, done)
				require.Nil(t, d.trailer())
				return decoded{content: string(content), err: err}
			}
			require.True(t, used > 0 && used <= len(piece) && len(got) <= used, "used %d of %d for %d", used, len(piece), len(got))
			content = append(content, got...)
			piece = piece[used:]
			if done {
				rest = append(rest, piece...)
				rest = append(rest, bytes.Join(pieces[i+1:], nil)...)
				_, used, done, err := d.next(rest)
				require.True(t, used == 0 && done && err == nil, "the end stays")
				return decoded{string(content), string(rest), d.trailer(), nil}
			}
		}
	}
	require.Nil(t, d.trailer())
	return decoded{content: string(content), err: io.ErrUnexpectedEOF}
}

// cut returns p in pieces of n bytes.
func cut(p []byte, n int) (pieces [][]byte) {
	for ; len(p) > n; p = p[n:] {
		pieces = append(pieces, p[:n])
	}
	return append(pieces, p)
}

func TestChunked(t *testing.T) {
	t.Parallel()
	for _, tt := range chunkedTable {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			raw, want := []byte(tt.raw), decoded{tt.content, tt.rest, tt.trailer, tt.err}
			require.Equal(t, want, decode(t, raw))
			for _, n := range []int{1, 2, 3, 7, 64, 1000} {
				require.Equal(t, want, decode(t, cut(raw, n)...), "in pieces of %d", n)
			}
			for n := range min(len(raw), 100) {
				require.Equal(t, want, decode(t, raw[:n], raw[n:]), "cut at %d", n)
			}
			require.Equal(t, tt.raw, string(raw), "the buffer is the caller's")
		})
	}
}

// The last content and the end come together if they are there together, so that they can go on together.
func TestEndComesWithTheLastContent(t *testing.T) {
	t.Parallel()
	p := []byte("5\r\nhello\r\n0\r\nA: b\r\n\r\nrest")
	var d chunked
	content, used, done, err := d.next(p)
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, "hello", string(content))
	require.Equal(t, "rest", string(p[used:]))
	require.Equal(t, http.Header{"A": {"b"}}, d.trailer())
}

// A fault after content does not take the content away.
func TestFaultWaitsForTheContentBefore(t *testing.T) {
	t.Parallel()
	p := []byte("5\r\nhello\r\n0\r\nA\r\n\r\n")
	var d chunked
	content, used, done, err := d.next(p)
	require.NoError(t, err)
	require.False(t, done)
	require.Equal(t, "hello", string(content))
	content, _, done, err = d.next(p[used:])
	require.Equal(t, errName, err)
	require.False(t, done)
	require.Empty(t, content)
}

func TestChunkedAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return
	}
	p := []byte(strings.Repeat("5;a=b\r\nhello\r\n", 10) + "0\r\n\r\n")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		var d chunked
		for p, done := p, false; !done; {
			var used int
			_, used, done, _ = d.next(p)
			p = p[used:]
		}
	}))
}

func BenchmarkChunked(b *testing.B) {
	for _, size := range []int{1, 100, 4 << 10, 32 << 10} {
		raw := []byte(strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", size, strings.Repeat("a", size)), 64<<10/size) + "0\r\n\r\n")
		b.Run(fmt.Sprintf("parser=h1/chunk=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				var d chunked
				for p, done := raw, false; !done; {
					var used int
					_, used, done, _ = d.next(p)
					p = p[used:]
				}
			}
		})
		b.Run(fmt.Sprintf("parser=net-http/chunk=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			r, buf := bytes.NewReader(raw), make([]byte, 64<<10)
			for b.Loop() {
				r.Reset(raw)
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, httputil.NewChunkedReader(r), buf)
			}
		})
	}
}
