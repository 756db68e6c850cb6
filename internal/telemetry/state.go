package telemetry

import (
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
)

// The package's own attributes of a state.
const (
	breakerStateKey = attribute.Key("gateway.breaker.state")
	poolStateKey    = attribute.Key("gateway.pool.state")
	retryCauseKey   = attribute.Key("gateway.retry.cause")
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
	Retries                    []CauseCount
	Refused, Ejections, Hedges int64 // Refused: repeats for which the budget had no room
	BudgetUsed, BudgetLimit    int64 // repeats within its window

	Queued                               bool // requests at the service are bounded
	QueueInUse, QueueWaiting, QueueDrops int64

	Endpoints []EndpointState
}

// ReasonCount is how many requests the gateway answered itself, for a reason from
// a closed list; without one, how many all others are.
type ReasonCount struct {
	Reason string
	N      int64
}

// CauseCount is how many requests were sent again for a cause from a closed list.
type CauseCount struct {
	Cause string
	N     int64
}

// EndpointState is what one server of a service is in.
type EndpointState struct {
	Endpoint *Endpoint
	Proto    string // what its connections speak, as in http.Response; "": unknown
	Healthy  bool
	Active   int64 // attempts that have not ended

	Pooled                     bool // its connections are known
	Used, Idle, Waiting, Waits int64
	WaitTime                   time.Duration // of all who have waited
}

// serviceInstruments are those of what services are in. All of them add up: over
// several gateways of one meter provider, and over the addresses of one name.
type serviceInstruments struct {
	active, breaker, healthy, connections, poolWaiting, inUse, queueWaiting, budgetUsed, budgetLimit *instrument
	requests, transitions, ejections, retries, refused, hedges, poolWaits, poolWaitTime, queueDrops  *instrument
	serverActive, clientActive, open                                                                 *instrument
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
		retries:      w.count("gateway.retries", "{retry}", "Requests that were sent again, by the cause."),
		refused:      w.count("gateway.retry.refused", "{retry}", "Requests that were not sent again, or to a second replica, for the budget was spent."),
		budgetUsed:   w.level("gateway.retry.budget.used", "{retry}", "Repeats of the last ten seconds."),
		budgetLimit:  w.level("gateway.retry.budget.limit", "{retry}", "Repeats that ten seconds have room for."),
		hedges:       w.count("gateway.hedges", "{hedge}", "Requests that were sent to a second replica while the first had not answered."),
		inUse:        w.level("gateway.queue.in_use", "{request}", "Requests that hold a place at a service whose concurrency is bounded."),
		queueWaiting: w.level("gateway.queue.waiting", "{request}", "Requests that wait for such a place."),
		queueDrops:   w.count("gateway.queue.drops", "{request}", "Requests that got no such place, for too many waited, or for too long."),
		poolWaits:    w.count("gateway.pool.waits", "{wait}", "Waits for a connection to a replica, that have ended or not."),
		poolWaitTime: w.countTime("gateway.pool.wait_time", "Time that requests have waited for a connection to a replica."),
		serverActive: w.level(httpconv.ServerActiveRequests{}.Name(), httpconv.ServerActiveRequests{}.Unit(), httpconv.ServerActiveRequests{}.Description()),
		clientActive: w.level(httpconv.ClientActiveRequests{}.Name(), httpconv.ClientActiveRequests{}.Unit(), httpconv.ClientActiveRequests{}.Description()),
		open:         w.level(httpconv.ClientOpenConnections{}.Name(), httpconv.ClientOpenConnections{}.Unit(), httpconv.ClientOpenConnections{}.Description()),
	}
	w.read = func(tell teller) {
		clients, told := make(clientSums), make(map[*server]bool)
		read(func(of *Service, state *ServiceState) {
			s.tell(tell, of, state)
			clients.add(state.Endpoints)
			for _, e := range state.Endpoints {
				if at := e.Endpoint.server; tell.durations != nil && !told[at] {
					told[at] = true
					at.tellDurations(tell)
				}
			}
		})
		s.tellClients(tell, clients)
		t.active.each(func(n int64, attrs ...attribute.KeyValue) { tell.number(s.serverActive, n, attrs...) })
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
	for _, r := range state.Retries {
		tell.number(s.retries, r.N, with(retryCauseKey.String(r.Cause))...)
	}
	tell.number(s.refused, state.Refused, with()...)
	tell.number(s.budgetUsed, state.BudgetUsed, with()...)
	tell.number(s.budgetLimit, state.BudgetLimit, with()...)
	tell.number(s.hedges, state.Hedges, with()...)
	if state.Queued {
		tell.number(s.inUse, state.QueueInUse, with()...)
		tell.number(s.queueWaiting, state.QueueWaiting, with()...)
		tell.number(s.queueDrops, state.QueueDrops, with()...)
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
	connDurations   = histogram{httpconv.ClientConnectionDuration{}.Name(), httpconv.ClientConnectionDuration{}.Description()}
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
}

// tellEndpoints sums up endpoints of one name: a callback may not report a series
// twice.
func (s *serviceInstruments) tellEndpoints(tell teller, service []attribute.KeyValue, endpoints []EndpointState) {
	type sum struct {
		at                                  *Endpoint
		pooled                              bool
		healthy, used, idle, waiting, waits int64
		waited                              time.Duration
	}
	sums, told := make(map[attribute.Distinct]*sum, len(endpoints)), make(map[*Endpoint]bool)
	for _, e := range endpoints {
		set := attribute.NewSet(slices.Clone(e.Endpoint.where)...) // it sorts what it is given
		total := sums[set.Equivalent()]
		if total == nil {
			total = &sum{at: e.Endpoint}
			sums[set.Equivalent()] = total
		}
		if left := &e.Endpoint.left; !told[e.Endpoint] {
			told[e.Endpoint] = true
			total.waits += left.waits.Load()
			total.waited += time.Duration(left.waitTime.Load())
		}
		total.pooled = total.pooled || e.Pooled
		total.healthy += one(e.Healthy)
		total.used += e.Used
		total.idle += e.Idle
		total.waiting += e.Waiting
		total.waits += e.Waits
		total.waited += e.WaitTime
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
			tell.number(s.poolWaits, total.waits, with()...)
			tell.number(s.poolWaitTime, int64(total.waited), with()...)
		}
	}
}

// clientSums are what the conventions ask of clients, who know nothing of services:
// by server, and by the state of connections.
type clientSums map[attribute.Distinct]*clientSum

type clientSum struct {
	conns              *series
	pooled             bool
	active, used, idle int64
}

func (c clientSums) add(endpoints []EndpointState) {
	for _, e := range endpoints {
		conns := e.Endpoint.conns[parseVersion(e.Proto)]
		sum := c[conns.id]
		if sum == nil {
			sum = &clientSum{conns: conns.series}
			c[conns.id] = sum
		}
		sum.pooled = sum.pooled || e.Pooled
		sum.active += e.Active
		sum.used += e.Used
		sum.idle += e.Idle
	}
}

func (s *serviceInstruments) tellClients(tell teller, clients clientSums) {
	for _, sum := range clients {
		conn := sum.conns.attrs
		tell.number(s.clientActive, sum.active, slices.Clone(conn)...)
		if sum.pooled {
			tell.number(s.open, sum.used, append(slices.Clone(conn), semconv.HTTPConnectionStateActive)...)
			tell.number(s.open, sum.idle, append(slices.Clone(conn), semconv.HTTPConnectionStateIdle)...)
		}
	}
}

// activeRequests counts requests that have not ended, by method and by scheme.
type activeRequests [methodCount][2]struct{ begun, ended atomic.Int64 }

// each tells of those of which there were any.
func (a *activeRequests) each(tell func(n int64, attrs ...attribute.KeyValue)) {
	for m := range a {
		for secure := range a[m] {
			c := &a[m][secure]
			if ended := c.ended.Load(); c.begun.Load() > 0 {
				tell(c.begun.Load()-ended, method(m).attribute(), semconv.URLScheme(scheme(secure == 1))) //nolint:gosec // of few
			}
		}
	}
}

func one(is bool) int64 {
	if is {
		return 1
	}
	return 0
}
