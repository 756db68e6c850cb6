package rfc9111

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var statusTable = []struct {
	name, cache string
	status      Status
	want        string
}{
	{"§2 a Token", "gateway", Status{}, "gateway"},
	{"§2 a String", "CDN Company Here", Status{}, `"CDN Company Here"`},
	{"§2.1 hit", "gateway", Status{Hit: true}, "gateway; hit"},
	{"§2.1 hit and fwd are exclusive", "gateway", Status{Hit: true, Miss: Miss{Forward: ForwardStale}}, "gateway; fwd=stale"},
	{"§2.2 fwd is a Token", "gateway", Status{Miss: Miss{Forward: ForwardURIMiss}}, "gateway; fwd=uri-miss"},
	{"§2.2 fwd only of what went forward", "gateway", Status{Miss: Miss{Forward: ForwardURIMiss, Unsent: true, Detail: "only-if-cached"}}, "gateway; detail=only-if-cached"},
	{"§2.3 fwd-status is an Integer", "gateway", Status{Miss: Miss{Forward: ForwardStale, ForwardStatus: 304}}, "gateway; fwd=stale; fwd-status=304"},
	{"§2.3 only meaningful beside fwd", "gateway", Status{Hit: true, Miss: Miss{ForwardStatus: 304}}, "gateway; hit"},
	{"§2.4 ttl is an Integer", "gateway", Status{Hit: true, Timed: true, TTL: 376 * second}, "gateway; hit; ttl=376"},
	{"§2.4 ttl may be negative", "gateway", Status{Hit: true, Timed: true, TTL: -412 * second}, "gateway; hit; ttl=-412"},
	{"§2.4 ttl of 0", "gateway", Status{Hit: true, Timed: true}, "gateway; hit; ttl=0"},
	{"§2.4 ttl, a moment left", "gateway", Status{Hit: true, Timed: true, TTL: second - 1}, "gateway; hit; ttl=0"},
	{"§2.4 ttl, a moment late", "gateway", Status{Hit: true, Timed: true, TTL: -1}, "gateway; hit; ttl=-1"},
	{"§2.5 stored", "gateway", Status{Miss: Miss{Forward: ForwardMiss, Stored: true}}, "gateway; fwd=miss; stored"},
	{"§2.5 only meaningful beside fwd", "gateway", Status{Hit: true, Miss: Miss{Stored: true}}, "gateway; hit"},
	{"§2.6 collapsed", "gateway", Status{Miss: Miss{Forward: ForwardURIMiss, Collapsed: true}}, "gateway; fwd=uri-miss; collapsed"},
	{"§2.7 key is a String", "gateway", Status{Key: "a", Miss: Miss{Forward: ForwardVaryMiss}}, `gateway; fwd=vary-miss; key="a"`},
	{"§2.7 escaped", "gateway", Status{Hit: true, Key: "\"\\\x00\u00fc\x7f"}, `gateway; hit; key="\"\\%00%C3%BC%7F"`},
	{"§2.8 detail as a Token", "gateway", Status{Miss: Miss{Forward: ForwardRequest, Detail: "no-store"}}, "gateway; fwd=request; detail=no-store"},
	{"§2.8 detail as a String", "gateway", Status{Miss: Miss{Forward: ForwardBypass, Detail: "1 a"}}, `gateway; fwd=bypass; detail="1 a"`},
	{"all of it", "g", Status{Timed: true, TTL: second, Key: "k", Miss: Miss{Forward: ForwardPartial, ForwardStatus: 206, Stored: true, Collapsed: true, Detail: "d"}}, `g; fwd=partial; fwd-status=206; stored; collapsed; ttl=1; key="k"; detail=d`},
}

func TestAppendStatus(t *testing.T) { // RFC 9211
	t.Parallel()
	for _, row := range statusTable {
		assert.Equal(t, "x, "+row.want, string(AppendStatus([]byte("x, "), row.cache, &row.status)), row.name)
	}
	long := AppendStatus(nil, "gateway", &Status{Key: strings.Repeat("\xff", 1<<20)})
	assert.Less(t, len(long), 4*maxStatusText)
}

func TestAppendStatusDoesNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 1024)
	for _, row := range statusTable {
		if !raceEnabled {
			require.Zero(t, testing.AllocsPerRun(100, func() { AppendStatus(dst, row.cache, &row.status) }), row.name)
		}
	}
}

// FuzzAppendStatus holds that whatever is told is one member of a List, and that no text breaks out of its place.
func FuzzAppendStatus(f *testing.F) {
	for _, row := range statusTable {
		f.Add(row.cache, row.status.Key, row.status.Detail, int64(row.status.TTL))
	}
	f.Fuzz(func(t *testing.T, cache, key, detail string, ttl int64) {
		line := string(AppendStatus(nil, cache, &Status{Timed: true, TTL: time.Duration(ttl), Key: key, Miss: Miss{Forward: ForwardMethod, Stored: true, Detail: detail}}))
		members := 0
		require.True(t, sfList([]string{line}, func(v sfValue) {
			members++
			require.True(t, v.kind == sfString || v.kind == sfToken)
		}), "%q", line)
		require.Equal(t, 1, members)
	})
}
