package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// framingCases are section 1: request framing and parsing.
func framingCases() []attackCase {
	var cases []attackCase
	for _, more := range [][]attackCase{
		doubleFramingCases(), codingCases(), lengthCases(), fieldSyntaxCases(), badChunkCases(), chunkCases(), shortBodyCases(), earlyAnswerCases(), hostCases(),
		requestLineCases(), fatGetCases(), sizeCases(),
	} {
		cases = append(cases, more...)
	}
	return cases
}

// recorded waits until the gateway has recorded so many requests and checks
// which failures they were.
func (r *rig) recorded(requests int, want map[gateway.Reason]uint64) {
	r.Helper()
	testnet.Settle(r, fmt.Sprintf("%d requests are recorded", requests), func() bool {
		s := r.gw.Stats()
		return s.InFlight == 0 && s.Requests >= uint64(requests)
	})
	s := r.gw.Stats()
	assert.Equal(r, uint64(requests), s.Requests)
	assert.Equal(r, want, s.Errors)
}

// untouched checks that no upstream received a byte.
func (r *rig) untouched() {
	r.Helper()
	assert.Empty(r, string(r.a.JournalBytes()))
	assert.Empty(r, string(r.b.JournalBytes()))
	assert.Zero(r, r.a.Conns()+r.b.Conns())
}

// answeredByServer sends bytes that net/http's server refuses by itself: one
// answer, and the connection is closed before anything behind is looked at.
func answeredByServer(raw string, status int) func(*testing.T) {
	return func(t *testing.T) {
		r := newRig(t, setup{})
		tr := r.exchange(raw + testnet.Get("/b/smuggled"))
		assert.Equal(t, []int{status}, tr.Statuses(), "%v", tr)
		assert.Equal(t, testnet.Closed, tr.End)
		r.untouched()
		r.recorded(0, noFailure)
	}
}

// framedOnce checks that a journalled request has one framing and nothing else
// that looks like one.
func framedOnce(t *testing.T, req *testnet.Request, framing testnet.Framing, body string) {
	t.Helper()
	assert.Equal(t, framing, req.Framing)
	assert.Equal(t, body, string(req.Body))
	for name, values := range req.Header {
		switch folded := strings.ReplaceAll(strings.ToLower(strings.Trim(name, "-_")), "_", "-"); folded {
		case "content-length":
			assert.Equal(t, testnet.ByLength, framing, "%s: %q", name, values)
			assert.Equal(t, "Content-Length", name)
		case "transfer-encoding":
			assert.Equal(t, testnet.Chunked, framing, "%s: %q", name, values)
			assert.Equal(t, "Transfer-Encoding", name)
		}
	}
}

// Row 1: two framings in one message (RFC 9112 §6.1). net/http's server goes by
// the chunks and keeps the connection, so what follows them is the client's own
// next request; the upstream gets one framing.
func doubleFramingCases() []attackCase {
	smuggled := testnet.Get("/b/smuggled", "Connection: close")
	chunked := func(fields ...string) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(testnet.Build("POST", "/a/x", "", fields...) + testnet.Chunks() + smuggled)
			assert.Equal(t, []int{200, 200}, tr.Statuses())
			assert.Equal(t, testnet.Closed, tr.End)
			framedOnce(t, r.a.Await(1)[0], testnet.Chunked, "")
			require.Len(t, r.a.Journal(), 1)
			require.Len(t, r.b.Await(1), 1)
			assert.Equal(t, "/smuggled", r.b.Journal()[0].Target)
			assert.NotContains(t, string(r.a.JournalBytes()), "smuggled")
			r.recorded(2, noFailure)
		}
	}
	return []attackCase{
		{1, "Content-Length, Transfer-Encoding", chunked("Content-Length: 5", "Transfer-Encoding: chunked")},
		{1, "Transfer-Encoding, Content-Length", chunked("Transfer-Encoding: chunked", "Content-Length: 5")},
		{1, "a Content-Length over what follows", chunked("Content-Length: 500", "Transfer-Encoding: chunked")},
		{1, "Content-Length 0", chunked("Content-Length: 0", "Transfer-Encoding: chunked")},
		{1, "Transfer-Encoding in other letters", chunked("content-length: 5", "TRANSFER-ENCODING: Chunked")},
		{1, "Content_Length is no length", chunked("Content_Length: 5", "Transfer-Encoding: chunked")},
		{1, "Connection nominates both", chunked("Connection: Content-Length, Transfer-Encoding", "Content-Length: 5", "Transfer-Encoding: chunked")},
		{1, "chunks with content", func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(testnet.Build("POST", "/a/x", testnet.Chunks("hello", smuggled), "Content-Length: 5", "Transfer-Encoding: chunked", "Connection: close"))
			assert.Equal(t, []int{200}, tr.Statuses())
			framedOnce(t, r.a.Await(1)[0], testnet.Chunked, "hello"+smuggled)
			assert.Zero(t, r.b.Begun())
			r.recorded(1, noFailure)
		}},
		{1, "Transfer_Encoding is no coding", func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(testnet.Build("POST", "/a/x", "0\r\n\r\n", "Content-Length: 5", "Transfer_Encoding: chunked") + smuggled)
			assert.Equal(t, []int{200, 200}, tr.Statuses())
			framedOnce(t, r.a.Await(1)[0], testnet.ByLength, "0\r\n\r\n")
			assert.Equal(t, "/smuggled", r.b.Await(1)[0].Target)
			r.recorded(2, noFailure)
		}},
		{1, "HTTP/1.0 knows no chunks", func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange("POST /a/x HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled)
			assert.Equal(t, []int{200}, tr.Statuses())
			assert.Equal(t, testnet.Closed, tr.End, "RFC 9112 §6.1: closed after the response")
			framedOnce(t, r.a.Await(1)[0], testnet.ByLength, "0\r\n\r\n")
			assert.Zero(t, r.b.Begun())
			r.recorded(1, noFailure)
		}},
		{1, "two lengths and chunks", answeredByServer(testnet.Build("POST", "/a/x", testnet.Chunks(), "Content-Length: 5", "Content-Length: 6", "Transfer-Encoding: chunked"), 400)},
	}
}

// Row 3: transfer codings that are not exactly "chunked".
func codingCases() []attackCase {
	var cases []attackCase
	for _, c := range []struct {
		coding string
		status int
	}{
		{"\x0bchunked", 400}, {"\xffchunked\xff", 501},
		{"chunked, identity", 501}, {"identity", 501}, {"gzip, chunked", 501}, {"chunked, chunked", 501}, {"chunked,", 501}, {",chunked", 501},
		{"chunked;q=1", 501}, {`"chunked"`, 501}, {"xchunked", 501}, {"chunked\x00", 400}, {"chunked\x0b", 400}, {"chunk", 501}, {"", 501},
		{"chunked\r\nTransfer-Encoding: chunked", 501}, {"chunked\r\nTransfer-Encoding: identity", 501}, {"chunked\r\n ,identity", 501},
	} {
		raw := testnet.Build("POST", "/a/x", testnet.Chunks(), "Transfer-Encoding: "+c.coding)
		cases = append(cases, attackCase{3, fmt.Sprintf("%q", c.coding), answeredByServer(raw, c.status)})
	}
	for _, coding := range []string{"chunked", "Chunked", "\tchunked \t", "CHUNKED"} {
		cases = append(cases, attackCase{3, fmt.Sprintf("%q is chunked", coding), func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(testnet.Build("POST", "/a/x", testnet.Chunks("body"), "Transfer-Encoding: "+coding) + testnet.Get("/b/next", "Connection: close"))
			assert.Equal(t, []int{200, 200}, tr.Statuses())
			framedOnce(t, r.a.Await(1)[0], testnet.Chunked, "body")
			assert.Equal(t, "chunked", field(r.a.Journal()[0], "Transfer-Encoding"))
			r.recorded(2, noFailure)
		}})
	}
	return cases
}

// Row 5: lengths that are no number, or two (RFC 9112 §6.3).
func lengthCases() []attackCase {
	var cases []attackCase
	for _, length := range []string{
		"3\r\nContent-Length: 4", "3, 3", "+3", "-3", "0x3", "", "1e1", "12345678901234567890",
		"3, 4", "3,", "3 3", "3;", "3.0", "3_0", "9223372036854775808", "-0", "٣", "3\x00", "\x0b3", "\"3\"", "3\r\n 4", "nan",
	} {
		raw := testnet.Build("POST", "/a/x", "abc", "Content-Length: "+length)
		cases = append(cases, attackCase{5, fmt.Sprintf("%q", length), answeredByServer(raw, 400)})
	}
	for _, length := range []string{"3", "03", " 3\t", "3\r\nContent-Length: 3"} {
		cases = append(cases, attackCase{5, fmt.Sprintf("%q is 3", length), func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(testnet.Build("POST", "/a/x", "abc", "Content-Length: "+length) + testnet.Get("/b/next", "Connection: close"))
			assert.Equal(t, []int{200, 200}, tr.Statuses())
			framedOnce(t, r.a.Await(1)[0], testnet.ByLength, "abc")
			assert.Equal(t, "3", field(r.a.Journal()[0], "Content-Length"))
			r.recorded(2, noFailure)
		}})
	}
	return cases
}
