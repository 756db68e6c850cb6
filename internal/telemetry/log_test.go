package telemetry

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

var textRedactions = []struct{ in, want string }{
	{"", ""},
	{"dial tcp 127.0.0.1:80: connect: connection refused", "dial tcp 127.0.0.1:80: connect: connection refused"},
	{"status code: 503, policy: none, key: a", "status code: 503, policy: none, key: a"},
	{"the token has white space", "the token has white space"},
	{"basic", "basic"},
	{"Bearer", "Bearer"},
	// Secrets that are known.
	{"it said known-secret, twice: known-secret", "it said REDACTED, twice: REDACTED"},
	{"abc is too short to be looked for", "abc is too short to be looked for"},
	// Userinfo.
	{`Get "http://canary:canary@host/x": EOF`, `Get "http://REDACTED@host/x": EOF`},
	{"http://canary@host and https://a:canary@b@host:1", "http://REDACTED@host and https://REDACTED@host:1"},
	{"http://host/a@b and http://host?a@b", "http://host/a@b and http://host?a@b"},
	{"http://", "http://"},
	// Parameters.
	{`Get "http://host/x?a=1&sig=canary&b=2": EOF`, `Get "http://host/x?a=1&sig=REDACTED&b=2": EOF`},
	{"?AWSAccessKeyId=canary&Signature=canary&X-Amz-Credential=canary", "?AWSAccessKeyId=REDACTED&Signature=REDACTED&X-Amz-Credential=REDACTED"},
	{"%73ig=canary", "%73ig=REDACTED"},
	{`{"access_token": "canary", "n": 1}`, `{"access_token": "REDACTED", "n": 1}`},
	{"password: canary", "password: REDACTED"},
	{"token=", "token="},
	{"token=a token=canary", "token=REDACTED token=REDACTED"},
	{"basic Authorization: canary", "basic REDACTED REDACTED"},
	// Fields.
	{"Authorization: Bearer canary", "Authorization: REDACTED"},
	{"proxy-authorization=Basic canary", "proxy-authorization=REDACTED"},
	{"bearer canary, then", "bearer REDACTED, then"},
	{"map[Authorization:[Bearer canary] Cookie:[a=canary; b=canary] X:[1]]", "map[Authorization:[REDACTED] Cookie:[REDACTED] X:[1]]"},
	{"Set-Cookie: a=canary; Path=/\nX: 1", "Set-Cookie: REDACTED\nX: 1"},
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for _, tt := range textRedactions {
		assert.Equal(t, tt.want, Redact(tt.in, "known-secret", "abc", ""), tt.in)
	}
	assert.LessOrEqual(t, len(Redact(strings.Repeat("token=a ", 1<<20))), 2*maxRedact)
}

// Nothing of a secret stays that is longer than what is looked at, or ends beyond
// that, however little else is left of the text.
func TestRedactKnowsLongSecrets(t *testing.T) {
	t.Parallel()
	for _, size := range []int{maxRedact / 3, maxRedact - 1, maxRedact, maxRedact + 1, 3 * maxRedact} {
		secret := strings.Repeat("canary", size/6)
		assert.NotContains(t, Redact(strings.Repeat(secret+"; ", 5), secret), "canary", "%d", size)
	}
}

// A secret is found as programs write it, and before others that are a part of it.
func TestRedactKnowsSecretsHoweverTheyAreWritten(t *testing.T) {
	t.Parallel()
	const secret = `ca"na\ry 1+2/3`
	got := Redact(fmt.Sprintf("%s %q %s %s", secret, secret, url.QueryEscape(secret), url.PathEscape(secret)), "ca\"na", secret)
	assert.Equal(t, `REDACTED "REDACTED" REDACTED REDACTED`, got)
	assert.Equal(t, redacted, Redact("canary", make([]string, maxSecrets+1)...))
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		header http.Header
		query  string
		want   []string
	}{
		{nil, "", nil},
		{http.Header{"Accept": {"text/html"}, "Host": {"h"}}, "a=1&page=2", nil},
		{http.Header{"Authorization": {"Bearer one", "two"}}, "", []string{"Bearer one", "one", "two"}},
		{http.Header{"Proxy-Authorization": {"Basic  dXNlcjpwYTpzcw=="}}, "", []string{"Basic  dXNlcjpwYTpzcw==", "dXNlcjpwYTpzcw==", "user:pa:ss", "pa:ss"}},
		{http.Header{"Authorization": {"Basic dXNlcjpwYTpzcw"}}, "", []string{"Basic dXNlcjpwYTpzcw", "dXNlcjpwYTpzcw"}},
		{http.Header{"Cookie": {`a=1; b="2" ;c`, "d=4=4"}}, "", []string{"1", "2", "", "4=4"}},
		{http.Header{"X-Api-Key": {"one"}}, "", []string{"one"}},
		{http.Header{"X_auth_token": {"one"}}, "", []string{"one"}},
		{nil, "a=1&token=one%20two;%73ig=+&key=%zz", []string{"one%20two", "one two", "+", " ", "%zz"}},
	} {
		assert.Equal(t, tt.want, Secrets(tt.header, tt.query), "%v", tt)
	}
}

// FuzzSecrets reads what a client has sent as a hook does, and finds none of it in
// what is told of that.
func FuzzSecrets(f *testing.F) {
	for _, seed := range []struct{ basic, cookie, query string }{
		{"user:canary", `a=1; session="canary"`, "a=1&token=can%61ry"}, {":", "session=;", "sig=;"}, {"user:pa:ss", "session=a b", "%73ig=a+b&key"},
	} {
		f.Add(seed.basic, seed.cookie, seed.query)
	}
	f.Fuzz(func(t *testing.T, basic, cookie, query string) {
		r := &http.Request{Header: http.Header{"Cookie": {cookie}}, URL: &url.URL{RawQuery: query}}
		user, password, _ := strings.Cut(basic, ":")
		r.SetBasicAuth(user, password)
		read := []string{password}
		for _, c := range r.Cookies() {
			read = append(read, c.Value)
		}
		for name, values := range r.URL.Query() {
			if sensitive(url.QueryEscape(name)) {
				read = append(read, values...)
			}
		}
		secrets := Secrets(r.Header, query)
		for _, secret := range read {
			if len(secret) >= leastSecret && !strings.Contains(redacted, secret) {
				assert.NotContains(t, Redact("it was "+secret+".", secrets...), secret)
			}
		}
	})
}

func FuzzRedact(f *testing.F) {
	for _, tt := range textRedactions {
		f.Add(tt.in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got := Redact(in, "known-secret")
		assert.NotContains(t, got, "known-secret")
		if utf8.ValidString(in) && len(in) < maxRedact {
			assert.True(t, utf8.ValidString(got))
		}
		for _, name := range []string{"Authorization: ", "?sig=", "http://"} {
			secret := name + "canary"
			if name == "http://" {
				secret += ":canary@host"
			}
			if !strings.Contains(in, "canary") {
				assert.NotContains(t, Redact(in+" "+secret), "canary", "%q", in)
			}
		}
	})
}
