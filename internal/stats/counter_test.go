package stats

import (
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestCounterCountsConcurrently(t *testing.T) {
	t.Parallel()
	var c Counter
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				c.Add(1)
				c.Add(2)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 8*3000, c.Load())
}

func TestCounterFillsItsCacheLine(t *testing.T) {
	t.Parallel()
	require.EqualValues(t, cacheLine, unsafe.Sizeof(Counter{}))
}

func BenchmarkCounterInc(b *testing.B) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var c Counter
		for pb.Next() {
			c.Add(1)
		}
	})
}
