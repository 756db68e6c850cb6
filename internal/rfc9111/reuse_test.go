package rfc9111

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestLookup(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, method string
		h            http.Header
		body         bool
		want         Bypass
	}{
		{name: "§2 GET", method: "GET"},
		{name: "§4 HEAD is answered by what GET stored", method: "HEAD"},
		{name: "§4 POST", method: "POST", want: BypassMethod},
		{name: "§4 OPTIONS", method: "OPTIONS", want: BypassMethod},
		{name: "RFC 9110 §9.3.8 TRACE", method: "TRACE", want: BypassMethod},
		{name: "RFC 9110 §9.1 methods are case-sensitive", method: "get", want: BypassMethod},
		{name: "unknown method", method: "PURGE", want: BypassMethod},
		{name: "no method", want: BypassMethod},
		{name: "RFC 9110 §9.3.1 GET with content", method: "GET", body: true, want: BypassBody},
		{name: "RFC 9110 §9.3.2 HEAD with content", method: "HEAD", body: true, want: BypassBody},
		{name: "§5.2.1.5 no-store", method: "GET", h: control("no-store"), want: BypassNoStore},
		{name: "§5.2.1.5 a directive that cannot be read", method: "GET", h: control("max-age=0; no-store"), want: BypassNoStore},
		{name: "§5.2.1.4 no-cache is for Reusable", method: "GET", h: control("no-cache")},
		{name: "§5.2.1.7 only-if-cached is for the caller", method: "GET", h: control("only-if-cached")},
		{name: "RFC 9110 §14.2 Range", method: "GET", h: http.Header{"Range": {"bytes=0-0"}}, want: BypassRange},
		{name: "RFC 9110 §14.2 an unknown unit", method: "GET", h: http.Header{"Range": {"lines=1"}}, want: BypassRange},
		{name: "RFC 9110 §13.1.5 If-Range alone has no meaning", method: "GET", h: http.Header{"If-Range": {`"1"`}}},
		{name: "RFC 9110 §13.1.1 If-Match", method: "GET", h: http.Header{"If-Match": {"*"}}, want: BypassConditional},
		{name: "RFC 9110 §13.1.2 If-None-Match", method: "GET", h: http.Header{"If-None-Match": {`"1"`}}, want: BypassConditional},
		{name: "RFC 9110 §13.1.2 If-None-Match, empty", method: "HEAD", h: http.Header{"If-None-Match": {""}}, want: BypassConditional},
		{name: "RFC 9110 §13.1.3 If-Modified-Since", method: "GET", h: http.Header{"If-Modified-Since": {at(0)}}, want: BypassConditional},
		{name: "RFC 9110 §13.1.4 If-Unmodified-Since", method: "GET", h: http.Header{"If-Unmodified-Since": {"x"}}, want: BypassConditional},
		{name: "RFC 9110 §7.8 Upgrade", method: "GET", h: http.Header{"Upgrade": {"websocket"}}, want: BypassUpgrade},
		{name: "§3.5 Authorization restricts storing, not reuse", method: "GET", h: http.Header{"Authorization": {"Bearer x"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, row.want, Lookup(row.method, row.h, ParseRequest(row.h), row.body))
		})
	}
}

func TestReusable(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, control string
		age           time.Duration
		want          bool
	}{
		{"§4.2 fresh", "", 59 * second, true},
		{"§4.2 fresh to the last", "", 60*second - 1, true},
		{"§4.2 the lifetime must exceed the age", "", 60 * second, false},
		{"§4.2 stale", "", time.Hour, false},
		{"§5.2.1.1 max-age above the age", "max-age=10", 9 * second, true},
		{"§5.2.1.1 max-age equal to the age", "max-age=10", 10 * second, true},
		{"§5.2.1.1 max-age below the age", "max-age=10", 11 * second, false},
		{"§5.2.1.1 max-age does not lengthen", "max-age=90", 70 * second, false},
		{"§5.2.1.1 a reload", "max-age=0", 0, false},
		{"§5.2.1.1 unreadable", "max-age=x", 1, false},
		{"§5.2.1.2 max-stale is not used", "max-stale", 61 * second, false},
		{"§5.2.1.3 min-fresh met", "min-fresh=20", 40 * second, true},
		{"§5.2.1.3 min-fresh not met", "min-fresh=20", 41 * second, false},
		{"§5.2.1.3 min-fresh beyond any lifetime", "min-fresh=99999999999999999999", 0, false},
		{"§5.2.1.3 min-fresh of 0", "min-fresh=0", 59 * second, true},
		{"§5.2.1.4 no-cache", "no-cache", 0, false},
		{"§5.2.1.6 no-transform changes nothing", "no-transform", 0, true},
		{"§5.2.1.7 only-if-cached takes what is there", "only-if-cached", 0, true},
		{"§5.2 a directive that cannot be read", "max-age=60;", 0, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, row.want, Reusable(ParseRequest(control(row.control)), row.age, 60*second))
		})
	}
	assert.False(t, Reusable(noRequest, 0, 0), "no lifetime, no reuse")
}
