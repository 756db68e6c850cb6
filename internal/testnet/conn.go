package testnet

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// Conn is one connection of an upstream, in the hands of its script. One goroutine may write while another reads; what closes (Close,
// Cut, Reset) belongs to the one that reads. When the script returns, what has arrived is journalled and the connection is closed.
type Conn struct {
	ID  int      // from 0, in order of arrival
	Net net.Conn // the connection itself; what is read from it directly escapes the journal

	up   *Up
	w    *wire
	last *Request

	// The reading goroutine's own.
	broken    bool // no request can follow
	lingering bool // closing: only what has arrived is read
	grace     int  // bytes that lingering may still read

	// Guarded by up.mu.
	log      []byte
	received int64 // bytes
	whole    int64 // of them, in whole requests
	tunnel   bool
	err      error
}

func newConn(u *Up, id int, nc net.Conn) *Conn {
	c := &Conn{ID: id, Net: nc, up: u}
	c.w = newWire(connReader{c})
	return c
}

// ReadHead reads the head of the next request, over the rest of the one before it. The body is then read from the request, as it
// arrives. It returns nil if none comes, or it is malformed: Err says why.
func (c *Conn) ReadHead() *Request {
	if c.last != nil {
		c.last.rest()
	}
	if c.broken {
		return nil
	}
	r := c.w.request()
	r.Conn, r.At = c.ID, time.Now()
	if r.Err != nil {
		c.broken = true
		c.up.failed(c, r.Err)
		return nil
	}
	c.up.begun(r)
	c.last, r.ended = r, func() {
		c.broken = r.Err != nil
		c.up.ended(c, r)
	}
	if r.End == Whole {
		r.ended()
	}
	return r
}

// ReadRequest is ReadHead and the whole body; nil unless that comes.
func (c *Conn) ReadRequest() *Request {
	r := c.ReadHead()
	if r == nil {
		return nil
	}
	if r.rest(); r.End != Whole {
		return nil
	}
	return r
}

// Read reads bytes as they are and makes the connection a tunnel: no more requests are expected in it.
func (c *Conn) Read(p []byte) (int, error) {
	c.up.setTunnel(c)
	return c.w.src.Read(p)
}

// ReadN reads n bytes as they are, like Read; fewer only if no more came.
func (c *Conn) ReadN(n int) string {
	p := make([]byte, n)
	n, _ = io.ReadFull(c, p)
	return string(p[:n])
}

// Write writes bytes as they are.
func (c *Conn) Write(p []byte) (int, error) { return c.Net.Write(p) }

// Send writes bytes as they are. It reports whether the peer still took them, so `for c.Send(x) {}` is an endless body.
func (c *Conn) Send(raw string) bool {
	_, err := io.WriteString(c.Net, raw)
	return err == nil
}

// Pause waits. It reports false at once when the upstream closes.
func (c *Conn) Pause(d time.Duration) bool { return c.up.pause(d) }

// Wait answers nothing and reads on, into the journal, until the peer closes its half or the upstream closes. As a script of its
// own it is the upstream that accepts and never answers.
func (c *Conn) Wait() {
	for c.ReadRequest() != nil {
	}
	_, _ = c.w.src.WriteTo(io.Discard)
}

// Err returns why the last read brought no whole request: io.EOF where the peer closed between requests.
func (c *Conn) Err() error {
	c.up.mu.Lock()
	defer c.up.mu.Unlock()
	return c.err
}

// CloseWrite ends our half; requests can still be read. Over TLS it sends close_notify.
func (c *Conn) CloseWrite() {
	if err := closeWrite(c.Net); errors.Is(err, errors.ErrUnsupported) {
		c.up.t.Errorf("testnet: CloseWrite on a %T", c.Net)
	}
}

// Close journals what has arrived and closes, over TLS with close_notify.
func (c *Conn) Close() {
	c.linger()
	_ = c.Net.Close()
}

// Cut closes TLS without close_notify: the peer sees a FIN that anybody on the path could have sent. Without TLS it is Close.
func (c *Conn) Cut() {
	c.linger()
	_ = transport(c.Net).Close()
}

// Reset closes so that the peer sees a reset. As a script of its own it is the upstream that accepts and resets; the peer may meet
// that in its dial, a write or a read.
func (c *Conn) Reset() {
	c.linger()
	reset(c.Net)
}

// linger reads what has arrived, at most 1 MiB, so that the journal has it and no reset follows a plain close.
func (c *Conn) linger() {
	if c.lingering {
		return
	}
	c.lingering, c.grace = true, 1<<20
	for !c.isTunnel() && c.ReadRequest() != nil {
	}
	if !errors.Is(c.Err(), os.ErrDeadlineExceeded) {
		_, _ = c.w.src.WriteTo(io.Discard)
	}
}

func (c *Conn) isTunnel() bool {
	c.up.mu.Lock()
	defer c.up.mu.Unlock()
	return c.tunnel
}

var errGrace = errors.New("testnet: still sending when the script had ended")

type connReader struct{ c *Conn }

func (r connReader) Read(p []byte) (n int, err error) {
	c := r.c
	if c.lingering {
		n, err = c.arrived(p)
	} else {
		n, err = c.Net.Read(p)
	}
	c.up.journal(c, p[:n])
	return n, err
}

// arrived reads what is there. A deadline that is over before the read begins hides it: hence a second look.
func (c *Conn) arrived(p []byte) (n int, err error) {
	if c.grace <= 0 {
		return 0, errGrace
	}
	for range 2 {
		_ = c.Net.SetReadDeadline(time.Now().Add(time.Millisecond))
		if n, err = c.Net.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	c.grace -= n
	return n, err
}

// transport returns what TLS runs on.
func transport(nc net.Conn) net.Conn {
	if tc, ok := nc.(*tls.Conn); ok {
		nc = tc.NetConn()
	}
	if tap, ok := nc.(*eofTap); ok {
		nc = tap.Conn
	}
	return nc
}

func reset(nc net.Conn) {
	nc = transport(nc)
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = nc.Close()
}

func closeWrite(nc net.Conn) error {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
