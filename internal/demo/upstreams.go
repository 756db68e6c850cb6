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

	replica string      // which of several it is; "": the only one
	others  []*upstream // replicas beside it
	dead    atomic.Bool // its connections break off

	url     string
	server  *http.Server
	stop    context.CancelFunc // ends what its handlers do
	running sync.WaitGroup     // its handlers, hijacked ones too, and Serve
}

// seen is what a service answers with: what it saw of the request.
type seen struct {
	Service       string `json:"service"`
	Replica       string `json:"replica,omitempty"`
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
	s := seen{Service: u.name, Replica: u.replica, Target: r.URL.RequestURI(), Prefix: r.Header.Get("X-Forwarded-Prefix"), Authorization: authorizationOther, Call: call}
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
	var sent atomic.Int64
	mux.HandleFunc("GET /sent", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, sent.Load()) })
	if s.without != streaming {
		mux.HandleFunc("GET /events", events(&sent))
	} else {
		mux.Handle("GET /events", http.NotFoundHandler())
	}
	if s.without != websockets {
		mux.HandleFunc("GET /echo", echo)
	}
	return u
}

// prices has two replicas. What is asked for late is late at whichever replica
// is asked first, and at once at the other.
func prices(settings) *upstream {
	var calls atomic.Int64
	first, second := price("first", &calls), price("second", &calls)
	first.others = []*upstream{second}
	return first
}

func price(replica string, late *atomic.Int64) *upstream {
	mux := newMux()
	u := &upstream{name: "prices", about: "has two replicas", replica: replica, handler: mux}
	mux.HandleFunc("GET /{id}", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, u.see(r, 0)) })
	mux.HandleFunc("GET /late", func(w http.ResponseWriter, r *http.Request) {
		call := late.Add(1)
		if call%2 == 1 {
			slow(w, r)
			return
		}
		answer(w, http.StatusOK, u.see(r, call))
	})
	return u
}

// stock has something broken.
func stock(settings) *upstream {
	mux := newMux()
	u := &upstream{name: "stock", about: "has something broken, and a circuit breaker", handler: mux}
	var calls atomic.Int64
	mux.HandleFunc("GET /{id}", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, u.see(r, calls.Add(1))) })
	mux.HandleFunc("GET /broken", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusInternalServerError, u.see(r, calls.Add(1)))
	})
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

// events sends one event a second until somebody ends it, and notes how many
// it has sent.
func events(sent *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		each := time.NewTicker(time.Second)
		defer each.Stop()
		flush := http.NewResponseController(w).Flush
		for n := int64(1); ; n++ {
			sent.Store(n)
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
}

// start starts the service, and its other replicas.
func (u *upstream) start() error {
	for _, r := range u.others {
		if err := r.start(); err != nil {
			return err
		}
	}
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
			if u.dead.Load() {
				panic(http.ErrAbortHandler)
			}
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
	for _, r := range u.others {
		r.close()
	}
	if u.server == nil {
		return // it could not be started
	}
	u.stop()
	_ = u.server.Close()
	u.running.Wait()
}
