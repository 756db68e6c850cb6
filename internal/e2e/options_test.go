package e2e_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

const target = "http://upstream.test"

func faultOf(option, value, reason string) gateway.OptionError {
	return gateway.OptionError{Option: option, Value: value, Reason: reason}
}

// TestDefaultOptionFaults has a row for each fault of each option that New,
// WithService and NewUpstream take.
func TestDefaultOptionFaults(t *testing.T) {
	const d = -time.Second
	tests := []struct {
		opt  gateway.DefaultOption
		want gateway.OptionError
	}{
		{gateway.WithTimeout(d), faultOf("WithTimeout", "-1s", "negative")},
		{gateway.WithAttemptTimeout(d), faultOf("WithAttemptTimeout", "-1s", "negative")},
		{gateway.WithDialTimeout(d), faultOf("WithDialTimeout", "-1s", "negative")},
		{gateway.WithTLSHandshakeTimeout(d), faultOf("WithTLSHandshakeTimeout", "-1s", "negative")},
		{gateway.WithResponseHeaderTimeout(d), faultOf("WithResponseHeaderTimeout", "-1s", "negative")},
		{gateway.WithBodyIdleTimeout(d), faultOf("WithBodyIdleTimeout", "-1s", "negative")},
		{gateway.WithTunnelIdleTimeout(d), faultOf("WithTunnelIdleTimeout", "-1s", "negative")},
		{gateway.WithMaxDuration(d), faultOf("WithMaxDuration", "-1s", "negative")},
		{gateway.WithMaxRetryAfter(d), faultOf("WithMaxRetryAfter", "-1s", "negative")},
		{gateway.WithHealthTimeout(d), faultOf("WithHealthTimeout", "-1s", "not positive")},
		{gateway.WithHealthTimeout(0), faultOf("WithHealthTimeout", "0s", "not positive")},
		{gateway.WithLogSampling(-0.1), faultOf("WithLogSampling", "-0.1", "not between 0 and 1")},
		{gateway.WithLogSampling(1.1), faultOf("WithLogSampling", "1.1", "not between 0 and 1")},
		{gateway.WithLogSampling(math.NaN()), faultOf("WithLogSampling", "NaN", "not between 0 and 1")},
		{gateway.WithLogLimit(-1), faultOf("WithLogLimit", "-1", "negative")},
		{gateway.WithRetries(-1), faultOf("WithRetries", "-1", "not between 0 and 10")},
		{gateway.WithRetries(11), faultOf("WithRetries", "11", "not between 0 and 10")},
		{gateway.WithRetryBackoff(0, time.Second), faultOf("WithRetryBackoff", "0s", "the first wait is not positive")},
		{gateway.WithRetryBackoff(time.Second, -1), faultOf("WithRetryBackoff", "-1ns", "the longest wait is not positive")},
		{gateway.WithRetryBackoff(2*time.Second, time.Second), faultOf("WithRetryBackoff", "1s", "the longest wait is shorter than the first")},
		{gateway.WithRetryBudget(-0.1, 1), faultOf("WithRetryBudget", "-0.1", "the ratio is not between 0 and 1")},
		{gateway.WithRetryBudget(1.1, 1), faultOf("WithRetryBudget", "1.1", "the ratio is not between 0 and 1")},
		{gateway.WithRetryBudget(math.NaN(), 1), faultOf("WithRetryBudget", "NaN", "the ratio is not between 0 and 1")},
		{gateway.WithRetryBudget(0, -1), faultOf("WithRetryBudget", "-1", "the rate is negative, infinite or not a number")},
		{gateway.WithRetryBudget(0, math.NaN()), faultOf("WithRetryBudget", "NaN", "the rate is negative, infinite or not a number")},
		{gateway.WithRetryBudget(0, math.Inf(1)), faultOf("WithRetryBudget", "+Inf", "the rate is negative, infinite or not a number")},
		{gateway.WithRetryBodyBytes(-1), faultOf("WithRetryBodyBytes", "-1", "negative")},
		{gateway.WithMaxBodyBytes(-1), faultOf("WithMaxBodyBytes", "-1", "negative")},
		{gateway.WithMaxResponseBytes(-1), faultOf("WithMaxResponseBytes", "-1", "negative")},
		{gateway.WithMaxHeaderBytes(1023), faultOf("WithMaxHeaderBytes", "1023", "less than 1 KiB")},
		{gateway.WithMaxConns(0), faultOf("WithMaxConns", "0", "less than 1")},
		{gateway.WithMinConns(-1), faultOf("WithMinConns", "-1", "negative")},
		{gateway.WithMinConns(10_001), faultOf("WithMinConns", "10001", "more than WithMaxConns")},
		{gateway.WithConnIdleTimeout(d), faultOf("WithConnIdleTimeout", "-1s", "negative")},
		{gateway.WithMaxConnAge(d), faultOf("WithMaxConnAge", "-1s", "negative")},
		{gateway.WithAcquireTimeout(d), faultOf("WithAcquireTimeout", "-1s", "negative")},
		{gateway.WithDialContext(nil), faultOf("WithDialContext", "", "the function is nil")},
		{gateway.WithSlowStart(d), faultOf("WithSlowStart", "-1s", "negative")},
		{gateway.WithDNSRefresh(d), faultOf("WithDNSRefresh", "-1s", "negative")},
		{gateway.WithDNSRefresh(30), faultOf("WithDNSRefresh", "30ns", "less than 1 ms")},
		{gateway.WithEjection(0, 1, 1), faultOf("WithEjection", "0", "less than 1 failure")},
		{gateway.WithEjection(1, 0, time.Second), faultOf("WithEjection", "0s", "the first time is not positive")},
		{gateway.WithEjection(1, time.Second, 0), faultOf("WithEjection", "0s", "the longest time is not positive")},
		{gateway.WithEjection(1, 2*time.Second, time.Second), faultOf("WithEjection", "1s", "the longest time is shorter than the first")},
		{gateway.WithEjectionShare(-0.1), faultOf("WithEjectionShare", "-0.1", "not between 0 and 1")},
		{gateway.WithEjectionShare(1.1), faultOf("WithEjectionShare", "1.1", "not between 0 and 1")},
		{gateway.WithEjectionShare(math.NaN()), faultOf("WithEjectionShare", "NaN", "not between 0 and 1")},
		{gateway.WithPanicThreshold(-0.1), faultOf("WithPanicThreshold", "-0.1", "not between 0 and 1")},
		{gateway.WithPanicThreshold(1.1), faultOf("WithPanicThreshold", "1.1", "not between 0 and 1")},
		{gateway.WithPanicThreshold(math.NaN()), faultOf("WithPanicThreshold", "NaN", "not between 0 and 1")},
		{gateway.WithHealthChecks(9*time.Millisecond, 1, 1), faultOf("WithHealthChecks", "9ms", "the interval is less than 10 ms")},
		{gateway.WithHealthChecks(time.Second, 0, 1), faultOf("WithHealthChecks", "0", "rise is less than 1")},
		{gateway.WithHealthChecks(time.Second, 1, -1), faultOf("WithHealthChecks", "-1", "fall is less than 1")},
		{gateway.WithBreaker(0, 1), faultOf("WithBreaker", "0", "the ratio is not above 0 and at most 1")},
		{gateway.WithBreaker(1.1, 1), faultOf("WithBreaker", "1.1", "the ratio is not above 0 and at most 1")},
		{gateway.WithBreaker(math.NaN(), 1), faultOf("WithBreaker", "NaN", "the ratio is not above 0 and at most 1")},
		{gateway.WithBreaker(1, 0), faultOf("WithBreaker", "0", "the volume is less than 1")},
		{gateway.WithBreakerTimes(999*time.Millisecond, 1, 1), faultOf("WithBreakerTimes", "999ms", "the window is less than 1 s")},
		{gateway.WithBreakerTimes(time.Second, 0, 1), faultOf("WithBreakerTimes", "0s", "the time that it is open is not positive")},
		{gateway.WithBreakerTimes(time.Second, 1, 0), faultOf("WithBreakerTimes", "0", "less than 1 probe")},
		{gateway.WithBreakerHook(nil), faultOf("WithBreakerHook", "", "the function is nil")},
		{gateway.WithMountPath("api"), faultOf("WithMountPath", "api", "does not begin with a slash")},
		{gateway.WithMountPath("/a?b"), faultOf("WithMountPath", "/a?b", "has a character that is not visible ASCII, or ?, # or *")},
		{gateway.WithSlowRequest(d, nil), faultOf("WithSlowRequest", "-1s", "less than 10 ms")},
		{gateway.WithSlowRequest(9*time.Millisecond, nil), faultOf("WithSlowRequest", "9ms", "less than 10 ms")},
		{gateway.WithMaxConcurrency(0, 0, 0), faultOf("WithMaxConcurrency", "0", "the bound is less than 1")},
		{gateway.WithMaxConcurrency(1, -1, 0), faultOf("WithMaxConcurrency", "-1", "the queue is negative")},
		{gateway.WithMaxConcurrency(1, 0, d), faultOf("WithMaxConcurrency", "-1s", "the wait is negative")},
		{gateway.WithRateLimit(0, 1), faultOf("WithRateLimit", "0", "the rate is not positive and finite")},
		{gateway.WithRateLimit(-1, 1), faultOf("WithRateLimit", "-1", "the rate is not positive and finite")},
		{gateway.WithRateLimit(math.NaN(), 1), faultOf("WithRateLimit", "NaN", "the rate is not positive and finite")},
		{gateway.WithRateLimit(math.Inf(1), 1), faultOf("WithRateLimit", "+Inf", "the rate is not positive and finite")},
		{gateway.WithRateLimit(1, 0), faultOf("WithRateLimit", "0", "the burst is less than 1")},
		{gateway.WithBalancing(gateway.HashHeader("")), faultOf("WithBalancing", "", "the name is empty")},
		{gateway.WithBalancing(gateway.HashHeader("X Y")), faultOf("WithBalancing", "X Y", "is no name of a field")},
		{gateway.WithBalancing(gateway.HashCookie("")), faultOf("WithBalancing", "", "the name is empty")},
		{gateway.WithBalancing(gateway.HashCookie("a;b")), faultOf("WithBalancing", "a;b", "is no name of a cookie")},
		{gateway.WithHedge(d), faultOf("WithHedge", "-1s", "negative")},
		{gateway.WithMaxTunnels(-1), faultOf("WithMaxTunnels", "-1", "negative")},
		{gateway.WithCache(nil), faultOf("WithCache", "", "the cache is nil")},
		{gateway.WithCache(new(gateway.Cache)), faultOf("WithCache", "", "the cache was not made by NewCache")},
		{gateway.WithTransport(nil), faultOf("WithTransport", "", "the round tripper is nil")},
		{gateway.WithTransport((*http.Transport)(nil)), faultOf("WithTransport", "", "the round tripper is nil")},
		{gateway.WithTransport(roundTripper(nil)), faultOf("WithTransport", "", "the round tripper is nil")},
		{gateway.WithTLSConfig(nil), faultOf("WithTLSConfig", "", "the configuration is nil")},
		{gateway.WithTrustedProxies("10.0.0.0/33"), faultOf("WithTrustedProxies", "10.0.0.0/33", "neither an address nor a CIDR prefix")},
		{gateway.WithTrustedProxies("localhost"), faultOf("WithTrustedProxies", "localhost", "neither an address nor a CIDR prefix")},
		{gateway.WithRequestID(""), faultOf("WithRequestID", "", "the name is empty (WithoutRequestID has no ids made)")},
		{gateway.WithRequestID("a b"), faultOf("WithRequestID", "a b", "is no name of a field")},
		{gateway.WithRequestID("Via"), faultOf("WithRequestID", "Via", "is set by the gateway or by the connection")},
		{gateway.WithRequestID("content-length"), faultOf("WithRequestID", "content-length", "is set by the gateway or by the connection")},
		{gateway.WithRequestID("Authorization"), faultOf("WithRequestID", "Authorization", "carries credentials, and ids are logged")},
		{gateway.WithRequestID("cookie"), faultOf("WithRequestID", "cookie", "carries credentials, and ids are logged")},
		{gateway.WithRequestID("Set-Cookie"), faultOf("WithRequestID", "Set-Cookie", "carries credentials, and ids are logged")},
		{gateway.WithHealthPolicy(-1), faultOf("WithHealthPolicy", "-1", "no such policy")},
		{gateway.WithHealthPolicy(3), faultOf("WithHealthPolicy", "3", "no such policy")},
		{gateway.WithHealthPath(""), faultOf("WithHealthPath", "", "no path that begins with a slash, such as /healthz?full=1")},
		{gateway.WithHealthPath("live"), faultOf("WithHealthPath", "live", "no path that begins with a slash, such as /healthz?full=1")},
		{gateway.WithHealthPath("http://other.test/live"), faultOf("WithHealthPath", "http://other.test/live", "no path that begins with a slash, such as /healthz?full=1")},
		{gateway.WithHealthPath("//other.test/live"), faultOf("WithHealthPath", "//other.test/live", "no path that begins with a slash, such as /healthz?full=1")},
		{gateway.WithHealthPath("/live#x"), faultOf("WithHealthPath", "/live#x", "no path that begins with a slash, such as /healthz?full=1")},
		{gateway.WithHealthPath("/%zz"), faultOf("WithHealthPath", "/%zz", "no path that begins with a slash, such as /healthz?full=1")},
		{gateway.WithHealthPath("/../live"), faultOf("WithHealthPath", "/../live", "not a path that may be forwarded")},
	}
	for _, tt := range tests {
		t.Run(tt.want.Option+" "+tt.want.Value, func(t *testing.T) {
			_, err := gateway.New(tt.opt, gateway.WithService("a", target), gateway.WithService("b", target))
			assert.Equal(t, tt.want, *optionFault(t, err), "as a default: told once")
			of := tt.want
			of.Service = "a"
			_, err = gateway.New(gateway.WithService("a", target, tt.opt))
			assert.Equal(t, of, *optionFault(t, err))
			up, err := gateway.NewUpstream("a", target, tt.opt)
			assert.Nil(t, up)
			assert.Equal(t, of, *optionFault(t, err))
		})
	}
}

// TestServiceOptionFaults is about what only a single service takes.
func TestServiceOptionFaults(t *testing.T) {
	const token = "the token has white space, control or non-ASCII characters"
	tests := []struct {
		opts []gateway.ServiceOption
		want gateway.OptionError
	}{
		{one(gateway.WithBearerToken("")), faultOf("WithBearerToken", "", "the token is empty")},
		{one(gateway.WithBearerToken("bearer abc")), faultOf("WithBearerToken", "[redacted]", `the token begins with "Bearer ", which is put in front of it`)},
		{one(gateway.WithBearerToken("a b")), faultOf("WithBearerToken", "[redacted]", token)},
		{one(gateway.WithBearerToken("a\r\nX: y")), faultOf("WithBearerToken", "[redacted]", token)},
		{one(gateway.WithBearerToken("\u00e9")), faultOf("WithBearerToken", "[redacted]", token)},
		{one(gateway.WithBearerToken(strings.Repeat("x", 70_000))), faultOf("WithBearerToken", "[redacted]", "the token is longer than 16384 bytes")},
		{one(gateway.WithTokenSource(nil)), faultOf("WithTokenSource", "", "the token source is nil")},
		{one(gateway.WithHeader("", "x")), faultOf("WithHeader", "", "the name is empty")},
		{one(gateway.WithHeader("X Y", "x")), faultOf("WithHeader", "X Y", "is no name of a field")},
		{one(gateway.WithHeader("X-Key", "a\nb")), faultOf("WithHeader", "X-Key", "the value has a byte that is not visible ASCII")},
		{one(gateway.WithHeader("X-Key", " a")), faultOf("WithHeader", "X-Key", "the value begins or ends with white space")},
		{one(gateway.WithHeader("Host", "x")), faultOf("WithHeader", "Host", "is set by the gateway or by the connection")},
		{one(gateway.WithHeader("content-length", "5")), faultOf("WithHeader", "content-length", "is set by the gateway or by the connection")},
		{one(gateway.WithHeader("X-Forwarded-For", "x")), faultOf("WithHeader", "X-Forwarded-For", "is set by the gateway or by the connection")},
		{one(gateway.WithHeader("Connection", "x")), faultOf("WithHeader", "Connection", "is set by the gateway or by the connection")},
		{one(gateway.WithHeader("x-request-id", "x")), faultOf("WithHeader", "X-Request-Id", "is the request id's header (WithRequestID)")},
		{[]gateway.ServiceOption{gateway.WithRequestID("X-Trace"), gateway.WithHeader("X-Trace", "x")}, faultOf("WithHeader", "X-Trace", "is the request id's header (WithRequestID)")},
		{one(gateway.WithMethods("PURGE", "A B")), faultOf("WithMethods", "A B", "is no name of a method")},
		{one(gateway.WithMethods("")), faultOf("WithMethods", "", "the name is empty")},
		{one(gateway.WithMethods("CONNECT")), faultOf("WithMethods", "CONNECT", "is never forwarded")},
		{one(gateway.WithMethods("TRACE")), faultOf("WithMethods", "TRACE", "is never forwarded")},
		{one(gateway.WithReplicas()), faultOf("WithReplicas", "", "no replica is given")},
		{one(gateway.WithRewrite(nil)), faultOf("WithRewrite", "", "the function is nil")},
		{one(gateway.WithModifyResponse(nil)), faultOf("WithModifyResponse", "", "the function is nil")},
		{
			[]gateway.ServiceOption{gateway.WithCacheAuthorized(), gateway.WithTokenSource(tokens("x"))},
			faultOf("WithCacheAuthorized", "", "needs one static identity, and the service has a token source (WithTokenSource)"),
		},
		{
			[]gateway.ServiceOption{gateway.WithTokenSource(tokens("x")), gateway.WithHeader("Authorization", "Basic x")},
			faultOf("WithTokenSource", "", "Authorization is already injected (WithHeader)"),
		},
		{
			[]gateway.ServiceOption{gateway.WithBearerToken("x"), gateway.WithHeader("authorization", "Basic x")},
			faultOf("WithHeader", "authorization", "is already injected (WithBearerToken)"),
		},
		{one(nil), faultOf("WithService", "", "opts[0] is nil")},
	}
	for _, tt := range tests {
		t.Run(tt.want.Option+" "+tt.want.Value, func(t *testing.T) {
			tt.want.Service = "a"
			_, err := gateway.New(gateway.WithService("a", target, tt.opts...), gateway.WithService("b", target))
			assert.Equal(t, tt.want, *optionFault(t, err))
			if tt.opts[0] == nil {
				tt.want.Option = "NewUpstream"
			}
			_, err = gateway.NewUpstream("a", target, widen(tt.opts)...)
			assert.Equal(t, tt.want, *optionFault(t, err))
		})
	}
}

func one(o gateway.ServiceOption) []gateway.ServiceOption { return []gateway.ServiceOption{o} }

func widen(opts []gateway.ServiceOption) (wide []gateway.UpstreamOption) {
	for _, o := range opts {
		wide = append(wide, o)
	}
	return wide
}

func TestSharedOptionFaults(t *testing.T) {
	tests := []struct {
		opt  gateway.SharedOption
		want gateway.OptionError
	}{
		{gateway.WithLogger(nil), faultOf("WithLogger", "", "the logger is nil")},
		{gateway.WithLogger(&slog.Logger{}), faultOf("WithLogger", "", "the logger has no handler, and was not made by slog.New")},
		{gateway.WithErrorHandler(nil), faultOf("WithErrorHandler", "", "the handler is nil")},
		{gateway.WithTracerProvider(nil), faultOf("WithTracerProvider", "", "the tracer provider is nil")},
		{gateway.WithTracerProvider((*sdktrace.TracerProvider)(nil)), faultOf("WithTracerProvider", "", "the tracer provider is nil")},
		{gateway.WithMeterProvider((*sdkmetric.MeterProvider)(nil)), faultOf("WithMeterProvider", "", "the meter provider is nil")},
		{gateway.WithMeterProvider(nil), faultOf("WithMeterProvider", "", "the meter provider is nil")},
		{gateway.WithPropagator(nil), faultOf("WithPropagator", "", "the propagator is nil")},
	}
	for _, tt := range tests {
		t.Run(tt.want.Option, func(t *testing.T) {
			_, err := gateway.New(tt.opt, gateway.WithService("a", target))
			assert.Equal(t, tt.want, *optionFault(t, err))
			_, err = gateway.NewUpstream("a", target, tt.opt)
			assert.Equal(t, tt.want, *optionFault(t, err))
			cache, err := gateway.NewCache(tt.opt)
			assert.Nil(t, cache)
			assert.Equal(t, tt.want, *optionFault(t, err))
		})
	}
	_, err := gateway.New(nil, gateway.WithService("a", target))
	assert.Equal(t, faultOf("New", "", "opts[0] is nil"), *optionFault(t, err))
}

func TestMemoryWatchFaults(t *testing.T) {
	for _, interval := range []time.Duration{-1, 9 * time.Millisecond} {
		_, err := gateway.New(gateway.WithMemoryWatch(interval, nil), gateway.WithService("a", target))
		assert.Equal(t, faultOf("WithMemoryWatch", interval.String(), "less than 10 ms"), *optionFault(t, err))
	}
}

func TestCacheOptionFaults(t *testing.T) {
	for _, tt := range []struct {
		opts []gateway.CacheOption
		want gateway.OptionError
	}{
		{[]gateway.CacheOption{gateway.WithMaxBytes(64<<10 - 1)}, faultOf("WithMaxBytes", "65535", "less than 64 KiB")},
		{[]gateway.CacheOption{gateway.WithMaxBytes(-1)}, faultOf("WithMaxBytes", "-1", "less than 64 KiB")},
		{[]gateway.CacheOption{gateway.WithMaxObjectBytes(0)}, faultOf("WithMaxObjectBytes", "0", "less than 1 byte")},
		{[]gateway.CacheOption{gateway.WithMaxObjectBytes(-1)}, faultOf("WithMaxObjectBytes", "-1", "less than 1 byte")},
		{[]gateway.CacheOption{gateway.WithMaxObjectBytes(100 << 10), gateway.WithMaxBytes(64 << 10)}, faultOf("WithMaxObjectBytes", "102400", "more than the whole cache")},
		{[]gateway.CacheOption{gateway.WithMaxBytes(1 << 20), nil}, faultOf("NewCache", "", "opts[1] is nil")},
	} {
		_, err := gateway.NewCache(tt.opts...)
		assert.Equal(t, tt.want, *optionFault(t, err))
	}
	cache, err := gateway.NewCache(gateway.WithMaxBytes(64<<10), gateway.WithMaxObjectBytes(64<<10))
	require.NoError(t, err)
	assert.EqualValues(t, 64<<10, cache.Stats().MaxBytes)
}

// Two options of one list that make no sense together.
func TestContradictionsOfOneList(t *testing.T) {
	cache, err := gateway.NewCache()
	require.NoError(t, err)
	tls, rt, h2 := gateway.WithTLSConfig(&tls.Config{}), gateway.WithTransport(http.DefaultTransport), gateway.WithHTTP2()
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }
	for _, tt := range []struct {
		one, other  gateway.ServiceOption
		named, with string
	}{
		{gateway.WithCache(cache), gateway.WithoutCache(), "WithoutCache", "WithCache"},
		{gateway.WithCacheAuthorized(), gateway.WithoutCache(), "WithoutCache", "WithCacheAuthorized"},
		{gateway.WithCacheCookies(), gateway.WithoutCache(), "WithoutCache", "WithCacheCookies"},
		{gateway.WithRetries(1), gateway.WithoutRetries(), "WithoutRetries", "WithRetries"},
		{gateway.WithRetryBackoff(1, 1), gateway.WithoutRetries(), "WithoutRetries", "WithRetryBackoff"},
		{gateway.WithRetryBudget(0, 0), gateway.WithoutRetries(), "WithoutRetries", "WithRetryBudget"},
		{gateway.WithRetryBodyBytes(0), gateway.WithoutRetries(), "WithoutRetries", "WithRetryBodyBytes"},
		{gateway.WithMaxRetryAfter(0), gateway.WithoutRetries(), "WithoutRetries", "WithMaxRetryAfter"},
		{gateway.WithForwarded(), gateway.WithoutForwarded(), "WithoutForwarded", "WithForwarded"},
		{gateway.WithServerTiming(), gateway.WithoutServerTiming(), "WithoutServerTiming", "WithServerTiming"},
		{gateway.WithRequestID("X"), gateway.WithoutRequestID(), "WithoutRequestID", "WithRequestID"},
		{gateway.WithBearerToken("x"), gateway.WithTokenSource(tokens("x")), "WithTokenSource", "WithBearerToken"},
		{tls, rt, "WithTransport", "WithTLSConfig"},
		{gateway.WithDialTimeout(1), rt, "WithTransport", "WithDialTimeout"},
		{gateway.WithTLSHandshakeTimeout(1), rt, "WithTransport", "WithTLSHandshakeTimeout"},
		{gateway.WithResponseHeaderTimeout(1), rt, "WithTransport", "WithResponseHeaderTimeout"},
		{gateway.WithMaxConns(1), rt, "WithTransport", "WithMaxConns"},
		{gateway.WithMinConns(1), rt, "WithTransport", "WithMinConns"},
		{gateway.WithConnIdleTimeout(1), rt, "WithTransport", "WithConnIdleTimeout"},
		{gateway.WithMaxConnAge(1), rt, "WithTransport", "WithMaxConnAge"},
		{gateway.WithAcquireTimeout(1), rt, "WithTransport", "WithAcquireTimeout"},
		{gateway.WithoutConnReuse(), rt, "WithTransport", "WithoutConnReuse"},
		{gateway.WithDialContext(dial), rt, "WithTransport", "WithDialContext"},
		{h2, rt, "WithTransport", "WithHTTP2"},
		{gateway.WithDNSRefresh(time.Second), rt, "WithTransport", "WithDNSRefresh"},
		{gateway.WithMinConns(1), h2, "WithHTTP2", "WithMinConns"},
		{gateway.WithoutConnReuse(), h2, "WithHTTP2", "WithoutConnReuse"},
		{h2, gateway.WithoutHTTP2(), "WithoutHTTP2", "WithHTTP2"},
		{gateway.WithMaxConcurrency(1, 1, 1), gateway.WithoutMaxConcurrency(), "WithoutMaxConcurrency", "WithMaxConcurrency"},
		{gateway.WithRateLimit(1, 1), gateway.WithoutRateLimit(), "WithoutRateLimit", "WithRateLimit"},
		{gateway.WithEjection(1, 1, 1), gateway.WithoutEjection(), "WithoutEjection", "WithEjection"},
		{gateway.WithEjectionShare(1), gateway.WithoutEjection(), "WithoutEjection", "WithEjectionShare"},
		{gateway.WithHealthChecks(time.Second, 1, 1), gateway.WithoutHealthChecks(), "WithoutHealthChecks", "WithHealthChecks"},
		{gateway.WithBreaker(1, 1), gateway.WithoutBreaker(), "WithoutBreaker", "WithBreaker"},
		{gateway.WithBreakerTimes(time.Second, 1, 1), gateway.WithoutBreaker(), "WithoutBreaker", "WithBreakerTimes"},
		{gateway.WithBreakerHook(func(string, gateway.BreakerState, gateway.BreakerState) {}), gateway.WithoutBreaker(), "WithoutBreaker", "WithBreakerHook"},
		{gateway.WithSlowRequest(0, nil), gateway.WithoutSlowRequest(), "WithoutSlowRequest", "WithSlowRequest"},
		{gateway.WithPublicEndpoint(), gateway.WithoutPublicEndpoint(), "WithoutPublicEndpoint", "WithPublicEndpoint"},
		{gateway.WithBaggage(), gateway.WithoutBaggage(), "WithoutBaggage", "WithBaggage"},
		{gateway.WithPropagation(), gateway.WithoutPropagation(), "WithoutPropagation", "WithPropagation"},
		{gateway.WithBaggage(), gateway.WithoutPropagation(), "WithoutPropagation", "WithBaggage"},
		{gateway.WithMinConns(1), gateway.WithoutConnReuse(), "WithoutConnReuse", "WithMinConns"},
		{gateway.WithConnIdleTimeout(1), gateway.WithoutConnReuse(), "WithoutConnReuse", "WithConnIdleTimeout"},
		{gateway.WithMaxConnAge(1), gateway.WithoutConnReuse(), "WithoutConnReuse", "WithMaxConnAge"},
	} {
		t.Run(tt.with+" "+tt.named, func(t *testing.T) {
			for _, opts := range [][]gateway.ServiceOption{{tt.one, tt.other}, {tt.other, tt.one}} {
				_, err := gateway.New(gateway.WithService("a", target, opts...))
				fault := optionFault(t, err)
				assert.Equal(t, tt.named, fault.Option)
				assert.Equal(t, "a", fault.Service)
				assert.Contains(t, fault.Reason, "("+tt.with+")")
			}
			if one, ok := tt.one.(gateway.DefaultOption); ok {
				_, err := gateway.New(one, gateway.WithService("a", target, tt.other))
				assert.NoError(t, err, "in two lists they make sense: the service drops what it inherits")
				_, err = gateway.New(one, tt.other.(gateway.DefaultOption), gateway.WithService("a", target))
				assert.Equal(t, tt.named, optionFault(t, err).Option)
			}
		})
	}
}

// A constructor tells everything that is wrong, at once, and makes nothing.
func TestAllFaultsAreToldAtOnce(t *testing.T) {
	gw, err := gateway.New(
		nil,
		gateway.WithLogger(nil),
		gateway.WithTimeout(-1),
		gateway.WithRetryBackoff(0, -1),
		gateway.WithService("a/b", "nonsense", gateway.WithBearerToken("se cret"), gateway.WithRetries(99), nil),
		gateway.WithService("c", target, gateway.WithHeader("X Y", "a\nb"), gateway.WithMethods("A B", "TRACE"), gateway.WithTrustedProxies("x", "10.0.0.1", "y")),
		gateway.WithService("c", target),
	)
	assert.Nil(t, gw)
	var told []string
	for _, f := range optionFaults(t, err) {
		told = append(told, f.Option+" "+f.Service+" "+f.Value)
	}
	assert.ElementsMatch(t, []string{
		"New  ", "WithLogger  ", "WithTimeout  -1ns", "WithRetryBackoff  0s", "WithRetryBackoff  -1ns",
		"WithHeader c X Y", "WithHeader c X Y", "WithService a/b a/b", "WithService a/b nonsense", "WithBearerToken a/b [redacted]", "WithRetries a/b 99", "WithService a/b ",
		"WithMethods c A B", "WithMethods c TRACE", "WithTrustedProxies c x", "WithTrustedProxies c y", "WithService c c",
	}, told)
	assert.NotContains(t, err.Error(), "cret")
	assert.Len(t, strings.Split(err.Error(), "\n"), len(told), "a line for each")

	_, err = gateway.NewUpstream("a", "nonsense", gateway.WithReplicas(gateway.Replica{URL: "ftp://b.test"}, gateway.Replica{URL: "http://c.test/x"}), gateway.WithTimeout(-1))
	assert.Len(t, optionFaults(t, err), 3, "replicas too, whatever else is wrong")
	_, err = gateway.NewUpstream("", "", gateway.WithErrorHandler(nil), gateway.WithTimeout(-1), nil)
	assert.Len(t, optionFaults(t, err), 5)
	_, err = gateway.NewCache(nil, gateway.WithLogger(nil), gateway.WithMaxBytes(0), gateway.WithMaxObjectBytes(0))
	assert.Len(t, optionFaults(t, err), 4)
}

func TestOptionErrorSaysWhereAndWhy(t *testing.T) {
	for want, e := range map[string]gateway.OptionError{
		`gateway: WithTimeout: "-1s": negative`:                {Option: "WithTimeout", Value: "-1s", Reason: "negative"},
		`gateway: WithTimeout of service "a": "-1s": negative`: {Option: "WithTimeout", Service: "a", Value: "-1s", Reason: "negative"},
		`gateway: WithLogger: the logger is nil`:               {Option: "WithLogger", Reason: "the logger is nil"},
	} {
		assert.EqualError(t, &e, want)
	}
	_, err := gateway.New(gateway.WithService("a", target, gateway.WithMethods(strings.Repeat("\xff\n", 500))))
	fault := optionFault(t, err)
	assert.LessOrEqual(t, len(fault.Value), 400, "a long value is cut")
	assert.NotContains(t, err.Error(), "\xff")
	assert.NotContains(t, err.Error(), "\n")
}

// Nothing of a credential is in a fault, whatever is wrong with it.
func TestFaultsShowNoCredentials(t *testing.T) {
	const secret = "S3CR3T-canary-0f9d"
	for _, opt := range []gateway.ServiceOption{
		gateway.WithBearerToken(secret + " "), gateway.WithBearerToken(secret + strings.Repeat("x", 20_000)),
		gateway.WithHeader("X-Key", secret+"\n"), gateway.WithHeader("Host", secret), gateway.WithHeader("a b", secret), gateway.WithHeader("X-Key", " "+secret),
	} {
		_, err := gateway.New(gateway.WithService("a", target, opt))
		require.Error(t, err)
		assert.False(t, testnet.Occurs(err.Error(), secret), err.Error())
		for _, f := range optionFaults(t, err) {
			assert.False(t, testnet.Occurs(f.Value+f.Reason, secret))
		}
	}
	for _, target := range []string{"http://u:" + secret + "@h", "http://" + secret + "@h", "http://u:" + secret + "@h:port", "http://h?k=" + secret, "http://h#" + secret, "http://u:" + secret + "@h/%zz"} {
		_, err := gateway.New(gateway.WithService("a", target))
		require.Error(t, err)
		assert.False(t, testnet.Occurs(err.Error(), secret), err.Error())
	}
}

// The service's own options win over the defaults, wherever these stand; of
// several equal ones in a list the last wins.
func TestPrecedenceOfOptions(t *testing.T) {
	attempts := func(t *testing.T, r *rig, target string, up *testnet.Up) int {
		t.Helper()
		before := up.Begun()
		assert.Equal(t, 503, r.get(target).Status)
		return up.Begun() - before
	}
	for _, tt := range []struct {
		name     string
		a        []gateway.ServiceOption
		defaults []gateway.Option
		ofA, ofB int
	}{
		{"package defaults", nil, nil, 3, 3},
		{"given to New", nil, []gateway.Option{gateway.WithRetries(1)}, 2, 2},
		{"given to New twice", nil, []gateway.Option{gateway.WithRetries(4), gateway.WithRetries(1)}, 2, 2},
		{"of the service", []gateway.ServiceOption{gateway.WithRetries(3)}, []gateway.Option{gateway.WithRetries(1)}, 4, 2},
		{"of the service twice", []gateway.ServiceOption{gateway.WithRetries(3), gateway.WithRetries(0)}, nil, 1, 3},
		{"dropped by the service", []gateway.ServiceOption{gateway.WithoutRetries()}, []gateway.Option{gateway.WithRetries(4)}, 1, 5},
		{"dropped by New, and asked for by the service", []gateway.ServiceOption{gateway.WithRetries(1)}, []gateway.Option{gateway.WithoutRetries()}, 2, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, setup{
				scriptB: testnet.Respond(func(req *testnet.Request) string {
					if req.Target == "/down" {
						return testnet.Answer(503, "", "no")
					}
					return testnet.Answer(200, "", "ok")
				}),
				script: testnet.Reply(503, "", "no"), a: tt.a, defaults: tt.defaults,
			})
			assert.Equal(t, tt.ofA, attempts(t, r, "/a/down", r.a))
			assert.Equal(t, tt.ofB, attempts(t, r, "/b/down", r.b))
		})
	}
}

// Of what cannot stand together, a service keeps what it asks for itself, and
// drops what it inherits.
func TestServicesDropInheritedConnections(t *testing.T) {
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	up.Config.Protocols = new(http.Protocols)
	up.Config.Protocols.SetHTTP1(true)
	up.Config.Protocols.SetUnencryptedHTTP2(true)
	up.Start()
	defer up.Close()
	rt := gateway.WithTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: 2, Body: io.NopCloser(strings.NewReader("rt")), Request: r}, nil
	}))
	dial := gateway.WithDialContext(new(net.Dialer).DialContext)
	for name, tt := range map[string]struct {
		inherited gateway.Option
		own       gateway.ServiceOption
		want      string
	}{
		"HTTP/2 for a round tripper":                {rt, gateway.WithHTTP2(), "HTTP/2.0"},
		"a round tripper for HTTP/2":                {gateway.WithHTTP2(), rt, "rt"},
		"TLS for a round tripper":                   {rt, gateway.WithTLSConfig(&tls.Config{}), "HTTP/1.1"},
		"a dial function for a round tripper":       {rt, dial, "HTTP/1.1"},
		"a round tripper for a dial function":       {dial, rt, "rt"},
		"bounds on connections for a round tripper": {rt, gateway.WithMaxConns(1), "HTTP/1.1"},
		"resolution for a round tripper":            {rt, gateway.WithDNSRefresh(time.Hour), "HTTP/1.1"},
		"a round tripper for resolution":            {gateway.WithDNSRefresh(time.Hour), rt, "rt"},
		"a connection for each request, for HTTP/2": {gateway.WithHTTP2(), gateway.WithoutConnReuse(), "HTTP/1.1"},
		"no HTTP/2": {gateway.WithHTTP2(), gateway.WithoutHTTP2(), "HTTP/1.1"},
		"HTTP/2 for a connection for each request":    {gateway.WithoutConnReuse(), gateway.WithHTTP2(), "HTTP/2.0"},
		"what has nothing to do with a round tripper": {rt, gateway.WithTimeout(time.Minute), "rt"},
	} {
		t.Run(name, func(t *testing.T) {
			gw, err := gateway.New(tt.inherited, gateway.WithService("a", up.URL, tt.own))
			require.NoError(t, err)
			w := handle(t, gw, testnet.Get("/a/"), nil)
			assert.Equal(t, tt.want, w.body.String())
			require.NoError(t, gw.Shutdown(context.WithoutCancel(t.Context())))
		})
	}
}

func TestWithoutDropsWhatWasInherited(t *testing.T) {
	answer := testnet.Reply(200, storable, "ok")
	r := newRig(t, setup{script: answer, scriptB: answer, a: []gateway.ServiceOption{gateway.WithoutCache(), gateway.WithoutRequestID()}})
	for n := 1; n <= 2; n++ {
		resp := r.get("/a/x", "X-Request-Id: mine")
		assert.Empty(t, resp.Header["Cache-Status"])
		assert.Empty(t, resp.Header["X-Request-Id"])
		assert.Len(t, r.a.Await(n), n)
	}
	assert.Equal(t, "mine", field(r.a.Journal()[0], "X-Request-Id"), "a header as any other")
	resp := r.get("/b/x", "X-Request-Id: mine")
	assert.Equal(t, "gateway; fwd=uri-miss; stored", resp.Header.Get("Cache-Status"))
	assert.Equal(t, "mine", resp.Header.Get("X-Request-Id"))
}

func TestServiceOptionsStayWithTheirService(t *testing.T) {
	hook := func(name string) gateway.ServiceOption {
		return gateway.WithRewrite(func(out *http.Request) { out.Header.Add("X-Hook", name) })
	}
	r := newRig(t, setup{a: []gateway.ServiceOption{hook("one"), hook("two"), gateway.WithHeader("X-Key", "k"), gateway.WithMethods("PURGE")}})
	require.Equal(t, 200, r.do(testnet.Build("PURGE", "/a/x", "")).Status)
	assert.Equal(t, []string{"one", "two"}, r.a.Await(1)[0].Header["X-Hook"], "in order")
	assert.Equal(t, "k", field(r.a.Journal()[0], "X-Key"))
	require.Equal(t, 501, r.do(testnet.Build("PURGE", "/b/x", "")).Status)
	require.Equal(t, 200, r.get("/b/x", "X-Key: mine").Status)
	assert.Equal(t, "mine", field(r.b.Await(1)[0], "X-Key"))
	assert.Empty(t, r.b.Journal()[0].Header["X-Hook"])
}

// What the caller does with its values afterwards changes nothing.
func TestOptionsKeepNoHoldOnTheirArguments(t *testing.T) {
	up := testnet.UpstreamTLS(t, testnet.Reply(200, "", "ok"))
	config := &tls.Config{RootCAs: up.Pool}
	methods, proxies := []string{"PURGE"}, []string{"192.0.2.1"}
	opts := []gateway.ServiceOption{gateway.WithTLSConfig(config), gateway.WithMethods(methods...), gateway.WithTrustedProxies(proxies...)}
	gw, err := gateway.New(gateway.WithService("a", up.URL, opts...))
	require.NoError(t, err)
	config.RootCAs, config.ServerName, methods[0], proxies[0], opts[0] = nil, "other.test", "OTHER", "none", nil
	w := handle(t, gw, testnet.Build("PURGE", "/a/x", "", "X-Forwarded-For: 198.51.100.7"), nil)
	assert.Equal(t, 200, w.status)
	assert.Equal(t, "198.51.100.7, 192.0.2.1", field(up.Await(1)[0], "X-Forwarded-For"))
	require.NoError(t, gw.Shutdown(context.WithoutCancel(t.Context())))
}
