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
			got := TermsOf(&Exchange{Response: row.h, RequestTime: today, ResponseTime: today}, &Config{})
			assert.Equal(t, row.want, got.Lifetime)
		})
	}
}

func TestSingle(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		h    http.Header
		want bool
	}{
		{"§4 fresh: it answers who waits", control("max-age=60"), false},
		{"§5.2.2.4 no-cache: each use needs validation", control("max-age=60, no-cache"), true},
		{"§4.2 stale from the start", control("max-age=0"), true},
		{"§5.3 stale by Expires", http.Header{"Expires": {"0"}}, true},
		{"§4.2.2 no lifetime at all", nil, true},
		{"§4.2.2 a guess", http.Header{"Last-Modified": {at(-1000 * second)}}, false},
		{"§4.2.3 stale by Age", http.Header{"Cache-Control": {"max-age=60"}, "Age": {"60"}}, true},
		{"§4.2.3 fresh by Age", http.Header{"Cache-Control": {"max-age=60"}, "Age": {"59"}}, false},
		{"§4.2.3 stale by Date, which may be a clock's fault", http.Header{"Cache-Control": {"max-age=1"}, "Date": {at(-2 * second)}}, false},
		{"§4.2.3 stale by the time that it took", control("max-age=3"), false},
		{"RFC 5861 §3 stale, but within the window", control("max-age=0, stale-while-revalidate=60"), false},
		{"RFC 5861 §3 stale, and the window is over", http.Header{"Cache-Control": {"max-age=0, stale-while-revalidate=60"}, "Age": {"61"}}, true},
		{"§5.2.2.2 the window is forbidden", control("max-age=0, stale-while-revalidate=60, must-revalidate"), true},
		{"RFC 5861 §4 the window for errors is none", control("max-age=0, stale-if-error=60"), true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			x := &Exchange{Method: http.MethodGet, Status: 200, Response: row.h, RequestTime: today.Add(-5 * second), ResponseTime: today}
			assert.Equal(t, row.want, TermsOf(x, &Config{MaxHeuristic: year}).Single)
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
			got := TermsOf(&Exchange{Response: row.h, RequestTime: today.Add(-row.delay), ResponseTime: today}, &Config{})
			assert.Equal(t, row.want, got.Age)
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

var heuristics = Config{MaxHeuristic: 24 * time.Hour, DefaultTTL: time.Minute, NegativeTTL: 5 * second}

// modified is a response that states no lifetime, and was changed that long before its Date.
func modified(ago time.Duration) http.Header {
	return http.Header{"Date": {at(0)}, "Last-Modified": {at(-ago)}}
}

func TestHeuristicLifetime(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		status int
		h      http.Header
		config Config
		want   time.Duration
	}{
		{"§4.2.2 a tenth of the time since Last-Modified", 200, modified(1000 * second), heuristics, 100 * second},
		{"§4.2.2 in whole seconds", 200, modified(19 * second), heuristics, second},
		{"§4.2.2 at most MaxHeuristic", 200, modified(year), heuristics, 24 * time.Hour},
		{"§4.2.2 from Date, not from now", 200, http.Header{"Date": {at(-year)}, "Last-Modified": {at(-year - 1000*second)}}, heuristics, 100 * second},
		{"§4.2.2 Last-Modified ahead of Date", 200, modified(-time.Hour), heuristics, 0},
		{"§4.2.2 not where a time is stated", 200, with(modified(year), "Expires", "0"), heuristics, 0},
		{"§4.2.2 not where a time is stated, unreadable", 200, with(modified(year), "Cache-Control", "max-age=x"), heuristics, 0},
		{"§4.2.2 not where a targeted field states it in a wrong type", 200, with(modified(year), CDNCacheControl, `max-age="60"`), targeting(heuristics), 0},
		{"§5.4 Pragma has no meaning, but is no silence", 200, with(modified(year), "Pragma", "no-cache"), heuristics, 0},
		{"§4.2.2 off", 200, modified(year), Config{}, 0},
		{"§4.2.2 off, default", 200, modified(year), Config{DefaultTTL: time.Minute}, time.Minute},
		{"§4.2.2 unreadable Last-Modified", 200, http.Header{"Last-Modified": {"then"}}, heuristics, time.Minute},
		{"§4.2.2 nothing at all", 200, nil, heuristics, time.Minute},
		{"RFC 9110 §15.1 203", 203, modified(1000 * second), heuristics, 100 * second},
		{"RFC 9110 §15.1 204", 204, modified(1000 * second), heuristics, 100 * second},
		{"RFC 9110 §15.1 206", 206, modified(1000 * second), heuristics, 100 * second},
		{"RFC 9110 §15.1 300", 300, modified(1000 * second), heuristics, 100 * second},
		{"RFC 9110 §15.1 301", 301, modified(1000 * second), heuristics, 100 * second},
		{"RFC 9110 §15.1 308", 308, nil, heuristics, time.Minute},
		{"RFC 9110 §15.1 404, negative", 404, modified(1000 * second), heuristics, 5 * second},
		{"RFC 9110 §15.1 404, as others", 404, modified(1000 * second), Config{MaxHeuristic: time.Hour}, 100 * second},
		{"RFC 9110 §15.1 405", 405, nil, heuristics, 5 * second},
		{"RFC 9110 §15.1 410", 410, nil, heuristics, 5 * second},
		{"RFC 9110 §15.1 414", 414, nil, heuristics, 5 * second},
		{"RFC 9110 §15.1 501", 501, nil, heuristics, 5 * second},
		{"an error has no default", 410, nil, Config{DefaultTTL: time.Minute}, 0},
		{"RFC 9110 §15.1 201 is not", 201, modified(1000 * second), heuristics, 0},
		{"RFC 9110 §15.1 202 is not", 202, modified(1000 * second), heuristics, 0},
		{"RFC 9110 §15.1 302 is not", 302, modified(1000 * second), heuristics, 0},
		{"RFC 9110 §15.1 303 is not", 303, modified(1000 * second), heuristics, 0},
		{"RFC 9110 §15.1 307 is not", 307, modified(1000 * second), heuristics, 0},
		{"RFC 9110 §15.1 403 is not", 403, modified(1000 * second), heuristics, 0},
		{"RFC 9110 §15.1 500 is not", 500, modified(1000 * second), heuristics, 0},
		{"RFC 9110 §15.1 502 is not", 502, modified(1000 * second), heuristics, 0},
		{"RFC 9110 §15.1 503 is not", 503, modified(1000 * second), heuristics, 0},
		{"RFC 9110 §15.1 504 is not", 504, modified(1000 * second), heuristics, 0},
		{"RFC 9110 §15.1 599 is not", 599, modified(1000 * second), heuristics, 0},
		{"§5.2.2.9 public marks others so", 599, with(modified(1000*second), "Cache-Control", "public"), heuristics, 100 * second},
		{"§5.2.2.9 public 302", 302, with(modified(1000*second), "Cache-Control", "public"), heuristics, 100 * second},
		{"§1.2.2 capped", 200, nil, Config{DefaultTTL: 1 << 62}, MaxDelta},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got := TermsOf(&Exchange{Status: row.status, Response: row.h, RequestTime: today, ResponseTime: today}, &row.config)
			assert.Equal(t, row.want, got.Lifetime)
			if row.want > 0 {
				assert.True(t, got.Heuristic)
			}
		})
	}
}

func targeting(c Config) Config {
	c.Targeted = []string{CDNCacheControl}
	return c
}

func TestTerms(t *testing.T) {
	t.Parallel()
	plain := Terms{Lifetime: 60 * second, StaleWhileRevalidate: Absent, StaleIfError: Absent}
	for _, row := range []struct {
		name   string
		h      http.Header
		config Config
		want   func(*Terms)
	}{
		{"§4.2.1 max-age", control("max-age=60"), Config{}, func(*Terms) {}},
		{"§5.2.2.4 no-cache", control("max-age=60, no-cache"), Config{}, func(t *Terms) { t.NoCache, t.NoStale, t.Single = true, true, true }},
		{"§5.2.2.2 must-revalidate", control("max-age=60, must-revalidate"), Config{}, func(t *Terms) { t.NoStale = true }},
		{"§5.2.2.8 proxy-revalidate", control("max-age=60, proxy-revalidate"), Config{}, func(t *Terms) { t.NoStale = true }},
		{"§5.2.2.10 s-maxage, as proxy-revalidate", control("s-maxage=60"), Config{}, func(t *Terms) { t.NoStale = true }},
		{"RFC 8246 §2 immutable", control("max-age=60, immutable"), Config{}, func(t *Terms) { t.Immutable = true }},
		{"RFC 5861 §3", control("max-age=60, stale-while-revalidate=9"), Config{}, func(t *Terms) { t.StaleWhileRevalidate = 9 * second }},
		{"RFC 5861 §4", control("max-age=60, stale-if-error=9"), Config{}, func(t *Terms) { t.StaleIfError = 9 * second }},
		{"the operator's windows", control("max-age=60"), Config{StaleWhileRevalidate: second, StaleIfError: 2 * second}, func(t *Terms) { t.StaleWhileRevalidate, t.StaleIfError = second, 2*second }},
		{"the origin's windows count before", control("max-age=60, stale-while-revalidate=0, stale-if-error=9"), Config{StaleWhileRevalidate: second, StaleIfError: 2 * second}, func(t *Terms) { t.StaleWhileRevalidate, t.StaleIfError = 0, 9*second }},
		{"a guess is none of the origin's", nil, Config{DefaultTTL: time.Minute}, func(t *Terms) { t.Heuristic = true }},
	} {
		want := plain
		row.want(&want)
		assert.Equal(t, want, TermsOf(&Exchange{Status: 200, Response: row.h, RequestTime: today, ResponseTime: today}, &row.config), row.name)
	}
}

// FuzzTerms holds that no message makes a response of negative age or unbounded lifetime.
func FuzzTerms(f *testing.F) {
	f.Add("max-age=60", at(0), "", "5", int64(second))
	f.Add("", at(-year), at(year), "-5", int64(-second))
	f.Add("s-maxage=99999999999999999999", "x", "0", "1e30", int64(1<<62))
	f.Fuzz(func(t *testing.T, cacheControl, date, expires, age string, delay int64) {
		terms := TermsOf(&Exchange{
			Status:      200,
			Response:    http.Header{"Cache-Control": {cacheControl}, "Date": {date}, "Expires": {expires}, "Age": {age}, "Last-Modified": {expires}},
			RequestTime: today.Add(-time.Duration(delay)), ResponseTime: today,
		}, &Config{MaxHeuristic: time.Duration(delay), DefaultTTL: time.Duration(delay), StaleIfError: time.Duration(delay)})
		for _, d := range []time.Duration{terms.Lifetime, terms.Age, CurrentAge(terms.Age, today, today.Add(time.Duration(delay)))} {
			require.GreaterOrEqual(t, d, time.Duration(0))
			require.LessOrEqual(t, d, MaxDelta)
		}
		require.False(t, terms.Fresh(terms.Lifetime), "whatever it says, it ends")
		require.NotEqual(t, Fresh, useOf(terms, noRequest, terms.Lifetime))
		require.False(t, terms.AfterError(noRequest, terms.Lifetime+time.Hour+1, time.Hour, false))
	})
}
