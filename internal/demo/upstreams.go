package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// upstream is a service behind the gateway: an HTTP server of its own, on a
// port of its own.
type upstream struct {
	name    string
	about   string
	token   string // what it wants to see; "": nothing
	handler http.Handler

	url     string
	server  *http.Server
	stop    context.CancelFunc // ends what its handlers do
	running sync.WaitGroup     // its handlers, hijacked ones too, and Serve
}

// seen is what a service answers with: what it saw of the request.
type seen struct {
	Service       string `json:"service"`
	Target        string `json:"target"`
	Prefix        string `json:"prefix"`        // X-Forwarded-Prefix
	Authorization string `json:"authorization"` // never the value
	Call          int64  `json:"call"`          // how often its main resource has been asked
	Body          int64  `json:"body"`          // bytes
}

// What a service says of the Authorization it saw.
const (
	authorizationNone  = "none"
	authorizationMine  = "my token"
	authorizationOther = "not my token"
)

func (u *upstream) see(r *http.Request, call int64) seen {
	s := seen{Service: u.name, Target: r.URL.RequestURI(), Prefix: r.Header.Get("X-Forwarded-Prefix"), Authorization: authorizationOther, Call: call}
	switch r.Header.Get("Authorization") {
	case "":
		s.Authorization = authorizationNone
	case "Bearer " + u.token:
		s.Authorization = authorizationMine
	}
	s.Body, _ = io.Copy(io.Discard, r.Body)
	return s
}

func answer(w http.ResponseWriter, status int, s seen) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(s)
}

// users wants a token.
func users(settings) *upstream {
	mux := newMux()
	u := &upstream{name: "users", about: "wants a token", token: "demo-token-of-the-users-service", handler: mux}
	mux.HandleFunc("GET /{path...}", func(w http.ResponseWriter, r *http.Request) {
		s, status := u.see(r, 0), http.StatusOK
		if s.Authorization != authorizationMine {
			w.Header().Set("WWW-Authenticate", "Bearer")
			status = http.StatusUnauthorized
		}
		answer(w, status, s)
	})
	return u
}

// products may be cached.
func products(settings) *upstream {
	mux := newMux()
	u := &upstream{name: "products", about: "may be cached for a minute", handler: mux}
	var calls atomic.Int64
	mux.HandleFunc("GET /{path...}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		answer(w, http.StatusOK, u.see(r, calls.Add(1)))
	})
	return u
}

// orders fails every other time. It also has what lasts: a slow answer, an
// event stream, and a WebSocket that echoes.
func orders(s settings) *upstream {
	mux := newMux()
	u := &upstream{name: "orders", about: "fails every other time", handler: mux}
	var calls atomic.Int64
	mux.HandleFunc("GET /{id}", func(w http.ResponseWriter, r *http.Request) {
		call := calls.Add(1)
		if call%2 == 1 {
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		answer(w, http.StatusOK, u.see(r, call))
	})
	mux.HandleFunc("POST /{id}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusCreated, u.see(r, 0))
	})
	mux.HandleFunc("GET /slow", slow)
	mux.HandleFunc("GET /events", events)
	if s.without != websockets {
		mux.HandleFunc("GET /echo", echo)
	}
	return u
}

// newMux returns a mux that says of its service that it is well.
func newMux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return mux
}

// slow answers when the gateway has long given up.
func slow(w http.ResponseWriter, r *http.Request) {
	late := time.NewTimer(2 * timeout)
	defer late.Stop()
	select {
	case <-late.C:
		_, _ = io.WriteString(w, "at last\n")
	case <-r.Context().Done():
	}
}

// events sends one event a second until somebody ends it.
func events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	each := time.NewTicker(time.Second)
	defer each.Stop()
	flush := http.NewResponseController(w).Flush
	for n := 1; ; n++ {
		_, _ = fmt.Fprintf(w, "data: order %d has been packed\n\n", n)
		if flush() != nil {
			return
		}
		select {
		case <-each.C:
		case <-r.Context().Done():
			return
		}
	}
}

func (u *upstream) start() error {
	listener, err := net.Listen("tcp", freeAddr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	u.url, u.stop = "http://"+listener.Addr().String(), cancel
	u.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u.running.Add(1)
			defer u.running.Done()
			u.handler.ServeHTTP(w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
	}
	u.running.Go(func() { _ = u.server.Serve(listener) })
	return nil
}

func (u *upstream) close() {
	u.stop()
	_ = u.server.Close()
	u.running.Wait()
}
