package e2e_test

import (
	"fmt"
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

// chunkOf writes out one chunk.
func chunkOf(data string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(data), data) }

// TestUploadAndDownloadRunSideBySide has the upstream answer each chunk of an
// upload before the client sends the next.
func TestUploadAndDownloadRunSideBySide(t *testing.T) {
	eachWay(t, uploadAndDownloadRunSideBySide)
}

func uploadAndDownloadRunSideBySide(t *testing.T, w way) {
	r := newRig(t, setup{way: w, script: func(c *testnet.Conn) {
		for req := c.ReadHead(); req != nil; req = c.ReadHead() {
			c.Send(testnet.Answer(200, "Transfer-Encoding: chunked", ""))
			p := make([]byte, 1<<10)
			for {
				n, err := req.Read(p)
				if n > 0 {
					c.Send(chunkOf("echo of " + string(p[:n])))
				}
				if err != nil {
					break
				}
			}
			c.Send("0\r\n\r\n")
		}
	}})
	c := testnet.Dial(t, r.addr)
	c.Send(testnet.Build("POST", "/a/x", "", "Transfer-Encoding: chunked"))
	var resp *testnet.Response
	for n := range 20 {
		data := fmt.Sprintf("piece %d", n)
		c.Send(chunkOf(data))
		if resp == nil {
			resp = c.ReadHead("POST")
			require.Equal(t, 200, resp.Status)
		}
		p := make([]byte, 1<<10)
		got, err := resp.Read(p)
		require.NoError(t, err)
		require.Equal(t, "echo of "+data, string(p[:got]))
	}
	c.Send("0\r\n\r\n")
	assert.Equal(t, testnet.Whole, restOf(resp).End)
	assert.Len(t, r.a.Await(1)[0].Body, len("piece 0")*10+len("piece 10")*10)
	r.counted(noFailure)
}

// TestBodiesPassInConstantMemory measures in the middle of an upload, and of
// the download that answers it.
func TestBodiesPassInConstantMemory(t *testing.T) {
	const half = 24 << 20
	atHalf, goOn := make(chan struct{}), make(chan struct{})
	data := make([]byte, 32<<10) // a string would be copied each time it is sent
	r := newRig(t, setup{script: probed(func(c *testnet.Conn) {
		c.Send(testnet.Answer(200, fmt.Sprintf("Connection: close\r\nContent-Length: %d", 2*half), ""))
		for n := 0; n < 2*half; n += len(data) {
			_, _ = c.Write(data)
		}
	})})
	up := testnet.Upstream(t, func(c *testnet.Conn) {
		// Not through the journal, which would keep it.
		head := make([]byte, 4<<10)
		n, _ := io.ReadAtLeast(c.Net, head, 1)
		_, body, _ := strings.Cut(string(head[:n]), "\r\n\r\n")
		_, _ = io.CopyN(io.Discard, c.Net, half-int64(len(body)))
		close(atHalf)
		receive(goOn)
		_, _ = io.CopyN(io.Discard, c.Net, half)
		c.Send(testnet.Answer(200, "Connection: close", "taken"))
	})
	gw, err := gateway.New(gateway.WithService("up", up.URL))
	require.NoError(t, err)
	defer func() { require.NoError(t, gw.Shutdown(t.Context())) }()
	r.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/up/") {
			gw.ServeHTTP(w, req)
			return
		}
		r.gw.ServeHTTP(w, req)
	})

	before := heap()
	c := testnet.Dial(t, r.addr)
	c.Send(testnet.Build("POST", "/up/x", "", fmt.Sprintf("Content-Length: %d", 2*half)))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for n := 0; n < 2*half; n += len(data) {
			if _, err := c.Conn.Write(data); err != nil {
				return
			}
		}
	}()
	require.True(t, receive(atHalf))
	assert.Less(t, heap()-before, int64(2<<20), "of the upload")
	close(goOn)
	require.True(t, receive(sent))
	assert.Equal(t, "taken", string(c.ReadResponse("POST").Body))

	down := testnet.Dial(t, r.addr)
	down.Send(testnet.Get("/a/x"))
	discard(t, down, half)
	assert.Less(t, heap()-before, int64(2<<20), "of the download")
	discard(t, down, half)
	r.counted(noFailure)
}

// TestPiecesOfUnknownLengthAreFlushed has the upstream go on only when the
// client has what was sent.
func TestPiecesOfUnknownLengthAreFlushed(t *testing.T) {
	for what, head := range map[string]string{
		"chunks":             "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"chunks to be kept":  "HTTP/1.1 200 OK\r\n" + storable + "Transfer-Encoding: chunked\r\n\r\n",
		"to the close":       "HTTP/1.1 200 OK\r\n\r\n",
		"events of a length": "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 50\r\n\r\n",
	} {
		t.Run(what, func(t *testing.T) {
			seen := make(chan struct{})
			r := newRig(t, setup{script: probed(func(c *testnet.Conn) {
				c.Send(head)
				chunked := strings.Contains(head, "chunked")
				for range 10 {
					if !receive(seen) {
						return
					}
					if chunked {
						c.Send(chunkOf("piece"))
					} else {
						c.Send("piece")
					}
				}
				if chunked {
					c.Send("0\r\n\r\n")
				}
			})})
			c := testnet.Dial(t, r.addr)
			c.Send(testnet.Get("/a/x"))
			resp := c.ReadHead("GET")
			require.Equal(t, 200, resp.Status, "the header comes at once")
			for range 10 {
				seen <- struct{}{}
				p := make([]byte, 1<<10)
				n, _ := resp.Read(p)
				require.Equal(t, "piece", string(p[:n]))
			}
			assert.Equal(t, testnet.Whole, restOf(resp).End)
			r.counted(noFailure)
		})
	}
}

func TestTrailersPassUp(t *testing.T) { eachWay(t, trailersPassUp) }

func trailersPassUp(t *testing.T, w way) {
	trailers := func(t *testing.T, announced, section string) http.Header {
		r := newRig(t, setup{way: w})
		resp := r.do(testnet.Build("POST", "/a/x", strings.TrimSuffix(testnet.Chunks("body"), "\r\n")+section+"\r\n", "Transfer-Encoding: chunked", announced))
		require.Equal(t, 200, resp.Status)
		req := r.a.Await(1)[0]
		assert.Equal(t, "body", string(req.Body))
		r.counted(noFailure)
		return req.Trailer
	}
	t.Run("announced", func(t *testing.T) {
		assert.Equal(t, http.Header{"X-Sum": {"1"}}, trailers(t, "Trailer: X-Sum", "X-Sum: 1\r\n"))
	})
	t.Run("announced, and absent", func(t *testing.T) {
		assert.Empty(t, trailers(t, "Trailer: X-Sum", ""))
	})
	t.Run("forbidden ones do not", func(t *testing.T) {
		assert.Equal(t, http.Header{"X-Sum": {"1"}}, trailers(t, "Trailer: X-Sum, Authorization, X-Forwarded-For, X_Forwarded_For, Set-Cookie, Cache-Control",
			"Authorization: Bearer stolen\r\nX-Forwarded-For: 192.0.2.66\r\nX_Forwarded_For: 192.0.2.66\r\nCache-Control: no-store\r\nX-Sum: 1\r\n"))
	})
	t.Run("unannounced and forbidden ones do not", func(t *testing.T) {
		assert.Empty(t, trailers(t, "X-Any: 1", "Authorization: Bearer stolen\r\nContent-Length: 3\r\nHost: evil.test\r\n"))
	})
}

func TestTrailersPassDown(t *testing.T) { eachWay(t, trailersPassDown) }

func trailersPassDown(t *testing.T, w way) {
	trailers := func(t *testing.T, announced, section string) *testnet.Response {
		body := strings.TrimSuffix(testnet.Chunks("body"), "\r\n") + section + "\r\n"
		r := newRig(t, setup{way: w, script: testnet.Replies(testnet.Answer(200, announced+"Transfer-Encoding: chunked", body))})
		resp := r.get("/a/x", "TE: trailers")
		require.Equal(t, testnet.Whole, resp.End)
		assert.Equal(t, "body", string(resp.Body))
		r.counted(noFailure)
		return resp
	}
	t.Run("announced", func(t *testing.T) {
		resp := trailers(t, "Trailer: X-Sum\r\n", "X-Sum: 1\r\n")
		assert.Equal(t, http.Header{"X-Sum": {"1"}}, resp.Trailer)
		assert.Equal(t, "X-Sum", resp.Header.Get("Trailer"))
	})
	t.Run("unannounced", func(t *testing.T) {
		assert.Equal(t, http.Header{"X-Sum": {"1"}}, trailers(t, "", "X-Sum: 1\r\n").Trailer)
	})
	t.Run("white space and letters", func(t *testing.T) {
		assert.Equal(t, http.Header{"X-Sum": {"1"}}, trailers(t, "trailer:\tX-Sum\r\n", "x-sum:\t 1\t\r\n").Trailer)
	})
	t.Run("several values", func(t *testing.T) {
		assert.Equal(t, http.Header{"X-Sum": {"1", "2"}}, trailers(t, "Trailer: X-Sum\r\n", "X-Sum: 1\r\nX-Sum: 2\r\n").Trailer)
	})
	t.Run("forbidden ones do not", func(t *testing.T) {
		resp := trailers(t, "Trailer: X-Sum, Set-Cookie, Cache-Control\r\n",
			"X-Sum: 1\r\nSet-Cookie: id=1\r\nCache-Control: no-store\r\nContent-Encoding: gzip\r\nLocation: //evil.test\r\n")
		assert.Equal(t, http.Header{"X-Sum": {"1"}}, resp.Trailer)
	})
}

func TestInterimResponsesPass(t *testing.T) { eachWay(t, interimResponsesPass) }

func interimResponsesPass(t *testing.T, w way) {
	hints := testnet.Answer(103, "Link: </a.css>\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 7", "") + testnet.Answer(102, "", "")
	script := testnet.Replies(hints + testnet.Answer(200, "Link: </b.css>", "ok"))
	t.Run("before the response", func(t *testing.T) {
		r := newRig(t, setup{way: w, script: script})
		resp := r.get("/a/x")
		require.Len(t, resp.Interim, 2)
		assert.Equal(t, 103, resp.Interim[0].Status)
		assert.Equal(t, http.Header{"Link": {"</a.css>"}}, resp.Interim[0].Header)
		assert.Equal(t, 102, resp.Interim[1].Status)
		assert.Empty(t, resp.Interim[1].Header)
		assert.Equal(t, []string{"</b.css>"}, resp.Header["Link"])
		r.counted(noFailure)
	})
	t.Run("at once", func(t *testing.T) {
		seen := make(chan struct{})
		r := newRig(t, setup{way: w, script: probed(func(c *testnet.Conn) {
			c.Send(testnet.Answer(103, "Link: </a.css>", ""))
			receive(seen)
			c.Send(testnet.Answer(200, "Connection: close", "ok"))
		})})
		c := testnet.Dial(t, r.addr)
		c.Send(testnet.Get("/a/x", "Connection: close"))
		const line = "HTTP/1.1 103 Early Hints\r\n"
		require.Equal(t, line, c.ReadN(len(line)))
		close(seen)
		rest, _ := c.ReadRest()
		assert.Contains(t, rest, "HTTP/1.1 200 OK\r\n")
	})
	t.Run("not to an HTTP/1.0 client", func(t *testing.T) {
		r := newRig(t, setup{way: w, script: script})
		tr := r.exchange("GET /a/x HTTP/1.0\r\nHost: gateway.test\r\n\r\n")
		require.Equal(t, []int{200}, tr.Statuses())
		assert.Empty(t, tr.Responses[0].Interim)
		assert.Equal(t, []string{"</b.css>"}, tr.Responses[0].Header["Link"])
	})
	t.Run("and then no other attempt", func(t *testing.T) {
		r := newRig(t, setup{way: w, script: testnet.Replies(hints + testnet.Answer(503, "", "no"))})
		resp := r.get("/a/x")
		assert.Equal(t, 503, resp.Status)
		assert.Len(t, resp.Interim, 2)
		assert.Equal(t, 1, r.a.Begun())
		r.counted(noFailure)
	})
}

// TestResponsesWithoutContent: RFC 9110 §6.4.1, RFC 9112 §6.3.
func TestResponsesWithoutContent(t *testing.T) {
	for _, c := range []struct {
		what, request, answer string
		status                int
		length                []string
	}{
		{"HEAD of a length", testnet.Build("HEAD", "/a/x", ""), "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", 200, []string{"100"}},
		{"HEAD of chunks", testnet.Build("HEAD", "/a/x", ""), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, nil},
		{"HEAD of an error", testnet.Build("HEAD", "/a/x", ""), "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n", 404, []string{"9"}},
		{"204", testnet.Get("/a/x"), "HTTP/1.1 204 No Content\r\n\r\n", 204, nil},
		{"204 with a length", testnet.Get("/a/x"), "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, nil},
		{"304", testnet.Get("/a/x", `If-None-Match: "e"`, "Cache-Control: no-store"), "HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\n\r\n", 304, nil},
		// net/http's server keeps a 304's length to itself, as RFC 9110 §8.6 allows.
		{"304 with a length", testnet.Get("/a/x", `If-None-Match: "e"`, "Cache-Control: no-store"), "HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\nContent-Length: 7\r\n\r\n", 304, nil},
		{"empty 200", testnet.Get("/a/x"), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, []string{"0"}},
		{"205", testnet.Build("POST", "/a/x", ""), "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", 205, []string{"0"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
				if req.Target == "/" {
					return testnet.Answer(200, "", "well")
				}
				return c.answer
			})})
			tr := r.exchange(c.request + testnet.Get("/b/next"))
			require.Equal(t, []int{c.status, 200}, tr.Statuses())
			assert.Equal(t, c.length, tr.Responses[0].Header["Content-Length"])
			assert.Empty(t, tr.Responses[0].Header["Transfer-Encoding"])
			assert.Equal(t, testnet.Quiet, tr.End)
			r.counted(noFailure)
		})
	}
}

func TestExpectContinue(t *testing.T) { eachWay(t, expectContinue) }

func expectContinue(t *testing.T, w way) {
	head := testnet.Build("POST", "/a/x", "", "Expect: 100-continue", "Content-Length: 4")
	t.Run("the client is asked when the upstream asks", func(t *testing.T) {
		r := newRig(t, setup{way: w, script: func(c *testnet.Conn) {
			for req := c.ReadHead(); req != nil; req = c.ReadHead() {
				if req.Header.Get("Expect") != "" {
					c.Send(testnet.Answer(100, "", ""))
				}
				_, _ = io.Copy(io.Discard, req)
				c.Send(testnet.Answer(200, "", "taken"))
			}
		}})
		c := testnet.Dial(t, r.addr)
		c.Send(head)
		const line = "HTTP/1.1 100 Continue\r\n\r\n"
		require.Equal(t, line, c.ReadN(len(line)))
		c.Send("body")
		resp := c.ReadResponse("POST")
		assert.Equal(t, "taken", string(resp.Body))
		assert.Empty(t, resp.Interim, "asked once")
		assert.Equal(t, "body", string(r.a.Await(1)[0].Body))
		r.counted(noFailure)
	})
	t.Run("a refusal comes without the body", func(t *testing.T) {
		r := newRig(t, setup{way: w, script: func(c *testnet.Conn) {
			if req := c.ReadHead(); req != nil {
				c.Send(testnet.Answer(401, "Connection: close", "no"))
			}
		}})
		r.broken = true
		start := time.Now()
		c := testnet.Dial(t, r.addr)
		c.Send(head)
		resp := c.ReadResponse("POST")
		assert.Equal(t, 401, resp.Status)
		assert.Empty(t, resp.Interim)
		assert.Equal(t, "close", resp.Header.Get("Connection"))
		assert.Less(t, time.Since(start), 900*time.Millisecond)
		for _, part := range r.a.Parts() {
			assert.Empty(t, part.Body)
		}
		r.counted(noFailure)
	})
}
