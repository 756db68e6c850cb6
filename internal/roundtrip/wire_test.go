package roundtrip

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Frames as a server of ours writes them by hand (RFC 9113 §4.1).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameContinuation = 0x9

	flagEnd        = 0x1 // of the stream; of SETTINGS and PING: an acknowledgement
	flagEndHeaders = 0x4
)

// Field sections without need of a decoder (RFC 7541 §6.1, §6.2.2).
const (
	status200 = "\x88"
	status103 = "\x08\x03103"
	status101 = "\x08\x03101"
)

// field331 is a field of 331 bytes, without their 32 in a list's size.
var field331 = "\x00\x01a\x7f\xcb\x01" + strings.Repeat("x", 330)

// wireConn is a connection to a client, at the level of frames.
type wireConn struct {
	net.Conn
	r *bufio.Reader
}

type frame struct {
	kind, flags byte
	stream      uint32
	payload     string
}

func (w *wireConn) write(f frame) error {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(f.payload))<<8|uint32(f.kind))
	b = append(b, f.flags)
	b = binary.BigEndian.AppendUint32(b, f.stream)
	_, err := w.Write(append(b, f.payload...))
	return err
}

func (w *wireConn) read() (f frame, err error) {
	var head [9]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil {
		return f, err
	}
	size := binary.BigEndian.Uint32(head[:]) >> 8
	f.kind, f.flags, f.stream = head[3], head[4], binary.BigEndian.Uint32(head[5:])
	payload := make([]byte, size)
	_, err = io.ReadFull(w.r, payload)
	f.payload = string(payload)
	return f, err
}

func u32(vs ...uint32) string {
	var b []byte
	for _, v := range vs {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return string(b)
}

// setting is one of SETTINGS (RFC 9113 §6.5.1).
func setting(id uint16, value uint32) string {
	return string(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, id), value))
}

// frames is a server that calls on for each frame of kind HEADERS or DATA, and
// answers SETTINGS and PING itself unless it is mute.
type frames struct {
	upstream
	settings string
	mute     bool
	on       func(w *wireConn, f frame)

	seen  sync.Mutex
	heads int // HEADERS that came
	conns int
}

func (s *frames) start(t testing.TB) *frames {
	ln := listen(t)
	s.at(t, "http", ln.Addr().String())
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); ln.Close(); all.Wait() })
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				defer conn.Close()
				s.serve(&wireConn{conn, bufio.NewReader(conn)})
			})
		}
	})
	return s
}

func (s *frames) serve(w *wireConn) {
	preface := make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	if _, err := io.ReadFull(w.r, preface); err != nil {
		return
	}
	s.seen.Lock()
	s.conns++
	s.seen.Unlock()
	if w.write(frame{kind: frameSettings, payload: s.settings}) != nil {
		return
	}
	for {
		f, err := w.read()
		switch {
		case err != nil:
			return
		case f.kind == frameSettings && f.flags&flagEnd == 0:
			w.write(frame{kind: frameSettings, flags: flagEnd})
		case f.kind == framePing && f.flags&flagEnd == 0 && !s.mute:
			w.write(frame{kind: framePing, flags: flagEnd, payload: f.payload})
		case f.kind == frameHeaders:
			s.seen.Lock()
			s.heads++
			s.seen.Unlock()
			s.on(w, f)
		case f.kind == frameData:
			s.on(w, f)
		}
	}
}

func (s *frames) counts() (conns, heads int) {
	s.seen.Lock()
	defer s.seen.Unlock()
	return s.conns, s.heads
}

// answer sends a response without content.
func answer(w *wireConn, stream uint32) {
	w.write(frame{kind: frameHeaders, flags: flagEndHeaders | flagEnd, stream: stream, payload: status200})
}

func TestRefusedRequests(t *testing.T) {
	reset := func(code uint32) func(*wireConn, uint32) {
		return func(w *wireConn, stream uint32) {
			w.write(frame{kind: frameReset, stream: stream, payload: u32(code)})
		}
	}
	goAway := func(last, code uint32) func(*wireConn, uint32) {
		return func(w *wireConn, _ uint32) { w.write(frame{kind: frameGoAway, payload: u32(last, code)}) }
	}
	for _, test := range []struct {
		name   string
		answer func(w *wireConn, stream uint32)
		unsent bool
		heard  bool
		wrong  bool // with the protocol
	}{
		{"REFUSED_STREAM (RFC 9113 §8.7)", reset(refusedStream), true, false, false},
		{"GOAWAY below the stream (RFC 9113 §6.8)", goAway(0, 0), true, false, false},
		{"GOAWAY below the stream, with an error", goAway(0, 0xb), true, false, false},
		{"GOAWAY above the stream, and the end", func(w *wireConn, s uint32) { goAway(s, 0)(w, s); w.Close() }, false, false, false},
		{"PROTOCOL_ERROR", reset(0x1), false, false, false},
		{"INTERNAL_ERROR", reset(0x2), false, false, false},
		{"CANCEL", reset(0x8), false, false, false},
		{"ENHANCE_YOUR_CALM", reset(0xb), false, false, false},
		{"NO_ERROR", reset(0x0), false, false, false},
		{"a closed connection", func(w *wireConn, _ uint32) { w.Close() }, false, false, false},
		{"refused after a 103", func(w *wireConn, s uint32) {
			w.write(frame{kind: frameHeaders, flags: flagEndHeaders, stream: s, payload: status103})
			reset(refusedStream)(w, s)
		}, false, true, false},
		{"no status", func(w *wireConn, s uint32) {
			w.write(frame{kind: frameHeaders, flags: flagEndHeaders | flagEnd, stream: s, payload: "\x0f\x0d\x015"})
		}, false, true, true},
		{"a status of letters", func(w *wireConn, s uint32) {
			w.write(frame{kind: frameHeaders, flags: flagEndHeaders | flagEnd, stream: s, payload: "\x08\x032oo"})
		}, false, true, true},
		{"101 (RFC 9113 §8.6)", func(w *wireConn, s uint32) {
			w.write(frame{kind: frameHeaders, flags: flagEndHeaders, stream: s, payload: status101})
		}, false, true, true},
		{"an upper case name (RFC 9113 §8.2.1)", func(w *wireConn, s uint32) {
			w.write(frame{kind: frameHeaders, flags: flagEndHeaders | flagEnd, stream: s, payload: status200 + "\x00\x01A\x01b"})
		}, false, false, true},
		{"a header that is too large", func(w *wireConn, s uint32) {
			w.write(frame{kind: frameHeaders, flags: flagEnd, stream: s, payload: status200})
			for range 4 {
				w.write(frame{kind: frameContinuation, stream: s, payload: strings.Repeat(field331, 40)})
			}
			w.write(frame{kind: frameContinuation, flags: flagEndHeaders, stream: s, payload: strings.Repeat(field331, 40)})
		}, false, true, true},
		{"a header without end, which takes its connection along", func(w *wireConn, s uint32) {
			w.write(frame{kind: frameHeaders, flags: flagEnd, stream: s, payload: status200})
			for w.write(frame{kind: frameContinuation, stream: s, payload: field331}) == nil {
			}
		}, false, false, false},
	} {
		for _, body := range []bool{false, true} {
			name := test.name
			if body {
				name += ", with content"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := (&frames{on: func(w *wireConn, f frame) {
					if f.kind == frameHeaders && f.flags&flagEnd != 0 || f.kind == frameData && f.flags&flagEnd != 0 {
						test.answer(w, f.stream)
					}
				}}).start(t)
				tr := s.transport(t, TransportConfig{})
				x := s.exchange(t, "POST", "/")
				x.Observer = observer(func(int, http.Header) error { return nil })
				if body {
					x.with(strings.NewReader("content"))
				}
				err := x.Do(tr)
				if test.wrong {
					var wrong ProtocolError
					require.ErrorAs(t, err, &wrong)
				} else {
					var broken *BrokenError
					require.ErrorAs(t, err, &broken)
					require.Equal(t, test.unsent, broken.Unsent, err)
					require.Equal(t, test.heard, broken.Heard, err)
					require.False(t, broken.Reused)
					require.False(t, broken.Left, "it was the first on its connection")
				}
				_, heads := s.counts()
				require.Equal(t, 1, heads, "it is sent once")
			})
		}
	}
}

func TestGoAwayLeavesFormerStreams(t *testing.T) {
	s := &frames{}
	s.on = func(w *wireConn, f frame) {
		if f.stream == 3 { // the first one is answered, the second one was not processed
			w.write(frame{kind: frameGoAway, payload: u32(1, 0)})
			answer(w, 1)
		} else if conns, _ := s.counts(); conns > 1 {
			answer(w, f.stream)
		}
	}
	s.start(t)
	tr := s.transport(t, TransportConfig{})
	first, second := s.exchange(t, "POST", "/"), s.exchange(t, "POST", "/")
	done := make(chan error, 1)
	go func() { done <- first.Do(tr) }()
	require.Eventually(t, func() bool { _, heads := s.counts(); return heads == 1 }, time.Second, time.Millisecond)
	var broken *BrokenError
	require.ErrorAs(t, second.Do(tr), &broken)
	require.True(t, broken.Unsent)
	require.True(t, broken.Left)
	require.True(t, broken.Reused)
	require.NoError(t, <-done)
	require.Equal(t, 200, first.Status)

	again := s.exchange(t, "POST", "/")
	require.NoError(t, again.Do(tr))
	conns, _ := s.counts()
	require.Equal(t, 2, conns)
}

// A connection that takes no more requests is not kept, though its server does.
func TestGoAwayOfIdleConnection(t *testing.T) {
	s := &frames{}
	s.on = func(w *wireConn, f frame) {
		answer(w, f.stream)
		w.write(frame{kind: frameGoAway, payload: u32(f.stream, 0)})
	}
	s.start(t)
	tr := s.transport(t, TransportConfig{MaxConns: 2})
	for range 5 {
		x := s.exchange(t, "GET", "/")
		x.Head = time.Now().Add(5 * time.Second)
		err := x.Do(tr)
		if broken, ok := errors.AsType[*BrokenError](err); ok && broken.Unsent {
			err = nil // the GOAWAY came in between
		}
		require.NoError(t, err)
		x.Close()
	}
}

func TestServerThatClosesAtOnce(t *testing.T) {
	ln := listen(t)
	s := new(upstream)
	s.at(t, "http", ln.Addr().String())
	var all sync.WaitGroup
	t.Cleanup(func() { ln.Close(); all.Wait() })
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	})
	tr := s.transport(t, TransportConfig{})
	for i := range 5 {
		var broken *BrokenError
		require.ErrorAs(t, s.exchange(t, "GET", "/").Do(tr), &broken)
		require.False(t, broken.Heard)
		require.LessOrEqual(t, s.dialed(), i+1)
	}
}

func TestContentLengthOverHTTP2(t *testing.T) {
	for _, test := range []struct {
		name   string
		values []string
		want   int64 // negative: it is refused
	}{
		{"one", []string{"1"}, 1},
		{"the same twice", []string{"1", "1"}, 1},
		{"two", []string{"1", "2"}, -1},
		{"a list", []string{"1, 1"}, -1},
		{"a sign", []string{"+1"}, -1},
		{"negative", []string{"-1"}, -1},
		{"nothing", []string{""}, -1},
		{"letters", []string{"one"}, -1},
		{"too large", []string{"9999999999999999999"}, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := (&frames{on: func(w *wireConn, f frame) {
				head := status200
				for _, value := range test.values {
					head += "\x0f\x0d" + string(rune(len(value))) + value
				}
				w.write(frame{kind: frameHeaders, flags: flagEndHeaders, stream: f.stream, payload: head})
				w.write(frame{kind: frameData, flags: flagEnd, stream: f.stream, payload: "x"})
			}}).start(t)
			x := s.exchange(t, "GET", "/")
			err := x.Do(s.transport(t, TransportConfig{}))
			if test.want < 0 {
				require.True(t, isProtocolError(err), err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, x.ContentLength)
			require.Equal(t, []string{"1"}, x.Header["Content-Length"])
			require.Equal(t, "x", text(t, x))
		})
	}
}

func TestBlackholeIsFoundByPings(t *testing.T) {
	s := (&frames{mute: true, on: func(*wireConn, frame) {}}).start(t)
	tr := s.transport(t, TransportConfig{PingAfter: 20 * time.Millisecond, PingTimeout: 20 * time.Millisecond})
	var broken *BrokenError
	require.ErrorAs(t, s.exchange(t, "GET", "/").Do(tr), &broken)
	require.False(t, broken.Unsent)
	require.False(t, broken.Heard)
	require.ErrorAs(t, s.exchange(t, "GET", "/").Do(tr), &broken)
	require.Equal(t, 2, s.dialed(), "the dead connection is not used again")
}

func TestQuietConnectionsLive(t *testing.T) {
	s := &frames{}
	s.on = func(w *wireConn, f frame) {
		if f.kind == frameHeaders {
			time.AfterFunc(300*time.Millisecond, func() { answer(w, f.stream) })
		}
	}
	s.start(t)
	tr := s.transport(t, TransportConfig{PingAfter: 10 * time.Millisecond, PingTimeout: 100 * time.Millisecond})
	require.NoError(t, s.exchange(t, "GET", "/").Do(tr))
}

// Row by row what breaks HTTP/2 clients.
func TestHostileServers(t *testing.T) {
	for _, test := range []struct {
		name     string
		settings string
		on       func(w *wireConn, f frame)
	}{
		{"SETTINGS_MAX_FRAME_SIZE=0", setting(5, 0), nil},
		{"SETTINGS_INITIAL_WINDOW_SIZE too large", setting(4, 1<<31), nil},
		{"CONTINUATION flood (CVE-2023-45288)", "", func(w *wireConn, f frame) {
			w.write(frame{kind: frameHeaders, stream: f.stream, payload: status200})
			for w.write(frame{kind: frameContinuation, stream: f.stream, payload: strings.Repeat("\x88", 16<<10)}) == nil {
			}
		}},
		{"SETTINGS that break off", "", func(w *wireConn, _ frame) {
			w.write(frame{kind: frameSettings, payload: "12345"})
		}},
		{"HTTP/1.1", "", func(w *wireConn, _ frame) { io.WriteString(w, "HTTP/1.1 400 Bad Request\r\n\r\n") }},
		{"a reset of every stream there is", "", func(w *wireConn, f frame) {
			for id := uint32(1); id < 20_000; id += 2 {
				if w.write(frame{kind: frameReset, stream: id, payload: u32(0x8)}) != nil {
					return
				}
			}
		}},
		{"a frame that is too large", "", func(w *wireConn, f frame) {
			w.write(frame{kind: frameData, stream: f.stream, payload: strings.Repeat("x", 1<<20+1)})
		}},
		{"content before the header", "", func(w *wireConn, f frame) {
			w.write(frame{kind: frameData, flags: flagEnd, stream: f.stream, payload: "x"})
		}},
		{"two headers", "", func(w *wireConn, f frame) {
			w.write(frame{kind: frameHeaders, flags: flagEndHeaders, stream: f.stream, payload: status200})
			w.write(frame{kind: frameHeaders, flags: flagEndHeaders, stream: f.stream, payload: status200})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &frames{settings: test.settings, on: test.on}
			if s.on == nil {
				s.on = func(*wireConn, frame) {}
			}
			s.start(t)
			tr := s.transport(t, TransportConfig{})
			x := s.exchange(t, "GET", "/")
			x.Head, x.Idle = time.Now().Add(5*time.Second), 5*time.Second
			err := x.Do(tr)
			if err == nil {
				_, err = io.ReadAll(x)
			}
			require.Error(t, err)
			var late TimeoutError
			require.NotErrorAs(t, err, &late)
			x.Close()
		})
	}
}

// An upstream that answers while it lets nothing more of the request in, and then
// falls silent, holds nobody up.
func TestAnswerBesideAnUploadThatStandsStill(t *testing.T) {
	for _, test := range []struct {
		name string
		idle time.Duration
		want error
	}{
		{"by the idle time", 50 * time.Millisecond, IdleTimeout},
		{"from outside", 0, errCut},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := (&frames{on: func(w *wireConn, f frame) {
				if f.kind == frameHeaders {
					w.write(frame{kind: frameHeaders, flags: flagEndHeaders, stream: f.stream, payload: status200})
					w.write(frame{kind: frameData, stream: f.stream, payload: "x"})
				}
			}}).start(t)
			tr := s.transport(t, TransportConfig{})
			x := s.exchange(t, "POST", "/").with(endless{})
			x.Idle = test.idle
			require.NoError(t, x.Do(tr))
			piece, err := x.Next()
			require.NoError(t, err)
			require.Equal(t, "x", string(piece))
			if test.idle == 0 {
				time.AfterFunc(20*time.Millisecond, func() { x.Abort(errCut) })
			}
			_, err = x.Next()
			require.Equal(t, test.want, err)
			x.Close()
			require.Eventually(t, func() bool { return tr.Stats().InFlight == 0 }, 5*time.Second, time.Millisecond)
		})
	}
}
