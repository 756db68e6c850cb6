package rfc9111

import "net/http"

// Invalidates reports whether a response with this status to a request with this method makes the stored responses of its target invalid:
// a non-error status to an unsafe method, or to one whose safety is unknown (RFC 9111 §4.4).
func Invalidates(method string, status int) bool {
	if status < 200 || status > 399 {
		return false
	}
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace: // RFC 9110 §9.2.1
		return false
	}
	return true
}
