package store

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fetch is what a cache does with a key: it looks it up, and on a miss asks
// whether to store it.
func fetch(s *Store[int], scope Scope, key string, size int64) (hit bool) {
	if has(s, key) {
		return true
	}
	if s.Admit(scope, []byte(key)) {
		s.Update([]byte(key), func(int, bool) (Item[int], bool) { return Item[int]{Size: size, Scope: scope}, true })
	}
	return false
}

// A million keys that come once each leave what is hot where it is, even if
// that is not asked for meanwhile.
func TestScanDoesNotDriveOutWhatIsHot(t *testing.T) {
	t.Parallel()
	const hot = 700
	for _, shards := range []int{1, 8} {
		s := newStore[int](1<<20, shards)
		for round := range 3 {
			for i := range hot {
				require.Equal(t, round > 0, fetch(s, 0, fmt.Sprint("hot", i), 1000))
			}
		}
		for i := 0; !s.door.full.Load(); i++ { // others fill it up
			fetch(s, 0, fmt.Sprint("cold", i), 1000)
		}
		for i := range hot { // and are older
			fetch(s, 0, fmt.Sprint("hot", i), 1000)
		}
		for i := range 1_000_000 {
			fetch(s, 0, fmt.Sprint("scan", i), 1000)
		}
		hits := 0
		for i := range hot {
			if fetch(s, 0, fmt.Sprint("hot", i), 1000) {
				hits++
			}
		}
		assert.Greater(t, hits, hot*9/10)
		assert.Greater(t, s.Stats().NotAdmitted, uint64(999_000), "one of 16,000 is taken for another")
		check(t, s)
	}
}

// What is asked for again and again gets in, if it is of the size of the store.
func TestChangedWorkingSetIsAdopted(t *testing.T) {
	t.Parallel()
	s := newStore[int](1<<20, 4)
	const set = 700
	for _, name := range []string{"old", "new", "newer"} {
		hits := 0
		for range 5 {
			hits = 0
			for i := range set {
				if fetch(s, 0, fmt.Sprint(name, i), 1000) {
					hits++
				}
			}
		}
		assert.Greater(t, hits, set*8/10, name) // in a crowded word of the doorkeeper keys drive each other out
	}
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	a, b := []byte("a"), []byte("b")
	fill := func(s *Store[int]) {
		for i := 0; s.Stats().Evictions == 0; i++ {
			require.True(t, s.Admit(0, fmt.Append(nil, "fill", i)), "there is room")
			put(s, fmt.Sprint("fill", i), i, 1000)
		}
	}
	tests := []struct {
		name string
		do   func(s *Store[int])
		want bool
	}{
		{"there is room", func(*Store[int]) {}, true},
		{"full, and it is new", fill, false},
		{"full, and it came before", func(s *Store[int]) { fill(s); s.Admit(0, a) }, true},
		{"full, and another came before", func(s *Store[int]) { fill(s); s.Admit(0, b) }, false},
		{"full, and it has a value", func(s *Store[int]) { fill(s); put(s, "a", 1, 0) }, true},
		{"full once, and there is room again", func(s *Store[int]) { fill(s); s.Clear() }, true},
		{"full of what is reserved", func(s *Store[int]) { fill(s); s.Clear(); s.Reserve(s.limit) }, false},
		{"its scope is full", func(s *Store[int]) { s.SetShare(1, 3000); fillScope(s, 1, 5) }, false},
		{"another scope is full", func(s *Store[int]) { s.SetShare(1, 3000); s.SetShare(2, 3000); fillScope(s, 2, 5) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStore[int](64<<10, 1)
			tt.do(s)
			refused := s.Stats().NotAdmitted
			assert.Equal(t, tt.want, s.Admit(1, a))
			assert.Equal(t, !tt.want, s.Stats().NotAdmitted > refused)
		})
	}
}

// The doorkeeper is small, and forgets.
func TestDoorkeeper(t *testing.T) {
	t.Parallel()
	for _, budget := range []int64{-1, 0, 1, 2047, 2048, 5000, 1 << 20, 64 << 20, 1 << 40} {
		d := newDoorkeeper(budget)
		assert.LessOrEqual(t, d.bytes(), max(budget, 0)/256, "budget %d", budget)
		assert.LessOrEqual(t, d.bytes(), int64(8<<20))
	}
	d := newDoorkeeper(64 << 20)
	assert.Len(t, d.words, 32<<10)
	d = newDoorkeeper(2048)
	hash := func(n uint64) uint64 { return n << 48 }
	for n := range uint64(5) {
		require.False(t, d.seen(hash(n+10)))
	}
	assert.True(t, d.seen(hash(14)))
	assert.True(t, d.seen(hash(11)), "the fourth last")
	assert.False(t, d.seen(hash(10)), "forgotten")
	assert.False(t, d.seen(hash(0)), "nothing is not seen")
	assert.True(t, d.seen(hash(0)))
	none := newDoorkeeper(0)
	assert.True(t, none.seen(1), "what remembers nothing keeps nobody out")
}
