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

const second = time.Second

// noRequest and noResponse are what messages without Cache-Control give.
var (
	noRequest  = RequestControl{MaxAge: Absent, MinFresh: Absent, MaxStale: Absent, StaleIfError: Absent}
	noResponse = ResponseControl{MaxAge: Absent, SMaxAge: Absent, StaleWhileRevalidate: Absent, StaleIfError: Absent}
)

func control(lines ...string) http.Header { return http.Header{"Cache-Control": lines} }

var requestTable = []struct {
	name  string // the section and what it says
	lines []string
	want  func(c *RequestControl)
}{
	{"absent", nil, func(*RequestControl) {}},
	{"empty", []string{""}, func(*RequestControl) {}},
	{"only empty members, RFC 9110 §5.6.1.2", []string{" , ,\t,", ","}, func(*RequestControl) {}},
	{"§5.2.1.1 max-age", []string{"max-age=60"}, func(c *RequestControl) { c.MaxAge = 60 * second }},
	{"§5.2.1.1 max-age of 0 is not its absence", []string{"max-age=0"}, func(c *RequestControl) { c.MaxAge = 0 }},
	{"§5.2.1.1 the least of several", []string{"max-age=60, max-age=5", "max-age=30"}, func(c *RequestControl) { c.MaxAge = 5 * second }},
	{"§5.2.1.1 unreadable is 0", []string{"max-age=soon"}, func(c *RequestControl) { c.MaxAge = 0 }},
	{"§5.2.1.1 bare is 0", []string{"max-age"}, func(c *RequestControl) { c.MaxAge = 0 }},
	{"§5.2.1.2 max-stale", []string{"max-stale=9"}, func(c *RequestControl) { c.MaxStale = 9 * second }},
	{"§5.2.1.2 without argument: of any age", []string{"max-stale"}, func(c *RequestControl) { c.MaxStale = MaxDelta }},
	{"§5.2.1.2 unreadable is 0", []string{"max-stale=x"}, func(c *RequestControl) { c.MaxStale = 0 }},
	{"§5.2.1.2 empty argument is not none", []string{`max-stale=""`}, func(c *RequestControl) { c.MaxStale = 0 }},
	{"§5.2.1.2 the least of several", []string{"max-stale, max-stale=4"}, func(c *RequestControl) { c.MaxStale = 4 * second }},
	{"§5.2.1.3 min-fresh", []string{"min-fresh=9"}, func(c *RequestControl) { c.MinFresh = 9 * second }},
	{"§5.2.1.3 the greatest of several", []string{"min-fresh=9, min-fresh=8"}, func(c *RequestControl) { c.MinFresh = 9 * second }},
	{"§5.2.1.3 unreadable is what nothing meets", []string{"min-fresh=-1"}, func(c *RequestControl) { c.MinFresh = MaxDelta }},
	{"§5.2.1.4 no-cache", []string{"no-cache"}, func(c *RequestControl) { c.NoCache = true }},
	{"§5.2.1.5 no-store", []string{"no-store"}, func(c *RequestControl) { c.NoStore = true }},
	{"§5.2.1.6 no-transform", []string{"no-transform"}, func(c *RequestControl) { c.NoTransform = true }},
	{"§5.2.1.7 only-if-cached", []string{"only-if-cached"}, func(c *RequestControl) { c.OnlyIfCached = true }},
	{"§5.2 names in any case", []string{"NO-STORE, Max-Age=1"}, func(c *RequestControl) { c.NoStore, c.MaxAge = true, second }},
	{"§5.2 both forms of an argument", []string{`max-age="60"`}, func(c *RequestControl) { c.MaxAge = 60 * second }},
	{"§5.2.3 unknown directives are ignored", []string{`community="UCI", x, y=z, proxy-revalidate-please=1`}, func(*RequestControl) {}},
	{"§1.2.2 capped", []string{"max-age=99999999999999999999"}, func(c *RequestControl) { c.MaxAge = MaxDelta }},
	{"RFC 5861 §4 stale-if-error", []string{"stale-if-error=9"}, func(c *RequestControl) { c.StaleIfError = 9 * second }},
	{"RFC 5861 §4 unreadable permits nothing", []string{"stale-if-error=x, stale-if-error=9"}, func(c *RequestControl) { c.StaleIfError = 0 }},
	{"a ban in a broken member", []string{"max-age=9; no-store"}, func(c *RequestControl) { c.MaxAge, c.NoStore = 0, true }},
	{"no-cache in a broken member", []string{`"no-cache"`}, func(c *RequestControl) { c.NoCache = true }},
	{"min-fresh in a broken member", []string{"min-fresh = 9"}, func(c *RequestControl) { c.MinFresh = MaxDelta }},
	{"a permission in a broken member permits nothing", []string{"max-stale =9, stale-if-error= 9, only-if-cached;"}, func(*RequestControl) {}},
	{"a broken extension is ignored", []string{`x="open`, "max-age=9, x y"}, func(c *RequestControl) { c.MaxAge = 9 * second }},
}

func TestParseRequest(t *testing.T) {
	t.Parallel()
	for _, row := range requestTable {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			want := noRequest
			row.want(&want)
			assert.Equal(t, want, ParseRequest(control(row.lines...)))
		})
	}
}

func TestPragma(t *testing.T) { // RFC 9111 §5.4
	t.Parallel()
	for _, row := range []struct {
		h    http.Header
		want bool
	}{
		{http.Header{"Pragma": {"no-cache"}}, true},
		{http.Header{"Pragma": {"x", "y=1, No-Cache"}}, true},
		{http.Header{"Pragma": {"no-cached"}}, false},
		{http.Header{"Pragma": {"no-cache"}, "Cache-Control": {"max-age=60"}}, false},
		{nil, false},
	} {
		assert.Equal(t, row.want, ParseRequest(row.h).NoCache, "%v", row.h)
	}
	assert.Equal(t, noResponse, ParseResponse(http.Header{"Pragma": {"no-cache"}}), "in responses it is not specified")
}

var responseTable = []struct {
	name  string
	lines []string
	want  func(c *ResponseControl)
}{
	{"absent", nil, func(*ResponseControl) {}},
	{"§5.2.2.1 max-age", []string{"max-age=60"}, func(c *ResponseControl) { c.MaxAge = 60 * second }},
	{"§5.2 quoted form", []string{`max-age="60"`}, func(c *ResponseControl) { c.MaxAge = 60 * second }},
	{"§1.2.2 leading zeros", []string{"max-age=0060"}, func(c *ResponseControl) { c.MaxAge = 60 * second }},
	{"§1.2.2 2^31", []string{"max-age=2147483648"}, func(c *ResponseControl) { c.MaxAge = MaxDelta }},
	{"§1.2.2 above 2^31", []string{"max-age=2147483649"}, func(c *ResponseControl) { c.MaxAge = MaxDelta }},
	{"§1.2.2 twenty digits", []string{"max-age=99999999999999999999"}, func(c *ResponseControl) { c.MaxAge = MaxDelta }},
	{"§1.2.2 would wrap int64", []string{"max-age=18446744073709551617"}, func(c *ResponseControl) { c.MaxAge = MaxDelta }},
	{"§4.2.1 negative", []string{"max-age=-1"}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 signed", []string{"max-age=+60"}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 letters", []string{"max-age=abc"}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 letters first", []string{"max-age=a60"}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 letters last", []string{"max-age=60s"}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 decimals", []string{"max-age=60.0"}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 exponent", []string{"max-age=1e30"}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 single quotes", []string{"max-age='60'"}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 spaces in quotes", []string{`max-age=" 60"`}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 quoted pair", []string{`max-age="6\0"`}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 bare", []string{"max-age"}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 empty quotes", []string{`max-age=""`}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 two values", []string{"max-age=60, max-age=30"}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 two values on two lines", []string{"max-age=30", "max-age=60"}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 three values", []string{"max-age=60, max-age=30, max-age=60"}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§4.2.1 the same value twice", []string{`max-age=60, MAX-AGE="60"`}, func(c *ResponseControl) { c.MaxAge = 60 * second }},
	{"§4.2.1 a valid and an invalid value", []string{"max-age=60, max-age=x"}, func(c *ResponseControl) { c.MaxAge = 0 }},
	{"§5.2.2.2 must-revalidate", []string{"must-revalidate"}, func(c *ResponseControl) { c.MustRevalidate = true }},
	{"§5.2.2.3 must-understand", []string{"must-understand"}, func(c *ResponseControl) { c.MustUnderstand = true }},
	{"§5.2.2.3 lifts a ban, so only as specified", []string{"must-understand=1"}, func(*ResponseControl) {}},
	{"§5.2.2.4 no-cache", []string{"no-cache"}, func(c *ResponseControl) { c.NoCache = true }},
	{"§5.2.2.4 qualified, as unqualified", []string{`no-cache="Set-Cookie"`}, func(c *ResponseControl) { c.NoCache = true }},
	{"§5.2.2.5 no-store", []string{"no-store"}, func(c *ResponseControl) { c.NoStore = true }},
	{"§5.2.2.5 with an argument", []string{"no-store=1"}, func(c *ResponseControl) { c.NoStore = true }},
	{"§5.2.2.6 no-transform", []string{"no-transform"}, func(c *ResponseControl) { c.NoTransform = true }},
	{"§5.2.2.7 private", []string{"private"}, func(c *ResponseControl) { c.Private = true }},
	{"§5.2.2.7 qualified, as unqualified", []string{`private="X, Y"`}, func(c *ResponseControl) { c.Private = true }},
	{"§5.2.2.7 qualified by a token", []string{"private=X"}, func(c *ResponseControl) { c.Private = true }},
	{"§5.2.2.8 proxy-revalidate", []string{"proxy-revalidate"}, func(c *ResponseControl) { c.ProxyRevalidate = true }},
	{"§5.2.2.9 public", []string{"public"}, func(c *ResponseControl) { c.Public = true }},
	{"§5.2.2.9 permits, so only as specified", []string{"public=yes"}, func(*ResponseControl) {}},
	{"§5.2.2.10 s-maxage", []string{"s-maxage=60"}, func(c *ResponseControl) { c.SMaxAge = 60 * second }},
	{"§5.2 upper case", []string{"PRIVATE, NO-STORE"}, func(c *ResponseControl) { c.Private, c.NoStore = true, true }},
	{"§5.2 several lines", []string{"max-age=60", "private"}, func(c *ResponseControl) { c.MaxAge, c.Private = 60*second, true }},
	{"§5.2 no white space", []string{"max-age=60,private"}, func(c *ResponseControl) { c.MaxAge, c.Private = 60*second, true }},
	{"§5.2 tabs, empty members", []string{",\tmax-age=60\t,, ,private ,"}, func(c *ResponseControl) { c.MaxAge, c.Private = 60*second, true }},
	{"§5.2.3 unknown directives are ignored", []string{`immutability, x="1", y=2, max-age=60`}, func(c *ResponseControl) { c.MaxAge = 60 * second }},
	{"§5.2.3 unknown name longer than any known", []string{"no-store-" + strings.Repeat("x", 200)}, func(*ResponseControl) {}},
	{"RFC 9110 §5.6.4 quoted commas", []string{`x="no-store, max-age=9", max-age=60`}, func(c *ResponseControl) { c.MaxAge = 60 * second }},
	{"RFC 9110 §5.6.4 quoted pairs", []string{`x="\", no-store, \\", max-age=60`}, func(c *ResponseControl) { c.MaxAge = 60 * second }},
	{"RFC 8246 §2 immutable", []string{"immutable"}, func(c *ResponseControl) { c.Immutable = true }},
	{"RFC 8246 §2 permits, so only as specified", []string{"immutable=1"}, func(*ResponseControl) {}},
	{"RFC 5861 §3 stale-while-revalidate", []string{"stale-while-revalidate=30"}, func(c *ResponseControl) { c.StaleWhileRevalidate = 30 * second }},
	{"RFC 5861 §3 several, the least", []string{"stale-while-revalidate=30, stale-while-revalidate=20"}, func(c *ResponseControl) { c.StaleWhileRevalidate = 20 * second }},
	{"RFC 5861 §3 bare permits nothing", []string{"stale-while-revalidate"}, func(c *ResponseControl) { c.StaleWhileRevalidate = 0 }},
	{"RFC 5861 §4 stale-if-error, quoted, in any case", []string{`Stale-If-Error="30"`}, func(c *ResponseControl) { c.StaleIfError = 30 * second }},
	{"RFC 5861 §4 capped", []string{"stale-if-error=99999999999999999999"}, func(c *ResponseControl) { c.StaleIfError = MaxDelta }},

	{"RFC 9110 §5.6.2 no folding beyond ASCII", []string{"no-\u017ftore"}, broken()},
	{"semicolons", []string{"max-age=60; private"}, broken(stale, private)},
	{"a ban behind semicolons", []string{"public; no-store, max-age=60"}, broken(noStore, sixty)},
	{"§4.2.1 space before =", []string{"max-age =60"}, broken(stale)},
	{"§4.2.1 space after =", []string{"max-age= 60"}, broken(stale)},
	{"§4.2.1 space around =, after a good one", []string{"max-age=60, max-age = 60"}, broken(stale)},
	{"§4.2.1 nothing after =", []string{"max-age="}, broken(stale)},
	{"§4.2.1 s-maxage broken", []string{"s-maxage= 60, max-age=60"}, broken(sixty, func(c *ResponseControl) { c.SMaxAge = 0 })},
	{"no name", []string{"=60, max-age=60"}, broken(sixty)},
	{"two words", []string{"max-age=60, no store"}, broken(sixty, noStore)},
	{"quoted whole", []string{`"no-store"`}, broken(noStore)},
	{"quoted whole, in upper case", []string{`"NO-CACHE"`}, broken(func(c *ResponseControl) { c.NoCache = true })},
	{"an open quote hides nothing that restricts", []string{`max-age=60, x="a, no-store`}, broken(sixty, noStore)},
	{"an open quote in an extension", []string{`max-age=60, foo="bar`}, broken(sixty)},
	{"an open quote takes its line, whose lifetime is unreadable", []string{`foo="bar, max-age=60`}, broken(stale)},
	{"an open quote ends with its line", []string{`x="a`, `max-age=60`}, broken(sixty)},
	{"an open quote permits nothing", []string{`x="a, public, must-understand, immutable, stale-if-error=9`}, broken()},
	{"an open quoted pair", []string{`max-age=60, x="a\`}, broken(sixty)},
	{"text after a quoted string", []string{`x="a"b, max-age=60`}, broken(sixty)},
	{"text after a quoted string that restricts", []string{`x="a, private"b, max-age=60`}, broken(sixty, private)},
	{"a comma in quotes of a broken member ends nothing", []string{`x y="1, s-maxage=60", max-age=60`}, broken(sixty, func(c *ResponseControl) { c.SMaxAge = 0 })},
	{"must-revalidate broken", []string{"max-age=60, must-revalidate;"}, broken(sixty, func(c *ResponseControl) { c.MustRevalidate = true })},
	{"proxy-revalidate broken", []string{"max-age=60, proxy-revalidate;"}, broken(sixty, func(c *ResponseControl) { c.ProxyRevalidate = true })},
	{"control characters", []string{"max-age=60\x00"}, broken(stale)},
	{"bytes beyond ASCII", []string{"max-age=60, \xff"}, broken(sixty)},
}

func sixty(c *ResponseControl)   { c.MaxAge = 60 * second }
func stale(c *ResponseControl)   { c.MaxAge = 0 }
func noStore(c *ResponseControl) { c.NoStore = true }
func private(c *ResponseControl) { c.Private = true }

// broken is what a field with a broken member gives, beside the effects.
func broken(effects ...func(*ResponseControl)) func(*ResponseControl) {
	return func(c *ResponseControl) {
		c.Malformed = true
		for _, f := range effects {
			f(c)
		}
	}
}

func TestParseResponse(t *testing.T) {
	t.Parallel()
	for _, row := range responseTable {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			want := noResponse
			row.want(&want)
			assert.Equal(t, want, ParseResponse(control(row.lines...)))
		})
	}
}

func within(t *testing.T, least time.Duration, values ...time.Duration) {
	t.Helper()
	for _, v := range values {
		require.GreaterOrEqual(t, v, least)
		require.LessOrEqual(t, v, MaxDelta)
		require.True(t, v == Absent || v%time.Second == 0)
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, row := range requestTable {
		f.Add(strings.Join(row.lines, "\n"))
	}
	f.Fuzz(func(t *testing.T, field string) {
		lines := strings.Split(field, "\n")
		c := ParseRequest(control(lines...))
		within(t, Absent, c.MaxAge, c.MinFresh, c.MaxStale, c.StaleIfError)
		slices.Reverse(lines)
		require.Equal(t, c, ParseRequest(control(lines...)), "the order of lines has no meaning")
		require.True(t, ParseRequest(control(append(lines, "no-store")...)).NoStore, "nothing before it hides a line")
		require.True(t, ParseRequest(control(append(lines, "no-cache")...)).NoCache)
	})
}

func FuzzParseResponse(f *testing.F) {
	for _, row := range responseTable {
		f.Add(strings.Join(row.lines, "\n"))
	}
	f.Fuzz(func(t *testing.T, field string) {
		lines := strings.Split(field, "\n")
		c := ParseResponse(control(lines...))
		within(t, Absent, c.MaxAge, c.SMaxAge, c.StaleWhileRevalidate, c.StaleIfError)
		slices.Reverse(lines)
		require.Equal(t, c, ParseResponse(control(lines...)), "the order of lines has no meaning")
		if joined := ParseResponse(control(strings.Join(lines, ", "))); !c.Malformed {
			require.Equal(t, c, joined, "lines and members are one list, RFC 9110 §5.3")
		}
		require.True(t, ParseResponse(control(append(lines, "no-store")...)).NoStore, "nothing before it hides a line")
		require.True(t, ParseResponse(control(append(lines, `private="x"`)...)).Private)
		for _, line := range []string{field + " no-store", field + `", no-store`, "no-store " + field} { // nor does what stands in its own line
			c := ParseResponse(control(line))
			require.True(t, c.NoStore || strings.Count(line, `"`) >= 2 || !c.Malformed, "%q", line)
		}
	})
}

func TestTchar(t *testing.T) { // RFC 9110 §5.6.2
	t.Parallel()
	const tchars = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for c := range 256 {
		assert.Equal(t, strings.IndexByte(tchars, byte(c)) >= 0, isTchar(byte(c)), "%q", c)
	}
}
