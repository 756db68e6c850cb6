package main

import (
	"fmt"
	"strings"
)

// An input is what a hostile client sends, or what an upstream answers that a
// client asks for /raw/. In both "{k}" is another number in each connection.
type input struct {
	name     string
	client   []byte
	upstream []byte // empty: the request waits at /hold, if it gets there
	ends     bool   // the upstream closes the connection behind it
}

// size is how many bytes somebody had to send.
func (in input) size() int { return len(in.client) + len(in.upstream) }

// inputs are those that requests and upstreams are refused or survived for:
// framing, targets, hop-by-hop fields, upgrades, and an upstream that lies.
func inputs() []input {
	var all []input
	for _, of := range []struct {
		part   string
		inputs []input
	}{
		{"framing", framingInputs()}, {"target", targetInputs()}, {"identity", identityInputs()},
		{"upgrade", upgradeInputs()}, {"upstream", append(lyingInputs(), largeInputs()...)},
	} {
		for _, in := range of.inputs {
			in.name = of.part + ": " + in.name
			if len(in.client) == 0 {
				in.client = get(fmt.Sprintf("/raw/%d?k={k}", len(all)))
			}
			all = append(all, in)
		}
	}
	return all
}

// plainInput is what the others are compared with.
func plainInput() input { return input{name: "plain", client: get("/hold?k={k}")} }

const toHold = " /api/bench/hold?k={k} HTTP/1.1\r\nHost: bench.test\r\n"

// with is a request that has those header lines, and then that body.
func with(method, lines, body string) []byte {
	return []byte(method + toHold + lines + "\r\n" + body)
}

// numbered is so many header lines.
func numbered(n int, value string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X-%d: %s\r\n", i, value)
	}
	return b.String()
}

func framingInputs() []input {
	long := func(n int) string { return strings.Repeat("a", n) }
	all := []input{
		{name: "length and chunks", client: with("POST", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")},
		{name: "a body that does not come", client: with("POST", "Content-Length: 1000000\r\n", "abc")},
		{name: "half of a large body", client: with("POST", "Content-Length: 1000000\r\n", long(500_000))},
		{name: "GET with content", client: with("GET", "Content-Length: 3\r\n", "abc")},
		{name: "1.1 MB of header", client: with("GET", numbered(1100, long(1000)), "")},
		{name: "900 kB in one field", client: with("GET", "X: "+long(900_000)+"\r\n", "")},
		{name: "60 kB in one field", client: with("GET", "X: "+long(60_000)+"\r\n", "")},
		{name: "1000 fields", client: with("GET", numbered(1000, "a"), "")},
		{name: "99 fields of one name", client: with("GET", strings.Repeat("X: a\r\n", 97), "")},
		{name: "a target of 100 kB", client: []byte("GET /api/bench/" + long(100_000) + " HTTP/1.1\r\nHost: bench.test\r\n\r\n")},
		{name: "a head without an end", client: []byte("GET" + toHold + "X: " + long(500_000))},
		{name: "HTTP/0.9", client: []byte("GET /\r\n")},
		{name: "HTTP/2.0", client: []byte("GET / HTTP/2.0\r\nHost: bench.test\r\n\r\n")},
		{name: "chunks of one byte", client: with("POST", "Transfer-Encoding: chunked\r\n", strings.Repeat("1\r\na\r\n", 5000))},
		{name: "long chunk extensions", client: with("POST", "Transfer-Encoding: chunked\r\n", "1;"+long(3000)+"\r\na\r\n")},
		{name: "a trailer section of 500 kB", client: with("POST", "Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n"+numbered(500, long(1000)))},
		{name: "a hundred requests at once", client: []byte(strings.Repeat(string(get("/hold?k={k}")), 100))},
	}
	for _, value := range []string{"\x0bchunked", "\xffchunked", "chunked, gzip", "identity"} {
		all = append(all, input{name: fmt.Sprintf("Transfer-Encoding: %q", value), client: with("POST", "Transfer-Encoding: "+value+"\r\n", "0\r\n\r\n")})
	}
	for _, value := range []string{"3\r\nContent-Length: 4", "3, 3", "+3", "-3", "0x3", "", "1e1", "99999999999999999999"} {
		all = append(all, input{name: fmt.Sprintf("Content-Length: %q", value), client: with("POST", "Content-Length: "+value+"\r\n", "abc")})
	}
	for _, line := range []string{"Content-Length : 3", "\tHost: x", "no colon", ": x", "a(b: x", "X: \x00", "X: \x7f", "Host: a@b", "Host: a/b"} {
		all = append(all, input{name: fmt.Sprintf("%q", line), client: with("GET", line+"\r\n", "")})
	}
	for _, size := range []string{"0x3", "0_3", "-3", "   3", "", "FFFFFFFFFFFFFFED", "1\r\nabc"} {
		all = append(all, input{name: fmt.Sprintf("a chunk of size %q", size), client: with("POST", "Transfer-Encoding: chunked\r\n", size+"\r\nabc\r\n0\r\n\r\n")})
	}
	return all
}

func targetInputs() []input {
	var all []input
	for _, line := range []string{
		"GET file:///etc/passwd", "GET ftp://h/a", "GET http://u:p@h/api/bench/x", "GET http://h", "PRI *", "OPTIONS *", "GET *", "OPTIONS */x",
		"CONNECT bench.test:443", "TRACE /api/bench/hold", "GET //evil.test/api/bench/x", `GET /\evil.test`, "GET /api/bench//..//", "GET /api/bench%2fx",
		"GET /api/bench/..;/b", "GET /api/bench/.;x/y", "GET /api/bench/x%0d%0aX:%20y", "GET /api/bench/\xff", "GET /api/bench/%c0%ae%c0%ae",
		"GET /api/bench/" + strings.Repeat("%2e%2e/", 1000), "GET /api/bench/" + strings.Repeat("/", 8000), "GET /api/bench/hold?" + strings.Repeat("a&", 4000),
		"GET /API/bench/hold", "QUERY /api/bench/hold", strings.Repeat("M", 5000) + " /api/bench/hold",
	} {
		shown := line[:min(len(line), 40)]
		all = append(all, input{name: fmt.Sprintf("%q", shown), client: []byte(line + " HTTP/1.1\r\nHost: bench.test\r\n\r\n")})
	}
	return all
}

func identityInputs() []input {
	return []input{
		{name: "a Connection that names everything", client: with("GET", "Connection: close, X-Forwarded-For, Authorization, X-Real-IP\r\n", "")},
		{name: "a Connection of 30,000 members", client: with("GET", "Connection: "+strings.Repeat("a,", 30_000)+"\r\n", "")},
		{name: "a Connection that names nothing", client: with("GET", "Connection: "+strings.Repeat(",", 60_000)+"\r\n", "")},
		{name: "Proxy", client: with("GET", "Proxy: http://evil.test\r\n", "")},
		{name: "200 hops in X-Forwarded-For", client: with("GET", "X-Forwarded-For: "+strings.Repeat("10.0.0.1, ", 200)+"10.0.0.2\r\n", "")},
		{name: "60 kB of X-Forwarded-For", client: with("GET", "X-Forwarded-For: "+strings.Repeat("unknown,", 7500)+"\r\n", "")},
		{name: "60 kB of Forwarded", client: with("GET", "Forwarded: "+strings.Repeat("for=a,", 10_000)+"\r\n", "")},
		{name: "underscores", client: with("GET", "X_Forwarded_For: 1\r\nAuthorization_: 1\r\n", "")},
		{name: "60 kB of Via", client: with("GET", "Via: "+strings.Repeat("1.1 a,", 10_000)+"\r\n", "")},
		{name: "60 kB of Vary's fields", client: with("GET", "Accept-Encoding: "+strings.Repeat("gzip,", 12_000)+"\r\n", "")},
		{name: "60 kB of Cookie", client: with("GET", "Cookie: "+strings.Repeat("a=b; ", 12_000)+"\r\n", "")},
		{name: "60 kB of Cache-Control", client: with("GET", "Cache-Control: "+strings.Repeat("a=b,", 15_000)+"\r\n", "")},
		{name: "60 kB of If-None-Match", client: with("GET", "If-None-Match: "+strings.Repeat(`"a",`, 15_000)+"\r\n", "")},
		{name: "30 kB of ranges", client: with("GET", "Range: bytes="+strings.Repeat("0-0,", 7500)+"1-1\r\n", "")},
		{name: "60 kB of baggage and tracestate", client: with("GET", "Baggage: "+strings.Repeat("a=b,", 7500)+"\r\nTracestate: "+strings.Repeat("a=b,", 7500)+"\r\n", "")},
	}
}

func upgradeInputs() []input {
	socket := "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	all := []input{
		{name: "Expect: banana", client: with("POST", "Expect: banana\r\nContent-Length: 3\r\n", "abc")},
		{name: "Expect: 100-continue and no body", client: with("POST", "Expect: 100-continue\r\nContent-Length: 3\r\n", "")},
		{name: "103 again and again", upstream: []byte(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 20_000))},
		{name: "103 of 200 kB", upstream: []byte("HTTP/1.1 103 Early Hints\r\nLink: " + strings.Repeat("a", 200_000) + "\r\n\r\n")},
		{name: "101 unasked", upstream: []byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")},
		{name: "a WebSocket with a body", client: with("GET", socket+"Content-Length: 3\r\n", "abc")},
		{name: "a WebSocket by POST", client: with("POST", socket, "")},
		{name: "a WebSocket that is not answered", client: with("GET", socket, "")},
		{name: "a WebSocket with early frames", client: with("GET", socket, strings.Repeat("a", 100_000))},
		{name: "a WebSocket to nobody", client: []byte(strings.Replace(string(with("GET", socket, "")), "HTTP/1.1", "HTTP/1.0", 1))},
	}
	for _, to := range []string{"h2c", "TLS/1.0", "foo", "websocket, h2c"} {
		all = append(all, input{name: "Upgrade: " + to, client: with("GET", "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nUpgrade: "+to+"\r\n", "")})
	}
	return all
}

const okHead = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n"

func lyingInputs() []input {
	zeros := strings.Repeat("\x00", 1000)
	return []input{
		{name: "shorter than it said", upstream: []byte(okHead + "Content-Length: 100\r\n\r\n0123456789"), ends: true},
		{name: "silence after a part", upstream: []byte(okHead + "Content-Length: 100\r\n\r\n0123456789")},
		{name: "until the end", upstream: []byte(okHead + "\r\n" + zeros), ends: true},
		{name: "HTTP/1.0", upstream: []byte("HTTP/1.0 200 OK\r\n\r\n" + zeros), ends: true},
		{name: "a response too many", upstream: []byte(okHead + "Content-Length: 1\r\n\r\na" + okHead + "Content-Length: 1\r\n\r\nb")},
		{name: "1 MB too many", upstream: []byte(okHead + "Content-Length: 1\r\n\r\na" + strings.Repeat("b", 1<<20))},
		{name: "204 with content", upstream: []byte("HTTP/1.1 204 No Content\r\n\r\n" + zeros)},
		{name: "304 unasked", upstream: []byte("HTTP/1.1 304 Not Modified\r\n\r\n")},
		{name: "status 000", upstream: []byte("HTTP/1.1 000 Nothing\r\nContent-Length: 0\r\n\r\n")},
		{name: "status 999", upstream: []byte("HTTP/1.1 999 Everything\r\nContent-Length: 0\r\n\r\n")},
		{name: "a reason of 8 kB", upstream: []byte("HTTP/1.1 200 " + strings.Repeat("a\x1b", 4000) + "\r\nContent-Length: 0\r\n\r\n")},
		{name: "a status line without an end", upstream: []byte("HTTP/1.1 200 " + strings.Repeat("a", 1<<20))},
		{name: "Cache-Control with a space", upstream: []byte("HTTP/1.1 200 OK\r\nCache-Control : no-store\r\nContent-Length: 0\r\n\r\n")},
		{name: "length and chunks", upstream: []byte(okHead + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
		{name: "two lengths", upstream: []byte(okHead + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef")},
		{name: "a chunk of nonsense", upstream: []byte(okHead + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n")},
		{name: "no HTTP", upstream: []byte(strings.Repeat("SSH-2.0-x\r\n", 1000))},
		{name: "nothing", upstream: []byte("\r\n"), ends: true},
	}
}

// largeInputs are large, or cause it to be so.
func largeInputs() []input {
	long := strings.Repeat("a", 1000)
	chunks := okHead + "Transfer-Encoding: chunked\r\n\r\n"
	return []input{
		{name: "9 MB of header", upstream: []byte("HTTP/1.1 200 OK\r\n" + numbered(9000, long) + "\r\n")},
		{name: "1000 fields", upstream: []byte("HTTP/1.1 200 OK\r\n" + numbered(1000, "a") + "\r\n")},
		{name: "199 fields", upstream: []byte(okHead + numbered(190, "a") + "Content-Length: 0\r\n\r\n")},
		{name: "64 kB in one field", upstream: []byte("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 64<<10) + "\r\n\r\n")},
		{name: "Vary on 1000 names", upstream: []byte("HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nVary: " + strings.Repeat("a,", 1000) + "b\r\nContent-Length: 0\r\n\r\n")},
		{name: "a trailer section of 20 MB", upstream: []byte(chunks + "1\r\na\r\n0\r\n" + numbered(20_000, long) + "\r\n")},
		{name: "chunks of one byte", upstream: []byte(chunks + strings.Repeat("1\r\na\r\n", 100_000))},
		{name: "chunk extensions of 1 MB", upstream: []byte(chunks + "1;" + strings.Repeat("a", 1<<20) + "\r\na\r\n")},
		{name: "a body that nobody reads", upstream: []byte(chunks + strings.Repeat("10000\r\n"+strings.Repeat("a", 1<<16)+"\r\n", 200))},
		{name: "a body to be stored that nobody reads", upstream: []byte("HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("10000\r\n"+strings.Repeat("a", 1<<16)+"\r\n", 200))},
		{name: "an early 413", client: with("POST", "X: {k}\r\nContent-Length: 1000000000\r\n", strings.Repeat("a", 100_000)), upstream: []byte("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")},
	}
}
