package e2e_test

import (
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// upgradeCases are section 4: Expect, 1xx, Upgrade and event streams.
func upgradeCases() []attackCase {
	var cases []attackCase
	for _, more := range [][]attackCase{
		expectCases(), interimCases(), switchCases(), upgradeBodyCases(), otherUpgradeCases(), ignoredUpgradeCases(), eventStreamCases(),
	} {
		cases = append(cases, more...)
	}
	return cases
}

// counted waits until the gateway has counted exactly these failures, and
// nothing is in flight.
func (r *rig) counted(want map[gateway.Reason]uint64) {
	r.Helper()
	var have gateway.Stats
	testnet.Settle(r, "the failures are counted", func() bool {
		have = r.gw.Stats()
		return have.InFlight == 0 && maps.Equal(have.Errors, want) || r.Failed()
	})
	assert.Equal(r, want, have.Errors)
}

// onlyFailure is what counted wants after one failure.
func onlyFailure(reason gateway.Reason) map[gateway.Reason]uint64 {
	return map[gateway.Reason]uint64{reason: 1}
}

// noFailure is what counted wants after none.
var noFailure = map[gateway.Reason]uint64{}

// probed is a script that answers health probes, and leaves the connection of
// the first other request to script, which is to answer it.
func probed(script func(c *testnet.Conn)) func(*testnet.Conn) {
	return func(c *testnet.Conn) {
		for r := c.ReadRequest(); r != nil; r = c.ReadRequest() {
			if r.Target != "/" {
				script(c)
				return
			}
			c.Send(testnet.Answer(200, "", "well"))
		}
	}
}

// Row 51: an expectation that nobody can meet (RFC 9110 §10.1.1) is refused by
// net/http's server before the gateway is asked.
func expectCases() []attackCase {
	return []attackCase{
		{51, "unknown expectation", func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(testnet.Get("/a/x", "Expect: banana"))
			assert.Equal(t, []int{417}, tr.Statuses())
			assert.Equal(t, testnet.Closed, tr.End)
			assert.Zero(t, r.a.Begun())
			r.counted(noFailure)
		}},
		{51, "unknown expectation with a body", func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(testnet.Build("POST", "/a/x", testnet.Get("/b/smuggled"), "Expect: banana"))
			assert.Equal(t, []int{417}, tr.Statuses())
			assert.Equal(t, testnet.Closed, tr.End)
			assert.Zero(t, r.a.Begun()+r.b.Begun())
			r.counted(noFailure)
		}},
		bothWays(51, "an expectation without content", func(t *testing.T, w way) { // which must not be sent (RFC 9110 §10.1.1)
			r := newRig(t, setup{way: w})
			for _, request := range []string{
				testnet.Get("/a/x", "Expect: 100-continue"), testnet.Build("POST", "/a/x", "", "Expect: 100-continue", "Content-Length: 0"),
			} {
				tr := r.exchange(request)
				assert.Equal(t, []int{200}, tr.Statuses())
				assert.Empty(t, tr.Responses[0].Interim)
			}
			for _, sent := range r.a.Await(2) {
				assert.NotContains(t, sent.Header, "Expect")
			}
			r.counted(noFailure)
		}),
	}
}

// Row 53: interim responses without end are cut after eight, or 64 KiB.
func interimCases() []attackCase {
	hint := testnet.Answer(103, "Link: </style.css>; rel=preload", "")
	bulky := testnet.Answer(103, "Link: <"+strings.Repeat("x", 20<<10)+">", "")
	return []attackCase{
		bothWays(53, "103 for ever", func(t *testing.T, w way) { interimOverflow(t, w, hint, 8) }),
		bothWays(53, "103 of 20 KiB for ever", func(t *testing.T, w way) { interimOverflow(t, w, bulky, 3) }),
		bothWays(53, "102 and 103 in turn", func(t *testing.T, w way) { interimOverflow(t, w, testnet.Answer(102, "", "")+hint, 8) }),
		bothWays(53, "100 for ever is kept from the client", func(t *testing.T, w way) { interimOverflow(t, w, testnet.Answer(100, "", ""), 0) }),
		bothWays(53, "eight are passed on", func(t *testing.T, w way) {
			r := newRig(t, setup{way: w, script: testnet.Replies(strings.Repeat(hint, 8) + testnet.Answer(200, "", "ok"))})
			resp := r.get("/a/x")
			assert.Equal(t, 200, resp.Status)
			require.Len(t, resp.Interim, 8)
			for _, i := range resp.Interim {
				assert.Equal(t, 103, i.Status)
				assert.Equal(t, "</style.css>; rel=preload", i.Header.Get("Link"))
			}
			assert.Empty(t, resp.Header["Link"], "the hints' fields are not the response's")
			r.counted(noFailure)
		}),
	}
}

// interimOverflow has an upstream send interim for ever; relayed of them may
// reach the client.
func interimOverflow(t *testing.T, w way, interim string, relayed int) {
	r := newRig(t, setup{way: w, script: func(c *testnet.Conn) {
		for c.ReadRequest() != nil {
			for c.Send(interim) {
			}
		}
	}})
	resp := r.get("/a/x")
	assert.Equal(t, 502, resp.Status)
	assert.Equal(t, testnet.Whole, resp.End)
	assert.Len(t, resp.Interim, relayed)
	assert.LessOrEqual(t, len(resp.Raw), 64<<10)
	assert.NotContains(t, resp.Header, "Link")
	r.a.AwaitClosed(1)
	assert.Equal(t, 1, r.a.Begun(), "not sent again")
	r.counted(onlyFailure(gateway.ReasonInterimOverflow))
}

// Row 55: a switch of protocols that nobody asked for, or to another than was
// asked for (RFC 9110 §15.2.2).
func switchCases() []attackCase {
	plain := func(answer string) func(*testing.T) {
		return func(t *testing.T) { unwantedSwitch(t, answer, testnet.Get("/a/x")) }
	}
	asked := func(answer string) func(*testing.T) {
		return func(t *testing.T) { unwantedSwitch(t, answer, testnet.WebSocket("/a/x")) }
	}
	return []attackCase{
		{55, "101 to a plain GET", plain("Connection: Upgrade\r\nUpgrade: websocket")},
		{55, "101 to a plain GET, cacheable", plain("Connection: Upgrade\r\nUpgrade: websocket\r\nCache-Control: public, max-age=60")},
		{55, "101 to a plain GET, without Upgrade", plain("Cache-Control: public, max-age=60")},
		{55, "101 to a WebSocket, to h2c", asked("Connection: Upgrade\r\nUpgrade: h2c")},
		{55, "101 to a WebSocket, without Upgrade", asked("")},
		{55, "101 to a WebSocket, to two protocols", asked("Connection: Upgrade\r\nUpgrade: websocket, h2c")},
		{55, "101 to a POST", func(t *testing.T) {
			unwantedSwitch(t, "Connection: Upgrade\r\nUpgrade: websocket", testnet.Build("POST", "/a/x", "body"))
		}},
		{55, "101 to a health probe", func(t *testing.T) {
			r := newRig(t, setup{script: func(c *testnet.Conn) {
				if c.ReadRequest() != nil {
					c.Send(testnet.Answer(101, "Connection: Upgrade\r\nUpgrade: websocket", ""))
					c.Wait()
				}
			}})
			report := &recorder{header: http.Header{}}
			request, err := http.NewRequest(http.MethodGet, "/health", nil)
			require.NoError(t, err)
			r.gw.HealthHandler().ServeHTTP(report, request)
			assert.Equal(t, 200, report.status)
			assert.Contains(t, report.body.String(), `"output":"bad answer: status 101"`)
			r.a.AwaitClosed(1)
		}},
		{55, "a tunnel is not left open by a refused WebSocket", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(403, "", "no")})
			tr := r.exchange(testnet.WebSocket("/a/x") + testnet.Get("/b/next"))
			assert.Equal(t, []int{403, 200}, tr.Statuses(), "what follows is the client's own next request")
			assert.Equal(t, "/next", r.b.Await(1)[0].Target)
			assert.Len(t, r.a.Await(1), 1)
			r.counted(noFailure)
		}},
	}
}

func unwantedSwitch(t *testing.T, fields, request string) {
	r := newRig(t, setup{script: func(c *testnet.Conn) {
		if c.ReadRequest() != nil {
			c.Send(testnet.Answer(101, fields, "") + testnet.Answer(200, "Cache-Control: public, max-age=60", "stowaway"))
			c.Wait()
		}
	}})
	for n := 1; n <= 2; n++ { // the second finds nothing stored
		resp := r.do(request)
		assert.Equal(t, 502, resp.Status)
		assert.Empty(t, resp.Header["Upgrade"])
		assert.NotContains(t, string(resp.Body), "stowaway")
		r.a.AwaitClosed(n)
		assert.Equal(t, n, r.a.Begun(), "not sent again")
	}
	assert.Zero(t, r.cache.Stats().Entries)
	r.counted(map[gateway.Reason]uint64{gateway.ReasonBadResponse: 2})
}

// Row 57: a WebSocket handshake with a body could hide a request in what one
// side takes for the body and the other for the tunnel.
func upgradeBodyCases() []attackCase {
	hidden := testnet.Get("/b/hidden")
	refuse := func(raw string) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{script: testnet.EchoWebSocket})
			tr := r.exchange(raw)
			require.Equal(t, []int{400}, tr.Statuses())
			assert.Zero(t, r.a.Begun()+r.b.Begun())
			r.counted(onlyFailure(gateway.ReasonBadRequest))
		}
	}
	return []attackCase{
		{57, "Content-Length", refuse(testnet.WebSocket("/a/x", "Content-Length: "+strconv.Itoa(len(hidden))) + hidden)},
		{57, "Transfer-Encoding", refuse(testnet.WebSocket("/a/x", "Transfer-Encoding: chunked") + testnet.Chunks(hidden))},
		{57, "Transfer-Encoding, no chunk", refuse(testnet.WebSocket("/a/x", "Transfer-Encoding: chunked") + testnet.Chunks())},
		{57, "body and Expect", refuse(testnet.WebSocket("/a/x", "Content-Length: 4", "Expect: 100-continue") + "body")},
		{57, "Content-Length 0 is no body", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.EchoWebSocket})
			c := testnet.Dial(t, r.addr)
			resp := c.Do(testnet.WebSocket("/a/x", "Content-Length: 0"))
			require.Equal(t, 101, resp.Status)
			assert.Equal(t, testnet.WebSocketAccept, resp.Header.Get("Sec-Websocket-Accept"))
			c.Close()
			assert.NotContains(t, r.a.Await(1)[0].Header, "Content-Length")
			r.counted(noFailure)
		}},
	}
}

// Row 59: whatever else a client offers to switch to is as if not offered.
func otherUpgradeCases() []attackCase {
	serve := func(fields ...string) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(testnet.Get("/a/x", fields...))
			assert.Equal(t, []int{200}, tr.Statuses())
			assert.Equal(t, testnet.Quiet, tr.End, "no tunnel: the connection is ready for the next request")
			servedPlainly(t, r)
		}
	}
	return []attackCase{
		{59, "h2c", serve("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")},
		{59, "h2c, settings not nominated", serve("Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")},
		{59, "h2c, Upgrade not nominated", serve("Upgrade: h2c")},
		{59, "TLS/1.0", serve("Connection: Upgrade", "Upgrade: TLS/1.0")},
		{59, "foo", serve("Connection: Upgrade", "Upgrade: foo")},
		{59, "websocket, h2c", serve("Connection: Upgrade", "Upgrade: websocket, h2c")},
		{59, "h2c, websocket", serve("Connection: Upgrade", "Upgrade: h2c, websocket")},
		{59, "websocket and h2c in two lines", serve("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c")},
		{59, "websocket twice", serve("Connection: Upgrade", "Upgrade: websocket", "Upgrade: websocket")},
		{59, "websocket with a version", serve("Connection: Upgrade", "Upgrade: websocket/13")},
		{59, "websocket with a comma", serve("Connection: Upgrade", "Upgrade: websocket,")},
		{59, "websocket, not nominated", serve("Upgrade: websocket")},
		{59, "websocket, nominated in part", serve("Connection: Upgrades, xUpgrade", "Upgrade: websocket")},
		{59, "websocket in underscores", serve("Connection: Upgrade", "Upgrade_: websocket")},
		{59, "empty", serve("Connection: Upgrade", "Upgrade: ")},
		{59, "WebSocket in other letters is one", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.EchoWebSocket})
			c := testnet.Dial(t, r.addr)
			resp := c.Do(testnet.Get("/a/x", "Connection: keep-alive, uPGRADE", "Upgrade: WebSocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: "+testnet.WebSocketKey))
			require.Equal(t, 101, resp.Status)
			c.Close()
			sent := r.a.Await(1)[0]
			assert.Equal(t, "websocket", sent.Header.Get("Upgrade"))
			assert.Equal(t, "Upgrade", sent.Header.Get("Connection"))
			r.counted(noFailure)
		}},
	}
}

// servedPlainly checks that one request reached a, and that nothing in it asks
// for another protocol.
func servedPlainly(t *testing.T, r *rig) {
	t.Helper()
	journal := r.a.Await(1)
	require.Len(t, journal, 1)
	for name := range journal[0].Header {
		assert.NotContains(t, strings.ToLower(name), "upgrade")
		assert.NotEqual(t, "Http2-Settings", name)
	}
	assert.NotContains(t, strings.ToLower(field(journal[0], "Connection")), "upgrade")
	r.counted(noFailure)
}

// Row 61: Upgrade means nothing in HTTP/1.0 (RFC 9110 §7.8), nor with a method
// that WebSocket does not know (RFC 6455 §4.1).
func ignoredUpgradeCases() []attackCase {
	const offer = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + testnet.WebSocketKey + "\r\n"
	ignore := func(method, target, proto, more string) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(method + " " + target + " " + proto + "\r\nHost: gateway.test\r\n" + offer + more)
			require.Equal(t, []int{200}, tr.Statuses())
			servedPlainly(t, r)
			assert.Equal(t, method, r.a.Journal()[0].Method)
		}
	}
	return []attackCase{
		{61, "HTTP/1.0", ignore("GET", "/a/x", "HTTP/1.0", "\r\n")},
		{61, "POST", ignore("POST", "/a/x", "HTTP/1.1", "Content-Length: 4\r\n\r\nbody")},
		{61, "POST without a body", ignore("POST", "/a/x", "HTTP/1.1", "\r\n")},
		{61, "HEAD", ignore("HEAD", "/a/x", "HTTP/1.1", "\r\n")},
		{61, "PUT", ignore("PUT", "/a/x", "HTTP/1.1", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")},
	}
}
