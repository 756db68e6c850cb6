// Package h1 is an HTTP/1.1 client for a gateway (RFC 9112): a connection pool
// for each endpoint, and exchanges that run on the goroutine of their caller.
//
// It differs from net/http's client where a proxy with a shared cache has to:
// it looks at a connection right before it uses it again, sends nothing twice,
// refuses responses whose framing is in doubt, says whether anything of a
// request was sent, reports interim responses as they come, and knows what
// came after a response that should have been the last byte.
package h1

import (
	"context"
	"errors"
	"time"
)

// A Config says how a Client connects, and for how long it keeps connections.
type Config struct {
	Pool PoolConfig
	Head int // bytes of a response head; 0: 64 KiB, which is the most
}

// Client sends requests to one endpoint. It is safe for concurrent use. Make
// it with New.
type Client struct {
	pool    *pool
	limits  limits
	reuse   bool
	buffers buffers
}

// New makes a client. It connects to nothing.
func New(c Config) *Client {
	cl := &Client{pool: newPool(c.Pool), limits: limits{bytes: c.Head, fields: maxFields}, reuse: !c.Pool.NoReuse}
	if c.Head <= 0 || c.Head > maxHeadBytes {
		cl.limits.bytes = maxHeadBytes
	}
	return cl
}

// Close closes what is idle; what is in use closes when it is done. Exchanges
// that begin later fail with ErrClosed.
func (cl *Client) Close() { cl.pool.Close() }

// Retire closes what is idle, and everything else once it is done. Exchanges that
// begin later have a connection of their own.
func (cl *Client) Retire() { cl.pool.Retire() }

// Stats returns what the connections do.
func (cl *Client) Stats() Stats { return cl.pool.stats() }

const (
	maxHeadBytes = bufferSize // which a head has to fit
	maxFields    = 200
)

// A TimeoutError says which time ran out.
type TimeoutError string

// The times of an exchange.
const (
	HeadTimeout     TimeoutError = "the time to the response header"
	ResponseTimeout TimeoutError = "the time from the request's end to the response header"
	IdleTimeout     TimeoutError = "the body idle time"
	EndTimeout      TimeoutError = "the maximum duration"
)

func (e TimeoutError) Error() string { return string(e) + " ran out" }

// Timeout is true.
func (e TimeoutError) Timeout() bool { return true }

// BrokenError is a connection that failed in the middle of an exchange.
type BrokenError struct {
	Err    error
	Unsent bool // the upstream cannot have seen any of the request
	Heard  bool // it has begun to answer
	Reused bool // the connection had been used before
}

func (e *BrokenError) Error() string { return "connection broke: " + e.Err.Error() }

// Unwrap returns what the connection failed with.
func (e *BrokenError) Unwrap() error { return e.Err }

// ErrRequest is a request that cannot be put into HTTP/1.1.
var ErrRequest = errors.New("the request has a field or target that must not be sent")

// errUpload is what a request's content failed with.
type errUpload struct{ err error }

func (e *errUpload) Error() string { return "read request content: " + e.err.Error() }
func (e *errUpload) Unwrap() error { return e.err }

// connect has a connection for x: an idle one, or a new one.
func (cl *Client) connect(x *Exchange) (*conn, error) {
	if c := cl.pool.tryGet(); c != nil {
		return c, nil
	}
	return x.obtain(func(ctx context.Context) (*conn, error) {
		if !cl.pool.trySlot(ctx) {
			x.reached(StepPool)
			if err := cl.pool.slot(ctx); err != nil {
				return nil, err
			}
			if c := cl.pool.ready(); c != nil {
				return c, nil
			}
		}
		x.reached(StepDial)
		return cl.pool.fill(ctx)
	})
}

// replace has another connection for x, whose own has died while it was idle.
func (cl *Client) replace(x *Exchange) (*conn, error) {
	c, why := x.detach(), DiscardClosed
	if x.seen == lookSurplus {
		why = DiscardSurplus
		if c.surplus != nil {
			c.surplus()
		}
	}
	return x.obtain(func(ctx context.Context) (*conn, error) {
		x.reached(StepDial)
		return cl.pool.replace(ctx, c, why)
	})
}

// obtain waits for a connection as long as x may.
func (x *Exchange) obtain(get func(context.Context) (*conn, error)) (*conn, error) {
	x.Start = time.Time{} // which may be long ago when there is one
	ctx, cancel := x.waiting()
	defer cancel(nil)
	if !x.Head.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadlineCause(ctx, x.Head, HeadTimeout)
		defer stop()
	}
	if err := x.interruptWith(cancel); err != nil {
		cancel(err) // get sees it, and gives back what it has
	}
	defer x.interruptWith(nil) //nolint:errcheck // it is there, or gone
	x.Start = time.Time{}      // by then it is no longer about now
	return get(ctx)
}

// waiting returns a context that ends when nobody waits for the response.
func (x *Exchange) waiting() (context.Context, context.CancelCauseFunc) {
	by, others := x.Context, x.Others
	if others == nil {
		return context.WithCancelCause(by)
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(by))
	unwatch := context.AfterFunc(by, func() {
		if err := left(by, others); err != nil {
			cancel(err)
		}
	})
	return ctx, func(err error) {
		if err == nil && !unwatch() {
			x.escaped = true
		}
		cancel(err)
	}
}
