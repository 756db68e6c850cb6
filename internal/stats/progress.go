package stats

import (
	"sync/atomic"
	"time"
)

// Progress is what is known of something on its way, at one stage at a time, to somebody else who looks at it now and then. The zero value is at
// stage 0, since it began. At is for one goroutine, the rest for another, which may look meanwhile.
type Progress struct {
	note atomic.Uint32 // the stage, and how many there were before

	seen     uint32
	since    time.Time // when that was seen first
	looked   time.Time // zero: never
	own      time.Duration
	toldOwn  bool
	toldLong bool
}

const stageBits = 8 // of a note; the others count the changes

func stageOf(note uint32) int { return int(note & (1<<stageBits - 1)) }

// At notes the stage that it is at.
func (p *Progress) At(stage int) {
	if note := p.note.Load(); stageOf(note) != stage {
		p.note.Store((note>>stageBits+1)<<stageBits | uint32(stage)) //nolint:gosec // less than MaxStages
	}
}

// Pace is how long something may take.
type Pace struct {
	Long, Own time.Duration // all of it, and our own part
	LastOwn   int           // the stages up to this are our own part
	Endless   int           // at this stage it may take for ever
}

// Slow looks at what began at start, and reports whether it has become slow since the last look: too long, or too long in our own part. It says so
// once for either. Of a stage that began and ended between two looks nothing is known.
func (p *Progress) Slow(start, now time.Time, pace *Pace) bool {
	note := p.note.Load()
	if p.looked.IsZero() {
		p.since, p.looked, p.seen = now, now, note
		if note == 0 { // it is where it began
			p.since, p.looked = start, start
		}
	}
	if note != p.seen {
		p.seen, p.since = note, now
	} else if stageOf(note) <= pace.LastOwn {
		p.own += now.Sub(p.looked)
	}
	p.looked = now
	own := !p.toldOwn && p.own >= pace.Own
	long := !p.toldLong && stageOf(note) != pace.Endless && now.Sub(start) >= pace.Long
	p.toldOwn = p.toldOwn || own
	p.toldLong = p.toldLong || long
	return own || long
}

// Seen returns what the last look has seen: the stage, for how long it has been at that at least, and how long our own part was at least.
func (p *Progress) Seen() (stage int, in, own time.Duration) {
	return stageOf(p.seen), p.looked.Sub(p.since), p.own
}
