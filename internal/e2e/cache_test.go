package e2e_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

func TestHitRepeatsTheStoredResponse(t *testing.T) {
	header := strings.TrimSuffix(storable, "\r\n") + "\r\nETag: \"v1\"\r\nContent-Type: text/x\r\nX-A: 1\r\nX-A: 2\r\nConnection: X-Hop\r\nX-Hop: h\r\nX-Request-Id: upstream\r\nCache-Status: origin; hit"
	r := newRig(t, setup{script: testnet.Reply(200, header, "body")})
	first, second := r.get("/a/x"), r.get("/a/x")
	assert.Len(t, r.a.Await(1), 1)
	for name, want := range map[string][]string{"Etag": {`"v1"`}, "Content-Type": {"text/x"}, "X-A": {"1", "2"}, "Content-Length": {"4"}, "Cache-Control": {"public, max-age=60"}} {
		assert.Equal(t, want, first.Header[name], name)
		assert.Equal(t, want, second.Header[name], name)
	}
	assert.Equal(t, "body", string(second.Body))
	assert.Equal(t, testnet.Whole, second.End)
	assert.Empty(t, first.Header["X-Hop"])
	assert.Empty(t, second.Header["X-Hop"])
	assert.Empty(t, first.Header["Age"], "fresh from the upstream")
	assert.Equal(t, "0", second.Header.Get("Age"))
	assert.Equal(t, []string{"origin; hit", "gateway; fwd=uri-miss; stored"}, first.Header["Cache-Status"])
	assert.Equal(t, []string{"origin; hit", "gateway; hit; ttl=60"}, second.Header["Cache-Status"])
	assert.Len(t, second.Header["Date"], 1)
	assert.NotEqual(t, first.Header.Get("X-Request-Id"), second.Header.Get("X-Request-Id"), "an id is of one request")

	r.counted(noFailure)
	s, c := r.gw.Stats(), r.cache.Stats()
	assert.EqualValues(t, 1, s.CacheHits)
	assert.EqualValues(t, 1, s.CacheMisses)
	assert.EqualValues(t, 1, c.Hits)
	assert.EqualValues(t, 1, c.Misses)
	assert.EqualValues(t, 1, c.Entries)
	assert.Len(t, r.attempts(), 1, "a hit makes no attempt")
}

// Entries share what a hit says of time where it is the same for them, and only
// there.
func TestHitsTellTheirOwnTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, func(c *testnet.Conn) {
			for r := c.ReadRequest(); r != nil; r = c.ReadRequest() {
				c.Send(testnet.Answer(200, "Cache-Control: max-age="+strings.TrimPrefix(r.Target, "/"), "ok"))
			}
		})
		const first, last, more = 100, 355, 256
		target := func(lifetime int) string { return fmt.Sprintf("/a/%d", lifetime) }
		for lifetime := first; lifetime <= last; lifetime++ {
			b.get(target(lifetime))
			b.get(target(lifetime + more))
			time.Sleep(time.Second / 16)
		}
		begun := time.Now()
		for range 3 {
			for lifetime := first; lifetime <= last; lifetime++ {
				age := (last - lifetime + 1 + 16*int(time.Since(begun)/time.Second)) / 16
				for _, lifetime := range []int{lifetime, lifetime + more} {
					header := b.get(target(lifetime)).Header
					assert.Equal(t, strconv.Itoa(age), header.Get("Age"), lifetime)
					assert.Equal(t, fmt.Sprintf("gateway; hit; ttl=%d", lifetime-age), header.Get("Cache-Status"), lifetime)
				}
			}
			time.Sleep(7 * time.Second)
		}
	})
}

func TestAgeGrowsUntilTheResponseIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, func(c *testnet.Conn) {
			for c.ReadRequest() != nil {
				c.Pause(2 * time.Second)
				c.Send(testnet.Answer(200, storable+"Age: 10", "ok"))
			}
		})
		c := b.dial()
		assert.Equal(t, "10", c.Do(testnet.Get("/a/x")).Header.Get("Age"), "as the upstream said")
		for _, step := range []struct {
			wait        time.Duration
			age, status string
		}{
			{0, "12", "gateway; hit; ttl=48"}, // RFC 9111 §4.2.3: the delay counts
			{500 * time.Millisecond, "12", "gateway; hit; ttl=48"},
			{500 * time.Millisecond, "13", "gateway; hit; ttl=47"},
			{46 * time.Second, "59", "gateway; hit; ttl=1"},
			{time.Second, "10", "gateway; fwd=stale; stored"},
			{0, "12", "gateway; hit; ttl=48"},
		} {
			time.Sleep(step.wait)
			resp := c.Do(testnet.Get("/a/x"))
			assert.Equal(t, step.age, resp.Header.Get("Age"))
			assert.Equal(t, step.status, resp.Header.Get("Cache-Status"))
		}
		assert.Len(t, b.up.Journal(), 2)
	})
}

func TestClientsMayRefuseAStoredResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Reply(200, storable, "ok"))
		c := b.dial()
		c.Do(testnet.Get("/a/x"))
		time.Sleep(20 * time.Second)
		for _, tt := range []struct{ field, status string }{
			{"Cache-Control: max-age=20", "gateway; hit; ttl=40"},
			{"Cache-Control: min-fresh=40", "gateway; hit; ttl=40"},
			{"Cache-Control: only-if-cached", "gateway; hit; ttl=40"},
			{"Cache-Control: no-store", "gateway; fwd=request; detail=no-store"},
			{"If-Match: \"v\"", "gateway; fwd=request; detail=conditional"},
			{"Range: bytes=0-0", "gateway; hit; ttl=40"},
			{"If-None-Match: \"v\"", "gateway; hit; ttl=40"},
			{"Cache-Control: min-fresh=41", "gateway; fwd=request; stored"},
			{"Cache-Control: no-cache", "gateway; fwd=request; stored"},
			{"Pragma: no-cache", "gateway; fwd=request; stored"},
			{"Cache-Control: max-age=0", "gateway; fwd=request; stored"},
			{"X: y", "gateway; hit; ttl=60"},
		} {
			assert.Equal(t, tt.status, c.Do(testnet.Get("/a/x", tt.field)).Header.Get("Cache-Status"), tt.field)
		}
		resp := c.Do(testnet.Get("/a/other", "Cache-Control: only-if-cached"))
		assert.Equal(t, 504, resp.Status)
		assert.Contains(t, string(resp.Body), `"reason":"not_cached"`)
		b.counted(onlyFailure(gateway.ReasonNotCached))
	})
}

func TestVaryKeepsVariantsApart(t *testing.T) {
	r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
		return testnet.Answer(200, storable+"Vary: accept-language", "in "+field(req, "Accept-Language"))
	})})
	variants := [][]string{{"Accept-Language: de"}, {"Accept-Language: fr"}, nil, {"Accept-Language: de, fr"}}
	for _, fields := range variants {
		r.get("/a/x", fields...)
	}
	assert.Len(t, r.a.Await(4), 4)
	for i, fields := range append(variants, []string{"Accept-Language: de", "Accept-Language: fr"}, []string{"Accept-Language:   fr  ", "Accept: x"}, []string{"Accept-Language: FR;q=1.0,"}) {
		resp := r.get("/a/x", fields...)
		assert.Contains(t, resp.Header.Get("Cache-Status"), "; hit", "%q", fields)
		assert.Equal(t, []string{"in de", "in fr", "in ", "in de, fr", "in de, fr", "in fr", "in fr"}[i], string(resp.Body))
	}
	assert.Len(t, r.a.Await(4), 4)
	assert.EqualValues(t, 1, r.cache.Stats().Entries, "variants of one resource")

	for n := range 16 {
		r.get("/a/x", fmt.Sprintf("Accept-Language: x-%d", n))
	}
	assert.Equal(t, "gateway; fwd=vary-miss; stored", r.get("/a/x", "Accept-Language: de").Header.Get("Cache-Status"), "the oldest of 17 has gone")
	assert.Contains(t, r.get("/a/x", "Accept-Language: x-15").Header.Get("Cache-Status"), "; hit")
}

func TestEncodedResponsesVaryByAcceptEncoding(t *testing.T) {
	r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
		if field(req, "Accept-Encoding") == "gzip" {
			return testnet.Answer(200, storable+"Content-Encoding: gzip", "zipped")
		}
		return testnet.Answer(200, storable, "plain")
	})})
	assert.Equal(t, "zipped", string(r.stored(testnet.Get("/a/x", "Accept-Encoding: gzip")).Body))
	assert.Equal(t, "plain", string(r.get("/a/x").Body))
}

func TestHeadIsAnsweredFromAStoredGet(t *testing.T) {
	r := newRig(t, setup{script: testnet.Reply(200, storable+"ETag: \"v1\"", "body")})
	head := testnet.Build("HEAD", "/a/x", "")
	miss := r.do(head)
	assert.Equal(t, "gateway; fwd=uri-miss; detail=method", miss.Header.Get("Cache-Status"))
	assert.Zero(t, r.cache.Stats().Entries, "there is no body to store")
	r.stored(testnet.Get("/a/x"))
	hit := r.do(head)
	assert.Equal(t, 200, hit.Status)
	assert.Equal(t, "gateway; hit; ttl=60", hit.Header.Get("Cache-Status"))
	assert.Equal(t, "4", hit.Header.Get("Content-Length"))
	assert.Equal(t, `"v1"`, hit.Header.Get("ETag"))
	assert.Empty(t, hit.Body)
	assert.Len(t, r.a.Await(2), 2)
}

func TestEmptyResponseIsStored(t *testing.T) {
	testnet.Baseline(t)
	for _, answer := range []string{testnet.Answer(200, storable, ""), testnet.Answer(200, storable+"Transfer-Encoding: chunked", testnet.Chunks())} {
		r := newRig(t, setup{second: true, script: testnet.Replies(answer)})
		r.stored(testnet.Get("/a/x"))
	}
}

func TestStoredBytesStayWithinTheBudget(t *testing.T) {
	const budget = 64 << 10
	r := newRig(t, setup{
		script: testnet.Reply(200, storable, strings.Repeat("x", 4<<10)),
		clean:  []gateway.CacheOption{gateway.WithMaxBytes(budget)},
	})
	for n := range 40 {
		assert.Equal(t, 200, r.get(fmt.Sprintf("/a/%d", n)).Status)
		assert.Equal(t, 200, r.get(fmt.Sprintf("/a/%d", n)).Status) // the second time it is worth room
		s := r.cache.Stats()
		assert.LessOrEqual(t, s.Bytes, int64(budget))
		assert.GreaterOrEqual(t, s.Bytes, s.Entries*(4<<10), "what it holds is counted")
	}
	s := r.cache.Stats()
	assert.EqualValues(t, budget, s.MaxBytes)
	assert.EqualValues(t, 40, s.Entries+int64(s.Evictions))
	assert.Greater(t, s.Entries, int64(5))
	assert.Contains(t, r.get("/a/39").Header.Get("Cache-Status"), "; hit", "the youngest is there")
	assert.Contains(t, r.get("/a/0").Header.Get("Cache-Status"), "fwd=uri-miss", "the oldest is not")
	r.cache.Clear()
	assert.Zero(t, r.cache.Stats().Bytes)
	assert.Zero(t, r.cache.Stats().Entries)
}

func TestHeadersCountInTheBudget(t *testing.T) {
	r := newRig(t, setup{
		script: testnet.Reply(200, storable+"X-Large: "+strings.Repeat("x", 30<<10), "ok"),
		clean:  []gateway.CacheOption{gateway.WithMaxBytes(64 << 10)},
	})
	for n := range 5 {
		r.get(fmt.Sprintf("/a/%d", n))
		assert.LessOrEqual(t, r.cache.Stats().Bytes, int64(64<<10))
		assert.LessOrEqual(t, r.cache.Stats().Entries, int64(2))
	}
}

func TestObjectsBeyondTheLimitPassUncached(t *testing.T) {
	sized := func(n int) string { return testnet.Answer(200, storable, strings.Repeat("x", n)) }
	chunked := func(n int) string {
		return testnet.Answer(200, storable+"Transfer-Encoding: chunked", testnet.Chunks(strings.Repeat("x", n)))
	}
	for _, tt := range []struct {
		name, answer string
		size, status string
		entries      int64
	}{
		{"length at the limit", sized(1000), "1000", "gateway; fwd=uri-miss; stored", 1},
		{"length beyond it", sized(1001), "1001", "gateway; fwd=uri-miss; detail=too-large", 0},
		{"chunked at the limit", chunked(1000), "1000", "gateway; fwd=uri-miss; stored", 1},
		{"chunked beyond it", chunked(1001), "1001", "gateway; fwd=uri-miss; stored", 0}, // nobody knew
		{"chunked far beyond it", chunked(3 << 20), "3145728", "gateway; fwd=uri-miss; stored", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Replies(tt.answer), clean: []gateway.CacheOption{gateway.WithMaxObjectBytes(1000)}})
			resp := r.get("/a/x")
			assert.Equal(t, testnet.Whole, resp.End)
			assert.Equal(t, tt.size, fmt.Sprint(len(resp.Body)))
			assert.Equal(t, tt.status, resp.Header.Get("Cache-Status"))
			r.counted(noFailure)
			testnet.Settle(t, "the entry is there, if it is to be", func() bool { return r.cache.Stats().Entries == tt.entries })
			if tt.entries == 0 {
				testnet.Settle(t, "nothing is reserved", func() bool { return r.cache.Stats().Bytes == 0 })
			}
		})
	}
}

// bodies are the ways in which a body is stored: by the leader's goroutine, by
// a task, of unknown length.
var bodies = []struct {
	name, header string
	piece, last  string // the piece is sent first; last ends the body
	size         int64
}{
	{"short", "Content-Length: 2000", strings.Repeat("x", 1000), strings.Repeat("y", 1000), 2000},
	{"long", "Content-Length: 400000", strings.Repeat("x", 200000), strings.Repeat("y", 200000), 400000},
	{"chunked", "Transfer-Encoding: chunked", "3e8\r\n" + strings.Repeat("x", 1000) + "\r\n", "3e8\r\n" + strings.Repeat("y", 1000) + "\r\n0\r\n\r\n", 2000},
}

// inTwo sends a storable answer to each GET: the head and a piece, and the rest
// once told to. Anything else is answered 200 at once.
func inTwo(header, piece, last string, rest <-chan struct{}) func(*testnet.Conn) {
	return func(c *testnet.Conn) {
		for req := c.ReadRequest(); req != nil; req = c.ReadRequest() {
			if req.Method != http.MethodGet {
				c.Send(testnet.Answer(200, "", "done"))
				continue
			}
			c.Send("HTTP/1.1 200 OK\r\n" + storable + header + "\r\n\r\n" + piece)
			receive(rest)
			c.Send(last)
		}
	}
}

func TestMissStreamsWhileItStores(t *testing.T) {
	for _, body := range bodies {
		t.Run(body.name, func(t *testing.T) {
			rest := make(chan struct{})
			r := newRig(t, setup{script: inTwo(body.header, body.piece, body.last, rest)})
			c := testnet.Dial(t, r.addr)
			c.Send(testnet.Get("/a/x"))
			resp := c.ReadHead("GET")
			require.Equal(t, "gateway; fwd=uri-miss; stored", resp.Header.Get("Cache-Status"))
			_, err := io.ReadFull(resp, make([]byte, 1000))
			require.NoError(t, err, "the piece is here before the rest is sent")
			assert.Zero(t, r.cache.Stats().Entries)
			assert.Positive(t, r.cache.Stats().Bytes, "what arrives is in the budget")
			close(rest)
			restOf(resp)
			assert.Equal(t, testnet.Whole, resp.End)
			testnet.Settle(t, "it is stored", func() bool { return r.cache.Stats().Entries == 1 })
			hit := r.get("/a/x")
			assert.Equal(t, fmt.Sprint(body.size), hit.Header.Get("Content-Length"))
			assert.Equal(t, string(resp.Body), string(hit.Body))
			assert.Len(t, r.a.Await(1), 1)
		})
	}
}

func TestEntryIsCompletedWhenItsClientLeaves(t *testing.T) {
	for _, body := range bodies {
		t.Run(body.name, func(t *testing.T) {
			rest := make(chan struct{})
			r := newRig(t, setup{script: inTwo(body.header, body.piece, body.last, rest)})
			c := testnet.Dial(t, r.addr)
			c.Send(testnet.Get("/a/x"))
			resp := c.ReadHead("GET")
			_, err := io.ReadFull(resp, make([]byte, 1))
			require.NoError(t, err)
			c.Reset()
			close(rest)
			testnet.Settle(t, "it is stored", func() bool { return r.cache.Stats().Entries == 1 })
			hit := r.get("/a/x")
			assert.Contains(t, hit.Header.Get("Cache-Status"), "; hit")
			assert.Equal(t, testnet.Whole, hit.End)
			assert.Equal(t, body.size, hit.Size)
			assert.Len(t, r.a.Await(1), 1)
		})
	}
}

func TestEntryIsCompletedWhenItsClientLeavesBeforeTheHeader(t *testing.T) {
	answer := make(chan struct{})
	r := newRig(t, setup{script: func(c *testnet.Conn) {
		for c.ReadRequest() != nil {
			receive(answer)
			c.Send(testnet.Answer(200, storable, "ok"))
		}
	}})
	c := testnet.Dial(t, r.addr)
	c.Send(testnet.Get("/a/x"))
	r.a.Await(1)
	c.Reset()
	close(answer)
	testnet.Settle(t, "it is stored", func() bool { return r.cache.Stats().Entries == 1 })
	assert.Equal(t, "ok", string(r.get("/a/x").Body))
	assert.Len(t, r.a.Await(1), 1)
}

func TestTruncatedResponseIsNeverStored(t *testing.T) {
	for _, body := range bodies {
		for name, end := range map[string]func(*testnet.Conn){"closed": fin, "reset": rst} {
			t.Run(body.name+" "+name, func(t *testing.T) {
				r := newRig(t, setup{script: func(c *testnet.Conn) {
					if c.ReadRequest() != nil {
						c.Send("HTTP/1.1 200 OK\r\n" + storable + body.header + "\r\n\r\n" + body.piece + body.last[:len(body.last)-1])
						end(c)
					}
				}, defaults: []gateway.Option{gateway.WithoutRetries()}})
				for n := 1; n <= 2; n++ {
					resp := r.get("/a/x")
					assert.Equal(t, 200, resp.Status)
					assert.Equal(t, testnet.Truncated, resp.End)
					assert.Equal(t, n, r.a.Begun())
				}
				r.counted(map[gateway.Reason]uint64{gateway.ReasonTruncated: 2})
				assert.Zero(t, r.cache.Stats().Entries)
				testnet.Settle(t, "nothing is reserved", func() bool { return r.cache.Stats().Bytes == 0 })
			})
		}
	}
}

func TestResponsesToCookiesAreStoredOnlyIfShared(t *testing.T) {
	testnet.Baseline(t)
	for _, tt := range []struct {
		control, detail string
		opts            []gateway.Option
	}{
		{"max-age=60", "cookie", nil},
		{"public, max-age=60", "", nil},
		{"s-maxage=60", "", nil},
		{"max-age=60", "", []gateway.Option{gateway.WithCacheCookies()}},
		{"private, max-age=60", "private", []gateway.Option{gateway.WithCacheCookies()}},
	} {
		r := newRig(t, setup{noToken: true, second: true, defaults: tt.opts, script: testnet.Reply(200, "Cache-Control: "+tt.control, "ok")})
		if request := testnet.Get("/a/x", "Cookie: session=1"); tt.detail == "" {
			r.stored(request)
		} else {
			r.notStored(request, tt.detail)
		}
	}
}

// A fill that began before an unsafe request may hold what is no longer true.
func TestInvalidationReachesFillsInFlight(t *testing.T) {
	for _, body := range bodies {
		t.Run(body.name, func(t *testing.T) {
			rest := make(chan struct{})
			r := newRig(t, setup{script: inTwo(body.header, body.piece, body.last, rest)})
			c := testnet.Dial(t, r.addr)
			c.Send(testnet.Get("/a/x"))
			resp := c.ReadHead("GET")
			require.Equal(t, 200, r.do(testnet.Build("DELETE", "/a/x", "")).Status)
			close(rest)
			assert.Equal(t, testnet.Whole, restOf(resp).End, "its own client still gets it")
			r.counted(noFailure)
			testnet.Settle(t, "the fill has ended", func() bool { return r.cache.Stats().Bytes == 0 })
			assert.Zero(t, r.cache.Stats().Entries)
			r.stored(testnet.Get("/a/x"))
		})
	}
}

func TestInvalidationReachesFetchesWithoutAHeader(t *testing.T) {
	answer := make(chan struct{})
	r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
		if req.Method == http.MethodGet {
			receive(answer)
		}
		return testnet.Answer(200, storable, "ok")
	})})
	c := testnet.Dial(t, r.addr)
	c.Send(testnet.Get("/a/x"))
	r.a.Await(1)
	require.Equal(t, 200, r.do(testnet.Build("PUT", "/a/x", "body")).Status)
	close(answer)
	assert.Equal(t, 200, c.ReadResponse("GET").Status)
	r.counted(noFailure)
	assert.Zero(t, r.cache.Stats().Entries)
	r.stored(testnet.Get("/a/x"))
}

// What the upstream is told of where a request came in may be in its answer.
func TestKeysTellApartWhereARequestCameIn(t *testing.T) {
	echo := testnet.Respond(func(req *testnet.Request) string {
		return testnet.Answer(200, storable, fmt.Sprintf("%s %s %s %s", field(req, "X-Forwarded-Proto"), field(req, "X-Forwarded-Host"), field(req, "X-Forwarded-Prefix"), req.Target))
	})
	r := newRig(t, setup{script: echo, scriptB: testnet.Reply(200, storable, "b")})
	mux := http.NewServeMux()
	mux.Handle("/", r.gw)
	mux.Handle("/one/", http.StripPrefix("/one", r.gw))
	mux.Handle("/two/", http.StripPrefix("/two", r.gw))
	mux.Handle("/whole/", http.StripPrefix("/whole", r.gw.Upstream("a")))
	places := []struct {
		target, host string
		secure       *tls.ConnectionState
		want         string
	}{
		{"/a/x", "h", nil, "http h /a /x"},
		{"/a/x", "other", nil, "http other /a /x"},
		{"/a/x", "h:80", nil, "http h:80 /a /x"},
		{"/a/x", "h", &tls.ConnectionState{}, "https h /a /x"},
		{"/one/a/x", "h", nil, "http h /one/a /x"},
		{"/two/a/x", "h", nil, "http h /two/a /x"},
		{"/whole/x", "h", nil, "http h /whole /x"},
		{"/a/x?", "h", nil, "http h /a /x?"},
		{"/a/x?q", "h", nil, "http h /a /x?q"},
		{"/a/x%3Fq", "h", nil, "http h /a /x%3Fq"},
		{"/a/X", "h", nil, "http h /a /X"},
		{"/a/%78", "h", nil, "http h /a /%78"},
		{"/a/x/", "h", nil, "http h /a /x/"},
		{"/b/x", "h", nil, "b"},
	}
	for _, status := range []string{"gateway; fwd=uri-miss; stored", "gateway; hit; ttl=60"} {
		for _, p := range places {
			w := handle(t, mux, testnet.Get(p.target, "Host: "+p.host), p.secure)
			assert.Equal(t, p.want, w.body.String(), "%+v", p)
			assert.Equal(t, status, w.header.Get("Cache-Status"), "%+v", p)
		}
	}
	assert.EqualValues(t, len(places), r.cache.Stats().Entries)
}
