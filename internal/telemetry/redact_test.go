package telemetry

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var redactions = []struct{ in, want string }{
	{"", ""},
	{"q=OpenTelemetry", "q=OpenTelemetry"},
	{"a=1&b=2;c=3", "a=1&b=2;c=3"},
	// The conventions' own list, keys kept.
	{"color=blue&sig=canary", "color=blue&sig=REDACTED"},
	{"X-Amz-Signature=canary", "X-Amz-Signature=REDACTED"},
	{"X-Amz-Credential=canary", "X-Amz-Credential=REDACTED"},
	{"X-Amz-Security-Token=canary", "X-Amz-Security-Token=REDACTED"},
	{"X-Goog-Signature=canary", "X-Goog-Signature=REDACTED"},
	{"AWSAccessKeyId=canary&Signature=canary", "AWSAccessKeyId=REDACTED&Signature=REDACTED"},
	// Its relatives.
	{"token=canary", "token=REDACTED"},
	{"access_token=canary&id_token=canary", "access_token=REDACTED&id_token=REDACTED"},
	{"API-KEY=canary", "API-KEY=REDACTED"},
	{"Password=canary&client_secret=canary", "Password=REDACTED&client_secret=REDACTED"},
	{"code=canary&state=s", "code=REDACTED&state=s"},
	{"auth%5Btoken%5D=canary", "auth%5Btoken%5D=REDACTED"},
	// A key is what an upstream reads.
	{"%73ig=canary", "%73ig=REDACTED"},
	{"s%69G=canary", "s%69G=REDACTED"},
	{"+sig=canary", "+sig=REDACTED"},
	// A value ends at & only; ; may begin a parameter.
	{"a=1;sig=canary;canary&b=2", "a=1;sig=REDACTED&b=2"},
	{"sig=canary=canary", "sig=REDACTED"},
	{"sig==canary", "sig=REDACTED"},
	{"sig=canary?sig=canary", "sig=REDACTED"},
	// Nothing to hide.
	{"sig", "sig"},
	{"sig=", "sig="},
	{"&&;=;sig&", "&&;=;sig&"},
	{"design=1&sigma=2&keyboard=3", "design=1&sigma=2&keyboard=3"},
	{"%=1&%7=2&%zz=3", "%=1&%7=2&%zz=3"},
}

func TestRedactQuery(t *testing.T) {
	for _, tt := range redactions {
		got := redactQuery(tt.in)
		assert.Equal(t, tt.want, got, "%q", tt.in)
		assert.NotContains(t, got, "canary")
	}
}

func TestCuttingAQueryHidesNoLess(t *testing.T) {
	for pad := maxURL - 12; pad < maxURL+2; pad++ {
		got := redactQuery(cut(strings.Repeat("a", pad) + "&token=canary"))
		assert.NotContains(t, got, "c", "%d", pad)
	}
}

// FuzzRedactQuery reads the result as an upstream would and finds no credential.
func FuzzRedactQuery(f *testing.F) {
	for _, tt := range redactions {
		f.Add(tt.in)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got := redactQuery(query)
		require.Equal(t, got, redactQuery(got), "idempotent")
		values, _ := url.ParseQuery(got) // what it cannot read it leaves out
		for key, all := range values {
			if !sensitive(url.QueryEscape(key)) {
				continue
			}
			for _, v := range all {
				require.True(t, v == redacted || v == "", "%q of %q", key, got)
			}
		}
		s := text(got, maxText)
		require.True(t, utf8.ValidString(s))
	})
}

func BenchmarkRedactQuery(b *testing.B) {
	for name, query := range map[string]string{
		"clean":   "page=2&sort=name&filter=active",
		"sig":     "page=2&sig=0123456789abcdef&sort=name",
		"hostile": strings.Repeat("%73ig=x&", maxURL/8),
	} {
		b.Run("query="+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				redactQuery(query)
			}
		})
	}
}
