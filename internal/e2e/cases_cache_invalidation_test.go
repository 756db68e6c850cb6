package e2e_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// versioned answers a GET with how many it has answered, storable, and
// anything else with answer.
func versioned(answer string) func(*testnet.Conn) {
	var gets atomic.Int64
	return testnet.Respond(func(req *testnet.Request) string {
		if req.Method == "GET" {
			return testnet.Answer(200, "Cache-Control: public, max-age=60", fmt.Sprintf("%s v%d", req.Target, gets.Add(1)))
		}
		if req.Method == "HEAD" {
			return strings.TrimSuffix(answer, "done")
		}
		return answer
	})
}

// Row 111: an unsafe request that succeeds makes what is stored of its target
// untrue (RFC 9111 §4.4).
func invalidationCases() []attackCase {
	var cases []attackCase
	invalidates := func(method string, status int, more string) {
		cases = append(cases, attackCase{111, fmt.Sprintf("%s answered %d", method, status), func(t *testing.T) {
			r := newRig(t, setup{script: versioned(testnet.Answer(status, more, "done")), a: []gateway.ServiceOption{gateway.WithMethods("PURGE", "post")}})
			require.Equal(t, "/x?q v1", string(r.stored(testnet.Get("/a/x?q")).Body))
			resp := r.do(testnet.Build(method, "/a/x?q", "body"))
			assert.Equal(t, status, resp.Status)
			assert.Equal(t, "gateway; fwd=method; detail=method", resp.Header.Get("Cache-Status"))
			assert.Zero(t, r.cache.Stats().Entries)
			assert.Equal(t, "/x?q v2", string(r.stored(testnet.Get("/a/x?q")).Body))
			assert.Len(t, r.a.Await(3), 3)
			r.counted(noFailure)
		}})
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "PURGE", "post"} {
		invalidates(method, 200, "")
	}
	invalidates("POST", 201, "Location: /new")
	invalidates("POST", 202, "")
	invalidates("POST", 206, "Content-Range: bytes 0-3/9")
	invalidates("POST", 299, "")
	invalidates("POST", 303, "Location: /x?q")
	invalidates("PUT", 307, "Location: /y")
	invalidates("DELETE", 399, "")
	cases = append(cases, attackCase{111, "every variant goes", func(t *testing.T) {
		script := testnet.Respond(func(req *testnet.Request) string {
			return testnet.Answer(200, "Cache-Control: public, max-age=60\r\nVary: Accept-Language", field(req, "Accept-Language"))
		})
		r := newRig(t, setup{script: script})
		for _, l := range []string{"de", "fr"} {
			r.get("/a/x", "Accept-Language: "+l)
		}
		require.Equal(t, 200, r.do(testnet.Build("POST", "/a/x", "body")).Status)
		for n, l := range []string{"de", "fr"} {
			assert.Equal(t, []string{"gateway; fwd=uri-miss; stored", "gateway; fwd=vary-miss; stored"}[n], r.get("/a/x", "Accept-Language: "+l).Header.Get("Cache-Status"))
		}
		assert.Len(t, r.a.Await(5), 5)
	}})
	cases = append(cases, attackCase{111, "a 204", func(t *testing.T) {
		r := newRig(t, setup{script: versioned(testnet.Answer(204, "", ""))})
		r.stored(testnet.Get("/a/x"))
		require.Equal(t, 204, r.do(testnet.Build("DELETE", "/a/x", "")).Status)
		assert.Zero(t, r.cache.Stats().Entries)
	}})
	return cases
}

// Row 111: a request that failed, or that changes nothing, invalidates nothing.
func noInvalidationCases() []attackCase {
	var cases []attackCase
	keeps := func(what, request string, status int, script func(*testnet.Conn)) {
		cases = append(cases, attackCase{111, what + " keeps it", func(t *testing.T) {
			r := newRig(t, setup{script: script, defaults: []gateway.Option{gateway.WithoutRetries()}})
			require.Equal(t, "/x v1", string(r.stored(testnet.Get("/a/x")).Body))
			assert.Equal(t, status, r.do(request).Status)
			resp := r.get("/a/x")
			assert.Equal(t, "/x v1", string(resp.Body))
			assert.Contains(t, resp.Header.Get("Cache-Status"), "; hit")
			assert.Len(t, r.a.Await(2), 2)
		}})
	}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		for _, status := range []int{400, 404, 409, 500, 501, 503} {
			keeps(fmt.Sprintf("%s answered %d", method, status), testnet.Build(method, "/a/x", "body"), status, versioned(testnet.Answer(status, "", "done")))
		}
	}
	for _, method := range []string{"HEAD", "OPTIONS"} { // safe
		keeps(method, testnet.Build(method, "/a/x", "", "Cache-Control: no-store"), 200, versioned(testnet.Answer(200, "", "done")))
	}
	keeps("POST without an answer", testnet.Build("POST", "/a/x", "body"), 502, versioned(""))
	keeps("POST answered with nonsense", testnet.Build("POST", "/a/x", "body"), 502, versioned("HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"))
	keeps("POST answered 304", testnet.Build("POST", "/a/x", "body"), 502, versioned(testnet.Answer(304, "", "")))
	cases = append(cases, attackCase{111, "a method that is refused keeps it", func(t *testing.T) {
		r := newRig(t, setup{script: versioned(testnet.Answer(200, "", "done"))})
		r.stored(testnet.Get("/a/x"))
		for request, status := range map[string]int{
			testnet.Build("PURGE", "/a/x", ""): 501, testnet.Build("TRACE", "/a/x", ""): 405,
			testnet.Build("POST", "/a/./x", "body"): 400,
		} {
			assert.Equal(t, status, r.do(request).Status)
		}
		assert.EqualValues(t, 1, r.cache.Stats().Entries)
		assert.Len(t, r.a.Await(1), 1)
	}})
	return cases
}

// Row 111: nobody invalidates what is not his own target: another service,
// another origin, another resource that a response merely names.
func foreignInvalidationCases() []attackCase {
	names := func(what, fields string) attackCase {
		return attackCase{111, "a named by " + what + " of b", func(t *testing.T) {
			r := newRig(t, setup{script: versioned(testnet.Answer(200, "", "done")), scriptB: versioned(testnet.Answer(201, fields, "done"))})
			require.Equal(t, "/x v1", string(r.stored(testnet.Get("/a/x")).Body))
			require.Equal(t, 201, r.do(testnet.Build("POST", "/b/x", "body")).Status)
			require.Equal(t, 201, r.do(testnet.Build("POST", "/b/y", "body")).Status)
			assert.Contains(t, r.get("/a/x").Header.Get("Cache-Status"), "; hit")
			assert.Len(t, r.a.Await(1), 1)
		}}
	}
	return []attackCase{
		names("the same path", ""),
		names("Location", "Location: /a/x"),
		names("Content-Location", "Content-Location: /a/x"),
		names("an absolute Location", "Location: http://gateway.test/a/x"),
		names("a dotted Location", "Location: ../a/x"),
		names("both", "Location: /x\r\nContent-Location: http://gateway.test/a/x"),
		{111, "Location and Content-Location within the service", func(t *testing.T) {
			r := newRig(t, setup{script: versioned(testnet.Answer(201, "Location: /y\r\nContent-Location: /y", "done"))})
			r.stored(testnet.Get("/a/y"))
			require.Equal(t, 201, r.do(testnet.Build("POST", "/a/x", "body")).Status)
			assert.NotContains(t, r.get("/a/y").Header.Get("Cache-Status"), "; hit") // RFC 9111 §4.4
			assert.Len(t, r.a.Await(3), 3)
		}},
		{111, "another Host", func(t *testing.T) {
			r := newRig(t, setup{script: versioned(testnet.Answer(200, "", "done"))})
			r.stored(testnet.Get("/a/x", "Host: one.test"))
			require.Equal(t, 200, r.do(testnet.Build("POST", "/a/x", "body", "Host: other.test")).Status)
			assert.Contains(t, r.get("/a/x", "Host: one.test").Header.Get("Cache-Status"), "; hit")
		}},
		{111, "another query, spelling or slash", func(t *testing.T) {
			r := newRig(t, setup{script: versioned(testnet.Answer(200, "", "done"))})
			r.stored(testnet.Get("/a/x"))
			for _, target := range []string{"/a/x?", "/a/x?q", "/a/x/", "/a//x", "/a/%78", "/a/X", "/a/x;y"} {
				require.Equal(t, 200, r.do(testnet.Build("POST", target, "body")).Status)
			}
			assert.Contains(t, r.get("/a/x").Header.Get("Cache-Status"), "; hit")
		}},
	}
}
