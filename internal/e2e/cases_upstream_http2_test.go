package e2e_test

import (
	"encoding/binary"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// A frame of HTTP/2 (RFC 9113 §4.1).
type frame struct {
	kind    byte
	flags   byte
	stream  uint32
	payload string
}

const (
	frameData, frameHeaders, frameReset, frameSettings, frameGoAway, frameContinuation = 0, 1, 3, 4, 7, 9

	flagEnd, flagAck, flagEndHeaders = 1, 1, 4

	http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	status200    = "\x88" // RFC 7541, appendix A
)

func (f frame) String() string {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(f.payload)))
	head = append(head[1:], f.kind, f.flags)
	return string(binary.BigEndian.AppendUint32(head, f.stream)) + f.payload
}

func readFrame(r io.Reader) (f frame, ok bool) {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, false
	}
	payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	_, err := io.ReadFull(r, payload)
	return frame{head[3], head[4], binary.BigEndian.Uint32(head[5:]) & 0x7fffffff, string(payload)}, err == nil
}

func word(ns ...uint32) string {
	var b []byte
	for _, n := range ns {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return string(b)
}

// http2Upstream is a server of HTTP/2 with prior knowledge: respond gets each
// request, by its number over all connections, once its content is there.
func http2Upstream(t *testing.T, settings string, respond func(c *testnet.Conn, n int, stream uint32)) (up *testnet.Up, requests *atomic.Int64) {
	requests = new(atomic.Int64)
	return testnet.Upstream(t, func(c *testnet.Conn) {
		if c.ReadN(len(http2Preface)) != http2Preface {
			return
		}
		c.Send(frame{kind: frameSettings, payload: settings}.String())
		for {
			f, ok := readFrame(c)
			switch {
			case !ok:
				return
			case f.kind == frameSettings && f.flags&flagAck == 0:
				c.Send(frame{kind: frameSettings, flags: flagAck}.String())
			case (f.kind == frameHeaders || f.kind == frameData) && f.flags&flagEnd != 0:
				respond(c, int(requests.Add(1)), f.stream)
			}
		}
	}), requests
}

func answerHTTP2(c *testnet.Conn, stream uint32) {
	c.Send(frame{frameHeaders, flagEndHeaders, stream, status200}.String() + frame{frameData, flagEnd, stream, "ok"}.String())
}

// Row 87: what a server of HTTP/2 may do. What it has refused was not processed,
// and goes again whatever the method (RFC 9113 §8.7); all else is a failure, at a
// bounded price.
func http2Cases() []attackCase {
	const refusedStream, internal, enhanceYourCalm = 7, 2, 11
	var cases []attackCase
	for what, refuse := range map[string]func(c *testnet.Conn, stream uint32){
		"REFUSED_STREAM":     func(c *testnet.Conn, s uint32) { c.Send(frame{frameReset, 0, s, word(refusedStream)}.String()) },
		"GOAWAY":             func(c *testnet.Conn, _ uint32) { c.Send(frame{frameGoAway, 0, 0, word(0, 0)}.String()) },
		"GOAWAY and the end": func(c *testnet.Conn, _ uint32) { c.Send(frame{frameGoAway, 0, 0, word(0, 0)}.String()); c.Close() },
	} {
		for _, request := range []string{
			testnet.Get("/a/x"), testnet.Build("POST", "/a/x", "body"), testnet.Build("PATCH", "/a/x", ""), testnet.Build("DELETE", "/a/x", ""),
		} {
			method, _, _ := strings.Cut(request, " ")
			cases = append(cases, attackCase{87, what + ", " + method, func(t *testing.T) {
				up, requests := http2Upstream(t, "", func(c *testnet.Conn, n int, stream uint32) {
					if n == 1 {
						refuse(c, stream)
						return
					}
					answerHTTP2(c, stream)
				})
				e := newEngine(t, up.URL, gateway.WithHTTP2(), quickRetries)
				resp := testnet.Do(t, strings.TrimPrefix(e.url, "http://"), request)
				assert.Equal(t, 200, resp.Status, "%s", resp.Body)
				assert.EqualValues(t, 2, requests.Load())
				assert.EqualValues(t, 1, e.gw.Stats().Retries)
			}})
		}
	}
	reset := func(code uint32) func(*testnet.Conn, int, uint32) {
		return func(c *testnet.Conn, _ int, stream uint32) {
			c.Send(frame{frameReset, 0, stream, word(code)}.String())
		}
	}
	for _, tt := range []struct {
		what     string
		settings string
		respond  func(c *testnet.Conn, n int, stream uint32)
	}{
		{"SETTINGS_MAX_FRAME_SIZE=0 (CVE-2026-33814)", "\x00\x05" + word(0), func(c *testnet.Conn, _ int, stream uint32) { answerHTTP2(c, stream) }},
		{"RST_STREAM", "", reset(internal)},
		{"RST_STREAM, for calm", "", reset(enhanceYourCalm)},
		{"a storm of RST_STREAM", "", func(c *testnet.Conn, _ int, _ uint32) {
			for id := uint32(1); id < 100_000 && c.Send(frame{frameReset, 0, id, word(internal)}.String()); id += 2 {
			}
		}},
		{"a flood of CONTINUATION (CVE-2023-45288)", "", func(c *testnet.Conn, _ int, stream uint32) {
			for ok := c.Send(frame{frameHeaders, 0, stream, status200}.String()); ok; {
				ok = c.Send(frame{frameContinuation, 0, stream, strings.Repeat("\x88", 16<<10)}.String())
			}
		}},
		{"a flood of SETTINGS", "", func(c *testnet.Conn, _ int, stream uint32) {
			for n := 0; n < 10_000 && c.Send(frame{kind: frameSettings}.String()); n++ {
			}
			c.Send(frame{frameReset, 0, stream, word(internal)}.String())
		}},
		{"half a frame", "", func(c *testnet.Conn, _ int, stream uint32) {
			c.Send(frame{frameHeaders, flagEndHeaders, stream, status200}.String()[:7])
			c.Close()
		}},
		{"HTTP/1.1", "", func(c *testnet.Conn, _ int, _ uint32) { c.Send(testnet.Answer(200, "", "ok")) }},
	} {
		cases = append(cases, attackCase{87, tt.what, func(t *testing.T) {
			up, requests := http2Upstream(t, tt.settings, tt.respond)
			e := newEngine(t, up.URL, gateway.WithHTTP2(), quickRetries, gateway.WithTimeout(5*time.Second), gateway.WithoutBreaker(), gateway.WithoutEjection())
			start := time.Now()
			for n := range int64(3) {
				status, _, _ := e.do("POST", "/")
				assert.Equal(t, 502, status)
				assert.LessOrEqual(t, requests.Load(), n+1, "it may have been processed: it is not sent again")
			}
			status, _, _ := e.do("GET", "/")
			assert.Equal(t, 502, status)
			assert.LessOrEqual(t, requests.Load(), int64(6))
			assert.Less(t, time.Since(start), 3*time.Second, "and with it what of the processors it takes")
			assert.Zero(t, e.stats().InFlight)
		}})
	}
	return cases
}
