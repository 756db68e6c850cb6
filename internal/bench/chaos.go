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
	outageRatio  = 1.10 // of upstream to client requests, after the first second
	openRatio    = 0.02 // once the breaker is open
	openTail     = 50 * time.Millisecond
	openBy       = 5 * time.Second // into the outage
	hiddenGets   = 1.02            // of GETs that reach an upstream to those that were sent
	churnConns   = 70              // for 3000 requests, 64 at once
	halfPerHost  = 5               // failed answers before a host is left alone
	halfOfAnswer = 0.001           // and of all others
)

// checkChaos has upstreams fail in every way, and counts at their listeners.
// -t: each outage other than 60 s.
func checkChaos(ctx context.Context, s settings) error {
	fmt.Println(machine())
	lasting := s.lasting(time.Minute)
	var faults []error
	for _, check := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"reset", func(ctx context.Context) error { return outage(ctx, modeReset, lasting) }},
		{"503", func(ctx context.Context) error { return outage(ctx, mode503, lasting) }},
		{"blackhole", func(ctx context.Context) error { return outage(ctx, modeHole, lasting) }},
		{"half outage", func(ctx context.Context) error { return halfOutage(ctx, min(lasting, 30*time.Second)) }},
		{"closed idle connections", func(ctx context.Context) error { return idleKiller(ctx, min(lasting, 20*time.Second)) }},
		{"churn", churn},
	} {
		if err := check.run(ctx); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", check.name, err))
		}
	}
	return errors.Join(faults...)
}

// attempts are what reached the origin: requests, and connections that did not
// live to bring one.
func (c counts) attempts(mode string) int64 {
	if mode == modeReset {
		return c.Requests + c.Accepted
	}
	return c.Requests
}

// span is a part of an outage: what was sent, and what came of it.
type span struct {
	paceResult
	attempts int64
}

func (s span) ratio() float64 { return float64(s.attempts) / float64(max(s.Sent, 1)) }

// through sends for so long, and counts at the listeners.
func (r *rig) through(c paceConfig, mode string, lasting time.Duration) (s span, err error) {
	before, err := r.counts()
	if err != nil {
		return s, err
	}
	c.Addr, c.Duration = r.addr, lasting
	if s.paceResult, err = ask[paceResult](r.load, "pace", c); err != nil {
		return s, err
	}
	after, err := r.counts()
	s.attempts = after.attempts(mode) - before.attempts(mode)
	return s, err
}

// outage is a full one (all that there is fails, in one way).
func outage(ctx context.Context, mode string, lasting time.Duration) error {
	r, err := newRig(ctx, candidateConfig{Kind: "gateway", Timeout: time.Second, AttemptTimeout: 300 * time.Millisecond, Conns: 10_000}, originConfig{})
	if err != nil {
		return err
	}
	defer r.stop()
	load := paceConfig{Rate: goodRate, InFlight: 1500, Mix: []request{{Method: http.MethodGet, Path: "/api/bench/bytes/1024", WantSize: 1024}}}
	well, err := r.through(load, modeServe, 2*time.Second)
	if err = errors.Join(err, well.flawless()); err != nil {
		return err
	}
	if err := r.origin.tell("mode", mode); err != nil {
		return err
	}
	var first, second, open span
	for _, part := range []struct {
		into    *span
		lasting time.Duration
	}{{&first, time.Second}, {&second, openBy - time.Second}, {&open, max(lasting-openBy, time.Second)}} {
		load.Mix[0].First += 1_000_000 // no two are alike
		if *part.into, err = r.through(load, mode, part.lasting); err != nil {
			return err
		}
	}
	rest := span{attempts: second.attempts + open.attempts}
	rest.Sent = second.Sent + open.Sent
	fmt.Printf("\n%s at %d requests a second: attempts for each %.3f in the first second, %.3f after it (may be %.2f), %.3f after %v (may be %.2f)\n",
		mode, goodRate, first.ratio(), rest.ratio(), outageRatio, open.ratio(), openBy, openRatio)
	fmt.Printf("answers after %v: %v, p99 %v (may be %v), without an answer %d\n", openBy, open.Statuses, open.Refused.P99, openTail, open.Failed)
	var faults []error
	if rest.ratio() > outageRatio {
		faults = append(faults, fmt.Errorf("%.3f attempts for each request after the first second", rest.ratio()))
	}
	if open.ratio() > openRatio {
		faults = append(faults, fmt.Errorf("%.3f attempts for each request after %v", open.ratio(), openBy))
	}
	if open.Refused.P99 > openTail {
		faults = append(faults, fmt.Errorf("the p99 of refusals is %v", open.Refused.P99))
	}
	for _, part := range []span{first, second, open} {
		if part.Failed > 0 {
			faults = append(faults, fmt.Errorf("%d requests got no answer of the gateway's own: %+v", part.Failed, part.Failures[0]))
		}
	}
	return errors.Join(append(faults, r.agrees(mode, well, first, second, open))...)
}

// agrees compares what the gateway has counted with what its client and its
// upstream have.
func (r *rig) agrees(mode string, parts ...span) error {
	stats, err := r.stats()
	if err != nil {
		return err
	}
	var sent, attempts int64
	for _, part := range parts {
		sent += part.Sent
		attempts += part.attempts
	}
	var faults []error
	if stats.Requests != uint64(sent) {
		faults = append(faults, fmt.Errorf("the gateway counts %d requests, its client %d", stats.Requests, sent))
	}
	counted := int64(stats.Requests + stats.Retries - stats.Errors[gateway.ReasonBreakerOpen])
	if mode != modeReset && counted != attempts { // where a connection kept from before is found dead, and replaced, no request was made
		faults = append(faults, fmt.Errorf("the gateway counts %d attempts, its upstream %d", counted, attempts))
	}
	return errors.Join(faults...)
}

// halfOutage is one of two replicas that answers 503 to everything.
func halfOutage(ctx context.Context, lasting time.Duration) error {
	bad, addr, err := startWith(ctx, "origin", originConfig{Mode: mode503})
	if err != nil {
		return err
	}
	defer bad.stop()
	r, err := newRig(ctx, candidateConfig{Kind: "gateway", Replicas: []string{"http://" + addr}}, originConfig{})
	if err != nil {
		return err
	}
	defer r.stop()
	load := paceConfig{Rate: goodRate, InFlight: 256, Mix: []request{{Method: http.MethodGet, Path: "/api/bench/bytes/1024", WantSize: 1024}}}
	both := func(lasting time.Duration) (span, error) {
		before, err := ask[counts](bad, "counts", nothing{})
		if err != nil {
			return span{}, err
		}
		load.Mix[0].First += 1_000_000
		s, err := r.through(load, modeServe, lasting)
		if err != nil {
			return s, err
		}
		after, err := ask[counts](bad, "counts", nothing{})
		s.attempts += after.Requests - before.Requests
		return s, err
	}
	first, err := both(2 * time.Second)
	if err != nil {
		return err
	}
	rest, err := both(lasting)
	if err != nil {
		return err
	}
	failed := first.Refused.Count + first.Failed + rest.Refused.Count + rest.Failed
	most := 2*halfPerHost + int64(halfOfAnswer*float64(first.Sent+rest.Sent))
	fmt.Printf("\nhalf outage: %d of %d requests failed, may %d; attempts for each %.3f in the first 2 s, %.3f after it (may be %.2f)\n",
		failed, first.Sent+rest.Sent, most, first.ratio(), rest.ratio(), outageRatio)
	var faults []error
	if failed > most {
		faults = append(faults, fmt.Errorf("%d requests failed, may %d: %v, then %v", failed, most, first.Statuses, rest.Statuses))
	}
	if rest.ratio() > outageRatio {
		faults = append(faults, fmt.Errorf("%.3f attempts for each request after the first 2 s", rest.ratio()))
	}
	return errors.Join(faults...)
}

// idleKiller is an upstream that closes its idle connections every 100 ms.
func idleKiller(ctx context.Context, lasting time.Duration) error {
	j, err := newJournal()
	if err != nil {
		return err
	}
	defer j.remove()
	r, err := newRig(ctx, candidateConfig{Kind: "gateway"}, originConfig{Journal: j.path})
	if err != nil {
		return err
	}
	defer r.stop()
	killing, cancel := context.WithCancel(ctx)
	defer cancel()
	killed := make(chan error, 1)
	go func() {
		var err error
		for err == nil && pause(killing, 100*time.Millisecond) {
			err = r.origin.tell("hangup", nothing{})
		}
		killed <- err
	}()
	mix := []request{
		{Method: http.MethodGet, Path: "/api/bench/bytes/1024", WantSize: 1024},
		{Method: http.MethodPost, Path: "/api/bench/bytes/1024", BodySize: 1024, WantSize: 1024},
	}
	got, err := ask[paceResult](r.load, "pace", paceConfig{Addr: r.addr, Rate: goodRate, Duration: lasting, InFlight: 64, Mix: mix})
	cancel()
	if err = errors.Join(err, <-killed); err != nil {
		return err
	}
	return judgeHidden(&got, j)
}

func judgeHidden(got *paceResult, j *journal) error {
	seen, err := j.read()
	if err != nil {
		return err
	}
	gets, posts := 0, 0
	var faults []error
	for key, n := range seen {
		if key[0] == 'G' {
			gets += n
			continue
		}
		if posts += n; n > 1 {
			faults = append(faults, fmt.Errorf("%s was seen %d times", key, n))
		}
	}
	ratio := float64(gets) / float64(max(got.Statuses["GET 200"], 1))
	fmt.Printf("\nidle connections closed every 100 ms: %v, %d without an answer; %d GETs and %d POSTs were seen, %.3f for each GET (may be %.2f)\n",
		got.Statuses, got.Failed, gets, posts, ratio, hiddenGets)
	if ratio > hiddenGets {
		faults = append(faults, fmt.Errorf("%.3f GETs were seen for each", ratio))
	}
	for key, n := range got.Statuses {
		if key[:3] == "GET" && key != "GET 200" {
			faults = append(faults, fmt.Errorf("%d answers are %s", n, key))
		}
	}
	if got.Failed > 0 {
		faults = append(faults, fmt.Errorf("%d requests got no answer: %+v", got.Failed, got.Failures[0]))
	}
	return errors.Join(faults...)
}

// churn is many short requests, for which connections must be kept.
func churn(ctx context.Context) error {
	r, err := newRig(ctx, candidateConfig{Kind: "gateway"}, originConfig{})
	if err != nil {
		return err
	}
	defer r.stop()
	_, err = ask[loadResult](r.load, "run", loadConfig{Addr: r.addr, InFlight: 64, Requests: 3000, request: request{
		Method: http.MethodGet, Path: "/api/bench/bytes/1024", WantSize: 1024,
	}})
	if err != nil {
		return err
	}
	at, err := r.counts()
	fmt.Printf("\n3000 requests, 64 at once: %d connections to the upstream, may be %d\n", at.Accepted, churnConns)
	if err == nil && at.Accepted > churnConns {
		err = fmt.Errorf("%d connections", at.Accepted)
	}
	return err
}
