package forward

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxyErrorTypes is the registry (RFC 9209 §2.3).
var proxyErrorTypes = []string{
	"dns_timeout", "dns_error", "destination_not_found", "destination_unavailable", "destination_ip_prohibited", "destination_ip_unroutable",
	"connection_refused", "connection_terminated", "connection_timeout", "connection_read_timeout", "connection_write_timeout",
	"connection_limit_reached", "tls_protocol_error", "tls_certificate_error", "tls_alert_received", "http_request_error", "http_request_denied",
	"http_response_incomplete", "http_response_header_section_size", "http_response_header_size", "http_response_body_size",
	"http_response_trailer_section_size", "http_response_trailer_size", "http_response_transfer_coding", "http_response_content_coding",
	"http_response_timeout", "http_upgrade_failed", "http_protocol_error", "proxy_internal_response", "proxy_internal_error",
	"proxy_configuration_error", "proxy_loop_detected",
}

func TestProxyErrorsAreRegistered(t *testing.T) {
	t.Parallel()
	require.Len(t, proxyErrorTypes, 32)
	for reason, name := range proxyErrors {
		require.Contains(t, proxyErrorTypes, name, reason)
		require.Equal(t, name, (&Failure{Reason: reason}).Error(), "without a cause")
	}
}

type tooBig struct{}

func (tooBig) Error() string      { return "too big" }
func (tooBig) ProxyError() string { return "http_response_body_size" }

func TestProxyErrors(t *testing.T) {
	t.Parallel()
	dial := func(err error) error { return fmt.Errorf("dial: %w", &net.OpError{Op: "dial", Net: "tcp", Err: err}) }
	hello := func(err error) error { return fmt.Errorf("handshake: %w", err) }
	for _, tt := range []struct {
		want string
		f    Failure
	}{
		{"dns_error", Failure{Reason: "connect_failed", Dialing: true, Cause: dial(&net.DNSError{IsNotFound: true})}},                                             // §2.3.2
		{"dns_timeout", Failure{Reason: "connect_failed", Dialing: true, Cause: dial(&net.DNSError{IsTimeout: true})}},                                            // §2.3.1
		{"dns_timeout", Failure{Reason: "timeout", Dialing: true, Cause: dial(&net.DNSError{})}},                                                                  // §2.3.1
		{"destination_unavailable", Failure{Reason: "connect_failed", Dialing: true, Cause: dial(syscall.ENOENT)}},                                                // §2.3.4
		{"destination_unavailable", Failure{Reason: "connect_failed"}},                                                                                            // §2.3.4
		{"destination_ip_unroutable", Failure{Reason: "connect_failed", Dialing: true, Cause: dial(syscall.EHOSTUNREACH)}},                                        // §2.3.6
		{"destination_ip_unroutable", Failure{Reason: "connect_failed", Dialing: true, Cause: dial(syscall.ENETUNREACH)}},                                         // §2.3.6
		{"connection_refused", Failure{Reason: "connect_failed", Dialing: true, Cause: dial(syscall.ECONNREFUSED)}},                                               // §2.3.7
		{"connection_terminated", Failure{Reason: "connect_failed", Dialing: true, Cause: dial(syscall.ECONNRESET)}},                                              // §2.3.8
		{"connection_timeout", Failure{Reason: "timeout", Dialing: true, Cause: dial(errors.New("slow"))}},                                                        // §2.3.9
		{"connection_timeout", Failure{Reason: "connect_failed", Dialing: true, Cause: dial(syscall.ETIMEDOUT)}},                                                  // §2.3.9
		{"connection_timeout", Failure{Reason: "timeout", Dialing: true, Handshake: true, Cause: hello(errors.New("slow"))}},                                      // §2.3.9
		{"connection_read_timeout", Failure{Reason: "timeout", Idle: true}},                                                                                       // §2.3.10
		{"tls_protocol_error", Failure{Reason: "connect_failed", Dialing: true, Handshake: true, Cause: hello(io.EOF)}},                                           // §2.3.13
		{"tls_protocol_error", Failure{Reason: "connect_failed", Dialing: true, Handshake: true, Cause: hello(tls.RecordHeaderError{})}},                          // §2.3.13
		{"tls_certificate_error", Failure{Reason: "connect_failed", Handshake: true, Cause: hello(&tls.CertificateVerificationError{Err: x509.HostnameError{}})}}, // §2.3.14
		{"tls_alert_received", Failure{Reason: "connect_failed", Handshake: true, Cause: hello(&net.OpError{Op: "remote error", Err: io.EOF})}},                   // §2.3.15
		{"tls_alert_received", Failure{Reason: "upstream_failed", Cause: fmt.Errorf("x: %w", &net.OpError{Op: "remote error", Err: tls.AlertError(116)})}},        // §2.3.15
		{"connection_terminated", Failure{Reason: "upstream_failed", Cause: &net.OpError{Op: "read", Err: syscall.ECONNRESET}}},                                   // §2.3.8
		{"http_response_body_size", Failure{Reason: "bad_response", Cause: fmt.Errorf("x: %w", tooBig{})}},                                                        // §2.3.21
		{"http_response_timeout", Failure{Reason: "timeout", Cause: io.EOF}},                                                                                      // §2.3.26
		{"http_protocol_error", Failure{Reason: "bad_response", Cause: io.EOF}},                                                                                   // §2.3.28
		{"proxy_internal_error", Failure{Reason: "of another kind"}},                                                                                              // §2.3.30
	} {
		require.Contains(t, proxyErrorTypes, tt.want)
		require.Equal(t, tt.want, tt.f.Error(), "%+v", tt.f)
	}
}

func TestProxyStatus(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		want string
		f    Failure
	}{
		{`gateway; error=destination_not_found; details="unknown_service"`, Failure{Reason: "unknown_service"}},
		{`gateway; error=destination_unavailable; next-hop=users; details="breaker_open"`, Failure{Reason: "breaker_open", NextHop: "users"}},
		{`gateway; error=proxy_internal_error; next-hop=a; received-status=200; details="hook_failed"`, Failure{Reason: "hook_failed", NextHop: "a", Received: 200}},
		{`gateway; error=http_protocol_error; next-hop=A.b-c_d~1; details="bad_response"`, Failure{Reason: "bad_response", NextHop: "A.b-c_d~1", Received: 999}},
		{`gateway; error=http_protocol_error; next-hop="1a"; details="bad_response"`, Failure{Reason: "bad_response", NextHop: "1a", Received: 99}},
		{`gateway; error=http_protocol_error; next-hop="~a"; details="bad_response"`, Failure{Reason: "bad_response", NextHop: "~a", Cause: errors.New("never shown")}},
		{`gateway; error=proxy_internal_error`, Failure{Reason: `a text "from elsewhere`}},
	} {
		require.Equal(t, tt.want, tt.f.ProxyStatus("gateway"))
	}
}
