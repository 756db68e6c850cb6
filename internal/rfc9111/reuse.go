package rfc9111

import (
	"net/http"
	"time"
)

// Bypass says why a request passes the cache by: it is neither answered from the store nor is its response stored. The zero value means that
// it does not.
type Bypass string

// The reasons to pass by.
const (
	BypassBody        Bypass = "body"        // a GET or HEAD with content, whose meaning the key does not hold (RFC 9110 §9.3.1)
	BypassConditional Bypass = "conditional" // a precondition, for the origin to judge (RFC 9110 §13.1)
	BypassMethod      Bypass = "method"      // neither GET nor HEAD
	BypassNoStore     Bypass = "no-store"    // the client forbids storing (RFC 9111 §5.2.1.5)
	BypassRange       Bypass = "range"       // a part is asked for (RFC 9110 §14.2)
	BypassUpgrade     Bypass = "upgrade"     // another protocol is asked for (RFC 9110 §7.8)
)

// Lookup returns "" when the request may be answered from the store, else why not. c is what ParseRequest made of h; hasBody says whether the
// message has content, of known length or not.
func Lookup(method string, h http.Header, c RequestControl, hasBody bool) Bypass {
	switch {
	case method != http.MethodGet && method != http.MethodHead:
		return BypassMethod
	case hasBody:
		return BypassBody
	case c.NoStore:
		return BypassNoStore
	case has(h, "Range"):
		return BypassRange
	case has(h, "If-None-Match"), has(h, "If-Modified-Since"), has(h, "If-Match"), has(h, "If-Unmodified-Since"):
		return BypassConditional
	case has(h, "Upgrade"):
		return BypassUpgrade
	}
	return ""
}

// Reusable reports whether a stored response of this age and freshness lifetime satisfies the request without validation (RFC 9111 §4, §5.2.1).
// Only a fresh one does: max-stale is a permission that is not used.
func Reusable(c RequestControl, age, lifetime time.Duration) bool {
	switch {
	case c.NoCache: // RFC 9111 §5.2.1.4
		return false
	case lifetime <= age: // RFC 9111 §4.2: fresh while the lifetime exceeds the age
		return false
	case c.MaxAge != Absent && (age > c.MaxAge || c.MaxAge == 0): // RFC 9111 §5.2.1.1; 0 is a reload, however young the response
		return false
	case c.MinFresh != Absent && lifetime-age < c.MinFresh: // RFC 9111 §5.2.1.3
		return false
	}
	return true
}

func has(h http.Header, name string) bool { return len(h[name]) > 0 }
