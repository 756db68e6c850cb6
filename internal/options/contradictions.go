// Package options judges what options are given, and which of them cannot stand
// beside each other.
package options

// contradictions are the pairs that make no sense in one list, the later of
// which in this table is named in the fault.
var contradictions = [...]struct{ one, other, reason string }{
	{"WithCache", "WithoutCache", "the same list asks for a cache"},
	{"WithCacheAuthorized", "WithoutCache", "the same list refines the cache"},
	{"WithCacheCookies", "WithoutCache", "the same list refines the cache"},
	{"WithRetries", "WithoutRetries", "the same list asks for retries"},
	{"WithRetryBackoff", "WithoutRetries", "the same list refines retries"},
	{"WithRetryBudget", "WithoutRetries", "the same list refines retries"},
	{"WithRetryBodyBytes", "WithoutRetries", "the same list refines retries"},
	{"WithMaxRetryAfter", "WithoutRetries", "the same list refines retries"},
	{"WithPublicEndpoint", "WithoutPublicEndpoint", "the same list asks for traces of its own"},
	{"WithBaggage", "WithoutBaggage", "the same list asks for baggage"},
	{"WithPropagation", "WithoutPropagation", "the same list asks for propagation"},
	{"WithBaggage", "WithoutPropagation", "the same list asks for baggage"},
	{"WithForwarded", "WithoutForwarded", "the same list asks for the field"},
	{"WithServerTiming", "WithoutServerTiming", "the same list asks for the field"},
	{"WithRequestID", "WithoutRequestID", "the same list names a request id header"},
	{"WithBearerToken", "WithTokenSource", "the same list gives a fixed token"},
	{"WithTLSConfig", "WithTransport", "a round tripper of your own has its own TLS configuration"},
	{"WithDialTimeout", "WithTransport", "a round tripper of your own dials by itself"},
	{"WithTLSHandshakeTimeout", "WithTransport", "a round tripper of your own dials by itself"},
	{"WithResponseHeaderTimeout", "WithTransport", "a round tripper of your own keeps its own time; use WithAttemptTimeout"},
	{"WithMaxConns", "WithTransport", "a round tripper of your own has its own connections"},
	{"WithMinConns", "WithTransport", "a round tripper of your own has its own connections"},
	{"WithConnIdleTimeout", "WithTransport", "a round tripper of your own has its own connections"},
	{"WithMaxConnAge", "WithTransport", "a round tripper of your own has its own connections"},
	{"WithAcquireTimeout", "WithTransport", "a round tripper of your own has its own connections"},
	{"WithoutConnReuse", "WithTransport", "a round tripper of your own has its own connections"},
	{"WithDialContext", "WithTransport", "a round tripper of your own dials by itself"},
	{"WithHTTP2", "WithTransport", "a round tripper of your own speaks what it speaks"},
	{"WithDNSRefresh", "WithTransport", "a round tripper of your own resolves names by itself"},
	{"WithMinConns", "WithHTTP2", "one connection carries many requests"},
	{"WithoutConnReuse", "WithHTTP2", "one connection carries many requests"},
	{"WithHTTP2", "WithoutHTTP2", "the same list asks for HTTP/2"},
	{"WithMaxConcurrency", "WithoutMaxConcurrency", "the same list asks for a bound"},
	{"WithRateLimit", "WithoutRateLimit", "the same list asks for a bound"},
	{"WithEjection", "WithoutEjection", "the same list asks for ejection"},
	{"WithEjectionShare", "WithoutEjection", "the same list refines ejection"},
	{"WithHealthChecks", "WithoutHealthChecks", "the same list asks for checks"},
	{"WithBreaker", "WithoutBreaker", "the same list asks for a breaker"},
	{"WithBreakerTimes", "WithoutBreaker", "the same list refines the breaker"},
	{"WithBreakerHook", "WithoutBreaker", "the same list refines the breaker"},
	{"WithSlowRequest", "WithoutSlowRequest", "the same list asks for reports"},
	{"WithMinConns", "WithoutConnReuse", "the same list keeps connections warm"},
	{"WithConnIdleTimeout", "WithoutConnReuse", "the same list keeps idle connections"},
	{"WithMaxConnAge", "WithoutConnReuse", "the same list keeps connections"},
}

// Contradictions calls fault for each option of a list that contradicts another of
// it, and says why.
func Contradictions(given map[string]bool, fault func(option, reason string)) {
	for _, c := range contradictions {
		if given[c.one] && given[c.other] {
			fault(c.other, c.reason+" ("+c.one+")")
		}
	}
}

// Displaced calls drop for each option that gives way, should it be inherited, to
// one of the list that it cannot stand beside.
func Displaced(given map[string]bool, drop func(option string)) {
	for _, c := range contradictions {
		switch one, other := given[c.one], given[c.other]; {
		case one && !other:
			drop(c.other)
		case other && !one:
			drop(c.one)
		}
	}
}
