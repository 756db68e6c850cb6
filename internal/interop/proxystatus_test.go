package interop_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/dunglas/httpsfv"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// proxyStatus is one member of Proxy-Status (RFC 9209 §2).
type proxyStatus struct {
	name, err, nextHop, details string
	received                    int64
}

// parseProxyStatus reads the field with a parser of Structured Fields (RFC 9651).
func parseProxyStatus(t *testing.T, lines []string) (all []proxyStatus) {
	list, err := httpsfv.UnmarshalList(lines)
	require.NoError(t, err, "%q", lines)
	for _, m := range list {
		item, ok := m.(httpsfv.Item)
		require.True(t, ok, "%q has an inner list", lines)
		s := proxyStatus{name: text(t, item.Value)}
		for _, name := range item.Params.Names() {
			value, _ := item.Params.Get(name)
			switch name {
			case "error": // a Token (§2.1.1)
				var token httpsfv.Token
				token, ok = value.(httpsfv.Token)
				s.err = string(token)
			case "next-hop": // a String or a Token (§2.1.2)
				s.nextHop = text(t, value)
			case "received-status": // an Integer (§2.1.4)
				s.received, ok = value.(int64)
			case "details": // a String (§2.1.5)
				s.details, ok = value.(string)
			default:
				require.Fail(t, "unknown parameter", "%q in %q", name, lines)
			}
			require.True(t, ok, "%s of %q has another type", name, lines)
		}
		all = append(all, s)
	}
	return all
}

func TestProxyStatusIsAStructuredField(t *testing.T) {
	t.Parallel()
	up := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	refused := "http://" + testnet.Refused(t)
	inner := serve(t, newGateway(t, gateway.WithoutRetries(), gateway.WithService("gone", refused)))
	gw := newGateway(t, gateway.WithoutRetries(),
		gateway.WithService("users", up.URL, gateway.WithModifyResponse(func(*http.Response) error { return io.EOF })),
		gateway.WithService("1st.~_-", refused), gateway.WithService("inner", inner.URL),
	)
	front := serve(t, gw)
	for path, want := range map[string][]proxyStatus{
		"/nobody/x":     {{"gateway", "destination_not_found", "", "unknown_service", 0}},
		"/users/x":      {{"gateway", "proxy_internal_error", "users", "hook_failed", 200}},
		"/1st.~_-/x":    {{"gateway", "connection_refused", "1st.~_-", "connect_failed", 0}},
		"/inner/gone/x": {{"gateway", "connection_refused", "gone", "connect_failed", 0}}, // which the outer one forwards
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL+path, http.NoBody)
		require.NoError(t, err)
		resp, err := front.Client().Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, want, parseProxyStatus(t, resp.Header["Proxy-Status"]), path)
	}
}
