package roundtrip

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Exchange is one request and its response. It is set up, used once, by
// [Exchange.Do], read to its end or not, and closed. Its methods are for one
// goroutine, but for Abort. It must not be copied, nor used for another request:
// a round tripper may hold on to it.
type Exchange struct {
	// The request. It is not changed, and not to be changed any more: a round
	// tripper that is told to stop may take its time.
	Context context.Context // of whoever waits for the response; its end ends the exchange
	Method  string
	URL     url.URL // complete
	Host    string
	Fields  http.Header   // without those of the framing
	Body    io.ReadCloser // the content; nil: none. It is closed, though maybe not before Close returns
	Length  int64         // of the content; negative: unknown
	Trailer http.Header   // of the content: names from the beginning, values from its end on
	Own     bool          // the round tripper is a [Transport], and believed

	// The times. Zero: none.
	Head time.Time     // when the response's header has to be there
	Idle time.Duration // between two pieces of content, both ways
	End  time.Time     // of everything

	Observer Observer

	// OnAborted is called, once, if the exchange is aborted before the response's
	// header has come, to end a read of Body that is under way. It must not call
	// the Exchange.
	OnAborted func()

	// The response, once Do has returned nil.
	Status        int
	Header        http.Header
	ContentLength int64       // negative: unknown
	Framed        bool        // the end of the content is proven by its framing
	Proto         string      // such as "HTTP/2.0"
	Trailers      http.Header // after the content: names that were announced from Do on, values from the content's end on

	request  http.Request
	trace    httptrace.ClientTrace
	response *http.Response
	content  content
	upload   upload
	interims interims
	alarm    alarm
	sent     atomic.Bool // the request's header is written, as far as the round tripper says
	heard    atomic.Bool // the upstream has begun to answer
	reused   atomic.Bool // the connection had been used before

	mu       sync.Mutex
	answered bool // the final response's header is there
	closed   bool
	aborted  error
	cancel   context.CancelCauseFunc // of the request's context; nil: not yet made
	unwatch  func() bool             // of Context; nil: it does not end
	why      TimeoutError            // what the alarm is about
	peer     net.Addr
}

// Do sends the request through rt and waits for the header of its final
// response. The content of the response is then read with Next or Read.
// Whatever Do returns, Close ends the exchange; also if rt panics, which is the
// caller's to recover.
func (x *Exchange) Do(rt http.RoundTripper) error {
	req, err := x.begin()
	if err != nil {
		if x.Body != nil {
			_ = x.upload.Close()
		}
		return err
	}
	resp, err := rt.RoundTrip(req)
	x.alarm.set(never)
	x.interims.close(err != nil || resp == nil)
	switch {
	case err != nil:
		if resp != nil && resp.Body != nil {
			_ = resp.Body.Close()
		}
		return x.failed(err)
	case resp == nil:
		return x.failed(ProtocolError("there is none"))
	}
	return x.take(resp)
}

// patience is how long a content of the app's has to end once it is told to.
const patience = 100 * time.Millisecond

// begin prepares the request.
func (x *Exchange) begin() (*http.Request, error) {
	// The context is not x.Context's child: see Follow.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(x.Context))
	if x.Observer != nil { // net/http bounds those that nobody looks at
		x.trace.Got1xxResponse = x.got1xx
	}
	x.trace.WroteHeaders = func() { x.sent.Store(true) }
	x.trace.GotFirstResponseByte = func() { x.heard.Store(true) }
	x.trace.GotConn = x.gotConn
	req := x.request.WithContext(httptrace.WithClientTrace(ctx, &x.trace))
	req.Method, req.URL, req.Host, req.Header = x.Method, &x.URL, x.Host, x.Fields
	req.Proto, req.ProtoMajor, req.ProtoMinor = "HTTP/1.1", 1, 1
	if req.Header == nil {
		req.Header = make(http.Header)
	}
	now := time.Now()
	if x.Body != nil {
		x.upload.begin(x, now)
		req.Body, req.ContentLength, req.Trailer = &x.upload, x.Length, x.Trailer
		if x.Length == 0 {
			req.Body = http.NoBody // or it would be of unknown length
			_ = x.upload.Close()
		}
	}
	x.alarm.start(now, x.expire)

	x.mu.Lock()
	defer x.mu.Unlock()
	if x.aborted != nil {
		cancel(x.aborted)
		return nil, x.aborted
	}
	x.cancel = cancel
	x.watch()
	x.why = HeadTimeout
	due := x.Head
	if !x.End.IsZero() && (due.IsZero() || !x.End.After(due)) {
		x.why, due = EndTimeout, x.End
	}
	x.alarm.setAt(due)
	return req, nil
}

// gotConn is told which connection the request goes over, by whatever goroutine.
func (x *Exchange) gotConn(info httptrace.GotConnInfo) {
	x.reused.Store(info.Reused)
	if info.Conn == nil {
		return
	}
	peer := info.Conn.RemoteAddr()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.peer = peer
}

// Peer returns whom the request was sent to, as far as the round tripper says, also
// where there is no response; nil: nobody is known.
func (x *Exchange) Peer() net.Addr {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.peer
}

// watch has the end of Context end the exchange. It is called under mu.
func (x *Exchange) watch() {
	if ctx := x.Context; ctx.Done() != nil {
		x.unwatch = context.AfterFunc(ctx, func() { x.Abort(context.Cause(ctx)) })
	}
}

// expire aborts the exchange: its time has run out.
func (x *Exchange) expire() {
	x.mu.Lock()
	why := x.why
	x.mu.Unlock()
	x.Abort(why)
}

// Abort ends the exchange from outside: what is under way fails with cause. It
// may be called at any time, by any goroutine.
func (x *Exchange) Abort(cause error) {
	x.mu.Lock()
	first, began := x.aborted == nil && !x.closed, x.cancel != nil
	if first {
		x.aborted = cause
		if began {
			x.cancel(cause)
		}
	}
	answered := x.answered
	x.mu.Unlock()
	switch {
	case !first || !began:
		return
	case answered:
		// A content of the app's may mind its end alone; and net/http's for HTTP/2 minds
		// no context while the request's content has to wait for the upstream.
		time.AfterFunc(patience, x.cutOff)
		return
	case x.Body == nil:
		return
	}
	// A round tripper may wait for a read of it that is under way.
	_ = x.upload.Close()
	if x.OnAborted != nil {
		x.OnAborted()
	}
}

// cutOff closes the content of an exchange that was aborted and is read still.
func (x *Exchange) cutOff() {
	x.mu.Lock()
	closed := x.closed
	x.mu.Unlock()
	if !closed {
		defer func() { _ = recover() }() // it is the app's, and this goroutine nobody's
		_ = x.response.Body.Close()
	}
}

// cause returns why the exchange was aborted.
func (x *Exchange) cause() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.aborted
}

// Follow has the end of ctx, and no longer that of Context, end the exchange.
func (x *Exchange) Follow(ctx context.Context) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.Context = ctx
	if x.cancel == nil {
		return // Do has not begun
	}
	if x.unwatch != nil {
		x.unwatch()
		x.unwatch = nil
	}
	if !x.closed {
		x.watch()
	}
}

var errClosed = errors.New("the exchange is closed")

// Close ends the exchange. A response that was not read to its end is cut off,
// and with it an upload under way.
func (x *Exchange) Close() {
	x.content.end(errClosed)
	x.finish()
}

// finish ends what goes on for the exchange.
func (x *Exchange) finish() {
	x.mu.Lock()
	cancel, unwatch, closed := x.cancel, x.unwatch, x.closed
	x.closed, x.unwatch = true, nil
	x.mu.Unlock()
	if closed || cancel == nil {
		return
	}
	x.alarm.stop()
	if unwatch != nil {
		unwatch()
	}
	// First, or closing the content might wait for a read of the request's.
	cancel(errClosed)
	defer x.interims.close(true)
	if x.Body != nil {
		defer x.upload.Close()
	}
	if x.response != nil {
		_ = x.response.Body.Close() // which may panic
	}
}

// Switched returns the connection after a 101, which is to be closed; nil: the
// round tripper has not given it. The exchange has nothing to do with it any
// more.
func (x *Exchange) Switched() io.ReadWriteCloser {
	if x.Status != http.StatusSwitchingProtocols || x.response == nil {
		return nil
	}
	conn, ok := x.response.Body.(io.ReadWriteCloser)
	if !ok {
		return nil
	}
	x.mu.Lock()
	unwatch := x.unwatch
	x.closed, x.unwatch = true, nil
	x.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
	return conn
}

// Surplus is false: a round tripper does not tell.
func (x *Exchange) Surplus() bool { return false }

// OnSurplus has f never called.
func (x *Exchange) OnSurplus(func()) {}
