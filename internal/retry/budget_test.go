package retry

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func withdrawals(b *Budget) (n int) {
	for b.Withdraw() {
		n++
	}
	return n
}

func TestBudgetAllows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name             string
		ratio, perSecond float64
		fetches, want    int
	}{
		{"a quiet service has the floor", 0.1, 3, 0, 30},
		{"also at few fetches", 0.1, 3, 299, 30},
		{"both agree", 0.1, 3, 300, 30},
		{"a busy one has its share", 0.1, 3, 1000, 100},
		{"a share is rounded down", 0.1, 0, 19, 1},
		{"less than one is none", 0.1, 0.05, 9, 0},
		{"all", 1, 0, 50, 50},
		{"more than all", 2, 0, 50, 100},
		{"none", 0, 0, 1000, 0},
		{"negative is none", -1, -1, 1000, 0},
		{"not a number is none", math.NaN(), math.NaN(), 1000, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := NewBudget(tt.ratio, tt.perSecond)
				for range tt.fetches {
					b.Fetch()
				}
				require.EqualValues(t, tt.want, b.Allowed())
				require.Equal(t, tt.want, withdrawals(b))
				require.EqualValues(t, tt.want, b.Allowed(), "those that were taken included")
				fetches, retries, exhausted := b.Stats()
				require.EqualValues(t, tt.fetches, fetches)
				require.EqualValues(t, tt.want, retries)
				require.EqualValues(t, 1, exhausted)
			})
		})
	}
}

func TestBudgetWindowRolls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(0.5, 0)
		for range window { // one fetch in each second
			b.Fetch()
			time.Sleep(time.Second)
		}
		for left := window - 1; left >= 0; left-- { // the oldest leaves with each second
			fetches, _, _ := b.Stats()
			require.EqualValues(t, left, fetches)
			time.Sleep(time.Second)
		}

		b.Fetch()
		b.Fetch()
		require.Equal(t, 1, withdrawals(b))
		time.Sleep(window * time.Second)
		fetches, retries, exhausted := b.Stats()
		require.Zero(t, fetches)
		require.Zero(t, retries)
		require.EqualValues(t, 1, exhausted, "is never forgotten")

		time.Sleep(1000 * time.Hour)
		b.Fetch()
		b.Fetch()
		require.Equal(t, 1, withdrawals(b), "an old slot is used again")
	})
}

func TestBudgetBoundsAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(0.1, 3)
		const seconds, rate = 60, 1000
		var attempts int
		for range seconds * rate { // every attempt fails, two retries each
			p := NewPurse(3, b)
			p.First()
			for p.Take() {
			}
			attempts += p.Spent()
			time.Sleep(time.Second / rate)
		}
		require.LessOrEqual(t, attempts, seconds*rate*11/10+30)
		require.Greater(t, attempts, seconds*rate*109/100, "what is allowed is used")
	})
}

func TestBudgetIsSharedExactly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(0.1, 0)
		const goroutines, fetches = 8, 500
		var wg sync.WaitGroup
		var taken atomic.Int64
		for range goroutines {
			wg.Go(func() {
				for range fetches {
					b.Fetch()
				}
			})
		}
		wg.Wait()
		for range goroutines {
			wg.Go(func() { taken.Add(int64(withdrawals(b))) })
		}
		wg.Wait()
		require.EqualValues(t, goroutines*fetches/10, taken.Load())
		n, retries, exhausted := b.Stats()
		require.EqualValues(t, goroutines*fetches, n)
		require.EqualValues(t, taken.Load(), retries)
		require.EqualValues(t, goroutines, exhausted)
	})
}

func TestBudgetWhileSecondsPass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1, 0)
		var wg sync.WaitGroup
		var taken atomic.Int64
		for range 4 { // all wake at once and race for the slot of the new second
			wg.Go(func() {
				for range 3 * window {
					for range 50 {
						b.Fetch()
						if b.Withdraw() {
							taken.Add(1)
						}
					}
					time.Sleep(time.Second)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 4*3*window*50, taken.Load())
		fetches, retries, exhausted := b.Stats()
		require.EqualValues(t, 4*(window-1)*50, fetches)
		require.Equal(t, fetches, retries)
		require.Zero(t, exhausted)
	})
}

func TestBudgetAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return
	}
	b := NewBudget(1, 0)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		p := NewPurse(2, b)
		p.First()
		p.Take()
	}))
}

func BenchmarkBudgetFetch(b *testing.B) {
	b.Run("goroutines=1", func(b *testing.B) {
		b.ReportAllocs()
		budget := NewBudget(0.1, 3)
		for b.Loop() {
			budget.Fetch()
		}
	})
	b.Run("goroutines=GOMAXPROCS", func(b *testing.B) {
		b.ReportAllocs()
		budget := NewBudget(0.1, 3)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				budget.Fetch()
			}
		})
	})
}

func BenchmarkBudgetWithdraw(b *testing.B) {
	for _, state := range []struct {
		name  string
		ratio float64
	}{{"allowed", 2}, {"exhausted", 0}} {
		b.Run("state="+state.name, func(b *testing.B) {
			b.ReportAllocs()
			budget := NewBudget(state.ratio, 0)
			for b.Loop() {
				budget.Fetch()
				budget.Withdraw()
			}
		})
	}
}

func TestAdjustKeepsWhatWasCounted(t *testing.T) {
	t.Parallel()
	b := NewBudget(0, 0.2)
	for range 10 {
		b.Fetch()
	}
	require.True(t, b.Withdraw())
	require.True(t, b.Withdraw())
	require.False(t, b.Withdraw())
	b.Adjust(0.3, 0)
	require.True(t, b.Withdraw(), "the third of ten")
	require.False(t, b.Withdraw())
	b.Adjust(0, 0)
	require.False(t, b.Withdraw())
}
