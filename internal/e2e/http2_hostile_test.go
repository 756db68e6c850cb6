package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

const framePing, framePush, frameWindow, framePriority = 6, 5, 8, 2

// What else a server of HTTP/2 may do to an exchange, and what the client is told.
func TestHostileHTTP2Servers(t *testing.T) {
	const (
		noError, internal, refused, cancel = 0, 2, 7, 8
		none                               = ""
		length5                            = "\x0f\x0d\x015"
		status204, status304               = "\x89", "\x8b"
	)
	head := func(s uint32, flags byte, fields string) string {
		return frame{frameHeaders, flags | flagEndHeaders, s, fields}.String()
	}
	data := func(s uint32, flags byte, p string) string { return frame{frameData, flags, s, p}.String() }
	reset := func(s, code uint32) string { return frame{frameReset, 0, s, word(code)}.String() }
	goAway := func(last, code uint32) string { return frame{frameGoAway, 0, 0, word(last, code)}.String() }
	window := func(s, n uint32) string { return frame{frameWindow, 0, s, word(n)}.String() }
	all := func(s uint32) string { return head(s, 0, status200) + data(s, flagEnd, "hello") }
	send := func(raw func(s uint32) string) func(*testnet.Conn, uint32) {
		return func(c *testnet.Conn, s uint32) { c.Send(raw(s)) }
	}
	flood := func(before func(s uint32) string, again func(s uint32) string) func(*testnet.Conn, uint32) {
		return func(c *testnet.Conn, s uint32) {
			c.Send(before(s))
			for raw := strings.Repeat(again(s), 100); c.Send(raw); {
			}
		}
	}
	silent := func(uint32) string { return "" }
	for _, tt := range []struct {
		what    string
		respond func(c *testnet.Conn, s uint32)
		method  string // GET unless said
		status  int
		reason  gateway.Reason
		broken  bool // the connection is cut
	}{
		{"all in order", send(all), "", 200, none, false},
		{"RST_STREAM(NO_ERROR) behind all", send(func(s uint32) string { return all(s) + reset(s, noError) }), "", 200, none, false},
		{"RST_STREAM(INTERNAL_ERROR) behind all", send(func(s uint32) string { return all(s) + reset(s, internal) }), "", 200, none, false},
		{"RST_STREAM(NO_ERROR) first", send(func(s uint32) string { return reset(s, noError) }), "", 502, gateway.ReasonUpstreamFailed, false},
		{"RST_STREAM(CANCEL) behind the header", send(func(s uint32) string { return head(s, 0, status200) + reset(s, cancel) }), "", 200, gateway.ReasonTruncated, true},
		{"RST_STREAM(NO_ERROR) behind the header", send(func(s uint32) string { return head(s, 0, status200) + reset(s, noError) }), "", 200, gateway.ReasonTruncated, true},
		{"RST_STREAM(REFUSED_STREAM) behind the header", send(func(s uint32) string { return head(s, 0, status200) + reset(s, refused) }), "", 200, gateway.ReasonTruncated, true},
		{"RST_STREAM behind the header, of a length", send(func(s uint32) string { return head(s, 0, status200+length5) + reset(s, cancel) }), "", 502, gateway.ReasonTruncated, false},
		{"RST_STREAM in the content", send(func(s uint32) string { return head(s, 0, status200) + data(s, 0, "hel") + reset(s, noError) }), "", 200, gateway.ReasonTruncated, true},
		{"RST_STREAM of no stream", send(func(uint32) string { return reset(0, cancel) }), "", 502, gateway.ReasonUpstreamFailed, false},
		{"GOAWAY for later streams, and all", send(func(s uint32) string { return goAway(s, noError) + all(s) }), "", 200, none, false},
		{"GOAWAY twice, and all", send(func(s uint32) string { return goAway(1<<31-1, noError) + goAway(s, noError) + all(s) }), "", 200, none, false},
		{"GOAWAY behind the header that leaves it out", send(func(s uint32) string { return head(s, 0, status200) + goAway(0, noError) }), "", 200, gateway.ReasonTruncated, true},
		{"GOAWAY with an error, in the content", func(c *testnet.Conn, s uint32) {
			c.Send(head(s, 0, status200) + data(s, 0, "hel") + goAway(s, internal))
			c.Close()
		}, "", 200, gateway.ReasonTruncated, true},
		{"more than the length", send(func(s uint32) string { return head(s, 0, status200+length5) + data(s, flagEnd, "hello!") }), "", 200, gateway.ReasonTruncated, true},
		{"less than the length", send(func(s uint32) string { return head(s, 0, status200+length5) + data(s, flagEnd, "hell") }), "", 200, gateway.ReasonTruncated, true},
		{"nothing of a length", send(func(s uint32) string { return head(s, flagEnd, status200+length5) }), "", 502, gateway.ReasonTruncated, false},
		{"a 204 with content", send(func(s uint32) string { return head(s, 0, status204) + data(s, flagEnd, "hello") }), "", 204, none, false},
		{"a HEAD with content", send(all), "HEAD", 200, none, false},
		{"trailers with a pseudo-header", send(func(s uint32) string {
			return head(s, 0, status200) + data(s, 0, "hello") + head(s, flagEnd, status200)
		}), "", 200, gateway.ReasonTruncated, true},
		{"trailers that do not end", send(func(s uint32) string {
			return head(s, 0, status200) + data(s, 0, "hello") + head(s, 0, "\x00\x01a\x01b")
		}), "", 200, gateway.ReasonTruncated, true},
		{"content behind the trailers", send(func(s uint32) string {
			return head(s, 0, status200) + data(s, 0, "hello") + head(s, flagEnd, "\x00\x01a\x01b") + data(s, flagEnd, "more")
		}), "", 200, none, false},
		{"content behind the end", send(func(s uint32) string { return all(s) + data(s, flagEnd, "more") }), "", 200, none, false},
		{"a header behind the end", send(func(s uint32) string { return all(s) + head(s, flagEnd, status200) }), "", 200, none, false},
		{"a push (RFC 9113 §6.6)", send(func(s uint32) string { return frame{framePush, flagEndHeaders, s, word(2) + "\x82\x84\x86"}.String() }), "", 502, gateway.ReasonUpstreamFailed, false},
		{"an answer to what was not asked", send(func(s uint32) string { return head(s+2, 0, status200) + data(s+2, flagEnd, "x") }), "", 502, gateway.ReasonUpstreamFailed, false},
		{"WINDOW_UPDATE of nothing, on the stream", send(func(s uint32) string { return window(s, 0) }), "", 502, gateway.ReasonBadResponse, false},
		{"WINDOW_UPDATE of nothing", send(func(uint32) string { return window(0, 0) }), "", 502, gateway.ReasonUpstreamFailed, false},
		{"WINDOW_UPDATE beyond the window, on the stream", send(func(s uint32) string { return window(s, 1<<31-1) + window(s, 1<<31-1) }), "", 502, gateway.ReasonBadResponse, false},
		{"WINDOW_UPDATE beyond the window", send(func(uint32) string { return window(0, 1<<31-1) + window(0, 1<<31-1) }), "", 502, gateway.ReasonUpstreamFailed, false},
		{"content beyond the window", func(c *testnet.Conn, s uint32) {
			c.Send(head(s, 0, status200))
			for raw := data(s, 0, strings.Repeat("x", 16<<10)); c.Send(raw); {
			}
		}, "", 200, gateway.ReasonTruncated, true},
		{"padding that is longer than its frame", send(func(s uint32) string { return head(s, 0, status200) + frame{frameData, 8, s, "\xffx"}.String() }), "", 200, gateway.ReasonTruncated, true},
		{"a flood of PING", flood(silent, func(uint32) string { return frame{framePing, 0, 0, "12345678"}.String() }), "", 502, gateway.ReasonBadResponse, false},
		{"a flood of PING, in the content", flood(func(s uint32) string { return head(s, 0, status200) }, func(uint32) string { return frame{framePing, 0, 0, "12345678"}.String() }), "", 200, gateway.ReasonTruncated, true},
		{"a flood of answers to no PING", flood(silent, func(uint32) string { return frame{framePing, flagAck, 0, "12345678"}.String() }), "", 502, gateway.ReasonBadResponse, false},
		{"a flood of SETTINGS", flood(silent, func(uint32) string { return frame{kind: frameSettings}.String() }), "", 502, gateway.ReasonBadResponse, false},
		{"a flood of empty DATA", flood(func(s uint32) string { return head(s, 0, status200) }, func(s uint32) string { return data(s, 0, "") }), "", 200, gateway.ReasonTruncated, true},
		{"a flood of padding", flood(func(s uint32) string { return head(s, 0, status200) }, func(s uint32) string { return frame{frameData, 8, s, "\x03\x00\x00\x00"}.String() }), "", 200, gateway.ReasonTimeout, true},
		{"a flood of PRIORITY", flood(silent, func(s uint32) string { return frame{framePriority, 0, s, word(0) + "\x00"}.String() }), "", 502, gateway.ReasonBadResponse, false},
		{"a flood of unknown frames", flood(silent, func(s uint32) string { return frame{0xee, 0, s, "x"}.String() }), "", 502, gateway.ReasonBadResponse, false},
		{"a flood of 1xx", flood(silent, func(s uint32) string { return head(s, 0, "\x08\x03103") }), "", 502, gateway.ReasonInterimOverflow, false},
		{"a flood of WINDOW_UPDATE", flood(silent, func(s uint32) string { return window(s, 1) }), "", 504, gateway.ReasonTimeout, false},
		{"silence", send(silent), "", 504, gateway.ReasonTimeout, false},
	} {
		for _, method := range []string{"GET", "POST"} {
			if tt.method != "" && method == "POST" {
				continue
			}
			if tt.method != "" {
				method = tt.method
			}
			t.Run(tt.what+", "+method, func(t *testing.T) {
				t.Parallel()
				up, requests := http2Upstream(t, "", func(c *testnet.Conn, _ int, s uint32) { tt.respond(c, s) })
				e := newEngine(t, up.URL, gateway.WithHTTP2(), gateway.WithoutRetries(), gateway.WithoutBreaker(), gateway.WithoutEjection(),
					gateway.WithTimeout(2*time.Second), gateway.WithBodyIdleTimeout(2*time.Second))
				c := testnet.Dial(t, strings.TrimPrefix(e.url, "http://"))
				body := ""
				if method == "POST" {
					body = "body"
				}
				resp := c.Do(testnet.Build(method, "/a/x", body))
				if !tt.broken || resp.Status != 0 { // what there was may be on its way still
					assert.Equal(t, tt.status, resp.Status, "%s", resp.Body)
				}
				if tt.broken {
					assert.NotEqual(t, testnet.Whole, resp.End)
				} else {
					assert.Equal(t, testnet.Whole, resp.End)
				}
				if tt.reason == none && method != "HEAD" && tt.status == 200 {
					assert.Equal(t, "hello", string(resp.Body))
				}
				want := noFailure
				if tt.reason != none {
					want = onlyFailure(tt.reason)
				}
				testnet.Settle(t, "it is over", func() bool { return e.stats().InFlight == 0 })
				assert.Equal(t, want, e.gw.Stats().Errors)
				assert.LessOrEqual(t, requests.Load(), int64(1))
			})
		}
	}
}
