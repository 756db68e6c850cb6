package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"time"

	"github.com/embedgw/gateway"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	nometric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	notrace "go.opentelemetry.io/otel/trace/noop"
)

// What telemetry may cost a request, of CPU: above telemetry that does nothing, and
// above what OpenTelemetry's SDK takes by itself for as many spans, attributes and
// records.
const (
	mostUnsampled = 2 * time.Microsecond
	mostSampled   = 5 * time.Microsecond
	mostOfOurs    = 2 * time.Microsecond
)

// checkTelemetry measures what spans and histograms cost a request that goes
// upstream, beside telemetry that does nothing: the same handler, asked in one
// process in turns, so that what else the machine does befalls all alike. Where
// the SDK alone takes more than sampled requests may cost, no more than our own part
// is judged. A plain proxy that otelhttp instruments, server and client, is measured
// for comparison.
func checkTelemetry(ctx context.Context, s settings) error {
	noop := &instrumented{name: "no-op", tracers: notrace.NewTracerProvider(), meters: nometric.NewMeterProvider()}
	metrics := &instrumented{name: "metrics", tracers: notrace.NewTracerProvider(), meters: newMeters(), base: noop}
	unsampled := &instrumented{name: "unsampled", tracers: newTracers(sdktrace.NeverSample()), meters: newMeters(), base: noop, most: mostUnsampled}
	sampled := &instrumented{name: "sampled", tracers: newTracers(sdktrace.AlwaysSample()), meters: newMeters(), base: noop, most: mostSampled}
	alone := &instrumented{name: "SDK alone", tracers: newTracers(sdktrace.AlwaysSample()), meters: newMeters()}
	for _, sub := range []*instrumented{noop, metrics, unsampled, sampled} {
		stop, err := sub.start()
		if err != nil {
			return err
		}
		defer stop()
	}
	if err := alone.startBareSDK(); err != nil {
		return err
	}
	plain := &instrumented{name: "plain proxy", handler: plainProxy(instant{})}
	subjects := []*instrumented{noop, metrics, unsampled, sampled, alone, plain,
		newOtelhttp("otelhttp, unsampled", sdktrace.NeverSample(), plain), newOtelhttp("otelhttp, sampled", sdktrace.AlwaysSample(), plain)}
	n, pairs := s.count(2000), max(s.pairs, 121)
	var rounds []turn
	for pair := range pairs {
		t := turn{}
		for i := range subjects {
			sub := subjects[(i+pair)%len(subjects)] // nobody is always the first
			var err error
			if t[sub], err = sub.ask(ctx, n); err != nil {
				return err
			}
		}
		if pair > 0 { // which is to be warm
			rounds = append(rounds, t)
		}
	}
	fmt.Printf("%s\n\n%d rounds of %d requests each\n", machine(), len(rounds), n)
	floor := time.Duration(medianOf(rounds, func(t turn) float64 { return t[alone].cpu }).Value)
	if floor+mostOfOurs > mostSampled {
		fmt.Printf("sampled requests may cost %s, and %s above the SDK alone where that takes more\n", mostSampled, mostOfOurs)
		sampled.most = floor + mostOfOurs
	}
	var faults []error
	for _, sub := range subjects {
		faults = append(faults, sub.judge(rounds))
	}
	return errors.Join(faults...)
}

// A turn is what a request costs each of the subjects.
type turn map[*instrumented]cost

type cost struct{ cpu, mallocs float64 }

func (s *instrumented) judge(rounds []turn) error {
	all := medianOf(rounds, func(t turn) float64 { return t[s].cpu })
	mallocs := medianOf(rounds, func(t turn) float64 { return t[s].mallocs })
	verdict := fmt.Sprintf("%-20s %6.2f µs of CPU per request, %5.1f allocations", s.name, all.Value/1e3, mallocs.Value)
	var above median
	if s.base != nil {
		above = medianOf(rounds, func(t turn) float64 { return t[s].cpu - t[s.base].cpu })
		verdict += fmt.Sprintf("; above %s %5.2f ±%.2f µs", s.base.name, above.Value/1e3, above.Spread/1e3)
	}
	if s.most > 0 {
		verdict += fmt.Sprintf(", may be %s", s.most)
	}
	fmt.Println(verdict)
	if s.most > 0 && above.Value > float64(s.most) {
		return errors.New(verdict)
	}
	return nil
}

func newMeters() metric.MeterProvider {
	return sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
}

func newTracers(sampler sdktrace.Sampler) trace.TracerProvider {
	return sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler), sdktrace.WithBatcher(dropped{}))
}

// instrumented is a handler with telemetry of one kind.
type instrumented struct {
	name    string
	tracers trace.TracerProvider
	meters  metric.MeterProvider
	base    *instrumented // what it is compared with; nil: nothing
	most    time.Duration // above base; 0: any

	handler http.Handler
}

// instant answers at once, and is no part of what is measured.
type instant struct{}

func (instant) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"text/plain"}},
		ContentLength: 2, Body: io.NopCloser(strings.NewReader("ok")), Request: r,
	}, nil
}

// start makes it a gateway.
func (s *instrumented) start() (stop func(), err error) {
	gw, err := gateway.New(
		gateway.WithTracerProvider(s.tracers), gateway.WithMeterProvider(s.meters), gateway.WithPropagator(propagation.TraceContext{}),
		gateway.WithService("bench", "http://upstream.test", gateway.WithTransport(instant{})))
	if err != nil {
		return nil, err
	}
	s.handler = gw
	return func() { _ = gw.Shutdown(context.Background()) }, nil
}

// plainProxy passes requests on, and does nothing else.
func plainProxy(upstream http.RoundTripper) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := http.NewRequestWithContext(r.Context(), r.Method, "http://upstream.test/items/42?page=2", http.NoBody)
		if err != nil {
			panic(err)
		}
		resp, err := upstream.RoundTrip(out)
		if err != nil {
			panic(err)
		}
		maps.Copy(w.Header(), resp.Header)
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
		_ = resp.Body.Close()
	})
}

// newOtelhttp has otelhttp instrument both sides of a plain proxy.
func newOtelhttp(name string, sampler sdktrace.Sampler, plain *instrumented) *instrumented {
	opts := []otelhttp.Option{
		otelhttp.WithTracerProvider(newTracers(sampler)), otelhttp.WithMeterProvider(newMeters()), otelhttp.WithPropagators(propagation.TraceContext{}),
	}
	handler := otelhttp.NewHandler(plainProxy(otelhttp.NewTransport(instant{}, opts...)), "GET /bench/{path...}", opts...)
	return &instrumented{name: name, base: plain, handler: handler}
}

// sink is a client that reads nothing.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

// ask sends n requests one after the other, and returns what each has cost the
// process.
func (s *instrumented) ask(ctx context.Context, n int) (cost, error) {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/bench/items/42?page=2", http.NoBody)
	r.Pattern = "/"
	r.Header = http.Header{"User-Agent": {"bench"}, "Accept": {"*/*"}}
	w := &sink{header: http.Header{}}
	runtime.GC()
	before, err := used()
	if err != nil {
		return cost{}, err
	}
	for range n {
		clear(w.header)
		s.handler.ServeHTTP(w, r)
		if w.status != http.StatusOK {
			return cost{}, fmt.Errorf("%s answered %d", s.name, w.status)
		}
	}
	after, err := used()
	return cost{float64(after.CPU-before.CPU) / float64(n), float64(after.Mallocs-before.Mallocs) / float64(n)}, err
}

// startBareSDK makes it a handler that does with the SDK what a request of the
// gateway with one attempt has it do, and nothing else: two spans with as many
// attributes, and three records.
func (s *instrumented) startBareSDK() error {
	tracer, meter := s.tracers.Tracer("bench"), s.meters.Meter("bench")
	var histograms [3]metric.Float64Histogram
	for i := range histograms {
		var err error
		if histograms[i], err = meter.Float64Histogram(fmt.Sprint("bench.", i)); err != nil {
			return err
		}
	}
	list := func(n int) (attrs []attribute.KeyValue) {
		for i := range n {
			attrs = append(attrs, attribute.String(fmt.Sprint("bench.attribute.", i), "some value"))
		}
		return attrs
	}
	server := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(list(5)...)}
	client := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(list(5)...)}
	serverEnd, clientEnd := list(13)[5:], list(7)[5:]
	record := []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(list(5)...))}
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer, request := tracer.Start(r.Context(), "GET /bench/{path...}", server...)
		inner, attempt := tracer.Start(outer, "GET", client...)
		histograms[0].Record(inner, 0.001, record...)
		attempt.SetAttributes(clientEnd...)
		attempt.End()
		histograms[1].Record(outer, 0.001, record...)
		histograms[2].Record(outer, 0.001, record...)
		request.SetAttributes(serverEnd...)
		request.End()
		w.WriteHeader(http.StatusOK)
	})
	return nil
}
