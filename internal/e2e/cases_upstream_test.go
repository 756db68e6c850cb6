package e2e_test

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// upstreamCases are section 5: upstreams that lie, break or go slow.
func upstreamCases() []attackCase {
	var cases []attackCase
	for _, more := range [][]attackCase{
		unsentTruncationCases(), sentTruncationCases(), closeDelimitedCases(), reasonCases(), spacedFieldCases(),
		surplusCases(), largeHeaderCases(), trailerCases(), endlessBodyCases(), earlyRefusalCases(),
	} {
		cases = append(cases, more...)
	}
	return cases
}

const storable = "Cache-Control: public, max-age=60\r\n"

// How an upstream ends its connection.
var (
	fin = (*testnet.Conn).Close
	rst = (*testnet.Conn).Reset
)

// Row 65, nothing sent to the client yet: a response that breaks off is one
// that never came.
func unsentTruncationCases() []attackCase {
	none := testnet.Answer(200, storable+"Content-Length: 100", "")
	uncacheable := strings.Replace(none, storable, "", 1)
	whole := testnet.Answer(200, storable+"Connection: close\r\n", strings.Repeat("w", 100))
	return []attackCase{
		{65, "0 of 100 bytes, GET is sent again", func(t *testing.T) { truncatedOnce(t, "GET", none, whole, fin) }},
		{65, "0 of 100 bytes, uncacheable GET is sent again", func(t *testing.T) { truncatedOnce(t, "GET", uncacheable, whole, fin) }},
		{65, "0 of 100 bytes and a reset, GET is sent again", func(t *testing.T) { truncatedOnce(t, "GET", none, whole, rst) }},
		{65, "0 of 100 bytes, DELETE is sent again", func(t *testing.T) { truncatedOnce(t, "DELETE", none, whole, fin) }},
		{65, "0 of 100 bytes, POST is not", func(t *testing.T) { truncatedAlways(t, testnet.Build("POST", "/a/x", "body"), none, 1) }},
		{65, "0 of 100 bytes each time", func(t *testing.T) { truncatedAlways(t, testnet.Get("/a/x"), none, 2) }},
		{65, "HEAD has no body to break off", func(t *testing.T) {
			r := newRig(t, setup{script: breakingOff(testnet.Answer(200, "Connection: close\r\nContent-Length: 100", ""), fin)})
			resp := r.do(testnet.Build("HEAD", "/a/x", ""))
			assert.Equal(t, 200, resp.Status)
			assert.Equal(t, "100", resp.Header.Get("Content-Length"))
			assert.Equal(t, 1, r.a.Begun())
			r.counted(noFailure)
		}},
	}
}

// truncatedAlways has every response break off before its body.
func truncatedAlways(t *testing.T, request, part string, attempts int) {
	r := newRig(t, setup{script: breakingOff(part, fin), defaults: []gateway.Option{gateway.WithRetries(1)}})
	resp := r.do(request)
	assert.Equal(t, 502, resp.Status)
	assert.Equal(t, testnet.Whole, resp.End)
	assert.Equal(t, attempts, r.a.Begun())
	assert.Zero(t, r.cache.Stats().Entries)
	assert.Zero(t, r.cache.Stats().Bytes)
	r.counted(onlyFailure(gateway.ReasonTruncated))
}

// breakingOff sends an answer and ends the connection, whatever is missing.
func breakingOff(answer string, end func(*testnet.Conn)) func(*testnet.Conn) {
	return probed(func(c *testnet.Conn) {
		c.Send(answer)
		end(c)
	})
}

// truncatedOnce has the first response break off and the second come whole.
func truncatedOnce(t *testing.T, method, part, whole string, end func(*testnet.Conn)) {
	r := newRig(t, setup{script: probed(func(c *testnet.Conn) {
		if c.ID == 0 {
			c.Send(part)
			end(c)
			return
		}
		c.Send(whole)
	})})
	resp := r.do(testnet.Build(method, "/a/x", ""))
	assert.Equal(t, 200, resp.Status)
	assert.Equal(t, testnet.Whole, resp.End)
	assert.Equal(t, strings.Repeat("w", 100), string(resp.Body))
	assert.Equal(t, 2, r.a.Begun())
	assert.EqualValues(t, 1, r.gw.Stats().Retries)
	r.counted(noFailure)
}

// Row 65, the response has begun: the client sees that it broke off.
func sentTruncationCases() []attackCase {
	const length = storable + "Content-Length: 300000"
	const chunked = storable + "Transfer-Encoding: chunked"
	data := strings.Repeat("d", 100_000)
	chunk := "186a0\r\n" + data + "\r\n"
	short := testnet.Answer(200, storable+"Content-Length: 100", "0123456789")
	cases := []attackCase{
		{65, "10 of 100 bytes", func(t *testing.T) { tenOfHundred(t, short, fin) }},
		{65, "10 of 100 bytes, uncacheable", func(t *testing.T) { tenOfHundred(t, strings.Replace(short, storable, "", 1), fin) }},
	}
	for _, c := range []struct {
		what, header, body string
	}{
		{"of a length", length, data},
		{"between chunks", chunked, chunk},
		{"inside a chunk", chunked, chunk + "186a0\r\nxyz"},
		{"inside a chunk's size", chunked, chunk + "186"},
		{"behind a chunk's data", chunked, chunk + "3\r\nxyz"},
		{"before the trailer's end", chunked, chunk + "0\r\n"},
		{"inside the trailer", chunked, chunk + "0\r\nX-Sum: 1\r\n"},
		{"at a malformed chunk size", chunked, chunk + "xyz\r\n"},
		{"at an overlong chunk size", chunked, chunk + "fffffffffffffffff\r\n"},
		{"at a bare CR in the trailer", chunked, chunk + "0\r\nX-Sum: 1\r2\r\n\r\n"},
		{"at a bare LF in the trailer", chunked, chunk + "0\r\nX-Sum: 1\n\r\n"},
		{"at a malformed trailer", chunked, chunk + "0\r\nno colon\r\n\r\n"},
	} {
		cases = append(cases, attackCase{65, "body breaks off " + c.what, func(t *testing.T) { truncatedAfter(t, c.header, c.body, fin) }})
		cases = append(cases, attackCase{65, "body is reset " + c.what, func(t *testing.T) { truncatedAfter(t, c.header, c.body, rst) }})
		uncacheable := strings.TrimPrefix(c.header, storable)
		cases = append(cases, attackCase{65, "uncacheable body breaks off " + c.what, func(t *testing.T) { truncatedAfter(t, uncacheable, c.body, fin) }})
	}
	return cases
}

// tenOfHundred has a body of 100 bytes break off after ten.
func tenOfHundred(t *testing.T, part string, end func(*testnet.Conn)) {
	r := newRig(t, setup{script: breakingOff(part, end)})
	resp := r.get("/a/x")
	assert.Equal(t, 200, resp.Status)
	assert.Equal(t, "0123456789", string(resp.Body))
	assert.Equal(t, testnet.Truncated, resp.End)
	r.counted(onlyFailure(gateway.ReasonTruncated))
	assert.Equal(t, 1, r.a.Begun(), "not sent again")
	assert.Zero(t, r.cache.Stats().Entries)
	assert.Zero(t, r.cache.Stats().Bytes)
}

// truncatedAfter has an upstream send the beginning of a body, the first
// 100,000 bytes of which reach the client, and then end.
func truncatedAfter(t *testing.T, header, body string, end func(*testnet.Conn)) {
	seen := make(chan struct{})
	r := newRig(t, setup{script: probed(func(c *testnet.Conn) {
		if c.ID > 0 {
			c.Send(testnet.Answer(200, "Connection: close", "whole"))
			return
		}
		c.Send(testnet.Answer(200, header, body))
		receive(seen)
		end(c)
	})})
	c := testnet.Dial(t, r.addr)
	c.Send(testnet.Get("/a/x"))
	resp := c.ReadHead("GET")
	require.Equal(t, 200, resp.Status)
	readAtLeast(resp, 64<<10)
	close(seen)
	restOf(resp)
	assert.Equal(t, testnet.Truncated, resp.End)
	assert.Empty(t, strings.Trim(strings.TrimSuffix(string(resp.Body), "xyz"), "d"), "no text of ours in the body")
	r.counted(onlyFailure(gateway.ReasonTruncated))
	assert.Equal(t, 1, r.a.Begun(), "not sent again")
	assert.Zero(t, r.cache.Stats().Entries)
	assert.Zero(t, r.cache.Stats().Bytes)
	assert.Equal(t, "whole", string(r.get("/a/x").Body))
}

// readAtLeast reads n bytes of a body, or what there is.
func readAtLeast(resp *testnet.Response, n int64) {
	p := make([]byte, 32<<10)
	for resp.Size < n {
		if _, err := resp.Read(p); err != nil {
			return
		}
	}
}

// Row 67: the end of a connection proves nothing (RFC 9112 §8). What came is
// delivered, and never stored.
func closeDelimitedCases() []attackCase {
	const ok10, ok11 = "HTTP/1.0 200 OK\r\n", "HTTP/1.1 200 OK\r\n"
	return []attackCase{
		{67, "HTTP/1.1", func(t *testing.T) { closeDelimited(t, testnet.Upstream, ok11+storable+"\r\nbody", fin) }},
		{67, "HTTP/1.0", func(t *testing.T) { closeDelimited(t, testnet.Upstream, ok10+storable+"\r\nbody", fin) }},
		{67, "HTTP/1.2", func(t *testing.T) {
			closeDelimited(t, testnet.Upstream, "HTTP/1.2 200 OK\r\n"+storable+"\r\nbody", fin)
		}},
		{67, "TLS", func(t *testing.T) { closeDelimited(t, testnet.UpstreamTLS, ok11+storable+"\r\nbody", fin) }},
		{67, "TLS without close_notify", func(t *testing.T) {
			closeDelimited(t, testnet.UpstreamTLS, ok11+storable+"\r\nbody", (*testnet.Conn).Cut)
		}},
		{67, "reset", func(t *testing.T) { closeDelimitedReset(t, ok11+storable+"\r\nbody", "body") }},
		{67, "reset, HTTP/1.0", func(t *testing.T) { closeDelimitedReset(t, ok10+storable+"\r\nbody", "body") }},
		{67, "reset before the body", func(t *testing.T) { closeDelimitedReset(t, ok11+storable+"\r\n", "") }},
		{67, "TLS cut inside a length", func(t *testing.T) {
			r := newTLSRig(t, breakingOff(testnet.Answer(200, storable+"Content-Length: 300000", strings.Repeat("d", 100_000)), (*testnet.Conn).Cut))
			resp := r.get("/a/x")
			assert.Equal(t, testnet.Truncated, resp.End)
			assert.Zero(t, r.cache.Stats().Entries)
			r.counted(onlyFailure(gateway.ReasonTruncated))
		}},
		{67, "TLS cut behind the last chunk loses nothing", func(t *testing.T) {
			r := newTLSRig(t, breakingOff(testnet.Answer(200, storable+"Connection: close\r\nTransfer-Encoding: chunked", testnet.Chunks("body")), (*testnet.Conn).Cut))
			assert.Equal(t, "body", string(r.get("/a/x").Body))
			testnet.Settle(t, "it is stored", func() bool { return r.cache.Stats().Entries == 1 })
			assert.Equal(t, "body", string(r.get("/a/x").Body))
			assert.Equal(t, 1, r.a.Begun())
			r.counted(noFailure)
		}},
	}
}

func newTLSRig(t *testing.T, script func(*testnet.Conn)) *rig {
	up := testnet.UpstreamTLS(t, script)
	return newRig(t, setup{up: up, a: []gateway.ServiceOption{gateway.WithTLSConfig(&tls.Config{RootCAs: up.Pool, MinVersion: tls.VersionTLS12})}})
}

// closeDelimited gets a body twice, and both times from the upstream.
func closeDelimited(t *testing.T, upstream func(testing.TB, func(*testnet.Conn)) *testnet.Up, answer string, end func(*testnet.Conn)) {
	up := upstream(t, breakingOff(answer, end))
	s := setup{up: up}
	if up.Pool != nil {
		s.a = []gateway.ServiceOption{gateway.WithTLSConfig(&tls.Config{RootCAs: up.Pool, MinVersion: tls.VersionTLS12})}
	}
	r := newRig(t, s)
	for n := 1; n <= 2; n++ {
		resp := r.get("/a/x")
		assert.Equal(t, 200, resp.Status)
		assert.Equal(t, "body", string(resp.Body))
		assert.Equal(t, testnet.Whole, resp.End)
		assert.Equal(t, testnet.Chunked, resp.Framing)
		assert.Contains(t, resp.Header.Get("Cache-Status"), "detail=unframed")
		assert.Equal(t, n, r.a.Begun())
	}
	assert.Zero(t, r.cache.Stats().Entries)
	r.counted(noFailure)
}

// closeDelimitedReset has the connection reset once the client has seen what
// there is: it must not take that for all.
func closeDelimitedReset(t *testing.T, answer, body string) {
	seen := make(chan struct{})
	r := newRig(t, setup{script: probed(func(c *testnet.Conn) {
		c.Send(answer)
		receive(seen)
		c.Reset()
	})})
	c := testnet.Dial(t, r.addr)
	c.Send(testnet.Get("/a/x"))
	resp := c.ReadHead("GET")
	require.Equal(t, 200, resp.Status)
	readAtLeast(resp, int64(len(body)))
	close(seen)
	restOf(resp)
	assert.Equal(t, testnet.Truncated, resp.End)
	assert.Equal(t, body, string(resp.Body))
	assert.Zero(t, r.cache.Stats().Entries)
	assert.Equal(t, 1, r.a.Begun(), "not sent again")
	r.counted(onlyFailure(gateway.ReasonTruncated))
}
