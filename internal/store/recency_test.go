package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The oldest of all goes, whatever shard it is in.
func TestOldestOfAllShardsGoesFirst(t *testing.T) {
	t.Parallel()
	for _, scope := range []Scope{0, 3} {
		s := newStore[int](1<<20, 8)
		if scope != 0 {
			s.SetShare(scope, 1<<20)
		}
		rnd := rand.New(rand.NewPCG(1, uint64(scope)))
		var order []string // oldest first
		for i := 0; len(order) < 40; i++ {
			key := fmt.Sprint("k", i)
			if _, sh := s.shard([]byte(key)); sh.lru.Len() == newestPart-1 {
				continue // one more, and hits would leave some where they are
			}
			require.True(t, putIn(s, scope, key, 100))
			order = append(order, key)
		}
		for range 400 {
			i := rnd.IntN(len(order))
			key := order[i]
			require.True(t, has(s, key))
			order = append(slices.Delete(order, i, i+1), key)
		}
		for n := range order {
			if scope == 0 {
				taken := s.limit - s.bytes.Load() + 1
				require.True(t, s.Reserve(taken), "one has to go")
				s.Release(taken)
			} else {
				s.SetShare(scope, s.bytes.Load()-1)
			}
			for i, key := range order {
				ok := holds(s, key)
				assert.Equal(t, i > n, ok, "%s after %d went", key, n+1)
			}
			check(t, s)
		}
	}
}

// holds tells whether key is there without making it newer.
func holds[V any](s *Store[V], key string) bool {
	hash, sh := s.shard([]byte(key))
	_, ok := sh.find(hash, []byte(key))
	return ok
}
