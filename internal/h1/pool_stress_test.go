package h1

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// Whatever callers do, in whatever order: no slot is lost or found, no
// connection leaks, and there are never more than Max.
func TestNoSlotIsLost(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			config := PoolConfig{Max: 1 + r.IntN(4), NoReuse: r.IntN(8) == 0}
			config.Min = r.IntN(config.Max + 1)
			for _, d := range []*time.Duration{&config.IdleTimeout, &config.MaxAge, &config.AcquireTimeout} {
				if r.IntN(2) == 0 {
					*d = time.Duration(1+r.IntN(3000)) * time.Millisecond
				}
			}
			p, e := testPool(t, config)
			e.set(func(ctx context.Context) error {
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case <-time.After(rand.N(50 * time.Millisecond)):
				}
				if rand.IntN(5) == 0 {
					return errors.New("refused")
				}
				return nil
			})
			var callers sync.WaitGroup
			for range 3 * config.Max {
				seed := r.Uint64()
				callers.Go(func() {
					r := rand.New(rand.NewPCG(seed, 2))
					for range 50 {
						useOnce(t, p, r)
					}
				})
			}
			if r.IntN(2) == 0 {
				time.Sleep(rand.N(5 * time.Second))
				p.Close()
			}
			callers.Wait()
			s := p.stats()
			assert.Zero(t, s.InUse)
			assert.Zero(t, s.Waiting)
			endPool(t, p, e)
		})
	}
}

// useOnce is a caller that may leave at any time, and does anything with what
// it gets.
func useOnce(t *testing.T, p *pool, r *rand.Rand) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+r.IntN(200))*time.Millisecond)
	defer cancel()
	c := p.tryGet()
	if c == nil {
		var err error
		if c, err = p.get(ctx); err != nil {
			return
		}
	}
	c.surplus = func() {}
	if r.IntN(6) == 0 {
		var err error
		if c, err = p.replace(ctx, c, DiscardClosed); err != nil {
			return
		}
	}
	time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
	if c.uses > 0 && r.IntN(4) == 0 {
		fakeOf(c).seen.Store(int32(r.IntN(3)))
	}
	if r.IntN(5) == 0 {
		p.drop(c, DiscardError)
		return
	}
	p.put(c, time.Now())
	time.Sleep(time.Duration(r.IntN(10)) * time.Millisecond)
}

// The same on real processors and without pauses, for the race detector; Close
// comes in the middle.
func TestPoolUnderConcurrentUse(t *testing.T) {
	t.Parallel()
	for range 30 {
		p, e := testPool(t, PoolConfig{Max: 3, Min: 2, IdleTimeout: 80 * time.Millisecond, MaxAge: 90 * time.Millisecond, AcquireTimeout: time.Millisecond})
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for i := range 400 {
					c := p.tryGet()
					if c == nil {
						var err error
						if c, err = p.get(t.Context()); errors.Is(err, ErrClosed) {
							return
						} else if err != nil {
							continue
						}
					}
					if i%7 == 0 {
						p.drop(c, DiscardError)
						continue
					}
					p.put(c, time.Now())
					p.stats()
				}
			})
		}
		callers.Go(func() { // sweeps, one at a time as they come
			for range 20 {
				p.sweeps.Add(1)
				p.sweep()
			}
			p.Close()
		})
		callers.Wait()
		endPool(t, p, e)
	}
}
