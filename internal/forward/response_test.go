package forward

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// normals also seeds FuzzNormalize.
var normals = []struct {
	name       string
	sent, want http.Header
}{
	{"clean", http.Header{"Etag": {`"a"`}, "Set-Cookie": {"a", "b"}}, http.Header{"Etag": {`"a"`}, "Set-Cookie": {"a", "b"}}},
	{"empty", http.Header{}, http.Header{}},
	{"space before the colon", http.Header{"Cache-Control ": {"no-store"}}, http.Header{"Cache-Control": {"no-store"}}},
	{"white space before the colon", http.Header{"cache-control \t ": {"no-store"}}, http.Header{"Cache-Control": {"no-store"}}},
	{"joins its namesake", http.Header{"Cache-Control ": {"no-store"}, "Cache-Control": {"max-age=60"}}, http.Header{"Cache-Control": {"max-age=60", "no-store"}}},
	{"other case", http.Header{"set-cookie": {"a"}, "SET-COOKIE": {"b"}}, http.Header{"Set-Cookie": {"b", "a"}}},
	{"framing that nobody saw", http.Header{"Transfer-Encoding ": {"chunked"}, "Content-Length ": {"5"}, "Content-Length": {"7"}}, http.Header{"Content-Length": {"7"}}},
	{"no token", http.Header{"": {"x"}, " ": {"x"}, "A B": {"x"}, "A\x00": {"x"}, "A:": {"x"}, "\xff": {"x"}, " X": {"x"}, "X\r\nY": {"x"}}, http.Header{}},
	{"control bytes", http.Header{"X": {"a\r\nSet-Cookie: b", "a\x00b", "\x1b[2J", "a\x7f", "\x01", "a\tb", "a\xffb", "\u2028", "\xff\x01\tb\xff"}},
		http.Header{"X": {"a  Set-Cookie: b", "a b", "[2J", "a", "", "a\tb", "a\xffb", "\u2028", "\xff  b\xff"}}},
}

func TestNormalize(t *testing.T) {
	for _, test := range normals {
		t.Run(test.name, func(t *testing.T) {
			h := test.sent.Clone()
			fields, bytes := Normalize(h)
			require.Equal(t, test.want, h)
			wantFields, _, _ := Survey(h)
			require.Equal(t, wantFields, fields)
			require.GreaterOrEqual(t, bytes, fields*len(": \r\n"))
		})
	}
}

func TestNormalizeMeasures(t *testing.T) {
	h := http.Header{"A": {"1", "22"}, "Bb ": {"3"}}
	fields, bytes := Normalize(h)
	require.Equal(t, 3, fields)
	require.Equal(t, len("A: 1\r\nA: 22\r\nBb: 3\r\n"), bytes)
}

func TestNormalizeOfACleanHeaderAllocatesNothing(t *testing.T) {
	h := response()
	allocations(t, 0, func() { Normalize(h); StripHop(h) })
}

func TestStripHop(t *testing.T) {
	h := http.Header{
		"Connection": {"close, x-One,, ", "X-Two, cache-control, set-cookie, vary"},
		"X-One":      {"1"}, "X-Two": {"2"}, "Cache-Control": {"no-store"}, "Set-Cookie": {"a"}, "Vary": {"b"},
		"Keep-Alive": {"x"}, "Proxy-Connection": {"x"}, "Proxy-Authenticate": {"x"}, "Proxy-Authentication-Info": {"x"}, "Proxy-Authorization": {"x"},
		"Te": {"x"}, "Trailer": {"x"}, "Transfer-Encoding": {"chunked"}, "Upgrade": {"h2c"}, "Http2-Settings": {"x"}, "Alt-Svc": {"h3"}, "Proxy": {"x"},
		"Content-Length": {"3"}, "Proxy-Status": {"p"}, "Www-Authenticate": {"Basic"}, "Etag": {"e"},
	}
	StripHop(h)
	require.Equal(t, http.Header{"Content-Length": {"3"}, "Proxy-Status": {"p"}, "Www-Authenticate": {"Basic"}, "Etag": {"e"}}, h)
}

func TestValidStatus(t *testing.T) {
	for code, want := range map[int]bool{-1: false, 0: false, 99: false, 100: true, 200: true, 599: true, 600: false, 999: false} {
		require.Equal(t, want, ValidStatus(code), code)
	}
}

// locations also seeds FuzzRewrite. The service is mounted at /api/users.
var locations = []struct{ target, sentHost, prefix, location, want string }{
	// want "" means left alone
	{"http://users:8000", "users:8000", "/api/users", "http://users:8000/x?q=1#f", "/api/users/x?q=1#f"},
	{"http://users:8000", "users:8000", "/api/users", "HTTP://USERS:8000/x", "/api/users/x"},
	{"http://users:8000", "users:8000", "/api/users", "http://users:8000", "/api/users"},
	{"http://users:8000", "users:8000", "/api/users", "http://users:8000?q", "/api/users?q"},
	{"http://users:8000", "users:8000", "/api/users", "http://users:8000/", "/api/users/"},
	{"http://users:8000", "users:8000", "/api/users", "/x", "/api/users/x"},
	{"http://users:8000", "users:8000", "/api/users", "/", "/api/users/"},
	{"http://users:8000", "users:8000", "/api/users", "/x%2fy;v=1?u=http://users:8000/x", "/api/users/x%2fy;v=1?u=http://users:8000/x"},
	{"http://users:8000", "users:8000", "/api/users", "/caf\xc3\xa9", "/api/users/caf\xc3\xa9"},
	{"http://users:8000", "users:8000", "/api/users", "/x//y", "/api/users/x//y"},
	{"http://users:8000", "users:8000", "/api/users", "http://users:8000//x", "/api/users//x"},

	// default ports
	{"http://users", "users", "/u", "http://users:80/x", "/u/x"},
	{"http://users:80", "users", "/u", "http://users/x", "/u/x"},
	{"https://users", "users", "/u", "https://users:443/x", "/u/x"},
	{"http://[::1]:80", "[::1]", "/u", "http://[::1]/x", "/u/x"},
	{"http://users", "users", "/u", "http://users:/x", "/u/x"},
	{"http://users", "users", "/u", "https://users/x", ""},
	{"http://users", "users", "/u", "http://users:8000/x", ""},
	{"https://users", "users", "/u", "http://users/x", ""},

	// the upstream honoured X-Forwarded-Prefix
	{"http://users", "users", "/api/users", "/api/users/x", ""},
	{"http://users", "users", "/api/users", "/api/users", ""},
	{"http://users", "users", "/api/users", "/api/users?q", ""},
	{"http://users", "users", "/api/users", "/api/usersx", "/api/users/api/usersx"},
	{"http://users", "users", "/api/users", "http://users/api/users/x", "/api/users/x"},

	// a base path
	{"http://users/base", "users", "/u", "http://users/base/x", "/u/x"},
	{"http://users/base/", "users", "/u", "/base/x", "/u/x"},
	{"http://users/base", "users", "/u", "/base", "/u"},
	{"http://users/base", "users", "/u", "/base?q", "/u?q"},
	{"http://users/base", "users", "/u", "/basement/x", ""},
	{"http://users/base", "users", "/u", "/other", ""},
	{"http://users/base", "users", "/u", "http://users/other", ""},
	{"http://users/base", "users", "", "/base", "/"},

	// the client's own Host was sent upstream
	{"http://users:8000", "app.example", "/u", "http://app.example/x", "/u/x"},
	{"http://users:8000", "App.example:80", "/u", "http://app.example/x", "/u/x"},
	{"http://users:8000", "app.example:8080", "/u", "http://app.example:8080/x", "/u/x"},
	{"http://users:8000", "app.example", "/u", "http://users:8000/x", "/u/x"},
	{"http://users:8000", "app.example", "/u", "https://app.example/x?q#f", "https://app.example/u/x?q#f"},
	{"http://users:8000", "app.example", "/u", "https://app.example/u/x", ""},
	{"http://users:8000", "app.example", "/u", "http://app.example:8080/x", ""},
	{"http://users:8000", "app.example", "/u", "https://app.example:80/x", ""},
	{"http://users:8000", "a@b", "/u", "http://b/x", ""},

	// no prefix: an absolute URL becomes a path
	{"http://users", "users", "", "http://users/x", "/x"},
	{"http://users", "users", "", "http://users", "/"},
	{"http://users", "users", "", "http://users?q", "/?q"},
	{"http://users", "users", "", "/x", ""},

	// never a link to another host
	{"http://users", "users", "", "http://users//evil.test/x", ""},
	{"http://users", "users", "", "http://users/\\evil.test/x", ""},
	{"http://users", "users", "", "http://users/%5cevil.test/x", ""},
	{"http://users/base", "users", "", "/base//evil.test", ""},
	{"http://users/base", "users", "", "/base/\\evil.test", ""},
	{"http://users", "users", "//evil.test", "/x", ""},
	{"http://users", "users", "evil.test", "/x", ""},
	{"http://users", "users", "", "http://users/\t/evil.test", ""},

	// left alone
	{"http://users", "users", "/u", "", ""},
	{"http://users", "users", "/u", "http://evil.test/x", ""},
	{"http://users", "users", "/u", "http://users.evil.test/x", ""},
	{"http://users", "users", "/u", "http://users@evil.test/x", ""},
	{"http://users", "users", "/u", "http://u:p@users/x", ""},
	{"http://users", "users", "/u", "//users/x", ""},
	{"http://users", "users", "/u", "///x", ""},
	{"http://users", "users", "/u", "/\\evil.test", ""},
	{"http://users", "users", "/u", "x", ""},
	{"http://users", "users", "/u", "../x", ""},
	{"http://users", "users", "/u", "?q", ""},
	{"http://users", "users", "/u", "#f", ""},
	{"http://users", "users", "/u", "/a/../../x", ""},
	{"http://users", "users", "/u", "/%2e%2e/x", ""},
	{"http://users", "users", "/u", "http:/x", ""},
	{"http://users", "users", "/u", "http:x", ""},
	{"http://users", "users", "/u", "http://", ""},
	{"http://users", "users", "/u", "ftp://users/x", ""},
	{"http://users", "users", "/u", "javascript:alert(1)", ""},
	{"http://users", "users", "/u", "http://users/%zz", ""},
	{"http://users", "users", "/u", "http://users:x/x", ""},
	{"http://users", "users", "/u", " http://users/x", ""},
	{"http://users", "users", "/u", "/x y", ""},
	{"http://users", "users", "/u", "/x\r\nSet-Cookie: a", ""},
	{"http://users", "users", "/u", "/x\x00", ""},
}

func TestRewrite(t *testing.T) {
	for _, test := range locations {
		t.Run(test.target+" "+test.prefix+" "+test.location, func(t *testing.T) {
			target, err := url.Parse(test.target)
			require.NoError(t, err)
			got, changed := NewLocator(target).Rewrite(test.location, test.sentHost, test.prefix)
			if test.want == "" {
				require.False(t, changed)
				require.Equal(t, test.location, got)
				return
			}
			require.True(t, changed)
			require.Equal(t, test.want, got)
		})
	}
}

// FuzzNormalize checks what Normalize promises of any header at all.
func FuzzNormalize(f *testing.F) {
	for _, test := range normals {
		for name, values := range test.sent {
			for _, value := range values {
				f.Add(name, value, "Cache-Control", "max-age=1")
			}
		}
	}
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		h := http.Header{}
		h[name1] = append(h[name1], value1)
		h[name2] = append(h[name2], value2)
		Normalize(h)
		for name, values := range h {
			require.Equal(t, http.CanonicalHeaderKey(name), name)
			require.True(t, name != "" && only(name, isToken), "%q", name)
			for _, value := range values {
				require.True(t, cleanValue(value), "%q", value)
			}
		}
		again := h.Clone()
		fields, _ := Normalize(again)
		require.Equal(t, h, again)
		wantFields, _, _ := Survey(h)
		require.Equal(t, wantFields, fields)
		StripHop(h)
		require.NotContains(t, h, "Transfer-Encoding")
		require.NotContains(t, h, "Connection")
		for name := range Trailers(h) {
			require.False(t, ForbiddenTrailer(name))
		}
	})
}

// FuzzRewrite resolves what Rewrite makes as a browser at the gateway does: it never leads to a host that the link did not name.
func FuzzRewrite(f *testing.F) {
	for _, test := range locations {
		f.Add(test.target, test.sentHost, test.prefix, test.location)
	}
	gateway := &url.URL{Scheme: "http", Host: "gateway.example", Path: "/api/users/here"}
	f.Fuzz(func(t *testing.T, target, sentHost, prefix, location string) {
		u, err := url.Parse(target)
		if err != nil || prefix != "" && !validPrefix(prefix) {
			return
		}
		got, changed := NewLocator(u).Rewrite(location, sentHost, prefix)
		if !changed {
			require.Equal(t, location, got)
			return
		}
		before, err := url.Parse(location)
		require.NoError(t, err)
		after, err := gateway.Parse(got)
		require.NoError(t, err)
		switch {
		case strings.HasPrefix(got, "/"):
			require.Equal(t, gateway.Host, after.Host, "%q", got)
			require.False(t, strings.HasPrefix(got, "//") || strings.HasPrefix(got, "/\\"), "%q", got)
		default: // the client's own name for the gateway
			require.Equal(t, before.Host, after.Host)
			require.True(t, strings.EqualFold(before.Hostname(), (&url.URL{Host: sentHost}).Hostname()))
		}
		require.Contains(t, got, prefix)
		require.Equal(t, before.RawQuery, after.RawQuery)
		require.Equal(t, before.Fragment, after.Fragment)
		again, _ := NewLocator(u).Rewrite(got, sentHost, prefix)
		if prefix != "" {
			require.Equal(t, got, again, "a second gateway step would move it")
		}
	})
}

// response is a typical response header.
func response() http.Header {
	return http.Header{
		"Cache-Control":  {"public, max-age=60"},
		"Content-Length": {"1024"},
		"Content-Type":   {"application/json; charset=utf-8"},
		"Date":           {"Mon, 23 Nov 2026 20:34:00 GMT"},
		"Etag":           {`"0123456789abcdef"`},
		"Server":         {"upstream"},
		"Vary":           {"Accept-Encoding"},
		"Set-Cookie":     {"session=0123456789abcdef; Path=/; HttpOnly; Secure; SameSite=Lax"},
	}
}

func BenchmarkNormalize(b *testing.B) {
	b.Run("header=clean", func(b *testing.B) {
		h := response()
		b.ReportAllocs()
		for b.Loop() {
			Normalize(h)
		}
	})
	b.Run("header=dirty", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Normalize(http.Header{"Cache-Control ": {"no-store"}, "X-Custom": {"a\x00b"}, "Etag": {`"a"`}})
		}
	})
}

func BenchmarkStripHop(b *testing.B) {
	h := response()
	b.ReportAllocs()
	for b.Loop() {
		StripHop(h)
	}
}

func BenchmarkRewrite(b *testing.B) {
	l := NewLocator(&url.URL{Scheme: "http", Host: "users:8000"})
	for _, bench := range []struct{ name, location string }{
		{"location=absolute", "http://users:8000/orders/1?page=2"},
		{"location=path", "/orders/1"},
		{"location=foreign", "https://login.example/authorize?client_id=1"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.Rewrite(bench.location, "users:8000", "/api/users")
			}
		})
	}
}

func TestMove(t *testing.T) {
	from, to := &url.URL{Scheme: "http", Host: "b:8001"}, &url.URL{Scheme: "https", Host: "a"}
	for link, want := range map[string]string{
		"http://b:8001":       "https://a",
		"HTTP://B:8001/x?y#z": "https://a/x?y#z",
		"http://b:8001?y":     "https://a?y",
		"http://b:80010/x":    "http://b:80010/x",
		"http://b:8001.c/x":   "http://b:8001.c/x",
		"http://b:8001@c/x":   "http://b:8001@c/x",
		"https://b:8001/x":    "https://b:8001/x",
		"/x":                  "/x",
		"":                    "",
	} {
		require.Equal(t, want, Move(link, from, to), link)
	}
}
