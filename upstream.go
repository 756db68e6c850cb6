package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/embedgw/gateway/internal/forward"
	"github.com/embedgw/gateway/internal/retry"
	"github.com/embedgw/gateway/internal/telemetry"
	"github.com/embedgw/gateway/internal/work"
)

// An Upstream is one service as a handler: it forwards the whole path. It is
// safe for concurrent use. Make it with [NewUpstream], or get a gateway's with
// [Gateway.Upstream]; the zero value is of no use.
type Upstream struct {
	name string
	core *core
	life *work.Life

	// State: kept while the policy changes.
	endpoints []*endpoint
	budget    *retry.Budget
	stats     serviceStats
	probe     probe
}

// NewUpstream makes a service of its own, to be mounted on any pattern of a
// mux. The name and the target are as for [WithService]. It starts nothing and
// connects to nothing. The error joins an [*OptionError] for each fault.
func NewUpstream(name, target string, opts ...UpstreamOption) (*Upstream, error) {
	c := upstreamConfig{service: serviceConfig{policy: defaultPolicy(), list: list{service: name}}}
	for _, o := range opts {
		if o == nil {
			c.service.list.faultOf("NewUpstream", "", "an option is nil")
			continue
		}
		o.applyUpstream(&c)
	}
	core, err := newCore(&c.shared)
	if err != nil {
		return nil, errors.Join(append(c.shared.list.faults, err)...)
	}
	svc := c.service.build(core, "NewUpstream", declared{name: name, target: target})
	if err := errors.Join(append(c.shared.list.faults, c.service.list.faults...)...); err != nil {
		return nil, err
	}
	core.snapshot.Store(&snapshot{services: map[string]*service{name: svc}})
	return svc.up, nil
}

// ServeHTTP forwards the request, with its whole path, to the service.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.core.serve(w, r, u.core.snapshot.Load().services[u.name], forward.Path(r.URL), true)
}

// Drain tells the service's event streams and tunnels to end. Requests are
// still served.
func (u *Upstream) Drain() { u.life.Drain() }

// Shutdown is [Gateway.Shutdown] for this service alone.
func (u *Upstream) Shutdown(ctx context.Context) error { return shutdown(ctx, u.life) }

// service is one service in a snapshot: its policy, what was prepared from it,
// and the upstream that holds its state.
type service struct {
	policy  *policy
	up      *Upstream
	base    string // the target's escaped path
	host    string // sent unless the client's is preserved
	scope   string // begins every cache key
	rules   *forward.RequestRules
	locator *forward.Locator
	methods map[string]struct{}
	waits   retry.Template
	routed  *telemetry.Service // spans of requests routed by the first segment
	mounted *telemetry.Service // spans of requests that came with their whole path
}

func (s *service) spans(whole bool) *telemetry.Service {
	if whole {
		return s.mounted
	}
	return s.routed
}

// build judges a service's options and makes it; faults stay in the list.
func (c *serviceConfig) build(core *core, option string, d declared) *service {
	l := &c.list
	for _, o := range d.opts {
		if o == nil {
			l.faultOf(option, "", "an option is nil")
			continue
		}
		o.applyService(c)
	}
	c.judge()
	if reason := checkName(d.name); reason != "" {
		l.faultOf(option, d.name, reason)
	}
	target, shown, reasons := parseTarget(d.target)
	for _, reason := range reasons {
		l.faultOf(option, shown, reason)
	}
	if len(l.faults) > 0 {
		return nil
	}
	p := c.policy
	up := &Upstream{name: d.name, core: core, budget: retry.NewBudget(p.retryRatio, p.retryPerSecond), life: work.NewLife(core.panicked)}
	e := newEndpoint(target, &p, up)
	up.endpoints = []*endpoint{e}
	svc := &service{
		policy:  &p,
		up:      up,
		base:    strings.TrimSuffix(target.EscapedPath(), "/"),
		host:    target.Host,
		scope:   d.name + " " + target.Scheme + "://" + target.Host + target.EscapedPath() + " " + p.identity(),
		locator: forward.NewLocator(target),
		methods: make(map[string]struct{}, len(p.methods)),
		waits:   retry.NewTemplate(p.backoffInitial, p.backoffMax),
	}
	for _, m := range p.methods {
		svc.methods[m] = struct{}{}
	}
	rules := forward.RequestConfig{Set: p.header, Trusted: p.trusted, Via: viaName, MaxHops: maxHops, RequestIDHeader: p.requestIDHeader, Clone: len(p.rewrite) > 0}
	if p.tokenSource != nil {
		rules.Drop = []string{"Authorization"}
	}
	svc.rules = forward.NewRequestRules(rules)
	spans := telemetry.ServiceConfig{Name: d.name, Scheme: target.Scheme, TargetHost: e.host, TargetPort: e.port}
	svc.routed = core.telemetry.Service(spans)
	spans.Whole = true
	svc.mounted = core.telemetry.Service(spans)
	return svc
}

const (
	viaName = "gateway" // in Via; the same for all, so that loops over several processes end too
	maxHops = 8         // gateways of this name that a request may pass
)

// Bounds on a response that no option moves.
const (
	maxResponseHeaderBytes = 64 << 10
	maxResponseFields      = 200
	maxInterim             = 8 // 1xx responses
	maxInterimBytes        = 64 << 10
)

// endpoint is one address of a service.
type endpoint struct {
	url  *url.URL
	host string
	port int
	send sender
	rt   http.RoundTripper
}

// sender is the seam to an upstream: it sends an attempt's request and fills
// in the head of the answer, or says why there is none. Beyond what a
// RoundTripper can tell it reports 1xx responses, and whether anything was
// sent.
type sender func(*attempt) error

func newEndpoint(target *url.URL, p *policy, up *Upstream) *endpoint {
	e := &endpoint{url: target, host: target.Hostname(), port: portOf(target), rt: p.transport}
	if e.rt == nil {
		t := newTransport(p)
		e.rt = t
		up.life.Last(t.CloseIdleConnections)
	}
	e.send = e.roundTrip
	return e
}

func portOf(u *url.URL) int {
	port, _ := net.LookupPort("tcp", u.Port())
	switch {
	case port != 0:
	case u.Scheme == "https":
		port = 443
	default:
		port = 80
	}
	return port
}

func newTransport(p *policy) *http.Transport {
	d := &dialer{net.Dialer{Timeout: p.dialTimeout, KeepAlive: 15 * time.Second}, p.tlsConfig, p.tlsHandshakeTimeout}
	if d.tls == nil {
		d.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	d.tls = d.tls.Clone()
	d.tls.NextProtos = []string{"http/1.1"} // which is all that is spoken
	return &http.Transport{
		DialContext:            d.dial,
		DialTLSContext:         d.dialTLS,
		ResponseHeaderTimeout:  p.responseHeaderTimeout,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        4 * time.Second, // below the keep-alive of common servers (5 s)
		MaxIdleConnsPerHost:    512,
		MaxResponseHeaderBytes: maxResponseHeaderBytes,
		DisableCompression:     true, // what the client asked for is what it gets
	}
}

// dialer connects, and says of its errors that nothing was sent.
type dialer struct {
	net.Dialer
	tls       *tls.Config
	handshake time.Duration
}

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, &connectError{err}
	}
	return &patientConn{conn}, nil
}

// patientConn holds a failed write back for a moment. An upstream that answers
// and closes in the middle of an upload resets the connection; net/http's
// transport would take the failure for the outcome although the answer is there
// to be read (RFC 9112 §9.5).
type patientConn struct{ net.Conn }

const writePatience = 100 * time.Millisecond

func (c *patientConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		<-time.After(writePatience)
	}
	return n, err
}

// CloseWrite ends our half, as tunnels do.
func (c *patientConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (d *dialer) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if d.handshake > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d.handshake, errHandshake)
		defer cancel()
	}
	config := d.tls
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		if cause := context.Cause(ctx); errors.Is(cause, errHandshake) {
			err = cause
		}
		return nil, &connectError{err}
	}
	return secure, nil
}

// pick returns an endpoint, one not yet tried while there is one.
func (u *Upstream) pick(tried []*endpoint) *endpoint {
	for _, e := range u.endpoints {
		if !slices.Contains(tried, e) {
			return e
		}
	}
	return u.endpoints[0]
}

// fetch is one answer got from a service, in one or more attempts. Exchanges
// only link to it: a detached one goes on when its client leaves.
type fetch struct {
	link     work.Link
	x        *exchange // who leads it; not to be touched once its handler may have returned
	svc      *service
	ctx      context.Context // what attempts derive from
	client   context.Context // the leader's
	detached bool
	deadline time.Time // of the response header; zero: none
	end      time.Time // of everything; zero: none
	out      outbound
	body     *retry.Body // nil: no body
	purse    retry.Purse
	tried    []*endpoint
	triedBuf [2]*endpoint
	first    attempt  // where most fetches end
	answer   *attempt // the last attempt, which is the answer's once run has returned nil

	mu        sync.Mutex
	cutBy     error
	wake      chan struct{}      // closed by a cut
	stopHook  context.CancelFunc // ends the wait for the token source
	committed bool               // a 1xx has reached the client: no other attempt may answer
}

// outbound is the request as every attempt sends it.
type outbound struct {
	method  string
	path    string // escaped, with the target's
	query   string // without the question mark
	force   bool   // a question mark though the query is empty
	host    string
	header  http.Header
	length  int64       // of the body; negative: unknown
	trailer http.Header // of the body: what was announced, without values
}

// newFetch prepares a fetch for x. Its caller ends it, by close or by leaving
// its answer to somebody who does.
func (x *exchange) newFetch(detached bool) *fetch {
	p := x.svc.policy
	f := &fetch{x: x, svc: x.svc, client: x.r.Context(), ctx: x.ctx, detached: detached}
	if detached {
		f.ctx = context.WithoutCancel(x.ctx)
	}
	if p.timeout > 0 {
		f.deadline = x.start.Add(p.timeout)
	}
	if due, ok := f.client.Deadline(); ok && (f.deadline.IsZero() || due.Before(f.deadline)) {
		f.deadline = due // the app's own, which a detached fetch would not see
	}
	if p.maxDuration > 0 {
		f.end = x.start.Add(p.maxDuration)
		if f.deadline.IsZero() || f.end.Before(f.deadline) {
			f.deadline = f.end
		}
	}
	f.purse = retry.NewPurse(1+p.retries, x.svc.up.budget)
	f.tried = f.triedBuf[:0]
	return f
}

// run makes attempts until one is the answer, or none will be.
func (f *fetch) run() *Error {
	if !f.svc.up.life.Begin(&f.link, f) {
		return fault(ReasonShuttingDown, work.ErrShutdown)
	}
	answered := false
	defer func() {
		f.x.attempts = f.purse.Spent()
		if !answered { // a panic of the round tripper's or a hook's, too
			f.close(fault(ReasonPanic, nil))
		}
	}()
	err := f.prepare()
	if err == nil {
		err = f.attempts()
	}
	answered = err == nil
	return err
}

// attempts is the loop over attempts. Its error leaves none open.
func (f *fetch) attempts() *Error {
	f.purse.First()
	var waits retry.Waits
	for {
		a, err := f.try()
		if err == nil && !retry.RetryStatus(a.status) {
			return f.accept(a)
		}
		if f.purse.Spent() == 1 {
			waits = f.svc.waits.Start()
		}
		wait, again := f.again(a, err, waits.Next())
		switch {
		case again:
		case err == nil:
			return f.accept(a)
		default:
			return err
		}
		a.discard()
		if err := f.sleep(wait); err != nil {
			return err
		}
	}
}

// prepare builds the outbound request, hooks included.
func (f *fetch) prepare() *Error {
	x, svc, r := f.x, f.svc, f.x.r
	p := svc.policy
	f.out = outbound{method: r.Method, path: forward.Join(svc.base, x.rest), query: x.query, force: r.URL.ForceQuery, host: svc.host}
	if p.preserveHost {
		f.out.host = r.Host
	}
	in := forward.Inbound{
		Header: r.Header, RemoteAddr: r.RemoteAddr, Host: r.Host, TLS: r.TLS != nil,
		ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor,
		Prefix: x.prefix, Upgrade: x.upgrade != "",
		RequestID: x.requestID(),
	}
	f.out.header = svc.rules.Outbound(&in)
	if x.hasBody() {
		f.out.length = r.ContentLength
		f.out.trailer = svc.rules.Trailers(r.Trailer)
		x.upload = x.newBody(r)
		f.mu.Lock()
		f.body = x.upload
		f.mu.Unlock()
	}
	if p.tokenSource != nil {
		token, err := x.token(f)
		if err != nil {
			return err
		}
		f.out.header["Authorization"] = []string{"Bearer " + token}
	}
	if len(p.rewrite) > 0 {
		return f.rewrite()
	}
	return nil
}

// newBody makes r's body one that can be sent again while it is small.
func (x *exchange) newBody(r *http.Request) *retry.Body {
	p := x.svc.policy
	keep := p.retryBodyBytes
	if p.retries == 0 {
		keep = 0
	}
	b := retry.NewBody(r.Body, r.ContentLength, int(keep), p.maxBodyBytes)
	rc := http.NewResponseController(x.w)
	if r.ProtoMajor == 1 {
		// Otherwise net/http's server reads the rest of the body itself, away
		// from us, as soon as the response begins.
		_ = rc.EnableFullDuplex()
	}
	idle := p.bodyIdleTimeout
	if idle > 0 {
		b.Before = func() { _ = rc.SetReadDeadline(time.Now().Add(idle)) }
	}
	b.Unblock = func() { _ = rc.SetReadDeadline(time.Unix(1, 0)) }
	if idle > 0 {
		b.AtEOF = func() { _ = rc.SetReadDeadline(time.Time{}) } // or it would soon look as if the client left
	}
	return b
}

// token asks the token source, within the fetch's time, and no longer than the
// client waits.
func (x *exchange) token(f *fetch) (token string, err *Error) {
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	if !f.deadline.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, f.deadline)
		defer stop()
	}
	f.mu.Lock()
	f.stopHook = cancel
	cut := f.cutBy
	f.mu.Unlock()
	if cut != nil {
		return "", fault(ReasonShuttingDown, cut)
	}
	cause := x.hook("WithTokenSource", func() error {
		var err error
		if token, err = x.svc.policy.tokenSource(ctx); err != nil {
			return err
		}
		return checkToken(token)
	})
	f.mu.Lock()
	f.stopHook, cut = nil, f.cutBy
	f.mu.Unlock()
	switch {
	case cut != nil:
		return "", fault(ReasonShuttingDown, cut)
	case f.client.Err() != nil:
		return "", clientGone(f.client)
	case cause != nil:
		return "", fault(ReasonToken, cause)
	}
	return token, nil
}

var errHookPanic = errors.New("a hook panicked")

// hook calls a function of the app's and turns its panic into errHookPanic.
// Only http.ErrAbortHandler passes.
func (x *exchange) hook(name string, f func() error) (err error) {
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			panic(v)
		default:
			x.core.panicked(name, v, debug.Stack())
			err = fmt.Errorf("%s: %w", name, errHookPanic)
		}
	}()
	return f()
}

// rewrite shows the request to the WithRewrite hooks.
func (f *fetch) rewrite() *Error {
	e := f.svc.up.endpoints[0]
	u := f.out.url(e)
	req := (&http.Request{
		Method: f.out.method, URL: &u, Header: f.out.header, Host: f.out.host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: f.out.length,
	}).WithContext(f.ctx)
	for _, hook := range f.svc.policy.rewrite {
		if err := f.x.hook("WithRewrite", func() error { hook(req); return nil }); err != nil {
			return fault(ReasonPanic, err)
		}
	}
	if req.URL == nil || req.Header == nil {
		return fault(ReasonPanic, errors.New("WithRewrite: removed the URL or the header"))
	}
	f.out.path, f.out.query, f.out.force = req.URL.EscapedPath(), req.URL.RawQuery, req.URL.ForceQuery
	f.out.header, f.out.host = req.Header, req.Host
	return nil
}

// url returns the outbound URL at an endpoint. Path and RawPath are set so
// that EscapedPath returns the escaped path byte for byte.
func (o *outbound) url(e *endpoint) url.URL {
	path, err := url.PathUnescape(o.path)
	if err != nil {
		path = o.path
	}
	return url.URL{Scheme: e.url.Scheme, Host: e.url.Host, Path: path, RawPath: o.path, RawQuery: o.query, ForceQuery: o.force}
}

// try makes one attempt. Its error leaves nothing open.
func (f *fetch) try() (*attempt, *Error) {
	e := f.svc.up.pick(f.tried)
	f.tried = append(f.tried, e)
	a := &f.first
	header := f.out.header
	if f.purse.Spent() > 1 {
		a = new(attempt)
		header = maps.Clone(header) // the former attempt may still be writing it
	}
	a.fetch, a.endpoint, a.start, a.header, a.length = f, e, time.Now(), header, -1
	ctx, cancel := context.WithCancelCause(f.ctx)
	a.cancel = cancel
	spans := f.svc.spans(f.x.whole)
	a.ctx = spans.StartClient(ctx, &a.span, f.out.method, f.out.path, f.out.query, f.purse.Spent()-1)
	spans.Inject(a.ctx, a.header)
	err := f.begin(a)
	if err == nil {
		a.arm()
		err = e.send(a)
	}
	a.settle()
	if err == nil {
		err = a.judge()
	}
	if err == nil {
		err = a.await()
	}
	if err != nil {
		fe := a.classify(err)
		a.end(fe)
		return a, fe
	}
	return a, nil
}

var errSpilled = errors.New("the request's content cannot be sent again")

// begin makes a the attempt that a cut ends, and gives it the request's
// content from its first byte.
func (f *fetch) begin(a *attempt) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = a
	if f.cutBy != nil {
		return f.cutBy
	}
	if f.body != nil {
		upload, ok := f.body.Attempt()
		if !ok {
			return errSpilled
		}
		a.upload = upload
		if len(f.out.trailer) > 0 {
			a.upload = &trailing{upload, maps.Clone(f.out.trailer), f.x.r}
		}
	}
	return nil
}

// trailing is a request's content that fills the trailer section at its end,
// for one attempt: another may still be reading its own.
type trailing struct {
	io.ReadCloser
	trailer http.Header
	r       *http.Request
}

func (t *trailing) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		for name := range t.trailer {
			t.trailer[name] = t.r.Trailer[name]
		}
	}
	return n, err
}

// Cut ends the fetch from outside.
func (f *fetch) Cut(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutBy = cause
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
	if f.stopHook != nil {
		f.stopHook()
	}
	if f.answer != nil {
		f.answer.cancel(cause)
	}
	if f.body != nil {
		f.body.Abort()
	}
}

// leave ends the fetch: nothing of it is under way any more.
func (f *fetch) leave() {
	f.svc.up.life.End(&f.link)
	if f.body != nil {
		f.x.received = f.body.Read()
		f.body.Close()
	}
}

// again decides whether the request is sent once more, and after which wait.
func (f *fetch) again(a *attempt, err *Error, wait time.Duration) (time.Duration, bool) {
	p := f.svc.policy
	f.mu.Lock()
	over := f.committed || f.cutBy != nil
	f.mu.Unlock()
	if over || f.client.Err() != nil {
		return 0, false
	}
	repeatable := retry.Repeatable(f.out.method) && f.x.upgrade == ""
	if err != nil {
		switch err.Reason {
		case ReasonConnect, ReasonUpstreamFailed, ReasonTruncated, ReasonTimeout:
		default:
			return 0, false
		}
		repeatable = repeatable || a.unsent
	} else if after, ok := retry.RetryAfter(a.head, time.Now()); ok {
		if after > p.maxRetryAfter {
			return 0, false
		}
		wait = max(wait, after)
	}
	if !repeatable || f.body != nil && (!f.body.Repeatable() || f.body.Err() != nil) {
		return 0, false
	}
	if !f.deadline.IsZero() && time.Until(f.deadline) <= wait {
		return 0, false
	}
	if !f.purse.Take() {
		return 0, false
	}
	if a.upload != nil {
		_ = a.upload.Close() // from here on it reads nothing that the next attempt would miss
		if !f.body.Repeatable() {
			return 0, false
		}
	}
	f.svc.up.stats.retries.Add(1)
	return wait, true
}

// sleep waits before the next attempt, until the client leaves or the fetch is
// cut.
func (f *fetch) sleep(wait time.Duration) *Error {
	f.mu.Lock()
	if f.wake == nil && f.cutBy == nil {
		f.wake = make(chan struct{})
	}
	wake, cut := f.wake, f.cutBy
	f.mu.Unlock()
	if cut != nil {
		return fault(ReasonShuttingDown, cut)
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-wake:
		return fault(ReasonShuttingDown, work.ErrShutdown)
	case <-f.client.Done():
		return clientGone(f.client)
	}
}

// clientGone says why an inbound request's context has ended: the app set a
// deadline, or the client left.
func clientGone(ctx context.Context) *Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault(ReasonTimeout, ctx.Err())
	}
	return fault(ReasonClientClosed, ctx.Err())
}

// accept takes a as the answer, once the WithModifyResponse hooks have seen it.
func (f *fetch) accept(a *attempt) *Error {
	if len(f.svc.policy.modify) > 0 && a.status != http.StatusSwitchingProtocols {
		if err := f.modify(a); err != nil {
			a.end(err)
			return err
		}
	}
	return nil
}

func (f *fetch) modify(a *attempt) *Error {
	u := f.out.url(a.endpoint)
	resp := &http.Response{
		Status: fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)), StatusCode: a.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.head, Body: a.content, ContentLength: a.length, Trailer: *a.trailer,
		Request: (&http.Request{Method: f.out.method, URL: &u, Header: f.out.header, Host: f.out.host}).WithContext(a.ctx),
	}
	original := a.content
	a.dueIn(a.bodyDue()) // the head is here: hooks take the content's time
	for _, hook := range f.svc.policy.modify {
		err := f.x.hook("WithModifyResponse", func() error { return hook(resp) })
		if resp.Body != nil && resp.Body != original {
			a.content = resp.Body // ours to close from now on
		}
		switch {
		case errors.Is(err, errHookPanic):
			return fault(ReasonPanic, err)
		case err != nil:
			return fault(ReasonHook, err)
		}
	}
	if !forward.ValidStatus(resp.StatusCode) || resp.StatusCode < 200 || resp.Header == nil || resp.Body == nil {
		return fault(ReasonHook, fmt.Errorf("WithModifyResponse: no usable response is left (status %d)", resp.StatusCode))
	}
	replaced := resp.Body != original
	if resp.ContentLength != a.length || replaced {
		a.length = resp.ContentLength
		if a.length >= 0 {
			resp.Header.Set("Content-Length", fmt.Sprint(a.length))
		} else {
			resp.Header.Del("Content-Length")
		}
	}
	a.status, a.head, a.content = resp.StatusCode, resp.Header, resp.Body
	forward.Normalize(a.head)
	return nil
}

// close ends the fetch and its last attempt. err is nil if the answer's body
// came to its end.
func (f *fetch) close(err *Error) {
	if f.answer != nil {
		f.answer.end(err)
	}
	f.leave()
}

// attempt is one request sent to one endpoint, and its answer.
type attempt struct {
	fetch    *fetch
	endpoint *endpoint
	start    time.Time
	ctx      context.Context
	cancel   context.CancelCauseFunc
	span     telemetry.Client
	header   http.Header   // of the request
	upload   io.ReadCloser // its body; nil: none

	// The answer, filled in by the sender.
	status  int
	head    http.Header
	length  int64 // of the content; negative: unknown
	framed  bool  // the end of the content is proven by its framing
	content io.ReadCloser
	trailer *http.Header // filled at the content's end; what is announced has keys before
	lead    forward.Lead // content, where its first piece was awaited
	tunnel  io.ReadWriteCloser

	url    url.URL               // of the request
	trace  httptrace.ClientTrace // through net/http's transport
	began  atomic.Bool           // the request's header is written, or about to be
	heard  atomic.Bool           // the upstream has begun to answer
	unsent bool                  // the upstream cannot have seen any of it
	alarm  work.Alarm
	why    atomic.Pointer[timeoutError] // what the alarm will be about
	ended  bool

	mu           sync.Mutex
	settled      bool // the head is there: no 1xx may come any more
	interim      int
	interimBytes int
	overflow     bool
}

// timeoutError is the cause of a cancellation by one of our clocks.
type timeoutError struct{ what string }

func (e *timeoutError) Error() string { return e.what + " ran out" }
func (e *timeoutError) Timeout() bool { return true }

var (
	errHeaderTimeout  = &timeoutError{"the time to the response header"}
	errAttemptTimeout = &timeoutError{"the attempt's time"}
	errHandshake      = &timeoutError{"the time of the TLS handshake"}
	errBodyIdle       = &timeoutError{"the body idle time"}
	errMaxDuration    = &timeoutError{"the maximum duration"}
)

// arm sets the alarm for the head. It is one for the whole attempt.
func (a *attempt) arm() {
	f, limit := a.fetch, a.fetch.svc.policy.attemptTimeout
	due, why := work.Never, errHeaderTimeout
	if !f.deadline.IsZero() {
		due = max(f.deadline.Sub(a.start), 1)
		if f.deadline.Equal(f.end) {
			why = errMaxDuration
		}
	}
	if limit > 0 && limit < due {
		due, why = limit, errAttemptTimeout
	}
	a.alarm.Start(a.start, a.expire)
	a.dueIn(due, why)
}

func (a *attempt) dueIn(due time.Duration, why *timeoutError) {
	a.why.Store(why)
	a.alarm.Set(due)
}

// expire cancels the attempt: its time has run out.
func (a *attempt) expire() {
	why, f := a.why.Load(), a.fetch
	a.cancel(why)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.upload == nil || a.settled {
		return
	}
	// net/http's transport now waits for a read of the client's body that is
	// under way, and a client that is slow is no reason for another attempt.
	_ = a.upload.Close()
	if why != errAttemptTimeout || f.body.Busy() {
		f.body.Abort()
	}
}

// errNoContent is a content that broke off before its first byte.
var errNoContent = errors.New("the response broke off before its content")

// await waits for the first piece of a content that has a length: as long as
// the client has received nothing, another attempt may answer. A content that
// comes while the upload goes on may depend on it.
func (a *attempt) await() error {
	f := a.fetch
	if a.length <= 0 || f.x.bodyless(a.status) || forward.IsEventStream(a.head) || f.body != nil && !f.body.Done() {
		return nil
	}
	a.lead.ReadCloser, a.content = a.content, &a.lead
	a.dueIn(a.bodyDue())
	if err := a.lead.Await(); err != nil {
		return fmt.Errorf("%w: %w", errNoContent, err)
	}
	return nil
}

// Read reads the content, within the body idle time.
func (a *attempt) Read(p []byte) (int, error) {
	a.dueIn(a.bodyDue())
	return a.content.Read(p)
}

// bodyDue returns when a read that begins now must have ended.
func (a *attempt) bodyDue() (time.Duration, *timeoutError) {
	due, why := work.Never, errBodyIdle
	if idle := a.fetch.svc.policy.bodyIdleTimeout; idle > 0 {
		due = time.Since(a.start) + idle
	}
	if end := a.fetch.end; !end.IsZero() && end.Sub(a.start) < due {
		due, why = end.Sub(a.start), errMaxDuration
	}
	return due, why
}

// settle ends the time of 1xx responses.
func (a *attempt) settle() {
	a.mu.Lock()
	a.settled = true
	a.mu.Unlock()
}

var (
	errInterimOverflow = errors.New("too many 1xx responses")
	errSettled         = errors.New("the attempt is over")
)

// got1xx passes an interim response on to the client (RFC 9110 §15.2). From
// then on no other attempt may answer.
func (a *attempt) got1xx(code int, h textproto.MIMEHeader) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.settled {
		return errSettled
	}
	_, bytes := forward.Normalize(http.Header(h))
	a.interim++
	a.interimBytes += bytes + 32
	if a.interim > maxInterim || a.interimBytes > maxInterimBytes {
		a.overflow = true
		return errInterimOverflow
	}
	f := a.fetch
	if code == http.StatusContinue || code == http.StatusSwitchingProtocols || code < 100 || code > 199 || !f.x.takesInterim() {
		return nil // the server sends its own 100
	}
	f.mu.Lock()
	f.committed = true
	f.mu.Unlock()
	f.x.relayInterim(code, http.Header(h))
	return nil
}

// judge refuses an answer that breaks the rules.
func (a *attempt) judge() error {
	fields, bytes := forward.Normalize(a.head)
	switch {
	case !forward.ValidStatus(a.status), a.status < 200 && a.status != http.StatusSwitchingProtocols:
		return badResponse(fmt.Sprintf("status %d", a.status))
	case fields > maxResponseFields || bytes > maxResponseHeaderBytes:
		return badResponse("the header is too large")
	case a.status == http.StatusSwitchingProtocols:
		if a.fetch.x.upgrade == "" || a.tunnel == nil || !strings.EqualFold(a.head.Get("Upgrade"), a.fetch.x.upgrade) {
			return badResponse("it switches to a protocol that was not asked for")
		}
	case a.status == http.StatusNotModified && !conditional(a.fetch.out.header):
		return badResponse("304 to a request without conditions") // RFC 9110 §15.4.5
	}
	return nil
}

func conditional(h http.Header) bool {
	return h["If-None-Match"] != nil || h["If-Modified-Since"] != nil || h["If-Match"] != nil || h["If-Unmodified-Since"] != nil || h["If-Range"] != nil
}

// badResponse is what an upstream's answer does wrong.
type badResponse string

func (e badResponse) Error() string { return "the response is not acceptable: " + string(e) }

// classify says whose fault a failed attempt is.
func (a *attempt) classify(err error) *Error {
	f := a.fetch
	if f.body != nil {
		if bodyErr := f.body.Err(); errors.Is(bodyErr, retry.ErrTooLarge) {
			return fault(ReasonBodyTooLarge, bodyErr)
		} else if bodyErr != nil && (f.client.Err() == nil || errors.Is(bodyErr, os.ErrDeadlineExceeded)) { // at which net/http's server ends the context, too
			return fault(ReasonClientBody, bodyErr)
		}
	}
	cause := context.Cause(a.ctx)
	a.mu.Lock()
	overflow := a.overflow
	a.mu.Unlock()
	switch {
	case errors.Is(cause, work.ErrShutdown), errors.Is(err, work.ErrShutdown):
		return fault(ReasonShuttingDown, work.ErrShutdown)
	case overflow:
		return fault(ReasonInterimOverflow, errInterimOverflow)
	case isError[*timeoutError](cause):
		return fault(ReasonTimeout, cause)
	case f.client.Err() != nil && !f.detached:
		return clientGone(f.client)
	case errors.Is(err, errSpilled):
		return fault(ReasonUpstreamFailed, err)
	case isError[badResponse](err), isError[textproto.ProtocolError](err):
		return fault(ReasonBadResponse, err)
	case timedOut(err):
		return fault(ReasonTimeout, err)
	case dialFailed(err):
		return fault(ReasonConnect, err)
	case errors.Is(err, errNoContent):
		return fault(ReasonTruncated, err)
	case a.heard.Load() && !brokeOff(err): // net/http's transport names no type for it
		return fault(ReasonBadResponse, err)
	}
	return fault(ReasonUpstreamFailed, err)
}

// brokeOff reports whether a connection's end or failure is behind err, rather
// than what came over it.
func brokeOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isError[net.Error](err)
}

// connectError is a failure before anything can have been sent.
type connectError struct{ err error }

func (e *connectError) Error() string { return "connect: " + e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// dialFailed tells a connectError, and what a caller's own round tripper has
// in its place.
func dialFailed(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial" || isError[*connectError](err)
}

func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

const (
	drainBytes = 64 << 10
	drainTime  = 100 * time.Millisecond
)

// discard drops a failed attempt: a short body is read, so that its connection
// can be used again, a long or slow one is cut off.
func (a *attempt) discard() {
	if a.content != nil && a.length >= 0 && a.length <= drainBytes {
		defer time.AfterFunc(drainTime, func() { a.cancel(context.Canceled) }).Stop()
		_, _ = io.Copy(io.Discard, a.content)
	}
	a.end(nil)
}

// end closes what the attempt holds and ends its span. err is why it failed,
// if it did.
func (a *attempt) end(err *Error) {
	if a.ended {
		return
	}
	a.ended = true
	a.alarm.Stop()
	if a.content != nil {
		_ = a.content.Close()
	}
	if a.upload != nil {
		_ = a.upload.Close()
	}
	a.cancel(nil)
	errorType := ""
	if err != nil && err.Status != statusClientClosed {
		errorType = string(err.Reason)
	}
	a.span.End(errorType, time.Since(a.start))
}

// lowerKeys hides from net/http's transport the fields for which it would send
// a request again by itself. On the wire their case means nothing (RFC 9110
// §5.1).
func lowerKeys(h http.Header) {
	for _, name := range [...]string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, ok := h[name]; ok {
			delete(h, name)
			h[strings.ToLower(name)] = values
		}
	}
}

// roundTrip sends through net/http's transport or one of the app's.
func (e *endpoint) roundTrip(a *attempt) error {
	out := &a.fetch.out
	a.url = out.url(e)
	a.trace.Got1xxResponse = a.got1xx
	a.trace.GotFirstResponseByte = func() { a.heard.Store(true) }
	own := a.fetch.svc.policy.transport == nil
	traced := own && !retry.Repeatable(out.method)
	if traced {
		a.trace.WroteHeaders = func() { a.began.Store(true) }
		lowerKeys(a.header)
	}
	req := (&http.Request{}).WithContext(httptrace.WithClientTrace(a.ctx, &a.trace))
	req.Method, req.URL, req.Host, req.Header = out.method, &a.url, out.host, a.header
	req.Proto, req.ProtoMajor, req.ProtoMinor = "HTTP/1.1", 1, 1
	if a.upload != nil {
		req.Body, req.ContentLength = a.upload, out.length
		if t, ok := a.upload.(*trailing); ok {
			req.Trailer = t.trailer
		}
	}
	resp, err := e.rt.RoundTrip(req)
	if err != nil {
		a.unsent = dialFailed(err) || traced && !a.began.Load()
		return err
	}
	a.status, a.head, a.length, a.content, a.trailer = resp.StatusCode, resp.Header, resp.ContentLength, resp.Body, &resp.Trailer
	if a.head == nil {
		a.head = make(http.Header)
	}
	if a.content == nil {
		a.content = http.NoBody
	}
	if a.length == 0 && a.content != http.NoBody && a.head["Content-Length"] == nil {
		a.length = -1 // a round tripper of the app's that does not say
	}
	a.framed = resp.ContentLength >= 0 || resp.ProtoMajor >= 2 && !resp.Close || slices.Contains(resp.TransferEncoding, "chunked")
	if a.status == http.StatusSwitchingProtocols {
		a.tunnel, _ = resp.Body.(io.ReadWriteCloser)
	}
	a.span.Head(resp.StatusCode, resp.Proto, "")
	return nil
}
