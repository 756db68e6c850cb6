package h1

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// conn is a connection to an upstream. An idle one holds no buffer. Its methods
// are for one goroutine at a time, but for those of net.Conn.
type conn struct {
	net.Conn
	sock socket // the plain socket, if it is one

	unbuffered bool // nobody but the upstream takes what is written, as far as we know

	buffers *buffers // where buf comes from
	buf     *buffer  // nil: none
	r, w    int      // buf[r:w] was read and not used yet

	since      time.Time
	born, used time.Time // since, but for a share of the age that is allowed; and of the last use
	uses       int
	surplus    func() // removes what the last response left in a cache
	armed      time.Time
	writeArmed bool
}

func newConn(nc net.Conn, now time.Time) *conn {
	c := &conn{Conn: nc, since: now, born: now, used: now, unbuffered: !isSocket(nc)}
	c.sock.open(c, nc)
	return c
}

// isSocket reports whether nc is a socket, or TLS on one.
func isSocket(nc net.Conn) bool {
	if secure, ok := nc.(*tls.Conn); ok {
		nc = secure.NetConn()
	}
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// Write writes p. A connection that takes less than that, and says no word of it, is
// at its end: nobody knows what the upstream has.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n < len(p) && err == nil {
		_ = c.Close()
		err = io.ErrShortWrite
	}
	return n, err
}

// interrupt ends what is under way. It is for any goroutine: a panic there, of a
// connection of the app's, would end the process.
func (c *conn) interrupt() {
	defer func() { _ = recover() }()
	_ = c.SetDeadline(time.Unix(1, 0))
}

func (c *conn) close() {
	_ = c.Close()
	c.free()
}

// free gives the buffer back, with all that is in it.
func (c *conn) free() {
	if c.buf != nil {
		c.buffers.put(c.buf)
		c.buf = nil
	}
	c.r, c.w = 0, 0
}

// data is what was read and not used yet.
func (c *conn) data() []byte {
	if c.buf == nil {
		return nil
	}
	return c.buf[c.r:c.w]
}

// skip uses n bytes of data.
func (c *conn) skip(n int) {
	c.r += n
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
}

// errFull is a head that does not fit the buffer.
var errFull = errors.New("the buffer is full")

// room returns where in the buffer the next read goes.
func (c *conn) room() ([]byte, error) {
	if c.buf == nil {
		c.buf = c.buffers.get()
	}
	if c.w == bufferSize {
		if c.r == 0 {
			return nil, errFull
		}
		copy(c.buf[:], c.buf[c.r:c.w])
		c.w -= c.r
		c.r = 0
	}
	return c.buf[c.w:], nil
}

// fill reads once and adds what came to data. While it waits it holds no buffer
// that is empty.
func (c *conn) fill() error {
	if c.sock.ok() {
		return c.sock.fill()
	}
	p, err := c.room()
	if err != nil {
		return err
	}
	n, err := c.Read(p)
	return c.filled(n, err)
}

// fillNow takes what is there already.
func (c *conn) fillNow() error {
	c.armed = time.Now().Add(probeTime)
	if err := c.SetReadDeadline(c.armed); err != nil {
		return err
	}
	return c.fill()
}

// filled adds n bytes to data; err only counts without them.
func (c *conn) filled(n int, err error) error {
	c.w += n
	if n > 0 {
		return nil
	}
	if c.r == c.w {
		c.free()
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// look is what a look at an idle connection finds.
type look int

const (
	lookAlive look = iota
	lookClosed
	lookSurplus // bytes that nobody asked for
)

// look says whether an idle connection can be used, without waiting.
func (c *conn) look() look {
	seen, ok := c.sock.look()
	switch {
	case !ok:
		return c.probe(probeTime)
	case c.sock.ok(), seen == lookClosed:
		return seen
	case seen == lookAlive: // but TLS may hold what it has read ahead
		return c.probe(0)
	}
	if seen = c.probe(recordTime); seen == lookAlive { // that was TLS's own
		seen, _ = c.sock.look()
	}
	return seen
}

const (
	probeTime  = 50 * time.Microsecond // for a look where no socket can be looked at
	recordTime = 5 * time.Millisecond  // for a record of TLS that has begun to arrive
)

// probe looks by a read that gives up soon; after no time at all it has looked at
// what is above the socket only. A connection that panics is as good as closed.
func (c *conn) probe(limit time.Duration) (seen look) {
	defer func() {
		if recover() != nil {
			seen = lookClosed
		}
	}()
	var b [1]byte
	c.armed = time.Now().Add(limit)
	if c.SetReadDeadline(c.armed) != nil {
		return lookClosed
	}
	n, err := c.Read(b[:])
	switch {
	case n > 0:
		return lookSurplus
	case errors.Is(err, os.ErrDeadlineExceeded):
		return lookAlive
	}
	return lookClosed
}

// post looks at an idle connection, writes m and, on a plain socket, waits for
// data. It says how the look went and how much of m was written; less than all
// without an error means that the rest would have to wait. A failed write is
// not the end: the answer may be there to be read.
func (c *conn) post(m *message, fresh bool) (seen look, written int, err error) {
	if c.sock.ok() {
		return c.sock.post(m, fresh)
	}
	if !fresh {
		if seen := c.look(); seen != lookAlive {
			return seen, 0, nil
		}
	}
	written, err = c.Write(m.bytes)
	return lookAlive, written, err
}
