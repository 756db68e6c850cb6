package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway/internal/testnet"
)

// identityCases are section 3: hop-by-hop fields and forwarded identity.
func identityCases() []attackCase {
	var cases []attackCase
	for _, more := range [][]attackCase{
		nominationCases(), nominationByUpstreamCases(), proxyFieldCases(), untrustedPeerCases(), trustedPeerCases(), trustCases(), twinCases(), viaCases(), loopCases(),
	} {
		cases = append(cases, more...)
	}
	return cases
}

// asSent sends a GET of /a/x with these field lines and returns what a received.
func (r *rig) asSent(fields ...string) *testnet.Request {
	r.Helper()
	n := r.a.Begun()
	resp := r.get("/a/x", fields...)
	require.Equal(r, 200, resp.Status)
	journal := r.a.Await(n + 1)
	require.Len(r, journal, n+1)
	return journal[n]
}

// identified checks the fields that say who asked, each of them once and only
// under its name.
func identified(t *testing.T, r *rig, sent *testnet.Request) {
	t.Helper()
	want := map[string]string{
		"Host": r.a.Addr, "Authorization": "Bearer " + tokenA, "Via": "1.1 gateway", "X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1",
		"X-Forwarded-Host": "gateway.test", "X-Forwarded-Proto": "http", "X-Forwarded-Prefix": "/a",
	}
	for name, value := range want {
		assert.Equal(t, []string{value}, sent.Header[name], name)
	}
	assert.Regexp(t, "^[0-9a-f]{32}$", field(sent, "X-Request-Id"))
	assert.NotContains(t, sent.Header, "Connection")
}

// Row 39: a client that nominates fields as its connection's takes its own
// away, never ours (RFC 9110 §7.6.1).
func nominationCases() []attackCase {
	const custom, kept = "X-Custom: canary-custom", "X-Kept: v"
	nominate := func(connection ...string) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{})
			fields := append([]string{custom, kept, "X-Real-IP: 9.9.9.9", "X-Forwarded-For: 9.9.9.9", "Authorization: Bearer theirs"}, connection...)
			sent := r.asSent(fields...)
			identified(t, r, sent)
			assert.Equal(t, "v", field(sent, "X-Kept"))
			assert.NotContains(t, sent.Header, "X-Custom")
			for _, theirs := range []string{"canary-custom", "9.9.9.9", "theirs"} {
				assert.NotContains(t, sent.Head, theirs)
			}
			r.recorded(1, noFailure)
		}
	}
	return []attackCase{
		{39, "close, X-Forwarded-For, Authorization, X-Real-IP", nominate("Connection: close, X-Forwarded-For, Authorization, X-Real-IP, X-Custom")},
		{39, "in lower case", nominate("connection: close, x-forwarded-for, authorization, x-real-ip, x-custom")},
		{39, "over two lines", nominate("Connection: close, X-Forwarded-For", "Connection: Authorization, X-Real-IP, X-Custom")},
		{39, "with commas behind", nominate("Connection: X-Forwarded-For, Authorization, X-Real-IP, X-Custom,,")},
		{39, "with nothing between commas", nominate("Connection: ,,X-Forwarded-For,,Authorization,, ,X-Real-IP,,X-Custom")},
		{39, "with tabs", nominate("Connection:\tX-Forwarded-For\t,\tAuthorization\t, X-Real-IP ,\tX-Custom\t")},
		{39, "a folded line", nominate("Connection: X-Forwarded-For,\r\n Authorization,\r\n\tX-Real-IP, X-Custom")},
		{39, "in mixed letters", nominate("Connection: x-fORWARDED-fOR, aUTHORIZATION, X-rEAL-ip, x-cUSTOM")},
		{39, "all that we set", nominate("Connection: Host, Via, User-Agent, X-Request-Id, X-Forwarded-Host, X-Forwarded-Proto, X-Forwarded-Prefix, X-Forwarded-For, X-Real-Ip, Authorization, X-Custom")},
		{39, "itself and what is never forwarded", nominate("Connection: Connection, Keep-Alive, TE, Trailer, Transfer-Encoding, Upgrade, Proxy-Authorization, X-Custom")},
		{39, "a thousand times", nominate("Connection: " + strings.Repeat("Authorization, X-Forwarded-For, ", 1000) + "X-Custom")},
		{39, "in HTTP 1.0", func(t *testing.T) {
			r := newRig(t, setup{})
			resp := r.do("GET /a/x HTTP/1.0\r\nHost: gateway.test\r\nConnection: keep-alive, Authorization, Via, X-Custom\r\n" + custom + "\r\n\r\n")
			assert.Equal(t, 200, resp.Status)
			sent := r.a.Await(1)[0]
			assert.Equal(t, "Bearer "+tokenA, field(sent, "Authorization"))
			assert.Equal(t, "1.0 gateway", field(sent, "Via"))
			assert.NotContains(t, sent.Header, "X-Custom")
			r.recorded(1, noFailure)
		}},
		{39, "what frames the body", func(t *testing.T) {
			r := newRig(t, setup{})
			tr := r.exchange(testnet.Build("POST", "/a/x", "body", "Connection: Content-Length, Content-Type", "Content-Type: text/plain") +
				testnet.Build("POST", "/a/y", testnet.Chunks("body"), "Connection: Transfer-Encoding, close", "Transfer-Encoding: chunked"))
			assert.Equal(t, []int{200, 200}, tr.Statuses())
			journal := r.a.Await(2)
			framedOnce(t, journal[0], testnet.ByLength, "body")
			framedOnce(t, journal[1], testnet.Chunked, "body")
			assert.NotContains(t, journal[0].Header, "Content-Type")
			r.recorded(2, noFailure)
		}},
		{39, "what is no name nominates nothing", func(t *testing.T) {
			r := newRig(t, setup{})
			sent := r.asSent(kept, `Connection: "X-Kept", X-Kept;q=1, X-Kept=1, X Kept, X_Kept, X-Kep*`)
			identified(t, r, sent)
			assert.Equal(t, "v", field(sent, "X-Kept"))
			r.recorded(1, noFailure)
		}},
		{39, "the client's cache directives count, though nominated", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, cacheable, "ok")})
			sent := r.asSent("Connection: Cache-Control", "Cache-Control: no-store")
			assert.NotContains(t, sent.Header, "Cache-Control")
			assert.Zero(t, r.cache.Stats().Entries)
			r.recorded(1, noFailure)
		}},
		{39, "a field that a response varies by, which the upstream did not get", nominatedVariant},
	}
}

// nominatedVariant has a client take away the field by which the upstream
// chooses: what that client gets is not what others get who send the field.
func nominatedVariant(t *testing.T) {
	r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
		return testnet.Answer(200, cacheable+"\r\nVary: X-Lang", "in "+req.Header.Get("X-Lang"))
	})})
	assert.Equal(t, "in ", string(r.get("/a/x", "X-Lang: de", "Connection: X-Lang").Body))
	for range 2 {
		assert.Equal(t, "in de", string(r.get("/a/x", "X-Lang: de").Body))
		assert.Equal(t, "in ", string(r.get("/a/x").Body))
	}
	r.recorded(5, noFailure)
}

// Row 41: what an upstream nominates counts before it goes: the received
// message decides whether it may be stored (RFC 9111 §3).
func nominationByUpstreamCases() []attackCase {
	notStored := func(header string, gone ...string) func(*testing.T) {
		return func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, header, "body")})
			for n := 1; n <= 2; n++ {
				resp := r.get("/a/x")
				assert.Equal(t, 200, resp.Status)
				assert.Equal(t, "body", string(resp.Body))
				for _, name := range append(gone, "Connection", "Age") {
					assert.NotContains(t, resp.Header, name)
				}
				assert.Len(t, r.a.Await(n), n)
			}
			assert.Zero(t, r.cache.Stats().Entries)
			r.recorded(2, noFailure)
		}
	}
	const fresh = "\r\nCache-Control: public, max-age=60"
	return []attackCase{
		{41, "Cache-Control, Set-Cookie, Vary", notStored("Connection: Cache-Control, Set-Cookie, Vary\r\nCache-Control: no-store\r\nSet-Cookie: a=1\r\nVary: X-Lang", "Cache-Control", "Set-Cookie", "Vary")},
		{41, "Cache-Control: no-store", notStored("Connection: Cache-Control\r\nCache-Control: max-age=60, no-store", "Cache-Control")},
		{41, "Cache-Control: private", notStored("Connection: cache-control\r\nCache-Control: max-age=60, private", "Cache-Control")},
		{41, "Cache-Control, of which one line forbids", notStored("Connection: Cache-Control\r\nCache-Control: no-store"+fresh, "Cache-Control")},
		{41, "Set-Cookie", notStored("Connection: Set-Cookie\r\nSet-Cookie: a=1"+fresh, "Set-Cookie")},
		{41, "Vary: *", notStored("Connection: Vary\r\nVary: *"+fresh, "Vary")},
		{41, "over two lines, with commas", notStored("Connection: keep-alive,,\r\nConnection: ,Cache-Control,\r\nCache-Control: no-store, max-age=60", "Cache-Control")},
		{41, "Cache-Control behind close", notStored("Connection: close, Cache-Control\r\nCache-Control: no-store, max-age=60", "Cache-Control")},
		{41, "Set-Cookie before close, over two lines", notStored("Connection: Set-Cookie\r\nConnection: close\r\nSet-Cookie: a=1"+fresh, "Set-Cookie")},
		{41, "a field of a stored response behind close does not come back", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, "Connection: close, X-Private\r\nX-Private: canary\r\nX-Kept: v"+fresh, "body")})
			for range 2 {
				resp := r.get("/a/x")
				assert.Equal(t, "v", resp.Header.Get("X-Kept"))
				assert.NotContains(t, string(resp.Raw), "canary")
				assert.NotContains(t, resp.Header, "Connection", "the upstream's is not the client's")
			}
			assert.Equal(t, 1, r.a.Begun())
			r.recorded(2, noFailure)
		}},
		{41, "Vary: X-Lang", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
				return testnet.Answer(200, "Connection: Vary\r\nVary: X-Lang"+fresh, "in "+req.Header.Get("X-Lang"))
			})})
			for range 2 {
				for _, lang := range []string{"de", "fr"} {
					resp := r.get("/a/x", "X-Lang: "+lang)
					assert.Equal(t, "in "+lang, string(resp.Body))
					assert.NotContains(t, resp.Header, "Vary")
				}
			}
			r.recorded(4, noFailure)
		}},
		{41, "Age and Expires, of a response that is stored", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, "Connection: Age\r\nAge: 59\r\nX-Kept: v"+fresh, "body")})
			assert.Equal(t, 200, r.get("/a/x").Status)
			hit := r.get("/a/x")
			assert.Equal(t, "59", hit.Header.Get("Age"), "its age counts, though the field does not")
			assert.Equal(t, "v", hit.Header.Get("X-Kept"))
			assert.Equal(t, 1, r.a.Begun())
			r.recorded(2, noFailure)
		}},
		{41, "a field of a stored response does not come back", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, "Connection: X-Private, Keep-Alive\r\nX-Private: canary\r\nKeep-Alive: timeout=5\r\nX-Kept: v"+fresh, "body")})
			for range 2 {
				resp := r.get("/a/x")
				assert.Equal(t, "v", resp.Header.Get("X-Kept"))
				assert.NotContains(t, string(resp.Raw), "canary")
				assert.NotContains(t, resp.Header, "Keep-Alive")
			}
			assert.Equal(t, 1, r.a.Begun())
			r.recorded(2, noFailure)
		}},
		{41, "Content-Length, which still frames", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, "Connection: Content-Length, Content-Type\r\nContent-Type: text/plain", "body")})
			tr := r.exchange(testnet.Get("/a/x") + testnet.Get("/b/x", "Connection: close"))
			assert.Equal(t, []int{200, 200}, tr.Statuses())
			assert.Equal(t, "body", string(tr.Responses[0].Body))
			r.recorded(2, noFailure)
		}},
	}
}

// Row 43: a client's Proxy is no proxy (httpoxy), and what is for proxies ends
// here.
func proxyFieldCases() []attackCase {
	var cases []attackCase
	for _, line := range []string{
		"Proxy: http://evil", "proxy: http://evil", "PROXY: http://evil", "Proxy_: http://evil", "_Proxy: http://evil", "Proxy-: http://evil", "Proxy-Authorization: Basic evil",
		"Proxy-Authenticate: evil", "Proxy-Connection: evil", "Proxy_Authorization: Basic evil", "Proxy-Authentication-Info: evil", "Keep-Alive: evil", "TE: evil", "HTTP2-Settings: evil", "Upgrade: evil",
		"Trailer: evil", "X-HTTP-Method-Override: evil", "X-HTTP-Method: evil", "X-Method-Override: evil", "X-Original-URL: /evil", "X-Rewrite-URL: /evil",
	} {
		cases = append(cases, attackCase{43, line, func(t *testing.T) {
			r := newRig(t, setup{})
			sent := r.asSent(line)
			identified(t, r, sent)
			assert.NotContains(t, sent.Head, "evil")
			name, _, _ := strings.Cut(line, ":")
			assert.NotContains(t, sent.Header, http.CanonicalHeaderKey(name))
			r.recorded(1, noFailure)
		}})
	}
	return append(cases, attackCase{43, "TE: trailers is a promise that passes", func(t *testing.T) {
		r := newRig(t, setup{})
		sent := r.asSent("TE: gzip;q=0.5, Trailers", "Connection: TE")
		assert.Equal(t, []string{"trailers"}, sent.Header["Te"])
		assert.Equal(t, []string{"TE"}, sent.Header["Connection"]) // RFC 9110 §10.1.4
		r.recorded(1, noFailure)
	}})
}
