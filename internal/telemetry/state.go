package telemetry

import (
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
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
	Whole *Service // of its requests that came with their whole path; nil: there are none

	Breaker     string                    // closed, open, half_open; "": there is none
	Transitions [len(breakerStates)]int64 // to closed, open, half_open

	Active                     int64         // requests that have not ended
	Requests                   []ReasonCount // that have
	Ejections, Retries, Hedges int64

	Queued                   bool // requests at the service are bounded
	QueueInUse, QueueWaiting int64

	Endpoints []EndpointState
}

// ReasonCount is how many requests the gateway answered itself, for a reason from
// a closed list; without one, how many all others are.
type ReasonCount struct {
	Reason string
	N      int64
}

// EndpointState is what one server of a service is in.
type EndpointState struct {
	Endpoint *Endpoint
	Healthy  bool

	Pooled              bool // its connections are known
	Used, Idle, Waiting int64
}

// serviceInstruments are those of what services are in. All of them add up: over
// several gateways of one meter provider, and over the addresses of one name.
type serviceInstruments struct {
	active, breaker, healthy, connections, poolWaiting, inUse, queueWaiting *instrument
	requests, transitions, ejections, retries, hedges                       *instrument
}

// ObserveServices shows what read tells of services, at each collection.
func (t *Telemetry) ObserveServices(read func(tell func(*Service, *ServiceState))) (*Watch, error) {
	var w Watch
	s := serviceInstruments{
		active:       w.level("gateway.active_requests", "{request}", "Requests that have not ended."),
		requests:     w.count("gateway.requests", "{request}", "Requests that have ended, by the reason for which the gateway answered itself; without one, by all others."),
		breaker:      w.level("gateway.breaker.state", "{breaker}", "1 for the state that the circuit breaker is in, 0 for the others."),
		transitions:  w.count("gateway.breaker.transitions", "{transition}", "Changes of the circuit breaker, by the state that it changed to."),
		healthy:      w.level("gateway.endpoint.healthy", "{endpoint}", "1 for a replica that is neither ejected nor unhealthy, else 0."),
		ejections:    w.count("gateway.ejections", "{ejection}", "Replicas that were taken out of use for their failures."),
		connections:  w.level("gateway.pool.connections", "{connection}", "Connections to a replica that are in use or idle."),
		poolWaiting:  w.level("gateway.pool.waiting", "{request}", "Requests that wait for a connection to a replica."),
		retries:      w.count("gateway.retries", "{retry}", "Requests that were sent again."),
		hedges:       w.count("gateway.hedges", "{hedge}", "Requests that were sent to a second replica while the first had not answered."),
		inUse:        w.level("gateway.queue.in_use", "{request}", "Requests that hold a place at a service whose concurrency is bounded."),
		queueWaiting: w.level("gateway.queue.waiting", "{request}", "Requests that wait for such a place."),
	}
	w.read = func(tell teller) {
		read(func(of *Service, state *ServiceState) { s.tell(tell, of, state) })
	}
	return t.watch(&w)
}

func (s *serviceInstruments) tell(tell teller, of *Service, state *ServiceState) {
	if tell.durations != nil {
		of.tellDurations(tell, state)
	}
	var service []attribute.KeyValue
	if of.routed {
		service = append(service, serviceKey.String(of.name))
	}
	with := func(more ...attribute.KeyValue) []attribute.KeyValue { return append(more, service...) }
	tell.number(s.active, state.Active, with()...)
	for _, r := range state.Requests {
		if r.Reason == "" {
			tell.number(s.requests, r.N, with()...)
		} else {
			tell.number(s.requests, r.N, with(reasonKey.String(r.Reason))...)
		}
	}
	if !of.routed {
		return
	}
	tell.number(s.ejections, state.Ejections, with()...)
	tell.number(s.retries, state.Retries, with()...)
	tell.number(s.hedges, state.Hedges, with()...)
	if state.Queued {
		tell.number(s.inUse, state.QueueInUse, with()...)
		tell.number(s.queueWaiting, state.QueueWaiting, with()...)
	}
	if state.Breaker != "" {
		for i, in := range breakerStates {
			tell.number(s.breaker, one(in == state.Breaker), with(breakerStateKey.String(in))...)
			tell.number(s.transitions, state.Transitions[i], with(breakerStateKey.String(in))...)
		}
	}
	s.tellEndpoints(tell, service, state.Endpoints)
}

// The histograms. What they say of themselves is the conventions'.
var (
	serverDurations = histogram{httpconv.ServerRequestDuration{}.Name(), httpconv.ServerRequestDuration{}.Description()}
	clientDurations = histogram{httpconv.ClientRequestDuration{}.Name(), httpconv.ClientRequestDuration{}.Description()}
	innerDurations  = histogram{"gateway.request.duration", "Duration of requests that the gateway handled inside a span of its own process."}
	ownDurations    = histogram{"gateway.request.own.duration", "Duration of the gateway's own part of requests: all that is no waiting for an upstream, for the client or for another request."}
)

func (s *Service) tellDurations(tell teller, state *ServiceState) {
	if s.own.used() {
		tell.durations(ownDurations, s.own)
	}
	s.eachRoute(func(r *route) {
		r.series[0].each(tell, serverDurations)
		r.series[1].each(tell, innerDurations)
	})
	if state.Whole != nil {
		state.Whole.tellDurations(tell, &ServiceState{})
	}
	for _, e := range state.Endpoints {
		e.Endpoint.series.each(tell, clientDurations)
	}
}

// tellEndpoints sums up endpoints of one name: a callback may not report a series
// twice.
func (s *serviceInstruments) tellEndpoints(tell teller, service []attribute.KeyValue, endpoints []EndpointState) {
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
		with := func(more ...attribute.KeyValue) []attribute.KeyValue {
			return append(append(more, service...), total.at.where...)
		}
		tell.number(s.healthy, total.healthy, with()...)
		if total.pooled {
			tell.number(s.connections, total.used, with(poolStateKey.String("used"))...)
			tell.number(s.connections, total.idle, with(poolStateKey.String("idle"))...)
			tell.number(s.poolWaiting, total.waiting, with()...)
		}
	}
}

func one(is bool) int64 {
	if is {
		return 1
	}
	return 0
}
