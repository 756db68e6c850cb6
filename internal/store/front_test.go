package store

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Whatever takes a value away or puts another in its place: a Get that begins
// afterwards does not find it, though it asks no lock.
func TestNobodyFindsWhatWentBefore(t *testing.T) {
	t.Parallel()
	const keys, rounds = 8, 400
	for name, drop := range map[string]func(s *Store[int], key string, v int){
		"delete": func(s *Store[int], key string, _ int) { s.Delete([]byte(key)) },
		"clear":  func(s *Store[int], _ string, _ int) { s.Clear() },
		"purge": func(s *Store[int], key string, v int) {
			s.Purge(func(k string, old int) bool { return k == key && old <= v })
		},
		"update": func(s *Store[int], key string, v int) { put(s, key, v+1, 10) },
		"replace": func(s *Store[int], key string, v int) {
			s.Replace(func(k string, old int) (int, bool) { return v + 1, k == key && old <= v })
		},
		"refuse": func(s *Store[int], key string, _ int) {
			s.Update([]byte(key), func(int, bool) (Item[int], bool) { return Item[int]{}, false })
		},
		"evict": func(s *Store[int], _ string, _ int) {
			for !s.Reserve(s.limit) { // all of it, which one at a time can
				runtime.Gosched()
			}
			s.Release(s.limit)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore[int](1<<20, 2)
			var least [keys]atomic.Int64 // nothing below was left when it was set
			var done atomic.Bool
			var readers, writers sync.WaitGroup
			for r := range 4 {
				readers.Go(func() {
					for i := r; !done.Load(); i++ {
						k := i % keys
						floor := least[k].Load()
						if v, ok := s.Get([]byte(keyNumber(k))); ok && int64(v) < floor {
							t.Errorf("key %d: got %d after %d had gone", k, v, floor-1)
							return
						}
					}
				})
			}
			for k := range keys {
				writers.Go(func() {
					for v := 0; v < rounds; v += 2 {
						put(s, keyNumber(k), v, 10)
						s.Get([]byte(keyNumber(k)))
						drop(s, keyNumber(k), v)
						if got, ok := s.Get([]byte(keyNumber(k))); ok && got <= v {
							t.Errorf("key %d: got %d, which had gone", k, got)
							return
						}
						least[k].Store(int64(v + 1))
					}
				})
			}
			writers.Wait()
			done.Store(true)
			readers.Wait()
			check(t, s)
		})
	}
}

func keyNumber(k int) string { return fmt.Sprint("key ", k) }

// A place in front is the place of more than one key.
func TestFrontTellsKeysApart(t *testing.T) {
	t.Parallel()
	s := newStore[int](64<<10, 1)
	n := 10 * len(s.front)
	for i := range n {
		put(s, fmt.Sprint(i), i, 0)
	}
	for range 2 {
		for i := range n {
			if v, ok := s.Get(fmt.Append(nil, i)); ok {
				assert.Equal(t, i, v)
			}
		}
	}
	s.Clear()
	for i := range s.front {
		assert.Nil(t, s.front[i].Load())
	}
}
