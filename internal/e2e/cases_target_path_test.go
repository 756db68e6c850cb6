package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// Row 31: dot segments, also in front of what some servers cut off, and in any
// encoding that somebody may undo.
func dotSegmentCases() []attackCase {
	var cases []attackCase
	for _, target := range []string{
		"/a/..;/b", "/a/.;x/y", "/a/..", "/a/.", "/a/../b/x", "/a/./x", "/a/x/..", "/a/x/../../b/x", "/a/..;x=1", "/a/..;", "/a/x/..;a;b/y", "/a/..%3b/b", "/a/..%3Bx",
		"/a/%2e%2e;/b", "/a/%2e%2E/b", "/a/.%2e/b", "/a/%2e./b", "/a/%2e", "/a/%252e%252e/b", "/a/%25252e./b", "/a/..%2fb", "/a/..%252fb", "/a/x%2f..%2fy",
		"/a/x%2f..", "/a/..%5cb", "/a/..%255cb", "/a/..?x", "/a/..%3fx", "/a/..%23x", "/..", "/.", "/../a/x", "/./a/x", "/..;/a/x", "/%2e%2e/a/x", "/none/../a/x", "/../../../etc/passwd",
	} {
		cases = append(cases, attackCase{31, target, refused(target, 400, gateway.ReasonBadRequest)})
	}
	for _, target := range []string{
		"/a/x;jsessionid=1", "/a/;v=1/x", "/a/...", "/a/.../x", "/a/...;/x", "/a/..x", "/a/x..", "/a/.x/y", "/a/x./y", "/a/x..;/y", "/a/.well-known/x", "/a/x;..", "/a/x;../y", "/a/x;/y",
		"/a/x?../..", "/a/x?/../../b", "/a/x?%2e%2e", "/a/%2e%2ex", "/a/x%2e", "/a/;..", "/a/x%3b..",
	} {
		cases = append(cases, attackCase{31, target + " is forwarded as it is", forwarded(target, strings.TrimPrefix(target, "/a"))})
	}
	return append(cases, attackCase{31, "parameters are a part of the key", func(t *testing.T) {
		distinct(t, "/a/x", "/a/x;jsessionid=1", "/a/x;jsessionid=2", "/a/x%3bjsessionid=1", "/a/x;", "/a/x;jsessionid=1?q")
	}})
}

// Row 33: an encoded line break stays one, on the wire and in what we write
// down about it.
func lineBreakCases() []attackCase {
	var cases []attackCase
	for _, target := range []string{
		"/a/x%0d%0aX:%20y", "/a/x%0aX:%20y", "/a/x%0d", "/a/%0d%0a%0d%0aGET%20/b/smuggled%20HTTP/1.1%0d%0aHost:%20h%0d%0a%0d%0a", "/a/x?q=%0d%0aX:%20y", "/a/x%E5%98%8D%E5%98%8AX:%20y",
		"/a/x%0b%0c%1b%5b2J", "/a/x%E2%80%A8y", "/a/x%7f", "/a/x%09y", "/a/x%20HTTP/1.1%0d%0aX:y",
	} {
		cases = append(cases, attackCase{33, target, forwarded(target, strings.TrimPrefix(target, "/a"))})
	}
	return append(cases,
		attackCase{33, "no field comes of it, and it is logged as it was sent", func(t *testing.T) {
			r := newRig(t, setup{})
			assert.Equal(t, 200, r.get("/a/x%0d%0aX-Evil:%20y").Status)
			sent := r.a.Await(1)[0]
			assert.NotContains(t, sent.Header, "X-Evil")
			r.recorded(1, noFailure)
			records := r.logs.Find(t, "gateway: request")
			require.Len(t, records, 1)
			assert.Equal(t, "/a/x%0d%0aX-Evil:%20y", records[0]["url.path"])
			spans := r.spans.GetSpans()
			require.Len(t, spans, 2)
			for _, s := range spans {
				for _, kv := range s.Attributes {
					if kv.Key == "url.path" || kv.Key == "url.full" {
						assert.Contains(t, kv.Value.AsString(), "/x%0d%0aX-Evil:%20y")
					}
				}
			}
			r.legible()
		}},
		attackCase{33, "in a name that is no service", refused("/none%0d%0aX:%20y/x", 404, gateway.ReasonUnknownService)},
		attackCase{33, "in a Location of the upstream", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(302, "Location: /y%0d%0aX-Evil:%20y", "")})
			resp := r.get("/a/x")
			assert.Equal(t, "/a/y%0d%0aX-Evil:%20y", resp.Header.Get("Location"))
			assert.NotContains(t, resp.Header, "X-Evil")
			r.recorded(1, noFailure)
		}},
	)
}

// Row 35: bytes that are no characters. Raw ones leave encoded, encoded ones as
// they are; an overlong dot is no dot.
func strayByteCases() []attackCase {
	var cases []attackCase
	for _, c := range [][2]string{
		{"/a/\xff", "/%FF"}, {"/a/%c0%ae%c0%ae", "/%c0%ae%c0%ae"}, {"/a/%c0%ae%c0%ae/%c0%afetc", "/%c0%ae%c0%ae/%c0%afetc"}, {"/a/%ff%FE", "/%ff%FE"},
		{"/a/\xc0\xae\xc0\xae/b", "/%C0%AE%C0%AE/b"}, {"/a/é", "/%C3%A9"}, {"/a/%ed%a0%80", "/%ed%a0%80"}, {"/a/%f4%90%80%80", "/%f4%90%80%80"}, {"/a/x?\xff=%ff", "/x?%FF=%ff"},
		{"/a/x?é", "/x?%C3%A9"}, {"/a/\xff%2f\xfe", "/%FF%2f%FE"}, {"/a/\u2028", "/%E2%80%A8"}, {"/a/\"<>^`{|}", "/%22%3C%3E%5E%60%7B%7C%7D"}, {"/a/x?\"<>", `/x?"<>`},
		{"/a/[x]", "/[x]"}, {"/a/\xef\xbc\x8e\xef\xbc\x8e/x", "/%EF%BC%8E%EF%BC%8E/x"},
	} {
		cases = append(cases, attackCase{35, fmt.Sprintf("%q", c[0]), forwarded(c[0], c[1])})
	}
	for _, target := range []string{"/\xff/x", "/%ff/x", "/a\xff/x", "/\xc3\xa1/x"} {
		cases = append(cases, attackCase{35, fmt.Sprintf("%q is no service", target), refused(target, 404, gateway.ReasonUnknownService)})
	}
	return append(cases,
		attackCase{35, "in fields, which records hold in part", func(t *testing.T) {
			r := newRig(t, setup{})
			resp := r.get("/a/x", "User-Agent: \xff\xfe", "X-V: \xff", "Traceparent: \xff", "X-Request-Id: \xff", "Host: h")
			assert.Equal(t, 200, resp.Status)
			sent := r.a.Await(1)[0]
			assert.Equal(t, "\xff\xfe", field(sent, "User-Agent"))
			assert.Equal(t, "\xff", field(sent, "X-V"))
			assert.Regexp(t, "^[0-9a-f]{32}$", field(sent, "X-Request-Id"))
			r.recorded(1, noFailure)
			r.legible()
		}},
		attackCase{35, "a method of any bytes makes no series of its own", func(t *testing.T) {
			r := newRig(t, setup{})
			var series int
			for i, method := range []string{"X", "QU|RY", "get", "!#$%&'*+-.^_`|~", strings.Repeat("M", 1000)} {
				resp := r.do(testnet.Build(method, "/a/x", ""))
				assert.Equal(t, 501, resp.Status)
				r.recorded(i+1, map[gateway.Reason]uint64{gateway.ReasonMethodNotImplemented: uint64(i + 1)})
				if i == 0 {
					series = r.series()
				}
			}
			assert.Equal(t, series, r.series())
			r.untouched()
			r.legible()
		}},
	)
}

// Row 37: a service's name is matched in its own letters, and a path is one
// resource in exactly one spelling.
func letterCases() []attackCase {
	unknown := gateway.ReasonUnknownService
	return []attackCase{
		{37, "/a/x", forwarded("/a/x", "/x")},
		{37, "/A/x", refused("/A/x", 404, unknown)},
		{37, "/a/x/", forwarded("/a/x/", "/x/")},
		{37, "/a/X", forwarded("/a/X", "/X")},
		{37, "/a", forwarded("/a", "/")},
		{37, "/a/", forwarded("/a/", "/")},
		{37, "/aa/x", refused("/aa/x", 404, unknown)},
		{37, "/a.b/x", refused("/a.b/x", 404, unknown)},
		{37, "three outcomes, three keys", func(t *testing.T) {
			distinct(t, "/a/x", "/a/x/", "/a/X", "/a/x//", "/a/x/.x")
		}},
		{37, "the same path of two services", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, cacheable, "of a"), scriptB: testnet.Reply(200, cacheable, "of b")})
			for range 2 {
				assert.Equal(t, "of a", string(r.get("/a/x").Body))
				assert.Equal(t, "of b", string(r.get("/b/x").Body))
			}
			assert.Equal(t, 1, r.a.Begun())
			assert.Equal(t, 1, r.b.Begun())
			r.recorded(4, noFailure)
		}},
		{37, "the same path of two hosts", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
				return testnet.Answer(200, cacheable, req.Header.Get("X-Forwarded-Host"))
			})})
			for range 2 {
				for _, host := range []string{"one.test", "two.test", "ONE.test:80"} {
					assert.Equal(t, host, string(r.get("/a/x", "Host: "+host).Body))
				}
			}
			assert.Equal(t, 3, r.a.Begun())
			r.recorded(6, noFailure)
		}},
	}
}
