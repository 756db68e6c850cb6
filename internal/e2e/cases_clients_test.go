package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// clientCases are section 10: clients that do not read, or that leave as fast as
// they come.
func clientCases() []attackCase { return append(stalledReaderCases(), rapidResetCases()...) }

const (
	stalledBytes = 50 << 20
	stalledIdle  = 500 * time.Millisecond
)

// stalledRig is a rig whose upstream answers with 50 MB.
func stalledRig(t *testing.T, header string, server func(*http.Server)) *rig {
	data := strings.Repeat("d", 1<<20)
	return newRig(t, setup{server: server, defaults: []gateway.Option{gateway.WithBodyIdleTimeout(stalledIdle)}, script: func(c *testnet.Conn) {
		for req := c.ReadRequest(); req != nil; req = c.ReadRequest() {
			if req.Target != "/large" {
				c.Send(testnet.Answer(200, "", "ok"))
				continue
			}
			c.Send(testnet.Answer(200, header+fmt.Sprintf("Content-Length: %d", stalledBytes), ""))
			for n := 0; n < stalledBytes && c.Send(data); n += len(data) {
			}
		}
	}})
}

// Row 161: a reader that takes nothing of 50 MB is cut off when it has stood
// still for the body idle time, and nobody else notices.
func stalledReaderCases() []attackCase {
	get := testnet.Get("/a/large")
	stall := func(header string, before, after bool) func(*testing.T) { // whether others come before, after
		return func(t *testing.T) {
			r := stalledRig(t, header, nil)
			var all sync.WaitGroup
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			other := func() {
				resp, err := client.Get("http://" + r.addr + "/a/large")
				require.NoError(t, err)
				assert.Equal(t, 200, resp.StatusCode)
				all.Go(func() {
					defer resp.Body.Close()
					n, err := io.Copy(io.Discard, resp.Body)
					assert.NoError(t, err)
					assert.EqualValues(t, stalledBytes, n)
				})
			}
			if before {
				other()
			}
			stalled := testnet.Dial(t, r.addr)
			stalled.Send(get)
			require.Equal(t, 200, stalled.ReadHead("GET").Status)
			since := time.Now()
			if after {
				other()
			}
			all.Wait()
			assert.Equal(t, 200, r.get("/a/small").Status)
			r.counted(onlyFailure(gateway.ReasonClientClosed))
			assert.Less(t, time.Since(since), 10*stalledIdle+time.Second)
			rest, _ := stalled.ReadRest()
			assert.Less(t, len(rest), stalledBytes, "it was cut off")
		}
	}
	return []attackCase{
		{161, "alone", stall("", false, false)},
		{161, "others read their own", stall("", true, true)},
		{161, "it leads others", stall(storable, false, true)},
		{161, "it follows others", stall(storable, true, false)},
		{161, "over HTTP/2, without a window", func(t *testing.T) {
			r := stalledRig(t, "", clearHTTP2)
			c := dialHTTP2(t, r.addr)
			c.send(frame{8, 0, 0, word(1 << 20)}.String()) // of the connection, which one stream would use up
			c.get(1, "/a/large")
			c.get(3, "/b/small")
			assert.True(t, c.until(func(f frame) bool { return f.stream == 3 && f.flags&flagEnd != 0 }), "the other stream goes on")
			assert.True(t, c.until(func(f frame) bool { return f.stream == 1 && f.kind == frameReset }), "it was cut off")
			r.counted(onlyFailure(gateway.ReasonClientClosed))
		}},
	}
}

// clearHTTP2 has a server speak HTTP/2 with prior knowledge.
func clearHTTP2(s *http.Server) {
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
}

// http2Client writes frames by hand.
type http2Client struct {
	net.Conn
	authority string
}

func dialHTTP2(t *testing.T, addr string) *http2Client {
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	c := &http2Client{conn, addr}
	c.send(http2Preface + frame{kind: frameSettings}.String() + frame{kind: frameSettings, flags: flagAck}.String())
	return c
}

func (c *http2Client) send(s string) bool {
	_, err := io.WriteString(c, s)
	return err == nil
}

// head is a GET's, in the coding of RFC 7541.
func (c *http2Client) head(path string) string {
	text := func(s string) string { return string(rune(len(s))) + s }
	return "\x82\x86\x04" + text(path) + "\x01" + text(c.authority)
}

func (c *http2Client) get(stream uint32, path string) bool {
	return c.send(frame{frameHeaders, flagEnd | flagEndHeaders, stream, c.head(path)}.String())
}

// until reads frames up to one.
func (c *http2Client) until(found func(frame) bool) bool {
	for {
		f, ok := readFrame(c)
		if !ok || found(f) {
			return ok
		}
	}
}

// Row 163: a client that resets streams as fast as it opens them (CVE-2023-44487)
// and other floods. What reaches upstreams is bounded, and the others are served.
func rapidResetCases() []attackCase {
	const resets = 2000
	slow := func(c *testnet.Conn) {
		for req := c.ReadRequest(); req != nil; req = c.ReadRequest() {
			if req.Target == "/x" && !c.Pause(50*time.Millisecond) || !c.Send(testnet.Answer(200, "", "ok")) {
				return
			}
		}
	}
	storm := func(cached bool, most int, opts ...gateway.ServiceOption) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{server: clearHTTP2, noCache: !cached, script: slow, a: append(opts, gateway.WithoutRetries())})
			c := dialHTTP2(t, r.addr)
			go func() { _, _ = io.Copy(io.Discard, c) }()
			open := 0
			for n := range uint32(resets) {
				id := 2*n + 1
				if !c.get(id, "/a/x") || !c.send(frame{frameReset, 0, id, word(8)}.String()) {
					break // net/http has had enough
				}
				open = max(open, r.a.Open())
			}
			assert.Equal(t, 200, r.get("/b/x").Status, "others are served")
			_ = c.Close()
			testnet.Settle(t, "all have ended", func() bool { return r.gw.Stats().InFlight == 0 })
			if most > 0 {
				assert.LessOrEqual(t, max(open, r.a.Begun()), most)
			}
			assert.LessOrEqual(t, open, 250, "no more at a time than net/http lets a client have streams")
			assert.LessOrEqual(t, r.a.Begun(), resets)
			r.broken = true // a request may be cut off as it is written
		}
	}
	flood := func(frames func(c *http2Client) string) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{server: clearHTTP2})
			c := dialHTTP2(t, r.addr)
			go func() { _, _ = io.Copy(io.Discard, c) }()
			start := time.Now()
			c.send(frames(c))
			assert.Equal(t, 200, r.get("/a/x").Status, "others are served")
			assert.Less(t, time.Since(start), 2*time.Second)
			assert.LessOrEqual(t, r.a.Begun(), 2)
			r.broken = true // an upload that is cut off
		}
	}
	return []attackCase{
		{163, "rapid reset", storm(false, 0)},
		{163, "rapid reset, through the cache", storm(true, 0)},
		{163, "rapid reset, with a rate limit", storm(false, 60, gateway.WithRateLimit(10, 50))},
		{163, "rapid reset, through the cache, with a rate limit", storm(true, 60, gateway.WithRateLimit(10, 50))},
		{163, "rapid reset, with few connections", storm(false, 0, gateway.WithMaxConns(4))},
		{163, "rapid reset, with few at a time", storm(false, 0, gateway.WithMaxConcurrency(4, 4, 50*time.Millisecond))},
		{163, "a flood of CONTINUATION", flood(func(c *http2Client) string {
			return frame{frameHeaders, flagEnd, 1, c.head("/a/x")}.String() + strings.Repeat(frame{frameContinuation, 0, 1, "\x00\x01a\x01b"}.String(), 50_000)
		})},
		{163, "a flood of empty DATA", flood(func(c *http2Client) string {
			return frame{frameHeaders, flagEndHeaders, 1, "\x83" + c.head("/a/x")[1:]}.String() + strings.Repeat(frame{frameData, 0, 1, ""}.String(), 50_000)
		})},
		{163, "a flood of SETTINGS", flood(func(*http2Client) string { return strings.Repeat(frame{kind: frameSettings}.String(), 20_000) })},
	}
}
