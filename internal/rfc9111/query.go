package rfc9111

import (
	"net/url"
	"slices"
	"strings"
)

// maxParameters bounds what a query is taken apart into; one with more stays as
// it is.
const maxParameters = 256

// KeyQuery returns what of a query tells requests apart, where an operator says
// that the parameters of these names do not, or that the order of different ones
// does not. Parameters of one name keep their order. To a server that takes a
// semicolon for a separator, too, what has one is several parameters: it counts
// as it is, and so does the order of all.
func KeyQuery(query string, ignored []string, sorted bool) string {
	if query == "" || len(ignored) == 0 && !sorted || strings.Count(query, "&") >= maxParameters {
		return query
	}
	var kept []parameter
	for pair := range strings.SplitSeq(query, "&") {
		p := parameterOf(pair)
		if p.several || !p.named || !slices.Contains(ignored, p.name) {
			kept = append(kept, p)
		}
	}
	if sorted && !strings.Contains(query, ";") {
		slices.SortStableFunc(kept, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	}
	var text strings.Builder
	for i, p := range kept {
		if i > 0 {
			text.WriteByte('&')
		}
		text.WriteString(p.pair)
	}
	return text.String()
}

// parameter is one of a query.
type parameter struct {
	pair    string // as it came
	name    string // decoded, if it can be
	named   bool   // it could
	several bool   // to some servers
}

func parameterOf(pair string) parameter {
	raw, _, _ := strings.Cut(pair, "=")
	p := parameter{pair: pair, name: raw, several: strings.Contains(pair, ";")}
	if name, err := url.QueryUnescape(raw); err == nil {
		p.name, p.named = name, true
	}
	return p
}
