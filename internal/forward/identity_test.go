package forward

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutboundByConnection(t *testing.T) {
	for _, test := range []struct {
		name string
		set  func(*Inbound)
		want http.Header // nil values: absent
	}{
		{"tls", func(in *Inbound) { in.TLS = true }, http.Header{"X-Forwarded-Proto": {"https"}}},
		{"http/1.0", func(in *Inbound) { in.ProtoMinor = 0; in.Header["Expect"] = []string{"100-continue"} },
			http.Header{"Via": {"1.0 gateway"}, "Expect": nil}},
		{"http/2", func(in *Inbound) { in.ProtoMajor, in.ProtoMinor = 2, 0; in.Header["Expect"] = []string{"100-continue"} },
			http.Header{"Via": {"2.0 gateway"}, "Expect": {"100-continue"}}},
		{"no content to wait for", func(in *Inbound) { in.Content = false; in.Header["Expect"] = []string{"100-continue"} },
			http.Header{"Expect": nil}},
		{"http/3", func(in *Inbound) { in.ProtoMajor, in.ProtoMinor = 3, 0 }, http.Header{"Via": {"3.0 gateway"}}},
		{"unknown version", func(in *Inbound) { in.ProtoMajor, in.ProtoMinor = 0, 9 }, http.Header{"Via": {"1.1 gateway"}}},
		{"upgrade", func(in *Inbound) {
			in.Upgrade = true
			in.Header["Connection"] = []string{"keep-alive, Upgrade"}
			in.Header["Upgrade"] = []string{"WebSocket"}
			in.Header["Te"] = []string{"trailers"}
		}, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}},
		{"no prefix", func(in *Inbound) { in.Prefix = "" }, http.Header{"X-Forwarded-Prefix": nil}},
		{"no request id", func(in *Inbound) { in.RequestID = "" }, http.Header{"X-Request-Id": nil}},
		{"two hosts in one", func(in *Inbound) { in.Host = "a,b" }, http.Header{"X-Forwarded-Host": nil}},
		{"no host", func(in *Inbound) { in.Host = "" }, http.Header{"X-Forwarded-Host": nil}},
		{"ipv6 peer", func(in *Inbound) { in.RemoteAddr = "[2001:db8::1]:80" },
			http.Header{"X-Forwarded-For": {"2001:db8::1"}, "X-Real-Ip": {"2001:db8::1"}}},
		{"mapped peer", func(in *Inbound) { in.RemoteAddr = "[::ffff:203.0.113.9]:80" },
			http.Header{"X-Forwarded-For": {"203.0.113.9"}, "X-Real-Ip": {"203.0.113.9"}}},
		{"peer with a zone", func(in *Inbound) { in.RemoteAddr = "[fe80::1%eth0]:80" },
			http.Header{"X-Forwarded-For": {"fe80::1"}, "X-Real-Ip": {"fe80::1"}}},
		{"peer without a port", func(in *Inbound) { in.RemoteAddr = "203.0.113.9" },
			http.Header{"X-Forwarded-For": {"203.0.113.9"}, "X-Real-Ip": {"203.0.113.9"}}},
		{"unix socket", func(in *Inbound) { in.RemoteAddr = "@" }, http.Header{"X-Forwarded-For": nil, "X-Real-Ip": nil}},
		{"no peer", func(in *Inbound) { in.RemoteAddr = "" }, http.Header{"X-Forwarded-For": nil, "X-Real-Ip": nil}},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := inbound(http.Header{})
			test.set(in)
			want := ours()
			for name, values := range test.want {
				if delete(want, name); values != nil {
					want[name] = values
				}
			}
			require.Equal(t, want, NewRequestRules(config()).Outbound(in, nil))
		})
	}
}

func TestOutboundFromATrustedPeer(t *testing.T) {
	many := func(n int) string { return strings.TrimSuffix(strings.Repeat("192.0.2.1, ", n), ", ") }
	for _, test := range []struct{ name, peer, sent, forwardedFor, realIP, host, proto, prefix string }{
		{name: "nothing said"},
		{name: "one client", sent: "X-Forwarded-For: 192.0.2.1", forwardedFor: "192.0.2.1, 10.0.0.1", realIP: "192.0.2.1"},
		{name: "mapped peer", peer: "[::ffff:10.0.0.1]:1", sent: "X-Forwarded-For: 192.0.2.1", forwardedFor: "192.0.2.1, 10.0.0.1", realIP: "192.0.2.1"},
		{name: "ipv6 peer", peer: "[::1%lo]:1", sent: "X-Forwarded-For: 192.0.2.1", forwardedFor: "192.0.2.1, ::1", realIP: "192.0.2.1"},
		{name: "mapped prefix", peer: "192.168.3.4:1", sent: "X-Forwarded-For: 192.0.2.1", forwardedFor: "192.0.2.1, 192.168.3.4", realIP: "192.0.2.1"},
		{name: "first untrusted from the right", sent: "X-Forwarded-For: 6.6.6.6, 192.0.2.1,10.1.1.1 , ::ffff:10.2.2.2", forwardedFor: "6.6.6.6, 192.0.2.1,10.1.1.1 , ::ffff:10.2.2.2, 10.0.0.1", realIP: "192.0.2.1"},
		{name: "all trusted", sent: "X-Forwarded-For: 10.3.3.3, 10.4.4.4", forwardedFor: "10.3.3.3, 10.4.4.4, 10.0.0.1", realIP: "10.3.3.3"},
		{name: "several lines", sent: "X-Forwarded-For: 192.0.2.1\nX-Forwarded-For: 192.0.2.2, 10.4.4.4", forwardedFor: "192.0.2.1, 192.0.2.2, 10.4.4.4, 10.0.0.1", realIP: "192.0.2.2"},
		{name: "with ports", sent: "X-Forwarded-For: 192.0.2.1:80, [2001:db8::1]:80, [2001:db8::2], 2001:db8::3", forwardedFor: "192.0.2.1:80, [2001:db8::1]:80, [2001:db8::2], 2001:db8::3, 10.0.0.1", realIP: "2001:db8::3"},
		{name: "nominated all the same", sent: "Connection: X-Forwarded-For\nX-Forwarded-For: 192.0.2.1", forwardedFor: "192.0.2.1, 10.0.0.1", realIP: "192.0.2.1"},
		{name: "32 entries", sent: "X-Forwarded-For: " + many(32), forwardedFor: many(32) + ", 10.0.0.1", realIP: "192.0.2.1"},
		{name: "33 entries", sent: "X-Forwarded-For: " + many(33)},
		{name: "200 entries", sent: "X-Forwarded-For: " + many(200)},
		{name: "64 KiB", sent: "X-Forwarded-For: " + strings.Repeat(" ", 64<<10) + "192.0.2.1," + strings.Repeat(" ", 64<<10) + "192.0.2.1"},
		{name: "malformed", sent: `X-Forwarded-For: unknown, "[::1]:x"`},
		{name: "half malformed", sent: "X-Forwarded-For: 192.0.2.1, unknown"},
		{name: "empty", sent: "X-Forwarded-For:"},
		{name: "empty member", sent: "X-Forwarded-For: 192.0.2.1,, 192.0.2.2"},
		{name: "bad port", sent: "X-Forwarded-For: 192.0.2.1:99999"},
		{name: "zone", sent: "X-Forwarded-For: fe80::1%<script>"},
		{name: "host and proto", sent: "X-Forwarded-Host: Outer.example:8443\nX-Forwarded-Proto: HTTPS", host: "Outer.example:8443", proto: "https"},
		{name: "malformed host and proto", sent: "X-Forwarded-Host: a b\nX-Forwarded-Proto: gopher"},
		{name: "lists of hosts and protos", sent: "X-Forwarded-Host: a, b\nX-Forwarded-Proto: https, http"},
		{name: "two hosts and protos", sent: "X-Forwarded-Host: a\nX-Forwarded-Host: b\nX-Forwarded-Proto: https\nX-Forwarded-Proto: http"},
		{name: "prefix", sent: "X-Forwarded-Prefix: /outer/", prefix: "/outer/api/users"},
		{name: "prefix of a slash", sent: "X-Forwarded-Prefix: /"},
		{name: "prefix to another host", sent: "X-Forwarded-Prefix: //evil.test"},
		{name: "prefix with dots", sent: "X-Forwarded-Prefix: /x/../.."},
		{name: "prefix with a backslash", sent: `X-Forwarded-Prefix: /\evil.test`},
		{name: "prefix that is none", sent: "X-Forwarded-Prefix: https://evil.test"},
		{name: "other fields", sent: "X-Forwarded-Port: 1\nX-Forwarded-Server: x\nForwarded: for=1.2.3.4\nX-Real-Ip: 1.2.3.4\nX_Forwarded_For: 1.2.3.4"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := inbound(header(t, test.sent))
			in.RemoteAddr = "10.0.0.1:1"
			if test.peer != "" {
				in.RemoteAddr = test.peer
			}
			or := func(s, otherwise string) []string {
				if s == "" {
					s = otherwise
				}
				return []string{s}
			}
			want := ours()
			want["X-Forwarded-For"] = or(test.forwardedFor, "10.0.0.1")
			want["X-Real-Ip"] = or(test.realIP, "10.0.0.1")
			want["X-Forwarded-Host"] = or(test.host, "app.example")
			want["X-Forwarded-Proto"] = or(test.proto, "http")
			want["X-Forwarded-Prefix"] = or(test.prefix, "/api/users")
			require.Equal(t, want, NewRequestRules(config()).Outbound(in, nil))
		})
	}
	t.Run("claims", func(t *testing.T) {
		in := inbound(header(t, "True-Client-Ip: 192.0.2.1\nTrue_Client_Ip: 6.6.6.6"))
		in.RemoteAddr = "10.0.0.1:1"
		out := NewRequestRules(config()).Outbound(in, nil)
		require.Equal(t, []string{"192.0.2.1"}, out["True-Client-Ip"])
		require.NotContains(t, out, "True_client_ip")
	})
}

func TestLooping(t *testing.T) {
	rules := NewRequestRules(config()) // more than 2
	for _, test := range []struct {
		via  []string
		want bool
	}{
		{nil, false},
		{[]string{"1.1 gateway, 1.1 gateway"}, false},
		{[]string{"1.1 gateway, 1.1 gateway, 1.1 gateway"}, true},
		{[]string{"1.1 gateway", "1.0 other", "2.0 GATEWAY , HTTP/1.1\t gateway (comment)"}, true},
		{[]string{"1.1 gateway(c),1.1 gateway(c),1.1 gateway(c)"}, true},
		{[]string{"1.1 x (unclosed, 1.1 gateway, 1.1 gateway, 1.1 gateway"}, true},
		{[]string{"1.1 gateway2, 1.1 a.gateway, gateway, 1.1, ,, gateway 1.1, 1.1 gateway-x"}, false},
	} {
		require.Equal(t, test.want, rules.Looping(http.Header{"Via": test.via}), "%q", test.via)
	}
	require.False(t, NewRequestRules(RequestConfig{}).Looping(http.Header{"Via": {"1.1 , 1.1 "}}))
}

// A header that went through often enough is a loop, whatever a client had put in front.
func TestLoopIsFoundInOwnVia(t *testing.T) {
	rules := NewRequestRules(config())
	for _, start := range []string{"", "1.1 x (", "\"", "1.1 x (\\", ","} {
		h := http.Header{}
		if start != "" {
			h["Via"] = []string{start}
		}
		hops := 0
		for ; !rules.Looping(h); hops++ {
			require.Less(t, hops, 10, start)
			h = rules.Outbound(inbound(h), nil)
		}
		require.Equal(t, 3, hops, start)
	}
}

func TestValidHost(t *testing.T) {
	for _, host := range []string{"a", "a.example", "A-b_c.example:8080", "127.0.0.1:80", "[::1]", "[2001:db8::1]:443", "xn--bcher-kva.example", strings.Repeat("a", 255)} {
		require.True(t, ValidHost(host), host)
	}
	for _, host := range []string{"", ":", ":80", "a:", "a:b", "a:123456", "a:-1", "a,b", "a@b", "a/b", "a b", "a\tb", "a\\b", "a?b", "a#b", "\xff", "bücher.example",
		"[::1", "::1", "[::1]x", "[::1]:", "[fe80::1%eth0]", "[1.2.3.4]", "[]", "[]:80", "a%2eb", "a\x00", "<a>", "\"a\"", strings.Repeat("a", 256)} {
		require.False(t, ValidHost(host), host)
	}
}
