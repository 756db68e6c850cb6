package h1

import (
	"bytes"
	"net/http"
)

const (
	errChunkSize   ProtocolError = "chunk size is no hexadecimal number"
	errChunkLarge  ProtocolError = "chunk size too large"
	errChunkLine   ProtocolError = "chunk line does not end in CRLF"
	errChunkLong   ProtocolError = "chunk line too long"
	errChunkEnd    ProtocolError = "chunk longer than its size"
	errChunkExcess ProtocolError = "chunked coding with too little content"
	errTrailerLine ProtocolError = "trailer line does not end in CRLF"
	errTrailerSize ProtocolError = "trailer section too large"
)

const (
	maxSizeDigits    = 16
	maxSizeLine      = 4 << 10  // bytes of the line that a chunk begins with, CRLF included
	freePerChunk     = 16       // bytes of coding that need no content to excuse them, so that content may come byte by byte
	maxExcess        = 16 << 10 // bytes of coding beyond those and twice the content
	maxTrailerBytes  = 64 << 10
	maxTrailerFields = 200
)

// chunked decodes the chunked coding (RFC 9112 §7.1) out of the buffers it is given, however they cut the message. The zero value is
// at the start of a message.
type chunked struct {
	state   chunkState
	digits  uint8       // of the size
	line    int32       // bytes so far of the line that a chunk begins with
	excess  int32       // bytes of coding that no content has paid for
	left    int64       // of the chunk's content; while its line is read, the size as far as it goes
	section []byte      // of the trailer, complete lines and the beginning of one; nothing if there is none
	fields  http.Header // of the trailer, once it is complete
	err     error       // what ended it
}

type chunkState uint8

// What the next byte belongs to.
const (
	inSize chunkState = iota
	inSpace
	inExtension
	inSizeLF
	inContent
	inContentCR
	inContentLF
	inTrailer // the start of a line
	inTrailerLine
	inTrailerLF // of the empty line
	inNothing   // the message is over
)

// next takes p, the bytes at hand, and returns the first piece of content in p, which is a part of p and may be empty; how many bytes of
// p, coding and content, it has used up; and whether this is the end of the message, trailer section included. What it has not used
// is to be given again, with or without what follows. With an error there is no content, and every later call has the same error.
func (d *chunked) next(p []byte) (content []byte, used int, done bool, err error) {
	if d.err != nil {
		return nil, 0, false, d.err
	}
	used, d.err = d.skip(p)
	if d.err != nil {
		return nil, used, false, d.err
	}
	if d.state != inContent {
		return nil, used, d.state == inNothing, nil
	}
	n := int(min(d.left, int64(len(p)-used)))
	content = p[used : used+n]
	used += n
	if d.left -= int64(n); d.left > 0 {
		return content, used, false, nil
	}
	// The end, if it is at hand, comes with the last content. A fault in what follows has to wait for its turn.
	d.state = inContentCR
	ahead := *d
	if n, err := ahead.skip(p[used:]); err == nil {
		*d = ahead
		used += n
	}
	return content, used, d.state == inNothing, nil
}

// trailer returns the fields of the trailer section once the message is over; nil if there are none.
func (d *chunked) trailer() http.Header { return d.fields }

// skip reads coding up to content or the end of the message, and returns how much that was.
func (d *chunked) skip(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		switch d.state {
		case inContent, inNothing:
			return n, nil
		case inTrailerLine:
			var m int
			m, err = d.collect(p[n:])
			n += m
		case inContentCR, inContentLF, inTrailer, inTrailerLF:
			var m int
			m, err = d.delimit(p[n])
			n += m
		default:
			err = d.size(p[n])
			n++
		}
	}
	return n, err
}

// size reads a byte of a line that a chunk begins with: chunk-size [ chunk-ext ] CRLF. Extensions are ignored (RFC 9112 §7.1.1), as is
// white space that pads a size.
func (d *chunked) size(c byte) error {
	if d.line++; d.line > maxSizeLine {
		return errChunkLong
	}
	if d.state == inSizeLF {
		if c != '\n' {
			return errChunkLine
		}
		return d.sized()
	}
	if d.state == inSize {
		if v, ok := unhex(c); ok {
			if d.digits++; d.digits > maxSizeDigits || d.left >= 1<<58 {
				return errChunkLarge
			}
			d.left = d.left<<4 | int64(v)
			return nil
		}
		if d.digits == 0 {
			return errChunkSize
		}
	}
	switch {
	case c == '\r':
		d.state = inSizeLF
	case c == '\n':
		return errChunkLine // not even where other lines may end in LF alone (RFC 9112 §2.2, §7.1)
	case d.state == inExtension:
	case c == ';':
		d.state = inExtension
	case isSpace(c):
		d.state = inSpace
	default:
		return errChunkSize
	}
	return nil
}

// sized ends a line that a chunk begins with.
func (d *chunked) sized() error {
	paid := freePerChunk + 2*min(d.left, maxExcess)
	d.excess = max(d.excess+d.line+int32(len("\r\n"))-int32(paid), 0)
	if d.excess > maxExcess {
		return errChunkExcess
	}
	d.state = inContent
	if d.left == 0 {
		d.state = inTrailer
	}
	d.line, d.digits = 0, 0
	return nil
}

// delimit reads a byte of the CRLF after content, or of the empty line that ends the message. It leaves the first byte of a trailer field.
func (d *chunked) delimit(c byte) (n int, err error) {
	switch {
	case d.state == inContentCR && c == '\r':
		d.state = inContentLF
	case d.state == inContentLF && c == '\n':
		d.state = inSize
	case d.state == inTrailer && c == '\r':
		d.state = inTrailerLF
	case d.state == inTrailer && c != '\n':
		d.state = inTrailerLine
		return 0, nil
	case d.state == inTrailerLF && c == '\n':
		d.state = inNothing
		return 1, d.readTrailer()
	case d.state == inTrailer, d.state == inTrailerLF:
		return 0, errTrailerLine
	default:
		return 0, errChunkEnd
	}
	return 1, nil
}

// collect keeps what p has of a trailer line.
func (d *chunked) collect(p []byte) (n int, err error) {
	n = bytes.IndexByte(p, '\n') + 1
	complete := n > 0
	if !complete {
		n = len(p)
	}
	if len(d.section)+n > maxTrailerBytes {
		return 0, errTrailerSize
	}
	d.section = append(d.section, p[:n]...)
	if !complete {
		return n, nil
	}
	if !bytes.HasSuffix(d.section, []byte("\r\n")) {
		return 0, errTrailerLine
	}
	d.state = inTrailer
	return n, nil
}

// readTrailer reads the trailer section that was collected.
func (d *chunked) readTrailer() error {
	if len(d.section) == 0 {
		return nil
	}
	fields := http.Header{}
	if err := parseFields(append(d.section, "\r\n"...), fields, maxTrailerFields); err != nil {
		return err
	}
	d.section, d.fields = nil, fields
	return nil
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}
