package h1

import (
	"bufio"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var headLimits = limits{bytes: 64 << 10, fields: 200}

// headTable holds heads without their empty line, lines ending in LF, which the tests make CRLF.
var headTable = []struct {
	name string
	raw  string
	want head // without its header
	err  error
}{
	// status-line = HTTP-version SP status-code SP [ reason-phrase ] (RFC 9112 §4)
	{"plain", "HTTP/1.1 200 OK\n", head{status: 200, minor: 1, length: -1}, nil},
	{"lowest", "HTTP/1.1 100 Continue\n", head{status: 100, minor: 1, length: -1}, nil},
	{"highest", "HTTP/1.1 599 \n", head{status: 599, minor: 1, length: -1}, nil},
	{"no reason", "HTTP/1.1 200 \n", head{status: 200, minor: 1, length: -1}, nil},
	{"no space before no reason", "HTTP/1.1 200\n", head{status: 200, minor: 1, length: -1}, nil},
	{"reason of any bytes", "HTTP/1.1 404 \x00\x1b[2J\r\x7f\xff \t: x\n", head{status: 404, minor: 1, length: -1}, nil},
	{"reason of spaces", "HTTP/1.1 200      \n", head{status: 200, minor: 1, length: -1}, nil},
	{"reason of 8 kB", "HTTP/1.1 200 " + strings.Repeat("r", 8000) + "\n", head{status: 200, minor: 1, length: -1}, nil},
	{"later minor version", "HTTP/1.9 200 OK\n", head{status: 200, minor: 9, length: -1}, nil}, // RFC 9110 §2.5
	{"status 0", "HTTP/1.1 000 OK\n", head{}, errStatus},
	{"status 99", "HTTP/1.1 099 OK\n", head{}, errStatus},
	{"status 600", "HTTP/1.1 600 OK\n", head{}, errStatus},
	{"status 999", "HTTP/1.1 999 OK\n", head{}, errStatus},
	{"status of two digits", "HTTP/1.1 20 OK\n", head{}, errStatusLine},
	{"status of four digits", "HTTP/1.1 2000 OK\n", head{}, errStatusLine},
	{"status with a sign", "HTTP/1.1 -20 OK\n", head{}, errStatusLine},
	{"status with a letter", "HTTP/1.1 2x0 OK\n", head{}, errStatusLine},
	{"status with NUL", "HTTP/1.1 20\x00 OK\n", head{}, errStatusLine},
	{"other digits", "HTTP/1.1 ٢٠٠ OK\n", head{}, errStatusLine},
	{"tab after the status", "HTTP/1.1 200\tOK\n", head{}, errStatusLine},
	{"CR after the status", "HTTP/1.1 200\rOK\n", head{}, errStatusLine},
	{"no status", "HTTP/1.1\n", head{}, errStatusLine},
	{"two spaces before the status", "HTTP/1.1  200 OK\n", head{}, errStatusLine},
	{"tab before the status", "HTTP/1.1\t200 OK\n", head{}, errStatusLine},
	{"HTTP/2", "HTTP/2.0 200 OK\n", head{}, errStatusLine},
	{"HTTP/0.9", "HTTP/0.9 200 OK\n", head{}, errStatusLine},
	{"version of one number", "HTTP/1 200 OK\n", head{}, errStatusLine},
	{"version of three numbers", "HTTP/1.1.1 200 OK\n", head{}, errStatusLine},
	{"minor version of two digits", "HTTP/1.10 200 OK\n", head{}, errStatusLine},
	{"version in small letters", "http/1.1 200 OK\n", head{}, errStatusLine}, // RFC 9112 §2.3: case-sensitive
	{"another protocol", "ICY 200 OK\n", head{}, errStatusLine},
	{"a banner", "SSH-2.0-OpenSSH_9.9\n", head{}, errStatusLine},
	{"a request", "GET / HTTP/1.1\n", head{}, errStatusLine},
	{"empty line before", "\nHTTP/1.1 200 OK\n", head{}, errStatusLine},
	{"space before", " HTTP/1.1 200 OK\n", head{}, errStatusLine},
	{"byte order mark", "\ufeffHTTP/1.1 200 OK\n", head{}, errStatusLine},
	{"empty line only", "", head{}, errStatusLine},

	// Content-Length = 1*DIGIT (RFC 9110 §8.6)
	{"length", "HTTP/1.1 200 OK\nContent-Length: 5\n", head{status: 200, minor: 1, length: 5}, nil},
	{"length 0", "HTTP/1.1 200 OK\nContent-Length: 0\n", head{status: 200, minor: 1}, nil},
	{"length in small letters", "HTTP/1.1 200 OK\ncontent-length:5\n", head{status: 200, minor: 1, length: 5}, nil},
	{"length among white space", "HTTP/1.1 200 OK\nContent-Length: \t 5\t \n", head{status: 200, minor: 1, length: 5}, nil},
	{"length with zeroes before", "HTTP/1.1 200 OK\nContent-Length: 005\n", head{status: 200, minor: 1, length: 5}, nil},
	{"a long length", "HTTP/1.1 200 OK\nContent-Length: 9223372036854775799\n", head{status: 200, minor: 1, length: math.MaxInt64 - 8}, nil},
	{"a length beyond", "HTTP/1.1 200 OK\nContent-Length: 9223372036854775808\n", head{}, errLength},
	{"length of 20 digits", "HTTP/1.1 200 OK\nContent-Length: 18446744073709551621\n", head{}, errLength},
	{"empty length", "HTTP/1.1 200 OK\nContent-Length:\n", head{}, errLength},
	{"negative length", "HTTP/1.1 200 OK\nContent-Length: -5\n", head{}, errLength},
	{"length with a sign", "HTTP/1.1 200 OK\nContent-Length: +5\n", head{}, errLength},
	{"hexadecimal length", "HTTP/1.1 200 OK\nContent-Length: 0x5\n", head{}, errLength},
	{"length with an underscore", "HTTP/1.1 200 OK\nContent-Length: 5_0\n", head{}, errLength},
	{"length with an exponent", "HTTP/1.1 200 OK\nContent-Length: 1e1\n", head{}, errLength},
	{"length with a space within", "HTTP/1.1 200 OK\nContent-Length: 5 0\n", head{}, errLength},
	{"length with NUL within", "HTTP/1.1 200 OK\nContent-Length: 5\x000\n", head{}, errObscured},
	{"length behind NUL", "HTTP/1.1 200 OK\nContent-Length:\x005\n", head{}, errObscured},
	{"length behind many tabs and before DEL", "HTTP/1.1 200 OK\nContent-Length: \t\t\t\t\t\t\t\t5\x7f\n", head{}, errObscured},
	{"length among many tabs", "HTTP/1.1 200 OK\nContent-Length: \t\t\t\t\t\t\t\t5\t\t\t\t\n", head{status: 200, minor: 1, length: 5}, nil},
	{"length in quotes", "HTTP/1.1 200 OK\nContent-Length: \"5\"\n", head{}, errLength},
	{"length in other digits", "HTTP/1.1 200 OK\nContent-Length: ５\n", head{}, errLength},
	// Repeated, the same: one; otherwise unrecoverable (RFC 9112 §6.3)
	{"equal lengths", "HTTP/1.1 200 OK\nContent-Length: 5\ncontent-length: 5\n", head{status: 200, minor: 1, length: 5}, nil},
	{"equal lengths in a list", "HTTP/1.1 200 OK\nContent-Length: 5, 5,5\n", head{status: 200, minor: 1, length: 5}, nil},
	{"equal lengths in lists", "HTTP/1.1 200 OK\nContent-Length: 5, 5\nContent-Length: 5\n", head{status: 200, minor: 1, length: 5}, nil},
	{"differing lengths", "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n", head{}, errLengths},
	{"differing lengths in a list", "HTTP/1.1 200 OK\nContent-Length: 5, 6\n", head{}, errLengths},
	{"lengths of one value written differently", "HTTP/1.1 200 OK\nContent-Length: 5, 05\n", head{}, errLengths},
	{"length and nothing", "HTTP/1.1 200 OK\nContent-Length: 5,\n", head{}, errLengths},
	{"nothing and length", "HTTP/1.1 200 OK\nContent-Length: ,5\n", head{}, errLengths},
	{"equal lengths that are none", "HTTP/1.1 200 OK\nContent-Length: x, x\n", head{}, errLength},
	{"nothing twice", "HTTP/1.1 200 OK\nContent-Length: ,\n", head{}, errLength},

	// Transfer-Encoding (RFC 9112 §6.1)
	{"chunked", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n", head{status: 200, minor: 1, length: -1, chunked: true}, nil},
	{"chunked in capitals", "HTTP/1.1 200 OK\nTRANSFER-ENCODING: CHUNKED\n", head{status: 200, minor: 1, length: -1, chunked: true}, nil},
	{"chunked and length", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 5\n", head{}, errBoth},
	{"length and chunked", "HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n", head{}, errBoth},
	{"coding and length that are none", "HTTP/1.1 200 OK\nContent-Length: x\nTransfer-Encoding: x\n", head{}, errBoth},
	{"chunked in HTTP/1.0", "HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n", head{}, errCodingOld},
	{"chunked twice", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n", head{}, errCoding},
	{"chunked twice in a list", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked, chunked\n", head{}, errCoding},
	{"gzip, chunked", "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n", head{}, errCoding},
	{"chunked, gzip", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked, gzip\n", head{}, errCoding},
	{"chunked and nothing", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked,\n", head{}, errCoding},
	{"identity", "HTTP/1.1 200 OK\nTransfer-Encoding: identity\n", head{}, errCoding},
	{"empty coding", "HTTP/1.1 200 OK\nTransfer-Encoding:\n", head{}, errCoding},
	{"coding with a parameter", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked;q=1\n", head{}, errCoding},
	{"coding in quotes", "HTTP/1.1 200 OK\nTransfer-Encoding: \"chunked\"\n", head{}, errCoding},
	{"coding with NBSP", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\u00a0\n", head{}, errCoding},
	{"coding with \\xff", "HTTP/1.1 200 OK\nTransfer-Encoding: \xffchunked\n", head{}, errCoding},
	{"coding with the Kelvin sign", "HTTP/1.1 200 OK\nTransfer-Encoding: chun\u212aed\n", head{}, errCoding},
	{"coding with a long s", "HTTP/1.1 200 OK\nTran\u017ffer-Encoding: chunked\n", head{}, errName},
	{"coding behind a vertical tab", "HTTP/1.1 200 OK\nTransfer-Encoding: \x0bchunked\n", head{}, errObscured},

	// Responses without content (RFC 9110 §6.4.1)
	{"1xx with a length", "HTTP/1.1 103 Early Hints\nContent-Length: 5\n", head{status: 103, minor: 1, length: -1}, nil},
	{"1xx with both", "HTTP/1.1 103 Early Hints\nContent-Length: x\nTransfer-Encoding: x\n", head{status: 103, minor: 1, length: -1}, nil},
	{"101 with a length", "HTTP/1.1 101 Switching Protocols\nContent-Length: 5\n", head{status: 101, minor: 1, length: -1}, nil},
	{"204 with a length", "HTTP/1.1 204 No Content\nContent-Length: 5\n", head{status: 204, minor: 1, length: -1}, nil},
	{"204 chunked", "HTTP/1.1 204 No Content\nTransfer-Encoding: chunked\n", head{}, errCodingEmpty},
	{"204 with both", "HTTP/1.1 204 No Content\nTransfer-Encoding: chunked\nContent-Length: 0\n", head{}, errBoth},
	{"304 with a length", "HTTP/1.1 304 Not Modified\nContent-Length: 5\n", head{status: 304, minor: 1, length: 5}, nil},
	{"304 chunked", "HTTP/1.1 304 Not Modified\nTransfer-Encoding: chunked\n", head{status: 304, minor: 1, length: -1, chunked: true}, nil}, // RFC 9112 §6.1: may be sent
	{"304 with differing lengths", "HTTP/1.1 304 Not Modified\nContent-Length: 5, 6\n", head{}, errLengths},

	// Persistence (RFC 9112 §9.3)
	{"close", "HTTP/1.1 200 OK\nConnection: close\n", head{status: 200, minor: 1, length: -1, close: true}, nil},
	{"close in capitals", "HTTP/1.1 200 OK\nCONNECTION:CLOSE\n", head{status: 200, minor: 1, length: -1, close: true}, nil},
	{"close in a list", "HTTP/1.1 200 OK\nConnection: ,, x-a ,\tclose, x-b\n", head{status: 200, minor: 1, length: -1, close: true}, nil},
	{"close in another line", "HTTP/1.1 200 OK\nConnection: x-a\nConnection: close\n", head{status: 200, minor: 1, length: -1, close: true}, nil},
	{"close and keep-alive", "HTTP/1.1 200 OK\nConnection: keep-alive, close\n", head{status: 200, minor: 1, length: -1, close: true}, nil},
	{"close behind a space before the colon", "HTTP/1.1 200 OK\nConnection : close\n", head{status: 200, minor: 1, length: -1, close: true}, nil},
	{"close in a continuation line", "HTTP/1.1 200 OK\nConnection: x-a,\n close\n", head{status: 200, minor: 1, length: -1, close: true}, nil},
	{"not close", "HTTP/1.1 200 OK\nConnection: closed, disclose, close x, \"close\", clo\u017fe\n", head{status: 200, minor: 1, length: -1}, nil},
	{"HTTP/1.0", "HTTP/1.0 200 OK\n", head{status: 200, length: -1, close: true}, nil},
	{"HTTP/1.0 kept alive", "HTTP/1.0 200 OK\nConnection: Keep-Alive\nContent-Length: 5\n", head{status: 200, length: 5}, nil},
	{"HTTP/1.0 kept alive with the Kelvin sign", "HTTP/1.0 200 OK\nConnection: \u212aeep-Alive\n", head{status: 200, length: -1, close: true}, nil},
	{"HTTP/1.0 kept alive and closed", "HTTP/1.0 200 OK\nConnection: keep-alive\nConnection: close\n", head{status: 200, length: -1, close: true}, nil},
	{"HTTP/1.0 with other options", "HTTP/1.0 200 OK\nConnection: x-a\nKeep-Alive: timeout=5\n", head{status: 200, length: -1, close: true}, nil},
}

// wire makes a message of lines that end in LF, with its empty line.
func wire(lines string) string { return strings.ReplaceAll(lines+"\n", "\n", "\r\n") }

func TestHead(t *testing.T) {
	t.Parallel()
	for _, tt := range headTable {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for ending, raw := range map[string]string{"CRLF": wire(tt.raw), "LF": tt.raw + "\n"} { // RFC 9112 §2.2
				var h head
				err := h.parse([]byte(raw), http.Header{}, headLimits)
				require.Equal(t, tt.err, err, ending)
				if err != nil {
					continue
				}
				require.NotContains(t, h.header, "Transfer-Encoding")
				if h.length >= 0 {
					require.Len(t, h.header["Content-Length"], 1)
				} else {
					require.NotContains(t, h.header, "Content-Length")
				}
				h.header = nil
				require.Equal(t, tt.want, h, ending)
			}
		})
	}
}

func TestEqualLengthsAreOneValue(t *testing.T) {
	t.Parallel()
	for _, lines := range []string{"Content-Length: 05\n", "Content-Length: 05 , 05\n", "Content-Length: 05\nA: b\nContent-Length: 05\n"} {
		var h head
		require.NoError(t, h.parse([]byte(wire("HTTP/1.1 200 OK\n"+lines)), http.Header{}, headLimits))
		require.Equal(t, []string{"05"}, h.header["Content-Length"])
	}
}

func TestHeadKeepsTheFormerHeadOut(t *testing.T) {
	t.Parallel()
	var h head
	header := http.Header{}
	require.NoError(t, h.parse([]byte(wire("HTTP/1.0 200 OK\nContent-Length: 5\nA: b\n")), header, headLimits))
	clear(header)
	require.NoError(t, h.parse([]byte(wire("HTTP/1.1 204 No Content\n")), header, headLimits))
	require.Equal(t, head{status: 204, minor: 1, header: http.Header{}, length: -1}, h)
}

func TestHeadIsBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		raw  string
		err  error
	}{
		{"as long as it may be", "HTTP/1.1 200 OK\nA: " + strings.Repeat("a", 64<<10-24) + "\n", nil},
		{"a byte longer", "HTTP/1.1 200 OK\nA: " + strings.Repeat("a", 64<<10-23) + "\n", errHeadTooLarge},
		{"long reason", "HTTP/1.1 200 " + strings.Repeat("a", 64<<10) + "\n", errHeadTooLarge},
		{"as many fields as there may be", "HTTP/1.1 200 OK\n" + strings.Repeat("A: b\n", 200), nil},
		{"a field more", "HTTP/1.1 200 OK\n" + strings.Repeat("A: b\n", 201), errFields},
		{"as many lines as there may be", "HTTP/1.1 200 OK\nA: b\n" + strings.Repeat(" c\n", 199), nil},
		{"a line more", "HTTP/1.1 200 OK\nA: b\n" + strings.Repeat(" c\n", 200), errFields},
		{"no field, a line too many", "HTTP/1.1 200 OK\n" + strings.Repeat(":\n", 201), errName},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var h head
			require.Equal(t, tt.err, h.parse([]byte(wire(tt.raw)), http.Header{}, headLimits))
		})
	}
}

// What scanHead would not hand over fails, and does not panic.
func TestHeadCutAnywhereFails(t *testing.T) {
	t.Parallel()
	whole := wire("HTTP/1.1 200 OK\nContent-Length: 5\nVia: a,\n b\n")
	for n := range len(whole) {
		var h head
		require.Error(t, h.parse([]byte(whole[:n]), http.Header{}, headLimits), "%q", whole[:n])
	}
	var h head
	require.Equal(t, errLineEnd, h.parse([]byte(whole+"x"), http.Header{}, headLimits))
	require.Equal(t, errLineEnd, h.parse([]byte(whole+"\r\n"), http.Header{}, headLimits))
}

func TestErrorsTellNothingOfTheUpstream(t *testing.T) {
	t.Parallel()
	var h head
	err := h.parse([]byte(wire("HTTP/1.1 200 OK\nsecret\n")), http.Header{}, headLimits)
	require.EqualError(t, err, "malformed response: field name is no token")
	var protocol ProtocolError
	require.ErrorAs(t, err, &protocol)
}

func TestScanHead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, buf string
		want      int
	}{
		{"nothing", "", 0},
		{"CRLF", "HTTP/1.1 200 OK\r\nA: b\r\n\r\nrest", 25},
		{"LF", "HTTP/1.1 200 OK\nA: b\n\nrest", 22},
		{"LF, then CRLF", "HTTP/1.1 200 OK\r\nA: b\n\r\nrest", 24},
		{"CRLF, then LF", "HTTP/1.1 200 OK\r\nA: b\r\n\nrest", 24},
		{"no fields", "HTTP/1.1 200 OK\r\n\r\nrest", 19},
		{"no rest", "HTTP/1.1 200 OK\r\n\r\n", 19},
		{"the first of two", "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 19},
		{"space in the empty line", "HTTP/1.1 200 OK\r\nA: b\r\n \r\n", 0},
		{"CR in the empty line", "HTTP/1.1 200 OK\r\nA: b\r\n\r\r\n", 0},
		{"CR alone", "HTTP/1.1 200 OK\r\rA: b\r\r", 0},
		{"unfinished", "HTTP/1.1 200 OK\r\nA: b\r\n\r", 0},
		{"no HTTP", "SSH-2.0-OpenSSH_9.9\r\n", 21},
		{"no status line", "HTTP/1.1 OK\r\n", 13},
		{"an empty line before", "\r\nHTTP/1.1 200 OK\r\n\r\n", 21},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, scanHead([]byte(tt.buf), 0))
			trickle(t, []byte(tt.buf), tt.want)
		})
	}
}

// trickle checks that scanHead finds the end of a head as soon as it is there, however the head comes.
func trickle(t *testing.T, buf []byte, end int) {
	for step := 1; step <= 5; step++ {
		for n, from := 0, 0; n < len(buf); from = n {
			n = min(n+step, len(buf))
			got := scanHead(buf[:n], from)
			switch {
			case !statusLine(buf[:n]):
				require.Equal(t, n, got)
				n = len(buf)
			case end > 0 && n >= end:
				require.Equal(t, end, got)
				n = len(buf)
			default:
				require.Zero(t, got)
			}
		}
	}
}

var benchHeads = []struct{ name, raw string }{
	{"typical", wire("HTTP/1.1 200 OK\nServer: nginx/1.26.2\nDate: Fri, 31 Jul 2026 12:00:30 GMT\nContent-Type: application/json; charset=utf-8\n" +
		"Content-Length: 1024\nConnection: keep-alive\nCache-Control: public, max-age=60\nEtag: \"5f3c-63f0a\"\nX-Request-Id: 01J4T6Y1Q9ZK\n")},
	{"small-letters", wire("HTTP/1.1 200 OK\nserver: nginx/1.26.2\ndate: Fri, 31 Jul 2026 12:00:30 GMT\ncontent-type: application/json; charset=utf-8\n" +
		"content-length: 1024\nconnection: keep-alive\ncache-control: public, max-age=60\netag: \"5f3c-63f0a\"\nx-request-id: 01J4T6Y1Q9ZK\n")},
	{"least", wire("HTTP/1.1 204 No Content\n")},
	{"large", wire("HTTP/1.1 200 OK\n" + strings.Repeat("X-Large: "+strings.Repeat("v", 300)+"\n", 200))},
	{"hostile", wire("HTTP/1.1 200 OK\n" + strings.Repeat("x-hostile\t : "+strings.Repeat("\x01\t", 150)+"\n \x7f\n", 100))},
}

func TestHeadAllocatesTwice(t *testing.T) {
	if raceEnabled {
		return
	}
	header := http.Header{}
	for _, bench := range benchHeads[:3] {
		raw := []byte(bench.raw)
		require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
			var h head
			clear(header)
			if scanHead(raw, 0) != len(raw) || h.parse(raw, header, headLimits) != nil {
				panic("refused")
			}
		}), 2.0, bench.name)
	}
}

func BenchmarkHead(b *testing.B) {
	for _, bench := range benchHeads {
		b.Run("parser=h1/head="+bench.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bench.raw)))
			header, raw := http.Header{}, make([]byte, len(bench.raw))
			for b.Loop() {
				var h head
				copy(raw, bench.raw) // parse rewrites it
				clear(header)
				_ = h.parse(raw[:scanHead(raw, 0)], header, headLimits)
			}
		})
		b.Run("parser=net-http/head="+bench.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bench.raw)))
			raw := strings.NewReader(bench.raw)
			br := bufio.NewReaderSize(raw, 64<<10)
			for b.Loop() {
				raw.Reset(bench.raw)
				br.Reset(raw)
				_, _ = http.ReadResponse(br, nil)
			}
		})
	}
}

func BenchmarkScanHead(b *testing.B) {
	long := []byte(wire("HTTP/1.1 200 OK\n" + strings.Repeat("X-Large: "+strings.Repeat("v", 300)+"\n", 200)))
	for _, step := range []int{1, 100, len(long)} {
		b.Run(fmt.Sprintf("step=%d", step), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(long)))
			for b.Loop() {
				for n, from := 0, 0; n < len(long); from = n {
					n = min(n+step, len(long))
					scanHead(long[:n], from)
				}
			}
		})
	}
}
