package store

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func putUntil(s *Store[int], key string, size, expires int64) bool {
	return s.Update([]byte(key), func(int, bool) (Item[int], bool) { return Item[int]{Size: size, Expires: expires}, true })
}

// What has expired goes before what is older, and in whatever shard it is.
func TestExpiredGoesFirst(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{1, 8} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore[int](1<<20, shards)
			now := time.Now().Unix()
			fillScope(s, 0, 400)
			for i := range 300 {
				require.True(t, putUntil(s, fmt.Sprint("short", i), 1000, now+int64(1+i%20)))
			}
			require.Zero(t, s.Stats().Evictions)
			time.Sleep(20 * time.Second)
			for i := range 300 {
				require.True(t, putUntil(s, fmt.Sprint("long", i), 1000, now+1000))
			}
			assert.Equal(t, 400, countOf(s, 0), "they are older, but of use")
			st := s.Stats()
			assert.NotZero(t, st.Evicted.Expired)
			assert.Equal(t, Evicted{Expired: st.Evictions}, st.Evicted)
			fillScope(s, 1, 300)
			assert.NotZero(t, s.Stats().Evicted.Size, "when none is left, the oldest")
			check(t, s)
		})
	}
}

// An entry is known to have expired once it has, never before, and at most a
// quarter of its time too late.
func TestWheel(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		es := newEntries[int]()
		now := 1_800_000_000 + rnd.Int64N(1<<20)
		life := 1 + rnd.Int64N(1<<(1+rnd.IntN(22)))
		id := es.alloc()
		es.at(id).expires = uint32(now + life)
		es.expireAt(id, now)
		at := now
		for es.expired(at) == 0 {
			at += 1 + rnd.Int64N(1+life/64)
			require.LessOrEqual(t, at, now+life+life/4+life/64+1, "life %d", life)
		}
		require.GreaterOrEqual(t, at, now+life, "life %d", life)
		require.Equal(t, id, es.expired(at))
		es.unlink(byExpiry, id)
		require.Zero(t, es.expired(at))
	}
}

func TestExpires(t *testing.T) {
	t.Parallel()
	const now = 1_800_000_000
	for expires, want := range map[int64]bool{
		0: false, -1: false, math.MinInt64: false, math.MaxInt64: false, math.MaxUint32: false, math.MaxUint32 + 1: false,
		1: true, now - 1: true, now: true, now + 1: false, now + 1<<30: false,
	} {
		s := newStore[int](1<<20, 1)
		sh := &s.shards[0]
		hash, _ := s.shard([]byte("k"))
		s.put(sh, hash, []byte("k"), now, Item[int]{Expires: expires}, 100)
		assert.Equal(t, want, sh.expired(now) != 0, "expires %d", expires)
		assert.Equal(t, want, sh.expired(now-100) != 0, "a clock that goes back changes nothing: %d", expires)
		s.Delete([]byte("k"))
		assert.Zero(t, sh.expired(now+1<<31))
	}
}
