package h1

import (
	"context"
	"errors"
	"os"
	"time"
)

// slack is how long an exchange waits before it watches its context.
const slack = 10 * time.Millisecond

// arm has reads end when they have to. While the context is not watched, that
// is soon: to look after it.
func (x *Exchange) arm(now time.Time) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.conn
	if x.aborted != nil {
		return x.aborted
	}
	at := x.due
	if x.unwatch == nil {
		if soon := now.Add(slack); at.IsZero() || soon.Before(at) {
			at = soon
		}
		if !c.armed.IsZero() && !c.armed.After(at) && c.armed.Sub(now) > slack/2 {
			return nil
		}
		if err := x.left(); err != nil { // where data comes all the time, no deadline passes
			return err
		}
	} else if at.Equal(c.armed) || !c.armed.IsZero() && c.armed.Before(at) && c.armed.After(now) {
		return nil
	}
	c.armed = at
	return c.SetReadDeadline(at)
}

// armWrite has writes end within the idle time, and that of the header.
func (x *Exchange) armWrite(c *conn) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.aborted != nil {
		return x.aborted
	}
	if c.unbuffered && x.unwatch == nil && x.conn == c {
		if err := x.watch(); err != nil {
			return err
		}
	}
	var at time.Time
	if x.Idle > 0 {
		at, x.whyWrite = time.Now().Add(x.Idle), IdleTimeout
	}
	if !x.answered && !x.Head.IsZero() && (at.IsZero() || !x.Head.After(at)) {
		at, x.whyWrite = x.Head, HeadTimeout
	}
	if !x.End.IsZero() && (at.IsZero() || x.End.Before(at)) {
		at, x.whyWrite = x.End, EndTimeout
	}
	if at.IsZero() && !c.writeArmed {
		return nil
	}
	c.writeArmed = !at.IsZero()
	return c.SetWriteDeadline(at)
}

// expired says why a deadline has passed; nil: it was only time to watch the
// context.
func (x *Exchange) expired(now time.Time, writing bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.aborted != nil:
		return x.aborted
	case !x.due.IsZero() && !now.Before(x.due):
		return x.why
	case writing:
		return x.whyWrite
	case x.unwatch == nil:
		return x.watch()
	}
	return nil
}

// watch has the end of the context abort the exchange. It is called under mu.
func (x *Exchange) watch() error {
	if err := x.left(); err != nil {
		return err
	}
	ctx, others := x.Context, x.Others
	x.unwatch = context.AfterFunc(ctx, func() {
		if err := left(ctx, others); err != nil {
			x.Abort(err)
		}
	})
	return nil
}

// left says what ended the context, if it has. It is called under mu.
func (x *Exchange) left() error {
	err := left(x.Context, x.Others)
	if err != nil {
		x.aborted = err
	}
	return err
}

// left says what ended ctx, if it has and nobody else waits.
func left(ctx context.Context, others Others) error {
	if ctx.Err() == nil || others != nil && others.Wait() {
		return nil
	}
	return context.Cause(ctx)
}

// await has the response's header come within Response of now. It is called
// under mu.
func (x *Exchange) await(now time.Time) {
	due := now.Add(x.Response)
	if !x.due.IsZero() && x.due.Before(due) {
		return
	}
	x.due, x.why = due, ResponseTimeout
	if c := x.conn; c != nil && x.unwatch != nil && x.aborted == nil {
		c.armed = due
		_ = c.SetReadDeadline(due)
	}
}

// Follow has the end of ctx, and no longer that of Context, end the exchange.
func (x *Exchange) Follow(ctx context.Context) {
	x.mu.Lock()
	unwatch := x.unwatch
	x.Context, x.Others, x.unwatch = ctx, nil, nil
	x.mu.Unlock()
	if unwatch != nil && !unwatch() {
		x.escaped = true
	}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
