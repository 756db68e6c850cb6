package forward

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestForwarded(t *testing.T) {
	t.Parallel()
	chain := func(n int) string { return strings.TrimSuffix(strings.Repeat("for=a,", n), ",") }
	for _, tt := range []struct {
		name, peer, host, sent, want string
		tls                          bool
	}{
		{name: "who, what and how", want: "for=192.0.2.7;host=app.example;proto=http;by=_gateway"},                                             // §4
		{name: "over TLS", tls: true, want: "for=192.0.2.7;host=app.example;proto=https;by=_gateway"},                                          // §5.4
		{name: "IPv6 in brackets and quotes", peer: "[2001:db8::1]:4711", want: `for="[2001:db8::1]";host=app.example;proto=http;by=_gateway`}, // §6.1
		{name: "no zone", peer: "[fe80::1%eth0]:1", want: `for="[fe80::1]";host=app.example;proto=http;by=_gateway`},
		{name: "mapped", peer: "[::ffff:192.0.2.7]:1", want: "for=192.0.2.7;host=app.example;proto=http;by=_gateway"},
		{name: "no address", peer: "@", want: "for=unknown;host=app.example;proto=http;by=_gateway"},                               // §6.2
		{name: "a port is quoted", host: "app.example:8080", want: `for=192.0.2.7;host="app.example:8080";proto=http;by=_gateway`}, // §4
		{name: "so is an IPv6 host", host: "[::1]:80", want: `for=192.0.2.7;host="[::1]:80";proto=http;by=_gateway`},               // §4
		{name: "a host that is none", host: `a";for=evil`, want: "for=192.0.2.7;proto=http;by=_gateway"},                           // §5.3
		{name: "the client's own", sent: "Forwarded: for=evil", want: "for=192.0.2.7;host=app.example;proto=http;by=_gateway"},     // §8.1
		{name: "the client's twin", sent: "forwarded_: for=evil", want: "for=192.0.2.7;host=app.example;proto=http;by=_gateway"},
		{name: "the client's others", sent: "X-Forwarded-For: 6.6.6.6\nX-Forwarded-Host: evil", want: "for=192.0.2.7;host=app.example;proto=http;by=_gateway"},

		{name: "continued", peer: "10.0.0.1:1", sent: "Forwarded: for=192.0.2.1;proto=https;host=outer", want: "for=192.0.2.1;proto=https;host=outer, for=10.0.0.1;host=app.example;proto=http;by=_gateway"}, // §4
		{name: "several lines", peer: "10.0.0.1:1", sent: "Forwarded: for=a\nForwarded: for=b , for=c", want: "for=a, for=b , for=c, for=10.0.0.1;host=app.example;proto=http;by=_gateway"},                  // §7.1
		{name: "quoted", peer: "10.0.0.1:1", sent: `Forwarded: For="[2001:db8::1]:4711";x="a,\"b;c"`, want: `For="[2001:db8::1]:4711";x="a,\"b;c", for=10.0.0.1;host=app.example;proto=http;by=_gateway`},    // §4
		{name: "obfuscated", peer: "10.0.0.1:1", sent: "Forwarded: for=_hidden, for=unknown", want: "for=_hidden, for=unknown, for=10.0.0.1;host=app.example;proto=http;by=_gateway"},                        // §6.2, §6.3
		{name: "the other fields say nothing then", peer: "10.0.0.1:1", sent: "Forwarded: for=a\nX-Forwarded-Host: outer\nX-Forwarded-For: 192.0.2.1", want: "for=a, for=10.0.0.1;host=app.example;proto=http;by=_gateway"},
		{name: "32 elements", peer: "10.0.0.1:1", sent: "Forwarded: " + chain(32), want: chain(32) + ", for=10.0.0.1;host=app.example;proto=http;by=_gateway"},
		{name: "33 elements", peer: "10.0.0.1:1", sent: "Forwarded: " + chain(33), want: "for=10.0.0.1;host=app.example;proto=http;by=_gateway"},
		{name: "too long", peer: "10.0.0.1:1", sent: "Forwarded: for=" + strings.Repeat("a", 3000), want: "for=10.0.0.1;host=app.example;proto=http;by=_gateway"},
		{name: "malformed", peer: "10.0.0.1:1", sent: `Forwarded: for="a`, want: "for=10.0.0.1;host=app.example;proto=http;by=_gateway"},

		{name: "from X-Forwarded-For", peer: "10.0.0.1:1", sent: "X-Forwarded-For: 192.0.2.1, 2001:db8::1", want: `for=192.0.2.1;host=app.example;proto=http, for="[2001:db8::1]", for=10.0.0.1;by=_gateway`}, // §7.4
		{name: "and where it came in", peer: "10.0.0.1:1", sent: "X-Forwarded-For: 192.0.2.1\nX-Forwarded-Host: outer:81\nX-Forwarded-Proto: https", want: `for=192.0.2.1;host="outer:81";proto=https, for=10.0.0.1;by=_gateway`},
		{name: "which may be all", peer: "10.0.0.1:1", sent: "X-Forwarded-Host: outer\nX-Forwarded-Proto: https", want: "for=10.0.0.1;host=outer;proto=https;by=_gateway"},
		{name: "malformed X-Forwarded-For", peer: "10.0.0.1:1", sent: "X-Forwarded-For: evil", want: "for=10.0.0.1;host=app.example;proto=http;by=_gateway"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := Inbound{Header: http.Header{}, RemoteAddr: "192.0.2.7:4711", Host: "app.example", TLS: tt.tls, ProtoMajor: 1, ProtoMinor: 1}
			if tt.peer != "" {
				in.RemoteAddr = tt.peer
			}
			if tt.host != "" {
				in.Host = tt.host
			}
			for line := range strings.Lines(tt.sent) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				in.Header[name] = append(in.Header[name], value)
			}
			c := RequestConfig{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Via: "gateway", Forwarded: true}
			h := NewRequestRules(c).Outbound(&in, nil)
			require.Equal(t, []string{tt.want}, h["Forwarded"])
			require.True(t, validForwarded(h["Forwarded"]) || strings.Count(tt.want, "for=") > maxChain, "others would continue it")
			require.Len(t, h["X-Forwarded-Proto"], 1, "they are sent as ever")
			c.Forwarded = false
			require.Empty(t, NewRequestRules(c).Outbound(&in, nil)["Forwarded"])
		})
	}
}

var forwardedLines = []struct {
	line string
	ok   bool
}{
	{"for=a", true}, {" for=a ", true}, {"for=a;by=b;host=c;proto=d", true}, {`for="a b"`, true}, {`for="\""`, true}, {"for=a,for=b", true}, {"x=y", true},
	{"", false}, {" ", false}, {"for", false}, {"for=", false}, {`for=""`, false}, {"=a", false}, {"for =a", false}, {"for= a", false}, {"for=a;", false},
	{"for=a;;by=b", false}, {"for=a,", false}, {",for=a", false}, {"for=a b", false}, {`for="a"b`, false}, {`for="a`, false}, {`for="a\`, false},
	{"for=a;For=b", false}, {"x=a;y=b;X=c", false}, {"for=a:1", false}, {"for=[::1]", false}, {"for=\"\x00\"", false}, {"for=\"\\\x7f\"", false}, {"for=\xff", false},
}

func TestForwardedGrammar(t *testing.T) {
	t.Parallel()
	for _, tt := range forwardedLines {
		require.Equal(t, tt.ok, validForwarded([]string{tt.line}), "%q", tt.line)
	}
	require.False(t, validForwarded(nil))
}

func FuzzForwarded(f *testing.F) {
	for _, tt := range forwardedLines {
		f.Add(tt.line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if !validForwarded([]string{line}) {
			return
		}
		require.LessOrEqual(t, len(line), maxChainBytes)
		require.False(t, strings.ContainsFunc(line, func(c rune) bool { return c < ' ' && c != '\t' || c > '~' }), "%q", line)
		require.True(t, validForwarded([]string{line + ", for=a"}) || strings.Count(line, ",") >= maxChain-1 || len(line) > maxChainBytes-7, "what follows is an element of its own: %q", line)
		require.Zero(t, strings.Count(strings.ReplaceAll(strings.ReplaceAll(line, `\\`, ""), `\"`, ""), `"`)%2, "quotes are closed: %q", line)
	})
}
