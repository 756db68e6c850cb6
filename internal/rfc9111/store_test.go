package rfc9111

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// storable returns an exchange that may be stored, for a row to spoil.
func storable() *Exchange {
	return &Exchange{
		Method: http.MethodGet, Status: http.StatusOK, Framed: true,
		Request:     http.Header{"Accept": {"*/*"}},
		Response:    http.Header{"Cache-Control": {"max-age=60"}, "Date": {at(0)}, "Content-Type": {"text/plain"}},
		RequestTime: today, ResponseTime: today,
	}
}

func says(lines ...string) func(*Exchange) {
	return func(x *Exchange) { x.Response["Cache-Control"] = lines }
}

func asks(name string, lines ...string) func(*Exchange) {
	return func(x *Exchange) { x.Request[name] = lines }
}

func sends(name string, lines ...string) func(*Exchange) {
	return func(x *Exchange) { x.Sent = http.Header{name: lines} }
}

func answers(name string, lines ...string) func(*Exchange) {
	return func(x *Exchange) { x.Response[name] = lines }
}

func injected(x *Exchange) { x.Injected = true }

var bearer = asks("Authorization", "Bearer QWxhZGRpbg")

var storableTable = []struct {
	name  string
	do    []func(*Exchange)
	allow Config
	want  Verdict
}{
	{name: "§3 GET 200 with max-age"},
	{name: "§3 the method is understood", do: []func(*Exchange){func(x *Exchange) { x.Method = http.MethodPost }}, want: VerdictMethod},
	{name: "§3 HEAD answers no GET", do: []func(*Exchange){func(x *Exchange) { x.Method = http.MethodHead }}, want: VerdictMethod},
	{name: "RFC 9110 §9.3.8 TRACE", do: []func(*Exchange){func(x *Exchange) { x.Method = http.MethodTrace }}, want: VerdictMethod},
	{name: "§3 methods are case-sensitive", do: []func(*Exchange){func(x *Exchange) { x.Method = "get" }}, want: VerdictMethod},
	{name: "§3 the status is final", do: []func(*Exchange){func(x *Exchange) { x.Status = 103 }}, want: VerdictStatus},
	{name: "§3 206 is not understood", do: []func(*Exchange){func(x *Exchange) { x.Status = 206 }}, want: VerdictStatus},
	{name: "§3 304 is not understood", do: []func(*Exchange){func(x *Exchange) { x.Status = 304 }}, want: VerdictStatus},
	{name: "an error is not stored, whatever it says", do: []func(*Exchange){func(x *Exchange) { x.Status = 404 }, says("public, max-age=60")}, want: VerdictStatus},
	{name: "a challenge is not stored", do: []func(*Exchange){func(x *Exchange) { x.Status = 401 }, says("public, max-age=60")}, want: VerdictStatus},
	{name: "§3.3 nothing proves it complete", do: []func(*Exchange){func(x *Exchange) { x.Framed = false }}, want: VerdictUnframed},
	{name: "§3.3 a range was asked for", do: []func(*Exchange){asks("Range", "bytes=0-0")}, want: VerdictRange},
	{name: "§3.3 a hook asked for a range", do: []func(*Exchange){sends("Range", "bytes=0-0")}, want: VerdictRange},
	{name: "§3.3 a 200 that says it is a part", do: []func(*Exchange){answers("Content-Range", "bytes 0-0/9")}, want: VerdictRange},
	{name: "an event stream", do: []func(*Exchange){answers("Content-Type", "Text/Event-Stream; charset=utf-8")}, want: VerdictEventStream},
	{name: "RFC 9112 §10 message/http", do: []func(*Exchange){answers("Content-Type", "message/HTTP ;version=1.1")}, want: VerdictEcho},
	{name: "RFC 9112 §10 application/http", do: []func(*Exchange){answers("Content-Type", "text/plain", "application/http")}, want: VerdictEcho},

	{name: "§5.2.2.5 no-store", do: []func(*Exchange){says("no-store, max-age=60")}, want: VerdictNoStore},
	{name: "§5.2.2.5 in upper case", do: []func(*Exchange){says("MAX-AGE=60, NO-STORE")}, want: VerdictNoStore},
	{name: "§5.2.2.5 beside public", do: []func(*Exchange){says("public, max-age=60", "no-store")}, want: VerdictNoStore},
	{name: "§5.2.2.3 must-understand lifts it from a status that is understood", do: []func(*Exchange){says("no-store, must-understand, max-age=60")}},
	{name: "§5.2.2.3 and lifts nothing else", do: []func(*Exchange){says("no-store, must-understand, private, max-age=60")}, want: VerdictPrivate},
	{name: "§5.2.2.7 private", do: []func(*Exchange){says("private, max-age=60")}, want: VerdictPrivate},
	{name: "§5.2.2.7 private, qualified", do: []func(*Exchange){says(`max-age=60, private="X"`)}, want: VerdictPrivate},
	{name: "§5.2.2.7 private beside public", do: []func(*Exchange){says("public, private, s-maxage=60")}, want: VerdictPrivate},
	{name: "§5.2.2.4 no-cache", do: []func(*Exchange){says("no-cache, max-age=60")}, want: VerdictNoCache},
	{name: "§5.2.2.4 no-cache, qualified", do: []func(*Exchange){says(`max-age=60, no-cache="Set-Cookie"`)}, want: VerdictNoCache},
	{name: "§5.2 outside the grammar", do: []func(*Exchange){says("must-understand; max-age=60")}, want: VerdictMalformed},
	{name: "§5.2 an open quote", do: []func(*Exchange){says(`max-age=60, x="`)}, want: VerdictMalformed},
	{name: "§5.2.3 unknown extension", do: []func(*Exchange){says(`max-age=60, x="no-store, private"`)}},
	{name: "§5.2.1.5 the client says no-store", do: []func(*Exchange){asks("Cache-Control", "no-store")}, want: VerdictRequestNoStore},
	{name: "§5.2.1.4 the client's no-cache does not forbid", do: []func(*Exchange){asks("Cache-Control", "no-cache")}},

	{name: "§3.5 Authorization", do: []func(*Exchange){bearer}, want: VerdictAuthorization},
	{name: "§3.5 an empty Authorization", do: []func(*Exchange){asks("Authorization", "")}, want: VerdictAuthorization},
	{name: "§3.5 public", do: []func(*Exchange){bearer, says("public, max-age=60")}},
	{name: "§3.5 s-maxage", do: []func(*Exchange){bearer, says("s-maxage=60")}},
	{name: "§3.5 must-revalidate", do: []func(*Exchange){bearer, says("must-revalidate, max-age=60")}},
	{name: "§3.5 proxy-revalidate is not named there", do: []func(*Exchange){bearer, says("proxy-revalidate, max-age=60")}, want: VerdictAuthorization},
	{name: "§3.5 Expires does not permit", do: []func(*Exchange){bearer, says(), answers("Expires", at(60*second))}, want: VerdictAuthorization},
	{name: "§3.5 our credentials", do: []func(*Exchange){injected}, want: VerdictAuthorization},
	{name: "§3.5 our credentials, public", do: []func(*Exchange){injected, says("public, max-age=60")}},
	{name: "§3.5 a hook's credentials", do: []func(*Exchange){sends("Authorization", "Bearer of-a-hook")}, want: VerdictAuthorization},
	{name: "§3.5 one identity for all", do: []func(*Exchange){injected}, allow: Config{Authorized: true}},
	{name: "§3.5 one identity for all is not private", do: []func(*Exchange){injected, says("private, max-age=60")}, allow: Config{Authorized: true}, want: VerdictPrivate},
	{name: "the credentials come back", do: []func(*Exchange){bearer, says("public, max-age=60"), answers("X-Echo", "<Bearer QWxhZGRpbg>")}, want: VerdictEcho},
	{name: "our credentials come back", do: []func(*Exchange){sends("Authorization", "Basic QWxhZGRpbg=="), answers("X-Echo", "QWxhZGRpbg==")}, allow: Config{Authorized: true}, want: VerdictEcho},
	{name: "credentials without a scheme come back", do: []func(*Exchange){asks("Authorization", "QWxhZGRpbg"), says("public, max-age=60"), answers("X-Echo", "QWxhZGRpbg")}, want: VerdictEcho},
	{name: "credentials too short to tell", do: []func(*Exchange){asks("Authorization", "Bearer text"), says("public, max-age=60")}},

	{name: "§7.3 Set-Cookie", do: []func(*Exchange){says("public, max-age=60"), answers("Set-Cookie", "a=b")}, want: VerdictSetCookie},
	{name: "§7.3 Set-Cookie, permitted", do: []func(*Exchange){answers("Set-Cookie", "a=b")}, allow: Config{Cookies: true}},
	{name: "a request with cookies", do: []func(*Exchange){asks("Cookie", "a=b")}, want: VerdictCookie},
	{name: "a hook's cookies", do: []func(*Exchange){sends("Cookie", "a=b")}, want: VerdictCookie},
	{name: "a request with cookies, public", do: []func(*Exchange){asks("Cookie", "a=b"), says("public, max-age=60")}},
	{name: "a request with cookies, s-maxage", do: []func(*Exchange){asks("Cookie", "a=b"), says("s-maxage=60")}},
	{name: "a request with cookies, must-revalidate is not for sharing", do: []func(*Exchange){asks("Cookie", "a=b"), says("must-revalidate, max-age=60")}, want: VerdictCookie},
	{name: "a request with cookies, permitted", do: []func(*Exchange){asks("Cookie", "a=b")}, allow: Config{Cookies: true}},

	{name: "§4.1 Vary: *", do: []func(*Exchange){answers("Vary", "Accept", "*")}, want: VerdictVary},
	{name: "§4.1 Vary by one field", do: []func(*Exchange){answers("Vary", "Accept")}},
	{name: "§4.1 Vary by more than the operator wants", do: []func(*Exchange){answers("Vary", "Accept, Origin")}, allow: Config{MaxVary: 1}, want: VerdictVary},
	{name: "§4.1 Vary malformed", do: []func(*Exchange){answers("Vary", "Foo:")}, want: VerdictVary},
	{name: "§4.1 Vary by what a hook set", do: []func(*Exchange){sends("X-Tenant", "t1"), answers("Vary", "X-Tenant")}, want: VerdictVary},
	{name: "§4.1 Vary by what a hook changed", do: []func(*Exchange){asks("X-Tenant", "t2"), sends("X-Tenant", "t1"), answers("Vary", "X-Tenant")}, want: VerdictVary},
	{name: "§4.1 Vary by what passed unchanged", do: []func(*Exchange){asks("X-Tenant", "t1"), sends("X-Tenant", "t1"), answers("Vary", "X-Tenant")}},
	{name: "§4.1 Vary by what was dropped", do: []func(*Exchange){asks("X-Tenant", "t1"), sends("X-Other", "t1"), answers("Vary", "X-Tenant")}, want: VerdictVary},
	{name: "§4.1 Vary by a default that was suppressed", do: []func(*Exchange){sends("User-Agent", ""), answers("Vary", "User-Agent")}},
	{name: "§4.1 Vary by what the client's Connection took away", do: []func(*Exchange){asks("X-Lang", "de"), asks("Connection", "close, x-lang"), sends("X-Other", "v"), answers("Vary", "X-Lang")}, want: VerdictVary},
	{name: "§4.1 Vary by other than what the client's Connection took away", do: []func(*Exchange){asks("X-Lang", "de"), asks("Connection", "X-Language"), sends("X-Lang", "de"), answers("Vary", "X-Lang")}},
	{name: "§4.1 Vary by our credentials", do: []func(*Exchange){sends("Authorization", "Bearer x"), says("public, max-age=60"), answers("Vary", "Authorization")}, want: VerdictVary},
	{name: "§4.1 Vary by the one identity of all", do: []func(*Exchange){sends("Authorization", "Bearer x"), answers("Vary", "Authorization")}, allow: Config{Authorized: true}},

	{name: "§3 nothing explicit", do: []func(*Exchange){says(), answers("Last-Modified", at(-year))}, want: VerdictNoFreshness},
	{name: "§3 public alone is no lifetime", do: []func(*Exchange){says("public")}, want: VerdictNoFreshness},
	{name: "§3 Expires", do: []func(*Exchange){says(), answers("Expires", at(60*second))}},
	{name: "§3 s-maxage", do: []func(*Exchange){says("s-maxage=60")}},
	{name: "§4.2 max-age of 0", do: []func(*Exchange){says("max-age=0")}, want: VerdictStale},
	{name: "§4.2 s-maxage of 0 beside max-age", do: []func(*Exchange){says("s-maxage=0, max-age=60")}, want: VerdictStale},
	{name: "§4.2.1 unreadable max-age", do: []func(*Exchange){says("max-age=abc"), answers("Expires", at(60*second))}, want: VerdictStale},
	{name: "§4.2.1 two values of max-age", do: []func(*Exchange){says("max-age=60, max-age=61")}, want: VerdictStale},
	{name: "§5.3 Expires: 0", do: []func(*Exchange){says(), answers("Expires", "0")}, want: VerdictStale},
	{name: "§4.2.3 as old as its lifetime", do: []func(*Exchange){answers("Age", "60")}, want: VerdictStale},
	{name: "§4.2.3 a second younger", do: []func(*Exchange){answers("Age", "59")}},
	{name: "§4.2.3 Date a year ago", do: []func(*Exchange){answers("Date", at(-year))}, want: VerdictStale},
	{name: "§4.2.3 Date a year ahead", do: []func(*Exchange){answers("Date", at(year))}},
	{name: "§4.2.3 a slow answer", do: []func(*Exchange){func(x *Exchange) { x.RequestTime = today.Add(-time.Minute) }}, want: VerdictStale},
}

func TestStorable(t *testing.T) {
	t.Parallel()
	for _, row := range storableTable {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			x := storable()
			for _, f := range row.do {
				f(x)
			}
			assert.Equal(t, row.want, Storable(x, row.allow))
		})
	}
}

func TestStorableJudgesEmptyMessages(t *testing.T) {
	t.Parallel()
	assert.Equal(t, VerdictMethod, Storable(&Exchange{}, Config{}))
	assert.Equal(t, VerdictNoFreshness, Storable(&Exchange{Method: http.MethodGet, Status: 200, Framed: true}, Config{}))
}

func TestVerdictsAreTokens(t *testing.T) { // RFC 9211 §2.8 with RFC 9651 §3.3.4
	t.Parallel()
	for _, row := range storableTable {
		token := strings.Trim(string(row.want), "abcdefghijklmnopqrstuvwxyz-")
		assert.Empty(t, token)
	}
}

// FuzzStorable holds that nothing an upstream adds to its header makes a forbidden response storable, and that no header is written to.
func FuzzStorable(f *testing.F) {
	for _, row := range responseTable {
		f.Add(strings.Join(row.lines, "\n"), "Accept", "Vary", "Accept")
	}
	f.Add("public, max-age=60", "Authorization", "Connection", "Cache-Control")
	f.Add("must-understand, s-maxage=60", "Cookie", "Content-Type", "message/http")
	f.Fuzz(func(t *testing.T, cacheControl, asked, name, value string) {
		x := storable()
		x.Response[http.CanonicalHeaderKey(name)] = []string{value}
		x.Response["Cache-Control"] = append(strings.Split(cacheControl, "\n"), "private")
		x.Request[http.CanonicalHeaderKey(asked)] = []string{value}
		before := []http.Header{x.Request.Clone(), x.Response.Clone()}
		require.NotEqual(t, VerdictStore, Storable(x, Config{Authorized: true, Cookies: true}))
		after := []http.Header{x.Request, x.Response}
		require.Equal(t, before, after)
		x.Response["Cache-Control"] = slices.DeleteFunc(x.Response["Cache-Control"], func(s string) bool { return s == "private" })
		if Storable(x, Config{}) == VerdictStore {
			lifetime, age := Fresh(x)
			require.Greater(t, lifetime, age)
			require.NotContains(t, x.Response, "Set-Cookie")
		}
	})
}
