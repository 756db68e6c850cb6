package telemetry

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTemplate(t *testing.T) {
	tests := []struct {
		pattern, segment, whole string // the template with a service segment, and without
	}{
		{"", "/users/{path...}", "/{path...}"},
		{"/", "/users/{path...}", "/{path...}"},
		{"/api/", "/api/users/{path...}", "/api/{path...}"},
		{"GET /api/", "/api/users/{path...}", "/api/{path...}"},
		{"gw.example/api/", "/api/users/{path...}", "/api/{path...}"},
		{"GET\tgw.example/api/", "/api/users/{path...}", "/api/{path...}"},
		{"/api/{path...}", "/api/users/{path...}", "/api/{path...}"},
		{"/api/{service}/{path...}", "/api/users/{path...}", "/api/{service}/{path...}"},
		{"/api/v1/orders/{id}", "/api/v1/orders/users/{path...}", "/api/v1/orders/{id}"},
		{"/api/{$}", "/api/users/{path...}", "/api/"},
		{"/login", "/login", "/login"},
		{"/api/*", "/api/users/{path...}", "/api/{path...}"},
		{"/users/", "/users/{path...}", "/users/{path...}"},
		{"/users/v1/*", "/users/v1/{path...}", "/users/v1/{path...}"},
		{"/users", "/users", "/users"},
		{"no path at all", "/users/{path...}", "/{path...}"},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.segment, template(tt.pattern, "users", false), "%q", tt.pattern)
		assert.Equal(t, tt.whole, template(tt.pattern, "users", true), "%q", tt.pattern)
	}
}

func TestTheAppMaySayWhereItMounts(t *testing.T) {
	tests := []struct{ mount, segment, whole string }{
		{"/", "/users/{path...}", "/{path...}"},
		{"/api", "/api/users/{path...}", "/api/{path...}"},
		{"/api/", "/api/users/{path...}", "/api/{path...}"},
		{"/{tenant}/api", "/{tenant}/api/users/{path...}", "/{tenant}/api/{path...}"},
	}
	for _, tt := range tests {
		assert.Empty(t, CheckMount(tt.mount))
		for whole, want := range map[bool]string{false: tt.segment, true: tt.whole} {
			r := newRig(t)
			req := httptest.NewRequest(http.MethodGet, "/users/1", nil)
			req.Pattern = "/elsewhere/"
			serve(r.Service(ServiceConfig{Name: "users", Mount: tt.mount, Whole: whole}), req, ServerResult{Status: 200})
			assert.Equal(t, "GET "+want, r.span().Name(), "%q", tt.mount)
		}
	}
	for _, mount := range []string{"", "api", "/a b", "/a?b", "/a#b", "/a*", "/\n", "/é", "/" + strings.Repeat("a", 256)} {
		assert.NotEmpty(t, CheckMount(mount), "%q", mount)
	}
}

func TestRoutesAreBounded(t *testing.T) {
	r := newRig(t)
	s := r.users()
	for i := range 10 * maxRoutes {
		req := httptest.NewRequest(http.MethodGet, "/users/1", nil)
		req.Pattern = fmt.Sprintf("/%d/", i)
		serve(s, req, ServerResult{Status: 200})
	}
	assert.Len(t, *s.routes.m.Load(), maxRoutes)
	assert.Len(t, r.points("http.server.request.duration"), maxRoutes+1)
}

func TestServicesAreSafeForConcurrentUse(t *testing.T) {
	r := newRig(t)
	s := r.users()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				req := httptest.NewRequest(http.MethodGet, "/users/1", nil)
				req.Pattern = fmt.Sprintf("/%d/", (i+j)%3)
				serve(s, req, ServerResult{Status: 200 + j%5})
				attempt(at(s), 200+j%5, "")
			}
		})
	}
	wg.Wait()
	var n uint64
	for _, p := range r.points("http.server.request.duration") {
		n += p.Count
	}
	assert.EqualValues(t, 8*200, n)
	assert.Len(t, *s.routes.m.Load(), 3)
}

func BenchmarkRoute(b *testing.B) {
	r := newRig(b)
	s := r.users()
	s.route("GET /api/")
	b.ReportAllocs()
	for b.Loop() {
		s.route("GET /api/")
	}
}

func TestMountIsPartOfRouteAndPath(t *testing.T) {
	r := newRig(t)
	s := r.users()
	mux := http.NewServeMux()
	mux.Handle("GET /api/", http.StripPrefix("/api", http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		serve(s, req, ServerResult{Status: 200})
	})))
	mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/api/users/a%2Fb?x=1", nil))

	span := attributes(r.span().Attributes())
	assert.Equal(t, "/api/users/{path...}", span["http.route"])
	assert.Equal(t, "/api/users/a%2Fb", span["url.path"])
	assert.Equal(t, "x=1", span["url.query"])
}

// Where a handler is mounted may change. What was counted where it was is told on, and
// goes on if it comes back: a counter must not fall.
func TestWhatWasMountedElsewhereIsToldOn(t *testing.T) {
	r := newRig(t)
	counts := func(s *Service) map[string]uint64 {
		got := map[string]uint64{}
		s.eachRoute(func(at *route) {
			at.series[0].each(teller{durations: func(_ histogram, series *series) {
				for _, n := range series.read().Counts {
					got[at.template] += n
				}
			}}, serverDurations)
		})
		return got
	}
	ask := func(s *Service) {
		serve(s, httptest.NewRequest(http.MethodGet, "/x", nil), ServerResult{Status: 200})
	}
	s := r.Service(ServiceConfig{Name: "users", Mount: "/v1"})
	ask(s)
	for _, mount := range []string{"/v2", "/v1", "/v1", ""} {
		s = r.Resume(s, ServiceConfig{Name: "users", Mount: mount})
		ask(s)
	}
	want := map[string]uint64{"/v1/users/{path...}": 3, "/v2/users/{path...}": 1, "/users/{path...}": 1}
	assert.Equal(t, want, counts(s))

	for i := range 2 * maxRoutes { // is bounded
		s = r.Resume(s, ServiceConfig{Name: "users", Mount: "/many/" + strconv.Itoa(i)})
		ask(s)
	}
	got := counts(s)
	assert.Len(t, got, maxRoutes+1)
	for template, n := range want {
		assert.Equal(t, n, got[template], template)
	}
}
