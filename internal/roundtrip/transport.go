package roundtrip

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// TransportConfig says how a Transport connects, and for how long it keeps
// connections.
type TransportConfig struct {
	// Dial connects to the endpoint. With TLS it returns a [*tls.Conn] that has
	// agreed on "h2" by ALPN; otherwise HTTP/2 is spoken with prior knowledge.
	Dial func(context.Context) (net.Conn, error)
	TLS  bool

	MaxConns              int           // that take requests; 0: 64
	AcquireTimeout        time.Duration // of a request that waits for room on a connection; 0: none but its own
	IdleTimeout           time.Duration // of a connection without a request; 0: none
	MaxAge                time.Duration // after which a connection takes no more requests; 0: none
	ResponseHeaderTimeout time.Duration // from the end of a request; 0: none
	MaxHeaderBytes        int64         // of a response's header; 0: 64 KiB

	// Closed is told how long each connection has lived, once it is gone. It must not
	// block. Nil: nobody is.
	Closed func(lived time.Duration)

	PingAfter   time.Duration // silence after which a connection is asked whether it lives; 0: 310 s
	PingTimeout time.Duration // for its answer, and for a write that gets nowhere; 0: 5 s
}

// What is not said.
const (
	maxConns       = 64
	maxHeaderBytes = 64 << 10
	pingAfter      = 310 * time.Second // servers of gRPC take more than one in 5 minutes for an attack, and close the connection
	pingTimeout    = 5 * time.Second
)

// Errors of a transport, before anything is sent.
var (
	ErrClosed         = errors.New("the transport is closed")
	ErrAcquireTimeout = errors.New("the time to wait for a connection ran out")
	ErrNoHTTP2        = errors.New("the upstream does not speak HTTP/2")
	errNoConn         = errors.New("there is no connection")
	errNoRoom         = errors.New("the upstream closed the connection at once, or lets nothing be sent on it")
)

// Transport speaks HTTP/2 to one endpoint (RFC 9113) by way of net/http's
// client. Unlike [http.Transport] it sends nothing twice: whoever uses it learns
// that a request was refused, and decides. It is safe for concurrent use. Make it
// with NewTransport.
type Transport struct {
	client   *http.Transport
	scheme   string
	max      int
	maxAge   time.Duration
	patience time.Duration
	silence  time.Duration // that a connection may keep for requests whose clients leave
	ended    func(lived time.Duration)

	waiting atomic.Int64  // for a connection
	turn    chan struct{} // holds who is first in the line of those that wait
	changed chan struct{} // wakes it: a connection has room, or is gone
	dialing sync.WaitGroup

	mu       sync.Mutex
	conns    []*clientConn
	leaving  []*clientConn // that take no more requests, until they have none
	dial     *dial         // nil: none is under way
	failures uint64        // of dials
	failure  error         // the last one
	counts   Stats         // what only grows
	closed   bool
	retired  bool
}

// NewTransport makes a transport. It connects to nothing.
func NewTransport(c TransportConfig) *Transport {
	protocols := new(http.Protocols)
	t := &Transport{
		max: cmp.Or(max(c.MaxConns, 0), maxConns), maxAge: c.MaxAge, patience: c.AcquireTimeout, ended: c.Closed,
		silence: cmp.Or(c.PingTimeout, pingTimeout),
		turn:    make(chan struct{}, 1), changed: make(chan struct{}, 1),
		client: &http.Transport{
			Protocols:              protocols,
			DisableCompression:     true, // what the client asked for is what it gets
			IdleConnTimeout:        c.IdleTimeout,
			ResponseHeaderTimeout:  c.ResponseHeaderTimeout,
			ExpectContinueTimeout:  time.Second,
			MaxResponseHeaderBytes: cmp.Or(c.MaxHeaderBytes, maxHeaderBytes),
			HTTP2: &http.HTTP2Config{
				SendPingTimeout:  cmp.Or(c.PingAfter, pingAfter),
				PingTimeout:      cmp.Or(c.PingTimeout, pingTimeout),
				WriteByteTimeout: cmp.Or(c.PingTimeout, pingTimeout),
			},
		},
	}
	protocols.SetUnencryptedHTTP2(true) // is how net/http takes a connection for one of HTTP/2 without a look at it
	t.scheme = "http"
	t.client.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dialed(ctx)(c.Dial(ctx)) }
	if c.TLS {
		t.scheme = "https"
		t.client.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dialed(ctx)(dialTLS(ctx, c.Dial)) }
	}
	return t
}

// dialTLS connects, and insists on HTTP/2 (RFC 9113 §3.2).
func dialTLS(ctx context.Context, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	if secure, ok := conn.(*tls.Conn); ok {
		if err = secure.HandshakeContext(ctx); err == nil && secure.ConnectionState().NegotiatedProtocol == "h2" {
			return conn, nil
		}
	}
	_ = conn.Close()
	return nil, cmp.Or(err, ErrNoHTTP2)
}

// RoundTrip sends a request, once.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	c, reused, err := t.acquire(ctx)
	if err == nil {
		if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.GotConn != nil {
			trace.GotConn(httptrace.GotConnInfo{Conn: c.conn, Reused: reused})
		}
		var resp *http.Response
		start := c.asked()
		if resp, err = c.RoundTrip(req); err == nil {
			c.silent.Store(0)
			return resp, nil
		}
		late := timedOut(err) || timedOut(context.Cause(ctx))
		if (late || ctx.Err() != nil) && c.unresponsive(start, late, t.silence) {
			t.forsake(c)
		}
	}
	if req.Body != nil {
		_ = req.Body.Close() // again, maybe
	}
	return nil, err
}
