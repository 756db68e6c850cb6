package h1

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// How a content stands on the wire (RFC 9112 §6.3, §7.1).
func TestUploadOnTheWire(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 5<<10) // more than is written at once
	for _, tt := range []struct {
		name   string
		body   string
		length int64
		want   string // of the head
	}{
		{"short", "hello", 5, "Content-Length: 5\r\n"},
		{"long", large, int64(len(large)), "Content-Length: 81920\r\n"},
		{"nothing", "", 0, "Content-Length: 0\r\n"},
		{"short, in chunks", "hello", -1, "Transfer-Encoding: chunked\r\n"},
		{"long, in chunks", large, -1, "Transfer-Encoding: chunked\r\n"},
		{"nothing, in chunks", "", -1, "Transfer-Encoding: chunked\r\n"},
	} {
		for how, reader := range map[string]func(io.Reader) io.Reader{
			"whole":         func(r io.Reader) io.Reader { return r },
			"in halves":     iotest.HalfReader,
			"with its end":  iotest.DataErrReader,
			"byte by byte":  iotest.OneByteReader,
			"with nothings": func(r io.Reader) io.Reader { return &nothings{r: r} },
		} {
			both(t, func(t *testing.T, secure bool) {
				p := newPeer(t, secure, func(c *peerConn) {
					for {
						head := c.head()
						if head == "" {
							return
						}
						var got string
						switch {
						case strings.Contains(head, "chunked"):
							got = dechunk(c)
						case tt.length > 0:
							buf := make([]byte, tt.length)
							io.ReadFull(c.r, buf)
							got = string(buf)
						}
						if !strings.HasSuffix(head, "Host: up\r\n"+tt.want+"\r\n") || got != tt.body {
							t.Errorf("%q, %d bytes", head, len(got))
							return
						}
						c.send(okay)
					}
				})
				cl := p.client(t, Config{})
				for range 2 {
					x := newExchange(t, "PUT").with(reader(strings.NewReader(tt.body)), tt.length)
					require.NoError(t, cl.Do(x), "%s, %s", tt.name, how)
					text, err := content(x)
					require.NoError(t, err)
					require.Equal(t, "ok", text)
					x.Close()
					x.Uploads.Wait()
				}
				require.Equal(t, 1, p.accepted(), "the connection is used again")
			})
		}
	}
}

// nothings reads nothing every other time.
type nothings struct {
	r    io.Reader
	even bool
}

func (n *nothings) Read(p []byte) (int, error) {
	if n.even = !n.even; n.even {
		return 0, nil
	}
	return n.r.Read(p)
}

// dechunk reads chunks as strictly as can be; what is behind the last one has to
// be an empty line.
func dechunk(c *peerConn) string {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		var n int
		if _, scan := fmt.Sscanf(line, "%x\r\n", &n); scan != nil || err != nil || line != fmt.Sprintf("%x\r\n", n) {
			return "a bad size: " + line
		}
		data := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, data); err != nil || string(data[n:]) != "\r\n" {
			return "a bad chunk"
		}
		if n == 0 {
			return b.String()
		}
		b.Write(data[:n])
	}
}

func TestUploadTrailers(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		got := make(chan http.Header, 1)
		p := newPeer(t, secure, func(c *peerConn) {
			for {
				r, _ := c.request()
				if r == nil {
					return
				}
				got <- r.Trailer
				c.send(okay)
			}
		})
		cl := p.client(t, Config{})
		x := newExchange(t, "POST")
		x.Trailer = http.Header{"X-Sum": nil, "X-Bad": nil, "No Token": nil, "X-None": nil}
		x.with(io.MultiReader(strings.NewReader("content"), atEOF(func() {
			x.Trailer["X-Sum"] = []string{"1", "2"}
			x.Trailer["X-Bad"] = []string{"a\r\nb"}
			x.Trailer["No Token"] = []string{"x"}
		})), -1)
		require.NoError(t, cl.Do(x))
		require.Equal(t, http.Header{"X-Sum": {"1", "2"}, "X-Bad": nil, "X-None": nil}, <-got)
		x.Uploads.Wait() // a connection on which something may still be written is not kept
		_, err := content(x)
		require.NoError(t, err)
		x.Close()
		require.EqualValues(t, 1, cl.Stats().Idle)
	})
}

// atEOF is called when it is read.
type atEOF func()

func (f atEOF) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// The response is read while the content is still on its way.
func TestUploadAndResponseSideBySide(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		p := newPeer(t, secure, func(c *peerConn) {
			c.head()
			c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for {
				size, err := c.r.ReadString('\n')
				if err != nil {
					return
				}
				var n int
				fmt.Sscanf(size, "%x", &n)
				data := make([]byte, n+2)
				io.ReadFull(c.r, data)
				c.send(size + string(data)) // the same chunk
				if n == 0 {
					c.wait()
					return
				}
			}
		})
		cl := p.client(t, Config{})
		r, w := io.Pipe()
		x := newExchange(t, "POST").with(r, -1)
		require.NoError(t, cl.Do(x))
		for _, s := range []string{"one", "two", "three"} {
			io.WriteString(w, s)
			piece, err := x.Next()
			require.NoError(t, err)
			require.Equal(t, s, string(piece))
		}
		w.Close()
		text, err := content(x)
		require.NoError(t, err)
		require.Empty(t, text)
		x.Close()
		x.Uploads.Wait()
		require.EqualValues(t, 1, cl.Stats().Idle, "both have ended whole")
	})
}

// An early answer ends the content at once, and its connection with it (RFC 9112
// §9.3).
func TestEarlyAnswer(t *testing.T) {
	const refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"
	both(t, func(t *testing.T, secure bool) {
		for _, length := range []int64{-1, 1 << 30} {
			for how, script := range map[string]func(*peerConn){
				"stays":          func(c *peerConn) { c.head(); c.send(refusal); c.pause(time.Hour) },
				"goes":           func(c *peerConn) { c.head(); c.send(refusal); c.wait() },
				"reads and goes": func(c *peerConn) { c.head(); io.CopyN(io.Discard, c.r, 1<<20); c.send(refusal); c.wait() },
			} {
				cl := newPeer(t, secure, script).client(t, Config{})
				x := newExchange(t, "POST").with(ahead{}, length)
				begin := time.Now()
				require.NoError(t, cl.Do(x), how)
				require.Equal(t, 413, x.Status)
				text, err := content(x)
				require.NoError(t, err, how)
				require.Equal(t, "no", text)
				x.Close()
				x.Uploads.Wait()
				require.Less(t, time.Since(begin), time.Second, how)
				require.Zero(t, cl.Stats().Open, how)
			}
		}
	})
}

// ahead is content without end, as fast as it is taken.
type ahead struct{}

func (ahead) Read(p []byte) (int, error) { return len(p), nil }

// An answer that is there although the connection broke under the content is the
// answer (RFC 9112 §9.5).
func TestAnswerOfABrokenConnection(t *testing.T) {
	both(t, func(t *testing.T, secure bool) {
		cl := newPeer(t, secure, func(c *peerConn) {
			c.head()
			c.send("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
			if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
				half.CloseWrite()
			}
			c.pause(20 * time.Millisecond)
		}).client(t, Config{})
		x := newExchange(t, "POST").with(ahead{}, -1)
		require.NoError(t, cl.Do(x))
		require.Equal(t, 403, x.Status)
		x.Close()
		x.Uploads.Wait()
	})
}

// What a content fails with is what its exchange fails with, and nothing makes
// what was sent of it look complete.
func TestContentThatFails(t *testing.T) {
	large := strings.Repeat("x", 100<<10)
	for _, tt := range []struct {
		name   string
		body   func() io.Reader
		length int64
		want   error
		unsent bool // it is read before anything is sent
	}{
		{"at once", func() io.Reader { return iotest.ErrReader(errLeft) }, -1, errLeft, false},
		{"in between, in chunks", func() io.Reader { return io.MultiReader(strings.NewReader(large), iotest.ErrReader(errLeft)) }, -1, errLeft, false},
		{"in between", func() io.Reader { return io.MultiReader(strings.NewReader(large), iotest.ErrReader(errLeft)) }, 200 << 10, errLeft, false},
		{"too short", func() io.Reader { return strings.NewReader(large) }, 200 << 10, io.ErrUnexpectedEOF, false},
		{"too long", func() io.Reader { return strings.NewReader(large + "x") }, 100 << 10, errLong, false},
		{"a panic", func() io.Reader { return atEOF(func() { panic("app") }) }, -1, errPanic, false},
		{"short, too short", func() io.Reader { return strings.NewReader("x") }, 2, io.ErrUnexpectedEOF, true},
		{"short, too long", func() io.Reader { return strings.NewReader("xxx") }, 2, errLong, true},
		{"short, an error", func() io.Reader { return iotest.ErrReader(errLeft) }, 2, errLeft, true},
	} {
		both(t, func(t *testing.T, secure bool) {
			rest := make(chan string, 1)
			p := newPeer(t, secure, func(c *peerConn) {
				c.head()
				all, _ := io.ReadAll(c.r)
				rest <- string(all)
			})
			cl := p.client(t, Config{})
			x := newExchange(t, "PUT").with(tt.body(), tt.length)
			err := cl.Do(x)
			require.ErrorIs(t, err, tt.want, tt.name)
			var broken *BrokenError
			require.NotErrorAs(t, err, &broken, "%s: it is not the connection's fault", tt.name)
			x.Close()
			x.Uploads.Wait()
			if tt.unsent {
				require.Zero(t, p.accepted(), tt.name)
				return
			}
			got := <-rest
			require.False(t, strings.HasSuffix(got, "0\r\n\r\n"), tt.name)
			require.Less(t, int64(len(got)), max(tt.length+1, 110<<10), tt.name)
			require.Zero(t, cl.Stats().Open, tt.name)
		})
	}
}

// asked is a content that notes when it was read.
type asked struct {
	io.Reader
	at atomic.Pointer[time.Time]
}

func (a *asked) Read(p []byte) (int, error) {
	now := time.Now()
	a.at.CompareAndSwap(nil, &now)
	return a.Reader.Read(p)
}

// Expect: 100-continue (RFC 9110 §10.1.1).
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	const refusal = "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno"
	read := func(c *peerConn) string { return dechunk(c) }
	for _, tt := range []struct {
		name   string
		script func(c *peerConn, head string)
		status int           // 0: Do fails
		after  time.Duration // the content is read; negative: never
	}{
		{"100", func(c *peerConn, _ string) {
			c.pause(300 * time.Millisecond)
			c.send("HTTP/1.1 100 Continue\r\n\r\n")
			if read(c) == "content" {
				c.send(okay)
			}
		}, 200, 300 * time.Millisecond},
		{"another interim response", func(c *peerConn, _ string) {
			c.send("HTTP/1.1 103 Early Hints\r\n\r\n")
			if read(c) == "content" {
				c.send(okay)
			}
		}, 200, time.Second},
		{"silence", func(c *peerConn, _ string) {
			if read(c) == "content" {
				c.send(okay)
			}
		}, 200, time.Second},
		{"an answer", func(c *peerConn, _ string) {
			c.pause(300 * time.Millisecond)
			c.send(refusal)
			c.wait()
		}, 417, -1},
		{"the end", func(c *peerConn, _ string) { c.pause(300 * time.Millisecond) }, 0, -1},
		{"the end of time", func(c *peerConn, _ string) { c.wait() }, 0, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, cl := pipes(t, Config{}, func(c *peerConn) {
					if head := c.head(); strings.Contains(head, "Expect: 100-continue\r\n") {
						tt.script(c, head)
					}
				})
				begin := time.Now()
				body := &asked{Reader: strings.NewReader("content")}
				x := newExchange(t, "POST").with(body, -1)
				x.Fields = http.Header{"Expect": {"100-continue"}}
				if tt.name == "the end of time" {
					x.Head = begin.Add(500 * time.Millisecond)
				}
				x.Observer = new(interims)
				err := cl.Do(x)
				require.Equal(t, tt.status == 0, err != nil, err)
				require.Equal(t, tt.status, x.Status)
				x.Close()
				x.Uploads.Wait()
				if at := body.at.Load(); tt.after < 0 {
					require.Nil(t, at, "nobody wanted it")
				} else {
					require.Equal(t, tt.after, at.Sub(begin))
				}
				synctest.Wait()
				require.Zero(t, cl.Stats().InUse)
			})
		})
	}
}

// An upload may go on after its exchange: whoever counts it waits.
func TestUploadsAreCounted(t *testing.T) {
	t.Parallel()
	p := newPeer(t, false, func(c *peerConn) { c.head(); c.send(okay); c.wait() })
	cl := p.client(t, Config{})
	r, w := io.Pipe()
	uploads := new(sync.WaitGroup)
	x := newExchange(t, "POST").with(r, -1)
	x.Uploads = uploads
	require.NoError(t, cl.Do(x))
	text, err := content(x)
	require.NoError(t, err)
	require.Equal(t, "ok", text)
	x.Close()
	require.Zero(t, cl.Stats().Open)
	done := make(chan struct{})
	go func() { uploads.Wait(); close(done) }()
	select {
	case <-done:
		require.Fail(t, "the content is still being read")
	case <-time.After(20 * time.Millisecond):
	}
	w.CloseWithError(errLeft)
	<-done
}

// halves is a connection that takes half of what is written, and says no word of it.
type halves struct{ net.Conn }

func (h halves) Write(p []byte) (int, error) { return h.Conn.Write(p[:(len(p)+1)/2]) }

// What a connection does not take is not sent, whatever it says.
func TestShortWrites(t *testing.T) {
	t.Parallel()
	p := newPeer(t, false, func(c *peerConn) { c.wait() })
	for name, x := range map[string]*Exchange{
		"a request":           newExchange(t, "GET"),
		"a content":           newExchange(t, "POST").with(strings.NewReader(strings.Repeat("x", 100_000)), 100_000),
		"a content of chunks": newExchange(t, "POST").with(strings.NewReader(strings.Repeat("x", 100_000)), -1),
	} {
		taken := 0
		cl := p.client(t, Config{Pool: PoolConfig{Dial: func(ctx context.Context) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, "tcp", p.ln.Addr().String())
			if taken++; name == "a request" {
				return halves{nc}, err
			}
			return &laterHalves{Conn: nc}, err
		}}})
		err := cl.Do(x)
		var broken *BrokenError
		require.ErrorAs(t, err, &broken, name)
		require.False(t, broken.Unsent)
		x.Close()
		x.Uploads.Wait()
		require.Equal(t, 1, taken)
	}
}

// laterHalves is halves from the second write on.
type laterHalves struct {
	net.Conn
	written int
}

func (h *laterHalves) Write(p []byte) (int, error) {
	if h.written++; h.written > 1 {
		return halves{h.Conn}.Write(p)
	}
	return h.Conn.Write(p)
}
