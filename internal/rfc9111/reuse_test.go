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

func TestLookup(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, method string
		h            http.Header
		body         bool
		want         Bypass
	}{
		{name: "§2 GET", method: "GET"},
		{name: "§4 HEAD is answered by what GET stored", method: "HEAD"},
		{name: "§4 POST", method: "POST", want: BypassMethod},
		{name: "§4 OPTIONS", method: "OPTIONS", want: BypassMethod},
		{name: "RFC 9110 §9.3.8 TRACE", method: "TRACE", want: BypassMethod},
		{name: "RFC 9110 §9.1 methods are case-sensitive", method: "get", want: BypassMethod},
		{name: "unknown method", method: "PURGE", want: BypassMethod},
		{name: "no method", want: BypassMethod},
		{name: "RFC 9110 §9.3.1 GET with content", method: "GET", body: true, want: BypassBody},
		{name: "RFC 9110 §9.3.2 HEAD with content", method: "HEAD", body: true, want: BypassBody},
		{name: "§5.2.1.5 no-store", method: "GET", h: control("no-store"), want: BypassNoStore},
		{name: "§5.2.1.5 a ban in a broken member", method: "GET", h: control("max-age=0; no-store"), want: BypassNoStore},
		{name: "§5.2.1.4 no-cache is for Terms.Use", method: "GET", h: control("no-cache")},
		{name: "§5.2.1.7 only-if-cached is for the caller", method: "GET", h: control("only-if-cached")},
		{name: "RFC 9110 §14.2 Range", method: "GET", h: http.Header{"Range": {"bytes=0-0"}}},
		{name: "RFC 9110 §14.2 an unknown unit", method: "GET", h: http.Header{"Range": {"lines=1"}}},
		{name: "RFC 9110 §13.1.5 If-Range alone has no meaning", method: "GET", h: http.Header{"If-Range": {`"1"`}}},
		{name: "RFC 9110 §13.1.1 If-Match", method: "GET", h: http.Header{"If-Match": {"*"}}, want: BypassConditional},
		{name: "RFC 9110 §13.1.2 If-None-Match", method: "GET", h: http.Header{"If-None-Match": {`"1"`}}},
		{name: "RFC 9110 §13.1.2 If-None-Match, empty", method: "HEAD", h: http.Header{"If-None-Match": {""}}},
		{name: "RFC 9110 §13.1.3 If-Modified-Since", method: "GET", h: http.Header{"If-Modified-Since": {at(0)}}},
		{name: "RFC 9110 §13.1.4 If-Unmodified-Since", method: "GET", h: http.Header{"If-Unmodified-Since": {"x"}}, want: BypassConditional},
		{name: "RFC 9110 §7.8 Upgrade", method: "GET", h: http.Header{"Upgrade": {"websocket"}}, want: BypassUpgrade},
		{name: "§3.5 Authorization restricts storing, not reuse", method: "GET", h: http.Header{"Authorization": {"Bearer x"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, row.want, Lookup(row.method, row.h, ParseRequest(row.h), row.body))
		})
	}
}

// minute are the terms of max-age=60.
var minute = Terms{Lifetime: 60 * second, StaleWhileRevalidate: Absent, StaleIfError: Absent}

func noStale(t *Terms)   { t.NoStale = true }
func noCache(t *Terms)   { t.NoCache, t.NoStale = true, true }
func immutable(t *Terms) { t.Immutable = true }
func swr(t *Terms)       { t.StaleWhileRevalidate = 30 * second }
func sie(t *Terms)       { t.StaleIfError = 30 * second }

func terms(effects ...func(*Terms)) Terms {
	t := minute
	for _, f := range effects {
		f(&t)
	}
	return t
}

func TestJudgeSaysWhy(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		control string
		terms   Terms
		age     time.Duration
		want    Doubt
	}{
		{"", minute, 59 * second, 0},
		{"", minute, 60 * second, DoubtStale},
		{"", terms(noCache), 0, DoubtNoCache},
		{"no-cache", minute, 0, DoubtAsked},
		{"no-cache", terms(noCache), 0, DoubtNoCache},
		{"max-age=10", minute, 11 * second, DoubtAge},
		{"min-fresh=20", minute, 41 * second, DoubtMinFresh},
		{"max-stale", terms(noStale), 61 * second, DoubtNoStale},
		{"max-stale=10", terms(swr), 71 * second, DoubtTooStale},
		{"", terms(swr), 91 * second, DoubtStale},
	} {
		_, doubt := row.terms.Judge(ParseRequest(control(row.control)), row.age)
		assert.Equal(t, row.want, doubt, "%q at %s", row.control, row.age)
	}
}

func TestUse(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, control string
		terms         Terms
		age           time.Duration
		want          Use
	}{
		{"§4.2 fresh", "", minute, 59 * second, Fresh},
		{"§4.2 fresh to the last", "", minute, 60*second - 1, Fresh},
		{"§4.2 the lifetime must exceed the age", "", minute, 60 * second, MustValidate},
		{"§4.2 stale", "", minute, time.Hour, MustValidate},
		{"§4.2 no lifetime, no reuse", "", Terms{}, 0, MustValidate},
		{"§4 no-cache in the response", "", terms(noCache), 0, MustValidate},
		{"§4 no-cache in the response, and max-stale", "max-stale", terms(noCache), 0, MustValidate},
		{"§4 no-cache in the response, and windows", "", terms(noCache, swr), 61 * second, MustValidate},
		{"§4 no-cache in the response, whatever else is said of it", "max-stale", terms(func(t *Terms) { t.NoCache = true }, swr), 1 * second, MustValidate},
		{"§5.2.1.1 max-age above the age", "max-age=10", minute, 9 * second, Fresh},
		{"§5.2.1.1 max-age equal to the age", "max-age=10", minute, 10 * second, Fresh},
		{"§5.2.1.1 max-age below the age", "max-age=10", minute, 11 * second, MustValidate},
		{"§5.2.1.1 max-age does not lengthen", "max-age=90", minute, 70 * second, MustValidate},
		{"§5.2.1.1 a reload", "max-age=0", minute, 0, MustValidate},
		{"§5.2.1.1 unreadable", "max-age=x", minute, 1, MustValidate},
		{"§5.2.1.1 with max-age, nothing stale", "max-age=90", terms(swr), 70 * second, MustValidate},
		{"§5.2.1.1 unless max-stale is also present", "max-age=90, max-stale=20", terms(swr), 70 * second, WhileRevalidate},
		{"§5.2.1.1 and max-age holds beside max-stale", "max-age=69, max-stale=20", minute, 70 * second, MustValidate},
		{"§5.2.1.2 max-stale", "max-stale=10", minute, 70 * second, Stale},
		{"§5.2.1.2 by no more than that", "max-stale=10", minute, 70*second + 1, MustValidate},
		{"§5.2.1.2 of any age", "max-stale", minute, 1000 * time.Hour, Stale},
		{"§5.2.1.2 unreadable", "max-stale=x", minute, 61 * second, MustValidate},
		{"§5.2.1.2 changes nothing that is fresh", "max-stale=10", minute, 59 * second, Fresh},
		{"§5.2.1.2 limits a longer window", "max-stale=5", terms(swr), 70 * second, MustValidate},
		{"§5.2.1.3 min-fresh met", "min-fresh=20", minute, 40 * second, Fresh},
		{"§5.2.1.3 min-fresh not met", "min-fresh=20", minute, 41 * second, MustValidate},
		{"§5.2.1.3 min-fresh beyond any lifetime", "min-fresh=99999999999999999999", minute, 0, MustValidate},
		{"§5.2.1.3 min-fresh of 0", "min-fresh=0", minute, 59 * second, Fresh},
		{"§5.2.1.3 min-fresh takes nothing stale", "min-fresh=0, max-stale=90", terms(swr), 61 * second, MustValidate},
		{"§5.2.1.4 no-cache", "no-cache", minute, 0, MustValidate},
		{"§5.2.1.4 no-cache beside max-stale", "no-cache, max-stale", terms(swr), 61 * second, MustValidate},
		{"§5.2.1.6 no-transform changes nothing", "no-transform", minute, 0, Fresh},
		{"§5.2.1.7 only-if-cached takes what is there", "only-if-cached", minute, 0, Fresh},
		{"§4.2.4 not stale where forbidden", "", terms(noStale, swr), 61 * second, MustValidate},
		{"§4.2.4 not even on max-stale", "max-stale", terms(noStale), 61 * second, MustValidate},
		{"§5.2.2.2 must-revalidate, still fresh", "", terms(noStale), 59 * second, Fresh},
		{"RFC 5861 §3 in the window", "", terms(swr), 60 * second, WhileRevalidate},
		{"RFC 5861 §3 to its end", "", terms(swr), 90 * second, WhileRevalidate},
		{"RFC 5861 §3 after it", "", terms(swr), 90*second + 1, MustValidate},
		{"RFC 5861 §3 fresh before it", "", terms(swr), 59 * second, Fresh},
		{"RFC 5861 §3 a window of 0 is none", "", terms(func(t *Terms) { t.StaleWhileRevalidate = 0 }), 60 * second, MustValidate},
		{"RFC 5861 §4 without an error there is no window", "stale-if-error=99", terms(sie), 61 * second, MustValidate},
		{"RFC 8246 §2 a reload of what is immutable", "max-age=0", terms(immutable), 59 * second, Fresh},
		{"RFC 8246 §2 only while it is fresh", "max-age=0", terms(immutable), 60 * second, MustValidate},
		{"RFC 8246 §2 unless the client asks for validation", "no-cache", terms(immutable), 0, MustValidate},
		{"RFC 8246 §2 is no lifetime", "", Terms{Immutable: true}, 0, MustValidate},
		{"RFC 8246 §2 min-fresh is for the client's own cache", "min-fresh=20", terms(immutable), 41 * second, MustValidate},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			use, doubt := row.terms.Judge(ParseRequest(control(row.control)), row.age)
			assert.Equal(t, row.want, use)
			assert.Equal(t, use == MustValidate, doubt != 0, doubt.String())
			assert.Equal(t, doubt != 0, doubt.String() != "")
		})
	}
}

func useOf(t Terms, c RequestControl, age time.Duration) Use {
	use, _ := t.Judge(c, age)
	return use
}

func TestAfterError(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, control string
		terms         Terms
		age, most     time.Duration
		want          bool
	}{
		{"RFC 5861 §4 in the window", "", terms(sie), 61 * second, time.Hour, true},
		{"RFC 5861 §4 to its end", "", terms(sie), 90 * second, time.Hour, true},
		{"RFC 5861 §4 after it", "", terms(sie), 90*second + 1, time.Hour, false},
		{"RFC 5861 §4 a window of 0", "", terms(func(t *Terms) { t.StaleIfError = 0 }), 60 * second, time.Hour, false},
		{"RFC 5861 §4 the request's window", "stale-if-error=90", minute, 150 * second, time.Hour, true},
		{"RFC 5861 §4 the request's window before the response's", "stale-if-error=5", terms(sie), 70 * second, time.Hour, false},
		{"RFC 5861 §4 regardless of other freshness information", "max-age=0", terms(sie), 61 * second, time.Hour, true},
		{"RFC 5861 §4 regardless of what the request says besides", "max-age=0, stale-if-error=9", minute, 61 * second, time.Hour, true},
		{"the operator's bound", "stale-if-error=999", terms(sie), 62 * second, second, false},
		{"the operator permits nothing stale", "stale-if-error=999", terms(sie), 61 * second, 0, false},
		{"§4.2.4 disconnected, nothing said", "", minute, 61 * second, time.Hour, true},
		{"§4.2.4 disconnected, at most", "", minute, 60*second + time.Hour + 1, time.Hour, false},
		{"§4.2.4 must-revalidate, proxy-revalidate, s-maxage", "", terms(noStale, sie), 61 * second, time.Hour, false},
		{"§4.2.4 nor by the request", "stale-if-error=99, max-stale", terms(noStale), 61 * second, time.Hour, false},
		{"§4.2.4 no-cache", "", terms(noCache, sie), 1 * second, time.Hour, false},
		{"§5.2.1.1 the client takes nothing stale", "max-age=90", minute, 61 * second, time.Hour, false},
		{"§5.2.1.2 the client takes less", "max-stale=5", minute, 66 * second, time.Hour, false},
		{"§5.2.1.2 the client takes as much", "max-stale=5", minute, 65 * second, time.Hour, true},
		{"§5.2.1.3 min-fresh", "min-fresh=0", minute, 61 * second, time.Hour, false},
		{"§5.2.1.4 the client's no-cache", "no-cache, stale-if-error=99", terms(sie), 1 * second, time.Hour, false},
		{"fresh", "", minute, 59 * second, 0, true},
		{"fresh, though it must not be used stale", "", terms(noStale), 59 * second, 0, true},
		{"fresh, but not enough for the client", "max-age=5", minute, 59 * second, time.Hour, false},
		{"fresh, and stated to stand in", "max-age=5", terms(sie), 59 * second, time.Hour, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, row.want, row.terms.AfterError(ParseRequest(control(row.control)), row.age, row.most, false))
			said := row.terms.StaleIfError != Absent || strings.Contains(row.control, "stale-if-error")
			assert.Equal(t, row.want && said, row.terms.AfterError(ParseRequest(control(row.control)), row.age, row.most, true), "the upstream's own")
		})
	}
}

func TestTroubled(t *testing.T) { // RFC 5861 §4
	t.Parallel()
	for status := 100; status < 700; status++ {
		assert.Equal(t, slices.Contains([]int{500, 502, 503, 504}, status), Troubled(status), status)
	}
}

func TestForwardOfABypass(t *testing.T) { // RFC 9211 §2.2
	t.Parallel()
	for why, want := range map[Bypass]Forward{
		"": ForwardURIMiss, BypassMethod: ForwardMethod,
		BypassBody: ForwardRequest, BypassConditional: ForwardRequest, BypassNoStore: ForwardRequest, BypassConnection: ForwardRequest, BypassUpgrade: ForwardRequest,
	} {
		assert.Equal(t, want, why.Forward(), why)
	}
}

// FuzzUse holds what no request can talk a cache into.
func FuzzUse(f *testing.F) {
	for _, row := range requestTable {
		f.Add(strings.Join(row.lines, ","), int64(59*second), int64(30*second), false, true)
	}
	f.Fuzz(func(t *testing.T, cacheControl string, age, window int64, noCache, noStale bool) {
		terms := Terms{Lifetime: 60 * second, StaleWhileRevalidate: clamp(time.Duration(window)), StaleIfError: Absent, NoCache: noCache, NoStale: noStale}
		c, old := ParseRequest(control(cacheControl)), clamp(time.Duration(age))
		use := useOf(terms, c, old)
		require.Equal(t, use == Fresh, use != MustValidate && old < terms.Lifetime)
		if noCache || c.NoCache || noStale && old >= terms.Lifetime {
			require.Equal(t, MustValidate, use)
			require.False(t, terms.AfterError(c, old, MaxDelta, false))
		}
		if terms.AfterError(c, old, time.Minute, false) {
			require.LessOrEqual(t, old, terms.Lifetime+time.Minute)
		}
	})
}
