package e2e_test

import (
	"cmp"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// To a client of HTTP/1.0 a content without a length ends with the connection (RFC
// 9112 §6.3): that one of the service's broke off it can only see by an end that is
// none, a reset or TLS without its last word (§8, §9.8).
func TestBrokenContentOfAnOldClient(t *testing.T) {
	const get = "GET /a/x HTTP/1.0\r\nHost: gateway.test\r\n\r\n"
	const post = "POST /a/x HTTP/1.0\r\nHost: gateway.test\r\nContent-Length: 100000\r\n\r\nbegun"
	begun := strings.TrimSuffix(testnet.Chunks(strings.Repeat("x", 10_000)), "0\r\n\r\n")
	head := "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n"
	breaks := func(c *testnet.Conn) {
		if c.ReadRequest() != nil {
			c.Send(head + "Transfer-Encoding: chunked\r\n\r\n" + begun)
			c.Pause(10 * time.Millisecond)
		}
	}
	whole := testnet.Replies(head + "Transfer-Encoding: chunked\r\n\r\n" + begun + "0\r\n\r\n")
	for what, tt := range map[string]struct {
		script  func(*testnet.Conn)
		opts    []gateway.ServiceOption
		ends    bool   // well
		request string // empty: a GET
	}{
		"whole":          {whole, nil, true, ""},
		"broken off":     {breaks, nil, false, ""},
		"past the cache": {breaks, []gateway.ServiceOption{gateway.WithoutCache()}, false, ""},
		"too long":       {whole, []gateway.ServiceOption{gateway.WithMaxResponseBytes(5000)}, false, ""},
		"reset, with no length": {func(c *testnet.Conn) {
			if c.ReadRequest() != nil {
				c.Send(head + "\r\n" + strings.Repeat("x", 10_000))
				c.Pause(10 * time.Millisecond)
				c.Reset()
			}
		}, nil, false, ""},
		"beside the request's": {func(c *testnet.Conn) {
			if c.ReadHead() != nil {
				c.Send(head + "Transfer-Encoding: chunked\r\n\r\n" + begun)
				c.Pause(10 * time.Millisecond)
				c.Reset()
			}
		}, nil, false, post},
	} {
		for _, secure := range []bool{false, true} {
			name := what
			if secure {
				name += ", over TLS"
			}
			t.Run(name, func(t *testing.T) {
				r := newRig(t, setup{script: tt.script, a: append(tt.opts, gateway.WithoutRetries())})
				r.broken = tt.request != ""
				c := dialOld(t, r, secure)
				c.Send(cmp.Or(tt.request, get))
				resp := c.ReadResponse("GET")
				require.Equal(t, 200, resp.Status)
				require.Equal(t, testnet.ByClose, resp.Framing)
				if tt.ends {
					assert.Equal(t, testnet.Whole, resp.End)
					assert.Len(t, resp.Body, 10_000)
				} else {
					assert.Contains(t, []testnet.End{testnet.Reset, testnet.Truncated}, resp.End)
				}
			})
		}
	}
}

// dialOld connects to the rig's gateway, over TLS by a server of its own.
func dialOld(t *testing.T, r *rig, secure bool) *testnet.Client {
	if !secure {
		return testnet.Dial(t, r.addr)
	}
	cert, pool := testnet.Certificate(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &http.Server{Handler: r.gw, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.ServeTLS(ln, "", "") }()
	t.Cleanup(func() { _ = srv.Close() })
	return testnet.DialTLS(t, ln.Addr().String(), &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})
}
