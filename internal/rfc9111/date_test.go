package rfc9111

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// today is the moment of every exchange in these tests; its seconds have a fraction, as real ones do.
var today = time.Date(2026, time.March, 14, 9, 26, 53, 589_793_238, time.UTC)

var example = time.Date(1994, time.November, 6, 8, 49, 37, 0, time.UTC)

var dateTable = []struct {
	name, date string
	want       time.Time // zero: invalid
}{
	{"RFC 9110 §5.6.7 IMF-fixdate", "Sun, 06 Nov 1994 08:49:37 GMT", example},
	{"RFC 9110 §5.6.7 RFC 850", "Sunday, 06-Nov-94 08:49:37 GMT", example},
	{"RFC 9110 §5.6.7 asctime", "Sun Nov  6 08:49:37 1994", example},
	{"asctime, two-digit day", "Wed Nov 16 08:49:37 1994", example.AddDate(0, 0, 10)},
	{"§4.2 any case", "sUN, 06 nOV 1994 08:49:37 gMT", example},
	{"§4.2 any case, RFC 850", "SUNDAY, 06-NOV-94 08:49:37 gmt", example},
	{"white space around it", " \tSun, 06 Nov 1994 08:49:37 GMT ", example},
	{"the wrong day of the week", "Mon, 06 Nov 1994 08:49:37 GMT", example},
	{"leap second", "Sat, 31 Dec 2016 23:59:60 GMT", time.Date(2016, 12, 31, 23, 59, 59, 0, time.UTC)},
	{"leap second, RFC 850", "Saturday, 31-Dec-16 23:59:60 GMT", time.Date(2016, 12, 31, 23, 59, 59, 0, time.UTC)},
	{"leap second, asctime", "Sat Dec 31 23:59:60 2016", time.Date(2016, 12, 31, 23, 59, 59, 0, time.UTC)},
	{"leap day", "Thu, 29 Feb 2024 00:00:00 GMT", time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)},
	{"RFC 9110 §5.6.7 two digits, the past", "Thursday, 01-Jan-26 00:00:00 GMT", time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
	{"RFC 9110 §5.6.7 less than 50 years ahead", "Friday, 13-Mar-76 00:00:00 GMT", time.Date(2076, 3, 13, 0, 0, 0, 0, time.UTC)},
	{"RFC 9110 §5.6.7 more than 50 years ahead", "Monday, 15-Mar-76 00:00:00 GMT", time.Date(1976, 3, 15, 0, 0, 0, 0, time.UTC)},
	{"far future", "Fri, 31 Dec 9999 23:59:59 GMT", time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)},

	{"empty", "", time.Time{}},
	{"§5.3 zero", "0", time.Time{}},
	{"§5.3 minus one", "-1", time.Time{}},
	{"text", "never", time.Time{}},
	{"only a zone", " GMT", time.Time{}},
	{"a number of seconds", "784111777", time.Time{}},
	{"§4.2 UTC is not GMT", "Sun, 06 Nov 1994 08:49:37 UTC", time.Time{}},
	{"§4.2 UTC in RFC 850, which net/http takes", "Thursday, 18-Aug-50 02:01:18 UTC", time.Time{}},
	{"§4.2 another zone", "Sun, 06 Nov 1994 08:49:37 AEST", time.Time{}},
	{"§4.2 a numeric zone", "Sun, 06 Nov 1994 08:49:37 +0000", time.Time{}},
	{"no zone", "Sun, 06 Nov 1994 08:49:37", time.Time{}},
	{"asctime with a zone", "Sun Nov  6 08:49:37 1994 GMT", time.Time{}},
	{"no comma", "Sun 06 Nov 1994 08:49:37 GMT", time.Time{}},
	{"no day", "06 Nov 1994 08:49:37 GMT", time.Time{}},
	{"dashes", "Sun, 06-Nov-1994 08:49:37 GMT", time.Time{}},
	{"two-digit year", "Sun, 06 Nov 94 08:49:37 GMT", time.Time{}},
	{"one-digit day", "Sun, 6 Nov 1994 08:49:37 GMT", time.Time{}},
	{"one-digit hour", "Sun, 06 Nov 1994 8:49:37 GMT", time.Time{}},
	{"two spaces", "Sun, 06  Nov 1994 08:49:37 GMT", time.Time{}},
	{"spaces for digits", "Sun,  06 Nov 1994 8:49:37 GMT", time.Time{}},
	{"asctime, one space", "Sun Nov 6 08:49:37 1994", time.Time{}},
	{"fractions", "Sun, 06 Nov 1994 08:49:37.5 GMT", time.Time{}},
	{"hour 24", "Sun, 06 Nov 1994 24:00:00 GMT", time.Time{}},
	{"second 61", "Sun, 06 Nov 1994 08:49:61 GMT", time.Time{}},
	{"30 February", "Fri, 30 Feb 2024 00:00:00 GMT", time.Time{}},
	{"something after", "Sun, 06 Nov 1994 08:49:37 GMT, x", time.Time{}},
}

func TestParseDate(t *testing.T) {
	t.Parallel()
	for _, row := range dateTable {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, ok := ParseDate(row.date, today)
			assert.Equal(t, !row.want.IsZero(), ok)
			assert.Equal(t, row.want, got)
		})
	}
}

func FuzzParseDate(f *testing.F) {
	for _, row := range dateTable {
		f.Add(row.date)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := ParseDate(s, today)
		if !ok {
			require.True(t, got.IsZero())
			if theirs, err := http.ParseTime(s); err == nil { // we take no less, save what the standard rules out
				formatted := []string{theirs.Format(http.TimeFormat), theirs.Format(time.ANSIC)}
				require.NotContains(t, formatted, s)
			}
			return
		}
		require.Equal(t, time.UTC, got.Location())
		require.Zero(t, got.Nanosecond())
		again, ok := ParseDate(got.Format(http.TimeFormat), today)
		require.True(t, ok)
		require.Equal(t, got, again)
	})
}

var ageTable = []struct {
	name  string
	lines []string
	want  time.Duration
	ok    bool
}{
	{"§5.1 absent", nil, 0, false},
	{"§5.1 seconds", []string{"7"}, 7 * second, true},
	{"§5.1 zero", []string{"0"}, 0, true},
	{"§5.1 the first member of a list", []string{"7, 9"}, 7 * second, true},
	{"§5.1 the first of several lines", []string{"7", "9"}, 7 * second, true},
	{"§5.1 an invalid first member", []string{"x, 9"}, 0, false},
	{"§5.1 negative is ignored", []string{"-5"}, 0, false},
	{"§5.1 signed is ignored", []string{"+5"}, 0, false},
	{"§5.1 an exponent is ignored", []string{"1e30"}, 0, false},
	{"§5.1 decimals are ignored", []string{"7.0"}, 0, false},
	{"§5.1 a string is ignored", []string{`"7"`}, 0, false},
	{"§5.1 parameters are ignored with it", []string{"7;x=1"}, 0, false},
	{"§5.1 empty", []string{""}, 0, false},
	{"§1.2.2 capped", []string{"99999999999999999999999"}, MaxDelta, true},
}

func TestParseAge(t *testing.T) {
	t.Parallel()
	for _, row := range ageTable {
		got, ok := ParseAge(http.Header{"Age": row.lines})
		assert.Equal(t, row.want, got, row.name)
		assert.Equal(t, row.ok, ok, row.name)
	}
}

func FuzzParseAge(f *testing.F) {
	for _, row := range ageTable {
		f.Add(strings.Join(row.lines, ","))
	}
	f.Fuzz(func(t *testing.T, s string) {
		age, ok := ParseAge(http.Header{"Age": {s}})
		within(t, 0, age)
		require.True(t, ok || age == 0)
	})
}

// The fast path reads nothing that the slow one does not, and nothing otherwise.
func FuzzParseFixdate(f *testing.F) {
	for _, s := range []string{
		"Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 30 Feb 1994 08:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT", "unM, 06 Nov 1994 08:49:37 GMT",
		"Sun, 06 anF 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 Nov 1994 08:49:60 GMT", "Sun, 29 Feb 2000 00:00:00 GMT", "Sun, 06 Nov -994 08:49:37 GMT",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseFixdate(s)
		want, err := time.Parse(imfFixdate+" GMT", s)
		if ok {
			require.NoError(t, err)
			require.True(t, want.Equal(got), "%v is not %v", got, want)
		}
	})
}
