package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	updatePause = time.Millisecond // between two updates
	updateHeap  = 4 << 20          // bytes more that may be live afterwards
)

// updating is how the candidate's services are to change.
type updating struct {
	First, Times int
}

// updated is how long that took.
type updated struct {
	Took    time.Duration // of the updates alone
	Longest time.Duration
}

// checkUpdate changes a gateway's services again and again under a thousand
// requests a second, of which none may fail: their policy, their connections,
// their replicas, and others that come and go. -n: other than 10,000 times.
func checkUpdate(ctx context.Context, s settings) error {
	r, err := newRig(ctx, candidateConfig{Kind: "gateway", Uncached: true}, originConfig{})
	if err != nil {
		return err
	}
	defer r.stop()
	times := s.count(10_000)
	warm := max(times/20, 1)
	if _, _, err := r.update(ctx, updating{0, warm}); err != nil {
		return err
	}
	before, err := r.calm()
	if err != nil {
		return err
	}
	took, got, err := r.update(ctx, updating{warm, times})
	if err != nil {
		return err
	}
	if err := r.alone(ctx, before.Descriptors); err != nil {
		return err
	}
	after, err := r.calm()
	if err != nil {
		return err
	}
	fmt.Printf("%s\n\n%d updates took %v each, the longest %v; %d requests meanwhile, %d without a response: %v\n",
		machine(), times, took.Took/time.Duration(times), took.Longest, got.Sent, got.Failed, got.Statuses)
	fmt.Printf("answers: %v\nlive heap %d KiB before, %d KiB after; goroutines %d and %d; descriptors %d and %d\n",
		got.Good, before.Heap>>10, after.Heap>>10, before.Goroutines, after.Goroutines, before.Descriptors, after.Descriptors)
	var faults []error
	if got.Failed > 0 {
		faults = append(faults, fmt.Errorf("%d requests had no response: %v", got.Failed, got.Failures))
	}
	for key, n := range got.Statuses {
		if !strings.HasSuffix(key, " 200") {
			faults = append(faults, fmt.Errorf("%d answers are %s", n, key))
		}
	}
	if got.Sent == 0 {
		faults = append(faults, errors.New("nothing was asked"))
	}
	if after.Heap > before.Heap+updateHeap {
		faults = append(faults, fmt.Errorf("%d bytes more are live", after.Heap-before.Heap))
	}
	if after.Goroutines > before.Goroutines+2 {
		faults = append(faults, fmt.Errorf("%d goroutines more", after.Goroutines-before.Goroutines))
	}
	return errors.Join(faults...)
}

// update has the candidate change its services while it is asked.
func (r *rig) update(ctx context.Context, u updating) (took updated, got paceResult, err error) {
	loaded := make(chan error, 1)
	go func() {
		var err error
		got, err = ask[paceResult](r.load, "pace", paceConfig{
			Addr: r.addr, Rate: goodRate, InFlight: 128, Duration: time.Duration(u.Times)*(updatePause+updatePause/2) + time.Second,
			Mix: []request{
				{Method: http.MethodGet, Path: "/api/bench/bytes/20480?after=20ms", WantSize: 20480},
				{Method: http.MethodPost, Path: "/api/bench/bytes/1024?after=5ms", BodySize: 1024, WantSize: 1024},
				{Method: http.MethodGet, Path: "/api/bench/bytes/1024", WantSize: 1024},
			},
		})
		loaded <- err
	}()
	if !pause(ctx, time.Second/2) {
		return took, got, errors.Join(context.Cause(ctx), <-loaded)
	}
	took, err = ask[updated](r.candidate, "update", u)
	return took, got, errors.Join(err, <-loaded)
}

// update changes the services, each time in another way.
func (c *candidate) update(u updating) (out updated, err error) {
	for n := range u.Times {
		began := time.Now()
		if err := c.mounted.update(u.First + n); err != nil {
			return out, err
		}
		took := time.Since(began)
		out.Took += took
		out.Longest = max(out.Longest, took)
		pause(context.Background(), updatePause)
	}
	return out, nil
}
