package h1

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// segments is a connection on which data comes in pieces, and then the end.
type segments struct {
	net.Conn
	data   []byte
	cuts   []byte // the length of each piece, one at least; after the last one all comes at once
	closed bool
}

func (s *segments) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := len(s.data)
	if len(s.cuts) > 0 {
		n, s.cuts = min(n, 1+int(s.cuts[0])), s.cuts[1:]
	}
	n = copy(p, s.data[:n])
	s.data = s.data[n:]
	return n, nil
}

func (s *segments) Write(p []byte) (int, error)      { return len(p), nil }
func (s *segments) Close() error                     { s.closed = true; return nil }
func (s *segments) RemoteAddr() net.Addr             { return nil }
func (s *segments) SetDeadline(time.Time) error      { return nil }
func (s *segments) SetReadDeadline(time.Time) error  { return nil }
func (s *segments) SetWriteDeadline(time.Time) error { return nil }

// second is what the connection after that one answers.
const second = "HTTP/1.1 299 Second\r\nContent-Length: 6\r\n\r\nsecond"

// The rules by which this package refuses what net/http takes. Each is a row of
// a table beside its rule.
var stricter = []ProtocolError{
	errHeadTooLarge, errFields, // bounds
	errStatusLine,                   // "HTTP/1.1  200", "HTTP/1.1 200x", "HTTP/2.0 200"
	errStatus,                       // 000 to 099, 600 to 999
	errBoth,                         // net/http prefers chunked
	errCodingOld,                    // net/http ignores it
	errCodingEmpty,                  // the same
	errCoding,                       // HEAD, 304: net/http does not look
	errObscured, errBareCR, errName, // what others may misread
	errLength, errLengths, // the same, where net/http does not look
	errChunkLine, errChunkSize, // LF alone, white space before the size
	errChunkLong, errChunkExcess, // bounds
	errChunkLarge,                  // more than 63 bits
	errTrailerLine, errTrailerSize, // LF alone; bounds
	errLineEnd, errFold, errChunkEnd, // what net/http may not have read yet
}

// got is what was read of a response.
type got struct {
	status   int
	header   http.Header
	content  string
	trailers http.Header
	err      error // of the head or of the content
	head     bool  // the head was accepted
	rest     int   // bytes behind the response; negative: unknown
}

// FuzzExchange feeds an exchange with what a peer may send, in any pieces. It
// never panics and never hangs, what it accepts net/http's client reads the same
// in, and what it refuses of what that accepts is on the list of stricter rules.
// Whatever came, the next exchange gets an answer of its own.
func FuzzExchange(f *testing.F) {
	for i, row := range contentTable {
		f.Add([]byte(row.raw), []byte{byte(i), 3}, row.method == "HEAD", byte(i%9))
	}
	for _, tt := range headTable {
		if len(tt.raw) < 1000 {
			f.Add([]byte(wire(tt.raw)+"\r\nok"), []byte{}, false, byte(0))
		}
	}
	for _, tt := range fieldTable {
		f.Add([]byte(wire("HTTP/1.1 200 OK\n"+tt.raw)+"\r\nok"), []byte{0, 0, 0}, false, byte(1))
	}
	f.Fuzz(func(t *testing.T, data, cuts []byte, head bool, read byte) {
		hang := time.AfterFunc(5*time.Second, func() { panic(fmt.Sprintf("it hangs: %q, %v, read by %d", data, cuts, read)) })
		defer hang.Stop()
		method := "GET"
		if head {
			method = "HEAD"
		}
		ours := exchangeOver(t, data, cuts, method, int(read))
		theirs := readByNetHTTP(tidyAll(data), method)
		switch {
		case ours.err == nil && theirs.head && len(ours.trailers) > 0 && theirs.err != nil:
			require.Equal(t, theirs.content, ours.content) // a trailer section that is not tidy, which a header may be, too
		case ours.err == nil:
			require.NoError(t, theirs.err, "%q", data)
			sameResponse(t, data, ours, theirs)
		case theirs.err == nil:
			var rule ProtocolError
			require.ErrorAs(t, ours.err, &rule, "%q", data)
			require.Contains(t, stricter, rule)
		}
	})
}

// exchangeOver has one exchange over a connection with data, and another one
// after it.
func exchangeOver(t *testing.T, data, cuts []byte, method string, read int) (g got) {
	conns := []*segments{{data: bytes.Clone(data), cuts: cuts}, {data: []byte(second)}}
	dials := 0
	cl := New(Config{Pool: PoolConfig{Dial: func(context.Context) (net.Conn, error) {
		dials++
		return conns[dials-1], nil
	}}})
	x := &Exchange{Context: t.Context(), Method: method, Path: "/", Host: "up", Uploads: new(sync.WaitGroup)}
	x.Observer = &interims{most: 9}
	late := false
	x.OnSurplus(func() { late = true })
	g.err = cl.Do(x)
	g.head, g.rest = g.err == nil, -1
	switched := g.head && x.Status == http.StatusSwitchingProtocols
	if g.head && !switched {
		g.content, g.err = contentBy(x, read)
	}
	g.status, g.header, g.trailers = x.Status, x.Header, x.Trailers
	if switched {
		x.Switched().Close()
	}
	left := len(conns[0].data)
	x.Close()
	if g.err != nil {
		require.True(t, conns[0].closed, "a connection in doubt is not kept")
	}

	next := &Exchange{Context: t.Context(), Method: "GET", Path: "/", Host: "up", Uploads: new(sync.WaitGroup)}
	require.NoError(t, cl.Do(next))
	require.Equal(t, 299, next.Status, "it got another one's answer")
	text, err := content(next)
	require.NoError(t, err)
	require.Equal(t, "second", text)
	next.Close()
	if g.err == nil && !switched && x.Framed && !x.Surplus() && left > 0 && x.reusable {
		require.True(t, late, "nobody heard of what came too much")
	}
	if g.err == nil && !switched {
		g.rest = left
		if x.Surplus() {
			g.rest = max(left, 1)
		}
	}
	cl.Close()
	require.Zero(t, cl.Stats().Open)
	return g
}

// contentBy reads by Next or by so much, and never waits for ever.
func contentBy(x *Exchange, read int) (string, error) {
	if read == 0 {
		return content(x)
	}
	var b strings.Builder
	p := make([]byte, read)
	for {
		n, err := x.Read(p)
		b.Write(p[:n])
		if err == io.EOF {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
	}
}

// readByNetHTTP reads a response as net/http's client does, over interim ones.
func readByNetHTTP(data []byte, method string) (g got) {
	r := bufio.NewReader(bytes.NewReader(data))
	for n := 0; ; n++ {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return got{err: err}
		}
		if resp.StatusCode < 200 && resp.StatusCode >= 100 && resp.StatusCode != http.StatusSwitchingProtocols {
			if n == 8 {
				return got{err: os.ErrInvalid}
			}
			continue
		}
		g.head, g.status, g.header = true, resp.StatusCode, resp.Header
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return g
		}
		body, err := io.ReadAll(resp.Body)
		g.content, g.err, g.trailers = string(body), err, resp.Trailer
		g.rest = r.Buffered()
		return g
	}
}

// tidyAll is tidy for each head at the start of data.
func tidyAll(data []byte) []byte {
	var all []byte
	for {
		end := scanHead(data, 0)
		var h head
		if end == 0 || h.parse(bytes.Clone(data[:end]), http.Header{}, headLimits) != nil {
			return append(all, data...)
		}
		head := tidy(data[:end], h.status)
		if h.length >= 0 { // which may be there more than once
			line, fields, _ := bytes.Cut(framingOf.ReplaceAll(head, nil), lf)
			head = fmt.Appendf(nil, "%s\nContent-Length: %d\r\n%s", line, h.length, fields)
		}
		all = append(all, head...)
		data = data[end:]
		if h.status >= 200 || h.status == http.StatusSwitchingProtocols {
			return append(all, data...)
		}
	}
}

// sameResponse compares what both have read.
func sameResponse(t *testing.T, data []byte, ours, theirs got) {
	require.Equal(t, theirs.status, ours.status, "%q", data)
	if ours.status == http.StatusSwitchingProtocols {
		return
	}
	require.Equal(t, theirs.content, ours.content, "%q", data)
	require.Equal(t, theirs.rest > 0, ours.rest > 0, "%q: both end at the same byte", data)
	trailers := map[string][]string{}
	for name, values := range theirs.trailers { // net/http leaves white space in front of the colon to the name (RFC 9112 §5.1)
		name = http.CanonicalHeaderKey(strings.TrimRight(name, " \t"))
		trailers[name] = append(trailers[name], values...)
	}
	for name, values := range trailers {
		have := slices.Clone(ours.trailers[name])
		slices.Sort(values) // of two names that are one nobody knows the order
		slices.Sort(have)
		if len(values) > 0 {
			sameValues(t, values, have, data)
		}
	}
	skip := []string{"Content-Length", "Transfer-Encoding", "Trailer", "Connection"} // which net/http takes away, or adds to
	for name, values := range theirs.header {
		if !slices.Contains(skip, name) {
			sameValues(t, values, ours.header[http.CanonicalHeaderKey(name)], data)
		}
	}
	for name := range ours.header {
		require.True(t, slices.Contains(skip, name) || theirs.header[name] != nil || name == "Pragma", "%q in %q", name, data)
	}
}

// sameValues compares values but for white space: control bytes and folded lines
// have become that.
func sameValues(t *testing.T, want, have []string, data []byte) {
	blank := func(values []string) []string {
		values = slices.Clone(values)
		for i, v := range values {
			values[i] = strings.Join(strings.FieldsFunc(v, func(c rune) bool { return c <= ' ' || c == 0x7f }), " ")
		}
		return values
	}
	require.Equal(t, blank(want), blank(have), "%q", data)
}
