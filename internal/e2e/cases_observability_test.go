package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// observabilityCases are section 9: what outsiders can do to records.
func observabilityCases() []attackCase {
	return slices.Concat(cardinalityCases(), logInjectionCases(), sharingCases())
}

// metrics returns all that is recorded, as text.
func (r *rig) metrics() string {
	r.Helper()
	var rm metricdata.ResourceMetrics
	require.NoError(r, r.meter.Collect(context.Background(), &rm))
	text, err := json.Marshal(rm)
	require.NoError(r, err)
	return string(text)
}

// Row 153: what clients and upstreams make up does not make series.
func cardinalityCases() []attackCase {
	return []attackCase{
		{153, "10 000 requests of random methods, paths, hosts, agents and statuses", func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
				status := "200"
				if i := strings.Index(req.Target, "status="); i >= 0 {
					status = req.Target[i+len("status="):][:3]
				}
				return "HTTP/1.1 " + status + " Whatever\r\nContent-Length: 0\r\n\r\n"
			})})
			round := func() {
				for kind := range hostileKinds {
					r.handle(hostileRequest(random, kind))
				}
			}
			round()
			series, reasons, page := r.series(), len(r.gw.Stats().Errors), scrape(t, r.gw)
			for range 10_000/hostileKinds - 1 {
				round()
			}
			assert.Equal(t, series, r.series())
			assert.Len(t, r.gw.Stats().Errors, reasons)
			assert.Len(t, r.gw.Stats().Services, 2)
			assert.ElementsMatch(t, slices.Collect(maps.Keys(page)), slices.Collect(maps.Keys(scrape(t, r.gw))))
			raw := handle(t, r.gw.MetricsHandler(), testnet.Get("/metrics"), nil).body.String()
			assert.NotContains(t, raw, "zz-")
			assert.LessOrEqual(t, len(raw), 64<<10)
			text := r.metrics()
			assert.NotContains(t, text, "zz-", "nothing of the requests is a label")
			assert.Contains(t, text, "_OTHER")
			assert.LessOrEqual(t, len(text), 64<<10)
			rounds := uint64(10_000 / hostileKinds)
			s := r.gw.Stats()
			assert.Equal(t, hostileKinds*rounds, s.Requests)
			assert.Equal(t, map[gateway.Reason]uint64{
				gateway.ReasonMethodNotImplemented: 2 * rounds, gateway.ReasonUnknownService: rounds, gateway.ReasonBadResponse: rounds,
			}, s.Errors)
		}},
		{153, "an unknown service has no route", func(t *testing.T) {
			r := newRig(t, setup{})
			require.Equal(t, 404, r.get("/zz/x").Status)
			r.counted(onlyFailure(gateway.ReasonUnknownService))
			assert.NotContains(t, r.metrics(), "http.route")
			for _, span := range r.spans.GetSpans() {
				assert.Equal(t, "GET", span.Name)
			}
		}},
		{153, "an unknown method is folded", func(t *testing.T) {
			r := newRig(t, setup{a: []gateway.ServiceOption{gateway.WithMethods("ZZ-TOP")}})
			require.Equal(t, 200, r.do(testnet.Build("ZZ-TOP", "/a/x", "")).Status)
			r.counted(noFailure)
			assert.NotContains(t, r.metrics(), "ZZ-TOP")
			assert.Contains(t, r.metrics(), `"_OTHER"`)
		}},
	}
}

// hostileKinds is how many kinds of hostileRequest there are.
const hostileKinds = 8

// hostileRequest makes up a request; whatever is random in it begins with zz-, which no trace id of an exemplar has.
func hostileRequest(random *rand.Rand, kind int) string {
	word := func() string { return fmt.Sprintf("zz-%x", random.Uint64()) }
	method, target := "GET", "/a/"+word()
	switch kind {
	case 0:
		method = strings.ToUpper(word())
	case 1:
		method, target = strings.ToUpper(word()), "/"+word()+"/"+word()
	case 2:
		target = "/" + word() + "/" + word()
	case 3:
		target += fmt.Sprintf("?status=%d", 600+random.IntN(400))
	case 4:
		target += "?" + word() + "=" + word()
	case 5:
		target += "/%e2%80%a8" + word() + "%0a"
	case 6:
		method = "HEAD"
	}
	return testnet.Build(method, target, "", "Host: "+word()+".test", "User-Agent: "+word(), "X-Request-Id: "+word(), word()+": "+word(),
		fmt.Sprintf("Traceparent: 00-%016x%016x-%016x-00", random.Uint64(), random.Uint64()|1, random.Uint64()|1), "Tracestate: zz="+word())
}

// handle has the gateway handle a request, without a server.
func (r *rig) handle(raw string) *recorder {
	r.Helper()
	return handle(r, r.gw, raw, nil)
}

// handle has a handler handle a request, without a server; over TLS if there is
// a state of it.
func handle(t testing.TB, h http.Handler, raw string, secure *tls.ConnectionState) *recorder {
	t.Helper()
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	require.NoError(t, err)
	req.RemoteAddr, req.TLS = "192.0.2.1:1234", secure
	w := &recorder{header: http.Header{}}
	h.ServeHTTP(w, req.WithContext(t.Context()))
	return w
}

// Row 155: whatever is in a request or an answer, the log has one line for it,
// of printable characters, and short.
func logInjectionCases() []attackCase {
	var cases []attackCase
	logged := func(what, request string, status int, reach bool) {
		cases = append(cases, attackCase{155, what, func(t *testing.T) {
			r := newRig(t, setup{})
			resp := r.do(request)
			assert.Equal(t, status, resp.Status)
			assert.Equal(t, reach, r.a.Begun() == 1, "reaches the upstream")
			want := 1
			if status == 400 && !strings.Contains(string(resp.Body), "bad_request") {
				want = 0 // refused by the server
			}
			r.printableLog(want)
		}})
	}
	logged("%0a in the path", testnet.Get("/a/x%0a%7b%22level%22:%22ERROR%22%7d"), 200, true)
	logged("%0d%0a in the path", testnet.Get("/a/x%0d%0aX:%20y"), 200, true)
	logged("%1b[2J in the path", testnet.Get("/a/x%1b%5b2J"), 200, true)
	logged("raw ESC in the path", testnet.Get("/a/x\x1b[2J"), 400, false)
	logged("raw LF in the path", "GET /a/x\ny HTTP/1.1\r\nHost: x\r\n\r\n", 400, false)
	logged("ESC in the user agent", testnet.Get("/a/x", "User-Agent: \x1b[2J"), 400, false)
	logged("U+2028 in the path", testnet.Get("/a/x\u2028y\u2029\u0085"), 200, true)
	logged("%e2%80%a8 in the path", testnet.Get("/a/x%e2%80%a8y"), 200, true)
	logged("U+2028 in the user agent", testnet.Get("/a/x", "User-Agent: x\u2028y"), 200, true)
	logged("bidirectional marks in the path", testnet.Get("/a/\u202egnp.exe"), 200, true)
	logged("bytes that are no text", testnet.Get("/a/\xff\xc0\x80", "User-Agent: \xff", "X-Request-Id: \xff"), 200, true)
	logged("a request id of quotes and braces", testnet.Get("/a/x", `X-Request-Id: "},{"level":"ERROR"`), 200, true)
	logged("a request id of U+2028", testnet.Get("/a/x", "X-Request-Id: x\u2028y"), 200, true)
	logged("a request id of 8 kB", testnet.Get("/a/x", "X-Request-Id: "+strings.Repeat("i", 8000)), 200, true)
	logged("a path of 8 kB", testnet.Get("/a/"+strings.Repeat("p", 8000)), 200, true)
	logged("an unknown service of 8 kB", testnet.Get("/"+strings.Repeat("p", 8000)), 404, false)
	logged("a method of 8 kB", testnet.Build(strings.Repeat("M", 8000), "/a/x", ""), 501, false)
	logged("a user agent of 60 kB", testnet.Get("/a/x", "User-Agent: "+strings.Repeat("u", 60<<10)), 200, true)
	logged("a user agent of 1 MB", testnet.Get("/a/x", "User-Agent: "+strings.Repeat("u", 1_000_000)), 431, false)
	logged("a Host that is none", testnet.Get("/a/x", "Host: x\x1b[2J"), 400, false)
	answered := func(what, answer string) {
		cases = append(cases, attackCase{155, what + " in the answer", func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Replies(answer), defaults: []gateway.Option{gateway.WithoutRetries()}})
			resp := r.get("/a/x")
			assert.Equal(t, 502, resp.Status)
			assert.NotContains(t, string(resp.Raw), "\x1b")
			assert.NotContains(t, string(resp.Raw), "INJECTED")
			r.printableLog(1)
		}})
	}
	answered("ESC for a status line", "\x1b[2J\u2028INJECTED\x00\r\n\r\n")
	answered("ESC for a status", "HTTP/1.1 \x1b[2JINJECTED OK\r\n\r\n")
	answered("ESC for a field name", "HTTP/1.1 200 OK\r\n\x1b[2J\u2028INJECTED: x\r\nContent-Length: 0\r\n\r\n")
	answered("ESC for a length", "HTTP/1.1 200 OK\r\nContent-Length: \x1b[2JINJECTED\r\n\r\n")
	answered("ESC for a coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x1b[2JINJECTED\u2028\r\n\r\n")
	answered("60 kB for a status", "HTTP/1.1 "+strings.Repeat("9", 60<<10)+" OK\r\n\r\n")
	return append(cases, attackCase{155, "a panic of several lines", func(t *testing.T) {
		hook := gateway.WithRewrite(func(*http.Request) { panic("first\nsecond\x1b[2J\u2028" + strings.Repeat("x", 1<<20)) })
		r := newRig(t, setup{a: []gateway.ServiceOption{hook}})
		assert.Equal(t, 500, r.get("/a/x").Status)
		r.counted(onlyFailure(gateway.ReasonPanic))
		r.printableLog(1)
		panics := r.logs.Find(t, "gateway: panic")
		require.Len(t, panics, 1)
		text, _ := panics[0]["exception.message"].(string)
		assert.True(t, printable(text))
		assert.Contains(t, text, "first?second?[2J?xxx")
		assert.LessOrEqual(t, len(text), 1024)
	}})
}

// printableLog waits for so many request lines and checks that each is short,
// and holds nothing that could be mistaken for another, whatever handler writes
// it.
func (r *rig) printableLog(n int) {
	r.Helper()
	testnet.Settle(r, "requests are logged", func() bool { return strings.Count(r.logs.Text(), `"gateway: request"`) >= n })
	lines := r.logs.Find(r, "gateway: request")
	require.Len(r, lines, n)
	for _, line := range lines {
		for key, value := range line {
			if text, ok := value.(string); ok {
				assert.True(r, printable(text), "%s: %q", key, text)
				assert.LessOrEqual(r, len(text), 512, key)
			}
		}
	}
	for _, span := range r.spans.GetSpans() {
		for _, kv := range span.Attributes {
			text := kv.Value.String()
			assert.True(r, utf8.ValidString(text), "%s: %q", kv.Key, text)
			assert.LessOrEqual(r, len(text), 4<<10, string(kv.Key))
		}
	}
	assert.False(r, bytes.ContainsAny([]byte(r.logs.Text()), "\x1b\x00\u2028\u2029"))
}

func printable(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' })
}
