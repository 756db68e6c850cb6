// Package forward holds what a gateway must get right about a message that it passes on: which targets it takes, which
// fields cross in each direction, how bodies stream, and how an upgraded connection is tunnelled.
//
// Everything here is safe for concurrent use unless its comment says otherwise. A request that came in is only read.
package forward

import (
	"bytes"
	"errors"
	"net/url"
	"strings"
)

// Why Judge refuses a target. Each is the client's fault: 400.
var (
	ErrTargetForm = errors.New("request target is neither a path nor an http URL")
	ErrUserinfo   = errors.New("request target has userinfo")
	ErrDotSegment = errors.New("request path has a dot segment")
	ErrNUL        = errors.New("request path has a NUL")
	ErrBackslash  = errors.New("request path has a backslash")
	ErrFragment   = errors.New("request target has a fragment")
)

// Judge returns the escaped path and the query of a server request's URL, of which net/http's StripPrefix may have taken
// the beginning, or the reason to refuse it. Route, cache key and upstream target must all come from this one form.
//
// The path is what the client sent, byte for byte, but for bytes that may not stand in a path and come back as %XX; %2F stays
// %2F. The query is as sent too, with what is not visible ASCII as %XX; whether an empty one was there is u.ForceQuery.
func Judge(u *url.URL) (escaped, query string, err error) {
	if err := judgeForm(u); err != nil {
		return "", "", err
	}
	if escaped = u.Path; u.RawPath != "" || !plain(escaped) {
		escaped = escapedPath(u)
		if err := judgePath(escaped); err != nil {
			return "", "", err
		}
	}
	return escaped, encode(u.RawQuery, isVisible), nil
}

// Path returns the escaped path that Judge returns, unjudged: to find out whether the request is ours at all.
func Path(u *url.URL) string {
	if u.RawPath == "" && plain(u.Path) {
		return u.Path
	}
	return escapedPath(u)
}

// Target returns the escaped path and the query of a URL that an app's hook has made, in origin-form (RFC 9112 §3.2.1): the path begins with
// a slash, and what may not stand there is %XX.
func Target(u *url.URL) (escaped, query string) {
	return Join("", u.EscapedPath()), strings.ReplaceAll(encode(u.RawQuery, isVisible), "#", "%23")
}

func judgeForm(u *url.URL) error {
	switch {
	case u.User != nil:
		return ErrUserinfo // RFC 9110 §4.2.4
	case u.Opaque != "", u.Path == "*":
		return ErrTargetForm // RFC 9112 §3.2
	case u.Scheme != "" && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https"):
		return ErrTargetForm // RFC 9110 §4.2.1, §7.4
	case u.Fragment != "", strings.IndexByte(u.RawPath, '#') >= 0, strings.IndexByte(u.RawQuery, '#') >= 0:
		return ErrFragment // RFC 9112 §3.2: no form of a target has one
	}
	return nil
}

// plain reports whether a decoded path is its own escaped form and holds nothing to judge.
func plain(path string) bool {
	before := byte('/')
	for i := range len(path) {
		c := path[i]
		if class[c]&isPlain == 0 || c == '.' && before == '/' {
			return false
		}
		before = c
	}
	return true
}

// escapedPath is u.EscapedPath, except that one stray byte in the raw form does not cost the distinction of %2F from a slash.
func escapedPath(u *url.URL) string {
	if u.RawPath != "" {
		if path, err := url.PathUnescape(u.RawPath); err == nil && path == u.Path {
			return encode(u.RawPath, isPath)
		}
	}
	return u.EscapedPath()
}

// judgePath refuses what some server would read as another path. It judges the path decoded until nothing is left to decode, which
// is enough for every stage before: no decoding takes away a dot, a separator or a NUL that is there.
func judgePath(escaped string) error {
	var buf [256]byte
	decoded := buf[:0]
	for i := range len(escaped) {
		decoded = append(decoded, escaped[i])
		if c := escaped[i]; c|0x20 == 'c' && i >= 2 && escaped[i-1] == '5' && escaped[i-2] == '%' {
			return ErrBackslash
		}
		decoded = decodeTail(decoded)
	}
	if bytes.IndexByte(decoded, 0) >= 0 {
		return ErrNUL
	}
	if hasDotSegment(decoded) {
		return ErrDotSegment
	}
	return nil
}

// decodeTail decodes the percent-encoding that b ends with, and the one that this completes, and so on.
func decodeTail(b []byte) []byte {
	for n := len(b); n >= 3 && b[n-3] == '%'; n = len(b) {
		high, ok1 := unhex(b[n-2])
		low, ok2 := unhex(b[n-1])
		if !ok1 || !ok2 {
			break
		}
		b = b[:n-2]
		b[n-3] = high<<4 | low
	}
	return b
}

// hasDotSegment reports whether a segment of a path is "." or ".." (RFC 3986 §3.3), also in front of what some servers cut off:
// parameters, or a query or fragment that decoding brought to light.
func hasDotSegment(path []byte) bool {
	for more := true; more; {
		segment := path
		i := bytes.IndexAny(path, `/\`)
		if more = i >= 0; more {
			segment, path = path[:i], path[i+1:]
		}
		if i := bytes.IndexAny(segment, ";?#"); i >= 0 {
			segment = segment[:i]
		}
		if string(segment) == "." || string(segment) == ".." {
			return true
		}
	}
	return false
}

// Split cuts the first segment off an escaped path, with or without its leading slash: "/users/x/y" is "users" and "/x/y",
// "//x" is "" and "/x".
func Split(escaped string) (segment, rest string) {
	escaped = strings.TrimPrefix(escaped, "/")
	if i := strings.IndexByte(escaped, '/'); i >= 0 {
		return escaped[:i], escaped[i:]
	}
	return escaped, ""
}

// Join puts rest under base, both escaped, with one slash between them; the slashes of rest are data: "/base" and "//x" are
// "/base//x".
func Join(base, rest string) string {
	if rest == "" {
		if base == "" {
			return "/"
		}
		return base
	}
	base = strings.TrimSuffix(base, "/")
	if rest[0] != '/' {
		return base + "/" + rest
	}
	return base + rest
}

// Prefix returns what stood before rest in the escaped path of a request target: "/api/users/1?q" and "/1" are "/api/users".
// It is empty when nothing stood there, when rest is not the path's end, or when the prefix is none that a link could begin with.
func Prefix(requestURI, rest string) string {
	path, _, _ := strings.Cut(requestURI, "?")
	if !strings.HasPrefix(path, "/") { // absolute-form, RFC 9112 §3.2.2
		_, authority, _ := strings.Cut(path, "://")
		slash := strings.IndexByte(authority, '/')
		if slash < 0 {
			return ""
		}
		path = authority[slash:]
	}
	prefix, ok := strings.CutSuffix(encode(path, isPath), rest)
	if ok && rest != "" && rest[0] != '/' {
		prefix, ok = strings.CutSuffix(prefix, "/")
	}
	if !ok || !validPrefix(prefix) {
		return ""
	}
	return prefix
}

// validPrefix reports whether an upstream may put prefix before the paths of its links.
func validPrefix(prefix string) bool {
	const maxPrefixBytes = 1 << 10
	return len(prefix) > 1 && len(prefix) <= maxPrefixBytes && prefix[0] == '/' && prefix[1] != '/' &&
		(plain(prefix) || only(prefix, isPath) && judgePath(prefix) == nil)
}
