package health

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		status  int
		err     error
		expired bool
		want    string
	}{
		{200, nil, false, ""}, {204, nil, false, ""}, {301, nil, false, ""}, {404, nil, false, ""}, {499, nil, false, ""},
		{500, nil, false, Troubled}, {503, nil, false, Troubled}, {101, nil, false, Bad},
		{0, errors.New("reset"), false, None}, {0, errors.New("deadline"), true, Late}, {200, errors.New("deadline"), true, Late},
		{200, nil, true, ""}, {500, nil, true, Troubled},
	} {
		assert.Equal(t, c.want, Judge(c.status, c.err, c.expired), "%d %v %v", c.status, c.err, c.expired)
	}
}

// upstream is what a test asks: it counts, and answers after a while.
type upstream struct {
	mu                 sync.Mutex
	asked, now, most   int
	takes              time.Duration
	status             int
	panics             any
	reported           []any
	ctx                context.Context
	refuses            bool
	timeout            time.Duration
	sawEnd             bool
	goroutinesFinished sync.WaitGroup
}

func (u *upstream) endpoint() *Endpoint {
	return &Endpoint{
		Go: func(f func(context.Context)) bool {
			if !u.refuses {
				ctx := u.ctx
				u.goroutinesFinished.Go(func() { f(ctx) })
			}
			return !u.refuses
		},
		Ask: u.ask, Timeout: u.timeout, OnPanic: func(v any) { u.reported = append(u.reported, v) },
	}
}

func (u *upstream) ask(ctx context.Context) (int, error) {
	u.mu.Lock()
	u.asked++
	u.now++
	u.most = max(u.most, u.now)
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		u.now--
		u.mu.Unlock()
	}()
	select {
	case <-time.After(u.takes):
	case <-ctx.Done():
		u.sawEnd = true
		return 0, ctx.Err()
	}
	if u.panics != nil {
		panic(u.panics)
	}
	return u.status, nil
}

func newUpstream(t *testing.T) *upstream {
	return &upstream{status: 200, takes: 10 * time.Millisecond, ctx: t.Context(), timeout: time.Second}
}

func TestOneProbeASecondHoweverManyAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, p, by := newUpstream(t), new(Probe), NewProber(4)
		for second := range 3 {
			var wg sync.WaitGroup
			for range 1000 {
				wg.Go(func() {
					r := p.Ask(by, u.endpoint())
					assert.True(t, r.Wait(t.Context()))
					assert.Equal(t, 200, r.Answer().Code)
					assert.Equal(t, u.takes, r.Answer().Took)
				})
			}
			wg.Wait()
			assert.Equal(t, second+1, u.asked)
			time.Sleep(Kept - time.Nanosecond)
			p.Ask(by, u.endpoint())
			assert.Equal(t, second+1, u.asked, "the answer is kept for all of its second")
			time.Sleep(time.Nanosecond)
		}
	})
}

func TestWhoLeavesDoesNotWaitAndLeavesTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, p, by := newUpstream(t), new(Probe), NewProber(1)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		for range 1000 {
			r := p.Ask(by, u.endpoint())
			assert.False(t, r.Wait(gone))
			assert.Equal(t, Answer{At: start, Problem: Late}, r.Answer(), "as far as that one knows")
		}
		assert.Zero(t, time.Since(start))
		time.Sleep(u.takes)
		synctest.Wait()
		r := p.Ask(by, u.endpoint())
		require.True(t, r.Wait(gone), "it is there already")
		assert.Equal(t, 200, r.Answer().Code)
		assert.Equal(t, 1, u.asked)
	})
}

func TestProbesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, by := newUpstream(t), NewProber(3)
		var results []*Result
		for range 10 {
			results = append(results, new(Probe).Ask(by, u.endpoint()))
		}
		start := time.Now()
		for _, r := range results {
			require.True(t, r.Wait(t.Context()))
			assert.Equal(t, u.takes, r.Answer().Took, "the wait for its turn is not the endpoint's")
		}
		assert.Equal(t, 3, u.most)
		assert.Equal(t, 4*u.takes, time.Since(start))
	})
}

func TestWhatBecomesOfAProbe(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*upstream)
		want   Answer
	}{
		{"well", func(*upstream) {}, Answer{Code: 200, Took: 10 * time.Millisecond}},
		{"troubled", func(u *upstream) { u.status = 502 }, Answer{Code: 502, Took: 10 * time.Millisecond, Problem: Troubled}},
		{"late", func(u *upstream) { u.takes = time.Minute }, Answer{Took: time.Second, Problem: Late}},
		{"panicked", func(u *upstream) { u.panics = "no" }, Answer{Took: 10 * time.Millisecond, Problem: Panicked}},
		{"refused", func(u *upstream) { u.refuses = true }, Answer{Problem: Terminated}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUpstream(t)
				c.change(u)
				r := new(Probe).Ask(NewProber(1), u.endpoint())
				require.True(t, r.Wait(t.Context()))
				got := r.Answer()
				assert.Equal(t, time.Now(), got.At)
				got.At = time.Time{}
				assert.Equal(t, c.want, got)
				assert.Equal(t, c.name == "panicked", len(u.reported) == 1)
			})
		})
	}
}

func TestTheEndOfAllEndsProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		u, by := newUpstream(t), NewProber(1)
		u.ctx, u.takes = ctx, time.Minute
		runs, waits := new(Probe).Ask(by, u.endpoint()), new(Probe).Ask(by, u.endpoint())
		synctest.Wait()
		cancel()
		for _, r := range []*Result{runs, waits} {
			require.True(t, r.Wait(t.Context()))
			assert.Equal(t, Terminated, r.Answer().Problem)
		}
		assert.Equal(t, 1, u.asked)
		assert.True(t, u.sawEnd)
		u.goroutinesFinished.Wait()
		u = newUpstream(t)
		assert.True(t, new(Probe).Ask(by, u.endpoint()).Wait(t.Context()), "the turn was given back")
	})
}
