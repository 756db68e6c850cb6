package interop_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// events is an upstream that sends an event whenever it is told to, after one
// that says what Last-Event-ID it was asked with.
type events struct {
	next     chan struct{} // one more
	ended    chan error    // why the client's request was over
	compress bool
}

func newEvents(compress bool) *events {
	return &events{next: make(chan struct{}), ended: make(chan error, 16), compress: compress}
}

func (e *events) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "max-age=60") // which nobody may believe
	out, flush := io.Writer(w), func() {}
	if e.compress {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		out, flush = z, func() { _ = z.Flush() }
	}
	send := func(id, data string) {
		fmt.Fprintf(out, "id: %s\ndata: %s\n\n", id, data)
		flush()
		_ = http.NewResponseController(w).Flush()
	}
	send("0", "after "+r.Header.Get("Last-Event-Id"))
	for n := 1; ; n++ {
		select {
		case <-e.next:
			send(fmt.Sprint(n), fmt.Sprintf("event %d", n))
		case <-r.Context().Done():
			e.ended <- r.Context().Err()
			return
		}
	}
}

// listen asks for the events, as browsers do.
func (e *events) listen(ctx context.Context, t *testing.T, c *http.Client, url, last string) *listener {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Cache-Control", "no-cache")
	req.Header.Set("Accept-Encoding", "gzip")
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := c.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	require.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Equal(t, "text/event-stream; charset=utf-8", resp.Header.Get("Content-Type"))
	var content io.Reader = resp.Body
	if e.compress {
		assert.Equal(t, "gzip", resp.Header.Get("Content-Encoding"))
		content, err = gzip.NewReader(resp.Body)
		require.NoError(t, err)
	}
	return &listener{bufio.NewReader(content)}
}

// listener reads events.
type listener struct{ lines *bufio.Reader }

// event returns the next one: id and data.
func (l *listener) event() (id, data string, err error) {
	for {
		line, err := l.lines.ReadString('\n')
		if err != nil {
			return "", "", err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "":
			return id, data, nil
		case "id":
			id = value
		case "data":
			data = value
		}
	}
}

// overVersions runs a test for each pair of versions of HTTP, the client's and
// the upstream's.
func overVersions(t *testing.T, test func(t *testing.T, client, upstream int)) {
	for _, v := range [][2]int{{1, 1}, {2, 1}, {1, 2}, {2, 2}} {
		t.Run(fmt.Sprintf("HTTP%d to HTTP%d", v[0], v[1]), func(t *testing.T) {
			t.Parallel()
			test(t, v[0], v[1])
		})
	}
}

// startVersion starts h as a server of one version of HTTP, with a client of it.
func startVersion(t *testing.T, version int, h http.Handler) (*server, *http.Client) {
	if version == 1 {
		s := start(t, h, (*httptest.Server).Start)
		return s, s.Client()
	}
	s := serveRPC(t, h, false)
	return s, h2Client(t, s)
}

// versionOptions has a version of HTTP spoken to services.
func versionOptions(version int, more ...gateway.Option) []gateway.Option {
	if version == 2 {
		more = append(more, gateway.WithHTTP2())
	}
	return more
}

// Event n is at the client before the upstream sends n+1.
func TestEventsAreNotHeldBack(t *testing.T) {
	t.Parallel()
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprintf("gzip=%t", compress), func(t *testing.T) {
			t.Parallel()
			overVersions(t, func(t *testing.T, client, upstream int) {
				e := newEvents(compress)
				up, _ := startVersion(t, upstream, e)
				gw := newGateway(t, versionOptions(upstream, gateway.WithCache(newCache(t)), gateway.WithService("s", up.URL))...)
				front, c := startVersion(t, client, gw)
				ctx, cancel := context.WithCancel(within10(t))
				l := e.listen(ctx, t, c, front.URL+"/s/", "41")
				_, data, err := l.event()
				require.NoError(t, err)
				assert.Equal(t, "after 41", data, "Last-Event-ID")
				for n := range 1000 {
					e.next <- struct{}{}
					id, data, err := l.event()
					require.NoError(t, err)
					require.Equal(t, fmt.Sprint(n+1), id)
					require.Equal(t, fmt.Sprintf("event %d", n+1), data)
				}
				cancel()
				require.ErrorIs(t, within(t, "the upstream to be told", e.ended), context.Canceled)
				testnet.Settle(t, "the stream to end", func() bool { return gw.Stats().InFlight == 0 })
				assert.Zero(t, gw.Stats().Caches[0].Entries)
			})
		})
	}
}

// Drain ends streams, cleanly: an EventSource then comes again, with the last
// id it has seen, and goes wherever it is sent.
func TestEventsEndWithDrain(t *testing.T) {
	t.Parallel()
	overVersions(t, func(t *testing.T, client, upstream int) {
		e := newEvents(false)
		up, _ := startVersion(t, upstream, e)
		var listeners []*listener
		old := newGateway(t, versionOptions(upstream, gateway.WithService("s", up.URL))...)
		front, c := startVersion(t, client, old)
		for range 3 {
			l := e.listen(within10(t), t, c, front.URL+"/s/", "")
			_, _, err := l.event()
			require.NoError(t, err)
			listeners = append(listeners, l)
		}
		old.Drain()
		for _, l := range listeners {
			_, _, err := l.event()
			require.Equal(t, io.EOF, err, "a clean end")
			require.ErrorIs(t, within(t, "the upstream to be told", e.ended), context.Canceled)
		}
		assert.Empty(t, old.Stats().Errors)

		gw := newGateway(t, versionOptions(upstream, gateway.WithService("s", up.URL))...)
		front, c = startVersion(t, client, gw)
		ctx, cancel := context.WithCancel(within10(t))
		_, data, err := e.listen(ctx, t, c, front.URL+"/s/", "17").event()
		require.NoError(t, err)
		assert.Equal(t, "after 17", data)
		cancel()
		require.ErrorIs(t, within(t, "the upstream to be told", e.ended), context.Canceled)
	})
}

// A stream that the upstream ends is over, and one that breaks off breaks off.
func TestEventsEndAsTheUpstreamEnds(t *testing.T) {
	t.Parallel()
	overVersions(t, func(t *testing.T, client, upstream int) {
		up, _ := startVersion(t, upstream, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: x\n\n")
			_ = http.NewResponseController(w).Flush()
			if r.URL.Path == "/broken" {
				panic(http.ErrAbortHandler)
			}
		}))
		gw := newGateway(t, versionOptions(upstream, gateway.WithService("s", up.URL))...)
		front, c := startVersion(t, client, gw)
		whole := get(t, c, front.URL+"/s/")
		require.NoError(t, whole.err)
		assert.Equal(t, "data: x\n\n", whole.body)
		assert.Error(t, get(t, c, front.URL+"/s/broken").err)
		assert.EqualValues(t, 1, gw.Stats().Errors[gateway.ReasonTruncated])
	})
}
