package e2e_test

import (
	"fmt"
	"io"
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

// A client that leaves is no failure of the service, however its answer was on
// its way into the cache.
func TestWhoLeavesAFillIsNoFailure(t *testing.T) {
	for what, c := range map[string]struct {
		header string
		fields []string
		clean  []gateway.CacheOption
	}{
		"too long":       {"Transfer-Encoding: chunked", nil, []gateway.CacheOption{gateway.WithMaxObjectBytes(1 << 10)}},
		"nobody else":    {"Content-Length: 500000", nil, nil},
		"short, alone":   {"Content-Length: 200000", nil, nil},
		"range, alone":   {"Content-Length: 200000", []string{"Range: bytes=0-1"}, nil},
		"range, chunked": {"Transfer-Encoding: chunked", []string{"Range: bytes=0-1"}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			gate := make(chan struct{})
			r := newRig(t, setup{clean: c.clean, defaults: []gateway.Option{gateway.WithoutRetries(), gateway.WithCollapseTimeout(0)}, script: func(conn *testnet.Conn) {
				for conn.ReadRequest() != nil {
					conn.Send("HTTP/1.1 200 OK\r\n" + storable + c.header + "\r\n\r\n")
					piece := strings.Repeat("x", 100000)
					if strings.HasPrefix(c.header, "Transfer") {
						piece = fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece)
					}
					conn.Send(piece)
					receive(gate)
					conn.Close()
				}
			}})
			client := testnet.Dial(t, r.addr)
			client.Send(testnet.Get("/a/x", c.fields...))
			_, err := io.ReadFull(client.ReadHead("GET"), make([]byte, 50000))
			require.NoError(t, err)
			client.Reset()
			testnet.Settle(t, "it has ended", func() bool { return len(r.attempts()) == 1 })
			close(gate)
			for _, kv := range r.attempts()[0].Attributes {
				assert.NotEqual(t, "error.type", string(kv.Key), kv.Value.String())
			}
			r.counted(onlyFailure(gateway.ReasonClientClosed))
		})
	}
}

// Whoever asked first may leave before the request is sent a second time: the others
// are answered by that.
func TestAHedgeIsForThoseWhoStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		b := newBubble(t, func(c *testnet.Conn) {
			c.ReadRequest()
			if asked.Add(1) > 1 || c.Pause(time.Minute) {
				c.Send(testnet.Answer(200, "Cache-Control: max-age=60\r\n", "ok"))
			}
		}, gateway.WithHedge(time.Second), gateway.WithConnIdleTimeout(0))
		first, second := b.dial(), b.dial()
		start := time.Now()
		first.Send(testnet.Get("/a/x"))
		synctest.Wait()
		second.Send(testnet.Get("/a/x"))
		synctest.Wait()
		first.Close()
		resp := second.ReadResponse("GET")
		assert.Equal(t, 200, resp.Status)
		lasted(t, time.Second, time.Since(start))
		synctest.Wait()
		assert.EqualValues(t, 2, asked.Load())
		assert.Empty(t, b.logs.Find(t, "gateway: panic"))
		second.Close()
		b.counted(map[gateway.Reason]uint64{})
		atRest(t, b.gw, "a")
	})
}
