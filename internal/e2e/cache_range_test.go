package e2e_test

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
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

const alphabet = "abcdefghijklmnopqrstuvwxyz"

func TestRangesOfAStoredResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, date: longAgo, header: minute + "\r\nContent-Type: text/x\r\nContent-Language: en\r\nContent-Digest: sha-256=:x:\r\nX-A: a", body: alphabet}
		b := newBubble(t, p.script())
		b.get("/a/x")
		for _, tt := range []struct{ fields, place, body string }{
			{"Range: bytes=0-0", "0-0", "a"},
			{"Range: bytes=2-4", "2-4", "cde"},
			{"Range: BYTES=2-4", "2-4", "cde"},
			{"Range: bytes=23-", "23-25", "xyz"},
			{"Range: bytes=-3", "23-25", "xyz"},
			{"Range: bytes=-99", "0-25", alphabet},
			{"Range: bytes=0-", "0-25", alphabet},
			{"Range: bytes=24-99", "24-25", "yz"},
			{"Range: bytes= 2-4 ,", "2-4", "cde"},
			{"Range: bytes=2-4,99-", "2-4", "cde"},                         // of which one is there
			{"Range: bytes=2-4,5-6", "2-6", "cdefg"},                       // that touch
			{"Range: bytes=2-4,4-6", "2-6", "cdefg"},                       // that overlap
			{"Range: bytes=2-4\r\nIf-Range: \"v1\"", "2-4", "cde"},         // RFC 9110 §13.1.5
			{"Range: bytes=2-4\r\nIf-Range: " + longAgo, "2-4", "cde"},     // strong by §8.8.2.2
			{"Range: bytes=2-4\r\nIf-Range: \"v0\"", "", alphabet},         // another version
			{"Range: bytes=2-4\r\nIf-Range: W/\"v1\"", "", alphabet},       // a weak one tells no bytes apart
			{"Range: bytes=2-4\r\nIf-Range: " + later, "", alphabet},       // not exactly its date
			{"Range: bytes=2-4\r\nIf-None-Match: \"v0\"", "2-4", "cde"},    // §13.2.2: the condition goes first
			{"Range: lines=2-4", "", alphabet},                             // §14.2
			{"If-Range: \"v0\"", "", alphabet},                             // without Range it is nothing
			{"Range: bytes=2-4\r\nCache-Control: max-age=9", "2-4", "cde"}, // it is fresh
		} {
			resp := b.get("/a/x", tt.fields)
			assert.Equal(t, tt.body, string(resp.Body), tt.fields)
			assert.Equal(t, strconv.Itoa(len(tt.body)), resp.Header.Get("Content-Length"), tt.fields)
			assert.Equal(t, "gateway; hit; ttl=60", resp.Header.Get("Cache-Status"), tt.fields)
			assert.Equal(t, `"v1"`, resp.Header.Get("ETag"), tt.fields)
			if tt.place == "" {
				assert.Equal(t, 200, resp.Status, tt.fields)
				assert.Empty(t, resp.Header["Content-Range"], tt.fields)
				continue
			}
			assert.Equal(t, 206, resp.Status, tt.fields)
			assert.Equal(t, []string{"bytes " + tt.place + "/26"}, resp.Header["Content-Range"], tt.fields)
			assert.Empty(t, resp.Header["Content-Digest"], "it is of another content")
			assert.Equal(t, !strings.Contains(tt.fields, "If-Range"), resp.Header["Content-Language"] != nil, "RFC 9110 §15.3.7: %s", tt.fields)
			assert.Equal(t, []string{"0"}, resp.Header["Age"])
			want := []string{"text/x"}
			if strings.Contains(tt.fields, "If-Range") {
				want = nil
			}
			assert.Equal(t, want, resp.Header["Content-Type"], "net/http has guessed none: %s", tt.fields)
		}
		for _, c := range []struct {
			fields string
			status int
		}{
			{"Range: bytes=2-4\r\nIf-None-Match: \"v1\"", 304},
			{"Range: bytes=26-", 416},
			{"Range: bytes=-0", 416},
		} {
			resp := b.get("/a/x", c.fields)
			assert.Equal(t, c.status, resp.Status, c.fields)
			assert.Empty(t, resp.Body)
			assert.Equal(t, "gateway; hit; ttl=60", resp.Header.Get("Cache-Status"))
			if c.status == 416 {
				assert.Equal(t, []string{"bytes */26"}, resp.Header["Content-Range"])
				assert.Empty(t, resp.Header["Cache-Control"], "or caches of others might store it for all")
			}
		}
		head := b.ask(testnet.Build("HEAD", "/a/x", "", "Range: bytes=0-0"))
		assert.Equal(t, 200, head.Status, "a Range means nothing to HEAD (RFC 9110 §14.2)")
		assert.Equal(t, "26", head.Header.Get("Content-Length"))
		assert.Equal(t, 1, b.up.Begun())
	})
}

func TestSeveralRangesAreSeveralParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := strings.Repeat(alphabet, 100)
		p := &page{tag: `"v1"`, header: minute + "\r\nContent-Type: text/x", body: body}
		b := newBubble(t, p.script())
		b.get("/a/x")
		for _, tt := range []struct {
			spec  string
			spans [][2]int
		}{
			{"0-1,100-101", [][2]int{{0, 1}, {100, 101}}},
			{"100-101,0-1", [][2]int{{100, 101}, {0, 1}}}, // in the order that was asked for
			{"0-1,100-101,-2", [][2]int{{0, 1}, {100, 101}, {2598, 2599}}},
			{"0-1,9999-,50-60", [][2]int{{0, 1}, {50, 60}}},
		} {
			resp := b.get("/a/x", "Range: bytes="+tt.spec)
			require.Equal(t, 206, resp.Status, tt.spec)
			assert.Empty(t, resp.Header["Content-Range"], "RFC 9110 §15.3.7.2")
			assert.Equal(t, strconv.FormatInt(resp.Size, 10), resp.Header.Get("Content-Length"))
			kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
			require.NoError(t, err)
			assert.Equal(t, "multipart/byteranges", kind)
			parts := multipart.NewReader(bytes.NewReader(resp.Body), params["boundary"])
			for _, span := range tt.spans {
				part, err := parts.NextPart()
				require.NoError(t, err, tt.spec)
				got, err := io.ReadAll(part)
				require.NoError(t, err)
				assert.Equal(t, body[span[0]:span[1]+1], string(got))
				assert.Equal(t, "text/x", part.Header.Get("Content-Type"))
				assert.Equal(t, "bytes "+strconv.Itoa(span[0])+"-"+strconv.Itoa(span[1])+"/2600", part.Header.Get("Content-Range"))
			}
			_, err = parts.NextPart()
			assert.ErrorIs(t, err, io.EOF, tt.spec)
		}
		assert.Equal(t, 1, b.up.Begun())
	})
}

// Only a 200 has parts, and only one that is stored.
func TestRangesOfWhatIsNoWholeResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Respond(func(r *testnet.Request) string {
			if strings.HasPrefix(r.Target, "/404") {
				return testnet.Answer(404, minute, alphabet)
			}
			return testnet.Answer(200, minute, "")
		}))
		for range 2 {
			resp := b.get("/a/404", "Range: bytes=0-0")
			assert.Equal(t, 404, resp.Status)
			assert.Equal(t, alphabet, string(resp.Body))
			empty := b.get("/a/empty", "Range: bytes=0-0")
			assert.Equal(t, 200, empty.Status, "a range of nothing")
		}
		assert.Equal(t, 2, b.up.Begun())
	})
}

// Whoever's upstream ignores Range has all of the response (RFC 9110 §14.2),
// which is stored and answers the range.
func TestRangeThatTheUpstreamIgnores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Reply(200, minute, alphabet))
		resp := b.get("/a/x", "Range: bytes=0-0")
		assert.Equal(t, 206, resp.Status)
		assert.Equal(t, "a", string(resp.Body))
		assert.Equal(t, "gateway; fwd=uri-miss; fwd-status=200; stored", resp.Header.Get("Cache-Status"))
		b.walk(
			step{request: testnet.Get("/a/x", "Range: bytes=1-2"), status: 206, body: "bc", cache: "hit; ttl=60", asked: 1},
			step{body: alphabet, cache: "hit; ttl=60", asked: 1},
		)
	})
}

func TestPartsAreStoredAndCombined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, header: minute + "\r\nContent-Type: text/x\r\nContent-Digest: sha-256=:x:", body: alphabet}
		b := newBubble(t, p.script())
		part := func(spec, body, cache string, asked int) step {
			return step{request: testnet.Get("/a/x", "Range: bytes="+spec), status: 206, body: body, cache: cache, asked: asked}
		}
		b.walk(
			part("0-4", "abcde", "fwd=uri-miss; stored", 1),
			part("0-4", "abcde", "hit; ttl=60", 1),
			part("1-2", "bc", "hit; ttl=60", 1), // it is covered
			part("4-6", "efg", "fwd=partial; stored", 2),
			part("0-6", "abcdefg", "hit; ttl=60", 2), // combined
			part("20-25", "uvwxyz", "fwd=partial; stored", 3),
			part("-3", "xyz", "hit; ttl=60", 3),
			part("20-", "uvwxyz", "hit; ttl=60", 3),
		)
		both := b.get("/a/x", "Range: bytes=0-1,24-25")
		assert.Equal(t, 206, both.Status, "two parts of two runs")
		assert.Contains(t, both.Header.Get("Content-Type"), "multipart/byteranges")
		assert.Contains(t, string(both.Body), "\r\n\r\nyz\r\n--")
		assert.Equal(t, 3, b.up.Begun())

		b.walk(step{body: alphabet, cache: "fwd=partial; fwd-status=206; stored", asked: 4})
		last := b.asked()
		assert.Equal(t, "bytes=7-19", field(last, "Range"), "what is missing, and no more")
		assert.Equal(t, `"v1"`, field(last, "If-Range"))
		b.walk(
			step{body: alphabet, cache: "hit; ttl=60", asked: 4},
			part("3-8", alphabet[3:9], "hit; ttl=60", 4),
		)
		whole := b.get("/a/x")
		assert.Equal(t, "26", whole.Header.Get("Content-Length"))
		assert.Equal(t, "text/x", whole.Header.Get("Content-Type"))
		assert.Empty(t, whole.Header["Content-Range"])
		assert.Empty(t, whole.Header["Content-Digest"], "which is of a part (RFC 9530 §2)")
		assert.EqualValues(t, 1, b.cache.Stats().Entries)
	})
}

// A part that answers If-Range need not have the fields that its client has already
// (RFC 9110 §15.3.7): what it completes keeps them, and alone it is of no use to
// others.
func TestPartsNeedNotRepeatWhatIsStored(t *testing.T) {
	const tag = minute + "\r\nETag: \"v1\"\r\n"
	const full = tag + "Content-Type: text/x\r\nContent-Encoding: x\r\nVary: Foo\r\nX-A: a\r\n"
	script := testnet.Respond(func(r *testnet.Request) string {
		head := full
		if r.Header["If-Range"] != nil {
			head = tag
		}
		switch field(r, "Range") {
		case "bytes=0-4":
			return testnet.Answer(206, head+"Content-Range: bytes 0-4/10", "01234")
		case "bytes=5-9":
			return testnet.Answer(206, head+"Content-Range: bytes 5-9/10", "56789")
		}
		return testnet.Answer(200, full, "0123456789")
	})
	first := step{request: testnet.Get("/a/x", "Range: bytes=0-4"), status: 206, body: "01234", cache: "fwd=uri-miss; stored", asked: 1}
	t.Run("completed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(t, script)
			b.walk(first, step{body: "0123456789", cache: "fwd=partial; fwd-status=206; stored", asked: 2}, step{body: "0123456789", cache: "hit; ttl=60", asked: 2})
			whole := b.get("/a/x")
			for name, want := range map[string]string{"Content-Type": "text/x", "Content-Encoding": "x", "Vary": "Foo", "X-A": "a"} {
				assert.Equal(t, want, whole.Header.Get(name), name)
			}
			b.walk(step{request: testnet.Get("/a/x", "Foo: 1"), body: "0123456789", cache: "fwd=vary-miss; stored", asked: 3})
		})
	})
	t.Run("alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(t, script)
			b.walk(step{request: testnet.Get("/a/x", "Range: bytes=0-4", `If-Range: "v1"`), status: 206, body: "01234", cache: "fwd=uri-miss; detail=range", asked: 1})
			first.asked = 2
			b.walk(first)
		})
	})
}

func TestPartsOfAnotherVersionAreNotCombined(t *testing.T) {
	ranged := testnet.Get("/a/x", "Range: bytes=0-4")
	for _, tt := range []struct {
		what   string
		change func(*page)
	}{
		{"another ETag", func(p *page) { p.tag, p.body = `"v2"`, strings.ToUpper(alphabet) }},
		{"a weak ETag", func(p *page) { p.tag, p.body = `W/"v1"`, strings.ToUpper(alphabet) }},
		{"no ETag", func(p *page) { p.tag, p.body = "", strings.ToUpper(alphabet) }},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &page{tag: `"v1"`, header: minute, body: alphabet}
				b := newBubble(t, p.script())
				b.walk(step{request: ranged, status: 206, body: "abcde", cache: "fwd=uri-miss; stored", asked: 1})
				tt.change(p)
				b.walk(step{body: p.body, cache: "fwd=partial; stored", asked: 2}, step{body: p.body, cache: "hit; ttl=60", asked: 2})
				assert.Equal(t, `"v1"`, field(b.asked(), "If-Range"))
			})
			synctest.Test(t, func(t *testing.T) { // another part first
				p := &page{tag: `"v1"`, header: minute, body: alphabet}
				b := newBubble(t, p.script())
				b.walk(step{request: ranged, status: 206, body: "abcde", cache: "fwd=uri-miss; stored", asked: 1})
				tt.change(p)
				resp := b.get("/a/x", "Range: bytes=3-8")
				assert.Equal(t, p.body[3:9], string(resp.Body))
				assert.Equal(t, p.body, string(b.get("/a/x").Body))
				assert.Equal(t, p.body[:5], string(b.ask(ranged).Body))
			})
		})
	}
}

// An upstream that answers the request for what is missing with something else
// is asked for all of it, once.
func TestRestThatDoesNotFit(t *testing.T) {
	for what, rest := range map[string]string{
		"another place":    testnet.Answer(206, minute+"\r\nETag: \"v1\"\r\nContent-Range: bytes 7-25/26", alphabet[7:]),
		"another size":     testnet.Answer(206, minute+"\r\nETag: \"v1\"\r\nContent-Range: bytes 5-26/27", alphabet[5:]+"!"),
		"another version":  testnet.Answer(206, minute+"\r\nETag: \"v2\"\r\nContent-Range: bytes 5-25/26", alphabet[5:]),
		"a lie":            testnet.Answer(206, minute+"\r\nETag: \"v1\"\r\nContent-Range: bytes 5-25/26", "short"),
		"a 416":            testnet.Answer(416, "Content-Range: bytes */3", ""), // the client has asked for no range
		"no Content-Range": testnet.Answer(206, minute+"\r\nETag: \"v1\"", alphabet[5:]),
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Replies(
					testnet.Answer(206, minute+"\r\nETag: \"v1\"\r\nContent-Range: bytes 0-4/26", alphabet[:5]), rest,
					testnet.Answer(200, minute+"\r\nETag: \"v3\"", strings.ToUpper(alphabet)),
				))
				b.walk(
					step{request: testnet.Get("/a/x", "Range: bytes=0-4"), status: 206, body: "abcde", cache: "fwd=uri-miss; stored", asked: 1},
					step{body: strings.ToUpper(alphabet), cache: "fwd=partial; stored", asked: 3},
					step{body: strings.ToUpper(alphabet), cache: "hit; ttl=60", asked: 3},
				)
				assert.Empty(t, b.asked().Header["Range"])
			})
		})
	}
}

func TestStalePartsAreNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, header: minute, body: alphabet}
		b := newBubble(t, p.script())
		ranged := testnet.Get("/a/x", "Range: bytes=0-4")
		b.walk(
			step{request: ranged, status: 206, body: "abcde", cache: "fwd=uri-miss; stored", asked: 1},
			step{wait: 61 * time.Second, request: ranged, status: 206, body: "abcde", cache: "fwd=stale; stored", asked: 2},
			step{request: ranged, status: 206, body: "abcde", cache: "hit; ttl=60", asked: 2},
		)
	})
}

// A range of what is stale waits for the validation of all of it.
func TestRangeOfAStaleResponseIsValidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, header: minute, body: alphabet}
		b := newBubble(t, p.script())
		b.walk(
			step{body: alphabet, cache: "fwd=uri-miss; stored", asked: 1},
			step{wait: 61 * time.Second, request: testnet.Get("/a/x", "Range: bytes=0-4"), status: 206, body: "abcde", cache: "fwd=stale; fwd-status=304; stored", asked: 2},
			step{request: testnet.Get("/a/x", "Range: bytes=5-6"), status: http.StatusPartialContent, body: "fg", cache: "hit; ttl=60", asked: 2},
		)
		p.tag, p.body = `"v2"`, strings.ToUpper(alphabet)
		b.walk(step{wait: 61 * time.Second, request: testnet.Get("/a/x", "Range: bytes=0-4"), status: 206, body: "ABCDE", cache: "fwd=stale; fwd-status=200; stored", asked: 3})
	})
}

// What is put together from parts is no longer than a response may be: the part
// that came last is kept alone, and all of it is asked for as if none were.
func TestPartsAreNoMoreThanAResponseMayBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 100 << 10
		p := &page{tag: `"v1"`, header: minute, body: strings.Repeat(alphabet, most/13)} // two times as much
		cache, err := gateway.NewCache(gateway.WithMaxObjectBytes(most))
		require.NoError(t, err)
		b := direct.bubbleOf(t, cache, p.script())
		part := func(from, to int) step {
			return step{request: testnet.Get("/a/x", "Range: bytes="+strconv.Itoa(from)+"-"+strconv.Itoa(to-1)), status: 206, body: p.body[from:to]}
		}
		for n, s := range []step{part(0, 40<<10), part(20<<10, 60<<10), part(60<<10, 100<<10), part(90<<10, 101<<10)} {
			s.cache, s.asked = "fwd=partial; stored", n+1
			if n == 0 {
				s.cache = "fwd=uri-miss; stored"
			}
			b.walk(s)
			assert.LessOrEqual(t, cache.Stats().Bytes, int64(most+2<<10))
		}
		last := part(90<<10, 101<<10)
		last.cache, last.asked = "hit; ttl=60", 4
		b.walk(last, step{body: p.body, cache: "fwd=partial; detail=too-large", asked: 5})
		assert.Empty(t, b.asked().Header["Range"])
	})
}

// While what others are being sent takes up the cache's room, a response is not
// put together from parts: it is asked for whole, and passed on.
func TestRestThatThereIsNoRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 600 << 10
		p := &page{tag: `"v1"`, header: minute, body: strings.Repeat("x", size)}
		cache, err := gateway.NewCache(gateway.WithMaxBytes(1<<20), gateway.WithMaxObjectBytes(700<<10))
		require.NoError(t, err)
		b := direct.bubbleOf(t, cache, func(c *testnet.Conn) {
			for r := c.ReadRequest(); r != nil; r = c.ReadRequest() {
				raw := p.answer(r)
				if r.Target == "/other" {
					raw = testnet.Answer(200, minute, p.body)
				}
				most := len(raw) / 10 * 9
				if !c.Send(raw[:most]) || r.Target == "/other" && !c.Pause(10*time.Second) || !c.Send(raw[most:]) {
					return
				}
			}
		})
		b.walk(step{request: testnet.Get("/a/x", "Range: bytes=0-4"), status: 206, body: "xxxxx", cache: "fwd=uri-miss; stored", asked: 1})
		other := make(chan string)
		go func() { other <- string(b.get("/a/other").Body) }()
		time.Sleep(time.Second)
		got := b.get("/a/x")
		assert.Equal(t, p.body, string(got.Body))
		assert.Empty(t, b.asked().Header["Range"])
		assert.Len(t, <-other, size)
		b.walk(step{body: p.body, asked: 5, cache: "fwd=partial; fwd-status=206; stored"})
	})
}
