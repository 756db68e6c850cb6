package forward

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func prefixes(cidrs ...string) (p []netip.Prefix) {
	for _, cidr := range cidrs {
		p = append(p, netip.MustParsePrefix(cidr))
	}
	return p
}

// config is that of a service with a token, behind proxies in 10.0.0.0/8 and ::1.
func config() RequestConfig {
	return RequestConfig{
		Set:             http.Header{"X-Api-Key": {"ours"}, "authorization": {"Bearer ours"}},
		Drop:            []string{"X-Secret-Token"},
		Trusted:         prefixes("10.0.0.0/8", "::1/128", "::ffff:192.168.0.0/112"),
		Via:             "gateway",
		MaxHops:         2,
		RequestIDHeader: "X-Request-Id",
	}
}

func inbound(h http.Header) *Inbound {
	return &Inbound{
		Header: h, RemoteAddr: "203.0.113.7:4711", Host: "app.example", ProtoMajor: 1, ProtoMinor: 1,
		Prefix: "/api/users", RequestID: "id-1", Content: true,
	}
}

// ours is what every request of inbound carries under the rules of config.
func ours() http.Header {
	return http.Header{
		"Authorization": {"Bearer ours"}, "X-Api-Key": {"ours"},
		"Via": {"1.1 gateway"}, "X-Request-Id": {"id-1"}, "User-Agent": {""},
		"X-Forwarded-For": {"203.0.113.7"}, "X-Real-Ip": {"203.0.113.7"},
		"X-Forwarded-Host": {"app.example"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Prefix": {"/api/users"},
	}
}

// header reads header lines as net/http's server does.
func header(t testing.TB, lines string) http.Header {
	lines = strings.ReplaceAll(strings.TrimRight(lines, "\n"), "\n", "\r\n")
	if lines != "" {
		lines += "\r\n"
	}
	r := parse("GET / HTTP/1.1\r\nHost: h\r\n" + lines + "\r\n")
	require.NotNil(t, r, "%q", lines)
	return r.Header
}

// hygiene is what a client sends and what of it reaches the upstream besides ours. It also seeds FuzzOutbound.
var hygiene = []struct {
	name, sent string
	want       http.Header
}{
	{"nothing", "", nil},
	{"ordinary fields pass", "Accept: */*\nAccept: text/html\nCookie: a=b\nX-Custom: 1\nMax-Forwards: 3\nDate: x\nIf-None-Match: \"a\"\nReferer: /x\nSec-Websocket-Key: k",
		http.Header{"Accept": {"*/*", "text/html"}, "Cookie": {"a=b"}, "X-Custom": {"1"}, "Max-Forwards": {"3"}, "Date": {"x"}, "If-None-Match": {`"a"`}, "Referer": {"/x"}, "Sec-Websocket-Key": {"k"}}},
	{"user agent passes", "User-Agent: curl", http.Header{"User-Agent": {"curl"}}},
	{"empty user agent passes", "User-Agent:", http.Header{"User-Agent": {""}}},
	{"odd names pass", "X_Custom: 1\n_x: 2\nX-Trail-: 3\nX.Dotted: 4", http.Header{"X_custom": {"1"}, "_x": {"2"}, "X-Trail-": {"3"}, "X.dotted": {"4"}}},
	{"trace context passes", "Traceparent: 00-a\nTracestate: b", http.Header{"Traceparent": {"00-a"}, "Tracestate": {"b"}}},
	{"baggage does not", "Baggage: a=b", nil},

	// RFC 9110 §7.6.1
	{"hop by hop", "Connection: close\nKeep-Alive: x\nProxy-Connection: x\nProxy-Authorization: x\nProxy-Authenticate: x\nTransfer-Encoding: chunked\nTe: gzip\nTrailer: X-T\nUpgrade: foo", nil},
	{"nominated", "Connection: X-One, x-two\nX-One: 1\nX-Two: 2\nX-Three: 3", http.Header{"X-Three": {"3"}}},
	{"nominated over lines, with noise", "Connection: close, ,,x-one\t ,\nConnection: ,X-TWO,,\nX-One: 1\nX-Two: 2", nil},
	{"nominated twice", "Connection: X-One, X-One\nX-One: 1\nX-One: 2", nil},
	{"nominating ours", "Connection: close, X-Forwarded-For, Authorization, X-Real-IP, via, x-api-key, X-Request-Id, X-Forwarded-Proto, User-Agent, host", nil},
	{"nominating a cookie", "Connection: cookie\nCookie: a", nil},
	{"nominating odd names", "Connection: X_One, \"x\", (c)\nX_One: 1", nil},
	{"framing is the sender's", "Content-Length: 5", nil},
	{"te trailers", "TE: gzip;q=0.5, Trailers", http.Header{"Te": {"trailers"}}},
	{"te on a second line", "TE: deflate\nTE: trailers", http.Header{"Te": {"trailers"}}},
	{"te trailers nominated", "Connection: TE\nTE: trailers", http.Header{"Te": {"trailers"}}},
	{"te that only looks so", "TE: xtrailers, trailers2", nil},
	{"h2c", "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: x", nil},
	{"h2c without nomination", "Upgrade: h2c\nHTTP2-Settings: x", nil},
	{"websocket that was not found to be one", "Connection: Upgrade\nUpgrade: websocket", nil},

	// RFC 9110 §10.1.1
	{"expect continue", "Expect: 100-Continue", http.Header{"Expect": {"100-continue"}}},
	{"expect other", "Expect: banana", nil},
	{"expect twice", "Expect: 100-continue\nExpect: banana", nil},

	// identity
	{"httpoxy", "Proxy: http://evil", nil},
	{"forwarding fields", "Forwarded: for=1.2.3.4\nX-Forwarded-For: 1.2.3.4\nX-Forwarded-Host: e\nX-Forwarded-Proto: https\nX-Forwarded-Prefix: /e\nX-Forwarded-Port: 1\nX-Forwarded-Server: e\nX-Forwarded-Ssl: on\nX-Forwarded: x\nX-Real-IP: 1.2.3.4", nil},
	{"claims", "True-Client-Ip: 1\nX-Client-Ip: 1\nClient-Ip: 1\nX-Cluster-Client-Ip: 1", nil},
	{"injected", "Authorization: Bearer theirs\nX-Api-Key: theirs\nX-Secret-Token: theirs", nil},
	{"injected twice", "Authorization: a\nAuthorization: b", nil},
	{"request id", "X-Request-Id: theirs", nil},
	{"overrides", "X-HTTP-Method-Override: DELETE\nX-HTTP-Method: PUT\nX-Method-Override: PUT\nX-Original-URL: /admin\nX-Rewrite-URL: /admin\nX-Host: e\nX-Original-Host: e\nX-HTTP-Host-Override: e", nil},
	{"via is extended", "Via: 1.0 fred, 1.1 p.example\nVia: 2 x", http.Header{"Via": {"1.0 fred, 1.1 p.example, 2 x, 1.1 gateway"}}},

	// names that a server may take for another: CVE-2025-64484, CVE-2026-39858
	{"underscores", "X_Forwarded_For: 1\nX-Forwarded_Proto: https\nx_forwarded_Host: e\nX_Real_IP: 1\nX_Auth_Token: t\nX_Api_Key: theirs\nX_Request_Id: theirs\nX_Secret-Token: theirs\nContent_Length: 5\nTransfer_Encoding: chunked\nX_HTTP_Method_Override: PUT\nX_Original_URL: /\nProxy_Authorization: x\nX_Forwarded_Anything: 1", nil},
	{"underscores at the ends", "authorization_: t\n_authorization: t\nauthorization__: t\ncookie_: c\nHost_: h\n_Via: 1\nX-Real-Ip-: 1\n-X-Api-Key: 1", nil},
	{"other punctuation", "X.Forwarded.For: 1\nX!Real!Ip: 1\nX+Api+Key: 1\nx~auth~token: 1\nauthorization.: t\nTransfer.Encoding: chunked", nil},
	{"x-auth-token itself", "X-Auth-Token: t", http.Header{"X-Auth-Token": {"t"}}},
}

func TestOutbound(t *testing.T) {
	rules := NewRequestRules(config())
	for _, test := range hygiene {
		t.Run(test.name, func(t *testing.T) {
			in := inbound(header(t, test.sent))
			before := in.Header.Clone()
			want := ours()
			maps.Copy(want, test.want)
			require.Equal(t, want, rules.Outbound(in, nil))
			require.Equal(t, before, in.Header, "the inbound header is read only")
		})
	}
}

func TestOutboundWithoutRules(t *testing.T) {
	in := &Inbound{Header: header(t, "Authorization: theirs\nX-Request-Id: theirs\nVia: 1.1 x\nauthorization_: twin")}
	require.Equal(t, http.Header{
		"Authorization": {"theirs"}, "X-Request-Id": {"theirs"}, "X-Forwarded-Proto": {"http"}, "User-Agent": {""},
	}, NewRequestRules(RequestConfig{}).Outbound(in, nil))
}

func TestOutboundBaggageWhenAsked(t *testing.T) {
	rules := NewRequestRules(RequestConfig{Baggage: true})
	out := rules.Outbound(&Inbound{Header: http.Header{"Baggage": {"a=b"}, "Baggage_": {"c=d"}}}, nil)
	require.Equal(t, []string{"a=b"}, out["Baggage"])
	require.NotContains(t, out, "Baggage_")
}

// A header map that did not come from net/http's parser may hold names in any case.
func TestOutboundFoldsCase(t *testing.T) {
	rules := NewRequestRules(config())
	out := rules.Outbound(inbound(http.Header{
		"authorization": {"theirs"}, "X-FORWARDED-FOR": {"1.2.3.4"}, "transfer-encoding": {"chunked"}, "x-api-key": {"theirs"}, "": {"x"},
	}), nil)
	want := ours()
	want[""] = []string{"x"}
	require.Equal(t, want, out)
}

// What is done with an outbound header never reaches the inbound one, the rules, or another field.
func TestOutboundSharesNothingThatGrows(t *testing.T) {
	for _, clone := range []bool{false, true} {
		c := config()
		c.Clone = clone
		rules := NewRequestRules(c)
		values := make([]string, 1, 8)
		values[0] = "1"
		in := inbound(http.Header{"X-Custom": values})
		out := rules.Outbound(in, nil)
		for name := range out {
			out.Add(name, "added")
			if clone {
				out[name][0] = "changed"
			}
		}
		if clone {
			require.Equal(t, http.Header{"X-Custom": {"1"}}, in.Header)
		}
		require.Empty(t, values[:2][1])
		want := ours()
		want["X-Custom"] = []string{"1"}
		require.Equal(t, want, rules.Outbound(inbound(http.Header{"X-Custom": {"1"}}), nil))
	}
}

func TestNewRequestRulesKeepsNoReference(t *testing.T) {
	c := config()
	rules := NewRequestRules(c)
	c.Set["X-Api-Key"][0] = "changed"
	c.Set.Set("X-New", "new")
	require.Equal(t, ours(), rules.Outbound(inbound(http.Header{}), nil))
}

var upgrades = []struct {
	head, proto string
	err         error
}{
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket", "websocket", nil},
	{"GET / HTTP/1.1\nConnection: keep-alive, upgrade\nUpgrade: WebSocket", "websocket", nil},
	{"GET / HTTP/1.1\nConnection: keep-alive\nConnection: Upgrade\nUpgrade: websocket\nContent-Length: 0", "websocket", nil},
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket\nContent-Length: 5", "", ErrUpgradeBody},
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket\nTransfer-Encoding: chunked", "", ErrUpgradeBody},
	{"GET / HTTP/1.1", "", nil},
	{"GET / HTTP/1.1\nUpgrade: websocket", "", nil},
	{"GET / HTTP/1.1\nConnection: close\nUpgrade: websocket", "", nil},
	{"GET / HTTP/1.1\nConnection: Upgrade", "", nil},
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade:", "", nil},
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: h2c", "", nil},
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: h2c\nContent-Length: 5", "", nil},
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: TLS/1.0", "", nil},
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: foo", "", nil},
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket, h2c", "", nil},
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: h2c, websocket", "", nil},
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket,", "", nil},
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket/13", "", nil},
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket\nUpgrade: websocket", "", nil},
	{"GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket\nUpgrade: h2c", "", nil},
	{"GET / HTTP/1.0\nConnection: Upgrade\nUpgrade: websocket", "", nil},
	{"POST / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket", "", nil},
	{"POST / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket\nContent-Length: 5", "", nil},
	{"HEAD / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket", "", nil},
	{"get / HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket", "", nil},
}

func head(lines string) string {
	return strings.ReplaceAll(lines, "\n", "\r\n") + "\r\nHost: h\r\n\r\n"
}

func TestUpgrade(t *testing.T) {
	for _, test := range upgrades {
		t.Run(test.head, func(t *testing.T) {
			r := parse(head(test.head))
			require.NotNil(t, r)
			proto, err := Upgrade(r)
			require.Equal(t, test.proto, proto)
			require.ErrorIs(t, err, test.err)
		})
	}
	h2 := &http.Request{Method: "GET", ProtoMajor: 2, Header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}}
	proto, err := Upgrade(h2)
	require.NoError(t, err)
	require.Empty(t, proto)
}

func TestOneLength(t *testing.T) {
	for _, test := range []struct {
		lengths []string
		want    bool
	}{
		{nil, true}, {[]string{"0"}, true}, {[]string{"5"}, true}, {[]string{"005"}, true}, {[]string{"5", "5"}, true},
		{[]string{"5", "6"}, false}, {[]string{"+5"}, false}, {[]string{"-5"}, false}, {[]string{""}, false}, {[]string{"", ""}, false},
		{[]string{"five"}, false}, {[]string{"5, 5"}, false}, {[]string{"0x5"}, false}, {[]string{" 5"}, false},
	} {
		require.Equal(t, test.want, OneLength(http.Header{"Content-Length": test.lengths}), "%q", test.lengths)
	}
	require.True(t, OneLength(nil))
}

func TestSurvey(t *testing.T) {
	fields, bytes, _ := Survey(http.Header{"A": {"1", "22"}, "Bb": {""}, "C": nil})
	require.Equal(t, 3, fields)
	require.Equal(t, len("A: 1\r\nA: 22\r\nBb: \r\n"), bytes)
}

func TestRequestID(t *testing.T) {
	for _, test := range []struct {
		values []string
		want   string
	}{
		{nil, ""},
		{[]string{""}, ""},
		{[]string{"01890a5d-ac96-774b-bcce-b302099a8057"}, "01890a5d-ac96-774b-bcce-b302099a8057"},
		{[]string{"Az09-._~:/+=@"}, "Az09-._~:/+=@"},
		{[]string{strings.Repeat("x", 128)}, strings.Repeat("x", 128)},
		{[]string{strings.Repeat("x", 129)}, ""},
		{[]string{"a", "b"}, ""},
		{[]string{"a b"}, ""},
		{[]string{"a,b"}, ""},
		{[]string{`a"b`}, ""},
		{[]string{`a\b`}, ""},
		{[]string{"a'b"}, ""},
		{[]string{"a;b"}, ""},
		{[]string{"<b>"}, ""},
		{[]string{"a%0a"}, ""},
		{[]string{"a\x1b[2J"}, ""},
		{[]string{"a\u2028"}, ""},
		{[]string{"a\xff"}, ""},
	} {
		require.Equal(t, test.want, RequestID(http.Header{"X-Request-Id": test.values}, "X-Request-Id"), "%q", test.values)
	}
}

func TestCheckValue(t *testing.T) {
	for _, value := range []string{"", "x", "Bearer a.b-c_d~e+f/g==", "a b\tc", strings.Repeat("x", 64<<10)} {
		require.NoError(t, CheckValue(value))
	}
	for _, value := range []string{"secret\r\nX-Evil: 1", "secret\n", "secret\x00", "secret ", " secret", "\tsecret", "secret\x7f", "secret\xff", "secret\x1b", strings.Repeat("secret", 12_000)} {
		err := CheckValue(value)
		require.Error(t, err, "%q", value)
		require.NotContains(t, err.Error(), "secret")
	}
}

// FuzzOutbound holds Outbound against the rules stated another way.
func FuzzOutbound(f *testing.F) {
	for _, test := range hygiene {
		f.Add(test.sent, "203.0.113.7:1", false)
		f.Add(test.sent, "10.0.0.1:1", true)
	}
	rules := NewRequestRules(config())
	f.Fuzz(func(t *testing.T, sent, peer string, upgrade bool) {
		r := parse("GET / HTTP/1.1\r\nHost: h\r\n" + sent + "\r\n\r\n")
		if r == nil {
			if r = parse(head("GET / HTTP/1.1\n" + sent)); r == nil {
				return
			}
		}
		in := inbound(r.Header)
		in.RemoteAddr, in.Upgrade = peer, upgrade
		before := in.Header.Clone()
		out := rules.Outbound(in, nil)
		if !reflect.DeepEqual(before, in.Header) {
			t.Fatal("the inbound header was written to")
		}

		nominated := strings.Split(strings.ToLower(strings.Join(in.Header["Connection"], ",")), ",")
		for name, values := range out {
			if slices.Contains([]string{"Via", "X-Forwarded-For", "X-Real-Ip", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix",
				"X-Request-Id", "Authorization", "X-Api-Key", "Te", "Expect", "Connection", "Upgrade"}, name) {
				if len(values) != 1 {
					t.Fatalf("%s is not ours alone: %q", name, values)
				}
				continue
			}
			if name == "User-Agent" && in.Header["User-Agent"] == nil {
				continue
			}
			if !reflect.DeepEqual(values, in.Header[name]) {
				t.Fatalf("%q: %q came from nowhere", name, values)
			}
			for _, n := range nominated {
				if strings.Trim(n, " \t") == strings.ToLower(name) {
					t.Fatalf("%q was nominated", name)
				}
			}
			careless := strings.Trim(strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name)), "-")
			for _, managed := range []string{"authorization", "x-api-key", "x-secret-token", "x-request-id", "x-real-ip", "forwarded", "te", "via", "host",
				"content-length", "transfer-encoding", "connection", "upgrade", "trailer", "proxy", "proxy-authorization", "keep-alive", "expect"} {
				if careless == managed || strings.HasPrefix(careless, "x-forwarded-") {
					t.Fatalf("%q passes for %s", name, managed)
				}
			}
		}
		if out.Get("Authorization") != "Bearer ours" || out.Get("X-Api-Key") != "ours" || out.Get("X-Request-Id") != "id-1" || !strings.HasSuffix(out.Get("Via"), "1.1 gateway") {
			t.Fatalf("ours are not there: %v", out)
		}
		if upgrade != (out.Get("Connection") == "Upgrade" && out.Get("Upgrade") == "websocket") || !upgrade && (out["Connection"] != nil || out["Upgrade"] != nil) {
			t.Fatalf("upgrade %v: %v", upgrade, out)
		}
		if te := out.Get("Te"); te != "" && te != "trailers" {
			t.Fatal(te)
		}
		if addr, ok := parseAddr(out.Get("X-Real-Ip")); out["X-Real-Ip"] != nil && (!ok || !addr.IsValid()) {
			t.Fatal(out["X-Real-Ip"])
		}
		rules.Looping(in.Header)
		rules.Trailers(in.Header)
	})
}

func TestMaxForwards(t *testing.T) {
	for _, tt := range []struct {
		values []string
		ends   bool
		sent   []string
	}{
		{nil, false, nil},
		{[]string{"0"}, true, []string{"0"}},
		{[]string{"000"}, true, []string{"000"}},
		{[]string{"1"}, false, []string{"0"}},
		{[]string{"010"}, false, []string{"9"}},
		{[]string{"99999999999999999999"}, false, []string{"1073741823"}},
		{[]string{""}, false, []string{""}},
		{[]string{"-1"}, false, []string{"-1"}},
		{[]string{"1, 0"}, false, []string{"1, 0"}},
		{[]string{"0", "0"}, false, []string{"0", "0"}},
	} {
		h := http.Header{"Max-Forwards": tt.values}
		require.Equal(t, tt.ends, EndsHere(h), tt.values)
		CountHop(h)
		require.Equal(t, tt.sent, h["Max-Forwards"])
	}
}

// What a hook leaves is sent as it is, but for what whoever sends it writes itself.
func TestSettle(t *testing.T) {
	for _, tt := range []struct {
		name, host string
		header     http.Header
		want       http.Header
		fault      string
	}{
		{name: "nothing", host: "h:80", header: http.Header{}, want: http.Header{}},
		{name: "what may be sent", host: "h", header: http.Header{"X-A": {"1", "\xe9\t2", ""}, "x-b": {""}, "Te": {"trailers"}, "Connection": {"close"}}, want: http.Header{"X-A": {"1", "\xe9\t2", ""}, "x-b": {""}, "Te": {"trailers"}, "Connection": {"close"}}},
		{name: "framing", host: "h", header: http.Header{"Content-Length": {"5"}, "content-length": {"6"}, "Content_Length": {"7"}, "Transfer-Encoding": {"chunked"}, "Trailer": {"X"}, "X-A": {"1"}}, want: http.Header{"X-A": {"1"}}},
		{name: "Host", host: "h", header: http.Header{"Host": {"other"}, "HOST": {"other"}}, want: http.Header{}},
		{name: "a host with a space", host: "a b", fault: `host "a b" has bytes that are not visible ASCII`},
		{name: "a host that ends the line", host: "a\r\nX: y", fault: `host "a\r\nX: y" has bytes that are not visible ASCII`},
		{name: "a host outside ASCII", host: "b\u00fccher.test", fault: `host "bücher.test" has bytes that are not visible ASCII`},
		{name: "a name that is none", host: "h", header: http.Header{"X A": {"secret"}}, fault: `field name "X A" is not a token`},
		{name: "an empty name", host: "h", header: http.Header{"": {"secret"}}, fault: `field name "" is not a token`},
		{name: "a value that ends the line", host: "h", header: http.Header{"X-A": {"1", "secret\r\nX-B: 2"}}, fault: "value of field X-A has a control byte"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Settle(tt.header, tt.host)
			if tt.fault != "" {
				require.EqualError(t, err, tt.fault)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, tt.header)
		})
	}
}

func FuzzUpgrade(f *testing.F) {
	for _, test := range upgrades {
		f.Add(test.head)
	}
	f.Fuzz(func(t *testing.T, lines string) {
		r := parse(head(lines))
		if r == nil {
			return
		}
		proto, err := Upgrade(r)
		offers := r.Header.Values("Upgrade")
		switch {
		case proto == "" && err == nil:
		case r.Method != "GET" || !r.ProtoAtLeast(1, 1) || len(offers) != 1 || !strings.EqualFold(offers[0], "websocket") ||
			!strings.Contains(strings.ToLower(strings.Join(r.Header["Connection"], ",")), "upgrade"):
			t.Fatalf("%q, %v for %q", proto, err, lines)
		case (err != nil) == (r.ContentLength == 0):
			t.Fatalf("%q, %v with %d bytes", proto, err, r.ContentLength)
		case err == nil && proto != "websocket":
			t.Fatal(proto)
		}
	})
}

// typical is what a browser sends.
func typical() http.Header {
	return http.Header{
		"Accept":          {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
		"Accept-Encoding": {"gzip, deflate, br, zstd"},
		"Accept-Language": {"en-GB,en;q=0.5"},
		"Connection":      {"keep-alive"},
		"Cookie":          {"session=0123456789abcdef"},
		"Referer":         {"https://app.example/list"},
		"Sec-Fetch-Dest":  {"document"},
		"Sec-Fetch-Mode":  {"navigate"},
		"User-Agent":      {"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
	}
}

func TestOutboundAllocations(t *testing.T) {
	rules := NewRequestRules(config())
	in := inbound(typical())
	allocations(t, 6, func() { rules.Outbound(in, nil) })
	var s Scratch
	allocations(t, 0, func() { rules.Outbound(in, &s) })
	allocations(t, 0, func() { rules.Looping(in.Header) })
}

func BenchmarkOutbound(b *testing.B) {
	hostile := typical()
	var nominated []string
	for i := range 90 {
		name := fmt.Sprintf("X_Forwarded-%d", i)
		hostile[name] = []string{"x"}
		nominated = append(nominated, name)
	}
	hostile["Connection"] = []string{strings.Join(nominated, ",")}
	for _, bench := range []struct {
		name, peer string
		header     http.Header
	}{
		{"request=small", "203.0.113.7:4711", http.Header{"User-Agent": {"curl"}, "Accept": {"*/*"}}},
		{"request=typical", "203.0.113.7:4711", typical()},
		{"request=proxied", "10.0.0.1:4711", func() http.Header {
			h := typical()
			h.Set("X-Forwarded-For", "192.0.2.1, 10.0.0.2")
			h.Set("X-Forwarded-Proto", "https")
			return h
		}()},
		{"request=hostile", "203.0.113.7:4711", hostile},
	} {
		b.Run(bench.name, func(b *testing.B) {
			rules := NewRequestRules(config())
			in := inbound(bench.header)
			in.RemoteAddr = bench.peer
			b.ReportAllocs()
			for b.Loop() {
				rules.Outbound(in, nil)
			}
		})
	}
}
