package store

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func prefix(p string) func(string, int) bool {
	return func(key string, _ int) bool { return strings.HasPrefix(key, p) }
}

func storeSince(s *Store[int], since Since, key string, v int) bool {
	return s.UpdateSince(since, []byte(key), func(int, bool) (Item[int], bool) { return Item[int]{Value: v}, true })
}

func TestDeleteFunc(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{1, 8} {
		s := newStore[int](64<<20, shards)
		s.SetShare(1, 10<<20)
		for i := range 20_000 {
			require.True(t, putIn(s, Scope(i%2), fmt.Sprint("a", i), 10))
			require.True(t, put(s, fmt.Sprint("b", i), i, 10))
		}
		since := s.Begin([]byte("a1"))
		assert.Equal(t, 20_000, s.DeleteFunc(prefix("a")))
		assert.Equal(t, 20_000, s.Stats().Entries)
		assert.Zero(t, s.Stats().Evictions)
		assert.True(t, storeSince(s, since, "a1", 1), "it remembers nothing")
		assert.Equal(t, 19_997, s.DeleteFunc(func(_ string, v int) bool { return v >= 2 && v != 77 }))
		check(t, s)
		assert.Equal(t, 4, s.DeleteFunc(prefix("")), "b0, b1, b77, a1")
		assert.Zero(t, s.Stats().Bytes)
		used, _ := s.Share(1)
		assert.Zero(t, used)
	}
}

func TestPurge(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		do     func(s *Store[int])
		stored bool
	}{
		{"nothing", func(*Store[int]) {}, true},
		{"its key", func(s *Store[int]) { s.Purge(prefix("key")) }, false},
		{"its new value", func(s *Store[int]) { s.Purge(func(_ string, v int) bool { return v == 2 }) }, false},
		{"its old value", func(s *Store[int]) { s.Purge(func(_ string, v int) bool { return v == 1 }) }, true},
		{"others", func(s *Store[int]) { s.Purge(prefix("other")) }, true},
		{"its key, then 63 others", func(s *Store[int]) { s.Purge(prefix("key")); purgeOthers(s, 63) }, false},
		{"64 others", func(s *Store[int]) { purgeOthers(s, 64) }, true},
		{"65 others: nobody knows", func(s *Store[int]) { purgeOthers(s, 65) }, false},
		{"replaced", func(s *Store[int]) { s.Replace(func(string, int) (int, bool) { return 9, true }) }, false},
		{"others replaced", func(s *Store[int]) { s.Replace(func(_ string, v int) (int, bool) { return 9, v == 5 }) }, true},
	}
	for _, tt := range tests {
		for _, present := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/present=%t", tt.name, present), func(t *testing.T) {
				t.Parallel()
				s := newStore[int](1<<20, 4)
				if present {
					put(s, "key", 1, 0)
				}
				since := s.Begin([]byte("key"))
				tt.do(s)
				was, had := s.Get([]byte("key"))
				assert.Equal(t, tt.stored, storeSince(s, since, "key", 2))
				is, ok := s.Get([]byte("key"))
				if tt.stored {
					was, had = 2, true
				}
				assert.Equal(t, []any{was, had}, []any{is, ok}, "what is refused changes nothing")
				assert.True(t, storeSince(s, s.Begin([]byte("key")), "key", 2), "begun after it")
				check(t, s)
			})
		}
	}
}

func purgeOthers(s *Store[int], n int) {
	for range n {
		s.Purge(prefix("other"))
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	s := newStore[int](1<<20, 4)
	for i := range 1000 {
		put(s, fmt.Sprint(i), i, 10)
	}
	before := s.Stats()
	assert.Equal(t, 500, s.Replace(func(_ string, v int) (int, bool) { return -v, v%2 == 1 }))
	for i := range 1000 {
		want := i
		if i%2 == 1 {
			want = -i
		}
		require.Equal(t, want, get(t, s, fmt.Sprint(i)))
	}
	assert.Equal(t, before, s.Stats())
}

// Whatever was begun before a purge is gone after it, however they meet.
func TestPurgeMeetsFetches(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{1, 8} {
		s := newStore[int](1<<20, shards)
		var wg sync.WaitGroup
		for range 50 {
			begun := make([]Since, 200)
			for i := range begun {
				begun[i] = s.Begin([]byte(scopeKey(1, i)))
			}
			for part := range 2 {
				wg.Go(func() {
					for i := part; i < len(begun); i += 2 {
						storeSince(s, begun[i], scopeKey(1, i), 1)
					}
				})
			}
			wg.Go(func() { s.Purge(prefix("scope1")) })
			wg.Wait()
			require.Zero(t, countOf(s, 1))
		}
		check(t, s)
	}
}

// A purge of many holds no lock for long: hits go on beside it.
func TestHitsGoOnBesideAPurge(t *testing.T) {
	t.Parallel()
	s := newStore[int](1<<30, 1)
	const entries = 100_000
	for i := range entries {
		put(s, fmt.Sprint(i), i, 0)
	}
	put(s, "hot", 1, 0)
	var hits int
	step := make(chan struct{})
	done := make(chan int)
	go func() {
		scanned := 0
		done <- s.Purge(func(key string, _ int) bool {
			if scanned++; scanned%(10*chunkLen) == 0 {
				select { // nobody takes it but between two hits
				case step <- struct{}{}:
				case <-time.After(time.Minute):
				}
			}
			return key != "hot"
		})
	}()
	for {
		select {
		case <-step:
			if has(s, "hot") {
				hits++
			}
			continue
		case n := <-done:
			assert.Equal(t, entries, n)
		}
		break
	}
	assert.Greater(t, hits, 30, "hits while it ran")
	assert.Equal(t, 1, s.Stats().Entries)
	assert.Less(t, s.shards[0].slots, uint32(chunkLen), "the slots are given back")
	check(t, s)
}

func TestPanicInPurgeLeavesTheStoreUsable(t *testing.T) {
	t.Parallel()
	s := New[int](1 << 20)
	put(s, "k", 1, 5)
	assert.Panics(t, func() { s.DeleteFunc(func(string, int) bool { panic("boom") }) })
	assert.Equal(t, 1, get(t, s, "k"))
	check(t, s)
}

// Giving slots back changes nothing else.
func TestTidy(t *testing.T) {
	t.Parallel()
	s := newStore[int](1<<30, 1)
	s.SetShare(1, 1<<29)
	const entries = 20_000
	for i := range entries {
		s.Update(fmt.Append(nil, i), func(int, bool) (Item[int], bool) {
			return Item[int]{Value: i, Scope: Scope(i % 2), Expires: int64(i%3) * 1000}, true
		})
	}
	require.EqualValues(t, entries, s.shards[0].slots)
	kept := s.Stats().Entries - s.DeleteFunc(func(_ string, v int) bool { return v%100 != 99 })
	assert.EqualValues(t, kept, s.shards[0].slots)
	check(t, s)
	assert.Equal(t, 99, s.shards[0].at(s.shards[0].oldestOf(1)).value)
	for i := range entries {
		v, ok := s.Get(fmt.Append(nil, i))
		require.Equal(t, i%100 == 99, ok)
		require.True(t, !ok || v == i)
	}
	assert.NotZero(t, s.shards[0].expired(time.Now().Unix()))
}
