package balance

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRiseAndFall(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		rise, fall int
		checks     string // + passes, - fails
		changes    string // ^ becomes healthy, v unhealthy
	}{
		{"starts out healthy", 2, 3, "++++", "    "},
		{"falls after three", 2, 3, "---", "  v"},
		{"in a row", 2, 3, "--+--+--", "        "},
		{"rises after two", 2, 3, "---++", "  v ^"},
		{"in a row", 2, 3, "---+-+-+-", "  v      "},
		{"flaps by halves", 2, 3, "-+-+-+-+-+-+-+", "              "},
		{"flaps slower", 2, 2, "--++--++", " v ^ v ^"},
		{"at once", 1, 1, "+-+-", " v^v"},
		{"less than one is one", 0, -1, "-+", "v^"},
		{"stays down", 2, 2, "------", " v    "},
	} {
		now := time.Now()
		s := newTestSet(Config{Rise: tt.rise, Fall: tt.fall}, now, "a", "b")
		e := s.All()[0]
		var got []byte
		for _, c := range tt.checks {
			change := byte(' ')
			if changed, _ := e.Checked(c == '+', now); changed {
				change = 'v'
				if e.Health() == Healthy {
					change = '^'
				}
			}
			got = append(got, change)
			require.Equal(t, e.Health() == Unhealthy, s.suspect.Load() == 1)
		}
		require.Equal(t, tt.changes, string(got), tt.name)
	}
}

func TestFlappingIsNotFollowed(t *testing.T) {
	t.Parallel()
	const rise, fall = 3, 2
	random := rand.New(rand.NewPCG(1, 1))
	now := time.Now()
	s := newTestSet(Config{Rise: rise, Fall: fall}, now, "a", "b")
	e := s.All()[0]
	since := rise
	for range 100_000 {
		since++
		if changed, _ := e.Checked(random.IntN(2) == 0, now); changed {
			if e.Health() == Healthy {
				require.GreaterOrEqual(t, since, rise)
			} else {
				require.GreaterOrEqual(t, since, fall)
			}
			since = 0
		}
	}
}

func TestChecksAndEjection(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newTestSet(Config{Ejection: consecutive}, now, "a", "b")
	e := s.All()[0]
	attempts(e, 5, Failure, 1, now)
	changed, back := e.Checked(true, now)
	require.False(t, changed)
	require.Zero(t, back)
	require.Equal(t, Ejected, e.Health(), "checks pass, attempts fail: it stays ejected")

	changed, back = e.Checked(false, now)
	require.True(t, changed)
	require.Zero(t, back)
	require.Equal(t, Unhealthy, e.Health())
	now = now.Add(base)
	require.Equal(t, 1, s.Fit(now), "its time is over, but it is unhealthy")
	require.Same(t, s.All()[1], s.Pick(0, nil, now))

	now = now.Add(-base / 2)
	changed, back = e.Checked(true, now)
	require.True(t, changed)
	require.Equal(t, Change{Recovery, base / 2}, back)
	require.Equal(t, Healthy, e.Health(), "who rises is free")
	require.Equal(t, 2, s.Fit(now))

	e.Checked(false, now)
	_, back = e.Checked(true, now)
	require.Zero(t, back, "it was not ejected")
}

func TestChecksNext(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		checks   Checks
		healthy  bool
		from, to time.Duration
	}{
		{"healthy", Checks{Interval: 10 * time.Second, Fast: time.Second}, true, 10 * time.Second, 10 * time.Second},
		{"unhealthy", Checks{Interval: 10 * time.Second, Fast: time.Second}, false, time.Second, time.Second},
		{"no other for unhealthy ones", Checks{Interval: 10 * time.Second}, false, 10 * time.Second, 10 * time.Second},
		{"fast is not slow", Checks{Interval: 10 * time.Second, Fast: time.Minute}, false, 10 * time.Second, 10 * time.Second},
		{"jitter", Checks{Interval: 10 * time.Second, Jitter: 0.2}, true, 8 * time.Second, 12 * time.Second},
		{"of both", Checks{Interval: 10 * time.Second, Fast: time.Second, Jitter: 0.2}, false, 800 * time.Millisecond, 1200 * time.Millisecond},
		{"too much", Checks{Interval: 10 * time.Second, Jitter: 7}, true, time.Second, 19 * time.Second},
		{"negative", Checks{Interval: 10 * time.Second, Jitter: -1}, true, 10 * time.Second, 10 * time.Second},
		{"not a number", Checks{Interval: 10 * time.Second, Jitter: math.NaN()}, true, 10 * time.Second, 10 * time.Second},
	} {
		least, most := time.Duration(math.MaxInt64), time.Duration(0)
		for range 1000 {
			d := tt.checks.Next(tt.healthy)
			least, most = min(least, d), max(most, d)
		}
		require.GreaterOrEqual(t, least, tt.from, tt.name)
		require.LessOrEqual(t, most, tt.to, tt.name)
		require.GreaterOrEqual(t, most-least, (tt.to-tt.from)/2, tt.name)
	}
}
