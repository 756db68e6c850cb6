// Package draft is what a handler answers before anybody has it: it is held back
// until somebody has said what becomes of it, as net/http's server holds back a
// header until it must send it.
package draft

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
)

const (
	sniffed  = 512      // how much of a content its type is guessed by
	holdBack = 32 << 10 // how much of one waits for its end, to be judged as one
)

// Writer is the [http.ResponseWriter] of a handler whose answer is judged, once:
// at a flush, when much is written, or in the end. Like that of net/http's server
// it is for one goroutine. Set the first fields before the handler runs.
type Writer struct {
	Client http.ResponseWriter
	// Judge says what becomes of the answer, by Pass or Stream; by neither, its
	// content goes nowhere. whole tells that Begun is all of that.
	Judge func(whole bool)
	// Inform passes a 1xx response on.
	Inform func(status int, fields http.Header)
	// AtOnce has the answer judged before it has content.
	AtOnce bool

	Status int         // 0: there is none yet
	Head   http.Header // what Header was when the status came
	Begun  []byte      // of the content, until that goes somewhere

	header http.Header // what the handler sets
	judged bool
	passes bool
	to     io.Writer // nil: nobody wants the content
}

// Header returns what the handler sets.
func (w *Writer) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}

// WriteHeader notes the status and the header. What the handler changes later is
// lost, but for trailers, as with net/http's own.
func (w *Writer) WriteHeader(status int) {
	switch {
	case w.Status != 0:
	case 100 <= status && status <= 199 && status != http.StatusSwitchingProtocols:
		w.Inform(status, maps.Clone(w.header))
	default:
		w.Status, w.Head = status, w.Header().Clone()
		if w.AtOnce {
			w.judge(false)
		}
	}
}

// Write writes content.
func (w *Writer) Write(p []byte) (int, error) {
	w.begin()
	if w.judged {
		return w.write(p)
	}
	if len(w.Begun)+len(p) <= holdBack {
		w.Begun = append(w.Begun, p...)
		return len(p), nil
	}
	n := min(max(sniffed-len(w.Begun), 0), len(p))
	w.Begun = append(w.Begun, p[:n]...)
	w.judge(false)
	m, err := w.write(p[n:])
	return n + m, err
}

// begin has the answer be one, if it has no status yet.
func (w *Writer) begin() {
	if w.Status == 0 {
		w.WriteHeader(http.StatusOK)
	}
}

// write writes content of an answer that was judged.
func (w *Writer) write(p []byte) (int, error) {
	if w.to == nil {
		return len(p), nil
	}
	return w.to.Write(p)
}

// FlushError sends what has been written so far.
func (w *Writer) FlushError() error {
	w.begin()
	w.judge(false)
	if !w.passes {
		return nil // nobody wants the content, or it streams by itself
	}
	return http.NewResponseController(w.Client).Flush()
}

// Flush is FlushError.
func (w *Writer) Flush() { _ = w.FlushError() }

// Unwrap is for [http.ResponseController].
func (w *Writer) Unwrap() http.ResponseWriter { return w.Client }

// Hijack gives the handler its client's connection, before anything is written.
func (w *Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.Status != 0 {
		return nil, nil, http.ErrNotSupported
	}
	w.Status, w.judged, w.passes, w.to = http.StatusSwitchingProtocols, true, true, w.Client
	return http.NewResponseController(w.Client).Hijack()
}

// End is what follows when the handler has returned.
func (w *Writer) End() {
	w.begin()
	w.judge(true)
}

func (w *Writer) judge(whole bool) {
	if w.judged {
		return
	}
	w.judged = true
	if _, typed := w.Head["Content-Type"]; !typed && len(w.Begun) > 0 && w.Head.Get("Content-Encoding") == "" && w.Head["Transfer-Encoding"] == nil { // as net/http's does
		w.Head.Set("Content-Type", http.DetectContentType(w.Begun))
	}
	w.Judge(whole)
}

// Length returns how long the content is, as it is declared or all there; -1:
// nobody knows.
func (w *Writer) Length(whole bool) int64 {
	if n, err := strconv.ParseInt(w.Head.Get("Content-Length"), 10, 64); err == nil {
		return n
	}
	if whole {
		return int64(len(w.Begun))
	}
	return -1
}

// Pass has the content go to the client, who has been sent the header.
func (w *Writer) Pass() {
	w.passes = true
	w.Stream(w.Client)
}

// PassPart is Pass for n bytes of the content, behind skip others. Once they are
// gone the handler is told that its client has left: nobody wants the rest.
func (w *Writer) PassPart(skip, n int64) {
	w.passes = true
	w.Stream(&part{w.Client, skip, n})
}

// part is where a content goes of which a part is wanted.
type part struct {
	to      io.Writer
	skip, n int64
}

var errEnough = errors.New("the client has what it asked for")

func (p *part) Write(b []byte) (int, error) {
	if p.n == 0 && len(b) > 0 {
		return 0, errEnough
	}
	skipped := min(p.skip, int64(len(b)))
	wanted := b[skipped:][:min(p.n, int64(len(b))-skipped)]
	p.skip -= skipped
	p.n -= int64(len(wanted))
	if len(wanted) > 0 {
		if n, err := p.to.Write(wanted); err != nil {
			return int(skipped) + n, err
		}
	}
	return len(b), nil
}

// Stream has the content go elsewhere.
func (w *Writer) Stream(to io.Writer) {
	w.to = to
	if begun := w.Begun; len(begun) > 0 {
		w.Begun = nil
		_, _ = to.Write(begun)
	}
}

// Trail hands on the trailer fields of an answer that has passed, in the header of
// the client's.
func (w *Writer) Trail() {
	h := w.Client.Header()
	for name, values := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			h[name] = values
		}
	}
	for _, line := range w.Head["Trailer"] {
		for name := range strings.SplitSeq(line, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if values := w.header[name]; values != nil {
				h[name] = values
			}
		}
	}
}
