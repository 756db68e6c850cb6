package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/embedgw/gateway"
)

const (
	keysBudget = 256 << 20
	keysHeap   = keysBudget*5/4 + 64<<20 // that a cache of the budget may have the process hold
	keysRate   = 0.8                     // of the requests a second without a cache
	keysPairs  = 3
	keysTail   = 50 * time.Millisecond // of hits meanwhile
	keysHot    = 1000                  // that are asked for meanwhile
)

// checkKeys asks a cache for far more than it can hold. -n: other than 1,000,000
// keys; -t: other than 4 s for a round of each pair.
func checkKeys(ctx context.Context, s settings) error {
	b, err := newStand(ctx, s)
	if err != nil {
		return err
	}
	defer b.stop()
	k := &keysCheck{b, int64(s.count(1_000_000))}
	fmt.Printf("%s\n\n", machine())
	var faults []error
	for _, part := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"keys asked for once", k.once},
		{"keys asked for twice", k.twice},
		{"variants of one resource", k.variants},
	} {
		if err := part.do(ctx); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", part.what, err))
		}
	}
	return errors.Join(faults...)
}

type keysCheck struct {
	*stand
	n int64
}

// once asks for each key once, and then compares a full cache with none.
func (k *keysCheck) once(ctx context.Context) error {
	cached, err := k.gateway(ctx, false)
	if err != nil {
		return err
	}
	defer cached.stop()
	held, err := k.flood(cached, k.of("l"))
	if err == nil && k.n > 2*keysBudget>>10 && held.Bytes < keysBudget*3/4 {
		err = fmt.Errorf("the cache holds %d bytes only", held.Bytes)
	}
	if err != nil {
		return err
	}
	none, err := k.gateway(ctx, true)
	if err != nil {
		return err
	}
	defer none.stop()
	var pairs []ratePair
	for pair := range keysPairs {
		p, err := k.pair(cached, none, pair)
		if err != nil {
			return err
		}
		pairs = append(pairs, p)
	}
	return errors.Join(judgeRates("a full cache", pairs), k.filling(ctx))
}

// filling compares a cache that has room with none.
func (k *keysCheck) filling(ctx context.Context) error {
	var pairs []ratePair
	for pair := range keysPairs {
		cached, err := k.gateway(ctx, false)
		if err != nil {
			return err
		}
		none, err := k.gateway(ctx, true)
		if err != nil {
			cached.stop()
			return err
		}
		p, err := k.pair(cached, none, pair)
		cached.stop()
		none.stop()
		if err != nil {
			return err
		}
		pairs = append(pairs, p)
	}
	return judgeRates("a cache that fills", pairs)
}

// twice asks for each key once more soon after, so that what was stored has to
// go.
func (k *keysCheck) twice(ctx context.Context) error {
	cached, err := k.gateway(ctx, false)
	if err != nil {
		return err
	}
	defer cached.stop()
	run := k.of("l")
	run.Twice = 1000
	held, err := k.flood(cached, run)
	if err == nil && k.n > 3*keysBudget>>10 && held.Evictions < uint64(k.n/8) {
		err = fmt.Errorf("%d entries were dropped only", held.Evictions)
	}
	return err
}

// variants asks for one resource by many values of the field that it varies by,
// while other keys are hit.
func (k *keysCheck) variants(ctx context.Context) error {
	cached, err := k.gateway(ctx, false)
	if err != nil {
		return err
	}
	defer cached.stop()
	others, err := start(ctx, "load")
	if err != nil {
		return err
	}
	defer others.stop()
	hot := loadConfig{Addr: cached.addr, request: k.of("l"), InFlight: 8, Requests: keysHot}
	hot.First = 0
	if _, err := ask[loadResult](others, "run", hot); err != nil {
		return err
	}
	before, err := cached.cache()
	if err != nil {
		return err
	}
	pace := paceConfig{Addr: cached.addr, Rate: 500, Duration: 3 * time.Second, InFlight: 128, Mix: []request{hot.request}}
	pace.Mix[0].Keys = keysHot
	alone, err := ask[paceResult](others, "pace", pace)
	if err = errors.Join(err, alone.flawless()); err != nil {
		return err
	}
	rounds := []paceResult{alone}
	flooded := make(chan error, 1)
	go func() {
		run := k.of("v")
		run.Vary = true
		flooded <- k.pour(cached, run)
	}()
	for {
		got, err := ask[paceResult](others, "pace", pace)
		if err = errors.Join(err, got.flawless()); err != nil {
			return err
		}
		rounds = append(rounds, got)
		select {
		case err := <-flooded:
			if err != nil {
				return err
			}
			hot := judgeHot(rounds, before, cached)
			_, err = judgeHeld(cached) // now that all is quiet
			return errors.Join(hot, err)
		default:
		}
	}
}

// judgeHot looks at what was asked for before and meanwhile, and should be hit.
func judgeHot(rounds []paceResult, before gateway.CacheStats, cached *gatewayChild) error {
	after, err := cached.cache()
	if err != nil {
		return err
	}
	var sent, slowest int64
	for _, r := range rounds {
		sent, slowest = sent+r.Sent, max(slowest, int64(r.Good.P99))
	}
	hits := int64(after.Hits - before.Hits)
	p99 := medianOf(rounds[1:], func(r paceResult) float64 { return float64(r.Good.P99) })
	verdict := fmt.Sprintf("%d of %d requests for %d other keys were hits, p99 %.1fms %s, may be %v; of the slowest 3s %.1fms, of 3s before %.1fms",
		hits, sent, keysHot, p99.Value/1e6, p99.percent(), keysTail, float64(slowest)/1e6, float64(rounds[0].Good.P99)/1e6)
	fmt.Println(verdict)
	if hits != sent || p99.Value > float64(keysTail) {
		return errors.New(verdict)
	}
	return nil
}

// of returns a request for a resource of the upstream, each key its own.
func (k *keysCheck) of(name string) request {
	return request{Method: http.MethodGet, Path: "/api/bench" + resource(name, bodySizes[0]), WantSize: bodySizes[0], First: k.unused()}
}

// flood sends them all, and looks at what the gateway holds then, and has held.
func (k *keysCheck) flood(g *gatewayChild, r request) (gateway.CacheStats, error) {
	if err := k.pour(g, r); err != nil {
		return gateway.CacheStats{}, err
	}
	return judgeHeld(g)
}

// pour sends them all, while the gateway is watched.
func (k *keysCheck) pour(g *gatewayChild, r request) error {
	if err := g.tell("watch", 100*time.Millisecond); err != nil {
		return err
	}
	result, err := k.send(loadConfig{Addr: g.addr, request: r, InFlight: 16, Requests: k.n, Duration: 20 * time.Minute})
	if err == nil {
		fmt.Printf("%d requests, %.0f a second\n", result.Requests, float64(result.Requests)/result.Elapsed.Seconds())
	}
	return err
}

// judgeHeld looks at what a gateway holds, and has held since it was watched.
func judgeHeld(g *gatewayChild) (gateway.CacheStats, error) {
	most, err := ask[memory](g.child, "watched", nothing{})
	if err != nil {
		return gateway.CacheStats{}, err
	}
	held, err := ask[usage](g.child, "calm", nothing{})
	if err != nil {
		return gateway.CacheStats{}, err
	}
	at, err := g.cache()
	if err != nil {
		return at, err
	}
	const mib = 1 << 20
	verdict := fmt.Sprintf("heap %d MiB after collections, %d MiB alive at the most, may be %d; %d entries of %d MiB in the cache, %d hits, %d dropped",
		held.Heap/mib, most.Live/mib, keysHeap/mib,
		at.Entries, at.Bytes/mib, at.Hits, at.Evictions)
	fmt.Println(verdict)
	if max(held.Heap, most.Live) > keysHeap {
		return at, errors.New(verdict)
	}
	return at, nil
}

// ratePair is how many requests a second each answers.
type ratePair struct{ cached, none float64 }

// pair sends new keys to one and then to the other.
func (k *keysCheck) pair(cached, none *gatewayChild, pair int) (p ratePair, err error) {
	sides := []struct {
		of   *gatewayChild
		into *float64
	}{{cached, &p.cached}, {none, &p.none}}
	for i := range sides {
		side := sides[(i+pair)%len(sides)] // nobody is always the first
		run := loadConfig{Addr: side.of.addr, request: k.of("l"), InFlight: 64, Duration: k.warm}
		if _, err := k.send(run); err != nil {
			return p, err
		}
		run.First, run.Duration = k.unused(), k.lasting(4*time.Second)
		result, err := k.send(run)
		if err != nil {
			return p, err
		}
		*side.into = float64(result.Requests) / result.Elapsed.Seconds()
	}
	return p, nil
}

func judgeRates(what string, pairs []ratePair) error {
	r := medianOf(pairs, func(p ratePair) float64 { return p.cached / p.none })
	verdict := fmt.Sprintf("%s: %.0f requests a second, %.0f without, which is %.2f ±%.2f, may be %.2f", what,
		medianOf(pairs, func(p ratePair) float64 { return p.cached }).Value,
		medianOf(pairs, func(p ratePair) float64 { return p.none }).Value, r.Value, r.Spread, keysRate)
	fmt.Println(verdict)
	if !(r.Value >= keysRate) {
		return errors.New(verdict)
	}
	return nil
}

// gatewayChild is a candidate and where it listens.
type gatewayChild struct {
	*child
	addr string
}

// gateway starts one whose cache is smaller than what it will be asked for, or
// one without.
func (k *keysCheck) gateway(ctx context.Context, uncached bool) (*gatewayChild, error) {
	c, addr, err := k.candidate(ctx, &candidateConfig{Kind: "gateway", Upstream: k.url, CacheBytes: keysBudget, Uncached: uncached})
	return &gatewayChild{c, addr}, err
}

func (g *gatewayChild) cache() (gateway.CacheStats, error) {
	all, err := ask[gateway.Stats](g.child, "stats", nothing{})
	if err == nil && len(all.Caches) != 1 {
		err = fmt.Errorf("%d caches, want 1", len(all.Caches))
	}
	if err != nil {
		return gateway.CacheStats{}, err
	}
	return all.Caches[0], nil
}
