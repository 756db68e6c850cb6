package e2e_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// Whatever WithRewrite does, the upstream gets one request that everybody reads
// in the same way, or none: then it is not the upstream's fault, and asking again
// is of no use.
func TestRewrittenRequestsAreWhole(t *testing.T) {
	for _, tt := range []struct {
		name                string
		hook                func(out *http.Request)
		target, host, field string // as they arrive; empty: nothing does
	}{
		{"a path without its slash", func(out *http.Request) { out.URL.Path, out.URL.RawPath = "y/z", "" }, "/y/z?q", "", ""},
		{"no path", func(out *http.Request) { out.URL.Path, out.URL.RawPath = "", "" }, "/?q", "", ""},
		{"a query that would end the line", func(out *http.Request) { out.URL.RawQuery = "a b\r\nX-A: 1" }, "/x?a%20b%0D%0AX-A:%201", "", ""},
		{"a length", func(out *http.Request) { out.Header.Set("Content-Length", "60") }, "/x?q", "", ""},
		{"a coding", func(out *http.Request) { out.Header.Set("Transfer-Encoding", "chunked") }, "/x?q", "", ""},
		{"framing in small letters", func(out *http.Request) { out.Header["content-length"] = []string{"60"} }, "/x?q", "", ""},
		{"the client's header", func(out *http.Request) {
			out.Header = http.Header{"Host": {"other.test"}, "Content-Length": {"4"}, "Trailer": {"X-A"}, "X-A": {"1"}}
		}, "/x?q", "", "1"},
		{"another host", func(out *http.Request) { out.Host = "other.test" }, "/x?q", "other.test", ""},
		{"no host", func(out *http.Request) { out.Host = "" }, "/x?q", "", ""},
		{"a host that is none", func(out *http.Request) { out.Host = "a b" }, "", "", ""},
		{"a field that would end the line", func(out *http.Request) { out.Header.Set("X-A", "1\r\nX-B: 2") }, "", "", ""},
		{"a name that is none", func(out *http.Request) { out.Header["X A"] = []string{"1"} }, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, w way) {
				r := newRig(t, setup{noToken: true, way: w, noCache: true, a: []gateway.ServiceOption{gateway.WithBreaker(0.1, 1), quickRetries, gateway.WithRewrite(tt.hook)}})
				for _, raw := range []string{testnet.Get("/a/x?q"), testnet.Build("PUT", "/a/x?q", "body")} {
					resp := r.do(raw)
					if tt.target == "" {
						assert.Equal(t, 500, resp.Status)
						continue
					}
					assert.Equal(t, 200, resp.Status)
				}
				if tt.target == "" {
					assert.Zero(t, r.a.Conns())
					r.recorded(2, map[gateway.Reason]uint64{gateway.ReasonPanic: 2})
					return
				}
				for i, req := range r.a.Await(2) {
					assert.Equal(t, tt.target, req.Target)
					assert.Equal(t, []string{"", "body"}[i], string(req.Body))
					assert.Equal(t, tt.field, field(req, "X-A"))
					if host := field(req, "Host"); tt.host != "" {
						assert.Equal(t, tt.host, host)
					} else {
						assert.Equal(t, "http://"+host, r.a.URL)
					}
				}
				r.recorded(2, noFailure)
			})
		})
	}
}

// A Host that cannot be passed on is the client's fault.
func TestPreservedHosts(t *testing.T) {
	r := newRig(t, setup{noCache: true, a: []gateway.ServiceOption{gateway.WithBreaker(0.1, 1), quickRetries, gateway.WithPreserveHost()}})
	for _, tt := range []struct {
		raw    string
		status int
	}{
		{"GET /a/x HTTP/1.0\r\n\r\n", 200},
		{"GET /a/x HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", 200},
		{"GET /a/x HTTP/1.1\r\nHost: a,b.test\r\nConnection: close\r\n\r\n", 400},
		{testnet.Get("/a/x"), 200},
	} {
		assert.Equal(t, tt.status, r.do(tt.raw).Status, tt.raw)
	}
	hosts := make([]string, 0, 3)
	for _, req := range r.a.Await(3) {
		hosts = append(hosts, "http://"+field(req, "Host"))
	}
	assert.Equal(t, []string{r.a.URL, r.a.URL, "http://gateway.test"}, hosts)
	r.recorded(4, onlyFailure(gateway.ReasonBadRequest))
}

// Whom a request is from is the app's to find out; its hooks find what it has put
// into the context, also where the fetch is detached from the client.
func TestHooksFindTheContextOfTheApp(t *testing.T) {
	type key struct{}
	for _, noCache := range []bool{true, false} {
		var seen []any
		see := func(ctx context.Context) { seen = append(seen, ctx.Value(key{})) }
		r := newRig(t, setup{
			noToken: true, noCache: noCache, second: !noCache, script: testnet.Reply(200, "Cache-Control: public, max-age=60", "ok"),
			handler: func(gw *gateway.Gateway) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					gw.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, "somebody")))
				})
			},
			a: []gateway.ServiceOption{
				gateway.WithTokenSource(func(ctx context.Context) (string, error) { see(ctx); return tokenA, nil }),
				gateway.WithRewrite(func(out *http.Request) { see(out.Context()) }),
				gateway.WithModifyResponse(func(resp *http.Response) error { see(resp.Request.Context()); return nil }),
			},
		})
		assert.Equal(t, 200, r.get("/a/x").Status)
		assert.Equal(t, []any{"somebody", "somebody", "somebody"}, seen)
	}
}
