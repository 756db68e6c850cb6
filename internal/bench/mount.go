package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/embedgw/gateway"
	"go.opentelemetry.io/otel/metric"
	nometric "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	notrace "go.opentelemetry.io/otel/trace/noop"
)

// mounted is a handler as an application has it below /api/bench/, and how the
// application ends it.
type mounted struct {
	handler  http.Handler
	drain    func()
	shutdown func(context.Context) error
	stats    func() gateway.Stats
	update   func(n int) error // its services, each time in another way

	dashboard func() http.Handler // nil: it has none
}

var mounts = map[string]func(*candidateConfig) (mounted, error){
	"bare":         mountBare,
	"waiting":      mountWaiting,
	"streaming":    mountStreaming,
	"gateway":      mountGateway,
	"traced":       mountTraced,
	"reverseproxy": mountReverseProxy,
}

// mountBare writes what a hit writes, from as much memory: a body that is always
// the same stays in the processor's. It is mounted as a gateway is.
func mountBare(c *candidateConfig) (mounted, error) {
	contents := make([][]byte, max(c.Bodies, 1))
	for i := range contents {
		contents[i] = c.body()
	}
	return mounted{handler: http.StripPrefix("/api", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.After > 0 && !pause(r.Context(), c.After) {
			return
		}
		maps.Copy(w.Header(), c.Header)
		if c.Status != 0 {
			w.WriteHeader(c.Status)
		}
		if c.BodySize > 0 {
			_, _ = w.Write(contents[rand.IntN(len(contents))])
		}
	}))}, nil
}

// mountWaiting holds every request until its client leaves.
func mountWaiting(*candidateConfig) (mounted, error) {
	return mounted{handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}, nil
}

// mountStreaming writes what everybody shares, for as long as the client reads.
func mountStreaming(*candidateConfig) (mounted, error) {
	piece := body(64 << 10)
	return mounted{handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})}, nil
}

// mountGateway has telemetry that does nothing, said so.
func mountGateway(c *candidateConfig) (mounted, error) {
	return mountWith(c, notrace.NewTracerProvider(), nometric.NewMeterProvider())
}

// mountTraced records one trace in a hundred and every metric, as an
// application does that is watched; where they would be sent to they are
// dropped.
func mountTraced(c *candidateConfig) (mounted, error) {
	reader := sdkmetric.NewManualReader()
	go func() { // until the process ends
		for range time.Tick(time.Second) {
			_ = reader.Collect(context.Background(), &metricdata.ResourceMetrics{})
		}
	}()
	return mountWith(c,
		sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.TraceIDRatioBased(0.01)), sdktrace.WithBatcher(dropped{})),
		sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
}

// dropped is an exporter of spans that sends them nowhere.
type dropped struct{}

func (dropped) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (dropped) Shutdown(context.Context) error                             { return nil }

func mountWith(c *candidateConfig, tracers trace.TracerProvider, meters metric.MeterProvider) (mounted, error) {
	var opts []gateway.CacheOption
	if c.CacheBytes > 0 {
		opts = append(opts, gateway.WithMaxBytes(c.CacheBytes))
	}
	cache, err := gateway.NewCache(opts...)
	if err != nil {
		return mounted{}, err
	}
	list := func(more ...gateway.ServiceOption) []gateway.Option {
		return []gateway.Option{
			gateway.WithCache(cache),
			gateway.WithService("bench", c.Upstream, append(c.service(), more...)...),
			gateway.WithTracerProvider(tracers),
			gateway.WithMeterProvider(meters),
		}
	}
	gw, err := gateway.New(list()...)
	if err != nil {
		return mounted{}, err
	}
	return mounted{
		handler:   http.StripPrefix("/api", gw),
		drain:     gw.Drain,
		shutdown:  func(ctx context.Context) error { return errors.Join(gw.Shutdown(ctx), cache.Shutdown(ctx)) },
		stats:     gw.Stats,
		dashboard: gw.DashboardHandler,
		update: func(n int) error {
			more := []gateway.ServiceOption{gateway.WithTimeout(time.Minute + time.Duration(n)), gateway.WithMaxConcurrency(1000+n%9, 1000, 0)}
			if n%3 == 0 {
				more = append(more, gateway.WithMaxConns(1000+n%2))
			}
			if n%5 == 0 { // the same, by another name of it
				more = append(more, gateway.WithReplicas(gateway.Replica{URL: strings.Replace(c.Upstream, "127.0.0.1", "localhost", 1)}))
			}
			opts := list(more...)
			for guest := range n % 3 {
				opts = append(opts, gateway.WithService(fmt.Sprint("guest", n+guest), c.Upstream, gateway.WithHealthChecks(time.Minute, 1, 1)))
			}
			return gw.Update(opts...)
		},
	}, nil
}

// body is what bare writes.
func (c *candidateConfig) body() []byte {
	if c.Patterned {
		return newPattern(int64(c.BodySize)).next(c.BodySize)
	}
	return body(c.BodySize)
}

// service is what the configuration says beyond the gateway's defaults.
func (c *candidateConfig) service() []gateway.ServiceOption {
	var opts []gateway.ServiceOption
	if c.Timeout > 0 {
		opts = append(opts, gateway.WithTimeout(c.Timeout))
	}
	if c.AttemptTimeout > 0 {
		opts = append(opts, gateway.WithAttemptTimeout(c.AttemptTimeout))
	}
	if c.BodyIdle > 0 {
		opts = append(opts, gateway.WithBodyIdleTimeout(c.BodyIdle))
	}
	if c.Acquire > 0 {
		opts = append(opts, gateway.WithAcquireTimeout(c.Acquire))
	}
	if c.Uncached {
		opts = append(opts, gateway.WithoutCache())
	}
	if c.Conns > 0 {
		opts = append(opts, gateway.WithMaxConns(c.Conns))
	}
	var others []gateway.Replica
	for _, u := range c.Replicas {
		others = append(others, gateway.Replica{URL: u})
	}
	if len(others) > 0 {
		opts = append(opts, gateway.WithReplicas(others...))
	}
	return opts
}

// mountReverseProxy is the standard library's proxy as one tunes it for one
// upstream: connections enough for the load, nothing decompressed, no proxy
// from the environment, pooled copy buffers.
func mountReverseProxy(c *candidateConfig) (mounted, error) {
	target, err := url.Parse(c.Upstream)
	if err != nil {
		return mounted{}, err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		},
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 512,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true,
		},
		BufferPool: &bufferPool{sync.Pool{New: func() any { return new([32 << 10]byte) }}},
	}
	return mounted{handler: http.StripPrefix("/api/bench", proxy)}, nil
}

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte  { return p.pool.Get().(*[32 << 10]byte)[:] }
func (p *bufferPool) Put(b []byte) { p.pool.Put((*[32 << 10]byte)(b)) }
