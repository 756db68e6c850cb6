package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

const (
	leftOver   = 5               // goroutines and descriptors more than before
	cutTimeout = 2 * time.Second // of a request, and of a body that stands still
	cutGrace   = cutTimeout + 500*time.Millisecond
)

// checkDisconnects has clients leave at any byte, and looks for what stays
// behind. -n: other than 10,000 times.
func checkDisconnects(ctx context.Context, s settings) error {
	r, err := newRig(ctx, candidateConfig{Kind: "gateway", Conns: 10_000, Timeout: cutTimeout, BodyIdle: cutTimeout}, originConfig{})
	if err != nil {
		return err
	}
	defer r.stop()
	if _, err := r.peersCut(100); err != nil { // what grows once has grown
		return err
	}
	if !pause(ctx, 2*cutGrace) {
		return context.Cause(ctx)
	}
	before, err := r.beyondPool(r.calm())
	if err != nil {
		return err
	}
	began := time.Now()
	cuts, err := r.peersCut(s.count(10_000))
	if err != nil {
		return err
	}
	fmt.Printf("%s\n\n%v in %.1fs\n", machine(), cuts, time.Since(began).Seconds())
	began = time.Now()
	var after usage
	var inFlight int64
	late := until(ctx, cutGrace, "goroutines, descriptors and requests in flight to be as before", func() (ok bool, err error) {
		stats, err := r.stats()
		if err != nil {
			return false, err
		}
		inFlight = stats.InFlight
		after, err = r.beyondPool(r.usage())
		return inFlight == 0 && after.Goroutines <= before.Goroutines+leftOver && after.Descriptors <= before.Descriptors+leftOver, err
	})
	fmt.Printf("%.1fs later: goroutines %d, before %d; descriptors besides the pool's %d, before %d\n",
		time.Since(began).Seconds(), after.Goroutines, before.Goroutines, after.Descriptors, before.Descriptors)
	if late != nil {
		late = fmt.Errorf("%w: goroutines %d, before %d; descriptors %d, before %d; %d requests in flight\n%s",
			late, after.Goroutines, before.Goroutines, after.Descriptors, before.Descriptors, inFlight, where(r.candidate))
	}
	return errors.Join(late, r.sane(ctx))
}

// beyondPool takes from the descriptors those of upstream connections, which
// are kept on purpose.
func (r *rig) beyondPool(u usage, err error) (usage, error) {
	if err != nil {
		return u, err
	}
	at, err := r.counts()
	u.Descriptors -= at.Open
	return u, err
}

// where tells where most goroutines of a candidate are.
func where(candidate *child) string {
	all, err := ask[string](candidate, "stacks", nothing{})
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(all, "\n")
	return strings.Join(lines[:min(len(lines), 80)], "")
}

// sane reports whether a plain request is answered at once: clients that leave
// open no breaker.
func (r *rig) sane(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.addr+"/api/bench/bytes/10", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := alone().RoundTrip(req)
	if err != nil {
		return fmt.Errorf("a plain request afterwards: %w", err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != 10 || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("a plain request afterwards: %s and %d bytes: %w", resp.Status, n, err)
	}
	return nil
}

func (r *rig) peersCut(n int) (map[string]int, error) {
	return ask[map[string]int](r.peers, "cut", cutConfig{Addr: r.addr, N: n})
}

type cutConfig struct {
	Addr string
	N    int
}

// A cut is a connection that its client leaves: after so many bytes of a
// request, or after a whole one and so many bytes of the response.
type cut struct {
	sent     []byte
	read     int64
	pipeline bool // a byte of a next request, which hides the end of the connection
	reset    bool
}

// cut leaves so many connections, and says how many in which place.
func (p *peers) cut(c cutConfig) (map[string]int, error) {
	done := map[string]int{}
	err := each(c.N, func(i int) error {
		place, one := randomCut(i)
		p.mu.Lock()
		done[place]++
		p.mu.Unlock()
		return one.do(c.Addr)
	})
	return done, err
}

func randomCut(i int) (place string, c cut) {
	c = cut{pipeline: rand.N(2) == 0, reset: rand.N(2) == 0}
	post := fmt.Appendf(nil, "POST /api/bench/sink?k=%d HTTP/1.1\r\nHost: bench.test\r\n", i)
	framed := append(bytes.Clone(post), "Content-Length: 65536\r\n\r\n"...)
	chunked := append(bytes.Clone(post), "Transfer-Encoding: chunked\r\n\r\n10000\r\n"...)
	switch i % 10 {
	case 0, 1, 2:
		place = "in the request's head"
		c.sent = framed[:rand.N(len(framed))]
		c.pipeline = false // it would be of this one
	case 3:
		place = "in the request's body"
		c.sent = append(framed, zeroes[:rand.N(len(zeroes))]...)
		c.pipeline = false
	case 4:
		place = "in the request's chunk"
		c.sent = append(chunked, zeroes[:rand.N(len(zeroes))]...)
		c.pipeline = false
	case 5:
		place = "before an answer that never comes"
		c.sent = get(fmt.Sprintf("/hold?k=%d", i))
	case 6:
		place = "before an answer"
		c.sent = get(fmt.Sprintf("/bytes/1024?after=%dms&k=%d", rand.N(40), i))
	case 7:
		place = "in the response's head"
		c.sent, c.read = get(fmt.Sprintf("/bytes/1024?k=%d", i)), rand.Int64N(150)
	case 8:
		place = "in the response's body"
		c.sent, c.read = get(fmt.Sprintf("/bytes/262144?k=%d", i)), 200+rand.Int64N(262144)
	case 9:
		place = "in the response's chunk"
		c.sent, c.read = get(fmt.Sprintf("/chunked/262144?k=%d", i)), 200+rand.Int64N(262144)
	}
	return place, c
}

func (c cut) do(addr string) error {
	conn, err := dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.pipeline {
		c.sent = append(c.sent, 'G')
	}
	if _, err := conn.Write(c.sent); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, conn, c.read); err != nil {
		return fmt.Errorf("before it was cut: %w", err)
	}
	if c.reset {
		return conn.SetLinger(0)
	}
	return nil
}
