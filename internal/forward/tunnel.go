package forward

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrTunnelIdle ends a tunnel through which nothing went for too long.
	ErrTunnelIdle = errors.New("tunnel was idle")
	// ErrTunnelRefused is returned when no task may be started any more.
	ErrTunnelRefused = errors.New("tunnel refused: shutting down")
)

// TunnelConfig says what a tunnel connects.
type TunnelConfig struct {
	Client         net.Conn
	ClientBuffered *bufio.Reader // what was read from Client ahead, as Hijack returns it; may be nil
	Upstream       io.ReadWriteCloser
	Idle           time.Duration                    // end the tunnel when no byte went either way for so long; zero: never
	Go             func(name string, f func()) bool // runs f as a task of this name, or returns false
}

// Tunnel carries bytes both ways until both directions ended, and returns how many went up and down. The end of one direction is passed on
// where the other side can be half closed, and ends the tunnel where it cannot. The error is nil after an orderly end, ErrTunnelIdle, or
// what failed first. Both connections are closed when it returns; closing them from outside ends it.
func Tunnel(c TunnelConfig) (up, down int64, err error) {
	t := &tunnel{client: c.Client, upstream: c.Upstream, idle: c.Idle, start: time.Now()}
	t.watch()
	defer t.unwatch()

	done := make(chan struct{})
	if !c.Go("tunnel", func() {
		defer close(done)
		down = t.pipe(c.Client, c.Upstream)
	}) {
		t.end(ErrTunnelRefused)
		return 0, 0, ErrTunnelRefused
	}
	up = t.pipe(c.Upstream, early(c.Client, c.ClientBuffered))
	<-done
	t.end(nil)
	return up, down, t.err
}

// early returns a reader of what br holds and then of conn itself, without br between.
func early(conn net.Conn, br *bufio.Reader) io.Reader {
	if br == nil || br.Buffered() == 0 {
		return conn
	}
	return io.MultiReader(io.LimitReader(br, int64(br.Buffered())), conn)
}

type tunnel struct {
	client   net.Conn
	upstream io.ReadWriteCloser
	idle     time.Duration
	start    time.Time
	active   atomic.Int64 // when a byte last went either way, since start

	once sync.Once // guards err and both closes
	err  error     // why it ended; read after end returned

	mu    sync.Mutex
	timer *time.Timer // nil: no watch; guarded by mu
}

var tunnelBuffers = sync.Pool{New: func() any { return new([8 << 10]byte) }}

var errPanicked = errors.New("tunnel panicked")

// pipe copies src to dst and passes the end of src on. Whatever goes wrong, it leaves nobody waiting in the other direction.
func (t *tunnel) pipe(dst io.Writer, src io.Reader) (n int64) {
	err, halfClosed := errPanicked, false
	defer func() {
		if !halfClosed {
			t.end(err)
		}
	}()
	buf := tunnelBuffers.Get().(*[8 << 10]byte)
	defer tunnelBuffers.Put(buf)

	c := Copier{W: dst, OnRead: func(int) { _ = t.touch() }, Flush: t.touch}
	n, err = c.Copy(src, buf[:])
	if half, ok := dst.(interface{ CloseWrite() error }); ok && err == nil {
		halfClosed = half.CloseWrite() == nil
	}
	return n
}

// end closes both sides and keeps the first reason.
func (t *tunnel) end(err error) {
	t.once.Do(func() {
		t.err = err
		t.client.Close()
		t.upstream.Close()
	})
}

// touch notes that a byte went by.
func (t *tunnel) touch() error {
	t.active.Store(int64(time.Since(t.start)))
	return nil
}

// watch ends the tunnel when it has been idle. A byte only leaves its time; the timer looks at it when it fires. That works with a
// connection that knows no deadlines.
func (t *tunnel) watch() {
	if t.idle <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(t.idle, t.look)
}

func (t *tunnel) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer == nil {
		return
	}
	quiet := time.Since(t.start) - time.Duration(t.active.Load())
	if quiet < t.idle {
		t.timer.Reset(t.idle - quiet)
		return
	}
	t.end(ErrTunnelIdle)
}

// unwatch returns when the timer's function neither runs nor will run.
func (t *tunnel) unwatch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}
