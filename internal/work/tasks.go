package work

import (
	"maps"
	"runtime/debug"
	"sync"
)

// Tasks runs functions on goroutines of their own, each under a name, until it
// is closed. No panic of a task leaves its goroutine.
//
// Use NewTasks. A Tasks is safe for concurrent use and must not be copied.
type Tasks struct {
	gate    Gate
	onPanic func(name string, v any, stack []byte) // nil: panics are not reported

	mu      sync.Mutex
	running map[string]int // by name; a name that runs nothing has no key
}

// NewTasks returns an open Tasks. onPanic is called once for each task that
// panics, on the task's goroutine, with the recovered value and the stack of
// the panic; nil means that panics are recovered and not reported.
func NewTasks(onPanic func(name string, v any, stack []byte)) *Tasks {
	return &Tasks{onPanic: onPanic, running: make(map[string]int)}
}

// Go runs f on a new goroutine and reports whether it did: it does not once
// Close was called. Names are few and fixed, never taken from a request.
func (t *Tasks) Go(name string, f func()) bool {
	if !t.gate.Enter() {
		return false
	}
	t.mu.Lock()
	t.running[name]++
	t.mu.Unlock()
	go t.run(name, f)
	return true
}

// Close refuses every later Go. What runs goes on: wait for it with Idle.
func (t *Tasks) Close() { t.gate.Close() }

// Idle returns a channel that is closed once Tasks is closed and no task runs.
// Nothing is left in Running by then.
func (t *Tasks) Idle() <-chan struct{} { return t.gate.Idle() }

// Running returns how many tasks run under each name. The map is the caller's.
func (t *Tasks) Running() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.running)
}

// run leaves through its defers whatever f does, runtime.Goexit included.
func (t *Tasks) run(name string, f func()) {
	defer t.done(name)
	defer rescue(name, t.onPanic)
	f()
}

// done is the last thing a task does, so that Idle implies that Running is empty.
func (t *Tasks) done(name string) {
	t.mu.Lock()
	if t.running[name]--; t.running[name] == 0 {
		delete(t.running, name)
	}
	t.mu.Unlock()
	t.gate.Leave()
}

// rescue is deferred: it recovers and reports a panic.
func rescue(name string, onPanic func(name string, v any, stack []byte)) {
	if v := recover(); v != nil {
		report(name, v, onPanic)
	}
}

// report is called while the goroutine panics, so that the stack leads there.
func report(name string, v any, onPanic func(name string, v any, stack []byte)) {
	if onPanic == nil {
		return
	}
	defer func() { _ = recover() }() // the report itself panicked: there is nobody left to tell
	onPanic(name, v, debug.Stack())
}
