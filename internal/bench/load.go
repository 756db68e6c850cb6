package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// request is what a load sends, and what it takes for the answer.
type request struct {
	Method, Path string
	BodySize     int    // of the request
	WantSize     int    // of the response
	WantStatus   int    // of a run's responses; 0: 200
	Fields       string // further ones, with their line ends

	Keys  int // a random key of so many as the query; 0: each request a key of its own, First and on
	First int64
	Twice int64 // after so many keys of their own, the same again; 0: never
	Vary  bool  // the key is said by a field instead
}

// key returns that of the nth request.
func (r *request) key(n int64) int64 {
	if r.Keys > 0 {
		return rand.Int64N(int64(r.Keys))
	}
	if r.Twice > 0 {
		n = n/(2*r.Twice)*r.Twice + n%r.Twice
	}
	return r.First + n
}

func (r *request) wantStatus() int {
	if r.WantStatus == 0 {
		return 200
	}
	return r.WantStatus
}

// appendHead appends the head of the request for a key.
func (r *request) appendHead(b []byte, key int64) []byte {
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Path...)
	if !r.Vary {
		if strings.Contains(r.Path, "?") {
			b = append(b, "&k="...)
		} else {
			b = append(b, "?k="...)
		}
		b = strconv.AppendInt(b, key, 10)
	}
	b = append(b, " HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench/1\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n"...)
	b = append(b, r.Fields...)
	if r.Vary {
		b = append(b, "X-Variant: "...)
		b = strconv.AppendInt(b, key, 10)
		b = append(b, "\r\n"...)
	}
	if r.BodySize > 0 {
		b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(r.BodySize), 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

type loadConfig struct {
	Addr string
	request
	InFlight int
	Duration time.Duration // a minute less than they may take, if Requests says how many
	Requests int64
}

type loadResult struct {
	Requests int64
	Elapsed  time.Duration
	P50, P99 time.Duration
}

// The load is a goroutine for each request in flight, on a connection that it
// keeps from one order to the next.
type load struct {
	addr    string
	clients []*loadClient
}

func (l *load) role() role {
	return role{"run": does(l.run), "pace": does(l.pace), "stampede": does(stampede)}
}

// clientsOf returns so many clients of addr.
func (l *load) clientsOf(addr string, n int) []*loadClient {
	if addr != l.addr {
		for _, c := range l.clients {
			c.hangUp()
		}
		l.addr, l.clients = addr, nil
	}
	for len(l.clients) < n {
		l.clients = append(l.clients, &loadClient{addr: addr, in: messages{buf: make([]byte, 128<<10)}})
	}
	return l.clients[:n]
}

// run sends as fast as answers come. All of them must be as wanted.
func (l *load) run(c loadConfig) (result loadResult, err error) {
	var (
		all     sync.WaitGroup
		started atomic.Int64
		clients = l.clientsOf(c.Addr, c.InFlight)
		errs    = make([]error, len(clients))
	)
	for _, client := range clients {
		if err := client.connect(); err != nil {
			return result, err
		}
	}
	content := body(c.BodySize)
	begin := time.Now()
	for i, client := range clients {
		all.Go(func() { errs[i] = client.run(&c, content, begin, &started) })
	}
	all.Wait()
	result.Elapsed = time.Since(begin)
	var took []time.Duration
	for i, client := range clients {
		if errs[i] != nil { // one of them tells enough
			return result, errs[i]
		}
		took = append(took, client.took...)
	}
	if len(took) == 0 {
		return result, errors.New("no request was answered")
	}
	slices.Sort(took)
	result.Requests = int64(len(took))
	result.P50, result.P99 = took[len(took)/2], took[len(took)*99/100]
	return result, nil
}

type loadClient struct {
	addr string
	conn net.Conn // nil: none yet, or not any more
	in   messages
	out  []byte
	took []time.Duration // of the last run
}

func (lc *loadClient) connect() error {
	if lc.conn != nil {
		return nil
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(context.Background(), "tcp", lc.addr)
	if err != nil {
		return err
	}
	lc.conn, lc.in = conn, messages{conn: conn, buf: lc.in.buf}
	return nil
}

func (lc *loadClient) hangUp() {
	if lc.conn != nil {
		_ = lc.conn.Close()
		lc.conn = nil
	}
}

func (lc *loadClient) run(c *loadConfig, content []byte, begin time.Time, started *atomic.Int64) error {
	lc.took = lc.took[:0]
	limit := c.Requests
	if limit == 0 {
		limit = 1 << 62
	}
	if err := lc.conn.SetDeadline(begin.Add(c.Duration + time.Minute)); err != nil {
		return err
	}
	for last := begin; c.Requests > 0 || last.Sub(begin) < c.Duration; {
		n := started.Add(1) - 1
		if n >= limit {
			return nil
		}
		head, err := lc.exchange(&c.request, c.key(n), content)
		if err == nil && (statusOf(head) != c.wantStatus() || lc.in.length != c.WantSize) {
			err = fmt.Errorf("answered %q and %d bytes", head, lc.in.length)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", c.Method, c.Path, err)
		}
		now := time.Now()
		lc.took = append(lc.took, now.Sub(last))
		last = now
	}
	return nil
}

// exchange sends one request and reads its response, whose head it returns.
func (lc *loadClient) exchange(r *request, key int64, content []byte) ([]byte, error) {
	b := r.appendHead(lc.out[:0], key)
	b = append(b, content...)
	lc.out = b
	if _, err := lc.conn.Write(b); err != nil {
		return nil, err
	}
	return lc.in.next()
}

// statusOf reads the status of a response's head; 0: there is none.
func statusOf(head []byte) int {
	if len(head) < 12 {
		return 0
	}
	status, _ := strconv.Atoi(string(head[9:12]))
	return status
}
