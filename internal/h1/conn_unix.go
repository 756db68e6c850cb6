//go:build unix

package h1

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
)

// socket is the file descriptor below a connection: what is written to it and
// read from it on the fast way, and what can be seen of it without reading. Its
// zero value is none.
type socket struct {
	conn  *conn
	raw   syscall.RawConn // nil: no descriptor
	plain bool            // bytes on it are HTTP; otherwise they are TLS

	reader func(fd uintptr) bool // step, made once
	peeker func(fd uintptr)      // peek, made once

	// Of the call under way.
	out     *message // to be written
	todo    step
	seen    look
	written int
	n       int
	err     error
}

type step int

const (
	stepLook step = iota
	stepWrite
	stepRead
)

func (s *socket) open(c *conn, nc net.Conn) {
	s.plain = true
	if secure, ok := nc.(*tls.Conn); ok {
		nc, s.plain = secure.NetConn(), false
	}
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return
	}
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return
	}
	s.conn, s.raw, s.reader, s.peeker = c, raw, s.step, s.peek
}

// ok reports whether HTTP can be read and written here.
func (s *socket) ok() bool { return s.raw != nil && s.plain }

// post is conn.post, in one turn with the wait for the answer: nothing is read
// before there is something to be read, and no buffer held meanwhile.
func (s *socket) post(m *message, fresh bool) (look, int, error) {
	s.out, s.written, s.n, s.err, s.seen, s.todo = m, 0, 0, nil, lookAlive, stepLook
	if fresh {
		s.todo = stepWrite
	}
	err := s.raw.Read(s.reader)
	s.out = nil
	if s.err == nil {
		s.err = err
	}
	switch {
	case s.seen != lookAlive:
		return s.seen, 0, nil
	case s.todo == stepWrite:
		return lookAlive, s.written, s.err // the rest would have to wait
	}
	return lookAlive, s.written, s.conn.filled(s.n, s.err)
}

// fill is conn.fill.
func (s *socket) fill() error {
	s.n, s.err, s.todo = 0, nil, stepRead
	if err := s.raw.Read(s.reader); err != nil {
		s.err = err
	}
	return s.conn.filled(s.n, s.err)
}

// step does what can be done at once; false waits until there is something to
// read.
func (s *socket) step(fd uintptr) bool {
	if s.todo == stepLook {
		if s.peek(fd); s.seen != lookAlive {
			return true
		}
		s.todo = stepWrite
	}
	if s.todo == stepWrite {
		s.written, s.err = write(int(fd), s.out.bytes)
		if s.err == nil && s.written < len(s.out.bytes) {
			return true
		}
		s.todo = stepRead
		if s.err == nil {
			s.out.free()
			return false
		}
	}
	return s.read(int(fd))
}

// read reads into the buffer, and takes one only for as long as there is
// something to read.
func (s *socket) read(fd int) bool {
	p, err := s.conn.room()
	if err != nil {
		s.err = err
		return true
	}
	for {
		n, err := readNow(fd, p)
		switch {
		case n > 0:
			s.n, s.err = n, nil
			return true
		case err == syscall.EINTR: //nolint:errorlint // a system call's own
			continue
		case err == syscall.EAGAIN && s.err == nil: //nolint:errorlint // a system call's own
			if s.conn.r == s.conn.w {
				s.conn.free()
			}
			return false
		case s.err != nil: // of the write
		case err != nil:
			s.err = err
		default:
			s.err = io.EOF
		}
		return true
	}
}

// write writes what the socket takes at once.
func write(fd int, p []byte) (written int, err error) {
	for written < len(p) {
		n, err := writeNow(fd, p[written:])
		if n > 0 {
			written += n
		}
		switch {
		case err == nil, errors.Is(err, syscall.EINTR):
		case err == syscall.EAGAIN: //nolint:errorlint // a system call's own
			return written, nil
		default:
			return written, err
		}
	}
	return written, nil
}

// look sees what is there to be read; not ok: there is no descriptor.
func (s *socket) look() (seen look, ok bool) {
	if s.raw == nil {
		return 0, false
	}
	s.seen = lookClosed
	if s.raw.Control(s.peeker) != nil {
		return lookClosed, true
	}
	return s.seen, true
}

// peek sees what the next read would find.
func (s *socket) peek(fd uintptr) {
	var b [1]byte
	for {
		n, err := peekNow(int(fd), b[:])
		switch {
		case n > 0:
			s.seen = lookSurplus
		case err == syscall.EINTR: //nolint:errorlint // a system call's own
			continue
		case err == syscall.EAGAIN: //nolint:errorlint // a system call's own
			s.seen = lookAlive
		default:
			s.seen = lookClosed
		}
		return
	}
}
