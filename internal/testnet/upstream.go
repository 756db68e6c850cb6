package testnet

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"
)

// Up is a scripted upstream. It journals every byte it receives, in order, whether its script reads them as requests or not, and
// closes with the test. It is safe for concurrent use.
type Up struct {
	Addr string         // host:port
	URL  string         // http://host:port, or https
	Pool *x509.CertPool // that trusts an UpstreamTLS; nil otherwise

	t      testing.TB
	ln     net.Listener
	script func(*Conn)
	stop   chan struct{}
	once   sync.Once
	wg     sync.WaitGroup

	mu       sync.Mutex
	conns    []*Conn
	open     map[*Conn]struct{}
	begin    int        // requests whose head was read
	requests []*Request // whole ones
	parts    []*Request // those that ended otherwise
	changed  chan struct{}
}

// Upstream listens on 127.0.0.1 and runs script for each connection, in a goroutine of its own.
func Upstream(t testing.TB, script func(c *Conn)) *Up {
	t.Helper()
	return UpstreamOn(t, listen(t), script)
}

// UpstreamTLS is Upstream over TLS, HTTP/1.1 only, with a certificate for 127.0.0.1 and localhost that Pool trusts.
func UpstreamTLS(t testing.TB, script func(c *Conn)) *Up {
	t.Helper()
	cert, pool := Certificate(t)
	config := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
	u := UpstreamOn(t, tls.NewListener(listen(t), config), script)
	u.URL, u.Pool = "https://"+u.Addr, pool
	return u
}

// UpstreamOn is Upstream on a listener of the caller's choice, which it closes: a PipeListener inside a synctest bubble, or the
// address of an upstream that was closed before.
func UpstreamOn(t testing.TB, ln net.Listener, script func(c *Conn)) *Up {
	addr := ln.Addr().String()
	u := &Up{
		Addr: addr, URL: "http://" + addr,
		t: t, ln: ln, script: script, stop: make(chan struct{}),
		open: map[*Conn]struct{}{}, changed: make(chan struct{}),
	}
	u.wg.Go(u.accept)
	t.Cleanup(u.Close)
	return u
}

// Refused returns a TCP address where nothing listens.
func Refused(t testing.TB) string {
	t.Helper()
	ln := listen(t)
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("testnet: %v", err)
	}
	return ln
}

func (u *Up) accept() {
	for id := 0; ; {
		nc, err := u.ln.Accept()
		switch {
		case err == nil:
			u.start(newConn(u, id, nc))
			id++
		case u.stopped(), errors.Is(err, net.ErrClosed):
			return
		default: // out of descriptors, say
			u.pause(time.Millisecond)
		}
	}
}

func (u *Up) start(c *Conn) {
	u.mu.Lock()
	u.conns = append(u.conns, c)
	u.open[c] = struct{}{}
	u.notify()
	u.mu.Unlock()
	if u.stopped() {
		_ = c.Net.Close()
	}
	u.wg.Go(func() {
		defer func() {
			if v := recover(); v != nil {
				u.t.Errorf("testnet: script panicked: %v", v)
			}
			c.Close()
			u.mu.Lock()
			defer u.mu.Unlock()
			delete(u.open, c)
			u.notify()
		}()
		u.script(c)
	})
}

func (u *Up) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-u.stop:
		return false
	}
}

func (u *Up) stopped() bool {
	select {
	case <-u.stop:
		return true
	default:
		return false
	}
}

// Close stops listening, closes every connection and waits for the scripts. The journal stays readable.
func (u *Up) Close() {
	u.once.Do(func() {
		close(u.stop)
		_ = u.ln.Close()
	})
	u.CloseConns()
	u.wg.Wait()
}

// CloseConns closes every open connection, whatever its script is doing, as a server does that tires of idle ones.
func (u *Up) CloseConns() {
	u.mu.Lock()
	open := make([]*Conn, 0, len(u.open))
	for c := range u.open {
		open = append(open, c)
	}
	u.mu.Unlock()
	for _, c := range open {
		_ = c.Net.Close()
	}
}

// Conns returns how many connections were accepted.
func (u *Up) Conns() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.conns)
}

// Open returns how many connections are open.
func (u *Up) Open() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.open)
}

// Begun returns how many requests began: attempts, whole or not.
func (u *Up) Begun() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.begin
}

// Journal returns the whole requests, in the order in which they were complete.
func (u *Up) Journal() []*Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.requests[:len(u.requests):len(u.requests)]
}

// Parts returns the requests that ended otherwise than whole, such as aborted uploads.
func (u *Up) Parts() []*Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.parts[:len(u.parts):len(u.parts)]
}

// JournalBytes returns every byte received (the first 16 MiB of each connection), connection after connection.
func (u *Up) JournalBytes() []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []byte
	for _, c := range u.conns {
		all = append(all, c.log...)
	}
	return all
}

var errUnread = errors.New("not yet read by the script")

// AllWhole returns nil if the bytes of each connection are whole requests, one after the other and nothing else. What follows in a
// tunnel is not judged. The error quotes the tail of each connection where they are not.
func (u *Up) AllWhole() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var errs []error
	for _, c := range u.conns {
		if c.tunnel || c.received == c.whole {
			continue
		}
		cause := c.err
		if cause == nil {
			cause = errUnread
		}
		tail := c.log[min(c.whole, int64(len(c.log))):]
		errs = append(errs, fmt.Errorf("connection %d: %d bytes are no whole request (%w): %q",
			c.ID, c.received-c.whole, cause, tail[:min(len(tail), 300)]))
	}
	return errors.Join(errs...)
}

// Await waits until n requests are whole and returns the journal. It ends the test if they do not come.
func (u *Up) Await(n int) []*Request {
	u.t.Helper()
	u.await(fmt.Sprintf("%d whole requests", n), func() bool { return len(u.requests) >= n })
	return u.Journal()
}

// AwaitBegun waits until n requests began, bodies aside. It ends the test if they do not.
func (u *Up) AwaitBegun(n int) {
	u.t.Helper()
	u.await(fmt.Sprintf("%d requests begun", n), func() bool { return u.begin >= n })
}

// AwaitClosed waits until n connections were accepted, or more, and none of them is open. It ends the test if that does not come.
func (u *Up) AwaitClosed(n int) {
	u.t.Helper()
	u.await(fmt.Sprintf("%d connections, all closed", n), func() bool { return len(u.conns) >= n && len(u.open) == 0 })
}

// AwaitOpen waits until n connections are open, or more. It ends the test if they do not come.
func (u *Up) AwaitOpen(n int) {
	u.t.Helper()
	u.await(fmt.Sprintf("%d connections open", n), func() bool { return len(u.open) >= n })
}

func (u *Up) await(what string, cond func() bool) {
	u.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		u.mu.Lock()
		ok, changed := cond(), u.changed
		state := fmt.Sprintf("%d whole, %d begun, %d open", len(u.requests), u.begin, len(u.open))
		u.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-limit.C:
			u.t.Fatalf("testnet: upstream %s: waited for %s, have %s", u.Addr, what, state)
		}
	}
}

// What follows is called by connections.

func (u *Up) journal(c *Conn, p []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c.log = keep(c.log, p)
	c.received += int64(len(p))
}

func (u *Up) begun(r *Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	r.N = u.begin
	u.begin++
	u.notify()
}

func (u *Up) ended(c *Conn, r *Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer u.notify()
	if r.Err != nil {
		c.err = r.Err
		u.parts = append(u.parts, r)
		return
	}
	c.whole += r.w.n
	u.requests = append(u.requests, r)
}

func (u *Up) failed(c *Conn, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c.err = err
}

func (u *Up) setTunnel(c *Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c.tunnel = true
}

func (u *Up) notify() {
	close(u.changed)
	u.changed = make(chan struct{})
}
