package store

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func putIn(s *Store[int], scope Scope, key string, size int64) bool {
	return s.Update([]byte(key), func(int, bool) (Item[int], bool) { return Item[int]{Size: size, Scope: scope}, true })
}

func scopeKey(scope Scope, i int) string { return fmt.Sprintf("scope%d-%d", scope, i) }

func fillScope(s *Store[int], scope Scope, n int) {
	for i := range n {
		putIn(s, scope, scopeKey(scope, i), 1000)
	}
}

func countOf(s *Store[int], scope Scope) (n int) {
	for i := range 1000 {
		if has(s, scopeKey(scope, i)) {
			n++
		}
	}
	return n
}

func TestScopesAreNumbersThatNobodyElseHas(t *testing.T) {
	t.Parallel()
	s := newStore[int](1<<20, 1)
	assert.Equal(t, []Scope{1, 2, 3}, []Scope{s.NewScope(), s.NewScope(), s.NewScope()})
	s.FreeScope(2)
	s.FreeScope(1)
	assert.Equal(t, []Scope{2, 1, 4}, []Scope{s.NewScope(), s.NewScope(), s.NewScope()}, "what is free is used again")
}

// A scope above its share drops its own oldest, nobody else's.
func TestScopeKeepsToItsShare(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{1, 8} {
		s := newStore[int](1<<20, shards)
		s.SetShare(1, 100<<10)
		s.SetShare(2, 200<<10)
		fillScope(s, 2, 100)
		fillScope(s, 3, 100) // has no share
		fillScope(s, 0, 100)
		fillScope(s, 1, 1000)
		used, share := s.Share(1)
		assert.LessOrEqual(t, used, share)
		assert.Greater(t, used, share-1500)
		assert.Equal(t, []int{100, 100, 100}, []int{countOf(s, 0), countOf(s, 2), countOf(s, 3)})
		st := s.Stats()
		assert.Equal(t, Evicted{Share: uint64(1300 - st.Entries)}, st.Evicted)
		assert.True(t, has(s, scopeKey(1, 999)), "the youngest is there")
		assert.False(t, has(s, scopeKey(1, 0)), "the oldest is not")
		s.SetShare(2, 10<<10)
		used, _ = s.Share(2)
		assert.LessOrEqual(t, used, int64(10<<10), "at once")
		s.SetShare(1, math.MaxInt64)
		s.SetShare(2, -1)
		assert.Zero(t, countOf(s, 2))
		assert.False(t, putIn(s, 2, "x", 0))
		fillScope(s, 1, 700)
		assert.Greater(t, countOf(s, 1), 600, "as much as there is")
		check(t, s)
	}
}

// Its least recently used goes first, by use and not by age.
func TestScopeDropsItsLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	s := newStore[int](1<<20, 1)
	s.SetShare(1, 3*(s.perEntry+1000+int64(len(scopeKey(1, 0)))))
	fillScope(s, 1, 3)
	require.True(t, has(s, scopeKey(1, 0)))
	require.True(t, putIn(s, 1, scopeKey(1, 3), 1000))
	assert.False(t, has(s, scopeKey(1, 1)))
	assert.True(t, has(s, scopeKey(1, 0)))
	require.True(t, putIn(s, 0, scopeKey(1, 2), 1000), "it leaves the scope")
	require.True(t, putIn(s, 1, scopeKey(1, 4), 1000))
	assert.Equal(t, 4, s.Stats().Entries)
	check(t, s)
}

func TestReserveForScope(t *testing.T) {
	t.Parallel()
	s := newStore[int](1<<20, 4)
	s.SetShare(1, 10_000)
	fillScope(s, 0, 100)
	fillScope(s, 1, 8)
	assert.False(t, s.ReserveFor(1, 10_001))
	assert.False(t, s.ReserveFor(1, -1))
	assert.True(t, s.ReserveFor(1, 9000))
	assert.Zero(t, countOf(s, 1), "its own give way")
	assert.Equal(t, 100, countOf(s, 0), "others do not")
	assert.False(t, putIn(s, 1, "x", 1000), "nothing left")
	assert.False(t, s.ReserveFor(1, 1001))
	assert.True(t, s.ReserveFor(1, 1000))
	used, share := s.Share(1)
	assert.Equal(t, []int64{10_000, 10_000}, []int64{used, share})
	s.ReleaseFor(1, 10_000)
	assert.True(t, putIn(s, 1, "x", 1000))
	assert.False(t, s.ReserveFor(1, math.MaxInt64))
	s.SetShare(1, math.MaxInt64)
	assert.False(t, s.ReserveFor(1, math.MaxInt64), "the budget holds for it, too")
	s.Clear()
	used, _ = s.Share(1)
	assert.Zero(t, used)
	used, share = s.Share(9)
	assert.Zero(t, used+share)
	check(t, s)
}
