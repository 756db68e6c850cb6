package testnet

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// once answers the first request with raw and then ends as it is told.
func once(raw string, end func(*Conn)) func(*Conn) {
	return func(c *Conn) {
		if c.ReadRequest() != nil && c.Send(raw) {
			end(c)
		}
	}
}

// settledReset lets bytes reach the peer before a reset could overtake them.
func settledReset(c *Conn) {
	c.Pause(20 * time.Millisecond)
	c.Reset()
}

func TestClientTellsHowAResponseEnded(t *testing.T) {
	t.Parallel()
	const framed, chunked, open = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"
	for _, tc := range []struct {
		name, raw string
		end       func(*Conn)
		want      End
		body      string
	}{
		{"whole", framed + "body", (*Conn).Wait, Whole, "body"},
		{"short, fin", framed + "bo", (*Conn).Close, Truncated, "bo"},
		{"short, half-close", framed + "bo", func(c *Conn) { c.CloseWrite(); c.Wait() }, Truncated, "bo"},
		{"short, reset", framed + "bo", settledReset, Reset, "bo"},
		{"short, quiet", framed + "bo", (*Conn).Wait, Quiet, "bo"},
		{"chunked, no last chunk", chunked + "2\r\nbo\r\n", (*Conn).Close, Truncated, "bo"},
		{"chunked, malformed", chunked + "2\r\nbody", (*Conn).Wait, Malformed, "bo"},
		{"by close", open + "body", (*Conn).Close, Whole, "body"},
		{"by close, reset", open + "body", settledReset, Reset, "body"},
		{"nothing", "", (*Conn).Close, Closed, ""},
		{"nothing, reset", "", (*Conn).Reset, Reset, ""},
		{"nothing, quiet", "", (*Conn).Wait, Quiet, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			up := Upstream(t, once(tc.raw, tc.end))
			c := Dial(t, up.Addr)
			if tc.want == Quiet {
				c.Patience = 200 * time.Millisecond
			}
			r := c.Do(Get("/"))
			assert.Equal(t, tc.want, r.End, r)
			assert.Equal(t, tc.body, string(r.Body))
			assert.Equal(t, tc.raw, string(c.Received()))
			c.Close()
			up.AwaitClosed(1)
			assert.NoError(t, up.AllWhole())
		})
	}
}

func TestCloseNotifyMakesTheDifference(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		end  func(*Conn)
		want End
	}{
		{"close_notify", (*Conn).Close, Whole},
		{"close_notify, half-close", func(c *Conn) { c.CloseWrite(); c.Wait() }, Whole},
		{"none", (*Conn).Cut, Truncated},
		{"reset", settledReset, Reset},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			up := UpstreamTLS(t, once("HTTP/1.1 200 OK\r\n\r\nbody", tc.end))
			r := DialTLS(t, up.Addr, &tls.Config{RootCAs: up.Pool}).Do(Get("/"))
			assert.Equal(t, tc.want, r.End, r)
			assert.Equal(t, "body", string(r.Body))
			assert.NoError(t, up.AllWhole())
		})
	}
}

func TestTLSUpstreamIsTrustedByItsPoolAlone(t *testing.T) {
	t.Parallel()
	up := UpstreamTLS(t, Reply(200, "", "hi"))
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: up.Pool}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(up.URL)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, "hi", string(body))

	_, err = tls.Dial("tcp", up.Addr, &tls.Config{MinVersion: tls.VersionTLS12})
	assert.Error(t, err)
	assert.NoError(t, up.AllWhole())
}

func TestExchangeReadsWhatANetHTTPServerAnswers(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/abort":
			_, _ = io.WriteString(w, strings.Repeat("x", 10000))
			panic(http.ErrAbortHandler)
		case "/early":
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		default:
			w.Header().Set("X-Path", r.URL.Path)
			_, _ = io.Copy(w, r.Body)
		}
	}))
	t.Cleanup(srv.Close)
	addr := srv.Listener.Addr().String()

	for _, tc := range []struct {
		name, raw string
		statuses  []int
		ends      []End
	}{
		{"keep-alive", Get("/"), []int{200}, []End{Quiet}},
		{"close", Get("/", "Connection: close"), []int{200}, []End{Closed}},
		{"pipelined", Get("/a") + Build("HEAD", "/b", "") + Build("POST", "/c", "abc"), []int{200, 200, 200}, []End{Quiet}},
		{"malformed", "GET / HTTP/1.1\r\n\r\n", []int{400}, []End{Closed}},
		{"one answer to two framings", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + Get("/smuggled"), []int{200, 200}, []End{Quiet}},
		{"abort", Get("/abort"), []int{200}, []End{Truncated}},
		{"big header", Get("/", "X: "+strings.Repeat("a", 2<<20)), []int{431}, []End{Closed, Reset}},
		{"early", Build("POST", "/early", strings.Repeat("a", 8<<20)), []int{413}, []End{Closed, Reset}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tr := Exchange(t, addr, tc.raw)
			assert.Equal(t, tc.statuses, tr.Statuses(), tr)
			assert.Contains(t, tc.ends, tr.End, tr)
			assert.NotEmpty(t, tr.Raw)
		})
	}

	r := Do(t, addr, Build("POST", "/x%2fy", "abc"))
	assert.Equal(t, Whole, r.End, r)
	assert.Equal(t, "abc", string(r.Body))
	assert.Equal(t, "/x/y", r.Header.Get("X-Path"))
}

func TestBodiesAreReadAsTheyArrive(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	up := Upstream(t, func(c *Conn) {
		c.ReadRequest()
		c.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
		<-next
		c.Send("3\r\ntwo\r\n0\r\nX: y\r\n\r\n")
		c.Wait()
	})
	c := Dial(t, up.Addr)
	c.Send(Get("/"))
	r := c.ReadHead("GET")
	p := make([]byte, 3)
	_, err := io.ReadFull(r, p)
	require.NoError(t, err)
	assert.Equal(t, "one", string(p))
	assert.Empty(t, r.End)
	close(next)
	rest, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Equal(t, "two", string(rest))
	assert.Equal(t, "onetwo", string(r.Body))
	assert.Equal(t, Whole, r.End)
	assert.Equal(t, "y", r.Trailer.Get("X"))
}

func TestDialFailsTheTestAndEveryRead(t *testing.T) {
	t.Parallel()
	w := &witness{TB: t}
	c := Dial(w, Refused(t))
	assert.Len(t, w.failures, 1)
	assert.Equal(t, Failed, c.Do(Get("/")).End)
	assert.Error(t, c.SendErr())
}

func TestExchangeKnowsHowLongToListen(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		raw     string
		methods []string
		silence time.Duration
	}{
		{Get("/"), []string{"GET"}, quiet},
		{Build("HEAD", "/", "") + Build("POST", "/", "abc"), []string{"HEAD", "POST"}, quiet},
		{Get("/") + Get("/", "Connection: close"), []string{"GET", "GET"}, patience},
		{Get("/", "Connection: close") + "rest", []string{"GET"}, doubt},
		{Get("/") + "GET /\r\n", []string{"GET"}, doubt},
		{"HEAD /\r\n", []string{"HEAD"}, doubt},
		{"", []string{""}, doubt},
	} {
		methods, silence := methods(tc.raw)
		assert.Equal(t, tc.methods, methods, tc.raw)
		assert.Equal(t, tc.silence, silence, tc.raw)
	}
}

func TestResetIsSeenByWhoeverMeetsItFirst(t *testing.T) {
	t.Parallel()
	up := Upstream(t, func(c *Conn) {
		c.ReadHead()
		c.Reset()
	})
	for range 10 { // the writer takes the kernel's only report in some of them
		assert.Equal(t, Reset, Do(t, up.Addr, Build("POST", "/", strings.Repeat("a", 4<<20))).End)
	}
}
