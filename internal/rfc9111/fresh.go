package rfc9111

import "time"

// Fresh returns how long the response is fresh (RFC 9111 §4.2.1) and how old it was when it arrived (§4.2.3). Neither is negative or above
// MaxDelta. A response without explicit freshness has lifetime 0.
func Fresh(x *Exchange) (lifetime, initialAge time.Duration) {
	return fresh(x, x.directives())
}

func fresh(x *Exchange, c *ResponseControl) (lifetime, initialAge time.Duration) {
	date, ok := ParseDate(x.Response.Get("Date"), x.ResponseTime)
	if !ok {
		date = x.ResponseTime // RFC 9110 §6.6.1
	}
	switch {
	case c.SMaxAge != Absent: // RFC 9111 §5.2.2.10: overrides max-age and Expires in a shared cache
		lifetime = c.SMaxAge
	case c.MaxAge != Absent: // RFC 9111 §5.3: Expires is ignored beside it
		lifetime = c.MaxAge
	default:
		lifetime = untilExpires(x, date)
	}
	return lifetime, initialAgeOf(x, date)
}

// explicit reports whether the response states its lifetime (RFC 9111 §3).
func explicit(x *Exchange, c *ResponseControl) bool {
	return c.SMaxAge != Absent || c.MaxAge != Absent || len(x.Response["Expires"]) > 0
}

func untilExpires(x *Exchange, date time.Time) time.Duration {
	lines := x.Response["Expires"]
	if len(lines) == 0 {
		return 0
	}
	for _, line := range lines[1:] {
		if line != lines[0] {
			return 0 // RFC 9111 §4.2.1: with several values, the first or stale
		}
	}
	expires, ok := ParseDate(lines[0], x.ResponseTime)
	if !ok {
		return 0 // RFC 9111 §5.3: an invalid date, "0" above all, is in the past
	}
	return clamp(expires.Sub(date))
}

// initialAgeOf computes corrected_initial_age (RFC 9111 §4.2.3).
func initialAgeOf(x *Exchange, date time.Time) time.Duration {
	apparent := clamp(x.ResponseTime.Truncate(time.Second).Sub(date)) // Date has whole seconds
	age, _ := ParseAge(x.Response)
	delay := clamp(x.ResponseTime.Sub(x.RequestTime))
	return max(apparent, clamp(age+delay))
}

// CurrentAge returns the age at now of a response that arrived at responseTime with initialAge (RFC 9111 §4.2.3), never negative or above MaxDelta.
func CurrentAge(initialAge time.Duration, responseTime, now time.Time) time.Duration {
	return clamp(initialAge + clamp(now.Sub(responseTime)))
}

func clamp(d time.Duration) time.Duration { return min(max(d, 0), MaxDelta) }
