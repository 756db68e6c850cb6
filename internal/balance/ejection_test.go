package balance

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const base = 10 * time.Second

var consecutive = Ejection{Consecutive: 5, Base: base, Max: 8 * base, MaxShare: 0.5}

func TestConsecutiveFailuresEject(t *testing.T) {
	t.Parallel()
	type run struct {
		n int
		Outcome
	}
	for _, tt := range []struct {
		name    string
		runs    []run
		ejected bool
	}{
		{"one too few", []run{{4, Failure}}, false},
		{"enough", []run{{5, Failure}}, true},
		{"a success between", []run{{4, Failure}, {1, Success}, {4, Failure}}, false},
		{"neutral is not between", []run{{4, Failure}, {1, Neutral}, {1, Failure}}, true},
		{"nor is lost", []run{{4, Failure}, {9, Lost}, {1, Failure}}, true},
		{"clients that leave and 4xx", []run{{10_000, Neutral}}, false}, // an abuse must not take an endpoint out
		{"hedges that lose", []run{{10_000, Lost}}, false},
	} {
		now := time.Now()
		s := newTestSet(Config{Ejection: consecutive}, now, "a", "b")
		e := s.All()[0]
		before := e.Status(now)
		changes := 0
		for _, r := range tt.runs {
			changes += attempts(e, r.n, r.Outcome, 0, now)
		}
		require.Equal(t, tt.ejected, changes == 1, tt.name)
		require.Equal(t, tt.ejected, e.Health() == Ejected, tt.name)
		if len(tt.runs) == 1 && tt.runs[0].Outcome == Neutral {
			require.Equal(t, before, e.Status(now))
			require.Equal(t, conduct{}, e.conduct)
		}
	}
}

// Each change says why, and for how long the endpoint is, or was, out of use.
func TestChangesSayWhy(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := consecutive
	c.SuccessRate, c.Volume = 0.5, 20
	s := newTestSet(Config{Ejection: c}, now, "a", "b")
	a, b := s.All()[0], s.All()[1]
	end := func(e *Endpoint[int], o Outcome) Change {
		e.Begin()
		return e.End(o, 1, now)
	}
	attempts(b, 100, Success, 1, now)
	require.Zero(t, attempts(a, 4, Failure, 1, now))
	require.Equal(t, Change{Consecutive, base}, end(a, Failure))
	require.Zero(t, end(a, Success), "too early")
	now = now.Add(base)
	require.Zero(t, end(a, Neutral))
	require.Equal(t, Change{Trial, 2 * base}, end(a, Failure))
	now = now.Add(2 * base)
	require.Equal(t, Change{Recovery, 3 * base}, end(a, Success))
	require.Zero(t, end(a, Success))

	now = now.Add(100 * base)
	attempts(b, 100, Success, 1, now)
	var last Change
	for i := 0; last == (Change{}); i++ {
		require.Less(t, i, 100)
		if last = end(a, Failure); i%4 == 3 {
			require.Zero(t, end(a, Success))
		}
	}
	require.Equal(t, Change{SuccessRate, base}, last)
	now = now.Add(base)
	require.Equal(t, Change{Recovery, base}, end(a, Success), "not since the ejection before")

	for cause, want := range map[Cause]string{Unchanged: "", Consecutive: "consecutive_failures", SuccessRate: "success_rate", Trial: "trial", Recovery: "recovery"} {
		require.Equal(t, want, cause.String())
	}
}

func TestEjectionOff(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []Ejection{
		{},
		{Consecutive: 1, MaxShare: 1}, // no Base
		{Consecutive: 1, Base: base},  // no share
		{Base: base, MaxShare: 1},     // no reason
		{Consecutive: -1, SuccessRate: -1, Base: base, MaxShare: 1},
	} {
		s := newTestSet(Config{Ejection: c}, now, "a", "b")
		attempts(s.All()[1], 100, Success, 1, now)
		require.Zero(t, attempts(s.All()[0], 100, Failure, 1, now))
	}
}

func TestEjectionTimesGrowAndAreForgotten(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newTestSet(Config{Ejection: consecutive}, now, "a", "b")
	e := s.All()[0]
	lasts := func() time.Duration { return e.Status(now).Until.Sub(now).Round(time.Millisecond) }
	require.Equal(t, 1, attempts(e, 5, Failure, 1, now))
	for _, want := range []time.Duration{base, 2 * base, 4 * base, 8 * base, 8 * base, 8 * base} {
		require.Equal(t, want, lasts())
		now = now.Add(want - 1)
		require.Zero(t, attempts(e, 100, Failure, 1, now), "what fails during an ejection counts for nothing")
		require.Zero(t, attempts(e, 1, Success, 1, now), "nor does what succeeds")
		require.Zero(t, s.Fit(now)-1)
		now = now.Add(1)
		require.Equal(t, 2, s.Fit(now))
		require.True(t, attempt(e, Failure, 1, now), "one failure of a trial is enough")
	}
	require.EqualValues(t, 7, e.Status(now).Ejections)

	now = now.Add(8 * base)
	require.True(t, attempt(e, Success, 1, now))
	require.Equal(t, Healthy, e.Health())
	require.Zero(t, s.suspect.Load())
	require.Zero(t, attempts(e, 4, Failure, 1, now), "a new start")
	now = now.Add(2*base - 1) // one Base in use
	require.True(t, attempt(e, Failure, 1, now))
	require.Equal(t, 4*base, lasts())

	now = now.Add(4 * base)
	require.True(t, attempt(e, Success, 1, now))
	now = now.Add(1000 * time.Hour)
	require.Equal(t, 1, attempts(e, 5, Failure, 1, now))
	require.Equal(t, base, lasts())
}

func TestEjectionTimeWithoutGrowth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ longest, second time.Duration }{{0, base}, {base - 1, base}, {base + 1, base + 1}, {3 * base, 2 * base}, {1<<63 - 1, 2 * base}} {
		now := time.Now()
		s := newTestSet(Config{Ejection: Ejection{Consecutive: 1, Base: base, Max: tt.longest, MaxShare: 0.5}}, now, "a", "b")
		e := s.All()[0]
		attempt(e, Failure, 1, now)
		now = now.Add(base)
		attempt(e, Failure, 1, now)
		require.InDelta(t, tt.second, e.Status(now).Until.Sub(now), 2)
	}
}

func TestShareOfEjections(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		endpoints, unhealthy int
		share                float64
		ejected              int
	}{
		{1, 0, 0.5, 0},
		{1, 0, 1, 1},
		{2, 0, 0.5, 1},
		{2, 0, 0.1, 1},
		{2, 0, 1, 2},
		{3, 0, 0.5, 1},
		{3, 0, 0.7, 2},
		{3, 0, 2, 3},
		{10, 0, 0.1, 1},
		{10, 0, 0, 0},
		{10, 0, -1, 0},
		{10, 4, 0.5, 1},
		{10, 5, 0.5, 0},
		{100, 0, 0.29, 29},
	} {
		now := time.Now()
		c := consecutive
		c.MaxShare = tt.share
		s := newTestSet(Config{Ejection: c}, now, keysUpTo(tt.endpoints)...)
		for i, e := range s.All() {
			if i < tt.unhealthy {
				e.Checked(false, now)
			} else {
				attempts(e, 50, Failure, 1, now)
			}
		}
		ejected := 0
		for _, e := range s.All() {
			if e.Health() == Ejected && !e.available(s.instant(now)) {
				ejected++
			}
		}
		require.Equal(t, tt.ejected, ejected, "%+v", tt)
		require.NotNil(t, s.Pick(0, nil, now))
	}
}

func TestTrialIsOneAttempt(t *testing.T) {
	t.Parallel()
	for _, p := range policies[:2] { // rendezvous sends a trial only what hashes to it
		t.Run("policy="+p.name, func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			s := newTestSet(Config{Policy: p.Policy, Ejection: consecutive, SlowStart: time.Minute}, now, "a", "b")
			e := s.All()[0]
			picks := func() (n int) {
				for range 100 {
					if s.Pick(0, nil, now) == e {
						n++
					}
				}
				return n
			}
			attempts(e, 5, Failure, 1, now)
			require.Zero(t, picks())
			now = now.Add(base)
			require.Equal(t, 1, picks(), "its time is over")
			require.Equal(t, Ejected, e.Health(), "until it has succeeded")

			attempt(e, Neutral, 1, now)
			require.Equal(t, 1, picks(), "nothing was decided: again")
			attempt(e, Lost, 1, now)
			require.Equal(t, 1, picks(), "nothing was decided: again")
			now = now.Add(base - 1)
			require.Zero(t, picks())
			now = now.Add(1)
			require.Equal(t, 1, picks(), "a trial that does not report is given up")

			require.True(t, attempt(e, Failure, 1, now))
			require.Zero(t, picks())
			now = now.Add(2 * base)
			require.Equal(t, 1, picks())
			require.True(t, attempt(e, Success, 1, now))
			require.InDelta(t, 9, picks(), 9, "recovers slowly")
			now = now.Add(time.Minute)
			require.InDelta(t, 50, picks(), 20)
		})
	}
}

func TestTrialIsTakenOnce(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newTestSet(Config{Policy: RoundRobin, Ejection: consecutive}, now, "a", "b", "c")
	e := s.All()[0]
	attempts(e, 5, Failure, 1, now)
	now = now.Add(base)
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if s.Pick(0, nil, now) == e {
					taken.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, taken.Load())
}

func TestTrialThatFailsWithoutRoom(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newTestSet(Config{Policy: RoundRobin, Ejection: consecutive}, now, "a", "b")
	a, b := s.All()[0], s.All()[1]
	attempts(a, 5, Failure, 1, now)
	now = now.Add(base)
	require.Equal(t, 1, attempts(b, 5, Failure, 1, now), "a's time is over: there is room")
	require.Same(t, a, s.Pick(0, nil, now))
	require.True(t, attempt(a, Failure, 1, now))
	require.Equal(t, Ejected, a.Health())
	require.Same(t, b, s.Pick(0, nil, now), "in turn, one at a time")
	require.True(t, attempt(b, Success, 1, now))
	require.Equal(t, Healthy, b.Health())
}

// While replicas are restarted in turn, the one that was is well when the next
// goes, however long it was to be out.
func TestWhoIsOutLongestMakesRoom(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newTestSet(Config{Policy: RoundRobin, Ejection: consecutive}, now, "a", "b", "c", "d")
	a, b, c, d := s.All()[0], s.All()[1], s.All()[2], s.All()[3]
	attempts(a, 5, Failure, 1, now)
	now = now.Add(time.Second)
	attempts(b, 5, Failure, 1, now)
	require.Equal(t, 1, attempts(c, 5, Failure, 1, now))
	require.Equal(t, []bool{true, false, false, true}, []bool{a.available(s.instant(now)), b.available(s.instant(now)), c.available(s.instant(now)), d.available(s.instant(now))})
	require.Equal(t, []Health{Ejected, Ejected, Ejected, Healthy}, []Health{a.Health(), b.Health(), c.Health(), d.Health()})
	require.Same(t, a, s.Pick(0, s.All()[3:], now), "its trial")
	require.True(t, attempt(a, Success, 1, now))
	require.Equal(t, Healthy, a.Health())
}

// While all fail, they relieve each other at every failure. Nobody is out for
// longer by that, or one that is well again would not be asked for minutes.
func TestOutageOfAllIsNotHeldAgainstEach(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newTestSet(Config{Policy: RoundRobin, Ejection: consecutive}, now, "a", "b")
	a, b := s.All()[0], s.All()[1]
	for range 100 {
		attempts(a, 5, Failure, 1, now)
		attempts(b, 5, Failure, 1, now)
		now = now.Add(time.Millisecond)
	}
	now = now.Add(base)
	for _, e := range []*Endpoint[int]{a, b} {
		require.True(t, e.available(s.instant(now)), "its trial is due")
		require.True(t, attempt(e, Success, 1, now))
		require.Equal(t, Healthy, e.Health())
	}
}

func TestOutlierIsEjected(t *testing.T) {
	t.Parallel()
	ratio := Ejection{SuccessRate: 0.8, Volume: 20, Base: base, MaxShare: 0.5}
	for _, tt := range []struct {
		name        string
		own, others [2]int // successes, failures; of others, each
		spread      time.Duration
		ejected     bool
	}{
		{"far below", [2]int{70, 30}, [2]int{100, 0}, 0, true},
		{"a little below", [2]int{85, 15}, [2]int{100, 0}, 0, false},
		{"below, but so are the others", [2]int{50, 50}, [2]int{60, 40}, 0, false},
		{"far below others that are bad", [2]int{30, 70}, [2]int{60, 40}, 0, true},
		{"all fail", [2]int{0, 100}, [2]int{0, 100}, 0, false},
		{"too few of its own", [2]int{0, 19}, [2]int{100, 0}, 0, false},
		{"enough of its own", [2]int{0, 20}, [2]int{100, 0}, 0, true},
		{"too few of the others", [2]int{0, 100}, [2]int{9, 0}, 0, false},
		{"the others together are enough", [2]int{0, 100}, [2]int{10, 0}, 0, true},
		{"what is older than ten seconds does not count", [2]int{70, 30}, [2]int{100, 0}, 10 * time.Second, false},
		{"what is not does", [2]int{0, 30}, [2]int{100, 0}, 9 * time.Second, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			now := time.Now().Truncate(time.Second)
			s := newTestSet(Config{Ejection: ratio}, now, "a", "b", "c")
			for _, e := range s.All()[1:] {
				attempts(e, tt.others[0], Success, 1, now)
				require.Zero(t, attempts(e, tt.others[1], Failure, 1, now))
			}
			now = now.Add(tt.spread)
			e := s.All()[0]
			changes := attempts(e, tt.own[0], Success, 1, now)
			for range tt.own[1] {
				if e.Health() == Healthy {
					changes += attempts(e, 1, Failure, 1, now)
				}
			}
			if changes == 0 { // it is compared once a second
				now = now.Add(999 * time.Millisecond)
				if tt.own[0]+tt.own[1] < ratio.Volume {
					require.Zero(t, attempts(e, 0, Failure, 1, now))
				} else {
					changes += attempts(e, 1, Failure, 1, now)
					now = now.Add(time.Millisecond)
					changes += attempts(e, 1, Failure, 1, now)
				}
			}
			require.Equal(t, tt.ejected, changes == 1)
			require.Equal(t, tt.ejected, e.Health() == Ejected)
		})
	}
}

func TestReturnedOutlierIsNotJudgedByItsPast(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newTestSet(Config{Ejection: Ejection{SuccessRate: 0.8, Volume: 20, Base: time.Second, MaxShare: 0.5}}, now, "a", "b")
	e := s.All()[0]
	attempts(s.All()[1], 100, Success, 1, now)
	require.Equal(t, 1, attempts(e, 20, Failure, 1, now))
	now = now.Add(time.Second)
	require.True(t, attempt(e, Success, 1, now))
	require.Zero(t, attempts(e, 18, Failure, 1, now))
	require.True(t, attempt(e, Failure, 1, now))
}

// One of two always answers 503, for ten minutes.
func TestHalfOutage(t *testing.T) {
	t.Parallel()
	for _, p := range policies {
		t.Run("policy="+p.name, func(t *testing.T) {
			t.Parallel()
			s := simulate(Config{Policy: p.Policy, SlowStart: base, Panic: 0.5, Ejection: Ejection{Consecutive: 5, Base: base, Max: 5 * time.Minute, MaxShare: 0.5}}, "bad", "good")
			s.run(10*time.Minute, 100, func(key string) (Outcome, time.Duration) {
				if key == "bad" {
					return Failure, time.Millisecond
				}
				return Success, 5 * time.Millisecond
			})
			require.LessOrEqual(t, s.failed["bad"], 5*2+60_000/1000)
			require.LessOrEqual(t, s.failed["bad"], 20, "in truth five, and one for each trial")
			require.GreaterOrEqual(t, s.failed["bad"], 9, "it is tried again")

			answer := func(string) (Outcome, time.Duration) { return Success, 5 * time.Millisecond }
			s.run(5*time.Minute, 100, answer)
			s.run(time.Minute, 100, answer)
			require.InDelta(t, 0.5, s.share("bad"), 0.03, "and has its half again")
		})
	}
}

func TestEjectionByOneFailureAmongMany(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newTestSet(Config{Ejection: consecutive}, now, "a", "b")
	var changes atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { changes.Add(int64(attempts(s.All()[0], 100, Failure, 1, now))) })
	}
	wg.Wait()
	require.EqualValues(t, 1, changes.Load())
	require.EqualValues(t, 1, s.All()[0].Status(now).Ejections)
}

func BenchmarkFailureWithoutRoom(b *testing.B) {
	for _, n := range []int{3, 100} {
		b.Run("endpoints="+strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			now := time.Now()
			s := newTestSet(Config{Ejection: Ejection{Consecutive: 1, SuccessRate: 0.5, Volume: 1, Base: time.Second}}, now, keysUpTo(n)...)
			attempt(s.All()[1], Success, 1, now)
			for b.Loop() {
				attempt(s.All()[0], Failure, time.Millisecond, now)
			}
		})
	}
}
