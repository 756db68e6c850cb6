package roundtrip

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// upstream is a server that speaks HTTP/2 only, and how to reach it.
type upstream struct {
	url   url.URL
	dials int // guarded by mu
	mu    sync.Mutex
	conn  func(context.Context) (net.Conn, error)
	tls   bool
}

// serve starts a server; scheme is "http", for prior knowledge, or "https".
func serve(t testing.TB, scheme string, h http.HandlerFunc) *upstream {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(scheme == "http")
	protocols.SetHTTP2(scheme == "https")
	srv := httptest.NewUnstartedServer(h)
	srv.Config.Protocols, srv.Config.ErrorLog = protocols, log.New(io.Discard, "", 0)
	u := &upstream{tls: scheme == "https"}
	if u.tls {
		srv.EnableHTTP2 = true
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	u.at(t, scheme, srv.Listener.Addr().String())
	if u.tls {
		plain := u.conn
		config := srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		config.NextProtos, config.ServerName = []string{"h2"}, "example.com"
		u.conn = func(ctx context.Context) (net.Conn, error) {
			conn, err := plain(ctx)
			if err != nil {
				return nil, err
			}
			secure := tls.Client(conn, config)
			return secure, secure.HandshakeContext(ctx)
		}
	}
	return u
}

func (u *upstream) at(t testing.TB, scheme, address string) {
	base, err := url.Parse(scheme + "://" + address)
	require.NoError(t, err)
	u.url = *base
	u.conn = func(ctx context.Context) (net.Conn, error) {
		u.mu.Lock()
		u.dials++
		u.mu.Unlock()
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
}

func (u *upstream) dialed() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.dials
}

// transport returns one to u, and closes it at the test's end.
func (u *upstream) transport(t testing.TB, c TransportConfig) *Transport {
	c.TLS = u.tls
	if c.Dial == nil {
		c.Dial = u.conn
	}
	tr := NewTransport(c)
	t.Cleanup(tr.Close)
	return tr
}

// exchange returns one with u, closed at the test's end.
func (u *upstream) exchange(t testing.TB, method, path string) *Exchange {
	x := &Exchange{Context: t.Context(), Method: method, URL: u.url, Host: u.url.Host, Fields: http.Header{}, Own: true}
	x.URL.Path = path
	t.Cleanup(x.Close)
	return x
}

// with gives x a content of unknown length.
func (x *Exchange) with(body io.Reader) *Exchange {
	x.Body, x.Length = io.NopCloser(body), -1
	return x
}

// text reads all of the content.
func text(t testing.TB, x *Exchange) string {
	var b strings.Builder
	for {
		piece, err := x.Next()
		if err == io.EOF {
			return b.String()
		}
		require.NoError(t, err)
		require.NotEmpty(t, piece)
		b.Write(piece)
	}
}

// roundTripper is a caller's own.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// observer takes down what it is told.
type observer func(status int, header http.Header) error

func (f observer) Interim(status int, header http.Header) error { return f(status, header) }

func listen(t testing.TB) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	return ln
}
