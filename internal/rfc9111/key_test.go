package rfc9111

import (
	"testing"

	"github.com/stretchr/testify/require"
)

type keyTuple struct{ scope, host, target string }

func (k keyTuple) key() string { return string(AppendKey(nil, k.scope, k.host, k.target)) }

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

func TestAppendKeyAppends(t *testing.T) {
	t.Parallel()
	require.Equal(t, "before"+keyTuple{"a", "h", "/x"}.key(), string(AppendKey([]byte("before"), "a", "h", "/x")))
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

// FuzzAppendKey holds that keys are equal exactly when their tuples are, also when the same bytes are split elsewhere or something is appended.
func FuzzAppendKey(f *testing.F) {
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
