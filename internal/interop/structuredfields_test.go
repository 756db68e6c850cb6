package interop_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway/internal/rfc9111"
)

// structured are fields that a parser of Structured Fields (RFC 9651) may read
// otherwise than another.
var structured = []string{
	"", " ", "\t", "a", "a, b", "a,", ",a", "a,,b", "a b", "a\t,\tb\t", "a\n\nb", "a\nb", "\na",
	"max-age=60", "max-age=-5", "max-age= 60", "max-age =60", "MAX-AGE=60", "max-age=\"60\"", "max-age=60.0", "max-age", "max-age=(60)",
	"max-age=999999999999999", "max-age=1000000000000000", "max-age=1, max-age=2", "max-age=60;x=1;y", "max-age=60; x", "max-age=60 ;x",
	"max-age=007", "max-age=--1", "max-age=-", "max-age=1.", "max-age=.5", "max-age=123456789012.123", "max-age=1234567890123.1", "max-age=1.1234",
	"no-store=?0", "no-store=?1", "no-store=?2", "no-store=?", "no-store, no-store=?0", "private=\"a, b\"", "no-cache=x", "*=1", "_=1", "a.b-c_d*=1",
	`"a"`, `"a", "b"`, `"a";x, "b";y=?0;z="q"`, `"\"\\"`, `"\a"`, `"a`, `"ü"`, "\"\x7f\"", `"a" "b"`, `"a",`, `"a", b`, `"a", 1`, `("a")`, `("a" "b");c`, `("a""b")`, `( )`, `(`,
	"a=:aGk=:", "a=:aGk:", "a=:aG=k:", "a=:a.k=:", "a=:", "a=::", "a=:aGk=\n:", "a=@1", "a=@-1", "a=@1.0", "a=@", `a=%"x"`, `a=%"%c3%bc"`, `a=%"%C3%BC"`, `a=%"%c3"`, `a=%"%"`, `a=%x`,
	"a=x/y:z", "a=*", "a=!", "a=&", "public, immutable, must-understand, must-revalidate, proxy-revalidate, no-transform, s-maxage=5, stale-if-error=6, stale-while-revalidate=7",
}

// FuzzStructuredFields has the cache's own parser and a foreign one read the
// same field: as a Dictionary of directives (RFC 9213 §2.1), and as a List of
// Strings (RFC 9875 §2).
func FuzzStructuredFields(f *testing.F) {
	for _, s := range structured {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		if len(field) > 16<<10 {
			return // which is more than is read
		}
		lines := strings.Split(field, "\n")
		sameDirectives(t, lines)
		sameGroups(t, lines)
	})
}

func sameDirectives(t *testing.T, lines []string) {
	dictionary, err := httpsfv.UnmarshalDictionary(lines)
	got, ok := rfc9111.ParseTargeted(http.Header{rfc9111.CDNCacheControl: lines}, []string{rfc9111.CDNCacheControl})
	if err != nil || len(dictionary.Names()) == 0 {
		require.False(t, ok, "%q is read, though %v", lines, err)
		return
	}
	require.True(t, ok, "%q is not read", lines)
	value := func(name string) (v any) {
		if member, has := dictionary.Get(name); has {
			v = member // an inner list
			if item, is := member.(httpsfv.Item); is {
				v = item.Value
			}
		}
		return v
	}
	vague := false
	delta := func(name string) time.Duration {
		v := value(name)
		seconds, ok := v.(int64)
		if !ok {
			vague = vague || v != nil && strings.HasSuffix(name, "age")
			return rfc9111.Absent
		}
		return time.Duration(min(max(seconds, 0), int64(rfc9111.MaxDelta/time.Second))) * time.Second
	}
	permits := func(name string) bool { return value(name) == true }
	restricts := func(name string) bool { return value(name) != nil && value(name) != false }
	want := rfc9111.ResponseControl{
		MaxAge: delta("max-age"), SMaxAge: delta("s-maxage"), StaleWhileRevalidate: delta("stale-while-revalidate"), StaleIfError: delta("stale-if-error"),
		Immutable: permits("immutable"), MustUnderstand: permits("must-understand"), Public: permits("public"),
		MustRevalidate: restricts("must-revalidate"), NoCache: restricts("no-cache"), NoStore: restricts("no-store"), NoTransform: restricts("no-transform"),
		Private: restricts("private"), ProxyRevalidate: restricts("proxy-revalidate"),
	}
	want.Vague = vague
	require.Equal(t, want, got, "%q", lines)
}

func sameGroups(t *testing.T, lines []string) {
	list, err := httpsfv.UnmarshalList(lines)
	var want []string
	for _, member := range list {
		item, _ := member.(httpsfv.Item)
		group, ok := item.Value.(string)
		if !ok {
			err = http.ErrNotSupported // not a List of Strings
		}
		want = append(want, group)
	}
	if err != nil {
		want = nil
	}
	slices.Sort(want)
	got, ok := rfc9111.Tags(http.Header{"Cache-Groups": lines})
	require.True(t, ok || len(want) > 256)
	if ok {
		require.Equal(t, slices.Compact(want), got, "%q: %v", lines, err)
	}
}
