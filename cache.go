package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/embedgw/gateway/internal/deliver"
	"github.com/embedgw/gateway/internal/draft"
	"github.com/embedgw/gateway/internal/flight"
	"github.com/embedgw/gateway/internal/forward"
	"github.com/embedgw/gateway/internal/rfc9111"
	"github.com/embedgw/gateway/internal/store"
	"github.com/embedgw/gateway/internal/telemetry"
	"github.com/embedgw/gateway/internal/work"
)

// A Cache stores responses by the rules for shared HTTP caches (RFC 9111),
// within a budget of bytes. One may serve several gateways. It is safe for
// concurrent use. Make it with [NewCache]; the zero value is of no use. Whoever
// made it ends it with [Cache.Shutdown].
type Cache struct {
	store     *store.Store[*rfc9111.Resource]
	calls     *flight.Group[*answer]
	maxObject int64
	fills     work.Gate // also closes the cache: nothing enters any more
	closed    atomic.Bool
	behind    *work.Queue // refreshes what was served stale
	tasks     *work.Tasks // its workers
	core      *core       // of handlers under Wrap
	policy    policy      // theirs

	mu      sync.Mutex
	tenants map[string]*tenant // by name

	hits      counter
	misses    counter
	stale     counter // of the hits, and of what stood in
	results   [len(cacheResults)]counter
	refreshes counter
	lines     rfc9111.Lines
	watched   *telemetry.Watch
}

// tenant is who uses a cache by one name: services, and handlers.
type tenant struct {
	users   int
	scope   store.Scope         // 0: it never had a share
	queries []*rfc9111.KeyRules // by which it has not told all queries apart
}

// caching is what the options say about the use of a cache.
type caching struct {
	rules      rfc9111.Config
	collapse   time.Duration // the wait for another's fetch; zero: nobody waits
	share      float64       // of the cache's bytes; zero: all
	silent     bool          // no Cache-Status, no Age
	showKey    bool
	background bool // handlers may be asked again behind a request
}

const (
	defaultCacheBytes  = 64 << 20
	defaultObjectBytes = 8 << 20

	maxQueryRules = 16 // that one name has been used with

	refreshWorkers = 4
	refreshQueue   = 1024
)

// NewCache makes a cache. It starts nothing. The error joins an
// [*OptionError] for each fault.
func NewCache(opts ...CacheOption) (*Cache, error) {
	c := cacheConfig{maxBytes: defaultCacheBytes, handlers: serviceConfig{policy: defaultPolicy()}}
	for i, o := range opts {
		if o == nil {
			c.list.faultOf("NewCache", "", nilOption(i))
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
	if err := errors.Join(slices.Concat(c.shared.list.faults, c.list.faults, c.handlers.list.faults)...); err != nil {
		return nil, err
	}
	core, err := newCore(&c.shared)
	if err != nil {
		return nil, err
	}
	cache := &Cache{
		store: store.New[*rfc9111.Resource](c.maxBytes), calls: flight.NewGroup[*answer](), lines: rfc9111.Lines{Cache: cacheName}, maxObject: c.maxObjectBytes,
		tasks: work.NewTasks(core.panicked), core: core, policy: c.handlers.policy, tenants: make(map[string]*tenant),
	}
	cache.behind = work.NewQueue(work.QueueConfig{
		Name: "cache refresh", Workers: refreshWorkers, Size: refreshQueue, OnPanic: core.panicked, Go: cache.tasks.Go,
	})
	if err := cache.observe(); err != nil {
		return nil, err
	}
	return cache, nil
}

// adopt has a service, or handlers of that name, use the cache, and bounds how much
// of it. The name tells scopes apart. Known says that it has been adopted before.
func (c *Cache) adopt(name string, known bool, by *caching) store.Scope {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tenants[name]
	if t == nil {
		t = new(tenant)
		c.tenants[name] = t
	}
	if !known {
		t.users++
	}
	if key := &by.rules.Key; key.RulesQuery() && !slices.ContainsFunc(t.queries, key.SameQuery) {
		t.queries = append(t.queries, key)
	}
	if len(t.queries) > maxQueryRules { // what was stored by the first is found no more by Purge
		t.queries = slices.Clone(t.queries[1:])
		c.purgeScope(name)
	}
	if by.share == 0 {
		return 0
	}
	if t.scope == 0 {
		t.scope = c.store.NewScope()
	}
	c.store.SetShare(t.scope, int64(by.share*float64(c.store.Stats().MaxBytes)))
	return t.scope
}

func (c *Cache) purgeScope(name string) {
	c.store.Purge(func(key string, _ *rfc9111.Resource) bool { return rfc9111.KeyScope(key) == name })
}

// release says that a service uses the cache no more. With the last one of a name
// goes what is known of that, and what this was known for.
func (c *Cache) release(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tenants[name]
	if t.users--; t.users > 0 {
		return
	}
	delete(c.tenants, name)
	if t.scope != 0 || t.queries != nil {
		c.purgeScope(name)
	}
	if t.scope != 0 {
		c.store.FreeScope(t.scope)
	}
}

// Clear removes everything that is stored, and lets nothing be stored that is
// on its way.
func (c *Cache) Clear() {
	c.store.Clear()
	c.calls.DetachAll()
}

// Shutdown stops looking up and storing, drops refreshes that have not begun,
// waits for the responses that are being stored, and frees the memory. Services
// that use the cache go on without it. When ctx ends first, its error is
// returned. Calling it again is fine.
func (c *Cache) Shutdown(ctx context.Context) error {
	c.closed.Store(true)
	c.fills.Close()
	defer c.store.Clear()
	defer c.watched.Stop()
	err := c.behind.Stop(ctx, false)
	c.tasks.Close()
	for _, idle := range []<-chan struct{}{c.fills.Idle(), c.tasks.Idle()} {
		select {
		case <-idle:
			continue
		default:
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return err
}

// Purge removes what is stored for one URI of a service, or of a handler under
// that name: its path below the service, with its query, such as "/42?full=1".
// All variants go, whatever host and prefix they were asked for at. What is on
// its way is not stored. It returns how many entries it removed, and takes a
// time that grows with the cache, during which the cache is used.
func (c *Cache) Purge(scope, uri string) int { return c.purge(scope, c.atURI(scope, uri), false) }

// PurgePrefix is Purge for all URIs whose path begins with prefix.
func (c *Cache) PurgePrefix(scope, prefix string) int {
	return c.purge(scope, underPrefix(prefix), false)
}

// PurgeTag removes, in all scopes, the responses that had one of the tags in
// Surrogate-Key, Cache-Tag or Cache-Groups (RFC 9875).
func (c *Cache) PurgeTag(tags ...string) int { return c.purgeTags(tags, false) }

// Expire is Purge, but what is stored may still be validated, or served stale
// while it is refreshed and while the service is down, as it allows.
func (c *Cache) Expire(scope, uri string) int { return c.purge(scope, c.atURI(scope, uri), true) }

// ExpirePrefix is PurgePrefix as Expire is Purge.
func (c *Cache) ExpirePrefix(scope, prefix string) int {
	return c.purge(scope, underPrefix(prefix), true)
}

// ExpireTag is PurgeTag as Expire is Purge.
func (c *Cache) ExpireTag(tags ...string) int { return c.purgeTags(tags, true) }

// purge removes, or has expire, the resources of a scope that match picks. What
// is on its way to them is not stored either.
func (c *Cache) purge(scope string, match func(*rfc9111.Key) bool, soft bool) int {
	return c.remove(func(key string, _ *rfc9111.Resource) bool {
		if rfc9111.KeyScope(key) != scope {
			return false
		}
		k := rfc9111.ParseKey(key)
		return match(&k)
	}, soft)
}

func (c *Cache) purgeTags(tags []string, soft bool) int {
	if len(tags) == 0 {
		return 0
	}
	return c.remove(func(_ string, r *rfc9111.Resource) bool { return r.Tagged(tags) }, soft)
}

func (c *Cache) remove(match func(key string, r *rfc9111.Resource) bool, soft bool) (n int) {
	if soft {
		n = c.store.Replace(func(key string, r *rfc9111.Resource) (*rfc9111.Resource, bool) {
			if r.Expired || !match(key, r) {
				return nil, false
			}
			return r.Expire(time.Now()), true
		})
	} else {
		n = c.store.Purge(match)
	}
	c.calls.DetachAll() // of which nobody knows yet what they will be
	return n
}

// atURI picks the resources of one URI.
func (c *Cache) atURI(scope, uri string) func(*rfc9111.Key) bool {
	target, query := rfc9111.ParseTarget(uri)
	queries := []string{query}
	c.mu.Lock()
	if t := c.tenants[scope]; t != nil {
		for _, rules := range t.queries {
			queries = append(queries, rules.Query(query))
		}
	}
	c.mu.Unlock()
	return func(k *rfc9111.Key) bool { return k.Target == target && slices.Contains(queries, k.Query) }
}

// underPrefix picks the resources whose path begins with prefix.
func underPrefix(prefix string) func(*rfc9111.Key) bool {
	return func(k *rfc9111.Key) bool { return strings.HasPrefix(k.Target, prefix) }
}

// cacheKey appends the key of what a GET of this target would find.
func (x *exchange) cacheKey(dst []byte) []byte {
	return x.appendKey(dst, rfc9111.KeyTarget(x.rest, x.r.URL.ForceQuery), x.query)
}

func (x *exchange) appendKey(dst []byte, target, query string) []byte {
	k := x.keyOf(target, query)
	return x.svc.policy.caching.rules.Key.Append(k.Append(dst), x.r)
}

// keyOf is what the key of a target and query says.
func (x *exchange) keyOf(target, query string) rfc9111.Key {
	r, svc := x.r, x.svc
	host, proto, prefix := svc.rules.Site(&forward.Inbound{
		Header: r.Header, RemoteAddr: r.RemoteAddr, Host: r.Host, TLS: r.TLS != nil, Prefix: x.prefix,
	})
	return rfc9111.Key{
		Scope: svc.up.name, Target: target, Query: svc.policy.caching.rules.Key.Query(query),
		Upstream: svc.scope, Proto: proto, Host: host, Asked: r.Host, Prefix: prefix,
	}
}

// itemOf is a resource as the store keeps it.
func itemOf(r *rfc9111.Resource, share store.Scope) store.Item[*rfc9111.Resource] {
	return store.Item[*rfc9111.Resource]{Value: r, Size: r.Size(), Scope: share, Expires: r.Useless().Unix()}
}

// cacheName is this cache in Cache-Status (RFC 9211 §2).
const cacheName = "gateway"

// cacheOutcome is what the cache did with a request, in the words of RFC 9211.
type cacheOutcome struct {
	by  *Cache       // nil: none was asked
	hit *rfc9111.Hit // nil: it went upstream
	rfc9111.Miss
}

// String names the outcome for telemetry: "hit", or why it went upstream.
func (o *cacheOutcome) String() string {
	if o.hit != nil {
		return "hit"
	}
	return string(o.Forward)
}

// cacheResults are all that String may say of a cache that was asked, the most
// frequent first.
var cacheResults = [...]string{
	"hit", string(rfc9111.ForwardURIMiss), string(rfc9111.ForwardVaryMiss), string(rfc9111.ForwardStale), string(rfc9111.ForwardPartial),
	string(rfc9111.ForwardRequest), string(rfc9111.ForwardMethod),
}

// count counts the outcome, once the exchange has ended.
func (o *cacheOutcome) count() {
	if o.by == nil {
		return
	}
	if i := slices.Index(cacheResults[:], o.String()); i >= 0 {
		o.by.results[i].Add(1)
	}
}

// setCacheStatus tells the client what the cache did (RFC 9211), in a line that
// nobody else has; slot is where to put it.
func (x *exchange) setCacheStatus(h http.Header, slot []string) {
	if x.cache.by == nil {
		return
	}
	caching := &x.svc.policy.caching
	switch {
	case caching.silent:
		return
	case caching.showKey:
		slot[0] = x.statusWithKey()
	case x.cache.hit != nil:
		slot[0] = x.cache.hit.Status
	default:
		slot[0] = x.cache.by.lines.Miss(x.cache.Miss)
	}
	line := slot[:1:1]
	if had := h["Cache-Status"]; len(had) > 0 { // of caches nearer to the origin (RFC 9211 §2)
		line = append(had[:len(had):len(had)], line...)
	}
	h["Cache-Status"] = line
}

func (x *exchange) statusWithKey() string {
	s := rfc9111.Status{Miss: x.cache.Miss}
	if hit := x.cache.hit; hit != nil {
		s = rfc9111.Status{Hit: true, Timed: true, TTL: hit.TTL}
	}
	target := x.rest
	if query := x.svc.policy.caching.rules.Key.Query(x.query); query != "" {
		target += "?" + query
	}
	s.Key = target
	return x.cache.by.lines.Status(&s)
}

// visit is a request's way through a cache.
type visit struct {
	x        *exchange
	by       *Cache
	key      []byte // primary (RFC 9111 §2)
	control  rfc9111.RequestControl
	found    *rfc9111.Resource // nil: nothing is stored under the key
	selected *rfc9111.Entry    // of it, what the request selects; nil: nothing
	age      time.Duration     // of selected
	doubt    rfc9111.Doubt     // why that has to be validated
	since    store.Since       // when the fetch began
	call     flight.Call[*answer]
	spent    bool          // a 304 has been about something that is not stored
	behind   bool          // nobody waits for it
	counted  bool          // as a miss
	ref      telemetry.Ref // the last attempt for it
}

// answer is what a call shares.
type answer struct {
	entry *rfc9111.Entry // a response that is stored, or on its way there
	fill  *fill          // by this; nil: it is all there
	since store.Since
	err   *Error        // of a call that failed
	ref   telemetry.Ref // the attempt that it came of
}

// hitForMiss is for how long requests for what may not be shared do not wait for
// each other.
const hitForMiss = 10 * time.Second

// throughCache serves the request from c, or through it.
func (x *exchange) throughCache(c *Cache) *Error {
	x.becomes(stageRoute, stageCache)
	v := &x.visit
	if !v.begin(x, c) {
		if v.barred() {
			return v.unsent()
		}
		return v.passBy()
	}
	x.keyBuf = v.key
	if v.look() {
		return v.hit()
	}
	switch v.unmet() {
	case needNothing:
		v.miss()
		return v.unsent()
	case needHead:
		v.miss()
		x.cache.Detail = "method"
		return v.passHead()
	case needPart:
		v.miss()
		return v.fetchPart()
	}
	return v.fetch()
}

// begin begins the visit of a request, and says whether the cache may have an
// answer to it.
func (v *visit) begin(x *exchange, c *Cache) bool {
	v.x, v.by, v.control = x, c, x.cacheControl()
	why := rfc9111.Lookup(x.r.Method, x.special, v.control, x.hasBody())
	if why == "" && x.misleads() {
		why = rfc9111.BypassConnection
	}
	x.cache = cacheOutcome{by: c, Miss: rfc9111.Miss{Forward: why.Forward(), Detail: string(why)}}
	if why != "" {
		return false
	}
	v.key = x.cacheKey(x.keyBuf[:0])
	return true
}

// barred reports whether a request that passes the cache by must not: it asks for
// what is stored, and for nothing else (RFC 9111 §5.2.1.7).
func (v *visit) barred() bool {
	return v.control.OnlyIfCached && v.x.cache.Forward != rfc9111.ForwardMethod
}

// unsent is the answer to a request that is not to be sent on.
func (v *visit) unsent() *Error {
	v.x.cache.Unsent, v.x.cache.Detail = true, "only-if-cached"
	return fault(ReasonNotCached, nil)
}

// need is what a request needs that what is stored does not answer.
type need uint8

const (
	needAnswer  need = iota
	needNothing      // but what is stored (RFC 9111 §5.2.1.7)
	needHead         // the answer to HEAD
	needPart         // a part, where nothing is stored or parts are
)

func (v *visit) unmet() need {
	switch x := v.x; {
	case v.control.OnlyIfCached:
		return needNothing
	case x.r.Method == http.MethodHead:
		return needHead
	case x.special["Range"] == nil, x.svc.handler != nil: // which is asked for all of it
	case v.selected == nil, v.selected.Partial(): // or all of it is validated, or got anew
		return needPart
	}
	return needAnswer
}

// misleads reports whether the operator's part of the key may be of a field that
// the service does not receive: its answer would be stored for those from whom it
// does.
func (x *exchange) misleads() bool {
	return x.svc.policy.caching.rules.Key.Extends() && x.svc.handler == nil && forward.Withholds(x.r.Header)
}

// miss counts, once, a request that what is stored does not answer.
func (v *visit) miss() {
	if !v.counted {
		v.counted = true
		v.by.misses.Add(1)
	}
}

// cacheControl is what the request asks of the cache.
func (x *exchange) cacheControl() rfc9111.RequestControl {
	if x.svc.policy.caching.rules.Unheeded {
		return rfc9111.ParseRequest(nil)
	}
	return rfc9111.ParseRequest(x.special)
}

// look looks for a stored response, and says whether it answers the request as
// it is. One that is refreshed behind it is.
func (v *visit) look() bool {
	x := v.x
	v.selected, v.found, x.cache.Forward = nil, nil, rfc9111.ForwardURIMiss
	res, ok := v.by.store.Get(v.key)
	if !ok {
		return false
	}
	switch v.weigh(res) {
	case rfc9111.Fresh, rfc9111.Stale:
		return true
	case rfc9111.WhileRevalidate:
		v.refresh()
		return true
	}
	return false
}

// weigh says what may be done with what is stored, and changes nothing but the
// visit and why its request is forwarded, if it is.
func (v *visit) weigh(res *rfc9111.Resource) rfc9111.Use {
	x := v.x
	v.found, x.cache.Forward = res, rfc9111.ForwardVaryMiss
	e := res.Find(x.r.Header)
	if e == nil {
		return rfc9111.MustValidate
	}
	v.selected, v.age = e, e.Age(x.start)
	if e.Partial() && !e.Covers(x.asked()) {
		x.cache.Forward = rfc9111.ForwardPartial
		return rfc9111.MustValidate
	}
	use, doubt := e.Terms.Judge(v.control, v.age)
	v.doubt = doubt
	if use == rfc9111.MustValidate {
		x.cache.Forward = rfc9111.ForwardStale
		if e.Terms.Fresh(v.age) {
			x.cache.Forward = rfc9111.ForwardRequest
		}
	}
	return use
}

// hit answers from what is stored.
func (v *visit) hit() *Error {
	if !v.counted {
		v.by.hits.Add(1)
	}
	if !v.selected.Terms.Fresh(v.age) {
		v.by.stale.Add(1)
	}
	v.x.cache.hit = v.selected.Hit(v.age, &v.by.lines)
	return v.x.answer(v.selected, v.age)
}

// fetch gets the answer from upstream: with others that ask for the same, if it
// may be shared.
func (v *visit) fetch() *Error {
	call, err, done := v.joins()
	if done {
		return err
	}
	return v.lead(call)
}

// joins answers with what another request like this one gets; done: it has. Else
// the request is to lead the call, which may be none.
func (v *visit) joins() (call flight.Call[*answer], err *Error, done bool) {
	wait, ok := v.waits()
	if !ok {
		return call, nil, false
	}
	key := v.key
	for range 2 {
		v.since = v.by.store.Begin(v.key)
		call, role := v.by.calls.Join(key, v.x.start)
		switch role {
		case flight.Lead:
			return call, nil, false
		case flight.Alone:
			return flight.Call[*answer]{}, nil, false
		}
		v.miss()
		v.x.reached(stageCollapse)
		shared, outcome := call.Wait(v.x.r.Context().Done(), wait)
		switch outcome {
		case flight.Promoted:
			return call, nil, false
		case flight.Stopped:
			return call, clientGone(v.x.r.Context()), true
		case flight.Failed:
			v.x.span.Link(shared.ref)
			return call, v.unanswered(shared.err.again()), true
		case flight.Shared:
			if v.suits(shared) {
				return call, v.join(shared), true
			}
			key = shared.entry.AppendVariant(bytes.Clone(v.key), v.x.r.Header) // those that ask for the same variant
			continue
		case flight.Refused:
			if v.look() { // it may be stored by now, and to be validated
				return call, v.hit(), true
			}
		}
		break
	}
	return flight.Call[*answer]{}, nil, false
}

// waits returns for how long the request may wait for the answer to another,
// should there be one like it; false: it may not.
func (v *visit) waits() (time.Duration, bool) {
	wait := v.x.svc.policy.caching.collapse
	return wait, wait > 0 && v.x.svc.rules.Hops(v.x.special) == 0 // or it may be the one that it would wait for
}

// suits reports whether another's answer is one to this request, and not from
// before it was made invalid.
func (v *visit) suits(a *answer) bool {
	return a.since == v.since && a.entry.Matches(v.x.r.Header)
}

// join answers with what was fetched for another.
func (v *visit) join(a *answer) *Error {
	x := v.x
	x.cache.Collapsed = true
	if a.fill == nil {
		x.span.Link(a.ref)
		return x.answer(a.entry, asItCame)
	}
	reader, ok := a.fill.body.Reader()
	if !ok { // it is too long to begin once more
		x.cache.Collapsed = false
		return v.lead(flight.Call[*answer]{})
	}
	defer reader.Close()
	x.span.Link(a.ref)
	a.fill.takeOver()
	return x.follow(a.entry, reader)
}

// lead fetches the answer, for all who wait for it.
func (v *visit) lead(call flight.Call[*answer]) *Error {
	v.call = call
	defer v.call.Abandon()
	if v.since == (store.Since{}) {
		v.since = v.by.store.Begin(v.key)
	}
	if call.Key() != nil && v.look() { // another's answer came in between
		return v.hit()
	}
	v.miss()
	return v.ask()
}

// ask sends the request upstream, with conditions where something is stored.
func (v *visit) ask() *Error {
	x := v.x
	if x.svc.handler != nil {
		return v.askHandler()
	}
	shared := v.call.Key() != nil
	f := x.newFetch(shared)
	if shared {
		f.awaited, f.watched = awaited{v.call}, f.client
	}
	f.plain = shared || v.selected != nil
	f.missing, f.validate = v.demand()
	err := f.run()
	if f.answer != nil {
		v.ref = f.answer.span.Ref()
	}
	if err != nil {
		return v.unanswered(err)
	}
	return v.answered(f)
}

// demand returns what is missing of what is stored, if a part is, and what is to
// be validated.
func (v *visit) demand() (missing rfc9111.Span, validate []rfc9111.Validators) {
	e := v.selected
	if e == nil || !e.Partial() {
		return missing, v.conditions()
	}
	if missing = e.Missing(v.by.maxObject); missing.Len() > 0 {
		validate = []rfc9111.Validators{e.Validators}
	}
	return missing, validate
}

// distrust has what is stored under the key removed if it turns out that more
// came than the answer: it may not be the one that was asked for (RFC 9112
// §11.2). Nobody writes to the key.
func (v *visit) distrust(a *attempt, key []byte) {
	kept := v.by.store
	a.wire.OnSurplus(func() { kept.Invalidate(key) })
}

// awaited is who waits for the answer beside the client that leads a call: the end
// of that one's context counts only where nobody does.
type awaited struct{ call flight.Call[*answer] }

// Wait reports whether anybody does.
func (a *awaited) Wait() bool { return a.call.Followers() > 0 }

// validatable are the stored responses that a 304 may be about.
func (v *visit) validatable() []*rfc9111.Entry {
	if v.found == nil || v.spent {
		return nil
	}
	return v.found.Validatable(v.selected, v.x.r.Header)
}

// conditions are what tells these apart.
func (v *visit) conditions() []rfc9111.Validators {
	return rfc9111.Conditions(v.validatable(), v.selected)
}

// share gives an answer that is stored to all who wait for it, or sends them off
// where it would have to be validated for each of them.
func (v *visit) share(a *answer) {
	if !a.entry.Terms.Single {
		v.call.Share(a)
		return
	}
	v.call.Refuse(v.x.start, hitForMiss)
}

// answered goes on with the head of the upstream's answer.
func (v *visit) answered(f *fetch) *Error {
	a := f.answer
	switch {
	case a.status == http.StatusNotModified && f.conditional && f.missing.Len() == 0:
		return v.validated(f)
	case a.status == http.StatusPartialContent && f.missing.Len() > 0:
		return v.completed(f)
	case a.status == http.StatusRequestedRangeNotSatisfiable && f.missing.Len() > 0: // the client has asked for no range
		f.close(nil)
		return v.anew()
	case rfc9111.Troubled(a.status) && v.standsIn(true):
		return v.insteadOf(f)
	}
	if e := v.entered(f); e != nil {
		return v.store(f, e)
	}
	return v.relayAlone(f)
}

// entered is the beginning of an entry, where an answer may be stored and the
// fills have it; or nil.
func (v *visit) entered(f *fetch) *rfc9111.Entry {
	a := f.answer
	ex := v.received(f)
	if !v.enter(&ex, a.length > v.by.maxObject, len(*a.trailer) > 0) {
		return nil
	}
	return v.x.svc.newEntry(&ex)
}

// validated goes on after the 304 to our own condition.
func (v *visit) validated(f *fetch) *Error {
	ex := v.received(f)
	v.distrust(f.answer, bytes.Clone(v.key))
	f.close(nil)
	return v.notModified(&ex, f.validate)
}

// enter decides on storing an answer, and enters the fills with it, or notes why
// not.
func (v *visit) enter(ex *rfc9111.Exchange, tooLarge, trailer bool) bool {
	x := v.x
	verdict := rfc9111.Storable(ex, &x.svc.policy.caching.rules)
	switch {
	case verdict != rfc9111.VerdictStore:
		x.cache.Detail = string(verdict)
	case tooLarge:
		x.cache.Detail = "too-large"
	case trailer:
		x.cache.Detail = "trailer"
	case !v.by.store.Admit(x.svc.share, v.key) && v.call.Quit():
		x.cache.Detail = "not-admitted"
	default:
		return v.by.fills.Enter()
	}
	return false
}

// received is what of a fetch decides on storing its answer.
func (v *visit) received(f *fetch) rfc9111.Exchange {
	a := f.answer
	return rfc9111.Exchange{
		Method: v.x.r.Method, Status: a.status, Request: v.x.r.Header, Sent: f.out.header, Response: a.head, Injected: v.x.svc.policy.injects(),
		Framed: a.framed, RequestTime: a.start, ResponseTime: a.start.Add(a.head1),
	}
}

// insteadOf serves what is stored in the place of the upstream's answer.
func (v *visit) insteadOf(f *fetch) *Error {
	a := f.answer
	v.x.cache.ForwardStatus = a.status
	a.discard()
	f.close(nil)
	return v.unanswered(upstreamFault(a.status))
}

// upstreamFault is the failure of a call whose answer was an error.
func upstreamFault(status int) *Error {
	err := fault(ReasonShared, nil)
	err.Status, err.received = status, status
	return err
}

// standsIn reports whether what is stored may be served in place of an error, which
// the upstream itself has answered with, or which is ours.
func (v *visit) standsIn(answered bool) bool {
	e := v.selected
	return e != nil && !e.Partial() && e.Terms.AfterError(v.control, v.age, v.x.svc.policy.caching.rules.MaxStale, answered)
}

// standsInFor is standsIn for a failure.
func (v *visit) standsInFor(err *Error) bool {
	return !v.x.alone(err) && v.standsIn(err.Reason == ReasonShared)
}

// alone reports whether a failure says nothing about the service.
func (x *exchange) alone(err *Error) bool {
	return err.Reason == ReasonPanic || err.Reason == ReasonShuttingDown || errors.Is(x.r.Context().Err(), context.Canceled)
}

// unanswered goes on without an answer, for all who wait: with what is stored,
// where that may stand in (RFC 9111 §4.2.4, RFC 5861 §4).
func (v *visit) unanswered(err *Error) *Error {
	if v.x.alone(err) {
		return err // another leads
	}
	if err.Reason != ReasonTimeout || !v.x.overdue() {
		v.call.Fail(&answer{err: err, ref: v.ref})
	}
	if v.behind || !v.standsInFor(err) {
		return err
	}
	v.by.stale.Add(1)
	v.x.cache.Forward, v.x.cache.Detail = rfc9111.ForwardStale, "stale-if-error"
	return v.x.answer(v.selected, v.age)
}

// overdue reports whether the app has given this request less time than it took.
func (x *exchange) overdue() bool {
	due, ok := x.r.Context().Deadline()
	return ok && !time.Now().Before(due)
}

// relayAlone sends an answer that is not stored to this client.
func (v *visit) relayAlone(f *fetch) *Error {
	x, a := v.x, f.answer
	v.refuse(a.status)
	if f.plain && v.clientHas(a) {
		x.cache.ForwardStatus = a.status
		if a.whole() {
			a.discard() // and its connection can be used again
		}
		f.close(nil)
		x.relayNotModified(a)
		return nil
	}
	if f.detached && !a.whole() { // nobody else waits for it
		a.wire.Follow(x.r.Context())
	}
	return x.relay(f)
}

// refuse has those who wait for an answer that is not stored wait no longer, and
// removes what it makes untrue.
func (v *visit) refuse(status int) {
	if status >= 500 {
		v.call.Fail(&answer{err: upstreamFault(status), ref: v.ref})
		return
	}
	v.call.Refuse(v.x.start, hitForMiss)
	if v.selected != nil && rfc9111.Replaces(status) {
		v.by.store.Invalidate(v.key)
	}
}

var errUnneeded = errors.New("the client has it")

// clientHas reports whether the client's own conditions, which the upstream was
// not sent, have the answer be a 304.
func (v *visit) clientHas(a *attempt) bool {
	if v.x.special["If-None-Match"] == nil && v.x.special["If-Modified-Since"] == nil {
		return false
	}
	validators := rfc9111.ParseValidators(a.head, v.x.start)
	return rfc9111.NotModified(v.x.r.Method, v.x.special, a.status, &validators, v.x.start)
}

// notModified freshens what is stored by a 304 (RFC 9111 §4.3.4), which answers
// conditions on named.
func (v *visit) notModified(ex *rfc9111.Exchange, named []rfc9111.Validators) *Error {
	x := v.x
	response := rfc9111.ParseValidators(ex.Response, ex.ResponseTime)
	old := rfc9111.Confirmed(v.validatable(), named, v.selected, &response)
	if old == nil {
		if v.spent {
			return v.unanswered(fault(ReasonBadResponse, badResponse("304 about something else")))
		}
		v.spent, v.selected = true, nil // once more, without conditions
		return v.ask()
	}
	x.cache.ForwardStatus = http.StatusNotModified
	if cookies := ex.Response["Set-Cookie"]; cookies != nil && old.Head.Get("Set-Cookie") == "" {
		forward.Put(x.w.Header(), "Set-Cookie", cookies) // this client's alone: it is not stored (RFC 9111 §7.3)
	}
	e, verdict, gone := x.svc.freshened(old, ex)
	return v.renewed(e, verdict, gone)
}

// renewed goes on with what is stored and has just been brought up to date, if it
// may still be stored: the newer header may forbid that, and then it is gone.
func (v *visit) renewed(e *rfc9111.Entry, verdict rfc9111.Verdict, gone bool) *Error {
	x := v.x
	if verdict != rfc9111.VerdictStore {
		x.cache.Detail = string(verdict)
		v.call.Refuse(x.start, hitForMiss)
		if gone {
			v.by.store.Invalidate(v.key)
		}
		return x.answer(e, asItCame)
	}
	x.noteStored(v.by.commit(v.key, v.since, x.svc.share, e, v.selected))
	v.share(&answer{entry: e, since: v.since, ref: v.ref})
	defer v.call.Done()
	return x.answer(e, asItCame)
}

// freshened returns an entry as a newer response without content has left it, for
// requests like that one's, whether it may still be stored, and whether what is
// must go.
func (s *service) freshened(e *rfc9111.Entry, ex *rfc9111.Exchange) (_ *rfc9111.Entry, _ rfc9111.Verdict, gone bool) {
	newer, rules := e.Newer(ex), &s.policy.caching.rules
	verdict := rfc9111.Storable(&newer, rules)
	gone = e.Withdrawn(verdict, &newer, rules)
	return s.newEntry(&newer).With(e.Body), verdict, gone
}

// noteStored notes whether an answer that may be stored has been.
func (x *exchange) noteStored(kept bool) {
	if x.cache.Stored = kept; !kept {
		x.cache.Detail = "not-kept"
	}
}

// commit stores an entry, in the place of another if there is one, unless its key
// was made invalid since the fetch began, or there is no room.
func (c *Cache) commit(key []byte, since store.Since, share store.Scope, e, instead *rfc9111.Entry) bool {
	if c.closed.Load() {
		return false
	}
	return c.store.UpdateSince(since, key, func(old *rfc9111.Resource, _ bool) (store.Item[*rfc9111.Resource], bool) {
		return itemOf(old.With(e, instead), share), true
	})
}

// newEntry prepares a stored response. What of its header belongs to the
// connection is then gone from the response, too.
func (s *service) newEntry(ex *rfc9111.Exchange) *rfc9111.Entry {
	return rfc9111.NewEntry(ex, &s.policy.caching.rules, forward.StripHop, s.policy.requestIDHeader)
}

// ownKey returns the key for whoever outlives the request. If e may be shared, so
// may answers under it, as it turns out.
func (v *visit) ownKey(e *rfc9111.Entry) []byte {
	key := v.call.Key()
	if key == nil && !e.Terms.Single {
		v.by.calls.Forget(v.key)
	}
	if bytes.Equal(key, v.key) { // and not that of a variant
		return key
	}
	return bytes.Clone(v.key)
}

// store sends the answer to all who wait for it, and stores it meanwhile.
func (v *visit) store(f *fetch, e *rfc9111.Entry) *Error {
	x, a, fl := v.x, f.answer, v.newFill(fetched{f}, e)
	v.distrust(a, fl.key)
	if a.whole() {
		err := x.storeWhole(fl, a.length)
		f.recycle()
		return err
	}
	if f.detached {
		a.wire.Follow(context.Background()) // from here on it is not this client's alone
	}
	fl.body = flight.New(fl.limits(a.length, func() { a.wire.Abort(context.Canceled) }))
	inline := 0 <= a.length && a.length <= inlineBody && fl.body.Whole()
	v.shareFill(fl)
	if inline {
		return x.step(fl)
	}
	reader, _ := fl.body.Reader()
	defer reader.Close()
	fl.takeOver()
	return x.follow(e, reader)
}

// storeWhole stores a content that is all there, and then sends it.
func (x *exchange) storeWhole(fl *fill, length int64) *Error {
	defer fl.cache.fills.Leave()
	body := make([]byte, length)
	if err := flight.ReadWhole(fl.from, body); err != nil {
		fe := x.bodyFault(err)
		x.cache.Stored = false
		fl.from.end(fe)
		fl.call.Fail(&answer{err: fe, ref: fl.ref})
		return fe
	}
	fl.from.end(nil)
	e := fl.entry.With([][]byte{body})
	if fl.from.surplus() {
		x.cache.Stored, x.cache.Detail = false, "surplus"
		fl.call.Refuse(x.start, 0)
	} else {
		x.noteStored(fl.commit(e, x.start))
	}
	return x.answer(e, asItCame)
}

// commit stores what is whole, and gives it to who waits, if that may be.
func (fl *fill) commit(e *rfc9111.Entry, now time.Time) bool {
	stored := fl.cache.commit(fl.key, fl.since, fl.share, e, fl.instead)
	switch {
	case e.Terms.Single:
		fl.call.Refuse(now, hitForMiss)
	case !fl.call.Quit():
		fl.call.Share(&answer{entry: e, since: fl.since, ref: fl.ref})
		fl.call.Done()
	}
	return stored
}

// inlineBody is how long a body may be that the leader itself stores while it
// sends it, until another asks for it. What connections buffer holds as much, so
// that hardly a client is slow enough to hold it up.
const inlineBody = 256 << 10

// origin is where the content of a response comes from.
type origin interface {
	io.Reader
	end(*Error)    // nothing more of it is wanted
	surplus() bool // more has come than the response
}

// fetched is the content of a fetch's answer.
type fetched struct{ *fetch }

func (f fetched) Read(p []byte) (int, error) { return f.answer.Read(p) }
func (f fetched) end(err *Error)             { f.close(err) }
func (f fetched) surplus() bool              { return f.answer.wire.Surplus() }

// fill is one response on its way into the store.
type fill struct {
	cache   *Cache
	from    origin
	key     []byte
	since   store.Since
	share   store.Scope
	entry   *rfc9111.Entry // without content
	instead *rfc9111.Entry // what the request selected before; nil: nothing
	body    *flight.Flight
	call    flight.Call[*answer]
	ref     telemetry.Ref // the attempt that it comes of
	life    *work.Life
	ended   atomic.Bool
}

// newFill begins to store an answer, for which the visit has entered the fills.
func (v *visit) newFill(from origin, e *rfc9111.Entry) *fill {
	v.x.cache.Stored = true
	return &fill{
		cache: v.by, from: from, key: v.ownKey(e), since: v.since, share: v.x.svc.share, entry: e, instead: v.selected,
		call: v.call, ref: v.ref, life: v.x.life,
	}
}

// shareFill has all who wait follow the fill, which ends the call.
func (v *visit) shareFill(fl *fill) {
	v.share(&answer{entry: fl.entry, fill: fl, since: fl.since, ref: fl.ref})
	v.call = flight.Call[*answer]{}
}

// limits are those of a body of that length on its way into the store.
func (fl *fill) limits(length int64, unread func()) flight.Config {
	kept := fl.cache.store
	return flight.Config{
		Length: length, Limit: fl.cache.maxObject, Unread: unread,
		Reserve: func(n int64) bool { return kept.ReserveFor(fl.share, n) },
		Release: func(n int64) { kept.ReleaseFor(fl.share, n) },
	}
}

// takeOver has a task fill the body, unless one does or it is done: nobody's
// client then holds up the others.
func (fl *fill) takeOver() {
	if !fl.body.Claim() || fl.life.Go("cache fill", fl.run) {
		return
	}
	refused := fault(ReasonShuttingDown, work.ErrShutdown)
	fl.body.Fail(refused)
	fl.end(refused)
}

// run is the task that fills the body.
func (fl *fill) run() {
	err := errAborted
	defer func() { fl.end(err) }() // also after a panic of the body's
	err = fl.body.Fill(fl.from)
}

var errAborted = errors.New("the fill was aborted")

// end ends the fetch, and stores the response if it came whole. Where the body
// ends with a step after another has taken over, both come here.
func (fl *fill) end(err error) {
	if fl.ended.Swap(true) {
		return
	}
	defer fl.cache.fills.Leave()
	defer fl.call.Done()
	switch {
	case errors.Is(err, flight.ErrNoReaders), errors.Is(err, context.Canceled): // who wanted it has left
		fl.from.end(fault(ReasonClientClosed, err))
		return
	case err != nil:
		fl.from.end(contentFault(err))
		return
	}
	fl.from.end(nil)
	if chunks, ok := fl.body.Body(); ok {
		e := fl.entry.With(chunks)
		fl.cache.store.ReleaseFor(fl.share, e.Length)
		if !fl.from.surplus() {
			fl.cache.commit(fl.key, fl.since, fl.share, e, fl.instead)
		}
	}
}

// step stores a short body while it sends it to this client. Once that one is
// served, or lost, another may go on.
func (x *exchange) step(fl *fill) *Error {
	defer fl.takeOver() // also after a panic of the writer's
	w := x.begin(fl.entry)
	if w == nil {
		return nil
	}
	for n := int64(0); ; {
		piece, err := fl.body.Step(fl.from)
		whole := errors.Is(err, io.EOF)
		switch {
		case whole:
			fl.end(nil)
		case errors.Is(err, flight.ErrTaken):
			return x.goOn(w, fl, n)
		case err != nil:
			fl.end(err)
			return x.bodyFault(err)
		}
		n += int64(len(piece))
		if _, err := w.Write(piece); err != nil {
			return x.writeFault(err)
		}
		if whole {
			x.settle()
			return nil
		}
	}
}

// goOn sends the rest, after n bytes, of a body that another fills now.
func (x *exchange) goOn(w *deliver.Content, fl *fill, n int64) *Error {
	reader, ok := fl.body.Reader()
	if !ok {
		_, err := fl.body.Step(fl.from)
		return x.bodyFault(err)
	}
	defer reader.Close()
	reader.Advance(n)
	return x.followOn(w, reader)
}

// follow sends a stored response whose content is still arriving.
func (x *exchange) follow(e *rfc9111.Entry, reader *flight.Reader) *Error {
	w := x.begin(e)
	if w == nil {
		return nil
	}
	return x.followOn(w, reader)
}

// begin sends the header of a response whose content is still arriving. It
// returns no writer where there is nothing to follow.
func (x *exchange) begin(e *rfc9111.Entry) *deliver.Content {
	if e.NotModified(x.asked()) {
		x.answerNotModified(e, asItCame)
		return nil
	}
	x.writeStored(e, asItCame, e.Status, nil)
	if bodyless(x.r.Method, e.Status) {
		return nil
	}
	length := int64(-1)
	if n, err := strconv.ParseInt(e.Head.Get("Content-Length"), 10, 64); err == nil {
		length = n
	}
	return x.body(length, length < 0)
}

// followOn sends a growing body to the client.
func (x *exchange) followOn(w *deliver.Content, reader *flight.Reader) *Error {
	gone := x.r.Context().Done()
	for {
		chunk, err := reader.Next(gone)
		switch {
		case errors.Is(err, io.EOF):
			x.settle()
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

// answer answers from a stored response. The bytes are the store's, the header
// is not: what the app's middleware does to it changes nothing that is stored.
func (x *exchange) answer(e *rfc9111.Entry, age time.Duration) *Error {
	r := x.r
	if e.NotModified(x.asked()) {
		x.answerNotModified(e, age)
		return nil
	}
	if x.special["Range"] != nil {
		if done, err := x.answerRange(e, age); done {
			return err
		}
	}
	x.writeStored(e, age, e.Status, nil)
	if bodyless(r.Method, e.Status) {
		return nil
	}
	return x.writeBody(e.Body, e.Length)
}

// writeStored sends the header of a stored response, or of what is made of it:
// with that status, and without the fields that keep refuses.
func (x *exchange) writeStored(e *rfc9111.Entry, age time.Duration, status int, keep func(name string) bool) {
	h := x.w.Header()
	begun, n := len(h) > 0, e.Head.Len()
	timed := x.svc.policy.serverTiming && age != asItCame
	lines := make([]string, n+2)
	e.Head.Each(lines[:0], func(name string, values []string) {
		switch {
		case keep != nil && !keep(name):
		case timed && name == "Server-Timing": // of another request
		case begun:
			forward.Put(h, name, values)
		default:
			h[name] = values
		}
	})
	if lines[n] = x.ageOf(e, age); lines[n] != "" {
		h["Age"] = lines[n : n+1 : n+1]
	}
	if x.cache.Stored && status != e.Status && x.cache.ForwardStatus == 0 {
		x.cache.ForwardStatus = e.Status // the client gets something else (RFC 9211 §2.3)
	}
	x.setCacheStatus(h, lines[n+1:])
	x.setServerTiming(h)
	if (e.Untyped || keep != nil) && h["Content-Type"] == nil {
		h["Content-Type"] = nil // or net/http's server would guess one
	}
	if e.Refers && x.svc.locator != nil {
		x.relocate(h) // by where this request came in
	}
	x.setRequestID(h)
	x.closeIfEarly()
	x.wrote, x.status = true, status
	x.w.WriteHeader(status)
}

// asked is the request as entries answer it.
func (x *exchange) asked() rfc9111.Asked {
	return rfc9111.Asked{Method: x.r.Method, Header: x.special, Now: x.start}
}

// asItCame stands for the age of a response that has just come for this request.
const asItCame time.Duration = -1

// ageOf returns the Age to send with a response (RFC 9111 §5.1): that of what
// was stored, or what an answer to this request came with.
func (x *exchange) ageOf(e *rfc9111.Entry, age time.Duration) string {
	switch {
	case age == asItCame:
		return e.Aged
	case x.svc.policy.caching.silent:
		return ""
	}
	return e.Hit(age, &x.cache.by.lines).Age
}

// writeBody writes a body that is all there.
func (x *exchange) writeBody(body [][]byte, length int64) *Error {
	w := x.body(length, false)
	for _, chunk := range body {
		if _, err := w.Write(chunk); err != nil {
			return x.writeFault(err)
		}
	}
	x.settle()
	return nil
}

// answerNotModified answers from a stored response with a 304 (RFC 9110 §15.4.5).
func (x *exchange) answerNotModified(e *rfc9111.Entry, age time.Duration) {
	tagged := e.Validators.ETag != ""
	x.writeStored(e, age, http.StatusNotModified, func(name string) bool { return rfc9111.InNotModified(name, tagged) })
}

// answerRange answers with the parts of a stored response that the request asks
// for (RFC 9110 §14.2), unless all of it is the answer.
func (x *exchange) answerRange(e *rfc9111.Entry, age time.Duration) (done bool, _ *Error) {
	var buf [rfc9111.MaxRanges]rfc9111.Span
	parts, outcome := e.Parts(buf[:0], x.asked())
	spans, size := parts.Spans, parts.Size
	conditional := x.special["If-Range"] != nil
	keep := func(name string) bool { return rfc9111.InPartial(name, conditional) }
	h := x.w.Header()
	switch {
	case outcome == rfc9111.RangeIgnored:
		return false, nil
	case outcome == rfc9111.RangeUnsatisfiable:
		h["Content-Range"] = []string{string(rfc9111.AppendUnsatisfied(nil, size))}
		h["Content-Length"] = []string{"0"}
		x.writeStored(e, age, http.StatusRequestedRangeNotSatisfiable, func(name string) bool { return name == "Date" }) // with a lifetime, caches could store it for all
		return true, nil
	case len(spans) == 1:
		h["Content-Range"] = []string{string(rfc9111.AppendContentRange(nil, spans[0], size))}
		h["Content-Length"] = []string{strconv.FormatInt(spans[0].Len(), 10)}
		x.writeStored(e, age, http.StatusPartialContent, keep)
		w := x.body(spans[0].Len(), false)
		return true, x.finish(e.Read(spans[0], w.Emit))
	}
	h["Content-Type"] = []string{parts.Type()}
	h["Content-Length"] = []string{strconv.FormatInt(parts.Length(), 10)}
	x.writeStored(e, age, http.StatusPartialContent, func(name string) bool { return name != "Content-Type" && keep(name) })
	w := x.body(parts.Length(), false)
	return true, x.finish(parts.Write(e.Read, w.Emit))
}

// fetchPart gets the parts that a request asks for, and keeps them.
func (v *visit) fetchPart() *Error {
	f := v.x.newFetch(false)
	v.since = v.by.store.Begin(v.key)
	if err := f.run(); err != nil {
		return err
	}
	ex := v.received(f)
	if got, ok := v.takesPart(f.answer, &ex); ok {
		return v.relayPart(f, &ex, &got)
	}
	if f.answer.status == http.StatusPartialContent {
		v.x.cache.Detail = "range"
		return v.relayAlone(f)
	}
	return v.answered(f)
}

// takesPart returns the part that an answer is, if it may be stored and there is
// room for it, which is then reserved.
func (v *visit) takesPart(a *attempt, ex *rfc9111.Exchange) (got rfc9111.Part, ok bool) {
	got, ok = rfc9111.ParsePart(a.status, a.head, ex.ResponseTime)
	ok = ok && a.length == got.Len() && a.length <= v.by.maxObject && rfc9111.Storable(ex, &v.x.svc.policy.caching.rules) == rfc9111.VerdictPartial
	share, kept := v.x.svc.share, v.by.store
	return got, ok && kept.Admit(share, v.key) && kept.ReserveFor(share, a.length)
}

// relayPart sends a part to this client, for which room is reserved, and keeps
// it.
func (v *visit) relayPart(f *fetch, ex *rfc9111.Exchange, got *rfc9111.Part) *Error {
	a := f.answer
	part := *ex
	part.Response = ex.Response.Clone() // what is sent is changed on its way
	v.x.cache.Stored = true
	v.distrust(a, bytes.Clone(v.key))
	kept := &kept{attempt: a, content: make([]byte, 0, a.length)}
	err := func() *Error {
		defer v.by.store.ReleaseFor(v.x.svc.share, a.length)
		return v.x.relayFrom(f, kept)
	}()
	if err == nil && len(kept.content) == cap(kept.content) && !a.wire.Surplus() {
		v.commitPart(&part, got, kept.content)
	}
	return err
}

// kept is the content of an answer that is kept as it is read.
type kept struct {
	*attempt
	content []byte
}

// Next returns the next piece, as that of the attempt.
func (k *kept) Next() ([]byte, error) {
	piece, err := k.attempt.Next()
	k.content = append(k.content, piece[:min(len(piece), cap(k.content)-len(k.content))]...)
	return piece, err
}

// commitPart stores a part together with those that are stored.
func (v *visit) commitPart(part *rfc9111.Exchange, got *rfc9111.Part, content []byte) {
	svc := v.x.svc
	v.by.store.UpdateSince(v.since, v.key, func(old *rfc9111.Resource, _ bool) (store.Item[*rfc9111.Resource], bool) {
		var before *rfc9111.Entry
		if old != nil {
			before = old.Find(v.x.r.Header)
		}
		if before != nil && !before.Partial() {
			return itemOf(old, svc.share), true // all of it came in between
		}
		others := before
		if others != nil && others.Combines(got) {
			further := others.Further(part)
			if rfc9111.Storable(&further, &svc.policy.caching.rules) == rfc9111.VerdictPartial {
				part = &further
			} else {
				others = nil
			}
		}
		e := svc.newEntry(part).Combined(others, got, content, v.by.maxObject)
		return itemOf(old.With(e, before), svc.share), true
	})
}

// completed goes on with the rest of a response of which a part is stored.
func (v *visit) completed(f *fetch) *Error {
	x, a := v.x, f.answer
	ex := v.received(f)
	got, ok := rfc9111.ParsePart(a.status, a.head, ex.ResponseTime)
	if !ok || a.length != got.Len() || !v.selected.Combines(&got) || a.length > v.by.maxObject || !v.by.store.ReserveFor(x.svc.share, a.length) {
		f.close(nil)
		return v.anew()
	}
	v.distrust(a, bytes.Clone(v.key))
	content := make([]byte, a.length)
	err := flight.ReadWhole(a, content)
	v.by.store.ReleaseFor(x.svc.share, a.length)
	if err != nil {
		fe := x.bodyFault(err)
		f.close(fe)
		return v.unanswered(fe)
	}
	ex = v.selected.Further(&ex)
	verdict := rfc9111.Storable(&ex, &x.svc.policy.caching.rules)
	e := v.x.svc.newEntry(&ex).Combined(v.selected, &got, content, v.by.maxObject)
	f.close(nil)
	if e.Partial() { // it has not given all that was missing
		return v.anew()
	}
	switch {
	case a.wire.Surplus():
		verdict = "surplus"
	case verdict == rfc9111.VerdictPartial:
		verdict = rfc9111.VerdictStore // now that it is whole
	}
	x.cache.ForwardStatus = a.status
	return v.renewed(e, verdict, true)
}

// anew asks once more, for all of it.
func (v *visit) anew() *Error {
	v.spent, v.selected, v.found = true, nil, nil
	return v.ask()
}

// passHead forwards a HEAD, and freshens by its answer what is stored (RFC 9111
// §4.3.5).
func (v *visit) passHead() *Error {
	x := v.x
	if x.svc.handler != nil {
		return v.passHandler()
	}
	f := x.newFetch(false)
	v.since = v.by.store.Begin(v.key)
	if err := f.run(); err != nil {
		return v.unanswered(err)
	}
	a := f.answer
	if rfc9111.Troubled(a.status) && v.standsIn(true) {
		return v.insteadOf(f)
	}
	if v.selected != nil && !v.selected.Partial() {
		v.compare(f)
	}
	return x.relay(f)
}

// compare holds a response to HEAD against what is stored.
func (v *visit) compare(f *fetch) {
	a := f.answer
	switch rfc9111.Head(a.status, a.head, a.start.Add(a.head1), v.selected.Status, &v.selected.Validators, v.selected.Length) {
	case rfc9111.HeadFreshen:
		ex := v.received(f)
		ex.Response = a.head.Clone() // which goes on to the client
		switch e, verdict, gone := v.x.svc.freshened(v.selected, &ex); {
		case verdict == rfc9111.VerdictStore:
			v.by.commit(v.key, v.since, v.x.svc.share, e, v.selected)
		case gone:
			v.by.store.Invalidate(v.key)
		}
	case rfc9111.HeadStale:
		v.by.store.Invalidate(v.key)
	}
}

// passBy forwards a request that the cache has nothing for. The answer to a POST
// may be what a GET of its target would find (RFC 9110 §9.3.3).
func (v *visit) passBy() *Error {
	x := v.x
	if x.svc.handler != nil {
		return v.passHandler()
	}
	f := x.newFetch(false)
	if err := f.run(); err != nil {
		return err
	}
	if e := v.entryOfPost(f); e != nil {
		v.key = x.cacheKey(nil)
		v.since = v.by.store.Begin(v.key)
		x.cache.Detail = ""
		return v.store(f, e)
	}
	return x.relay(f)
}

// entryOfPost is the beginning of an entry, where a POST is answered with what a GET
// would find, that may be stored, and the fills have it; or nil. What the POST has
// made untrue is gone then.
func (v *visit) entryOfPost(f *fetch) *rfc9111.Entry {
	x, a := v.x, f.answer
	if x.r.Method != http.MethodPost || a.head["Content-Location"] == nil || x.misleads() ||
		!a.whole() || a.length > v.by.maxObject { // else it would outlive what it shares with this request
		return nil
	}
	ex, target := v.received(f), f.out.url(x.svc.target)
	ex.Target = &target
	if rfc9111.Storable(&ex, &x.svc.policy.caching.rules) != rfc9111.VerdictStore || !v.by.fills.Enter() {
		return nil
	}
	x.invalidate(a) // which looks at the whole header
	return x.svc.newEntry(&ex)
}

// invalidate removes what an unsafe request to the upstream has made untrue.
func (x *exchange) invalidate(a *attempt) {
	if x.svc.policy.cache != nil && rfc9111.Invalidates(x.r.Method, a.status) {
		target := a.fetch.out.url(x.svc.target)
		x.changed(&target, x.svc.base, a.status, a.head)
	}
}

// changed removes what the answer to an unsafe request has made untrue (RFC 9111
// §4.4, RFC 9875 §3): what of the service lies below base at the target's origin.
func (x *exchange) changed(target *url.URL, base string, status int, head http.Header) {
	c, here := x.svc.policy.cache, x.keyOf("", "")
	c.invalidate(x.cacheKey(nil))
	x.renamed(target, base, status, head)
	if public, err := url.Parse(here.Proto + "://" + here.Host + here.Prefix + x.rest); err == nil { // as the upstream is told that the client named it
		x.renamed(public, here.Prefix, status, head)
	}
	switch groups, ok := rfc9111.InvalidatedGroups(x.r.Method, head); {
	case !ok:
		c.remove(func(key string, _ *rfc9111.Resource) bool { return x.svc.owns(key, &here) }, false)
	case len(groups) > 0:
		c.remove(func(key string, r *rfc9111.Resource) bool { return r.Tagged(groups) && x.svc.owns(key, &here) }, false)
	}
}

// renamed removes what the answer names beside its target.
func (x *exchange) renamed(target *url.URL, base string, status int, head http.Header) {
	for _, u := range rfc9111.Invalidated(x.r.Method, status, target, head)[1:] {
		if rest, ok := strings.CutPrefix(u.EscapedPath(), base); ok && strings.HasPrefix(rest, "/") {
			x.svc.policy.cache.invalidate(x.appendKey(nil, rfc9111.KeyTarget(rest, u.ForceQuery), u.RawQuery))
		}
	}
}

// owns reports whether a key is of the service and of that origin (RFC 9875 §2.1).
func (s *service) owns(key string, origin *rfc9111.Key) bool {
	if rfc9111.KeyScope(key) != s.up.name {
		return false
	}
	k := rfc9111.ParseKey(key)
	return k.SameOrigin(origin)
}

func (c *Cache) invalidate(key []byte) {
	c.store.Invalidate(key)
	c.calls.Detach(key)
}

// refresh has what is served stale validated behind the request, unless somebody
// does that already or there is too much of it.
func (v *visit) refresh() {
	if v.x.svc.handler != nil && !v.x.svc.policy.caching.background {
		return
	}
	call, ok := v.by.calls.Take(v.key, v.x.start)
	if !ok {
		return
	}
	b := &visit{
		x: v.x.behind(), by: v.by, key: call.Key(), control: rfc9111.ParseRequest(nil),
		found: v.found, selected: v.selected, age: v.age, call: call, behind: true,
	}
	b.since = b.by.store.Begin(b.key)
	job := work.Job{
		Name: "cache refresh",
		Do:   func(context.Context) error { return b.askBehind() },
		Done: func(error) { b.call.Abandon() },
	}
	if !v.by.behind.Submit(job) {
		call.Abandon()
	}
}

// askBehind is ask for nobody, unless somebody has asked meanwhile. The service
// counts it among its requests.
func (v *visit) askBehind() error {
	x := v.x
	if !x.life.Enter() {
		return work.ErrShutdown
	}
	defer x.life.Leave()
	if !v.call.Lead() {
		return nil
	}
	defer x.life.End(&x.link)
	v.by.refreshes.Add(1)
	x.start = time.Now() // it has been in the queue
	if err := v.ask(); err != nil {
		return err
	}
	return nil
}

// behind returns an exchange for the same without its client.
func (x *exchange) behind() *exchange {
	ctx, _ := telemetry.Detach(context.WithoutCancel(x.r.Context()))
	r := x.r.Clone(ctx)
	r.Method = http.MethodGet // whose answer can be stored
	rfc9111.StripConditions(r.Header)
	delete(r.Header, "Cache-Control")
	delete(r.Header, "Pragma")
	return &exchange{
		core: x.core, route: x.route, life: x.life, w: nowhere{}, r: r, ctx: r.Context(), start: time.Now(),
		query: x.query, prefix: x.prefix, cache: cacheOutcome{by: x.cache.by}, cause: x.span.Ref(),
	}
}

// nowhere is the client of a request that none waits for.
type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) WriteHeader(int)             {}
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// Warmed is what became of a URL that [Gateway.Warm] asked for.
type Warmed struct {
	URL    string
	Status int   // of the answer; zero: there was none
	Stored bool  // the answer is in the cache, or was there already
	Err    error // why there is no answer of the service's
}

// warmWorkers is how many URLs are asked for at once.
const warmWorkers = 4

// Warm asks for URLs as a client would that has no preferences, a few at a time,
// so that what may be stored is. They are absolute and as clients write them, such
// as "https://app.test/api/users/42": scheme, host and the path up to the service
// are parts of a key, and the first segment that names a service is taken for
// that. It returns what became of each, in their order, when all are done; the end
// of ctx ends those that are not.
func (g *Gateway) Warm(ctx context.Context, urls ...string) []Warmed {
	all := make([]Warmed, len(urls))
	jobs := make([]work.Job, len(urls))
	for i, u := range urls {
		all[i] = Warmed{URL: u, Err: work.ErrDropped}
		jobs[i] = work.Job{Name: "cache warming", Do: func(context.Context) error { g.warm(ctx, &all[i]); return nil }}
	}
	queue := work.NewQueue(work.QueueConfig{
		Name: "cache warming", Workers: warmWorkers, Size: len(urls), OnPanic: g.core.panicked, Go: g.core.life.Go,
	})
	queue.SubmitAll(jobs)
	_ = queue.Wait(context.Background()) // each ends with ctx
	return all
}

func (g *Gateway) warm(ctx context.Context, out *Warmed) {
	if out.Err = context.Cause(ctx); out.Err != nil {
		return
	}
	u, err := url.Parse(out.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		out.Err = fmt.Errorf("gateway: %w", errNoURL)
		return
	}
	r := &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery, ForceQuery: u.ForceQuery},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: u.Host, RequestURI: u.RequestURI(), Body: http.NoBody,
		Header: http.Header{"User-Agent": {"gateway-warm/" + version}},
	}
	if u.Scheme == "https" {
		r.TLS = &tls.ConnectionState{}
	}
	w := &warmer{out: out}
	defer func() {
		if v := recover(); v != nil && out.Err == nil {
			out.Err = fmt.Errorf("gateway: %w", errAborted)
		}
	}()
	for done := false; !done; {
		done = g.core.serve(g.core.snapshot.Load().find(r.URL), w, r.WithContext(ctx))
	}
}

var errNoURL = errors.New("not an absolute http or https URL")

// warmer is the client of a request that warms the cache.
type warmer struct {
	nowhere
	out *Warmed
}

// ended is told of the exchange's end.
func (w *warmer) ended(x *exchange) {
	w.out.Status, w.out.Stored = x.status, x.cache.hit != nil || x.cache.Stored
	if x.err != nil {
		w.out.Err = x.err
	}
}

// Wrap gives what the cache does to a handler: responses are stored and answered
// from the store, concurrent requests for one are joined, and stale ones stand
// in while the handler fails, by the standard and by the options that NewCache
// was given. name is the first part of every key: handlers of one name share what
// is stored. What next sets is what is stored; what middleware around the wrapped
// handler has set before is sent beside it and never stored. A handler that
// answers for several requests does not see the end of its client's context.
//
// A response is stored once next has returned; where next flushes, hijacks, or
// answers with what may not be stored, it reaches the client as it does without
// a cache. Stale responses are refreshed behind a request only with
// [WithBackgroundRefresh].
func (c *Cache) Wrap(name string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		up := &Upstream{name: name, core: c.core, life: work.NewLife(c.core.panicked)}
		p := c.policy
		p.cache = c
		svc := &service{policy: &p, up: up, rules: forward.NewRequestRules(forward.RequestConfig{}), handler: next, share: c.adopt(name, false, &p.caching)}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(svc, w, r) })
	}
}

// serve is the way of one request for a handler.
func (c *Cache) serve(svc *service, w http.ResponseWriter, r *http.Request) {
	if c.closed.Load() || r.Header["Upgrade"] != nil || r.Method == http.MethodConnect {
		svc.handler.ServeHTTP(w, r)
		return
	}
	x := exchanges.Get().(*exchange)
	rest := forward.Path(r.URL)
	x.core, x.life, x.w, x.r, x.ctx, x.start = c.core, svc.up.life, w, r, r.Context(), time.Now()
	x.route, x.query, x.prefix = route{snap: c.core.snapshot.Load(), svc: svc, rest: rest}, r.URL.RawQuery, forward.Prefix(r.RequestURI, rest)
	_, _, x.special = forward.Survey(r.Header)
	defer func() { // a panic of the handler's goes on as it came
		x.life.End(&x.link)
		x.cache.count()
		*x = exchange{keyBuf: x.keyBuf}
		exchanges.Put(x)
	}()
	if err := x.throughCache(c); err != nil {
		x.fail(err)
	}
}

// passHandler has the handler answer past the cache, and sees what it made
// untrue.
func (v *visit) passHandler() *Error {
	rec := v.recorder()
	rec.AtOnce = true
	v.x.svc.handler.ServeHTTP(rec, v.x.r)
	return rec.finish()
}

// askHandler has the handler answer, on this goroutine.
func (v *visit) askHandler() *Error {
	rec := v.recorder()
	r, shared := *v.x.r, v.call.Key() != nil
	if r.Header = maps.Clone(v.x.r.Header); r.Header == nil {
		r.Header = make(http.Header)
	}
	if shared || v.selected != nil {
		rec.named = v.conditions()
		rec.conditional = rfc9111.SetConditions(r.Header, rec.named...)
		rec.plain = true
	}
	ctx := v.x.r.Context()
	if shared {
		ctx = context.WithoutCancel(ctx)
	}
	done := false
	defer func() {
		if !done { // a panic
			rec.abort()
		}
	}()
	v.x.svc.handler.ServeHTTP(rec, r.WithContext(ctx))
	done = true
	return rec.finish()
}

// recorder is the ResponseWriter of a handler whose answer may be stored.
type recorder struct {
	draft.Writer
	*visit
	plain       bool                 // the client's own conditions were kept from the handler
	conditional bool                 // it was sent ours
	named       []rfc9111.Validators // by those
	fate        fate
	kept        *rfc9111.Entry // the answer, where all of it is stored
	streams     *io.PipeWriter // where it goes to be stored as it comes in
	followed    chan *Error    // what becomes of the client meanwhile
}

// fate is what becomes of a handler's answer.
type fate uint8

const (
	fatePassed    fate = iota // the client has it, or what is made of it
	fateKept                  // it is stored, and sent from there
	fateStreamed              // it is stored as it comes in
	fateConfirmed             // it says that what is stored is still true
	fateReplaced              // what is stored stands in for it
)

func (v *visit) recorder() *recorder {
	w := &recorder{visit: v}
	w.Client, w.Inform, w.Judge = v.x.w, v.x.relayInterim, w.judge
	return w
}

// Hijack gives the handler its client's connection: there is nothing to share.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.Status == 0 {
		w.call.Refuse(w.x.start, 0)
	}
	return w.Writer.Hijack()
}

// judge decides what becomes of the answer.
func (w *recorder) judge(whole bool) {
	x := w.x
	ex := rfc9111.Exchange{
		Method: x.r.Method, Status: w.Status, Request: x.r.Header, Response: w.Head, Framed: true,
		RequestTime: x.start, ResponseTime: time.Now(),
	}
	length := w.Length(whole)
	switch {
	case w.AtOnce:
		w.pass(-1)
	case w.Status == http.StatusNotModified && w.conditional:
		w.fate = fateConfirmed
	case rfc9111.Troubled(w.Status) && w.standsIn(true):
		w.fate, x.cache.ForwardStatus = fateReplaced, w.Status
	case w.enter(&ex, length > w.by.maxObject || whole && length != int64(len(w.Begun)), w.Head["Trailer"] != nil):
		w.keep(&ex, length, whole)
	default:
		w.pass(length)
	}
}

// pass sends the answer to the client alone, or that the client has it, or the part
// that it has asked for: the handler was asked for all.
func (w *recorder) pass(length int64) {
	x, head := w.x, w.Head
	w.refuse(w.Status)
	if rfc9111.Invalidates(x.r.Method, w.Status) {
		x.changed(x.inboundURL(), x.prefix, w.Status, head)
	}
	validators := rfc9111.ParseValidators(head, x.start)
	x.status = w.Status
	has := w.plain && rfc9111.NotModified(x.r.Method, x.special, w.Status, &validators, x.start)
	span, part := rfc9111.OnlyRange(x.r.Method, x.special, w.Status, head, length, x.start)
	part = part && w.plain && !has && head["Trailer"] == nil
	switch {
	case has:
		x.status = http.StatusNotModified
		maps.DeleteFunc(head, func(name string, _ []string) bool { return !rfc9111.InNotModified(name, validators.ETag != "") })
	case part:
		x.status, x.cache.ForwardStatus = http.StatusPartialContent, w.Status
		rfc9111.MakePartial(head, x.special, span, length)
	}
	h := x.w.Header()
	forward.Merge(h, head)
	x.setCacheStatus(h, make([]string, 1))
	x.wrote = true
	x.w.WriteHeader(x.status)
	switch {
	case part:
		w.PassPart(span.Start, span.Len())
	case !has:
		w.Pass()
	}
}

// inboundURL is what the client has asked for (RFC 9110 §7.1).
func (x *exchange) inboundURL() *url.URL {
	u := url.URL{Scheme: "http", Host: x.r.Host, Path: x.prefix + x.r.URL.Path, RawPath: x.prefix + x.rest, RawQuery: x.query, ForceQuery: x.r.URL.ForceQuery}
	if x.r.TLS != nil {
		u.Scheme = "https"
	}
	return &u
}

// keep stores the answer: at once if it is whole, else as it comes in.
func (w *recorder) keep(ex *rfc9111.Exchange, length int64, whole bool) {
	x, fl := w.x, w.newFill(nil, w.x.svc.newEntry(ex))
	if whole {
		defer fl.cache.fills.Leave()
		w.fate, w.kept = fateKept, fl.entry.With([][]byte{w.Begun})
		x.noteStored(fl.commit(w.kept, x.start))
		return
	}
	from, to := io.Pipe()
	w.fate, fl.from, w.streams = fateStreamed, piped{from}, to
	fl.body = flight.New(fl.limits(length, func() { _ = from.CloseWithError(errUnneeded) }))
	reader, _ := fl.body.Reader()
	w.shareFill(fl)
	fl.takeOver()
	w.followed = make(chan *Error, 1)
	follow := func() {
		defer reader.Close()
		err := fault(ReasonPanic, nil) // of the writer's
		defer func() { w.followed <- err }()
		err = x.follow(fl.entry, reader)
	}
	if !x.life.Go("cache follower", follow) {
		reader.Close()
		w.followed <- fault(ReasonShuttingDown, work.ErrShutdown)
	}
	w.Stream(to)
}

// piped is the content that a handler writes.
type piped struct{ *io.PipeReader }

func (p piped) end(err *Error) {
	if err != nil {
		_ = p.CloseWithError(err)
		return
	}
	_ = p.Close()
}

func (piped) surplus() bool { return false }

// finish goes on when the handler has returned.
func (w *recorder) finish() *Error {
	x := w.x
	w.End()
	switch w.fate {
	case fateKept:
		return x.answer(w.kept, asItCame)
	case fateStreamed:
		_ = w.streams.Close()
		return <-w.followed
	case fateConfirmed:
		ex := rfc9111.Exchange{Method: x.r.Method, Request: x.r.Header, Response: w.Head, RequestTime: x.start, ResponseTime: time.Now()}
		return w.notModified(&ex, w.named)
	case fateReplaced:
		return w.unanswered(upstreamFault(w.Status))
	}
	w.Trail()
	return nil
}

// abort ends the answer of a handler that panicked.
func (w *recorder) abort() {
	if w.streams != nil {
		_ = w.streams.CloseWithError(errAborted)
		w.x.err = <-w.followed
	}
}
