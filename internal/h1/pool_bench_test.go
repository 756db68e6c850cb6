package h1

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestReuseAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return
	}
	p, e := testPool(t, PoolConfig{Max: 2, IdleTimeout: time.Minute, MaxAge: time.Hour})
	p.put(mustGet(t, p), time.Now())
	assert.Zero(t, testing.AllocsPerRun(100, func() { p.put(p.tryGet(), time.Now()) }))
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		c, _ := p.get(context.Background())
		p.put(c, time.Now())
	}), "no wait")
	endPool(t, p, e)
}

func BenchmarkReuse(b *testing.B) {
	config := PoolConfig{Max: 64, IdleTimeout: time.Minute, MaxAge: time.Hour}
	b.Run("callers=1", func(b *testing.B) {
		p, e := testPool(b, config)
		p.put(mustGet(b, p), time.Now())
		b.ReportAllocs()
		for b.Loop() {
			p.put(p.tryGet(), time.Now())
		}
		endPool(b, p, e)
	})
	b.Run("callers=64", func(b *testing.B) {
		p, e := testPool(b, config)
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c := p.tryGet()
				if c == nil {
					c, _ = p.get(context.Background())
				}
				p.put(c, time.Now())
			}
		})
		endPool(b, p, e)
	})
	b.Run("wait=handover", func(b *testing.B) { // the slow way: each get waits for the other's put
		config := config
		config.Max, config.AcquireTimeout = 1, time.Minute
		p, e := testPool(b, config)
		b.ReportAllocs()
		b.SetParallelism(4)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c, _ := p.get(context.Background())
				p.put(c, time.Now())
			}
		})
		endPool(b, p, e)
	})
}
