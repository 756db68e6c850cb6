package telemetry

import (
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// What is read is, bucket by bucket, what OpenTelemetry has.
func TestDurationsAreCountedAsOpenTelemetryDoes(t *testing.T) {
	r := newRig(t)
	s := r.users()
	e := at(s)
	watch, err := r.ObserveServices(func(tell func(*Service, *ServiceState)) {
		tell(s, &ServiceState{Endpoints: []EndpointState{{Endpoint: e}}})
	})
	require.NoError(t, err)
	all := []time.Duration{-1, 0, 1, math.MaxInt64 / 100}
	for _, b := range slices.Concat(bounds, ownBounds) {
		all = append(all, b-1, b, b+1)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		all = append(all, time.Duration(math.Exp(18+3*random.NormFloat64())))
	}
	for i, d := range all {
		serve(s, httptest.NewRequest(http.MethodGet, "/users/1", nil), ServerResult{Status: 200 + i%2*300, Duration: d, Own: d})
		var c Client
		e.StartClient(t.Context(), &c, http.MethodGet, "/1", "", 0, Ref{})
		c.Head(200, "HTTP/1.1")
		c.End("", d)
	}
	got := map[string][]*Durations{}
	watch.Read(func(s *Sample) {
		if s.Durations != nil {
			got[s.Name] = append(got[s.Name], s.Durations)
		}
	})
	require.Len(t, got, 3)
	for name, series := range map[string]int{"http.server.request.duration": 2, "http.client.request.duration": 1, "gateway.request.own.duration": 1} {
		points := r.points(name)
		require.Len(t, points, series)
		durations := got[promName(name, "s", false)]
		require.Len(t, durations, series)
		for _, d := range durations {
			assert.Truef(t, slices.ContainsFunc(points, func(p metricdata.HistogramDataPoint[float64]) bool {
				return assert.ObjectsAreEqual(p.Bounds, d.Bounds) && assert.ObjectsAreEqual(p.BucketCounts, d.Counts) && math.Abs(p.Sum-d.Sum) < 1e-6*d.Sum+1e-6
			}), "%s: %v is none of %v", name, d, points)
		}
	}
}

// Beyond the bound one series takes all, as in OpenTelemetry's SDK.
func TestSeriesBeyondTheBoundAreReadAsOne(t *testing.T) {
	r := newRig(t)
	s := r.users()
	watch, err := r.ObserveServices(func(tell func(*Service, *ServiceState)) { tell(s, &ServiceState{}) })
	require.NoError(t, err)
	for i := range 2 * maxSeries {
		serve(s, httptest.NewRequest(http.MethodGet, "/users/1", nil), ServerResult{Status: 500, ErrorType: strings.Repeat("e", i+1), Duration: time.Second})
	}
	var series int
	var beyond, all uint64
	watch.Read(func(s *Sample) {
		if s.Name != "http_server_request_duration_seconds" {
			return
		}
		series++
		all += s.Durations.Counts[9]
		if assert.ObjectsAreEqual(s.Labels, []string{"otel_metric_overflow", "true"}) {
			beyond += s.Durations.Counts[9]
		}
	})
	assert.Equal(t, maxSeries+1, series)
	assert.EqualValues(t, maxSeries, beyond)
	assert.EqualValues(t, 2*maxSeries, all)
}
