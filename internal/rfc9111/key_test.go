package rfc9111

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type keyTuple struct{ scope, host, target string }

func (k keyTuple) key() string { return string(k.append(nil)) }

func (k keyTuple) append(dst []byte) []byte {
	key := Key{Scope: k.scope, Host: k.host, Target: k.target}
	return key.Append(dst)
}

// keyTable holds targets that must not share a key, however alike they look (RFC 9111 §2).
var keyTable = []keyTuple{
	{"a", "", "/x"},
	{"b", "", "/x"},
	{"a", "h1", "/x"},
	{"a", "h2", "/x"},
	{"a", "H1", "/x"},
	{"a", "", "/X"},
	{"a", "", "/x/"},
	{"a", "", "/x?"},
	{"a", "", "/x?a=1&b=2"},
	{"a", "", "/x?b=2&a=1"},
	{"a", "", "/%78"},
	{"a", "", "/account/x.css"},
	{"a", "", "/account;x.css"},
	{"a", "", "/account%2fx.css"},
	{"a", "", "/account%2Fx.css"},
	{"a", "", "/account%00.css"},
	{"a", "", "/account?x.css"},
	{"", "", ""},
	{"", "", "a"},
	{"", "a", ""},
	{"a", "", ""},
	{"ab", "c", ""},
	{"a", "bc", ""},
	{"", "\x00", ""},
	{"", "", "\x00"},
	{"\x01a", "", ""},
	{"", "\x01a", ""},
}

func TestKeysDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]keyTuple{}
	for _, k := range keyTable {
		other, taken := seen[k.key()]
		require.False(t, taken, "%q and %q", other, k)
		seen[k.key()] = k
	}
}

func TestAppendAppends(t *testing.T) {
	t.Parallel()
	require.Equal(t, "before"+keyTuple{"a", "h", "/x"}.key(), string(keyTuple{"a", "h", "/x"}.append([]byte("before"))))
}

func TestParseKeyReadsWhatAppendWrote(t *testing.T) {
	t.Parallel()
	for _, k := range []Key{
		{},
		{"scope", "/target?", "query", "upstream", "https", "host", "asked", "/prefix"},
		{Target: "/\x04", Host: "\x00"},
	} {
		key := string(k.Append(nil))
		assert.Equal(t, k, ParseKey(key))
		assert.Equal(t, k, ParseKey(key+"and what KeyRules append"))
		assert.Equal(t, k.Scope, KeyScope(key))
	}
	assert.Equal(t, Key{}, ParseKey(""))
	assert.Equal(t, Key{Scope: "a"}, ParseKey("\x01a\xff"), "no key")
}

func TestKeysOfOneOrigin(t *testing.T) { // RFC 9110 §4.3.1
	t.Parallel()
	k := Key{Scope: "a", Proto: "https", Host: "h.test", Prefix: "/p"}
	for _, row := range []struct {
		other Key
		want  bool
	}{
		{Key{Proto: "https", Host: "h.test"}, true},
		{Key{Proto: "https", Host: "H.TEST"}, true},
		{Key{Proto: "https", Host: "h.test:443"}, true},
		{Key{Proto: "https", Host: "h.test:80"}, false},
		{Key{Proto: "http", Host: "h.test"}, false},
		{Key{Proto: "https", Host: "h2.test"}, false},
		{Key{Proto: "https", Host: "h.test:8443"}, false},
	} {
		assert.Equal(t, row.want, k.SameOrigin(&row.other), row.other)
	}
	assert.True(t, (&Key{Proto: "http"}).SameOrigin(&Key{Proto: "http"}))
	assert.False(t, k.SameOrigin(&Key{Proto: "https"}))
}

func TestParseTarget(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ uri, target, query string }{
		{"/42?full=1", "/42", "full=1"},
		{"/42?", "/42?", ""},
		{"/42", "/42", ""},
		{"/a%2Fb", "/a%2Fb", ""},
		{"//host/a", "//host/a", ""},
		{"http://host", "/", ""},
		{"no path", "no path", ""},
		{"", "", ""},
	} {
		target, query := ParseTarget(row.uri)
		assert.Equal(t, row.target, target, row.uri)
		assert.Equal(t, row.query, query, row.uri)
	}
}

func TestKeyRulesOfAQuery(t *testing.T) {
	t.Parallel()
	none, sorted, ignoring := KeyRules{}, KeyRules{SortedQuery: true}, KeyRules{IgnoredQuery: []string{"utm"}}
	for _, row := range []struct {
		rules *KeyRules
		want  string
		rule  bool
	}{{&none, "b=1&utm=2&a=3", false}, {&sorted, "a=3&b=1&utm=2", true}, {&ignoring, "b=1&a=3", true}} {
		assert.Equal(t, row.want, row.rules.Query("b=1&utm=2&a=3"))
		assert.Equal(t, row.rule, row.rules.RulesQuery())
		for _, other := range []*KeyRules{&none, &sorted, &ignoring} {
			assert.Equal(t, row.rules == other, row.rules.SameQuery(other))
		}
	}
}

func TestKeyRulesExtendAKey(t *testing.T) {
	t.Parallel()
	request := func(h http.Header) *http.Request { return &http.Request{Header: h} }
	de, en := request(http.Header{"X-Tenant": {"de"}, "Cookie": {"t=de"}}), request(http.Header{"X-Tenant": {"en"}, "Cookie": {"t=en"}})
	other := request(http.Header{"X-Tenant": {"de"}, "Cookie": {"t=de; u=1"}, "Accept": {"a/b"}})
	for _, rules := range []KeyRules{
		{Fields: []string{"X-Tenant"}}, {Cookies: []string{"t"}}, {Partition: func(r *http.Request) string { return r.Header.Get("X-Tenant") }},
	} {
		assert.True(t, rules.Extends())
		key := rules.Append([]byte("key"), de)
		assert.Equal(t, "key", string(key[:3]))
		assert.NotEqual(t, key, rules.Append([]byte("key"), en))
		assert.Equal(t, key, rules.Append([]byte("key"), other))
	}
	none := KeyRules{IgnoredQuery: []string{"a"}, SortedQuery: true}
	assert.False(t, none.Extends())
	assert.Equal(t, "key", string(none.Append([]byte("key"), de)))
}

func TestAppendCookies(t *testing.T) {
	t.Parallel()
	names := []string{"lang", "id"}
	same := [][2][]string{
		{nil, {"other=1"}},
		{nil, {"Lang=de; xlang=de; lang2=de; =lang; a=lang"}},
		{{"lang=de; id=1"}, {"id=1;lang=de ; other=2"}},
		{{"lang=de; lang=en"}, {"lang=de", "lang=en"}},
	}
	for _, pair := range same {
		require.Equal(t, AppendCookies(nil, names, pair[0]), AppendCookies(nil, names, pair[1]), "%q", pair)
	}
	seen := map[string][]string{}
	for _, lines := range [][]string{
		nil, {"lang"}, {"lang="}, {"lang=de"}, {"lang=en"}, {"lang=de; lang=en"}, {"lang=en; lang=de"}, {"lang=de; lang=de"}, {"lang=\"de"}, {"lang=\"de\""},
		{`lang=\de`}, {"lang=d,e"}, {"lang =de"}, {"id=de"}, {"lang=de; id=de"}, {"lang=lang=de"}, {"lang=\xff"},
	} {
		key := string(AppendCookies(nil, names, lines))
		other, taken := seen[key]
		require.False(t, taken, "%q and %q", other, lines)
		seen[key] = lines
	}
}

// FuzzKey holds that keys are equal exactly when their tuples are, also when the same bytes are split elsewhere or something is appended.
func FuzzKey(f *testing.F) {
	for i, k := range keyTable {
		other := keyTable[(i+1)%len(keyTable)]
		f.Add(k.scope, k.host, k.target, other.scope, other.host, other.target, "")
	}
	f.Fuzz(func(t *testing.T, s1, h1, t1, s2, h2, t2, more string) {
		one, two := keyTuple{s1, h1, t1}, keyTuple{s2, h2, t2}
		require.Equal(t, one == two, one.key() == two.key())
		require.Equal(t, one == two && more == "", one.key()+more == two.key(), "no key begins with another")
		all := s1 + h1 + t1
		for i := range len(all) + 1 {
			split := keyTuple{all[:i], all[i:], ""}
			require.Equal(t, split == one, split.key() == one.key())
			split = keyTuple{"", all[:i], all[i:]}
			require.Equal(t, split == one, split.key() == one.key())
		}
	})
}
