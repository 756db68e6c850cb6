package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A watch samples what the process holds, and keeps the most.
type watch struct {
	cancel context.CancelFunc
	ended  sync.WaitGroup
	most   memory
}

func (c *candidate) beginWatch(every time.Duration) (nothing, error) {
	if c.watch != nil {
		return nothing{}, errors.New("it is watched already")
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{cancel: cancel}
	w.ended.Go(func() {
		for more := true; more; more = pause(ctx, every) {
			w.most.raise(readMemory())
		}
	})
	c.watch = w
	return nothing{}, nil
}

// endWatch returns the most of each figure since the watch began.
func (c *candidate) endWatch(nothing) (memory, error) {
	w := c.watch
	if w == nil {
		return memory{}, errors.New("it is not watched")
	}
	c.watch = nil
	w.cancel()
	w.ended.Wait()
	w.most.raise(readMemory())
	return w.most, nil
}

func (m *memory) raise(to memory) {
	m.Heap = max(m.Heap, to.Heap)
	m.Spans = max(m.Spans, to.Spans)
	m.Stacks = max(m.Stacks, to.Stacks)
	m.Live = max(m.Live, to.Live)
}
