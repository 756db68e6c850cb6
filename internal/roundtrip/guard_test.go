package roundtrip

import (
	"bufio"
	"context"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// raw is a frame as it is on the wire.
func raw(f frame) string {
	var b strings.Builder
	w := &wireConn{Conn: sink{w: &b}}
	_ = w.write(f)
	return b.String()
}

type sink struct {
	net.Conn
	w io.Writer
}

func (s sink) Write(p []byte) (int, error) { return s.w.Write(p) }

// What a stream's window is made of, on a connection that comes in pieces of any
// size.
func TestGuardKnowsWindows(t *testing.T) {
	const most, most64k = math.MaxInt32, math.MaxInt32 - initialWindow
	heads := func(stream uint32, flags byte) string {
		return raw(frame{kind: frameHeaders, flags: flagEndHeaders | flags, stream: stream, payload: "0123"})
	}
	data := func(stream uint32, flags byte, n int) string {
		return raw(frame{kind: frameData, flags: flags, stream: stream, payload: strings.Repeat("x", n)})
	}
	grants := func(stream, n uint32) string { return raw(frame{kind: kindWindow, stream: stream, payload: u32(n)}) }
	answers := raw(frame{kind: frameHeaders, flags: flagEndHeaders, stream: 1, payload: status200})
	ends := raw(frame{kind: frameData, flags: flagEnd, stream: 1})
	sets := func(n uint32) string {
		return raw(frame{kind: frameSettings, payload: setting(3, 100) + setting(4, n) + setting(5, 1<<14)})
	}
	for _, test := range []struct {
		name     string
		sent     string // behind the preface
		received string // of which the last frame may be too much
		good     bool
	}{
		{"all that there may be", heads(1, 0), grants(1, most64k), true},
		{"one more", heads(1, 0), grants(1, most64k+1), false},
		{"one more, in the end", heads(1, 0), grants(1, most64k) + answers + grants(1, 1), false},
		{"in two", heads(1, 0), grants(1, 1<<30) + grants(1, 1<<30), false},
		{"with a reserved bit", heads(1, 0), grants(1, 1<<31|most64k), true},
		{"what was sent is back", heads(1, 0) + data(1, 0, 1000), grants(1, most64k) + grants(1, 1000), true},
		{"more than was sent is back", heads(1, 0) + data(1, 0, 1000), grants(1, most64k) + grants(1, 1001), false},
		{"of a request without content", heads(1, flagEnd), grants(1, most64k+1), false},
		{"of another stream", heads(1, 0) + heads(3, 0) + data(3, 0, 1000), grants(3, most64k+1000) + grants(1, most64k), true},
		{"what another has sent", heads(1, 0) + heads(3, 0) + data(3, 0, 1000), grants(1, most64k) + grants(1, 1000), false},
		{"a stream that has ended", heads(1, 0) + data(1, flagEnd, 0), answers + ends + grants(1, most64k) + grants(1, 1), false},
		{"a stream that was reset", heads(1, 0) + raw(frame{kind: frameReset, stream: 1, payload: u32(8)}), grants(1, most64k) + grants(1, 1), false},
		{"a stream that is not there", heads(1, 0), grants(3, most) + grants(3, most), true},
		{"the connection's, which net/http sees to", heads(1, 0), grants(0, most) + grants(0, most), true},
		{"a smaller first one", heads(1, 0), sets(10) + grants(1, most-10), true},
		{"a smaller first one, and one more", heads(1, 0), sets(10) + grants(1, most-9), false},
		{"a larger first one", heads(1, 0), sets(1<<20) + grants(1, most64k), false},
		{"an acknowledgement of SETTINGS is none", heads(1, 0), raw(frame{kind: frameSettings, flags: flagEnd}) + grants(1, most64k), true},
		{"trailers", heads(1, 0) + data(1, 0, 10) + heads(1, flagEnd), grants(1, most64k+10), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 5, 8, 9, 10, 13, 1 << 20} {
				up, down := new(strings.Builder), strings.NewReader(test.received)
				g := newGuard(pieces{sink{w: up}, down, size})
				out := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + test.sent
				for p := out; p != ""; {
					n, err := io.WriteString(g, p[:min(size, len(p))])
					require.NoError(t, err)
					p = p[n:]
				}
				require.Equal(t, out, up.String())
				got, err := io.ReadAll(bufio.NewReader(g))
				if test.good {
					require.NoError(t, err)
					require.Equal(t, test.received, string(got))
					continue
				}
				require.Equal(t, errWindow, err)
				require.True(t, strings.HasPrefix(test.received, string(got)))
				require.Less(t, len(got), len(test.received))
			}
		})
	}
}

// pieces is a connection that brings bytes in pieces.
type pieces struct {
	sink
	r    io.Reader
	size int
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(p.size, len(b))]) }

// Streams that are over are forgotten.
func TestGuardForgetsStreams(t *testing.T) {
	u := serve(t, "http", func(http.ResponseWriter, *http.Request) {})
	var guarded *guard
	tr := u.transport(t, TransportConfig{})
	dial := tr.client.DialContext
	tr.client.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		guarded, _ = conn.(*guard)
		return conn, err
	}
	for range 200 {
		x := u.exchange(t, "GET", "/")
		require.NoError(t, x.Do(tr))
		x.Close()
	}
	g := guarded
	g.mu.Lock()
	defer g.mu.Unlock()
	require.Equal(t, 200, g.opened)
	require.LessOrEqual(t, len(g.streams), len(g.done)+1)
}

// A window that is too large costs the connection, and nothing else: whoever asks
// for another one, or how they are, is answered.
func TestWindowBeyondItsBound(t *testing.T) {
	s := &frames{}
	s.on = func(w *wireConn, f frame) {
		if conns, _ := s.counts(); conns > 1 {
			answer(w, f.stream)
			return
		}
		for range 2 {
			w.write(frame{kind: kindWindow, stream: f.stream, payload: u32(math.MaxInt32)})
		}
	}
	s.start(t)
	tr := s.transport(t, TransportConfig{})
	x := s.exchange(t, "POST", "/")
	x.Head = time.Now().Add(5 * time.Second)
	require.True(t, isProtocolError(x.Do(tr)))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	again := s.exchange(t, "POST", "/")
	again.Context = ctx
	require.NoError(t, again.Do(tr))
	require.EqualValues(t, 1, tr.Stats().Ended)
}

// A connection of the app's may do what it must not, on goroutines that are nobody's.
func TestGuardMakesErrorsOfFaults(t *testing.T) {
	full := func(p []byte) (int, error) { return len(p), nil }
	for _, test := range []struct {
		name        string
		read, write func(p []byte) (int, error)
		want        error
	}{
		{"reads that bring nothing", func([]byte) (int, error) { return 0, nil }, full, io.ErrNoProgress},
		{"a read of less than nothing", func([]byte) (int, error) { return -1, nil }, full, errCount},
		{"a read of more than there is room for", func(p []byte) (int, error) { return len(p) + 1, nil }, full, errCount},
		{"a read that panics", func([]byte) (int, error) { panic("fault") }, full, errPanic},
		{"a write of less", nil, func(p []byte) (int, error) { return len(p) - 1, nil }, io.ErrShortWrite},
		{"a write of less than nothing", nil, func([]byte) (int, error) { return -1, nil }, errCount},
		{"a write of more than there is", nil, func(p []byte) (int, error) { return len(p) + 1, nil }, errCount},
		{"a write that panics", nil, func([]byte) (int, error) { panic("fault") }, errPanic},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := (&frames{on: func(w *wireConn, f frame) { answer(w, f.stream) }}).start(t)
			tr := s.transport(t, TransportConfig{Dial: func(ctx context.Context) (net.Conn, error) {
				conn, err := s.conn(ctx)
				return faulty{conn, test.read, test.write}, err
			}})
			x := s.exchange(t, "GET", "/")
			x.Head = time.Now().Add(5 * time.Second)
			require.True(t, isBroken(x.Do(tr)))

			use, g := (*guard).Write, newGuard(faulty{nil, test.read, test.write})
			if test.read != nil {
				use = (*guard).Read
			}
			_, err := use(g, make([]byte, 10))
			require.ErrorIs(t, err, test.want)
		})
	}
	require.ErrorIs(t, newGuard(faulty{}).Close(), errPanic)
}

type faulty struct {
	net.Conn
	read, write func(p []byte) (int, error)
}

func (f faulty) Read(p []byte) (int, error) {
	if f.read == nil {
		return f.Conn.Read(p)
	}
	return f.read(p)
}

func (f faulty) Write(p []byte) (int, error) { return f.write(p) }
