package forward

import (
	"net/http"
	"strings"
)

// IsGRPC reports whether a request with this header is one of gRPC, whose client reads an error from Grpc-Status alone.
func IsGRPC(h http.Header) bool {
	const name = "application/grpc"
	kind := single(h["Content-Type"])
	return len(kind) >= len(name) && strings.EqualFold(kind[:len(name)], name) && (len(kind) == len(name) || strings.IndexByte("+; \t", kind[len(name)]) >= 0)
}

// GRPCStatus returns the status code of gRPC that says what an HTTP status of our own does. Those that a client may
// take for a reason to send its request again are for what was not carried out.
func GRPCStatus(status int) string {
	switch status {
	case http.StatusBadRequest, http.StatusInternalServerError:
		return "13" // INTERNAL
	case http.StatusUnauthorized:
		return "16" // UNAUTHENTICATED
	case http.StatusForbidden:
		return "7" // PERMISSION_DENIED
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return "12" // UNIMPLEMENTED
	case http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge:
		return "8" // RESOURCE_EXHAUSTED
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return "4" // DEADLINE_EXCEEDED
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable:
		return "14" // UNAVAILABLE
	}
	return "2" // UNKNOWN
}
