package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/embedgw/gateway"
)

// A rig is what most checks need: an origin, a candidate before it, a load and
// peers.
type rig struct {
	origin, candidate, load, peers *child
	url                            string // of the origin
	addr                           string // of the candidate
}

// newRig starts all of it. The candidate is told where the origin is.
func newRig(ctx context.Context, c candidateConfig, o originConfig, env ...string) (_ *rig, err error) {
	r := new(rig)
	defer func() {
		if err != nil {
			r.stop()
		}
	}()
	var addr string
	if r.origin, addr, err = startWith(ctx, "origin", o); err != nil {
		return nil, err
	}
	r.url = "http://" + addr
	c.Upstream = r.url
	if r.candidate, r.addr, err = startWith(ctx, "candidate", c, env...); err != nil {
		return nil, err
	}
	if r.load, err = start(ctx, "load"); err != nil {
		return nil, err
	}
	r.peers, err = start(ctx, "peers")
	return r, err
}

func (r *rig) stop() {
	for _, c := range []*child{r.load, r.peers, r.candidate, r.origin} {
		if c != nil {
			c.stop()
		}
	}
}

func (r *rig) usage() (usage, error) { return ask[usage](r.candidate, "usage", nothing{}) }
func (r *rig) calm() (usage, error)  { return ask[usage](r.candidate, "calm", nothing{}) }
func (r *rig) counts() (counts, error) {
	return ask[counts](r.origin, "counts", nothing{})
}

func (r *rig) stats() (gateway.Stats, error) {
	return ask[gateway.Stats](r.candidate, "stats", nothing{})
}

// until asks until what is wanted is so.
func until(ctx context.Context, within time.Duration, what string, so func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, errTooLate)
	defer cancel()
	for {
		ok, err := so()
		if err != nil || ok {
			return err
		}
		if !pause(ctx, 20*time.Millisecond) {
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
}

var errTooLate = errors.New("not in time")

// holds waits until the origin has that many requests in its hands.
func (r *rig) holds(ctx context.Context, n int64) error {
	var last counts
	err := until(ctx, 20*time.Second, fmt.Sprintf("%d requests at the upstream", n), func() (ok bool, err error) {
		last, err = r.counts()
		return last.Held == n, err
	})
	if err != nil {
		return fmt.Errorf("%w; there are %d", err, last.Held)
	}
	return nil
}

// stalled waits until that many streams are under way and no more is written.
func (r *rig) stalled(ctx context.Context, streams int64) error {
	written, same := int64(-1), 0
	return until(ctx, 60*time.Second, "the streams to stand still", func() (bool, error) {
		at, err := r.counts()
		if same++; at.Written != written {
			written, same = at.Written, 0
		}
		if err == nil && at.Held != streams {
			err = fmt.Errorf("%d streams are under way, want %d", at.Held, streams)
		}
		return same == 15, err
	})
}

// alone waits until nothing is open but what was open before.
func (r *rig) alone(ctx context.Context, descriptors int64) error {
	if err := r.origin.tell("hangup", nothing{}); err != nil {
		return err
	}
	var last usage
	err := until(ctx, 20*time.Second, "idle connections to be closed", func() (ok bool, err error) {
		last, err = r.usage()
		return last.Descriptors <= descriptors, err
	})
	if err != nil {
		return fmt.Errorf("%w; %d descriptors, %d before", err, last.Descriptors, descriptors)
	}
	return nil
}

// get is a request of the peers.
func get(path string) []byte {
	return []byte("GET /api/bench" + path + " HTTP/1.1\r\nHost: bench.test\r\n\r\n")
}
