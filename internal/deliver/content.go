// Package deliver sends a response's content to its client, who may be slow to take
// it, or not take it at all.
package deliver

import (
	"errors"
	"net/http"
	"sync"
	"time"
)

// What net/http's server buffers is small: writing it cannot block. Of a piece that
// is short it may keep the end in its buffers.
const (
	small = 2 << 10
	short = 8 << 10
)

// ErrCut is what is written after Cut fails with.
var ErrCut = errors.New("the content was cut")

// Content is one content on its way. Begin it. Cut and WasCut are for anybody at any
// time, the rest is for one goroutine.
type Content struct {
	Sent int64 // bytes that were written

	// Stream says that it is one of HTTP/2: the server ends it when a write deadline
	// passes, also while nobody writes. So there is none between pieces.
	Stream bool

	to     http.ResponseWriter
	length int64 // negative: unknown
	flush  bool  // each piece
	idle   time.Duration
	end    time.Time

	mu  sync.Mutex // of what Cut changes, and of the write deadline
	cut bool
}

// Begin begins a content of a length, negative where unknown. flush has each piece
// reach the client at once. A piece may take as long as idle, all of it until end;
// zero is no bound, and the server's own holds.
func (c *Content) Begin(to http.ResponseWriter, length int64, flush bool, idle time.Duration, end time.Time) {
	c.to, c.length, c.flush, c.idle, c.end = to, length, flush, idle, end
}

// Blocks reports whether a write may have to wait for the client.
func (c *Content) Blocks() bool { return c.length < 0 || c.length > small }

// Write writes a piece, in time. One that would stay in the server's buffer
// although more is to come is flushed.
func (c *Content) Write(p []byte) (int, error) {
	if err := c.extend(); err != nil {
		return 0, err
	}
	n, err := c.to.Write(p)
	c.Sent += int64(n)
	if err == nil && (c.flush || len(p) < short && c.Sent < c.length) {
		err = c.Flush()
	}
	if c.Stream && c.Sent != c.length {
		c.pause()
	}
	return n, err
}

// Emit is Write of all of a piece, for whoever has many.
func (c *Content) Emit(p []byte) error {
	_, err := c.Write(p)
	return err
}

// Flush has what was written reach the client, where the writer can do that.
func (c *Content) Flush() error {
	if err := http.NewResponseController(c.to).Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// extend moves the write deadline.
func (c *Content) extend() error {
	if !c.Blocks() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return ErrCut
	}
	due := c.end
	if c.idle > 0 {
		if next := time.Now().Add(c.idle); due.IsZero() || next.Before(due) {
			due = next
		}
	}
	if !due.IsZero() {
		_ = http.NewResponseController(c.to).SetWriteDeadline(due)
	}
	return nil
}

// pause takes the write deadline off until the next piece.
func (c *Content) pause() {
	if !c.Blocks() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.cut {
		c.lift()
	}
}

// Refuse lets nothing be written. It is called before anybody may call Cut.
func (c *Content) Refuse() { c.cut = true }

// Cut ends a write that waits for the client, and all that would follow.
func (c *Content) Cut(error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	_ = http.NewResponseController(c.to).SetWriteDeadline(time.Unix(1, 0))
}

// WasCut reports whether it was.
func (c *Content) WasCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

// Release gives the connection back without our write deadline, which the server
// would keep for its next request. Nobody calls Cut any more.
func (c *Content) Release() { c.lift() }

func (c *Content) lift() {
	if c.idle > 0 || !c.end.IsZero() {
		_ = http.NewResponseController(c.to).SetWriteDeadline(time.Time{})
	}
}
