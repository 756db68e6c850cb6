package forward

import (
	"io"
	"net/http"
	"strings"
	"sync"
)

// Copier streams bodies. Its fields are set before Copy and not changed during it; only W is needed.
type Copier struct {
	W      io.Writer
	Flush  func() error // after each Write
	OnRead func(n int)  // after each Read that brought n > 0 bytes
}

// ReadError is the failure of the source of a Copy.
type ReadError struct{ Err error }

func (e *ReadError) Error() string { return "read body: " + e.Err.Error() }
func (e *ReadError) Unwrap() error { return e.Err }

// WriteError is the failure of the destination of a Copy.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return "write body: " + e.Err.Error() }
func (e *WriteError) Unwrap() error { return e.Err }

// Copy writes what src holds to W through buf, which must not be empty, until src ends. The error is a *ReadError, a *WriteError or, at
// a clean end, nil. It never hands src to W's ReadFrom, which in net/http writes the header on its own.
func (c *Copier) Copy(src io.Reader, buf []byte) (written int64, err error) {
	const maxEmptyReads = 100
	for empty := 0; empty < maxEmptyReads; empty++ {
		n, readErr := src.Read(buf)
		if n > 0 {
			empty = -1
			if c.OnRead != nil {
				c.OnRead(n)
			}
			m, err := c.write(buf[:n])
			written += int64(m)
			if err != nil {
				return written, &WriteError{err}
			}
		}
		if readErr == io.EOF {
			return written, nil
		}
		if readErr != nil {
			return written, &ReadError{readErr}
		}
	}
	return written, &ReadError{io.ErrNoProgress}
}

func (c *Copier) write(p []byte) (n int, err error) {
	n, err = c.W.Write(p)
	if n < 0 || n > len(p) {
		return 0, io.ErrShortWrite
	}
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err == nil && c.Flush != nil {
		err = c.Flush()
	}
	return n, err
}

// NeedsFlush reports whether each piece of a body must reach the client at once: of an event stream, and of a body whose length nobody knows,
// for then nobody knows either what the client waits for. A contentLength below zero means unknown.
func NeedsFlush(h http.Header, contentLength int64) bool {
	return contentLength < 0 || IsEventStream(h)
}

// IsEventStream reports whether the content is server-sent events.
func IsEventStream(h http.Header) bool {
	types := h["Content-Type"]
	if len(types) == 0 {
		return false
	}
	mediaType, _, _ := strings.Cut(types[0], ";")
	return strings.EqualFold(trimOWS(mediaType), "text/event-stream")
}

var copyBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// GetBuffer returns a buffer for Copy. Its content is undefined.
func GetBuffer() *[64 << 10]byte { return copyBuffers.Get().(*[64 << 10]byte) }

// PutBuffer gives back a buffer that nobody uses any more.
func PutBuffer(b *[64 << 10]byte) { copyBuffers.Put(b) }
