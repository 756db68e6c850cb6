package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// model is the store as anyone would write it first: a list, newest first.
type model struct {
	s       *Store[int] // asked for hashes only
	entries []modelEntry
	scopes  map[Scope]*modelScope
	limit   int64
	reserve int64
	full    bool
	clock   int
	seen    map[uint64][]uint64 // by word of the doorkeeper, oldest first
	want    Stats               // what is counted up
}

type modelScope struct {
	share, reserved int64
	full            bool
}

type modelEntry struct {
	key   string
	item  Item[int]
	cost  int64
	dueAt int64 // when it is known to have expired
	seq   int
	used  int // the clock when it came to the front
}

func (m *model) bytes(id Scope) (n int64) {
	for _, e := range m.entries {
		if id == 0 || e.item.Scope == id {
			n += e.cost
		}
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
	if m.clock-e.used >= len(m.entries)/newestPart {
		m.clock++
		e.used = m.clock
		m.entries = slices.Insert(slices.Delete(m.entries, i, i+1), 0, e)
	}
	return e.item.Value, true
}

func (m *model) del(key string) (int, bool) {
	i := m.find(key)
	if i < 0 {
		return 0, false
	}
	v := m.entries[i].item.Value
	m.entries = slices.Delete(m.entries, i, i+1)
	return v, true
}

func (m *model) deleteFunc(match func(key string, v int) bool) int {
	n := len(m.entries)
	m.entries = slices.DeleteFunc(m.entries, func(e modelEntry) bool { return match(e.key, e.item.Value) })
	return n - len(m.entries)
}

func (m *model) update(key string, item Item[int], keep bool) bool {
	cost := item.Size + int64(len(key)) + m.s.perEntry
	m.del(key)
	sc := m.scopes[item.Scope]
	switch {
	case !keep:
		return false
	case cost+m.reserve > m.limit, sc != nil && cost+sc.reserved > sc.share:
		m.want.Rejected++
		return false
	}
	now := time.Now().Unix()
	m.clock++
	m.entries = slices.Insert(m.entries, 0, modelEntry{key, item, cost, max(now, item.Expires), item.Value, m.clock})
	m.shrink()
	return true
}

func (m *model) take(id Scope, n int64) bool {
	sc := m.scopes[id]
	if m.reserve+n > m.limit || sc != nil && sc.reserved+n > sc.share {
		m.want.Rejected++
		return false
	}
	m.reserve += n
	if sc != nil {
		sc.reserved += n
	}
	m.shrink()
	return true
}

func (m *model) release(id Scope, n int64) {
	m.reserve -= n
	if sc := m.scopes[id]; sc != nil {
		sc.reserved -= n
	}
}

func (m *model) shrink() {
	for id, sc := range m.scopes {
		for m.bytes(id)+sc.reserved > sc.share {
			sc.full = true
			i := len(m.entries) - 1
			for m.entries[i].item.Scope != id {
				i--
			}
			m.entries = slices.Delete(m.entries, i, i+1)
			m.want.Evicted.Share++
		}
	}
	for m.bytes(0)+m.reserve > m.limit {
		if i := m.expired(); i >= 0 {
			m.entries = slices.Delete(m.entries, i, i+1)
			m.want.Evicted.Expired++
			continue
		}
		m.entries = m.entries[:len(m.entries)-1]
		m.want.Evicted.Size++
		m.full = true
	}
}

// expired returns which entry expired first.
func (m *model) expired() int {
	first := -1
	for i, e := range m.entries {
		if e.item.Expires == 0 || e.item.Expires > time.Now().Unix() {
			continue
		}
		if first < 0 || e.dueAt < m.entries[first].dueAt || e.dueAt == m.entries[first].dueAt && e.seq < m.entries[first].seq {
			first = i
		}
	}
	return first
}

func (m *model) admit(id Scope, key string) bool {
	if m.bytes(0)+m.reserve <= m.limit-m.limit/4 {
		m.full = false
	}
	full := m.full
	if sc := m.scopes[id]; sc != nil && !full {
		if m.bytes(id)+sc.reserved <= sc.share-sc.share/4 {
			sc.full = false
		}
		full = sc.full
	}
	if !full || m.find(key) >= 0 || len(m.s.door.words) == 0 {
		return true
	}
	hash, _ := m.s.shard([]byte(key))
	word, mark := hash>>8&uint64(len(m.s.door.words)-1), max(hash>>48, 1)
	if slices.Contains(m.seen[word], mark) {
		return true
	}
	m.seen[word] = append(m.seen[word], mark)
	m.seen[word] = m.seen[word][max(0, len(m.seen[word])-4):]
	m.want.NotAdmitted++
	return false
}

func (m *model) stats() Stats {
	st := m.want
	st.Entries, st.Bytes, st.Reserved = len(m.entries), m.bytes(0), m.reserve
	st.MaxBytes, st.Budget = m.s.maxBytes, m.limit
	st.Evictions = st.Evicted.Size + st.Evicted.Share + st.Evicted.Expired
	return st
}

// With one shard the store and the list agree on every answer, every eviction
// and every byte.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) { againstModel(t, seed) })
	}
}

func againstModel(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	s := newStore[int](rnd.Int64N(30_000), 1)
	m := &model{s: s, limit: s.limit, scopes: map[Scope]*modelScope{}, seen: map[uint64][]uint64{}}
	share := func(id Scope) {
		n := rnd.Int64N(10_000)
		if m.scopes[id] == nil {
			m.scopes[id] = &modelScope{}
		}
		if reserved := m.scopes[id].reserved; n < reserved { // whom nothing can help
			n = reserved
		}
		m.scopes[id].share = n
		m.shrink()
		s.SetShare(id, n)
	}
	share(1)
	share(3)
	begun := map[string]Since{}
	purged := map[string]bool{} // since then
	for step := range 4000 {
		key, id := fmt.Sprint("key", rnd.IntN(60)), Scope(rnd.IntN(4)) // 2 has no share
		at := fmt.Sprintf("seed %d step %d key %s", seed, step, key)
		item := Item[int]{Value: step, Size: rnd.Int64N(1 << rnd.IntN(13)), Scope: id}
		if rnd.IntN(2) == 0 {
			item.Expires = time.Now().Unix() + rnd.Int64N(buckets) - 2
		}
		match := func(k string, v int) bool { return v%7 == step%7 && k > key }
		switch op := rnd.IntN(26); {
		case op < 6:
			v, ok := s.Get([]byte(key))
			mv, mok := m.get(key)
			require.Equal(t, mok, ok, at)
			require.Equal(t, mv, v, at)
		case op < 12:
			keep, i := rnd.IntN(10) > 0, m.find(key)
			stored := s.Update([]byte(key), func(old int, ok bool) (Item[int], bool) {
				require.Equal(t, i >= 0, ok, at)
				if ok {
					require.Equal(t, m.entries[i].item.Value, old, at)
				}
				return item, keep
			})
			require.Equal(t, m.update(key, item, keep), stored, at)
			purged[key] = purged[key] || i >= 0 && !stored
		case op < 13:
			begun[key], purged[key] = s.Begin([]byte(key)), false
		case op < 14:
			since, ok := begun[key]
			if !ok {
				continue
			}
			f := func(int, bool) (Item[int], bool) { return Item[int]{Value: -1}, true }
			crowded := s.Begin([]byte(key)).epoch-since.epoch > lately
			if !purged[key] && !crowded && s.purges.last.Load()-since.purge <= maxPurges {
				require.Equal(t, m.update(key, Item[int]{Value: -1}, true), s.UpdateSince(since, []byte(key), f), at)
			} else {
				require.False(t, s.UpdateSince(since, []byte(key), f), at)
			}
		case op < 16:
			v, ok := s.Delete([]byte(key))
			mv, mok := m.del(key)
			purged[key] = true
			require.Equal(t, mok, ok, at)
			require.Equal(t, mv, v, at)
		case op < 18:
			n := rnd.Int64N(4000)
			require.Equal(t, m.take(id, n), s.ReserveFor(id, n), at)
		case op < 20:
			most := m.reserve
			for other, sc := range m.scopes {
				if most -= sc.reserved; other == id {
					most = sc.reserved
					break
				}
			}
			if sc := m.scopes[id]; sc != nil {
				most = sc.reserved
			}
			if most > 0 {
				n := 1 + rnd.Int64N(most)
				m.release(id, n)
				s.ReleaseFor(id, n)
			}
		case op < 22:
			require.Equal(t, m.admit(id, key), s.Admit(id, []byte(key)), at)
		case op < 23:
			time.Sleep(time.Duration(rnd.IntN(5000)) * time.Millisecond)
		case op < 24:
			if id == 1 || id == 3 {
				share(id)
			}
		case op < 25:
			require.Equal(t, m.deleteFunc(match), s.Purge(match), at)
			for k := range begun {
				purged[k] = purged[k] || match(k, -1)
			}
		case step%10 == 0:
			m.entries = nil
			s.Clear()
		}
		if got := s.Stats(); got != m.stats() { // Equal is slow
			require.Equal(t, m.stats(), got, at)
		}
	}
	oldest := s.shards[0].lru.Values()
	require.Len(t, oldest, len(m.entries))
	for i, id := range oldest {
		want, e := m.entries[len(m.entries)-1-i], s.shards[0].at(id)
		require.Equal(t, want.key, e.key)
		require.Equal(t, want.item.Value, e.value)
		require.Equal(t, want.cost, e.size)
	}
	for id, sc := range m.scopes {
		used, share := s.Share(id)
		require.Equal(t, m.bytes(id)+sc.reserved, used)
		require.Equal(t, sc.share, share)
	}
	check(t, s)
}
