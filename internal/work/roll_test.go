package work

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
)

type guest struct {
	place Place[*guest]
	name  int
	seen  atomic.Int64
}

func names(r *Roll[*guest]) (all []int) {
	r.Each(func(g *guest) { all = append(all, g.name) })
	slices.Sort(all)
	return all
}

func TestRollKnowsWhoIsUnderWay(t *testing.T) {
	t.Parallel()
	var r Roll[*guest]
	assert.Empty(t, names(&r))
	const n = 300 // several to a shard
	guests := make([]guest, n)
	var want []int
	for i := range guests {
		guests[i].name = i
		r.Join(&guests[i].place, &guests[i])
		want = append(want, i)
	}
	assert.Equal(t, want, names(&r))
	for i := range guests {
		if i%3 != 0 {
			guests[i].place.Leave()
			guests[i].place.Leave() // is nothing
		}
	}
	assert.Equal(t, slices.DeleteFunc(want, func(i int) bool { return i%3 != 0 }), names(&r))
	r.Join(&guests[1].place, &guests[1])
	assert.Contains(t, names(&r), 1)
	for i := range guests {
		guests[i].place.Leave()
	}
	assert.Empty(t, names(&r))
}

func TestWhoHasLeftTheRollIsNotLookedAt(t *testing.T) {
	t.Parallel()
	var r Roll[*guest]
	var comings, look sync.WaitGroup
	stop := make(chan struct{})
	look.Go(func() {
		for {
			r.Each(func(g *guest) { g.seen.Add(int64(g.name)) })
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for range 4 {
		comings.Go(func() {
			var g guest
			for i := range 2000 {
				g.name = i // which the race detector watches
				r.Join(&g.place, &g)
				g.place.Leave()
			}
		})
	}
	comings.Wait()
	close(stop)
	look.Wait()
}

func TestRollLooksOnAfterAPanic(t *testing.T) {
	t.Parallel()
	var r Roll[*guest]
	var g guest
	r.Join(&g.place, &g)
	assert.Panics(t, func() { r.Each(func(*guest) { panic("no") }) })
	assert.Len(t, names(&r), 1)
}

func BenchmarkRoll(b *testing.B) {
	var r Roll[*guest]
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var g guest
		for pb.Next() {
			r.Join(&g.place, &g)
			g.place.Leave()
		}
	})
}
