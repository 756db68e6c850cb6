package forward

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTiming(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		want string
		t    Timing
	}{
		{"gateway;dur=0", Timing{}},
		{"gateway;dur=0.123", Timing{Own: 123_456 * time.Nanosecond}},
		{"gateway;dur=0.04, cache;desc=hit", Timing{Own: 40 * time.Microsecond, Cache: "hit"}},
		{"gateway;dur=1, cache;desc=uri-miss, upstream;dur=2500", Timing{Own: time.Millisecond, Cache: "uri-miss", Asked: true, Upstream: 2500 * time.Millisecond}},
		{"gateway;dur=0, upstream;dur=0.001", Timing{Asked: true, Upstream: time.Microsecond, Own: 999}},
	} {
		require.Equal(t, tt.want, tt.t.String())
	}
}
