package dash

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A rig is a board with its surroundings.
type rig struct {
	*Board
	reads  []bool // of everything, or of what is new
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu   sync.Mutex
	ends map[int]func()
	last int
}

func newRig(t *testing.T) *rig {
	r := &rig{ends: map[int]func(){}}
	r.ctx, r.cancel = context.WithCancel(t.Context())
	r.Board = NewBoard(Config{
		Read: func(whole bool) *Snapshot {
			r.reads = append(r.reads, whole)
			return &Snapshot{Now: int64(len(r.reads)), Services: []Service{{Name: "a\n\n</script>"}}}
		},
		Background: func(_ string, f func(context.Context)) bool {
			if r.ctx.Err() != nil {
				return false
			}
			r.tasks.Go(func() { f(r.ctx) })
			return true
		},
		Open: func(end func()) func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.last++
			id := r.last
			r.ends[id] = end
			return func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				delete(r.ends, id)
			}
		},
	})
	return r
}

// drain tells the streams to end, as a life does: once or more.
func (r *rig) drain() {
	r.mu.Lock()
	ends := slices.Collect(maps.Values(r.ends))
	r.mu.Unlock()
	for _, end := range ends {
		end()
		end()
	}
}

// A stream is a page's: what it is told goes to events.
type stream struct {
	head   http.Header
	status int
	gate   chan struct{} // nil: it takes what comes at once
	mu     sync.Mutex
	text   strings.Builder
}

func (s *stream) Header() http.Header    { return s.head }
func (s *stream) WriteHeader(status int) { s.status = status }
func (s *stream) Flush()                 {}
func (s *stream) Write(p []byte) (int, error) {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// told returns the events so far: their names and when they were made.
func (s *stream) told(t *testing.T) (events []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := ""
	for lines := bufio.NewScanner(strings.NewReader(s.text.String())); lines.Scan(); {
		if event, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			name = event
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var got Snapshot
			require.NoError(t, json.Unmarshal([]byte(data), &got))
			assert.Equal(t, "a\n\n</script>", got.Services[0].Name)
			events = append(events, fmt.Sprint(name, got.Now))
		}
	}
	return events
}

func (r *rig) page(ctx context.Context, gate chan struct{}) (s *stream, ended chan struct{}) {
	s, ended = &stream{head: http.Header{}, gate: gate}, make(chan struct{})
	req := httptest.NewRequest(http.MethodGet, "/events", nil).WithContext(ctx)
	go func() {
		defer close(ended)
		r.ServeHTTP(s, req)
	}()
	return s, ended
}

func TestPagesAreToldTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ctx, leave := context.WithCancel(t.Context())
		first, firstEnded := r.page(ctx, nil)
		synctest.Wait()
		second, secondEnded := r.page(t.Context(), nil)
		gate := make(chan struct{})
		slow, slowEnded := r.page(t.Context(), gate)
		synctest.Wait()
		assert.Equal(t, []string{"whole1"}, second.told(t), "what was made for the first")
		assert.Equal(t, "text/event-stream", first.head.Get("Content-Type"))
		time.Sleep(every + time.Millisecond)
		assert.Equal(t, []string{"whole1", "news2"}, first.told(t))
		leave()
		<-firstEnded
		time.Sleep(every)
		late, lateEnded := r.page(t.Context(), nil)
		synctest.Wait()
		assert.Equal(t, []string{"whole4"}, late.told(t))
		close(gate)
		synctest.Wait()
		assert.Equal(t, []string{"whole1", "news3"}, slow.told(t), "who is slow misses some")
		assert.Equal(t, []bool{true, false, false, true}, r.reads)
		r.drain()
		<-secondEnded
		<-slowEnded
		<-lateEnded
		time.Sleep(every)
		reads := len(r.reads)
		r.tasks.Wait()
		time.Sleep(time.Minute)
		assert.Len(t, r.reads, reads, "nobody is there to be told")
		again, ended := r.page(t.Context(), nil)
		time.Sleep(every + time.Millisecond)
		assert.Len(t, again.told(t), 2, "and then somebody is")
		r.cancel()
		r.tasks.Wait()
		r.drain()
		<-ended
		refused, ended := r.page(t.Context(), nil)
		<-ended
		assert.Equal(t, 503, refused.status, "there are no tasks any more")
	})
}

// A stalled page takes nothing, until its deadline.
type stalled struct {
	stream
	mu      sync.Mutex
	due     time.Time
	changed chan struct{}
}

func (s *stalled) SetWriteDeadline(at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due = at
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

func (s *stalled) deadline() (time.Time, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.due, s.changed
}

func (s *stalled) Write([]byte) (int, error) {
	for {
		due, changed := s.deadline()
		select {
		case <-changed:
		case <-time.After(time.Until(due)):
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func TestStalledPageHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		open := func() (s *stalled, ended chan struct{}) {
			s, ended = &stalled{stream: stream{head: http.Header{}}, changed: make(chan struct{})}, make(chan struct{})
			go func() {
				defer close(ended)
				r.ServeHTTP(s, httptest.NewRequest(http.MethodGet, "/events", nil))
			}()
			synctest.Wait()
			return s, ended
		}
		start := time.Now()
		_, ended := open()
		<-ended
		assert.Equal(t, writeTime, time.Since(start))
		s, ended := open()
		ends := slices.Collect(maps.Values(r.ends))
		start = time.Now()
		r.drain()
		<-ended
		assert.Equal(t, parting, time.Since(start), "what waits for it, waits no longer")
		for _, end := range ends {
			end()
		}
		due, _ := s.deadline()
		assert.Zero(t, due, "another request has the connection")
		time.Sleep(every)
		r.tasks.Wait()
	})
}

func TestPagesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ctx, leave := context.WithCancel(t.Context())
		for range maxPages {
			r.page(ctx, nil)
		}
		synctest.Wait()
		refused, ended := r.page(ctx, nil)
		<-ended
		assert.Equal(t, 503, refused.status)
		assert.Equal(t, "10", refused.head.Get("Retry-After"))
		leave()
		synctest.Wait()
		assert.Empty(t, r.pages)
		assert.Empty(t, r.ends)
		time.Sleep(every)
		r.tasks.Wait()
	})
}

func TestBoardAnswersByTheLastSegment(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, tt := range []struct{ path, uri, kind, location string }{
		{"/", "/", "text/html; charset=utf-8", ""},
		{"/a/b/", "/a/b/", "text/html; charset=utf-8", ""},
		{"/page.css", "/x/page.css", "text/css; charset=utf-8", ""},
		{"/a/page.js", "/a/page.js", "text/javascript; charset=utf-8", ""},
		{"", "/ops/dash", "", "./dash/"},
		{"", "/ops/dash/?x", "text/html; charset=utf-8", ""}, // http.StripPrefix took the slash, too
		{"/dash", "/dash?x=//evil", "", "./dash/"},
		{"/d%3Aash", "/d%3Aash", "", "./d%3Aash/"},
		{"/dash.go", "/dash.go", "", "./dash.go/"},
	} {
		req := httptest.NewRequest(http.MethodGet, tt.uri, nil)
		req.URL.Path = tt.path
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		h := w.Header()
		assert.Equal(t, policy, h.Get("Content-Security-Policy"), tt.path)
		assert.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), tt.path)
		assert.Equal(t, tt.location, h.Get("Location"), tt.path)
		if tt.location != "" {
			assert.Equal(t, 302, w.Code)
			continue
		}
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, tt.kind, h.Get("Content-Type"))
		again := httptest.NewRequest(http.MethodGet, tt.uri, nil)
		again.URL.Path = tt.path
		again.Header.Set("If-None-Match", h.Get("Etag"))
		w = httptest.NewRecorder()
		r.ServeHTTP(w, again)
		assert.Equal(t, 304, w.Code, tt.path)
	}
	for accept, location := range map[string]string{ // mounted at a path that ends as that of the events does
		"text/html,application/xhtml+xml,*/*;q=0.8": "./events/", "text/event-stream": "", "*/*": "", "": "",
	} {
		req := httptest.NewRequest(http.MethodHead, "/ops/events", nil)
		if accept != "" {
			req.Header.Set("Accept", accept)
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		assert.Equal(t, location, w.Header().Get("Location"), accept)
		assert.Equal(t, location == "", w.Header().Get("Content-Type") == "text/event-stream", accept)
	}
	head := httptest.NewRecorder()
	r.ServeHTTP(head, httptest.NewRequest(http.MethodHead, "/events", nil))
	assert.Equal(t, 200, head.Code)
	assert.Empty(t, r.reads)
}

// The page is small, and asks for nothing of others.
func TestPageIsItsOwn(t *testing.T) {
	t.Parallel()
	assert.Less(t, len(pageHTML)+len(pageCSS)+len(pageJS), 50<<10)
	for _, text := range []string{pageHTML, pageCSS, strings.ReplaceAll(pageJS, "http://www.w3.org/2000/svg", "")} {
		assert.NotContains(t, text, "//"+"cdn")
		assert.NotContains(t, text, "http")
		assert.NotContains(t, text, "innerHTML")
		assert.NotContains(t, text, "style=")
	}
}

func TestSlowestAreKeptForTenMinutes(t *testing.T) {
	t.Parallel()
	var s Slowest
	now := time.Unix(1020, 0)
	assert.False(t, s.Takes(now, time.Hour), "nobody wants to know")
	s.Start()
	for i := range 3 * maxSlowest {
		took := time.Duration(i*7%(3*maxSlowest)+1) * time.Millisecond
		if s.Takes(now, took) {
			s.Add(Slow{At: now.UnixMilli(), Micros: took.Microseconds()})
		}
	}
	got := s.Read(now)
	require.Len(t, got, maxSlowest)
	for i, r := range got {
		assert.EqualValues(t, (3*maxSlowest-i)*1000, r.Micros)
	}
	assert.False(t, s.Takes(now, time.Duration(2*maxSlowest)*time.Millisecond))
	assert.True(t, s.Takes(now, time.Duration(2*maxSlowest+2)*time.Millisecond))
	assert.Len(t, s.Read(now.Add(slowestAge)), maxSlowest)
	assert.Empty(t, s.Read(now.Add(slowestAge+time.Second)))
	assert.True(t, s.Takes(now.Add(slowestAge+time.Second), time.Millisecond), "there is room again")
}

// Very slow requests of a bad minute hide those of the minutes after it only as
// long as they are shown themselves, whether or not somebody looks meanwhile.
func TestSlowestOutliveABadMinute(t *testing.T) {
	t.Parallel()
	var s Slowest
	s.Start()
	start := time.Unix(1020, 0)
	add := func(after, took time.Duration) {
		if at := start.Add(after); s.Takes(at, took) {
			s.Add(Slow{At: at.UnixMilli(), Micros: took.Microseconds()})
		}
	}
	for range 2 * maxSlowest {
		add(0, time.Minute)
	}
	add(5*time.Minute, 5*time.Second)
	add(9*time.Minute, 4*time.Second)
	for _, r := range s.Read(start.Add(slowestAge)) {
		assert.EqualValues(t, 60e6, r.Micros)
	}
	add(12*time.Minute, 3*time.Second)
	var shown []int64
	for _, r := range s.Read(start.Add(12 * time.Minute)) {
		shown = append(shown, r.Micros)
	}
	assert.Equal(t, []int64{5e6, 4e6, 3e6}, shown)
	add(30*time.Minute, time.Second)
	assert.Len(t, s.Read(start.Add(30*time.Minute)), 1)
}

func TestChangesAreBounded(t *testing.T) {
	t.Parallel()
	var c Changes
	assert.NotNil(t, c.Read())
	var adding sync.WaitGroup
	for range 4 {
		adding.Go(func() {
			for range maxChanges {
				c.Add("a", "breaker open", "")
				c.Read()
			}
		})
	}
	adding.Wait()
	c.Add("b", "last", "of all")
	got := c.Read()
	assert.Len(t, got, maxChanges)
	assert.Equal(t, "last", got[0].What)
}
