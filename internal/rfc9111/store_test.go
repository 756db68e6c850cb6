package rfc9111

import (
	"net/http"
	"net/url"
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

func status(code int) func(*Exchange) {
	return func(x *Exchange) { x.Status = code }
}

func post(x *Exchange) {
	x.Method = http.MethodPost
	x.Target = &url.URL{Scheme: "http", Host: "origin.example", Path: "/r", RawQuery: "a=1"}
}

// part answers a range, as it should.
func part(x *Exchange) {
	x.Status = http.StatusPartialContent
	x.Request["Range"] = []string{"bytes=0-0"}
	x.Response["Content-Range"], x.Response["Etag"] = []string{"bytes 0-0/9"}, []string{`"1"`}
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
	{name: "RFC 9110 §15 a status beyond", do: []func(*Exchange){status(600)}, want: VerdictStatus},
	{name: "§3 304 answers a precondition", do: []func(*Exchange){status(304)}, want: VerdictStatus},
	{name: "§3 any final status with explicit freshness: 201", do: []func(*Exchange){status(201)}},
	{name: "§3 any final status with explicit freshness: 204", do: []func(*Exchange){status(204)}},
	{name: "§3 any final status with explicit freshness: 299", do: []func(*Exchange){status(299)}},
	{name: "§3 any final status with explicit freshness: 302", do: []func(*Exchange){status(302)}},
	{name: "§3 any final status with explicit freshness: 307", do: []func(*Exchange){status(307)}},
	{name: "§3 any final status with explicit freshness: 400", do: []func(*Exchange){status(400)}},
	{name: "§3 any final status with explicit freshness: 404", do: []func(*Exchange){status(404)}},
	{name: "§3 any final status with explicit freshness: 499", do: []func(*Exchange){status(499)}},
	{name: "§3 any final status with explicit freshness: 500", do: []func(*Exchange){status(500), says("s-maxage=60")}},
	{name: "§3 any final status with explicit freshness: 503", do: []func(*Exchange){status(503), says(), answers("Expires", at(60*second))}},
	{name: "§3 any final status with explicit freshness: 599", do: []func(*Exchange){status(599)}},
	{name: "a challenge answers the lack of credentials", do: []func(*Exchange){status(401), says("public, max-age=60")}, want: VerdictStatus},
	{name: "408 answers the connection", do: []func(*Exchange){status(408)}, want: VerdictStatus},
	{name: "412 answers a precondition", do: []func(*Exchange){status(412)}, want: VerdictStatus},
	{name: "416 answers a range", do: []func(*Exchange){status(416)}, want: VerdictStatus},
	{name: "RFC 6585 §3 428 must not be stored", do: []func(*Exchange){status(428)}, want: VerdictStatus},
	{name: "RFC 6585 §4 429 must not be stored", do: []func(*Exchange){status(429)}, want: VerdictStatus},
	{name: "RFC 6585 §5 431 must not be stored", do: []func(*Exchange){status(431)}, want: VerdictStatus},
	{name: "RFC 6585 §6 511 must not be stored", do: []func(*Exchange){status(511)}, want: VerdictStatus},
	{name: "RFC 8470 §5.2 425 answers haste", do: []func(*Exchange){status(425)}, want: VerdictStatus},

	{name: "RFC 9110 §9.3.3 POST with explicit freshness and its own Content-Location", do: []func(*Exchange){post, answers("Content-Location", "/r?a=1")}},
	{name: "RFC 9110 §9.3.3 absolute", do: []func(*Exchange){post, answers("Content-Location", "HTTP://Origin.Example:80/r?a=1#f")}},
	{name: "RFC 9110 §9.3.3 no Content-Location", do: []func(*Exchange){post}, want: VerdictMethod},
	{name: "RFC 9110 §9.3.3 two of them", do: []func(*Exchange){post, answers("Content-Location", "/r?a=1", "/r?a=1")}, want: VerdictMethod},
	{name: "RFC 9110 §9.3.3 another query", do: []func(*Exchange){post, answers("Content-Location", "/r?a=2")}, want: VerdictMethod},
	{name: "RFC 9110 §9.3.3 another path", do: []func(*Exchange){post, answers("Content-Location", "/R?a=1")}, want: VerdictMethod},
	{name: "RFC 9110 §9.3.3 another host", do: []func(*Exchange){post, answers("Content-Location", "//evil.example/r?a=1")}, want: VerdictMethod},
	{name: "RFC 9110 §9.3.3 no explicit freshness", do: []func(*Exchange){post, says("public"), answers("Content-Location", "/r?a=1")}, allow: heuristics, want: VerdictMethod},
	{name: "RFC 9110 §9.3.3 what is created is elsewhere", do: []func(*Exchange){post, status(201), answers("Content-Location", "/r?a=1")}, want: VerdictMethod},
	{name: "RFC 9110 §9.3.3 the target is not known", do: []func(*Exchange){post, answers("Content-Location", "/r?a=1"), func(x *Exchange) { x.Target = nil }}, want: VerdictMethod},
	{name: "RFC 9110 §9.3.3 not so PUT", do: []func(*Exchange){post, func(x *Exchange) { x.Method = http.MethodPut }, answers("Content-Location", "/r?a=1")}, want: VerdictMethod},

	{name: "§3.3 nothing proves it complete", do: []func(*Exchange){func(x *Exchange) { x.Framed = false }}, want: VerdictUnframed},
	{name: "RFC 9110 §14.2 a range was asked for, but all is answered", do: []func(*Exchange){asks("Range", "bytes=0-0")}},
	{name: "§3.3 a part that was asked for", do: []func(*Exchange){part}, want: VerdictPartial},
	{name: "§3.3 a part that a hook asked for", do: []func(*Exchange){part, func(x *Exchange) { delete(x.Request, "Range") }, sends("Range", "bytes=0-0")}, want: VerdictPartial},
	{name: "§3.3 a part of unknown whole", do: []func(*Exchange){part, answers("Content-Range", "bytes 0-0/*")}, want: VerdictRange},
	{name: "RFC 9110 §15.3.7 a part by heuristics", do: []func(*Exchange){part, says(), answers("Last-Modified", at(-year))}, allow: heuristics, want: VerdictPartial},
	{name: "§3.3 a part that nobody asked for", do: []func(*Exchange){part, func(x *Exchange) { delete(x.Request, "Range") }}, want: VerdictRange},
	{name: "RFC 9110 §15.3.7 a part of which the client has the other fields", do: []func(*Exchange){part, asks("If-Range", `"1"`), answers("Content-Type")}, want: VerdictRange},
	{name: "RFC 9110 §15.3.7 the same, but with them", do: []func(*Exchange){part, asks("If-Range", `"1"`), answers("Content-Type", "text/plain")}, want: VerdictPartial},
	{name: "RFC 9110 §15.3.7 the same by our own If-Range: we have them", do: []func(*Exchange){part, sends("If-Range", `"1"`), answers("Content-Type")}, want: VerdictPartial},
	{name: "§3.4 a part without a validator combines with none", do: []func(*Exchange){part, answers("Etag")}, want: VerdictPartial},
	{name: "§3.4 a part with a weak validator", do: []func(*Exchange){part, answers("Etag", `W/"1"`)}, want: VerdictPartial},
	{name: "§3.4 a part with two validators", do: []func(*Exchange){part, answers("Etag", `"1"`, `"2"`)}, want: VerdictPartial},
	{name: "§3.4 a part with a malformed validator", do: []func(*Exchange){part, answers("Etag", `"1`)}, want: VerdictPartial},
	{name: "RFC 9110 §14.4 no place", do: []func(*Exchange){part, answers("Content-Range")}, want: VerdictRange},
	{name: "RFC 9110 §14.4 two places", do: []func(*Exchange){part, answers("Content-Range", "bytes 0-0/9", "bytes 1-1/9")}, want: VerdictRange},
	{name: "RFC 9110 §14.4 backwards", do: []func(*Exchange){part, answers("Content-Range", "bytes 5-2/9")}, want: VerdictRange},
	{name: "RFC 9110 §14.4 beyond the end", do: []func(*Exchange){part, answers("Content-Range", "bytes 0-9/9")}, want: VerdictRange},
	{name: "RFC 9110 §14.4 unsatisfied", do: []func(*Exchange){part, answers("Content-Range", "bytes */9")}, want: VerdictRange},
	{name: "RFC 9110 §14.4 beyond 63 bits", do: []func(*Exchange){part, answers("Content-Range", "bytes 0-9223372036854775808/*")}, want: VerdictRange},
	{name: "RFC 9110 §14.4 signs", do: []func(*Exchange){part, answers("Content-Range", "bytes +0-1/9")}, want: VerdictRange},
	{name: "RFC 9110 §14.4 another unit", do: []func(*Exchange){part, answers("Content-Range", "lines 0-0/9")}, want: VerdictRange},
	{name: "RFC 9110 §14.6 several parts", do: []func(*Exchange){part, answers("Content-Type", "multipart/byteranges; boundary=x")}, want: VerdictRange},
	{name: "§3.5 a part of what is private", do: []func(*Exchange){part, bearer}, want: VerdictAuthorization},
	{name: "§3.3 a 200 that says it is the part that was asked for", do: []func(*Exchange){asks("Range", "bytes=0-0"), answers("Content-Range", "bytes 0-0/9")}, want: VerdictRange},
	{name: "RFC 9110 §14.4 Content-Range means nothing in a 200", do: []func(*Exchange){answers("Content-Range", "bytes 0-0/9")}},
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
	{name: "§5.2.2.4 no-cache with a validator, kept to be validated", do: []func(*Exchange){says("no-cache"), answers("Etag", `"1"`)}, allow: Config{KeepStale: true}},
	{name: "§5.2.2.4 no-cache with a weak validator", do: []func(*Exchange){says("no-cache, max-age=60"), answers("Etag", `W/"1"`)}, allow: Config{KeepStale: true}},
	{name: "§5.2.2.4 no-cache with Last-Modified", do: []func(*Exchange){says("no-cache"), answers("Last-Modified", at(-year))}, allow: Config{KeepStale: true}},
	{name: "§5.2.2.4 no-cache without a validator", do: []func(*Exchange){says("no-cache, max-age=60")}, allow: Config{KeepStale: true}, want: VerdictNoCache},
	{name: "§5.2.2.4 no-cache with a broken validator", do: []func(*Exchange){says("no-cache"), answers("Etag", "1")}, allow: Config{KeepStale: true}, want: VerdictNoCache},
	{name: "§3 no-cache is no leave to store any status", do: []func(*Exchange){status(500), says("no-cache"), answers("Etag", `"1"`)}, allow: Config{KeepStale: true}, want: VerdictNoFreshness},
	{name: "§5.2.2.3 must-understand, a status that is not", do: []func(*Exchange){status(299), says("must-understand, max-age=60")}, want: VerdictStatus},
	{name: "§5.2.2.3 must-understand lifts nothing from it", do: []func(*Exchange){status(599), says("no-store, must-understand, max-age=60")}, want: VerdictStatus},
	{name: "§5.2 a broken member may have been a ban", do: []func(*Exchange){says("max-age=60", "no-store;")}, want: VerdictNoStore},
	{name: "§5.2 a broken lifetime", do: []func(*Exchange){says("must-understand; max-age=60")}, want: VerdictStale},
	{name: "§5.2 a broken extension", do: []func(*Exchange){says(`max-age=60, x="`)}},
	{name: "RFC 9213 §2.2 a targeted field takes the place of Cache-Control", do: []func(*Exchange){says("no-store"), answers(CDNCacheControl, "max-age=60")}, allow: targeting(Config{})},
	{name: "RFC 9213 §2.2 and of Expires", do: []func(*Exchange){says(), answers("Expires", at(60*second)), answers(CDNCacheControl, "none")}, allow: targeting(Config{}), want: VerdictNoFreshness},
	{name: "RFC 9213 §2.2 no-store", do: []func(*Exchange){answers(CDNCacheControl, "no-store, max-age=60")}, allow: targeting(Config{}), want: VerdictNoStore},
	{name: "RFC 9213 §2.2 private", do: []func(*Exchange){answers(CDNCacheControl, "private")}, allow: targeting(Config{}), want: VerdictPrivate},
	{name: "RFC 9213 §2.2 no-cache makes max-age inoperative", do: []func(*Exchange){answers(CDNCacheControl, "max-age=60, no-cache")}, allow: targeting(Config{}), want: VerdictNoCache},
	{name: "RFC 9213 §2.2 fields that are not on the list change nothing", do: []func(*Exchange){answers(CDNCacheControl, "no-store")}},
	{name: "RFC 9213 §2.1 a parsing error", do: []func(*Exchange){says("no-store"), answers(CDNCacheControl, "max-age=60, &&&")}, allow: targeting(Config{}), want: VerdictNoStore},
	{name: "RFC 9213 §2.1 max-age as a String, with Last-Modified", do: []func(*Exchange){answers(CDNCacheControl, `max-age="60"`), answers("Last-Modified", at(-year))}, allow: targeting(heuristics), want: VerdictNoFreshness},
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

	{name: "§5.2.1 a cache may heed no request directive", do: []func(*Exchange){asks("Cache-Control", "no-store")}, allow: Config{Unheeded: true}},
	{name: "§4.1 Vary: *", do: []func(*Exchange){answers("Vary", "Accept", "*")}, want: VerdictVary},
	{name: "§4.1 Vary by one field", do: []func(*Exchange){answers("Vary", "Accept")}},
	{name: "§4.1 Vary malformed", do: []func(*Exchange){answers("Vary", "Foo:")}, want: VerdictVary},
	{name: "§4.1 Vary by what a hook set", do: []func(*Exchange){sends("X-Tenant", "t1"), answers("Vary", "X-Tenant")}, want: VerdictVary},
	{name: "§4.1 Vary by what a hook changed", do: []func(*Exchange){asks("X-Tenant", "t2"), sends("X-Tenant", "t1"), answers("Vary", "X-Tenant")}, want: VerdictVary},
	{name: "§4.1 Vary by what passed unchanged", do: []func(*Exchange){asks("X-Tenant", "t1"), sends("X-Tenant", "t1"), answers("Vary", "X-Tenant")}},
	{name: "§4.1 Vary by what was dropped", do: []func(*Exchange){asks("X-Tenant", "t1"), sends("X-Other", "t1"), answers("Vary", "X-Tenant")}, want: VerdictVary},
	{name: "§4.1 Vary by a default that was suppressed", do: []func(*Exchange){sends("User-Agent", ""), answers("Vary", "User-Agent")}},
	{name: "§4.1 Vary by what the client's Connection took away", do: []func(*Exchange){asks("X-Lang", "de"), asks("Connection", "close, x-lang"), sends("X-Other", "v"), answers("Vary", "X-Lang")}, want: VerdictVary},
	{name: "§4.1 Vary by other than what the client's Connection took away", do: []func(*Exchange){asks("X-Lang", "de"), asks("Connection", "X-Language"), sends("X-Lang", "de"), answers("Vary", "X-Lang")}},
	{name: "§4.1 Vary by what came under a name that CGI takes for it", do: []func(*Exchange){asks("X_Lang", "de"), answers("Vary", "X-Lang")}, want: VerdictVary},
	{name: "§4.1 Vary by what came under both names", do: []func(*Exchange){asks("X_Lang", "de"), asks("X-Lang", "en"), answers("Vary", "x-lang")}, want: VerdictVary},
	{name: "§4.1 Vary by what came under a name with more at its end", do: []func(*Exchange){asks("Accept-Language_", "de"), answers("Vary", "Accept-Language")}, want: VerdictVary},
	{name: "§4.1 Vary by what did not get through under such a name", do: []func(*Exchange){asks("X_Lang", "de"), sends("X-Other", "v"), answers("Vary", "X-Lang")}},
	{name: "§4.1 Vary by something else than came under such a name", do: []func(*Exchange){asks("X_Lang", "de"), answers("Vary", "X-Lang-2, Lang")}},
	{name: "§4.1 Vary by a name that is spelt like that", do: []func(*Exchange){asks("X_lang", "de"), answers("Vary", "X_Lang")}},
	{name: "§2 a name that CGI takes for one in the key", do: []func(*Exchange){asks("X_Tenant", "t2")}, allow: Config{Key: KeyRules{Fields: []string{"X-Tenant"}}}, want: VerdictVary},
	{name: "§2 a name in the key", do: []func(*Exchange){asks("X-Tenant", "t2")}, allow: Config{Key: KeyRules{Fields: []string{"X-Tenant"}}}},
	{name: "§4.1 Vary by our credentials", do: []func(*Exchange){sends("Authorization", "Bearer x"), says("public, max-age=60"), answers("Vary", "Authorization")}, want: VerdictVary},
	{name: "§4.1 Vary by the one identity of all", do: []func(*Exchange){sends("Authorization", "Bearer x"), answers("Vary", "Authorization")}, allow: Config{Authorized: true}},

	{name: "§3 nothing explicit", do: []func(*Exchange){says(), answers("Last-Modified", at(-year))}, want: VerdictNoFreshness},
	{name: "§3 public alone is no lifetime", do: []func(*Exchange){says("public")}, want: VerdictNoFreshness},
	{name: "§4.2.2 heuristics", do: []func(*Exchange){says(), answers("Last-Modified", at(-year))}, allow: heuristics},
	{name: "§4.2.2 heuristics without Last-Modified", do: []func(*Exchange){says(), answers("Etag", `"1"`)}, allow: Config{MaxHeuristic: time.Hour, KeepStale: true}, want: VerdictNoFreshness},
	{name: "§4.2.2 the operator's default", do: []func(*Exchange){says()}, allow: heuristics},
	{name: "§3 a status that is not heuristically cacheable", do: []func(*Exchange){status(302), says(), answers("Last-Modified", at(-year))}, allow: heuristics, want: VerdictNoFreshness},
	{name: "§3 unless public", do: []func(*Exchange){status(302), says("public"), answers("Last-Modified", at(-year))}, allow: heuristics},
	{name: "§3 an error that says nothing", do: []func(*Exchange){status(404), says()}, allow: heuristics},
	{name: "§3 an error that says nothing, off", do: []func(*Exchange){status(404), says()}, allow: Config{DefaultTTL: time.Minute}, want: VerdictNoFreshness},
	{name: "§3 other errors that say nothing", do: []func(*Exchange){status(503), says()}, allow: heuristics, want: VerdictNoFreshness},
	{name: "§3.5 the operator's default shares nothing", do: []func(*Exchange){says(), bearer}, allow: heuristics, want: VerdictAuthorization},
	{name: "§4.2.2 as old as the guess", do: []func(*Exchange){says(), answers("Last-Modified", at(-100*second)), answers("Age", "10")}, allow: heuristics, want: VerdictStale},
	{name: "§4.3 stale at once, kept to be validated", do: []func(*Exchange){says("max-age=0"), answers("Etag", `"1"`)}, allow: Config{KeepStale: true}},
	{name: "§4.3 stale at once, kept to be validated, any status", do: []func(*Exchange){status(404), says("max-age=0"), answers("Etag", `"1"`)}, allow: Config{KeepStale: true}},
	{name: "§4.3 stale at once, nothing to be validated by", do: []func(*Exchange){says("max-age=0")}, allow: Config{KeepStale: true}, want: VerdictStale},
	{name: "§4.3 Last-Modified alone, kept to be validated", do: []func(*Exchange){says(), answers("Last-Modified", at(0))}, allow: Config{KeepStale: true}},
	{name: "RFC 5861 §3 stale at once, but with a window", do: []func(*Exchange){says("max-age=0, stale-while-revalidate=9")}, allow: Config{KeepStale: true}},
	{name: "RFC 5861 §4 stale at once, but with a window", do: []func(*Exchange){says("max-age=0, stale-if-error=9")}, allow: Config{KeepStale: true}},
	{name: "RFC 5861 §4 the window is over, too", do: []func(*Exchange){says("max-age=0, stale-if-error=9"), answers("Age", "10")}, allow: Config{KeepStale: true}, want: VerdictStale},
	{name: "§4.2.4 the window is forbidden", do: []func(*Exchange){says("max-age=0, stale-if-error=9, must-revalidate")}, allow: Config{KeepStale: true}, want: VerdictStale},
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
			assert.Equal(t, row.want, Storable(x, &row.allow))
		})
	}
}

func TestStorableJudgesEmptyMessages(t *testing.T) {
	t.Parallel()
	assert.Equal(t, VerdictMethod, Storable(&Exchange{}, &Config{}))
	assert.Equal(t, VerdictNoFreshness, Storable(&Exchange{Method: http.MethodGet, Status: 200, Framed: true}, &Config{}))
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
		require.NotEqual(t, VerdictStore, Storable(x, &Config{Authorized: true, Cookies: true}))
		after := []http.Header{x.Request, x.Response}
		require.Equal(t, before, after)
		x.Response["Cache-Control"] = slices.DeleteFunc(x.Response["Cache-Control"], func(s string) bool { return s == "private" })
		x.parsed = false
		if Storable(x, &Config{}) == VerdictStore {
			terms := TermsOf(x, &Config{})
			require.Equal(t, Fresh, useOf(terms, noRequest, terms.Age))
			require.NotContains(t, x.Response, "Set-Cookie")
		}
	})
}
