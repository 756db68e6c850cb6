package forward

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Relay puts into dst (see Put) what a response has beside its hop-by-hop fields (see StripHop).
func Relay(dst, src http.Header) {
	if lines := src["Connection"]; len(lines) > 0 {
		deleteNominated(src, lines)
	}
	for name, values := range src {
		if !hop(name) {
			Put(dst, name, values)
		}
	}
}

// Merge puts all of src into dst.
func Merge(dst, src http.Header) {
	for name, values := range src {
		Put(dst, name, values)
	}
}

// Put sets a field of dst, the header that an app's middleware may have begun: a list that grows by members keeps those of both, any other field
// of dst gives way.
func Put(dst http.Header, name string, values []string) {
	if grows(name) {
		if had := dst[name]; len(had) > 0 {
			values = append(had[:len(had):len(had)], values...)
		}
	}
	dst[name] = values
}

func grows(name string) bool {
	switch name {
	case "Cache-Status", "Link", "Proxy-Status", "Server-Timing", "Set-Cookie", "Vary":
		return true
	}
	return false
}

// CanHijack reports whether the connection behind w, or behind what it wraps, can be taken over.
func CanHijack(w http.ResponseWriter) bool { return reaches[http.Hijacker](w) }

// CanFlush reports whether w, or what it wraps, sends what was written. A writer without Flush keeps the response until it is whole, and takes an
// interim status for the final one (http.TimeoutHandler).
func CanFlush(w http.ResponseWriter) bool { return reaches[http.Flusher](w) }

// Innermost returns the writer at the bottom of w's wrappers, as far as they have an Unwrap.
func Innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}

// reaches reports whether w, or what it wraps, is a T.
func reaches[T any](w http.ResponseWriter) bool {
	for {
		switch v := w.(type) {
		case T:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return false
		}
	}
}

// CloseAfterReply has the server close the connection once the response, whose header has not been written, is out: the request's body is
// not going to be read to its end. The connection of an HTTP/1 server then lingers, so that the response is not lost in a reset
// (RFC 9112 §9.6).
func CloseAfterReply(w http.ResponseWriter) {
	w.Header().Set("Connection", "close")
	for {
		// net/http lingers for a body that overran http.MaxBytesReader, and for no other that is left unread. There is no API to ask
		// for it, so one is made to overrun.
		_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		w = wrapper.Unwrap()
	}
}

// Reset ends the connection behind w, where it can be taken over, such that what came over it cannot be taken for whole: to a client of
// HTTP/1.0 the end of the connection is that of the content, unless it is a reset, or TLS ends without its last word (RFC 9112 §8, §9.8).
func Reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	if socket, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		_ = socket.SetLinger(0)
	}
	_ = conn.Close()
}

// WriteSwitch answers 101 on a connection that was taken over, within limit (0: none): the client's handshake is done.
func WriteSwitch(conn net.Conn, proto string, h http.Header, limit time.Duration) error {
	if limit > 0 {
		_ = conn.SetWriteDeadline(time.Now().Add(limit))
		defer func() { _ = conn.SetWriteDeadline(time.Time{}) }()
	}
	w := bufio.NewWriter(conn)
	_, _ = w.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + proto + "\r\n")
	_ = h.Write(w)
	_, _ = w.WriteString("\r\n")
	return w.Flush()
}

// Printable returns s for a log line: cut after limit bytes, anything but visible ASCII and space replaced by '?'.
func Printable(s string, limit int) string {
	s = s[:min(len(s), limit)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
