package retry

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// ErrTooLarge is what reading fails with when the client's body exceeds the maximum given to [NewBody].
var ErrTooLarge = errors.New("request body too large")

var (
	errSurplus   = errors.New("request body longer than its declared length")
	errMisread   = errors.New("request body returned an impossible count from Read")
	errAbandoned = errors.New("reading the request body did not return")
)

const (
	firstKeep     = 1 << 10 // the replay buffer's first size; it doubles
	maxEmptyReads = 100
)

// Body is a client's request body that can be sent again while it is small: what attempts read of it is kept up to a
// limit, and each attempt reads its own view from the first byte on. Beyond that limit the body streams through and
// cannot be sent again.
//
// All methods are safe for concurrent use, also with reads of the views. Body never closes its source.
type Body struct {
	// Before is called before each read of the source, one at a time and never once Close has begun: the place to
	// extend a rolling read deadline. Nil does nothing. It must not call the Body. Set it before the first Attempt.
	Before func()

	// After is called after each read of the source that has not ended it, if Close has not begun: the place to take that
	// deadline off where it would hold between reads, too. Nil does nothing. It must not call the Body. Set it before the
	// first Attempt.
	After func()

	// Unblock is called by Close or Abort, at most once and only if a read of the source is in flight, to make that read
	// return; no Before follows it. Nil waits for the read. Set it before the first Attempt.
	Unblock func()

	// AtEOF is called once the source has come to its regular end, before that end is read: the place to take up the
	// trailer section. Nil does nothing. It must not call the Body. Set it before the first Attempt.
	AtEOF func()

	src    io.Reader
	length int64
	keep   int
	bound  int64 // no more than this may be read, or -1
	over   error // why not

	mu     sync.Mutex
	landed sync.Cond // on mu: the source's read returned, or the view changed
	view   *view     // the open view, if any: a view that is not this one is closed
	first  view      // the first attempt's, which most often is the only one
	opened bool      // first is taken
	closed bool
	busy   bool   // a read of the source is in flight
	spills bool   // what that read brings cannot be kept
	lost   bool   // bytes went through that were not kept
	kept   []byte // all bytes read so far, unless lost
	read   int64
	empty  int   // reads in a row that brought neither bytes nor an error
	end    error // how the source ended: io.EOF, or a failure
}

// NewBody returns the body that src yields; nil is an empty one. A length of -1 is unknown: otherwise a body that ends
// before it fails with io.ErrUnexpectedEOF. At most keep bytes are kept to be sent again. A body of more than
// maxBytes fails with ErrTooLarge, -1 allows any size.
func NewBody(src io.Reader, length int64, keep int, maxBytes int64) *Body {
	if src == nil {
		src = http.NoBody
	}
	b := &Body{src: src, length: length, keep: max(keep, 0), bound: maxBytes, over: ErrTooLarge}
	switch {
	case maxBytes >= 0 && length > maxBytes:
		b.end = ErrTooLarge
	case length >= 0:
		b.bound, b.over = length, errSurplus
	}
	b.landed.L = &b.mu
	b.first.body = b
	return b
}

// Attempt opens a view of the body from its first byte on and closes the former one. It reports false, and leaves the
// former one as it is, when bytes that the view would need were not kept, or after Close. The caller, or the transport
// that it gives the view to, closes it.
//
// Closing a view, here or by its Close, neither waits for nor interrupts a read of the source: what that read brings
// reaches the next view.
func (b *Body) Attempt() (io.ReadCloser, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.repeatable() {
		return nil, false
	}
	v := &b.first
	if b.opened {
		v = &view{body: b}
	}
	b.opened = true
	b.show(v)
	return v, true
}

// Repeatable reports whether Attempt would open a view now.
func (b *Body) Repeatable() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.repeatable()
}

// Err returns what reading the client's body failed with, ErrTooLarge and io.ErrUnexpectedEOF included; nil while it
// has not, and at its regular end. What Close provokes is no failure.
func (b *Body) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if regular(b.end) {
		return nil
	}
	return b.end
}

// Read returns the number of bytes read from the source so far.
func (b *Body) Read() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read
}

// Done reports whether all of the body was read from the source: it came to its regular end, or brought all of its
// declared length. Where it has not, nobody knows where the next message begins.
func (b *Body) Done() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return regular(b.end) || b.length >= 0 && b.read == b.length
}

// Busy reports whether a read of the source is in flight.
func (b *Body) Busy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.busy
}

// Close closes the open view and frees what was kept. It returns once no read of the source is in flight, and none
// starts later: the source is its owner's again. See Unblock for a source that may block.
func (b *Body) Close() {
	b.Abort()
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.busy {
		b.landed.Wait()
	}
}

// Abort is a Close that does not wait: for whoever has to end a reader that is not its own.
func (b *Body) Abort() {
	if b.shut() && b.Unblock != nil {
		b.Unblock()
	}
}

// shut ends all reading, and reports whether a read of the source is left in flight that nobody has unblocked yet.
func (b *Body) shut() (blocked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	blocked = b.busy && !b.closed
	b.closed = true
	b.kept = nil
	b.show(nil)
	return blocked
}

// repeatable is Repeatable under mu.
func (b *Body) repeatable() bool { return !b.closed && !b.lost && !b.spills }

// show makes v the open view, under mu, and wakes a read of the former one.
func (b *Body) show(v *view) {
	b.view = v
	b.landed.Broadcast()
}

// view is one attempt's reading of the body.
type view struct {
	body *Body
	pos  int // guarded by body.mu; how much of kept was read
}

// Read reads what was kept, then the source. On a closed view it fails with http.ErrBodyReadAfterClose.
func (v *view) Read(p []byte) (int, error) {
	b := v.body
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.view == v {
		switch {
		case v.pos < len(b.kept):
			n := copy(p, b.kept[v.pos:])
			v.pos += n
			return n, nil
		case b.end != nil:
			return 0, b.end
		case len(p) == 0:
			return 0, nil
		case b.busy: // a former view's read: its bytes are ours
			b.landed.Wait()
		default:
			n := b.fetch(p)
			if b.view != v {
				return 0, http.ErrBodyReadAfterClose
			}
			v.pos = len(b.kept)
			return n, b.end
		}
	}
	return 0, http.ErrBodyReadAfterClose
}

// Close closes the view at once, also while a Read is in flight.
func (v *view) Close() error {
	v.body.mu.Lock()
	defer v.body.mu.Unlock()
	if v.body.view == v {
		v.body.show(nil)
	}
	return nil
}

// fetch reads the source into p, under mu, which it gives up meanwhile. A read that starts while bytes can be kept
// asks for no more than can be, so none of it is lost when its view is closed; the one that starts when the buffer is
// full decides that the body cannot be sent again.
func (b *Body) fetch(p []byte) (n int) {
	room := b.keep - len(b.kept)
	if b.lost {
		room = 0
	}
	if room > 0 {
		p = p[:min(len(p), room)]
	}
	if left := b.bound - b.read; b.bound >= 0 && left < int64(len(p)) {
		p = p[:left+1] // the one more shows that there is more
	}
	if b.Before != nil {
		b.Before()
	}
	b.busy = true
	b.spills = room <= 0 && b.read != b.bound
	b.mu.Unlock()

	err := errAbandoned
	defer func() { // also when the source or AtEOF panics: Close waits for it
		b.mu.Lock()
		b.busy = false
		b.landed.Broadcast()
		n = b.land(p, n, err)
		b.spills = false
	}()
	n, err = b.src.Read(p)
	return n
}

// land accounts for a read of the source that returned n bytes in p and err, under mu, and returns how many of them
// are the body's.
func (b *Body) land(p []byte, n int, err error) int {
	if n < 0 || n > len(p) {
		n, err = 0, errMisread
	}
	b.read += int64(n)
	if b.bound >= 0 && b.read > b.bound {
		n -= int(b.read - b.bound)
		err = b.over
	}
	if regular(err) && b.read < b.length {
		err = io.ErrUnexpectedEOF
	}
	if b.empty++; n > 0 || err != nil {
		b.empty = 0
	} else if b.empty >= maxEmptyReads {
		err = io.ErrNoProgress
	}
	if b.closed {
		return 0
	}
	b.end = err
	switch {
	case err == nil && b.After != nil:
		b.After()
	case regular(err) && b.AtEOF != nil:
		b.AtEOF()
	}
	switch {
	case n == 0:
	case b.spills:
		b.lost, b.kept = true, nil
	default:
		b.store(p[:n])
	}
	return n
}

// store appends p to what is kept; fetch has made sure that it fits.
func (b *Body) store(p []byte) {
	if need := len(b.kept) + len(p); need > cap(b.kept) {
		grown := make([]byte, len(b.kept), min(max(need, 2*cap(b.kept), firstKeep), b.keep))
		copy(grown, b.kept)
		b.kept = grown
	}
	b.kept = append(b.kept, p...)
}

// regular reports whether err is a reader's regular end: io.EOF itself, not an error that wraps it (io.Reader).
func regular(err error) bool {
	return err == io.EOF //nolint:errorlint // see above
}
