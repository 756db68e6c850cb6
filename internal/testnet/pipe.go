package testnet

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
)

// PipeListener is a listener in memory over net.Pipe: it works inside synctest bubbles, where waiting for a socket would stop the
// clock for ever. A pipe has no buffer, no half-close and no reset.
type PipeListener struct {
	conns  chan net.Conn
	done   chan struct{}
	once   sync.Once
	dialed atomic.Int64
}

// NewPipeListener makes a listener at 192.0.2.1:80 (RFC 5737); peers come from 192.0.2.2.
func NewPipeListener() *PipeListener {
	return &PipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Accept waits for a dial.
func (l *PipeListener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, l.closed("accept")
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, l.closed("accept")
	}
}

// Dial connects; it waits until the connection is accepted.
func (l *PipeListener) Dial() (net.Conn, error) { return l.DialContext(context.Background(), "", "") }

// DialContext is Dial with an end, in the form of http.Transport.DialContext. Network and address are ignored.
func (l *PipeListener) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	from := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: int(1024 + l.dialed.Add(1)%60000)}
	var err error
	select {
	case l.conns <- pipeConn{far, l.Addr(), from}:
		return pipeConn{near, from, l.Addr()}, nil
	case <-l.done:
		err = l.closed("dial")
	case <-ctx.Done():
		err = &net.OpError{Op: "dial", Net: "tcp", Addr: l.Addr(), Err: ctx.Err()}
	}
	_, _ = near.Close(), far.Close()
	return nil, err
}

// Close refuses further connections; those that stand stay open.
func (l *PipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr is 192.0.2.1:80.
func (l *PipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80} }

func (l *PipeListener) closed(op string) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// pipeConn gives a pipe the addresses that servers expect.
type pipeConn struct {
	net.Conn
	local, remote net.Addr
}

func (c pipeConn) LocalAddr() net.Addr  { return c.local }
func (c pipeConn) RemoteAddr() net.Addr { return c.remote }
