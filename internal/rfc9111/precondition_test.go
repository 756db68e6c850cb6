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

// version returns the validators of a response with these fields, generated today.
func version(etag, modified string) Validators {
	h := http.Header{"Date": {at(0)}}
	if etag != "" {
		h["Etag"] = []string{etag}
	}
	if modified != "" {
		h["Last-Modified"] = []string{modified}
	}
	return ParseValidators(h, today)
}

var noneMatchTable = []struct {
	name  string
	lines []string
	tag   string
	want  bool
}{
	{"RFC 9110 §13.1.2 one of them matches: the condition is false", []string{`"a"`}, `"a"`, true},
	{"RFC 9110 §13.1.2 none matches", []string{`"a"`}, `"b"`, false},
	{"RFC 9110 §13.1.2 a list", []string{`"x", "y" ,"a"`}, `"a"`, true},
	{"RFC 9110 §5.3 several lines", []string{`"x"`, `"a"`}, `"a"`, true},
	{"RFC 9110 §13.1.2 *: there is a representation", []string{"*"}, `"a"`, true},
	{"RFC 9110 §13.1.2 * without an entity tag", []string{" * "}, "", true},
	{"RFC 9110 §13.1.2 * among others is invalid", []string{`*, "a"`}, `"a"`, false},
	{"RFC 9110 §13.1.2 * twice is invalid", []string{"*", "*"}, `"a"`, false},
	{"RFC 9110 §13.1.2 the weak comparison: weak here", []string{`W/"a"`}, `"a"`, true},
	{"RFC 9110 §13.1.2 the weak comparison: weak there", []string{`"a"`}, `W/"a"`, true},
	{"RFC 9110 §8.8.3.2 both weak", []string{`W/"a"`}, `W/"a"`, true},
	{"RFC 9110 §8.8.3.2 both weak and different", []string{`W/"a"`}, `W/"b"`, false},
	{"RFC 9110 §8.8.3 opaque tags in their case", []string{`"A"`}, `"a"`, false},
	{"RFC 9110 §8.8.3 W in its case", []string{`w/"a"`}, `"a"`, false},
	{"RFC 9110 §8.8.3 a comma within", []string{`"a,b"`}, `"a,b"`, true},
	{"RFC 9110 §8.8.3 a comma parts no tag", []string{`"x,"a","y"`}, `"a"`, false},
	{"RFC 9110 §8.8.3 a backslash escapes nothing", []string{`"a\", "b"`}, `"a\"`, true},
	{"RFC 9110 §8.8.3 beyond ASCII", []string{"\"\xff\""}, "\"\xff\"", true},
	{"RFC 9110 §8.8.3 an empty tag", []string{`""`}, `""`, true},
	{"RFC 9110 §5.6.1.2 empty members", []string{`, ,"a",`}, `"a"`, true},
	{"no quotes", []string{"a"}, `"a"`, false},
	{"an open quote", []string{`"a`}, `"a"`, false},
	{"a space within", []string{`"a b"`}, `"a b"`, false},
	{"two without a comma", []string{`"a" "b"`}, `"a"`, false},
	{"broken behind the match", []string{`"a", b`}, `"a"`, false},
	{"broken on another line", []string{`"a"`, `"b`}, `"a"`, false},
	{"nothing", []string{""}, `"a"`, false},
	{"nothing against no entity tag", []string{""}, "", false},
	{"no entity tag is stored", []string{`"a"`}, "", false},
	{"an entity tag of 1 KiB is none", []string{`"` + strings.Repeat("a", maxTag) + `"`}, `"` + strings.Repeat("a", maxTag) + `"`, false},
}

func TestIfNoneMatch(t *testing.T) {
	t.Parallel()
	for _, row := range noneMatchTable {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			stored, h := version(row.tag, ""), http.Header{"If-None-Match": row.lines}
			assert.Equal(t, row.want, NotModified("GET", h, 200, &stored, today))
			assert.Equal(t, row.want, NotModified("HEAD", h, 200, &stored, today))
		})
	}
}

func TestNotModified(t *testing.T) {
	t.Parallel()
	both := version(`"a"`, at(-3600*second))
	date, tag := version("", at(-3600*second)), version(`"a"`, "")
	since := func(lines ...string) http.Header { return http.Header{"If-Modified-Since": lines} }
	match := http.Header{"If-None-Match": {`"a"`}}
	for _, row := range []struct {
		name    string
		method  string
		status  int
		request http.Header
		stored  Validators
		want    bool
	}{
		{"no condition", "GET", 200, nil, both, false},
		{"RFC 9110 §13.1.3 equal: not modified", "GET", 200, since(at(-3600 * second)), date, true},
		{"RFC 9110 §13.1.3 later: not modified", "GET", 200, since(at(-3599 * second)), date, true},
		{"RFC 9110 §13.1.3 earlier: modified", "GET", 200, since(at(-3601 * second)), date, false},
		{"RFC 9110 §13.1.3 of a HEAD", "HEAD", 200, since(at(-3600 * second)), date, true},
		{"RFC 9110 §13.1.3 of another method: ignored", "POST", 200, since(at(-3600 * second)), date, false},
		{"RFC 9110 §13.1.3 no date: ignored", "GET", 200, since("yesterday"), date, false},
		{"RFC 9110 §13.1.3 an empty value: ignored", "GET", 200, since(""), date, false},
		{"RFC 9110 §13.1.3 another zone: ignored", "GET", 200, since(strings.Replace(at(0), "GMT", "CET", 1)), date, false},
		{"RFC 9110 §13.1.3 two dates: ignored", "GET", 200, since(at(0), at(0)), date, false},
		{"RFC 9110 §5.6.7 an obsolete form", "GET", 200, since(today.Format(time.RFC850[:len(time.RFC850)-3] + "GMT")), date, true},
		{"RFC 9110 §13.1.3 If-None-Match decides: no match", "GET", 200, http.Header{"If-None-Match": {`"x"`}, "If-Modified-Since": {at(0)}}, both, false},
		{"RFC 9110 §13.1.3 If-None-Match decides: a match", "GET", 200, http.Header{"If-None-Match": {`"a"`}, "If-Modified-Since": {at(-9000 * second)}}, both, true},
		{"RFC 9110 §13.1.3 If-None-Match decides: broken", "GET", 200, http.Header{"If-None-Match": {""}, "If-Modified-Since": {at(0)}}, both, false},
		{"§4.3.2 without Last-Modified, Date: equal", "GET", 200, since(at(0)), tag, true},
		{"§4.3.2 without Last-Modified, Date: earlier", "GET", 200, since(at(-second)), tag, false},
		{"§4.3.2 a stored 206", "GET", 206, match, both, true},
		{"§4.3.2 another stored status", "GET", 404, match, both, false},
		{"§4.3.2 a stored redirection", "GET", 301, since(at(0)), both, false},
		{"§4.3.2 of an unsafe method", "PUT", 200, match, both, false},
		{"§4.3.2 If-Match is for the origin", "GET", 200, http.Header{"If-Match": {`"b"`}, "If-None-Match": {`"a"`}}, both, false},
		{"§4.3.2 If-Unmodified-Since is for the origin", "GET", 200, http.Header{"If-Unmodified-Since": {at(0)}, "If-None-Match": {`"a"`}}, both, false},
		{"RFC 9110 §13.1.5 If-Range is no reason for a 304", "GET", 200, http.Header{"If-Range": {`"a"`}, "Range": {"bytes=0-"}}, both, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, row.want, NotModified(row.method, row.request, row.status, &row.stored, today))
		})
	}
	unstamped := ParseValidators(nil, today)
	assert.True(t, NotModified("GET", since(at(0)), 200, &unstamped, today), "§4.3.2 without Date, the time it was received")
	assert.False(t, NotModified("GET", since(at(-second)), 200, &unstamped, today))
}

func TestConditionsForTheOrigin(t *testing.T) {
	t.Parallel()
	assert.True(t, ForOrigin(http.Header{"If-Match": {"*"}}))
	assert.True(t, ForOrigin(http.Header{"If-Unmodified-Since": {""}}))
	assert.False(t, ForOrigin(http.Header{"If-None-Match": {"*"}, "If-Modified-Since": {at(0)}, "If-Range": {`"a"`}}))
}

func TestFieldsOfNotModified(t *testing.T) {
	t.Parallel()
	for name := range strings.FieldsSeq("Content-Location Date Etag Vary Cache-Control Expires Age Cache-Status Via Access-Control-Allow-Origin " +
		"Content-Security-Policy Content-Security-Policy-Report-Only X-Any") {
		assert.True(t, InNotModified(name, true), "RFC 9110 §15.4.5: %s", name)
	}
	for name := range strings.FieldsSeq("Content-Type Content-Length Content-Encoding Content-Language Content-Range Content-Digest Repr-Digest " +
		"Digest Content-Md5 Accept-Ranges Last-Modified") {
		assert.False(t, InNotModified(name, true), "RFC 9110 §15.4.5: %s", name)
	}
	assert.True(t, InNotModified("Last-Modified", false), "RFC 9110 §15.4.5: without ETag it guides the update")
}

func TestNotModifiedDoesNotAllocate(t *testing.T) {
	stored := version(`"a"`, at(-3600*second))
	for _, h := range []http.Header{
		{"If-None-Match": {`"x", W/"y"`, `"a"`}}, {"If-None-Match": {"*"}}, {"If-None-Match": {`"x`}}, {"If-Modified-Since": {at(0)}},
	} {
		assert.Zero(t, testing.AllocsPerRun(100, func() { NotModified("GET", h, 200, &stored, today) }), h)
	}
}

func FuzzNotModified(f *testing.F) {
	for _, row := range noneMatchTable {
		f.Add(strings.Join(row.lines, "\n"), row.tag, at(0))
	}
	f.Add("-", "", "Sunday, 06-Nov-94 08:49:37 GMT")
	f.Fuzz(func(t *testing.T, list, tag, date string) {
		stored := version(tag, date)
		require.True(t, stored.ETag == "" || stored.ETag == strings.TrimSpace(tag) && strings.Count(tag, `"`) == 2)
		if stored.LastModified != "" {
			again, ok := ParseDate(stored.LastModified, today)
			require.True(t, ok && again.Equal(stored.Modified))
		}
		lines := strings.Split(list, "\n")
		if !NotModified("GET", http.Header{"If-None-Match": lines}, 200, &stored, today) {
			return
		}
		if slices.Equal(lines, []string{"*"}) || strings.Trim(list, " \t\r\n") == "*" {
			return
		}
		require.NotEmpty(t, stored.ETag)
		require.Contains(t, list, opaque(stored.ETag), "the client named it")
		require.Zero(t, strings.Count(list, `"`)%2)
	})
}

func BenchmarkNotModified(b *testing.B) {
	stored := version(`"33a64df551425fcc55e4d42a148795d9f25f89d4"`, at(-3600*second))
	for _, row := range []struct {
		name string
		h    http.Header
	}{
		{"tag", http.Header{"If-None-Match": {`"33a64df551425fcc55e4d42a148795d9f25f89d4"`}, "If-Modified-Since": {at(0)}}},
		{"date", http.Header{"If-Modified-Since": {at(0)}}},
		{"none", browser},
		{"hostile", http.Header{"If-None-Match": {strings.Repeat(`"x",`, 1000)}}},
	} {
		b.Run("request="+row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				NotModified("GET", row.h, 200, &stored, today)
			}
		})
	}
}
