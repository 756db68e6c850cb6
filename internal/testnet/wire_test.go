package testnet

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const host = "Host: h\r\n"

// requestCases: one row per sentence. want is the end; body what is decoded when it is Whole.
var requestCases = []struct {
	name, raw string
	want      End
	body      string
}{
	{"get", "GET /x?q HTTP/1.1\r\n" + host + "\r\n", Whole, ""},
	{"http/1.0 without host", "GET / HTTP/1.0\r\n\r\n", Whole, ""},
	{"raw bytes in a value", "GET / HTTP/1.1\r\n" + host + "X: \xff\t\x80\r\n\r\n", Whole, ""},
	{"empty value", "GET / HTTP/1.1\r\n" + host + "X:\r\n\r\n", Whole, ""},
	{"length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabcGET", Whole, "abc"},
	{"length zero", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0\r\n\r\n", Whole, ""},
	{"chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n", Whole, "abc0123456789"},
	{"trailer", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n", Whole, "a"},

	{"nothing", "", Closed, ""},
	{"cut in the line", "GET / HT", Truncated, ""},
	{"cut in the fields", "GET / HTTP/1.1\r\nHost: h\r\n", Truncated, ""},
	{"cut in the length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\n\r\nabc", Truncated, ""},
	{"cut before the last chunk", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", Truncated, ""},
	{"cut in a chunk", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nabc", Truncated, ""},
	{"cut in the trailer", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n", Truncated, ""},

	{"leading empty line", "\r\nGET / HTTP/1.1\r\n" + host + "\r\n", Malformed, ""},
	{"bare lf", "GET / HTTP/1.1\n" + host + "\r\n", Malformed, ""},
	{"bare lf in the fields", "GET / HTTP/1.1\r\nHost: h\n\r\n", Malformed, ""},
	{"bare cr in a value", "GET / HTTP/1.1\r\n" + host + "X: a\rb\r\n\r\n", Malformed, ""},
	{"nul in a value", "GET / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", Malformed, ""},
	{"two spaces", "GET  / HTTP/1.1\r\n" + host + "\r\n", Malformed, ""},
	{"space in the target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", Malformed, ""},
	{"fragment", "GET /a#b HTTP/1.1\r\n" + host + "\r\n", Malformed, ""},
	{"raw byte in the target", "GET /\xff HTTP/1.1\r\n" + host + "\r\n", Malformed, ""},
	{"method is no token", "G@T / HTTP/1.1\r\n" + host + "\r\n", Malformed, ""},
	{"http/0.9", "GET /\r\n", Malformed, ""},
	{"http/2", "PRI * HTTP/2.0\r\n\r\n", Malformed, ""},
	{"no host", "GET / HTTP/1.1\r\n\r\n", Malformed, ""},
	{"two hosts", "GET / HTTP/1.1\r\n" + host + host + "\r\n", Malformed, ""},
	{"host with userinfo", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", Malformed, ""},
	{"no colon", "GET / HTTP/1.1\r\n" + host + "X\r\n\r\n", Malformed, ""},
	{"empty name", "GET / HTTP/1.1\r\n" + host + ": x\r\n\r\n", Malformed, ""},
	{"space before the colon", "GET / HTTP/1.1\r\n" + host + "X : y\r\n\r\n", Malformed, ""},
	{"folding", "GET / HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n", Malformed, ""},
	{"two framings", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Malformed, ""},
	{"two lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Malformed, ""},
	{"list of lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3, 3\r\n\r\nabc", Malformed, ""},
	{"signed length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\nabc", Malformed, ""},
	{"empty length", "POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n", Malformed, ""},
	{"length of 20 digits", "POST / HTTP/1.1\r\n" + host + "Content-Length: 10000000000000000000\r\n\r\n", Malformed, ""},
	{"other coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Malformed, ""},
	{"coding with a control", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Malformed, ""},
	{"chunked in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Malformed, ""},
	{"chunk extension", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1;a=b\r\na\r\n0\r\n\r\n", Malformed, ""},
	{"chunk size prefixed", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", Malformed, ""},
	{"chunk size overflows", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFED\r\n", Malformed, ""},
	{"chunk size empty", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n\r\n", Malformed, ""},
	{"chunk with surplus", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n", Malformed, ""},
	{"chunk line with bare lf", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", Malformed, ""},
}

func TestRequestsAreParsedStrictly(t *testing.T) {
	t.Parallel()
	for _, tc := range requestCases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newWire(strings.NewReader(tc.raw)).request()
			r.rest()
			assert.Equal(t, tc.want, r.End, r.Err)
			if tc.want == Whole {
				assert.Equal(t, tc.body, string(r.Body))
				assert.NoError(t, r.Err)
				assert.True(t, strings.HasPrefix(tc.raw, string(r.Raw)))
			} else {
				assert.Error(t, r.Err)
			}
		})
	}
}

var responseCases = []struct {
	name, method, raw string
	want              End
	status            int
	framing           Framing
	body              string
}{
	{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Whole, 200, ByLength, "hi"},
	{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", Whole, 200, Chunked, "hi"},
	{"by close", "GET", "HTTP/1.1 200 OK\r\n\r\nhi", Whole, 200, ByClose, "hi"},
	{"by close, empty", "GET", "HTTP/1.0 200 \r\n\r\n", Whole, 200, ByClose, ""},
	{"head", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Whole, 200, NoBody, ""},
	{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", Whole, 204, NoBody, ""},
	{"304 with a length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", Whole, 304, NoBody, ""},
	{"interim", "GET", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Whole, 204, NoBody, ""},
	{"101 is final", "GET", "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP", Whole, 101, NoBody, ""},
	{"connect", "CONNECT", "HTTP/1.1 200 OK\r\n\r\n", Whole, 200, NoBody, ""},

	{"nothing", "GET", "", Closed, 0, "", ""},
	{"nothing after an interim", "GET", "HTTP/1.1 100 Continue\r\n\r\n", Truncated, 0, "", ""},
	{"cut head", "GET", "HTTP/1.1 200 OK\r\nX", Truncated, 0, "", ""},
	{"short of its length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", Truncated, 200, ByLength, "hi"},
	{"no last chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", Truncated, 200, Chunked, "hi"},

	{"status 99", "GET", "HTTP/1.1 099 X\r\n\r\n", Malformed, 0, "", ""},
	{"status 600", "GET", "HTTP/1.1 600 X\r\n\r\n", Malformed, 0, "", ""},
	{"status +20", "GET", "HTTP/1.1 +20 X\r\n\r\n", Malformed, 0, "", ""},
	{"no space behind the status", "GET", "HTTP/1.1 200\r\n\r\n", Malformed, 0, "", ""},
	{"control in the reason", "GET", "HTTP/1.1 200 O\x1bK\r\n\r\n", Malformed, 0, "", ""},
	{"204 with a length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Malformed, 0, "", ""},
	{"1xx with a coding", "GET", "HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed, 0, "", ""},
	{"two framings", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed, 0, "", ""},
	{"space before the colon", "GET", "HTTP/1.1 200 OK\r\nCache-Control : no-store\r\n\r\n", Malformed, 0, "", ""},
}

func TestResponsesAreParsedStrictly(t *testing.T) {
	t.Parallel()
	for _, tc := range responseCases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newWire(strings.NewReader(tc.raw)).response(tc.method)
			r.rest()
			assert.Equal(t, tc.want, r.End, r.Err)
			assert.Equal(t, tc.status, r.Status)
			assert.Equal(t, tc.framing, r.Framing)
			assert.Equal(t, tc.body, string(r.Body))
			assert.Equal(t, int64(len(tc.body)), r.Size)
		})
	}
}

func TestInterimResponsesAreKeptApart(t *testing.T) {
	t.Parallel()
	raw := "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
	r := newWire(strings.NewReader(raw)).response("GET")
	r.rest()
	require.Len(t, r.Interim, 2)
	assert.Equal(t, 100, r.Interim[0].Status)
	assert.Equal(t, "a", r.Interim[1].Header.Get("Link"))
	assert.Equal(t, "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", r.Interim[1].Head)
	assert.Equal(t, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", r.Head)
	assert.Equal(t, raw, string(r.Raw))
	assert.Empty(t, r.Header.Get("Link"))
}

func TestEndlessHeadsAreBounded(t *testing.T) {
	t.Parallel()
	endless := io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\nX: "), repeat("a"))
	assert.Equal(t, Malformed, newWire(endless).response("GET").End)
	assert.Equal(t, Malformed, newWire(repeat("HTTP/1.1 103 X\r\n\r\n")).response("GET").End)
}

func TestBodiesAreCountedBeyondWhatIsKept(t *testing.T) {
	t.Parallel()
	const size = keepBytes + 12345
	r := newWire(io.MultiReader(
		strings.NewReader("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 16789561\r\n\r\n"), io.LimitReader(repeat("ab"), size))).request()
	r.rest()
	assert.Equal(t, Whole, r.End, r.Err)
	assert.Equal(t, int64(size), r.Size)
	assert.Len(t, r.Body, keepBytes)
}

type repeat string

func (r repeat) Read(p []byte) (int, error) {
	n := 0
	for n+len(r) <= len(p) {
		n += copy(p[n:], r)
	}
	if n == 0 {
		n = copy(p, r)
	}
	return n, nil
}

// What the strict parser takes for whole, net/http reads alike, if it accepts it at all.
func FuzzRequest(f *testing.F) {
	for _, tc := range requestCases {
		f.Add([]byte(tc.raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := newWire(bytes.NewReader(raw)).request()
		r.rest()
		if (r.End == Whole) != (r.Err == nil) || !bytes.HasPrefix(raw, r.Raw) {
			t.Fatalf("%s: raw %q", r, r.Raw)
		}
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if r.End != Whole || err != nil {
			return
		}
		body, err := io.ReadAll(std.Body)
		if std.Method != r.Method || std.RequestURI != r.Target || err != nil || !bytes.Equal(body, r.Body) {
			t.Fatalf("%s: net/http read %s %s, %q, %v", r, std.Method, std.RequestURI, body, err)
		}
	})
}

func FuzzResponse(f *testing.F) {
	for _, tc := range responseCases {
		f.Add(tc.method, []byte(tc.raw))
	}
	f.Fuzz(func(t *testing.T, method string, raw []byte) {
		r := newWire(bytes.NewReader(raw)).response(method)
		r.rest()
		if (r.End == Whole) != (r.Err == nil) || !bytes.HasPrefix(raw, r.Raw) {
			t.Fatalf("%s: raw %q", r, r.Raw)
		}
		std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw[len(raw)-len(rawFinal(r, raw)):])), &http.Request{Method: method})
		if r.End != Whole || r.Status == http.StatusSwitchingProtocols || err != nil {
			return
		}
		body, err := io.ReadAll(std.Body)
		if std.StatusCode != r.Status || err != nil || !bytes.Equal(body, r.Body) {
			t.Fatalf("%s: net/http read %d, %q, %v", r, std.StatusCode, body, err)
		}
	})
}

// rawFinal returns what of raw follows the interim responses.
func rawFinal(r *Response, raw []byte) []byte {
	for _, i := range r.Interim {
		raw = raw[len(i.Raw):]
	}
	return raw
}
