package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/embedgw/gateway/internal/forward"
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

// A SharedOption is about a whole gateway, stand-alone upstream or cache, and
// so is no option of a single service.
type SharedOption interface {
	Option
	UpstreamOption
	CacheOption
}

// An OptionError says what is wrong with one option. The constructors return
// all of them at once, joined by [errors.Join]; find each with [errors.As].
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
	cache           *Cache
	cacheAuthorized bool
	cacheCookies    bool

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
	maxHeaderBytes  int
	methods         []string // allowed beyond the registered ones
	preserveHost    bool
	trusted         []netip.Prefix
	requestIDHeader string // empty: none

	transport    http.RoundTripper
	tlsConfig    *tls.Config
	healthPath   string
	healthTime   time.Duration
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
// upstream. Functions cannot be compared: they are told apart by chance.
func (p *policy) identity() string {
	if p.tokenSource != nil || p.transport != nil || len(p.rewrite) > 0 || len(p.modify) > 0 {
		return rand.Text()
	}
	h := sha256.New()
	fmt.Fprint(h, p.preserveHost, p.cacheAuthorized, p.cacheCookies)
	for _, name := range slices.Sorted(maps.Keys(p.header)) {
		fmt.Fprintf(h, "%q%q", name, p.header[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// injects reports whether requests carry credentials of ours.
func (p *policy) injects() bool { return p.bearerStatic || p.tokenSource != nil }

// The configurations that constructors fill, one for each kind of option.
type (
	config struct {
		shared   sharedConfig
		defaults serviceConfig
		declared []declared
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

// contradictions are the pairs that make no sense in one list, the later of
// which in this table is named in the fault.
var contradictions = [...]struct{ one, other, reason string }{
	{"WithCache", "WithoutCache", "the same list asks for a cache"},
	{"WithCacheAuthorized", "WithoutCache", "the same list refines the cache"},
	{"WithCacheCookies", "WithoutCache", "the same list refines the cache"},
	{"WithRetries", "WithoutRetries", "the same list asks for retries"},
	{"WithRetryBackoff", "WithoutRetries", "the same list refines retries"},
	{"WithRetryBudget", "WithoutRetries", "the same list refines retries"},
	{"WithRetryBodyBytes", "WithoutRetries", "the same list refines retries"},
	{"WithMaxRetryAfter", "WithoutRetries", "the same list refines retries"},
	{"WithRequestID", "WithoutRequestID", "the same list names a request id header"},
	{"WithBearerToken", "WithTokenSource", "the same list gives a fixed token"},
	{"WithTLSConfig", "WithTransport", "a round tripper of your own has its own TLS configuration"},
	{"WithDialTimeout", "WithTransport", "a round tripper of your own dials by itself"},
	{"WithTLSHandshakeTimeout", "WithTransport", "a round tripper of your own dials by itself"},
	{"WithResponseHeaderTimeout", "WithTransport", "a round tripper of your own keeps its own time; use WithAttemptTimeout"},
}

func (l *list) judge() {
	for _, c := range contradictions {
		if l.given[c.one] && l.given[c.other] {
			l.faultOf(c.other, "", c.reason+" ("+c.one+")")
		}
	}
}

// judge looks at what several options make together.
func (c *serviceConfig) judge() {
	p, l := &c.policy, &c.list
	l.judge()
	if p.cacheAuthorized && p.tokenSource != nil {
		l.faultOf("WithCacheAuthorized", "", "needs one static identity, and the service has a token source (WithTokenSource)")
	}
	if p.tokenSource != nil && p.header["Authorization"] != nil {
		l.faultOf("WithTokenSource", "", "Authorization is already injected (WithHeader)")
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
// before what follows the service segment. The options refine the defaults
// given to [New], whatever their order.
func WithService(name, target string, opts ...ServiceOption) Option {
	return gatewayOption(func(c *config) {
		c.declared = append(c.declared, declared{name, target, opts})
	})
}

// WithLogger has a line logged for each request (Info; Warn for statuses of
// 500 and more and for aborted responses) and for what goes wrong in the
// background (Error). Default: only panics are logged, to [slog.Default].
func WithLogger(l *slog.Logger) SharedOption {
	return sharedOption{"WithLogger", func(c *sharedConfig) {
		if l == nil {
			c.list.fault("", "the logger is nil")
		}
		c.logger = l
	}}
}

// An ErrorHandler answers a request that the gateway itself has to refuse or
// give up. Nothing has been written to w yet. It must not send err.Error() to
// a client: the text may name hosts.
type ErrorHandler func(w http.ResponseWriter, r *http.Request, err *Error)

// WithErrorHandler replaces the answer to everything that the gateway refuses
// or gives up. Default: the status of the error, and its reason as
// application/problem+json (RFC 9457) or as text, by the request's Accept.
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
		if c == nil {
			l.fault("", "the cache is nil")
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
	return serviceOption{"WithCacheAuthorized", func(p *policy, _ *list) { p.cacheAuthorized = true }}
}

// WithCacheCookies has responses stored although they set cookies or answer
// requests with cookies; stored Set-Cookie fields are replayed to every
// client. Default: a response with Set-Cookie is never stored, one to a
// request with Cookie only if it says public or s-maxage.
func WithCacheCookies() DefaultOption {
	return def("WithCacheCookies", func(p *policy, _ *list) { p.cacheCookies = true })
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
		for _, d := range []time.Duration{initial, longest} {
			if d <= 0 {
				l.fault(d.String(), "not positive")
			}
		}
		if 0 < longest && longest < initial {
			l.fault(longest.String(), "the longest wait is shorter than the first")
		}
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
			l.fault(fmt.Sprint(perSecond), "the rate is negative or not a number")
		}
		p.retryRatio, p.retryPerSecond = ratio, perSecond
	})
}

// WithRetryBodyBytes bounds how much of a request body is kept in memory for a
// repeat. A request with a longer one is not repeated once it was cut short.
// Default 64 KiB. Zero: nothing is kept.
func WithRetryBodyBytes(n int64) DefaultOption {
	return def("WithRetryBodyBytes", func(p *policy, l *list) {
		if n < 0 {
			l.fault(fmt.Sprint(n), "negative")
		}
		p.retryBodyBytes = n
	})
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
	return def("WithMaxBodyBytes", func(p *policy, l *list) {
		if n < 0 {
			l.fault(fmt.Sprint(n), "negative")
		}
		p.maxBodyBytes = n
	})
}

// WithMaxHeaderBytes bounds the header of a request, in bytes of names and
// values; then 431. (The server's own MaxHeaderBytes comes first.) Default
// 64 KiB. At least 1 KiB.
func WithMaxHeaderBytes(n int) DefaultOption {
	return def("WithMaxHeaderBytes", func(p *policy, l *list) {
		if n < 1<<10 {
			l.fault(fmt.Sprint(n), "less than 1 KiB")
		}
		p.maxHeaderBytes = n
	})
}

// WithTransport sends requests through rt instead of the package's own
// connections; the service's dial, TLS and response header timeouts are then
// rt's affair. rt must not be changed afterwards. Default: connections of the
// package, without proxy, without compression, without cookies.
func WithTransport(rt http.RoundTripper) DefaultOption {
	return def("WithTransport", func(p *policy, l *list) {
		if rt == nil {
			l.fault("", "the round tripper is nil")
		}
		p.transport = rt
	})
}

// WithTLSConfig sets the TLS configuration of connections to https targets. It
// is cloned. Default: the standard library's.
func WithTLSConfig(c *tls.Config) DefaultOption {
	return def("WithTLSConfig", func(p *policy, l *list) {
		if c == nil {
			l.fault("", "the configuration is nil")
			return
		}
		p.tlsConfig, p.transport = c.Clone(), nil
	})
}

// WithPreserveHost sends the client's Host to the upstream. Default: the
// target's host; the client's is in X-Forwarded-Host.
func WithPreserveHost() DefaultOption {
	return def("WithPreserveHost", func(p *policy, _ *list) { p.preserveHost = true })
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
			switch {
			case forward.CheckField(m, "x") != nil:
				l.fault(m, "not a token")
			case m == http.MethodConnect || m == http.MethodTrace:
				l.fault(m, "is never forwarded")
			}
		}
		p.methods = append(p.methods, methods...)
	}}
}

// WithRequestID names the header in which a request's id travels: the client's
// is kept if it is 1 to 128 letters, digits and "-._~:/+=@", else one is made. It is sent
// to the upstream, returned to the client and logged. Default "X-Request-Id".
func WithRequestID(header string) DefaultOption {
	return def("WithRequestID", func(p *policy, l *list) {
		key := http.CanonicalHeaderKey(header)
		switch {
		case forward.CheckField(header, "x") != nil:
			l.fault(header, "not a header name")
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
// asks the service for. It is sent without credentials; any status under 500
// is healthy. Default: the target's own path.
func WithHealthPath(path string) DefaultOption {
	return def("WithHealthPath", func(p *policy, l *list) {
		u, err := url.Parse(path)
		if err != nil || u.Scheme != "" || u.Host != "" || u.Fragment != "" || !strings.HasPrefix(path, "/") {
			l.fault(path, "not a path that begins with a slash")
			return
		}
		if _, _, err := forward.Judge(u); err != nil {
			l.fault(path, "not a path that may be forwarded")
		}
		p.healthPath = path
	})
}

// WithHealthTimeout bounds one health probe of a service. Default 1 s. It must
// be positive.
func WithHealthTimeout(d time.Duration) DefaultOption {
	return def("WithHealthTimeout", func(p *policy, l *list) {
		if d <= 0 {
			l.fault(d.String(), "not positive")
		}
		p.healthTime = d
	})
}

// WithBearerToken sends "Authorization: Bearer token" with every request. The
// client's own Authorization never passes. The token shows in no error, log,
// span or statistic. Responses are then stored by RFC 9111 §3.5 (see
// [WithCacheAuthorized]).
func WithBearerToken(token string) ServiceOption {
	return serviceOption{"WithBearerToken", func(p *policy, l *list) {
		if err := checkToken(token); err != nil {
			l.fault("[redacted]", err.Error())
		}
		p.setHeader("Authorization", "Bearer "+token)
		p.bearerStatic, p.tokenSource = true, nil
	}}
}

// A TokenSource returns the token for one request. Its context ends with the
// request's time; it is called by many goroutines at once and should cache.
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
// The value is treated as a credential: it shows nowhere. Hop-by-hop fields,
// framing, Host and what the gateway sets itself are refused.
func WithHeader(name, value string) ServiceOption {
	return serviceOption{"WithHeader", func(p *policy, l *list) {
		key := http.CanonicalHeaderKey(name)
		if err := forward.CheckField(name, value); err != nil {
			l.fault(name, err.Error())
		} else if forward.Managed(key) {
			l.fault(name, "is set by the gateway or by the connection")
		} else if l.given["WithBearerToken"] && key == "Authorization" {
			l.fault(name, "is already injected (WithBearerToken)")
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
// it is repeated: its URL's path and query, Header and Host. Changes of Method, Body and of
// the URL's scheme and host have no effect. Several run in order. A panic is answered 500. What f adds is
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

func duration(name string, d time.Duration, field func(*policy) *time.Duration) DefaultOption {
	return def(name, func(p *policy, l *list) {
		if d < 0 {
			l.fault(d.String(), "negative")
		}
		*field(p) = d
	})
}

// maxTokenBytes bounds tokens; together with the rest of a header it must fit
// what servers accept.
const maxTokenBytes = 16 << 10

// checkToken judges a bearer token: visible ASCII, no white space (RFC 6750 §2.1).
func checkToken(token string) error {
	if token == "" {
		return errors.New("the token is empty")
	}
	if len(token) > maxTokenBytes {
		return fmt.Errorf("the token is longer than %d bytes", maxTokenBytes)
	}
	for i := range len(token) {
		if c := token[i]; c <= ' ' || c >= 0x7f {
			return errors.New("the token has white space, control or non-ASCII characters")
		}
	}
	return nil
}

// checkName judges a service's name.
func checkName(name string) string {
	switch {
	case name == "":
		return "the name is empty"
	case len(name) > 64:
		return "the name is longer than 64 bytes"
	case name == "." || name == "..":
		return "the name is a dot segment"
	case !utf8.ValidString(name):
		return "the name is not UTF-8"
	}
	for _, c := range name {
		if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", c) {
			return "the name has characters other than letters, digits, '-', '.', '_' and '~'"
		}
	}
	return ""
}

// parseTarget reads a target URL; reasons say what is wrong with it.
func parseTarget(target string) (u *url.URL, shown string, reasons []string) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, "", []string{"not a URL"} // the text may hold a password
	}
	_, _, pathErr := forward.Judge(&url.URL{Path: u.Path, RawPath: u.RawPath})
	for _, rule := range []struct {
		broken bool
		reason string
	}{
		{u.User != nil, "userinfo in the URL; use WithBearerToken or WithHeader"},
		{u.Scheme != "http" && u.Scheme != "https", "the scheme is neither http nor https"},
		{u.Hostname() == "", "the URL has no host"},
		{u.RawQuery != "" || u.ForceQuery || strings.Contains(target, "#"), "the URL has a query or fragment"},
		{!validPort(u), "the port is not between 1 and 65535"},
		{pathErr != nil, "the path may not be forwarded"},
	} {
		if rule.broken {
			reasons = append(reasons, rule.reason)
		}
	}
	return u, (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String(), reasons
}

func validPort(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	n, err := strconv.Atoi(u.Port())
	return err == nil && 0 < n && n < 1<<16
}
