package rfc9111

import (
	"net/http"
	"net/textproto"
	"strings"
	"time"
)

// The three forms of HTTP-date without their zone (RFC 9110 §5.6.7).
const (
	imfFixdate = "Mon, 02 Jan 2006 15:04:05"
	rfc850Date = "Monday, 02-Jan-06 15:04:05"
	asctime    = "Mon Jan _2 15:04:05 2006"
)

// ParseDate reads an HTTP-date in any of its three forms and in any case; the only zone is GMT (RFC 9111 §4.2). The name of the day is not
// held against the date. now decides the century of a two-digit year. A leap second is read as the second before it.
func ParseDate(s string, now time.Time) (t time.Time, ok bool) {
	if t, ok := parseFixdate(s); ok {
		return t, true
	}
	s = textproto.TrimString(s)
	if i := strings.LastIndexByte(s, ':'); strings.HasPrefix(s[i+1:], "60") {
		s = s[:i+1] + "59" + s[i+3:]
	}
	layout := asctime
	if zone := len(s) - len(" GMT"); zone >= 0 && strings.EqualFold(s[zone:], " GMT") {
		s, layout = s[:zone], imfFixdate
		if len(s) > len(imfFixdate) {
			layout = rfc850Date
		}
	}
	t, err := time.Parse(layout, s)
	if err != nil || !strings.EqualFold(afterDay(t.Format(layout)), afterDay(s)) { // time.Parse takes more spaces, fewer digits, fractions
		return time.Time{}, false
	}
	if layout == rfc850Date {
		t = t.AddDate(century(now)-century(t), 0, 0)
		if t.After(now.AddDate(50, 0, 0)) { // RFC 9110 §5.6.7: more than 50 years ahead is the past
			t = t.AddDate(-100, 0, 0)
		}
	}
	return t, true
}

// parseFixdate reads the one form that senders may generate, in its exact case, at a tenth of time.Parse's cost.
func parseFixdate(s string) (t time.Time, ok bool) {
	const form = "Mon, 02 Jan 2006 15:04:05 GMT"
	if len(s) != len(form) || s[3:5] != ", " || s[7] != ' ' || s[11] != ' ' || s[16] != ' ' || s[19] != ':' || s[22] != ':' || s[25:] != form[25:] {
		return t, false
	}
	const days, months = "MonTueWedThuFriSatSun", "JanFebMarAprMayJunJulAugSepOctNovDec"
	month := strings.Index(months, s[8:11])
	day, year := digits(s[5:7]), digits(s[12:16])
	hour, minute, second := digits(s[17:19]), digits(s[20:22]), digits(s[23:25])
	if strings.Index(days, s[:3])%3 != 0 || month%3 != 0 || day < 1 || year < 0 || uint(hour) > 23 || uint(minute) > 59 || uint(second) > 59 {
		return t, false
	}
	t = time.Date(year, time.Month(month/3+1), day, hour, minute, second, 0, time.UTC)
	return t, t.Day() == day // or the month has fewer
}

// digits returns the number that s, decimal digits and nothing else, stands for, or -1.
func digits(s string) (n int) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return -1
		}
		n = n*10 + int(s[i]-'0')
	}
	return n
}

// afterDay returns what follows the name of the day.
func afterDay(s string) string { return s[max(0, strings.IndexAny(s, ", ")):] }

func century(t time.Time) int { return t.Year() / 100 * 100 }

// ParseAge reads Age. Of a list it takes the first member; an Age that is not a non-negative integer is as good as none (RFC 9111 §5.1).
func ParseAge(h http.Header) (age time.Duration, ok bool) {
	first, _, _ := strings.Cut(h.Get("Age"), ",")
	return parseDelta(textproto.TrimString(first))
}
