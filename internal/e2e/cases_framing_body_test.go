package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

const cacheable = "Cache-Control: public, max-age=60"

// badChunks are chunks that are none (RFC 9112 §7.1).
var badChunks = []string{
	"0x3\r\nabc\r\n", "0_3\r\nabc\r\n", "-3\r\nabc\r\n", "   3\r\nabc\r\n", "\r\nabc\r\n", "3\nabc\n", "1\r\nabc\r\n",
	"+3\r\nabc\r\n", "g\r\nabc\r\n", "3;\nabc\r\n", "3;x\ny\r\nabc\r\n", "3\r\nabc\n", "3\r\nabc\rX", "3\rabc\r\n", "10000000000000000\r\nabc\r\n", ";x=1\r\nabc\r\n",
	"\x00\r\n", "3\x00\r\nabc\r\n", "٣\r\nabc\r\n", "3 4\r\nabc\r\n", "3,3\r\nabc\r\n", "0x0\r\n\r\n", "00000000000000003\r\nabc\r\n",
	"3;" + strings.Repeat("x", 64<<10) + "\r\nabc\r\n", "0\r\nbroken trailer\r\n\r\n", "0\r\nX: a\x00\r\n\r\n", "0\r\n: v\r\n\r\n", "0\nX: v\n\n",
}

// Row 9: a body that cannot be read. The upstream never sees a last chunk, the
// request is not sent again, and nothing stored is touched.
func badChunkCases() []attackCase {
	const listed = 7
	var cases []attackCase
	for _, bad := range badChunks[:listed] {
		cases = append(cases, attackCase{9, fmt.Sprintf("%q", bad), func(t *testing.T) { unreadable(t, "POST", bad) }})
	}
	return append(cases,
		attackCase{9, "and others", func(t *testing.T) { unreadable(t, "POST", badChunks[listed:]...) }},
		attackCase{9, "to PUT, which could be repeated", func(t *testing.T) { unreadable(t, "PUT", badChunks...) }},
		attackCase{9, "to DELETE", func(t *testing.T) { unreadable(t, "DELETE", "0x3\r\nabc\r\n") }},
		attackCase{9, "to GET", func(t *testing.T) { unreadable(t, "GET", "0x3\r\nabc\r\n") }},
		attackCase{9, "as the first chunk", func(t *testing.T) { unreadableAtOnce(t, "POST") }},
		attackCase{9, "as the first chunk, to PUT", func(t *testing.T) { unreadableAtOnce(t, "PUT") }},
		attackCase{9, "in a response", func(t *testing.T) { unreadableAnswers(t, "5\r\nbegun\r\n") }},
		attackCase{9, "in a response, as the first chunk", func(t *testing.T) { unreadableAnswers(t, "") }},
	)
}

// unreadable has bodies break when the upstream has begun to receive them.
func unreadable(t *testing.T, method string, chunks ...string) {
	r := newRig(t, setup{script: testnet.Reply(200, cacheable, "stored")})
	r.broken = true
	require.Equal(t, 200, r.get("/a/x").Status)
	r.a.Await(1)
	for i, bad := range chunks {
		c := testnet.Dial(t, r.addr)
		c.Send(testnet.Build(method, "/a/x", "", "Transfer-Encoding: chunked") + "5\r\nbegun\r\n")
		r.a.AwaitBegun(i + 2)
		tr := c.Exchange(bad + testnet.Get("/b/smuggled"))
		assert.Equal(t, []int{400}, tr.Statuses(), "%.50q: %v", bad, tr)
		assert.Equal(t, testnet.Closed, tr.End, "%.50q", bad)
		parts := brokenOff(r, i+1)
		assert.Equal(t, method, parts[i].Method)
		assert.Equal(t, "begun", string(parts[i].Body)[:5])
	}
	r.recorded(1+len(chunks), map[gateway.Reason]uint64{gateway.ReasonClientBody: uint64(len(chunks))})
	require.Len(t, r.a.Journal(), 1, "an aborted upload looked whole")
	assert.Zero(t, r.b.Begun())
	assert.Len(t, r.attempts(), 1+len(chunks), "not sent again")
	assert.Equal(t, "stored", string(r.get("/a/x").Body))
	assert.Equal(t, 1+len(chunks), r.a.Begun(), "nothing is invalidated")
}

// unreadableAtOnce sends bodies that are broken from the first byte on.
func unreadableAtOnce(t *testing.T, method string) {
	r := newRig(t, setup{script: testnet.Reply(200, cacheable, "stored")})
	r.broken = true
	require.Equal(t, 200, r.get("/a/x").Status)
	for _, bad := range badChunks {
		tr := r.exchange(testnet.Build(method, "/a/x", "", "Transfer-Encoding: chunked") + bad + testnet.Get("/b/smuggled"))
		assert.Equal(t, []int{400}, tr.Statuses(), "%.50q: %v", bad, tr)
		assert.Equal(t, testnet.Closed, tr.End, "%.50q", bad)
	}
	r.recorded(1+len(badChunks), map[gateway.Reason]uint64{gateway.ReasonClientBody: uint64(len(badChunks))})
	assert.Len(t, r.attempts(), 1+len(badChunks), "not sent again")
	assert.Zero(t, r.b.Begun())
	require.Len(t, r.a.Journal(), 1, "an aborted upload looked whole")
	assert.Equal(t, "stored", string(r.get("/a/x").Body))
	assert.Len(t, r.a.Journal(), 1, "nothing is invalidated")
}

// unreadableAnswers has responses break behind begun. The client sees that they
// are cut, and no byte of what stands where a chunk should be.
func unreadableAnswers(t *testing.T, begun string) {
	bad := append([]string{"FFFFFFFFFFFFFFED\r\nabc\r\n", "fffffffffffffff0\r\n", "8000000000000000\r\nabc\r\n", "0\r\nX: a\rb\r\n\r\n"}, badChunks...)
	bad = slices.DeleteFunc(bad, func(s string) bool { return strings.Contains(s, "X: a\x00") }) // cleaned, like a header field
	r := newRig(t, setup{script: probed(func(c *testnet.Conn) {
		c.Send(testnet.Answer(200, storable+"Transfer-Encoding: chunked", begun+bad[c.ID]+testnet.Chunks("no")+testnet.Answer(200, "", "nor this")))
		c.Wait()
	})})
	_, want, _ := strings.Cut(strings.TrimSuffix(begun, "\r\n"), "\r\n")
	for i := range bad {
		resp := r.get(fmt.Sprintf("/a/%d", i))
		assert.Equal(t, 200, resp.Status, "%.50q", bad[i])
		assert.Equal(t, testnet.Truncated, resp.End, "%.50q", bad[i])
		assert.True(t, strings.HasPrefix(want+"abc", string(resp.Body)) && strings.HasPrefix(string(resp.Body), want), "%.50q: %q", bad[i], resp.Body)
		assert.Equal(t, i+1, r.a.Begun(), "not asked for again")
	}
	assert.Zero(t, r.cache.Stats().Entries)
	assert.Zero(t, r.cache.Stats().Bytes)
	assert.Equal(t, len(bad), r.a.Conns(), "no connection is used again")
	r.counted(map[gateway.Reason]uint64{gateway.ReasonTruncated: uint64(len(bad))})
}

// brokenOff waits until a's connections with so many unfinished requests are
// closed and returns those.
func brokenOff(r *rig, n int) []*testnet.Request {
	r.Helper()
	testnet.Settle(r, "the upload is aborted", func() bool { return len(r.a.Parts()) >= n })
	parts := r.a.Parts()
	require.Len(r, parts, n)
	for _, p := range parts {
		assert.Equal(r, testnet.Truncated, p.End)
		assert.False(r, strings.HasSuffix(string(p.Raw), "\r\n0\r\n\r\n"), "no last chunk: %q", p.Raw)
	}
	return parts
}

// Row 9, when a body breaks at other moments, and what a body may hold.
func chunkCases() []attackCase {
	accepted := func(body, want string) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(testnet.Build("POST", "/a/x", body, "Transfer-Encoding: chunked") + testnet.Get("/b/next", "Connection: close"))
			assert.Equal(t, []int{200, 200}, tr.Statuses())
			sent := r.a.Await(1)[0]
			framedOnce(t, sent, testnet.Chunked, want)
			assert.NotContains(t, string(sent.Raw), "ext", "extensions are for one connection (RFC 9112 §7.1.1)")
			r.recorded(2, noFailure)
		}
	}
	return []attackCase{
		{9, "sizes in any letters, with zeros", accepted("0a\r\n0123456789\r\n00A\r\n0123456789\r\n000\r\n\r\n", "01234567890123456789")},
		{9, "extensions are dropped", accepted("3;ext=1;ext=\"a;b\"\r\nabc\r\n0;ext\r\n\r\n", "abc")},
		{9, "what looks like a request is content", accepted(testnet.Chunks(testnet.Get("/b/hidden"), "0\r\n\r\n"), testnet.Get("/b/hidden")+"0\r\n\r\n")},
		{9, "trailers pass, but for those that frame, route or authenticate", func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(testnet.Build("POST", "/a/x", "3\r\nabc\r\n0\r\nX-Sum: 1\r\nAuthorization: evil\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n",
				"Transfer-Encoding: chunked", "Trailer: X-Sum, X-Forwarded-For", "Connection: close"))
			assert.Equal(t, []int{200}, tr.Statuses())
			sent := r.a.Await(1)[0]
			framedOnce(t, sent, testnet.Chunked, "abc")
			assert.Equal(t, map[string][]string{"X-Sum": {"1"}}, map[string][]string(sent.Trailer))
			assert.NotContains(t, string(r.a.JournalBytes()), "evil")
			assert.NotContains(t, string(r.a.JournalBytes()), "9.9.9.9")
			r.recorded(1, noFailure)
		}},
		{9, "after an early answer the connection is closed, and nothing is resent", func(t *testing.T) {
			r := newRig(t, setup{script: func(c *testnet.Conn) {
				for req := c.ReadHead(); req != nil; req = c.ReadHead() {
					c.Send(testnet.Answer(200, "", "early"))
				}
			}})
			r.broken = true
			c := testnet.Dial(t, r.addr)
			c.Send(testnet.Build("POST", "/a/x", "", "Transfer-Encoding: chunked") + "5\r\nbegun\r\n")
			resp := c.ReadResponse("POST")
			assert.Equal(t, 200, resp.Status)
			assert.Equal(t, "early", string(resp.Body))
			assert.Equal(t, "close", resp.Header.Get("Connection"))
			c.Send("0x3\r\nabc\r\n" + testnet.Get("/b/smuggled"))
			rest, end := c.ReadRest()
			assert.Empty(t, rest)
			assert.Equal(t, testnet.Closed, end)
			assert.Zero(t, r.b.Begun())
			assert.Len(t, brokenOff(r, 1), 1)
			assert.Equal(t, 1, r.a.Begun())
			r.recorded(1, noFailure)
		}},
	}
}

// long is the length of a content that goes out while it comes in. A shorter
// one is there whole before anything of its request is sent.
const long = "Content-Length: 32768"

// Row 11: a body shorter than it says. To net/http's server a client that ends
// its half has left: it is not answered. The upstream's attempt is aborted, not
// repeated, and nobody's fault but the client's.
func shortBodyCases() []attackCase {
	short := func(method, head, body string, leave func(*testing.T, *testnet.Client)) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, cacheable, "stored")})
			r.broken = true
			require.Equal(t, 200, r.get("/a/x").Status)
			r.a.Await(1)

			c := testnet.Dial(t, r.addr)
			c.Send(testnet.Build(method, "/a/x", "", head) + body)
			r.a.AwaitBegun(2)
			leave(t, c)
			r.recorded(2, onlyFailure(gateway.ReasonClientClosed))
			require.Len(t, r.a.Journal(), 1, "an aborted upload looked whole")
			assert.Less(t, brokenOff(r, 1)[0].Size, int64(100))
			assert.Len(t, r.attempts(), 2, "not sent again")
			assert.Equal(t, "stored", string(r.get("/a/x").Body))
			assert.Equal(t, 2, r.a.Begun(), "nothing is invalidated")
		}
	}
	const chunked = "Transfer-Encoding: chunked"
	return append(withheldBodyCases(), []attackCase{
		{11, "short of Content-Length, then FIN", short("POST", long, "begun", leaveByFIN)},
		{11, "nothing of Content-Length, then FIN", short("POST", long, "", leaveByFIN)},
		{11, "of PUT, which could be repeated", short("PUT", long, "begun", leaveByFIN)},
		{11, "of DELETE", short("DELETE", long, "begun", leaveByFIN)},
		{11, "of GET", short("GET", long, "begun", leaveByFIN)},
		{11, "no last chunk, then FIN", short("POST", chunked, "5\r\nbegun\r\n", leaveByFIN)},
		{11, "inside a chunk, then FIN", short("POST", chunked, "64\r\nbegun", leaveByFIN)},
		{11, "inside a chunk size, then FIN", short("PUT", chunked, "5\r\nbegun\r\n1", leaveByFIN)},
		{11, "inside the trailer section, then FIN", short("PUT", chunked, "5\r\nbegun\r\n0\r\nX: v", leaveByFIN)},
		{9, "\"FFFFFFFFFFFFFFED\" is a size, if one that nobody can fill", short("POST", chunked, "FFFFFFFFFFFFFFED\r\nabc\r\n0\r\n\r\n"+testnet.Get("/b/smuggled"), leaveByFIN)},
		{11, "short of Content-Length, then RST", short("POST", long, "begun", leaveByRST)},
		{11, "no last chunk, then RST", short("PUT", chunked, "5\r\nbegun\r\n", leaveByRST)},
	}...)
}

func leaveByFIN(t *testing.T, c *testnet.Client) {
	c.CloseWrite()
	rest, end := c.ReadRest()
	assert.Empty(t, rest)
	assert.Equal(t, testnet.Closed, end)
}

func leaveByRST(_ *testing.T, c *testnet.Client) { c.Reset() }

// Row 11, of a short Content-Length: the upstream sees nothing of a request
// whose content does not come.
func withheldBodyCases() []attackCase {
	withheld := func(method, length, body string, reason gateway.Reason, leave func(*testing.T, *testnet.Client), opts ...gateway.ServiceOption) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, cacheable, "stored"), a: opts})
			require.Equal(t, 200, r.get("/a/x").Status)

			c := testnet.Dial(t, r.addr)
			c.Send(testnet.Build(method, "/a/x", "", length) + body)
			testnet.Settle(t, "the request is there", func() bool { return r.gw.Stats().Requests+uint64(r.gw.Stats().InFlight) >= 2 })
			leave(t, c)
			r.recorded(2, onlyFailure(reason))
			assert.Len(t, r.a.Await(1), 1)
			assert.Empty(t, r.a.Parts())
			assert.Equal(t, "stored", string(r.get("/a/x").Body))
			assert.Equal(t, 1, r.a.Begun(), "nothing is invalidated, nothing was sent")
			assert.Equal(t, 200, r.get("/a/next").Status)
		}
	}
	answered := func(status int) func(*testing.T, *testnet.Client) {
		return func(t *testing.T, c *testnet.Client) {
			resp := c.ReadResponse("POST")
			assert.Equal(t, status, resp.Status)
			assert.Equal(t, "close", resp.Header.Get("Connection"))
			c.Send(testnet.Get("/b/smuggled"))
			rest, _ := c.ReadRest()
			assert.Empty(t, rest)
		}
	}
	const length, most = "Content-Length: 100", "Content-Length: 15000"
	const brief = 50 * time.Millisecond
	return []attackCase{
		{11, "short of a short Content-Length, then FIN", withheld("POST", length, "begun", gateway.ReasonClientClosed, leaveByFIN)},
		{11, "nothing of a short Content-Length, then FIN", withheld("PUT", length, "", gateway.ReasonClientClosed, leaveByFIN)},
		{11, "one byte short of a short Content-Length, then FIN", withheld("DELETE", most, strings.Repeat("b", 14999), gateway.ReasonClientClosed, leaveByFIN)},
		{11, "short of a short Content-Length, then RST", withheld("PUT", length, "begun", gateway.ReasonClientClosed, leaveByRST)},
		{11, "a short Content-Length that stalls", withheld("POST", length, "begun", gateway.ReasonClientBody, answered(400), gateway.WithBodyIdleTimeout(brief))},
		{11, "a short Content-Length that does not come in time", withheld("POST", length, "begun", gateway.ReasonTimeout, answered(504), gateway.WithTimeout(brief))},
		{11, "a short Content-Length that does not come in an attempt's time", withheld("PUT", length, "begun", gateway.ReasonTimeout, answered(504), gateway.WithAttemptTimeout(brief))},
	}
}

// Row 17: GET with content. Its meaning is not in the key: it passes the cache
// by, and goes upstream framed.
func fatGetCases() []attackCase {
	fat := func(method, framing, body string, sent testnet.Framing) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
				answer := testnet.Answer(200, cacheable, "got "+string(req.Body))
				if req.Method == "HEAD" {
					answer = strings.TrimSuffix(answer, "got "+string(req.Body))
				}
				return answer
			})})
			raw := testnet.Build(method, "/a/x", body, framing)
			for n := 1; n <= 2; n++ {
				resp := r.do(raw)
				assert.Equal(t, 200, resp.Status)
				assert.Equal(t, "gateway; fwd=request; detail=body", resp.Header.Get("Cache-Status"))
				journal := r.a.Await(n)
				require.Len(t, journal, n, "not answered from the store, not coalesced")
				framedOnce(t, journal[n-1], sent, "abc")
			}
			assert.Zero(t, r.cache.Stats().Entries)
			assert.Equal(t, "got ", string(r.get("/a/x").Body), "the plain GET has an answer of its own")
			framedOnce(t, r.a.Await(3)[2], testnet.NoBody, "")
			assert.EqualValues(t, 1, r.cache.Stats().Entries)
			assert.Equal(t, 200, r.do(raw).Status)
			assert.Len(t, r.a.Await(4), 4, "not answered by what the plain GET stored")
			assert.Equal(t, "got ", string(r.get("/a/x").Body), "which stays")
			assert.Len(t, r.a.Journal(), 4)
			r.recorded(5, noFailure)
		}
	}
	empty := func(fields, body string) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, cacheable, "stored")})
			tr := r.exchange(testnet.Build("GET", "/a/x", body, fields) + testnet.Get("/a/x", "Connection: close"))
			assert.Equal(t, []int{200, 200}, tr.Statuses())
			assert.Empty(t, r.a.Await(1)[0].Body)
			r.recorded(2, noFailure)
		}
	}
	const chunked = "Transfer-Encoding: chunked"
	return []attackCase{
		{17, "Content-Length", fat("GET", "Content-Length: 3", "abc", testnet.ByLength)},
		{17, "chunks", fat("GET", chunked, testnet.Chunks("abc"), testnet.Chunked)},
		{17, "HEAD with Content-Length", fat("HEAD", "Content-Length: 3", "abc", testnet.ByLength)},
		{17, "HEAD with chunks", fat("HEAD", chunked, testnet.Chunks("abc"), testnet.Chunked)},
		{17, "Content-Length 0 is no body", empty("Content-Length: 0", "")},
		{17, "chunks without content", empty(chunked, testnet.Chunks())},
		{17, "a body that looks like a request stays a body", func(t *testing.T) {
			r := newRig(t, setup{})
			hidden := testnet.Get("/hidden", "Host: evil.test")
			tr := r.exchange(testnet.Build("GET", "/a/x", hidden) + testnet.Get("/b/next", "Connection: close"))
			assert.Equal(t, []int{200, 200}, tr.Statuses())
			require.Len(t, r.a.Await(1), 1)
			framedOnce(t, r.a.Journal()[0], testnet.ByLength, hidden)
			r.recorded(2, noFailure)
		}},
		{17, "an upstream that ignores the body gets no second request out of it", func(t *testing.T) {
			hidden := testnet.Get("/hidden")
			r := newRig(t, setup{script: func(c *testnet.Conn) {
				for req := c.ReadHead(); req != nil; req = c.ReadHead() {
					c.Send(testnet.Answer(200, "", "early"))
				}
			}})
			assert.Equal(t, 200, r.do(testnet.Build("GET", "/a/x", hidden)).Status)
			assert.Equal(t, 200, r.get("/a/next").Status)
			for _, req := range r.a.Await(2) {
				assert.NotEqual(t, "/hidden", req.Target)
			}
			r.recorded(2, noFailure)
		}},
	}
}
