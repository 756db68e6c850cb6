package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// leakCases are section 8: credentials, and what must not be told.
func leakCases() []attackCase {
	var cases []attackCase
	for _, more := range [][]attackCase{
		tokenValueCases(), tokenSourceCases(), echoCases(), refusedTokenCases(), rotationCases(), serviceNameCases(),
	} {
		cases = append(cases, more...)
	}
	return cases
}

// tokens is a token source that returns each of list in turn, and the last one
// from then on.
func tokens(list ...string) gateway.TokenSource {
	var next atomic.Int64
	return func(context.Context) (string, error) {
		return list[min(int(next.Add(1)), len(list))-1], nil
	}
}

const brokenToken = "BROKEN-canary-6d1f02b9"

// Row 143: a token that is no field value reaches nobody, and shows nowhere.
func tokenValueCases() []attackCase {
	var cases []attackCase
	for what, token := range map[string]string{
		"CR LF and a field":      brokenToken + "\r\nX-Evil: 1",
		"bare LF":                brokenToken + "\nX-Evil: 1",
		"bare CR":                brokenToken + "\rX-Evil: 1",
		"NUL":                    brokenToken + "\x00",
		"empty":                  "",
		"70 kB":                  brokenToken + strings.Repeat("x", 70_000),
		"trailing space":         brokenToken + " ",
		"leading space":          " " + brokenToken,
		"trailing LF":            brokenToken + "\n",
		"space inside":           brokenToken + " and more",
		"tab":                    brokenToken + "\t",
		"DEL":                    brokenToken + "\x7f",
		"non-ASCII":              brokenToken + "\u00e9",
		"a byte that is no text": brokenToken + "\xff",
		"a second request":       brokenToken + "\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		cases = append(cases, attackCase{143, what, func(t *testing.T) {
			r := newRig(t, setup{noToken: true, a: []gateway.ServiceOption{gateway.WithTokenSource(tokens(token))}})
			r.tokenRefused(testnet.Get("/a/x"), 1)
			r.tokenRefused(testnet.Build("POST", "/a/x", "", "Content-Length: 0"), 2)
		}})
	}
	return cases
}

// tokenRefused checks that the request is answered 502, in general words, for
// want of a token; n requests have been by now.
func (r *rig) tokenRefused(request string, n uint64) {
	r.Helper()
	resp := r.do(request)
	assert.Equal(r, 502, resp.Status)
	assert.Contains(r, string(resp.Body), "The service's credentials are not available.")
	assert.Contains(r, string(resp.Body), `"reason":"token_unavailable"`)
	assert.Equal(r, "no-store", resp.Header.Get("Cache-Control"))
	assert.Empty(r, r.attempts(), "nothing is sent")
	assert.Zero(r, r.a.Conns())
	for _, place := range []string{string(r.clients), r.logs.Text(), fmt.Sprint(r.spans.GetSpans())} {
		assert.False(r, testnet.Occurs(place, brokenToken), "the token shows in %.200q", place)
		assert.NotContains(r, place, "X-Evil")
	}
	r.counted(map[gateway.Reason]uint64{gateway.ReasonToken: n})
}

// Row 143: a token source that fails is no reason to send the request without
// a token, nor with the client's own.
func tokenSourceCases() []attackCase {
	failing := func(what string, source gateway.TokenSource) attackCase {
		return attackCase{143, what, func(t *testing.T) {
			r := newRig(t, setup{noToken: true, a: []gateway.ServiceOption{gateway.WithTokenSource(source)}})
			r.tokenRefused(testnet.Get("/a/x", "Authorization: Bearer mine"), 1)
			assert.NotContains(t, string(r.a.JournalBytes()), "mine")
		}}
	}
	return []attackCase{
		failing("an error", func(context.Context) (string, error) { return "", errors.New("the vault is sealed") }),
		failing("an error and a token", func(context.Context) (string, error) { return brokenToken, errors.New("expired") }),
		failing("a panic", func(context.Context) (string, error) { panic("the vault is sealed") }),
		{143, "good again, the next request is served", func(t *testing.T) {
			r := newRig(t, setup{noToken: true, a: []gateway.ServiceOption{gateway.WithTokenSource(tokens(brokenToken+"\n", tokenA))}})
			r.tokenRefused(testnet.Get("/a/x"), 1)
			assert.Equal(t, 200, r.get("/a/x").Status)
			assert.Equal(t, "Bearer "+tokenA, field(r.a.Await(1)[0], "Authorization"))
		}},
		{143, "a hit needs no token", func(t *testing.T) {
			var asked atomic.Int64
			source := func(context.Context) (string, error) { asked.Add(1); return tokenA, nil }
			r := newRig(t, setup{noToken: true, a: []gateway.ServiceOption{gateway.WithTokenSource(source)}, script: testnet.Reply(200, "Cache-Control: public, max-age=60", "ok")})
			r.stored(testnet.Get("/a/x"))
			assert.EqualValues(t, 1, asked.Load())
		}},
	}
}

// Row 145: what an upstream repeats of a request is its own business, but it is
// not for others.
func echoCases() []attackCase {
	echo := func(what, header, detail string, body func(*testnet.Request) string) attackCase {
		return attackCase{145, what, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
				return testnet.Answer(200, "Cache-Control: public, max-age=60\r\n"+strings.ReplaceAll(header, "TOKEN", field(req, "Authorization")), body(req))
			})})
			for n := 1; n <= 2; n++ {
				resp := testnet.Do(t, r.addr, testnet.Get("/a/x")) // not r.do, for what it holds is the upstream's doing
				assert.Equal(t, "gateway; fwd=uri-miss; detail="+detail, resp.Header.Get("Cache-Status"))
				assert.Len(t, r.a.Await(n), n)
			}
			assert.Zero(t, r.cache.Stats().Entries)
		}}
	}
	head := func(req *testnet.Request) string { return req.Head }
	plain := func(*testnet.Request) string { return "ok" }
	return []attackCase{
		echo("message/http", "Content-Type: message/http", "echo", head),
		echo("message/http with a parameter, in other letters", "Content-Type: Message/HTTP; msgtype=request", "echo", head),
		echo("application/http", "Content-Type: application/http", "echo", head),
		echo("the token in a field", "X-Debug: you sent TOKEN", "echo", plain),
		echo("the token in Link", "Link: </next?auth=TOKEN>; rel=next", "echo", plain),
		{145, "a client's own credentials in a field", func(t *testing.T) {
			r := newRig(t, setup{noToken: true, script: testnet.Respond(func(req *testnet.Request) string {
				return testnet.Answer(200, "Cache-Control: public, max-age=60\r\nX-Debug: "+field(req, "Authorization"), "ok")
			})})
			r.notStored(testnet.Get("/a/x", "Authorization: Bearer 0123456789"), "echo")
			r.stored(testnet.Get("/a/x"))
		}},
		{145, "TRACE", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Reply(200, "Content-Type: message/http\r\nCache-Control: public, max-age=60", "TRACE /x HTTP/1.1")})
			resp := r.do(testnet.Build("TRACE", "/a/x", ""))
			assert.Equal(t, 405, resp.Status)
			assert.Equal(t, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS", resp.Header.Get("Allow"))
			assert.Zero(t, r.a.Begun())
			assert.Zero(t, r.cache.Stats().Entries)
			r.counted(onlyFailure(gateway.ReasonMethodNotAllowed))
		}},
	}
}

// Row 145: a token that the upstream refuses is not tried again: the client
// hears of it.
func refusedTokenCases() []attackCase {
	relayed := func(status int, header string) attackCase {
		return attackCase{145, fmt.Sprintf("%d, %s", status, header), func(t *testing.T) {
			var asked atomic.Int64
			source := func(context.Context) (string, error) { asked.Add(1); return tokenA, nil }
			r := newRig(t, setup{noToken: true, a: []gateway.ServiceOption{gateway.WithTokenSource(source)}, script: testnet.Reply(status, header, "no")})
			for n := 1; n <= 2; n++ {
				resp := r.get("/a/x")
				assert.Equal(t, status, resp.Status)
				assert.Equal(t, "no", string(resp.Body))
				name, value, _ := strings.Cut(header, ": ")
				assert.Equal(t, value, resp.Header.Get(name))
				assert.Len(t, r.a.Await(n), n, "sent once")
				assert.EqualValues(t, n, asked.Load(), "asked once for each request")
			}
			assert.Zero(t, r.cache.Stats().Entries)
			assert.Zero(t, r.gw.Stats().Retries)
			r.counted(noFailure)
		}}
	}
	return []attackCase{
		relayed(401, `WWW-Authenticate: Bearer realm="a", error="invalid_token"`),
		relayed(401, "Cache-Control: public, max-age=60"),
		relayed(403, "Cache-Control: max-age=60"),
		relayed(407, "Cache-Control: public, max-age=60"),
	}
}

// Row 149: what is stored does not depend on the token it was fetched with:
// only what all may see is, and its key knows no token.
func rotationCases() []attackCase {
	const second = "TOK_A-canary-51c9e2d07b-second"
	script := func(header string) func(*testnet.Conn) {
		return testnet.Respond(func(req *testnet.Request) string {
			if strings.HasSuffix(field(req, "Authorization"), "-second") {
				return testnet.Answer(401, "WWW-Authenticate: Bearer", "rotated away")
			}
			return testnet.Answer(200, header, "ok")
		})
	}
	rig := func(t *testing.T, header string) *rig {
		return newRig(t, setup{noToken: true, a: []gateway.ServiceOption{gateway.WithTokenSource(tokens(tokenA, second))}, script: script(header)})
	}
	return []attackCase{
		{149, "a public hit outlives the token", func(t *testing.T) {
			r := rig(t, "Cache-Control: public, max-age=60")
			assert.Equal(t, 200, r.get("/a/x").Status)
			assert.Equal(t, 401, r.get("/a/other").Status, "the token has been rotated")
			resp := r.get("/a/x")
			assert.Equal(t, 200, resp.Status)
			assert.Contains(t, resp.Header.Get("Cache-Status"), "; hit")
			assert.EqualValues(t, 1, r.cache.Stats().Entries, "one key for both tokens")
			assert.Len(t, r.a.Await(2), 2)
			r.counted(noFailure)
		}},
		{149, "what was not for all is not there", func(t *testing.T) {
			r := rig(t, "Cache-Control: max-age=60")
			assert.Equal(t, 200, r.get("/a/x").Status)
			resp := r.get("/a/x")
			assert.Equal(t, 401, resp.Status)
			assert.Equal(t, "rotated away", string(resp.Body))
			assert.Zero(t, r.cache.Stats().Entries)
		}},
		{149, "a 401 past the cache leaves the hit", func(t *testing.T) {
			r := rig(t, "Cache-Control: public, max-age=60")
			assert.Equal(t, 200, r.get("/a/x").Status)
			assert.Equal(t, 401, r.get("/a/x", "Cache-Control: no-cache").Status)
			assert.Contains(t, r.get("/a/x").Header.Get("Cache-Status"), "; hit")
			assert.Len(t, r.a.Await(2), 2)
		}},
		{149, "varying by Authorization, what the gateway injects is no client's", func(t *testing.T) {
			r := rig(t, "Cache-Control: public, max-age=60\r\nVary: Authorization")
			resp := r.get("/a/x")
			assert.Equal(t, "gateway; fwd=uri-miss; detail=vary", resp.Header.Get("Cache-Status"))
			assert.Equal(t, 401, r.get("/a/x").Status)
			assert.Zero(t, r.cache.Stats().Entries)
		}},
	}
}

// Row 151: a name that could be mistaken for something else in a path is none.
func serviceNameCases() []attackCase {
	var cases []attackCase
	for _, name := range []string{
		"..", ".", "", "a/b", "/", "a/", "/a", "caf\u00e9", "\u0430", "a\u200b", "\xff", "a b", " a", "a%62", "%2e%2e", "a?b", "a#b", "a;b", "a:b", "a@b",
		`a\b`, "a\x00", "a\n", "a+b", "a,b", "a*", "{a}", "a=b", strings.Repeat("a", 65),
	} {
		cases = append(cases, attackCase{151, fmt.Sprintf("%.20q", name), func(t *testing.T) {
			gw, err := gateway.New(gateway.WithService(name, "http://upstream.test"))
			assert.Nil(t, gw)
			assert.Equal(t, "WithService", optionFault(t, err).Option)
			up, err := gateway.NewUpstream(name, "http://upstream.test")
			assert.Nil(t, up)
			assert.Equal(t, "NewUpstream", optionFault(t, err).Option)
		}})
	}
	return append(cases,
		attackCase{151, "duplicate", func(t *testing.T) {
			_, err := gateway.New(gateway.WithService("a", "http://one.test"), gateway.WithService("b", "http://two.test"), gateway.WithService("a", "http://one.test"))
			fault := optionFault(t, err)
			assert.Equal(t, gateway.OptionError{Option: "WithService", Service: "a", Value: "a", Reason: "the name is taken by another service"}, *fault)
		}},
		attackCase{151, "other letters are another name", func(t *testing.T) {
			_, err := gateway.New(gateway.WithService("a", "http://one.test"), gateway.WithService("A", "http://one.test"), gateway.WithService("a.b-c_d~0", "http://one.test"), gateway.WithService("...", "http://one.test"), gateway.WithService(strings.Repeat("a", 64), "http://one.test"))
			require.NoError(t, err)
		}},
	)
}

// optionFault is the only fault that a constructor found.
func optionFault(t *testing.T, err error) *gateway.OptionError {
	t.Helper()
	faults := optionFaults(t, err)
	require.Len(t, faults, 1)
	return faults[0]
}

// optionFaults takes what a constructor returned apart.
func optionFaults(t *testing.T, err error) (faults []*gateway.OptionError) {
	t.Helper()
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok, "%T joins nothing", err)
	for _, e := range joined.Unwrap() {
		var fault *gateway.OptionError
		require.ErrorAs(t, e, &fault)
		faults = append(faults, fault)
	}
	return faults
}
