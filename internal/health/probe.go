// Package health asks the endpoints of services how they are, and says what
// that means for the whole, in the words of the draft
// draft-inadarei-api-health-check-06.
package health

import (
	"context"
	"sync"
	"time"
)

// Kept is for how long an answer is given again instead of asking anew: however
// many want to know, an endpoint is asked once in that time.
const Kept = time.Second

// An Answer is what came of a probe.
type Answer struct {
	At      time.Time     // when it came, or did not
	Took    time.Duration // from the sending on
	Code    int           // the HTTP status; zero: no answer
	Problem string        // from a short list, never an error's text; empty: the endpoint is well
}

// What may be wrong with an answer.
const (
	Late       = "no answer in time"
	None       = "no answer"
	Bad        = "bad answer"
	Troubled   = "server error"
	Panicked   = "the probe panicked"
	Terminated = "shut down"
)

// Judge says what is wrong with the answer to a request: with its status, or err,
// which says that there is none; expired, that its time has run out. An answer that
// was there in time is one, whatever its content takes.
func Judge(status int, err error, expired bool) string {
	switch {
	case err != nil && expired:
		return Late
	case err != nil:
		return None
	case status < 200: // 101: the rest is another protocol
		return Bad
	case status >= 500:
		return Troubled
	}
	return ""
}

// A Prober bounds how many probes run at once. It is safe for concurrent use.
type Prober struct{ slots chan struct{} }

// NewProber returns a prober for n probes at once.
func NewProber(n int) *Prober { return &Prober{make(chan struct{}, max(n, 1))} }

// An Endpoint is somebody to ask.
type Endpoint struct {
	// Go runs f on a goroutine, with a context that ends when nobody may be asked any
	// more; false: that is so already.
	Go func(f func(ctx context.Context)) bool
	// Ask asks, for at most Timeout, and returns the status of the answer, or an error
	// if there was none in time.
	Ask     func(ctx context.Context) (status int, err error)
	Timeout time.Duration
	OnPanic func(v any) // of Ask
}

// A Probe is what an endpoint has answered last. Its zero value has asked nobody.
// It is safe for concurrent use.
type Probe struct {
	mu   sync.Mutex
	last *Result // nil: none
}

// A Result is an answer that is on its way.
type Result struct {
	done   chan struct{}
	answer Answer // once done is closed
}

// Wait waits for the answer; false: ctx has ended before.
func (r *Result) Wait(ctx context.Context) bool {
	if r.over() {
		return true
	}
	select {
	case <-r.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// Answer returns the answer, after a Wait for it; Late, if that had no time for it.
func (r *Result) Answer() Answer {
	if !r.over() {
		return Answer{At: time.Now(), Problem: Late}
	}
	return r.answer
}

func (r *Result) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// Ask has e be asked, and does not wait for it, or returns what the last has
// answered, or is about to answer, unless that is too long ago. Whoever asked may
// leave: the answer is kept for others.
func (p *Probe) Ask(by *Prober, e *Endpoint) *Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.last; r != nil && (!r.over() || time.Since(r.answer.At) < Kept) {
		return r
	}
	r := &Result{done: make(chan struct{})}
	p.last = r
	if !e.Go(func(ctx context.Context) { r.run(ctx, by, e) }) {
		r.end(Answer{Problem: Terminated})
	}
	return r
}

func (r *Result) end(a Answer) {
	a.At = time.Now()
	r.answer = a
	close(r.done)
}

// run asks, once it is its turn.
func (r *Result) run(ctx context.Context, by *Prober, e *Endpoint) {
	answer := Answer{Problem: Terminated}
	defer func() { r.end(answer) }()
	select {
	case by.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-by.slots }()
	answer = e.ask(ctx)
}

// ask asks within the time that there is for it.
func (e *Endpoint) ask(ctx context.Context) (a Answer) {
	limited, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	start := time.Now()
	a.Problem = Panicked
	defer func() {
		if v := recover(); v != nil { // of the app's round tripper
			e.OnPanic(v)
		}
		a.Took = time.Since(start)
	}()
	status, err := e.Ask(limited)
	due, _ := limited.Deadline() // which whoever asked may have kept on its own clock
	a.Code, a.Problem = status, Judge(status, err, !time.Now().Before(due))
	if ctx.Err() != nil {
		a.Problem = Terminated
	}
	return a
}
