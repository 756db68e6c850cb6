package forward

import (
	"net/http"
	"strconv"
	"strings"
)

// Accept returns the offered media type that the client prefers, the first of equals, or "" if it accepts none (RFC 9110 §12.5.1). A request
// without Accept takes anything, and so does one that says nothing in it; a malformed member counts for nothing.
func Accept(h http.Header, offers ...string) string {
	lines := h["Accept"]
	if strings.Trim(strings.Join(lines, ","), ", \t") == "" {
		return offers[0]
	}
	best, bestQ := "", 0.0
	for _, offer := range offers {
		if q := quality(lines, offer); q > bestQ {
			best, bestQ = offer, q
		}
	}
	return best
}

// quality returns the weight of the most specific range that covers a media type.
func quality(lines []string, offer string) (q float64) {
	most := 0
	kind, _, _ := strings.Cut(offer, "/")
	for _, line := range lines {
		for more := true; more; {
			var member string
			member, line, more = cutMember(line)
			name, params, _ := strings.Cut(member, ";")
			specific := 0
			switch name = trimOWS(name); {
			case strings.EqualFold(name, offer):
				specific = 3
			case strings.EqualFold(name, kind+"/*"):
				specific = 2
			case name == "*/*":
				specific = 1
			}
			if specific > most {
				most, q = specific, weight(params)
			}
		}
	}
	return q
}

// weight reads q from a range's parameters, RFC 9110 §12.4.2.
func weight(params string) float64 {
	for params != "" {
		var p string
		p, params, _ = strings.Cut(params, ";")
		name, value, _ := strings.Cut(trimOWS(p), "=")
		if !strings.EqualFold(name, "q") {
			continue
		}
		q, err := strconv.ParseFloat(value, 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return 0
		}
		return q
	}
	return 1
}
