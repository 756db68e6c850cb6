package h1

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// greet listens, and says a word to whoever connects.
func greet(t *testing.T, network, address string) net.Listener {
	l, err := net.Listen(network, address)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	return l
}

func TestDial(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:0"},
		{"unix", filepath.Join(t.TempDir(), "s")},
	} {
		l := greet(t, tt.network, tt.address)
		d := &Dialer{Network: tt.network, Address: l.Addr().String(), Timeout: time.Minute}
		c, err := d.Dial(t.Context())
		require.NoError(t, err)
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
		c.Close()

		l.Close()
		_, err = d.Dial(t.Context())
		var dial *DialError
		require.ErrorAs(t, err, &dial)
		require.False(t, dial.Timeout())
		var op *net.OpError
		require.ErrorAs(t, err, &op)
	}
}

func TestDialTLS(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	var asked string
	srv.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		asked = h.ServerName
		return nil, nil //nolint:nilnil // as documented
	}}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // it hears of what is closed at once
	srv.StartTLS()
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	via := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
	}
	for _, tt := range []struct {
		name, address, server string
		offer                 []string
		asked                 string
	}{
		{"host of the address", "example.com:443", "", []string{"http/1.1"}, "example.com"},
		{"no name for an address", srv.Listener.Addr().String(), "", nil, ""},
		{"name given", "10.0.0.1:443", "example.com", []string{"h2"}, "example.com"},
	} {
		config := &tls.Config{RootCAs: roots, ServerName: tt.server, NextProtos: tt.offer}
		d := &Dialer{Network: "tcp", Address: tt.address, TLS: config, Via: via, HandshakeTimeout: time.Minute}
		c, err := d.Dial(t.Context())
		require.NoError(t, err, tt.name)
		require.Equal(t, tt.asked, asked, tt.name)
		if tt.offer != nil {
			require.Equal(t, tt.offer[0], c.(*tls.Conn).ConnectionState().NegotiatedProtocol)
		}
		require.Equal(t, tt.server, config.ServerName, "it is the caller's")
		c.Close()
	}
}

// closeNoted notes that it was closed.
type closeNoted struct {
	net.Conn
	closed bool
}

func (c *closeNoted) Close() error { c.closed = true; return c.Conn.Close() }

func TestFailedHandshakeClosesTheConnection(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // it hears of each handshake
	srv.StartTLS()
	defer srv.Close()
	for _, tt := range []struct {
		name, network, address string
	}{
		{"unknown authority", "tcp", srv.Listener.Addr().String()},
		{"no server name", "unix", "/some/path"},
	} {
		var noted *closeNoted
		d := &Dialer{Network: tt.network, Address: tt.address, TLS: &tls.Config{}, Via: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", srv.Listener.Addr().String())
			noted = &closeNoted{Conn: c}
			return noted, err
		}}
		_, err := d.Dial(t.Context())
		var dial *DialError
		require.ErrorAs(t, err, &dial, tt.name)
		require.True(t, noted.closed, tt.name)
		if tt.network == "tcp" {
			var unknown x509.UnknownAuthorityError
			require.ErrorAs(t, err, &unknown)
		}
	}
}

func TestDialTimesOut(t *testing.T) {
	t.Parallel()
	silent := func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	mute := func(context.Context, string, string) (net.Conn, error) { c, _ := net.Pipe(); return c, nil }
	left := errors.New("left")
	for _, tt := range []struct {
		name    string
		d       Dialer
		leaves  time.Duration
		after   time.Duration
		timeout bool
	}{
		{"connection", Dialer{Timeout: time.Second, HandshakeTimeout: time.Hour, Via: silent}, 0, time.Second, true},
		{"handshake", Dialer{Timeout: time.Millisecond, HandshakeTimeout: time.Second, TLS: &tls.Config{ServerName: "s"}, Via: mute}, 0, time.Second, true},
		{"caller left", Dialer{Timeout: time.Hour, Via: silent}, time.Second, time.Second, false},
		{"caller left a handshake", Dialer{HandshakeTimeout: time.Hour, TLS: &tls.Config{ServerName: "s"}, Via: mute}, time.Second, time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.leaves > 0 {
					time.AfterFunc(tt.leaves, func() { cancel(left) })
				}
				p := newPool(PoolConfig{Dial: tt.d.Dial})
				defer p.Close()
				begin := time.Now()
				_, err := p.get(ctx)
				require.Equal(t, tt.after, time.Since(begin))
				var dial *DialError
				require.ErrorAs(t, err, &dial)
				require.Equal(t, tt.timeout, dial.Timeout())
				require.Equal(t, tt.leaves > 0, errors.Is(err, left))
			})
		})
	}
}

func TestDialErrorsKeepTheirKind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		conn    net.Conn
		err     error
		timeout bool
	}{
		{"no such host", nil, &net.DNSError{IsNotFound: true}, false},
		{"resolver's timeout", nil, &net.OpError{Op: "dial", Err: &net.DNSError{IsTimeout: true}}, true},
		{"nothing at all", nil, nil, false},
	} {
		d := &Dialer{Via: func(context.Context, string, string) (net.Conn, error) { return tt.conn, tt.err }}
		_, err := d.Dial(t.Context())
		var dial *DialError
		require.ErrorAs(t, err, &dial, tt.name)
		require.Equal(t, tt.timeout, dial.Timeout(), tt.name)
		if tt.err != nil {
			var dns *net.DNSError
			require.ErrorAs(t, err, &dns, tt.name)
		}
	}
}

// A dial func that minds no context is not waited for beyond the times. What it
// connects yet is closed.
func TestDialThatMindsNoContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		near, far := net.Pipe()
		defer far.Close()
		noted := &closeNoted{Conn: near}
		d := Dialer{Timeout: time.Second, Via: func(context.Context, string, string) (net.Conn, error) {
			<-release
			return noted, nil
		}}
		begin := time.Now()
		_, err := d.Dial(t.Context())
		require.Equal(t, time.Second+patience, time.Since(begin))
		var dial *DialError
		require.ErrorAs(t, err, &dial)
		require.True(t, dial.Timeout())
		close(release)
		synctest.Wait()
		require.True(t, noted.closed)
	})
}

func TestDialThatPanics(t *testing.T) {
	t.Parallel()
	d := Dialer{Via: func(context.Context, string, string) (net.Conn, error) { panic("fault") }}
	_, err := d.Dial(t.Context())
	var dial *DialError
	require.ErrorAs(t, err, &dial)
	var p *PanicError
	require.ErrorAs(t, err, &p)
	require.Equal(t, "fault", p.Value)
	require.Contains(t, string(p.Stack), "TestDialThatPanics")
}

// What a dial func that is late returns beside an error is not looked at, and a Close
// that panics is nobody's.
func TestLateDialThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, err := range []error{errors.New("no"), nil} {
			d := Dialer{Timeout: time.Second, Via: func(context.Context, string, string) (net.Conn, error) {
				time.Sleep(time.Minute)
				return struct{ net.Conn }{}, err
			}}
			_, err := d.Dial(t.Context())
			require.Error(t, err)
			time.Sleep(time.Hour)
		}
	})
}
