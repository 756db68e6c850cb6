package store

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
)

type object struct{ body []byte }

func filled(n int) *Store[*object] {
	s := New[*object](1 << 30)
	for i := range n {
		put(s, keyOf(i), &object{}, 1024)
	}
	return s
}

func keyOf(i int) string { return "users\x00http://users:8000\x00/api/users/" + strconv.Itoa(i) }

// appendKey builds a key as callers do, on the stack.
func appendKey(dst []byte, i int) []byte {
	dst = append(dst, "users\x00http://users:8000\x00/api/users/"...)
	return strconv.AppendInt(dst, int64(i), 10)
}

func TestHitDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		return
	}
	s := filled(1000)
	i := 0
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		var buf [128]byte
		i++
		s.Get(appendKey(buf[:0], i%1000))
		s.Begin(appendKey(buf[:0], i%1000))
		s.Admit(1, appendKey(buf[:0], i%1000))
	}))
}

func TestReserveDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		return
	}
	s := filled(10)
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		if s.Reserve(1000) {
			s.Release(1000)
		}
	}))
}

// What the store says it holds is no less than what the heap holds for it, and
// not much more. Not parallel: it measures the heap.
func TestBytesAreWhatTheHeapHolds(t *testing.T) {
	if raceEnabled {
		return
	}
	for _, entries := range []int{1000, 50_000, 115_000} {
		for _, size := range []int{0, 1024} {
			t.Run(fmt.Sprintf("entries=%d/size=%d", entries, size), func(t *testing.T) {
				s := newStore[*object](1<<40, 1)
				before := heap()
				for i := range entries {
					o := &object{body: make([]byte, size)}
					put(s, keyOf(i), o, int64(size)+24)
				}
				used := heap() - before
				said := s.Stats().Bytes
				t.Logf("heap %d, said %d: %.2f", used, said, float64(used)/float64(said))
				assert.LessOrEqual(t, used, said+said/50+(16<<10), "the store understates")
				assert.GreaterOrEqual(t, used, said*4/5, "the store overstates")
				runtime.KeepAlive(s)
			})
		}
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkGet(b *testing.B) {
	for _, entries := range []int{100, 10_000} {
		s := filled(entries)
		for _, hit := range []bool{true, false} {
			first := 0
			if !hit {
				first = entries
			}
			b.Run(fmt.Sprintf("entries=%d/hit=%t", entries, hit), func(b *testing.B) {
				b.ReportAllocs()
				var buf [128]byte
				i := 0
				for b.Loop() {
					if _, ok := s.Get(appendKey(buf[:0], first+i)); ok != hit {
						b.Fatal(i)
					}
					if i++; i == entries {
						i = 0
					}
				}
			})
		}
	}
}

// Each key as often, and as requests come: most for few.
func BenchmarkGetParallel(b *testing.B) {
	const keys = 10_000
	for _, skewed := range []bool{false, true} {
		b.Run(fmt.Sprintf("skewed=%t", skewed), func(b *testing.B) {
			s := filled(keys)
			var workers atomic.Uint64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				order := make([]int, 1<<16)
				rnd := rand.New(rand.NewPCG(workers.Add(1), 1))
				zipf := rand.NewZipf(rnd, 1.1, 1, keys-1)
				for i := range order {
					if order[i] = rnd.IntN(keys); skewed {
						order[i] = int(zipf.Uint64())
					}
				}
				var buf [128]byte
				for i := 0; pb.Next(); i++ {
					s.Get(appendKey(buf[:0], order[i%len(order)]))
				}
			})
		})
	}
}

// What the collector has to mark for a million entries, beside their values.
func BenchmarkCollect(b *testing.B) {
	s := New[*object](1 << 40)
	o := &object{}
	for i := range 1_000_000 {
		put(s, keyOf(i), o, 100)
	}
	for b.Loop() {
		runtime.GC()
	}
	runtime.KeepAlive(s)
}

func BenchmarkUpdate(b *testing.B) {
	o := &object{}
	f := func(*object, bool) (Item[*object], bool) { return Item[*object]{Value: o, Size: 1024}, true }
	for _, evicting := range []bool{false, true} {
		b.Run(fmt.Sprintf("evicting=%t", evicting), func(b *testing.B) {
			s := New[*object](10 << 20)
			keys := 1000
			if evicting {
				keys = 100_000
			}
			b.ReportAllocs()
			var buf [128]byte
			i := 0
			for b.Loop() {
				s.Update(appendKey(buf[:0], i%keys), f)
				i++
			}
		})
	}
}

func BenchmarkReserve(b *testing.B) {
	s := New[*object](10 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if s.Reserve(1000) {
			s.Release(1000)
		}
	}
}
