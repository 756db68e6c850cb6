package e2e_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// overHTTP2 serves the rig's gateway over TLS and HTTP/2.
func overHTTP2(t *testing.T, r *rig) (url string, client *http.Client) {
	srv := httptest.NewUnstartedServer(r.gw)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	client = srv.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return srv.URL, client
}

func fetched(t *testing.T, client *http.Client, req *http.Request) (*http.Response, string, error) {
	t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	assert.Equal(t, 2, resp.ProtoMajor)
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func TestInboundHTTP2(t *testing.T) {
	r := newRig(t, setup{script: testnet.Respond(func(req *testnet.Request) string {
		switch req.Target {
		case "/redirect":
			return testnet.Answer(302, "Location: /next\r\nConnection: X-Hop\r\nX-Hop: v\r\nKeep-Alive: timeout=5", "")
		case "/trailers":
			return testnet.Answer(200, "Transfer-Encoding: chunked\r\nTrailer: X-Sum", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
		case "/truncated":
			return testnet.Answer(200, "Content-Length: 100\r\nConnection: close", "hello")
		}
		return testnet.Answer(200, "", string(req.Body)+req.Trailer.Get("X-Client-Sum"))
	})})
	url, client := overHTTP2(t, r)
	request := func(method, path string, body io.Reader) *http.Request {
		req, err := http.NewRequest(method, url+path, body)
		require.NoError(t, err)
		return req
	}

	_, body, err := fetched(t, client, request("POST", "/a/x", strings.NewReader("body")))
	require.NoError(t, err)
	assert.Equal(t, "body", body)
	sent := r.a.Await(1)[0]
	framedOnce(t, sent, testnet.ByLength, "body")
	assert.Equal(t, "2.0 gateway", field(sent, "Via"))
	assert.Equal(t, "https", field(sent, "X-Forwarded-Proto"))
	assert.Equal(t, strings.TrimPrefix(url, "https://"), field(sent, "X-Forwarded-Host"))

	upload := request("PUT", "/a/x", io.MultiReader(strings.NewReader("of no length")))
	upload.Trailer = http.Header{"X-Client-Sum": {"7"}, "X-Request-Id": {"theirs"}, "X_forwarded_for": {"theirs"}}
	_, body, err = fetched(t, client, upload)
	require.NoError(t, err)
	assert.Equal(t, "of no length7", body)
	framedOnce(t, r.a.Await(2)[1], testnet.Chunked, "of no length")
	assert.NotContains(t, string(r.a.JournalBytes()), "theirs")

	resp, _, err := fetched(t, client, request("GET", "/a/redirect", nil))
	require.NoError(t, err)
	assert.Equal(t, "/a/next", resp.Header.Get("Location"))
	for _, name := range []string{"Connection", "Keep-Alive", "X-Hop", "Transfer-Encoding"} {
		assert.NotContains(t, resp.Header, name, "RFC 9113 §8.2.2")
	}

	resp, body, err = fetched(t, client, request("GET", "/a/trailers", nil))
	require.NoError(t, err)
	assert.Equal(t, "hello", body)
	assert.Equal(t, "1", resp.Trailer.Get("X-Sum"))
	r.recorded(4, noFailure)

	_, body, err = fetched(t, client, request("GET", "/a/truncated", nil))
	assert.Error(t, err, "the stream is reset, not ended")
	assert.LessOrEqual(t, len(body), len("hello"))
	r.recorded(5, onlyFailure(gateway.ReasonTruncated))

	resp, _, err = fetched(t, client, request("BREW", "/a/x", strings.NewReader("body")))
	require.NoError(t, err)
	assert.Equal(t, 501, resp.StatusCode)
	resp, _, err = fetched(t, client, request("GET", "/a/..;/x", nil))
	require.NoError(t, err)
	assert.Equal(t, 400, resp.StatusCode)
	r.recorded(7, map[gateway.Reason]uint64{gateway.ReasonTruncated: 1, gateway.ReasonMethodNotImplemented: 1, gateway.ReasonBadRequest: 1})
	client.CloseIdleConnections()
}

// What one stream of HTTP/2 does wrong leaves the others alone: an early answer
// or a refused upload ends no connection.
func TestInboundHTTP2KeepsItsConnection(t *testing.T) {
	r := newRig(t, setup{script: func(c *testnet.Conn) {
		for req := c.ReadHead(); req != nil; req = c.ReadHead() {
			if req.Target == "/early" {
				c.Send(testnet.Answer(413, "Connection: close", "early"))
				return
			}
			if _, err := io.Copy(io.Discard, req); err == nil {
				c.Send(testnet.Answer(200, "", "ok"))
			}
		}
	}})
	r.broken = true
	url, client := overHTTP2(t, r)
	dials := 0
	transport := client.Transport.(*http.Transport)
	transport.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		return (&tls.Dialer{Config: transport.TLSClientConfig}).DialContext(ctx, network, addr)
	}
	body, feed := io.Pipe()
	defer feed.Close()
	early, err := http.NewRequest("POST", url+"/a/early", body)
	require.NoError(t, err)
	resp, text, err := fetched(t, client, early)
	require.NoError(t, err)
	assert.Equal(t, 413, resp.StatusCode)
	assert.Equal(t, "early", text)

	broken, err := http.NewRequest("POST", url+"/a/x", io.MultiReader(strings.NewReader("begun"), failing{}))
	require.NoError(t, err)
	_, _, err = fetched(t, client, broken)
	assert.ErrorIs(t, err, errBroke)

	for range 3 {
		req, err := http.NewRequest("GET", url+"/b/x", nil)
		require.NoError(t, err)
		resp, _, err := fetched(t, client, req)
		require.NoError(t, err)
		assert.Equal(t, 200, resp.StatusCode)
	}
	assert.Equal(t, 1, dials)
	client.CloseIdleConnections()
}

var errBroke = errors.New("broke")

// failing is a body that cannot be read.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBroke }
