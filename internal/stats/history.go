package stats

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// What a History keeps.
const (
	SlotTime = 10 * time.Second
	Slots    = 60 // beside the one that is being filled
)

// History is a list of Histograms, its rows, with what they and some Counters have had lately, in slots of ten seconds,
// and since a Reset. Nothing is recorded twice and nothing runs beside: whoever comes first in a slot notes what was
// counted until then. So a duration may be found in the slot beside its own, if it was recorded in the instant when the
// one ended and the next began.
//
// Times are those since some beginning that all callers mean. A row takes 16 KiB from its first duration on, 24 KiB
// after a Reset; in a slot it takes 2 to 4 bytes for each bucket that something came into, some hundred as a rule, and
// less than 4 KiB at the most. It is safe for concurrent use. Make it with NewHistory.
type History struct {
	rows     []row
	counters []*Counter
	current  atomic.Int64 // the slot that is being filled

	mu    sync.Mutex // of all that follows, and of the rows' pasts
	born  time.Duration
	reset time.Duration
	slots [Slots]slot // by their number
	began []uint64    // what the counters had when the current slot began
	base  []uint64    // and at the Reset
}

// row is a Histogram that is made for its first duration.
type row struct {
	live atomic.Pointer[Histogram] // its minimum and maximum are those since somebody looked
	past *past                     // nil: nobody has looked since there is something
}

// past is what is known of a row's Histogram.
type past struct {
	began Snapshot  // when the current slot began
	base  *Snapshot // at the Reset; nil: nothing, or there was none
	slot  extremes  // of the current slot
	since extremes  // since the Reset
}

// slot is what came in ten seconds.
type slot struct {
	number   int64
	counters []uint32 // nil: the slot was never used
	rows     []packed
}

// packed is a Snapshot without what is zero.
type packed struct {
	sum uint64 // ns
	extremes
	buckets []byte // how far it is from the one before, and its count, as varints
}

// NewHistory makes a history of so many rows, and of the counters, that begins at a time.
func NewHistory(at time.Duration, rows int, counters ...*Counter) *History {
	h := &History{
		rows: make([]row, rows), counters: counters, born: at, reset: at,
		began: make([]uint64, len(counters)), base: make([]uint64, len(counters)),
	}
	h.current.Store(int64(at / SlotTime))
	return h
}

// Record adds a duration to a row.
func (h *History) Record(row int, d time.Duration) {
	live := h.rows[row].live.Load()
	if live == nil {
		live = h.rows[row].begin()
	}
	live.Record(d)
}

func (r *row) begin() *Histogram {
	r.live.CompareAndSwap(nil, new(Histogram))
	return r.live.Load()
}

// Advance is to be called before something is recorded or counted, with the time.
func (h *History) Advance(at time.Duration) {
	if int64(at/SlotTime) <= h.current.Load() || !h.mu.TryLock() { // whoever holds it sees to it
		return
	}
	defer h.mu.Unlock()
	h.advance(at)
}

// advance fills the current slot, and begins that of a later time.
func (h *History) advance(at time.Duration) {
	from, to := h.current.Load(), int64(at/SlotTime)
	if to <= from {
		return
	}
	s := &h.slots[from%Slots]
	if s.counters == nil {
		s.counters, s.rows = make([]uint32, len(h.counters)), make([]packed, len(h.rows))
	}
	s.number = from
	for i, c := range h.counters {
		n := c.Load()
		s.counters[i] = uint32(n - h.began[i]) //nolint:gosec // 400 million a second would be too many
		h.began[i] = n
	}
	var scratch []byte
	for i := range h.rows {
		p := &s.rows[i]
		*p = packed{buckets: p.buckets[:0]}
		if past := h.rows[i].look(); past != nil {
			var now Snapshot
			h.rows[i].live.Load().read(&now)
			came := now
			came.subtract(&past.began)
			scratch = p.pack(&came, past.slot, scratch)
			past.began, past.slot = now, extremes{}
		}
	}
	h.current.Store(to)
}

// look brings a row's minimum and maximum up to date; nil: there is nothing.
func (r *row) look() *past {
	live := r.live.Load()
	if live == nil {
		return nil
	}
	if r.past == nil {
		r.past = new(past)
	}
	lately := live.take()
	r.past.slot.add(lately)
	r.past.since.add(lately)
	return r.past
}

func (p *packed) pack(s *Snapshot, e extremes, scratch []byte) []byte {
	p.sum, p.extremes = uint64(s.Sum), e //nolint:gosec // not negative
	scratch, last := scratch[:0], 0
	for i, n := range &s.buckets {
		if n > 0 {
			scratch = binary.AppendUvarint(scratch, uint64(i-last)) //nolint:gosec // not negative
			scratch = binary.AppendUvarint(scratch, n)
			last = i
		}
	}
	if cap(p.buckets) < len(scratch) {
		p.buckets = make([]byte, 0, len(scratch)) // append would make room for more
	}
	p.buckets = append(p.buckets, scratch...)
	return scratch
}

func (p *packed) unpack(s *Snapshot) {
	*s = Snapshot{sum: p.sum, Sum: saturate(0, p.sum)}
	i := 0
	for b := p.buckets; len(b) > 0; {
		gap, n := binary.Uvarint(b)
		count, m := binary.Uvarint(b[n:])
		i, b = i+int(gap), b[n+m:] //nolint:gosec // at most numBuckets
		s.buckets[i] = count
		s.Count += count
	}
	s.bound(p.extremes)
}

// Since returns what came since the Reset, or the beginning: what each row has had is added to the Snapshot of its place
// in rows, the result is for the counters. over is how long that is.
func (h *History) Since(at time.Duration, rows []Snapshot) (counters []uint64, over time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.advance(at)
	var now Snapshot
	for i := range h.rows {
		past := h.rows[i].look()
		if past == nil {
			continue
		}
		now = Snapshot{}
		h.rows[i].live.Load().read(&now)
		if past.base != nil {
			now.subtract(past.base)
		}
		now.bound(past.since)
		rows[i].Add(&now)
	}
	counters = make([]uint64, len(h.counters))
	for i, c := range h.counters {
		counters[i] = c.Load() - h.base[i]
	}
	return counters, max(at-h.reset, 0)
}

// Last is Since of what came in the last n slots, at most 60, and in the one that is being filled. A Reset changes nothing
// of that.
func (h *History) Last(n int, at time.Duration, rows []Snapshot) (counters []uint64, over time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.advance(at)
	counters = make([]uint64, len(h.counters))
	current := h.current.Load()
	for number := current - int64(n); number <= current; number++ {
		h.addCounters(number, counters)
		for i := range h.rows {
			h.addRow(number, i, &rows[i])
		}
	}
	begin := max(time.Duration(current-int64(n))*SlotTime, h.born)
	return counters, max(at-begin, 0)
}

// Slot is Last of one slot, by its number: that of a time is its number of whole ten seconds. What the given rows have had is
// added up in one Snapshot.
func (h *History) Slot(number int64, at time.Duration, into *Snapshot, rows ...int) (counters []uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.advance(at)
	counters = make([]uint64, len(h.counters))
	h.addCounters(number, counters)
	for _, i := range rows {
		h.addRow(number, i, into)
	}
	return counters
}

// kept returns the slot of a number before the current one; nil: nothing came in it, or it is gone.
func (h *History) kept(number int64) *slot {
	if number < 0 {
		return nil
	}
	if s := &h.slots[number%Slots]; s.counters != nil && s.number == number {
		return s
	}
	return nil
}

func (h *History) addCounters(number int64, to []uint64) {
	if number == h.current.Load() {
		for i, c := range h.counters {
			to[i] += c.Load() - h.began[i]
		}
	} else if s := h.kept(number); s != nil {
		for i, n := range s.counters {
			to[i] += uint64(n)
		}
	}
}

func (h *History) addRow(number int64, i int, to *Snapshot) {
	var came Snapshot
	if number == h.current.Load() {
		past := h.rows[i].look()
		if past == nil {
			return
		}
		h.rows[i].live.Load().read(&came)
		came.subtract(&past.began)
		came.bound(past.slot)
	} else if s := h.kept(number); s != nil && len(s.rows[i].buckets) > 0 {
		s.rows[i].unpack(&came)
	}
	to.Add(&came)
}

// Reset begins what Since returns anew. It takes nothing from the Counters themselves.
func (h *History) Reset(at time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.advance(at)
	h.reset = at
	for i, c := range h.counters {
		h.base[i] = c.Load()
	}
	for i := range h.rows {
		if past := h.rows[i].look(); past != nil {
			past.base, past.since = new(Snapshot), extremes{}
			h.rows[i].live.Load().read(past.base)
		}
	}
}
