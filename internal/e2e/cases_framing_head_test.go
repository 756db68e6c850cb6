package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// Row 7: lines that are no fields (RFC 9112 §5.1, §5.2; RFC 9110 §5.1, §5.5).
func fieldSyntaxCases() []attackCase {
	var cases []attackCase
	for _, line := range []string{
		"Content-Length : 3", "\tX: folded into nothing", "no colon", ": empty name", "X(: v", "X\x85: v", "X: a\x00b", "X: a\rb", "X: a\x7fb",
		"X\x00: v", "X\x7f: v", "X Y: v", "X\t: v", "X\r: v", " : v", "X: \x1b[2J", "X: a\x01b", "Transfer-Encoding : chunked", "X/Y: v", "X\"Y: v", "\xef\xbb\xbfX: v",
	} {
		first := "POST /a/x HTTP/1.1\r\n" + line + "\r\nHost: gateway.test\r\n\r\n"
		cases = append(cases, attackCase{7, fmt.Sprintf("%q first", line), answeredByServer(first, 400)})
		if !strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, " ") {
			last := "POST /a/x HTTP/1.1\r\nHost: gateway.test\r\n" + line + "\r\n\r\n"
			cases = append(cases, attackCase{7, fmt.Sprintf("%q last", line), answeredByServer(last, 400)})
		}
	}
	cases = append(cases, attackCase{7, "tab before Host", answeredByServer("GET /a/x HTTP/1.1\r\n\tHost: gateway.test\r\n\r\n", 400)})
	for _, c := range []struct{ what, line, want string }{
		{"tab in a value", "X-V: a\tb", "a\tb"},
		{"bytes from 0x80 in a value", "X-V: \x80\xff", "\x80\xff"},
		{"a colon in a value", "X-V::a: b", ":a: b"},
		{"white space around a value", "X-V: \t a \t ", "a"},
		{"a folded value is one line", "X-V: a\r\n\tb", "a b"},
		{"a folded field is no field of its own", "X-V: a\r\n Transfer-Encoding: chunked", "a Transfer-Encoding: chunked"},
	} {
		cases = append(cases, attackCase{7, c.what, func(t *testing.T) {
			r := newRig(t, setup{})
			resp := r.get("/a/x", c.line)
			assert.Equal(t, 200, resp.Status)
			sent := r.a.Await(1)[0]
			assert.Contains(t, sent.Head, "\r\nX-V: "+c.want+"\r\n")
			framedOnce(t, sent, testnet.NoBody, "")
			r.recorded(1, noFailure)
		}})
	}
	return append(cases, attackCase{7, "bare LF ends a line, and leaves as CRLF", func(t *testing.T) {
		r := newRig(t, setup{})
		tr := r.exchange("GET /a/x HTTP/1.1\nHost: gateway.test\nX-V: a\nConnection: close\n\n")
		assert.Equal(t, []int{200}, tr.Statuses())
		assert.Contains(t, r.a.Await(1)[0].Head, "\r\nX-V: a\r\n")
		assert.Zero(t, strings.Count(strings.ReplaceAll(string(r.a.JournalBytes()), "\r\n", ""), "\n"))
		r.recorded(1, noFailure)
	}})
}

// Row 13: a Host that is no host (RFC 9112 §3.2).
func hostCases() []attackCase {
	var cases []attackCase
	refused := func(what, lines string) {
		cases = append(cases, attackCase{13, what, answeredByServer("GET /a/x HTTP/1.1\r\n"+lines+"\r\n", 400)})
	}
	refused("absent", "X: v\r\n")
	refused("twice", "Host: h\r\nHost: h\r\n")
	refused("twice, different", "Host: h\r\nHost: i\r\n")
	for _, host := range []string{"a@b", "a/b", "a b", "\xff", "a\\b", "a#b", "a?b", "a\tb", "<a>", "a\"b", "a|b", "{a}", "a^b", "a`b", "é"} {
		refused(fmt.Sprintf("%q", host), "Host: "+host+"\r\n")
	}
	// What is no host, but passes net/http, is told to nobody.
	for _, host := range []string{"a,b", "", "a:b:c", "a:x", "a:", ":80", "[::1", "a;b", "a'b", "a(b)", "a&b", "a%00b", "a:123456", "[fe80::1%25eth0]", strings.Repeat("a", 256)} {
		cases = append(cases, attackCase{13, fmt.Sprintf("%.20q is not passed on", host), func(t *testing.T) {
			r := newRig(t, setup{})
			resp := r.get("/a/x", "Host: "+host)
			assert.Equal(t, 200, resp.Status)
			sent := r.a.Await(1)[0]
			assert.NotContains(t, sent.Header, "X-Forwarded-Host")
			assert.Equal(t, r.a.Addr, field(sent, "Host"))
			r.recorded(1, noFailure)
		}})
	}
	for _, host := range []string{"a", "A.b:8080", "[::1]:80", "127.0.0.1", "a_b", "a.b."} {
		cases = append(cases, attackCase{13, fmt.Sprintf("%q is a host", host), func(t *testing.T) {
			r := newRig(t, setup{})
			assert.Equal(t, 200, r.get("/a/x", "Host: "+host).Status)
			assert.Equal(t, host, field(r.a.Await(1)[0], "X-Forwarded-Host"))
			r.recorded(1, noFailure)
		}})
	}
	return append(cases,
		attackCase{13, "an absolute target's host is the host", func(t *testing.T) { // RFC 9112 §3.2.2
			r := newRig(t, setup{})
			resp := r.get("http://real.test/a/x", "Host: other.test")
			assert.Equal(t, 200, resp.Status)
			sent := r.a.Await(1)[0]
			assert.Equal(t, "real.test", field(sent, "X-Forwarded-Host"))
			assert.NotContains(t, sent.Head, "other.test")
			r.recorded(1, noFailure)
		}},
		attackCase{13, "absent in HTTP/1.0", func(t *testing.T) {
			r := newRig(t, setup{})
			resp := r.do("GET /a/x HTTP/1.0\r\n\r\n")
			assert.Equal(t, 200, resp.Status)
			sent := r.a.Await(1)[0]
			assert.NotContains(t, sent.Header, "X-Forwarded-Host")
			assert.Equal(t, r.a.Addr, field(sent, "Host"))
			r.recorded(1, noFailure)
		}},
		attackCase{13, "one that is preserved is sent as it is, once", func(t *testing.T) {
			r := newRig(t, setup{a: []gateway.ServiceOption{gateway.WithPreserveHost()}})
			assert.Equal(t, 200, r.get("/a/x", "Host: Shop.test:8080").Status)
			sent := r.a.Await(1)[0]
			assert.Equal(t, "Shop.test:8080", field(sent, "Host"))
			r.recorded(1, noFailure)
		}},
	)
}

// Row 15: request lines of other versions, or none (RFC 9112 §2.2, §2.3, §3).
func requestLineCases() []attackCase {
	const host = "\r\nHost: gateway.test\r\n\r\n"
	var cases []attackCase
	for _, c := range []struct {
		what, raw string
		status    int
	}{
		{"HTTP 0.9", "GET /a/x\r\n", 400},
		{"HTTP 2.0", "GET /a/x HTTP/2.0" + host, 505},
		{"leading CRLF", "\r\nGET /a/x HTTP/1.1" + host, 400},
		{"leading LF", "\nGET /a/x HTTP/1.1" + host, 400},
		{"HTTP 3.0", "GET /a/x HTTP/3.0" + host, 505},
		{"HTTP 0.9 with fields", "GET /a/x HTTP/0.9" + host, 505},
		{"HTTP 1.10", "GET /a/x HTTP/1.10" + host, 400},
		{"HTTP 11.1", "GET /a/x HTTP/11.1" + host, 400},
		{"HTTP 1", "GET /a/x HTTP/1" + host, 400},
		{"http in lower case", "GET /a/x http/1.1" + host, 400},
		{"another protocol", "GET /a/x RTSP/1.0" + host, 400},
		{"a space behind", "GET /a/x HTTP/1.1 " + host, 400},
		{"two spaces", "GET  /a/x HTTP/1.1" + host, 400},
		{"a space in the target", "GET /a/x y HTTP/1.1" + host, 400},
		{"tabs", "GET\t/a/x\tHTTP/1.1" + host, 400},
		{"no method", " /a/x HTTP/1.1" + host, 400},
		{"no target", "GET HTTP/1.1" + host, 400},
		{"a method that is none", "G(T /a/x HTTP/1.1" + host, 400},
		{"NUL in the method", "GE\x00T /a/x HTTP/1.1" + host, 400},
		{"a control in the target", "GET /a/x\x01 HTTP/1.1" + host, 400},
		{"DEL in the target", "GET /a/x\x7f HTTP/1.1" + host, 400},
		{"NUL in the target", "GET /a/\x00 HTTP/1.1" + host, 400},
		{"CR in the target", "GET /a/x\ry HTTP/1.1" + host, 400},
		{"a broken escape", "GET /a/%zz HTTP/1.1" + host, 400},
		{"half an escape", "GET /a/%4 HTTP/1.1" + host, 400},
		{"an escape of another kind", "GET /a/%u002e%u002e HTTP/1.1" + host, 400},
		{"an escape inside an escape", "GET /a/%%32%65%%32%65/b HTTP/1.1" + host, 400},
		{"target without its slash", "GET a/x HTTP/1.1" + host, 400},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
	} {
		cases = append(cases, attackCase{15, c.what, answeredByServer(c.raw, c.status)})
	}
	return append(cases,
		attackCase{15, "HTTP 1.9 is a higher minor version", func(t *testing.T) { // RFC 9110 §2.5
			r := newRig(t, setup{})
			assert.Equal(t, 200, r.do("GET /a/x HTTP/1.9"+host).Status)
			sent := r.a.Await(1)[0]
			assert.Equal(t, "HTTP/1.1", sent.Proto)
			assert.Equal(t, "1.1 gateway", field(sent, "Via"))
			r.recorded(1, noFailure)
		}},
		attackCase{15, "methods are case-sensitive", func(t *testing.T) { // RFC 9110 §9.1
			r := newRig(t, setup{})
			tr := r.exchange("get /a/x HTTP/1.1" + host + testnet.Get("/b/next"))
			assert.Equal(t, []int{501}, tr.Statuses())
			assert.Equal(t, testnet.Closed, tr.End)
			r.untouched()
			r.recorded(1, onlyFailure(gateway.ReasonMethodNotImplemented))
		}},
	)
}

// Row 19: too much of a head. Each bound is exact, the upstream sees nothing,
// and what was refused is forgotten at once.
func sizeCases() []attackCase {
	fields := func(n int) []string {
		lines := make([]string, n)
		for i := range lines {
			lines[i] = fmt.Sprintf("X-%d: v", i)
		}
		return lines
	}
	ours := func(target string, status int, reason gateway.Reason, lines ...string) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, "Cache-Control: public, max-age=60", "ok")})
			resp := r.get(target, lines...)
			assert.Equal(t, status, resp.Status)
			assert.Equal(t, testnet.Whole, resp.End)
			assert.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
			r.untouched()
			assert.Zero(t, r.cache.Stats().Entries)
			assert.Equal(t, 200, r.get("/a/x").Status, "the error is not stored (CPDoS)")
			assert.Len(t, r.a.Await(1), 1)
			r.recorded(2, onlyFailure(reason))
		}
	}
	passes := func(target string, lines ...string) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{})
			assert.Equal(t, 200, r.get(target, lines...).Status)
			assert.Equal(t, strings.TrimPrefix(target, "/a"), r.a.Await(1)[0].Target)
			r.recorded(1, noFailure)
		}
	}
	const overhead = len("X-Big") + len(": \r\n")
	big := func(n int) string { return "X-Big: " + strings.Repeat("v", n-overhead) }
	long := func(begin string, n int) string { return begin + strings.Repeat("p", n-len(begin)) }
	tooLarge, tooLong := gateway.ReasonHeaderTooLarge, gateway.ReasonTargetTooLong
	return []attackCase{
		{19, "header of 1.1 MB", serverTooLarge(big(1_100_000))},
		{19, "header of 1.1 MB in many fields", serverTooLarge(strings.Join(fields(120_000), "\r\n"))},
		{19, "field of 900 kB", ours("/a/x", 431, tooLarge, big(900_000))},
		{19, "1000 fields", ours("/a/x", 431, tooLarge, fields(1000)...)},
		{19, "101 fields", ours("/a/x", 431, tooLarge, fields(101)...)},
		{19, "101 lines of one name", ours("/a/x", 431, tooLarge, strings.Split(strings.Repeat("X: v\n", 100)+"X: v", "\n")...)},
		{19, "one byte over 64 KiB", ours("/a/x", 431, tooLarge, big(64<<10+1))},
		{19, "target of 100 kB", ours(long("/a/", 100_000), 414, tooLong)},
		{19, "path of one byte over 8 KiB", ours(long("/a/", 8<<10+1), 414, tooLong)},
		{19, "query of one byte over 8 KiB", ours(long("/a/x?", 8<<10+1), 414, tooLong)},
		{19, "path and query of one byte over 8 KiB", ours(long("/a/"+strings.Repeat("p", 4000)+"?", 8<<10+1), 414, tooLong)},
		{19, "escaped path of one byte over 8 KiB", ours("/a/"+strings.Repeat("%41", (8<<10+1-3)/3), 414, tooLong)},
		{19, "escaped name of over 8 KiB", ours("/"+strings.Repeat("%41", 3000)+"/x", 414, tooLong)},
		{19, "target over 8 KiB of no service", ours(long("/none/", 8<<10+1), 414, tooLong)},
		{19, "100 fields pass", passes("/a/x", fields(100)...)},
		{19, "64 KiB pass", passes("/a/x", big(64<<10))},
		{19, "path of 8 KiB passes", passes(long("/a/", 8<<10))},
		{19, "query of 8 KiB passes", passes(long("/a/x?", 8<<10))},
		{19, "a bound of one's own", func(t *testing.T) {
			r := newRig(t, setup{a: []gateway.ServiceOption{gateway.WithMaxHeaderBytes(2 << 10)}})
			assert.Equal(t, 431, r.get("/a/x", big(2<<10+1)).Status)
			assert.Equal(t, 200, r.get("/a/x", big(2<<10)).Status)
			assert.Equal(t, 200, r.get("/b/x", big(2<<10+1)).Status)
			r.recorded(3, onlyFailure(tooLarge))
		}},
	}
}

// serverTooLarge sends a header over the bound of net/http's server, which
// does not read it to its end.
func serverTooLarge(lines string) func(*testing.T) {
	return func(t *testing.T) {
		r := newRig(t, setup{})
		tr := r.exchange(testnet.Get("/a/x", lines))
		assert.Equal(t, []int{http.StatusRequestHeaderFieldsTooLarge}, tr.Statuses())
		require.Len(t, tr.Responses, 1)
		assert.Equal(t, testnet.Closed, tr.End)
		r.untouched()
		assert.Equal(t, 200, r.get("/a/x").Status)
		assert.Len(t, r.a.Await(1), 1)
		r.recorded(1, noFailure)
	}
}
