package dash

import (
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed" // of the page
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

const (
	// maxPages bounds how many are open at once.
	maxPages = 1000
	// every is how often pages are told something new.
	every = 2 * time.Second
	// writeTime is how long one event may take to be taken.
	writeTime = 10 * time.Second
	// parting is how long it may still take once its stream is to end.
	parting = time.Second

	// policy lets the page have what it came with, and nothing else.
	policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// Config is what a Board needs of others.
type Config struct {
	// Read returns what is to be shown: all of it, or what is new since the last
	// time.
	Read func(whole bool) *Snapshot
	// Background runs f as a task that ends with its context; false: there is no
	// room for tasks any more.
	Background func(name string, f func(ctx context.Context)) bool
	// Open has end called when streams are to end, until done is.
	Open func(end func()) (done func())
}

// A Board serves the page, and tells the open ones what is new: all of them the
// same bytes, made once. It is safe for concurrent use.
type Board struct {
	config Config
	assets map[string]asset

	mu    sync.Mutex
	pages map[chan []byte]struct{}
	told  uint64 // how often all were
	whole []byte // what a page begins with, until all are told again
	busy  bool   // somebody tells them
}

type asset struct{ contentType, content, etag string }

// NewBoard starts nothing.
func NewBoard(c Config) *Board {
	b := &Board{config: c, assets: map[string]asset{}, pages: map[chan []byte]struct{}{}}
	for name, a := range map[string]asset{
		"":         {contentType: "text/html; charset=utf-8", content: pageHTML},
		"page.css": {contentType: "text/css; charset=utf-8", content: pageCSS},
		"page.js":  {contentType: "text/javascript; charset=utf-8", content: pageJS},
	} {
		sum := sha256.Sum256([]byte(a.content))
		a.etag = `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
		b.assets[name] = a
	}
	return b
}

// ServeHTTP answers by the last segment of the path: the page where there is
// none, what belongs to it by name, and a redirect to the page otherwise.
func (b *Board) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	name := path.Base(r.URL.Path)
	if strings.HasSuffix(cmp.Or(r.URL.Path, sentPath(r)), "/") {
		name = ""
	}
	if name == "events" && !navigates(r) {
		b.events(w, r)
		return
	}
	a, ok := b.assets[name]
	if !ok {
		toPage(w, r)
		return
	}
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", "no-cache")
	h.Set("Etag", a.etag)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(a.content))
}

// navigates tells a browser that goes to a page from one that asks for events: the
// board may be mounted at a path that ends as their address does.
func navigates(r *http.Request) bool {
	accept := strings.ToLower(strings.Join(r.Header["Accept"], ","))
	return strings.Contains(accept, "text/html") && !strings.Contains(accept, "text/event-stream")
}

// sentPath is the path as the client sent it: what was in front of it may have been
// cut off since.
func sentPath(r *http.Request) string {
	if u, err := r.URL.Parse(r.RequestURI); err == nil {
		return u.EscapedPath()
	}
	return r.URL.EscapedPath()
}

// toPage redirects to the same path with a slash behind it, which the page's own
// links need.
func toPage(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Location", "./"+path.Base(sentPath(r))+"/")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusFound)
}

// events tells one page what is new, until it leaves (an event stream of the
// HTML standard, §9.2).
func (b *Board) events(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return
	}
	news, whole, ok := b.enter()
	if !ok {
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	defer b.leave(news)
	p := &pen{rc: http.NewResponseController(w), ended: make(chan struct{})}
	done := b.config.Open(p.end)
	defer done()
	defer p.rest()

	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	for event := whole; ; {
		p.extend()
		if _, err := w.Write(event); err != nil || p.rc.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-p.ended:
			return
		case event = <-news:
		}
	}
}

// A pen sees to how long an event of one stream may take.
type pen struct {
	rc    *http.ResponseController
	ended chan struct{}

	mu   sync.Mutex
	over bool // no other event comes
}

// extend gives an event its time.
func (p *pen) extend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		_ = p.rc.SetWriteDeadline(time.Now().Add(writeTime))
	}
}

// end has the stream end, from another goroutine: a page that takes nothing holds
// no shutdown up.
func (p *pen) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.over = true
		_ = p.rc.SetWriteDeadline(time.Now().Add(parting))
		close(p.ended)
	}
}

// rest gives the connection back, which is not to be touched any more.
func (p *pen) rest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	_ = p.rc.SetWriteDeadline(time.Time{})
}

// enter opens a page, and returns what it begins with.
func (b *Board) enter() (news chan []byte, whole []byte, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.pages) >= maxPages {
		return nil, nil, false
	}
	if !b.busy {
		if !b.config.Background("dashboard", b.tell) {
			return nil, nil, false
		}
		b.busy = true
	}
	if b.whole == nil {
		b.whole = b.event("whole")
	}
	news = make(chan []byte, 1)
	b.pages[news] = struct{}{}
	return news, b.whole, true
}

func (b *Board) leave(news chan []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.pages, news)
}

// tell tells all pages what is new, as long as there are any. One that has not
// taken the last event gets this one instead: the next but one slot of a history
// comes ten seconds later.
func (b *Board) tell(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			b.rest()
			return
		case <-tick.C:
		}
		if b.tellOnce() {
			return
		}
	}
}

func (b *Board) tellOnce() (rests bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told++
	b.whole = nil
	if len(b.pages) == 0 {
		b.busy = false
		return true
	}
	event := b.event("news")
	for news := range b.pages {
		select {
		case <-news:
		default:
		}
		news <- event
	}
	return false
}

func (b *Board) rest() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy, b.whole = false, nil
}

// event writes out a snapshot; mu is held.
func (b *Board) event(name string) []byte {
	data, err := json.Marshal(b.config.Read(name == "whole"))
	if err != nil { // of numbers and texts there is none
		data = []byte("{}")
	}
	return fmt.Appendf(nil, "retry: %d\nid: %s\nevent: %s\ndata: %s\n\n", every.Milliseconds(), strconv.FormatUint(b.told, 10), name, data)
}
