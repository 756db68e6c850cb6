package h1

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

// message is what is written at once: a request's head, and a short content.
// Its buffer is given back as soon as all of it is written.
type message struct {
	bytes []byte
	buf   *messageBuffer
}

func (m *message) take() {
	m.buf = spareMessages.Get().(*messageBuffer)
	m.bytes = m.buf[:0]
}

// free may be called again.
func (m *message) free() {
	if m.buf != nil {
		spareMessages.Put(m.buf)
	}
	m.buf, m.bytes = nil, nil
}

// fillMessage makes m of the request's head, and of its content where that is
// short, comes with its length and need not be asked for.
func (x *Exchange) fillMessage(m *message) error {
	var ok bool
	if m.bytes, ok = x.appendHead(m.bytes); !ok {
		return ErrRequest
	}
	if x.Body == nil || x.Length == 0 {
		x.upload.done = true
		return nil
	}
	n := len(m.bytes)
	if !Gathers(x.Length, x.Fields) || x.Length > int64(messageSize-n) {
		return nil
	}
	x.Start = time.Time{} // which may be long ago when all of it is there
	m.bytes = m.bytes[:n+int(x.Length)]
	_, err := io.ReadFull(x.Body, m.bytes[n:])
	if err == nil {
		err = atEnd(x.Body)
	}
	if err != nil {
		return &errUpload{err}
	}
	x.upload.done = true
	return nil
}

// Gathers reports whether a content of that length is read to its end before
// anything of the request is sent, where it fits beside the head.
func Gathers(length int64, fields http.Header) bool {
	return 0 < length && length <= messageSize && !asksFirst(fields)
}

// atEnd sees to it that a content has been read to its end, where whoever
// yields it takes up what follows.
func atEnd(r io.Reader) error {
	var b [1]byte
	for range 100 {
		n, err := r.Read(b[:])
		switch {
		case n > 0:
			return errLong
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}

var errLong = errors.New("the content is longer than declared")

// asksFirst reports whether the request expects 100 (Continue) before its
// content is sent (RFC 9110 §10.1.1).
func asksFirst(fields http.Header) bool { return fields["Expect"] != nil }

// appendHead appends the request's head. It refuses what would be another
// message than the one meant (RFC 9112 §11.1).
func (x *Exchange) appendHead(b []byte) (_ []byte, ok bool) {
	b = append(b, x.Method...)
	b = append(b, ' ')
	start := len(b)
	b = append(b, x.Path...)
	if x.Query != "" || x.ForceQuery {
		b = append(b, '?')
		b = append(b, x.Query...)
	}
	ok = isToken(x.Method) && len(b) > start && visible(b[start:]) && x.Host != "" && visible([]byte(x.Host))
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, x.Host...)
	b = append(b, "\r\n"...)
	codings := false
	for name, values := range x.Fields {
		if !isToken(name) {
			return b, false
		}
		codings = codings || name == "Te"
		if name == "User-Agent" && len(values) == 1 && values[0] == "" {
			continue // the client sent none
		}
		for _, value := range values {
			b = append(b, name...)
			b = append(b, ": "...)
			n := len(b)
			b = append(b, value...)
			ok = ok && plain(b[n:])
			b = append(b, "\r\n"...)
		}
	}
	b = x.appendConnection(b, codings)
	return append(x.appendFraming(b), "\r\n"...), ok
}

// appendConnection appends what Connection has to say beside what the request's
// own field says: that the connection ends, and that TE is about it alone (RFC
// 9110 §10.1.4).
func (x *Exchange) appendConnection(b []byte, codings bool) []byte {
	ends := false
	if !x.client.reuse || codings {
		given := x.Fields["Connection"]
		ends, codings = !x.client.reuse && given == nil, codings && !listed(given, "te")
	}
	switch {
	case ends && codings:
		return append(b, "Connection: close, TE\r\n"...)
	case ends:
		return append(b, "Connection: close\r\n"...)
	case codings:
		return append(b, "Connection: TE\r\n"...)
	}
	return b
}

// appendFraming appends what says where the content ends (RFC 9112 §6).
func (x *Exchange) appendFraming(b []byte) []byte {
	switch {
	case x.Body == nil || x.Length == 0:
		switch x.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch: // RFC 9110 §8.6
			b = append(b, "Content-Length: 0\r\n"...)
		}
	case x.Length > 0:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, x.Length, 10)
		b = append(b, "\r\n"...)
	default:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		for name := range x.Trailer {
			if !isToken(name) {
				continue
			}
			b = append(b, "Trailer: "...)
			b = append(b, name...)
			b = append(b, "\r\n"...)
		}
	}
	return b
}

// visible reports whether b can be a target or a host: no white space, no
// control byte.
func visible(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// plain reports whether b can be a field's value: it holds no control byte but
// the tab (RFC 9110 §5.5).
func plain(b []byte) bool {
	for len(b) >= 8 && !controls(binary.LittleEndian.Uint64(b)) {
		b = b[8:]
	}
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
