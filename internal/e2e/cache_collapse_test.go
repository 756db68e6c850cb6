package e2e_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// Who has waited for another's answer, or asks once more, has the time that is
// its own: over connections that stand, too.
func TestLateRequestsHaveTheirTime(t *testing.T) {
	slow := func(answers ...string) func(*testnet.Conn) {
		var n int // requests come one after the other
		return func(c *testnet.Conn) {
			for c.ReadRequest() != nil && c.Pause(50*time.Millisecond) && c.Send(answers[min(n, len(answers)-1)]) {
				n++
			}
		}
	}
	t.Run("behind another", func(t *testing.T) {
		r := newRig(t, setup{script: slow(testnet.Answer(200, "Cache-Control: no-store", "mine")), defaults: []gateway.Option{gateway.WithoutRetries()}})
		all := r.crowd(2, testnet.Get("/a/x"))
		assert.Equal(t, map[string]int{"200 gateway; fwd=uri-miss; detail=no-store": 2}, all.statuses)
		r.counted(noFailure)
	})
	t.Run("once more", func(t *testing.T) {
		r := newRig(t, setup{script: slow(
			testnet.Answer(200, "Cache-Control: public, max-age=0\r\nETag: \"v1\"", "one"),
			testnet.Answer(304, "ETag: \"v2\"", ""),
			testnet.Answer(200, storable, "two"),
		), defaults: []gateway.Option{gateway.WithoutRetries()}})
		require.Equal(t, "one", string(r.get("/a/x").Body))
		assert.Equal(t, "two", string(r.get("/a/x").Body))
		r.counted(noFailure)
	})
}
