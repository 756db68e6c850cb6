package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"
)

type candidateConfig struct {
	Kind     string   // of mounts
	Upstream string   // its URL
	Replicas []string // further URLs of the same service

	CacheBytes     int64 // the gateway's; 0: its default
	Uncached       bool  // its service goes without
	Timeout        time.Duration
	AttemptTimeout time.Duration
	BodyIdle       time.Duration
	Acquire        time.Duration // of a connection
	Conns          int           // to a replica
	Dashboard      bool          // is mounted
	Descriptors    uint64        // that the process may have; 0: as many as it got

	// bare writes these bytes
	Status    int // 0: 200
	After     time.Duration
	Header    http.Header
	BodySize  int
	Bodies    int  // how many of them
	Patterned bool // as the origin's
}

// candidate is the process whose cost is measured: a server with one handler.
type candidate struct {
	server     *http.Server
	mounted    mounted
	goroutines int64 // before there was a server
	watch      *watch
}

func (c *candidate) role() role {
	return role{
		"start":    does(c.start),
		"usage":    does(func(nothing) (usage, error) { return used() }),
		"settle":   does(c.settle),
		"calm":     does(c.calm),
		"watch":    does(c.beginWatch),
		"watched":  does(c.endWatch),
		"stacks":   does(c.stacks),
		"drain":    does(c.drain),
		"shutdown": does(c.shutdown),
		"stats":    does(c.stats),
		"update":   does(c.update),
	}
}

func (c *candidate) start(config candidateConfig) (addr string, err error) {
	slog.SetLogLoggerLevel(slog.LevelError) // a breaker that opens is what some checks are about
	c.goroutines = int64(runtime.NumGoroutine())
	mount, ok := mounts[config.Kind]
	if !ok {
		return "", fmt.Errorf("no such candidate: %q", config.Kind)
	}
	if config.Descriptors > 0 {
		limit := syscall.Rlimit{Cur: config.Descriptors, Max: config.Descriptors}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return "", err
		}
	}
	if c.mounted, err = mount(&config); err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", c.mounted.handler)
	if config.Dashboard {
		mux.Handle("/dashboard/", c.mounted.dashboard())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	c.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(complaints{}, "", 0)}
	if c.mounted.drain != nil {
		c.server.RegisterOnShutdown(c.mounted.drain)
	}
	go func() { _ = c.server.Serve(l) }() // until the process ends, or shutdown
	return l.Addr().String(), nil
}

// complaints are what net/http's server has to say, which is worth reading but
// for what a check provokes.
type complaints struct{}

func (complaints) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("http: Accept error")) {
		return len(line), nil
	}
	return os.Stderr.Write(line)
}

// settle has each measurement begin alike.
func (c *candidate) settle(nothing) (usage, error) {
	runtime.GC()
	return used()
}

// calm waits until the number of goroutines stands still, and collects what is
// garbage: what pools hold, in the second collection.
func (c *candidate) calm(nothing) (usage, error) {
	const (
		step   = 50 * time.Millisecond
		steady = 10 // steps
		most   = 20 * time.Second
	)
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	for same, last := 0, 0; same < steady; same++ {
		if now := runtime.NumGoroutine(); now != last {
			same, last = 0, now
		}
		if !pause(ctx, step) {
			return usage{}, errors.New("the number of goroutines does not stand still")
		}
	}
	runtime.GC()
	return c.settle(nothing{})
}

// stacks tells where the goroutines are, most of them first.
func (c *candidate) stacks(nothing) (string, error) {
	var b bytes.Buffer
	err := pprof.Lookup("goroutine").WriteTo(&b, 1)
	return b.String(), err
}

func (c *candidate) drain(nothing) (nothing, error) {
	c.mounted.drain()
	return nothing{}, nil
}

// ending is how a shutdown went.
type ending struct {
	Took       time.Duration
	Failed     string
	Goroutines int64 // more than before the server began
}

// shutdown ends the server as an application does, within the time given.
func (c *candidate) shutdown(within time.Duration) (ending, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var e ending
	began := time.Now()
	if err := errors.Join(c.server.Shutdown(ctx), c.mounted.shutdown(ctx)); err != nil {
		e.Failed = err.Error()
	}
	e.Took = time.Since(began)
	ctx, cancel = context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for {
		if e.Goroutines = int64(runtime.NumGoroutine()) - c.goroutines; e.Goroutines <= 0 || !pause(ctx, 10*time.Millisecond) {
			return e, nil
		}
	}
}

func (c *candidate) stats(nothing) (any, error) {
	if c.mounted.stats == nil {
		return nil, errors.New("it counts nothing")
	}
	return c.mounted.stats(), nil
}

// pause waits, and reports whether ctx lasted as long.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
