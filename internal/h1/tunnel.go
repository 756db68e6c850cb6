package h1

import (
	"bytes"
	"errors"
	"net"
	"sync"
)

// tunnel is a connection that outlives its exchange (RFC 9110 §7.8). It keeps
// its place in the pool.
type tunnel struct {
	net.Conn
	early []byte // what came with the response
	close func()
}

func (cl *Client) tunnel(c *conn) *tunnel {
	t := &tunnel{Conn: c.Conn, early: bytes.Clone(c.data())}
	c.free()
	t.close = sync.OnceFunc(func() { cl.pool.drop(c, DiscardNotReusable) })
	return t
}

func (t *tunnel) Read(p []byte) (int, error) {
	if n := copy(p, t.early); n > 0 {
		t.early = t.early[n:]
		return n, nil
	}
	return t.Conn.Read(p)
}

// CloseWrite ends our half, as tunnels do.
func (t *tunnel) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close may be called again, and beside all else.
func (t *tunnel) Close() error {
	t.close()
	return nil
}
