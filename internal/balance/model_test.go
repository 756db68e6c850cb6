package balance

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// model is a breaker without locks, tickets or words: it remembers everything.
type model struct {
	BreakerConfig
	state   State
	period  int
	until   time.Time
	again   int
	results []result
	probes  map[*modelLease]time.Time // of running ones, when they expire
	passed  int
}

type result struct {
	tick   int64
	failed bool
}

type modelLease struct {
	period int
	done   bool
}

func (m *model) allow(now time.Time) *modelLease {
	if m.state == Open && !now.Before(m.until) {
		m.state, m.probes, m.passed = HalfOpen, map[*modelLease]time.Time{}, 0
		m.period++
	}
	switch m.state {
	case Open:
		return nil
	case HalfOpen:
		for l, expires := range m.probes {
			if len(m.probes)+m.passed >= m.Probes && !now.Before(expires) {
				delete(m.probes, l)
			}
		}
		if len(m.probes)+m.passed >= m.Probes {
			return nil
		}
		l := &modelLease{period: m.period}
		m.probes[l] = now.Add(m.Lease)
		return l
	default:
		return &modelLease{period: m.period}
	}
}

func (m *model) done(l *modelLease, o Outcome, now time.Time, tick int64) {
	if l.done || l.period != m.period {
		l.done = true
		return
	}
	l.done = true
	if m.state == HalfOpen {
		if _, running := m.probes[l]; !running {
			return
		}
		delete(m.probes, l)
		switch o {
		case Success:
			if m.passed++; m.passed == m.Probes {
				m.state, m.again, m.results = Closed, 0, nil
				m.period++
			}
		case Failure:
			m.open(now)
		}
		return
	}
	if o != Success && o != Failure {
		return
	}
	m.results = append(m.results, result{tick, o == Failure})
	var total, failed int
	for _, r := range m.results {
		if r.tick+10 > tick {
			total++
			if r.failed {
				failed++
			}
		}
	}
	if o == Failure && total >= m.Volume && float64(failed)/float64(total) >= m.Ratio {
		m.open(now)
	}
}

func (m *model) open(now time.Time) {
	m.state, m.until = Open, now.Add(m.Open<<min(m.again, 3))
	m.again++
	m.period++
}

func TestBreakerAgreesWithModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 2))
		c := breakerConfig
		c.Probes = 1 // with one, which expired probe makes room does not matter
		now := time.Now()
		b, m := NewBreaker(c), model{BreakerConfig: c}
		type pair struct {
			lease Lease
			model *modelLease
		}
		var out []pair
		failing := false
		for range 1000 {
			now = now.Add(time.Duration(random.ExpFloat64() * 3e8))
			if random.IntN(50) == 0 {
				failing = !failing
			}
			lease, ok := b.Allow(now)
			l := m.allow(now)
			require.Equal(t, l != nil, ok)
			if ok {
				out = append(out, pair{lease, l})
			}
			if len(out) > 0 && random.IntN(4) > 0 {
				o := Success
				switch {
				case random.IntN(10) == 0:
					o = Neutral
				case failing:
					o = Failure
				}
				i := len(out) - 1 - min(random.IntN(5), len(out)-1)
				// Ticks are those of the breaker's period.
				tick := int64(b.ticks(b.period.Load(), b.instant(now)))
				out[i].lease.Done(o, now)
				m.done(out[i].model, o, now, tick)
			}
			require.Equal(t, m.state, b.Status(now).State)
			if m.state == Open {
				require.Equal(t, max(m.until.Sub(now), 0), b.RetryAfter(now))
			}
		}
	}
}
