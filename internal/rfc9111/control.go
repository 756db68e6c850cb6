// Package rfc9111 holds the rules of RFC 9111 (HTTP Caching) for a shared cache, as functions of the messages alone, and what a cache keeps by them:
// a Resource of Entries under each key. It does no input or output and reads no clock. Where the standard leaves a choice the stricter reading is
// taken.
//
// Header arguments are read only, except where a function says so. Their names are canonical, as net/http makes them; nil is an empty header.
// All functions may be called concurrently. ParseRequest, Lookup, Key.Append, AppendVariant, MatchVariant, CurrentAge and the methods of Terms
// answer a request from the store and do not allocate.
package rfc9111

import (
	"net/http"
	"net/textproto"
	"strings"
	"time"
)

const (
	// Absent stands for a directive with delta-seconds that the message does not carry.
	Absent time.Duration = -1
	// MaxDelta is what greater delta-seconds, and sums that exceed it, are read as (RFC 9111 §1.2.2).
	MaxDelta = (1 << 31) * time.Second
)

// RequestControl is the Cache-Control of a request (RFC 9111 §5.2.1, RFC 5861 §4). Durations are Absent or between 0 and MaxDelta; unlike
// ParseRequest's answer, the zero value carries a max-age of 0. A member that breaks the grammar is ignored as an extension would be, unless its
// letters spell a directive that restricts: then it is taken as that.
type RequestControl struct {
	MaxAge       time.Duration // the greatest age that the client takes; the least of several, 0 if unreadable
	MinFresh     time.Duration // the least remaining lifetime that the client takes; the greatest of several, MaxDelta if unreadable
	MaxStale     time.Duration // how stale an answer the client takes; MaxDelta when bare, the least of several, 0 if unreadable
	StaleIfError time.Duration // how stale an answer the client takes in place of an error; the least of several, 0 if unreadable
	NoCache      bool
	NoStore      bool
	NoTransform  bool
	OnlyIfCached bool
}

// ParseRequest reads Cache-Control or, where that is absent, Pragma (RFC 9111 §5.4).
func ParseRequest(h http.Header) RequestControl {
	c := RequestControl{MaxAge: Absent, MinFresh: Absent, MaxStale: Absent, StaleIfError: Absent}
	lines := h["Cache-Control"]
	if len(lines) == 0 {
		c.NoCache = pragmaNoCache(h)
		return c
	}
	s := scanner{lines: lines}
	for d, ok := s.next(); ok; d, ok = s.next() {
		if d.broken {
			c.suspect(d)
		} else {
			c.add(d)
		}
	}
	return c
}

func (c *RequestControl) add(d directive) {
	var lower [longestDirective]byte
	switch string(d.fold(&lower)) {
	case "max-age":
		v, _ := d.delta()
		c.MaxAge = least(c.MaxAge, v)
	case "min-fresh":
		v, ok := d.delta()
		if !ok {
			v = MaxDelta
		}
		c.MinFresh = max(c.MinFresh, v)
	case "max-stale":
		v, _ := d.delta()
		if d.bare {
			v = MaxDelta // RFC 9111 §5.2.1.2: without an argument, of any age
		}
		c.MaxStale = least(c.MaxStale, v)
	case "stale-if-error":
		v, _ := d.delta()
		c.StaleIfError = least(c.StaleIfError, v)
	case "no-cache":
		c.NoCache = true
	case "no-store":
		c.NoStore = true
	case "no-transform":
		c.NoTransform = true
	case "only-if-cached":
		c.OnlyIfCached = true
	}
}

// suspect takes from a broken member what it may have restricted.
func (c *RequestControl) suspect(d directive) {
	c.NoStore = c.NoStore || d.mentions("nostore")
	c.NoCache = c.NoCache || d.mentions("nocache")
	if d.mentions("maxage") {
		c.MaxAge = 0
	}
	if d.mentions("minfresh") {
		c.MinFresh = MaxDelta
	}
}

// ResponseControl is the Cache-Control of a response (RFC 9111 §5.2.2, RFC 5861, RFC 8246), or a targeted field that stands in its place (RFC
// 9213). Durations are Absent or between 0 and MaxDelta; unlike ParseResponse's answer, the zero value carries a max-age and an s-maxage of 0.
// The qualified forms no-cache="field" and private="field" are read as the unqualified ones, as §5.2.2.4 and §5.2.2.7 allow. A member that
// breaks the grammar is ignored as an extension would be (§5.2.3), unless its letters spell a directive that restricts or states a lifetime:
// then it is taken as that, the lifetime as unreadable.
type ResponseControl struct {
	MaxAge               time.Duration // 0 if unreadable or given twice with different values: stale (RFC 9111 §4.2.1)
	SMaxAge              time.Duration // likewise
	StaleWhileRevalidate time.Duration // the least of several, 0 if unreadable
	StaleIfError         time.Duration // likewise
	Immutable            bool
	MustRevalidate       bool
	MustUnderstand       bool
	NoCache              bool
	NoStore              bool
	NoTransform          bool
	Private              bool
	ProxyRevalidate      bool
	Public               bool
	Malformed            bool // a member does not follow the grammar
	Vague                bool // a targeted field states a lifetime in a type that is not its own: it is ignored, but no guess may take its place
}

// ParseResponse reads Cache-Control. Pragma has no meaning in a response (RFC 9111 §5.4).
func ParseResponse(h http.Header) ResponseControl {
	c := silent()
	s := scanner{lines: h["Cache-Control"]}
	for d, ok := s.next(); ok; d, ok = s.next() {
		if d.broken {
			c.suspect(d)
		} else {
			c.add(d)
		}
	}
	return c
}

// silent is the control of a response that states none.
func silent() ResponseControl {
	return ResponseControl{MaxAge: Absent, SMaxAge: Absent, StaleWhileRevalidate: Absent, StaleIfError: Absent}
}

func (c *ResponseControl) add(d directive) {
	var lower [longestDirective]byte
	switch string(d.fold(&lower)) {
	case "max-age":
		v, _ := d.delta()
		c.MaxAge = agreed(c.MaxAge, v)
	case "s-maxage":
		v, _ := d.delta()
		c.SMaxAge = agreed(c.SMaxAge, v)
	case "stale-while-revalidate":
		v, _ := d.delta()
		c.StaleWhileRevalidate = least(c.StaleWhileRevalidate, v)
	case "stale-if-error":
		v, _ := d.delta()
		c.StaleIfError = least(c.StaleIfError, v)
	case "immutable":
		c.Immutable = c.Immutable || d.bare // it permits, so only as the grammar of RFC 8246 §2 has it
	case "must-revalidate":
		c.MustRevalidate = true
	case "must-understand":
		c.MustUnderstand = c.MustUnderstand || d.bare
	case "no-cache":
		c.NoCache = true
	case "no-store":
		c.NoStore = true
	case "no-transform":
		c.NoTransform = true
	case "private":
		c.Private = true
	case "proxy-revalidate":
		c.ProxyRevalidate = true
	case "public":
		c.Public = c.Public || d.bare // it permits, so only as the grammar of RFC 9111 §5.2.2.9 has it
	}
}

// suspect takes from a broken member what it may have restricted.
func (c *ResponseControl) suspect(d directive) {
	c.Malformed = true
	c.NoStore = c.NoStore || d.mentions("nostore")
	c.Private = c.Private || d.mentions("private")
	c.NoCache = c.NoCache || d.mentions("nocache")
	c.MustRevalidate = c.MustRevalidate || d.mentions("mustrevalidate")
	c.ProxyRevalidate = c.ProxyRevalidate || d.mentions("proxyrevalidate")
	switch {
	case d.mentions("smaxage"):
		c.SMaxAge = 0
	case d.mentions("maxage"):
		c.MaxAge = 0
	}
}

// shared reports whether the origin says that the answer to one client may serve others (RFC 9111 §5.2.2.9, §5.2.2.10).
func (c *ResponseControl) shared() bool { return c.Public || c.SMaxAge != Absent }

func pragmaNoCache(h http.Header) bool {
	for _, line := range h["Pragma"] {
		for member := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(textproto.TrimString(member), "no-cache") {
				return true
			}
		}
	}
	return false
}

func least(old, v time.Duration) time.Duration {
	if old == Absent {
		return v
	}
	return min(old, v)
}

func agreed(old, v time.Duration) time.Duration {
	if old == Absent || old == v {
		return v
	}
	return 0 // RFC 9111 §4.2.1: with several values, the first or stale
}
