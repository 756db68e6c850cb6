package work

import (
	"maps"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Tasks runs functions on goroutines of their own, each under a name, until it
// is closed. No panic of a task leaves its goroutine.
//
// Use NewTasks. A Tasks is safe for concurrent use and must not be copied.
type Tasks struct {
	gate    Gate
	panics  atomic.Uint64
	onPanic func(name string, v any, stack []byte) // nil: panics are only counted

	mu      sync.Mutex
	running map[string]int // by name; a name that runs nothing has no key
}

// NewTasks returns an open Tasks. onPanic is called once for each task that
// panics, on the task's goroutine, with the recovered value and the stack of
// the panic; nil means that panics are counted and not reported.
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

// Panics returns how many panics were recovered.
func (t *Tasks) Panics() uint64 { return t.panics.Load() }

// run leaves through its defers whatever f does, runtime.Goexit included.
func (t *Tasks) run(name string, f func()) {
	defer t.done(name)
	defer t.rescue(name)
	f()
}

// rescue is deferred: it recovers and reports what f panicked with.
func (t *Tasks) rescue(name string) {
	v := recover()
	if v == nil {
		return
	}
	t.panics.Add(1)
	if t.onPanic == nil {
		return
	}
	defer func() {
		if recover() != nil { // the report itself panicked: there is nobody left to tell
			t.panics.Add(1)
		}
	}()
	t.onPanic(name, v, debug.Stack())
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
