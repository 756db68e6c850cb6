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

// What may drift in a soak.
const (
	heapPerHour   = 0.01             // of the mean
	gained        = 1.0              // goroutines and descriptors over the whole time
	tailDrift     = 0.1              // of the p99, over the whole time
	soakLoad      = 0.7              // of what the gateway can take
	soakPatience  = 10 * time.Second // with an answer
	soakCacheMiB  = 16               // so that it is full, and evicts, before anything is measured
	soakWarm      = 5                // parts in a hundred of the time, and at least:
	soakWarmLeast = 20 * time.Second
)

// checkSoak has everything that requests can be go on for long, and looks for
// what grows. -t: other than 30 minutes.
func checkSoak(ctx context.Context, s settings) error {
	lasting := s.lasting(30 * time.Minute)
	b, err := newStand(ctx, s)
	if err != nil {
		return err
	}
	defer b.stop()
	most, err := b.saturate(ctx, pass)
	if err != nil {
		return err
	}
	c, addr, err := b.candidate(ctx, &candidateConfig{Kind: "traced", Upstream: b.url, CacheBytes: soakCacheMiB << 20})
	if err != nil {
		return err
	}
	defer c.stop()
	k := soak{stand: b, candidate: c, pace: paceConfig{Addr: addr, InFlight: 128, Mix: b.mixture(), Patience: soakPatience}}
	if most, err = k.capacity(most); err != nil {
		return err
	}
	k.pace.Rate = most * soakLoad
	fmt.Printf("%s\n\n%v at %.0f requests a second, %.0f%% of what it can take\n", machine(), lasting, k.pace.Rate, 100*soakLoad)
	if err := k.run(ctx, max(soakWarmLeast, lasting*soakWarm/100), nil); err != nil {
		return fmt.Errorf("warming up: %w", err)
	}
	if err := k.run(ctx, lasting, &k.samples); err != nil {
		return err
	}
	return k.judge(lasting)
}

// mixture is one of each thing that a request can be: stored, missed, passed
// on, with a body, small and large.
func (b *stand) mixture() []request {
	at := func(method, name string, size, sent, keys int) request {
		return request{Method: method, Path: "/api/bench" + resource(name, size), BodySize: sent, WantSize: size, Keys: keys, First: b.unused()}
	}
	small, large := bodySizes[0], bodySizes[1]
	return []request{
		at(http.MethodGet, "s", small, 0, 1000),
		at(http.MethodGet, "p", small, 0, 0),
		at(http.MethodGet, "s", small, 0, 0),
		at(http.MethodPost, "p", small, small, 0),
		at(http.MethodGet, "s", small, 0, 1000),
		at(http.MethodGet, "p", large, 0, 0),
		at(http.MethodGet, "s", large, 0, 20),
		at(http.MethodGet, "p", small, 0, 0),
	}
}

type soak struct {
	*stand
	candidate *child
	pace      paceConfig
	samples   soakSamples
}

// soakSamples are what was seen, and when: seconds since the beginning.
type soakSamples struct {
	at, heap, goroutines, descriptors []float64
	tailAt, tail                      []float64 // p99 of a part, in µs
	requests                          int64
}

// soakPart is how long each load lasts, whose p99 is one point.
const soakPart = 10 * time.Second

// capacity finds how many of the mixture a second can be had: what is sent too
// fast takes longer than it may.
func (k *soak) capacity(rate float64) (float64, error) {
	p := k.pace
	p.Rate, p.Duration = rate*1.5, 3*time.Second
	began := time.Now()
	r, err := k.part(p)
	return float64(r.Sent) / time.Since(began).Seconds(), err
}

func (k *soak) part(p paceConfig) (paceResult, error) {
	for i := range p.Mix {
		p.Mix[i].First = k.unused()
	}
	r, err := ask[paceResult](k.load, "pace", p)
	if flaw := r.flawless(); err == nil && flaw != nil {
		err = fmt.Errorf("%w\n%s", flaw, where(k.candidate)) // what hangs hangs there still
	}
	return r, err
}

// run goes on for that long. into is where samples go, if anywhere.
func (k *soak) run(ctx context.Context, lasting time.Duration, into *soakSamples) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	sampled := make(chan error, 1)
	go func() { sampled <- k.sample(ctx, began, into) }()
	var err error
	for p := k.pace; err == nil && time.Since(began) < lasting && ctx.Err() == nil; {
		p.Duration = min(soakPart, max(lasting-time.Since(began), time.Second))
		middle := time.Since(began) + p.Duration/2
		var r paceResult
		if r, err = k.part(p); into != nil && err == nil && p.Duration == soakPart {
			into.tailAt, into.tail = append(into.tailAt, middle.Seconds()), append(into.tail, float64(r.Good.P99)/1e3)
		}
		if into != nil {
			into.requests += r.Sent
		}
	}
	err = errors.Join(err, context.Cause(ctx))
	cancel()
	return errors.Join(err, <-sampled)
}

// sample looks at the candidate every second, beside the load.
func (k *soak) sample(ctx context.Context, began time.Time, into *soakSamples) error {
	for pause(ctx, time.Second) {
		u, err := ask[usage](k.candidate, "usage", nothing{})
		if err != nil {
			return err
		}
		if into != nil {
			into.at = append(into.at, time.Since(began).Seconds())
			into.heap = append(into.heap, float64(u.Live))
			into.goroutines = append(into.goroutines, float64(u.Goroutines))
			into.descriptors = append(into.descriptors, float64(u.Descriptors))
		}
	}
	return nil
}

// judge finds what drifts further than chance explains.
func (k *soak) judge(lasting time.Duration) error {
	m, whole := &k.samples, lasting.Seconds()
	heap, tail := fit(m.at, m.heap), fit(m.tailAt, m.tail)
	goroutines, descriptors := fit(m.at, m.goroutines), fit(m.at, m.descriptors)
	rows := []struct {
		what, unit string
		mean       float64
		drift      line
		most       float64
	}{
		{"live heap, MiB", "% an hour", heap.mean / (1 << 20), heap.times(100 * 3600 / heap.mean), 100 * heapPerHour},
		{"goroutines", "over the time", goroutines.mean, goroutines.times(whole), gained},
		{"descriptors", "over the time", descriptors.mean, descriptors.times(whole), gained},
		{"p99, µs", "% over the time", tail.mean, tail.times(100 * whole / tail.mean), 100 * tailDrift},
	}
	fmt.Printf("%d requests, %d samples, %d parts\n", m.requests, len(m.at), len(m.tail))
	if len(m.tail) < 6 {
		fmt.Println("less than a minute shows no drift of the p99")
		rows = rows[:3]
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tmean\tdrift\t\tmay be\t\t")
	var faults []error
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%.1f\t%+.2f\t±%.2f\t%.2f\t%s\t\n", r.what, r.mean, r.drift.slope, 2*r.drift.err, r.most, r.unit)
		if !(r.drift.surely() <= r.most) {
			faults = append(faults, fmt.Errorf("%s: drifts by %+.2f ±%.2f %s, may by %.2f", r.what, r.drift.slope, 2*r.drift.err, r.unit, r.most))
		}
	}
	return errors.Join(append(faults, t.Flush())...)
}
