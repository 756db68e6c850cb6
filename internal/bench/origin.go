package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// The origin is an upstream that can do wrong. What it does is said by the
// path, and by how it fails as a whole:
//
//	/bytes/{n}        n bytes at once (?after=duration: later), once the request's body has been read
//	/stored/{n}       n bytes that may be stored as ?control says (?after=duration: later)
//	/hold             no answer before release
//	/drip/{n}         n bytes, one every 500 ms
//	/stream/{n}       n bytes as fast as they are taken; /chunked/{n} without saying how many
//	/sink             the number of bytes and the checksum of what it was sent
//	/events           an event stream, numbered, one event a second
//	/socket           a WebSocket that echoes
//	/raw/{i}          the bytes of input i, and then the silence or the end that it asks for
type origin struct {
	mode     atomic.Pointer[string]
	accepted atomic.Int64
	open     atomic.Int64
	requests atomic.Int64
	held     atomic.Int64 // requests that wait for release, or streams that are being written
	written  atomic.Int64 // bytes of streams
	journal  *os.File
	server   *http.Server
	keys     keyed
	inputs   func() []input // of the amplification check, once they are asked for

	mu      sync.Mutex
	release chan struct{}
}

// How it fails as a whole.
const (
	modeServe = "serve"
	modeReset = "reset" // a connection is accepted and reset
	mode503   = "503"
	modeHole  = "blackhole" // requests are read and never answered
)

type originConfig struct {
	Addr    string // empty: one of its choice
	Journal string // the file to which the method and the k of each request are appended before it is answered; empty: none
	Mode    string
	Idle    time.Duration // after which it closes an idle connection; 0: never
}

// counts are since it began, but for Open and Held, which are now.
type counts struct{ Accepted, Open, Requests, Held, Written int64 }

func (o *origin) role() role {
	return role{
		"start":   does(o.start),
		"counts":  does(o.counts),
		"keyed":   does(o.keys.count),
		"mode":    does(o.setMode),
		"release": does(o.letGo),
		"hangup":  does(o.hangUp),
		"end":     does(o.end),
	}
}

func (o *origin) start(c originConfig) (addr string, err error) {
	if _, err := o.setMode(c.Mode); err != nil {
		return "", err
	}
	o.release, o.inputs = make(chan struct{}), sync.OnceValue(inputs)
	if c.Journal != "" {
		if o.journal, err = os.OpenFile(c.Journal, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
			return "", err
		}
	}
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	l, err := listenAgain(c.Addr)
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/bytes/{n}", o.bytes)
	mux.HandleFunc("/stored/{n}", o.stored)
	mux.HandleFunc("/hold", o.hold)
	mux.HandleFunc("/drip/{n}", o.drip)
	mux.HandleFunc("/stream/{n}", o.stream(true))
	mux.HandleFunc("/chunked/{n}", o.stream(false))
	mux.HandleFunc("/sink", o.sink)
	mux.HandleFunc("/events", o.events)
	mux.HandleFunc("/socket", o.socket)
	mux.HandleFunc("/raw/{i}", o.raw)
	o.server = &http.Server{
		Handler:     o.faulty(mux),
		IdleTimeout: c.Idle,
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				o.open.Add(1)
			case http.StateClosed, http.StateHijacked:
				o.open.Add(-1)
			}
		},
	}
	go func() { _ = o.server.Serve(&faultyListener{l, o}) }() // until the process ends
	return l.Addr().String(), nil
}

// listenAgain takes the address of a process that has just been killed.
func listenAgain(addr string) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for {
		l, err := net.Listen("tcp", addr)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || !pause(ctx, 10*time.Millisecond) {
			return l, err
		}
	}
}

func (o *origin) counts(nothing) (counts, error) {
	return counts{o.accepted.Load(), o.open.Load(), o.requests.Load(), o.held.Load(), o.written.Load()}, nil
}

func (o *origin) setMode(mode string) (nothing, error) {
	switch mode {
	case "":
		mode = modeServe
	case modeServe, modeReset, mode503, modeHole:
	default:
		return nothing{}, fmt.Errorf("no such mode: %q", mode)
	}
	o.mode.Store(&mode)
	return nothing{}, nil
}

// letGo answers what waits for it, and if it is for good what is still to come.
func (o *origin) letGo(forGood bool) (nothing, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.release)
	if !forGood {
		o.release = make(chan struct{})
	}
	return nothing{}, nil
}

// hangUp closes the connections that are idle.
func (o *origin) hangUp(nothing) (nothing, error) {
	o.server.SetKeepAlivesEnabled(false)
	o.server.SetKeepAlivesEnabled(true)
	return nothing{}, nil
}

// end serves what is under way, for at most so long.
func (o *origin) end(within time.Duration) (nothing, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return nothing{}, o.server.Shutdown(ctx)
}

func (o *origin) released() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.release
}

type faultyListener struct {
	net.Listener
	o *origin
}

func (l *faultyListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.o.accepted.Add(1)
		if *l.o.mode.Load() != modeReset {
			return c, c.(*net.TCPConn).SetWriteBuffer(64 << 10) // or the system would buffer megabytes
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
}

// faulty counts each request, writes it down, and serves it if it is a good day.
func (o *origin) faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.requests.Add(1)
		if o.journal != nil {
			if _, err := fmt.Fprintf(o.journal, "%s %s\n", r.Method, r.URL.Query().Get("k")); err != nil {
				panic(err)
			}
		}
		switch *o.mode.Load() {
		case modeReset: // a connection from before
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = c.(*net.TCPConn).SetLinger(0)
				_ = c.Close()
			}
		case mode503:
			http.Error(w, "out of order", http.StatusServiceUnavailable)
		case modeHole:
			<-r.Context().Done()
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// size is the {n} of the path, and the response's length unless it is to be chunked.
func size(w http.ResponseWriter, r *http.Request) (int64, bool) {
	n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
	if err != nil || n < 0 {
		http.Error(w, "no such number", http.StatusBadRequest)
		return 0, false
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	return n, true
}

var zeroes [64 << 10]byte

func (o *origin) bytes(w http.ResponseWriter, r *http.Request) {
	n, ok := size(w, r)
	if !ok {
		return
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	if after, err := time.ParseDuration(r.URL.Query().Get("after")); err == nil && !pause(r.Context(), after) {
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	for ; n > 0; n -= min(n, int64(len(zeroes))) {
		if _, err := w.Write(zeroes[:min(n, int64(len(zeroes)))]); err != nil {
			return
		}
	}
}

func (o *origin) stored(w http.ResponseWriter, r *http.Request) {
	n, ok := size(w, r)
	if !ok {
		return
	}
	query := r.URL.Query()
	defer o.keys.begin(query.Get("k"))()
	if after, err := time.ParseDuration(query.Get("after")); err == nil && !pause(r.Context(), after) {
		return
	}
	w.Header().Set("Cache-Control", query.Get("control"))
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.Copy(w, newPattern(n))
}

func (o *origin) hold(w http.ResponseWriter, r *http.Request) {
	release := o.released()
	o.held.Add(1)
	defer o.held.Add(-1)
	select {
	case <-release:
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
	case <-r.Context().Done():
	}
}

func (o *origin) drip(w http.ResponseWriter, r *http.Request) {
	n, ok := size(w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	o.held.Add(1)
	defer o.held.Add(-1)
	rc := http.NewResponseController(w)
	for range n {
		if _, err := w.Write(zeroes[:1]); err != nil || rc.Flush() != nil || !pause(r.Context(), 500*time.Millisecond) {
			return
		}
	}
}

func (o *origin) stream(framed bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, ok := size(w, r)
		if !ok {
			return
		}
		if framed {
			w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		}
		o.held.Add(1)
		defer o.held.Add(-1)
		for content := newPattern(n); ; {
			piece := content.next(256 << 10)
			if len(piece) == 0 {
				return
			}
			if _, err := w.Write(piece); err != nil {
				return
			}
			o.written.Add(int64(len(piece)))
		}
	}
}

func (o *origin) sink(w http.ResponseWriter, r *http.Request) {
	sum := newChecksum()
	n, err := io.CopyBuffer(sum, r.Body, make([]byte, 256<<10))
	if err != nil {
		return
	}
	fmt.Fprintf(w, "%d %s\n", n, sum)
}

func (o *origin) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	o.held.Add(1)
	defer o.held.Add(-1)
	rc := http.NewResponseController(w)
	for i := 0; ; i++ {
		if _, err := fmt.Fprintf(w, "data: %d\n\n", i); err != nil || rc.Flush() != nil || !pause(r.Context(), time.Second) {
			return
		}
	}
}

func (o *origin) socket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // the check has no origin
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	o.held.Add(1)
	defer o.held.Add(-1)
	for {
		kind, message, err := c.Read(context.Background())
		if err != nil {
			return
		}
		if err := c.Write(context.Background(), kind, message); err != nil {
			return
		}
	}
}

// raw writes an upstream's part of an input, byte for byte.
func (o *origin) raw(w http.ResponseWriter, r *http.Request) {
	i, err := strconv.Atoi(r.PathValue("i"))
	if err != nil || i < 0 || i >= len(o.inputs()) {
		http.Error(w, "no such input", http.StatusNotFound)
		return
	}
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	o.held.Add(1)
	defer o.held.Add(-1)
	in := o.inputs()[i]
	if err := c.SetWriteDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return
	}
	if _, err := c.Write(in.upstream); err != nil || in.ends {
		return
	}
	<-o.released()
}
