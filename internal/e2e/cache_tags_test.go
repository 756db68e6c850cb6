package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway/internal/testnet"
)

// A response whose tags are too many to be kept may have any: it must not
// survive the purge of one.
func TestResponsesOfTooManyTagsHaveAny(t *testing.T) {
	for _, n := range []int{256, 257, 2000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tags := make([]string, n)
				for i := range tags {
					tags[i] = fmt.Sprintf("tag-%d", i)
				}
				b := newBubble(t, testnet.Reply(200, storable+"Cache-Tag: "+strings.Join(tags, ","), "ok"))
				b.get("/a/x")
				b.cache.PurgeTag("tag-7")
				assert.NotContains(t, b.get("/a/x").Header.Get("Cache-Status"), "hit")
			})
		})
	}
}
