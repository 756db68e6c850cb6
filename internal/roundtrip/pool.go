package roundtrip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// clientConn is a connection.
type clientConn struct {
	*http.ClientConn
	conn    net.Conn // beneath, for whoever asks where it leads
	since   time.Time
	until   time.Time   // takes no requests from then on; zero: always does
	used    bool        // guarded by the transport
	retired atomic.Bool // to be closed as soon as it is idle
	gone    atomic.Bool // and who asks was told

	silent atomic.Int64 // since when, after since, a request is on it and no response has come; 0: it is not
}

// asked notes that a request is sent, and returns when, after since.
func (c *clientConn) asked() time.Duration {
	start := max(time.Since(c.since), 1)
	c.silent.CompareAndSwap(0, int64(start))
	return start
}

// unresponsive reports whether the connection may well be dead, going by a request
// that was sent at start and ended without a response: its time has run out, or its
// client has left, and others' before, after so much silence.
func (c *clientConn) unresponsive(start time.Duration, late bool, silence time.Duration) bool {
	since := time.Duration(c.silent.Load())
	return since > 0 && (late && since <= start || time.Since(c.since)-since >= silence)
}

// timedOut reports whether a time that has run out is behind err.
func timedOut(err error) bool {
	var e interface{ Timeout() bool }
	return errors.As(err, &e) && e.Timeout()
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

// Stats is what a transport's connections do, and did so far.
type Stats struct {
	Open     int64 // connections
	Idle     int64 // those without a request
	InUse    int64 // those with requests
	InFlight int64 // requests on them
	Waiting  int64 // requests for room on one, and for one that is being made

	Dials           uint64 // ended, DialErrors included
	DialErrors      uint64
	Reuses          uint64        // requests on connections that had one before
	Waits           uint64        // requests that had to wait for others: for their dial, or for room
	WaitTime        time.Duration // of all who have waited
	AcquireTimeouts uint64        // waits that the transport's own bound ended

	// Connections that are no more, or take no more requests: as old as is
	// allowed; because the transport was closed; by the upstream, unused or broken,
	// which net/http does not tell apart.
	Aged, Shut, Ended uint64
}

// Stats returns what the connections do.
func (t *Transport) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.counts
	s.Waiting, s.DialErrors = t.waiting.Load(), t.failures
	for _, c := range t.conns {
		if c.Err() != nil { // nobody has come by since
			s.Ended++
		}
		s.add(c)
	}
	for _, c := range t.leaving {
		s.add(c)
	}
	return s
}

func (s *Stats) add(c *clientConn) {
	if c.Err() != nil {
		return
	}
	s.Open++
	if n := int64(c.InFlight()); n > 0 {
		s.InUse++
		s.InFlight += n
	} else {
		s.Idle++
	}
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
	start, waited := time.Now(), false
	defer func() { t.waitEnds(start, waited, err) }()
	patient := ctx
	if t.patience > 0 {
		var cancel context.CancelFunc
		patient, cancel = context.WithTimeoutCause(ctx, t.patience, ErrAcquireTimeout)
		defer cancel()
	}
	select {
	case t.turn <- struct{}{}:
	default:
		waited = true
		select {
		case t.turn <- struct{}{}:
		case <-patient.Done():
			return nil, false, context.Cause(patient)
		}
	}
	defer func() { <-t.turn }()
	return t.first(ctx, patient, failures, &waited)
}

// waitEnds counts somebody out of the line.
func (t *Transport) waitEnds(start time.Time, waited bool, err error) {
	t.waiting.Add(-1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.letGoUnwanted()
	if !waited {
		return
	}
	t.counts.Waits++
	t.counts.WaitTime += time.Since(start)
	if errors.Is(err, ErrAcquireTimeout) {
		t.counts.AcquireTimeouts++
	}
}

// first is acquire for who is first in line. It waits for room as long as patient
// lasts, and for a dial as long as ctx.
func (t *Transport) first(ctx, patient context.Context, failures uint64, waited *bool) (*clientConn, bool, error) {
	for dialed, taken := false, uint64(0); ; {
		c, reused, full, err := t.reserve()
		switch {
		case c != nil || err != nil:
			return c, reused, err
		case full:
			*waited = true
			err = wait(patient, t.changed)
		case dialed && t.taken() == taken:
			err = errNoRoom
		default: // also where somebody else has had the connection, or it was let go of
			dialed, taken = true, t.taken()
			err = t.connect(ctx, failures)
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// taken is how many connections take no more requests by our own doing.
func (t *Transport) taken() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts.Aged + t.counts.Shut
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
	t.sweep(time.Now())
	for _, c := range t.conns {
		if c.Reserve() == nil {
			if reused, c.used = c.used, true; t.retired {
				c.retired.Store(true) // with a request: it closes at its end
				t.conns = slices.DeleteFunc(t.conns, func(o *clientConn) bool { return o == c })
				t.leaving = append(t.leaving, c)
				t.counts.Shut++
			}
			if reused {
				t.counts.Reuses++
			}
			return c, reused, false, nil
		}
	}
	return nil, false, len(t.conns) >= t.max, nil
}

// sweep retires the connections that are of no more use. mu is held.
func (t *Transport) sweep(now time.Time) {
	t.leaving = slices.DeleteFunc(t.leaving, func(c *clientConn) bool { return c.Err() != nil })
	t.conns = slices.DeleteFunc(t.conns, func(c *clientConn) bool {
		switch {
		case c.broken():
			t.counts.Ended++
		case c.old(now):
			t.counts.Aged++
			t.leaving = append(t.leaving, c)
		default:
			return false
		}
		c.retire()
		return true
	})
}

// forsake has a connection take no more requests. Those that it has may go on.
func (t *Transport) forsake(c *clientConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.conns, c); i >= 0 {
		t.conns = slices.Delete(t.conns, i, i+1)
		t.leaving = append(t.leaving, c)
		t.counts.Ended++
	}
	c.retire()
}

// broken reports whether a connection is, or takes no requests although it has
// none: after a GOAWAY, say.
func (c *clientConn) broken() bool {
	return c.Err() != nil || c.Available() == 0 && c.InFlight() == 0
}

func (c *clientConn) old(now time.Time) bool {
	return c.used && !c.until.IsZero() && now.After(c.until)
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
	t.counts.Dials++
	switch {
	case t.closed:
		d.err = ErrClosed
		if err == nil {
			t.counts.Shut++
			c.retire()
		}
	case err != nil:
		t.failures++
		t.failure = err
	default:
		t.conns = append(t.conns, c)
		t.letGoUnwanted()
	}
}

// open connects. A panic of the dial function's is an error.
func (t *Transport) open(ctx context.Context) (c *clientConn, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("dial: %w: %v", errPanic, v)
		}
	}()
	var beneath net.Conn
	conn, err := t.client.NewClientConn(context.WithValue(ctx, beneathKey{}, &beneath), t.scheme, "upstream:0")
	if err != nil {
		return nil, err
	}
	c = &clientConn{ClientConn: conn, conn: beneath, since: time.Now()}
	if t.maxAge > 0 {
		c.until = c.since.Add(t.maxAge)
	}
	conn.SetStateHook(func(*http.ClientConn) { t.notice(c) })
	return c, nil
}

// beneathKey is of the context of a dial: its value is told of the connection, which
// net/http keeps to itself.
type beneathKey struct{}

func dialed(ctx context.Context) func(net.Conn, error) (net.Conn, error) {
	return func(conn net.Conn, err error) (net.Conn, error) {
		if err != nil || conn == nil {
			return nil, cmp.Or(err, errNoConn)
		}
		if beneath, ok := ctx.Value(beneathKey{}).(*net.Conn); ok {
			*beneath = conn
		}
		return newGuard(conn), nil
	}
}

// notice is told that a connection has room, or less to do, or is gone. It may be
// called under mu.
func (t *Transport) notice(c *clientConn) {
	if c.retired.Load() && c.InFlight() == 0 {
		_ = c.Close()
	}
	if t.ended != nil && c.Err() != nil && !c.gone.Swap(true) {
		t.ended(time.Since(c.since))
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

// Retire closes what is idle; what is in use closes when it is done. Round trips
// that begin later have a connection of their own.
func (t *Transport) Retire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.retired = true
	t.letGo()
}

// letGoUnwanted is letGo of connections that were dialed for those who have left a
// retired transport, unless there is somebody else; mu is held.
func (t *Transport) letGoUnwanted() {
	if t.retired && t.waiting.Load() == 0 {
		t.letGo()
	}
}

// letGo has no connection take requests any more; mu is held.
func (t *Transport) letGo() {
	t.counts.Shut += uint64(len(t.conns))
	for _, c := range t.conns {
		c.retire()
	}
	t.leaving = append(t.leaving, t.conns...)
	t.conns = nil
}

// Close closes what is idle; what is in use closes when it is done. Round trips
// that begin later fail with ErrClosed.
func (t *Transport) Close() {
	t.mu.Lock()
	t.closed = true
	t.letGo()
	if t.dial != nil {
		t.dial.cancel()
	}
	t.mu.Unlock()
	t.stir()
	t.dialing.Wait()
}

// Dialing reports whether a dial is under way.
func (t *Transport) Dialing() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dial != nil
}
