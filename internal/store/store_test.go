package store

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// put stores v, of the given size, whatever was there.
func put[V any](s *Store[V], key string, v V, size int64) bool {
	return s.Update([]byte(key), func(V, bool) (Item[V], bool) { return Item[V]{Value: v, Size: size}, true })
}

func get[V any](t *testing.T, s *Store[V], key string) V {
	t.Helper()
	v, ok := s.Get([]byte(key))
	require.True(t, ok, "no %q", key)
	return v
}

func has[V any](s *Store[V], key string) bool {
	_, ok := s.Get([]byte(key))
	return ok
}

// each is what an entry with a key of one byte and no size costs.
func each[V any](s *Store[V]) int64 { return s.perEntry + 1 }

// check compares the sums with what is there.
func check[V any](t *testing.T, s *Store[V]) {
	t.Helper()
	var sum int64
	for i := range s.shards {
		sh := &s.shards[i]
		var bytes int64
		scopes := make([]int64, len(sh.granted))
		for _, id := range sh.lru.Values() {
			e := sh.at(id)
			bytes += e.size
			if e.scope != 0 {
				scopes[e.scope] += e.size
			}
		}
		require.Equal(t, bytes, sh.bytes, "bytes of shard %d", i)
		require.Equal(t, scopes, append([]int64{}, sh.granted...), "scopes of shard %d", i)
		require.Equal(t, sh.lru.Len(), inUse(sh), "slots of shard %d", i)
		sum += bytes
	}
	st := s.Stats()
	require.Equal(t, sum, st.Bytes)
	require.GreaterOrEqual(t, st.Reserved, int64(0))
	require.LessOrEqual(t, st.Bytes+st.Reserved, st.MaxBytes)
}

// inUse counts the slots in use, and finds each free one free.
func inUse[V any](sh *shard[V]) int {
	n := int(sh.slots)
	for id := sh.vacant; id != 0; id = sh.at(id).links[0].next {
		if sh.at(id).size != 0 {
			return -1
		}
		n--
	}
	return n
}

// setBudget leaves nothing to the doorkeeper.
func setBudget[V any](s *Store[V], n int64) {
	s.maxBytes, s.limit = n, n
	s.budget.Store(n)
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	s := newStore[string](1<<20, 4)
	type call struct {
		old string
		ok  bool
	}
	var got []call
	update := func(v string, size int64, keep bool) bool {
		return s.Update([]byte("k"), func(old string, ok bool) (Item[string], bool) {
			got = append(got, call{old, ok})
			return Item[string]{Value: v, Size: size}, keep
		})
	}
	assert.False(t, update("a", 1, false), "not kept")
	assert.False(t, has(s, "k"))
	assert.True(t, update("b", 10, true))
	assert.Equal(t, "b", get(t, s, "k"))
	assert.Equal(t, each(s)+10, s.Stats().Bytes)
	assert.True(t, update("c", 20, true))
	assert.Equal(t, "c", get(t, s, "k"))
	assert.Equal(t, each(s)+20, s.Stats().Bytes, "the old one is not counted any more")
	assert.False(t, update("d", 1<<20, true), "too large")
	assert.False(t, has(s, "k"), "and the old one is gone")
	assert.True(t, update("e", 0, true))
	assert.False(t, update("f", 0, false), "deleted")
	assert.False(t, has(s, "k"))
	assert.Equal(t, []call{{"", false}, {"", false}, {"b", true}, {"c", true}, {"", false}, {"e", true}}, got)
	assert.Equal(t, Stats{MaxBytes: 1 << 20, Budget: s.limit, Rejected: 1}, s.Stats())
	check(t, s)
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	const budget = 1000
	s := newStore[int](budget, 1)
	most := budget - each(s)
	tests := []struct {
		name string
		key  string
		size int64
		want bool
	}{
		{"fits exactly", "k", most, true},
		{"one byte more", "k", most + 1, false},
		{"the key counts", "kk", most, false},
		{"negative", "k", -1, false},
		{"overflows", "k", math.MaxInt64, false},
		{"overflows to fitting", "k", math.MaxInt64 - 10, false},
		{"most negative", "k", math.MinInt64, false},
		{"key above the budget", strings.Repeat("k", budget), 0, false},
		{"empty key", "", 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.Clear()
			assert.Equal(t, tt.want, put(s, tt.key, 1, tt.size))
			assert.Equal(t, tt.want, has(s, tt.key))
			check(t, s)
		})
	}
}

func TestNoBudget(t *testing.T) {
	t.Parallel()
	for _, budget := range []int64{0, -1, math.MinInt64} {
		s := New[int](budget)
		assert.False(t, put(s, "k", 1, 0))
		assert.False(t, s.Reserve(1))
		assert.True(t, s.Reserve(0))
		assert.False(t, has(s, "k"))
		assert.Equal(t, Stats{Rejected: 2}, s.Stats())
	}
}

func TestLeastRecentlyUsedGoesFirst(t *testing.T) {
	t.Parallel()
	s := newStore[int](0, 1)
	setBudget(s, 3*each(s))
	for i, k := range []string{"a", "b", "c"} {
		require.True(t, put(s, k, i, 0))
	}
	get(t, s, "a")
	require.True(t, put(s, "d", 3, 0))
	assert.False(t, has(s, "b"), "oldest")
	require.True(t, put(s, "c", 9, 0), "writing is using")
	require.True(t, put(s, "e", 4, 0))
	assert.False(t, has(s, "a"))
	assert.Equal(t, 9, get(t, s, "c"))
	assert.EqualValues(t, 2, s.Stats().Evictions)
	require.True(t, put(s, "f", 5, 2*each(s)), "a large one moves all others")
	assert.Equal(t, 1, s.Stats().Entries)
	check(t, s)
}

// A new entry takes room in other shards rather than go itself.
func TestRoomIsTakenFromOtherShards(t *testing.T) {
	t.Parallel()
	s := newStore[int](100_000, 8)
	for i := range 1000 {
		require.True(t, put(s, fmt.Sprint(i), i, 100))
	}
	for i := range 20 {
		key := fmt.Sprint("large", i)
		require.True(t, put(s, key, i, 90_000))
		require.True(t, has(s, key))
		check(t, s)
	}
}

func TestReserve(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{1, 8} {
		t.Run(fmt.Sprintf("shards=%d", shards), func(t *testing.T) {
			t.Parallel()
			s := newStore[int](0, shards)
			setBudget(s, 10*each(s))
			for i := range 10 {
				require.True(t, put(s, string(rune('0'+i)), i, 0))
			}
			assert.False(t, s.Reserve(-1))
			assert.True(t, s.Reserve(1))
			assert.Equal(t, 9, s.Stats().Entries, "one makes room for one byte")
			s.Release(0)
			s.Release(-5)
			assert.EqualValues(t, 1, s.Stats().Reserved)
			assert.False(t, s.Reserve(s.maxBytes))
			assert.False(t, s.Reserve(math.MaxInt64))
			assert.Equal(t, 9, s.Stats().Entries, "what cannot be had evicts nothing")
			assert.True(t, s.Reserve(s.maxBytes-1))
			assert.Equal(t, Stats{
				Reserved: s.maxBytes, MaxBytes: s.maxBytes, Budget: s.maxBytes, Evictions: 10, Evicted: Evicted{Size: 10}, Rejected: 2,
			}, s.Stats())
			assert.False(t, put(s, "k", 1, 0), "nothing left")
			s.Clear()
			assert.Equal(t, s.maxBytes, s.Stats().Reserved)
			s.Release(each(s))
			assert.True(t, put(s, "k", 1, 0))
			s.Release(s.maxBytes - each(s))
			assert.Zero(t, s.Stats().Reserved)
			check(t, s)
		})
	}
}

// Two keys of one hash take each other's place and are never mistaken.
func TestCollision(t *testing.T) {
	t.Parallel()
	s := newStore[string](1<<20, 1)
	collide := func() {
		s.Clear()
		hash, sh := s.shard([]byte("mine"))
		s.put(sh, hash, []byte("other"), 0, Item[string]{Value: "theirs"}, 77)
	}
	collide()
	assert.False(t, has(s, "mine"))
	_, ok := s.Delete([]byte("mine"))
	assert.False(t, ok)
	assert.Equal(t, 1, s.Stats().Entries, "deleting mine leaves theirs")
	assert.False(t, s.Update([]byte("mine"), func(old string, ok bool) (Item[string], bool) {
		assert.False(t, ok)
		assert.Empty(t, old)
		return Item[string]{}, false
	}))
	assert.Equal(t, 1, s.Stats().Entries)
	assert.EqualValues(t, 77, s.Stats().Bytes)
	require.True(t, put(s, "mine", "ours", 5))
	assert.Equal(t, "ours", get(t, s, "mine"))
	st := s.Stats()
	assert.Equal(t, 1, st.Entries)
	assert.Equal(t, s.perEntry+4+5, st.Bytes)
	assert.EqualValues(t, 1, st.Evictions)
	check(t, s)
}

func TestEpoch(t *testing.T) {
	t.Parallel()
	key := []byte("k")
	tests := []struct {
		name    string
		do      func(s *Store[int])
		changes bool
	}{
		{"nothing", func(*Store[int]) {}, false},
		{"store", func(s *Store[int]) { put(s, "k", 2, 0) }, false},
		{"get", func(s *Store[int]) { s.Get(key) }, false},
		{"evict", func(s *Store[int]) { s.Reserve(s.limit); s.Release(s.limit) }, false},
		{"delete", func(s *Store[int]) { s.Delete(key) }, true},
		{"invalidate", func(s *Store[int]) { s.Invalidate(key) }, true},
		{"clear", func(s *Store[int]) { s.Clear() }, true},
		{"not kept", func(s *Store[int]) {
			s.Update(key, func(int, bool) (Item[int], bool) { return Item[int]{}, false })
		}, true},
		{"too large", func(s *Store[int]) { put(s, "k", 2, 1<<40) }, true},
	}
	for _, tt := range tests {
		for _, present := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/present=%t", tt.name, present), func(t *testing.T) {
				t.Parallel()
				s := newStore[int](1<<20, 4)
				if present {
					put(s, "k", 1, 0)
				}
				changes := tt.changes
				if !present && (tt.name == "not kept" || tt.name == "too large") {
					changes = false // there was nothing to delete
				}
				before := s.Begin(key)
				tt.do(s)
				assert.Equal(t, changes, s.Begin(key) != before)
				called := false
				stored := s.UpdateSince(before, key, func(int, bool) (Item[int], bool) {
					called = true
					return Item[int]{Value: 3}, true
				})
				assert.Equal(t, !changes, stored)
				assert.Equal(t, !changes, called)
				check(t, s)
			})
		}
	}
}

// Deleting one key holds up no other, unless very many are deleted.
func TestDeletionsHoldUpNoOtherKey(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{1, 16, maxShards} {
		s := newStore[int](1<<20, shards)
		const keys = 20_000
		before := make([]Since, keys)
		for i := range before {
			before[i] = s.Begin(fmt.Append(nil, i))
		}
		held := func() (n int) {
			for i := range before {
				if hash, sh := s.shard(fmt.Append(nil, i)); sh.stripe(hash).since(before[i].epoch, hash) {
					n++
				}
			}
			return n
		}
		for i := range 1000 {
			s.Invalidate(fmt.Append(nil, "other", i))
		}
		assert.Less(t, held(), keys/100)
		s.Invalidate(fmt.Append(nil, 7))
		assert.False(t, s.UpdateSince(before[7], fmt.Append(nil, 7), func(int, bool) (Item[int], bool) { return Item[int]{Value: 1}, true }))
		for i := range 40_000 {
			s.Invalidate(fmt.Append(nil, "other", i))
		}
		assert.Equal(t, keys, held(), "and then whoever it may be")
	}
}

func TestPanicInUpdateLeavesTheStoreUsable(t *testing.T) {
	t.Parallel()
	s := New[int](1 << 20)
	put(s, "k", 1, 5)
	assert.Panics(t, func() {
		s.Update([]byte("k"), func(int, bool) (Item[int], bool) { panic("boom") })
	})
	assert.Equal(t, 1, get(t, s, "k"))
	check(t, s)
}

func TestShards(t *testing.T) {
	t.Parallel()
	for procs, want := range map[int]int{1: 1, 2: 8, 3: 16, 4: 16, 5: 32, 16: 64, 64: 256, 1000: 256} {
		assert.Equal(t, want, shardsFor(procs), "procs=%d", procs)
	}
}

// The key handed in may be written to afterwards.
func TestKeyIsCopied(t *testing.T) {
	t.Parallel()
	s := New[int](1 << 20)
	key := []byte("abc")
	s.Update(key, func(int, bool) (Item[int], bool) { return Item[int]{Value: 1}, true })
	copy(key, "xyz")
	assert.True(t, has(s, "abc"))
	assert.False(t, has(s, "xyz"))
}

// Whatever happens at once, the budget holds whenever nobody is in the middle
// of something, values belong to their keys, and all bytes come back.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{1, 8} {
		s := newStore[string](64<<10, shards)
		s.SetShare(2, 16<<10)
		var wg sync.WaitGroup
		var wrong atomic.Int64
		for g := range 4 {
			wg.Go(func() {
				for i := range 2000 {
					key := fmt.Append(nil, (i*7+g*13)%300)
					switch (i + g) % 8 {
					case 0:
						since := s.Begin(key)
						s.UpdateSince(since, key, func(old string, ok bool) (Item[string], bool) {
							if ok && old != string(key) {
								wrong.Add(1)
							}
							return Item[string]{string(key), int64(i % 2000), Scope(i % 3), time.Now().Unix() + int64(i%3)}, true
						})
					case 1:
						s.Delete(key)
					case 2:
						if n := int64(i*11) % 20_000; s.Reserve(n) {
							runtime.Gosched()
							s.Release(n)
						}
					case 3:
						s.Stats()
					case 4:
						if i%500 == 0 {
							s.Clear()
						}
					case 6:
						s.SetShare(1, int64(i%7)<<12)
						s.Admit(1, key)
						if n := int64(i * 3 % 9000); s.ReserveFor(2, n) {
							runtime.Gosched()
							s.ReleaseFor(2, n)
						}
						if i%50 == 0 {
							s.Purge(func(k string, _ string) bool { return len(k) == 1+g%3 })
						}
					case 5:
						if v, ok := s.Get(key); ok && v != string(key) {
							wrong.Add(1)
						}
					default:
						put(s, string(key), string(key), int64(i%100))
					}
				}
			})
		}
		wg.Wait()
		require.Zero(t, wrong.Load())
		check(t, s)
		require.Zero(t, s.Stats().Reserved)
		for i := range 300 {
			s.Delete(fmt.Append(nil, i))
		}
		require.Zero(t, s.Stats().Bytes)
		require.Zero(t, s.Stats().Entries)
	}
}

// TestPeekLeavesTheOrder asks Peek for the oldest entry again and again, which is evicted first all the same.
func TestPeekLeavesTheOrder(t *testing.T) {
	t.Parallel()
	for _, look := range []struct {
		name string
		f    func(s *Store[int]) (int, bool)
		kept bool
	}{
		{"peek", func(s *Store[int]) (int, bool) { return s.Peek([]byte("a")) }, false},
		{"get", func(s *Store[int]) (int, bool) { return s.Get([]byte("a")) }, true},
	} {
		t.Run(look.name, func(t *testing.T) {
			t.Parallel()
			s := newStore[int](1<<20, 1)
			n := 0
			for ; s.Stats().Evictions == 0; n++ {
				require.True(t, put(s, string(rune('a'+n)), n, 100<<10))
				if v, ok := look.f(s); ok {
					require.Zero(t, v)
				}
			}
			require.Greater(t, n, 2)
			_, kept := s.Peek([]byte("a"))
			require.Equal(t, look.kept, kept)
			_, ok := s.Peek([]byte("none"))
			require.False(t, ok)
		})
	}
}
