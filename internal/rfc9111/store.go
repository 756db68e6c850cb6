package rfc9111

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// Exchange is a request and the head of its response, as they were received: before fields are removed that belong to the connection.
type Exchange struct {
	Method       string
	Status       int
	Request      http.Header // as the client sent it, which is what later requests are compared with
	Sent         http.Header // as the upstream received it; nil: like Request
	Response     http.Header
	Injected     bool      // the upstream received credentials of ours that neither header shows
	Framed       bool      // the length of the body is proven by its framing, not by the end of the connection
	RequestTime  time.Time // when the request was sent
	ResponseTime time.Time // when the response's header arrived

	control ResponseControl // Response's, once parsed
	parsed  bool
}

// directives returns what ParseResponse makes of the response, once.
func (x *Exchange) directives() *ResponseControl {
	if !x.parsed {
		x.control, x.parsed = ParseResponse(x.Response), true
	}
	return &x.control
}

// Config is what the operator permits beyond the defaults. The zero value permits nothing.
type Config struct {
	Authorized bool // all clients share one identity: RFC 9111 §3.5 is met by agreement
	Cookies    bool // responses that set cookies, and responses to requests with cookies, are stored like others
	MaxVary    int  // a response that varies by more fields is not stored; 0: 16, which is also the most
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
	VerdictMalformed      Verdict = "malformed"        // Cache-Control does not follow the grammar
	VerdictMethod         Verdict = "method"           // not GET
	VerdictNoCache        Verdict = "no-cache"         // each use would need validation
	VerdictNoFreshness    Verdict = "no-freshness"     // no explicit lifetime
	VerdictNoStore        Verdict = "no-store"         // the response forbids it
	VerdictPrivate        Verdict = "private"          // the response is for one client
	VerdictRange          Verdict = "range"            // the response is, or may be, a part
	VerdictRequestNoStore Verdict = "request-no-store" // the request forbids it
	VerdictSetCookie      Verdict = "set-cookie"       // the response sets a cookie
	VerdictStale          Verdict = "stale"            // the lifetime was over when the response arrived
	VerdictStatus         Verdict = "status"           // not 200
	VerdictUnframed       Verdict = "unframed"         // nothing would prove the body complete
	VerdictVary           Verdict = "vary"             // no later request could be matched
)

// Storable returns "" when the response may be stored and later be served to any client (RFC 9111 §3), else why not.
func Storable(x *Exchange, c Config) Verdict {
	if v := understood(x); v != VerdictStore {
		return v
	}
	cc := x.directives()
	if v := permitted(x, cc); v != VerdictStore {
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
	if !explicit(x, cc) {
		return VerdictNoFreshness
	}
	if lifetime, age := fresh(x, cc); lifetime <= age {
		return VerdictStale
	}
	return VerdictStore
}

// understood judges whether the message is of a kind whose rules are known and whose end can be proven (RFC 9111 §3).
func understood(x *Exchange) Verdict {
	switch {
	case x.Method != http.MethodGet:
		return VerdictMethod
	case x.Status != http.StatusOK:
		return VerdictStatus
	case !x.Framed: // RFC 9112 §8: the end of a connection does not prove a message complete
		return VerdictUnframed
	}
	return VerdictStore
}

// whole judges whether the message is one answer for all time: not a part, not a stream, not the request itself.
func whole(x *Exchange) Verdict {
	switch {
	case x.asked("Range"), has(x.Response, "Content-Range"):
		return VerdictRange
	case hasType(x.Response, "text/event-stream"):
		return VerdictEventStream
	case hasType(x.Response, "message/http"), hasType(x.Response, "application/http"): // RFC 9112 §10
		return VerdictEcho
	}
	return VerdictStore
}

// permitted judges the directives of both sides. must-understand lifts no-store from a status that is understood (RFC 9111 §5.2.2.3).
func permitted(x *Exchange, cc *ResponseControl) Verdict {
	switch {
	case cc.Malformed:
		return VerdictMalformed
	case cc.NoStore && !cc.MustUnderstand: // RFC 9111 §5.2.2.5
		return VerdictNoStore
	case cc.Private: // RFC 9111 §5.2.2.7
		return VerdictPrivate
	case cc.NoCache: // RFC 9111 §5.2.2.4
		return VerdictNoCache
	case ParseRequest(x.Request).NoStore: // RFC 9111 §5.2.1.5
		return VerdictRequestNoStore
	}
	return VerdictStore
}

// impersonal judges whether the response may be for more than the client that asked.
func impersonal(x *Exchange, cc *ResponseControl, c Config) Verdict {
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

// selectable judges whether a later request can be told to select this response or not (RFC 9111 §4.1). It cannot where the upstream chose by
// a value that it had not from the client, or without one that the client had kept from it: other requests will not show it.
func selectable(x *Exchange, c Config) bool {
	names, ok := ParseVary(x.Response)
	if !ok || c.MaxVary > 0 && len(names) > c.MaxVary {
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
	return true
}

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
