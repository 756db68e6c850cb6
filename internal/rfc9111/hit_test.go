package rfc9111

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var browser = http.Header{
	"Accept":                    {"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"},
	"Accept-Encoding":           {"gzip, deflate, br, zstd"},
	"Accept-Language":           {"en-GB,en;q=0.7,de;q=0.3"},
	"Connection":                {"keep-alive"},
	"Cookie":                    {"session=0123456789abcdef0123456789abcdef; theme=dark"},
	"Dnt":                       {"1"},
	"Referer":                   {"https://shop.example/products"},
	"Sec-Fetch-Dest":            {"document"},
	"Sec-Fetch-Mode":            {"navigate"},
	"Sec-Fetch-Site":            {"same-origin"},
	"Upgrade-Insecure-Requests": {"1"},
	"User-Agent":                {"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
}

var hitTable = []struct {
	name    string
	request http.Header
	vary    string
}{
	{"browser", browser, "Accept-Encoding"},
	{"bare", http.Header{"User-Agent": {"curl/8"}, "Accept": {"*/*"}}, ""},
	{"control", with(browser, "Cache-Control", "max-age=30, min-fresh=5"), "Accept-Encoding, Origin"},
	{"hostile", with(browser, "Cache-Control", strings.Repeat(`x="\",", `, 1000)), "Accept-Encoding"},
}

var shopKey = Key{
	Scope: "products", Target: "/4711", Query: "currency=EUR", Upstream: "http://p1:8001", Proto: "https", Host: "shop.example", Asked: "shop.example", Prefix: "/api/products",
}

func with(h http.Header, name, value string) http.Header {
	h = h.Clone()
	h[name] = []string{value}
	return h
}

// hit is what the cache does with this package to answer a request from the store.
type hit struct {
	names  []string
	stored []byte
	x      *Exchange
	key    [256]byte
}

func newHit(request http.Header, vary string) *hit {
	h := &hit{x: storable()}
	h.x.Request, h.x.Response["Vary"] = request, []string{vary}
	h.names, _ = ParseVary(h.x.Response)
	h.stored = AppendVariant(nil, h.names, request)
	return h
}

func (h *hit) serve() bool {
	c := ParseRequest(h.x.Request)
	if Lookup(http.MethodGet, h.x.Request, c, false) != "" {
		return false
	}
	key := shopKey.Append(h.key[:0])
	age := CurrentAge(second, today, today.Add(second))
	return len(key) > 0 && MatchVariant(h.stored, h.names, h.x.Request) && useOf(minute, c, age) == Fresh
}

func TestHitDoesNotAllocate(t *testing.T) {
	for _, row := range hitTable {
		h := newHit(row.request, row.vary)
		require.True(t, h.serve(), row.name)
		if !raceEnabled {
			require.Zero(t, testing.AllocsPerRun(100, func() { h.serve() }), row.name)
			dst := make([]byte, 0, 1024)
			require.Zero(t, testing.AllocsPerRun(100, func() { AppendVariant(dst, h.names, row.request) }), row.name)
			require.Zero(t, testing.AllocsPerRun(100, func() { shopKey.Append(dst) }), row.name)
		}
	}
}

func BenchmarkHit(b *testing.B) {
	for _, row := range hitTable {
		b.Run("request="+row.name, func(b *testing.B) {
			h := newHit(row.request, row.vary)
			b.ReportAllocs()
			for b.Loop() {
				h.serve()
			}
		})
	}
}

func BenchmarkHitStep(b *testing.B) {
	h := newHit(browser, "Accept-Encoding")
	for _, step := range []struct {
		name string
		f    func()
	}{
		{"ParseRequest", func() { ParseRequest(browser) }},
		{"Lookup", func() { Lookup(http.MethodGet, browser, noRequest, false) }},
		{"Key.Append", func() { shopKey.Append(h.key[:0]) }},
		{"MatchVariant", func() { MatchVariant(h.stored, h.names, browser) }},
		{"Judge", func() { minute.Judge(noRequest, second) }},
	} {
		b.Run("step="+step.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				step.f()
			}
		})
	}
}

func BenchmarkStorable(b *testing.B) {
	for _, row := range hitTable {
		b.Run("request="+row.name, func(b *testing.B) {
			h := newHit(row.request, row.vary)
			b.ReportAllocs()
			for b.Loop() {
				Storable(h.x, &Config{})
			}
		})
	}
}
