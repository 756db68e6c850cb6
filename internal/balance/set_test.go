package balance

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func keysOf[T any](all []*Endpoint[T]) (keys []string) {
	for _, e := range all {
		keys = append(keys, e.Key)
	}
	return keys
}

func TestReplaceKeepsWhatStays(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := New[string](Config{})
	made := 0
	spec := func(key string, weight int) Spec[string] {
		return Spec[string]{Key: key, Weight: weight, Make: func() string { made++; return "value of " + key }}
	}

	added, removed := s.Replace([]Spec[string]{spec("a", 0), spec("b", 2), spec("a", 7)}, now)
	require.Equal(t, []string{"a", "b"}, keysOf(added))
	require.Empty(t, removed)
	require.Equal(t, 2, made, "a key that occurs again makes nothing")
	a, b := s.All()[0], s.All()[1]
	require.Equal(t, "value of b", b.Value)
	require.InDelta(t, 1, a.Status(now).Weight, 0)
	require.InDelta(t, 2, b.Status(now).Weight, 0)

	b.Begin()
	b.Checked(false, now)
	added, removed = s.Replace([]Spec[string]{spec("c", 1), spec("b", 5)}, now)
	require.Equal(t, []string{"c"}, keysOf(added))
	require.Equal(t, []*Endpoint[string]{a}, removed)
	require.Same(t, b, s.All()[1])
	require.Equal(t, 3, made)
	status := b.Status(now)
	require.Equal(t, Unhealthy, status.Health)
	require.EqualValues(t, 1, status.InFlight)
	require.InDelta(t, 5, status.Weight, 0)

	a.Begin() // what is in flight at a removed one goes on
	require.Zero(t, a.End(Failure, time.Second, now))
	require.Zero(t, b.End(Success, time.Second, now))

	_, removed = s.Replace(nil, now)
	require.Len(t, removed, 2)
	require.Nil(t, s.Pick(0, nil, now))
	added, _ = s.Replace([]Spec[string]{{Key: "b"}}, now)
	require.NotSame(t, b, added[0], "who comes back is new")
	require.Empty(t, added[0].Value, "nothing made it")
}

func TestReplaceAsksNothingOfAPanic(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newTestSet(Config{}, now, "a", "b")
	require.Panics(t, func() {
		s.Replace([]Spec[int]{{Key: "b", Weight: 9}, {Key: "c", Make: func() int { panic("no") }}}, now)
	})
	require.Equal(t, []string{"a", "b"}, keysOf(s.All()))
	require.InDelta(t, 1, s.All()[1].Status(now).Weight, 0)
	_, removed := s.Replace(specsOf("b"), now)
	require.Len(t, removed, 1)
}

func TestAllCannotBeAppendedTo(t *testing.T) {
	t.Parallel()
	s := newTestSet(Config{}, time.Now(), "a", "b", "c")
	_ = append(s.All()[:2], nil)
	all := s.All()
	require.Equal(t, len(all), cap(all))
}

func TestRemovedEndpointsTakeNoRoom(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newTestSet(Config{Ejection: Ejection{Consecutive: 1, Base: time.Second, MaxShare: 0.5}}, now, "a", "b")
	a, b := s.All()[0], s.All()[1]
	s.Replace(specsOf("b", "c"), now)
	require.False(t, attempt(a, Failure, 1, now), "is not ejected from where it is not")
	require.True(t, attempt(b, Failure, 1, now))
	require.True(t, attempt(s.All()[1], Failure, 1, now), "in b's place")
	s.Replace(specsOf("d", "e"), now)
	require.Zero(t, s.suspect.Load())
	require.True(t, attempt(s.All()[0], Failure, 1, now))
}
