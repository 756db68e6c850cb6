package e2e_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway/internal/testnet"
)

const shortLived = "Cache-Control: public, max-age=1\r\n"

// visited is what of an answer tells where it came from: Cache-Status and body.
type visited struct{ status, body string }

// visits sends one request after the other, two seconds apart.
func visits(b *bubble, requests ...string) (all []visited) {
	c := b.dial()
	for _, request := range requests {
		resp := c.Do(request)
		synctest.Wait()
		all = append(all, visited{resp.Header.Get("Cache-Status"), string(resp.Body)})
		time.Sleep(2 * time.Second)
	}
	return all
}

// A weak tag and a date may be those of all translations: what the request does
// not select is not named by them, and no 304 that has them is about it (RFC 9111
// §4.3.4).
func TestValidatorsOfVariantsDoNotMixThem(t *testing.T) {
	for name, validator := range map[string]string{"date": "Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT", "weak tag": `ETag: W/"1"`} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Respond(func(req *testnet.Request) string {
					if field(req, "If-None-Match")+field(req, "If-Modified-Since") != "" {
						return testnet.Answer(304, shortLived+"Vary: Accept-Language\r\n"+validator, "")
					}
					return testnet.Answer(200, shortLived+"Vary: Accept-Language\r\n"+validator, field(req, "Accept-Language"))
				}))
				de, en := testnet.Get("/a/x", "Accept-Language: de"), testnet.Get("/a/x", "Accept-Language: en")
				assert.Equal(t, []visited{
					{"gateway; fwd=uri-miss; stored", "de"},
					{"gateway; fwd=vary-miss; stored", "en"},
					{"gateway; fwd=stale; fwd-status=304; stored", "de"},
					{"gateway; fwd=stale; fwd-status=304; stored", "en"},
				}, visits(b, de, en, de, en))
			})
		})
	}
}

// What brings a stored response up to date may also end it (RFC 9111 §3, §4.3.4).
func TestWhatNoLongerMayBeStoredIsNot(t *testing.T) {
	const tagged = `ETag: "1"` + "\r\n"
	part := func(control, place, bytes string) string {
		return testnet.Answer(206, control+tagged+"Content-Range: bytes "+place+"/4", bytes)
	}
	whole := testnet.Answer(200, storable+tagged, "body")
	get, first, head := testnet.Get("/a/x"), testnet.Get("/a/x", "Range: bytes=0-1"), testnet.Build("HEAD", "/a/x", "", "Cache-Control: no-cache")
	for _, tt := range []struct {
		name, second string
		answers      []string
		requests     []string
	}{
		{"304 no-store", "gateway; fwd=stale; fwd-status=304; detail=no-store", []string{testnet.Answer(200, shortLived+tagged, "body"), testnet.Answer(304, "Cache-Control: no-store\r\n"+tagged, "")}, []string{get, get}},
		{"304 private", "gateway; fwd=stale; fwd-status=304; detail=private", []string{testnet.Answer(200, shortLived+tagged, "body"), testnet.Answer(304, "Cache-Control: private\r\n"+tagged, "")}, []string{get, get}},
		{"304 Vary by everything", "gateway; fwd=stale; fwd-status=304; detail=vary", []string{testnet.Answer(200, shortLived+tagged, "body"), testnet.Answer(304, "Vary: *\r\n"+tagged, "")}, []string{get, get}},
		{"the rest of a part", "gateway; fwd=partial; fwd-status=206; detail=private", []string{part(storable, "0-1", "bo"), part("Cache-Control: private\r\n", "2-3", "dy")}, []string{first, get}},
		{"HEAD", "gateway; fwd=request; detail=method", []string{whole, testnet.Answer(200, "Cache-Control: no-store\r\nContent-Length: 4\r\n"+tagged, "")}, []string{get, head}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Replies(append(tt.answers, whole)...))
				got := visits(b, append(tt.requests, get)...)
				assert.Equal(t, tt.second, got[1].status)
				if tt.name != "HEAD" {
					assert.Equal(t, "body", got[1].body)
				}
				assert.Equal(t, visited{"gateway; fwd=uri-miss; stored", "body"}, got[2])
			})
		})
	}
}

// Of responses that a request selects, one that says by what it is selected is
// better than a default that forgot to (RFC 9111 §4.1), unless a newer one came
// in its place.
func TestDefaultsWithoutVaryHideNoVariant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		varies := true
		b := newBubble(t, testnet.Respond(func(req *testnet.Request) string {
			if lang := field(req, "Accept-Language"); lang != "" && varies {
				return testnet.Answer(200, "Cache-Control: max-age=5\r\nVary: Accept-Language", lang)
			}
			return testnet.Answer(200, storable, "default")
		}))
		de, none := testnet.Get("/a/x", "Accept-Language: de"), testnet.Get("/a/x")
		assert.Equal(t, []visited{
			{"gateway; fwd=uri-miss; stored", "de"},
			{"gateway; fwd=vary-miss; stored", "default"},
			{"gateway; hit; ttl=1", "de"},
		}, visits(b, de, none, de))
		varies = false
		assert.Equal(t, []visited{
			{"gateway; fwd=stale; stored", "default"},
			{"gateway; hit; ttl=58", "default"},
		}, visits(b, de, de))
	})
}

// What HEAD was answered with is refreshed by GET, whose answer can be stored.
func TestHeadIsRefreshedByGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Respond(func(req *testnet.Request) string {
			return testnet.Answer(200, "Cache-Control: max-age=1, stale-while-revalidate=60", req.Method)
		}))
		assert.Equal(t, []visited{
			{"gateway; fwd=uri-miss; stored", "GET"},
			{"gateway; hit; ttl=-1", ""},
			{"gateway; hit; ttl=-1", "GET"},
		}, visits(b, testnet.Get("/a/x"), testnet.Build("HEAD", "/a/x", ""), testnet.Get("/a/x")))
		for _, req := range b.up.Journal() {
			assert.Equal(t, "GET", req.Method)
		}
	})
}

// If-Range is no condition that a 304 could answer (RFC 9110 §13.1.5).
func TestNotModifiedDoesNotAnswerIfRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, testnet.Replies(testnet.Answer(304, `ETag: "1"`, "")))
		resp := b.dial().Do(testnet.Get("/a/x", "Range: bytes=0-1", `If-Range: "1"`))
		assert.Equal(t, 502, resp.Status)
	})
}
