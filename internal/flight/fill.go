package flight

import (
	"errors"
	"io"
)

// Fill reads src to its end and publishes bytes as they arrive. It returns nil
// at a clean end, which readers see as io.EOF, or else what they see: src's
// error (io.ErrUnexpectedEOF for one that merely wraps io.EOF),
// io.ErrUnexpectedEOF or ErrSurplus if the length is not Config.Length, or
// ErrNoReaders. It is called once, by one goroutine, and does not close src.
//
// While the body may be stored, Fill waits for no reader. Once it may not, the
// slowest reader holds Fill back, so readers that stall must be closed.
func (f *Flight) Fill(src io.Reader) (err error) {
	defer f.leave()
	if f.enter() { // it ended with the Step that enter waited for
		return f.err
	}
	err = errAborted // for the readers, should src panic
	defer func() { err = f.end(err) }()
	return f.fill(src)
}

// Fail ends a flight that will not be filled: readers get err after the bytes that
// a Step has published. It is called in place of Fill.
func (f *Flight) Fail(err error) {
	defer f.leave()
	f.enter()
	if err == nil || errors.Is(err, io.EOF) {
		err = errAborted // nobody may take it for a clean end
	}
	_ = f.end(err)
}

// enter waits until no Step is under way, lets no other begin, and reports
// whether the fill is over.
func (f *Flight) enter() (over bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.claimed = true
	for f.busy {
		f.room.Wait() // not for a mutex: time in a synctest bubble goes on
	}
	f.busy = true
	return f.done
}

func (f *Flight) leave() {
	f.mu.Lock()
	f.busy = false
	f.room.Broadcast()
	f.mu.Unlock()
}

func (f *Flight) fill(src io.Reader) error {
	if err := f.unread(); err != nil {
		return err
	}
	for {
		p, err := f.space()
		if err != nil {
			return err
		}
		n, readErr := read(src, p)
		if err := f.take(n); err != nil {
			return err
		}
		if readErr != nil {
			return f.judge(readErr)
		}
	}
}

// judge returns what it means that src ended with err. Only io.EOF itself is a
// clean end. An error that wraps it is not, nor may a caller who asks errors.Is
// take it for one.
func (f *Flight) judge(err error) error {
	clean := err == io.EOF //nolint:errorlint // see above
	switch {
	case clean && f.total >= f.c.Length:
		return nil
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

// space returns where to read to: the rest of the last chunk, a new chunk, or,
// when the body ends here or else is too long, the probe.
func (f *Flight) space() ([]byte, error) {
	switch {
	case len(f.tail) > 0:
	case f.total == f.c.Length:
		return f.probe[:], nil
	case f.abandoned:
		if err := f.window(); err != nil {
			return nil, err
		}
	case !f.keep():
		return f.probe[:], nil
	}
	return f.tail, nil
}

// take publishes n bytes that were read to what space returned.
func (f *Flight) take(n int) error {
	switch {
	case n == 0:
		return nil
	case len(f.tail) > 0:
		return f.publish(n)
	case f.total == f.c.Length:
		return ErrSurplus
	}
	f.abandon()
	if err := f.unread(); err != nil {
		return err
	}
	if err := f.window(); err != nil {
		return err
	}
	return f.publish(copy(f.tail, f.probe[:n]))
}

// keep adds a chunk for storing, if limit and reservation allow.
func (f *Flight) keep() bool {
	if f.abandoned {
		return false
	}
	size := int64(maxChunk)
	if f.c.Length < 0 { // doubles what there is: 4, 4, 8, 16, 32, 64, 64, … KiB
		size = min(max(f.total, minChunk), maxChunk)
	}
	size = min(f.rest(size), f.c.Limit-f.total)
	if size <= 0 || !f.c.Reserve(size) {
		return false
	}
	f.extend(make([]byte, size), size)
	return true
}

// window adds a chunk that will not be stored, once the slowest reader is near.
func (f *Flight) window() error {
	size := f.rest(f.windowChunk())
	f.mu.Lock()
	for !f.done && f.held > 0 && f.held+size > f.c.Window {
		f.room.Wait()
	}
	err := f.err
	var buf []byte
	if n := len(f.spare); n > 0 {
		buf, f.spare = f.spare[n-1][:size], f.spare[:n-1]
	}
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if buf == nil {
		buf = make([]byte, size)
	}
	f.extend(buf, 0)
	return nil
}

// rest returns size, or what is missing to the known length if that is less.
func (f *Flight) rest(size int64) int64 {
	if f.c.Length < 0 {
		return size
	}
	return min(size, f.c.Length-f.total)
}

// extend appends a chunk; readers that passed the last one are now in it.
func (f *Flight) extend(buf []byte, kept int64) {
	f.mu.Lock()
	f.chunks = append(f.chunks, chunk{buf: buf, kept: kept, readers: f.past})
	f.past = 0
	f.held += int64(len(buf))
	f.mu.Unlock()
	f.tail = buf
}

// publish shows readers the first n bytes of tail.
func (f *Flight) publish(n int) error {
	f.mu.Lock()
	err := f.err
	if !f.done {
		f.chunks[len(f.chunks)-1].n += n
		f.total += int64(n)
		f.tail = f.tail[n:]
	}
	f.detach()
	f.mu.Unlock()
	f.wake()
	return err
}

// abandon gives up storing. What readers have yet to read stays reserved until
// they have passed it.
func (f *Flight) abandon() {
	f.mu.Lock()
	f.abandoned = true
	freed := f.sweep()
	f.mu.Unlock()
	f.release(freed)
}

// unread ends a flight that is neither stored nor read.
func (f *Flight) unread() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.done && f.abandoned && f.readers == 0 {
		f.done, f.err = true, ErrNoReaders
	}
	return f.err
}

// end settles how the flight ended and returns that: if the last reader left a
// body that is not stored, the error of a source cancelled for it is no news.
func (f *Flight) end(err error) error {
	f.mu.Lock()
	if !f.done {
		f.done, f.err = true, err
	}
	err = f.err
	f.spare = nil
	freed := f.sweep()
	if !f.abandoned && f.err == nil {
		freed = f.fit()
	}
	f.detach()
	f.mu.Unlock()
	f.release(freed)
	f.wake()
	return err
}

// fit cuts the last chunk of a complete body to what is in it. A reader may
// hold the old one, so the bytes move to a new one. f.mu is held.
func (f *Flight) fit() (freed int64) {
	last := len(f.chunks) - 1
	if last < 0 || f.chunks[last].full() {
		return 0
	}
	c := &f.chunks[last]
	freed = c.kept - int64(c.n)
	f.held -= freed
	if c.n == 0 {
		f.past += c.readers
		f.chunks = f.chunks[:last]
		return freed
	}
	c.buf = append(make([]byte, 0, c.n), c.buf[:c.n]...)
	c.kept = int64(c.n)
	return freed
}

// detach takes the waiting readers out of the list, for wake; f.mu is held.
func (f *Flight) detach() {
	f.woken, f.waiters = f.waiters, f.woken[:0]
	for _, r := range f.woken {
		r.slot = noSlot
	}
}

// wake rouses the detached readers. It runs without the lock, which they all
// want next.
func (f *Flight) wake() {
	for _, r := range f.woken {
		r.wake <- struct{}{}
	}
	clear(f.woken)
}

// ReadWhole reads a body of a known length, which is all of src: what ends before
// it or goes on after it is an error, as for Fill.
func ReadWhole(src io.Reader, p []byte) error {
	if _, err := io.ReadFull(src, p); err != nil {
		return err
	}
	var probe [1]byte
	switch n, err := read(src, probe[:]); {
	case n > 0:
		return ErrSurplus
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// read reads once, or until something comes of it.
func read(src io.Reader, p []byte) (int, error) {
	for range maxEmptyReads {
		n, err := src.Read(p)
		if n < 0 || n > len(p) {
			return 0, errBadCount
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}
