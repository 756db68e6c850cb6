package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// Row 95: what a response varies by (RFC 9111 §4.1).
func varyCases() []attackCase {
	var cases []attackCase
	never := func(what, vary string) {
		cases = append(cases, attackCase{95, what, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, storable+vary, "ok")})
			r.notStored(testnet.Get("/a/x", "Foo: 1"), "vary")
		}})
	}
	names := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("X-%d", i)
		}
		return strings.Join(list, ", ")
	}
	never("*", "Vary: *")
	never("* behind a name", "Vary: Foo, *")
	never("* in a second line", "Vary: Foo\r\nVary: *")
	never("a colon in the name", "Vary: Foo:")
	never("a space in the name", "Vary: Foo Bar")
	never("a quoted name", `Vary: "Foo"`)
	never("17 names", "Vary: "+names(17))
	never("17 names in two lines", "Vary: "+names(16)+"\r\nVary: One-More")
	never("1000 names", "Vary: "+names(1000))
	never("more than 4 KiB", "Vary: X-"+strings.Repeat("x", 4<<10))
	never("what the gateway sets", "Vary: X-Forwarded-For")
	never("an underscore twin that does not reach the upstream", "Vary: Foo_Bar, *")
	return append(cases,
		attackCase{95, "an underscore twin that the upstream takes for it", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
				return testnet.Answer(200, storable+"Vary: Accept-Language", "in "+field(req, "Accept_Language")+field(req, "Accept-Language"))
			})})
			r.notStored(testnet.Get("/a/x", "Accept_Language: de"), "vary")
			assert.Equal(t, "in ", string(r.get("/a/x").Body))
		}},
		attackCase{95, "64 kB", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, storable+"Vary: "+strings.Repeat("X, ", 21_000)+"Y", "ok"), defaults: []gateway.Option{gateway.WithoutRetries()}})
			for n := range 2 {
				assert.Contains(t, []int{200, 502}, r.get("/a/x").Status)
				assert.Equal(t, n+1, r.a.Begun())
			}
			assert.Zero(t, r.cache.Stats().Entries)
		}},
		attackCase{95, "two lines are one list", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
				return testnet.Answer(200, storable+"Vary: Foo\r\nVary: ,Bar,", field(req, "Foo")+field(req, "Bar"))
			})})
			assert.Equal(t, "12", string(r.stored(testnet.Get("/a/x", "Foo: 1", "Bar: 2")).Body))
			for _, other := range [][]string{{"Foo: 1", "Bar: 3"}, {"Foo: 3", "Bar: 2"}, {"Foo: 1"}, {"Bar: 2"}, nil} {
				resp := r.get("/a/x", other...)
				assert.Equal(t, "gateway; fwd=vary-miss; stored", resp.Header.Get("Cache-Status"), other)
				assert.NotEqual(t, "12", string(resp.Body))
			}
			assert.Equal(t, "gateway; hit; ttl=60", r.get("/a/x", "bar: 2", "foo:1").Header.Get("Cache-Status"))
		}},
		attackCase{95, "16 names", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, storable+"Vary: "+names(16), "ok")})
			r.stored(testnet.Get("/a/x", "X-3: 3"))
		}},
	)
}

// Row 97: an encoded response is for who takes that encoding, whether it says
// so or not (RFC 9110 §12.5.3).
func encodedCases() []attackCase {
	var cases []attackCase
	for _, second := range []string{"", "Accept-Encoding: identity", "Accept-Encoding: gzip;q=0", "Accept-Encoding: br", "Accept-Encoding:"} {
		cases = append(cases, attackCase{97, fmt.Sprintf("gzip, then %q", second), func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
				if field(req, "Accept-Encoding") == "gzip" {
					return testnet.Answer(200, storable+"Content-Encoding: gzip", "zipped")
				}
				return testnet.Answer(200, storable, "plain")
			})})
			r.stored(testnet.Get("/a/x", "Accept-Encoding: gzip"))
			var fields []string
			if second != "" {
				fields = []string{second}
			}
			resp := r.get("/a/x", fields...)
			assert.Equal(t, "plain", string(resp.Body))
			assert.Equal(t, "gateway; fwd=vary-miss; stored", resp.Header.Get("Cache-Status"))
			assert.Empty(t, resp.Header["Content-Encoding"])
			assert.Len(t, r.a.Await(2), 2)
		}})
	}
	return append(cases, attackCase{97, "HEAD without it", func(t *testing.T) {
		r := newRig(t, setup{script: testnet.Reply(200, storable+"Content-Encoding: gzip", "zipped")})
		r.stored(testnet.Get("/a/x", "Accept-Encoding: gzip"))
		assert.Contains(t, r.do(testnet.Build("HEAD", "/a/x", "")).Header.Get("Cache-Status"), "fwd=vary-miss")
	}})
}

// Row 99: an error that one client brings about by its header is not for the
// others (Nguyen et al., CPDoS, CCS 2019).
func poisonedErrorCases() []attackCase {
	var cases []attackCase
	poison := func(what string, status int, answer, next string, fields ...string) {
		cases = append(cases, attackCase{99, what, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
				if len(field(req, "X-Oversized")) > 8<<10 || field(req, "X-Evil") != "" || field(req, "X-Http-Method-Override") != "" {
					return answer
				}
				return testnet.Answer(200, storable, "ok")
			})})
			assert.Equal(t, status, r.get("/a/x", fields...).Status)
			resp := r.get("/a/x")
			assert.Equal(t, 200, resp.Status)
			assert.Equal(t, "ok", string(resp.Body))
			assert.Equal(t, "gateway; "+next, resp.Header.Get("Cache-Status"))
		}})
	}
	const miss, hit = "fwd=uri-miss; stored", "hit; ttl=60"
	oversized := "X-Oversized: " + strings.Repeat("x", 20_000)
	poison("HHO answered 400", 400, testnet.Answer(400, "", "too large"), miss, oversized)
	poison("HHO answered 431", 431, testnet.Answer(431, "", "too large"), miss, oversized)
	poison("HHO answered 431 with a lifetime", 431, testnet.Answer(431, storable, "too large"), miss, oversized)
	poison("HHO answered 400 with Last-Modified", 400, testnet.Answer(400, "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "too large"), miss, oversized)
	poison("HHO answered 413", 413, testnet.Answer(413, "", "too large"), miss, oversized)
	poison("HHO answered 404", 404, testnet.Answer(404, "", "too large"), miss, oversized)
	poison("HMC", 400, testnet.Answer(500, storable, "never"), miss, "X-Evil: \x01")
	poison("HMO answered 405", 200, testnet.Answer(405, storable, "not that method"), hit, "X-HTTP-Method-Override: POST")
	return append(cases,
		attackCase{99, "larger than ours takes", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, storable, "ok")})
			assert.Equal(t, 431, r.get("/a/x", "X-Oversized: "+strings.Repeat("x", 70<<10)).Status)
			assert.Zero(t, r.a.Begun())
			r.stored(testnet.Get("/a/x"))
		}},
		attackCase{99, "with WithNegativeTTL a 400 is not kept either", func(t *testing.T) {
			r := newRig(t, setup{noToken: true, defaults: []gateway.Option{gateway.WithNegativeTTL(time.Minute), gateway.WithDefaultTTL(time.Minute)}, script: testnet.Reply(400, "", "no")})
			r.notStored(testnet.Get("/a/x"), "no-freshness")
		}},
	)
}

// Row 101: no name of a file makes a private page a public one (Gil 2017,
// Mirheidari 2020).
func deceptionCases() []attackCase {
	targets := []string{
		"/a/account/x.css", "/a/account;x.css", "/a/account%2fx.css", "/a/account?x.css", "/a/account%3fx.css", "/a/account%23x.css",
		"/a/static/..%2faccount", "/a/robots.txt", "/a/account/favicon.ico", "/a/account%0ax.css", "/a/account.css",
	}
	var cases []attackCase
	for _, target := range targets {
		cases = append(cases, attackCase{101, target, func(t *testing.T) {
			r := newRig(t, setup{noToken: true, script: testnet.Reply(200, "Content-Type: text/css\r\nETag: \"v\"", "of one client")})
			if status := r.get(target).Status; status != 200 { // refused before it gets there
				assert.Equal(t, 400, status)
				assert.Zero(t, r.a.Begun())
				return
			}
			r.notStored(testnet.Get(target), "no-freshness")
		}})
	}
	return append(cases,
		attackCase{101, "%00", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, storable, "ok")})
			assert.Equal(t, 400, r.get("/a/account%00.css").Status)
			assert.Zero(t, r.a.Begun())
			assert.Zero(t, r.cache.Stats().Entries)
		}},
		attackCase{101, "each spelling is a key of its own", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
				return testnet.Answer(200, storable, req.Target)
			})})
			var served []string
			for _, target := range targets {
				if resp := r.get(target); resp.Status == 200 {
					assert.Equal(t, "gateway; fwd=uri-miss; stored", resp.Header.Get("Cache-Status"), target)
					served = append(served, target)
				}
			}
			require.Greater(t, len(served), 6)
			for _, target := range served {
				assert.Equal(t, strings.TrimPrefix(target, "/a"), string(r.get(target).Body))
			}
			assert.Len(t, r.a.Await(len(served)), len(served))
		}},
	)
}

// Row 103: services, and the hosts that a service is told of, share nothing.
func separateCases() []attackCase {
	told := testnet.Respond(func(req *testnet.Request) string {
		return testnet.Answer(200, storable, field(req, "Host")+" "+field(req, "X-Forwarded-Host"))
	})
	hosts := func(what string, opts ...gateway.ServiceOption) attackCase {
		return attackCase{103, what, func(t *testing.T) {
			r := newRig(t, setup{script: told, a: opts})
			one := r.stored(testnet.Get("/a/x", "Host: one.test"))
			other := r.stored(testnet.Get("/a/x", "Host: other.test"))
			assert.Contains(t, string(one.Body), "one.test")
			assert.Contains(t, string(other.Body), "other.test")
			assert.Len(t, r.a.Await(2), 2)
		}}
	}
	return []attackCase{
		hosts("two hosts"),
		hosts("two hosts that are forwarded", gateway.WithPreserveHost()),
		{103, "two services", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, storable, "a"), scriptB: testnet.Reply(200, storable, "b")})
			assert.Equal(t, "a", string(r.stored(testnet.Get("/a/x")).Body))
			for _, status := range []string{"gateway; fwd=uri-miss; stored", "gateway; hit; ttl=60"} {
				resp := r.get("/b/x")
				assert.Equal(t, "b", string(resp.Body))
				assert.Equal(t, status, resp.Header.Get("Cache-Status"))
			}
		}},
		{103, "a service of the name of another and more", func(t *testing.T) {
			r := newRig(t, setup{script: told, scriptB: testnet.Reply(200, storable, "b")})
			r.stored(testnet.Get("/a/b/x"))
			assert.Equal(t, "b", string(r.get("/b/x").Body))
		}},
	}
}
