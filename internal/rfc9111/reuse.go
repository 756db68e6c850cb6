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
	BypassConditional Bypass = "conditional" // a precondition for the origin to judge (RFC 9111 §4.3.2)
	BypassMethod      Bypass = "method"      // neither GET nor HEAD
	BypassNoStore     Bypass = "no-store"    // the client forbids storing (RFC 9111 §5.2.1.5)
	BypassConnection  Bypass = "connection"  // Connection keeps a field from the upstream that the key may hold (RFC 9110 §7.6.1): Lookup does not look
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
	case ForOrigin(h):
		return BypassConditional
	case has(h, "Upgrade"):
		return BypassUpgrade
	}
	return ""
}

// Forward returns why a request for which that is true goes forward (RFC 9211 §2.2): without a reason, because nothing is known of what is stored.
func (b Bypass) Forward() Forward {
	switch b {
	case "":
		return ForwardURIMiss
	case BypassMethod:
		return ForwardMethod
	}
	return ForwardRequest
}

// Use is what may be done with a stored response that a request selects. The zero value is what is always right.
type Use uint8

// The ways to use a stored response.
const (
	MustValidate    Use = iota // only once the origin says that it is current (RFC 9111 §4.3)
	Fresh                      // it answers the request (RFC 9111 §4.2)
	Stale                      // it answers the request, which takes it stale (RFC 9111 §5.2.1.2)
	WhileRevalidate            // it answers the request, and is validated behind it (RFC 5861 §3)
)

// Fresh reports whether the response is fresh at that age (RFC 9111 §4.2) and may be used without validation. Where it is and Judge says
// MustValidate, the reason is in the request.
func (t Terms) Fresh(age time.Duration) bool { return !t.NoCache && t.Lifetime > age }

// Doubt is why a stored response must be validated. The zero value is none.
type Doubt uint8

// The doubts.
const (
	DoubtNoCache  Doubt = iota + 1 // the response asks for it at each use
	DoubtAsked                     // the request does
	DoubtAge                       // the request takes nothing so old
	DoubtMinFresh                  // the request takes nothing that is stale so soon
	DoubtStale                     // it is stale
	DoubtNoStale                   // it is stale, and the response forbids to use it then
	DoubtTooStale                  // it is staler than the request takes
)

// String says it of a stored response; empty: there is none.
func (d Doubt) String() string {
	return [...]string{
		DoubtNoCache: "the response says no-cache", DoubtAsked: "the request says no-cache", DoubtAge: "the request takes nothing so old",
		DoubtMinFresh: "the request takes nothing that is stale so soon", DoubtStale: "it is stale",
		DoubtNoStale: "it is stale, and the response forbids that", DoubtTooStale: "it is staler than the request takes",
	}[d]
}

// Judge decides on a request (RFC 9111 §4, §5.2.1), and says why the response must be validated, if it must. A cache that does not grant what its
// clients ask for changes c before: without MaxStale none is served stale on a client's word, and ParseRequest(nil) is a client that asks for nothing.
func (t Terms) Judge(c RequestControl, age time.Duration) (Use, Doubt) {
	switch {
	case t.NoCache: // RFC 9111 §5.2.2.4, §5.2.1.4, which RFC 8246 §2 leaves in force
		return MustValidate, DoubtNoCache
	case c.NoCache:
		return MustValidate, DoubtAsked
	case t.Fresh(age):
		return t.useFresh(c, age)
	case t.NoStale:
		return MustValidate, DoubtNoStale
	case !c.takesStale(age, age-t.Lifetime):
		return MustValidate, DoubtTooStale
	case inWindow(age-t.Lifetime, t.StaleWhileRevalidate):
		return WhileRevalidate, 0
	case c.MaxStale != Absent:
		return Stale, 0
	}
	return MustValidate, DoubtStale
}

func (t Terms) useFresh(c RequestControl, age time.Duration) (Use, Doubt) {
	switch {
	case !t.Immutable && c.MaxAge != Absent && (age > c.MaxAge || c.MaxAge == 0): // RFC 9111 §5.2.1.1; 0 is a reload, however young the response
		return MustValidate, DoubtAge
	case c.MinFresh != Absent && t.Lifetime-age < c.MinFresh: // RFC 9111 §5.2.1.3
		return MustValidate, DoubtMinFresh
	}
	return Fresh, 0
}

// takesStale reports whether the client has nothing against a response of that age and staleness.
func (c *RequestControl) takesStale(age, staleness time.Duration) bool {
	switch {
	case c.MinFresh != Absent: // RFC 9111 §5.2.1.3
		return false
	case c.MaxAge != Absent && (age > c.MaxAge || c.MaxStale == Absent): // RFC 9111 §5.2.1.1: unless max-stale is also present, it takes nothing stale
		return false
	}
	return c.MaxStale == Absent || staleness <= c.MaxStale // RFC 9111 §5.2.1.2
}

// AfterError reports whether the response may stand in for one that could not be had: the upstream is unreachable, or answers 500, 502, 503 or
// 504 (RFC 9111 §4.2.4, §4.3.3, RFC 5861 §4). How stale it may be is said by the request's stale-if-error, else by the response's, else by
// maxStale, which is also the most; 0 forbids what is stale. Where only maxStale speaks for it, what the client takes counts. In place of an answer
// of the upstream's own it stands in only where one of the two says for how long.
func (t Terms) AfterError(c RequestControl, age, maxStale time.Duration, answered bool) bool {
	window := t.StaleIfError
	if c.StaleIfError != Absent {
		window = c.StaleIfError
	}
	stated := window > 0 // RFC 5861 §4: regardless of other freshness information
	switch {
	case t.NoCache, c.NoCache, answered && window == Absent:
		return false
	case t.Fresh(age):
		use, _ := t.useFresh(c, age)
		return stated || use == Fresh
	case t.NoStale, !stated && !c.takesStale(age, age-t.Lifetime):
		return false
	case window == Absent:
		window = maxStale
	}
	return inWindow(age-t.Lifetime, min(window, maxStale))
}

// Troubled reports whether an answer says that the upstream is in trouble (RFC 5861 §4).
func Troubled(status int) bool {
	switch status {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// inWindow reports whether a response is no more stale than a window of time, of which 0 and Absent are none.
func inWindow(staleness, window time.Duration) bool { return window > 0 && staleness <= window }

func has(h http.Header, name string) bool { return len(h[name]) > 0 }
