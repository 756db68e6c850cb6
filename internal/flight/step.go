package flight

import "io"

// Whole gets room for the whole body in one piece, for Step. It reports false,
// and changes nothing, if the length is unknown or above the limit, or the room
// is not granted. It is called first, by the filler.
func (f *Flight) Whole() bool {
	size := f.c.Length
	if size < 0 || f.abandoned || f.whole {
		return f.whole
	}
	if size > 0 {
		if !f.c.Reserve(size) {
			return false
		}
		f.extend(make([]byte, size), size)
	}
	f.whole = true
	return true
}

// Step is one turn of a fill: it reads src once, or until something comes of it,
// and returns what it published, which its caller need not read again. With the
// last bytes, or after them, it returns io.EOF at a clean end, or else an error
// as Fill does; then the fill is over. It returns ErrTaken, and reads nothing,
// once the fill was claimed: the caller goes on as a Reader that advances past
// what it had. If Reader is refused then, the fill has failed and Step returns how.
//
// Between two turns nobody fills. So a caller that may be held up there, and
// shares the body, leaves it to be claimed. A caller that gives up calls Claim
// itself, and Fail if it gets it.
func (f *Flight) Step(src io.Reader) (p []byte, err error) {
	if err := f.enterStep(); err != nil {
		return nil, err
	}
	over := true // also if src panics
	err = errAborted
	defer func() {
		if over {
			if err = f.end(err); err == nil {
				err = io.EOF
			}
		}
		f.leave()
	}()
	missing := f.tail
	over, err = f.step(src)
	return missing[:len(missing)-len(f.tail)], err
}

// enterStep begins a turn, or returns why there is none.
func (f *Flight) enterStep() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return f.err
	case f.claimed || f.busy:
		return ErrTaken
	case f.done:
		return io.EOF
	case !f.whole:
		return errNotWhole
	}
	f.busy = true
	return nil
}

// step reads a piece, and past the last one, so that whoever sends it on may
// know that it was the last.
func (f *Flight) step(src io.Reader) (over bool, err error) {
	for {
		p, err := f.space()
		if err != nil {
			return true, err
		}
		n, readErr := read(src, p)
		if err := f.take(n); err != nil {
			return true, err
		}
		if readErr != nil {
			return true, f.judge(readErr)
		}
		if len(f.tail) > 0 {
			return false, nil
		}
	}
}

// Claim reports whether the caller is to end the fill, by Fill, or by Fail: once
// at most, and not once it has ended. Fill and Fail wait for the Step under way.
func (f *Flight) Claim() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done || f.claimed {
		return false
	}
	f.claimed = true
	return true
}
