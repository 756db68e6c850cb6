package rfc9111

import (
	"strconv"
	"time"
)

// Forward says why a request went forward (RFC 9211 §2.2). The zero value means that it did not.
type Forward string

// The reasons to go forward.
const (
	ForwardBypass   Forward = "bypass"    // the cache was told not to handle the request
	ForwardMethod   Forward = "method"    // the method's semantics demand it
	ForwardURIMiss  Forward = "uri-miss"  // nothing is stored for the URI
	ForwardVaryMiss Forward = "vary-miss" // nothing that is stored for the URI is selected by the request
	ForwardMiss     Forward = "miss"      // nothing is stored, whichever of the two
	ForwardRequest  Forward = "request"   // a fresh response is stored, but the request does not take it
	ForwardStale    Forward = "stale"     // a response is stored, but stale
	ForwardPartial  Forward = "partial"   // a part is stored, but not all that the request asks for
)

// Status is what a cache did with a request (RFC 9211 §2). The zero value says nothing.
type Status struct {
	Hit   bool // the answer came from the store; not said beside Forward
	Timed bool // TTL counts
	TTL   time.Duration
	Key   string // "" is not said
	Miss
}

// Miss is what a cache says of a request that went forward, and of what became of the answer.
type Miss struct {
	Forward       Forward // why it went forward
	ForwardStatus int     // what the next hop answered; 0 is not said, nor is anything without Forward
	Detail        string  // "" is not said
	Stored        bool    // the answer was stored; not said without Forward
	Collapsed     bool    // the request was answered by the forward of another; not said without Forward
	Unsent        bool    // it would have gone forward for that reason, and has not: nothing of that is said
}

// maxStatusText is how much of a text of others is shown.
const maxStatusText = 512

// AppendStatus appends the Cache-Status member of the cache with that name and returns the extended slice. Each parameter has its type; names and
// details are Tokens where they can be, else Strings, whose bytes beyond printable ASCII are percent-encoded. Texts end after 512 bytes. It
// allocates only to extend dst.
func AppendStatus(dst []byte, cache string, s *Status) []byte {
	dst = appendWord(dst, cache)
	switch {
	case s.Unsent: // §2.2: fwd is of what went
	case s.Forward != "":
		dst = append(append(dst, "; fwd="...), s.Forward...)
		if s.ForwardStatus != 0 {
			dst = strconv.AppendInt(append(dst, "; fwd-status="...), int64(s.ForwardStatus), 10)
		}
		if s.Stored {
			dst = append(dst, "; stored"...)
		}
		if s.Collapsed {
			dst = append(dst, "; collapsed"...)
		}
	case s.Hit:
		dst = append(dst, "; hit"...)
	}
	if s.Timed {
		dst = strconv.AppendInt(append(dst, "; ttl="...), floorSeconds(s.TTL), 10)
	}
	if s.Key != "" {
		dst = appendText(append(dst, "; key="...), s.Key)
	}
	if s.Detail != "" {
		dst = appendWord(append(dst, "; detail="...), s.Detail)
	}
	return dst
}

// floorSeconds rounds down: what has a moment left has none, what is late by a moment is late.
func floorSeconds(d time.Duration) int64 {
	seconds := int64(d / time.Second)
	if d%time.Second < 0 {
		seconds--
	}
	return seconds
}

// appendWord appends a Token (RFC 9651 §4.1.7) or, of what is none, a String.
func appendWord(dst []byte, s string) []byte {
	if !isToken(s) {
		return appendText(dst, s)
	}
	return append(dst, s...)
}

func isToken(s string) bool {
	if s == "" || len(s) > maxStatusText || s[0] != '*' && !isAlpha(s[0]) {
		return false
	}
	for i := range len(s) {
		if !isTchar(s[i]) && s[i] != ':' && s[i] != '/' {
			return false
		}
	}
	return true
}

// appendText appends a String (RFC 9651 §4.1.6).
func appendText(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	dst = append(dst, '"')
	for i := range min(len(s), maxStatusText) {
		switch c := s[i]; {
		case c < ' ' || c > '~':
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
