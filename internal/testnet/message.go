package testnet

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"
	"time"
)

// keepBytes is how much of one body, message or connection is kept. What is beyond it is still parsed and counted.
const keepBytes = 16 << 20

// End tells how a message, or the connection that should have brought it, ended.
type End string

// The ends. While a message is still being read its End is empty.
const (
	Whole     End = "whole"     // complete, as its framing says
	Closed    End = "closed"    // the peer closed where a message would have begun
	Truncated End = "truncated" // the peer closed inside a message, or TLS ended without close_notify
	Reset     End = "reset"     // the peer reset the connection
	Quiet     End = "quiet"     // the peer neither sent nor closed while we waited
	Malformed End = "malformed" // not what a sender may generate; Err says where
	Failed    End = "failed"    // something else, such as our own side closing; Err says what
)

// Framing tells what delimits a body (RFC 9112 §6.3).
type Framing string

// The framings.
const (
	NoBody   Framing = "none"
	ByLength Framing = "length"
	Chunked  Framing = "chunked"
	ByClose  Framing = "close"
)

// Message is what requests and responses have in common. Reading from it reads its decoded body as it arrives; once End is set
// nothing in it changes any more.
type Message struct {
	Proto   string      // HTTP/1.0 or HTTP/1.1
	Head    string      // start line, fields and blank line, byte for byte
	Header  http.Header // canonical names, values without the white space around them
	Trailer http.Header // nil if there was none
	Framing Framing
	Length  int64  // Content-Length, -1 if absent
	Body    []byte // decoded; its first 16 MiB
	Size    int64  // decoded bytes, all of them
	Raw     []byte // every byte read for it, interim responses included; its first 16 MiB
	End     End
	Err     error // why End is not Whole

	w     *wire
	left  int64 // of the length or of the current chunk
	ended func()
}

// Read reads the decoded body. It returns io.EOF at its framed end only, and Err for ever after any other.
func (m *Message) Read(p []byte) (int, error) {
	if m.End == "" {
		n, err := m.decode(p)
		m.Body = keep(m.Body, p[:n])
		m.Size += int64(n)
		if err == nil {
			return n, nil
		}
		m.finish(err)
		return n, m.result()
	}
	return 0, m.result()
}

// rest reads the body to its end, whatever that is.
func (m *Message) rest() {
	if m.End == "" {
		_, _ = io.Copy(io.Discard, m)
	}
}

func (m *Message) finish(err error) {
	if errors.Is(err, io.EOF) && m.Framing != "" {
		err = nil
	}
	m.Err, m.End, m.Raw = err, endOf(err, m.w.n), m.w.raw
	if m.ended != nil {
		m.ended()
	}
}

func (m *Message) result() error {
	if m.Err != nil {
		return m.Err
	}
	return io.EOF
}

// Request is one request as it stood on the wire.
type Request struct {
	Message
	Method, Target string
	Conn           int       // which connection of the upstream brought it, from 0
	N              int       // how many requests any connection brought before it
	At             time.Time // when its head was complete
}

// String is a summary for failure messages.
func (r *Request) String() string {
	return fmt.Sprintf("%s %s, %s", r.Method, r.Target, r.summary())
}

// Response is one final response as it stood on the wire. Status is 0 where none came; End then tells what came instead.
type Response struct {
	Message
	Status  int
	Reason  string
	Interim []*Response // the 1xx before it; 101 is final
}

// String is a summary for failure messages.
func (r *Response) String() string {
	return fmt.Sprintf("%d %s, %s", r.Status, r.Reason, r.summary())
}

func (m *Message) summary() string {
	s := fmt.Sprintf("%d bytes by %s, %s", m.Size, m.Framing, m.End)
	if m.Err != nil {
		s += ": " + m.Err.Error()
	}
	return s
}

// malformed is a fault of grammar or framing.
type malformed string

func (e malformed) Error() string { return "malformed: " + string(e) }

func bad(format string, args ...any) error { return malformed(fmt.Sprintf(format, args...)) }

// endOf judges err, after which n bytes of a message had been read.
func endOf(err error, n int64) End {
	var m malformed
	switch {
	case err == nil:
		return Whole
	case errors.As(err, &m):
		return Malformed
	case errors.Is(err, io.EOF) && n == 0:
		return Closed
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Truncated
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Reset
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Quiet
	}
	return Failed
}

func keep(kept, more []byte) []byte {
	return append(kept, more[:min(len(more), keepBytes-len(kept))]...)
}
