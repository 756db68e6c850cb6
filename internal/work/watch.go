package work

import (
	"context"
	"sync"
)

// A Watch is background work of a life that begins when it is needed first, and
// may end before the life does. It is safe for concurrent use. Make it with
// NewWatch, which starts nothing.
type Watch struct {
	name  string
	run   func(context.Context)
	once  sync.Once
	ended context.Context
	end   context.CancelCauseFunc
}

// NewWatch returns a watch that does run, under that name among the life's tasks.
func NewWatch(name string, run func(context.Context)) *Watch {
	w := &Watch{name: name, run: run}
	w.ended, w.end = context.WithCancelCause(context.Background())
	return w
}

// Start has l run the watch, unless that was done before, or Stop was called. Its
// context is that of Background, and ends with Stop, too.
func (w *Watch) Start(l *Life) {
	w.once.Do(func() {
		if w.ended.Err() == nil {
			l.Background(w.name, w.watch)
		}
	})
}

func (w *Watch) watch(ctx context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.ended, func() { cancel(ErrShutdown) })()
	w.run(ctx)
}

// Stop ends the watch, and does not wait for it.
func (w *Watch) Stop() { w.end(ErrShutdown) }
