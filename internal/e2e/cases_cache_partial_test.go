package e2e_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// Row 105: a part of a response is not the response (RFC 9111 §3.3, RFC 9110
// §15.3.7).
func coldRangeCases() []attackCase {
	part := func(what, fields, cache string, asked string) attackCase {
		return attackCase{105, what, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
				if rng := field(req, "Range"); rng == "bytes=0-0" {
					return testnet.Answer(206, storable+fields+"\r\nContent-Range: bytes 0-0/4", "b")
				} else if rng == "bytes=1-3" && field(req, "If-Range") == `"v1"` {
					return testnet.Answer(206, storable+fields+"\r\nContent-Range: bytes 1-3/4", "ody")
				}
				return testnet.Answer(200, storable+fields, "body")
			})})
			first := r.get("/a/x", "Range: bytes=0-0")
			assert.Equal(t, 206, first.Status)
			assert.Equal(t, "b", string(first.Body))
			assert.Equal(t, "gateway; fwd=uri-miss; "+cache, first.Header.Get("Cache-Status"))
			for n := range 2 {
				whole := r.get("/a/x")
				assert.Equal(t, 200, whole.Status)
				assert.Equal(t, "body", string(whole.Body))
				assert.Equal(t, "4", whole.Header.Get("Content-Length"))
				assert.Empty(t, whole.Header["Content-Range"])
				assert.Equal(t, n == 1, strings.Contains(whole.Header.Get("Cache-Status"), "; hit"), n)
			}
			journal := r.a.Await(2)
			require.Len(t, journal, 2)
			assert.Equal(t, asked, field(journal[1], "Range"))
		}}
	}
	return []attackCase{
		part("no validator", "X: y", "stored", ""),
		part("a weak validator", `ETag: W/"v1"`, "stored", ""),
		part("a strong validator", `ETag: "v1"`, "stored", "bytes=1-3"),
		{105, "a 206 that nobody asked for", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(206, storable+"ETag: \"v1\"\r\nContent-Range: bytes 0-0/4", "b")})
			r.notStored(testnet.Get("/a/x"), "range")
		}},
		{105, "a 206 that lies about its length", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(206, storable+"ETag: \"v1\"\r\nContent-Range: bytes 0-9/20", "b")})
			r.notStored(testnet.Get("/a/x", "Range: bytes=0-9"), "range")
		}},
		{105, "a 206 of many parts", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(206, storable+"ETag: \"v1\"\r\nContent-Type: multipart/byteranges; boundary=b", "--b\r\nContent-Range: bytes 0-0/4\r\n\r\nb\r\n--b--\r\n")})
			r.notStored(testnet.Get("/a/x", "Range: bytes=0-0,2-2"), "range")
		}},
		{105, "a 416", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(416, storable+"Content-Range: bytes */4", "")})
			r.notStored(testnet.Get("/a/x", "Range: bytes=9-"), "status")
		}},
	}
}

// Row 107: no Range makes of a stored response more than it is, and none that
// is wrong makes it an error (RFC 9110 §14.2, §17.15; CVE-2011-3192,
// CVE-2017-7529).
func hostileRangeCases() []attackCase {
	body := strings.Repeat("0123456789", 1000)
	var cases []attackCase
	against := func(what string, status int, fields ...string) {
		cases = append(cases, attackCase{107, what, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, storable+"Etag: \"v1\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT", body)})
			r.get("/a/x")
			resp := r.get("/a/x", fields...)
			assert.Equal(t, testnet.Whole, resp.End)
			assert.Equal(t, status, resp.Status)
			assert.Equal(t, "gateway; hit; ttl=60", resp.Header.Get("Cache-Status"))
			assert.LessOrEqual(t, len(resp.Raw), len(body)*11/10+1000)
			switch status {
			case 200:
				assert.Equal(t, body, string(resp.Body))
			case 416:
				assert.Equal(t, "bytes */10000", resp.Header.Get("Content-Range"))
				assert.Empty(t, resp.Body)
				assert.Empty(t, resp.Header["Etag"])
			}
			assert.Len(t, r.a.Await(1), 1)
		}})
	}
	many := func(n int, spec string) string { return "Range: bytes=" + strings.Repeat(spec+",", n-1) + spec }
	distinct := make([]string, 1000)
	for i := range distinct {
		distinct[i] = fmt.Sprintf("%d-%d", 2*i, 2*i)
	}
	against("1000 ranges", 200, "Range: bytes="+strings.Join(distinct, ","))
	against("17 ranges", 200, "Range: bytes="+strings.Join(distinct[:17], ","))
	against("1000 times the same", 200, many(1000, "0-0"))
	against("overlapping", 200, many(4, "0-100"))
	against("all of it twice", 200, many(2, "0-"))
	against("more than all of it", 200, "Range: bytes=0-9999,0-0")
	against("the least int64", 206, "Range: bytes=-9223372036854775808")
	against("beyond int64", 206, "Range: bytes=-99999999999999999999999999")
	against("the greatest int64", 416, "Range: bytes=9223372036854775807-9223372036854775807")
	against("a sum beyond int64", 206, "Range: bytes=1-9223372036854775807")
	against("backwards", 200, "Range: bytes=5-2")
	against("a suffix of nothing", 416, "Range: bytes=-0")
	against("behind the end", 416, "Range: bytes=10000-")
	against("nothing", 200, "Range: bytes=")
	against("only commas", 200, "Range: bytes=,,,")
	against("not a number", 200, "Range: bytes=a-b")
	against("signs", 200, "Range: bytes=+1-+2")
	against("two minus signs", 200, "Range: bytes=--1")
	against("hexadecimal", 200, "Range: bytes=0x0-0xff")
	against("another unit", 200, "Range: octets=0-0")
	against("no unit", 200, "Range: 0-0")
	against("two fields", 200, "Range: bytes=0-0", "Range: bytes=1-1")
	against("If-Range weak", 200, "Range: bytes=0-0", `If-Range: W/"v1"`)
	against("If-Range of another version", 200, "Range: bytes=0-0", `If-Range: "v2"`)
	against("If-Range later than it", 200, "Range: bytes=0-0", "If-Range: Mon, 07 Nov 1994 08:49:37 GMT")
	against("If-Range nonsense", 200, "Range: bytes=0-0", "If-Range: nonsense")
	against("If-Range twice", 200, "Range: bytes=0-0", `If-Range: "v1"`, `If-Range: "v1"`)
	return cases
}

// Row 109: a 304 says that what we asked about is valid, and nothing else (RFC
// 9111 §3.2, §4.3.4).
func notModifiedCases() []attackCase {
	const stale = "Cache-Control: public, max-age=0\r\n"
	unsolicited := func(what, header string, fields ...string) attackCase {
		return attackCase{109, what, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Replies(testnet.Answer(304, storable+header, "")), defaults: []gateway.Option{gateway.WithoutRetries()}})
			resp := r.get("/a/x", fields...)
			assert.Equal(t, 502, resp.Status)
			assert.Contains(t, string(resp.Body), `"reason":"bad_response"`)
			assert.Zero(t, r.cache.Stats().Entries)
			r.counted(onlyFailure(gateway.ReasonBadResponse))
		}}
	}
	return []attackCase{
		unsolicited("unsolicited", ""),
		unsolicited("unsolicited, with validators", `ETag: "v1"`),
		unsolicited("on a range", `ETag: "v1"`, "Range: bytes=0-0"),
		{109, "another ETag, then a 200", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Replies(
				testnet.Answer(200, stale+`ETag: "v1"`, "one"),
				testnet.Answer(304, storable+`ETag: "v2"`, ""),
				testnet.Answer(200, storable+`ETag: "v3"`, "three"),
			)})
			assert.Equal(t, "one", string(r.get("/a/x").Body))
			resp := r.get("/a/x")
			assert.Equal(t, "three", string(resp.Body))
			assert.Equal(t, `"v3"`, resp.Header.Get("Etag"))
			assert.Equal(t, "gateway; fwd=stale; stored", resp.Header.Get("Cache-Status"))
			journal := r.a.Await(3)
			require.Len(t, journal, 3)
			assert.Equal(t, `"v1"`, field(journal[1], "If-None-Match"))
			assert.Empty(t, journal[2].Header["If-None-Match"], "the second time without conditions")
			assert.Equal(t, "three", string(r.get("/a/x").Body))
		}},
		{109, "another ETag, for ever", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Replies(
				testnet.Answer(200, stale+`ETag: "v1"`, "one"),
				testnet.Answer(304, storable+`ETag: "v2"`, ""),
			), defaults: []gateway.Option{gateway.WithoutRetries(), gateway.WithMaxStale(0)}})
			r.get("/a/x")
			resp := r.get("/a/x")
			assert.Equal(t, 502, resp.Status)
			assert.Len(t, r.a.Await(3), 3, "one unconditional request more")
			r.counted(onlyFailure(gateway.ReasonBadResponse))
		}},
		{109, "a weak ETag that is like the strong one freshens", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Replies(
				testnet.Answer(200, stale+`ETag: "v1"`, "one"),
				testnet.Answer(304, storable+`ETag: W/"v1"`, ""),
			)})
			r.get("/a/x")
			assert.Equal(t, "gateway; fwd=stale; fwd-status=304; stored", r.get("/a/x").Header.Get("Cache-Status"))
		}},
		{109, "what describes the stored bytes is not replaced", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Replies(
				testnet.Answer(200, stale+"ETag: \"v1\"\r\nContent-Encoding: br\r\nContent-Type: text/a\r\nX-A: old\r\nX-Kept: kept", "one"),
				testnet.Answer(304, storable+"ETag: \"v1\"\r\nContent-Encoding: gzip\r\nContent-Length: 999\r\nContent-Range: bytes 0-0/1\r\nSet-Cookie: id=1\r\n"+
					"Connection: X-Hop\r\nX-Hop: 1\r\nX-A: new\r\nX-B: more", ""),
			), defaults: []gateway.Option{gateway.WithoutRetries()}})
			r.get("/a/x", "Accept-Encoding: br")
			for _, cookies := range [][]string{{"id=1"}, nil} { // the first client's is not for the second
				resp := r.get("/a/x", "Accept-Encoding: br")
				assert.Equal(t, "one", string(resp.Body))
				for name, want := range map[string][]string{
					"Content-Encoding": {"br"}, "Content-Length": {"3"}, "Content-Range": nil, "Set-Cookie": cookies, "X-Hop": nil,
					"X-A": {"new"}, "X-B": {"more"}, "X-Kept": {"kept"}, "Content-Type": {"text/a"},
				} {
					assert.Equal(t, want, resp.Header[name], name)
				}
			}
			assert.Len(t, r.a.Await(2), 2)
		}},
	}
}

// Row 113: whoever asked first may leave; what is stored then is whole, or it
// is not stored.
func leaderDropsCases() []attackCase {
	var cases []attackCase
	for _, body := range bodies {
		drop := func(t *testing.T, end string) *rig {
			rest := make(chan struct{})
			first := true
			r := newRig(t, setup{script: func(c *testnet.Conn) {
				for c.ReadRequest() != nil {
					c.Send("HTTP/1.1 200 OK\r\n" + storable + body.header + "\r\n\r\n" + body.piece)
					if first {
						first = false
						receive(rest)
						c.Send(end)
						if end != body.last {
							return
						}
						continue
					}
					c.Send(body.last)
				}
			}, defaults: []gateway.Option{gateway.WithoutRetries()}})
			c := testnet.Dial(t, r.addr)
			c.Send(testnet.Get("/a/x"))
			resp := c.ReadHead("GET")
			_, err := io.ReadFull(resp, make([]byte, 1))
			require.NoError(t, err)
			c.Reset()
			close(rest)
			return r
		}
		cases = append(cases,
			attackCase{113, body.name + ", at byte 1", func(t *testing.T) {
				r := drop(t, body.last)
				testnet.Settle(t, "it is stored", func() bool { return r.cache.Stats().Entries == 1 })
				hit := r.get("/a/x")
				assert.Equal(t, "gateway; hit; ttl=60", hit.Header.Get("Cache-Status"))
				assert.Equal(t, body.size, hit.Size)
				assert.Len(t, r.a.Await(1), 1)
			}},
			attackCase{113, body.name + ", at byte 1, and then the upstream breaks off", func(t *testing.T) {
				r := drop(t, body.last[:len(body.last)-1])
				testnet.Settle(t, "nothing is reserved", func() bool { return r.cache.Stats().Bytes == 0 })
				again := r.get("/a/x")
				assert.Equal(t, "gateway; fwd=uri-miss; stored", again.Header.Get("Cache-Status"))
				assert.Equal(t, testnet.Whole, again.End)
				assert.Equal(t, body.size, again.Size)
			}},
		)
	}
	return cases
}
