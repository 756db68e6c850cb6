package retry

import (
	"net/http"
	"net/textproto"
	"strings"
	"time"
)

// What RetryAfter returns is bounded as RFC 9111 §1.2.2 bounds a cache's delta-seconds.
const (
	maxSeconds = 1<<31 - 1
	maxAfter   = maxSeconds * time.Second
)

// RetryAfter reads a response's Retry-After (RFC 9110 §10.2.3): how long after now the server asks to be left alone.
// A date that has passed is 0. It reports false when the field is absent, repeated or malformed. How much of it is
// honoured is the caller's policy: the result may be as long as 68 years.
func RetryAfter(h http.Header, now time.Time) (d time.Duration, ok bool) { //nolint:revive // it is the field that is named
	lines := h["Retry-After"]
	if len(lines) != 1 { // not a list: two lines are no value (RFC 9110 §5.3)
		return 0, false
	}
	value := textproto.TrimString(lines[0])
	if value == "" {
		return 0, false
	}
	if '0' <= value[0] && value[0] <= '9' {
		return delaySeconds(value)
	}
	t, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	if strings.IndexByte(value, '-') >= 0 { // only an rfc850-date has one
		t = twoDigitYear(t, now)
	}
	return min(max(t.Sub(now), 0), maxAfter), true
}

// delaySeconds reads 1*DIGIT (RFC 9110 §10.2.3), which has no upper bound.
func delaySeconds(value string) (time.Duration, bool) {
	var seconds int64
	for _, c := range []byte(value) {
		if c < '0' || c > '9' {
			return 0, false
		}
		seconds = min(seconds*10+int64(c-'0'), maxSeconds)
	}
	return time.Duration(seconds) * time.Second, true
}

// twoDigitYear puts an rfc850-date into the latest century in which it is not more than 50 years ahead of now
// (RFC 9110 §5.6.7).
func twoDigitYear(t, now time.Time) time.Time {
	horizon := now.AddDate(50, 0, 0)
	for t.After(horizon) {
		t = t.AddDate(-100, 0, 0)
	}
	for next := t.AddDate(100, 0, 0); !next.After(horizon); next = t.AddDate(100, 0, 0) {
		t = next
	}
	return t
}
