package work

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

var (
	// ErrDropped is what a job ends with that Stop did not let run.
	ErrDropped = errors.New("job dropped")
	// ErrPanicked is wrapped by what a job ends with that did not return.
	ErrPanicked = errors.New("job panicked")
)

// A Job is something to be done by a Queue.
type Job struct {
	Name string // for reports
	Do   func(ctx context.Context) error
	Done func(error) // called once, at the end, with nil or the last error; may be nil
}

// QueueConfig says how a Queue works. Only Go must be there.
//
// The functions, and Done of each job, are called outside locks, mostly by
// workers: a slow one holds a worker up, one that panics is reported. They may
// Submit, but may not wait for the queue that waits for them.
type QueueConfig struct {
	Name    string // of the workers' tasks
	Workers int    // how many jobs run at once, at least one
	Size    int    // how many more may be inside, queued or waiting for a retry

	Retries    int           // of each job, after its first run
	Backoff    time.Duration // before the first retry, doubled before each further one, ±50 %
	MaxBackoff time.Duration // where the doubling ends, at least Backoff

	OnSuccess func(Job)                                // nil: nothing
	OnFailure func(Job, error)                         // nil: nothing
	OnPanic   func(name string, v any, stack []byte)   // as in NewTasks, of jobs and their callbacks
	Go        func(name string, f func()) (taken bool) // starts a worker, or refuses; must not wait for it
}

// QueueStats says what became of the jobs that were submitted: each is counted
// in one of the first six.
type QueueStats struct {
	Queued, Running, Waiting   int // waiting for a retry
	Processed, Failed, Dropped uint64
	Retried                    uint64 // runs beyond the first
}

// Queue runs jobs on a fixed number of workers. A worker lives as long as there
// is a job for it, and the order is that of submission. A job that fails is
// queued again after a while, up to a limit, and holds no worker meanwhile; one
// that panics has failed for good.
//
// Use NewQueue. A Queue is safe for concurrent use and must not be copied.
type Queue struct {
	c      QueueConfig
	ctx    context.Context // of the jobs
	cut    context.CancelCauseFunc
	policy backoff.ExponentialBackOff // copied at a job's first failure

	mu      sync.Mutex
	stopped bool
	queued  list
	waiting map[*job]*time.Timer // until their retry
	workers int                  // at least one while a job is queued
	stats   QueueStats           // but for Queued and Waiting
	last    uint64               // number of the job taken last
	inside  int                  // jobs taken whose callbacks have not all returned
	waiters map[*waiter]struct{}
}

// A job is a Job inside.
type job struct {
	Job
	number  uint64
	next    *job   // in a list
	failed  *again // from the first failure on
	dropped bool
}

// again is what a job needs to be retried.
type again struct {
	err   error // the last one
	tries int   // retries so far, also one to come
	waits backoff.ExponentialBackOff
}

// panicked is the error of a job that did not return. The value speaks when it
// is asked: that may be code of the job's, too.
type panicked struct{ value any }

func (p panicked) Error() string { return fmt.Sprintf("%v: %v", ErrPanicked, p.value) }
func (p panicked) Unwrap() error { return ErrPanicked }

// A list is a queue of jobs. Its zero value is empty.
type list struct {
	first, last *job
	n           int
}

// A waiter waits for the jobs up to a number.
type waiter struct {
	last uint64
	left int
	done chan struct{}
}

// NewQueue returns a queue that is empty and has no worker yet.
func NewQueue(c QueueConfig) *Queue {
	c.Workers, c.Size = max(c.Workers, 1), max(c.Size, 0)
	initial := min(max(c.Backoff, 0), math.MaxInt64/2) // 1.5 times it still is a Duration
	q := &Queue{
		c: c,
		policy: backoff.ExponentialBackOff{
			InitialInterval:     initial,
			RandomizationFactor: 0.5,
			Multiplier:          2,
			MaxInterval:         min(max(c.MaxBackoff, initial), math.MaxInt64/2),
			MaxElapsedTime:      0, // the number of retries rules
			Stop:                backoff.Stop,
			Clock:               backoff.SystemClock,
		},
		waiting: make(map[*job]*time.Timer),
		waiters: make(map[*waiter]struct{}),
	}
	q.policy.Reset()
	q.ctx, q.cut = context.WithCancelCause(context.Background())
	return q
}

// Submit reports whether the queue took the job. It never waits: a job is
// dropped, and nothing of it called, when the queue is full or stopped or gets
// no worker.
func (q *Queue) Submit(j Job) bool { return q.SubmitAll([]Job{j}) == 1 }

// SubmitAll submits jobs in their order, as one, and returns how many were
// taken: the first ones. The others are dropped as Submit says.
func (q *Queue) SubmitAll(jobs []Job) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, j := range jobs {
		if !q.room() || !q.hire() {
			q.stats.Dropped += uint64(len(jobs) - i)
			return i
		}
		q.last++
		q.inside++
		q.queued.push(&job{Job: j, number: q.last})
	}
	return len(jobs)
}

// room reports whether one more job may come in; q.mu is held.
func (q *Queue) room() bool {
	return !q.stopped && q.queued.n+q.stats.Running+len(q.waiting) < q.c.Workers+q.c.Size
}

// hire sees to it that there is a worker for what is queued next, and reports
// whether there is; q.mu is held, so that a new one comes too late for nothing.
func (q *Queue) hire() bool {
	if q.workers < q.c.Workers && q.c.Go(q.c.Name, q.work) {
		q.workers++
	}
	return q.workers > 0
}

// work is a worker: it runs jobs until none is queued.
func (q *Queue) work() { each(q.next, q.run) }

// each has f do with whatever next yields, also after one that ends its
// goroutine (runtime.Goexit): the rest is done on the way out.
func each(next func() *job, f func(*job)) {
	all := false
	defer func() {
		if !all {
			each(next, f)
		}
	}()
	for j := next(); j != nil; j = next() {
		f(j)
	}
	all = true
}

// next takes a job from the queue, or the worker off the payroll.
func (q *Queue) next() *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	j := q.queued.pop()
	if j == nil {
		q.workers--
		return nil
	}
	q.stats.Running++
	if j.failed != nil {
		q.stats.Retried++
	}
	return j
}

// run leaves through its defers whatever the job does.
func (q *Queue) run(j *job) {
	returned, err := false, error(panicked{"runtime.Goexit"})
	defer func() {
		if q.settle(j, returned, err) {
			q.tell(j, err)
		}
	}()
	returned, err = q.try(j)
}

func (q *Queue) try(j *job) (returned bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicked{v}
			report(j.Name, v, q.c.OnPanic)
		}
	}()
	err = j.Do(q.ctx)
	return true, err
}

// settle counts a job that has run, and reports whether it has ended: it has
// not when it will be retried.
func (q *Queue) settle(j *job, returned bool, err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stats.Running--
	switch {
	case err == nil:
		q.stats.Processed++
	case returned && q.retry(j, err):
		return false
	default:
		q.stats.Failed++
	}
	return true
}

// retry has a job wait for another run, if it may have one; q.mu is held.
func (q *Queue) retry(j *job, err error) bool {
	if q.stopped || q.c.Retries <= 0 {
		return false
	}
	if j.failed == nil {
		j.failed = &again{waits: q.policy}
	}
	if j.failed.tries >= q.c.Retries {
		return false
	}
	j.failed.err = err
	j.failed.tries++
	q.waiting[j] = time.AfterFunc(j.failed.waits.NextBackOff(), func() { q.wake(j) })
	return true
}

// wake queues a job whose time has come, unless there is nobody to run it.
func (q *Queue) wake(j *job) {
	if !q.woken(j) {
		q.tell(j, j.failed.err)
	}
}

func (q *Queue) woken(j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.waiting[j]; !ok {
		return true // Stop has it
	}
	delete(q.waiting, j)
	if !q.hire() {
		q.stats.Failed++
		return false
	}
	q.queued.push(j)
	return true
}

// tell calls back, and then those who wait for the job.
func (q *Queue) tell(j *job, err error) {
	defer q.ended(j)
	if j.Done != nil {
		defer q.guard(j, func() { j.Done(err) })
	}
	switch {
	case err == nil && q.c.OnSuccess != nil:
		q.guard(j, func() { q.c.OnSuccess(j.Job) })
	case err != nil && !j.dropped && q.c.OnFailure != nil:
		q.guard(j, func() { q.c.OnFailure(j.Job, err) })
	}
}

func (q *Queue) guard(j *job, callback func()) {
	defer rescue(j.Name, q.c.OnPanic)
	callback()
}

func (q *Queue) ended(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inside--
	for w := range q.waiters {
		if j.number > w.last {
			continue
		}
		if w.left--; w.left == 0 {
			close(w.done)
		}
	}
}

// Wait waits until every job taken before has ended, and its callbacks have
// returned. When ctx ends first, it returns the cause.
func (q *Queue) Wait(ctx context.Context) error {
	w := &waiter{done: make(chan struct{})}
	q.mu.Lock()
	w.last, w.left = q.last, q.inside
	if w.left == 0 {
		q.mu.Unlock()
		return nil
	}
	q.waiters[w] = struct{}{}
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		delete(q.waiters, w)
		q.mu.Unlock()
	}()
	return idle(ctx, w.done)
}

// Stop has the queue take no more jobs, and waits as Wait does. What is queued
// runs first with drain, and is dropped without: it ends with ErrDropped. A job
// that failed before is not retried any more: waiting for that, or queued for
// it and not drained, it ends with its last error. Stop calls back itself for
// what does not run.
//
// When ctx ends first, Stop drops what is still queued, ends the context of the
// jobs that run, with ErrShutdown as its cause, and returns the cause of its
// own. It may be called again, also at the same time.
func (q *Queue) Stop(ctx context.Context, drain bool) error {
	each(q.halt(drain).pop, q.giveUp)
	err := q.Wait(ctx)
	if err == nil {
		q.cut(ErrShutdown)
		return nil
	}
	rest := q.halt(false)
	q.cut(ErrShutdown)
	each(rest.pop, q.giveUp)
	return err
}

// halt closes the queue and takes out, in the order of submission, what will
// not run; the caller tells them.
func (q *Queue) halt(drain bool) *list {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	out := slices.Collect(maps.Keys(q.waiting))
	for _, timer := range q.waiting {
		timer.Stop()
	}
	clear(q.waiting)
	if !drain {
		for j := q.queued.pop(); j != nil; j = q.queued.pop() {
			out = append(out, j)
		}
	}
	slices.SortFunc(out, func(a, b *job) int { return cmp.Compare(a.number, b.number) })
	var taken list
	for _, j := range out {
		if j.dropped = j.failed == nil; j.dropped {
			q.stats.Dropped++
		} else {
			q.stats.Failed++
		}
		taken.push(j)
	}
	return &taken
}

// giveUp tells that a job will not run.
func (q *Queue) giveUp(j *job) {
	if j.dropped {
		q.tell(j, ErrDropped)
	} else {
		q.tell(j, j.failed.err)
	}
}

// Stats returns what the queue holds and what it has done. A job has ended in
// them before it is called back for.
func (q *Queue) Stats() QueueStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.stats
	s.Queued, s.Waiting = q.queued.n, len(q.waiting)
	return s
}

func (l *list) push(j *job) {
	j.next = nil
	if l.first == nil {
		l.first = j
	} else {
		l.last.next = j
	}
	l.last = j
	l.n++
}

// pop returns nil when the list is empty.
func (l *list) pop() *job {
	j := l.first
	if j != nil {
		l.first, j.next = j.next, nil
		l.n--
	}
	return j
}
