package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var breakerConfig = BreakerConfig{Ratio: 0.5, Volume: 10, Window: 10 * time.Second, Open: 5 * time.Second, Longest: 40 * time.Second, Probes: 3, Lease: 2 * time.Second}

// requests sends n requests with one outcome and returns how many were allowed.
func requests(b *Breaker, n int, o Outcome, now time.Time) (allowed int) {
	for range n {
		if l, ok := b.Allow(now); ok {
			allowed++
			l.Done(o, now)
		}
	}
	return allowed
}

func leases(b *Breaker, n int, now time.Time) (all []Lease) {
	for range n {
		if l, ok := b.Allow(now); ok {
			all = append(all, l)
		}
	}
	return all
}

// opened returns a breaker that has just opened.
func opened(t *testing.T, c BreakerConfig, now time.Time) *Breaker {
	b := NewBreaker(c)
	requests(b, max(c.Volume, 1), Failure, now)
	require.Equal(t, Open, b.Status(now).State)
	return b
}

func TestBreakerOpens(t *testing.T) {
	t.Parallel()
	type run struct {
		n int
		Outcome
		then time.Duration
	}
	for _, tt := range []struct {
		name   string
		config BreakerConfig
		runs   []run
		state  State
	}{
		{"too few", breakerConfig, []run{{9, Failure, 0}}, Closed},
		{"enough", breakerConfig, []run{{10, Failure, 0}}, Open},
		{"half of them", breakerConfig, []run{{5, Success, 0}, {5, Failure, 0}}, Open},
		{"less than half", breakerConfig, []run{{6, Success, 0}, {5, Failure, 0}}, Closed},
		{"the failure that reaches the ratio", breakerConfig, []run{{100, Success, 0}, {100, Failure, 0}}, Open},
		{"a success does not open", breakerConfig, []run{{9, Failure, 0}, {1, Success, 0}}, Closed},
		{"but it counts", breakerConfig, []run{{8, Failure, 0}, {1, Success, 0}, {1, Failure, 0}}, Open},
		{"clients that leave and 4xx", breakerConfig, []run{{9, Failure, 0}, {10_000, Neutral, 0}}, Closed},
		{"lost is neutral", breakerConfig, []run{{9, Failure, 0}, {10_000, Lost, 0}}, Closed},
		{"the window rolls", breakerConfig, []run{{9, Failure, 10 * time.Second}, {9, Failure, 0}}, Closed},
		{"by tenths", breakerConfig, []run{{9, Failure, 9 * time.Second}, {1, Failure, 0}}, Open},
		{"successes leave it too", breakerConfig, []run{{100, Success, 10 * time.Second}, {10, Failure, 0}}, Open},
		{"every failure", BreakerConfig{}, []run{{1, Failure, 0}}, Open},
		{"never", BreakerConfig{Ratio: 1.1}, []run{{1000, Failure, 0}}, Closed},
		{"not a number never", BreakerConfig{Ratio: math.NaN()}, []run{{1000, Failure, 0}}, Closed},
		{"all", BreakerConfig{Ratio: 1, Volume: 3}, []run{{1, Success, 0}, {100, Failure, 0}}, Closed},
		{"a tenth of thirty", BreakerConfig{Ratio: 0.1, Volume: 30}, []run{{27, Success, 0}, {3, Failure, 0}}, Open},
		{"a window of at least a second", BreakerConfig{Ratio: 1, Volume: 2, Window: -1}, []run{{1, Failure, 900 * time.Millisecond}, {1, Failure, 0}}, Open},
	} {
		now := time.Now().Truncate(time.Second)
		b := NewBreaker(tt.config)
		b.epoch = now // ticks begin with the test
		for _, r := range tt.runs {
			require.Equal(t, r.n, requests(b, r.n, r.Outcome, now))
			now = now.Add(r.then)
		}
		require.Equal(t, tt.state, b.Status(now).State, tt.name)
	}
}

func TestBreakerStatus(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := NewBreaker(breakerConfig)
	requests(b, 5, Success, now)
	requests(b, 4, Failure, now)
	requests(b, 9, Neutral, now)
	require.Equal(t, BreakerStatus{State: Closed, Requests: 9, Failed: 4}, b.Status(now))
	require.Zero(t, b.RetryAfter(now))
	requests(b, 1, Failure, now)
	require.Equal(t, BreakerStatus{State: Open, Opened: 1}, b.Status(now))
	require.Equal(t, 5*time.Second, b.RetryAfter(now))
	require.Equal(t, time.Second, b.RetryAfter(now.Add(4*time.Second)))
	require.Zero(t, b.RetryAfter(now.Add(time.Hour)))
	require.Equal(t, Open, b.Status(now.Add(time.Hour)).State)
	require.Equal(t, "closed open half_open", fmt.Sprint(Closed, Open, HalfOpen))
}

func TestBreakerProbes(t *testing.T) {
	t.Parallel()
	now := time.Now()
	type events []func(b *Breaker, l []Lease)
	report := func(i int, o Outcome) func(*Breaker, []Lease) {
		return func(_ *Breaker, l []Lease) { l[i].Done(o, now) }
	}
	admits := func(n int) func(*Breaker, []Lease) {
		return func(b *Breaker, _ []Lease) { require.Len(t, leases(b, 10, now), n) }
	}
	for _, tt := range []struct {
		name   string
		events events
		state  State
	}{
		{"no more than three", events{admits(0)}, HalfOpen},
		{"two successes are too few", events{report(0, Success), report(1, Success), admits(0)}, HalfOpen},
		{"all succeed", events{report(2, Success), report(0, Success), report(1, Success), admits(10)}, Closed},
		{"one fails", events{report(0, Success), report(1, Success), report(2, Failure), admits(0)}, Open},
		{"one fails first", events{report(1, Failure), report(0, Success), report(2, Success)}, Open},
		{"neutral gives its place back", events{report(0, Neutral), admits(1)}, HalfOpen},
		{"so does lost", events{report(0, Lost), report(1, Neutral), admits(2)}, HalfOpen},
		{"a success twice is one", events{report(0, Success), report(0, Success), report(0, Success), report(1, Success)}, HalfOpen},
		{"neutral twice is one", events{report(0, Neutral), report(0, Neutral), admits(1)}, HalfOpen},
		{"neutral after success is nothing", events{report(0, Success), report(0, Neutral), admits(0)}, HalfOpen},
	} {
		b := opened(t, breakerConfig, now.Add(-5*time.Second))
		l := leases(b, 10, now)
		require.Len(t, l, 3)
		for _, event := range tt.events {
			event(b, l)
		}
		require.Equal(t, tt.state, b.Status(now).State, tt.name)
	}
}

func TestBreakerCountersAreClearedWhenItCloses(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := opened(t, breakerConfig, now)
	now = now.Add(5 * time.Second)
	require.Equal(t, 3, requests(b, 3, Success, now))
	require.Equal(t, BreakerStatus{State: Closed, Opened: 1}, b.Status(now))
	requests(b, 9, Failure, now)
	require.Equal(t, Closed, b.Status(now).State)
}

func TestBreakerOpensLonger(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := opened(t, breakerConfig, now)
	for _, seconds := range []int{5, 10, 20, 40, 40, 40} {
		refuses := time.Duration(seconds) * time.Second
		require.Equal(t, refuses, b.RetryAfter(now))
		now = now.Add(refuses - 1)
		require.Zero(t, requests(b, 10, Failure, now))
		now = now.Add(1)
		require.Equal(t, 1, requests(b, 10, Failure, now))
	}
	now = now.Add(40 * time.Second)
	require.Equal(t, 100, requests(b, 100, Success, now))
	requests(b, 100, Failure, now)
	require.Equal(t, 5*time.Second, b.RetryAfter(now), "forgotten once it was closed")
}

func TestBreakerLeaseExpires(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := opened(t, breakerConfig, now)
	now = now.Add(5 * time.Second)
	lost := leases(b, 10, now)
	require.Len(t, lost, 3)
	require.Zero(t, b.RetryAfter(now))
	now = now.Add(2*time.Second - 1)
	require.Empty(t, leases(b, 10, now))
	now = now.Add(1)
	second := leases(b, 10, now)
	require.Len(t, second, 3, "others take their places")
	for i := range lost {
		lost[i].Done(Failure, now)
	}
	require.Equal(t, HalfOpen, b.Status(now).State, "what was given up counts for nothing")

	now = now.Add(time.Hour)
	for i := range second {
		second[i].Done(Success, now)
	}
	require.Equal(t, Closed, b.Status(now).State, "late, but nobody has taken their places")
}

func TestBreakerLeasesOfEarlierPeriods(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := NewBreaker(breakerConfig)
	closed := leases(b, 100, now)
	requests(b, 10, Failure, now)
	report := func(l *Lease, o Outcome, want State) {
		l.Done(o, now)
		require.Equal(t, want, b.Status(now).State)
	}
	report(&closed[0], Failure, Open)
	require.Equal(t, 5*time.Second, b.RetryAfter(now))
	now = now.Add(5 * time.Second)
	halfOpen := leases(b, 3, now)
	for i := range 50 {
		report(&closed[i+1], Outcome(i%4), HalfOpen)
	}
	report(&halfOpen[0], Failure, Open)
	report(&halfOpen[1], Success, Open)
	now = now.Add(10 * time.Second)
	again := leases(b, 3, now)
	require.Len(t, again, 3)
	report(&halfOpen[2], Failure, HalfOpen)
	report(&closed[60], Failure, HalfOpen)
	for i := range again {
		again[i].Done(Success, now)
	}
	for i := range 30 {
		report(&closed[i+61], Failure, Closed)
	}
	require.Zero(t, b.Status(now).Requests)
}

func TestTimesOutOfReach(t *testing.T) {
	t.Parallel()
	const ever = time.Duration(math.MaxInt64)
	times := []time.Time{{}, time.Now(), time.Unix(1<<40, 0), time.Now()}
	b := NewBreaker(BreakerConfig{Ratio: 1, Window: ever, Open: ever, Lease: ever})
	s := newTestSet(Config{SlowStart: ever, Ejection: Ejection{Consecutive: 1, SuccessRate: 1, Base: ever, Max: ever, MaxShare: math.Inf(1)}}, times[0], "a", "b")
	for _, now := range times {
		requests(b, 1, Success, now)
		e := s.Pick(0, nil, now)
		attempt(e, Success, -ever, now)
		e.Checked(true, now)
		e.Status(now)
	}
	now := times[1]
	requests(b, 1, Failure, now)
	requests(b, 1, Failure, now)
	for range 3 {
		requests(b, 100, Failure, now)
		attempts(s.All()[0], 9, Failure, ever, now)
	}
	require.Equal(t, Ejected, s.All()[0].Health())
	require.Equal(t, "b", s.Pick(0, nil, now).Key)
}

func TestZeroLeaseDoesNothing(t *testing.T) {
	t.Parallel()
	var l Lease
	l.Done(Failure, time.Now())
}

func TestBreakerAdmitsExactlyItsProbes(t *testing.T) {
	t.Parallel()
	for range 20 {
		now := time.Now()
		b := opened(t, breakerConfig, now)
		now = now.Add(5 * time.Second)
		var admitted atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { admitted.Add(int64(len(leases(b, 50, now)))) })
		}
		wg.Wait()
		require.EqualValues(t, breakerConfig.Probes, admitted.Load())
	}
}

// Whatever happens, once the service is well the breaker closes.
func TestBreakerIsNeverStuck(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		now := time.Now()
		b := NewBreaker(breakerConfig)
		var out []Lease
		for range 500 {
			now = now.Add(time.Duration(random.IntN(int(time.Second))))
			if l, ok := b.Allow(now); ok {
				out = append(out, l) // some never report
			}
			if len(out) > 0 && random.IntN(2) == 0 {
				out[random.IntN(len(out))].Done(Outcome(random.IntN(4)), now)
			}
		}
		require.LessOrEqual(t, b.RetryAfter(now), 8*breakerConfig.Open)
		now = now.Add(8*breakerConfig.Open + breakerConfig.Lease)
		requests(b, breakerConfig.Probes, Success, now)
		require.Equal(t, Closed, b.Status(now).State)
	}
}

func TestBreakerUnderOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // a minute of 1000 requests a second that all fail
		b := NewBreaker(breakerConfig)
		var sent int
		for range 60_000 {
			if l, ok := b.Allow(time.Now()); ok {
				sent++
				l.Done(Failure, time.Now())
			}
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, sent, 10+4)
		time.Sleep(40 * time.Second)
		require.Equal(t, 100, requests(b, 100, Success, time.Now()))
	})
}

func TestOnChangeIsToldInOrder(t *testing.T) {
	t.Parallel()
	var told []change // of one goroutine at a time, so needs no lock
	var inside atomic.Int64
	c := BreakerConfig{Ratio: 0.1, Volume: 1, Probes: 1}
	c.OnChange = func(from, to State) {
		if inside.Add(1) != 1 {
			t.Error("two at once")
		}
		told = append(told, change{from, to})
		inside.Add(-1)
	}
	b := NewBreaker(c)
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Go(func() {
			random, now := rand.New(rand.NewPCG(g, 3)), time.Now()
			for range 5000 {
				now = now.Add(time.Millisecond)
				if l, ok := b.Allow(now); ok {
					l.Done(Outcome(random.IntN(4)), now)
				}
			}
		})
	}
	wg.Wait()
	require.Greater(t, len(told), 10)
	state := Closed
	for _, c := range told {
		require.Equal(t, state, c.from)
		state = c.to
	}
	require.Equal(t, state, b.Status(time.Now()).State)
	require.Empty(t, b.changes)
}

func TestOnChangeMayUseTheBreaker(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var b *Breaker
	state, told := Closed, 0
	c := BreakerConfig{Ratio: 1, Open: time.Second}
	c.OnChange = func(from, to State) {
		require.Equal(t, state, from)
		state = to
		if told++; told < 100 { // each change brings about others, which are told after this one
			now = now.Add(8 * time.Second)
			requests(b, 2, Outcome(1+told%2), now)
			require.Equal(t, to, state)
		}
	}
	b = NewBreaker(c)
	requests(b, 1, Failure, now)
	require.GreaterOrEqual(t, told, 100)
	require.Equal(t, b.Status(now).State, state)
}

func TestOnChangeThatPanics(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var told []State
	c := breakerConfig
	c.OnChange = func(_, to State) {
		if told = append(told, to); len(told) == 1 {
			panic("no")
		}
	}
	b := NewBreaker(c)
	require.PanicsWithValue(t, "no", func() { requests(b, 10, Failure, now) })
	now = now.Add(5 * time.Second)
	requests(b, 3, Success, now)
	require.Equal(t, []State{Open, HalfOpen, Closed}, told)
}

func TestBreakerAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return
	}
	now := time.Now()
	b := NewBreaker(BreakerConfig{Ratio: 1.1})
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		for _, o := range []Outcome{Success, Failure, Neutral} {
			l, _ := b.Allow(now)
			l.Done(o, now)
		}
	}))
	b = opened(t, breakerConfig, now)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		b.Allow(now)
		b.RetryAfter(now)
	}))
	now = now.Add(5 * time.Second)
	b.Allow(now)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		l, _ := b.Allow(now)
		l.Done(Neutral, now)
	}))
}

// TestAdmitsSaysWhatAllowDoes asks before each step of many random ones, and asks often.
func TestAdmitsSaysWhatAllowDoes(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	b := NewBreaker(breakerConfig)
	var held []Lease
	said := map[State]map[bool]int{Closed: {}, Open: {}, HalfOpen: {}}
	for range 20_000 {
		now = now.Add(time.Duration(rnd.Int64N(int64(600 * time.Millisecond))))
		before := b.Status(now)
		want := b.Admits(now)
		for range 5 {
			require.Equal(t, want, b.Admits(now))
		}
		require.Equal(t, before, b.Status(now), "asking changes nothing")
		l, ok := b.Allow(now)
		require.Equal(t, want, ok, "%v", before)
		said[before.State][ok]++
		if ok {
			held = append(held, l)
		}
		if len(held) > 0 && rnd.IntN(4) > 0 {
			o := Success
			if rnd.IntN(2) == 0 {
				o = Failure
			}
			held[0].Done(o, now)
			held = held[1:]
		}
	}
	require.NotZero(t, said[Closed][true])
	require.NotZero(t, said[Open][false])
	require.NotZero(t, said[HalfOpen][true])
	require.NotZero(t, said[HalfOpen][false])
}

func BenchmarkBreaker(b *testing.B) {
	for _, o := range []struct {
		name string
		Outcome
	}{{"success", Success}, {"failure", Failure}, {"neutral", Neutral}} {
		b.Run("state=closed/outcome="+o.name, func(b *testing.B) {
			b.ReportAllocs()
			br, now := NewBreaker(BreakerConfig{Ratio: 1.1, Window: 10 * time.Second}), time.Now()
			for b.Loop() {
				l, _ := br.Allow(now)
				l.Done(o.Outcome, now)
			}
		})
	}
	b.Run("state=closed/outcome=success/goroutines=GOMAXPROCS", func(b *testing.B) {
		b.ReportAllocs()
		br, now := NewBreaker(BreakerConfig{Ratio: 1.1, Window: 10 * time.Second}), time.Now()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				l, _ := br.Allow(now)
				l.Done(Success, now)
			}
		})
	})
	b.Run("state=open", func(b *testing.B) {
		b.ReportAllocs()
		br, now := NewBreaker(BreakerConfig{Open: time.Hour}), time.Now()
		requests(br, 1, Failure, now)
		for b.Loop() {
			br.Allow(now)
		}
	})
}
