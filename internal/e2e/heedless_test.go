package e2e_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// untilClosed is a content that ends when it is closed, and by nothing else.
type untilClosed struct {
	closed chan struct{}
	once   *sync.Once
}

func (c untilClosed) Read([]byte) (int, error) {
	<-c.closed
	return 0, net.ErrClosed
}

func (c untilClosed) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// What the app has given us, round trippers aside, may mind no context: requests end by their times
// nevertheless, and Shutdown does not wait for what is left behind.
func TestPartsThatMindNoContext(t *testing.T) {
	release := make(chan struct{})
	testnet.Baseline(t)
	t.Cleanup(func() { close(release) })
	dial := gateway.WithDialContext(func(context.Context, string, string) (net.Conn, error) {
		<-release
		return nil, io.EOF
	})
	for _, tt := range []struct {
		what   string
		status int // 0: what was sent of the answer is cut off
		opts   []gateway.ServiceOption
	}{
		{"a content", 504, []gateway.ServiceOption{answering(200, nil, 5, func() io.ReadCloser { return untilClosed{make(chan struct{}), new(sync.Once)} })}},
		{"a content without a length", 0, []gateway.ServiceOption{answering(200, nil, -1, func() io.ReadCloser { return untilClosed{make(chan struct{}), new(sync.Once)} })}},
		{"a token source", 502, []gateway.ServiceOption{gateway.WithTokenSource(func(context.Context) (string, error) {
			<-release
			return "", io.EOF
		})}},
		{"a dial", 504, []gateway.ServiceOption{gateway.WithMaxConns(1), dial}},
		{"a dial, by its own time", 504, []gateway.ServiceOption{gateway.WithMaxConns(1), gateway.WithDialTimeout(50 * time.Millisecond), dial}},
		{"a dial, HTTP/2", 504, []gateway.ServiceOption{gateway.WithHTTP2(), dial}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			e := newEngine(t, "http://up.test", append(tt.opts, gateway.WithoutRetries(), gateway.WithMaxConcurrency(1, 0, 0),
				gateway.WithTimeout(200*time.Millisecond), gateway.WithBodyIdleTimeout(200*time.Millisecond))...)
			for range 2 {
				start := time.Now()
				c := testnet.Dial(t, strings.TrimPrefix(e.url, "http://"))
				resp := c.Do(testnet.Get("/a/x", "Connection: close"))
				if tt.status != 0 {
					assert.Equal(t, tt.status, resp.Status, "%s", resp.Body)
				}
				assert.Equal(t, tt.status != 0, resp.End == testnet.Whole)
				assert.Less(t, time.Since(start), 2*time.Second)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			require.NoError(t, e.gw.Shutdown(ctx))
		})
	}
}
