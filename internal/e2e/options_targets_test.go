package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// What is wrong with a target is told by the constructors; the rules are those of
// internal/forward.
func TestTargetFaults(t *testing.T) {
	const (
		userinfo = "userinfo in the URL; use WithBearerToken or WithHeader"
		scheme   = "the scheme is none of http, https and unix"
		port     = "the port is not between 1 and 65535"
	)
	for _, tt := range []struct {
		target, shown string
		reasons       []string
	}{
		{"", "", []string{"the URL is empty"}},
		{"users:8000", "users:8000", []string{"http:// or https:// is missing in front of the host"}},
		{"ftp://user:secret@upstream.test:0", "ftp://upstream.test:0", []string{userinfo, scheme, port}},
		{"http://upstream.test:secret", "", []string{"not a URL: its port is not a number"}},
	} {
		t.Run(tt.target, func(t *testing.T) {
			_, ofNew := gateway.New(gateway.WithService("a", tt.target))
			_, ofUpstream := gateway.NewUpstream("a", tt.target)
			for option, err := range map[string]error{"WithService": ofNew, "NewUpstream": ofUpstream} {
				faults := optionFaults(t, err)
				require.Len(t, faults, len(tt.reasons))
				for i, reason := range tt.reasons {
					assert.Equal(t, gateway.OptionError{Option: option, Service: "a", Value: tt.shown, Reason: reason}, *faults[i])
				}
				assert.NotContains(t, err.Error(), "secret")
			}
		})
	}
	for _, target := range []string{"http://upstream.test", "HTTPS://upstream.test/", "http://[::1]:8080/base/path", "https://127.0.0.1:65535", "http://upstream.test/caf%C3%A9", "http://upstream.test//x", "unix:///run/app.sock"} {
		_, err := gateway.New(gateway.WithService("a", target))
		assert.NoError(t, err, target)
	}
}

// A replica is judged as the target is, by the constructors and at run time.
// The zone of an address is for who dials it, and for nobody else (RFC 6874 §3).
func TestZonesStayHere(t *testing.T) {
	plain, secure := testnet.Upstream(t, testnet.Reply(200, "", "ok")), testnet.UpstreamTLS(t, testnet.Reply(200, "", "ok"))
	for _, up := range []*testnet.Up{plain, secure} {
		scheme, address, _ := strings.Cut(up.URL, "://")
		var dialed []string
		gw, err := gateway.New(gateway.WithService("a", scheme+"://[::1%25eth0]:8080", gateway.WithTLSConfig(&tls.Config{RootCAs: up.Pool, MinVersion: tls.VersionTLS12}),
			gateway.WithDialContext(func(ctx context.Context, network, to string) (net.Conn, error) {
				dialed = append(dialed, to)
				return new(net.Dialer).DialContext(ctx, network, address)
			})))
		require.NoError(t, err)
		assert.Equal(t, 200, handle(t, gw, testnet.Get("/a/x"), nil).status, "its certificate is for ::1")
		assert.Equal(t, []string{"[::1%eth0]:8080"}, dialed)
		assert.Equal(t, "[::1]:8080", field(up.Await(1)[0], "Host"))
		require.NoError(t, gw.Shutdown(context.WithoutCancel(t.Context())))
	}
}

func TestReplicaFaults(t *testing.T) {
	const base = "http://upstream.test/base"
	up, err := gateway.NewUpstream("a", base)
	require.NoError(t, err)
	for _, tt := range []struct {
		replica gateway.Replica
		shown   string
		reasons []string
	}{
		{gateway.Replica{}, "", []string{"the URL is empty"}},
		{gateway.Replica{URL: "http://%zz"}, "", []string{"not a URL: it has a % without two hexadecimal digits"}},
		{gateway.Replica{URL: "b.test:80"}, "b.test:80", []string{"http:// or https:// is missing in front of the host"}},
		{gateway.Replica{URL: "http://u:secret@b.test:0?secret"}, "http://b.test:0", []string{
			"userinfo in the URL; use WithBearerToken or WithHeader", "the URL has a query or fragment; WithRewrite can set a query", "the port is not between 1 and 65535",
		}},
		{gateway.Replica{URL: "http://b.test/../base"}, "http://b.test/../base", []string{"the path has a dot segment, a backslash or a NUL"}},
		{gateway.Replica{URL: "http://b.test/other"}, "http://b.test/other", []string{"the path is not the target's"}},
		{gateway.Replica{URL: "http://b.test/base/more"}, "http://b.test/base/more", []string{"the path is not the target's"}},
		{gateway.Replica{URL: "unix://b.test/b.sock"}, "unix://b.test/b.sock", []string{"not unix:/// and the path of a socket"}},
		{gateway.Replica{URL: "http://b.test", Weight: -1}, "-1", []string{"the weight is negative"}},
	} {
		t.Run(tt.replica.URL, func(t *testing.T) {
			with := gateway.WithReplicas(gateway.Replica{URL: "http://ok.test"}, tt.replica)
			_, ofNew := gateway.New(gateway.WithService("a", base, with))
			_, ofUpstream := gateway.NewUpstream("a", base, with)
			ofSet := up.SetReplicas(gateway.Replica{URL: "http://ok.test"}, tt.replica)
			for _, told := range []struct {
				option string
				err    error
			}{{"WithReplicas", ofNew}, {"WithReplicas", ofUpstream}, {"SetReplicas", ofSet}} {
				faults := optionFaults(t, told.err)
				require.Len(t, faults, len(tt.reasons))
				for i, reason := range tt.reasons {
					assert.Equal(t, gateway.OptionError{Option: told.option, Service: "a", Value: tt.shown, Reason: reason}, *faults[i])
				}
				assert.NotContains(t, told.err.Error(), "secret")
			}
		})
	}
	assert.Equal(t, gateway.OptionError{Option: "SetReplicas", Service: "a", Reason: "no replica is left"}, *optionFault(t, up.SetReplicas()))
	assert.Equal(t, []string{"upstream.test:80"}, replicasOf(up), "a fault changes nothing")
}

// What is wrong with replicas beside each other, and beside their target, is
// told by the constructors and at run time.
func TestReplicasMustFitTogether(t *testing.T) {
	const (
		weights = "is named twice, with different weights"
		inClear = "plain http beside an https target would send in clear what the target is sent encrypted"
	)
	for _, tt := range []struct {
		name, target string
		replicas     []gateway.Replica
		want         gateway.OptionError
	}{
		{"two weights", target, []gateway.Replica{{URL: "http://b.test"}, {URL: "http://b.test", Weight: 2}}, faultOf("", "http://b.test", weights)},
		{"two weights by two spellings", target, []gateway.Replica{{URL: "http://b.test", Weight: 3}, {URL: "HTTP://B.test:80/", Weight: 2}}, faultOf("", "http://B.test:80/", weights)},
		{"two weights of a socket", target, []gateway.Replica{{URL: "unix:///b", Weight: 3}, {URL: "unix:///b", Weight: 2}}, faultOf("", "unix:///b", weights)},
		{"plain http", "https://a.test", []gateway.Replica{{URL: "https://b.test"}, {URL: "http://c.test"}}, faultOf("", "http://c.test", inClear)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up, err := gateway.NewUpstream("a", tt.target)
			require.NoError(t, err)
			tt.want.Service = "a"
			tt.want.Option = "SetReplicas"
			assert.Equal(t, tt.want, *optionFault(t, up.SetReplicas(tt.replicas...)))
			tt.want.Option = "WithReplicas"
			_, err = gateway.NewUpstream("a", tt.target, gateway.WithReplicas(tt.replicas...))
			assert.Equal(t, tt.want, *optionFault(t, err))
		})
	}
	for _, tt := range []struct {
		target   string
		replicas []gateway.Replica
		want     int
	}{
		{target, []gateway.Replica{{URL: "http://b.test"}, {URL: "http://b.test", Weight: 1}, {URL: "http://B.test:80"}}, 2},
		{target, []gateway.Replica{{URL: "http://b.test"}, {URL: "https://b.test", Weight: 2}}, 3},
		{target, []gateway.Replica{{URL: target + ":80", Weight: 7}}, 1},
		{"https://a.test", []gateway.Replica{{URL: "https://b.test"}, {URL: "unix:///run/b.sock"}}, 3},
	} {
		up, err := gateway.NewUpstream("a", tt.target, gateway.WithReplicas(tt.replicas...))
		require.NoError(t, err)
		assert.Len(t, replicasOf(up), tt.want, "%v", tt.replicas)
	}
}

// A round tripper of the app's cannot be told of a socket.
func TestSocketsAndRoundTrippersDoNotMeet(t *testing.T) {
	const socket, reason = "unix:///run/a.sock", "a round tripper of your own cannot reach a socket"
	rt := gateway.WithTransport(roundTripper(func(*http.Request) (*http.Response, error) { return nil, net.ErrClosed }))
	beside := gateway.WithReplicas(gateway.Replica{URL: socket})
	of := gateway.OptionError{Option: "WithTransport", Service: "a", Value: socket, Reason: reason}
	_, err := gateway.NewUpstream("a", socket, rt)
	assert.Equal(t, of, *optionFault(t, err))
	_, err = gateway.New(gateway.WithService("a", socket, rt))
	assert.Equal(t, of, *optionFault(t, err))
	_, err = gateway.NewUpstream("a", target, rt, beside)
	assert.Equal(t, of, *optionFault(t, err))

	up, err := gateway.NewUpstream("a", target, rt)
	require.NoError(t, err)
	of.Option = "SetReplicas"
	assert.Equal(t, of, *optionFault(t, up.SetReplicas(gateway.Replica{URL: socket})))

	path := filepath.Join(t.TempDir(), "up.sock")
	serveSocket(t, path, "over the socket")
	gw, err := gateway.New(rt, gateway.WithService("a", "unix://"+path))
	require.NoError(t, err, "the target is the service's own, and wins")
	w := handle(t, gw, testnet.Get("/a/"), nil)
	assert.Equal(t, "over the socket", w.body.String())
	require.NoError(t, gw.Shutdown(t.Context()))
}

// serveSocket serves text at a socket.
func serveSocket(t testing.TB, path, text string) {
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, text) })}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
}

func replicasOf(up *gateway.Upstream) (addresses []string) {
	for _, r := range up.Stats().Replicas {
		addresses = append(addresses, r.Address)
	}
	return addresses
}

// The target is a replica like the others, of weight 1 unless it is named among
// them. A path may be left out; a socket has none.
func TestReplicasStandBesideTheTarget(t *testing.T) {
	for _, tt := range []struct {
		target string
		given  []gateway.Replica
		want   []string
	}{
		{"http://a.test/base", []gateway.Replica{{URL: "http://b.test"}, {URL: "http://c.test:8080/base/"}}, []string{"a.test:80", "b.test:80", "c.test:8080"}},
		{"https://a.test", []gateway.Replica{{URL: "https://b.test/"}, {URL: "https://[::1]:8443"}}, []string{"a.test:443", "b.test:443", "[::1]:8443"}},
		{"http://a.test", []gateway.Replica{{URL: "http://b.test"}, {URL: "http://a.test", Weight: 3}}, []string{"b.test:80", "a.test:80"}},
		{"unix:///run/a.sock", []gateway.Replica{{URL: "unix:///run/b.sock"}}, []string{"/run/a.sock", "/run/b.sock"}},
	} {
		up, err := gateway.NewUpstream("a", tt.target, gateway.WithReplicas(tt.given...))
		require.NoError(t, err, tt.target)
		assert.Equal(t, tt.want, replicasOf(up))
		require.NoError(t, up.SetReplicas(tt.given...))
		assert.Len(t, replicasOf(up), len(tt.given), "the target is there only if it is named")
	}
}

// pair is an upstream with two replicas.
type pair struct {
	*gateway.Upstream
	asked [2]atomic.Int64
	fails [2]atomic.Bool
}

func newPair(t *testing.T, opts ...gateway.UpstreamOption) *pair {
	p := &pair{}
	var urls [2]string
	for i := range urls {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			p.asked[i].Add(1)
			if p.fails[i].Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}))
		t.Cleanup(srv.Close)
		urls[i] = srv.URL
	}
	up, err := gateway.NewUpstream("a", urls[0], append(opts, gateway.WithReplicas(gateway.Replica{URL: urls[1]}))...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, up.Shutdown(context.WithoutCancel(t.Context()))) })
	p.Upstream = up
	return p
}

// ask returns how many replicas were asked for so many requests.
func (p *pair) ask(t *testing.T, times int, request func(n int) string) (replicas int) {
	before := [2]int64{p.asked[0].Load(), p.asked[1].Load()}
	for n := range times {
		assert.Equal(t, 200, handle(t, p, request(n), nil).status)
	}
	for i := range p.asked {
		if p.asked[i].Load() > before[i] {
			replicas++
		}
	}
	return replicas
}

// Equal requests go to one replica, and others to others. What has nothing to
// go by is spread.
func TestHashingKeepsTogetherWhatIsEqual(t *testing.T) {
	for name, tt := range map[string]struct {
		by    gateway.Balancing
		with  func(value int) string // what it goes by
		other func(n int) string     // what it does not go by
		none  string                 // the request that has it not; empty: each has it
	}{
		"a header": {
			by:    gateway.HashHeader("x-tenant"),
			with:  func(v int) string { return testnet.Get("/", fmt.Sprint("X-Tenant: ", v)) },
			other: func(n int) string { return testnet.Get(fmt.Sprint("/", n), "X-Tenant: red", "Cookie: tenant=x") },
			none:  testnet.Get("/"),
		},
		"a cookie": {
			by:    gateway.HashCookie("tenant"),
			with:  func(v int) string { return testnet.Get("/", fmt.Sprint("Cookie: a=b; tenant=", v)) },
			other: func(n int) string { return testnet.Get("/", fmt.Sprintf("Cookie: a=%d; tenant=red", n)) },
			none:  testnet.Get("/", "Cookie: a=b"),
		},
		"the path": {
			by:    gateway.HashPath(),
			with:  func(v int) string { return testnet.Get(fmt.Sprint("/", v)) },
			other: func(n int) string { return testnet.Get(fmt.Sprint("/red?", n)) },
		},
		"the client": {
			by:    gateway.HashClient(),
			with:  func(v int) string { return testnet.Get("/", fmt.Sprint("X-Forwarded-For: 198.51.100.", v)) },
			other: func(n int) string { return testnet.Get(fmt.Sprint("/", n), "X-Forwarded-For: 198.51.100.1") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, gateway.WithBalancing(tt.by), gateway.WithTrustedProxies("192.0.2.0/24"))
			assert.Equal(t, 1, p.ask(t, 16, tt.other), "equal requests")
			assert.Equal(t, 2, p.ask(t, 64, tt.with), "others")
			if tt.none != "" {
				assert.Equal(t, 2, p.ask(t, 64, func(int) string { return tt.none }), "without it")
			}
		})
	}
}

func TestRequestsAreShared(t *testing.T) {
	for name, by := range map[string]gateway.Balancing{"power of two": gateway.PowerOfTwo(), "round robin": gateway.RoundRobin(), "by default": {}} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, gateway.WithBalancing(by), gateway.WithSlowStart(time.Hour))
			assert.Equal(t, 2, p.ask(t, 64, func(int) string { return testnet.Get("/") }))
			for _, r := range p.Stats().Replicas {
				assert.Equal(t, 1.0, r.Weight, "who is there from the beginning joins nobody")
			}
		})
	}
}

// One that joins the others has a tenth of its weight at first.
func TestSlowStartIsForNewcomers(t *testing.T) {
	up, err := gateway.NewUpstream("a", target, gateway.WithSlowStart(time.Hour))
	require.NoError(t, err)
	require.NoError(t, up.SetReplicas(gateway.Replica{URL: target}, gateway.Replica{URL: "http://b.test", Weight: 10}))
	replicas := up.Stats().Replicas
	assert.Equal(t, 1.0, replicas[0].Weight)
	assert.InDelta(t, 1.0, replicas[1].Weight, 0.1)
}

func TestEjectionShareBoundsWhoIsOut(t *testing.T) {
	for share, want := range map[float64]string{0: "healthy", 0.5: "ejected", 1: "ejected"} {
		p := newPair(t, gateway.WithEjection(1, time.Hour, time.Hour), gateway.WithEjectionShare(share), gateway.WithBalancing(gateway.RoundRobin()), gateway.WithoutBreaker())
		p.fails[1].Store(true)
		for range 4 {
			handle(t, p, testnet.Get("/"), nil)
		}
		assert.Equal(t, want, p.Stats().Replicas[1].Health, "share %v", share)
	}
}

// A service can do without the checks that all others have.
func TestWithoutHealthChecksNobodyIsAsked(t *testing.T) {
	checked, checks := make(chan string, 1000), gateway.WithHealthChecks(10*time.Millisecond, 1, 1)
	srv := func(name string) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.UserAgent(), "gateway-health/") {
				checked <- name
			}
		}))
	}
	a, b := srv("a"), srv("b")
	defer a.Close()
	defer b.Close()
	gw, err := gateway.New(checks, gateway.WithService("a", a.URL), gateway.WithService("b", b.URL, gateway.WithoutHealthChecks()))
	require.NoError(t, err)
	for _, path := range []string{"/b/", "/a/"} {
		assert.Equal(t, 200, handle(t, gw, testnet.Get(path), nil).status)
	}
	for range 5 {
		assert.Equal(t, "a", <-checked)
	}
	require.NoError(t, gw.Shutdown(t.Context()))
}

// From the first request on, each address of a name is a replica of its own.
func TestDNSRefreshMakesReplicasOfAddresses(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Host) }))
	defer srv.Close()
	address := srv.Listener.Addr().String()
	_, port, _ := strings.Cut(address, ":")
	up, err := gateway.NewUpstream("a", "http://localhost:"+port, gateway.WithDNSRefresh(time.Hour))
	require.NoError(t, err)
	assert.Equal(t, []string{"localhost:" + port}, replicasOf(up), "nothing is resolved yet")
	for range 2 {
		w := handle(t, up, testnet.Get("/"), nil)
		assert.Equal(t, 200, w.status)
		assert.Equal(t, "localhost:"+port, w.body.String())
		testnet.Settle(t, "the name is resolved", func() bool { return strings.Contains(fmt.Sprint(replicasOf(up)), address) })
	}
	require.NoError(t, up.SetReplicas(gateway.Replica{URL: "http://localhost:" + port, Weight: 2}))
	assert.Contains(t, fmt.Sprint(replicasOf(up)), address, "known addresses stay known")
	require.NoError(t, up.Shutdown(t.Context()))
}
