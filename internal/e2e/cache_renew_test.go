package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway/internal/testnet"
)

// A response that validates, or completes, what is stored may forbid to store it
// any longer.
func TestValidationMayForbidStoring(t *testing.T) {
	for _, field := range []string{"Cache-Control: no-store", "Cache-Control: private, max-age=60", "Cache-Control: max-age=60, private"} {
		t.Run(field, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Respond(func(r *testnet.Request) string {
					if r.Header["If-None-Match"] != nil {
						return testnet.Answer(304, "ETag: \"v\"\r\n"+field, "")
					}
					return testnet.Answer(200, "Cache-Control: max-age=10\r\nETag: \"v\"", "body")
				}))
				b.get("/a/x")
				time.Sleep(11 * time.Second)
				resp := b.get("/a/x")
				assert.Equal(t, 200, resp.Status)
				assert.Equal(t, "body", string(resp.Body))
				assert.NotContains(t, resp.Header.Get("Cache-Status"), "stored")
				again := b.get("/a/x")
				assert.Equal(t, "body", string(again.Body))
				assert.NotContains(t, again.Header.Get("Cache-Status"), "hit")
				assert.Empty(t, b.asked().Header["If-None-Match"])
			})
		})
	}
}

func TestCompletionMayForbidStoring(t *testing.T) {
	for _, field := range []string{"Cache-Control: no-store", "Cache-Control: max-age=60\r\nSet-Cookie: id=1", "Cache-Control: private, max-age=60"} {
		t.Run(field, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rests := 0
				b := newBubble(t, testnet.Respond(func(r *testnet.Request) string {
					switch field := r.Header.Get("Range"); field {
					case "bytes=0-4":
						return testnet.Answer(206, "Cache-Control: max-age=60\r\nETag: \"v\"\r\nContent-Range: bytes 0-4/10", "01234")
					case "bytes=5-9":
					default:
						return testnet.Answer(200, "Cache-Control: no-store\r\nETag: \"v\"", "0123456789")
					}
					rests++
					field := strings.ReplaceAll(field, "id=1", fmt.Sprintf("id=%d", rests))
					return testnet.Answer(206, field+"\r\nETag: \"v\"\r\nContent-Range: bytes 5-9/10", "56789")
				}))
				b.get("/a/x", "Range: bytes=0-4")
				assert.Contains(t, b.get("/a/x", "Range: bytes=1-2").Header.Get("Cache-Status"), "hit")
				resp := b.get("/a/x")
				assert.Equal(t, 200, resp.Status)
				assert.Equal(t, "0123456789", string(resp.Body))
				again := b.get("/a/x")
				assert.NotContains(t, again.Header.Get("Cache-Status"), "hit")
				assert.Contains(t, []string{"", "id=2"}, again.Header.Get("Set-Cookie"), "a cookie is for one client")
			})
		})
	}
}
