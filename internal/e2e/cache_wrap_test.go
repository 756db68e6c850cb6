package e2e_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// pages are a handler under Wrap behind a server, in a bubble.
type pages struct {
	*testing.T
	cache *gateway.Cache
	ln    *testnet.PipeListener
	calls atomic.Int64 // of the handler
}

// newPages serves h under Wrap; around, if any, wraps that again.
func newPages(t *testing.T, h http.HandlerFunc, around func(http.Handler) http.Handler, opts ...gateway.CacheOption) *pages {
	t.Helper()
	cache, err := gateway.NewCache(append([]gateway.CacheOption{gateway.WithLogger(testnet.NewLogRecorder().Logger())}, opts...)...)
	require.NoError(t, err)
	w := &pages{T: t, cache: cache, ln: testnet.NewPipeListener()}
	handler := cache.Wrap("pages")(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.calls.Add(1)
		h(rw, r)
	}))
	if around != nil {
		handler = around(handler)
	}
	srv := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)}
	go func() { _ = srv.Serve(w.ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		assert.NoError(t, srv.Shutdown(ctx))
		assert.NoError(t, cache.Shutdown(ctx))
	})
	return w
}

func (w *pages) dial() *testnet.Client {
	w.Helper()
	conn, err := w.ln.Dial()
	require.NoError(w, err)
	c := testnet.NewClient(w, conn)
	c.Patience = time.Hour
	return c
}

func (w *pages) do(raw string) *testnet.Response {
	w.Helper()
	c := w.dial()
	defer c.Close()
	return c.Do(raw)
}

func (w *pages) get(target string, fields ...string) *testnet.Response {
	w.Helper()
	return w.do(testnet.Get(target, fields...))
}

// answers checks an answer: its Cache-Status behind our name, its content, and
// how often the handler has run.
func (w *pages) answers(resp *testnet.Response, cache, body string, calls int) {
	w.Helper()
	assert.Equal(w, testnet.Whole, resp.End)
	assert.Equal(w, "gateway; "+cache, resp.Header.Get("Cache-Status"))
	assert.Equal(w, body, string(resp.Body))
	assert.EqualValues(w, calls, w.calls.Load())
}

func says(header map[string]string, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range header {
			w.Header().Set(name, value)
		}
		_, _ = io.WriteString(w, body)
	}
}

var forAMinute = map[string]string{"Cache-Control": "max-age=60"}

func TestWrapStoresWhatAHandlerAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPages(t, says(map[string]string{"Cache-Control": "max-age=60", "Etag": `"v1"`, "X-A": "a"}, "<html>page"), nil)
		w.answers(w.get("/x?q"), "fwd=uri-miss; stored", "<html>page", 1)
		time.Sleep(10 * time.Second)
		hit := w.get("/x?q")
		w.answers(hit, "hit; ttl=50", "<html>page", 1)
		for name, want := range map[string]string{"Age": "10", "Etag": `"v1"`, "X-A": "a", "Content-Length": "10", "Content-Type": "text/html; charset=utf-8"} {
			assert.Equal(t, []string{want}, hit.Header[name], name)
		}
		assert.Len(t, hit.Header["Date"], 1)
		w.answers(w.do(testnet.Build("HEAD", "/x?q", "")), "hit; ttl=50", "", 1)
		w.answers(w.get("/x?other"), "fwd=uri-miss; stored", "<html>page", 2)
		w.answers(w.get("/x?q", "Host: other.test"), "fwd=uri-miss; stored", "<html>page", 3)
		time.Sleep(51 * time.Second)
		assert.EqualValues(t, 3, w.calls.Load())
		assert.Equal(t, 3, w.cache.PurgePrefix("pages", "/"))
	})
}

// What a handler's answer is without a cache, it is with one.
func TestWrapChangesNoAnswer(t *testing.T) {
	for what, h := range map[string]http.HandlerFunc{
		"sniffed":        says(forAMinute, "<html><body>x"),
		"sniffed binary": says(forAMinute, "\x89PNG\x0d\x0a\x1a\x0a"),
		"its own type":   says(map[string]string{"Cache-Control": "max-age=60", "Content-Type": "text/x"}, "<html>"),
		"no type": func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			_, _ = io.WriteString(w, "<html>")
		},
		"no type, storable": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			says(forAMinute, "<html>")(w, r)
		},
		"encoded":           says(map[string]string{"Cache-Control": "max-age=60", "Content-Encoding": "gzip"}, "zipped"),
		"nothing":           func(http.ResponseWriter, *http.Request) {},
		"nothing, storable": says(forAMinute, ""),
		"204": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.WriteHeader(204)
		},
		"404": http.NotFound,
		"301": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/y", http.StatusMovedPermanently) },
		"late header": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			w.Header().Set("X-Late", "1")
			_, _ = io.WriteString(w, "x")
		},
		"two headers": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(201)
			w.WriteHeader(202)
			_, _ = io.WriteString(w, "x")
		},
		"in pieces": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			for range 10 {
				_, _ = io.WriteString(w, "piece")
			}
		},
		"long":             says(forAMinute, strings.Repeat("long", 50_000)),
		"long, not stored": says(nil, strings.Repeat("long", 50_000)),
		"private":          says(map[string]string{"Cache-Control": "private"}, "mine"),
		"with a length":    says(map[string]string{"Cache-Control": "max-age=60", "Content-Length": "3"}, "abc"),
		"served content": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			http.ServeContent(w, r, "x.txt", time.Unix(784111777, 0), strings.NewReader("served"))
		},
		"dated by itself": says(map[string]string{"Cache-Control": "max-age=60", "Date": "Sat, 01 Jan 2000 00:00:00 GMT"}, "x"),
		"several of a field": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header()["X-A"] = []string{"1", "2"}
			_, _ = io.WriteString(w, "x")
		},
	} {
		for _, request := range []string{testnet.Get("/x"), testnet.Build("HEAD", "/x", ""), testnet.Build("POST", "/x", "body"), testnet.Get("/x", "Range: bytes=1-2")} {
			t.Run(what+" "+strings.ReplaceAll(request, "\r\n", " "), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					plain := newPages(t, h, func(http.Handler) http.Handler { return h })
					cached := newPages(t, h, nil)
					want := plain.do(request)
					for n := range 2 {
						got := cached.do(request)
						if strings.Contains(request, "Range") && want.Status == 200 && got.Status != 200 {
							assert.Contains(t, []int{206, 416}, got.Status, "of what is stored")
							continue
						}
						assert.Equal(t, want.Status, got.Status, n)
						assert.Equal(t, string(want.Body), string(got.Body), n)
						assert.Equal(t, want.End, got.End, n)
						for _, name := range []string{"Cache-Status", "Age", "Content-Length", "Transfer-Encoding", "Accept-Ranges"} {
							got.Header.Del(name)
							want.Header.Del(name)
						}
						assert.Equal(t, want.Header, got.Header, n)
					}
				})
			})
		}
	}
}

// Middleware may set what is for one client.
func TestWrapStoresNothingOfMiddleware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		w := newPages(t, says(map[string]string{"Cache-Control": "max-age=60", "Vary": "Foo"}, "page"), func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n++
				w.Header().Set("Set-Cookie", fmt.Sprintf("id=%d", n))
				w.Header().Set("X-Frame-Options", "DENY")
				w.Header().Add("Vary", "Cookie")
				next.ServeHTTP(w, r)
			})
		})
		for i := 1; i <= 3; i++ {
			resp := w.get("/x")
			assert.Equal(t, []string{fmt.Sprintf("id=%d", i)}, resp.Header["Set-Cookie"], "to each its own")
			assert.Equal(t, []string{"DENY"}, resp.Header["X-Frame-Options"])
			assert.ElementsMatch(t, []string{"Cookie", "Foo"}, resp.Header["Vary"])
			assert.Equal(t, "page", string(resp.Body))
		}
		assert.EqualValues(t, 1, w.calls.Load())
	})
}

func TestWrapFlushesAtOnce(t *testing.T) {
	for _, control := range []string{"max-age=60", "no-store"} {
		t.Run(control, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newPages(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Cache-Control", control)
					for n := range 3 {
						_, _ = fmt.Fprintf(w, "piece %d\n", n)
						assert.NoError(t, http.NewResponseController(w).Flush())
						time.Sleep(time.Second)
					}
				}, nil)
				began, c := time.Now(), w.dial()
				c.Send(testnet.Get("/x"))
				resp := c.ReadHead("GET")
				for n := range 3 {
					piece := make([]byte, 8)
					_, err := io.ReadFull(resp, piece)
					require.NoError(t, err)
					assert.Equal(t, fmt.Sprintf("piece %d\n", n), string(piece))
					lasted(t, time.Duration(n)*time.Second, time.Since(began))
				}
				restOf(resp)
				assert.Equal(t, testnet.Whole, resp.End)
				again := w.get("/x")
				assert.Equal(t, string(resp.Body), string(again.Body))
				if control == "no-store" {
					w.answers(again, "fwd=uri-miss; detail=no-store", string(resp.Body), 2)
				} else {
					w.answers(again, "hit; ttl=57", string(resp.Body), 1)
				}
			})
		})
	}
}

func TestWrapLetsHandlersHijack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPages(t, func(w http.ResponseWriter, _ *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if !assert.NoError(t, err) {
				return
			}
			_, _ = rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nraw")
			_ = rw.Flush()
			_ = conn.Close()
		}, nil)
		for n := range 2 {
			assert.Equal(t, "raw", string(w.get("/x").Body))
			assert.EqualValues(t, n+1, w.calls.Load())
		}
		assert.Zero(t, w.cache.Stats().Entries)
	})
}

func TestWrapLeavesUpgradesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPages(t, func(w http.ResponseWriter, _ *http.Request) {
			conn, rw, err := w.(http.Hijacker).Hijack() // the server's own has it
			if !assert.NoError(t, err) {
				return
			}
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello")
			_ = rw.Flush()
			_ = conn.Close()
		}, nil)
		c := w.dial()
		c.Send(testnet.Get("/x", "Connection: Upgrade", "Upgrade: x"))
		assert.Equal(t, 101, c.ReadHead("GET").Status)
		assert.Equal(t, "hello", c.ReadN(5))
	})
}

func TestWrapPassesInterimResponsesAndTrailers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPages(t, func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("Link", "</x.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			h.Set("Cache-Control", "max-age=60")
			h.Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "body")
			h.Set("X-Sum", "42")
			h.Set(http.TrailerPrefix+"X-More", "43")
		}, nil)
		for n := range 2 {
			resp := w.get("/x")
			require.Len(t, resp.Interim, 1)
			assert.Equal(t, 103, resp.Interim[0].Status)
			assert.Equal(t, "</x.css>; rel=preload", resp.Interim[0].Header.Get("Link"))
			assert.Equal(t, "42", resp.Trailer.Get("X-Sum"))
			assert.Equal(t, "43", resp.Trailer.Get("X-More"))
			w.answers(resp, "fwd=uri-miss; detail=trailer", "body", n+1)
		}
	})
}

func TestWrapLetsPanicsPass(t *testing.T) {
	for what, h := range map[string]http.HandlerFunc{
		"at once": func(http.ResponseWriter, *http.Request) { panic("fault") },
		"after something": func(w http.ResponseWriter, r *http.Request) {
			says(forAMinute, "half")(w, r)
			panic("fault")
		},
		"after a flush": func(w http.ResponseWriter, r *http.Request) {
			says(forAMinute, "half")(w, r)
			_ = http.NewResponseController(w).Flush()
			panic("fault")
		},
		"after much": func(w http.ResponseWriter, r *http.Request) {
			says(forAMinute, strings.Repeat("half", 50_000))(w, r)
			panic("fault")
		},
		"abort": func(w http.ResponseWriter, r *http.Request) {
			says(map[string]string{"Cache-Control": "max-age=60", "Content-Length": "8"}, "half")(w, r)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var caught []any
				w := newPages(t, h, func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						defer func() {
							v := recover()
							caught = append(caught, v)
							panic(http.ErrAbortHandler)
						}()
						next.ServeHTTP(w, r)
					})
				})
				for n := range 2 {
					assert.NotEqual(t, testnet.Whole, w.get("/x").End)
					assert.EqualValues(t, n+1, w.calls.Load())
				}
				synctest.Wait()
				require.Len(t, caught, 2)
				assert.NotNil(t, caught[0])
				assert.Contains(t, []any{"fault", http.ErrAbortHandler}, caught[0])
				assert.Zero(t, w.cache.Stats().Entries)
				assert.Zero(t, w.cache.Stats().Bytes)
			})
		})
	}
}

func TestWrapServesStaleInPlaceOfAHandlersErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status := 200
		w := newPages(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60, stale-if-error=100")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "page")
		}, nil)
		w.answers(w.get("/x"), "fwd=uri-miss; stored", "page", 1)
		time.Sleep(61 * time.Second)
		for n, s := range []int{500, 502, 503, 504} {
			status = s
			resp := w.get("/x")
			assert.Equal(t, 200, resp.Status)
			w.answers(resp, fmt.Sprintf("fwd=stale; fwd-status=%d; detail=stale-if-error", s), "page", n+2)
		}
		time.Sleep(100 * time.Second)
		assert.Equal(t, 504, w.get("/x").Status)
	})
}

func TestWrapValidatesWithTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		version := 1
		w := newPages(t, func(w http.ResponseWriter, r *http.Request) {
			tag := fmt.Sprintf(`"v%d"`, version)
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Etag", tag)
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			_, _ = io.WriteString(w, tag)
		}, nil)
		w.answers(w.get("/x"), "fwd=uri-miss; stored", `"v1"`, 1)
		for _, c := range []struct {
			field  string
			status int
		}{{`If-None-Match: "v1"`, 304}, {`If-None-Match: "v0"`, 200}, {"Range: bytes=1-2", 206}, {"Range: bytes=9-", 416}} {
			assert.Equal(t, c.status, w.get("/x", c.field).Status, c.field)
		}
		assert.EqualValues(t, 1, w.calls.Load())
		time.Sleep(61 * time.Second)
		w.answers(w.get("/x"), "fwd=stale; fwd-status=304; stored", `"v1"`, 2)
		w.answers(w.get("/x"), "hit; ttl=60", `"v1"`, 2)
		version = 2
		time.Sleep(61 * time.Second)
		w.answers(w.get("/x"), "fwd=stale; stored", `"v2"`, 3)
		time.Sleep(61 * time.Second)
		resp := w.get("/x", `If-None-Match: "v2"`)
		assert.Equal(t, 304, resp.Status)
		w.answers(resp, "fwd=stale; fwd-status=304; stored", "", 4)
	})
}

// A handler is asked for all, so that it can be stored; where it cannot, who has
// asked for a part gets that all the same (RFC 9110 §14.2).
func TestWrapAnswersWithAPartOfWhatIsNotStored(t *testing.T) {
	content := strings.Repeat("0123456789", 1<<20) // more than an object may have
	for what, tt := range map[string]struct {
		control string
		size    int
		detail  string
	}{
		"private": {"private", 100, "private"}, "long and private": {"private", len(content), "private"}, "too large": {"max-age=60", len(content), "too-large"},
	} {
		t.Run(what, func(t *testing.T) {
			cache, err := gateway.NewCache()
			require.NoError(t, err)
			h := cache.Wrap("files")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", tt.control)
				http.ServeContent(w, r, "x.txt", time.Unix(1e9, 0), strings.NewReader(content[:tt.size]))
			}))
			for range 2 { // the second is the handler's own
				w := handle(t, h, testnet.Get("/x", "Range: bytes=45-54"), nil)
				assert.Equal(t, 206, w.status)
				assert.Equal(t, "5678901234", w.body.String())
				assert.Equal(t, fmt.Sprintf("bytes 45-54/%d", tt.size), w.Header().Get("Content-Range"))
				assert.Equal(t, "10", w.Header().Get("Content-Length"))
				assert.Equal(t, "text/plain; charset=utf-8", w.Header().Get("Content-Type"))
				assert.NotContains(t, w.Header().Get("Cache-Status"), "stored")
			}
			first := handle(t, h, testnet.Get("/y", "Range: bytes=45-54"), nil)
			assert.Equal(t, "gateway; fwd=uri-miss; fwd-status=200; detail="+tt.detail, first.Header().Get("Cache-Status"))
			assert.Equal(t, 200, handle(t, h, testnet.Get("/z", "Range: bytes=45-54", `If-Range: "other"`), nil).status)
			require.NoError(t, cache.Shutdown(t.Context()))
		})
	}
}

func TestWrapRunsAHandlerOnceForMany(t *testing.T) {
	for what, flushed := range map[string]bool{"whole": false, "flushed": true} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cache, err := gateway.NewCache()
				require.NoError(t, err)
				var calls atomic.Int64
				h := cache.Wrap("pages")(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					calls.Add(1)
					time.Sleep(time.Second)
					says(forAMinute, "page")(w, r)
					if flushed {
						_ = http.NewResponseController(w).Flush()
						time.Sleep(time.Second)
						_, _ = io.WriteString(w, "page")
					}
				}))
				requests := make([]string, many()/5)
				for i := range requests {
					requests[i] = testnet.Get("/x")
				}
				all := crowdAt(t, h, requests)
				assert.EqualValues(t, 1, calls.Load())
				assert.Len(t, all.bodies, 1)
				assert.Equal(t, map[string]int{"200 gateway; fwd=uri-miss; stored": 1, "200 gateway; fwd=uri-miss; collapsed": len(requests) - 1}, all.statuses)
				require.NoError(t, cache.Shutdown(t.Context()))
			})
		})
	}
}

func TestWrapSeesUnsafeRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status := 200
		w := newPages(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				content, _ := io.ReadAll(r.Body)
				assert.Equal(t, "body", string(content))
				w.WriteHeader(status)
				return
			}
			says(forAMinute, "page")(w, r)
		}, nil)
		w.answers(w.get("/x"), "fwd=uri-miss; stored", "page", 1)
		status = 400
		assert.Equal(t, 400, w.do(testnet.Build("POST", "/x", "body")).Status)
		w.answers(w.get("/x"), "hit; ttl=60", "page", 2)
		status = 200
		w.answers(w.do(testnet.Build("POST", "/x", "body")), "fwd=method; detail=method", "", 3)
		w.answers(w.get("/x"), "fwd=uri-miss; stored", "page", 4)
	})
}

func TestWrapRefreshesBehindRequestsIfTold(t *testing.T) {
	for _, told := range []bool{false, true} {
		t.Run(fmt.Sprint(told), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := []gateway.CacheOption{gateway.WithStaleWhileRevalidate(time.Minute)}
				if told {
					opts = append(opts, gateway.WithBackgroundRefresh())
				}
				n := 0
				w := newPages(t, func(w http.ResponseWriter, r *http.Request) {
					n++
					assert.NoError(t, r.Context().Err())
					says(forAMinute, fmt.Sprintf("page %d", n))(w, r)
				}, nil, opts...)
				w.answers(w.get("/x"), "fwd=uri-miss; stored", "page 1", 1)
				time.Sleep(61 * time.Second)
				stale := w.get("/x")
				assert.Equal(t, "page 1", string(stale.Body))
				assert.Equal(t, "gateway; hit; ttl=-1", stale.Header.Get("Cache-Status"))
				time.Sleep(time.Second)
				if told {
					w.answers(w.get("/x"), "hit; ttl=59", "page 2", 2)
				} else {
					w.answers(w.get("/x"), "hit; ttl=-2", "page 1", 1)
				}
			})
		})
	}
}

func TestWrapsOfTwoNamesShareNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, err := gateway.NewCache()
		require.NoError(t, err)
		page := func(body string) http.Handler { return says(forAMinute, body) }
		one, other, again := cache.Wrap("one")(page("one")), cache.Wrap("other")(page("other")), cache.Wrap("one")(page("again"))
		for _, c := range []struct {
			h           http.Handler
			body, cache string
		}{
			{one, "one", "fwd=uri-miss; stored"}, {other, "other", "fwd=uri-miss; stored"}, {again, "one", "hit; ttl=60"}, {other, "other", "hit; ttl=60"},
		} {
			w := handle(t, c.h, testnet.Get("/x"), nil)
			assert.Equal(t, c.body, w.body.String())
			assert.Equal(t, "gateway; "+c.cache, w.header.Get("Cache-Status"))
		}
		assert.Equal(t, 1, cache.Purge("one", "/x"))
		require.NoError(t, cache.Shutdown(t.Context()))
		w := handle(t, one, testnet.Get("/x"), nil)
		assert.Equal(t, "one", w.body.String(), "handlers go on without an ended cache")
		assert.Empty(t, w.header["Cache-Status"])
	})
}

func TestWrapUnderATimeoutHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := time.Second
		w := newPages(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(wait)
			says(forAMinute, "page")(w, r)
		}, func(next http.Handler) http.Handler { return http.TimeoutHandler(next, 5*time.Second, "too slow") })
		w.answers(w.get("/x"), "fwd=uri-miss; stored", "page", 1)
		w.answers(w.get("/x"), "hit; ttl=59", "page", 1)
		wait = 10 * time.Second
		resp := w.get("/slow")
		assert.Equal(t, 503, resp.Status)
		assert.Equal(t, "too slow", string(resp.Body))
		time.Sleep(20 * time.Second)
		w.answers(w.get("/slow"), "hit; ttl=35", "page", 2) // what came too late was stored
	})
}

func TestWrapGoesOnWhenAClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPages(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			assert.NoError(t, r.Context().Err(), "it may answer for others")
			says(forAMinute, strings.Repeat("page", 20_000))(w, r)
		}, nil)
		c := w.dial()
		c.Send(testnet.Get("/x"))
		synctest.Wait()
		c.Close()
		follower := w.dial()
		follower.Send(testnet.Get("/x"))
		assert.EqualValues(t, 80_000, follower.ReadResponse("GET").Size)
		time.Sleep(time.Second)
		resp := w.get("/x")
		assert.Contains(t, resp.Header.Get("Cache-Status"), "gateway; hit")
		assert.EqualValues(t, 80_000, resp.Size)
		assert.EqualValues(t, 1, w.calls.Load())
	})
}

// Who passes by has its client's context.
func TestWrapKeepsTheContextOfWhatPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := false
		w := newPages(t, func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
				gone = true
			case <-time.After(time.Minute):
			}
		}, nil)
		c := w.dial()
		c.Send(testnet.Build("DELETE", "/x", ""))
		synctest.Wait()
		c.Close()
		synctest.Wait()
		assert.True(t, gone)
	})
}
