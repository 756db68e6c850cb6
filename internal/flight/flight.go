// Package flight makes one fetch of many. A Group finds out who fetches and who
// waits for it, and what the one who fetches then shares may be a Flight, one
// growing body: it is filled from a source while any number of readers follow,
// each at its own pace. What ends cleanly within a limit can be stored; what
// does not streams on in constant memory.
//
// # Who does what
//
// The filler is the one goroutine that calls Fill or Fail, then
// Body. A Reader belongs to one goroutine. Reader, Readers and Claim may be
// called by anyone at any time.
//
// A short body needs no goroutine for its fill. After Whole, one that has other
// things to do between may fill it Step by Step, until somebody who must not
// wait for that one calls Claim, and then Fill or Fail in its place.
//
// # Who releases what was reserved
//
// Each byte held for storing was reserved. When Fill returns nil and Body
// reports true, the reservation of exactly the body's length passes to the
// caller of Body. In every other case the flight releases it: piece by piece,
// as storing was given up or the fill failed and every reader has passed or is
// closed. So a caller whose Fill returned nil calls Body, even if it changed its
// mind about storing, and every Reader is closed.
package flight

import (
	"errors"
	"sync"
)

const (
	minChunk = 4 << 10  // first chunk of a body of unknown length
	maxChunk = 64 << 10 // and what chunks double to; most bytes that Next returns

	defaultWindow = 256 << 10
	maxEmptyReads = 100 // reads of no bytes and no error in a row, as in bufio
)

var (
	// ErrNoReaders means that the body will not be stored and nobody reads it.
	ErrNoReaders = errors.New("flight: no readers left")
	// ErrStopped is returned by Next when its stop channel closes.
	ErrStopped = errors.New("flight: reader stopped")
	// ErrTaken is returned by Step when the fill is another's.
	ErrTaken = errors.New("flight: filled by another")
	// ErrSurplus means that the source went on after Config.Length bytes.
	ErrSurplus = errors.New("flight: body longer than its length")

	errBadCount = errors.New("flight: source returned an impossible count")
	errNotWhole = errors.New("flight: step without room for the whole body")
	errAborted  = errors.New("flight: fill aborted")
	errClosed   = errors.New("flight: reader is closed")
)

// Config says what a body may cost.
type Config struct {
	// Length is the body's length as its framing promises it; negative means
	// unknown. A body that ends before it or goes on after it is an error.
	Length int64
	// Limit is the most bytes kept for storing. A longer body is not stored,
	// and if Length already says so, never was to be.
	Limit int64
	// Window is how far the fill of a body that is not stored may be ahead of
	// its slowest reader, in bytes. Zero or negative means 256 KiB.
	Window int64
	// Reserve asks for n bytes before they are held for storing; if it says no,
	// the body is not stored. Nil grants everything. It is called by the filler.
	Reserve func(n int64) bool
	// Release gives back n reserved bytes. Nil does nothing. It is called by the
	// filler and by readers.
	Release func(n int64)
	// Unread is called once when the last reader of a body that is not stored
	// closes before the end, by that reader: to cancel a source that may block.
	// Nil does nothing. None of these functions is called with a lock held.
	Unread func()
}

// A chunk is part of the body. buf[:n] is published and never written again
// while a reader may look at it.
type chunk struct {
	buf     []byte
	n       int
	kept    int64 // bytes reserved for buf
	readers int   // whose position is in it
}

func (c *chunk) full() bool { return c.n == len(c.buf) }

// Flight is one body on its way. Use New.
type Flight struct {
	c Config

	// Only the filler touches these, and of those who Step, the one whose turn it is.
	total int64   // bytes published
	tail  []byte  // unpublished rest of the last chunk
	whole bool    // tail has room for all of Length
	probe [1]byte // finds out whether there is more when nothing more can be kept
	woken []*Reader

	mu        sync.Mutex
	room      sync.Cond // the filler waits in it for the slowest reader, or for its turn
	busy      bool      // somebody fills: for one Step, or to the end
	claimed   bool      // Step fills no more
	chunks    []chunk   // what is held, oldest first
	one       [1]chunk  // where chunks begins: most bodies are small
	base      int       // chunks dropped before chunks[0]
	held      int64     // bytes of all chunks
	spare     [][]byte  // dropped chunks to be filled again
	readers   int       // open
	past      int       // readers that passed the last chunk
	waiters   []*Reader // readers at the end of what is published
	abandoned bool      // will not be stored; written by the filler
	taken     bool      // Body gave the body away
	done      bool      // it has ended
	err       error     // how, nil: well
}

// New returns a flight that holds nothing yet. Open the first Reader before
// Fill: a body that cannot be stored is not read for nobody.
func New(c Config) *Flight {
	if c.Length < 0 {
		c.Length = -1
	}
	if c.Window <= 0 {
		c.Window = defaultWindow
	}
	if c.Reserve == nil {
		c.Reserve = func(int64) bool { return true }
	}
	if c.Release == nil {
		c.Release = func(int64) {}
	}
	f := &Flight{c: c, abandoned: c.Length > max(c.Limit, 0)}
	f.chunks = f.one[:0]
	f.room.L = &f.mu
	return f
}

// Reader returns a new reader at the body's first byte. It reports false when
// that byte is gone or the fill has failed.
func (f *Flight) Reader() (*Reader, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.base > 0 || f.err != nil {
		return nil, false
	}
	f.readers++
	if len(f.chunks) > 0 {
		f.chunks[0].readers++
	} else {
		f.past++
	}
	return &Reader{f: f, slot: noSlot}, true
}

// Readers returns how many readers are open.
func (f *Flight) Readers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readers
}

// Body returns the complete body, in pieces that nobody may write to, if Fill
// returned nil and the body was to be stored. It does so once: the first call
// that reports true makes the caller owner of the reservation, which is as long
// as the body. Open readers read on.
func (f *Flight) Body() ([][]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.done || f.err != nil || f.abandoned || f.taken {
		return nil, false
	}
	f.taken = true
	body := make([][]byte, len(f.chunks))
	for i := range f.chunks {
		body[i] = f.chunks[i].buf
	}
	return body, true
}

// sweep drops the chunks that every reader has passed, unless they are for
// storing, and returns how many reserved bytes that frees; f.mu is held.
func (f *Flight) sweep() (freed int64) {
	if !f.abandoned && f.err == nil {
		return 0
	}
	if f.readers == 0 && !f.done {
		return 0 // before Fill: nobody passed it, the first reader is yet to come
	}
	n := 0
	for ; n < len(f.chunks); n++ {
		c := &f.chunks[n]
		if c.readers > 0 || !c.full() && !f.done {
			break
		}
		f.held -= int64(len(c.buf))
		freed += c.kept
		f.reuse(c.buf)
	}
	if n > 0 {
		f.chunks = deleteFront(f.chunks, n)
		f.base += n
		f.room.Broadcast()
	}
	return freed
}

// reuse keeps a chunk that nobody looks at any more, while chunks held and
// spare stay within the window; f.mu is held.
func (f *Flight) reuse(buf []byte) {
	size := f.windowChunk()
	if !f.done && int64(len(buf)) == size && f.held+size*int64(len(f.spare)+1) <= f.c.Window {
		f.spare = append(f.spare, buf)
	}
}

func (f *Flight) windowChunk() int64 { return min(maxChunk, f.c.Window) }

func (f *Flight) release(n int64) {
	if n > 0 {
		f.c.Release(n)
	}
}

// deleteFront moves the rest down, so that the array does not creep through memory.
func deleteFront(chunks []chunk, n int) []chunk {
	rest := copy(chunks, chunks[n:])
	clear(chunks[rest:])
	return chunks[:rest]
}
