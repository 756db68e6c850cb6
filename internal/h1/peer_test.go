package h1

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// peer is an upstream that does to each connection what its script says.
type peer struct {
	ln     net.Listener
	secure *tls.Config // its clients'; nil: no TLS
	script func(*peerConn)
	done   chan struct{} // closed with it

	mu    sync.Mutex
	conns []net.Conn
	all   sync.WaitGroup
}

// peerConn is one connection of a peer. It is closed when its script returns.
type peerConn struct {
	net.Conn
	id   int // from 0
	r    *bufio.Reader
	done <-chan struct{}
}

// newPeer listens on a real socket.
func newPeer(t testing.TB, secure bool, script func(*peerConn)) *peer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &peer{ln: ln, script: script, done: make(chan struct{})}
	if secure {
		srv := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
		srv.Close()
		roots := x509.NewCertPool()
		roots.AddCert(srv.Certificate())
		p.secure = &tls.Config{RootCAs: roots, ServerName: "example.com"}
		p.ln = tls.NewListener(ln, &tls.Config{Certificates: srv.TLS.Certificates})
	}
	p.all.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *peer) accept() {
	for {
		nc, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.serve(nc)
	}
}

// serve has the script run.
func (p *peer) serve(nc net.Conn) {
	p.mu.Lock()
	c := &peerConn{Conn: nc, id: len(p.conns), r: bufio.NewReader(nc), done: p.done}
	p.conns = append(p.conns, nc)
	p.mu.Unlock()
	p.all.Go(func() {
		defer c.Close()
		p.script(c)
	})
}

func (p *peer) close() {
	close(p.done)
	if p.ln != nil {
		p.ln.Close()
	}
	p.mu.Lock()
	for _, c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.all.Wait()
}

func (p *peer) accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// client is a client of p, closed with the test.
func (p *peer) client(t testing.TB, c Config) *Client {
	if c.Pool.Dial == nil {
		c.Pool.Dial = (&Dialer{Network: "tcp", Address: p.ln.Addr().String(), TLS: p.secure}).Dial
	}
	cl := New(c)
	t.Cleanup(cl.Close)
	return cl
}

// pipes is a peer in memory, for synctest bubbles.
func pipes(t testing.TB, c Config, script func(*peerConn)) (*peer, *Client) {
	p := &peer{script: script, done: make(chan struct{})}
	t.Cleanup(p.close)
	if c.Pool.Dial == nil {
		c.Pool.Dial = func(context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			p.serve(far)
			return near, nil
		}
	}
	return p, p.client(t, c)
}

// head reads the head of a request; "": there is none.
func (c *peerConn) head() string {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return ""
		}
		if line == "\r\n" {
			return b.String()
		}
	}
}

// request reads a request by net/http, with its content.
func (c *peerConn) request() (*http.Request, string) {
	r, err := http.ReadRequest(c.r)
	if err != nil {
		return nil, ""
	}
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, ""
	}
	return r, string(content)
}

func (c *peerConn) send(s string) bool {
	if s == "" {
		return true // to a pipe it is a read of nothing
	}
	_, err := io.WriteString(c, s)
	return err == nil
}

// pause waits; false: until the peer closes.
func (c *peerConn) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.done:
		return false
	}
}

// wait reads until the client closes.
func (c *peerConn) wait() { io.Copy(io.Discard, c.r) }

// reset closes so that the client sees a reset.
func (c *peerConn) reset() {
	nc := c.Conn
	if secure, ok := nc.(*tls.Conn); ok {
		nc = secure.NetConn()
	}
	nc.(*net.TCPConn).SetLinger(0)
	nc.Close()
}

// answering answers each request with raw.
func answering(raw string) func(*peerConn) {
	return func(c *peerConn) {
		for c.head() != "" && c.send(raw) {
		}
	}
}

const okay = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// newExchange is a request without content, for as long as the test may take.
func newExchange(t testing.TB, method string) *Exchange {
	x := &Exchange{Context: t.Context(), Method: method, Path: "/p", Host: "up", Uploads: new(sync.WaitGroup)}
	x.Head, x.Idle = time.Now().Add(30*time.Second), 30*time.Second
	return x
}

// with gives x a content; a negative length: chunked.
func (x *Exchange) with(body io.Reader, length int64) *Exchange {
	x.Body, x.Length = body, length
	return x
}

// content reads to the end.
func content(x *Exchange) (string, error) {
	var b bytes.Buffer
	for {
		piece, err := x.Next()
		b.Write(piece)
		if err == io.EOF {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
	}
}

// fetch is a request and its response, from begin to end.
func fetch(t testing.TB, cl *Client) string {
	x := newExchange(t, "GET")
	defer x.Close()
	require.NoError(t, cl.Do(x))
	text, err := content(x)
	require.NoError(t, err)
	return text
}

// interims takes down interim responses, and fails at a given one.
type interims struct {
	seen   []int
	header []http.Header
	most   int
}

func (i *interims) Interim(status int, header http.Header) error {
	i.seen, i.header = append(i.seen, status), append(i.header, header)
	if i.most > 0 && len(i.seen) >= i.most {
		return io.ErrShortBuffer
	}
	return nil
}

// both runs a test over plain connections and over TLS.
func both(t *testing.T, test func(t *testing.T, secure bool)) {
	t.Helper()
	for _, secure := range []bool{false, true} {
		name := "plain"
		if secure {
			name = "TLS"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, secure)
		})
	}
}

// settle waits until cond holds.
func settle(t testing.TB, what string, cond func() bool) {
	t.Helper()
	end, tick := time.After(5*time.Second), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			require.FailNow(t, "it does not settle", what)
		}
	}
}
