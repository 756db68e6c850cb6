package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var policies = []struct {
	name string
	Policy
}{{"power_of_two", PowerOfTwo}, {"round_robin", RoundRobin}, {"rendezvous", Rendezvous}}

func keysUpTo(n int) (keys []string) {
	for i := range n {
		keys = append(keys, "http://10.0.0."+strconv.Itoa(i)+":8080")
	}
	return keys
}

// Each endpoint is in one of these states.
const (
	fit = iota
	tried
	unfit
	triedUnfit
)

func TestPickPrefersUntriedThenFit(t *testing.T) {
	t.Parallel()
	for _, p := range policies {
		t.Run("policy="+p.name, func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			for n := 1; n <= 4; n++ {
				for code := range 1 << (2 * n) { // all states of all endpoints
					for _, panics := range []float64{0, 0.5} {
						s := newTestSet(Config{Policy: p.Policy, Panic: panics}, now, keysUpTo(n)...)
						states := make([]int, n)
						var gone []*Endpoint[int]
						var fits int
						for i, e := range s.All() {
							states[i] = code >> (2 * i) & 3
							if states[i] == unfit || states[i] == triedUnfit {
								e.Checked(false, now)
							} else {
								fits++
							}
							if states[i] == tried || states[i] == triedUnfit {
								gone = append(gone, e)
							}
						}
						for hash := range uint64(4) {
							e := s.Pick(mix(hash), gone, now)
							require.NotNil(t, e)
							got := states[slices.Index(s.All(), e)]
							rank := []int{fit: 0, unfit: 1, tried: 2, triedUnfit: 3}
							if float64(fits) < panics*float64(n) {
								rank = []int{fit: 0, unfit: 0, tried: 1, triedUnfit: 1}
							}
							best := math.MaxInt
							for _, state := range states {
								best = min(best, rank[state])
							}
							require.Equal(t, best, rank[got], "states=%v panic=%v", states, panics)
						}
					}
				}
			}
		})
	}
}

// TestOutlookSaysWhoPickTakes compares them by hashes, with some out for each reason.
func TestOutlookSaysWhoPickTakes(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newTestSet(Config{Policy: Rendezvous}, now, keysUpTo(8)...)
	all := s.All()
	all[0].Checked(false, now)
	all[1].until.Store(int64(s.instant(now.Add(time.Hour))))
	s.settle()
	reasons := map[string]string{all[0].Key: "unhealthy", all[1].Key: "ejected"}
	chosen := map[string]bool{}
	for i := range uint64(200) {
		hash := mix(i)
		o := s.Outlook(hash, true, now)
		require.Equal(t, o, s.Outlook(hash, true, now))
		require.NotNil(t, o.Chosen)
		require.Same(t, s.Pick(hash, nil, now), o.Chosen)
		chosen[o.Chosen.Key] = true
		for _, p := range o.Endpoints {
			require.Equal(t, reasons[p.Key], p.Out)
		}
	}
	require.Len(t, chosen, 6)
	require.Nil(t, s.Outlook(0, false, now).Chosen, "nobody knows")
}

func TestPickFromNothing(t *testing.T) {
	t.Parallel()
	for _, p := range policies {
		s := newTestSet(Config{Policy: p.Policy, Panic: 0.5}, time.Now())
		require.Nil(t, s.Pick(1, nil, time.Now()))
		require.Zero(t, s.Fit(time.Now()))
		require.Empty(t, s.All())
	}
}

func TestPanicUsesAll(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name             string
		panics           float64
		endpoints, unfit int
		used             int
	}{
		{"one of two may be out", 0.5, 2, 1, 1},
		{"both are out", 0.5, 2, 2, 2},
		{"one of three is too few", 0.5, 3, 2, 3},
		{"two of three are enough", 0.5, 3, 1, 2},
		{"never: the last one has it all", 0, 3, 2, 1},
		{"never: but nobody is better than another", 0, 3, 3, 3},
		{"always", 1, 3, 1, 3},
		{"not a number is never", math.NaN(), 3, 2, 1},
	} {
		for _, p := range policies {
			t.Run(tt.name+"/policy="+p.name, func(t *testing.T) {
				t.Parallel()
				now := time.Now()
				s := newTestSet(Config{Policy: p.Policy, Panic: tt.panics}, now, keysUpTo(tt.endpoints)...)
				for _, e := range s.All()[:tt.unfit] {
					e.Checked(false, now)
				}
				require.Equal(t, tt.endpoints-tt.unfit, s.Fit(now))
				o := s.Outlook(1, false, now)
				used := map[string]bool{}
				for i := range uint64(100) {
					used[s.Pick(mix(i), nil, now).Key] = true
				}
				require.Len(t, used, tt.used)
				for _, p := range o.Endpoints {
					require.Equal(t, used[p.Key], p.Out == "", "%s: %q", p.Key, p.Out)
				}
				require.Equal(t, tt.used > tt.endpoints-tt.unfit, o.All != "", "%q", o.All)
				if o.Chosen != nil {
					require.True(t, len(used) == 1 && used[o.Chosen.Key])
				}
			})
		}
	}
}

func TestSharesFollowWeights(t *testing.T) {
	t.Parallel()
	for _, p := range policies {
		for _, weights := range [][]int{{1, 1}, {1, 1, 1}, {9, 1}, {5, 3, 2}, {100, 1, 1}, {0, -3, 2}, {3, 2, 3, 2, 3, 2, 3, 2, 3, 2}} {
			t.Run(fmt.Sprintf("policy=%s/weights=%v", p.name, weights), func(t *testing.T) {
				t.Parallel()
				now := time.Now()
				s := newTestSet(Config{Policy: p.Policy}, now)
				var specs []Spec[int]
				var sum float64
				for i, w := range weights {
					specs = append(specs, Spec[int]{Key: keysUpTo(10)[i], Weight: w})
					sum += float64(max(w, 1))
				}
				s.Replace(specs, now)
				random := rand.New(rand.NewPCG(5, 6))
				const picks = 100_000
				counts := map[string]float64{}
				for range picks {
					counts[s.Pick(random.Uint64(), nil, now).Key]++
				}
				for i, w := range weights {
					share := float64(max(w, 1)) / sum
					deviation := math.Sqrt(picks * share * (1 - share))
					require.InDelta(t, picks*share, counts[specs[i].Key], 4*deviation, "endpoint %d", i)
				}
			})
		}
	}
}

func TestSharesFollowWeightsUnderLoad(t *testing.T) {
	t.Parallel()
	s := simulate(Config{})
	s.set.Replace([]Spec[int]{{Key: "heavy", Weight: 9}, {Key: "light"}}, s.now)
	for _, perSecond := range []float64{10, 1000, 10_000} { // 0.1, 10, 100 in flight
		s.run(5*time.Second, perSecond, func(string) (Outcome, time.Duration) { return Success, 10 * time.Millisecond })
		// Whoever is idle is preferred to who is not, even if that is the light one.
		require.InDelta(t, 0.13, s.share("light"), 0.06, "perSecond=%v", perSecond)
	}
}

func TestRoundRobinIsSmooth(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := New[int](Config{Policy: RoundRobin})
	s.Replace([]Spec[int]{{Key: "a", Weight: 5}, {Key: "b"}, {Key: "c"}}, now)
	turns := func(n int, tried ...*Endpoint[int]) (order string) {
		for range n {
			order += s.Pick(0, tried, now).Key
		}
		return order
	}
	require.Equal(t, "aabacaa"+"aabacaa", turns(14))
	require.Equal(t, "bcbc", turns(4, s.All()[0]), "those that are left take turns")

	s.Replace(specsOf("a", "b", "c"), now)
	s.All()[1].Checked(false, now)
	got := turns(6)
	require.Equal(t, 3, strings.Count(got, "a"))
	require.Equal(t, 3, strings.Count(got, "c"))
}

func TestRendezvousMovesOnlyWhatItMust(t *testing.T) {
	t.Parallel()
	now := time.Now()
	const hashes = 20_000
	owners := func(s *Set[int]) (all []string) {
		for i := range uint64(hashes) {
			all = append(all, s.Pick(i, nil, now).Key) // even badly mixed
		}
		return all
	}
	s := newTestSet(Config{Policy: Rendezvous}, now, "a", "b", "c", "d")
	before := owners(s)
	require.Equal(t, before, owners(newTestSet(Config{Policy: Rendezvous}, now, "d", "b", "c", "a")), "whatever the order and the process")

	for _, change := range []struct {
		name string
		do   func()
	}{
		{"unhealthy", func() { s.All()[1].Checked(false, now) }},
		{"removed", func() { s.Replace(specsOf("a", "c", "d"), now) }},
	} {
		change.do()
		moved := map[string]int{}
		for i, owner := range owners(s) {
			require.NotEqual(t, "b", owner)
			if before[i] != "b" {
				require.Equal(t, before[i], owner, change.name)
			} else {
				moved[owner]++
			}
		}
		for _, owner := range []string{"a", "c", "d"} {
			require.InDelta(t, hashes/4/3, moved[owner], hashes/4/3*0.1, "what b had is shared")
		}
	}
	s.Replace(specsOf("a", "b", "c", "d"), now)
	require.Equal(t, before, owners(s), "and is back with it")

	s.Replace([]Spec[int]{{Key: "a", Weight: 2}, {Key: "b"}, {Key: "c"}, {Key: "d"}}, now)
	for i, owner := range owners(s) {
		if owner != before[i] {
			require.Equal(t, "a", owner, "a greater weight only draws to itself")
		}
	}
}

func TestFasterEndpointsGetMore(t *testing.T) {
	t.Parallel()
	s := simulate(Config{}, "fast", "slow", "faster")
	s.run(60*time.Second, 500, func(key string) (Outcome, time.Duration) {
		return Success, map[string]time.Duration{"faster": 5e6, "fast": 10e6, "slow": 500e6}[key]
	})
	require.Less(t, s.share("slow"), 0.03)
	require.Greater(t, s.share("slow"), 0.0, "is tried again at times")
	require.Greater(t, s.share("fast"), 0.1, "the fastest does not get all")
}

func TestSlowEndpointThatRecoversIsFound(t *testing.T) {
	t.Parallel()
	for _, perSecond := range []float64{2, 20, 500} {
		s := simulate(Config{}, "a", "b")
		s.run(30*time.Second, perSecond, func(key string) (Outcome, time.Duration) {
			return Success, map[string]time.Duration{"a": 10e6, "b": 1000e6}[key]
		})
		require.Less(t, s.share("b"), 0.15, "perSecond=%v", perSecond)
		both := func(string) (Outcome, time.Duration) { return Success, 10 * time.Millisecond }
		s.run(2*time.Minute, perSecond, both)
		s.run(time.Minute, perSecond, both)
		require.InDelta(t, 0.5, s.share("b"), 0.15, "perSecond=%v", perSecond)
	}
}

func TestFailingFastIsNoMagnet(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		perSecond float64
		keys      []string
		most      float64
	}{
		{"one of two, nearly idle", 5, []string{"bad", "good"}, 0.08},
		{"one of two", 200, []string{"bad", "good"}, 0.05},
		{"one of two, busy", 5000, []string{"bad", "good"}, 0.05},
		{"one of five", 1000, []string{"bad", "b", "c", "d", "e"}, 0.05},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := simulate(Config{}, tt.keys...) // nobody is ejected
			s.run(20*time.Second, tt.perSecond, func(key string) (Outcome, time.Duration) {
				if key == "bad" {
					return Failure, 100 * time.Microsecond
				}
				return Success, 10 * time.Millisecond
			})
			require.Less(t, s.share("bad"), tt.most)
			require.Positive(t, s.picked["bad"])
		})
	}
}

func TestNewEndpointIsNoMagnet(t *testing.T) {
	t.Parallel()
	s := simulate(Config{}, "a", "b")
	answer := func(key string) (Outcome, time.Duration) {
		if key == "silent" {
			return Failure, 5 * time.Second
		}
		return Success, 10 * time.Millisecond
	}
	s.run(10*time.Second, 1000, answer)
	s.set.Replace(specsOf("a", "b", "silent"), s.now)
	s.run(4*time.Second, 1000, answer) // nothing is known of it yet
	require.Less(t, s.share("silent"), 0.03)
}

func TestSlowStart(t *testing.T) {
	t.Parallel()
	for _, p := range policies {
		t.Run("policy="+p.name, func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			s := newTestSet(Config{Policy: p.Policy, SlowStart: 10 * time.Second}, now, "a", "b")
			random := rand.New(rand.NewPCG(7, 8))
			share := func(key string) float64 {
				const picks = 20_000
				var n float64
				for range picks {
					if s.Pick(random.Uint64(), nil, now).Key == key {
						n++
					}
				}
				return n / picks
			}
			require.InDelta(t, 0.5, share("b"), 0.02, "the first set starts at once")
			s.Replace(specsOf("a", "b", "new"), now)
			for _, step := range []struct {
				after  time.Duration
				weight float64
			}{{0, 0.1}, {5 * time.Second, 0.55}, {5 * time.Second, 1}, {time.Hour, 1}} {
				now = now.Add(step.after)
				require.InDelta(t, step.weight/(2+step.weight), share("new"), 0.02)
				require.InDelta(t, step.weight, s.All()[2].Status(now).Weight, 1e-9)
			}
			s.All()[0].Checked(false, now)
			require.Zero(t, share("a"))
			s.All()[0].Checked(true, now)
			require.InDelta(t, 0.1/2.1, share("a"), 0.02, "who recovers starts slowly, too")
			s.Replace(specsOf("c", "d"), now)
			require.InDelta(t, 1, s.All()[0].Status(now).Weight, 0, "a whole new set starts at once")
		})
	}
}

// A newcomer is not preferred because it is fast, as long as it may have been
// asked too little, or be empty.
func TestSlowStartOfAFastOne(t *testing.T) {
	const whole = 10 * time.Second
	for _, others := range []int{1, 2, 5} {
		s := simulate(Config{SlowStart: whole}, keysUpTo(others)...)
		answer := func(key string) (Outcome, time.Duration) {
			if key == "new" {
				return Success, time.Millisecond
			}
			return Success, 10 * time.Millisecond
		}
		s.run(time.Minute, 200, answer)
		s.set.Replace(specsOf(append(keysUpTo(others), "new")...), s.now)
		s.run(whole/10, 500, answer)
		fair := 1 / float64(others+1)
		require.Less(t, s.share("new"), 0.35*2*fair, "beside %d", others) // of two that are drawn it is the better one
		require.Positive(t, s.share("new"))
		s.run(2*whole, 500, answer)
		require.Greater(t, s.share("new"), fair, "then it is what it is: fast")
	}
}

func TestManyOutOfUse(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, p := range policies {
		s := newTestSet(Config{Policy: p.Policy}, now, keysUpTo(200)...)
		for i, e := range s.All() {
			if i != 77 && i != 99 {
				e.Checked(false, now)
			}
		}
		counts := map[string]int{}
		for i := range uint64(1000) {
			counts[s.Pick(i, nil, now).Key]++
		}
		require.Len(t, counts, 2)
		require.InDelta(t, 500, counts[s.All()[77].Key], 70)
		require.Same(t, s.All()[99], s.Pick(1, s.All()[77:78], now))
	}
}

func TestPickWhileAllChanges(t *testing.T) {
	t.Parallel()
	for _, p := range policies {
		s := New[int](Config{Policy: p.Policy, Panic: 0.5, SlowStart: time.Millisecond, Ejection: Ejection{
			Consecutive: 3, SuccessRate: 0.9, Volume: 5, Base: time.Millisecond, Max: 5 * time.Millisecond, MaxShare: 0.5}})
		s.Replace(specsOf("a", "b", "c"), time.Now())
		var wg sync.WaitGroup
		for g := range uint64(4) {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(g, 9))
				for range 5000 {
					e := s.Pick(random.Uint64(), nil, time.Now())
					e.Begin()
					if again := s.Pick(random.Uint64(), []*Endpoint[int]{e}, time.Now()); again == e {
						t.Error("was tried")
					}
					e.End(Outcome(random.IntN(4)), time.Duration(random.IntN(1e6)), time.Now())
					e.Status(time.Now())
				}
			})
		}
		wg.Go(func() {
			for i := range 500 {
				s.Replace(specsOf(append(keysUpTo(i%4), "a", "b")...), time.Now())
				for _, e := range s.All() {
					e.Checked(i%3 > 0, time.Now())
				}
			}
		})
		wg.Wait()
		var suspects int64
		for _, e := range s.All() {
			require.Zero(t, e.Status(time.Now()).InFlight)
			if e.suspect() {
				suspects++
			}
		}
		require.Equal(t, suspects, s.suspect.Load())
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return
	}
	now := time.Now()
	for _, p := range policies {
		s := newTestSet(Config{Policy: p.Policy, SlowStart: time.Hour, Ejection: Ejection{Consecutive: 5, SuccessRate: 0.5, Volume: 10, Base: time.Second, MaxShare: 0.5}}, now, keysUpTo(3)...)
		s.All()[0].Checked(false, now)
		s.All()[0].Checked(true, now)
		attempts(s.All()[1], 5, Failure, 1, now)
		var tried [2]*Endpoint[int]
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			for _, o := range []Outcome{Success, Failure, Lost, Neutral} {
				e := s.Pick(1, nil, now)
				tried[0] = e
				attempt(e, o, time.Millisecond, now)
				attempt(s.Pick(1, tried[:1], now), Success, time.Millisecond, now)
			}
		}))
	}
}

func BenchmarkPick(b *testing.B) {
	for _, p := range policies {
		for _, n := range []int{3, 100} {
			for _, state := range []string{"fit", "one_out"} {
				b.Run(fmt.Sprintf("policy=%s/endpoints=%d/state=%s", p.name, n, state), func(b *testing.B) {
					b.ReportAllocs()
					now := time.Now()
					s := New[int](Config{Policy: p.Policy, Panic: 0.5})
					s.Replace(specsOf(keysUpTo(n)...), now)
					for i, e := range s.All() {
						attempt(e, Success, time.Duration(i+1)*time.Millisecond, now)
					}
					if state == "one_out" {
						s.All()[0].Checked(false, now)
					}
					var hash uint64
					for b.Loop() {
						hash++
						s.Pick(hash, nil, now)
					}
				})
			}
		}
	}
	for _, p := range policies {
		b.Run("policy="+p.name+"/endpoints=3/goroutines=GOMAXPROCS", func(b *testing.B) {
			b.ReportAllocs()
			now := time.Now()
			s := New[int](Config{Policy: p.Policy})
			s.Replace(specsOf(keysUpTo(3)...), now)
			b.RunParallel(func(pb *testing.PB) {
				for hash := uint64(0); pb.Next(); hash++ {
					s.Pick(hash, nil, now)
				}
			})
		})
	}
}

func BenchmarkAttempt(b *testing.B) {
	for _, o := range []struct {
		name string
		Outcome
	}{{"success", Success}, {"failure", Failure}, {"neutral", Neutral}} {
		b.Run("outcome="+o.name, func(b *testing.B) {
			b.ReportAllocs()
			now := time.Now()
			s := New[int](Config{Ejection: Ejection{SuccessRate: 0.1, Volume: 100, Base: time.Second, MaxShare: 0.5}})
			s.Replace(specsOf(keysUpTo(3)...), now)
			e := s.All()[0]
			for b.Loop() {
				now = now.Add(time.Millisecond)
				attempt(e, o.Outcome, time.Millisecond, now)
			}
		})
	}
}
