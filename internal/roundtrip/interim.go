package roundtrip

import (
	"maps"
	"net/http"
	"net/textproto"
	"sync"
)

// interims hands 1xx responses to the observer in their order, on a goroutine of
// its own that lives as long as there are some: the one that brings them reads
// for all the exchanges of its connection, and an observer may be slow.
type interims struct {
	mu      sync.Mutex
	queue   []interim
	handing chan struct{} // closed when the goroutine has ended; nil: there is none
	over    bool          // what comes is ignored
	flooded bool          // more came than may wait
	fault   any           // the observer's panic
}

type interim struct {
	status int
	header http.Header
}

// maxWaiting is how many may wait for a slow observer, who is told of them before
// the exchange ends for their number.
const maxWaiting = 16

// ErrFlooded is an upstream that sends interim responses faster than they can be
// handed on.
const ErrFlooded ProtocolError = "too many 1xx responses"

// got1xx takes up a 1xx response. An error ends the round trip.
func (x *Exchange) got1xx(status int, header textproto.MIMEHeader) error {
	switch {
	case status < 100 || status > 199:
		return nil
	case status == http.StatusSwitchingProtocols: // not in HTTP/2 (RFC 9113 §8.6), and final elsewhere
		return x.refuse("101 where no protocol can be switched")
	}
	if !x.Own { // who knows what else it does with it
		header = maps.Clone(header)
	}
	x.enqueue(interim{status, http.Header(header)})
	return nil
}

func (x *Exchange) refuse(why ProtocolError) error {
	x.Abort(why)
	return why
}

// enqueue has the observer be told of next, unless it is too late for it, or too
// many wait.
func (x *Exchange) enqueue(next interim) {
	i := &x.interims
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.flooded = i.flooded || len(i.queue) == maxWaiting; i.over || i.flooded {
		return
	}
	i.queue = append(i.queue, next)
	if i.handing == nil {
		i.handing = make(chan struct{})
		go x.handOn(i.handing)
	}
}

// handOn tells the observer of what is queued.
func (x *Exchange) handOn(done chan struct{}) {
	i := &x.interims
	defer func() {
		if v := recover(); v != nil {
			i.stop(v)
			x.Abort(errPanic)
		}
		close(done)
	}()
	for {
		next, flooded, ok := i.next()
		if flooded {
			x.Abort(ErrFlooded)
		}
		if !ok {
			return
		}
		if err := x.Observer.Interim(next.status, next.header); err != nil {
			i.stop(nil)
			x.Abort(err)
		}
	}
}

// next takes the next one off the queue, and says whether that was the end of one
// that was too long. At its end the goroutine ends.
func (i *interims) next() (next interim, flooded, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.queue) == 0 {
		i.handing = nil
		return interim{}, i.flooded && !i.over, false
	}
	next = i.queue[0]
	i.queue = i.queue[1:]
	return next, false, true
}

// stop drops what is queued, and ignores what comes. fault is the observer's
// panic.
func (i *interims) stop(fault any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.over, i.queue = true, nil
	if fault != nil {
		i.fault = fault
	}
}

// close ends the time of 1xx responses, and waits for the observer. What is
// queued is dropped, or handed on before. It panics with what the observer has.
func (i *interims) close(drop bool) {
	i.mu.Lock()
	i.over = true
	if drop {
		i.queue = nil
	}
	handing := i.handing
	i.mu.Unlock()
	if handing != nil {
		<-handing
	}
	i.mu.Lock()
	fault := i.fault
	i.fault = nil
	i.mu.Unlock()
	if fault != nil {
		panic(fault)
	}
}
