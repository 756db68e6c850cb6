package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// A tour sends traffic to an app over real sockets and judges what comes back.
type tour struct {
	app    *app
	out    io.Writer
	client *http.Client
	bearer string // sent with each request; "": none
	accept string // likewise
	book   book
}

// book is what the tour itself knows of its traffic, for the metrics to agree
// with.
type book struct {
	asked   map[string]uint64 // by service
	refused map[string]uint64 // by reason
	hits    uint64
	repeats uint64
}

// A step shows one thing. Its error says what was not as promised.
type step struct {
	name, promise string
	take          func(*tour, context.Context) error
}

const tourTime = 30 * time.Second

// runTour builds an app, takes every step, and fails if one of them does.
func runTour(ctx context.Context, s settings, out io.Writer) error {
	failed, err := takeSteps(ctx, s, out)
	switch {
	case err != nil:
		return err
	case len(failed) > 0:
		return fmt.Errorf("not as promised: %s", strings.Join(failed, ", "))
	}
	_, err = fmt.Fprintln(out, "All as promised.")
	return err
}

// takeSteps returns the names of the steps that failed.
func takeSteps(ctx context.Context, s settings, out io.Writer) (failed []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, tourTime)
	defer cancel()
	listener, err := net.Listen("tcp", freeAddr)
	if err != nil {
		return nil, err
	}
	t := &tour{
		out: out, client: &http.Client{Transport: &http.Transport{ExpectContinueTimeout: tourTime}},
		book: book{asked: map[string]uint64{}, refused: map[string]uint64{}},
	}
	if t.app, err = newApp(listener, s); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	defer t.app.close()
	defer t.client.CloseIdleConnections()
	t.app.start()
	for i, step := range steps() {
		fmt.Fprintf(out, "%2d. %s: %s\n", i+1, step.name, step.promise)
		verdict := "ok"
		if err := step.take(t, ctx); err != nil {
			failed = append(failed, step.name)
			verdict = "FAILED: " + err.Error()
		}
		fmt.Fprintf(out, "    %s\n", verdict)
	}
	return failed, nil
}

func (t *tour) say(format string, args ...any) { fmt.Fprintf(t.out, "    "+format+"\n", args...) }

// reply is an answer that has been read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// seen is what the service said it saw.
func (r *reply) seen() (s seen, err error) {
	if err := json.Unmarshal(r.body, &s); err != nil {
		return s, fmt.Errorf("the body is not from a service: %w", err)
	}
	return s, nil
}

func (r *reply) want(status int) error {
	if r.status != status {
		return fmt.Errorf("status %d, not %d: %s", r.status, status, strings.TrimSpace(string(r.body)))
	}
	return nil
}

// get asks the app, by path, or a service, by URL.
func (t *tour) get(ctx context.Context, target string) (*reply, error) {
	return t.send(ctx, http.MethodGet, target, http.NoBody)
}

// getJSON is get for JSON alone.
func (t *tour) getJSON(ctx context.Context, target string) (*reply, error) {
	t.accept = "application/json"
	defer func() { t.accept = "" }()
	return t.get(ctx, target)
}

// send sends a request, and says how it was answered.
func (t *tour) send(ctx context.Context, method, target string, body io.Reader) (*reply, error) {
	r, err := t.ask(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	line := fmt.Sprintf("%s %s: %d", method, target, r.status)
	if status := r.header.Get("Cache-Status"); status != "" {
		line += ", Cache-Status " + status
	}
	t.say("%s", line)
	return r, nil
}

func (t *tour) ask(ctx context.Context, method, target string, body io.Reader) (*reply, error) {
	resp, err := t.do(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	r := &reply{status: resp.StatusCode, header: resp.Header}
	if r.body, err = io.ReadAll(resp.Body); err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, target, err)
	}
	t.book.enter(target, r)
	return r, nil
}

// do sends a request. Who gets the response closes its body.
func (t *tour) do(ctx context.Context, method, target string, body io.Reader) (*http.Response, error) {
	req, err := t.request(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	return t.client.Do(req)
}

// request is one to the app, or, with a whole URL, to anybody.
func (t *tour) request(ctx context.Context, method, target string, body io.Reader) (*http.Request, error) {
	if strings.HasPrefix(target, "/") {
		target = t.app.url + target
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if t.accept != "" {
		req.Header.Set("Accept", t.accept)
	}
	if t.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+t.bearer)
	}
	return req, nil
}

// enter notes an answer that came through the gateway.
func (b *book) enter(target string, r *reply) {
	path, ok := strings.CutPrefix(target, "/api/")
	if !ok {
		return
	}
	service, _, _ := strings.Cut(path, "/")
	b.asked[service]++
	if strings.Contains(r.header.Get("Cache-Status"), "; hit") {
		b.hits++
	}
	if reason := r.reason(); reason != "" {
		b.refused[reason]++
	}
}

// reason is why the gateway, if it did, answered in the place of a service.
func (r *reply) reason() string {
	var problem struct {
		Reason string `json:"reason"`
	}
	if r.header.Get("Content-Type") != "application/problem+json" || json.Unmarshal(r.body, &problem) != nil {
		return ""
	}
	return problem.Reason
}

// is says how got differs from what was promised.
func is[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s is %v, not %v", what, got, want)
	}
	return nil
}

// contains says what is missing in text.
func contains(what, text, part string) error {
	if !strings.Contains(text, part) {
		return fmt.Errorf("%s is %q, without %q", what, text, part)
	}
	return nil
}
