package telemetry

import (
	"slices"
	"strings"
)

// Ledger has the sums of what some Watches count go on where they are, while Watches come and go. The zero value is empty. It is not safe for
// concurrent use.
type Ledger struct {
	counted map[string]*Sample // of those that have gone, less what others had when they came
}

// Change has the sums be of other Watches from now on. Where there were none, or are none, they begin anew.
func (l *Ledger) Change(were, are []*Watch) {
	if len(were) == 0 || len(are) == 0 {
		l.counted = make(map[string]*Sample)
		return
	}
	for _, w := range were {
		if !slices.Contains(are, w) {
			l.add(w, 1)
		}
	}
	for _, w := range are {
		if !slices.Contains(were, w) {
			l.add(w, -1)
		}
	}
}

func (l *Ledger) add(w *Watch, times float64) {
	w.Read(func(s *Sample) {
		if !s.Counts {
			return
		}
		key := s.Name + strings.Join(s.Labels, " ")
		s.Value *= times
		if had := l.counted[key]; had != nil {
			s.Value += had.Value
		}
		l.counted[key] = s
	})
}

// Read tells what the Watches show that there are, and what their sums are to be added to.
func (l *Ledger) Read(are []*Watch, tell func(*Sample)) {
	for _, w := range are {
		w.Read(tell)
	}
	for _, s := range l.counted {
		tell(s)
	}
}
