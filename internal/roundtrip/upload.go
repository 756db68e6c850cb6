package roundtrip

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// upload is a request's content as the round tripper reads it, on a goroutine of
// its own. It finds that the upstream does not take it, and lets nothing that
// goes wrong in a read reach that goroutine.
type upload struct {
	x      *Exchange
	left   int64 // of a content of known length
	alarm  alarm
	closed atomic.Bool
}

// errUpload is what a request's content failed with.
type errUpload struct{ err error }

func (e *errUpload) Error() string { return "read request content: " + e.err.Error() }
func (e *errUpload) Unwrap() error { return e.err }

var (
	errPanic = errors.New("a panic")
	errLong  = errors.New("it is longer than its declared length")
)

func (u *upload) begin(x *Exchange, now time.Time) {
	u.x, u.left = x, x.Length
	u.alarm.start(now, func() { x.Abort(IdleTimeout) })
}

func (u *upload) Read(p []byte) (n int, err error) {
	u.alarm.set(never)
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, fmt.Errorf("%w: %v", errPanic, v)
		}
		switch {
		case err == nil && n > 0 && u.x.Idle > 0:
			u.alarm.setAt(time.Now().Add(u.x.Idle)) // to be written until then
		case err != nil && err != io.EOF && !u.closed.Load(): //nolint:errorlint // a reader's own
			u.x.Abort(&errUpload{err})
		}
	}()
	if u.closed.Load() {
		return 0, errClosed
	}
	n, err = u.x.Body.Read(p)
	if u.x.Length < 0 || err != nil && err != io.EOF { //nolint:errorlint // a reader's own
		return n, err
	}
	// Or the message would be malformed (RFC 9113 §8.1.1).
	switch u.left -= int64(n); {
	case u.left < 0:
		return 0, errLong
	case u.left > 0 && err != nil:
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// Close closes the content, once. It does not wait for a read under way.
func (u *upload) Close() error {
	if u.closed.Swap(true) {
		return nil
	}
	u.alarm.stop()
	return u.x.Body.Close()
}
