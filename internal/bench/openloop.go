package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"text/tabwriter"
	"time"
)

const tailRatio = 1.1 // of the p99 of a gateway to that of a ReverseProxy

// checkOpenLoop sends at half of what a ReverseProxy can take, on a schedule
// that waits for no answer, and compares the slowest answers. Times are counted
// from when a request was due.
func checkOpenLoop(ctx context.Context, s settings) error {
	b, err := newStand(ctx, s)
	if err != nil {
		return err
	}
	defer b.stop()
	most, err := b.saturate(ctx, reverseProxy)
	if err != nil {
		return err
	}
	rate := most / 2
	fmt.Printf("%s\n\na ReverseProxy answers at most %.0f requests a second; at %.0f:\n", machine(), most, rate)
	var pairs []tailPair
	for pair := range s.pairs {
		var p tailPair
		sides := []struct {
			subject
			into *paceResult
		}{{reverseProxy, &p.against}, {pass, &p.gateway}}
		for i := range sides {
			side := sides[(i+pair)%len(sides)] // nobody is always the first
			if *side.into, err = b.tail(ctx, side.subject, rate); err != nil {
				return fmt.Errorf("%s: %w", side.name, err)
			}
		}
		pairs = append(pairs, p)
	}
	return judgeTails(pairs)
}

// tailPair is a round of each.
type tailPair struct{ against, gateway paceResult }

func judgeTails(pairs []tailPair) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "candidate\tp50\tp99\t\tmax\t")
	for _, side := range []struct {
		name string
		of   func(tailPair) quantiles
	}{
		{"reverseproxy", func(p tailPair) quantiles { return p.against.Good }},
		{"pass", func(p tailPair) quantiles { return p.gateway.Good }},
	} {
		p99 := medianOf(pairs, func(p tailPair) float64 { return float64(side.of(p).P99) })
		fmt.Fprintf(t, "%s\t%.0fµs\t%.0fµs\t%s\t%.0fµs\t\n", side.name,
			medianOf(pairs, func(p tailPair) float64 { return float64(side.of(p).P50) }).Value/1e3, p99.Value/1e3, p99.percent(),
			medianOf(pairs, func(p tailPair) float64 { return float64(side.of(p).Max) }).Value/1e3)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	r := medianOf(pairs, func(p tailPair) float64 { return float64(p.gateway.Good.P99) / float64(p.against.Good.P99) })
	verdict := fmt.Sprintf("p99 of pass is %.2f ±%.2f of reverseproxy's, may be %.2f", r.Value, r.Spread, tailRatio)
	fmt.Println(verdict)
	if !(r.Value <= tailRatio) {
		return errors.New(verdict)
	}
	return nil
}

// small is a request that goes upstream, for 1 KiB.
func (b *stand) small() request {
	return request{Method: http.MethodGet, Path: "/api/bench" + resource("p", bodySizes[0]), WantSize: bodySizes[0], First: b.unused()}
}

// saturate returns how many requests a second a subject answers, 64 in flight.
func (b *stand) saturate(ctx context.Context, s subject) (float64, error) {
	c, addr, err := b.candidate(ctx, &candidateConfig{Kind: s.kind, Upstream: b.url})
	if err != nil {
		return 0, err
	}
	defer c.stop()
	run := loadConfig{Addr: addr, request: b.small(), InFlight: 64, Duration: b.warm}
	if _, err := b.send(run); err != nil {
		return 0, err
	}
	run.Duration = 3 * time.Second
	result, err := b.send(run)
	return float64(result.Requests) / result.Elapsed.Seconds(), err
}

// tail measures one round at that rate.
func (b *stand) tail(ctx context.Context, s subject, rate float64) (paceResult, error) {
	c, addr, err := b.candidate(ctx, &candidateConfig{Kind: s.kind, Upstream: b.url})
	if err != nil {
		return paceResult{}, err
	}
	defer c.stop()
	pace := paceConfig{Addr: addr, Rate: rate, Duration: b.warm, InFlight: 256, Mix: []request{b.small()}}
	if _, err := ask[paceResult](b.load, "pace", pace); err != nil {
		return paceResult{}, err
	}
	pace.Duration = b.lasting(5 * time.Second)
	r, err := ask[paceResult](b.load, "pace", pace)
	return r, errors.Join(err, r.flawless())
}
