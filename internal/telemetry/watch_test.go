package telemetry

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNamesAreThoseOfPrometheus(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, unit string
		counts     bool
		want       string
	}{
		{"a.b", "{request}", true, "a_b_total"},
		{"a.b", "{request}", false, "a_b"},
		{"a.b_c", "s", false, "a_b_c_seconds"},
		{"a.b", "s", true, "a_b_seconds_total"},
		{"a.size", "By", false, "a_size_bytes"},
		{"a.bytes", "By", true, "a_bytes_total"},
		{"a.share", "1", false, "a_share_ratio"},
		{"a.events", "1", true, "a_events_total"},
		{"a.total", "", true, "a_total"},
		{"a-b", "", false, "a_b"},
	} {
		assert.Equal(t, tt.want, promName(tt.name, tt.unit, tt.counts), "%v", tt)
	}
}

func TestWhatIsWatchedIsReadAsSamples(t *testing.T) {
	t.Parallel()
	for _, observed := range []bool{true, false} {
		r := newRig(t)
		a := r.Service(ServiceConfig{Name: "a"})
		at := a.Endpoint(EndpointConfig{Scheme: "http", Host: "one"})
		watch, err := r.ObserveServices(func(tell func(*Service, *ServiceState)) {
			tell(r.Unrouted(false), &ServiceState{Requests: []ReasonCount{{N: 1}}})
			tell(a, &ServiceState{Active: -1, Requests: []ReasonCount{{"timeout", 2}}, Retries: []CauseCount{{"timeout", 5}}, Endpoints: []EndpointState{{Endpoint: at, Healthy: true, Active: 7, Pooled: true, Used: 1, Idle: 2, Waits: 3, WaitTime: 1500 * time.Millisecond}}})
		})
		require.NoError(t, err)
		if !observed {
			watch.Stop()
		}
		got := map[string]float64{}
		watch.Read(func(s *Sample) {
			assert.Equal(t, strings.HasSuffix(s.Name, "_total"), s.Counts, s.Name)
			assert.NotEmpty(t, s.Help)
			got[s.Name+" "+strings.Join(s.Labels, " ")] = s.Value
		})
		assert.Equal(t, map[string]float64{
			"gateway_active_requests ": 0, "gateway_requests_total ": 1,
			"gateway_active_requests gateway_service a": -1, "gateway_requests_total gateway_reason timeout gateway_service a": 2,
			"gateway_ejections_total gateway_service a": 0, "gateway_retries_total gateway_retry_cause timeout gateway_service a": 5, "gateway_retry_refused_total gateway_service a": 0,
			"gateway_retry_budget_used gateway_service a": 0, "gateway_retry_budget_limit gateway_service a": 0, "gateway_hedges_total gateway_service a": 0,
			"gateway_endpoint_healthy gateway_service a server_address one server_port 80":                         1,
			"gateway_pool_connections gateway_pool_state used gateway_service a server_address one server_port 80": 1,
			"gateway_pool_connections gateway_pool_state idle gateway_service a server_address one server_port 80": 2,
			"gateway_pool_waiting gateway_service a server_address one server_port 80":                             0,
			"gateway_pool_waits_total gateway_service a server_address one server_port 80":                         3,
			"gateway_pool_wait_time_seconds_total gateway_service a server_address one server_port 80":             1.5,
			"http_client_active_requests server_address one server_port 80":                                        7,
			"http_client_open_connections server_address one server_port 80 http_connection_state active":          1,
			"http_client_open_connections server_address one server_port 80 http_connection_state idle":            2,
		}, got)
	}
}

// What is told of a server is told once, of all who are at it, and does not fall while
// one of them is left.
func TestAServerIsToldOfOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Service(ServiceConfig{Name: "a"}), r.Service(ServiceConfig{Name: "b"})
	one := EndpointConfig{Scheme: "http", Host: "one"}
	atA, atB := a.Endpoint(one), b.Endpoint(one)
	addresses := []EndpointState{{Endpoint: atA, Pooled: true, Waits: 3}, {Endpoint: atA, Pooled: true, Waits: 4}}
	services := map[*Service]*ServiceState{a: {Endpoints: addresses}, b: {Endpoints: []EndpointState{{Endpoint: atB}}}}
	watch, err := r.ObserveServices(func(tell func(*Service, *ServiceState)) {
		for service, state := range services {
			tell(service, state)
		}
	})
	require.NoError(t, err)
	read := func() (attempts, conns, waits float64) {
		watch.Read(func(s *Sample) {
			n := s.Value
			if s.Durations != nil {
				for _, count := range s.Durations.Counts {
					n += float64(count)
				}
			}
			switch s.Name {
			case "http_client_request_duration_seconds":
				attempts += n
			case "http_client_connection_duration_seconds":
				conns += n
			case "gateway_pool_waits_total":
				waits += n
			}
		})
		return attempts, conns, waits
	}
	want := func(attempts, conns, waits float64) {
		t.Helper()
		gotAttempts, gotConns, gotWaits := read()
		assert.Equal(t, []float64{attempts, conns, waits}, []float64{gotAttempts, gotConns, gotWaits})
	}
	for _, e := range []*Endpoint{atA, atB, atB} {
		var c Client
		e.StartClient(t.Context(), &c, "GET", "/", "", 0, Ref{})
		c.Head(200, "HTTP/1.1")
		c.End("", time.Millisecond)
		e.Closed("HTTP/1.1", time.Second)
	}
	want(3, 3, 7)
	atA.Left(4, time.Second)
	services[a].Endpoints = addresses[:1]
	want(3, 3, 7)
	delete(services, b)
	atB.Release()
	want(3, 3, 7)
	atA.Release()
	services[a].Endpoints = []EndpointState{{Endpoint: a.Endpoint(one)}}
	want(0, 0, 0)
}
