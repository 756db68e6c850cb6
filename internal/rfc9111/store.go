package rfc9111

import (
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Exchange is a request and the head of its response, as they were received: before fields are removed that belong to the connection.
type Exchange struct {
	Method       string
	Status       int
	Target       *url.URL    // the target URI as the upstream received it, absolute (RFC 9110 §7.1); only looked at for a POST, nil forbids that
	Request      http.Header // as the client sent it, which is what later requests are compared with
	Sent         http.Header // as the upstream received it; nil: like Request
	Response     http.Header
	Injected     bool      // the upstream received credentials of ours that neither header shows
	Framed       bool      // the length of the body is proven by its framing, not by the end of the connection
	RequestTime  time.Time // when the request was sent
	ResponseTime time.Time // when the response's header arrived

	control  ResponseControl // Response's, once parsed
	parsed   bool
	targeted bool // control is of a targeted field
}

// directives returns what the response says to this cache, read once: all calls have the same target list.
func (x *Exchange) directives(targets []string) *ResponseControl {
	if !x.parsed {
		x.control, x.targeted = ParseTargeted(x.Response, targets)
		if !x.targeted {
			x.control = ParseResponse(x.Response)
		}
		x.parsed = true
	}
	return &x.control
}

// Config is what the operator permits and adds beyond what a response says. The zero value permits and adds nothing.
type Config struct {
	Authorized bool          // all clients share one identity: RFC 9111 §3.5 is met by agreement
	Cookies    bool          // responses that set cookies, and responses to requests with cookies, are stored like others
	KeepStale  bool          // what is stale at once is stored, too, if it can be validated or may be served stale
	Targeted   []string      // the targeted fields that this cache goes by, canonical, the most applicable first (RFC 9213 §2.2)
	Unheeded   bool          // Cache-Control of requests means nothing
	MaxStale   time.Duration // how stale a response may be in place of an error, at the most
	Key        KeyRules

	// A response that states no lifetime, but may be stored without (RFC 9111 §4.2.2), has the tenth of its age since Last-Modified, at most
	// MaxHeuristic; 0: none. One that has no Last-Modified, or none that counts, has DefaultTTL, unless it is an error. The errors 404, 405, 410,
	// 414 and 501 have NegativeTTL in place of both.
	MaxHeuristic, DefaultTTL, NegativeTTL time.Duration

	// StaleWhileRevalidate and StaleIfError are what a response has that does not say. Neither overrules what forbids stale answers.
	StaleWhileRevalidate, StaleIfError time.Duration
}

// Verdict says why a response is not stored. The zero value means that it is. Values are tokens, fit for a Cache-Status detail (RFC 9211 §2.8).
type Verdict string

// The verdicts.
const (
	VerdictStore          Verdict = ""
	VerdictAuthorization  Verdict = "authorization"    // the request had credentials and the response does not permit sharing
	VerdictCookie         Verdict = "cookie"           // the request had cookies and the response does not permit sharing
	VerdictEcho           Verdict = "echo"             // the response repeats the request, or its credentials
	VerdictEventStream    Verdict = "event-stream"     // the response has no end
	VerdictMethod         Verdict = "method"           // neither GET nor a POST whose response is what a GET would find
	VerdictNoCache        Verdict = "no-cache"         // each use would need validation
	VerdictNoFreshness    Verdict = "no-freshness"     // no lifetime is stated, and none may be assumed
	VerdictNoStore        Verdict = "no-store"         // the response forbids it
	VerdictPartial        Verdict = "partial"          // the response is a part that may be stored as such, but not as a whole
	VerdictPrivate        Verdict = "private"          // the response is for one client
	VerdictRange          Verdict = "range"            // the response is, or may be, a part
	VerdictRequestNoStore Verdict = "request-no-store" // the request forbids it
	VerdictSetCookie      Verdict = "set-cookie"       // the response sets a cookie
	VerdictStale          Verdict = "stale"            // the lifetime was over when the response arrived
	VerdictStatus         Verdict = "status"           // the status is not one to store
	VerdictUnframed       Verdict = "unframed"         // nothing would prove the body complete
	VerdictVary           Verdict = "vary"             // no later request could be matched
)

// Storable returns "" when the response may be stored and later be served to any client (RFC 9111 §3), else why not.
func Storable(x *Exchange, c *Config) Verdict {
	cc := x.directives(c.Targeted)
	if v := understood(x, cc); v != VerdictStore {
		return v
	}
	if v := permitted(x, cc, c); v != VerdictStore {
		return v
	}
	if v := whole(x); v != VerdictStore {
		return v
	}
	if v := impersonal(x, cc, c); v != VerdictStore {
		return v
	}
	if !selectable(x, c) {
		return VerdictVary
	}
	if v := useful(x, cc, c); v != VerdictStore {
		return v
	}
	if x.Status == http.StatusPartialContent {
		return VerdictPartial
	}
	return VerdictStore
}

// understood judges whether the message is of a kind whose rules are known and whose end can be proven (RFC 9111 §3).
func understood(x *Exchange, cc *ResponseControl) Verdict {
	switch {
	case x.Method != http.MethodGet && !answersGet(x, cc):
		return VerdictMethod
	case x.Status < 200 || x.Status > 599 || momentary(x.Status): // RFC 9110 §15: the status is final, and one that exists
		return VerdictStatus
	case cc.MustUnderstand && !known(x.Status): // RFC 9111 §3, §5.2.2.3
		return VerdictStatus
	case !x.Framed: // RFC 9112 §8: the end of a connection does not prove a message complete
		return VerdictUnframed
	}
	return VerdictStore
}

// answersGet judges whether a response to a POST holds what a GET of its target would find: it has explicit freshness, and a Content-Location that
// is the target URI (RFC 9110 §9.3.3, §8.7).
func answersGet(x *Exchange, cc *ResponseControl) bool {
	lines := x.Response["Content-Location"]
	if x.Method != http.MethodPost || x.Status != http.StatusOK || x.Target == nil || len(lines) != 1 || !explicit(x, cc) {
		return false
	}
	u := resolve(x.Target, lines[0])
	return u != nil && sameOrigin(u, x.Target) && sameResource(u, x.Target)
}

// momentary reports whether a status answers this request alone, and not whoever asks next: its credentials or their lack, its preconditions and
// ranges, its connection, its size, its haste. RFC 6585 says of 428, 429, 431 and 511 that they must not be stored.
func momentary(status int) bool {
	switch status {
	case http.StatusNotModified, http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusPreconditionFailed,
		http.StatusRequestedRangeNotSatisfiable, http.StatusExpectationFailed, http.StatusMisdirectedRequest, http.StatusTooEarly,
		http.StatusPreconditionRequired, http.StatusTooManyRequests, http.StatusRequestHeaderFieldsTooLarge, http.StatusNetworkAuthenticationRequired:
		return true
	}
	return false
}

// known reports whether RFC 9110 §15 defines the status, and with it what a cache must know.
func known(status int) bool {
	return 200 <= status && status <= 206 || 300 <= status && status <= 305 || status == 307 || status == 308 ||
		400 <= status && status <= 417 || status == 421 || status == 422 || status == 426 || 500 <= status && status <= 505
}

// whole judges whether the message is one answer for all time: not a stream, not the request itself, not a part that nobody knows the place of.
// Who asks for a range and is answered with another status than 206 has all of the answer (RFC 9110 §14.2).
func whole(x *Exchange) Verdict {
	switch {
	case x.Status == http.StatusPartialContent && (!x.asked("Range") || !placed(x.Response)):
		return VerdictRange
	case x.Status == http.StatusPartialContent && has(x.Request, "If-Range") && !has(x.Response, "Content-Type"): // RFC 9110 §15.3.7: its client has the rest
		return VerdictRange
	case x.Status != http.StatusPartialContent && has(x.Response, "Content-Range") && x.asked("Range"): // else it means nothing (RFC 9110 §14.4)
		return VerdictRange
	case hasType(x.Response, "text/event-stream"):
		return VerdictEventStream
	case hasType(x.Response, "message/http"), hasType(x.Response, "application/http"): // RFC 9112 §10
		return VerdictEcho
	}
	return VerdictStore
}

// placed reports whether a 206 says which bytes it holds of how many: one part (RFC 9111 §3.3).
func placed(response http.Header) bool {
	_, size, ok := ParseContentRange(response)
	return ok && size >= 0 && !hasType(response, "multipart/byteranges")
}

// permitted judges the directives of both sides. must-understand lifts no-store from a status that is understood (RFC 9111 §5.2.2.3).
func permitted(x *Exchange, cc *ResponseControl, c *Config) Verdict {
	switch {
	case cc.NoStore && !cc.MustUnderstand: // RFC 9111 §5.2.2.5
		return VerdictNoStore
	case cc.Private: // RFC 9111 §5.2.2.7
		return VerdictPrivate
	case cc.NoCache && !c.KeepStale, cc.NoCache && !validated(x): // RFC 9111 §5.2.2.4
		return VerdictNoCache
	case !c.Unheeded && ParseRequest(x.Request).NoStore: // RFC 9111 §5.2.1.5
		return VerdictRequestNoStore
	}
	return VerdictStore
}

// impersonal judges whether the response may be for more than the client that asked.
func impersonal(x *Exchange, cc *ResponseControl, c *Config) Verdict {
	authorized := x.Injected || x.asked("Authorization")
	switch {
	case authorized && !c.Authorized && !cc.shared() && !cc.MustRevalidate: // RFC 9111 §3.5
		return VerdictAuthorization
	case has(x.Response, "Set-Cookie") && !c.Cookies: // RFC 9111 §7.3
		return VerdictSetCookie
	case x.asked("Cookie") && !c.Cookies && !cc.shared():
		return VerdictCookie
	case authorized && (echoes(x.Response, x.Request) || echoes(x.Response, x.Sent)):
		return VerdictEcho
	}
	return VerdictStore
}

// useful judges whether the response could answer a later request: its lifetime is stated or may be assumed (RFC 9111 §3), and is not over, or what
// is stale can be validated or may be served for a while.
func useful(x *Exchange, cc *ResponseControl, c *Config) Verdict {
	t := termsOf(x, cc, c)
	stated := !t.Heuristic
	may := stated || heuristic(x.Status) || cc.Public
	switch {
	case !may:
		return VerdictNoFreshness
	case cc.NoCache, t.Lifetime > t.Age:
		return VerdictStore
	case !stated && t.Lifetime == 0 && (!c.KeepStale || !dated(x)): // who says nothing at all is not held to have meant it
		return VerdictNoFreshness
	case c.KeepStale && validated(x):
		return VerdictStore
	case c.KeepStale && !t.NoStale && inWindow(t.Age-t.Lifetime, max(t.StaleWhileRevalidate, t.StaleIfError)):
		return VerdictStore
	}
	return VerdictStale
}

// validated reports whether the response has what it can be validated by (RFC 9111 §4.3.1).
func validated(x *Exchange) bool {
	v := ParseValidators(x.Response, x.ResponseTime)
	return v.Any()
}

func dated(x *Exchange) bool {
	_, ok := ParseDate(x.Response.Get("Last-Modified"), x.ResponseTime)
	return ok
}

// selectable judges whether a later request can be told to select this response or not (RFC 9111 §4.1). It cannot where the upstream chose by
// a value that it had not from the client, or without one that the client had kept from it: other requests will not show it. Nor where the request
// has the field spelt otherwise, which many upstreams read as the same.
func selectable(x *Exchange, c *Config) bool {
	names, ok := ParseVary(x.Response)
	if !ok {
		return false
	}
	for _, name := range names {
		if name == "Authorization" && c.Authorized {
			continue // one identity, whoever asks
		}
		if x.Sent != nil && !sameField(x.Sent[name], x.Request[name]) {
			return false
		}
	}
	return !x.misspelt(names) && !x.misspelt(c.Key.Fields)
}

// misspelt reports whether the upstream received a field that it may have taken for one of these names, and that is not. CGI and its heirs know neither
// case nor one punctuation mark from another (RFC 3875 §4.1.18), and some cut off those at the ends.
func (x *Exchange) misspelt(names []string) bool {
	received := x.Sent
	if received == nil {
		received = x.Request
	}
	for other := range received {
		for _, name := range names {
			if name != other && sameLetters(name, other) {
				return true
			}
		}
	}
	return false
}

// sameLetters compares two field names as such an upstream does.
func sameLetters(a, b string) bool {
	a, b = trimMarks(a), trimMarks(b)
	if len(a) != len(b) || a == "" {
		return false
	}
	for i := range len(a) {
		if a[i]|0x20 != b[i]|0x20 && (!isMark(a[i]) || !isMark(b[i])) {
			return false
		}
	}
	return true
}

func trimMarks(s string) string {
	for s != "" && isMark(s[0]) {
		s = s[1:]
	}
	for s != "" && isMark(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

// isMark reports whether a byte of a field name is neither letter nor digit.
func isMark(c byte) bool { return !isAlpha(c) && !isDigit(c) }

// sameField reports whether two occurrences of a field say the same. An empty one says as much as none.
func sameField(a, b []string) bool { return slices.Equal(a, b) || !hasValue(a) && !hasValue(b) }

// asked reports whether the request had the field when it came or when it was sent on.
func (x *Exchange) asked(name string) bool { return has(x.Request, name) || has(x.Sent, name) }

// echoes reports whether a response field repeats the credentials of request. Those under 8 bytes are no secret and occur by chance.
func echoes(response, request http.Header) bool {
	for _, line := range request["Authorization"] {
		scheme, credentials, ok := strings.Cut(line, " ")
		if !ok {
			credentials = scheme
		}
		if credentials = textproto.TrimString(credentials); len(credentials) >= 8 && contains(response, credentials) {
			return true
		}
	}
	return false
}

func contains(h http.Header, part string) bool {
	for _, lines := range h {
		for _, line := range lines {
			if strings.Contains(line, part) {
				return true
			}
		}
	}
	return false
}

func hasType(h http.Header, mediaType string) bool {
	for _, line := range h["Content-Type"] {
		t, _, _ := strings.Cut(line, ";")
		if strings.EqualFold(textproto.TrimString(t), mediaType) {
			return true
		}
	}
	return false
}

// hasValue reports whether a field is sent at all: net/http takes a sole empty value as the order not to send its default.
func hasValue(lines []string) bool { return len(lines) > 1 || len(lines) == 1 && lines[0] != "" }
