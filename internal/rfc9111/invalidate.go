package rfc9111

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Invalidates reports whether a response with this status to a request with this method makes the stored responses of its target invalid:
// a non-error status to an unsafe method, or to one whose safety is unknown (RFC 9111 §4.4).
func Invalidates(method string, status int) bool {
	return status >= 200 && status <= 399 && !safe(method)
}

// Replaces reports whether a response to GET with this status, which is not stored, makes untrue what is (RFC 9111 §4.3.3): it says what the resource
// is by now. A 304 says what the client has.
func Replaces(status int) bool {
	return status < 400 && status != http.StatusNotModified || status == http.StatusNotFound || status == http.StatusGone
}

// safe reports whether a method is known to change nothing (RFC 9110 §9.2.1): those of RFC 9110, and those that IANA's registry says it of, but for
// PRI, which no request has. Methods are case-sensitive.
func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, "PROPFIND", "QUERY", "REPORT", "SEARCH":
		return true
	}
	return false
}

// Invalidated returns the URIs whose stored responses such a response makes invalid, none where Invalidates says so: the target URI first, then
// what Location and Content-Location name of the same origin (RFC 9111 §4.4), resolved, each once and without fragment. target is the target URI
// of the request (RFC 9110 §7.1), absolute; it is not changed, and not copied.
func Invalidated(method string, status int, target *url.URL, response http.Header) []*url.URL {
	if !Invalidates(method, status) {
		return nil
	}
	uris := []*url.URL{target}
	for _, name := range []string{"Location", "Content-Location"} {
		for _, line := range response[name] {
			u := resolve(target, line)
			if u == nil || !sameOrigin(u, target) || slices.ContainsFunc(uris, func(v *url.URL) bool { return sameResource(u, v) }) {
				continue
			}
			if uris = append(uris, u); len(uris) == maxInvalidated {
				return uris
			}
		}
	}
	return uris
}

// maxInvalidated bounds what one response makes invalid. One with more lines than the two that it may have says nothing that must be believed.
const maxInvalidated = 8

// resolve returns the URI that a reference means beside target (RFC 3986 §5.2), or nil.
func resolve(target *url.URL, reference string) *url.URL {
	u, err := url.Parse(strings.Trim(reference, " \t"))
	if err != nil || u.User != nil {
		return nil
	}
	u = target.ResolveReference(u)
	if u.Opaque != "" {
		return nil
	}
	u.Fragment, u.RawFragment = "", ""
	return u
}

// sameOrigin compares scheme, host and port (RFC 9110 §4.3.1).
func sameOrigin(a, b *url.URL) bool {
	return a.Host != "" && strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	switch p := u.Port(); {
	case p != "":
		return p
	case strings.EqualFold(u.Scheme, "https"):
		return "443"
	default:
		return "80"
	}
}

// sameResource compares what of two URIs of one origin goes into a key. An empty path is "/" (RFC 9110 §4.2.3).
func sameResource(a, b *url.URL) bool {
	return path(a) == path(b) && a.RawQuery == b.RawQuery && a.ForceQuery == b.ForceQuery
}

func path(u *url.URL) string {
	if p := u.EscapedPath(); p != "" {
		return p
	}
	return "/"
}
