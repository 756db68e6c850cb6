package flight

import (
	"strconv"
	"sync"
	"testing"
	"time"
)

var benchKey = []byte("products|https://products.internal\x00GET\x00/api/v2/products/4711/variants?lang=en&currency=EUR")

// What a miss pays for a call that nobody follows.
func BenchmarkLead(b *testing.B) {
	now := time.Now()
	b.Run("end=share", func(b *testing.B) {
		g := NewGroup[*Flight]()
		f := New(Config{})
		b.ReportAllocs()
		for b.Loop() {
			c, _ := g.Join(benchKey, now)
			c.Share(f)
			c.Done()
			c.Abandon()
		}
	})
	b.Run("end=quit", func(b *testing.B) {
		g := NewGroup[*Flight]()
		b.ReportAllocs()
		for b.Loop() {
			c, _ := g.Join(benchKey, now)
			c.Quit()
			c.Abandon()
		}
	})
	b.Run("end=quit/parallel", func(b *testing.B) {
		g := NewGroup[*Flight]()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			key := strconv.AppendInt(append([]byte(nil), benchKey...), time.Now().UnixNano(), 10)
			for pb.Next() {
				c, _ := g.Join(key, now)
				c.Quit()
				c.Abandon()
			}
		})
	})
}

func BenchmarkAlone(b *testing.B) {
	now := time.Now()
	g := NewGroup[*Flight]()
	c, _ := g.Join(benchKey, now)
	c.Refuse(now, time.Minute)
	b.ReportAllocs()
	for b.Loop() {
		if _, role := g.Join(benchKey, now); role != Alone {
			b.Fatal(role)
		}
	}
}

// Who joins when the verdict is known waits for nothing.
func BenchmarkFollowShared(b *testing.B) {
	now := time.Now()
	g := NewGroup[*Flight]()
	c, _ := g.Join(benchKey, now)
	c.Share(New(Config{}))
	b.ReportAllocs()
	for b.Loop() {
		f, _ := g.Join(benchKey, now)
		if _, o := f.Wait(nil, time.Second); o != Shared {
			b.Fatal(o)
		}
	}
}

// A release of all at once, per follower, with its goroutine and timer.
func BenchmarkRelease(b *testing.B) {
	for _, followers := range []int{1, 100, 10_000} {
		b.Run("followers="+strconv.Itoa(followers), func(b *testing.B) {
			now := time.Now()
			g := NewGroup[*Flight]()
			b.ReportAllocs()
			for b.Loop() {
				c, _ := g.Join(benchKey, now)
				var wg sync.WaitGroup
				for range followers {
					f, _ := g.Join(benchKey, now)
					wg.Go(func() { f.Wait(nil, time.Minute) })
				}
				c.Share(nil)
				c.Done()
				wg.Wait()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*followers), "ns/follower")
		})
	}
}
