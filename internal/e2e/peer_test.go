package e2e_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// The span of an attempt says where its connection leads, whatever is spoken on it,
// whether it is new or not, and also where no answer comes.
func TestAttemptsNameTheirPeer(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/abort" {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write([]byte(r.Proto))
	})
	serve := func(secure, h2 bool) *httptest.Server {
		up := httptest.NewUnstartedServer(answer)
		up.Config.Protocols = new(http.Protocols)
		up.Config.Protocols.SetHTTP1(!h2)
		up.Config.Protocols.SetHTTP2(h2 && secure)
		up.Config.Protocols.SetUnencryptedHTTP2(h2 && !secure)
		if up.EnableHTTP2 = h2 && secure; secure {
			up.StartTLS()
		} else {
			up.Start()
		}
		t.Cleanup(up.Close)
		return up
	}
	socket := filepath.Join(t.TempDir(), "a:1.sock")
	serveSocket(t, socket, "HTTP/1.1")
	trust := func(up *httptest.Server) gateway.ServiceOption {
		return gateway.WithTLSConfig(&tls.Config{RootCAs: up.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, MinVersion: tls.VersionTLS12})
	}
	plain, secure, h2c, h2 := serve(false, false), serve(true, false), serve(false, true), serve(true, true)
	for name, tt := range map[string]struct {
		url, proto string
		opts       []gateway.ServiceOption
		peer       net.Addr
	}{
		"HTTP/1.1":           {plain.URL, "HTTP/1.1", nil, plain.Listener.Addr()},
		"HTTP/1.1 over TLS":  {secure.URL, "HTTP/1.1", []gateway.ServiceOption{trust(secure)}, secure.Listener.Addr()},
		"HTTP/2":             {h2c.URL, "HTTP/2.0", []gateway.ServiceOption{gateway.WithHTTP2()}, h2c.Listener.Addr()},
		"HTTP/2 over TLS":    {h2.URL, "HTTP/2.0", []gateway.ServiceOption{gateway.WithHTTP2(), trust(h2)}, h2.Listener.Addr()},
		"a socket":           {"unix://" + socket, "HTTP/1.1", nil, &net.UnixAddr{Name: socket, Net: "unix"}},
		"net/http's own":     {plain.URL, "HTTP/1.1", []gateway.ServiceOption{gateway.WithTransport(&http.Transport{})}, plain.Listener.Addr()},
		"a transport's own":  {target, "", []gateway.ServiceOption{gateway.WithTransport(instant())}, nil},
		"nobody listens":     {"http://" + closedPort(t), "", nil, nil},
		"IPv4 in IPv6's way": {"http://[::ffff:127.0.0.1]:" + portOf(plain.Listener.Addr()), "HTTP/1.1", nil, plain.Listener.Addr()},
	} {
		t.Run(name, func(t *testing.T) {
			o := newObserved(t)
			gw := o.gateway(gateway.WithoutRetries(), gateway.WithService("a", tt.url, tt.opts...))
			paths := []string{"/a/x", "/a/again"}
			if _, is := tt.peer.(*net.TCPAddr); is {
				paths = append(paths, "/a/abort")
			}
			for i, path := range paths {
				got := handle(t, gw, testnet.Get(path), nil)
				if tt.proto != "" && path != "/a/abort" {
					require.Equal(t, tt.proto, got.body.String())
				}
				attempts := o.kind(trace.SpanKindClient)
				require.Len(t, attempts, i+1)
				attrs := attribute.NewSet(attempts[i].Attributes...)
				address, hasAddress := attrs.Value("network.peer.address")
				port, hasPort := attrs.Value("network.peer.port")
				switch peer := tt.peer.(type) {
				case *net.TCPAddr:
					assert.Equal(t, peer.IP.String(), address.AsString(), path)
					assert.EqualValues(t, peer.Port, port.AsInt64(), path)
				case *net.UnixAddr:
					assert.Equal(t, peer.Name, address.AsString(), path)
					assert.False(t, hasPort)
				default:
					assert.False(t, hasAddress || hasPort)
				}
			}
		})
	}
}

// instant answers without a connection.
func instant() http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	})
}

func portOf(addr net.Addr) string {
	_, port, _ := net.SplitHostPort(addr.String())
	return port
}

// closedPort is an address at which nobody listens.
func closedPort(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return ln.Addr().String()
}
