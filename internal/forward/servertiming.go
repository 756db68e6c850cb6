package forward

import (
	"strconv"
	"time"
)

// A Timing is what Server-Timing (W3C) tells of one response.
type Timing struct {
	Own      time.Duration // spent by us
	Upstream time.Duration // spent on an answer
	Asked    bool          // an upstream was waited for
	Cache    string        // what the cache did, a token; empty: there is none
}

// String is the value of the field: durations are in milliseconds.
func (t *Timing) String() string {
	b := appendMillis(append(make([]byte, 0, 64), "gateway;dur="...), t.Own)
	if t.Cache != "" {
		b = append(append(b, ", cache;desc="...), t.Cache...)
	}
	if t.Asked {
		b = appendMillis(append(b, ", upstream;dur="...), t.Upstream)
	}
	return string(b)
}

func appendMillis(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, float64(d.Microseconds())/1000, 'f', -1, 64)
}
