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

// What is stored for all stays when it is validated by one whose own answer would
// not be stored, unless the permission that it was stored by is gone.
func TestValidationForOneClientAloneKeepsWhatIsStored(t *testing.T) {
	const tag = "ETag: \"v\"\r\n"
	for _, own := range []string{"Cookie: id=1", "Authorization: Basic eDp5eXl5eQ=="} {
		for _, tt := range []struct {
			what, first, next string
			head              bool
			third             string
		}{
			{"304", "max-age=10", "max-age=10", false, "gateway; fwd=stale; fwd-status=304; stored"},
			{"304 without public", "max-age=10, public", "max-age=10", false, "gateway; fwd=uri-miss; stored"},
			{"HEAD", "max-age=10", "max-age=10", true, "gateway; fwd=stale; fwd-status=304; stored"},
			{"HEAD without public", "max-age=10, public", "max-age=10", true, "gateway; fwd=uri-miss; stored"},
		} {
			t.Run(tt.what+" to "+own, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					control := tt.first
					b := newBubble(t, testnet.Respond(func(r *testnet.Request) string {
						head := tag + "X-For: " + field(r, "Cookie") + "\r\nCache-Control: " + control
						switch {
						case r.Method == "HEAD":
							return "HTTP/1.1 200 OK\r\n" + head + "\r\nContent-Length: 4\r\n\r\n"
						case r.Header["If-None-Match"] != nil:
							return testnet.Answer(304, head, "")
						}
						return testnet.Answer(200, head, "body")
					}))
					b.get("/a/x")
					time.Sleep(11 * time.Second)
					control = tt.next
					method := "GET"
					if tt.head {
						method = "HEAD"
					}
					resp := b.ask(testnet.Build(method, "/a/x", "", own))
					assert.Equal(t, 200, resp.Status)
					assert.NotContains(t, resp.Header.Get("Cache-Status"), "stored")
					again := b.get("/a/x")
					assert.Equal(t, tt.third, again.Header.Get("Cache-Status"))
					assert.Equal(t, "body", string(again.Body))
					assert.Empty(t, again.Header.Get("X-For"), "what one client was told is not for others")
				})
			})
		}
	}
}
