package balance

import "time"

// Ejection takes endpoints out of use by what becomes of the attempts at them. The time of an ejection doubles with
// each that follows: Base, 2 × Base, … up to Max. For every Base that the endpoint spends in use one is forgotten.
//
// After its time an ejected endpoint is given one attempt. A success takes it back, with slow start; a failure ejects
// it for longer; anything else, or no report within Base, leaves it to the next.
type Ejection struct {
	Consecutive int // failures in a row that eject; 0 and negative: none do

	// SuccessRate ejects an endpoint when, over ten seconds, the share of its attempts that succeed is less than this
	// part of the share among all the others, and both have had Volume attempts. 0 and negative: off.
	SuccessRate float64
	Volume      int

	Base, Max time.Duration // a Base of 0 or less: nobody is ejected; a Max below Base means Base

	// MaxShare is the share of endpoints that may be ejected; those that active checks have found unhealthy count
	// too. If it is positive and there are two endpoints or more, one may always be. Where another would be one too
	// many, it takes the place of the one that has been out longest, whose time is then over. Should that one fail again, it
	// is out for as long as before, and no longer.
	MaxShare float64
}

// conduct is what is remembered about attempts at an endpoint; its lock guards it.
type conduct struct {
	failures int     // in a row
	recent   history // since the last ejection
	compared instant // with the other endpoints

	ejections int           // in short order
	inUse     instant       // since when, after the last of them
	outSince  instant       // of the first of those without a recovery between them
	out       time.Duration // for how long, by the last of them
	relieved  bool          // of the rest of that
}

// blame counts a failure, and returns why the endpoint should be ejected (for [SuccessRate], if the others do better). What fails during an ejection began before it or was the last resort, and counts for
// nothing. e.mu is held.
func (e *Endpoint[T]) blame(at instant) Cause {
	limits := &e.set.config.Load().Ejection
	if limits.Base <= 0 {
		return Unchanged
	}
	if until := e.until.Load(); until != 0 {
		if int64(at) < until {
			return Unchanged
		}
		return Trial
	}
	c := &e.conduct
	c.failures++
	c.recent.add(at).failures++
	// While there is no room for another ejection, ask again only after as many failures.
	if limits.Consecutive > 0 && c.failures%limits.Consecutive == 0 {
		return Consecutive
	}
	if limits.SuccessRate > 0 && at-c.compared >= instant(time.Second) {
		if rate, volume := c.recent.sum(at).rate(); volume >= limits.Volume && rate < limits.SuccessRate {
			c.compared = at
			return SuccessRate
		}
	}
	return Unchanged
}

// judge ejects an endpoint that is blamed, if there is room.
func (s *Set[T]) judge(e *Endpoint[T], why Cause, at instant) Change {
	if why == Unchanged {
		return Change{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.gone || why == SuccessRate && !s.isOutlier(e, at) {
		return Change{}
	}
	room := s.room(e, at) || why != SuccessRate && s.relieve(e, at)
	e.mu.Lock()
	defer e.mu.Unlock()
	if !room {
		e.trial.Store(0) // still one at a time
		return Change{}
	}
	d := e.eject(at)
	if d == 0 {
		return Change{}
	}
	s.count()
	return Change{why, d}
}

// isOutlier compares an endpoint with all the others together; s.mu is held.
func (s *Set[T]) isOutlier(e *Endpoint[T], at instant) bool {
	var own, others tally
	for _, o := range s.view.Load().all {
		o.mu.Lock()
		sum := o.conduct.recent.sum(at)
		o.mu.Unlock()
		if o == e {
			own = sum
		} else {
			others.successes += sum.successes
			others.failures += sum.failures
		}
	}
	limits := &s.config.Load().Ejection
	rate, volume := own.rate()
	usual, among := others.rate()
	return min(volume, among) >= max(limits.Volume, 1) && rate < limits.SuccessRate*usual
}

// room reports whether e may be out of use beside those that are; s.mu is held.
func (s *Set[T]) room(e *Endpoint[T], at instant) bool {
	all := s.view.Load().all
	share := s.config.Load().Ejection.MaxShare
	limit := int(share*float64(len(all)) + 1e-9) // 0.29 × 100 is 29
	if share > 0 && len(all) > 1 {
		limit = max(limit, 1)
	}
	out := 1
	for _, o := range all {
		if o != e && !o.available(at) {
			out++
		}
	}
	return out <= limit
}

// relieve ends the time of the endpoint that has been ejected for longest, so that e may be in its place: while one is
// restarted after the other, who was is well by now. s.mu is held.
func (s *Set[T]) relieve(e *Endpoint[T], at instant) bool {
	var longest *Endpoint[T]
	var since instant
	for _, o := range s.view.Load().all {
		if o == e || o.down.Load() || int64(at) >= o.until.Load() {
			continue
		}
		o.mu.Lock()
		out := o.conduct.outSince
		o.mu.Unlock()
		if longest == nil || out < since {
			longest, since = o, out
		}
	}
	if longest == nil {
		return false
	}
	longest.mu.Lock()
	defer longest.mu.Unlock()
	longest.until.Store(int64(at))
	longest.trial.Store(0)
	longest.conduct.relieved = true
	return true
}

// eject returns for how long; 0: another failure was first. e.mu is held.
func (e *Endpoint[T]) eject(at instant) time.Duration {
	until := e.until.Load()
	if int64(at) < until {
		return 0
	}
	limits, c := &e.set.config.Load().Ejection, &e.conduct
	if limits.Base <= 0 {
		return 0 // since it was blamed
	}
	if c.inUse != 0 {
		forgotten := int64(at-c.inUse) / int64(limits.Base)
		c.ejections = int(max(int64(c.ejections)-forgotten, 0))
	}
	d := limits.Base
	for range c.ejections {
		d = min(d, limits.Max/2) * 2
	}
	switch {
	case c.relieved: // it has not been out for its time: in an outage of all, they relieve each other again and again
		d = min(d, max(c.out, limits.Base))
	case d < limits.Max:
		c.ejections++
	}
	out := c.outSince
	if until == 0 {
		out = at
	}
	*c = conduct{ejections: c.ejections, outSince: out, out: d}
	e.ejections.Add(1)
	e.trial.Store(0)
	e.until.Store(int64(at) + int64(d))
	return d
}

// readmit takes an ejected endpoint back whose time is over. e.mu is held.
func (e *Endpoint[T]) readmit(at instant) bool {
	if until := e.until.Load(); until == 0 || int64(at) < until {
		return false
	}
	e.restore(at)
	return true
}

// pardon takes an ejected endpoint back, whatever its time.
func (e *Endpoint[T]) pardon() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conduct = conduct{}
	e.until.Store(0)
	e.trial.Store(0)
}

// restore begins a new life, but for what latency and earlier ejections are remembered. e.mu is held.
func (e *Endpoint[T]) restore(at instant) {
	e.conduct = conduct{ejections: e.conduct.ejections, inUse: at}
	e.average.pardon()
	e.warmUp(at)
	e.until.Store(0)
	e.trial.Store(0)
}

// available reports whether the endpoint is fit, and, if it is due for a trial, that none is running.
func (e *Endpoint[T]) available(at instant) bool {
	return e.fit(at) && int64(at) >= e.trial.Load()
}

// try takes the trial of an ejected endpoint. It reports false if another pick was faster.
func (e *Endpoint[T]) try(at instant) bool {
	before := e.trial.Load()
	return int64(at) >= before && e.trial.CompareAndSwap(before, int64(at)+int64(e.set.config.Load().Ejection.Base))
}
