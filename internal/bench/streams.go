package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

const (
	streamHeldKiB = 64
	drainTime     = 10 * time.Second
)

// checkStreams keeps WebSockets and event streams open, with a message a
// second each, counts what is lost, and drains. -n: other than 5000, half of
// each; -t: other than 10 minutes.
func checkStreams(ctx context.Context, s settings) error {
	r, err := newRig(ctx, candidateConfig{Kind: "gateway", Conns: 10_000}, originConfig{})
	if err != nil {
		return err
	}
	defer r.stop()
	n := s.count(5000)
	c := streamsConfig{Addr: r.addr, Sockets: n / 2, Events: n - n/2}
	before, err := r.calm()
	if err != nil {
		return err
	}
	if err := r.peers.tell("streams", c); err != nil {
		return err
	}
	began := time.Now()
	for lasting := s.lasting(10 * time.Minute); time.Since(began) < lasting; {
		if _, err := r.usage(); err != nil || !pause(ctx, min(time.Second, lasting)) {
			return errors.Join(err, context.Cause(ctx))
		}
	}
	after, err := ask[usage](r.candidate, "settle", nothing{})
	if err != nil {
		return err
	}
	faults := []error{r.peers.tell("quiet", nothing{})}
	began = time.Now()
	if err := r.candidate.tell("drain", nothing{}); err != nil {
		return err
	}
	got, err := ask[streamsResult](r.peers, "ended", drainTime)
	if err != nil {
		return err
	}
	drained := time.Since(began)
	down, err := ask[ending](r.candidate, "shutdown", drainTime)
	if err != nil {
		return err
	}
	each := shareOf(before, after, n)
	fmt.Printf("%s\n\n%d WebSockets, %d event streams: %d messages echoed, %d events\n", machine(), c.Sockets, c.Events, got.Echoed, got.Events)
	fmt.Printf("each takes %.1f KiB, may take %d; %.2f goroutines\n", each.KiB, streamHeldKiB, each.Goroutines)
	fmt.Printf("drained in %.2fs, may take %v: %v; shut down in %.2fs\n", drained.Seconds(), drainTime, got.Ends, down.Took.Seconds())
	if each.KiB > streamHeldKiB {
		faults = append(faults, fmt.Errorf("a stream takes %.1f KiB, may take %d", each.KiB, streamHeldKiB))
	}
	faults = append(faults, got.judge(c)...)
	return errors.Join(append(faults, down.judge(drainTime))...)
}

// judge says what a shutdown left undone.
func (e ending) judge(within time.Duration) error {
	var faults []error
	if e.Failed != "" {
		faults = append(faults, fmt.Errorf("shutdown: %s", e.Failed))
	}
	if e.Took > within {
		faults = append(faults, fmt.Errorf("shutdown took %v, may take %v", e.Took, within))
	}
	if e.Goroutines > 0 {
		faults = append(faults, fmt.Errorf("shutdown left %d goroutines behind", e.Goroutines))
	}
	return errors.Join(faults...)
}

type streamsConfig struct {
	Addr            string
	Sockets, Events int
}

// How a stream ended.
const (
	endAway  = "told that the server goes away" // RFC 6455 §7.4.1: 1001
	endClean = "at an event's end"
	endOpen  = "not at all"
)

type streamsResult struct {
	Echoed, Events int64
	Ends           map[string]int // by how
	Faults         []string       // the first of them
}

func (r streamsResult) judge(c streamsConfig) (faults []error) {
	for _, f := range r.Faults {
		faults = append(faults, errors.New(f))
	}
	if n := r.Ends[endAway]; n != c.Sockets {
		faults = append(faults, fmt.Errorf("%d of %d WebSockets were told that the server goes away", n, c.Sockets))
	}
	if n := r.Ends[endClean]; n != c.Events {
		faults = append(faults, fmt.Errorf("%d of %d event streams ended in good order", n, c.Events))
	}
	return faults
}

// streams are those of the peers.
type streams struct {
	ctx            context.Context
	cancel         context.CancelFunc
	quiet          chan struct{} // closed: no more messages
	all            sync.WaitGroup
	waiting        atomic.Int64 // messages without their echo
	echoed, events atomic.Int64

	mu     sync.Mutex
	result streamsResult
}

func (p *peers) openStreams(c streamsConfig) (nothing, error) {
	s := &streams{quiet: make(chan struct{}), result: streamsResult{Ends: map[string]int{}}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	p.streams = s
	client := &http.Client{Transport: &http.Transport{}}
	return nothing{}, each(c.Sockets+c.Events, func(i int) error {
		if i < c.Sockets {
			return s.openSocket(client, c.Addr)
		}
		return s.openEvents(client, c.Addr)
	})
}

func (s *streams) ended(how string, fault error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result.Ends[how]++
	if fault != nil && len(s.result.Faults) < 3 {
		s.result.Faults = append(s.result.Faults, fault.Error())
	}
}

func (s *streams) openSocket(client *http.Client, addr string) error {
	c, resp, err := websocket.Dial(s.ctx, "ws://"+addr+"/api/bench/socket", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		if resp != nil && resp.Body != nil {
			_ = resp.Body.Close()
		}
		return err
	}
	sent := make(chan int, 1)
	s.all.Go(func() { s.send(c, sent) })
	s.all.Go(func() {
		defer func() { _ = c.CloseNow() }()
		s.ended(s.receive(c, sent))
	})
	return nil
}

// send numbers its messages, and waits for the echo of each before the next.
func (s *streams) send(c *websocket.Conn, sent chan<- int) {
	for i := 0; ; i++ {
		select {
		case <-s.quiet:
			return
		default:
		}
		s.waiting.Add(1)
		sent <- i
		if err := c.Write(s.ctx, websocket.MessageText, fmt.Append(nil, i)); err != nil {
			return // the receiver knows why
		}
		if !pause(s.ctx, time.Second) {
			return
		}
	}
}

func (s *streams) receive(c *websocket.Conn, sent <-chan int) (how string, fault error) {
	for {
		_, message, err := c.Read(s.ctx)
		switch {
		case websocket.CloseStatus(err) == websocket.StatusGoingAway:
			return endAway, nil
		case s.ctx.Err() != nil:
			return endOpen, errors.New("a WebSocket was not ended")
		case err != nil:
			return "broken off", fmt.Errorf("a WebSocket: %w", err)
		}
		if want := fmt.Sprint(<-sent); string(message) != want {
			return "wrong", fmt.Errorf("a WebSocket brought %q, want %q", message, want)
		}
		s.waiting.Add(-1)
		s.echoed.Add(1)
	}
}

func (s *streams) openEvents(client *http.Client, addr string) error {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "http://"+addr+"/api/bench/events", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return fmt.Errorf("an event stream was answered %s", resp.Status)
	}
	s.all.Go(func() {
		defer resp.Body.Close()
		s.ended(s.follow(resp.Body))
	})
	return nil
}

// follow reads events, which must be numbered without a gap.
func (s *streams) follow(body io.Reader) (how string, fault error) {
	in := bufio.NewReaderSize(body, 256)
	for i := 0; ; {
		line, err := in.ReadString('\n')
		switch {
		case errors.Is(err, io.EOF) && line == "":
			return endClean, nil
		case s.ctx.Err() != nil:
			return endOpen, errors.New("an event stream was not ended")
		case err != nil:
			return "broken off", fmt.Errorf("an event stream after %q: %w", line, err)
		}
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if want := fmt.Sprintf("data: %d", i); line != want {
			return "wrong", fmt.Errorf("an event stream brought %q, want %q", line, want)
		}
		i++
		s.events.Add(1)
	}
}

// quietStreams sends no more, and waits until everything has come back.
func (p *peers) quietStreams(nothing) (nothing, error) {
	s := p.streams
	close(s.quiet)
	err := until(s.ctx, 10*time.Second, "the last echoes", func() (bool, error) { return s.waiting.Load() == 0, nil })
	if err != nil {
		err = fmt.Errorf("%w: %d messages were lost", err, s.waiting.Load())
	}
	return nothing{}, err
}

// endedStreams waits for the end of all streams, but no longer than that.
func (p *peers) endedStreams(within time.Duration) (streamsResult, error) {
	s := p.streams
	stop := time.AfterFunc(within, s.cancel)
	defer stop.Stop()
	s.all.Wait()
	s.result.Echoed, s.result.Events = s.echoed.Load(), s.events.Load()
	return s.result, nil
}
