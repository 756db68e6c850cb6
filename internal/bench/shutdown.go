package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

const shutdownTime = 5 * time.Second // that a shutdown may take

// checkShutdown shuts a server down under a thousand requests a second, again
// and again. -n: other than 50 times.
func checkShutdown(ctx context.Context, s settings) error {
	var (
		faults []error
		total  shutdownRound
		times  = s.count(50)
	)
	for i := range times {
		round, err := shutdownOnce(ctx)
		if err != nil {
			return fmt.Errorf("time %d: %w", i+1, err)
		}
		for _, fault := range round.faults {
			faults = append(faults, fmt.Errorf("time %d: %w", i+1, fault))
		}
		total.add(&round)
	}
	fmt.Printf("%s\n\n%d shutdowns under %d requests a second: %d answered, %d refused by 503, %d not let in, %d in flight cut off\n",
		machine(), times, goodRate, total.answered, total.refused, total.outside, total.cut)
	fmt.Printf("the longest took %.2fs, may take %v\n", total.longest.Seconds(), shutdownTime)
	return errors.Join(faults...)
}

type shutdownRound struct {
	answered, refused, outside, cut int64
	longest                         time.Duration
	faults                          []error
}

func (t *shutdownRound) add(r *shutdownRound) {
	t.answered += r.answered
	t.refused += r.refused
	t.outside += r.outside
	t.cut += r.cut
	t.longest = max(t.longest, r.longest)
}

func shutdownOnce(ctx context.Context) (round shutdownRound, err error) {
	j, err := newJournal()
	if err != nil {
		return round, err
	}
	defer j.remove()
	r, err := newRig(ctx, candidateConfig{Kind: "gateway"}, originConfig{Journal: j.path})
	if err != nil {
		return round, err
	}
	defer r.stop()
	loaded := make(chan error, 1)
	var got paceResult
	go func() {
		var err error
		got, err = ask[paceResult](r.load, "pace", paceConfig{Addr: r.addr, Rate: goodRate, InFlight: 128, Duration: 1500 * time.Millisecond, Patience: shutdownTime, Mix: []request{
			{Method: http.MethodGet, Path: "/api/bench/bytes/20480?after=20ms", WantSize: 20480},
			{Method: http.MethodPost, Path: "/api/bench/bytes/1024?after=5ms", BodySize: 1024, WantSize: 1024},
			{Method: http.MethodGet, Path: "/api/bench/bytes/1024", WantSize: 1024},
		}})
		loaded <- err
	}()
	pause(ctx, 400*time.Millisecond+rand.N(600*time.Millisecond))
	end, err := ask[ending](r.candidate, "shutdown", shutdownTime)
	if err = errors.Join(err, <-loaded); err != nil {
		return round, err
	}
	seen, err := j.read()
	if err != nil {
		return round, err
	}
	round.longest = end.Took
	if fault := end.judge(shutdownTime); fault != nil {
		round.faults = append(round.faults, fault)
	}
	round.judge(&got, seen)
	return round, nil
}

// judge tells requests that were cut off from those that were never let in:
// the upstream has seen them, or their response had begun.
func (t *shutdownRound) judge(got *paceResult, seen map[string]int) {
	for key, n := range got.Statuses {
		switch {
		case strings.HasSuffix(key, " 200"):
			t.answered += n
		case strings.HasSuffix(key, " 503"):
			t.refused += n
		default:
			t.faults = append(t.faults, fmt.Errorf("%d answers are %s", n, key))
		}
	}
	for _, f := range got.Failures {
		switch {
		case f.Began:
			t.cut++
			t.faults = append(t.faults, fmt.Errorf("the response to %s %d was cut off: %s", f.Method, f.Key, f.Err))
		case !f.Refused && seen[fmt.Sprintf("%s %d", f.Method, f.Key)] > 0:
			t.cut++
			t.faults = append(t.faults, fmt.Errorf("%s %d was at the upstream, and got no response: %s", f.Method, f.Key, f.Err))
		default:
			t.outside++
		}
	}
	if t.answered == 0 {
		t.faults = append(t.faults, errors.New("nothing was answered"))
	}
	if untold := got.Failed - int64(len(got.Failures)); untold > 0 {
		t.faults = append(t.faults, fmt.Errorf("%d failures more than were looked at", untold))
	}
}
