// Package retry decides what may be sent again, when, and within what budget. It sends nothing itself: the caller's
// loop asks it before each attempt.
package retry

import "net/http"

// Repeatable reports whether a request with this method may be sent again although an earlier attempt may have
// reached the server: the method is safe or idempotent (RFC 9110 §9.2.2). Methods are case-sensitive (RFC 9110 §9.1);
// an unknown one is not repeatable.
func Repeatable(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// RetryStatus reports whether a response with this status says that another attempt may fare better: the server that
// answered could not reach, or was not, a working one (RFC 9110 §15.6.3, §15.6.4, §15.6.5).
func RetryStatus(code int) bool { //nolint:revive // retry.Status would be that of a retry
	switch code {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// Purse holds what one fetch may spend on attempts: a number of its own, and a share of a [Budget]. Retries, hedges
// and replays all draw on the same purse. A Purse belongs to one goroutine; make it with [NewPurse].
type Purse struct {
	budget  *Budget
	max     int
	spent   int
	replays int
}

// maxReplays is how often a fetch may be turned away by connections that come to their end. An upstream that ends one after
// a few requests, with many that wait, takes several.
const maxReplays = 16

// NewPurse returns a purse for at most maxAttempts attempts, the first included; less than one counts as one. With a
// nil budget only the number bounds it.
func NewPurse(maxAttempts int, b *Budget) Purse {
	return Purse{budget: b, max: max(maxAttempts, 1)}
}

// First pays for the first attempt, which is never refused, and counts the fetch in the budget. It is called once,
// before any Take.
func (p *Purse) First() {
	p.spent = 1
	if p.budget != nil {
		p.budget.Fetch()
	}
}

// Take pays for one more attempt. It reports false, and pays nothing, when the attempts or the budget are spent.
func (p *Purse) Take() bool {
	if p.spent >= p.max {
		return false
	}
	if p.budget != nil && !p.budget.Withdraw() {
		return false
	}
	p.spent++
	return true
}

// Replay is an attempt in the place of one that a connection turned away because it came to its end: the upstream did
// nothing about that, so it costs the budget nothing. It reports false after sixteen, and where there are no retries.
func (p *Purse) Replay() bool {
	if p.max == 1 || p.replays == maxReplays {
		return false
	}
	p.replays++
	return true
}

// Spent returns the number of attempts, replays included.
func (p *Purse) Spent() int { return p.spent + p.replays }
