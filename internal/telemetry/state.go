package telemetry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// The package's own attributes of a state.
const (
	breakerStateKey = attribute.Key("gateway.breaker.state")
	poolStateKey    = attribute.Key("gateway.pool.state")
)

// breakerStates are all that a circuit breaker may be in, in the order of
// ServiceState.Transitions.
var breakerStates = [...]string{"closed", "open", "half_open"}

// ServiceState is what a service is in at one instant, and what it did so far.
type ServiceState struct {
	Breaker     string                    // closed, open, half_open; "": there is none
	Transitions [len(breakerStates)]int64 // to closed, open, half_open

	Ejections, Retries, Hedges int64

	Queued                   bool // requests at the service are bounded
	QueueInUse, QueueWaiting int64

	Endpoints []EndpointState
}

// EndpointState is what one server of a service is in.
type EndpointState struct {
	Endpoint *Endpoint
	Healthy  bool

	Pooled              bool // its connections are known
	Used, Idle, Waiting int64
}

// states are the instruments of what services are in. All of them add up: over
// several gateways of one meter provider, and over the addresses of one name.
type states struct {
	breaker, healthy, connections, poolWaiting, inUse, queueWaiting metric.Int64ObservableUpDownCounter
	transitions, ejections, retries, hedges                         metric.Int64ObservableCounter
}

func newStates(m metric.Meter) (*states, error) {
	var faults []error
	level := func(name, unit, what string) metric.Int64ObservableUpDownCounter {
		i, err := m.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
		faults = append(faults, err)
		return i
	}
	count := func(name, unit, what string) metric.Int64ObservableCounter {
		i, err := m.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
		faults = append(faults, err)
		return i
	}
	s := &states{
		breaker:      level("gateway.breaker.state", "1", "1 for the state that the circuit breaker is in, 0 for the others."),
		transitions:  count("gateway.breaker.transitions", "{transition}", "Changes of the circuit breaker, by the state that it changed to."),
		healthy:      level("gateway.endpoint.healthy", "{endpoint}", "1 for a replica that is neither ejected nor unhealthy, else 0."),
		ejections:    count("gateway.ejections", "{ejection}", "Replicas that were taken out of use for their failures."),
		connections:  level("gateway.pool.connections", "{connection}", "Connections to a replica that are in use or idle."),
		poolWaiting:  level("gateway.pool.waiting", "{request}", "Requests that wait for a connection to a replica."),
		retries:      count("gateway.retries", "{retry}", "Requests that were sent again."),
		hedges:       count("gateway.hedges", "{hedge}", "Requests that were sent to a second replica while the first had not answered."),
		inUse:        level("gateway.queue.in_use", "{request}", "Requests that hold a place at a service whose concurrency is bounded."),
		queueWaiting: level("gateway.queue.waiting", "{request}", "Requests that wait for such a place."),
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("create service instruments: %w", err)
	}
	return s, nil
}

// ObserveServices reports what read tells it of services at each collection,
// until stop is called. Nothing is recorded in between.
func (t *Telemetry) ObserveServices(read func(tell func(*Service, *ServiceState))) (stop func(), err error) {
	s, err := newStates(t.meter)
	if err != nil {
		return nil, err
	}
	r, err := t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		read(func(of *Service, state *ServiceState) { s.observe(o, of, state) })
		return nil
	}, s.breaker, s.transitions, s.healthy, s.ejections, s.connections, s.poolWaiting, s.retries, s.hedges, s.inUse, s.queueWaiting)
	if err != nil {
		return nil, fmt.Errorf("observe services: %w", err)
	}
	return func() { _ = r.Unregister() }, nil
}

func (s *states) observe(o metric.Observer, of *Service, state *ServiceState) {
	name := serviceKey.String(of.name)
	service := metric.WithAttributeSet(attribute.NewSet(name))
	o.ObserveInt64(s.ejections, state.Ejections, service)
	o.ObserveInt64(s.retries, state.Retries, service)
	o.ObserveInt64(s.hedges, state.Hedges, service)
	if state.Queued {
		o.ObserveInt64(s.inUse, state.QueueInUse, service)
		o.ObserveInt64(s.queueWaiting, state.QueueWaiting, service)
	}
	if state.Breaker != "" {
		for i, in := range breakerStates {
			attrs := metric.WithAttributeSet(attribute.NewSet(name, breakerStateKey.String(in)))
			o.ObserveInt64(s.breaker, one(in == state.Breaker), attrs)
			o.ObserveInt64(s.transitions, state.Transitions[i], attrs)
		}
	}
	s.observeEndpoints(o, name, state.Endpoints)
}

// observeEndpoints sums up endpoints of one name: a callback may not report a
// series twice.
func (s *states) observeEndpoints(o metric.Observer, service attribute.KeyValue, endpoints []EndpointState) {
	type sum struct {
		at                           *Endpoint
		pooled                       bool
		healthy, used, idle, waiting int64
	}
	sums := make(map[attribute.Distinct]*sum, len(endpoints))
	for _, e := range endpoints {
		set := attribute.NewSet(slices.Clone(e.Endpoint.where)...) // it sorts what it is given
		total := sums[set.Equivalent()]
		if total == nil {
			total = &sum{at: e.Endpoint}
			sums[set.Equivalent()] = total
		}
		total.pooled = total.pooled || e.Pooled
		total.healthy += one(e.Healthy)
		total.used += e.Used
		total.idle += e.Idle
		total.waiting += e.Waiting
	}
	for _, total := range sums {
		attrs := func(more ...attribute.KeyValue) metric.MeasurementOption {
			return metric.WithAttributeSet(attribute.NewSet(append(append(more, service), total.at.where...)...))
		}
		o.ObserveInt64(s.healthy, total.healthy, attrs())
		if total.pooled {
			o.ObserveInt64(s.connections, total.used, attrs(poolStateKey.String("used")))
			o.ObserveInt64(s.connections, total.idle, attrs(poolStateKey.String("idle")))
			o.ObserveInt64(s.poolWaiting, total.waiting, attrs())
		}
	}
}

func one(is bool) int64 {
	if is {
		return 1
	}
	return 0
}
