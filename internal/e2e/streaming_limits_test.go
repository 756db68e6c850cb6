package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// inBubble runs a test on a clock of its own.
func inBubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func TestUploadThatStandsStillIsGivenUp(t *testing.T) {
	for what, u := range uploads("POST") {
		t.Run(what, func(t *testing.T) {
			inBubbles(t, func(t *testing.T, w way) {
				b := w.bubble(t, (*testnet.Conn).Wait, gateway.WithBodyIdleTimeout(10*time.Second), gateway.WithTimeout(0))
				start := time.Now()
				c := b.dial()
				c.Send(u.head)
				for range 5 { // it moves, though slowly
					time.Sleep(5 * time.Second)
					c.Send(chunkFor(u.head, "piece"))
				}
				resp := c.ReadResponse("POST")
				assert.Equal(t, 400, resp.Status)
				lasted(t, 35*time.Second, time.Since(start))
				assert.Equal(t, "close", resp.Header.Get("Connection"))
				b.counted(onlyFailure(gateway.ReasonClientBody))
				assert.Equal(t, u.begun(w), b.up.Begun(), "not sent again")
				assert.Empty(t, b.up.Journal(), "the upstream was not told that this is all")
				assert.Zero(t, b.up.Open())
			})
		})
	}
}

// upload is a request whose content does not come to its end.
type upload struct {
	head  string
	short bool // read whole before anything of it is sent
}

func uploads(method string) map[string]upload {
	return map[string]upload{
		"of a length":       {testnet.Build(method, "/a/x", "", "Content-Length: 32768"), false},
		"of a short length": {testnet.Build(method, "/a/x", "", "Content-Length: 100"), true},
		"in chunks":         {testnet.Build(method, "/a/x", "", "Transfer-Encoding: chunked"), false},
	}
}

// begun is how many requests the upstream sees begin: nothing of a short one.
func (u upload) begun(w way) int {
	if w == direct && u.short {
		return 0
	}
	return 1
}

// TestBytesOfALengthAreNotHeldBack: a body of a known length that comes byte by
// byte arrives byte by byte.
func TestBytesOfALengthAreNotHeldBack(t *testing.T) {
	for what, header := range map[string]string{"storable": storable, "not storable": ""} {
		t.Run(what, func(t *testing.T) {
			inBubbles(t, func(t *testing.T, w way) {
				b := w.bubble(t, func(c *testnet.Conn) {
					if c.ReadRequest() == nil {
						return
					}
					c.Send(testnet.Answer(200, header+"Content-Length: 5", ""))
					for range 5 {
						c.Send("b")
						time.Sleep(time.Second)
					}
				})
				start := time.Now()
				c := b.dial()
				c.Send(testnet.Get("/a/x"))
				resp := c.ReadHead("GET")
				require.Equal(t, 200, resp.Status)
				for n := range 5 {
					got, _ := resp.Read(make([]byte, 1<<10))
					assert.Equal(t, 1, got)
					lasted(t, time.Duration(n)*time.Second, time.Since(start))
				}
				assert.Equal(t, testnet.Whole, restOf(resp).End)
				b.counted(noFailure)
			})
		})
	}
}

// TestTimeoutsHoldDuringAnUpload: a client that stalls in its body does not keep
// the request beyond its time, nor beyond a Shutdown.
func TestTimeoutsHoldDuringAnUpload(t *testing.T) {
	for what, u := range uploads("PUT") {
		for option, limit := range map[string]gateway.Option{
			"WithTimeout":        gateway.WithTimeout(10 * time.Second),
			"WithAttemptTimeout": gateway.WithAttemptTimeout(10 * time.Second),
			"WithMaxDuration":    gateway.WithMaxDuration(10 * time.Second),
		} {
			t.Run(option+", "+what, func(t *testing.T) {
				inBubbles(t, func(t *testing.T, w way) {
					b := w.bubble(t, (*testnet.Conn).Wait, limit)
					start := time.Now()
					c := b.dial()
					c.Send(u.head + chunkFor(u.head, "piece"))
					resp := c.ReadResponse("PUT")
					assert.Equal(t, 504, resp.Status)
					lasted(t, 10*time.Second, time.Since(start))
					assert.Equal(t, "close", resp.Header.Get("Connection"))
					b.counted(onlyFailure(gateway.ReasonTimeout))
					assert.Equal(t, u.begun(w), b.up.Begun(), "another attempt would wait as long")
					assert.Empty(t, b.up.Journal())
				})
			})
		}
		t.Run("Shutdown, "+what, func(t *testing.T) {
			inBubbles(t, func(t *testing.T, w way) {
				b := w.bubble(t, (*testnet.Conn).Wait, gateway.WithBodyIdleTimeout(0), gateway.WithTimeout(0))
				c := b.dial()
				c.Send(u.head + chunkFor(u.head, "piece"))
				time.Sleep(time.Second)
				require.Equal(t, u.begun(w), b.up.Begun())
				require.ErrorIs(t, b.gw.Shutdown(lasting(t, 10*time.Second)), context.DeadlineExceeded)
				b.counted(onlyFailure(gateway.ReasonShuttingDown))
				assert.Equal(t, 503, c.ReadResponse("PUT").Status)
				assert.Empty(t, b.up.Journal())
			})
		})
	}
}

// chunkFor frames a piece of a body as head promised.
func chunkFor(head, data string) string {
	if strings.Contains(head, "chunked") {
		return chunkOf(data)
	}
	return data
}

func TestDownloadThatStandsStillIsAborted(t *testing.T) {
	for what, header := range map[string]string{
		"of a length":         "Content-Length: 100000",
		"in chunks":           "Transfer-Encoding: chunked",
		"in chunks, storable": storable + "Transfer-Encoding: chunked",
		"events":              eventStream + "Transfer-Encoding: chunked",
	} {
		t.Run(what, func(t *testing.T) {
			inBubbles(t, func(t *testing.T, w way) {
				piece := strings.Repeat("p", 8<<10)
				b := w.bubble(t, func(c *testnet.Conn) {
					if c.ReadRequest() == nil {
						return
					}
					c.Send(testnet.Answer(200, header, ""))
					for range 5 {
						time.Sleep(5 * time.Second)
						c.Send(chunkFor(header, piece))
					}
					c.Wait()
				}, gateway.WithBodyIdleTimeout(10*time.Second), gateway.WithTimeout(time.Second))
				start := time.Now()
				c := b.dial()
				c.Send(testnet.Get("/a/x"))
				resp := c.ReadResponse("GET")
				require.Equal(t, 200, resp.Status)
				assert.Equal(t, testnet.Truncated, resp.End)
				lasted(t, 35*time.Second, time.Since(start))
				assert.Equal(t, strings.Repeat(piece, 5), string(resp.Body))
				b.counted(onlyFailure(gateway.ReasonTimeout))
				assert.Zero(t, b.up.Open(), "its connection is not used again")
				assert.Equal(t, 1, b.up.Begun())
			})
		})
	}
}

func TestClientThatStopsReadingIsGivenUp(t *testing.T) {
	for what, header := range map[string]string{
		"of a length":         "Content-Length: 100000000",
		"in chunks":           "Transfer-Encoding: chunked",
		"in chunks, storable": storable + "Transfer-Encoding: chunked",
	} {
		t.Run(what, func(t *testing.T) {
			inBubbles(t, func(t *testing.T, w way) {
				piece := chunkFor(header, strings.Repeat("p", 32<<10))
				ended := make(chan time.Time, 1)
				b := w.bubble(t, func(c *testnet.Conn) {
					if c.ReadRequest() == nil {
						return
					}
					c.Send(testnet.Answer(200, header, ""))
					for c.Send(piece) {
					}
					ended <- time.Now()
				}, gateway.WithBodyIdleTimeout(10*time.Second))
				start := time.Now()
				c := b.dial()
				c.Send(testnet.Get("/a/x"))
				resp := c.ReadHead("GET")
				require.Equal(t, 200, resp.Status)
				readAtLeast(resp, 1)
				lasted(t, 10*time.Second, (<-ended).Sub(start))
				b.counted(onlyFailure(gateway.ReasonClientClosed))
				assert.Zero(t, b.up.Open())
				assert.NotEqual(t, testnet.Whole, restOf(resp).End)
			})
		})
	}
}

// TestSlowClientIsServed: what moves, however slowly, is not given up.
func TestSlowClientIsServed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		body := strings.Repeat("s", 1<<20)
		b := newBubble(t, testnet.Reply(200, "", body), gateway.WithBodyIdleTimeout(10*time.Second))
		c := b.dial()
		c.Send(testnet.Get("/a/x"))
		resp := c.ReadHead("GET")
		p := make([]byte, 16<<10)
		for resp.End == "" {
			time.Sleep(time.Second)
			_, _ = resp.Read(p)
		}
		assert.Equal(t, testnet.Whole, resp.End)
		assert.Equal(t, body, string(resp.Body))
		time.Sleep(30 * time.Second) // no deadline of ours is left on the connection
		c.Send(testnet.Get("/a/x"))
		assert.Equal(t, testnet.Whole, c.ReadResponse("GET").End)
		b.counted(noFailure)
	})
}

func TestMaxBodyBytes(t *testing.T) {
	limit := []gateway.Option{gateway.WithMaxBodyBytes(1000)}
	fits, tooLong := strings.Repeat("b", 1000), strings.Repeat("b", 1001)
	t.Run("declared, fits", func(t *testing.T) {
		r := newRig(t, setup{defaults: limit})
		assert.Equal(t, 200, r.do(testnet.Build("POST", "/a/x", fits)).Status)
		assert.Len(t, r.a.Await(1)[0].Body, 1000)
		r.counted(noFailure)
	})
	t.Run("declared, too long", func(t *testing.T) {
		r := newRig(t, setup{defaults: limit})
		tr := r.exchange(testnet.Build("POST", "/a/x", tooLong))
		assert.Equal(t, []int{413}, tr.Statuses())
		assert.Equal(t, testnet.Closed, tr.End)
		assert.Zero(t, r.a.Begun())
		r.counted(onlyFailure(gateway.ReasonBodyTooLarge))
	})
	t.Run("declared, too long by far, and never sent", func(t *testing.T) {
		r := newRig(t, setup{defaults: limit})
		resp := r.do(testnet.Build("POST", "/a/x", "", "Content-Length: 9000000000000000000", "Expect: 100-continue"))
		assert.Equal(t, 413, resp.Status)
		assert.Empty(t, resp.Interim)
		assert.Zero(t, r.a.Begun())
		r.counted(onlyFailure(gateway.ReasonBodyTooLarge))
	})
	t.Run("chunks, fit", func(t *testing.T) {
		r := newRig(t, setup{defaults: limit})
		assert.Equal(t, 200, r.do(testnet.Build("POST", "/a/x", testnet.Chunks(fits[:500], fits[500:]), "Transfer-Encoding: chunked")).Status)
		assert.Len(t, r.a.Await(1)[0].Body, 1000)
		r.counted(noFailure)
	})
	t.Run("chunks, too long", func(t *testing.T) {
		r := newRig(t, setup{defaults: limit, script: (*testnet.Conn).Wait, a: []gateway.ServiceOption{gateway.WithHealthTimeout(10 * time.Millisecond)}})
		r.broken = true
		tr := r.exchange(testnet.Build("PUT", "/a/x", testnet.Chunks(tooLong[:500], tooLong[500:]), "Transfer-Encoding: chunked"))
		assert.Equal(t, []int{413}, tr.Statuses())
		assert.Equal(t, testnet.Closed, tr.End)
		r.counted(onlyFailure(gateway.ReasonBodyTooLarge))
		r.a.AwaitClosed(1)
		assert.Equal(t, 1, r.a.Begun(), "not sent again")
		assert.Empty(t, r.a.Journal(), "the upstream was not told that this is all")
	})
	t.Run("chunks, a refusal of the upstream comes first", func(t *testing.T) {
		r := newRig(t, setup{defaults: limit, script: func(c *testnet.Conn) {
			if c.ReadHead() != nil {
				c.Send(testnet.Answer(403, "Connection: close", "no"))
			}
		}})
		r.broken = true
		c := testnet.Dial(t, r.addr)
		c.Send(testnet.Build("POST", "/a/x", "", "Transfer-Encoding: chunked") + chunkOf("begin"))
		resp := c.ReadResponse("POST")
		assert.Equal(t, 403, resp.Status)
		assert.Equal(t, "close", resp.Header.Get("Connection"))
		r.counted(noFailure)
	})
	t.Run("zero allows no body", func(t *testing.T) {
		r := newRig(t, setup{defaults: []gateway.Option{gateway.WithMaxBodyBytes(0)}})
		assert.Equal(t, 413, r.do(testnet.Build("POST", "/a/x", "b")).Status)
		assert.Equal(t, 200, r.do(testnet.Build("POST", "/a/x", "")).Status)
		r.counted(onlyFailure(gateway.ReasonBodyTooLarge))
	})
	for what, raw := range map[string]string{
		"declared": testnet.Build("POST", "/a/x", tooLong),
		"chunks":   testnet.Build("POST", "/a/x", testnet.Chunks(tooLong[:500], tooLong[500:]), "Transfer-Encoding: chunked"),
	} {
		t.Run(what+", too long for the app's own handler before us", func(t *testing.T) {
			r := newRig(t, setup{handler: func(gw *gateway.Gateway) http.Handler { return http.MaxBytesHandler(gw, 1000) }, script: (*testnet.Conn).Wait, a: []gateway.ServiceOption{gateway.WithHealthTimeout(10 * time.Millisecond)}})
			r.broken = true
			tr := r.exchange(raw)
			assert.Equal(t, []int{413}, tr.Statuses())
			assert.Equal(t, testnet.Closed, tr.End)
			r.counted(onlyFailure(gateway.ReasonBodyTooLarge))
			assert.Empty(t, r.a.Journal())
		})
	}
}

func TestMaxDuration(t *testing.T) {
	limit := gateway.WithMaxDuration(30 * time.Second)
	t.Run("before the header", func(t *testing.T) {
		inBubbles(t, func(t *testing.T, w way) {
			b := w.bubble(t, (*testnet.Conn).Wait, limit, gateway.WithTimeout(0))
			start := time.Now()
			c := b.dial()
			assert.Equal(t, 504, c.Do(testnet.Get("/a/x")).Status)
			lasted(t, 30*time.Second, time.Since(start))
			b.counted(onlyFailure(gateway.ReasonTimeout))
			assert.Equal(t, 1, b.up.Begun())
		})
	})
	for what, header := range map[string]string{
		"events":           eventStream + "Transfer-Encoding: chunked",
		"chunks":           "Transfer-Encoding: chunked",
		"chunks, storable": storable + "Transfer-Encoding: chunked",
	} {
		t.Run(what, func(t *testing.T) {
			inBubbles(t, func(t *testing.T, w way) {
				b := w.bubble(t, func(c *testnet.Conn) {
					if c.ReadRequest() == nil {
						return
					}
					c.Send(testnet.Answer(200, header, ""))
					for c.Send(chunkOf("piece")) && c.Pause(time.Second) {
					}
				}, limit)
				start := time.Now()
				c := b.dial()
				resp := c.Do(testnet.Get("/a/x"))
				assert.Equal(t, 200, resp.Status)
				assert.Equal(t, testnet.Truncated, resp.End)
				lasted(t, 30*time.Second, time.Since(start))
				b.counted(onlyFailure(gateway.ReasonTimeout))
				b.up.AwaitClosed(1)
			})
		})
	}
	t.Run("upload", func(t *testing.T) {
		inBubbles(t, func(t *testing.T, w way) {
			b := w.bubble(t, (*testnet.Conn).Wait, limit, gateway.WithTimeout(0))
			start := time.Now()
			c := b.dial()
			c.Send(testnet.Build("POST", "/a/x", "", "Transfer-Encoding: chunked"))
			uploaded := make(chan struct{})
			go func() {
				defer close(uploaded)
				for c.Send(chunkOf("piece")) {
					time.Sleep(time.Second)
				}
			}()
			resp := c.ReadResponse("POST")
			assert.Equal(t, 504, resp.Status)
			lasted(t, 30*time.Second, time.Since(start))
			c.Close()
			<-uploaded
			b.counted(onlyFailure(gateway.ReasonTimeout))
		})
	})
	t.Run("client that reads slowly", func(t *testing.T) {
		inBubbles(t, func(t *testing.T, w way) {
			b := w.bubble(t, func(c *testnet.Conn) {
				if c.ReadRequest() != nil {
					c.Send(testnet.Answer(200, fmt.Sprintf("Content-Length: %d", int64(1<<40)), ""))
					for c.Send(strings.Repeat("s", 32<<10)) {
					}
				}
			}, limit)
			start := time.Now()
			c := b.dial()
			c.Send(testnet.Get("/a/x"))
			resp := c.ReadHead("GET")
			for p := make([]byte, 1<<10); resp.End == ""; time.Sleep(time.Second) {
				_, _ = resp.Read(p)
			}
			b.counted(onlyFailure(gateway.ReasonTimeout))
			assert.Equal(t, testnet.Truncated, resp.End)
			assert.Less(t, time.Since(start), 70*time.Second, "what the server had in its buffers")
			assert.Equal(t, int64(30), int64(b.gw.Stats().Latency.Max/time.Second))
		})
	})
}
