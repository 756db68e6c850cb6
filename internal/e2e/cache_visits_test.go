package e2e_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway/internal/testnet"
)

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
