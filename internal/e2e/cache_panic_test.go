package e2e_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// What a hook put in the place of the content may panic.
func TestReplacedContentMayPanic(t *testing.T) {
	for what, request := range map[string]string{"whole": testnet.Get("/a/x"), "part": testnet.Get("/a/x", "Range: bytes=0-3"), "past the cache": testnet.Get("/a/x", "Cache-Control: no-store")} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, setup{
				script: testnet.Respond(func(req *testnet.Request) string {
					if req.Header["Range"] != nil {
						return testnet.Answer(206, storable+"ETag: \"v\"\r\nContent-Range: bytes 0-3/10", "0123")
					}
					return testnet.Answer(200, storable, "0123")
				}),
				a: []gateway.ServiceOption{gateway.WithMaxConcurrency(1, 0, 0), gateway.WithModifyResponse(func(resp *http.Response) error {
					resp.Body = panicking{resp.Body}
					return nil
				})},
			})
			for range 3 {
				c := testnet.Dial(t, r.addr)
				c.Send(request)
				_, _ = c.ReadRest()
			}
			r.counted(map[gateway.Reason]uint64{gateway.ReasonPanic: 3})
			assert.Equal(t, 3, r.a.Begun(), "a place comes free again")
			assert.Zero(t, r.cache.Stats().Bytes)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.NoError(t, r.cache.Shutdown(ctx))
		})
	}
}

type panicking struct{ io.ReadCloser }

func (panicking) Read([]byte) (int, error) { panic("no content") }

// The writer that an app's middleware has given us may panic.
func TestClientsWriterMayPanic(t *testing.T) {
	for what, request := range map[string]string{"whole": testnet.Get("/a/x"), "part": testnet.Get("/a/x", "Range: bytes=0-3")} {
		for _, head := range []bool{false, true} {
			t.Run(what, func(t *testing.T) {
				r := newRig(t, setup{
					script: testnet.Respond(func(req *testnet.Request) string {
						if req.Header["Range"] != nil {
							return testnet.Answer(206, storable+"ETag: \"v\"\r\nContent-Range: bytes 0-3/10", "0123")
						}
						return "HTTP/1.1 200 OK\r\n" + storable + "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000)
					}),
					handler: func(gw *gateway.Gateway) http.Handler {
						return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							if strings.HasPrefix(r.URL.Path, "/a/") {
								w = &panickingWriter{w, head}
							}
							gw.ServeHTTP(w, r)
						})
					},
				})
				c := testnet.Dial(t, r.addr)
				c.Send(request)
				_, _ = c.ReadRest()
				testnet.Settle(t, "the attempt ends", func() bool { return len(r.attempts()) == 1 })
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.NoError(t, r.cache.Shutdown(ctx))
				assert.Zero(t, r.cache.Stats().Bytes)
			})
		}
	}
}

type panickingWriter struct {
	http.ResponseWriter
	head bool
}

func (w *panickingWriter) WriteHeader(status int) {
	if w.head {
		panic(http.ErrAbortHandler)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *panickingWriter) Write(p []byte) (int, error) { panic(http.ErrAbortHandler) }

func (w *panickingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
