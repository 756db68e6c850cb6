package balance

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAverage(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	type step struct {
		key     string
		outcome Outcome
		latency time.Duration
		after   time.Duration // since the step before
		times   int
	}
	for _, tt := range []struct {
		name     string
		steps    []step
		latency  time.Duration // of a
		failures float64
		delta    float64
	}{
		{"unknown", nil, 0, 0, 0},
		{"the first counts wholly", []step{{"a", Success, 10 * ms, 0, 1}}, 10 * ms, 0, 0},
		{"at once the next counts a 32nd", []step{{"a", Success, 10 * ms, 0, 1}, {"a", Success, 42 * ms, 0, 1}}, 11 * ms, 0, 0},
		{"after ten seconds 1-1/e", []step{{"a", Success, 10 * ms, 0, 1}, {"a", Success, 110 * ms, fade, 1}}, 73212055, 0, 0},
		{"after long all", []step{{"a", Success, 10 * ms, 0, 1}, {"a", Success, 110 * ms, time.Hour, 1}}, 110 * ms, 0, 0},
		{"many in a short time", []step{{"a", Success, 10 * ms, 0, 1}, {"a", Success, 110 * ms, 0, 200}}, 110 * ms, 0, 0.2e6},
		{"from before the last", []step{{"a", Success, 10 * ms, time.Second, 1}, {"a", Success, 42 * ms, -time.Second, 1}}, 11 * ms, 0, 0},
		{"no time at all is known", []step{{"a", Success, 0, 0, 1}}, 1, 0, 0},
		{"neutral is nothing", []step{{"a", Success, 10 * ms, 0, 1}, {"a", Neutral, time.Hour, fade, 100}}, 10 * ms, 0, 0},
		{"neutral before anything", []step{{"a", Neutral, time.Hour, 0, 1}}, 0, 0, 0},
		{"lost raises", []step{{"a", Success, 10 * ms, 0, 1}, {"a", Lost, 42 * ms, 0, 1}}, 11 * ms, 0, 0},
		{"lost lowers nothing", []step{{"a", Success, 10 * ms, 0, 1}, {"a", Lost, 1 * ms, fade, 9}}, 10 * ms, 0, 0},
		{"lost is known at least", []step{{"a", Lost, 10 * ms, 0, 1}}, 10 * ms, 0, 0},
		{"but not better than who is known", []step{{"b", Success, 30 * ms, 0, 1}, {"a", Lost, 10 * ms, 0, 1}}, 30 * ms, 0, 0},
		{"a failure alone tells nothing of latency", []step{{"a", Failure, 1 * ms, 0, 1}}, 0, 1.0 / 32, 0},
		{"a failure is as slow as the slowest", []step{{"b", Success, 330 * ms, 0, 1}, {"a", Success, 10 * ms, 0, 1}, {"a", Failure, 1, 0, 1}}, 20 * ms, 1.0 / 32, 0},
		{"or slower", []step{{"b", Success, 1 * ms, 0, 1}, {"a", Success, 10 * ms, 0, 1}, {"a", Failure, 330 * ms, 0, 1}}, 20 * ms, 1.0 / 32, 0},
		{"its own is known too", []step{{"a", Success, 10 * ms, 0, 1}, {"a", Failure, 1, 0, 1000}}, 10 * ms, 1, 0},
		{"what is known of others ages", []step{{"b", Success, 1000 * ms, 0, 1}, {"a", Success, 10 * ms, time.Hour, 1}, {"a", Failure, 1, 0, 1}}, 10 * ms, 1.0 / 32, 0},
		{"failures are forgotten", []step{{"b", Success, 1 * ms, 0, 1}, {"a", Failure, 1, 0, 1000}, {"a", Success, 1 * ms, fade, 1}}, 1 * ms, 0.368, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			now := time.Now().Add(time.Minute)
			s := newTestSet(Config{}, now, "a", "b")
			for _, step := range tt.steps {
				now = now.Add(step.after)
				e := s.All()[0]
				if step.key == "b" {
					e = s.All()[1]
				}
				require.Zero(t, attempts(e, step.times, step.outcome, step.latency, now))
			}
			got := s.All()[0].Status(now)
			require.InDelta(t, float64(tt.latency), float64(got.Latency), max(tt.delta, 1))
			require.InDelta(t, tt.failures, got.Failures, 0.001)
			require.Zero(t, got.InFlight)
		})
	}
}

func TestCosts(t *testing.T) {
	t.Parallel()
	const now = instant(time.Hour)
	known := func(latency time.Duration, share float64, idle time.Duration) *average {
		a := new(average)
		if latency > 0 {
			a.add(float64(latency), 0, now-instant(idle))
		}
		for range int(share * 1e4) {
			a.blame(now - instant(idle))
		}
		return a
	}
	for _, tt := range []struct {
		name  string
		a, b  *average
		ratio float64 // a's cost to b's
	}{
		{"nothing is known", known(0, 0, 0), known(0, 0, 0), 1},
		{"one is unknown", known(10, 0, 0), known(0, 0, 0), 1},
		{"fresh", known(1000, 0, 0), known(100, 0, 0), 10},
		{"the dearer fades into the other", known(1000, 0, fade), known(100, 0, fade), 1 + 9*0.36788},
		{"and never below it", known(1000, 0, time.Hour), known(100, 0, 0), 1},
		{"the cheaper does not fade", known(1000, 0, 0), known(100, 0, time.Hour), 10},
		{"failing is dear", known(100, 1, 0), known(100, 0, 0), 256},
		{"also where nothing else is known", known(0, 1, 0), known(0, 0, 0), 256},
		{"but not for ever", known(100, 1, time.Hour), known(100, 0, 0), 1},
	} {
		costA, costB := costs(tt.a, tt.b, now)
		require.InDelta(t, tt.ratio, costA/costB, 0.001, tt.name)
		costB, costA = costs(tt.b, tt.a, now)
		require.InDelta(t, tt.ratio, costA/costB, 0.001, tt.name)
	}
}

func TestHealthNames(t *testing.T) {
	t.Parallel()
	require.Equal(t, "healthy", Healthy.String())
	require.Equal(t, "ejected", Ejected.String())
	require.Equal(t, "unhealthy", Unhealthy.String())
}
