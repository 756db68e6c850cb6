package rfc9111

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ours is a more specific targeted field than that of all such caches.
const ours = "Gateway-Cache-Control"

var targetedTable = []struct {
	name  string
	lines []string
	want  func(*ResponseControl) // nil: the field is ignored
}{
	{"§2.1 max-age is an Integer", []string{"max-age=60"}, sixty},
	{"§2.1 no-store is true", []string{"no-store"}, noStore},
	{"§2.1 no-cache is true", []string{"no-cache"}, func(c *ResponseControl) { c.NoCache = true }},
	{"§2.1 or a String of field names, as unqualified", []string{`no-cache="a, b"`}, func(c *ResponseControl) { c.NoCache = true }},
	{"§2.1 private, too", []string{`private="a"`}, private},
	{"§2.1 max-age as a String is ignored", []string{`max-age="60"`}, vague},
	{"§2.1 max-age as a Decimal is ignored", []string{"max-age=60.5"}, vague},
	{"§2.1 max-age as a Boolean is ignored", []string{"max-age"}, vague},
	{"§2.1 max-age as a Token is ignored", []string{"max-age=x60"}, vague},
	{"§2.1 s-maxage as a String is ignored, max-age is not", []string{`s-maxage="5", max-age=60`}, func(c *ResponseControl) { c.MaxAge, c.Vague = 60*second, true }},
	{"§2.1 a window as a String is ignored", []string{`max-age=60, stale-if-error="9"`}, sixty},
	{"§2.1 what permits does so as true only", []string{`max-age=60, public=1, immutable="x", must-understand=?0`}, sixty},
	{"§2.1 what restricts does so whatever its value", []string{"max-age=60, no-store=1"}, func(c *ResponseControl) { c.MaxAge, c.NoStore = 60*second, true }},
	{"§2.1 unless that is false", []string{"max-age=60, no-store=?0"}, sixty},
	{"§2.1 parameters are ignored", []string{"max-age=60;no-store, x;max-age=5"}, sixty},
	{"§2.1 empty", []string{""}, nil},
	{"§2.1 only spaces", []string{"  "}, nil},
	{"§2.1 a parsing error", []string{"max-age=60, &&&&&"}, nil},
	{"§2.1 space before =", []string{"max-age =60"}, nil},
	{"§2.1 space after =", []string{"max-age= 60"}, nil},
	{"§2.1 upper case", []string{"MaX-aGe=60"}, nil},
	{"§2.1 16 digits", []string{"max-age=9999999999999999"}, nil},
	{"RFC 9651 §4.2 several lines", []string{"max-age=60", "private"}, func(c *ResponseControl) { c.MaxAge, c.Private = 60*second, true }},
	{"RFC 9651 §4.2.2 the last of its name", []string{`max-age=5, no-store, max-age="x", max-age=60, no-store=?0`}, sixty},
	{"RFC 9111 §1.2.2 2^31", []string{"max-age=2147483648"}, func(c *ResponseControl) { c.MaxAge = MaxDelta }},
	{"RFC 9111 §1.2.2 capped", []string{"max-age=99999999999"}, func(c *ResponseControl) { c.MaxAge = MaxDelta }},
	{"RFC 9111 §4.2.1 negative", []string{"max-age=-5"}, stale},
	{"§2.2 must-revalidate and the others", []string{"must-revalidate, proxy-revalidate, no-transform, public, immutable, must-understand"}, func(c *ResponseControl) {
		c.MustRevalidate, c.ProxyRevalidate, c.NoTransform, c.Public, c.Immutable, c.MustUnderstand = true, true, true, true, true, true
	}},
	{"§2.2 extensions that we know", []string{"stale-while-revalidate=9, stale-if-error=8, s-maxage=7"}, func(c *ResponseControl) {
		c.StaleWhileRevalidate, c.StaleIfError, c.SMaxAge = 9*second, 8*second, 7*second
	}},
	{"§2.2 extensions that we do not know", []string{"foobar, max-age=60, x=(1 2)"}, sixty},
	{"§3.1 none is no directive, but not empty", []string{"none"}, func(*ResponseControl) {}},
}

func vague(c *ResponseControl) { c.Vague = true }

func TestParseTargeted(t *testing.T) { // RFC 9213
	t.Parallel()
	for _, row := range targetedTable {
		got, ok := ParseTargeted(http.Header{CDNCacheControl: row.lines}, []string{ours, CDNCacheControl})
		want := ResponseControl{}
		if row.want != nil {
			want = noResponse
			row.want(&want)
		}
		assert.Equal(t, row.want != nil, ok, row.name)
		assert.Equal(t, want, got, row.name)
	}
}

func TestTargetList(t *testing.T) { // RFC 9213 §2.2
	t.Parallel()
	for _, row := range []struct {
		name, ours, cdn string
		targets         []string
		want            int // seconds of max-age, -1: Cache-Control counts
	}{
		{"the first of the list", "max-age=1", "max-age=2", []string{ours, CDNCacheControl}, 1},
		{"in the list's order, not the message's", "max-age=1", "max-age=2", []string{CDNCacheControl, ours}, 2},
		{"that is valid", "max-age=", "max-age=2", []string{ours, CDNCacheControl}, 2},
		{"and not empty", "", "max-age=2", []string{ours, CDNCacheControl}, 2},
		{"none is valid", "A", ",", []string{ours, CDNCacheControl}, -1},
		{"not on the list", "max-age=1", "max-age=2", nil, -1},
	} {
		c, ok := ParseTargeted(http.Header{ours: {row.ours}, CDNCacheControl: {row.cdn}}, row.targets)
		assert.Equal(t, row.want >= 0, ok, row.name)
		if ok {
			assert.EqualValues(t, row.want, c.MaxAge/second, row.name)
		}
	}
	canonical := http.CanonicalHeaderKey("CDN-Cache-Control")
	assert.Equal(t, CDNCacheControl, canonical)
}

func FuzzParseTargeted(f *testing.F) {
	for _, row := range targetedTable {
		f.Add(strings.Join(row.lines, "\n"))
	}
	for _, row := range responseTable {
		f.Add(strings.Join(row.lines, "\n"))
	}
	f.Fuzz(func(t *testing.T, field string) {
		lines := strings.Split(field, "\n")
		targets := []string{CDNCacheControl}
		c, ok := ParseTargeted(http.Header{CDNCacheControl: lines}, targets)
		if !ok || len(field) > maxStructured/2 {
			require.Equal(t, !ok, c == ResponseControl{})
			return
		}
		within(t, Absent, c.MaxAge, c.SMaxAge, c.StaleWhileRevalidate, c.StaleIfError)
		c, ok = ParseTargeted(http.Header{CDNCacheControl: append(lines, "no-store")}, targets)
		require.True(t, ok && c.NoStore, "nothing before it hides a line")
	})
}
