package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	slowTail = 2.0 // of the p99 of others beside slow peers to that without
	slowKiB  = 96  // for each slow peer
	goodRate = 1000

	slowOnset = 10 * time.Second // or all of their bytes would come at once, each second
)

// checkSlow has clients send and read a byte a second, and the upstream write
// two, and looks at what that does to others and what it holds. What the same
// peers do to others from another gateway, with which those share nothing but
// the machine, tells how much of it is the machine's. -n: other than 5000 such
// clients, and a tenth as many such streams; -t: other than 20 s.
func checkSlow(ctx context.Context, s settings) error {
	gatewayBefore := func() (*rig, error) {
		return newRig(ctx, candidateConfig{Kind: "gateway", Conns: 10_000}, originConfig{})
	}
	r, err := gatewayBefore()
	if err != nil {
		return err
	}
	defer r.stop()
	other, err := gatewayBefore()
	if err != nil {
		return err
	}
	defer other.stop()
	n := s.count(5000)
	c := slowConfig{Heads: n / 2, Uploads: n / 4, Readers: n / 4, Streams: n / 10}
	good := paceConfig{Addr: r.addr, Rate: goodRate, InFlight: 64, Duration: 2 * time.Second, Mix: []request{{Method: http.MethodGet, Path: "/api/bench/bytes/1024", WantSize: 1024}}}
	if _, err := ask[paceResult](r.load, "pace", good); err != nil {
		return err
	}
	good.Duration = s.lasting(20 * time.Second)
	alone, err := ask[paceResult](r.load, "pace", good)
	if err != nil {
		return err
	}
	elsewhere, err := other.beset(ctx, c, r.load, good)
	if err != nil {
		return err
	}
	beside, err := r.beset(ctx, c, r.load, good)
	if err != nil {
		return err
	}
	faults := []error{alone.flawless(), beside.good.flawless()}
	for _, end := range beside.ends {
		faults = append(faults, fmt.Errorf("a slow peer was turned away: %s", end))
	}
	p99 := beside.good.Good.P99
	ratio := func(to time.Duration) float64 { return float64(p99) / float64(to) }
	fmt.Printf("%s\n\n%d slow heads, %d slow uploads, %d slow readers, %d slow streams of the upstream\n", machine(), c.Heads, c.Uploads, c.Readers, c.Streams)
	fmt.Printf("p99 of others at %d a second: %v, without slow peers %v: %.2f, may be %.2f\n", goodRate, p99, alone.Good.P99, ratio(alone.Good.P99), slowTail)
	fmt.Printf("with the slow peers at another gateway on this machine %v: %.2f\n", elsewhere.good.Good.P99, ratio(elsewhere.good.Good.P99))
	fmt.Printf("each slow peer takes %.1f KiB, may take %d; %.2f goroutines\n", beside.each.KiB, slowKiB, beside.each.Goroutines)
	if !(ratio(alone.Good.P99) <= slowTail) {
		faults = append(faults, fmt.Errorf("the p99 of others grows to %.2f of what it is alone, may to %.2f", ratio(alone.Good.P99), slowTail))
	}
	if beside.each.KiB > slowKiB {
		faults = append(faults, fmt.Errorf("a slow peer takes %.1f KiB, may take %d", beside.each.KiB, slowKiB))
	}
	return errors.Join(faults...)
}

// beset is a time with slow peers.
type beset struct {
	good paceResult
	each share // of a slow peer
	ends []string
}

// beset has slow peers at r's candidate while load keeps its pace somewhere.
func (r *rig) beset(ctx context.Context, c slowConfig, load *child, pace paceConfig) (b beset, err error) {
	before, err := r.calm()
	if err != nil {
		return b, err
	}
	c.Addr = r.addr
	if err = r.peers.tell("slow", c); err == nil {
		err = r.stalled(ctx, int64(c.Readers+c.Streams))
	}
	if err == nil {
		b.good, err = ask[paceResult](load, "pace", pace)
	}
	if err != nil {
		return b, err
	}
	after, err := ask[usage](r.candidate, "settle", nothing{})
	if err != nil {
		return b, err
	}
	b.each = shareOf(before, after, c.Heads+c.Uploads+c.Readers+c.Streams)
	b.ends, err = ask[[]string](r.peers, "stop", nothing{})
	return b, err
}

type slowConfig struct {
	Addr    string
	Heads   int // of requests, a byte a second
	Uploads int // a byte a second
	Readers int // of what comes fast, a byte a second
	Streams int // that come slowly, read as they come
}

// slowness is slow peers at work.
type slowness struct {
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup
	ready  atomic.Int64

	mu   sync.Mutex
	ends []string // of those that could not go on: the first few
}

func (p *peers) beSlow(c slowConfig) (nothing, error) {
	s := new(slowness)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	p.slow = s
	kinds := []func(net.Conn) error{}
	for n, kind := range map[*int]func(net.Conn) error{&c.Heads: s.head, &c.Uploads: s.upload, &c.Readers: s.read, &c.Streams: s.stream} {
		for range *n {
			kinds = append(kinds, kind)
		}
	}
	err := each(len(kinds), func(i int) error {
		conn, err := dialNarrow(c.Addr)
		if err != nil {
			return err
		}
		s.all.Go(func() {
			if pause(s.ctx, slowOnset*time.Duration(i)/time.Duration(len(kinds))) {
				s.keep(c.Addr, conn, kinds[i])
			}
		})
		return nil
	})
	if err != nil {
		return nothing{}, err
	}
	return nothing{}, until(s.ctx, peerPatience, "slow peers to be under way", func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.ready.Load() >= int64(len(kinds)-len(s.ends)), nil
	})
}

// keep is a slow peer that comes back when the server has had enough of it.
func (s *slowness) keep(addr string, conn net.Conn, kind func(net.Conn) error) {
	for conn != nil {
		err := errors.Join(conn.SetDeadline(time.Time{}), kind(conn))
		_ = conn.Close()
		if err == nil && s.ctx.Err() == nil { // the server's timeout for heads
			if conn, err = dialNarrow(addr); err == nil {
				s.ready.Add(-1) // for as long as it begins, or some of thousands would always be on their way
			}
		} else {
			conn = nil
		}
		if err != nil && s.ctx.Err() == nil {
			s.mu.Lock()
			if len(s.ends) < 10 {
				s.ends = append(s.ends, err.Error())
			}
			s.mu.Unlock()
			return
		}
	}
}

// stopSlow ends the slow peers, and says why some ended before.
func (p *peers) stopSlow(nothing) ([]string, error) {
	p.slow.cancel()
	p.slow.all.Wait()
	return p.slow.ends, nil
}

// trickle writes so many bytes, one a second.
func (s *slowness) trickle(conn net.Conn, n int) error {
	s.ready.Add(1)
	for range n {
		if !pause(s.ctx, time.Second) {
			return nil
		}
		if _, err := conn.Write([]byte{'a'}); err != nil {
			return err
		}
	}
	return nil
}

func (s *slowness) head(conn net.Conn) error {
	if _, err := conn.Write([]byte("GET /api/bench/bytes/1 HTTP/1.1\r\nHost: bench.test\r\nX-Slow: ")); err != nil {
		return err
	}
	_ = s.trickle(conn, 60) // the server ends it
	return nil
}

func (s *slowness) upload(conn net.Conn) error {
	if _, err := conn.Write([]byte("POST /api/bench/sink HTTP/1.1\r\nHost: bench.test\r\nContent-Length: 100000\r\n\r\n")); err != nil {
		return err
	}
	return s.trickle(conn, 100_000)
}

func (s *slowness) read(conn net.Conn) error {
	if _, err := conn.Write(get(fmt.Sprintf("/stream/%d?k=%p", streamed, conn))); err != nil {
		return err
	}
	if err := readHead(conn); err != nil {
		return err
	}
	s.ready.Add(1)
	for pause(s.ctx, time.Second) {
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			return err
		}
	}
	return nil
}

func (s *slowness) stream(conn net.Conn) error {
	if _, err := conn.Write(get(fmt.Sprintf("/drip/100000?k=%p", conn))); err != nil {
		return err
	}
	if err := readHead(conn); err != nil {
		return err
	}
	s.ready.Add(1)
	defer context.AfterFunc(s.ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	_, err := io.Copy(io.Discard, bufio.NewReaderSize(conn, 16))
	return err
}
