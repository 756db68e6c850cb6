package forward

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseUpstream(t *testing.T) {
	const (
		scheme   = "the scheme is none of http, https and unix"
		socket   = "not unix:/// and the path of a socket"
		host     = "the URL has no host"
		userinfo = "userinfo in the URL; use WithBearerToken or WithHeader"
		query    = "the URL has a query or fragment; WithRewrite can set a query"
		port     = "the port is not between 1 and 65535"
		path     = "the path has a dot segment, a backslash or a NUL"
		name     = "the host is neither a name nor an address (outside ASCII: in its xn-- form)"
		missing  = "http:// or https:// is missing in front of the host"
		noHost   = "http:// or https:// and a host are missing, or unix:// in front of the path of a socket"
		blank    = "not a URL: it has white space or control characters"
		brackets = "not a URL: an IPv6 address, and nothing else, stands in brackets"
		noPort   = "not a URL: its port is not a number"
		variable = "not a URL: its host has characters that none has, as a variable that was not replaced"
		percent  = "not a URL: it has a % without two hexadecimal digits"
	)
	for _, test := range []struct {
		target, shown string
		reasons       []string
	}{
		{"", "", []string{"the URL is empty"}},
		{"upstream.test", "upstream.test", []string{missing}},
		{"users:8000", "users:8000", []string{missing}},
		{"localhost:8000/base", "localhost:8000/base", []string{missing}},
		{"10.0.0.1:8000", "10.0.0.1:8000", []string{missing}},
		{"[::1]:8000", "[::1]:8000", []string{missing}},
		{"/run/app.sock", "/run/app.sock", []string{noHost}},
		{"/run/app.sock?secret", "", []string{noHost}},
		{"//user:secret@upstream.test", "", []string{noHost}},
		{"//upstream.test", "//upstream.test", []string{noHost}},
		{"users:secret@upstream.test:80", "users:", []string{scheme, host}},
		{"users:8000?secret", "users:", []string{scheme, host, query}},
		{"users:99999", "users:", []string{scheme, host}},
		{"ftp://upstream.test", "ftp://upstream.test", []string{scheme}},
		{"ws://upstream.test", "ws://upstream.test", []string{scheme + "; WebSocket begins with http or https"}},
		{"grpc://upstream.test", "grpc://upstream.test", []string{scheme + "; HTTP/2 and gRPC are http or https and WithHTTP2"}},
		{"http://", "http:", []string{host}},
		{"http:///x", "http:///x", []string{host}},
		{"http://:80", "http://:80", []string{host}},
		{"http://user:secret@upstream.test", "http://upstream.test", []string{userinfo}},
		{"http://secret@upstream.test", "http://upstream.test", []string{userinfo}},
		{"http://upstream.test?key=secret", "http://upstream.test", []string{query}},
		{"http://upstream.test?", "http://upstream.test", []string{query}},
		{"http://upstream.test#secret", "http://upstream.test", []string{query}},
		{"http://upstream.test#", "http://upstream.test", []string{query}},
		{"http://b\u00fccher.test", "http://b%C3%BCcher.test", []string{name}},
		{"http://a.test,b.test:80", "http://a.test,b.test:80", []string{name}},
		{"http://up<stream>.test", "http://up<stream>.test", []string{name}},
		{"http://[upstream.test]", "", []string{brackets}},
		{"http://::1:8000", "", []string{brackets}},
		{"http://user:secret@::1:8000", "", []string{brackets}},
		{"http://upstream.test:", "http://upstream.test:", []string{port}},
		{"http://upstream.test:0", "http://upstream.test:0", []string{port}},
		{"http://upstream.test:65536", "http://upstream.test:65536", []string{port}},
		{"http://upstream.test/../x", "http://upstream.test/../x", []string{path}},
		{"http://upstream.test/%2e%2e/x", "http://upstream.test/../x", []string{path}},
		{"ftp://user:secret@:0/../x?secret", "ftp://:0/../x", []string{userinfo, scheme, host, query, port, path}},
		{"http://user:secret@%zz", "", []string{percent}},
		{"http://upstream.test/%secret", "", []string{percent}},
		{"http://user:secret@${HOST}/", "", []string{variable}},
		{"http://se cret:x@upstream.test", "", []string{blank}},
		{"http://user:sec/ret@upstream.test", "", []string{noPort}},
		{":secret", "", []string{"not a URL"}},
		{"http://upstream.test:secret", "", []string{noPort}},
		{"http://up\nstream.test", "", []string{blank}},
		{" http://upstream.test", "", []string{blank}},
		{"unix:", "unix:", []string{socket}},
		{"unix://", "unix:", []string{socket}},
		{"unix:///", "unix:///", []string{socket}},
		{"unix:///run/", "unix:///run/", []string{socket}},
		{"unix:run/app.sock", "unix:", []string{socket}},
		{"unix://run/app.sock", "unix://run/app.sock", []string{socket}},
		{"unix://user:secret@/run/app.sock", "unix:///run/app.sock", []string{userinfo}},
		{"unix:///run/app.sock?secret", "unix:///run/app.sock", []string{query}},
		{"unix:///run/../app.sock", "unix:///run/../app.sock", []string{path}},
	} {
		_, shown, reasons := ParseUpstream(test.target)
		require.Equal(t, test.reasons, reasons, "%q", test.target)
		require.Equal(t, test.shown, shown, "%q", test.target)
		require.NotContains(t, shown+strings.Join(reasons, ""), "secret")
	}
	for _, target := range []string{"http://upstream.test", "HTTPS://upstream.test/", "http://[::1]:8080/base/path", "https://127.0.0.1:65535", "http://upstream.test/caf%C3%A9", "http://upstream.test//x", "unix:///run/app.sock"} {
		u, _, reasons := ParseUpstream(target)
		require.Empty(t, reasons, target)
		require.NotNil(t, u)
	}
}
