package stats

import "time"

// MaxStages is how many stages Laps can tell apart.
const MaxStages = 12

// Laps adds up how long something was at each of some stages, at one at a time. Times are those since its beginning. The
// zero Laps is off, and takes no notice of anything but Start. It is not safe for concurrent use.
type Laps struct {
	on    bool
	at    uint8
	seen  uint16 // a bit for each stage that was left
	since time.Duration
	spent [MaxStages]time.Duration
}

// Start begins with a stage.
func (l *Laps) Start(stage int) { l.on, l.at = true, uint8(stage) } //nolint:gosec // less than MaxStages

// On reports whether Start was called.
func (l *Laps) On() bool { return l.on }

// Leaves reports whether Next with that stage would change anything.
func (l *Laps) Leaves(stage int) bool { return l.on && int(l.at) != stage }

// Next ends the stage that it is at, at a time, and begins another.
func (l *Laps) Next(stage int, at time.Duration) {
	if l.Leaves(stage) {
		l.End(at)
		l.at = uint8(stage) //nolint:gosec // less than MaxStages
	}
}

// Become has what was taken to be one stage, since it was begun last, be another, if that is what it is at.
func (l *Laps) Become(from, to int) bool {
	if !l.on || int(l.at) != from {
		return false
	}
	l.at = uint8(to) //nolint:gosec // less than MaxStages
	return true
}

// Only reports whether it is at that stage, and was at no other.
func (l *Laps) Only(stage int) bool { return l.on && l.seen == 0 && int(l.at) == stage }

// End ends the stage that it is at. A time before it has begun is when it has.
func (l *Laps) End(at time.Duration) {
	if l.on {
		l.spent[l.at] += max(at-l.since, 0)
		l.seen |= 1 << l.at
		l.since = max(at, l.since)
	}
}

// SoFar is Spent with the stage that it is at ended at a time, of which nothing is kept.
func (l *Laps) SoFar(stage int, at time.Duration) (time.Duration, bool) {
	spent, ok := l.Spent(stage)
	if l.on && int(l.at) == stage {
		return spent + max(at-l.since, 0), true
	}
	return spent, ok
}

// Spent returns how long it was at a stage that has ended, and whether it ever was.
func (l *Laps) Spent(stage int) (time.Duration, bool) {
	return l.spent[stage], l.seen&(1<<stage) != 0
}
