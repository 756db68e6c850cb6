package balance

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConfigureKeepsWhatIsKnownOfEndpoints(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := New[int](Config{Fall: 1, Rise: 1, Ejection: Ejection{Consecutive: 1, Base: time.Minute, MaxShare: 1}})
	added, _ := s.Replace([]Spec[int]{{Key: "a"}, {Key: "b"}, {Key: "c"}}, now)
	a, b, c := added[0], added[1], added[2]
	a.Begin()
	a.End(Failure, time.Millisecond, now)
	b.Checked(false, now)
	require.Equal(t, []Health{Ejected, Unhealthy, Healthy}, []Health{a.Health(), b.Health(), c.Health()})

	s.Configure(Config{Policy: RoundRobin, Fall: 3, Rise: 2, Ejection: Ejection{Consecutive: 2, Base: time.Minute, MaxShare: 1}})
	assert.Equal(t, []Health{Ejected, Unhealthy, Healthy}, []Health{a.Health(), b.Health(), c.Health()})
	for range 5 {
		assert.Same(t, c, s.Pick(0, nil, now))
	}
	b.Checked(true, now)
	assert.Equal(t, Unhealthy, b.Health(), "two in a row are asked for")
	b.Checked(true, now)
	assert.Equal(t, Healthy, b.Health())
	c.Begin()
	c.End(Failure, time.Millisecond, now)
	assert.Equal(t, Healthy, c.Health())

	s.Configure(Config{})
	assert.Equal(t, Healthy, a.Health(), "without ejection nobody is ejected")
	assert.Equal(t, 3, s.Fit(now))
	assert.EqualValues(t, 1, a.Status(now).Ejections)
}

func TestConfigureKeepsTheBreakersWindow(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var changes []State
	config := BreakerConfig{Ratio: 0.5, Volume: 10, Window: 10 * time.Second, Open: time.Second, Probes: 2, OnChange: func(_, to State) { changes = append(changes, to) }}
	b := NewBreaker(config)
	fail := func() {
		l, ok := b.Allow(now)
		require.True(t, ok)
		l.Done(Failure, now)
	}
	for range 3 {
		fail()
	}
	config.Volume = 4
	b.Configure(config)
	require.EqualValues(t, 3, b.Status(now).Failed)
	assert.Empty(t, changes)
	fail()
	require.Equal(t, Open, b.Status(now).State, "three before, and the fourth")

	config.Window, config.Open = time.Minute, time.Hour
	b.Configure(config)
	assert.Equal(t, time.Second, b.RetryAfter(now), "as long as it was to")
	now = now.Add(2 * time.Second)
	first, ok := b.Allow(now)
	require.True(t, ok)
	config.Probes = 1
	b.Configure(config)
	second, ok := b.Allow(now)
	require.True(t, ok, "two probes, as it began")
	first.Done(Success, now)
	second.Done(Success, now)
	assert.Equal(t, []State{Open, HalfOpen, Closed}, changes)

	fail()
	config.Window = 10 * time.Second
	b.Configure(config)
	assert.Zero(t, b.Status(now).Failed, "another window begins anew")
	assert.Equal(t, Closed, b.Status(now).State)

	config.Ratio, config.OnChange = 2, nil
	b.Configure(config)
	for range 100 {
		fail()
	}
	assert.Len(t, changes, 3, "one that never opens")
}
