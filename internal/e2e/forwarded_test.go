package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// Forwarded (RFC 7239) is sent where it is asked for, and is nobody's but ours
// and a trusted peer's.
func TestForwarded(t *testing.T) {
	const host = "Host: app.example:8443"
	forwarded, trusting := gateway.WithForwarded(), gateway.WithTrustedProxies("127.0.0.0/8")
	for _, tt := range []struct {
		name   string
		opts   []gateway.ServiceOption
		fields []string
		want   []string
	}{
		{"not asked for", nil, []string{host}, nil},
		{"not even a trusted peer's", one(trusting), []string{host, "Forwarded: for=192.0.2.1"}, nil},
		{"asked for", one(forwarded), []string{host}, []string{`for=127.0.0.1;host="app.example:8443";proto=http;by=_gateway`}},
		{"dropped again", []gateway.ServiceOption{gateway.WithoutForwarded()}, []string{host}, nil},
		{"in place of the client's", one(forwarded), []string{"Host: h", "Forwarded: for=6.6.6.6", "Forwarded_: for=6.6.6.6"}, []string{"for=127.0.0.1;host=h;proto=http;by=_gateway"}},
		{"whatever it nominates", one(forwarded), []string{"Host: h", "Connection: Forwarded, close"}, []string{"for=127.0.0.1;host=h;proto=http;by=_gateway"}},
		{"behind a trusted peer's", []gateway.ServiceOption{forwarded, trusting}, []string{"Host: h", `Forwarded: for="[2001:db8::1]:80";proto=https`}, []string{`for="[2001:db8::1]:80";proto=https, for=127.0.0.1;host=h;proto=http;by=_gateway`}},
		{"from a trusted peer's X-Forwarded-For", []gateway.ServiceOption{forwarded, trusting}, []string{"Host: h", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https"}, []string{"for=192.0.2.1;host=h;proto=https, for=127.0.0.1;by=_gateway"}},
		{"a trusted peer's that is none", []gateway.ServiceOption{forwarded, trusting}, []string{"Host: h", `Forwarded: for="`}, []string{"for=127.0.0.1;host=h;proto=http;by=_gateway"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := setup{a: tt.opts}
			if tt.name == "dropped again" {
				s.defaults = []gateway.Option{forwarded}
			}
			r := newRig(t, s)
			require.Equal(t, 200, r.get("/a/x", tt.fields...).Status)
			sent := r.a.Await(1)[0]
			assert.Equal(t, tt.want, sent.Header["Forwarded"])
			assert.NotContains(t, sent.Head, "6.6.6.6")
			assert.Len(t, sent.Header["X-Forwarded-For"], 1, "beside the others")
		})
	}
}

// Over sockets there is a gateway behind a gateway.
func TestForwardedThroughTwo(t *testing.T) {
	up := testnet.Upstream(t, testnet.Reply(200, "", "ok"))
	inner := newRig(t, setup{up: up, a: []gateway.ServiceOption{gateway.WithForwarded(), gateway.WithTrustedProxies("127.0.0.1")}, noCache: true})
	outer := newRig(t, setup{second: true, up: testnet.Upstream(t, testnet.Reply(200, "", "ok")), noCache: true, defaults: []gateway.Option{
		gateway.WithService("inner", "http://"+inner.addr+"/a", gateway.WithForwarded()),
	}})
	require.Equal(t, 200, outer.get("/inner/x", "Host: app.example").Status)
	sent := up.Await(1)[0]
	assert.Equal(t, []string{`for=127.0.0.1;host=app.example;proto=http;by=_gateway, for=127.0.0.1;host="` + inner.addr + `";proto=http;by=_gateway`}, sent.Header["Forwarded"])
	outer.elsewhere, inner.elsewhere = 1, 1
}
