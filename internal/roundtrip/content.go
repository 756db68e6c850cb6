package roundtrip

import (
	"io"
	"sync"
	"time"
)

const (
	smallSize = 4 << 10  // what a wait for content holds
	largeSize = 64 << 10 // once more came than that
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallSize]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeSize]byte) }}
)

// maxEmptyReads is how many reads in a row may bring nothing.
const maxEmptyReads = 100

// content is a response's content.
type content struct {
	body io.Reader // nil: there is none
	left int64     // still to come; negative: unknown
	err  error     // what the next read fails with
	bulk bool      // it comes in large pieces

	lead  []byte           // what More has read, in a buffer
	small *[smallSize]byte // nil: not in use
	large *[largeSize]byte
}

func (c *content) begin(body io.Reader, length int64) {
	c.body, c.left, c.bulk = body, length, length > smallSize
}

// Next returns the next piece of the content. It is valid until the next call of
// Next, More, Read or Close. At the end of the content the error is io.EOF.
func (x *Exchange) Next() ([]byte, error) {
	if err := x.More(); err != nil {
		return nil, err
	}
	piece := x.content.lead
	x.content.lead = nil
	return piece, nil
}

// Whole reports whether there is no content to wait for.
func (x *Exchange) Whole() bool { return x.ContentLength == 0 }

// More waits until there is something to be read of the content, or its end:
// then the error is io.EOF. It is not needed before Next or Read.
func (x *Exchange) More() error {
	c := &x.content
	if len(c.lead) > 0 {
		return nil
	}
	buf := c.buffer()
	n, err := x.read(buf)
	if err != nil {
		c.release()
		return err
	}
	c.lead, c.bulk = buf[:n], n >= smallSize
	return nil
}

// Read reads content.
func (x *Exchange) Read(p []byte) (int, error) {
	c := &x.content
	if len(c.lead) > 0 || len(p) == 0 {
		n := copy(p, c.lead)
		c.lead = c.lead[n:]
		return n, nil
	}
	c.release()
	return x.read(p)
}

// read reads at least one byte.
func (x *Exchange) read(p []byte) (int, error) {
	c := &x.content
	if c.body == nil && c.err == nil {
		c.err = io.EOF
	}
	if c.err != nil {
		return 0, c.err
	}
	if err := x.arm(); err != nil {
		c.err = err
		return 0, err
	}
	n, err := c.fill(p)
	x.alarm.set(never)
	if err != nil {
		c.err = x.over(err)
	}
	if n == 0 {
		return 0, c.err
	}
	return n, nil
}

// arm has a read end within the body idle time.
func (x *Exchange) arm() error {
	var due time.Time
	why := IdleTimeout
	if x.Idle > 0 {
		due = time.Now().Add(x.Idle)
	}
	if !x.End.IsZero() && (due.IsZero() || x.End.Before(due)) {
		due, why = x.End, EndTimeout
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.aborted != nil {
		return x.aborted
	}
	x.why = why
	x.alarm.setAt(due)
	return nil
}

// fill reads something, or an error: as much as the content's length allows.
func (c *content) fill(p []byte) (int, error) {
	for range maxEmptyReads {
		n, err := c.body.Read(p)
		switch {
		case n < 0 || n > len(p):
			return 0, ProtocolError("an impossible count from Read")
		case c.left >= 0 && int64(n) > c.left:
			return 0, ProtocolError("the content is longer than its Content-Length")
		case n > 0 && c.left >= 0:
			c.left -= int64(n)
		}
		if err == io.EOF && c.left > 0 {
			err = io.ErrUnexpectedEOF
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// over notes that the content has ended with err, and says what that means.
func (x *Exchange) over(err error) error {
	switch {
	case err == io.EOF: //nolint:errorlint // a reader's own
		x.Trailers = x.response.Trailer
		x.finish()
		return io.EOF
	case x.cause() != nil:
		return x.cause()
	case isProtocolError(err):
		return err
	}
	return &BrokenError{Err: err, Heard: true, Reused: x.reused.Load()}
}

// end has what follows fail with err.
func (c *content) end(err error) {
	c.release()
	c.lead = nil
	if c.err == nil {
		c.err = err
	}
}

// buffer returns one to read into.
func (c *content) buffer() []byte {
	switch {
	case c.bulk && c.large != nil:
		return c.large[:]
	case !c.bulk && c.small != nil:
		return c.small[:]
	}
	c.release()
	if c.bulk {
		c.large = largeBuffers.Get().(*[largeSize]byte)
		return c.large[:]
	}
	c.small = smallBuffers.Get().(*[smallSize]byte)
	return c.small[:]
}

// release gives the buffers back.
func (c *content) release() {
	if c.small != nil {
		smallBuffers.Put(c.small)
		c.small = nil
	}
	if c.large != nil {
		largeBuffers.Put(c.large)
		c.large = nil
	}
}
