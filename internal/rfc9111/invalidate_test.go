package rfc9111

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestInvalidates(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		methods []string
		status  []int
		want    bool
	}{
		{"§4.4 unsafe methods, non-error", []string{"POST", "PUT", "DELETE", "PATCH"}, []int{200, 201, 204, 299, 300, 303, 307, 399}, true},
		{"§4.4 unsafe methods, error", []string{"POST", "PUT", "DELETE"}, []int{400, 404, 412, 500, 503, 599}, false},
		{"§4.4 no final status", []string{"POST"}, []int{0, 100, 103, 199, 600, 999}, false},
		{"§4.4 methods of unknown safety", []string{"PURGE", "PROPPATCH", "get", ""}, []int{200, 302}, true},
		{"RFC 9110 §16.1.1 methods that are registered as safe", []string{"PROPFIND", "QUERY", "REPORT", "SEARCH"}, []int{200, 207}, false},
		{"RFC 9110 §9.2.1 safe methods", []string{"GET", "HEAD", "OPTIONS", "TRACE"}, []int{200, 304, 500}, false},
	} {
		for _, method := range row.methods {
			for _, status := range row.status {
				assert.Equal(t, row.want, Invalidates(method, status), "%s: %s %d", row.name, method, status)
			}
		}
	}
}

func TestReplaces(t *testing.T) { // RFC 9111 §4.3.3
	t.Parallel()
	for _, row := range []struct {
		name   string
		status []int
		want   bool
	}{
		{"what the resource is by now", []int{200, 203, 204, 206, 301, 302, 307}, true},
		{"that there is none", []int{404, 410}, true},
		{"what the client has", []int{304}, false},
		{"what is about the request", []int{400, 401, 403, 412, 416, 429}, false},
		{"an error", []int{500, 502, 503, 504}, false},
	} {
		for _, status := range row.status {
			assert.Equal(t, row.want, Replaces(status), "%s: %d", row.name, status)
		}
	}
}

var invalidatedTable = []struct {
	name                      string
	location, contentLocation []string
	want                      []string // beside the target
}{
	{"§4.4 the target alone", nil, nil, nil},
	{"§4.4 Location and Content-Location", []string{"/a"}, []string{"/b"}, []string{"http://origin.example/a", "http://origin.example/b"}},
	{"§4.4 absolute, the same origin", []string{"http://origin.example/a?q"}, nil, []string{"http://origin.example/a?q"}},
	{"§4.4 the same origin in upper case and with its port", []string{"HTTP://ORIGIN.example:80/a"}, nil, []string{"http://ORIGIN.example:80/a"}},
	{"§4.4 another host", []string{"http://evil.example/a"}, []string{"//evil.example/b"}, nil},
	{"§4.4 another scheme", []string{"https://origin.example/a"}, nil, nil},
	{"§4.4 another port", []string{"http://origin.example:8080/a"}, nil, nil},
	{"§4.4 user names are no part of it", []string{"http://origin.example@evil.example/"}, []string{"http://u:p@origin.example/"}, nil},
	{"RFC 3986 §5.2 relative", []string{"c"}, []string{"../d"}, []string{"http://origin.example/r/c", "http://origin.example/d"}},
	{"RFC 3986 §5.2 a query", []string{"?y"}, nil, []string{"http://origin.example/r/s?y"}},
	{"RFC 9110 §10.2.2 a fragment", []string{"/a#f"}, nil, []string{"http://origin.example/a"}},
	{"the target itself", []string{"/r/s?x"}, []string{""}, nil},
	{"each once", []string{"/a"}, []string{"/a"}, []string{"http://origin.example/a"}},
	{"percent-encoding is kept", []string{"/a%2Fb"}, nil, []string{"http://origin.example/a%2Fb"}},
	{"no URI", []string{"http://[::1"}, []string{"mailto:x@y"}, nil},
	{"too many", []string{"/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8", "/9"}, nil, []string{
		"http://origin.example/1", "http://origin.example/2", "http://origin.example/3", "http://origin.example/4",
		"http://origin.example/5", "http://origin.example/6", "http://origin.example/7",
	}},
}

func TestInvalidated(t *testing.T) {
	t.Parallel()
	target, err := url.Parse("http://origin.example/r/s?x")
	require.NoError(t, err)
	for _, row := range invalidatedTable {
		h := http.Header{"Location": row.location, "Content-Location": row.contentLocation}
		var got []string
		for _, u := range Invalidated("POST", 201, target, h) {
			got = append(got, u.String())
		}
		assert.Equal(t, append([]string{target.String()}, row.want...), got, row.name)
		assert.Empty(t, Invalidated("GET", 200, target, h), row.name)
		assert.Empty(t, Invalidated("POST", 500, target, h), row.name)
	}
}

func TestSameOrigin(t *testing.T) { // RFC 9110 §4.3.1
	t.Parallel()
	for _, row := range []struct {
		a, b string
		want bool
	}{
		{"https://h/", "https://h:443", true},
		{"http://h/", "http://h:80", true},
		{"https://h/", "https://h:80", false},
		{"http://[::1]/", "http://[::1]:80", true},
		{"http:///x", "http:///x", false}, // no host, no origin
	} {
		a, err := url.Parse(row.a)
		require.NoError(t, err)
		b, err := url.Parse(row.b)
		require.NoError(t, err)
		assert.Equal(t, row.want, sameOrigin(a, b), "%s and %s", row.a, row.b)
		if row.want {
			assert.True(t, sameResource(a, b), "an empty path is /, RFC 9110 §4.2.3")
		}
	}
}

func FuzzInvalidated(f *testing.F) {
	for _, row := range invalidatedTable {
		f.Add(strings.Join(row.location, ""), strings.Join(row.contentLocation, ""))
	}
	target, err := url.Parse("http://origin.example/r/s?x")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, location, contentLocation string) {
		uris := Invalidated("DELETE", 204, target, http.Header{"Location": {location}, "Content-Location": {contentLocation}})
		require.NotEmpty(t, uris)
		require.Same(t, target, uris[0])
		require.LessOrEqual(t, len(uris), 3)
		for _, u := range uris {
			require.Equal(t, "http", strings.ToLower(u.Scheme))
			require.Equal(t, "origin.example", strings.ToLower(u.Hostname()))
			require.Empty(t, u.Fragment)
		}
	})
}
