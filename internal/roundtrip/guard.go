package roundtrip

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"time"
)

// guard is a connection as net/http's client for HTTP/2 has it. It ends where that
// would not look after itself.
//
// Where the upstream gives a stream a larger window than there may be (RFC 9113
// §6.9.1) net/http, of Go 1.26 at least, waits for itself for ever, under the lock
// that whoever asks for the connection takes. So the guard knows each stream's
// window: what was granted, and what was sent.
//
// The connection may be the app's, and net/http uses it on goroutines of its own: a
// panic there would end the process. So the guard makes errors of what must not be.
//
// Frames that carry nothing are answered or passed over as fast as they come, with
// a line in the standard log for each one of an unknown type. So the guard bounds
// how many there may be.
type guard struct {
	net.Conn
	secure *tls.Conn // that Conn is; nil: without TLS

	// The reader's own.
	in     framing
	fault  error     // of reads to come
	empty  int       // frames that carry nothing, since second
	second time.Time // when that began

	mu      sync.Mutex
	out     framing
	initial int64 // of each stream's window
	streams map[uint32]stream
	opened  int        // streams, so far
	odd     int        // frames that net/http logs
	done    [64]uint32 // streams that have ended, the last ones: net/http may know them still
	next    int        // in done
}

// stream is what is known of one.
type stream struct {
	granted, sent int64
	ended         uint8 // sides
}

const (
	byUs, byThem, byBoth = 1, 2, 3

	kindData, kindHeaders, kindPriority, kindReset, kindSettings, kindPing, kindWindow, kindContinuation = 0, 1, 2, 3, 4, 6, 8, 9

	flagEndStream, flagAck = 1, 1
	initialWindowSize      = 4 // the setting (RFC 9113 §6.5.2), and its value at first:
	initialWindow          = 65_535
	forceAfter             = 250 * time.Millisecond

	maxEmpty = 20_000 // frames that carry nothing, in a second: who measures a path sends one for each round trip
	maxOdd   = 100    // frames of other types, beyond one for each stream
)

const (
	errWindow ProtocolError = "a window beyond its bound"
	errFrames ProtocolError = "too many frames that carry nothing"
)

func newGuard(conn net.Conn) *guard {
	g := &guard{Conn: conn, initial: initialWindow, streams: make(map[uint32]stream)}
	g.secure, _ = conn.(*tls.Conn)
	g.out.left = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	return g
}

// ConnectionState is that of TLS.
func (g *guard) ConnectionState() tls.ConnectionState {
	if g.secure == nil {
		return tls.ConnectionState{}
	}
	return g.secure.ConnectionState()
}

// Close closes. That of TLS would wait for whoever does not read.
func (g *guard) Close() (err error) {
	defer asError(&err)
	if g.secure != nil {
		defer time.AfterFunc(forceAfter, g.force).Stop()
	}
	return g.Conn.Close()
}

func (g *guard) force() {
	defer func() { _ = recover() }()
	_ = g.secure.NetConn().Close()
}

// SetWriteDeadline has writes end at t.
func (g *guard) SetWriteDeadline(t time.Time) (err error) {
	defer asError(&err)
	return g.Conn.SetWriteDeadline(t)
}

// Read reads, up to what must not be read.
func (g *guard) Read(p []byte) (int, error) {
	if g.fault != nil {
		return 0, g.fault
	}
	n, err := g.read(p)
	good, fault := g.received(p[:n])
	if fault == "" {
		return n, err
	}
	if g.fault = fault; good == 0 {
		return 0, g.fault
	}
	return good, nil
}

// read reads something, or an error.
func (g *guard) read(p []byte) (n int, err error) {
	defer asError(&err)
	for range maxEmptyReads {
		switch got, err := g.Conn.Read(p); {
		case got < 0 || got > len(p):
			return 0, errCount
		case got > 0 || err != nil || len(p) == 0:
			return got, err
		}
	}
	return 0, io.ErrNoProgress
}

// Write writes all of p, or it is an error.
func (g *guard) Write(p []byte) (n int, err error) {
	defer asError(&err)
	g.sends(p)
	n, err = g.Conn.Write(p)
	if n < 0 || n > len(p) {
		return 0, errCount
	}
	if n < len(p) && err == nil {
		err = io.ErrShortWrite
	}
	return n, err
}

// errCount is what a reader or writer must not return.
var errCount = errors.New("an impossible count")

// asError makes an error of a panic.
func asError(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("%w: %v", errPanic, v)
	}
}

// received looks at what comes, and returns how much of it is good, and what is
// wrong with the rest.
func (g *guard) received(p []byte) (good int, fault ProtocolError) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := &g.in
	for i, start := 0, 0; i < len(p); {
		if f.left == 0 && f.n == 0 {
			start = i
		}
		used, unit := f.take(p[i:])
		i += used
		switch {
		case f.begun && !g.bearable(f):
			return start, errFrames
		case f.begun && f.ends():
			g.end(f.stream, byThem)
		case unit == nil:
		case f.kind == kindSettings && binary.BigEndian.Uint16(unit) == initialWindowSize:
			g.initial = int64(binary.BigEndian.Uint32(unit[2:]))
		case f.kind == kindWindow && !g.grant(f.stream, int64(binary.BigEndian.Uint32(unit)&math.MaxInt32)):
			return start, errWindow
		}
	}
	return len(p), ""
}

// bearable counts a frame that has begun, and reports whether it is one too many.
func (g *guard) bearable(f *framing) bool {
	switch {
	case f.kind == kindPriority || f.kind > kindContinuation:
		g.odd++
		return g.odd <= maxOdd+g.opened
	case f.kind == kindPing, f.kind == kindSettings, f.kind == kindData && f.left == 0 && !f.ends():
		if g.empty++; g.empty <= maxEmpty {
			return true
		}
		now := time.Now()
		fast := now.Sub(g.second) < time.Second
		g.empty, g.second = 1, now
		return !fast
	}
	return true
}

// grant enlarges a stream's window, if it may be.
func (g *guard) grant(id uint32, n int64) bool {
	s, ok := g.streams[id]
	if !ok {
		return true // all of the connection, or of a stream that is over
	}
	s.granted += n
	g.streams[id] = s
	return g.initial+s.granted-s.sent <= math.MaxInt32
}

// sends looks at what goes out.
func (g *guard) sends(p []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := &g.out
	for len(p) > 0 {
		used, _ := f.take(p)
		p = p[used:]
		if !f.begun {
			continue
		}
		s, known := g.streams[f.stream]
		switch {
		case f.kind == kindHeaders && !known:
			g.streams[f.stream] = stream{}
			g.opened++
		case f.kind == kindData && known:
			s.sent += int64(f.left)
			g.streams[f.stream] = s
		}
		if f.ends() {
			g.end(f.stream, byUs)
		}
	}
}

// end notes that a side, or both, have ended a stream.
func (g *guard) end(id uint32, side uint8) {
	s, known := g.streams[id]
	if !known || s.ended == byBoth {
		return
	}
	if s.ended |= side; g.in.kind == kindReset && side == byThem || g.out.kind == kindReset && side == byUs {
		s.ended = byBoth
	}
	g.streams[id] = s
	if s.ended == byBoth {
		delete(g.streams, g.done[g.next])
		g.done[g.next] = id
		g.next = (g.next + 1) % len(g.done)
	}
}

// framing is how far a direction of a connection has come: within the head of a
// frame, or within what follows it.
type framing struct {
	head  [9]byte // RFC 9113 §4.1
	n     int     // of it are there
	left  int     // bytes of what follows
	begun bool    // the last bytes that were taken are the end of a head
	unit  [6]byte // what is to be looked at of what follows
	got   int     // of it are there

	kind, flags byte
	stream      uint32
}

// take takes the next bytes of p that belong together, and returns how many; and the
// increment of a WINDOW_UPDATE, or one of SETTINGS, if that is what they complete.
func (f *framing) take(p []byte) (used int, unit []byte) {
	f.begun = false
	if f.left == 0 {
		used = copy(f.head[f.n:], p)
		if f.n += used; f.n == len(f.head) {
			f.begin()
		}
		return used, nil
	}
	size := f.unitSize()
	if size == 0 {
		used = min(f.left, len(p))
		f.left -= used
		return used, nil
	}
	used = copy(f.unit[f.got:min(size, f.got+f.left)], p)
	f.left -= used
	if f.got += used; f.got == size {
		f.got = 0
		return used, f.unit[:size]
	}
	return used, nil
}

func (f *framing) begin() {
	f.n, f.got, f.begun = 0, 0, true
	f.left = int(binary.BigEndian.Uint32(f.head[:]) >> 8)
	f.kind, f.flags = f.head[3], f.head[4]
	f.stream = binary.BigEndian.Uint32(f.head[5:]) & math.MaxInt32
}

// ends reports whether a frame that has begun is its sender's last on its stream.
func (f *framing) ends() bool {
	return f.kind == kindReset || (f.kind == kindData || f.kind == kindHeaders) && f.flags&flagEndStream != 0
}

func (f *framing) unitSize() int {
	switch {
	case f.kind == kindWindow:
		return 4
	case f.kind == kindSettings && f.flags&flagAck == 0:
		return 6
	}
	return 0
}
