package telemetry

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// sums returns the series of all sums, and which instruments are monotonic.
func (r *rig) sums() (values map[string]int64, monotonic map[string]bool) {
	values, monotonic = map[string]int64{}, map[string]bool{}
	for name, m := range r.metrics() {
		sum, ok := m.Data.(metricdata.Sum[int64])
		if !ok {
			continue
		}
		monotonic[name] = sum.IsMonotonic
		for _, p := range sum.DataPoints {
			var attrs []string
			for _, kv := range p.Attributes.ToSlice() {
				attrs = append(attrs, kv.Value.String())
			}
			values[strings.TrimPrefix(name, "gateway.")+" "+strings.Join(attrs, " ")] = p.Value
		}
	}
	return values, monotonic
}

func TestServicesAreObservedUntilStopped(t *testing.T) {
	r := newRig(t)
	a, b := r.Service(ServiceConfig{Name: "a"}), r.Service(ServiceConfig{Name: "b"})
	first, again := a.Endpoint(EndpointConfig{Scheme: "http", Host: "one"}), a.Endpoint(EndpointConfig{Scheme: "http", Host: "one"})
	two, app := a.Endpoint(EndpointConfig{Scheme: "https", Host: "two"}), b.Endpoint(EndpointConfig{Scheme: "http", Host: "/run/s", Socket: true})
	watch, err := r.ObserveServices(func(tell func(*Service, *ServiceState)) {
		tell(a, &ServiceState{
			Active: 9, Requests: []ReasonCount{{N: 100}, {Reason: "timeout", N: 10}},
			Breaker: "half_open", Transitions: [3]int64{1, 3, 2}, Ejections: 4, Retries: 5, Hedges: 6, Queued: true, QueueInUse: 7, QueueWaiting: 8,
			Endpoints: []EndpointState{
				{Endpoint: first, Healthy: true, Pooled: true, Used: 1, Idle: 2, Waiting: 3},
				{Endpoint: again, Healthy: true, Pooled: true, Used: 10, Idle: 20, Waiting: 30},
				{Endpoint: two, Pooled: true, Idle: 5},
			},
		})
		tell(b, &ServiceState{Endpoints: []EndpointState{{Endpoint: app, Healthy: true}}})
		tell(r.Unrouted(false), &ServiceState{Active: 1, Requests: []ReasonCount{{Reason: "unknown_service", N: 3}}})
	})
	require.NoError(t, err)
	values, monotonic := r.sums()
	assert.Equal(t, map[string]int64{
		"breaker.state closed a": 0, "breaker.state open a": 0, "breaker.state half_open a": 1,
		"breaker.transitions closed a": 1, "breaker.transitions open a": 3, "breaker.transitions half_open a": 2,
		"active_requests a": 9, "requests a": 100, "requests timeout a": 10, "active_requests ": 1, "requests unknown_service": 3,
		"ejections a": 4, "retries a": 5, "hedges a": 6, "queue.in_use a": 7, "queue.waiting a": 8,
		"endpoint.healthy a one 80": 2, "endpoint.healthy a two 443": 0,
		"pool.connections used a one 80": 11, "pool.connections idle a one 80": 22, "pool.waiting a one 80": 33,
		"pool.connections used a two 443": 0, "pool.connections idle a two 443": 5, "pool.waiting a two 443": 0,
		"active_requests b": 0, "ejections b": 0, "retries b": 0, "hedges b": 0, "endpoint.healthy b /run/s": 1,
	}, values)
	assert.Equal(t, map[string]bool{
		"gateway.breaker.state": false, "gateway.breaker.transitions": true, "gateway.endpoint.healthy": false, "gateway.ejections": true,
		"gateway.pool.connections": false, "gateway.pool.waiting": false, "gateway.retries": true, "gateway.hedges": true,
		"gateway.queue.in_use": false, "gateway.queue.waiting": false, "gateway.active_requests": false, "gateway.requests": true,
	}, monotonic)

	second, err := r.ObserveServices(func(tell func(*Service, *ServiceState)) { tell(b, &ServiceState{Retries: 2}) })
	require.NoError(t, err)
	values, _ = r.sums()
	assert.EqualValues(t, 2, values["retries b"], "two gateways of one provider add up")
	watch.Stop()
	watch.Stop()
	values, _ = r.sums()
	assert.Equal(t, map[string]int64{"active_requests b": 0, "ejections b": 0, "retries b": 2, "hedges b": 0}, values)
	second.Stop()
	values, _ = r.sums()
	assert.Empty(t, values)
}

// A meter that refuses what is observed.
type unobservable struct{ metricnoop.MeterProvider }

type noObservables struct{ metricnoop.Meter }

func (unobservable) Meter(string, ...metric.MeterOption) metric.Meter { return noObservables{} }

func (noObservables) Int64ObservableCounter(name string, _ ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	return nil, fmt.Errorf("%s: %w", name, errInstrument)
}

func TestRefusedObservableIsAnError(t *testing.T) {
	te, err := New(Config{Meter: unobservable{}})
	require.NoError(t, err)
	_, err = te.ObserveServices(func(func(*Service, *ServiceState)) {})
	require.ErrorIs(t, err, errInstrument)
}
