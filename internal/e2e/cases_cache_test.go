package e2e_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// cacheCases are section 6: what a shared cache keeps, and for whom.
func cacheCases() []attackCase {
	var cases []attackCase
	for _, more := range [][]attackCase{
		authorizedCases(), sharedAuthorizedCases(), injectedCases(), setCookieCases(), directiveCases(),
		varyCases(), encodedCases(), poisonedErrorCases(), deceptionCases(), separateCases(),
		coldRangeCases(), hostileRangeCases(), notModifiedCases(),
		invalidationCases(), noInvalidationCases(), foreignInvalidationCases(),
		leaderDropsCases(), numberCases(), requestControlCases(), oracleCases(),
		collapsedCases(), unsharedCases(), sharedErrorCases(), saturatedRefreshCases(),
	} {
		cases = append(cases, more...)
	}
	return cases
}

// stored checks that the answer to the request is served from the store the
// second time, with the same bytes, and returns the second answer.
func (r *rig) stored(raw string) *testnet.Response {
	r.Helper()
	before, entries := r.a.Begun(), r.cache.Stats().Entries
	first := r.do(raw)
	testnet.Settle(r, "it is stored", func() bool { return r.cache.Stats().Entries > entries }) // a long one a moment later
	second := r.do(raw)
	assert.Equal(r, "gateway; fwd=uri-miss; stored", first.Header.Get("Cache-Status"))
	assert.Contains(r, second.Header.Get("Cache-Status"), "gateway; hit")
	assert.Equal(r, string(first.Body), string(second.Body))
	assert.Equal(r, first.Status, second.Status)
	assert.Equal(r, testnet.Whole, second.End)
	assert.Equal(r, before+1, r.a.Begun(), "requests to the upstream")
	return second
}

// notStored checks that each answer to the request comes from the upstream and
// that none is stored, for that reason.
func (r *rig) notStored(raw, detail string) {
	r.Helper()
	before, entries := r.a.Begun(), r.cache.Stats().Entries
	for n := 1; n <= 2; n++ {
		resp := r.do(raw)
		assert.Equal(r, testnet.Whole, resp.End)
		assert.Equal(r, "gateway; fwd=uri-miss; detail="+detail, resp.Header.Get("Cache-Status"))
		assert.Empty(r, resp.Header["Age"])
		assert.Equal(r, before+n, r.a.Begun(), "requests to the upstream")
	}
	assert.Equal(r, entries, r.cache.Stats().Entries)
}

// repeatsAuthorization answers with whom it was asked by.
func repeatsAuthorization(header string) func(*testnet.Conn) {
	return testnet.Respond(func(req *testnet.Request) string {
		return testnet.Answer(200, header, "for "+field(req, "Authorization"))
	})
}

// Row 89: what one client was shown for its credentials is for that client
// (RFC 9111 §3.5).
func authorizedCases() []attackCase {
	private := func(what string, fields ...string) attackCase {
		return attackCase{89, what, func(t *testing.T) {
			r := newRig(t, setup{noToken: true, script: repeatsAuthorization("Cache-Control: max-age=60")})
			r.notStored(testnet.Get("/a/x", fields...), "authorization")
			b := r.get("/a/x", "Authorization: Bearer B")
			assert.Equal(t, "for Bearer B", string(b.Body), "B is answered by the upstream")
			nobody := r.get("/a/x")
			assert.Equal(t, "for ", string(nobody.Body))
			assert.Equal(t, "gateway; fwd=uri-miss; stored", nobody.Header.Get("Cache-Status"))
			assert.Len(t, r.a.Await(4), 4)
			r.counted(noFailure)
		}}
	}
	return []attackCase{
		private("max-age alone", "Authorization: Bearer A"),
		private("another scheme", "Authorization: Basic QTpB"),
		private("a bare scheme", "Authorization: Negotiate"),
		private("empty credentials", "Authorization: "),
		private("field name in other letters", "aUTHORIZATION: Bearer A"),
		private("nominated, so that the upstream does not see it", "Connection: Authorization", "Authorization: Bearer A"),
		{89, "what was stored for nobody answers nobody's credentials either way", func(t *testing.T) {
			r := newRig(t, setup{noToken: true, script: repeatsAuthorization("Cache-Control: max-age=60")})
			require.Equal(t, "for ", string(r.get("/a/x").Body))
			resp := r.get("/a/x", "Authorization: Bearer A")
			assert.Equal(t, "for ", string(resp.Body), "RFC 9111 §3.5 is about storing; a response to nobody may serve all")
			assert.Contains(t, resp.Header.Get("Cache-Status"), "; hit")
			assert.Len(t, r.a.Await(1), 1)
		}},
		{89, "an underscore twin is no credential", func(t *testing.T) {
			r := newRig(t, setup{noToken: true, script: repeatsAuthorization("Cache-Control: max-age=60")})
			r.stored(testnet.Get("/a/x", "Authorization_: Bearer A"))
			assert.NotContains(t, string(r.a.JournalBytes()), "Bearer")
		}},
	}
}

// Row 89: the upstream may say that all may see it.
func sharedAuthorizedCases() []attackCase {
	var cases []attackCase
	for _, control := range []string{"public, max-age=60", "s-maxage=60", "must-revalidate, max-age=60", "PUBLIC,Max-Age=\"60\""} {
		cases = append(cases, attackCase{89, control, func(t *testing.T) {
			r := newRig(t, setup{noToken: true, script: repeatsAuthorization("Cache-Control: " + control)})
			r.stored(testnet.Get("/a/x", "Authorization: Bearer A"))
			for _, fields := range [][]string{{"Authorization: Bearer B"}, nil} {
				resp := r.get("/a/x", fields...)
				assert.Equal(t, "for Bearer A", string(resp.Body))
				assert.Contains(t, resp.Header.Get("Cache-Status"), "; hit")
			}
			assert.Len(t, r.a.Await(1), 1)
			r.counted(noFailure)
		}})
	}
	refused := map[string]string{
		"public, private, max-age=60":  "private",
		"public, no-store, max-age=60": "no-store",
		"public, no-cache, max-age=60": "no-cache",
		"public=\"x\", max-age=60":     "authorization",
		"x-public, max-age=60":         "authorization",
		"ext=\"public\", max-age=60":   "authorization",
		"proxy-revalidate, max-age=60": "authorization",
	}
	for control, detail := range refused {
		cases = append(cases, attackCase{89, control, func(t *testing.T) {
			r := newRig(t, setup{noToken: true, script: repeatsAuthorization("Cache-Control: " + control)})
			r.notStored(testnet.Get("/a/x", "Authorization: Bearer A"), detail)
		}})
	}
	return append(cases, attackCase{89, "public, varying by Authorization", func(t *testing.T) {
		r := newRig(t, setup{noToken: true, script: repeatsAuthorization("Cache-Control: public, max-age=60\r\nVary: Authorization")})
		r.stored(testnet.Get("/a/x", "Authorization: Bearer A"))
		b := r.get("/a/x", "Authorization: Bearer B")
		assert.Equal(t, "for Bearer B", string(b.Body))
		assert.Equal(t, "gateway; fwd=vary-miss; stored", b.Header.Get("Cache-Status"))
		assert.Equal(t, "for Bearer A", string(r.get("/a/x", "Authorization: Bearer A").Body))
		assert.Equal(t, "for ", string(r.get("/a/x").Body))
		assert.Len(t, r.a.Await(3), 3)
	}})
}

// Row 89: credentials that the gateway injects are credentials.
func injectedCases() []attackCase {
	rotating := gateway.WithTokenSource(tokens(tokenA))
	identity := func(what string, opt gateway.ServiceOption) []attackCase {
		return []attackCase{
			{89, "max-age alone, injected by " + what, func(t *testing.T) {
				r := newRig(t, setup{noToken: true, a: []gateway.ServiceOption{opt}, script: testnet.Reply(200, "Cache-Control: max-age=60", "ok")})
				r.notStored(testnet.Get("/a/x"), "authorization")
			}},
			{89, "public, injected by " + what, func(t *testing.T) {
				r := newRig(t, setup{noToken: true, a: []gateway.ServiceOption{opt}, script: testnet.Reply(200, "Cache-Control: public, max-age=60", "ok")})
				r.stored(testnet.Get("/a/x"))
			}},
		}
	}
	cases := append(identity("WithBearerToken", gateway.WithBearerToken(tokenA)), identity("WithTokenSource", rotating)...)
	cases = append(cases, identity("WithHeader", gateway.WithHeader("Authorization", "Basic "+tokenA))...)
	return append(cases,
		attackCase{89, "max-age alone, injected by a rewrite", func(t *testing.T) {
			hook := gateway.WithRewrite(func(out *http.Request) { out.Header.Set("Authorization", "Bearer "+tokenA) })
			r := newRig(t, setup{noToken: true, a: []gateway.ServiceOption{hook}, script: testnet.Reply(200, "Cache-Control: max-age=60", "ok")})
			r.notStored(testnet.Get("/a/x"), "authorization")
		}},
		attackCase{89, "one identity for all, by WithCacheAuthorized", func(t *testing.T) {
			r := newRig(t, setup{a: []gateway.ServiceOption{gateway.WithCacheAuthorized()}, script: testnet.Reply(200, "Cache-Control: max-age=60", "ok")})
			r.stored(testnet.Get("/a/x"))
			assert.Contains(t, r.get("/a/x", "Authorization: Bearer B").Header.Get("Cache-Status"), "; hit")
		}},
		attackCase{89, "one identity for all, but private", func(t *testing.T) {
			r := newRig(t, setup{a: []gateway.ServiceOption{gateway.WithCacheAuthorized()}, script: testnet.Reply(200, "Cache-Control: private, max-age=60", "ok")})
			r.notStored(testnet.Get("/a/x"), "private")
		}},
	)
}

// Row 91: a cookie is set for one client (RFC 9111 §7.3).
func setCookieCases() []attackCase {
	const cookie = "Set-Cookie: session=of-one-client; Path=/"
	private := func(what, header, detail string) attackCase {
		return attackCase{91, what, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, "Cache-Control: public, max-age=60\r\n"+header, "ok")})
			r.notStored(testnet.Get("/a/x"), detail)
			r.counted(noFailure)
		}}
	}
	return []attackCase{
		private("public", cookie, "set-cookie"),
		private("field name in other letters", "sET-cOOKIE: session=of-one-client", "set-cookie"),
		private("space before the colon", "Set-Cookie : session=of-one-client", "set-cookie"),
		private("two cookies", cookie+"\r\nSet-Cookie: b=c", "set-cookie"),
		private("an empty one", "Set-Cookie:", "set-cookie"),
		private("one that expires", "Set-Cookie: session=; Max-Age=0", "set-cookie"),
		private("in no-cache", "Cache-Control: no-cache=\"Set-Cookie\"\r\n"+cookie, "no-cache"),
		{91, "chunked", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, "Cache-Control: public, max-age=60\r\nTransfer-Encoding: chunked\r\n"+cookie, testnet.Chunks("o", "k"))})
			r.notStored(testnet.Get("/a/x"), "set-cookie")
		}},
		private("nominated by Connection", "Connection: Set-Cookie\r\n"+cookie, "set-cookie"),
		{91, "in the trailer", func(t *testing.T) {
			answer := testnet.Answer(200, "Cache-Control: public, max-age=60\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie", "2\r\nok\r\n0\r\nSet-Cookie: session=of-one-client\r\n\r\n")
			r := newRig(t, setup{script: testnet.Replies(answer)})
			r.notStored(testnet.Get("/a/x"), "trailer")
			assert.NotContains(t, string(r.clients), "session=", "RFC 9110 §6.5.1: no trailer field")
		}},
		{91, "in a trailer that was not announced", func(t *testing.T) {
			answer := testnet.Answer(200, "Cache-Control: public, max-age=60\r\nTransfer-Encoding: chunked", "2\r\nok\r\n0\r\nSet-Cookie: session=of-one-client\r\n\r\n")
			r := newRig(t, setup{script: testnet.Replies(answer)})
			r.stored(testnet.Get("/a/x"))
			assert.NotContains(t, string(r.clients), "session=")
		}},
		{91, "in a 103 before a response that is stored", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Replies(testnet.Answer(103, cookie, "") + testnet.Answer(200, "Cache-Control: public, max-age=60", "ok"))})
			assert.Empty(t, r.stored(testnet.Get("/a/x")).Header["Set-Cookie"])
		}},
		{91, "stored on request", func(t *testing.T) {
			r := newRig(t, setup{
				defaults: []gateway.Option{gateway.WithCacheCookies()},
				script:   testnet.Reply(200, "Cache-Control: public, max-age=60\r\n"+cookie, "ok"),
			})
			assert.Equal(t, []string{"session=of-one-client; Path=/"}, r.stored(testnet.Get("/a/x")).Header["Set-Cookie"])
		}},
	}
}

// Row 93: directives that forbid storing, in every spelling (RFC 9111 §5.2.2).
func directiveCases() []attackCase {
	forbidding := []struct{ control, detail string }{
		{"private, max-age=60", "private"},
		{"max-age=60,private", "private"},
		{"PRIVATE, max-age=60", "private"},
		{`private="X", max-age=60`, "private"},
		{`private="X, Y", max-age=60`, "private"},
		{`private="Set-Cookie", public, max-age=60`, "private"},
		{`max-age=60, private=""`, "private"},
		{"private=X, max-age=60", "private"},
		{`no-cache="Set-Cookie", max-age=60`, "no-cache"},
		{`no-cache="a,b", s-maxage=60`, "no-cache"},
		{"No-Cache, max-age=60", "no-cache"},
		{"no-store", "no-store"},
		{"NO-STORE, max-age=60", "no-store"},
		{"max-age=60\r\nCache-Control: no-store", "no-store"},
		{"no-store\r\nCache-Control: public, max-age=60", "no-store"},
		{"max-age=60\r\ncache-control : no-store", "no-store"},
		{"no-store=1, max-age=60", "no-store"},
		{",,no-store,,max-age=60", "no-store"},
		{"\tmax-age=60 \t,\tno-store\t", "no-store"},
		{`ext="a, b", no-store, max-age=60`, "no-store"},
		{`ext="\"", no-store, max-age=60`, "no-store"},
		{`ext=a, NO-store, max-age=60`, "no-store"},
		{`ext="unclosed, max-age=60`, "stale"},
		{"max-age=60; no-store", "no-store"},
		{"max-age=60 no-store", "no-store"},
		{"no store, max-age=60", "no-store"},
		{"max-age =60", "stale"},
		{`ext="max-age=60"`, "no-freshness"},
		{`ext="public, max-age=60"`, "no-freshness"},
		{"public", "no-freshness"},
		{"max-age=0", "stale"},
		{"s-maxage=0, max-age=60", "stale"},
		{"max-age=60, max-age=0", "stale"},
	}
	permitting := []string{
		"max-age=60",
		"MAX-AGE=60",
		`max-age="60"`,
		"public,max-age=60",
		"max-age=60, stale-foo=3, immutable, x",
		`ext="no-store", max-age=60`,
		`ext="private, no-cache", max-age=60`,
		`ext="\", no-store", max-age=60`,
		"no-storeish, max-age=60",
		`max-age=60, ext="unclosed`,
		"max-age=60, ext = 1",
		"max-age=0, s-maxage=60",
		"no-transform, max-age=60",
		"max-age=60\r\nPragma: no-cache",
	}
	var cases []attackCase
	for _, c := range forbidding {
		cases = append(cases, attackCase{93, fmt.Sprintf("%q is not stored", c.control), func(t *testing.T) {
			r := newRig(t, setup{noToken: true, script: testnet.Reply(200, "Cache-Control: "+c.control, "ok")})
			r.notStored(testnet.Get("/a/x"), c.detail)
		}})
	}
	for _, control := range permitting {
		cases = append(cases, attackCase{93, fmt.Sprintf("%q is stored", control), func(t *testing.T) {
			r := newRig(t, setup{noToken: true, script: testnet.Reply(200, "Cache-Control: "+control, "ok")})
			r.stored(testnet.Get("/a/x"))
		}})
	}
	return cases
}
