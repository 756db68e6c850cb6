package roundtrip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// caller returns an exchange through a round tripper of the caller's.
func caller(t testing.TB, method string) *Exchange {
	x := &Exchange{Context: t.Context(), Method: method, URL: url.URL{Scheme: "http", Host: "up", Path: "/"}}
	t.Cleanup(x.Close)
	return x
}

// body is a response's content that counts its closings.
type body struct {
	io.Reader
	closed *int
}

func (b body) Close() error {
	*b.closed++
	return nil
}

// reads gives each piece and then err.
func reads(err error, pieces ...string) func() io.Reader {
	return func() io.Reader {
		var all []io.Reader
		for _, piece := range pieces {
			all = append(all, strings.NewReader(piece))
		}
		return io.MultiReader(append(all, iotest.ErrReader(err))...)
	}
}

// always reads so.
func always(n func(p []byte) (int, error)) func() io.Reader {
	return func() io.Reader { return reader(n) }
}

func TestResponsesOfRoundTrippers(t *testing.T) {
	length := http.Header{"Content-Length": {"5"}}
	for _, test := range []struct {
		name    string
		resp    http.Response
		read    func() io.Reader // nil: no Body
		length  int64
		framed  bool
		content string
		err     error // of the content; nil: io.EOF
	}{
		{"nothing but a status", http.Response{StatusCode: 200}, nil, 0, true, "", nil},
		{"a length", http.Response{StatusCode: 200, ContentLength: 5, Header: length}, reads(io.EOF, "he", "llo"), 5, true, "hello", nil},
		{"no length stated", http.Response{StatusCode: 200}, reads(io.EOF, "hello"), -1, true, "hello", nil},
		{"unknown length in HTTP/1.0", http.Response{StatusCode: 200, ContentLength: -1, ProtoMajor: 1}, reads(io.EOF, "hello"), -1, false, "hello", nil},
		{"unknown length in HTTP/2", http.Response{StatusCode: 200, ContentLength: -1, ProtoMajor: 2}, reads(io.EOF, "hello"), -1, true, "hello", nil},
		{"chunked", http.Response{StatusCode: 200, ContentLength: -1, ProtoMajor: 1, TransferEncoding: []string{"chunked"}}, reads(io.EOF, "hello"), -1, true, "hello", nil},
		{"an impossible length", http.Response{StatusCode: 200, ContentLength: -7}, reads(io.EOF, "hello"), -1, false, "hello", nil},
		{"a content that is too short", http.Response{StatusCode: 200, ContentLength: 5, Header: length}, reads(io.EOF, "hell"), 5, true, "hell", io.ErrUnexpectedEOF},
		{"a content that is too long", http.Response{StatusCode: 200, ContentLength: 5, Header: length}, reads(io.EOF, "hello", "!"), 5, true, "hello", ProtocolError("the content is longer than its Content-Length")},
		{"a content that breaks off", http.Response{StatusCode: 200, ContentLength: -1}, reads(errCut, "hello"), -1, false, "hello", errCut},
		{"nothing, for ever", http.Response{StatusCode: 200, ContentLength: -1}, always(func([]byte) (int, error) { return 0, nil }), -1, false, "", io.ErrNoProgress},
		{"more than there is room for", http.Response{StatusCode: 200, ContentLength: -1}, always(func(p []byte) (int, error) { return len(p) + 1, nil }), -1, false, "", ProtocolError("an impossible count from Read")},
		{"less than nothing", http.Response{StatusCode: 200, ContentLength: -1}, always(func([]byte) (int, error) { return -1, nil }), -1, false, "", ProtocolError("an impossible count from Read")},
		{"a length that is in the header only", http.Response{StatusCode: 200, Header: length.Clone()}, reads(io.EOF, "hello"), 5, true, "hello", nil},
		{"a content that was changed", http.Response{StatusCode: 200, ContentLength: -1, ProtoMajor: 2, Header: length.Clone()}, reads(io.EOF, "hello!"), -1, true, "hello!", nil},
		{"a content that was changed, to a known length", http.Response{StatusCode: 200, ContentLength: 6, Header: length.Clone()}, reads(io.EOF, "hello!"), 6, true, "hello!", nil},
		{"204 with a length", http.Response{StatusCode: 204, ContentLength: 5, Header: length.Clone()}, reads(io.EOF, "hello"), 0, true, "", nil},
		{"204 with content", http.Response{StatusCode: 204, ContentLength: -1}, reads(io.EOF, "hello"), 0, true, "", nil},
		{"304 with content", http.Response{StatusCode: 304, ContentLength: 5, Header: length}, reads(io.EOF, "hello"), 5, true, "", nil},
		{"a status that is none", http.Response{StatusCode: 42, ContentLength: -1}, reads(io.EOF, "hello"), -1, false, "hello", nil}, // for others to judge
		{"content and its end at once", http.Response{StatusCode: 200, ContentLength: 5, Header: length}, func() io.Reader { return iotest.DataErrReader(strings.NewReader("hello")) }, 5, true, "hello", nil},
	} {
		for _, read := range []string{"Next", "Read"} {
			t.Run(test.name+", "+read, func(t *testing.T) {
				resp, closed := test.resp, 0
				resp.Header = resp.Header.Clone()
				if test.read != nil {
					resp.Body = body{test.read(), &closed}
				}
				x := caller(t, "GET")
				require.NoError(t, x.Do(roundTripper(func(*http.Request) (*http.Response, error) { return &resp, nil })))
				require.Equal(t, resp.StatusCode, x.Status)
				require.NotNil(t, x.Header)
				require.Equal(t, test.length, x.ContentLength)
				require.Equal(t, test.framed, x.Framed)
				if field := x.Header.Get("Content-Length"); field != "" {
					require.Equal(t, strconv.FormatInt(test.length, 10), field)
				} else {
					require.True(t, test.length <= 0 || test.resp.Header == nil)
				}
				var got []byte
				var err error
				for err == nil {
					if read == "Next" {
						var piece []byte
						piece, err = x.Next()
						got = append(got, piece...)
					} else {
						p := make([]byte, 3)
						var n int
						n, err = x.Read(p)
						got = append(got, p[:n]...)
					}
				}
				want := test.err
				if want == nil {
					want = io.EOF
				}
				require.ErrorIs(t, err, want)
				require.Equal(t, test.content, string(got))
				x.Close()
				if test.read != nil {
					require.Equal(t, 1, closed)
				}
			})
		}
	}
}

func TestRoundTripperFailures(t *testing.T) {
	closed := 0
	for _, test := range []struct {
		name string
		rt   roundTripper
		is   func(error) bool
	}{
		{"neither response nor error", func(*http.Request) (*http.Response, error) { return nil, nil }, isProtocolError},
		{"both", func(*http.Request) (*http.Response, error) {
			return &http.Response{Body: body{http.NoBody, &closed}}, errCut
		}, isBroken},
		{"an error", func(*http.Request) (*http.Response, error) { return nil, errCut }, isBroken},
		{"no understanding", func(*http.Request) (*http.Response, error) { return nil, textproto.ProtocolError("garbage") }, isProtocolError},
		{"no understanding of what came", func(r *http.Request) (*http.Response, error) {
			httptrace.ContextClientTrace(r.Context()).GotFirstResponseByte()
			return nil, errors.New("net/http: garbage")
		}, isProtocolError},
		{"an end in the middle of the header", func(r *http.Request) (*http.Response, error) {
			httptrace.ContextClientTrace(r.Context()).GotFirstResponseByte()
			return nil, io.ErrUnexpectedEOF
		}, isBroken},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := caller(t, "POST").Do(test.rt)
			require.True(t, test.is(err), err)
			if broken, ok := errors.AsType[*BrokenError](err); ok {
				require.False(t, broken.Unsent, "a caller's round tripper is not believed")
			}
		})
	}
	require.Equal(t, 1, closed)
}

func isBroken(err error) bool {
	_, ok := errors.AsType[*BrokenError](err)
	return ok
}

func TestPanicsPass(t *testing.T) {
	x := caller(t, "GET")
	require.PanicsWithValue(t, http.ErrAbortHandler, func() {
		_ = x.Do(roundTripper(func(*http.Request) (*http.Response, error) { panic(http.ErrAbortHandler) }))
	})
	x.Close()
}

func TestRequestContentThatPanics(t *testing.T) {
	u := serve(t, "http", func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	x := u.exchange(t, "POST", "/")
	closed := 0
	x.Body, x.Length = body{reader(func([]byte) (int, error) { panic("app") }), &closed}, -1
	require.ErrorIs(t, x.Do(u.transport(t, TransportConfig{})), errPanic)
	x.Close()
	require.Equal(t, 1, closed)
}

func TestRequestContentThatFails(t *testing.T) {
	u := serve(t, "http", func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	tr := u.transport(t, TransportConfig{})
	for name, test := range map[string]struct {
		body   io.Reader
		length int64
		want   error
	}{
		"an error":              {reads(errCut, "x")(), -1, errCut},
		"an error at its start": {iotest.ErrReader(errCut), 2, errCut},
		"too short":             {strings.NewReader("x"), 2, io.ErrUnexpectedEOF},
		"too long":              {strings.NewReader("xxx"), 2, errLong},
	} {
		t.Run(name, func(t *testing.T) {
			x := u.exchange(t, "POST", "/").with(test.body)
			x.Length = test.length
			err := x.Do(tr)
			require.ErrorIs(t, err, test.want)
			require.False(t, isBroken(err))
		})
	}
}

type reader func([]byte) (int, error)

func (f reader) Read(p []byte) (int, error) { return f(p) }

// An early answer ends the upload at once (RFC 9113 §8.1).
func TestEarlyAnswer(t *testing.T) {
	ways(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		io.WriteString(w, "too large")
	}, func(t *testing.T, u *upstream, rt http.RoundTripper, proto string) {
		if proto != "HTTP/2.0" {
			return // where it is a matter of luck
		}
		x := u.exchange(t, "POST", "/")
		closed := make(chan struct{})
		x.Body, x.Length = &endlessBody{closed: closed}, -1
		require.NoError(t, x.Do(rt))
		require.Equal(t, http.StatusRequestEntityTooLarge, x.Status)
		require.Equal(t, "too large", text(t, x))
		<-closed
	})
}

type endlessBody struct {
	endless
	closed chan struct{}
}

func (b *endlessBody) Close() error {
	close(b.closed)
	return nil
}

// Both directions at once, as gRPC has it.
func TestFullDuplex(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			u := serve(t, scheme, func(w http.ResponseWriter, r *http.Request) {
				rc := http.NewResponseController(w)
				rc.Flush()
				buf := make([]byte, 100)
				for {
					n, err := r.Body.Read(buf)
					w.Write(buf[:n])
					rc.Flush()
					if err != nil {
						return
					}
				}
			})
			r, w := io.Pipe()
			x := u.exchange(t, "POST", "/").with(r)
			x.Idle = time.Minute
			require.NoError(t, x.Do(u.transport(t, TransportConfig{})))
			for _, s := range []string{"one", "two", "three"} {
				io.WriteString(w, s)
				piece, err := x.Next()
				require.NoError(t, err)
				require.Equal(t, s, string(piece))
			}
			w.Close()
			require.Empty(t, text(t, x))
		})
	}
}

func TestSwitched(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	x := caller(t, "GET")
	require.NoError(t, x.Do(roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 101, Body: ours}, nil
	})))
	conn := x.Switched()
	require.Equal(t, io.ReadWriteCloser(ours), conn)
	x.Close()
	go theirs.Write([]byte("x"))
	_, err := conn.Read(make([]byte, 1))
	require.NoError(t, err, "it is the tunnel's now")
	conn.Close()

	x, closed := caller(t, "GET"), 0
	require.NoError(t, x.Do(roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 101, Body: body{http.NoBody, &closed}}, nil
	})))
	require.Nil(t, x.Switched())
	x.Close()
	require.Equal(t, 1, closed)
}

// An abort does not wait for a round tripper that waits for the request's content.
func TestAbortEndsHTTP1Upload(t *testing.T) {
	ln := listen(t)
	u := new(upstream)
	u.at(t, "http", ln.Addr().String())
	rt := new(http.Transport)
	defer rt.CloseIdleConnections()
	r, w := io.Pipe()
	x := u.exchange(t, "POST", "/").with(r)
	x.Own = false
	x.OnAborted = func() { w.Close() }
	time.AfterFunc(20*time.Millisecond, func() { x.Abort(errCut) })
	require.Equal(t, errCut, x.Do(rt))
}

func TestInterims(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) {
		for _, n := range []string{"1", "2", "3"} {
			if r.URL.Path == "/" { // net/http's server may read the header still once the client is gone
				w.Header().Set("N", n)
			}
			w.WriteHeader(http.StatusEarlyHints)
		}
		if r.URL.Path == "/" {
			w.Header().Set("N", "final")
		}
	}
	ways(t, h, func(t *testing.T, u *upstream, rt http.RoundTripper, proto string) {
		x := u.exchange(t, "GET", "/")
		x.Own = proto == "HTTP/2.0"
		var seen []string
		x.Observer = observer(func(status int, header http.Header) error {
			seen = append(seen, fmt.Sprint(status, " ", header.Get("N")))
			return nil
		})
		require.NoError(t, x.Do(rt))
		require.Equal(t, []string{"103 1", "103 2", "103 3"}, seen)
		require.Equal(t, "final", x.Header.Get("N"))

		for what, fail := range map[string]func() error{
			"error": func() error { return errCut },
			"panic": func() error { panic(http.ErrAbortHandler) },
		} {
			calls := 0
			x := u.exchange(t, "GET", "/fails")
			x.Own = proto == "HTTP/2.0"
			x.Observer = observer(func(int, http.Header) error { calls++; return fail() })
			if what == "error" {
				require.Equal(t, errCut, x.Do(rt))
			} else {
				require.PanicsWithValue(t, http.ErrAbortHandler, func() { _ = x.Do(rt) })
			}
			require.Equal(t, 1, calls)
			x.Close()
		}
	})
}

func TestInterimComesBeforeTheResponse(t *testing.T) {
	seen := make(chan struct{})
	u := serve(t, "http", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		<-seen
	})
	x := u.exchange(t, "GET", "/")
	x.Observer = observer(func(int, http.Header) error { close(seen); return nil })
	require.NoError(t, x.Do(u.transport(t, TransportConfig{})))
}

// A client that does not take its 1xx stops nobody else on the connection.
func TestSlowObserver(t *testing.T) {
	u := serve(t, "http", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hints" {
			w.WriteHeader(http.StatusEarlyHints)
		}
	})
	tr := u.transport(t, TransportConfig{})
	slow, entered, leave := u.exchange(t, "GET", "/hints"), make(chan struct{}), make(chan struct{})
	slow.Observer = observer(func(int, http.Header) error { close(entered); <-leave; return nil })
	done := make(chan error, 1)
	go func() { done <- slow.Do(tr) }()
	<-entered
	require.NoError(t, u.exchange(t, "GET", "/").Do(tr))
	require.Equal(t, 1, u.dialed())
	close(leave)
	require.NoError(t, <-done)
}

// An observer is told of a bounded number, and then that there were more.
func TestTooManyInterims(t *testing.T) {
	flood := func(told chan struct{}) roundTripper {
		return func(r *http.Request) (*http.Response, error) {
			trace := httptrace.ContextClientTrace(r.Context())
			for range 100 {
				require.NoError(t, trace.Got1xxResponse(103, nil))
			}
			close(told)
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		}
	}
	x, told, n := caller(t, "GET"), make(chan struct{}), 0
	x.Observer = observer(func(int, http.Header) error { <-told; n++; return nil })
	require.Equal(t, ErrFlooded, x.Do(flood(told)))
	require.InDelta(t, maxWaiting, n, 1, "those that waited, and maybe the one that it had")
}

func TestInterimAfterTheResponseIsIgnored(t *testing.T) {
	x := caller(t, "GET")
	var trace *httptrace.ClientTrace
	x.Observer = observer(func(int, http.Header) error { panic("late") })
	require.NoError(t, x.Do(roundTripper(func(r *http.Request) (*http.Response, error) {
		trace = httptrace.ContextClientTrace(r.Context())
		require.NoError(t, trace.Got1xxResponse(99, nil))
		require.NoError(t, trace.Got1xxResponse(200, nil))
		return &http.Response{StatusCode: 200}, nil
	})))
	require.NoError(t, trace.Got1xxResponse(103, nil))
	x.Close()
	require.NoError(t, trace.Got1xxResponse(103, nil))
}

// A round tripper that hears only late that it is over.
func TestResponseAfterAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, closed := caller(t, "GET"), 0
		x.Head = time.Now().Add(time.Second)
		require.Equal(t, HeadTimeout, x.Do(roundTripper(func(*http.Request) (*http.Response, error) {
			time.Sleep(time.Second + patience/2)
			return &http.Response{StatusCode: 200, Body: body{http.NoBody, &closed}}, nil
		})))
		x.Close()
		require.Equal(t, 1, closed)
	})
}

func TestValuesOfTheContextPass(t *testing.T) {
	type key struct{}
	x := caller(t, "GET")
	x.Context = context.WithValue(x.Context, key{}, "span")
	require.NoError(t, x.Do(roundTripper(func(r *http.Request) (*http.Response, error) {
		require.Equal(t, "span", r.Context().Value(key{}))
		return &http.Response{StatusCode: 200}, nil
	})))
}
