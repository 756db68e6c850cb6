package e2e_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

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
