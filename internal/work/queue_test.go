package work

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var errJob = errors.New("the job's own")

// open returns a queue whose waits are exact, and the tasks of its workers. The
// end of the test finds no worker left and each job counted once.
func open(t *testing.T, c QueueConfig) (*Queue, *Tasks) {
	t.Helper()
	ts := NewTasks(func(_ string, v any, _ []byte) { t.Errorf("a worker panicked: %v", v) })
	if c.Go == nil {
		c.Go = ts.Go
	}
	q := NewQueue(c)
	q.policy.RandomizationFactor = 0
	t.Cleanup(func() {
		if err := q.Stop(context.Background(), true); err != nil {
			t.Error(err)
		}
		ts.Close()
		<-ts.Idle()
		s := q.Stats()
		assert.Zero(t, s.Queued+s.Running+s.Waiting)
		assert.Zero(t, q.workers)
		assert.Zero(t, q.inside)
		assert.Empty(t, q.waiters)
	})
	return q, ts
}

func (s QueueStats) submitted() uint64 {
	return uint64(s.Queued+s.Running+s.Waiting) + s.Processed + s.Failed + s.Dropped
}

// A log keeps what happened, in order.
type log struct {
	mu   sync.Mutex
	said []string
}

func (l *log) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, fmt.Sprintf(format, args...))
}

func (l *log) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said
}

// job returns one that does nothing, or fails, and logs how it ended.
func (l *log) job(name string, err error) Job {
	return Job{
		Name: name,
		Do:   func(context.Context) error { return err },
		Done: func(err error) { l.add("%s: %v", name, err) },
	}
}

// lasting returns a job that takes that long, or until its context ends.
func lasting(d time.Duration) Job {
	return Job{Name: "lasting", Do: func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}}
}

func TestTenJobsThroughTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var succeeded, done atomic.Int64
		q, ts := open(t, QueueConfig{Name: "worker", Workers: 2, Size: 8, OnSuccess: func(Job) { succeeded.Add(1) }})
		assert.Empty(t, ts.Running(), "nothing runs before the first job")
		start := time.Now()
		for range 10 {
			j := lasting(time.Second)
			j.Done = func(err error) {
				assert.NoError(t, err)
				done.Add(1)
			}
			require.True(t, q.Submit(j))
		}
		synctest.Wait()
		assert.Equal(t, QueueStats{Queued: 8, Running: 2}, q.Stats())
		assert.Equal(t, map[string]int{"worker": 2}, ts.Running())
		require.NoError(t, q.Wait(t.Context()))
		assert.Equal(t, 5*time.Second, time.Since(start), "two at a time")
		assert.Equal(t, QueueStats{Processed: 10}, q.Stats())
		assert.EqualValues(t, 10, done.Load())
		assert.EqualValues(t, 10, succeeded.Load())
		synctest.Wait()
		assert.Empty(t, ts.Running(), "nothing runs after the last job")

		require.True(t, q.Submit(lasting(0)), "and then it works again")
		require.NoError(t, q.Wait(t.Context()))
		assert.Equal(t, QueueStats{Processed: 11}, q.Stats())
	})
}

func TestAnErrorFromAJobReachesItsCallback(t *testing.T) {
	t.Parallel()
	var l log
	q, _ := open(t, QueueConfig{
		OnSuccess: func(j Job) { l.add("success of %s", j.Name) },
		OnFailure: func(j Job, err error) {
			assert.Same(t, errJob, err)
			l.add("failure of %s", j.Name)
		},
	})
	j := l.job("job", errJob)
	j.Done = func(err error) {
		assert.Same(t, errJob, err)
		l.add("done")
	}
	require.True(t, q.Submit(j))
	require.NoError(t, q.Wait(t.Context()))
	assert.Equal(t, []string{"failure of job", "done"}, l.all())
	assert.Equal(t, QueueStats{Failed: 1}, q.Stats())
}

func TestAJobHasEndedInTheStatsBeforeItsCallback(t *testing.T) {
	t.Parallel()
	q, _ := open(t, QueueConfig{Workers: 1})
	var s QueueStats
	require.True(t, q.Submit(Job{Do: func(context.Context) error { return nil }, Done: func(error) { s = q.Stats() }}))
	require.NoError(t, q.Wait(t.Context()))
	assert.Equal(t, QueueStats{Processed: 1}, s)
}

func TestJobsRunInTheOrderOfSubmission(t *testing.T) {
	t.Parallel()
	var l log
	q, _ := open(t, QueueConfig{Workers: 1, Size: 4})
	require.True(t, q.Submit(l.job("a", nil)))
	require.Equal(t, 3, q.SubmitAll([]Job{l.job("b", nil), l.job("c", errJob), l.job("d", nil)}))
	require.NoError(t, q.Wait(t.Context()))
	assert.Equal(t, []string{"a: <nil>", "b: <nil>", "c: the job's own", "d: <nil>"}, l.all())
}

// What is inside never exceeds Workers + Size, wherever it is.
func TestFullQueueDrops(t *testing.T) {
	for _, tt := range []struct {
		name          string
		workers, size int
		first, second int // jobs in two batches
		want          QueueStats
	}{
		{"room left", 2, 3, 2, 2, QueueStats{Running: 2, Queued: 2}},
		{"just full", 2, 3, 2, 3, QueueStats{Running: 2, Queued: 3}},
		{"a batch is cut", 2, 3, 3, 4, QueueStats{Running: 2, Queued: 3, Dropped: 2}},
		{"a batch is too large", 1, 3, 0, 9, QueueStats{Running: 1, Queued: 3, Dropped: 5}},
		{"no queue", 2, 0, 1, 2, QueueStats{Running: 2, Dropped: 1}},
		{"negative is none", -1, -1, 1, 1, QueueStats{Running: 1, Dropped: 1}},
		{"nothing", 1, 1, 0, 0, QueueStats{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, _ := open(t, QueueConfig{Workers: tt.workers, Size: tt.size})
				batch := make([]Job, tt.first+tt.second)
				for i := range batch {
					batch[i] = lasting(time.Second)
					batch[i].Done = func(err error) { assert.NoError(t, err) }
				}
				taken := q.SubmitAll(batch[:tt.first]) + q.SubmitAll(batch[tt.first:])
				synctest.Wait()
				assert.Equal(t, tt.want, q.Stats())
				assert.Equal(t, tt.first+tt.second-int(tt.want.Dropped), taken)
				assert.Equal(t, taken < max(tt.workers, 1)+max(tt.size, 0), q.Submit(lasting(0)))
			})
		})
	}
}

func TestABatchIsTakenFromItsFront(t *testing.T) {
	t.Parallel()
	var l log
	q, _ := open(t, QueueConfig{Workers: 1, Size: 2})
	require.Equal(t, 3, q.SubmitAll([]Job{l.job("a", nil), l.job("b", nil), l.job("c", nil), l.job("d", nil), l.job("e", nil)}))
	require.NoError(t, q.Wait(t.Context()))
	assert.Equal(t, []string{"a: <nil>", "b: <nil>", "c: <nil>"}, l.all(), "nobody is told but by the result")
	assert.Equal(t, QueueStats{Processed: 3, Dropped: 2}, q.Stats())
}

// vain panics when it is printed, and again when that is.
type vain struct{}

func (v vain) Error() string { panic(v) }

func TestAPanickingJobKillsNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		do       func(context.Context) error
		reported any // nil: not
		text     string
	}{
		{"string", func(context.Context) error { panic("boom") }, "boom", "job panicked: boom"},
		{"error", func(context.Context) error { panic(errJob) }, errJob, "job panicked: the job's own"},
		{"abort of a handler", func(context.Context) error { panic(http.ErrAbortHandler) }, http.ErrAbortHandler, "job panicked: net/http: abort Handler"},
		{"a value that panics", func(context.Context) error { panic(vain{}) }, vain{}, ""},
		{"goexit", func(context.Context) error { runtime.Goexit(); return nil }, nil, "job panicked: runtime.Goexit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var reports, ends []any
			var l log
			q, _ := open(t, QueueConfig{
				Workers: 1, Size: 9, Retries: 3,
				OnFailure: func(_ Job, err error) { ends = append(ends, err) },
				OnPanic: func(name string, v any, stack []byte) {
					reports = append(reports, v)
					assert.Equal(t, "bad", name)
					assert.Contains(t, string(stack), "TestAPanickingJob", "the stack leads to the panic")
				},
			})
			bad := Job{Name: "bad", Do: tt.do, Done: func(err error) {
				require.ErrorIs(t, err, ErrPanicked)
				if tt.text != "" {
					assert.EqualError(t, err, tt.text)
				}
				l.add("bad")
			}}
			require.Equal(t, 4, q.SubmitAll([]Job{bad, l.job("good", nil), bad, l.job("good", nil)}))
			require.NoError(t, q.Wait(t.Context()))
			assert.Equal(t, []string{"bad", "good: <nil>", "bad", "good: <nil>"}, l.all())
			assert.Equal(t, QueueStats{Processed: 2, Failed: 2}, q.Stats(), "not retried")
			assert.Len(t, ends, 2)
			if tt.reported == nil {
				assert.Empty(t, reports)
			} else {
				assert.Equal(t, []any{tt.reported, tt.reported}, reports)
			}
		})
	}
}

func TestAJobWithoutAFunctionFails(t *testing.T) {
	t.Parallel()
	var reports int
	q, _ := open(t, QueueConfig{OnPanic: func(string, any, []byte) { reports++ }})
	require.True(t, q.Submit(Job{}))
	require.NoError(t, q.Wait(t.Context()))
	assert.Equal(t, QueueStats{Failed: 1}, q.Stats())
	assert.Equal(t, 1, reports)
}

func TestCallbacksMayPanicAndEndTheirGoroutine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		f       func()
		reports int
	}{
		{"panic", func() { panic("callback") }, 12}, // of which 3 are jobs
		{"goexit", runtime.Goexit, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var reports, done int
			q, _ := open(t, QueueConfig{
				Workers: 1, Size: 9,
				OnSuccess: func(Job) { tt.f() },
				OnFailure: func(Job, error) { tt.f() },
				OnPanic: func(string, any, []byte) {
					reports++
					tt.f()
				},
			})
			for range 3 {
				for _, do := range []func(context.Context) error{
					func(context.Context) error { return nil },
					func(context.Context) error { panic("job") },
				} {
					require.True(t, q.Submit(Job{Do: do, Done: func(error) {
						done++
						if done%2 == 1 {
							tt.f()
						}
					}}))
				}
			}
			require.NoError(t, q.Wait(t.Context()))
			assert.Equal(t, QueueStats{Processed: 3, Failed: 3}, q.Stats())
			assert.Equal(t, 6, done)
			assert.Equal(t, tt.reports, reports)
		})
	}
}

func TestJobsAndCallbacksMaySubmit(t *testing.T) {
	t.Parallel()
	var q *Queue
	var l log
	submit := func(name string) bool { return q.Submit(l.job(name, nil)) }
	q, _ = open(t, QueueConfig{Workers: 1, Size: 1, OnSuccess: func(j Job) {
		if j.Name == "first" {
			assert.True(t, submit("by OnSuccess"), "the first has ended, its place is free")
			assert.False(t, submit("surplus"))
		}
	}})
	require.True(t, q.Submit(Job{
		Name: "first",
		Do: func(context.Context) error {
			assert.True(t, submit("by Do"))
			assert.False(t, submit("surplus"))
			return nil
		},
		Done: func(error) { assert.False(t, submit("surplus")) },
	}))
	for range 2 {
		require.NoError(t, q.Wait(t.Context()))
	}
	assert.Equal(t, []string{"by Do: <nil>", "by OnSuccess: <nil>"}, l.all())
	assert.Equal(t, QueueStats{Processed: 3, Dropped: 3}, q.Stats())
}

func TestRetriesWaitLongerEachTime(t *testing.T) {
	for _, tt := range []struct {
		name             string
		retries          int
		initial, longest time.Duration
		failures         int             // then it succeeds
		runs             []time.Duration // since start
		want             QueueStats
	}{
		{"none", 0, time.Second, 0, 1, []time.Duration{0}, QueueStats{Failed: 1}},
		{"negative is none", -1, time.Second, 0, 1, []time.Duration{0}, QueueStats{Failed: 1}},
		{"not needed", 3, time.Second, 0, 0, []time.Duration{0}, QueueStats{Processed: 1}},
		{"success at last", 3, time.Second, time.Minute, 3, []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second}, QueueStats{Processed: 1, Retried: 3}},
		{"failure for good", 2, time.Second, time.Minute, 9, []time.Duration{0, time.Second, 3 * time.Second}, QueueStats{Failed: 1, Retried: 2}},
		{"up to the longest", 4, time.Second, 3 * time.Second, 9, []time.Duration{0, time.Second, 3 * time.Second, 6 * time.Second, 9 * time.Second}, QueueStats{Failed: 1, Retried: 4}},
		{"longest below the first", 2, time.Second, time.Millisecond, 9, []time.Duration{0, time.Second, 2 * time.Second}, QueueStats{Failed: 1, Retried: 2}},
		{"no wait", 2, 0, 0, 9, []time.Duration{0, 0, 0}, QueueStats{Failed: 1, Retried: 2}},
		{"negative is no wait", 2, -time.Second, -time.Second, 9, []time.Duration{0, 0, 0}, QueueStats{Failed: 1, Retried: 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, _ := open(t, QueueConfig{Retries: tt.retries, Backoff: tt.initial, MaxBackoff: tt.longest})
				start := time.Now()
				var runs []time.Duration
				ends := 0
				require.True(t, q.Submit(Job{
					Do: func(context.Context) error {
						runs = append(runs, time.Since(start))
						if len(runs) <= tt.failures {
							return fmt.Errorf("failure %d", len(runs))
						}
						return nil
					},
					Done: func(err error) {
						ends++
						if tt.want.Failed > 0 {
							assert.EqualError(t, err, fmt.Sprintf("failure %d", len(runs)), "the last one")
						} else {
							assert.NoError(t, err)
						}
					},
				}))
				require.NoError(t, q.Wait(t.Context()))
				assert.Equal(t, tt.runs, runs)
				assert.Equal(t, tt.want, q.Stats())
				assert.Equal(t, 1, ends)
			})
		})
	}
}

func TestRetriesAreJittered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 200
		q, _ := open(t, QueueConfig{Workers: n, Retries: 1, Backoff: time.Second})
		q.policy.RandomizationFactor = NewQueue(q.c).policy.RandomizationFactor
		start := time.Now()
		var mu sync.Mutex
		seen := map[time.Duration]bool{}
		for range n {
			require.True(t, q.Submit(Job{Do: func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				seen[time.Since(start)] = true
				return errJob
			}}))
		}
		require.NoError(t, q.Wait(t.Context()))
		delete(seen, 0)
		assert.Greater(t, len(seen), n*9/10)
		for d := range seen {
			assert.GreaterOrEqual(t, d, time.Second/2)
			assert.LessOrEqual(t, d, 3*time.Second/2+1)
		}
	})
}

func TestTheLongestBackoffIsADuration(t *testing.T) {
	t.Parallel()
	q := NewQueue(QueueConfig{Backoff: math.MaxInt64, MaxBackoff: math.MaxInt64})
	for range 100 {
		waits := q.policy
		for range 3 {
			assert.GreaterOrEqual(t, waits.NextBackOff(), time.Duration(math.MaxInt64/4))
		}
	}
}

func TestAWaitingRetryHoldsNoWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		q, ts := open(t, QueueConfig{Workers: 1, Size: 2, Retries: 1, Backoff: time.Minute})
		start := time.Now()
		q.Submit(l.job("bad", errJob))
		synctest.Wait()
		assert.Equal(t, QueueStats{Waiting: 1}, q.Stats())
		assert.Empty(t, ts.Running())

		require.True(t, q.Submit(l.job("good", nil)))
		synctest.Wait()
		assert.Equal(t, []string{"good: <nil>"}, l.all())
		assert.Zero(t, time.Since(start))
		assert.Equal(t, QueueStats{Waiting: 1, Processed: 1}, q.Stats())

		require.Equal(t, 2, q.SubmitAll([]Job{lasting(time.Hour), lasting(0), lasting(0)}), "what waits takes room")
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, QueueStats{Running: 1, Queued: 2, Processed: 1, Dropped: 1}, q.Stats(), "behind the others by now")
		require.NoError(t, q.Wait(t.Context()))
		assert.Equal(t, []string{"good: <nil>", "bad: the job's own"}, l.all())
		assert.Equal(t, time.Hour, time.Since(start))
	})
}

func TestWaitIsForWhatWasSubmittedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _ := open(t, QueueConfig{Workers: 9, Retries: 1, Backoff: 3 * time.Second})
		require.NoError(t, q.Wait(ended()), "nothing to wait for")
		start := time.Now()
		waiting := func(want time.Duration) {
			go func() {
				assert.NoError(t, q.Wait(context.Background()))
				assert.Equal(t, want, time.Since(start))
			}()
			synctest.Wait()
		}
		q.Submit(lasting(2 * time.Second))
		waiting(2 * time.Second)
		q.Submit(lasting(time.Second))
		waiting(2 * time.Second)
		q.Submit(Job{Do: func(context.Context) error { return errJob }})
		waiting(3 * time.Second) // its retry, too
		q.Submit(Job{Do: func(context.Context) error { return nil }, Done: func(error) { time.Sleep(4 * time.Second) }})
		waiting(4 * time.Second) // its callback, too
		q.Submit(lasting(time.Hour))

		boss := errors.New("the boss is waiting")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, boss)
		defer cancel()
		assert.Same(t, boss, q.Wait(ctx))
		assert.Empty(t, q.waiters)
		assert.ErrorIs(t, q.Wait(ended()), context.Canceled)
	})
}

func TestStopDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		q, _ := open(t, QueueConfig{Workers: 1, Size: 9, Retries: 2, Backoff: time.Minute})
		start := time.Now()
		q.Submit(l.job("failed before", errJob))
		synctest.Wait()
		q.SubmitAll([]Job{lasting(time.Second), l.job("good", nil), l.job("bad", errJob)})
		require.NoError(t, q.Stop(t.Context(), true))
		assert.Equal(t, time.Second, time.Since(start), "for no retry")
		assert.Equal(t, []string{"failed before: the job's own", "good: <nil>", "bad: the job's own"}, l.all())
		want := QueueStats{Processed: 2, Failed: 2}
		assert.Equal(t, want, q.Stats())
		assert.Equal(t, ErrShutdown, context.Cause(q.ctx))

		require.False(t, q.Submit(lasting(0)))
		require.Zero(t, q.SubmitAll([]Job{lasting(0), lasting(0)}))
		want.Dropped = 3
		require.NoError(t, q.Stop(ended(), false), "again")
		require.NoError(t, q.Wait(ended()))
		time.Sleep(time.Hour)
		assert.Equal(t, want, q.Stats())
	})
}

func TestStopDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		failures := 0
		q, _ := open(t, QueueConfig{
			Workers: 1, Size: 9, Retries: 2, Backoff: time.Second,
			OnFailure: func(Job, error) { failures++ },
		})
		start := time.Now()
		q.Submit(l.job("failed before", errJob))
		synctest.Wait()
		running := lasting(time.Minute)
		running.Done = func(err error) { l.add("running: %v", err) }
		q.SubmitAll([]Job{running, l.job("b", nil), l.job("c", nil)})
		time.Sleep(2 * time.Second) // the first is queued again
		q.Submit(l.job("d", nil))
		assert.Equal(t, QueueStats{Running: 1, Queued: 4}, q.Stats())
		require.NoError(t, q.Stop(t.Context(), false))
		assert.Equal(t, time.Minute, time.Since(start), "what runs may end")
		assert.Equal(t, []string{"failed before: the job's own", "b: job dropped", "c: job dropped", "d: job dropped", "running: <nil>"}, l.all())
		assert.Equal(t, QueueStats{Processed: 1, Failed: 1, Dropped: 3}, q.Stats())
		assert.Equal(t, 1, failures, "dropped is not failed")
	})
}

func TestStopCutsWhatItsContextDoesNotWaitFor(t *testing.T) {
	for _, drain := range []bool{true, false} {
		t.Run(fmt.Sprintf("drain=%t", drain), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l log
				q, _ := open(t, QueueConfig{Workers: 1, Size: 9, Retries: 2, Backoff: time.Second})
				running := lasting(time.Hour)
				running.Done = func(err error) { l.add("running: %v", err) }
				q.SubmitAll([]Job{running, l.job("queued", nil)})
				synctest.Wait()
				boss := errors.New("the boss is waiting")
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, boss)
				defer cancel()
				start := time.Now()
				require.Same(t, boss, q.Stop(ctx, drain))
				require.NoError(t, q.Wait(t.Context()))
				assert.Equal(t, time.Second, time.Since(start))
				assert.ElementsMatch(t, []string{"queued: job dropped", "running: cut by shutdown"}, l.all())
				assert.Equal(t, QueueStats{Failed: 1, Dropped: 1}, q.Stats())
			})
		})
	}
}

// One drains for as long as it takes, another has less patience.
func TestTwoStopsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _ := open(t, QueueConfig{Workers: 2, Size: 9})
		for range 8 {
			q.Submit(lasting(time.Minute))
		}
		start := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				assert.NoError(t, q.Stop(t.Context(), true))
				assert.Equal(t, 2*time.Minute, time.Since(start))
			})
		}
		time.Sleep(90 * time.Second)
		require.NoError(t, q.Stop(t.Context(), false))
		assert.Equal(t, 2*time.Minute, time.Since(start))
		wg.Wait()
		assert.Equal(t, QueueStats{Processed: 4, Dropped: 4}, q.Stats())
	})
}

func TestADroppedJobsCallbackMayDoItsWorst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := 0
		q, _ := open(t, QueueConfig{Workers: 1, Size: 99, OnPanic: func(string, any, []byte) { reports++ }})
		q.Submit(lasting(time.Minute))
		synctest.Wait()
		var told int
		for i := range 9 {
			require.True(t, q.Submit(Job{Done: func(err error) {
				assert.Same(t, ErrDropped, err)
				told++
				switch i % 3 {
				case 0:
					panic("callback")
				case 1:
					runtime.Goexit()
				case 2:
					assert.False(t, q.Submit(Job{}))
				}
			}}))
		}
		returned := false
		go func() {
			_ = q.Stop(t.Context(), false) // does not return: a callback ends its goroutine
			returned = true
		}()
		require.NoError(t, q.Wait(t.Context()))
		assert.False(t, returned)
		assert.Equal(t, 9, told)
		assert.Equal(t, 3, reports)
		assert.Equal(t, QueueStats{Processed: 1, Dropped: 12}, q.Stats())
	})
}

func TestNoWorkerNoJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		q, ts := open(t, QueueConfig{Workers: 2, Size: 9, Retries: 9, Backoff: time.Second})
		q.SubmitAll([]Job{lasting(10 * time.Second), l.job("bad", errJob)})
		time.Sleep(1500 * time.Millisecond) // one retry is over, one is to come
		ts.Close()                          // a shutdown
		assert.True(t, q.Submit(l.job("good", nil)), "the worker that is left does it")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"good: <nil>", "bad: the job's own"}, l.all(), "a retry fails when there is none")
		assert.False(t, q.Submit(l.job("late", nil)))
		assert.Equal(t, QueueStats{Processed: 2, Failed: 1, Dropped: 1, Retried: 2}, q.Stats())
	})
}

// The jobs of a queue in a life are waited for like all its tasks.
func TestShutdownWaitsForTheJobsOfAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLife(nil)
		q := NewQueue(QueueConfig{Name: "worker", Workers: 1, Size: 9, Go: l.Go})
		for range 5 {
			require.True(t, q.Submit(lasting(time.Second)))
		}
		start := time.Now()
		require.NoError(t, Shutdown(t.Context(), l))
		assert.Equal(t, 5*time.Second, time.Since(start))
		assert.Equal(t, QueueStats{Processed: 5}, q.Stats())
		assert.False(t, q.Submit(lasting(0)))
	})
}

// Each job that was taken runs or is dropped, is counted once and called back
// once, whatever happens beside it.
func TestQueueUnderStress(t *testing.T) {
	t.Parallel()
	for round := range 20 {
		var submitted, taken, runs, done, dropped, succeeded, failed, reports atomic.Int64
		ts := NewTasks(nil)
		q := NewQueue(QueueConfig{
			Workers: 4, Size: 50, Retries: 2, Backoff: 20 * time.Microsecond, MaxBackoff: 40 * time.Microsecond, Go: ts.Go,
			OnSuccess: func(Job) { succeeded.Add(1) },
			OnFailure: func(Job, error) { failed.Add(1) },
			OnPanic:   func(string, any, []byte) { reports.Add(1) },
		})
		one := func() Job {
			kind := rand.IntN(8)
			var once atomic.Bool
			return Job{
				Do: func(context.Context) error {
					runs.Add(1)
					switch kind {
					case 0:
						panic("job")
					case 1:
						runtime.Goexit()
					case 2, 3:
						return errJob
					}
					return nil
				},
				Done: func(err error) {
					if !once.CompareAndSwap(false, true) {
						t.Error("called back twice")
					}
					done.Add(1)
					if errors.Is(err, ErrDropped) {
						dropped.Add(1)
					}
				},
			}
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 100 {
					batch := []Job{one(), one(), one()}
					submitted.Add(4)
					if q.Submit(one()) {
						taken.Add(1)
					}
					taken.Add(int64(q.SubmitAll(batch)))
					s := q.Stats()
					assert.LessOrEqual(t, s.Queued+s.Running+s.Waiting, 54)
					assert.LessOrEqual(t, s.Running, 4)
				}
			})
		}
		wg.Go(func() { assert.NoError(t, q.Wait(t.Context())) })
		if round%2 == 0 {
			wg.Go(func() { _ = q.Stop(ended(), round%4 == 0) })
		}
		wg.Wait()
		require.NoError(t, q.Stop(t.Context(), round%3 == 0))
		ts.Close()
		<-ts.Idle()
		s := q.Stats()
		require.EqualValues(t, submitted.Load(), s.Processed+s.Failed+s.Dropped)
		require.Equal(t, s.submitted(), s.Processed+s.Failed+s.Dropped)
		require.Equal(t, taken.Load(), done.Load())
		require.EqualValues(t, submitted.Load()-taken.Load()+dropped.Load(), s.Dropped)
		require.EqualValues(t, succeeded.Load(), s.Processed)
		require.EqualValues(t, failed.Load(), s.Failed)
		require.EqualValues(t, taken.Load()-dropped.Load()+int64(s.Retried), runs.Load())
		require.Zero(t, q.workers+q.inside+len(q.waiters))
	}
}

func BenchmarkQueue(b *testing.B) {
	for _, workers := range []int{1, 4} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			ts := NewTasks(nil)
			q := NewQueue(QueueConfig{Workers: workers, Size: 1000, Go: ts.Go})
			j := Job{Do: func(context.Context) error { return nil }}
			batch := make([]Job, 100)
			for i := range batch {
				batch[i] = j
			}
			b.ReportAllocs()
			for b.Loop() {
				q.SubmitAll(batch)
				_ = q.Wait(b.Context())
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/job")
			ts.Close()
			<-ts.Idle()
		})
	}
	b.Run("batch=1", func(b *testing.B) {
		ts := NewTasks(nil)
		q := NewQueue(QueueConfig{Workers: 1, Go: ts.Go})
		j := Job{Do: func(context.Context) error { return nil }}
		b.ReportAllocs()
		for b.Loop() {
			q.Submit(j)
			_ = q.Wait(b.Context())
		}
		ts.Close()
		<-ts.Idle()
	})
}
