package flight

import "io"

const noSlot = -1

// Reader follows a body from its first byte. Its owner closes it. It must not
// be used by two goroutines at once.
type Reader struct {
	f    *Flight
	wake chan struct{} // made at the first wait; one token for each wait that was answered

	// Only the owner touches these.
	chunk  int // the chunk it is in, counted from the body's first
	off    int // of its position in that chunk
	lent   int // bytes from off that the last Next returned
	closed bool

	slot int // in f.waiters, or noSlot; guarded by f.mu
}

// Next returns the next bytes of the body, at least one and at most 64 KiB, and
// waits for them if need be. They may be read until the next call of Next or
// Close, and never written to.
//
// At the end it returns io.EOF, or the error with which the fill ended, which
// comes after all bytes that were read before. When stop closes, it returns
// ErrStopped; a nil stop never closes.
func (r *Reader) Next(stop <-chan struct{}) ([]byte, error) {
	for {
		p, err := r.look()
		if err != nil {
			return nil, err
		}
		if p != nil {
			select {
			case <-stop:
				r.lent = 0 // not read
				return nil, ErrStopped
			default:
				return p, nil
			}
		}
		select {
		case <-r.wake:
		case <-stop:
			r.quit()
			return nil, ErrStopped
		}
	}
}

// Advance moves the reader past the next n bytes, which its owner has from
// elsewhere, and reports whether as many are published. If not, it moved past
// those that are.
func (r *Reader) Advance(n int64) bool {
	f := r.f
	var freed int64
	f.mu.Lock()
	freed += r.pass()
	for n > 0 {
		p, _ := r.lend()
		if p == nil {
			break
		}
		r.lent = int(min(n, int64(len(p))))
		n -= int64(r.lent)
		freed += r.pass()
	}
	f.mu.Unlock()
	f.release(freed)
	return n <= 0
}

// Close gives up the reader's place. It may be called again.
func (r *Reader) Close() {
	if r.closed {
		return
	}
	r.closed = true
	f := r.f
	f.mu.Lock()
	f.readers--
	r.leave()
	unread := !f.done && f.abandoned && f.readers == 0
	if unread {
		f.done, f.err = true, ErrNoReaders
		f.room.Broadcast()
	}
	freed := f.sweep()
	f.mu.Unlock()
	f.release(freed)
	if unread && f.c.Unread != nil {
		f.c.Unread()
	}
}

// look moves past what was lent and lends what is published after it. If there
// is nothing, and no error, the reader has joined the waiters.
func (r *Reader) look() ([]byte, error) {
	f := r.f
	f.mu.Lock()
	freed := r.pass()
	p, err := r.lend()
	if p == nil && err == nil {
		if r.wake == nil {
			r.wake = make(chan struct{}, 1)
		}
		r.slot = len(f.waiters)
		f.waiters = append(f.waiters, r)
	}
	f.mu.Unlock()
	f.release(freed)
	return p, err
}

// pass moves the position behind what was lent, and into the next chunk if this
// one is done; f.mu is held.
func (r *Reader) pass() (freed int64) {
	f := r.f
	if r.lent == 0 || r.closed {
		return 0
	}
	r.off += r.lent
	r.lent = 0
	if c := &f.chunks[r.chunk-f.base]; !c.full() || r.off < len(c.buf) {
		return 0
	}
	r.leave()
	r.chunk, r.off = r.chunk+1, 0
	if i := r.chunk - f.base; i < len(f.chunks) {
		f.chunks[i].readers++
	} else {
		f.past++
	}
	return f.sweep()
}

// lend returns what is published after the position; f.mu is held.
func (r *Reader) lend() ([]byte, error) {
	f := r.f
	if r.closed {
		return nil, errClosed
	}
	if i := r.chunk - f.base; i < len(f.chunks) {
		if c := &f.chunks[i]; r.off < c.n {
			end := min(c.n, r.off+maxChunk)
			r.lent = end - r.off
			return c.buf[r.off:end:end], nil
		}
	}
	if f.done && f.err == nil {
		return nil, io.EOF
	}
	return nil, f.err
}

// leave takes the reader out of its chunk; f.mu is held.
func (r *Reader) leave() {
	f := r.f
	if i := r.chunk - f.base; i < len(f.chunks) {
		f.chunks[i].readers--
	} else {
		f.past--
	}
}

// quit takes the reader out of the waiters, or takes the token that is coming.
func (r *Reader) quit() {
	f := r.f
	f.mu.Lock()
	i := r.slot
	if i != noSlot {
		last := len(f.waiters) - 1
		f.waiters[i] = f.waiters[last]
		f.waiters[i].slot = i
		f.waiters[last] = nil
		f.waiters = f.waiters[:last]
		r.slot = noSlot
	}
	f.mu.Unlock()
	if i == noSlot {
		<-r.wake
	}
}
