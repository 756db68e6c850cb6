package balance

import "time"

// The time that a history reaches back, in buckets of one second: the second that runs and the nine before it.
const buckets = 10

// history counts outcomes of the last ten seconds.
type history [buckets]struct {
	second int64
	tally
}

type tally struct{ successes, failures int }

// add returns the running second's tally.
func (h *history) add(at instant) *tally {
	second := int64(at) / int64(time.Second)
	b := &h[second%buckets]
	if b.second < second {
		b.second, b.tally = second, tally{}
	}
	return &b.tally
}

func (h *history) sum(at instant) (t tally) {
	second := int64(at) / int64(time.Second)
	for i := range h {
		if b := &h[i]; b.second+buckets > second {
			t.successes += b.successes
			t.failures += b.failures
		}
	}
	return t
}

func (t tally) rate() (rate float64, volume int) {
	volume = t.successes + t.failures
	return float64(t.successes) / float64(max(volume, 1)), volume
}
