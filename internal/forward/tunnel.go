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

// How a tunnel goes away, counted from GoAway.
const (
	goAwayLinger = 100 * time.Millisecond // what was sent before passes; then the upstream is told
	goAwayHalf   = 500 * time.Millisecond // then the client is told, without the upstream's answer
	goAwayUrgent = 750 * time.Millisecond // then both are, within a message that does not end
	goAwayGrace  = time.Second            // then both are cut off
)

// Tunnel carries a WebSocket's bytes both ways. Use NewTunnel. Its methods may be called beside each other, Run once.
type Tunnel struct {
	client   net.Conn
	upstream io.ReadWriteCloser
	task     func(name string, f func()) bool
	up, down direction
	idle     time.Duration
	start    time.Time
	active   atomic.Int64 // when a byte last went either way, since start
	going    atomic.Bool  // GoAway was called

	once sync.Once     // guards err, over and both closes
	err  error         // why it ended; read once over is closed
	over chan struct{} // closed when it ended

	background sync.WaitGroup // the timer's function and the tasks that tell the sides; under mu, until closed

	mu      sync.Mutex // guards what follows
	running bool       // Run has begun, and GoAway has not
	closed  bool       // nothing begins any more
	timer   *time.Timer
	due     time.Duration // when it is cut, since start; negative: when it has been idle
}

// NewTunnel returns a tunnel through which nothing goes yet. Close it, whether it has run or not.
func NewTunnel(c TunnelConfig) *Tunnel {
	t := &Tunnel{client: c.Client, upstream: c.Upstream, task: c.Go, idle: c.Idle, start: time.Now(), over: make(chan struct{}), due: -1}
	t.up = direction{tunnel: t, other: &t.down, src: early(c.Client, c.ClientBuffered), dst: c.Upstream, turn: make(chan struct{}, 1)}
	t.up.frames.masked = true // RFC 6455 §5.1
	t.down = direction{tunnel: t, other: &t.up, src: c.Upstream, dst: c.Client, turn: make(chan struct{}, 1)}
	return t
}

// Run carries bytes until both directions ended, and returns how many went up and down. The end of one direction is passed on where the
// other side can be half closed, and ends the tunnel where it cannot. The error is nil after an orderly end, ErrTunnelIdle, or what failed
// first. Both connections are closed when it returns; closing them from outside ends it.
func (t *Tunnel) Run() (up, down int64, err error) {
	defer t.Close()
	t.begin()
	done := make(chan struct{})
	if !t.task("tunnel", func() {
		defer close(done)
		t.pipe(&t.down)
	}) {
		t.end(ErrTunnelRefused)
		return 0, 0, ErrTunnelRefused
	}
	t.pipe(&t.up)
	<-done
	t.Close()
	return t.up.sent, t.down.sent, t.err
}

// GoAway ends the tunnel in good order, without waiting for it. What was sent before is passed on, and then each side gets a Close that says
// that this end is going away (RFC 6455 §7.4.1), after a whole message if that does not take long; the upstream first, so that its answers
// to what it has received are not lost. The tunnel ends when both have answered, or after a second. Where something else than WebSocket
// frames passes, it ends at once. It may be called again.
func (t *Tunnel) GoAway() {
	if t.going.Swap(true) {
		return
	}
	t.cutIn(goAwayGrace)
	if t.up.opaque.Load() || t.down.opaque.Load() {
		t.cutIn(0)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running {
		t.sayGoodbye()
	}
}

// Cut ends the tunnel, without waiting for it.
func (t *Tunnel) Cut(error) { t.cutIn(0) }

// Close ends the tunnel. When it returns, nothing of it runs but Run.
func (t *Tunnel) Close() {
	t.end(nil)
	t.mu.Lock()
	t.closed = true
	if t.timer != nil && t.timer.Stop() {
		t.background.Done()
	}
	t.timer = nil
	t.mu.Unlock()
	t.background.Wait()
}

// early returns a reader of what br holds and then of conn itself, without br between.
func early(conn net.Conn, br *bufio.Reader) io.Reader {
	if br == nil || br.Buffered() == 0 {
		return conn
	}
	return io.MultiReader(io.LimitReader(br, int64(br.Buffered())), conn)
}

var tunnelBuffers = sync.Pool{New: func() any { return new([8 << 10]byte) }}

var errPanicked = errors.New("tunnel panicked")

// pipe copies one direction and passes its end on. Whatever goes wrong, it leaves nobody waiting in the other one.
func (t *Tunnel) pipe(d *direction) {
	err, passed := errPanicked, false
	defer func() {
		if !passed {
			t.end(err)
		}
	}()
	buf := tunnelBuffers.Get().(*[8 << 10]byte)
	defer tunnelBuffers.Put(buf)

	c := Copier{W: d, OnRead: func(int) { _ = t.touch() }, Flush: t.touch}
	_, err = c.Copy(d.src, buf[:])
	passed = d.end(err)
}

// end closes both sides and keeps the first reason.
func (t *Tunnel) end(err error) {
	t.once.Do(func() {
		t.err = err
		close(t.over)
		defer func() { _ = recover() }() // of a connection of the app's: this may be a timer's goroutine
		defer t.upstream.Close()
		t.client.Close()
	})
}

// settle ends a tunnel that goes away when neither side has anything more to say.
func (t *Tunnel) settle() {
	if t.going.Load() && t.up.settled() && t.down.settled() {
		t.end(nil)
	}
}

// begin starts the idle time, and the way out if it was asked for already.
func (t *Tunnel) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running = true
	t.active.Store(int64(time.Since(t.start)))
	switch {
	case t.going.Load():
		t.sayGoodbye()
	case t.idle > 0:
		t.wake(t.idle)
	}
}

// sayGoodbye has both sides told, once. t.mu is held.
func (t *Tunnel) sayGoodbye() {
	if t.closed {
		return
	}
	t.running = false
	half := goAwayHalf
	if t.up.mute.Load() {
		half = goAwayLinger // the upstream cannot be told
	}
	t.tellIn(goAwayLinger, &t.up)
	t.tellIn(half, &t.down)
	if t.up.settled() && t.down.settled() {
		t.cutBy(0)
	}
}

// tellIn has one side told after a while: by a task of its own, for a side that does not read holds it up.
func (t *Tunnel) tellIn(d time.Duration, to *direction) {
	t.background.Add(1)
	if !t.task("tunnel close", func() {
		defer t.background.Done()
		if t.lasts(d) {
			to.goAway(false)
		}
		if t.lasts(goAwayUrgent - d) {
			to.goAway(true)
		}
	}) {
		t.background.Done()
		t.cutBy(0)
	}
}

// lasts waits, and reports whether the tunnel is still there.
func (t *Tunnel) lasts(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-t.over:
		return false
	case <-timer.C:
		return true
	}
}

// touch notes that a byte went by.
func (t *Tunnel) touch() error {
	t.active.Store(int64(time.Since(t.start)))
	return nil
}

// cutIn ends the tunnel after a while, if that is earlier than it would end.
func (t *Tunnel) cutIn(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cutBy(d)
}

// cutBy is cutIn with t.mu held.
func (t *Tunnel) cutBy(d time.Duration) {
	if due := time.Since(t.start) + d; t.due < 0 || due < t.due {
		t.due = due
		t.wake(d)
	}
}

// wake has the timer look after a while. A byte only leaves its time; the timer looks at it when it fires. That works with a connection that
// knows no deadlines. t.mu is held.
func (t *Tunnel) wake(d time.Duration) {
	switch {
	case t.closed:
	case t.timer == nil:
		t.background.Add(1)
		t.timer = time.AfterFunc(d, t.look)
	case t.timer.Stop():
		t.timer.Reset(d)
	} // or it is about to look
}

func (t *Tunnel) look() {
	if why, over := t.overdue(); over {
		t.end(why)
		t.background.Done()
	}
}

// overdue says why the tunnel is to end now, or sets the timer again. A timer that is over is not used again.
func (t *Tunnel) overdue() (why error, over bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Since(t.start)
	left := t.due - now
	if t.due < 0 {
		why = ErrTunnelIdle
		left = t.idle - (now - time.Duration(t.active.Load()))
	}
	if t.closed || left <= 0 {
		return why, true
	}
	t.timer.Reset(left)
	return nil, false
}
