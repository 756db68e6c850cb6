package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// fieldSection is one without compression (RFC 7541 §6.2.2): names and values
// in turn.
func fieldSection(namesAndValues ...string) string {
	var b strings.Builder
	for i, s := range namesAndValues {
		if i%2 == 0 {
			b.WriteByte(0)
		}
		b.WriteString(string(rune(len(s))) + s) // less than 127 bytes
	}
	return b.String()
}

// What comes over HTTP/2 and would be another message, or several, over HTTP/1.1
// (RFC 9113 §10.3) is no message for the service at all, or the one that was meant.
func TestHTTP2RequestsOverHTTP1(t *testing.T) {
	const smuggled = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, tt := range []struct {
		what    string
		fields  []string // beside those of a POST for /a/x
		data    []string // each a frame; the last one ends
		trailer []string
		target  string // that the service sees; empty: none
		body    string
		perhaps bool // it may be reset before
	}{
		{what: "in order", data: []string{"bo", "dy"}, target: "/x", body: "body"},
		{what: "with a length", fields: []string{"content-length", "4"}, data: []string{"body"}, target: "/x", body: "body"},
		{what: "less than the length", fields: []string{"content-length", "40"}, data: []string{"body"}},
		{what: "more than the length", fields: []string{"content-length", "3"}, data: []string{"body"}},
		{what: "a length of nothing, and content", fields: []string{"content-length", "0"}, data: []string{smuggled}, target: "/x", perhaps: true},
		{what: "a long length", fields: []string{"content-length", "40000"}, data: []string{strings.Repeat("x", 10_000), smuggled}},
		{what: "two lengths", fields: []string{"content-length", "4", "content-length", "5"}, data: []string{"body"}}, // of which net/http's server believes the first
		{what: "the same length twice", fields: []string{"content-length", "4", "content-length", "4"}, data: []string{"body"}, target: "/x", body: "body"},
		{what: "a length that is none, and nothing", fields: []string{"content-length", "four"}, data: []string{""}}, // which it takes for 0
		{what: "two lengths, and content for the second", fields: []string{"content-length", "4", "content-length", "5"}, data: []string{"bodyX"}},
		{what: "a length with a sign", fields: []string{"content-length", "+4"}, data: []string{"body"}},
		{what: "Transfer-Encoding", fields: []string{"transfer-encoding", "chunked"}, data: []string{"0\r\n\r\n" + smuggled}},
		{what: "Connection", fields: []string{"connection", "close"}, data: []string{"body"}},
		{what: "Upgrade", fields: []string{"upgrade", "h2c"}, data: []string{"body"}},
		{what: "TE", fields: []string{"te", "chunked"}, data: []string{"body"}},
		{what: "a line in a value", fields: []string{"x-a", "b\r\nTransfer-Encoding: chunked"}, data: []string{"body"}},
		{what: "a line in a name", fields: []string{"x-a: b\r\nx-c", "d"}, data: []string{"body"}},
		{what: "a colon in a name", fields: []string{"x-a:b", "c"}, data: []string{"body"}},
		{what: "a space in a name", fields: []string{"transfer-encoding ", "chunked"}, data: []string{"body"}},
		{what: "a name in capitals", fields: []string{"X-A", "b"}, data: []string{"body"}},
		{what: "a second authority", fields: []string{"host", "evil.test"}, data: []string{"body"}, target: "/x", body: "body"},
		{what: "a pseudo-header behind the others", fields: []string{"x-a", "b", ":path", "/a/evil"}, data: []string{"body"}},
		{what: "an unknown pseudo-header", fields: []string{":evil", "x"}, data: []string{"body"}},
		{what: "an extended CONNECT (RFC 8441)", fields: []string{":protocol", "websocket"}, data: []string{"body"}},
		{what: "trailers", data: []string{"body"}, trailer: []string{"x-sum", "1"}, target: "/x", body: "body"},
		{what: "trailers that frame", data: []string{"body"}, trailer: []string{"content-length", "5", "transfer-encoding", "chunked", "host", "evil.test"}, target: "/x", body: "body"},
		{what: "trailers that authorize", data: []string{"body"}, trailer: []string{"authorization", "Bearer evil"}, target: "/x", body: "body"},
		{what: "trailers with a line in them", data: []string{"body"}, trailer: []string{"x-sum", "1\r\n\r\n" + smuggled}},
		{what: "trailers with a pseudo-header", data: []string{"body"}, trailer: []string{":path", "/a/evil"}},
	} {
		for _, way := range []way{direct, tripped} {
			t.Run(fmt.Sprintf("%s, %s", tt.what, way), func(t *testing.T) {
				r := newRig(t, setup{server: clearHTTP2, way: way, a: []gateway.ServiceOption{gateway.WithoutRetries()}})
				r.broken = tt.target == "" || tt.perhaps
				c := dialHTTP2(t, r.addr)
				section := fieldSection(append([]string{":method", "POST", ":scheme", "http", ":path", "/a/x", ":authority", r.addr}, tt.fields...)...)
				if len(tt.fields) > 0 && strings.HasPrefix(tt.fields[0], ":") {
					section = fieldSection(append(tt.fields[:2:2], ":method", "POST", ":scheme", "http", ":path", "/a/x", ":authority", r.addr)...)
				}
				raw := frame{frameHeaders, flagEndHeaders, 1, section}.String()
				for i, d := range tt.data {
					flags := byte(0)
					if i == len(tt.data)-1 && tt.trailer == nil {
						flags = flagEnd
					}
					raw += frame{frameData, flags, 1, d}.String()
				}
				if tt.trailer != nil {
					raw += frame{frameHeaders, flagEnd | flagEndHeaders, 1, fieldSection(tt.trailer...)}.String()
				}
				c.send(raw)
				answered := ""
				c.until(func(f frame) bool {
					if f.stream == 1 && f.kind == frameHeaders && answered == "" {
						answered = f.payload
					}
					return f.kind == frameGoAway || f.stream == 1 && (f.flags&flagEnd != 0 && f.kind < 2 || f.kind == frameReset)
				})
				testnet.Settle(t, "all have ended", func() bool { return r.gw.Stats().InFlight == 0 })
				for _, req := range r.a.Journal() {
					assert.Equal(t, tt.target, req.Target)
					assert.Equal(t, tt.body, string(req.Body))
					assert.Equal(t, []string{"Bearer " + tokenA}, req.Header["Authorization"])
					assert.NotContains(t, field(req, "Host"), "evil")
					for name := range req.Trailer {
						assert.Equal(t, "X-Sum", name)
					}
				}
				switch {
				case tt.perhaps:
					assert.LessOrEqual(t, len(r.a.Journal()), 1)
				case tt.target != "":
					assert.Len(t, r.a.Journal(), 1)
					assert.True(t, strings.HasPrefix(answered, status200), "%q", answered)
				default:
					assert.False(t, strings.HasPrefix(answered, status200), "%q", answered)
				}
			})
		}
	}
}
