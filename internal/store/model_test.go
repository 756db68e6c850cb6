package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// model is the store as anyone would write it first: a list, newest first.
type model struct {
	entries        []modelEntry
	max, reserved  int64
	perEntry       int64
	evictions, rej uint64
}

type modelEntry struct {
	key  string
	v    int
	cost int64
}

func (m *model) bytes() (n int64) {
	for _, e := range m.entries {
		n += e.cost
	}
	return n
}

func (m *model) find(key string) int {
	return slices.IndexFunc(m.entries, func(e modelEntry) bool { return e.key == key })
}

func (m *model) get(key string) (int, bool) {
	i := m.find(key)
	if i < 0 {
		return 0, false
	}
	e := m.entries[i]
	m.entries = slices.Insert(slices.Delete(m.entries, i, i+1), 0, e)
	return e.v, true
}

func (m *model) del(key string) (int, bool) {
	i := m.find(key)
	if i < 0 {
		return 0, false
	}
	v := m.entries[i].v
	m.entries = slices.Delete(m.entries, i, i+1)
	return v, true
}

func (m *model) update(key string, v int, size int64, keep bool) bool {
	cost := size + int64(len(key)) + m.perEntry
	m.del(key)
	switch {
	case !keep:
		return false
	case cost+m.reserved > m.max:
		m.rej++
		return false
	}
	m.entries = slices.Insert(m.entries, 0, modelEntry{key, v, cost})
	m.shrink()
	return true
}

func (m *model) reserve(n int64) bool {
	if m.reserved+n > m.max {
		m.rej++
		return false
	}
	m.reserved += n
	m.shrink()
	return true
}

func (m *model) shrink() {
	for m.bytes()+m.reserved > m.max {
		m.entries = m.entries[:len(m.entries)-1]
		m.evictions++
	}
}

// With one shard the store and the list agree on every answer, every eviction
// and every byte.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		s := newStore[int](rnd.Int64N(20_000), 1)
		m := &model{max: s.maxBytes, perEntry: s.perEntry}
		epochs := map[string]uint64{}
		for step := range 3000 {
			key := fmt.Sprint("key", rnd.IntN(60))
			at := fmt.Sprintf("seed %d step %d key %s", seed, step, key)
			switch op := rnd.IntN(20); {
			case op < 6:
				v, ok := s.Get([]byte(key))
				mv, mok := m.get(key)
				require.Equal(t, mok, ok, at)
				require.Equal(t, mv, v, at)
			case op < 12:
				size, keep := rnd.Int64N(1<<rnd.IntN(15)), rnd.IntN(10) > 0
				i := m.find(key)
				stored := s.Update([]byte(key), func(old int, ok bool) (int, int64, bool) {
					require.Equal(t, i >= 0, ok, at)
					if ok {
						require.Equal(t, m.entries[i].v, old, at)
					}
					return step, size, keep
				})
				require.Equal(t, m.update(key, step, size, keep), stored, at)
			case op < 13:
				epochs[key] = s.Epoch([]byte(key))
			case op < 14:
				epoch, ok := epochs[key]
				if !ok {
					continue
				}
				if s.Epoch([]byte(key)) == epoch {
					require.Equal(t, m.update(key, step, 50, true),
						s.UpdateSince(epoch, []byte(key), func(int, bool) (int, int64, bool) { return step, 50, true }), at)
				} else {
					require.False(t, s.UpdateSince(epoch, []byte(key), nil), at)
				}
			case op < 16:
				v, ok := s.Delete([]byte(key))
				mv, mok := m.del(key)
				require.Equal(t, mok, ok, at)
				require.Equal(t, mv, v, at)
			case op < 18:
				n := rnd.Int64N(4000)
				require.Equal(t, m.reserve(n), s.Reserve(n), at)
			case op < 19 || step%10 > 0:
				if m.reserved > 0 {
					n := 1 + rnd.Int64N(m.reserved)
					m.reserved -= n
					s.Release(n)
				}
			default:
				m.entries = nil
				s.Clear()
			}
			want := Stats{
				Entries: len(m.entries), Bytes: m.bytes(), Reserved: m.reserved, MaxBytes: m.max,
				Evictions: m.evictions, Rejected: m.rej,
			}
			if got := s.Stats(); got != want { // Equal is slow
				require.Equal(t, want, got, at)
			}
		}
		oldest := s.shards[0].lru.Values()
		require.Len(t, oldest, len(m.entries))
		for i, it := range oldest {
			e := m.entries[len(m.entries)-1-i]
			require.Equal(t, modelEntry{it.key, it.value, it.size}, e)
		}
		check(t, s)
	}
}
