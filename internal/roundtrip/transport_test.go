package roundtrip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// limited is a bubble's server that allows so many streams on a connection.
func limited(t *testing.T, streams int, h http.HandlerFunc, c TransportConfig, f func(t *testing.T, newExchange func() *Exchange, tr *Transport, dials *atomic.Int64)) {
	synctest.Test(t, func(t *testing.T) {
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		ln := &pipes{make(chan net.Conn), make(chan struct{})}
		srv := &http.Server{Handler: h, Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streams}}
		go srv.Serve(ln)
		defer srv.Close()
		var dials atomic.Int64
		c.PingAfter = time.Hour
		c.Dial = func(ctx context.Context) (net.Conn, error) {
			dials.Add(1)
			return ln.dial(ctx)
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
			x := &Exchange{Context: t.Context(), Method: "GET", Own: true}
			x.URL.Scheme, x.URL.Host, x.URL.Path = "http", "up", "/"
			all = append(all, x)
			return x
		}, tr, &dials)
	})
}

func TestRequestsShareOneConnection(t *testing.T) {
	h := func(http.ResponseWriter, *http.Request) { time.Sleep(time.Second) }
	limited(t, 50, h, TransportConfig{}, func(t *testing.T, newExchange func() *Exchange, tr *Transport, dials *atomic.Int64) {
		var all sync.WaitGroup
		for range 40 {
			x := newExchange()
			all.Go(func() {
				if err := x.Do(tr); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.Equal(t, int64(1), dials.Load())
	})
}

// Of those who wait for room the first in line gets it.
func TestWaitersAreServedInOrder(t *testing.T) {
	h := func(http.ResponseWriter, *http.Request) { time.Sleep(time.Second) }
	limited(t, 1, h, TransportConfig{MaxConns: 2}, func(t *testing.T, newExchange func() *Exchange, tr *Transport, dials *atomic.Int64) {
		require.NoError(t, newExchange().Do(tr)) // from here on the limit is known of the first connection
		start := time.Now()
		var mu sync.Mutex
		var order []string
		var all sync.WaitGroup
		for i := range 6 {
			x := newExchange()
			all.Go(func() {
				if err := x.Do(tr); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, fmt.Sprint(i/2, " after ", time.Since(start).Round(time.Second)))
			})
			time.Sleep(time.Millisecond)
		}
		all.Wait()
		require.Equal(t, []string{"0 after 1s", "0 after 1s", "1 after 2s", "1 after 2s", "2 after 3s", "2 after 3s"}, order)
		require.Equal(t, int64(2), dials.Load())
	})
}

func TestWaiterEndsByItsOwnDeadline(t *testing.T) {
	h := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	limited(t, 1, h, TransportConfig{MaxConns: 1}, func(t *testing.T, newExchange func() *Exchange, tr *Transport, _ *atomic.Int64) {
		first, second, third := newExchange(), newExchange(), newExchange()
		first.Head = time.Now().Add(9 * time.Second)
		var all sync.WaitGroup
		defer all.Wait()
		all.Go(func() { _ = first.Do(tr) })
		time.Sleep(time.Second)
		all.Go(func() { // holds the line's first place
			second.Head = time.Now().Add(5 * time.Second)
			if err := second.Do(tr); err != HeadTimeout {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		start := time.Now()
		third.Head = start.Add(2 * time.Second)
		require.Equal(t, HeadTimeout, third.Do(tr))
		require.Equal(t, 2*time.Second, time.Since(start))
	})
}

func TestAcquireTimeout(t *testing.T) {
	h := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	limited(t, 1, h, TransportConfig{MaxConns: 1, AcquireTimeout: 3 * time.Second}, func(t *testing.T, newExchange func() *Exchange, tr *Transport, _ *atomic.Int64) {
		first := newExchange()
		var all sync.WaitGroup
		defer all.Wait()
		all.Go(func() { _ = first.Do(tr) })
		synctest.Wait()
		start := time.Now()
		for range 4 { // whatever their place in line
			x := newExchange()
			all.Go(func() {
				if err := x.Do(tr); !errors.Is(err, ErrAcquireTimeout) || time.Since(start) != 3*time.Second {
					t.Error(err, time.Since(start))
				}
			})
		}
		synctest.Wait()
		require.Equal(t, Stats{Open: 1, InUse: 1, InFlight: 1, Waiting: 4, Dials: 1}, tr.Stats())
		time.Sleep(4 * time.Second)
		require.Equal(t, Stats{Open: 1, InUse: 1, InFlight: 1, Dials: 1, Waits: 4, WaitTime: 12 * time.Second, AcquireTimeouts: 4}, tr.Stats())
		first.Abort(errCut)
	})
}

func TestMaxAge(t *testing.T) {
	h := func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			time.Sleep(time.Minute)
		}
	}
	limited(t, 50, h, TransportConfig{MaxAge: 10 * time.Second}, func(t *testing.T, newExchange func() *Exchange, tr *Transport, dials *atomic.Int64) {
		long := newExchange()
		long.URL.Path = "/long"
		var all sync.WaitGroup
		all.Go(func() {
			if err := long.Do(tr); err != nil { // it may end where it began
				t.Error(err)
			}
		})
		for range 3 {
			require.NoError(t, newExchange().Do(tr))
			time.Sleep(6 * time.Second)
		}
		require.Equal(t, int64(2), dials.Load())
		s := tr.Stats()
		require.Equal(t, []int64{2, 1, 1, 1}, []int64{s.Open, s.InUse, s.Idle, s.InFlight}, "the old one goes on until its request has ended")
		require.EqualValues(t, 1, s.Aged)
		all.Wait()
		synctest.Wait()
		require.EqualValues(t, 1, tr.Stats().Open)
		tr.Close()
		s = tr.Stats()
		require.Equal(t, []uint64{1, 1, 0}, []uint64{s.Aged, s.Shut, s.Ended})
		require.Zero(t, s.Open)
	})
}

// However a connection ends, it is told once for how long it was there.
func TestLivesAreTold(t *testing.T) {
	for name, end := range map[string]func(tr *Transport){
		"closed":        func(tr *Transport) { tr.Close() },
		"retired":       func(tr *Transport) { tr.Retire() },
		"idle":          func(*Transport) { time.Sleep(time.Minute) },
		"by the server": func(*Transport) {},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var lived []time.Duration
			c := TransportConfig{IdleTimeout: 30 * time.Second, Closed: func(d time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				lived = append(lived, d)
			}}
			h := func(w http.ResponseWriter, _ *http.Request) {
				if name == "by the server" {
					w.Header().Set("Connection", "close")
				}
			}
			limited(t, 50, h, c, func(t *testing.T, newExchange func() *Exchange, tr *Transport, _ *atomic.Int64) {
				require.NoError(t, newExchange().Do(tr))
				time.Sleep(10 * time.Second)
				mu.Lock()
				if name != "by the server" {
					assert.Empty(t, lived)
				}
				mu.Unlock()
				end(tr)
				tr.Close()
				time.Sleep(time.Hour)
				mu.Lock()
				defer mu.Unlock()
				require.Len(t, lived, 1)
				want := map[string]time.Duration{"closed": 10 * time.Second, "retired": 10 * time.Second, "idle": 30 * time.Second}[name]
				if want != 0 {
					require.Equal(t, want, lived[0])
				}
			})
		})
	}
}

func TestIdleTimeout(t *testing.T) {
	limited(t, 50, func(http.ResponseWriter, *http.Request) {}, TransportConfig{IdleTimeout: 10 * time.Second}, func(t *testing.T, newExchange func() *Exchange, tr *Transport, dials *atomic.Int64) {
		require.NoError(t, newExchange().Do(tr))
		time.Sleep(9 * time.Second)
		require.NoError(t, newExchange().Do(tr))
		require.Equal(t, int64(1), dials.Load())
		time.Sleep(11 * time.Second)
		require.Equal(t, Stats{Dials: 1, Reuses: 1, Ended: 1}, tr.Stats(), "before anybody comes by")
		require.NoError(t, newExchange().Do(tr))
		require.Equal(t, int64(2), dials.Load())
		require.Equal(t, Stats{Open: 1, Idle: 1, Dials: 2, Reuses: 1, Ended: 1}, tr.Stats())
	})
}

func TestResponseHeaderTimeout(t *testing.T) {
	limited(t, 50, stalls(true), TransportConfig{ResponseHeaderTimeout: 3 * time.Second}, func(t *testing.T, newExchange func() *Exchange, tr *Transport, _ *atomic.Int64) {
		start := time.Now()
		err := newExchange().Do(tr)
		var late net.Error
		require.ErrorAs(t, err, &late)
		require.True(t, late.Timeout())
		require.Equal(t, 3*time.Second, time.Since(start))
		var broken *BrokenError
		require.ErrorAs(t, err, &broken)
		require.False(t, broken.Unsent)
	})
}

// A connection over which nothing came while a request's time ran out, or while
// several clients lost their patience, may be dead: others do not try it.
func TestUnresponsiveConnections(t *testing.T) {
	answers := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
	}
	for _, test := range []struct {
		name  string
		do    func(t *testing.T, newExchange func() *Exchange, tr *Transport)
		dials int64 // with the one of a request afterwards
	}{
		{"a time that runs out", func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
			require.ErrorIs(t, slow(newExchange(), 3*time.Second).Do(tr), HeadTimeout)
		}, 2},
		{"and that of the transport", func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
			require.Error(t, slow(newExchange(), time.Hour).Do(tr))
		}, 2},
		{"a time that runs out beside others", func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
			x, ended := slow(newExchange(), 3*time.Second), make(chan error, 1)
			go func() { ended <- x.Do(tr) }()
			time.Sleep(time.Second)
			require.NoError(t, newExchange().Do(tr))
			require.ErrorIs(t, <-ended, HeadTimeout)
		}, 1},
		{"a client that leaves soon", func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
			leave(t, slow(newExchange(), time.Hour), tr, 2*time.Second)
		}, 1},
		{"one that leaves late", func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
			leave(t, slow(newExchange(), time.Hour), tr, 6*time.Second)
		}, 2},
		{"many that leave soon", func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
			for range 3 {
				leave(t, slow(newExchange(), time.Hour), tr, 2*time.Second)
			}
		}, 2},
		{"many that leave soon, and an answer", func(t *testing.T, newExchange func() *Exchange, tr *Transport) {
			for range 6 {
				leave(t, slow(newExchange(), time.Hour), tr, 2*time.Second)
				require.NoError(t, newExchange().Do(tr))
			}
		}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			limited(t, 50, answers, TransportConfig{ResponseHeaderTimeout: 30 * time.Second}, func(t *testing.T, newExchange func() *Exchange, tr *Transport, dials *atomic.Int64) {
				test.do(t, newExchange, tr)
				require.NoError(t, newExchange().Do(tr))
				require.Equal(t, test.dials, dials.Load())
				require.Equal(t, Stats{Open: 1, Idle: 1, Dials: uint64(test.dials), Reuses: tr.Stats().Reuses, Ended: uint64(test.dials) - 1}, tr.Stats())
			})
		})
	}
}

// slow makes x one that is not answered.
func slow(x *Exchange, limit time.Duration) *Exchange {
	x.URL.Path, x.Head = "/slow", time.Now().Add(limit)
	return x
}

// leave has the client of x leave after a while.
func leave(t *testing.T, x *Exchange, tr *Transport, after time.Duration) {
	var cancel context.CancelFunc
	x.Context, cancel = context.WithTimeoutCause(t.Context(), after, context.Canceled)
	defer cancel()
	require.ErrorIs(t, x.Do(tr), context.Canceled)
}

// Servers of gRPC close a connection that is asked more often than every five minutes
// whether it lives, while no message of theirs goes out.
func TestPingsAreRare(t *testing.T) {
	var pings atomic.Int64
	ln := &pipes{make(chan net.Conn), make(chan struct{})}
	c := TransportConfig{Dial: func(ctx context.Context) (net.Conn, error) {
		conn, err := ln.dial(ctx)
		return pinging{conn, &pings}, err
	}}
	synctest.Test(t, func(t *testing.T) {
		ln.conns, ln.done = make(chan net.Conn), make(chan struct{}) // of the bubble
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		srv := &http.Server{Handler: stalls(true), Protocols: protocols}
		go srv.Serve(ln)
		defer srv.Close()
		tr := NewTransport(c)
		defer tr.Close()
		x := &Exchange{Context: t.Context(), Method: "GET", URL: url.URL{Scheme: "http", Host: "up", Path: "/"}, Own: true, Head: time.Now().Add(time.Hour)}
		defer x.Close()
		require.ErrorIs(t, x.Do(tr), HeadTimeout)
		require.InDelta(t, 11, pings.Load(), 1)
	})
}

// pinging counts the pings that are written.
type pinging struct {
	net.Conn
	n *atomic.Int64
}

func (p pinging) Write(b []byte) (int, error) {
	if len(b) == 17 && b[3] == framePing && b[4] == 0 {
		p.n.Add(1)
	}
	return p.Conn.Write(b)
}

func TestClose(t *testing.T) {
	h := func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Second)
		io.WriteString(w, "done")
	}
	limited(t, 50, h, TransportConfig{}, func(t *testing.T, newExchange func() *Exchange, tr *Transport, _ *atomic.Int64) {
		x := newExchange()
		var all sync.WaitGroup
		defer all.Wait()
		all.Go(func() {
			if err := x.Do(tr); err != nil {
				t.Error(err)
			}
			if got, err := io.ReadAll(x); err != nil || string(got) != "done" {
				t.Error(string(got), err)
			}
		})
		synctest.Wait()
		tr.Close()
		tr.Close()
		err := newExchange().Do(tr)
		require.ErrorIs(t, err, ErrClosed)
		var broken *BrokenError
		require.ErrorAs(t, err, &broken)
		require.True(t, broken.Unsent)
	})
}

func TestDialErrors(t *testing.T) {
	refusal := &net.OpError{Op: "dial", Err: errors.New("refused")}
	for _, test := range []struct {
		name string
		tls  bool
		dial func(context.Context) (net.Conn, error)
		want error
	}{
		{"refused", false, func(context.Context) (net.Conn, error) { return nil, refusal }, refusal},
		{"refused, TLS", true, func(context.Context) (net.Conn, error) { return nil, refusal }, refusal},
		{"a panic", false, func(context.Context) (net.Conn, error) { panic("app") }, errPanic},
		{"not TLS", true, func(context.Context) (net.Conn, error) { c, _ := net.Pipe(); return c, nil }, ErrNoHTTP2},
		{"closed at once", false, func(context.Context) (net.Conn, error) { c, _ := net.Pipe(); c.Close(); return c, nil }, io.ErrClosedPipe},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := NewTransport(TransportConfig{TLS: test.tls, Dial: test.dial})
			defer tr.Close()
			x := (&upstream{}).exchange(t, "POST", "/")
			x.URL.Scheme, x.URL.Host = tr.scheme, "up"
			closed := false
			x.Body, x.Length = &closes{func() { closed = true }}, -1
			err := x.Do(tr)
			require.ErrorIs(t, err, test.want)
			var broken *BrokenError
			require.ErrorAs(t, err, &broken)
			require.True(t, broken.Unsent)
			require.True(t, closed)
		})
	}
}

// closes is a content that tells of its closing.
type closes struct{ f func() }

func (c *closes) Read([]byte) (int, error) { return 0, io.EOF }
func (c *closes) Close() error             { c.f(); return nil }

func TestServerWithoutHTTP2(t *testing.T) {
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	defer certified.Close()
	ln := listen(t)
	for name, protos := range map[string][]string{"no ALPN": nil, "HTTP/1.1 only": {"http/1.1"}} {
		t.Run(name, func(t *testing.T) {
			var serving sync.WaitGroup
			defer serving.Wait()
			serving.Go(func() {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				tls.Server(conn, &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: protos}).Handshake()
			})
			tr := NewTransport(TransportConfig{TLS: true, Dial: func(ctx context.Context) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
				return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}), err
			}})
			defer tr.Close()
			x := (&upstream{}).exchange(t, "GET", "/")
			x.URL.Scheme, x.URL.Host = "https", "up"
			require.ErrorIs(t, x.Do(tr), ErrNoHTTP2)
		})
	}
}

// Who waited while a dial failed does not dial once more, one after the other.
func TestFailedDialIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		tr := NewTransport(TransportConfig{Dial: func(ctx context.Context) (net.Conn, error) {
			dials.Add(1)
			select {
			case <-time.After(10 * time.Second):
				return nil, errCut
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}})
		start := time.Now()
		var all sync.WaitGroup
		do := func(ctx context.Context, want error, after time.Duration) {
			x := &Exchange{Context: ctx, Method: "GET", Own: true}
			x.URL.Scheme, x.URL.Host = "http", "up"
			all.Go(func() {
				defer x.Close()
				if err := x.Do(tr); !errors.Is(err, want) || time.Since(start) != after {
					t.Error(err, time.Since(start))
				}
			})
			synctest.Wait()
		}
		gone, leave := context.WithCancel(t.Context())
		do(gone, context.Canceled, 4*time.Second)
		for range 20 {
			do(t.Context(), errCut, 10*time.Second)
		}
		time.Sleep(4 * time.Second)
		leave() // which does not end the dial
		all.Wait()
		require.Equal(t, int64(1), dials.Load())
		require.Equal(t, Stats{Dials: 1, DialErrors: 1, Waits: 20, WaitTime: 200 * time.Second}, tr.Stats())
		tr.Close()
	})
}

func TestManyAtOnce(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			u := serve(t, scheme, h)
			tr := u.transport(t, TransportConfig{MaxConns: 3, MaxAge: 5 * time.Millisecond})
			var all sync.WaitGroup
			for i := range 16 {
				all.Go(func() {
					for j := range 40 {
						x := &Exchange{Context: t.Context(), Method: "POST", URL: u.url, Own: true, Idle: time.Minute}
						if (i+j)%5 == 0 {
							x.Head = time.Now().Add(200 * time.Microsecond)
						}
						x.with(io.LimitReader(endless{}, 100_000))
						err := x.Do(tr)
						if err == nil && (i+j)%3 != 0 {
							_, err = io.Copy(io.Discard, x)
						}
						x.Close()
						if err != nil && err != HeadTimeout {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
		})
	}
}

// A dial that takes longer than its request may is not in vain.
func TestDialOutlivesItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &pipes{make(chan net.Conn), make(chan struct{})}
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), Protocols: protocols}
		go srv.Serve(ln)
		defer srv.Close()
		tr := NewTransport(TransportConfig{Dial: func(ctx context.Context) (net.Conn, error) {
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			return ln.dial(ctx)
		}})
		defer tr.Close()
		results := make([]error, 3)
		for i := range results {
			x := &Exchange{Context: t.Context(), Method: "GET", Own: true, Head: time.Now().Add(2 * time.Second)}
			x.URL.Scheme, x.URL.Host = "http", "up"
			results[i] = x.Do(tr)
			x.Close()
		}
		require.Equal(t, []error{HeadTimeout, HeadTimeout, nil}, results)
		require.Equal(t, Stats{Open: 1, Idle: 1, Dials: 1}, tr.Stats())
	})
}

func TestCloseEndsDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := NewTransport(TransportConfig{Dial: func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		x := &Exchange{Context: t.Context(), Method: "GET", Own: true}
		x.URL.Scheme, x.URL.Host = "http", "up"
		defer x.Close()
		done := make(chan error, 1)
		go func() { done <- x.Do(tr) }()
		synctest.Wait()
		tr.Close()
		require.ErrorIs(t, <-done, ErrClosed)
	})
}

// Who comes to a retired transport has a connection of its own, which ends with
// the request; those that were there go on.
func TestRetire(t *testing.T) {
	h := func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Second)
		io.WriteString(w, "done")
	}
	limited(t, 50, h, TransportConfig{}, func(t *testing.T, newExchange func() *Exchange, tr *Transport, dials *atomic.Int64) {
		var all sync.WaitGroup
		run := func() {
			x := newExchange()
			all.Go(func() {
				defer x.Close()
				if err := x.Do(tr); err != nil {
					t.Error(err)
				}
				if got, err := io.ReadAll(x); err != nil || string(got) != "done" {
					t.Error(string(got), err)
				}
			})
			synctest.Wait()
		}
		run()
		tr.Retire()
		tr.Retire()
		run()
		run()
		require.EqualValues(t, 3, dials.Load())
		all.Wait()
		synctest.Wait()
		s := tr.Stats()
		require.Zero(t, s.Open)
		require.EqualValues(t, 3, s.Shut)
	})
}

// One who has waited for a dial, and whose connection is let go of before it has a
// request, has another.
func TestRetireTakesNobodysConnection(t *testing.T) {
	u := serve(t, "http", func(http.ResponseWriter, *http.Request) {})
	for range 100 {
		tr := u.transport(t, TransportConfig{})
		var all sync.WaitGroup
		for range 4 {
			x := u.exchange(t, "GET", "/")
			all.Go(func() {
				defer x.Close()
				if err := x.Do(tr); err != nil {
					t.Error(err)
				}
			})
		}
		for tr.Stats().Dials == 0 {
			runtime.Gosched()
		}
		tr.Retire()
		all.Wait()
	}
}

// A dial that outlasts the last who waited for it leaves nothing open, once the
// transport is retired.
func TestRetireWhileDialing(t *testing.T) {
	for name, retire := range map[string]time.Duration{"before its client leaves": time.Second, "after that": 3 * time.Second, "once it is there": 6 * time.Second} {
		t.Run(name, func(t *testing.T) {
			limited(t, 50, func(http.ResponseWriter, *http.Request) {}, TransportConfig{}, func(t *testing.T, newExchange func() *Exchange, tr *Transport, dials *atomic.Int64) {
				dial := tr.client.DialContext
				tr.client.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
					time.Sleep(5 * time.Second)
					return dial(ctx, network, address)
				}
				x := newExchange()
				ctx, leave := context.WithTimeout(t.Context(), 2*time.Second)
				defer leave()
				x.Context = ctx
				time.AfterFunc(retire, tr.Retire)
				require.Error(t, x.Do(tr))
				require.True(t, tr.Dialing())
				time.Sleep(10 * time.Second)
				require.False(t, tr.Dialing())
				require.EqualValues(t, 1, dials.Load())
				s := tr.Stats()
				require.Zero(t, s.Open)
				require.EqualValues(t, 1, s.Shut)
			})
		})
	}
}
