package forward

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestForbiddenTrailer(t *testing.T) {
	for _, name := range []string{
		"Transfer-Encoding", "Content-Length", "Trailer", "Connection", "Host", "TE", "Upgrade", // framing, routing
		"Authorization", "Cookie", "Set-Cookie", "WWW-Authenticate", "Proxy-Authorization", "Proxy-Authenticate", "Authentication-Info", "X-Auth-Token",
		"Cache-Control", "Expect", "Max-Forwards", "Pragma", "Range", "If-Match", "If-None-Match", "If-Range", // request modifiers
		"Age", "Date", "Expires", "Location", "Retry-After", "Vary", "Warning", // response control
		"Content-Encoding", "Content-Type", "Content-Range", // content
		"X-Forwarded-For", "X-Forwarded-Anything", "Forwarded", "X-Real-Ip", "Via", "Proxy", "Keep-Alive", "X-Http-Method-Override", "X-Original-Url", "Baggage",
		"authorization", "AUTHORIZATION", "Authorization_", "X_Forwarded_For", "content_length", "X.Real.Ip", "if_match",
		"", "a b", "a:", "a\r\n", "\xff", "Authorization ",
	} {
		require.True(t, ForbiddenTrailer(name), name)
	}
	for _, name := range []string{"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin", "Server-Timing", "Content-Digest", "Etag", "X-Checksum", "X_Checksum", "Expires-When"} {
		require.False(t, ForbiddenTrailer(name), name)
	}
}

func TestTrailers(t *testing.T) {
	require.Nil(t, Trailers(nil))
	require.Nil(t, Trailers(http.Header{"Authorization": {"x"}, "Content-Length": {"5"}}))
	sent := http.Header{"Grpc-Status": {"0"}, "X-Declared": nil, "Authorization": {"x"}, "X-Bad": {"ok", "a\r\nb"}, "X-Api-Key": {"theirs"}, "X_api_key": {"theirs"}}
	before := sent.Clone()
	want := http.Header{"Grpc-Status": {"0"}, "X-Declared": nil, "X-Bad": {"ok", "a  b"}}
	require.Equal(t, want, NewRequestRules(config()).Trailers(sent))
	want["X-Api-Key"], want["X_api_key"] = []string{"theirs"}, []string{"theirs"}
	require.Equal(t, want, Trailers(sent))
	require.Equal(t, before, sent)
}

func TestWithholds(t *testing.T) {
	h := http.Header{"X-Tenant": {"1"}, "Te": {"trailers"}, "Keep-Alive": {"timeout=5"}, "Upgrade": {"h2c"}, "Http2-Settings": {"AAMAAABk"}, "X-Forwarded-For": {"192.0.2.1"}}
	for _, connection := range [][]string{nil, {""}, {"close"}, {"keep-alive, TE, Upgrade, HTTP2-Settings"}, {"X-Forwarded-For"}, {"X-Other", "Tenant"}} {
		h["Connection"] = connection
		require.False(t, Withholds(h), connection)
	}
	for _, connection := range [][]string{{"X-Tenant"}, {"close, x-tenant"}, {"close", ",, X-TENANT ,"}} {
		h["Connection"] = connection
		require.True(t, Withholds(h), connection)
	}
}

func TestIsToken(t *testing.T) {
	for _, name := range []string{"X-Api-Key", "a", "!#$%&'*+-.^_`|~9"} {
		require.True(t, IsToken(name), name)
	}
	for _, name := range []string{"", "a b", "a:", "a\r\n", "\xff", "ü", "(a)"} {
		require.False(t, IsToken(name), "%q", name)
	}
}

func TestManaged(t *testing.T) {
	for _, name := range []string{"Connection", "te", "Transfer-Encoding", "content-length", "HOST", "Trailer", "Upgrade", "Keep-Alive", "Proxy-Authorization", "Expect", "Via",
		"X-Forwarded-For", "Forwarded", "X-Real-IP", "Content_Length", "X-HTTP-Method-Override"} {
		require.True(t, Managed(name), name)
	}
	for _, name := range []string{"", "Authorization", "X-Api-Key", "Cookie", "Content-Type", "User-Agent", "X-Client-Ip", "Baggage"} {
		require.False(t, Managed(name), name)
	}
}
