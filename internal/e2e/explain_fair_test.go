package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/embedgw/gateway"
)

// Whatever is asked, in whatever state of breakers, limits, replicas and the cache:
// what is said of a request right before it is served becomes of it.
func TestExplainForeseesWhateverIsAsked(t *testing.T) {
	atFair(t, func(c *fair) {
		var said gateway.Explanation
		c.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			said = c.gw.Explain(r)
			c.gw.ServeHTTP(w, r)
		})
		verdicts := map[gateway.Verdict]int{}
		for id := range 400 {
			raw, method, stays := c.request(id)
			if rand.IntN(2) == 0 { // or hardly any would find something stored
				_, fields, _ := strings.Cut(raw, "\r\n")
				raw = fmt.Sprintf("%s /%s/%s/%d HTTP/1.1\r\n%s", method, anyOf("cached", "hedged", "breaks", "rate"), anyOf("fresh", "moody", "big", "private", "fail"), rand.IntN(2), fields)
			}
			if id%50 == 0 {
				require.NoError(c, c.gw.Update(c.services(id/50)...))
			}
			said = gateway.Explanation{}
			known, ended := c.logged(), len(c.spans.Ended())
			c.send(raw, method, max(stays, 10*time.Second)) // one at a time
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			synctest.Wait()
			if said.Verdict == "" { // net/http's server has refused it
				continue
			}
			verdicts[said.Verdict]++
			for span, l := range c.logged() {
				if _, before := known[span]; !before {
					c.cameTrue(raw, &said, &l, c.addressed(ended))
				}
			}
		}
		for _, v := range []gateway.Verdict{gateway.VerdictFresh, gateway.VerdictRevalidate, gateway.VerdictSend, gateway.VerdictRefuse} {
			assert.Positive(c, verdicts[v], v)
		}
	})
}

// cameTrue compares what was said of a request with its line, and with where its
// attempts went.
func (c *fair) cameTrue(raw string, said *gateway.Explanation, l *ledger, addressed []string) {
	c.Helper()
	assert.Equal(c, l.service, said.Service, raw)
	what, _, _ := strings.Cut(raw, " HTTP/1.1")
	what = fmt.Sprintf("%.80s: %s (%s), %s; %+v", what, said.Verdict, said.Reason, said.Why, *l)
	switch said.Verdict {
	case gateway.VerdictRefuse:
		assert.Equal(c, string(said.Reason), l.reason, what)
		assert.Equal(c, said.Status, l.status, what)
		assert.Empty(c, addressed, what)
	case gateway.VerdictFresh, gateway.VerdictStale, gateway.VerdictRefresh:
		assert.Equal(c, "hit", l.cache, what)
		assert.Equal(c, said.Status, l.status, what)
	case gateway.VerdictInstead:
		assert.Equal(c, "stale", l.cache, what)
		assert.Empty(c, l.reason, what)
		assert.Equal(c, said.Status, l.status, what)
	case gateway.VerdictSend, gateway.VerdictRevalidate:
		assert.NotEqual(c, "hit", l.cache, what)
		if !slices.Contains([]string{"token_unavailable", "client_closed", "client_body_error", "body_too_large"}, l.reason) {
			assert.NotEmpty(c, addressed, what)
		}
	default:
		c.Errorf("nobody else asks, nor is there a Max-Forwards: %s", what)
	}
	for _, r := range said.Replicas {
		if len(addressed) > 0 && r.Address == addressed[0] {
			assert.True(c, r.Candidate, what)
		}
		if r.Chosen && len(addressed) > 0 {
			assert.Contains(c, addressed, r.Address, what)
		}
	}
}

// addressed is where attempts went whose spans are not among the first so many.
func (c *fair) addressed(known int) (all []string) {
	for _, s := range c.spans.Ended()[known:] {
		for _, a := range s.Attributes() {
			if s.SpanKind() == trace.SpanKindClient && a.Key == "server.address" {
				all = append(all, a.Value.AsString()+":80")
			}
		}
	}
	return all
}
