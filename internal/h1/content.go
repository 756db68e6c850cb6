package h1

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"
)

// Next returns the next piece of the content. It is valid until the next call
// of Next, Read or Close. At the end of the content the error is io.EOF, and
// the connection is free again.
func (x *Exchange) Next() ([]byte, error) { return x.next(bufferSize) }

// Read reads content.
func (x *Exchange) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	piece, err := x.next(len(p))
	return copy(p, piece), err
}

// next returns at most so much.
func (x *Exchange) next(most int) ([]byte, error) {
	x.release()
	if x.ended() {
		x.finish(nil)
	}
	if x.mode == modeNone {
		return nil, io.EOF
	}
	for {
		piece, err := x.piece(most)
		if len(piece) > 0 || err != nil {
			return piece, err
		}
		if err := x.More(); err != nil {
			return nil, err
		}
	}
}

// piece returns content that was read already.
func (x *Exchange) piece(most int) (piece []byte, err error) {
	c := x.conn
	data := c.data()
	if len(data) == 0 {
		return nil, nil
	}
	switch x.mode {
	case modeLength:
		piece = data[:min(int64(len(data)), x.remaining, int64(most))]
		x.remaining -= int64(len(piece))
		c.skip(len(piece))
		if x.remaining == 0 {
			x.finish(piece)
		}
	case modeChunked:
		var used int
		var done bool
		if len(data) > most { // a chunk's size takes nothing of the content
			data = data[:most]
		}
		piece, used, done, err = x.chunks.next(data)
		if err != nil {
			return nil, err
		}
		c.skip(used)
		if done {
			x.trail()
			x.finish(piece)
			if len(piece) == 0 {
				return nil, io.EOF
			}
		}
	case modeClose:
		piece = data[:min(len(data), most)]
		c.skip(len(piece))
	default:
		return nil, errSwitched
	}
	return piece, nil
}

var errSwitched = errors.New("the protocol was switched")

// More waits until there is something to be read of the content, or its end.
// It is not needed before Next or Read.
func (x *Exchange) More() error {
	if x.mode == modeNone || x.ended() || len(x.conn.data()) > 0 {
		return nil
	}
	x.mu.Lock()
	x.due, x.why = time.Time{}, IdleTimeout
	if x.Idle > 0 {
		x.due = time.Now().Add(x.Idle)
	}
	if !x.End.IsZero() && (x.due.IsZero() || x.End.Before(x.due)) {
		x.due, x.why = x.End, EndTimeout
	}
	x.mu.Unlock()
	x.waited = true
	err := x.fill()
	if broken, ok := errors.AsType[*BrokenError](err); ok && errors.Is(broken.Err, io.EOF) {
		if x.mode == modeClose {
			x.finish(nil)
			return io.EOF
		}
		broken.Err = io.ErrUnexpectedEOF
	}
	return err
}

// Whole reports whether all of the content is there to be read without waiting.
// It is for before the first piece.
func (x *Exchange) Whole() bool {
	return x.mode == modeNone || x.mode == modeLength && int64(len(x.conn.data())) >= x.remaining
}

// release gives back what the last piece lay in.
func (x *Exchange) release() {
	if x.rest != nil {
		x.client.buffers.put(x.rest)
		x.rest = nil
	}
}

// announce takes up the names of trailer fields to come (RFC 9110 §6.6.2).
func (x *Exchange) announce() {
	for _, line := range x.Header["Trailer"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); isToken(name) {
				if x.Trailers == nil {
					x.Trailers = make(http.Header)
				}
				x.Trailers[http.CanonicalHeaderKey(name)] = nil
			}
		}
	}
}

// trail takes up the trailer section.
func (x *Exchange) trail() {
	t := x.chunks.trailer()
	if len(t) == 0 {
		return
	}
	if x.Trailers == nil {
		x.Trailers = make(http.Header, len(t))
	}
	maps.Copy(x.Trailers, t)
}
