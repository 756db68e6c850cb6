package h1

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// upload is a request's content on its way, on a goroutine of its own where it
// outlives the first write.
type upload struct {
	done  bool          // all of it was written; after start: guarded by the exchange
	last  bool          // the last of it is being written; guarded by the exchange
	goes  chan struct{} // closed when the upstream wants the content, or the wait for it is over
	ended chan struct{} // closed when the goroutine has ended; nil: there was none
}

// continueTime is how long an upstream has to say 100 (Continue). One that
// does not know it would wait for the content (RFC 9110 §10.1.1).
const continueTime = time.Second

// start sends the content from here on while the caller reads the response.
func (x *Exchange) start(c *conn) {
	x.upload.ended = make(chan struct{})
	if asksFirst(x.Fields) {
		x.upload.goes = make(chan struct{})
	}
	x.Uploads.Add(1)
	go x.stream(c, x.upload.goes)
}

func (x *Exchange) stream(c *conn, goes chan struct{}) {
	err := fmt.Errorf("%w: a panic", errPanic)
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", errPanic, v)
		}
		x.uploaded(err)
		close(x.upload.ended)
		x.Uploads.Done()
	}()
	if goes != nil && !x.mayGo(goes) {
		err = errUnwanted
		return
	}
	err = x.copyContent(c)
}

var (
	errPanic    = errors.New("reading the request's content")
	errUnwanted = errors.New("the upstream did not want the content")
)

// mayGo waits for 100 (Continue), for a moment.
func (x *Exchange) mayGo(goes chan struct{}) bool {
	t := time.NewTimer(continueTime)
	defer t.Stop()
	select {
	case <-goes:
	case <-t.C:
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return !x.answered && x.aborted == nil
}

// wanted ends the wait for 100 (Continue).
func (x *Exchange) wanted() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.upload.goes != nil {
		close(x.upload.goes)
		x.upload.goes = nil
	}
}

// uploaded notes how the content went. A failure of the connection is not the
// end: the upstream may have answered before (RFC 9112 §9.5).
func (x *Exchange) uploaded(err error) {
	x.mu.Lock()
	x.upload.done = err == nil
	answered := x.answered
	if err == nil && !answered && x.Response > 0 {
		x.await(time.Now())
	}
	x.mu.Unlock()
	var broken *errUpload
	if !answered && (errors.As(err, &broken) || errors.Is(err, errPanic)) {
		x.Abort(err)
	}
}

// uploadDone reports whether all of the content was written. The last of it may
// be on its way out while the response comes in.
func (x *Exchange) uploadDone() bool {
	if x.upload.ended == nil {
		return x.upload.done
	}
	x.mu.Lock()
	done, last := x.upload.done, x.upload.last
	x.mu.Unlock()
	if done || !last {
		return done
	}
	t := time.NewTimer(lastTime)
	defer t.Stop()
	select {
	case <-x.upload.ended:
	case <-t.C:
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.upload.done
}

const lastTime = 5 * time.Millisecond

// copyContent writes the content and the end of it.
func (x *Exchange) copyContent(c *conn) error {
	var m message
	m.take()
	defer m.free()
	const sizeDigits = 6 // "xxxx\r\n"
	buf := m.buf[:]
	for left := x.Length; ; {
		n, readErr := x.Body.Read(buf[sizeDigits : len(buf)-len(crlf)])
		if n > 0 {
			p := buf[sizeDigits : sizeDigits+n]
			if x.Length < 0 {
				p = frame(buf, n)
			} else if left -= int64(n); left < 0 {
				return &errUpload{errLong}
			}
			if err := x.write(c, p, left == 0); err != nil {
				return err
			}
		}
		switch {
		case readErr == io.EOF && left > 0:
			return &errUpload{io.ErrUnexpectedEOF}
		case readErr == io.EOF && x.Length < 0:
			return x.write(c, x.appendTrailer(buf[:0]), true)
		case readErr == io.EOF:
			return nil
		case readErr != nil:
			return &errUpload{readErr}
		}
	}
}

const crlf = "\r\n"

// frame makes a chunk of the n bytes that begin at buf[6] (RFC 9112 §7.1).
func frame(buf []byte, n int) []byte {
	var size [4]byte
	digits := strconv.AppendInt(size[:0], int64(n), 16)
	start := 6 - len(digits) - len(crlf)
	copy(buf[start:], digits)
	copy(buf[start+len(digits):], crlf)
	copy(buf[6+n:], crlf)
	return buf[start : 6+n+len(crlf)]
}

// appendTrailer appends the last chunk and the trailer section.
func (x *Exchange) appendTrailer(b []byte) []byte {
	b = append(b, "0\r\n"...)
	for name, values := range x.Trailer {
		for _, value := range values {
			n := len(b)
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, value...)
			if !isToken(name) || !plain(b[n:]) {
				b = b[:n]
				continue
			}
			b = append(b, crlf...)
		}
	}
	return append(b, crlf...)
}

// write writes content, within the body idle time.
func (x *Exchange) write(c *conn, p []byte, last bool) error {
	if err := x.armWrite(c); err != nil {
		return err
	}
	if last {
		x.mu.Lock()
		x.upload.last = true
		x.mu.Unlock()
	}
	_, err := c.Write(p)
	if isTimeout(err) {
		x.mu.Lock()
		why := x.whyWrite
		x.mu.Unlock()
		x.Abort(why)
	}
	return err
}
