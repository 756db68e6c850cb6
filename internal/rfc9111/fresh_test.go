package rfc9111

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func at(offset time.Duration) string { return today.Add(offset).Format(http.TimeFormat) }

const year = 365 * 24 * time.Hour

func TestFreshnessLifetime(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		h    http.Header
		want time.Duration
	}{
		{"§4.2.1 s-maxage first", http.Header{"Cache-Control": {"max-age=1, s-maxage=60"}, "Expires": {at(5 * second)}}, 60 * second},
		{"§4.2.1 then max-age", http.Header{"Cache-Control": {"max-age=60"}, "Expires": {at(5 * second)}, "Date": {at(0)}}, 60 * second},
		{"§4.2.1 then Expires minus Date", http.Header{"Expires": {at(60 * second)}, "Date": {at(-30 * second)}}, 90 * second},
		{"§4.2.1 none explicit", http.Header{"Last-Modified": {at(-year)}}, 0},
		{"§4.2.1 max-age given twice", control("max-age=60, max-age=61"), 0},
		{"§4.2.1 s-maxage given twice", control("max-age=60, s-maxage=60, s-maxage=61"), 0},
		{"§4.2.1 Expires given twice", http.Header{"Expires": {at(60 * second), at(90 * second)}, "Date": {at(0)}}, 0},
		{"§4.2.1 Expires given twice alike", http.Header{"Expires": {at(60 * second), at(60 * second)}, "Date": {at(0)}}, 60 * second},
		{"§5.2.2.10 s-maxage of 0 overrides", control("max-age=60, s-maxage=0"), 0},
		{"§5.3 Expires is ignored beside max-age", http.Header{"Cache-Control": {"max-age=0"}, "Expires": {at(year)}}, 0},
		{"§5.3 zero is in the past", http.Header{"Expires": {"0"}, "Date": {at(0)}}, 0},
		{"§5.3 an invalid date is in the past", http.Header{"Expires": {"tomorrow"}}, 0},
		{"§5.3 empty is in the past", http.Header{"Expires": {""}}, 0},
		{"§5.3 Expires before Date", http.Header{"Expires": {at(-60 * second)}, "Date": {at(0)}}, 0},
		{"§5.3 Expires equal to Date", http.Header{"Expires": {at(0)}, "Date": {at(0)}}, 0},
		{"§1.2.2 capped", http.Header{"Expires": {"Fri, 31 Dec 9999 23:59:59 GMT"}, "Date": {at(0)}}, MaxDelta},
		{"Date a year ahead does not lengthen", http.Header{"Expires": {at(60 * second)}, "Date": {at(year)}}, 0},
		{"Date and Expires a year ahead", http.Header{"Expires": {at(year + 60*second)}, "Date": {at(year)}}, 60 * second},
		{"RFC 9110 §6.6.1 no Date: when it arrived", http.Header{"Expires": {at(61 * second)}}, 61*second - time.Duration(today.Nanosecond())},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, _ := Fresh(&Exchange{Response: row.h, RequestTime: today, ResponseTime: today})
			assert.Equal(t, row.want, got)
		})
	}
}

func TestInitialAge(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		h     http.Header
		delay time.Duration
		want  time.Duration
	}{
		{"§4.2.3 neither Date nor Age", nil, 0, 0},
		{"§4.2.3 apparent_age is response_time minus date_value", http.Header{"Date": {at(-9 * second)}}, 0, 9 * second},
		{"§4.2.3 apparent_age is not negative", http.Header{"Date": {at(9 * second)}}, 0, 0},
		{"§4.2.3 a year ahead", http.Header{"Date": {at(year)}}, 0, 0},
		{"§4.2.3 a year ago", http.Header{"Date": {at(-year)}}, 0, year},
		{"§4.2.3 corrected_age_value is age_value plus response_delay", http.Header{"Age": {"7"}, "Date": {at(0)}}, 2 * second, 9 * second},
		{"§4.2.3 response_delay alone", http.Header{"Date": {at(0)}}, 2 * second, 2 * second},
		{"§4.2.3 the greater of the two", http.Header{"Age": {"7"}, "Date": {at(-90 * second)}}, 0, 90 * second},
		{"§4.2.3 the greater is the other", http.Header{"Age": {"90"}, "Date": {at(-7 * second)}}, 0, 90 * second},
		{"§5.1 a negative Age is ignored", http.Header{"Age": {"-5"}}, 0, 0},
		{"§5.1 an exponent is ignored", http.Header{"Age": {"1e30"}}, 0, 0},
		{"§5.1 the first of two", http.Header{"Age": {"5", "1"}}, 0, 5 * second},
		{"§1.2.2 Age capped", http.Header{"Age": {"99999999999999999999"}}, 0, MaxDelta},
		{"§1.2.2 the sum capped", http.Header{"Age": {"2147483647"}}, time.Hour, MaxDelta},
		{"a clock set back while it came", nil, -time.Hour, 0},
		{"an unreadable Date is as none", http.Header{"Date": {"yesterday"}}, 0, 0},
		{"Date has whole seconds: within the same one is no age", http.Header{"Date": {at(-time.Duration(today.Nanosecond()))}}, 0, 0},
		{"year 0", http.Header{"Date": {"Sat, 01 Jan 0000 00:00:00 GMT"}}, 0, MaxDelta},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, got := Fresh(&Exchange{Response: row.h, RequestTime: today.Add(-row.delay), ResponseTime: today})
			assert.Equal(t, row.want, got)
		})
	}
}

func TestCurrentAge(t *testing.T) { // RFC 9111 §4.2.3: corrected_initial_age plus resident_time
	t.Parallel()
	assert.Equal(t, 9*second, CurrentAge(7*second, today, today.Add(2*second)))
	assert.Equal(t, 7*second, CurrentAge(7*second, today, today.Add(-time.Hour)), "a clock set back makes nothing younger")
	assert.Equal(t, MaxDelta, CurrentAge(MaxDelta, today, today.Add(100*year)))
	assert.Equal(t, MaxDelta, CurrentAge(0, time.Time{}, today))
}

// FuzzFresh holds that no message makes a response of negative age or unbounded lifetime.
func FuzzFresh(f *testing.F) {
	f.Add("max-age=60", at(0), "", "5", int64(second))
	f.Add("", at(-year), at(year), "-5", int64(-second))
	f.Add("s-maxage=99999999999999999999", "x", "0", "1e30", int64(1<<62))
	f.Fuzz(func(t *testing.T, cacheControl, date, expires, age string, delay int64) {
		lifetime, initial := Fresh(&Exchange{
			Response:    http.Header{"Cache-Control": {cacheControl}, "Date": {date}, "Expires": {expires}, "Age": {age}},
			RequestTime: today.Add(-time.Duration(delay)), ResponseTime: today,
		})
		for _, d := range []time.Duration{lifetime, initial, CurrentAge(initial, today, today.Add(time.Duration(delay)))} {
			require.GreaterOrEqual(t, d, time.Duration(0))
			require.LessOrEqual(t, d, MaxDelta)
		}
		require.False(t, Reusable(noRequest, lifetime, lifetime), "whatever it says, it ends")
	})
}
