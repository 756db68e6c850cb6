package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// What a starved process has, and what it may do with it.
const (
	starvedDescriptors = 256
	starvedMemory      = 128 << 20
	starvedCPU         = 0.2         // of one processor, while nothing can be done
	starvedRecovery    = time.Second // on a connection that it has
	acceptPause        = time.Second // that net/http's server may sleep for after a failed accept (net/http.Server.Serve)
)

// checkStarved takes descriptors, processors and memory away, and then gives
// the descriptors back.
func checkStarved(ctx context.Context, s settings) error {
	config := candidateConfig{Kind: "gateway", Descriptors: starvedDescriptors, Timeout: 20 * time.Second, Conns: 10_000}
	r, err := newRig(ctx, config, originConfig{}, "GOMAXPROCS=1", fmt.Sprintf("GOMEMLIMIT=%d", starvedMemory))
	if err != nil {
		return err
	}
	defer r.stop()
	kept := &http.Transport{MaxConnsPerHost: 1}
	defer kept.CloseIdleConnections()
	if err := r.answers(ctx, kept); err != nil {
		return err
	}
	if err := r.peers.tell("hold", holdConfig{Addr: r.addr, N: 2 * starvedDescriptors, Bytes: get("/hold"), Refusable: true}); err != nil {
		return err
	}
	if err := r.exhausted(ctx); err != nil {
		return err
	}
	idle, err := r.spins(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	starving := r.answers(ctx, kept)
	took := time.Since(began)
	onKept, onNew, err := r.recovers(ctx, kept)
	if err != nil {
		return err
	}
	worked, loadErr := r.works(s.lasting(3 * time.Second))
	u, err := r.usage()
	if err != nil {
		return err
	}
	inUse := u.Spans + u.Stacks
	fmt.Printf("%s\n\n%d descriptors, GOMAXPROCS=1, GOMEMLIMIT=%d MiB\n", machine(), starvedDescriptors, starvedMemory>>20)
	fmt.Printf("without descriptors: %.0f%% of a processor, may be %.0f%%; a request in %v: %v\n", 100*idle, 100*starvedCPU, took, starving)
	fmt.Printf("with them again: answers after %v on a connection from before, may after %v; after %v on a new one, may after %v\n",
		onKept, starvedRecovery, onNew, starvedRecovery+acceptPause)
	fmt.Printf("then %.0f requests a second, with %.1f MiB in use, may be %d\n", worked, mib(inUse), starvedMemory>>20)
	faults := []error{loadErr, r.sane(ctx)}
	if idle > starvedCPU {
		faults = append(faults, fmt.Errorf("it spins: %.0f%% of a processor", 100*idle))
	}
	if onKept > starvedRecovery {
		faults = append(faults, fmt.Errorf("it recovers after %v", onKept))
	}
	if onNew > starvedRecovery+acceptPause {
		faults = append(faults, fmt.Errorf("it accepts after %v", onNew))
	}
	if inUse > starvedMemory {
		faults = append(faults, fmt.Errorf("%.1f MiB are in use", mib(inUse)))
	}
	return errors.Join(faults...)
}

// answers sends one request, and says what is wrong with the answer.
func (r *rig) answers(ctx context.Context, through http.RoundTripper) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.addr+"/api/bench/bytes/10", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := through.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// exhausted waits until no descriptor is left to count them with.
func (r *rig) exhausted(ctx context.Context) error {
	return until(ctx, 10*time.Second, "descriptors to run out", func() (bool, error) {
		u, err := r.usage()
		return u.Descriptors < 0, err
	})
}

// spins returns how much of a processor is used while nothing can be done.
func (r *rig) spins(ctx context.Context) (float64, error) {
	pause(ctx, time.Second) // whatever came to its end ends
	before, err := r.usage()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	pause(ctx, 3*time.Second)
	after, err := r.usage()
	return float64(after.CPU-before.CPU) / float64(time.Since(began)), err
}

// recovers gives the descriptors back, and returns when the first requests are
// answered: on a connection from before, and on a new one.
func (r *rig) recovers(ctx context.Context, kept *http.Transport) (onKept, onNew time.Duration, err error) {
	if err := errors.Join(r.origin.tell("release", true), r.peers.tell("drop", nothing{})); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	for _, way := range []struct {
		through http.RoundTripper
		took    *time.Duration
	}{{kept, &onKept}, {alone(), &onNew}} {
		err := until(ctx, 10*time.Second, "an answer", func() (bool, error) { return r.answers(ctx, way.through) == nil, nil })
		if err != nil {
			return 0, 0, err
		}
		*way.took = time.Since(began)
	}
	return onKept, onNew, nil
}

// works has all kinds of requests served for a while, and returns how many a
// second.
func (r *rig) works(lasting time.Duration) (float64, error) {
	got, err := ask[loadResult](r.load, "run", loadConfig{Addr: r.addr, InFlight: 32, Duration: lasting, request: request{
		Method: http.MethodPost, Path: "/api/bench/bytes/102400", BodySize: 16 << 10, WantSize: 100 << 10,
	}})
	return float64(got.Requests) / max(got.Elapsed.Seconds(), 1e-9), err
}
