package rfc9111

import (
	"net/http"
	"time"
)

// Terms are on what conditions a stored response may be reused, as they were when it arrived. Lifetime and Age are neither negative nor above
// MaxDelta, the other durations may also be Absent. The zero value is stale from the start, but for its two windows of 0.
type Terms struct {
	Lifetime             time.Duration // how long it is fresh (RFC 9111 §4.2.1)
	Age                  time.Duration // how old it was when it arrived (RFC 9111 §4.2.3)
	StaleWhileRevalidate time.Duration // how stale it may be while it is validated (RFC 5861 §3)
	StaleIfError         time.Duration // how stale it may be in place of an error (RFC 5861 §4)
	NoCache              bool          // each use needs validation (RFC 9111 §5.2.2.4)
	NoStale              bool          // it is never used stale (RFC 9111 §4.2.4), whatever its windows; s-maxage says so, in a targeted field max-age does not
	Immutable            bool          // it does not change while it is fresh (RFC 8246 §2)
	Heuristic            bool          // the lifetime is a guess, of the operator or from Last-Modified (RFC 9111 §4.2.2)
	Single               bool          // who has waited for it may not have it, for each use needs validation (RFC 9111 §4); see single
}

// TermsOf returns the terms of a response.
func TermsOf(x *Exchange, c *Config) Terms {
	return termsOf(x, x.directives(c.Targeted), c)
}

func termsOf(x *Exchange, cc *ResponseControl, c *Config) Terms {
	date, ok := ParseDate(x.Response.Get("Date"), x.ResponseTime)
	if !ok {
		date = x.ResponseTime // RFC 9110 §6.6.1
	}
	t := Terms{
		Age:                  initialAgeOf(x, date),
		StaleWhileRevalidate: otherwise(cc.StaleWhileRevalidate, c.StaleWhileRevalidate),
		StaleIfError:         otherwise(cc.StaleIfError, c.StaleIfError),
		NoCache:              cc.NoCache,
		NoStale:              cc.NoCache || cc.MustRevalidate || cc.ProxyRevalidate || cc.SMaxAge != Absent, // RFC 9111 §5.2.2.2, §5.2.2.8, §5.2.2.10
		Immutable:            cc.Immutable,
	}
	switch sourceOf(x, cc) {
	case SourceSMaxAge:
		t.Lifetime = cc.SMaxAge
	case SourceMaxAge:
		t.Lifetime = cc.MaxAge
	case SourceExpires:
		t.Lifetime = untilExpires(x, date)
	default:
		t.Lifetime, t.Heuristic = guess(x, cc, c, date), true
	}
	t.Single = t.single(x)
	return t
}

// single judges by what the response says of itself, and not by the time that it took or by the difference of two clocks: with a short lifetime these
// would have all who wait for a slow answer ask for it once more, at once.
func (t *Terms) single(x *Exchange) bool {
	age, _ := ParseAge(x.Response)
	return t.NoCache || t.Lifetime <= age && (t.NoStale || !inWindow(age-t.Lifetime, t.StaleWhileRevalidate))
}

// Source is what a lifetime is from.
type Source string

// The sources of a lifetime, the first of which counts.
const (
	SourceSMaxAge Source = "s-maxage" // RFC 9111 §5.2.2.10: overrides max-age and Expires in a shared cache
	SourceMaxAge  Source = "max-age"  // RFC 9111 §5.3: Expires is ignored beside it
	SourceExpires Source = "Expires"
	SourceGuess   Source = "heuristic" // the operator's, or from Last-Modified
)

// SourceOf returns what the lifetime in TermsOf is from.
func SourceOf(x *Exchange, c *Config) Source { return sourceOf(x, x.directives(c.Targeted)) }

func sourceOf(x *Exchange, cc *ResponseControl) Source {
	switch {
	case cc.SMaxAge != Absent:
		return SourceSMaxAge
	case cc.MaxAge != Absent:
		return SourceMaxAge
	case x.expires():
		return SourceExpires
	}
	return SourceGuess
}

// otherwise returns what the response says or, where it says nothing, what the operator does. An operator's 0 says nothing.
func otherwise(said, configured time.Duration) time.Duration {
	if said == Absent && configured > 0 {
		return clamp(configured)
	}
	return said
}

// explicit reports whether the response states its lifetime (RFC 9111 §3).
func explicit(x *Exchange, cc *ResponseControl) bool {
	return cc.SMaxAge != Absent || cc.MaxAge != Absent || x.expires()
}

// expires reports whether Expires counts: a targeted field takes its place (RFC 9213 §2.2).
func (x *Exchange) expires() bool { return has(x.Response, "Expires") && !x.targeted }

func untilExpires(x *Exchange, date time.Time) time.Duration {
	lines := x.Response["Expires"]
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

// guess returns the lifetime of a response that states none, 0 where none may be assumed (RFC 9111 §4.2.2). Pragma means nothing in a response
// (§5.4), but who sends it has not meant to be guessed at.
func guess(x *Exchange, cc *ResponseControl, c *Config, date time.Time) time.Duration {
	if cc.Vague || pragmaNoCache(x.Response) {
		return 0
	}
	if c.NegativeTTL > 0 && negative(x.Status) {
		return clamp(c.NegativeTTL)
	}
	if !heuristic(x.Status) && !cc.Public {
		return 0
	}
	if modified, ok := ParseDate(x.Response.Get("Last-Modified"), x.ResponseTime); ok && c.MaxHeuristic > 0 {
		return min(clamp(date.Sub(modified))/10, clamp(c.MaxHeuristic)).Truncate(time.Second)
	}
	if x.Status < http.StatusBadRequest {
		return clamp(c.DefaultTTL)
	}
	return 0
}

// heuristic reports whether a status is defined as heuristically cacheable (RFC 9110 §15.1).
func heuristic(status int) bool {
	switch status {
	case http.StatusOK, http.StatusNonAuthoritativeInfo, http.StatusNoContent, http.StatusPartialContent,
		http.StatusMultipleChoices, http.StatusMovedPermanently, http.StatusPermanentRedirect,
		http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusRequestURITooLong, http.StatusNotImplemented:
		return true
	}
	return false
}

// negative reports whether a status is one that NegativeTTL is for, of those that are heuristically cacheable.
func negative(status int) bool {
	switch status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusRequestURITooLong, http.StatusNotImplemented:
		return true
	}
	return false
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
