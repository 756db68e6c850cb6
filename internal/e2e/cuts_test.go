package e2e_test

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// A cutExchange is a request and its answer, which one side ends at every byte.
type cutExchange struct {
	name     string
	method   string
	fields   []string
	body     string // of the request; with fields that frame it, as it is on the wire
	response string // with %s for more fields of its header
	content  string
	open     bool // the response's end is that of the connection
}

var cutExchanges = []cutExchange{
	{name: "length", method: "GET", response: "HTTP/1.1 200 OK\r\n%sContent-Length: 10\r\n\r\n0123456789", content: "0123456789"},
	{name: "chunks", method: "GET", response: "HTTP/1.1 200 OK\r\n%sTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5;x=y\r\n56789\r\n0\r\n\r\n", content: "0123456789"},
	{name: "trailers", method: "GET", response: "HTTP/1.1 200 OK\r\n%sTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n", content: "0123456789"},
	{name: "no length", method: "GET", response: "HTTP/1.1 200 OK\r\n%sX: y\r\n\r\n0123456789", content: "0123456789", open: true},
	{name: "HEAD", method: "HEAD", response: "HTTP/1.1 200 OK\r\n%sContent-Length: 10\r\n\r\n"},
	{name: "204", method: "GET", response: "HTTP/1.1 204 No Content\r\n%sX: y\r\n\r\n"},
	{name: "304", method: "GET", fields: []string{`If-None-Match: "v"`}, response: "HTTP/1.1 304 Not Modified\r\n%sETag: \"v\"\r\n\r\n"},
	{name: "1xx", method: "GET", response: "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n%sContent-Length: 2\r\n\r\nok", content: "ok"},
	{name: "PUT", method: "PUT", body: "body", response: "HTTP/1.1 200 OK\r\n%sContent-Length: 2\r\n\r\nok", content: "ok"},
	{name: "POST", method: "POST", body: "body", response: "HTTP/1.1 200 OK\r\n%sContent-Length: 2\r\n\r\nok", content: "ok"},
	{name: "POST of chunks", method: "POST", fields: []string{"Transfer-Encoding: chunked"}, body: "4\r\nbody\r\n0\r\n\r\n", response: "HTTP/1.1 201 Created\r\n%sTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", content: "ok"},
	{name: "POST with trailers", method: "POST", fields: []string{"Transfer-Encoding: chunked", "Trailer: X-Sum"}, body: "4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n", response: "HTTP/1.1 200 OK\r\n%sContent-Length: 2\r\n\r\nok", content: "ok"},
	{name: "a long POST", method: "POST", body: strings.Repeat("b", 20<<10), response: "HTTP/1.1 200 OK\r\n%sContent-Length: 2\r\n\r\nok", content: "ok"},
	{name: "an upgrade", method: "GET", fields: []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, response: "HTTP/1.1 101 Switching Protocols\r\n%sConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
}

func (e *cutExchange) status(t testing.TB) int {
	head := e.response
	if _, final, ok := strings.Cut(head, "Continue\r\n\r\n"); ok {
		head = final
	}
	status, err := strconv.Atoi(strings.Fields(head)[1])
	assert.NoError(t, err)
	return status
}

// cutter is an upstream that sends so much of a response as the request's path
// says, and ends the connection in the way that this says; and it counts requests.
type cutter struct {
	fields string // in each response
	mu     sync.Mutex
	seen   map[string]int
}

func (u *cutter) times(path string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.seen[path]
}

func (u *cutter) serve(c *testnet.Conn) {
	for r := c.ReadRequest(); r != nil; r = c.ReadRequest() {
		part := strings.Split(r.Target, "/") // "", exchange, length, end
		if len(part) != 4 {
			c.Send(testnet.Answer(200, "", "well"))
			continue
		}
		u.mu.Lock()
		u.seen[r.Target]++
		u.mu.Unlock()
		n, _ := strconv.Atoi(part[1])
		raw := fmt.Sprintf(cutExchanges[n].response, u.fields)
		if r.Header["X-Whole"] != nil {
			c.Send(raw)
			if cutExchanges[n].open {
				return
			}
			continue
		}
		size, _ := strconv.Atoi(part[2])
		c.Send(raw[:min(size, len(raw))])
		if part[3] == "reset" {
			c.Reset()
		}
		return
	}
}

// Whatever byte of its answer a service's connection ends behind: what has broken
// off is nobody's whole answer, nor the cache's, and what may have been processed
// is not sent again unless it may be.
func TestAnswersThatBreakOffAnywhere(t *testing.T) {
	for name, tt := range map[string]struct {
		fields string
		opts   []gateway.ServiceOption
	}{
		"plain":  {"", []gateway.ServiceOption{gateway.WithRetries(1)}},
		"cached": {"Cache-Control: max-age=600\r\n", []gateway.ServiceOption{gateway.WithRetries(0)}},
		"hedged": {"", []gateway.ServiceOption{gateway.WithHedge(time.Hour), gateway.WithRetries(0)}},
	} {
		t.Run(name, func(t *testing.T) {
			u := &cutter{fields: tt.fields, seen: make(map[string]int)}
			r := newRig(t, setup{
				script: u.serve, noCache: tt.fields == "",
				a: append(tt.opts, gateway.WithRetryBackoff(time.Microsecond, time.Microsecond), gateway.WithRetryBudget(1, 1e6), gateway.WithoutEjection(), gateway.WithoutConnReuse(), gateway.WithTimeout(5*time.Second)),
			})
			var all sync.WaitGroup
			for n, e := range cutExchanges {
				if e.name == "304" && name == "cached" {
					continue // which the cache does not ask for
				}
				all.Go(func() { u.cutAll(t, r.addr, n, name) })
			}
			all.Wait()
			testnet.Settle(t, "nothing is left", func() bool {
				s := r.gw.Upstream("a").Stats()
				return s.InFlight == 0 && s.Replicas[0].InFlight == 0 && s.Replicas[0].Conns.InUse == 0
			})
		})
	}
}

// cutAll has an exchange end behind each byte of its answer.
func (u *cutter) cutAll(t *testing.T, addr string, n int, mode string) {
	e := &cutExchanges[n]
	raw := fmt.Sprintf(e.response, u.fields)
	c := testnet.Dial(t, addr)
	defer func() { c.Close() }()
	step := 1
	if mode != "plain" {
		step = 3
	}
	for i := 0; i < 2*(len(raw)+1); i += step {
		size, end := i/2, []string{"close", "reset"}[i%2]
		path := fmt.Sprintf("/%d/%d/%s", n, size, end)
		what := fmt.Sprintf("%s, %d of %d bytes, %s", e.name, size, len(raw), end)
		resp := c.Do(testnet.Build(e.method, "/a"+path, e.body, e.fields...))
		e.check(t, what, resp, size == len(raw), end)
		once := e.method == "POST" || resp.Interim != nil || mode == "cached"
		if seen := u.times(path); seen > 2 || once && seen > 1 {
			t.Errorf("%s: it was sent %d times", what, seen)
		}
		if mode == "cached" && e.method == "GET" && e.status(t) == 200 {
			c.Close()
			c = testnet.Dial(t, addr)
			again := c.Do(testnet.Build(e.method, "/a"+path, e.body, append(e.fields, "X-Whole: 1")...))
			assert.Equal(t, e.content, string(again.Body), "%s, asked again", what)
			assert.Equal(t, testnet.Whole, again.End)
		}
		if resp.End != testnet.Whole || resp.Status == 101 || strings.EqualFold(resp.Header.Get("Connection"), "close") {
			c.Close()
			c = testnet.Dial(t, addr)
		}
	}
}

// check judges what a client got of an answer of which all was sent, or not.
func (e *cutExchange) check(t *testing.T, what string, resp *testnet.Response, all bool, end string) {
	t.Helper()
	good := resp.Status == e.status(t) && resp.End == testnet.Whole
	switch {
	case good && all:
		assert.Equal(t, e.content, string(resp.Body), what)
	case good && e.open && end == "close":
		assert.True(t, strings.HasPrefix(e.content, string(resp.Body)), what)
	case good:
		t.Errorf("%s: is whole: %d %q", what, resp.Status, resp.Body)
	case all && end == "close":
		t.Errorf("%s: is not whole: %d %s %q", what, resp.Status, resp.End, resp.Body)
	case resp.Status == 502 && resp.End == testnet.Whole && e.method == "HEAD":
	case resp.Status == 502 && resp.End == testnet.Whole:
		assert.Regexp(t, "upstream_failed|truncated|bad_response", string(resp.Body), what)
	case resp.Status != 0 && resp.Status != e.status(t):
		t.Errorf("%s: %d %s %q", what, resp.Status, resp.End, resp.Body)
	}
}

// Whatever byte of its request a client leaves behind: the service is never told
// that it was all, and nothing is left of it.
func TestRequestsThatBreakOffAnywhere(t *testing.T) {
	script := func(c *testnet.Conn) {
		for r := c.ReadHead(); r != nil; r = c.ReadHead() {
			early := strings.HasSuffix(r.Target, "early")
			if early && !c.Send(testnet.Answer(200, "", "ok")) {
				return
			}
			if _, err := io.Copy(io.Discard, r); err != nil || !early && !c.Send(testnet.Answer(200, "Cache-Control: max-age=60\r\n", "ok")) {
				return
			}
		}
	}
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, setup{way: w, a: []gateway.ServiceOption{gateway.WithRetries(1), quickRetries, gateway.WithoutEjection()}, script: script})
		r.broken = true
		cut := make(map[string]bool) // targets
		var all sync.WaitGroup
		for n, e := range cutExchanges {
			if e.body == "" && n > 0 {
				continue
			}
			for _, end := range []string{"close-late", "reset-late", "shut--late", "close-early", "reset-early"} {
				request := func(sent int) (target, raw string) {
					target = fmt.Sprintf("/%02d-%05d-%s", n, sent, end)
					return target, testnet.Build(e.method, "/a"+target, e.body, e.fields...)
				}
				_, raw := request(0)
				step := max(len(raw)/150, 1)
				for sent := 0; sent < len(raw); sent += step {
					target, _ := request(sent)
					cut[target] = true
				}
				all.Go(func() {
					for sent := 0; sent < len(raw); sent += step {
						_, raw := request(sent)
						r.leaveAfter(raw[:sent], end)
					}
				})
			}
		}
		all.Wait()
		testnet.Settle(t, "nothing is left", func() bool {
			s := r.gw.Upstream("a").Stats()
			return s.InFlight == 0 && s.Replicas[0].InFlight == 0 && s.Replicas[0].Conns.InUse == 0
		})
		for _, req := range r.a.Journal() {
			assert.False(t, cut[req.Target], "%s came whole", req.Target)
		}
		for reason := range r.gw.Stats().Errors {
			assert.Contains(t, []gateway.Reason{gateway.ReasonClientBody, gateway.ReasonClientClosed}, reason)
		}
	})
}

// leaveAfter sends the beginning of a request, and leaves.
func (r *rig) leaveAfter(part, end string) {
	c := testnet.Dial(r, r.addr)
	defer c.Close()
	c.Send(part)
	switch end[:5] {
	case "reset":
		c.Reset()
	case "shut-":
		c.CloseWrite()
		_, _ = c.ReadRest()
	}
}

// Whatever byte of a request a service's connection ends behind, a request that it
// may have processed is not sent again.
func TestServicesThatLeaveWithinARequest(t *testing.T) {
	type cut struct {
		size int
		end  string
	}
	var mu sync.Mutex
	var now cut
	heard := 0 // connections over which something came
	r := newRig(t, setup{noCache: true, a: []gateway.ServiceOption{gateway.WithRetries(2), quickRetries, gateway.WithRetryBudget(1, 1e6), gateway.WithoutEjection(), gateway.WithTimeout(5 * time.Second)}, script: func(c *testnet.Conn) {
		mu.Lock()
		cut := now
		mu.Unlock()
		if cut.size == 0 { // a health probe
			_ = c.ReadRequest()
			c.Send(testnet.Answer(200, "", "well"))
			return
		}
		if c.ReadN(cut.size) != "" {
			mu.Lock()
			heard++
			mu.Unlock()
		}
		if cut.end == "reset" {
			c.Reset()
		}
	}})
	r.broken = true
	for _, e := range cutExchanges {
		if e.method != "POST" {
			continue
		}
		raw := testnet.Build(e.method, "/a/x", e.body, e.fields...)
		for size := 1; size < len(raw); size += max(len(raw)/40, 1) {
			for _, end := range []string{"close", "reset"} {
				mu.Lock()
				now, heard = cut{size, end}, 0
				mu.Unlock()
				resp := r.do(raw)
				assert.Equal(t, 502, resp.Status, "%s, %d bytes, %s: %s", e.name, size, end, resp.Body)
				mu.Lock()
				assert.LessOrEqual(t, heard, 1, "%s, %d bytes, %s", e.name, size, end)
				mu.Unlock()
			}
		}
	}
	mu.Lock()
	now = cut{}
	mu.Unlock()
}
