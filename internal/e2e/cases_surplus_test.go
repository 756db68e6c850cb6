package e2e_test

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// poison is a response that nobody asked for.
var poison = testnet.Answer(200, storable+"ETag: \"poison\"", "poison")

// Row 69: an upstream that sends more than its response (RFC 9112 §11.2). What
// is there before the next request is written answers nobody and leaves nothing
// behind; the rest cannot be told from an answer, where connections are used
// again.
func surplusCases() []attackCase {
	cases := surplusAtOnceCases()
	return append(cases,
		attackCase{69, "a full second response, in 2,000 pairs", func(t *testing.T) {
			pairs{n: 2000, surplus: poison}.run(t)
		}},
		attackCase{69, "a full second response, 20 µs later", func(t *testing.T) {
			pairs{n: 500, surplus: poison, late: true}.run(t)
		}},
		attackCase{69, "one byte, 20 µs later", func(t *testing.T) { pairs{n: 100, surplus: "\n", late: true}.run(t) }},
		attackCase{69, "a full second response, over TLS", func(t *testing.T) {
			pairs{n: 100, surplus: poison, upstream: testnet.UpstreamTLS}.run(t)
		}},
		attackCase{69, "a full second response, 20 µs later, over TLS", func(t *testing.T) {
			pairs{n: 100, surplus: poison, late: true, upstream: testnet.UpstreamTLS}.run(t)
		}},
		attackCase{69, "without connection reuse, at any time", surplusWithoutReuse},
		attackCase{69, "found later, it takes what the last response stored", surplusFoundByNext},
		attackCase{69, "found later, though nobody comes", surplusFoundBySweep},
		attackCase{69, "found at the end", surplusFoundAtEnd},
	)
}

// surplusAtOnceCases have the surplus in one segment with the response.
func surplusAtOnceCases() []attackCase {
	const chunked = storable + "Transfer-Encoding: chunked"
	sized := func(status int, header, body string) func(string) string {
		return func(target string) string { return testnet.Answer(status, header, body+target) }
	}
	ok := sized(200, storable, "")
	var cases []attackCase
	for _, c := range []struct {
		what, method string
		fields       []string
		answer       func(target string) string
		surplus      string
	}{
		{"one byte", "GET", nil, ok, "x"},
		{"CRLF", "GET", nil, ok, "\r\n"},
		{"half a response", "GET", nil, ok, poison[:40]},
		{"a full second response", "GET", nil, ok, poison},
		{"three more responses", "GET", nil, ok, poison + poison + poison},
		{"a response and a half", "GET", nil, ok, poison + poison[:40]},
		{"an interim response", "GET", nil, ok, testnet.Answer(103, "Link: </poison>", "")},
		{"what nobody knows", "GET", nil, ok, "\x00\xff\x16\x03\x01"},
		{"64 KiB", "GET", nil, ok, strings.Repeat("x", 64<<10)},
		{"a second response, to a POST", "POST", nil, ok, poison},
		{"behind the last chunk", "GET", nil, func(target string) string { return testnet.Answer(200, chunked, testnet.Chunks(target)) }, poison},
		{"a second last chunk", "GET", nil, func(target string) string { return testnet.Answer(200, chunked, testnet.Chunks(target)) }, "0\r\n\r\n"},
		{"behind a trailer section", "GET", nil, func(target string) string {
			return testnet.Answer(200, chunked, strings.TrimSuffix(testnet.Chunks(target), "\r\n")+"X-Sum: 1\r\n\r\n")
		}, poison},
		{"behind no content", "GET", nil, func(string) string { return testnet.Answer(200, storable+"Content-Length: 0", "") }, poison},
		{"behind 200 KiB", "GET", nil, func(target string) string {
			return testnet.Answer(200, storable, target+strings.Repeat("x", 200<<10))
		}, poison},
		{"behind 1 MiB in chunks", "GET", nil, func(target string) string {
			return testnet.Answer(200, chunked, testnet.Chunks(target, strings.Repeat("x", 1<<20)))
		}, poison},
		{"behind an error", "GET", nil, sized(404, storable, ""), poison},
		{"HEAD with a body", "HEAD", nil, func(string) string {
			return testnet.Answer(200, storable+fmt.Sprintf("Content-Length: %d", len(poison)), "")
		}, poison},
		{"HEAD with chunks", "HEAD", nil, func(string) string { return testnet.Answer(200, chunked, "") }, testnet.Chunks(poison)},
		{"204 with a body", "GET", nil, func(string) string { return testnet.Answer(204, storable, "") }, poison},
		{"204 with a length and a body", "GET", nil, func(string) string {
			return testnet.Answer(204, storable+fmt.Sprintf("Content-Length: %d", len(poison)), "")
		}, poison},
		{"304 with a body", "GET", []string{`If-None-Match: "e"`, "Cache-Control: no-store"}, func(string) string {
			return testnet.Answer(304, `ETag: "e"`, "")
		}, poison},
		{"304 with a length and a body", "GET", []string{`If-None-Match: "e"`, "Cache-Control: no-store"}, func(string) string {
			return testnet.Answer(304, `ETag: "e"`+"\r\n"+fmt.Sprintf("Content-Length: %d", len(poison)), "")
		}, poison},
	} {
		cases = append(cases, attackCase{69, c.what, func(t *testing.T) {
			pairs{n: 20, method: c.method, fields: c.fields, answer: c.answer, surplus: c.surplus}.run(t)
		}})
	}
	return cases
}

// pairs are requests for /bad/n, whose answers have a surplus, each followed by
// another client's for /good/n. All targets differ, and contents repeat them.
type pairs struct {
	n        int
	method   string // of the first; empty: GET
	fields   []string
	answer   func(target string) string // to the first; nil: 200, storable
	surplus  string
	late     bool // it comes 20 µs behind the answer
	upstream func(testing.TB, func(*testnet.Conn)) *testnet.Up
	opts     []gateway.ServiceOption
}

func (p pairs) run(t *testing.T) {
	good := func(target string) string { return testnet.Answer(200, storable, target) }
	if p.answer == nil {
		p.answer = good
	}
	if p.method == "" {
		p.method = "GET"
	}
	if p.upstream == nil {
		p.upstream = testnet.Upstream
	}
	sent := make(chan struct{}, 1) // a token for each surplus that is on its way
	up := p.upstream(t, func(c *testnet.Conn) {
		for req := c.ReadRequest(); req != nil; req = c.ReadRequest() {
			switch answer := p.answer(req.Target); {
			case !strings.HasPrefix(req.Target, "/bad/"):
				c.Send(good(req.Target))
			case p.late:
				c.Send(answer)
				for start := time.Now(); time.Since(start) < 20*time.Microsecond; {
				}
				c.Send(p.surplus)
				sent <- struct{}{}
			default:
				c.Send(answer + p.surplus)
				sent <- struct{}{}
			}
		}
	})
	if up.Pool != nil {
		p.opts = append(p.opts, gateway.WithTLSConfig(&tls.Config{RootCAs: up.Pool, MinVersion: tls.VersionTLS12}))
	}
	r := newRig(t, setup{up: up, a: p.opts})
	p.ask(t, r, sent)
}

func (p pairs) ask(t *testing.T, r *rig, sent <-chan struct{}) {
	first, second := testnet.Dial(t, r.addr), testnet.Dial(t, r.addr)
	for n := range p.n {
		bad, good := fmt.Sprintf("/bad/%d", n), fmt.Sprintf("/good/%d", n)
		resp := first.Do(testnet.Build(p.method, "/a"+bad, "", p.fields...))
		require.Equal(t, testnet.Whole, resp.End, "%s: %v", bad, resp.Err)
		require.True(t, len(resp.Body) == 0 || strings.HasPrefix(string(resp.Body), bad), "%s: %.100q", bad, resp.Body)
		require.True(t, receive(sent))
		resp = second.Do(testnet.Get("/a" + good))
		require.Equal(t, 200, resp.Status)
		require.Equal(t, good, string(resp.Body))
		require.Contains(t, resp.Header.Get("Cache-Status"), "stored")
	}
	first.Close()
	second.Close()
	assert.EqualValues(t, p.n, r.surplus(), "each of them took its connection along")
	assert.Equal(t, p.n+1, r.a.Conns())
	assert.EqualValues(t, p.n, r.cache.Stats().Entries, "the good ones")
	for n := range min(p.n, 20) {
		resp := r.get(fmt.Sprintf("/a/good/%d", n))
		assert.Contains(t, resp.Header.Get("Cache-Status"), "; hit")
		assert.Equal(t, fmt.Sprintf("/good/%d", n), string(resp.Body))
	}
	for _, c := range []*testnet.Client{first, second} {
		assert.NotContains(t, string(c.Received()), "poison")
	}
	r.counted(noFailure)
}

// surplus is how many connections of a were dropped for bytes that nobody asked
// for.
func (r *rig) surplus() uint64 {
	return r.gw.Stats().Services["a"].Replicas[0].Conns.Discards["surplus"]
}

// surplusWithoutReuse has the surplus come at once, a moment later, and when it
// may.
func surplusWithoutReuse(t *testing.T) {
	const n = 600
	r := newRig(t, setup{a: []gateway.ServiceOption{gateway.WithoutConnReuse()}, script: func(c *testnet.Conn) {
		req := c.ReadRequest()
		if req == nil {
			return
		}
		answer := testnet.Answer(200, storable, req.Target)
		switch c.ID % 3 {
		case 0:
			c.Send(answer + poison)
		case 1:
			c.Send(answer)
			for start := time.Now(); time.Since(start) < 20*time.Microsecond; {
			}
			c.Send(poison)
		case 2:
			c.Send(answer)
			for c.Send(poison) {
			}
		}
	}})
	clients := []*testnet.Client{testnet.Dial(t, r.addr), testnet.Dial(t, r.addr)}
	for i := range n {
		target := fmt.Sprintf("/%d", i)
		resp := clients[i%2].Do(testnet.Get("/a" + target))
		require.Equal(t, 200, resp.Status)
		require.Equal(t, target, string(resp.Body))
	}
	for _, c := range clients {
		c.Close()
		assert.NotContains(t, string(c.Received()), "poison")
	}
	assert.Equal(t, n, r.a.Conns(), "a connection for each")
	for _, req := range r.a.Journal() {
		require.Equal(t, "close", field(req, "Connection"))
	}
	for i := range 30 {
		target := fmt.Sprintf("/%d", i)
		assert.Equal(t, target, string(r.get("/a"+target).Body), "whether it was stored or not")
	}
	r.counted(noFailure)
}

// afterwards is a rig whose upstream sends a surplus on its first connection
// when it is told to. What is asked for is stored before.
func afterwards(t *testing.T, opts ...gateway.ServiceOption) (r *rig, send func()) {
	now, sent := make(chan struct{}), make(chan struct{})
	r = newRig(t, setup{a: opts, script: func(c *testnet.Conn) {
		for req := c.ReadRequest(); req != nil; req = c.ReadRequest() {
			c.Send(testnet.Answer(200, storable, req.Target))
			if req.Target == "/last" && c.ID == 0 {
				receive(now)
				c.Send(poison)
				close(sent)
			}
		}
	}})
	for n, target := range []string{"/first", "/last"} {
		assert.Equal(t, target, string(r.get("/a"+target).Body))
		assert.EqualValues(t, n+1, r.cache.Stats().Entries)
	}
	require.Equal(t, 1, r.a.Conns())
	assert.Contains(t, r.get("/a/last").Header.Get("Cache-Status"), "; hit")
	return r, func() {
		close(now)
		require.True(t, receive(sent))
	}
}

// forgotten checks that the connection's last response is gone, and that alone.
func (r *rig) forgotten() {
	r.Helper()
	assert.EqualValues(r, 1, r.surplus())
	hit := r.get("/a/first")
	assert.Contains(r, hit.Header.Get("Cache-Status"), "; hit", "what came before it was well framed")
	again := r.get("/a/last")
	assert.Equal(r, "/last", string(again.Body))
	assert.Equal(r, "gateway; fwd=uri-miss; stored", again.Header.Get("Cache-Status"))
	assert.Contains(r, r.get("/a/last").Header.Get("Cache-Status"), "; hit")
	assert.NotContains(r, string(r.clients), "poison")
	r.counted(noFailure)
}

func surplusFoundByNext(t *testing.T) {
	r, send := afterwards(t, gateway.WithConnIdleTimeout(0), gateway.WithMaxConnAge(0))
	send()
	assert.Equal(t, "/next", string(r.get("/a/next").Body), "not what was not asked for")
	assert.Equal(t, 2, r.a.Conns())
	assert.EqualValues(t, 2, r.cache.Stats().Entries, "the first, and the next")
	r.forgotten()
}

func surplusFoundBySweep(t *testing.T) {
	r, send := afterwards(t, gateway.WithConnIdleTimeout(time.Minute))
	send()
	testnet.Settle(t, "it is found", func() bool { return r.surplus() == 1 })
	testnet.Settle(t, "what it came with is gone", func() bool { return r.cache.Stats().Entries == 1 })
	assert.Equal(t, 1, r.a.Conns(), "without any request")
	r.forgotten()
}

func surplusFoundAtEnd(t *testing.T) {
	r, send := afterwards(t)
	send()
	require.NoError(t, r.gw.Shutdown(t.Context()))
	assert.EqualValues(t, 1, r.surplus())
	assert.EqualValues(t, 1, r.cache.Stats().Entries, "a cache may outlive a gateway")
}
