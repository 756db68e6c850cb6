package work

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// ErrShutdown is the cause with which Shutdown ends what runs in the background
// and cuts what it cannot wait for.
var ErrShutdown = errors.New("cut by shutdown")

// Life is the coming and going at one place: the requests inside, the tasks
// they leave behind, the streams that end only when told to, and the fetches
// that Shutdown may have to cut.
//
// Use NewLife. A Life is safe for concurrent use and must not be copied.
type Life struct {
	gate       Gate // requests
	tasks      *Tasks
	background context.Context         // of the tasks that end with the requests
	stop       context.CancelCauseFunc // ends background

	draining atomic.Bool

	mu      sync.Mutex
	cut     bool // nothing begins any more
	fetches Link // ring of those under way
	streams map[*Stream]struct{}
	last    []func()
}

// A Cutter can be ended early, from another goroutine. Cut is called between
// Begin and End, and holds both up: it neither waits nor calls the Life.
type Cutter interface{ Cut(cause error) }

// A Link is a Cutter's place among those under way: a part of it, so that
// joining costs no memory. Its zero value is ready.
type Link struct {
	prev, next *Link // nil: not under way
	cutter     Cutter
}

// A Stream is a response that lasts until somebody ends it.
type Stream struct {
	life *Life
	end  func()
}

// NewLife returns a life whose tasks report their panics to onPanic, as
// NewTasks says.
func NewLife(onPanic func(name string, v any, stack []byte)) *Life {
	l := &Life{tasks: NewTasks(onPanic), streams: make(map[*Stream]struct{})}
	l.fetches.prev, l.fetches.next = &l.fetches, &l.fetches
	l.background, l.stop = context.WithCancelCause(context.Background())
	return l
}

// Enter reports whether a request may come in. If so, it calls Leave once.
func (l *Life) Enter() bool { return l.gate.Enter() }

// Leave undoes one Enter that returned true.
func (l *Life) Leave() { l.gate.Leave() }

// Closed reports whether Enter refuses.
func (l *Life) Closed() bool { return l.gate.Closed() }

// Inside returns how many requests are inside.
func (l *Life) Inside() int64 { return l.gate.Inside() }

// Go runs f as a named task; false once Shutdown has closed them.
func (l *Life) Go(name string, f func()) bool { return l.tasks.Go(name, f) }

// Background is Go for what has no end of its own, such as periodic work: the
// context ends, with ErrShutdown as its cause, once Shutdown has seen the last
// request leave, or cuts. Shutdown then waits for f as for every task.
func (l *Life) Background(name string, f func(ctx context.Context)) bool {
	return l.tasks.Go(name, func() { f(l.background) })
}

// Last has f called at the end of Shutdown, at each call of it. It is for
// construction: not safe beside Shutdown.
func (l *Life) Last(f func()) { l.last = append(l.last, f) }

// Open registers a stream. Drain calls end, once or more, without waiting for
// it; a life that is drained already does so before Open returns.
func (l *Life) Open(end func()) *Stream {
	s := &Stream{l, end}
	l.mu.Lock()
	l.streams[s] = struct{}{}
	l.mu.Unlock()
	if l.draining.Load() {
		end()
	}
	return s
}

// Close says that the stream has ended.
func (s *Stream) Close() {
	s.life.mu.Lock()
	delete(s.life.streams, s)
	s.life.mu.Unlock()
}

// Begin registers what a cut is to end, at its own link, and reports false if
// that has come already.
func (l *Life) Begin(at *Link, c Cutter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return false
	}
	at.cutter = c
	at.prev, at.next = l.fetches.prev, &l.fetches
	at.prev.next, at.next.prev = at, at
	return true
}

// End forgets what Begin registered. It may be called again.
func (l *Life) End(at *Link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at.next == nil {
		return
	}
	at.prev.next, at.next.prev = at.next, at.prev
	at.prev, at.next = nil, nil
}

// Drain tells the streams to end, also those still to come. Everything else
// goes on.
func (l *Life) Drain() {
	l.draining.Store(true)
	l.mu.Lock()
	open := make([]*Stream, 0, len(l.streams))
	for s := range l.streams {
		open = append(open, s)
	}
	l.mu.Unlock()
	for _, s := range open {
		s.end()
	}
}

// Refuse drains, and lets no request in any more. It does not wait.
func (l *Life) Refuse() {
	l.Drain()
	l.gate.Close()
}

// Refusing reports whether Refuse or Shutdown was called.
func (l *Life) Refusing() bool { return l.gate.Closed() }

// Quiet reports whether nobody is inside and no task runs. A life that refuses
// stays so.
func (l *Life) Quiet() bool { return l.gate.Inside() == 0 && l.tasks.gate.Inside() == 0 }

// Draining reports whether Drain or Shutdown was called.
func (l *Life) Draining() bool { return l.draining.Load() }

// cutAll ends all that is under way, and has nothing begin any more.
func (l *Life) cutAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for at := l.fetches.next; at != &l.fetches; at = at.next {
		at.cutter.Cut(ErrShutdown)
	}
}

// Shutdown ends several lives as one: it drains them, closes their gates and
// waits until nobody is inside and no task runs. When ctx ends first, it cuts
// the fetches and returns an error that names what was left and wraps the
// cause of ctx. It may be called again.
func Shutdown(ctx context.Context, lives ...*Life) error {
	for _, l := range lives {
		l.Refuse()
	}
	err := wait(ctx, lives)
	if err != nil {
		err = fmt.Errorf("shutdown cut %s: %w", leftOver(lives), err)
		for _, l := range lives {
			l.tasks.Close()
			l.stop(ErrShutdown)
			l.cutAll()
		}
	}
	for _, l := range lives {
		for _, f := range l.last {
			f()
		}
	}
	return err
}

// wait waits for all requests, and then, as a request may have started one
// until it left, for all tasks, of which those in the background are told.
func wait(ctx context.Context, lives []*Life) error {
	for _, l := range lives {
		if err := idle(ctx, l.gate.Idle()); err != nil {
			return err
		}
	}
	for _, l := range lives {
		l.stop(ErrShutdown)
	}
	for _, l := range lives {
		l.tasks.Close()
		if err := idle(ctx, l.tasks.Idle()); err != nil {
			return err
		}
	}
	return nil
}

// idle prefers what is idle already to a context that has ended.
func idle(ctx context.Context, ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	default:
	}
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leftOver says what is still running.
func leftOver(lives []*Life) string {
	var requests int64
	tasks := make(map[string]int)
	for _, l := range lives {
		requests += l.Inside()
		for name, n := range l.tasks.Running() {
			tasks[name] += n
		}
	}
	parts := []string{fmt.Sprintf("%d request(s)", requests)}
	for _, name := range slices.Sorted(maps.Keys(tasks)) {
		parts = append(parts, fmt.Sprintf("%d task(s) %q", tasks[name], name))
	}
	return strings.Join(parts, ", ")
}
