package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
)

const (
	timeout       = 2 * time.Second        // the demo's services may take to answer
	hedgeDelay    = 100 * time.Millisecond // after which the other replica is asked, too
	checkInterval = 100 * time.Millisecond // between two looks at a replica
	breakerVolume = 5                      // requests open the circuit breaker, if half of them fail
	breakerOpen   = time.Second
	slowAfter     = 500 * time.Millisecond // a request is reported
)

// settings say how the app is built. The zero value is the whole demo,
// without telemetry.
type settings struct {
	logger  *slog.Logger         // nil: nothing is logged
	tracer  trace.TracerProvider // nil: no spans
	without feature              // left out; "": nothing
}

// A feature can be left out of the app, so that the tour's test sees whether
// the tour would miss it.
type feature string

const (
	routing    feature = "routing"    // the products service is declared
	token      feature = "token"      // the users service gets its token
	caching    feature = "caching"    // the services have a cache
	retries    feature = "retries"    // a failed request is sent again
	refusal    feature = "refusal"    // the gateway answers for services that do not exist
	timeouts   feature = "timeouts"   // the services' time is bounded
	reporting  feature = "reporting"  // slow requests are reported
	explaining feature = "explaining" // the app tells what would become of a request
	replicas   feature = "replicas"   // the prices service has two
	breaking   feature = "breaking"   // the stock service has a circuit breaker
	hedging    feature = "hedging"    // the prices service is asked twice when it is slow
	streaming  feature = "streaming"  // the orders service has event streams
	websockets feature = "websockets" // the orders service speaks WebSocket
	health     feature = "health"     // the health handler is mounted
	metrics    feature = "metrics"    // the metrics handler is mounted
	dashboard  feature = "dashboard"  // the dashboard is mounted
	updating   feature = "updating"   // the gateway is told of other services
	draining   feature = "draining"   // the server drains the gateway as it shuts down
)

// app is an ordinary net/http app: a server, its mux, and the gateway as one
// handler among others.
type app struct {
	url       string
	listener  net.Listener
	server    *http.Server
	served    chan error // what Serve returned, unless that is the end that was asked for
	gateway   *gateway.Gateway
	cache     *gateway.Cache
	settings  settings
	upstreams []*upstream
	changes   chan change              // of a circuit breaker, as far as somebody takes them
	slow      chan gateway.SlowRequest // likewise
}

// change is what happened to a service's circuit breaker.
type change struct {
	service  string
	from, to gateway.BreakerState
}

// newApp builds the app and starts its upstream services. The listener is the
// app's once there is no error.
func newApp(listener net.Listener, s settings) (_ *app, err error) {
	a := &app{url: "http://" + listener.Addr().String(), listener: listener, settings: s, served: make(chan error, 1), changes: make(chan change, 8), slow: make(chan gateway.SlowRequest, 8)}
	defer func() {
		if err != nil {
			a.closeUpstreams()
		}
	}()
	for _, describe := range []func(settings) *upstream{users, products, orders, prices, stock} {
		u := describe(s)
		if err := u.start(); err != nil {
			return nil, fmt.Errorf("start %s: %w", u.name, err)
		}
		a.upstreams = append(a.upstreams, u)
	}
	if a.cache, err = gateway.NewCache(gateway.WithMaxBytes(16 << 20)); err != nil {
		return nil, err
	}
	if a.gateway, err = gateway.New(a.options(s)...); err != nil {
		return nil, err
	}
	a.server = &http.Server{
		Handler:           a.routes(s),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	if s.without != draining {
		a.server.RegisterOnShutdown(a.gateway.Drain) // ends the event streams, for which Shutdown would wait
	}
	return a, nil
}

// options configures the gateway: defaults for all services first.
func (a *app) options(s settings) []gateway.Option {
	options := []gateway.Option{gateway.WithHealthPath("/healthz")}
	if s.without != caching {
		options = append(options, gateway.WithCache(a.cache))
	}
	if s.without != timeouts {
		options = append(options, gateway.WithTimeout(timeout))
	}
	if s.without != reporting {
		options = append(options, gateway.WithSlowRequest(slowAfter, a.reported))
	}
	if s.without == retries {
		options = append(options, gateway.WithoutRetries())
	}
	logger := s.logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler) // or circuit breakers and replicas would be logged to the default one
	}
	options = append(options, gateway.WithLogger(logger))
	if s.tracer != nil {
		options = append(options, gateway.WithTracerProvider(s.tracer), gateway.WithPropagator(propagation.TraceContext{}))
	}
	for _, u := range a.upstreams {
		if u.name != "products" || s.without != routing {
			options = append(options, gateway.WithService(u.name, u.url, a.serviceOptions(u, s)...))
		}
	}
	return options
}

// update has the gateway go by the app's options and some more.
func (a *app) update(more ...gateway.Option) error {
	if a.settings.without == updating {
		return nil
	}
	return a.gateway.Update(append(a.options(a.settings), more...)...)
}

// serviceOptions are those of one service.
func (a *app) serviceOptions(u *upstream, s settings) (options []gateway.ServiceOption) {
	if u.token != "" && s.without != token {
		options = append(options, gateway.WithBearerToken(u.token))
	}
	if s.without != replicas {
		for _, r := range u.others {
			options = append(options, gateway.WithReplicas(gateway.Replica{URL: r.url}), gateway.WithRetries(1), // at the other
				gateway.WithBalancing(gateway.RoundRobin()), gateway.WithHealthChecks(checkInterval, 1, 2)) //nolint:mnd // rise and fall
		}
	}
	if u.name == "prices" && s.without != hedging {
		options = append(options, gateway.WithHedge(hedgeDelay))
	}
	switch {
	case s.without == breaking:
		options = append(options, gateway.WithoutBreaker())
	case u.name == "stock":
		options = append(options, gateway.WithBreaker(0.5, breakerVolume), //nolint:mnd // half of them
			gateway.WithBreakerTimes(time.Minute, breakerOpen, 1), gateway.WithBreakerHook(a.changed))
	}
	return options
}

// changed notes a change of a circuit breaker. It runs within a request, and so
// waits for nobody.
func (a *app) changed(service string, from, to gateway.BreakerState) {
	select {
	case a.changes <- change{service, from, to}:
	default:
	}
}

// reported notes a slow request. All requests wait for the next look meanwhile, and
// so this waits for nobody.
func (a *app) reported(r gateway.SlowRequest) {
	select {
	case a.slow <- r:
	default:
	}
}

// explain tells what would become of a GET of ?url.
func (a *app) explain(w http.ResponseWriter, r *http.Request) {
	asked, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.URL.Query().Get("url"), http.NoBody)
	if err != nil {
		http.Error(w, "url is none", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprint(w, a.gateway.Explain(asked))
}

// service returns the upstream of that name.
func (a *app) service(name string) *upstream {
	return a.upstreams[slices.IndexFunc(a.upstreams, func(u *upstream) bool { return u.name == name })]
}

// routes is the app's mux.
func (a *app) routes(s settings) *http.ServeMux {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintln(w, ownPage)
	})
	api := http.Handler(a.gateway)
	if s.without == refusal {
		api = a.gateway.Wrap(page)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", page)
	mux.Handle("/api/", http.StripPrefix("/api", api))
	if s.without != health {
		mux.Handle("/health", a.gateway.HealthHandler())
		mux.Handle("/health/", a.gateway.HealthHandler())
	}
	if s.without != metrics {
		mux.Handle("/metrics", a.gateway.MetricsHandler())
		mux.Handle("/metrics/", a.gateway.MetricsHandler())
	}
	if s.without != explaining {
		mux.HandleFunc("GET /explain", a.explain)
	}
	if s.without != dashboard {
		mux.Handle("/dashboard/", a.gateway.DashboardHandler())
	}
	return mux
}

const ownPage = "This page is the app's own. The gateway serves what is below /api/."

func (a *app) start() {
	go func() {
		defer close(a.served)
		if err := a.server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			a.served <- err
		}
	}()
}

// shutdown ends the app in good order: nothing is cut that ends within ctx.
func (a *app) shutdown(ctx context.Context) error {
	return errors.Join(a.server.Shutdown(ctx), a.gateway.Shutdown(ctx), a.cache.Shutdown(ctx))
}

// close ends what is still there.
func (a *app) close() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = a.server.Close()
	_ = a.shutdown(ended)
	a.closeUpstreams()
}

func (a *app) closeUpstreams() {
	for _, u := range a.upstreams {
		u.close()
	}
}
