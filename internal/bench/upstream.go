package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// The upstream answers /{s|l|v|p}/{bytes}: s may be stored for a minute, l for a
// day, v too but says that X-Variant tells its answers apart, p may not be
// stored. It speaks just enough HTTP/1.1 to be no part of what is measured:
// a response is ready before it is asked for, and is one write.
type upstream struct {
	ready  atomic.Pointer[map[string][]byte]
	served atomic.Int64
}

// bodySizes are those of the workloads.
var bodySizes = []int{1 << 10, 100 << 10}

func (u *upstream) role() role {
	return role{
		"start":  does(u.start),
		"served": does(func(nothing) (int64, error) { return u.served.Load(), nil }),
	}
}

func (u *upstream) start(nothing) (addr string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	u.prepare(time.Now())
	go func() { // Date must be true, or what is stored for a minute comes stale
		for now := range time.Tick(time.Second) {
			u.prepare(now)
		}
	}()
	go u.accept(l)
	return l.Addr().String(), nil
}

func (u *upstream) prepare(now time.Time) {
	ready := map[string][]byte{}
	for _, size := range bodySizes {
		for name, fields := range map[string]string{
			"s": "Cache-Control: max-age=60", "l": "Cache-Control: max-age=86400",
			"v": "Cache-Control: max-age=86400\r\nVary: X-Variant", "p": "Cache-Control: no-store",
		} {
			var b bytes.Buffer
			fmt.Fprintf(&b, "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"+
				"%s\r\nETag: %s\r\nX-Served-By: upstream\r\n\r\n",
				now.UTC().Format(http.TimeFormat), size, fields, etag(name, size))
			b.Write(body(size))
			ready[resource(name, size)] = b.Bytes()
		}
	}
	u.ready.Store(&ready)
}

func resource(name string, size int) string { return "/" + name + "/" + strconv.Itoa(size) }

func etag(name string, size int) string { return fmt.Sprintf(`"%s-%d"`, name, size) }

func body(size int) []byte { return bytes.Repeat([]byte("0123456789abcdef"), size/16) }

func (u *upstream) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go u.serve(c)
	}
}

func (u *upstream) serve(c net.Conn) {
	defer c.Close()
	in := messages{conn: c, buf: make([]byte, 128<<10)}
	for {
		head, err := in.next()
		if err != nil {
			return
		}
		_, target, _ := bytes.Cut(head, []byte(" "))
		path, _, _ := bytes.Cut(target, []byte(" "))
		path, _, _ = bytes.Cut(path, []byte("?"))
		response, ok := (*u.ready.Load())[string(path)]
		if !ok {
			response = []byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
		}
		u.served.Add(1)
		if _, err := c.Write(response); err != nil {
			return
		}
	}
}

// messages reads whole HTTP/1.1 messages whose bodies have a Content-Length or
// none. The peers are our own; nothing here is fit for others.
type messages struct {
	conn   net.Conn
	buf    []byte
	filled int // bytes read into buf
	used   int // of them, the last message's
	length int // of the last message's body
}

var errNotFramed = errors.New("a message without Content-Length")

// next returns the next message's head, valid until the following call; the
// body has been read and dropped.
func (m *messages) next() ([]byte, error) {
	m.filled = copy(m.buf, m.buf[m.used:m.filled])
	m.used = 0
	end := bytes.Index(m.buf[:m.filled], []byte("\r\n\r\n"))
	for end < 0 {
		from := max(0, m.filled-3)
		n, err := m.conn.Read(m.buf[m.filled:])
		if err != nil {
			return nil, err
		}
		m.filled += n
		if i := bytes.Index(m.buf[from:m.filled], []byte("\r\n\r\n")); i >= 0 {
			end = from + i
		}
	}
	end += 4
	head := m.buf[:end]
	var err error
	if m.length, err = contentLength(head); err != nil {
		return nil, err
	}
	if m.filled >= end+m.length {
		m.used = end + m.length
		return head, nil
	}
	for left := m.length - (m.filled - end); left > 0; { // over what lies behind the head
		n, err := m.conn.Read(m.buf[end:min(len(m.buf), end+left)])
		if err != nil {
			return nil, err
		}
		left -= n
	}
	m.used, m.filled = 0, 0
	return head, nil
}

// begun reports whether part of a message has been read.
func (m *messages) begun() bool { return m.filled > m.used }

// contentLength finds the field as net/http and the load write it.
func contentLength(head []byte) (int, error) {
	_, value, ok := bytes.Cut(head, []byte("\r\nContent-Length: "))
	if !ok {
		if bytes.Contains(head, []byte("\r\nTransfer-Encoding: ")) {
			return 0, errNotFramed
		}
		return 0, nil
	}
	digits, _, _ := bytes.Cut(value, []byte("\r\n"))
	return strconv.Atoi(string(digits))
}
