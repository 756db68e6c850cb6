package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

type settings struct {
	pairs    int
	duration time.Duration // 0: as long as usual
	requests int           // 0: as many as usual
	warm     time.Duration
	only     string
	lines    []string // only these, as whole ones
}

func (s settings) lasting(usual time.Duration) time.Duration {
	if s.duration > 0 {
		return s.duration
	}
	return usual
}

func (s settings) count(usual int) int {
	if s.requests > 0 {
		return s.requests
	}
	return usual
}

type workload struct {
	name      string
	method    string
	sent      int  // bytes of the request's body
	answered  int  // bytes of what is asked for
	validated bool // the client has it, and says so
	inFlight  int
	subjects  []subject
}

// A subject is a candidate and how it is used.
type subject struct {
	name     string
	kind     string // of candidate
	resource string // of the upstream: s may be stored, p may not
	against  string // the subject that its ratio is taken to
	stored   bool   // answers come from its cache, which is filled first
}

var (
	bare         = subject{name: "bare", kind: "bare", resource: "s"}
	hit          = subject{name: "hit", kind: "gateway", resource: "s", against: "bare", stored: true}
	reverseProxy = subject{name: "reverseproxy", kind: "reverseproxy", resource: "p"}
	miss         = subject{name: "miss", kind: "gateway", resource: "s", against: "reverseproxy"}
	pass         = subject{name: "pass", kind: "gateway", resource: "p", against: "reverseproxy"}
	traced       = subject{name: "traced", kind: "traced", resource: "p", against: "reverseproxy"}
)

const (
	storedEntries = 10_000 // of 1 KiB, in the gateway of a hit
	storedLarge   = 1_000  // beside them, where larger ones are asked for
)

func workloads() []workload {
	var all []workload
	for _, inFlight := range []int{1, 64} {
		get := []subject{bare, hit, reverseProxy, miss, pass, traced}
		all = append(all,
			workload{"1KiB GET", http.MethodGet, 0, 1 << 10, false, inFlight, get},
			workload{"1KiB 304", http.MethodGet, 0, 1 << 10, true, inFlight, []subject{bare, hit}},
			workload{"1KiB POST", http.MethodPost, 1 << 10, 1 << 10, false, inFlight, []subject{reverseProxy, pass, traced}},
			workload{"100KiB GET", http.MethodGet, 0, 100 << 10, false, inFlight, get},
		)
	}
	return all
}

func (w workload) String() string { return fmt.Sprintf("%s x%d", w.name, w.inFlight) }

// A round is one measurement of one subject.
type round struct {
	Workload, Subject, Against string
	Pair                       int
	Requests                   int64
	PerSecond                  float64
	CPU, P50, P99              time.Duration // CPU: of the candidate, per request
	Mallocs, Bytes             float64       // per request
	RSS                        uint64
}

// selected returns the workloads that -only names. What a subject is compared
// with comes along.
func (s settings) selected() []workload {
	var chosen []workload
	for _, w := range workloads() {
		keep := map[string]bool{}
		for _, sub := range w.subjects {
			if line := w.String() + " " + sub.name; slices.Contains(s.lines, line) || s.lines == nil && strings.Contains(line, s.only) {
				keep[sub.name], keep[sub.against] = true, true
			}
		}
		var subjects []subject
		for _, sub := range w.subjects {
			if keep[sub.name] {
				subjects = append(subjects, sub)
			}
		}
		if w.subjects = subjects; len(subjects) > 0 {
			chosen = append(chosen, w)
		}
	}
	return chosen
}

// A stand is what lasts through a whole measurement.
type stand struct {
	settings
	upstream *child
	url      string
	load     *child
	headers  map[answered]http.Header // what a hit of that kind answers with
	first    int64                    // of the keys last given out
}

// answered tells apart what a hit answers with.
type answered struct {
	size      int
	validated bool
}

func measure(ctx context.Context, s settings) ([]round, error) {
	chosen := s.selected()
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no workload contains %q", s.only)
	}
	b, err := newStand(ctx, s)
	if err != nil {
		return nil, err
	}
	defer b.stop()
	var rounds []round
	for i, w := range chosen {
		fmt.Fprintf(os.Stderr, "%d/%d %s\n", i+1, len(chosen), w)
		for pair := range s.pairs {
			for i := range w.subjects {
				sub := w.subjects[(i+pair)%len(w.subjects)] // nobody is always the first
				r, err := b.round(ctx, w, sub)
				if err != nil {
					return nil, fmt.Errorf("%s %s: %w", w, sub.name, err)
				}
				r.Pair = pair
				rounds = append(rounds, r)
			}
		}
	}
	return rounds, nil
}

func newStand(ctx context.Context, s settings) (*stand, error) {
	b := &stand{settings: s, headers: map[answered]http.Header{}}
	var err error
	if b.upstream, err = start(ctx, "upstream"); err != nil {
		return nil, err
	}
	if b.load, err = start(ctx, "load"); err != nil {
		b.upstream.stop()
		return nil, err
	}
	addr, err := ask[string](b.upstream, "start", nothing{})
	if err == nil {
		b.url = "http://" + addr
		err = b.learnHeaders(ctx)
	}
	if err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

func (b *stand) stop() {
	b.load.stop()
	b.upstream.stop()
}

// learnHeaders asks a gateway twice for each size: what the second answer
// carries is what a bare handler has to write to do the same work.
func (b *stand) learnHeaders(ctx context.Context) error {
	c, addr, err := b.candidate(ctx, &candidateConfig{Kind: "gateway", Upstream: b.url})
	if err != nil {
		return err
	}
	defer c.stop()
	for _, size := range bodySizes {
		for _, of := range []answered{{size, false}, {size, false}, {size, true}} {
			if b.headers[of], err = headerOf(ctx, addr, resource("s", size), of); err != nil {
				return err
			}
		}
		if b.headers[answered{size, false}].Get("Age") == "" {
			return errors.New("the second answer did not come from the cache")
		}
	}
	return nil
}

// headerOf asks for a resource, and returns the header of its answer.
func headerOf(ctx context.Context, addr, path string, of answered) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/api/bench"+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "gzip")
	status, length := http.StatusOK, int64(of.size)
	if of.validated {
		req.Header.Set("If-None-Match", etag("s", of.size))
		status, length = http.StatusNotModified, 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n != length || resp.StatusCode != status {
		return nil, fmt.Errorf("the gateway answered %s with %d bytes: %w", resp.Status, n, err)
	}
	return resp.Header, nil
}

func (b *stand) candidate(ctx context.Context, c *candidateConfig) (*child, string, error) {
	return startWith(ctx, "candidate", c)
}

// round measures one subject in a process of its own.
func (b *stand) round(ctx context.Context, w workload, s subject) (round, error) {
	var r round
	of := answered{w.answered, w.validated}
	config := &candidateConfig{Kind: s.kind, Upstream: b.url, Header: b.headers[of], BodySize: w.answered, Bodies: storedOf(w.answered)}
	if w.validated {
		config.Status, config.BodySize = http.StatusNotModified, 0
	}
	if s.stored {
		config.CacheBytes = 512 << 20 // all that is filled in
	}
	c, addr, err := b.candidate(ctx, config)
	if err != nil {
		return r, err
	}
	defer c.stop()
	run := loadConfig{Addr: addr, InFlight: w.inFlight, Duration: b.warm, request: request{
		Method: w.method, Path: "/api/bench" + resource(s.resource, w.answered), BodySize: w.sent, WantSize: w.answered, First: b.unused(),
	}}
	if s.stored {
		if run.Keys, err = b.fill(run); err != nil {
			return r, err
		}
	}
	if w.validated {
		run.Fields = "If-None-Match: " + etag(s.resource, w.answered) + "\r\n"
		run.WantStatus, run.WantSize = http.StatusNotModified, 0
	}
	if _, err := b.send(run); err != nil {
		return r, err
	}
	before, err := ask[usage](c, "settle", nothing{})
	if err != nil {
		return r, err
	}
	servedBefore, err := b.served()
	if err != nil {
		return r, err
	}
	run.Duration, run.Requests, run.First = b.lasting(time.Second), int64(b.requests), b.unused()
	result, err := b.send(run)
	if err != nil {
		return r, err
	}
	after, err := ask[usage](c, "usage", nothing{})
	if err != nil {
		return r, err
	}
	servedAfter, err := b.served()
	if err != nil {
		return r, err
	}
	if err := s.honest(result.Requests, servedAfter-servedBefore); err != nil {
		return r, err
	}
	n := float64(result.Requests)
	return round{
		Workload: w.String(), Subject: s.name, Against: s.against,
		Requests: result.Requests, PerSecond: n / result.Elapsed.Seconds(), P50: result.P50, P99: result.P99,
		CPU:     time.Duration(float64(after.CPU-before.CPU) / n),
		Mallocs: float64(after.Mallocs-before.Mallocs) / n,
		Bytes:   float64(after.Bytes-before.Bytes) / n,
		RSS:     after.RSS,
	}, nil
}

// fill stores what hits are asked for, and returns the number of its keys.
func (b *stand) fill(c loadConfig) (keys int, err error) {
	keys, c.InFlight, c.First = storedOf(c.WantSize), 8, 0
	c.Requests = int64(keys)
	if _, err = b.send(c); err != nil || keys == storedEntries {
		return keys, err
	}
	c.Requests = storedEntries // beside them
	c.Path, c.WantSize = "/api/bench"+resource("s", bodySizes[0]), bodySizes[0]
	_, err = b.send(c)
	return keys, err
}

// storedOf returns how many bodies of a size are stored.
func storedOf(size int) int {
	if size == bodySizes[0] {
		return storedEntries
	}
	return storedLarge
}

func (b *stand) send(c loadConfig) (loadResult, error) { return ask[loadResult](b.load, "run", c) }

func (b *stand) served() (int64, error) { return ask[int64](b.upstream, "served", nothing{}) }

// unused returns the first of many keys that no request has had.
func (b *stand) unused() int64 {
	b.first += 1 << 32
	return b.first
}

// honest checks that the work was what the subject's name says: all of it
// reached the upstream once, or none of it did.
func (s subject) honest(requests, served int64) error {
	want := requests
	if s.stored || s.kind == "bare" {
		want = 0
	}
	if served != want {
		return fmt.Errorf("%d requests reached the upstream %d times, want %d", requests, served, want)
	}
	return nil
}
