package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"time"

	"github.com/embedgw/gateway"
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
// is judged.
func checkTelemetry(ctx context.Context, s settings) error {
	subjects := []*instrumented{
		{name: "no-op", tracers: notrace.NewTracerProvider(), meters: nometric.NewMeterProvider()},
		{name: "metrics", tracers: notrace.NewTracerProvider(), meters: newMeters()},
		{name: "unsampled", tracers: newTracers(sdktrace.NeverSample()), meters: newMeters(), most: mostUnsampled},
		{name: "sampled", tracers: newTracers(sdktrace.AlwaysSample()), meters: newMeters(), most: mostSampled},
		{name: "SDK alone", tracers: newTracers(sdktrace.AlwaysSample()), meters: newMeters()},
	}
	sdk, err := newBareSDK(subjects[4])
	if err != nil {
		return err
	}
	subjects[4].handler = sdk
	for _, sub := range subjects[:4] {
		stop, err := sub.start()
		if err != nil {
			return err
		}
		defer stop()
		sub.handler = sub.gw
	}
	n, pairs := s.count(2000), max(s.pairs, 121)
	var rounds []turn
	for pair := range pairs {
		var t turn
		for i := range subjects {
			at := (i + pair) % len(subjects) // nobody is always the first
			cost, err := subjects[at].ask(ctx, n)
			if err != nil {
				return err
			}
			t[at] = cost
		}
		if pair > 0 { // which is to be warm
			rounds = append(rounds, t)
		}
	}
	return judgeTelemetry(subjects, rounds, n)
}

// A turn is what a request costs each of the subjects.
type turn [5]cost

type cost struct{ cpu, mallocs float64 }

func judgeTelemetry(subjects []*instrumented, rounds []turn, n int) error {
	fmt.Printf("%s\n\n%d rounds of %d requests each\n", machine(), len(rounds), n)
	var faults []error
	none := func(t turn) float64 { return t[0].cpu }
	alone := medianOf(rounds, func(t turn) float64 { return t[4].cpu }).Value
	for i, sub := range subjects {
		all := medianOf(rounds, func(t turn) float64 { return t[i].cpu })
		above := medianOf(rounds, func(t turn) float64 { return t[i].cpu - none(t) })
		mallocs := medianOf(rounds, func(t turn) float64 { return t[i].mallocs })
		verdict := fmt.Sprintf("%-10s %6.2f µs of CPU per request, %5.1f allocations", sub.name, all.Value/1e3, mallocs.Value)
		if sub.gw == nil { // it does nothing else
			fmt.Println(verdict)
			continue
		}
		verdict += fmt.Sprintf("; above no-op %5.2f ±%.2f µs", above.Value/1e3, above.Spread/1e3)
		if sub.most > 0 {
			verdict += fmt.Sprintf(", may be %s", sub.most)
		}
		fmt.Println(verdict)
		if sub.most > 0 && above.Value > max(float64(sub.most), sub.floor(alone)+float64(mostOfOurs)) {
			faults = append(faults, errors.New(verdict))
		}
	}
	return errors.Join(faults...)
}

// floor is what nobody can go below. Spans that are not sampled cost the SDK next to
// nothing.
func (s *instrumented) floor(alone float64) float64 {
	if s.most == mostSampled {
		return alone
	}
	return -float64(mostOfOurs)
}

func newMeters() metric.MeterProvider {
	return sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
}

func newTracers(sampler sdktrace.Sampler) trace.TracerProvider {
	return sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler), sdktrace.WithBatcher(dropped{}))
}

// instrumented is a gateway with telemetry of one kind.
type instrumented struct {
	name    string
	tracers trace.TracerProvider
	meters  metric.MeterProvider
	most    time.Duration // above no-op; 0: any

	gw      *gateway.Gateway
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

func (s *instrumented) start() (stop func(), err error) {
	s.gw, err = gateway.New(
		gateway.WithTracerProvider(s.tracers), gateway.WithMeterProvider(s.meters), gateway.WithPropagator(propagation.TraceContext{}),
		gateway.WithService("bench", "http://upstream.test", gateway.WithTransport(instant{})))
	if err != nil {
		return nil, err
	}
	return func() { _ = s.gw.Shutdown(context.Background()) }, nil
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

// newBareSDK returns a handler that does with the SDK what a request of the gateway
// with one attempt has it do, and nothing else: two spans with as many attributes,
// and three records.
func newBareSDK(s *instrumented) (http.Handler, error) {
	tracer, meter := s.tracers.Tracer("bench"), s.meters.Meter("bench")
	var histograms [3]metric.Float64Histogram
	for i := range histograms {
		var err error
		if histograms[i], err = meter.Float64Histogram(fmt.Sprint("bench.", i)); err != nil {
			return nil, err
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
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	}), nil
}
