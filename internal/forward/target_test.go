package forward

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// targets are request targets as they stand in the request line. It also seeds FuzzJudge.
var targets = []struct {
	target, strip  string
	escaped, query string
	err            error
}{
	// what passes, byte for byte
	{target: "/", escaped: "/"},
	{target: "/a/x", escaped: "/a/x"},
	{target: "/a/x/", escaped: "/a/x/"},
	{target: "/A/x", escaped: "/A/x"},
	{target: "/a/x?", escaped: "/a/x"},
	{target: "/a/x?q=1&r=%20+%2f;?/", escaped: "/a/x", query: "q=1&r=%20+%2f;?/"},
	{target: "/a//x///", escaped: "/a//x///"},
	{target: "//evil.test/a/x", escaped: "//evil.test/a/x"},
	{target: "/a%2fx", escaped: "/a%2fx"},
	{target: "/a%2Fx", escaped: "/a%2Fx"},
	{target: "/%61/x", escaped: "/%61/x"},
	{target: "/a/x%0d%0aX:%20y", escaped: "/a/x%0d%0aX:%20y"},
	{target: "/a/x;jsessionid=1", escaped: "/a/x;jsessionid=1"},
	{target: "/a/x;a=1;b/y", escaped: "/a/x;a=1;b/y"},
	{target: "/a/!$&'()*+,;=:@-._~", escaped: "/a/!$&'()*+,;=:@-._~"},
	{target: "/a/[x]", escaped: "/a/[x]"},
	{target: "/a/*", escaped: "/a/*"},
	{target: "/.well-known/x", escaped: "/.well-known/x"},
	{target: "/a/...", escaped: "/a/..."},
	{target: "/a/..x/x../.x./x.", escaped: "/a/..x/x../.x./x."},
	{target: "/a/...;/x", escaped: "/a/...;/x"},
	{target: "/a/%25", escaped: "/a/%25"},
	{target: "/a/100%25zz", escaped: "/a/100%25zz"},
	{target: "/a/%255cx", escaped: "/a/%255cx"},
	{target: "/a/%c0%ae%c0%ae/b", escaped: "/a/%c0%ae%c0%ae/b"},
	{target: "/a/%e2%80%a8", escaped: "/a/%e2%80%a8"},
	{target: "/a/x?..%00\\", escaped: "/a/x", query: "..%00\\"},

	// what may not stand in a target is encoded, and nothing else is
	{target: "/a/\xff", escaped: "/a/%FF"},
	{target: "/a/caf\xc3\xa9", escaped: "/a/caf%C3%A9"},
	{target: "/a%2fx/\xff", escaped: "/a%2fx/%FF"},
	{target: "/a%2fx/\"<>^`{|}", escaped: "/a%2fx/%22%3C%3E%5E%60%7B%7C%7D"},
	{target: "/a/x?\xff\xc3\xa9", escaped: "/a/x", query: "%FF%C3%A9"},
	{target: "/a/x?\"<>^`{|}", escaped: "/a/x", query: "\"<>^`{|}"},

	// absolute-form, RFC 9112 §3.2.2
	{target: "http://h/a/x", escaped: "/a/x"},
	{target: "https://h:8443/a/x?q", escaped: "/a/x", query: "q"},
	{target: "HTTP://h/a", escaped: "/a"},
	{target: "http://h", escaped: ""},
	{target: "http://h?q", escaped: "", query: "q"},
	{target: "http:///a/x", err: ErrTargetForm},
	{target: "http:/a/x", err: ErrTargetForm},
	{target: "http:a/x", err: ErrTargetForm},
	{target: "file:///etc/passwd", err: ErrTargetForm},
	{target: "ftp://h/a/x", err: ErrTargetForm},
	{target: "gopher:x", err: ErrTargetForm},
	{target: "javascript:alert(1)", err: ErrTargetForm},
	{target: "http://u:p@h/a/x", err: ErrUserinfo},
	{target: "http://u@h/a/x", err: ErrUserinfo},
	{target: "http://@h/a/x", err: ErrUserinfo},
	{target: "*", err: ErrTargetForm},

	// fragments, RFC 9112 §3.2
	{target: "/a/x#y", err: ErrFragment},
	{target: "/a/#", err: ErrFragment},
	{target: "/a#/../x", err: ErrFragment},
	{target: "/a/x?q#y", err: ErrFragment},
	{target: "http://h/a#y", err: ErrFragment},
	{target: "/a/x%23y", escaped: "/a/x%23y"},

	// backslashes
	{target: "/\\evil.test", err: ErrBackslash},
	{target: "/a\\..\\b", err: ErrBackslash},
	{target: "/a/%5cx", err: ErrBackslash},
	{target: "/a/..%5Cb", err: ErrBackslash},

	// NUL
	{target: "/a/%00", err: ErrNUL},
	{target: "/a/account%00.css", err: ErrNUL},
	{target: "/a/%2500", err: ErrNUL},
	{target: "/a/%252500", err: ErrNUL},
	{target: "/a/%25252525252525%30%30", err: ErrNUL},

	// dot segments, RFC 3986 §3.3, in every clothing
	{target: "/.", err: ErrDotSegment},
	{target: "/..", err: ErrDotSegment},
	{target: "/a/./x", err: ErrDotSegment},
	{target: "/a/../b", err: ErrDotSegment},
	{target: "/a//..//", err: ErrDotSegment},
	{target: "/a/..", err: ErrDotSegment},
	{target: "/a/x/.", err: ErrDotSegment},
	{target: "/a/%2e/x", err: ErrDotSegment},
	{target: "/a/%2E%2e/x", err: ErrDotSegment},
	{target: "/a/.%2e/x", err: ErrDotSegment},
	{target: "/a/%2e./x", err: ErrDotSegment},
	{target: "/a%2f..%2fb", err: ErrDotSegment},
	{target: "/a/..%2fb", err: ErrDotSegment},
	{target: "/a/x%2f..", err: ErrDotSegment},
	{target: "/a/%252e%252e/b", err: ErrDotSegment},
	{target: "/a/%25252e%25252e/b", err: ErrDotSegment},
	{target: "/a/%2525252525252e%2e/b", err: ErrDotSegment},
	{target: "/a/..%252fb", err: ErrDotSegment},
	{target: "/a/..%255cb", err: ErrDotSegment},
	{target: "/a/%2%65./x", escaped: ""}, // the server answers 400 to a broken escape
	{target: "/a/%25%32%65./x", err: ErrDotSegment},
	{target: "/a/%252%65./x", err: ErrDotSegment},
	{target: "/a/..;/b", err: ErrDotSegment},
	{target: "/a/.;x/y", err: ErrDotSegment},
	{target: "/a/..;x=1;y/b", err: ErrDotSegment},
	{target: "/a/%2e%2e;/b", err: ErrDotSegment},
	{target: "/a/..%3b/b", err: ErrDotSegment},
	{target: "/a/..%253bx/b", err: ErrDotSegment},
	{target: "/a/x;/../b", err: ErrDotSegment},
	{target: "/a/x;%2f..", err: ErrDotSegment},
	{target: "/a/..%3fx", err: ErrDotSegment},
	{target: "/a/..%23x", err: ErrDotSegment},
	{target: "http://h/a/../b", err: ErrDotSegment},
	{target: "/a/x\xff/..", err: ErrDotSegment},

	// under StripPrefix
	{target: "/api/a/x", strip: "/api", escaped: "/a/x"},
	{target: "/api/a/x", strip: "/api/", escaped: "a/x"},
	{target: "/api", strip: "/api", escaped: ""},
	{target: "/api/a%2fx/y", strip: "/api", escaped: "/a%2fx/y"},
	{target: "/api/a%2fx/y", strip: "/api/", escaped: "a%2fx/y"},
	{target: "/api/../b", strip: "/api", err: ErrDotSegment},
	{target: "/api/../b", strip: "/api/", err: ErrDotSegment},
	{target: "/api/.;/b", strip: "/api/", err: ErrDotSegment},
	{target: "/api/%2e%2e/b", strip: "/api/", err: ErrDotSegment},
	{target: "/api*", strip: "/api", err: ErrTargetForm},
	{target: "/api#/a", strip: "/api", err: ErrFragment},
}

// judged runs the target through net/http's parser, StripPrefix and Judge; nil u if one of the first two refuses it.
func judged(target, strip string) (u *url.URL, escaped, query string, err error) {
	r := parse("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")
	if r == nil {
		return nil, "", "", nil
	}
	http.StripPrefix(strip, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		u = r.URL
		escaped, query, err = Judge(r.URL)
	})).ServeHTTP(discard{}, r)
	return u, escaped, query, err
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

func TestJudge(t *testing.T) {
	for _, test := range targets {
		t.Run(test.target+" "+test.strip, func(t *testing.T) {
			u, escaped, query, err := judged(test.target, test.strip)
			require.ErrorIs(t, err, test.err)
			require.Equal(t, test.escaped, escaped)
			require.Equal(t, test.query, query)
			if u != nil && err == nil {
				require.Equal(t, escaped, Path(u))
			}
		})
	}
}

// A middleware may have changed the URL without keeping its two forms of the path in step: then Path is what counts, as in net/url.
func TestJudgeOfAnEditedURL(t *testing.T) {
	for _, test := range []struct {
		u       url.URL
		escaped string
		query   string
		err     error
	}{
		{u: url.URL{Path: "/a/b", RawPath: "/x%2fy"}, escaped: "/a/b"},
		{u: url.URL{Path: "/a b", RawPath: ""}, escaped: "/a%20b"},
		{u: url.URL{Path: "/a/100%", RawPath: ""}, escaped: "/a/100%25"},
		{u: url.URL{Path: "/a/x#y"}, escaped: "/a/x%23y"},
		{u: url.URL{Path: "/a/%2e%2e"}, err: ErrDotSegment},
		{u: url.URL{Path: "/a/../x", RawPath: "/a/x"}, err: ErrDotSegment},
		{u: url.URL{Path: "/a\r\nx", RawQuery: "q\r\nx y"}, escaped: "/a%0D%0Ax", query: "q%0D%0Ax%20y"},
		{u: url.URL{Path: "/a\x00"}, err: ErrNUL},
		{u: url.URL{Path: "/a", Fragment: "x"}, err: ErrFragment},
		{u: url.URL{Path: ""}, escaped: ""},
	} {
		escaped, query, err := Judge(&test.u)
		require.ErrorIs(t, err, test.err, "%v", test.u)
		require.Equal(t, test.escaped, escaped)
		require.Equal(t, test.query, query)
	}
}

func TestTarget(t *testing.T) {
	for _, tt := range []struct {
		u           url.URL
		path, query string
	}{
		{url.URL{Path: "/a/x", RawQuery: "q=1"}, "/a/x", "q=1"},
		{url.URL{Path: "/a/b", RawPath: "/a%2Fb"}, "/a%2Fb", ""},
		{url.URL{}, "/", ""},
		{url.URL{Path: "a/x"}, "/a/x", ""},
		{url.URL{Path: "*"}, "/*", ""},
		{url.URL{Path: "//evil.test/x"}, "//evil.test/x", ""},
		{url.URL{Path: "/a b\r\n?#", RawPath: "/a b"}, "/a%20b%0D%0A%3F%23", ""},
		{url.URL{Path: "/", RawQuery: "q=a b\r\nX: y#z\xff"}, "/", "q=a%20b%0D%0AX:%20y%23z%FF"},
		{url.URL{Opaque: "//evil.test/x"}, "/", ""},
	} {
		path, query := Target(&tt.u)
		require.Equal(t, tt.path, path)
		require.Equal(t, tt.query, query)
	}
}

func TestJudgeOfAPlainPathAllocatesNothing(t *testing.T) {
	for _, u := range []*url.URL{
		{Path: "/api/users/1234567890/orders", RawQuery: "page=2&sort=%2Bname"},
		{Path: "/.well-known/x"},
		{Path: "/a/x;v=1", RawPath: "/a/x;v=1"},
		{Path: "/a!/x", RawPath: "/a!/x"},
	} {
		allocations(t, 0, func() {
			if _, _, err := Judge(u); err != nil {
				panic(err)
			}
		})
	}
}

func TestSplit(t *testing.T) {
	for _, test := range []struct{ escaped, segment, rest string }{
		{"/users/x/y", "users", "/x/y"},
		{"/users", "users", ""},
		{"/users/", "users", "/"},
		{"users/x", "users", "/x"},
		{"users", "users", ""},
		{"//x", "", "/x"},
		{"/", "", ""},
		{"", "", ""},
		{"/a%2fx/y", "a%2fx", "/y"},
		{"/a//x", "a", "//x"},
	} {
		segment, rest := Split(test.escaped)
		require.Equal(t, test.segment, segment, test.escaped)
		require.Equal(t, test.rest, rest, test.escaped)
	}
}

func TestJoin(t *testing.T) {
	for _, test := range []struct{ base, rest, want string }{
		{"", "", "/"},
		{"/", "", "/"},
		{"", "/x", "/x"},
		{"/", "/x", "/x"},
		{"", "x", "/x"},
		{"/", "//x", "//x"},
		{"/base", "/x", "/base/x"},
		{"/base/", "/x", "/base/x"},
		{"/base", "x", "/base/x"},
		{"/base", "//x", "/base//x"},
		{"/base/", "//x", "/base//x"},
		{"/base", "", "/base"},
		{"/base/", "", "/base/"},
		{"/base", "/", "/base/"},
	} {
		require.Equal(t, test.want, Join(test.base, test.rest), "%q %q", test.base, test.rest)
	}
}

func TestPrefix(t *testing.T) {
	for _, test := range []struct{ requestURI, rest, want string }{
		{"/api/users/1?q=/1", "/1", "/api/users"},
		{"/api/users", "", "/api/users"},
		{"/api/users/", "/", "/api/users"},
		{"/users/1", "/users/1", ""},
		{"/api/users//1", "//1", "/api/users"},
		{"/api/x/y", "x/y", "/api"},
		{"/apix/y", "x/y", ""},
		{"/api/users/\xff", "/%FF", "/api/users"},
		{"/api/a%2fx", "/a%2fx", "/api"},
		{"/api/users/1", "/2", ""},
		{"", "/1", ""},
		{"", "", ""},
		{"*", "", ""},
		{"http://h/api/users/1?q", "/1", "/api/users"},
		{"http://h", "", ""},
		{"https://h?q=/a/b", "/b", ""},
		{"//evil.test/x", "/x", ""},
		{"/\\evil.test/x", "/x", ""},
		{"/a/../b/x", "/x", ""},
		{"/" + strings.Repeat("a", 2000) + "/x", "/x", ""},
		{"/", "", ""},
		{"//x", "/x", ""},
	} {
		require.Equal(t, test.want, Prefix(test.requestURI, test.rest), "%q %q", test.requestURI, test.rest)
	}
}

// FuzzJudge holds Judge against a slow oracle that decodes round by round.
func FuzzJudge(f *testing.F) {
	for _, test := range targets {
		f.Add(test.target, test.strip)
	}
	f.Fuzz(func(t *testing.T, target, strip string) {
		if strings.ContainsAny(target, " \r\n") {
			return
		}
		u, escaped, query, err := judged(target, strip)
		if u == nil {
			return
		}
		if err == nil || err == ErrDotSegment || err == ErrNUL {
			form := escaped
			if err != nil {
				form = escapedPath(u)
			}
			dots, nul := hostile(form)
			require.Equal(t, dots || nul, err != nil, "%q", form)
		}
		if err != nil {
			require.Empty(t, escaped)
			require.Empty(t, query)
			return
		}
		require.Equal(t, escaped, Path(u))
		path, err := url.PathUnescape(escaped)
		require.NoError(t, err)
		require.Equal(t, u.Path, path)
		require.True(t, only(escaped, isPath) && only(query, isVisible), "%q %q", escaped, query)
		require.NotContains(t, strings.ToLower(escaped), "%5c")
		if u.RawPath == "" || u.EscapedPath() == u.RawPath {
			require.Equal(t, u.EscapedPath(), escaped)
		}

		segment, rest := Split(escaped)
		require.NotContains(t, segment, "/")
		require.Equal(t, strings.TrimPrefix(escaped, "/"), segment+rest)
		if joined := Join("/base", rest); rest != "" {
			require.Equal(t, "/base"+rest, joined)
		}
		if prefix := Prefix(target, rest); prefix != "" {
			require.Contains(t, encode(target, isPath), prefix)
			require.True(t, prefix[0] == '/' && prefix[1] != '/' && prefix[1] != '\\', prefix)
		}
	})
}

// hostile decodes an escaped path one round after the other and reports what it finds in any of them.
func hostile(path string) (dots, nul bool) {
	for {
		for segment := range strings.SplitSeq(strings.ReplaceAll(path, "\\", "/"), "/") {
			if i := strings.IndexAny(segment, ";?#"); i >= 0 {
				segment = segment[:i]
			}
			dots = dots || segment == "." || segment == ".."
		}
		nul = nul || strings.Contains(path, "\x00")
		var b strings.Builder
		for i := 0; i < len(path); i++ {
			if i+2 < len(path) && path[i] == '%' {
				if c, err := url.PathUnescape(path[i : i+3]); err == nil {
					b.WriteString(c)
					i += 2
					continue
				}
			}
			b.WriteByte(path[i])
		}
		if b.String() == path {
			return dots, nul
		}
		path = b.String()
	}
}

func BenchmarkJudge(b *testing.B) {
	for _, bench := range []struct{ name, target string }{
		{"path=plain", "/api/users/1234567890/orders?page=2&sort=name"},
		{"path=encoded", "/api/users/J%C3%BCrgen%20M/orders?page=2"},
		{"path=hostile", "/" + strings.Repeat("%25252525", 800) + "2e%2e/x"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			u, err := url.ParseRequestURI(bench.target)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = Judge(u)
			}
		})
	}
}
