package forward

import (
	"io"
	"net"
	"sync/atomic"
)

// direction is one of a tunnel's two: the bytes from src to dst. While the tunnel goes away, a Close of ours is the last that dst gets.
type direction struct {
	tunnel *Tunnel
	other  *direction
	src    io.Reader
	dst    io.Writer

	opaque atomic.Bool // what passes are no WebSocket frames
	wanted atomic.Bool // dst is to be told at the end of a message
	urgent atomic.Bool // or of a frame
	told   atomic.Bool // dst has our Close; nothing follows it
	done   atomic.Bool // src has sent its Close, or has ended
	mute   atomic.Bool // src has ended without a Close, and so has what dst gets

	turn   chan struct{} // full while somebody writes to dst, which may take long; guards what follows
	frames frames
	sent   int64
}

// Write passes a piece on, as far as dst may have it.
func (d *direction) Write(p []byte) (int, error) {
	d.take()
	defer d.leave()
	if d.opaque.Load() {
		return len(p), d.send(p)
	}
	message, edge := d.frames.scan(p)
	if d.frames.broken {
		d.opaque.Store(true)
		if d.tunnel.going.Load() {
			d.tunnel.end(nil)
			return 0, net.ErrClosed
		}
	}
	var err error
	switch place := d.place(message, edge); {
	case d.told.Load():
	case place >= 0:
		err = d.tell(p[:place])
	default:
		err = d.send(p)
	}
	if d.frames.closed && err == nil {
		d.finish()
	}
	return len(p), err
}

// place returns where our Close belongs among the places that were just seen; -1: nowhere. It takes that of the answer to the one that we
// have sent src, and not of a Close that src has sent by itself.
func (d *direction) place(message, edge int) int {
	switch {
	case d.frames.closing && d.other.told.Load(), !d.frames.closing && d.urgent.Load():
		return edge
	case !d.frames.closing && d.wanted.Load():
		return message
	}
	return -1
}

// goAway tells dst: now, or at the end of the message that is under way, or just of the frame. It may wait for dst. One that is gone says so
// to the other direction.
func (d *direction) goAway(urgent bool) {
	d.wanted.Store(true)
	d.urgent.Store(urgent)
	d.take()
	defer d.leave()
	if d.tellable() && (urgent || !d.frames.unfinished) {
		_ = d.tell(nil)
	}
}

// tellable reports whether dst stands between two frames, and is not told. It is the caller's turn.
func (d *direction) tellable() bool {
	return d.frames.open() && !d.told.Load() && !d.mute.Load()
}

// tell sends what is left of whole frames, and then our Close. It is the caller's turn.
func (d *direction) tell(rest []byte) error {
	if len(rest) > 0 {
		if err := d.send(rest); err != nil {
			return err
		}
	}
	d.told.Store(true) // first, for the answer may be quick
	if err := d.send(closeFrame(wsGoingAway, d.frames.masked)); err != nil {
		return err
	}
	d.tunnel.settle()
	return nil
}

func (d *direction) take()  { d.turn <- struct{}{} }
func (d *direction) leave() { <-d.turn }

func (d *direction) send(p []byte) error {
	n, err := d.dst.Write(p)
	if n < 0 || n > len(p) || n < len(p) && err == nil {
		return io.ErrShortWrite
	}
	d.sent += int64(n)
	return err
}

// end passes the end of src on. It reports whether the other direction goes on without this one.
func (d *direction) end(err error) bool {
	d.take()
	defer d.leave()
	defer d.finish()
	going := d.tunnel.going.Load()
	if err != nil && !going {
		return false
	}
	if going && d.tellable() {
		_ = d.tell(nil) // unless dst is what failed
	}
	d.mute.Store(!d.told.Load() && !d.frames.closed)
	half, ok := d.dst.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil || going // and then there is a time for it
}

// finish notes that nothing comes from src any more.
func (d *direction) finish() {
	d.done.Store(true)
	d.tunnel.settle()
}

// settled reports whether nothing is to be expected from src: it is done, or it cannot be told and nobody listens to it.
func (d *direction) settled() bool {
	return d.done.Load() || d.told.Load() && d.other.mute.Load()
}
