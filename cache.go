package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/embedgw/gateway/internal/flight"
	"github.com/embedgw/gateway/internal/forward"
	"github.com/embedgw/gateway/internal/rfc9111"
	"github.com/embedgw/gateway/internal/store"
	"github.com/embedgw/gateway/internal/work"
)

// A Cache stores responses by the rules for shared HTTP caches (RFC 9111),
// within a budget of bytes. One may serve several gateways. It is safe for
// concurrent use. Make it with [NewCache]; the zero value is of no use. Whoever
// made it ends it with [Cache.Shutdown].
type Cache struct {
	store     *store.Store[*resource]
	maxObject int64
	fills     work.Gate // also closes the cache: nothing enters any more
	closed    atomic.Bool
	hits      counter
	misses    counter
	status    statusLines
	stopWatch func()
}

const (
	defaultCacheBytes  = 64 << 20
	defaultObjectBytes = 8 << 20
)

// NewCache makes a cache. It starts nothing. The error joins an
// [*OptionError] for each fault.
func NewCache(opts ...CacheOption) (*Cache, error) {
	c := cacheConfig{maxBytes: defaultCacheBytes}
	for i, o := range opts {
		if o == nil {
			c.list.faultOf("NewCache", strconv.Itoa(i), "the option is nil")
			continue
		}
		o.applyCache(&c)
	}
	if c.maxObjectBytes == 0 {
		c.maxObjectBytes = min(c.maxBytes/8, defaultObjectBytes)
	}
	if c.list.given["WithMaxObjectBytes"] && c.maxObjectBytes > c.maxBytes {
		c.list.faultOf("WithMaxObjectBytes", strconv.FormatInt(c.maxObjectBytes, 10), "more than the whole cache")
	}
	if err := errors.Join(append(c.shared.list.faults, c.list.faults...)...); err != nil {
		return nil, err
	}
	cache := &Cache{store: store.New[*resource](c.maxBytes), maxObject: c.maxObjectBytes}
	stop, err := observeCache(&c.shared, cache)
	if err != nil {
		return nil, err
	}
	cache.stopWatch = stop
	return cache, nil
}

// Clear removes everything that is stored.
func (c *Cache) Clear() { c.store.Clear() }

// Shutdown stops looking up and storing, waits for the responses that are
// being stored, and frees the memory. Services that use the cache go on
// without it. When ctx ends first, its error is returned. Calling it again is
// fine.
func (c *Cache) Shutdown(ctx context.Context) error {
	c.closed.Store(true)
	c.fills.Close()
	defer c.store.Clear()
	defer c.stopWatch()
	select {
	case <-c.fills.Idle():
		return nil
	default:
	}
	select {
	case <-c.fills.Idle():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// resource is what is stored under one key: the variants that Vary tells
// apart, the youngest last. It is immutable; a change is another resource.
type resource struct{ variants []*entry }

// maxVariants bounds the variants of one resource.
const maxVariants = 16

// entry is one stored response. It is immutable but for its clock.
type entry struct {
	status   int
	fields   []field
	body     [][]byte
	length   int64
	size     int64 // of all of it, in bytes
	vary     []string
	variant  []byte
	received time.Time
	terms    rfc9111.Terms
	lines    int  // of all fields
	refers   bool // has Location or Content-Location
	untyped  bool // has no Content-Type
	clock    atomic.Pointer[clock]
}

type field struct {
	name   string
	values []string
}

// clock holds the fields of a hit that change with each second.
type clock struct {
	age    int64
	header []string // Age
	status []string // Cache-Status
}

// at returns the fields for an age, made once for each second.
func (e *entry) at(age time.Duration) *clock {
	seconds := int64(age / time.Second)
	if c := e.clock.Load(); c != nil && c.age == seconds {
		return c
	}
	text := make([]string, 2)
	text[0] = strconv.FormatInt(seconds, 10)
	text[1] = cacheName + "; hit; ttl=" + strconv.FormatInt(int64(e.terms.Lifetime/time.Second)-seconds, 10)
	c := &clock{age: seconds, header: text[0:1:1], status: text[1:2:2]}
	e.clock.Store(c)
	return c
}

// find returns the variant that answers a request with that header.
func (r *resource) find(h http.Header) *entry {
	for _, e := range slices.Backward(r.variants) {
		if rfc9111.MatchVariant(e.variant, e.vary, h) {
			return e
		}
	}
	return nil
}

// with returns the resource with e in the place of the variant that it
// replaces, and without the oldest if they are too many.
func (r *resource) with(e *entry) *resource {
	if r == nil {
		return &resource{variants: []*entry{e}}
	}
	others := make([]*entry, 0, len(r.variants)+1)
	for _, old := range r.variants {
		if !bytes.Equal(old.variant, e.variant) {
			others = append(others, old)
		}
	}
	return &resource{variants: append(others[max(0, len(others)-maxVariants+1):], e)}
}

func (r *resource) size() (n int64) {
	for _, e := range r.variants {
		n += e.size
	}
	return n
}

// cacheName is this cache in Cache-Status (RFC 9211 §2).
const cacheName = "gateway"

// cacheOutcome is what the cache did with a request, in the words of RFC 9211.
type cacheOutcome struct {
	by  *Cache // nil: none was asked
	hit *clock // the fields of a hit
	missed
}

// missed is why a request went upstream, and what became of the answer. Its
// values are from closed lists.
type missed struct {
	forward string // "uri-miss", "vary-miss", "stale", "request", "method"
	detail  string // why the answer is not stored
	stored  bool
}

// String names the outcome for telemetry: "hit", or why it went upstream.
func (o *cacheOutcome) String() string {
	if o.hit != nil {
		return "hit"
	}
	return o.forward
}

// setCacheStatus tells the client what the cache did (RFC 9211).
func (x *exchange) setCacheStatus(h http.Header) {
	if x.cache.by == nil {
		return
	}
	line := x.cache.by.status.line(x.cache.missed)
	if had := h["Cache-Status"]; len(had) > 0 {
		line = append(had[:len(had):len(had)], line...)
	}
	h["Cache-Status"] = line
}

// statusLines keeps the Cache-Status of each outcome that occurred. They are
// few.
type statusLines struct {
	mu    sync.Mutex // of writers
	known atomic.Pointer[map[missed][]string]
}

func (l *statusLines) line(m missed) []string {
	if known := l.known.Load(); known != nil {
		if line := (*known)[m]; line != nil {
			return line
		}
	}
	text := cacheName + "; fwd=" + m.forward
	if m.stored {
		text += "; stored"
	} else if m.detail != "" {
		text += "; detail=" + m.detail
	}
	line := []string{text}
	l.mu.Lock()
	defer l.mu.Unlock()
	next := map[missed][]string{m: line}
	if known := l.known.Load(); known != nil {
		maps.Copy(next, *known)
	}
	l.known.Store(&next)
	return line
}

// throughCache serves the request from c, or through it.
func (x *exchange) throughCache(c *Cache) *Error {
	if c.closed.Load() {
		return x.pass()
	}
	r := x.r
	control := rfc9111.ParseRequest(r.Header)
	if why := rfc9111.Lookup(r.Method, r.Header, control, x.hasBody()); why != "" {
		x.cache = cacheOutcome{by: c, missed: missed{forward: fwdOf(why), detail: string(why)}}
		return x.pass()
	}
	var scratch [512]byte
	key := x.cacheKey(scratch[:0])
	x.cache = cacheOutcome{by: c, missed: missed{forward: "uri-miss"}}
	if res, ok := c.store.Get(key); ok {
		x.cache.forward = "vary-miss"
		if e := res.find(r.Header); e != nil {
			x.cache.forward = "stale"
			age := rfc9111.CurrentAge(e.terms.Age, e.received, x.start)
			if e.terms.Use(control, age) == rfc9111.Fresh {
				c.hits.Add(1)
				return x.hit(e, age)
			}
			if e.terms.Fresh(age) {
				x.cache.forward = "request"
			}
		}
	}
	c.misses.Add(1)
	if control.OnlyIfCached {
		return fault(ReasonNotCached, nil) // RFC 9111 §5.2.1.7
	}
	if r.Method == http.MethodHead {
		x.cache.detail = "method"
		return x.pass()
	}
	return x.miss(c, key)
}

func fwdOf(why rfc9111.Bypass) string {
	if why == rfc9111.BypassMethod {
		return "method"
	}
	return "request"
}

// cacheKey appends the key of what a GET of this target would find. All that
// the upstream is told of where the request came in is a part of it: its
// answer may repeat that.
func (x *exchange) cacheKey(dst []byte) []byte {
	r, target := x.r, x.rest
	if r.URL.ForceQuery {
		target += "?" // which a path cannot hold
	}
	host, proto, prefix := x.svc.rules.Site(&forward.Inbound{
		Header: r.Header, RemoteAddr: r.RemoteAddr, Host: r.Host, TLS: r.TLS != nil, Prefix: x.prefix,
	})
	return rfc9111.AppendKey(dst, x.svc.scope, proto, host, r.Host, prefix, target, x.query)
}

// hit answers from a stored response. The bytes are the store's, the header is
// not: what the app's middleware does to it changes nothing that is stored.
func (x *exchange) hit(e *entry, age time.Duration) *Error {
	clock := e.at(age)
	x.cache.hit = clock
	h := x.w.Header()
	begun := len(h) > 0
	lines := make([]string, 0, e.lines+2)
	put := func(name string, values []string) {
		n := len(lines)
		lines = append(lines, values...)
		values = lines[n:len(lines):len(lines)]
		if begun || name == "Cache-Status" { // which may be stored, too
			forward.Put(h, name, values)
		} else {
			h[name] = values
		}
	}
	for i := range e.fields {
		put(e.fields[i].name, e.fields[i].values)
	}
	put("Age", clock.header)
	begun = true // after what caches nearer to the origin said (RFC 9211 §2)
	put("Cache-Status", clock.status)
	if e.untyped && h["Content-Type"] == nil {
		h["Content-Type"] = nil // or net/http's server would guess one
	}
	if e.refers {
		x.relocate(h) // by where this request came in
	}
	x.setRequestID(h)
	x.wrote, x.status = true, e.status
	x.w.WriteHeader(e.status)
	if x.r.Method == http.MethodHead {
		return nil
	}
	return x.writeBody(e.body, e.length)
}

// writeBody writes a body that is all there.
func (x *exchange) writeBody(body [][]byte, length int64) *Error {
	w := x.body(length, false)
	for _, chunk := range body {
		if _, err := w.Write(chunk); err != nil {
			return x.writeFault(err)
		}
	}
	w.settle()
	return nil
}

// miss fetches the answer, and stores it while it streams.
func (x *exchange) miss(c *Cache, key []byte) *Error {
	since := c.store.Begin(key)
	f := x.newFetch(true)
	if err := f.run(); err != nil {
		return err
	}
	a := f.answer
	received := a.start.Add(a.head1)
	ex := rfc9111.Exchange{
		Method: x.r.Method, Status: a.status, Request: x.r.Header, Sent: f.out.header, Response: a.head,
		Injected: x.svc.policy.injects(), Framed: a.framed, RequestTime: a.start, ResponseTime: received,
	}
	verdict := rfc9111.Storable(&ex, rfc9111.Config{Authorized: x.svc.policy.cacheAuthorized, Cookies: x.svc.policy.cacheCookies})
	if a.status != http.StatusOK {
		verdict = rfc9111.VerdictStatus // what is stored is written out as a 200 has it
	}
	switch {
	case verdict != "":
		x.cache.detail = string(verdict)
	case a.length > c.maxObject:
		x.cache.detail = "too-large"
	case len(*a.trailer) > 0:
		x.cache.detail = "trailer"
	case c.fills.Enter():
		return x.fill(&fill{cache: c, fetch: f, key: bytes.Clone(key), since: since, entry: newEntry(&ex)})
	}
	if a.length < 0 || a.length > inlineBody { // nobody else waits for it
		a.wire.Follow(x.r.Context())
	}
	err := x.relay(f)
	f.recycle()
	return err
}

// fill is one response on its way into the store.
type fill struct {
	cache *Cache
	fetch *fetch
	key   []byte
	since store.Since
	entry *entry
}

// newEntry prepares the head of a stored response.
func newEntry(ex *rfc9111.Exchange) *entry {
	e := &entry{status: ex.Status, received: ex.ResponseTime}
	e.terms = rfc9111.TermsOf(ex, rfc9111.Config{})
	names, _ := rfc9111.ParseVary(ex.Response)
	e.vary = names
	e.variant = rfc9111.AppendVariant(nil, names, ex.Request)
	return e
}

// inlineBody is how long a body may be that the leader itself stores while it
// sends it. What connections buffer holds as much, so that hardly a client is
// slow enough to hold it up.
const inlineBody = 256 << 10

// fill stores the answer while it goes to the client.
func (x *exchange) fill(fl *fill) *Error {
	a := fl.fetch.answer
	x.cache.stored = true
	store, key := fl.cache.store, fl.key
	a.wire.OnSurplus(func() { store.Invalidate(key) }) // RFC 9112 §11.2
	forward.StripHop(a.head)
	if a.length < 0 || a.length > inlineBody {
		return x.fillBehind(fl)
	}
	defer fl.cache.fills.Leave()
	if !fl.cache.store.Reserve(a.length) {
		x.cache.stored, x.cache.detail = false, "full"
		return x.relay(fl.fetch)
	}
	err := x.fillInline(fl)
	fl.fetch.recycle()
	return err
}

// fillInline reads a short body of known length, stores it, and sends each
// piece as it comes. A client that leaves does not end it.
func (x *exchange) fillInline(fl *fill) (err *Error) {
	a, reserved := fl.fetch.answer, fl.fetch.answer.length
	defer func() {
		fl.cache.store.Release(reserved)
		fl.fetch.close(err)
	}()
	body := make([]byte, a.length)
	var w *bodyWriter
	var gone *Error
	for n := 0; ; {
		m, end, readErr := readPiece(a, body[n:])
		if readErr != nil {
			x.cache.stored = false
			return x.bodyFault(readErr)
		}
		piece := body[n : n+m]
		n += m
		if end {
			fl.fetch.close(nil)
			fl.cache.store.Release(reserved)
			reserved = 0
			if a.wire.Surplus() {
				x.cache.stored, x.cache.detail = false, "surplus"
			} else {
				fl.commit(a.head, [][]byte{body})
			}
		}
		if w == nil {
			x.writeHead(a)
			w = x.body(a.length, false)
		}
		if gone == nil && m > 0 {
			if _, err := w.Write(piece); err != nil {
				gone = x.writeFault(err)
			}
		}
		if end {
			w.settle()
			return gone
		}
	}
}

// readPiece reads into p, the rest of a body, what one read brings: at least a
// byte, where there is one to come. At the end it has seen that nothing
// follows, and the connection is free again.
func readPiece(r io.Reader, p []byte) (n int, end bool, err error) {
	for range 100 {
		var m int
		if n < len(p) {
			m, err = r.Read(p)
		} else {
			var probe [1]byte
			if m, err = r.Read(probe[:]); m > 0 {
				return n, false, errSurplus
			}
		}
		switch n += m; {
		case errors.Is(err, io.EOF) && n == len(p):
			return n, true, nil
		case errors.Is(err, io.EOF):
			return n, false, io.ErrUnexpectedEOF
		case err != nil:
			return n, false, err
		case 0 < n && n < len(p):
			return n, false, nil
		}
	}
	return n, false, io.ErrNoProgress
}

var errSurplus = errors.New("the body is longer than declared")

// fillBehind has a task read the body into a flight, and sends it to the
// client as it comes in. The client may leave or stall: the task goes on.
func (x *exchange) fillBehind(fl *fill) *Error {
	a, c := fl.fetch.answer, fl.cache
	body := flight.New(flight.Config{
		Length: a.length, Limit: c.maxObject, Reserve: c.store.Reserve, Release: c.store.Release,
		Unread: func() { a.wire.Abort(context.Canceled) },
	})
	reader, _ := body.Reader()
	defer reader.Close()
	started, refused := false, fault(ReasonShuttingDown, work.ErrShutdown)
	defer func() {
		if !started { // the tasks are closed, or a panic
			body.Fail(refused)
			fl.fetch.close(refused)
			c.fills.Leave()
		}
	}()
	length, flush := a.length, forward.NeedsFlush(a.head, a.length)
	head := maps.Clone(a.head) // what it holds is never written to
	x.writeHead(a)
	started = x.life.Go("cache fill", func() { fl.behind(body, head) })
	if !started {
		return refused
	}
	return x.follow(reader, length, flush)
}

// behind is the task that fills body, and commits it where it came whole.
func (fl *fill) behind(body *flight.Flight, head http.Header) {
	defer fl.cache.fills.Leave()
	broken := fault(ReasonTruncated, nil)
	defer func() { fl.fetch.close(broken) }() // also after a panic of the body's
	if err := body.Fill(fl.fetch.answer); err != nil {
		broken.Err = err
		return
	}
	broken = nil
	fl.fetch.close(nil)
	if chunks, ok := body.Body(); ok {
		fl.cache.store.Release(lengthOf(chunks))
		if !fl.fetch.answer.wire.Surplus() {
			fl.commit(head, chunks)
		}
	}
}

// follow sends a growing body to the client.
func (x *exchange) follow(reader *flight.Reader, length int64, flush bool) *Error {
	w := x.body(length, flush)
	gone := x.r.Context().Done()
	for {
		chunk, err := reader.Next(gone)
		switch {
		case errors.Is(err, io.EOF):
			w.settle()
			return nil
		case errors.Is(err, flight.ErrStopped):
			return clientGone(x.r.Context())
		case err != nil:
			return x.bodyFault(err)
		}
		if _, err := w.Write(chunk); err != nil {
			return x.writeFault(err)
		}
	}
}

// entryOverhead is what an entry costs beside its bytes, and fieldOverhead what
// a field does.
const (
	entryOverhead = 256
	fieldOverhead = 48
)

// commit stores the response, unless its key was invalidated meanwhile.
func (fl *fill) commit(head http.Header, body [][]byte) {
	e := fl.entry
	e.body, e.length = body, lengthOf(body)
	e.size = e.length + entryOverhead + int64(len(e.variant))
	e.fields = make([]field, 0, len(head)+1)
	for name, values := range head {
		if name == "Age" || name == "Content-Length" || name == fl.fetch.svc.policy.requestIDHeader {
			continue
		}
		e.fields = append(e.fields, field{name, values[:len(values):len(values)]})
	}
	e.refers = head["Location"] != nil || head["Content-Location"] != nil
	length := head["Content-Length"]
	if len(length) != 1 || fl.fetch.answer.length != e.length {
		length = []string{strconv.FormatInt(e.length, 10)}
	}
	e.fields = append(e.fields, field{"Content-Length", length[:1:1]})
	if head["Date"] == nil { // RFC 9110 §6.6.1
		e.fields = append(e.fields, field{"Date", []string{e.received.UTC().Format(http.TimeFormat)}})
	}
	e.untyped = head["Content-Type"] == nil
	for _, f := range e.fields {
		e.lines += len(f.values)
		e.size += int64(len(f.name)) + fieldOverhead
		for _, v := range f.values {
			e.size += int64(len(v)) + 16
		}
	}
	if fl.cache.closed.Load() {
		return
	}
	fl.cache.store.UpdateSince(fl.since, fl.key, func(old *resource, _ bool) (store.Item[*resource], bool) {
		r := old.with(e)
		return store.Item[*resource]{Value: r, Size: r.size()}, true
	})
}

func lengthOf(body [][]byte) (n int64) {
	for _, chunk := range body {
		n += int64(len(chunk))
	}
	return n
}

// invalidate removes what an unsafe request has made untrue (RFC 9111 §4.4).
func (x *exchange) invalidate(a *attempt) {
	if c := x.svc.policy.cache; c != nil && rfc9111.Invalidates(x.r.Method, a.status) {
		var scratch [512]byte
		c.store.Invalidate(x.cacheKey(scratch[:0]))
	}
}
