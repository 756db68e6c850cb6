package h1

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"
)

// keepAlive is the interval of TCP's own probes.
const keepAlive = 15 * time.Second

// Dialer connects to one address. It is not changed once it is in use, and then
// safe for concurrent use.
type Dialer struct {
	Network string // "tcp", or "unix"
	Address string // host:port, or a path

	// TLS is for connections over TLS; nil: plain ones. It is not changed. An
	// empty ServerName is the host of Address. NextProtos are offered as given.
	TLS *tls.Config

	// Timeout bounds the connection, HandshakeTimeout that of TLS on top of it.
	// Zero: the context alone does.
	Timeout, HandshakeTimeout time.Duration

	// Via connects in place of net.Dialer; nil: that one does, with both families
	// of addresses at once (RFC 8305) and TCP keep-alive. It is called on a goroutine of
	// its own, and waited for a moment at most beyond the times; its panic is a PanicError.
	Via func(ctx context.Context, network, address string) (net.Conn, error)
}

// DialError is a connection that did not come about: nothing was sent on it.
type DialError struct{ Err error }

func (e *DialError) Error() string { return "dial: " + e.Err.Error() }

// Unwrap returns what the attempt failed with.
func (e *DialError) Unwrap() error { return e.Err }

// Timeout reports whether time ran out.
func (e *DialError) Timeout() bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](e.Err)
	return ok && t.Timeout()
}

// HandshakeError is a handshake of TLS that failed.
type HandshakeError struct{ Err error }

func (e *HandshakeError) Error() string { return "handshake: " + e.Err.Error() }

// Unwrap returns what it failed with.
func (e *HandshakeError) Unwrap() error { return e.Err }

// PanicError is a dial func that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return "the dial function panicked" }

// errNoConn is a dial func that returned neither connection nor error.
var errNoConn = errors.New("there is no connection")

// Dial connects. Its errors are DialErrors.
func (d *Dialer) Dial(ctx context.Context) (net.Conn, error) {
	nc, err := d.connect(ctx)
	if err == nil && d.TLS != nil {
		nc, err = d.secure(ctx, nc)
	}
	if err != nil {
		return nil, &DialError{err}
	}
	return nc, nil
}

func (d *Dialer) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := within(ctx, d.Timeout)
	defer cancel()
	if d.Via == nil {
		return (&net.Dialer{KeepAlive: keepAlive}).DialContext(ctx, d.Network, d.Address)
	}
	return d.via(ctx)
}

// via connects by Via, which may mind no context: then it is left behind, and what
// it connects yet is closed.
func (d *Dialer) via(ctx context.Context) (net.Conn, error) {
	type result struct {
		nc  net.Conn
		err error
	}
	done, left := make(chan result), make(chan struct{})
	go func() {
		var r result
		r.nc, r.err = d.call(ctx)
		select {
		case done <- r:
		case <-left:
			if r.err == nil {
				defer func() { _ = recover() }() // it is the app's, and this goroutine nobody's
				_ = r.nc.Close()
			}
		}
	}()
	select {
	case r := <-done:
		return r.nc, r.err
	case <-ctx.Done():
	}
	t := time.NewTimer(patience) // it may know better why
	defer t.Stop()
	select {
	case r := <-done:
		return r.nc, r.err
	case <-t.C:
		close(left)
		return nil, context.Cause(ctx)
	}
}

// patience is how long a dial func has to end once it is told to.
const patience = 100 * time.Millisecond

// call calls Via.
func (d *Dialer) call(ctx context.Context) (nc net.Conn, err error) {
	defer func() {
		if v := recover(); v != nil {
			nc, err = nil, &PanicError{v, debug.Stack()}
		}
	}()
	nc, err = d.Via(ctx, d.Network, d.Address)
	if err == nil && nc == nil {
		err = errNoConn
	}
	return nc, err
}

// secure takes nc over.
func (d *Dialer) secure(ctx context.Context, nc net.Conn) (net.Conn, error) {
	ctx, cancel := within(ctx, d.HandshakeTimeout)
	defer cancel()
	config := d.TLS
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(d.Address) // a path has none: the handshake says so
	}
	secured := tls.Client(nc, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, &HandshakeError{err}
	}
	return secured, nil
}

// within bounds ctx by d; zero is no bound.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// dialError makes a DialError of err, with what ended ctx in it.
func dialError(ctx context.Context, err error) error {
	inner := err
	e, ok := errors.AsType[*DialError](err)
	if ok {
		inner = e.Err
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return &DialError{fmt.Errorf("%w: %w", cause, inner)}
	}
	if ok {
		return err
	}
	return &DialError{err}
}
