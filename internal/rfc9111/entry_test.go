package rfc9111

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// entryOf returns an entry of the exchange that storable makes.
func entryOf(do ...func(*Exchange)) *Entry {
	x := storable()
	for _, f := range do {
		f(x)
	}
	return NewEntry(x, &Config{MaxStale: time.Hour}, func(h http.Header) { delete(h, "Connection") }, "X-Id")
}

func stored(body string, do ...func(*Exchange)) *Entry {
	return entryOf(do...).With([][]byte{[]byte(body)})
}

// partOf returns an entry of a span of "0123456789".
func partOf(from, to int64) (*Entry, *Part) {
	e := entryOf(part, answers("Content-Range", string(AppendContentRange(nil, Span{from, to}, 10))))
	return e, &Part{Span: Span{from, to}, Size: 10, Validators: e.Validators}
}

func asked(h http.Header) Asked { return Asked{http.MethodGet, h, today} }

func contentOf(t *testing.T, e *Entry, s Span) string {
	var text strings.Builder
	require.NoError(t, e.Read(s, func(p []byte) error { text.Write(p); return nil }))
	return text.String()
}

func TestNewEntryKeepsWhatIsOfTheResponse(t *testing.T) {
	t.Parallel()
	e := entryOf(answers("Connection", "x"), answers("Age", "7"), answers("X-Id", "1"), answers("Etag", `"a"`), answers("Last-Modified", at(-time.Hour)),
		answers("Vary", "Accept"), answers("Cache-Tag", "red, green"))
	assert.Equal(t, http.Header{
		"Cache-Control": {"max-age=60"}, "Date": {at(0)}, "Content-Type": {"text/plain"}, "Etag": {`"a"`}, "Last-Modified": {at(-time.Hour)},
		"Vary": {"Accept"}, "Cache-Tag": {"red, green"},
	}, e.Head.Header())
	assert.Equal(t, "7", e.Aged)
	assert.Equal(t, 7*second, e.Terms.Age)
	assert.Equal(t, []string{"Accept"}, e.Vary)
	assert.True(t, e.Matches(http.Header{"Accept": {"*/*"}}))
	assert.False(t, e.Matches(http.Header{"Accept": {"text/html"}}))
	assert.Equal(t, AppendVariant([]byte("key"), []string{"Accept"}, browser), e.AppendVariant([]byte("key"), browser))
	assert.Equal(t, Validators{ETag: `"a"`, LastModified: at(-time.Hour), Modified: today.Add(-time.Hour).Truncate(second), Date: today.Truncate(second)}, e.Validators)
	assert.True(t, e.tagged([]string{"blue", "green"}))
	assert.False(t, e.tagged([]string{"blue"}))
	assert.False(t, e.Untyped || e.Refers || e.Partial())
}

func TestNewEntryOf(t *testing.T) {
	t.Parallel()
	dateless := func(x *Exchange) { delete(x.Response, "Date") }
	for _, row := range []struct {
		name string
		do   []func(*Exchange)
		want func(*Entry) bool
	}{
		{"RFC 9110 §6.6.1 no Date", []func(*Exchange){dateless}, func(e *Entry) bool { return e.Head.Get("Date") == at(0) }},
		{"RFC 9110 §8.6 a 204 with a length", []func(*Exchange){status(204), answers("Content-Length", "0")}, func(e *Entry) bool { return e.With(nil).Head.Get("Content-Length") == "" }},
		{"Location", []func(*Exchange){answers("Location", "/a")}, func(e *Entry) bool { return e.Refers }},
		{"Content-Location", []func(*Exchange){answers("Content-Location", "/a")}, func(e *Entry) bool { return e.Refers }},
		{"no Content-Type", []func(*Exchange){func(x *Exchange) { delete(x.Response, "Content-Type") }}, func(e *Entry) bool { return e.Untyped }},
		{"more tags than are kept", []func(*Exchange){answers("Surrogate-Key", strings.Repeat("a", maxNameBytes+1))}, func(e *Entry) bool { return e.tagged([]string{"any"}) }},
	} {
		assert.True(t, row.want(entryOf(row.do...)), row.name)
	}
}

func TestWithContent(t *testing.T) {
	t.Parallel()
	bare := entryOf()
	e := bare.With([][]byte{[]byte("abc"), []byte("de")})
	assert.Equal(t, "5", e.Head.Get("Content-Length"))
	assert.EqualValues(t, 5, e.Length)
	assert.Empty(t, bare.Head.Get("Content-Length"))
	assert.EqualValues(t, entryOverhead+5+2*24+e.Head.Size(), e.Size)
	assert.Equal(t, "bcd", contentOf(t, e, Span{1, 4}))
	long := entryOf(answers("Vary", "Accept"), answers("Cache-Tag", "red")).With(nil)
	assert.EqualValues(t, entryOverhead+long.Head.Size()+int64(len(long.variant)+len("Accept")+len("red")+2*16), long.Size)
	assert.Equal(t, "0", long.Head.Get("Content-Length"))
}

// What an entry takes is counted by its head, so nothing of it may keep another alive.
func TestValidatorsLieInTheHead(t *testing.T) {
	t.Parallel()
	liesIn := func(text, s string) bool {
		from, at := uintptr(unsafe.Pointer(unsafe.StringData(text))), uintptr(unsafe.Pointer(unsafe.StringData(s)))
		return from <= at && at+uintptr(len(s)) <= from+uintptr(len(text))
	}
	do := []func(*Exchange){answers("Etag", `"1"`), answers("Last-Modified", at(-time.Hour))}
	bare := entryOf(do...)
	rest, got := partOf(0, 10)
	for name, e := range map[string]*Entry{
		"new": bare, "with its content": bare.With([][]byte{[]byte("abc")}), "that has its length": entryOf(append(do, answers("Content-Length", "3"))...).With(nil),
		"of parts": rest.Combined(nil, got, []byte("0123456789"), 100),
	} {
		assert.True(t, liesIn(e.Head.text, e.Validators.ETag), name)
		assert.True(t, e.Validators.LastModified == "" || liesIn(e.Head.text, e.Validators.LastModified), name)
	}
}

func TestUseless(t *testing.T) {
	t.Parallel()
	tagged := answers("Etag", `"1"`)
	for _, row := range []struct {
		name string
		do   []func(*Exchange)
		want time.Duration // after it came
	}{
		{"§4.2.4 whose service may be out of reach", nil, time.Minute + time.Hour},
		{"that was old when it came", []func(*Exchange){answers("Age", "20")}, 40*second + time.Hour},
		{"RFC 5861 §4 of which it says so", []func(*Exchange){says("max-age=60, stale-if-error=10")}, 70 * second},
		{"RFC 5861 §3 longer", []func(*Exchange){says("max-age=60, stale-if-error=10, stale-while-revalidate=20")}, 80 * second},
		{"§4.3 that can be validated", []func(*Exchange){says("max-age=60, stale-if-error=10"), tagged}, time.Minute + time.Hour},
		{"RFC 5861 §4 longer than that", []func(*Exchange){says("max-age=60, stale-if-error=7200"), tagged}, time.Minute + 2*time.Hour},
	} {
		assert.Equal(t, today.Add(row.want+second), entryOf(row.do...).Useless(), row.name)
	}
}

func TestNewer(t *testing.T) { // RFC 9111 §4.3.4
	t.Parallel()
	e := stored("abc", answers("X-A", "old"), answers("Etag", `"1"`))
	x := &Exchange{
		Method: http.MethodHead, Status: http.StatusNotModified, Request: browser, Injected: true, ResponseTime: today.Add(time.Minute),
		Response: http.Header{"X-A": {"new"}, "Cache-Control": {"no-store"}, "Content-Length": {"9"}},
	}
	x.directives(nil)
	newer := e.Newer(x)
	assert.Equal(t, http.Header{"X-A": {"new"}, "Cache-Control": {"no-store"}, "Content-Type": {"text/plain"}, "Etag": {`"1"`}, "Content-Length": {"3"}}, newer.Response)
	assert.Equal(t, Exchange{
		Method: http.MethodGet, Status: http.StatusOK, Request: browser, Response: newer.Response, Injected: true, Framed: true, ResponseTime: today.Add(time.Minute),
	}, newer)
}

func TestWithdrawn(t *testing.T) { // RFC 9111 §3, §4.3.4
	t.Parallel()
	cookie, credentials := asks("Cookie", "id=1"), asks("Authorization", "Basic eA==")
	for _, row := range []struct {
		name    string
		do      func(*Exchange)
		was, is string
		want    bool
		allow   Config
	}{
		{name: "§3.5 another's credentials, no permission before and after", do: credentials, was: "max-age=60", is: "max-age=90"},
		{name: "§7.3 a cookie, no permission before and after", do: cookie, was: "max-age=60", is: "max-age=90"},
		{name: "§3.5 the permission is gone", do: credentials, was: "max-age=60, public", is: "max-age=60", want: true},
		{name: "§7.3 the permission is gone for those with cookies", do: cookie, was: "s-maxage=60", is: "max-age=60", want: true},
		{name: "§3.5 our credentials, and the permission is gone", do: func(x *Exchange) { x.Injected = true }, was: "max-age=60, must-revalidate", is: "max-age=60", want: true},
		{name: "§5.2.2.7 private, whoever asks", do: cookie, was: "max-age=60", is: "private", want: true},
		{name: "§5.2.2.5 no-store", do: func(*Exchange) {}, was: "max-age=60", is: "no-store", want: true},
		{name: "it may be stored", do: credentials, was: "max-age=60", is: "max-age=60, public"},
		{name: "it may be stored by the operator's word", do: cookie, was: "max-age=60", is: "max-age=60", allow: Config{Cookies: true}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			e, x := stored("body", says(row.was)), storable()
			row.do(x)
			x.Response["Cache-Control"] = []string{row.is}
			newer := e.Newer(x)
			assert.Equal(t, row.want, e.Withdrawn(Storable(&newer, &row.allow), &newer, &row.allow))
			assert.Equal(t, []string{row.is}, newer.Response["Cache-Control"], "the arguments stay")
		})
	}
}

func TestHitOfAnEntry(t *testing.T) {
	t.Parallel()
	e, lines := stored("abc"), &Lines{Cache: "c"}
	h := e.Hit(5*second+1, lines)
	assert.Equal(t, "5", h.Age)
	assert.Equal(t, "c; hit; ttl=55", h.Status)
	for i := range lines.hits {
		lines.hits[i].Store(nil)
	}
	assert.Same(t, h, e.Hit(6*second-1, lines), "it has its own")
	assert.Equal(t, "6", e.Hit(6*second, lines).Age)
}

func TestStatusForARequest(t *testing.T) {
	t.Parallel()
	e := stored("0123456789", answers("Etag", `"1"`))
	wordy := stored("0123456789", answers("Content-Type", strings.Repeat("t", 2000)+"/x")) // whose parts repeat it
	for _, row := range []struct {
		name, field, value string
		e                  *Entry
		want               int
	}{
		{"RFC 9110 §15.3.1", "Accept", "*/*", e, 200},
		{"RFC 9110 §15.4.5", "If-None-Match", `"1"`, e, 304},
		{"RFC 9110 §15.3.7", "Range", "bytes=2-3", e, 206},
		{"RFC 9110 §15.3.7.2", "Range", "bytes=2-3,5-6", e, 206},
		{"RFC 9110 §15.5.17", "Range", "bytes=10-", e, 416},
		{"RFC 9110 §15.3.7.2 parts that take more than all", "Range", "bytes=2-3,5-6", wordy, 200},
	} {
		assert.Equal(t, row.want, row.e.StatusFor(asked(http.Header{row.field: {row.value}})), row.name)
	}
	parts, outcome := e.Parts(nil, asked(http.Header{"Range": {"bytes=0-1,5-6"}}))
	assert.Equal(t, RangeSatisfiable, outcome)
	assert.Equal(t, []Span{{0, 2}, {5, 7}}, parts.Spans)
	assert.Equal(t, "text/plain", parts.ContentType)
	assert.NotEmpty(t, parts.Boundary)
}

func TestCombinedParts(t *testing.T) { // RFC 9111 §3.3, §3.4
	t.Parallel()
	first, got := partOf(0, 3)
	one := first.Combined(nil, got, []byte("012"), 100)
	assert.True(t, one.Partial())
	assert.Equal(t, Span{3, 10}, one.Missing(10))
	assert.Zero(t, one.Missing(9), "the whole would be too large")
	third, got := partOf(6, 8)
	two := third.Combined(one, got, []byte("67"), 100)
	assert.EqualValues(t, 5, two.Length)
	assert.Zero(t, two.Missing(10), "there are several gaps")
	assert.Equal(t, "12", contentOf(t, two, Span{1, 3}))
	assert.Equal(t, "7", contentOf(t, two, Span{7, 8}))
	require.Error(t, two.Read(Span{2, 7}, func([]byte) error { return nil }))
	for text, want := range map[string]bool{"bytes=0-2": true, "bytes=1-1,6-7": true, "bytes=2-3": false, "bytes=6-": false, "bytes=10-": false} {
		assert.Equal(t, want, two.Covers(asked(http.Header{"Range": {text}})), text)
	}
	assert.Equal(t, http.StatusPartialContent, two.StatusFor(asked(http.Header{"Range": {"bytes=0-2"}})))

	wordy := stored("", answers("Content-Type", strings.Repeat("t", 2000)+"/x")).Combined(nil, got, []byte("67"), 100)
	_, outcome := wordy.Parts(nil, asked(http.Header{"Range": {"bytes=0-0,7-7"}}))
	assert.Equal(t, RangeSatisfiable, outcome, "there is no whole that would take less")

	rest, got := partOf(3, 10)
	all := rest.Combined(two, got, []byte("3456789"), 100)
	assert.False(t, all.Partial())
	assert.Equal(t, http.StatusOK, all.Status)
	assert.Equal(t, "10", all.Head.Get("Content-Length"))
	assert.Empty(t, all.Head.Get("Content-Range"))
	assert.Equal(t, "0123456789", contentOf(t, all, Span{0, 10}))

	few := rest.Combined(two, got, []byte("3456789"), 9)
	assert.EqualValues(t, 7, few.Length, "the newest alone, where all are too much")
	other := *got
	other.Validators.ETag = `"2"`
	assert.False(t, two.Combines(&other))
	assert.EqualValues(t, 7, rest.Combined(two, &other, []byte("3456789"), 100).Length, "of another version")
	assert.False(t, all.Combines(got), "it is whole")
}

// What a further part does not repeat is as it was (RFC 9111 §3.4, RFC 9110 §15.3.7.3).
func TestFurther(t *testing.T) {
	t.Parallel()
	at := func(s Span, do ...func(*Exchange)) *Exchange {
		x := storable()
		for _, f := range append([]func(*Exchange){part, answers("Content-Range", string(AppendContentRange(nil, s, 4)))}, do...) {
			f(x)
		}
		return x
	}
	first := entryOf(func(x *Exchange) {
		*x = *at(Span{0, 2}, answers("Content-Type", "text/plain"), answers("Content-Encoding", "x"), answers("Content-Length", "2"), answers("Vary", "Foo"), answers("X-A", "old"), answers("X-B", "old"), answers("Set-Cookie", "id=0"))
	})
	newer := first.Further(at(Span{1, 4}, answers("Content-Length", "3"), answers("X-B", "new"), asks("Foo", "1"), says("max-age=9"), answers("Age", "5")))
	for name, want := range map[string]string{
		"Content-Type": "text/plain", "Content-Encoding": "x", "Vary": "Foo", "X-A": "old", "X-B": "new", "Cache-Control": "max-age=9", "Age": "5", "Content-Length": "3", "Content-Range": "bytes 1-3/4", "Set-Cookie": "",
	} {
		assert.Equal(t, want, newer.Response.Get(name), name)
	}
	assert.Equal(t, VerdictPartial, Storable(&newer, &Config{}))
	assert.Equal(t, 9*second, TermsOf(&newer, &Config{}).Lifetime)
	newer = first.Further(at(Span{1, 4}, func(x *Exchange) { delete(x.Response, "Cache-Control") }))
	assert.Equal(t, VerdictPartial, Storable(&newer, &Config{}), "its lifetime is that which was stated before")
	newer = first.Further(at(Span{1, 4}, answers("Set-Cookie", "id=1")))
	assert.Equal(t, VerdictSetCookie, Storable(&newer, &Config{}))
	assert.Equal(t, "id=1", newer.Response.Get("Set-Cookie"))
}
