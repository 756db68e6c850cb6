package interop_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/embedgw/gateway"
	"github.com/embedgw/gateway/internal/testnet"
)

// status is one member of Cache-Status (RFC 9211 §2), and nothing that the
// standard does not know.
type status struct {
	cache     string
	hit       bool
	fwd       string
	fwdStatus int
	stored    bool
	collapsed bool
	ttl       int64
	key       string
	detail    string
}

// forwards are the values of fwd (RFC 9211 §2.2).
var forwards = []string{"bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"}

// parseStatus reads the field with a parser of Structured Fields (RFC 9651).
func parseStatus(t require.TestingT, lines []string) (all []status) {
	list, err := httpsfv.UnmarshalList(lines)
	require.NoError(t, err, "%q", lines)
	for _, m := range list {
		item, ok := m.(httpsfv.Item)
		require.True(t, ok, "%q has an inner list", lines)
		s := status{cache: text(t, item.Value)}
		for _, name := range item.Params.Names() {
			value, _ := item.Params.Get(name)
			switch name {
			case "hit":
				s.hit, ok = value.(bool)
			case "stored":
				s.stored, ok = value.(bool)
			case "collapsed":
				s.collapsed, ok = value.(bool)
			case "fwd-status":
				var n int64
				n, ok = value.(int64)
				s.fwdStatus = int(n)
			case "key":
				s.key, ok = value.(string)
			case "ttl":
				s.ttl, ok = value.(int64)
			case "fwd":
				var token httpsfv.Token
				token, ok = value.(httpsfv.Token)
				s.fwd = string(token)
			case "detail":
				s.detail = text(t, value)
			default:
				require.Fail(t, "unknown parameter", "%q in %q", name, lines)
			}
			require.True(t, ok, "%s of %q has another type", name, lines)
		}
		all = append(all, s)
	}
	return all
}

// text reads a token or a string.
func text(t require.TestingT, v any) string {
	switch v := v.(type) {
	case httpsfv.Token:
		return string(v)
	case string:
		return v
	}
	require.Fail(t, "neither token nor string", "%#v", v)
	return ""
}

// ourStatus returns the one member that a gateway before an origin has sent.
func ourStatus(t require.TestingT, h http.Header) status {
	all := parseStatus(t, h["Cache-Status"])
	require.Len(t, all, 1)
	s := all[0]
	require.Equal(t, "gateway", s.cache)
	if s.hit {
		require.Empty(t, s.fwd, "hit and fwd exclude each other")
		require.False(t, s.stored || s.collapsed)
		require.Zero(t, s.fwdStatus)
	} else if s.detail != "only-if-cached" { // which does not go forward
		require.True(t, slices.Contains(forwards, s.fwd), "%q", s.fwd)
		require.False(t, s.stored && s.detail != "")
	}
	return s
}

// about returns want if got is it, or less by what a slow machine takes.
func about(t require.TestingT, want, got int64) int64 {
	require.InDelta(t, want-10, got, 10)
	return want
}

// statusUpstream answers with the header lines that the query holds.
func statusUpstream(w http.ResponseWriter, r *http.Request) {
	for _, line := range r.URL.Query()["h"] {
		name, value, _ := strings.Cut(line, ":")
		w.Header().Add(name, value)
	}
	switch {
	case r.Header.Get("If-None-Match") != "":
		w.WriteHeader(http.StatusNotModified)
		return
	case r.Header.Get("X-Down") != "":
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case r.URL.Query().Has("part") && r.Header.Get("Range") != "":
		var from, to int
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/5", from, to))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, "hello"[from:to+1])
		return
	}
	if r.URL.Query().Has("unframed") {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\r\nhello")
			conn.Close()
		}
		return
	}
	_, _ = io.WriteString(w, "hello")
}

func TestCacheStatusIsAStructuredField(t *testing.T) {
	t.Parallel()
	up := serve(t, http.HandlerFunc(statusUpstream))
	gw := newGateway(t, gateway.WithCache(newCache(t, gateway.WithMaxObjectBytes(100))), gateway.WithService("s", up.URL))
	front := serve(t, gw)
	const fresh, tagged = "h=Cache-Control:max-age%3D60", "h=Cache-Control:max-age%3D60&h=ETag:%22a%22"
	for _, c := range []struct {
		name, method, query string
		fields              []string
		want                status
	}{
		{"stored", "GET", fresh, nil, status{fwd: "uri-miss", stored: true}},
		{"hit", "GET", fresh, nil, status{hit: true, ttl: 60}},
		{"hit by HEAD", "HEAD", fresh, nil, status{hit: true, ttl: 60}},
		{"reload", "GET", fresh, []string{"Cache-Control", "no-cache"}, status{fwd: "request", stored: true}},
		{"no-store of the client", "GET", fresh, []string{"Cache-Control", "no-store"}, status{fwd: "request", detail: "no-store"}},
		{"range", "GET", fresh, []string{"Range", "bytes=0-1"}, status{hit: true, ttl: 60}},
		{"conditional", "GET", fresh, []string{"If-None-Match", `"a"`}, status{hit: true, ttl: 60}},
		{"for the origin to judge", "GET", fresh, []string{"If-Match", `"a"`}, status{fwd: "request", detail: "conditional"}},
		{"with a tag", "GET", tagged, nil, status{fwd: "uri-miss", stored: true}},
		{"validated", "GET", tagged, []string{"Cache-Control", "no-cache"}, status{fwd: "request", fwdStatus: 304, stored: true}},
		{"a part that cannot be kept", "GET", "part", []string{"Range", "bytes=0-1"}, status{fwd: "uri-miss", detail: "range"}},
		{"a part", "GET", "part&" + tagged, []string{"Range", "bytes=0-1"}, status{fwd: "uri-miss", stored: true}},
		{"its rest", "GET", "part&" + tagged, nil, status{fwd: "partial", fwdStatus: 206, stored: true}},
		{"stale as long as it takes", "GET", "h=Cache-Control:max-age%3D3,stale-while-revalidate%3D60&h=Age:5", nil, status{fwd: "uri-miss", stored: true}},
		{"and served", "GET", "h=Cache-Control:max-age%3D3,stale-while-revalidate%3D60&h=Age:5", nil, status{hit: true, ttl: -2}},
		{"trouble", "GET", "down&h=Cache-Control:max-age%3D3,stale-if-error%3D60&h=Age:5", nil, status{fwd: "uri-miss", stored: true}},
		{"stands in", "GET", "down&h=Cache-Control:max-age%3D3,stale-if-error%3D60&h=Age:5", []string{"X-Down", "1"}, status{fwd: "stale", fwdStatus: 503, detail: "stale-if-error"}},
		{"method", "POST", fresh, nil, status{fwd: "method", detail: "method"}},
		{"HEAD without a stored GET", "HEAD", fresh + "&n", nil, status{fwd: "uri-miss", detail: "method"}},
		{"no freshness", "GET", "", nil, status{fwd: "uri-miss", detail: "no-freshness"}},
		{"private", "GET", "h=Cache-Control:private", nil, status{fwd: "uri-miss", detail: "private"}},
		{"no-store", "GET", "h=Cache-Control:no-store", nil, status{fwd: "uri-miss", detail: "no-store"}},
		{"no-cache", "GET", "h=Cache-Control:no-cache", nil, status{fwd: "uri-miss", detail: "no-cache"}},
		{"unreadable", "GET", "h=Cache-Control:max-age%3D%22", nil, status{fwd: "uri-miss", detail: "stale"}},
		{"stale on arrival", "GET", fresh + "&h=Age:60", nil, status{fwd: "uri-miss", detail: "stale"}},
		{"Set-Cookie", "GET", fresh + "&h=Set-Cookie:a", nil, status{fwd: "uri-miss", detail: "set-cookie"}},
		{"Cookie", "GET", fresh + "&c", []string{"Cookie", "a=b"}, status{fwd: "uri-miss", detail: "cookie"}},
		{"Authorization", "GET", fresh + "&a", []string{"Authorization", "Basic eHh4"}, status{fwd: "uri-miss", detail: "authorization"}},
		{"Vary by everything", "GET", fresh + "&h=Vary:*", nil, status{fwd: "uri-miss", detail: "vary"}},
		{"an event stream", "GET", fresh + "&h=Content-Type:text/event-stream", nil, status{fwd: "uri-miss", detail: "event-stream"}},
		{"a trailer", "GET", fresh + "&h=Trailer:X-A", nil, status{fwd: "uri-miss", detail: "trailer"}},
		{"unframed", "GET", "unframed", nil, status{fwd: "uri-miss", detail: "unframed"}},
		{"variant", "GET", fresh + "&h=Vary:Accept", []string{"Accept", "a"}, status{fwd: "uri-miss", stored: true}},
		{"another variant", "GET", fresh + "&h=Vary:Accept", []string{"Accept", "b"}, status{fwd: "vary-miss", stored: true}},
		{"only-if-cached", "GET", fresh + "&o", []string{"Cache-Control", "only-if-cached"}, status{detail: "only-if-cached"}},
	} {
		resp := send(t, front.Client(), c.method, front.URL+"/s/?"+c.query, nil, c.fields...)
		require.NoError(t, resp.err, c.name)
		c.want.cache = "gateway"
		got := ourStatus(t, resp.Header)
		got.ttl = about(t, c.want.ttl, got.ttl)
		assert.Equal(t, c.want, got, c.name)
	}

	big := send(t, front.Client(), "GET", front.URL+"/s/?"+fresh+"&h=X:"+strings.Repeat("x", 200), nil)
	assert.True(t, ourStatus(t, big.Header).stored, "the bound is the body's")
}

// The key is a String whatever the target holds (RFC 9211 §2.7).
func TestCacheStatusShowsTheKey(t *testing.T) {
	t.Parallel()
	up := serve(t, http.HandlerFunc(statusUpstream))
	gw := newGateway(t, gateway.WithCache(newCache(t)), gateway.WithService("s", up.URL, gateway.WithCacheStatusKey()))
	front := serve(t, gw)
	const target = "/a%22b;%C3%A9?h=Cache-Control:max-age%3D60&x=%5C'"
	for _, want := range []status{{fwd: "uri-miss", stored: true}, {hit: true, ttl: 60}} {
		want.cache, want.key = "gateway", target
		got := ourStatus(t, get(t, front.Client(), front.URL+"/s"+target).Header)
		got.ttl = about(t, want.ttl, got.ttl)
		assert.Equal(t, want, got)
	}
}

// Other caches' members come before ours, nearest the origin first (RFC 9211
// §2), on a miss and on a hit.
func TestCacheStatusContinuesAnothersList(t *testing.T) {
	t.Parallel()
	up := serve(t, http.HandlerFunc(statusUpstream))
	inner := newGateway(t, gateway.WithCache(newCache(t)), gateway.WithService("s", up.URL))
	middle := serve(t, inner)
	gw := newGateway(t, gateway.WithCache(newCache(t)), gateway.WithService("outer", middle.URL))
	front := serve(t, gw)
	url := front.URL + "/outer/s/?h=Cache-Control:max-age%3D60&h=Cache-Status:ExampleCache%3Bhit%3Bttl%3D9&h=Cache-Status:%22a+cdn%22%3Bfwd%3Dmiss"
	origin := []status{{cache: "ExampleCache", hit: true, ttl: 9}, {cache: "a cdn", fwd: "miss"}}
	first := append(slices.Clone(origin), status{cache: "gateway", fwd: "uri-miss", stored: true})

	assert.Equal(t, append(slices.Clone(first), first[2]), parseStatus(t, get(t, front.Client(), url).Header["Cache-Status"]))
	for range 3 {
		testnet.Settle(t, "stored", func() bool { return gw.Stats().Caches[0].Entries == 1 })
		hit := parseStatus(t, get(t, front.Client(), url).Header["Cache-Status"])
		require.Len(t, hit, 4)
		hit[3].ttl = about(t, 60, hit[3].ttl)
		assert.Equal(t, append(slices.Clone(first), status{cache: "gateway", hit: true, ttl: 60}), hit)
	}
}
