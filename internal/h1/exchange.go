package h1

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Others wait for a response beside whoever asked for it.
type Others interface {
	// Wait reports whether anybody does. As long as somebody does, the end of
	// Exchange.Context ends nothing.
	Wait() bool
}

// Exchange is one request and its response. It is set up, used once, by
// [Client.Do], read to its end or not, and closed. Its methods are for one
// goroutine, but for Abort. It must not be copied.
type Exchange struct {
	// The request. It is not changed, and not to be changed before the Exchange
	// is closed and Uploads is done.
	Context    context.Context // of whoever waits for the response; its end ends the exchange
	Others     Others          // nil: nobody else waits for it
	Method     string
	Path       string // escaped
	Query      string // without the question mark
	ForceQuery bool   // a question mark though the query is empty
	Host       string
	Fields     http.Header     // without those of the framing
	Body       io.Reader       // the content; nil: none. It may be read until Uploads is done
	Length     int64           // of the content; negative: unknown
	Trailer    http.Header     // of the content: names from the beginning, values from its end on
	Uploads    *sync.WaitGroup // counts what still reads Body

	// The times. Zero: none.
	Start    time.Time     // about now, where the caller has just looked at the clock
	Head     time.Time     // when the response's header has to be there
	Response time.Duration // from the end of the request to the response's header
	Idle     time.Duration // between two pieces of content, both ways
	End      time.Time     // of everything

	Observer Observer
	Progress Progress // nil: nobody asks

	// The response, once Do has returned nil.
	Status        int
	Answered      time.Time   // when the header was there
	Header        http.Header // made by Do, unless it is there and empty
	ContentLength int64       // negative: unknown
	Framed        bool        // the end of the content is proven by its framing
	Minor         int         // of the version: 1 for HTTP/1.1
	Peer          net.Addr    // of the connection that the request went over last, also where there is no response; nil: none
	Trailers      http.Header // after the content: names that were announced from Do on, values from the content's end on

	client    *Client
	message   message
	mode      mode
	remaining int64 // of a content of known length
	chunks    chunked
	rest      *buffer // what the last piece lies in, once the connection is gone; nil: nothing
	waited    bool    // for content: the header came a while ago
	seen      look
	reusable  bool
	tainted   bool
	onSurplus func()
	escaped   bool // the watch on a context may still call Abort
	upload    upload

	mu        sync.Mutex
	conn      *conn // nil: none yet, or none any more
	answered  bool  // the final response's header is there
	aborted   error
	interrupt context.CancelCauseFunc // of the wait for a connection
	unwatch   func() bool             // of Context; nil: it is not watched
	due       time.Time               // of what is waited for; zero: whenever it comes
	why       TimeoutError
	whyWrite  TimeoutError // the same of the write under way
}

// An Observer is told what happens before the response.
type Observer interface {
	// Interim is told of each 1xx response but 101; an error ends the exchange.
	Interim(status int, header http.Header) error
}

// Progress is told, on the goroutine of Do, how far it has come.
type Progress interface{ Reached(step Step) }

// A Step is what Do waits for.
type Step int8

// The steps. One that need not be waited for is left out.
const (
	StepPool   Step = iota // a connection that comes free, or may be made
	StepDial               // a new connection
	StepAnswer             // the request is being sent, and then the answer's header
)

func (x *Exchange) reached(step Step) {
	if x.Progress != nil {
		x.Progress.Reached(step)
	}
}

// mode is how a content ends.
type mode int8

const (
	modeNone   mode = iota // there is none, or no more
	modeLength             // after so many bytes
	modeChunked
	modeClose // with the connection
	modeSwitched
)

// Do sends the request and waits for the header of its final response. The
// content of the response is then read with Next or Read. Whatever it returns,
// Close ends the exchange.
func (cl *Client) Do(x *Exchange) error {
	x.client = cl
	if err := left(x.Context, x.Others); err != nil {
		return err
	}
	m := &x.message
	m.take()
	defer m.free()
	if err := x.fillMessage(m); err != nil {
		return x.reason(err)
	}
	for c, err := cl.connect(x); ; c, err = cl.replace(x) {
		if err != nil {
			return x.reason(err)
		}
		if err := x.attach(c); err != nil {
			cl.pool.drop(c, DiscardError)
			return err
		}
		x.reached(StepAnswer)
		seen, err := x.send(m)
		if x.seen = seen; seen != lookAlive {
			continue
		}
		if err == nil {
			err = x.readHead()
		}
		return err
	}
}

// attach makes c the connection of x.
func (x *Exchange) attach(c *conn) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.aborted != nil {
		return x.aborted
	}
	x.conn, c.buffers = c, &x.client.buffers
	x.Peer = c.RemoteAddr() // which may panic
	x.due, x.why = x.Head, HeadTimeout
	if !x.End.IsZero() && (x.due.IsZero() || x.End.Before(x.due)) {
		x.due, x.why = x.End, EndTimeout
	}
	return nil
}

// interruptWith has Abort call f.
func (x *Exchange) interruptWith(f context.CancelCauseFunc) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.interrupt = f
	return x.aborted
}

// Abort ends the exchange from outside: what is under way fails with cause. It
// may be called at any time, by any goroutine.
func (x *Exchange) Abort(cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.aborted != nil {
		return
	}
	x.aborted = cause
	if x.interrupt != nil {
		x.interrupt(cause)
	}
	if x.conn != nil {
		x.conn.interrupt()
	}
}

// reason prefers what ended the exchange from outside to what came of it.
func (x *Exchange) reason(err error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.aborted != nil {
		return x.aborted
	}
	return err
}

// send writes the request, and has the rest of its content streamed. An error
// means that no response can come.
func (x *Exchange) send(m *message) (look, error) {
	c := x.conn
	fresh := c.uses == 0
	c.uses++
	now := x.Start
	if now.IsZero() {
		now = time.Now()
	}
	if err := x.arm(now); err != nil {
		return lookAlive, err
	}
	size, streams := len(m.bytes), !x.upload.done
	if streams || !c.sock.ok() {
		if !fresh {
			if seen := c.look(); seen != lookAlive {
				return seen, nil
			}
		}
		if err := x.armWrite(c); err != nil {
			return lookAlive, err
		}
		n, err := c.Write(m.bytes)
		return lookAlive, x.posted(n, size, err, streams)
	}
	seen, n, err := c.post(m, fresh)
	for n == 0 && isTimeout(err) { // we were held up since arm, and nothing was done
		if err = x.expired(time.Now(), false); err == nil {
			err = x.arm(time.Now())
		}
		if err != nil {
			return lookAlive, err
		}
		seen, n, err = c.post(m, fresh)
	}
	if seen != lookAlive {
		return seen, nil
	}
	if err == nil && n < size {
		if err = x.armWrite(c); err == nil {
			var rest int
			rest, err = c.Write(m.bytes[n:])
			n += rest
		}
	}
	return lookAlive, x.posted(n, size, err, false)
}

// posted goes on after the first write, of which n bytes of size were written.
func (x *Exchange) posted(n, size int, err error, streams bool) error {
	c := x.conn
	if n < size && len(c.data()) == 0 {
		if isTimeout(err) {
			err = x.expired(time.Now(), true)
		} else if again := c.fillNow(); again == nil {
			return nil // an answer although the request was not taken
		}
		return x.broke(err, n == 0 && c.sock.ok())
	}
	if streams {
		x.start(c)
		return nil
	}
	if x.Response > 0 {
		x.mu.Lock()
		x.await(time.Now())
		x.mu.Unlock()
	}
	if err != nil && !isTimeout(err) && len(c.data()) == 0 {
		return x.broke(err, false)
	}
	return nil
}

// broke is the end of an exchange by the failure of its connection.
func (x *Exchange) broke(err error, unsent bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.aborted != nil {
		return x.aborted
	}
	if _, ours := err.(TimeoutError); ours { //nolint:errorlint // expired's
		return err
	}
	return &BrokenError{Err: err, Unsent: unsent, Heard: x.answered || len(x.conn.data()) > 0, Reused: x.conn.uses > 1}
}

// fill waits for data.
func (x *Exchange) fill() error {
	c := x.conn
	for {
		if err := x.arm(time.Now()); err != nil {
			return err
		}
		err := c.fill()
		if err == nil {
			return nil
		}
		if !isTimeout(err) {
			return x.broke(err, false)
		}
		if err := x.expired(time.Now(), false); err != nil {
			return err
		}
	}
}

// readHead reads the heads of the response, up to the final one.
func (x *Exchange) readHead() error {
	c, seen := x.conn, 0
	for {
		data := c.data()
		n := scanHead(data, seen)
		if n == 0 {
			if len(data) >= x.client.limits.bytes {
				return errHeadTooLarge
			}
			seen = len(data)
			if err := x.fill(); err != nil {
				return err
			}
			continue
		}
		seen = 0
		h := head{}
		final, err := x.readOne(&h, data[:n])
		c.skip(n)
		switch {
		case err != nil:
			return err
		case final:
			return x.settle(&h)
		}
	}
}

// readOne parses one head, and says whether it is the final one.
func (x *Exchange) readOne(h *head, raw []byte) (final bool, err error) {
	header := x.Header
	if interim(raw) {
		header = make(http.Header)
	} else if header == nil {
		header = make(http.Header)
		x.Header = header
	}
	if err := h.parse(raw, header, x.client.limits); err != nil {
		return false, err
	}
	if h.status >= 200 || h.status == http.StatusSwitchingProtocols {
		x.Header = header
		return true, nil
	}
	if h.status == http.StatusContinue {
		x.wanted()
	}
	if x.Observer == nil {
		return false, nil
	}
	return false, x.Observer.Interim(h.status, header)
}

// interim reports whether raw looks like the head of an interim response.
func interim(raw []byte) bool { return len(raw) > 9 && raw[9] == '1' }

// settle takes h as the final head, and sees how the content will end (RFC
// 9112 §6.3).
func (x *Exchange) settle(h *head) error {
	x.mu.Lock()
	x.answered = true
	x.due = time.Time{}
	x.mu.Unlock()
	x.wanted()
	x.Answered = time.Now()
	x.Status, x.Minor, x.Framed = h.status, h.minor, true
	x.ContentLength, x.reusable = h.length, x.client.reuse && !h.close
	switch {
	case h.status == http.StatusSwitchingProtocols:
		x.mode, x.ContentLength = modeSwitched, -1
		return nil
	case x.Method == http.MethodHead, h.status == http.StatusNoContent, h.status == http.StatusNotModified:
		x.mode, x.remaining = modeLength, 0
		if h.length < 0 {
			x.ContentLength = 0
		}
	case h.chunked:
		x.mode, x.ContentLength = modeChunked, -1
		x.announce()
	case h.length >= 0:
		x.mode, x.remaining = modeLength, h.length
	default:
		x.mode, x.ContentLength, x.Framed, x.reusable = modeClose, -1, false, false
	}
	return nil
}

// ended reports whether there is no more content to come, though the connection
// is still held.
func (x *Exchange) ended() bool { return x.mode == modeLength && x.remaining == 0 }

// finish gives the connection back: the response has ended. A piece that was
// not used yet keeps its buffer.
func (x *Exchange) finish(piece []byte) {
	c := x.conn
	x.mode = modeNone
	x.tainted = x.tainted || len(c.data()) > 0
	whole := x.uploadDone()
	c = x.detach()
	if len(piece) > 0 {
		x.rest, c.buf = c.buf, nil
	}
	c.free()
	switch {
	case x.tainted:
		x.client.pool.drop(c, DiscardSurplus)
	case !x.reusable || !whole || x.wasAborted():
		x.client.pool.drop(c, DiscardNotReusable)
	default:
		if c.writeArmed {
			c.writeArmed = false
			_ = c.SetWriteDeadline(time.Time{})
		}
		c.surplus = x.onSurplus
		now := x.Answered
		if x.waited {
			now = time.Now()
		}
		x.client.pool.put(c, now)
	}
}

// detach takes the connection away from whoever may touch it.
func (x *Exchange) detach() *conn {
	x.mu.Lock()
	c, unwatch := x.conn, x.unwatch
	x.conn, x.unwatch = nil, nil
	x.mu.Unlock()
	if unwatch != nil && !unwatch() {
		x.escaped = true
	}
	return c
}

// drop closes the connection, if there is one.
func (x *Exchange) drop(why Discard) {
	if c := x.detach(); c != nil {
		x.client.pool.drop(c, why)
	}
}

func (x *Exchange) wasAborted() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.aborted != nil
}

// Surplus reports whether more came than the response, by the end of its
// content: nothing says what it was that was read.
func (x *Exchange) Surplus() bool { return x.tainted }

// OnSurplus has f called if it turns out later that more came on the connection
// than the response. It is called before the content's end.
func (x *Exchange) OnSurplus(f func()) { x.onSurplus = f }

// Close ends the exchange. A response that was not read to its end takes its
// connection along, and with it an upload under way.
func (x *Exchange) Close() {
	x.release()
	if x.ended() {
		x.finish(nil)
	}
	x.mode = modeNone
	x.drop(DiscardError)
	if x.upload.ended != nil {
		x.Abort(errDone) // before content that was not wanted so far is
		x.wanted()
	}
}

var errDone = errors.New("the exchange is over")

// Free reports whether nobody but the caller knows the exchange any more, once it
// is closed and Uploads is done: its memory may be used again.
func (x *Exchange) Free() bool { return !x.escaped }

// Switched returns the connection after a 101, from the first byte after the
// head on. The caller closes it.
func (x *Exchange) Switched() io.ReadWriteCloser {
	c := x.detach()
	_ = c.SetDeadline(time.Time{})
	return x.client.tunnel(c)
}
