package e2e_test

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

const (
	longAgo = "Sun, 06 Nov 1994 08:49:37 GMT"
	later   = "Mon, 07 Nov 1994 08:49:37 GMT"
)

// A minute is how long the pages of these tests are fresh.
const minute = "Cache-Control: public, max-age=60"

func TestNotModifiedFreshensWhatIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, header: minute + "\r\nX-A: old\r\nX-Kept: kept\r\nContent-Type: text/x", body: "one"}
		b := newBubble(t, p.script())
		b.walk(
			step{body: "one", cache: "fwd=uri-miss; stored", asked: 1},
			step{wait: 59 * time.Second, body: "one", cache: "hit; ttl=1", asked: 1},
		)
		p.header = "Cache-Control: public, max-age=100\r\nX-A: new\r\nX-B: more"
		b.walk(step{wait: 2 * time.Second, body: "one", cache: "fwd=stale; fwd-status=304; stored", asked: 2})
		p.cut = true
		b.walk(step{wait: 99 * time.Second, body: "one", cache: "hit; ttl=1", asked: 2})
		hit := b.get("/a/x")
		assert.Equal(t, "99", hit.Header.Get("Age"), "it is as old as the 304")
		for name, want := range map[string]string{"X-A": "new", "X-B": "more", "X-Kept": "kept", "Content-Type": "text/x", "Content-Length": "3", "Etag": `"v1"`, "Cache-Control": "public, max-age=100"} {
			assert.Equal(t, []string{want}, hit.Header[name], name)
		}
	})
}

// A cookie that a 304 sets is for the client that the service was asked for, and
// for nobody who waited, nor for who comes later (RFC 9111 §7.3).
func TestNotModifiedSetsACookieForOneClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, header: minute, body: "one"}
		var asked atomic.Int64
		b := newBubble(t, testnet.Respond(func(r *testnet.Request) string {
			time.Sleep(time.Second)
			if r.Header["If-None-Match"] != nil {
				return testnet.Answer(304, minute+"\r\nETag: \"v1\"\r\nSet-Cookie: n="+strconv.FormatInt(asked.Add(1), 10), "")
			}
			return p.answer(r)
		}))
		b.get("/a/x")
		time.Sleep(61 * time.Second)
		var all sync.WaitGroup
		var got [10]*testnet.Response
		for i := range got {
			field := "X: y"
			if i%2 == 0 {
				field = `If-None-Match: "v1"`
			}
			all.Go(func() { got[i] = b.get("/a/x", field) })
		}
		all.Wait()
		cookies := 0
		for _, resp := range got {
			assert.Equal(t, strings.Contains(resp.Header.Get("Cache-Status"), "fwd-status=304"), len(resp.Header["Set-Cookie"]) == 1)
			cookies += len(resp.Header["Set-Cookie"])
		}
		assert.Equal(t, 1, cookies)
		assert.EqualValues(t, 1, asked.Load())
		assert.Empty(t, b.get("/a/x").Header["Set-Cookie"])
	})
}

func TestValidationReplacesWhatHasChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, header: minute + "\r\nX-Gone: gone", body: "one"}
		b := newBubble(t, p.script())
		b.walk(step{body: "one", cache: "fwd=uri-miss; stored", asked: 1})
		p.tag, p.header, p.body = `"v2"`, minute, "second"
		b.walk(
			step{wait: 61 * time.Second, body: "second", cache: "fwd=stale; stored", asked: 2},
			step{body: "second", cache: "hit; ttl=60", asked: 2},
		)
		hit := b.get("/a/x")
		assert.Equal(t, `"v2"`, hit.Header.Get("ETag"))
		assert.Empty(t, hit.Header["X-Gone"])
		assert.EqualValues(t, 1, b.cache.Stats().Entries)
	})
}

// What is on the wire is what RFC 9111 §4.3.1 says: the validators as they came.
func TestConditionsAreTheStoredValidators(t *testing.T) {
	const obsolete = "Sunday, 06-Nov-94 08:49:37 GMT"
	for _, tt := range []struct{ what, tag, date, none, since string }{
		{"strong", `"v1"`, "", `"v1"`, ""},
		{"weak", `W/"v1"`, "", `W/"v1"`, ""},
		{"date", "", longAgo, "", longAgo},
		{"both", `"v1"`, longAgo, `"v1"`, longAgo},
		{"obsolete date", "", obsolete, "", longAgo}, // RFC 9110 §5.6.7
		{"comma in a tag", `"a,b"`, "", `"a,b"`, ""},
		{"no tag", "v1", longAgo, "", longAgo},
		{"nothing", "", "", "", ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &page{tag: tt.tag, date: tt.date, header: minute, body: "one"}
				b := newBubble(t, p.script())
				b.get("/a/x")
				time.Sleep(61 * time.Second)
				assert.Equal(t, 200, b.get("/a/x").Status)
				req := b.asked()
				for name, want := range map[string]string{"If-None-Match": tt.none, "If-Modified-Since": tt.since, "If-Match": "", "If-Range": "", "Cache-Control": ""} {
					assert.Equal(t, want, field(req, name), name)
				}
				assert.Len(t, b.up.Journal(), 2)
			})
		})
	}
}

// A client's own conditions are between it and the cache: others wait for the
// same answer.
func TestClientsConditionsAreAnsweredByTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, date: longAgo, header: minute + "\r\nContent-Type: text/x\r\nContent-Language: en\r\nContent-Location: /x\r\nVary: Foo\r\nX-A: a", body: "one"}
		b := newBubble(t, p.script())
		conditions := []struct {
			field  string
			status int
		}{
			{`If-None-Match: "v1"`, 304},
			{`If-None-Match: W/"v1"`, 304},
			{`If-None-Match: "v0", "v1"`, 304},
			{`If-None-Match: *`, 304},
			{`If-None-Match: "v2"`, 200},
			{`If-None-Match: v1`, 200},
			{"If-Modified-Since: " + longAgo, 304},
			{"If-Modified-Since: " + later, 304},
			{"If-Modified-Since: Sat, 05 Nov 1994 08:49:37 GMT", 200},
			{"If-Modified-Since: nonsense", 200},
			{"If-Modified-Since: " + longAgo + "\r\nIf-None-Match: \"v2\"", 200},
		}
		for _, phase := range []struct {
			cache string
			asked int
			after time.Duration
		}{{"fwd=uri-miss; stored", 1, 0}, {"hit; ttl=60", 0, 0}, {"fwd=stale; fwd-status=304; stored", 1, 61 * time.Second}} {
			for _, c := range conditions {
				b.cache.Clear()
				if phase.cache != "fwd=uri-miss; stored" {
					b.get("/a/x")
				}
				before := b.up.Begun()
				time.Sleep(phase.after)
				resp := b.get("/a/x", c.field)
				assert.Equal(t, c.status, resp.Status, c.field)
				want := "gateway; " + phase.cache
				if phase.cache == "fwd=uri-miss; stored" && c.status == 304 {
					want = "gateway; fwd=uri-miss; fwd-status=200; stored"
				}
				assert.Equal(t, want, resp.Header.Get("Cache-Status"), c.field)
				ours := map[bool]string{true: `"v1"`}[phase.after > 0]
				assert.Equal(t, ours, field(b.asked(), "If-None-Match"), c.field)
				assert.Equal(t, map[bool]string{true: longAgo}[phase.after > 0], field(b.asked(), "If-Modified-Since"), c.field)
				assert.Equal(t, phase.asked, b.up.Begun()-before, c.field)
				if c.status == 200 {
					assert.Equal(t, "one", string(resp.Body))
					continue
				}
				assert.Equal(t, testnet.NoBody, resp.Framing)
				for name, want := range map[string][]string{ // RFC 9110 §15.4.5
					"Etag": {`"v1"`}, "Cache-Control": {"public, max-age=60"}, "Vary": {"Foo"}, "Content-Location": {"/a/x"},
					"Last-Modified": nil, "Content-Type": nil, "Content-Language": nil, "Content-Length": nil,
				} {
					assert.Equal(t, want, resp.Header[name], "%s: %s", c.field, name)
				}
				assert.Len(t, resp.Header["Date"], 1)
			}
		}
	})
}

func TestAnswersThatAreNotStoredAreConditionalToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, header: "Cache-Control: private, max-age=60", body: "one"}
		b := newBubble(t, p.script())
		for range 2 {
			resp := b.get("/a/x", `If-None-Match: "v1"`)
			assert.Equal(t, 304, resp.Status)
			assert.Empty(t, resp.Body)
			assert.Equal(t, `"v1"`, resp.Header.Get("ETag"))
			assert.Equal(t, 200, b.get("/a/x", `If-None-Match: "v0"`).Status)
		}
	})
}

func TestVariantsAreValidatedByTheTagsOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		current := map[string]string{"de": `"v-de"`, "en": `"v-en"`, "at": `"v-de"`}
		b := newBubble(t, testnet.Respond(func(req *testnet.Request) string {
			tag := current[field(req, "Foo")]
			header := minute + "\r\nVary: Foo\r\nETag: " + tag
			if strings.Contains(field(req, "If-None-Match"), tag) {
				return testnet.Answer(304, header, "")
			}
			return testnet.Answer(200, header, tag)
		}))
		b.walk(
			step{request: testnet.Get("/a/x", "Foo: de"), body: `"v-de"`, cache: "fwd=uri-miss; stored", asked: 1},
			step{request: testnet.Get("/a/x", "Foo: en"), body: `"v-en"`, cache: "fwd=vary-miss; stored", asked: 2},
		)
		assert.Equal(t, `"v-de"`, field(b.asked(), "If-None-Match"), "what another variant has may be the answer (RFC 9111 §4.1)")
		b.walk(step{request: testnet.Get("/a/x", "Foo: at"), body: `"v-de"`, cache: "fwd=vary-miss; fwd-status=304; stored", asked: 3})
		tags := field(b.asked(), "If-None-Match")
		assert.Contains(t, tags, `"v-de"`)
		assert.Contains(t, tags, `"v-en"`)
		b.walk(
			step{request: testnet.Get("/a/x", "Foo: at"), body: `"v-de"`, cache: "hit; ttl=60", asked: 3},
			step{request: testnet.Get("/a/x", "Foo: de"), body: `"v-de"`, cache: "hit; ttl=60", asked: 3},
			step{request: testnet.Get("/a/x", "Foo: en"), body: `"v-en"`, cache: "hit; ttl=60", asked: 3},
		)
	})
}

// A server may give all encodings one strong entity tag, though it should not (RFC
// 9110 §8.8.3.3): its 304 does not get a client what it cannot decode.
func TestEncodingsOfOneTagAreNotMixed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const head = minute + "\r\nETag: \"v1\"\r\nVary: Accept-Encoding"
		b := newBubble(t, testnet.Respond(func(r *testnet.Request) string {
			switch {
			case r.Header["If-None-Match"] != nil:
				return testnet.Answer(304, head, "")
			case strings.Contains(field(r, "Accept-Encoding"), "gzip"):
				return testnet.Answer(200, head+"\r\nContent-Encoding: gzip", "zipped")
			}
			return testnet.Answer(200, head, "plain")
		}))
		get := func(accept string) string { return testnet.Get("/a/x", "Accept-Encoding: "+accept) }
		b.walk(
			step{request: get("gzip"), body: "zipped", cache: "fwd=uri-miss; stored", asked: 1},
			step{request: get("br"), body: "plain", cache: "fwd=vary-miss; stored", asked: 2},
			step{request: testnet.Get("/a/x"), body: "plain", cache: "fwd=vary-miss; fwd-status=304; stored", asked: 3},
			step{request: get("gzip"), body: "zipped", cache: "hit; ttl=60", asked: 3},
		)
	})
}

func TestHeadFreshensOrInvalidates(t *testing.T) {
	head := testnet.Build("HEAD", "/a/x", "")
	for _, tt := range []struct {
		what   string
		change func(*page)
		next   step // a GET after it
	}{
		{"the same", func(*page) {}, step{body: "one", cache: "hit; ttl=60", asked: 2}},
		{"another ETag", func(p *page) { p.tag = `"v2"` }, step{body: "one", cache: "fwd=uri-miss; stored", asked: 3}},
		{"another Last-Modified", func(p *page) { p.date = later }, step{body: "one", cache: "fwd=uri-miss; stored", asked: 3}},
		{"another length", func(p *page) { p.body = "another" }, step{body: "another", cache: "fwd=uri-miss; stored", asked: 3}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &page{tag: `"v1"`, date: longAgo, header: minute, body: "one"}
				b := newBubble(t, p.script())
				b.walk(step{body: "one", cache: "fwd=uri-miss; stored", asked: 1})
				tt.change(p)
				b.walk(step{wait: 61 * time.Second, request: head, cache: "fwd=stale; detail=method", asked: 2}, tt.next)
			})
		})
	}
	for _, was := range []int{404, 302} {
		t.Run("over a "+http.StatusText(was), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Replies(
					testnet.Answer(was, "Location: /y\r\nCache-Control: max-age=60", "gone"),
					"HTTP/1.1 200 OK\r\n"+minute+"\r\nContent-Length: 4\r\n\r\n",
					testnet.Answer(200, minute, "here"),
				))
				b.walk(
					step{status: was, body: "gone", cache: "fwd=uri-miss; stored", asked: 1},
					step{wait: 61 * time.Second, request: head, cache: "fwd=stale; detail=method", asked: 2},
					step{body: "here", cache: "fwd=uri-miss; stored", asked: 3},
				)
			})
		})
	}
	t.Run("an error", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &page{tag: `"v1"`, header: minute, body: "one"}
			b := newBubble(t, p.script(), gateway.WithoutRetries())
			b.walk(step{body: "one", cache: "fwd=uri-miss; stored", asked: 1})
			p.down = 404
			time.Sleep(61 * time.Second)
			assert.Equal(t, 404, b.ask("HEAD /a/x HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n").Status)
			p.down = 0
			b.walk(step{body: "one", cache: "fwd=stale; fwd-status=304; stored", asked: 3})
		})
	})
}

func TestNoCacheIsValidatedBeforeEachUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{tag: `"v1"`, header: "Cache-Control: no-cache", body: "one"}
		b := newBubble(t, p.script())
		b.walk(
			step{body: "one", cache: "fwd=uri-miss; stored", asked: 1},
			step{body: "one", cache: "fwd=stale; fwd-status=304; stored", asked: 2},
			step{body: "one", cache: "fwd=stale; fwd-status=304; stored", asked: 3},
		)
		p.tag = ""
		b.walk(
			step{body: "one", cache: "fwd=stale; detail=no-cache", asked: 4},
			step{body: "one", cache: "fwd=uri-miss; detail=no-cache", asked: 5},
		)
	})
}

// What was stored goes when the resource has become something that is not kept.
func TestWhatIsNotStoredReplacesWhatIs(t *testing.T) {
	for _, tt := range []struct {
		status int
		header string
		goes   bool
	}{
		{200, "Cache-Control: no-store", true},
		{200, "Cache-Control: private", true},
		{404, "", true},
		{410, "", true},
		{302, "Location: /y", true},
		{403, "", false},
		{429, "", false},
		{500, "", false},
	} {
		t.Run(testnet.Answer(tt.status, tt.header, ""), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &page{tag: `"v1"`, header: minute, body: "one"}
				odd := false
				b := newBubble(t, testnet.Respond(func(r *testnet.Request) string {
					if odd {
						return testnet.Answer(tt.status, tt.header, "odd")
					}
					return p.answer(r)
				}))
				b.get("/a/x")
				time.Sleep(61 * time.Second)
				odd = true
				resp := b.get("/a/x")
				require.Equal(t, tt.status, resp.Status)
				assert.Contains(t, resp.Header.Get("Cache-Status"), "gateway; fwd=stale")
				odd = false
				want := "gateway; fwd=stale; fwd-status=304; stored"
				if tt.goes {
					want = "gateway; fwd=uri-miss; stored"
				}
				assert.Equal(t, want, b.get("/a/x").Header.Get("Cache-Status"))
			})
		})
	}
}
