package roundtrip

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// pipes is a listener inside a bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// bubble runs a test with a server in it, where time is exact: f gets an exchange
// that is closed later, and what to send it through.
func bubble(t *testing.T, h http.HandlerFunc, c TransportConfig, f func(t *testing.T, newExchange func() *Exchange, tr *Transport)) {
	synctest.Test(t, func(t *testing.T) {
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		ln := &pipes{make(chan net.Conn), make(chan struct{})}
		srv := &http.Server{Handler: h, Protocols: protocols}
		go srv.Serve(ln)
		defer srv.Close()
		if c.Dial == nil {
			c.Dial = ln.dial
		}
		tr := NewTransport(c)
		defer tr.Close()
		var all []*Exchange
		defer func() {
			for _, x := range all {
				x.Close()
			}
			synctest.Wait()
		}()
		f(t, func() *Exchange {
			x := &Exchange{Context: t.Context(), Method: "GET", URL: url.URL{Scheme: "http", Host: "up", Path: "/"}, Own: true}
			all = append(all, x)
			return x
		}, tr)
	})
}

// stalls answers, and then waits for the end of the request.
func stalls(beforeHead bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !beforeHead {
			io.WriteString(w, "first")
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	}
}

func TestTimes(t *testing.T) {
	for _, test := range []struct {
		name       string
		beforeHead bool
		set        func(x *Exchange, now time.Time)
		after      time.Duration
		want       TimeoutError
	}{
		{"head", true, func(x *Exchange, now time.Time) { x.Head = now.Add(3 * time.Second) }, 3 * time.Second, HeadTimeout},
		{"head before the end", true, func(x *Exchange, now time.Time) { x.Head, x.End = now.Add(3*time.Second), now.Add(4*time.Second) }, 3 * time.Second, HeadTimeout},
		{"end before the head", true, func(x *Exchange, now time.Time) { x.Head, x.End = now.Add(3*time.Second), now.Add(2*time.Second) }, 2 * time.Second, EndTimeout},
		{"end alone", true, func(x *Exchange, now time.Time) { x.End = now.Add(2 * time.Second) }, 2 * time.Second, EndTimeout},
		{"idle", false, func(x *Exchange, _ time.Time) { x.Idle = 5 * time.Second }, 5 * time.Second, IdleTimeout},
		{"idle before the end", false, func(x *Exchange, now time.Time) { x.Idle, x.End = 5*time.Second, now.Add(6*time.Second) }, 5 * time.Second, IdleTimeout},
		{"end of the content", false, func(x *Exchange, now time.Time) { x.Idle, x.End = 5*time.Second, now.Add(4*time.Second) }, 4 * time.Second, EndTimeout},
		{"the past", true, func(x *Exchange, now time.Time) { x.Head = now.Add(-time.Second) }, 0, HeadTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, stalls(test.beforeHead), TransportConfig{PingAfter: time.Hour}, func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
				x, start := newExchange(), time.Now()
				test.set(x, start)
				err := x.Do(tr)
				if !test.beforeHead {
					require.NoError(t, err)
					piece, first := x.Next()
					require.NoError(t, first)
					require.Equal(t, "first", string(piece))
					_, err = x.Next()
				}
				require.Equal(t, test.want, err)
				require.Equal(t, test.after, time.Since(start))
				require.True(t, test.want.Timeout())
			})
		})
	}
}

func TestSlowReaderOfContentIsNotIdle(t *testing.T) {
	h := func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 3*largeSize)) }
	bubble(t, h, TransportConfig{}, func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
		x := newExchange()
		x.Head, x.Idle = time.Now().Add(time.Second), time.Second
		require.NoError(t, x.Do(tr))
		for {
			time.Sleep(time.Minute)
			if _, err := x.Next(); err != nil {
				require.Equal(t, io.EOF, err)
				return
			}
		}
	})
}

func TestUploadThatIsNotTaken(t *testing.T) {
	bubble(t, stalls(true), TransportConfig{PingAfter: time.Hour}, func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
		x, start := newExchange(), time.Now()
		x.Method, x.Idle = "POST", 7*time.Second
		x.with(endless{})
		require.Equal(t, IdleTimeout, x.Do(tr))
		require.Equal(t, 7*time.Second, time.Since(start))
	})
}

// endless is a content without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestSlowUploadIsNotIdle(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }
	bubble(t, h, TransportConfig{PingAfter: time.Hour}, func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
		x := newExchange()
		x.Method, x.Idle = "POST", time.Minute
		r, w := io.Pipe()
		go func() {
			for range 3 {
				time.Sleep(40 * time.Second)
				io.WriteString(w, "piece ")
			}
			w.Close()
		}()
		x.with(r)
		require.NoError(t, x.Do(tr))
		require.Equal(t, "piece piece piece ", text(t, x))
	})
}

var errCut = errors.New("cut")

// Whatever is under way when an exchange is aborted ends at once, with the cause.
func TestAbort(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(x *Exchange, cancel context.CancelCauseFunc)
	}{
		{"Abort", func(x *Exchange, _ context.CancelCauseFunc) { x.Abort(errCut) }},
		{"its context", func(_ *Exchange, cancel context.CancelCauseFunc) { cancel(errCut) }},
	} {
		run := func(name string, h http.HandlerFunc, c TransportConfig, f func(t *testing.T, x *Exchange, tr *Transport) error) {
			t.Run(test.name+", "+name, func(t *testing.T) {
				bubble(t, h, c, func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
					x := newExchange()
					ctx, cancel := context.WithCancelCause(x.Context)
					defer cancel(nil)
					x.Context = ctx
					time.AfterFunc(time.Second, func() { test.end(x, cancel) })
					start := time.Now()
					require.Equal(t, errCut, f(t, x, tr))
					require.Equal(t, time.Second, time.Since(start))
				})
			})
		}
		do := func(_ *testing.T, x *Exchange, tr *Transport) error { return x.Do(tr) }
		content := func(read func(*Exchange) error) func(*testing.T, *Exchange, *Transport) error {
			return func(t *testing.T, x *Exchange, tr *Transport) error {
				require.NoError(t, x.Do(tr))
				_, err := x.Next()
				require.NoError(t, err)
				return read(x)
			}
		}
		upload := func(body io.Reader) func(*testing.T, *Exchange, *Transport) error {
			return func(_ *testing.T, x *Exchange, tr *Transport) error {
				x.Method = "POST"
				return x.with(body).Do(tr)
			}
		}
		quiet := TransportConfig{PingAfter: time.Hour}
		run("dialing", nil, TransportConfig{Dial: func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}, do)
		run("waiting for the head", stalls(true), quiet, do)
		run("in Next", stalls(false), quiet, content(func(x *Exchange) error { _, err := x.Next(); return err }))
		run("in More", stalls(false), quiet, content((*Exchange).More))
		run("in Read", stalls(false), quiet, content(func(x *Exchange) error { _, err := x.Read(make([]byte, 10)); return err }))
		run("uploading", stalls(true), quiet, upload(endless{}))
		run("waiting for content to upload", stalls(true), quiet, func(t *testing.T, x *Exchange, tr *Transport) error {
			r, w := io.Pipe()
			x.OnAborted = func() { w.Close() }
			return upload(r)(t, x, tr)
		})
	}
}

func TestAbortBeforeDo(t *testing.T) {
	bubble(t, stalls(true), TransportConfig{}, func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
		x := newExchange()
		x.Abort(errCut)
		x.Abort(errors.New("another"))
		closed := 0
		x.Body = body{http.NoBody, &closed}
		require.Equal(t, errCut, x.Do(tr))
		require.Equal(t, 1, closed)

		x = newExchange()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errCut)
		x.Context = ctx
		require.Equal(t, errCut, x.Do(tr))
	})
}

func TestFollow(t *testing.T) {
	bubble(t, stalls(false), TransportConfig{PingAfter: time.Hour}, func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
		x := newExchange()
		former, leave := context.WithCancel(t.Context())
		x.Context = former
		require.NoError(t, x.Do(tr))
		next, cancel := context.WithCancelCause(t.Context())
		x.Follow(next)
		leave()
		require.NoError(t, x.More())
		_, _ = x.Next()
		time.AfterFunc(time.Second, func() { cancel(errCut) })
		require.Equal(t, errCut, x.More())
		require.Equal(t, errCut, x.More())

		x = newExchange() // aborted between two reads
		x.Follow(t.Context())
		require.NoError(t, x.Do(tr))
		x.Abort(errCut)
		_, err := x.Next()
		require.Equal(t, errCut, err)
	})
}
