package telemetry

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSumsGoOnWhileWatchesComeAndGo(t *testing.T) {
	r := newRig(t)
	counts := map[*Watch]*uint64{}
	watch := func(n uint64) *Watch {
		w, err := r.ObserveCache(func() CacheState { return CacheState{Entries: 3, Collapsed: n} })
		require.NoError(t, err)
		counts[w] = &n
		t.Cleanup(w.Stop)
		return w
	}
	a, b, c := watch(5), watch(7), watch(100)
	var l Ledger
	read := func(are ...*Watch) (collapsed, entries float64) {
		l.Read(are, func(s *Sample) {
			switch s.Name {
			case "gateway_cache_collapsed_total":
				collapsed += s.Value
			case "gateway_cache_entries":
				entries += s.Value
			}
		})
		return collapsed, entries
	}
	for _, step := range []struct {
		name      string
		were, are []*Watch
		collapsed float64
		entries   float64
	}{
		{"the first", nil, []*Watch{a, b}, 12, 6},
		{"one goes", []*Watch{a, b}, []*Watch{a}, 12, 3},
		{"another comes, and its past is not ours", []*Watch{a}, []*Watch{a, c}, 12, 6},
		{"it stays, the first goes", []*Watch{a, c}, []*Watch{c}, 12, 3},
		{"none is left", []*Watch{c}, nil, 0, 0},
		{"it begins anew", nil, []*Watch{c}, 100, 3},
	} {
		l.Change(step.were, step.are)
		collapsed, entries := read(step.are...)
		assert.InDelta(t, step.collapsed, collapsed, 0, step.name)
		assert.InDelta(t, step.entries, entries, 0, "%s: what is no count is as it is", step.name)
	}
	l.Change([]*Watch{c}, []*Watch{c, a})
	*counts[a] += 2
	collapsed, _ := read(c, a)
	assert.InDelta(t, 102, collapsed, 0, "what it counts from then on is")
}
