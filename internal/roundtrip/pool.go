package roundtrip

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// clientConn is a connection.
type clientConn struct {
	*http.ClientConn
	until   time.Time   // takes no requests from then on; zero: always does
	used    bool        // guarded by the transport
	retired atomic.Bool // to be closed as soon as it is idle
}

// dial is an attempt to connect. It goes on when whoever has begun it leaves, or
// with a deadline shorter than a handshake nobody would ever be connected.
type dial struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended
	err    error         // then
}

// dialTime is how long a dial may take that does not know better.
const dialTime = 30 * time.Second

// Stats is what a transport's connections do.
type Stats struct {
	Open     int64 // connections
	InFlight int64 // requests on them
	Waiting  int64 // requests for room on one

	Dials, DialErrors uint64
}

// Stats returns what the connections do.
func (t *Transport) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Stats{Waiting: t.waiting.Load(), Dials: t.dials, DialErrors: t.failures}
	for _, c := range t.conns {
		if c.Err() == nil {
			s.Open++
			s.InFlight += int64(c.InFlight())
		}
	}
	return s
}

// acquire returns a connection that has room for a request, reserved. Those who
// wait for one do so in line.
func (t *Transport) acquire(ctx context.Context) (c *clientConn, reused bool, err error) {
	if t.waiting.Load() == 0 {
		if c, reused, _, err = t.reserve(); c != nil || err != nil {
			return c, reused, err
		}
	}
	t.mu.Lock()
	failures := t.failures
	t.mu.Unlock()
	t.waiting.Add(1)
	defer t.waiting.Add(-1)
	patient := ctx
	if t.patience > 0 {
		var cancel context.CancelFunc
		patient, cancel = context.WithTimeoutCause(ctx, t.patience, ErrAcquireTimeout)
		defer cancel()
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-patient.Done():
		return nil, false, context.Cause(patient)
	}
	return t.first(ctx, patient, failures)
}

// first is acquire for who is first in line. It waits for room as long as patient
// lasts, and for a dial as long as ctx.
func (t *Transport) first(ctx, patient context.Context, failures uint64) (*clientConn, bool, error) {
	for dialed := false; ; {
		c, reused, full, err := t.reserve()
		switch {
		case c != nil || err != nil:
			return c, reused, err
		case full:
			err = wait(patient, t.changed)
		case dialed:
			err = errNoRoom
		default:
			dialed = true
			err = t.connect(ctx, failures)
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// wait waits for what a channel says.
func wait(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reserve reserves room on a connection, if there is some; full: there may not be
// another one.
func (t *Transport) reserve() (c *clientConn, reused, full bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, false, false, ErrClosed
	}
	now := time.Now()
	t.conns = slices.DeleteFunc(t.conns, func(c *clientConn) bool {
		if c.useless(now) {
			c.retire()
		}
		return c.retired.Load()
	})
	for _, c := range t.conns {
		if c.Reserve() == nil {
			reused, c.used = c.used, true
			return c, reused, false, nil
		}
	}
	return nil, false, len(t.conns) >= t.max, nil
}

// useless reports whether a connection is broken, or too old, or takes no
// requests although it has none: after a GOAWAY, say.
func (c *clientConn) useless(now time.Time) bool {
	old := c.used && !c.until.IsZero() && now.After(c.until)
	return old || c.Err() != nil || c.Available() == 0 && c.InFlight() == 0
}

// retire has the connection closed once its requests are done.
func (c *clientConn) retire() {
	if !c.retired.Swap(true) && c.InFlight() == 0 {
		_ = c.Close()
	}
}

// connect adds a connection. Who has been in line while a dial failed shares its
// error, or one would fail after the other.
func (t *Transport) connect(ctx context.Context, failures uint64) error {
	t.mu.Lock()
	d := t.dial
	switch {
	case t.closed:
		t.mu.Unlock()
		return ErrClosed
	case t.failures != failures:
		defer t.mu.Unlock()
		return t.failure
	case d == nil:
		d = &dial{done: make(chan struct{})}
		var dialing context.Context
		dialing, d.cancel = context.WithTimeout(context.WithoutCancel(ctx), dialTime)
		t.dial = d
		t.dials++
		t.dialing.Go(func() { t.run(dialing, d) })
	}
	t.mu.Unlock()
	if err := wait(ctx, d.done); err != nil {
		return err
	}
	return d.err
}

// run carries a dial out.
func (t *Transport) run(ctx context.Context, d *dial) {
	defer close(d.done)
	defer d.cancel()
	c, err := t.open(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dial, d.err = nil, err
	switch {
	case t.closed:
		d.err = ErrClosed
		if err == nil {
			c.retire()
		}
	case err != nil:
		t.failures++
		t.failure = err
	default:
		t.conns = append(t.conns, c)
	}
}

// open connects. A panic of the dial function's is an error.
func (t *Transport) open(ctx context.Context) (c *clientConn, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("dial: %w: %v", errPanic, v)
		}
	}()
	conn, err := t.client.NewClientConn(ctx, t.scheme, "upstream:0")
	if err != nil {
		return nil, err
	}
	c = &clientConn{ClientConn: conn}
	if t.maxAge > 0 {
		c.until = time.Now().Add(t.maxAge)
	}
	conn.SetStateHook(func(*http.ClientConn) { t.notice(c) })
	return c, nil
}

// notice is told that a connection has room, or less to do, or is gone. It may be
// called under mu.
func (t *Transport) notice(c *clientConn) {
	if c.retired.Load() && c.InFlight() == 0 {
		_ = c.Close()
	}
	t.stir()
}

// stir has who is first in line look again.
func (t *Transport) stir() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// Close closes what is idle; what is in use closes when it is done. Round trips
// that begin later fail with ErrClosed.
func (t *Transport) Close() {
	t.mu.Lock()
	t.closed = true
	for _, c := range t.conns {
		c.retire()
	}
	t.conns = nil
	if t.dial != nil {
		t.dial.cancel()
	}
	t.mu.Unlock()
	t.stir()
	t.dialing.Wait()
}
