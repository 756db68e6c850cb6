package rfc9111

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseValidators(t *testing.T) {
	t.Parallel()
	long := `"` + strings.Repeat("a", maxTag-2) + `"`
	for _, row := range []struct {
		name         string
		etag, dates  []string
		tag, strong  string
		lastModified string
	}{
		{"none", nil, nil, "", "", ""},
		{"RFC 9110 §8.8.3 strong", []string{`"a"`}, nil, `"a"`, `"a"`, ""},
		{"RFC 9110 §8.8.3 weak", []string{`W/"a"`}, nil, `W/"a"`, "", ""},
		{"RFC 9110 §8.8.3 without quotes", []string{"a"}, nil, "", "", ""},
		{"RFC 9110 §8.8.3 w is no mark", []string{`w/"a"`}, nil, "", "", ""},
		{"RFC 9110 §8.8.3 more behind it", []string{`"a"b`}, nil, "", "", ""},
		{"RFC 9110 §8.8.3 two", []string{`"a"`, `"b"`}, nil, "", "", ""},
		{"RFC 9110 §8.8.3 a list", []string{`"a", "b"`}, nil, "", "", ""},
		{"RFC 9110 §8.8.3 a control character", []string{"\"a\x7f\""}, nil, "", "", ""},
		{"1 KiB", []string{long}, nil, long, long, ""},
		{"more than 1 KiB", []string{`"a` + long[1:]}, nil, "", "", ""},
		{"RFC 9110 §8.8.2.2 long before Date", nil, []string{at(-60 * second)}, "", at(-60 * second), at(-60 * second)},
		{"RFC 9110 §8.8.2.2 shortly before Date is implicitly weak", nil, []string{at(-59 * second)}, "", "", at(-59 * second)},
		{"RFC 9110 §8.8.2.1 after Date", nil, []string{at(60 * second)}, "", "", at(60 * second)},
		{"RFC 9110 §8.8.2 no date", nil, []string{"0"}, "", "", ""},
		{"RFC 9110 §8.8.2 two dates", nil, []string{at(-60 * second), at(-60 * second)}, "", "", ""},
		{"RFC 9110 §8.8.1 an entity tag decides", []string{`W/"a"`}, []string{at(-60 * second)}, `W/"a"`, "", at(-60 * second)},
		{"RFC 9110 §5.6.7 an obsolete form is sent in the one that may be", nil, []string{"Sunday, 06-Nov-94 08:49:37 GMT"}, "",
			"Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			v := ParseValidators(http.Header{"Etag": row.etag, "Last-Modified": row.dates, "Date": {at(0)}}, today.Add(time.Hour))
			assert.Equal(t, row.tag, v.ETag)
			assert.Equal(t, row.lastModified, v.LastModified)
			assert.Equal(t, row.strong, v.Strong())
			assert.Equal(t, strings.HasPrefix(row.strong, "\""), v.StrongTag())
			assert.Equal(t, row.tag != "" || row.lastModified != "", v.Any())
			assert.Equal(t, row.strong != "", v.SameStrong(&v))
			assert.Equal(t, at(0), v.Date.Format(http.TimeFormat))
		})
	}
	v := ParseValidators(http.Header{"Date": {"never"}}, today)
	assert.Equal(t, today.Truncate(time.Second), v.Date, "§4.3.2, RFC 9110 §6.6.1: or when it was received")
}

func TestSetConditions(t *testing.T) {
	t.Parallel()
	both, weak, date, none := version(`"a"`, at(-60*second)), version(`W/"b"`, at(-90*second)), version("", at(-60*second)), version("", "")
	var many []Validators
	var tags []string
	for i := range maxTags + 1 {
		tags = append(tags, fmt.Sprintf(`"%d"`, i))
		many = append(many, version(tags[i], ""))
	}
	for _, row := range []struct {
		name             string
		stored           []Validators
		tags, lastChange string
	}{
		{"§4.3.1 MUST send the entity tag; SHOULD send Last-Modified of a single one", []Validators{both}, `"a"`, at(-60 * second)},
		{"§4.3.1 MUST send a weak entity tag too", []Validators{weak}, `W/"b"`, at(-90 * second)},
		{"§4.3.1 MUST send those of all; no Last-Modified of several", []Validators{both, weak, date}, `"a", W/"b"`, ""},
		{"§4.3.1 each once", []Validators{both, both}, `"a"`, ""},
		{"§4.3.1 Last-Modified alone", []Validators{date}, "", at(-60 * second)},
		{"§4.3.1 Date is no validator", []Validators{none}, "", ""},
		{"§4.3.1 nothing to validate several with", []Validators{date, date}, "", ""},
		{"nothing stored", nil, "", ""},
		{"no more than 16", many, strings.Join(tags[:maxTags], ", "), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{
				"Accept": {"*/*"}, "Cache-Control": {"no-cache"}, "If-Match": {"x"}, "If-None-Match": {"x"}, "If-Modified-Since": {"x"},
				"If-Unmodified-Since": {"x"}, "If-Range": {"x"}, "Range": {"x"},
			}
			want := http.Header{"Accept": {"*/*"}, "Cache-Control": {"no-cache"}}
			if row.tags != "" {
				want["If-None-Match"] = []string{row.tags}
			}
			if row.lastChange != "" {
				want["If-Modified-Since"] = []string{row.lastChange}
			}
			assert.Equal(t, row.tags+row.lastChange != "", SetConditions(h, row.stored...))
			assert.Equal(t, want, h)
		})
	}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	older := func(v Validators) Validators {
		v.Date = v.Date.Add(-time.Hour)
		return v
	}
	a, b, weak := version(`"a"`, at(-90*second)), version(`"b"`, at(-60*second)), version(`W/"a"`, at(-90*second))
	date, none := version("", at(-90*second)), version("", "")
	list := func(v ...Validators) []Validators { return v }
	for _, row := range []struct {
		name     string
		stored   []Validators
		response Validators
		want     []int
	}{
		{"§4.3.4 strong: that with the same", list(a, b), b, []int{1}},
		{"§4.3.4 strong: all with the same", list(a, b, older(a)), a, []int{0, 2}},
		{"§4.3.4 strong: none has it, MUST NOT update any", list(a, b), version(`"c"`, at(-90*second)), nil},
		{"§4.3.4 strong: a weak one is not the same", list(weak), a, nil},
		{"§4.3.4 strong: a date is not the same", list(date), a, nil},
		{"§4.3.4 weak: the one that corresponds", list(b, a), weak, []int{1}},
		{"§4.3.4 weak: the most recent", list(older(weak), b, weak, older(a)), weak, []int{2}},
		{"§4.3.4 weak: the first of the most recent", list(weak, a), weak, []int{0}},
		{"§4.3.4 weak: none corresponds", list(b), weak, nil},
		{"§4.3.4 weak: a date is no entity tag", list(date), weak, nil},
		{"§4.3.4 a date: that with the same", list(b, a), date, []int{1}},
		{"§4.3.4 a date: the most recent", list(older(date), date), date, []int{1}},
		{"§4.3.4 a date: another", list(date), version("", at(-91*second)), nil},
		{"§4.3.4 a date: none", list(none), date, nil},
		{"§4.3.4 no validator: the only one, which has none either", list(none), none, []int{0}},
		{"§4.3.4 no validator: several", list(none, none), none, nil},
		{"§4.3.4 no validator: the only one that the conditions named", list(a), none, []int{0}},
		{"RFC 9110 §15.4.5 no validator: the only one has a date, which a 304 need not repeat", list(date), none, []int{0}},
		{"nothing stored", nil, a, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, row.want, Select(nil, row.stored, &row.response))
		})
	}
	assert.Equal(t, []int{7, 0}, Select([]int{7}, list(a), &a))
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	stored := http.Header{
		"Etag": {`"a"`}, "Date": {at(0)}, "Age": {"9"}, "Cache-Control": {"max-age=1"}, "X-Kept": {"old"}, "X-Lines": {"1", "2"},
		"Content-Type": {"text/plain"}, "Content-Length": {"4"}, "Content-Encoding": {"gzip"}, "X-Hop": {"old"}, "Repr-Digest": {"old"},
	}
	before := stored.Clone()
	for _, row := range []struct {
		name, field string
		newer, want []string
	}{
		{"§3.2 MUST add", "X-New", []string{"new"}, []string{"new"}},
		{"§3.2 MUST replace", "Cache-Control", []string{"max-age=2"}, []string{"max-age=2"}},
		{"§3.2 replaces all lines", "X-Lines", []string{"3"}, []string{"3"}},
		{"§3.2 what the newer has not stays", "X-Kept", nil, []string{"old"}},
		{"§3.2 the prefix Content- says nothing", "Content-Type", []string{"text/html"}, []string{"text/html"}},
		{"§3.2 Content-Security-Policy", "Content-Security-Policy", []string{"x"}, []string{"x"}},
		{"§3.2 ETag", "Etag", []string{`W/"a"`}, []string{`W/"a"`}},
		{"§3.2 not Content-Length", "Content-Length", []string{"0"}, []string{"4"}},
		{"§3.2 not Content-Range", "Content-Range", []string{"bytes 0-0/4"}, nil},
		{"§3.2 what the stored bytes depend on: Content-Encoding", "Content-Encoding", []string{"br"}, []string{"gzip"}},
		{"§3.2 what the stored bytes depend on: a digest", "Repr-Digest", []string{"new"}, []string{"old"}},
		{"RFC 9530 §2 the digest of a 304 is of nothing", "Content-Digest", []string{"new"}, nil},
		{"§3.1 not Connection", "Connection", []string{"close"}, nil},
		{"§3.1 not what Connection names", "X-Hop", []string{"new"}, []string{"old"}},
		{"§3.1 not Transfer-Encoding", "Transfer-Encoding", []string{"chunked"}, nil},
		{"§3.1 not Keep-Alive", "Keep-Alive", []string{"x"}, nil},
		{"§3.1 not Trailer", "Trailer", []string{"x"}, nil},
		{"§3.1 not TE", "Te", []string{"x"}, nil},
		{"§3.1 not Upgrade", "Upgrade", []string{"x"}, nil},
		{"§3.1 MUST NOT store Proxy-Authenticate", "Proxy-Authenticate", []string{"x"}, nil},
		{"§3.1 MUST NOT store Proxy-Authentication-Info", "Proxy-Authentication-Info", []string{"x"}, nil},
		{"§3.1 MUST NOT store Proxy-Authorization", "Proxy-Authorization", []string{"x"}, nil},
		{"not Alt-Svc, which leads around the gateway", "Alt-Svc", []string{"x"}, nil},
		{"§7.3 not Set-Cookie", "Set-Cookie", []string{"x"}, nil},
		{"§4.2.3 the age of the newer", "Age", []string{"3"}, []string{"3"}},
		{"§4.2.3 no age of the older", "Age", nil, nil},
		{"§4.2.3 no date of the older", "Date", nil, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			newer := http.Header{"Connection": {"close", "keep-alive,  x-hop"}}
			if row.newer != nil {
				newer[row.field] = row.newer
			}
			if row.field == "X-Hop" {
				newer["Connection"] = []string{"close", "keep-alive,  x-hop"}
			}
			given := newer.Clone()
			h := Update(stored, newer)
			assert.Equal(t, row.want, h[row.field])
			others := maps.Clone(before)
			for _, name := range []string{row.field, "Age", "Date"} {
				delete(others, name)
				delete(h, name)
			}
			assert.Equal(t, others, h)
			assert.Equal(t, before, stored, "the arguments stay")
			assert.Equal(t, given, newer, "the arguments stay")
		})
	}
}

func TestHead(t *testing.T) {
	t.Parallel()
	both, none := version(`"a"`, at(-60*second)), version("", "")
	for _, row := range []struct {
		name   string
		status int
		h      http.Header
		stored Validators
		want   HeadOutcome
	}{
		{"§4.3.5 all match: SHOULD update", 200, http.Header{"Etag": {`"a"`}, "Last-Modified": {at(-60 * second)}, "Content-Length": {"4"}}, both, HeadFreshen},
		{"§4.3.5 any received validator: ETag alone", 200, http.Header{"Etag": {`"a"`}}, both, HeadFreshen},
		{"§4.3.5 any received validator: Last-Modified alone", 200, http.Header{"Last-Modified": {at(-60 * second)}}, both, HeadFreshen},
		{"§4.3.5 the length alone, without validators", 200, http.Header{"Content-Length": {"4"}}, none, HeadFreshen},
		{"§4.3.5 another ETag: SHOULD be stale", 200, http.Header{"Etag": {`"b"`}, "Last-Modified": {at(-60 * second)}}, both, HeadStale},
		{"§4.3.5 a weak ETag is another value", 200, http.Header{"Etag": {`W/"a"`}}, both, HeadStale},
		{"§4.3.5 an ETag where there was none", 200, http.Header{"Etag": {`"a"`}}, none, HeadStale},
		{"§4.3.5 a broken ETag", 200, http.Header{"Etag": {"a"}}, none, HeadStale},
		{"§4.3.5 another Last-Modified", 200, http.Header{"Etag": {`"a"`}, "Last-Modified": {at(-61 * second)}}, both, HeadStale},
		{"§4.3.5 a broken Last-Modified", 200, http.Header{"Last-Modified": {"0"}}, none, HeadStale},
		{"§4.3.5 another Content-Length", 200, http.Header{"Etag": {`"a"`}, "Content-Length": {"5"}}, both, HeadStale},
		{"§4.3.5 a broken Content-Length", 200, http.Header{"Content-Length": {"4x"}}, none, HeadStale},
		{"nothing to compare", 200, http.Header{"Cache-Control": {"max-age=1"}}, both, HeadSilent},
		{"§4.3.5 another status", 304, http.Header{"Etag": {`"a"`}}, both, HeadSilent},
		{"§4.3.5 an error", 503, http.Header{"Content-Length": {"9"}}, both, HeadSilent},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, row.want, Head(row.status, row.h, today, 200, &row.stored, 4))
		})
	}
	for _, was := range []int{203, 204, 301, 302, 404, 410} {
		assert.Equal(t, HeadStale, Head(200, http.Header{"Etag": {`"a"`}, "Content-Length": {"4"}}, today, was, &both, 4), "over a %d", was)
		assert.Equal(t, HeadStale, Head(200, http.Header{}, today, was, &none, 4), "over a %d", was)
		assert.Equal(t, HeadSilent, Head(was, http.Header{"Etag": {`"a"`}, "Content-Length": {"4"}}, today, was, &both, 4), "a %d over its like", was)
	}
}

func FuzzUpdate(f *testing.F) {
	f.Add("Etag", `"a"`, "x-hop, close", "Content-Length")
	f.Add("Connection", "a", "a", "Set-Cookie")
	f.Fuzz(func(t *testing.T, name, value, connection, other string) {
		stored := http.Header{name: {"old"}, "X-Kept": {"old"}}
		newer := http.Header{name: {value}, other: {value}, "Connection": {connection}}
		h := Update(stored, newer)
		for _, never := range []string{"Set-Cookie", "Content-Length", "Content-Range", "Transfer-Encoding", "Connection"} {
			if name != never {
				require.NotContains(t, h, never)
			}
		}
		require.Equal(t, []string{"old"}, stored["X-Kept"])
		for field, lines := range h {
			require.True(t, lines[0] == "old" || newer[field] != nil)
		}
	})
}
