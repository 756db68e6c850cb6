package main

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"runtime"
	"sync"
	"time"

	"github.com/embedgw/gateway"
	nometric "go.opentelemetry.io/otel/metric/noop"
	notrace "go.opentelemetry.io/otel/trace/noop"
)

type candidateConfig struct {
	Kind     string // bare, gateway, reverseproxy
	Upstream string // its URL

	CacheBytes int64 // the gateway's; 0: its default

	// bare writes these bytes
	Header   http.Header
	BodySize int
}

// mounts are the handlers, by kind, each as an application would mount it under /api/bench/.
var mounts = map[string]func(*candidateConfig) (http.Handler, error){
	"bare":         mountBare,
	"gateway":      mountGateway,
	"reverseproxy": mountReverseProxy,
}

type candidate struct{}

func (*candidate) obey(o order) (answer, error) {
	switch o.Do {
	case "start":
		mount, ok := mounts[o.Candidate.Kind]
		if !ok {
			return answer{}, fmt.Errorf("no such candidate: %q", o.Candidate.Kind)
		}
		handler, err := mount(o.Candidate)
		if err != nil {
			return answer{}, err
		}
		mux := http.NewServeMux()
		mux.Handle("/api/", handler)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return answer{}, err
		}
		server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = server.Serve(l) }() // until the process ends
		return answer{Addr: l.Addr().String()}, nil
	case "settle":
		runtime.GC() // each measurement begins alike
		fallthrough
	case "usage":
		u, err := used()
		return answer{Usage: u}, err
	}
	return answer{}, fmt.Errorf("no such order: %q", o.Do)
}

// mountBare writes what a hit writes, from memory.
func mountBare(c *candidateConfig) (http.Handler, error) {
	content := body(c.BodySize)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), c.Header)
		_, _ = w.Write(content)
	}), nil
}

func mountGateway(c *candidateConfig) (http.Handler, error) {
	var opts []gateway.CacheOption
	if c.CacheBytes > 0 {
		opts = append(opts, gateway.WithMaxBytes(c.CacheBytes))
	}
	cache, err := gateway.NewCache(opts...)
	if err != nil {
		return nil, err
	}
	gw, err := gateway.New(
		gateway.WithCache(cache),
		gateway.WithService("bench", c.Upstream),
		gateway.WithTracerProvider(notrace.NewTracerProvider()),
		gateway.WithMeterProvider(nometric.NewMeterProvider()),
	)
	if err != nil {
		return nil, err
	}
	return http.StripPrefix("/api", gw), nil
}

// mountReverseProxy is the standard library's proxy as one tunes it for one
// upstream: connections enough for the load, nothing decompressed, no proxy
// from the environment, pooled copy buffers.
func mountReverseProxy(c *candidateConfig) (http.Handler, error) {
	target, err := url.Parse(c.Upstream)
	if err != nil {
		return nil, err
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
	return http.StripPrefix("/api/bench", proxy), nil
}

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte  { return p.pool.Get().(*[32 << 10]byte)[:] }
func (p *bufferPool) Put(b []byte) { p.pool.Put((*[32 << 10]byte)(b)) }
