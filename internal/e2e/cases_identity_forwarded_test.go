package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// claims are what a client may say of itself.
var claims = []string{
	"X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil.test", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /evil", "X-Forwarded-Port: 666", "X-Forwarded-Server: evil.test",
	"X-Forwarded: for=6.6.6.6", "Forwarded: for=6.6.6.6;host=evil.test", "X-Real-IP: 6.6.6.6", "Client-IP: 6.6.6.6", "True-Client-IP: 6.6.6.6", "X-Client-IP: 6.6.6.6",
	"X-Cluster-Client-IP: 6.6.6.6", "X-Originating-IP: 6.6.6.6", "X-Forwarded-Anything: evil", "X-ForwardedFor: 6.6.6.6", "X-Forwarded-User: evil", "X-Host: evil.test", "X-Original-Host: evil.test",
}

// Row 45: nobody is believed who is not named by WithTrustedProxies.
func untrustedPeerCases() []attackCase {
	var cases []attackCase
	disbelieved := func(what string, opts []gateway.ServiceOption, lines ...string) {
		cases = append(cases, attackCase{45, what, func(t *testing.T) {
			r := newRig(t, setup{a: opts})
			sent := r.asSent(lines...)
			identified(t, r, sent)
			assert.NotContains(t, sent.Head, "6.6.6.6")
			assert.NotContains(t, sent.Head, "evil")
			for name := range sent.Header {
				if strings.HasPrefix(name, "X-Forwarded") {
					assert.Contains(t, []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix"}, name)
				}
			}
			r.recorded(1, noFailure)
		}})
	}
	for _, claim := range claims {
		name, _, _ := strings.Cut(claim, ":")
		disbelieved(name+" of anybody", nil, claim)
	}
	disbelieved("all of anybody", nil, claims...)
	disbelieved("all of a peer that is not the trusted one", []gateway.ServiceOption{gateway.WithTrustedProxies("10.0.0.0/8", "127.0.0.2", "::1")}, claims...)
	disbelieved("several lines of anybody", nil, "X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 127.0.0.1", "X-Real-IP: 6.6.6.6", "X-Real-IP: 6.6.6.6")
	return cases
}

var trusting = []gateway.ServiceOption{gateway.WithTrustedProxies("127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32")}

// Row 45: a trusted peer's list is continued by one, if it is one; else it is
// forgotten.
func trustedPeerCases() []attackCase {
	list := func(n int) string { return strings.TrimSuffix(strings.Repeat("9.9.9.9, ", n), ", ") }
	var cases []attackCase
	for _, c := range []struct {
		what, claim, chain, client string
	}{
		{"one address", "9.9.9.9", "9.9.9.9, 127.0.0.1", "9.9.9.9"},
		{"a proxy of ours in between", "6.6.6.6, 9.9.9.9, 10.1.2.3", "6.6.6.6, 9.9.9.9, 10.1.2.3, 127.0.0.1", "9.9.9.9"},
		{"proxies of ours only", "10.1.1.1, 10.2.2.2", "10.1.1.1, 10.2.2.2, 127.0.0.1", "10.1.1.1"},
		{"IPv6", "2001:db8::1, 2001:470::1", "2001:db8::1, 2001:470::1, 127.0.0.1", "2001:470::1"},
		{"ports", "9.9.9.9:80, [2001:db8::1]:81", "9.9.9.9:80, [2001:db8::1]:81, 127.0.0.1", "9.9.9.9"},
		{"an IPv4-mapped proxy of ours", "9.9.9.9, ::ffff:10.1.2.3", "9.9.9.9, ::ffff:10.1.2.3, 127.0.0.1", "9.9.9.9"},
		{"32 addresses", list(32), list(32) + ", 127.0.0.1", "9.9.9.9"},
		{"33 addresses", list(33), "127.0.0.1", "127.0.0.1"},
		{"200 addresses", list(200), "127.0.0.1", "127.0.0.1"},
		{"64 kB", strings.Repeat("9", 64_000), "127.0.0.1", "127.0.0.1"},
		{"64 kB of addresses", list(6_400), "127.0.0.1", "127.0.0.1"},
		{"what is no address", `unknown, "[::1]:x"`, "127.0.0.1", "127.0.0.1"},
		{"unknown", "unknown", "127.0.0.1", "127.0.0.1"},
		{"one of several is none", "9.9.9.9, evil, 8.8.8.8", "127.0.0.1", "127.0.0.1"},
		{"a name", "localhost", "127.0.0.1", "127.0.0.1"},
		{"a zone", "fe80::1%eth0", "127.0.0.1", "127.0.0.1"},
		{"a network", "9.9.9.0/24", "127.0.0.1", "127.0.0.1"},
		{"octal", "010.0.0.1", "127.0.0.1", "127.0.0.1"},
		{"a number", "167772161", "127.0.0.1", "127.0.0.1"},
		{"nothing", "", "127.0.0.1", "127.0.0.1"},
		{"commas", ",,", "127.0.0.1", "127.0.0.1"},
		{"markup", "9.9.9.9<script>", "127.0.0.1", "127.0.0.1"},
	} {
		cases = append(cases, attackCase{45, c.what + " of a trusted peer", func(t *testing.T) {
			r := newRig(t, setup{a: trusting})
			sent := r.asSent("X-Forwarded-For: "+c.claim, "Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6")
			assert.Equal(t, []string{c.chain}, sent.Header["X-Forwarded-For"])
			assert.Equal(t, []string{c.client}, sent.Header["X-Real-Ip"])
			assert.NotContains(t, sent.Header, "Forwarded")
			r.recorded(1, noFailure)
		}})
	}
	return append(cases, attackCase{45, "several lines of a trusted peer", func(t *testing.T) {
		r := newRig(t, setup{a: trusting})
		sent := r.asSent("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 9.9.9.9", "Connection: X-Forwarded-For")
		assert.Equal(t, []string{"6.6.6.6, 9.9.9.9, 127.0.0.1"}, sent.Header["X-Forwarded-For"])
		assert.Equal(t, "9.9.9.9", field(sent, "X-Real-Ip"))
		r.recorded(1, noFailure)
	}})
}

// Row 45: what else a trusted peer says, and who is one.
func trustCases() []attackCase {
	var cases []attackCase
	for _, c := range []struct {
		name, claim, want string
	}{
		{"X-Forwarded-Host", "shop.test:8443", "shop.test:8443"}, {"X-Forwarded-Host", "evil.test, shop.test", "gateway.test"}, {"X-Forwarded-Host", "a/b", "gateway.test"},
		{"X-Forwarded-Host", "u@h", "gateway.test"}, {"X-Forwarded-Host", "", "gateway.test"}, {"X-Forwarded-Host", "h\r\nX-Forwarded-Host: i", "gateway.test"},
		{"X-Forwarded-Proto", "HTTPS", "https"}, {"X-Forwarded-Proto", "ftp", "http"}, {"X-Forwarded-Proto", "https,http", "http"}, {"X-Forwarded-Proto", "javascript", "http"},
		{"X-Forwarded-Prefix", "/shop", "/shop/a"}, {"X-Forwarded-Prefix", "/shop/", "/shop/a"}, {"X-Forwarded-Prefix", "//evil.test", "/a"}, {"X-Forwarded-Prefix", "/x/../y", "/a"},
		{"X-Forwarded-Prefix", "shop", "/a"}, {"X-Forwarded-Prefix", `/\evil.test`, "/a"}, {"X-Forwarded-Prefix", "/" + strings.Repeat("p", 2000), "/a"}, {"X-Forwarded-Prefix", "/a?b", "/a"},
	} {
		cases = append(cases, attackCase{45, fmt.Sprintf("%s %.20q of a trusted peer", c.name, c.claim), func(t *testing.T) {
			r := newRig(t, setup{a: trusting})
			sent := r.asSent(c.name + ": " + c.claim)
			assert.Equal(t, []string{c.want}, sent.Header[c.name])
			r.recorded(1, noFailure)
		}})
	}
	for _, c := range []struct {
		what, trusted, peer, address string
		believed                     bool
	}{
		{"an IPv4-mapped peer is its IPv4", "192.0.2.0/24", "[::ffff:192.0.2.7]:1234", "192.0.2.7", true},
		{"an IPv4-mapped prefix is its IPv4", "::ffff:192.0.2.0/120", "192.0.2.7:1234", "192.0.2.7", true},
		{"an IPv4-mapped address is its IPv4", "::ffff:192.0.2.7", "192.0.2.7:1234", "192.0.2.7", true},
		{"an IPv4-mapped peer outside the prefix", "192.0.2.0/24", "[::ffff:192.0.3.7]:1234", "192.0.3.7", false},
		{"every IPv6 address is no IPv4 one", "::/0", "192.0.2.7:1234", "192.0.2.7", false},
		{"a peer with a zone", "fe80::/10", "[fe80::7%eth0]:1234", "fe80::7", true},
		{"a prefix with host bits", "192.0.2.99/24", "192.0.2.7:1234", "192.0.2.7", true},
		{"an IPv4-compatible peer is none", "192.0.2.0/24", "[::192.0.2.7]:1234", "::c000:207", false},
	} {
		cases = append(cases, attackCase{45, c.what, func(t *testing.T) {
			r := newRig(t, setup{a: []gateway.ServiceOption{gateway.WithTrustedProxies(c.trusted)}, handler: comingFrom(c.peer)})
			chain, client := c.address, c.address
			if c.believed {
				chain, client = "9.9.9.9, "+c.address, "9.9.9.9"
			}
			sent := r.asSent("X-Forwarded-For: 9.9.9.9")
			assert.Equal(t, []string{chain}, sent.Header["X-Forwarded-For"])
			assert.Equal(t, []string{client}, sent.Header["X-Real-Ip"])
			r.recorded(1, noFailure)
		}})
	}
	for _, peer := range []string{"@", "", "pipe", "/run/app.sock"} {
		cases = append(cases, attackCase{45, fmt.Sprintf("a peer %q without an address", peer), func(t *testing.T) {
			r := newRig(t, setup{a: []gateway.ServiceOption{gateway.WithTrustedProxies("0.0.0.0/0", "::/0")}, handler: comingFrom(peer)})
			sent := r.asSent(claims...)
			assert.NotContains(t, sent.Header, "X-Forwarded-For")
			assert.NotContains(t, sent.Header, "X-Real-Ip")
			assert.Equal(t, []string{"gateway.test"}, sent.Header["X-Forwarded-Host"])
			assert.NotContains(t, sent.Head, "evil")
			r.recorded(1, noFailure)
		}})
	}
	return cases
}

// comingFrom has requests come from another peer than they do.
func comingFrom(peer string) func(*gateway.Gateway) http.Handler {
	return func(gw *gateway.Gateway) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/a/") {
				r.RemoteAddr = peer
			}
			gw.ServeHTTP(w, r)
		})
	}
}

// Row 47: a name that some server reads as one that the gateway manages.
func twinCases() []attackCase {
	var cases []attackCase
	for _, name := range []string{
		"X_Forwarded_For", "X-Forwarded_Proto", "authorization_", "X_Auth_Token",
		"X_Forwarded-Host", "x_real_ip", "-Authorization", "_authorization", "Authorization-", "AUTHORIZATION__", "X.Forwarded.For", "X-Forwarded.For", "X~Real~IP", "x!forwarded!for",
		"Cookie_", "_Cookie", "Content_Length", "Content-Length_", "Transfer_Encoding", "Host_", "-Host", "Via_", "X_Request_ID", "X-Request-Id_", "Content_Type", "X_Api_Key", "x-api-key_",
		"Trace_Parent", "TraceParent_", "X_HTTP_Method_Override", "Forwarded_", "Proxy_Authorization", "Te_", "Expect_", "X__Forwarded__For",
	} {
		cases = append(cases, attackCase{47, name, func(t *testing.T) {
			r := newRig(t, setup{a: []gateway.ServiceOption{gateway.WithHeader("X-Api-Key", "ours")}})
			sent := r.asSent(name+": theirs", "X_Kept: v")
			identified(t, r, sent)
			if name == "Trace_Parent" || name == "X__Forwarded__For" { // nobody's twin
				assert.Contains(t, sent.Head, "theirs")
			} else {
				assert.NotContains(t, sent.Head, "theirs")
			}
			assert.Equal(t, []string{"ours"}, sent.Header["X-Api-Key"])
			assert.Equal(t, []string{"v"}, sent.Header["X_kept"])
			r.recorded(1, noFailure)
		}})
	}
	return append(cases,
		attackCase{47, "of a trusted peer", func(t *testing.T) {
			r := newRig(t, setup{a: trusting})
			sent := r.asSent("X_Forwarded_For: theirs", "X-Forwarded_Proto: theirs", "True_Client_IP: theirs", "X_Real_IP: theirs")
			assert.NotContains(t, sent.Head, "theirs")
			assert.Equal(t, []string{"127.0.0.1"}, sent.Header["X-Forwarded-For"])
			r.recorded(1, noFailure)
		}},
		attackCase{47, "in the trailer section", func(t *testing.T) {
			r := newRig(t, setup{a: []gateway.ServiceOption{gateway.WithHeader("X-Api-Key", "ours")}})
			resp := r.do(testnet.Build("POST", "/a/x", "3\r\nabc\r\n0\r\nX_Forwarded_For: theirs\r\nauthorization_: theirs\r\nX-Api-Key: theirs\r\nX_Request_Id: theirs\r\n\r\n",
				"Transfer-Encoding: chunked", "Trailer: X_Forwarded_For, authorization_, X-Api-Key, X_Request_Id"))
			assert.Equal(t, 200, resp.Status)
			assert.NotContains(t, string(r.a.Await(1)[0].Raw), "theirs")
			r.recorded(1, noFailure)
		}},
	)
}

// Row 49: each request says that it was here (RFC 9110 §7.6.3), and one that
// says so too often is in a loop.
func viaCases() []attackCase {
	ours := func(n int) []string { return slices.Repeat([]string{"1.1 gateway"}, n) }
	var cases []attackCase
	for _, c := range []struct {
		what  string
		lines []string
		loop  bool
	}{
		{"nothing before", nil, false},
		{"others before", []string{"1.1 varnish, 1.0 fred (Apache)"}, false},
		{"others before, in two lines", []string{"1.1 varnish", "HTTP/1.1 p.example:80"}, false},
		{"8 times before", ours(8), false},
		{"9 times before", ours(9), true},
		{"9 times in one line", []string{strings.Join(ours(9), ", ")}, true},
		{"9 times in one line, without spaces", []string{strings.Join(ours(9), ",")}, true},
		{"9 times among others", []string{strings.Join(ours(4), ", 1.1 varnish, "), strings.Join(ours(5), ", 1.1 varnish, ")}, true},
		{"9 times in other letters", slices.Repeat([]string{"1.1 GateWay"}, 9), true},
		{"9 times over other protocols", slices.Repeat([]string{"HTTP/2.0 gateway"}, 9), true},
		{"9 times with comments", slices.Repeat([]string{"1.1 gateway (a)"}, 9), true},
		{"9 times behind an open comment", append([]string{"1.1 x (open"}, ours(9)...), true},
		{"9 times with tabs", slices.Repeat([]string{"1.1\tgateway"}, 9), true},
		{"1000 times", ours(90), true},
		{"50 others", slices.Repeat([]string{"1.1 other"}, 50), false},
		{"names like ours", slices.Repeat([]string{"1.1 gateways, 1.1 a.gateway, 1.1 gateway.example, gateway"}, 9), false},
	} {
		cases = append(cases, attackCase{49, "Via, " + c.what, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, cacheable, "ok")})
			var fields []string
			for _, line := range c.lines {
				fields = append(fields, "Via: "+line)
			}
			resp := r.get("/a/x", fields...)
			if c.loop {
				assert.Equal(t, 508, resp.Status)
				r.untouched()
				assert.Zero(t, r.cache.Stats().Entries)
				r.recorded(1, onlyFailure(gateway.ReasonLoop))
				return
			}
			assert.Equal(t, 200, resp.Status)
			assert.Equal(t, []string{strings.Join(append(slices.Clone(c.lines), "1.1 gateway"), ", ")}, r.a.Await(1)[0].Header["Via"])
			r.recorded(1, noFailure)
		}})
	}
	return cases
}

// Row 49: a service that is the gateway itself.
func loopCases() []attackCase {
	looping := func(raw string) func(*testing.T) {
		return func(t *testing.T) {
			back, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			r := newRig(t, setup{defaults: []gateway.Option{gateway.WithService("loop", "http://"+back.Addr().String()+"/loop")}})
			srv := &http.Server{Handler: r.gw}
			served := make(chan struct{})
			go func() { defer close(served); _ = srv.Serve(back) }()
			defer func() { _ = srv.Close(); <-served }()

			resp := r.do(raw)
			assert.Equal(t, 508, resp.Status)
			r.recorded(10, map[gateway.Reason]uint64{gateway.ReasonLoop: 1})
			assert.Len(t, r.attempts(), 9, "no storm")
			assert.Zero(t, r.gw.Stats().Retries)
			r.untouched()
		}
	}
	return []attackCase{
		{49, "a service that is the gateway", looping(testnet.Get("/loop/x"))},
		{49, "a service that is the gateway, PUT", looping(testnet.Build("PUT", "/loop/x", "body"))},
		{49, "a service that is the gateway, chunks", looping(testnet.Build("POST", "/loop/x", testnet.Chunks("body"), "Transfer-Encoding: chunked"))},
	}
}
