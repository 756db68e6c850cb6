package e2e_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway/internal/testnet"
)

// The URI that a purge names is a path, whatever it begins with.
func TestPurgeTakesAURIForAPath(t *testing.T) {
	for _, target := range []string{"//x/y", "/x:y", "/a%2Fb", "/x?", "/x?a=1", "/x?a=//b", "/"} {
		t.Run(target, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, testnet.Reply(200, storable, "ok"))
				b.get("/a" + target)
				assert.Zero(t, b.cache.Purge("a", target+"x"))
				assert.Equal(t, 1, b.cache.Purge("a", target))
			})
		})
	}
}

// A client that has what it may not be sent from the store costs no connection.
func TestNotModifiedKeepsTheConnection(t *testing.T) {
	r := newRig(t, setup{script: testnet.Reply(200, "Cache-Control: no-store\r\nETag: \"v\"", "ok")})
	for _, target := range []string{"/a/1", "/a/2", "/a/3"} {
		assert.Equal(t, 304, r.get(target, `If-None-Match: "v"`).Status)
	}
	assert.Equal(t, 1, r.a.Conns())
}
