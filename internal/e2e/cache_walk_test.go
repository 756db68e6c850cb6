package e2e_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway/internal/testnet"
)

// A step is one request to the cache of a bubble, and what comes of it.
type step struct {
	wait    time.Duration // before it
	request string        // empty: a GET of /a/x
	status  int           // zero: 200
	body    string        // "-": it does not matter
	cache   string        // Cache-Status behind our name
	asked   int           // requests the upstream has had by then, once nothing moves any more
}

// walk takes one step after the other.
func (b *bubble) walk(steps ...step) {
	b.Helper()
	for n, s := range steps {
		time.Sleep(s.wait)
		if s.request == "" {
			s.request = testnet.Get("/a/x")
		}
		if s.status == 0 {
			s.status = 200
		}
		resp := b.ask(s.request)
		assert.Equal(b, testnet.Whole, resp.End, "step %d", n)
		assert.Equal(b, s.status, resp.Status, "step %d", n)
		assert.Equal(b, "gateway; "+s.cache, resp.Header.Get("Cache-Status"), "step %d", n)
		if s.body != "-" {
			assert.Equal(b, s.body, string(resp.Body), "step %d", n)
		}
		synctest.Wait()
		assert.Equal(b, s.asked, b.up.Begun(), "requests to the upstream by step %d", n)
	}
}

// ask sends one request over a connection of its own.
func (b *bubble) ask(raw string) *testnet.Response {
	b.Helper()
	c := b.dial()
	defer c.Close()
	return c.Do(raw)
}

// get is ask with a GET.
func (b *bubble) get(target string, fields ...string) *testnet.Response {
	b.Helper()
	return b.ask(testnet.Get(target, fields...))
}

// asked returns the last request that the upstream has had.
func (b *bubble) asked() *testnet.Request {
	b.Helper()
	synctest.Wait()
	journal := b.up.Journal()
	if !assert.NotEmpty(b, journal) {
		return &testnet.Request{}
	}
	return journal[len(journal)-1]
}

// bubbled is a case on a clock of its own.
func bubbled(row int, what string, run func(t *testing.T)) attackCase {
	return attackCase{row, what, func(t *testing.T) { synctest.Test(t, run) }}
}

// A page is a resource of an upstream that knows its validators: what is asked
// for on condition is answered with a 304 where that holds, and a range with a
// 206. The test changes it between requests, in a bubble.
type page struct {
	tag    string // of Etag; empty: none
	date   string // of Last-Modified; empty: none
	header string // further fields, of a 304 and a 206 too
	body   string
	down   int // a status to answer with; zero: it is well
	cut    bool
}

// script answers for the page.
func (p *page) script() func(*testnet.Conn) {
	return testnet.Respond(func(r *testnet.Request) string { return p.answer(r) })
}

func (p *page) answer(r *testnet.Request) string {
	switch {
	case p.cut:
		return ""
	case p.down != 0:
		return testnet.Answer(p.down, "Content-Type: text/plain", "down")
	}
	header := p.header
	for _, f := range [][2]string{{"ETag", p.tag}, {"Last-Modified", p.date}} {
		if f[1] != "" {
			header = strings.TrimSuffix(header, "\r\n") + "\r\n" + f[0] + ": " + f[1]
		}
	}
	header = strings.TrimPrefix(header, "\r\n")
	if p.matches(r) {
		return testnet.Answer(304, header, "")
	}
	if from, to, ok := p.span(r); ok {
		return testnet.Answer(206, fmt.Sprintf("%s\r\nContent-Range: bytes %d-%d/%d", header, from, to, len(p.body)), p.body[from:to+1])
	}
	raw := testnet.Answer(200, header, p.body)
	if r.Method == http.MethodHead {
		return strings.TrimSuffix(raw, p.body)
	}
	return raw
}

func (p *page) matches(r *testnet.Request) bool {
	if tags := field(r, "If-None-Match"); tags != "" {
		return p.tag != "" && strings.Contains(tags, strings.TrimPrefix(p.tag, "W/"))
	}
	return p.date != "" && field(r, "If-Modified-Since") == p.date
}

// span reads the forms of Range that the cache and these tests send.
func (p *page) span(r *testnet.Request) (from, to int, ok bool) {
	spec, ok := strings.CutPrefix(field(r, "Range"), "bytes=")
	if cond := field(r, "If-Range"); !ok || cond != "" && cond != p.tag && cond != p.date {
		return 0, 0, false
	}
	first, last, ok := strings.Cut(spec, "-")
	from, err := strconv.Atoi(first)
	if to, _ = strconv.Atoi(last); last == "" || to >= len(p.body) {
		to = len(p.body) - 1
	}
	return from, to, ok && err == nil && from <= to
}
