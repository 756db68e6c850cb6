package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/embedgw/gateway"
)

// checkKill takes replicas away under a thousand requests a second and brings
// them back: one by SIGKILL, again and again, and then both in turn in good
// order. -n: other than 20 times each.
func checkKill(ctx context.Context, s settings) error {
	fmt.Println(machine())
	var faults []error
	for _, way := range []struct {
		name string
		end  func(*pair, int) error
	}{
		{"killed", (*pair).kill},
		{"restarted in turn", (*pair).restart},
	} {
		if err := replaced(ctx, way.name, s.count(20), way.end); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", way.name, err))
		}
	}
	return errors.Join(faults...)
}

// How long a replica is away, and how long it is back before the next one goes.
const (
	awayTime = 500 * time.Millisecond
	backTime = 1500 * time.Millisecond
)

// replaced has one replica after the other end in that way, and come back, and
// finds what a client noticed.
func replaced(ctx context.Context, name string, times int, end func(*pair, int) error) error {
	p, err := newPair(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	load := paceConfig{Addr: p.addr, Rate: goodRate, InFlight: 256, Patience: 10 * time.Second, Mix: mostlyGets()}
	load.Duration = time.Duration(times+1) * (awayTime + backTime)
	loaded := make(chan error, 1)
	var got paceResult
	go func() {
		var err error
		got, err = ask[paceResult](p.load, "pace", load)
		loaded <- err
	}()
	var faults []error
	for i := range times {
		pause(ctx, backTime)
		if err := end(p, i); err != nil {
			faults = append(faults, err)
			break
		}
		pause(ctx, awayTime)
		if err := p.bringBack(ctx); err != nil {
			faults = append(faults, err)
			break
		}
	}
	faults = append(faults, <-loaded)
	seen, err := p.journal.read()
	if err != nil {
		return errors.Join(append(faults, err)...)
	}
	stats, err := ask[gateway.Stats](p.candidate, "stats", nothing{})
	faults = append(faults, err, judgeReplaced(name, times, &got, seen))
	fmt.Printf("the gateway counts %d requests, %d retries, errors %v\n", stats.Requests, stats.Retries, stats.Errors)
	return errors.Join(faults...)
}

// mostlyGets is one POST in 20.
func mostlyGets() []request {
	mix := make([]request, 20)
	for i := range mix {
		mix[i] = request{Method: http.MethodGet, Path: "/api/bench/bytes/1024?after=2ms", WantSize: 1024}
	}
	mix[7] = request{Method: http.MethodPost, Path: "/api/bench/bytes/1024?after=2ms", BodySize: 1024, WantSize: 1024}
	return mix
}

func judgeReplaced(name string, times int, got *paceResult, seen map[string]int) error {
	var faults []error
	cut, posts := 0, got.Failed
	for _, f := range got.Failures {
		if f.Method != http.MethodGet {
			continue
		}
		if posts--; f.Began {
			cut++
			continue
		}
		faults = append(faults, fmt.Errorf("GET %d failed: %s", f.Key, f.Err))
	}
	for key, n := range got.Statuses {
		if strings.HasPrefix(key, "GET ") && key != "GET 200" {
			faults = append(faults, fmt.Errorf("%d answers are %s", n, key))
		}
	}
	requests, attempts, twice := int64(0), 0, 0
	for key, n := range seen {
		requests++
		attempts += n
		if n > 1 && strings.HasPrefix(key, "POST ") {
			twice++
			faults = append(faults, fmt.Errorf("%s was seen %d times", key, n))
		}
	}
	fmt.Printf("\n%s %d times under %d requests a second: %v; %d GETs cut off in their response, %d POSTs without a response\n",
		name, times, goodRate, got.Statuses, cut, posts)
	fmt.Printf("%d requests were seen %d times; %d POSTs more than once\n", requests, attempts, twice)
	const told = 10
	if more := len(faults) - told; more > 0 {
		faults = append(faults[:told], fmt.Errorf("and %d faults more", more))
	}
	return errors.Join(faults...)
}

// A pair is a gateway before two replicas that write into one journal.
type pair struct {
	candidate, load *child
	addr            string
	journal         *journal
	replicas        [2]*child
	addrs           [2]string
}

func newPair(ctx context.Context) (_ *pair, err error) {
	p := new(pair)
	defer func() {
		if err != nil {
			p.stop()
		}
	}()
	if p.journal, err = newJournal(); err != nil {
		return nil, err
	}
	if err := p.bringBack(ctx); err != nil {
		return nil, err
	}
	c := candidateConfig{Kind: "gateway", Upstream: "http://" + p.addrs[0], Replicas: []string{"http://" + p.addrs[1]}}
	if p.candidate, p.addr, err = startWith(ctx, "candidate", c); err != nil {
		return nil, err
	}
	p.load, err = start(ctx, "load")
	return p, err
}

func (p *pair) stop() {
	for _, c := range []*child{p.load, p.candidate, p.replicas[0], p.replicas[1]} {
		if c != nil {
			c.stop()
		}
	}
	if p.journal != nil {
		p.journal.remove()
	}
}

// bringBack starts the replicas that are not there, where they were before.
func (p *pair) bringBack(ctx context.Context) (err error) {
	for i := range p.replicas {
		if p.replicas[i] == nil && err == nil {
			p.replicas[i], p.addrs[i], err = startWith(ctx, "origin", originConfig{Addr: p.addrs[i], Journal: p.journal.path})
		}
	}
	return err
}

// kill ends the first replica as SIGKILL does.
func (p *pair) kill(int) error {
	p.replicas[0].kill()
	p.replicas[0] = nil
	return nil
}

// restart ends one replica after the other, once it has served what it had.
func (p *pair) restart(i int) error {
	i %= len(p.replicas)
	err := p.replicas[i].tell("end", time.Second)
	p.replicas[i].stop()
	p.replicas[i] = nil
	return err
}
