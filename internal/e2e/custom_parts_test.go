package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// unclosable is a content that panics when it is closed.
type unclosable struct{ io.Reader }

func (unclosable) Close() error { panic("it does not close") }

// answering is a round tripper that answers so.
func answering(status int, header http.Header, length int64, body func() io.ReadCloser) gateway.ServiceOption {
	return gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: header.Clone(), ContentLength: length, Body: body(), Request: r}, nil
	}))
}

// unfitConn is a connection that panics in some place.
type unfitConn struct {
	net.Conn
	where string
}

func (c unfitConn) at(where string) {
	if c.where == where {
		panic("no " + where)
	}
}

func (c unfitConn) Read(p []byte) (int, error)  { c.at("read"); return c.Conn.Read(p) }
func (c unfitConn) Write(p []byte) (int, error) { c.at("write"); return c.Conn.Write(p) }
func (c unfitConn) RemoteAddr() net.Addr        { c.at("address"); return c.Conn.RemoteAddr() }

func (c unfitConn) Close() error {
	err := c.Conn.Close()
	c.at("close")
	return err
}

func dialingUnfit(where string) gateway.ServiceOption {
	return gateway.WithDialContext(func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, address)
		return unfitConn{nc, where}, err
	})
}

func dialing(dial func() (net.Conn, error)) gateway.ServiceOption {
	return gateway.WithDialContext(func(context.Context, string, string) (net.Conn, error) { return dial() })
}

// replacing is a WithModifyResponse hook that puts another content in the place of
// the service's.
func replacing(body func() io.ReadCloser, err error) gateway.ServiceOption {
	return gateway.WithModifyResponse(func(r *http.Response) error {
		r.Body, r.ContentLength = body(), 5
		return err
	})
}

// What the app has given us may panic wherever it is called: the request fails,
// and nothing of it is left: no place, no connection, no attempt.
func TestPartsThatPanicLeaveNothing(t *testing.T) {
	const cut = 0
	hello := func() io.ReadCloser { return unclosable{strings.NewReader("hello")} }
	silent := func() io.ReadCloser { return panicking{} }
	stored := http.Header{"Cache-Control": {"max-age=60"}}
	abort := func() (net.Conn, error) { panic(http.ErrAbortHandler) }
	for _, tt := range []struct {
		what   string
		status int
		opts   []gateway.ServiceOption
	}{
		{"a round tripper", 500, []gateway.ServiceOption{gateway.WithTransport(roundTripper(func(*http.Request) (*http.Response, error) { panic("no") }))}},
		{"a round tripper that aborts", cut, []gateway.ServiceOption{gateway.WithTransport(roundTripper(func(*http.Request) (*http.Response, error) { panic(http.ErrAbortHandler) }))}},
		{"its content, closed", cut, []gateway.ServiceOption{answering(200, nil, 5, hello)}},
		{"its content, closed, hedged", cut, []gateway.ServiceOption{gateway.WithHedge(time.Minute), answering(200, nil, 5, hello)}},
		{"its content, closed, that is stored", cut, []gateway.ServiceOption{answering(200, stored, 5, hello)}},
		{"no content, closed", 500, []gateway.ServiceOption{answering(204, nil, 0, hello)}},
		{"its content, read", 500, []gateway.ServiceOption{answering(200, nil, 5, silent)}},
		{"its content, read, that is stored", 500, []gateway.ServiceOption{answering(200, stored, 5, silent)}},
		{"the content of a 503, closed", 500, []gateway.ServiceOption{answering(503, nil, 5, hello)}},
		{"the content of a 503, read", 500, []gateway.ServiceOption{answering(503, nil, 5, silent)}},
		{"the content beside an error", 500, []gateway.ServiceOption{gateway.WithTransport(roundTripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: hello()}, errors.New("both")
		}))}},
		{"a hook's content, closed", 200, []gateway.ServiceOption{gateway.WithMaxConns(1), replacing(hello, nil)}},
		{"a hook's content, closed after its error", 502, []gateway.ServiceOption{gateway.WithMaxConns(1), replacing(hello, errors.New("no"))}},
		{"a dial", 500, []gateway.ServiceOption{gateway.WithMaxConns(1), dialing(func() (net.Conn, error) { panic("no dial") })}},
		{"a dial that aborts", 500, []gateway.ServiceOption{gateway.WithMaxConns(1), dialing(abort)}}, // the connection may be for many requests
		{"a dial, HTTP/2", 500, []gateway.ServiceOption{gateway.WithHTTP2(), dialing(func() (net.Conn, error) { panic("no dial") })}},
		{"a dial that aborts, HTTP/2", 500, []gateway.ServiceOption{gateway.WithHTTP2(), dialing(abort)}},
		{"a dial that has nothing", 502, []gateway.ServiceOption{gateway.WithMaxConns(1), dialing(func() (net.Conn, error) { return nil, nil })}},
		{"a dial that has nothing, HTTP/2", 502, []gateway.ServiceOption{gateway.WithHTTP2(), dialing(func() (net.Conn, error) { return nil, nil })}},
		{"a connection, read", 500, []gateway.ServiceOption{gateway.WithMaxConns(1), dialingUnfit("read")}},
		{"a connection, written to", 500, []gateway.ServiceOption{gateway.WithMaxConns(1), dialingUnfit("write")}},
		{"a connection, asked for its address", 500, []gateway.ServiceOption{gateway.WithMaxConns(1), dialingUnfit("address")}},
		{"a connection, closed", cut, []gateway.ServiceOption{gateway.WithMaxConns(1), gateway.WithoutConnReuse(), dialingUnfit("close")}},
	} {
		for _, request := range []string{testnet.Get("/a/x"), testnet.Build("POST", "/a/x", strings.Repeat("b", 40<<10))} {
			method, _, _ := strings.Cut(request, " ")
			t.Run(tt.what+", "+method, func(t *testing.T) {
				r := newRig(t, setup{a: append(tt.opts, gateway.WithMaxConcurrency(1, 0, 0), gateway.WithTimeout(5*time.Second), quickRetries)})
				r.broken = true
				for range 3 {
					resp := r.do(request)
					if method == http.MethodGet || resp.Status != cut { // a content that comes beside the request's is not waited for
						require.Equal(t, tt.status, resp.Status, "%s", resp.Body)
					}
				}
				testnet.Settle(t, "nothing is left", func() bool {
					s := r.gw.Upstream("a").Stats()
					replica := s.Replicas[0]
					return s.InFlight == 0 && s.Queue.InUse == 0 && replica.InFlight == 0 && replica.Conns.InUse == 0
				})
			})
		}
	}
}

// A round tripper may have the client's connection aborted, also where it races
// with another.
func TestAbortOfAHedgedAttempt(t *testing.T) {
	for what, both := range map[string]bool{"alone": false, "with another": true} {
		t.Run(what, func(t *testing.T) {
			delay, second := time.Minute, make(chan struct{})
			if both {
				delay = time.Millisecond
			}
			var trips atomic.Int64
			r := newRig(t, setup{noCache: true, a: []gateway.ServiceOption{gateway.WithHedge(delay), gateway.WithTransport(roundTripper(func(*http.Request) (*http.Response, error) {
				if trips.Add(1) == 2 {
					close(second)
				} else if both {
					<-second
				}
				panic(http.ErrAbortHandler)
			}))}})
			assert.Zero(t, r.get("/a/x").Status)
			assert.Empty(t, r.logs.Find(t, "gateway: panic"))
		})
	}
}

// A round tripper may spell fields as it likes: what it says of the content's
// length is judged, and told to nobody who would believe it.
func TestLengthsInOddSpelling(t *testing.T) {
	body := func() io.ReadCloser { return io.NopCloser(strings.NewReader("hello")) }
	for _, tt := range []struct {
		header http.Header
		length int64
		status int
		stated string // to the client; empty: nothing
	}{
		{http.Header{"content-length": {"3"}}, -1, 200, ""},
		{http.Header{"content-length": {"30"}}, -1, 200, ""},
		{http.Header{"content-length": {"30"}}, 5, 200, "5"},
		{http.Header{"content-length": {"5"}}, 0, 200, "5"},
		{http.Header{"CONTENT-LENGTH": {"5"}, "Content-Length": {"5"}}, 5, 200, "5"},
		{http.Header{"content-length": {"5"}, "Content-Length": {"6"}}, 5, 502, ""},
		{http.Header{"content-length": {"five"}}, 5, 502, ""},
		{http.Header{"Content-Length ": {"3"}}, -1, 200, ""},
		{http.Header{"transfer-encoding": {"gzip, chunked"}}, 5, 200, "5"},
	} {
		t.Run(fmt.Sprint(tt.header, tt.length), func(t *testing.T) {
			r := newRig(t, setup{noCache: true, a: []gateway.ServiceOption{answering(200, tt.header, tt.length, body)}})
			resp := r.get("/a/x")
			require.Equal(t, tt.status, resp.Status, "%s", resp.Body)
			assert.Equal(t, testnet.Whole, resp.End)
			if tt.status == 200 {
				assert.Equal(t, "hello", string(resp.Body))
				assert.Equal(t, tt.stated, resp.Header.Get("Content-Length"))
			}
		})
	}
}
