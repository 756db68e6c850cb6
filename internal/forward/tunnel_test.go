package forward

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// end is one end of a connection in memory that can be half closed and knows no deadlines.
type end struct {
	net.Conn
	r *io.PipeReader
	w *io.PipeWriter
}

func duplex() (a, b *end) {
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	return &end{r: r1, w: w2}, &end{r: r2, w: w1}
}

func (e *end) Read(p []byte) (int, error)  { return e.r.Read(p) }
func (e *end) Write(p []byte) (int, error) { return e.w.Write(p) }
func (e *end) CloseWrite() error           { return e.w.Close() }

func (e *end) Close() error {
	e.w.Close()
	return e.r.CloseWithError(io.ErrClosedPipe)
}

// whole hides an end's CloseWrite, or answers it with err.
type whole struct{ io.ReadWriteCloser }

type unsupported struct{ whole }

func (unsupported) CloseWrite() error { return errors.ErrUnsupported }

type result struct {
	up, down int64
	err      error
}

// start runs a tunnel; the channel tells how it ended.
func start(c TunnelConfig) <-chan result {
	if c.Go == nil {
		c.Go = func(_ string, f func()) bool { go f(); return true }
	}
	done := make(chan result, 1)
	go func() {
		up, down, err := NewTunnel(c).Run()
		done <- result{up, down, err}
	}()
	return done
}

func send(t *testing.T, w io.Writer, s string) {
	t.Helper()
	_, err := io.WriteString(w, s)
	require.NoError(t, err)
}

func receive(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	_, err := io.ReadFull(r, got)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

func closed(t *testing.T, ends ...io.ReadWriter) {
	t.Helper()
	for _, e := range ends {
		_, err := io.Copy(io.Discard, e)
		require.True(t, err == nil || errors.Is(err, io.ErrClosedPipe), err)
		_, err = e.Write([]byte("x"))
		require.Error(t, err)
	}
}

func TestTunnelCarriesBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, front := duplex()
		back, server := duplex()
		early := bufio.NewReader(io.MultiReader(strings.NewReader("early "), front))
		_, err := early.Peek(6)
		require.NoError(t, err)

		done := start(TunnelConfig{Client: front, ClientBuffered: early, Upstream: back})
		receive(t, server, "early ")
		send(t, client, "bytes")
		receive(t, server, "bytes")
		send(t, server, "answer")
		receive(t, client, "answer")
		require.NoError(t, client.CloseWrite())
		receive(t, server, "")
		require.NoError(t, server.CloseWrite())
		require.Equal(t, result{11, 6, nil}, <-done)
		closed(t, client, server)
	})
}

func TestTunnelKeepsHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, upFirst := range []bool{true, false} {
			client, front := duplex()
			back, server := duplex()
			done := start(TunnelConfig{Client: front, Upstream: back, Idle: time.Minute})
			first, second := client, server
			if !upFirst {
				first, second = server, client
			}
			send(t, first, "last words")
			require.NoError(t, first.CloseWrite())
			heard, err := io.ReadAll(second)
			require.NoError(t, err)
			require.Equal(t, "last words", string(heard))

			time.Sleep(30 * time.Second) // the other direction lives on
			send(t, second, "answer")
			receive(t, first, "answer")
			require.NoError(t, second.CloseWrite())
			require.NoError(t, (<-done).err)
			closed(t, client, server)
		}
	})
}

func TestTunnelEndsWhereTheEndCannotBePassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, hide := range []func(*end) io.ReadWriteCloser{
			func(e *end) io.ReadWriteCloser { return whole{e} },
			func(e *end) io.ReadWriteCloser { return unsupported{whole{e}} },
		} {
			client, front := duplex()
			back, server := duplex()
			done := start(TunnelConfig{Client: front, Upstream: hide(back)})
			send(t, client, "x")
			receive(t, server, "x")
			require.NoError(t, client.CloseWrite())
			require.Equal(t, result{1, 0, nil}, <-done)
			closed(t, client, server)
		}
	})
}

func TestTunnelEndsWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, front := duplex()
		back, server := duplex()
		begin := time.Now()
		done := start(TunnelConfig{Client: front, Upstream: back, Idle: time.Minute})
		for range 5 { // a byte in either direction keeps it
			time.Sleep(50 * time.Second)
			send(t, client, "x")
			receive(t, server, "x")
			time.Sleep(50 * time.Second)
			send(t, server, "y")
			receive(t, client, "y")
		}
		require.Equal(t, result{5, 5, ErrTunnelIdle}, <-done)
		require.Equal(t, 10*50*time.Second+time.Minute, time.Since(begin))
		closed(t, client, server)
	})
}

func TestTunnelEndsWhenNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, front := duplex()
		back, server := duplex()
		begin := time.Now()
		done := start(TunnelConfig{Client: front, Upstream: back, Idle: time.Minute})
		send(t, server, "nobody reads this")
		got := <-done
		require.Equal(t, ErrTunnelIdle, got.err)
		require.Zero(t, got.down)
		require.Equal(t, time.Minute, time.Since(begin))
		closed(t, client, server)
	})
}

// A slow write is progress: the idle time counts from its end.
func TestTunnelCountsIdleFromTheLastWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, front := duplex()
		back, server := duplex()
		done := start(TunnelConfig{Client: front, Upstream: back, Idle: time.Minute})
		send(t, client, "x")
		time.Sleep(50 * time.Second)
		receive(t, server, "x")
		begin := time.Now()
		require.ErrorIs(t, (<-done).err, ErrTunnelIdle)
		require.Equal(t, time.Minute, time.Since(begin))
	})
}

func TestTunnelWithoutIdleTimeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, front := duplex()
		back, server := duplex()
		done := start(TunnelConfig{Client: front, Upstream: back})
		time.Sleep(1000 * time.Hour)
		send(t, client, "x")
		receive(t, server, "x")
		front.Close() // as a shutdown does
		require.ErrorIs(t, (<-done).err, io.ErrClosedPipe)
		closed(t, client, server)
	})
}

func TestTunnelReportsWhatFailedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, front := duplex()
		back, server := duplex()
		done := start(TunnelConfig{Client: front, Upstream: back})
		server.w.CloseWithError(errBroken)
		got := <-done
		var readErr *ReadError
		require.ErrorAs(t, got.err, &readErr)
		require.ErrorIs(t, got.err, errBroken)
		closed(t, client)

		client, front = duplex()
		back, server = duplex()
		done = start(TunnelConfig{Client: front, Upstream: back})
		server.r.CloseWithError(errBroken)
		send(t, client, "x")
		got = <-done
		var writeErr *WriteError
		require.ErrorAs(t, got.err, &writeErr)
		require.ErrorIs(t, got.err, errBroken)
		closed(t, client)
	})
}

func TestTunnelRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, front := duplex()
		back, server := duplex()
		done := start(TunnelConfig{Client: front, Upstream: back, Idle: time.Minute, Go: func(string, func()) bool { return false }})
		require.Equal(t, result{err: ErrTunnelRefused}, <-done)
		closed(t, client, server)
	})
}

type panics struct{ io.ReadWriteCloser }

func (panics) Read([]byte) (int, error) { panic("upstream") }

func TestTunnelSurvivesAPanickingUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, front := duplex()
		back, server := duplex()
		done := start(TunnelConfig{Client: front, Upstream: panics{back}, Go: func(_ string, f func()) bool {
			go func() {
				defer func() { _ = recover() }()
				f()
			}()
			return true
		}})
		require.Equal(t, errPanicked, (<-done).err)
		closed(t, client, server)
	})
}

// Over real sockets, from a hijacked connection with bytes sent ahead: megabytes both ways at once, then half closed.
func TestTunnelOverTCP(t *testing.T) {
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer upstream.Close()
	failed := make(chan error, 3)
	data := make([]byte, 2<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	go func() { // echoes to the end, and then ends
		conn, err := upstream.Accept()
		if err == nil {
			_, err = io.Copy(conn, conn)
			conn.Close()
		}
		failed <- err
	}()

	ended := make(chan result, 1)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			failed <- err
			return
		}
		back, err := net.Dial("tcp", upstream.Addr().String())
		if err != nil {
			failed <- err
			return
		}
		ended <- <-start(TunnelConfig{Client: conn, ClientBuffered: buffered.Reader, Upstream: back, Idle: time.Minute})
	}))
	defer front.Close()

	client, err := net.Dial("tcp", front.Listener.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	go func() {
		_, err := client.Write(append([]byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), data...))
		if err == nil {
			err = client.(*net.TCPConn).CloseWrite()
		}
		failed <- err
	}()
	echoed, err := io.ReadAll(client)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, echoed), "%d bytes came back of %d", len(echoed), len(data))
	require.NoError(t, <-failed)
	require.NoError(t, <-failed)
	require.Equal(t, result{int64(len(data)), int64(len(data)), nil}, <-ended)
}

func BenchmarkTunnel(b *testing.B) {
	client, front := duplex()
	back, server := duplex()
	done := start(TunnelConfig{Client: front, Upstream: back, Idle: time.Minute})
	message := make([]byte, 1<<10)
	b.SetBytes(int64(2 * len(message)))
	b.ReportAllocs()
	for b.Loop() {
		for _, way := range [][2]*end{{client, server}, {server, client}} {
			if _, err := way[0].Write(message); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(way[1], message); err != nil {
				b.Fatal(err)
			}
		}
	}
	client.Close()
	server.Close()
	<-done
}
