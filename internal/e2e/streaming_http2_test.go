package e2e_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// streamWindow is how much of a stream net/http's client takes before anybody
// reads it.
const streamWindow = 4 << 20

// overH2C serves the bubble's gateway over HTTP/2, too.
func (b *bubble) overH2C() *http.Client {
	ln, speaks := testnet.NewPipeListener(), new(http.Protocols)
	speaks.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: b.gw, Protocols: speaks}
	go func() { _ = srv.Serve(ln) }()
	tr := &http.Transport{Protocols: speaks, DialContext: func(context.Context, string, string) (net.Conn, error) { return ln.Dial() }}
	b.Cleanup(func() {
		tr.CloseIdleConnections()
		assert.NoError(b, srv.Close())
	})
	return &http.Client{Transport: tr}
}

// Over HTTP/2 a deadline of the server's ends a stream also while nobody writes
// or reads. It is the client's only as long as the client is waited for.

func TestOverHTTP2TheServiceStandsStill(t *testing.T) {
	for what, header := range map[string]string{
		"of a length": "Content-Length: 100000",
		"in chunks":   "Transfer-Encoding: chunked",
		"events":      eventStream + "Transfer-Encoding: chunked",
	} {
		t.Run(what, func(t *testing.T) {
			inBubbles(t, func(t *testing.T, w way) {
				b := w.bubble(t, func(c *testnet.Conn) {
					if c.ReadRequest() != nil {
						c.Send(testnet.Answer(200, header, chunkFor(header, strings.Repeat("p", 8<<10))))
						c.Wait()
					}
				}, gateway.WithBodyIdleTimeout(10*time.Second))
				start := time.Now()
				resp, err := b.overH2C().Get("http://gateway.test/a/x")
				require.NoError(t, err)
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				require.Error(t, err)
				assert.Len(t, body, 8<<10)
				lasted(t, 10*time.Second, time.Since(start))
				b.counted(onlyFailure(gateway.ReasonTimeout))
			})
		})
	}
}

func TestOverHTTP2TheClientStopsReading(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		ended := make(chan time.Time, 1)
		b := w.bubble(t, func(c *testnet.Conn) {
			if c.ReadRequest() == nil {
				return
			}
			c.Send(testnet.Answer(200, "Transfer-Encoding: chunked", ""))
			for c.Send(chunkOf(strings.Repeat("p", 32<<10))) {
			}
			ended <- time.Now()
		}, gateway.WithBodyIdleTimeout(10*time.Second))
		start := time.Now()
		resp, err := b.overH2C().Get("http://gateway.test/a/x")
		require.NoError(t, err)
		defer resp.Body.Close()
		lasted(t, 10*time.Second, (<-ended).Sub(start))
		b.counted(onlyFailure(gateway.ReasonClientClosed))
	})
}

// Each of them may take its time.
func TestOverHTTP2TheClientAndThenTheServiceAreSlow(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		b := w.bubble(t, func(c *testnet.Conn) {
			if c.ReadRequest() == nil {
				return
			}
			late := time.After(12 * time.Second)
			c.Send(testnet.Answer(200, "Transfer-Encoding: chunked", chunkOf(strings.Repeat("p", streamWindow+1))))
			<-late
			c.Send(chunkOf("end") + "0\r\n\r\n")
		}, gateway.WithBodyIdleTimeout(10*time.Second))
		resp, err := b.overH2C().Get("http://gateway.test/a/x")
		require.NoError(t, err)
		defer resp.Body.Close()
		time.Sleep(6 * time.Second) // the last byte finds no room
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Len(t, body, streamWindow+4)
		b.counted(noFailure)
	})
}

func TestOverHTTP2TheClientAndThenTheServiceAreSlowToUpload(t *testing.T) {
	inBubbles(t, func(t *testing.T, w way) {
		b := w.bubble(t, func(c *testnet.Conn) {
			req := c.ReadHead()
			if req == nil {
				return
			}
			time.Sleep(12 * time.Second)
			body, _ := io.ReadAll(req)
			c.Send(testnet.Answer(200, "", string(body[len(body)-3:])))
		}, gateway.WithBodyIdleTimeout(10*time.Second), gateway.WithTimeout(0))
		body, feed := io.Pipe()
		defer body.Close()
		go func() {
			time.Sleep(6 * time.Second)
			_, _ = io.WriteString(feed, strings.Repeat("p", 8<<10))
			time.Sleep(7 * time.Second)
			_, _ = io.WriteString(feed, "end")
			_ = feed.Close()
		}()
		resp, err := b.overH2C().Post("http://gateway.test/a/x", "text/plain", body)
		require.NoError(t, err)
		defer resp.Body.Close()
		back, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, 200, resp.StatusCode, string(back))
		assert.Equal(t, "end", string(back))
		b.counted(noFailure)
	})
}
