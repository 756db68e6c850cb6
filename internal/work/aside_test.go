package work

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			takes, lasts time.Duration
			ok           bool
		}{
			{0, time.Second, true},
			{time.Second, time.Minute, true},
			{time.Minute, time.Second, false},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), test.lasts)
			begin := time.Now()
			result, ok := Aside(ctx, func() string {
				time.Sleep(test.takes)
				return "done"
			})
			require.Equal(t, test.ok, ok)
			require.Equal(t, test.ok, result == "done")
			require.Equal(t, min(test.takes, test.lasts), time.Since(begin))
			cancel()
		}
		time.Sleep(time.Minute) // until what was left behind has ended
	})
}
