package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// targetCases are section 2: target, method and routing.
func targetCases() []attackCase {
	var cases []attackCase
	for _, more := range [][]attackCase{
		targetFormCases(), prefaceCases(), asteriskCases(), redirectCases(), encodedSlashCases(), dotSegmentCases(), lineBreakCases(), strayByteCases(),
		letterCases(),
	} {
		cases = append(cases, more...)
	}
	return cases
}

// refused sends a GET that the gateway answers by itself, without a body that
// would matter: the connection goes on, and no upstream hears of it.
func refused(target string, status int, reason gateway.Reason) func(*testing.T) {
	return func(t *testing.T) {
		r := newRig(t, setup{})
		tr := r.exchange(testnet.Get(target) + testnet.Get("/b/next", "Connection: close"))
		require.Equal(t, []int{status, 200}, tr.Statuses(), "%v", tr)
		assert.Empty(t, tr.Responses[0].Header["Location"])
		assert.Empty(t, string(r.a.JournalBytes()))
		require.Len(t, r.b.Await(1), 1)
		assert.Equal(t, "/next", r.b.Journal()[0].Target)
		assert.Zero(t, r.cache.Stats().Entries)
		r.recorded(2, onlyFailure(reason))
		r.legible()
	}
}

// forwarded sends a GET whose target reaches a as want, byte for byte.
func forwarded(target, want string) func(*testing.T) {
	return func(t *testing.T) {
		r := newRig(t, setup{})
		resp := r.get(target)
		assert.Equal(t, 200, resp.Status)
		sent := r.a.Await(1)[0]
		line, _, _ := strings.Cut(sent.Head, "\r\n")
		assert.Equal(t, "GET "+want+" HTTP/1.1", line)
		assert.Len(t, r.a.Journal(), 1)
		assert.Zero(t, r.b.Begun())
		r.recorded(1, noFailure)
		r.legible()
	}
}

// legible checks that spans and log lines hold nothing that an exporter or a
// terminal could stumble over.
func (r *rig) legible() {
	r.Helper()
	harmless := func(what, s string) {
		assert.True(r, utf8.ValidString(s), "%s: %q", what, s)
		assert.Less(r, strings.IndexFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }), 0, "%s: %q", what, s)
	}
	for _, s := range r.spans.GetSpans() {
		harmless("span name", s.Name)
		for _, kv := range s.Attributes {
			harmless("span attribute "+string(kv.Key), kv.Value.String())
		}
	}
	for _, record := range r.logs.Records(r) {
		for name, value := range record {
			harmless("log attribute "+name, fmt.Sprint(value))
		}
	}
}

// mentions reports whether anything that the gateway records holds text.
func (r *rig) mentions(text string) bool {
	all := r.logs.Text()
	for _, s := range r.spans.GetSpans() {
		all += s.Name
		for _, kv := range s.Attributes {
			all += " " + kv.Value.String()
		}
	}
	return strings.Contains(all, text)
}

// Row 21: targets that are URLs (RFC 9112 §3.2.2), of which a gateway takes
// http and https without userinfo (RFC 9110 §4.2.4, §7.4).
func targetFormCases() []attackCase {
	const bad, unknown = gateway.ReasonBadRequest, gateway.ReasonUnknownService
	var cases []attackCase
	for _, target := range []string{
		"file:///etc/passwd", "ftp://h/a/x", "gopher://h/a/x", "ws://h/a/x", "unix:///a/x", "http:///a/x", "file:/a/x", "HTTPX://h/a/x",
		"http://u:p@h/a/x", "http://u@h/a/x", "http://@h/a/x", "http://:@h/a/x", "https://u:p@h/a/x", "http://u%40v@h/a/x",
		"http://h/a/x#f", "/a/x#f", "/a/x?q#f", "/a/#", "http://h/a/../b/x", "http://h/%2e%2e/a/x",
	} {
		cases = append(cases, attackCase{21, target, refused(target, 400, bad)})
	}
	for _, target := range []string{"http://h", "https://h", "http://h/", "http://h?/a/x", "http://a/x", "/", "/?/a/x"} {
		cases = append(cases, attackCase{21, target + " is no service", refused(target, 404, unknown)})
	}
	for _, target := range []string{"a/x", "h:80", "http:a/x", "mailto:a", "javascript:alert(1)", "://h/a/x", "http://h:x/a/x", "http://[::1/a/x", "?/a/x", "../a/x"} {
		cases = append(cases, attackCase{21, target + " is no target", func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(testnet.Get(target, "Connection: close"))
			assert.Equal(t, []int{400}, tr.Statuses())
			assert.Equal(t, testnet.Closed, tr.End)
			r.untouched()
		}})
	}
	for _, c := range [][2]string{
		{"http://h/a/x", "/x"}, {"HTTPS://h:8443/a/x?q", "/x?q"}, {"http://a/a/x", "/x"}, {"/a/x?http://u:p@h/", "/x?http://u:p@h/"}, {"/a/u:p@h", "/u:p@h"},
		{"/a/x%23f", "/x%23f"}, {"/a/x?q%23f", "/x?q%23f"}, {"/a/http://h/x", "/http://h/x"}, {"/a", "/"}, {"/a?q", "/?q"}, {"/a?", "/?"}, {"/a/x?", "/x?"}, {"/a/x??", "/x??"},
	} {
		cases = append(cases, attackCase{21, c[0] + " is forwarded", forwarded(c[0], c[1])})
	}
	return append(cases, attackCase{21, "a password is written down nowhere", func(t *testing.T) {
		r := newRig(t, setup{})
		resp := r.get("http://user:hunter2-canary@h/a/x")
		assert.Equal(t, 400, resp.Status)
		assert.NotContains(t, string(resp.Raw), "hunter2")
		r.recorded(1, onlyFailure(bad))
		assert.False(t, r.mentions("hunter2"))
		assert.False(t, r.mentions("user:"))
	}})
}

// Row 23: the preface of an HTTP/2 connection (RFC 9113 §3.4) is a method that
// nobody allowed, and what follows it is never looked at.
func prefaceCases() []attackCase {
	refuse := func(raw string) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(raw)
			assert.Equal(t, []int{501}, tr.Statuses())
			assert.Equal(t, testnet.Closed, tr.End)
			r.untouched()
			r.recorded(1, onlyFailure(gateway.ReasonMethodNotImplemented))
		}
	}
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	return []attackCase{
		{23, "preface", refuse(preface)},
		{23, "preface and frames", refuse(preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")},
		{23, "preface and a request", refuse(preface + testnet.Get("/b/smuggled"))},
		{23, "PRI in HTTP/1.1", refuse("PRI * HTTP/1.1\r\nHost: h\r\n\r\n" + testnet.Get("/b/smuggled"))},
		{23, "PRI of a service", refuse("PRI /a/x HTTP/1.1\r\nHost: h\r\n\r\n" + testnet.Get("/b/smuggled"))},
		{23, "preface with a field", refuse("PRI * HTTP/2.0\r\nHost: h\r\n\r\nSM\r\n\r\n" + testnet.Get("/b/smuggled"))},
		{23, "preface with a path", answeredByServer("PRI /a/x HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)},
	}
}

// Row 25: the asterisk is a target for OPTIONS only, and then the server's
// (RFC 9112 §3.2.4).
func asteriskCases() []attackCase {
	ask := func(method, target string, status int, server func(*http.Server), requests int, want map[gateway.Reason]uint64) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{server: server})
			tr := r.exchange(testnet.Build(method, target, "", "Connection: close"))
			assert.Equal(t, []int{status}, tr.Statuses())
			r.untouched()
			r.recorded(requests, want)
		}
	}
	bad := onlyFailure(gateway.ReasonBadRequest)
	handled := func(s *http.Server) { s.DisableGeneralOptionsHandler = true }
	return []attackCase{
		{25, "OPTIONS *", ask("OPTIONS", "*", 200, nil, 0, noFailure)},
		{25, "GET *", ask("GET", "*", 400, nil, 1, bad)},
		{25, "OPTIONS */x", ask("OPTIONS", "*/x", 400, nil, 0, noFailure)},
		{25, "OPTIONS *, left to the handler", ask("OPTIONS", "*", 400, handled, 1, bad)},
		{25, "HEAD *", ask("HEAD", "*", 400, nil, 1, bad)},
		{25, "POST *", ask("POST", "*", 400, nil, 1, bad)},
		{25, "GET **", ask("GET", "**", 400, nil, 0, noFailure)},
		{25, "GET *?q", ask("GET", "*?q", 400, nil, 0, noFailure)},
		{25, "OPTIONS http://h", ask("OPTIONS", "http://h", 404, nil, 1, onlyFailure(gateway.ReasonUnknownService))},
		{25, "OPTIONS /*", ask("OPTIONS", "/*", 404, nil, 1, onlyFailure(gateway.ReasonUnknownService))},
		{25, "OPTIONS /a/* is the service's", forwardedMethod("OPTIONS", "/a/*", "/*")},
	}
}

func forwardedMethod(method, target, want string) func(*testing.T) {
	return func(t *testing.T) {
		r := newRig(t, setup{})
		assert.Equal(t, 200, r.do(testnet.Build(method, target, "")).Status)
		sent := r.a.Await(1)[0]
		assert.Equal(t, method, sent.Method)
		assert.Equal(t, want, sent.Target)
		r.recorded(1, noFailure)
	}
}

// Row 27: nothing that a client sends makes the gateway redirect, let alone to
// another host.
func redirectCases() []attackCase {
	const bad, unknown = gateway.ReasonBadRequest, gateway.ReasonUnknownService
	var cases []attackCase
	for _, target := range []string{"//evil.test/a/x", "//a/x", "///a/x", "//evil.test", "//", "//evil.test:80/a/x", "/%2fevil.test/a/x", "//u:p@evil.test/a/x"} {
		cases = append(cases, attackCase{27, target, refused(target, 404, unknown)})
	}
	for _, target := range []string{
		`/\evil.test`, `/\/evil.test/a/x`, `/a/\evil.test`, `/a\x`, `/a/x\..\y`, "/a/%5cevil.test", "/a/x%5C", "/a//..//", "/a//../b/x", "//../a/x", "/a/./", `//evil.test\@a/x`,
	} {
		cases = append(cases, attackCase{27, target, refused(target, 400, bad)})
	}
	for _, target := range []string{"/a//evil.test", "/a//", "/a///x", "/a//x//y//", `/a/x?\`, "/a/%255cx"} {
		cases = append(cases, attackCase{27, target + " keeps its slashes", forwarded(target, strings.TrimPrefix(target, "/a"))})
	}
	return append(cases, locationCases()...)
}

// locationCases are the redirects of an upstream, as they reach the client.
func locationCases() []attackCase {
	var cases []attackCase
	redirected := func(what, target, location, want string, whole bool) {
		cases = append(cases, attackCase{27, what, func(t *testing.T) {
			var r *rig
			s := setup{script: testnet.Respond(func(*testnet.Request) string {
				return testnet.Answer(302, "Location: "+strings.ReplaceAll(location, "{up}", r.a.URL), "")
			})}
			if whole {
				s.handler = func(gw *gateway.Gateway) http.Handler {
					mux := http.NewServeMux()
					mux.Handle("/b/", gw)
					mux.Handle("/", gw.Upstream("a"))
					return mux
				}
			}
			r = newRig(t, s)
			resp := r.get(target)
			assert.Equal(t, 302, resp.Status)
			assert.Equal(t, strings.ReplaceAll(want, "{up}", r.a.URL), resp.Header.Get("Location"))
			r.recorded(1, noFailure)
		}})
	}
	redirected("a Location of two slashes gets the service's name before it", "/a/x", "{up}//evil.test/", "/a//evil.test/", false)
	redirected("a Location of ours would begin with two slashes", "/x", "{up}//evil.test/", "{up}//evil.test/", true)
	redirected(`a Location of ours would begin with /\`, "/x", `{up}/\evil.test/`, `{up}/\evil.test/`, true)
	redirected("a Location below the service", "/a/x", "/y?q#f", "/a/y?q#f", false)
	redirected("a Location that already has the prefix", "/a/x", "/a/y", "/a/y", false)
	redirected("a Location at the upstream", "/a/x", "{up}/y", "/a/y", false)
	redirected("a Location at another host is the upstream's affair", "/a/x", "http://other.test/y", "http://other.test/y", false)
	redirected("a relative Location", "/a/x", "y", "y", false)
	return cases
}

// Row 29: an encoded slash is data (RFC 3986 §2.2). Routes are told apart by
// the bytes that the client sent.
func encodedSlashCases() []attackCase {
	const bad, unknown = gateway.ReasonBadRequest, gateway.ReasonUnknownService
	var cases []attackCase
	for _, target := range []string{"/a%2fx", "/a%2Fx", "/a%2f", "/%61/x", "/%2fa/x", "/a%252fx", "/a;v=1/x", "/a%3b/x", "/a%20/x", "/a%3Fx", "/a,b/x", "/%c3%a1/x", "/a./x", "/.a/x"} {
		cases = append(cases, attackCase{29, target, refused(target, 404, unknown)})
	}
	for _, target := range []string{"/a%00/x", "/a%00", "/a%2f../x", "/a%2f%2e%2e%2fb/x", "/a%5cx", "/a/x%00", "/a/x%2500", "/a/%25%30%30", "/..%2fa/x", "/%2e/a/x", "/a%2f."} {
		cases = append(cases, attackCase{29, target, refused(target, 400, bad)})
	}
	for _, target := range []string{
		"/a/x%2fy", "/a/%2f", "/a/x%2Fy%2f", "/a/%41%7e%7E", "/a/x%252fy", "/a/%2f%2fevil.test", "/a/x%3fq", "/a/x%20y", "/a/!$&'()*+,;=:@-._~",
	} {
		cases = append(cases, attackCase{29, target + " is forwarded as it is", forwarded(target, strings.TrimPrefix(target, "/a"))})
	}
	return append(cases, attackCase{29, "an encoded slash and a slash have keys of their own", func(t *testing.T) {
		distinct(t, "/a/x/y", "/a/x%2fy", "/a/x%2Fy", "/a/x%252fy", "/a/x/y?", "/a/x/y?q", "/a/x//y", "/a//x/y")
	}})
}

// distinct has an upstream answer each target with itself, and finds every one
// stored on its own.
func distinct(t *testing.T, targets ...string) {
	r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string { return testnet.Answer(200, cacheable, req.Target) })})
	for round := range 2 {
		for i, target := range targets {
			resp := r.get(target)
			assert.Equal(t, 200, resp.Status)
			assert.Equal(t, strings.TrimPrefix(target, "/a"), string(resp.Body))
			assert.Equal(t, round == 1, resp.Header["Age"] != nil, "%s: a hit in the second round only", target)
			assert.Len(t, r.a.Journal(), max(i+1, round*len(targets)))
		}
	}
	assert.EqualValues(t, len(targets), r.cache.Stats().Entries)
	r.recorded(2*len(targets), noFailure)
}
