package testnet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Client is a raw client connection. A failed write is no failure of the test (hostile bytes are often refused half-way): read what
// the peer answered, or look at SendErr. One goroutine may send while another reads.
type Client struct {
	Conn     net.Conn
	Patience time.Duration // how long one read or write may take; 5 s unless set

	w    *wire
	last *Response
	tap  *eofTap // below TLS

	mu       sync.Mutex
	received []byte
	sendErr  error
	sent     chan struct{} // closed when the goroutine that sends is done; nil without one
}

// Dial connects to a TCP address. Where it cannot the test fails, and every read of the client says Failed; only a reset so early
// that it meets the dial is left to be read as Reset.
func Dial(t testing.TB, addr string) *Client {
	t.Helper()
	return dialed(t, func() (net.Conn, error) { return net.DialTimeout("tcp", addr, patience) })
}

// DialTLS is Dial with a handshake, which has ended when it returns. Without a ServerName the host of addr is verified. An end of
// stream without close_notify reads as Truncated, which crypto/tls by itself does not tell.
func DialTLS(t testing.TB, addr string, config *tls.Config) *Client {
	t.Helper()
	var tap *eofTap
	c := dialed(t, func() (net.Conn, error) {
		conn, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			return nil, err
		}
		if config = config.Clone(); config.ServerName == "" {
			config.ServerName, _, _ = net.SplitHostPort(addr)
		}
		tap = &eofTap{Conn: conn}
		tc := tls.Client(tap, config)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := tc.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return tc, nil
	})
	c.tap = tap
	return c
}

func dialed(t testing.TB, dial func() (net.Conn, error)) *Client {
	t.Helper()
	conn, err := dial()
	if err != nil {
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("testnet: %v", err)
		}
		dead, _ := net.Pipe()
		_ = dead.Close()
		conn = deadConn{dead, err}
	}
	return NewClient(t, conn)
}

// deadConn is a connection that never was.
type deadConn struct {
	net.Conn
	err error
}

func (d deadConn) Read([]byte) (int, error)  { return 0, d.err }
func (d deadConn) Write([]byte) (int, error) { return 0, d.err }

// NewClient makes a client of any connection, for instance one of a PipeListener. It is closed with the test.
func NewClient(t testing.TB, conn net.Conn) *Client {
	c := &Client{Conn: conn, Patience: patience}
	c.w = newWire(clientReader{c})
	t.Cleanup(c.Close)
	return c
}

// Send writes bytes as they are. It reports whether all were taken.
func (c *Client) Send(raw string) bool { return c.send(raw, c.Patience) }

func (c *Client) send(raw string, limit time.Duration) bool {
	_ = c.Conn.SetWriteDeadline(time.Now().Add(limit))
	_, err := io.WriteString(c.Conn, raw)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.sendErr == nil {
			c.sendErr = err
		}
	}
	return err == nil
}

// SendErr returns the first error of Send.
func (c *Client) SendErr() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sendErr
}

// ReadHead reads the head of the response to a request of the given method, over the rest of the one before it. The body is then
// read from the response, as it arrives. It never returns nil: a response with Status 0 tells by End what came instead.
func (c *Client) ReadHead(method string) *Response {
	if c.last != nil {
		c.last.rest()
	}
	c.last = c.w.response(method)
	return c.last
}

// ReadResponse is ReadHead and the whole body.
func (c *Client) ReadResponse(method string) *Response {
	r := c.ReadHead(method)
	r.rest()
	return r
}

// ReadN reads n bytes as they are, such as those of a tunnel; fewer only if no more came.
func (c *Client) ReadN(n int) string {
	p := make([]byte, n)
	n, _ = io.ReadFull(c.w.src, p)
	return string(p[:n])
}

// ReadRest reads bytes as they are until the peer closes, resets or is quiet.
func (c *Client) ReadRest() (string, End) {
	p, err := io.ReadAll(c.w.src)
	if err == nil {
		err = io.EOF
	}
	return string(p), endOf(err, 0)
}

// Received returns every byte that arrived (the first 16 MiB), for canary searches.
func (c *Client) Received() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.received[:len(c.received):len(c.received)]
}

// CloseWrite ends our half. net/http's server takes that as a client that left.
func (c *Client) CloseWrite() { _ = closeWrite(c.Conn) }

// Reset closes so that the peer sees a reset.
func (c *Client) Reset() { reset(c.Conn) }

// Close closes.
func (c *Client) Close() { _ = c.Conn.Close() }

// Do sends one request and reads its final response; the connection stays open.
func (c *Client) Do(raw string) *Response {
	defer c.sending(raw)()
	want, _ := methods(raw)
	return c.ReadResponse(want[0])
}

// Do sends one request over a connection of its own and reads its final response.
func Do(t testing.TB, addr, raw string) *Response {
	t.Helper()
	c := Dial(t, addr)
	defer c.Close()
	return c.Do(raw)
}

// Transcript is all that a peer answered to some bytes.
type Transcript struct {
	Responses []*Response // in order; only the last can be other than whole
	End       End         // Closed, Truncated, Reset, Malformed, Failed; Quiet: left open, and nothing more came
	Err       error       // the error behind End; io.EOF for Closed
	SendErr   error       // why not all our bytes were taken
	Raw       []byte      // every byte received, its first 16 MiB
}

// Exchange sends bytes as they are and reads responses until the peer closes, or has answered every request in them (at least one)
// and then stays quiet: for 50 ms if the bytes are whole requests, for longer if what they are is a matter of opinion, and for
// Patience if the last request asks to close. It closes the connection.
func (c *Client) Exchange(raw string) *Transcript {
	want, silence := methods(raw)
	sent := c.sending(raw)
	tr := &Transcript{}
	for i := 0; tr.End == ""; i++ {
		method := ""
		if i < len(want) {
			method = want[i]
		} else {
			c.Patience = min(c.Patience, silence)
		}
		tr.add(c.ReadResponse(method))
	}
	c.Close()
	sent()
	tr.SendErr, tr.Raw = c.SendErr(), c.Received()
	return tr
}

// Exchange is Client.Exchange over a TCP connection of its own.
func Exchange(t testing.TB, addr, raw string) *Transcript {
	t.Helper()
	return Dial(t, addr).Exchange(raw)
}

func (tr *Transcript) add(r *Response) {
	if r.Status != 0 || len(r.Interim) > 0 {
		tr.Responses = append(tr.Responses, r)
	}
	switch {
	case r.End != Whole:
		tr.End, tr.Err = r.End, r.Err
	case r.Framing == ByClose:
		tr.End = Closed
	case r.Status == 101:
		tr.End = Quiet
	}
}

// Statuses returns the final statuses in order.
func (tr *Transcript) Statuses() []int {
	codes := make([]int, 0, len(tr.Responses))
	for _, r := range tr.Responses {
		codes = append(codes, r.Status)
	}
	return codes
}

// String is a summary for failure messages.
func (tr *Transcript) String() string {
	return fmt.Sprintf("%v, then %s (%v)", tr.Responses, tr.End, tr.Err)
}

// sending sends in a goroutine, for the peer may answer before it has read all. The func returned waits for it: bytes that a peer
// does not take are given up after Patience, or when the connection is closed.
func (c *Client) sending(raw string) (wait func()) {
	done, limit := make(chan struct{}), c.Patience
	c.mu.Lock()
	c.sent = done
	c.mu.Unlock()
	go func() {
		defer close(done)
		c.send(raw, limit)
	}()
	return func() { <-done }
}

// methods returns the methods of the requests in raw, of which there is at least one, and how long silence must last behind their
// answers to mean that no more will come.
func methods(raw string) (list []string, silence time.Duration) {
	silence = quiet
	w := newWire(strings.NewReader(raw))
	for {
		r := w.request()
		r.rest()
		switch {
		case r.End == Whole:
			list = append(list, r.Method)
			if silence = quiet; strings.EqualFold(r.Header.Get("Connection"), "close") {
				silence = patience
			}
			continue
		case r.End == Closed && len(list) > 0:
			return list, silence
		case len(list) == 0:
			method, _, _ := strings.Cut(raw, " ")
			list = append(list, method)
		}
		return list, doubt
	}
}

type clientReader struct{ c *Client }

func (r clientReader) Read(p []byte) (int, error) {
	c := r.c
	_ = c.Conn.SetReadDeadline(time.Now().Add(c.Patience))
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.received = keep(c.received, p[:n])
	c.mu.Unlock()
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if c.tap != nil && c.tap.eof {
		return n, io.ErrUnexpectedEOF
	}
	return n, c.stolen()
}

// stolen returns the reset if a write met it: the kernel reports it once, and to a read the connection then seems closed.
func (c *Client) stolen() error {
	c.mu.Lock()
	sent := c.sent
	c.mu.Unlock()
	if sent != nil {
		poll(quiet, func() bool {
			select {
			case <-sent:
				return true
			default:
				return false
			}
		})
	}
	if err := c.SendErr(); errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	return io.EOF
}

// eofTap knows whether the stream below TLS has ended. crypto/tls does not read that far behind a close_notify.
type eofTap struct {
	net.Conn
	eof bool
}

func (e *eofTap) Read(p []byte) (int, error) {
	n, err := e.Conn.Read(p)
	e.eof = e.eof || errors.Is(err, io.EOF)
	return n, err
}
