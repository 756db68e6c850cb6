package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/embedgw/gateway"
)

// patience is how long the tour waits for what the gateway notices by itself.
const patience = 5 * time.Second

// takeReplicas kills one of two replicas, and brings it back.
func (t *tour) takeReplicas(ctx context.Context) error {
	second := t.app.service("prices").others[0]
	if err := t.share(ctx, "first", "second"); err != nil {
		return err
	}
	second.dead.Store(true)
	defer second.dead.Store(false)
	t.say("the second replica dies: its connections break off")
	if err := errors.Join(t.share(ctx, "first"), t.find(ctx, second, "unhealthy"), t.share(ctx, "first")); err != nil {
		return err
	}
	second.dead.Store(false)
	t.say("the second replica is back")
	return errors.Join(t.find(ctx, second, "healthy"), t.share(ctx, "first", "second"))
}

// share asks the service a few times. All is answered, by the replicas that it
// names.
func (t *tour) share(ctx context.Context, replicas ...string) error {
	const times, target = 6, "/api/prices/1"
	answers := map[string]int{}
	for range times {
		r, err := t.ask(ctx, http.MethodGet, target, http.NoBody)
		if err != nil {
			return err
		}
		if err := r.want(http.StatusOK); err != nil {
			return err
		}
		s, err := r.seen()
		if err != nil {
			return err
		}
		answers[s.Replica]++
	}
	by := strings.Join(slices.Sorted(maps.Keys(answers)), ", ")
	t.say("GET %s, %d times: all 200, by %s", target, times, by)
	return is("who answers", by, strings.Join(replicas, ", "))
}

// find waits until the gateway has found out how a replica is.
func (t *tour) find(ctx context.Context, replica *upstream, health string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		for _, r := range t.app.gateway.Stats().Services[replica.name].Replicas {
			if replica.url == "http://"+r.Address && r.Health == health {
				t.say("the gateway has found the %s replica %s", replica.replica, health)
				return nil
			}
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("the %s replica is not found %s: %w", replica.replica, health, err)
		}
	}
}

// pause waits before another look.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(checkInterval / 2): //nolint:mnd // twice as often
		return nil
	}
}

// takeBreaker has a service fail until its circuit breaker opens, and then work
// until that closes.
func (t *tour) takeBreaker(ctx context.Context) error {
	const broken = "/api/stock/broken"
	for range breakerVolume {
		r, err := t.ask(ctx, http.MethodGet, broken, http.NoBody)
		if err != nil {
			return err
		}
		if err := r.want(http.StatusInternalServerError); err != nil {
			return err
		}
	}
	t.say("GET %s, %d times: all 500", broken, breakerVolume)
	if err := t.changes(ctx, gateway.BreakerOpen); err != nil {
		return err
	}
	if err := t.refused(ctx, "/api/stock/1", http.StatusServiceUnavailable, gateway.ReasonBreakerOpen); err != nil {
		return err
	}
	r, err := t.admitted(ctx, "/api/stock/1")
	if err != nil {
		return err
	}
	s, err := r.seen()
	if err != nil {
		return err
	}
	t.say("all that, and stock has been asked %d times", s.Call)
	return errors.Join(t.changes(ctx, gateway.BreakerHalfOpen), t.changes(ctx, gateway.BreakerClosed), is("its call", s.Call, breakerVolume+1))
}

// changes waits until the circuit breaker has changed.
func (t *tour) changes(ctx context.Context, to gateway.BreakerState) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case c := <-t.app.changes:
		t.say("the circuit breaker of %s: %s -> %s", c.service, c.from, c.to)
		return is("the circuit breaker", c.to, to)
	case <-ctx.Done():
		return fmt.Errorf("the circuit breaker does not become %s", to)
	}
}

// admitted asks until the circuit breaker lets a request pass.
func (t *tour) admitted(ctx context.Context, target string) (*reply, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for refused := 0; ; refused++ {
		r, err := t.ask(ctx, http.MethodGet, target, http.NoBody)
		if err != nil {
			return nil, err
		}
		if r.reason() != string(gateway.ReasonBreakerOpen) {
			t.say("GET %s: refused %d times more, then %d", target, refused, r.status)
			return r, r.want(http.StatusOK)
		}
		if err := pause(ctx); err != nil {
			return nil, fmt.Errorf("the circuit breaker stays open: %w", err)
		}
	}
}

// takeHedging asks for what the replica that is asked first does not answer.
func (t *tour) takeHedging(ctx context.Context) error {
	began := time.Now()
	r, err := t.get(ctx, "/api/prices/late")
	if err != nil {
		return err
	}
	took := time.Since(began)
	if err := r.want(http.StatusOK); err != nil {
		return err
	}
	s, err := r.seen()
	if err != nil {
		return err
	}
	hedges := t.app.gateway.Stats().Services["prices"].Hedges
	t.say("answered after %v, by the %s replica; requests that were sent twice: %d", took.Round(time.Millisecond), s.Replica, hedges)
	return errors.Join(is("the answer's place", s.Call, 2), is("in time", took < timeout, true), is("sent twice", hedges > 0, true))
}

// takeEvents follows an event stream, and asks the service how far it is.
func (t *tour) takeEvents(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := t.do(ctx, http.MethodGet, "/api/orders/events", http.NoBody)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := is("Content-Type", resp.Header.Get("Content-Type"), "text/event-stream"); err != nil {
		return err
	}
	events := bufio.NewScanner(resp.Body)
	for n := 1; n <= 2; n++ {
		for events.Scan() && events.Text() == "" { // the end of an event
		}
		if err := contains("the event", events.Text(), fmt.Sprintf("data: order %d ", n)); err != nil {
			return errors.Join(err, events.Err())
		}
		sent, err := t.ask(ctx, http.MethodGet, t.app.service("orders").url+"/sent", http.NoBody)
		if err != nil {
			return err
		}
		t.say("%s; the service has sent %s", events.Text(), sent.body)
		if err := is("what was sent", string(sent.body), fmt.Sprint(n)); err != nil {
			return err
		}
	}
	return nil
}
