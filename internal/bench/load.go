package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

type loadConfig struct {
	Addr, Method, Path string
	BodySize           int // of the request
	WantSize           int // of the response
	InFlight           int
	Duration           time.Duration // unless Requests says how many
	Requests           int64

	Keys  int // a random key of so many as the query; 0: each request a key of its own, First and on
	First int64

	body []byte
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

func (l *load) obey(o order) (answer, error) {
	if o.Do != "run" {
		return answer{}, fmt.Errorf("no such order: %q", o.Do)
	}
	o.Load.body = body(o.Load.BodySize)
	if err := l.connect(o.Load.Addr, o.Load.InFlight); err != nil {
		return answer{}, err
	}
	result, err := l.run(o.Load)
	return answer{Load: result}, err
}

func (l *load) connect(addr string, inFlight int) error {
	if addr != l.addr {
		for _, c := range l.clients {
			c.conn.Close()
		}
		l.addr, l.clients = addr, nil
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	for len(l.clients) < inFlight {
		conn, err := dialer.DialContext(context.Background(), "tcp", addr)
		if err != nil {
			return err
		}
		l.clients = append(l.clients, &loadClient{conn: conn, in: newMessages(conn)})
	}
	return nil
}

func (l *load) run(c *loadConfig) (*loadResult, error) {
	var (
		all     sync.WaitGroup
		started atomic.Int64
		clients = l.clients[:c.InFlight]
		errs    = make([]error, len(clients))
		begin   = time.Now()
	)
	for i, client := range clients {
		all.Go(func() { errs[i] = client.run(c, begin, &started) })
	}
	all.Wait()
	result := &loadResult{Elapsed: time.Since(begin)}
	var took []time.Duration
	for _, client := range clients {
		took = append(took, client.took...)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.Sort(took)
	result.Requests = int64(len(took))
	if len(took) == 0 {
		return nil, errors.New("no request was answered")
	}
	result.P50, result.P99 = took[len(took)/2], took[len(took)*99/100]
	return result, nil
}

type loadClient struct {
	conn net.Conn
	in   *messages
	out  []byte
	took []time.Duration // of the last run
}

func (lc *loadClient) run(c *loadConfig, begin time.Time, started *atomic.Int64) error {
	lc.took = lc.took[:0]
	limit := c.Requests
	if limit == 0 {
		limit = 1 << 62
	}
	if err := lc.conn.SetDeadline(begin.Add(c.Duration + time.Minute)); err != nil {
		return err
	}
	query := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	for last := begin; c.Requests > 0 || last.Sub(begin) < c.Duration; {
		n := started.Add(1) - 1
		if n >= limit {
			return nil
		}
		key := c.First + n
		if c.Keys > 0 {
			key = query.Int64N(int64(c.Keys))
		}
		if err := lc.exchange(c, key); err != nil {
			return fmt.Errorf("%s %s: %w", c.Method, c.Path, err)
		}
		now := time.Now()
		lc.took = append(lc.took, now.Sub(last))
		last = now
	}
	return nil
}

// exchange sends one request and reads its response.
func (lc *loadClient) exchange(c *loadConfig, key int64) error {
	b := append(lc.out[:0], c.Method...)
	b = append(b, ' ')
	b = append(b, c.Path...)
	b = append(b, "?k="...)
	b = strconv.AppendInt(b, key, 10)
	b = append(b, " HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench/1\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n"...)
	if c.BodySize > 0 {
		b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(c.BodySize), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	b = append(b, c.body...)
	lc.out = b
	if _, err := lc.conn.Write(b); err != nil {
		return err
	}
	head, err := lc.in.next()
	if err != nil {
		return err
	}
	if len(head) < 12 || string(head[9:12]) != "200" || lc.in.length != c.WantSize {
		return fmt.Errorf("answered %q and %d bytes", head, lc.in.length)
	}
	return nil
}
