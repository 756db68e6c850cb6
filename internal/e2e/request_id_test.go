package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// What the gateway answers by itself has the request's id, with a log and without,
// also of a request for no service, whose header is the default's.
func TestRefusalsHaveTheRequestsID(t *testing.T) {
	const made = "^[0-9a-f]{32}$"
	service := func(opts ...gateway.ServiceOption) gateway.Option { return gateway.WithService("a", target, opts...) }
	for name, tt := range map[string]struct {
		opts            []gateway.Option
		nowhere, refuse string // the header of either; empty: none
	}{
		"default":             {[]gateway.Option{service()}, "X-Request-Id", "X-Request-Id"},
		"of another name":     {[]gateway.Option{gateway.WithRequestID("X-Trace"), service()}, "X-Trace", "X-Trace"},
		"a service's own":     {[]gateway.Option{service(gateway.WithRequestID("X-Own"))}, "X-Request-Id", "X-Own"},
		"none":                {[]gateway.Option{gateway.WithoutRequestID(), service()}, "", ""},
		"only of the service": {[]gateway.Option{gateway.WithoutRequestID(), service(gateway.WithRequestID("X-Own"))}, "", "X-Own"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, logged := range []bool{false, true} {
				var gw *gateway.Gateway
				o := newObserved(t)
				if !logged {
					o.opts = o.opts[:2]
				}
				gw = o.gateway(tt.opts...)
				for _, ask := range []struct {
					raw, header string
					status      int
				}{
					{testnet.Get("/nowhere/x", "Accept: */*"), tt.nowhere, 404},
					{testnet.Build("TRACE", "/a/x", ""), tt.refuse, 405},
					{testnet.Build("TRACE", "/nowhere/x", ""), tt.nowhere, 405},
					{testnet.Get("/a/%2e%2e/x"), tt.refuse, 400},
				} {
					got := handle(t, gw, ask.raw, nil)
					assert.Equal(t, ask.status, got.status)
					for _, header := range []string{"X-Request-Id", "X-Trace", "X-Own"} {
						if header != ask.header {
							assert.Empty(t, got.header.Get(header))
						}
					}
					if ask.header == "" {
						continue
					}
					assert.Regexp(t, made, got.header.Get(ask.header))
					if logged {
						lines := o.logs.Find(t, "gateway: request")
						assert.Equal(t, got.header.Get(ask.header), lines[len(lines)-1]["gateway.request.id"])
					}
				}
				if tt.nowhere != "" {
					assert.Equal(t, "mine", handle(t, gw, testnet.Get("/nowhere/x", tt.nowhere+": mine"), nil).header.Get(tt.nowhere))
					assert.Regexp(t, made, handle(t, gw, testnet.Get("/nowhere/x", tt.nowhere+": {not one}"), nil).header.Get(tt.nowhere))
				}
			}
		})
	}
}
