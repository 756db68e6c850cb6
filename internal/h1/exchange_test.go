package h1

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRequestOnTheWire(t *testing.T) {
	t.Parallel()
	heads := make(chan string, 1)
	p := newPeer(t, false, func(c *peerConn) {
		for {
			head := c.head()
			if head == "" {
				return
			}
			heads <- head
			c.send(okay)
		}
	})
	keeps, closes := p.client(t, Config{}), p.client(t, Config{Pool: PoolConfig{NoReuse: true}})
	for _, tt := range []struct {
		name string
		cl   *Client
		x    *Exchange
		want string // "": it is refused
	}{
		{"GET", keeps, &Exchange{Method: "GET", Path: "/a%2Fb", Host: "up:1"}, "GET /a%2Fb HTTP/1.1\r\nHost: up:1\r\n\r\n"},
		{"a query", keeps, &Exchange{Method: "GET", Path: "/", Query: "a=b?c", Host: "up"}, "GET /?a=b?c HTTP/1.1\r\nHost: up\r\n\r\n"},
		{"an empty query", keeps, &Exchange{Method: "GET", Path: "/", ForceQuery: true, Host: "up"}, "GET /? HTTP/1.1\r\nHost: up\r\n\r\n"},
		{"no content where some is common (RFC 9110 §8.6)", keeps, &Exchange{Method: "POST", Path: "/", Host: "up"}, "POST / HTTP/1.1\r\nHost: up\r\nContent-Length: 0\r\n\r\n"},
		{"no user agent", keeps, &Exchange{Method: "GET", Path: "/", Host: "up", Fields: http.Header{"User-Agent": {""}}}, "GET / HTTP/1.1\r\nHost: up\r\n\r\n"},
		{"a connection for this alone (RFC 9112 §9.6)", closes, &Exchange{Method: "GET", Path: "/", Host: "up"}, "GET / HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n"},
		{"codings (RFC 9110 §10.1.4)", keeps, &Exchange{Method: "GET", Path: "/", Host: "up", Fields: http.Header{"Te": {"trailers"}}}, "GET / HTTP/1.1\r\nHost: up\r\nTe: trailers\r\nConnection: TE\r\n\r\n"},
		{"codings, on a connection for this alone", closes, &Exchange{Method: "GET", Path: "/", Host: "up", Fields: http.Header{"Te": {"trailers"}}}, "GET / HTTP/1.1\r\nHost: up\r\nTe: trailers\r\nConnection: close, TE\r\n\r\n"},
		{"a method that is no token", keeps, &Exchange{Method: "GE T", Path: "/", Host: "up"}, ""},
		{"no path", keeps, &Exchange{Method: "GET", Host: "up"}, ""},
		{"a space in the path", keeps, &Exchange{Method: "GET", Path: "/a b", Host: "up"}, ""},
		{"a line end in the query", keeps, &Exchange{Method: "GET", Path: "/", Query: "a\r\nX: y", Host: "up"}, ""},
		{"no host", keeps, &Exchange{Method: "GET", Path: "/"}, ""},
		{"a line end in the host", keeps, &Exchange{Method: "GET", Path: "/", Host: "up\r\nX: y"}, ""},
		{"a name that is no token", keeps, &Exchange{Method: "GET", Path: "/", Host: "up", Fields: http.Header{"X:": {"y"}}}, ""},
		{"a line end in a value", keeps, &Exchange{Method: "GET", Path: "/", Host: "up", Fields: http.Header{"X": {"y\r\nZ: z"}}}, ""},
		{"NUL in a value", keeps, &Exchange{Method: "GET", Path: "/", Host: "up", Fields: http.Header{"X": {"\x00"}}}, ""},
	} {
		x := tt.x
		x.Context = t.Context()
		before := tt.cl.Stats()
		err := tt.cl.Do(x)
		if tt.want == "" {
			require.ErrorIs(t, err, ErrRequest, tt.name)
			require.Equal(t, before, tt.cl.Stats(), "nothing is sent")
			x.Close()
			continue
		}
		require.NoError(t, err, tt.name)
		require.Equal(t, tt.want, <-heads, tt.name)
		x.Close()
	}
}

func TestInterimResponses(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		const hint = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
		p := newPeer(t, secure, answering("HTTP/1.1 100 Continue\r\n\r\n"+hint+hint+okay))
		cl := p.client(t, Config{})
		x, seen := newExchange(t, "GET"), &interims{}
		x.Observer = seen
		require.NoError(t, cl.Do(x))
		require.Equal(t, []int{100, 103, 103}, seen.seen)
		require.Equal(t, http.Header{"Link": {"</x>"}}, seen.header[1])
		require.Equal(t, http.Header{"Content-Length": {"2"}}, x.Header, "they leave nothing behind")
		x.Close()

		for most := 1; most <= 3; most++ { // whoever is told of them may have had enough
			x := newExchange(t, "GET")
			x.Observer = &interims{most: most}
			require.ErrorIs(t, cl.Do(x), io.ErrShortBuffer)
			x.Close()
			require.Zero(t, cl.Stats().Open)
		}
		require.Equal(t, "ok", fetch(t, cl), "they need not be told to anybody")
	})
}

// steps is a Progress that remembers.
type steps struct{ seen []Step }

func (s *steps) Reached(step Step) { s.seen = append(s.seen, step) }

func TestProgress(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		p := newPeer(t, secure, answering(okay))
		cl := p.client(t, Config{Pool: PoolConfig{Max: 1, AcquireTimeout: time.Millisecond}})
		do := func(fails error, want ...Step) *Exchange {
			x, told := newExchange(t, "GET"), &steps{}
			x.Progress = told
			require.ErrorIs(t, cl.Do(x), fails)
			require.Equal(t, want, told.seen)
			return x
		}
		first := do(nil, StepDial, StepAnswer)
		do(ErrAcquireTimeout, StepPool).Close()
		first.Close()
		do(nil, StepDial, StepAnswer).Close() // the first was not read to its end
		require.Equal(t, "ok", fetch(t, cl))
		do(nil, StepAnswer).Close() // on a connection that was idle
	})
}

// Whoever has waited for a connection and gets one that was used does not wait for a new one.
func TestProgressOfWhoWaits(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		p := newPeer(t, secure, answering(okay))
		cl := p.client(t, Config{Pool: PoolConfig{Max: 1}})
		first := newExchange(t, "GET")
		require.NoError(t, cl.Do(first))
		second, told := newExchange(t, "GET"), &steps{}
		second.Progress = told
		answered := make(chan error)
		go func() { answered <- cl.Do(second) }()
		settle(t, "the second waits", func() bool { return cl.Stats().Waiting == 1 })
		_, err := content(first)
		require.NoError(t, err)
		first.Close()
		require.NoError(t, <-answered)
		require.Equal(t, []Step{StepPool, StepAnswer}, told.seen)
		second.Close()
	})
}

// Interim responses without end are bounded by the time to the header, though
// nobody counts them.
func TestEndlessInterimResponses(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		p := newPeer(t, secure, func(c *peerConn) {
			c.head()
			for c.send("HTTP/1.1 102 Processing\r\n\r\n") {
			}
		})
		cl := p.client(t, Config{})
		x := newExchange(t, "GET")
		x.Head = time.Now().Add(50 * time.Millisecond)
		require.ErrorIs(t, cl.Do(x), HeadTimeout) // in a slow handshake, too
		x.Close()
		require.Zero(t, cl.Stats().Open)
	})
}

func TestResponseHeadIsBounded(t *testing.T) {
	const start = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: "
	const end = "\r\n\r\n"
	sized := func(n int) string { return start + strings.Repeat("x", n-len(start)-len(end)) + end + "ok" }
	fields := func(n int) string {
		return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + strings.Repeat("X: y\r\n", n-1) + "\r\nok"
	}
	both(t, func(t *testing.T, secure bool) {
		for _, tt := range []struct {
			name  string
			limit int
			raw   string
			want  error
		}{
			{"all that is allowed", 1000, sized(1000), nil},
			{"a byte more", 1000, sized(1001), errHeadTooLarge},
			{"all of 64 KiB", 0, sized(64 << 10), nil},
			{"a byte more than 64 KiB", 0, sized(64<<10 + 1), errHeadTooLarge},
			{"9 MiB", 0, sized(9 << 20), errHeadTooLarge},
			{"more than a buffer, where more is allowed", 1 << 20, sized(100 << 10), errHeadTooLarge},
			{"200 fields", 0, fields(200), nil},
			{"201 fields", 0, fields(201), errFields},
			{"interim responses of 64 KiB each", 0, strings.Repeat("HTTP/1.1 103 H\r\nX: "+strings.Repeat("x", 65000)+end, 5) + okay, nil},
		} {
			p := newPeer(t, secure, answering(tt.raw))
			cl := p.client(t, Config{Head: tt.limit})
			x := newExchange(t, "GET")
			err := cl.Do(x)
			x.Close()
			if tt.want == nil {
				require.NoError(t, err, tt.name)
				continue
			}
			require.ErrorIs(t, err, tt.want, tt.name)
			require.Zero(t, cl.Stats().Open, tt.name)
		}
	})
}

// What broke says whether the upstream can have seen anything, and whether it
// had begun to answer.
func TestWhatIsKnownOfABrokenConnection(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		for _, tt := range []struct {
			name   string
			script func(*peerConn)
			heard  bool
		}{
			{"closed after the request", func(c *peerConn) { c.head() }, false},
			{"reset after the request", func(c *peerConn) { c.head(); c.reset() }, false},
			{"closed in the header", func(c *peerConn) { c.head(); c.send("HTTP/1.1 2") }, true},
			{"closed after an interim response and a bit", func(c *peerConn) { c.head(); c.send("HTTP/1.1 103 H\r\n\r\nHTTP") }, true},
		} {
			p := newPeer(t, secure, tt.script)
			cl := p.client(t, Config{})
			x := newExchange(t, "GET")
			var broken *BrokenError
			require.ErrorAs(t, cl.Do(x), &broken, tt.name)
			require.Equal(t, tt.heard, broken.Heard, tt.name)
			require.False(t, broken.Unsent, "%s: it was sent", tt.name)
			require.False(t, broken.Reused, tt.name)
			x.Close()
			require.Equal(t, 1, p.accepted(), "nothing is sent twice")
			require.EqualValues(t, 1, cl.Stats().Discards[DiscardError], tt.name)
		}
	})
}

// What the kernel did not take nobody has seen. Of what TLS took that cannot be
// said.
func TestUnsent(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		for _, length := range []int64{0, 100, 100_000} {
			there, gone := make(chan struct{}), make(chan struct{})
			p := newPeer(t, secure, func(c *peerConn) {
				if nc, ok := c.Conn.(*tls.Conn); ok {
					nc.Handshake()
				}
				<-there // or the reset may meet the dial
				c.reset()
				close(gone)
			})
			dial := (&Dialer{Network: "tcp", Address: p.ln.Addr().String(), TLS: p.secure}).Dial
			cl := p.client(t, Config{Pool: PoolConfig{Dial: func(ctx context.Context) (net.Conn, error) {
				nc, err := dial(ctx)
				close(there)
				<-gone
				return nc, err
			}}})
			x := newExchange(t, "POST").with(strings.NewReader(strings.Repeat("b", int(length))), length)
			err := cl.Do(x)
			x.Close()
			x.Uploads.Wait()
			var broken *BrokenError
			require.ErrorAs(t, err, &broken)
			require.Equal(t, !secure, broken.Unsent, "%d bytes: %v", length, err)
			require.False(t, broken.Heard || broken.Reused)
		}
	})
}

// A connection that was used before and breaks once the request is written: it
// may have been seen, and is not sent again.
func TestUsedConnectionThatBreaks(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		p := newPeer(t, secure, func(c *peerConn) {
			c.head()
			c.send(okay)
			c.head()
		})
		cl := p.client(t, Config{})
		require.Equal(t, "ok", fetch(t, cl))
		x := newExchange(t, "GET")
		var broken *BrokenError
		require.ErrorAs(t, cl.Do(x), &broken)
		require.True(t, broken.Reused && !broken.Unsent && !broken.Heard)
		x.Close()
		require.Equal(t, 1, p.accepted())
	})
}

// A connection that died while it was idle is found by a look, and another one
// carries the request: to a caller nothing has happened.
func TestIdleConnectionsThatDied(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		for _, how := range []string{"closed", "reset"} {
			for _, body := range []int{0, 10, 100_000} {
				die, died := make(chan struct{}), make(chan struct{}, 2)
				var dead int
				p := newPeer(t, secure, func(c *peerConn) {
					if _, got := c.request(); len(got) > 0 && len(got) != body {
						return
					}
					c.send(okay)
					if c.id >= 2 {
						c.wait()
						return
					}
					<-die
					if how == "reset" {
						c.reset()
					}
					c.Close()
					died <- struct{}{}
				})
				cl := p.client(t, Config{Pool: PoolConfig{Max: 2}})
				first, second := newExchange(t, "GET"), newExchange(t, "GET")
				require.NoError(t, cl.Do(first))
				require.NoError(t, cl.Do(second))
				for _, x := range []*Exchange{first, second} {
					_, err := content(x)
					require.NoError(t, err)
					x.Close()
				}
				close(die)
				<-died
				<-died
				x := newExchange(t, "PUT")
				if body > 0 {
					x.with(strings.NewReader(strings.Repeat("b", body)), -1)
				}
				require.NoError(t, cl.Do(x), "%s, %d bytes", how, body)
				text, err := content(x)
				require.NoError(t, err)
				require.Equal(t, "ok", text)
				x.Close()
				x.Uploads.Wait()
				s := cl.Stats()
				require.EqualValues(t, 2, s.Discards[DiscardClosed], "%s, %d bytes: %v", how, body, s)
				require.Equal(t, 3, p.accepted())
				require.Zero(t, dead)
			}
		}
	})
}

// What came on an idle connection is no answer: the next request goes elsewhere,
// and whoever had the last response hears of it.
func TestSurplusOnAnIdleConnection(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		more, sent := make(chan struct{}), make(chan struct{})
		p := newPeer(t, secure, func(c *peerConn) {
			if c.id > 0 {
				answering(okay)(c)
				return
			}
			c.head()
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
			<-more
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
			close(sent)
			c.wait()
		})
		cl := p.client(t, Config{})
		x, told := newExchange(t, "GET"), 0
		x.OnSurplus(func() { told++ })
		require.NoError(t, cl.Do(x))
		text, err := content(x)
		require.NoError(t, err)
		require.Equal(t, "first", text)
		x.Close()
		require.False(t, x.Surplus())
		close(more)
		<-sent
		require.Equal(t, "ok", fetch(t, cl))
		require.Equal(t, 1, told)
		require.EqualValues(t, 1, cl.Stats().Discards[DiscardSurplus])
	})
}

// stage is how far an exchange is when it is ended from outside.
type stage struct {
	name   string
	script func(*peerConn)
	dial   func(context.Context) (net.Conn, error) // nil: to the script
	busy   bool                                    // all connections are in use
	begun  bool                                    // Do returns
	upload bool
}

// again sends a head, and then piece after piece.
func again(d time.Duration, head, piece string) func(*peerConn) {
	return func(c *peerConn) {
		c.head()
		for c.send(head); c.send(piece) && c.pause(d); {
		}
	}
}

var stages = []stage{
	{name: "a dial", dial: func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }},
	{name: "a place in the pool", script: (*peerConn).wait, busy: true},
	{name: "the header", script: (*peerConn).wait},
	{name: "the header's end", script: again(time.Hour, "HTTP/1.1 200 OK\r\n", "X: ")},
	{name: "the header that trickles", script: again(time.Millisecond, "HTTP/1.1 200 OK\r\nX: ", "x")},
	{name: "the header after interim responses", script: again(time.Millisecond, "", "HTTP/1.1 102 Processing\r\n\r\n")},
	{name: "content", script: again(time.Hour, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", ""), begun: true},
	{name: "more content", script: again(time.Hour, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"), begun: true},
	{name: "content that trickles", script: again(time.Millisecond, "HTTP/1.1 200 OK\r\n\r\n", "x"), begun: true},
	{name: "the header, while content is sent", script: (*peerConn).wait, upload: true},
	{name: "the header, while content is not taken", script: func(c *peerConn) { c.head(); c.pause(time.Hour) }, upload: true},
	{name: "the request to be taken", script: func(c *peerConn) { c.pause(time.Hour) }},
}

// endless is content without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	<-time.After(100 * time.Microsecond) // a bubble's clock stands still while all are busy
	return len(p), nil
}

var errLeft = errors.New("left")

// end has an exchange come to the stage, ends it from outside, and says how long
// that took.
func (s stage) end(t *testing.T, cl *Client, how string) time.Duration {
	if s.busy {
		other := newExchange(t, "GET")
		waited := make(chan error)
		go func() { waited <- cl.Do(other) }()
		defer func() {
			other.Abort(errLeft)
			<-waited
			other.Close()
		}()
		settle(t, "all are in use", func() bool { return cl.Stats().InUse == 1 })
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	x := newExchange(t, "POST")
	if s.upload {
		x.with(endless{}, -1)
	}
	if how == "context" {
		x.Context = ctx
	}
	if s.begun {
		require.NoError(t, cl.Do(x))
		if how == "Follow" {
			x.Follow(ctx)
		}
	}
	ended := make(chan time.Time, 1)
	time.AfterFunc(50*time.Millisecond, func() {
		ended <- time.Now()
		if how == "Abort" {
			x.Abort(errLeft)
		} else {
			cancel(errLeft)
		}
	})
	var err error
	if !s.begun {
		err = cl.Do(x)
	}
	for err == nil {
		_, err = x.Next()
	}
	took := time.Since(<-ended)
	require.ErrorIs(t, err, errLeft)
	x.Close()
	x.Uploads.Wait()
	return took
}

// left checks that nothing is.
func (s stage) left(t *testing.T, cl *Client) {
	stats := cl.Stats()
	require.Equal(t, [4]int64{}, [4]int64{stats.Open, stats.Idle, stats.InUse, stats.Waiting})
	require.True(t, cl.pool.slots.TryAcquire(1), "a slot is lost")
}

// Whatever an exchange waits for: when it is ended from outside it ends within
// 20 ms, with the cause, and leaves nothing behind.
func TestCancellation(t *testing.T) {
	t.Parallel()
	for _, s := range stages {
		for _, how := range []string{"context", "Abort", "Follow"} {
			if how == "Follow" && !s.begun {
				continue
			}
			t.Run(s.name+", "+how, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					_, cl := pipes(t, Config{Pool: PoolConfig{Dial: s.dial}}, s.script)
					require.LessOrEqual(t, s.end(t, cl, how), 20*time.Millisecond)
					s.left(t, cl)
				})
			})
		}
	}
}

// The same over sockets, where time is the machine's.
func TestCancellationOverSockets(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		for _, s := range stages {
			for _, how := range []string{"context", "Abort", "Follow"} {
				if how == "Follow" && !s.begun {
					continue
				}
				t.Run(s.name+", "+how, func(t *testing.T) {
					t.Parallel()
					cl := newPeer(t, secure, s.script).client(t, Config{Pool: PoolConfig{Dial: s.dial}})
					require.Less(t, s.end(t, cl, how), time.Second)
					s.left(t, cl)
				})
			}
		}
	})
}

// Each time of an exchange ends it when it is over, and not before.
func TestTimes(t *testing.T) {
	t.Parallel()
	slow := func(c *peerConn) { c.head(); c.pause(time.Hour) }
	const sized = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
	for _, tt := range []struct {
		name   string
		script func(*peerConn)
		set    func(x *Exchange, now time.Time)
		want   TimeoutError
		after  time.Duration
	}{
		{"the header", slow, func(x *Exchange, now time.Time) { x.Head = now.Add(time.Second) }, HeadTimeout, time.Second},
		{"the header that trickles", again(time.Millisecond, "HTTP/1.1 200 OK\r\nX: ", "x"), func(x *Exchange, now time.Time) { x.Head = now.Add(time.Second) }, HeadTimeout, time.Second},
		{"the header after interim responses", again(time.Millisecond, "", "HTTP/1.1 102 P\r\n\r\n"), func(x *Exchange, now time.Time) { x.Head = now.Add(time.Second) }, HeadTimeout, time.Second},
		{"the response", slow, func(x *Exchange, _ time.Time) { x.Response = time.Second }, ResponseTimeout, time.Second},
		{"the response, later than the header", slow, func(x *Exchange, now time.Time) { x.Head, x.Response = now.Add(time.Second), 2*time.Second }, HeadTimeout, time.Second},
		{"the response, once the content is sent", (*peerConn).wait, func(x *Exchange, _ time.Time) {
			x.Response = time.Second
			x.with(&slowly{pieces: 3, each: time.Second}, -1)
		}, ResponseTimeout, 4 * time.Second},
		{"the end, before the header", slow, func(x *Exchange, now time.Time) { x.Head, x.End = now.Add(time.Minute), now.Add(time.Second) }, EndTimeout, time.Second},
		{"the end alone, before the header", slow, func(x *Exchange, now time.Time) { x.End = now.Add(time.Second) }, EndTimeout, time.Second},
		{"the first content", again(time.Hour, sized, ""), func(x *Exchange, _ time.Time) { x.Idle = time.Second }, IdleTimeout, time.Second},
		{"more content", again(600*time.Millisecond, sized, "x"), func(x *Exchange, now time.Time) { x.Idle, x.End = time.Second, now.Add(10*time.Second) }, EndTimeout, 10 * time.Second},
		{"content, until the end", again(time.Hour, sized, "x"), func(x *Exchange, now time.Time) { x.Idle, x.End = time.Minute, now.Add(time.Second) }, EndTimeout, time.Second},
		{"the header, while content is not taken", slow, func(x *Exchange, now time.Time) {
			x.Head, x.Idle = now.Add(time.Second), time.Minute
			x.with(endless{}, -1)
		}, HeadTimeout, time.Second},
		{"the end, while content is not taken", slow, func(x *Exchange, now time.Time) {
			x.End, x.Idle = now.Add(time.Second), time.Minute
			x.with(endless{}, -1)
		}, EndTimeout, time.Second},
		{"the request to be taken", func(c *peerConn) { c.pause(time.Hour) }, func(x *Exchange, now time.Time) { x.Head, x.Idle = now.Add(time.Second), time.Minute }, HeadTimeout, time.Second},
		{"the request's content to be taken", slow, func(x *Exchange, _ time.Time) {
			x.Idle = time.Second
			x.with(endless{}, -1)
		}, IdleTimeout, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, cl := pipes(t, Config{}, tt.script)
				x := newExchange(t, "POST")
				x.Head, x.Idle = time.Time{}, 0
				begin := time.Now()
				tt.set(x, begin)
				err := cl.Do(x)
				for err == nil {
					_, err = x.Next()
				}
				require.Equal(t, tt.want, err)
				took := time.Since(begin)
				require.GreaterOrEqual(t, took, tt.after)
				require.LessOrEqual(t, took, tt.after+5*time.Millisecond)
				x.Close()
				x.Uploads.Wait()
				require.Zero(t, cl.Stats().Open)
			})
		})
	}
}

// slowly is content that takes its time.
type slowly struct {
	pieces int
	each   time.Duration
}

func (s *slowly) Read(p []byte) (int, error) {
	if s.pieces == 0 {
		return 0, io.EOF
	}
	s.pieces--
	time.Sleep(s.each) // in a synctest bubble
	return copy(p, "piece"), nil
}

// The deadline by which a context is looked after may pass before anything is
// written, where there are too few processors: that is no time of the exchange's.
func TestHeldUpBeforeTheWrite(t *testing.T) {
	t.Parallel()
	cl := newPeer(t, false, answering(okay)).client(t, Config{})
	for range 3 {
		require.Equal(t, "ok", fetch(t, cl))
		c := cl.pool.idle[0]
		c.armed = time.Now().Add(slack) // and yet:
		require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
	}
	require.Equal(t, "ok", fetch(t, cl))

	x := newExchange(t, "GET")
	c := cl.pool.idle[0]
	c.armed = time.Now().Add(slack)
	require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
	x.Head = time.Now().Add(time.Millisecond)
	<-time.After(2 * time.Millisecond)
	require.ErrorIs(t, cl.Do(x), HeadTimeout)
	x.Close()
	require.Zero(t, cl.Stats().Open)
}

// A response may take longer than each of its pieces.
func TestIdleTimeBeginsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, cl := pipes(t, Config{}, again(900*time.Millisecond, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "x"))
		x := newExchange(t, "GET")
		x.Idle = time.Second
		require.NoError(t, cl.Do(x))
		text, err := content(x)
		require.NoError(t, err)
		require.Equal(t, "xxxxxxxxxx", text)
		x.Close()
	})
}

// A context that ends once the response is complete, or that is no longer
// followed, ends nothing.
func TestContextThatEndsTooLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, cl := pipes(t, Config{}, again(100*time.Millisecond, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "x"))
		ctx, cancel := context.WithCancel(t.Context())
		x := newExchange(t, "GET")
		x.Context = ctx
		require.NoError(t, cl.Do(x))
		require.NoError(t, x.More())
		x.Follow(t.Context())
		cancel()
		text, err := content(x)
		require.NoError(t, err)
		require.Equal(t, "xxx", text)
		x.Close()
		require.EqualValues(t, 1, cl.Stats().Idle)
	})
}

func TestContextThatHasEnded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errLeft)
	p := newPeer(t, false, answering(okay))
	cl := p.client(t, Config{})
	x := newExchange(t, "GET")
	x.Context = ctx
	require.ErrorIs(t, cl.Do(x), errLeft)
	x.Close()
	aborted := newExchange(t, "GET")
	aborted.Abort(errLeft)
	require.ErrorIs(t, cl.Do(aborted), errLeft)
	aborted.Close()
	require.Zero(t, cl.Stats().Open)
}

func TestClosedClient(t *testing.T) {
	t.Parallel()
	cl := newPeer(t, false, answering(okay)).client(t, Config{})
	x := newExchange(t, "GET")
	require.NoError(t, cl.Do(x))
	cl.Close()
	text, err := content(x)
	require.NoError(t, err)
	require.Equal(t, "ok", text)
	x.Close()
	require.Zero(t, cl.Stats().Open)
	again := newExchange(t, "GET")
	require.ErrorIs(t, cl.Do(again), ErrClosed)
	again.Close()
}

// Abort may come at any time, from any goroutine: the exchange ends whole or with
// its cause, and no connection goes back that somebody has aborted.
func TestAbortAtAnyTime(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		script := func(c *peerConn) {
			for {
				r, got := c.request()
				if r == nil || !c.send(fmt.Sprintf("HTTP/1.1 103 H\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", len(got)+2)) ||
					!c.send(got) || !c.send("ok\r\n0\r\n\r\n") {
					return
				}
			}
		}
		cl := newPeer(t, secure, script).client(t, Config{Pool: PoolConfig{Max: 4}})
		var all sync.WaitGroup
		for w := range 8 {
			all.Go(func() {
				for i := range 60 {
					useAborted(t, cl, (w+i)%5, time.Duration(i*i)*time.Microsecond/4)
				}
			})
		}
		all.Wait()
		s := cl.Stats()
		require.Zero(t, s.InUse)
		require.Zero(t, s.Waiting)
		for range 4 {
			require.Equal(t, "ok", fetch(t, cl))
		}
	})
}

// useAborted is an exchange of one of several kinds that is aborted after a while
// by two goroutines at once.
func useAborted(t *testing.T, cl *Client, kind int, after time.Duration) {
	x, want := newExchange(t, "POST"), "ok"
	if kind%2 == 1 {
		body := strings.Repeat("b", kind*20_000)
		want = body + want
		x.with(strings.NewReader(body), -1)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	x.Context = ctx
	var aborts sync.WaitGroup
	for _, abort := range []func(error){x.Abort, cancel} {
		aborts.Go(func() {
			<-time.After(after)
			abort(errLeft)
		})
	}
	text, err := "", cl.Do(x)
	if err == nil {
		text, err = content(x)
	}
	if err == nil && text != want {
		t.Errorf("%d bytes, want %d", len(text), len(want))
	}
	if err != nil && !errors.Is(err, errLeft) {
		t.Error(err)
	}
	x.Close()
	x.Uploads.Wait()
	aborts.Wait()
}

// unsound is a connection that panics when it is interrupted, or closed.
type unsound struct{ net.Conn }

func (u unsound) SetDeadline(time.Time) error { panic("it has none for both") }

func (u unsound) Close() error {
	_ = u.Conn.Close()
	panic("it does not close")
}

// A connection of the app's may panic on goroutines that are nobody's.
func TestConnectionThatPanicsAside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, cl := pipes(t, Config{}, func(c *peerConn) {
			if c.head() != "" && c.id == 0 {
				c.send(okay)
			}
			c.wait()
		})
		dial := cl.pool.Dial
		cl.pool.Dial = func(ctx context.Context) (net.Conn, error) {
			nc, err := dial(ctx)
			return unsound{nc}, err
		}
		require.Equal(t, "ok", fetch(t, cl))
		cl.Retire() // the idle one
		require.Zero(t, cl.Stats().Open)

		x := newExchange(t, "GET")
		ctx, cancel := context.WithCancel(t.Context())
		x.Context, x.Head = ctx, time.Now().Add(time.Minute)
		time.AfterFunc(time.Second, cancel)
		require.ErrorIs(t, cl.Do(x), context.Canceled)
		require.Panics(t, x.Close, "on the goroutine of whoever uses it")
		require.Zero(t, cl.Stats().InUse)
		require.Equal(t, 2, p.accepted())
	})
}
