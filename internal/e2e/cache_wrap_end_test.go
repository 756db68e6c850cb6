package e2e_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway/internal/testnet"
)

// Who has the answer to an unsafe request must not find what it made untrue,
// though the handler has not returned.
func TestWrapInvalidatesBeforeItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		version := "old"
		w := newPages(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				version = "new"
				w.Header().Set("Content-Location", "/other")
				_, _ = io.WriteString(w, "done")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Minute)
				return
			}
			w.Header().Set("Cache-Control", "max-age=600")
			_, _ = io.WriteString(w, version)
		}, nil)
		w.get("/x")
		w.get("/other")
		c := w.dial()
		c.Send(testnet.Build("POST", "/x", "body"))
		assert.Equal(t, 200, c.ReadHead("POST").Status)
		assert.Equal(t, "new", string(w.get("/x").Body))
		assert.Equal(t, "new", string(w.get("/other").Body), "RFC 9111 §4.4")
	})
}

// What a handler says now, and may not be stored, takes the place of what it
// said before.
func TestWrapForgetsWhatIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		w := newPages(t, func(w http.ResponseWriter, _ *http.Request) {
			switch n++; n {
			case 1:
				w.Header().Set("Cache-Control", "max-age=10, stale-if-error=600")
				_, _ = io.WriteString(w, "old")
			case 2:
				w.Header().Set("Cache-Control", "no-store")
				_, _ = io.WriteString(w, "new")
			default:
				w.WriteHeader(500)
			}
		}, nil)
		w.get("/x")
		time.Sleep(11 * time.Second)
		assert.Equal(t, "new", string(w.get("/x").Body))
		assert.Equal(t, 500, w.get("/x").Status)
	})
}

// A writer of the app's that panics while a long answer streams ends the request.
// What is not stored any more may be what the client has: that is the end of it, and
// no word of the handler's about what is stored.
func TestWrapAnswersAClientThatHasTheNewerVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		w := newPages(t, func(rw http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.Header.Get("If-None-Match"))
			if rw.Header().Set("Etag", `"1"`); len(asked) == 1 {
				rw.Header().Set("Cache-Control", "max-age=60")
			} else {
				rw.Header().Set("Etag", `"2"`)
				rw.Header().Set("Cache-Control", "private")
			}
			_, _ = io.WriteString(rw, "page")
		}, nil)
		w.answers(w.get("/x"), "fwd=uri-miss; stored", "page", 1)
		time.Sleep(61 * time.Second)
		resp := w.get("/x", `If-None-Match: "2"`)
		assert.Equal(t, http.StatusNotModified, resp.Status)
		assert.Equal(t, `"2"`, resp.Header.Get("Etag"))
		w.answers(resp, "fwd=stale; detail=private", "", 2)
		assert.Equal(t, []string{"", `"1"`}, asked)
	})
}

func TestWrapUnderAWriterThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPages(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
		}, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(&panickingWriter{w, false}, r)
			})
		})
		c := w.dial()
		c.Send(testnet.Get("/x"))
		_, _ = c.ReadRest()
	})
}

// A stored response may name another place, and is sent as it came.
func TestWrapStoresRedirects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPages(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			http.Redirect(w, r, "http://gateway.test/y", http.StatusMovedPermanently)
		}, nil)
		for range 2 {
			resp := w.get("/x")
			assert.Equal(t, 301, resp.Status)
			assert.Equal(t, "http://gateway.test/y", resp.Header.Get("Location"))
		}
		assert.EqualValues(t, 1, w.calls.Load())
	})
}
