package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// The answer to a POST may come, and be stored, before all of its content has
// (RFC 9112 §9.6).
func TestEarlyAnswerToAPostThatIsStored(t *testing.T) {
	r := newRig(t, setup{script: func(c *testnet.Conn) {
		if c.ReadHead() != nil {
			c.Send(testnet.Answer(200, storable+"Content-Location: /x", "answer"))
			c.Wait()
		}
	}})
	r.broken = true
	c := testnet.Dial(t, r.addr)
	c.Send("POST /a/x HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 100000\r\n\r\nbegun")
	resp := c.ReadResponse("POST")
	require.Equal(t, 200, resp.Status)
	assert.Contains(t, resp.Header.Get("Cache-Status"), "stored")
	assert.Equal(t, "answer", string(resp.Body))
	assert.Equal(t, "close", resp.Header.Get("Connection"))
	c.Close()
}

// What is still read of an answer to a POST once that is served has no part in it.
func TestAnswerToAPostWithReplacedContentIsNotStored(t *testing.T) {
	r := newRig(t, setup{
		script: testnet.Respond(func(req *testnet.Request) string {
			return testnet.Answer(200, storable+"Content-Location: "+req.Target, "answer")
		}),
		a: []gateway.ServiceOption{gateway.WithModifyResponse(func(resp *http.Response) error {
			resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader("replaced")), -1
			return nil
		})},
	})
	for n := range 50 {
		resp := r.do(testnet.Build("POST", fmt.Sprintf("/a/%d", n), "content"))
		assert.Equal(t, "replaced", string(resp.Body))
		assert.NotContains(t, resp.Header.Get("Cache-Status"), "stored")
	}
}

// Nor is one that the service has given without knowing whom it is kept for.
func TestAnswerToAPostThatKeepsBackAKeyFieldIsNotStored(t *testing.T) {
	r := newRig(t, setup{
		script: testnet.Respond(func(req *testnet.Request) string {
			return testnet.Answer(200, storable+"Content-Location: "+req.Target, "for "+field(req, "X-Tenant"))
		}),
		a: []gateway.ServiceOption{gateway.WithCacheKeyHeaders("X-Tenant")},
	})
	assert.Equal(t, "for ", string(r.do(testnet.Build("POST", "/a/x", "content", "X-Tenant: 1", "Connection: X-Tenant")).Body))
	assert.Equal(t, "for 1", string(r.get("/a/x", "X-Tenant: 1").Body))
}
