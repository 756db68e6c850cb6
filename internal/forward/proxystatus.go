package forward

import (
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"syscall"
)

// A Failure is why we answered a request by ourselves, for Proxy-Status (RFC 9209).
type Failure struct {
	Reason    string // one of proxyErrors, or another, which is an internal error; it is told in details
	Cause     error  // never shown; may be nil
	Dialing   bool   // Cause ended the attempt to connect
	Handshake bool   // and in TLS's handshake
	Idle      bool   // Cause is a content that stood still
	NextHop   string // the name of the service; empty: none was found
	Received  int    // the status that the next hop has answered with; 0: none
}

// proxyErrors are the proxy error types (RFC 9209 §2.3) of our reasons, where the cause does not say more.
var proxyErrors = map[string]string{
	"bad_request":            "http_request_error", // §2.3.16: a 4xx on the origin's behalf
	"client_body_error":      "http_request_error",
	"method_not_allowed":     "http_request_error",
	"body_too_large":         "http_request_error",
	"target_too_long":        "http_request_error",
	"rate_limited":           "http_request_error",
	"header_too_large":       "http_request_error",
	"unknown_service":        "destination_not_found", // §2.3.3: no next hop is configured
	"method_not_implemented": "http_request_denied",   // §2.3.17: policy, and nothing was forwarded
	"overloaded":             "http_request_denied",
	"panic":                  "proxy_internal_error",
	"token_unavailable":      "proxy_internal_error",
	"hook_failed":            "proxy_internal_error",
	"connect_failed":         "destination_unavailable",
	"upstream_failed":        "connection_terminated", // §2.3.8: before any part of a response
	"bad_response":           "http_protocol_error",
	"upstream_1xx_overflow":  "http_protocol_error",
	"truncated":              "http_response_incomplete",
	"breaker_open":           "destination_unavailable", // §2.3.4: recent attempts have failed
	"no_replica":             "destination_unavailable",
	"pool_exhausted":         "connection_limit_reached",
	"shutting_down":          "proxy_internal_response", // §2.3.29: without asking the next hop
	"timeout":                "http_response_timeout",
	"not_cached":             "proxy_internal_response",
	"shared_failure":         "proxy_internal_response",
	"loop_detected":          "proxy_loop_detected",
}

// proxyError is what errors about an answer are that know their own type.
type proxyError interface{ ProxyError() string }

// Error is the proxy error type (RFC 9209 §2.3).
func (f *Failure) Error() string {
	general, known := proxyErrors[f.Reason]
	if !known {
		return "proxy_internal_error"
	}
	var special proxyError
	switch {
	case f.Reason == "timeout" && f.Idle:
		return "connection_read_timeout"
	case f.Reason == "timeout" && f.Dialing, f.Reason == "connect_failed":
		return f.dialError(f.Reason == "timeout")
	case f.Reason == "upstream_failed" && alerted(f.Cause): // in TLS 1.3 a client's certificate is judged once it is through with the handshake
		return "tls_alert_received"
	case f.Reason == "bad_response" && errors.As(f.Cause, &special):
		return special.ProxyError()
	}
	return general
}

// dialError is why there is no connection (RFC 9209 §2.3.1 to §2.3.9, §2.3.13 to §2.3.15).
func (f *Failure) dialError(timeout bool) string {
	if dns, ok := errors.AsType[*net.DNSError](f.Cause); ok {
		if timeout || dns.IsTimeout {
			return "dns_timeout"
		}
		return "dns_error"
	}
	if timeout || errors.Is(f.Cause, syscall.ETIMEDOUT) {
		return "connection_timeout"
	}
	if f.Handshake {
		return f.handshakeError()
	}
	switch {
	case errors.Is(f.Cause, syscall.ECONNREFUSED):
		return "connection_refused"
	case errors.Is(f.Cause, syscall.ECONNRESET):
		return "connection_terminated"
	case errors.Is(f.Cause, syscall.EHOSTUNREACH), errors.Is(f.Cause, syscall.ENETUNREACH):
		return "destination_ip_unroutable"
	}
	return proxyErrors[f.Reason]
}

func (f *Failure) handshakeError() string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](f.Cause); ok {
		return "tls_certificate_error"
	}
	if alerted(f.Cause) {
		return "tls_alert_received"
	}
	return "tls_protocol_error"
}

// alerted reports whether an error is an alert of the other side's (RFC 9209 §2.3.15), as crypto/tls says it.
func alerted(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// ProxyStatus is the member of Proxy-Status (RFC 9209 §2) that an intermediary of that name adds to the answer to f. Of the next hop it tells
// the name and no address.
func (f *Failure) ProxyStatus(name string) string {
	b := append([]byte(name), "; error="...)
	b = append(b, f.Error()...)
	if f.NextHop != "" {
		b = appendName(append(b, "; next-hop="...), f.NextHop)
	}
	if 100 <= f.Received && f.Received <= 599 {
		b = append(b, "; received-status="...)
		b = strconv.AppendInt(b, int64(f.Received), 10)
	}
	if _, known := proxyErrors[f.Reason]; known {
		b = append(append(append(b, `; details="`...), f.Reason...), '"')
	}
	return string(b)
}

// appendName appends a name of token characters: a Token (RFC 9651 §3.3.4) where it begins with a letter, else a String (§3.3.3).
func appendName(b []byte, name string) []byte {
	if c := name[0] | 0x20; 'a' <= c && c <= 'z' {
		return append(b, name...)
	}
	return append(append(append(b, '"'), name...), '"')
}
