package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// paceConfig is a load that keeps to its schedule, however long the answers
// take: the nth request is due n/Rate after the beginning, and its time is
// counted from when it was due.
type paceConfig struct {
	Addr     string
	Rate     float64 // requests a second
	Duration time.Duration
	InFlight int           // at most
	Mix      []request     // taken in turn
	Patience time.Duration // with one request; 0: 30 s
}

type paceResult struct {
	Sent     int64            // whatever became of them
	Statuses map[string]int64 // by method and status, such as "GET 200"
	Failures []failure        // without a response, or without all of it: the first of them
	Failed   int64            // all of them

	Good, Refused quantiles // of the answers below 500, and of the others
}

// failure is a request without a whole response.
type failure struct {
	Method  string
	Key     int64
	Began   bool // its response had
	Refused bool // there was no connection
	Err     string
}

type quantiles struct {
	Count         int64
	P50, P99, Max time.Duration
}

func quantilesOf(took []time.Duration) quantiles {
	if len(took) == 0 {
		return quantiles{}
	}
	slices.Sort(took)
	n := len(took)
	return quantiles{int64(n), took[n/2], took[n*99/100], took[n-1]}
}

// mostFailures are told one by one.
const mostFailures = 10_000

func (l *load) pace(c paceConfig) (paceResult, error) {
	if c.Patience == 0 {
		c.Patience = 30 * time.Second
	}
	p := paced{paceConfig: c, began: time.Now(), due: make(chan int64, int(c.Rate*c.Duration.Seconds())+1)}
	p.result.Statuses = map[string]int64{}
	for _, r := range c.Mix {
		p.contents = append(p.contents, body(r.BodySize))
	}
	var all sync.WaitGroup
	for _, client := range l.clientsOf(c.Addr, c.InFlight) {
		all.Go(func() { p.work(client) })
	}
	p.schedule()
	all.Wait()
	p.result.Good, p.result.Refused = quantilesOf(p.good), quantilesOf(p.refused)
	return p.result, nil
}

type paced struct {
	paceConfig
	contents [][]byte // of Mix
	began    time.Time
	due      chan int64

	mu            sync.Mutex
	result        paceResult
	good, refused []time.Duration
}

func (p *paced) at(n int64) time.Time {
	return p.began.Add(time.Duration(float64(n) / p.Rate * float64(time.Second)))
}

// schedule gives each request out when it is due. It never waits for anybody.
func (p *paced) schedule() {
	defer close(p.due)
	for n := range int64(cap(p.due)) - 1 {
		if left := time.Until(p.at(n)); left > 0 {
			sleepPrecisely(left)
		}
		p.due <- n
	}
}

func (p *paced) work(client *loadClient) {
	for n := range p.due {
		r := &p.Mix[n%int64(len(p.Mix))]
		status, fail := client.attempt(r, r.key(n), p.contents[n%int64(len(p.Mix))], p.Patience)
		took := time.Since(p.at(n))
		p.record(r.Method, status, took, fail)
	}
}

func (p *paced) record(method string, status int, took time.Duration, fail *failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.result.Sent++
	if fail != nil {
		if p.result.Failed++; len(p.result.Failures) < mostFailures {
			p.result.Failures = append(p.result.Failures, *fail)
		}
		return
	}
	p.result.Statuses[statusKey(method, status)]++
	if status >= 500 {
		p.refused = append(p.refused, took)
	} else {
		p.good = append(p.good, took)
	}
}

func statusKey(method string, status int) string { return fmt.Sprintf("%s %d", method, status) }

// flawless says what is wrong unless every request was answered with 200.
func (r *paceResult) flawless() error {
	good := int64(0)
	for key, n := range r.Statuses {
		if strings.HasSuffix(key, " 200") {
			good += n
		}
	}
	if r.Failed == 0 && good == r.Sent {
		return nil
	}
	return fmt.Errorf("of %d requests %d have no whole answer, such as %+v; %v, the refusals after %v at the most",
		r.Sent, r.Failed, r.Failures[:min(3, len(r.Failures))], r.Statuses, r.Refused.Max)
}

var errOtherLength = errors.New("another length than was asked for")

// attempt is an exchange, on a new connection if need be.
func (lc *loadClient) attempt(r *request, key int64, content []byte, patience time.Duration) (int, *failure) {
	if err := lc.connect(); err != nil {
		return 0, &failure{Method: r.Method, Key: key, Refused: true, Err: err.Error()}
	}
	err := lc.conn.SetDeadline(time.Now().Add(patience))
	var head []byte
	if err == nil {
		head, err = lc.exchange(r, key, content)
	}
	if err == nil && bytes.Contains(head, []byte("\r\nConnection: close\r\n")) {
		lc.hangUp()
	}
	if err == nil && (statusOf(head) != 200 || lc.in.length == r.WantSize) {
		return statusOf(head), nil
	}
	fail := &failure{Method: r.Method, Key: key, Began: err == nil || lc.in.begun()}
	if err == nil {
		err = errOtherLength
	}
	fail.Err = err.Error()
	lc.hangUp()
	return 0, fail
}
