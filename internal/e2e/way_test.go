package e2e_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/embedgw/gateway"
)

// way is how a gateway reaches its upstreams. What a client or an upstream may
// do to an exchange has one outcome whichever it is.
type way string

const (
	direct  way = ""              // over connections of its own
	tripped way = "round tripper" // through an app's round tripper, net/http's
)

// eachWay runs a test once for each way.
func eachWay(t *testing.T, test func(t *testing.T, w way)) {
	t.Helper()
	t.Run("own connections", func(t *testing.T) { test(t, direct) })
	t.Run(string(tripped), func(t *testing.T) { test(t, tripped) })
}

// bothWays is a case that runs once for each way.
func bothWays(row int, what string, run func(t *testing.T, w way)) attackCase {
	return attackCase{row, what, func(t *testing.T) { eachWay(t, run) }}
}

// inBubbles runs a test once for each way, on clocks of its own.
func inBubbles(t *testing.T, test func(t *testing.T, w way)) {
	t.Helper()
	eachWay(t, func(t *testing.T, w way) {
		synctest.Test(t, func(t *testing.T) { test(t, w) })
	})
}

// connect has services go this way over connections that dial makes; nil: net's
// own.
func (w way) connect(t testing.TB, dial gateway.DialFunc) gateway.DefaultOption {
	if w == direct {
		return gateway.WithDialContext(dial)
	}
	rt := &http.Transport{DialContext: dial, DisableCompression: true, ExpectContinueTimeout: time.Second, MaxIdleConnsPerHost: 64}
	t.Cleanup(rt.CloseIdleConnections)
	return gateway.WithTransport(rt)
}
