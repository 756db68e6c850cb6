package rfc9111

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// many returns n groups of 32 characters.
func many(n int) (groups []string, field string) {
	var quoted []string
	for i := range n {
		groups = append(groups, fmt.Sprintf("%032d", i))
		quoted = append(quoted, `"`+groups[i]+`"`)
	}
	return groups, strings.Join(quoted, ", ")
}

func TestTags(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		h    http.Header
		want []string
	}{
		{"none", nil, nil},
		{"Surrogate-Key, parted by spaces", http.Header{"Surrogate-Key": {" b  a,c\tb", "d"}}, []string{"a,c", "b", "d"}},
		{"Cache-Tag, parted by commas", http.Header{"Cache-Tag": {" b , a c,,", "d"}}, []string{"a c", "b", "d"}},
		{"RFC 9875 §2 Cache-Groups", http.Header{"Cache-Groups": {`"b", "a, c"`, `"d"`}}, []string{"a, c", "b", "d"}},
		{"RFC 9875 §2 parameters are ignored", http.Header{"Cache-Groups": {`"a";revalidate, "b";x=1`}}, []string{"a", "b"}},
		{"RFC 9875 §2.1 compared character by character", http.Header{"Cache-Groups": {`"a", "A", "a"`}}, []string{"A", "a"}},
		{"RFC 9875 §2 escapes", http.Header{"Cache-Groups": {`"\"\\"`}}, []string{`"\`}},
		{"RFC 9875 §2 a List of Strings: Tokens", http.Header{"Cache-Groups": {`"a", b`}}, nil},
		{"RFC 9875 §2 a List of Strings: Inner Lists", http.Header{"Cache-Groups": {`("a")`}}, nil},
		{"RFC 9651 §4.2 a parsing error", http.Header{"Cache-Groups": {`"a", "b`}}, nil},
		{"all together", http.Header{"Surrogate-Key": {"a"}, "Cache-Tag": {"b,a"}, "Cache-Groups": {`"c"`}}, []string{"a", "b", "c"}},
	} {
		got, ok := Tags(row.h)
		assert.True(t, ok, row.name)
		assert.Equal(t, row.want, got, row.name)
	}
}

func TestTagsAreBounded(t *testing.T) {
	t.Parallel()
	want, field := many(32)
	got, ok := Tags(http.Header{"Cache-Groups": {field}})
	assert.True(t, ok, "RFC 9875 §2: 32 groups of 32 characters")
	assert.Equal(t, want, got)

	want, field = many(maxNames)
	got, ok = Tags(http.Header{"Cache-Groups": {field}})
	assert.True(t, ok)
	assert.Equal(t, want, got)

	_, field = many(maxNames + 1)
	for name, h := range map[string]http.Header{
		"groups": {"Cache-Groups": {field}},
		"keys":   {"Surrogate-Key": {strings.ReplaceAll(field, ",", " ")}},
		"tags":   {"Cache-Tag": {field}},
		"bytes":  {"Cache-Tag": {strings.Repeat("x", maxNameBytes+1)}},
		"sum":    {"Cache-Tag": {strings.Repeat("x", maxNameBytes)}, "Surrogate-Key": {"x"}},
	} {
		_, ok := Tags(h)
		assert.False(t, ok, name)
	}
	_, ok = InvalidatedGroups("POST", http.Header{"Cache-Group-Invalidation": {field}})
	assert.False(t, ok)
	_, ok = InvalidatedGroups("POST", http.Header{"Cache-Group-Invalidation": {strings.Repeat(" ", maxNameBytes+1)}})
	assert.False(t, ok)
}

func TestInvalidatedGroups(t *testing.T) { // RFC 9875 §3
	t.Parallel()
	h := http.Header{"Cache-Group-Invalidation": {`"b", "a";x`}}
	for method, want := range map[string][]string{
		"POST": {"a", "b"}, "PUT": {"a", "b"}, "DELETE": {"a", "b"}, "PURGE": {"a", "b"},
		"GET": nil, "HEAD": nil, "OPTIONS": nil, "TRACE": nil, "QUERY": nil, // it is ignored on safe methods
	} {
		got, ok := InvalidatedGroups(method, h)
		assert.True(t, ok)
		assert.Equal(t, want, got, method)
	}
	got, ok := InvalidatedGroups("POST", http.Header{"Cache-Groups": {`"a"`}})
	assert.True(t, ok)
	assert.Empty(t, got)
}

func FuzzTags(f *testing.F) {
	f.Add("a b", "a,b", `"a", "b"`)
	f.Add("", ",", `"a";x, b`)
	f.Fuzz(func(t *testing.T, surrogate, tag, groups string) {
		h := http.Header{"Surrogate-Key": {surrogate}, "Cache-Tag": {tag}, "Cache-Groups": {groups}}
		tags, ok := Tags(h)
		require.True(t, slices.IsSorted(tags))
		require.LessOrEqual(t, len(tags), maxNames)
		require.Equal(t, tags, slices.Compact(slices.Clone(tags)))
		if ok {
			h["Cache-Group-Invalidation"] = h["Cache-Groups"]
			names, _ := InvalidatedGroups("POST", h)
			require.Subset(t, tags, names)
		}
	})
}
