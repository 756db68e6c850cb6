package retry

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var afterNow = time.Date(2026, 7, 31, 12, 0, 0, 0, time.UTC)

var afterTable = []struct {
	name  string
	lines []string
	want  time.Duration
	ok    bool
}{
	{"absent", nil, 0, false},
	// delay-seconds = 1*DIGIT (RFC 9110 §10.2.3)
	{"seconds", []string{"120"}, 2 * time.Minute, true},
	{"zero", []string{"0"}, 0, true},
	{"leading zeroes", []string{"000000000000000000000000000007"}, 7 * time.Second, true},
	{"white space around", []string{" \t5 "}, 5 * time.Second, true},
	{"the most", []string{"2147483647"}, maxAfter, true},
	{"more than the most", []string{"2147483648"}, maxAfter, true},
	{"more than 64 bits", []string{"99999999999999999999999"}, maxAfter, true},
	{"long", []string{strings.Repeat("9", 1000)}, maxAfter, true},
	{"long and malformed", []string{strings.Repeat("9", 1000) + "x"}, 0, false},
	{"empty", []string{""}, 0, false},
	{"blank", []string{"  "}, 0, false},
	{"negative", []string{"-1"}, 0, false},
	{"sign", []string{"+1"}, 0, false},
	{"fraction", []string{"1.5"}, 0, false},
	{"exponent", []string{"1e3"}, 0, false},
	{"hexadecimal", []string{"0x10"}, 0, false},
	{"underscore", []string{"1_0"}, 0, false},
	{"unit", []string{"5s"}, 0, false},
	{"space within", []string{"1 0"}, 0, false},
	{"quoted", []string{`"5"`}, 0, false},
	{"other digits", []string{"٣"}, 0, false},
	{"list", []string{"5, 10"}, 0, false},
	{"two lines", []string{"5", "10"}, 0, false}, // a singleton (RFC 9110 §5.3)
	{"word", []string{"soon"}, 0, false},
	{"NUL", []string{"5\x00"}, 0, false},
	// HTTP-date, all three forms (RFC 9110 §5.6.7)
	{"IMF-fixdate", []string{"Fri, 31 Jul 2026 12:00:30 GMT"}, 30 * time.Second, true},
	{"rfc850-date", []string{"Friday, 31-Jul-26 12:00:30 GMT"}, 30 * time.Second, true},
	{"asctime-date", []string{"Fri Jul 31 12:00:30 2026"}, 30 * time.Second, true},
	{"now", []string{"Fri, 31 Jul 2026 12:00:00 GMT"}, 0, true},
	{"past", []string{"Fri, 31 Dec 1999 23:59:59 GMT"}, 0, true},
	{"before any Duration", []string{"Mon, 01 Jan 0001 00:00:00 GMT"}, 0, true},
	{"beyond any Duration", []string{"Fri, 31 Dec 9999 23:59:59 GMT"}, maxAfter, true},
	{"no such day", []string{"Fri, 31 Feb 2026 12:00:30 GMT"}, 0, false},
	{"other zone", []string{"Fri, 31 Jul 2026 12:00:30 CET"}, 0, false},
	{"numeric zone", []string{"Fri, 31 Jul 2026 12:00:30 +0000"}, 0, false},
	{"lower-case zone", []string{"Fri, 31 Jul 2026 12:00:30 gmt"}, 0, false},
	{"RFC 3339", []string{"2026-07-31T12:00:30Z"}, 0, false},
	{"trailing text", []string{"Fri, 31 Jul 2026 12:00:30 GMT; x"}, 0, false},
	// Two digits mean the past once they are more than 50 years ahead (RFC 9110 §5.6.7).
	{"rfc850-date just within 50 years", []string{"Friday, 31-Jul-76 12:00:00 GMT"}, 50*365*24*time.Hour + 13*24*time.Hour, true},
	{"rfc850-date just beyond 50 years", []string{"Friday, 31-Jul-76 12:00:01 GMT"}, 0, true},
	{"rfc850-date after 1969", []string{"Friday, 31-Jul-70 12:00:00 GMT"}, 44*365*24*time.Hour + 11*24*time.Hour, true},
	{"rfc850-date of last year", []string{"Thursday, 31-Jul-25 12:00:00 GMT"}, 0, true},
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, tt := range afterTable {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{}
			for _, line := range tt.lines {
				h.Add("Retry-After", line)
			}
			d, ok := RetryAfter(h, afterNow)
			require.Equal(t, tt.ok, ok)
			require.Equal(t, tt.want, d)
		})
	}
}

func TestTwoDigitYearsFollowTheCentury(t *testing.T) {
	t.Parallel()
	h := http.Header{"Retry-After": {"Saturday, 01-Jan-05 00:00:10 GMT"}}
	for _, year := range []int{1905, 2005, 2105, 2405} {
		d, ok := RetryAfter(h, time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
		require.True(t, ok)
		require.Equal(t, 10*time.Second, d, "%d", year)
	}
}

func TestRetryAfterAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return
	}
	for _, value := range []string{"120", "Fri, 31 Jul 2026 12:00:30 GMT"} {
		h := http.Header{"Retry-After": {value}}
		require.Zero(t, testing.AllocsPerRun(100, func() { RetryAfter(h, afterNow) }), value)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, tt := range afterTable {
		if len(tt.lines) > 0 {
			f.Add(tt.lines[0], afterNow.Unix())
		}
	}
	f.Fuzz(func(t *testing.T, value string, unix int64) {
		now := time.Unix(unix%(1<<37), 0).UTC()
		d, ok := RetryAfter(http.Header{"Retry-After": {value}}, now)
		if !ok && d != 0 || d < 0 || d > maxAfter {
			t.Fatalf("%q: %v, %v", value, d, ok)
		}
		trimmed := strings.Trim(value, " \t\r\n")
		digits := trimmed != "" && strings.Trim(trimmed, "0123456789") == ""
		if n, err := strconv.ParseInt(trimmed, 10, 64); digits && err == nil && d != min(time.Duration(min(n, maxSeconds))*time.Second, maxAfter) {
			t.Fatalf("%q is %d s, not %v", value, n, d)
		}
		if _, err := http.ParseTime(trimmed); ok != (digits || err == nil) {
			t.Fatalf("%q: ok is %v", value, ok)
		}
	})
}

func BenchmarkRetryAfter(b *testing.B) {
	for _, form := range []struct{ name, value string }{
		{"seconds", "120"},
		{"date", "Fri, 31 Jul 2026 12:00:30 GMT"},
		{"garbage", strings.Repeat("9", 8000) + "x"},
	} {
		b.Run("form="+form.name, func(b *testing.B) {
			b.ReportAllocs()
			h := http.Header{"Retry-After": {form.value}}
			for b.Loop() {
				RetryAfter(h, afterNow)
			}
		})
	}
}
