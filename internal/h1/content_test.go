package h1

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// contentRow is a response and what comes of it.
type contentRow struct {
	name   string
	method string // empty: GET
	raw    string
	then   string // fin: the connection ends

	fails    error // Do, with this
	status   int   // 0: 200
	content  string
	length   int64
	unframed bool
	breaks   error // the content, with this
	trailers http.Header
	left     Discard // empty: the connection is kept
	surplus  bool
}

const fin = "fin"

// contentTable is RFC 9112 §6.3, rule by rule, and what becomes of the
// connection (§9.3).
var contentTable = []contentRow{
	// 1. HEAD, 1xx, 204 and 304 have no content, whatever their fields say.
	{name: "HEAD with a length", method: "HEAD", raw: "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", length: 7},
	{name: "HEAD that is chunked", method: "HEAD", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
	{name: "HEAD with neither", method: "HEAD", raw: "HTTP/1.1 200 OK\r\n\r\n"},
	{name: "HEAD with content", method: "HEAD", raw: okay, length: 2, surplus: true, left: DiscardSurplus},
	{name: "204", raw: "HTTP/1.1 204 No Content\r\n\r\n", status: 204},
	{name: "204 with a length", raw: "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", status: 204},
	{name: "204 with content", raw: "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", status: 204, surplus: true, left: DiscardSurplus},
	{name: "204 that is chunked (§6.1)", raw: "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", fails: errCodingEmpty, left: DiscardError},
	{name: "304 with a length", raw: "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", status: 304, length: 2},
	{name: "304 that is chunked", raw: "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", status: 304},
	{name: "304 with content", raw: "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok", status: 304, length: 2, surplus: true, left: DiscardSurplus},
	{name: "1xx with content", raw: "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nok" + okay, fails: errStatusLine, left: DiscardError},
	{name: "1xx with a length", raw: "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n" + okay, content: "ok", length: 2},

	// 3. Both fields: ought to be handled as an error.
	{name: "both", raw: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", fails: errBoth, left: DiscardError},
	{name: "both, to HEAD", method: "HEAD", raw: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", fails: errBoth, left: DiscardError},

	// 4. Chunked, and that alone.
	{name: "chunked", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3;x=\"y\"\r\nay!\r\n0\r\n\r\n", content: "okay!", length: -1},
	{name: "chunked, nothing", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", length: -1},
	{name: "chunked, with a trailer section", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\nX-Other: 1\r\nX-Other: 2\r\n\r\n",
		content: "ok", length: -1, trailers: http.Header{"X-Sum": {"7"}, "X-Other": {"1", "2"}}},
	{name: "chunked, with a trailer section that has other meanings (RFC 9110 §6.5.1)", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\nSet-Cookie: a=b\r\nCache-Control: no-store\r\n\r\n",
		length: -1, trailers: http.Header{"Content-Length": {"9"}, "Set-Cookie": {"a=b"}, "Cache-Control": {"no-store"}}},
	{name: "not chunked at last", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", fails: errCoding, left: DiscardError},
	{name: "chunked at last", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", fails: errCoding, left: DiscardError},
	{name: "chunked twice", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", fails: errCoding, left: DiscardError},
	{name: "identity", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", fails: errCoding, left: DiscardError},
	{name: "chunked in HTTP/1.0 (§6.1)", raw: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", fails: errCodingOld, left: DiscardError},

	// 5. A length that is none, and lengths that differ.
	{name: "differing lengths", raw: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", fails: errLengths, left: DiscardError},
	{name: "differing lengths in a list", raw: "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok", fails: errLengths, left: DiscardError},
	{name: "equal lengths", raw: "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nok", content: "ok", length: 2},
	{name: "a length with a sign", raw: "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", fails: errLength, left: DiscardError},
	{name: "an empty length", raw: "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", fails: errLength, left: DiscardError},

	// 6. A length.
	{name: "a length of zero", raw: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	{name: "a length", raw: okay, content: "ok", length: 2},

	// 8. Otherwise until the connection is closed: nothing proves that this is all.
	{name: "until the end", raw: "HTTP/1.1 200 OK\r\n\r\nok", then: fin, content: "ok", length: -1, unframed: true, left: DiscardNotReusable},
	{name: "nothing until the end", raw: "HTTP/1.1 200 OK\r\n\r\n", then: fin, length: -1, unframed: true, left: DiscardNotReusable},
	{name: "until the end, of HTTP/1.0", raw: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nok", then: fin, content: "ok", length: -1, unframed: true, left: DiscardNotReusable},

	// §8: what breaks off is incomplete.
	{name: "shorter than its length", raw: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", then: fin, content: "ok", length: 3, breaks: io.ErrUnexpectedEOF, left: DiscardError},
	{name: "nothing of its length", raw: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", then: fin, length: 3, breaks: io.ErrUnexpectedEOF, left: DiscardError},
	{name: "between chunks", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", then: fin, content: "ok", length: -1, breaks: io.ErrUnexpectedEOF, left: DiscardError},
	{name: "in a chunk", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok", then: fin, content: "ok", length: -1, breaks: io.ErrUnexpectedEOF, left: DiscardError},
	{name: "before the trailer section", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", then: fin, content: "ok", length: -1, breaks: io.ErrUnexpectedEOF, left: DiscardError},
	{name: "in the trailer section", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n", then: fin, content: "ok", length: -1, breaks: io.ErrUnexpectedEOF, left: DiscardError},
	{name: "in the header", raw: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", then: fin, fails: io.EOF, left: DiscardError},
	{name: "at once", raw: "", then: fin, fails: io.EOF, left: DiscardError},

	// §7.1: chunks that are none.
	{name: "a size that is none", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n-1\r\n", content: "ok", length: -1, breaks: errChunkSize, left: DiscardError},
	{name: "a size in bare LF", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n", length: -1, breaks: errChunkLine, left: DiscardError},
	{name: "a chunk that goes on", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", content: "ok", length: -1, breaks: errChunkEnd, left: DiscardError},
	{name: "a trailer that is none", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX\r\n\r\n", content: "ok", length: -1, breaks: errName, left: DiscardError},

	// §11.2: what comes behind a response answers nobody.
	{name: "more than its length", raw: okay + "x", content: "ok", length: 2, surplus: true, left: DiscardSurplus},
	{name: "another response", raw: okay + okay, content: "ok", length: 2, surplus: true, left: DiscardSurplus},
	{name: "more than the last chunk", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n0\r\n\r\n", content: "ok", length: -1, surplus: true, left: DiscardSurplus},
	{name: "more than nothing", raw: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\r\n", surplus: true, left: DiscardSurplus},

	// §9.3: whether it persists.
	{name: "close", raw: "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok", content: "ok", length: 2, left: DiscardNotReusable},
	{name: "HTTP/1.0", raw: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", content: "ok", length: 2, left: DiscardNotReusable},
	{name: "HTTP/1.0 that stays", raw: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", content: "ok", length: 2},

	// RFC 9110 §15: a status has three digits, the first of them 1 to 5.
	{name: "status 099", raw: "HTTP/1.1 099 No\r\nContent-Length: 2\r\n\r\nok", fails: errStatus, left: DiscardError},
	{name: "status 600", raw: "HTTP/1.1 600 No\r\nContent-Length: 2\r\n\r\nok", fails: errStatus, left: DiscardError},
	{name: "status 999", raw: "HTTP/1.1 999 No\r\nContent-Length: 2\r\n\r\nok", fails: errStatus, left: DiscardError},
	{name: "status 599", raw: "HTTP/1.1 599 \r\nContent-Length: 2\r\n\r\nok", status: 599, content: "ok", length: 2},
	{name: "no HTTP", raw: "SSH-2.0-OpenSSH\r\n", fails: errStatusLine, left: DiscardError},
}

func TestContent(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		for _, row := range contentTable {
			for _, trickle := range []bool{false, true} {
				sent := make(chan struct{}, 10)
				p := newPeer(t, secure, row.answer(trickle, sent))
				cl := p.client(t, Config{})
				for _, read := range []int{0, 1, 7} {
					if trickle || read == 0 {
						checkContent(t, cl, row, read, sent)
					}
				}
			}
		}
	})
}

// answer is a script, which may send byte by byte. It says when all is sent.
func (row contentRow) answer(trickle bool, sent chan<- struct{}) func(*peerConn) {
	return func(c *peerConn) {
		for c.head() != "" {
			if !trickle {
				c.send(row.raw)
			}
			for i := range row.raw {
				if trickle && !c.send(row.raw[i:i+1]) {
					break
				}
			}
			sent <- struct{}{}
			if row.then == fin {
				return
			}
		}
	}
}

// checkContent makes one exchange, which is read by Next or by so much.
func checkContent(t *testing.T, cl *Client, row contentRow, read int, sent <-chan struct{}) {
	before := cl.Stats()
	x := newExchange(t, row.method)
	if row.method == "" {
		x.Method = "GET"
	}
	late := false
	x.OnSurplus(func() { late = true })
	err := cl.Do(x)
	if row.fails != nil {
		require.ErrorIs(t, err, row.fails, row.name)
	} else {
		require.NoError(t, err, row.name)
		status := row.status
		if status == 0 {
			status = 200
		}
		require.Equal(t, []any{status, row.length, !row.unframed}, []any{x.Status, x.ContentLength, x.Framed}, row.name)
		require.NotContains(t, x.Header, "X-Sum", row.name)
		checkRead(t, x, row, read)
	}
	x.Close()
	<-sent
	after := cl.Stats()
	require.Zero(t, after.InUse, row.name)
	switch {
	case row.surplus && after.Idle == 1: // it came later than the end
		fetchAnything(cl, newExchange(t, "HEAD"))
		<-sent
		require.True(t, late, row.name)
	case row.left == "":
		require.EqualValues(t, 1, after.Idle, row.name)
	default:
		require.Zero(t, after.Idle, row.name)
		require.Equal(t, before.Discards[row.left]+1, after.Discards[row.left], "%s: %v", row.name, after.Discards)
		require.Equal(t, row.surplus, x.Surplus(), row.name)
	}
	require.True(t, x.Free())
}

func checkRead(t *testing.T, x *Exchange, row contentRow, read int) {
	var got strings.Builder
	var err error
	for err == nil {
		var piece []byte
		if read == 0 {
			piece, err = x.Next()
		} else {
			piece = make([]byte, read)
			var n int
			n, err = x.Read(piece)
			piece = piece[:n]
		}
		got.Write(piece)
	}
	want := row.breaks
	if want == nil {
		want = io.EOF
	}
	require.ErrorIs(t, err, want, row.name)
	require.Equal(t, row.content, got.String(), row.name)
	if row.breaks == nil {
		trailers := x.Trailers
		maps.DeleteFunc(trailers, func(_ string, values []string) bool { return values == nil })
		require.Equal(t, len(row.trailers), len(trailers), row.name)
		for name, values := range row.trailers {
			require.Equal(t, values, trailers[name], row.name)
		}
		_, err = x.Next()
		require.Equal(t, io.EOF, err, row.name)
	}
	if broken, ok := errors.AsType[*BrokenError](err); ok {
		require.True(t, broken.Heard && !broken.Unsent, row.name)
	}
}

// fetchAnything is an exchange whose outcome does not matter.
func fetchAnything(cl *Client, x *Exchange) {
	if cl.Do(x) == nil {
		content(x)
	}
	x.Close()
}

// Announced trailers are there before the content, without values.
func TestTrailersAreAnnounced(t *testing.T) {
	t.Parallel()
	p := newPeer(t, false, answering("HTTP/1.1 200 OK\r\nTrailer: x-one, X-Two,, not a token\r\nTrailer: X-Three\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Two: 2\r\n\r\n"))
	x := newExchange(t, "GET")
	defer x.Close()
	require.NoError(t, p.client(t, Config{}).Do(x))
	require.Equal(t, http.Header{"X-One": nil, "X-Two": nil, "X-Three": nil}, x.Trailers)
	_, err := content(x)
	require.NoError(t, err)
	require.Equal(t, http.Header{"X-One": nil, "X-Two": {"2"}, "X-Three": nil}, x.Trailers)
}

// A reset is an error wherever it comes, also where a close would be the end.
func TestResetIsNoEnd(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		for _, raw := range []string{
			"HTTP/1.1 200 OK\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
		} {
			read := make(chan struct{}, 1)
			p := newPeer(t, secure, func(c *peerConn) {
				c.head()
				c.send(raw)
				<-read
				c.reset()
			})
			cl := p.client(t, Config{})
			x := newExchange(t, "GET")
			require.NoError(t, cl.Do(x))
			piece, err := x.Next()
			require.NoError(t, err)
			require.Equal(t, "ok", string(piece))
			read <- struct{}{}
			for err == nil {
				_, err = x.Next()
			}
			var broken *BrokenError
			require.ErrorAs(t, err, &broken, raw)
			require.True(t, broken.Heard)
			require.False(t, broken.Unsent)
			x.Close()
			require.EqualValues(t, 1, cl.Stats().Discards[DiscardError])
		}
	})
}

// A piece outlives its connection: another exchange on it does not write into
// what was given out.
func TestPieceIsTheReaders(t *testing.T) {
	t.Parallel()
	var n int
	p := newPeer(t, false, func(c *peerConn) {
		for c.head() != "" {
			n++
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + strings.Repeat(string(rune('a'+n)), 5))
		}
	})
	cl := p.client(t, Config{})
	x := newExchange(t, "GET")
	require.NoError(t, cl.Do(x))
	piece, err := x.Next()
	require.NoError(t, err)
	require.EqualValues(t, 1, cl.Stats().Idle, "the connection is free with the last piece")
	require.Equal(t, "ccccc", fetch(t, cl))
	require.Equal(t, "bbbbb", string(piece))
	x.Close()
	require.Equal(t, 1, p.accepted())
}

// What is left unread takes the connection along, what cannot come does not.
func TestUnreadContent(t *testing.T) {
	t.Parallel()
	for raw, kept := range map[string]bool{
		okay: false,
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":               true,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n": false,
		"HTTP/1.1 204 No Content\r\n\r\n":                            true,
	} {
		cl := newPeer(t, false, answering(raw)).client(t, Config{})
		x := newExchange(t, "GET")
		require.NoError(t, cl.Do(x))
		x.Close()
		x.Close()
		require.Equal(t, kept, cl.Stats().Idle == 1, raw)
		require.Zero(t, cl.Stats().InUse)
	}
}

func TestSwitchedProtocol(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		p := newPeer(t, secure, func(c *peerConn) {
			c.head()
			c.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nContent-Length: 5\r\n\r\nearly")
			io.Copy(c, c.r)
		})
		cl := p.client(t, Config{})
		x := newExchange(t, "GET")
		require.NoError(t, cl.Do(x))
		require.Equal(t, 101, x.Status)
		require.EqualValues(t, -1, x.ContentLength)
		_, err := x.Next()
		require.ErrorIs(t, err, errSwitched)
		tunnel := x.Switched()
		x.Close()
		x.Abort(io.ErrClosedPipe) // it is not x's any more
		buf := make([]byte, 5)
		_, err = io.ReadFull(tunnel, buf)
		require.NoError(t, err)
		require.Equal(t, "early", string(buf))
		_, err = io.WriteString(tunnel, "hello")
		require.NoError(t, err)
		_, err = io.ReadFull(tunnel, buf)
		require.NoError(t, err)
		require.Equal(t, "hello", string(buf))
		require.EqualValues(t, 1, cl.Stats().InUse, "it keeps its place")
		require.NoError(t, tunnel.(interface{ CloseWrite() error }).CloseWrite())
		_, err = io.ReadAll(tunnel)
		require.NoError(t, err)
		tunnel.Close()
		tunnel.Close()
		require.Zero(t, cl.Stats().Open)
	})
}
