package rfc9111

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Lines are what the fields of one cache's responses say, made once for each outcome. They are safe for concurrent use, once they
// have the cache's name.
type Lines struct {
	Cache string

	mu     sync.Mutex // of who adds a miss
	misses atomic.Pointer[map[Miss]string]
	hits   [256]atomic.Pointer[Hit]
}

// maxMissLines bounds what an upstream brings about with its statuses.
const maxMissLines = 1024

// Hit is what the fields of a hit say for a second.
type Hit struct {
	Age    string
	Status string // Cache-Status (RFC 9211)
	TTL    time.Duration

	seconds int64
}

// Hit returns the fields for an age, in whole seconds. Entries of one age and lifetime share them, as long as no other has taken their place: there
// are fewer to be made, and a hit finds them where others have just been.
func (l *Lines) Hit(seconds int64, lifetime time.Duration) *Hit {
	ttl := lifetime - time.Duration(seconds)*time.Second
	place := &l.hits[uint64(seconds+31*int64(ttl/time.Second))%uint64(len(l.hits))]
	if h := place.Load(); h != nil && h.seconds == seconds && h.TTL == ttl {
		return h
	}
	h := &Hit{seconds: seconds, TTL: ttl, Age: strconv.FormatInt(seconds, 10), Status: l.Status(&Status{Hit: true, Timed: true, TTL: ttl})}
	place.Store(h)
	return h
}

// Miss returns the Cache-Status of a miss. Those that occur are few, and kept.
func (l *Lines) Miss(m Miss) string {
	if known := l.misses.Load(); known != nil {
		if line := (*known)[m]; line != "" {
			return line
		}
	}
	line := l.Status(&Status{Miss: m})
	l.mu.Lock()
	defer l.mu.Unlock()
	next := map[Miss]string{m: line}
	if known := l.misses.Load(); known != nil {
		if len(*known) >= maxMissLines {
			return line
		}
		maps.Copy(next, *known)
	}
	l.misses.Store(&next)
	return line
}

// Status returns the Cache-Status of any outcome.
func (l *Lines) Status(s *Status) string { return string(AppendStatus(nil, l.Cache, s)) }
