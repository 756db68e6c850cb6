package telemetry

import (
	"crypto/tls"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

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
	same := b.Endpoint(EndpointConfig{Scheme: "http", Host: "one"})
	watch, err := r.ObserveServices(func(tell func(*Service, *ServiceState)) {
		tell(a, &ServiceState{
			Active: 9, Requests: []ReasonCount{{N: 100}, {Reason: "timeout", N: 10}},
			Breaker: "half_open", Transitions: [3]int64{1, 3, 2}, Ejections: 4, Retries: []CauseCount{{"timeout", 5}, {"503", 0}}, Refused: 3, BudgetUsed: 2, BudgetLimit: 30, Hedges: 6, Queued: true, QueueInUse: 7, QueueWaiting: 8, QueueDrops: 11,
			Endpoints: []EndpointState{
				{Endpoint: first, Healthy: true, Active: 5, Pooled: true, Used: 1, Idle: 2, Waiting: 3, Waits: 7, WaitTime: time.Second},
				{Endpoint: again, Healthy: true, Active: 50, Pooled: true, Used: 10, Idle: 20, Waiting: 30, Waits: 70, WaitTime: 1500 * time.Millisecond},
				{Endpoint: two, Pooled: true, Idle: 5},
			},
		})
		tell(b, &ServiceState{Endpoints: []EndpointState{{Endpoint: app, Healthy: true, Active: 1}, {Endpoint: same, Pooled: true, Used: 100}}})
		tell(r.Unrouted(false), &ServiceState{Active: 1, Requests: []ReasonCount{{Reason: "unknown_service", N: 3}}})
	})
	require.NoError(t, err)
	values, monotonic := r.sums()
	assert.Equal(t, map[string]int64{
		"breaker.state closed a": 0, "breaker.state open a": 0, "breaker.state half_open a": 1,
		"breaker.transitions closed a": 1, "breaker.transitions open a": 3, "breaker.transitions half_open a": 2,
		"active_requests a": 9, "requests a": 100, "requests timeout a": 10, "active_requests ": 1, "requests unknown_service": 3,
		"ejections a": 4, "retries timeout a": 5, "retries 503 a": 0, "hedges a": 6, "queue.in_use a": 7, "queue.waiting a": 8, "queue.drops a": 11,
		"retry.refused a": 3, "retry.budget.used a": 2, "retry.budget.limit a": 30, "retry.refused b": 0, "retry.budget.used b": 0, "retry.budget.limit b": 0,
		"pool.waits a one 80": 77, "pool.waits a two 443": 0, "pool.waits b one 80": 0, "pool.waiting b one 80": 0,
		"pool.connections used b one 80": 100, "pool.connections idle b one 80": 0, "endpoint.healthy b one 80": 0,
		"http.client.active_requests one 80": 55, "http.client.active_requests two 443": 0, "http.client.active_requests /run/s": 1,
		"http.client.open_connections active one 80": 111, "http.client.open_connections idle one 80": 22,
		"http.client.open_connections active two 443": 0, "http.client.open_connections idle two 443": 5,
		"endpoint.healthy a one 80": 2, "endpoint.healthy a two 443": 0,
		"pool.connections used a one 80": 11, "pool.connections idle a one 80": 22, "pool.waiting a one 80": 33,
		"pool.connections used a two 443": 0, "pool.connections idle a two 443": 5, "pool.waiting a two 443": 0,
		"active_requests b": 0, "ejections b": 0, "hedges b": 0, "endpoint.healthy b /run/s": 1,
	}, values)
	assert.Equal(t, map[string]bool{
		"gateway.breaker.state": false, "gateway.breaker.transitions": true, "gateway.endpoint.healthy": false, "gateway.ejections": true,
		"gateway.pool.connections": false, "gateway.pool.waiting": false, "gateway.retries": true, "gateway.hedges": true,
		"gateway.queue.in_use": false, "gateway.queue.waiting": false, "gateway.active_requests": false, "gateway.requests": true, "gateway.queue.drops": true,
		"gateway.retry.refused": true, "gateway.retry.budget.used": false, "gateway.retry.budget.limit": false, "gateway.pool.waits": true,
		"http.client.active_requests": false, "http.client.open_connections": false,
	}, monotonic)

	waited, ok := r.metrics()["gateway.pool.wait_time"].Data.(metricdata.Sum[float64])
	require.True(t, ok)
	assert.True(t, waited.IsMonotonic)
	seconds := map[string]float64{}
	for _, p := range waited.DataPoints {
		address, _ := p.Attributes.Value("server.address")
		service, _ := p.Attributes.Value("gateway.service")
		seconds[service.AsString()+" "+address.AsString()] = p.Value
	}
	assert.Equal(t, map[string]float64{"a one": 2.5, "a two": 0, "b one": 0}, seconds)

	second, err := r.ObserveServices(func(tell func(*Service, *ServiceState)) { tell(b, &ServiceState{Hedges: 2}) })
	require.NoError(t, err)
	values, _ = r.sums()
	assert.EqualValues(t, 2, values["hedges b"], "two gateways of one provider add up")
	watch.Stop()
	watch.Stop()
	values, _ = r.sums()
	assert.Equal(t, map[string]int64{
		"active_requests b": 0, "ejections b": 0, "hedges b": 2, "retry.refused b": 0, "retry.budget.used b": 0, "retry.budget.limit b": 0,
	}, values)
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

// Requests outside of spans of the app's are active until they end, once.
func TestActiveRequests(t *testing.T) {
	r := newRig(t)
	s := r.users()
	_, err := r.ObserveServices(func(func(*Service, *ServiceState)) {})
	require.NoError(t, err)
	values, _ := r.sums()
	assert.Empty(t, values)
	begin := func(method string, secure, inside bool) *Server {
		req := httptest.NewRequest(method, "/users/1", nil)
		if secure {
			req.TLS = new(tls.ConnectionState)
		}
		if inside {
			ctx, span := r.tracer.Tracer("app").Start(t.Context(), "app")
			defer span.End()
			req = req.WithContext(ctx)
		}
		sv := new(Server)
		s.StartServer(sv, req)
		return sv
	}
	all := []*Server{begin("GET", false, false), begin("GET", false, false), begin("GET", true, false), begin("ZZ", false, false), begin("GET", false, true)}
	values, _ = r.sums()
	assert.Equal(t, map[string]int64{"http.server.active_requests GET http": 2, "http.server.active_requests GET https": 1, "http.server.active_requests _OTHER http": 1}, values)
	for _, sv := range append(all, all...) {
		sv.End(&ServerResult{Status: 200})
	}
	values, _ = r.sums()
	assert.Equal(t, map[string]int64{"http.server.active_requests GET http": 0, "http.server.active_requests GET https": 0, "http.server.active_requests _OTHER http": 0}, values)
}

func TestConnectionsAreMeasured(t *testing.T) {
	r := newRig(t)
	s := r.users()
	for proto, version := range map[string]any{"HTTP/1.1": "1.1", "HTTP/2": "2", "": nil} {
		e := s.Endpoint(EndpointConfig{Scheme: "http", Host: proto + "one"})
		watch, err := r.ObserveServices(func(tell func(*Service, *ServiceState)) {
			tell(s, &ServiceState{Endpoints: []EndpointState{{Endpoint: e}}})
		})
		require.NoError(t, err)
		unused := true
		watch.Read(func(s *Sample) { unused = unused && s.Durations == nil })
		assert.True(t, unused)
		for _, lived := range []time.Duration{time.Millisecond, time.Minute, time.Hour} {
			e.Closed(proto, lived)
		}
		var read *Durations
		watch.Read(func(s *Sample) {
			if s.Name == "http_client_connection_duration_seconds" {
				read = s.Durations
			}
		})
		watch.Stop()
		found := false
		for _, p := range r.points("http.client.connection.duration") {
			attrs := attributes(p.Attributes.ToSlice())
			if attrs["server.address"] != proto+"one" {
				continue
			}
			found = true
			assert.EqualValues(t, 80, attrs["server.port"])
			assert.Equal(t, version, attrs["network.protocol.version"])
			assert.EqualValues(t, 3, p.Count)
			assert.Equal(t, []float64{.01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60, 120, 300}, p.Bounds)
			assert.Equal(t, p.BucketCounts, read.Counts)
			assert.InDelta(t, p.Sum, read.Sum, 1e-9)
		}
		assert.True(t, found)
	}
}
