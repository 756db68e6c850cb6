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
// does not. Parameters of one name keep their order.
func KeyQuery(query string, ignored []string, sorted bool) string {
	if query == "" || len(ignored) == 0 && !sorted || strings.Count(query, "&") >= maxParameters {
		return query
	}
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		if name, err := url.QueryUnescape(parameterName(pair)); err != nil || !slices.Contains(ignored, name) {
			kept = append(kept, pair)
		}
	}
	if sorted {
		slices.SortStableFunc(kept, func(a, b string) int { return strings.Compare(parameterName(a), parameterName(b)) })
	}
	return strings.Join(kept, "&")
}

func parameterName(pair string) string {
	name, _, _ := strings.Cut(pair, "=")
	return name
}
