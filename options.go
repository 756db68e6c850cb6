package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"math"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/embedgw/gateway/internal/balance"
	"github.com/embedgw/gateway/internal/forward"
	"github.com/embedgw/gateway/internal/h1"
	"github.com/embedgw/gateway/internal/options"
	"github.com/embedgw/gateway/internal/rfc9111"
	"github.com/embedgw/gateway/internal/telemetry"
)

// An Option configures [New].
type Option interface{ applyGateway(*config) }

// An UpstreamOption configures [NewUpstream].
type UpstreamOption interface{ applyUpstream(*upstreamConfig) }

// A ServiceOption configures one service: inside [WithService], or given to
// [NewUpstream].
type ServiceOption interface {
	UpstreamOption
	applyService(*serviceConfig)
}

// A CacheOption configures [NewCache].
type CacheOption interface{ applyCache(*cacheConfig) }

// A DefaultOption given to [New] is the default of every service; inside
// [WithService] or given to [NewUpstream] it is for that service alone.
type DefaultOption interface {
	Option
	ServiceOption
}

// A CachingOption says how a cache is used: by services, as a [DefaultOption],
// or, given to [NewCache], by the handlers under [Cache.Wrap].
type CachingOption interface {
	DefaultOption
	CacheOption
}

// A SharedOption is about a whole gateway, stand-alone upstream or cache, and
// so is no option of a single service.
type SharedOption interface {
	Option
	UpstreamOption
	CacheOption
}

// An OptionError says what is wrong with one option. The constructors return
// all of them at once, joined by [errors.Join]: [errors.As] finds the first, and
// the Unwrap() []error of what they return has each. The text has a line for each.
type OptionError struct {
	Option  string // the constructor of the option, such as "WithTimeout"
	Service string // the service it was given for; empty for defaults and shared options
	Value   string // the value, shortened, without credentials; empty where there is none to show
	Reason  string // what is wrong with it
}

// Error says which option is at fault, for which service, and why.
func (e *OptionError) Error() string {
	var b strings.Builder
	b.WriteString("gateway: ")
	b.WriteString(e.Option)
	if e.Service != "" {
		fmt.Fprintf(&b, " of service %q", e.Service)
	}
	if e.Value != "" {
		fmt.Fprintf(&b, ": %q", e.Value)
	}
	b.WriteString(": ")
	b.WriteString(e.Reason)
	return b.String()
}

// policy is what the options say about one service. It is immutable once its
// constructor has returned, and holds the package defaults, in one place.
type policy struct {
	cache   *Cache
	caching caching

	timeout               time.Duration // arrival to final response header, over queue, attempts and backoff
	attemptTimeout        time.Duration // one attempt, to its response header
	dialTimeout           time.Duration
	tlsHandshakeTimeout   time.Duration
	responseHeaderTimeout time.Duration // request fully written to response header
	bodyIdleTimeout       time.Duration // between two reads or writes of a body, both ways
	tunnelIdleTimeout     time.Duration
	maxDuration           time.Duration // everything, bodies too

	retries         int
	backoffInitial  time.Duration
	backoffMax      time.Duration
	maxRetryAfter   time.Duration
	retryBodyBytes  int64
	retryRatio      float64
	retryPerSecond  float64
	maxBodyBytes    int64 // negative: no limit
	maxAnswerBytes  int64 // zero: no limit
	maxHeaderBytes  int
	methods         []string // allowed beyond the registered ones
	preserveHost    bool
	forwarded       bool
	serverTiming    bool
	trusted         []netip.Prefix
	requestIDHeader string // empty: none

	maxConns        int // to each replica
	minConns        int
	connIdleTimeout time.Duration
	maxConnAge      time.Duration
	acquireTimeout  time.Duration // the wait for one of them
	noConnReuse     bool
	dial            DialFunc // nil: net.Dialer

	replicas         []Replica // beside the target
	balancing        Balancing
	slowStart        time.Duration
	dnsRefresh       time.Duration // zero: names are resolved when a connection is made
	ejectFailures    int
	ejectRate        float64
	ejectBase        time.Duration // zero: no ejection
	ejectMax         time.Duration
	ejectShare       float64
	panicShare       float64
	checkInterval    time.Duration // zero: no active checks
	checkRise        int
	checkFall        int
	breakerRatio     float64 // zero: no breaker
	breakerVolume    int
	breakerWindow    time.Duration
	breakerOpen      time.Duration
	breakerProbes    int
	onBreaker        BreakerHook
	tracing          tracing
	slow             slowPolicy
	logRate          float64       // of the successes
	logLimit         int           // lines of a kind and a second; zero: no limit
	hedgeDelay       time.Duration // zero: no hedging
	ratePerSecond    float64       // zero: no limit
	rateBurst        int
	maxTunnels       int
	http2            bool
	concurrency      int // zero: no limit
	concurrencyQueue int
	concurrencyWait  time.Duration

	transport    http.RoundTripper
	tlsConfig    *tls.Config
	tlsSource    *tls.Config // of which tlsConfig is a copy
	healthPath   string
	healthTime   time.Duration
	healthPolicy HealthPolicy
	header       http.Header // injected
	tokenSource  TokenSource
	rewrite      []func(*http.Request)
	modify       []func(*http.Response) error
	bearerStatic bool // an Authorization of ours is in header
}

func defaultPolicy() policy {
	return policy{
		timeout:             30 * time.Second,
		dialTimeout:         5 * time.Second,
		tlsHandshakeTimeout: 5 * time.Second,
		bodyIdleTimeout:     time.Minute,
		tunnelIdleTimeout:   5 * time.Minute,
		retries:             2,
		backoffInitial:      25 * time.Millisecond,
		backoffMax:          time.Second,
		maxRetryAfter:       5 * time.Second,
		retryBodyBytes:      64 << 10,
		retryRatio:          0.1,
		retryPerSecond:      3,
		maxBodyBytes:        -1,
		maxHeaderBytes:      64 << 10,
		requestIDHeader:     "X-Request-Id",
		healthTime:          time.Second,
		maxConns:            10_000,
		maxTunnels:          10_000,
		ejectFailures:       5,
		ejectRate:           0.5,
		ejectBase:           10 * time.Second,
		ejectMax:            5 * time.Minute,
		ejectShare:          0.5,
		panicShare:          0.5,
		breakerRatio:        0.5,
		breakerVolume:       20,
		breakerWindow:       10 * time.Second,
		breakerOpen:         500 * time.Millisecond,
		breakerProbes:       3,
		connIdleTimeout:     4 * time.Second, // below the keep-alive of common servers (5 s)
		maxConnAge:          5 * time.Minute,
		acquireTimeout:      time.Second,
		logRate:             1,
		logLimit:            100,
		caching: caching{
			rules: rfc9111.Config{
				KeepStale: true, MaxStale: 24 * time.Hour, MaxHeuristic: 24 * time.Hour, Targeted: []string{rfc9111.CDNCacheControl},
				StaleWhileRevalidate: rfc9111.Absent, StaleIfError: rfc9111.Absent,
			},
			collapse: 10 * time.Second,
		},
	}
}

// inherit returns a copy that a service's own options may change.
func (p policy) inherit() policy {
	p.header = maps.Clone(p.header)
	p.methods = slices.Clip(p.methods)
	p.rewrite = slices.Clip(p.rewrite)
	p.modify = slices.Clip(p.modify)
	return p
}

// identity tells apart policies that would get other answers from the same
// upstream. Functions cannot be compared: they are told apart by chance, but by
// who takes over from another policy of the same shape.
func (p *policy) identity() string {
	if p.caching.rules.Key.Partition != nil || p.tokenSource != nil || p.transport != nil || len(p.rewrite) > 0 || len(p.modify) > 0 {
		return rand.Text()
	}
	return p.shape()
}

func (p *policy) shape() string {
	h := sha256.New()
	fmt.Fprint(h, p.preserveHost, p.caching.rules.Authorized, p.caching.rules.Cookies)
	fmt.Fprint(h, p.caching.rules.Key.Partition != nil, p.tokenSource != nil, p.transport != nil, len(p.rewrite), len(p.modify))
	for _, name := range slices.Sorted(maps.Keys(p.header)) {
		fmt.Fprintf(h, "%q%q", name, p.header[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// sameConns reports whether connections that were made by o are what p asks for.
// Dialing may differ: it is of those to come.
func (p *policy) sameConns(o *policy) bool {
	if p.transport != nil || o.transport != nil {
		return options.Alike(p.transport, o.transport)
	}
	return p.http2 == o.http2 && p.maxConns == o.maxConns && p.minConns == o.minConns && p.noConnReuse == o.noConnReuse &&
		p.connIdleTimeout == o.connIdleTimeout && p.maxConnAge == o.maxConnAge && p.acquireTimeout == o.acquireTimeout &&
		(!p.http2 || p.responseHeaderTimeout == o.responseHeaderTimeout) && (p.dial == nil) == (o.dial == nil) &&
		h1.SameTLS(p.tlsConfig, o.tlsConfig, p.tlsSource == o.tlsSource)
}

// injects reports whether requests carry credentials of ours.
func (p *policy) injects() bool { return p.bearerStatic || p.tokenSource != nil }

// The configurations that constructors fill, one for each kind of option.
type (
	config struct {
		shared   sharedConfig
		defaults serviceConfig
		declared []declared
		memory   *memoryPolicy // nil: nobody watches it
	}
	upstreamConfig struct {
		shared  sharedConfig
		service serviceConfig
	}
	serviceConfig struct {
		policy policy
		list   list
	}
	cacheConfig struct {
		shared         sharedConfig
		list           list
		handlers       serviceConfig // those under Wrap
		maxBytes       int64
		maxObjectBytes int64
	}
	sharedConfig struct {
		list      list
		logger    *slog.Logger
		onError   ErrorHandler
		telemetry telemetryConfig
	}
	declared struct {
		name, target string
		opts         []ServiceOption
	}
)

// shared returns what was read, and what stands where nothing was given.
func (c *sharedConfig) shared(t *telemetry.Telemetry) shared {
	s := shared{log: c.logger, access: c.logger != nil, onError: c.onError, telemetry: t, given: c.telemetry}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.onError == nil {
		s.onError = answerError
	}
	return s
}

// list keeps the books of one option list: which options it holds and what is
// wrong with them.
type list struct {
	service string
	current string
	given   map[string]bool
	faults  []error
}

func (l *list) begin(option string) {
	if l.given == nil {
		l.given = make(map[string]bool)
	}
	l.current = option
	l.given[option] = true
}

func (l *list) fault(value, reason string) { l.faultOf(l.current, value, reason) }

func (l *list) faultOf(option, value, reason string) {
	const most = 100
	if len(value) > most {
		value = value[:most] + "…"
	}
	l.faults = append(l.faults, &OptionError{Option: option, Service: l.service, Value: strings.ToValidUTF8(value, "\uFFFD"), Reason: reason})
}

// judgeName judges the name of a field, a cookie or a method: RFC 9110 §5.1 and
// §9.1 and RFC 6265 §4.1.1 have them all be tokens.
func (l *list) judgeName(name, of string) {
	switch {
	case name == "":
		l.fault("", "the name is empty")
	case !forward.IsToken(name):
		l.fault(name, "is no name of a "+of)
	}
}

// judgeRange judges the first and the longest of times that grow.
func (l *list) judgeRange(of string, first, longest time.Duration) {
	if first <= 0 {
		l.fault(first.String(), "the first "+of+" is not positive")
	}
	if longest <= 0 {
		l.fault(longest.String(), "the longest "+of+" is not positive")
	} else if longest < first {
		l.fault(longest.String(), "the longest "+of+" is shorter than the first")
	}
}

// drop undoes an inherited option that decides what a service's connections are, and
// cannot stand beside one of the service's own. (What refines one that is gone does
// nothing anyway.)
func (p *policy) drop(option string) {
	switch option {
	case "WithTransport":
		p.transport = nil
	case "WithHTTP2":
		p.http2 = false
	case "WithDNSRefresh":
		p.dnsRefresh = 0
	}
}

// judge looks at what several options make together.
func (c *serviceConfig) judge() {
	p, l := &c.policy, &c.list
	options.Contradictions(l.given, func(option, reason string) { l.faultOf(option, "", reason) })
	options.Displaced(l.given, p.drop)
	if p.caching.rules.Authorized && p.tokenSource != nil {
		l.faultOf("WithCacheAuthorized", "", "needs one static identity, and the service has a token source (WithTokenSource)")
	}
	if p.tokenSource != nil && p.header["Authorization"] != nil {
		l.faultOf("WithTokenSource", "", "Authorization is already injected (WithHeader)")
	}
	if l.given["WithMinConns"] && p.minConns > p.maxConns {
		l.faultOf("WithMinConns", fmt.Sprint(p.minConns), "more than WithMaxConns")
	}
	if p.requestIDHeader != "" && p.header[p.requestIDHeader] != nil {
		l.faultOf("WithHeader", p.requestIDHeader, "is the request id's header (WithRequestID)")
	}
}

// The four kinds of option. Each knows its constructor's name, for faults.
type (
	serviceOption struct {
		name string
		set  func(*policy, *list)
	}
	defaultOption struct{ serviceOption }
	cachingOption struct{ defaultOption }
	sharedOption  struct {
		name string
		set  func(*sharedConfig)
	}
	cacheOption struct {
		name string
		set  func(*cacheConfig)
	}
	gatewayOption func(*config)
)

func (o serviceOption) applyService(c *serviceConfig) {
	c.list.begin(o.name)
	o.set(&c.policy, &c.list)
}
func (o serviceOption) applyUpstream(c *upstreamConfig) { o.applyService(&c.service) }
func (o defaultOption) applyGateway(c *config)          { o.applyService(&c.defaults) }
func (o cachingOption) applyCache(c *cacheConfig)       { o.applyService(&c.handlers) }

func (o sharedOption) apply(c *sharedConfig) {
	c.list.begin(o.name)
	o.set(c)
}
func (o sharedOption) applyGateway(c *config)          { o.apply(&c.shared) }
func (o sharedOption) applyUpstream(c *upstreamConfig) { o.apply(&c.shared) }
func (o sharedOption) applyCache(c *cacheConfig)       { o.apply(&c.shared) }

func (o cacheOption) applyCache(c *cacheConfig) {
	c.list.begin(o.name)
	o.set(c)
}

func (o gatewayOption) applyGateway(c *config) { o(c) }

// WithService adds a service: requests whose first path segment is name go to
// target. The name is 1 to 64 letters, digits and "-", ".", "_", "~", neither
// "." nor "..", and unique; it is matched byte for byte. The target is an http
// or https URL without userinfo, query or fragment; its path, if any, comes
// before what follows the service segment. Or it is "unix:///" and the path of
// a socket, on which plain HTTP is spoken. The options refine the defaults
// given to [New], whatever their order.
func WithService(name, target string, opts ...ServiceOption) Option {
	return gatewayOption(func(c *config) {
		c.declared = append(c.declared, declared{name, target, opts})
	})
}

// WithLogger has a line logged for each request, and for each change of state.
// Requests are Info; Warn if they are answered 500 or more, or their response
// is cut off, but by the client; Error if that is for a hook or a token source of
// the app's. Default: only what goes wrong in the background is logged, to
// [slog.Default].
func WithLogger(l *slog.Logger) SharedOption {
	return sharedOption{"WithLogger", func(c *sharedConfig) {
		switch {
		case l == nil:
			c.list.fault("", "the logger is nil")
		case l.Handler() == nil:
			c.list.fault("", "the logger has no handler, and was not made by slog.New")
		}
		c.logger = l
	}}
}

// WithLogSampling has only a share of the requests that succeed logged, chosen by
// chance. What fails (400 and more, or cut off) is logged, and what takes as long
// as [WithSlowRequest] says, or 5 s where it does not. Default: 1, all of them.
// Zero: none. Without [WithLogger] there are no such lines.
func WithLogSampling(share float64) DefaultOption {
	return upToOne("WithLogSampling", share, func(p *policy) *float64 { return &p.logRate })
}

// WithLogLimit bounds how many requests of a service that failed for the same
// reason are logged each second; without a reason of the gateway's own, those
// of 4xx are of one kind and those of 5xx of another. The next line of the kind
// says how many were left out. Default: 100. Zero: no bound.
func WithLogLimit(perSecond int) DefaultOption {
	return atLeast("WithLogLimit", perSecond, 0, "negative", func(p *policy) *int { return &p.logLimit })
}

// An ErrorHandler answers a request that the gateway itself has to refuse or
// give up. Nothing has been written to w yet. It must not send err.Error() to
// a client: the text may name hosts.
type ErrorHandler func(w http.ResponseWriter, r *http.Request, err *Error)

// WithErrorHandler replaces the answer to everything that the gateway refuses
// or gives up. Default: the status of the error, and its reason as
// application/problem+json (RFC 9457) or as text, by the request's Accept; for a
// request of gRPC the status of gRPC that means the same, with the reason.
func WithErrorHandler(h ErrorHandler) SharedOption {
	return sharedOption{"WithErrorHandler", func(c *sharedConfig) {
		if h == nil {
			c.list.fault("", "the handler is nil")
		}
		c.onError = h
	}}
}

// WithMaxBytes bounds the memory of a cache in bytes: keys, headers, bodies,
// bookkeeping and bodies that are still arriving. Default 64 MiB. At least
// 64 KiB.
func WithMaxBytes(n int64) CacheOption {
	return cacheOption{"WithMaxBytes", func(c *cacheConfig) {
		if n < 64<<10 {
			c.list.fault(fmt.Sprint(n), "less than 64 KiB")
		}
		c.maxBytes = n
	}}
}

// WithMaxObjectBytes bounds the body of one stored response in bytes. A longer
// one passes through uncached. Default: an eighth of the cache, at most 8 MiB.
// At least 1 byte, at most the cache.
func WithMaxObjectBytes(n int64) CacheOption {
	return cacheOption{"WithMaxObjectBytes", func(c *cacheConfig) {
		if n < 1 {
			c.list.fault(fmt.Sprint(n), "less than 1 byte")
		}
		c.maxObjectBytes = n
	}}
}

// WithCache has responses stored in c and served from it, as RFC 9111 allows a
// shared cache. Services with different targets share no answers, whatever
// their names. Default: no cache.
func WithCache(c *Cache) DefaultOption {
	return def("WithCache", func(p *policy, l *list) {
		switch {
		case c == nil:
			l.fault("", "the cache is nil")
		case c.store == nil:
			l.fault("", "the cache was not made by NewCache")
		}
		p.cache = c
	})
}

// WithoutCache drops an inherited cache.
func WithoutCache() DefaultOption {
	return def("WithoutCache", func(p *policy, _ *list) { p.cache = nil })
}

// WithCacheAuthorized has responses to requests with Authorization stored as
// if they were public. It is for a service whose clients all share one static
// identity, such as the token that the gateway injects: whatever one client
// was allowed to see, every other will see too. It is refused together with
// [WithTokenSource]. Default: RFC 9111 §3.5.
func WithCacheAuthorized() ServiceOption {
	return serviceOption{"WithCacheAuthorized", func(p *policy, _ *list) { p.caching.rules.Authorized = true }}
}

// WithCacheCookies has responses stored although they set cookies or answer
// requests with cookies; stored Set-Cookie fields are replayed to every
// client. Default: a response with Set-Cookie is never stored, one to a
// request with Cookie only if it says public or s-maxage.
func WithCacheCookies() CachingOption {
	return cachingOf("WithCacheCookies", func(c *caching, _ *list) { c.rules.Cookies = true })
}

// WithDefaultTTL sets the lifetime of responses that state none and have no
// Last-Modified to guess by, of the statuses that may be stored without (RFC 9110
// §15.1) but errors. Default and zero: they are not stored.
func WithDefaultTTL(d time.Duration) CachingOption {
	return cachingTime("WithDefaultTTL", d, func(c *caching) *time.Duration { return &c.rules.DefaultTTL })
}

// WithNegativeTTL sets the lifetime of responses 404, 405, 410, 414 and 501 that
// state none. Default and zero: as for others.
func WithNegativeTTL(d time.Duration) CachingOption {
	return cachingTime("WithNegativeTTL", d, func(c *caching) *time.Duration { return &c.rules.NegativeTTL })
}

// WithStaleWhileRevalidate sets for how long a stale response is still served
// while it is validated behind the request, where the response does not say
// (RFC 5861 §3) and does not forbid it. Default and zero: not at all.
func WithStaleWhileRevalidate(d time.Duration) CachingOption {
	return cachingTime("WithStaleWhileRevalidate", d, func(c *caching) *time.Duration { return &c.rules.StaleWhileRevalidate })
}

// WithStaleIfError sets for how long a stale response is served in place of a
// 500, 502, 503 or 504, where the response does not say (RFC 5861 §4) and does
// not forbid it. Default and zero: not at all. See [WithMaxStale] for services
// that cannot be reached.
func WithStaleIfError(d time.Duration) CachingOption {
	return cachingTime("WithStaleIfError", d, func(c *caching) *time.Duration { return &c.rules.StaleIfError })
}

// WithMaxStale bounds how stale a response may be that is served because the
// service cannot be reached, or answers with an error while stale-if-error holds
// (RFC 9111 §4.2.4). Responses that say must-revalidate, proxy-revalidate,
// s-maxage or no-cache are never served stale. Default 24 h. Zero: none is.
func WithMaxStale(d time.Duration) CachingOption {
	return cachingTime("WithMaxStale", d, func(c *caching) *time.Duration { return &c.rules.MaxStale })
}

// WithCollapseTimeout bounds how long a request waits for the header of the
// answer to another that asks for the same; then it is sent upstream itself.
// Default 10 s. Zero: none waits.
func WithCollapseTimeout(d time.Duration) CachingOption {
	return cachingTime("WithCollapseTimeout", d, func(c *caching) *time.Duration { return &c.collapse })
}

// WithTargetedCacheControl names the response fields that this cache goes by, the
// most applicable first: where one is there and well-formed, it stands in the
// place of Cache-Control and Expires (RFC 9213). They are passed on. Default:
// CDN-Cache-Control. Without names there are none.
func WithTargetedCacheControl(fields ...string) CachingOption {
	return cachingOf("WithTargetedCacheControl", func(c *caching, l *list) {
		c.rules.Targeted = canonicalNames(fields, l)
	})
}

// WithoutClientCacheControl has Cache-Control and Pragma of requests mean nothing
// to the cache: no client can have it go upstream. They are passed on. Default:
// they are obeyed (RFC 9111 §5.2.1).
func WithoutClientCacheControl() CachingOption {
	return cachingOf("WithoutClientCacheControl", func(c *caching, _ *list) { c.rules.Unheeded = true })
}

// WithoutCacheStatus keeps Cache-Status and Age from clients, who could tell by
// them what others have asked for. Age of the service itself stays.
func WithoutCacheStatus() CachingOption {
	return cachingOf("WithoutCacheStatus", func(c *caching, _ *list) { c.silent = true })
}

// WithCacheStatusKey shows the target and query of the cache key in Cache-Status
// (RFC 9211 §2.7). Default: it is not shown.
func WithCacheStatusKey() CachingOption {
	return cachingOf("WithCacheStatusKey", func(c *caching, _ *list) { c.showKey = true })
}

// WithIgnoredQuery names query parameters that tell no responses apart, such as
// those of campaigns. They are sent upstream all the same. One with a semicolon
// counts nevertheless: some servers take it for several. Several add up. Default:
// none.
func WithIgnoredQuery(names ...string) CachingOption {
	return cachingOf("WithIgnoredQuery", func(c *caching, l *list) {
		if slices.Contains(names, "") {
			l.fault("", "a name is empty")
		}
		c.rules.Key.IgnoredQuery = slices.Concat(c.rules.Key.IgnoredQuery, names)
	})
}

// WithSortedQuery has requests answered alike whose query parameters differ in
// their order alone; those of one name keep theirs. Default: the query counts
// byte for byte.
func WithSortedQuery() CachingOption {
	return cachingOf("WithSortedQuery", func(c *caching, _ *list) { c.rules.Key.SortedQuery = true })
}

// WithCacheKeyHeaders names request fields that tell responses apart although
// Vary does not say so. Several add up. What a request gets that spells one of
// them otherwise, as X_Tenant, is not stored. Default: none.
func WithCacheKeyHeaders(names ...string) CachingOption {
	return cachingOf("WithCacheKeyHeaders", func(c *caching, l *list) {
		c.rules.Key.Fields = slices.Concat(c.rules.Key.Fields, canonicalNames(names, l))
	})
}

// WithCacheKeyCookies names cookies that tell responses apart. Several add up.
// Default: none. Responses to requests with cookies are stored as
// [WithCacheCookies] says.
func WithCacheKeyCookies(names ...string) CachingOption {
	return cachingOf("WithCacheKeyCookies", func(c *caching, l *list) {
		for _, name := range names {
			l.judgeName(name, "cookie")
		}
		c.rules.Key.Cookies = slices.Concat(c.rules.Key.Cookies, names)
	})
}

// WithCachePartition has f name the part of the cache that a request belongs to,
// such as its tenant: requests of different parts share nothing. f is called for
// each request that may use the cache, and must be quick. Default: there is one
// part.
func WithCachePartition(f func(*http.Request) string) CachingOption {
	return cachingOf("WithCachePartition", func(c *caching, l *list) {
		if f == nil {
			l.fault("", "the function is nil")
		}
		c.rules.Key.Partition = f
	})
}

// WithCacheShare bounds what a service, or the handlers of one name, may use of
// the cache's bytes, above 0 and at most 1. Default: 1.
func WithCacheShare(share float64) CachingOption {
	return cachingOf("WithCacheShare", func(c *caching, l *list) {
		if !(share > 0 && share <= 1) {
			l.fault(fmt.Sprint(share), "not above 0 and at most 1")
		}
		c.share = share
	})
}

// WithBackgroundRefresh has handlers under [Cache.Wrap] asked again behind a
// request, for what was served stale by stale-while-revalidate. The handler must
// then not depend on what routers keep for the time of a request. Default: the
// next request that finds the response stale beyond that waits for the handler.
func WithBackgroundRefresh() CacheOption {
	return cacheOption{"WithBackgroundRefresh", func(c *cacheConfig) { c.handlers.policy.caching.background = true }}
}

// WithTimeout bounds the time from a request's arrival to its final response
// header, over all attempts and the waits between them; then 504. Default 30 s.
// Zero: no bound. Bodies are bounded by [WithBodyIdleTimeout].
func WithTimeout(d time.Duration) DefaultOption {
	return duration("WithTimeout", d, func(p *policy) *time.Duration { return &p.timeout })
}

// WithAttemptTimeout bounds one attempt, from its start to its response
// header; then the next attempt, if the request may be repeated, or 504.
// Default and zero: whatever [WithTimeout] leaves.
func WithAttemptTimeout(d time.Duration) DefaultOption {
	return duration("WithAttemptTimeout", d, func(p *policy) *time.Duration { return &p.attemptTimeout })
}

// WithDialTimeout bounds name resolution and connecting to an upstream.
// Default 5 s. Zero: whatever the attempt has left.
func WithDialTimeout(d time.Duration) DefaultOption {
	return duration("WithDialTimeout", d, func(p *policy) *time.Duration { return &p.dialTimeout })
}

// WithTLSHandshakeTimeout bounds the TLS handshake with an upstream. Default
// 5 s. Zero: whatever the attempt has left.
func WithTLSHandshakeTimeout(d time.Duration) DefaultOption {
	return duration("WithTLSHandshakeTimeout", d, func(p *policy) *time.Duration { return &p.tlsHandshakeTimeout })
}

// WithResponseHeaderTimeout bounds the wait for a response header after the
// request has been written whole. Default and zero: whatever the attempt has
// left.
func WithResponseHeaderTimeout(d time.Duration) DefaultOption {
	return duration("WithResponseHeaderTimeout", d, func(p *policy) *time.Duration { return &p.responseHeaderTimeout })
}

// WithBodyIdleTimeout bounds how long a body may stand still, in each
// direction and on each side: a client that does not send or read, an upstream
// that does not send. Then the request fails or, if its response has begun,
// the connection is aborted. It takes the place of the server's ReadTimeout
// and WriteTimeout while a body moves. Default 1 min. Zero: no bound.
func WithBodyIdleTimeout(d time.Duration) DefaultOption {
	return duration("WithBodyIdleTimeout", d, func(p *policy) *time.Duration { return &p.bodyIdleTimeout })
}

// WithTunnelIdleTimeout bounds how long a WebSocket tunnel may be silent in
// both directions. Default 5 min. Zero: no bound.
func WithTunnelIdleTimeout(d time.Duration) DefaultOption {
	return duration("WithTunnelIdleTimeout", d, func(p *policy) *time.Duration { return &p.tunnelIdleTimeout })
}

// WithMaxDuration bounds a whole exchange, bodies and event streams included,
// tunnels not. Default and zero: no bound.
func WithMaxDuration(d time.Duration) DefaultOption {
	return duration("WithMaxDuration", d, func(p *policy) *time.Duration { return &p.maxDuration })
}

// WithRetries sets how often a request is sent again at the most, after a
// connection that failed and after 502, 503 and 504. GET, HEAD, OPTIONS, PUT
// and DELETE are repeated, others only if they provably never left; nothing is
// repeated once the client has received a byte. All repeats are paid from the
// service's budget ([WithRetryBudget]). Default 2, at most 10. Zero is
// [WithoutRetries].
func WithRetries(n int) DefaultOption {
	return def("WithRetries", func(p *policy, l *list) {
		if n < 0 || n > 10 {
			l.fault(fmt.Sprint(n), "not between 0 and 10")
		}
		p.retries = n
	})
}

// WithoutRetries has every request sent once.
func WithoutRetries() DefaultOption {
	return def("WithoutRetries", func(p *policy, _ *list) { p.retries = 0 })
}

// WithRetryBackoff sets the wait before the first repeat and the longest wait.
// Waits double each time and are spread by ±50 %. Default 25 ms and 1 s.
// Both must be positive.
func WithRetryBackoff(initial, longest time.Duration) DefaultOption {
	return def("WithRetryBackoff", func(p *policy, l *list) {
		l.judgeRange("wait", initial, longest)
		p.backoffInitial, p.backoffMax = initial, longest
	})
}

// WithRetryBudget bounds what a service's repeats may add to its load: at most
// ratio of its requests, or perSecond repeats a second where that is more,
// over the last ten seconds. Default 0.1 and 3. Neither may be negative; the
// ratio is at most 1.
func WithRetryBudget(ratio, perSecond float64) DefaultOption {
	return def("WithRetryBudget", func(p *policy, l *list) {
		if !(ratio >= 0 && ratio <= 1) {
			l.fault(fmt.Sprint(ratio), "the ratio is not between 0 and 1")
		}
		if !(perSecond >= 0) || math.IsInf(perSecond, 1) {
			l.fault(fmt.Sprint(perSecond), "the rate is negative, infinite or not a number")
		}
		p.retryRatio, p.retryPerSecond = ratio, perSecond
	})
}

// WithRetryBodyBytes bounds how much of a request body is kept in memory for a
// repeat. A request with a longer one is not repeated once it was cut short.
// Default 64 KiB. Zero: nothing is kept.
func WithRetryBodyBytes(n int64) DefaultOption {
	return atLeast("WithRetryBodyBytes", n, 0, "negative", func(p *policy) *int64 { return &p.retryBodyBytes })
}

// WithMaxRetryAfter bounds which Retry-After of an upstream is waited for. A
// longer one means no repeat: the answer goes to the client. Default 5 s.
// Zero: only "at once" is.
func WithMaxRetryAfter(d time.Duration) DefaultOption {
	return duration("WithMaxRetryAfter", d, func(p *policy) *time.Duration { return &p.maxRetryAfter })
}

// WithMaxBodyBytes bounds request bodies in bytes; then 413. Default: no
// bound. Zero: no body at all.
func WithMaxBodyBytes(n int64) DefaultOption {
	return atLeast("WithMaxBodyBytes", n, 0, "negative", func(p *policy) *int64 { return &p.maxBodyBytes })
}

// WithMaxResponseBytes bounds response contents in bytes: one that is declared
// longer is answered 502, one that turns out to be is cut off. Default and
// zero: no bound.
func WithMaxResponseBytes(n int64) DefaultOption {
	return atLeast("WithMaxResponseBytes", n, 0, "negative", func(p *policy) *int64 { return &p.maxAnswerBytes })
}

// WithMaxHeaderBytes bounds the header of a request, in bytes of names and
// values; then 431. (The server's own MaxHeaderBytes comes first.) Default
// 64 KiB. At least 1 KiB.
func WithMaxHeaderBytes(n int) DefaultOption {
	return atLeast("WithMaxHeaderBytes", n, 1<<10, "less than 1 KiB", func(p *policy) *int { return &p.maxHeaderBytes })
}

// WithMaxConns bounds the connections to each replica, tunnels included. A
// request that needs one more waits for [WithAcquireTimeout], in the order of
// arrival. Default 10,000. At least 1.
func WithMaxConns(n int) DefaultOption {
	return atLeast("WithMaxConns", n, 1, "less than 1", func(p *policy) *int { return &p.maxConns })
}

// WithMinConns has so many connections to each replica kept open, from the
// first request on. Default and zero: none. At most [WithMaxConns].
func WithMinConns(n int) DefaultOption {
	return atLeast("WithMinConns", n, 0, "negative", func(p *policy) *int { return &p.minConns })
}

// WithConnIdleTimeout bounds how long a connection is kept unused. It should be
// less than the upstream's own keep-alive. Default 4 s. Zero: no bound.
func WithConnIdleTimeout(d time.Duration) DefaultOption {
	return duration("WithConnIdleTimeout", d, func(p *policy) *time.Duration { return &p.connIdleTimeout })
}

// WithMaxConnAge bounds how long a connection is used for further requests, so
// that a change of the target's address is followed. Default 5 min. Zero: no
// bound.
func WithMaxConnAge(d time.Duration) DefaultOption {
	return duration("WithMaxConnAge", d, func(p *policy) *time.Duration { return &p.maxConnAge })
}

// WithAcquireTimeout bounds the wait for a connection while all of
// [WithMaxConns] are in use; then 503. Default 1 s. Zero: whatever
// [WithTimeout] leaves.
func WithAcquireTimeout(d time.Duration) DefaultOption {
	return duration("WithAcquireTimeout", d, func(p *policy) *time.Duration { return &p.acquireTimeout })
}

// WithoutConnReuse has each request sent on a connection of its own. It is for
// an upstream that cannot be trusted to send one response to one request: what
// such a one sends too much is taken for the answer to the next request
// otherwise, if it arrives late enough (RFC 9112 §11.2).
func WithoutConnReuse() DefaultOption {
	return def("WithoutConnReuse", func(p *policy, _ *list) { p.noConnReuse = true })
}

// A DialFunc connects to an upstream, like [net.Dialer.DialContext]. The
// network is "tcp" or "unix", the address is the target's. It is waited for a
// tenth of a second at most once its context has ended.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// WithDialContext has f connect to upstreams, through a mesh or in a test. TLS
// to https targets is spoken on top. Default: a [net.Dialer].
func WithDialContext(f DialFunc) DefaultOption {
	return def("WithDialContext", func(p *policy, l *list) {
		if f == nil {
			l.fault("", "the function is nil")
		}
		p.dial = f
	})
}

// A Replica is one of several servers of a service. Its URL is like the target's
// and has the same path, or none. A Weight of 0 means 1.
type Replica struct {
	URL    string
	Weight int
}

// WithReplicas has a service's requests shared among the target and further
// replicas. The target's weight is 1, unless it is named here, too. Every
// replica is sent the target's host. Beside an https target none may be http. Default: the target alone. See
// [Upstream.SetReplicas] for a change at runtime.
func WithReplicas(replicas ...Replica) ServiceOption {
	return serviceOption{"WithReplicas", func(p *policy, l *list) {
		if len(replicas) == 0 {
			l.fault("", "no replica is given")
		}
		p.replicas = replicas
	}}
}

// Balancing is how a request's replica is chosen. Its zero value is
// [PowerOfTwo].
type Balancing struct {
	policy balance.Policy
	by     func(*fetch) string // what rendezvous goes by; empty: anything

	field, name string // what by looks at; field is empty where that has no name
	shown       string // what it is called; empty: power of two
}

// PowerOfTwo has two replicas drawn by their weights, and the one chosen whose
// requests in flight will take less time.
func PowerOfTwo() Balancing { return Balancing{} }

// RoundRobin has replicas take turns by their weights.
func RoundRobin() Balancing { return Balancing{policy: balance.RoundRobin, shown: "round robin"} }

// HashHeader has requests with equal values of a header field go to the same
// replica, as long as that can be used; a replica that comes or goes moves only
// its own share (rendezvous hashing). Those without the field go anywhere.
func HashHeader(name string) Balancing {
	key := http.CanonicalHeaderKey(name)
	by := func(f *fetch) string { return strings.Join(f.out.header[key], ", ") }
	return Balancing{policy: balance.Rendezvous, by: by, field: "field", name: name, shown: "hash of the field " + key}
}

// HashCookie is [HashHeader] by a cookie.
func HashCookie(name string) Balancing {
	by := func(f *fetch) string {
		if c, err := f.x.r.Cookie(name); err == nil {
			return c.Value
		}
		return ""
	}
	return Balancing{policy: balance.Rendezvous, by: by, field: "cookie", name: name, shown: "hash of the cookie " + name}
}

// HashPath is [HashHeader] by the path.
func HashPath() Balancing {
	return Balancing{policy: balance.Rendezvous, by: func(f *fetch) string { return f.out.path }, shown: "hash of the path"}
}

// HashClient is [HashHeader] by the client's address, behind
// [WithTrustedProxies] where there are some.
func HashClient() Balancing {
	by := func(f *fetch) string { return strings.Join(f.out.header["X-Real-Ip"], "") }
	return Balancing{policy: balance.Rendezvous, by: by, shown: "hash of the client's address"}
}

// hash returns what rendezvous goes by, alike in all processes; false: the request
// has nothing of it, and goes anywhere.
func (f *fetch) hash() (hash uint64, known bool) {
	by := f.svc.policy.balancing.by
	if by == nil {
		return 0, false
	}
	text := by(f)
	if text == "" {
		return mathrand.Uint64(), false
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	return h.Sum64(), true
}

// WithBalancing sets how a request's replica is chosen. No request is sent to a
// replica twice while there is another. Default [PowerOfTwo].
func WithBalancing(b Balancing) DefaultOption {
	return def("WithBalancing", func(p *policy, l *list) {
		if b.field != "" {
			l.judgeName(b.name, b.field)
		}
		p.balancing = b
	})
}

// WithSlowStart has the weight of a replica that is new among others, or has
// recovered, grow from a tenth to all of it in that time. Default and zero: at
// once.
func WithSlowStart(d time.Duration) DefaultOption {
	return duration("WithSlowStart", d, func(p *policy) *time.Duration { return &p.slowStart })
}

// WithDNSRefresh has the names of replicas resolved that often, from the first
// request on, and each address be a replica of its own. What is under way at an
// address that is gone goes on. Default and zero: a name is resolved whenever a
// connection is made (see [WithMaxConnAge]). At least 1 ms otherwise.
func WithDNSRefresh(every time.Duration) DefaultOption {
	return def("WithDNSRefresh", func(p *policy, l *list) {
		switch {
		case every < 0:
			l.fault(every.String(), "negative")
		case 0 < every && every < time.Millisecond:
			l.fault(every.String(), "less than 1 ms")
		}
		p.dnsRefresh = every
	})
}

// WithEjection has a replica taken out of use after so many failures in a row:
// connections that failed, times that ran out, responses that break the rules,
// and statuses of 500 and more. It is out for base at first, and up to longest
// if it keeps failing; it comes back by one request that succeeds. It is also
// taken out if less than half as many of its requests succeed as of the
// others'. Default 5, 10 s and 5 min. All must be positive.
func WithEjection(failures int, base, longest time.Duration) DefaultOption {
	return def("WithEjection", func(p *policy, l *list) {
		if failures < 1 {
			l.fault(fmt.Sprint(failures), "less than 1 failure")
		}
		l.judgeRange("time", base, longest)
		p.ejectFailures, p.ejectBase, p.ejectMax = failures, base, longest
	})
}

// WithEjectionShare bounds the share of replicas that may be out of use by
// ejection at a time; with two or more, one always may. Default 0.5. Between 0
// and 1; at 0 none is.
func WithEjectionShare(share float64) DefaultOption {
	return upToOne("WithEjectionShare", share, func(p *policy) *float64 { return &p.ejectShare })
}

// WithoutEjection has no replica taken out of use for its failures.
func WithoutEjection() DefaultOption {
	return def("WithoutEjection", func(p *policy, _ *list) { p.ejectBase = 0 })
}

// WithPanicThreshold has all replicas be used, whatever their state, when less
// than this share is fit: the few that are left would not survive the load of
// all. Default 0.5. Zero: never, and with none fit, 503. At most 1.
func WithPanicThreshold(share float64) DefaultOption {
	return upToOne("WithPanicThreshold", share, func(p *policy) *float64 { return &p.panicShare })
}

// WithHealthChecks has each replica asked for [WithHealthPath] that often, from
// the first request on; an unhealthy one is asked twice as often. It is out of
// use after fall failures in a row, and back after rise successes. An answer
// below 500 within [WithHealthTimeout] is one. Default: none is asked. The
// interval is at least 10 ms; rise and fall are at least 1.
func WithHealthChecks(interval time.Duration, rise, fall int) DefaultOption {
	return def("WithHealthChecks", func(p *policy, l *list) {
		if interval < 10*time.Millisecond {
			l.fault(interval.String(), "the interval is less than 10 ms")
		}
		if rise < 1 {
			l.fault(fmt.Sprint(rise), "rise is less than 1")
		}
		if fall < 1 {
			l.fault(fmt.Sprint(fall), "fall is less than 1")
		}
		p.checkInterval, p.checkRise, p.checkFall = interval, rise, fall
	})
}

// WithoutHealthChecks has no replica asked by itself.
func WithoutHealthChecks() DefaultOption {
	return def("WithoutHealthChecks", func(p *policy, _ *list) { p.checkInterval = 0 })
}

// A BreakerState is what a circuit breaker does with requests.
type BreakerState string

// The states of a circuit breaker.
const (
	BreakerClosed   BreakerState = "closed"    // lets all pass
	BreakerOpen     BreakerState = "open"      // refuses all
	BreakerHalfOpen BreakerState = "half_open" // lets a few pass, to see how they fare
)

// WithBreaker has the service's circuit breaker open when, within
// [WithBreakerTimes], at least volume requests have succeeded or failed, and
// that share of them has failed. Then requests are refused at once with 503 and
// Retry-After. Failures are those of [WithEjection], after all repeats; what is
// the client's doing counts for nothing, 4xx included. Default 0.5 and 20. The
// ratio is above 0 and at most 1, the volume at least 1.
func WithBreaker(ratio float64, volume int) DefaultOption {
	return def("WithBreaker", func(p *policy, l *list) {
		if !(ratio > 0 && ratio <= 1) {
			l.fault(fmt.Sprint(ratio), "the ratio is not above 0 and at most 1")
		}
		if volume < 1 {
			l.fault(fmt.Sprint(volume), "the volume is less than 1")
		}
		p.breakerRatio, p.breakerVolume = ratio, volume
	})
}

// WithBreakerTimes sets over which time the breaker counts, and how long it
// stays open before it lets so many probes pass: if all succeed it closes, if
// one fails it opens again. Default 10 s, 500 ms and 3.
// The window is at least 1 s, the rest positive.
func WithBreakerTimes(window, open time.Duration, probes int) DefaultOption {
	return def("WithBreakerTimes", func(p *policy, l *list) {
		if window < time.Second {
			l.fault(window.String(), "the window is less than 1 s")
		}
		if open <= 0 {
			l.fault(open.String(), "the time that it is open is not positive")
		}
		if probes < 1 {
			l.fault(fmt.Sprint(probes), "less than 1 probe")
		}
		p.breakerWindow, p.breakerOpen, p.breakerProbes = window, open, probes
	})
}

// A BreakerHook is told of each change of a service's circuit breaker, in their
// order, on the goroutine of a request: it must not block.
type BreakerHook = func(service string, from, to BreakerState)

// WithBreakerHook has f told of the breaker's changes, which are also logged.
func WithBreakerHook(f BreakerHook) DefaultOption {
	return def("WithBreakerHook", func(p *policy, l *list) {
		if f == nil {
			l.fault("", "the function is nil")
		}
		p.onBreaker = f
	})
}

// WithoutBreaker has no circuit breaker.
func WithoutBreaker() DefaultOption {
	return def("WithoutBreaker", func(p *policy, _ *list) { p.breakerRatio = 0 })
}

// WithMaxConcurrency bounds how many requests are at the service at a time,
// until their responses end. Up to queue more wait their turn, each for at most
// wait; others are answered 503. Default: no bound. n is at least 1; a queue of
// 0 lets nobody wait; a wait of 0 is as long as [WithTimeout] leaves.
func WithMaxConcurrency(n, queue int, wait time.Duration) DefaultOption {
	return def("WithMaxConcurrency", func(p *policy, l *list) {
		if n < 1 {
			l.fault(fmt.Sprint(n), "the bound is less than 1")
		}
		if queue < 0 {
			l.fault(fmt.Sprint(queue), "the queue is negative")
		}
		if wait < 0 {
			l.fault(wait.String(), "the wait is negative")
		}
		p.concurrency, p.concurrencyQueue, p.concurrencyWait = n, queue, wait
	})
}

// WithoutMaxConcurrency has any number of requests be at the service.
func WithoutMaxConcurrency() DefaultOption {
	return def("WithoutMaxConcurrency", func(p *policy, _ *list) { p.concurrency = 0 })
}

// WithRateLimit bounds how many requests a second reach the service, and how
// many may come at once; others are answered 429 with Retry-After. What the
// cache answers does not count. Default: no bound. Both must be positive.
func WithRateLimit(perSecond float64, burst int) DefaultOption {
	return def("WithRateLimit", func(p *policy, l *list) {
		if !(perSecond > 0) || math.IsInf(perSecond, 1) {
			l.fault(fmt.Sprint(perSecond), "the rate is not positive and finite")
		}
		if burst < 1 {
			l.fault(fmt.Sprint(burst), "the burst is less than 1")
		}
		p.ratePerSecond, p.rateBurst = perSecond, burst
	})
}

// WithoutRateLimit has any number of requests reach the service.
func WithoutRateLimit() DefaultOption {
	return def("WithoutRateLimit", func(p *policy, _ *list) { p.ratePerSecond = 0 })
}

// WithHedge has a GET, HEAD or OPTIONS without a body that is not answered
// after delay sent to another replica, too. The first answer is taken, the other
// request is called off. It is paid from the budget of repeats
// ([WithRetryBudget]). 1xx responses of such requests are dropped. Default and
// zero: none is.
func WithHedge(delay time.Duration) DefaultOption {
	return duration("WithHedge", delay, func(p *policy) *time.Duration { return &p.hedgeDelay })
}

// WithMaxTunnels bounds the WebSocket tunnels of a service; then 503. Default
// 10,000. Zero: none is opened.
func WithMaxTunnels(n int) DefaultOption {
	return atLeast("WithMaxTunnels", n, 0, "negative", func(p *policy) *int { return &p.maxTunnels })
}

// WithHTTP2 has HTTP/2 spoken to the service: over TLS as agreed by ALPN to
// https targets, with prior knowledge (h2c) to http ones. It is what gRPC needs,
// whose services are to get their own name with the path, as an [Upstream] does or
// a target that ends in it. Default: HTTP/1.1.
func WithHTTP2() DefaultOption {
	return def("WithHTTP2", func(p *policy, _ *list) { p.http2 = true })
}

// WithoutHTTP2 has HTTP/1.1 spoken to the service.
func WithoutHTTP2() DefaultOption {
	return def("WithoutHTTP2", func(p *policy, _ *list) { p.http2 = false })
}

// WithTransport sends requests through rt instead of the package's own
// connections; the service's dial, TLS and response header timeouts are then
// rt's affair. rt must not be changed afterwards. It cannot reach sockets. When a
// request's time has run out, its context ends, which rt has to mind; the content
// of its response is closed a tenth of a second later. A service that has an option
// about connections of its own, or is a socket, drops an inherited one. Default: connections of the package, without proxy, without
// compression, without cookies.
func WithTransport(rt http.RoundTripper) DefaultOption {
	return def("WithTransport", func(p *policy, l *list) {
		if options.IsNil(rt) {
			l.fault("", "the round tripper is nil")
		}
		p.transport = rt
	})
}

// WithTLSConfig sets the TLS configuration of connections to https targets: RootCAs
// for a CA of your own, Certificates for a client's. It is cloned. Default: the
// standard library's.
func WithTLSConfig(c *tls.Config) DefaultOption {
	return def("WithTLSConfig", func(p *policy, l *list) {
		if c == nil {
			l.fault("", "the configuration is nil")
			return
		}
		p.tlsConfig, p.tlsSource = c.Clone(), c
	})
}

// WithPreserveHost sends the client's Host to the upstream; one that is neither
// a name nor an address is answered 400. Default: the target's host; the client's
// is in X-Forwarded-Host.
func WithPreserveHost() DefaultOption {
	return def("WithPreserveHost", func(p *policy, _ *list) { p.preserveHost = true })
}

// WithForwarded sends Forwarded (RFC 7239) with each request, beside
// X-Forwarded-*: for is the client's address, without a port; host and proto
// are where the request came in; by is "_gateway", which is no address. What a
// peer of [WithTrustedProxies] has sent in the field is continued, or, where it
// has sent none, what it has in X-Forwarded-For. Default: it is not sent.
func WithForwarded() DefaultOption {
	return def("WithForwarded", func(p *policy, _ *list) { p.forwarded = true })
}

// WithoutForwarded sends no Forwarded.
func WithoutForwarded() DefaultOption {
	return def("WithoutForwarded", func(p *policy, _ *list) { p.forwarded = false })
}

// WithServerTiming tells clients in Server-Timing (W3C) where the time to the
// response's header went, in milliseconds: gateway is the gateway's own part,
// upstream the wait for an answer, all attempts together, and cache says what
// the cache did. It is appended to what the service tells itself, which a stored
// response is served without. Clients then see how long services take. Default:
// nothing is told.
func WithServerTiming() DefaultOption {
	return def("WithServerTiming", func(p *policy, _ *list) { p.serverTiming = true })
}

// WithoutServerTiming tells nothing of times.
func WithoutServerTiming() DefaultOption {
	return def("WithoutServerTiming", func(p *policy, _ *list) { p.serverTiming = false })
}

// WithTrustedProxies names the peers, as addresses or CIDR prefixes, whose
// X-Forwarded-* fields are believed and continued. Those of all others are
// replaced. Default: nobody.
func WithTrustedProxies(prefixes ...string) DefaultOption {
	return def("WithTrustedProxies", func(p *policy, l *list) {
		p.trusted = nil
		for _, s := range prefixes {
			prefix, err := netip.ParsePrefix(s)
			if addr, aerr := netip.ParseAddr(s); aerr == nil {
				prefix, err = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
			}
			if err != nil {
				l.fault(s, "neither an address nor a CIDR prefix")
				continue
			}
			p.trusted = append(p.trusted, prefix.Masked())
		}
	})
}

// WithMethods allows request methods beyond those of RFC 9110 and RFC 5789,
// such as "QUERY", "PURGE" or "PROPFIND". CONNECT and TRACE cannot be allowed.
// Unknown methods are never repeated. Default: others are answered 501.
func WithMethods(methods ...string) ServiceOption {
	return serviceOption{"WithMethods", func(p *policy, l *list) {
		for _, m := range methods {
			switch m {
			case http.MethodConnect, http.MethodTrace:
				l.fault(m, "is never forwarded")
			default:
				l.judgeName(m, "method")
			}
		}
		p.methods = append(p.methods, methods...)
	}}
}

// WithRequestID names the header in which a request's id travels: the client's
// is kept if it is 1 to 128 letters, digits and "-._~:/+=@", else one is made, once
// the request is sent to the upstream, refused or logged. It is sent there, returned
// to the client and logged. What is refused for no service has the header of the
// defaults. Default "X-Request-Id".
func WithRequestID(header string) DefaultOption {
	return def("WithRequestID", func(p *policy, l *list) {
		key := http.CanonicalHeaderKey(header)
		switch {
		case header == "":
			l.fault("", "the name is empty (WithoutRequestID has no ids made)")
		case !forward.IsToken(header):
			l.judgeName(header, "field")
		case forward.Managed(header):
			l.fault(header, "is set by the gateway or by the connection")
		case key == "Authorization", key == "Cookie", key == "Set-Cookie":
			l.fault(header, "carries credentials, and ids are logged")
		}
		p.requestIDHeader = key
	})
}

// WithoutRequestID has no request ids made; a client's own header passes as
// any other.
func WithoutRequestID() DefaultOption {
	return def("WithoutRequestID", func(p *policy, _ *list) { p.requestIDHeader = "" })
}

// WithHealthPath sets the path, below the target's, that [Gateway.HealthHandler]
// asks each replica for. It is sent without credentials; any status under 500
// is healthy. Default: the target's own path.
func WithHealthPath(path string) DefaultOption {
	return def("WithHealthPath", func(p *policy, l *list) {
		u, err := url.Parse(path)
		if err != nil || u.Scheme != "" || u.Host != "" || u.Fragment != "" || !strings.HasPrefix(path, "/") {
			l.fault(path, "no path that begins with a slash, such as /healthz?full=1")
			return
		}
		escaped, query, err := forward.Judge(u)
		if err != nil {
			l.fault(path, "not a path that may be forwarded")
		}
		if p.healthPath = escaped; query != "" {
			p.healthPath += "?" + query
		}
	})
}

// WithHealthTimeout bounds one health probe of a replica. Default 1 s. It must
// be positive.
func WithHealthTimeout(d time.Duration) DefaultOption {
	return def("WithHealthTimeout", func(p *policy, l *list) {
		if d <= 0 {
			l.fault(d.String(), "not positive")
		}
		p.healthTime = d
	})
}

// A HealthPolicy says what a broken service makes of the whole, in
// [Gateway.HealthHandler]'s answers.
type HealthPolicy int

// The policies.
const (
	HealthWarn    HealthPolicy = iota // a warning: the full report is 200 all the same
	HealthFail                        // a failure: the full report is 503
	HealthUnready                     // a failure, and "readyz" is 503, too
)

// WithHealthPolicy sets what a broken service makes of the whole. It is broken
// while none of its replicas answers the health probe and is neither ejected nor
// unhealthy, and while its circuit breaker refuses all requests. [HealthUnready]
// has "readyz" probe the service, and takes the app out of use, with all that it
// could still answer. Default: [HealthWarn], which is also the zero value.
func WithHealthPolicy(h HealthPolicy) DefaultOption {
	return def("WithHealthPolicy", func(p *policy, l *list) {
		if h < HealthWarn || h > HealthUnready {
			l.fault(strconv.Itoa(int(h)), "no such policy")
		}
		p.healthPolicy = h
	})
}

// WithBearerToken sends "Authorization: Bearer token" with every request. The
// client's own Authorization never passes. The token shows in no error, log,
// span or statistic. Responses are then stored by RFC 9111 §3.5 (see
// [WithCacheAuthorized]).
func WithBearerToken(token string) ServiceOption {
	return serviceOption{"WithBearerToken", func(p *policy, l *list) {
		if err := options.CheckToken(token); err != nil && token == "" {
			l.fault("", err.Error())
		} else if err != nil {
			l.fault("[redacted]", err.Error())
		}
		p.setHeader("Authorization", "Bearer "+token)
		p.bearerStatic, p.tokenSource = true, nil
	}}
}

// A TokenSource returns the token for one request. Its context has what the app's
// middleware has put into the request's, and ends with the request's time; it is
// called by many goroutines at once and should cache. It is not waited for any
// longer than that.
type TokenSource = func(ctx context.Context) (string, error)

// WithTokenSource sends "Authorization: Bearer …" with a token that f returns,
// asked once per request. An error, a panic or a token that is no field value
// is answered 502, and nothing is sent. The client's own Authorization never
// passes.
func WithTokenSource(f TokenSource) ServiceOption {
	return serviceOption{"WithTokenSource", func(p *policy, l *list) {
		if f == nil {
			l.fault("", "the token source is nil")
		}
		p.tokenSource = f
		if p.bearerStatic {
			delete(p.header, "Authorization")
			p.bearerStatic = false
		}
	}}
}

// WithHeader sends name: value with every request, in place of the client's.
// The value is treated as a credential: it shows nowhere. Basic authentication is
// an Authorization. Hop-by-hop fields, framing, Host and what the gateway sets
// itself are refused.
func WithHeader(name, value string) ServiceOption {
	return serviceOption{"WithHeader", func(p *policy, l *list) {
		key := http.CanonicalHeaderKey(name)
		switch {
		case forward.Managed(key):
			l.fault(name, "is set by the gateway or by the connection")
		case l.given["WithBearerToken"] && key == "Authorization":
			l.fault(name, "is already injected (WithBearerToken)")
		default:
			l.judgeName(name, "field")
		}
		if err := forward.CheckValue(value); err != nil {
			l.fault(name, err.Error())
		}
		p.setHeader(key, value)
	}}
}

func (p *policy) setHeader(key, value string) {
	if p.header == nil {
		p.header = make(http.Header)
	}
	p.header[key] = []string{value}
	if key == "Authorization" {
		p.bearerStatic = true
	}
}

// WithRewrite has f change each request before it is sent, once however often
// it is repeated: its URL's path and query, Header and Host. Its Context has
// what the app's middleware has put into the client's request's. Changes of
// Method, Body and of the URL's scheme and host, and Host and the framing's
// fields in Header, have no effect; an empty Host is the target's. Several run
// in order. A panic, and what cannot be sent, is answered 500. What f adds is
// not part of the cache key: let the upstream send Vary.
func WithRewrite(f func(out *http.Request)) ServiceOption {
	return serviceOption{"WithRewrite", func(p *policy, l *list) {
		if f == nil {
			l.fault("", "the function is nil")
		}
		p.rewrite = append(p.rewrite, f)
	}}
}

// WithModifyResponse has f change each final response of the upstream before
// it is judged for the cache, stored and sent: StatusCode, Header and Body. An f that replaces
// Body sets ContentLength too (-1: unknown). An error is answered 502, a panic 500. Several run in order.
// Switched protocols (101) are not shown.
func WithModifyResponse(f func(*http.Response) error) ServiceOption {
	return serviceOption{"WithModifyResponse", func(p *policy, l *list) {
		if f == nil {
			l.fault("", "the function is nil")
		}
		p.modify = append(p.modify, f)
	}}
}

func def(name string, set func(*policy, *list)) DefaultOption {
	return defaultOption{serviceOption{name, set}}
}

func cachingOf(name string, set func(*caching, *list)) CachingOption {
	return cachingOption{defaultOption{serviceOption{name, func(p *policy, l *list) { set(&p.caching, l) }}}}
}

func cachingTime(name string, d time.Duration, field func(*caching) *time.Duration) CachingOption {
	return cachingOf(name, func(c *caching, l *list) {
		if d < 0 {
			l.fault(d.String(), "negative")
		}
		*field(c) = d
	})
}

// canonicalNames judges the names of fields.
func canonicalNames(names []string, l *list) []string {
	canonical := make([]string, len(names))
	for i, name := range names {
		l.judgeName(name, "field")
		canonical[i] = http.CanonicalHeaderKey(name)
	}
	return canonical
}

func duration(name string, d time.Duration, field func(*policy) *time.Duration) DefaultOption {
	return def(name, func(p *policy, l *list) {
		if d < 0 {
			l.fault(d.String(), "negative")
		}
		*field(p) = d
	})
}

// atLeast is an option of one number that has a least value.
func atLeast[N int | int64](name string, n, least N, otherwise string, field func(*policy) *N) DefaultOption {
	return def(name, func(p *policy, l *list) {
		if n < least {
			l.fault(fmt.Sprint(n), otherwise)
		}
		*field(p) = n
	})
}

// upToOne is an option of one share.
func upToOne(name string, share float64, field func(*policy) *float64) DefaultOption {
	return def(name, func(p *policy, l *list) {
		if !(share >= 0 && share <= 1) {
			l.fault(fmt.Sprint(share), "not between 0 and 1")
		}
		*field(p) = share
	})
}

// parseReplicas reads replicas of a target, which is nil if it is none itself.
func parseReplicas(l *list, option string, replicas []Replica, target *url.URL) []replica {
	valid := make([]replica, 0, len(replicas))
	weights := make(map[string]int, len(replicas))
	for _, r := range replicas {
		u, shown, reasons := forward.ParseUpstream(r.URL)
		if len(reasons) == 0 {
			reasons = unfit(u, target)
		}
		if r.Weight < 0 {
			l.faultOf(option, fmt.Sprint(r.Weight), "the weight is negative")
		}
		if len(reasons) == 0 {
			one := replica{u, max(r.Weight, 1)}
			if w, known := weights[one.key()]; known && w != one.weight {
				reasons = append(reasons, "is named twice, with different weights")
			}
			weights[one.key()] = one.weight
			valid = append(valid, one)
		}
		for _, reason := range reasons {
			l.faultOf(option, shown, reason)
		}
	}
	return valid
}

// unfit says why a URL, which is in order by itself, cannot stand beside target.
func unfit(u, target *url.URL) (reasons []string) {
	if target == nil {
		return nil
	}
	if path := strings.TrimSuffix(u.EscapedPath(), "/"); u.Scheme != forward.SchemeUnix && path != "" && path != basePath(target) {
		reasons = append(reasons, "the path is not the target's")
	}
	if u.Scheme == "http" && target.Scheme == "https" {
		reasons = append(reasons, "plain http beside an https target would send in clear what the target is sent encrypted")
	}
	return reasons
}

// basePath is the escaped path that comes before what is forwarded to target.
func basePath(target *url.URL) string {
	if target.Scheme == forward.SchemeUnix {
		return ""
	}
	return strings.TrimSuffix(target.EscapedPath(), "/")
}

const outOfReach = "a round tripper of your own cannot reach a socket"

// socketOf returns one of replicas that is a socket; nil: none is.
func socketOf(replicas []replica) *url.URL {
	for _, r := range replicas {
		if r.url.Scheme == forward.SchemeUnix {
			return r.url
		}
	}
	return nil
}

// replicas returns the target, unless that is nil, and what WithReplicas adds
// to it. A socket wins over an inherited round tripper.
func (c *serviceConfig) replicas(target *url.URL) []replica {
	all := parseReplicas(&c.list, "WithReplicas", c.policy.replicas, target)
	if target == nil {
		return all
	}
	first := replica{target, 1}
	if !slices.ContainsFunc(all, func(r replica) bool { return r.key() == first.key() }) {
		all = slices.Insert(all, 0, first)
	}
	if socket := socketOf(all); socket != nil && c.policy.transport != nil {
		c.policy.transport = nil
		if c.list.given["WithTransport"] {
			c.list.faultOf("WithTransport", socket.String(), outOfReach)
		}
	}
	return all
}
