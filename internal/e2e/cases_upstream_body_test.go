package e2e_test

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// Row 77: a trailer section is bounded; beyond that the body has no end.
func trailerCases() []attackCase {
	const chunked = storable + "Transfer-Encoding: chunked"
	chunk := "186a0\r\n" + strings.Repeat("d", 100_000) + "\r\n0\r\n"
	field := "X-T: " + strings.Repeat("v", 1<<10-len("X-T: \r\n")) + "\r\n"
	return []attackCase{
		{77, "20 MB", func(t *testing.T) { truncatedAfter(t, chunked, chunk+strings.Repeat(field, 20<<10)+"\r\n", fin) }},
		{77, "20 MB in one field", func(t *testing.T) {
			truncatedAfter(t, chunked, chunk+"X-T: "+strings.Repeat("v", 20<<20)+"\r\n\r\n", fin)
		}},
		{77, "20 MB, uncacheable", func(t *testing.T) {
			truncatedAfter(t, "Transfer-Encoding: chunked", chunk+strings.Repeat(field, 20<<10)+"\r\n", fin)
		}},
	}
}

// Row 79: a body without end passes in constant memory, and nothing of it is
// kept.
func endlessBodyCases() []attackCase {
	data := strings.Repeat("e", 32<<10)
	chunk := "8000\r\n" + data + "\r\n"
	return []attackCase{
		{79, "chunks", func(t *testing.T) {
			endlessBody(t, testnet.Answer(200, storable+"Transfer-Encoding: chunked", ""), chunk)
		}},
		{79, "to the close", func(t *testing.T) { endlessBody(t, "HTTP/1.1 200 OK\r\n"+storable+"\r\n", data) }},
		{79, "of a length beyond the limit", func(t *testing.T) {
			endlessBody(t, testnet.Answer(200, storable+"Content-Length: 9000000000000000000", ""), data)
		}},
	}
}

func endlessBody(t *testing.T, head, piece string) {
	const limit, passing = 1 << 20, 24 << 20
	r := newRig(t, setup{
		clean: []gateway.CacheOption{gateway.WithMaxBytes(8 << 20), gateway.WithMaxObjectBytes(limit)},
		script: probed(func(c *testnet.Conn) {
			if c.ID > 0 {
				c.Send(testnet.Answer(200, storable+"Connection: close", "short"))
				return
			}
			c.Send(head)
			p := []byte(piece) // a string would be copied each time it is sent
			for {
				if _, err := c.Write(p); err != nil {
					return
				}
			}
		}),
	})
	c := testnet.Dial(t, r.addr)
	c.Send(testnet.Get("/a/x"))
	before := heap()
	discard(t, c, passing)
	s := r.cache.Stats()
	assert.Zero(t, s.Entries)
	assert.LessOrEqual(t, s.Bytes, int64(limit))
	assert.Less(t, heap()-before, int64(4<<20), "what has passed is not held")
	c.Reset()
	r.a.AwaitClosed(1)
	r.counted(onlyFailure(gateway.ReasonClientClosed))
	testnet.Settle(t, "what was reserved is free again", func() bool { return r.cache.Stats().Bytes == 0 })
	assert.Equal(t, 1, r.a.Begun())
	assert.Equal(t, "short", string(r.get("/a/x").Body), "no part of it is served")
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// discard reads n bytes off a client's connection without keeping them.
func discard(t *testing.T, c *testnet.Client, n int64) {
	t.Helper()
	require.NoError(t, c.Conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err := io.CopyN(io.Discard, c.Conn, n)
	require.NoError(t, err)
}

// Row 81: a refusal ends the upload that it refuses. Where its connection closes,
// net/http's transport may see that first, and lose it.
func earlyRefusalCases() []attackCase {
	const gigabyte = 1 << 30
	length := testnet.Build("POST", "/a/x", "", fmt.Sprintf("Content-Length: %d", gigabyte))
	chunked := testnet.Build("POST", "/a/x", "", "Transfer-Encoding: chunked")
	data := strings.Repeat("u", 32<<10)
	chunk := "8000\r\n" + data + "\r\n"
	put := func(raw string) string { return "PUT" + strings.TrimPrefix(raw, "POST") }
	closing := testnet.Answer(413, "Connection: close", "too large")
	staying := testnet.Answer(413, "", "too large")
	return []attackCase{
		{81, "413 and close", func(t *testing.T) { earlyRefusal(t, direct, length, data, closing, false) }},
		{81, "413 and close, chunks", func(t *testing.T) { earlyRefusal(t, direct, chunked, chunk, closing, false) }},
		bothWays(81, "413, and the rest is not read", func(t *testing.T, w way) { earlyRefusal(t, w, length, data, staying, true) }),
		bothWays(81, "413, and the rest is not read, chunks", func(t *testing.T, w way) { earlyRefusal(t, w, chunked, chunk, staying, true) }),
		{81, "413 to a PUT", func(t *testing.T) { earlyRefusal(t, direct, put(length), data, closing, false) }},
		{81, "503 to a PUT that is too large to be sent again", func(t *testing.T) {
			earlyRefusal(t, direct, put(length), data, testnet.Answer(503, "Connection: close", "too large"), false)
		}},
	}
}

// earlyRefusal uploads without end until the connection breaks. The upstream
// answers when it has had 256 KiB.
func earlyRefusal(t *testing.T, w way, head, piece, answer string, stays bool) {
	r := newRig(t, setup{way: w, script: func(c *testnet.Conn) {
		req := c.ReadHead()
		if req == nil || req.Target == "/" {
			c.Send(testnet.Answer(200, "Connection: close", "well"))
			return
		}
		_, _ = io.CopyN(io.Discard, req, 256<<10)
		c.Send(answer)
		if stays {
			c.Pause(5 * time.Second)
		}
	}})
	r.broken = true
	c := testnet.Dial(t, r.addr)
	c.Patience = 2 * time.Second
	uploaded := make(chan int)
	go func() {
		n := 0
		c.Send(head)
		for c.Send(piece) {
			n += len(piece)
		}
		uploaded <- n
	}()
	start := time.Now()
	resp := c.ReadResponse("POST")
	assert.Less(t, time.Since(start), time.Second)
	assert.Contains(t, answer, fmt.Sprintf("HTTP/1.1 %d ", resp.Status))
	assert.Equal(t, testnet.Whole, resp.End)
	assert.Equal(t, "too large", string(resp.Body))
	assert.Equal(t, "close", resp.Header.Get("Connection"))
	n := <-uploaded
	assert.Less(t, n, 64<<20, "the upload was stopped")
	assert.Error(t, c.SendErr())
	r.counted(noFailure)
	assert.Equal(t, 1, r.a.Begun(), "not sent again")
}
