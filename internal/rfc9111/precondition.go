package rfc9111

import (
	"net/http"
	"net/textproto"
	"strings"
	"time"
)

// ForOrigin reports whether the request has a precondition that only an origin server may judge (RFC 9111 §4.3.2): it passes the cache by.
func ForOrigin(request http.Header) bool {
	return has(request, "If-Match") || has(request, "If-Unmodified-Since")
}

// NotModified reports whether the stored response, which could answer the request, is answered by a 304 instead: the client has it (RFC 9111
// §4.3.2, RFC 9110 §13.2.2). It is to be asked before Ranges. now decides the century of a two-digit year. It does not allocate unless a date
// has an obsolete form.
func NotModified(method string, request http.Header, status int, stored *Validators, now time.Time) bool {
	switch {
	case method != http.MethodGet && method != http.MethodHead:
		return false
	case status != http.StatusOK && status != http.StatusPartialContent: // RFC 9111 §4.3.2
		return false
	case ForOrigin(request):
		return false
	case has(request, "If-None-Match"):
		return matches(request["If-None-Match"], stored.ETag)
	case has(request, "If-Modified-Since"): // RFC 9110 §13.1.3: ignored beside If-None-Match
		return !modifiedSince(request["If-Modified-Since"], stored, now)
	}
	return false
}

// matches reports whether If-None-Match is "*" or names the entity tag, by the weak comparison (RFC 9110 §13.1.2, §8.8.3.2). A list that breaks
// the grammar, wherever it does, names none.
func matches(lines []string, tag string) bool {
	if len(lines) == 1 && textproto.TrimString(lines[0]) == "*" {
		return true
	}
	found := false
	for _, line := range lines {
		for rest := skipEmpty(line); rest != ""; rest = skipEmpty(rest) {
			member, after, ok := entityTag(rest)
			if rest = skipSpace(after); !ok || rest != "" && rest[0] != ',' {
				return false
			}
			found = found || opaque(member) == opaque(tag)
		}
	}
	return found
}

// modifiedSince judges If-Modified-Since. Without a Last-Modified, Date stands for it (RFC 9111 §4.3.2).
func modifiedSince(lines []string, stored *Validators, now time.Time) bool {
	if len(lines) != 1 { // RFC 9110 §13.1.3
		return true
	}
	since, ok := ParseDate(lines[0], now)
	if !ok {
		return true
	}
	modified := stored.Modified
	if stored.LastModified == "" {
		modified = stored.Date
	}
	return modified.After(since)
}

// InNotModified reports whether a field of the stored response is sent in a 304 made of it (RFC 9110 §15.4.5). What describes the content is not,
// but for what identifies it: etag says whether it has an entity tag, else Last-Modified does that.
func InNotModified(name string, etag bool) bool {
	if name == "Last-Modified" {
		return !etag
	}
	return !describes(name)
}

// describes reports whether the field is about a representation (RFC 9110 §8, §14) without being required in a 206 and a 304 (§15.3.7, §15.4.5).
func describes(name string) bool {
	switch name {
	case "Accept-Ranges", "Digest", "Last-Modified", "Repr-Digest":
		return true
	case "Content-Location", "Content-Security-Policy", "Content-Security-Policy-Report-Only":
		return false
	}
	return strings.HasPrefix(name, "Content-")
}
