package e2e_test

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// seriesFormula are the numbers of the README's formula, in their order.
func seriesFormula(t *testing.T) []int {
	t.Helper()
	_, text, ok := strings.Cut(readme(t), "\n    16 × services")
	require.True(t, ok)
	text, _, _ = strings.Cut("16 × services"+text, "\n\n")
	var numbers []int
	for _, n := range regexp.MustCompile(`\d+`).FindAllString(text, -1) {
		v, err := strconv.Atoi(n)
		require.NoError(t, err)
		numbers = append(numbers, v)
	}
	require.Len(t, numbers, 15)
	return numbers
}

// fills is traffic that makes every series that there may be: each route and each
// server has more outcomes than it keeps, each method and scheme was there, and a
// connection to each server has ended.
type fills struct {
	*testing.T
	gw *gateway.Gateway
}

func (f fills) ask(h http.Handler, method, target, pattern string, proto int, secure, inside bool) int {
	r := parsed(f, testnet.Get(target))
	r.Method, r.Pattern, r.ProtoMajor, r.ProtoMinor = method, pattern, proto/10, proto%10
	if secure {
		r.TLS = new(tls.ConnectionState)
	}
	if inside {
		r = r.WithContext(trace.ContextWithSpanContext(r.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})))
	}
	w := &recorder{header: http.Header{}}
	h.ServeHTTP(w, r)
	return w.status
}

// outcomes are more than a route keeps. They are odd, so that servers that take
// turns have all of them.
const outcomes = 101

func (f fills) all() {
	for _, inside := range []bool{false, true} {
		for status := 200; status < 200+outcomes; status++ {
			for _, service := range []string{"a", "b"} {
				for _, pattern := range []string{"/", "/v2/"} {
					for range 2 {
						assert.Equal(f, status, f.ask(f.gw, "GET", fmt.Sprintf("/%s/%d", service, status), pattern, 11, false, inside))
					}
				}
			}
			assert.Equal(f, status, f.ask(f.gw.Upstream("a"), "GET", fmt.Sprintf("/%d", status), "/files/", 11, false, inside))
		}
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"} {
			for _, proto := range []int{9, 10, 11, 20, 30} {
				for _, secure := range []bool{false, true} {
					want := 404
					if method == "QUERY" { // no service has asked for it
						want = 501
					}
					assert.Equal(f, want, f.ask(f.gw, method, "/nowhere/x", "/", proto, secure, inside))
				}
			}
		}
	}
	for _, method := range []string{"CONNECT", "TRACE", "BREW"} {
		for _, secure := range []bool{false, true} {
			f.ask(f.gw, method, "/a/x", "/", 11, secure, false)
		}
	}
}

// The page has as many series as the README's formula says, once there is everything
// that there may be, and no request makes one more.
func TestReadmeGivesTheFormulaOfSeries(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request) {
		var status int
		_, _ = fmt.Sscanf(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/'):], "/%d", &status)
		if status == 299 {
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(status)
	}
	up, _ := server(t, "", answer)
	rt := roundTripper(func(r *http.Request) (*http.Response, error) {
		w := &recorder{header: http.Header{}}
		answer(w, r)
		return &http.Response{StatusCode: w.status, Proto: "HTTP/1.1", Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	})
	var caches [2]*gateway.Cache
	for i := range caches {
		var err error
		caches[i], err = gateway.NewCache()
		require.NoError(t, err)
		defer func() { assert.NoError(t, caches[i].Shutdown(t.Context())) }()
	}
	o := newObserved(t)
	gw := o.gateway(
		gateway.WithService("a", up.URL, gateway.WithMaxConcurrency(10, 0, 0), gateway.WithCache(caches[0])),
		gateway.WithService("b", "http://b.test", gateway.WithReplicas(gateway.Replica{URL: "http://c.test:81"}), gateway.WithoutBreaker(),
			gateway.WithTransport(rt), gateway.WithBalancing(gateway.RoundRobin()), gateway.WithCache(caches[1])))
	f := fills{t, gw}
	f.all()
	testnet.Settle(t, "a connection has ended", func() bool {
		return slices.ContainsFunc(slices.Collect(maps.Keys(scrape(t, gw))), func(s string) bool { return strings.HasPrefix(s, "http_client_connection_duration_seconds_count") })
	})

	n := seriesFormula(t)
	reasons := 0
	for _, service := range gw.Stats().Services {
		for _, count := range service.Errors {
			if count > 0 {
				reasons++
			}
		}
	}
	require.Positive(t, reasons)
	const services, breakers, queues, reasonsForNone, routes = 2, 1, 1, 2, 5 // two patterns by two services, and one that is mounted by itself
	const hosts, of, transports = 3, 1, 2                                    // of two the transport's
	want := n[0]*services + n[1]*breakers + n[2]*queues + n[3]*of + n[4]*transports + reasons +
		n[5] + reasonsForNone + n[6] + n[7] +
		n[8]*of + n[9]*transports + n[10]*hosts + n[11] +
		2*(n[12]*(routes+n[13])+n[14])
	histograms := map[string]bool{}
	count := func() (series, lines int) {
		page := scrape(t, gw)
		for line := range page {
			name, _, _ := strings.Cut(line, "{")
			switch {
			case strings.HasSuffix(name, "_bucket"), strings.HasSuffix(name, "_sum"):
			default:
				series++
			}
			if family, ok := strings.CutSuffix(name, "_count"); ok {
				histograms[family] = true
			}
		}
		return series, len(page)
	}
	series, lines := count()
	assert.Equal(t, want, series)
	assert.Len(t, histograms, 5, "all of them")
	own := services + 1
	assert.Equal(t, series+16*(n[10]*hosts+n[11]+2*(n[12]*(routes+n[13])+n[14])+of)+18*own, lines, "of a histogram 17, of the own part 19")

	f.all()
	f.ask(gw, "POST", "/b/404", "/", 20, true, false)
	again, _ := count()
	assert.Equal(t, series, again)
}
